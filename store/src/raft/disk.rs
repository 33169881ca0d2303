//! All that is on disk: the log and the hard state in [files of their own](super::log), the snapshots in sled.
//!
//! ```text
//!   m                          which snapshot counts: index, term, configuration, generation, number of chunks
//!   s generation chunk         a chunk of a snapshot
//! ```
//! Every value begins with a crc32 over its key and itself, so that neither a flipped bit nor a
//! page in a wrong place is served. Sled's `flush` hands the data to the operating system but does
//! not wait for the disk (it uses `sync_file_range`), so [`Disk::write`] syncs sled's file itself.
//! After the first error nothing is written any more: what the operating system dropped from its
//! cache cannot be told.

use super::{
    directory::{Acknowledged, Directory},
    log::{Extent, Frame, Log},
};
use crate::{
    Error, Result,
    encoding::{DecodeError, Decoder, put_bytes, put_u64},
    state::{Loader, State},
};
use bytes::Bytes;
use parking_lot::Mutex;
use protobuf::Message as _;
use raft::eraftpb::{ConfState, Entry, HardState};
use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Sled's page cache. The live state is not in sled, so that little is read twice.
const CACHE_BYTES: u64 = 16 << 20;

const CHECKSUM_BYTES: usize = 4;

/// How often, and how long in all (5 s), the lock of a database that was just closed is waited for.
const LOCK_RETRIES: u32 = 2500;
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(2);

/// Writing failed; nothing will be written any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure(pub(super) String);

/// The snapshot that counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct SnapshotMeta {
    /// Whose log and snapshot these are.
    pub(super) member: u64,
    pub(super) index: u64,
    pub(super) term: u64,
    pub(super) conf_state: ConfState,
    /// Tells its chunks from those of snapshots before it, and of one that was not finished.
    pub(super) generation: u64,
    pub(super) chunks: u32,
    pub(super) bytes: u64,
}

/// What was found on disk.
pub(super) struct Recovered {
    pub(super) hard_state: HardState,
    pub(super) snapshot: SnapshotMeta,
    pub(super) state: State,
    /// Those after the snapshot, without gaps.
    pub(super) entries: Vec<Entry>,
}

/// Sled and the log, opened.
pub(super) struct Disk {
    path: PathBuf,
    db: sled::Db,
    /// Sled's file, to sync it.
    file: File,
    log: Mutex<Log>,
    /// What the log takes, for those who cannot wait until it was synced.
    log_bytes: AtomicU64,
    /// Set by the first failure, or from outside to see what a broken disk does.
    failure: Mutex<Option<Failure>>,
}

/// Changes of the snapshots, and of the log. Each part reaches the disk as a whole or not at all, the first before the
/// second.
#[derive(Default)]
pub(super) struct Changes {
    batch: sled::Batch,
    any: bool,
    log: Frame,
}

mod key {
    pub(super) const META: &[u8] = b"m";
    pub(super) const SNAPSHOT: u8 = b's';

    pub(super) fn snapshot(generation: u64, chunk: u32) -> [u8; 13] {
        let mut key = [SNAPSHOT; 13];
        key[1..9].copy_from_slice(&generation.to_be_bytes());
        key[9..].copy_from_slice(&chunk.to_be_bytes());
        key
    }
}

fn checksum(key: &[u8], body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(body);
    hasher.finalize().to_le_bytes()
}

fn seal(key: &[u8], body: &[u8]) -> Vec<u8> {
    [&checksum(key, body)[..], body].concat()
}

/// The body of a value; none if it does not match its checksum.
fn unseal<'a>(key: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    let (stored, body) = value.split_first_chunk::<CHECKSUM_BYTES>()?;
    (*stored == checksum(key, body)).then_some(body)
}

impl Changes {
    fn insert(&mut self, key: &[u8], body: &[u8]) {
        self.batch.insert(key, seal(key, body));
        self.any = true;
    }

    fn remove(&mut self, key: &[u8]) {
        self.batch.remove(key);
        self.any = true;
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.any && self.log.is_empty()
    }

    pub(super) fn put_hard_state(&mut self, hard_state: &HardState) {
        self.log.put_hard_state(hard_state);
    }

    pub(super) fn put_entry(&mut self, entry: &Entry) {
        self.log.put_entry(entry);
    }

