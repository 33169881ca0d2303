//! ReplicationControllers and PodTemplates.
use serde_json::Value;

use crate::strategy::built_in::Behavior;
use crate::strategy::field::{Errors, Field};
use crate::strategy::{ScalePaths, Subresource, apps, edit, pod};

/// `v1` ReplicationController, the ancestor of the ReplicaSet.
pub struct ReplicationController;

impl Behavior for ReplicationController {
    fn set_defaults(&self, object: &mut Value) {
        let spec = edit::child(object, "spec");
        edit::default(spec, "replicas", 1);
        let mut labels = None;
        if let Some(template) = edit::member(spec, "template") {
            pod::set_pod_template_defaults(template);
            labels = template["metadata"].get("labels").filter(|labels| labels.is_object()).cloned();
        }
        if let Some(labels) = labels {
            edit::default(spec, "selector", labels.clone());
            edit::default(edit::child(object, "metadata"), "labels", labels);
        }
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let spec = object.get("spec");
        spec.get("minReadySeconds").non_negative(errors);
        let selector = spec.get("selector");
        if selector.is_empty() {
            errors.push(selector.required(""));
        }
        spec.get("replicas").non_negative(errors);
        let template = spec.get("template");
        if !template.is_set() {
            errors.push(template.required(""));
            return;
        }
        let labels = template.get("metadata").get("labels");
        if selector.entries().any(|(key, value)| labels.key(key).value() != value.value()) {
            errors.push(labels.invalid_as(labels.value().clone(), "`selector` does not match template `labels`"));
        }
        pod::validate_pod_template(&template, errors);
        let policy = template.get("spec").get("restartPolicy");
        if policy.str() != "Always" {
            errors.push(policy.not_supported(&["Always"]));
        }
        let deadline = template.get("spec").get("activeDeadlineSeconds");
        if deadline.is_set() {
            errors.push(deadline.forbidden("activeDeadlineSeconds in ReplicationController is not Supported"));
        }
    }

    fn validate_update(&self, subresource: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        match subresource {
            Subresource::Status => apps::validate_counts(&apps::REPLICA_SET, new, old, errors),
            _ => self.validate(new, errors),
        }
    }

    fn warnings(&self, object: &Field<'_>, old: Option<&Value>, warnings: &mut Vec<String>) {
        if old.is_none_or(|old| old.pointer("/spec/template") != object.value().pointer("/spec/template")) {
            pod::template_warnings(&object.get("spec").get("template"), warnings);
        }
    }

    fn selectable(&self) -> &'static [(&'static str, &'static str)] {
        &[("status.replicas", "/status/replicas")]
    }

    fn scale_paths(&self) -> Option<ScalePaths> {
        Some(ScalePaths::WORKLOAD)
    }

    fn pod_template_paths(&self) -> &'static [&'static str] {
        &["/spec/template"]
    }
}

/// `v1` PodTemplate.
pub struct PodTemplate;

impl Behavior for PodTemplate {
    fn set_defaults(&self, object: &mut Value) {
        pod::set_pod_template_defaults(edit::child(object, "template"));
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        pod::validate_pod_template(&object.get("template"), errors);
    }

    fn warnings(&self, object: &Field<'_>, old: Option<&Value>, warnings: &mut Vec<String>) {
        if old.is_none_or(|old| old.get("template") != object.value().get("template")) {
            pod::template_warnings(&object.get("template"), warnings);
        }
    }

    fn pod_template_paths(&self) -> &'static [&'static str] {
        &["/template"]
    }
}
