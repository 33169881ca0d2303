//! A cordoned node takes no new pods, except those that tolerate it.

use k8s_openapi::api::core::v1::Taint;

use crate::framework::{ClusterEvent, CycleState, Filter, Plugin, Rejection, Verdict};
use crate::node_info::{NodeInfo, PodInfo};
use crate::plugins::taint_toleration::tolerates;

/// The plugin's name.
pub const NAME: &str = "NodeUnschedulable";

/// See the module.
pub struct NodeUnschedulable;

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        NAME
    }
    fn events(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::NodeAdded, ClusterEvent::NodeTaints]
    }
    fn filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }
}

impl Filter for NodeUnschedulable {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Verdict {
        if !node.node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false) {
            return Ok(());
        }
        let taint = Taint {
            key: "node.kubernetes.io/unschedulable".to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        };
        if pod.tolerations().iter().any(|toleration| tolerates(toleration, &taint)) {
            return Ok(());
        }
        Err(Rejection::unresolvable(NAME, "node(s) were unschedulable"))
    }
}
