//! The status of a pod, as a pure function of its spec, of what the runtime has of it and of the status before.
//!
//! (kubelet: `kubelet_pods.go`, `generateAPIPodStatus`, `getPhase`, `convertToAPIContainerStatuses`;
//! `status/generate.go`; `prober_manager.go`, `UpdatePodStatus`.)

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, ContainerUser, HostIP, LinuxContainerUser, Pod,
    PodCondition, PodIP, PodStatus, ResourceRequirements, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::plan;
use crate::resources;
use crate::runtime::{RuntimeContainer, RuntimePod, RuntimeState};
use crate::spec::{self, ContainerKind, PodExt as _};
use crate::words;

/// The conditions a kubelet owns; all others are left as they are (`pkg/kubelet/types/pod_status.go`).
pub const OWNED_CONDITIONS: [&str; 5] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
];

const CONTAINER_CREATING: &str = "ContainerCreating";
const POD_INITIALIZING: &str = "PodInitializing";
/// What is said of a container that ran and of which the runtime has no trace any more.
const STATUS_UNKNOWN: &str = "ContainerStatusUnknown";

/// Why a container could not be started, until it could (kubelet: `reason_cache.go`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartFailure {
    /// In a word: `ErrImagePull`, `CrashLoopBackOff`, `CreateContainerConfigError`, …
    pub reason: String,
    /// In a sentence.
    pub message: String,
}

/// What the status is computed from beside spec and runtime.
pub struct View<'a> {
    /// Why containers (by name) could not be started.
    pub failures: &'a BTreeMap<String, StartFailure>,
    /// Running containers (by id) whose startup probe has not succeeded yet.
    pub starting: &'a BTreeSet<String>,
    /// Running containers (by id) whose readiness probe has not succeeded.
    pub unready: &'a BTreeSet<String>,
    /// The last status that was sent, or the one of the API.
    pub old: &'a PodStatus,
    /// Whether the pod is ending and its containers will not be restarted.
    pub terminating: bool,
    /// Phase, reason and message forced from outside: rejected, evicted, past its deadline.
    pub forced: Option<&'a Forced>,
    /// The node's addresses, the primary one first.
    pub host_ips: &'a [String],
    /// The name of the runtime, the scheme of container IDs.
    pub runtime_name: &'a str,
    /// When the kubelet first saw the pod.
    pub start_time: Timestamp,
    /// Now.
    pub now: Timestamp,
}

/// A verdict about the whole pod that no container state expresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forced {
    /// In a word: `DeadlineExceeded`, `OutOfcpu`.
    pub reason: String,
    /// In a sentence.
    pub message: String,
}

/// Computes the status of `pod`.
pub fn status(pod: &Pod, runtime: &RuntimePod, view: &View<'_>) -> PodStatus {
    let spec = pod.spec();
    let init_containers: Vec<Container> = spec.init_containers.iter().flatten().cloned().collect();
    let ephemeral = pod
        .all_containers()
        .into_iter()
        .filter(|(kind, _)| *kind == ContainerKind::Ephemeral);
    let ephemeral: Vec<Container> = ephemeral.map(|(_, container)| container).collect();
    let statuses = Statuses {
        pod,
        runtime,
        view,
        has_init: !init_containers.is_empty(),
    };
    let mut status = PodStatus {
        observed_generation: pod.metadata.generation,
        host_ip: view.host_ips.first().cloned(),
        host_ips: Some(
            view.host_ips
                .iter()
                .map(|ip| HostIP { ip: ip.clone() })
                .collect(),
        ),
        start_time: view.old.start_time.clone().or(Some(Time(view.start_time))),
        qos_class: Some(resources::qos_class(pod).to_owned()),
        container_statuses: Some(statuses.of(&spec.containers, &view.old.container_statuses)),
        init_container_statuses: (!init_containers.is_empty())
            .then(|| statuses.of(&init_containers, &view.old.init_container_statuses)),
        ephemeral_container_statuses: (!ephemeral.is_empty())
            .then(|| statuses.of(&ephemeral, &view.old.ephemeral_container_statuses)),
        ..PodStatus::default()
    };
    set_addresses(&mut status, pod, runtime, view);
    set_phase(&mut status, pod, view);
    set_conditions(&mut status, pod, runtime, view);
    status
}

