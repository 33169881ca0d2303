//! A CronJob makes a Job whenever its schedule says.
//!
//! Watches CronJobs and Jobs; owns its Jobs; writes all of the CronJob's status.
//! (Kubernetes: `pkg/controller/cronjob/cronjob_controllerv2.go`.)

mod due;

use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::tz::TimeZone;
use kube::api::{DeleteParams, PostParams, PropagationPolicy};
use minik8s_api::strategy::batch::cron::Schedule;
use minik8s_client::{
    Client, EventRecorder, EventType, Lister, WorkQueue, is_already_exists, is_not_found, object_reference,
};

use self::due::{Due, due};
use crate::job::look::is_finished;
use crate::manager::{Context, Reconciler};
use crate::owners::{controller_of, controller_reference, controller_uid};
use crate::pod_control::{is_namespace_terminating, words};
use crate::pod_owners::key_of;

/// A look comes this long after the moment that the schedule names, so that the moment has surely passed.
const AFTER_THE_MOMENT: Duration = Duration::from_millis(100);
const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// The index of Jobs by the UID of their controller.
const BY_CONTROLLER: &str = "cronjob/controller";

/// See the module.
#[derive(Clone)]
pub struct CronJobController {
    client: Client,
    recorder: EventRecorder,
    cron_jobs: Lister<CronJob>,
    jobs: Lister<Job>,
    queue: WorkQueue<String>,
}

/// A CronJob at one look, and what is to be written of it.
struct Work {
    cron_job: Arc<CronJob>,
    status: CronJobStatus,
    jobs: Vec<Arc<Job>>,
    now: Timestamp,
}

