//! HorizontalPodAutoscalers. Two served versions, stored as v2.
use serde_json::{Value, json};

use super::built_in::Behavior;
use super::field::{Errors, Field};
use super::{Subresource, edit, labels, names};
use crate::quantity::Quantity;

const STABILIZATION_SECONDS_MAX: i64 = 3600;
const PERIOD_SECONDS_MAX: i64 = 1800;

/// `autoscaling/v1`: it gets defaults of its own, then takes v2's path.
pub struct HorizontalPodAutoscalerV1;

impl Behavior for HorizontalPodAutoscalerV1 {
    fn set_defaults(&self, object: &mut Value) {
        edit::default(edit::child(object, "spec"), "minReplicas", 1);
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        replicas_and_target(&object.get("spec"), errors);
    }
}

/// `autoscaling/v2` HorizontalPodAutoscaler.
pub struct HorizontalPodAutoscaler;

impl Behavior for HorizontalPodAutoscaler {
    fn set_defaults(&self, object: &mut Value) {
        let spec = edit::child(object, "spec");
        edit::default(spec, "minReplicas", 1);
        if spec["metrics"].as_array().is_none_or(Vec::is_empty) {
            let cpu = json!({"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}});
            edit::set(spec, "metrics", json!([{"type": "Resource", "resource": cpu}]));
        }
        if let Some(behavior) = edit::member(spec, "behavior") {
            let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
            let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
            let up = edit::child(behavior, "scaleUp");
            edit::default(up, "stabilizationWindowSeconds", 0);
            edit::default(up, "selectPolicy", "Max");
            edit::default(up, "policies", json!([pods, percent]));
            let down = edit::child(behavior, "scaleDown");
            edit::default(down, "selectPolicy", "Max");
            edit::default(down, "policies", json!([percent]));
        }
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let spec = object.get("spec");
        replicas_and_target(&spec, errors);
        for metric in spec.get("metrics").items() {
            validate_metric(&metric, errors);
        }
        for direction in ["scaleUp", "scaleDown"] {
            if let Some(rules) = spec.get("behavior").get(direction).set() {
                scaling_rules(&rules, errors);
            }
        }
    }

    fn validate_update(&self, subresource: Subresource, new: &Field<'_>, _: &Field<'_>, errors: &mut Errors) {
        if subresource == Subresource::Status {
            for name in ["currentReplicas", "desiredReplicas"] {
                new.get("status").get(name).non_negative(errors);
            }
        } else {
            self.validate(new, errors);
        }
    }
}

fn replicas_and_target(spec: &Field<'_>, errors: &mut Errors) {
    let (low, high) = (spec.get("minReplicas"), spec.get("maxReplicas"));
    if low.int().is_some_and(|number| number < 1) {
        errors.push(low.invalid("must be greater than or equal to 1"));
    }
    let most = high.int().unwrap_or(0);
    if most < 1 {
        errors.push(high.invalid_as(most, "must be greater than 0"));
    }
    if low.int().is_some_and(|number| most < number) {
        errors.push(high.invalid_as(most, "must be greater than or equal to `minReplicas`"));
    }
    let target = spec.get("scaleTargetRef");
    for name in ["kind", "name"] {
        let field = target.get(name);
        if field.is_empty() {
            errors.push(field.required(""));
        } else {
            field.check(names::path_segment(field.str()), errors);
        }
    }
    let version = target.get("apiVersion");
    let grouped = version.str().split_once('/').is_some_and(|(group, _)| !group.is_empty());
    if !grouped && target.get("kind").str() != "ReplicationController" {
        errors.push(version.invalid("apiVersion must specify API group"));
    }
}

/// A metric says its type and carries exactly the member of that name.
fn validate_metric(metric: &Field<'_>, errors: &mut Errors) {
    const SOURCES: [(&str, &str); 5] = [
        ("Object", "object"),
        ("Pods", "pods"),
        ("Resource", "resource"),
        ("ContainerResource", "containerResource"),
        ("External", "external"),
    ];
    let kind = metric.get("type");
    if kind.is_empty() {
        errors.push(kind.required("must specify a metric source type"));
        return;
    }
    let Some((_, wanted)) = SOURCES.iter().find(|(name, _)| *name == kind.str()) else {
        errors.push(kind.not_supported(&["ContainerResource", "External", "Object", "Pods", "Resource"]));
        return;
    };
    for (_, member) in SOURCES {
        let source = metric.get(member);
        if member == *wanted && !source.is_set() {
            errors.push(source.required("must populate information for the given metric source"));
        } else if member != *wanted && source.is_set() {
            errors.push(source.forbidden("must populate the given metric source only"));
        } else if source.is_set() {
            metric_source(&source, member, errors);
        }
    }
}

fn metric_source(source: &Field<'_>, kind: &str, errors: &mut Errors) {
    if kind == "containerResource" && source.get("container").is_empty() {
        errors.push(source.get("container").required("must specify a container"));
    }
    if matches!(kind, "resource" | "containerResource") {
        if source.get("name").is_empty() {
            errors.push(source.get("name").required("must specify a resource name"));
        }
    } else {
        let name = source.get("metric").get("name");
        if name.is_empty() {
            errors.push(name.required("must specify a metric name"));
        } else {
            name.check(names::path_segment(name.str()), errors);
        }
        labels::validate_selector(&source.get("metric").get("selector"), errors);
    }
    metric_target(&source.get("target"), errors);
}

fn metric_target(target: &Field<'_>, errors: &mut Errors) {
    let kind = target.get("type");
    if kind.is_empty() {
        errors.push(kind.required("must specify a metric target type"));
    } else if !["Utilization", "Value", "AverageValue"].contains(&kind.str()) {
        errors.push(kind.invalid("must be either Utilization, Value, or AverageValue"));
    }
    for name in ["value", "averageValue"] {
        let amount = target.get(name);
        if amount.quantity().is_some_and(|amount| amount <= Quantity::ZERO) {
            errors.push(amount.invalid("must be positive"));
        }
    }
    let share = target.get("averageUtilization");
    if share.int().is_some_and(|share| share < 1) {
        errors.push(share.invalid("must be greater than 0"));
    }
    let given = ["value", "averageValue", "averageUtilization"].iter().filter(|name| target.get(name).is_set()).count();
    match given {
        0 => errors.push(
            target.get("averageUtilization").required("must set either a target raw value or a target utilization"),
        ),
        1 => {}
        _ => errors
            .push(target.get("averageValue").forbidden("may not set both a target raw value and a target utilization")),
    }
}

fn scaling_rules(rules: &Field<'_>, errors: &mut Errors) {
    let window = rules.get("stabilizationWindowSeconds");
    if let Some(seconds) = window.int() {
        window.non_negative(errors);
        if seconds > STABILIZATION_SECONDS_MAX {
            errors.push(window.invalid(format!("must be less than or equal to {STABILIZATION_SECONDS_MAX}")));
        }
    }
    let select = rules.get("selectPolicy");
    if select.is_set() && !["Disabled", "Max", "Min"].contains(&select.str()) {
        errors.push(select.not_supported(&["Disabled", "Max", "Min"]));
    }
    let policies = rules.get("policies");
    if policies.is_empty() {
        errors.push(policies.required("must specify at least one Policy"));
    }
    for policy in policies.items() {
        policy.get("type").one_of(&["Percent", "Pods"], errors);
        let (value, period) = (policy.get("value"), policy.get("periodSeconds"));
        if value.int().unwrap_or(0) <= 0 {
            errors.push(value.invalid_as(value.int().unwrap_or(0), "must be greater than zero"));
        }
        let seconds = period.int().unwrap_or(0);
        if seconds <= 0 {
            errors.push(period.invalid_as(seconds, "must be greater than zero"));
        } else if seconds > PERIOD_SECONDS_MAX {
            errors.push(period.invalid(format!("must be less than or equal to {PERIOD_SECONDS_MAX}")));
        }
    }
}
