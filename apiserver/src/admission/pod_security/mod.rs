//! PodSecurity: the namespace's labels say how careful its pods have to be
//! (`k8s.io/pod-security-admission/admission`).
//!
//! | label `pod-security.kubernetes.io/…` | a pod that violates the level |
//! |---|---|
//! | `enforce` | is refused |
//! | `warn` | is stored, its author warned (so is the author of a Deployment, Job, … with such pods) |
//! | `audit` | is stored, and its violations are an annotation in the audit log |
//!
//! `baseline` and `restricted` hold the checks of these levels as they are now; a pinned `…-version` is shown, not honoured.

mod baseline;
mod level;
mod restricted;

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use minik8s_api::{
    kinds::{GroupKind, GroupResource},
    status::{FieldError, FieldPath, Status},
};
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::cache::Objects;
use level::{Level, Violation};

const PREFIX: &str = "pod-security.kubernetes.io/";
/// Pods of a namespace that are looked at when its level changes (`defaultNamespaceMaxPodsToCheck`).
const MAX_PODS_CHECKED: usize = 3000;

/// See the module.
pub struct PodSecurity {
    objects: Arc<dyn Objects>,
}

/// A level, and the version it is pinned to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Policy {
    level: Level,
    version: String,
}

impl Policy {
    /// What a namespace's labels say for a mode (`enforce`, `warn`, `audit`); no label means no restriction.
    fn of(labels: &BTreeMap<String, String>, mode: &str) -> Policy {
        let level = labels.get(&format!("{PREFIX}{mode}")).map_or(Some(Level::Privileged), |level| Level::parse(level));
        let version = labels.get(&format!("{PREFIX}{mode}-version")).cloned().unwrap_or_else(|| "latest".to_owned());
        // A label that is no level cannot be set any more; one that was is taken for the strictest.
        Policy { level: level.unwrap_or(Level::Restricted), version }
    }
}

impl std::fmt::Display for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.level.as_str(), self.version)
    }
}

