//! Jobs that say how long they are of interest go that long after they have ended.
//!
//! Watches Jobs; deletes them.
//! (Kubernetes: `pkg/controller/ttlafterfinished/ttlafterfinished_controller.go`.)

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Preconditions, PropagationPolicy};
use minik8s_client::{Client, Event, Lister, WorkQueue, is_conflict, is_not_found};

use crate::job::look::is_finished;
use crate::manager::{Context, Reconciler};
use crate::pod_owners::key_of;

/// See the module.
#[derive(Clone)]
pub struct TtlAfterFinished {
    client: Client,
    jobs: Lister<Job>,
    queue: WorkQueue<String>,
}

impl TtlAfterFinished {
    /// Asks for its informers.
    pub fn new(context: &Context) -> Self {
        let jobs = context.informers.informer::<Job>();
        let queue: WorkQueue<String> = WorkQueue::new(context.client.clock().clone());
        let (add, clock) = (queue.clone(), context.client.clock().clone());
        jobs.on_event(move |event| {
            let job = event.object();
            let left = (!matches!(event, Event::Deleted(_))).then(|| goes_in(job, clock.now())).flatten();
            if let Some(left) = left {
                add.add_after(key_of(&job.metadata), left);
            }
        });
        Self { client: context.client.clone(), jobs: jobs.lister(), queue }
    }
}

/// How long until the Job goes; `None` while it works, or if it stays.
fn goes_in(job: &Job, now: Timestamp) -> Option<Duration> {
    let ttl = u64::try_from(job.spec.as_ref()?.ttl_seconds_after_finished?).unwrap_or(0);
    if !is_finished(job) || job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let conditions = job.status.as_ref()?.conditions.iter().flatten();
    let mut ends = conditions.filter(|condition| matches!(condition.type_.as_str(), "Complete" | "Failed"));
    let ended = ends.find(|condition| condition.status == "True")?.last_transition_time.as_ref()?.0;
    let been = Duration::try_from(now.duration_since(ended)).unwrap_or_default();
    Some(Duration::from_secs(ttl).saturating_sub(been))
}

impl Reconciler for TtlAfterFinished {
    const NAME: &'static str = "ttl-after-finished-controller";
    const WORKERS: usize = 5;

    fn queue(&self) -> &WorkQueue<String> {
        &self.queue
    }

    async fn sync(&self, key: String) -> Result<(), kube::Error> {
        let (namespace, name) = key.split_once('/').unwrap_or_default();
        let now = self.client.clock().now();
        let left = |job: &Job| goes_in(job, now);
        let Some(wait) = self.jobs.get(namespace, name).and_then(|job| left(&job)) else { return Ok(()) };
        if !wait.is_zero() {
            self.queue.add_after(key, wait);
            return Ok(());
        }
        // What the lister says may be old, and the time may have been changed: ask the API itself.
        let api = self.client.namespaced::<Job>(namespace);
        let Some(job) = api.get_opt(name).await? else { return Ok(()) };
        if left(&job) != Some(Duration::ZERO) {
            return Ok(());
        }
        let preconditions =
            Preconditions { uid: job.metadata.uid.clone(), resource_version: job.metadata.resource_version.clone() };
        let parameters = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Foreground),
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        tracing::info!(controller = Self::NAME, job = key, "deleting job that ended long enough ago");
        match api.delete(name, &parameters).await {
            Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
            other => other.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_goes_some_time_after_its_end() {
        let job = |spec: serde_json::Value, ended: bool| -> Job {
            let mut whole = json!({"template": {}});
            whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
            let condition = json!({"type": "Complete", "status": if ended { "True" } else { "False" }, "lastTransitionTime": "2026-01-01T00:00:00Z"});
            serde_json::from_value(json!({"spec": whole, "status": {"conditions": [condition]}})).unwrap()
        };
        let now = "2026-01-01T00:00:40Z".parse().unwrap();
        assert_eq!(goes_in(&job(json!({"ttlSecondsAfterFinished": 100}), true), now), Some(Duration::from_secs(60)));
        assert_eq!(goes_in(&job(json!({"ttlSecondsAfterFinished": 10}), true), now), Some(Duration::ZERO));
        assert_eq!(goes_in(&job(json!({"ttlSecondsAfterFinished": 10}), false), now), None);
        assert_eq!(goes_in(&job(json!({}), true), now), None);
    }
}
