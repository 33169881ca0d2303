//! The trait and the nouns: what a store is to those who use it.

use crate::{Error, Result, Snapshot, Watch};
use async_trait::async_trait;
use bytes::Bytes;
use std::{fmt, num::NonZeroU64, sync::Arc, time::Duration};

/// Counts the transactions that changed something, over the whole store. It is the API's
/// `resourceVersion`.
pub type Revision = u64;

/// The revision of an empty store, as etcd has it: `resourceVersion` 0 means "any" to clients, so
/// no state may be called 0.
pub const INITIAL_REVISION: Revision = 1;

/// The largest transaction (keys and values together): the API server takes bodies of 3 MiB, and
/// defaulting adds to them.
pub const MAX_TXN_BYTES: usize = 4 << 20;

/// A versioned, ordered key-value store with transactions, watches and leases.
///
/// Writes are linearizable. [`Store::get`] and [`Store::range`] read the local replica; who needs
/// to see every write that was acknowledged anywhere before asks for the [`Store::read_index`]
/// first.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The newest revision that this replica has applied.
    fn revision(&self) -> Revision;

    /// The oldest revision that can still be read, or watched from.
    fn compacted(&self) -> Revision;

    /// The value of a key, now.
    async fn get(&self, key: &str) -> Result<Option<KeyValue>>;

    /// The keys of a range in order, now or at a retained revision.
    async fn range(&self, range: Range) -> Result<RangeResponse>;

    /// Does all operations at one new revision if all conditions hold, otherwise nothing. Returns
    /// when that is on disk (on a majority of members) and applied here; watchers have been handed
    /// the events by then.
    async fn commit(&self, txn: Txn) -> Result<TxnResponse>;

    /// Every change under a prefix, in order, that comes after a retained revision.
    fn watch(&self, prefix: &str, after: Revision) -> Result<Watch>;

    /// Whether a value is kept in another form than a new write would give it, so that writing it again, unchanged, is
    /// worth it. A store that keeps values as they are says no.
    async fn is_stale(&self, key: &str) -> Result<bool> {
        let _ = key;
        Ok(false)
    }

    /// A revision that contains every write acknowledged before the call, by any member. This
    /// replica has applied it when the call returns.
    async fn read_index(&self) -> Result<Revision>;

    /// Forgets the history before `at`; states from `at` on stay readable. Compacting what is
    /// compacted already does nothing.
    async fn compact(&self, at: Revision) -> Result<()>;

    /// A new lease. Keys put under it are deleted when it expires, `ttl` from now.
    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId>;

    /// Ends a lease and deletes its keys, at one revision.
    async fn revoke_lease(&self, lease: LeaseId) -> Result<()>;

    /// The whole state with its retained history, as of now. Cheap to take: values are shared, not
    /// copied.
    async fn snapshot(&self) -> Result<Snapshot>;

    /// Who leads, how large it is, whether it can write.
    fn status(&self) -> StoreStatus;

    /// Stops: writes in flight are finished, watches are closed. Reads of the replica still answer.
    async fn shutdown(&self);
}

/// A key with its value as of some revision. Clones share the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key, such as `/registry/core/pods/default/web`.
    pub key: Arc<str>,
    /// The value. Empty in the event of a deletion.
    pub value: Bytes,
    /// The revision at which the key came into being.
    pub create_revision: Revision,
    /// The revision of its last change (in the event of a deletion: of the deletion).
    pub mod_revision: Revision,
    /// The lease that the key lives by.
    pub lease: Option<LeaseId>,
}

impl fmt::Debug for KeyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={:?} @{}..{}", self.key, self.value, self.create_revision, self.mod_revision)?;
        self.lease.map_or(Ok(()), |lease| write!(f, " lease {lease}"))
    }
}

/// Names a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub NonZeroU64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which keys to read. Built from a prefix: `Range::prefix("/registry/core/pods/").limit(500)`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// All keys that start with this.
    pub prefix: String,
    /// Among them only those that are not before this key (to go on where a limited range ended).
    pub from: Option<String>,
    /// As of this revision; the newest one if none is given.
    pub at: Option<Revision>,
    /// At most so many; 0 for all.
    pub limit: usize,
    /// Whether to count all keys of the range, beyond the limit too.
    pub count: bool,
}

impl Range {
    /// All keys that start with `prefix`.
    pub fn prefix(prefix: impl Into<String>) -> Range {
        Range { prefix: prefix.into(), ..Range::default() }
    }

    /// Only keys from this one on.
    pub fn from(mut self, key: impl Into<String>) -> Range {
        self.from = Some(key.into());
        self
    }

    /// As of a revision.
    pub fn at(mut self, revision: Revision) -> Range {
        self.at = Some(revision);
        self
    }

    /// At most so many; 0 for all.
    pub fn limit(mut self, limit: usize) -> Range {
        self.limit = limit;
        self
    }

    /// Count all keys of the range.
    pub fn counted(mut self) -> Range {
        self.count = true;
        self
    }
}

/// What a range holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeResponse {
    /// In the order of keys.
    pub key_values: Vec<KeyValue>,
    /// The revision whose state this is.
    pub revision: Revision,
    /// Whether the limit cut the range short.
    pub more: bool,
    /// How many keys the range has without its limit; given when it was asked for.
    pub count: Option<u64>,
}

