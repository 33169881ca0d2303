//! The network a pod sees: its own listening sockets, and whoever else answers through [`Network`].

use async_trait::async_trait;
use bytes::Bytes;
use minik8s_streaming::BoxedStream;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use tokio::sync::mpsc;

/// How many connections wait to be accepted on a port before further ones are refused (`SOMAXCONN` of older kernels).
pub const LISTEN_BACKLOG: usize = 128;

/// How many datagrams wait in one direction of a UDP flow; further ones are lost, as with a full socket buffer.
pub const UDP_QUEUE_DATAGRAMS: usize = 64;
/// The largest datagram (UDP over IPv4).
pub const UDP_DATAGRAM_BYTES: usize = 65_507;
/// Ports that connections come from (`net.ipv4.ip_local_port_range`).
const EPHEMERAL_PORTS: std::ops::Range<u16> = 32_768..60_999;

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

/// A kind of DNS record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum RecordType {
    A,
    Aaaa,
    Cname,
    Ptr,
    Srv,
    Txt,
}

impl RecordType {
    const TABLE: [(RecordType, &'static str); 6] = [
        (RecordType::A, "A"),
        (RecordType::Aaaa, "AAAA"),
        (RecordType::Cname, "CNAME"),
        (RecordType::Ptr, "PTR"),
        (RecordType::Srv, "SRV"),
        (RecordType::Txt, "TXT"),
    ];

    /// A kind by its name, in any case.
    pub fn parse(name: &str) -> Option<RecordType> {
        RecordType::TABLE.into_iter().find(|(_, known)| known.eq_ignore_ascii_case(name)).map(|(kind, _)| kind)
    }
}

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Every variant has a row.
        let name = RecordType::TABLE.into_iter().find(|(kind, _)| kind == self).map_or("", |(_, name)| name);
        f.write_str(name)
    }
}

/// What a DNS record says. Names in it have no final dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordData {
    /// An A or AAAA record.
    Address(IpAddr),
    /// A CNAME record.
    Cname(String),
    /// A PTR record.
    Ptr(String),
    /// An SRV record.
    Srv {
        /// The lowest is tried first.
        priority: u16,
        /// A share among those of the same priority.
        weight: u16,
        /// The port.
        port: u16,
        /// The host.
        target: String,
    },
    /// A TXT record.
    Txt(String),
}

impl RecordData {
    /// Its kind.
    pub fn kind(&self) -> RecordType {
        match self {
            RecordData::Address(IpAddr::V4(_)) => RecordType::A,
            RecordData::Address(IpAddr::V6(_)) => RecordType::Aaaa,
            RecordData::Cname(_) => RecordType::Cname,
            RecordData::Ptr(_) => RecordType::Ptr,
            RecordData::Srv { .. } => RecordType::Srv,
            RecordData::Txt(_) => RecordType::Txt,
        }
    }
}

/// As zone files have it (RFC 1035, section 5).
impl fmt::Display for RecordData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecordData::Address(address) => write!(f, "{address}"),
            RecordData::Cname(name) | RecordData::Ptr(name) => write!(f, "{name}."),
            RecordData::Srv { priority, weight, port, target } => write!(f, "{priority} {weight} {port} {target}."),
            RecordData::Txt(text) => write!(f, "{text:?}"),
        }
    }
}

/// A DNS record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Whose it is, without a final dot.
    pub name: String,
    /// How many seconds it may be remembered.
    pub ttl: u32,
    /// What it says.
    pub data: RecordData,
}

/// What records live that only an address is known of.
const ADDRESS_TTL: u32 = 30;

/// All of the network outside of a pod. The simulated data plane implements it: Services, DNS, policies.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// The addresses of a name, asked for as it stands, by a pod.
    async fn resolve(&self, pod: &PodNetwork, name: &str) -> Result<Vec<IpAddr>, ResolveError>;
    /// The records of a name, asked for as it stands, by a pod; none where the name exists without such records. A network
    /// that only knows addresses has no others.
    async fn lookup(&self, pod: &PodNetwork, name: &str, kind: RecordType) -> Result<Vec<Record>, ResolveError> {
        let record = |address| Record { name: name.to_string(), ttl: ADDRESS_TTL, data: RecordData::Address(address) };
        let addresses = self.resolve(pod, name).await?;
        Ok(addresses.into_iter().map(record).filter(|record| record.data.kind() == kind).collect())
    }
    /// Opens a connection from a pod.
    async fn connect(&self, pod: &PodNetwork, to: SocketAddr) -> io::Result<BoxedStream>;
    /// Opens a flow of datagrams from a pod. A network that carries none reaches no host.
    async fn connect_udp(&self, _pod: &PodNetwork, _to: SocketAddr) -> io::Result<UdpFlow> {
        Err(io::ErrorKind::HostUnreachable.into())
    }
}

