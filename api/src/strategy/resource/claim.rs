//! What a claim asks for: requests for devices, constraints between them, configuration for their drivers.
//! `pkg/apis/resource/validation/validation.go` `validateDeviceClaim`.
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::field::{Errors, Field};
use super::super::{edit, names};
use super::formats::{self, is_too_long};
use super::selector::{self, Fault};
use super::{CONFIGS_MAX, CONSTRAINTS_MAX, FIRST_AVAILABLE_MAX, PARAMETERS_MAX_BYTES, REQUESTS_MAX, SELECTORS_MAX};

/// The requests of a claim, by name, each with those it may be met by instead.
pub struct RequestNames<'a>(BTreeMap<&'a str, BTreeSet<&'a str>>);

impl<'a> RequestNames<'a> {
    /// Those of a claim's spec.
    pub fn of(spec: &Field<'a>) -> RequestNames<'a> {
        let names = spec.get("devices").get("requests").items().map(|request| {
            let choices = request.get("firstAvailable").items().map(|choice| choice.get("name").str());
            (request.get("name").str(), choices.collect())
        });
        RequestNames(names.collect())
    }

    /// Whether a text is the name of a request, or of one of its alternatives as `request/alternative`.
    fn has(&self, text: &str) -> bool {
        let (request, choice) = text.split_once('/').map_or((text, None), |(request, choice)| (request, Some(choice)));
        self.0.get(request).is_some_and(|choices| choice.is_none_or(|choice| choices.contains(choice)))
    }

    /// What is wrong with a list of names of requests.
    pub fn check_all(&self, list: &Field<'_>, errors: &mut Errors) {
        if !is_too_long(list, REQUESTS_MAX, true, errors) {
            list.items().for_each(|name| self.check(&name, errors));
        }
    }

    /// What is wrong with the name of a request.
    pub fn check(&self, name: &Field<'_>, errors: &mut Errors) {
        const UNKNOWN: &str =
            "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
        let segments: Vec<&str> = name.str().split('/').collect();
        if segments.len() > 2 {
            errors.push(name.invalid_as(name.str(), UNKNOWN));
            return;
        }
        for segment in segments {
            let complaints = names::dns1123_label(segment).into_iter();
            errors.extend(complaints.map(|complaint| name.invalid_as(segment, complaint)));
        }
        if !self.has(name.str()) {
            errors.push(name.invalid_as(name.str(), UNKNOWN));
        }
    }
}

/// What is wrong with the spec of a claim, but for what is declared.
pub fn validate_spec(spec: &Field<'_>, errors: &mut Errors) {
    let devices = spec.get("devices");
    let known = RequestNames::of(spec);
    let requests = devices.get("requests");
    if !is_too_long(&requests, REQUESTS_MAX, true, errors) {
        requests.items().for_each(|request| device_request(&request, errors));
    }
    let constraints = devices.get("constraints");
    if !is_too_long(&constraints, CONSTRAINTS_MAX, true, errors) {
        for constraint in constraints.items() {
            known.check_all(&constraint.get("requests"), errors);
            if !constraint.get("matchAttribute").is_set() && !constraint.get("distinctAttribute").is_set() {
                errors.push(constraint.required(
                    "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set",
                ));
            }
        }
    }
    let configs = devices.get("config");
    if !is_too_long(&configs, CONFIGS_MAX, true, errors) {
        for config in configs.items() {
            known.check_all(&config.get("requests"), errors);
            configuration(&config, errors);
        }
    }
}

fn device_request(request: &Field<'_>, errors: &mut Errors) {
    let name = request.get("name");
    name.check(names::dns1123_label(name.str()), errors);
    let (exactly, choices) = (request.get("exactly"), request.get("firstAvailable"));
    match (exactly.is_set(), choices.is_empty()) {
        (false, true) => {
            errors.push(request.required("exactly one of `exactly` or `firstAvailable` is required"));
        }
        (true, false) => errors.push(request.invalid_as(
            Value::Null,
            "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
        )),
        (false, false) if !is_too_long(&choices, FIRST_AVAILABLE_MAX, true, errors) => {
            for choice in choices.items() {
                let name = choice.get("name");
                name.check(names::dns1123_label(name.str()), errors);
                requested_devices(&choice, errors);
            }
        }
        (false, false) => {}
        (true, true) => {
            let class = exactly.get("deviceClassName");
            if class.is_empty() {
                errors.push(class.required(""));
            } else {
                class.check(names::dns1123_subdomain(class.str()), errors);
            }
            requested_devices(&exactly, errors);
        }
    }
}

fn requested_devices(request: &Field<'_>, errors: &mut Errors) {
    selectors(&request.get("selectors"), errors);
    let (mode, count) = (request.get("allocationMode"), request.get("count"));
    let number = count.int().unwrap_or(0);
    match mode.str() {
        "All" if number != 0 => {
            errors.push(count.invalid("must not be specified when allocationMode is 'All'"));
        }
        "ExactCount" if number <= 0 => errors.push(count.invalid_as(number, "must be greater than zero")),
        _ => {}
    }
    request.get("tolerations").items().for_each(|toleration| device_toleration(&toleration, errors));
}

/// What is wrong with expressions that choose devices.
pub fn selectors(selectors: &Field<'_>, errors: &mut Errors) {
    if is_too_long(selectors, SELECTORS_MAX, true, errors) {
        return;
    }
    for one in selectors.items() {
        let Some(cel) = one.get("cel").set() else {
            errors.push(one.get("cel").required(""));
            continue;
        };
        let expression = cel.get("expression");
        match selector::compile(expression.str()) {
            Ok(_) => {}
            Err(Fault::TooLong) => errors.push(expression.too_long(selector::EXPRESSION_MAX_BYTES)),
            Err(Fault::TooComplex) => errors.push(expression.forbidden("too complex, exceeds cost limit")),
            Err(Fault::Invalid(why)) => errors.push(expression.invalid_as(expression.str(), why)),
        }
    }
}

/// What is wrong with a toleration of taints of devices.
pub fn device_toleration(toleration: &Field<'_>, errors: &mut Errors) {
    let value = toleration.get("value");
    match toleration.get("operator").str() {
        "Exists" if !value.is_empty() => errors.push(value.invalid("must be empty for operator `Exists`")),
        "Equal" => value.check(names::label_value(value.str()), errors),
        _ => {}
    }
}

/// What is wrong with configuration for a driver.
pub fn configuration(config: &Field<'_>, errors: &mut Errors) {
    let opaque = config.get("opaque");
    if opaque.is_set() {
        raw_object(&opaque.get("parameters"), PARAMETERS_MAX_BYTES, true, errors);
    } else {
        errors.push(opaque.required(""));
    }
}

/// What is wrong with data that the API does not know, but that must be an object.
pub fn raw_object(data: &Field<'_>, most: usize, required: bool, errors: &mut Errors) {
    match data.value() {
        Value::Null if required => errors.push(data.required("")),
        Value::Null => {}
        value if value.to_string().len() > most => errors.push(data.too_long(most)),
        Value::Object(_) => {}
        _ => errors.push(data.invalid_as("<value omitted>", "must be a valid JSON object")),
    }
}

/// Names of conditions that a device waits for before pods are bound, and of those that end the waiting.
pub fn binding_conditions(of: &Field<'_>, errors: &mut Errors) {
    let (wanted, failed) = (of.get("bindingConditions"), of.get("bindingFailureConditions"));
    for list in [&wanted, &failed] {
        if !is_too_long(list, super::BINDING_CONDITIONS_MAX, true, errors) {
            list.items().for_each(|name| name.check(names::qualified_name(name.str()), errors));
        }
    }
    formats::duplicates(&wanted, |name| name.str().to_owned(), errors);
    let all: BTreeSet<&str> = wanted.items().map(|name| name.str()).collect();
    let mut seen = BTreeSet::new();
    for name in failed.items() {
        if !seen.insert(name.str()) {
            errors.push(name.duplicate());
        }
        if all.contains(name.str()) {
            errors.push(name.invalid("bindingFailureConditions must not overlap with bindingConditions"));
        }
    }
    let as_is = |list: &Field<'_>| list.value().clone();
    match (wanted.is_empty(), failed.is_empty()) {
        (true, false) => errors
            .push(wanted.invalid_as(as_is(&wanted), "bindingConditions are required to use bindingFailureConditions")),
        (false, true) => errors
            .push(failed.invalid_as(as_is(&failed), "bindingFailureConditions are required to use bindingConditions")),
        _ => {}
    }
}

/// Counts, modes and operators of each request: `SetDefaults_ExactDeviceRequest`.
pub fn set_spec_defaults(spec: &mut Value) {
    let complete = |request: &mut Value| {
        edit::default_text(request, "allocationMode", "ExactCount");
        if edit::text(request, "allocationMode") == "ExactCount" && request["count"].as_i64().unwrap_or(0) == 0 {
            edit::set(request, "count", 1);
        }
        set_toleration_defaults(request);
    };
    if let Some(devices) = edit::member(spec, "devices") {
        for request in edit::each(devices, "requests") {
            if let Some(exactly) = edit::member(request, "exactly") {
                complete(exactly);
            }
            edit::each(request, "firstAvailable").for_each(complete);
        }
    }
}

/// Operators of tolerations.
pub fn set_toleration_defaults(of: &mut Value) {
    edit::each(of, "tolerations").for_each(|toleration| edit::default_text(toleration, "operator", "Equal"));
}

/// Attributes that are computed by expressions are an alpha feature.
pub fn drop_disabled_fields(spec: &mut Value) {
    if let Some(devices) = edit::member(spec, "devices") {
        for request in edit::each(devices, "requests") {
            if let Some(exactly) = edit::member(request, "exactly") {
                edit::take(exactly, "derivedAttributes");
            }
            edit::each(request, "firstAvailable").for_each(|choice| drop(edit::take(choice, "derivedAttributes")));
        }
    }
}
