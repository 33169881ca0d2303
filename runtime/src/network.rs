//! The network a pod sees: its own listening sockets, and whoever else answers through [`Network`].

use async_trait::async_trait;
use minik8s_streaming::BoxedStream;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::sync::mpsc;

/// How many connections wait to be accepted on a port before further ones are refused (`SOMAXCONN` of older kernels).
pub const LISTEN_BACKLOG: usize = 128;

/// Why a name has no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The server says that there is no such name.
    #[error("NXDOMAIN")]
    NoSuchName,
    /// No server answers.
    #[error("connection timed out; no servers could be reached")]
    NoServer,
}

/// All of the network outside of a pod. The simulated data plane implements it: Services, DNS, policies.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// The addresses of a name, asked for as it stands, by a pod.
    async fn resolve(&self, pod: &PodNetwork, name: &str) -> Result<Vec<IpAddr>, ResolveError>;
    /// Opens a connection from a pod.
    async fn connect(&self, pod: &PodNetwork, to: SocketAddr) -> io::Result<BoxedStream>;
}

/// A network without anybody: no name server answers, and no host can be reached.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unreachable;

#[async_trait]
impl Network for Unreachable {
    async fn resolve(&self, _pod: &PodNetwork, _name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        Err(ResolveError::NoServer)
    }

    async fn connect(&self, _pod: &PodNetwork, _to: SocketAddr) -> io::Result<BoxedStream> {
        Err(io::ErrorKind::HostUnreachable.into())
    }
}

/// The network namespace of a sandbox.
pub struct PodNetwork {
    /// The pod's address; `None` on the node's own network.
    pub ip: Option<IpAddr>,
    /// Name servers, as `resolv.conf` lists them.
    pub dns_servers: Vec<String>,
    /// Domains that short names are tried in.
    pub dns_searches: Vec<String>,
    /// A name with fewer dots is tried in the search domains first.
    pub dns_ndots: usize,
    /// Ports that the pod's containers declare; what an unknown program listens on.
    pub declared_ports: Vec<u16>,
    host_name: String,
    outside: Arc<dyn Network>,
    listeners: Arc<Mutex<BTreeMap<u16, mpsc::Sender<BoxedStream>>>>,
}

impl PodNetwork {
    /// A network namespace without listeners.
    pub fn new(ip: Option<IpAddr>, host_name: String, outside: Arc<dyn Network>) -> PodNetwork {
        PodNetwork {
            ip,
            dns_servers: Vec::new(),
            dns_searches: Vec::new(),
            dns_ndots: 1,
            declared_ports: Vec::new(),
            host_name,
            outside,
            listeners: Arc::default(),
        }
    }

    /// Another view of the same network namespace: what listens here listens there. Pods on the node's network share one.
    pub fn shared_with(mut self, other: &PodNetwork) -> PodNetwork {
        self.listeners = other.listeners.clone();
        self
    }

    /// Listens on a port, until the listener is dropped.
    pub fn listen(&self, port: u16) -> io::Result<Listener> {
        let mut listeners = self.listeners.lock();
        if listeners.contains_key(&port) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let (sender, incoming) = mpsc::channel(LISTEN_BACKLOG);
        listeners.insert(port, sender);
        Ok(Listener { port, incoming, listeners: self.listeners.clone() })
    }

    /// Whether anything listens on a port.
    pub fn listens(&self, port: u16) -> bool {
        self.listeners.lock().contains_key(&port)
    }

    /// Connects to a port of this pod, from wherever.
    pub fn accept(&self, port: u16) -> io::Result<BoxedStream> {
        let listeners = self.listeners.lock();
        let listener = listeners.get(&port).ok_or(io::ErrorKind::ConnectionRefused)?;
        let (near, far) = minik8s_streaming::pair();
        listener.try_send(far).map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(near)
    }

    /// Connects from this pod: to itself over loopback, else to the network outside.
    pub async fn connect(&self, to: SocketAddr) -> io::Result<BoxedStream> {
        if to.ip().is_loopback() || to.ip().is_unspecified() || Some(to.ip()) == self.ip {
            return self.accept(to.port());
        }
        self.outside.connect(self, to).await
    }

    /// The addresses of a name, with the search domains of `resolv.conf` (`resolv.conf(5)`).
    pub async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        if let Ok(ip) = name.parse() {
            return Ok(vec![ip]);
        }
        let bare = name.trim_end_matches('.');
        if bare == "localhost" {
            return Ok(vec![IpAddr::from([127, 0, 0, 1])]);
        }
        if let (true, Some(ip)) = (bare == self.host_name, self.ip) {
            return Ok(vec![ip]);
        }
        let absolute = name.ends_with('.');
        let as_is_first = absolute || bare.matches('.').count() >= self.dns_ndots;
        let mut candidates = vec![bare.to_string()];
        if !absolute {
            let searched = self.dns_searches.iter().map(|domain| format!("{bare}.{domain}"));
            let at = if as_is_first { candidates.len() } else { 0 };
            candidates.splice(at..at, searched.collect::<Vec<_>>());
        }
        for candidate in candidates {
            match self.outside.resolve(self, &candidate).await {
                Err(ResolveError::NoSuchName) => {}
                answer => return answer,
            }
        }
        Err(ResolveError::NoSuchName)
    }
}

/// A listening socket.
pub struct Listener {
    port: u16,
    incoming: mpsc::Receiver<BoxedStream>,
    listeners: Arc<Mutex<BTreeMap<u16, mpsc::Sender<BoxedStream>>>>,
}

impl Listener {
    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The next connection.
    pub async fn accept(&mut self) -> BoxedStream {
        match self.incoming.recv().await {
            Some(stream) => stream,
            // The sender stands in the table as long as this listener lives.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.listeners.lock().remove(&self.port);
    }
}
