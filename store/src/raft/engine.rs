//! The handle on a store with a log: what callers hold while the Raft thread works.

use super::{
    disk::Disk,
    inbox::{Inbox, Proposal},
    node::decode_message,
    open::{self, RaftOptions},
    transport::Transport,
};
use crate::{
    Error, KeyValue, LeaseId, Range, RangeResponse, Result, Revision, Role, Snapshot, Store, StoreStatus, Txn,
    TxnResponse, Watch,
    command::{Command, Outcome},
    keeper::{Keeper, Proposer},
    replica::Replica,
};
use async_trait::async_trait;
use bytes::Bytes;
use minik8s_clock::{Clock, Random};
use parking_lot::Mutex;
use std::{
    path::Path,
    sync::{Arc, Weak},
    thread::JoinHandle,
    time::Duration,
};
use tokio::sync::oneshot;
use tokio_util::sync::DropGuard;

/// A durable, replicated store in a directory of its own.
pub struct RaftStore {
    pub(super) shared: Arc<Shared>,
    pub(super) replica: Arc<Replica>,
    /// The thread owns it, so that the directory is free when the thread has ended.
    pub(super) disk: Weak<Disk>,
    pub(super) thread: Mutex<Option<JoinHandle<()>>>,
    pub(super) ticking: Option<DropGuard>,
}

/// What the thread and the handle share.
pub(super) struct Shared {
    pub(super) member: u64,
    pub(super) inbox: Inbox,
    pub(super) keeper: Keeper,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) position: Mutex<Position>,
}

/// Where the member stands; written by the thread.
#[derive(Clone, Copy)]
pub(super) struct Position {
    pub(super) role: Role,
    pub(super) leader: Option<u64>,
    pub(super) term: u64,
    pub(super) applied: u64,
    /// It leads, and there is nobody else: everything acknowledged anywhere is applied here.
    pub(super) sole: bool,
}

impl RaftStore {
    /// Opens the store in a directory, or makes one there if the directory is empty or does not
    /// exist. With one member it is elected and up to date on return. To be called within a tokio
    /// runtime, in which its housekeeping runs.
    pub async fn open(dir: &Path, clock: Clock, random: Random, options: RaftOptions) -> Result<Arc<RaftStore>> {
        let (ready, store) = open::open(dir, &clock, &random, options).await?;
        ready.await.map_err(|_| Error::Closed)??;
        let store = Arc::new(store);
        store.shared.keeper.start(Arc::downgrade(&store), clock);
        Ok(store)
    }

    /// Makes a new store with the contents of a snapshot in an empty directory. Each of several
    /// members gets the same snapshot. Waits for the disk.
    pub fn restore(dir: &Path, snapshot: &Snapshot, options: &RaftOptions) -> Result<()> {
        open::restore(dir, snapshot, options)
    }

    /// Takes a message that another member's [`Transport`] sent.
    pub fn receive(&self, message: &Bytes) -> Result<()> {
        self.shared.inbox.receive(decode_message(message)?)
    }

    /// From now on writing to the disk fails, as if it were full or broken: the store turns
    /// read-only. For experiments with faults.
    pub fn break_disk(&self, reason: &str) {
        if let Some(disk) = self.disk.upgrade() {
            disk.fail(reason);
        }
    }

    fn position(&self) -> Position {
        *self.shared.position.lock()
    }

    async fn submit(&self, command: Command) -> Result<Outcome> {
        let (reply, outcome) = oneshot::channel();
        self.shared.inbox.propose(Proposal { command: command.encode().into(), reply })?;
        // The thread answers everybody before it ends.
        outcome.await.unwrap_or(Err(Error::OutcomeUnknown))
    }
}

#[async_trait]
impl Proposer for RaftStore {
    async fn propose(&self, command: Command) -> Result<Outcome> {
        self.submit(command).await
    }

    fn replica(&self) -> &Replica {
        &self.replica
    }

    fn leads(&self) -> bool {
        self.position().role == Role::Leader && self.shared.inbox.closed().is_none()
    }
}

#[async_trait]
impl Store for RaftStore {
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
        self.submit(Command::Commit(txn)).await.map(Outcome::into_txn)
    }

    fn watch(&self, prefix: &str, after: Revision) -> Result<Watch> {
        self.replica.watch(prefix, after)
    }

    async fn read_index(&self) -> Result<Revision> {
        if self.position().sole {
            return Ok(self.replica.revision());
        }
        let (reader, revision) = oneshot::channel();
        self.shared.inbox.read(reader)?;
        revision.await.unwrap_or(Err(Error::NoLeader))
    }

    async fn compact(&self, at: Revision) -> Result<()> {
        self.submit(Command::Compact { at }).await.map(drop)
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId> {
        self.submit(Command::GrantLease { ttl }).await.map(Outcome::into_lease)
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<()> {
        self.submit(Command::RevokeLease { lease }).await.map(drop)
    }

    async fn snapshot(&self) -> Result<Snapshot> {
        Ok(self.replica.snapshot())
    }

    fn status(&self) -> StoreStatus {
        let position = self.position();
        let mut status = self.replica.figures().status(self.shared.member, position.role);
        status.leader = position.leader;
        status.term = position.term;
        status.applied = position.applied;
        status.disk_bytes = self.disk.upgrade().map_or(0, |disk| disk.bytes());
        status.read_only = match self.shared.inbox.closed() {
            Some(Error::ReadOnly { reason }) => Some(reason),
            _ => None,
        };
        status
    }

    async fn shutdown(&self) {
        self.shared.keeper.stop().await;
        self.shared.inbox.stop();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            // A panic of the thread has been reported where it happened.
            #[allow(
                clippy::disallowed_methods,
                reason = "waits for a thread, which blocks; simulations use MemoryStore"
            )]
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
        self.replica.close();
    }
}

impl Drop for RaftStore {
    /// Without [`Store::shutdown`] the thread is waited for here, so that the directory can be
    /// opened again.
    fn drop(&mut self) {
        drop(self.ticking.take());
        self.shared.inbox.stop();
        if let Some(thread) = self.thread.get_mut().take() {
            let _ = thread.join();
        }
    }
}