    /// Removes every log entry from an index on: a new leader has others in their place.
    pub(super) fn cut_log(&mut self, index: u64) {
        self.log.cut(index);
    }

    pub(super) fn put_chunk(&mut self, generation: u64, chunk: u32, body: &[u8]) {
        self.insert(&key::snapshot(generation, chunk), body);
    }

    pub(super) fn put_meta(&mut self, meta: &SnapshotMeta) {
        let mut body = Vec::new();
        for number in [meta.member, meta.index, meta.term, meta.generation, meta.chunks.into(), meta.bytes] {
            put_u64(&mut body, number);
        }
        let conf_state = meta.conf_state.write_to_bytes().expect("a configuration always encodes");
        put_bytes(&mut body, &conf_state);
        self.insert(key::META, &body);
    }
}

impl Disk {
    /// Makes everything anew.
    pub(super) fn create(directory: &Directory) -> Result<Disk> {
        let log = Log::create(&directory.log_folder())?;
        Disk::with_log(directory, log)
    }

    /// Opens and reads everything, and refuses what is not whole.
    pub(super) fn open(directory: &Directory) -> Result<(Disk, Recovered)> {
        let acknowledged = directory.acknowledged();
        let (log, found) = Log::open(&directory.log_folder(), acknowledged.extent)?;
        let disk = Disk::with_log(directory, log)?;
        // What a killed process wrote may still be on its way to the disk.
        disk.file.sync_data().map_err(|error| Error::Io { path: disk.path.clone(), reason: error.to_string() })?;
        let (snapshot, state) = guard(&disk.path, || {
            Ok(disk.read_meta().and_then(|snapshot| Ok((snapshot.clone(), disk.read_state(&snapshot)?))))
        })??;
        let mut hard_state = found.hard_state;
        let is_behind = found.entries.last().is_some_and(|last| last.index < snapshot.index);
        let entries = disk.after_snapshot(&snapshot, found.entries, hard_state.commit, acknowledged)?;
        // A snapshot of the leader counts from when it is on disk, which is before the log says so.
        hard_state.commit = hard_state.commit.max(snapshot.index);
        if hard_state.term < snapshot.term {
            (hard_state.term, hard_state.vote) = (snapshot.term, 0);
        }
        if is_behind {
            let mut changes = Changes::default();
            changes.cut_log(0);
            changes.put_hard_state(&hard_state);
            let written = disk.write(changes, true);
            written.map_err(|Failure(reason)| Error::Io { path: disk.path.clone(), reason })?;
        }
        Ok((disk, Recovered { hard_state, snapshot, state, entries }))
    }

    fn with_log(directory: &Directory, log: Log) -> Result<Disk> {
        let folder = directory.raft_folder();
        let config = sled::Config::new()
            .path(&folder)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .mode(sled::Mode::HighThroughput);
        let db = open_db(&folder, &config)?;
        let file_path = folder.join("db");
        let file = File::options().read(true).write(true).open(&file_path);
        let file = file.map_err(|error| Error::Io { path: file_path, reason: error.to_string() })?;
        let log_bytes = AtomicU64::new(log.bytes());
        Ok(Disk { path: folder, db, file, log: Mutex::new(log), log_bytes, failure: Mutex::new(None) })
    }

    /// Does the changes. With `sync` they, and all before them, are on disk when it returns.
    pub(super) fn write(&self, changes: Changes, sync: bool) -> std::result::Result<(), Failure> {
        let mut failure = self.failure.lock();
        if let Some(failure) = &*failure {
            return Err(failure.clone());
        }
        let snapshots = || -> std::result::Result<(), String> {
            if changes.any {
                self.db.apply_batch(changes.batch).map_err(|error| error.to_string())?;
                if sync {
                    self.db.flush().map_err(|error| error.to_string())?;
                    self.file.sync_data().map_err(|error| error.to_string())?;
                }
            }
            Ok(())
        };
        let done = catch_unwind(AssertUnwindSafe(snapshots)).unwrap_or_else(|_| Err("sled panicked".into()));
        let done = done.and_then(|()| match changes.log.is_empty() {
            true => Ok(()),
            false => self.change_log(|log| log.append(changes.log, sync)),
        });
        done.map_err(|reason| self.failed(&mut failure, &reason))
    }

