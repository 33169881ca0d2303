//! Flow schemas and priority levels.
use serde_json::{Value, json};

use super::Subresource;
use super::built_in::Behavior;
use super::edit;
use super::field::{Errors, Field};

/// Lowest and highest precedence of a flow schema.
const PRECEDENCE_MAX: i64 = 10_000;

/// `flowcontrol.apiserver.k8s.io/v1` FlowSchema.
pub struct FlowSchema;

impl Behavior for FlowSchema {
    fn set_defaults(&self, object: &mut Value) {
        let spec = edit::child(object, "spec");
        if spec["matchingPrecedence"].as_i64().unwrap_or(0) == 0 {
            edit::set(spec, "matchingPrecedence", 1000);
        }
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let spec = object.get("spec");
        let precedence = spec.get("matchingPrecedence");
        let number = precedence.int().unwrap_or(0);
        if number <= 0 {
            errors.push(precedence.invalid_as(number, "must be a positive value"));
        } else if number > PRECEDENCE_MAX {
            errors.push(precedence.invalid(format!("must not be greater than {PRECEDENCE_MAX}")));
        }
        if number == 1 && object.get("metadata").get("name").str() != "exempt" {
            errors.push(precedence.invalid("only the schema named 'exempt' may have matchingPrecedence 1"));
        }
        let method = spec.get("distinguisherMethod").get("type");
        if spec.get("distinguisherMethod").is_set() && !["ByNamespace", "ByUser"].contains(&method.str()) {
            errors.push(method.not_supported(&["ByNamespace", "ByUser"]));
        }
        let level = spec.get("priorityLevelConfiguration").get("name");
        if level.is_empty() {
            errors.push(level.required("must reference a priority level"));
        }
        for rule in spec.get("rules").items() {
            if rule.get("subjects").is_empty() {
                errors.push(rule.get("subjects").required("subjects must contain at least one value"));
            }
            if rule.get("resourceRules").is_empty() && rule.get("nonResourceRules").is_empty() {
                errors.push(rule.required("at least one of resourceRules and nonResourceRules has to be non-empty"));
            }
        }
    }

    fn validate_update(&self, subresource: Subresource, new: &Field<'_>, _: &Field<'_>, errors: &mut Errors) {
        if subresource != Subresource::Status {
            self.validate(new, errors);
        }
    }
}

/// `flowcontrol.apiserver.k8s.io/v1` PriorityLevelConfiguration.
pub struct PriorityLevelConfiguration;

impl Behavior for PriorityLevelConfiguration {
    fn set_defaults(&self, object: &mut Value) {
        let spec = edit::child(object, "spec");
        if edit::text(spec, "type") == "Exempt" {
            let exempt = edit::child(spec, "exempt");
            edit::default(exempt, "nominalConcurrencyShares", 0);
            edit::default(exempt, "lendablePercent", 0);
        }
        if let Some(limited) = edit::member(spec, "limited") {
            edit::default(limited, "nominalConcurrencyShares", 30);
            edit::default(limited, "lendablePercent", 0);
            let response = edit::child(limited, "limitResponse");
            if let Some(queuing) = edit::member(response, "queuing") {
                for (name, number) in [("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)] {
                    if queuing[name].as_i64().unwrap_or(0) == 0 {
                        edit::set(queuing, name, json!(number));
                    }
                }
            }
        }
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let spec = object.get("spec");
        let (kind, limited, exempt) = (spec.get("type"), spec.get("limited"), spec.get("exempt"));
        match kind.str() {
            "Exempt" if limited.is_set() => {
                errors.push(limited.forbidden("must be nil if the type is not Limited"));
            }
            "Limited" if exempt.is_set() => errors.push(exempt.forbidden("must be nil if the type is Limited")),
            "Limited" => match limited.set() {
                None => errors.push(limited.required("must not be empty when type is Limited")),
                Some(limited) => limits(&limited, errors),
            },
            "Exempt" => {}
            _ => errors.push(kind.not_supported(&["Exempt", "Limited"])),
        }
    }

    fn validate_update(&self, subresource: Subresource, new: &Field<'_>, _: &Field<'_>, errors: &mut Errors) {
        if subresource != Subresource::Status {
            self.validate(new, errors);
        }
    }
}

fn limits(limited: &Field<'_>, errors: &mut Errors) {
    let shares = limited.get("nominalConcurrencyShares");
    if shares.int().is_some_and(|number| number < 0) {
        errors.push(shares.invalid("must be a non-negative integer"));
    }
    let share = limited.get("lendablePercent");
    if share.int().is_some_and(|share| !(0..=100).contains(&share)) {
        errors.push(share.invalid("must be between 0 and 100, inclusive"));
    }
    let (response, queuing) = (limited.get("limitResponse").get("type"), limited.get("limitResponse").get("queuing"));
    match (response.str(), queuing.set()) {
        ("Reject", Some(queuing)) => {
            errors.push(queuing.forbidden("must be nil if limited.limitResponse.type is not Limited"))
        }
        ("Queue", None) => errors.push(queuing.required("must not be empty if limited.limitResponse.type is Limited")),
        ("Queue", Some(queuing)) => {
            for name in ["queues", "handSize", "queueLengthLimit"] {
                let field = queuing.get(name);
                if field.int().unwrap_or(0) <= 0 {
                    errors.push(field.invalid_as(field.int().unwrap_or(0), "must be positive"));
                }
            }
            let (hand, queues) = (queuing.get("handSize"), queuing.get("queues"));
            if hand.int() > queues.int() {
                errors.push(hand.invalid(format!("should not be greater than queues ({})", queues.int().unwrap_or(0))));
            }
        }
        ("Reject", None) => {}
        _ => errors.push(response.not_supported(&["Queue", "Reject"])),
    }
}
