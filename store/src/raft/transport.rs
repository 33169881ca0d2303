//! How members reach each other: injected, so that a test can lose, delay and reorder what they
//! say.

use bytes::Bytes;

/// Carries messages to other members. Losing them is allowed, changing them is not; members are
/// authenticated by whoever implements this.
pub trait Transport: Send + Sync + 'static {
    /// Sends one message to a member without waiting. The other side hands it to
    /// [`RaftStore::receive`](crate::RaftStore::receive).
    fn send(&self, to: u64, message: Bytes);
}

/// The transport of a store with one member, who talks to nobody.
pub struct NoPeers;

impl Transport for NoPeers {
    fn send(&self, to: u64, _message: Bytes) {
        tracing::debug!(to, "a message to another member, of which there are none, was dropped");
    }
}
