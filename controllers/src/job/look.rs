//! What a Job and its pods come to: counts, indexes, and whether the Job has ended. Pure.
//! (Kubernetes: `pkg/controller/job/job_controller.go`, `backoff_utils.go`.)

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::indexes;
use super::policy::{Failure, judge, success_rule};
use crate::pods;

/// The finalizer by which a pod waits to be counted.
pub(super) const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// How often the pod's index failed before this pod.
pub(super) const FAILURE_COUNT: &str = "batch.kubernetes.io/job-index-failure-count";
/// The pause after the first failure of a pod; it doubles with each further one in a row.
const BACKOFF: Duration = Duration::from_secs(10);
const BACKOFF_MAX: Duration = Duration::from_secs(600);

/// How a Job ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) succeeded: bool,
    pub(super) reason: String,
    pub(super) message: String,
}

impl Verdict {
    fn failed(reason: &str, message: impl Into<String>) -> Option<Self> {
        Some(Self { succeeded: false, reason: reason.to_owned(), message: message.into() })
    }

    fn succeeded(reason: &str, message: impl Into<String>) -> Option<Self> {
        Some(Self { succeeded: true, reason: reason.to_owned(), message: message.into() })
    }

    /// The condition that stands until all pods have gone, and the one that stands then.
    pub(super) fn conditions(&self) -> (&'static str, &'static str) {
        if self.succeeded { ("SuccessCriteriaMet", "Complete") } else { ("FailureTarget", "Failed") }
    }
}

/// A Job's condition of this type, where it holds.
pub(super) fn condition<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    let mut conditions = status.conditions.iter().flatten();
    conditions.find(|condition| condition.type_ == kind && condition.status == "True")
}

/// Whether the Job has ended, and all about it is said.
pub(crate) fn is_finished(job: &Job) -> bool {
    let status = job.status.as_ref();
    status.is_some_and(|status| ["Complete", "Failed"].iter().any(|kind| condition(status, kind).is_some()))
}

