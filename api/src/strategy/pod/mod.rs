//! Pods, and the pod templates inside other kinds.
//!
//! `spec.rs` is the entry: it walks the spec in Kubernetes' order and hands its parts to `volumes`, `containers`
//! (→ `probes`, `resources`, `security`) and `scheduling`. `update.rs` says what may change in a pod that exists.
mod containers;
mod defaults;
mod disabled;
mod os;
mod probes;
pub mod resources;
pub mod scheduling;
mod security;
mod spec;
mod update;
pub(in crate::strategy) mod volumes;
mod warnings;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::built_in::Behavior;
use super::field::{Errors, Field};
use super::{Context, Subresource, edit};
use crate::status::{FieldError, FieldPath};

pub use defaults::{
    mirror_service_account, set_network_volume_defaults, set_pod_spec_defaults, set_pod_template_defaults,
};
pub use disabled::drop_disabled_fields;
pub use probes::port_number_or_name;
pub use resources::qos_class;
pub use spec::{
    validate_daemon_template, validate_pod_spec, validate_pod_template, validate_selected_template,
    validate_stateful_template,
};
pub use warnings::{deprecated_volume_warnings, node_selector_warnings, template_warnings};

/// `v1` Pod. Mirrors `pkg/registry/core/pod/strategy.go`.
pub struct Pod;

impl Behavior for Pod {
    fn set_defaults(&self, object: &mut Value) {
        if let Some(status) = edit::member(object, "status") {
            mirror_pod_ip(status);
        }
        defaults::set_pod_defaults(object);
    }

    fn prepare_for_create(&self, context: &Context<'_>, object: &mut Value) {
        defaults::complete_pod_level_resources(edit::child(object, "spec"));
        scheduling::merge_label_keys(object);
        let class = qos_class(object);
        let mut status = json!({"phase": "Pending", "qosClass": class});
        if object["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
            let message = "Scheduling is blocked due to non-empty scheduling gates";
            set_condition(&mut status, "PodScheduled", "False", "SchedulingGated", message, context.now);
        }
        edit::set(object, "status", status);
    }

    fn prepare_for_update(&self, _: &Context<'_>, subresource: Subresource, new: &mut Value, old: &Value) {
        match subresource {
            Subresource::Status => {
                edit::keep(edit::child(new, "metadata"), &old["metadata"], "ownerReferences");
                let status = edit::child(new, "status");
                if edit::text(status, "qosClass").is_empty() {
                    edit::keep(status, &old["status"], "qosClass");
                }
            }
            Subresource::EphemeralContainers => {
                let containers = new["spec"].get("ephemeralContainers").cloned();
                edit::keep(new, old, "spec");
                edit::replace(edit::child(new, "spec"), "ephemeralContainers", containers);
                keep_metadata(new, old);
            }
            Subresource::Resize => {
                keep_all_but_resources(new, old);
                defaults::complete_pod_level_resources(edit::child(new, "spec"));
                keep_metadata(new, old);
            }
            _ => {}
        }
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let spec = object.get("spec");
        let mirror = object.get("metadata").get("annotations").key(MIRROR);
        if mirror.is_set() && spec.get("nodeName").is_empty() {
            errors.push(mirror.invalid("must set spec.nodeName if mirror pod annotation is set"));
        }
        validate_pod_spec(&spec, object.get("metadata").get("name").str(), errors);
        create_only(&spec, errors);
    }

    fn validate_update(&self, subresource: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        match subresource {
            Subresource::Status => validate_status(new, old, errors),
            Subresource::EphemeralContainers => {
                validate_pod_spec(&new.get("spec"), new.get("metadata").get("name").str(), errors);
                update::validate_ephemeral(new, old, errors);
            }
            Subresource::Resize => {
                validate_pod_spec(&new.get("spec"), new.get("metadata").get("name").str(), errors);
                update::validate_resize(new, old, errors);
            }
            _ => {
                validate_pod_spec(&new.get("spec"), new.get("metadata").get("name").str(), errors);
                update::validate(new, old, errors);
            }
        }
    }

    fn warnings(&self, object: &Field<'_>, old: Option<&Value>, warnings: &mut Vec<String>) {
        // An update that only touches metadata or status says nothing new about the spec.
        if old.is_none_or(|old| old.get("spec") != object.value().get("spec")) {
            template_warnings(object, warnings);
        }
    }

