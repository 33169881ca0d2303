//! The port of the scheduler and of the controllers: health for everybody, metrics for those who may.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use axum::Router;
use axum::routing::get;
use minik8s_client::Client;
use minik8s_clock::Clock;
use minik8s_metrics::{Kind, Registry, Text};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::node::KUBERNETES_VERSION;
use crate::pki::CertifiedKey;
use crate::wiring::guard::{Guard, Question, Questions, Rules};
use crate::wiring::listener;

/// Paths that need no permission (`--authorization-always-allow-paths`).
const OPEN_PATHS: [&str; 3] = ["/healthz", "/livez", "/readyz"];

/// What the port shows of its component.
#[derive(Clone)]
pub struct Shown {
    /// `kube-scheduler`.
    pub component: &'static str,
    /// Whether this replica works, rather than waiting to lead.
    pub leading: Arc<AtomicBool>,
    /// Seconds since 1970 at which the process began.
    pub started: i64,
    /// What the component counts.
    pub metrics: Registry,
}

/// Serves until `cancel`. Users are authenticated and authorized by the API server; `client_ca_pem` (may be empty) says
/// whose certificates are good.
///
/// # Errors
/// A certificate or client CA that cannot be used.
pub fn serve(
    shown: Shown,
    listener: TcpListener,
    certificate: &CertifiedKey,
    client_ca_pem: String,
    client: Client,
    cancel: CancellationToken,
) -> Result<()> {
    let clock: Clock = client.clock().clone();
    let rules =
        Rules { client_ca_pem, anonymous: true, tokens: true, authorize: true, plain: false, questions: questions() };
    let guard = Guard::new(rules, client)?;
    let tls = listener::tls(certificate, &guard)?;
    let ok = || async { "ok" };
    let mut routes = Router::new().route("/metrics", get(move || std::future::ready(metrics(&shown))));
    for path in OPEN_PATHS {
        routes = routes.route(path, get(ok)).route(&format!("{path}/ping"), get(ok));
    }
    tokio::spawn(listener::serve(listener, tls, guard.protect(routes), clock, cancel));
    Ok(())
}

fn questions() -> Questions {
    Arc::new(|request| {
        let path = request.uri.path();
        if OPEN_PATHS.contains(&path) {
            return Vec::new();
        }
        let verb = request.method.as_str().to_lowercase();
        vec![Question::Path { verb, path: path.to_owned() }]
    })
}

fn metrics(shown: &Shown) -> String {
    let mut text = Text::default();
    let build = [("git_version", KUBERNETES_VERSION), ("major", "1"), ("minor", "37")];
    text.family("kubernetes_build_info", Kind::Gauge, "What this is.").sample(&build, 1);
    let (name, help) = ("leader_election_master_status", "Whether this replica works, rather than waiting to lead.");
    let leading = u8::from(shown.leading.load(Ordering::Relaxed));
    text.family(name, Kind::Gauge, help).sample(&[("name", shown.component)], leading);
    let name = "process_start_time_seconds";
    text.family(name, Kind::Gauge, "When the process began, in seconds since 1970.").sample(&[], shown.started);
    shown.metrics.write(&mut text);
    text.finish()
}