/// A pod's addresses stay as they were once its sandbox is gone.
fn set_addresses(status: &mut PodStatus, pod: &Pod, runtime: &RuntimePod, view: &View<'_>) {
    let ips: Vec<String> = if pod.is_host_network() {
        view.host_ips.to_vec()
    } else {
        runtime
            .sandbox()
            .map(|sandbox| sandbox.ips.clone())
            .unwrap_or_default()
    };
    if ips.is_empty() {
        status.pod_ip.clone_from(&view.old.pod_ip);
        status.pod_ips.clone_from(&view.old.pod_ips);
    } else {
        status.pod_ip = ips.first().cloned();
        status.pod_ips = Some(ips.into_iter().map(|ip| PodIP { ip }).collect());
    }
}

fn is_terminal(phase: Option<&str>) -> bool {
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn set_phase(status: &mut PodStatus, pod: &Pod, view: &View<'_>) {
    let old = view.old;
    if let Some(forced) = view.forced {
        status.phase = Some("Failed".to_owned());
        status.reason = Some(forced.reason.clone());
        status.message = Some(forced.message.clone());
        return;
    }
    // A pod never leaves a terminal phase.
    let phase = match old.phase.as_deref() {
        Some(phase) if is_terminal(Some(phase)) => phase,
        _ => phase(pod, status, view.terminating),
    };
    if old.phase.as_deref() == Some(phase) {
        status.reason.clone_from(&old.reason);
        status.message.clone_from(&old.message);
    }
    status.phase = Some(phase.to_owned());
}

struct Statuses<'a> {
    pod: &'a Pod,
    runtime: &'a RuntimePod,
    view: &'a View<'a>,
    has_init: bool,
}

