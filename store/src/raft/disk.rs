//! The log, the hard state and the snapshots in sled.
//!
//! ```text
//!   h                          hard state: term, vote, commit
//!   l index part               a log entry, cut into parts of 4 KiB
//!   m                          which snapshot counts: index, term, configuration, generation, number of chunks
//!   s generation chunk         a chunk of a snapshot
//! ```
//! Every value begins with a crc32 over its key and itself, so that neither a flipped bit nor a
//! page in a wrong place is served. Sled's `flush` hands the data to the operating system but does
//! not wait for the disk (it uses `sync_file_range`), so [`Disk::write`] syncs sled's file itself.
//! After the first error nothing is written any more: what the operating system dropped from its
//! cache cannot be told.

use super::entry;
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
    time::Duration,
};

/// Sled's page cache. The live state is not in sled, so that little is read twice.
const CACHE_BYTES: u64 = 16 << 20;

/// The largest value that is put into sled. Its pages hold up to 16 values and a few, and what has
/// more than a quarter of a segment (512 KiB) goes to a file of its own, which nobody syncs: pages
/// have to stay well below that.
const PART_BYTES: usize = 4 << 10;

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

/// Sled, opened.
pub(super) struct Disk {
    path: PathBuf,
    db: sled::Db,
    /// Sled's file, to sync it.
    file: File,
    /// Set by the first failure, or from outside to see what a broken disk does.
    failure: Mutex<Option<Failure>>,
}

/// Changes that reach the disk together or not at all.
#[derive(Default)]
pub(super) struct Changes {
    batch: sled::Batch,
    any: bool,
}

mod key {
    pub(super) const HARD_STATE: &[u8] = b"h";
    pub(super) const META: &[u8] = b"m";
    pub(super) const LOG: u8 = b'l';
    pub(super) const SNAPSHOT: u8 = b's';

    pub(super) fn log(index: u64, part: u16) -> [u8; 11] {
        let mut key = [LOG; 11];
        key[1..9].copy_from_slice(&index.to_be_bytes());
        key[9..].copy_from_slice(&part.to_be_bytes());
        key
    }

    pub(super) fn snapshot(generation: u64, chunk: u32) -> [u8; 13] {
        let mut key = [SNAPSHOT; 13];
        key[1..9].copy_from_slice(&generation.to_be_bytes());
        key[9..].copy_from_slice(&chunk.to_be_bytes());
        key
    }

    /// The index and part of a log key.
    pub(super) fn parse_log(key: &[u8]) -> Option<(u64, u16)> {
        let key = key.strip_prefix(&[LOG])?;
        let (index, part) = key.split_first_chunk::<8>()?;
        Some((u64::from_be_bytes(*index), u16::from_be_bytes(part.try_into().ok()?)))
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
        !self.any
    }

    pub(super) fn put_hard_state(&mut self, hard_state: &HardState) {
        let mut body = Vec::new();
        for number in [hard_state.term, hard_state.vote, hard_state.commit] {
            put_u64(&mut body, number);
        }
        self.insert(key::HARD_STATE, &body);
    }

