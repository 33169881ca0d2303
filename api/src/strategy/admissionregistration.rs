//! Webhook configurations and admission policies (`pkg/apis/admissionregistration/validation/validation.go`). Expressions
//! are compiled here as they are where they run ([`crate::admission`]).
use serde_json::{Value, json};
use std::collections::BTreeSet;

use super::built_in::Behavior;
use super::field::{Errors, Field};
use super::pod::volumes::required;
use super::{Subresource, conditions, edit, labels, names, webhooks};
use crate::admission::{Fault, Policy};
use crate::status::{FieldError, FieldPath};

/// Mutating and validating webhook configurations.
pub struct WebhookConfiguration;

impl Behavior for WebhookConfiguration {
    fn set_defaults(&self, object: &mut Value) {
        let mutating = edit::text(object, "kind") == "MutatingWebhookConfiguration";
        for webhook in edit::each(object, "webhooks") {
            edit::default(webhook, "failurePolicy", "Fail");
            edit::default(webhook, "matchPolicy", "Equivalent");
            edit::default(webhook, "namespaceSelector", json!({}));
            edit::default(webhook, "objectSelector", json!({}));
            edit::default(webhook, "timeoutSeconds", 10);
            if mutating {
                edit::default(webhook, "reinvocationPolicy", "Never");
            }
            if let Some(service) = webhook.pointer_mut("/clientConfig/service") {
                edit::default(service, "port", 443);
            }
            for rule in edit::each(webhook, "rules") {
                edit::default(rule, "scope", "*");
            }
        }
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let mut seen = BTreeSet::new();
        for (at, webhook) in object.get("webhooks").items().enumerate() {
            let path = FieldPath::new("webhooks").index(at);
            let (_, faults) = Policy::compile_webhook(webhook.value(), &path);
            errors.extend(faults.into_iter().filter(is_written).map(refused));
            named_conditions(&webhook.get("matchConditions"), errors);
            let name = webhook.get("name");
            if name.str().split('.').count() < 3 {
                errors.push(name.invalid("should be a domain with at least three segments separated by dots"));
            }
            name.check(names::dns1123_subdomain(name.str()), errors);
            if !seen.insert(name.str()) {
                errors.push(name.duplicate());
            }
            validate_webhook(&webhook, errors);
        }
    }
}

/// Whether there is an expression at all: one that is missing is said to be.
fn is_written(fault: &Fault) -> bool {
    !fault.source.trim().is_empty()
}

fn refused(fault: Fault) -> FieldError {
    FieldError::invalid(&fault.path, fault.source, fault.message)
}

/// At most this many match conditions (`validateMatchConditions`).
const MAX_MATCH_CONDITIONS: usize = 64;

fn named_conditions(conditions: &Field<'_>, errors: &mut Errors) {
    if conditions.len() > MAX_MATCH_CONDITIONS {
        errors.push(conditions.too_many(MAX_MATCH_CONDITIONS));
    }
    let mut seen = BTreeSet::new();
    for condition in conditions.items() {
        required(&condition, &["expression", "name"], errors);
        let name = condition.get("name");
        if !name.str().is_empty() {
            name.check(names::qualified_name(name.str()), errors);
            if !seen.insert(name.str()) {
                errors.push(name.duplicate());
            }
        }
    }
}

fn validate_webhook(webhook: &Field<'_>, errors: &mut Errors) {
    let versions = webhook.get("admissionReviewVersions");
    if versions.is_empty() {
        errors.push(versions.required("must specify one of v1, v1beta1"));
    } else if !versions.items().any(|version| ["v1", "v1beta1"].contains(&version.str())) {
        errors.push(versions.invalid("must include at least one of v1, v1beta1"));
    }
    let mut seen = BTreeSet::new();
    for version in versions.items().filter(|version| !seen.insert(version.str().to_owned())) {
        errors.push(version.invalid("duplicate version"));
    }
    webhook.get("rules").items().for_each(|rule| operations_rule(&rule, errors));
    for (name, supported) in [
        ("failurePolicy", &["Fail", "Ignore"][..]),
        ("matchPolicy", &["Equivalent", "Exact"]),
        ("reinvocationPolicy", &["IfNeeded", "Never"]),
    ] {
        let policy = webhook.get(name);
        if policy.is_set() && !supported.contains(&policy.str()) {
            errors.push(policy.not_supported(supported));
        }
    }
    let effects = webhook.get("sideEffects");
    if !effects.is_set() {
        errors.push(effects.required("must specify one of None, NoneOnDryRun"));
    } else if !["None", "NoneOnDryRun"].contains(&effects.str()) {
        errors.push(effects.not_supported(&["None", "NoneOnDryRun"]));
    }
    let timeout = webhook.get("timeoutSeconds");
    if timeout.int().is_some_and(|seconds| !(1..=30).contains(&seconds)) {
        errors.push(timeout.invalid("the timeout value must be between 1 and 30 seconds"));
    }
    labels::validate_selector(&webhook.get("namespaceSelector"), errors);
    labels::validate_selector(&webhook.get("objectSelector"), errors);
    webhooks::client_config(&webhook.get("clientConfig"), webhooks::Missing::Declared, errors);
}

