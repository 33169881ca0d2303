//! The API server's way to kubelets in processes of their own: HTTPS to an address and port that the Node names.
//! (`pkg/kubelet/client/kubelet_client.go`.)

use std::io;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use minik8s_api::kinds::GroupResource;
use minik8s_apiserver::cache::Objects;
use minik8s_apiserver::endpoints::connect::NodeConnector;
use minik8s_apiserver::server::ApiServer;
use minik8s_clock::Clock;
use minik8s_streaming::BoxedStream;
use minik8s_streaming::tls::AnyServer;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::pki::{self, CertifiedKey};

/// How long a connection, TLS included, may take to come about (kubelet client: `HTTPTimeout`).
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// The addresses of a Node in the order in which they are tried, unless operators say otherwise.
pub const ADDRESS_TYPES: [&str; 5] = ["Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP"];

/// How kubelets are dialled.
pub struct Options {
    /// Whom kubelets must prove to be signed by (PEM, `--kubelet-certificate-authority`). Without it they are believed
    /// whatever they show, as kube-apiserver does.
    pub ca_pem: Option<String>,
    /// The certificate that the API server shows to them.
    pub client: Option<CertifiedKey>,
    /// Which kind of address is taken: the first that the Node has (`--kubelet-preferred-address-types`).
    pub address_types: Vec<String>,
}

/// Dials kubelets.
pub struct KubeletDialer {
    tls: TlsConnector,
    address_types: Vec<String>,
    clock: Clock,
    api: OnceLock<Weak<ApiServer>>,
}

impl KubeletDialer {
    /// A dialer that knows no Nodes yet: [`KubeletDialer::attach`] tells it where they are.
    ///
    /// # Errors
    /// A certificate, key or CA that cannot be used.
    pub fn new(options: &Options, clock: Clock) -> Result<Self> {
        let builder = ClientConfig::builder();
        let provider = builder.crypto_provider().clone();
        let builder = match &options.ca_pem {
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for root in pki::all_der(pem)? {
                    roots.add(root).context("the CA of kubelets cannot be used")?;
                }
                builder.with_root_certificates(roots)
            }
            None => builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer(provider))),
        };
        let config = match &options.client {
            Some(own) => builder
                .with_client_auth_cert(pki::all_der(&own.cert_pem)?, pki::private_key(&own.key_pem)?)
                .context("the client certificate for kubelets cannot be used")?,
            None => builder.with_no_client_auth(),
        };
        let (tls, address_types) = (TlsConnector::from(Arc::new(config)), options.address_types.clone());
        Ok(Self { tls, address_types, clock, api: OnceLock::new() })
    }

    /// The API server that knows the Nodes.
    pub fn attach(&self, api: &Arc<ApiServer>) {
        // A second server would be a second dialer.
        let _ = self.api.set(Arc::downgrade(api));
    }

    fn node(&self, name: &str) -> io::Result<Value> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("nodes {name:?} not found"));
        let api = self.api.get().and_then(Weak::upgrade).ok_or_else(missing)?;
        let node = api.registry().cache().get(&GroupResource::new("", "nodes"), "", name).ok_or_else(missing)?;
        Ok(node.value())
    }

    async fn dial(&self, host: String, port: u16) -> io::Result<BoxedStream> {
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(host).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        Ok(Box::new(self.tls.connect(name, stream).await?))
    }
}

/// Where a Node's kubelet listens.
fn endpoint(node: &Value, address_types: &[String]) -> io::Result<(String, u16)> {
    let status = &node["status"];
    let addresses = || status["addresses"].as_array().into_iter().flatten();
    let address = address_types.iter().find_map(|kind| {
        addresses().find(|address| address["type"] == kind.as_str()).and_then(|address| address["address"].as_str())
    });
    let address = address.ok_or_else(|| {
        let shown = address_types.join(" ");
        io::Error::new(io::ErrorKind::NotFound, format!("no preferred addresses found; known addresses: [{shown}]"))
    })?;
    let port = status["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64().and_then(|port| u16::try_from(port).ok());
    Ok((address.to_owned(), port.filter(|port| *port > 0).unwrap_or(minik8s_kubelet::KUBELET_PORT)))
}

#[async_trait]
impl NodeConnector for KubeletDialer {
    async fn connect(&self, node: &str) -> io::Result<BoxedStream> {
        let (host, port) = endpoint(&self.node(node)?, &self.address_types)?;
        let dialled = self.clock.timeout(DIAL_TIMEOUT, self.dial(host.clone(), port)).await;
        let dialled = dialled.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "i/o timeout")));
        dialled.map_err(|error| io::Error::new(error.kind(), format!("dial tcp {host}:{port}: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_preferred_address_and_the_nodes_own_port_count() {
        let node = json!({"status": {
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": "a"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10350}},
        }});
        let types = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(endpoint(&node, &types(&ADDRESS_TYPES)).unwrap(), ("a".to_owned(), 10350));
        assert_eq!(endpoint(&node, &types(&["ExternalIP", "InternalIP"])).unwrap().0, "10.0.0.1");
        let error = endpoint(&node, &types(&["ExternalIP"])).unwrap_err();
        assert_eq!(error.to_string(), "no preferred addresses found; known addresses: [ExternalIP]");
    }
}