impl Statuses<'_> {
    fn of(
        &self,
        containers: &[Container],
        old: &Option<Vec<ContainerStatus>>,
    ) -> Vec<ContainerStatus> {
        let old = |name: &str| old.iter().flatten().find(|status| status.name == name);
        containers
            .iter()
            .map(|container| self.of_one(container, old(&container.name)))
            .collect()
    }

    fn of_one(&self, container: &Container, old: Option<&ContainerStatus>) -> ContainerStatus {
        let kind = self
            .pod
            .container(&container.name)
            .map_or(ContainerKind::Regular, |(kind, _)| kind);
        let mut seen = self
            .runtime
            .containers
            .iter()
            .filter(|c| c.name == container.name);
        let latest = seen.next();
        let mut status = match latest {
            Some(latest) => self.from_runtime(container, latest),
            None => self.without_runtime(container, old),
        };
        if latest.is_some() {
            let before = seen.next().and_then(|previous| self.state(previous));
            // The one before may have been removed already; the status remembers it.
            status.last_state = before.or_else(|| {
                old.filter(|old| old.restart_count == status.restart_count)
                    .and_then(|old| old.last_state.clone())
            });
        }
        status
            .last_state
            .get_or_insert_with(ContainerState::default);
        self.explain_waiting(container, kind, latest, &mut status);
        self.set_readiness(kind, latest, &mut status);
        status
    }

    fn from_runtime(&self, container: &Container, latest: &RuntimeContainer) -> ContainerStatus {
        let mut status = ContainerStatus {
            name: container.name.clone(),
            image: latest.image.clone(),
            image_id: latest.image_id.clone(),
            container_id: Some(self.container_id(latest)),
            restart_count: i32::try_from(latest.attempt).unwrap_or(i32::MAX),
            state: self.state(latest).or_else(|| Some(waiting(None))),
            volume_mounts: volume_mounts(container),
            ..ContainerStatus::default()
        };
        if let Some((uid, gid, groups)) = &latest.user {
            let linux = LinuxContainerUser {
                uid: *uid,
                gid: *gid,
                supplemental_groups: Some(groups.clone()),
            };
            status.user = Some(ContainerUser { linux: Some(linux) });
        }
        if latest.state == RuntimeState::Running {
            let requirements = container.resources.clone().unwrap_or_default();
            status
                .allocated_resources
                .clone_from(&requirements.requests);
            status.resources = Some(ResourceRequirements {
                limits: requirements.limits,
                requests: requirements.requests,
                claims: None,
            });
        }
        status
    }

    /// The status of a container the runtime does not know: not made yet, or lost.
    fn without_runtime(
        &self,
        container: &Container,
        old: Option<&ContainerStatus>,
    ) -> ContainerStatus {
        if let Some(old) = old
            && old
                .state
                .as_ref()
                .is_some_and(|state| state.terminated.is_some())
        {
            return old.clone();
        }
        let reason = if self.has_init {
            POD_INITIALIZING
        } else {
            CONTAINER_CREATING
        };
        let mut status = ContainerStatus {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            restart_count: old.map_or(0, |old| old.restart_count),
            state: Some(waiting(Some(reason))),
            last_state: old.and_then(|old| old.last_state.clone()),
            volume_mounts: volume_mounts(container),
            ..ContainerStatus::default()
        };
        let ran = old.is_some_and(|old| {
            old.state
                .as_ref()
                .is_some_and(|state| state.running.is_some())
        });
        let known = status
            .last_state
            .as_ref()
            .is_some_and(|state| state.terminated.is_some());
        if ran && !known {
            status.last_state = Some(lost());
            if self.pod.metadata.deletion_timestamp.is_none() {
                status.restart_count += 1;
            }
        }
        status
    }

    fn container_id(&self, container: &RuntimeContainer) -> String {
        format!("{}://{}", self.view.runtime_name, container.id)
    }

    fn state(&self, container: &RuntimeContainer) -> Option<ContainerState> {
        let state = match container.state {
            RuntimeState::Running => {
                let running = ContainerStateRunning {
                    started_at: Some(Time(container.started_at)),
                };
                ContainerState {
                    running: Some(running),
                    ..ContainerState::default()
                }
            }
            RuntimeState::Exited => {
                let terminated = ContainerStateTerminated {
                    exit_code: container.exit_code,
                    reason: (!container.reason.is_empty()).then(|| container.reason.clone()),
                    message: (!container.message.is_empty()).then(|| container.message.clone()),
                    started_at: Some(Time(container.started_at)),
                    finished_at: Some(Time(container.finished_at)),
                    container_id: Some(self.container_id(container)),
                    signal: None,
                };
                ContainerState {
                    terminated: Some(terminated),
                    ..ContainerState::default()
                }
            }
            RuntimeState::Created | RuntimeState::Unknown => return None,
        };
        Some(state)
    }

    /// A container that is about to be restarted waits, and says why.
    fn explain_waiting(
        &self,
        container: &Container,
        kind: ContainerKind,
        latest: Option<&RuntimeContainer>,
        status: &mut ContainerStatus,
    ) {
        let Some(failure) = self.view.failures.get(&container.name) else {
            return;
        };
        let to_start = match latest {
            None => true,
            Some(latest) => match latest.state {
                RuntimeState::Running => false,
                RuntimeState::Exited => spec::restarts(self.pod, kind, container, latest.exit_code),
                RuntimeState::Created | RuntimeState::Unknown => true,
            },
        };
        if !to_start || self.view.terminating {
            return;
        }
        if status
            .state
            .as_ref()
            .is_some_and(|state| state.terminated.is_some())
        {
            status.last_state = status.state.take();
        }
        let waiting = ContainerStateWaiting {
            reason: Some(failure.reason.clone()),
            message: non_empty(&failure.message),
        };
        status.state = Some(ContainerState {
            waiting: Some(waiting),
            ..ContainerState::default()
        });
    }

    fn set_readiness(
        &self,
        kind: ContainerKind,
        latest: Option<&RuntimeContainer>,
        status: &mut ContainerStatus,
    ) {
        let running = latest.filter(|latest| latest.state == RuntimeState::Running);
        let started = running.is_some_and(|container| !self.view.starting.contains(&container.id));
        status.ready = match kind {
            ContainerKind::Init => status
                .state
                .as_ref()
                .and_then(|s| s.terminated.as_ref())
                .is_some_and(|ended| ended.exit_code == 0),
            ContainerKind::Ephemeral => false,
            _ => {
                started
                    && running.is_some_and(|container| !self.view.unready.contains(&container.id))
            }
        };
        status.started = match kind {
            ContainerKind::Init | ContainerKind::Ephemeral => Some(running.is_some()),
            _ => Some(started),
        };
        if kind == ContainerKind::Ephemeral {
            status.started = None;
        }
    }
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn waiting(reason: Option<&str>) -> ContainerState {
    let waiting = ContainerStateWaiting {
        reason: reason.map(str::to_owned),
        message: None,
    };
    ContainerState {
        waiting: Some(waiting),
        ..ContainerState::default()
    }
}

