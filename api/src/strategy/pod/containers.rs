//! Containers of the three sorts: their names, images, ports, environment and mounts.
//! Mirrors `validateContainers`, `validateInitContainers` and `validateEphemeralContainers` of
//! `pkg/apis/core/validation/validation.go`.
use std::collections::{BTreeMap, BTreeSet};

use super::{probes, resources, security, volumes};
use crate::strategy::field::{Errors, Field};
use crate::strategy::names;

/// What the containers of a pod share.
pub struct Surroundings<'a> {
    /// The pod's spec.
    pub spec: Field<'a>,
    /// Names of the pod's volumes, and whether each is a claim (which a container may also mount as a block device).
    pub volumes: BTreeMap<&'a str, bool>,
    /// Names of the pod's resource claims.
    pub claims: BTreeSet<&'a str>,
    /// The pod's termination grace period in seconds.
    pub grace: i64,
}

/// What is wrong with all containers of a pod.
pub fn validate(around: &Surroundings<'_>, errors: &mut Errors) {
    let containers = around.spec.get("containers");
    if containers.is_empty() {
        errors.push(containers.required(""));
        return;
    }
    let mut seen = BTreeSet::new();
    for container in containers.items() {
        validate_shared(&container, around, errors);
        unique_name(&container, &mut seen, errors);
        probes::validate(&container, around.grace, errors);
        restart_rules(&container, errors);
    }
    unique_host_ports(containers.items(), errors);
    let init = around.spec.get("initContainers");
    for container in init.items() {
        validate_shared(&container, around, errors);
        unique_name(&container, &mut seen, errors);
        validate_init(&container, around, errors);
        // One init container runs at a time, so host ports need be unique within each only.
        unique_host_ports(std::iter::once(container.clone()), errors);
    }
    for container in around.spec.get("ephemeralContainers").items() {
        validate_ephemeral(&container, around, &mut seen, errors);
    }
}

fn unique_name<'a>(container: &Field<'a>, seen: &mut BTreeSet<&'a str>, errors: &mut Errors) {
    let name = container.get("name");
    if !name.is_empty() && !seen.insert(name.str()) {
        errors.push(name.duplicate());
    }
}

fn validate_init(container: &Field<'_>, around: &Surroundings<'_>, errors: &mut Errors) {
    let (policy, rules) = (container.get("restartPolicy"), container.get("restartPolicyRules"));
    if policy.str() == "Always" {
        if !rules.is_empty() {
            errors.push(
                rules.forbidden("restartPolicyRules are not allowed for init containers with restart policy Always"),
            );
        }
        probes::validate(container, around.grace, errors);
        return;
    }
    restart_rules(container, errors);
    for name in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(member) = container.get(name).set() {
            errors.push(member.forbidden("may not be set for init containers without restartPolicy=Always"));
        }
    }
    for resize in container.get("resizePolicy").items().map(|policy| policy.get("restartPolicy")) {
        if resize.str() == "RestartContainer" {
            errors.push(resize.invalid("must not be set to 'RestartContainer' for non-sidecar initContainers"));
        }
    }
}

fn restart_rules(container: &Field<'_>, errors: &mut Errors) {
    let (policy, rules) = (container.get("restartPolicy"), container.get("restartPolicyRules"));
    if policy.is_set() && !["Always", "Never", "OnFailure"].contains(&policy.str()) {
        errors.push(policy.not_supported(&["Always", "Never", "OnFailure"]));
    }
    if rules.is_empty() {
        return;
    }
    if !policy.is_set() {
        errors.push(policy.required("must specify restartPolicy when restart rules are used"));
    }
    if rules.len() > RULES_MAX {
        errors.push(rules.too_many(RULES_MAX));
    }
    for rule in rules.items() {
        if rule.get("action").str() != "Restart" && rule.get("action").str() != "RestartAllContainers" {
            errors.push(rule.get("action").not_supported(&["Restart", "RestartAllContainers"]));
        }
        let codes = rule.get("exitCodes");
        match codes.set() {
            Some(codes) if !["In", "NotIn"].contains(&codes.get("operator").str()) => {
                errors.push(codes.get("operator").not_supported(&["In", "NotIn"]));
            }
            Some(_) => {}
            None => errors.push(codes.required("must be specified")),
        }
        let values = codes.get("values");
        if values.len() > EXIT_CODES_MAX {
            errors.push(values.too_many(EXIT_CODES_MAX));
        }
    }
}

