//! One sync of one pod: look, decide, act, report.
//!
//! ```text
//!   sync ─┬─ ending or finished ──► terminate (crate::terminate)
//!         └─ runs ──► admit ─► status ─► volumes ─► observe ─► plan ─► act ─┐
//!                                                      ▲   until quiet     │
//!                                                      └───────────────────┘─► status ─► when to look again
//! ```
//! A sync makes one attempt; what fails is tried again by a later one. (kubelet: `kubelet.go`, `SyncPod`;
//! `kuberuntime_manager.go`, `SyncPod`.)

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use minik8s_client::{EventType, object_reference};

use crate::admission;
use crate::env::{self, Objects};
use crate::error::{Error, Result};
use crate::kubelet::Kubelet;
use crate::observe::observe;
use crate::plan::{self, Action, KillReason, Plan};
use crate::runtime::RuntimePod;
use crate::runtime_class::runtime_handler;
use crate::spec::{ALWAYS, ContainerKind, PodExt as _};
use crate::start::StartRequest;
use crate::status::{self, Forced, StartFailure};
use crate::unsupported::unsupported_fields;
use crate::volumes::{self, payload::Sources};
use crate::words;
use crate::worker::{PodWorker, SyncState};

/// The pause after a failed sync, before jitter (`backOffPeriod`).
const RETRY: Duration = Duration::from_secs(10);
/// How soon the runtime is asked again after a container was started and nothing was heard of it.
const MOUNT_RETRY: Duration = Duration::from_millis(500);
/// For how long a container that may end is looked at before anybody is told that it runs: whoever is told attaches to it, and
/// to one that has ended by then nobody can.
const SETTLE: Duration = Duration::from_millis(20);
/// The longest pause between attempts to set up volumes (`exponentialbackoff`).
const MOUNT_RETRY_MAX: Duration = Duration::from_secs(122);
/// The longest pause between looks at a claim, of which nothing else tells that it was bound.
const CLAIM_RETRY_MAX: Duration = Duration::from_secs(2);
/// How soon a pod looks again whether the node has a network (`backOffOnTransientErrorPeriod`).
const NETWORK_RETRY: Duration = Duration::from_secs(1);
/// How soon a failed pull is reported as a back-off.
const BACKOFF_REPORT: Duration = Duration::from_secs(1);
/// How many rounds of plan and action one sync makes at most; what is left is for the next.
const ROUNDS: usize = 4;

/// When a pod has to be looked at again, the earliest of several wishes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wake(Option<Timestamp>);

impl Wake {
    pub fn at(&mut self, at: Timestamp) {
        self.0 = Some(self.0.map_or(at, |old| old.min(at)));
    }

    pub fn after(&mut self, now: Timestamp, delay: Duration) {
        let delay = jiff::SignedDuration::try_from(delay).unwrap_or(jiff::SignedDuration::MAX);
        self.at(now.checked_add(delay).unwrap_or(Timestamp::MAX));
    }
}

impl Kubelet {
    /// Brings one pod a step nearer to what it should be.
    pub(crate) async fn sync(self: &Arc<Self>, uid: &str) {
        let Some(worker) = self.worker(uid) else {
            return;
        };
        let mut state = worker.state.lock().await;
        let result = if worker.input().is_ending() {
            self.terminate(&worker, &mut state).boxed().await
        } else {
            tokio::select! {
                biased;
                () = worker.ending.cancelled() => {
                    self.queue.add(uid.to_owned());
                    return;
                }
                result = self.sync_running(&worker, &mut state).boxed() => result,
            }
        };
        let wake = match result {
            Ok(wake) => wake,
            Err(error) => {
                let pod = worker.input().pod;
                tracing::debug!(pod = pod.full_format(), %error, "sync failed, retrying");
                let mut wake = Wake::default();
                wake.after(self.config.clock.now(), self.config.random.jitter(RETRY, 0.5));
                wake
            }
        };
        if let Wake(Some(at)) = wake {
            let delay = Duration::try_from(at.duration_since(self.config.clock.now())).unwrap_or_default();
            // A moment that is here already still lets others have their turn.
            self.queue.add_after(uid.to_owned(), delay.max(Duration::from_millis(1)));
        }
    }

