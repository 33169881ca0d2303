//! The checks of the levels, in the order in which Kubernetes names violations: those of `baseline` by name, then those of
//! `restricted` by name; a restricted check takes the place of the baseline check of the same thing
//! (`k8s.io/pod-security-admission/policy`).

use std::collections::BTreeSet;

use serde_json::Value;

use crate::admission::items;

/// How careful pods have to be; the later, the stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// What a pod does that its level forbids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Violation {
    pub reason: String,
    pub detail: String,
}

type Check = fn(&Pod<'_>) -> Option<Violation>;

const BASELINE: [(&str, Check); 12] = [
    ("appArmorProfile", app_armor),
    ("capabilities", capabilities_baseline),
    ("hostNamespaces", host_namespaces),
    ("hostPathVolumes", host_path_volumes),
    ("hostPorts", host_ports),
    ("hostProbesAndHostLifecycle", probe_hosts),
    ("privileged", privileged),
    ("procMount", proc_mount),
    ("seLinuxOptions", se_linux),
    ("seccompProfile", seccomp_baseline),
    ("sysctls", sysctls),
    ("windowsHostProcess", host_process),
];
/// By the name of the baseline check that each replaces, where it replaces one.
const RESTRICTED: [(&str, Check); 6] = [
    ("allowPrivilegeEscalation", privilege_escalation),
    ("capabilities", capabilities_restricted),
    ("hostPathVolumes", restricted_volumes),
    ("runAsNonRoot", run_as_non_root),
    ("runAsUser", run_as_user),
    ("seccompProfile", seccomp_restricted),
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
const ALLOWED_VOLUMES: [&str; 8] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];
const SE_LINUX_TYPES: [&str; 5] = [
    "",
    "container_t",
    "container_init_t",
    "container_kvm_t",
    "container_engine_t",
];
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];
const SECCOMP_ALLOWED: [&str; 2] = ["RuntimeDefault", "Localhost"];

impl Level {
    /// A label's value.
    pub(super) fn parse(text: &str) -> Option<Level> {
        [Level::Privileged, Level::Baseline, Level::Restricted]
            .into_iter()
            .find(|level| level.as_str() == text)
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        }
    }

    /// What of a pod (or pod template) the level forbids.
    pub(super) fn check(self, pod: &Value) -> Vec<Violation> {
        let pod = Pod {
            metadata: &pod["metadata"],
            spec: &pod["spec"],
        };
        let replaced = |name: &str| {
            self == Level::Restricted && RESTRICTED.iter().any(|(own, _)| *own == name)
        };
        let baseline = BASELINE
            .iter()
            .filter(|(name, _)| self != Level::Privileged && !replaced(name));
        let restricted = RESTRICTED.iter().filter(|_| self == Level::Restricted);
        baseline
            .chain(restricted)
            .filter_map(|(_, check)| check(&pod))
            .collect()
    }
}

struct Pod<'a> {
    metadata: &'a Value,
    spec: &'a Value,
}

impl<'a> Pod<'a> {
    fn containers(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        let spec = self.spec;
        ["initContainers", "containers", "ephemeralContainers"]
            .into_iter()
            .flat_map(move |list| items(&spec[list]))
    }

    fn named(&self, test: impl Fn(&Value) -> bool) -> Vec<&'a str> {
        self.containers()
            .filter(|container| test(container))
            .map(name)
            .collect()
    }

    fn is_windows(&self) -> bool {
        self.spec["os"]["name"] == "windows"
    }

    /// `pod` and the containers whose security context passes a test, as in `pod and containers "a", "b"`.
    fn setters(&self, test: impl Fn(&Value) -> bool) -> Option<String> {
        let mut setters = Vec::new();
        if test(&self.spec["securityContext"]) {
            setters.push("pod".to_owned());
        }
        let containers = self.named(|container| test(&container["securityContext"]));
        if !containers.is_empty() {
            setters.push(containers_called(&containers));
        }
        (!setters.is_empty()).then(|| setters.join(" and "))
    }

    /// What a field of all security contexts holds.
    fn values(&self, field: impl Fn(&'a Value) -> Option<&'a str>) -> BTreeSet<&'a str> {
        let own = field(&self.spec["securityContext"]);
        own.into_iter()
            .chain(
                self.containers()
                    .filter_map(|container| field(&container["securityContext"])),
            )
            .collect()
    }
}

fn name(value: &Value) -> &str {
    value["name"].as_str().unwrap_or_default()
}

