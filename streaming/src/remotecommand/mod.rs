//! The channel protocol of exec and attach: five streams of a process over one WebSocket.
//!
//! ```text
//!  byte 0 of a message   stream         direction
//!  0                     stdin          client → server
//!  1, 2                  stdout, stderr server → client
//!  3                     error          server → client, once: a metav1.Status that carries the exit code
//!  4                     resize         client → server: {"Width":80,"Height":24}
//!  255 (v5 only)         close          client → server: byte 1 names the channel that has ended
//! ```
//!
//! The server offers what the client's `Sec-WebSocket-Protocol` offers, newest first: see [`Subprotocol`].
//! `k8s.io/streaming/pkg/httpstream/wsstream/conn.go`, `k8s.io/kubelet/pkg/cri/streaming/remotecommand/websocket.go`.

mod exit;
mod protocol;
mod session;

pub use exit::ExitStatus;
pub use protocol::{Streams, Subprotocol, TerminalSize};
pub use session::{ChannelWriter, OUTGOING_FRAMES, Pending, Session, accept};
