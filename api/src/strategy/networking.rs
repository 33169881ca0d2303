//! Ingresses, IngressClasses, NetworkPolicies, IPAddresses and ServiceCIDRs.
//! Mirrors `pkg/apis/networking/{v1/defaults.go,validation/validation.go}`.
use serde_json::{Value, json};

use super::built_in::Behavior;
use super::field::{Errors, Field};
use super::{Subresource, edit, labels, names, pod};

/// How an ingress named its class before it had a field for it.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// `networking.k8s.io/v1` Ingress.
pub struct Ingress;

impl Behavior for Ingress {
    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let spec = object.get("spec");
        validate_ingress_spec(&spec, errors);
        let annotation = object.get("metadata").get("annotations").key(CLASS_ANNOTATION);
        if annotation.is_set() && spec.get("ingressClassName").is_set() {
            errors.push(annotation.invalid("can not be set when the class field is also set"));
        }
    }

    fn validate_update(&self, subresource: Subresource, new: &Field<'_>, _: &Field<'_>, errors: &mut Errors) {
        if subresource != Subresource::Status {
            validate_ingress_spec(&new.get("spec"), errors);
            return;
        }
        for ingress in new.get("status").get("loadBalancer").get("ingress").items() {
            let ip = ingress.get("ip");
            if !ip.is_empty() {
                ip.check(names::ip(ip.str()), errors);
            }
            let host = ingress.get("hostname");
            if !host.is_empty() {
                host.check(names::dns1123_subdomain(host.str()), errors);
            }
        }
    }

    fn warnings(&self, object: &Field<'_>, old: Option<&Value>, warnings: &mut Vec<String>) {
        let class = object.get("metadata").get("annotations").key(CLASS_ANNOTATION);
        if old.is_none() && class.is_set() {
            warnings.push(
                "annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead"
                    .to_owned(),
            );
        }
    }
}

fn validate_ingress_spec(spec: &Field<'_>, errors: &mut Errors) {
    let (rules, default) = (spec.get("rules"), spec.get("defaultBackend"));
    if rules.is_empty() && !default.is_set() {
        errors.push(spec.invalid_as(Value::Null, "either `defaultBackend` or `rules` must be specified"));
    }
    if default.is_set() {
        backend(&default, errors);
    }
    for rule in rules.items() {
        ingress_host(&rule.get("host"), errors);
        let paths = rule.get("http").get("paths");
        if rule.get("http").is_set() && paths.is_empty() {
            errors.push(paths.required(""));
        }
        paths.items().for_each(|path| ingress_path(&path, errors));
    }
    for tls in spec.get("tls").items() {
        for host in tls.get("hosts").items() {
            if host.str().contains('*') {
                host.check(names::wildcard_dns1123_subdomain(host.str()), errors);
            } else {
                host.check(names::dns1123_subdomain(host.str()), errors);
            }
        }
        let secret = tls.get("secretName");
        if !secret.is_empty() {
            secret.check(names::dns1123_subdomain(secret.str()), errors);
        }
    }
    let class = spec.get("ingressClassName");
    if class.is_set() {
        class.check(names::dns1123_subdomain(class.str()), errors);
    }
}

fn ingress_host(host: &Field<'_>, errors: &mut Errors) {
    let name = host.str();
    if name.is_empty() {
        return;
    }
    if name.parse::<std::net::IpAddr>().is_ok() {
        errors.push(host.invalid("must be a DNS name, not an IP address"));
    } else if name.contains('*') {
        host.check(names::wildcard_dns1123_subdomain(name), errors);
    } else {
        host.check(names::dns1123_subdomain(name), errors);
    }
}

fn ingress_path(entry: &Field<'_>, errors: &mut Errors) {
    const NEVER_IN_PATHS: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
    const NEVER_AT_END: [&str; 2] = ["/..", "/."];
    let (path, kind) = (entry.get("path"), entry.get("pathType"));
    match kind.str() {
        "" if !kind.is_set() => {
            errors.push(kind.required("pathType must be specified"));
            return;
        }
        "Exact" | "Prefix" => {
            if !path.str().starts_with('/') {
                errors.push(path.invalid("must be an absolute path"));
            }
            for sequence in NEVER_IN_PATHS.iter().filter(|sequence| path.str().contains(**sequence)) {
                errors.push(path.invalid(format!("must not contain '{sequence}'")));
            }
            for sequence in NEVER_AT_END.iter().filter(|sequence| path.str().ends_with(**sequence)) {
                errors.push(path.invalid(format!("cannot end with '{sequence}'")));
            }
        }
        "ImplementationSpecific" => {
            if !path.is_empty() && !path.str().starts_with('/') {
                errors.push(path.invalid("must be an absolute path"));
            }
        }
        _ => errors.push(kind.not_supported(&["Exact", "ImplementationSpecific", "Prefix"])),
    }
    backend(&entry.get("backend"), errors);
}