fn validate_ephemeral<'a>(
    container: &Field<'a>,
    around: &Surroundings<'_>,
    seen: &mut BTreeSet<&'a str>,
    errors: &mut Errors,
) {
    validate_shared(container, around, errors);
    unique_name(container, seen, errors);
    let target = container.get("targetContainerName");
    if !target.is_empty() {
        let names = ["containers", "initContainers"].map(|list| around.spec.get(list));
        let found = names.iter().flat_map(Field::items).any(|other| other.get("name").str() == target.str());
        if !found {
            errors.push(target.not_found());
        }
    }
    for name in [
        "ports",
        "resources",
        "resizePolicy",
        "restartPolicy",
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
        "lifecycle",
    ] {
        let member = container.get(name);
        // Every container has resources, most have none in them.
        if member.is_set() && !(name == "resources" && member.is_empty()) {
            errors.push(member.forbidden("cannot be set for an Ephemeral Container"));
        }
    }
    for mount in container.get("volumeMounts").items() {
        for name in ["subPath", "subPathExpr"] {
            if !mount.get(name).is_empty() {
                errors.push(mount.get(name).forbidden("cannot be set for an Ephemeral Container"));
            }
        }
    }
}

/// Most rules of a container, and exit codes of a rule.
const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;

/// What containers of all sorts have in common: `validateContainerCommon`.
fn validate_shared(container: &Field<'_>, around: &Surroundings<'_>, errors: &mut Errors) {
    let name = container.get("name");
    if name.is_empty() {
        errors.push(name.required(""));
    } else {
        name.check(names::dns1123_label(name.str()), errors);
    }
    let image = container.get("image");
    if image.is_empty() {
        errors.push(image.required(""));
    } else if image.str().trim() != image.str() {
        errors.push(image.invalid("must not have leading or trailing whitespace"));
    }
    container.get("terminationMessagePolicy").one_of(&["File", "FallbackToLogsOnError"], errors);
    validate_ports(&container.get("ports"), errors);
    validate_env(&container.get("env"), around, errors);
    validate_env_from(&container.get("envFrom"), errors);
    validate_mounts(container, around, errors);
    validate_devices(container, around, errors);
    container.get("imagePullPolicy").one_of(&["Always", "IfNotPresent", "Never"], errors);
    resources::validate(&container.get("resources"), &around.claims, errors);
    validate_resize_policy(&container.get("resizePolicy"), errors);
    security::validate_container(&container.get("securityContext"), errors);
}

fn validate_ports(ports: &Field<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for port in ports.items() {
        let name = port.get("name");
        if !name.is_empty() {
            let complaints = names::port_name(name.str());
            if !complaints.is_empty() {
                name.check(complaints, errors);
            } else if !seen.insert(name.str()) {
                errors.push(name.duplicate());
            }
        }
        match port.get("containerPort").int().unwrap_or(0) {
            0 => errors.push(port.get("containerPort").required("")),
            number => port.get("containerPort").check(names::port_number(number), errors),
        }
        if let Some(number) = port.get("hostPort").int().filter(|number| *number != 0) {
            port.get("hostPort").check(names::port_number(number), errors);
        }
        port.get("protocol").one_of(&["SCTP", "TCP", "UDP"], errors);
    }
}

fn unique_host_ports<'a>(containers: impl Iterator<Item = Field<'a>>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for port in containers.flat_map(|container| container.get("ports").items()) {
        let host_port = port.get("hostPort");
        let number = host_port.int().unwrap_or(0);
        if number == 0 {
            continue;
        }
        let key = (port.get("protocol").str(), port.get("hostIP").str(), number);
        if !seen.insert(key) {
            let shown = format!("{}/{}/{number}", key.0, key.1).into();
            errors.push(host_port.with(&shown).duplicate());
        }
    }
}

