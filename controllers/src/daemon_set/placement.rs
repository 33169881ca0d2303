//! Where the pods of a DaemonSet should be, and which of those that are there should go. Pure.
//! (Kubernetes: `pkg/controller/daemon/daemon_controller.go`, `update.go`.)

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration,
};
use k8s_openapi::jiff::Timestamp;

use crate::node_affinity::{NAME_FIELD, admits};
use crate::owners::controller_reference;
use crate::pod_control::pod_from_template;
use crate::pods;
use crate::revisions::HASH_LABEL;
use crate::rolling_update::fence;
use crate::taint_eviction::tolerates;

/// Taints that the pods of DaemonSets do not mind.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
const NETWORK_UNAVAILABLE: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// The pods of a DaemonSet by the node that they are for.
pub(super) type ByNode = BTreeMap<String, Vec<Arc<Pod>>>;

/// The pod of the present template on a node, and that of an earlier one.
type Pair = (Option<Arc<Pod>>, Option<Arc<Pod>>);

/// The pod of `set` for a node.
pub(super) fn pod_for(set: &DaemonSet, node: &str, hash: &str) -> Pod {
    let mut pod = pod_from_template(&set.spec.template, &controller_reference(set));
    pod.metadata.labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.to_owned());
    let spec = pod.spec.get_or_insert_default();
    let here = NodeSelectorTerm {
        match_expressions: None,
        match_fields: Some(vec![NodeSelectorRequirement {
            key: NAME_FIELD.to_owned(),
            operator: "In".to_owned(),
            values: Some(vec![node.to_owned()]),
        }]),
    };
    let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
    let affinity: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    // Whether the template's own terms admit the node was decided before.
    affinity.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![here] });
    add_tolerations(spec);
    pod
}

fn add_tolerations(spec: &mut PodSpec) {
    let host_network = spec.host_network.unwrap_or(false).then_some(NETWORK_UNAVAILABLE);
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in TOLERATED.into_iter().chain(host_network) {
        let added = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        if !tolerations.contains(&added) {
            tolerations.push(added);
        }
    }
}

/// Whether a pod should be made for the node, and whether one that is there may stay.
pub(super) fn belongs(set: &DaemonSet, node: &Node) -> (bool, bool) {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let Some(mut spec) = set.spec.template.spec.clone() else { return (false, false) };
    if spec.node_name.as_deref().is_some_and(|wanted| !wanted.is_empty() && wanted != name) || !admits(&spec, node) {
        return (false, false);
    }
    add_tolerations(&mut spec);
    let tolerations = spec.tolerations.unwrap_or_default();
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let against: Vec<&str> = taints
        .filter(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
        .map(|taint| taint.effect.as_str())
        .collect();
    if against.contains(&"NoExecute") {
        return (false, false);
    }
    (!against.contains(&"NoSchedule"), true)
}

/// The node that a pod is for: where it is, or where its affinity sends it.
pub(super) fn target_node(pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    if let Some(node) = spec.node_name.as_ref().filter(|name| !name.is_empty()) {
        return Some(node.clone());
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let terms = required.node_selector_terms.iter();
    let mut fields = terms.flat_map(|term| term.match_fields.iter().flatten());
    let found = fields.find(|field| field.key == NAME_FIELD && field.operator == "In")?;
    found.values.as_ref()?.first().cloned()
}

/// What is to be created (by node) and deleted.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) create: Vec<String>,
    pub(super) delete: Vec<Arc<Pod>>,
    /// Pods that ended, of those to delete: a node where this happens again and again is given time.
    pub(super) ended: Vec<Arc<Pod>>,
}

/// A DaemonSet and what it is compared with.
pub(super) struct Look<'a> {
    pub(super) set: &'a DaemonSet,
    pub(super) nodes: &'a [Arc<Node>],
    pub(super) pods: &'a ByNode,
    /// The hash of the present template.
    pub(super) hash: &'a str,
    pub(super) now: Timestamp,
}

