//! Server-side apply: the client says which fields it wants, and owns just these (structured-merge-diff `merge/update.go`,
//! `Updater.Apply`; apimachinery `util/managedfields/internal`: `structuredmerge.go`, `skipnonapplied.go`, `versioncheck.go`).
//!
//! ```text
//!   applied ──► merge into live ──► prune what I applied last time, do not now, and nobody else owns
//!                                      │
//!                                      ▼
//!              what does that change? ──► others own some of it: conflict, or taken from them by force
//! ```

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::compare::Comparison;
use super::conflict::Conflicts;
use super::entries::{self, Entry, EntryError, Fields, Manager, Operation};
use super::field_set::{FieldSet, Node};
use super::last_applied;
use super::merge::{Emptied, merge, remove};
use super::shape::Place;
use super::typed::{TypeErrors, field_set, validate};
use super::update::{
    FieldManager, TrackError, managed_fields, put_managed_fields, rfc3339, take_managed_fields, without_untracked,
};
use crate::schema::{Type, zero};
use crate::status::Status;

/// The manager that owns the fields of an object from before anybody's fields were tracked.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Why an apply was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The patch is not one for this object: 400.
    #[error("{0}")]
    BadRequest(String),
    /// Others own fields that the patch changes: 409.
    #[error("{0}")]
    Conflict(Conflicts),
    /// The patch does not fit its type.
    #[error("{0}")]
    Typed(String),
}

impl From<TypeErrors> for ApplyError {
    fn from(errors: TypeErrors) -> ApplyError {
        ApplyError::Typed(errors.to_string())
    }
}

impl From<EntryError> for ApplyError {
    fn from(error: EntryError) -> ApplyError {
        ApplyError::Typed(format!("failed to decode managed fields: {error}"))
    }
}

impl From<TrackError> for ApplyError {
    fn from(error: TrackError) -> ApplyError {
        ApplyError::Typed(error.to_string())
    }
}

impl From<ApplyError> for Status {
    fn from(error: ApplyError) -> Status {
        match error {
            ApplyError::BadRequest(message) => Status::bad_request(message),
            ApplyError::Conflict(conflicts) => conflicts.to_status(),
            ApplyError::Typed(message) => crate::patch::unclassified(message),
        }
    }
}

/// What an apply wants to do, and how.
#[derive(Debug, Clone, Copy)]
pub struct Apply<'a> {
    /// The applied configuration: the parsed body.
    pub patch: &'a Value,
    /// The field manager; required.
    pub manager: &'a str,
    /// Whether fields that others own are taken from them.
    pub force: bool,
    /// The time of the write.
    pub now: Timestamp,
}

