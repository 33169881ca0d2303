//! Pods of one kind are spread over the values of a node label: zones, machines, racks.
//!
//! A pod without constraints of its own is spread over zones and machines by preference, together with the pods of the
//! same controller. (Kubernetes finds those by the selectors of services and controllers; the owner is the same for all
//! that a controller makes, and needs no further watch.)

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use minik8s_api::selector::{LabelSelector, Operator, Requirement};

use crate::cache::Snapshot;
use crate::framework::{
    ClusterEvent, CycleState, Filter, MAX_NODE_SCORE, Plugin, PreFilter, PreScore, Rejection, Score, Verdict,
};
use crate::node_info::{NodeInfo, PodInfo, parse_selector};
use crate::plugins::{node_affinity, taint_toleration};

/// The plugin's name.
pub const NAME: &str = "PodTopologySpread";

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

/// See the module.
pub struct PodTopologySpread;

/// Which pods count.
enum Among {
    Selected(LabelSelector),
    SameController(String),
}

struct Constraint {
    key: String,
    max_skew: i64,
    min_domains: usize,
    among: Among,
    honor_affinity: bool,
    honor_taints: bool,
    /// How many pods count, by value of the key.
    counts: BTreeMap<String, i64>,
    /// Whether the pod itself counts once it is there.
    counts_itself: bool,
}

struct Hard(Vec<Constraint>);
struct Soft(Vec<Constraint>);

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        NAME
    }
    fn events(&self) -> &'static [ClusterEvent] {
        use ClusterEvent::{NodeAdded, NodeLabels, NodeTaints, PodBound, PodGone, PodLabels};
        &[NodeAdded, NodeLabels, NodeTaints, PodBound, PodGone, PodLabels]
    }
    fn pre_filter(&self) -> Option<&dyn PreFilter> {
        Some(self)
    }
    fn filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }
    fn pre_score(&self) -> Option<&dyn PreScore> {
        Some(self)
    }
    fn score(&self) -> Option<&dyn Score> {
        Some(self)
    }
}

fn controller(pod: &PodInfo) -> Option<&str> {
    let owners = pod.pod.metadata.owner_references.as_ref()?;
    owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
}

impl Constraint {
    fn new(constraint: &TopologySpreadConstraint, pod: &PodInfo) -> Self {
        let mut requirements = parse_selector(constraint.label_selector.as_ref()).requirements().to_vec();
        let nothing = parse_selector(constraint.label_selector.as_ref()).is_nothing();
        for key in constraint.match_label_keys.iter().flatten() {
            let value = pod.pod.metadata.labels.as_ref().and_then(|labels| labels.get(key));
            let value = value.and_then(|value| Requirement::new(key, Operator::In, vec![value.clone()]).ok());
            requirements.extend(value);
        }
        let selector = if nothing { LabelSelector::nothing() } else { LabelSelector::new(requirements) };
        Self {
            key: constraint.topology_key.clone(),
            max_skew: i64::from(constraint.max_skew),
            min_domains: constraint.min_domains.and_then(|n| usize::try_from(n).ok()).unwrap_or(1),
            counts_itself: selector.matches_set(pod.pod.metadata.labels.as_ref()),
            among: Among::Selected(selector),
            honor_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
            counts: BTreeMap::new(),
        }
    }

    fn system_default(key: &str, max_skew: i64, owner: &str) -> Self {
        Self {
            key: key.to_owned(),
            max_skew,
            min_domains: 1,
            among: Among::SameController(owner.to_owned()),
            honor_affinity: true,
            honor_taints: false,
            counts: BTreeMap::new(),
            counts_itself: true,
        }
    }

    fn counts_pod(&self, pod: &PodInfo, namespace: &str) -> bool {
        pod.namespace() == namespace
            && pod.pod.metadata.deletion_timestamp.is_none()
            && match &self.among {
                Among::Selected(selector) => selector.matches_set(pod.pod.metadata.labels.as_ref()),
                Among::SameController(owner) => controller(pod) == Some(owner),
            }
    }

    fn counts_node(&self, pod: &PodInfo, node: &NodeInfo) -> bool {
        (!self.honor_affinity || node_affinity::matches(pod, node))
            && (!self.honor_taints || taint_toleration::untolerated(pod, node).is_none())
    }
}

/// Counts the pods of each constraint by domain. A node counts where it has the keys of all constraints.
fn count(constraints: &mut [Constraint], pod: &PodInfo, nodes: impl Iterator<Item = Arc<NodeInfo>>) {
    let keys: Vec<String> = constraints.iter().map(|constraint| constraint.key.clone()).collect();
    for node in nodes {
        if !keys.iter().all(|key| node.label(key).is_some()) {
            continue;
        }
        for constraint in &mut *constraints {
            if !constraint.counts_node(pod, &node) {
                continue;
            }
            let Some(value) = node.label(&constraint.key) else {
                continue;
            };
            let here = node.pods.iter().filter(|other| constraint.counts_pod(other, pod.namespace())).count();
            *constraint.counts.entry(value.to_owned()).or_default() += here as i64;
        }
    }
}

