//! PersistentVolumeClaims.
use serde_json::Value;

use crate::quantity::Quantity;
use crate::status::FieldError;
use crate::strategy::built_in::Behavior;
use crate::strategy::difference::difference;
use crate::strategy::field::{Errors, Field};
use crate::strategy::{Context, Subresource, edit, labels, meta, names};

const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const IMMUTABLE: &str =
    "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";

/// `v1` PersistentVolumeClaim.
pub struct PersistentVolumeClaim;

impl Behavior for PersistentVolumeClaim {
    fn set_defaults(&self, object: &mut Value) {
        set_claim_defaults(object);
    }

    fn prepare_for_create(&self, _: &Context<'_>, object: &mut Value) {
        edit::set(edit::child(object, "status"), "phase", "Pending");
        normalize_data_sources(edit::child(object, "spec"), None);
    }

    fn prepare_for_update(&self, _: &Context<'_>, subresource: Subresource, new: &mut Value, old: &Value) {
        if subresource == Subresource::Main {
            normalize_data_sources(edit::child(new, "spec"), old.get("spec"));
        }
        if subresource == Subresource::Status {
            edit::default_text(edit::child(new, "status"), "phase", "Pending");
        }
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        validate_spec(&object.get("spec"), errors);
    }

    fn validate_update(&self, subresource: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        if subresource == Subresource::Status {
            validate_status(&new.get("status"), errors);
            return;
        }
        self.validate(new, errors);
        unchanged_but_size(new, old, errors);
    }

    fn warnings(&self, object: &Field<'_>, _: Option<&Value>, warnings: &mut Vec<String>) {
        storage_class_annotation(object, warnings);
        spec_warnings(&object.get("spec"), warnings);
    }
}

/// Sentences for accepted claims that will surprise.
pub fn spec_warnings(spec: &Field<'_>, warnings: &mut Vec<String>) {
    for list in ["requests", "limits"] {
        let storage = spec.get("resources").get(list).key("storage");
        if storage.quantity().is_some_and(|quantity| quantity.milli_value() % 1000 != 0) {
            let (path, shown) = (storage.path(), storage.str());
            warnings.push(format!("{path}: fractional byte value {shown:?} is invalid, must be an integer"));
        }
    }
}

pub(super) fn storage_class_annotation(object: &Field<'_>, warnings: &mut Vec<String>) {
    let annotation = object.get("metadata").get("annotations").key("volume.beta.kubernetes.io/storage-class");
    if annotation.is_set() {
        warnings
            .push(format!("{}: deprecated since v1.8; use \"storageClassName\" attribute instead", annotation.path()));
    }
}

/// What a claim gets, alone or as a StatefulSet's template.
pub fn set_claim_defaults(claim: &mut Value) {
    edit::default(edit::child(claim, "spec"), "volumeMode", "Filesystem");
    edit::default_text(edit::child(claim, "status"), "phase", "Pending");
}

/// `dataSource` and `dataSourceRef` are two names of one thing, unless the latter points to another namespace. A source
/// of a kind that claims could not be made from in the days of the older field alone is dropped, and so is one of
/// another namespace, which is an alpha feature. Mirrors `pkg/api/persistentvolumeclaim/util.go`.
fn normalize_data_sources(spec: &mut Value, old: Option<&Value>) {
    let held = |name: &str| old.is_some_and(|old| old.get(name).is_some_and(|source| !source.is_null()));
    if spec.get("dataSourceRef").is_none() && !held("dataSource") && !held("dataSourceRef") {
        let source = &spec["dataSource"];
        let known = matches!(
            (edit::text(source, "apiGroup"), edit::text(source, "kind")),
            ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
        );
        if !known {
            edit::take(spec, "dataSource");
        }
    }
    if !edit::text(&spec["dataSourceRef"], "namespace").is_empty() && !held("dataSourceRef") {
        edit::take(spec, "dataSourceRef");
    }
    match (spec.get("dataSource").cloned(), spec.get("dataSourceRef").cloned()) {
        (Some(source), None) => edit::set(spec, "dataSourceRef", source),
        (None, Some(mut reference)) if edit::text(&reference, "namespace").is_empty() => {
            edit::take(&mut reference, "namespace");
            edit::set(spec, "dataSource", reference);
        }
        _ => {}
    }
}

