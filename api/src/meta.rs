//! Metadata of objects: read from encoded bytes without reading the rest, and from values by small accessors.
//!
//! An object is held as bytes (see the crate's introduction). [`ObjectMeta::parse`] reads what the API server needs of
//! each object it holds; [`splice_point`] and [`splice_resource_version`] put the revision into bytes that were stored
//! without it, which saves encoding an object anew for each revision and reader.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::LazyLock;

use jiff::Timestamp;
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::time;

/// A reference to the object that owns another (`metav1.OwnerReference`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerReference {
    /// As in `apps/v1`.
    pub api_version: String,
    /// As in `ReplicaSet`.
    pub kind: String,
    /// The owner's name; it lives in the same namespace, or in none.
    pub name: String,
    /// The owner's UID.
    pub uid: String,
    /// Whether the owner manages the object. One owner at most does.
    #[serde(skip_serializing_if = "is_false", deserialize_with = "null_is_false")]
    pub controller: bool,
    /// Whether foreground deletion of the owner waits for the object.
    #[serde(skip_serializing_if = "is_false", deserialize_with = "null_is_false")]
    pub block_owner_deletion: bool,
}

fn is_false(value: &bool) -> bool {
    !*value
}

fn null_is_false<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(Option::<bool>::deserialize(deserializer)?.unwrap_or_default())
}

/// What the API server reads of each object: all of `metadata` but `managedFields`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectMeta {
    /// Unique in the namespace, or in the cluster.
    pub name: String,
    /// Empty for kinds without namespaces.
    pub namespace: String,
    /// Unique over all time.
    pub uid: String,
    /// Empty in stored bytes, which do not carry it.
    pub resource_version: String,
    /// Counts changes of the spec.
    pub generation: i64,
    /// What selectors match.
    #[serde(deserialize_with = "null_is_default")]
    pub labels: BTreeMap<String, String>,
    /// What tools note.
    #[serde(deserialize_with = "null_is_default")]
    pub annotations: BTreeMap<String, String>,
    /// Who owns the object.
    #[serde(deserialize_with = "null_is_default")]
    pub owner_references: Vec<OwnerReference>,
    /// What must be done before the object may go.
    #[serde(deserialize_with = "null_is_default")]
    pub finalizers: Vec<String>,
    /// When it was made.
    #[serde(deserialize_with = "optional_time")]
    pub creation_timestamp: Option<Timestamp>,
    /// When it is to go; set once deletion was asked for.
    #[serde(deserialize_with = "optional_time")]
    pub deletion_timestamp: Option<Timestamp>,
    /// The grace that deletion was granted, in seconds.
    pub deletion_grace_period_seconds: Option<i64>,
}

fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

fn optional_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text = Option::<std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
    text.map(|text| time::parse(&text).map_err(de::Error::custom)).transpose()
}

#[derive(Deserialize)]
struct WithMetadata<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

impl ObjectMeta {
    /// Reads the metadata of an encoded object; the rest is skipped, not parsed.
    pub fn parse(object: &[u8]) -> serde_json::Result<Self> {
        Ok(Self::locate(object)?.0)
    }

    /// The same, and where in the bytes the metadata stands, braces included.
    pub fn locate(object: &[u8]) -> serde_json::Result<(Self, Range<usize>)> {
        let located: WithMetadata = serde_json::from_slice(object)?;
        let metadata = located.metadata.get();
        // The raw value borrows from `object`, so the distance of their starts is its offset.
        let start = metadata.as_ptr() as usize - object.as_ptr() as usize;
        Ok((serde_json::from_str(metadata)?, start..start + metadata.len()))
    }

    /// The owner that manages the object.
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references.iter().find(|owner| owner.controller)
    }

    /// Whether its deletion has begun.
    pub fn is_terminating(&self) -> bool {
        self.deletion_timestamp.is_some()
    }
}