/// Sets a condition; says whether that changed anything.
pub(super) fn set_condition(
    status: &mut JobStatus,
    kind: &str,
    holds: bool,
    (reason, message): (&str, &str),
    now: Timestamp,
) -> bool {
    let value = if holds { "True" } else { "False" };
    let conditions = status.conditions.get_or_insert_default();
    let known = conditions.iter().position(|condition| condition.type_ == kind);
    let fresh = JobCondition {
        type_: kind.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    match known {
        Some(at) if conditions[at].status == value => return false,
        Some(at) => conditions[at] = fresh,
        None if !holds => return false,
        None => conditions.push(fresh),
    }
    true
}

/// A Job and its pods.
pub(super) struct Look {
    pub(super) spec: JobSpec,
    pub(super) status: JobStatus,
    pub(super) deleting: bool,
    pub(super) pods: Vec<Arc<Pod>>,
    /// Pods whose finalizer was taken off, whatever the lister still shows.
    pub(super) released: BTreeSet<String>,
    pub(super) now: Timestamp,
}

pub(super) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

impl Look {
    pub(super) fn is_indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    pub(super) fn is_suspended(&self) -> bool {
        self.spec.suspend.unwrap_or(false)
    }

    pub(super) fn completions(&self) -> u32 {
        self.spec.completions.and_then(|count| u32::try_from(count).ok()).unwrap_or(0)
    }

    /// Whether a pod that is told to end is replaced only when it has.
    pub(super) fn replaces_only_failed(&self) -> bool {
        self.spec.pod_replacement_policy.as_deref() == Some("Failed")
    }

    /// Whether the pod waits to be counted.
    pub(super) fn is_tracked(&self, pod: &Pod) -> bool {
        pod.metadata.finalizers.iter().flatten().any(|own| own == TRACKING) && !self.released.contains(uid(pod))
    }

    /// Whether the pod counts as failed.
    pub(super) fn has_failed(&self, pod: &Pod) -> bool {
        match pods::phase(pod) {
            "Failed" => true,
            "Succeeded" => false,
            _ => pod.metadata.deletion_timestamp.is_some() && (!self.replaces_only_failed() || self.deleting),
        }
    }

    pub(super) fn active(&self) -> Vec<Arc<Pod>> {
        self.pods.iter().filter(|pod| pods::is_active(pod)).cloned().collect()
    }

    pub(super) fn terminating(&self) -> usize {
        self.pods.iter().filter(|pod| pods::is_terminating(pod)).count()
    }

    /// How many have succeeded, those not yet in the status included.
    pub(super) fn succeeded(&self) -> usize {
        if self.is_indexed() {
            return self.completed_indexes().len();
        }
        let known = self.status.uncounted_terminated_pods.as_ref().and_then(|known| known.succeeded.as_ref());
        let new = self.pods.iter().filter(|pod| {
            pods::phase(pod) == "Succeeded"
                && self.is_tracked(pod)
                && !known.is_some_and(|known| known.iter().any(|known| known == uid(pod)))
        });
        self.status.succeeded.unwrap_or(0).max(0) as usize + known.map_or(0, Vec::len) + new.count()
    }

    /// How many have failed, those not yet in the status included.
    pub(super) fn failed(&self) -> usize {
        let known = self.status.uncounted_terminated_pods.as_ref().and_then(|known| known.failed.as_ref());
        let new = self.pods.iter().filter(|pod| {
            self.has_failed(pod)
                && self.is_tracked(pod)
                && judge(&self.spec, pod) != Failure::Ignored
                && !known.is_some_and(|known| known.iter().any(|known| known == uid(pod)))
        });
        self.status.failed.unwrap_or(0).max(0) as usize + known.map_or(0, Vec::len) + new.count()
    }

    /// The indexes that are done.
    pub(super) fn completed_indexes(&self) -> BTreeSet<u32> {
        let known = self.status.completed_indexes.as_deref().unwrap_or_default();
        let mut indexes = indexes::parse(known, self.completions());
        let new = self.pods.iter().filter(|pod| pods::phase(pod) == "Succeeded" && self.is_tracked(pod));
        indexes.extend(new.filter_map(|pod| indexes::of(pod)).filter(|index| *index < self.completions()));
        indexes
    }

    /// How often each index has failed.
    pub(super) fn index_failures(&self) -> BTreeMap<u32, i32> {
        let mut failures = BTreeMap::new();
        for pod in &self.pods {
            let Some(index) = indexes::of(pod) else { continue };
            let before = pod.metadata.annotations.as_ref().and_then(|all| all.get(FAILURE_COUNT));
            let before: i32 = before.and_then(|text| text.parse().ok()).unwrap_or(0);
            let own = self.has_failed(pod) && judge(&self.spec, pod) != Failure::Ignored;
            let count: &mut i32 = failures.entry(index).or_default();
            *count = (*count).max(before + i32::from(own));
        }
        failures
    }

    /// The indexes that have failed for good, where failures are limited by index.
    pub(super) fn failed_indexes(&self) -> Option<BTreeSet<u32>> {
        let limit = self.spec.backoff_limit_per_index?;
        let known = self.status.failed_indexes.as_deref().unwrap_or_default();
        let mut indexes = indexes::parse(known, self.completions());
        let over = self.index_failures().into_iter().filter(|(_, failures)| *failures > limit);
        indexes.extend(over.map(|(index, _)| index));
        let told = self.pods.iter().filter(|pod| self.has_failed(pod) && judge(&self.spec, pod) == Failure::FailsIndex);
        indexes.extend(told.filter_map(|pod| indexes::of(pod)));
        let completed = self.completed_indexes();
        indexes.retain(|index| !completed.contains(index) && *index < self.completions());
        Some(indexes)
    }

    /// How long until the Job's deadline, where it has one and runs.
    pub(super) fn deadline_in(&self) -> Option<Duration> {
        let deadline = u64::try_from(self.spec.active_deadline_seconds?).unwrap_or(0);
        let start = self.status.start_time.as_ref().filter(|_| !self.is_suspended())?;
        let been = Duration::try_from(self.now.duration_since(start.0)).unwrap_or_default();
        Some(Duration::from_secs(deadline).saturating_sub(been))
    }

    /// Whether the Job ends, and how, given what its pods have come to.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        if let Some(known) = condition(&self.status, "FailureTarget") {
            return Verdict::failed(
                known.reason.as_deref().unwrap_or_default(),
                known.message.clone().unwrap_or_default(),
            );
        }
        let told = self.pods.iter().filter(|pod| self.has_failed(pod) && self.is_tracked(pod));
        for pod in told {
            if let Failure::FailsJob(message) = judge(&self.spec, pod) {
                return Verdict::failed("PodFailurePolicy", message);
            }
        }
        if let Some(known) = condition(&self.status, "SuccessCriteriaMet") {
            return Verdict::succeeded(
                known.reason.as_deref().unwrap_or_default(),
                known.message.clone().unwrap_or_default(),
            );
        }
        if self.is_past_backoff_limit() {
            return Verdict::failed("BackoffLimitExceeded", "Job has reached the specified backoff limit");
        }
        if self.deadline_in() == Some(Duration::ZERO) {
            return Verdict::failed("DeadlineExceeded", "Job was active longer than specified deadline");
        }
        self.index_verdict()
    }

    fn index_verdict(&self) -> Option<Verdict> {
        if !self.is_indexed() {
            return None;
        }
        if let Some(failed) = self.failed_indexes() {
            let limit = self.spec.max_failed_indexes.and_then(|limit| usize::try_from(limit).ok());
            if limit.is_some_and(|limit| failed.len() > limit) {
                let message = "Job has exceeded the specified maximal number of failed indexes";
                return Verdict::failed("MaxFailedIndexesExceeded", message);
            }
            let ended = failed.len() + self.completed_indexes().len();
            if !failed.is_empty() && ended >= self.completions() as usize {
                return Verdict::failed("FailedIndexes", "Job has failed indexes");
            }
        }
        let rule = success_rule(&self.spec, &self.completed_indexes())?;
        Verdict::succeeded("SuccessPolicy", format!("Matched rules at index {rule}"))
    }

    fn is_past_backoff_limit(&self) -> bool {
        let limit = usize::try_from(self.spec.backoff_limit.unwrap_or(6)).unwrap_or(0);
        if self.failed() > limit {
            return true;
        }
        let template = self.spec.template.spec.as_ref();
        if template.and_then(|spec| spec.restart_policy.as_deref()) != Some("OnFailure") {
            return false;
        }
        let running = self.pods.iter().filter(|pod| matches!(pods::phase(pod), "Running" | "Pending"));
        let restarts: usize = running.map(|pod| usize::try_from(pods::restarts(pod)).unwrap_or(0)).sum();
        if limit == 0 { restarts > 0 } else { restarts >= limit }
    }

    /// Whether as many have succeeded as should, given how many are still active.
    pub(super) fn completion(&self, active: usize) -> Option<Verdict> {
        let succeeded = self.succeeded();
        let done = match self.spec.completions {
            None => succeeded > 0,
            Some(wanted) => succeeded >= usize::try_from(wanted).unwrap_or(0),
        };
        if !done || active > 0 {
            return None;
        }
        Verdict::succeeded("CompletionsReached", "Reached expected number of succeeded pods")
    }

    /// How many pods should be active.
    pub(super) fn wanted_active(&self) -> usize {
        let parallelism = usize::try_from(self.spec.parallelism.unwrap_or(1)).unwrap_or(0);
        match self.spec.completions {
            None if self.succeeded() > 0 => self.active().len().min(parallelism),
            None => parallelism,
            Some(wanted) => {
                let failed = self.failed_indexes().map_or(0, |failed| failed.len());
                let left = usize::try_from(wanted).unwrap_or(0).saturating_sub(self.succeeded() + failed);
                left.min(parallelism)
            }
        }
    }

    /// How long the next pod has to wait, for failures in a row. Of one index where failures are limited by index.
    pub(super) fn backoff(&self, index: Option<u32>) -> Duration {
        let of = |pod: &&Arc<Pod>| index.is_none() || indexes::of(pod) == index;
        let ended = |pod: &Arc<Pod>| ended_at(pod).unwrap_or(self.now);
        let succeeded = self.pods.iter().filter(of).filter(|pod| pods::phase(pod) == "Succeeded").map(ended).max();
        let failed = self
            .pods
            .iter()
            .filter(of)
            .filter(|pod| pods::phase(pod) == "Failed" && judge(&self.spec, pod) != Failure::Ignored);
        let failed: Vec<Timestamp> =
            failed.map(ended).filter(|at| succeeded.is_none_or(|succeeded| *at > succeeded)).collect();
        let Some(last) = failed.iter().max() else { return Duration::ZERO };
        let doublings = u32::try_from(failed.len() - 1).unwrap_or(u32::MAX).min(6);
        let pause = (BACKOFF * 2u32.pow(doublings)).min(BACKOFF_MAX);
        let been = Duration::try_from(self.now.duration_since(*last)).unwrap_or_default();
        pause.saturating_sub(been)
    }

    /// The lowest indexes that have no pod and need one.
    pub(super) fn free_indexes(&self, count: usize) -> Vec<u32> {
        let mut taken = self.completed_indexes();
        taken.extend(self.failed_indexes().into_iter().flatten());
        taken.extend(self.active().iter().filter_map(|pod| indexes::of(pod)));
        if self.replaces_only_failed() {
            let ending = self.pods.iter().filter(|pod| pods::is_terminating(pod));
            taken.extend(ending.filter_map(|pod| indexes::of(pod)));
        }
        (0..self.completions()).filter(|index| !taken.contains(index)).take(count).collect()
    }

    /// The active pods that an Indexed Job has no use for: beyond the last index, or second of their index.
    pub(super) fn misplaced(&self) -> Vec<Arc<Pod>> {
        let mut taken = self.completed_indexes();
        let mut active = self.active();
        active.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
        active.retain(|pod| match indexes::of(pod) {
            Some(index) if index < self.completions() => !taken.insert(index),
            _ => true,
        });
        active
    }
}

