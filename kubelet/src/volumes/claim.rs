//! Claims: from the PersistentVolumeClaim a pod names, or that was made for it, to the folder of the node that its PersistentVolume is.
//!
//! A node may get the claims and the volumes of its own pods, but not watch them, so each is read once: what a bound
//! claim leads to does not change. (kubelet: `volumemanager/populator/desired_state_of_world_populator.go`,
//! `getPVCExtractPV`; `pkg/volume/util/operationexecutor/operation_generator.go`.)

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, Node, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, Pod,
};
use minik8s_client::{Client, words};

use crate::admission::selects;
use crate::spec::PodExt as _;

/// The sources of PersistentVolumes that are not acted on: a pod that is bound to one does not start, and says why.
const UNSUPPORTED_SOURCES: [&str; 21] = [
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "iscsi",
    "local",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

/// What the claims of one pod lead to, by volume, as far as it is known.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    found: BTreeMap<String, HostPathVolumeSource>,
}

impl Claims {
    /// What the claims that the volumes of `pod` name lead to. Those that are not known yet are looked up.
    pub async fn current(
        &mut self,
        client: &Client,
        pod: &Pod,
        node: &Node,
    ) -> BTreeMap<String, Result<HostPathVolumeSource, String>> {
        let mut current = BTreeMap::new();
        for volume in pod.spec().volumes.iter().flatten() {
            let named = volume.persistent_volume_claim.as_ref().map(|source| source.claim_name.clone());
            let made = || volume.ephemeral.as_ref().map(|_| format!("{}-{}", pod.name(), volume.name));
            let Some(name) = named.or_else(made) else {
                continue;
            };
            let owner = volume.ephemeral.as_ref().map(|_| pod);
            let folder = match self.found.get(&volume.name) {
                Some(folder) => Ok(folder.clone()),
                None => look_up(client, pod.namespace(), &name, owner, node).await,
            };
            if let Ok(folder) = &folder {
                self.found.insert(volume.name.clone(), folder.clone());
            }
            current.insert(volume.name.clone(), folder);
        }
        current
    }
}

/// What a claim leads to. A claim that was made for a pod's ephemeral volume has to be that pod's.
async fn look_up(
    client: &Client,
    namespace: &str,
    name: &str,
    owner: Option<&Pod>,
    node: &Node,
) -> Result<HostPathVolumeSource, String> {
    let unresolved = |why: String| format!("error processing PVC {namespace}/{name}: {why}");
    let claim = client.namespaced::<PersistentVolumeClaim>(namespace).get(name).await;
    let claim = claim.map_err(|error| unresolved(format!("failed to fetch PVC from API server: {}", words(&error))))?;
    let volume_name = bound_to(&claim).map_err(|why| unresolved(why.to_owned()))?;
    if let Some(pod) = owner.filter(|pod| !is_controlled_by(&claim, pod)) {
        let pod = format!("{namespace}/{}", pod.name());
        return Err(format!("PVC {namespace}/{name} was not created for pod {pod} (pod is not owner)"));
    }
    let volume = client.all::<PersistentVolume>().get(volume_name).await;
    let volume = volume
        .map_err(|error| unresolved(format!("failed to fetch PV {volume_name} from API server: {}", words(&error))))?;
    is_bound_to(&volume, &claim).map_err(unresolved)?;
    folder(&volume, node).map_err(unresolved)
}

fn is_controlled_by(claim: &PersistentVolumeClaim, pod: &Pod) -> bool {
    let mut owners = claim.metadata.owner_references.iter().flatten();
    owners.any(|owner| owner.controller == Some(true) && owner.uid == pod.uid())
}

/// The name of the volume the claim is bound to.
fn bound_to(claim: &PersistentVolumeClaim) -> Result<&str, &'static str> {
    if claim.metadata.deletion_timestamp.is_some() {
        return Err("PVC is being deleted");
    }
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).filter(|name| !name.is_empty());
    volume.filter(|_| phase == Some("Bound")).ok_or("PVC is not bound")
}

/// Whether the volume agrees that it is the claim's.
fn is_bound_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<(), String> {
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let Some(reference) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else {
        let words = "but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim";
        return Err(format!("found PV object {name} {words}"));
    };
    if reference.uid == claim.metadata.uid {
        return Ok(());
    }
    let uid = |uid: &Option<String>| uid.clone().unwrap_or_default();
    let (theirs, ours) = (uid(&reference.uid), uid(&claim.metadata.uid));
    Err(format!("found PV object {name} but its pv.Spec.ClaimRef.UID {theirs} does not point to claim.UID {ours}"))
}

/// The folder that a volume is on this node.
fn folder(volume: &PersistentVolume, node: &Node) -> Result<HostPathVolumeSource, String> {
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let default = PersistentVolumeSpec::default();
    let spec = volume.spec.as_ref().unwrap_or(&default);
    if let Some(unsupported) = unsupported_source(spec) {
        return Err(format!("this kubelet does not support spec.{unsupported} of PV {name}"));
    }
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err(format!("PV {name} has volumeMode Block, but is specified in volumeMounts"));
    }
    if spec.mount_options.as_ref().is_some_and(|options| !options.is_empty()) {
        return Err("Mount options are not supported for this volume type".to_owned());
    }
    let required = spec.node_affinity.as_ref().and_then(|affinity| affinity.required.as_ref());
    if required.is_some_and(|selector| !selects(selector, node)) {
        return Err("no matching NodeSelectorTerms".to_owned());
    }
    spec.host_path.clone().ok_or_else(|| format!("PV {name} has no volume source"))
}

fn unsupported_source(spec: &PersistentVolumeSpec) -> Option<&'static str> {
    let fields = serde_json::to_value(spec).ok()?;
    UNSUPPORTED_SOURCES.into_iter().find(|source| fields.get(source).is_some())
}
