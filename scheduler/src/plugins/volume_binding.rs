//! A pod waits until the claims that it mounts are bound.
//!
//! Kubernetes' plugin of this name also chooses volumes for claims that wait for their first consumer; that part is not
//! here yet, so such a claim holds its pod back with the words for unbound claims.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use minik8s_client::Lister;

use crate::cache::Snapshot;
use crate::framework::{ClusterEvent, CycleState, Plugin, PreFilter, Rejection};
use crate::node_info::PodInfo;

/// The plugin's name.
pub const NAME: &str = "VolumeBinding";

/// See the module.
pub struct VolumeBinding {
    /// The claims; `None` where there is no API (pure tests), and then every claim is missing.
    pub claims: Option<Lister<PersistentVolumeClaim>>,
}

impl Plugin for VolumeBinding {
    fn name(&self) -> &'static str {
        NAME
    }
    fn events(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::ClaimChanged]
    }
    fn pre_filter(&self) -> Option<&dyn PreFilter> {
        Some(self)
    }
}

impl PreFilter for VolumeBinding {
    fn pre_filter(
        &self,
        _: &mut CycleState,
        pod: &PodInfo,
        _: &Snapshot,
    ) -> Result<Option<BTreeSet<String>>, Rejection> {
        let volumes = pod.pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let names = volumes.filter_map(|volume| {
            let by_name = volume.persistent_volume_claim.as_ref().map(|source| source.claim_name.clone());
            by_name.or_else(|| volume.ephemeral.as_ref().map(|_| format!("{}-{}", pod.name(), volume.name)))
        });
        for name in names {
            let claim = self.claims.as_ref().and_then(|claims| claims.get(pod.namespace(), &name));
            let Some(claim) = claim else {
                let reason = format!("persistentvolumeclaim \"{name}\" not found");
                return Err(Rejection::unresolvable(NAME, reason));
            };
            if claim.metadata.deletion_timestamp.is_some() {
                let reason = format!("persistentvolumeclaim \"{name}\" is being deleted");
                return Err(Rejection::unresolvable(NAME, reason));
            }
            if claim.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Bound") {
                let reason = "pod has unbound immediate PersistentVolumeClaims";
                return Err(Rejection::unresolvable(NAME, reason));
            }
        }
        Ok(None)
    }
}
