//! LimitRanges and ResourceQuotas.
use serde_json::Value;

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
        let mut seen: Vec<&str> = Vec::new();
        for item in object.get("spec").get("limits").items() {
            let kind = item.get("type");
            if kind.is_empty() {
                errors.push(kind.required(""));
            } else {
                kind.check(names::qualified_name(kind.str()), errors);
            }
            if seen.contains(&kind.str()) {
                errors.push(kind.duplicate());
            }
            seen.push(kind.str());
            limit_item(&item, errors);
        }
    }
}

fn limit_item(item: &Field<'_>, errors: &mut Errors) {
    let lists = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];
    let mut keys: Vec<&str> = Vec::new();
    for list in lists {
        for (name, amount) in item.get(list).entries() {
            resources::validate_name(&amount, name, errors);
            if !keys.contains(&name) {
                keys.push(name);
            }
        }
    }
    if item.get("type").str() == "Pod" {
        for list in ["default", "defaultRequest"] {
            if !item.get(list).is_empty() {
                errors.push(item.get(list).forbidden("may not be specified when `type` is 'Pod'"));
            }
        }
    }
    if item.get("type").str() == "PersistentVolumeClaim" && item.get("min").is_empty() && item.get("max").is_empty() {
        errors.push(
            item.get("limits")
                .required("either minimum or maximum storage value is required, but neither was provided"),
        );
    }
    for key in keys {
        ordered(item, key, errors);
    }
}

/// min ≤ defaultRequest ≤ default ≤ max, where given.
fn ordered(item: &Field<'_>, key: &str, errors: &mut Errors) {
    let words = [("min", "min"), ("max", "max"), ("defaultRequest", "default request"), ("default", "default")];
    let word = |list: &str| words.iter().find(|(name, _)| *name == list).map_or("", |(_, word)| *word);
    for (low, high) in [
        ("min", "max"),
        ("min", "defaultRequest"),
        ("defaultRequest", "max"),
        ("defaultRequest", "default"),
        ("min", "default"),
        ("default", "max"),
    ] {
        let (small, large) = (item.get(low).key(key), item.get(high).key(key));
        let (Some(a), Some(b)) = (small.quantity(), large.quantity()) else {
            continue;
        };
        if a > b {
            let at = if low == "min" && high != "max" { &large } else { &small };
            errors.push(at.invalid(format!(
                "{} value {} is greater than {} value {}",
                word(low),
                small.str(),
                word(high),
                large.str()
            )));
        }
    }
    let ratio = item.get("maxLimitRequestRatio").key(key);
    if ratio.quantity().is_some_and(|amount| amount.milli_value() < 1000) {
        errors.push(ratio.invalid(format!("ratio {} is less than 1", ratio.str())));
    }
}

/// `v1` ResourceQuota.
pub struct ResourceQuota;

impl Behavior for ResourceQuota {
    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let spec = object.get("spec");
        for (name, amount) in spec.get("hard").entries() {
            resources::validate_name(&amount, name, errors);
            resources::validate_quantity(&amount, name, errors);
        }
        scopes(&spec, errors);
    }

    fn validate_update(&self, subresource: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        if subresource == Subresource::Status {
            for list in ["hard", "used"] {
                for (name, amount) in new.get("status").get(list).entries() {
                    resources::validate_name(&amount, name, errors);
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

fn scopes(spec: &Field<'_>, errors: &mut Errors) {
    let scopes = spec.get("scopes");
    let names: Vec<&str> = scopes.items().map(|scope| scope.str()).collect();
    for scope in scopes.items().filter(|scope| !SCOPES.contains(&scope.str())) {
        errors.push(scopes.with(scope.value()).invalid("unsupported scope"));
    }
    for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
        if pair.iter().all(|name| names.contains(name)) {
            errors.push(scopes.invalid("conflicting scopes"));
        }
    }
    for requirement in spec.get("scopeSelector").get("matchExpressions").items() {
        let (name, operator, values) =
            (requirement.get("scopeName"), requirement.get("operator"), requirement.get("values"));
        if !SCOPES.contains(&name.str()) {
            errors.push(name.invalid("unsupported scope"));
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
