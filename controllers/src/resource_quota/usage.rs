//! What one object counts for, and in which quotas. Pure.
//! (Kubernetes: `pkg/quota/v1/evaluator/core`.)

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, PersistentVolumeClaim, Pod, PodSpec, ResourceQuotaSpec, ResourceRequirements, Service,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use k8s_openapi::jiff::Timestamp;
use minik8s_api::quantity::{Format, Quantity};

use crate::pods;

/// Quantities by the names that quotas have for them.
pub(super) type Resources = BTreeMap<String, Quantity>;

const STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";

pub(super) fn count(number: usize) -> Quantity {
    Quantity::new(i64::try_from(number).unwrap_or(i64::MAX), Format::DecimalSi)
}

/// Adds each quantity.
pub(super) fn add(sum: &mut Resources, other: &Resources) {
    for (name, quantity) in other {
        let total = sum.remove(name).map_or(*quantity, |own| own + *quantity);
        sum.insert(name.clone(), total);
    }
}

fn raise(most: &mut Resources, other: &Resources) {
    for (name, quantity) in other {
        if most.get(name).is_none_or(|own| own < quantity) {
            most.insert(name.clone(), *quantity);
        }
    }
}

pub(super) fn quantities(map: Option<&BTreeMap<String, Text>>) -> Resources {
    let entries = map.into_iter().flatten();
    entries.filter_map(|(name, text)| Some((name.clone(), Quantity::parse(&text.0).ok()?))).collect()
}

/// Which side of its resources a container is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Requests,
    Limits,
}

impl Side {
    fn of(self, resources: Option<&ResourceRequirements>) -> Resources {
        quantities(resources.and_then(|resources| match self {
            Side::Requests => resources.requests.as_ref(),
            Side::Limits => resources.limits.as_ref(),
        }))
    }
}

/// Sums up containers, or what their start needs at most.
fn aggregate(spec: &PodSpec, of: impl Fn(&Container) -> Resources) -> Resources {
    let (mut total, mut sidecars, mut start) = (Resources::new(), Resources::new(), Resources::new());
    for container in &spec.containers {
        add(&mut total, &of(container));
    }
    for container in spec.init_containers.iter().flatten() {
        let own = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            raise(&mut start, &sidecars);
        } else {
            let mut beside = sidecars.clone();
            add(&mut beside, &own);
            raise(&mut start, &beside);
        }
    }
    raise(&mut total, &start);
    total
}

/// What a spec asks for, by its containers and as a whole.
fn asked(spec: &PodSpec, side: Side) -> Resources {
    let mut total = aggregate(spec, |container| side.of(container.resources.as_ref()));
    total.extend(side.of(spec.resources.as_ref()));
    total
}

/// What is said of a pod's containers.
fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|s| s.container_statuses.iter().chain(&s.init_container_statuses)).flatten()
}

/// What a pod asks for or, while it is resized, what it has or is to have if that is more. A resize that its node can never
/// do does not count (`component-helpers/resource/helpers.go`, with `UseStatusResources`).
fn pod_total(pod: &Pod, spec: &PodSpec, side: Side) -> Resources {
    let status = pod.status.as_ref();
    let mut conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    let pending = conditions.find(|condition| condition.type_ == "PodResizePending");
    let infeasible = pending.is_some_and(|condition| condition.reason.as_deref() == Some("Infeasible"));
    let of = |container: &Container| side.of(container.resources.as_ref());
    let status_of = |container: &Container| statuses(pod).find(|status| status.name == container.name);
    let wish = |container: &Container| if infeasible { Resources::new() } else { of(container) };
    let allocated = |container: &Container| {
        let told = status_of(container).and_then(|status| status.allocated_resources.as_ref());
        told.map(|told| quantities(Some(told)))
    };
    let actuated = |container: &Container| {
        let told = status_of(container).and_then(|status| status.resources.as_ref());
        let told = told.and_then(|told| match side {
            Side::Requests => told.requests.as_ref(),
            Side::Limits => told.limits.as_ref(),
        });
        told.map(|told| quantities(Some(told)))
    };
    let mut total = if infeasible { Resources::new() } else { aggregate(spec, of) };
    if side == Side::Requests {
        raise(&mut total, &aggregate(spec, |container| allocated(container).unwrap_or_else(|| wish(container))));
        let had = |container: &Container| actuated(container).or_else(|| allocated(container));
        raise(&mut total, &aggregate(spec, |container| had(container).unwrap_or_else(|| wish(container))));
    } else {
        raise(&mut total, &aggregate(spec, |container| actuated(container).unwrap_or_else(|| wish(container))));
    }
    // What is set for the pod as a whole stands for the sum.
    total.extend(side.of(spec.resources.as_ref()));
    let mut overhead = quantities(spec.overhead.as_ref());
    overhead.retain(|name, _| side == Side::Requests || total.contains_key(name));
    add(&mut total, &overhead);
    total
}

