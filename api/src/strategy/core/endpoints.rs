//! Endpoints.
use std::net::IpAddr;

use crate::strategy::built_in::Behavior;
use crate::strategy::edit;
use crate::strategy::field::{Errors, Field};
use crate::strategy::names;

/// `v1` Endpoints.
pub struct Endpoints;

impl Behavior for Endpoints {
    fn set_defaults(&self, object: &mut serde_json::Value) {
        for subset in edit::each(object, "subsets") {
            for port in edit::each(subset, "ports") {
                edit::default_text(port, "protocol", "TCP");
            }
        }
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        for subset in object.get("subsets").items() {
            let (ready, not_ready) = (subset.get("addresses"), subset.get("notReadyAddresses"));
            if ready.is_empty() && not_ready.is_empty() {
                errors.push(subset.required("must specify `addresses` or `notReadyAddresses`"));
            }
            for address in ready.items().chain(not_ready.items()) {
                let (ip, host, node) = (address.get("ip"), address.get("hostname"), address.get("nodeName"));
                ip.check(names::ip(ip.str()), errors);
                if ip.is_empty() {
                    // Judged twice: as an address, and as one that can be reached.
                    errors.push(ip.invalid("must be a valid IP address"));
                }
                if !host.is_empty() {
                    host.check(names::dns1123_label(host.str()), errors);
                }
                if node.is_set() {
                    node.check(names::dns1123_subdomain(node.str()), errors);
                }
                not_special_ip(&ip, errors);
            }
            ports(&subset.get("ports"), errors);
        }
    }
}

fn ports(ports: &Field<'_>, errors: &mut Errors) {
    for port in ports.items() {
        let name = port.get("name");
        if name.is_empty() && ports.len() > 1 {
            errors.push(name.required(""));
        } else if !name.is_empty() {
            name.check(names::dns1123_label(name.str()), errors);
        }
        let number = port.get("port");
        errors.extend(
            names::port_number(number.int().unwrap_or(0))
                .into_iter()
                .map(|complaint| number.invalid_as(number.int().unwrap_or(0), complaint)),
        );
        port.get("protocol").one_of(&["SCTP", "TCP", "UDP"], errors);
        if let Some(protocol) = port.get("appProtocol").set() {
            protocol.check(names::qualified_name(protocol.str()), errors);
        }
    }
}

/// An address that traffic can be sent to from another machine: `ValidateEndpointIP`.
pub fn not_special_ip(ip: &Field<'_>, errors: &mut Errors) {
    let Ok(address) = ip.str().parse::<IpAddr>() else {
        return;
    };
    if address.is_unspecified() {
        errors.push(ip.invalid(format!("may not be unspecified ({address})")));
    }
    if address.is_loopback() {
        errors.push(ip.invalid("may not be in the loopback range (127.0.0.0/8, ::1/128)"));
    }
    let (link_local, link_local_multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.segments()[0] & 0xffc0 == 0xfe80, v6.segments()[0] & 0xff0f == 0xff02),
    };
    if link_local {
        errors.push(ip.invalid("may not be in the link-local range (169.254.0.0/16, fe80::/10)"));
    }
    if link_local_multicast {
        errors.push(ip.invalid("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"));
    }
}