    pub(super) fn put_entry(&mut self, entry: &Entry) {
        let body = entry::encode(entry);
        // The first part tells the length of the whole.
        let body = [&(body.len() as u64).to_le_bytes()[..], &body].concat();
        for (part, bytes) in (0u16..).zip(body.chunks(PART_BYTES)) {
            self.insert(&key::log(entry.index, part), bytes);
        }
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
    /// Opens or makes sled's files.
    pub(super) fn open(folder: &Path) -> Result<Disk> {
        let config = sled::Config::new()
            .path(folder)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .mode(sled::Mode::HighThroughput);
        let db = open_db(folder, &config)?;
        let file_path = folder.join("db");
        let file = File::options().read(true).write(true).open(&file_path);
        let file = file.map_err(|error| Error::Io { path: file_path, reason: error.to_string() })?;
        Ok(Disk { path: folder.into(), db, file, failure: Mutex::new(None) })
    }

    /// Does the changes. With `sync` they, and all before them, are on disk when it returns.
    pub(super) fn write(&self, changes: Changes, sync: bool) -> std::result::Result<(), Failure> {
        let mut failure = self.failure.lock();
        if let Some(failure) = &*failure {
            return Err(failure.clone());
        }
        let write = || -> std::result::Result<(), String> {
            if changes.any {
                self.db.apply_batch(changes.batch).map_err(|error| error.to_string())?;
            }
            if sync {
                self.db.flush().map_err(|error| error.to_string())?;
                self.file.sync_data().map_err(|error| error.to_string())?;
            }
            Ok(())
        };
        let done = catch_unwind(AssertUnwindSafe(write)).unwrap_or_else(|_| Err("sled panicked".into()));
        done.map_err(|reason| {
            failure.insert(Failure(format!("writing {} failed: {reason}", self.path.display()))).clone()
        })
    }

    /// From now on every write fails as if the disk did.
    pub(super) fn fail(&self, reason: &str) {
        *self.failure.lock() = Some(Failure(format!("writing {} failed: {reason}", self.path.display())));
    }

    pub(super) fn bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }

    /// Adds the removal of every log entry from an index on: a new leader has others in their
    /// place.
    pub(super) fn remove_log_from(&self, changes: &mut Changes, index: u64) -> std::result::Result<(), Failure> {
        for key in self.db.range(key::log(index, 0)..=key::log(u64::MAX, u16::MAX)).keys() {
            changes.remove(&key.map_err(|error| Failure(error.to_string()))?);
        }
        Ok(())
    }

    /// Adds the removal of up to `limit` values that the snapshot `meta` made useless. Nothing is
    /// added if none is left.
    pub(super) fn remove_useless(
        &self,
        changes: &mut Changes,
        meta: &SnapshotMeta,
        limit: usize,
    ) -> std::result::Result<(), Failure> {
        let log = self.db.range(key::log(0, 0)..key::log(meta.index + 1, 0));
        let before = self.db.range(key::snapshot(0, 0)..key::snapshot(meta.generation, 0));
        let after = self.db.range(key::snapshot(meta.generation + 1, 0)..=key::snapshot(u64::MAX, u32::MAX));
        for key in log.keys().chain(before.keys()).chain(after.keys()).take(limit) {
            changes.remove(&key.map_err(|error| Failure(error.to_string()))?);
        }
        Ok(())
    }

    /// One log entry, which is known to be there.
    pub(super) fn entry(&self, index: u64) -> Result<Entry> {
        let parts = self.db.range(key::log(index, 0)..=key::log(index, u16::MAX));
        match self.read_entries(parts)?.pop() {
            Some((_, Ok(entry))) => Ok(entry),
            Some((_, Err(flaw))) => Err(self.damaged(format!("log entry {index} {flaw}"))),
            None => Err(self.damaged(format!("log entry {index} is missing"))),
        }
    }

    /// Reads everything, and refuses what is not whole. `acknowledged` is an index that the log is
    /// known to have reached.
    pub(super) fn recover(&self, acknowledged: u64) -> Result<Recovered> {
        guard(&self.path, || Ok(self.recover_unguarded(acknowledged)))?
    }

