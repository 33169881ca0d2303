//! One object as the cache holds it: the stored bytes, shared, and its metadata, parsed.
//!
//! Stored bytes have one shape, which [`encode`] writes and [`Object::from_stored`] checks:
//!
//! ```text
//! {"kind":"Pod","apiVersion":"v1","metadata":{ …no resourceVersion… },"spec":…}
//!  └──── type meta, by kind ────┘            └ the splice point, at the same offset for every object of a kind
//! ```
//!
//! So serving an object is copying two slices with the resource version between them, and an item of a list (which
//! carries no type meta, as in Kubernetes) is the same without the front.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};
use minik8s_api::kinds::Kind;
use minik8s_api::meta::ObjectMeta;
use minik8s_api::strategy::{Strategy, strategy_for};
use minik8s_store::{KeyValue, Revision};
use serde_json::Value;
use serde_json::value::RawValue;

use super::selection;
use crate::encryption;

/// An object of the cache. Cheap to share, never changed.
#[derive(Debug)]
pub struct Object {
    kind: Arc<Kind>,
    key: Arc<str>,
    stored: Bytes,
    /// Length of `{"kind":…,"apiVersion":…,` in `stored`.
    type_meta: usize,
    /// Where the metadata ends in `stored`, its brace included.
    metadata_end: usize,
    revision: Revision,
    meta: ObjectMeta,
    indexed: Option<Box<str>>,
    /// Computed when the first selector asks.
    fields: OnceLock<Vec<(Cow<'static, str>, String)>>,
    /// Kept when it is asked for.
    parsed: OnceLock<Box<Value>>,
}

const METADATA_OPEN: &[u8] = b"\"metadata\":{";
const RESOURCE_VERSION: &[u8] = b"\"resourceVersion\":\"";
const PARTIAL_METADATA: &[u8] = b"{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\",";

/// What is shown of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// All of it.
    Whole,
    /// An item of a list: without kind and apiVersion.
    Item,
    /// A `PartialObjectMetadata`.
    PartialMetadata,
}

/// Writes an object in the stored shape: kind and apiVersion first, then metadata without its resourceVersion, then the rest.
pub fn encode(kind: &Kind, object: &Value) -> Bytes {
    let mut out = type_meta(kind);
    let empty = serde_json::Map::new();
    let fields = object.as_object().unwrap_or(&empty);
    out.extend_from_slice(METADATA_OPEN);
    let mut first = true;
    for (name, value) in fields.get("metadata").and_then(Value::as_object).unwrap_or(&empty) {
        if name == "resourceVersion" {
            continue;
        }
        write_field(&mut out, &mut first, name, value);
    }
    out.push(b'}');
    first = false;
    for (name, value) in fields {
        if !matches!(name.as_str(), "kind" | "apiVersion" | "metadata") {
            write_field(&mut out, &mut first, name, value);
        }
    }
    out.push(b'}');
    Bytes::from(out)
}

fn type_meta(kind: &Kind) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(b"{\"kind\":");
    write_value(&mut out, &Value::from(kind.kind.as_str()));
    out.extend_from_slice(b",\"apiVersion\":");
    write_value(&mut out, &Value::from(kind.api_version()));
    out.push(b',');
    out
}

/// Whether stored bytes have the shape of a kind.
pub(super) fn is_stored_as(kind: &Kind, stored: &[u8]) -> bool {
    stored.starts_with(&type_meta(kind))
}

fn write_field(out: &mut Vec<u8>, first: &mut bool, name: &str, value: &Value) {
    if !std::mem::take(first) {
        out.push(b',');
    }
    write_value(out, &Value::from(name));
    out.push(b':');
    write_value(out, value);
}

fn write_value(out: &mut Vec<u8>, value: &Value) {
    serde_json::to_writer(out, value).expect("a Value encodes into memory");
}

impl Object {
    /// Reads a stored value of a kind (its storage version). Bytes in another shape than [`encode`] writes are
    /// written anew; bytes that are no object at all are refused, naming the key.
    pub fn from_stored(kind: &Arc<Kind>, kv: &KeyValue) -> Result<Object, String> {
        let prefix = type_meta(kind);
        let mut stored = kv.value.clone();
        if !(stored.starts_with(&prefix) && stored[prefix.len()..].starts_with(METADATA_OPEN)) {
            if stored.starts_with(encryption::PREFIX.as_bytes()) {
                let key = &kv.key;
                return Err(format!(
                    "unable to transform key {key:?}: identity transformer tried to read encrypted data"
                ));
            }
            let value: Value = serde_json::from_slice(&stored)
                .map_err(|error| format!("{}: stored bytes are not JSON: {error}", kv.key))?;
            if !value.is_object() {
                return Err(format!("{}: stored bytes are not an object", kv.key));
            }
            stored = encode(kind, &value);
        }
        if let Some(defaulted) = defaulted(kind, &stored) {
            stored = defaulted;
        }
        let (meta, metadata) =
            ObjectMeta::locate(&stored).map_err(|error| format!("{}: stored metadata: {error}", kv.key))?;
        let indexed = match selection::indexed_field(kind) {
            Some(field) => indexed_value(&stored, field),
            None => None,
        };
        Ok(Object {
            kind: Arc::clone(kind),
            key: Arc::clone(&kv.key),
            stored,
            type_meta: prefix.len(),
            metadata_end: metadata.end,
            revision: kv.mod_revision,
            meta,
            indexed,
            fields: OnceLock::new(),
            parsed: OnceLock::new(),
        })
    }