fn quoted<'s>(names: impl IntoIterator<Item = &'s str>) -> String {
    names
        .into_iter()
        .map(|name| format!("{name:?}"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn plural<'s>(one: &'s str, many: &'s str, count: usize) -> &'s str {
    if count == 1 { one } else { many }
}

/// `container "a"`, `containers "a", "b"`.
fn containers_called(names: &[&str]) -> String {
    format!(
        "{} {}",
        plural("container", "containers", names.len()),
        quoted(names.iter().copied())
    )
}

fn violation(reason: &str, detail: String) -> Option<Violation> {
    Some(Violation {
        reason: reason.to_owned(),
        detail,
    })
}

fn app_armor(pod: &Pod<'_>) -> Option<Violation> {
    let annotations = pod.metadata["annotations"]
        .as_object()
        .into_iter()
        .flatten();
    let allowed = |value: &str| {
        value.is_empty() || value == "runtime/default" || value.starts_with("localhost/")
    };
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
            context["appArmorProfile"]["type"]
                .as_str()
                .filter(|kind| !matches!(*kind, "RuntimeDefault" | "Localhost"))
        });
        found.insert(
            0,
            format!(
                "{setters} must not set AppArmor profile type to {}",
                quoted(values)
            ),
        );
    }
    if found.is_empty() {
        None
    } else {
        violation(
            plural(
                "forbidden AppArmor profile",
                "forbidden AppArmor profiles",
                found.len(),
            ),
            found.join(", "),
        )
    }
}

/// Containers that add capabilities not among `allowed`, and these capabilities.
fn added<'a>(pod: &Pod<'a>, allowed: &[&str]) -> Option<(Vec<&'a str>, BTreeSet<&'a str>)> {
    let forbidden = |container: &'a Value| {
        let add =
            items(&container["securityContext"]["capabilities"]["add"]).filter_map(Value::as_str);
        add.filter(|capability| !allowed.contains(capability))
            .collect::<Vec<_>>()
    };
    let bad: Vec<_> = pod
        .containers()
        .map(|container| (name(container), forbidden(container)))
        .filter(|(_, found)| !found.is_empty())
        .collect();
    let capabilities = bad
        .iter()
        .flat_map(|(_, found)| found.iter().copied())
        .collect();
    (!bad.is_empty()).then(|| {
        (
            bad.into_iter().map(|(name, _)| name).collect(),
            capabilities,
        )
    })
}

fn adds(names: &[&str], capabilities: BTreeSet<&str>) -> String {
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

fn capabilities_restricted(pod: &Pod<'_>) -> Option<Violation> {
    if pod.is_windows() {
        return None;
    }
    let keeps = |container: &Value| {
        items(&container["securityContext"]["capabilities"]["drop"])
            .all(|capability| capability != "ALL")
    };
    let kept = pod.named(keeps);
    let mut details = Vec::new();
    if !kept.is_empty() {
        details.push(format!(
            r#"{} must set securityContext.capabilities.drop=["ALL"]"#,
            containers_called(&kept)
        ));
    }
    details.extend(
        added(pod, &["NET_BIND_SERVICE"]).map(|(names, capabilities)| adds(&names, capabilities)),
    );
    if details.is_empty() {
        None
    } else {
        violation("unrestricted capabilities", details.join("; "))
    }
}

fn host_namespaces(pod: &Pod<'_>) -> Option<Violation> {
    let set: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|field| pod.spec[*field] == true)
        .map(|field| format!("{field}=true"))
        .collect();
    if set.is_empty() {
        None
    } else {
        violation("host namespaces", set.join(", "))
    }
}

fn host_path_volumes(pod: &Pod<'_>) -> Option<Violation> {
    let names: Vec<&str> = items(&pod.spec["volumes"])
        .filter(|volume| volume["hostPath"].is_object())
        .map(name)
        .collect();
    if names.is_empty() {
        return None;
    }
    violation(
        "hostPath volumes",
        format!(
            "{} {}",
            plural("volume", "volumes", names.len()),
            quoted(names)
        ),
    )
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
    let ports: BTreeSet<String> = pod
        .containers()
        .flat_map(used)
        .map(|port| port.to_string())
        .collect();
    let (uses, hosts) = (
        plural("uses", "use", names.len()),
        plural("hostPort", "hostPorts", ports.len()),
    );
    violation(
        "hostPort",
        format!(
            "{} {uses} {hosts} {}",
            containers_called(&names),
            ports.into_iter().collect::<Vec<_>>().join(", ")
        ),
    )
}