fn backend(backend: &Field<'_>, errors: &mut Errors) {
    let (service, resource) = (backend.get("service"), backend.get("resource"));
    match (service.set(), resource.set()) {
        (Some(_), Some(_)) => errors.push(backend.invalid_as("", "cannot set both resource and service backends")),
        (None, Some(resource)) => {
            api_group(&resource.get("apiGroup"), errors);
            for name in ["kind", "name"] {
                if resource.get(name).is_empty() {
                    errors.push(resource.get(name).required(""));
                }
            }
        }
        (None, None) => errors.push(backend.invalid_as("", "resource or service backend is required")),
        (Some(service), None) => service_backend(backend, &service, errors),
    }
}

fn service_backend(backend: &Field<'_>, service: &Field<'_>, errors: &mut Errors) {
    let (name, port) = (service.get("name"), service.get("port"));
    if name.is_empty() {
        errors.push(name.required(""));
    } else {
        name.check(names::dns1123_label(name.str()), errors);
    }
    let (by_name, by_number) = (port.get("name"), port.get("number"));
    match (by_name.is_empty(), by_number.int().unwrap_or(0)) {
        (true, 0) => errors.push(backend.required("port name or number is required")),
        (true, number) => by_number.check(names::port_number(number), errors),
        (false, 0) => by_name.check(names::port_name(by_name.str()), errors),
        (false, _) => errors.push(backend.invalid_as("", "cannot set both port name & port number")),
    }
}

/// The group of a referred kind, where it is not the core group.
fn api_group(group: &Field<'_>, errors: &mut Errors) {
    if group.is_set() {
        group.check(names::dns1123_subdomain(group.str()), errors);
    }
}

/// `networking.k8s.io/v1` IngressClass.
pub struct IngressClass;

impl Behavior for IngressClass {
    fn set_defaults(&self, object: &mut Value) {
        if let Some(parameters) = object.pointer_mut("/spec/parameters") {
            edit::default(parameters, "scope", "Cluster");
        }
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let controller = object.get("spec").get("controller");
        if controller.len() > 250 {
            errors.push(controller.too_long(250));
        }
        if controller.is_empty() {
            errors.push(controller.required(""));
        } else {
            controller.check(names::domain_prefixed_path(controller.str()), errors);
        }
        let Some(parameters) = object.get("spec").get("parameters").set() else {
            return;
        };
        api_group(&parameters.get("apiGroup"), errors);
        let (scope, namespace) = (parameters.get("scope"), parameters.get("namespace"));
        if !scope.is_set() {
            errors.push(scope.required(""));
        } else if !["Cluster", "Namespace"].contains(&scope.str()) {
            errors.push(scope.not_supported(&["Cluster", "Namespace"]));
        }
        match (scope.str(), namespace.is_set()) {
            ("Namespace", false) => errors.push(namespace.required("`parameters.scope` is set to 'Namespace'")),
            ("Namespace", true) => namespace.check(names::dns1123_label(namespace.str()), errors),
            ("Cluster", true) => errors.push(namespace.forbidden("`parameters.scope` is set to 'Cluster'")),
            _ => {}
        }
        for name in ["kind", "name"] {
            if parameters.get(name).is_empty() {
                errors.push(parameters.get(name).required(""));
            }
        }
    }

    fn validate_update(&self, _: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        let (controller, before) = (new.get("spec").get("controller"), old.get("spec").get("controller"));
        controller.immutable(&before, errors);
        self.validate(new, errors);
    }
}

/// `networking.k8s.io/v1` NetworkPolicy.
pub struct NetworkPolicy;

impl Behavior for NetworkPolicy {
    fn set_defaults(&self, object: &mut Value) {
        let spec = edit::child(object, "spec");
        if spec["policyTypes"].as_array().is_none_or(Vec::is_empty) {
            let egress = spec["egress"].as_array().is_some_and(|rules| !rules.is_empty());
            edit::set(spec, "policyTypes", if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
        }
        for direction in ["ingress", "egress"] {
            for rule in edit::each(spec, direction) {
                for port in edit::each(rule, "ports") {
                    edit::default(port, "protocol", "TCP");
                }
            }
        }
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let spec = object.get("spec");
        labels::validate_selector(&spec.get("podSelector"), errors);
        for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
            for rule in spec.get(direction).items() {
                rule.get("ports").items().for_each(|port| policy_port(&port, errors));
                rule.get(peers).items().for_each(|peer| policy_peer(&peer, errors));
            }
        }
        let kinds = spec.get("policyTypes");
        if kinds.len() > 2 {
            errors.push(kinds.invalid("may not specify more than two policyTypes"));
            return;
        }
        for kind in kinds.items().filter(|kind| !["Egress", "Ingress"].contains(&kind.str())) {
            errors.push(kind.not_supported(&["Ingress", "Egress"]));
        }
    }
}