fn constraints(pod: &PodInfo, when: &str) -> Vec<Constraint> {
    let all = pod.pod.spec.iter().flat_map(|spec| spec.topology_spread_constraints.iter().flatten());
    all.filter(|constraint| constraint.when_unsatisfiable == when).map(|c| Constraint::new(c, pod)).collect()
}

impl PreFilter for PodTopologySpread {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<Option<BTreeSet<String>>, Rejection> {
        let mut hard = constraints(pod, "DoNotSchedule");
        if !hard.is_empty() {
            count(&mut hard, pod, snapshot.nodes().cloned());
            state.write("PodTopologySpread/hard", Hard(hard));
        }
        Ok(None)
    }

    fn remove_pod(&self, state: &mut CycleState, pod: &PodInfo, victim: &PodInfo, node: &NodeInfo) {
        let Some(Hard(hard)) = state.read::<Hard>("PodTopologySpread/hard") else {
            return;
        };
        let without = hard.iter().map(|constraint| {
            let mut counts = constraint.counts.clone();
            if constraint.counts_pod(victim, pod.namespace())
                && let Some(count) = node.label(&constraint.key).and_then(|value| counts.get_mut(value))
            {
                *count -= 1;
            }
            Constraint {
                key: constraint.key.clone(),
                among: match &constraint.among {
                    Among::Selected(selector) => Among::Selected(selector.clone()),
                    Among::SameController(owner) => Among::SameController(owner.clone()),
                },
                counts,
                ..*constraint
            }
        });
        let without = Hard(without.collect());
        state.write("PodTopologySpread/hard", without);
    }
}

impl Filter for PodTopologySpread {
    fn filter(&self, state: &CycleState, _: &PodInfo, node: &NodeInfo) -> Verdict {
        let Some(Hard(hard)) = state.read::<Hard>("PodTopologySpread/hard") else {
            return Ok(());
        };
        for constraint in hard {
            let Some(value) = node.label(&constraint.key) else {
                let reason = "node(s) didn't match pod topology spread constraints (missing required label)";
                return Err(Rejection::unresolvable(NAME, reason));
            };
            let enough = constraint.counts.len() >= constraint.min_domains;
            let least = if enough { constraint.counts.values().copied().min().unwrap_or(0) } else { 0 };
            let here = constraint.counts.get(value).copied().unwrap_or(0);
            if here + i64::from(constraint.counts_itself) - least > constraint.max_skew {
                let reason = "node(s) didn't match pod topology spread constraints";
                return Err(Rejection::unschedulable(NAME, reason));
            }
        }
        Ok(())
    }
}

impl PreScore for PodTopologySpread {
    fn pre_score(&self, state: &mut CycleState, pod: &PodInfo, snapshot: &Snapshot, _: &[Arc<NodeInfo>]) {
        let mut soft = constraints(pod, "ScheduleAnyway");
        let own = pod.pod.spec.as_ref().is_some_and(|spec| {
            spec.topology_spread_constraints.as_ref().is_some_and(|constraints| !constraints.is_empty())
        });
        if !own && let Some(owner) = controller(pod) {
            let zoned = snapshot.nodes().any(|node| node.label(ZONE).is_some());
            soft.extend(zoned.then(|| Constraint::system_default(ZONE, 3, owner)));
            soft.push(Constraint::system_default(HOSTNAME, 5, owner));
        }
        for constraint in &mut soft {
            count(std::slice::from_mut(constraint), pod, snapshot.nodes().cloned());
        }
        state.write("PodTopologySpread/soft", Soft(soft));
    }
}

/// The score of a node that lacks a key: the worst, once normalized.
const LACKS_KEY: i64 = i64::MAX;

impl Score for PodTopologySpread {
    fn weight(&self) -> i64 {
        2
    }

    /// How crowded the node's domains are; fewer domains weigh less, for they fill up faster.
    fn score(&self, state: &CycleState, _: &PodInfo, node: &NodeInfo) -> i64 {
        let Some(Soft(soft)) = state.read::<Soft>("PodTopologySpread/soft") else {
            return 0;
        };
        let mut crowded = 0.0;
        for constraint in soft {
            let Some(value) = node.label(&constraint.key) else {
                return LACKS_KEY;
            };
            let weight = ((constraint.counts.len() + 2) as f64).ln();
            let here = constraint.counts.get(value).copied().unwrap_or(0);
            crowded += here as f64 * weight + (constraint.max_skew - 1) as f64;
        }
        crowded.round() as i64
    }

    fn normalize(&self, state: &CycleState, _: &[Arc<NodeInfo>], scores: &mut [i64]) {
        if state.read::<Soft>("PodTopologySpread/soft").is_none_or(|soft| soft.0.is_empty()) {
            scores.fill(0);
            return;
        }
        let known = || scores.iter().copied().filter(|score| *score != LACKS_KEY);
        let (max, min) = (known().max().unwrap_or(0), known().min().unwrap_or(0));
        for score in scores {
            *score = match *score {
                LACKS_KEY => 0,
                _ if max == 0 => MAX_NODE_SCORE,
                score => MAX_NODE_SCORE * (max + min - score) / max,
            };
        }
    }
}
