//! RuntimeClasses.
use std::collections::BTreeSet;

use super::built_in::Behavior;
use super::field::{Errors, Field};
use super::pod::{resources, scheduling};
use super::{Subresource, meta, names};

/// `node.k8s.io/v1` RuntimeClass.
pub struct RuntimeClass;

impl Behavior for RuntimeClass {
    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let handler = object.get("handler");
        if handler.is_empty() {
            errors.push(handler.required(""));
        } else {
            handler.check(names::dns1123_label(handler.str()), errors);
        }
        // Kubernetes looks at an overhead as at a container's limits, and says so.
        let fixed = object.get("overhead").get("podFixed");
        for (name, quantity) in object.get("overhead").get("limits").with(fixed.value()).entries() {
            resources::validate_name(&quantity, name, errors);
            resources::validate_quantity(&quantity, name, errors);
        }
        let scheduling = object.get("scheduling");
        meta::labels(&scheduling.get("nodeSelector"), errors);
        let tolerations = scheduling.get("tolerations");
        scheduling::validate_tolerations(&tolerations, errors);
        let mut seen = BTreeSet::new();
        for toleration in tolerations.items() {
            if !seen.insert(toleration.value().to_string()) {
                errors.push(toleration.with(&scheduling::go_toleration(&toleration)).duplicate());
            }
        }
    }

    fn validate_update(&self, _: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        self.validate(new, errors);
        new.get("handler").immutable(&old.get("handler"), errors);
    }
}