    /// The same object at another revision: what a watcher is told when an object leaves its selection or is deleted.
    pub fn at_revision(&self, revision: Revision) -> Object {
        Object {
            kind: Arc::clone(&self.kind),
            key: Arc::clone(&self.key),
            stored: self.stored.clone(),
            type_meta: self.type_meta,
            metadata_end: self.metadata_end,
            revision,
            meta: self.meta.clone(),
            indexed: self.indexed.clone(),
            fields: OnceLock::new(),
            parsed: OnceLock::new(),
        }
    }

    /// The storage kind.
    pub fn kind(&self) -> &Arc<Kind> {
        &self.kind
    }

    /// The store's key.
    pub fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// Parsed metadata (resourceVersion is [`Object::revision`]).
    pub fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    /// Name.
    pub fn name(&self) -> &str {
        &self.meta.name
    }

    /// Namespace, empty for cluster-scoped objects.
    pub fn namespace(&self) -> &str {
        &self.meta.namespace
    }

    /// UID.
    pub fn uid(&self) -> &str {
        &self.meta.uid
    }

    /// A label's value.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.meta.labels.get(key).map(String::as_str)
    }

    /// The revision that wrote this state: the object's resourceVersion.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The value of the resource's indexed field (`spec.nodeName` of a pod), if it has one and is not empty.
    pub fn indexed(&self) -> Option<&str> {
        self.indexed.as_deref()
    }

    /// The kind's selectable fields.
    pub fn fields(&self) -> &[(Cow<'static, str>, String)] {
        self.fields.get_or_init(|| strategy_for(&self.kind).selectable_fields(&self.value()))
    }

    /// The object as a value, resourceVersion included. Parses on every call: keep what you need, not the value.
    pub fn value(&self) -> Value {
        let mut value: Value =
            serde_json::from_slice(&self.stored).expect("cached bytes were parsed when they were stored");
        value["metadata"]["resourceVersion"] = Value::from(self.revision.to_string());
        value
    }

    /// The same, parsed once: for the few objects that every write of others looks at, such as a namespace's default account.
    pub fn parsed(&self) -> &Value {
        self.parsed.get_or_init(|| Box::new(self.value()))
    }

    /// Stored bytes, without resourceVersion.
    pub fn stored(&self) -> &Bytes {
        &self.stored
    }

    /// Appends the object's JSON, with resourceVersion, or a part of it.
    pub fn write_as(&self, view: View, out: &mut BytesMut) {
        let (opening, part, closing) = self.seen_as(view);
        out.put_slice(opening);
        self.write(part, out);
        out.put_slice(closing);
    }

    /// How many bytes [`Object::write_as`] appends.
    pub fn len_as(&self, view: View) -> usize {
        let (opening, part, closing) = self.seen_as(view);
        let comma = usize::from(self.stored[self.splice()] != b'}');
        let digits = self.revision.checked_ilog10().unwrap_or_default() as usize + 1;
        opening.len() + part.len() + RESOURCE_VERSION.len() + digits + 1 + comma + closing.len()
    }

    fn seen_as(&self, view: View) -> (&'static [u8], Range<usize>, &'static [u8]) {
        match view {
            View::Whole => (b"", 0..self.stored.len(), b""),
            View::Item => (b"{", self.type_meta..self.stored.len(), b""),
            View::PartialMetadata => (PARTIAL_METADATA, self.type_meta..self.metadata_end, b"}"),
        }
    }

    /// The object's JSON.
    pub fn json(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.stored.len() + 40);
        self.write_as(View::Whole, &mut out);
        out.freeze()
    }

    fn splice(&self) -> usize {
        self.type_meta + METADATA_OPEN.len()
    }

    /// Appends a part of the stored bytes that holds the splice point, with resourceVersion.
    fn write(&self, part: Range<usize>, out: &mut BytesMut) {
        let splice = self.splice();
        out.put_slice(&self.stored[part.start..splice]);
        out.put_slice(RESOURCE_VERSION);
        out.put_slice(self.revision.to_string().as_bytes());
        out.put_slice(if self.stored[splice] == b'}' { b"\"" } else { b"\"," });
        out.put_slice(&self.stored[splice..part.end]);
    }
}

/// What a custom resource gains by defaults that its definition did not have when it was written.
fn defaulted(kind: &Kind, stored: &[u8]) -> Option<Bytes> {
    let definition = kind.definition.as_ref().filter(|definition| definition.schema.has_defaults)?;
    let before: Value = serde_json::from_slice(stored).ok()?;
    let mut after = before.clone();
    definition.set_defaults(&mut after);
    (after != before).then(|| encode(kind, &after))
}

/// The string at `spec.nodeName`-like paths, read without building the rest.
fn indexed_value(stored: &[u8], field: &str) -> Option<Box<str>> {
    let mut text = std::str::from_utf8(stored).ok()?;
    for name in field.split('.') {
        let fields: BTreeMap<&str, &RawValue> = serde_json::from_str(text).ok()?;
        text = fields.get(name)?.get();
    }
    serde_json::from_str::<String>(text).ok().filter(|value| !value.is_empty()).map(String::into_boxed_str)
}
