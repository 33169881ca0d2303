//! Requests and limits: their names, their amounts, and the quality of service that follows from them.
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::quantity::Quantity;
use crate::status::FieldError;
use crate::strategy::field::{Errors, Field};
use crate::strategy::names;

/// What the names of huge pages begin with, before the size of a page.
const HUGE_PAGES: &str = "hugepages-";
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

/// A name that can be a resource of containers.
pub fn validate_container_resource_name(at: &Field<'_>, name: &str, errors: &mut Errors) {
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
pub fn overcommit_allowed(name: &str) -> bool {
    is_native(name) && !name.starts_with("hugepages-")
}

/// What is wrong with a container's requests, limits and claims.
pub fn validate(resources: &Field<'_>, claims: &BTreeSet<&str>, errors: &mut Errors) {
    validate_with(resources, claims, validate_container_resource_name, errors);
}

/// What is wrong with the requests and limits of a pod as a whole: `validatePodResources`.
pub fn validate_pod_level(spec: &Field<'_>, claims: &BTreeSet<&str>, errors: &mut Errors) {
    let Some(resources) = spec.get("resources").set() else {
        return;
    };
    if spec.get("os").get("name").str() == "windows" {
        errors.push(resources.forbidden("may not be set for a windows pod"));
        return;
    }
    if let Some(claim) = resources.get("claims").set() {
        errors.push(claim.forbidden("claims may not be set for Resources at pod-level"));
    }
    validate_with(&resources, claims, validate_pod_resource_name, errors);
    let (limits, requests) = (resources.get("limits"), resources.get("requests"));
    for (name, sum) in aggregate(spec.value(), "requests") {
        let asked = requests.key(&name);
        if asked.quantity().is_some_and(|asked| sum > asked) {
            errors
                .push(asked.invalid(format!("must be greater than or equal to aggregate container requests of {sum}")));
        }
    }
    for (name, sum) in aggregate(spec.value(), "limits").into_iter().filter(|(name, _)| is_huge_page(name)) {
        let allowed = limits.key(&name);
        if allowed.quantity().is_some_and(|allowed| sum > allowed) {
            errors
                .push(allowed.invalid(format!("must be greater than or equal to aggregate container limits of {sum}")));
        }
    }
    for (index, container) in spec.get("containers").items().enumerate() {
        for (name, limit) in container.get("resources").get("limits").entries() {
            let allowed = limits.key(name);
            if allowed.quantity().zip(limit.quantity()).is_some_and(|(allowed, limit)| limit > allowed) {
                let place = resources.get("containers").element(index).key(name).get("limits");
                let detail = format!("must be less than or equal to pod limits of {}", allowed.str());
                errors.push(place.invalid_as(limit.value().clone(), detail));
            }
        }
    }
}

/// Whether a resource can be asked for by a pod as a whole.
pub fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || is_huge_page(name)
}

/// Whether a resource is pages of some size.
pub fn is_huge_page(name: &str) -> bool {
    name.starts_with(HUGE_PAGES)
}

/// What the containers of a pod need together: the sum of those that run side by side, or, if that is more, the
/// largest init container with the sidecars started before it. `k8s.io/component-helpers/resource.AggregateContainerRequests`.
pub fn aggregate(spec: &Value, list: &str) -> BTreeMap<String, Quantity> {
    let amounts = |container: &Value| -> BTreeMap<String, Quantity> {
        let entries = container["resources"][list].as_object().into_iter().flatten();
        entries.filter_map(|(name, amount)| Some((name.clone(), Quantity::from_value(amount).ok()?))).collect()
    };
    let add = |sum: &mut BTreeMap<String, Quantity>, more: &BTreeMap<String, Quantity>| {
        for (name, amount) in more {
            *sum.entry(name.clone()).or_insert(Quantity::ZERO) += *amount;
        }
    };
    let (mut total, mut sidecars, mut starting) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    spec["containers"].as_array().into_iter().flatten().for_each(|container| add(&mut total, &amounts(container)));
    for container in spec["initContainers"].as_array().into_iter().flatten() {
        let mut needed = amounts(container);
        if container["restartPolicy"] == "Always" {
            add(&mut total, &needed);
            add(&mut sidecars, &needed);
            needed.clone_from(&sidecars);
        } else {
            add(&mut needed, &sidecars);
        }
        largest(&mut starting, needed);
    }
    largest(&mut total, starting);
    total
}

