//! One change of one object, as watchers are told of it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use minik8s_api::protobuf;
use minik8s_store::Revision;
use parking_lot::Mutex;
use serde_json::Value;

use super::object::View;
use super::{Object, Selection};

/// How long the metadata of an object is, about.
const METADATA_BYTES: usize = 1024;

/// What a watch event says happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    /// The object is new to this watch.
    Added,
    /// The object changed.
    Modified,
    /// The object is gone from this watch; its last state as of the event's revision.
    Deleted,
}

impl EventType {
    /// As it stands in a watch event.
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Added => "ADDED",
            EventType::Modified => "MODIFIED",
            EventType::Deleted => "DELETED",
        }
    }
}

/// A change of the store, applied. Shared by the ring of recent events and every watcher that wants it; each of its
/// encodings is made at most once.
#[derive(Debug)]
pub struct CacheEvent {
    /// The revision of the change.
    pub revision: Revision,
    /// The state after; `None` when the object was deleted.
    pub object: Option<Arc<Object>>,
    /// The state before; `None` when the object was created.
    pub previous: Option<Arc<Object>>,
    /// When it was applied, on the monotonic clock: bounds the ring by age.
    pub at: Duration,
    gone: OnceLock<Arc<Object>>,
    encoded: Mutex<Encoded>,
}

/// What a form of the event is sent in, by its type.
#[derive(Debug, Default)]
struct Encoded {
    lines: [Option<Bytes>; 3],
    metadata_lines: [Option<Bytes>; 3],
    frames: [Option<Bytes>; 3],
}

impl CacheEvent {
    /// A change.
    pub fn new(
        revision: Revision,
        object: Option<Arc<Object>>,
        previous: Option<Arc<Object>>,
        at: Duration,
    ) -> CacheEvent {
        CacheEvent { revision, object, previous, at, gone: OnceLock::new(), encoded: Mutex::default() }
    }

    /// What this change means to a watch with a selection: an object may come into it and leave it without being
    /// created or deleted (`k8s.io/apiserver/pkg/storage/cacher/cache_watcher.go` `convertToWatchEvent`).
    pub fn seen_through(&self, selection: &Selection) -> Option<EventType> {
        let now = self.object.as_ref().is_some_and(|object| selection.matches(object));
        let before = self.previous.as_ref().is_some_and(|object| selection.matches(object));
        match (now, before) {
            (true, true) => Some(EventType::Modified),
            (true, false) => Some(EventType::Added),
            (false, true) => Some(EventType::Deleted),
            (false, false) => None,
        }
    }

    /// The object an event of this type shows.
    pub fn shown(&self, event_type: EventType) -> &Arc<Object> {
        match (event_type, &self.object) {
            (EventType::Added | EventType::Modified, Some(object)) => object,
            _ => self.gone.get_or_init(|| {
                let last =
                    self.previous.as_ref().or(self.object.as_ref()).expect("a change has a state before or after");
                Arc::new(last.at_revision(self.revision))
            }),
        }
    }

    /// `{"type":…,"object":…}` and a newline, encoded once for all watchers.
    pub fn line(&self, event_type: EventType) -> Bytes {
        let line = || event_line(event_type.as_str(), self.shown(event_type));
        self.encoded.lock().lines[event_type as usize].get_or_insert_with(line).clone()
    }

    /// The same with the object's metadata only.
    pub fn metadata_line(&self, event_type: EventType) -> Bytes {
        let line = || metadata_line(event_type.as_str(), self.shown(event_type));
        self.encoded.lock().metadata_lines[event_type as usize].get_or_insert_with(line).clone()
    }

    /// The same in Kubernetes' protobuf, with its length in front.
    pub fn frame(&self, event_type: EventType) -> Bytes {
        let frame = || event_frame(event_type.as_str(), &self.shown(event_type).value());
        self.encoded.lock().frames[event_type as usize].get_or_insert_with(frame).clone()
    }

    /// Lets go of the encoded forms: who still wants one has it made anew.
    pub fn forget_encoded(&self) {
        *self.encoded.lock() = Encoded::default();
    }
}

/// A watch event in protobuf; an object that protobuf has no message for (there is none among built-in kinds) is left empty.
pub fn event_frame(event_type: &str, object: &Value) -> Bytes {
    let object = protobuf::encode_object(object).unwrap_or_default();
    Bytes::from(protobuf::encode_watch_event(event_type, &object))
}

/// A watch event of an object in its storage version.
pub fn event_line(event_type: &str, object: &Object) -> Bytes {
    line(event_type, object.stored().len(), |out| object.write_as(View::Whole, out))
}

/// A watch event of an object's metadata.
pub fn metadata_line(event_type: &str, object: &Object) -> Bytes {
    line(event_type, METADATA_BYTES, |out| object.write_as(View::PartialMetadata, out))
}

fn line(event_type: &str, size: usize, write: impl FnOnce(&mut BytesMut)) -> Bytes {
    const AROUND: usize = 80;
    let mut out = BytesMut::with_capacity(size + AROUND);
    out.put_slice(b"{\"type\":\"");
    out.put_slice(event_type.as_bytes());
    out.put_slice(b"\",\"object\":");
    write(&mut out);
    out.put_slice(b"}\n");
    out.freeze()
}
