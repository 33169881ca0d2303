//! The port of a kubelet that runs in a process of its own.

use std::sync::Arc;

use minik8s_kubelet::Kubelet;
use minik8s_kubelet::server::questions;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use anyhow::Result;
use minik8s_clock::Clock;

use crate::pki::CertifiedKey;
use crate::wiring::guard::{Guard, Question, Questions};
use crate::wiring::listener;

/// What a request to the kubelet of a node asks for: a subresource of the Node.
pub fn node_questions(node: &str) -> Questions {
    let node = node.to_owned();
    Arc::new(move |request| {
        let asked = questions(request.method.as_str(), request.uri.path()).into_iter();
        asked.map(|q| Question::Node { verb: q.verb, subresource: q.subresource, name: node.clone() }).collect()
    })
}

/// Serves the kubelet's API until `cancel`.
///
/// # Errors
/// A certificate that cannot be used.
pub fn serve(
    kubelet: &Arc<Kubelet>,
    listener: TcpListener,
    certificate: &CertifiedKey,
    guard: &Arc<Guard>,
    clock: Clock,
    cancel: CancellationToken,
) -> Result<()> {
    let tls = listener::tls(certificate, guard)?;
    tokio::spawn(listener::serve(listener, tls, guard.protect(kubelet.http()), clock, cancel));
    Ok(())
}