fn operations_rule(rule: &Field<'_>, errors: &mut Errors) {
    let operations = rule.get("operations");
    alone(&operations, "operations", errors);
    for operation in operations.items() {
        let supported = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
        if !supported.contains(&operation.str()) {
            errors.push(operation.not_supported(&supported));
        }
    }
    alone(&rule.get("apiGroups"), "API groups", errors);
    let versions = rule.get("apiVersions");
    alone(&versions, "API versions", errors);
    for version in versions.items().filter(|version| version.is_empty()) {
        errors.push(version.required(""));
    }
    resources(&rule.get("resources"), errors);
    let scope = rule.get("scope");
    if scope.is_set() && !["*", "Cluster", "Namespaced"].contains(&scope.str()) {
        errors.push(scope.not_supported(&["*", "Cluster", "Namespaced"]));
    }
}

/// There is one, and `*` stands alone.
fn alone(list: &Field<'_>, others: &str, errors: &mut Errors) {
    if list.is_empty() {
        errors.push(list.required(""));
    }
    if list.len() > 1 && list.items().any(|item| item.str() == "*") {
        errors.push(list.invalid(format!("if '*' is present, must not specify other {others}")));
    }
}

/// Resources and subresources, none of which another one covers (`validateResources`).
fn resources(resources: &Field<'_>, errors: &mut Errors) {
    if resources.is_empty() {
        errors.push(resources.required(""));
    }
    let (mut of_resource, mut of_subresource): (BTreeSet<&str>, BTreeSet<&str>) = Default::default();
    let (mut everything, mut all_resources, mut one_resource) = (false, false, false);
    for item in resources.items() {
        let text = item.str();
        everything |= text == "*/*";
        all_resources |= text == "*";
        let Some((resource, part)) = text.split_once('/') else {
            match text {
                "" => errors.push(item.required("")),
                text => one_resource = text != "*",
            }
            continue;
        };
        if of_resource.contains(&resource) {
            errors.push(item.invalid(format!("if '{resource}/*' is present, must not specify {text}")));
        }
        if of_subresource.contains(&part) {
            errors.push(item.invalid(format!("if '*/{part}' is present, must not specify {text}")));
        }
        if part == "*" {
            of_resource.insert(resource);
        }
        if resource == "*" {
            of_subresource.insert(part);
        }
    }
    if everything && resources.len() > 1 {
        errors.push(resources.invalid("if '*/*' is present, must not specify other resources"));
    }
    if all_resources && one_resource {
        let why = "if '*' is present, must not specify other resources without subresources";
        errors.push(resources.invalid(why));
    }
}

/// What a policy or a binding applies to (`validateMatchResources`).
fn match_resources(resources: &Field<'_>, errors: &mut Errors) {
    let policy = resources.get("matchPolicy");
    if !policy.is_set() {
        errors.push(policy.required(""));
    } else if !["Equivalent", "Exact"].contains(&policy.str()) {
        errors.push(policy.not_supported(&["Equivalent", "Exact"]));
    }
    for name in ["namespaceSelector", "objectSelector"] {
        match resources.get(name).set() {
            None => errors.push(resources.get(name).required("")),
            Some(selector) => labels::validate_selector(&selector, errors),
        }
    }
    for list in ["resourceRules", "excludeResourceRules"] {
        for rule in resources.get(list).items() {
            let mut seen = BTreeSet::new();
            for name in rule.get("resourceNames").items() {
                name.check(names::path_segment(name.str()), errors);
                if !seen.insert(name.str()) {
                    errors.push(name.duplicate());
                }
            }
            operations_rule(&rule, errors);
        }
    }
}

/// Validating and mutating admission policies.
pub struct AdmissionPolicy;