/// Operations that are done together, if conditions hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold. None at all always hold.
    pub conditions: Vec<Condition>,
    /// Each key at most once.
    pub operations: Vec<Operation>,
}

impl Txn {
    /// A key that must not exist yet.
    pub fn create(key: impl Into<Arc<str>>, value: Bytes) -> Txn {
        let key = key.into();
        Txn {
            conditions: vec![Condition::Absent { key: key.clone() }],
            operations: vec![Operation::Put { key, value, lease: None }],
        }
    }

    /// A key that must not have changed since `revision`.
    pub fn update(key: impl Into<Arc<str>>, revision: Revision, value: Bytes) -> Txn {
        let key = key.into();
        Txn {
            conditions: vec![Condition::ModRevision { key: key.clone(), revision }],
            operations: vec![Operation::Put { key, value, lease: None }],
        }
    }

    /// The end of a key that must not have changed since `revision`.
    pub fn delete(key: impl Into<Arc<str>>, revision: Revision) -> Txn {
        let key = key.into();
        Txn {
            conditions: vec![Condition::ModRevision { key: key.clone(), revision }],
            operations: vec![Operation::Delete { key }],
        }
    }

    /// A key that gets a value, whatever it was before.
    pub fn put(key: impl Into<Arc<str>>, value: Bytes) -> Txn {
        Txn { conditions: Vec::new(), operations: vec![Operation::Put { key: key.into(), value, lease: None }] }
    }

    /// Puts every key of this transaction under a lease.
    pub fn with_lease(mut self, id: LeaseId) -> Txn {
        for operation in &mut self.operations {
            if let Operation::Put { lease, .. } = operation {
                *lease = Some(id);
            }
        }
        self
    }

    /// Checks what can be checked without the state: the size, and that no key is written twice (as
    /// etcd refuses).
    pub(crate) fn check(&self) -> Result<()> {
        let conditions = self.conditions.iter().map(|condition| condition.key().len());
        let operations = self.operations.iter().map(|operation| match operation {
            Operation::Put { key, value, .. } => key.len() + value.len(),
            Operation::Delete { key } => key.len(),
        });
        let bytes = conditions.chain(operations).sum();
        if bytes > MAX_TXN_BYTES {
            return Err(Error::TooLarge { bytes, limit: MAX_TXN_BYTES });
        }
        let mut keys: Vec<&str> = self.operations.iter().map(Operation::key).collect();
        keys.sort_unstable();
        match keys.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(Error::Invalid(format!("key {} is written twice in one transaction", pair[0]))),
            None => Ok(()),
        }
    }
}

/// What must hold for a transaction to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The key does not exist.
    Absent {
        /// The key.
        key: Arc<str>,
    },
    /// The key exists, and its last change was at this revision.
    ModRevision {
        /// The key.
        key: Arc<str>,
        /// Its `mod_revision`.
        revision: Revision,
    },
}

impl Condition {
    /// The key that the condition is about.
    pub fn key(&self) -> &Arc<str> {
        match self {
            Condition::Absent { key } | Condition::ModRevision { key, .. } => key,
        }
    }
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The key gets a value.
    Put {
        /// The key.
        key: Arc<str>,
        /// Its new value.
        value: Bytes,
        /// The lease that it lives by from now on; without one it stays.
        lease: Option<LeaseId>,
    },
    /// The key goes. Deleting what does not exist changes nothing.
    Delete {
        /// The key.
        key: Arc<str>,
    },
}

impl Operation {
    /// The key that is changed.
    pub fn key(&self) -> &str {
        match self {
            Operation::Put { key, .. } | Operation::Delete { key } => key,
        }
    }
}

/// Whether a transaction was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnResponse {
    /// It was.
    Committed {
        /// The revision of its changes; that of the store if it changed nothing.
        revision: Revision,
        /// What each operation's key was before, in their order.
        previous: Vec<Option<KeyValue>>,
    },
    /// It was not: a condition did not hold.
    Conflict {
        /// The revision of the store at that moment.
        revision: Revision,
        /// What each condition's key is, in their order.
        current: Vec<Option<KeyValue>>,
    },
}

/// What a member does in the Raft group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Orders all writes.
    Leader,
    /// Follows a leader, or looks for one.
    Follower,
    /// Asks to be elected.
    Candidate,
}

/// A store as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreStatus {
    /// This member.
    pub member: u64,
    /// Its role.
    pub role: Role,
    /// The leading member, if there is one.
    pub leader: Option<u64>,
    /// The Raft term (0 without Raft).
    pub term: u64,
    /// The index of the last applied log entry.
    pub applied: u64,
    /// The newest revision.
    pub revision: Revision,
    /// The oldest readable revision.
    pub compacted: Revision,
    /// Keys that exist now.
    pub keys: usize,
    /// Bytes of their keys and values.
    pub bytes: usize,
    /// Changes that are kept for watches and reads of the past.
    pub history_events: usize,
    /// Bytes that are kept only for those.
    pub history_bytes: usize,
    /// Leases that have not expired.
    pub leases: usize,
    /// Open watches.
    pub watches: usize,
    /// Bytes on disk; 0 if nothing is kept there.
    pub disk_bytes: u64,
    /// Why the store cannot write, if it cannot.
    pub read_only: Option<String>,
}