/// Whether a pod's containers have other resources than they had.
pub(super) fn other_resources(old: &Pod, new: &Pod) -> bool {
    let of = |pod: &Pod| {
        let lists = |resources: &ResourceRequirements| (resources.requests.clone(), resources.limits.clone());
        let all = statuses(pod).map(|status| (status.name.clone(), status.resources.as_ref().map(lists)));
        all.collect::<BTreeMap<_, _>>()
    };
    let (old, new) = (of(old), of(new));
    old.iter().any(|(name, had)| new.get(name).is_some_and(|has| has != had))
}

/// What a pod counts for. One that has ended, or should be gone by now, counts for nothing but its being there.
pub(super) fn of_pod(pod: &Pod, now: Timestamp) -> Resources {
    let mut usage = Resources::from([("count/pods".to_owned(), count(1))]);
    let ended = matches!(pods::phase(pod), "Succeeded" | "Failed");
    let overdue = pod.metadata.deletion_timestamp.as_ref().is_some_and(|at| at.0 < now);
    let Some(spec) = pod.spec.as_ref().filter(|_| !ended && !overdue) else { return usage };
    usage.insert("pods".to_owned(), count(1));
    for (name, quantity) in pod_total(pod, spec, Side::Requests) {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-") {
            usage.insert(name.clone(), quantity);
        }
        usage.insert(format!("requests.{name}"), quantity);
    }
    for (name, quantity) in pod_total(pod, spec, Side::Limits) {
        usage.insert(format!("limits.{name}"), quantity);
    }
    usage
}

/// What a Service counts for.
pub(super) fn of_service(service: &Service) -> Resources {
    let spec = service.spec.as_ref();
    let ports = spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let chosen = ports.iter().filter(|port| port.node_port.unwrap_or(0) != 0).count();
    let allocates = spec.and_then(|spec| spec.allocate_load_balancer_node_ports).unwrap_or(true);
    let (node_ports, balancers) = match spec.and_then(|spec| spec.type_.as_deref()) {
        Some("NodePort") => (ports.len(), 0),
        Some("LoadBalancer") if !allocates => (chosen, 1),
        Some("LoadBalancer") => (ports.len(), 1),
        _ => (0, 0),
    };
    let counts = [
        ("count/services", 1),
        ("services", 1),
        ("services.nodeports", node_ports),
        ("services.loadbalancers", balancers),
    ];
    counts.into_iter().map(|(name, number)| (name.to_owned(), count(number))).collect()
}

/// What a claim counts for.
pub(super) fn of_claim(claim: &PersistentVolumeClaim) -> Resources {
    let mut usage = Resources::new();
    let spec = claim.spec.as_ref();
    let class = spec.and_then(|spec| spec.storage_class_name.as_deref()).filter(|class| !class.is_empty());
    let requests = spec.and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    let storage = quantities(requests).remove("storage");
    let mut both = |name: &str, quantity: Quantity| {
        usage.insert(name.to_owned(), quantity);
        if let Some(class) = class {
            usage.insert(format!("{class}{STORAGE_CLASS}{name}"), quantity);
        }
    };
    both("persistentvolumeclaims", count(1));
    if let Some(storage) = storage {
        both("requests.storage", storage);
    }
    usage.insert("count/persistentvolumeclaims".to_owned(), count(1));
    usage
}

