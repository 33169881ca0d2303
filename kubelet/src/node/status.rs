//! What a Node says about itself, as a pure function.
//!
//! (kubelet: `nodestatus/setters.go`.)

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeRuntimeHandler,
    NodeRuntimeHandlerFeatures, NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use minik8s_cri::proto;
use serde_json::Value;

use crate::config::{KUBELET_VERSION, KubeletConfig};

/// How many images a Node lists (`nodeStatusMaxImages`).
const IMAGES_MAX: usize = 50;
/// How many names of one image a Node lists.
const IMAGE_NAMES_MAX: usize = 5;

/// The features that this kubelet says it has, where it matters to others, sorted. By the first one an API server passes
/// WebSockets of exec, attach and port-forward on as they are, rather than turning them into SPDY, which is not spoken here
/// (KEP-4006); without the others it refuses to resize pods as a whole, and init containers.
const DECLARED_FEATURES: [&str; 3] =
    ["ExtendWebSocketsToKubelet", "InPlacePodLevelResourcesVerticalScaling", "InPlacePodVerticalScalingInitContainers"];

/// What the status is computed from.
pub(super) struct View<'a> {
    pub config: &'a KubeletConfig,
    /// `containerd://2.2.0`.
    pub runtime: String,
    /// What the runtime makes sandboxes by.
    pub handlers: Vec<NodeRuntimeHandler>,
    /// Why the node cannot run pods.
    pub problems: &'a [String],
    /// The images on the node, the largest first.
    pub images: &'a [proto::Image],
    pub old: &'a NodeStatus,
    pub now: Timestamp,
}

pub(super) fn status(view: &View<'_>) -> NodeStatus {
    let config = view.config;
    let capacity = [
        ("cpu", config.capacity.cpu.clone()),
        ("ephemeral-storage", config.capacity.ephemeral_storage.clone()),
        ("hugepages-1Gi", "0".to_owned()),
        ("hugepages-2Mi", "0".to_owned()),
        ("memory", config.capacity.memory.clone()),
        ("pods", config.capacity.pods.to_string()),
    ];
    let capacity: std::collections::BTreeMap<_, _> =
        capacity.into_iter().map(|(name, amount)| (name.to_owned(), Quantity(amount))).collect();
    let mut allocatable = capacity.clone();
    allocatable.extend(config.capacity.allocatable().into_iter().map(|(name, amount)| (name, Quantity(amount))));
    let mut addresses = config.addresses.clone();
    if addresses.iter().all(|address| address.type_ != "Hostname") {
        addresses.push(NodeAddress { type_: "Hostname".to_owned(), address: config.node_name.clone() });
    }
    NodeStatus {
        addresses: Some(addresses),
        allocatable: Some(allocatable),
        capacity: Some(capacity),
        conditions: Some(conditions(view)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: config.port.into() }),
        }),
        declared_features: Some(DECLARED_FEATURES.map(str::to_owned).into()),
        images: Some(images(view.images)),
        node_info: Some(node_info(view)),
        runtime_handlers: Some(view.handlers.clone()).filter(|handlers| !handlers.is_empty()),
        ..NodeStatus::default()
    }
}

fn node_info(view: &View<'_>) -> NodeSystemInfo {
    let machine = &view.config.machine;
    let old = view.old.node_info.clone().unwrap_or_default();
    let or_drawn = |given: &str, old: String| match (given, old.as_str()) {
        ("", "") => view.config.random.uuid(),
        ("", _) => old,
        _ => given.to_owned(),
    };
    let machine_id = or_drawn(&machine.machine_id, old.machine_id);
    NodeSystemInfo {
        architecture: machine.architecture.clone(),
        boot_id: or_drawn(&machine.boot_id, old.boot_id),
        container_runtime_version: view.runtime.clone(),
        kernel_version: machine.kernel_version.clone(),
        // The field is no longer filled (KEP-4004).
        kube_proxy_version: String::new(),
        kubelet_version: KUBELET_VERSION.to_owned(),
        system_uuid: machine_id.clone(),
        machine_id,
        operating_system: machine.operating_system.clone(),
        os_image: machine.os_image.clone(),
        ..NodeSystemInfo::default()
    }
}

fn images(images: &[proto::Image]) -> Vec<ContainerImage> {
    let listed = images.iter().take(IMAGES_MAX).map(|image| ContainerImage {
        names: Some(image.repo_digests.iter().chain(&image.repo_tags).take(IMAGE_NAMES_MAX).cloned().collect()),
        size_bytes: i64::try_from(image.size).ok(),
    });
    listed.collect()
}