impl FieldManager<'_> {
    /// The object that results from applying a configuration to `live` (`None` where there is none yet), with its
    /// `metadata.managedFields`. The caller defaults, admits and validates it. Where nothing changes, the result equals
    /// `live` but perhaps for the owners.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub fn apply(&self, live: Option<&Value>, apply: Apply<'_>) -> Result<Value, ApplyError> {
        self.check_version(apply.patch)?;
        let mut entries = entries::read(live.and_then(managed_fields))?;
        let mut live = live.cloned().unwrap_or_else(|| Value::Object(Map::new()));
        take_managed_fields(&mut live);
        if entries.is_empty() {
            entries.extend(self.before_first_apply(&live, apply.now)?);
        }
        // Only kubectl may have to try twice.
        let again = (apply.manager == last_applied::KUBECTL).then(|| entries.clone());
        let (mut object, entries) = match (self.merge_and_own(&live, entries, apply), again) {
            (Err(ApplyError::Conflict(conflicts)), Some(entries)) => {
                match last_applied::allowed_conflicts(self, &live) {
                    None => return Err(ApplyError::Conflict(conflicts)),
                    Some(allowed) => match conflicts.without(&allowed) {
                        Some(left) => return Err(ApplyError::Conflict(left)),
                        None => self.merge_and_own(&live, entries, Apply { force: true, ..apply })?,
                    },
                }
            }
            (done, _) => done?,
        };
        put_managed_fields(&mut object, entries::write(entries));
        if apply.manager == last_applied::KUBECTL {
            last_applied::sync_annotation(&mut object, apply.patch);
        }
        Ok(object)
    }

    fn check_version(&self, patch: &Value) -> Result<(), ApplyError> {
        let text = |key: &str| patch.get(key).and_then(Value::as_str).unwrap_or_default();
        if text("kind") != self.kind || text("apiVersion") != self.api_version {
            return Err(ApplyError::BadRequest(format!("invalid object type: {}", kind_of(patch))));
        }
        match managed_fields(patch) {
            Some(_) => Err(ApplyError::BadRequest("metadata.managedFields must be nil".to_owned())),
            None => Ok(()),
        }
    }

    /// An object that nobody's fields are tracked of gets one owner of all it holds.
    fn before_first_apply(&self, live: &Value, now: Timestamp) -> Result<Option<Entry>, ApplyError> {
        if live.as_object().is_none_or(Map::is_empty) {
            return Ok(None);
        }
        let all = without_untracked(&self.compare(&zero(self.ty), live)?.changed);
        let manager = Manager::new(BEFORE_FIRST_APPLY, Operation::Update, self.api_version, self.subresource);
        Ok((!all.is_empty()).then(|| Entry { manager, time: rfc3339(now), fields: Fields::Parsed(all) }))
    }

    fn merge_and_own(
        &self,
        live: &Value,
        entries: Vec<Entry>,
        apply: Apply<'_>,
    ) -> Result<(Value, Vec<Entry>), ApplyError> {
        let root = Place::root(self.ty);
        let Apply { patch, manager, force, now } = apply;
        validate(root, patch).map_err(|errors| {
            ApplyError::Typed(format!("failed to create typed patch object ({}): {errors}", name_of(patch)))
        })?;
        let merged = merge(root, live, patch)
            .map_err(|errors| ApplyError::Typed(format!("failed to merge config: {errors}")))?;
        let mut entries = self.reconciled(entries)?;
        let me = Manager::new(manager, Operation::Apply, self.api_version, self.subresource);
        let fields = field_set(root, patch)?.recursive_difference(self.reset_fields);
        let last = entries.iter().position(|entry| entry.manager.is_same(&me)).map(|at| entries.remove(at));
        let time = last.as_ref().map(|last| last.time.clone()).unwrap_or_default();
        let last_fields = last.map(|last| last.fields()).transpose()?.unwrap_or_default();
        entries.push(Entry { manager: me.clone(), time, fields: Fields::Parsed(fields.clone()) });
        // Who applies again all that they applied before gives up nothing: the usual case, without the walks of a prune.
        let object = if last_fields.is_subset(&fields) { merged } else { self.prune(merged, &last_fields, &entries)? };

        let changes = self.compare(live, &object)?;
        if !force {
            self.refuse_conflicts(&mut entries, &me, &changes, (live, &object))?;
        }
        self.take_from_others(&mut entries, Some(&me), &changes, live, &object)?;

        let mine = without_untracked(&fields);
        let at = entries.iter().position(|entry| entry.manager == me);
        match at {
            Some(at) if mine.is_empty() => {
                entries.remove(at);
            }
            Some(at) => {
                entries[at].fields = Fields::Parsed(mine);
                if object != *live {
                    entries[at].time = rfc3339(now);
                }
            }
            None => {}
        }
        Ok((object, entries))
    }

    /// An error where the write changes what others own.
    fn refuse_conflicts(
        &self,
        entries: &mut Vec<Entry>,
        me: &Manager,
        changes: &Comparison,
        objects: (&Value, &Value),
    ) -> Result<(), ApplyError> {
        let mut conflicts = Vec::new();
        self.for_each_other(entries, Some(me), changes, objects, |entry, changes| {
            if !entry.may_share(&changes.changed) {
                return Ok(());
            }
            let contested = entry.fields()?.intersection(&changes.changed);
            conflicts.extend(contested.paths().into_iter().map(|path| (entry.manager.clone(), path)));
            Ok::<_, ApplyError>(())
        })?;
        if conflicts.is_empty() {
            return Ok(());
        }
        conflicts.sort_by(|(a, _), (b, _)| a.cmp(b));
        Err(ApplyError::Conflict(Conflicts(conflicts)))
    }

    /// Takes out of the merged object what the applier applied last time, does not apply now, and nobody else owns.
    fn prune(&self, merged: Value, last: &FieldSet, entries: &[Entry]) -> Result<Value, ApplyError> {
        let root = Place::root(self.ty);
        let named = |fields: &FieldSet| with_named_fields(root, fields);
        let without = |fields: &FieldSet, emptied| {
            remove(root, &merged, fields, emptied)
                .map(|left| left.unwrap_or_else(|| Value::Object(Map::new())))
                .map_err(|errors| ApplyError::Typed(format!("failed to prune fields: {errors}")))
        };
        let mut managed = FieldSet::new();
        for entry in entries {
            managed = managed.union(&entry.fields()?);
        }
        let last = named(last);
        let all = named(&field_set(root, &merged)?);
        // Add back what others, or this very configuration, own …
        let pruned = without(&last, Emptied::Null)?;
        let kept = named(&field_set(root, &pruned)?).union(&named(&managed));
        let pruned = without(&all.difference(&kept), Emptied::Null)?;
        // … and what nobody owns: only what was the applier's own may go.
        let kept = named(&field_set(root, &pruned)?);
        without(&all.difference(&kept).intersection(&last), Emptied::Gone)
    }
}

/// The set with the fields of structs on the way to its members (`EnsureNamedFieldsAreMembers`): a set of `a.b.c` also holds
/// `a`, where `a` is a field of a struct and not a key of a map.
fn with_named_fields(place: Place<'_>, fields: &FieldSet) -> FieldSet {
    let nodes = fields.nodes().iter().map(|node| {
        let name = node.element.field_name();
        let below = match (name, place) {
            (Some(name), _) => place.child(name),
            (None, Place::Typed(Type::List(list), _)) => Place::root(&list.element),
            (None, _) => Place::Deduced,
        };
        let on_the_way = !node.children.is_empty() && name.is_some_and(|name| place.has_field(name));
        let children = with_named_fields(below, &node.children);
        Node { element: node.element.clone(), member: node.member || on_the_way, children }
    });
    FieldSet::from_unsorted(nodes.collect())
}

/// As Go prints a GroupVersionKind: `apps/v1, Kind=Deployment`; core's group is empty.
fn kind_of(object: &Value) -> String {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let version = text("apiVersion");
    let slash = if version.contains('/') { "" } else { "/" };
    format!("{slash}{version}, Kind={}", text("kind"))
}

fn name_of(object: &Value) -> String {
    let text = |key: &str| object.pointer(key).and_then(Value::as_str).unwrap_or_default();
    format!("{}/{}; {}", text("/metadata/namespace"), text("/metadata/name"), kind_of(object))
}
