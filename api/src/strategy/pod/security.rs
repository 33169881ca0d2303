//! Security contexts, of the pod and of containers.
use std::collections::BTreeSet;

use super::os;
use crate::strategy::field::{Errors, Field};
use crate::strategy::names;

/// What is wrong with the pod's security context, host namespaces included.
/// `pod` is the pod's name, empty in a template.
pub fn validate_pod(spec: &Field<'_>, pod: &str, errors: &mut Errors) {
    if spec.get("hostNetwork").bool() {
        spec.get("containers").items().for_each(|container| host_network_ports(&container, pod.is_empty(), errors));
    }
    let share = spec.get("shareProcessNamespace");
    if share.bool() && spec.get("hostPID").bool() {
        errors.push(share.invalid("ShareProcessNamespace and HostPID cannot both be enabled"));
    }
    host_users(spec, errors);
    let context = spec.get("securityContext");
    for group in context.get("supplementalGroups").items() {
        group.check(names::id_number(group.int().unwrap_or(0)), errors);
    }
    for name in ["fsGroup", "runAsUser", "runAsGroup"] {
        id(&context.get(name), errors);
    }
    validate_sysctls(&context.get("sysctls"), spec, errors);
    one_of_if_set(&context.get("fsGroupChangePolicy"), &["Always", "OnRootMismatch"], errors);
    one_of_if_set(&context.get("supplementalGroupsPolicy"), &["Merge", "Strict"], errors);
    one_of_if_set(&context.get("seLinuxChangePolicy"), &["MountOption", "Recursive"], errors);
    seccomp(&context.get("seccompProfile"), errors);
    os::validate_windows_options(&context.get("windowsOptions"), errors);
    app_armor(&context.get("appArmorProfile"), errors);
}

/// What is wrong with one container's security context.
pub fn validate_container(context: &Field<'_>, errors: &mut Errors) {
    if !context.is_set() {
        return;
    }
    for name in ["runAsUser", "runAsGroup"] {
        id(&context.get(name), errors);
    }
    one_of_if_set(&context.get("procMount"), &["Default", "Unmasked"], errors);
    seccomp(&context.get("seccompProfile"), errors);
    if context.get("allowPrivilegeEscalation").value() == false {
        if context.get("privileged").bool() {
            errors.push(context.invalid("cannot set `allowPrivilegeEscalation` to false and `privileged` to true"));
        }
        if context.get("capabilities").get("add").items().any(|capability| capability.str() == "CAP_SYS_ADMIN") {
            errors.push(
                context.invalid("cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"),
            );
        }
    }
    os::validate_windows_options(&context.get("windowsOptions"), errors);
    app_armor(&context.get("appArmorProfile"), errors);
}

fn id(number: &Field<'_>, errors: &mut Errors) {
    if let Some(value) = number.int() {
        number.check(names::id_number(value), errors);
    }
}

fn one_of_if_set(field: &Field<'_>, supported: &[&str], errors: &mut Errors) {
    if field.is_set() && !supported.contains(&field.str()) {
        errors.push(field.not_supported(supported));
    }
}

/// A template may leave the host's port open: the pod that is made of it has it by default.
fn host_network_ports(container: &Field<'_>, template: bool, errors: &mut Errors) {
    for port in container.get("ports").items() {
        let (inside, outside) = (port.get("containerPort"), port.get("hostPort"));
        let shown = outside.int().unwrap_or(0);
        if (shown != 0 || !template) && inside.int().unwrap_or(0) != shown {
            errors.push(outside.invalid_as(shown, "must match `containerPort` when `hostNetwork` is true"));
        }
    }
}

/// A user namespace of its own excludes the host's other namespaces.
fn host_users(spec: &Field<'_>, errors: &mut Errors) {
    if spec.get("hostUsers").value() != false {
        return;
    }
    for (name, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec.get(name).bool() {
            errors.push(spec.shown_as(name, shown).forbidden("when `hostUsers` is false"));
        }
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for devices in spec.get(list).items().map(|container| container.get("volumeDevices")) {
            if !devices.is_empty() {
                errors.push(devices.forbidden("when `hostUsers` is false"));
            }
        }
    }
}

/// A setting of a namespace that is the host's is not the pod's to make: the member of the spec that says so.
fn namespace_of_host(sysctl: &str, spec: &Field<'_>) -> Option<&'static str> {
    let name = if sysctl.starts_with("net/") { "net." } else { sysctl };
    let of_ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|start| name.starts_with(start));
    let member = match name {
        _ if name.starts_with("net.") => "hostNetwork",
        _ if of_ipc || name == "kernel.sem" => "hostIPC",
        _ => return None,
    };
    spec.get(member).bool().then_some(member)
}

fn validate_sysctls(sysctls: &Field<'_>, spec: &Field<'_>, errors: &mut Errors) {
    const NAME_MAX: usize = 253;
    let well_formed = |name: &str| {
        !name.is_empty()
            && name.len() <= NAME_MAX
            && name.split(['.', '/']).all(|part| {
                let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
                part.bytes().next().zip(part.bytes().last()).is_some_and(|(first, last)| word(first) && word(last))
                    && part.bytes().all(|byte| word(byte) || matches!(byte, b'-' | b'_'))
            })
    };
    let mut seen = BTreeSet::new();
    for sysctl in sysctls.items() {
        let name = sysctl.get("name");
        if name.is_empty() {
            errors.push(name.required(""));
        } else if !well_formed(name.str()) {
            errors.push(name.invalid(format!(
                "must have at most {NAME_MAX} characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
            )));
        } else if seen.contains(name.str()) {
            errors.push(name.duplicate());
        }
        if let Some(member) = namespace_of_host(name.str(), spec) {
            errors.push(name.invalid(format!("may not be specified when '{member}' is true")));
        }
        seen.insert(name.str());
    }
}

fn seccomp(profile: &Field<'_>, errors: &mut Errors) {
    profile_of(profile, "seccomp", "type is required when seccompProfile is set", errors);
}

fn app_armor(profile: &Field<'_>, errors: &mut Errors) {
    profile_of(profile, "AppArmor", "type is required when appArmorProfile is set", errors);
}

fn profile_of(profile: &Field<'_>, what: &str, missing: &str, errors: &mut Errors) {
    if !profile.is_set() {
        return;
    }
    let (kind, file) = (profile.get("type"), profile.get("localhostProfile"));
    match kind.str() {
        "Localhost" if file.is_empty() => {
            errors.push(file.required(format!("must be set when {what} type is Localhost")));
        }
        "Localhost" if what == "seccomp" => super::volumes::descending_path(&file, errors),
        "Localhost" => {
            if file.str().trim() != file.str() {
                errors.push(file.invalid("must not be padded with whitespace"));
            }
        }
        "RuntimeDefault" | "Unconfined" => {
            if file.is_set() {
                errors.push(file.invalid(format!("can only be set when {what} type is Localhost")));
            }
        }
        "" => errors.push(kind.required(missing)),
        _ => errors.push(kind.not_supported(&["Localhost", "RuntimeDefault", "Unconfined"])),
    }
}
