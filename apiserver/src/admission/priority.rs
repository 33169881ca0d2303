//! Priority: the number behind a pod's priority class, and at most one class that is the default
//! (`plugin/pkg/admission/priority/admission.go`).

use std::sync::Arc;

use async_trait::async_trait;
use minik8s_api::{kinds::GroupResource, status::Status};
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::cache::{Object, Objects};

const PREEMPT: &str = "PreemptLowerPriority";

/// See the module.
pub struct Priority {
    objects: Arc<dyn Objects>,
    classes: GroupResource,
}

impl Priority {
    /// Classes are read from `objects`.
    pub fn new(objects: Arc<dyn Objects>) -> Priority {
        Priority { objects, classes: GroupResource::new("scheduling.k8s.io", "priorityclasses") }
    }

    /// The default class; of several (which a race can leave behind) the one with the lowest value.
    fn default_class(&self) -> Option<Arc<Object>> {
        let marked = self.objects.list(&self.classes, None).into_iter();
        let marked = marked.filter(|class| class.parsed()["globalDefault"] == true);
        marked.min_by_key(|class| class.parsed()["value"].as_i64())
    }

    /// Name, value and preemption policy of what a new pod asks for.
    fn wanted(&self, write: &Attributes<'_>, pod: &Value) -> Result<(String, i64, Option<String>), Status> {
        let name = pod["spec"]["priorityClassName"].as_str().unwrap_or_default();
        let class = if name.is_empty() {
            match self.default_class() {
                None => return Ok((String::new(), 0, Some(PREEMPT.to_owned()))),
                Some(class) => class,
            }
        } else {
            let found = self.objects.get(&self.classes, "", name);
            found.ok_or_else(|| write.forbidden(format!("no PriorityClass with name {name} was found")))?
        };
        let class = class.parsed();
        let text = |path: &str| class.pointer(path).and_then(Value::as_str).map(str::to_owned);
        Ok((
            text("/metadata/name").unwrap_or_default(),
            class["value"].as_i64().unwrap_or_default(),
            text("/preemptionPolicy"),
        ))
    }

    fn admit_new(&self, write: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
        let (name, value, policy) = self.wanted(write, pod)?;
        let spec = &mut pod["spec"];
        if let Some(own) = spec["priority"].as_i64().filter(|own| *own != value) {
            return Err(write.forbidden(format!(
                "the integer value of priority ({own}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
            )));
        }
        spec["priority"] = json!(value);
        if !name.is_empty() {
            spec["priorityClassName"] = json!(name);
        }
        if let Some(policy) = policy {
            if let Some(own) = spec["preemptionPolicy"].as_str().filter(|own| *own != policy) {
                return Err(write.forbidden(format!(
                    "the string value of PreemptionPolicy ({own}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
                )));
            }
            spec["preemptionPolicy"] = json!(policy);
        }
        Ok(())
    }
}

/// What was computed when the pod was created stays, also for a client that does not know the fields.
fn keep_computed(pod: &mut Value, old: &Value) {
    for field in ["priority", "preemptionPolicy"] {
        if pod["spec"].get(field).is_none_or(Value::is_null)
            && let Some(value) = old["spec"].get(field)
        {
            pod["spec"][field] = value.clone();
        }
    }
}

#[async_trait]
impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn handles(&self, write: &Attributes<'_>) -> bool {
        matches!(write.operation, Operation::Create | Operation::Update)
            && (write.is("", "pods") || write.is("scheduling.k8s.io", "priorityclasses"))
    }

    async fn admit(&self, write: &mut Attributes<'_>) -> Result<(), Status> {
        if write.resource != "pods" {
            return Ok(());
        }
        let Some(mut pod) = write.object.take() else {
            return Ok(());
        };
        match write.old_object {
            Some(old) => keep_computed(&mut pod, old),
            None => self.admit_new(write, &mut pod)?,
        }
        write.object = Some(pod);
        Ok(())
    }

    async fn validate(&self, write: &Attributes<'_>) -> Result<(), Status> {
        let Some(class) = &write.object else {
            return Ok(());
        };
        if write.resource != "priorityclasses" || class["globalDefault"] != true {
            return Ok(());
        }
        match self.default_class().map(|default| default.name().to_owned()) {
            Some(default) if class["metadata"]["name"] != default.as_str() => Err(write.forbidden(format!(
                "PriorityClass {default} is already marked as default. Only one default can exist"
            ))),
            _ => Ok(()),
        }
    }
}
