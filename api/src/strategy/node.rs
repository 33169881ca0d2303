//! RuntimeClasses.
use super::built_in::Behavior;
use super::field::{Errors, Field};
use super::pod::{resources, scheduling};
use super::{Subresource, meta, names};

/// `node.k8s.io/v1` RuntimeClass.
pub struct RuntimeClass;

impl Behavior for RuntimeClass {
    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let handler = object.get("handler");
        handler.check(names::dns1123_label(handler.str()), errors);
        for (name, quantity) in object.get("overhead").get("podFixed").entries() {
            resources::validate_name(&quantity, name, errors);
            resources::validate_quantity(&quantity, name, errors);
        }
        let scheduling = object.get("scheduling");
        meta::labels(&scheduling.get("nodeSelector"), errors);
        scheduling::validate_tolerations(&scheduling.get("tolerations"), errors);
    }

    fn validate_update(&self, _: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        new.get("handler").immutable(&old.get("handler"), errors);
    }
}
