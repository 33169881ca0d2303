//! The pod spec as a whole: `ValidatePodSpec` of `pkg/apis/core/validation/validation.go`, in its order.
use super::containers::{self, Surroundings};
use super::{resources, scheduling, security, volumes};
use crate::strategy::field::{Errors, Field};
use crate::strategy::{labels, meta, names};

const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCHES_MAX_CHARACTERS: usize = 2048;

/// What is wrong with a pod spec.
pub fn validate_pod_spec(spec: &Field<'_>, errors: &mut Errors) {
    let grace = spec.get("terminationGracePeriodSeconds");
    if !grace.is_set() {
        errors.push(grace.required(""));
    }
    if let Some(resources) = spec.get("resources").set() {
        pod_level_resources(&resources, errors);
    }
    volumes::validate(&spec.get("volumes"), errors);
    let claims = resource_claims(&spec.get("resourceClaims"), errors);
    let around = Surroundings {
        spec: spec.clone(),
        volumes: spec
            .get("volumes")
            .items()
            .map(|volume| {
                let claim = volume.get("persistentVolumeClaim").is_set() || volume.get("ephemeral").is_set();
                (volume.get("name").str(), claim)
            })
            .collect(),
        claims,
        grace: grace.int().unwrap_or(0),
    };
    containers::validate(&around, errors);
    spec.get("restartPolicy").one_of(&["Always", "OnFailure", "Never"], errors);
    spec.get("dnsPolicy").one_of(&["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"], errors);
    scheduling::validate_node_labels(&spec.get("nodeSelector"), errors);
    security::validate_pod(spec, errors);
    for secret in spec.get("imagePullSecrets").items() {
        if secret.get("name").str().is_empty() && secret.get("name").is_set() {
            errors.push(secret.get("name").required(""));
        }
    }
    scheduling::validate_affinity(&spec.get("affinity"), errors);
    dns_config(spec, errors);
    gates(spec, errors);
    scheduling::validate_topology_spread(&spec.get("topologySpreadConstraints"), errors);
    identity(spec, errors);
    scheduling::validate_tolerations(&spec.get("tolerations"), errors);
    host_aliases(&spec.get("hostAliases"), errors);
    classes(spec, errors);
}

/// What is wrong with a pod template: labels, annotations and a spec that is not a running pod's.
pub fn validate_pod_template(template: &Field<'_>, errors: &mut Errors) {
    meta::labels(&template.get("metadata").get("labels"), errors);
    meta::annotations(&template.get("metadata").get("annotations"), errors);
    validate_pod_spec(&template.get("spec"), errors);
    let ephemeral = template.get("spec").get("ephemeralContainers");
    if !ephemeral.is_empty() {
        errors.push(ephemeral.forbidden("ephemeral containers not allowed in pod template"));
    }
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
        errors.push(selector.invalid("invalid label selector"));
        return false;
    }
    true
}

/// The template of a workload whose selector must match it; `what` names the kind in the sentence on empty selectors.
pub fn validate_selected_template(spec: &Field<'_>, what: &str, errors: &mut Errors) {
    let (selector, template) = (spec.get("selector"), spec.get("template"));
    if !validate_selector(&selector, what, errors) {
        return;
    }
    if !template.is_set() {
        errors.push(template.required(""));
        return;
    }
    selected_labels(&selector, &template, errors);
    validate_pod_template(&template, errors);
}

/// The template of a StatefulSet. Its spec is not looked into: the claims that its containers mount become volumes only
/// in the pods (`pkg/apis/apps/validation`, `ValidatePodTemplateSpecForStatefulSet`).
pub fn validate_stateful_template(spec: &Field<'_>, errors: &mut Errors) {
    let (selector, template) = (spec.get("selector"), spec.get("template"));
    validate_selector(&selector, "statefulset", errors);
    if !template.is_set() {
        errors.push(template.required(""));
        return;
    }
    selected_labels(&selector, &template, errors);
    meta::labels(&template.get("metadata").get("labels"), errors);
    meta::annotations(&template.get("metadata").get("annotations"), errors);
}

