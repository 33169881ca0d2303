//! Claims, volumes and classes of their attributes that are in use stay until they are not.
//!
//! Watches PersistentVolumeClaims, Pods, PersistentVolumes and VolumeAttributesClasses; owns the finalizers
//! `kubernetes.io/pvc-protection`, `kubernetes.io/pv-protection` and `kubernetes.io/vac-protection`. Three controllers, for
//! three identities.
//! (Kubernetes: `pkg/controller/volume/pvcprotection`, `pvprotection`, `vacprotection`.)

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ListParams, PostParams};
use minik8s_client::{Client, Event, Lister, WorkQueue, is_not_found};

use crate::manager::{Context, Reconciler};
use crate::pod_owners::key_of;
use crate::pods;

const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";
const CLASS_FINALIZER: &str = "kubernetes.io/vac-protection";
/// The index of pods by the claims that they use.
const BY_CLAIM: &str = "protection/claim";
/// The index of claims and of volumes by the classes of attributes that they name.
const BY_CLASS: &str = "protection/class";

/// What a finalizer needs: to be put on, to be taken off, nothing.
fn change(meta: &ObjectMeta, finalizer: &str, in_use: impl FnOnce() -> bool) -> Option<Vec<String>> {
    let mut finalizers = meta.finalizers.clone().unwrap_or_default();
    let has = finalizers.iter().any(|own| own == finalizer);
    match (meta.deletion_timestamp.is_some(), has) {
        (false, false) => finalizers.push(finalizer.to_owned()),
        (true, true) if !in_use() => finalizers.retain(|own| own != finalizer),
        _ => return None,
    }
    Some(finalizers)
}

/// The keys of the claims that a pod uses, those made for its ephemeral volumes among them.
fn claims_of(pod: &Pod) -> Vec<String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let claims = volumes.filter_map(|volume| {
        let named = volume.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.clone());
        named.or_else(|| volume.ephemeral.as_ref().map(|_| format!("{name}-{}", volume.name)))
    });
    claims.map(|claim| format!("{namespace}/{claim}")).collect()
}

/// A pod that has ended, or never had a node and is going, uses nothing.
fn uses(pod: &Pod) -> bool {
    let assigned = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    assigned && !matches!(pods::phase(pod), "Succeeded" | "Failed")
}

/// Protects claims that pods use.
#[derive(Clone)]
pub struct ClaimProtection {
    client: Client,
    claims: Lister<PersistentVolumeClaim>,
    pods: Lister<Pod>,
    queue: WorkQueue<String>,
}

impl ClaimProtection {
    /// Asks for its informers.
    pub fn new(context: &Context) -> Self {
        let claims = context.informers.informer::<PersistentVolumeClaim>();
        let pods = context.informers.informer::<Pod>();
        pods.add_index(BY_CLAIM, claims_of);
        let queue: WorkQueue<String> = WorkQueue::new(context.client.clock().clone());
        let add = queue.clone();
        claims.on_event(move |event| {
            if !matches!(event, Event::Deleted(_)) {
                add.add(key_of(&event.object().metadata));
            }
        });
        let add = queue.clone();
        pods.on_event(move |event| {
            let frees = match event {
                Event::Added(_) => false,
                Event::Updated { old, new } => uses(old) && !uses(new),
                Event::Deleted(_) => true,
            };
            if frees {
                claims_of(event.object()).into_iter().for_each(|claim| add.add(claim));
            }
        });
        Self { client: context.client.clone(), claims: claims.lister(), pods: pods.lister(), queue }
    }

    /// Whether a pod uses the claim; that none does the API itself must say.
    async fn in_use(&self, namespace: &str, key: &str) -> Result<bool, kube::Error> {
        if self.pods.by_index(BY_CLAIM, key).iter().any(|pod| uses(pod)) {
            return Ok(true);
        }
        let live = self.client.namespaced::<Pod>(namespace).list(&ListParams::default()).await?;
        Ok(live.items.iter().any(|pod| uses(pod) && claims_of(pod).iter().any(|claim| claim == key)))
    }
}

impl Reconciler for ClaimProtection {
    const NAME: &'static str = "persistentvolumeclaim-protection-controller";
    const WORKERS: usize = 1;