    fn recover_unguarded(&self, acknowledged: u64) -> Result<Recovered> {
        let snapshot = self.read_meta()?;
        let state = self.read_state(&snapshot)?;
        let hard_state = self.read_hard_state()?;
        let entries = self.read_log(&snapshot, hard_state.commit.max(acknowledged))?;
        Ok(Recovered { hard_state, snapshot, state, entries })
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

    fn read_hard_state(&self) -> Result<HardState> {
        let Some(body) = self.get(key::HARD_STATE)? else {
            return Ok(HardState::default());
        };
        let decode = |mut input: Decoder| -> std::result::Result<HardState, DecodeError> {
            let hard_state =
                HardState { term: input.u64()?, vote: input.u64()?, commit: input.u64()?, ..HardState::default() };
            input.finish()?;
            Ok(hard_state)
        };
        decode(Decoder::new(body)).map_err(|error| self.damaged(format!("the hard state does not decode: {error}")))
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

    /// The entries after the snapshot. The last one may be incomplete, torn by a crash, if it was
    /// not `required`; it is cut off then. A wrong checksum is damage even there: no crash leaves
    /// one.
    fn read_log(&self, snapshot: &SnapshotMeta, required: u64) -> Result<Vec<Entry>> {
        let parts = self.db.range(key::log(snapshot.index + 1, 0)..=key::log(u64::MAX, u16::MAX));
        let mut read = self.read_entries(parts)?;
        if let Some((index, Err(Flaw::Incomplete))) = read.last()
            && *index > required
        {
            tracing::warn!(path = %self.path.display(), index, "the torn end of the log was cut off");
            let mut changes = Changes::default();
            let cut = self.remove_log_from(&mut changes, *index).and_then(|()| self.write(changes, true));
            cut.map_err(|Failure(reason)| Error::Io { path: self.path.clone(), reason })?;
            read.pop();
        }
        let mut entries = Vec::with_capacity(read.len());
        let mut expected = snapshot.index + 1;
        for (index, entry) in read {
            if index != expected {
                return Err(self.damaged(format!("log entry {expected} is missing, {index} follows")));
            }
            entries.push(entry.map_err(|flaw| self.damaged(format!("log entry {index} {flaw}")))?);
            expected += 1;
        }
        if expected <= required {
            let last = expected - 1;
            return Err(self.damaged(format!("the log ends at {last}, but entry {required} was acknowledged")));
        }
        Ok(entries)
    }

    /// Puts the parts of entries together: for each index the entry, or what is wrong with it.
    fn read_entries(&self, parts: sled::Iter) -> Result<Vec<(u64, std::result::Result<Entry, Flaw>)>> {
        let mut read: Vec<(u64, std::result::Result<Vec<u8>, Flaw>)> = Vec::new();
        for part in parts {
            let (key, value) = part.map_err(|error| self.unreadable(&error))?;
            let (index, part) = key::parse_log(&key).ok_or_else(|| self.damaged("a key is none that was written"))?;
            if read.last().is_none_or(|(last, _)| *last != index) {
                read.push((index, Ok(Vec::new())));
            }
            let (_, bytes) = read.last_mut().expect("one was just pushed");
            match (&mut *bytes, unseal(&key, &value)) {
                (Ok(bytes), Some(body)) if bytes.len() == usize::from(part) * PART_BYTES => {
                    bytes.extend_from_slice(body)
                }
                (Ok(_), Some(_)) => *bytes = Err(Flaw::Incomplete),
                (_, None) => *bytes = Err(Flaw::Wrong("does not match its checksum".into())),
                (Err(_), Some(_)) => {}
            }
        }
        let decode = |index: u64, bytes: Vec<u8>| {
            let bytes = Bytes::from(bytes);
            let (length, _) = bytes.split_first_chunk::<8>().ok_or(Flaw::Incomplete)?;
            if u64::from_le_bytes(*length) != bytes.len() as u64 - 8 {
                return Err(Flaw::Incomplete);
            }
            match entry::decode(bytes.slice(8..)) {
                Ok(entry) if entry.index == index => Ok(entry),
                Ok(entry) => Err(Flaw::Wrong(format!("claims to be {}", entry.index))),
                Err(error) => Err(Flaw::Wrong(format!("does not decode: {error}"))),
            }
        };
        Ok(read.into_iter().map(|(index, bytes)| (index, bytes.and_then(|bytes| decode(index, bytes)))).collect())
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

/// What is wrong with a log entry.
#[derive(Debug, thiserror::Error)]
enum Flaw {
    /// Parts of it are not there.
    #[error("is not whole")]
    Incomplete,
    #[error("{0}")]
    Wrong(String),
}

fn describe(key: &[u8]) -> String {
    match key {
        key::HARD_STATE => "the hard state".into(),
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