/// One end of a flow of datagrams between two addresses and ports, as connection tracking sees UDP.
#[derive(Debug)]
pub struct UdpFlow {
    outgoing: mpsc::Sender<Bytes>,
    incoming: mpsc::Receiver<Bytes>,
    /// The other end, of a flow that reaches nobody.
    _unread: Option<Box<UdpFlow>>,
}

impl UdpFlow {
    /// Both ends of a flow.
    pub fn pair() -> (UdpFlow, UdpFlow) {
        let (near_sender, far_receiver) = mpsc::channel(UDP_QUEUE_DATAGRAMS);
        let (far_sender, near_receiver) = mpsc::channel(UDP_QUEUE_DATAGRAMS);
        let near = UdpFlow { outgoing: near_sender, incoming: near_receiver, _unread: None };
        let far = UdpFlow { outgoing: far_sender, incoming: far_receiver, _unread: None };
        (near, far)
    }

    /// A flow to nobody: what is sent is lost, and nothing comes.
    pub fn lost() -> UdpFlow {
        let (near, far) = UdpFlow::pair();
        UdpFlow { _unread: Some(Box::new(far)), ..near }
    }

    /// Sends a datagram, which is lost where the other end does not keep up. An error says that nobody is there any more, as
    /// ICMP's "port unreachable" does.
    pub fn send(&self, datagram: Bytes) -> io::Result<()> {
        if datagram.len() > UDP_DATAGRAM_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "message too long"));
        }
        match self.outgoing.try_send(datagram) {
            Err(mpsc::error::TrySendError::Closed(_)) => Err(io::ErrorKind::ConnectionRefused.into()),
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(()),
        }
    }

    /// The next datagram; `None` when the other end is gone.
    pub async fn receive(&mut self) -> Option<Bytes> {
        self.incoming.recv().await
    }
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
    sockets: Arc<Sockets>,
}

/// The sockets of a network namespace.
#[derive(Default)]
struct Sockets {
    tcp: Mutex<BTreeMap<u16, mpsc::Sender<Connection>>>,
    udp: Mutex<BTreeMap<u16, mpsc::Sender<(UdpFlow, SocketAddr)>>>,
    /// How many connections came in; each comes from another port.
    accepted: AtomicU16,
}

impl Sockets {
    /// The address of a client's socket.
    fn peer(&self, from: IpAddr) -> SocketAddr {
        let count = self.accepted.fetch_add(1, Ordering::Relaxed);
        SocketAddr::new(from, EPHEMERAL_PORTS.start + count % EPHEMERAL_PORTS.len() as u16)
    }
}