    /// `CheckGracefulDelete` of the pod strategy.
    fn graceful_delete(&self, object: &Value, requested: Option<i64>) -> Option<i64> {
        let asked = requested.or_else(|| object["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(0);
        let unscheduled = edit::text(&object["spec"], "nodeName").is_empty();
        let ended = matches!(edit::text(&object["status"], "phase"), "Failed" | "Succeeded");
        Some(match asked {
            _ if unscheduled || ended => 0,
            seconds if seconds < 0 => 1,
            seconds => seconds,
        })
    }

    fn selectable(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("spec.nodeName", "/spec/nodeName"),
            ("spec.restartPolicy", "/spec/restartPolicy"),
            ("spec.schedulerName", "/spec/schedulerName"),
            ("spec.serviceAccountName", "/spec/serviceAccountName"),
            ("spec.hostNetwork", "/spec/hostNetwork"),
            ("status.phase", "/status/phase"),
            ("status.podIP", "/status/podIP"),
            // May be asked for, and is in no pod's fields.
            ("status.podIPs", "/status/podIPs/none"),
            ("status.nominatedNodeName", "/status/nominatedNodeName"),
        ]
    }

    fn pod_template_paths(&self) -> &'static [&'static str] {
        &[""]
    }
}

/// Binds a pod to the node that a `Binding` names: `spec.nodeName`, the binding's annotations and the condition.
/// The registry has checked that the pod is not bound and not being deleted. Mirrors `assignPod` of
/// `pkg/registry/core/pod/storage/storage.go`.
pub fn assign_node(pod: &mut Value, binding: &Value, now: Timestamp) {
    let node = edit::text(&binding["target"], "name").to_owned();
    edit::set(edit::child(pod, "spec"), "nodeName", node);
    for (key, value) in binding["metadata"]["annotations"].as_object().into_iter().flatten() {
        edit::annotate(pod, key, value.as_str().unwrap_or(""));
    }
    let status = edit::child(pod, "status");
    edit::take(status, "nominatedNodeName");
    set_condition(status, "PodScheduled", "True", "", "", now);
}

/// Sets a pod condition; `lastTransitionTime` moves only when the status does.
pub fn set_condition(status: &mut Value, kind: &str, state: &str, reason: &str, message: &str, now: Timestamp) {
    edit::default(status, "conditions", Value::Array(Vec::new()));
    let Some(list) = status["conditions"].as_array_mut() else {
        return;
    };
    let mut condition =
        json!({"type": kind, "status": state, "lastProbeTime": null, "lastTransitionTime": seconds(now)});
    for (name, value) in [("reason", reason), ("message", message)] {
        if !value.is_empty() {
            edit::set(&mut condition, name, value);
        }
    }
    match list.iter_mut().find(|other| edit::text(other, "type") == kind) {
        Some(other) => {
            if edit::text(other, "status") == state {
                edit::keep(&mut condition, other, "lastTransitionTime");
            }
            *other = condition;
        }
        None => list.push(condition),
    }
}

/// A time as metav1.Time prints it: whole seconds, UTC.
pub(super) fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn create_only(spec: &Field<'_>, errors: &mut Errors) {
    let ephemeral = spec.get("ephemeralContainers");
    if !ephemeral.is_empty() {
        errors.push(ephemeral.forbidden("cannot be set on create"));
    }
    let node = spec.get("nodeName");
    if !node.is_empty() && !spec.get("schedulingGates").is_empty() {
        errors.push(node.forbidden("cannot be set until all schedulingGates have been cleared"));
    }
}

/// What the kubelet may not report: a node taken back, a finished container running again.
fn validate_status(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let (status, before) = (new.get("status"), old.get("status"));
    for (index, condition) in status.get("conditions").items().enumerate() {
        let kind = condition.get("type");
        if !matches!(kind.str(), "PodScheduled" | "Ready" | "Initialized") {
            // The path is Go's.
            let place = FieldPath::new("status").child("conditions").index(index).child("Type");
            let words = super::names::qualified_name(kind.str()).into_iter();
            errors.extend(words.map(|words| FieldError::invalid(&place, kind.str(), words)));
        }
    }
    let nominated = status.get("nominatedNodeName");
    if !nominated.is_empty() && nominated.str() != before.get("nominatedNodeName").str() {
        nominated.check(super::names::dns1123_subdomain(nominated.str()), errors);
    }
    status.get("qosClass").immutable(&before.get("qosClass"), errors);
    container_states(new, old, errors);
    addresses(&status, &before, ("podIP", "podIPs"), errors);
    addresses(&status, &before, ("hostIP", "hostIPs"), errors);
}

