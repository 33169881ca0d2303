//! Which moment of its schedule a CronJob has to make up for. Pure.
//! (Kubernetes: `pkg/controller/cronjob/utils.go`, `mostRecentScheduleTime`.)

use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// More moments missed than this are worth a word.
const MANY: i64 = 100;

/// A moment that is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// The latest moment that has passed.
    pub(super) at: Timestamp,
    /// How many have passed, if they are too many.
    pub(super) missed: Option<i64>,
}

/// The latest moment since the CronJob last ran, or was created, or since its starting deadline; `next` is its schedule.
pub(super) fn due(
    cron_job: &CronJob,
    status: &CronJobStatus,
    now: Timestamp,
    next: impl Fn(Timestamp) -> Option<Timestamp>,
) -> Option<Due> {
    let created = cron_job.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    let mut earliest = status.last_schedule_time.as_ref().map_or(created, |time| time.0);
    let deadline = cron_job.spec.starting_deadline_seconds.filter(|seconds| *seconds >= 0);
    if let Some(deadline) = deadline {
        // A deadline further back than time itself is none.
        if let Ok(since) = now.checked_sub(SignedDuration::from_secs(deadline)) {
            earliest = earliest.max(since);
        }
    }
    let first = next(earliest).filter(|first| *first <= now)?;
    let Some(second) = next(first).filter(|second| *second <= now) else {
        return Some(Due { at: first, missed: None });
    };
    // There may be very many: leap to the last but one, as far as the first two tell, and go on from there.
    let step = second.duration_since(first).as_secs().max(1);
    let missed = now.duration_since(first).as_secs() / step + 1;
    let leap = SignedDuration::from_secs(step.saturating_mul((missed - 2).max(0)));
    let mut at = first;
    let mut following = next(first.checked_add(leap).unwrap_or(first));
    while let Some(moment) = following.filter(|moment| *moment <= now) {
        at = moment;
        following = next(moment);
    }
    let many = missed > MANY && deadline.is_none_or(|deadline| deadline / step > MANY);
    Some(Due { at, missed: many.then_some(missed) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(spec: serde_json::Value, now: &str, expected: Option<(&str, Option<i64>)>) {
        let mut whole = json!({"schedule": "* * * * *", "jobTemplate": {"spec": {"template": {}}}});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let cron_job = serde_json::from_value(json!({
            "metadata": {"creationTimestamp": "2026-01-01T00:00:30Z"}, "spec": whole}))
        .unwrap();
        let minutely = |after: Timestamp| Timestamp::from_second((after.as_second() / 60 + 1) * 60).ok();
        let found = due(&cron_job, &CronJobStatus::default(), now.parse().unwrap(), minutely);
        assert_eq!(found, expected.map(|(at, missed)| Due { at: at.parse().unwrap(), missed }));
    }

    #[test]
    fn the_latest_moment_is_made_up_for_and_no_other() {
        check(json!({}), "2026-01-01T00:00:59Z", None);
        check(json!({}), "2026-01-01T00:01:00Z", Some(("2026-01-01T00:01:00Z", None)));
        check(json!({}), "2026-01-01T00:05:10Z", Some(("2026-01-01T00:05:00Z", None)));
        check(json!({}), "2026-01-02T00:05:10Z", Some(("2026-01-02T00:05:00Z", Some(1445))));
        check(json!({"startingDeadlineSeconds": 20}), "2026-01-02T00:05:30Z", None);
        check(json!({"startingDeadlineSeconds": 40}), "2026-01-02T00:05:30Z", Some(("2026-01-02T00:05:00Z", None)));
    }
}
