//! Pods that want to be near other pods, or far from them. Near is: the same value of a node label.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::cache::Snapshot;
use crate::framework::{
    ClusterEvent, CycleState, Filter, MAX_NODE_SCORE, Plugin, PreFilter, PreScore, Rejection, Score, Verdict,
};
use crate::node_info::{AffinityTerm, Labels, NodeInfo, PodInfo};

/// The plugin's name.
pub const NAME: &str = "InterPodAffinity";

/// A pod's own hard affinity draws others like it with this weight.
const HARD_AFFINITY_WEIGHT: i64 = 1;

/// See the module.
pub struct InterPodAffinity;

/// How many pods, by label key and value.
type Domains = BTreeMap<(String, String), i64>;

#[derive(Clone, Default)]
struct Counts {
    /// Pods that the incoming pod wants to be near to: those that match all of its terms.
    wanted: Domains,
    /// Pods that it does not want near.
    unwanted: Domains,
    /// Pods that do not want it near.
    unwelcome: Domains,
    namespaces: Arc<BTreeMap<String, Labels>>,
}

struct Preferred(Domains);

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        NAME
    }
    fn events(&self) -> &'static [ClusterEvent] {
        use ClusterEvent::{NodeAdded, NodeLabels, PodBound, PodGone, PodLabels};
        &[NodeAdded, NodeLabels, PodBound, PodGone, PodLabels]
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

impl Counts {
    fn matches(&self, term: &AffinityTerm, pod: &Pod) -> bool {
        term.matches(pod, &|namespace| self.namespaces.get(namespace).cloned())
    }

    fn matches_all(&self, terms: &[AffinityTerm], pod: &Pod) -> bool {
        !terms.is_empty() && terms.iter().all(|term| self.matches(term, pod))
    }

    /// Counts `other`, which is on `node`, in (`by` 1) or out (`by` -1).
    fn count(&mut self, pod: &PodInfo, other: &PodInfo, node: &NodeInfo, by: i64) {
        fn bump(domains: &mut Domains, key: &str, node: &NodeInfo, by: i64) {
            if let Some(value) = node.label(key) {
                *domains.entry((key.to_owned(), value.to_owned())).or_default() += by;
            }
        }
        if self.matches_all(&pod.required_affinity, &other.pod) {
            for term in &pod.required_affinity {
                bump(&mut self.wanted, &term.topology_key, node, by);
            }
        }
        for term in &pod.required_anti_affinity {
            if self.matches(term, &other.pod) {
                bump(&mut self.unwanted, &term.topology_key, node, by);
            }
        }
        for term in &other.required_anti_affinity {
            if self.matches(term, &pod.pod) {
                bump(&mut self.unwelcome, &term.topology_key, node, by);
            }
        }
    }
}

fn has(domains: &Domains, key: &str, node: &NodeInfo) -> bool {
    let value = node.label(key).map(str::to_owned);
    value.is_some_and(|value| domains.get(&(key.to_owned(), value)).is_some_and(|count| *count > 0))
}

impl PreFilter for InterPodAffinity {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<Option<BTreeSet<String>>, Rejection> {
        let own = !pod.required_affinity.is_empty() || !pod.required_anti_affinity.is_empty();
        let mut counts = Counts { namespaces: snapshot.namespaces.clone(), ..Counts::default() };
        for node in snapshot.nodes() {
            for other in node.pods.iter().filter(|other| own || other.has_required_anti_affinity()) {
                counts.count(pod, other, node, 1);
            }
        }
        state.write(NAME, counts);
        Ok(None)
    }

    fn remove_pod(&self, state: &mut CycleState, pod: &PodInfo, victim: &PodInfo, node: &NodeInfo) {
        if let Some(counts) = state.read::<Counts>(NAME) {
            let mut counts = counts.clone();
            counts.count(pod, victim, node, -1);
            state.write(NAME, counts);
        }
    }
}

impl Filter for InterPodAffinity {
    fn filter(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Verdict {
        let Some(counts) = state.read::<Counts>(NAME) else {
            return Ok(());
        };
        let terms = &pod.required_affinity;
        let near = terms.iter().all(|term| has(&counts.wanted, &term.topology_key, node));
        // The first pod of a group that wants to be together has nobody to be near to but itself.
        let first = counts.wanted.values().all(|count| *count <= 0)
            && counts.matches_all(terms, &pod.pod)
            && terms.iter().all(|term| node.label(&term.topology_key).is_some());
        if !near && !first {
            return Err(Rejection::unresolvable(NAME, "node(s) didn't match pod affinity rules"));
        }
        if pod.required_anti_affinity.iter().any(|term| has(&counts.unwanted, &term.topology_key, node)) {
            return Err(Rejection::unschedulable(NAME, "node(s) didn't match pod anti-affinity rules"));
        }
        let unwelcome = counts.unwelcome.iter().filter(|(_, count)| **count > 0);
        if unwelcome.into_iter().any(|((key, value), _)| node.label(key) == Some(value)) {
            return Err(Rejection::unschedulable(NAME, "node(s) didn't satisfy existing pods anti-affinity rules"));
        }
        Ok(())
    }
}

impl PreScore for InterPodAffinity {
    fn pre_score(&self, state: &mut CycleState, pod: &PodInfo, snapshot: &Snapshot, _: &[Arc<NodeInfo>]) {
        let counts = Counts { namespaces: snapshot.namespaces.clone(), ..Counts::default() };
        let mut preferred = Domains::new();
        let mut add = |term: &AffinityTerm, node: &NodeInfo, weight: i64| {
            if let Some(value) = node.label(&term.topology_key) {
                *preferred.entry((term.topology_key.clone(), value.to_owned())).or_default() += weight;
            }
        };
        for node in snapshot.nodes() {
            for other in &node.pods {
                for (weight, term) in &pod.preferred_affinity {
                    if counts.matches(term, &other.pod) {
                        add(term, node, *weight);
                    }
                }
                for (weight, term) in &other.preferred_affinity {
                    if counts.matches(term, &pod.pod) {
                        add(term, node, *weight);
                    }
                }
                for term in &other.required_affinity {
                    if counts.matches(term, &pod.pod) {
                        add(term, node, HARD_AFFINITY_WEIGHT);
                    }
                }
            }
        }
        state.write("InterPodAffinity/preferred", Preferred(preferred));
    }
}

impl Score for InterPodAffinity {
    fn weight(&self) -> i64 {
        2
    }

    fn score(&self, state: &CycleState, _: &PodInfo, node: &NodeInfo) -> i64 {
        let Some(Preferred(domains)) = state.read::<Preferred>("InterPodAffinity/preferred") else {
            return 0;
        };
        let here = domains.iter().filter(|((key, value), _)| node.label(key) == Some(value));
        here.map(|(_, weight)| weight).sum()
    }

    fn normalize(&self, _: &CycleState, _: &[Arc<NodeInfo>], scores: &mut [i64]) {
        let max = scores.iter().copied().max().unwrap_or(0);
        let min = scores.iter().copied().min().unwrap_or(0);
        for score in scores {
            *score = if max > min { MAX_NODE_SCORE * (*score - min) / (max - min) } else { 0 };
        }
    }
}