fn lost() -> ContainerState {
    let terminated = ContainerStateTerminated {
        exit_code: 137,
        reason: Some(STATUS_UNKNOWN.to_owned()),
        message: Some(
            "The container could not be located when the pod was deleted.  The container used to be Running".to_owned(),
        ),
        ..ContainerStateTerminated::default()
    };
    ContainerState {
        terminated: Some(terminated),
        ..ContainerState::default()
    }
}

fn volume_mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container
        .volume_mounts
        .as_ref()
        .filter(|mounts| !mounts.is_empty())?;
    let status = mounts.iter().map(|mount| VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: mount.read_only.filter(|read_only| *read_only),
        recursive_read_only: (mount.read_only == Some(true)).then(|| "Disabled".to_owned()),
        ..VolumeMountStatus::default()
    });
    Some(status.collect())
}

fn find<'a>(statuses: &'a Option<Vec<ContainerStatus>>, name: &str) -> Option<&'a ContainerStatus> {
    statuses.iter().flatten().find(|status| status.name == name)
}

/// How the containers of a pod stand, counted.
#[derive(Default)]
struct Tally {
    pending_init: usize,
    failed_init: usize,
    unknown: usize,
    running: usize,
    waiting: usize,
    stopped: usize,
    succeeded: usize,
}

impl Tally {
    fn of(pod: &Pod, status: &PodStatus) -> Tally {
        let mut tally = Tally::default();
        for container in pod.spec().init_containers.iter().flatten() {
            let found = find(&status.init_container_statuses, &container.name);
            if spec::init_kind(container) == ContainerKind::Sidecar {
                tally.sidecar(found);
            } else {
                tally.init(found);
            }
        }
        for container in &pod.spec().containers {
            tally.regular(find(&status.container_statuses, &container.name));
        }
        tally
    }

    fn init(&mut self, status: Option<&ContainerStatus>) {
        let ended =
            |state: &Option<ContainerState>| state.as_ref().and_then(|s| s.terminated.clone());
        let Some(status) = status else {
            self.pending_init += 1;
            return;
        };
        if let Some(ended) = ended(&status.state) {
            self.failed_init += usize::from(ended.exit_code != 0);
        } else if let (true, Some(last)) = (is_waiting(status), ended(&status.last_state)) {
            self.failed_init += usize::from(last.exit_code != 0);
        } else {
            self.pending_init += 1;
        }
    }

    fn sidecar(&mut self, status: Option<&ContainerStatus>) {
        let Some(status) = status else {
            self.unknown += 1;
            return;
        };
        let state = status.state.clone().unwrap_or_default();
        if state.running.is_some() {
            self.running += 1;
            self.pending_init += usize::from(status.started != Some(true));
        } else if state.terminated.is_none() && !has_ended_before(status) {
            self.pending_init += 1;
            self.waiting += 1;
        }
    }