impl CronJobController {
    /// Asks for its informers.
    pub fn new(context: &Context) -> Self {
        let cron_jobs = context.informers.informer::<CronJob>();
        let jobs = context.informers.informer::<Job>();
        jobs.add_index(BY_CONTROLLER, |job| controller_uid(&job.metadata).map(str::to_owned).into_iter().collect());
        let queue: WorkQueue<String> = WorkQueue::new(context.client.clock().clone());
        let add = queue.clone();
        cron_jobs.on_event(move |event| add.add(key_of(&event.object().metadata)));
        let add = queue.clone();
        jobs.on_event(move |event| {
            let meta = &event.object().metadata;
            if let Some(owner) = controller_of(meta).filter(|owner| owner.kind == "CronJob") {
                add.add(format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), owner.name));
            }
        });
        Self {
            client: context.client.clone(),
            recorder: context.recorder("cronjob-controller"),
            cron_jobs: cron_jobs.lister(),
            jobs: jobs.lister(),
            queue,
        }
    }

    fn warn(&self, work: &Work, reason: &str, message: String) {
        self.recorder.event(&object_reference(&*work.cron_job), EventType::Warning, reason, message);
    }

    fn tell(&self, work: &Work, reason: &str, message: String) {
        self.recorder.event(&object_reference(&*work.cron_job), EventType::Normal, reason, message);
    }

    /// Brings the list of active Jobs up to date. Listers may be behind what this controller wrote a moment ago, so that
    /// whatever looks odd is asked of the API itself.
    async fn look_at_jobs(&self, work: &mut Work) -> Result<(), kube::Error> {
        let namespace = work.cron_job.metadata.namespace.clone().unwrap_or_default();
        let name = work.cron_job.metadata.name.clone().unwrap_or_default();
        let lists = |active: &[ObjectReference], job: &Job| active.iter().any(|known| known.uid == job.metadata.uid);
        let mut active = work.status.active.take().unwrap_or_default();
        let odd =
            |job: &&Arc<Job>| !lists(&active, job) && !is_finished(job) && job.metadata.deletion_timestamp.is_none();
        let odd: Vec<Arc<Job>> = work.jobs.iter().filter(odd).cloned().collect();
        if !odd.is_empty() {
            let live = self.client.namespaced::<CronJob>(&namespace).get_opt(&name).await?;
            let live = live.and_then(|live| live.status).unwrap_or_default();
            let known = work.status.last_schedule_time.as_ref().map(|time| time.0);
            if let Some(last) = live.last_schedule_time.filter(|last| known.is_none_or(|known| last.0 > known)) {
                work.status.last_schedule_time = Some(last);
            }
            let live = live.active.unwrap_or_default();
            for job in odd {
                let name = job.metadata.name.as_deref().unwrap_or_default();
                if lists(&live, &job) {
                    active.push(object_reference(&*job));
                } else {
                    let message = format!("Saw a job that the controller did not create or forgot: {name}");
                    self.warn(work, "UnexpectedJob", message);
                }
            }
        }
        for job in work.jobs.iter().filter(|job| is_finished(job) && lists(&active, job)) {
            let name = job.metadata.name.as_deref().unwrap_or_default();
            let kind = if is_complete(job) { "Complete" } else { "Failed" };
            self.tell(work, "SawCompletedJob", format!("Saw completed job: {name}, condition: {kind}"));
        }
        active.retain(|known| !work.jobs.iter().any(|job| is_finished(job) && job.metadata.uid == known.uid));
        let ended = work.jobs.iter().filter(|job| is_complete(job));
        let last = ended.filter_map(|job| job.status.as_ref()?.completion_time.clone()).max_by_key(|time| time.0);
        let known = work.status.last_successful_time.as_ref().map(|time| time.0);
        if let Some(last) = last.filter(|last| known.is_none_or(|known| last.0 > known)) {
            work.status.last_successful_time = Some(last);
        }
        let mut there = Vec::new();
        for known in active {
            let name = known.name.as_deref().unwrap_or_default();
            let mut seen = work.jobs.iter().any(|job| job.metadata.uid == known.uid);
            if !seen {
                let live = self.client.namespaced::<Job>(&namespace).get_opt(name).await?;
                seen = live.is_some_and(|live| live.metadata.uid == known.uid);
            }
            if seen {
                there.push(known);
            } else {
                self.tell(work, "MissingJob", format!("Active job went missing: {name}"));
            }
        }
        work.status.active = Some(there).filter(|active| !active.is_empty());
        Ok(())
    }

    async fn delete(&self, work: &Work, job: &str) -> Result<(), kube::Error> {
        let parameters =
            DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
        let namespace = work.cron_job.metadata.namespace.as_deref().unwrap_or_default();
        match self.client.namespaced::<Job>(namespace).delete(job, &parameters).await {
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => {
                self.warn(work, "FailedDelete", format!("Deleted job: {}", words(&error)));
                Err(error)
            }
            Ok(_) => {
                self.tell(work, "SuccessfulDelete", format!("Deleted job {job}"));
                Ok(())
            }
        }
    }

    /// Deletes the oldest of the ended Jobs that are more than are to be kept.
    async fn clean_up(&self, work: &Work) -> Result<(), kube::Error> {
        let spec = &work.cron_job.spec;
        let limits = [
            (true, spec.successful_jobs_history_limit.unwrap_or(3)),
            (false, spec.failed_jobs_history_limit.unwrap_or(1)),
        ];
        for (complete, limit) in limits {
            let mut ended: Vec<&Arc<Job>> =
                work.jobs.iter().filter(|job| is_finished(job) && is_complete(job) == complete).collect();
            ended.sort_by_key(|job| job.status.as_ref().and_then(|status| Some(status.start_time.as_ref()?.0)));
            let surplus = ended.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
            let surplus = ended.into_iter().take(surplus).filter(|job| job.metadata.deletion_timestamp.is_none());
            try_join_all(surplus.map(|job| self.delete(work, job.metadata.name.as_deref().unwrap_or_default())))
                .await?;
        }
        Ok(())
    }

    /// Starts a Job where the schedule wants one; answers when to look again.
    async fn start(&self, work: &mut Work) -> Result<Option<Timestamp>, kube::Error> {
        let cron_job = work.cron_job.clone();
        let spec = &cron_job.spec;
        if cron_job.metadata.deletion_timestamp.is_some() || spec.suspend.unwrap_or(false) {
            return Ok(None);
        }
        let zone = spec.time_zone.as_deref().unwrap_or("UTC");
        let Ok(zone) = TimeZone::get(zone) else {
            self.warn(work, "UnknownTimeZone", format!("invalid timeZone: {zone:?}: unknown time zone {zone}"));
            return Ok(None);
        };
        let schedule = match Schedule::parse(&spec.schedule) {
            Ok(schedule) => schedule,
            Err(error) => {
                let message = format!("unparseable schedule: {:?} : {error}", spec.schedule);
                self.warn(work, "UnparseableSchedule", message);
                return Ok(None);
            }
        };
        let now = work.now;
        let next = schedule.next(now, &zone);
        let missed = due(&cron_job, &work.status, now, |after| schedule.next(after, &zone));
        let Some(Due { at, missed }) = missed else { return Ok(next) };
        if let Some(missed) = missed {
            let advice = "Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.warn(work, "TooManyMissedTimes", format!("too many missed start times: {missed}. {advice}"));
        }
        if is_too_late(&cron_job, at, now) {
            let at = at.strftime("%a, %d %b %Y %H:%M:%S +0000");
            self.warn(work, "MissSchedule", format!("Missed scheduled time to start a job: {at}"));
            return Ok(next);
        }
        let policy = spec.concurrency_policy.as_deref().unwrap_or("Allow");
        let active = work.status.active.clone().unwrap_or_default();
        // An earlier look did it, and the lister has not heard of it yet.
        let wanted = job_name(&cron_job, at);
        if active.iter().any(|job| job.name.as_deref() == Some(&wanted))
            || work.status.last_schedule_time.as_ref().is_some_and(|last| last.0 == at)
        {
            return Ok(next);
        }
        if policy == "Forbid" && !active.is_empty() {
            let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
            self.tell(work, "JobAlreadyActive", message.to_owned());
            return Ok(next);
        }
        if policy == "Replace" {
            for job in active {
                self.delete(work, job.name.as_deref().unwrap_or_default()).await?;
                let left = work.status.active.iter_mut().flatten();
                let left: Vec<ObjectReference> =
                    left.filter(|known| known.uid != job.uid).map(|job| job.clone()).collect();
                work.status.active = Some(left).filter(|left| !left.is_empty());
            }
        }
        self.create(work, at, &zone).await?;
        Ok(next)
    }

    async fn create(&self, work: &mut Work, at: Timestamp, zone: &TimeZone) -> Result<(), kube::Error> {
        let wanted = job(&work.cron_job, at, zone);
        let namespace = work.cron_job.metadata.namespace.as_deref().unwrap_or_default();
        let api = self.client.namespaced::<Job>(namespace);
        let created = match api.create(&PostParams::default(), &wanted).await {
            Ok(created) => {
                let name = created.metadata.name.as_deref().unwrap_or_default();
                self.tell(work, "SuccessfulCreate", format!("Created job {name}"));
                created
            }
            // An earlier look created it and could not write the status.
            Err(error) if is_already_exists(&error) => {
                let there = api.get(wanted.metadata.name.as_deref().unwrap_or_default()).await?;
                if controller_uid(&there.metadata) != work.cron_job.metadata.uid.as_deref() {
                    return Err(error);
                }
                if is_finished(&there)
                    || work.status.active.iter().flatten().any(|known| known.uid == there.metadata.uid)
                {
                    work.status.last_schedule_time = Some(Time(at));
                    return Ok(());
                }
                there
            }
            Err(error) if is_namespace_terminating(&error) => return Ok(()),
            Err(error) => {
                self.warn(work, "FailedCreate", format!("Error creating job: {}", words(&error)));
                return Err(error);
            }
        };
        work.status.active.get_or_insert_default().push(object_reference(&created));
        work.status.last_schedule_time = Some(Time(at));
        Ok(())
    }
}

