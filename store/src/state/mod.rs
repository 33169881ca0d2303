//! The state machine: a map from keys to versions, the order in which they came about, and leases.
//!
//! ```text
//!   versions   /registry/core/pods/default/web → newest @17, older [@12, @9]     every read
//!   history    @9 [web put]  @12 [web put]  @15 [db put]  @17 [web put]          watches, compaction
//!   leases     3 → ttl 1h, {/registry/core/events/default/web.17f0}
//! ```
//!
//! A version is in `versions` as long as it is the newest of its key, or can be read at a revision
//! that is not compacted. `history` holds the changes after the compacted revision; both share keys
//! and values.

mod history;
mod leases;
mod records;
mod versions;

use crate::{
    Condition, Error, Event, EventKind, INITIAL_REVISION, KeyValue, LeaseId, Operation, Range, RangeResponse, Result,
    Revision, Txn, TxnResponse,
    command::{Command, Outcome},
};
use history::History;
use leases::Leases;
use std::{
    collections::{BTreeMap, VecDeque},
    num::NonZeroU64,
    ops::Bound,
    sync::Arc,
};
use versions::{Version, Versions};

pub(crate) use records::{CHUNK_BYTES, Chunks, Loader, StateImage};

/// The state. Applying the same commands in the same order gives the same state, everywhere and
/// always.
pub(crate) struct State {
    revision: Revision,
    compacted: Revision,
    versions: BTreeMap<Arc<str>, Versions>,
    history: History,
    leases: Leases,
    /// Keys that exist at the newest revision, and the bytes of those keys and values.
    keys: usize,
    bytes: usize,
}

impl Default for State {
    fn default() -> Self {
        State {
            revision: INITIAL_REVISION,
            compacted: INITIAL_REVISION,
            versions: BTreeMap::new(),
            history: History::default(),
            leases: Leases::default(),
            keys: 0,
            bytes: 0,
        }
    }
}

/// What applying a command did: the answer for the proposer, and the changes for the watchers.
pub(crate) struct Applied {
    pub(crate) outcome: Result<Outcome>,
    pub(crate) events: Option<Arc<[Event]>>,
}

impl State {
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    pub(crate) fn compacted(&self) -> Revision {
        self.compacted
    }

