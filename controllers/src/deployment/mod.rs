//! A Deployment keeps a ReplicaSet of the newest template at full size, and brings those of older templates down to zero,
//! step by step.
//!
//! Watches Deployments, ReplicaSets and Pods; owns its ReplicaSets; writes ReplicaSets, the annotation
//! `deployment.kubernetes.io/revision` and all of the Deployment's status.
//! (Kubernetes: `pkg/controller/deployment`.)
//!
//! ```text
//!   sync ── paused or resized ──► scale: keep proportions
//!     │
//!     ├── Recreate ──► recreate: all old ones down, then the new one up
//!     └── RollingUpdate ──► rolling: new one up within maxSurge, old ones down within maxUnavailable
//!                              │
//!                              ▼
//!            progress: conditions, deadline, status          revision: which ReplicaSet is which
//! ```

mod progress;
mod recreate;
mod revision;
mod rolling;
mod scale;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams};
use minik8s_api::selector::LabelSelector;
use minik8s_client::{Client, Event, EventRecorder, EventType, Lister, WorkQueue, is_not_found, object_reference};

use crate::manager::{Context, Reconciler};
use crate::owners::{adopt_patch, claim, controller_of, controller_reference, controller_uid, release_patch};

/// Indexes by the UID of the controller.
const BY_CONTROLLER: &str = "deployment/controller";

type Result<T> = std::result::Result<T, kube::Error>;

/// See the module.
#[derive(Clone)]
pub struct DeploymentController {
    client: Client,
    recorder: EventRecorder,
    deployments: Lister<Deployment>,
    sets: Lister<ReplicaSet>,
    pods: Lister<Pod>,
    queue: WorkQueue<String>,
}

/// A Deployment under reconciliation.
struct Work {
    deployment: Deployment,
    reference: ObjectReference,
    namespace: String,
    name: String,
}

impl Work {
    fn spec(&self) -> DeploymentSpec {
        self.deployment.spec.clone()
    }

    fn replicas(&self) -> i32 {
        self.deployment.spec.replicas.unwrap_or(1)
    }

    fn paused(&self) -> bool {
        self.deployment.spec.paused.unwrap_or(false)
    }

    fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

fn key_of(meta: &ObjectMeta) -> String {
    format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

fn selector_of(deployment: &Deployment) -> LabelSelector {
    let value = serde_json::to_value(&deployment.spec.selector).ok();
    LabelSelector::from_value(value.as_ref()).unwrap_or_else(|_| LabelSelector::nothing())
}

/// How many replicas a ReplicaSet wants.
fn wanted(set: &ReplicaSet) -> i32 {
    set.spec.replicas.unwrap_or(0)
}

/// How many of its replicas are available.
fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

fn total(sets: &[ReplicaSet], count: impl Fn(&ReplicaSet) -> i32) -> i32 {
    sets.iter().map(count).sum()
}

impl DeploymentController {
    /// Asks for its informers.
    pub fn new(context: &Context) -> Self {
        let deployments = context.informers.informer::<Deployment>();
        let sets = context.informers.informer::<ReplicaSet>();
        let pods = context.informers.informer::<Pod>();
        sets.add_index(BY_CONTROLLER, |set| controller_uid(&set.metadata).map(str::to_owned).into_iter().collect());
        pods.add_index(BY_CONTROLLER, |pod| controller_uid(&pod.metadata).map(str::to_owned).into_iter().collect());
        let controller = Self {
            recorder: context.recorder("deployment-controller"),
            deployments: deployments.lister(),
            sets: sets.lister(),
            pods: pods.lister(),
            queue: WorkQueue::new(context.client.clock().clone()),
            client: context.client.clone(),
        };
        let queue = controller.queue.clone();
        deployments.on_event(move |event| queue.add(key_of(&event.object().metadata)));
        let on_set = controller.clone();
        sets.on_event(move |event| on_set.on_replica_set(event));
        let on_pod = controller.clone();
        pods.on_event(move |event| on_pod.on_pod(event));
        controller
    }

    fn owner_key(&self, meta: &ObjectMeta) -> Option<String> {
        let owner = controller_of(meta).filter(|owner| owner.kind == "Deployment")?;
        let found = self.deployments.get(meta.namespace.as_deref().unwrap_or_default(), &owner.name)?;
        (found.metadata.uid.as_deref() == Some(&owner.uid)).then(|| key_of(&found.metadata))
    }

    fn on_replica_set(&self, event: &Event<ReplicaSet>) {
        let set = event.object();
        let key = self.owner_key(&set.metadata);
        if let Event::Updated { old, .. } = event {
            let before = self.owner_key(&old.metadata);
            if before != key {
                before.into_iter().for_each(|before| self.queue.add(before));
            }
        }
        match key {
            Some(key) => self.queue.add(key),
            None if controller_of(&set.metadata).is_none() => {
                let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
                let all = self.deployments.list_namespace(namespace);
                let matching = all.iter().filter(|d| selector_of(d).matches_set(set.metadata.labels.as_ref()));
                matching.for_each(|deployment| self.queue.add(key_of(&deployment.metadata)));
            }
            None => {}
        }
    }

    /// The last pod of an old ReplicaSet going is what a `Recreate` waits for.
    fn on_pod(&self, event: &Event<Pod>) {
        let Event::Deleted(pod) = event else { return };
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let set = controller_of(&pod.metadata).and_then(|owner| self.sets.get(namespace, &owner.name));
        let key = set.and_then(|set| self.owner_key(&set.metadata));
        let recreate = key.filter(|_| self.deployments.list_namespace(namespace).iter().any(|d| is_recreate(d)));
        recreate.into_iter().for_each(|key| self.queue.add(key));
    }

    /// The Deployment's ReplicaSets, those adopted now among them.
    async fn claim_sets(&self, work: &Work) -> Result<Vec<ReplicaSet>> {
        let all = self.sets.list_namespace(&work.namespace);
        let claims = claim(&work.deployment.metadata, &selector_of(&work.deployment), all);
        let owner = controller_reference(&work.deployment);
        let api = self.client.namespaced::<ReplicaSet>(&work.namespace);
        let mut owned: Vec<ReplicaSet> = claims.owned.iter().map(|set| ReplicaSet::clone(set)).collect();
        if !claims.adopt.is_empty() && self.still_there(work).await? {
            for set in claims.adopt {
                let uid = set.metadata.uid.as_deref().unwrap_or_default();
                let patch = Patch::Strategic(adopt_patch(&owner, uid));
                let name = set.metadata.name.as_deref().unwrap_or_default();
                match api.patch(name, &PatchParams::default(), &patch).await {
                    Ok(set) => owned.push(set),
                    Err(error) if is_not_found(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        for set in claims.release {
            let uid = set.metadata.uid.as_deref().unwrap_or_default();
            let patch = Patch::Strategic(release_patch(&owner.uid, uid));
            let name = set.metadata.name.as_deref().unwrap_or_default();
            match api.patch(name, &PatchParams::default(), &patch).await {
                Err(error) if !is_not_found(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(owned)
    }

    async fn still_there(&self, work: &Work) -> Result<bool> {
        match self.client.namespaced::<Deployment>(&work.namespace).get(&work.name).await {
            Ok(fresh) => {
                Ok(fresh.metadata.uid == work.deployment.metadata.uid && fresh.metadata.deletion_timestamp.is_none())
            }
            Err(error) if is_not_found(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The pods of these ReplicaSets.
    fn pods_of(&self, sets: &[ReplicaSet]) -> Vec<Arc<Pod>> {
        let uids = sets.iter().filter_map(|set| set.metadata.uid.as_deref());
        uids.flat_map(|uid| self.pods.by_index(BY_CONTROLLER, uid)).collect()
    }

    /// Writes the status, and what else of the metadata the status subresource lets through.
    async fn update_status(&self, work: &mut Work) -> Result<()> {
        let api = self.client.namespaced::<Deployment>(&work.namespace);
        let fresh = api.replace_status(&work.name, &PostParams::default(), &work.deployment).await?;
        work.deployment = fresh;
        Ok(())
    }
}

fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.strategy.as_ref();
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

impl Reconciler for DeploymentController {
    const NAME: &'static str = "deployment";
    const WORKERS: usize = 5;

    fn queue(&self) -> &WorkQueue<String> {
        &self.queue
    }

    async fn sync(&self, key: String) -> Result<()> {
        let (namespace, name) = key.split_once('/').unwrap_or_default();
        let Some(found) = self.deployments.get(namespace, name) else {
            return Ok(());
        };
        let mut work = Work {
            reference: object_reference(&*found),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            deployment: Deployment::clone(&found),
        };
        if selector_of(&work.deployment).is_everything() {
            let message = "This deployment is selecting all pods. A non-empty selector is required.";
            self.recorder.event(&work.reference, EventType::Warning, "SelectingAll", message);
            return Ok(());
        }
        let sets = self.claim_sets(&work).await?;
        if work.deployment.metadata.deletion_timestamp.is_some() {
            return self.sync_status_only(&mut work, sets).await;
        }
        self.check_paused_conditions(&mut work).await?;
        if work.paused() || self.is_scaling_event(&work, &sets) {
            return self.sync_scale(&mut work, sets).await;
        }
        if is_recreate(&work.deployment) {
            self.rollout_recreate(&mut work, sets).await
        } else {
            self.rollout_rolling(&mut work, sets).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Deployment of this size and these fences (JSON).
    pub(super) fn work(replicas: i32, surge: &str, unavailable: &str) -> Work {
        let json = format!(
            r#"{{"metadata":{{"namespace":"ns","name":"web"}},"spec":{{"replicas":{replicas},"selector":{{"matchLabels":{{"app":"web"}}}},
            "template":{{}},"strategy":{{"type":"RollingUpdate","rollingUpdate":{{"maxSurge":{surge},"maxUnavailable":{unavailable}}}}}}}}}"#
        );
        Work {
            deployment: serde_json::from_str(&json).unwrap(),
            reference: ObjectReference::default(),
            namespace: "ns".to_owned(),
            name: "web".to_owned(),
        }
    }

    /// A ReplicaSet of this size.
    pub(super) fn set(name: &str, replicas: i32) -> ReplicaSet {
        let json = format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{{"replicas":{replicas},"selector":{{}}}}}}"#);
        serde_json::from_str(&json).unwrap()
    }
}