fn is_complete(job: &Job) -> bool {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Complete" && condition.status == "True")
}

fn is_too_late(cron_job: &CronJob, at: Timestamp, now: Timestamp) -> bool {
    let deadline = cron_job.spec.starting_deadline_seconds;
    deadline.is_some_and(|deadline| now.duration_since(at).as_secs() > deadline)
}

fn job_name(cron_job: &CronJob, at: Timestamp) -> String {
    format!("{}-{}", cron_job.metadata.name.as_deref().unwrap_or_default(), at.as_second() / 60)
}

/// The Job of one moment of the schedule. Its name says which, so that there is never a second one.
fn job(cron_job: &CronJob, at: Timestamp, zone: &TimeZone) -> Job {
    let template = cron_job.spec.job_template.clone();
    let meta = template.metadata.unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    let moment = at.to_zoned(zone.clone());
    let offset = if moment.offset().is_zero() { "Z".to_owned() } else { moment.strftime("%:z").to_string() };
    annotations.insert(SCHEDULED_AT.to_owned(), format!("{}{offset}", moment.strftime("%Y-%m-%dT%H:%M:%S")));
    Job {
        metadata: ObjectMeta {
            name: Some(job_name(cron_job, at)),
            labels: meta.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(cron_job)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

impl Reconciler for CronJobController {
    const NAME: &'static str = "cronjob-controller";
    const WORKERS: usize = 5;

    fn queue(&self) -> &WorkQueue<String> {
        &self.queue
    }

    async fn sync(&self, key: String) -> Result<(), kube::Error> {
        let (namespace, name) = key.split_once('/').unwrap_or_default();
        let Some(cron_job) = self.cron_jobs.get(namespace, name) else { return Ok(()) };
        let uid = cron_job.metadata.uid.as_deref().unwrap_or_default();
        let mut work = Work {
            status: cron_job.status.clone().unwrap_or_default(),
            jobs: self.jobs.by_index(BY_CONTROLLER, uid),
            now: self.client.clock().now(),
            cron_job: cron_job.clone(),
        };
        self.look_at_jobs(&mut work).await?;
        let next = self.start(&mut work).await;
        if cron_job.status.clone().unwrap_or_default() != work.status {
            let fresh = CronJob { status: Some(work.status.clone()), ..CronJob::clone(&cron_job) };
            let api = self.client.namespaced::<CronJob>(namespace);
            match api.replace_status(name, &PostParams::default(), &fresh).await {
                Err(error) if is_not_found(&error) => return Ok(()),
                other => other.map(drop)?,
            }
        }
        self.clean_up(&work).await?;
        if let Some(next) = next? {
            let wait = Duration::try_from(next.duration_since(self.client.clock().now())).unwrap_or_default();
            self.queue.add_after(key, wait + AFTER_THE_MOMENT);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_is_named_and_marked_by_its_moment() {
        let cron_job: CronJob = serde_json::from_value(json!({
            "metadata": {"name": "hello", "namespace": "default", "uid": "u"},
            "spec": {"schedule": "* * * * *", "jobTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"template": {}}}},
        }))
        .unwrap();
        let at = "2026-01-01T00:01:00Z".parse().unwrap();
        let made = job(&cron_job, at, &TimeZone::get("Europe/Berlin").unwrap());
        assert_eq!(made.metadata.name.as_deref(), Some("hello-29453761"));
        assert_eq!(made.metadata.annotations.unwrap()[SCHEDULED_AT], "2026-01-01T01:01:00+01:00");
        assert_eq!(
            job(&cron_job, at, &TimeZone::UTC).metadata.annotations.unwrap()[SCHEDULED_AT],
            "2026-01-01T00:01:00Z"
        );
    }
}
