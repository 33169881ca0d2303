//! Probes: what tells a container that runs from one that works.
//!
//! [`Probes`] holds, for one pod, the verdicts that plan and status read, and one task for every probe of a running
//! container; [`run`] is one attempt. A verdict that changes brings the pod back into the queue.
//!
//! (kubelet: `prober/prober_manager.go`, `worker.go`, `prober.go`; `pkg/probe/{http,tcp,grpc,exec}`.)

mod run;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodStatus, Probe};
use minik8s_client::EventType;
use tokio_util::sync::CancellationToken;

pub(crate) use run::http_get;
use run::{Outcome, Target};

use crate::kubelet::Kubelet;
use crate::plan::KillReason;
use crate::runtime::{RuntimeContainer, RuntimePod, RuntimeState};
use crate::spec::{ContainerKind, PodExt as _};
use crate::worker::PodWorker;

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeType {
    /// Has it started? Until then the other two wait.
    Startup,
    /// Must it be restarted?
    Liveness,
    /// May it get traffic?
    Readiness,
}

impl ProbeType {
    fn word(self) -> &'static str {
        match self {
            ProbeType::Startup => "Startup",
            ProbeType::Liveness => "Liveness",
            ProbeType::Readiness => "Readiness",
        }
    }
}

/// The probes of one pod.
#[derive(Debug, Default)]
pub struct Probes {
    /// Running containers (by id) that a probe found unhealthy.
    pub unhealthy: BTreeMap<String, KillReason>,
    /// Running containers (by id) whose startup probe has not succeeded yet.
    pub starting: BTreeSet<String>,
    /// Running containers (by id) whose readiness probe has not succeeded.
    pub unready: BTreeSet<String>,
    /// The probes that run, by container id.
    tasks: BTreeMap<(String, ProbeType), CancellationToken>,
    /// Containers (by id) that were seen before.
    seen: BTreeSet<String>,
}

impl Probes {
    /// Ends all probing. The verdicts stay.
    pub fn stop(&mut self) {
        for task in std::mem::take(&mut self.tasks).into_values() {
            task.cancel();
        }
    }

    /// Forgets containers that no longer run.
    fn retain(&mut self, running: &BTreeSet<String>) {
        self.unhealthy.retain(|id, _| running.contains(id));
        self.starting.retain(|id| running.contains(id));
        self.unready.retain(|id| running.contains(id));
        self.seen.retain(|id| running.contains(id));
        self.tasks.retain(|(id, _), task| {
            let keep = running.contains(id);
            if !keep {
                task.cancel();
            }
            keep
        });
    }

    /// Takes in the verdict of a probe. Whether it changed anything.
    fn decide(&mut self, id: &str, type_: ProbeType, success: bool) -> bool {
        match (type_, success) {
            (ProbeType::Startup, true) => self.starting.remove(id),
            (ProbeType::Startup, false) => self.unhealthy.insert(id.to_owned(), KillReason::Startup).is_none(),
            (ProbeType::Liveness, true) => self.unhealthy.remove(id).is_some(),
            (ProbeType::Liveness, false) => self.unhealthy.insert(id.to_owned(), KillReason::Liveness).is_none(),
            (ProbeType::Readiness, true) => self.unready.remove(id),
            (ProbeType::Readiness, false) => self.unready.insert(id.to_owned()),
        }
    }
}

fn probes_of(container: &Container) -> impl Iterator<Item = (ProbeType, &Probe)> {
    [
        (ProbeType::Startup, container.startup_probe.as_ref()),
        (ProbeType::Liveness, container.liveness_probe.as_ref()),
        (ProbeType::Readiness, container.readiness_probe.as_ref()),
    ]
    .into_iter()
    .filter_map(|(type_, probe)| Some((type_, probe?)))
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(default))
}