impl Behavior for AdmissionPolicy {
    fn set_defaults(&self, object: &mut Value) {
        let spec = edit::child(object, "spec");
        edit::default(spec, "failurePolicy", "Fail");
        if let Some(constraints) = edit::member(spec, "matchConstraints") {
            match_defaults(constraints);
        }
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let spec = object.get("spec");
        let constraints = spec.get("matchConstraints");
        if !constraints.is_set() {
            errors.push(constraints.required(""));
        } else if constraints.get("resourceRules").is_empty() {
            errors.push(constraints.get("resourceRules").required(""));
        }
        let validating = !object.get("kind").str().starts_with("Mutating");
        if constraints.is_set() {
            match_resources(&constraints, errors);
            if !validating {
                mutable_operations(&constraints, errors);
            }
        }
        if let Some(kind) = spec.get("paramKind").set() {
            required(&kind, &["apiVersion", "kind"], errors);
        }
        for (list, members) in [
            ("validations", &["expression"][..]),
            ("variables", &["name", "expression"]),
            ("mutations", &["patchType"]),
        ] {
            for member in spec.get(list).items().flat_map(|item| members.iter().map(move |name| item.get(name))) {
                let name = member.path();
                let name = name.rsplit('.').next().unwrap_or_default();
                if member.str().trim().is_empty() {
                    errors.push(member.required(if list == "mutations" {
                        String::new()
                    } else {
                        format!("{name} is not specified")
                    }));
                }
            }
        }
        let policy_name = object.get("metadata").get("name");
        audit_annotations(&spec.get("auditAnnotations"), policy_name.str(), errors);
        if validating && spec.get("validations").is_empty() && spec.get("auditAnnotations").is_empty() {
            for list in ["validations", "auditAnnotations"] {
                let why = "validations or auditAnnotations must contain at least one item";
                errors.push(spec.get(list).required(why));
            }
        }
        let (_, faults) = Policy::compile(spec.value());
        errors.extend(faults.into_iter().filter(is_written).map(refused));
        named_conditions(&spec.get("matchConditions"), errors);
        validate_parts(&spec, errors);
        if !validating && spec.get("mutations").is_empty() {
            errors.push(spec.get("mutations").required("mutations must contain at least one item"));
        }
        if !validating {
            spec.get("reinvocationPolicy").one_of(&["IfNeeded", "Never"], errors);
        }
    }

    fn validate_update(&self, subresource: Subresource, new: &Field<'_>, _: &Field<'_>, errors: &mut Errors) {
        if subresource != Subresource::Status {
            self.validate(new, errors);
            return;
        }
        let status = new.get("status");
        for warning in status.get("typeChecking").get("expressionWarnings").items() {
            required(&warning, &["warning", "fieldRef"], errors);
        }
        conditions::validate(&status.get("conditions"), errors);
    }
}

/// Names of variables, reasons of validations, and that a mutation says what its type promises.
fn validate_parts(spec: &Field<'_>, errors: &mut Errors) {
    for name in spec.get("variables").items().map(|variable| variable.get("name")) {
        let text = name.str();
        let mut characters = text.chars();
        let starts = characters.next().is_none_or(|c| c.is_ascii_alphabetic() || c == '_');
        if !starts || !characters.all(|c| c.is_ascii_alphanumeric() || c == '_') {
            errors.push(name.invalid("name is not a valid CEL identifier"));
        }
    }
    for validation in spec.get("validations").items() {
        let reason = validation.get("reason");
        let supported = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
        if reason.is_set() && !supported.contains(&reason.str()) {
            errors.push(reason.not_supported(&supported));
        }
        let message = validation.get("message");
        if message.str().trim().contains('\n') {
            errors.push(message.invalid("message must not contain line breaks"));
        }
    }
    for mutation in spec.get("mutations").items() {
        let (kind, said) = (mutation.get("patchType"), ["applyConfiguration", "jsonPatch"]);
        let (own, other) = match kind.str() {
            "ApplyConfiguration" => (said[0], said[1]),
            "JSONPatch" => (said[1], said[0]),
            "" => continue,
            _ => {
                errors.push(kind.not_supported(&["ApplyConfiguration", "JSONPatch"]));
                continue;
            }
        };
        let (own_field, other_field) = (mutation.get(own), mutation.get(other));
        if !own_field.is_set() {
            let detail = format!("must be specified when patchType is {}", kind.str());
            errors.push(own_field.required(detail));
        } else if own_field.get("expression").str().trim().is_empty() {
            errors.push(own_field.get("expression").required(""));
        }
        if other_field.is_set() {
            let detail = format!("must not be specified when patchType is {}", kind.str());
            errors.push(other_field.invalid_as(format!("{{{other}}}"), detail));
        }
    }
    let policy = spec.get("failurePolicy");
    if policy.is_set() && !["Fail", "Ignore"].contains(&policy.str()) {
        errors.push(policy.not_supported(&["Fail", "Ignore"]));
    }
}

