//! Requests and limits: their names, their amounts, and the quality of service that follows from them.
use serde_json::Value;

use crate::quantity::Quantity;
use crate::strategy::field::{Errors, Field};
use crate::strategy::names;

const CONTAINER_RESOURCES: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// Unqualified resource names that exist anywhere (`pkg/apis/core/helper.standardResources`).
const STANDARD_RESOURCES: [&str; 21] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
    "count/*",
];

/// Whether a name without a domain is known somewhere in Kubernetes.
pub fn is_standard(name: &str) -> bool {
    STANDARD_RESOURCES.contains(&name) || name.strip_prefix("requests.").unwrap_or(name).starts_with("hugepages-")
}

/// Whether a name belongs to Kubernetes itself rather than to a device vendor.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// A name that can be any resource: `validateResourceName`.
pub fn validate_name(at: &Field<'_>, name: &str, errors: &mut Errors) {
    let complaints = names::qualified_name(name);
    if !complaints.is_empty() {
        errors.extend(complaints.into_iter().map(|complaint| at.invalid_as(name, complaint)));
    } else if !name.contains('/') && !is_standard(name) {
        errors.push(at.invalid_as(name, "must be a standard resource type or fully qualified"));
    }
}

fn validate_container_resource_name(at: &Field<'_>, name: &str, errors: &mut Errors) {
    validate_name(at, name, errors);
    if !name.contains('/') {
        if !CONTAINER_RESOURCES.contains(&name) && !name.starts_with("hugepages-") {
            errors.push(at.invalid_as(name, "must be a standard resource for containers"));
        }
    } else if !is_native(name)
        && (name.starts_with("requests.") || !names::qualified_name(&format!("requests.{name}")).is_empty())
    {
        errors.push(at.invalid_as(name, "doesn't follow extended resource name standard"));
    }
}

/// Not negative, and whole where the resource cannot be divided.
pub fn validate_quantity(at: &Field<'_>, name: &str, errors: &mut Errors) {
    let Some(quantity) = at.quantity() else {
        return;
    };
    if quantity < Quantity::ZERO {
        errors.push(at.invalid("must be greater than or equal to 0"));
    }
    let whole = (name.contains('/') && !is_native(name)) || is_counted(name);
    if whole && quantity.milli_value() % 1000 != 0 {
        errors.push(at.invalid("must be an integer"));
    }
}

fn is_counted(name: &str) -> bool {
    matches!(
        name,
        "pods"
            | "resourcequotas"
            | "services"
            | "replicationcontrollers"
            | "secrets"
            | "configmaps"
            | "persistentvolumeclaims"
            | "services.nodeports"
            | "services.loadbalancers"
    ) || name.starts_with("count/")
}

/// CPU, memory and storage may be promised more often than they exist; devices and huge pages may not.
fn overcommit_allowed(name: &str) -> bool {
    is_native(name) && !name.starts_with("hugepages-")
}

/// What is wrong with a container's `resources`; `claims` are the names of the pod's resource claims.
pub fn validate(resources: &Field<'_>, claims: &[&str], errors: &mut Errors) {
    let (limits, requests) = (resources.get("limits"), resources.get("requests"));
    for (name, limit) in limits.entries() {
        validate_container_resource_name(&limit, name, errors);
        validate_quantity(&limit, name, errors);
    }
    for (name, request) in requests.entries() {
        validate_container_resource_name(&request, name, errors);
        validate_quantity(&request, name, errors);
        request_within_limit(name, &request, &requests, &limits, errors);
    }
    let names: Vec<&str> = limits.entries().chain(requests.entries()).map(|(name, _)| name).collect();
    if names.iter().any(|name| name.starts_with("hugepages-"))
        && !names.iter().any(|name| matches!(*name, "cpu" | "memory"))
    {
        errors.push(resources.forbidden("HugePages require cpu or memory"));
    }
    validate_claims(&resources.get("claims"), claims, errors);
}

fn request_within_limit(
    name: &str,
    request: &Field<'_>,
    requests: &Field<'_>,
    limits: &Field<'_>,
    errors: &mut Errors,
) {
    let limit = limits.key(name);
    let (Some(asked), Some(allowed)) = (request.quantity(), limit.quantity()) else {
        if !limit.is_set() && !overcommit_allowed(name) {
            errors.push(limits.required("Limit must be set for non overcommitable resources"));
        }
        return;
    };
    let shown = requests.with(request.value());
    if asked != allowed && !overcommit_allowed(name) {
        errors.push(shown.invalid(format!("must be equal to {name} limit of {}", limit.str())));
    } else if asked > allowed {
        errors.push(shown.invalid(format!("must be less than or equal to {name} limit of {}", limit.str())));
    }
}

fn validate_claims(claims: &Field<'_>, known: &[&str], errors: &mut Errors) {
    let mut seen = Vec::new();
    for claim in claims.items() {
        let name = claim.get("name");
        if name.is_empty() {
            errors.push(name.required(""));
            continue;
        }
        let key = (name.str(), claim.get("request").str());
        if seen.contains(&key) {
            errors.push(claim.with(name.value()).duplicate());
        } else {
            seen.push(key);
        }
        if !known.contains(&name.str()) {
            errors.push(name.not_found());
        }
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`. Mirrors `pkg/apis/core/v1/helper/qos.ComputePodQOS`.
pub fn qos_class(pod: &Value) -> &'static str {
    let spec = &pod["spec"];
    let mut guaranteed = true;
    let mut asks = false;
    let mut judge = |resources: &Value| {
        let amount = |list: &str, name: &str| -> Option<Quantity> {
            Quantity::from_value(&resources[list][name]).ok().filter(|amount| *amount > Quantity::ZERO)
        };
        for name in ["cpu", "memory"] {
            let (request, limit) = (amount("requests", name), amount("limits", name));
            asks |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    };
    if spec["resources"].is_object() {
        judge(&spec["resources"]);
    } else {
        for list in ["containers", "initContainers"] {
            spec[list].as_array().into_iter().flatten().for_each(|container| judge(&container["resources"]));
        }
    }
    match (asks, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
