//! Two pods cannot have the same port of a node.

use crate::framework::{ClusterEvent, CycleState, Filter, Plugin, Rejection, Verdict};
use crate::node_info::{NodeInfo, PodInfo};

/// The plugin's name.
pub const NAME: &str = "NodePorts";

/// See the module.
pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        NAME
    }
    fn events(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::NodeAdded, ClusterEvent::PodGone]
    }
    fn filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }
}

impl Filter for NodePorts {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Verdict {
        let taken = |wanted| node.host_ports.iter().any(|port| port.conflicts(wanted));
        if pod.host_ports.iter().any(taken) {
            let reason = "node(s) didn't have free ports for the requested pod ports";
            return Err(Rejection::unschedulable(NAME, reason));
        }
        Ok(())
    }
}