    fn regular(&mut self, status: Option<&ContainerStatus>) {
        let Some(status) = status else {
            self.unknown += 1;
            return;
        };
        let state = status.state.clone().unwrap_or_default();
        if state.running.is_some() {
            self.running += 1;
        } else if let Some(ended) = state.terminated {
            self.stopped += 1;
            self.succeeded += usize::from(ended.exit_code == 0);
        } else if state.waiting.is_some() && has_ended_before(status) {
            self.stopped += 1;
        } else if state.waiting.is_some() {
            self.waiting += 1;
        } else {
            self.unknown += 1;
        }
    }
}

fn is_waiting(status: &ContainerStatus) -> bool {
    status
        .state
        .as_ref()
        .is_some_and(|state| state.waiting.is_some())
}

fn has_ended_before(status: &ContainerStatus) -> bool {
    status
        .last_state
        .as_ref()
        .is_some_and(|state| state.terminated.is_some())
}

/// Whether a regular container has run: from then on the pod counts as initialized.
fn any_regular_started(pod: &Pod, status: &PodStatus) -> bool {
    pod.spec().containers.iter().any(|container| {
        find(&status.container_statuses, &container.name).is_some_and(|status| {
            status.started == Some(true)
                || status
                    .state
                    .as_ref()
                    .is_some_and(|s| s.running.is_some() || s.terminated.is_some())
                || has_ended_before(status)
        })
    })
}

/// The phase that the container statuses amount to.
fn phase(pod: &Pod, status: &PodStatus, terminating: bool) -> &'static str {
    let tally = Tally::of(pod, status);
    let never = spec::never_restarts(pod);
    if tally.failed_init > 0 && pod.restart_policy() == "Never" {
        return "Failed";
    }
    if (tally.pending_init > 0 && !any_regular_started(pod, status)) || tally.waiting > 0 {
        return "Pending";
    }
    if tally.running > 0 && tally.unknown == 0 {
        return "Running";
    }
    if tally.running > 0 || tally.stopped == 0 || tally.unknown > 0 {
        return "Pending";
    }
    let outcome = if tally.stopped == tally.succeeded {
        "Succeeded"
    } else {
        "Failed"
    };
    if terminating && !pod.is_static() {
        return outcome;
    }
    match (pod.restart_policy(), outcome) {
        ("Always", _) => "Running",
        (_, "Succeeded") => "Succeeded",
        _ if never => "Failed",
        _ => "Running",
    }
}

fn set_conditions(status: &mut PodStatus, pod: &Pod, runtime: &RuntimePod, view: &View<'_>) {
    let all: Vec<ContainerStatus> = status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
        .flatten()
        .cloned()
        .collect();
    let phase = status.phase.clone().unwrap_or_default();
    let has_sandbox = plan::sandbox_needed(pod, runtime).is_none();
    let containers_ready = containers_ready(pod, &all, &phase);
    let ready = pod_ready(pod, containers_ready.clone(), view.old);
    let verdicts = [
        (
            "PodReadyToStartContainers",
            if has_sandbox {
                Verdict::yes()
            } else {
                Verdict::no("", String::new())
            },
        ),
        (
            "Initialized",
            initialized(pod, &all, &phase, any_regular_started(pod, status)),
        ),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", Verdict::yes()),
    ];
    let old = view.old.conditions.clone().unwrap_or_default();
    let mut conditions: Vec<PodCondition> = old
        .iter()
        .filter(|c| !OWNED_CONDITIONS.contains(&c.type_.as_str()))
        .cloned()
        .collect();
    for (type_, verdict) in verdicts {
        let truth = if verdict.truth { "True" } else { "False" };
        let before = old
            .iter()
            .find(|condition| condition.type_ == type_ && condition.status == truth);
        conditions.push(PodCondition {
            type_: type_.to_owned(),
            status: truth.to_owned(),
            reason: non_empty(&verdict.reason),
            message: non_empty(&verdict.message),
            observed_generation: pod.metadata.generation,
            last_transition_time: before
                .and_then(|condition| condition.last_transition_time.clone())
                .or(Some(Time(view.now))),
            last_probe_time: None,
        });
    }
    status.conditions = Some(conditions);
}

