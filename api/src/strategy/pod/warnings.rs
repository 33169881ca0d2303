//! Sentences for accepted pods that will surprise. Mirrors `pkg/api/pod/warnings.go`.
use std::collections::{BTreeMap, BTreeSet};

use crate::strategy::field::Field;
use crate::strategy::names;

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
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
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

/// The name under which a deprecated source is reported.
fn reported_as(kind: &'static str) -> &'static str {
    if kind == "storageos" { "storageOS" } else { kind }
}

/// Warnings of volume sources that do nothing any more, of those named in `kinds`.
pub fn deprecated_volume_warnings(source: &Field<'_>, kinds: &[&str], warnings: &mut Vec<String>) {
    for kind in kinds {
        let known = DEPRECATED_VOLUMES.iter().find(|(name, _)| name == kind);
        if let Some((name, sentence)) = known.filter(|(name, _)| source.get(name).is_set()) {
            warnings.push(format!("{}: {sentence}", source.shown_as(name, reported_as(name)).path()));
        }
    }
}

/// Warnings for a pod, or for a pod template: anything with `metadata` and `spec`.
pub fn template_warnings(template: &Field<'_>, warnings: &mut Vec<String>) {
    let spec = template.get("spec");
    for (key, label) in spec.get("nodeSelector").entries() {
        warn_of(DEPRECATED_NODE_LABELS, key, &label.path(), warnings);
    }
    node_affinity(&spec.get("affinity").get("nodeAffinity"), warnings);
    topology_spread(&spec, warnings);
    for (key, annotation) in template.get("metadata").get("annotations").entries() {
        warn_of(DEPRECATED_ANNOTATIONS, key, &annotation.path(), warnings);
    }
    let kinds: Vec<&str> = DEPRECATED_VOLUMES.iter().map(|(kind, _)| *kind).collect();
    spec.get("volumes").items().for_each(|volume| deprecated_volume_warnings(&volume, &kinds, warnings));
    host_aliases(&spec.get("hostAliases"), warnings);
    pull_secrets(&spec.get("imagePullSecrets"), warnings);
    fractional_bytes(&spec.get("overhead"), warnings);
    let containers =
        || ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|list| spec.get(list).items());
    for container in containers() {
        let resources = container.get("resources");
        for name in ["memory", "ephemeral-storage"] {
            for list in ["limits", "requests"] {
                fractional_byte(&resources.get(list).key(name), warnings);
            }
        }
        duplicate_env(&container, warnings);
    }
    let mut ports = Ports::new();
    for container in containers() {
        container.get("ports").items().for_each(|port| overlapping_port(port, &mut ports, warnings));
    }
    let mut named: BTreeMap<&str, String> = BTreeMap::new();
    for port in containers().flat_map(|container| container.get("ports").items()) {
        let name = port.get("name").str();
        match named.get(name) {
            _ if name.is_empty() => {}
            Some(first) => warnings.push(format!(
                "{}: duplicate port name {name:?} with {first}, services and probes that select ports by name will use {first}",
                port.path()
            )),
            None => {
                named.insert(name, port.path());
            }
        }
    }
    if spec.get("terminationGracePeriodSeconds").int().is_some_and(|seconds| seconds < 0) {
        let path = spec.get("terminationGracePeriodSeconds").path();
        warnings.push(format!("{path}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    null_selectors(&spec, warnings);
}

fn warn_of(table: &[(&str, &str)], key: &str, path: &str, warnings: &mut Vec<String>) {
    if let Some((_, sentence)) = table.iter().find(|(name, _)| *name == key) {
        warnings.push(format!("{path}: {sentence}"));
    }
}

fn node_affinity(affinity: &Field<'_>, warnings: &mut Vec<String>) {
    let required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution").get("nodeSelectorTerms");
    node_selector_warnings(&required, warnings);
    for weighted in affinity.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
        let term = weighted.get("preference");
        deprecated_keys(&term, warnings);
        for value in term.get("matchExpressions").items().flat_map(|expression| expression.get("values").items()) {
            for complaint in names::label_value(value.str()) {
                warnings.push(format!("{}: {} is invalid, {complaint}", value.path(), value.str()));
            }
        }
    }
}

/// Warnings of the labels that the terms of a node selector name.
pub fn node_selector_warnings(terms: &Field<'_>, warnings: &mut Vec<String>) {
    terms.items().for_each(|term| deprecated_keys(&term, warnings));
}

fn deprecated_keys(term: &Field<'_>, warnings: &mut Vec<String>) {
    for key in term.get("matchExpressions").items().map(|expression| expression.get("key")) {
        if let Some((label, sentence)) = DEPRECATED_NODE_LABELS.iter().find(|(label, _)| *label == key.str()) {
            warnings.push(format!("{}: {label} is {sentence}", key.path()));
        }
    }
}

/// A selector that is missing selects nothing, which is rarely meant.
fn null_selectors(spec: &Field<'_>, warnings: &mut Vec<String>) {
    let mut warn = |term: &Field<'_>| {
        let selector = term.get("labelSelector");
        if !selector.is_set() {
            warnings.push(format!("{}: a null labelSelector results in matching no pod", selector.path()));
        }
    };
    for kind in ["podAffinity", "podAntiAffinity"] {
        let affinity = spec.get("affinity").get(kind);
        affinity.get("requiredDuringSchedulingIgnoredDuringExecution").items().for_each(|term| warn(&term));
        for weighted in affinity.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
            warn(&weighted.get("podAffinityTerm"));
        }
    }
}