impl Kubelet {
    /// Starts the probes of containers that have begun to run, and ends those of others.
    pub(crate) fn follow_probes(
        self: &Arc<Self>,
        worker: &Arc<PodWorker>,
        pod: &Arc<Pod>,
        runtime: &RuntimePod,
        old: &PodStatus,
    ) {
        let alive = runtime.containers.iter().filter(|container| container.state == RuntimeState::Running);
        let alive: Vec<&RuntimeContainer> = alive.collect();
        let mut probes = worker.probes.lock();
        probes.retain(&alive.iter().map(|container| container.id.clone()).collect());
        if worker.input().is_ending() {
            return;
        }
        for container in alive {
            let Some((kind, spec)) = pod.container(&container.name) else {
                continue;
            };
            if matches!(kind, ContainerKind::Init | ContainerKind::Ephemeral) {
                continue;
            }
            if probes.seen.insert(container.id.clone()) {
                begin(&mut probes, &spec, container, old);
            }
            let starting = probes.starting.contains(&container.id);
            for (type_, probe) in probes_of(&spec) {
                let due = if type_ == ProbeType::Startup { starting } else { !starting };
                let key = (container.id.clone(), type_);
                if due && !probes.tasks.contains_key(&key) {
                    let cancel = self.cancel.child_token();
                    probes.tasks.insert(key, cancel.clone());
                    let target =
                        Target { id: container.id.clone(), container: spec.clone(), pod_ip: self.pod_ip(pod, runtime) };
                    let task = Task {
                        kubelet: self.clone(),
                        worker: worker.clone(),
                        pod: pod.clone(),
                        kind,
                        type_,
                        probe: probe.clone(),
                        target,
                    };
                    tokio::spawn(task.run(cancel));
                }
            }
        }
    }

    fn pod_ip(&self, pod: &Pod, runtime: &RuntimePod) -> String {
        if pod.is_host_network() {
            return self.host_ips().into_iter().next().unwrap_or_default();
        }
        runtime.sandbox().and_then(|sandbox| sandbox.ips.first().cloned()).unwrap_or_default()
    }
}

/// What is assumed of a container before its first probe: the worst, unless an earlier kubelet knew better.
fn begin(probes: &mut Probes, spec: &Container, container: &RuntimeContainer, old: &PodStatus) {
    let statuses = old.container_statuses.iter().chain(&old.init_container_statuses).flatten();
    let known = statuses.into_iter().find(|status: &&ContainerStatus| {
        status.container_id.as_ref().is_some_and(|id| id.ends_with(&format!("://{}", container.id)))
    });
    if spec.startup_probe.is_some() && known.and_then(|status| status.started) != Some(true) {
        probes.starting.insert(container.id.clone());
    }
    if spec.readiness_probe.is_some() && known.is_none_or(|status| !status.ready) {
        probes.unready.insert(container.id.clone());
    }
}

/// One probe of one running container.
struct Task {
    kubelet: Arc<Kubelet>,
    worker: Arc<PodWorker>,
    pod: Arc<Pod>,
    kind: ContainerKind,
    type_: ProbeType,
    probe: Probe,
    target: Target,
}

impl Task {
    async fn run(self, cancel: CancellationToken) {
        tokio::select! {
            biased;
            () = cancel.cancelled() => {}
            () = self.probe_until_decided() => {}
        }
    }

    async fn probe_until_decided(&self) {
        let clock = &self.kubelet.config.clock;
        let period = seconds(self.probe.period_seconds, 10).max(Duration::from_secs(1));
        let success_threshold = self.probe.success_threshold.unwrap_or(1).max(1);
        let failure_threshold = self.probe.failure_threshold.unwrap_or(3).max(1);
        clock.sleep(seconds(self.probe.initial_delay_seconds, 0)).await;
        let (mut last, mut in_a_row) = (None, 0);
        loop {
            let success = self.attempt().await;
            in_a_row = if last == Some(success) { in_a_row + 1 } else { 1 };
            last = Some(success);
            if in_a_row >= if success { success_threshold } else { failure_threshold } {
                let changed = self.worker.probes.lock().decide(&self.target.id, self.type_, success);
                if changed {
                    self.kubelet.queue.add(self.worker.uid.clone());
                }
                if self.is_final(success) {
                    return;
                }
            }
            clock.sleep(period).await;
        }
    }

    /// A startup probe has said all once it succeeded; a container found unhealthy is about to be stopped.
    fn is_final(&self, success: bool) -> bool {
        match self.type_ {
            ProbeType::Startup => true,
            ProbeType::Liveness => !success,
            ProbeType::Readiness => false,
        }
    }

    async fn attempt(&self) -> bool {
        let timeout = seconds(self.probe.timeout_seconds, 1).max(Duration::from_secs(1));
        let outcome = run::attempt(&self.kubelet.config, &self.probe, &self.target, timeout).await;
        let word = self.type_.word();
        let message = match outcome {
            Outcome::Success => return true,
            Outcome::Failure(output) => format!("{word} probe failed: {output}"),
            Outcome::Error(error) => {
                format!("{word} probe errored and resulted in unknown state: {error}")
            }
        };
        let reference = self.pod.container_reference(self.kind, &self.target.container.name);
        self.kubelet.event(&reference, EventType::Warning, "Unhealthy", message);
        false
    }
}