impl Look<'_> {
    fn is_new(&self, pod: &Pod) -> bool {
        pod.metadata.labels.as_ref().and_then(|labels| labels.get(HASH_LABEL)).map(String::as_str) == Some(self.hash)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        pods::is_available(pod, self.min_ready(), self.now)
    }

    pub(super) fn min_ready(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.set.spec.min_ready_seconds.unwrap_or(0)).unwrap_or(0))
    }

    /// How many nodes should have a pod.
    pub(super) fn desired(&self) -> i32 {
        self.nodes.iter().filter(|node| belongs(self.set, node).0).count() as i32
    }

    /// How many pods may be there twice, and how many may be missing, during an update.
    fn fences(&self) -> (i32, i32) {
        let rolling = self.set.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let surge = fence(rolling.and_then(|rolling| rolling.max_surge.as_ref()), self.desired(), true);
        let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        let unavailable = if unavailable.is_none() { 1 } else { fence(unavailable, self.desired(), true) };
        if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
    }

    fn rolls(&self) -> bool {
        let strategy = self.set.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
        strategy != Some("OnDelete")
    }

    /// What is missing and what is too much, whatever the revisions.
    pub(super) fn manage(&self) -> Plan {
        let mut plan = Plan::default();
        let surges = self.rolls() && self.fences().0 > 0;
        for node in self.nodes {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            let (should, may) = belongs(self.set, node);
            let here = self.pods.get(name).map(Vec::as_slice).unwrap_or_default();
            let staying = here.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
            if !may {
                plan.delete.extend(staying.cloned());
            } else if here.is_empty() {
                plan.create.extend(should.then(|| name.to_owned()));
            } else {
                let ended = |pod: &&Arc<Pod>| matches!(pods::phase(pod), "Succeeded" | "Failed");
                let (ended, mut running): (Vec<_>, Vec<_>) = staying.partition(ended);
                plan.ended.extend(ended.into_iter().cloned());
                running.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
                plan.delete.extend(if surges { self.surplus(&running) } else { rest(&running) });
            }
        }
        // The pods of nodes that are gone.
        let known = |name: &String| self.nodes.iter().any(|node| node.metadata.name.as_ref() == Some(name));
        for pods in self.pods.iter().filter(|(name, _)| !known(name)).map(|(_, pods)| pods) {
            plan.delete.extend(pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).cloned());
        }
        plan
    }

    /// Of the pods of one node, the oldest first, those that are too many while new ones may stand beside old ones.
    fn surplus(&self, running: &[&Arc<Pod>]) -> Vec<Arc<Pod>> {
        let (new, old): (Vec<_>, Vec<_>) = running.iter().copied().partition(|pod| self.is_new(pod));
        let mut surplus = rest(&new);
        surplus.extend(rest(&old));
        if let (Some(new), Some(old)) = (new.first(), old.first())
            && (!pods::is_ready(old) || self.is_available(new))
        {
            surplus.push(Arc::clone(old));
        }
        surplus
    }

    /// The pods of a node, where there is at most one of each.
    fn pair(&self, here: &[Arc<Pod>]) -> Option<Pair> {
        let staying = here.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        let (new, old): (Vec<_>, Vec<_>) = staying.partition(|pod| self.is_new(pod));
        (new.len() <= 1 && old.len() <= 1).then(|| (new.first().copied().cloned(), old.first().copied().cloned()))
    }

    /// What a rolling update does next.
    pub(super) fn roll(&self) -> Plan {
        let mut plan = Plan::default();
        if !self.rolls() {
            return plan;
        }
        let (surge, unavailable) = self.fences();
        let (mut missing, mut doubled) = (0, 0);
        let mut candidates = Vec::new();
        let empty = Vec::new();
        for node in self.nodes.iter().filter(|node| belongs(self.set, node).0) {
            let name = node.metadata.name.clone().unwrap_or_default();
            let here = self.pods.get(&name).unwrap_or(&empty);
            match (self.pair(here), surge > 0) {
                (None, _) | (Some((None, None)), false) | (Some((Some(_), Some(_))), false) => missing += 1,
                (Some((Some(new), None)), false) => missing += i32::from(!self.is_available(&new)),
                (Some((None, Some(old))), false) if self.is_available(&old) => candidates.push((name, old)),
                // Old pods that serve nobody are replaced at once, and do not use up what may be missing.
                (Some((None, Some(old))), false) => plan.delete.push(old),
                (Some((_, None)), true) => {}
                (Some((None, Some(old))), true) if self.is_available(&old) => candidates.push((name, old)),
                (Some((None, Some(_))), true) => plan.create.push(name),
                (Some((Some(new), Some(old))), true) if self.is_available(&new) => {
                    plan.delete.push(old);
                }
                (Some((Some(_), Some(_))), true) => doubled += 1,
            }
        }
        if surge > 0 {
            let room = usize::try_from(surge - doubled).unwrap_or(0);
            plan.create.extend(candidates.into_iter().take(room).map(|(name, _)| name));
        } else {
            let room = usize::try_from(unavailable - missing).unwrap_or(0);
            plan.delete.extend(candidates.into_iter().take(room).map(|(_, old)| old));
        }
        plan
    }
}

