//! What the scheduler knows about a pod and about a node: the objects, and sums that need not be taken anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Affinity, Node, Pod, PodAffinityTerm, Toleration, WeightedPodAffinityTerm};
use minik8s_api::selector::LabelSelector;

use crate::resource::{Resource, non_zero_requests, pod_requests};

/// A pod, with what filters ask of it again and again.
pub struct PodInfo {
    /// The object.
    pub pod: Arc<Pod>,
    /// What it requests.
    pub requests: Resource,
    /// What it requests, where nothing is said something assumed.
    pub non_zero: Resource,
    /// Host ports: address, protocol, port.
    pub host_ports: Vec<HostPort>,
    /// Terms that must hold.
    pub required_affinity: Vec<AffinityTerm>,
    /// Terms that must not hold.
    pub required_anti_affinity: Vec<AffinityTerm>,
    /// Terms that should hold, with their weight; negative for those that should not.
    pub preferred_affinity: Vec<(i64, AffinityTerm)>,
}

/// A port on the node itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// The address bound; `0.0.0.0` for all.
    pub ip: String,
    /// `TCP`, `UDP`, `SCTP`.
    pub protocol: String,
    /// The port.
    pub port: i32,
}

impl HostPort {
    /// Whether both cannot be bound on one node.
    pub fn conflicts(&self, other: &HostPort) -> bool {
        const ANY: &str = "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || self.ip == ANY || other.ip == ANY)
    }
}

/// A term of pod (anti-)affinity, its selectors parsed.
pub struct AffinityTerm {
    /// Which pods.
    pub selector: LabelSelector,
    /// In which namespaces, by name.
    pub namespaces: BTreeSet<String>,
    /// In which namespaces, by label; `None` for none but those named.
    pub namespace_selector: Option<LabelSelector>,
    /// Near is: the same value of this node label.
    pub topology_key: String,
}

impl AffinityTerm {
    fn new(term: &PodAffinityTerm, pod: &Pod) -> Self {
        let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
        let namespace_selector = term.namespace_selector.as_ref().map(|s| parse_selector(Some(s)));
        if namespaces.is_empty() && namespace_selector.is_none() {
            namespaces.extend(pod.metadata.namespace.clone());
        }
        Self { selector: with_keys(term, pod), namespaces, namespace_selector, topology_key: term.topology_key.clone() }
    }

    /// Whether `pod` is one that the term speaks of; `namespace_labels` are those of its namespace.
    pub fn matches(&self, pod: &Pod, namespace_labels: &dyn Fn(&str) -> Option<Labels>) -> bool {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let named = self.namespaces.contains(namespace);
        let selected = || match &self.namespace_selector {
            Some(selector) if selector.is_everything() => true,
            Some(selector) => selector.matches_set(namespace_labels(namespace).as_ref()),
            None => false,
        };
        (named || selected()) && self.selector.matches_set(pod.metadata.labels.as_ref())
    }
}

/// Labels of an object.
pub type Labels = std::collections::BTreeMap<String, String>;

/// A selector of the API, parsed. The API has validated it; one that is wrong all the same selects nothing.
pub fn parse_selector(
    selector: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
) -> LabelSelector {
    let value = selector.and_then(|selector| serde_json::to_value(selector).ok());
    LabelSelector::from_value(value.as_ref()).unwrap_or_else(|_| LabelSelector::nothing())
}

/// The term's selector with `matchLabelKeys` and `mismatchLabelKeys` taken in.
fn with_keys(term: &PodAffinityTerm, pod: &Pod) -> LabelSelector {
    use minik8s_api::selector::{Operator, Requirement};
    let base = parse_selector(term.label_selector.as_ref());
    let mut requirements = base.requirements().to_vec();
    if base.is_nothing() {
        return base;
    }
    let keys = [(&term.match_label_keys, Operator::In), (&term.mismatch_label_keys, Operator::NotIn)];
    for (keys, operator) in keys {
        for key in keys.iter().flatten() {
            let value = pod.metadata.labels.as_ref().and_then(|labels| labels.get(key));
            if let Some(value) = value
                && let Ok(requirement) = Requirement::new(key, operator, vec![value.clone()])
            {
                requirements.push(requirement);
            }
        }
    }
    LabelSelector::new(requirements)
}