/// Addresses of a pod or its host: new ones are some, at most one of a family, and the first is the single one.
fn addresses(status: &Field<'_>, before: &Field<'_>, (one, all): (&'static str, &'static str), errors: &mut Errors) {
    let list = status.get(all);
    let first = list.items().next().map(|entry| entry.get("ip"));
    let differs = |first: &Field<'_>| first.invalid(format!("must be equal to `{one}`"));
    let is_first = first.as_ref().is_none_or(|first| first.str() == status.get(one).str());
    if one == "hostIP" && !is_first {
        errors.extend(first.as_ref().map(differs));
    }
    for entry in list.items() {
        let ip = entry.get("ip");
        if !before.get(all).items().any(|known| known.get("ip").str() == ip.str()) {
            let words = super::names::ip(ip.str()).into_iter();
            errors.extend(words.map(|words| entry.invalid_as(ip.str(), words)));
        }
    }
    let is_six = |entry: Field<'_>| entry.get("ip").str().contains(':');
    let is_pair = list.len() == 2 && list.items().filter(|entry| is_six(entry.clone())).count() == 1;
    if list.len() > 1 && !is_pair {
        let shown: Vec<String> = list.items().map(|entry| format!("{{\"IP\":{}}}", entry.get("ip").value())).collect();
        let error = list.invalid("may specify no more than one IP for each IP family");
        errors.push(error.showing(format!("[{}]", shown.join(","))));
    }
    if one == "podIP" && !is_first {
        errors.extend(first.as_ref().map(differs));
    }
}

/// A container that has ended for good does not run again.
fn container_states(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    if old.get("spec").get("restartPolicy").str() == "Always" {
        return;
    }
    for list in ["containerStatuses", "initContainerStatuses"] {
        let (statuses, before) = (new.get("status").get(list), old.get("status").get(list));
        if old.get("spec").get("restartPolicy").str() == "OnFailure" {
            continue;
        }
        for earlier in before.items().filter(|status| status.get("state").get("terminated").is_set()) {
            let name = earlier.get("name").str();
            let restartable = ["containers", "initContainers"].into_iter().any(|list| {
                old.get("spec")
                    .get(list)
                    .items()
                    .any(|c| c.get("name").str() == name && c.get("restartPolicy").is_set())
            });
            let again = statuses.items().find(|status| status.get("name").str() == name);
            let running = again.filter(|status| !restartable && !status.get("state").get("terminated").is_set());
            if let Some(status) = running {
                errors.push(status.get("state").forbidden("may not be transitioned to non-terminated state"));
            }
        }
    }
}

/// The annotation of a pod that mirrors one of a node's own.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// `podIP` is the old name of the first of `podIPs`; where they differ, the old one is taken.
fn mirror_pod_ip(status: &mut Value) {
    let first = status["podIPs"][0]["ip"].as_str().unwrap_or_default().to_owned();
    let single = edit::text(status, "podIP").to_owned();
    if single.is_empty() && !first.is_empty() {
        edit::set(status, "podIP", first);
    } else if single != first {
        edit::set(status, "podIPs", json!([{ "ip": single }]));
    }
}

/// What a part of the pod does not write (`ResetObjectMetaForStatus`).
fn keep_metadata(new: &mut Value, old: &Value) {
    let metadata = edit::child(new, "metadata");
    for name in ["labels", "annotations", "finalizers", "ownerReferences"] {
        edit::keep(metadata, &old["metadata"], name);
    }
}

fn keep_all_but_resources(new: &mut Value, old: &Value) {
    let asked = new["spec"].clone();
    let names = |spec: &Value, list: &str| -> Vec<String> {
        let containers = spec[list].as_array().into_iter().flatten();
        containers.map(|container| edit::text(container, "name").to_owned()).collect()
    };
    // Validation says what is wrong with other containers.
    if ["containers", "initContainers"].iter().any(|list| names(&asked, list) != names(&old["spec"], list)) {
        return;
    }
    edit::keep(new, old, "spec");
    let spec = edit::child(new, "spec");
    if asked.get("resources").is_some() {
        edit::keep(spec, &asked, "resources");
    }
    for list in ["containers", "initContainers"] {
        for container in edit::each(spec, list) {
            let name = edit::text(container, "name").to_owned();
            let wanted = asked[list].as_array().into_iter().flatten().find(|other| edit::text(other, "name") == name);
            if let Some(wanted) = wanted {
                edit::keep(container, wanted, "resources");
                edit::keep(container, wanted, "resizePolicy");
            }
        }
    }
}
