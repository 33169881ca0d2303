//! EndpointSlices.
use std::collections::BTreeSet;

use serde_json::Value;

use super::built_in::Behavior;
use super::core::not_special_ip;
use super::field::{Errors, Field};
use super::{Context, Subresource, edit, names};

const ENDPOINTS_MAX: usize = 1000;
const PORTS_MAX: usize = 20_000;
const ADDRESSES_MAX: usize = 100;

/// `discovery.k8s.io/v1` EndpointSlice.
pub struct EndpointSlice;

impl Behavior for EndpointSlice {
    fn set_defaults(&self, object: &mut Value) {
        for port in edit::each(object, "ports") {
            edit::default(port, "name", "");
            edit::default(port, "protocol", "TCP");
        }
    }

    fn prepare_for_create(&self, _: &Context<'_>, object: &mut Value) {
        drop_topology(object);
    }

    fn prepare_for_update(&self, _: &Context<'_>, _: Subresource, new: &mut Value, old: &Value) {
        let kept = |endpoint: &Value| endpoint.get("deprecatedTopology").is_some();
        if !old["endpoints"].as_array().is_some_and(|endpoints| endpoints.iter().any(kept)) {
            drop_topology(new);
        }
    }

    fn warnings(&self, object: &Field<'_>, old: Option<&Value>, warnings: &mut Vec<String>) {
        if old.is_none() && object.get("addressType").str() == "FQDN" {
            warnings.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
        }
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let (family, endpoints, ports) = (object.get("addressType"), object.get("endpoints"), object.get("ports"));
        family.one_of(&["FQDN", "IPv4", "IPv6"], errors);
        if endpoints.len() > ENDPOINTS_MAX {
            errors.push(endpoints.too_many(ENDPOINTS_MAX));
        }
        for endpoint in endpoints.items() {
            validate_endpoint(&endpoint, family.str(), errors);
        }
        if ports.len() > PORTS_MAX {
            errors.push(ports.too_many(PORTS_MAX));
        }
        validate_ports(&ports, errors);
    }

    fn validate_update(&self, _: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        self.validate(new, errors);
        new.get("addressType").immutable(&old.get("addressType"), errors);
    }
}

/// A field of `v1beta1` that `v1` only shows where it is stored.
fn drop_topology(object: &mut Value) {
    for endpoint in edit::each(object, "endpoints") {
        edit::take(endpoint, "deprecatedTopology");
    }
}

fn validate_endpoint(endpoint: &Field<'_>, family: &str, errors: &mut Errors) {
    let addresses = endpoint.get("addresses");
    if addresses.is_empty() {
        errors.push(addresses.required(""));
    } else if addresses.len() > ADDRESSES_MAX {
        errors.push(addresses.too_many(ADDRESSES_MAX));
    }
    for address in addresses.items() {
        match family {
            "IPv4" if address.str().parse::<std::net::Ipv4Addr>().is_err() => {
                errors.push(address.invalid("must be an IPv4 address"));
            }
            "IPv6" if address.str().parse::<std::net::Ipv6Addr>().is_err() => {
                errors.push(address.invalid("must be an IPv6 address"));
            }
            "FQDN" => address.check(names::dns1123_subdomain(address.str()), errors),
            _ => not_special_ip(&address, errors),
        }
    }
    if let Some(node) = endpoint.get("nodeName").set() {
        node.check(names::dns1123_subdomain(node.str()), errors);
    }
    if let Some(host) = endpoint.get("hostname").set() {
        host.check(names::dns1123_label(host.str()), errors);
    }
    for (key, value) in endpoint.get("deprecatedTopology").entries() {
        value.check(names::qualified_name(key), errors);
    }
}

fn validate_ports(ports: &Field<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for port in ports.items() {
        let (name, protocol) = (port.get("name"), port.get("protocol"));
        if !name.is_empty() {
            name.check(names::dns1123_label(name.str()), errors);
        }
        if !seen.insert(name.str()) {
            errors.push(name.duplicate());
        }
        if protocol.is_set() {
            protocol.one_of(&["SCTP", "TCP", "UDP"], errors);
        }
        if let Some(protocol) = port.get("appProtocol").set() {
            protocol.check(names::qualified_name(protocol.str()), errors);
        }
    }
}
