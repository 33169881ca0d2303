//! Webhook configurations and admission policies. CEL expressions are checked where they are compiled, not here.
use serde_json::{Value, json};

use super::built_in::Behavior;
use super::field::{Errors, Field};
use super::pod::volumes::required;
use super::{edit, labels, names};

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
        let mut seen: Vec<&str> = Vec::new();
        for webhook in object.get("webhooks").items() {
            let name = webhook.get("name");
            if name.str().split('.').count() < 3 {
                errors.push(
                    name.invalid(
                        "should be a domain with at least three segments separated by dots",
                    ),
                );
            }
            name.check(names::dns1123_subdomain(name.str()), errors);
            if seen.contains(&name.str()) {
                errors.push(name.duplicate());
            }
            seen.push(name.str());
            validate_webhook(&webhook, errors);
        }
    }
}

fn validate_webhook(webhook: &Field<'_>, errors: &mut Errors) {
    let versions = webhook.get("admissionReviewVersions");
    if versions.is_empty() {
        errors.push(versions.required("must specify one of v1, v1beta1"));
    } else if !versions
        .items()
        .any(|version| ["v1", "v1beta1"].contains(&version.str()))
    {
        errors.push(versions.invalid("must include at least one of v1, v1beta1"));
    }
    webhook
        .get("rules")
        .items()
        .for_each(|rule| operations_rule(&rule, errors));
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
    if timeout
        .int()
        .is_some_and(|seconds| !(1..=30).contains(&seconds))
    {
        errors.push(timeout.invalid("the timeout value must be between 1 and 30 seconds"));
    }
    labels::validate_selector(&webhook.get("namespaceSelector"), errors);
    labels::validate_selector(&webhook.get("objectSelector"), errors);
    let client = webhook.get("clientConfig");
    match (client.get("url").set(), client.get("service").set()) {
        (Some(url), None) if !url.str().starts_with("https://") => {
            errors.push(url.invalid(
                "'https' is the only allowed URL scheme; desired format: https://host[/path]",
            ));
        }
        (None, Some(service)) => required(&service, &["name", "namespace"], errors),
        (Some(_), None) => {}
        _ => errors.push(client.required("exactly one of url or service is required")),
    }
}

fn operations_rule(rule: &Field<'_>, errors: &mut Errors) {
    required(
        rule,
        &["operations", "apiGroups", "apiVersions", "resources"],
        errors,
    );
    for operation in rule.get("operations").items() {
        let supported = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
        if !supported.contains(&operation.str()) {
            errors.push(operation.not_supported(&supported));
        }
    }
    let scope = rule.get("scope");
    if scope.is_set() && !["*", "Cluster", "Namespaced"].contains(&scope.str()) {
        errors.push(scope.not_supported(&["*", "Cluster", "Namespaced"]));
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
        constraints
            .get("resourceRules")
            .items()
            .for_each(|rule| operations_rule(&rule, errors));
        if let Some(kind) = spec.get("paramKind").set() {
            required(&kind, &["apiVersion", "kind"], errors);
        }
        for (list, members) in [
            ("validations", &["expression"][..]),
            ("variables", &["name", "expression"]),
            ("mutations", &["patchType"]),
        ] {
            spec.get(list)
                .items()
                .for_each(|item| required(&item, members, errors));
        }
        let validating = !object.get("kind").str().starts_with("Mutating");
        if validating
            && spec.get("validations").is_empty()
            && spec.get("auditAnnotations").is_empty()
        {
            errors.push(
                spec.get("validations")
                    .required("validations or auditAnnotations must contain at least one item"),
            );
        }
        if !validating && spec.get("mutations").is_empty() {
            errors.push(
                spec.get("mutations")
                    .required("mutations must contain at least one item"),
            );
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
        required(&spec, &["policyName"], errors);
        if object.get("kind").str().starts_with("Mutating") {
            return;
        }
        let actions = spec.get("validationActions");
        if actions.is_empty() {
            errors.push(actions.required("at least one validation action is required"));
        }
        for action in actions
            .items()
            .filter(|action| !["Audit", "Deny", "Warn"].contains(&action.str()))
        {
            errors.push(action.not_supported(&["Audit", "Deny", "Warn"]));
        }
    }
}
