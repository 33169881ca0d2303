//! Where a pod may run: affinity, tolerations, topology spread, node selectors.
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::strategy::field::{Errors, Field};
use crate::strategy::{labels, meta, names};

/// What is wrong with a pod's `affinity`.
pub fn validate_affinity(affinity: &Field<'_>, errors: &mut Errors) {
    if let Some(node) = affinity.get("nodeAffinity").set() {
        if let Some(required) = node.get("requiredDuringSchedulingIgnoredDuringExecution").set() {
            validate_node_selector(&required, errors);
        }
        for term in node.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
            weight(&term, errors);
            validate_node_selector_term(&term.get("preference"), false, errors);
        }
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let affinity = affinity.get(kind);
        for term in affinity.get("requiredDuringSchedulingIgnoredDuringExecution").items() {
            validate_pod_affinity_term(&term, errors);
        }
        for term in affinity.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
            weight(&term, errors);
            validate_pod_affinity_term(&term.get("podAffinityTerm"), errors);
        }
    }
}

fn weight(term: &Field<'_>, errors: &mut Errors) {
    let weight = term.get("weight");
    if !(1..=100).contains(&weight.int().unwrap_or(0)) {
        errors.push(weight.invalid_as(weight.int().unwrap_or(0), "must be in the range 1-100"));
    }
}

/// A NodeSelector, as node affinity and persistent volumes have it.
pub fn validate_node_selector(selector: &Field<'_>, errors: &mut Errors) {
    let terms = selector.get("nodeSelectorTerms");
    if terms.is_empty() {
        errors.push(terms.required("must have at least one node selector term"));
    }
    terms.items().for_each(|term| validate_node_selector_term(&term, true, errors));
}

