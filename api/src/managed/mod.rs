//! Who owns which field: `metadata.managedFields` and server-side apply.
//!
//! ```text
//!                    ┌────────────── FieldManager ──────────────┐
//!   PUT, PATCH, POST │ update: the writer owns what it changed  │   compare ── live vs new, by type
//!                    │                                          │──►
//!   apply-patch+yaml │ apply: the applier owns what it says     │   merge, remove ── live + applied − no longer applied
//!                    └────────────┬─────────────────────────────┘
//!                                 ▼
//!                    entries: [{manager, operation, time, fieldsV1}]   each a FieldSet, a trie of path elements
//! ```
//! Reading order: `field_set` (the trie and its algebra), `shape` (what of a type matters here), `typed` (a value's set; does
//! it fit), `compare`, `merge`, then `entries`, `update`, `apply`, `conflict`, `last_applied`. Mirrors structured-merge-diff
//! and apimachinery's `util/managedfields`, so that two clients that share an object see the owners, the conflicts and the
//! words they see on any cluster.
//!
//! # Invariants
//! - Nobody owns what the API server keeps itself: name, uid, resourceVersion, generation … are in no set.
//! - An update never fails for its owners' sake: what cannot be accounted for keeps the entries as they were.
//! - The time of an entry moves only when its manager changes something.
//! - A set is parsed only where a write touches a field in it; otherwise its JSON is carried on as it is.
//!
//! # Left out, compared with Kubernetes
//! Pruning and merging happen in the version that is applied; entries in other versions take part in conflicts (through
//! [`Versions`]), but what they own is looked up under the same names.

mod apply;
mod atomics;
mod compare;
mod conflict;
mod entries;
mod field_set;
mod last_applied;
mod merge;
mod scale;
mod shape;
mod typed;
mod update;

use jiff::Timestamp;
use serde_json::Value;

pub use apply::{Apply, ApplyError};
pub use compare::Comparison;
pub use conflict::Conflicts;
pub use entries::{Entry, EntryError, MAX_UPDATE_MANAGERS, Manager, Operation, manager_or_user_agent, read};
pub use field_set::{FieldSet, FieldSetError, Path, PathElement};
pub use scale::ScaleOwners;
pub use typed::TypeErrors;
pub use update::{FieldManager, Versions, ignore_timestamps};

use crate::schema::Type;

/// Records an ordinary write where no fields are reset and there is one version; see [`FieldManager::update`].
pub fn managed_fields_for_update(
    ty: &Type,
    api_version: &str,
    live: Option<&Value>,
    new: &mut Value,
    manager: &str,
    now: Timestamp,
) {
    const NONE: &FieldSet = &FieldSet::new();
    let fields = FieldManager { ty, api_version, kind: "", subresource: "", reset_fields: NONE, versions: None };
    fields.update(live, new, manager, now);
}

/// The set of the fields that a value of this type holds: what an applier of it would own.
///
/// # Errors
/// When the elements of a list cannot be told apart.
pub fn fields_of(ty: &Type, value: &Value) -> Result<FieldSet, TypeErrors> {
    typed::field_set(shape::Place::root(ty), value)
}

/// Whether a value fits its type: no field that is not declared, no element of a keyed list twice.
///
/// # Errors
/// All that is wrong, in structured-merge-diff's words.
pub fn validate_value(ty: &Type, value: &Value) -> Result<(), TypeErrors> {
    typed::validate(shape::Place::root(ty), value)
}

/// The value that holds what either of two values holds; where both hold a leaf, the applied one. Nobody owns anything.
///
/// # Errors
/// When the elements of a list cannot be told apart, or stand twice in what is applied.
pub fn merge_values(ty: &Type, live: &Value, applied: &Value) -> Result<Value, TypeErrors> {
    merge::merge(shape::Place::root(ty), live, applied)
}

/// The paths at which a value has a list or an object that can only be replaced as a whole.
pub fn atomics_of(ty: &Type, value: &Value) -> Vec<String> {
    atomics::find(shape::Place::root(ty), value)
}

/// The fields in which two values of a type differ.
///
/// # Errors
/// When the elements of a list cannot be told apart.
pub fn compare_values(ty: &Type, old: &Value, new: &Value) -> Result<Comparison, TypeErrors> {
    compare::compare(shape::Place::root(ty), old, new)
}