    async fn sync_running(self: &Arc<Self>, worker: &Arc<PodWorker>, state: &mut SyncState) -> Result<Wake> {
        let pod = worker.input().pod;
        let mut wake = Wake::default();
        let runtime = self.look(worker, &pod, state).await?;
        let admitted = self.admit(&pod, &runtime, state)?;
        if !worker.decided.swap(true, Ordering::AcqRel) {
            self.retry_resizes();
        }
        if !admitted {
            self.report(&pod, &runtime, worker, state, false).await?;
            return if state.forced.is_some() { self.terminate(worker, state).await } else { Ok(wake) };
        }
        self.consider_resize(&pod, &mut wake);
        // From here on the pod is what is allocated to it.
        let pod = self.allocated(&pod);
        self.follow_resize(&pod, &runtime);
        self.check_deadline(&pod, state, &mut wake);
        let api_phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if state.forced.is_some() || state.terminated || matches!(api_phase, Some("Succeeded" | "Failed")) {
            return self.terminate(worker, state).await;
        }
        self.report(&pod, &runtime, worker, state, false).await?;
        self.keep_mirror(&pod).await;
        if !self.has_network(&pod, worker).await {
            wake.after(self.config.clock.now(), NETWORK_RETRY);
            return Ok(wake);
        }
        let objects = self.objects.acquire(&pod).await;
        if !self.set_up_volumes(&pod, state, &objects, &mut wake).await {
            return Ok(wake);
        }
        let runtime = self.act(worker, &pod, state, runtime, &objects, &mut wake).await?;
        self.follow_resize(&pod, &runtime);
        let phase = self.report(&pod, &runtime, worker, state, false).await?;
        state.tokens.renew_at().into_iter().chain(state.certificates.wake_at()).for_each(|at| wake.at(at));
        if matches!(phase.as_deref(), Some("Succeeded" | "Failed")) {
            return self.terminate(worker, state).await;
        }
        Ok(wake)
    }

    /// What the runtime has of the pod; probes follow what is found.
    pub(crate) async fn look(
        self: &Arc<Self>,
        worker: &Arc<PodWorker>,
        pod: &Arc<Pod>,
        state: &mut SyncState,
    ) -> Result<RuntimePod> {
        let runtime = observe(&self.config.cri, self.config.fs.as_ref(), &worker.uid).await?;
        let old = state.status.clone().or_else(|| pod.status.clone()).unwrap_or_default();
        self.follow_probes(worker, pod, &runtime, &old);
        Ok(runtime)
    }

    /// Whether the pod may run here. A verdict against it is left in `state.forced`.
    fn admit(&self, pod: &Arc<Pod>, runtime: &RuntimePod, state: &mut SyncState) -> Result<bool> {
        let unsupported = unsupported_fields(pod);
        if !unsupported.is_empty() {
            let message = format!("this kubelet does not support {}", unsupported.join(", "));
            if !state.reported_unsupported {
                state.reported_unsupported = true;
                self.event(&object_reference(pod.as_ref()), EventType::Warning, "UnsupportedField", &message);
            }
            for (_, container) in pod.all_containers() {
                let failure = StartFailure { reason: "UnsupportedField".to_owned(), message: message.clone() };
                state.failures.insert(container.name, failure);
            }
            return Ok(false);
        }
        if state.reported_unsupported {
            state.reported_unsupported = false;
            state.failures.clear();
        }
        if state.admitted {
            return Ok(true);
        }
        // One pod at a time, so that two do not get the same room.
        let mut allocations = self.allocations.lock();
        // After a restart of the kubelet it is what was allocated that has to have room.
        let allocated = allocations.applied_to(pod);
        // What runs already was admitted by an earlier kubelet of this node; static pods are not asked.
        if runtime.sandboxes.is_empty() && !pod.is_static() {
            let others = self.neighbours(&allocations, pod.uid());
            let node = self.node.lock().clone();
            if let Some(verdict) = admission::admit(&allocated, &others, &node, &self.allocatable)? {
                let why = admission::without_prefix(&verdict.message);
                self.event(&object_reference(pod.as_ref()), EventType::Warning, &verdict.reason, why);
                state.forced = Some(verdict);
                return Ok(false);
            }
        }
        allocations.allocate(self.config.fs.as_ref(), &allocated)?;
        state.admitted = true;
        Ok(true)
    }

