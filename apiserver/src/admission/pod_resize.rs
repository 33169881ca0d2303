//! PodResizeValidator: a pod is not resized to more than its node has at all
//! (`plugin/pkg/admission/podresize/admission.go`).

use std::sync::Arc;

use async_trait::async_trait;
use minik8s_api::{kinds::GroupResource, quantity::Quantity, status::Status};
use serde_json::Value;

use super::pod_resources::{Resources, pod_total, quantities};
use super::{Attributes, Operation, Plugin};
use crate::cache::Objects;

/// See the module.
pub struct PodResizeValidator {
    objects: Arc<dyn Objects>,
    nodes: GroupResource,
}

impl PodResizeValidator {
    /// Nodes are read from `objects`.
    pub fn new(objects: Arc<dyn Objects>) -> PodResizeValidator {
        PodResizeValidator { objects, nodes: GroupResource::new("", "nodes") }
    }
}

/// The node of a pod whose spec an update changes; empty if there is none.
pub(super) fn node_of<'v>(pod: &'v Value, old: &Value) -> &'v str {
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    // Only a spec that has changed gets another generation.
    if pod["metadata"]["generation"] == old["metadata"]["generation"] { "" } else { node }
}

#[async_trait]
impl Plugin for PodResizeValidator {
    fn name(&self) -> &'static str {
        "PodResizeValidator"
    }

    fn handles(&self, write: &Attributes<'_>) -> bool {
        write.operation == Operation::Update && write.is_sub("", "pods", "resize")
    }

    async fn validate(&self, write: &Attributes<'_>) -> Result<(), Status> {
        let (Some(pod), Some(old)) = (&write.object, write.old_object) else {
            return Ok(());
        };
        let name = node_of(pod, old);
        if name.is_empty() {
            return Ok(());
        }
        let Some(node) = self.objects.get(&self.nodes, "", name) else {
            return Err(write.forbidden(format!("node {name:?} not found")));
        };
        let node = node.value();
        let system = node["metadata"]["labels"]["kubernetes.io/os"].as_str().unwrap_or("linux");
        if system != "linux" {
            let why = format!("pod resize is only supported on linux nodes, node {name:?} is {system:?}");
            return Err(write.forbidden(why).with_cause("UnsupportedPlatform", "", ""));
        }
        match excess(&pod_total(pod, "requests", true), &quantities(&node["status"]["allocatable"])) {
            Some(why) => Err(write.forbidden(why).with_cause("NodeCapacity", "", "")),
            None => Ok(()),
        }
    }
}

/// What of the requests is more than can be allocated, if any is.
fn excess(requests: &Resources, allocatable: &Resources) -> Option<String> {
    let mut found = Vec::new();
    for (name, count) in
        [("cpu", Quantity::milli_value as fn(&Quantity) -> i64), ("memory", Quantity::value as fn(&Quantity) -> i64)]
    {
        let of = |list: &Resources| list.get(name).copied().unwrap_or_default();
        let (wanted, all) = (of(requests), of(allocatable));
        if wanted > all {
            found.push(format!("{name}, requested: {}, allocatable: {}", count(&wanted), count(&all)));
        }
    }
    (!found.is_empty()).then(|| format!("node didn't have enough allocatable resources: {}", found.join("; ")))
}
