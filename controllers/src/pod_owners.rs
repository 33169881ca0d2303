//! Whose a pod is: which owner is to look when a pod changes, and which pods an owner has.
//!
//! All controllers that make pods keep them in the same way; what they make of them is their own affair.
//! (Kubernetes: `pkg/controller/controller_ref_manager.go`, and the pod handlers of each of its controllers.)

use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector as ApiSelector, ObjectMeta};
use minik8s_api::selector::LabelSelector;
use minik8s_client::{Client, Event, Informer, Lister, Watched, WorkQueue, is_not_found};

use crate::expectations::Expectations;
use crate::owners::{claim, controller_of, controller_reference};
use crate::pod_control::PodControl;

/// The index of pods by the UID of their controller; those without one are filed under [`orphans_of`] their namespace.
const BY_CONTROLLER: &str = "controller";

fn orphans_of(namespace: &str) -> String {
    format!("orphans/{namespace}")
}

fn by_controller(pod: &Pod) -> Vec<String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    vec![controller_of(&pod.metadata).map_or_else(|| orphans_of(namespace), |owner| owner.uid.clone())]
}

/// The key of a namespaced object.
pub fn key_of(meta: &ObjectMeta) -> String {
    format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

/// The selector of an owner; one that makes no sense selects nothing.
pub fn selector(selector: &ApiSelector) -> LabelSelector {
    let value = serde_json::to_value(selector).ok();
    LabelSelector::from_value(value.as_ref()).unwrap_or_else(|_| LabelSelector::nothing())
}

type SelectorOf<K> = Box<dyn Fn(&K) -> LabelSelector + Send + Sync>;

/// The pods of all owners of a kind.
pub struct PodOwners<K: 'static> {
    client: Client,
    control: PodControl,
    owners: Lister<K>,
    pods: Lister<Pod>,
    selector_of: SelectorOf<K>,
    /// A finalizer that pods get with their owner.
    finalizer: Option<&'static str>,
    queue: WorkQueue<String>,
    expectations: Expectations,
}

impl<K> PodOwners<K>
where
    K: Watched + kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    K: k8s_openapi::Resource + Clone + std::fmt::Debug,
{
    /// Puts the keys of owners into `queue` as they or their pods change.
    pub fn new(
        control: PodControl,
        owners: &Informer<K>,
        pods: &Informer<Pod>,
        selector_of: impl Fn(&K) -> LabelSelector + Send + Sync + 'static,
        finalizer: Option<&'static str>,
        queue: WorkQueue<String>,
    ) -> Arc<Self> {
        pods.add_index(BY_CONTROLLER, by_controller);
        let client = control.client().clone();
        let shared = Arc::new(Self {
            expectations: Expectations::new(client.clock().clone()),
            owners: owners.lister(),
            pods: pods.lister(),
            selector_of: Box::new(selector_of),
            client,
            control,
            finalizer,
            queue,
        });
        let on_owner = shared.clone();
        owners.on_event(move |event| {
            let key = key_of(event.object().object_meta());
            if matches!(event, Event::Deleted(_)) {
                on_owner.expectations.forget(&key);
            }
            on_owner.queue.add(key);
        });
        let on_pod = shared.clone();
        pods.on_event(move |event| on_pod.on_pod(event));
        shared
    }

    /// What was done to the pods and not seen yet, by the owner's key.
    pub fn expectations(&self) -> &Expectations {
        &self.expectations
    }

    /// The owner of this key.
    pub fn get(&self, key: &str) -> Option<Arc<K>> {
        let (namespace, name) = key.split_once('/').unwrap_or_default();
        self.owners.get(namespace, name)
    }

    /// The key of the pod's controller, where that is one of this kind and still the same object.
    pub fn owner_key(&self, pod: &Pod) -> Option<String> {
        let owner = controller_of(&pod.metadata)?;
        if owner.kind != <K as k8s_openapi::Resource>::KIND {
            return None;
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let found = self.owners.get(namespace, &owner.name)?;
        (found.object_meta().uid.as_deref() == Some(owner.uid.as_str())).then(|| key_of(found.object_meta()))
    }

    /// The pods that have the object with this UID as their controller.
    pub fn owned(&self, uid: &str) -> Vec<Arc<Pod>> {
        self.pods.by_index(BY_CONTROLLER, uid)
    }

    fn on_pod(&self, event: &Event<Pod>) {
        let pod = event.object();
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let key = self.owner_key(pod);
        if let Some(key) = &key {
            match event {
                Event::Deleted(_) => self.expectations.deletion_observed(key, uid),
                _ if pod.metadata.deletion_timestamp.is_some() => self.expectations.deletion_observed(key, uid),
                Event::Added(_) => self.expectations.creation_observed(key),
                Event::Updated { .. } => {}
            }
            self.queue.add(key.clone());
        }
        let orphan = controller_of(&pod.metadata).is_none();
        match event {
            Event::Updated { old, new } => {
                let before = self.owner_key(old);
                if before != key {
                    before.into_iter().for_each(|before| self.queue.add(before));
                }
                let labels = old.metadata.labels != new.metadata.labels;
                if orphan && (labels || controller_of(&old.metadata).is_some()) {
                    self.add_candidates(new);
                }
            }
            Event::Added(_) if orphan => self.add_candidates(pod),
            _ => {}
        }
    }

    /// Asks every owner that might adopt the pod to look.
    fn add_candidates(&self, pod: &Pod) {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        for owner in self.owners.list_namespace(namespace) {
            if (self.selector_of)(&owner).matches_set(pod.metadata.labels.as_ref()) {
                self.queue.add(key_of(owner.object_meta()));
            }
        }
    }

    /// The pods of `owner` among those that `counts` admits, adopting and releasing on the way.
    pub async fn claim(&self, owner: &K, counts: impl Fn(&Pod) -> bool) -> Result<Vec<Arc<Pod>>, kube::Error> {
        let meta = owner.object_meta();
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let reference = controller_reference(owner);
        let mut candidates = self.owned(&reference.uid);
        candidates.extend(self.pods.by_index(BY_CONTROLLER, &orphans_of(namespace)));
        candidates.retain(|pod| counts(pod));
        let claims = claim(meta, &(self.selector_of)(owner), candidates);
        let mut owned = claims.owned;
        if !claims.adopt.is_empty() && self.still_there(owner).await? {
            for pod in claims.adopt {
                match self.control.adopt(&pod, &reference, self.finalizer).await {
                    Ok(()) => owned.push(pod),
                    Err(error) if is_not_found(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        for pod in claims.release {
            self.control.release(&pod, &reference).await?;
        }
        Ok(owned)
    }

    /// Adopting on behalf of an owner that is gone would orphan the pod for good: ask the API itself.
    async fn still_there(&self, owner: &K) -> Result<bool, kube::Error> {
        let meta = owner.object_meta();
        let api = self.client.namespaced::<K>(meta.namespace.as_deref().unwrap_or_default());
        match api.get(meta.name.as_deref().unwrap_or_default()).await {
            Ok(fresh) => {
                let fresh = Watched::object_meta(&fresh);
                Ok(fresh.uid == meta.uid && fresh.deletion_timestamp.is_none())
            }
            Err(error) if is_not_found(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