fn topology_spread(spec: &Field<'_>, warnings: &mut Vec<String>) {
    for constraint in spec.get("topologySpreadConstraints").items() {
        let (key, selector) = (constraint.get("topologyKey"), constraint.get("labelSelector"));
        if let Some((label, sentence)) = DEPRECATED_NODE_LABELS.iter().find(|(label, _)| *label == key.str()) {
            warnings.push(format!("{}: {label} is {sentence}", key.path()));
        }
        if !selector.is_set() {
            warnings.push(format!("{}: a null labelSelector results in matching no pod", selector.path()));
        }
    }
}

fn host_aliases(aliases: &Field<'_>, warnings: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for ip in aliases.items().map(|alias| alias.get("ip")) {
        if !seen.insert(ip.str()) {
            warnings.push(format!("{}: duplicate ip {:?}", ip.path(), ip.str()));
        }
    }
}

fn pull_secrets(secrets: &Field<'_>, warnings: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for name in secrets.items().map(|secret| secret.get("name")) {
        if !seen.insert(name.str()) {
            warnings.push(format!("{}: duplicate name {:?}", name.path(), name.str()));
        }
    }
    for name in secrets.items().map(|secret| secret.get("name")).filter(Field::is_empty) {
        warnings.push(format!("{}: invalid empty name \"\"", name.path()));
    }
}

fn duplicate_env(container: &Field<'_>, warnings: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for variable in container.get("env").items() {
        let (name, value) = (variable.get("name").str(), variable.get("value").str());
        // `PATH=$(PATH):…` builds on the earlier definition instead of hiding it.
        let reference = format!("$({name})");
        let refers = value.contains(&reference) && value != reference && !variable.get("valueFrom").is_set();
        if !seen.insert(name) && !refers {
            let path = variable.path();
            warnings
                .push(format!("{path}: hides previous definition of {name:?}, which may be dropped when using apply"));
        }
    }
}

fn fractional_bytes(amounts: &Field<'_>, warnings: &mut Vec<String>) {
    for name in ["memory", "ephemeral-storage"] {
        fractional_byte(&amounts.key(name), warnings);
    }
}

fn fractional_byte(amount: &Field<'_>, warnings: &mut Vec<String>) {
    if amount.quantity().is_some_and(|quantity| quantity.milli_value() % 1000 != 0) {
        let (path, shown) = (amount.path(), amount.str());
        warnings.push(format!("{path}: fractional byte value {shown:?} is invalid, must be an integer"));
    }
}

/// More warnings than an answer has room for.
const WARNINGS_MAX: usize = 1_000;

/// Ports by their number and protocol.
type Ports<'a> = BTreeMap<(i64, &'a str), Vec<Field<'a>>>;

/// Ports of one pod share its network: two that are the same, or may be, are worth a word. No pairs are gathered beyond
/// what an answer carries by far.
fn overlapping_port<'a>(port: Field<'a>, seen: &mut Ports<'a>, warnings: &mut Vec<String>) {
    let number = |port: &Field<'_>, name| port.get(name).int().unwrap_or(0);
    let (outside, address) = (number(&port, "hostPort"), port.get("hostIP").str());
    let (path, inside, protocol) = (port.path(), number(&port, "containerPort"), port.get("protocol").str());
    if !address.is_empty() && outside == 0 {
        let name = port.get("name").str();
        warnings.push(format!(
            "{path}: hostIP set without hostPort: {{Name:{name} HostPort:0 ContainerPort:{inside} Protocol:{protocol} HostIP:{address}}}"
        ));
    }
    let alike = seen.entry((inside, protocol)).or_default();
    for other in alike.iter().take(WARNINGS_MAX.saturating_sub(warnings.len())) {
        let (others, its_address) = (number(other, "hostPort"), other.get("hostIP").str());
        let what = if address == its_address && outside == others {
            "duplicate"
        } else if outside == 0 || others == 0 {
            "overlapping"
        } else if outside == others && address.is_empty() != its_address.is_empty() {
            "dangerously ambiguous"
        } else {
            continue;
        };
        warnings.push(format!("{path}: {what} port definition with {}", other.path()));
    }
    alike.push(port);
}
