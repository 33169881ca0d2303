//! Defaults of pods and pod templates. Mirrors `pkg/apis/core/v1/defaults.go`.
use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value, json};

use super::resources;
use crate::strategy::edit::{child, default, default_text, each, member, set, text};

/// What a pod gets beyond what a template gets: `SetDefaults_Pod`.
pub fn set_pod_defaults(pod: &mut Value) {
    let spec = child(pod, "spec");
    if spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64).is_some_and(|seconds| seconds < 0) {
        set(spec, "terminationGracePeriodSeconds", 1);
    }
    set_pod_spec_defaults(spec);
    default(spec, "enableServiceLinks", true);
    for list in ["containers", "initContainers"] {
        for container in each(spec, list) {
            requests_from_limits(container);
        }
    }
    if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        for list in ["containers", "initContainers"] {
            for container in each(spec, list) {
                host_ports_from_container_ports(container);
            }
        }
    }
}

/// Defaults of `metadata`-less pod specs: the whole of what templates get.
pub fn set_pod_spec_defaults(spec: &mut Value) {
    default_text(spec, "restartPolicy", "Always");
    default(spec, "terminationGracePeriodSeconds", 30);
    default_text(spec, "dnsPolicy", "ClusterFirst");
    default(spec, "securityContext", json!({}));
    default_text(spec, "schedulerName", "default-scheduler");
    mirror_service_account(spec);
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in each(spec, list) {
            set_container_defaults(container);
        }
    }
    for volume in each(spec, "volumes") {
        set_volume_defaults(volume);
    }
}

/// Defaults of a pod template: `{metadata, spec}`.
pub fn set_pod_template_defaults(template: &mut Value) {
    default(template, "metadata", json!({}));
    set_pod_spec_defaults(child(template, "spec"));
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are always shown and the new one wins.
pub fn mirror_service_account(spec: &mut Value) {
    let current = match text(spec, "serviceAccountName") {
        "" => text(spec, "serviceAccount").to_owned(),
        name => name.to_owned(),
    };
    if !current.is_empty() {
        set(spec, "serviceAccountName", current.as_str());
        set(spec, "serviceAccount", current);
    }
}

fn set_container_defaults(container: &mut Value) {
    let policy = pull_policy_of_image(text(container, "image"));
    default_text(container, "imagePullPolicy", policy);
    default_text(container, "terminationMessagePath", "/dev/termination-log");
    default_text(container, "terminationMessagePolicy", "File");
    default(container, "resources", json!({}));
    for port in each(container, "ports") {
        default_text(port, "protocol", "TCP");
    }
    for variable in each(container, "env") {
        if let Some(source) = member(variable, "valueFrom") {
            field_ref_defaults(source);
            if let Some(key) = member(source, "fileKeyRef") {
                default(key, "optional", false);
            }
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = member(container, probe) {
            set_probe_defaults(probe);
        }
    }
    if let Some(lifecycle) = member(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(handler) = member(lifecycle, hook) {
                http_get_defaults(handler);
            }
        }
    }
}

/// `Always` for `latest` (said or meant), `IfNotPresent` for a tag or a digest, and for what is no name of an image.
fn pull_policy_of_image(image: &str) -> &'static str {
    static REFERENCE: LazyLock<Regex> = LazyLock::new(|| {
        let part = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*";
        let label = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])";
        let host = format!(r"(?:{label}(?:\.{label})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?");
        let digest = "[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}";
        let form =
            format!(r"^((?:{host}/)?{part}(?:/{part})*)(?::([A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}))?(?:@({digest}))?$");
        Regex::new(&form).expect("a constant pattern")
    });
    const NAME_MAX: usize = 255;
    let Some(parts) = REFERENCE.captures(image).filter(|parts| parts[1].len() <= NAME_MAX) else {
        return "IfNotPresent";
    };
    match (parts.get(2).map(|tag| tag.as_str()), parts.get(3)) {
        (Some("latest"), _) | (None, None) => "Always",
        _ => "IfNotPresent",
    }
}

fn set_probe_defaults(probe: &mut Value) {
    for (name, number) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        default_number(probe, name, number);
    }
    http_get_defaults(probe);
    if let Some(grpc) = member(probe, "grpc") {
        default(grpc, "service", "");
    }
}

/// A zero counts as absent, since the Go field is no pointer.
fn default_number(object: &mut Value, name: &str, number: i64) {
    if object.get(name).and_then(Value::as_i64).unwrap_or(0) == 0 {
        set(object, name, number);
    }
}

fn http_get_defaults(handler: &mut Value) {
    if let Some(get) = member(handler, "httpGet") {
        default_text(get, "path", "/");
        default_text(get, "scheme", "HTTP");
    }
}

fn field_ref_defaults(source: &mut Value) {
    if let Some(reference) = member(source, "fieldRef") {
        default_text(reference, "apiVersion", "v1");
    }
}

fn requests_from_limits(container: &mut Value) {
    let resources = child(container, "resources");
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else {
        return;
    };
    if !limits.is_empty() {
        let requests = child(resources, "requests");
        for (name, quantity) in limits {
            default(requests, &name, quantity);
        }
    }
}

