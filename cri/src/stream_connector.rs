//! How a kubelet dials the address that Exec, Attach and PortForward answer with.

use async_trait::async_trait;
use minik8s_streaming::BoxedStream;
use std::io;

/// Opens a stream to a runtime's streaming server, on which HTTP/1.1 is spoken next.
///
/// A runtime in the same process hands out addresses that only its own connector can reach; another runtime listens on
/// TCP ([`TcpStreamConnector`]).
#[async_trait]
pub trait StreamConnector: Send + Sync + 'static {
    /// Connects to the server of `url`, an absolute address as the runtime gave it.
    async fn connect(&self, url: &http::Uri) -> io::Result<BoxedStream>;
}

/// Dials the host and port of the address.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpStreamConnector;

#[async_trait]
impl StreamConnector for TcpStreamConnector {
    async fn connect(&self, url: &http::Uri) -> io::Result<BoxedStream> {
        let authority = url
            .authority()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{url} is not an absolute address")))?;
        let port = authority.port_u16().unwrap_or(80);
        let stream = tokio::net::TcpStream::connect((authority.host(), port)).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}