fn selected_labels(selector: &Field<'_>, template: &Field<'_>, errors: &mut Errors) {
    let own = template.get("metadata").get("labels");
    if selector.is_set() && !labels::is_empty(selector.value()) && !labels::matches(selector.value(), own.value()) {
        let shown = if own.is_set() { own.value().clone() } else { serde_json::json!({}) };
        errors.push(own.invalid_as(shown, "`selector` does not match template `labels`"));
    }
}

fn pod_level_resources(resources: &Field<'_>, errors: &mut Errors) {
    for list in ["limits", "requests"] {
        for (name, quantity) in resources.get(list).entries() {
            if !matches!(name, "cpu" | "memory") && !name.starts_with("hugepages-") {
                errors.push(quantity.not_supported(&["cpu", "hugepages-", "memory"]));
            }
            resources::validate_quantity(&quantity, name, errors);
        }
    }
    if let Some(claim) = resources.get("claims").set() {
        errors.push(claim.forbidden("claims may not be set for Resources at pod-level"));
    }
    let mut rest = Errors::new();
    resources::validate(resources, &[], &mut rest);
    errors.extend(rest.into_iter().filter(|error| error.detail.starts_with("must be less than or equal to")));
}

fn resource_claims<'a>(claims: &Field<'a>, errors: &mut Errors) -> Vec<&'a str> {
    let mut seen: Vec<&str> = Vec::new();
    for claim in claims.items() {
        let name = claim.get("name");
        if name.is_empty() {
            errors.push(name.required(""));
        } else if seen.contains(&name.str()) {
            errors.push(name.duplicate());
        } else {
            name.check(names::dns1123_label(name.str()), errors);
            seen.push(name.str());
        }
        let sources = ["resourceClaimName", "resourceClaimTemplateName"].map(|source| claim.get(source).is_set());
        match sources {
            [true, true] => errors.push(
                claim.invalid("at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"),
            ),
            [false, false] => {
                errors.push(claim.invalid("must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"))
            }
            _ => {}
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
        let name = search.str().trim_end_matches('.').replace('_', "-");
        search.check(names::dns1123_subdomain(&name), errors);
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
    let mut seen: Vec<&str> = Vec::new();
    for gate in spec.get("schedulingGates").items() {
        let name = gate.get("name");
        gate.with(name.value()).check(names::qualified_name(name.str()), errors);
        if seen.contains(&name.str()) {
            errors.push(gate.with(name.value()).duplicate());
        }
        seen.push(name.str());
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
        name.check(names::dns1123_subdomain(name.str()), errors);
        if spec.get("hostNetwork").bool() {
            errors.push(name.forbidden("may not be set when hostNetwork is true"));
        }
        if spec.get("setHostnameAsFQDN").bool() {
            errors.push(name.forbidden("may not be set when setHostnameAsFQDN is true"));
        }
    }
}

fn host_aliases(aliases: &Field<'_>, errors: &mut Errors) {
    for alias in aliases.items() {
        let ip = alias.get("ip");
        ip.check(names::ip(ip.str()), errors);
        for name in alias.get("hostnames").items() {
            let at_list = alias.get("hostnames");
            at_list.with(name.value()).check(names::dns1123_subdomain(name.str()), errors);
        }
    }
}

fn classes(spec: &Field<'_>, errors: &mut Errors) {
    for name in ["priorityClassName", "runtimeClassName"] {
        let field = spec.get(name);
        if !field.is_empty() {
            field.check(names::dns1123_subdomain(field.str()), errors);
        }
    }
    let policy = spec.get("preemptionPolicy");
    if policy.is_set() {
        policy.one_of(&["PreemptLowerPriority", "Never"], errors);
    }
    for (name, quantity) in spec.get("overhead").entries() {
        resources::validate_name(&quantity, name, errors);
        resources::validate_quantity(&quantity, name, errors);
    }
    if let Some(os) = spec.get("os").set() {
        os.get("name").one_of(&["linux", "windows"], errors);
    }
}
