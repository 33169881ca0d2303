//! A StatefulSet has pods that keep their names and their volumes, and come and go in order.
//!
//! Watches StatefulSets, Pods, PersistentVolumeClaims and ControllerRevisions; owns its pods and revisions, and the
//! claims that it makes; writes all of the StatefulSet's status.
//! (Kubernetes: `pkg/controller/statefulset`.)
//!
//! What comes next says [`plan`], who the pods are [`identity`]; here it is done.

mod identity;
mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};
use kube::api::{DeleteParams, PostParams, Preconditions};
use minik8s_api::template_hash::revision_hash;
use minik8s_client::{Client, EventType, Informer, Lister, WorkQueue, is_conflict, is_not_found, object_reference};

use self::identity::{claim_owners, claims, ordinal, pod};
use self::plan::{Look, Step};
use crate::manager::{Context, Reconciler};
use crate::pod_control::{PodControl, is_namespace_terminating, words};
use crate::pod_owners::{PodOwners, selector};
use crate::pods;
use crate::revisions::{HASH_LABEL, History, Present, Revisions, name, template_patch};

/// See the module.
#[derive(Clone)]
pub struct StatefulSetController {
    client: Client,
    control: PodControl,
    owners: Arc<PodOwners<StatefulSet>>,
    claims: Lister<PersistentVolumeClaim>,
    revisions: Revisions,
    queue: WorkQueue<String>,
}

impl StatefulSetController {
    /// Asks for its informers.
    pub fn new(context: &Context) -> Self {
        let control = PodControl::new(context.client.clone(), context.recorder("statefulset-controller"));
        let queue: WorkQueue<String> = WorkQueue::new(context.client.clock().clone());
        let claims: Informer<PersistentVolumeClaim> = context.informers.informer();
        let owners = PodOwners::new(
            control.clone(),
            &context.informers.informer::<StatefulSet>(),
            &context.informers.informer::<Pod>(),
            |set: &StatefulSet| selector(&set.spec.selector),
            None,
            queue.clone(),
        );
        Self {
            client: context.client.clone(),
            control,
            owners,
            claims: claims.lister(),
            revisions: Revisions::new(context),
            queue,
        }
    }

    fn tell(&self, set: &StatefulSet, verb: &str, what: &str, result: &Result<(), kube::Error>) {
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let lower = verb.to_lowercase();
        let good = if what.starts_with("Claim") { "success" } else { "successful" };
        let (kind, reason, message) = match result {
            Ok(()) => (EventType::Normal, "Successful", format!("{lower} {what} in StatefulSet {name} {good}")),
            Err(error) => {
                let error = words(error);
                (EventType::Warning, "Failed", format!("{lower} {what} in StatefulSet {name} failed error: {error}"))
            }
        };
        self.control.recorder().event(&object_reference(set), kind, &format!("{reason}{verb}"), message);
    }

    /// Makes the claims of an ordinal that are not there.
    async fn make_claims(&self, set: &StatefulSet, ordinal: i32) -> Result<(), kube::Error> {
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        for (_, claim) in claims(set, ordinal) {
            let name = claim.metadata.name.clone().unwrap_or_default();
            if let Some(there) = self.claims.get(namespace, &name) {
                if there.metadata.deletion_timestamp.is_some() {
                    return Err(kube::Error::Service(format!("pvc {name} is being deleted").into()));
                }
                continue;
            }
            let api = self.client.namespaced::<PersistentVolumeClaim>(namespace);
            if api.get_opt(&name).await?.is_some() {
                continue;
            }
            let created = api.create(&PostParams::default(), &claim).await.map(drop);
            let pod = identity::pod_name(set, ordinal);
            self.tell(set, "Create", &format!("Claim {name} Pod {pod}"), &created);
            created?;
        }
        Ok(())
    }

    /// Says of the claims of a pod whether they go with it, or with the set.
    async fn own_claims(&self, set: &StatefulSet, pod: &Pod, condemned: bool) -> Result<(), kube::Error> {
        let Some(ordinal) = ordinal(set, pod) else { return Ok(()) };
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        for (_, claim) in claims(set, ordinal) {
            let name = claim.metadata.name.unwrap_or_default();
            let Some(there) = self.claims.get(namespace, &name) else { continue };
            let Some(owners) = claim_owners(set, pod, condemned, &there) else { continue };
            let mut fresh = PersistentVolumeClaim::clone(&there);
            fresh.metadata.owner_references = Some(owners).filter(|owners| !owners.is_empty());
            let api = self.client.namespaced::<PersistentVolumeClaim>(namespace);
            match api.replace(&name, &PostParams::default(), &fresh).await {
                Err(error) if is_not_found(&error) => {}
                other => other.map(drop)?,
            }
        }
        Ok(())
    }

