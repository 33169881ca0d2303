//! HorizontalPodAutoscalers. Two served versions, stored as v2.
use serde_json::{Value, json};

use super::built_in::Behavior;
use super::field::{Errors, Field};
use super::{Subresource, edit, names, pod};
use crate::quantity::Quantity;

const STABILIZATION_SECONDS_MAX: i64 = 3600;
const PERIOD_SECONDS_MAX: i64 = 1800;

/// `autoscaling/v1`: it gets defaults of its own, then takes v2's path.
pub struct HorizontalPodAutoscalerV1;

impl Behavior for HorizontalPodAutoscalerV1 {
    fn set_defaults(&self, object: &mut Value) {
        let spec = edit::child(object, "spec");
        edit::default(spec, "minReplicas", 1);
        edit::default(spec, "targetCPUUtilizationPercentage", 80);
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
        let metrics = spec.get("metrics");
        metrics.items().for_each(|metric| validate_metric(&metric, errors));
        let outside = metrics.items().any(|metric| matches!(metric.get("type").str(), "Object" | "External"));
        if spec.get("minReplicas").int() == Some(0) && !outside {
            errors.push(
                metrics.forbidden(
                    "must specify at least one Object or External metric to support scaling to zero replicas",
                ),
            );
        }
        for direction in ["scaleUp", "scaleDown"] {
            if let Some(rules) = spec.get("behavior").get(direction).set() {
                scaling_rules(&rules, errors);
            }
        }
    }

    fn validate_update(&self, subresource: Subresource, new: &Field<'_>, _: &Field<'_>, errors: &mut Errors) {
        if subresource == Subresource::Status {
            for condition in new.get("status").get("conditions").items() {
                condition.get("observedGeneration").non_negative(errors);
            }
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
    low.non_negative(errors);
    let most = high.int().unwrap_or(0);
    match most {
        0 => errors.push(high.required("")),
        number if number < 0 => errors.push(high.invalid("must be greater than or equal to 1")),
        _ => {}
    }
    if low.int().is_some_and(|number| most < number) {
        errors.push(high.invalid_as(most, "must be greater than or equal to `minReplicas`"));
    }
    object_reference(&spec.get("scaleTargetRef"), false, errors);
}

/// An object that is scaled or measured; `core` says whether it may be of the group without a name.
fn object_reference(target: &Field<'_>, core: bool, errors: &mut Errors) {
    for name in ["kind", "name"] {
        let field = target.get(name);
        if field.is_empty() {
            errors.push(field.required(""));
        } else {
            field.check(names::path_segment(field.str()), errors);
        }
    }
    let version = target.get("apiVersion");
    if version.str().matches('/').count() > 1 {
        errors.push(version.invalid(format!("unexpected GroupVersion string: {}", version.str())));
        return;
    }
    let grouped = version.str().split_once('/').is_some_and(|(group, _)| !group.is_empty());
    if !grouped && !core && target.get("kind").str() != "ReplicationController" {
        errors.push(version.invalid("apiVersion must specify API group"));
    }
}

/// A metric says its type and carries exactly the member of that name.
fn validate_metric(metric: &Field<'_>, errors: &mut Errors) {
    const TYPES: &[&str] = &["ContainerResource", "External", "Object", "Pods", "Resource"];
    const SOURCES: [(&str, &str); 5] = [
        ("Object", "object"),
        ("External", "external"),
        ("Pods", "pods"),
        ("Resource", "resource"),
        ("ContainerResource", "containerResource"),
    ];
    let kind = metric.get("type");
    if kind.is_empty() {
        errors.push(kind.required("must specify a metric source type"));
    }
    if !TYPES.contains(&kind.str()) {
        errors.push(kind.not_supported(TYPES));
    }
    // Only the first source is looked into.
    let given: Vec<&'static str> =
        SOURCES.iter().map(|(_, member)| *member).filter(|member| metric.get(member).is_set()).collect();
    if let Some(first) = given.first() {
        metric_source(&metric.get(first), first, errors);
    }
    let wanted = SOURCES.iter().find(|(name, _)| *name == kind.str()).map(|(_, member)| *member);
    if let Some(wanted) = wanted.filter(|wanted| !given.contains(wanted)) {
        errors.push(metric.get(wanted).required("must populate information for the given metric source"));
    }
    if given.len() != 1 {
        for member in given.into_iter().filter(|member| Some(*member) != wanted) {
            errors.push(metric.get(member).forbidden("must populate the given metric source only"));
        }
    }
}

fn metric_source(source: &Field<'_>, kind: &str, errors: &mut Errors) {
    let target = source.get("target");
    if matches!(kind, "resource" | "containerResource") {
        let (name, container) = (source.get("name"), source.get("container"));
        if name.is_empty() {
            errors.push(name.required("must specify a resource name"));
        } else if kind == "containerResource" {
            pod::resources::validate_container_resource_name(&name, name.str(), errors);
        }
        if kind == "containerResource" && container.is_empty() {
            errors.push(container.required("must specify a container"));
        } else if kind == "containerResource" {
            container.check(names::dns1123_label(container.str()), errors);
        }
    } else {
        if kind == "object" {
            object_reference(&source.get("describedObject"), true, errors);
        }
        let name = source.get("metric").get("name");
        if name.is_empty() {
            errors.push(name.required("must specify a metric name"));
        } else {
            name.check(names::path_segment(name.str()), errors);
        }
    }
    metric_target(&target, errors);
    let given = |name| target.get(name).is_set();
    let (value, average, share) = (given("value"), given("averageValue"), given("averageUtilization"));
    let place = |name| target.get(name);
    match kind {
        "object" if !value && !average => {
            errors.push(place("averageValue").required("must set either a target value or averageValue"));
        }
        "external" if !value && !average => {
            errors.push(place("averageValue").required("must set either a target value for metric or a per-pod target"))
        }
        "external" if value && average => {
            errors.push(place("value").forbidden("may not set both a target value for metric and a per-pod target"))
        }
        "pods" if !average => {
            errors.push(place("averageValue").required("must specify a positive target averageValue"));
        }
        "resource" | "containerResource" if !average && !share => errors
            .push(place("averageUtilization").required("must set either a target raw value or a target utilization")),
        "resource" | "containerResource" if average && share => {
            errors.push(place("averageValue").forbidden("may not set both a target raw value and a target utilization"))
        }
        _ => {}
    }
}

fn metric_target(target: &Field<'_>, errors: &mut Errors) {
    let kind = target.get("type");
    if kind.is_empty() {
        errors.push(kind.required("must specify a metric target type"));
    }
    if !["Utilization", "Value", "AverageValue"].contains(&kind.str()) {
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
}

fn scaling_rules(rules: &Field<'_>, errors: &mut Errors) {
    let window = rules.get("stabilizationWindowSeconds");
    if let Some(seconds) = window.int() {
        if seconds < 0 {
            errors.push(window.invalid("must be greater than or equal to zero"));
        }
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
        let kind = policy.get("type");
        if !["Percent", "Pods"].contains(&kind.str()) {
            errors.push(kind.not_supported(&["Percent", "Pods"]));
        }
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
    let tolerance = rules.get("tolerance");
    if tolerance.quantity().is_some_and(|amount| amount < Quantity::ZERO) {
        errors.push(tolerance.invalid("must be greater than or equal to 0"));
    }
}
