//! What the container runtime says about one pod, in the shape that plans and statuses are computed from.
//!
//! (kubelet: `pkg/kubelet/container/runtime.go`, `PodStatus`.)

use std::collections::BTreeSet;

use jiff::Timestamp;

/// Label of sandboxes and containers: the pod's name.
pub const POD_NAME_LABEL: &str = "io.kubernetes.pod.name";
/// Label of sandboxes and containers: the pod's namespace.
pub const POD_NAMESPACE_LABEL: &str = "io.kubernetes.pod.namespace";
/// Label of sandboxes and containers: the pod's UID.
pub const POD_UID_LABEL: &str = "io.kubernetes.pod.uid";
/// Label of containers: the container's name in the pod.
pub const CONTAINER_NAME_LABEL: &str = "io.kubernetes.container.name";
/// Annotation of containers: what of the spec they were made from.
pub const CONTAINER_HASH_ANNOTATION: &str = "io.kubernetes.container.hash";
/// Annotation of containers: how often the container was restarted before.
pub const RESTART_COUNT_ANNOTATION: &str = "io.kubernetes.container.restartCount";
/// Annotation of containers: where in the container the termination message is written.
pub const TERMINATION_MESSAGE_PATH_ANNOTATION: &str = "io.kubernetes.container.terminationMessagePath";
/// Annotation of containers: where the termination message is taken from.
pub const TERMINATION_MESSAGE_POLICY_ANNOTATION: &str = "io.kubernetes.container.terminationMessagePolicy";
/// Annotation of containers: how long the pod may take to end, so that an orphan still ends gracefully.
pub const GRACE_PERIOD_ANNOTATION: &str = "io.kubernetes.pod.terminationGracePeriod";

/// What the runtime has of one pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuntimePod {
    /// Its sandboxes, the newest first.
    pub sandboxes: Vec<RuntimeSandbox>,
    /// Its containers of all sandboxes, the newest first.
    pub containers: Vec<RuntimeContainer>,
}

/// One sandbox.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuntimeSandbox {
    /// The runtime's name of it.
    pub id: String,
    /// Whether containers can be started in it.
    pub ready: bool,
    /// How many sandboxes the pod had before.
    pub attempt: u32,
    /// The pod's addresses, the primary one first. Empty on the host's network.
    pub ips: Vec<String>,
}

/// The states CRI knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RuntimeState {
    /// Made, not started.
    Created,
    /// Runs.
    Running,
    /// Ended.
    Exited,
    /// The runtime cannot say.
    #[default]
    Unknown,
}

/// One container, dead or alive.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuntimeContainer {
    /// The runtime's name of it.
    pub id: String,
    /// The container's name in the pod.
    pub name: String,
    /// The sandbox it belongs to.
    pub sandbox_id: String,
    /// How often the container was started before.
    pub attempt: u32,
    /// Its state.
    pub state: RuntimeState,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was started; the epoch if it was not.
    pub started_at: Timestamp,
    /// When it ended; the epoch if it has not.
    pub finished_at: Timestamp,
    /// What it ended with.
    pub exit_code: i32,
    /// Why it ended, in a word: `Completed`, `Error`, `OOMKilled`, `StartError`.
    pub reason: String,
    /// Why it ended, in a sentence: the runtime's, or what the container wrote as its termination message.
    pub message: String,
    /// The image, as the user named it.
    pub image: String,
    /// The image, resolved (`docker.io/library/nginx@sha256:…`).
    pub image_id: String,
    /// Hash of the spec it was made from.
    pub hash: String,
    /// What the runtime says that it may use.
    pub resources: Option<RuntimeResources>,
    /// User, group and supplementary groups of its first process.
    pub user: Option<(i64, i64, Vec<i64>)>,
    /// Where its log is, on the node.
    pub log_path: String,
    /// The paths at which mounts are read-only with all that is mounted below them.
    pub recursive_read_only: BTreeSet<String>,
}

/// What a runtime reports that a container may use. It knows nothing of memory requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuntimeResources {
    /// Thousandths of a processor.
    pub cpu_request: Option<i64>,
    /// Thousandths of a processor.
    pub cpu_limit: Option<i64>,
    /// Bytes.
    pub memory_limit: Option<i64>,
}

impl RuntimePod {
    /// The sandbox of the pod that counts: the newest.
    pub fn sandbox(&self) -> Option<&RuntimeSandbox> {
        self.sandboxes.first()
    }

    /// The newest container of that name.
    pub fn latest(&self, name: &str) -> Option<&RuntimeContainer> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// The newest container of that name in one sandbox.
    pub fn latest_in(&self, sandbox_id: &str, name: &str) -> Option<&RuntimeContainer> {
        self.containers.iter().find(|container| container.name == name && container.sandbox_id == sandbox_id)
    }

    /// The containers that may still have a process.
    pub fn alive(&self) -> impl Iterator<Item = &RuntimeContainer> {
        self.containers.iter().filter(|c| matches!(c.state, RuntimeState::Running | RuntimeState::Unknown))
    }

    /// Whether nothing of the pod runs, and nothing can.
    pub fn is_stopped(&self) -> bool {
        self.alive().next().is_none() && self.sandboxes.iter().all(|sandbox| !sandbox.ready)
    }

    /// Sorts sandboxes and containers newest first, which all readers rely on.
    pub fn sort(&mut self) {
        self.sandboxes.sort_by(|a, b| b.attempt.cmp(&a.attempt).then_with(|| a.id.cmp(&b.id)));
        self.containers
            .sort_by(|a, b| (b.created_at, b.attempt).cmp(&(a.created_at, a.attempt)).then_with(|| a.id.cmp(&b.id)));
    }
}
