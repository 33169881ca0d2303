//! In-place resize: whether the node has room for what a pod is to have, and what is said about it.
//!
//! ```text
//!   desired ≠ allocated ──► waiting ──► room? ── no ──► PodResizePending (Deferred), looked at again when room may come
//!                                         │
//!                                        yes ──► allocated, PodResizeInProgress ──► plan, actuate ──► conditions gone
//! ```
//! What is larger than the node itself does not come here: the API server's PodResizeValidator refuses it.
//! (kubelet: `allocation/allocation_manager.go`; `status/status_manager.go`, `SetPodResizePendingCondition` and the like.)

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use minik8s_client::{EventType, object_reference};

use crate::admission::{self, Neighbour};
use crate::allocation::{Allocation, Allocations, PodResources};
use crate::error::Result;
use crate::kubelet::Kubelet;
use crate::resizing;
use crate::resources::{pod_request, qos_class};
use crate::runtime::RuntimePod;
use crate::spec::PodExt as _;
use crate::sync::Wake;

/// The condition of a pod that was asked for more than the node has room for.
pub const PENDING: &str = "PodResizePending";
/// The condition of a pod whose containers do not have yet what is allocated to them.
pub const IN_PROGRESS: &str = "PodResizeInProgress";
/// There may be room later.
const DEFERRED: &str = "Deferred";
/// The runtime did not do it; it is asked again.
const ERROR: &str = "Error";
/// How often a pod looks again whether there is room, beside when some becomes free (`retryDelay`).
const RETRY: Duration = Duration::from_secs(180);

impl Kubelet {
    /// The pod by what is allocated to it, which is what a kubelet acts on.
    pub(crate) fn allocated(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        self.allocations.lock().applied_to(pod)
    }

    /// The other pods that have something of the node, with what they have.
    pub(crate) fn neighbours(&self, allocations: &Allocations, uid: &str) -> Vec<Neighbour> {
        let others = self.pods().into_iter().filter(|other| other.uid() != uid && crate::sync::is_active(other));
        // Static pods are not asked, so they count from the start.
        let admitted = others.filter(|other| other.is_static() || allocations.get(other.uid()).is_some());
        let neighbour =
            |other: Arc<Pod>| Neighbour { actual: allocations.actuated(&other), pod: allocations.applied_to(&other) };
        admitted.map(neighbour).collect()
    }

    /// Looks whether a pod of this node, as the API has it, is to have other resources than are allocated to it.
    pub(crate) fn consider_resize(&self, pod: &Arc<Pod>, wake: &mut Wake) {
        let mut allocations = self.allocations.lock();
        let Some(known) = allocations.get_mut(pod.uid()) else { return };
        if !known.adopted {
            known.adopted = true;
            adopt_conditions(known, pod);
        }
        if matches!(known.record.allocated.applied_to(pod), Cow::Borrowed(_)) {
            // Also where it was asked for more and the wish was taken back.
            known.pending = None;
            allocations.waiting.retain(|uid| uid != pod.uid());
            return;
        }
        if allocations.waiting.iter().all(|uid| uid != pod.uid()) {
            allocations.waiting.push(pod.uid().to_owned());
        }
        self.retry(&mut allocations, Some(pod.uid()));
        if allocations.waiting.iter().any(|uid| uid == pod.uid()) {
            wake.after(self.config.clock.now(), RETRY);
        }
    }

    /// Looks again at the pods that wait for room, because some may have become free.
    pub(crate) fn retry_resizes(&self) {
        self.retry(&mut self.allocations.lock(), None);
    }

    /// Has the pods that wait for room look again.
    pub(crate) fn wake_waiting(&self) {
        for uid in &self.allocations.lock().waiting {
            self.queue.add(uid.clone());
        }
    }

    /// `current` is the pod whose sync this is; others that change get a sync.
    fn retry(&self, allocations: &mut Allocations, current: Option<&str>) {
        // Until all pods of the node are known and have what they get, room may seem to be free that is not.
        if allocations.waiting.is_empty() || !self.knows_pods.load(Ordering::Acquire) || !self.all_decided() {
            return;
        }
        let waiting = std::mem::take(&mut allocations.waiting);
        let inputs = waiting.iter().filter_map(|uid| self.worker(uid)).map(|worker| worker.input());
        let mut pods: Vec<Arc<Pod>> = inputs.filter(|input| !input.is_ending()).map(|input| input.pod).collect();
        pods.sort_by_cached_key(|pod| precedence(allocations, pod));
        for pod in pods {
            let conditions = |allocations: &Allocations| allocations.get(pod.uid()).map(Allocation::conditions);
            let before = conditions(allocations);
            match self.reallocate(allocations, &pod) {
                Ok(true) => {}
                Ok(false) => allocations.waiting.push(pod.uid().to_owned()),
                Err(error) => {
                    tracing::warn!(pod = pod.full_format(), %error, "a resize could not be allocated");
                    allocations.waiting.push(pod.uid().to_owned());
                }
            }
            if before != conditions(allocations) && current != Some(pod.uid()) {
                self.queue.add(pod.uid().to_owned());
            }
        }
    }

    fn all_decided(&self) -> bool {
        let workers = self.workers.lock();
        workers.values().all(|worker| worker.decided.load(Ordering::Acquire) || worker.input().is_ending())
    }

