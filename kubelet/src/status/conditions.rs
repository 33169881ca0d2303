//! The conditions a kubelet owns.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::containers::non_empty;
use super::phase::any_regular_started;
use super::{OWNED_CONDITIONS, View};
use crate::plan;
use crate::runtime::RuntimePod;
use crate::spec::{self, ContainerKind, PodExt as _};
use crate::words;

/// Sets the owned conditions, and keeps those of others as they were.
pub(super) fn set(status: &mut PodStatus, pod: &Pod, runtime: &RuntimePod, view: &View<'_>) {
    let all: Vec<ContainerStatus> =
        status.init_container_statuses.iter().chain(&status.container_statuses).flatten().cloned().collect();
    let phase = status.phase.clone().unwrap_or_default();
    let has_sandbox = plan::sandbox_needed(pod, runtime).is_none();
    let containers_ready = containers_ready(pod, &all, &phase);
    let ready = pod_ready(pod, containers_ready.clone(), view.old);
    let verdicts = [
        ("PodReadyToStartContainers", if has_sandbox { Verdict::yes() } else { Verdict::no("", String::new()) }),
        ("Initialized", initialized(pod, &all, &phase, any_regular_started(pod, status))),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", Verdict::yes()),
    ];
    let old = view.old.conditions.clone().unwrap_or_default();
    let mut conditions: Vec<PodCondition> =
        old.iter().filter(|c| !OWNED_CONDITIONS.contains(&c.type_.as_str())).cloned().collect();
    conditions.extend_from_slice(view.resize);
    for (type_, verdict) in verdicts {
        let truth = if verdict.truth { "True" } else { "False" };
        let before = old.iter().find(|condition| condition.type_ == type_ && condition.status == truth);
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
        Self { truth: true, reason: String::new(), message: String::new() }
    }

    fn no(reason: &str, message: String) -> Self {
        Self { truth: false, reason: reason.to_owned(), message }
    }
}

fn containers_ready(pod: &Pod, statuses: &[ContainerStatus], phase: &str) -> Verdict {
    let sidecars = pod.spec().init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| spec::init_kind(container) == ContainerKind::Sidecar);
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
    let message = lists(&[("containers with unknown status", &unknown), ("containers with unready status", &unready)]);
    if message.is_empty() { Verdict::yes() } else { Verdict::no("ContainersNotReady", message) }
}

fn lists(parts: &[(&str, &[&str])]) -> String {
    let parts = parts.iter().filter(|(_, names)| !names.is_empty());
    parts.map(|(what, names)| format!("{what}: {}", words::list(names))).collect::<Vec<_>>().join(", ")
}

fn pod_ready(pod: &Pod, containers_ready: Verdict, old: &PodStatus) -> Verdict {
    if !containers_ready.truth {
        return containers_ready;
    }
    let mut unready = Vec::new();
    for gate in pod.spec().readiness_gates.iter().flatten() {
        let gate = &gate.condition_type;
        match old.conditions.iter().flatten().find(|condition| condition.type_ == *gate) {
            None => unready
                .push(format!("corresponding condition of pod readiness gate {} does not exist.", words::quoted(gate))),
            Some(condition) if condition.status != "True" => unready.push(format!(
                "the status of pod readiness gate {} is not \"True\", but {}",
                words::quoted(gate),
                condition.status
            )),
            Some(_) => {}
        }
    }
    if unready.is_empty() { Verdict::yes() } else { Verdict::no("ReadinessGatesNotReady", unready.join(", ")) }
}

fn initialized(pod: &Pod, statuses: &[ContainerStatus], phase: &str, regular_started: bool) -> Verdict {
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
        return Verdict { reason: "PodCompleted".to_owned(), ..Verdict::yes() };
    }
    if regular_started {
        return Verdict::yes();
    }
    let message =
        lists(&[("containers with unknown status", &unknown), ("containers with incomplete status", &incomplete)]);
    if message.is_empty() { Verdict::yes() } else { Verdict::no("ContainersNotInitialized", message) }
}
