//! The pod spec as a whole: `ValidatePodSpec` of `pkg/apis/core/validation/validation.go`, in its order.
use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::containers::{self, Surroundings};
use super::{os, resources, scheduling, security, volumes};
use crate::strategy::field::{Errors, Field};
use crate::strategy::{edit, labels, meta, names};

const NAMESERVERS_MAX: usize = 3;
/// Most bytes that Linux takes as the name of a machine.
const HOSTNAME_MAX: usize = 64;
const SEARCHES_MAX: usize = 32;
const SEARCHES_MAX_CHARACTERS: usize = 2048;

/// What is wrong with a pod spec. `pod` is the pod's name, empty in a template.
pub fn validate_pod_spec(spec: &Field<'_>, pod: &str, errors: &mut Errors) {
    let grace = spec.get("terminationGracePeriodSeconds");
    if !grace.is_set() {
        errors.push(grace.required(""));
    }
    let sound = volumes::validate(&spec.get("volumes"), pod, errors);
    let claims = resource_claims(&spec.get("resourceClaims"), errors);
    resources::validate_pod_level(spec, &claims, errors);
    let around = Surroundings { spec: spec.clone(), volumes: sound, claims, grace: grace.int().unwrap_or(0) };
    containers::validate(&around, errors);
    spec.get("restartPolicy").one_of(&["Always", "OnFailure", "Never"], errors);
    spec.get("dnsPolicy").one_of(&["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"], errors);
    scheduling::validate_node_labels(&spec.get("nodeSelector"), errors);
    security::validate_pod(spec, pod, errors);
    for secret in spec.get("imagePullSecrets").items() {
        if secret.get("name").str().is_empty() && secret.get("name").is_set() {
            errors.push(secret.get("name").required(""));
        }
    }
    scheduling::validate_affinity(&spec.get("affinity"), errors);
    dns_config(spec, errors);
    gates(spec, errors);
    scheduling::validate_topology_spread(&spec.get("topologySpreadConstraints"), errors);
    os::validate_host_process(spec, errors);
    identity(spec, errors);
    scheduling::validate_tolerations(&spec.get("tolerations"), errors);
    host_aliases(&spec.get("hostAliases"), errors);
    classes(spec, errors);
}

/// What is wrong with a pod template: labels, annotations and a spec that is not a running pod's.
pub fn validate_pod_template(template: &Field<'_>, errors: &mut Errors) {
    template_labels(template, errors);
    validate_pod_spec(&template.get("spec"), "", errors);
    let ephemeral = template.get("spec").get("ephemeralContainers");
    if !ephemeral.is_empty() {
        errors.push(ephemeral.forbidden("ephemeral containers not allowed in pod template"));
    }
}

/// Labels and annotations of a template, which are reported as if they stood beside its metadata.
fn template_labels(template: &Field<'_>, errors: &mut Errors) {
    let metadata = template.get("metadata");
    meta::labels(&template.get("labels").with(metadata.get("labels").value()), errors);
    meta::annotations(&template.get("annotations").with(metadata.get("annotations").value()), errors);
}

/// Whether the selector can be read at all.
fn validate_selector(selector: &Field<'_>, what: &str, errors: &mut Errors) -> bool {
    if !selector.is_set() {
        errors.push(selector.required(""));
        return true;
    }
    labels::validate_selector(selector, errors);
    if labels::is_empty(selector.value()) {
        errors.push(selector.invalid(format!("empty selector is invalid for {what}")));
    }
    if !labels::is_readable(selector.value()) {
        // Of a StatefulSet Kubernetes says no more than that.
        let detail = if what == "statefulset" { "" } else { "invalid label selector" };
        errors.push(selector.invalid(detail).showing(labels::shown(selector.value())));
        return false;
    }
    true
}

/// The template of a workload whose selector must match it; `what` names the kind in the sentence on empty selectors.
/// Gives the template if it could be looked into, which takes a selector that can be read.
pub fn validate_selected_template<'a>(spec: &Field<'a>, what: &str, errors: &mut Errors) -> Option<Field<'a>> {
    let (selector, template) = (spec.get("selector"), spec.get("template"));
    if !validate_selector(&selector, what, errors) {
        return None;
    }
    if !template.is_set() {
        errors.push(template.required(""));
        return None;
    }
    selected_labels(&selector, &template, errors);
    validate_pod_template(&template, errors);
    Some(template)
}