fn probe_hosts(pod: &Pod<'_>) -> Option<Violation> {
    fn hosts(container: &Value) -> Vec<&str> {
        let probes =
            ["livenessProbe", "readinessProbe", "startupProbe"].map(|probe| &container[probe]);
        let hooks = ["postStart", "preStop"].map(|hook| &container["lifecycle"][hook]);
        let handlers = probes
            .into_iter()
            .chain(hooks)
            .flat_map(|handler| [&handler["httpGet"]["host"], &handler["tcpSocket"]["host"]]);
        handlers
            .filter_map(Value::as_str)
            .filter(|host| !host.is_empty())
            .collect()
    }
    let names = pod.named(|container| !hosts(container).is_empty());
    if names.is_empty() {
        return None;
    }
    let all: BTreeSet<&str> = pod.containers().flat_map(hosts).collect();
    let (uses, what) = (
        plural("uses", "use", names.len()),
        plural(
            "probe or lifecycle host",
            "probe or lifecycle hosts",
            all.len(),
        ),
    );
    violation(
        "probe or lifecycle host",
        format!(
            "{} {uses} {what} {}",
            containers_called(&names),
            quoted(all)
        ),
    )
}

fn privileged(pod: &Pod<'_>) -> Option<Violation> {
    let names = pod.named(|container| container["securityContext"]["privileged"] == true);
    if names.is_empty() {
        return None;
    }
    violation(
        "privileged",
        format!(
            "{} must not set securityContext.privileged=true",
            containers_called(&names)
        ),
    )
}

fn proc_mount(pod: &Pod<'_>) -> Option<Violation> {
    // In a user namespace of its own, a pod may see /proc unmasked.
    if pod.spec["hostUsers"] == false {
        return None;
    }
    let own = |container: &Value| {
        container["securityContext"]["procMount"]
            .as_str()
            .is_some_and(|mount| mount != "Default")
    };
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
        format!(
            "{} must not set securityContext.procMount to {}",
            containers_called(&names),
            quoted(mounts)
        ),
    )
}

fn se_linux(pod: &Pod<'_>) -> Option<Violation> {
    let kind = |context: &Value| {
        context["seLinuxOptions"]["type"]
            .as_str()
            .is_some_and(|kind| !SE_LINUX_TYPES.contains(&kind))
    };
    let set = |context: &Value, field: &str| {
        context["seLinuxOptions"][field]
            .as_str()
            .is_some_and(|value| !value.is_empty())
    };
    let setters =
        pod.setters(|context| kind(context) || set(context, "user") || set(context, "role"))?;
    let types = pod.values(|context| {
        context["seLinuxOptions"]["type"]
            .as_str()
            .filter(|kind| !SE_LINUX_TYPES.contains(kind))
    });
    let mut details = Vec::new();
    if !types.is_empty() {
        details.push(format!(
            "{} {}",
            plural("type", "types", types.len()),
            quoted(types)
        ));
    }
    for field in ["user", "role"] {
        if pod.setters(|context| set(context, field)).is_some() {
            details.push(format!("{field} may not be set"));
        }
    }
    violation(
        "seLinuxOptions",
        format!(
            "{setters} set forbidden securityContext.seLinuxOptions: {}",
            details.join("; ")
        ),
    )
}

fn bad_seccomp(context: &Value) -> Option<&str> {
    context["seccompProfile"]["type"]
        .as_str()
        .filter(|kind| !SECCOMP_ALLOWED.contains(kind))
}

