//! A node's taints keep pods away that do not tolerate them; soft taints only count against the node.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::framework::{ClusterEvent, CycleState, Filter, Plugin, Rejection, Score, Verdict, default_normalize};
use crate::node_info::{NodeInfo, PodInfo};

/// The plugin's name.
pub const NAME: &str = "TaintToleration";

/// See the module.
pub struct TaintToleration;

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        NAME
    }
    fn events(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::NodeAdded, ClusterEvent::NodeTaints]
    }
    fn filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }
    fn score(&self) -> Option<&dyn Score> {
        Some(self)
    }
}

/// Whether this toleration tolerates this taint.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    let (wanted, is) = (toleration.value.as_deref().unwrap_or_default(), taint.value.as_deref().unwrap_or_default());
    match toleration.operator.as_deref().unwrap_or_default() {
        "Exists" => true,
        "" | "Equal" => wanted == is,
        "Gt" => compare(is, wanted).is_some_and(|order| order.is_gt()),
        "Lt" => compare(is, wanted).is_some_and(|order| order.is_lt()),
        _ => false,
    }
}

fn compare(left: &str, right: &str) -> Option<std::cmp::Ordering> {
    Some(left.parse::<i64>().ok()?.cmp(&right.parse::<i64>().ok()?))
}

fn taints(node: &NodeInfo) -> &[Taint] {
    node.node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

/// The first taint that keeps the pod from being scheduled on the node.
pub fn untolerated<'a>(pod: &PodInfo, node: &'a NodeInfo) -> Option<&'a Taint> {
    let hard = taints(node).iter().filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"));
    hard.into_iter().find(|taint| !pod.tolerations().iter().any(|toleration| tolerates(toleration, taint)))
}

impl Filter for TaintToleration {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Verdict {
        match untolerated(pod, node) {
            Some(_) => Err(Rejection::unresolvable(NAME, "node(s) had untolerated taint(s)")),
            None => Ok(()),
        }
    }
}

impl Score for TaintToleration {
    fn weight(&self) -> i64 {
        3
    }

    /// The number of soft taints that the pod does not tolerate.
    fn score(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let soft = taints(node).iter().filter(|taint| taint.effect == "PreferNoSchedule");
        let tolerations = pod.tolerations().iter();
        let fitting: Vec<_> = tolerations
            .filter(|toleration| matches!(toleration.effect.as_deref(), None | Some("" | "PreferNoSchedule")))
            .collect();
        soft.filter(|taint| !fitting.iter().any(|toleration| tolerates(toleration, taint))).count() as i64
    }

    fn normalize(&self, _: &CycleState, _: &[std::sync::Arc<NodeInfo>], scores: &mut [i64]) {
        default_normalize(scores, true);
    }
}
