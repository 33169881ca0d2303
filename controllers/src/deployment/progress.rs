//! How far a rollout is: the status, its conditions, and the deadline.
//! (Kubernetes: `pkg/controller/deployment/progress.go`, `sync.go`.)

use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::revision::split;
use super::rolling::max_unavailable;
use super::scale::all_wanted;
use super::{DeploymentController, Result, Work, available, total};

pub(super) fn condition<'a>(deployment: &'a Deployment, kind: &str) -> Option<&'a DeploymentCondition> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_.as_deref() == Some(kind))
}

pub(super) fn has_condition(deployment: &Deployment, kind: &str) -> bool {
    condition(deployment, kind).is_some()
}

/// Sets a condition. One of the same status and reason stays as it is; the transition is when the status changed.
pub(super) fn set_condition(
    conditions: &mut Vec<DeploymentCondition>,
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let old = conditions.iter().find(|condition| condition.type_.as_deref() == Some(kind));
    if old.is_some_and(|old| old.status.as_deref() == Some(status) && old.reason.as_deref() == Some(reason)) {
        return;
    }
    let since =
        old.filter(|old| old.status.as_deref() == Some(status)).and_then(|old| old.last_transition_time.clone());
    let fresh = DeploymentCondition {
        type_: Some(kind.to_owned()),
        status: Some(status.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: Some(Time(now)),
        last_transition_time: since.or(Some(Time(now))),
    };
    conditions.retain(|condition| condition.type_.as_deref() != Some(kind));
    conditions.push(fresh);
}

fn count(status: &DeploymentStatus, of: impl Fn(&DeploymentStatus) -> Option<i32>) -> i32 {
    of(status).unwrap_or(0)
}

/// Whether a status tells of a finished rollout.
fn complete(work: &Work, status: &DeploymentStatus) -> bool {
    let size = work.replicas();
    count(status, |s| s.updated_replicas) == size
        && count(status, |s| s.replicas) == size
        && count(status, |s| s.available_replicas) == size
        && status.observed_generation.unwrap_or(0) >= work.deployment.metadata.generation.unwrap_or(0)
}

/// Whether the Deployment's own status tells of a finished rollout.
pub(super) fn is_complete(work: &Work) -> bool {
    work.deployment.status.as_ref().is_some_and(|status| complete(work, status))
}

/// Whether the rollout has moved since the old status.
fn progressing(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let old_replicas =
        |status: &DeploymentStatus| count(status, |s| s.replicas) - count(status, |s| s.updated_replicas);
    count(new, |s| s.updated_replicas) > count(old, |s| s.updated_replicas)
        || old_replicas(new) < old_replicas(old)
        || count(new, |s| s.ready_replicas) > count(old, |s| s.ready_replicas)
        || count(new, |s| s.available_replicas) > count(old, |s| s.available_replicas)
}

/// The status with these ReplicaSets, its conditions still the old ones but for `Available`.
fn calculate_status(work: &Work, new: Option<&ReplicaSet>, old: &[ReplicaSet], now: Timestamp) -> DeploymentStatus {
    let of = |count: &dyn Fn(&ReplicaSet) -> i32| total(old, count) + new.map_or(0, count);
    let replicas = |set: &ReplicaSet| set.status.as_ref().map_or(0, |status| status.replicas);
    let ready = |set: &ReplicaSet| set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
    let ending = |set: &ReplicaSet| set.status.as_ref().and_then(|status| status.terminating_replicas).unwrap_or(0);
    let positive = |count: i32| Some(count).filter(|count| *count > 0);
    let have = of(&available);
    let before = work.deployment.status.clone().unwrap_or_default();
    let mut conditions = before.conditions.unwrap_or_default();
    if have >= work.replicas() - max_unavailable(work) {
        let message = "Deployment has minimum availability.";
        set_condition(&mut conditions, "Available", "True", "MinimumReplicasAvailable", message, now);
    } else {
        let message = "Deployment does not have minimum availability.";
        set_condition(&mut conditions, "Available", "False", "MinimumReplicasUnavailable", message, now);
    }
    DeploymentStatus {
        observed_generation: work.deployment.metadata.generation,
        replicas: positive(of(&replicas)),
        updated_replicas: positive(new.map_or(0, replicas)),
        ready_replicas: positive(of(&ready)),
        available_replicas: positive(have),
        unavailable_replicas: positive(all_wanted(new, old) - have),
        terminating_replicas: Some(of(&ending)),
        collision_count: before.collision_count,
        conditions: Some(conditions),
    }
}

impl DeploymentController {
    /// After a step of a rollout: the status, and how the rollout goes.
    pub(super) async fn sync_rollout_status(
        &self,
        work: &mut Work,
        new: Option<&ReplicaSet>,
        old: &[ReplicaSet],
    ) -> Result<()> {
        let now = self.client.clock().now();
        let before = work.deployment.status.clone().unwrap_or_default();
        let mut status = calculate_status(work, new, old, now);
        let deadline = work.spec().progress_deadline_seconds.filter(|deadline| *deadline != i32::MAX);
        let mut conditions = status.conditions.take().unwrap_or_default();
        match deadline {
            None => conditions.retain(|condition| condition.type_.as_deref() != Some("Progressing")),
            Some(deadline) => {
                status.conditions = Some(conditions);
                self.note_progress(work, new, &before, &mut status, deadline, now);
                conditions = status.conditions.take().unwrap_or_default();
            }
        }
        take_failures(&mut conditions, new.into_iter().chain(old), now);
        status.conditions = Some(conditions);
        if let Some(deadline) = deadline {
            self.look_again_at_deadline(work, &status, deadline, now);
        }
        self.write_status(work, status).await
    }

    fn note_progress(
        &self,
        work: &Work,
        new: Option<&ReplicaSet>,
        before: &DeploymentStatus,
        status: &mut DeploymentStatus,
        deadline: i32,
        now: Timestamp,
    ) {
        let conditions = status.conditions.clone().unwrap_or_default();
        let current = conditions.iter().find(|condition| condition.type_.as_deref() == Some("Progressing"));
        let reason = current.and_then(|condition| condition.reason.as_deref());
        // Done, and not anew: nothing to tell until something changes.
        let same = count(status, |s| s.replicas) == count(status, |s| s.updated_replicas);
        if same && reason == Some("NewReplicaSetAvailable") {
            return;
        }
        let subject = match new.and_then(|set| set.metadata.name.as_deref()) {
            Some(name) => format!("ReplicaSet \"{name}\""),
            None => format!("Deployment \"{}\"", work.name),
        };
        let mut conditions = conditions.clone();
        if complete(work, status) {
            let message = format!("{subject} has successfully progressed.");
            set_condition(&mut conditions, "Progressing", "True", "NewReplicaSetAvailable", &message, now);
        } else if progressing(before, status) {
            let message = format!("{subject} is progressing.");
            let since =
                current.filter(|c| c.status.as_deref() == Some("True")).and_then(|c| c.last_transition_time.clone());
            // Each step renews the time from which the deadline counts.
            conditions.retain(|condition| condition.type_.as_deref() != Some("Progressing"));
            set_condition(&mut conditions, "Progressing", "True", "ReplicaSetUpdated", &message, now);
            if let (Some(since), Some(fresh)) = (since, conditions.last_mut()) {
                fresh.last_transition_time = Some(since);
            }
        } else if timed_out(current, deadline, now) {
            let message = format!("{subject} has timed out progressing.");
            set_condition(&mut conditions, "Progressing", "False", "ProgressDeadlineExceeded", &message, now);
        }
        status.conditions = Some(conditions);
    }

    /// The deadline is an event that no watch brings.
    fn look_again_at_deadline(&self, work: &Work, status: &DeploymentStatus, deadline: i32, now: Timestamp) {
        let conditions = status.conditions.as_deref().unwrap_or_default();
        let current = conditions.iter().find(|condition| condition.type_.as_deref() == Some("Progressing"));
        let Some(current) = current.filter(|condition| condition.status.as_deref() == Some("True")) else {
            return;
        };
        if complete(work, status) || timed_out(Some(current), deadline, now) {
            return;
        }
        let since = current.last_update_time.as_ref().map_or(now, |time| time.0);
        let been = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        let allowed = Duration::from_secs(u64::try_from(deadline).unwrap_or(0));
        // A second more, for the deadline is compared in whole seconds.
        self.queue.add_after(work.key(), allowed.saturating_sub(been) + Duration::from_secs(1));
    }

    pub(super) async fn sync_status(
        &self,
        work: &mut Work,
        new: Option<&ReplicaSet>,
        old: &[ReplicaSet],
    ) -> Result<()> {
        let status = calculate_status(work, new, old, self.client.clock().now());
        self.write_status(work, status).await
    }

    /// A Deployment that is being deleted only tells.
    pub(super) async fn sync_status_only(&self, work: &mut Work, sets: Vec<ReplicaSet>) -> Result<()> {
        let (new, old) = split(work, sets);
        self.sync_status(work, new.as_ref(), &old).await
    }

    async fn write_status(&self, work: &mut Work, status: DeploymentStatus) -> Result<()> {
        if work.deployment.status.as_ref() == Some(&status) {
            return Ok(());
        }
        work.deployment.status = Some(status);
        self.update_status(work).await
    }

    /// A pause stops the deadline; what follows it begins anew.
    pub(super) async fn check_paused_conditions(&self, work: &mut Work) -> Result<()> {
        if work.spec().progress_deadline_seconds.is_none_or(|deadline| deadline == i32::MAX) {
            return Ok(());
        }
        let reason = condition(&work.deployment, "Progressing").and_then(|condition| condition.reason.clone());
        if reason.as_deref() == Some("ProgressDeadlineExceeded") {
            return Ok(());
        }
        let noted = reason.as_deref() == Some("DeploymentPaused");
        if work.paused() && !noted {
            self.condition(work, "Progressing", "Unknown", "DeploymentPaused", "Deployment is paused");
        } else if !work.paused() && noted {
            self.condition(work, "Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed");
        } else {
            return Ok(());
        }
        self.update_status(work).await
    }
}

fn timed_out(current: Option<&DeploymentCondition>, deadline: i32, now: Timestamp) -> bool {
    let Some(current) = current else { return false };
    match current.reason.as_deref() {
        Some("NewReplicaSetAvailable") => return false,
        Some("ProgressDeadlineExceeded") => return true,
        _ => {}
    }
    let since = current.last_update_time.as_ref().map_or(now, |time| time.0);
    now.duration_since(since).as_secs() > i64::from(deadline)
}

/// What a ReplicaSet cannot create or delete is the Deployment's failure too.
fn take_failures<'a>(
    conditions: &mut Vec<DeploymentCondition>,
    sets: impl Iterator<Item = &'a ReplicaSet>,
    now: Timestamp,
) {
    let mut all = sets.flat_map(|set| set.status.iter().flat_map(|status| status.conditions.iter().flatten()));
    match all.find(|condition| condition.type_.as_deref() == Some("ReplicaFailure")) {
        Some(failure) => {
            let (reason, message) = (failure.reason.as_deref(), failure.message.as_deref());
            let words = (reason.unwrap_or_default(), message.unwrap_or_default());
            let status = failure.status.as_deref().unwrap_or("True");
            set_condition(conditions, "ReplicaFailure", status, words.0, words.1, now);
        }
        None => conditions.retain(|condition| condition.type_.as_deref() != Some("ReplicaFailure")),
    }
}
