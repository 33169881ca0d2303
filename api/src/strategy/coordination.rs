//! Leases.
use super::built_in::Behavior;
use super::field::{Errors, Field};

/// `coordination.k8s.io/v1` Lease.
pub struct Lease;

impl Behavior for Lease {
    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let spec = object.get("spec");
        spec.get("leaseDurationSeconds").positive(errors);
        spec.get("leaseTransitions").non_negative(errors);
        let (strategy, preferred) = (spec.get("strategy"), spec.get("preferredHolder"));
        if strategy.is_set() && !strategy.str().contains('/') && strategy.str() != "OldestEmulationVersion" {
            errors.push(strategy.not_supported(&["OldestEmulationVersion"]));
        }
        if !preferred.is_empty() && strategy.is_empty() {
            errors.push(preferred.forbidden("may only be specified if `strategy` is defined"));
        }
    }
}