    /// Allocates what a pod is to have, if the node has room for it. False if the pod has to wait.
    fn reallocate(&self, allocations: &mut Allocations, pod: &Arc<Pod>) -> Result<bool> {
        let others = self.neighbours(allocations, pod.uid());
        let node = self.node.lock().clone();
        let verdict = admission::admit(pod, &others, &node, &self.allocatable)?;
        let generation = pod.metadata.generation.unwrap_or_default();
        let reference = object_reference(pod.as_ref());
        let now = self.config.clock.now();
        if verdict.is_none() {
            allocations.allocate(self.config.fs.as_ref(), pod)?;
        }
        let Some(known) = allocations.get_mut(pod.uid()) else { return Ok(true) };
        let Some(verdict) = verdict else {
            known.pending = None;
            known.in_progress = Some(condition(IN_PROGRESS, None, "", "", generation, now));
            let message = resizing::message("started", pod, generation, "");
            self.event(&reference, EventType::Normal, "ResizeStarted", message);
            return Ok(true);
        };
        let why = admission::without_prefix(&verdict.message);
        let old = known.pending.take();
        let is_news = old
            .as_ref()
            .is_none_or(|old| old.reason.as_deref() != Some(DEFERRED) || old.observed_generation != Some(generation));
        known.pending = Some(condition(PENDING, old, DEFERRED, why, generation, now));
        if is_news {
            let message = resizing::message(&verdict.reason, pod, generation, why);
            self.event(&reference, EventType::Warning, "ResizeDeferred", message);
        }
        Ok(false)
    }

    /// Brings `PodResizeInProgress` up to date: it is there as long as a running container does not have what is
    /// allocated to it. `pod` is the allocated one.
    pub(crate) fn follow_resize(&self, pod: &Arc<Pod>, runtime: &RuntimePod) {
        let mut allocations = self.allocations.lock();
        let Some(known) = allocations.get_mut(pod.uid()) else { return };
        if resizing::is_in_progress(pod, runtime, &known.record.actuated) {
            if known.in_progress.is_none() {
                let generation = pod.metadata.generation.unwrap_or_default();
                known.in_progress = Some(condition(IN_PROGRESS, None, "", "", generation, self.config.clock.now()));
            }
        } else if let Some(done) = known.in_progress.take() {
            let generation = done.observed_generation.unwrap_or_default();
            let message = resizing::message("completed", pod, generation, "");
            self.event(&object_reference(pod.as_ref()), EventType::Normal, "ResizeCompleted", message);
            // What a pod gave up is there for others.
            self.retry(&mut allocations, Some(pod.uid()));
        }
    }

    /// Notes why the runtime did not do what it was told.
    pub(crate) fn resize_failed(&self, pod: &Arc<Pod>, why: &str) {
        let mut allocations = self.allocations.lock();
        let Some(known) = allocations.get_mut(pod.uid()) else { return };
        let old = known.in_progress.take();
        // The condition is that of the resize it began with.
        let generation = old.as_ref().and_then(|old| old.observed_generation).or(pod.metadata.generation);
        let generation = generation.unwrap_or_default();
        let said = |old: &PodCondition| old.reason.as_deref() == Some(ERROR) && old.message.as_deref() == Some(why);
        let is_news = !old.as_ref().is_some_and(said);
        known.in_progress = Some(condition(IN_PROGRESS, old, ERROR, why, generation, self.config.clock.now()));
        if is_news {
            let message = resizing::message("error", pod, generation, why);
            self.event(&object_reference(pod.as_ref()), EventType::Warning, "ResizeError", message);
        }
    }

    /// The conditions of a pod's resize, and what its containers were last told to use.
    pub(crate) fn resize_state(&self, uid: &str) -> (Vec<PodCondition>, PodResources) {
        let allocations = self.allocations.lock();
        let known = allocations.get(uid);
        known.map(|known| (known.conditions(), known.record.actuated.clone())).unwrap_or_default()
    }

    /// A pod that has ended is not resized any more, and leaves its room to others.
    pub(crate) fn end_resize(&self, uid: &str) {
        let mut allocations = self.allocations.lock();
        if let Some(known) = allocations.get_mut(uid) {
            known.pending = None;
            known.in_progress = None;
        }
        allocations.waiting.retain(|waiting| waiting != uid);
        self.retry(&mut allocations, Some(uid));
    }
}

/// Takes over what an earlier kubelet said of a pod.
fn adopt_conditions(known: &mut Allocation, pod: &Pod) {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let find = |type_: &str| conditions.into_iter().flatten().find(|condition| condition.type_ == type_).cloned();
    known.pending = known.pending.take().or_else(|| find(PENDING));
    known.in_progress = known.in_progress.take().or_else(|| find(IN_PROGRESS));
}

/// Which of several waiting pods comes first: one that asks for no more than it has, then by priority, by QoS class, and
/// by how long it waits (`sortPendingResizes`).
fn precedence(allocations: &Allocations, pod: &Arc<Pod>) -> impl Ord + use<> {
    let request = |pod: &Pod, name: &str| pod_request(pod, name).unwrap_or_default();
    let allocated = allocations.applied_to(pod);
    let grows = ["cpu", "memory"].iter().any(|name| request(pod, name) > request(&allocated, name));
    let priority = std::cmp::Reverse(pod.spec().priority.unwrap_or(0));
    let since = allocations.get(pod.uid()).and_then(|known| known.pending.as_ref()?.last_transition_time.clone());
    let since = since.map(|since| since.0);
    (grows, priority, qos_class(pod) != "Guaranteed", since.is_none(), since)
}

fn condition(
    type_: &str,
    old: Option<PodCondition>,
    reason: &str,
    message: &str,
    generation: i64,
    now: Timestamp,
) -> PodCondition {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let condition = PodCondition {
        type_: type_.to_owned(),
        status: "True".to_owned(),
        reason: text(reason),
        message: text(message),
        observed_generation: Some(generation),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    let Some(old) = old.filter(|old| old.reason == condition.reason) else { return condition };
    if (&old.message, old.observed_generation) == (&condition.message, condition.observed_generation) {
        // Nothing new: not worth a status.
        return old;
    }
    PodCondition { last_transition_time: old.last_transition_time, ..condition }
}
