//! LimitRanges and ResourceQuotas.
use std::collections::BTreeSet;

use serde_json::Value;

use crate::quantity::Quantity;
use crate::strategy::built_in::Behavior;
use crate::strategy::field::{Errors, Field};
use crate::strategy::{Subresource, edit, names, pod::resources};

const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

/// Scopes that a pod is in or not: they take no values.
const EXISTING_SCOPES: &[&str] =
    &["BestEffort", "CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating", "Terminating"];
/// What limits can be of, without a domain.
const LIMIT_TYPES: &[&str] = &["Container", "PersistentVolumeClaim", "Pod"];

/// `v1` LimitRange.
pub struct LimitRange;

impl Behavior for LimitRange {
    /// For containers, the limit defaults to the maximum, the request to the limit, else to the minimum.
    fn set_defaults(&self, object: &mut Value) {
        for item in edit::each(edit::child(object, "spec"), "limits") {
            if edit::text(item, "type") != "Container" {
                continue;
            }
            for (target, sources) in [("default", &["max"][..]), ("defaultRequest", &["default", "min"][..])] {
                for source in sources {
                    let Some(Value::Object(amounts)) = item.get(source).cloned() else {
                        continue;
                    };
                    for (name, amount) in amounts {
                        edit::default(edit::child(item, target), &name, amount);
                    }
                }
            }
        }
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let mut seen = BTreeSet::new();
        for item in object.get("spec").get("limits").items() {
            let kind = item.get("type");
            let complaints = names::qualified_name(kind.str());
            if complaints.is_empty() && !kind.str().contains('/') && !LIMIT_TYPES.contains(&kind.str()) {
                errors.push(kind.invalid("must be a standard limit type or fully qualified"));
            }
            kind.check(complaints, errors);
            if !seen.insert(kind.str()) {
                errors.push(kind.duplicate());
            }
            limit_item(&item, errors);
        }
    }
}

fn limit_item(item: &Field<'_>, errors: &mut Errors) {
    let kind = item.get("type").str();
    let mut keys = Vec::new();
    let mut known = BTreeSet::new();
    for list in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        if kind == "Pod" && list.starts_with("default") {
            if !item.get(list).is_empty() {
                errors.push(item.get(list).forbidden("may not be specified when `type` is 'Pod'"));
            }
            continue;
        }
        for (name, amount) in item.get(list).entries() {
            if matches!(kind, "Container" | "Pod") {
                resources::validate_container_resource_name(&amount, name, errors);
            } else {
                resources::validate_name(&amount, name, errors);
            }
            if known.insert(name) {
                keys.push(name);
            }
        }
    }
    let bounded = ["min", "max"].into_iter().any(|list| item.get(list).key("storage").is_set());
    if kind == "PersistentVolumeClaim" && !bounded {
        errors.push(
            item.get("limits")
                .required("either minimum or maximum storage value is required, but neither was provided"),
        );
    }
    for key in keys {
        ordered(item, key, errors);
    }
}

/// min ≤ defaultRequest ≤ default ≤ max, where given: which two, how they are called, which of them the error is about
/// and which one it shows.
const ORDERS: &[(&str, &str, &str, &str, &str, &str)] = &[
    ("min", "max", "min", "max", "min", "min"),
    ("min", "defaultRequest", "min", "default request", "defaultRequest", "defaultRequest"),
    ("defaultRequest", "max", "default request", "max", "defaultRequest", "defaultRequest"),
    ("defaultRequest", "default", "default request", "default limit", "defaultRequest", "defaultRequest"),
    ("min", "default", "min", "default", "default", "min"),
    ("default", "max", "default", "max", "default", "max"),
];

fn ordered(item: &Field<'_>, key: &str, errors: &mut Errors) {
    let amount = |list: &str| match (item.get("type").str(), list) {
        ("Pod", "default" | "defaultRequest") => None,
        _ => item.value().get(list).and_then(|amounts| Quantity::from_value(&amounts[key]).ok()),
    };
    for (low, high, low_word, high_word, at, shown) in ORDERS {
        let (Some(small), Some(large)) = (amount(low), amount(high)) else {
            continue;
        };
        if small > large {
            let shown = if shown == low { small } else { large };
            let detail = format!("{low_word} value {small} is greater than {high_word} value {large}");
            errors.push(item.get(at).key(key).invalid_as(shown.to_string(), detail));
        }
    }
    let ratio = item.get("maxLimitRequestRatio").key(key);
    if let Some(most) = ratio.quantity() {
        if most.milli_value() < 1000 {
            errors.push(ratio.invalid(format!("ratio {most} is less than 1")));
        }
        if let (Some(low), Some(high)) = (amount("min"), amount("max")) {
            let limit = high.as_f64() / low.as_f64();
            if most.as_f64() > limit {
                errors.push(ratio.invalid(format!("ratio {most} is greater than max/min = {limit:.6}")));
            }
        }
    }
    if let (Some(limit), Some(request)) = (amount("default"), amount("defaultRequest"))
        && !resources::overcommit_allowed(key)
        && limit != request
    {
        let detail = format!("default value {limit} must equal to defaultRequest value {request} in {key}");
        errors.push(item.get("defaultRequest").key(key).invalid_as(request.to_string(), detail));
    }
}

