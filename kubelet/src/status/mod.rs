//! The status of a pod, as a pure function of its spec, of what the runtime has of it and of the status before.
//!
//! (kubelet: `kubelet_pods.go`, `generateAPIPodStatus`, `getPhase`, `convertToAPIContainerStatuses`;
//! `status/generate.go`; `prober_manager.go`, `UpdatePodStatus`.)

mod conditions;
mod containers;
mod phase;
mod resources;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, HostIP, Pod, PodCondition, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::allocation::PodResources;
use crate::resize::{IN_PROGRESS, PENDING};
use crate::resources::qos_class;
use crate::runtime::RuntimePod;
use crate::spec::{ContainerKind, PodExt as _};
use containers::Statuses;

/// The conditions a kubelet owns; all others are left as they are (`pkg/kubelet/types/pod_status.go`).
pub const OWNED_CONDITIONS: [&str; 7] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled", PENDING, IN_PROGRESS];

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
    /// What is to be said of a resize.
    pub resize: &'a [PodCondition],
    /// What the pod's containers were last told to use; the spec says what is allocated to them.
    pub actuated: &'a PodResources,
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
    let ephemeral = pod.all_containers().into_iter().filter(|(kind, _)| *kind == ContainerKind::Ephemeral);
    let ephemeral: Vec<Container> = ephemeral.map(|(_, container)| container).collect();
    let statuses = Statuses { pod, runtime, view, has_init: !init_containers.is_empty() };
    let mut status = PodStatus {
        observed_generation: pod.metadata.generation,
        host_ip: view.host_ips.first().cloned(),
        host_ips: Some(view.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
        start_time: view.old.start_time.clone().or(Some(Time(view.start_time))),
        qos_class: Some(qos_class(pod).to_owned()),
        container_statuses: Some(statuses.of(&spec.containers, &view.old.container_statuses)),
        init_container_statuses: (!init_containers.is_empty())
            .then(|| statuses.of(&init_containers, &view.old.init_container_statuses)),
        ephemeral_container_statuses: (!ephemeral.is_empty())
            .then(|| statuses.of(&ephemeral, &view.old.ephemeral_container_statuses)),
        ..PodStatus::default()
    };
    containers::share_messages(pod, &mut status);
    set_addresses(&mut status, pod, runtime, view);
    set_phase(&mut status, pod, view);
    let actual = view.actuated.applied_to(pod);
    resources::set_of_pod(&mut status, pod, &actual, view.old);
    conditions::set(&mut status, pod, runtime, view);
    status
}

/// A pod's addresses stay as they were once its sandbox is gone.
fn set_addresses(status: &mut PodStatus, pod: &Pod, runtime: &RuntimePod, view: &View<'_>) {
    let ips: Vec<String> = if pod.is_host_network() {
        view.host_ips.to_vec()
    } else {
        runtime.sandbox().map(|sandbox| sandbox.ips.clone()).unwrap_or_default()
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
        _ => phase::phase(pod, status, view.terminating),
    };
    if old.phase.as_deref() == Some(phase) {
        status.reason.clone_from(&old.reason);
        status.message.clone_from(&old.message);
    }
    status.phase = Some(phase.to_owned());
}
