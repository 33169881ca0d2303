//! The way from client-side to server-side apply: `kubectl apply --server-side` on an object that `kubectl apply` made
//! (apimachinery `util/managedfields/internal`: `lastappliedmanager.go`, `lastappliedupdater.go`).

use serde_json::Value;

use super::compare::compare;
use super::field_set::FieldSet;
use super::shape::Place;
use super::typed::field_set;
use super::update::FieldManager;

/// The only manager that is led over: others are asked to resolve their conflicts.
pub(super) const KUBECTL: &str = "kubectl";
/// What `kubectl apply` remembers by.
const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The most bytes that all annotations of an object may hold (apimachinery `TotalAnnotationSizeLimitB`).
const TOTAL_ANNOTATION_SIZE_LIMIT: usize = 256 * 1024;

/// The fields that the last client-side apply set and that still are as it set them: they are the user's own, whatever manager
/// they are booked to. `None` when there was none, or it is of another version.
pub(super) fn allowed_conflicts(manager: &FieldManager<'_>, live: &Value) -> Option<FieldSet> {
    let root = Place::root(manager.ty);
    let applied = live.get("metadata")?.get("annotations")?.get(ANNOTATION)?.as_str()?;
    let applied: Value = serde_json::from_str(applied).ok()?;
    if applied.get("apiVersion")?.as_str()? != manager.api_version {
        return None;
    }
    let mut fields = field_set(root, &applied).ok()?;
    let changes = compare(root, &applied, live).ok()?;
    fields.subtract(&changes.changed);
    fields.subtract(&changes.removed);
    Some(fields)
}

/// Keeps the annotation, where the object has it, in step with what was applied, so that the user can go back.
pub(super) fn sync_annotation(object: &mut Value, patch: &Value) {
    let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else {
        return;
    };
    if !annotations.contains_key(ANNOTATION) {
        return;
    }
    let mut applied = patch.clone();
    if let Some(annotations) = applied.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(ANNOTATION);
    }
    annotations.insert(ANNOTATION.to_owned(), Value::String(format!("{applied}\n")));
    let size: usize = annotations.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if size > TOTAL_ANNOTATION_SIZE_LIMIT {
        annotations.remove(ANNOTATION);
    }
}
