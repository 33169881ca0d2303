//! Pod fields this kubelet does not act on. A pod that sets one is refused with an event that names the field: what a
//! user asks for is done or refused, never ignored.
//!
//! The table is the whole truth: a field that is neither here nor used somewhere in this crate means nothing to any
//! kubelet (scheduling, admission, bookkeeping).

use k8s_openapi::api::core::v1::{Container, Pod, SecurityContext, Volume, VolumeMount};

use crate::spec::PodExt as _;

/// A row: the field's path below its part of the Pod, and whether it is set.
type Row<T> = (&'static str, fn(&T) -> bool);

const POD_FIELDS: &[Row<Pod>] = &[
    ("spec.hostUsers", |pod| pod.spec().host_users == Some(false)),
    ("spec.os.name", |pod| pod.spec().os.as_ref().is_some_and(|os| os.name != "linux")),
    ("spec.resourceClaims", |pod| pod.spec().resource_claims.as_ref().is_some_and(|claims| !claims.is_empty())),
    ("spec.evictionResponders", |pod| pod.spec().eviction_responders.as_ref().is_some_and(|list| !list.is_empty())),
    ("spec.securityContext.windowsOptions", |pod| {
        pod.spec().security_context.as_ref().is_some_and(|c| c.windows_options.is_some())
    }),
];

const CONTAINER_FIELDS: &[Row<Container>] = &[
    ("volumeDevices", |c| c.volume_devices.as_ref().is_some_and(|list| !list.is_empty())),
    ("resources.claims", |c| c.resources.as_ref().and_then(|r| r.claims.as_ref()).is_some_and(|list| !list.is_empty())),
    ("restartPolicyRules (action RestartAllContainers)", |c| {
        c.restart_policy_rules.iter().flatten().any(|rule| rule.action != "Restart")
    }),
    ("lifecycle.stopSignal", |c| c.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.stop_signal.is_some())),
];

const SECURITY_FIELDS: &[Row<SecurityContext>] = &[
    ("securityContext.windowsOptions", |s| s.windows_options.is_some()),
    ("securityContext.procMount", |s| s.proc_mount.as_ref().is_some_and(|mount| mount != "Default")),
];

const MOUNT_FIELDS: &[Row<VolumeMount>] =
    &[("volumeMounts.bindMountOptions", |m| m.bind_mount_options.as_ref().is_some_and(|list| !list.is_empty()))];

const VOLUME_FIELDS: &[Row<Volume>] = &[
    ("awsElasticBlockStore", |v| v.aws_elastic_block_store.is_some()),
    ("azureDisk", |v| v.azure_disk.is_some()),
    ("azureFile", |v| v.azure_file.is_some()),
    ("cephfs", |v| v.cephfs.is_some()),
    ("cinder", |v| v.cinder.is_some()),
    ("csi", |v| v.csi.is_some()),
    ("fc", |v| v.fc.is_some()),
    ("flexVolume", |v| v.flex_volume.is_some()),
    ("flocker", |v| v.flocker.is_some()),
    ("gcePersistentDisk", |v| v.gce_persistent_disk.is_some()),
    ("gitRepo", |v| v.git_repo.is_some()),
    ("glusterfs", |v| v.glusterfs.is_some()),
    ("iscsi", |v| v.iscsi.is_some()),
    ("nfs", |v| v.nfs.is_some()),
    ("photonPersistentDisk", |v| v.photon_persistent_disk.is_some()),
    ("portworxVolume", |v| v.portworx_volume.is_some()),
    ("quobyte", |v| v.quobyte.is_some()),
    ("rbd", |v| v.rbd.is_some()),
    ("scaleIO", |v| v.scale_io.is_some()),
    ("storageos", |v| v.storageos.is_some()),
    ("vsphereVolume", |v| v.vsphere_volume.is_some()),
];

fn rows<T>(found: &mut Vec<String>, prefix: &str, table: &[Row<T>], object: &T) {
    found.extend(table.iter().filter(|(_, is_set)| is_set(object)).map(|(field, _)| format!("{prefix}{field}")));
}

/// The fields of `pod` that this kubelet cannot honour, by their paths.
pub fn unsupported_fields(pod: &Pod) -> Vec<String> {
    let mut found = Vec::new();
    rows(&mut found, "", POD_FIELDS, pod);
    for (kind, container) in pod.all_containers() {
        let list = match kind {
            crate::spec::ContainerKind::Init | crate::spec::ContainerKind::Sidecar => "initContainers",
            crate::spec::ContainerKind::Regular => "containers",
            crate::spec::ContainerKind::Ephemeral => "ephemeralContainers",
        };
        let prefix = format!("spec.{list}{{{}}}.", container.name);
        rows(&mut found, &prefix, CONTAINER_FIELDS, &container);
        if let Some(security) = &container.security_context {
            rows(&mut found, &prefix, SECURITY_FIELDS, security);
        }
        for mount in container.volume_mounts.iter().flatten() {
            rows(&mut found, &prefix, MOUNT_FIELDS, mount);
        }
    }
    for volume in pod.spec().volumes.iter().flatten() {
        rows(&mut found, &format!("spec.volumes{{{}}}.", volume.name), VOLUME_FIELDS, volume);
    }
    found
}
