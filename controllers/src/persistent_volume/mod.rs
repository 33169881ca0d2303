//! Claims get volumes: those that are there and suit, or new ones where their class has a provisioner.
//!
//! Watches PersistentVolumeClaims, PersistentVolumes and StorageClasses; makes and deletes volumes of
//! [`PROVISIONER`]; owns `spec.volumeName` of claims, `spec.claimRef` of volumes, and the phases of both.
//! (Kubernetes: `pkg/controller/volume/persistentvolume/pv_controller.go`.)
//!
//! A claim and a volume are bound when each names the other. The volume goes first, so that two claims cannot get the same:
//!
//! ```text
//!   volume.claimRef ──► volume Bound ──► claim.volumeName ──► claim Bound
//! ```

mod matching;
mod provision;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, PostParams};
use minik8s_client::{
    Client, Event, EventRecorder, EventType, Lister, WorkQueue, is_already_exists, is_not_found, object_reference,
};

use self::matching::{Bond, bond, class_of, find};
pub use self::provision::PROVISIONER;
use self::provision::{PROVISIONED_BY, claim_reference, provision, volume_name};
use crate::manager::{Context, Reconciler};
use crate::pod_control::words;
use crate::pod_owners::key_of;

const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
/// The class that a new cluster has. It takes the claims that name none and that no volume fits, where no other class is
/// the default one.
const OWN_CLASS: &str = "standard";
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// See the module. Keys with a slash are of claims, others of volumes.
#[derive(Clone)]
pub struct PersistentVolumeController {
    client: Client,
    recorder: EventRecorder,
    claims: Lister<PersistentVolumeClaim>,
    volumes: Lister<PersistentVolume>,
    classes: Lister<StorageClass>,
    queue: WorkQueue<String>,
}

fn volume_of(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref()?.volume_name.as_deref().filter(|name| !name.is_empty())
}

fn claim_key(volume: &PersistentVolume) -> Option<String> {
    let reference = volume.spec.as_ref()?.claim_ref.as_ref()?;
    Some(format!("{}/{}", reference.namespace.as_deref()?, reference.name.as_deref()?))
}

