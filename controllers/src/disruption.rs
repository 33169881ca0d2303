//! A PodDisruptionBudget's status tells how many of its pods may be taken away.
//!
//! Watches PodDisruptionBudgets, Pods, and the objects that own pods; writes all of the budget's status but the
//! `disruptedPods` that the API server's eviction notes.
//! (Kubernetes: `pkg/controller/disruption/disruption.go`.)

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, OwnerReference, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use minik8s_api::selector::LabelSelector;
use minik8s_client::{
    Client, Event, EventRecorder, EventType, Lister, Watched, WorkQueue, is_not_found, object_reference,
};

use crate::discovery::deletable;
use crate::manager::{Context, Reconciler};
use crate::owners::controller_of;
use crate::pod_control::words;
use crate::pod_owners::{key_of, selector};
use crate::pods;
use crate::rolling_update::fence;

/// How long an evicted pod may take to be seen going.
const DELETION_TIMEOUT: Duration = Duration::from_secs(120);

/// See the module.
#[derive(Clone)]
pub struct DisruptionController {
    client: Client,
    recorder: EventRecorder,
    budgets: Lister<PodDisruptionBudget>,
    pods: Lister<Pod>,
    deployments: Lister<Deployment>,
    replica_sets: Lister<ReplicaSet>,
    replication_controllers: Lister<ReplicationController>,
    stateful_sets: Lister<StatefulSet>,
    queue: WorkQueue<String>,
}

fn selects(budget: &PodDisruptionBudget) -> LabelSelector {
    let own = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    own.map_or_else(LabelSelector::nothing, selector)
}

impl DisruptionController {
    /// Asks for its informers.
    pub fn new(context: &Context) -> Self {
        let budgets = context.informers.informer::<PodDisruptionBudget>();
        let pods = context.informers.informer::<Pod>();
        let controller = Self {
            client: context.client.clone(),
            recorder: context.recorder("controllermanager"),
            budgets: budgets.lister(),
            pods: pods.lister(),
            deployments: context.informers.informer().lister(),
            replica_sets: context.informers.informer().lister(),
            replication_controllers: context.informers.informer().lister(),
            stateful_sets: context.informers.informer().lister(),
            queue: WorkQueue::new(context.client.clock().clone()),
        };
        let add = controller.queue.clone();
        budgets.on_event(move |event| add.add(key_of(&event.object().metadata)));
        let on_pod = controller.clone();
        pods.on_event(move |event| {
            on_pod.add_budgets_of(&event.object().metadata);
            if let Event::Updated { old, new } = event
                && old.metadata.labels != new.metadata.labels
            {
                on_pod.add_budgets_of(&old.metadata);
            }
        });
        // The wanted size of an owner counts; its pods say whose budgets it concerns.
        controller.follow_scale::<Deployment>(context, |own| own.spec.replicas);
        controller.follow_scale::<ReplicaSet>(context, |own| own.spec.replicas);
        controller.follow_scale::<StatefulSet>(context, |own| own.spec.replicas);
        controller.follow_scale::<ReplicationController>(context, |own| own.spec.as_ref()?.replicas);
        controller
    }

    fn add_budgets_of(&self, pod: &ObjectMeta) {
        for budget in self.budgets.list_namespace(pod.namespace.as_deref().unwrap_or_default()) {
            if selects(&budget).matches_set(pod.labels.as_ref()) {
                self.queue.add(key_of(&budget.metadata));
            }
        }
    }

    fn follow_scale<K>(&self, context: &Context, replicas: fn(&K) -> Option<i32>)
    where
        K: Watched + kube::Resource<DynamicType = ()>,
    {
        let controller = self.clone();
        context.informers.informer::<K>().on_event(move |event| {
            if let Event::Updated { old, new } = event
                && replicas(old) != replicas(new)
            {
                let namespace = Watched::object_meta(&**new).namespace.clone().unwrap_or_default();
                for budget in controller.budgets.list_namespace(&namespace) {
                    controller.queue.add(key_of(&budget.metadata));
                }
            }
        });
    }

    /// The owner whose size counts for pods of `owner`, and that size; `None` where it cannot be told.
    async fn scale_of(&self, namespace: &str, owner: &OwnerReference) -> Result<Option<(String, i32)>, kube::Error> {
        let found = |uid: &Option<String>, replicas: Option<i32>| {
            Ok((uid.as_deref() == Some(owner.uid.as_str())).then(|| (owner.uid.clone(), replicas.unwrap_or(1))))
        };
        match (owner.api_version.as_str(), owner.kind.as_str()) {
            ("apps/v1", "ReplicaSet") => {
                let Some(set) = self.replica_sets.get(namespace, &owner.name) else { return Ok(None) };
                let above = controller_of(&set.metadata).filter(|above| above.kind == "Deployment");
                let above = above.and_then(|above| {
                    let deployment = self.deployments.get(namespace, &above.name)?;
                    (deployment.metadata.uid.as_ref() == Some(&above.uid)).then_some(deployment)
                });
                match above {
                    Some(above) => {
                        let uid = above.metadata.uid.clone().unwrap_or_default();
                        Ok(Some((uid, above.spec.replicas.unwrap_or(1))))
                    }
                    None => found(&set.metadata.uid, set.spec.replicas),
                }
            }
            ("apps/v1", "StatefulSet") => {
                let Some(set) = self.stateful_sets.get(namespace, &owner.name) else { return Ok(None) };
                found(&set.metadata.uid, set.spec.replicas)
            }
            ("v1", "ReplicationController") => {
                let own = self.replication_controllers.get(namespace, &owner.name);
                let Some(own) = own else { return Ok(None) };
                found(&own.metadata.uid, own.spec.as_ref().and_then(|spec| spec.replicas))
            }
            _ => self.scale_subresource(namespace, owner).await,
        }
    }