    /// A pod that has been active for longer than it may fails (kubelet: `active_deadline.go`).
    fn check_deadline(&self, pod: &Arc<Pod>, state: &mut SyncState, wake: &mut Wake) {
        let Some(seconds) = pod.spec().active_deadline_seconds else {
            return;
        };
        let started =
            pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map_or(state.start_time, |t| t.0);
        let deadline = started.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
        if deadline > self.config.clock.now() {
            return wake.at(deadline);
        }
        if state.forced.is_none() {
            let message = "Pod was active on the node longer than the specified deadline".to_owned();
            let reason = "DeadlineExceeded".to_owned();
            self.event(&object_reference(pod.as_ref()), EventType::Normal, &reason, &message);
            state.forced = Some(Forced { reason, message });
        }
    }

    /// Whether the pod has the network that it needs. A node gets its network some moments after its first pods, so only
    /// the second time in a row is worth an event.
    async fn has_network(&self, pod: &Arc<Pod>, worker: &PodWorker) -> bool {
        if pod.is_host_network() {
            return true;
        }
        let Some(problem) = self.network_problem().await else {
            worker.waits_for_network.store(false, Ordering::Release);
            return true;
        };
        if worker.waits_for_network.swap(true, Ordering::AcqRel) {
            let message = format!("network is not ready: {problem}");
            self.event(&object_reference(pod.as_ref()), EventType::Warning, "NetworkNotReady", message);
        }
        false
    }

    /// Sets up the pod's volumes. False if one of them could not be.
    async fn set_up_volumes(&self, pod: &Arc<Pod>, state: &mut SyncState, objects: &Objects, wake: &mut Wake) -> bool {
        let tokens = state.tokens.current(&self.config.client, pod).await;
        let node = self.node_view(Vec::new());
        let own_node = self.node.lock().clone();
        let claims = state.claims.current(&self.config.client, pod, &own_node).await;
        let requests = objects.certificate_requests.as_deref();
        let certificates = self.pod_certificates(pod, &mut state.certificates, requests).await;
        let sources = Sources { objects, tokens: &tokens, certificates: &certificates, claims: &claims, node: &node };
        let failures = volumes::set_up(self.config.fs.as_ref(), pod, &sources, &mut state.mounted);
        if failures.is_empty() {
            state.mount_failures = 0;
            return true;
        }
        let reference = object_reference(pod.as_ref());
        let mut missing_only_updates = true;
        let mut longest = MOUNT_RETRY_MAX;
        for failure in failures {
            if matches!(failure.error, Error::Claim(_)) {
                longest = CLAIM_RETRY_MAX;
            }
            self.event(&reference, EventType::Warning, "FailedMount", failure.message());
            missing_only_updates &= state.mounted.paths.contains_key(&failure.volume);
        }
        let delay = MOUNT_RETRY.saturating_mul(1 << state.mount_failures.min(10)).min(longest);
        state.mount_failures += 1;
        wake.after(self.config.clock.now(), delay);
        // A volume that was set up once keeps its content when an update of it fails.
        missing_only_updates
    }

    /// Plans and acts until there is nothing more to do now. Returns what the runtime has then.
    async fn act(
        self: &Arc<Self>,
        worker: &Arc<PodWorker>,
        pod: &Arc<Pod>,
        state: &mut SyncState,
        mut runtime: RuntimePod,
        objects: &Objects,
        wake: &mut Wake,
    ) -> Result<RuntimePod> {
        let services = env::service_variables(pod, &self.config.services.list());
        state.resized.retain(|id| runtime.containers.iter().any(|container| container.id == *id));
        state.resize_failed = false;
        let mut started = false;
        for _ in 0..ROUNDS {
            let mut plan = self.plan(worker, pod, state, &runtime);
            if state.resize_failed {
                // One attempt a sync.
                plan.actions.retain(|action| !matches!(action, Action::Resize(_)));
            }
            if let Some(at) = plan.wake {
                wake.at(at);
            }
            if plan.actions.is_empty() {
                break;
            }
            let mut again = false;
            for action in plan.actions {
                started |= matches!(action, Action::Start { .. });
                again |= !matches!(action, Action::Start { .. } | Action::BackOff { .. });
                let start = StartRequest { pod, runtime: &runtime, objects, services: &services };
                self.carry_out(worker, state, action, start, wake).await?;
            }
            runtime = self.look(worker, pod, state).await?;
            if !again {
                break;
            }
        }
        let told = state.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
        if started && !told && pod.restart_policy() != ALWAYS {
            self.config.clock.sleep(SETTLE).await;
            runtime = self.look(worker, pod, state).await?;
        }
        Ok(runtime)
    }

