//! Events in, bindings out: the loop around the scheduling cycle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Binding, Namespace, Node, ObjectReference, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use minik8s_client::{
    Client, Event, EventRecorder, EventType, InformerFactory, Lister, is_conflict, is_not_found, object_reference,
};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::attempts::{Attempt, Attempts};
use crate::cache::{Cache, Snapshot};
use crate::counts::{Counts, Outcome};
use crate::framework::{ClusterEvent, Nomination};
use crate::node_info::PodInfo;
use crate::profile::Settings;
use crate::queue::{Queue, QueuedPod};
use crate::resource::{pod_requests, shrinks};
use crate::schedule_one::{FitError, Framework};

/// The name of the profile that pods get which do not ask for one.
pub const SCHEDULER_NAME: &str = "default-scheduler";
/// How many bindings may be on their way at once.
const MAX_BINDINGS: usize = 256;

struct State {
    cache: Cache,
    queue: Queue,
}

/// What decides about the pods that ask for it.
struct Decider {
    /// Speaks in the profile's name.
    recorder: EventRecorder,
    framework: Framework,
}

struct Inner {
    client: Client,
    /// By the name that pods ask for.
    deciders: BTreeMap<String, Decider>,
    state: Mutex<State>,
    changed: Notify,
    attempts: Mutex<Attempts>,
    namespaces: Lister<Namespace>,
    bindings: Arc<Semaphore>,
    counts: Counts,
}

/// The scheduler of one cluster. Clones are the same one.
#[derive(Clone)]
pub struct Scheduler {
    inner: Arc<Inner>,
    factory: InformerFactory,
}

impl Scheduler {
    /// A scheduler of these profiles over these informers; [`Scheduler::run`] starts both.
    pub fn new(factory: &InformerFactory, settings: &Settings) -> Self {
        let client = factory.client().clone();
        let claims = factory.informer::<PersistentVolumeClaim>();
        let namespaces = factory.informer::<Namespace>();
        let (mut deciders, mut profiles) = (BTreeMap::new(), BTreeMap::new());
        for profile in &settings.profiles {
            let (name, plugins) = (&profile.scheduler_name, Arc::new(profile.plugins(Some(claims.lister()))));
            let framework = Framework::new(plugins.clone()).scoring(settings.percentage_of_nodes_to_score);
            let recorder = EventRecorder::new(client.clone(), name, None);
            deciders.insert(name.clone(), Decider { recorder, framework });
            profiles.insert(name.clone(), plugins);
        }
        let state = State { cache: Cache::default(), queue: Queue::new(profiles, settings.backoff) };
        let inner = Arc::new(Inner {
            counts: Counts::new(deciders.keys().map(String::as_str)),
            deciders,
            state: Mutex::new(state),
            changed: Notify::new(),
            attempts: Mutex::default(),
            namespaces: namespaces.lister(),
            bindings: Arc::new(Semaphore::new(MAX_BINDINGS)),
            client,
        });
        Self::register(&inner);
        let pods = inner.clone();
        factory.informer::<Pod>().on_event(move |event| pods.on_pod(event));
        let nodes = inner.clone();
        factory.informer::<Node>().on_event(move |event| nodes.on_node(event));
        let volumes = inner.clone();
        claims.on_event(move |_| volumes.happened(ClusterEvent::ClaimChanged));
        Self { inner, factory: factory.clone() }
    }

    /// Adds what is counted to where its client's process counts.
    fn register(inner: &Arc<Inner>) {
        let counted = Arc::downgrade(inner);
        inner.client.metrics().registry().set("scheduler", move |text| {
            if let Some(inner) = counted.upgrade() {
                let (pending, sizes) = {
                    let state = inner.state.lock();
                    (state.queue.pending(), state.cache.sizes())
                };
                inner.counts.write(&pending, &sizes, text);
            }
        });
    }

    /// The attempts at a pod (`namespace/name`) that are still remembered.
    pub fn attempts(&self, pod: &str) -> Vec<Attempt> {
        self.inner.attempts.lock().of(pod)
    }

