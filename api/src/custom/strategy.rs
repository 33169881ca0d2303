//! How custom resources behave in the registry's pipeline: as their schema and subresources say.
//!
//! `apiextensions-apiserver/pkg/registry/customresource/{strategy,status_strategy,validator}.go`.

use std::borrow::Cow;

use serde_json::Value;

use super::{CustomResource, defaults, rules, validate};
use crate::status::{FieldError, FieldPath};
use crate::strategy::field::{Errors, Field};
use crate::strategy::{
    Context, GarbageCollectionPolicy, NameRule, Strategy, Subresource, generate_name, validate_object_meta,
    validate_object_meta_update,
};

/// What follows errors that make rules unanswerable.
const NOT_CHECKED: &str = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";

impl CustomResource {
    fn wish_changed(&self, new: &Value, old: &Value) -> bool {
        let skipped = |name: &str| name == "metadata" || (self.has_status && name == "status");
        let members = |object: &Value| -> Vec<(String, Value)> {
            let all = object.as_object().into_iter().flatten();
            all.filter(|(name, _)| !skipped(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
        };
        members(new) != members(old)
    }

    fn validate_content(&self, object: &Value, old: Option<&Value>, errors: &mut Errors) {
        let mut found = validate::validate(&self.schema, object, old);
        self.scale_bounds(object, &mut found);
        let root = FieldPath::root();
        let mut invariants = Errors::new();
        validate::embedded(&self.schema, object, &root, &mut invariants);
        validate::list_types(&self.schema, object, &root, &mut invariants);
        if let Some(old) = old {
            // A fault that was there before, in a part that has not changed, is no fault of this write.
            let mut before = Errors::new();
            validate::embedded(&self.schema, old, &root, &mut before);
            validate::list_types(&self.schema, old, &root, &mut before);
            found.extend(invariants.into_iter().filter(|error| !before.contains(error)));
        } else {
            found.extend(invariants);
        }
        errors.extend(found);
        if !self.schema.has_rules {
            return;
        }
        if validate::blocks_rules(errors) {
            errors.push(FieldError::invalid(&root, Value::Null, NOT_CHECKED));
        } else {
            rules::evaluate(&self.schema, object, old, errors);
        }
    }

    fn scale_bounds(&self, object: &Value, errors: &mut Errors) {
        let Some(scale) = &self.scale else { return };
        for (name, path) in [(&scale.spec_name, &scale.spec_replicas), (&scale.status_name, &scale.status_replicas)] {
            let Some(count) = path.get(object).and_then(Value::as_i64) else { continue };
            let at = FieldPath::new(name.clone());
            if count < 0 {
                errors.push(FieldError::invalid(&at, count, "should be a non-negative integer"));
            } else if count > i64::from(i32::MAX) {
                errors.push(FieldError::invalid(&at, count, format!("should be less than or equal to {}", i32::MAX)));
            }
        }
    }
}

impl Strategy for CustomResource {
    fn set_defaults(&self, object: &mut Value) {
        defaults::set(&self.schema, object);
    }

    fn set_defaults_of_applied(&self, object: &mut Value) {
        defaults::fill(&self.schema, object);
    }

    fn prepare_for_create(&self, _: &Context<'_>, object: &mut Value) {
        if self.has_status
            && let Some(object) = object.as_object_mut()
        {
            object.remove("status");
        }
        object["metadata"]["generation"] = 1.into();
    }

    fn prepare_for_update(&self, _: &Context<'_>, subresource: Subresource, new: &mut Value, old: &Value) {
        if subresource == Subresource::Status {
            let (status, owners) = (new.get("status").cloned(), new["metadata"].get("managedFields").cloned());
            let version = new["metadata"].get("resourceVersion").cloned();
            *new = old.clone();
            put(new, "status", status);
            put(&mut new["metadata"], "managedFields", owners);
            put(&mut new["metadata"], "resourceVersion", version);
            return;
        }
        if self.has_status {
            put(new, "status", old.get("status").cloned());
        }
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
        let changed = self.wish_changed(new, old)
            || (old["metadata"].get("deletionTimestamp").is_none()
                && new["metadata"].get("deletionTimestamp").is_some());
        new["metadata"]["generation"] = (generation + i64::from(changed)).into();
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let metadata = Field::root(object).get("metadata");
        generate_name(&metadata, NameRule::Subdomain, &mut errors);
        validate_object_meta(&metadata, self.namespaced, NameRule::Subdomain, &mut errors);
        self.validate_content(object, None, &mut errors);
        errors.into()
    }

    fn validate_update(&self, _: Subresource, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let (metadata, before) = (Field::root(new).get("metadata"), Field::root(old).get("metadata"));
        validate_object_meta_update(&metadata, &before, &mut errors);
        self.validate_content(new, Some(old), &mut errors);
        errors.into()
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let Some(old) = old.filter(|_| self.schema.has_rules) else { return Vec::new() };
        let tolerated: Vec<FieldError> = rules::tolerated(&self.schema, object, old).into();
        tolerated.iter().map(ToString::to_string).collect()
    }

    fn allow_create_on_update(&self) -> bool {
        false
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn field_labels(&self) -> Vec<&str> {
        self.selectable.iter().map(|(label, _)| label.as_str()).collect()
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(Cow<'static, str>, String)> {
        let text = |value: Option<&Value>| match value {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        self.selectable.iter().map(|(label, path)| (Cow::Owned(label.clone()), text(path.get(object)))).collect()
    }

    fn scale(&self, object: &Value) -> Option<Value> {
        self.scale.as_ref().map(|paths| paths.scale(object))
    }

    fn replicas_path(&self) -> Option<Vec<String>> {
        self.scale.as_ref().map(|paths| paths.spec_replicas.names().to_vec())
    }

    fn set_scale(&self, object: &mut Value, replicas: i64) {
        if let Some(paths) = &self.scale {
            paths.spec_replicas.set(object, replicas.into());
        }
    }

    fn default_garbage_collection_policy(&self) -> GarbageCollectionPolicy {
        GarbageCollectionPolicy::DeleteDependents
    }

    fn name_validation(&self) -> NameRule {
        NameRule::Subdomain
    }
}

fn put(object: &mut Value, name: &str, value: Option<Value>) {
    if let Some(object) = object.as_object_mut() {
        match value {
            Some(value) => drop(object.insert(name.to_owned(), value)),
            None => drop(object.remove(name)),
        }
    }
}
