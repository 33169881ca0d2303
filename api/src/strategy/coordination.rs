//! Leases.
use serde_json::Value;

use super::built_in::Behavior;
use super::field::{Errors, Field};
use super::{Context, Subresource, edit};

/// `coordination.k8s.io/v1` Lease.
pub struct Lease;

impl Behavior for Lease {
    fn prepare_for_create(&self, _: &Context<'_>, object: &mut Value) {
        drop_coordination(object);
    }

    fn prepare_for_update(&self, _: &Context<'_>, _: Subresource, new: &mut Value, _: &Value) {
        drop_coordination(new);
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let spec = object.get("spec");
        spec.get("leaseDurationSeconds").positive(errors);
        spec.get("leaseTransitions").non_negative(errors);
    }
}

/// Fields of the feature gate CoordinatedLeaderElection, which is off by default.
fn drop_coordination(object: &mut Value) {
    let spec = edit::child(object, "spec");
    edit::take(spec, "strategy");
    edit::take(spec, "preferredHolder");
}