    async fn scale_subresource(
        &self,
        namespace: &str,
        owner: &OwnerReference,
    ) -> Result<Option<(String, i32)>, kube::Error> {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let served = deletable(self.client.kube()).await?;
        let resource = served.resources.into_iter().find(|served| served.group() == group && served.kind == owner.kind);
        let Some(resource) = resource else { return Ok(None) };
        let path = format!("{}/{}/scale", resource.path(Some(namespace)), owner.name);
        let request = http::Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
        match self.client.kube().request::<Scale>(request).await {
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(error),
            Ok(scale) => {
                let replicas = scale.spec.and_then(|spec| spec.replicas).unwrap_or(0);
                Ok(Some((owner.uid.clone(), replicas)))
            }
        }
    }

    /// How many pods the owners of these pods want; in words what stands against telling.
    async fn expected_scale(
        &self,
        budget: &PodDisruptionBudget,
        pods: &[Arc<Pod>],
    ) -> Result<Result<i32, String>, kube::Error> {
        let namespace = budget.metadata.namespace.as_deref().unwrap_or_default();
        let mut asked: BTreeSet<&str> = BTreeSet::new();
        let mut scales: BTreeMap<String, i32> = BTreeMap::new();
        let mut unmanaged = false;
        for pod in pods {
            let Some(owner) = controller_of(&pod.metadata) else {
                unmanaged = true;
                continue;
            };
            if !asked.insert(&owner.uid) {
                continue;
            }
            match self.scale_of(namespace, owner).await? {
                Some((uid, replicas)) => drop(scales.insert(uid, replicas)),
                None => {
                    let pod = pod.metadata.name.as_deref().unwrap_or_default();
                    return Ok(Err(format!("found no controllers for pod {pod:?}")));
                }
            }
        }
        if unmanaged {
            let message = "Pods selected by this PodDisruptionBudget were found to be unmanaged. As a result, the \
                           status of the PDB cannot be calculated correctly, which may result in undefined behavior. \
                           To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value.";
            self.recorder.event(&object_reference(budget), EventType::Warning, "UnmanagedPods", message);
        }
        Ok(Ok(scales.values().sum()))
    }
}

/// How many pods there should be and how many of them healthy; `scale` is what their owners want, where it matters.
fn desired(spec: &PodDisruptionBudgetSpec, pods: usize, scale: i32) -> (i32, i32) {
    if spec.max_unavailable.is_some() {
        let missing = fence(spec.max_unavailable.as_ref(), scale, true);
        return (scale, (scale - missing).max(0));
    }
    match &spec.min_available {
        Some(IntOrString::Int(healthy)) => (pods as i32, *healthy),
        percent => (scale, fence(percent.as_ref(), scale, true)),
    }
}

/// Whether the owners' wanted size matters to a budget.
fn needs_scale(spec: &PodDisruptionBudgetSpec) -> bool {
    spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
}

/// The evicted pods that are there still and not seen going, and when to look at them again.
fn disrupted(
    status: &PodDisruptionBudgetStatus,
    pods: &[Arc<Pod>],
    now: Timestamp,
) -> (BTreeMap<String, Time>, Option<Duration>) {
    let mut left = BTreeMap::new();
    let mut again: Option<Duration> = None;
    for (name, since) in status.disrupted_pods.iter().flatten() {
        let pod = pods.iter().find(|pod| pod.metadata.name.as_ref() == Some(name));
        let been = Duration::try_from(now.duration_since(since.0)).unwrap_or_default();
        if pod.is_some_and(|pod| pod.metadata.deletion_timestamp.is_none()) && been < DELETION_TIMEOUT {
            left.insert(name.clone(), since.clone());
            let wait = DELETION_TIMEOUT - been;
            again = Some(again.map_or(wait, |again| again.min(wait)));
        }
    }
    (left, again)
}

