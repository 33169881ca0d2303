//! Ordinary writes: who changed which fields (apimachinery `util/managedfields/internal`: `fieldmanager.go`,
//! `managedfieldsupdater.go`, `stripmeta.go`, `skipnonapplied.go`; structured-merge-diff `merge/update.go`).

use std::sync::LazyLock;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::compare::{Comparison, compare};
use super::entries::{self, Entry, EntryError, Fields, Manager, Operation};
use super::field_set::{FieldSet, Node};
use super::shape::{Place, Relation, Shape};
use super::typed::TypeErrors;
use crate::schema::Type;

/// Fields that nobody owns: the API server's own, and the names of things.
static UNTRACKED: LazyLock<FieldSet> = LazyLock::new(|| {
    let mut untracked = FieldSet::of_fields(&[&["apiVersion"], &["kind"], &["metadata"]]);
    for field in [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    ] {
        untracked = untracked.union(&FieldSet::of_fields(&[&["metadata", field]]));
    }
    untracked
});

/// Converts objects between the versions of a kind, for entries that name fields of another version.
pub trait Versions: Sync {
    /// The object in `api_version`, and its type there. `None` when that version is no longer served: its entries are dropped.
    fn convert(&self, object: &Value, api_version: &str) -> Option<(Type, Value)>;
}

/// Keeps `metadata.managedFields` of the objects of one kind, written in one version through one (sub)resource.
#[derive(Clone, Copy)]
pub struct FieldManager<'a> {
    /// The type of the objects.
    pub ty: &'a Type,
    /// The version written in, `apps/v1`.
    pub api_version: &'a str,
    /// The kind, `Deployment`.
    pub kind: &'a str,
    /// The subresource written through (`status`, `scale`), or empty.
    pub subresource: &'a str,
    /// Fields that this (sub)resource does not write, whatever the client sends: `status` for most main resources.
    pub reset_fields: &'a FieldSet,
    /// The kind's other versions. Without it, entries in other versions are read as if they were in this one.
    pub versions: Option<&'a dyn Versions>,
}