fn seccomp_baseline(pod: &Pod<'_>) -> Option<Violation> {
    let setters = pod.setters(|context| bad_seccomp(context).is_some())?;
    violation(
        "seccompProfile",
        format!(
            "{setters} must not set securityContext.seccompProfile.type to {}",
            quoted(pod.values(bad_seccomp))
        ),
    )
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
    let silent =
        pod.named(|container| !container["securityContext"]["seccompProfile"]["type"].is_string());
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

fn sysctls(pod: &Pod<'_>) -> Option<Violation> {
    let found: Vec<&str> = items(&pod.spec["securityContext"]["sysctls"])
        .map(name)
        .filter(|name| !SAFE_SYSCTLS.contains(name))
        .collect();
    if found.is_empty() {
        None
    } else {
        violation("forbidden sysctls", found.join(", "))
    }
}

fn host_process(pod: &Pod<'_>) -> Option<Violation> {
    let setters = pod.setters(|context| context["windowsOptions"]["hostProcess"] == true)?;
    violation(
        "hostProcess",
        format!("{setters} must not set securityContext.windowsOptions.hostProcess=true"),
    )
}

fn privilege_escalation(pod: &Pod<'_>) -> Option<Violation> {
    let names =
        pod.named(|container| container["securityContext"]["allowPrivilegeEscalation"] != false);
    if pod.is_windows() || names.is_empty() {
        return None;
    }
    violation(
        "allowPrivilegeEscalation != false",
        format!(
            "{} must set securityContext.allowPrivilegeEscalation=false",
            containers_called(&names)
        ),
    )
}

fn restricted_volumes(pod: &Pod<'_>) -> Option<Violation> {
    fn kind(volume: &Value) -> Option<&str> {
        let source = volume.as_object()?.keys().find(|key| *key != "name")?;
        (!ALLOWED_VOLUMES.contains(&source.as_str())).then_some(source)
    }
    let bad: Vec<(&str, &str)> = items(&pod.spec["volumes"])
        .filter_map(|volume| Some((name(volume), kind(volume)?)))
        .collect();
    if bad.is_empty() {
        return None;
    }
    let kinds: BTreeSet<&str> = bad.iter().map(|(_, kind)| *kind).collect();
    let uses = plural(
        "uses restricted volume type",
        "use restricted volume types",
        bad.len(),
    );
    let volumes = plural("volume", "volumes", bad.len());
    violation(
        "restricted volume types",
        format!(
            "{volumes} {} {uses} {}",
            quoted(bad.iter().map(|(name, _)| *name)),
            quoted(kinds)
        ),
    )
}

fn run_as_non_root(pod: &Pod<'_>) -> Option<Violation> {
    let reason = "runAsNonRoot != true";
    if let Some(setters) = pod.setters(|context| context["runAsNonRoot"] == false) {
        return violation(
            reason,
            format!("{setters} must not set securityContext.runAsNonRoot=false"),
        );
    }
    let silent = pod.named(|container| !container["securityContext"]["runAsNonRoot"].is_boolean());
    if pod.spec["securityContext"]["runAsNonRoot"] == true || silent.is_empty() {
        return None;
    }
    violation(
        reason,
        format!(
            "pod or {} must set securityContext.runAsNonRoot=true",
            containers_called(&silent)
        ),
    )
}

fn run_as_user(pod: &Pod<'_>) -> Option<Violation> {
    let setters = pod.setters(|context| context["runAsUser"] == 0)?;
    violation("runAsUser=0", format!("{setters} must not set runAsUser=0"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(level: Level, spec: Value, expect: &[&str]) {
        let found: Vec<String> = level
            .check(&json!({ "metadata": {}, "spec": spec }))
            .into_iter()
            .map(|found| format!("{} ({})", found.reason, found.detail))
            .collect();
        assert_eq!(found, expect);
    }

    fn careful() -> Value {
        json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] }, "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } })
    }

    #[test]
    fn levels_name_what_they_forbid() {
        let plain = json!({ "containers": [{ "name": "c" }] });
        check(
            Level::Privileged,
            json!({ "hostNetwork": true, "containers": [{ "name": "c", "securityContext": { "privileged": true } }] }),
            &[],
        );
        check(Level::Baseline, plain.clone(), &[]);
        check(
            Level::Restricted,
            plain,
            &[
                r#"allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false)"#,
                r#"unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"])"#,
                r#"runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true)"#,
                r#"seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#,
            ],
        );
        check(
            Level::Restricted,
            json!({ "containers": [{ "name": "c", "securityContext": careful() }], "volumes": [{ "name": "v", "emptyDir": {} }] }),
            &[],
        );
        check(
            Level::Restricted,
            json!({ "containers": [{ "name": "c", "securityContext": careful() }], "volumes": [{ "name": "v", "hostPath": {} }] }),
            &[r#"restricted volume types (volume "v" uses restricted volume type "hostPath")"#],
        );
    }

    #[test]
    fn baseline_forbids_the_host() {
        let spec = json!({
            "hostNetwork": true, "hostPID": true,
            "securityContext": { "sysctls": [{ "name": "kernel.msgmax" }], "seccompProfile": { "type": "Unconfined" } },
            "volumes": [{ "name": "h", "hostPath": {} }],
            "containers": [
                { "name": "a", "ports": [{ "hostPort": 80 }], "securityContext": { "capabilities": { "add": ["SYS_ADMIN", "CHOWN"] } } },
                { "name": "b", "ports": [{ "hostPort": 81 }], "securityContext": { "privileged": true, "seLinuxOptions": { "user": "u", "type": "x" } } },
            ],
        });
        check(
            Level::Baseline,
            spec,
            &[
                r#"non-default capabilities (container "a" must not include "SYS_ADMIN" in securityContext.capabilities.add)"#,
                "host namespaces (hostNetwork=true, hostPID=true)",
                r#"hostPath volumes (volume "h")"#,
                r#"hostPort (containers "a", "b" use hostPorts 80, 81)"#,
                r#"privileged (container "b" must not set securityContext.privileged=true)"#,
                r#"seLinuxOptions (container "b" set forbidden securityContext.seLinuxOptions: type "x"; user may not be set)"#,
                r#"seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined")"#,
                "forbidden sysctls (kernel.msgmax)",
            ],
        );
    }
}