/// What is deleted cannot be changed.
fn mutable_operations(resources: &Field<'_>, errors: &mut Errors) {
    for rule in resources.get("resourceRules").items() {
        for operation in rule.get("operations").items() {
            let supported = ["*", "CONNECT", "CREATE", "UPDATE"];
            if !supported.contains(&operation.str()) {
                // The path of the list, without indices, as Kubernetes writes it.
                let list = resources.get("resourceRules").get("operations");
                errors.push(list.not_supported_as(operation.str(), &supported));
            }
        }
    }
}

/// Keys that go into the audit log under the policy's name, each once, and what is said there.
fn audit_annotations(annotations: &Field<'_>, policy: &str, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for annotation in annotations.items() {
        let (key, value) = (annotation.get("key"), annotation.get("valueExpression"));
        if value.str().trim().is_empty() {
            errors.push(value.required("valueExpression is not specified"));
        }
        let full = format!("{policy}/{}", key.str());
        key.with(&Value::from(full.as_str())).check(names::qualified_name(&full), errors);
        if !seen.insert(key.str()) {
            errors.push(key.duplicate());
        }
    }
}

fn match_defaults(resources: &mut Value) {
    edit::default(resources, "matchPolicy", "Equivalent");
    edit::default(resources, "namespaceSelector", json!({}));
    edit::default(resources, "objectSelector", json!({}));
    for list in ["resourceRules", "excludeResourceRules"] {
        for rule in edit::each(resources, list) {
            edit::default(rule, "scope", "*");
        }
    }
}

/// Bindings of admission policies.
pub struct AdmissionPolicyBinding;

impl Behavior for AdmissionPolicyBinding {
    fn set_defaults(&self, object: &mut Value) {
        if let Some(resources) = object.pointer_mut("/spec/matchResources") {
            match_defaults(resources);
        }
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let spec = object.get("spec");
        match spec.get("policyName") {
            name if name.is_empty() => errors.push(name.required("")),
            name => name.check(names::dns1123_subdomain(name.str()), errors),
        }
        if let Some(reference) = spec.get("paramRef").set() {
            validate_param_ref(&reference, errors);
        }
        if let Some(resources) = spec.get("matchResources").set() {
            match_resources(&resources, errors);
        }
        if object.get("kind").str().starts_with("Mutating") {
            mutable_operations(&spec.get("matchResources"), errors);
            return;
        }
        let actions = spec.get("validationActions");
        if actions.is_empty() {
            errors.push(actions.required(""));
        }
        for action in actions.items().filter(|action| !["Audit", "Deny", "Warn"].contains(&action.str())) {
            errors.push(action.not_supported(&["Audit", "Deny", "Warn"]));
        }
        let mut seen = BTreeSet::new();
        for action in actions.items() {
            if !seen.insert(action.str()) {
                errors.push(action.duplicate());
            }
        }
        if seen.contains(&"Deny") && seen.contains(&"Warn") {
            errors.push(actions.invalid(
                "must not contain both Deny and Warn (repeating the same validation failure information in the API \
                 response and headers serves no purpose)",
            ));
        }
    }
}

fn validate_param_ref(reference: &Field<'_>, errors: &mut Errors) {
    let (name, selector) = (reference.get("name"), reference.get("selector"));
    match (!name.str().is_empty(), selector.is_set()) {
        (true, true) => {
            errors.push(name.forbidden("name and selector are mutually exclusive"));
            errors.push(selector.forbidden("name and selector are mutually exclusive"));
        }
        (false, false) => errors.push(reference.required("one of name or selector must be specified")),
        (false, true) => labels::validate_selector(&selector, errors),
        (true, false) => {}
    }
    let action = reference.get("parameterNotFoundAction");
    if !action.is_set() {
        errors.push(action.required(""));
    } else if !["Allow", "Deny"].contains(&action.str()) {
        errors.push(action.not_supported(&["Deny", "Allow"]));
    }
}