    fn change_log(&self, change: impl FnOnce(&mut Log) -> std::io::Result<()>) -> std::result::Result<(), String> {
        let mut log = self.log.lock();
        let changed = change(&mut log).map_err(|error| error.to_string());
        self.log_bytes.store(log.bytes(), Ordering::Relaxed);
        changed
    }

    fn failed(&self, failure: &mut Option<Failure>, reason: &str) -> Failure {
        failure.insert(Failure(format!("writing {} failed: {reason}", self.path.display()))).clone()
    }

    /// How far the log is on disk.
    pub(super) fn whole(&self) -> Extent {
        self.log.lock().whole()
    }

    /// Nothing more will be written.
    pub(super) fn finish(&self) -> std::result::Result<(), Failure> {
        let mut failure = self.failure.lock();
        if let Some(failure) = &*failure {
            return Err(failure.clone());
        }
        self.change_log(Log::finish).map_err(|error| self.failed(&mut failure, &error))
    }

    /// From now on every write fails as if the disk did.
    pub(super) fn fail(&self, reason: &str) {
        *self.failure.lock() = Some(Failure(format!("writing {} failed: {reason}", self.path.display())));
    }

    pub(super) fn bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len()) + self.log_bytes.load(Ordering::Relaxed)
    }

    /// Adds the removal of up to `limit` values that the snapshot `meta` made useless. Nothing is
    /// added if none is left.
    pub(super) fn remove_useless(
        &self,
        changes: &mut Changes,
        meta: &SnapshotMeta,
        limit: usize,
    ) -> std::result::Result<(), Failure> {
        let before = self.db.range(key::snapshot(0, 0)..key::snapshot(meta.generation, 0));
        let after = self.db.range(key::snapshot(meta.generation + 1, 0)..=key::snapshot(u64::MAX, u32::MAX));
        for key in before.keys().chain(after.keys()).take(limit) {
            changes.remove(&key.map_err(|error| Failure(error.to_string()))?);
        }
        Ok(())
    }

    /// Removes the part of the log that the snapshot `meta` made useless.
    pub(super) fn forget_log(&self, meta: &SnapshotMeta) -> std::result::Result<(), Failure> {
        let mut failure = self.failure.lock();
        self.change_log(|log| log.forget(meta.index)).map_err(|error| self.failed(&mut failure, &error))
    }

    /// One log entry, which is known to be there.
    pub(super) fn entry(&self, index: u64) -> Result<Entry> {
        self.log.lock().entry(index)
    }

    fn read_meta(&self) -> Result<SnapshotMeta> {
        let body = self.get(key::META)?.ok_or_else(|| self.damaged("the snapshot record is missing"))?;
        let decode = |mut input: Decoder| -> std::result::Result<SnapshotMeta, DecodeError> {
            let meta = SnapshotMeta {
                member: input.u64()?,
                index: input.u64()?,
                term: input.u64()?,
                generation: input.u64()?,
                chunks: u32::try_from(input.u64()?).map_err(|_| DecodeError::Number)?,
                bytes: input.u64()?,
                conf_state: ConfState::parse_from_bytes(&input.bytes()?).map_err(|_| DecodeError::TooShort)?,
            };
            input.finish()?;
            Ok(meta)
        };
        decode(Decoder::new(body))
            .map_err(|error| self.damaged(format!("the snapshot record does not decode: {error}")))
    }

    fn read_state(&self, meta: &SnapshotMeta) -> Result<State> {
        if meta.chunks == 0 {
            return Ok(State::default());
        }
        let mut loader = Loader::new();
        for chunk in 0..meta.chunks {
            let damaged =
                |what: String| self.damaged(format!("chunk {chunk} of the snapshot at {} {what}", meta.index));
            let body = self.get(&key::snapshot(meta.generation, chunk))?.ok_or_else(|| damaged("is missing".into()))?;
            loader.push(&body).map_err(|error| damaged(format!("does not load: {error}")))?;
        }
        loader.finish().map_err(|error| self.damaged(error.to_string()))
    }

    /// The entries after the snapshot, which have to go as far as is known to be committed.
    fn after_snapshot(
        &self,
        snapshot: &SnapshotMeta,
        mut entries: Vec<Entry>,
        committed: u64,
        acknowledged: Acknowledged,
    ) -> Result<Vec<Entry>> {
        let older = entries.partition_point(|entry| entry.index <= snapshot.index);
        entries.drain(..older);
        let expected = snapshot.index + 1;
        let damaged = |what: String| Error::Damaged { path: self.log.lock().folder().into(), what };
        if let Some(first) = entries.first().filter(|first| first.index != expected) {
            return Err(damaged(format!("log entry {expected} is missing, {} follows", first.index)));
        }
        let (last, required) = (snapshot.index + entries.len() as u64, committed.max(acknowledged.index));
        if last < required {
            return Err(damaged(format!("the log ends at {last}, but entry {required} was acknowledged")));
        }
        Ok(entries)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let Some(value) = self.db.get(key).map_err(|error| self.unreadable(&error))? else {
            return Ok(None);
        };
        match unseal(key, &value) {
            Some(body) => Ok(Some(Bytes::copy_from_slice(body))),
            None => Err(self.damaged(format!("{} does not match its checksum", describe(key)))),
        }
    }

    fn damaged(&self, what: impl Into<String>) -> Error {
        Error::Damaged { path: self.path.clone(), what: what.into() }
    }

    fn unreadable(&self, error: &sled::Error) -> Error {
        match error {
            sled::Error::Io(error) => Error::Io { path: self.path.clone(), reason: error.to_string() },
            other => self.damaged(other.to_string()),
        }
    }
}

