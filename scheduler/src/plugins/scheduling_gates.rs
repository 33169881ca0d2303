//! A pod with gates is not tried before somebody has taken them off.

use crate::framework::{ClusterEvent, Plugin, PreEnqueue, Rejection, Verdict};
use crate::node_info::PodInfo;

/// The plugin's name.
pub const NAME: &str = "SchedulingGates";

/// See the module.
pub struct SchedulingGates;

impl Plugin for SchedulingGates {
    fn name(&self) -> &'static str {
        NAME
    }
    fn events(&self) -> &'static [ClusterEvent] {
        &[]
    }
    fn pre_enqueue(&self) -> Option<&dyn PreEnqueue> {
        Some(self)
    }
}

impl PreEnqueue for SchedulingGates {
    fn pre_enqueue(&self, pod: &PodInfo) -> Verdict {
        let gates = pod.pod.spec.iter().flat_map(|spec| spec.scheduling_gates.iter().flatten());
        let names: Vec<&str> = gates.map(|gate| gate.name.as_str()).collect();
        if names.is_empty() {
            return Ok(());
        }
        Err(Rejection::unresolvable(NAME, format!("waiting for scheduling gates: {}", names.join(", "))))
    }
}
