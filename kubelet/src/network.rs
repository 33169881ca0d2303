//! How a kubelet reaches into pods. The data plane behind it is somebody else's.

use std::io;

use async_trait::async_trait;
use minik8s_streaming::BoxedStream;

/// Connections from the node to its pods, for probes and lifecycle hooks.
#[async_trait]
pub trait PodNetwork: Send + Sync + 'static {
    /// Connects to `port` of the pod (or host) at `address`.
    ///
    /// # Errors
    /// As a TCP dial: [`io::ErrorKind::ConnectionRefused`] where nothing listens, [`io::ErrorKind::HostUnreachable`]
    /// or [`io::ErrorKind::TimedOut`] where there is no way.
    async fn dial(&self, address: &str, port: u16) -> io::Result<BoxedStream>;
}