fn describe(key: &[u8]) -> String {
    match key {
        key::META => "the snapshot record".into(),
        [key::SNAPSHOT, numbers @ ..] if numbers.len() == 12 => {
            let chunk = numbers.last_chunk::<4>().map_or(0, |chunk| u32::from_be_bytes(*chunk));
            format!("chunk {chunk} of the snapshot")
        }
        other => format!("the value of key {other:?}"),
    }
}

/// Opens sled. A database that this process has just dropped keeps its lock until sled's own
/// threads have let go of it; no other process can have it, since the directory is locked.
fn open_db(folder: &Path, config: &sled::Config) -> Result<sled::Db> {
    for _ in 0..LOCK_RETRIES {
        match guard(folder, || config.open()) {
            Err(Error::Io { reason, .. }) if reason.contains("could not acquire lock") => {
                std::thread::sleep(LOCK_RETRY_INTERVAL);
            }
            opened => return opened,
        }
    }
    guard(folder, || config.open())
}

/// Sled answers some damage with a panic; here it is an error like other damage.
fn guard<T>(path: &Path, work: impl FnOnce() -> sled::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(sled::Error::Io(error))) => Err(Error::Io { path: path.into(), reason: error.to_string() }),
        Ok(Err(error)) => Err(Error::Damaged { path: path.into(), what: error.to_string() }),
        Err(panic) => {
            let words = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            let what = format!("sled cannot read its files: {}", words.unwrap_or("it panicked"));
            Err(Error::Damaged { path: path.into(), what })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64) -> Entry {
        Entry { index, term: 1, ..Entry::default() }
    }

    fn write(disk: &Disk, change: impl FnOnce(&mut Changes)) {
        let mut changes = Changes::default();
        change(&mut changes);
        disk.write(changes, true).unwrap();
    }

    /// A member that was behind got a snapshot of the leader's, and was killed before its log said so.
    #[test]
    fn a_snapshot_that_the_log_does_not_know_of_takes_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let mut directory = Directory::open(folder.path()).unwrap();
        let disk = Disk::create(&directory).unwrap();
        write(&disk, |changes| {
            (1..=5).for_each(|index| changes.put_entry(&entry(index)));
            changes.put_hard_state(&HardState { term: 1, vote: 2, commit: 4, ..HardState::default() });
            changes.put_meta(&SnapshotMeta { member: 1, index: 9, term: 3, ..SnapshotMeta::default() });
        });
        directory.complete().unwrap();
        directory.acknowledge(Acknowledged { index: 4, extent: disk.whole() }).unwrap();
        drop(disk);

        let (disk, recovered) = Disk::open(&directory).unwrap();
        let HardState { term, vote, commit, .. } = recovered.hard_state;
        assert_eq!((term, vote, commit, recovered.entries), (3, 0, 9, Vec::new()));
        write(&disk, |changes| changes.put_entry(&entry(10)));
        drop(disk);
        let (_, recovered) = Disk::open(&directory).unwrap();
        assert_eq!((recovered.hard_state.commit, recovered.entries), (9, vec![entry(10)]));
    }
}