/// The offset in an encoded object at which its `metadata` opens, just behind the brace.
pub fn splice_point(object: &[u8]) -> serde_json::Result<usize> {
    let located: WithMetadata = serde_json::from_slice(object)?;
    let metadata = located.metadata.get();
    if !metadata.starts_with('{') {
        return Err(de::Error::custom("metadata is no object"));
    }
    // The raw value borrows from `object`, so the distance of their starts is its offset.
    Ok(metadata.as_ptr() as usize - object.as_ptr() as usize + 1)
}

/// The bytes with `"resourceVersion":"…"` put in at `at`, a [`splice_point`] of bytes that carry none.
pub fn splice_resource_version(object: &[u8], at: usize, revision: u64) -> Vec<u8> {
    let first = object[at..].iter().find(|b| !b.is_ascii_whitespace());
    let comma = if first == Some(&b'}') { "" } else { "," };
    let field = format!("\"resourceVersion\":\"{revision}\"{comma}");
    let mut spliced = Vec::with_capacity(object.len() + field.len());
    spliced.extend_from_slice(&object[..at]);
    spliced.extend_from_slice(field.as_bytes());
    spliced.extend_from_slice(&object[at..]);
    spliced
}

/// Takes `metadata.resourceVersion` out of a value, as it is before it is stored.
pub fn strip_resource_version(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
    }
}

static EMPTY: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);

/// `metadata`; empty where there is none.
pub fn metadata(object: &Value) -> &Map<String, Value> {
    object.get("metadata").and_then(Value::as_object).unwrap_or(&EMPTY)
}

/// `metadata`, made where there is none.
///
/// # Panics
/// Where `object` is no JSON object, which decoding does not let through.
pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    let object = object.as_object_mut().expect("API objects are JSON objects");
    ensure_object(object, "metadata")
}

fn ensure_object<'a>(parent: &'a mut Map<String, Value>, name: &str) -> &'a mut Map<String, Value> {
    let value = parent.entry(name).or_insert(Value::Null);
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("made an object just above")
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    metadata(object).get(field).and_then(Value::as_str).unwrap_or_default()
}

/// `metadata.name`, or empty.
pub fn name(object: &Value) -> &str {
    text(object, "name")
}

/// `metadata.generateName`, or empty.
pub fn generate_name(object: &Value) -> &str {
    text(object, "generateName")
}

/// `metadata.namespace`, or empty.
pub fn namespace(object: &Value) -> &str {
    text(object, "namespace")
}

/// `metadata.uid`, or empty.
pub fn uid(object: &Value) -> &str {
    text(object, "uid")
}

/// `metadata.resourceVersion`, or empty.
pub fn resource_version(object: &Value) -> &str {
    text(object, "resourceVersion")
}

/// `metadata.generation`, or 0.
pub fn generation(object: &Value) -> i64 {
    metadata(object).get("generation").and_then(Value::as_i64).unwrap_or_default()
}

/// `metadata.creationTimestamp`.
pub fn creation_timestamp(object: &Value) -> Option<Timestamp> {
    time::parse(text(object, "creationTimestamp")).ok()
}

/// `metadata.deletionTimestamp`.
pub fn deletion_timestamp(object: &Value) -> Option<Timestamp> {
    time::parse(text(object, "deletionTimestamp")).ok()
}

/// `metadata.labels`; empty where there are none.
pub fn labels(object: &Value) -> &Map<String, Value> {
    metadata(object).get("labels").and_then(Value::as_object).unwrap_or(&EMPTY)
}

/// The value of a label.
pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    labels(object).get(key)?.as_str()
}

/// `metadata.annotations`; empty where there are none.
pub fn annotations(object: &Value) -> &Map<String, Value> {
    metadata(object).get("annotations").and_then(Value::as_object).unwrap_or(&EMPTY)
}

/// The value of an annotation.
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    annotations(object).get(key)?.as_str()
}

