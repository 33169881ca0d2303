//! The volumes that this project makes itself: directories of the node. Pure.
//! (Kubernetes: `pkg/volume/hostpath`, and what minikube's `storage-provisioner` does.)

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use minik8s_client::object_reference;

/// The provisioner whose StorageClasses are served here.
pub const PROVISIONER: &str = "minik8s.io/hostpath";
/// Where the directories are.
const ROOT: &str = "/var/lib/minik8s/volumes";
pub(super) const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";

/// The reference by which a volume names its claim.
pub(super) fn claim_reference(claim: &PersistentVolumeClaim) -> ObjectReference {
    object_reference(claim)
}

/// The name of the volume made for a claim.
pub(super) fn volume_name(claim: &PersistentVolumeClaim) -> String {
    format!("pvc-{}", claim.metadata.uid.as_deref().unwrap_or_default())
}

/// The volume for a claim of this class; in words what stands against it.
pub(super) fn provision(claim: &PersistentVolumeClaim, class: &StorageClass) -> Result<PersistentVolume, String> {
    let spec = claim.spec.clone().unwrap_or_default();
    if spec.selector.is_some() {
        return Err("claim.Spec.Selector is not supported".to_owned());
    }
    if spec.data_source.is_some() || spec.data_source_ref.is_some() {
        return Err("a data source is not supported".to_owned());
    }
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err(format!("{PROVISIONER} does not support block volume provisioning"));
    }
    if let Some(parameter) = class.parameters.iter().flatten().next() {
        return Err(format!("invalid option {:?} for volume plugin {PROVISIONER}", parameter.0));
    }
    let name = volume_name(claim);
    let requested = spec.resources.and_then(|resources| resources.requests?.get("storage").cloned());
    let requested = requested.ok_or("the claim does not say how much storage it wants")?;
    Ok(PersistentVolume {
        metadata: ObjectMeta {
            annotations: Some(BTreeMap::from([(PROVISIONED_BY.to_owned(), PROVISIONER.to_owned())])),
            name: Some(name.clone()),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: spec.access_modes,
            capacity: Some(BTreeMap::from([("storage".to_owned(), requested)])),
            claim_ref: Some(claim_reference(claim)),
            host_path: Some(HostPathVolumeSource {
                path: format!("{ROOT}/{name}"),
                type_: Some("DirectoryOrCreate".to_owned()),
            }),
            mount_options: class.mount_options.clone(),
            persistent_volume_reclaim_policy: class.reclaim_policy.clone().or(Some("Delete".to_owned())),
            storage_class_name: class.metadata.name.clone(),
            volume_mode: spec.volume_mode,
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    })
}