/// The one condition of a budget, with its time kept where nothing has changed.
fn condition(
    old: &PodDisruptionBudgetStatus,
    generation: Option<i64>,
    holds: bool,
    words: (&str, &str),
    now: Timestamp,
) -> Condition {
    let status = if holds { "True" } else { "False" };
    let known = old.conditions.iter().flatten().find(|known| known.type_ == "DisruptionAllowed");
    let since = known.filter(|known| known.status == status).map(|known| known.last_transition_time.clone());
    Condition {
        type_: "DisruptionAllowed".to_owned(),
        status: status.to_owned(),
        reason: words.0.to_owned(),
        message: words.1.to_owned(),
        observed_generation: generation,
        last_transition_time: since.unwrap_or(Time(now)),
    }
}

impl Reconciler for DisruptionController {
    const NAME: &'static str = "disruption-controller";
    const WORKERS: usize = 1;

    fn queue(&self) -> &WorkQueue<String> {
        &self.queue
    }

    async fn sync(&self, key: String) -> Result<(), kube::Error> {
        let (namespace, name) = key.split_once('/').unwrap_or_default();
        let Some(budget) = self.budgets.get(namespace, name) else { return Ok(()) };
        let now = self.client.clock().now();
        let spec = budget.spec.clone().unwrap_or_default();
        let old = budget.status.clone().unwrap_or_default();
        let selector = selects(&budget);
        let mut pods = self.pods.list_namespace(namespace);
        pods.retain(|pod| selector.matches_set(pod.metadata.labels.as_ref()));
        if pods.is_empty() {
            self.recorder.event(&object_reference(&*budget), EventType::Normal, "NoPods", "No matching pods found");
        }
        let scale = if needs_scale(&spec) { self.expected_scale(&budget, &pods).await? } else { Ok(0) };
        let generation = budget.metadata.generation;
        let (disrupted, again) = disrupted(&old, &pods, now);
        let mut fresh = PodDisruptionBudgetStatus { observed_generation: generation, ..old.clone() };
        match scale {
            Err(why) => {
                let message = format!("Failed to calculate the number of expected pods: {why}");
                let reference = object_reference(&*budget);
                self.recorder.event(&reference, EventType::Warning, "CalculateExpectedPodCountFailed", message);
                fresh.disruptions_allowed = Some(0);
                fresh.conditions = Some(vec![condition(&old, generation, false, ("SyncFailed", &why), now)]);
            }
            Ok(scale) => {
                let (expected, healthy) = desired(&spec, pods.len(), scale);
                let counts = |pod: &&Arc<Pod>| {
                    pod.metadata.deletion_timestamp.is_none()
                        && !pod.metadata.name.as_ref().is_some_and(|name| disrupted.contains_key(name))
                        && pods::is_ready(pod)
                };
                let current = pods.iter().filter(counts).count() as i32;
                let allowed = if expected > 0 { (current - healthy).max(0) } else { 0 };
                let reason = if allowed > 0 { "SufficientPods" } else { "InsufficientPods" };
                fresh.current_healthy = Some(current);
                fresh.desired_healthy = Some(healthy);
                fresh.expected_pods = Some(expected);
                fresh.disruptions_allowed = Some(allowed);
                fresh.disrupted_pods = Some(disrupted).filter(|disrupted| !disrupted.is_empty());
                fresh.conditions = Some(vec![condition(&old, generation, allowed > 0, (reason, ""), now)]);
            }
        }
        if let Some(again) = again {
            self.queue.add_after(key.clone(), again);
        }
        if fresh == old {
            return Ok(());
        }
        let fresh = PodDisruptionBudget { status: Some(fresh), ..PodDisruptionBudget::clone(&budget) };
        let api = self.client.namespaced::<PodDisruptionBudget>(namespace);
        match api.replace_status(name, &PostParams::default(), &fresh).await {
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => {
                tracing::debug!(controller = Self::NAME, key, error = words(&error), "status not written");
                Err(error)
            }
            Ok(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_budget_counts_what_owners_want_or_what_is_there() {
        let check = |spec: serde_json::Value, expected: (i32, i32)| {
            let spec: PodDisruptionBudgetSpec = serde_json::from_value(spec).unwrap();
            assert_eq!(desired(&spec, 4, 5), expected);
        };
        check(json!({"minAvailable": 2}), (4, 2));
        check(json!({"minAvailable": "50%"}), (5, 3));
        check(json!({"maxUnavailable": 1}), (5, 4));
        check(json!({"maxUnavailable": "30%"}), (5, 3));
    }

    #[test]
    fn evicted_pods_count_as_gone_for_a_while() {
        let status: PodDisruptionBudgetStatus = serde_json::from_value(
            json!({"disruptedPods": {"a": "2026-01-01T00:00:00Z", "b": "2026-01-01T00:00:00Z"}}),
        )
        .unwrap();
        let pod = Arc::new(Pod {
            metadata: ObjectMeta { name: Some("a".to_owned()), ..ObjectMeta::default() },
            ..Pod::default()
        });
        let at = |text: &str| disrupted(&status, std::slice::from_ref(&pod), text.parse().unwrap());
        let (left, again) = at("2026-01-01T00:01:00Z");
        assert_eq!((left.len(), again), (1, Some(Duration::from_secs(60))));
        assert!(at("2026-01-01T00:02:00Z").0.is_empty());
    }
}