/// A connection that was accepted.
pub struct Connection {
    /// What is said over it.
    pub stream: BoxedStream,
    /// Whom it comes from, as the server sees it.
    pub peer: SocketAddr,
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
            sockets: Arc::default(),
        }
    }

    /// Another view of the same network namespace: what listens here listens there. Pods on the node's network share one.
    pub fn shared_with(mut self, other: &PodNetwork) -> PodNetwork {
        self.sockets = other.sockets.clone();
        self
    }

    /// Listens on a port, until the listener is dropped.
    pub fn listen(&self, port: u16) -> io::Result<Listener> {
        let mut listeners = self.sockets.tcp.lock();
        if listeners.contains_key(&port) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let (sender, incoming) = mpsc::channel(LISTEN_BACKLOG);
        listeners.insert(port, sender);
        Ok(Listener { port, incoming, sockets: self.sockets.clone() })
    }

    /// Receives datagrams on a port, until the listener is dropped.
    pub fn listen_udp(&self, port: u16) -> io::Result<UdpListener> {
        let mut listeners = self.sockets.udp.lock();
        if listeners.contains_key(&port) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let (sender, incoming) = mpsc::channel(LISTEN_BACKLOG);
        listeners.insert(port, sender);
        Ok(UdpListener { port, incoming, sockets: self.sockets.clone() })
    }

    /// Whether anything listens on a port.
    pub fn listens(&self, port: u16) -> bool {
        self.sockets.tcp.lock().contains_key(&port)
    }

    /// Connects to a port of this pod, from an address that the server sees as its client's.
    pub fn accept(&self, port: u16, from: IpAddr) -> io::Result<BoxedStream> {
        let listeners = self.sockets.tcp.lock();
        let listener = listeners.get(&port).ok_or(io::ErrorKind::ConnectionRefused)?;
        let (near, far) = minik8s_streaming::pair();
        let connection = Connection { stream: far, peer: self.sockets.peer(from) };
        listener.try_send(connection).map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(near)
    }

    /// Opens a flow of datagrams to a port of this pod, from an address that the server sees as its client's.
    pub fn accept_udp(&self, port: u16, from: IpAddr) -> io::Result<UdpFlow> {
        let listeners = self.sockets.udp.lock();
        let listener = listeners.get(&port).ok_or(io::ErrorKind::ConnectionRefused)?;
        let (near, far) = UdpFlow::pair();
        listener.try_send((far, self.sockets.peer(from))).map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(near)
    }

    /// Connects from this pod: to itself over loopback, else to the network outside.
    pub async fn connect(&self, to: SocketAddr) -> io::Result<BoxedStream> {
        match self.own_source(to.ip()) {
            Some(from) => self.accept(to.port(), from),
            None => self.outside.connect(self, to).await,
        }
    }

    /// Opens a flow of datagrams from this pod.
    pub async fn connect_udp(&self, to: SocketAddr) -> io::Result<UdpFlow> {
        match self.own_source(to.ip()) {
            Some(from) => self.accept_udp(to.port(), from),
            None => self.outside.connect_udp(self, to).await,
        }
    }

    /// Where a connection to one of this pod's own addresses comes from; `None` for those of others.
    fn own_source(&self, to: IpAddr) -> Option<IpAddr> {
        if to.is_loopback() || to.is_unspecified() {
            return Some(if to.is_ipv6() { to } else { IpAddr::V4(Ipv4Addr::LOCALHOST) });
        }
        self.ip.filter(|own| *own == to)
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
        for candidate in self.candidates(name) {
            match self.outside.resolve(self, &candidate).await {
                Err(ResolveError::NoSuchName) => {}
                answer => return answer,
            }
        }
        Err(ResolveError::NoSuchName)
    }

    /// The records of a name as its server has them; with `search` also in the search domains. The name that was found comes
    /// with them.
    pub async fn lookup(
        &self,
        name: &str,
        kind: RecordType,
        search: bool,
    ) -> Result<(String, Vec<Record>), ResolveError> {
        let candidates = if search { self.candidates(name) } else { vec![name.trim_end_matches('.').to_string()] };
        for candidate in candidates {
            match self.outside.lookup(self, &candidate, kind).await {
                Err(ResolveError::NoSuchName) => {}
                Err(error) => return Err(error),
                Ok(records) => return Ok((candidate, records)),
            }
        }
        Err(ResolveError::NoSuchName)
    }

    /// What a name is tried as, one after another.
    fn candidates(&self, name: &str) -> Vec<String> {
        let bare = name.trim_end_matches('.');
        let absolute = name.ends_with('.');
        let as_is_first = absolute || bare.matches('.').count() >= self.dns_ndots;
        let mut candidates = vec![bare.to_string()];
        if !absolute {
            let searched = self.dns_searches.iter().map(|domain| format!("{bare}.{domain}"));
            let at = if as_is_first { candidates.len() } else { 0 };
            candidates.splice(at..at, searched.collect::<Vec<_>>());
        }
        candidates
    }
}

/// A listening socket.
pub struct Listener {
    port: u16,
    incoming: mpsc::Receiver<Connection>,
    sockets: Arc<Sockets>,
}

impl Listener {
    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The next connection.
    pub async fn accept(&mut self) -> Connection {
        match self.incoming.recv().await {
            Some(connection) => connection,
            // The sender stands in the table as long as this listener lives.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.sockets.tcp.lock().remove(&self.port);
    }
}

/// A socket that datagrams come in on.
pub struct UdpListener {
    port: u16,
    incoming: mpsc::Receiver<(UdpFlow, SocketAddr)>,
    sockets: Arc<Sockets>,
}

impl UdpListener {
    /// The next flow, with the client's address.
    pub async fn accept(&mut self) -> (UdpFlow, SocketAddr) {
        match self.incoming.recv().await {
            Some(flow) => flow,
            // The sender stands in the table as long as this listener lives.
            None => std::future::pending().await,
        }
    }
}

impl Drop for UdpListener {
    fn drop(&mut self) {
        self.sockets.udp.lock().remove(&self.port);
    }
}
