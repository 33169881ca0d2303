//! The plan: what has to be done next for a pod, as a pure function of its spec and of what the runtime has of it.
//!
//! ```text
//!   spec ─────────┐
//!   RuntimePod ───┼──► plan() ──► KillPod, CreateSandbox | Kill, Start … + when to look again
//!   back-offs ────┤
//!   probe results ┘
//! ```
//! The executor (`sync`) carries the actions out, reads the runtime again and plans again, until nothing is
//! left to do. (kubelet: `kuberuntime_manager.go`, `computePodActions`; sidecars: KEP-753.)

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::allocation::PodResources;
use crate::backoff::BackOff;
use crate::resizing::{self, Resizing};
use crate::runtime::{RuntimeContainer, RuntimePod, RuntimeSandbox, RuntimeState};
use crate::spec::{self, ContainerKind, PodExt as _};

/// Why a running container is stopped although the pod goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    /// Its liveness probe failed.
    Liveness,
    /// Its startup probe failed.
    Startup,
    /// Its spec changed (the image is the one field that may).
    DefinitionChanged,
    /// The runtime does not know whether it runs.
    Unknown,
    /// The containers it served have all ended.
    PodFinished,
    /// It gets other resources, and its own policy is to be restarted for that.
    Resize,
}

impl KillReason {
    /// The message of the `Killing` event.
    pub fn message(self, container: &str) -> String {
        match self {
            KillReason::Liveness => {
                format!("Container {container} failed liveness probe, will be restarted")
            }
            KillReason::Startup => {
                format!("Container {container} failed startup probe, will be restarted")
            }
            KillReason::DefinitionChanged => {
                format!("Container {container} definition changed, will be restarted")
            }
            KillReason::Unknown => {
                format!("Container is in {} state, try killing it before restart", crate::words::quoted("unknown"))
            }
            KillReason::PodFinished => format!("Stopping container {container}"),
            KillReason::Resize => format!("Container {container} resize requires restart"),
        }
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Stop every container and the sandbox. `finished`: because the pod is done, not to begin anew.
    KillPod {
        /// Whether the pod is done.
        finished: bool,
    },
    /// Make a sandbox, the `attempt`th after the first.
    CreateSandbox {
        /// How many there were before.
        attempt: u32,
    },
    /// Stop one container.
    Kill {
        /// The runtime's name of it.
        id: String,
        /// Its name in the pod.
        name: String,
        /// Why.
        reason: KillReason,
    },
    /// Give running containers, and the pod as a whole, other resources.
    Resize(Resizing),
    /// Make and start a container.
    Start {
        /// Its name in the pod.
        name: String,
        /// What it is.
        kind: ContainerKind,
        /// How often it was started before.
        attempt: u32,
        /// If it ran before: its back-off key, and when it ended.
        restart_of: Option<(String, Timestamp)>,
    },
    /// A container has to wait before it is started again.
    BackOff {
        /// Its name in the pod.
        name: String,
        /// What it is.
        kind: ContainerKind,
        /// Its back-off key.
        key: String,
        /// Until when.
        until: Timestamp,
    },
}

/// What the plan looks at beside spec and runtime.
pub struct View<'a> {
    /// The restart back-offs.
    pub backoff: &'a BackOff,
    /// Running containers (by id) that a probe found unhealthy.
    pub unhealthy: &'a BTreeMap<String, KillReason>,
    /// Running containers (by id) whose startup probe has not succeeded yet.
    pub starting: &'a BTreeSet<String>,
    /// Restarts of containers of which the runtime has nothing left, from the pod's status.
    pub known_restarts: &'a BTreeMap<String, u32>,
    /// What the pod's containers were last told to use; the spec says what is allocated to them.
    pub actuated: &'a PodResources,
    /// Containers (by id) that were stopped to be started with other resources.
    pub resized: &'a BTreeSet<String>,
    /// Now.
    pub now: Timestamp,
}

/// What has to be done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The steps, in order.
    pub actions: Vec<Action>,
    /// When the earliest back-off ends.
    pub wake: Option<Timestamp>,
}

/// Whether the pod needs a new sandbox, and which one that would be.
pub fn sandbox_needed(pod: &Pod, runtime: &RuntimePod) -> Option<u32> {
    let Some(sandbox) = runtime.sandbox() else {
        return Some(0);
    };
    let ready = runtime.sandboxes.iter().filter(|sandbox| sandbox.ready).count();
    let has_network = pod.is_host_network() || !sandbox.ips.is_empty();
    (ready != 1 || !sandbox.ready || !has_network).then_some(sandbox.attempt + 1)
}

/// The back-off key of a container: another spec is another story.
pub fn backoff_key(pod: &Pod, container: &Container) -> String {
    format!("{}_{}_{}", pod.uid(), container.name, spec::container_hash(container))
}

