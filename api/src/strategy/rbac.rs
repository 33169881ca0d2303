//! Roles and bindings, of namespaces and of the cluster.
use serde_json::{Value, json};

use super::built_in::Behavior;
use super::field::{Errors, Field};
use super::{Subresource, edit, labels, names};

const GROUP: &str = "rbac.authorization.k8s.io";

/// `Role` and `ClusterRole`.
pub struct Role;

impl Behavior for Role {
    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let namespaced = !object.get("metadata").get("namespace").is_empty();
        for rule in object.get("rules").items() {
            policy_rule(&rule, namespaced, errors);
        }
        // What Kubernetes checks by declaration comes after what it checks by hand.
        for verbs in object.get("rules").items().map(|rule| rule.get("verbs")).filter(Field::is_empty) {
            errors.push(verbs.required(""));
        }
        if let Some(aggregation) = object.get("aggregationRule").set() {
            let selectors = aggregation.get("clusterRoleSelectors");
            if selectors.is_empty() {
                errors.push(
                    selectors.required("at least one clusterRoleSelector required if aggregationRule is non-nil"),
                );
            }
            for selector in selectors.items() {
                let before = errors.len();
                labels::validate_selector(&selector, errors);
                if errors.len() > before {
                    errors.push(selector.invalid_as(Value::Null, "invalid label selector."));
                }
            }
        }
    }
}

fn policy_rule(rule: &Field<'_>, namespaced: bool, errors: &mut Errors) {
    let (groups, resources, urls) = (rule.get("apiGroups"), rule.get("resources"), rule.get("nonResourceURLs"));
    if !urls.is_empty() {
        if namespaced {
            errors.push(urls.invalid("namespaced rules cannot apply to non-resource URLs"));
        }
        if !groups.is_empty() || !resources.is_empty() || !rule.get("resourceNames").is_empty() {
            errors.push(urls.invalid("rules cannot apply to both regular resources and non-resource URLs"));
        }
        return;
    }
    if groups.is_empty() {
        errors.push(groups.required("resource rules must supply at least one api group"));
    }
    if resources.is_empty() {
        errors.push(resources.required("resource rules must supply at least one resource"));
    }
}

/// `RoleBinding` and `ClusterRoleBinding`.
pub struct Binding;

impl Behavior for Binding {
    fn set_defaults(&self, object: &mut Value) {
        edit::default_text(edit::child(object, "roleRef"), "apiGroup", GROUP);
        for subject in edit::each(object, "subjects") {
            if matches!(edit::text(subject, "kind"), "User" | "Group") {
                edit::default_text(subject, "apiGroup", GROUP);
            }
        }
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let reference = object.get("roleRef");
        let group = reference.get("apiGroup");
        if group.str() != GROUP {
            errors.push(group.not_supported(&[GROUP]));
        }
        let namespaced = !object.get("metadata").get("namespace").is_empty();
        let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
        if !kinds.contains(&reference.get("kind").str()) {
            errors.push(reference.get("kind").not_supported(kinds));
        }
        let name = reference.get("name");
        name.check(names::path_segment(name.str()), errors);
        for subject in object.get("subjects").items() {
            validate_subject(&subject, namespaced, errors);
        }
        if name.is_empty() {
            errors.push(name.required(""));
        }
    }

    fn validate_update(&self, _: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        self.validate(new, errors);
        let reference = new.get("roleRef");
        if reference.value() != old.get("roleRef").value() {
            let part = |name| reference.get(name).str();
            // The value shown is Kubernetes' internal struct, in its Go spelling.
            let shown = json!({"APIGroup": part("apiGroup"), "Kind": part("kind"), "Name": part("name")});
            errors.push(reference.invalid_as(shown, "field is immutable"));
        }
    }
}

fn validate_subject(subject: &Field<'_>, namespaced: bool, errors: &mut Errors) {
    let (kind, name, group, namespace) =
        (subject.get("kind"), subject.get("name"), subject.get("apiGroup"), subject.get("namespace"));
    match kind.str() {
        "ServiceAccount" => {
            if !name.is_empty() {
                name.check(names::dns1123_subdomain(name.str()), errors);
            }
            if !group.is_empty() {
                errors.push(group.not_supported(&[""]));
            }
            if !namespaced && namespace.is_empty() {
                errors.push(namespace.required(""));
            }
        }
        "User" | "Group" => {
            if group.str() != GROUP {
                errors.push(group.not_supported(&[GROUP]));
            }
        }
        _ => errors.push(kind.not_supported(&["ServiceAccount", "User", "Group"])),
    }
    if name.is_empty() {
        errors.push(name.required(""));
    }
}