fn largest(most: &mut BTreeMap<String, Quantity>, other: BTreeMap<String, Quantity>) {
    for (name, amount) in other {
        let entry = most.entry(name).or_insert(amount);
        *entry = amount.max(*entry);
    }
}

fn validate_pod_resource_name(at: &Field<'_>, name: &str, errors: &mut Errors) {
    let known = errors.len();
    validate_name(at, name, errors);
    if errors.len() == known && !is_pod_level(name) {
        errors.push(at.not_supported_as(name, &["cpu", "hugepages-", "memory"]));
    }
}

/// `validateResourceRequirements`, with the rule for names that the place has.
fn validate_with(
    resources: &Field<'_>,
    claims: &BTreeSet<&str>,
    validate_name: fn(&Field<'_>, &str, &mut Errors),
    errors: &mut Errors,
) {
    let (limits, requests) = (resources.get("limits"), resources.get("requests"));
    for (name, limit) in limits.entries() {
        validate_name(&limit, name, errors);
        validate_quantity(&limit, name, errors);
        whole_pages(&limit, name, errors);
    }
    for (name, request) in requests.entries() {
        validate_name(&request, name, errors);
        validate_quantity(&request, name, errors);
        request_within_limit(name, &request, &requests, &limits, errors);
        whole_pages(&request, name, errors);
    }
    let names: Vec<&str> = limits.entries().chain(requests.entries()).map(|(name, _)| name).collect();
    if names.iter().any(|name| is_huge_page(name)) && !names.iter().any(|name| matches!(*name, "cpu" | "memory")) {
        errors.push(resources.forbidden("HugePages require cpu or memory"));
    }
    validate_claims(&resources.get("claims"), claims, errors);
}

fn whole_pages(at: &Field<'_>, name: &str, errors: &mut Errors) {
    let (Some(size), Some(amount)) = (name.strip_prefix(HUGE_PAGES), at.quantity()) else {
        return;
    };
    let size = Quantity::parse(size).ok().filter(|size| *size > Quantity::ZERO && size.milli_value() % 1000 == 0);
    if size.is_none_or(|size| amount.value() % size.value() != 0) {
        errors.push(at.invalid(format!("{amount} is not positive integer multiple of {name}")));
    }
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

fn validate_claims(claims: &Field<'_>, known: &BTreeSet<&str>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for claim in claims.items() {
        let (name, request) = (claim.get("name").str(), claim.get("request"));
        if name.is_empty() {
            errors.push(claim.required(""));
            continue;
        }
        if seen.contains(&(name, "")) {
            errors.push(claim.duplicate_as(name));
        } else {
            if !request.is_empty() {
                request.check(names::dns1123_label(request.str()), errors);
            }
            if seen.contains(&(name, request.str())) {
                errors.push(claim.duplicate_as(format!("{name}/{}", request.str())));
            } else if request.is_empty() {
                let earlier = seen.range((name, "")..).take_while(|(other, _)| *other == name);
                errors.extend(earlier.map(|_| claim.duplicate_as(name)));
            }
            seen.insert((name, request.str()));
        }
        if !known.contains(&name) {
            let detail = if known.is_empty() {
                "must be one of the names in pod.spec.resourceClaims which is empty".to_owned()
            } else {
                let names: Vec<&str> = known.iter().copied().collect();
                format!("must be one of the names in pod.spec.resourceClaims: {}", names.join(", "))
            };
            errors.push(FieldError { detail, ..claim.not_found_as(name) });
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
    let whole = ["limits", "requests"].into_iter().any(|list| {
        spec["resources"][list].as_object().is_some_and(|amounts| amounts.keys().any(|name| is_pod_level(name)))
    });
    if whole {
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
