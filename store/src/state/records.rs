//! The state as a stream of records, cut into chunks: what snapshots on disk, to lagging members
//! and in files are made of.
//!
//! ```text
//!   header   version, revision, compacted, leases
//!   key      key, versions oldest first           one record a key, in the order of keys
//!   …
//!   end      number of keys
//! ```
//! Each record is preceded by its length. Chunks are cut without regard to records. Checksums
//! belong to whoever stores the chunks.

use super::{
    State,
    history::History,
    leases::Leases,
    versions::{Version, Versions},
};
use crate::{
    Event, EventKind, KeyValue, LeaseId, Revision,
    encoding::{DecodeError, Decoder, put_bytes, put_lease, put_u64},
};
use bytes::{Bytes, BytesMut};
use std::{collections::BTreeMap, num::NonZeroU64, sync::Arc, time::Duration};

/// The version of this encoding.
const IMAGE_VERSION: u8 = 1;

/// How large chunks are, but for the last one. Pages of sled hold up to 16 values and a few, and what has more than a
/// quarter of a segment (512 KiB) goes to a file of its own, which nobody syncs: pages have to stay well below that.
pub(crate) const CHUNK_BYTES: usize = 4 << 10;

mod tag {
    pub(super) const HEADER: u8 = 1;
    pub(super) const KEY: u8 = 2;
    pub(super) const END: u8 = 3;
}