/// Where the pod as a whole has resources, what is missing there comes from its containers: limits of huge pages, then
/// requests, and those last from the pod's own limits. Done as a pod is stored, when nobody adds containers any more.
/// Mirrors `defaultHugePagePodLimits` and `defaultPodRequests`.
pub fn complete_pod_level_resources(spec: &mut Value) {
    let (limits, requests) = (resources::aggregate(spec, "limits"), resources::aggregate(spec, "requests"));
    let Some(whole) = member(spec, "resources") else {
        return;
    };
    let given = |whole: &Value, list: &str| whole[list].as_object().is_some_and(|amounts| !amounts.is_empty());
    if !given(whole, "limits") && !given(whole, "requests") {
        return;
    }
    for (name, sum) in limits.into_iter().filter(|(name, _)| resources::is_huge_page(name)) {
        if whole["requests"].get(&name).is_none() {
            default(child(whole, "limits"), &name, sum);
        }
    }
    let Some(limits) = whole["limits"].as_object().filter(|limits| !limits.is_empty()).cloned() else {
        return;
    };
    let wanted = requests.into_iter().filter(|(name, _)| matches!(name.as_str(), "cpu" | "memory"));
    let wanted: Vec<(String, Value)> = wanted.map(|(name, sum)| (name, sum.into())).collect();
    for (name, amount) in wanted.into_iter().chain(limits).filter(|(name, _)| resources::is_pod_level(name)) {
        default(child(whole, "requests"), &name, amount);
    }
}

fn host_ports_from_container_ports(container: &mut Value) {
    for port in each(container, "ports") {
        if let Some(number) = port.get("containerPort").cloned()
            && port.get("hostPort").and_then(Value::as_i64).unwrap_or(0) == 0
        {
            set(port, "hostPort", number);
        }
    }
}

/// A volume without a source is an empty directory; sources get their modes and types.
fn set_volume_defaults(volume: &mut Value) {
    let bare = volume.as_object().is_some_and(|map: &Map<String, Value>| map.keys().all(|name| name == "name"));
    if bare {
        set(volume, "emptyDir", json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = member(volume, source) {
            default(source, "defaultMode", 0o644);
        }
    }
    if let Some(downward) = member(volume, "downwardAPI") {
        each(downward, "items").for_each(field_ref_defaults);
    }
    if let Some(projected) = member(volume, "projected") {
        each(projected, "sources").for_each(set_projection_defaults);
    }
    if let Some(host_path) = member(volume, "hostPath") {
        default(host_path, "type", "");
    }
    if let Some(ephemeral) = member(volume, "ephemeral")
        && let Some(template) = member(ephemeral, "volumeClaimTemplate")
    {
        default(child(template, "spec"), "volumeMode", "Filesystem");
    }
    if let Some(image) = member(volume, "image") {
        let policy = pull_policy_of_image(text(image, "reference"));
        default_text(image, "pullPolicy", policy);
    }
    set_network_volume_defaults(volume);
}

fn set_projection_defaults(source: &mut Value) {
    if let Some(token) = member(source, "serviceAccountToken") {
        default(token, "expirationSeconds", 3600);
    }
    if let Some(downward) = member(source, "downwardAPI") {
        each(downward, "items").for_each(field_ref_defaults);
    }
}

/// Defaults of volume sources that pods and persistent volumes share.
pub fn set_network_volume_defaults(volume: &mut Value) {
    if let Some(iscsi) = member(volume, "iscsi") {
        default_text(iscsi, "iscsiInterface", "default");
    }
    if let Some(rbd) = member(volume, "rbd") {
        for (name, value) in [("pool", "rbd"), ("user", "admin"), ("keyring", "/etc/ceph/keyring")] {
            default_text(rbd, name, value);
        }
    }
    if let Some(disk) = member(volume, "azureDisk") {
        for (name, value) in [("cachingMode", "ReadWrite"), ("fsType", "ext4"), ("kind", "Shared")] {
            default(disk, name, value);
        }
        default(disk, "readOnly", false);
    }
    if let Some(scale_io) = member(volume, "scaleIO") {
        for (name, value) in [("storageMode", "ThinProvisioned"), ("fsType", "xfs")] {
            default_text(scale_io, name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_pulled_always_when_its_tag_may_move() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("localhost:5000/nginx", "Always"),
            ("localhost:5000/nginx:1", "IfNotPresent"),
            ("Not A Reference", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy_of_image(image), policy, "{image}");
        }
    }

    #[test]
    fn a_pod_asks_for_its_limits_and_a_template_does_not() {
        let limits = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}});
        let mut pod = json!({"spec": {"containers": [{"name": "c", "image": "a", "resources": limits}]}});
        let mut template = pod.clone();
        set_pod_defaults(&mut pod);
        set_pod_template_defaults(&mut template);
        assert_eq!(pod["spec"]["containers"][0]["resources"]["requests"], json!({"cpu": "500m", "memory": "1Gi"}));
        assert_eq!(template["spec"]["containers"][0]["resources"], limits);
    }
}
