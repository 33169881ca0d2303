//! The replicated, versioned key-value store
mod command;
mod encoding;
mod error;
mod keeper;
mod memory;
mod raft;
mod replica;
mod snapshot;
mod state;
mod store;
mod watch;

pub use error::{Error, Result};
pub use keeper::{HISTORY_MAX_AGE, HISTORY_MAX_BYTES, HISTORY_MAX_EVENTS, Retention};
pub use memory::MemoryStore;
pub use raft::{
    NoPeers, PROPOSAL_QUEUE_BYTES, PROPOSAL_QUEUE_LENGTH, RaftOptions, RaftStore,
    SNAPSHOT_LOG_BYTES, TICK, Transport,
};
pub use snapshot::Snapshot;
pub use store::{
    Condition, INITIAL_REVISION, KeyValue, LeaseId, MAX_TXN_BYTES, Operation, Range, RangeResponse,
    Revision, Role, Store, StoreStatus, Txn, TxnResponse,
};
pub use watch::{Event, EventKind, ProgressRequester, WATCH_CAPACITY, Watch, WatchMessage};
