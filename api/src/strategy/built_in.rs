//! Built-in kinds: a row of rules, a [`Behavior`] where they differ, and [`BuiltIn`], which joins the two.
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::field::{Errors, Field};
use super::rows::{GenerateName, Generation, Row, row_of};
use super::{Context, GarbageCollectionPolicy, NameRule, ScalePaths, Strategy, Subresource, edit, meta, pod};
use crate::kinds::{Kind, Kinds};
use crate::schema;
use crate::status::FieldError;

/// Where one built-in kind differs from the others. Everything has an empty default.
pub trait Behavior: Send + Sync {
    /// See [`Strategy::set_defaults`].
    fn set_defaults(&self, _object: &mut Value) {}

    /// After the generic part of [`Strategy::prepare_for_create`].
    fn prepare_for_create(&self, _context: &Context<'_>, _object: &mut Value) {}

    /// After the generic part of [`Strategy::prepare_for_update`] and before generation is compared.
    fn prepare_for_update(&self, _context: &Context<'_>, _subresource: Subresource, _new: &mut Value, _old: &Value) {}

    /// The kind's own rules; metadata is checked already.
    fn validate(&self, _object: &Field<'_>, _errors: &mut Errors) {}

    /// The kind's own rules for an update; metadata is checked already.
    fn validate_update(&self, subresource: Subresource, new: &Field<'_>, _old: &Field<'_>, errors: &mut Errors) {
        if subresource != Subresource::Status {
            self.validate(new, errors);
        }
    }

    /// See [`Strategy::warnings`].
    fn warnings(&self, _object: &Field<'_>, _old: Option<&Value>, _warnings: &mut Vec<String>) {}

    /// See [`Strategy::canonicalize`].
    fn canonicalize(&self, _object: &mut Value) {}

    /// See [`Strategy::graceful_delete`].
    fn graceful_delete(&self, _object: &Value, _requested: Option<i64>) -> Option<i64> {
        None
    }

    /// Label and JSON pointer of each selectable field; of rows with the same label the first that is not empty counts.
    fn selectable(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// See [`Strategy::scale_paths`].
    fn scale_paths(&self) -> Option<ScalePaths> {
        None
    }

    /// See [`Strategy::pod_template_paths`].
    fn pod_template_paths(&self) -> &'static [&'static str] {
        &[]
    }
}

/// The behaviour of a kind that differs in nothing.
pub struct Plain;

impl Behavior for Plain {}

/// A kind's strategy: its row, its behaviour, and what the kind table says of it.
pub struct BuiltIn {
    row: &'static Row,
    namespaced: bool,
    has_status: bool,
    /// A status in which nothing has been observed: some kinds print zeros in it, custom resources have none at all.
    zero_status: Option<Value>,
    labels: Vec<&'static str>,
}

/// Plurals are nearly unique; the versions and groups that share one are few.
type ByPlural = BTreeMap<String, Vec<(Arc<Kind>, BuiltIn)>>;

/// The strategy of a kind: its definition's where a CustomResourceDefinition brought it.
pub fn strategy_for(kind: &Kind) -> &dyn Strategy {
    static STRATEGIES: OnceLock<ByPlural> = OnceLock::new();
    static PLAIN: OnceLock<BuiltIn> = OnceLock::new();
    if let Some(definition) = &kind.definition {
        return &**definition;
    }
    let strategies = STRATEGIES.get_or_init(|| {
        let mut by_plural = ByPlural::new();
        for kind in Kinds::built_in().iter() {
            by_plural.entry(kind.plural.clone()).or_default().push((kind.clone(), BuiltIn::of(kind)));
        }
        by_plural
    });
    let same = |other: &Kind| other.group == kind.group && other.version == kind.version;
    let built_in = strategies.get(&kind.plural).into_iter().flatten();
    match built_in.into_iter().find(|(other, _)| same(other)) {
        Some((_, strategy)) => strategy,
        None => PLAIN.get_or_init(|| BuiltIn::new(row_of("", "", ""), kind.namespaced, false, None)),
    }
}

impl BuiltIn {
    fn of(kind: &Kind) -> BuiltIn {
        let row = row_of(&kind.group, &kind.version, &kind.plural);
        let zero = kind.schema.field("status").map(|status| schema::zero(&status.ty));
        BuiltIn::new(row, kind.namespaced, kind.subresource("status").is_some(), zero)
    }

    fn new(row: &'static Row, namespaced: bool, has_status: bool, zero_status: Option<Value>) -> BuiltIn {
        let mut labels: Vec<&str> = row.behavior.selectable().iter().map(|(label, _)| *label).collect();
        labels.dedup();
        BuiltIn { row, namespaced, has_status, zero_status, labels }
    }

    fn behavior(&self) -> &'static dyn Behavior {
        self.row.behavior
    }

    /// What a wish consists of: everything but identity, status and, for most kinds, metadata.
    fn wish_changed(&self, new: &Value, old: &Value) -> bool {
        let members = |object: &Value| -> Vec<(String, Value)> {
            let rest = object.as_object().into_iter().flatten();
            rest.filter(|(name, _)| !matches!(name.as_str(), "metadata" | "kind" | "apiVersion"))
                .filter(|(name, _)| !self.has_status || *name != "status")
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect()
        };
        match self.row.generation {
            Generation::None | Generation::Constant => false,
            Generation::Spec | Generation::SpecSinceFirstChange => members(new) != members(old),
            Generation::SpecAndAnnotations => {
                members(new) != members(old) || new["metadata"].get("annotations") != old["metadata"].get("annotations")
            }
            Generation::SpecAndLabels => {
                members(new) != members(old) || new["metadata"].get("labels") != old["metadata"].get("labels")
            }
        }
    }

    /// What is done to the spec of a pod wherever it stands: in the pod, or in a template.
    fn prepare_pod_specs(&self, object: &mut Value) {
        for path in self.behavior().pod_template_paths() {
            if let Some(spec) = object.pointer_mut(path).and_then(|template| edit::member(template, "spec")) {
                pod::mirror_service_account(spec);
                pod::drop_disabled_fields(spec);
            }
        }
    }
}

/// Two rules may find the same fault; it is told of once (`k8s.io/apiserver/pkg/registry/rest/validate.go`, where written
/// and declared rules meet).
fn told_once(row: &Row, errors: Errors) -> Vec<FieldError> {
    if row.has_no_declared_rules() {
        return errors.into();
    }
    let mut seen = BTreeSet::new();
    errors.into_iter().filter(|error| seen.insert(error.to_string())).collect()
}

/// Brings over what a write may leave out and must not change (`rest.BeforeUpdate`, `ValidateObjectMetaAccessorUpdate`).
fn keep_system_metadata(new: &mut Value, old: &Value) {
    let meta = edit::child(new, "metadata");
    for name in ["uid", "creationTimestamp"] {
        if edit::text(meta, name).is_empty() {
            edit::keep(meta, &old["metadata"], name);
        }
    }
    if old["metadata"].get("deletionTimestamp").is_some() {
        edit::keep(meta, &old["metadata"], "deletionTimestamp");
    }
    if meta.get("deletionGracePeriodSeconds").is_none() {
        edit::keep(meta, &old["metadata"], "deletionGracePeriodSeconds");
    }
    edit::keep(meta, &old["metadata"], "generation");
}

impl Strategy for BuiltIn {
    fn set_defaults(&self, object: &mut Value) {
        self.behavior().set_defaults(object);
    }

    fn prepare_for_create(&self, context: &Context<'_>, object: &mut Value) {
        if self.has_status && !self.row.keeps_status_on_create {
            edit::replace(object, "status", self.zero_status.clone());
        }
        let meta = edit::child(object, "metadata");
        match self.row.generation {
            Generation::None | Generation::SpecSinceFirstChange => edit::take(meta, "generation"),
            _ => {
                edit::set(meta, "generation", 1);
                None
            }
        };
        self.prepare_pod_specs(object);
        self.behavior().prepare_for_create(context, object);
    }

    fn prepare_for_update(&self, context: &Context<'_>, subresource: Subresource, new: &mut Value, old: &Value) {
        keep_system_metadata(new, old);
        if subresource == Subresource::Status {
            // All but status and metadata stays, whatever the kind calls it.
            let status = new.get("status").cloned();
            let metadata = new.get("metadata").cloned();
            *new = old.clone();
            edit::replace(new, "metadata", metadata);
            edit::replace(new, "status", status);
            if self.row.status_keeps_metadata {
                let meta = edit::child(new, "metadata");
                for name in ["labels", "annotations", "finalizers", "ownerReferences"] {
                    edit::keep(meta, &old["metadata"], name);
                }
            }
        } else if self.has_status && subresource != Subresource::Approval {
            edit::keep(new, old, "status");
        }
        self.prepare_pod_specs(new);
        self.behavior().prepare_for_update(context, subresource, new, old);
        if subresource != Subresource::Status && self.wish_changed(new, old) {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
            edit::set(edit::child(new, "metadata"), "generation", generation + 1);
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let root = Field::root(object);
        if self.row.generate_name != GenerateName::Never {
            meta::generate_name(&root.get("metadata"), self.row.name, &mut errors);
        }
        meta::validate_object_meta(&root.get("metadata"), self.namespaced, self.row.name, &mut errors);
        if self.row.is_of_kubernetes() {
            meta::kube_finalizers(&root.get("metadata"), &mut errors);
        }
        self.behavior().validate(&root, &mut errors);
        told_once(self.row, errors)
    }

    fn validate_update(&self, subresource: Subresource, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let (root, before) = (Field::root(new), Field::root(old));
        match self.row.generate_name {
            GenerateName::Never | GenerateName::OnCreate => {}
            GenerateName::OnUpdate if subresource != Subresource::Main => {}
            GenerateName::OnUpdate | GenerateName::Always => {
                meta::generate_name(&root.get("metadata"), self.row.name, &mut errors);
            }
        }
        meta::validate_object_meta_update(&root.get("metadata"), &before.get("metadata"), &mut errors);
        if self.row.is_of_kubernetes() {
            meta::kube_finalizers(&root.get("metadata"), &mut errors);
        }
        self.behavior().validate_update(subresource, &root, &before, &mut errors);
        told_once(self.row, errors)
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::new();
        self.behavior().warnings(&Field::root(object), old, &mut warnings);
        warnings
    }

    fn canonicalize(&self, object: &mut Value) {
        self.behavior().canonicalize(object);
    }

    fn allow_create_on_update(&self) -> bool {
        self.row.create_on_update
    }

    fn allow_unconditional_update(&self) -> bool {
        self.row.unconditional_update
    }

    fn graceful_delete(&self, object: &Value, requested: Option<i64>) -> Option<i64> {
        self.behavior().graceful_delete(object, requested)
    }

    fn field_labels(&self) -> Vec<&str> {
        self.labels.clone()
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(Cow<'static, str>, String)> {
        let text = |pointer: &str| match object.pointer(pointer) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => String::new(),
            Some(other) => other.to_string(),
        };
        let mut fields: Vec<(Cow<'static, str>, String)> = Vec::new();
        for (label, pointer) in self.behavior().selectable() {
            let value = zero_if_absent(label, text(pointer));
            match fields.last_mut() {
                Some((earlier, found)) if earlier == label => {
                    if found.is_empty() {
                        *found = value;
                    }
                }
                _ => fields.push((Cow::Borrowed(*label), value)),
            }
        }
        fields
    }

    fn status_keeps_metadata(&self) -> bool {
        self.row.status_keeps_metadata
    }

    fn scale_paths(&self) -> Option<ScalePaths> {
        self.behavior().scale_paths()
    }

    fn default_garbage_collection_policy(&self) -> GarbageCollectionPolicy {
        self.row.garbage_collection
    }

    fn name_validation(&self) -> NameRule {
        self.row.name
    }

    fn pod_template_paths(&self) -> &'static [&'static str] {
        self.behavior().pod_template_paths()
    }
}

/// Fields that are booleans or counts read as their zero where the object leaves them out.
fn zero_if_absent(label: &str, text: String) -> String {
    match label {
        _ if !text.is_empty() => text,
        "spec.unschedulable" | "spec.hostNetwork" => "false".to_owned(),
        "status.replicas" | "status.successful" => "0".to_owned(),
        _ => text,
    }
}
