//! What one object counts for, and which quotas it counts against: pure functions over the object
//! (`pkg/quota/v1/evaluator/core`).

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use minik8s_api::{
    kinds::GroupResource,
    quantity::{Format, Quantity},
};
use serde_json::Value;

use crate::admission::{
    items,
    pod_resources::{self, Resources, pod_total, quantities},
};

/// Group and plural name.
type Place<'a> = (&'a str, &'a str);

/// Resources that a quota may count under their bare name.
const COUNTED_BY_NAME: [&str; 7] =
    ["pods", "services", "persistentvolumeclaims", "configmaps", "secrets", "replicationcontrollers", "resourcequotas"];
/// What containers must say if a quota bounds it.
const MUST_SPECIFY: [&str; 6] = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
const STORAGE_CLASS_SUFFIX: &str = ".storageclass.storage.k8s.io/";

fn count(number: i64) -> Quantity {
    Quantity::new(number, Format::DecimalSi)
}

fn count_name((group, resource): Place<'_>) -> String {
    if group.is_empty() { format!("count/{resource}") } else { format!("count/{resource}.{group}") }
}

/// Whether a resource's objects can be charged under a quota's resource name.
fn counts_as(place: Place<'_>, name: &str) -> bool {
    if name == count_name(place) {
        return true;
    }
    match place {
        ("", "pods") => {
            matches!(name, "pods" | "cpu" | "memory" | "ephemeral-storage")
                || name.starts_with("limits.")
                || name.starts_with("hugepages-")
                || (name.starts_with("requests.") && name != "requests.storage")
        }
        ("", "services") => matches!(name, "services" | "services.nodeports" | "services.loadbalancers"),
        ("", "persistentvolumeclaims") => {
            matches!(name, "persistentvolumeclaims" | "requests.storage") || name.contains(STORAGE_CLASS_SUFFIX)
        }
        ("", resource) => resource == name && COUNTED_BY_NAME.contains(&name),
        _ => false,
    }
}

/// Of a quota's resource names those that a resource's objects are charged under.
pub(super) fn matching<'n>(place: Place<'_>, names: impl Iterator<Item = &'n String>) -> BTreeSet<&'n str> {
    names.map(String::as_str).filter(|name| counts_as(place, name)).collect()
}

/// The resources whose objects have to be counted for these names.
pub(super) fn resources_of<'n>(names: impl Iterator<Item = &'n String> + Clone) -> Vec<GroupResource> {
    let mut found: Vec<GroupResource> = COUNTED_BY_NAME
        .into_iter()
        .filter(|resource| names.clone().any(|name| counts_as(("", resource), name)))
        .map(|resource| GroupResource::new("", resource))
        .collect();
    for name in names.filter_map(|name| name.strip_prefix("count/")) {
        let (resource, group) = name.split_once('.').unwrap_or((name, ""));
        let resource = GroupResource::new(group, resource);
        if !found.contains(&resource) {
            found.push(resource);
        }
    }
    found
}

/// What an object counts for.
pub(super) fn usage(place: Place<'_>, object: &Value, now: Timestamp) -> Resources {
    let mut usage = Resources::new();
    let one = || count(1);
    match place {
        ("", "pods") => return pod_usage(object, now),
        ("", "services") => {
            let ports = object["spec"]["ports"].as_array().map_or(0, Vec::len);
            let ports = i64::try_from(ports).unwrap_or(i64::MAX);
            let (nodeports, balancers) = match object["spec"]["type"].as_str() {
                Some("NodePort") => (ports, 0),
                Some("LoadBalancer") if object["spec"]["allocateLoadBalancerNodePorts"] == false => {
                    let chosen = items(&object["spec"]["ports"])
                        .filter(|port| port["nodePort"].as_i64().unwrap_or_default() != 0)
                        .count();
                    (i64::try_from(chosen).unwrap_or(i64::MAX), 1)
                }
                Some("LoadBalancer") => (ports, 1),
                _ => (0, 0),
            };
            usage.insert("services.nodeports".to_owned(), count(nodeports));
            usage.insert("services.loadbalancers".to_owned(), count(balancers));
        }
        ("", "persistentvolumeclaims") => {
            let class = object["spec"]["storageClassName"].as_str().unwrap_or_default();
            if !class.is_empty() {
                usage.insert(format!("{class}{STORAGE_CLASS_SUFFIX}persistentvolumeclaims"), one());
            }
            if let Some(storage) = quantities(&object["spec"]["resources"]["requests"]).remove("storage") {
                if !class.is_empty() {
                    usage.insert(format!("{class}{STORAGE_CLASS_SUFFIX}requests.storage"), storage);
                }
                usage.insert("requests.storage".to_owned(), storage);
            }
        }
        _ => {}
    }
    usage.insert(count_name(place), one());
    if place.0.is_empty() {
        usage.insert(place.1.to_owned(), one());
    }
    usage
}