/// Why the fields of a write cannot be accounted for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TrackError {
    #[error(transparent)]
    Type(#[from] TypeErrors),
    #[error(transparent)]
    Entry(#[from] EntryError),
}

impl FieldManager<'_> {
    /// Records an ordinary write: gives `new` its `metadata.managedFields`. `live` is what is stored, `None` on create; `new` is
    /// what the client asks for, decoded and defaulted, before admission adds to it: what admission sets is nobody's, as on
    /// any cluster. What cannot be accounted for leaves the entries as they were.
    pub fn update(&self, live: Option<&Value>, new: &mut Value, manager: &str, now: Timestamp) {
        let sent = take_managed_fields(new);
        let stored = live.and_then(managed_fields);
        let list = match self.track_update(live, new, sent.as_ref(), stored, manager, now) {
            Ok(Recorded::Entries(entries)) => entries::write(entries),
            Ok(Recorded::AsStored) | Err(_) if sent.as_ref() == stored => sent,
            Ok(Recorded::AsStored) | Err(_) => stored.cloned(),
        };
        put_managed_fields(new, list);
    }

    fn track_update(
        &self,
        live: Option<&Value>,
        new: &Value,
        sent: Option<&Value>,
        stored: Option<&Value>,
        manager: &str,
        now: Timestamp,
    ) -> Result<Recorded, TrackError> {
        let use_stored = !self.subresource.is_empty() || sent.is_none() || sent == stored;
        // A list that the client changed is taken, if it is one; an empty list or entry asks to forget all owners.
        let replaced = match sent {
            Some(sent) if !use_stored && is_reset(sent) => Some(Vec::new()),
            Some(sent) if !use_stored => entries::read_parsed(Some(sent)).ok().filter(|entries| !entries.is_empty()),
            _ => None,
        };
        let is_stored = replaced.is_none();
        let entries = replaced.unwrap_or_else(|| entries::read(stored).unwrap_or_default());
        // Objects whose owners are not known stay so until somebody applies: nobody is made the owner of all of it.
        if entries.is_empty() && live.is_some_and(has_uid) {
            return Ok(Recorded::Entries(entries));
        }
        let zero = crate::schema::zero(self.ty);
        let live = live.unwrap_or(&zero);
        let changes = self.compare(live, new)?;
        if changes.is_same() && is_stored {
            return Ok(Recorded::AsStored);
        }
        let me = Manager::new(manager, Operation::Update, self.api_version, self.subresource);
        let mut entries = self.reconciled(entries)?;
        self.take_from_others(&mut entries, None, &changes, live, new)?;
        let mut mine = changes.changed;
        mine.subtract(&UNTRACKED);
        if !mine.is_empty() {
            let time = rfc3339(now);
            match entries.iter_mut().find(|entry| entry.manager.is_same(&me)) {
                Some(entry) => {
                    entry.fields = Fields::Parsed(entry.fields()?.union(&mine));
                    entry.time = time;
                }
                None => entries.push(Entry { manager: me, time, fields: Fields::Parsed(mine) }),
            }
        }
        entries::cap_update_managers(&mut entries)?;
        Ok(Recorded::Entries(entries))
    }

    /// What `new` changes of `live`, without the fields that this resource does not write.
    pub(super) fn compare(&self, live: &Value, new: &Value) -> Result<Comparison, TypeErrors> {
        Ok(compare(Place::root(self.ty), live, new)?.exclude(self.reset_fields))
    }

    /// Calls `found` with each entry but `mine`, and with what the write changes in the entry's version. Entries of versions
    /// that are gone are dropped.
    pub(super) fn for_each_other<E: From<TypeErrors>>(
        &self,
        entries: &mut Vec<Entry>,
        mine: Option<&Manager>,
        changes: &Comparison,
        (live, new): (&Value, &Value),
        mut found: impl FnMut(&mut Entry, &Comparison) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut converted: Vec<(String, Option<Comparison>)> = Vec::new();
        let mut kept = Vec::with_capacity(entries.len());
        for mut entry in entries.drain(..) {
            let version = &entry.manager.api_version;
            let is_mine = mine.is_some_and(|mine| mine.is_same(&entry.manager));
            let changes = match self.versions {
                Some(versions) if version != self.api_version && !is_mine => {
                    if !converted.iter().any(|(seen, _)| seen == version) {
                        converted.push((version.clone(), self.compare_in(versions, version, live, new)?));
                    }
                    converted.iter().find(|(seen, _)| seen == version).and_then(|(_, changes)| changes.as_ref())
                }
                _ => Some(changes),
            };
            let Some(changes) = changes else { continue };
            if !is_mine {
                found(&mut entry, changes)?;
            }
            kept.push(entry);
        }
        *entries = kept;
        Ok(())
    }

    fn compare_in(
        &self,
        versions: &dyn Versions,
        version: &str,
        live: &Value,
        new: &Value,
    ) -> Result<Option<Comparison>, TypeErrors> {
        let (Some((ty, live)), Some((_, new))) = (versions.convert(live, version), versions.convert(new, version))
        else {
            return Ok(None);
        };
        compare(Place::root(&ty), &live, &new).map(|changes| Some(changes.exclude(self.reset_fields)))
    }

    /// Takes from all entries but `mine` what the write changes or removes, and drops those that are left with nothing.
    pub(super) fn take_from_others(
        &self,
        entries: &mut Vec<Entry>,
        mine: Option<&Manager>,
        changes: &Comparison,
        live: &Value,
        new: &Value,
    ) -> Result<(), TrackError> {
        self.for_each_other(entries, mine, changes, (live, new), |entry, changes| {
            if entry.may_share(&changes.changed) || entry.may_share(&changes.removed) {
                let mut left = entry.fields()?;
                left.subtract(&changes.changed);
                left.subtract(&changes.removed);
                entry.fields = Fields::Parsed(left);
            }
            Ok::<_, TrackError>(())
        })?;
        entries.retain(|entry| match &entry.fields {
            Fields::Parsed(set) => !set.is_empty(),
            Fields::Raw(raw) => raw.as_object().is_some_and(|map| !map.is_empty()),
        });
        Ok(())
    }

    /// The entries, fitted to the type as it is now: where a list or map has become atomic since (a changed custom resource
    /// definition), its owner owns the whole (structured-merge-diff `typed/reconcile_schema.go`).
    pub(super) fn reconciled(&self, mut entries: Vec<Entry>) -> Result<Vec<Entry>, EntryError> {
        // The types of built-in kinds do not change while the process runs.
        let changeable =
            matches!(self.ty, Type::Struct(s) if s.conformance() == crate::schema::Conformance::Structural);
        for entry in entries.iter_mut().filter(|entry| changeable && entry.manager.api_version == self.api_version) {
            entry.fields = Fields::Parsed(reconcile(Place::root(self.ty), &entry.fields()?));
        }
        Ok(entries)
    }
}

