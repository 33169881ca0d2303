//! PriorityClasses.
use super::Subresource;
use super::built_in::Behavior;
use super::edit;
use super::field::{Errors, Field};

/// The highest value a class of one's own may have; above it are the system's two.
const USER_PRIORITY_MAX: i64 = 1_000_000_000;
const SYSTEM_CLASSES: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

/// Whether a class is one of the system's own, which nobody deletes.
pub fn is_system_class(name: &str) -> bool {
    SYSTEM_CLASSES.iter().any(|(own, _)| *own == name)
}

/// `scheduling.k8s.io/v1` PriorityClass.
pub struct PriorityClass;

impl Behavior for PriorityClass {
    fn set_defaults(&self, object: &mut serde_json::Value) {
        edit::default(object, "preemptionPolicy", "PreemptLowerPriority");
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let (name, value) = (object.get("metadata").get("name"), object.get("value"));
        let number = value.int().unwrap_or(0);
        if name.str().starts_with("system-") {
            if !SYSTEM_CLASSES.contains(&(name.str(), number)) {
                errors.push(
                    object
                        .get("metadata")
                        .get("name")
                        .forbidden("priority class names with 'system-' prefix are reserved for system use only"),
                );
            }
        } else if number > USER_PRIORITY_MAX {
            errors.push(
                value.forbidden(format!("maximum allowed value of a user defined priority is {USER_PRIORITY_MAX}")),
            );
        }
        let policy = object.get("preemptionPolicy");
        if policy.is_set() {
            policy.one_of(&["PreemptLowerPriority", "Never"], errors);
        }
    }

    fn validate_update(&self, _: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        if new.get("value").int() != old.get("value").int() {
            errors.push(new.get("value").forbidden("may not be changed in an update."));
        }
        new.get("preemptionPolicy").immutable(&old.get("preemptionPolicy"), errors);
    }
}
