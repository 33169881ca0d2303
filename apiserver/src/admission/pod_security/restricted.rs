//! The checks of `restricted`, above those of `baseline`: current practice of hardening.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    baseline::{added, adds, proc_mount, seccomp_baseline},
    level::{Pod, Row, Violation, containers_called, name, plural, quoted, violation},
};
use crate::admission::items;

/// By the name of the baseline check that each replaces, where it replaces one.
pub(super) const RESTRICTED: [Row; 7] = [
    ("allowPrivilegeEscalation", 8, privilege_escalation),
    ("capabilities", 22, capabilities_restricted),
    ("procMount", 35, proc_mount),
    ("hostPathVolumes", 0, restricted_volumes),
    ("runAsNonRoot", 0, run_as_non_root),
    ("runAsUser", 23, run_as_user),
    ("seccompProfile", 19, seccomp_restricted),
];

const ALLOWED_VOLUMES: [&str; 8] =
    ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"];
fn capabilities_restricted(pod: &Pod<'_>) -> Option<Violation> {
    if pod.is_windows() {
        return None;
    }
    let keeps = |container: &Value| {
        items(&container["securityContext"]["capabilities"]["drop"]).all(|capability| capability != "ALL")
    };
    let kept = pod.named(keeps);
    let mut details = Vec::new();
    if !kept.is_empty() {
        details.push(format!(r#"{} must set securityContext.capabilities.drop=["ALL"]"#, containers_called(&kept)));
    }
    details.extend(added(pod, &["NET_BIND_SERVICE"]).map(|(names, capabilities)| adds(&names, capabilities)));
    if details.is_empty() { None } else { violation("unrestricted capabilities", details.join("; ")) }
}

fn seccomp_restricted(pod: &Pod<'_>) -> Option<Violation> {
    if pod.is_windows() {
        return None;
    }
    if let Some(explicit) = seccomp_baseline(pod) {
        return Some(explicit);
    }
    if pod.spec["securityContext"]["seccompProfile"]["type"].is_string() {
        return None;
    }
    let silent = pod.named(|container| !container["securityContext"]["seccompProfile"]["type"].is_string());
    if silent.is_empty() {
        return None;
    }
    violation(
        "seccompProfile",
        format!(
            r#"pod or {} must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost""#,
            containers_called(&silent)
        ),
    )
}

fn privilege_escalation(pod: &Pod<'_>) -> Option<Violation> {
    let names = pod.named(|container| container["securityContext"]["allowPrivilegeEscalation"] != false);
    if pod.is_windows() || names.is_empty() {
        return None;
    }
    violation(
        "allowPrivilegeEscalation != false",
        format!("{} must set securityContext.allowPrivilegeEscalation=false", containers_called(&names)),
    )
}

fn restricted_volumes(pod: &Pod<'_>) -> Option<Violation> {
    fn kind(volume: &Value) -> Option<&str> {
        let source = volume.as_object()?.keys().find(|key| *key != "name")?;
        (!ALLOWED_VOLUMES.contains(&source.as_str())).then_some(source)
    }
    let bad: Vec<(&str, &str)> =
        items(&pod.spec["volumes"]).filter_map(|volume| Some((name(volume), kind(volume)?))).collect();
    if bad.is_empty() {
        return None;
    }
    let kinds: BTreeSet<&str> = bad.iter().map(|(_, kind)| *kind).collect();
    let uses = plural("uses restricted volume type", "use restricted volume types", bad.len());
    let volumes = plural("volume", "volumes", bad.len());
    violation(
        "restricted volume types",
        format!("{volumes} {} {uses} {}", quoted(bad.iter().map(|(name, _)| *name)), quoted(kinds)),
    )
}

fn run_as_non_root(pod: &Pod<'_>) -> Option<Violation> {
    if pod.has_own_users() {
        return None;
    }
    let reason = "runAsNonRoot != true";
    if let Some(setters) = pod.setters(|context| context["runAsNonRoot"] == false) {
        return violation(reason, format!("{setters} must not set securityContext.runAsNonRoot=false"));
    }
    let silent = pod.named(|container| !container["securityContext"]["runAsNonRoot"].is_boolean());
    if pod.spec["securityContext"]["runAsNonRoot"] == true || silent.is_empty() {
        return None;
    }
    violation(reason, format!("pod or {} must set securityContext.runAsNonRoot=true", containers_called(&silent)))
}

fn run_as_user(pod: &Pod<'_>) -> Option<Violation> {
    if pod.has_own_users() {
        return None;
    }
    let setters = pod.setters(|context| context["runAsUser"] == 0)?;
    violation("runAsUser=0", format!("{setters} must not set runAsUser=0"))
}
