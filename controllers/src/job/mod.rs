//! A Job runs pods until enough of them have succeeded.
//!
//! Watches Jobs and Pods; owns their pods; writes Pods and all of the Job's status.
//! (Kubernetes: `pkg/controller/job/job_controller.go`.)
//!
//! Every pod is counted exactly once, though it may be deleted at any time: a finalizer holds it until then. The status
//! first names the ended pods as not yet counted, then their finalizers go, then the numbers change:
//!
//! ```text
//!   pod ends ──► uncountedTerminatedPods += uid ──► finalizer off ──► uncounted −= uid, succeeded += 1
//! ```
//!
//! [`look`] says what a Job and its pods come to; here it is acted on.

mod indexes;
pub(crate) mod look;
mod policy;
mod template;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::PostParams;
use minik8s_client::{Client, Event, EventType, Lister, WorkQueue, is_not_found, object_reference};
use parking_lot::Mutex;

use self::look::{Look, TRACKING, Verdict, is_finished, set_condition, uid};
use self::policy::{Failure, judge};
use crate::manager::{Context, Reconciler};
use crate::owners::controller_of;
use crate::pod_control::{PodControl, is_namespace_terminating, slow_start};
use crate::pod_owners::{PodOwners, key_of, selector};
use crate::pods;

/// How many pods one look at a Job creates or deletes at most.
const MAX_PODS_PER_SYNC: usize = 500;
/// How many pods may be named as not yet counted.
const MAX_UNCOUNTED_PODS: usize = 500;
/// Who works on a Job, where it does not say otherwise.
const MANAGER: &str = "kubernetes.io/job-controller";
/// Keys of pods whose Job is gone begin with this; no namespace does.
const ORPHAN: &str = "/orphan/";

/// What was done and may not be seen yet.
#[derive(Default)]
struct Done {
    /// Pods whose finalizers were taken off.
    released: BTreeSet<String>,
    /// The version of the last status that was written. An older one must not be acted on: it does not know pods that
    /// were counted and let go.
    written: u64,
}

