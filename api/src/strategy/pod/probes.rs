//! Probes and lifecycle hooks.
use crate::strategy::field::{Errors, Field};
use crate::strategy::names;

/// What is wrong with a container's probes and hooks. `grace` is the pod's termination grace period in seconds.
pub fn validate(container: &Field<'_>, grace: i64, errors: &mut Errors) {
    if let Some(lifecycle) = container.get("lifecycle").set() {
        for hook in ["postStart", "preStop"] {
            if let Some(handler) = lifecycle.get(hook).set() {
                validate_handler(&handler, grace, errors);
            }
        }
    }
    if let Some(probe) = container.get("livenessProbe").set() {
        validate_probe(&probe, grace, errors);
        must_succeed_once(&probe, errors);
    }
    if let Some(probe) = container.get("readinessProbe").set() {
        validate_probe(&probe, grace, errors);
        if let Some(period) = probe.get("terminationGracePeriodSeconds").set() {
            errors.push(period.invalid("must not be set for readinessProbes"));
        }
    }
    if let Some(probe) = container.get("startupProbe").set() {
        validate_probe(&probe, grace, errors);
        must_succeed_once(&probe, errors);
    }
}

fn must_succeed_once(probe: &Field<'_>, errors: &mut Errors) {
    let threshold = probe.get("successThreshold");
    if threshold.int() != Some(1) {
        errors.push(threshold.invalid("must be 1"));
    }
}

fn validate_probe(probe: &Field<'_>, grace: i64, errors: &mut Errors) {
    validate_handler(probe, grace, errors);
    for name in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        probe.get(name).non_negative(errors);
    }
    probe.get("terminationGracePeriodSeconds").positive(errors);
}

fn validate_handler(handler: &Field<'_>, grace: i64, errors: &mut Errors) {
    let mut found = false;
    for kind in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let Some(action) = handler.get(kind).set() else {
            continue;
        };
        if found {
            errors.push(action.forbidden("may not specify more than 1 handler type"));
            continue;
        }
        found = true;
        match kind {
            "exec" if action.get("command").is_empty() => errors.push(action.get("command").required("")),
            "exec" => {}
            "httpGet" => http_get(&action, errors),
            "sleep" => sleep(&action, grace, errors),
            _ => port_number_or_name(&action.get("port"), errors),
        }
    }
    if !found {
        errors.push(handler.required("must specify a handler type"));
    }
}

fn http_get(action: &Field<'_>, errors: &mut Errors) {
    if action.get("path").is_empty() {
        errors.push(action.get("path").required(""));
    }
    port_number_or_name(&action.get("port"), errors);
    let scheme = action.get("scheme");
    if !["HTTP", "HTTPS"].contains(&scheme.str()) {
        errors.push(scheme.not_supported(&["HTTP", "HTTPS"]));
    }
    for header in action.get("httpHeaders").items() {
        let name = header.get("name");
        action.get("httpHeaders").with(name.value()).check(names::http_header_name(name.str()), errors);
    }
}

fn sleep(action: &Field<'_>, grace: i64, errors: &mut Errors) {
    let seconds = action.get("seconds").int().unwrap_or(0);
    if !(0..=grace).contains(&seconds) {
        let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        errors.push(action.invalid_as(seconds, detail));
    }
}

/// A port as a number, or as the name of a container's port.
pub fn port_number_or_name(port: &Field<'_>, errors: &mut Errors) {
    let complaints = match (port.int(), port.value().as_str()) {
        (_, Some(name)) => names::port_name(name),
        (number, None) => names::port_number(number.unwrap_or(0)),
    };
    if port.is_set() {
        port.check(complaints, errors)
    } else {
        errors.push(port.invalid_as(0, names::out_of_range(1, 65535)))
    }
}