/// What is wrong with the amounts of a claim's status (`ValidatePersistentVolumeClaimStatusUpdate`).
fn validate_status(status: &Field<'_>, errors: &mut Errors) {
    const RESIZES: [&str; 5] = [
        "ControllerResizeInProgress",
        "ControllerResizeInfeasible",
        "NodeResizeInProgress",
        "NodeResizeInfeasible",
        "NodeResizePending",
    ];
    let whole = |amount: &Field<'_>| amount.quantity().unwrap_or(Quantity::ZERO).value();
    let negative = |amount: &Field<'_>| amount.invalid_as(whole(amount), "must be a valid resource quantity");
    for (_, amount) in status.get("capacity").entries() {
        if whole(&amount) < 0 {
            errors.push(negative(&amount));
        }
    }
    let resizes = status.get("allocatedResourceStatuses");
    for (name, state) in resizes.entries() {
        resource_name(name, &resizes, errors);
        if !RESIZES.contains(&state.str()) {
            errors.push(resizes.not_supported_as(name, &RESIZES));
        }
    }
    let allocated = status.get("allocatedResources");
    for (name, amount) in allocated.entries() {
        if resource_name(name, &allocated, errors) && whole(&amount) < 0 {
            errors.push(negative(&amount));
        }
    }
}

/// A resource that a claim has is its storage, or somebody's own.
fn resource_name(name: &str, place: &Field<'_>, errors: &mut Errors) -> bool {
    let complaints = names::qualified_name(name);
    let own = !name.contains('/') || name.contains("kubernetes.io/");
    let fits = complaints.is_empty() && (!own || name == "storage");
    if complaints.is_empty() && !fits {
        errors.push(place.not_supported_as(name, &["storage"]));
    }
    errors.extend(complaints.into_iter().map(|complaint| place.invalid_as(name, complaint)));
    fits
}

/// What is wrong with a claim's template in a pod: only labels and annotations may be said beside the spec.
pub fn validate_template(template: &Field<'_>, errors: &mut Errors) {
    template_metadata(&template.get("metadata"), errors);
    validate_spec(&template.get("spec"), errors);
}

/// What is wrong with the metadata of a template whose object's name and place the server finds itself.
pub fn template_metadata(metadata: &Field<'_>, errors: &mut Errors) {
    meta::annotations(&metadata.get("annotations"), errors);
    meta::labels(&metadata.get("labels"), errors);
    for (name, value) in metadata.value().as_object().into_iter().flatten() {
        if !matches!(name.as_str(), "annotations" | "labels") && !value.is_null() && value != "" {
            errors.push(FieldError {
                field: format!("{}.{name}", metadata.path()),
                ..metadata.forbidden("cannot be set")
            });
        }
    }
}