    async fn create(&self, set: &StatefulSet, wanted: &Pod, ordinal: i32) -> Result<(), kube::Error> {
        self.make_claims(set, ordinal).await?;
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let name = wanted.metadata.name.as_deref().unwrap_or_default();
        match self.client.namespaced::<Pod>(namespace).create(&PostParams::default(), wanted).await.map(drop) {
            Err(error) if is_namespace_terminating(&error) => Ok(()),
            created => {
                self.tell(set, "Create", &format!("Pod {name}"), &created);
                created
            }
        }
    }

    async fn delete(&self, set: &StatefulSet, pod: &Pod) -> Result<(), kube::Error> {
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        // The next pod has the same name: only this one is meant.
        let preconditions = Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None });
        let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
        match self.client.namespaced::<Pod>(namespace).delete(name, &parameters).await.map(drop) {
            Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
            deleted => {
                self.tell(set, "Delete", &format!("Pod {name}"), &deleted);
                deleted
            }
        }
    }

    async fn act(&self, look: &Look<'_>, history: &History) -> Result<(), kube::Error> {
        let set = look.set;
        for pod in look.replicas.values() {
            self.own_claims(set, pod, false).await?;
            // A pod that waits may wait for a claim that somebody deleted.
            if let Some(ordinal) = ordinal(set, pod).filter(|_| pods::phase(pod) == "Pending") {
                self.make_claims(set, ordinal).await?;
            }
        }
        for pod in &look.condemned {
            self.own_claims(set, pod, true).await?;
        }
        for step in look.steps() {
            match step {
                Step::Delete(pod) => self.delete(set, &pod).await?,
                Step::Create(ordinal) => {
                    let revision = look.revision_for(ordinal);
                    let template = template_of(history, revision).unwrap_or_else(|| set.spec.template.clone());
                    self.create(set, &pod(set, &template, revision, ordinal), ordinal).await?;
                }
            }
        }
        Ok(())
    }

    async fn write_status(&self, look: &Look<'_>, history: &History) -> Result<(), kube::Error> {
        let status = look.status(history.collisions);
        if look.set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let fresh = StatefulSet { status: Some(status), ..look.set.clone() };
        let namespace = look.set.metadata.namespace.as_deref().unwrap_or_default();
        let name = look.set.metadata.name.as_deref().unwrap_or_default();
        let api = self.client.namespaced::<StatefulSet>(namespace);
        match api.replace_status(name, &PostParams::default(), &fresh).await {
            Err(error) if is_not_found(&error) => Ok(()),
            other => other.map(drop),
        }
    }
}

/// The template that a revision keeps.
fn template_of(history: &History, revision: &str) -> Option<PodTemplateSpec> {
    let mut all = history.old.iter().chain([&history.current]);
    let found: &Arc<ControllerRevision> = all.find(|known| name(known) == revision)?;
    let mut template = found.data.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

impl Reconciler for StatefulSetController {
    const NAME: &'static str = "statefulset-controller";
    const WORKERS: usize = 5;

    fn queue(&self) -> &WorkQueue<String> {
        &self.queue
    }

    async fn sync(&self, key: String) -> Result<(), kube::Error> {
        let Some(set) = self.owners.get(&key) else { return Ok(()) };
        let old = set.status.clone().unwrap_or_default();
        let labels: BTreeMap<String, String> = set.spec.selector.match_labels.clone().unwrap_or_default();
        let data = template_patch(&set.spec.template);
        let bytes = serde_json::to_vec(&data).map_err(kube::Error::SerdeError)?;
        let hash = |collisions| revision_hash(&bytes, collisions);
        let present = Present { labels: &labels, data, hash: &hash };
        let history = self.revisions.history(&*set, present, old.collision_count).await?;
        let update = name(&history.current);
        let known = history.old.iter().any(|revision| Some(name(revision)) == old.current_revision.as_deref());
        let current = old.current_revision.as_deref().filter(|_| known).unwrap_or(update);
        // A pod by a name of the set's that somebody else made is not taken over.
        let all = self.owners.claim(&set, |pod| ordinal(&set, pod).is_some()).await?;
        let look = Look::new(&set, &all, (current, update), self.client.clock().now());
        let mut acted = Ok(());
        if set.metadata.deletion_timestamp.is_none() {
            acted = self.act(&look, &history).await;
        }
        self.write_status(&look, &history).await?;
        let in_use = all.iter().filter_map(|pod| pod.metadata.labels.as_ref()?.get(HASH_LABEL).cloned());
        let in_use: BTreeSet<String> = in_use.chain([current.to_owned(), update.to_owned()]).collect();
        self.revisions.truncate(&history.old, &in_use, set.spec.revision_history_limit).await?;
        let waits = all.iter().filter_map(|pod| pods::available_in(pod, look.min_ready(), look.now));
        if let Some(wait) = waits.filter(|wait| !wait.is_zero()).min() {
            self.queue.add_after(key, wait);
        }
        acted
    }
}
