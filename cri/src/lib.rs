//! The Container Runtime Interface: the only door between a kubelet and its containers.
//!
//! A kubelet never starts a process. It asks a runtime to, in the words of CRI `runtime.v1`, and the runtime never sees a
//! Pod. Three things cross that door, and this crate holds all three:
//!
//! ```text
//!            kubelet                                     runtime (sim, containerd, …)
//!   ┌──────────────────────┐   RuntimeService   ┌──────────────────────────┐
//!   │ Client ──────────────┼── ImageService ───►│ impl proto::…_server::…  │
//!   │                      │◄─ container events ┤                          │
//!   │ StreamConnector ─────┼── URL of exec, ───►│ its streaming server     │
//!   │                      │   attach, forward  │                          │
//!   │ NodeFs ◄─────────────┼── mounts, logs ────┼─► NodeFs                 │
//!   └──────────────────────┘                    └──────────────────────────┘
//! ```
//!
//! Reading order: [`proto`] (the messages, compiled from `proto/runtime.proto`), [`Client`] (a method a call) and
//! [`Error`] (in the words a kubelet shows), [`NodeFs`] with [`MemoryFs`] and [`DiskFs`] (CRI mounts *host paths* and hands
//! out logs as *files*, so both sides share a node's file system), [`StreamConnector`] (how the streaming address is dialed).
//!
//! # Invariants
//! - A call in process passes through the same encoded messages as one over a socket; nothing is shared by reference.
//! - A path in a [`NodeFs`] never leads outside of it, whatever symbolic links say.
//! - A [`MemoryFs`] never holds more than the capacity it was given.
//!
//! # Left out, compared with Kubernetes
//! CRI v1alpha2; dialing a unix socket (it belongs to the native runtimes; [`Client::over`] takes any connection);
//! tracing of calls; `runtimeRequestTimeout`, which the caller applies on its own clock.

mod client;
mod error;
mod node_fs;
pub mod proto;
mod stream_connector;

pub use client::{Client, Connection};
pub use error::{Code, Error, Result};
pub use node_fs::{
    DirEntry, DiskFs, FileKind, FileWatch, FileWatchers, Lookup, MemoryFs, Metadata, NodeFs, Resolved, normalize,
    parent, resolve,
};
pub use stream_connector::{StreamConnector, TcpStreamConnector};
