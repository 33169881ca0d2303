//! Byte streams between API server, kubelet and runtime: dialing, upgrade proxying, remote command channels.
//!
//! `kubectl exec` is one connection that three servers pass on. Each hop is an HTTP/1.1 request that asks for an upgrade;
//! once the last hop agrees, every hop before it only copies bytes:
//!
//! ```text
//!  kubectl ──TLS──► API server ──BoxedStream──► kubelet ──BoxedStream──► runtime
//!                   proxy::forward              proxy::forward           remotecommand::accept
//!                   (splices bytes)             (splices bytes)          stdin stdout stderr error resize
//! ```
//!
//! No hop knows how the next one is reached: a [`BoxedStream`] may be a TLS connection, a unix socket or one end of an
//! in-process [`pair`]. So a simulated cluster of a thousand nodes needs not a single port.
//!
//! Reading order: [`BoxedStream`] (what is passed around), [`http_over()`] (one request on one stream), [`proxy`] (a request
//! passed on with its upgrade), [`remotecommand`] (the channel protocol at the end of the line). [`messages`] is an answer sent piece by piece over a
//! WebSocket. [`tls`] is for those who do
//! not ask whom they talk to.
//!
//! # Invariants
//! - A proxy never looks into what it splices: WebSocket and SPDY pass alike, and a half-closed direction stays half closed.
//! - Bytes in flight are bounded by [`PAIR_BUFFER_BYTES`] a direction and `remotecommand::OUTGOING_FRAMES` a session; a slow
//!   reader slows the writer down, and never grows a buffer.
//! - The exit of a command is told exactly once, after all its output.
//!
//! # Left out, compared with Kubernetes
//! Serving SPDY/3.1 (`k8s.io/streaming/pkg/spdy`): a client that asks this crate's end for it is refused with
//! [`Error::Spdy`]. It passes through [`proxy::forward`] like anything else. Its place is a module `spdy` beside
//! `remotecommand`, which port forwarding will bring.

mod error;
mod http_over;
pub mod messages;
pub mod proxy;
pub mod remotecommand;
mod stream;
pub mod tls;

pub use error::{Error, Result};
pub use http_over::http_over;
pub use stream::{BoxedStream, ByteStream, PAIR_BUFFER_BYTES, pair};
