//! The engine that keeps nothing: for tests and for `--ephemeral` clusters.

use crate::{
    Error, KeyValue, LeaseId, Range, RangeResponse, Result, Retention, Revision, Role, Snapshot, Store, StoreStatus,
    Txn, TxnResponse, Watch,
    command::{Command, Outcome},
    keeper::{Keeper, Proposer},
    replica::{Figures, Replica},
    state::State,
};
use async_trait::async_trait;
use minik8s_clock::Clock;
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};

/// A store in memory. Its operations never wait, so that a cluster on it runs deterministically in
/// virtual time.
pub struct MemoryStore {
    replica: Replica,
    keeper: Keeper,
    /// Held while a command is applied: the order of revisions is the order of turns. True once the
    /// store is shut down.
    turn: Mutex<bool>,
}

impl MemoryStore {
    /// An empty store. To be called within a tokio runtime, in which its housekeeping runs.
    pub fn new(clock: Clock) -> Arc<MemoryStore> {
        MemoryStore::with_retention(clock, Retention::default())
    }

    /// An empty store that keeps more or less history than usual.
    pub fn with_retention(clock: Clock, retention: Retention) -> Arc<MemoryStore> {
        MemoryStore::start(State::default(), clock, retention)
    }

    /// A store with the contents of a snapshot.
    pub fn restore(snapshot: &Snapshot, clock: Clock) -> Arc<MemoryStore> {
        MemoryStore::start(snapshot.to_state(), clock, Retention::default())
    }

    fn start(state: State, clock: Clock, retention: Retention) -> Arc<MemoryStore> {
        let keeper = Keeper::new(retention);
        let store = Arc::new(MemoryStore { replica: Replica::new(state), keeper, turn: Mutex::new(false) });
        store.keeper.start(Arc::downgrade(&store), clock);
        store
    }

    fn apply(&self, command: Command) -> Result<Outcome> {
        let closed = self.turn.lock();
        if *closed {
            return Err(Error::Closed);
        }
        let mut outcomes = self.replica.apply([command]);
        self.keeper.applied(&self.replica, &outcomes);
        outcomes.pop().expect("one command has one outcome")
    }
}

#[async_trait]
impl Proposer for MemoryStore {
    async fn propose(&self, command: Command) -> Result<Outcome> {
        self.apply(command)
    }

    fn replica(&self) -> &Replica {
        &self.replica
    }

    fn leads(&self) -> bool {
        true
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn revision(&self) -> Revision {
        self.replica.revision()
    }

    fn compacted(&self) -> Revision {
        self.replica.compacted()
    }

    async fn get(&self, key: &str) -> Result<Option<KeyValue>> {
        Ok(self.replica.get(key))
    }

    async fn range(&self, range: Range) -> Result<RangeResponse> {
        self.replica.range(&range)
    }

    async fn commit(&self, txn: Txn) -> Result<TxnResponse> {
        txn.check()?;
        self.apply(Command::Commit(txn)).map(Outcome::into_txn)
    }

    fn watch(&self, prefix: &str, after: Revision) -> Result<Watch> {
        self.replica.watch(prefix, after)
    }

    async fn read_index(&self) -> Result<Revision> {
        Ok(self.replica.revision())
    }

    async fn compact(&self, at: Revision) -> Result<()> {
        self.apply(Command::Compact { at }).map(drop)
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId> {
        self.apply(Command::GrantLease { ttl }).map(Outcome::into_lease)
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<()> {
        self.apply(Command::RevokeLease { lease }).map(drop)
    }

    async fn snapshot(&self) -> Result<Snapshot> {
        Ok(self.replica.snapshot())
    }

    fn status(&self) -> StoreStatus {
        self.replica.figures().status(MEMBER, Role::Leader)
    }

    async fn shutdown(&self) {
        *self.turn.lock() = true;
        self.keeper.stop().await;
        self.replica.close();
    }
}

/// The only member of a store in memory.
const MEMBER: u64 = 1;

impl Figures {
    /// A status that says nothing of a log or a disk.
    pub(crate) fn status(self, member: u64, role: Role) -> StoreStatus {
        StoreStatus {
            member,
            role,
            leader: (role == Role::Leader).then_some(member),
            term: 0,
            applied: 0,
            revision: self.revision,
            compacted: self.compacted,
            keys: self.keys,
            bytes: self.bytes,
            history_events: self.history_events,
            history_bytes: self.history_bytes,
            leases: self.leases,
            watches: self.watches,
            disk_bytes: 0,
            read_only: None,
        }
    }
}
