//! The phase of a pod: its container statuses, counted and weighed.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod, PodStatus};

use crate::spec::{self, ContainerKind, PodExt as _};

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
        let ended = |state: &Option<ContainerState>| state.as_ref().and_then(|s| s.terminated.clone());
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
    status.state.as_ref().is_some_and(|state| state.waiting.is_some())
}

fn has_ended_before(status: &ContainerStatus) -> bool {
    status.last_state.as_ref().is_some_and(|state| state.terminated.is_some())
}

/// Whether a regular container has run: from then on the pod counts as initialized.
pub(super) fn any_regular_started(pod: &Pod, status: &PodStatus) -> bool {
    pod.spec().containers.iter().any(|container| {
        find(&status.container_statuses, &container.name).is_some_and(|status| {
            status.started == Some(true)
                || status.state.as_ref().is_some_and(|s| s.running.is_some() || s.terminated.is_some())
                || has_ended_before(status)
        })
    })
}

/// The phase that the container statuses amount to.
pub(super) fn phase(pod: &Pod, status: &PodStatus, terminating: bool) -> &'static str {
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
    let outcome = if tally.stopped == tally.succeeded { "Succeeded" } else { "Failed" };
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
