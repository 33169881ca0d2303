//! Storage migration: `pkg/apis/storagemigration/validation/validation.go`.
use serde_json::json;

use super::built_in::Behavior;
use super::field::{Errors, Field};
use super::{Subresource, conditions, names};

/// `storagemigration.k8s.io/v1` StorageVersionMigration.
pub struct StorageVersionMigration;

impl Behavior for StorageVersionMigration {
    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let target = object.get("spec").get("resource");
        let (resource, group) = (target.get("resource"), target.get("group"));
        if resource.is_empty() {
            errors.push(resource.required("resource is required to be set"));
        } else {
            all_at_once(&resource, names::dns1035_label(resource.str()), errors);
        }
        if !group.is_empty() {
            all_at_once(&group, names::dns1123_subdomain(group.str()), errors);
        }
    }

    fn validate_update(&self, subresource: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        if subresource == Subresource::Status {
            status(&new.get("status"), &old.get("status"), errors);
            return;
        }
        self.validate(new, errors);
        let (spec, before) = (new.get("spec"), old.get("spec"));
        if spec.value() != before.value() {
            let target = spec.get("resource");
            let inner = target.internal(&[("Group", "group", json!("")), ("Resource", "resource", json!(""))]);
            errors.push(spec.invalid("field is immutable").showing(format!("{{\"Resource\":{inner}}}")));
        }
    }
}

/// All complaints in one error.
fn all_at_once(field: &Field<'_>, complaints: Vec<String>, errors: &mut Errors) {
    if !complaints.is_empty() {
        errors.push(field.invalid(complaints.join(",")));
    }
}

fn status(status: &Field<'_>, before: &Field<'_>, errors: &mut Errors) {
    let (revision, was) = (status.get("resourceVersion"), before.get("resourceVersion"));
    let number = revision.str();
    if !number.is_empty() && (number.starts_with('0') || !number.bytes().all(|byte| byte.is_ascii_digit())) {
        errors.push(revision.invalid(format!("resource version is not well formed: {number}")));
    }
    let all = status.get("conditions");
    conditions::validate(&all, errors);
    if !was.is_empty() && revision.str() != was.str() {
        errors.push(revision.invalid("field is immutable"));
    }
    let is = |status: &Field<'_>, condition: &str| {
        let mut conditions = status.get("conditions").items();
        conditions.any(|one| one.get("type").str() == condition && one.get("status").str() == "True")
    };
    let shown = || all.value().clone();
    if is(status, "Succeeded") && is(status, "Failed") {
        let detail = "Both success and failed conditions cannot be true at the same time";
        errors.push(all.invalid_as(shown(), detail));
    }
    for (condition, word) in [("Succeeded", "Success"), ("Failed", "Failed")] {
        if is(before, condition) && !is(status, condition) {
            errors.push(all.invalid_as(shown(), format!("{word} condition cannot be set to false once it is true")));
        }
    }
}