impl PodInfo {
    /// Reads a pod.
    pub fn new(pod: Arc<Pod>) -> Self {
        let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.clone()).unwrap_or_default();
        let required = |terms: Option<&Vec<PodAffinityTerm>>| {
            terms.into_iter().flatten().map(|term| AffinityTerm::new(term, &pod)).collect::<Vec<_>>()
        };
        let Affinity { pod_affinity, pod_anti_affinity, .. } = affinity;
        let (near, far) = (pod_affinity.unwrap_or_default(), pod_anti_affinity.unwrap_or_default());
        let preferred = |terms: Option<Vec<WeightedPodAffinityTerm>>, sign: i64| {
            let terms = terms.into_iter().flatten();
            terms
                .map(|term| (sign * i64::from(term.weight), AffinityTerm::new(&term.pod_affinity_term, &pod)))
                .collect::<Vec<_>>()
        };
        let mut preferred_affinity = preferred(near.preferred_during_scheduling_ignored_during_execution, 1);
        preferred_affinity.extend(preferred(far.preferred_during_scheduling_ignored_during_execution, -1));
        Self {
            requests: pod_requests(&pod),
            non_zero: non_zero_requests(&pod),
            host_ports: host_ports(&pod),
            required_affinity: required(near.required_during_scheduling_ignored_during_execution.as_ref()),
            required_anti_affinity: required(far.required_during_scheduling_ignored_during_execution.as_ref()),
            preferred_affinity,
            pod,
        }
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// The name of the scheduler, and there of the profile, that it asks for.
    pub fn scheduler_name(&self) -> &str {
        let name = self.pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref());
        name.unwrap_or(crate::scheduler::SCHEDULER_NAME)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    /// Its UID.
    pub fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Its priority.
    pub fn priority(&self) -> i32 {
        self.pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0)
    }

    /// Its tolerations.
    pub fn tolerations(&self) -> &[Toleration] {
        self.pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default()
    }

    /// Whether the pod tells of affinity to other pods in a way that must hold.
    pub fn has_required_anti_affinity(&self) -> bool {
        !self.required_anti_affinity.is_empty()
    }
}

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else {
        return Vec::new();
    };
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = port.host_port.filter(|port| *port > 0)?;
            Some(HostPort {
                ip: port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".to_owned()),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                port: number,
            })
        })
        .collect()
}

/// A node and what runs, or is assumed to run, on it.
#[derive(Clone)]
pub struct NodeInfo {
    /// The object.
    pub node: Arc<Node>,
    /// What it allocates to pods.
    pub allocatable: Resource,
    /// What its pods request.
    pub requested: Resource,
    /// The same, with something assumed for those that request nothing.
    pub non_zero: Resource,
    /// The pods.
    pub pods: Vec<Arc<PodInfo>>,
    /// The ports taken on the node itself.
    pub host_ports: Vec<HostPort>,
    /// The sizes of the images that it has, in bytes, by every name they have.
    pub images: Arc<BTreeMap<String, i64>>,
    /// Grows with every change: a snapshot takes over what is newer than itself.
    pub generation: u64,
}

impl NodeInfo {
    /// A node without pods.
    pub fn new(node: Arc<Node>) -> Self {
        let status = node.status.as_ref();
        let allocatable = status.and_then(|status| status.allocatable.as_ref()).map(Resource::from_list);
        let images = status.and_then(|status| status.images.as_ref()).into_iter().flatten();
        let images = images.flat_map(|image| {
            let size = image.size_bytes.unwrap_or(0);
            image.names.iter().flatten().map(move |name| (name.clone(), size))
        });
        Self {
            allocatable: allocatable.unwrap_or_default(),
            images: Arc::new(images.collect()),
            requested: Resource::default(),
            non_zero: Resource::default(),
            pods: Vec::new(),
            host_ports: Vec::new(),
            generation: 0,
            node,
        }
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        self.node.metadata.name.as_deref().unwrap_or_default()
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.node.metadata.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str)
    }

    /// The same node as the API now has it; its pods stay.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let fresh = Self::new(node);
        self.node = fresh.node;
        self.allocatable = fresh.allocatable;
        self.images = fresh.images;
    }

    /// Counts a pod in.
    pub fn add_pod(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.non_zero.add(&pod.non_zero);
        self.host_ports.extend(pod.host_ports.iter().cloned());
        self.pods.push(pod);
    }

    /// Counts a pod out.
    pub fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let at = self.pods.iter().position(|pod| pod.uid() == uid)?;
        let pod = self.pods.swap_remove(at);
        self.requested.subtract(&pod.requests);
        self.non_zero.subtract(&pod.non_zero);
        for port in &pod.host_ports {
            if let Some(at) = self.host_ports.iter().position(|taken| taken == port) {
                self.host_ports.swap_remove(at);
            }
        }
        Some(pod)
    }
}