/// When the last of a pod's containers ended.
fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.as_ref()?.container_statuses.iter().flatten();
    let ended = statuses.filter_map(|container| container.state.as_ref()?.terminated.as_ref()?.finished_at.clone());
    ended.map(|time| time.0).max()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn look(spec: Value, status: Value, pods: &[(&str, &str, Option<u32>)]) -> Look {
        let mut whole = json!({"template": {"spec": {"containers": []}}});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let pod = |(uid, phase, index): &(&str, &str, Option<u32>)| {
            let annotations = index.map(|index| json!({indexes::COMPLETION_INDEX: index.to_string()}));
            let pod = json!({
                "metadata": {"uid": uid, "finalizers": [TRACKING], "annotations": annotations},
                "status": {"phase": phase, "containerStatuses": [{
                    "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:00:00Z"}}}]},
            });
            Arc::new(serde_json::from_value(pod).unwrap())
        };
        Look {
            spec: serde_json::from_value(whole).unwrap(),
            status: serde_json::from_value(status).unwrap(),
            deleting: false,
            pods: pods.iter().map(pod).collect(),
            released: BTreeSet::new(),
            now: "2026-01-01T00:00:05Z".parse().unwrap(),
        }
    }

    #[test]
    fn pods_are_counted_once_whether_or_not_the_status_knows_them() {
        let status = json!({"succeeded": 2, "uncountedTerminatedPods": {"succeeded": ["a"]}});
        let look = look(json!({"completions": 4}), status, &[("a", "Succeeded", None), ("b", "Succeeded", None)]);
        assert_eq!(look.succeeded(), 4);
        assert_eq!(look.completion(0).unwrap().reason, "CompletionsReached");
        assert_eq!(look.completion(1), None, "not while others run");
    }

    #[test]
    fn failures_pause_longer_each_time_until_the_limit_ends_the_job() {
        let pods = [("a", "Failed", None), ("b", "Failed", None)];
        let two = look(json!({"backoffLimit": 2, "completions": 1}), json!({}), &pods);
        assert_eq!(two.backoff(None), Duration::from_secs(15));
        assert_eq!(two.verdict(), None);
        let one = look(json!({"backoffLimit": 1, "completions": 1}), json!({}), &pods);
        assert_eq!(one.verdict().unwrap().reason, "BackoffLimitExceeded");
    }

    #[test]
    fn free_indexes_are_those_that_nobody_works_on() {
        let pods = [("a", "Succeeded", Some(0)), ("b", "Running", Some(2)), ("c", "Failed", Some(3))];
        let spec = json!({"completionMode": "Indexed", "completions": 6, "parallelism": 3});
        let look = look(spec, json!({"completedIndexes": "1"}), &pods);
        assert_eq!(look.free_indexes(2), [3, 4]);
        assert_eq!(indexes::format(&look.completed_indexes()), "0,1");
        assert_eq!(look.wanted_active(), 3);
    }

    #[test]
    fn an_index_fails_for_good_past_its_own_limit() {
        let spec =
            json!({"completionMode": "Indexed", "completions": 2, "backoffLimitPerIndex": 0, "backoffLimit": 100});
        let pods = [("a", "Succeeded", Some(0)), ("c", "Failed", Some(1))];
        let look = look(spec, json!({}), &pods);
        assert_eq!(look.failed_indexes(), Some(BTreeSet::from([1])));
        assert_eq!(look.verdict().unwrap().reason, "FailedIndexes");
    }
}
