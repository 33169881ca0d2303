//! The checks of `baseline`: no known way to the host.

use std::collections::BTreeSet;

use serde_json::Value;

use super::level::{Minor, Pod, Row, Violation, containers_called, name, plural, quoted, violation};
use crate::admission::items;

pub(super) const BASELINE: [Row; 12] = [
    ("appArmorProfile", 0, app_armor),
    ("capabilities", 0, capabilities_baseline),
    ("hostNamespaces", 0, host_namespaces),
    ("hostPathVolumes", 0, host_path_volumes),
    ("hostPorts", 0, host_ports),
    ("hostProbesAndHostLifecycle", 34, probe_hosts),
    ("privileged", 0, privileged),
    ("procMount", 0, proc_mount_baseline),
    ("seLinuxOptions", 0, se_linux),
    ("seccompProfile", 0, seccomp_baseline),
    ("sysctls", 0, sysctls),
    ("windowsHostProcess", 0, host_process),
];
const DEFAULT_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// With the version that allows each first.
const SE_LINUX_TYPES: [(&str, Minor); 5] =
    [("", 0), ("container_t", 0), ("container_init_t", 0), ("container_kvm_t", 0), ("container_engine_t", 31)];
/// With the version that allows each first.
const SAFE_SYSCTLS: [(&str, Minor); 14] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
    ("net.ipv4.tcp_notsent_lowat", 37),
    ("net.ipv4.tcp_slow_start_after_idle", 37),
];
const SECCOMP_OF_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_OF_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const SECCOMP_ALLOWED: [&str; 2] = ["RuntimeDefault", "Localhost"];

fn app_armor(pod: &Pod<'_>) -> Option<Violation> {
    let annotations = pod.metadata["annotations"].as_object().into_iter().flatten();
    let allowed = |value: &str| value.is_empty() || value == "runtime/default" || value.starts_with("localhost/");
    let mut found: Vec<String> = annotations
        .filter(|(key, value)| {
            key.starts_with("container.apparmor.security.beta.kubernetes.io/")
                && !allowed(value.as_str().unwrap_or_default())
        })
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    found.sort();
    let kind = |context: &Value| {
        context["appArmorProfile"]["type"]
            .as_str()
            .filter(|kind| !matches!(*kind, "RuntimeDefault" | "Localhost"))
            .is_some()
    };
    if let Some(setters) = pod.setters(kind) {
        let values = pod.values(|context| {
            context["appArmorProfile"]["type"].as_str().filter(|kind| !matches!(*kind, "RuntimeDefault" | "Localhost"))
        });
        found.insert(0, format!("{setters} must not set AppArmor profile type to {}", quoted(values)));
    }
    if found.is_empty() {
        None
    } else {
        violation(plural("forbidden AppArmor profile", "forbidden AppArmor profiles", found.len()), found.join(", "))
    }
}

/// Containers that add capabilities not among `allowed`, and these capabilities.
pub(super) fn added<'a>(pod: &Pod<'a>, allowed: &[&str]) -> Option<(Vec<&'a str>, BTreeSet<&'a str>)> {
    let forbidden = |container: &'a Value| {
        let add = items(&container["securityContext"]["capabilities"]["add"]).filter_map(Value::as_str);
        add.filter(|capability| !allowed.contains(capability)).collect::<Vec<_>>()
    };
    let bad: Vec<_> = pod
        .containers()
        .map(|container| (name(container), forbidden(container)))
        .filter(|(_, found)| !found.is_empty())
        .collect();
    let capabilities = bad.iter().flat_map(|(_, found)| found.iter().copied()).collect();
    (!bad.is_empty()).then(|| (bad.into_iter().map(|(name, _)| name).collect(), capabilities))
}

pub(super) fn adds(names: &[&str], capabilities: BTreeSet<&str>) -> String {
    format!(
        "{} must not include {} in securityContext.capabilities.add",
        containers_called(names),
        quoted(capabilities)
    )
}

fn capabilities_baseline(pod: &Pod<'_>) -> Option<Violation> {
    let (names, capabilities) = added(pod, &DEFAULT_CAPABILITIES)?;
    violation("non-default capabilities", adds(&names, capabilities))
}

fn host_namespaces(pod: &Pod<'_>) -> Option<Violation> {
    let set: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|field| pod.spec[*field] == true)
        .map(|field| format!("{field}=true"))
        .collect();
    if set.is_empty() { None } else { violation("host namespaces", set.join(", ")) }
}

fn host_path_volumes(pod: &Pod<'_>) -> Option<Violation> {
    let names: Vec<&str> =
        items(&pod.spec["volumes"]).filter(|volume| volume["hostPath"].is_object()).map(name).collect();
    if names.is_empty() {
        return None;
    }
    violation("hostPath volumes", format!("{} {}", plural("volume", "volumes", names.len()), quoted(names)))
}

fn host_ports(pod: &Pod<'_>) -> Option<Violation> {
    let used = |container: &Value| {
        items(&container["ports"])
            .filter_map(|port| port["hostPort"].as_i64())
            .filter(|port| *port != 0)
            .collect::<Vec<_>>()
    };
    let names = pod.named(|container| !used(container).is_empty());
    if names.is_empty() {
        return None;
    }
    let ports: BTreeSet<String> = pod.containers().flat_map(used).map(|port| port.to_string()).collect();
    let (uses, hosts) = (plural("uses", "use", names.len()), plural("hostPort", "hostPorts", ports.len()));
    violation(
        "hostPort",
        format!("{} {uses} {hosts} {}", containers_called(&names), ports.into_iter().collect::<Vec<_>>().join(", ")),
    )
}

