//! Sentences for accepted pods that will surprise. Mirrors `pkg/api/pod/warnings.go`.
use std::collections::BTreeMap;

use crate::strategy::field::Field;

const DEPRECATED_NODE_LABELS: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", r#"deprecated since v1.14; use "kubernetes.io/arch" instead"#),
    ("beta.kubernetes.io/os", r#"deprecated since v1.14; use "kubernetes.io/os" instead"#),
    (
        "failure-domain.beta.kubernetes.io/region",
        r#"deprecated since v1.17; use "topology.kubernetes.io/region" instead"#,
    ),
    ("failure-domain.beta.kubernetes.io/zone", r#"deprecated since v1.17; use "topology.kubernetes.io/zone" instead"#),
    ("beta.kubernetes.io/instance-type", r#"deprecated since v1.17; use "node.kubernetes.io/instance-type" instead"#),
];
const DEPRECATED_VOLUMES: &[(&str, &str)] = &[
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];
const DEPRECATED_ANNOTATIONS: &[(&str, &str)] = &[
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        r#"non-functional in v1.16+; use the "priorityClassName" field instead"#,
    ),
    ("seccomp.security.alpha.kubernetes.io/pod", r#"non-functional in v1.27+; use the "seccompProfile" field instead"#),
];

/// Warnings for a pod, or for a pod template: anything with `metadata` and `spec`.
pub fn template_warnings(template: &Field<'_>, warnings: &mut Vec<String>) {
    let spec = template.get("spec");
    for (key, label) in spec.get("nodeSelector").entries() {
        warn_of(DEPRECATED_NODE_LABELS, key, &label.path(), warnings);
    }
    node_affinity(&spec.get("affinity").get("nodeAffinity"), warnings);
    host_aliases(&spec.get("hostAliases"), warnings);
    pull_secrets(&spec.get("imagePullSecrets"), warnings);
    if spec.get("terminationGracePeriodSeconds").int().is_some_and(|seconds| seconds < 0) {
        let path = spec.get("terminationGracePeriodSeconds").path();
        warnings.push(format!("{path}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    for volume in spec.get("volumes").items() {
        for (kind, sentence) in DEPRECATED_VOLUMES {
            if volume.get(kind).is_set() {
                warnings.push(format!("{}: {sentence}", volume.get(kind).path()));
            }
        }
    }
    for (key, annotation) in template.get("metadata").get("annotations").entries() {
        warn_of(DEPRECATED_ANNOTATIONS, key, &annotation.path(), warnings);
    }
    let mut ports = BTreeMap::new();
    for list in ["initContainers", "containers"] {
        for container in spec.get(list).items() {
            duplicate_env(&container, warnings);
            fractional_bytes(&container, warnings);
            if list == "containers" {
                duplicate_ports(&container, &mut ports, warnings);
            }
        }
    }
}

fn warn_of(table: &[(&str, &str)], key: &str, path: &str, warnings: &mut Vec<String>) {
    if let Some((_, sentence)) = table.iter().find(|(name, _)| *name == key) {
        warnings.push(format!("{path}: {sentence}"));
    }
}

fn node_affinity(affinity: &Field<'_>, warnings: &mut Vec<String>) {
    let required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution").get("nodeSelectorTerms");
    let preferred = affinity.get("preferredDuringSchedulingIgnoredDuringExecution");
    let terms = required.items().chain(preferred.items().map(|term| term.get("preference")));
    for expression in terms.flat_map(|term| term.get("matchExpressions").items()) {
        let key = expression.get("key");
        if let Some((label, sentence)) = DEPRECATED_NODE_LABELS.iter().find(|(label, _)| *label == key.str()) {
            warnings.push(format!("{}: {label} is {sentence}", key.path()));
        }
    }
}

fn host_aliases(aliases: &Field<'_>, warnings: &mut Vec<String>) {
    let mut seen: Vec<&str> = Vec::new();
    for ip in aliases.items().map(|alias| alias.get("ip")) {
        if seen.contains(&ip.str()) {
            warnings.push(format!("{}: duplicate ip {:?}", ip.path(), ip.str()));
        }
        seen.push(ip.str());
    }
}

fn pull_secrets(secrets: &Field<'_>, warnings: &mut Vec<String>) {
    let mut seen: Vec<&str> = Vec::new();
    for secret in secrets.items() {
        let name = secret.get("name").str();
        if name.is_empty() {
            warnings.push(format!("{}: invalid empty name {name:?}", secret.path()));
        } else if seen.contains(&name) {
            warnings.push(format!("{}: duplicate name {name:?}", secret.path()));
        }
        seen.push(name);
    }
}

fn duplicate_env(container: &Field<'_>, warnings: &mut Vec<String>) {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for variable in container.get("env").items() {
        let (name, value) = (variable.get("name").str(), variable.get("value").str());
        // `PATH=$(PATH):…` builds on the earlier definition instead of hiding it.
        let refers = value.contains(&format!("$({name})"));
        if seen.contains_key(name) && !refers {
            let path = variable.path();
            warnings
                .push(format!("{path}: hides previous definition of {name:?}, which may be dropped when using apply"));
        }
        seen.insert(name, value);
    }
}

fn fractional_bytes(container: &Field<'_>, warnings: &mut Vec<String>) {
    for list in ["requests", "limits"] {
        for name in ["memory", "ephemeral-storage"] {
            let amount = container.get("resources").get(list).key(name);
            if amount.quantity().is_some_and(|quantity| quantity.milli_value() % 1000 != 0) {
                let (path, shown) = (amount.path(), amount.str());
                warnings.push(format!("{path}: fractional byte value {shown:?} is invalid, must be an integer"));
            }
        }
    }
}

fn duplicate_ports(
    container: &Field<'_>,
    seen: &mut BTreeMap<(i64, i64, String, String), String>,
    warnings: &mut Vec<String>,
) {
    for port in container.get("ports").items() {
        let number = |name| port.get(name).int().unwrap_or(0);
        let key = (
            number("containerPort"),
            number("hostPort"),
            port.get("protocol").str().to_owned(),
            port.get("hostIP").str().to_owned(),
        );
        match seen.get(&key) {
            Some(first) => warnings.push(format!("{}: duplicate port definition with {first}", port.path())),
            None => {
                seen.insert(key, port.path());
            }
        }
    }
}