/// Records that do not make a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("a record of the snapshot does not decode: {0}")]
    Record(#[from] DecodeError),
    #[error("the records of the snapshot contradict each other: {0}")]
    Contradiction(&'static str),
}

/// A state at one moment, sharing keys and values with the live one.
pub(crate) struct StateImage {
    revision: Revision,
    compacted: Revision,
    granted: u64,
    leases: Vec<(LeaseId, Duration)>,
    keys: Vec<(Arc<str>, Versions)>,
}

impl State {
    pub(crate) fn image(&self) -> StateImage {
        StateImage {
            revision: self.revision,
            compacted: self.compacted,
            granted: self.leases.granted(),
            leases: self.leases.iter().collect(),
            keys: self.versions.iter().map(|(key, versions)| (key.clone(), versions.clone())).collect(),
        }
    }
}

impl StateImage {
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// The image as chunks, encoded one by one.
    pub(crate) fn chunks(self: Arc<Self>) -> Chunks {
        Chunks { image: self, next: 0, buffer: Vec::new(), ended: false }
    }

    fn header(&self, out: &mut Vec<u8>) {
        out.extend([tag::HEADER, IMAGE_VERSION]);
        put_u64(out, self.revision);
        put_u64(out, self.compacted);
        put_u64(out, self.granted);
        put_u64(out, self.leases.len() as u64);
        for (id, ttl) in &self.leases {
            put_lease(out, Some(*id));
            put_u64(out, u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        }
    }
}

fn encode_key(out: &mut Vec<u8>, key: &str, versions: &Versions) {
    out.push(tag::KEY);
    put_bytes(out, key.as_bytes());
    put_u64(out, versions.len() as u64);
    for version in versions.iter() {
        put_u64(out, version.create_revision);
        put_u64(out, version.mod_revision);
        put_lease(out, version.lease);
        // A tombstone is 0, a value its length plus one.
        match &version.value {
            None => put_u64(out, 0),
            Some(value) => {
                put_u64(out, value.len() as u64 + 1);
                out.extend_from_slice(value);
            }
        }
    }
}

/// Encodes an image chunk by chunk.
pub(crate) struct Chunks {
    image: Arc<StateImage>,
    /// Records encoded so far: the header, the keys, the end.
    next: usize,
    buffer: Vec<u8>,
    ended: bool,
}

impl Chunks {
    fn encode_next(&mut self) {
        let start = self.buffer.len();
        self.buffer.extend([0; 4]);
        let out = &mut self.buffer;
        match self.next.checked_sub(1) {
            None => self.image.header(out),
            Some(index) => match self.image.keys.get(index) {
                Some((key, versions)) => encode_key(out, key, versions),
                None => {
                    out.push(tag::END);
                    put_u64(out, self.image.keys.len() as u64);
                    self.ended = true;
                }
            },
        }
        self.next += 1;
        let length = u32::try_from(self.buffer.len() - start - 4).expect("the history bounds the versions of a key");
        self.buffer[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }
}

impl Iterator for Chunks {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        while !self.ended && self.buffer.len() < CHUNK_BYTES {
            self.encode_next();
        }
        let length = self.buffer.len().min(CHUNK_BYTES);
        (length > 0).then(|| self.buffer.drain(..length).collect::<Vec<u8>>().into())
    }
}

/// Makes a state of chunks.
pub(crate) struct Loader {
    state: State,
    events: Vec<Event>,
    buffer: BytesMut,
    header_seen: bool,
    ended: bool,
}

impl Loader {
    pub(crate) fn new() -> Self {
        Loader {
            state: State::default(),
            events: Vec::new(),
            buffer: BytesMut::new(),
            header_seen: false,
            ended: false,
        }
    }

    pub(crate) fn push(&mut self, chunk: &[u8]) -> Result<(), LoadError> {
        self.buffer.extend_from_slice(chunk);
        while let Some((length, _)) = self.buffer.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            if self.buffer.len() - 4 < length {
                break;
            }
            let mut record = self.buffer.split_to(4 + length);
            let body = record.split_off(4);
            self.record(body.freeze())?;
        }
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Result<State, LoadError> {
        if !self.ended || !self.buffer.is_empty() {
            return Err(DecodeError::TooShort.into());
        }
        self.state.history = history(self.events);
        Ok(self.state)
    }

    fn record(&mut self, body: Bytes) -> Result<(), LoadError> {
        let mut body = Decoder::new(body);
        match body.u8()? {
            tag::HEADER if !self.header_seen => self.header(&mut body)?,
            tag::KEY if self.header_seen && !self.ended => self.key(&mut body)?,
            tag::END if self.header_seen && !self.ended => {
                if body.u64()? != self.state.versions.len() as u64 {
                    return Err(LoadError::Contradiction("the number of keys"));
                }
                self.ended = true;
            }
            other => return Err(DecodeError::Tag(other).into()),
        }
        Ok(body.finish()?)
    }

    fn header(&mut self, body: &mut Decoder) -> Result<(), LoadError> {
        match body.u8()? {
            IMAGE_VERSION => {}
            other => return Err(DecodeError::Version(other).into()),
        }
        self.state.revision = body.u64()?;
        self.state.compacted = body.u64()?;
        let granted = body.u64()?;
        let mut leases = BTreeMap::new();
        for _ in 0..body.u64()? {
            let id = NonZeroU64::new(body.u64()?).ok_or(DecodeError::Number)?;
            leases.insert(LeaseId(id), Duration::from_millis(body.u64()?));
        }
        self.header_seen = true;
        let mut restored = Leases::default();
        if !restored.restore(granted, leases) || self.state.compacted > self.state.revision {
            return Err(LoadError::Contradiction("the header"));
        }
        self.state.leases = restored;
        Ok(())
    }

    fn key(&mut self, body: &mut Decoder) -> Result<(), LoadError> {
        let key = body.key()?;
        let mut versions: Option<Versions> = None;
        for _ in 0..body.u64()? {
            let version = decode_version(body)?;
            let previous = versions.as_ref().map(|versions| &versions.newest);
            if previous.is_some_and(|previous| previous.mod_revision >= version.mod_revision)
                || version.mod_revision > self.state.revision
            {
                return Err(LoadError::Contradiction("the revisions of a key"));
            }
            if version.mod_revision > self.state.compacted {
                self.events.push(event(&key, previous, &version));
            }
            match &mut versions {
                Some(versions) => versions.push(version),
                None => versions = Some(Versions::new(version)),
            }
        }
        let versions = versions.ok_or(LoadError::Contradiction("a key without versions"))?;
        if let Some(value) = &versions.newest.value {
            self.state.keys += 1;
            self.state.bytes += key.len() + value.len();
            self.state.leases.move_key(&key, None, versions.newest.lease);
        }
        if self.state.versions.insert(key, versions).is_some() {
            return Err(LoadError::Contradiction("a key that occurs twice"));
        }
        Ok(())
    }
}

fn decode_version(body: &mut Decoder) -> Result<Version, DecodeError> {
    let (create_revision, mod_revision, lease) = (body.u64()?, body.u64()?, body.lease()?);
    // Copied, so that one living value does not keep the buffer of its neighbours.
    let value = body.optional_bytes()?.map(|value| Bytes::copy_from_slice(&value));
    Ok(Version { value, create_revision, mod_revision, lease })
}

/// The change that led from one version to the next.
fn event(key: &Arc<str>, previous: Option<&Version>, version: &Version) -> Event {
    let kind = if version.lives() { EventKind::Put } else { EventKind::Delete };
    let kv = version.key_value(key).unwrap_or_else(|| KeyValue {
        key: key.clone(),
        value: Bytes::new(),
        create_revision: version.create_revision,
        mod_revision: version.mod_revision,
        lease: None,
    });
    Event { kind, kv, prev: previous.and_then(|previous| previous.key_value(key)) }
}

/// The changes of all keys in the order in which they happened; those of one revision in the order
/// of keys.
fn history(mut events: Vec<Event>) -> History {
    events.sort_by_key(Event::revision);
    let mut history = History::default();
    let mut events = events.into_iter().peekable();
    while let Some(first) = events.next() {
        let revision = first.revision();
        let mut batch = vec![first];
        while let Some(event) = events.next_if(|event| event.revision() == revision) {
            batch.push(event);
        }
        history.push(batch.into());
    }
    history
}
