//! The kubelet's own word on whether a pod may run here, whoever bound it.
//!
//! (kubelet: `lifecycle/predicates.go`; the same filters as the scheduler's, for pods that went past it.)

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, Taint, Toleration,
};

use crate::error::Result;
use crate::resources::{Amount, Amounts, pod_request};
use crate::spec::PodExt as _;
use crate::status::Forced;
use crate::sysctl;

/// A host port without an address of its own is taken on all.
const ANY_ADDRESS: &str = "0.0.0.0";

/// What the message of a verdict begins with.
const REJECTED: &str = "Pod was rejected: ";

/// Another pod of the node.
pub struct Neighbour {
    /// The pod by what is allocated to it.
    pub pod: Arc<Pod>,
    /// The pod by what its containers have, if that is still something else.
    pub actual: Arc<Pod>,
}

impl Neighbour {
    /// What it takes of the node: what is allocated to it or, while that is less, what it still has.
    fn takes(&self, name: &str) -> Result<Amount> {
        Ok(pod_request(&self.pod, name)?.max(pod_request(&self.actual, name)?))
    }
}

/// The words of a verdict, as events and the condition of a resize have them.
pub fn without_prefix(message: &str) -> &str {
    message.strip_prefix(REJECTED).unwrap_or(message)
}

/// Whether `pod` may run on `node`, on which `others` run already. `Some` is the verdict that fails the pod.
///
/// # Errors
/// A quantity is malformed.
pub fn admit(pod: &Pod, others: &[Neighbour], node: &Node, allocatable: &Amounts) -> Result<Option<Forced>> {
    if let Some(why) = sysctl::forbidden(pod) {
        return Ok(Some(rejected("SysctlForbidden", &why)));
    }
    let limit = allocatable.get("pods").copied().unwrap_or_default();
    if Amount::from_units(i128::try_from(others.len()).unwrap_or(i128::MAX) + 1) > limit {
        return Ok(Some(out_of("pods", others.len() as i128, 1, limit.units().into())));
    }
    for name in ["cpu", "memory", "ephemeral-storage"] {
        let requested = pod_request(pod, name)?;
        if requested == Amount::default() {
            continue;
        }
        let capacity = allocatable.get(name).copied().unwrap_or_default();
        let count = |amount: Amount| i128::from(if name == "cpu" { amount.millis() } else { amount.units() });
        let mut used = 0;
        for other in others {
            used += count(other.takes(name)?);
        }
        if used + count(requested) > count(capacity) {
            return Ok(Some(out_of(name, used, count(requested), count(capacity))));
        }
    }
    let failed = |name: &str, why: &str| Ok(Some(rejected(name, &format!("Predicate {name} failed: {why}"))));
    if !matches_node(pod, node) {
        return failed("NodeAffinity", "node(s) didn't match Pod's node affinity/selector");
    }
    let taken: Vec<HostPort<'_>> = others.iter().flat_map(|other| host_ports(&other.pod)).collect();
    if host_ports(pod).iter().any(|wanted| taken.iter().any(|other| wanted.conflicts(other))) {
        return failed("NodePorts", "node(s) didn't have free ports for the requested pod ports");
    }
    if !tolerates_eviction(pod, node) {
        return failed("TaintToleration", "node(s) had taints that the pod didn't tolerate");
    }
    Ok(None)
}

/// A port of the node that a container asks for.
struct HostPort<'a> {
    ip: &'a str,
    protocol: &'a str,
    port: i32,
}

impl HostPort<'_> {
    fn conflicts(&self, other: &HostPort<'_>) -> bool {
        let any = |port: &HostPort<'_>| port.ip == ANY_ADDRESS;
        self.port == other.port && self.protocol == other.protocol && (self.ip == other.ip || any(self) || any(other))
    }
}

fn host_ports(pod: &Pod) -> Vec<HostPort<'_>> {
    let sidecars = pod.spec().init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports = pod.spec().containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            Some(HostPort {
                ip: port.host_ip.as_deref().filter(|ip| !ip.is_empty()).unwrap_or(ANY_ADDRESS),
                protocol: port.protocol.as_deref().unwrap_or("TCP"),
                port: port.host_port.filter(|port| *port > 0)?,
            })
        })
        .collect()
}

/// Whether the pod tolerates the taints by which pods are evicted; static pods stay whatever the node says.
fn tolerates_eviction(pod: &Pod, node: &Node) -> bool {
    if pod.is_static() {
        return true;
    }
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    let mut evicting = taints.into_iter().flatten().filter(|taint| taint.effect == "NoExecute");
    evicting.all(|taint| pod.spec().tolerations.iter().flatten().any(|toleration| tolerates(toleration, taint)))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let said = |text: &Option<String>| text.as_deref().unwrap_or_default().to_owned();
    let (effect, key) = (said(&toleration.effect), said(&toleration.key));
    if !(effect.is_empty() || effect == taint.effect) || !(key.is_empty() || key == taint.key) {
        return false;
    }
    match said(&toleration.operator).as_str() {
        "" | "Equal" => said(&toleration.value) == said(&taint.value),
        operator => operator == "Exists",
    }
}

fn rejected(reason: &str, why: &str) -> Forced {
    Forced { reason: reason.to_owned(), message: format!("{REJECTED}{why}") }
}

fn out_of(resource: &str, used: i128, requested: i128, capacity: i128) -> Forced {
    let why = format!(
        "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
    );
    rejected(&format!("OutOf{resource}"), &why)
}

fn matches_node(pod: &Pod, node: &Node) -> bool {
    let empty = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    let selector = pod.spec().node_selector.iter().flatten();
    if selector.into_iter().any(|(key, value)| labels.get(key) != Some(value)) {
        return false;
    }
    let affinity = pod.spec().affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|selector| selects(selector, node))
}

/// Whether one of the selector's terms matches the node.
pub fn selects(selector: &NodeSelector, node: &Node) -> bool {
    let empty = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    selector.node_selector_terms.iter().any(|term| matches_term(term, node, labels))
}

fn matches_term(term: &NodeSelectorTerm, node: &Node, labels: &BTreeMap<String, String>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    expressions.iter().all(|requirement| holds(requirement, labels.get(&requirement.key)))
        && fields.iter().all(|r| r.key == "metadata.name" && holds(r, node.metadata.name.as_ref()))
}

fn holds(requirement: &NodeSelectorRequirement, actual: Option<&String>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let number = |text: &String| text.parse::<i64>().ok();
    let compare = |wanted: std::cmp::Ordering| {
        let bound = values.first().and_then(number);
        actual.and_then(number).zip(bound).is_some_and(|(actual, bound)| actual.cmp(&bound) == wanted)
    };
    match requirement.operator.as_str() {
        "In" => actual.is_some_and(|actual| values.contains(actual)),
        "NotIn" => actual.is_none_or(|actual| !values.contains(actual)),
        "Exists" => actual.is_some(),
        "DoesNotExist" => actual.is_none(),
        "Gt" => compare(std::cmp::Ordering::Greater),
        "Lt" => compare(std::cmp::Ordering::Less),
        _ => false,
    }
}
