//! RuntimeClass: a pod gets the overhead and the node selection of the runtime it asks for
//! (`plugin/pkg/admission/runtimeclass/admission.go`).

use std::sync::Arc;

use async_trait::async_trait;
use minik8s_api::{kinds::GroupResource, status::Status};
use serde_json::Value;

use super::pod_resources::quantities;
use super::{Attributes, Operation, Plugin, items, push};
use crate::cache::Objects;

/// See the module.
pub struct RuntimeClass {
    objects: Arc<dyn Objects>,
    classes: GroupResource,
}

impl RuntimeClass {
    /// Classes are read from `objects`.
    pub fn new(objects: Arc<dyn Objects>) -> RuntimeClass {
        RuntimeClass { objects, classes: GroupResource::new("node.k8s.io", "runtimeclasses") }
    }

    /// The class a pod names, if it names one.
    fn class(&self, write: &Attributes<'_>, pod: &Value) -> Result<Option<Value>, Status> {
        let Some(name) = pod["spec"]["runtimeClassName"].as_str() else {
            return Ok(None);
        };
        let found = self.objects.get(&self.classes, "", name);
        found
            .map(|class| Some(class.value()))
            .ok_or_else(|| write.forbidden(format!("pod rejected: RuntimeClass {name:?} not found")))
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_none_or(serde_json::Map::is_empty)
}

/// Whether two lists of amounts say the same, in whatever notation (`1` is `1000m`).
fn same_resources(one: &Value, other: &Value) -> bool {
    quantities(one) == quantities(other)
}

fn set_scheduling(write: &Attributes<'_>, pod: &mut Value, class: &Value) -> Result<(), Status> {
    let scheduling = &class["scheduling"];
    for (key, value) in scheduling["nodeSelector"].as_object().into_iter().flatten() {
        let own = &mut pod["spec"]["nodeSelector"][key];
        if !own.is_null() && own != value {
            return Err(write.forbidden(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                value.as_str().unwrap_or_default(),
                own.as_str().unwrap_or_default()
            )));
        }
        *own = value.clone();
    }
    for toleration in items(&scheduling["tolerations"]) {
        if items(&pod["spec"]["tolerations"]).all(|own| own != toleration) {
            push(&mut pod["spec"]["tolerations"], toleration.clone());
        }
    }
    Ok(())
}

#[async_trait]
impl Plugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn handles(&self, write: &Attributes<'_>) -> bool {
        write.operation == Operation::Create && write.is("", "pods")
    }

    async fn admit(&self, write: &mut Attributes<'_>) -> Result<(), Status> {
        let Some(mut pod) = write.object.take() else {
            return Ok(());
        };
        if let Some(class) = self.class(write, &pod)? {
            let fixed = &class["overhead"]["podFixed"];
            if !is_empty(fixed) {
                if !is_empty(&pod["spec"]["overhead"]) && !same_resources(&pod["spec"]["overhead"], fixed) {
                    return Err(
                        write.forbidden("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
                    );
                }
                pod["spec"]["overhead"] = fixed.clone();
            }
            set_scheduling(write, &mut pod, &class)?;
        }
        write.object = Some(pod);
        Ok(())
    }

    async fn validate(&self, write: &Attributes<'_>) -> Result<(), Status> {
        let Some(pod) = &write.object else {
            return Ok(());
        };
        let overhead = &pod["spec"]["overhead"];
        let class = self.class(write, pod)?.filter(|class| !class["overhead"].is_null());
        match class {
            Some(class) if same_resources(&class["overhead"]["podFixed"], overhead) => Ok(()),
            Some(_) => {
                Err(write.forbidden("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"))
            }
            None if is_empty(overhead) => Ok(()),
            None => {
                Err(write
                    .forbidden("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"))
            }
        }
    }
}