fn probe_hosts(pod: &Pod<'_>) -> Option<Violation> {
    fn hosts(container: &Value) -> Vec<&str> {
        let probes = ["livenessProbe", "readinessProbe", "startupProbe"].map(|probe| &container[probe]);
        let hooks = ["postStart", "preStop"].map(|hook| &container["lifecycle"][hook]);
        let handlers = probes
            .into_iter()
            .chain(hooks)
            .flat_map(|handler| [&handler["httpGet"]["host"], &handler["tcpSocket"]["host"]]);
        handlers.filter_map(Value::as_str).filter(|host| !host.is_empty()).collect()
    }
    let names = pod.named(|container| !hosts(container).is_empty());
    if names.is_empty() {
        return None;
    }
    let all: BTreeSet<&str> = pod.containers().flat_map(hosts).collect();
    let (uses, what) =
        (plural("uses", "use", names.len()), plural("probe or lifecycle host", "probe or lifecycle hosts", all.len()));
    violation("probe or lifecycle host", format!("{} {uses} {what} {}", containers_called(&names), quoted(all)))
}

fn privileged(pod: &Pod<'_>) -> Option<Violation> {
    let names = pod.named(|container| container["securityContext"]["privileged"] == true);
    if names.is_empty() {
        return None;
    }
    violation("privileged", format!("{} must not set securityContext.privileged=true", containers_called(&names)))
}

fn proc_mount_baseline(pod: &Pod<'_>) -> Option<Violation> {
    if pod.has_own_users() { None } else { proc_mount(pod) }
}

pub(super) fn proc_mount(pod: &Pod<'_>) -> Option<Violation> {
    let own =
        |container: &Value| container["securityContext"]["procMount"].as_str().is_some_and(|mount| mount != "Default");
    let names = pod.named(own);
    if names.is_empty() {
        return None;
    }
    let mounts: BTreeSet<&str> = pod
        .containers()
        .filter(|container| own(container))
        .filter_map(|container| container["securityContext"]["procMount"].as_str())
        .collect();
    violation(
        "procMount",
        format!("{} must not set securityContext.procMount to {}", containers_called(&names), quoted(mounts)),
    )
}

fn se_linux(pod: &Pod<'_>) -> Option<Violation> {
    let is_allowed = |kind: &str| SE_LINUX_TYPES.iter().any(|(own, since)| *own == kind && pod.is_judged_since(*since));
    let kind = |context: &Value| context["seLinuxOptions"]["type"].as_str().is_some_and(|kind| !is_allowed(kind));
    let set =
        |context: &Value, field: &str| context["seLinuxOptions"][field].as_str().is_some_and(|value| !value.is_empty());
    let setters = pod.setters(|context| kind(context) || set(context, "user") || set(context, "role"))?;
    let types = pod.values(|context| context["seLinuxOptions"]["type"].as_str().filter(|kind| !is_allowed(kind)));
    let mut details = Vec::new();
    if !types.is_empty() {
        details.push(format!("{} {}", plural("type", "types", types.len()), quoted(types)));
    }
    for field in ["user", "role"] {
        if pod.setters(|context| set(context, field)).is_some() {
            details.push(format!("{field} may not be set"));
        }
    }
    violation(
        "seLinuxOptions",
        format!("{setters} set forbidden securityContext.seLinuxOptions: {}", details.join("; ")),
    )
}

fn bad_seccomp(context: &Value) -> Option<&str> {
    context["seccompProfile"]["type"].as_str().filter(|kind| !SECCOMP_ALLOWED.contains(kind))
}

pub(super) fn seccomp_baseline(pod: &Pod<'_>) -> Option<Violation> {
    if !pod.is_judged_since(19) {
        return seccomp_annotations(pod);
    }
    let setters = pod.setters(|context| bad_seccomp(context).is_some())?;
    violation(
        "seccompProfile",
        format!("{setters} must not set securityContext.seccompProfile.type to {}", quoted(pod.values(bad_seccomp))),
    )
}

/// What stood for the profiles before they had a field.
fn seccomp_annotations(pod: &Pod<'_>) -> Option<Violation> {
    let containers = pod.containers().map(|container| format!("{SECCOMP_OF_CONTAINER}{}", name(container)));
    let forbidden: BTreeSet<String> = std::iter::once(SECCOMP_OF_POD.to_owned())
        .chain(containers)
        .filter_map(|key| {
            let value = pod.metadata["annotations"][&key].as_str()?;
            let allowed = matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
            (!allowed).then(|| format!("{key}={value:?}"))
        })
        .collect();
    if forbidden.is_empty() {
        return None;
    }
    let annotations = plural("annotation", "annotations", forbidden.len());
    let shown = forbidden.into_iter().collect::<Vec<_>>().join(", ");
    violation("seccompProfile", format!("forbidden {annotations} {shown}"))
}

fn sysctls(pod: &Pod<'_>) -> Option<Violation> {
    let is_safe = |name: &&str| SAFE_SYSCTLS.iter().any(|(safe, since)| safe == name && pod.is_judged_since(*since));
    let set = items(&pod.spec["securityContext"]["sysctls"]).map(name);
    let found: Vec<&str> = set.filter(|name| !is_safe(name)).collect();
    if found.is_empty() { None } else { violation("forbidden sysctls", found.join(", ")) }
}

fn host_process(pod: &Pod<'_>) -> Option<Violation> {
    let setters = pod.setters(|context| context["windowsOptions"]["hostProcess"] == true)?;
    violation("hostProcess", format!("{setters} must not set securityContext.windowsOptions.hostProcess=true"))
}