fn policy_port(entry: &Field<'_>, errors: &mut Errors) {
    let (protocol, port, end) = (entry.get("protocol"), entry.get("port"), entry.get("endPort"));
    if protocol.is_set() && !["SCTP", "TCP", "UDP"].contains(&protocol.str()) {
        errors.push(protocol.not_supported(&["TCP", "UDP", "SCTP"]));
    }
    if port.is_set() {
        pod::port_number_or_name(&port, errors);
    }
    let Some(last) = end.int() else { return };
    if !port.is_set() {
        errors.push(end.invalid("may not be specified when `port` is not specified"));
    } else if port.int().is_none() {
        errors.push(end.invalid("may not be specified when `port` is non-numeric"));
    } else if port.int().is_some_and(|first| last < first) {
        errors.push(end.invalid("must be greater than or equal to `port`"));
    }
    end.check(names::port_number(last), errors);
}

fn policy_peer(peer: &Field<'_>, errors: &mut Errors) {
    let mut given = 0;
    for name in ["podSelector", "namespaceSelector"] {
        if let Some(selector) = peer.get(name).set() {
            given += 1;
            labels::validate_selector(&selector, errors);
        }
    }
    if let Some(block) = peer.get("ipBlock").set() {
        ip_block(&block, errors);
        if given > 0 {
            errors.push(peer.forbidden("may not specify both ipBlock and another peer"));
        }
    } else if given == 0 {
        errors.push(peer.required("must specify a peer"));
    }
}

fn ip_block(block: &Field<'_>, errors: &mut Errors) {
    let cidr = block.get("cidr");
    if cidr.is_empty() {
        errors.push(cidr.required(""));
        return;
    }
    let Some((network, length)) = names::parse_cidr(cidr.str()) else {
        cidr.check(names::cidr(cidr.str()), errors);
        return;
    };
    for except in block.get("except").items() {
        match names::parse_cidr(except.str()) {
            None => except.check(names::cidr(except.str()), errors),
            Some((inner, inner_length)) => {
                if inner_length <= length || !within(network, length, inner) {
                    errors.push(except.invalid("must be a strict subset of `cidr`"));
                }
            }
        }
    }
}

fn within(network: std::net::IpAddr, length: u8, address: std::net::IpAddr) -> bool {
    let bits = |address: std::net::IpAddr| match address {
        std::net::IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, true),
        std::net::IpAddr::V6(v6) => (v6.to_bits(), false),
    };
    let ((a, a_is_v4), (b, b_is_v4)) = (bits(network), bits(address));
    let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
    a_is_v4 == b_is_v4 && a & mask == b & mask
}

/// `networking.k8s.io/v1` IPAddress: named by the address it reserves.
pub struct IpAddress;

impl Behavior for IpAddress {
    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let parent = object.get("spec").get("parentRef");
        if !parent.is_set() {
            errors.push(parent.required(""));
            return;
        }
        let group = parent.get("group");
        if !group.is_empty() {
            group.check(names::dns1123_subdomain(group.str()), errors);
        }
        for name in ["resource", "name"] {
            if parent.get(name).is_empty() {
                errors.push(parent.get(name).required(""));
            }
        }
    }

    fn validate_update(&self, _: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        let (parent, before) = (new.get("spec").get("parentRef"), old.get("spec").get("parentRef"));
        self.validate(new, errors);
        if parent.value() != before.value() {
            errors.push(parent.invalid_as(Value::Null, "field is immutable"));
        }
    }

    fn selectable(&self) -> &'static [(&'static str, &'static str)] {
        &[("spec.parentRef.name", "/spec/parentRef/name")]
    }
}

/// `networking.k8s.io/v1` ServiceCIDR: one block a family, which never changes.
pub struct ServiceCidr;

impl Behavior for ServiceCidr {
    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let blocks = object.get("spec").get("cidrs");
        if blocks.is_empty() {
            errors.push(blocks.required("at least one CIDR required"));
        } else if blocks.len() > 2 {
            let shown = json!({ "CIDRs": blocks.value() });
            errors.push(blocks.invalid_as(shown, "may only hold up to 2 values"));
        }
        blocks.items().for_each(|block| block.check(names::cidr(block.str()), errors));
    }

    fn validate_update(&self, subresource: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        if subresource == Subresource::Status {
            return;
        }
        // As many blocks as before: the one that differs is named.
        let (blocks, before) = (new.get("spec").get("cidrs"), old.get("spec").get("cidrs"));
        if blocks.len() != before.len() || blocks.is_empty() {
            let shown = if blocks.is_set() { blocks.value().clone() } else { json!([]) };
            if blocks.len() != before.len() {
                errors.push(blocks.invalid_as(shown, "field is immutable"));
            }
            return;
        }
        for (block, before) in blocks.items().zip(before.items()) {
            block.immutable(&before, errors);
        }
    }
}
