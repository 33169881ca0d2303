//! PodTopologyLabels: a pod says in which zone and region its node is, so that what runs in it can be told
//! (`plugin/pkg/admission/podtopologylabels`).

use std::sync::Arc;

use async_trait::async_trait;
use minik8s_api::{kinds::GroupResource, status::Status};
use serde_json::json;

use super::{Attributes, Operation, Plugin};
use crate::cache::Objects;

/// The labels that a pod takes over from its node.
const LABELS: [&str; 2] = ["topology.kubernetes.io/region", "topology.kubernetes.io/zone"];

/// See the module.
pub struct PodTopologyLabels {
    objects: Arc<dyn Objects>,
}

impl PodTopologyLabels {
    /// Nodes are read from `objects`.
    pub fn new(objects: Arc<dyn Objects>) -> PodTopologyLabels {
        PodTopologyLabels { objects }
    }
}

#[async_trait]
impl Plugin for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    fn handles(&self, write: &Attributes<'_>) -> bool {
        write.operation == Operation::Create && (write.is("", "pods") || write.is_sub("", "pods", "binding"))
    }

    /// The labels of a binding become the pod's.
    async fn admit(&self, write: &mut Attributes<'_>) -> Result<(), Status> {
        let Some(object) = &mut write.object else { return Ok(()) };
        let node = match write.subresource {
            "binding" if object["target"]["kind"] == "Node" => &object["target"]["name"],
            "binding" => return Ok(()),
            _ => &object["spec"]["nodeName"],
        };
        let node = node.as_str().filter(|node| !node.is_empty());
        let node = node.and_then(|node| self.objects.get(&GroupResource::new("", "nodes"), "", node));
        let Some(node) = node else { return Ok(()) };
        for label in LABELS {
            if let Some(value) = node.meta().labels.get(label) {
                object["metadata"]["labels"][label] = json!(value);
            }
        }
        Ok(())
    }
}
