//! The status of each container, from what the runtime has of it and from what was known before.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    ContainerUser, LinuxContainerUser, Pod, PodStatus, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{View, resources};
use crate::runtime::{RuntimeContainer, RuntimePod, RuntimeState};
use crate::spec::{self, ContainerKind, PodExt as _};

const CONTAINER_CREATING: &str = "ContainerCreating";
const POD_INITIALIZING: &str = "PodInitializing";
/// What is said of a container that ran and of which the runtime has no trace any more.
const STATUS_UNKNOWN: &str = "ContainerStatusUnknown";

/// Bytes of the termination messages that a pod's status shows together (`MaxPodTerminationMessageLogLength`).
const POD_MESSAGE_MAX_BYTES: usize = 12 << 10;

/// What the statuses of containers are computed from.
pub(super) struct Statuses<'a> {
    pub pod: &'a Pod,
    pub runtime: &'a RuntimePod,
    pub view: &'a View<'a>,
    /// Whether the pod has init containers: what a container that was never started is said to wait for.
    pub has_init: bool,
}

impl Statuses<'_> {
    /// The statuses of containers, in the order of the spec.
    pub(super) fn of(&self, containers: &[Container], old: &Option<Vec<ContainerStatus>>) -> Vec<ContainerStatus> {
        let old = |name: &str| old.iter().flatten().find(|status| status.name == name);
        containers.iter().map(|container| self.of_one(container, old(&container.name))).collect()
    }

    fn of_one(&self, container: &Container, old: Option<&ContainerStatus>) -> ContainerStatus {
        let kind = self.pod.container(&container.name).map_or(ContainerKind::Regular, |(kind, _)| kind);
        let mut seen = self.runtime.containers.iter().filter(|c| c.name == container.name);
        let latest = seen.next();
        let mut status = match latest {
            Some(latest) => self.known_to_runtime(container, latest, old),
            None => self.unknown_to_runtime(container, old),
        };
        if latest.is_some() {
            let before = seen.next().and_then(|previous| self.state(previous));
            // The one before may have been removed already; the status remembers it.
            status.last_state = before.or_else(|| {
                old.filter(|old| old.restart_count == status.restart_count).and_then(|old| old.last_state.clone())
            });
        }
        status.last_state.get_or_insert_with(ContainerState::default);
        self.explain_waiting(container, kind, latest, &mut status);
        self.set_readiness(kind, latest, &mut status);
        status
    }

    fn known_to_runtime(
        &self,
        container: &Container,
        latest: &RuntimeContainer,
        old: Option<&ContainerStatus>,
    ) -> ContainerStatus {
        let mut status = ContainerStatus {
            name: container.name.clone(),
            image: latest.image.clone(),
            image_id: latest.image_id.clone(),
            container_id: Some(self.container_id(latest)),
            restart_count: i32::try_from(latest.attempt).unwrap_or(i32::MAX),
            state: self.state(latest).or_else(|| Some(waiting(None))),
            volume_mounts: volume_mounts(container, &latest.recursive_read_only),
            ..ContainerStatus::default()
        };
        if let Some((uid, gid, groups)) = &latest.user {
            let linux = LinuxContainerUser { uid: *uid, gid: *gid, supplemental_groups: Some(groups.clone()) };
            status.user = Some(ContainerUser { linux: Some(linux) });
        }
        status.allocated_resources = container.resources.as_ref().and_then(|resources| resources.requests.clone());
        let same = old.filter(|old| {
            old.container_id == status.container_id && old.state.as_ref().is_some_and(|state| state.running.is_some())
        });
        status.resources = Some(resources::of_container(container, latest, self.view.actuated, same));
        status
    }

    /// The status of a container the runtime does not know: not made yet, or lost.
    fn unknown_to_runtime(&self, container: &Container, old: Option<&ContainerStatus>) -> ContainerStatus {
        if let Some(old) = old
            && old.state.as_ref().is_some_and(|state| state.terminated.is_some())
        {
            return old.clone();
        }
        let reason = if self.has_init { POD_INITIALIZING } else { CONTAINER_CREATING };
        let mut status = ContainerStatus {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            restart_count: old.map_or(0, |old| old.restart_count),
            state: Some(waiting(Some(reason))),
            last_state: old.and_then(|old| old.last_state.clone()),
            volume_mounts: volume_mounts(container, &BTreeSet::new()),
            ..ContainerStatus::default()
        };
        let ran = old.is_some_and(|old| old.state.as_ref().is_some_and(|state| state.running.is_some()));
        // Each loss is a restart to come; the runtime of a node that rebooted cannot count them.
        if ran {
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
                let running = ContainerStateRunning { started_at: Some(Time(container.started_at)) };
                ContainerState { running: Some(running), ..ContainerState::default() }
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
                ContainerState { terminated: Some(terminated), ..ContainerState::default() }
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
        if status.state.as_ref().is_some_and(|state| state.terminated.is_some()) {
            status.last_state = status.state.take();
        }
        let waiting =
            ContainerStateWaiting { reason: Some(failure.reason.clone()), message: non_empty(&failure.message) };
        status.state = Some(ContainerState { waiting: Some(waiting), ..ContainerState::default() });
    }

    fn set_readiness(&self, kind: ContainerKind, latest: Option<&RuntimeContainer>, status: &mut ContainerStatus) {
        let running = latest.filter(|latest| latest.state == RuntimeState::Running);
        let started = running.is_some_and(|container| !self.view.starting.contains(&container.id));
        status.ready = match kind {
            ContainerKind::Init => {
                status.state.as_ref().and_then(|s| s.terminated.as_ref()).is_some_and(|ended| ended.exit_code == 0)
            }
            ContainerKind::Ephemeral => false,
            _ => started && running.is_some_and(|container| !self.view.unready.contains(&container.id)),
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

/// Cuts what containers said last to an equal share of what a pod may say (`status_manager.go`, `normalizeStatus`).
pub(super) fn share_messages(pod: &Pod, status: &mut PodStatus) {
    let spec = pod.spec();
    let containers = spec.containers.len()
        + spec.init_containers.as_ref().map_or(0, Vec::len)
        + spec.ephemeral_containers.as_ref().map_or(0, Vec::len);
    let share = POD_MESSAGE_MAX_BYTES / containers.max(1);
    let lists =
        [&mut status.container_statuses, &mut status.init_container_statuses, &mut status.ephemeral_container_statuses];
    let statuses = lists.into_iter().flatten().flatten();
    let states = statuses.flat_map(|status| [&mut status.state, &mut status.last_state]).flatten();
    for message in states.filter_map(|state| state.terminated.as_mut()?.message.as_mut()) {
        message.truncate(message.floor_char_boundary(share));
    }
}

/// None for the empty text, which statuses leave out.
pub(super) fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn waiting(reason: Option<&str>) -> ContainerState {
    let waiting = ContainerStateWaiting { reason: reason.map(str::to_owned), message: None };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
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
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}

/// What became of the container's mounts; `recursive` are the paths of those that are read-only all the way down.
fn volume_mounts(container: &Container, recursive: &BTreeSet<String>) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_ref().filter(|mounts| !mounts.is_empty())?;
    let status = mounts.iter().map(|mount| VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: mount.read_only.filter(|read_only| *read_only),
        recursive_read_only: (mount.read_only == Some(true))
            .then(|| if recursive.contains(&mount.mount_path) { "Enabled" } else { "Disabled" }.to_owned()),
        ..VolumeMountStatus::default()
    });
    Some(status.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn last_words_of_a_pod_are_shared_out() {
        let pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}],
            "ephemeralContainers": [{"name": "e"}]}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let said = |text: &str| json!({"terminated": {"exitCode": 1, "message": text}});
        let container = |name: &str, state, last: serde_json::Value| json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state, "lastState": last});
        // A character that would be cut in two is left out.
        let (long, wide) = ("x".repeat(4096), format!("x{}", "é".repeat(2000)));
        let status = json!({
            "containerStatuses": [container("a", said(&long), said("short")), container("b", json!({}), said(&long))],
            "initContainerStatuses": [container("i", said(&wide), json!({}))],
            "ephemeralContainerStatuses": [container("e", said(&long), json!({}))],
        });
        let mut status: PodStatus = serde_json::from_value(status).unwrap();
        share_messages(&pod, &mut status);
        let lengths = |statuses: &Option<Vec<ContainerStatus>>| {
            let states = statuses.iter().flatten().flat_map(|status| [&status.state, &status.last_state]).flatten();
            let messages = states.filter_map(|state| state.terminated.as_ref()?.message.as_ref());
            messages.map(String::len).collect::<Vec<_>>()
        };
        assert_eq!(lengths(&status.container_statuses), [3072, 5, 3072]);
        assert_eq!(lengths(&status.init_container_statuses), [3071]);
        assert_eq!(lengths(&status.ephemeral_container_statuses), [3072]);
    }
}
