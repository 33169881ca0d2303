//! A pod that names its node runs there or nowhere.

use crate::framework::{ClusterEvent, CycleState, Filter, Plugin, Rejection, Verdict};
use crate::node_info::{NodeInfo, PodInfo};

/// The plugin's name.
pub const NAME: &str = "NodeName";

/// See the module.
pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        NAME
    }
    fn events(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::NodeAdded]
    }
    fn filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }
}

impl Filter for NodeName {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Verdict {
        match pod.pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) {
            Some(name) if !name.is_empty() && name != node.name() => {
                Err(Rejection::unresolvable(NAME, "node(s) didn't match the requested node name"))
            }
            _ => Ok(()),
        }
    }
}
