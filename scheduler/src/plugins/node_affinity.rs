//! `nodeSelector` and node affinity: which nodes a pod must, or would rather, run on.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};

use crate::cache::Snapshot;
use crate::framework::{
    ClusterEvent, CycleState, Filter, Plugin, PreFilter, Rejection, Score, Verdict, default_normalize,
};
use crate::node_info::{NodeInfo, PodInfo};

/// The plugin's name.
pub const NAME: &str = "NodeAffinity";

/// See the module.
pub struct NodeAffinity;

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        NAME
    }
    fn events(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::NodeAdded, ClusterEvent::NodeLabels]
    }
    fn pre_filter(&self) -> Option<&dyn PreFilter> {
        Some(self)
    }
    fn filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }
    fn score(&self) -> Option<&dyn Score> {
        Some(self)
    }
}

/// Whether one requirement holds of a value, absent or present.
fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let among = |value: &str| values.iter().any(|wanted| wanted == value);
    let number = |text: &str| text.parse::<i64>().ok();
    let limit = values.first().and_then(|limit| number(limit));
    match requirement.operator.as_str() {
        "In" => value.is_some_and(among),
        "NotIn" => !value.is_some_and(among),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => value.and_then(number).zip(limit).is_some_and(|(value, limit)| value > limit),
        "Lt" => value.and_then(number).zip(limit).is_some_and(|(value, limit)| value < limit),
        _ => false,
    }
}

/// Whether a term holds of a node. A term that requires nothing holds of none.
pub fn term_matches(term: &NodeSelectorTerm, node: &NodeInfo) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if labels.is_empty() && fields.is_empty() {
        return false;
    }
    labels.iter().all(|requirement| holds(requirement, node.label(&requirement.key)))
        && fields
            .iter()
            .all(|requirement| holds(requirement, (requirement.key == "metadata.name").then(|| node.name())))
}

fn required_terms(pod: &PodInfo) -> Option<&[NodeSelectorTerm]> {
    let affinity = pod.pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    Some(&required.node_selector_terms)
}

/// Whether the pod's selector and its required terms admit the node.
pub fn matches(pod: &PodInfo, node: &NodeInfo) -> bool {
    let selector = pod.pod.spec.as_ref().and_then(|spec| spec.node_selector.as_ref());
    let selected = selector.is_none_or(|selector| selector.iter().all(|(key, value)| node.label(key) == Some(value)));
    selected && required_terms(pod).is_none_or(|terms| terms.iter().any(|term| term_matches(term, node)))
}

impl PreFilter for NodeAffinity {
    /// Terms that all name their nodes (DaemonSet pods) spare the search.
    fn pre_filter(
        &self,
        _: &mut CycleState,
        pod: &PodInfo,
        _: &Snapshot,
    ) -> Result<Option<BTreeSet<String>>, Rejection> {
        let Some(terms) = required_terms(pod) else {
            return Ok(None);
        };
        let mut names = BTreeSet::new();
        for term in terms {
            let by_name = term.match_fields.iter().flatten();
            let mut by_name = by_name.filter(|field| field.key == "metadata.name" && field.operator == "In");
            match by_name.next() {
                Some(field) => names.extend(field.values.iter().flatten().cloned()),
                None => return Ok(None),
            }
        }
        Ok(Some(names))
    }
}

impl Filter for NodeAffinity {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Verdict {
        if matches(pod, node) {
            return Ok(());
        }
        Err(Rejection::unresolvable(NAME, "node(s) didn't match Pod's node affinity/selector"))
    }
}

impl Score for NodeAffinity {
    fn weight(&self) -> i64 {
        2
    }

    /// The weights of the preferred terms that hold.
    fn score(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let affinity = pod.pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref());
        let terms = affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
        let terms = terms.into_iter().flatten();
        terms.filter(|term| term_matches(&term.preference, node)).map(|term| i64::from(term.weight)).sum()
    }

    fn normalize(&self, _: &CycleState, _: &[std::sync::Arc<NodeInfo>], scores: &mut [i64]) {
        default_normalize(scores, false);
    }
}
