//! The levels, and what their checks share: a pod's containers, and how messages name them.
//!
//! Violations are named in the order of the checks: those of `baseline` by name, then those of `restricted` by name; a
//! restricted check takes the place of the baseline check of the same thing (`k8s.io/pod-security-admission/policy`).

use std::collections::BTreeSet;

use serde_json::Value;

use super::{baseline::BASELINE, restricted::RESTRICTED};
use crate::admission::items;

/// The minor version of Kubernetes whose checks count; without a pin the newest.
pub(super) type Minor = u32;

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

pub(super) type Check = fn(&Pod<'_>) -> Option<Violation>;

/// A check: its name, the version that has it first, and itself.
pub(super) type Row = (&'static str, Minor, Check);

impl Level {
    /// A label's value.
    pub(super) fn parse(text: &str) -> Option<Level> {
        [Level::Privileged, Level::Baseline, Level::Restricted].into_iter().find(|level| level.as_str() == text)
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        }
    }

    /// What of a pod (or pod template) the level forbids, as of a version.
    pub(super) fn check(self, version: Minor, pod: &Value) -> Vec<Violation> {
        let pod = Pod { metadata: &pod["metadata"], spec: &pod["spec"], version };
        let known = |(_, since, _): &&Row| *since <= version;
        let restricted: Vec<&Row> = RESTRICTED.iter().filter(|_| self == Level::Restricted).filter(known).collect();
        let replaced = |name: &str| restricted.iter().any(|(own, ..)| *own == name);
        let baseline = BASELINE.iter().filter(|(name, ..)| self != Level::Privileged && !replaced(name)).filter(known);
        baseline.chain(restricted.iter().copied()).filter_map(|(_, _, check)| check(&pod)).collect()
    }
}

pub(super) struct Pod<'a> {
    pub(super) metadata: &'a Value,
    pub(super) spec: &'a Value,
    /// By whose checks it is judged.
    version: Minor,
}

impl<'a> Pod<'a> {
    pub(super) fn containers(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        let spec = self.spec;
        ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(move |list| items(&spec[list]))
    }

    pub(super) fn named(&self, test: impl Fn(&Value) -> bool) -> Vec<&'a str> {
        self.containers().filter(|container| test(container)).map(name).collect()
    }

    /// Whether the checks are those of a version or of a later one.
    pub(super) fn is_judged_since(&self, version: Minor) -> bool {
        version <= self.version
    }

    /// Whether it need not do what Windows does not know.
    pub(super) fn is_windows(&self) -> bool {
        self.is_judged_since(25) && self.spec["os"]["name"] == "windows"
    }

    /// Whether its users are not those of the host, root included.
    pub(super) fn has_own_users(&self) -> bool {
        self.is_judged_since(35) && self.spec["hostUsers"] == false
    }

    /// `pod` and the containers whose security context passes a test, as in `pod and containers "a", "b"`.
    pub(super) fn setters(&self, test: impl Fn(&Value) -> bool) -> Option<String> {
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
    pub(super) fn values(&self, field: impl Fn(&'a Value) -> Option<&'a str>) -> BTreeSet<&'a str> {
        let own = field(&self.spec["securityContext"]);
        own.into_iter().chain(self.containers().filter_map(|container| field(&container["securityContext"]))).collect()
    }
}

pub(super) fn name(value: &Value) -> &str {
    value["name"].as_str().unwrap_or_default()
}

pub(super) fn quoted<'s>(names: impl IntoIterator<Item = &'s str>) -> String {
    names.into_iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}

pub(super) fn plural<'s>(one: &'s str, many: &'s str, count: usize) -> &'s str {
    if count == 1 { one } else { many }
}

/// `container "a"`, `containers "a", "b"`.
pub(super) fn containers_called(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names.iter().copied()))
}

pub(super) fn violation(reason: &str, detail: String) -> Option<Violation> {
    Some(Violation { reason: reason.to_owned(), detail })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(level: Level, spec: Value, expect: &[&str]) {
        check_as_of(Minor::MAX, level, spec, expect);
    }

    fn check_as_of(version: Minor, level: Level, spec: Value, expect: &[&str]) {
        let found: Vec<String> = level
            .check(version, &json!({ "metadata": {}, "spec": spec }))
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
    fn a_pinned_version_is_judged_as_it_was() {
        let root = json!({ "hostUsers": false, "securityContext": { "runAsUser": 0 }, "containers": [{ "name": "c", "securityContext": careful() }] });
        check(Level::Restricted, root.clone(), &[]);
        check_as_of(34, Level::Restricted, root.clone(), &["runAsUser=0 (pod must not set runAsUser=0)"]);
        check_as_of(22, Level::Restricted, root, &[]);
        let sysctl = json!({ "securityContext": { "sysctls": [{ "name": "net.ipv4.tcp_rmem" }] }, "containers": [] });
        check(Level::Baseline, sysctl.clone(), &[]);
        check_as_of(31, Level::Baseline, sysctl, &["forbidden sysctls (net.ipv4.tcp_rmem)"]);
        let unmasked = json!({ "hostUsers": false, "containers": [{ "name": "c", "securityContext": { "procMount": "Unmasked" } }] });
        let forbidden = r#"procMount (container "c" must not set securityContext.procMount to "Unmasked")"#;
        check(Level::Baseline, unmasked.clone(), &[]);
        check_as_of(34, Level::Baseline, unmasked.clone(), &[forbidden]);
        let found = Level::Restricted.check(Minor::MAX, &json!({ "spec": unmasked }));
        assert!(found.iter().any(|found| found.reason == "procMount"), "{found:?}");
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