#[derive(Clone)]
struct Verdict {
    truth: bool,
    reason: String,
    message: String,
}

impl Verdict {
    fn yes() -> Self {
        Self {
            truth: true,
            reason: String::new(),
            message: String::new(),
        }
    }

    fn no(reason: &str, message: String) -> Self {
        Self {
            truth: false,
            reason: reason.to_owned(),
            message,
        }
    }
}

fn containers_ready(pod: &Pod, statuses: &[ContainerStatus], phase: &str) -> Verdict {
    let sidecars = pod.spec().init_containers.iter().flatten();
    let sidecars =
        sidecars.filter(|container| spec::init_kind(container) == ContainerKind::Sidecar);
    let (mut unknown, mut unready) = (Vec::new(), Vec::new());
    for container in sidecars.chain(&pod.spec().containers) {
        match statuses.iter().find(|status| status.name == container.name) {
            None => unknown.push(container.name.as_str()),
            Some(status) if !status.ready => unready.push(container.name.as_str()),
            Some(_) => {}
        }
    }
    match phase {
        "Succeeded" if unknown.is_empty() => return Verdict::no("PodCompleted", String::new()),
        "Failed" => return Verdict::no("PodFailed", String::new()),
        _ => {}
    }
    let message = lists(&[
        ("containers with unknown status", &unknown),
        ("containers with unready status", &unready),
    ]);
    if message.is_empty() {
        Verdict::yes()
    } else {
        Verdict::no("ContainersNotReady", message)
    }
}

fn lists(parts: &[(&str, &[&str])]) -> String {
    let parts = parts.iter().filter(|(_, names)| !names.is_empty());
    parts
        .map(|(what, names)| format!("{what}: {}", words::list(names)))
        .collect::<Vec<_>>()
        .join(", ")
}

fn pod_ready(pod: &Pod, containers_ready: Verdict, old: &PodStatus) -> Verdict {
    if !containers_ready.truth {
        return containers_ready;
    }
    let mut unready = Vec::new();
    for gate in pod.spec().readiness_gates.iter().flatten() {
        let gate = &gate.condition_type;
        match old
            .conditions
            .iter()
            .flatten()
            .find(|condition| condition.type_ == *gate)
        {
            None => unready.push(format!(
                "corresponding condition of pod readiness gate {} does not exist.",
                words::quoted(gate)
            )),
            Some(condition) if condition.status != "True" => unready.push(format!(
                "the status of pod readiness gate {} is not \"True\", but {}",
                words::quoted(gate),
                condition.status
            )),
            Some(_) => {}
        }
    }
    if unready.is_empty() {
        Verdict::yes()
    } else {
        Verdict::no("ReadinessGatesNotReady", unready.join(", "))
    }
}

fn initialized(
    pod: &Pod,
    statuses: &[ContainerStatus],
    phase: &str,
    regular_started: bool,
) -> Verdict {
    let (mut unknown, mut incomplete) = (Vec::new(), Vec::new());
    for container in pod.spec().init_containers.iter().flatten() {
        let Some(status) = statuses.iter().find(|status| status.name == container.name) else {
            unknown.push(container.name.as_str());
            continue;
        };
        let done = match spec::init_kind(container) {
            ContainerKind::Sidecar => status.started == Some(true),
            _ => status.ready,
        };
        if !done {
            incomplete.push(container.name.as_str());
        }
    }
    if phase == "Succeeded" && unknown.is_empty() {
        return Verdict {
            reason: "PodCompleted".to_owned(),
            ..Verdict::yes()
        };
    }
    if regular_started {
        return Verdict::yes();
    }
    let message = lists(&[
        ("containers with unknown status", &unknown),
        ("containers with incomplete status", &incomplete),
    ]);
    if message.is_empty() {
        Verdict::yes()
    } else {
        Verdict::no("ContainersNotInitialized", message)
    }
}
