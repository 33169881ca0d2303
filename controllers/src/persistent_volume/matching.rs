//! Which volume a claim gets. Pure.
//! (Kubernetes: `pkg/controller/volume/persistentvolume/index.go`, `staging/src/k8s.io/component-helpers/storage/volume`.)

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use minik8s_api::quantity::Quantity;

use crate::pod_owners::selector;

/// How a volume and a claim stand to each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Bond {
    /// The volume is nobody's.
    None,
    /// The volume is kept for the claim, by its name alone.
    Reserved,
    /// The volume is the claim's.
    Ours,
    /// The volume is another's.
    Other,
}

/// How `volume` stands to `claim`.
pub(super) fn bond(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Bond {
    let Some(reference) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else { return Bond::None };
    if reference.name != claim.metadata.name || reference.namespace != claim.metadata.namespace {
        return Bond::Other;
    }
    match reference.uid.as_deref().filter(|uid| !uid.is_empty()) {
        None => Bond::Reserved,
        uid if uid == claim.metadata.uid.as_deref() => Bond::Ours,
        _ => Bond::Other,
    }
}

/// The claim's class; empty for none.
pub(super) fn class_of(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref()).unwrap_or_default()
}

/// How much a claim asks for.
pub(super) fn requested(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    Quantity::parse(&requests.get("storage")?.0).ok()
}

fn capacity(volume: &PersistentVolume) -> Option<Quantity> {
    let capacity = volume.spec.as_ref()?.capacity.as_ref()?;
    Quantity::parse(&capacity.get("storage")?.0).ok()
}

/// Whether the volume is what the claim asks for, whoever has it.
pub(super) fn suits(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let (Some(has), Some(wants)) = (volume.spec.as_ref(), claim.spec.as_ref()) else { return false };
    let modes = has.access_modes.as_deref().unwrap_or_default();
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".to_owned());
    let large = match (capacity(volume), requested(claim)) {
        (Some(capacity), Some(requested)) => capacity >= requested,
        (_, None) => true,
        (None, Some(_)) => false,
    };
    large
        && wants.access_modes.iter().flatten().all(|wanted| modes.contains(wanted))
        && mode(&has.volume_mode) == mode(&wants.volume_mode)
        && has.storage_class_name.as_deref().unwrap_or_default() == class_of(claim)
}

/// The volume for a claim: one that is kept for it, or else the smallest that suits and is nobody's.
pub(super) fn find(claim: &PersistentVolumeClaim, volumes: &[Arc<PersistentVolume>]) -> Option<Arc<PersistentVolume>> {
    let there = || volumes.iter().filter(|volume| volume.metadata.deletion_timestamp.is_none());
    let kept =
        there().find(|volume| matches!(bond(volume, claim), Bond::Reserved | Bond::Ours) && suits(volume, claim));
    if let Some(kept) = kept {
        return Some(kept.clone());
    }
    let labels = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref()).map(selector);
    let phase = |volume: &PersistentVolume| volume.status.as_ref().and_then(|status| status.phase.clone());
    there()
        .filter(|volume| bond(volume, claim) == Bond::None && suits(volume, claim))
        .filter(|volume| phase(volume).as_deref() == Some("Available"))
        .filter(|volume| labels.as_ref().is_none_or(|own| own.matches_set(volume.metadata.labels.as_ref())))
        .min_by_key(|volume| (capacity(volume), volume.metadata.name.clone()))
        .cloned()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn volume(name: &str, size: &str, spec: Value) -> Arc<PersistentVolume> {
        let mut whole = json!({"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"]});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let volume = json!({"metadata": {"name": name, "labels": {"disk": name}}, "spec": whole, "status": {"phase": "Available"}});
        Arc::new(serde_json::from_value(volume).unwrap())
    }

    fn check(claim: Value, expected: Option<&str>) {
        let mut spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}});
        spec.as_object_mut().unwrap().extend(claim.as_object().unwrap().clone());
        let claim = json!({"metadata": {"name": "c", "namespace": "ns", "uid": "u"}, "spec": spec});
        let claim = serde_json::from_value(claim).unwrap();
        let volumes = [
            volume("small", "1Gi", json!({})),
            volume("large", "10Gi", json!({})),
            volume("fitting", "3Gi", json!({})),
            volume("taken", "2Gi", json!({"claimRef": {"namespace": "ns", "name": "other"}})),
            volume("fast", "5Gi", json!({"storageClassName": "fast"})),
            volume("kept", "9Gi", json!({"storageClassName": "slow", "claimRef": {"namespace": "ns", "name": "c"}})),
        ];
        let found = find(&claim, &volumes);
        assert_eq!(found.as_ref().and_then(|found| found.metadata.name.as_deref()), expected);
    }

    #[test]
    fn a_claim_gets_the_smallest_volume_that_suits() {
        check(json!({}), Some("fitting"));
        check(json!({"storageClassName": "fast"}), Some("fast"));
        check(json!({"storageClassName": "slow"}), Some("kept"));
        check(json!({"selector": {"matchLabels": {"disk": "large"}}}), Some("large"));
        check(json!({"accessModes": ["ReadWriteMany"]}), None);
    }
}