/// What has to be done next for a pod that is meant to run.
pub fn plan(pod: &Pod, runtime: &RuntimePod, view: &View<'_>) -> Plan {
    let mut planner = Planner { pod, runtime, view, plan: Plan::default(), resizing: Resizing::default() };
    match (sandbox_needed(pod, runtime), runtime.sandbox()) {
        (None, Some(sandbox)) => planner.in_sandbox(sandbox),
        (attempt, _) => planner.new_sandbox(attempt.unwrap_or(0)),
    }
    planner.finish()
}

struct Planner<'a> {
    pod: &'a Pod,
    runtime: &'a RuntimePod,
    view: &'a View<'a>,
    plan: Plan,
    resizing: Resizing,
}

impl Planner<'_> {
    /// What is resized is resized after what has to end has ended, and before anything starts.
    fn finish(mut self) -> Plan {
        if !self.resizing.is_empty() {
            let starts = |action: &Action| matches!(action, Action::Start { .. } | Action::BackOff { .. });
            let at = self.plan.actions.iter().position(starts).unwrap_or(self.plan.actions.len());
            self.plan.actions.insert(at, Action::Resize(self.resizing));
        }
        self.plan
    }

    /// The pod has no usable sandbox: end what is left of the old one and, if there is anything to run, make a new one.
    fn new_sandbox(&mut self, attempt: u32) {
        let had_containers = !self.runtime.containers.is_empty();
        let over = (attempt > 0 && had_containers && spec::never_restarts(self.pod)) || !self.anything_to_run();
        if !self.runtime.is_stopped() {
            self.plan.actions.push(Action::KillPod { finished: over });
        }
        if !over {
            self.plan.actions.push(Action::CreateSandbox { attempt });
        }
    }

    /// Whether a regular container would be started in a new sandbox.
    fn anything_to_run(&self) -> bool {
        self.pod.spec().containers.iter().any(|container| match self.runtime.latest(&container.name) {
            Some(last) if last.state == RuntimeState::Exited => {
                spec::restarts(self.pod, ContainerKind::Regular, container, last.exit_code)
            }
            _ => true,
        })
    }

    fn in_sandbox(&mut self, sandbox: &RuntimeSandbox) {
        for container in self.pod.spec().ephemeral_containers.iter().flatten() {
            if self.runtime.latest(&container.name).is_none() {
                self.push_start(&container.name, ContainerKind::Ephemeral, 0, None);
            }
        }
        let initialized = self
            .pod
            .spec()
            .containers
            .iter()
            .any(|container| self.runtime.latest_in(&sandbox.id, &container.name).is_some());
        if !initialized {
            if self.initialize(sandbox) {
                self.regular();
            }
        } else {
            let before = self.plan.actions.len();
            if self.regular() {
                self.sidecars(sandbox, before);
                self.resizing.pod |= resizing::pod_differs(self.pod, self.view.actuated);
            } else if !self.runtime.is_stopped() {
                self.plan.actions.push(Action::KillPod { finished: true });
            }
        }
    }

    /// Walks the init containers in order up to the first that is not done. True when all are.
    fn initialize(&mut self, sandbox: &RuntimeSandbox) -> bool {
        for container in self.pod.spec().init_containers.iter().flatten() {
            let kind = spec::init_kind(container);
            let Some(last) = self.runtime.latest_in(&sandbox.id, &container.name) else {
                // In a new sandbox the init containers begin anew, without a pause.
                self.push_start(&container.name, kind, self.next_attempt(&container.name), None);
                return false;
            };
            match (last.state, kind) {
                (RuntimeState::Running, ContainerKind::Sidecar) => {
                    if self.kill_if_unhealthy(last)
                        || self.view.starting.contains(&last.id)
                        || !self.resize(container, last)
                    {
                        return false;
                    }
                }
                (RuntimeState::Running, _) => {
                    self.resize(container, last);
                    return false;
                }
                (RuntimeState::Unknown, _) => {
                    self.push_kill(last, KillReason::Unknown);
                    return false;
                }
                (RuntimeState::Exited, ContainerKind::Init) if last.exit_code == 0 => {}
                (RuntimeState::Exited, ContainerKind::Init)
                    if !spec::restarts(self.pod, kind, container, last.exit_code) =>
                {
                    self.plan.actions.push(Action::KillPod { finished: true });
                    return false;
                }
                (RuntimeState::Exited | RuntimeState::Created, _) => {
                    self.restart(container, kind, last);
                    return false;
                }
            }
        }
        true
    }

    /// Keeps the sidecars of an initialized pod running. They are looked at before the regular ones act.
    fn sidecars(&mut self, sandbox: &RuntimeSandbox, before: usize) {
        let regular = self.plan.actions.split_off(before);
        for container in self.pod.spec().init_containers.iter().flatten() {
            if spec::init_kind(container) != ContainerKind::Sidecar {
                continue;
            }
            match self.runtime.latest_in(&sandbox.id, &container.name) {
                None => {
                    let attempt = self.next_attempt(&container.name);
                    self.push_start(&container.name, ContainerKind::Sidecar, attempt, None);
                }
                Some(last) => match last.state {
                    RuntimeState::Running => {
                        if !self.kill_if_unhealthy(last) && !self.view.starting.contains(&last.id) {
                            self.resize(container, last);
                        }
                    }
                    RuntimeState::Unknown => self.push_kill(last, KillReason::Unknown),
                    RuntimeState::Exited | RuntimeState::Created => {
                        self.restart(container, ContainerKind::Sidecar, last);
                    }
                },
            }
        }
        self.plan.actions.extend(regular);
    }

    /// The regular containers. False when all have ended for good.
    fn regular(&mut self) -> bool {
        let mut going_on = false;
        for container in &self.pod.spec().containers {
            let kind = ContainerKind::Regular;
            let Some(last) = self.runtime.latest(&container.name) else {
                self.push_start(&container.name, kind, self.next_attempt(&container.name), None);
                going_on = true;
                continue;
            };
            match last.state {
                RuntimeState::Running => {
                    going_on = true;
                    if last.hash != spec::container_hash(container) {
                        self.push_kill(last, KillReason::DefinitionChanged);
                    } else if !self.kill_if_unhealthy(last) {
                        self.resize(container, last);
                    }
                }
                RuntimeState::Unknown => {
                    going_on = true;
                    self.push_kill(last, KillReason::Unknown);
                }
                RuntimeState::Created => {
                    going_on = true;
                    self.restart(container, kind, last);
                }
                RuntimeState::Exited
                    if self.view.resized.contains(&last.id)
                        || spec::restarts(self.pod, kind, container, last.exit_code) =>
                {
                    going_on = true;
                    self.restart(container, kind, last);
                }
                RuntimeState::Exited => {}
            }
        }
        going_on
    }

    fn kill_if_unhealthy(&mut self, container: &RuntimeContainer) -> bool {
        match self.view.unhealthy.get(&container.id) {
            Some(reason) => {
                self.push_kill(container, *reason);
                true
            }
            None => false,
        }
    }

    /// Gives a running container what is allocated to it. False if it has to be restarted for that.
    fn resize(&mut self, container: &Container, last: &RuntimeContainer) -> bool {
        let current = resizing::actuated(self.view.actuated, &container.name);
        let desired = resizing::desired(self.pod, container);
        let goes_on = self.resizing.add(container, &last.id, current, desired);
        if !goes_on {
            self.push_kill(last, KillReason::Resize);
        }
        goes_on
    }

    fn push_kill(&mut self, container: &RuntimeContainer, reason: KillReason) {
        let (id, name) = (container.id.clone(), container.name.clone());
        self.plan.actions.push(Action::Kill { id, name, reason });
    }

    fn push_start(&mut self, name: &str, kind: ContainerKind, attempt: u32, restart_of: Option<(String, Timestamp)>) {
        if let Some((_, container)) = self.pod.container(name).filter(|(kind, _)| *kind != ContainerKind::Ephemeral) {
            let known = resizing::actuated(self.view.actuated, name);
            self.resizing.pod |= known != resizing::desired(self.pod, &container);
        }
        self.plan.actions.push(Action::Start { name: name.to_owned(), kind, attempt, restart_of });
    }

    /// Starts a container that ran before, or lets it wait for the end of its back-off.
    fn restart(&mut self, container: &Container, kind: ContainerKind, last: &RuntimeContainer) {
        let key = backoff_key(self.pod, container);
        let attempt = self.next_attempt(&container.name);
        // What was stopped for a resize has not failed.
        if last.state != RuntimeState::Exited || self.view.resized.contains(&last.id) {
            return self.push_start(&container.name, kind, attempt, None);
        }
        match self.view.backoff.until(&key, last.finished_at, self.view.now) {
            None => self.push_start(&container.name, kind, attempt, Some((key, last.finished_at))),
            Some(until) => {
                self.plan.wake = Some(self.plan.wake.map_or(until, |wake| wake.min(until)));
                self.plan.actions.push(Action::BackOff { name: container.name.clone(), kind, key, until });
            }
        }
    }

    fn next_attempt(&self, name: &str) -> u32 {
        match self.runtime.latest(name) {
            Some(last) => last.attempt + 1,
            None => self.view.known_restarts.get(name).map_or(0, |restarts| restarts + 1),
        }
    }
}