    fn plan(&self, worker: &PodWorker, pod: &Pod, state: &SyncState, runtime: &RuntimePod) -> Plan {
        let backoff = self.restarts.lock().clone_pod(&worker.uid);
        let probes = worker.probes.lock();
        let known_restarts = known_restarts(state.status.as_ref().or(pod.status.as_ref()));
        let (_, actuated) = self.resize_state(&worker.uid);
        let view = plan::View {
            backoff: &backoff,
            unhealthy: &probes.unhealthy,
            starting: &probes.starting,
            known_restarts: &known_restarts,
            actuated: &actuated,
            resized: &state.resized,
            now: self.config.clock.now(),
        };
        plan::plan(pod, runtime, &view)
    }

    async fn carry_out(
        self: &Arc<Self>,
        worker: &Arc<PodWorker>,
        state: &mut SyncState,
        action: Action,
        start: StartRequest<'_>,
        wake: &mut Wake,
    ) -> Result<()> {
        let pod = start.pod;
        match action {
            Action::KillPod { finished } => {
                if !finished && start.runtime.sandbox().is_some() {
                    self.report_sandbox_changed(pod);
                }
                self.kill_pod(worker, start.runtime).await
            }
            Action::CreateSandbox { attempt } => {
                // Where nothing had to be killed first, nothing was said yet. After a reboot of the node the runtime may
                // know nothing of the pod; its status still does.
                let status = state.status.as_ref().or(pod.status.as_ref());
                let ran = start.runtime.sandbox().is_some() || !known_restarts(status).is_empty();
                if ran && start.runtime.is_stopped() {
                    self.report_sandbox_changed(pod);
                }
                self.create_sandbox(pod, attempt).await
            }
            Action::Kill { id, name, reason } => {
                self.kill_container(worker, pod, &id, &name, Some(reason)).await;
                if reason == KillReason::Resize {
                    state.resized.insert(id);
                }
                Ok(())
            }
            Action::Resize(resizing) => {
                if let Err(why) = self.actuate(pod, start.runtime, &resizing).await {
                    state.resize_failed = true;
                    self.resize_failed(pod, &why);
                    wake.after(self.config.clock.now(), self.config.random.jitter(RETRY, 0.5));
                }
                Ok(())
            }
            Action::BackOff { name, kind, key, until } => {
                self.report_backoff(pod, state, &name, kind, &key, until);
                Ok(())
            }
            Action::Start { name, kind, attempt, restart_of } => {
                if let Some((key, failed_at)) = restart_of {
                    self.restarts.lock().next(&key, failed_at, self.config.clock.now());
                }
                state.reported_waits.remove(&name);
                match self.start_container(worker, start, &state.mounted.paths, &name, kind, attempt).await {
                    Ok(()) => {
                        state.failures.remove(&name);
                    }
                    Err((failure, retry_at)) => {
                        let now = self.config.clock.now();
                        match retry_at {
                            Some(at) => wake.at(at),
                            // A failed pull shows as a back-off soon; all else is tried again after a while.
                            None if failure.reason == "ErrImagePull" => wake.after(now, BACKOFF_REPORT),
                            None => wake.after(now, self.config.random.jitter(RETRY, 0.5)),
                        }
                        state.failures.insert(name, failure);
                    }
                }
                Ok(())
            }
        }
    }

    fn report_sandbox_changed(&self, pod: &Arc<Pod>) {
        let message = "Pod sandbox changed, it will be killed and re-created.";
        self.event(&object_reference(pod.as_ref()), EventType::Normal, "SandboxChanged", message);
    }

    fn report_backoff(
        &self,
        pod: &Arc<Pod>,
        state: &mut SyncState,
        name: &str,
        kind: ContainerKind,
        key: &str,
        until: Timestamp,
    ) {
        let delay = words::duration(self.restarts.lock().delay(key));
        let full = pod.full_format();
        if state.reported_waits.insert(name.to_owned(), until) != Some(until) {
            let message = format!("Back-off restarting failed container {name} in pod {full}");
            self.event(&pod.container_reference(kind, name), EventType::Warning, "BackOff", message);
        }
        let message = format!("back-off {delay} restarting failed container={name} pod={full}");
        state.failures.insert(name.to_owned(), StartFailure { reason: "CrashLoopBackOff".to_owned(), message });
    }

