//! The replicated, versioned key-value store: what etcd is to Kubernetes.
//!
//! Everything the cluster knows is a key with a value, and every change has a [`Revision`], one
//! number for the whole store, which clients see as `resourceVersion`. On that rest optimistic
//! concurrency (a [`Txn`] with the revision that its author has seen), ordered [`Watch`]es from any
//! retained revision, and reads of the past.
//!
//! ```text
//!                     Store (the trait)
//!            ┌───────────────┴────────────────┐
//!       MemoryStore                       RaftStore
//!       keeps nothing,                    inbox → log on disk → committed      raft/
//!       never waits                           │
//!            └───────────┬────────────────────┘
//!                     Command          commit, compact, grant or revoke a lease; encoded in the log
//!                        ▼
//!       Replica       State            versions of keys, history, leases: apply is a pure function
//!                        │ Event
//!                        ▼
//!                       Hub            watchers by prefix, a bounded channel each
//!
//!       Keeper        on the leader: proposes the end of expired leases and the compaction of old history
//! ```
//!
//! Reading order: [`store`](Store) (the trait and its nouns), `state` (the semantics), `command`,
//! `watch`, `replica`, `keeper`, then the engines `memory` and `raft`, and [`Snapshot`] (the state
//! as a file).
//!
//! # How the API server uses it
//! Objects live under `/registry/{group or "core"}/{plural}/{namespace}/{name}`, cluster-scoped
//! ones without the namespace, as JSON without `metadata.resourceVersion`, which is their
//! `mod_revision`.
//!
//! ```
//! # use minik8s_clock::Clock;
//! # use minik8s_store::{MemoryStore, Range, Result, Store, Txn, TxnResponse, WatchMessage};
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! # let clock = Clock::real();
//! let store = MemoryStore::new(clock);
//! let mut watch = store.watch("/registry/core/pods/", store.revision())?;
//!
//! let key = "/registry/core/pods/default/web";
//! let TxnResponse::Committed { revision, .. } = store.commit(Txn::create(key, "{}".into())).await? else { panic!() };
//! let outdated = store.commit(Txn::update(key, revision - 1, "{…}".into())).await?;
//! assert!(matches!(outdated, TxnResponse::Conflict { .. }));
//!
//! let WatchMessage::Events(events) = watch.recv().await? else { panic!() };
//! assert_eq!(events[0].revision(), revision);
//! let pods = store.range(Range::prefix("/registry/core/pods/").limit(500)).await?;
//! assert_eq!(pods.key_values[0].mod_revision, revision);
//! # Result::Ok(()) }).unwrap();
//! ```
//!
//! # Invariants
//! - A write is acknowledged after it is on the disks of a majority (a true `fdatasync`), applied
//!   here, and dispatched to the watchers.
//! - Applying reads no clock, draws no random number and does no I/O: the same log gives the same
//!   state.
//! - Revisions only grow, by one for each transaction that changes something. Nobody reads a
//!   revision before it is dispatched.
//! - A watcher sees every change under its prefix once and in order, or its watch ends with an
//!   error.
//! - A value is in memory once: log, state, history and watchers share its bytes.
//! - Nothing is unbounded: proposals ([`PROPOSAL_QUEUE_LENGTH`], [`PROPOSAL_QUEUE_BYTES`]), watches
//!   ([`WATCH_CAPACITY`]), history ([`Retention`]), the log ([`SNAPSHOT_LOG_BYTES`], or as much as
//!   the state itself), a transaction ([`MAX_TXN_BYTES`]).
//! - What is read from disk has passed a checksum. Damage is named and refused; only the torn end
//!   of the log is cut off, and only where nobody was told of it.
//! - After the first failed write nothing is written any more; reads go on.
//!
//! # Left out, compared with Kubernetes
//! etcd has nested transactions, comparisons of values, range deletes, alarms, authentication, and
//! leases that are kept alive; the API server needs none of them. Members are those that a store
//! begins with: adding and removing them is not here yet (the loop applies such changes, nothing
//! proposes them). A member that lags behind the log is sent the whole state in one message.

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
    NoPeers, PROPOSAL_QUEUE_BYTES, PROPOSAL_QUEUE_LENGTH, RaftOptions, RaftStore, SNAPSHOT_LOG_BYTES, TICK, Transport,
};
pub use snapshot::Snapshot;
pub use store::{
    Condition, INITIAL_REVISION, KeyValue, LeaseId, MAX_TXN_BYTES, Operation, Range, RangeResponse, Revision, Role,
    Store, StoreStatus, Txn, TxnResponse,
};
pub use watch::{Event, EventKind, ProgressRequester, Translate, WATCH_CAPACITY, Watch, WatchMessage};
