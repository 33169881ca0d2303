//! Questions about a Pod's spec that several parts ask.

use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, PodSpec};
use minik8s_client::object_reference;

/// Which list of the spec a container stands in, and what that means for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ContainerKind {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always`: started before the next one, then runs beside the pod.
    Sidecar,
    /// One of `spec.containers`.
    Regular,
    /// Added to a running pod to look into it.
    Ephemeral,
}

/// The restart policy of what is never to end.
pub(crate) const ALWAYS: &str = "Always";
const NEVER: &str = "Never";

/// The parts of a Pod that the API server guarantees, without `Option`s.
pub trait PodExt {
    /// The spec; an empty one if there is none.
    fn spec(&self) -> &PodSpec;
    /// The UID; static pods have theirs from their manifest.
    fn uid(&self) -> &str;
    /// The namespace.
    fn namespace(&self) -> &str;
    /// The name.
    fn name(&self) -> &str;
    /// `name_namespace(uid)`, as the kubelet's messages name pods (`pkg/kubelet/util/format`).
    fn full_format(&self) -> String;
    /// The pod's restart policy, `Always` if unset.
    fn restart_policy(&self) -> &str;
    /// All containers in the order of the spec: init, regular, ephemeral.
    fn all_containers(&self) -> Vec<(ContainerKind, Container)>;
    /// The container of that name, of whatever kind.
    fn container(&self, name: &str) -> Option<(ContainerKind, Container)>;
    /// Whether the pod shares the node's network.
    fn is_host_network(&self) -> bool;
    /// Whether the pod is a static one (or the mirror of one).
    fn is_static(&self) -> bool;
    /// How the events of a container name it.
    fn container_reference(&self, kind: ContainerKind, name: &str) -> ObjectReference;
}

static EMPTY_SPEC: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);

impl PodExt for Pod {
    fn spec(&self) -> &PodSpec {
        self.spec.as_ref().unwrap_or(&EMPTY_SPEC)
    }

    fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or("default")
    }

    fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    fn full_format(&self) -> String {
        format!("{}_{}({})", self.name(), self.namespace(), self.uid())
    }

    fn restart_policy(&self) -> &str {
        self.spec().restart_policy.as_deref().unwrap_or(ALWAYS)
    }

    fn all_containers(&self) -> Vec<(ContainerKind, Container)> {
        let spec = self.spec();
        let init = spec.init_containers.iter().flatten().map(|c| (init_kind(c), c.clone()));
        let regular = spec.containers.iter().map(|c| (ContainerKind::Regular, c.clone()));
        let ephemeral = spec.ephemeral_containers.iter().flatten();
        init.chain(regular).chain(ephemeral.map(|c| (ContainerKind::Ephemeral, from_ephemeral(c)))).collect()
    }

    fn container(&self, name: &str) -> Option<(ContainerKind, Container)> {
        let spec = self.spec();
        if let Some(container) = spec.containers.iter().find(|c| c.name == name) {
            return Some((ContainerKind::Regular, container.clone()));
        }
        if let Some(container) = spec.init_containers.iter().flatten().find(|c| c.name == name) {
            return Some((init_kind(container), container.clone()));
        }
        let container = spec.ephemeral_containers.iter().flatten().find(|c| c.name == name)?;
        Some((ContainerKind::Ephemeral, from_ephemeral(container)))
    }

    fn is_host_network(&self) -> bool {
        self.spec().host_network == Some(true)
    }

    fn is_static(&self) -> bool {
        let annotations = self.metadata.annotations.as_ref();
        annotations
            .and_then(|a| a.get(crate::static_pods::SOURCE_ANNOTATION))
            .is_some_and(|source| source != crate::static_pods::API_SOURCE)
    }

    fn container_reference(&self, kind: ContainerKind, name: &str) -> ObjectReference {
        let list = match kind {
            ContainerKind::Init | ContainerKind::Sidecar => "initContainers",
            ContainerKind::Regular => "containers",
            ContainerKind::Ephemeral => "ephemeralContainers",
        };
        let field_path = Some(format!("spec.{list}{{{name}}}"));
        ObjectReference { field_path, ..object_reference(self) }
    }
}

/// The kind of an init container.
pub fn init_kind(container: &Container) -> ContainerKind {
    if container.restart_policy.as_deref() == Some(ALWAYS) { ContainerKind::Sidecar } else { ContainerKind::Init }
}

/// Whether a container that ended with `exit_code` is started again.
///
/// A sidecar always is; an init container until it succeeded; a regular one as its own policy (with its rules) or else
/// the pod's says (`pkg/kubelet/container/helpers.go`, `ShouldContainerBeRestarted`; KEP-5307).
pub fn restarts(pod: &Pod, kind: ContainerKind, container: &Container, exit_code: i32) -> bool {
    if kind == ContainerKind::Ephemeral {
        return false;
    }
    for rule in container.restart_policy_rules.iter().flatten() {
        let Some(codes) = &rule.exit_codes else {
            continue;
        };
        let listed = codes.values.iter().flatten().any(|value| *value == exit_code);
        if rule.action == "Restart" && exit_code != 0 && listed == (codes.operator == "In") {
            return true;
        }
    }
    let policy = container.restart_policy.as_deref().unwrap_or(pod.restart_policy());
    match (kind, policy) {
        (ContainerKind::Sidecar, _) => true,
        (_, NEVER) => false,
        (ContainerKind::Init, _) => exit_code != 0,
        (_, ALWAYS) => true,
        _ => exit_code != 0,
    }
}

/// Whether what runs in the pod may be restarted at all after its sandbox was lost.
pub fn never_restarts(pod: &Pod) -> bool {
    pod.restart_policy() == NEVER && pod.spec().containers.iter().all(|c| c.restart_policy.is_none())
}

fn from_ephemeral(ephemeral: &k8s_openapi::api::core::v1::EphemeralContainer) -> Container {
    Container {
        args: ephemeral.args.clone(),
        command: ephemeral.command.clone(),
        env: ephemeral.env.clone(),
        env_from: ephemeral.env_from.clone(),
        image: ephemeral.image.clone(),
        image_pull_policy: ephemeral.image_pull_policy.clone(),
        name: ephemeral.name.clone(),
        security_context: ephemeral.security_context.clone(),
        stdin: ephemeral.stdin,
        stdin_once: ephemeral.stdin_once,
        termination_message_path: ephemeral.termination_message_path.clone(),
        termination_message_policy: ephemeral.termination_message_policy.clone(),
        tty: ephemeral.tty,
        volume_mounts: ephemeral.volume_mounts.clone(),
        working_dir: ephemeral.working_dir.clone(),
        ..Container::default()
    }
}

/// A hash of what of a container's spec may not change under a running container: its name and its image
/// (`pkg/kubelet/container/helpers.go`, `HashContainer`; resources are left out because they can be resized).
pub fn container_hash(container: &Container) -> String {
    use std::hash::Hasher as _;
    let mut hash = Fnv32(0x811c_9dc5);
    hash.write(container.name.as_bytes());
    hash.write(&[0]);
    hash.write(container.image.as_deref().unwrap_or_default().as_bytes());
    format!("{:x}", hash.finish())
}

/// FNV-1a over 32 bits: stable over processes and versions, as a hash that is stored must be.
struct Fnv32(u32);

impl std::hash::Hasher for Fnv32 {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }

    fn finish(&self) -> u64 {
        u64::from(self.0)
    }
}
