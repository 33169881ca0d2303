//! What a pod may ask for and this scheduler cannot give is refused by name, never ignored.

use std::collections::BTreeSet;

use crate::cache::Snapshot;
use crate::framework::{ClusterEvent, CycleState, Plugin, PreFilter, Rejection};
use crate::node_info::PodInfo;

/// The plugin's name.
pub const NAME: &str = "Unsupported";

/// See the module.
pub struct Unsupported;

impl Plugin for Unsupported {
    fn name(&self) -> &'static str {
        NAME
    }
    fn events(&self) -> &'static [ClusterEvent] {
        &[]
    }
    fn pre_filter(&self) -> Option<&dyn PreFilter> {
        Some(self)
    }
}

impl PreFilter for Unsupported {
    fn pre_filter(
        &self,
        _: &mut CycleState,
        pod: &PodInfo,
        _: &Snapshot,
    ) -> Result<Option<BTreeSet<String>>, Rejection> {
        let claims = pod.pod.spec.as_ref().and_then(|spec| spec.resource_claims.as_ref());
        if claims.is_some_and(|claims| !claims.is_empty()) {
            let reason = "spec.resourceClaims is not supported by minik8s' scheduler";
            return Err(Rejection::unresolvable(NAME, reason));
        }
        Ok(None)
    }
}