/// The template of a DaemonSet: its selector is not asked for, only that it matches and is not empty.
pub fn validate_daemon_template(spec: &Field<'_>, errors: &mut Errors) {
    let (selector, template) = (spec.get("selector"), spec.get("template"));
    labels::validate_selector(&selector, errors);
    if labels::is_readable(selector.value())
        && !labels::matches(selector.value(), template.get("metadata").get("labels").value())
    {
        let own = template.get("metadata").get("labels");
        errors.push(own.invalid_as(own.value().clone(), "`selector` does not match template `labels`"));
    }
    if selector.is_set() && labels::is_empty(selector.value()) {
        errors.push(selector.invalid("empty selector is invalid for daemonset"));
    }
    validate_pod_template(&template, errors);
}

/// The template of a StatefulSet, as its controller will use it: with a volume for each claim, and host names of its
/// own making (`pkg/apis/apps/validation.ValidateStatefulSetSpec`).
pub fn validate_stateful_template(spec: &Field<'_>, errors: &mut Errors) {
    let (selector, template) = (spec.get("selector"), spec.get("template"));
    if !validate_selector(&selector, "statefulset", errors) {
        return;
    }
    if !template.is_set() {
        errors.push(template.required(""));
        return;
    }
    selected_labels(&selector, &template, errors);
    let claims: BTreeSet<&str> =
        spec.get("volumeClaimTemplates").items().map(|claim| claim.get("metadata").get("name").str()).collect();
    let mut used = template.value().clone();
    if let Some(inner) = edit::member(&mut used, "spec") {
        edit::take(inner, "subdomain");
        edit::take(inner, "hostname");
        let own = template.get("spec").get("volumes");
        let made = claims.iter().map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}}));
        let kept = own.items().filter(|volume| !claims.contains(&volume.get("name").str()));
        let volumes: Vec<Value> = made.chain(kept.map(|volume| volume.value().clone())).collect();
        edit::set(inner, "volumes", volumes);
    }
    validate_pod_template(&template.with(&used), errors);
}

fn selected_labels(selector: &Field<'_>, template: &Field<'_>, errors: &mut Errors) {
    let own = template.get("metadata").get("labels");
    if (!selector.is_set() || !labels::is_empty(selector.value())) && !labels::matches(selector.value(), own.value()) {
        errors.push(own.invalid_as(own.value().clone(), "`selector` does not match template `labels`"));
    }
}

fn resource_claims<'a>(claims: &Field<'a>, errors: &mut Errors) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    for claim in claims.items() {
        let name = claim.get("name");
        if name.is_empty() {
            errors.push(name.required(""));
        } else if !seen.insert(name.str()) {
            errors.push(name.duplicate());
        } else {
            name.check(names::dns1123_label(name.str()), errors);
        }
        // Kubernetes shows the claim as it has it inside.
        let shown = serde_json::json!({
            "Name": name.str(),
            "ResourceClaimName": claim.get("resourceClaimName").value(),
            "ResourceClaimTemplateName": claim.get("resourceClaimTemplateName").value(),
        });
        let sources = ["resourceClaimName", "resourceClaimTemplateName"].map(|source| claim.get(source).is_set());
        match sources {
            [true, true] => errors.push(claim.invalid_as(
                shown.clone(),
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
            )),
            [false, false] => errors.push(
                claim
                    .invalid_as(shown.clone(), "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"),
            ),
            _ => {}
        }
        for source in ["resourceClaimName", "resourceClaimTemplateName"] {
            if let Some(source) = claim.get(source).set() {
                source.check(names::dns1123_subdomain(source.str()), errors);
            }
        }
    }
    seen
}

