//! A ReplicaSet has as many pods as it says. The same engine serves ReplicationControllers ([`crate::replication`]).
//!
//! Watches ReplicaSets and Pods; owns their pods; writes Pods and all of the ReplicaSet's status.
//! (Kubernetes: `pkg/controller/replicaset/replica_set.go`.)

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use minik8s_client::{Client, Watched, WorkQueue, is_not_found, object_reference};

use crate::manager::{Context, Reconciler};
use crate::owners::controller_reference;
use crate::pod_control::{PodControl, is_namespace_terminating, pod_from_template, slow_start, words};
use crate::pod_owners::{PodOwners, selector};
use crate::pods;

/// How many pods one look at a set creates or deletes at most.
const BURST_REPLICAS: usize = 500;
/// The kinds that the engine serves: they look at themselves as a ReplicaSet.
pub struct Flavor<K> {
    /// The controller's name, in events and in the log.
    pub component: &'static str,
    /// The object as a ReplicaSet.
    pub view: fn(&K) -> ReplicaSet,
    /// The object with the status of its view.
    pub with_status: fn(&K, ReplicaSetStatus) -> K,
}

/// The flavor of ReplicaSets themselves.
pub fn replica_sets() -> Flavor<ReplicaSet> {
    Flavor {
        component: "replicaset-controller",
        view: ReplicaSet::clone,
        with_status: |set, status| ReplicaSet { status: Some(status), ..set.clone() },
    }
}

/// See the module.
pub struct ReplicaController<K: 'static> {
    shared: Arc<Shared<K>>,
}

struct Shared<K: 'static> {
    flavor: Flavor<K>,
    client: Client,
    control: PodControl,
    owners: Arc<PodOwners<K>>,
    queue: WorkQueue<String>,
}

/// What a look at a set and its pods comes to.
struct Looked {
    set: ReplicaSet,
    reference: ObjectReference,
    owner: OwnerReference,
    active: Vec<Arc<Pod>>,
    terminating: usize,
}

impl<K> ReplicaController<K>
where
    K: Watched + kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    K: k8s_openapi::Resource + Clone + serde::Serialize + std::fmt::Debug,
{
    /// Asks for its informers.
    pub fn new(flavor: Flavor<K>, context: &Context) -> Self {
        let control = PodControl::new(context.client.clone(), context.recorder(flavor.component));
        let queue = WorkQueue::new(context.client.clock().clone());
        let view = flavor.view;
        let owners = PodOwners::new(
            control.clone(),
            &context.informers.informer::<K>(),
            &context.informers.informer::<Pod>(),
            move |owner: &K| selector(&view(owner).spec.selector),
            None,
            queue.clone(),
        );
        let shared = Shared { flavor, client: context.client.clone(), control, owners, queue };
        Self { shared: Arc::new(shared) }
    }
}