enum Recorded {
    /// The stored entries hold as they are.
    AsStored,
    Entries(Vec<Entry>),
}

/// The same set without the fields that nobody owns.
pub(super) fn without_untracked(fields: &FieldSet) -> FieldSet {
    fields.difference(&UNTRACKED)
}

fn reconcile(place: Place<'_>, fields: &FieldSet) -> FieldSet {
    let nodes = fields.nodes().iter().map(|node| {
        let below = match (node.element.field_name(), place) {
            (Some(name), _) => place.child(name),
            (None, Place::Typed(Type::List(list), _)) => Place::root(&list.element),
            (None, _) => Place::Deduced,
        };
        let atomic = match below {
            Place::Deduced => false,
            Place::Typed(..) => {
                matches!(below.shape(&Value::Null), Shape::AtomicMap | Shape::List(_, Relation::Atomic))
            }
        };
        if atomic && !node.children.is_empty() {
            Node { element: node.element.clone(), member: true, children: FieldSet::new() }
        } else {
            Node { element: node.element.clone(), member: node.member, children: reconcile(below, &node.children) }
        }
    });
    FieldSet::from_unsorted(nodes.collect())
}

/// Gives `new` the managed fields of `old` where nothing else differs, so that a write that changes nothing but a time is
/// none (apiserver `IgnoreManagedFieldsTimestampsTransformer`). To be called on the object that is about to be stored.
pub fn ignore_timestamps(old: &Value, new: &mut Value) {
    let (Some(before), Some(after)) = (managed_fields(old), managed_fields(new)) else {
        return;
    };
    if before == after || !same_entries(before, after) || !same_elsewhere(old, new) {
        return;
    }
    let before = before.clone();
    put_managed_fields(new, Some(before));
}

fn same_entries(before: &Value, after: &Value) -> bool {
    let timeless = |list: &Value| -> Option<Vec<Map<String, Value>>> {
        let entry = |entry: &Value| {
            let mut entry = entry.as_object()?.clone();
            entry.remove("time");
            Some(entry)
        };
        list.as_array()?.iter().map(entry).collect()
    };
    let (Some(before), Some(after)) = (timeless(before), timeless(after)) else {
        return false;
    };
    before.len() == after.len() && before.iter().all(|entry| after.contains(entry))
}

/// Whether two objects are equal but for `managedFields` and `resourceVersion`.
fn same_elsewhere(old: &Value, new: &Value) -> bool {
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return false;
    };
    let same = |old: &Map<String, Value>, new: &Map<String, Value>, except: &[&str]| {
        let differs = |one: &Map<String, Value>, other: &Map<String, Value>| {
            one.iter().any(|(key, value)| !except.contains(&key.as_str()) && other.get(key) != Some(value))
        };
        !differs(old, new) && !differs(new, old)
    };
    let metadata =
        |object: &Map<String, Value>| object.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    same(old, new, &["metadata"]) && same(&metadata(old), &metadata(new), &["managedFields", "resourceVersion"])
}

/// As `metav1.Time` writes it.
pub(super) fn rfc3339(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `metadata.managedFields`, where it is set.
pub(super) fn managed_fields(object: &Value) -> Option<&Value> {
    object.get("metadata")?.get("managedFields").filter(|list| !list.is_null())
}

/// Takes `metadata.managedFields` out of an object.
pub(super) fn take_managed_fields(object: &mut Value) -> Option<Value> {
    let metadata = object.get_mut("metadata").and_then(Value::as_object_mut)?;
    metadata.remove("managedFields").filter(|list| !list.is_null())
}

/// Sets `metadata.managedFields`, or leaves it out.
pub(super) fn put_managed_fields(object: &mut Value, list: Option<Value>) {
    let Some(object) = object.as_object_mut() else {
        return;
    };
    let Some(list) = list else {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        return;
    };
    let metadata = object.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.insert("managedFields".to_owned(), list);
    }
}

/// Whether the list asks to forget all owners: it is empty, or holds one empty entry.
fn is_reset(list: &Value) -> bool {
    match list.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([only]) => only
            .as_object()
            .is_some_and(|entry| entry.values().all(|value| value.is_null() || value.as_str() == Some(""))),
        _ => false,
    }
}

fn has_uid(object: &Value) -> bool {
    object.pointer("/metadata/uid").and_then(Value::as_str).is_some_and(|uid| !uid.is_empty())
}
