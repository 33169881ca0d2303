//! Conditions of the common form, `metav1.Condition`.
//! Mirrors `apimachinery/pkg/apis/meta/v1/validation.ValidateConditions`.
use std::collections::BTreeSet;

use super::field::{Errors, Field};
use super::names;

const REASON_MAX: usize = 1024;
const MESSAGE_MAX: usize = 32 * 1024;

/// What is wrong with a list of conditions.
pub fn validate(conditions: &Field<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for condition in conditions.items() {
        let kind = condition.get("type");
        if !seen.insert(kind.str()) {
            errors.push(condition.duplicate_as(kind.str()));
        }
        validate_one(&condition, errors);
    }
}

fn validate_one(condition: &Field<'_>, errors: &mut Errors) {
    let (kind, status, reason) = (condition.get("type"), condition.get("status"), condition.get("reason"));
    if kind.is_empty() {
        errors.push(kind.required("is required"));
    } else {
        kind.check(names::qualified_name(kind.str()), errors);
    }
    status.one_of(&["False", "True", "Unknown"], errors);
    let generation = condition.get("observedGeneration");
    if generation.int().unwrap_or(0) < 0 {
        errors.push(generation.invalid("must be greater than or equal to zero"));
    }
    let changed = condition.get("lastTransitionTime");
    if changed.is_empty() || changed.str().starts_with("0001-01-01T00:00:00") {
        errors.push(changed.required(""));
    }
    if reason.is_empty() {
        errors.push(reason.required(""));
    } else {
        reason.check(names::condition_reason(reason.str()), errors);
        if reason.len() > REASON_MAX {
            errors.push(reason.too_long(REASON_MAX));
        }
    }
    let message = condition.get("message");
    if message.len() > MESSAGE_MAX {
        errors.push(message.too_long(MESSAGE_MAX));
    }
}