fn validate_env(env: &Field<'_>, around: &Surroundings<'_>, errors: &mut Errors) {
    for variable in env.items() {
        let name = variable.get("name");
        if name.is_empty() {
            errors.push(name.required(""));
        } else {
            name.check(names::env_var_name(name.str()), errors);
        }
        validate_value_from(&variable, around, errors);
    }
}

fn validate_value_from(variable: &Field<'_>, around: &Surroundings<'_>, errors: &mut Errors) {
    let Some(from) = variable.get("valueFrom").set() else {
        return;
    };
    let mut sources = 0;
    if let Some(source) = from.get("fieldRef").set() {
        sources += 1;
        volumes::field_selector(&source, volumes::ENV_FIELDS, errors);
    }
    if let Some(source) = from.get("resourceFieldRef").set() {
        sources += 1;
        volumes::resource_field_selector(&source, false, errors);
    }
    for name in ["configMapKeyRef", "secretKeyRef"] {
        if let Some(source) = from.get(name).set() {
            sources += 1;
            key_selector(&source, errors);
        }
    }
    if let Some(source) = from.get("fileKeyRef").set() {
        sources += 1;
        file_key(&source, around, errors);
    }
    if sources == 0 {
        errors.push(from.invalid_as(
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ));
    } else if !variable.get("value").is_empty() {
        errors.push(from.invalid_as("", "may not be specified when `value` is not empty"));
    } else if sources > 1 {
        errors.push(from.invalid_as("", "may not have more than one field specified at a time"));
    }
}

/// A key of a file in a volume of the pod, which has to be an empty directory.
fn file_key(source: &Field<'_>, around: &Surroundings<'_>, errors: &mut Errors) {
    let (key, volume, path) = (source.get("key"), source.get("volumeName"), source.get("path"));
    if key.is_empty() {
        errors.push(key.required(""));
    } else {
        key.check(names::env_var_name(key.str()), errors);
    }
    if volume.is_empty() {
        errors.push(volume.required(""));
    } else {
        volume.check(names::dns1123_label(volume.str()), errors);
    }
    if path.is_empty() {
        errors.push(path.required(""));
    } else {
        volumes::no_backsteps(&path, errors);
    }
    let volumes = around.spec.get("volumes");
    let named = |candidate: &Field<'_>| candidate.get("name").str() == volume.str();
    match volumes.items().find(named) {
        None => errors.push(volume.with(&volume.str().into()).not_found()),
        Some(found) if !found.get("emptyDir").is_set() => {
            errors.push(volume.invalid("referenced volume must be of type emptyDir"));
        }
        Some(_) => {}
    }
}

fn key_selector(source: &Field<'_>, errors: &mut Errors) {
    let (name, key) = (source.get("name"), source.get("key"));
    name.check(names::dns1123_subdomain(name.str()), errors);
    if key.is_empty() {
        errors.push(key.required(""));
    } else {
        key.check(names::config_map_key(key.str()), errors);
    }
}

fn validate_env_from(list: &Field<'_>, errors: &mut Errors) {
    for from in list.items() {
        let prefix = from.get("prefix");
        if !prefix.is_empty() {
            prefix.check(names::env_var_name(prefix.str()), errors);
        }
        let mut sources = 0;
        for kind in ["configMapRef", "secretRef"] {
            let Some(source) = from.get(kind).set() else {
                continue;
            };
            sources += 1;
            let name = source.get("name");
            if name.is_empty() {
                errors.push(name.required(""));
            } else {
                name.check(names::dns1123_subdomain(name.str()), errors);
            }
        }
        match sources {
            0 => errors.push(list.invalid_as("", "must specify one of: `configMapRef` or `secretRef`")),
            1 => {}
            _ => errors.push(list.invalid_as("", "may not have more than one field specified at a time")),
        }
    }
}