    pub(crate) fn keys(&self) -> usize {
        self.keys
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    pub(crate) fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Deterministic: no clock, no randomness, no I/O.
    pub(crate) fn apply(&mut self, command: Command) -> Applied {
        match command {
            Command::Commit(txn) => self.apply_txn(txn),
            Command::Compact { at } => Applied { outcome: self.compact(at).map(|()| Outcome::Compacted), events: None },
            Command::GrantLease { ttl } => {
                Applied { outcome: Ok(Outcome::Granted(self.leases.grant(ttl))), events: None }
            }
            Command::RevokeLease { lease } => self.revoke(lease),
        }
    }

    fn apply_txn(&mut self, txn: Txn) -> Applied {
        let lost = txn.operations.iter().find_map(|operation| match operation {
            Operation::Put { lease: Some(lease), .. } if !self.leases.contains(*lease) => Some(*lease),
            _ => None,
        });
        if let Some(lease) = lost {
            return Applied { outcome: Err(Error::LeaseNotFound(lease)), events: None };
        }
        if !txn.conditions.iter().all(|condition| self.holds(condition)) {
            let current = txn.conditions.iter().map(|condition| self.get(condition.key())).collect();
            let response = TxnResponse::Conflict { revision: self.revision, current };
            return Applied { outcome: Ok(Outcome::Txn(response)), events: None };
        }
        let (previous, events) = self.write(txn.operations);
        let response = TxnResponse::Committed { revision: self.revision, previous };
        Applied { outcome: Ok(Outcome::Txn(response)), events }
    }

    fn holds(&self, condition: &Condition) -> bool {
        let current =
            self.versions.get(condition.key()).map(|versions| &versions.newest).filter(|newest| newest.lives());
        match condition {
            Condition::Absent { .. } => current.is_none(),
            Condition::ModRevision { revision, .. } => current.is_some_and(|newest| newest.mod_revision == *revision),
        }
    }

    fn revoke(&mut self, lease: LeaseId) -> Applied {
        let Some(keys) = self.leases.remove(lease) else {
            return Applied { outcome: Err(Error::LeaseNotFound(lease)), events: None };
        };
        let (_, events) = self.write(keys.into_iter().map(|key| Operation::Delete { key }).collect());
        Applied { outcome: Ok(Outcome::Revoked), events }
    }

    /// Does the operations at the next revision; if none of them changes anything, there is no next
    /// revision.
    fn write(&mut self, operations: Vec<Operation>) -> (Vec<Option<KeyValue>>, Option<Arc<[Event]>>) {
        let revision = self.revision + 1;
        let mut previous = Vec::with_capacity(operations.len());
        let mut events = Vec::with_capacity(operations.len());
        for operation in operations {
            let event = match operation {
                Operation::Put { key, value, lease } => Some(self.put(revision, key, value, lease)),
                Operation::Delete { key } => self.delete(revision, &key),
            };
            previous.push(event.as_ref().and_then(|event| event.prev.clone()));
            events.extend(event);
        }
        if events.is_empty() {
            return (previous, None);
        }
        let events: Arc<[Event]> = events.into();
        self.revision = revision;
        self.history.push(events.clone());
        (previous, Some(events))
    }

    fn put(&mut self, revision: Revision, key: Arc<str>, value: bytes::Bytes, lease: Option<LeaseId>) -> Event {
        let (key, prev) = match self.versions.get_key_value(&*key) {
            Some((known, versions)) => (known.clone(), versions.newest.key_value(known)),
            None => (key, None),
        };
        let create_revision = prev.as_ref().map_or(revision, |prev| prev.create_revision);
        match &prev {
            Some(prev) => self.bytes -= prev.value.len(),
            None => {
                self.keys += 1;
                self.bytes += key.len();
            }
        }
        self.bytes += value.len();
        self.leases.move_key(&key, prev.as_ref().and_then(|prev| prev.lease), lease);
        let version = Version { value: Some(value.clone()), create_revision, mod_revision: revision, lease };
        match self.versions.get_mut(&key) {
            Some(versions) => versions.push(version),
            None => drop(self.versions.insert(key.clone(), Versions::new(version))),
        }
        let kv = KeyValue { key, value, create_revision, mod_revision: revision, lease };
        Event { kind: EventKind::Put, kv, prev }
    }

    fn delete(&mut self, revision: Revision, key: &str) -> Option<Event> {
        let (key, versions) = self.versions.get_key_value(key)?;
        let (key, prev) = (key.clone(), versions.newest.key_value(key)?);
        self.keys -= 1;
        self.bytes -= key.len() + prev.value.len();
        self.leases.move_key(&key, prev.lease, None);
        let tombstone =
            Version { value: None, create_revision: prev.create_revision, mod_revision: revision, lease: None };
        self.versions.get_mut(&key).expect("it was just found").push(tombstone);
        let kv = KeyValue {
            key,
            value: bytes::Bytes::new(),
            create_revision: prev.create_revision,
            mod_revision: revision,
            lease: None,
        };
        Some(Event { kind: EventKind::Delete, kv, prev: Some(prev) })
    }

    fn compact(&mut self, at: Revision) -> Result<()> {
        if at > self.revision {
            return Err(Error::FutureRevision { requested: at, current: self.revision });
        }
        while let Some(events) = self.history.pop_until(at) {
            for event in &*events {
                self.forget_before(&event.kv.key, event.revision());
            }
        }
        self.compacted = self.compacted.max(at);
        Ok(())
    }

    /// Drops the versions of a key that nobody can read once everything before `revision` is
    /// forgotten.
    fn forget_before(&mut self, key: &str, revision: Revision) {
        let Some(versions) = self.versions.get_mut(key) else {
            return;
        };
        if !versions.forget_before(revision) {
            self.versions.remove(key);
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<KeyValue> {
        let (key, versions) = self.versions.get_key_value(key)?;
        versions.newest.key_value(key)
    }

    pub(crate) fn range(&self, range: &Range) -> Result<RangeResponse> {
        let revision = range.at.unwrap_or(self.revision);
        self.check_readable(revision)?;
        let start = range.from.as_deref().unwrap_or_default().max(&range.prefix);
        let mut in_range = self
            .versions
            .range::<str, _>((Bound::Included(start), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(&range.prefix))
            .filter_map(|(key, versions)| Some((key, versions.at(revision).filter(|version| version.lives())?)));
        let limit = if range.limit == 0 { usize::MAX } else { range.limit };
        let key_values: Vec<KeyValue> =
            in_range.by_ref().take(limit).filter_map(|(key, version)| version.key_value(key)).collect();
        let (more, count) = if range.count {
            let rest = in_range.count();
            (rest > 0, Some((key_values.len() + rest) as u64))
        } else {
            (in_range.next().is_some(), None)
        };
        Ok(RangeResponse { key_values, revision, more, count })
    }

    fn check_readable(&self, revision: Revision) -> Result<()> {
        if revision < self.compacted {
            return Err(Error::Compacted { requested: revision, compacted: self.compacted });
        }
        if revision > self.revision {
            return Err(Error::FutureRevision { requested: revision, current: self.revision });
        }
        Ok(())
    }

    /// The changes under a prefix after a revision, one batch a revision.
    pub(crate) fn changes(&self, prefix: &str, after: Revision) -> Result<VecDeque<Arc<[Event]>>> {
        if after < self.compacted {
            return Err(Error::Compacted { requested: after, compacted: self.compacted });
        }
        Ok(self.history.after(after).filter_map(|events| under_prefix(events, prefix)).collect())
    }
}

/// The part of a batch that lies under a prefix.
fn under_prefix(events: &Arc<[Event]>, prefix: &str) -> Option<Arc<[Event]>> {
    let own = events.iter().filter(|event| event.kv.key.starts_with(prefix));
    match own.clone().count() {
        0 => None,
        all if all == events.len() => Some(events.clone()),
        _ => Some(own.cloned().collect()),
    }
}

fn lease_id(n: u64) -> LeaseId {
    LeaseId(NonZeroU64::new(n).expect("leases are numbered from 1"))
}
