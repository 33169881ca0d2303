//! Flow schemas and priority levels.
use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Subresource;
use super::built_in::Behavior;
use super::edit;
use super::field::{Errors, Field};
use super::names;

/// Lowest and highest precedence of a flow schema.
const PRECEDENCE_MAX: i64 = 10_000;
const QUEUES_MAX: i64 = 10_000_000;
/// Bits of the hash that deals hands of queues (`apiserver/pkg/util/shufflesharding` `MaxHashBits`).
const HASH_BITS: f64 = 60.0;
const VERBS: [&str; 9] = ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

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
            // Shown as the Go struct that holds it.
            let shown = json!({ "Type": method.str() });
            errors.push(method.with(&shown).not_supported(&["ByNamespace", "ByUser"]));
        }
        let level = spec.get("priorityLevelConfiguration").get("name");
        if level.is_empty() {
            errors.push(level.required("must reference a priority level"));
        } else {
            level.check(names::dns1123_subdomain(level.str()), errors);
        }
        for rule in spec.get("rules").items() {
            if rule.get("subjects").is_empty() {
                errors.push(rule.get("subjects").required("subjects must contain at least one value"));
            }
            rule.get("subjects").items().for_each(|subject| validate_subject(&subject, errors));
            if rule.get("resourceRules").is_empty() && rule.get("nonResourceRules").is_empty() {
                errors.push(rule.required("at least one of resourceRules and nonResourceRules has to be non-empty"));
            }
            rule.get("resourceRules").items().for_each(|rule| validate_resource_rule(&rule, errors));
            rule.get("nonResourceRules").items().for_each(|rule| validate_non_resource_rule(&rule, errors));
        }
        validate_conditions(object, errors);
    }

    fn validate_update(&self, subresource: Subresource, new: &Field<'_>, _: &Field<'_>, errors: &mut Errors) {
        match subresource {
            Subresource::Status => validate_conditions(new, errors),
            _ => self.validate(new, errors),
        }
    }
}

fn validate_conditions(object: &Field<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for condition in object.get("status").get("conditions").items() {
        let kind = condition.get("type");
        if !seen.insert(kind.str()) {
            errors.push(kind.duplicate());
        }
        if kind.is_empty() {
            errors.push(kind.required(""));
        }
    }
}

fn validate_subject(subject: &Field<'_>, errors: &mut Errors) {
    let kind = subject.get("kind");
    let member = match kind.str() {
        "ServiceAccount" => "serviceAccount",
        "User" => "user",
        "Group" => "group",
        _ => {
            errors.push(kind.not_supported(&["Group", "ServiceAccount", "User"]));
            return;
        }
    };
    let who = subject.get(member);
    if !who.is_set() {
        errors.push(who.required(format!("{member} is required when subject kind is '{}'", kind.str())));
        return;
    }
    let name = who.get("name");
    if name.is_empty() {
        errors.push(name.required(""));
    }
    if member != "serviceAccount" {
        return;
    }
    if !name.is_empty() && name.str() != "*" {
        name.check(names::dns1123_subdomain(name.str()), errors);
    }
    let namespace = who.get("namespace");
    match namespace.str() {
        "" => errors.push(namespace.required("must specify namespace for service account")),
        text => namespace.check(names::dns1123_label(text), errors),
    }
}

/// `*` alone, or anything else without it. True where the single members remain to be looked at.
fn validate_wildcard(list: &Field<'_>, missing: &str, others: &str, errors: &mut Errors) -> bool {
    let wildcard = list.items().any(|member| member.str() == "*");
    if list.is_empty() {
        errors.push(list.required(missing));
    } else if wildcard && list.len() > 1 {
        errors.push(list.invalid(format!("if '*' is present, must not specify other {others}")));
    }
    !list.is_empty() && !wildcard
}

fn validate_verbs(verbs: &Field<'_>, errors: &mut Errors) {
    let named = validate_wildcard(verbs, "verbs must contain at least one value", "verbs", errors);
    if named && verbs.items().any(|verb| !VERBS.contains(&verb.str())) {
        errors.push(verbs.not_supported(&VERBS));
    }
}

fn validate_resource_rule(rule: &Field<'_>, errors: &mut Errors) {
    validate_verbs(&rule.get("verbs"), errors);
    let groups = rule.get("apiGroups");
    validate_wildcard(&groups, "resource rules must supply at least one api group", "api groups", errors);
    let resources = rule.get("resources");
    validate_wildcard(&resources, "resource rules must supply at least one resource", "resources", errors);
    let namespaces = rule.get("namespaces");
    if namespaces.is_empty() && rule.get("clusterScope").bool() {
        return;
    }
    let missing = "resource rules that are not cluster scoped must supply at least one namespace";
    if validate_wildcard(&namespaces, missing, "namespaces", errors) {
        for namespace in namespaces.items() {
            for problem in names::dns1123_label(namespace.str()) {
                let rule = "each member of this list must be '*' or a DNS-1123 label";
                errors.push(namespace.invalid(format!("{rule}; {problem}")));
            }
        }
    }
}