/// Sets a field of `metadata`.
pub fn set(object: &mut Value, field: &str, value: impl Into<Value>) {
    metadata_mut(object).insert(field.to_owned(), value.into());
}

/// Sets a label.
pub fn set_label(object: &mut Value, key: &str, value: &str) {
    ensure_object(metadata_mut(object), "labels").insert(key.to_owned(), value.into());
}

/// Sets an annotation.
pub fn set_annotation(object: &mut Value, key: &str, value: &str) {
    ensure_object(metadata_mut(object), "annotations").insert(key.to_owned(), value.into());
}

/// Removes an annotation; the last one takes the map with it, as Go leaves empty maps out.
pub fn remove_annotation(object: &mut Value, key: &str) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(key);
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
}

/// `metadata.finalizers`.
pub fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    metadata(object).get("finalizers").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// `metadata.ownerReferences`; what is no reference is left out, decoding having refused it.
pub fn owner_references(object: &Value) -> Vec<OwnerReference> {
    let owners = metadata(object).get("ownerReferences").and_then(Value::as_array);
    owners.into_iter().flatten().filter_map(|owner| OwnerReference::deserialize(owner).ok()).collect()
}

/// The owner that manages the object.
pub fn controller_of(object: &Value) -> Option<OwnerReference> {
    owner_references(object).into_iter().find(|owner| owner.controller)
}

impl fmt::Display for OwnerReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}/{}, name: {}, uid: {}]", self.api_version, self.kind, self.name, self.uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn metadata_is_read_from_bytes() {
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "web-1", "namespace": "default", "uid": "u", "generation": 3,
                "labels": {"app": "web"}, "annotations": null, "finalizers": ["a/b"],
                "creationTimestamp": "2026-01-02T03:04:05Z",
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "o", "controller": true, "blockOwnerDeletion": null}],
                "managedFields": [{"manager": "kubectl"}],
            },
            "spec": {"containers": [{"name": "metadata"}]},
        });
        let bytes = serde_json::to_vec(&object).unwrap();
        let meta = ObjectMeta::parse(&bytes).unwrap();
        assert_eq!((meta.name.as_str(), meta.namespace.as_str(), meta.generation), ("web-1", "default", 3));
        assert_eq!(meta.controller().unwrap().name, "web");
        assert_eq!(controller_of(&object), meta.controller().cloned());
        assert_eq!(meta.creation_timestamp, creation_timestamp(&object));
        assert!(!meta.is_terminating());
        assert!(ObjectMeta::parse(b"{\"metadata\": 3}").is_err());
        assert!(ObjectMeta::parse(b"{}").is_err());
    }

    #[test]
    fn revisions_are_spliced_into_bytes() {
        for object in [
            json!({"kind": "Pod", "metadata": {"name": "a"}, "spec": {"metadata": {}}}),
            json!({"aaa": {"metadata": {"x": "}\"{"}}, "metadata": {}}),
        ] {
            let bytes = serde_json::to_vec(&object).unwrap();
            let spliced = splice_resource_version(&bytes, splice_point(&bytes).unwrap(), 42);
            let mut back: Value = serde_json::from_slice(&spliced).unwrap();
            assert_eq!(resource_version(&back), "42");
            strip_resource_version(&mut back);
            assert_eq!(back, object);
        }
        assert!(splice_point(b"{\"metadata\":[]}").is_err());
    }

    #[test]
    fn accessors_make_what_is_missing() {
        let mut object = json!({"kind": "Pod"});
        assert_eq!(name(&object), "");
        set(&mut object, "name", "a");
        set_label(&mut object, "l", "1");
        set_annotation(&mut object, "k", "v");
        assert_eq!((name(&object), label(&object, "l"), annotation(&object, "k")), ("a", Some("1"), Some("v")));
        remove_annotation(&mut object, "k");
        assert_eq!(object, json!({"kind": "Pod", "metadata": {"name": "a", "labels": {"l": "1"}}}));
    }
}