fn validate_mounts(container: &Field<'_>, around: &Surroundings<'_>, errors: &mut Errors) {
    let devices = container.get("volumeDevices");
    let device_names: BTreeSet<&str> = devices.items().map(|device| device.get("name").str()).collect();
    let device_paths: BTreeSet<&str> = devices.items().map(|device| device.get("devicePath").str()).collect();
    let mut paths = BTreeSet::new();
    for mount in container.get("volumeMounts").items() {
        let (name, path) = (mount.get("name"), mount.get("mountPath"));
        if name.is_empty() {
            errors.push(name.required(""));
        }
        if !around.volumes.contains_key(name.str()) {
            errors.push(name.with(&name.str().into()).not_found());
        }
        if path.is_empty() {
            errors.push(path.required(""));
        }
        if !paths.insert(path.str()) {
            errors.push(path.invalid("must be unique"));
        }
        if device_names.contains(name.str()) {
            errors.push(name.invalid("must not already exist in volumeDevices"));
        }
        if device_paths.contains(path.str()) {
            errors.push(path.invalid("must not already exist as a path in volumeDevices"));
        }
        // What follows is reported at the list: the path names no element.
        let mounts = container.get("volumeMounts");
        let at_list = mounts.with(mount.value());
        for name in ["subPath", "subPathExpr"] {
            if !mount.get(name).is_empty() {
                volumes::descending_path(&at_list.get(name), errors);
            }
        }
        if !mount.get("subPath").is_empty() && !mount.get("subPathExpr").is_empty() {
            errors.push(mount.get("subPathExpr").invalid("subPathExpr and subPath are mutually exclusive"));
        }
        mount_propagation(&at_list, container, errors);
        recursive_read_only(&at_list, errors);
    }
}

fn mount_propagation(mount: &Field<'_>, container: &Field<'_>, errors: &mut Errors) {
    let Some(mode) = mount.get("mountPropagation").set() else {
        return;
    };
    let supported = ["Bidirectional", "HostToContainer", "None"];
    if !supported.contains(&mode.str()) {
        errors.push(mode.not_supported(&supported));
    }
    let privileged = container.get("securityContext").get("privileged").bool();
    if mode.str() == "Bidirectional" && !privileged {
        errors.push(mode.forbidden("Bidirectional mount propagation is available only to privileged containers"));
    }
}

fn recursive_read_only(mount: &Field<'_>, errors: &mut Errors) {
    let Some(mode) = mount.get("recursiveReadOnly").set() else {
        return;
    };
    match mode.str() {
        "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if !mount.get("readOnly").bool() {
                errors.push(mode.forbidden("may only be specified when readOnly is true"));
            }
            if !["", "None"].contains(&mount.get("mountPropagation").str()) {
                errors.push(mode.forbidden("may only be specified when mountPropagation is None or not specified"));
            }
        }
        _ => errors.push(mode.not_supported(&["Disabled", "Enabled", "IfPossible"])),
    }
}

fn validate_devices(container: &Field<'_>, around: &Surroundings<'_>, errors: &mut Errors) {
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for device in container.get("volumeDevices").items() {
        let (name, path) = (device.get("name"), device.get("devicePath"));
        if name.is_empty() {
            errors.push(name.required(""));
        }
        if !names.insert(name.str()) {
            errors.push(name.invalid("must be unique"));
        }
        match around.volumes.get(name.str()) {
            Some(true) => {}
            Some(false) => errors.push(
                name.invalid("can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"),
            ),
            None => errors.push(name.with(&name.str().into()).not_found()),
        }
        let repeated = !paths.insert(path.str());
        if path.is_empty() {
            errors.push(path.required(""));
        } else if repeated {
            errors.push(path.invalid("must be unique"));
        } else if path.str().contains("..") {
            errors.push(path.invalid("can not contain backsteps ('..')"));
        }
    }
}

fn validate_resize_policy(policies: &Field<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for policy in policies.items() {
        let name = policy.get("resourceName");
        if !seen.insert(name.str()) {
            errors.push(policy.duplicate_as(name.str()));
        }
        // Unknown values are reported at the list.
        policies.with(name.value()).one_of(&["cpu", "memory"], errors);
        let restart = policy.get("restartPolicy");
        policies.with(restart.value()).one_of(&["NotRequired", "RestartContainer"], errors);
    }
}
