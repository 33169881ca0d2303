//! A node whose CPU and memory are used in like shares is better than one where one is full and the other idle.

use crate::framework::{ClusterEvent, CycleState, MAX_NODE_SCORE, Plugin, Score};
use crate::node_info::{NodeInfo, PodInfo};

/// The plugin's name.
pub const NAME: &str = "NodeResourcesBalancedAllocation";

/// See the module.
pub struct NodeResourcesBalancedAllocation;

impl Plugin for NodeResourcesBalancedAllocation {
    fn name(&self) -> &'static str {
        NAME
    }
    fn events(&self) -> &'static [ClusterEvent] {
        &[]
    }
    fn score(&self) -> Option<&dyn Score> {
        Some(self)
    }
}

impl Score for NodeResourcesBalancedAllocation {
    fn weight(&self) -> i64 {
        1
    }

    /// One minus half the difference of the two shares, which is the standard deviation of two values.
    fn score(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let share = |used: i64, all: i64| {
            if all > 0 { (used as f64 / all as f64).min(1.0) } else { 1.0 }
        };
        let cpu = share(node.requested.milli_cpu + pod.requests.milli_cpu, node.allocatable.milli_cpu);
        let memory = share(node.requested.memory + pod.requests.memory, node.allocatable.memory);
        ((1.0 - (cpu - memory).abs() / 2.0) * MAX_NODE_SCORE as f64) as i64
    }
}
