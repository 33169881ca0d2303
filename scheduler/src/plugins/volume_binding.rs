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
        // A claim that is made for the pod's own volume, and one that others made.
        let names = volumes.filter_map(|volume| {
            let by_name = volume.persistent_volume_claim.as_ref().map(|source| (source.claim_name.clone(), false));
            by_name.or_else(|| volume.ephemeral.as_ref().map(|_| (format!("{}-{}", pod.name(), volume.name), true)))
        });
        for (name, is_own) in names {
            let claim = self.claims.as_ref().and_then(|claims| claims.get(pod.namespace(), &name));
            let Some(claim) = claim else {
                let missing = if is_own {
                    format!("waiting for ephemeral volume controller to create the persistentvolumeclaim \"{name}\"")
                } else {
                    format!("persistentvolumeclaim \"{name}\" not found")
                };
                return Err(Rejection::unresolvable(NAME, missing));
            };
            let mut owners = claim.metadata.owner_references.iter().flatten();
            let is_owner = |uid: &str| pod.pod.metadata.uid.as_deref() == Some(uid);
            if is_own && !owners.any(|owner| owner.controller == Some(true) && is_owner(&owner.uid)) {
                let (namespace, pod) = (pod.namespace(), pod.name());
                let reason =
                    format!("PVC {namespace}/{name} was not created for pod {namespace}/{pod} (pod is not owner)");
                return Err(Rejection::unresolvable(NAME, reason));
            }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_waits_for_its_claims_whoever_makes_them() {
        let check = |volume: serde_json::Value, expect: &str| {
            let spec = json!({"containers": [], "volumes": [volume]});
            let pod = json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": spec});
            let pod = PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap()));
            let plugin = VolumeBinding { claims: None };
            let refused = PreFilter::pre_filter(&plugin, &mut CycleState::default(), &pod, &Snapshot::default());
            assert_eq!(refused.err().unwrap().reasons, [expect]);
        };
        let named = json!({"name": "v", "persistentVolumeClaim": {"claimName": "data"}});
        check(named, "persistentvolumeclaim \"data\" not found");
        check(
            json!({"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}),
            "waiting for ephemeral volume controller to create the persistentvolumeclaim \"p-v\"",
        );
    }
}
