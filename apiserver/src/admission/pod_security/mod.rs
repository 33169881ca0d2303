//! PodSecurity: the namespace's labels say how careful its pods have to be
//! (`k8s.io/pod-security-admission/admission`).
//!
//! | label `pod-security.kubernetes.io/…` | a pod that violates the level |
//! |---|---|
//! | `enforce` | is refused |
//! | `warn` | is stored, its author warned (so is the author of a Deployment, Job, … with such pods) |
//! | `audit` | is stored, and its violations are an annotation in the audit log |
//!
//! A label `…-version` pins a level to the checks of an earlier Kubernetes. Without a label `warn`, authors are warned of what
//! `enforce` would refuse: that is how the author of a Deployment learns why it has no pods.

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
use level::{Level, Minor, Violation};

const PREFIX: &str = "pod-security.kubernetes.io/";
/// The version of a level that is pinned to none.
const LATEST: &str = "latest";
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
    /// What a namespace's labels say for a mode; no label means no restriction. A label that is no level cannot be set any more;
    /// one that was counts as `otherwise`.
    fn of(labels: &BTreeMap<String, String>, mode: &str, otherwise: Level) -> Policy {
        let level = labels.get(&format!("{PREFIX}{mode}")).map(|level| Level::parse(level).unwrap_or(otherwise));
        let version = labels.get(&format!("{PREFIX}{mode}-version")).filter(|version| minor(version).is_some());
        let version = version.cloned().unwrap_or_else(|| LATEST.to_owned());
        Policy { level: level.unwrap_or(Level::Privileged), version }
    }

    fn enforced(labels: &BTreeMap<String, String>) -> Policy {
        Policy::of(labels, "enforce", Level::Restricted)
    }

    fn audited(labels: &BTreeMap<String, String>) -> Policy {
        Policy::of(labels, "audit", Level::Privileged)
    }

    fn warned_of(labels: &BTreeMap<String, String>) -> Policy {
        let warn = Policy::of(labels, "warn", Level::Privileged);
        let is_set = |mode: &str| labels.contains_key(&format!("{PREFIX}{mode}"));
        let enforced = labels.get(&format!("{PREFIX}enforce")).and_then(|level| Level::parse(level));
        match enforced.filter(|level| !is_set("warn") && *level > warn.level) {
            Some(level) if is_set("warn-version") => Policy { level, ..warn },
            Some(_) => Policy::enforced(labels),
            None => warn,
        }
    }

    fn check(&self, pod: &Value) -> Vec<Violation> {
        self.level.check(minor(&self.version).unwrap_or(Minor::MAX), pod)
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
        let enforce = Policy::enforced(&labels);
        write.audit.annotate(format!("{PREFIX}enforce-policy"), enforce.to_string());
        let violations = enforce.check(pod);
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
        if !errors.is_empty() && old.as_ref().is_none_or(|old| label_errors(old) != errors) {
            return Err(Status::invalid(&GroupKind::new("", "Namespace"), write.error_name(), errors));
        }
        let Some(old) = old else { return Ok(()) };
        let (before, after) = (Policy::enforced(&old), Policy::enforced(&labels));
        let relaxed = after.level <= before.level && before.version == after.version;
        if before == after || after.level == Level::Privileged || relaxed {
            return Ok(());
        }
        let pods = self.objects.list(&GroupResource::new("", "pods"), Some(write.name));
        if pods.len() > MAX_PODS_CHECKED {
            write.warn(format!(
                "new PodSecurity enforce level only checked against the first {MAX_PODS_CHECKED} of {} existing pods",
                pods.len()
            ));
        }
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pod in pods.iter().take(MAX_PODS_CHECKED) {
            let violations = after.check(&pod.value());
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
    let audit = Policy::audited(labels);
    let violations = audit.check(pod);
    if !violations.is_empty() {
        let words = format!("would violate PodSecurity {:?}: {}", audit.to_string(), details(&violations));
        write.audit.annotate(format!("{PREFIX}audit-violations"), words);
    }
}

fn warn_of(write: &Attributes<'_>, labels: &BTreeMap<String, String>, pod: &Value) {
    let warn = Policy::warned_of(labels);
    let violations = warn.check(pod);
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
        if let Some(value) = labels.get(&version).filter(|value| minor(value).is_none()) {
            errors.push(FieldError::invalid(&path.key(version), value.as_str(), r#"must be "latest" or "v1.x""#));
        }
    }
    errors
}

/// The version that a label's value means: `latest`, `v1.30`.
fn minor(version: &str) -> Option<Minor> {
    if version == LATEST {
        return Some(Minor::MAX);
    }
    let minor = version.strip_prefix("v1.").filter(|minor| minor.bytes().all(|byte| byte.is_ascii_digit()))?;
    let is_short = minor == "0" || !minor.starts_with('0');
    // What is of no number that there is, is newer than all.
    (!minor.is_empty() && is_short).then(|| minor.parse().unwrap_or(Minor::MAX))
}

/// Whether an update runs another image than before, in a container that is there or a new one: all else of a pod that can be
/// changed, and what it does already, is no reason to refuse it.
fn runs_other(old: &Value, new: &Value) -> bool {
    fn list<'p>(pod: &'p Value, name: &str) -> Vec<&'p Value> {
        super::items(&pod["spec"][name]).collect()
    }
    let replaced = ["containers", "initContainers"].iter().any(|name| {
        let (old, new) = (list(old, name), list(new, name));
        old.len() != new.len() || old.iter().zip(&new).any(|(old, new)| old["image"] != new["image"])
    });
    let before = list(old, "ephemeralContainers");
    replaced
        || list(new, "ephemeralContainers").iter().any(|container| {
            let old = before.iter().find(|old| old["name"] == container["name"]);
            old.is_none_or(|old| old["image"] != container["image"])
        })
}

#[async_trait]
impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn handles(&self, write: &Attributes<'_>) -> bool {
        let pods = write.group.is_empty()
            && write.resource == "pods"
            && matches!(write.subresource, "" | "ephemeralcontainers" | "resize");
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
                let same = write.old_object.is_some_and(|old| !runs_other(old, object));
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