fn dns_config(spec: &Field<'_>, errors: &mut Errors) {
    let config = spec.get("dnsConfig");
    if spec.get("dnsPolicy").str() == "None" {
        if !config.is_set() {
            errors.push(config.required("must provide `dnsConfig` when `dnsPolicy` is None"));
            return;
        }
        if config.get("nameservers").is_empty() {
            errors.push(
                config.get("nameservers").required("must provide at least one DNS nameserver when `dnsPolicy` is None"),
            );
            return;
        }
    }
    let (servers, searches) = (config.get("nameservers"), config.get("searches"));
    if servers.len() > NAMESERVERS_MAX {
        errors.push(servers.invalid(format!("must not have more than {NAMESERVERS_MAX} nameservers")));
    }
    servers.items().for_each(|server| server.check(names::ip(server.str()), errors));
    if searches.len() > SEARCHES_MAX {
        errors.push(searches.invalid(format!("must not have more than {SEARCHES_MAX} search paths")));
    }
    let characters: usize = searches.items().map(|search| search.len() + 1).sum();
    if characters > SEARCHES_MAX_CHARACTERS + 1 {
        errors.push(searches.invalid(format!(
            "must not have more than {SEARCHES_MAX_CHARACTERS} characters (including spaces) in the search list"
        )));
    }
    for search in searches.items().filter(|search| search.str() != ".") {
        let name = Value::from(search.str().strip_suffix('.').unwrap_or(search.str()));
        search.with(&name).check(names::dns1123_subdomain_with_underscore(name.as_str().unwrap_or("")), errors);
    }
    for option in config.get("options").items() {
        if option.get("name").is_empty() {
            errors.push(option.required("must not be empty"));
        }
    }
}

fn gates(spec: &Field<'_>, errors: &mut Errors) {
    for gate in spec.get("readinessGates").items() {
        let condition = gate.get("conditionType");
        condition.check(names::qualified_name(condition.str()), errors);
    }
    let mut seen = BTreeSet::new();
    for gate in spec.get("schedulingGates").items() {
        let name = gate.get("name");
        gate.with(name.value()).check(names::qualified_name(name.str()), errors);
        if !seen.insert(name.str()) {
            errors.push(gate.with(name.value()).duplicate());
        }
    }
}

fn identity(spec: &Field<'_>, errors: &mut Errors) {
    for name in ["serviceAccountName", "nodeName"] {
        let field = spec.get(name);
        if !field.is_empty() {
            field.check(names::dns1123_subdomain(field.str()), errors);
        }
    }
    let deadline = spec.get("activeDeadlineSeconds");
    if deadline.int().is_some_and(|seconds| !(1..=i64::from(i32::MAX)).contains(&seconds)) {
        errors.push(deadline.invalid(names::out_of_range(1, i64::from(i32::MAX))));
    }
    for name in ["hostname", "subdomain"] {
        let field = spec.get(name);
        if !field.is_empty() {
            field.check(names::dns1123_label(field.str()), errors);
        }
    }
    if let Some(name) = spec.get("hostnameOverride").set() {
        if spec.get("hostNetwork").bool() {
            errors.push(name.forbidden("may not be specified when hostNetwork is true"));
        }
        if spec.get("setHostnameAsFQDN").bool() {
            errors.push(name.forbidden("may not be specified when setHostnameAsFQDN is true"));
        }
        name.check(names::dns1123_subdomain(name.str()), errors);
        if name.len() > HOSTNAME_MAX {
            errors.push(name.too_long(HOSTNAME_MAX));
        }
    }
}

fn host_aliases(aliases: &Field<'_>, errors: &mut Errors) {
    for alias in aliases.items() {
        let ip = alias.get("ip");
        ip.check(names::ip(ip.str()), errors);
        for name in alias.get("hostnames").items() {
            name.check(names::dns1123_subdomain(name.str()), errors);
        }
    }
}

fn classes(spec: &Field<'_>, errors: &mut Errors) {
    let (priority, runtime) = (spec.get("priorityClassName"), spec.get("runtimeClassName"));
    if !priority.is_empty() {
        priority.check(names::dns1123_subdomain(priority.str()), errors);
    }
    if runtime.is_set() {
        runtime.check(names::dns1123_subdomain(runtime.str()), errors);
    }
    let policy = spec.get("preemptionPolicy");
    if policy.is_set() {
        policy.one_of(&["PreemptLowerPriority", "Never"], errors);
    }
    // Overhead is judged as the limits of a container, and reported so.
    let overhead = serde_json::json!({"limits": spec.get("overhead").value()});
    resources::validate(&spec.get("overhead").with(&overhead), &BTreeSet::new(), errors);
    os::validate(spec, errors);
}
