//! PodDisruptionBudgets.
use super::apps::positive_int_or_percent;
use super::built_in::Behavior;
use super::field::{Errors, Field};
use super::{Subresource, conditions, labels, names};

/// `policy/v1` PodDisruptionBudget.
pub struct PodDisruptionBudget;

impl Behavior for PodDisruptionBudget {
    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let spec = object.get("spec");
        let (available, unavailable) = (spec.get("minAvailable"), spec.get("maxUnavailable"));
        if available.is_set() && unavailable.is_set() {
            let selector = spec.get("selector").set().map_or("null".to_owned(), |field| labels::shown(field.value()));
            let shown = format!(
                r#"{{"MinAvailable":{},"Selector":{selector},"MaxUnavailable":{},"UnhealthyPodEvictionPolicy":{}}}"#,
                available.value(),
                unavailable.value(),
                spec.get("unhealthyPodEvictionPolicy").value()
            );
            errors.push(spec.invalid("minAvailable and maxUnavailable cannot be both set").showing(shown));
        }
        for amount in [&available, &unavailable] {
            positive_int_or_percent(amount, errors);
            if names::percent_value(amount.str()).is_some_and(|share| share > 100) {
                errors.push(amount.invalid("must not be greater than 100%"));
            }
        }
        labels::validate_selector(&spec.get("selector"), errors);
        let policy = spec.get("unhealthyPodEvictionPolicy");
        if policy.is_set() && !["AlwaysAllow", "IfHealthyBudget"].contains(&policy.str()) {
            errors.push(policy.not_supported(&["AlwaysAllow", "IfHealthyBudget"]));
        }
    }

    fn validate_update(&self, subresource: Subresource, new: &Field<'_>, _: &Field<'_>, errors: &mut Errors) {
        if subresource == Subresource::Status {
            conditions::validate(&new.get("status").get("conditions"), errors);
            for name in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
                new.get("status").get(name).non_negative(errors);
            }
        } else {
            self.validate(new, errors);
        }
    }
}