fn labels_of(object: &Value) -> BTreeMap<String, String> {
    let labels = object["metadata"]["labels"].as_object().into_iter().flatten();
    labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// `privileged (container "c" must not …), runAsNonRoot != true (…)`.
fn details(violations: &[Violation]) -> String {
    violations
        .iter()
        .map(|violation| format!("{} ({})", violation.reason, violation.detail))
        .collect::<Vec<_>>()
        .join(", ")
}

fn reasons(violations: &[Violation]) -> String {
    violations.iter().map(|violation| violation.reason.as_str()).collect::<Vec<_>>().join(", ")
}

/// Where a workload keeps its pods' specification.
fn template_path(group: &str, resource: &str) -> Option<&'static str> {
    match (group, resource) {
        ("", "replicationcontrollers")
        | ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets")
        | ("batch", "jobs") => Some("/spec/template"),
        ("", "podtemplates") => Some("/template"),
        ("batch", "cronjobs") => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

impl PodSecurity {
    /// Namespaces and their pods are read from `objects`.
    pub fn new(objects: Arc<dyn Objects>) -> PodSecurity {
        PodSecurity { objects }
    }

    fn namespace_labels(&self, namespace: &str) -> BTreeMap<String, String> {
        let found = self.objects.get(&GroupResource::new("", "namespaces"), "", namespace);
        found.map(|namespace| namespace.meta().labels.clone()).unwrap_or_default()
    }

    fn check_pod(&self, write: &Attributes<'_>, pod: &Value) -> Result<(), Status> {
        let labels = self.namespace_labels(write.namespace);
        let enforce = Policy::of(&labels, "enforce");
        write.audit.annotate(format!("{PREFIX}enforce-policy"), enforce.to_string());
        let violations = enforce.level.check(pod);
        audit_of(write, &labels, pod);
        if !violations.is_empty() {
            return Err(write.forbidden(format!(
                "violates PodSecurity {:?}: {}",
                enforce.to_string(),
                details(&violations)
            )));
        }
        warn_of(write, &labels, pod);
        Ok(())
    }

    /// A namespace whose level gets stricter warns of the pods that are there already.
    fn check_namespace(&self, write: &Attributes<'_>, namespace: &Value) -> Result<(), Status> {
        let labels = labels_of(namespace);
        let errors = label_errors(&labels);
        let old = write.old_object.map(labels_of);
        if !errors.is_empty() && old.as_ref().is_none_or(|old| label_errors(old).is_empty()) {
            return Err(Status::invalid(&GroupKind::new("", "Namespace"), write.error_name(), errors));
        }
        let Some(old) = old else { return Ok(()) };
        let (before, after) = (Policy::of(&old, "enforce"), Policy::of(&labels, "enforce"));
        if before == after || after.level <= before.level && before.version == after.version {
            return Ok(());
        }
        let pods = self.objects.list(&GroupResource::new("", "pods"), Some(write.name));
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pod in pods.iter().take(MAX_PODS_CHECKED) {
            let violations = after.level.check(&pod.value());
            if !violations.is_empty() {
                found.entry(reasons(&violations)).or_default().push(pod.name().to_owned());
            }
        }
        if found.is_empty() {
            return Ok(());
        }
        let name = write.name;
        write.warn(format!(
            "existing pods in namespace {name:?} violate the new PodSecurity enforce level {:?}",
            after.to_string()
        ));
        let mut lines: Vec<String> = found
            .into_iter()
            .map(|(reasons, names)| match names.len() - 1 {
                0 => format!("{}: {reasons}", names[0]),
                1 => format!("{} (and 1 other pod): {reasons}", names[0]),
                more => format!("{} (and {more} other pods): {reasons}", names[0]),
            })
            .collect();
        lines.sort();
        lines.into_iter().for_each(|line| write.warn(line));
        Ok(())
    }
}

fn audit_of(write: &Attributes<'_>, labels: &BTreeMap<String, String>, pod: &Value) {
    let audit = Policy::of(labels, "audit");
    let violations = audit.level.check(pod);
    if !violations.is_empty() {
        let words = format!("would violate PodSecurity {:?}: {}", audit.to_string(), details(&violations));
        write.audit.annotate(format!("{PREFIX}audit-violations"), words);
    }
}

fn warn_of(write: &Attributes<'_>, labels: &BTreeMap<String, String>, pod: &Value) {
    let warn = Policy::of(labels, "warn");
    let violations = warn.level.check(pod);
    if !violations.is_empty() {
        write.warn(format!("would violate PodSecurity {:?}: {}", warn.to_string(), details(&violations)));
    }
}

fn label_errors(labels: &BTreeMap<String, String>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = FieldPath::new("metadata").child("labels");
    for mode in ["enforce", "audit", "warn"] {
        let (level, version) = (format!("{PREFIX}{mode}"), format!("{PREFIX}{mode}-version"));
        if let Some(value) = labels.get(&level).filter(|value| Level::parse(value).is_none()) {
            errors.push(FieldError::invalid(
                &path.key(level),
                value.as_str(),
                "must be one of privileged, baseline, restricted",
            ));
        }
        if let Some(value) = labels.get(&version).filter(|value| !is_version(value)) {
            errors.push(FieldError::invalid(&path.key(version), value.as_str(), r#"must be "latest" or "v1.x""#));
        }
    }
    errors
}

fn is_version(value: &str) -> bool {
    let minor = value.strip_prefix("v1.").unwrap_or_default();
    value == "latest"
        || (!minor.is_empty()
            && minor.bytes().all(|byte| byte.is_ascii_digit())
            && (minor == "0" || !minor.starts_with('0')))
}

#[async_trait]
impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn handles(&self, write: &Attributes<'_>) -> bool {
        let pods = write.group.is_empty()
            && write.resource == "pods"
            && matches!(write.subresource, "" | "ephemeralcontainers");
        let whole = write.subresource.is_empty()
            && (write.is("", "namespaces") || template_path(write.group, write.resource).is_some());
        matches!(write.operation, Operation::Create | Operation::Update) && (pods || whole)
    }

    async fn validate(&self, write: &Attributes<'_>) -> Result<(), Status> {
        let Some(object) = &write.object else {
            return Ok(());
        };
        match write.resource {
            "namespaces" => self.check_namespace(write, object),
            "pods" => {
                // A pod that is there already may go on; only what it runs counts.
                let same = write.old_object.is_some_and(|old| old["spec"] == object["spec"]);
                if same { Ok(()) } else { self.check_pod(write, object) }
            }
            _ => {
                if let Some(template) = template_path(write.group, write.resource).and_then(|path| object.pointer(path))
                {
                    let labels = self.namespace_labels(write.namespace);
                    audit_of(write, &labels, template);
                    warn_of(write, &labels, template);
                }
                Ok(())
            }
        }
    }
}