/// What a quota's name counts, beside objects of a resource in general.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Counted<'a> {
    /// Pods and what they ask for.
    Pods,
    /// Services and their ports.
    Services,
    /// Claims and the storage that they ask for.
    Claims,
    /// Objects of a resource: plural name and group.
    Objects(&'a str, &'a str),
}

/// What a name in a quota counts.
pub(super) fn counted(name: &str) -> Counted<'_> {
    if let Some(resource) = name.strip_prefix("count/") {
        return match resource {
            "pods" => Counted::Pods,
            "services" => Counted::Services,
            "persistentvolumeclaims" => Counted::Claims,
            other => {
                let (plural, group) = other.split_once('.').unwrap_or((other, ""));
                Counted::Objects(plural, group)
            }
        };
    }
    match name {
        "services" | "services.nodeports" | "services.loadbalancers" => Counted::Services,
        "persistentvolumeclaims" | "requests.storage" => Counted::Claims,
        "configmaps" | "secrets" | "replicationcontrollers" | "resourcequotas" => Counted::Objects(name, ""),
        name if name.contains(STORAGE_CLASS) => Counted::Claims,
        _ => Counted::Pods,
    }
}

/// The scopes of a quota: name, operator, values.
fn scopes(spec: &ResourceQuotaSpec) -> Vec<(&str, &str, &[String])> {
    let plain = spec.scopes.iter().flatten().map(|scope| (scope.as_str(), "Exists", &[][..]));
    let terms = spec.scope_selector.iter().flat_map(|selector| selector.match_expressions.iter().flatten());
    let terms = terms
        .map(|term| (term.scope_name.as_str(), term.operator.as_str(), term.values.as_deref().unwrap_or_default()));
    plain.chain(terms).collect()
}

/// Whether a quota with scopes takes anything else than pods and claims in: it does not.
pub(super) fn is_scoped(spec: &ResourceQuotaSpec) -> bool {
    !scopes(spec).is_empty()
}

fn within(value: Option<&str>, operator: &str, values: &[String]) -> bool {
    let listed = || value.is_some_and(|value| values.iter().any(|listed| listed == value));
    match operator {
        "In" => listed(),
        "NotIn" => !listed(),
        "DoesNotExist" => value.is_none(),
        _ => value.is_some(),
    }
}

/// Whether a quota's scopes take a pod in.
pub(super) fn takes_pod(spec: &ResourceQuotaSpec, pod: &Pod) -> bool {
    let Some(pod) = pod.spec.as_ref() else { return false };
    let best_effort = || [Side::Requests, Side::Limits].iter().all(|side| asked(pod, *side).is_empty());
    let value = |scope: &str| match scope {
        "Terminating" => pod.active_deadline_seconds.map(|_| ""),
        "NotTerminating" => pod.active_deadline_seconds.is_none().then_some(""),
        "BestEffort" => best_effort().then_some(""),
        "NotBestEffort" => (!best_effort()).then_some(""),
        "PriorityClass" => pod.priority_class_name.as_deref().filter(|name| !name.is_empty()),
        "CrossNamespacePodAffinity" => crosses_namespaces(pod).then_some(""),
        _ => None,
    };
    scopes(spec).into_iter().all(|(scope, operator, values)| within(value(scope), operator, values))
}

/// Whether a quota's scopes take a claim in.
pub(super) fn takes_claim(spec: &ResourceQuotaSpec, claim: &PersistentVolumeClaim) -> bool {
    let class = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    let mut scopes = scopes(spec).into_iter();
    scopes.all(|(scope, operator, values)| scope == "VolumeAttributesClass" && within(class, operator, values))
}

