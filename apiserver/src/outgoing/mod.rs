//! # Outgoing connections
//!
//! The API server calls out: to webhooks, to the servers behind APIServices, to Services for those who proxy through it.
//! All of these take one road:
//!
//! ```text
//!  [`Place`]  Service ─ resolve ─► a ready endpoint, or an external name ─┐
//!             host of a URL ──────────────────────────────────────────────┴─► [`ServiceDialer`] ─► bytes ─► [`tls`]
//! ```
//! [`service`] finds endpoints, [`tls`] trusts and says in Go's words why not, [`fetch`] carries one question, [`webhook`] asks one in JSON.
//! The server's own network knows no pods: who wires a cluster says how an address is reached. So a simulated cluster
//! needs no real route. (Kubernetes: `kube-aggregator/pkg/apiserver/resolvers.go`, `--enable-aggregator-routing`.)
//!
//! Left out, compared with Kubernetes: connections that are kept, and HTTP/2.

pub mod fetch;
pub mod service;
pub mod tls;
mod trust;
pub mod webhook;

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use minik8s_clock::{Clock, Random};
use minik8s_streaming::BoxedStream;
use tokio::net::TcpStream;

use crate::cache::Objects;

pub use service::{Endpoint, ServicePort, Unresolved};

/// Reaches whatever has an address: a pod, a machine, a host by its name.
#[async_trait]
pub trait ServiceDialer: Send + Sync {
    /// Opens a stream to a port of `host`, which is an IP address or a name. Errors are those of a TCP connection.
    async fn dial(&self, host: &str, port: u16) -> io::Result<BoxedStream>;
}

/// The network of the machine that this process runs on.
#[derive(Debug, Clone, Copy, Default)]
pub struct MachineNetwork;

#[async_trait]
impl ServiceDialer for MachineNetwork {
    async fn dial(&self, host: &str, port: u16) -> io::Result<BoxedStream> {
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

/// Where somebody is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A host and port as a URL names them.
    Host(Endpoint),
    /// A port of a Service.
    Service {
        /// The Service's namespace.
        namespace: String,
        /// The Service's name.
        name: String,
        /// The Service's port, not the pod's.
        port: u16,
    },
}

/// The server's way out. Clones share it.
#[derive(Clone)]
pub struct Outgoing {
    objects: Arc<dyn Objects>,
    dialer: Arc<dyn ServiceDialer>,
    clock: Clock,
    random: Random,
}

impl Outgoing {
    /// A way out over `dialer`, to the Services among `objects`.
    pub fn new(objects: Arc<dyn Objects>, dialer: Arc<dyn ServiceDialer>, clock: Clock, random: Random) -> Outgoing {
        Outgoing { objects, dialer, clock, random }
    }

    /// The time that waits and certificates go by.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The cluster's objects.
    pub fn objects(&self) -> &Arc<dyn Objects> {
        &self.objects
    }

    /// UIDs of questions, and the choice among endpoints.
    pub fn random(&self) -> &Random {
        &self.random
    }

    /// One of the ready endpoints of a Service's port.
    pub fn resolve(&self, namespace: &str, name: &str, port: ServicePort<'_>) -> Result<Endpoint, Unresolved> {
        let mut all = service::endpoints(&*self.objects, namespace, name, port)?;
        let at = self.random.below(all.len() as u64) as usize;
        Ok(all.swap_remove(at))
    }

    /// The endpoint of a place.
    pub fn locate(&self, place: &Place) -> Result<Endpoint, Unresolved> {
        match place {
            Place::Host(endpoint) => Ok(endpoint.clone()),
            Place::Service { namespace, name, port } => self.resolve(namespace, name, ServicePort::Number(*port)),
        }
    }

    /// Connects to an endpoint. Errors are Go's words (`dial tcp 10.0.0.1:443: connect: connection refused`).
    pub async fn dial(&self, endpoint: &Endpoint) -> Result<BoxedStream, String> {
        let stream = self.dialer.dial(&endpoint.host, endpoint.port).await;
        stream.map_err(|error| match error.to_string() {
            // The resolver's errors have no kind of their own.
            words if words.starts_with("failed to lookup address") => {
                format!("dial tcp: lookup {}: no such host", endpoint.host)
            }
            _ => format!("dial tcp {endpoint}: {}", reason(&error)),
        })
    }
}

/// Go's words for what became of a connection.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        io::ErrorKind::TimedOut => "connect: connection timed out".to_owned(),
        _ => error.to_string(),
    }
}