fn rest(pods: &[&Arc<Pod>]) -> Vec<Arc<Pod>> {
    pods.iter().skip(1).map(|pod| Arc::clone(pod)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn set(more: Value) -> DaemonSet {
        let mut spec = json!({"selector": {}, "template": {"spec": {"containers": []}}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(json!({"metadata": {"name": "ds", "uid": "u"}, "spec": spec})).unwrap()
    }

    fn node(name: &str, taints: Value) -> Arc<Node> {
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"taints": taints}})).unwrap())
    }

    fn pod(name: &str, node: &str, hash: &str, ready: bool) -> Arc<Pod> {
        let ready = if ready { "True" } else { "False" };
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": name, "labels": {HASH_LABEL: hash}}, "spec": {"nodeName": node, "containers": []},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}}))
            .unwrap(),
        )
    }

    fn by_node(pods: &[Arc<Pod>]) -> ByNode {
        let mut by_node = ByNode::new();
        for pod in pods {
            by_node.entry(target_node(pod).unwrap()).or_default().push(pod.clone());
        }
        by_node
    }

    fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
        pods.iter().map(|pod| pod.metadata.name.as_deref().unwrap()).collect()
    }

    #[test]
    fn taints_keep_new_pods_away_and_some_drive_old_ones_out() {
        let set = set(json!({}));
        assert_eq!(belongs(&set, &node("n", json!([]))), (true, true));
        let taint = |effect: &str| json!([{"key": "mine", "effect": effect}]);
        assert_eq!(belongs(&set, &node("n", taint("NoSchedule"))), (false, true));
        assert_eq!(belongs(&set, &node("n", taint("NoExecute"))), (false, false));
        let silent = json!([{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]);
        assert_eq!(belongs(&set, &node("n", silent)), (true, true));
    }

    #[test]
    fn a_pod_is_for_the_node_that_its_affinity_names() {
        let made = pod_for(&set(json!({})), "n1", "h");
        assert_eq!(target_node(&made).as_deref(), Some("n1"));
        assert_eq!(made.spec.unwrap().tolerations.unwrap().len(), 6);
    }

    #[test]
    fn every_node_has_one_pod() {
        let (set, nodes) = (set(json!({})), [node("a", json!([])), node("b", json!([]))]);
        let pods = by_node(&[pod("a1", "a", "h", true), pod("a2", "a", "h", true), pod("gone", "c", "h", true)]);
        let look = Look { set: &set, nodes: &nodes, pods: &pods, hash: "h", now: Timestamp::UNIX_EPOCH };
        let plan = look.manage();
        assert_eq!(plan.create, ["b"]);
        assert_eq!(names(&plan.delete), ["a2", "gone"]);
    }

    #[test]
    fn an_update_takes_down_what_serves_nobody_and_as_many_more_as_may_be_missing() {
        let (set, nodes) = (set(json!({})), ["a", "b", "c"].map(|name| node(name, json!([]))));
        let pods = by_node(&[pod("a", "a", "old", true), pod("b", "b", "old", false), pod("c", "c", "old", true)]);
        let look = Look { set: &set, nodes: &nodes, pods: &pods, hash: "new", now: Timestamp::UNIX_EPOCH };
        assert_eq!(names(&look.roll().delete), ["b", "a"]);
        let surging = self::set(json!({"updateStrategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}));
        let look = Look { set: &surging, ..look };
        assert_eq!(look.roll().create, ["b", "a"]);
    }
}