    /// Schedules until `cancel`.
    pub async fn run(self, cancel: CancellationToken) {
        self.factory.start();
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            () = self.factory.wait_synced() => {}
        }
        tracing::info!("caches are synced, scheduling begins");
        tokio::select! {
            biased;
            () = cancel.cancelled() => {}
            () = self.inner.schedule_forever() => {}
        }
        tracing::info!("scheduler stopped");
    }
}

fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn is_bound(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_some_and(|name| !name.is_empty())
}

impl Inner {
    fn is_ours(&self, pod: &Pod) -> bool {
        let name = pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref());
        self.deciders.contains_key(name.unwrap_or(SCHEDULER_NAME))
    }

    /// Who decides about a pod that is ours.
    fn decider(&self, pod: &PodInfo) -> &Decider {
        self.deciders.get(pod.scheduler_name()).expect("only pods of a profile enter the queue")
    }

    fn now(&self) -> Duration {
        self.client.clock().monotonic()
    }

    fn happened(&self, event: ClusterEvent) {
        self.state.lock().queue.on_event(event, self.now());
        self.changed.notify_one();
    }

    fn on_pod(&self, event: &Event<Pod>) {
        let (now, mut state) = (self.now(), self.state.lock());
        let pod = event.object();
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let gone = matches!(event, Event::Deleted(_)) || is_finished(pod);
        if gone {
            state.queue.remove(&uid);
            if state.cache.remove_pod(&uid) {
                state.queue.on_event(ClusterEvent::PodGone, now);
            }
        } else if is_bound(pod) {
            let labels = matches!(event, Event::Updated { old, new } if old.metadata.labels != new.metadata.labels);
            let known = state.cache.has_pod(&uid);
            state.queue.remove(&uid);
            state.cache.set_pod(pod);
            if !known {
                state.queue.on_event(ClusterEvent::PodBound, now);
            } else if labels {
                state.queue.on_event(ClusterEvent::PodLabels, now);
            }
            if known && matches!(event, Event::Updated { old, new } if shrinks(&pod_requests(old), &pod_requests(new)))
            {
                state.queue.on_event(ClusterEvent::PodShrunk, now);
            }
        } else if pod.metadata.deletion_timestamp.is_some() {
            state.queue.remove(&uid);
        } else if self.is_ours(pod) && !state.cache.has_pod(&uid) {
            // A status that this scheduler wrote itself changes nothing.
            let written = matches!(event, Event::Updated { old, new }
                if old.spec == new.spec && old.metadata.labels == new.metadata.labels);
            if !written {
                state.queue.set(Arc::new(PodInfo::new(pod.clone())), now);
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    fn on_node(&self, event: &Event<Node>) {
        let (now, mut state) = (self.now(), self.state.lock());
        match event {
            Event::Added(node) => {
                state.cache.set_node(node.clone());
                state.queue.on_event(ClusterEvent::NodeAdded, now);
            }
            Event::Updated { old, new } => {
                let spec = |node: &Node| {
                    let spec = node.spec.clone().unwrap_or_default();
                    (spec.taints, spec.unschedulable)
                };
                let status = |node: &Node| {
                    let status = node.status.clone().unwrap_or_default();
                    (status.allocatable, status.images)
                };
                let (taints, labels) = (spec(old) != spec(new), old.metadata.labels != new.metadata.labels);
                let (before, after) = (status(old), status(new));
                if taints || labels || before != after {
                    state.cache.set_node(new.clone());
                }
                let changes = [
                    (taints, ClusterEvent::NodeTaints),
                    (labels, ClusterEvent::NodeLabels),
                    (before.0 != after.0, ClusterEvent::NodeAllocatable),
                ];
                for (_, event) in changes.into_iter().filter(|(changed, _)| *changed) {
                    state.queue.on_event(event, now);
                }
            }
            Event::Deleted(node) => state.cache.remove_node(node.metadata.name.as_deref().unwrap_or_default()),
        }
        drop(state);
        self.changed.notify_one();
    }

    async fn schedule_forever(self: &Arc<Self>) {
        let mut snapshot = Snapshot::default();
        let mut start = 0;
        loop {
            let changed = self.changed.notified();
            let (pod, wake) = {
                let mut state = self.state.lock();
                let pod = state.queue.pop(self.now());
                let wake = state.queue.next_wake();
                if pod.is_some() {
                    state.cache.update(&mut snapshot);
                }
                (pod, wake)
            };
            match (pod, wake) {
                (Some(pod), _) => {
                    self.take_in_namespaces(&pod, &mut snapshot);
                    start = self.schedule_one(pod, &snapshot, start).await;
                }
                (None, Some(at)) => tokio::select! {
                    biased;
                    () = changed => {}
                    () = self.client.clock().sleep_until(at) => {}
                },
                (None, None) => changed.await,
            }
        }
    }

    /// Terms may select namespaces by their labels; few pods have such terms.
    fn take_in_namespaces(&self, pod: &QueuedPod, snapshot: &mut Snapshot) {
        let selects = |pod: &PodInfo| {
            let hard = pod.required_affinity.iter().chain(&pod.required_anti_affinity);
            let soft = pod.preferred_affinity.iter().map(|(_, term)| term);
            hard.chain(soft).any(|term| term.namespace_selector.as_ref().is_some_and(|s| !s.is_everything()))
        };
        if selects(&pod.info) || snapshot.nodes().any(|node| node.pods.iter().any(|pod| selects(pod))) {
            let labels: BTreeMap<_, _> = self
                .namespaces
                .list()
                .iter()
                .filter_map(|ns| Some((ns.metadata.name.clone()?, ns.metadata.labels.clone()?)))
                .collect();
            snapshot.namespaces = Arc::new(labels);
        }
    }

    async fn schedule_one(self: &Arc<Self>, pod: QueuedPod, snapshot: &Snapshot, start: usize) -> usize {
        let began = self.now();
        let outcome = self.decider(&pod.info).framework.schedule(&pod.info, snapshot, start, self.client.random());
        self.counts.algorithm.observe_time(self.now().saturating_sub(began));
        self.attempts.lock().push(Attempt {
            at: self.client.clock().now(),
            pod: format!("{}/{}", pod.info.namespace(), pod.info.name()),
            uid: pod.info.uid().to_owned(),
            chosen: outcome.result.as_ref().ok().cloned(),
            message: outcome.result.as_ref().err().map(|error| error.message.clone()),
            nodes: outcome.verdicts,
        });
        match outcome.result {
            Ok(node) => {
                self.state.lock().cache.assume(pod.info.clone(), &node);
                // Waits only when as many bindings as allowed are on their way.
                if let Ok(permit) = self.bindings.clone().acquire_owned().await {
                    let inner = self.clone();
                    tokio::spawn(async move {
                        inner.bind(pod, &node, began).await;
                        drop(permit);
                    });
                }
            }
            Err(error) => {
                let profile = pod.info.scheduler_name();
                self.counts.attempted(profile, Outcome::Unschedulable, self.now().saturating_sub(began));
                self.no_fit(pod, error).await;
            }
        }
        outcome.next_start
    }

    async fn bind(&self, pod: QueuedPod, node: &str, began: Duration) {
        let info = &pod.info;
        let binding = Binding {
            metadata: ObjectMeta {
                name: Some(info.name().to_owned()),
                namespace: Some(info.namespace().to_owned()),
                uid: info.pod.metadata.uid.clone(),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Node".to_owned()),
                name: Some(node.to_owned()),
                ..ObjectReference::default()
            },
        };
        let api = self.client.namespaced::<Pod>(info.namespace());
        let bound: Result<serde_json::Value, _> =
            api.create_subresource("binding", info.name(), &PostParams::default(), &binding).await;
        let outcome = if bound.is_ok() { Outcome::Scheduled } else { Outcome::Error };
        self.counts.attempted(info.scheduler_name(), outcome, self.now().saturating_sub(began));
        match bound {
            Ok(_) => {
                self.counts.waited.observe_time(self.now().saturating_sub(pod.since));
                self.state.lock().queue.done(info.uid());
                let message = format!("Successfully assigned {}/{} to {node}", info.namespace(), info.name());
                tracing::info!(pod = format!("{}/{}", info.namespace(), info.name()), node, "pod bound");
                let recorder = &self.decider(info).recorder;
                recorder.event(&object_reference(&*info.pod), EventType::Normal, "Scheduled", message);
            }
            Err(error) => {
                let now = self.now();
                let mut state = self.state.lock();
                state.cache.forget(info.uid());
                if is_not_found(&error) || is_conflict(&error) {
                    // The pod is gone, or somebody else bound it: the watch tells.
                    state.queue.done(info.uid());
                    return;
                }
                tracing::warn!(pod = info.name(), %error, "binding failed");
                state.queue.requeue(pod, BTreeSet::new(), now);
                drop(state);
                self.changed.notify_one();
            }
        }
    }

    async fn no_fit(self: &Arc<Self>, pod: QueuedPod, error: FitError) {
        let info = pod.info.clone();
        let nominated = error.nomination.as_ref().map(|nomination| nomination.node.clone());
        tracing::info!(
            pod = format!("{}/{}", info.namespace(), info.name()),
            message = error.message,
            "unable to schedule pod; waiting"
        );
        self.state.lock().queue.requeue(pod, error.plugins, self.now());
        let reference = object_reference(&*info.pod);
        let recorder = &self.decider(&info).recorder;
        recorder.event(&reference, EventType::Warning, "FailedScheduling", error.message.clone());
        if let Some(nomination) = &error.nomination {
            self.preempt(&info, nomination).await;
        }
        if let Err(error) = self.write_condition(&info, &error.message, nominated).await
            && !is_not_found(&error)
        {
            tracing::warn!(pod = info.name(), %error, "cannot write the condition");
        }
        self.changed.notify_one();
    }

    async fn write_condition(
        &self,
        pod: &PodInfo,
        message: &str,
        nominated: Option<String>,
    ) -> Result<(), kube::Error> {
        let conditions = pod.pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let known = conditions.filter(|condition| condition.type_ == "PodScheduled").any(|condition| {
            condition.status == "False"
                && condition.reason.as_deref() == Some("Unschedulable")
                && condition.message.as_deref() == Some(message)
        });
        if known && nominated.is_none() {
            return Ok(());
        }
        let mut status = json!({"conditions": [{
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "observedGeneration": pod.pod.metadata.generation,
            "lastTransitionTime": Time(self.client.clock().now()),
        }]});
        if let Some(node) = nominated {
            status["nominatedNodeName"] = node.into();
        }
        let patch = Patch::Strategic(json!({"metadata": {"uid": pod.uid()}, "status": status}));
        let api = self.client.namespaced::<Pod>(pod.namespace());
        api.patch_status(pod.name(), &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Evicts the victims; their going is the event that brings the pod back.
    async fn preempt(&self, pod: &PodInfo, nomination: &Nomination) {
        self.counts.preempting(nomination.victims.len());
        for victim in &nomination.victims {
            if victim.pod.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let api = self.client.namespaced::<Pod>(victim.namespace());
            let message = format!("{}: preempting to accommodate a higher priority pod", pod.scheduler_name());
            let condition = json!({"status": {"conditions": [{
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "PreemptionByScheduler",
                "message": message,
                "lastTransitionTime": Time(self.client.clock().now()),
            }]}});
            let marked = api.patch_status(victim.name(), &PatchParams::default(), &Patch::Strategic(condition)).await;
            let precondition = Preconditions { uid: victim.pod.metadata.uid.clone(), resource_version: None };
            let parameters = DeleteParams { preconditions: Some(precondition), ..DeleteParams::default() };
            let deleted = match marked {
                Ok(_) => api.delete(victim.name(), &parameters).await.map(drop),
                Err(error) => Err(error),
            };
            match deleted {
                Ok(()) => {
                    let message = format!("Preempted by pod {} on node {}", pod.uid(), nomination.node);
                    let reference = object_reference(&*victim.pod);
                    self.decider(pod).recorder.event(&reference, EventType::Normal, "Preempted", message);
                }
                Err(error) if is_not_found(&error) => {}
                Err(error) => tracing::warn!(victim = victim.name(), %error, "cannot preempt"),
            }
        }
    }
}
