//! The log as the Raft library reads it: the newest entries in memory, older ones from disk.

use super::{
    disk::{Changes, Disk, Recovered, SnapshotMeta},
    entry,
};
use crate::{replica::Replica, state::State};
use raft::{
    GetEntriesContext, RaftState, Storage, StorageError,
    eraftpb::{ConfState, Entry, HardState, Snapshot},
};
use std::{collections::VecDeque, sync::Arc};

/// How many bytes of applied entries stay in memory, for members that are a little behind.
const CACHE_BYTES: usize = 4 << 20;

pub(super) struct LogStorage {
    disk: Arc<Disk>,
    replica: Arc<Replica>,
    snapshot: SnapshotMeta,
    hard_state: HardState,
    /// The configuration as of `applied`.
    conf_state: ConfState,
    /// The newest entries, without gaps; those that are not applied yet among them.
    cache: VecDeque<Entry>,
    cached_bytes: usize,
    last: u64,
    applied: u64,
    /// Bytes of the entries after the snapshot.
    log_bytes: usize,
}

impl LogStorage {
    /// The storage, and the state from which the replica starts.
    pub(super) fn new(disk: Arc<Disk>, recovered: Recovered) -> (LogStorage, Arc<Replica>) {
        let Recovered { hard_state, snapshot, state, entries } = recovered;
        let replica = Arc::new(Replica::new(state));
        let bytes = entries.iter().map(entry::size).sum();
        let storage = LogStorage {
            disk,
            replica: replica.clone(),
            hard_state,
            conf_state: snapshot.conf_state.clone(),
            last: entries.last().map_or(snapshot.index, |entry| entry.index),
            applied: snapshot.index,
            cache: entries.into(),
            cached_bytes: bytes,
            log_bytes: bytes,
            snapshot,
        };
        (storage, replica)
    }

    pub(super) fn disk(&self) -> &Disk {
        &self.disk
    }

    pub(super) fn snapshot_meta(&self) -> &SnapshotMeta {
        &self.snapshot
    }

    pub(super) fn hard_state(&self) -> &HardState {
        &self.hard_state
    }

    pub(super) fn conf_state(&self) -> &ConfState {
        &self.conf_state
    }

    pub(super) fn set_conf_state(&mut self, conf_state: ConfState) {
        self.conf_state = conf_state;
    }

    pub(super) fn applied(&self) -> u64 {
        self.applied
    }

    /// Bytes of the applied entries that a snapshot taken now would make useless.
    pub(super) fn applied_bytes(&self) -> usize {
        let newer = self.cache.iter().rev().take_while(|entry| entry.index > self.applied);
        self.log_bytes - newer.map(entry::size).sum::<usize>()
    }

    /// Takes entries and hard state into memory, and adds them to what is written next.
    pub(super) fn append(&mut self, changes: &mut Changes, entries: Vec<Entry>, hard_state: Option<&HardState>) {
        if let Some(hard_state) = hard_state {
            self.hard_state = hard_state.clone();
        }
        if let Some(first) = entries.first() {
            if first.index <= self.last {
                changes.cut_log(first.index);
                self.truncate(first.index);
            }
            for entry in entries {
                assert_eq!(entry.index, self.last + 1, "the Raft library appends without gaps");
                changes.put_entry(&entry);
                self.last = entry.index;
                self.cached_bytes += entry::size(&entry);
                self.log_bytes += entry::size(&entry);
                self.cache.push_back(entry);
            }
        }
        // The commit index alone is not worth a write; it goes along with the next one.
        if hard_state.is_some() || !changes.is_empty() {
            changes.put_hard_state(&self.hard_state);
        }
    }

    pub(super) fn set_commit(&mut self, commit: u64) {
        self.hard_state.commit = commit;
    }

    fn truncate(&mut self, from: u64) {
        assert!(from > self.applied, "what is applied is never replaced");
        while let Some(entry) = self.cache.pop_back_if(|entry| entry.index >= from) {
            self.cached_bytes -= entry::size(&entry);
            self.log_bytes -= entry::size(&entry);
        }
        self.last = from - 1;
    }

    /// Entries up to here are applied; what memory does not need of them goes.
    pub(super) fn set_applied(&mut self, index: u64) {
        self.applied = index;
        while self.cached_bytes > CACHE_BYTES {
            let Some(entry) = self.cache.pop_front_if(|entry| entry.index <= index) else {
                break;
            };
            self.cached_bytes -= entry::size(&entry);
        }
    }

    /// A snapshot of the own state was written: the log before it is not needed any more.
    pub(super) fn trim(&mut self, snapshot: SnapshotMeta, bytes_before: usize) {
        self.snapshot = snapshot;
        self.log_bytes -= bytes_before;
        while let Some(entry) = self.cache.pop_front_if(|entry| entry.index <= self.snapshot.index) {
            self.cached_bytes -= entry::size(&entry);
        }
    }

    /// A snapshot of the leader's state was written in place of everything.
    pub(super) fn install(&mut self, snapshot: SnapshotMeta, state: State) {
        self.conf_state = snapshot.conf_state.clone();
        self.applied = snapshot.index;
        self.last = snapshot.index;
        self.hard_state.commit = self.hard_state.commit.max(snapshot.index);
        self.snapshot = snapshot;
        self.cache.clear();
        (self.cached_bytes, self.log_bytes) = (0, 0);
        self.replica.replace(state);
    }

    fn cached(&self, index: u64) -> Option<&Entry> {
        let first = self.cache.front()?.index;
        self.cache.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }

    fn entry(&self, index: u64) -> raft::Result<Entry> {
        match self.cached(index) {
            Some(entry) => Ok(entry.clone()),
            None => self.disk.entry(index).map_err(|error| StorageError::Other(Box::new(error)).into()),
        }
    }
}

impl Storage for LogStorage {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.snapshot.index {
            return Err(StorageError::Compacted.into());
        }
        assert!(high <= self.last + 1, "the Raft library asks for entries up to {high} of {}", self.last);
        let max_size = max_size.into().unwrap_or(u64::MAX);
        let (mut entries, mut size) = (Vec::new(), 0);
        for index in low..high {
            let entry = self.entry(index)?;
            size += entry::size(&entry) as u64;
            if size > max_size && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.snapshot.index {
            return Ok(self.snapshot.term);
        }
        if index < self.snapshot.index {
            return Err(StorageError::Compacted.into());
        }
        if index > self.last {
            return Err(StorageError::Unavailable.into());
        }
        match self.cached(index) {
            Some(entry) => Ok(entry.term),
            None => self.entry(index).map(|entry| entry.term),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.snapshot.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last)
    }

    /// The state as it is now, for a member whose next entry is not in the log any more.
    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        if request_index > self.applied {
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        let mut snapshot = Snapshot::default();
        let data: Vec<u8> = self.replica.image().chunks().flatten().collect();
        snapshot.data = data.into();
        let metadata = snapshot.mut_metadata();
        metadata.index = self.applied;
        metadata.term = self.term(self.applied)?;
        // Without the configuration a new member would ignore the snapshot.
        *metadata.mut_conf_state() = self.conf_state.clone();
        Ok(snapshot)
    }
}