fn validate_non_resource_rule(rule: &Field<'_>, errors: &mut Errors) {
    validate_verbs(&rule.get("verbs"), errors);
    let urls = rule.get("nonResourceURLs");
    if validate_wildcard(&urls, "nonResourceURLs must contain at least one value", "non-resource URLs", errors) {
        for url in urls.items() {
            if let Some(problem) = url_problem(url.str()) {
                errors.push(url.invalid(problem));
            }
        }
    }
}

fn url_problem(url: &str) -> Option<&'static str> {
    Some(match url {
        "" => "must not be empty",
        "/" => return None,
        url if !url.starts_with('/') => "must start with slash",
        url if url.contains(' ') => "must not contain white-space",
        url if url.contains("//") => "must not contain double slash",
        url => match url.matches('*').count() {
            0 => return None,
            1 if url.ends_with("/*") => return None,
            _ => "wildcard can only do suffix matching",
        },
    })
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
        let is_exempt = object.get("metadata").get("name").str() == "exempt";
        if is_exempt != (kind.str() == "Exempt") {
            errors.push(kind.invalid("must be 'Exempt' if and only if `name` is 'exempt'"));
        }
        match kind.str() {
            "Limited" => match limited.set() {
                None => errors.push(limited.required("")),
                Some(limited) => validate_limits(&limited, errors),
            },
            "Exempt" => {
                validate_shares(&exempt, errors);
                validate_lendable(&exempt, errors);
            }
            _ => kind.one_of(&["Exempt", "Limited"], errors),
        }
        for (member, of) in [(limited, "Limited"), (exempt, "Exempt")] {
            if member.is_set() && kind.str() != of {
                errors.push(member.forbidden(""));
            }
        }
        validate_conditions(object, errors);
    }

    fn validate_update(&self, subresource: Subresource, new: &Field<'_>, _: &Field<'_>, errors: &mut Errors) {
        match subresource {
            Subresource::Status => validate_conditions(new, errors),
            _ => self.validate(new, errors),
        }
    }
}

fn validate_shares(level: &Field<'_>, errors: &mut Errors) {
    let shares = level.get("nominalConcurrencyShares");
    if shares.int().is_some_and(|number| number < 0) {
        errors.push(shares.invalid("must be a non-negative integer"));
    }
}

fn validate_lendable(level: &Field<'_>, errors: &mut Errors) {
    let share = level.get("lendablePercent");
    if share.int().is_some_and(|share| !(0..=100).contains(&share)) {
        errors.push(share.invalid("must be between 0 and 100, inclusive"));
    }
}

fn validate_limits(limited: &Field<'_>, errors: &mut Errors) {
    validate_shares(limited, errors);
    let (response, queuing) = (limited.get("limitResponse").get("type"), limited.get("limitResponse").get("queuing"));
    match (response.str(), queuing.set()) {
        ("Reject", _) => {}
        ("Queue", None) => errors.push(queuing.required("")),
        ("Queue", Some(queuing)) => validate_queuing(&queuing, errors),
        _ => response.one_of(&["Queue", "Reject"], errors),
    }
    validate_lendable(limited, errors);
    let borrowed = limited.get("borrowingLimitPercent");
    if borrowed.int().is_some_and(|percent| percent < 0) {
        errors.push(borrowed.invalid("if specified, must be a non-negative integer"));
    }
    if response.str() != "Queue" && queuing.is_set() {
        errors.push(queuing.forbidden(""));
    }
}

fn validate_queuing(queuing: &Field<'_>, errors: &mut Errors) {
    let number = |name| queuing.get(name).int().unwrap_or(0);
    for name in ["queueLengthLimit", "queues", "handSize"] {
        if number(name) <= 0 {
            errors.push(queuing.get(name).invalid_as(number(name), "must be positive"));
        }
    }
    let (queues, hand) = (number("queues"), number("handSize"));
    if queues > QUEUES_MAX {
        errors.push(queuing.get("queues").invalid(format!("must not be greater than {QUEUES_MAX}")));
    }
    if hand > queues {
        errors.push(queuing.get("handSize").invalid(format!("should not be greater than queues ({queues})")));
    } else if hand > 0 && entropy_bits(queues, hand) > HASH_BITS {
        errors.push(queuing.get("handSize").invalid(format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS}"
        )));
    }
}

/// The bits that it takes to deal a hand from a deck (`shufflesharding.RequiredEntropyBits`).
fn entropy_bits(deck: i64, hand: i64) -> f64 {
    (0..hand).map(|dealt| ((deck - dealt) as f64).log2()).sum::<f64>().ceil()
}
