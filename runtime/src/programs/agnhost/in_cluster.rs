//! The API server as a pod reaches it: by its environment and the files of its service account
//! (`rest.InClusterConfig` of client-go).

use super::Call;
use super::client::{self, Answer, Ask};
use crate::commands::Trust;
use bytes::Bytes;
use http::Method;
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::TlsConnector;

const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
const CA: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A client of the API server.
pub(super) struct InCluster {
    call: Arc<Call>,
    /// `https://host:port`.
    origin: String,
    tls: TlsConnector,
}

impl InCluster {
    /// The client that the pod's environment describes; the error is what client-go says.
    pub fn of(call: &Arc<Call>) -> Result<InCluster, String> {
        let named = |name: &str| call.env.get(name).filter(|value| !value.is_empty());
        let (Some(host), Some(port)) = (named("KUBERNETES_SERVICE_HOST"), named("KUBERNETES_SERVICE_PORT")) else {
            return Err(
                "unable to load in-cluster configuration, KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT \
                        must be defined"
                    .to_string(),
            );
        };
        let ca = call.world.fs.read(CA).map_err(|error| super::go_format::path_error("open", CA, &error))?;
        let tls = Trust::roots(&ca).connector(&call.world.clock).map_err(|error| format!("tls: {error}"))?;
        let origin = format!("https://{}", client::join_host_port(host, port));
        Ok(InCluster { call: call.clone(), origin, tls })
    }

    /// The pod's token as it is now: a kubelet renews it.
    pub fn token(&self) -> Result<String, String> {
        let token = self.call.world.read_text(TOKEN);
        let token = token.map_err(|error| super::go_format::path_error("open", TOKEN, &error))?;
        Ok(token.trim().to_string())
    }

    /// Gets a path of the API server, or a URL of whomever the cluster's CA vouches for.
    pub async fn get(&self, path: &str) -> Result<Answer, String> {
        let url = if path.starts_with('/') { format!("{}{path}", self.origin) } else { path.to_string() };
        let token = self.token()?;
        let ask = Ask {
            method: Method::GET,
            url: &url,
            body: Bytes::new(),
            timeout: TIMEOUT,
            tls: Some(&self.tls),
            bearer: Some(&token),
        };
        client::ask(&self.call, ask).await
    }
}