    fn queue(&self) -> &WorkQueue<String> {
        &self.queue
    }

    async fn sync(&self, key: String) -> Result<(), kube::Error> {
        let (namespace, name) = key.split_once('/').unwrap_or_default();
        let Some(claim) = self.claims.get(namespace, name) else { return Ok(()) };
        let in_use = claim.metadata.deletion_timestamp.is_some() && self.in_use(namespace, &key).await?;
        let Some(finalizers) = change(&claim.metadata, CLAIM_FINALIZER, || in_use) else { return Ok(()) };
        let mut fresh = PersistentVolumeClaim::clone(&claim);
        fresh.metadata.finalizers = Some(finalizers);
        let api = self.client.namespaced::<PersistentVolumeClaim>(namespace);
        match api.replace(name, &PostParams::default(), &fresh).await {
            Err(error) if is_not_found(&error) => Ok(()),
            other => other.map(drop),
        }
    }
}

/// Protects volumes that are bound.
#[derive(Clone)]
pub struct VolumeProtection {
    client: Client,
    volumes: Lister<PersistentVolume>,
    queue: WorkQueue<String>,
}

impl VolumeProtection {
    /// Asks for its informers.
    pub fn new(context: &Context) -> Self {
        let volumes = context.informers.informer::<PersistentVolume>();
        let queue: WorkQueue<String> = WorkQueue::new(context.client.clock().clone());
        let add = queue.clone();
        volumes.on_event(move |event| {
            if !matches!(event, Event::Deleted(_)) {
                add.add(event.object().metadata.name.clone().unwrap_or_default());
            }
        });
        Self { client: context.client.clone(), volumes: volumes.lister(), queue }
    }
}

impl Reconciler for VolumeProtection {
    const NAME: &'static str = "persistentvolume-protection-controller";
    const WORKERS: usize = 1;

    fn queue(&self) -> &WorkQueue<String> {
        &self.queue
    }

    async fn sync(&self, name: String) -> Result<(), kube::Error> {
        let Some(volume) = self.volumes.get("", &name) else { return Ok(()) };
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        let bound = || phase == Some("Bound");
        let Some(finalizers) = change(&volume.metadata, VOLUME_FINALIZER, bound) else { return Ok(()) };
        let mut fresh = PersistentVolume::clone(&volume);
        fresh.metadata.finalizers = Some(finalizers);
        match self.client.all::<PersistentVolume>().replace(&name, &PostParams::default(), &fresh).await {
            Err(error) if is_not_found(&error) => Ok(()),
            other => other.map(drop),
        }
    }
}

/// The classes that a claim has, or is on the way to.
fn classes_of(claim: &PersistentVolumeClaim) -> Vec<String> {
    let wanted = claim.spec.iter().filter_map(|spec| spec.volume_attributes_class_name.clone());
    let status = claim.status.iter();
    let present = status.clone().filter_map(|status| status.current_volume_attributes_class_name.clone());
    let changing = status.filter_map(|status| status.modify_volume_status.as_ref());
    let target = changing.filter_map(|change| change.target_volume_attributes_class_name.clone());
    wanted.chain(present).chain(target).filter(|name| !name.is_empty()).collect()
}

fn class_of(volume: &PersistentVolume) -> Vec<String> {
    volume.spec.iter().filter_map(|spec| spec.volume_attributes_class_name.clone()).collect()
}

/// Protects classes of attributes that claims or volumes name.
#[derive(Clone)]
pub struct ClassProtection {
    client: Client,
    classes: Lister<VolumeAttributesClass>,
    claims: Lister<PersistentVolumeClaim>,
    volumes: Lister<PersistentVolume>,
    queue: WorkQueue<String>,
}