/// `v1` ResourceQuota.
pub struct ResourceQuota;

impl Behavior for ResourceQuota {
    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let spec = object.get("spec");
        for (name, amount) in spec.get("hard").entries() {
            quota_name(&amount, name, errors);
            resources::validate_quantity(&amount, name, errors);
        }
        scopes(&spec, errors);
    }

    fn validate_update(&self, subresource: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        if subresource == Subresource::Status {
            for list in ["hard", "used"] {
                for (name, amount) in new.get("status").get(list).entries() {
                    quota_name(&amount, name, errors);
                    resources::validate_quantity(&amount, name, errors);
                }
            }
            return;
        }
        self.validate(new, errors);
        let (scopes, before) = (new.get("spec").get("scopes"), old.get("spec").get("scopes"));
        let sorted = |list: &Field<'_>| {
            let mut names: Vec<String> = list.items().map(|scope| scope.str().to_owned()).collect();
            names.sort_unstable();
            names
        };
        if sorted(&scopes) != sorted(&before) {
            errors.push(scopes.invalid_as(scopes.value().clone(), "field is immutable"));
        }
    }
}

fn quota_name(at: &Field<'_>, name: &str, errors: &mut Errors) {
    resources::validate_name(at, name, errors);
    if !name.contains('/') && !resources::is_standard(name) {
        errors.push(at.invalid_as(name, "must be a standard resource for quota"));
    }
}

/// Whether all that the quota limits can be counted within a scope (`IsResourceQuotaScopeValidForResource`).
fn counts_all(spec: &Field<'_>, scope: &str) -> bool {
    const COMPUTE: [&str; 7] =
        ["pods", "cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];
    let counted: &[&str] = match scope {
        "Terminating" | "NotTerminating" | "NotBestEffort" | "PriorityClass" | "CrossNamespacePodAffinity" => &COMPUTE,
        "BestEffort" => &COMPUTE[..1],
        "VolumeAttributesClass" => &["persistentvolumeclaims", "requests.storage"],
        _ => return true,
    };
    let hard = spec.get("hard");
    let names = hard.value().as_object().into_iter().flat_map(|map| map.keys());
    names.filter(|name| resources::is_standard(name)).all(|name| counted.contains(&name.as_str()))
}

fn scopes(spec: &Field<'_>, errors: &mut Errors) {
    let scopes = spec.get("scopes");
    let names: Vec<&str> = scopes.items().map(|scope| scope.str()).collect();
    // Each shows the whole list: as often as there are scopes is often enough.
    for _ in scopes.items().filter(|scope| !SCOPES.contains(&scope.str())).take(SCOPES.len()) {
        errors.push(scopes.invalid("unsupported scope"));
    }
    if names.iter().any(|scope| !counts_all(spec, scope)) {
        errors.push(scopes.invalid("unsupported scope applied to resource"));
    }
    for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
        if pair.iter().all(|name| names.contains(name)) {
            errors.push(scopes.invalid("conflicting scopes"));
        }
    }
    // Reported at the list: the path names no element.
    let list = spec.get("scopeSelector").get("matchExpressions");
    for requirement in list.items().map(|requirement| list.with(requirement.value())) {
        let (name, operator, values) =
            (requirement.get("scopeName"), requirement.get("operator"), requirement.get("values"));
        if !SCOPES.contains(&name.str()) {
            errors.push(name.invalid("unsupported scope"));
        }
        if !counts_all(spec, name.str()) {
            let selector = spec.get("scopeSelector");
            errors.push(list.invalid_as(selector.value().clone(), "unsupported scope applied to resource"));
        }
        if EXISTING_SCOPES.contains(&name.str()) && operator.str() != "Exists" {
            errors.push(operator.invalid(
                "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity",
            ));
        }
        match operator.str() {
            "In" | "NotIn" if values.is_empty() => {
                errors.push(
                    values.required("must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"),
                );
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                errors.push(
                    values.invalid("must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"),
                );
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.push(operator.invalid("not a valid selector operator")),
        }
    }
}