/// What is wrong with a claim's spec.
pub fn validate_spec(spec: &Field<'_>, errors: &mut Errors) {
    let modes = spec.get("accessModes");
    if modes.is_empty() {
        errors.push(modes.required("at least 1 access mode is required"));
    }
    labels::validate_selector(&spec.get("selector"), errors);
    access_modes(&modes, errors);
    let resources = spec.get("resources");
    match resources.get("requests").key("storage").set() {
        None => errors.push(resources.key("storage").required("")),
        Some(storage) => {
            let at = resources.key("storage");
            if storage.quantity().is_some_and(|amount| amount <= Quantity::ZERO) {
                errors.push(at.invalid_as(storage.value().clone(), "must be greater than zero"));
            }
        }
    }
    let class = spec.get("storageClassName");
    if !class.is_empty() {
        class.check(names::dns1123_subdomain(class.str()), errors);
    }
    let mode = spec.get("volumeMode");
    if mode.is_set() && !["Block", "Filesystem"].contains(&mode.str()) {
        errors.push(mode.not_supported(&["Block", "Filesystem"]));
    }
    let (source, reference) = (spec.get("dataSource"), spec.get("dataSourceRef"));
    for source in [&source, &reference].into_iter().filter(|source| source.is_set()) {
        data_source(source, errors);
    }
    let namespace = reference.get("namespace");
    if !namespace.is_empty() {
        namespace.check(names::dns1123_label(namespace.str()), errors);
    }
    let same = |name| source.get(name).str() == reference.get(name).str();
    if source.is_set() && !namespace.is_empty() {
        errors.push(
            spec.invalid_as(serde_json::json!({}), "may not be specified when dataSourceRef.namespace is specified"),
        );
    } else if source.is_set() && reference.is_set() && !["apiGroup", "kind", "name"].into_iter().all(same) {
        errors.push(spec.invalid_as(serde_json::json!({}), "must match dataSourceRef"));
    }
    let class = spec.get("volumeAttributesClassName");
    if !class.is_empty() {
        class.check(names::dns1123_subdomain(class.str()), errors);
    }
}

fn data_source(source: &Field<'_>, errors: &mut Errors) {
    for name in ["name", "kind"] {
        if source.get(name).is_empty() {
            errors.push(source.get(name).required(""));
        }
    }
    if source.get("apiGroup").is_empty() && source.get("kind").str() != "PersistentVolumeClaim" {
        errors.push(source.invalid_as(
            source.get("kind").str(),
            "must be 'PersistentVolumeClaim' when referencing the default apiGroup",
        ));
    }
    if !source.get("apiGroup").is_empty() {
        source.get("apiGroup").check(names::dns1123_subdomain(source.get("apiGroup").str()), errors);
    }
}

/// Access modes of claims and volumes.
pub fn access_modes(modes: &Field<'_>, errors: &mut Errors) {
    let (mut once_pod, mut other) = (false, false);
    for mode in modes.items() {
        if !ACCESS_MODES.contains(&mode.str()) {
            errors.push(modes.with(mode.value()).not_supported(ACCESS_MODES));
        }
        once_pod |= mode.str() == "ReadWriteOncePod";
        other |= mode.str() != "ReadWriteOncePod" && ACCESS_MODES.contains(&mode.str());
    }
    if once_pod && other {
        errors.push(modes.forbidden("may not use ReadWriteOncePod with other access modes"));
    }
}

/// A claim may be bound once, and a bound one may grow.
fn unchanged_but_size(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let (spec, before) = (new.get("spec"), old.get("spec"));
    let bound = old.get("status").get("phase").str() == "Bound";
    let mut munged = spec.value().clone();
    if before.get("volumeName").is_empty() {
        edit::keep(&mut munged, before.value(), "volumeName");
    }
    if bound {
        edit::keep(edit::child(&mut munged, "resources"), &before.value()["resources"], "requests");
        edit::keep(&mut munged, before.value(), "volumeAttributesClassName");
    }
    if before.get("storageClassName").is_empty() && !spec.get("storageClassName").is_empty() && !bound {
        // A default class found later is written once (`pvcRetroactive`).
        edit::keep(&mut munged, before.value(), "storageClassName");
    }
    let asked = spec.get("resources").get("requests").get("storage");
    let capacity = old.get("status").get("capacity").get("storage");
    let earlier = before.get("resources").get("requests").get("storage");
    if bound && asked.quantity() < earlier.quantity() && asked.quantity() <= capacity.quantity().or(earlier.quantity())
    {
        errors.push(asked.forbidden("field can not be less than status.capacity"));
    }
    if munged != *before.value() {
        errors.push(spec.forbidden(format!("{IMMUTABLE}\n{}", difference(&munged, before.value()))));
    }
}