fn volume_phase(volume: &PersistentVolume) -> &str {
    volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

impl PersistentVolumeController {
    /// Asks for its informers.
    pub fn new(context: &Context) -> Self {
        let claims = context.informers.informer::<PersistentVolumeClaim>();
        let volumes = context.informers.informer::<PersistentVolume>();
        let classes = context.informers.informer::<StorageClass>();
        let controller = Self {
            client: context.client.clone(),
            recorder: context.recorder("persistentvolume-controller"),
            claims: claims.lister(),
            volumes: volumes.lister(),
            classes: classes.lister(),
            queue: WorkQueue::new(context.client.clock().clone()),
        };
        let add = controller.queue.clone();
        claims.on_event(move |event| {
            let claim = event.object();
            if let (Event::Deleted(_), Some(volume)) = (event, volume_of(claim)) {
                add.add(volume.to_owned());
            }
            add.add(key_of(&claim.metadata));
        });
        let on_volume = controller.clone();
        volumes.on_event(move |event| {
            let volume = event.object();
            on_volume.queue.add(volume.metadata.name.clone().unwrap_or_default());
            claim_key(volume).into_iter().for_each(|key| on_volume.queue.add(key));
            if !matches!(event, Event::Deleted(_)) && volume_phase(volume) == "Available" {
                on_volume.add_unbound();
            }
        });
        let on_class = controller.clone();
        classes.on_event(move |event| {
            if !matches!(event, Event::Deleted(_)) {
                on_class.add_unbound();
            }
        });
        controller
    }

    fn add_unbound(&self) {
        for claim in self.claims.list().iter().filter(|claim| volume_of(claim).is_none()) {
            self.queue.add(key_of(&claim.metadata));
        }
    }

    fn tell(&self, claim: &PersistentVolumeClaim, kind: EventType, reason: &str, message: String) {
        self.recorder.event(&object_reference(claim), kind, reason, message);
    }

    async fn sync_claim(&self, claim: &PersistentVolumeClaim) -> Result<(), kube::Error> {
        if claim.metadata.deletion_timestamp.is_some() && volume_of(claim).is_none() {
            return Ok(());
        }
        match volume_of(claim) {
            Some(volume) => self.sync_bound(claim, volume).await,
            None => self.sync_unbound(claim).await,
        }
    }

    async fn sync_unbound(&self, claim: &PersistentVolumeClaim) -> Result<(), kube::Error> {
        if claim.spec.as_ref().is_some_and(|spec| spec.storage_class_name.is_none())
            && let Some(class) = self.default_class()
        {
            return self.give_class(claim, class.metadata.name.clone().unwrap_or_default()).await;
        }
        let found = find(claim, &self.volumes.list());
        let kept = found.as_ref().is_some_and(|volume| bond(volume, claim) != Bond::None);
        let class = self.classes.get("", class_of(claim));
        let waits = class.as_ref().is_some_and(|class| {
            let selected = claim.metadata.annotations.iter().flatten().any(|(key, _)| key == SELECTED_NODE);
            class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer") && !selected
        });
        if waits && !kept {
            let message = "waiting for first consumer to be created before binding";
            self.tell(claim, EventType::Normal, "WaitForFirstConsumer", message.to_owned());
            return self.claim_phase(claim, "Pending").await;
        }
        if let Some(volume) = found {
            return self.bind(claim, &volume).await;
        }
        let names_none = claim.spec.as_ref().is_some_and(|spec| spec.storage_class_name.is_none());
        match class {
            Some(class) => self.provision(claim, &class).await?,
            None if names_none && self.classes.get("", OWN_CLASS).is_some() => {
                return self.give_class(claim, OWN_CLASS.to_owned()).await;
            }
            None if class_of(claim).is_empty() => {
                let message = "no persistent volumes available for this claim and no storage class is set";
                self.tell(claim, EventType::Normal, "FailedBinding", message.to_owned());
            }
            None => {
                let message = format!("storageclass.storage.k8s.io {:?} not found", class_of(claim));
                self.tell(claim, EventType::Warning, "ProvisioningFailed", message);
            }
        }
        self.claim_phase(claim, "Pending").await
    }

    /// Gives a claim that names no class this one.
    async fn give_class(&self, claim: &PersistentVolumeClaim, class: String) -> Result<(), kube::Error> {
        let mut fresh = claim.clone();
        fresh.spec.get_or_insert_default().storage_class_name = Some(class);
        self.write_claim(&fresh).await.map(drop)
    }

    fn default_class(&self) -> Option<Arc<StorageClass>> {
        let is_default = |class: &Arc<StorageClass>| {
            let annotations = class.metadata.annotations.as_ref();
            annotations.and_then(|all| all.get(DEFAULT_CLASS)).is_some_and(|value| value == "true")
        };
        // Of several the newest counts, as in admission.
        let classes = self.classes.list().into_iter().filter(is_default);
        classes.max_by_key(|class| class.metadata.creation_timestamp.as_ref().map(|time| time.0))
    }

    async fn provision(&self, claim: &PersistentVolumeClaim, class: &StorageClass) -> Result<(), kube::Error> {
        let provisioner = class.provisioner.as_str();
        let told = claim.metadata.annotations.as_ref().and_then(|all| all.get(STORAGE_PROVISIONER));
        if told.map(String::as_str) != Some(provisioner) {
            let mut fresh = claim.clone();
            let annotations = fresh.metadata.annotations.get_or_insert_default();
            annotations.insert(STORAGE_PROVISIONER.to_owned(), provisioner.to_owned());
            // Its next form comes back here.
            return self.write_claim(&fresh).await.map(drop);
        }
        if provisioner != PROVISIONER {
            if provisioner != "kubernetes.io/no-provisioner" {
                let message = format!(
                    "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually \
                     by the system administrator. If volume creation is delayed, please verify that the provisioner is \
                     running and correctly registered."
                );
                self.tell(claim, EventType::Normal, "ExternalProvisioning", message);
            }
            return Ok(());
        }
        if self.volumes.get("", &volume_name(claim)).is_some() {
            return Ok(());
        }
        let made = match provision(claim, class) {
            Ok(volume) => self.client.all::<PersistentVolume>().create(&PostParams::default(), &volume).await,
            Err(why) => {
                let message = format!("Failed to provision volume with StorageClass {:?}: {why}", class_of(claim));
                self.tell(claim, EventType::Warning, "ProvisioningFailed", message);
                return Ok(());
            }
        };
        match made {
            Ok(volume) => {
                let name = volume.metadata.name.as_deref().unwrap_or_default();
                let message = format!("Successfully provisioned volume {name} using {PROVISIONER}");
                self.tell(claim, EventType::Normal, "ProvisioningSucceeded", message);
                Ok(())
            }
            Err(error) if is_already_exists(&error) => Ok(()),
            Err(error) => {
                let message = format!(
                    "Error creating provisioned PV object for claim {}: {}",
                    key_of(&claim.metadata),
                    words(&error)
                );
                self.tell(claim, EventType::Warning, "ProvisioningFailed", message);
                Err(error)
            }
        }
    }

    async fn sync_bound(&self, claim: &PersistentVolumeClaim, name: &str) -> Result<(), kube::Error> {
        let completed = claim.metadata.annotations.iter().flatten().any(|(key, _)| key == BIND_COMPLETED);
        let volume = match self.volumes.get("", name) {
            Some(volume) => Some(volume),
            None => self.client.all::<PersistentVolume>().get_opt(name).await?.map(Arc::new),
        };
        let Some(volume) = volume else {
            if !completed {
                return self.claim_phase(claim, "Pending").await;
            }
            let message = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
            return self.lose(claim, "ClaimLost", message).await;
        };
        match bond(&volume, claim) {
            Bond::Other if completed => {
                let message = "Two claims are bound to the same volume, this one is bound incorrectly";
                self.lose(claim, "ClaimMisbound", message).await
            }
            Bond::Other => self.claim_phase(claim, "Pending").await,
            _ => self.bind(claim, &volume).await,
        }
    }

    async fn lose(&self, claim: &PersistentVolumeClaim, reason: &str, message: &str) -> Result<(), kube::Error> {
        let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
        if phase != Some("Lost") {
            self.tell(claim, EventType::Warning, reason, message.to_owned());
        }
        self.claim_phase(claim, "Lost").await
    }

    /// Makes each name the other, and says so in both; whatever of it is not so yet.
    async fn bind(&self, claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Result<(), kube::Error> {
        let mut volume = volume.clone();
        if bond(&volume, claim) != Bond::Ours {
            if bond(&volume, claim) == Bond::None {
                let annotations = volume.metadata.annotations.get_or_insert_default();
                annotations.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
            }
            volume.spec.get_or_insert_default().claim_ref = Some(claim_reference(claim));
            let name = volume.metadata.name.clone().unwrap_or_default();
            volume = self.client.all::<PersistentVolume>().replace(&name, &PostParams::default(), &volume).await?;
        }
        let volume = self.volume_state(volume, "Bound").await?;
        let mut claim = claim.clone();
        let annotations = claim.metadata.annotations.get_or_insert_default();
        let mut changed = annotations.insert(BIND_COMPLETED.to_owned(), "yes".to_owned()).is_none();
        if volume_of(&claim).is_none() {
            let annotations = claim.metadata.annotations.get_or_insert_default();
            annotations.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
            claim.spec.get_or_insert_default().volume_name = volume.metadata.name.clone();
            changed = true;
        }
        if changed {
            claim = self.write_claim(&claim).await?;
        }
        let spec = volume.spec.unwrap_or_default();
        let old = claim.status.clone().unwrap_or_default();
        let status = PersistentVolumeClaimStatus {
            phase: Some("Bound".to_owned()),
            access_modes: spec.access_modes,
            capacity: spec.capacity,
            ..old.clone()
        };
        if status == old { Ok(()) } else { self.write_claim_status(&claim, status).await }
    }

    async fn claim_phase(&self, claim: &PersistentVolumeClaim, phase: &str) -> Result<(), kube::Error> {
        let old = claim.status.clone().unwrap_or_default();
        if old.phase.as_deref() == Some(phase) {
            return Ok(());
        }
        let status = PersistentVolumeClaimStatus { phase: Some(phase.to_owned()), ..old };
        match self.write_claim_status(claim, status).await {
            Err(error) if is_not_found(&error) => Ok(()),
            other => other,
        }
    }

    async fn write_claim(&self, claim: &PersistentVolumeClaim) -> Result<PersistentVolumeClaim, kube::Error> {
        let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        self.client.namespaced(namespace).replace(name, &PostParams::default(), claim).await
    }

    async fn write_claim_status(
        &self,
        claim: &PersistentVolumeClaim,
        status: PersistentVolumeClaimStatus,
    ) -> Result<(), kube::Error> {
        let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        let fresh = PersistentVolumeClaim { status: Some(status), ..claim.clone() };
        let api = self.client.namespaced::<PersistentVolumeClaim>(namespace);
        api.replace_status(name, &PostParams::default(), &fresh).await.map(drop)
    }

    async fn volume_state(&self, volume: PersistentVolume, phase: &str) -> Result<PersistentVolume, kube::Error> {
        if volume_phase(&volume) == phase {
            return Ok(volume);
        }
        let mut fresh = volume;
        let status = fresh.status.get_or_insert_default();
        status.phase = Some(phase.to_owned());
        status.message = None;
        status.last_phase_transition_time = Some(Time(self.client.clock().now()));
        let name = fresh.metadata.name.clone().unwrap_or_default();
        self.client.all::<PersistentVolume>().replace_status(&name, &PostParams::default(), &fresh).await
    }

    async fn sync_volume(&self, volume: &PersistentVolume) -> Result<(), kube::Error> {
        let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        let uid = reference.and_then(|reference| reference.uid.as_deref()).filter(|uid| !uid.is_empty());
        let (Some(key), Some(uid)) = (claim_key(volume), uid) else {
            // Nobody's yet, though perhaps kept for somebody.
            return self.volume_state(volume.clone(), "Available").await.map(drop);
        };
        let (namespace, name) = key.split_once('/').unwrap_or_default();
        let is_it = |claim: &PersistentVolumeClaim| claim.metadata.uid.as_deref() == Some(uid);
        let claim = match self.claims.get(namespace, name).filter(|claim| is_it(claim)) {
            Some(claim) => Some(claim),
            // That a claim is gone the API itself must say: what is on the volume may be deleted.
            None => {
                let live = self.client.namespaced::<PersistentVolumeClaim>(namespace).get_opt(name).await?;
                live.filter(is_it).map(Arc::new)
            }
        };
        let own = volume.metadata.name.as_deref();
        match claim.as_ref().map(|claim| volume_of(claim)) {
            None => self.release(volume).await,
            Some(None) => {
                self.queue.add(key);
                Ok(())
            }
            Some(bound) if bound == own => self.volume_state(volume.clone(), "Bound").await.map(drop),
            // The claim has another volume; one that was made for it is of no use any more.
            Some(_) if volume.metadata.annotations.iter().flatten().any(|(key, _)| key == PROVISIONED_BY) => {
                self.release(volume).await
            }
            Some(_) => {
                let mut fresh = volume.clone();
                fresh.spec.get_or_insert_default().claim_ref = None;
                let api = self.client.all::<PersistentVolume>();
                api.replace(own.unwrap_or_default(), &PostParams::default(), &fresh).await.map(drop)
            }
        }
    }

    /// The volume of a claim that is gone: kept or deleted, as it says.
    async fn release(&self, volume: &PersistentVolume) -> Result<(), kube::Error> {
        let volume = match self.volume_state(volume.clone(), "Released").await {
            Err(error) if is_not_found(&error) => return Ok(()),
            other => other?,
        };
        let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
        let by = volume.metadata.annotations.as_ref().and_then(|all| all.get(PROVISIONED_BY)).map(String::as_str);
        let reference = object_reference(&volume);
        match policy {
            Some("Delete") if by.is_none_or(|by| by == PROVISIONER) => {
                if volume.metadata.deletion_timestamp.is_some() {
                    return Ok(());
                }
                let name = volume.metadata.name.as_deref().unwrap_or_default();
                match self.client.all::<PersistentVolume>().delete(name, &DeleteParams::default()).await {
                    Err(error) if is_not_found(&error) => Ok(()),
                    other => other.map(drop),
                }
            }
            Some("Recycle") => {
                let message = "Recycling is not supported; delete the volume and make it anew".to_owned();
                self.recorder.event(&reference, EventType::Warning, "VolumeFailedRecycle", message);
                self.volume_state(volume, "Failed").await.map(drop)
            }
            // Retained, or somebody else's to delete.
            _ => Ok(()),
        }
    }
}

impl Reconciler for PersistentVolumeController {
    const NAME: &'static str = "persistentvolume-binder-controller";
    /// One: two claims must not be looked at side by side.
    const WORKERS: usize = 1;

    fn queue(&self) -> &WorkQueue<String> {
        &self.queue
    }

    async fn sync(&self, key: String) -> Result<(), kube::Error> {
        match key.split_once('/') {
            Some((namespace, name)) => match self.claims.get(namespace, name) {
                Some(claim) => self.sync_claim(&claim).await,
                None => Ok(()),
            },
            None => match self.volumes.get("", &key) {
                Some(volume) if volume_phase(&volume) != "Failed" => self.sync_volume(&volume).await,
                _ => Ok(()),
            },
        }
    }
}