/// One term. A preference may name values that no label has: it is warned of and never met.
fn validate_node_selector_term(term: &Field<'_>, required: bool, errors: &mut Errors) {
    for requirement in term.get("matchExpressions").items() {
        let (operator, values) = (requirement.get("operator"), requirement.get("values"));
        match operator.str() {
            "In" | "NotIn" if values.is_empty() => {
                errors.push(values.required("must be specified when `operator` is 'In' or 'NotIn'"));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                errors.push(values.forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'"));
            }
            "Gt" | "Lt" if values.len() != 1 => {
                errors.push(values.required("must be specified single value when `operator` is 'Lt' or 'Gt'"));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            _ => errors.push(operator.invalid("not a valid selector operator")),
        }
        let key = requirement.get("key");
        key.check(names::qualified_name(key.str()), errors);
        for value in values.items().filter(|_| required) {
            value.check(names::label_value(value.str()), errors);
        }
    }
    for requirement in term.get("matchFields").items() {
        let (operator, values, key) = (requirement.get("operator"), requirement.get("values"), requirement.get("key"));
        match operator.str() {
            "In" | "NotIn" if values.len() != 1 => errors.push(
                values.required("must be only one value when `operator` is 'In' or 'NotIn' for node field selector"),
            ),
            "In" | "NotIn" => {}
            _ => errors.push(operator.invalid("not a valid selector operator")),
        }
        if key.str() == "metadata.name" {
            values.items().for_each(|value| value.check(names::dns1123_subdomain(value.str()), errors));
        } else {
            errors.push(key.invalid("not a valid field selector key"));
        }
    }
}

fn validate_pod_affinity_term(term: &Field<'_>, errors: &mut Errors) {
    labels::validate_selector(&term.get("labelSelector"), errors);
    labels::validate_selector(&term.get("namespaceSelector"), errors);
    for namespace in term.get("namespaces").items() {
        let at_list = term.shown_as("namespaces", "namespace");
        at_list.with(namespace.value()).check(names::dns1123_label(namespace.str()), errors);
    }
    match_label_keys(term, "matchLabelKeys", errors);
    match_label_keys(term, "mismatchLabelKeys", errors);
    keys_once(term, errors);
    topology_key(&term.get("topologyKey"), errors);
}

fn topology_key(key: &Field<'_>, errors: &mut Errors) {
    if key.is_empty() {
        errors.push(key.required("can not be empty"));
    }
    key.check(names::qualified_name(key.str()), errors);
}

fn match_label_keys(term: &Field<'_>, list: &'static str, errors: &mut Errors) {
    let keys = term.get(list);
    let selector = term.get("labelSelector");
    if !keys.is_empty() && !selector.is_set() {
        errors.push(keys.forbidden("must not be specified when labelSelector is not set"));
        return;
    }
    for key in keys.items() {
        key.check(names::qualified_name(key.str()), errors);
    }
}

/// A key of `matchLabelKeys` is in the selector by now, where preparation has put it; it may not be there a second
/// time, nor among the keys that must not match.
fn keys_once(term: &Field<'_>, errors: &mut Errors) {
    let (keys, selector) = (term.get("matchLabelKeys"), term.get("labelSelector"));
    let mut seen: BTreeSet<&str> = selector.get("matchLabels").entries().map(|(key, _)| key).collect();
    let listed: BTreeMap<&str, usize> = keys.items().enumerate().map(|(index, key)| (key.str(), index)).collect();
    for key in selector.get("matchExpressions").items().map(|expression| expression.get("key").str()) {
        if !seen.insert(key)
            && let Some(&index) = listed.get(key)
        {
            errors.push(term.element(index).invalid_as(key, "exists in both matchLabelKeys and labelSelector"));
        }
    }
    let others: BTreeSet<&str> = term.get("mismatchLabelKeys").items().map(|key| key.str()).collect();
    for key in keys.items().filter(|key| others.contains(key.str())) {
        errors.push(key.invalid("exists in both matchLabelKeys and mismatchLabelKeys"));
    }
}

/// Adds what `matchLabelKeys` and `mismatchLabelKeys` mean for this pod's labels to the selectors that use them.
/// Mirrors `pkg/registry/core/pod/strategy.go` `mutatePodAffinity` and `mutateTopologySpreadConstraints`.
pub fn merge_label_keys(pod: &mut Value) {
    let labels = pod["metadata"]["labels"].clone();
    let Some(spec) = pod.get_mut("spec") else {
        return;
    };
    for kind in ["podAffinity", "podAntiAffinity"] {
        for (list, inner) in [
            ("requiredDuringSchedulingIgnoredDuringExecution", None),
            ("preferredDuringSchedulingIgnoredDuringExecution", Some("podAffinityTerm")),
        ] {
            let pointer = format!("/affinity/{kind}/{list}");
            for term in spec.pointer_mut(&pointer).and_then(Value::as_array_mut).into_iter().flatten() {
                let term = match inner {
                    Some(name) => &mut term[name],
                    None => term,
                };
                add_requirements(term, "matchLabelKeys", "In", &labels);
                add_requirements(term, "mismatchLabelKeys", "NotIn", &labels);
            }
        }
    }
    for constraint in spec.get_mut("topologySpreadConstraints").and_then(Value::as_array_mut).into_iter().flatten() {
        add_requirements(constraint, "matchLabelKeys", "In", &labels);
    }
}

fn add_requirements(term: &mut Value, keys: &str, operator: &str, labels: &Value) {
    let keys: Vec<String> =
        term[keys].as_array().into_iter().flatten().filter_map(|key| key.as_str().map(str::to_owned)).collect();
    if !term["labelSelector"].is_object() {
        return;
    }
    for key in keys {
        let Some(value) = labels.get(&key) else {
            continue;
        };
        let requirement = serde_json::json!({"key": key, "operator": operator, "values": [value]});
        let expressions = &mut term["labelSelector"]["matchExpressions"];
        match expressions {
            Value::Array(list) => list.push(requirement),
            _ => *expressions = Value::Array(vec![requirement]),
        }
    }
}

/// A toleration as Kubernetes' internal type holds it.
pub fn go_toleration(toleration: &Field<'_>) -> Value {
    let text = |name| toleration.get(name).str();
    json!({
        "Key": text("key"), "Operator": text("operator"), "Value": text("value"), "Effect": text("effect"),
        "TolerationSeconds": toleration.get("tolerationSeconds").value(),
    })
}

/// What is wrong with a list of tolerations.
pub fn validate_tolerations(tolerations: &Field<'_>, errors: &mut Errors) {
    for toleration in tolerations.items() {
        let (key, operator, effect) = (toleration.get("key"), toleration.get("operator"), toleration.get("effect"));
        let value = toleration.get("value");
        if !key.is_empty() {
            key.check(names::qualified_name(key.str()), errors);
        } else if operator.str() != "Exists" {
            errors.push(
                operator.invalid(
                    "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
                ),
            );
        }
        if toleration.get("tolerationSeconds").is_set() && effect.str() != "NoExecute" {
            errors.push(effect.invalid("effect must be 'NoExecute' when `tolerationSeconds` is set"));
        }
        match operator.str() {
            "" | "Equal" => {
                let complaints = names::label_value(value.str());
                if !complaints.is_empty() {
                    errors.push(operator.invalid_as(value.str(), complaints.join(";")));
                }
            }
            "Exists" => {
                if !value.is_empty() {
                    errors.push(
                        operator
                            .invalid_as(toleration.value().clone(), "value must be empty when `operator` is 'Exists'"),
                    );
                }
            }
            "Lt" | "Gt" => {
                if value.str().parse::<i64>().is_err() {
                    errors.push(value.invalid("value must be an integer when `operator` is 'Lt' or 'Gt'"));
                }
            }
            _ => errors.push(operator.not_supported(&["Equal", "Exists", "Lt", "Gt"])),
        }
        if !effect.is_empty() {
            taint_effect(&effect, errors);
        }
    }
}

/// The effect of a taint or toleration.
pub fn taint_effect(effect: &Field<'_>, errors: &mut Errors) {
    if effect.is_empty() {
        errors.push(effect.required(""));
    } else if !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect.str()) {
        errors.push(effect.not_supported(&["NoSchedule", "PreferNoSchedule", "NoExecute"]));
    }
}

/// What is wrong with `topologySpreadConstraints`.
pub fn validate_topology_spread(constraints: &Field<'_>, errors: &mut Errors) {
    let pair = |constraint: &Field<'_>| {
        format!("{{{}, {}}}", constraint.get("topologyKey").str(), constraint.get("whenUnsatisfiable").str())
    };
    let mut left: BTreeMap<String, usize> = BTreeMap::new();
    for constraint in constraints.items() {
        *left.entry(pair(&constraint)).or_default() += 1;
    }
    for constraint in constraints.items() {
        let skew = constraint.get("maxSkew");
        if skew.int().unwrap_or(0) <= 0 {
            errors.push(skew.invalid_as(skew.int().unwrap_or(0), "must be greater than zero"));
        }
        if constraint.get("topologyKey").is_empty() {
            errors.push(constraint.get("topologyKey").required("can not be empty"));
        }
        let when = constraint.get("whenUnsatisfiable");
        if !["DoNotSchedule", "ScheduleAnyway"].contains(&when.str()) {
            errors.push(when.not_supported(&["DoNotSchedule", "ScheduleAnyway"]));
        }
        // Each but the last of its sort is told.
        if let Some(more) = left.get_mut(&pair(&constraint)) {
            *more -= 1;
            if *more > 0 {
                errors.push(constraint.get("{topologyKey, whenUnsatisfiable}").duplicate_as(pair(&constraint)));
            }
        }
        min_domains(&constraint, errors);
        for name in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            let policy = constraint.get(name);
            if policy.is_set() && !["Honor", "Ignore"].contains(&policy.str()) {
                errors.push(policy.not_supported(&["Honor", "Ignore"]));
            }
        }
        match_label_keys(&constraint, "matchLabelKeys", errors);
        keys_once(&constraint, errors);
        labels::validate_selector(&constraint.get("labelSelector"), errors);
    }
}

fn min_domains(constraint: &Field<'_>, errors: &mut Errors) {
    let domains = constraint.get("minDomains");
    let Some(number) = domains.int() else { return };
    if number <= 0 {
        errors.push(domains.invalid("must be greater than 0"));
    }
    let when = constraint.get("whenUnsatisfiable").str();
    if when != "DoNotSchedule" {
        errors.push(domains.invalid(format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when}")));
    }
}

/// A pod's `nodeSelector`: plain labels.
pub fn validate_node_labels(selector: &Field<'_>, errors: &mut Errors) {
    meta::labels(selector, errors);
}