impl ClassProtection {
    /// Asks for its informers.
    pub fn new(context: &Context) -> Self {
        let classes = context.informers.informer::<VolumeAttributesClass>();
        let claims = context.informers.informer::<PersistentVolumeClaim>();
        let volumes = context.informers.informer::<PersistentVolume>();
        claims.add_index(BY_CLASS, classes_of);
        volumes.add_index(BY_CLASS, class_of);
        let queue: WorkQueue<String> = WorkQueue::new(context.client.clock().clone());
        let add = queue.clone();
        classes.on_event(move |event| {
            if !matches!(event, Event::Deleted(_)) {
                add.add(event.object().metadata.name.clone().unwrap_or_default());
            }
        });
        // What was named before may be free now.
        let add = queue.clone();
        claims.on_event(move |event| match event {
            Event::Added(_) => {}
            Event::Updated { old, .. } => classes_of(old).into_iter().for_each(|class| add.add(class)),
            Event::Deleted(claim) => classes_of(claim).into_iter().for_each(|class| add.add(class)),
        });
        let add = queue.clone();
        volumes.on_event(move |event| match event {
            Event::Added(_) => {}
            Event::Updated { old, .. } => class_of(old).into_iter().for_each(|class| add.add(class)),
            Event::Deleted(volume) => class_of(volume).into_iter().for_each(|class| add.add(class)),
        });
        Self {
            client: context.client.clone(),
            classes: classes.lister(),
            claims: claims.lister(),
            volumes: volumes.lister(),
            queue,
        }
    }

    /// Whether a claim or a volume names the class; that none does the API itself must say.
    async fn in_use(&self, name: &str) -> Result<bool, kube::Error> {
        if !self.claims.by_index(BY_CLASS, name).is_empty() || !self.volumes.by_index(BY_CLASS, name).is_empty() {
            return Ok(true);
        }
        let everything = ListParams::default();
        let volumes = self.client.all::<PersistentVolume>().list(&everything).await?;
        if volumes.items.iter().any(|volume| class_of(volume).iter().any(|class| class == name)) {
            return Ok(true);
        }
        let claims = self.client.all::<PersistentVolumeClaim>().list(&everything).await?;
        Ok(claims.items.iter().any(|claim| classes_of(claim).iter().any(|class| class == name)))
    }
}

impl Reconciler for ClassProtection {
    const NAME: &'static str = "volumeattributesclass-protection-controller";
    const WORKERS: usize = 1;

    fn queue(&self) -> &WorkQueue<String> {
        &self.queue
    }

    async fn sync(&self, name: String) -> Result<(), kube::Error> {
        let Some(class) = self.classes.get("", &name) else { return Ok(()) };
        let in_use = class.metadata.deletion_timestamp.is_some() && self.in_use(&name).await?;
        let Some(finalizers) = change(&class.metadata, CLASS_FINALIZER, || in_use) else { return Ok(()) };
        let mut fresh = VolumeAttributesClass::clone(&class);
        fresh.metadata.finalizers = Some(finalizers);
        match self.client.all::<VolumeAttributesClass>().replace(&name, &PostParams::default(), &fresh).await {
            Err(error) if is_not_found(&error) => Ok(()),
            other => other.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_finalizer_comes_with_the_object_and_goes_with_its_last_use() {
        let meta = |json: serde_json::Value| -> ObjectMeta { serde_json::from_value(json).unwrap() };
        let going =
            meta(json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["other", CLAIM_FINALIZER]}));
        assert_eq!(change(&meta(json!({})), CLAIM_FINALIZER, || false).unwrap(), [CLAIM_FINALIZER]);
        assert_eq!(change(&going, CLAIM_FINALIZER, || true), None);
        assert_eq!(change(&going, CLAIM_FINALIZER, || false).unwrap(), ["other"]);
    }

    #[test]
    fn a_claim_uses_the_class_that_it_has_and_the_one_it_is_to_have() {
        let claim: PersistentVolumeClaim = serde_json::from_value(json!({"metadata": {},
            "spec": {"volumeAttributesClassName": "fast"},
            "status": {"currentVolumeAttributesClassName": "slow",
                "modifyVolumeStatus": {"status": "InProgress", "targetVolumeAttributesClassName": "faster"}}}))
        .unwrap();
        assert_eq!(classes_of(&claim), ["fast", "slow", "faster"]);
    }

    #[test]
    fn a_pod_uses_the_claims_that_it_names_and_those_made_for_it() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"namespace": "ns", "name": "p"}, "spec": {"containers": [],
            "volumes": [{"name": "a", "persistentVolumeClaim": {"claimName": "data"}}, {"name": "tmp", "ephemeral": {}}]}}))
        .unwrap();
        assert_eq!(claims_of(&pod), ["ns/data", "ns/p-tmp"]);
    }
}
