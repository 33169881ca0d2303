//! ObjectMeta: what all kinds share. Mirrors `apimachinery/pkg/api/validation/objectmeta.go` and, for finalizers of
//! Kubernetes' own kinds, the stricter `pkg/apis/core/validation.ValidateObjectMeta`.
use std::collections::BTreeSet;

use serde_json::Value;

use super::field::{Errors, Field};
use super::names::{self, NameRule};

/// Most bytes that the annotations of an object may hold in sum, keys included.
pub const ANNOTATIONS_MAX_BYTES: usize = 256 * 1024;

const ORPHAN_FINALIZER: &str = "orphan";
const FOREGROUND_FINALIZER: &str = "foregroundDeletion";
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", ORPHAN_FINALIZER, FOREGROUND_FINALIZER];

/// What is wrong with the metadata of a new object.
pub fn validate_object_meta(meta: &Field<'_>, namespaced: bool, rule: NameRule, errors: &mut Errors) {
    let name = meta.get("name");
    if name.is_empty() {
        errors.push(name.required("name or generateName is required"));
    } else {
        name.check(rule.check(name.str()), errors);
    }
    let namespace = meta.get("namespace");
    match (namespaced, namespace.is_empty()) {
        (true, true) => errors.push(namespace.required("")),
        (true, false) => namespace.check(names::dns1123_label(namespace.str()), errors),
        (false, true) => {}
        (false, false) => errors.push(namespace.forbidden("not allowed on this type")),
    }
    meta.get("generation").non_negative(errors);
    labels(&meta.get("labels"), errors);
    annotations(&meta.get("annotations"), errors);
    owner_references(&meta.get("ownerReferences"), errors);
    finalizers(&meta.get("finalizers"), errors);
}

/// What is wrong with the beginning that an object's name was made from.
pub fn generate_name(meta: &Field<'_>, rule: NameRule, errors: &mut Errors) {
    let start = meta.get("generateName");
    if !start.is_empty() {
        start.check(rule.check_prefix(start.str()), errors);
    }
}

/// What is wrong with the metadata of an update: the parts that never change, and the parts that may but must be valid.
/// `resourceVersion` is the registry's business, since stored objects carry none.
pub fn validate_object_meta_update(meta: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    if old.get("deletionTimestamp").is_set() {
        no_new_finalizers(&meta.get("finalizers"), &old.get("finalizers"), errors);
    }
    let generation = meta.get("generation");
    if generation.int().unwrap_or(0) < old.get("generation").int().unwrap_or(0) {
        errors.push(generation.invalid_as(generation.int().unwrap_or(0), "must not be decremented"));
    }
    for name in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        meta.get(name).immutable(&old.get(name), errors);
    }
    labels(&meta.get("labels"), errors);
    annotations(&meta.get("annotations"), errors);
    owner_references(&meta.get("ownerReferences"), errors);
    finalizers(&meta.get("finalizers"), errors);
}

/// Label keys and values; both are reported at the map itself.
pub fn labels(labels: &Field<'_>, errors: &mut Errors) {
    for (key, value) in labels.entries() {
        let shown = Value::from(key);
        labels.with(&shown).check(names::qualified_name(key), errors);
        labels.with(value.value()).check(names::label_value(value.str()), errors);
    }
}

/// Annotation keys and the size of all.
pub fn annotations(annotations: &Field<'_>, errors: &mut Errors) {
    let mut bytes = 0;
    for (key, value) in annotations.entries() {
        bytes += key.len() + value.str().len();
        let shown = Value::from(key);
        annotations.with(&shown).check(names::qualified_name(&key.to_lowercase()), errors);
    }
    if bytes > ANNOTATIONS_MAX_BYTES {
        errors.push(annotations.too_long(ANNOTATIONS_MAX_BYTES));
    }
}

fn owner_references(references: &Field<'_>, errors: &mut Errors) {
    let mut controller = None;
    for reference in references.items() {
        let version = reference.get("apiVersion");
        match version.str().split('/').collect::<Vec<_>>()[..] {
            [""] => errors.push(version.required("must not be empty")),
            [_] => {}
            [_, version] if !version.is_empty() => {}
            _ => errors.push(version.invalid("must be <group>/<version> or <version>")),
        }
        for name in ["kind", "name", "uid"] {
            if reference.get(name).is_empty() {
                errors.push(reference.get(name).required("must not be empty"));
            }
        }
        if version.str() == "v1" && reference.get("kind").str() == "Event" {
            errors.push(reference.invalid("/v1, Kind=Event is disallowed from being an owner"));
        }
        if reference.get("controller").bool() {
            match controller {
                None => controller = Some(owner(&reference)),
                Some(ref first) => errors.push(references.invalid(format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {}",
                    owner(&reference)
                ))),
            }
        }
    }
}

/// `Kind/name`.
fn owner(reference: &Field<'_>) -> String {
    format!("{}/{}", reference.get("kind").str(), reference.get("name").str())
}

fn finalizers(finalizers: &Field<'_>, errors: &mut Errors) {
    let mut seen = [false; 2];
    for finalizer in finalizers.items() {
        let name = finalizer.str();
        finalizers.with(finalizer.value()).check(names::qualified_name(name), errors);
        seen[0] |= name == ORPHAN_FINALIZER;
        seen[1] |= name == FOREGROUND_FINALIZER;
    }
    if seen == [true, true] {
        let detail = format!("finalizer {ORPHAN_FINALIZER} and {FOREGROUND_FINALIZER} cannot be both set");
        errors.push(finalizers.invalid(detail));
    }
}

/// Finalizers of Kubernetes' own kinds. The kinds of definitions, and definitions themselves, may have any name.
pub fn kube_finalizers(meta: &Field<'_>, errors: &mut Errors) {
    for finalizer in meta.get("finalizers").items() {
        kube_finalizer(&finalizer, errors);
    }
}

/// A finalizer without a domain must be one of Kubernetes' own.
pub fn kube_finalizer(finalizer: &Field<'_>, errors: &mut Errors) {
    let name = finalizer.str();
    if !name.contains('/') && !STANDARD_FINALIZERS.contains(&name) {
        errors.push(finalizer.invalid("name is neither a standard finalizer name nor is it fully qualified"));
    }
}

fn no_new_finalizers(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let before: BTreeSet<&str> = old.items().map(|finalizer| finalizer.str()).collect();
    let mut added: Vec<&str> =
        new.items().map(|finalizer| finalizer.str()).filter(|name| !before.contains(name)).collect();
    if added.is_empty() {
        return;
    }
    added.sort_unstable();
    let quoted: Vec<String> = added.iter().map(|name| format!("{name:?}")).collect();
    errors.push(new.forbidden(format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
        quoted.join(", ")
    )));
}