fn version(job: &Job) -> u64 {
    job.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// See the module.
#[derive(Clone)]
pub struct JobController {
    client: Client,
    control: PodControl,
    owners: Arc<PodOwners<Job>>,
    pods: Lister<Pod>,
    /// What this controller did and the informers may not show yet, by the key of the Job.
    done: Arc<Mutex<BTreeMap<String, Done>>>,
    queue: WorkQueue<String>,
}

impl JobController {
    /// Asks for its informers.
    pub fn new(context: &Context) -> Self {
        let control = PodControl::new(context.client.clone(), context.recorder("job-controller"));
        let queue: WorkQueue<String> = WorkQueue::new(context.client.clock().clone());
        let (jobs, pods) = (context.informers.informer::<Job>(), context.informers.informer::<Pod>());
        let selector_of = |job: &Job| {
            let own = job.spec.as_ref().and_then(|spec| spec.selector.clone());
            selector(&own.unwrap_or_default())
        };
        let owners = PodOwners::new(control.clone(), &jobs, &pods, selector_of, Some(TRACKING), queue.clone());
        let controller =
            Self { client: context.client.clone(), control, owners, pods: pods.lister(), done: Arc::default(), queue };
        let on_job = controller.clone();
        jobs.on_event(move |event| {
            if let Event::Deleted(job) = event {
                on_job.done.lock().remove(&key_of(&job.metadata));
                let left = on_job.owners.owned(job.metadata.uid.as_deref().unwrap_or_default());
                left.iter().for_each(|pod| on_job.add_orphan(pod));
            }
        });
        let on_pod = controller.clone();
        pods.on_event(move |event| on_pod.on_pod(event));
        controller
    }

    fn on_pod(&self, event: &Event<Pod>) {
        let pod = event.object();
        let tracked = pod.metadata.finalizers.iter().flatten().any(|own| own == TRACKING);
        if !tracked || matches!(event, Event::Deleted(_)) {
            let owner = controller_of(&pod.metadata).map(|owner| owner.name.as_str()).unwrap_or_default();
            let key = format!("{}/{owner}", pod.metadata.namespace.as_deref().unwrap_or_default());
            if let Some(done) = self.done.lock().get_mut(&key) {
                done.released.remove(uid(pod));
            }
        } else if self.owners.owner_key(pod).is_none() {
            self.add_orphan(pod);
        }
    }

    fn add_orphan(&self, pod: &Pod) {
        self.queue.add(format!("{ORPHAN}{}", key_of(&pod.metadata)));
    }

    /// A pod whose Job is gone need not wait to be counted.
    async fn sync_orphan(&self, key: &str) -> Result<(), kube::Error> {
        let (namespace, name) = key.split_once('/').unwrap_or_default();
        let Some(pod) = self.pods.get(namespace, name) else { return Ok(()) };
        if self.owners.owner_key(&pod).is_some() {
            return Ok(());
        }
        // The pod may have come before its Job did, to this process: ask the API itself.
        let owner = controller_of(&pod.metadata).filter(|owner| owner.kind == "Job");
        if let Some(owner) = owner {
            let job = self.client.namespaced::<Job>(namespace).get_opt(&owner.name).await?;
            if job.is_some_and(|job| job.metadata.uid.as_deref() == Some(owner.uid.as_str())) {
                return Ok(());
            }
        }
        self.control.remove_finalizer(&pod, TRACKING).await
    }

    async fn release(&self, key: &str, pods: &[Arc<Pod>]) -> Result<(), kube::Error> {
        let removals = pods.iter().map(|pod| self.control.remove_finalizer(pod, TRACKING));
        let results = join_all(removals).await;
        let mut done = self.done.lock();
        let mut failure = None;
        for (pod, result) in pods.iter().zip(results) {
            match result {
                Ok(()) => drop(done.entry(key.to_owned()).or_default().released.insert(uid(pod).to_owned())),
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(()), Err)
    }

    fn released(&self, key: &str) -> BTreeSet<String> {
        self.done.lock().get(key).map(|done| done.released.clone()).unwrap_or_default()
    }

    /// Deletes pods; those with `forgive` are not counted as failed.
    async fn delete(&self, key: &str, job: &Job, pods: &[Arc<Pod>], forgive: bool) -> Result<(), kube::Error> {
        if pods.is_empty() {
            return Ok(());
        }
        let uids = pods.iter().map(|pod| uid(pod).to_owned());
        self.owners.expectations().expect_deletions(key, uids);
        let reference = object_reference(job);
        if forgive {
            self.release(key, pods).await?;
        }
        let deletions = pods.iter().map(|pod| async {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let deleted = self.control.delete(namespace, name, &reference).await;
            if deleted.is_err() {
                self.owners.expectations().deletion_observed(key, uid(pod));
            }
            deleted
        });
        join_all(deletions).await.into_iter().collect()
    }

    /// Creates and deletes pods, so that as many are active as should be; answers how many are.
    async fn manage(&self, key: &str, job: &Job, look: &Look) -> Result<usize, kube::Error> {
        let active = look.active();
        if look.is_suspended() {
            self.delete(key, job, &active, true).await?;
            return Ok(0);
        }
        let parallelism = usize::try_from(look.spec.parallelism.unwrap_or(1)).unwrap_or(0);
        let mut surplus = if look.is_indexed() { look.misplaced() } else { Vec::new() };
        let extra = (active.len() - surplus.len()).saturating_sub(parallelism);
        let mut others: Vec<Arc<Pod>> =
            active.iter().filter(|pod| !surplus.iter().any(|own| uid(own) == uid(pod))).cloned().collect();
        others.sort_by(|a, b| pods::deletion_order((a, 0), (b, 0), look.now));
        surplus.extend(others.into_iter().take(extra));
        if !surplus.is_empty() {
            surplus.truncate(MAX_PODS_PER_SYNC);
            self.delete(key, job, &surplus, true).await?;
            return Ok(active.len() - surplus.len());
        }
        let ending = if look.replaces_only_failed() { look.terminating() } else { 0 };
        let missing = look.wanted_active().saturating_sub(active.len() + ending).min(MAX_PODS_PER_SYNC);
        if missing == 0 {
            return Ok(active.len());
        }
        let per_index = look.spec.backoff_limit_per_index.is_some();
        let pause = if per_index { Duration::ZERO } else { look.backoff(None) };
        if !pause.is_zero() {
            self.queue.add_after(key.to_owned(), pause);
            return Ok(active.len());
        }
        let created = self.create(key, job, look, missing).await?;
        Ok(active.len() + created)
    }

    async fn create(&self, key: &str, job: &Job, look: &Look, missing: usize) -> Result<usize, kube::Error> {
        let mut indexes: Vec<Option<u32>> = vec![None; missing];
        if look.is_indexed() {
            indexes = look.free_indexes(missing).into_iter().map(Some).collect();
        }
        if look.spec.backoff_limit_per_index.is_some() {
            let pauses: Vec<Duration> = indexes.iter().map(|index| look.backoff(*index)).collect();
            if let Some(soonest) = pauses.iter().filter(|pause| !pause.is_zero()).min() {
                self.queue.add_after(key.to_owned(), *soonest);
            }
            let mut pauses = pauses.into_iter();
            indexes.retain(|_| pauses.next().is_some_and(|pause| pause.is_zero()));
        }
        let failures = look.index_failures();
        let counted = look.spec.backoff_limit_per_index.is_some();
        let pod = |index: Option<u32>| {
            let failed = index.filter(|_| counted).map(|index| failures.get(&index).copied().unwrap_or(0));
            template::pod(job, look, index, failed)
        };
        let pods: Vec<Pod> = indexes.into_iter().map(pod).collect();
        let count = pods.len();
        let namespace = job.metadata.namespace.as_deref().unwrap_or_default();
        let reference = object_reference(job);
        let expectations = self.owners.expectations();
        expectations.expect_creations(key, count);
        let create = |pod: Pod| {
            let reference = &reference;
            async move { self.control.create(namespace, reference, &pod).await }
        };
        let (created, failure) = slow_start(pods, create).await;
        for _ in created..count {
            expectations.creation_observed(key);
        }
        match failure.filter(|error| !is_namespace_terminating(error)) {
            Some(error) => Err(error),
            None => Ok(created),
        }
    }

    /// Notes the suspending and the resuming of a Job.
    fn suspend(&self, job: &Job, look: &Look, status: &mut JobStatus) {
        let suspended = look.is_suspended();
        let words = if suspended { ("JobSuspended", "Job suspended") } else { ("JobResumed", "Job resumed") };
        if !set_condition(status, "Suspended", suspended, words, look.now) {
            return;
        }
        let reason = if suspended { "Suspended" } else { "Resumed" };
        self.control.recorder().event(&object_reference(job), EventType::Normal, reason, words.1);
        status.start_time = (!suspended).then_some(Time(look.now));
    }

    /// Counts the pods that have ended, in the three steps that the module tells of; says in the end how the Job ended.
    async fn count(&self, key: &str, job: &Job, look: &mut Look, verdict: Option<Verdict>) -> Result<(), kube::Error> {
        let mut current = job.clone();
        settle(look);
        let release = enlist(look);
        if let Some(verdict) = &verdict {
            let (interim, _) = verdict.conditions();
            set_condition(&mut look.status, interim, true, (&verdict.reason, &verdict.message), look.now);
        }
        self.write(&mut current, look).await?;
        if !release.is_empty() {
            let released = self.release(key, &release).await;
            look.released = self.released(key);
            settle(look);
            if let Err(error) = released {
                self.write(&mut current, look).await?;
                return Err(error);
            }
        }
        let uncounted = look.status.uncounted_terminated_pods.as_ref();
        let left = uncounted.is_some_and(|left| left.succeeded.is_some() || left.failed.is_some());
        let gone = look.status.active.is_none() && look.status.terminating.unwrap_or(0) == 0;
        let ended = verdict.filter(|_| !left && gone);
        if let Some(verdict) = &ended {
            self.conclude(look, verdict);
        }
        self.write(&mut current, look).await?;
        if let Some(verdict) = ended {
            let (kind, reason, message) = if verdict.succeeded {
                (EventType::Normal, "Completed", "Job completed")
            } else {
                (EventType::Warning, verdict.reason.as_str(), verdict.message.as_str())
            };
            self.control.recorder().event(&object_reference(job), kind, reason, message);
        }
        if look.pods.iter().any(|pod| look.is_tracked(pod) && !pods::is_active(pod)) {
            self.queue.add(key.to_owned());
        }
        Ok(())
    }

    fn conclude(&self, look: &mut Look, verdict: &Verdict) {
        let (_, last) = verdict.conditions();
        set_condition(&mut look.status, last, true, (&verdict.reason, &verdict.message), look.now);
        if verdict.succeeded {
            look.status.completion_time = Some(Time(look.now));
        }
    }

    async fn write(&self, current: &mut Job, look: &Look) -> Result<(), kube::Error> {
        if current.status.as_ref() == Some(&look.status) {
            return Ok(());
        }
        current.status = Some(look.status.clone());
        let namespace = current.metadata.namespace.clone().unwrap_or_default();
        let name = current.metadata.name.clone().unwrap_or_default();
        let api = self.client.namespaced::<Job>(&namespace);
        *current = api.replace_status(&name, &PostParams::default(), current).await?;
        self.done.lock().entry(key_of(&current.metadata)).or_default().written = version(current);
        // Absent and empty are the same to the API, not to the next comparison.
        current.status = Some(look.status.clone());
        Ok(())
    }
}

/// Counts the ended pods that are named in the status and held by their finalizer no longer.
fn settle(look: &mut Look) {
    let held: BTreeSet<String> =
        look.pods.iter().filter(|pod| look.is_tracked(pod)).map(|pod| uid(pod).to_owned()).collect();
    let Some(uncounted) = &mut look.status.uncounted_terminated_pods else { return };
    let settle = |named: &mut Option<Vec<String>>| {
        let uids = named.take().unwrap_or_default();
        let (left, settled): (Vec<String>, Vec<String>) = uids.into_iter().partition(|uid| held.contains(uid));
        *named = Some(left).filter(|left| !left.is_empty());
        settled.len() as i32
    };
    let (succeeded, failed) = (settle(&mut uncounted.succeeded), settle(&mut uncounted.failed));
    if succeeded > 0 {
        look.status.succeeded = Some(look.status.succeeded.unwrap_or(0) + succeeded);
    }
    if failed > 0 {
        look.status.failed = Some(look.status.failed.unwrap_or(0) + failed);
    }
}

/// Names the pods that have ended in the status, by index where there are indexes; answers those to take finalizers off.
fn enlist(look: &mut Look) -> Vec<Arc<Pod>> {
    let mut release = Vec::new();
    if look.is_indexed() {
        let completed = look.completed_indexes();
        look.status.succeeded = Some(completed.len() as i32).filter(|count| *count > 0);
        look.status.completed_indexes = Some(indexes::format(&completed)).filter(|text| !text.is_empty());
        look.status.failed_indexes = look.failed_indexes().map(|failed| indexes::format(&failed));
    }
    let mut uncounted = look.status.uncounted_terminated_pods.take().unwrap_or_default();
    let in_range = |pod: &Pod| !look.is_indexed() || indexes::of(pod).is_some_and(|index| index < look.completions());
    for pod in look.pods.iter().filter(|pod| look.is_tracked(pod)) {
        let named = uncounted.succeeded.iter().chain(&uncounted.failed).map(Vec::len).sum::<usize>();
        if named >= MAX_UNCOUNTED_PODS {
            break;
        }
        let list = if pods::phase(pod) == "Succeeded" {
            (!look.is_indexed()).then_some(&mut uncounted.succeeded)
        } else if look.has_failed(pod) {
            let counts = judge(&look.spec, pod) != Failure::Ignored && in_range(pod);
            counts.then_some(&mut uncounted.failed)
        } else {
            continue;
        };
        if let Some(list) = list {
            let list = list.get_or_insert_default();
            if !list.iter().any(|known| known == uid(pod)) {
                list.push(uid(pod).to_owned());
            }
        }
        release.push(pod.clone());
    }
    look.status.uncounted_terminated_pods = Some(uncounted);
    release
}

impl Reconciler for JobController {
    const NAME: &'static str = "job-controller";
    const WORKERS: usize = 5;

    fn queue(&self) -> &WorkQueue<String> {
        &self.queue
    }

    async fn sync(&self, key: String) -> Result<(), kube::Error> {
        if let Some(orphan) = key.strip_prefix(ORPHAN) {
            return self.sync_orphan(orphan).await;
        }
        let Some(job) = self.owners.get(&key) else { return Ok(()) };
        if self.done.lock().get(&key).is_some_and(|done| version(&job) < done.written) {
            // The lister is behind; the event that brings it up to date brings the key.
            return Ok(());
        }
        let spec = job.spec.clone().unwrap_or_default();
        if spec.managed_by.as_deref().is_some_and(|manager| manager != MANAGER) {
            return Ok(());
        }
        let seen = self.owners.expectations().satisfied(&key);
        let mut look = Look {
            pods: self.owners.claim(&job, |_| true).await?,
            released: self.released(&key),
            status: job.status.clone().unwrap_or_default(),
            deleting: job.metadata.deletion_timestamp.is_some(),
            now: self.client.clock().now(),
            spec,
        };
        if is_finished(&job) {
            let held: Vec<_> = look.pods.iter().filter(|pod| look.is_tracked(pod)).cloned().collect();
            return self.release(&key, &held).await;
        }
        look.status.uncounted_terminated_pods.get_or_insert_default();
        if look.status.start_time.is_none() && !look.is_suspended() {
            look.status.start_time = Some(Time(look.now));
        }
        if let Some(left) = look.deadline_in().filter(|left| !left.is_zero()) {
            self.queue.add_after(key.clone(), left);
        }
        let running = look.active();
        let (mut active, mut terminating) = (running.len(), look.terminating());
        let mut verdict = look.verdict();
        let mut failure = None;
        if verdict.is_some() {
            self.delete(&key, &job, &running, false).await?;
            (active, terminating) = (0, terminating + running.len());
        } else if seen && !look.deleting {
            match self.manage(&key, &job, &look).await {
                Ok(count) => active = count,
                Err(error) => failure = Some(error),
            }
            verdict = look.completion(active);
            if verdict.is_none() {
                let mut status = look.status.clone();
                self.suspend(&job, &look, &mut status);
                look.status = status;
            }
        }
        look.status.active = Some(active as i32).filter(|count| *count > 0);
        look.status.ready = Some(running.iter().filter(|pod| pods::is_ready(pod)).count() as i32);
        look.status.terminating = Some(terminating as i32);
        match self.count(&key, &job, &mut look, verdict).await {
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => failure.map_or(Ok(()), Err),
        }
    }
}