/// A pod that has ended, or should have been gone by now, counts for nothing but its being there.
fn pod_usage(pod: &Value, now: Timestamp) -> Resources {
    let one = || count(1);
    let mut usage = Resources::from([("count/pods".to_owned(), one())]);
    let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    let overdue = pod["metadata"]["deletionTimestamp"]
        .as_str()
        .and_then(|at| at.parse::<Timestamp>().ok())
        .is_some_and(|at| at < now)
        && pod["metadata"].get("deletionGracePeriodSeconds").is_some();
    if ended || overdue {
        return usage;
    }
    usage.insert("pods".to_owned(), one());
    for (name, quantity) in pod_resources::pod_usage(pod, "requests") {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-") {
            usage.insert(name.clone(), quantity);
        }
        usage.insert(format!("requests.{name}"), quantity);
    }
    for (name, quantity) in pod_resources::pod_usage(pod, "limits") {
        usage.insert(format!("limits.{name}"), quantity);
    }
    usage
}

/// `must specify limits.cpu for: a,b; requests.memory for: c`, if containers are silent about what a quota bounds.
pub(super) fn constraints(restricted: &BTreeSet<&str>, pod: &Value) -> Result<(), String> {
    let whole = |field: &str| quantities(&pod["spec"]["resources"][field]);
    let (pod_requests, pod_limits) = (whole("requests"), whole("limits"));
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for container in ["containers", "initContainers"].into_iter().flat_map(|list| items(&pod["spec"][list])) {
        let said = |field: &str, name: &str| container["resources"][field].get(name).is_some();
        for required in MUST_SPECIFY.into_iter().filter(|name| restricted.contains(name)) {
            let specified = match required.split_once('.') {
                Some(("limits", name)) => said("limits", name) || pod_limits.contains_key(name),
                Some((_, name)) => said("requests", name) || pod_requests.contains_key(name),
                None => said("requests", required) || pod_requests.contains_key(required),
            };
            if !specified {
                missing.entry(required).or_default().insert(container["name"].as_str().unwrap_or_default());
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let listed: Vec<String> = missing
        .into_iter()
        .map(|(resource, names)| format!("{resource} for: {}", names.into_iter().collect::<Vec<_>>().join(",")))
        .collect();
    Err(format!("must specify {}", listed.join("; ")))
}

/// Whether a quota's scopes take an object in. Quotas without scopes take all; only pods (and claims, by their class) have scopes.
pub(super) fn in_scope(place: Place<'_>, spec: &Value, object: &Value) -> bool {
    let scopes = items(&spec["scopes"]).filter_map(Value::as_str).map(|scope| (scope, "Exists", &Value::Null));
    let selectors = items(&spec["scopeSelector"]["matchExpressions"]).map(|term| {
        let text = |field: &str| term[field].as_str().unwrap_or_default();
        (text("scopeName"), text("operator"), &term["values"])
    });
    scopes.chain(selectors).all(|(scope, operator, values)| match place {
        ("", "pods") => pod_in_scope(pod_scope(scope, object), operator, values),
        ("", "persistentvolumeclaims") if scope == "VolumeAttributesClass" => {
            pod_in_scope(object["spec"]["volumeAttributesClassName"].as_str(), operator, values)
        }
        _ => false,
    })
}

/// The value of a scope for a pod; `None` if the pod is not in it.
fn pod_scope<'p>(scope: &str, pod: &'p Value) -> Option<&'p str> {
    let spec = &pod["spec"];
    let best_effort = || pod_total(pod, "requests", false).is_empty() && pod_total(pod, "limits", false).is_empty();
    let within = |yes: bool| yes.then_some("");
    match scope {
        "Terminating" => within(spec["activeDeadlineSeconds"].as_i64().is_some()),
        "NotTerminating" => within(spec["activeDeadlineSeconds"].as_i64().is_none()),
        "BestEffort" => within(best_effort()),
        "NotBestEffort" => within(!best_effort()),
        "PriorityClass" => spec["priorityClassName"].as_str().filter(|name| !name.is_empty()),
        "CrossNamespacePodAffinity" => within(crosses_namespaces(&spec["affinity"])),
        _ => None,
    }
}

fn pod_in_scope(value: Option<&str>, operator: &str, values: &Value) -> bool {
    let listed = || items(values).any(|listed| listed.as_str() == value);
    match operator {
        "In" => value.is_some() && listed(),
        "NotIn" => value.is_none() || !listed(),
        "DoesNotExist" => value.is_none(),
        _ => value.is_some(),
    }
}

fn crosses_namespaces(affinity: &Value) -> bool {
    ["podAffinity", "podAntiAffinity"].into_iter().any(|kind| {
        let required = items(&affinity[kind]["requiredDuringSchedulingIgnoredDuringExecution"]);
        let preferred = items(&affinity[kind]["preferredDuringSchedulingIgnoredDuringExecution"])
            .map(|term| &term["podAffinityTerm"]);
        required
            .chain(preferred)
            .any(|term| items(&term["namespaces"]).next().is_some() || term["namespaceSelector"].is_object())
    })
}
