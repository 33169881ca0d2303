//! NodeDeclaredFeatureValidator: a bound pod is not changed in a way that its node does not say it can follow
//! (`plugin/pkg/admission/nodedeclaredfeatures/admission.go`; `component-helpers/nodedeclaredfeatures/features`).
//!
//! Of the features that Kubernetes knows, two are about fields that can change: the others are about fields that cannot,
//! or that have to be switched on first.

use std::sync::Arc;

use async_trait::async_trait;
use minik8s_api::{kinds::GroupResource, status::Status};
use serde_json::Value;

use super::pod_resize::node_of;
use super::pod_resources::quantities;
use super::{Attributes, Operation, Plugin, items};
use crate::cache::Objects;

/// A feature, and whether an update of a pod needs it.
type Feature = (&'static str, fn(&Value, &Value) -> bool);

const FEATURES: [Feature; 2] = [
    ("InPlacePodLevelResourcesVerticalScaling", |old, new| !same(&old["spec"]["resources"], &new["spec"]["resources"])),
    ("InPlacePodVerticalScalingInitContainers", |old, new| {
        let pairs = items(&old["spec"]["initContainers"]).zip(items(&new["spec"]["initContainers"]));
        let mut plain = pairs.filter(|(old, _)| old["restartPolicy"] != "Always");
        plain.any(|(old, new)| !same(&old["resources"], &new["resources"]))
    }),
];

fn same(old: &Value, new: &Value) -> bool {
    ["requests", "limits"].into_iter().all(|list| quantities(&old[list]) == quantities(&new[list]))
}

/// See the module.
pub struct NodeDeclaredFeatureValidator {
    objects: Arc<dyn Objects>,
    nodes: GroupResource,
}

impl NodeDeclaredFeatureValidator {
    /// Nodes are read from `objects`.
    pub fn new(objects: Arc<dyn Objects>) -> NodeDeclaredFeatureValidator {
        NodeDeclaredFeatureValidator { objects, nodes: GroupResource::new("", "nodes") }
    }
}

#[async_trait]
impl Plugin for NodeDeclaredFeatureValidator {
    fn name(&self) -> &'static str {
        "NodeDeclaredFeatureValidator"
    }

    fn handles(&self, write: &Attributes<'_>) -> bool {
        write.operation == Operation::Update && (write.is("", "pods") || write.is_sub("", "pods", "resize"))
    }

    async fn validate(&self, write: &Attributes<'_>) -> Result<(), Status> {
        let (Some(pod), Some(old)) = (&write.object, write.old_object) else {
            return Ok(());
        };
        let name = node_of(pod, old);
        let mut needed = FEATURES.iter().filter(|(_, is_needed)| is_needed(old, pod)).map(|(name, _)| *name).peekable();
        if name.is_empty() || needed.peek().is_none() {
            return Ok(());
        }
        let Some(node) = self.objects.get(&self.nodes, "", name) else {
            return Err(write.forbidden(format!("node {name:?} not found")));
        };
        let node = node.value();
        let declared = |feature: &&str| items(&node["status"]["declaredFeatures"]).any(|own| own == feature);
        let missing: Vec<&str> = needed.filter(|feature| !declared(feature)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(write.forbidden(format!(
            "pod update requires features {} which are not available on node {name:?}",
            missing.join(", ")
        )))
    }
}