fn crosses_namespaces(pod: &PodSpec) -> bool {
    let Some(affinity) = &pod.affinity else { return false };
    let mut terms = Vec::new();
    if let Some(near) = &affinity.pod_affinity {
        terms.extend(near.required_during_scheduling_ignored_during_execution.iter().flatten());
        let preferred = near.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        terms.extend(preferred.map(|weighted| &weighted.pod_affinity_term));
    }
    if let Some(far) = &affinity.pod_anti_affinity {
        terms.extend(far.required_during_scheduling_ignored_during_execution.iter().flatten());
        let preferred = far.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        terms.extend(preferred.map(|weighted| &weighted.pod_affinity_term));
    }
    let named = |namespaces: &Option<Vec<String>>| namespaces.as_ref().is_some_and(|all| !all.is_empty());
    terms.iter().any(|term| named(&term.namespaces) || term.namespace_selector.is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn show(usage: &Resources) -> Vec<String> {
        usage.iter().map(|(name, quantity)| format!("{name}={quantity}")).collect()
    }

    #[test]
    fn a_pod_counts_for_what_its_containers_ask_for_and_nothing_once_it_has_ended() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let pod = |phase: &str| -> Pod {
            serde_json::from_value(json!({
                "spec": {"containers": [
                    {"name": "a", "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "1Gi"}}},
                    {"name": "b", "resources": {"requests": {"cpu": "200m"}}}]},
                "status": {"phase": phase},
            }))
            .unwrap()
        };
        assert_eq!(
            show(&of_pod(&pod("Running"), now)),
            ["count/pods=1", "cpu=300m", "limits.memory=1Gi", "pods=1", "requests.cpu=300m"]
        );
        assert_eq!(show(&of_pod(&pod("Succeeded"), now)), ["count/pods=1"]);
    }

    #[test]
    fn a_pod_that_is_resized_counts_for_what_it_has_if_that_is_more() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let container = json!({"name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "allocatedResources": {"cpu": "300m"}, "resources": {"requests": {"cpu": "400m"}, "limits": {"memory": "2Gi"}}});
        let pod = |wish: &str, conditions: serde_json::Value| -> Pod {
            serde_json::from_value(json!({
                "spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": wish}, "limits": {"memory": "1Gi"}}}]},
                "status": {"phase": "Running", "containerStatuses": [container], "conditions": conditions},
            }))
            .unwrap()
        };
        let cpu = |pod: &Pod| of_pod(pod, now)["requests.cpu"].to_string();
        assert_eq!(cpu(&pod("100m", json!([]))), "400m");
        assert_eq!(cpu(&pod("500m", json!([]))), "500m");
        let infeasible = json!([{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}]);
        assert_eq!(cpu(&pod("500m", infeasible)), "400m");
        assert_eq!(of_pod(&pod("100m", json!([])), now)["limits.memory"].to_string(), "2Gi");
    }

    #[test]
    fn names_say_what_is_counted() {
        assert_eq!(counted("requests.cpu"), Counted::Pods);
        assert_eq!(counted("gold.storageclass.storage.k8s.io/requests.storage"), Counted::Claims);
        assert_eq!(counted("count/deployments.apps"), Counted::Objects("deployments", "apps"));
        assert_eq!(counted("secrets"), Counted::Objects("secrets", ""));
    }

    #[test]
    fn scopes_take_pods_in_by_what_they_are() {
        let spec = |scopes: serde_json::Value| -> ResourceQuotaSpec { serde_json::from_value(scopes).unwrap() };
        let pod: Pod =
            serde_json::from_value(json!({"spec": {"containers": [{"name": "a"}], "priorityClassName": "high"}}))
                .unwrap();
        assert!(takes_pod(&spec(json!({})), &pod));
        assert!(takes_pod(&spec(json!({"scopes": ["BestEffort", "NotTerminating"]})), &pod));
        assert!(!takes_pod(&spec(json!({"scopes": ["NotBestEffort"]})), &pod));
        let classes = |operator: &str| {
            spec(
                json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": operator, "values": ["high"]}]}}),
            )
        };
        assert!(takes_pod(&classes("In"), &pod));
        assert!(!takes_pod(&classes("NotIn"), &pod));
    }
}