/// The runtime's handlers, by name, with what they can do.
pub(super) fn runtime_handlers(handlers: &[proto::RuntimeHandler]) -> Vec<NodeRuntimeHandler> {
    let handler = |handler: &proto::RuntimeHandler| NodeRuntimeHandler {
        name: Some(handler.name.clone()),
        features: handler.features.as_ref().map(|features| NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(features.recursive_read_only_mounts),
            user_namespaces: Some(features.user_namespaces),
        }),
    };
    let mut handlers: Vec<_> = handlers.iter().map(handler).collect();
    handlers.sort_by(|a, b| a.name.cmp(&b.name));
    handlers
}

/// What the runtime's own conditions say against running pods.
pub(super) fn runtime_problems(status: &proto::RuntimeStatus) -> Vec<String> {
    let runtime = problem(status, "RuntimeReady", "container runtime not ready");
    runtime.into_iter().chain(network_problem(status)).collect()
}

/// What keeps pods from having a network, in the runtime's words.
pub(super) fn network_problem(status: &proto::RuntimeStatus) -> Option<String> {
    problem(status, "NetworkReady", "container runtime network not ready")
}

fn problem(status: &proto::RuntimeStatus, type_: &str, what: &str) -> Option<String> {
    match status.conditions.iter().find(|condition| condition.r#type == type_) {
        Some(condition) if condition.status => None,
        Some(condition) => {
            let (reason, message) = (&condition.reason, &condition.message);
            Some(format!("{what}: {type_}=false reason:{reason} message:{message}"))
        }
        None => Some(format!("{what}: {type_} condition not set")),
    }
}

fn conditions(view: &View<'_>) -> Vec<NodeCondition> {
    let fine = [
        ("MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ];
    let mut conditions: Vec<NodeCondition> =
        fine.iter().map(|(type_, reason, message)| condition(view, type_, "False", reason, message)).collect();
    conditions.push(if view.problems.is_empty() {
        condition(view, "Ready", "True", "KubeletReady", "kubelet is posting ready status")
    } else {
        condition(view, "Ready", "False", "KubeletNotReady", &view.problems.join(","))
    });
    conditions
}

fn condition(view: &View<'_>, type_: &str, truth: &str, reason: &str, message: &str) -> NodeCondition {
    let before = find(view.old, type_).filter(|before| before.status == truth);
    NodeCondition {
        type_: type_.to_owned(),
        status: truth.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_heartbeat_time: Some(Time(view.now)),
        last_transition_time: before.and_then(|b| b.last_transition_time.clone()).or(Some(Time(view.now))),
    }
}

fn find<'a>(status: &'a NodeStatus, type_: &str) -> Option<&'a NodeCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == type_)
}

/// The part of the status this kubelet owns, as a patch of it.
pub(super) fn owned(status: &NodeStatus) -> Value {
    serde_json::to_value(status).unwrap_or_default()
}

/// Whether two statuses differ in more than their heartbeats.
pub(super) fn differs(old: &NodeStatus, new: &NodeStatus) -> bool {
    new.conditions.iter().flatten().any(|condition| {
        find(old, &condition.type_).is_none_or(|before| {
            (&before.status, &before.reason, &before.message)
                != (&condition.status, &condition.reason, &condition.message)
        })
    }) || old.addresses != new.addresses
        || old.capacity != new.capacity
        || old.allocatable != new.allocatable
        // A node without images is stored without the list.
        || old.images.as_deref().unwrap_or_default() != new.images.as_deref().unwrap_or_default()
        || old.node_info != new.node_info
        || old.declared_features != new.declared_features
        || old.runtime_handlers != new.runtime_handlers
        || old.daemon_endpoints != new.daemon_endpoints
}

/// The reasons of the events that say which conditions changed.
pub(super) fn transitions(old: &NodeStatus, new: &NodeStatus) -> Vec<&'static str> {
    let changed = new
        .conditions
        .iter()
        .flatten()
        .filter(|condition| find(old, &condition.type_).is_none_or(|before| before.status != condition.status));
    let reason = |condition: &NodeCondition| match (condition.type_.as_str(), condition.status.as_str()) {
        ("Ready", "True") => "NodeReady",
        ("Ready", _) => "NodeNotReady",
        ("MemoryPressure", _) => "NodeHasSufficientMemory",
        ("DiskPressure", _) => "NodeHasNoDiskPressure",
        _ => "NodeHasSufficientPID",
    };
    changed.map(reason).collect()
}
