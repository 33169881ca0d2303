//! # HTTP endpoints of resources
//!
//! From an authorized request to the registry and back. [`resource::serve`] finds the kind and the verb; [`mod@write`], [`read`],
//! [`watch`], [`connect`] do the rest; [`respond`] writes answers, [`body`] reads requests.
//!
//! ```text
//!  RequestInfo ─▶ resource ─┬─▶ read    get, list    ─┐
//!                           ├─▶ watch   frames        ├─▶ respond   JSON (spliced), YAML, protobuf, Table, metadata only; gzip
//!                           ├─▶ write   create … delete┘
//!                           └─▶ connect logs, exec, proxies: to the kubelet, bytes passed through
//!                               messages  watches and logs for clients that ask for a WebSocket
//! ```

pub mod body;
pub mod connect;
pub mod held;
pub mod messages;
pub mod pieces;
pub mod read;
pub mod resource;
pub mod respond;
pub mod table;
pub mod watch;
pub mod write;
