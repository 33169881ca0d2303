//! Where a webhook is: `clientConfig` of admission webhooks and of definitions.
//! (`k8s.io/apiserver/pkg/util/webhook/validation.go`)

use super::field::{Errors, Field};
use super::names;

const FORM: &str = "desired format: https://host[/path]";

/// Which of Kubernetes' two validations of a Service without a name speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// That of definitions' conversion webhooks, written by hand.
    ByHand,
    /// That of admission webhooks, generated from declarations; it names the one field where the other is missing.
    Declared,
}

/// A URL or a Service, and what to trust.
pub fn client_config(client: &Field<'_>, missing: Missing, errors: &mut Errors) {
    match (client.get("url").set(), client.get("service").set()) {
        (Some(place), None) => url(&place, errors),
        (None, Some(place)) => service(&place, missing, errors),
        _ => errors.push(client.required("exactly one of url or service is required")),
    }
}

fn url(url: &Field<'_>, errors: &mut Errors) {
    let (scheme, rest) = url.str().split_once("://").unwrap_or_default();
    if scheme != "https" {
        errors.push(url.invalid_as(scheme, format!("'https' is the only allowed URL scheme; {FORM}")));
    }
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = rest.split('/').next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if host.is_empty() {
        errors.push(url.invalid_as(host, format!("host must be specified; {FORM}")));
    }
    if !user.is_empty() {
        errors.push(url.invalid_as(user, "user information is not permitted in the URL"));
    }
    if !fragment.is_empty() {
        errors.push(url.invalid_as(fragment, "fragments are not permitted in the URL"));
    }
    if !query.is_empty() {
        errors.push(url.invalid_as(query, "query parameters are not permitted in the URL"));
    }
}

fn service(service: &Field<'_>, missing: Missing, errors: &mut Errors) {
    let (name, namespace, path, port) =
        (service.get("name"), service.get("namespace"), service.get("path"), service.get("port"));
    match missing {
        Missing::ByHand => {
            for field in [&name, &namespace] {
                if field.is_empty() {
                    errors.push(field.required(""));
                }
            }
        }
        Missing::Declared => {
            for (absent, said) in [(&namespace, &name), (&name, &namespace)] {
                if absent.is_empty() {
                    errors.push(said.required(""));
                }
            }
        }
    }
    if port.int().is_some_and(|port| !(1..=65_535).contains(&port)) {
        let number = port.int().unwrap_or_default();
        errors.push(port.invalid_as(number, "port is not valid: must be between 1 and 65535, inclusive"));
    }
    if !path.is_empty() {
        service_path(&path, errors);
    }
}

fn service_path(path: &Field<'_>, errors: &mut Errors) {
    let text = path.str();
    if text == "/" {
        return;
    }
    let rest = text.strip_prefix('/').unwrap_or_else(|| {
        errors.push(path.invalid("must start with a '/'"));
        let mut rest = text.chars();
        rest.next();
        rest.as_str()
    });
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    for (at, segment) in rest.split('/').enumerate() {
        if segment.is_empty() {
            errors.push(path.invalid(format!("segment[{at}] may not be empty")));
            continue;
        }
        for fault in names::dns1123_subdomain(segment) {
            errors.push(path.invalid(format!("segment[{at}]: {fault}")));
        }
    }
}