fn min_ready(set: &ReplicaSet) -> Duration {
    let seconds = set.spec.min_ready_seconds.unwrap_or(0);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

impl<K> Shared<K>
where
    K: Watched + kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    K: k8s_openapi::Resource + Clone + serde::Serialize + std::fmt::Debug,
{
    async fn sync(&self, key: String) -> Result<(), kube::Error> {
        let Some(owner) = self.owners.get(&key) else {
            return Ok(());
        };
        let seen = self.owners.expectations().satisfied(&key);
        let looked = self.look(&owner).await?;
        let mut failure = None;
        if seen && looked.set.metadata.deletion_timestamp.is_none() {
            failure = self.manage(&key, &looked).await.err();
        }
        let now = self.client.clock().now();
        let status = calculate_status(&looked.set, &looked.active, looked.terminating, failure.as_ref(), now);
        self.write_status(&owner, &looked.set, status).await?;
        if let Some(soonest) = next_available(&looked, now) {
            self.queue.add_after(key, soonest);
        }
        failure.map_or(Ok(()), Err)
    }

    /// Finds the set's pods, adopting and releasing on the way.
    async fn look(&self, owner: &K) -> Result<Looked, kube::Error> {
        let set = (self.flavor.view)(owner);
        // What has ended is not counted, and not adopted either.
        let counts = |pod: &Pod| !matches!(pods::phase(pod), "Succeeded" | "Failed");
        let mut owned = self.owners.claim(owner, counts).await?;
        let terminating = owned.iter().filter(|pod| pods::is_terminating(pod)).count();
        owned.retain(|pod| pods::is_active(pod));
        Ok(Looked {
            set,
            reference: object_reference(owner),
            owner: controller_reference(owner),
            active: owned,
            terminating,
        })
    }

    async fn manage(&self, key: &str, looked: &Looked) -> Result<(), kube::Error> {
        let wanted = looked.set.spec.replicas.unwrap_or(1);
        let wanted = usize::try_from(wanted).unwrap_or(0);
        match looked.active.len().cmp(&wanted) {
            Ordering::Less => {
                let missing = (wanted - looked.active.len()).min(BURST_REPLICAS);
                tracing::info!(controller = self.flavor.component, key, missing, wanted, "too few replicas");
                self.create(key, looked, missing).await
            }
            Ordering::Greater => {
                let surplus = (looked.active.len() - wanted).min(BURST_REPLICAS);
                tracing::info!(controller = self.flavor.component, key, surplus, wanted, "too many replicas");
                self.delete(key, looked, surplus).await
            }
            Ordering::Equal => Ok(()),
        }
    }

    async fn create(&self, key: &str, looked: &Looked, missing: usize) -> Result<(), kube::Error> {
        let template = looked.set.spec.template.clone().unwrap_or_default();
        let pod = pod_from_template(&template, &looked.owner);
        let namespace = looked.set.metadata.namespace.as_deref().unwrap_or_default();
        let expectations = self.owners.expectations();
        expectations.expect_creations(key, missing);
        let create = |()| self.control.create(namespace, &looked.reference, &pod);
        let (created, failure) = slow_start(vec![(); missing], create).await;
        for _ in created..missing {
            expectations.creation_observed(key);
        }
        failure.filter(|error| !is_namespace_terminating(error)).map_or(Ok(()), Err)
    }

    async fn delete(&self, key: &str, looked: &Looked, surplus: usize) -> Result<(), kube::Error> {
        let namespace = looked.set.metadata.namespace.as_deref().unwrap_or_default();
        let victims = victims(&looked.active, surplus, self.client.clock().now());
        let uids = victims.iter().map(|pod| pod.metadata.uid.clone().unwrap_or_default());
        self.owners.expectations().expect_deletions(key, uids);
        let deletions = victims.iter().map(|pod| async {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let deleted = self.control.delete(namespace, name, &looked.reference).await;
            if deleted.is_err() {
                self.owners.expectations().deletion_observed(key, pod.metadata.uid.as_deref().unwrap_or_default());
            }
            deleted
        });
        join_all(deletions).await.into_iter().collect()
    }

    async fn write_status(&self, owner: &K, set: &ReplicaSet, status: ReplicaSetStatus) -> Result<(), kube::Error> {
        let fresh = (self.flavor.with_status)(owner, status);
        // Compared as the kind itself tells it: not every kind tells all that the engine counts.
        if (self.flavor.view)(&fresh).status == set.status {
            return Ok(());
        }
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let api = self.client.namespaced::<K>(namespace);
        match api.replace_status(name, &PostParams::default(), &fresh).await {
            Err(error) if is_not_found(&error) => Ok(()),
            other => other.map(drop),
        }
    }
}

impl<K> Clone for ReplicaController<K> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<K> Reconciler for ReplicaController<K>
where
    K: Watched + kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    K: k8s_openapi::Resource + Clone + serde::Serialize + std::fmt::Debug,
{
    const NAME: &'static str = <K as k8s_openapi::Resource>::KIND;
    const WORKERS: usize = 5;

    fn queue(&self) -> &WorkQueue<String> {
        &self.shared.queue
    }

    async fn sync(&self, key: String) -> Result<(), kube::Error> {
        self.shared.sync(key).await
    }
}

/// The pods that go first when there are `surplus` too many.
fn victims(active: &[Arc<Pod>], surplus: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    let node = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
    let mut on_node: BTreeMap<String, usize> = BTreeMap::new();
    for pod in active {
        *on_node.entry(node(pod)).or_default() += 1;
    }
    let mut ranked: Vec<(Arc<Pod>, usize)> =
        active.iter().map(|pod| (pod.clone(), on_node.get(&node(pod)).copied().unwrap_or(0))).collect();
    ranked.sort_by(|(a, a_neighbours), (b, b_neighbours)| {
        pods::deletion_order((a, *a_neighbours), (b, *b_neighbours), now)
    });
    ranked.into_iter().take(surplus).map(|(pod, _)| pod).collect()
}

/// When the next ready pod will have been ready for long enough, where one has not.
fn next_available(looked: &Looked, now: Timestamp) -> Option<Duration> {
    let wait = min_ready(&looked.set);
    let waits = looked.active.iter().filter_map(|pod| pods::available_in(pod, wait, now));
    waits.filter(|wait| !wait.is_zero()).min()
}

/// The status of a set with these pods. `failure` is what went wrong when pods were created or deleted.
fn calculate_status(
    set: &ReplicaSet,
    active: &[Arc<Pod>],
    terminating: usize,
    failure: Option<&kube::Error>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let template = set.spec.template.as_ref();
    let labels = template.and_then(|template| template.metadata.as_ref()).and_then(|meta| meta.labels.as_ref());
    let labelled = |pod: &Pod| {
        let own = pod.metadata.labels.as_ref();
        labels.is_none_or(|labels| labels.iter().all(|(key, value)| own.is_some_and(|own| own.get(key) == Some(value))))
    };
    let count = |test: &dyn Fn(&Pod) -> bool| active.iter().filter(|pod| test(pod)).count() as i32;
    let wait = min_ready(set);
    let positive = |count: i32| Some(count).filter(|count| *count > 0);
    ReplicaSetStatus {
        replicas: active.len() as i32,
        fully_labeled_replicas: positive(count(&labelled)),
        ready_replicas: positive(count(&pods::is_ready)),
        available_replicas: positive(count(&|pod| pods::is_available(pod, wait, now))),
        terminating_replicas: Some(terminating as i32),
        observed_generation: set.metadata.generation,
        conditions: conditions(set, active.len(), failure, now),
    }
}

fn conditions(
    set: &ReplicaSet,
    active: usize,
    failure: Option<&kube::Error>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let old = set.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut conditions: Vec<ReplicaSetCondition> = old.cloned().collect();
    let known = conditions.iter().position(|condition| condition.type_.as_deref() == Some("ReplicaFailure"));
    match (failure, known) {
        (Some(error), None) => {
            let wanted = set.spec.replicas.unwrap_or(1);
            let reason = if (active as i32) < wanted { "FailedCreate" } else { "FailedDelete" };
            conditions.push(ReplicaSetCondition {
                type_: Some("ReplicaFailure".to_owned()),
                status: Some("True".to_owned()),
                reason: Some(reason.to_owned()),
                message: Some(words(error)),
                last_transition_time: Some(Time(now)),
            });
        }
        (None, Some(at)) => drop(conditions.remove(at)),
        _ => {}
    }
    (!conditions.is_empty()).then_some(conditions)
}
