//! The engine that keeps what it acknowledges: a Raft log on disk in front of the state machine.
//!
//! ```text
//!   commit, compact, lease …       any task
//!        │ Command, encoded
//!        ▼
//!   inbox      bounded; what gathers while the disk works is one group
//!        ▼
//!   node       one thread: log → disk → sync → committed → apply → answer
//!     │  ▲          │
//!     │  │          ├─ storage    the log as the Raft library reads it
//!     │  │          ├─ disk       the log and hard state in segments, snapshots in sled, all with checksums
//!     ▼  │          └─ snapshots  bound the log, a little a turn
//!   transport → other members
//! ```
//! Reading order: `engine` (the handle), `open` (from a directory to a thread), `node` (the loop),
//! `storage`, `disk`, `log`, `snapshots`, `inbox`, `directory`.

mod directory;
mod disk;
mod engine;
mod entry;
mod inbox;
mod log;
mod node;
mod open;
mod snapshots;
mod storage;
mod transport;

pub use engine::RaftStore;
pub use inbox::{PROPOSAL_QUEUE_BYTES, PROPOSAL_QUEUE_LENGTH};
pub use open::{RaftOptions, SNAPSHOT_LOG_BYTES, TICK};
pub use transport::{NoPeers, Transport};
