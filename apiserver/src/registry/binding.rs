//! Binding a pod to a node: the scheduler's write (`pkg/registry/core/pod/storage/storage.go` `BindingREST`).

use minik8s_api::kinds::{GroupKind, GroupResource};
use minik8s_api::meta;
use minik8s_api::status::{FieldError, FieldPath, Status};
use serde_json::{Value, json};

use super::{Context, Registry, Target};
use crate::options::WriteOptions;

impl Registry {
    /// Assigns a pod to the node that a Binding names.
    pub async fn bind(
        &self,
        context: &Context,
        target: &Target,
        binding: &Value,
        options: &WriteOptions,
    ) -> Result<Status, Status> {
        let name = meta::name(binding);
        if name != target.name {
            return Err(Status::bad_request("name in URL does not match name in Binding object"));
        }
        let errors = binding_errors(binding);
        if !errors.is_empty() {
            return Err(Status::invalid(&GroupKind::new("", "Binding"), name, errors));
        }
        let admitted = self.admit_subresource(context, target, binding.clone(), options, |_| Ok(())).await?;
        let conflict = |why: String| Status::conflict(&GroupResource::new("", "pods/binding"), &target.name, why);
        let now = self.now();
        let mut change = |pod: &mut Value| {
            let read = [("UID", meta::uid as fn(&Value) -> &str), ("ResourceVersion", meta::resource_version)];
            for (name, read) in read {
                let (wanted, is) = (read(&admitted), read(pod));
                if !wanted.is_empty() && wanted != is {
                    let why =
                        format!("Precondition failed: {name} in precondition: {wanted}, {name} in object meta: {is}");
                    return Err(target.storage_error(&why));
                }
            }
            if meta::deletion_timestamp(pod).is_some() {
                return Err(conflict(format!("pod {} is being deleted, cannot be assigned to a host", target.name)));
            }
            if let Some(node) = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) {
                return Err(conflict(format!("pod {} is already assigned to node {node:?}", target.name)));
            }
            if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
                return Err(conflict(format!("pod {} has non-empty .spec.schedulingGates", target.name)));
            }
            assign(pod, &admitted, &now);
            Ok(())
        };
        let pod = Target { subresource: String::new(), ..target.clone() };
        self.modify_stored(&pod, options.dry_run, &mut change).await?;
        Ok(Status::success_with_code(201))
    }
}

fn binding_errors(binding: &Value) -> Vec<FieldError> {
    let target = FieldPath::new("target");
    let text = |field: &str| binding["target"][field].as_str().unwrap_or_default();
    let mut errors = Vec::new();
    if !matches!(text("kind"), "" | "Node") {
        errors.push(FieldError::not_supported(&target.child("kind"), text("kind"), &["Node", "<empty>"]));
    }
    if text("name").is_empty() {
        errors.push(FieldError::required(&target.child("name"), ""));
    }
    errors
}

fn assign(pod: &mut Value, binding: &Value, now: &str) {
    pod["spec"]["nodeName"] = binding["target"]["name"].clone();
    for field in ["annotations", "labels"] {
        for (key, value) in binding["metadata"][field].as_object().into_iter().flatten() {
            pod["metadata"][field][key] = value.clone();
        }
    }
    let scheduled =
        json!({ "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now });
    if !pod["status"]["conditions"].is_array() {
        pod["status"]["conditions"] = json!([]);
    }
    let Some(conditions) = pod["status"]["conditions"].as_array_mut() else {
        return;
    };
    match conditions.iter_mut().find(|condition| condition["type"] == "PodScheduled") {
        Some(condition) => {
            let observed = condition.get("observedGeneration").cloned();
            *condition = scheduled;
            if let Some(observed) = observed {
                condition["observedGeneration"] = observed;
            }
        }
        None => conditions.push(scheduled),
    }
}