    async fn create_sandbox(&self, pod: &Arc<Pod>, attempt: u32) -> Result<()> {
        let config = crate::container_config::sandbox_config(pod, attempt, &self.config.node_name, &self.dns());
        self.config.fs.create_dir_all(&config.log_directory)?;
        let run = async {
            let handler = runtime_handler(&self.config.client, pod).await?;
            Ok(self.config.cri.run_pod_sandbox(config, &handler).await?)
        };
        let made: Result<String> = run.await;
        let Err(error) = made else {
            return Ok(());
        };
        let message = format!("Failed to create pod sandbox: {error}");
        self.event(&object_reference(pod.as_ref()), EventType::Warning, "FailedCreatePodSandBox", message);
        Err(error)
    }

    /// Computes the pod's status and sends it if it is news. Returns the phase.
    pub(crate) async fn report(
        &self,
        pod: &Arc<Pod>,
        runtime: &RuntimePod,
        worker: &PodWorker,
        state: &mut SyncState,
        terminating: bool,
    ) -> Result<Option<String>> {
        let old = state.status.clone().or_else(|| pod.status.clone()).unwrap_or_default();
        let old = with_foreign_conditions(old, pod);
        let host_ips = self.host_ips();
        let runtime_name = self.runtime.lock().name.clone();
        if terminating {
            self.end_resize(&worker.uid);
        }
        let (resize, actuated) = self.resize_state(&worker.uid);
        let new = {
            let probes = worker.probes.lock();
            let view = status::View {
                failures: &state.failures,
                starting: &probes.starting,
                unready: &probes.unready,
                old: &old,
                terminating,
                forced: state.forced.as_ref(),
                host_ips: &host_ips,
                runtime_name: &runtime_name,
                resize: &resize,
                actuated: &actuated,
                start_time: state.start_time,
                now: self.config.clock.now(),
            };
            status::status(pod, runtime, &view)
        };
        let phase = new.phase.clone();
        self.send_status(pod, &old, new, state).await?;
        Ok(phase)
    }

    async fn send_status(&self, pod: &Arc<Pod>, old: &PodStatus, new: PodStatus, state: &mut SyncState) -> Result<()> {
        if pod.is_static() {
            return self.send_mirror_status(pod, new, state).await;
        }
        if let Some(patch) = crate::status_patch::status_patch(pod.uid(), old, &new) {
            self.patch_status(pod, &patch).await?;
        }
        state.status = Some(new);
        Ok(())
    }
}

/// How often containers were restarted, as far as the status knows; for those of which the runtime has nothing left.
fn known_restarts(status: Option<&PodStatus>) -> BTreeMap<String, u32> {
    let Some(status) = status else {
        return BTreeMap::new();
    };
    let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let restarts = |status: &ContainerStatus| {
        let count = u32::try_from(status.restart_count).unwrap_or(0);
        // The restart of a container that was lost is counted when the loss is noticed.
        let before = if status.container_id.is_some() { Some(count) } else { count.checked_sub(1) };
        before.map(|before| (status.name.clone(), before))
    };
    all.filter_map(restarts).collect()
}

/// The status with the conditions of others as the API has them now.
fn with_foreign_conditions(mut status: PodStatus, pod: &Pod) -> PodStatus {
    let is_owned = |type_: &str| status::OWNED_CONDITIONS.contains(&type_);
    let mut conditions = status.conditions.take().unwrap_or_default();
    conditions.retain(|condition| is_owned(&condition.type_));
    let api = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    conditions.extend(api.into_iter().filter(|condition| !is_owned(&condition.type_)));
    status.conditions = Some(conditions);
    status
}

/// Whether a pod still takes room on the node.
pub(crate) fn is_active(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed"))
}

impl From<minik8s_clock::Elapsed> for Error {
    fn from(_: minik8s_clock::Elapsed) -> Self {
        Error::DeadlineExceeded
    }
}

impl Kubelet {
    /// The status of a pod as this kubelet last knew it.
    pub(crate) async fn current_status(&self, worker: &PodWorker) -> PodStatus {
        // A sync may hold the state for long (it pulls an image); the API has the last status then.
        match worker.state.try_lock() {
            Ok(state) if state.status.is_some() => state.status.clone().unwrap_or_default(),
            _ => worker.input().pod.status.clone().unwrap_or_default(),
        }
    }
}
