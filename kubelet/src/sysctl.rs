//! Kernel parameters that a pod sets for its sandbox: the safe ones, which change nothing outside of it.
//!
//! (kubelet: `sysctl/{allowlist,safe_sysctls}.go`; `component-helpers/node/util/sysctl/namespace.go`. Unsafe ones need
//! `--allowed-unsafe-sysctls`, which this kubelet does not have.)

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

use crate::spec::PodExt as _;
use crate::words;

/// The parameters that every pod may set.
const SAFE: [&str; 14] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_notsent_lowat",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// The parameters that the pod sets, by their names with dots.
pub fn sysctls(pod: &Pod) -> BTreeMap<String, String> {
    let context = pod.spec().security_context.as_ref();
    let set = context.and_then(|context| context.sysctls.as_ref()).into_iter().flatten();
    set.map(|sysctl| (with_dots(&sysctl.name), sysctl.value.clone())).collect()
}

/// Why the pod may not set one of its parameters.
pub fn forbidden(pod: &Pod) -> Option<String> {
    let spec = pod.spec();
    let context = spec.security_context.as_ref();
    for sysctl in context.and_then(|context| context.sysctls.as_ref()).into_iter().flatten() {
        let name = with_dots(&sysctl.name);
        let quoted = words::quoted(&name);
        if !SAFE.contains(&name.as_str()) {
            return Some(format!("forbidden sysctl: {quoted} not allowlisted"));
        }
        let (namespace, is_host) =
            if name.starts_with("net.") { ("Net", spec.host_network) } else { ("IPC", spec.host_ipc) };
        if is_host == Some(true) {
            return Some(format!("forbidden sysctl: {quoted} not allowed with host {namespace} enabled"));
        }
    }
    None
}

/// The name with dots between its parts. A name whose first separator is a slash has slashes there, and dots within parts.
fn with_dots(name: &str) -> String {
    if name.find(['.', '/']).is_none_or(|at| name[at..].starts_with('.')) {
        return name.to_owned();
    }
    let swap = |character| match character {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    name.chars().map(swap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(name: &str, spec: serde_json::Value, expect: Option<&str>) {
        let mut pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
        let sysctls = json!({"sysctls": [{"name": name, "value": "1"}]});
        pod.spec.as_mut().unwrap().security_context = serde_json::from_value(sysctls).unwrap();
        assert_eq!(forbidden(&pod).as_deref(), expect);
    }

    #[test]
    fn safe_ones_are_allowed_in_namespaces_of_the_pods_own() {
        check("net.ipv4.tcp_syncookies", json!({"containers": []}), None);
        check("net/ipv4/tcp_syncookies", json!({"containers": [], "hostIPC": true}), None);
        check(
            "net/ipv4/tcp_syncookies",
            json!({"containers": [], "hostNetwork": true}),
            Some("forbidden sysctl: \"net.ipv4.tcp_syncookies\" not allowed with host Net enabled"),
        );
        check(
            "kernel.shm_rmid_forced",
            json!({"containers": [], "hostIPC": true}),
            Some("forbidden sysctl: \"kernel.shm_rmid_forced\" not allowed with host IPC enabled"),
        );
        check("kernel.msgmax", json!({"containers": []}), Some("forbidden sysctl: \"kernel.msgmax\" not allowlisted"));
    }

    #[test]
    fn names_have_dots_between_their_parts() {
        assert_eq!(with_dots("kernel/shm_rmid_forced"), "kernel.shm_rmid_forced");
        assert_eq!(with_dots("net/ipv4/conf/eth0.1/mtu"), "net.ipv4.conf.eth0/1.mtu");
        assert_eq!(with_dots("net.ipv4.conf.eth0/1.mtu"), "net.ipv4.conf.eth0/1.mtu");
    }
}
