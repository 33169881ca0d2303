//! The endpoints of a Service (`k8s.io/apiserver/pkg/util/proxy/proxy.go` `ResolveEndpoint`, `ResolveCluster`).

use std::fmt;

use minik8s_api::kinds::GroupResource;
use serde_json::Value;

use crate::cache::Objects;

/// The label by which a slice belongs to a Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// An IP address or a name.
    pub host: String,
    /// A port of the host.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    /// `10.0.0.1:443`, `[fd00::1]:443`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Why a Service has no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// There is no such Service.
    #[error("service {0:?} not found")]
    NotFound(String),
    /// It has no such port.
    #[error("no service port {port} found for service {service:?}")]
    NoPort {
        /// The port as it was asked for.
        port: String,
        /// The Service.
        service: String,
    },
    /// Nobody is ready behind it.
    #[error("no endpoints available for service {0:?}")]
    NoEndpoints(String),
}

/// Which of a Service's ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServicePort<'a> {
    /// By its number.
    Number(u16),
    /// By its name, or by its number in digits.
    Named(&'a str),
    /// The first one.
    First,
}

impl fmt::Display for ServicePort<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServicePort::Number(number) => write!(f, "{number}"),
            ServicePort::Named(name) => write!(f, "{name:?}"),
            ServicePort::First => f.write_str("\"\""),
        }
    }
}

/// The ready endpoints of a port, of which there is at least one. What the port is called on the pods
/// (`targetPort`, a number or a name that each pod may give to another number) stands in the slices already. A Service of
/// type ExternalName is its name.
pub fn endpoints(
    objects: &dyn Objects,
    namespace: &str,
    name: &str,
    port: ServicePort<'_>,
) -> Result<Vec<Endpoint>, Unresolved> {
    let service = objects.get(&GroupResource::new("", "services"), namespace, name);
    let service = service.ok_or_else(|| Unresolved::NotFound(name.to_owned()))?.value();
    let wanted = find_port(&service, port);
    if service["spec"]["type"] == "ExternalName" {
        return external(&service, name, port, wanted);
    }
    let wanted = wanted.ok_or_else(|| no_port(name, port))?;
    let found: Vec<Endpoint> =
        slices(objects, namespace, name).iter().flat_map(|slice| ready(slice, port_name(wanted))).collect();
    if found.is_empty() { Err(Unresolved::NoEndpoints(name.to_owned())) } else { Ok(found) }
}

fn no_port(service: &str, port: ServicePort<'_>) -> Unresolved {
    Unresolved::NoPort { port: port.to_string(), service: service.to_owned() }
}

/// The port of a Service.
pub fn find_port<'s>(service: &'s Value, port: ServicePort<'_>) -> Option<&'s Value> {
    let mut ports = service["spec"]["ports"].as_array().into_iter().flatten();
    match port {
        ServicePort::First => ports.next(),
        ServicePort::Number(number) => ports.find(|own| own["port"].as_u64() == Some(number.into())),
        ServicePort::Named(name) => {
            let number = name.parse().ok();
            ports.find(|own| port_name(own) == name || (number.is_some() && own["port"].as_u64() == number))
        }
    }
}

/// The name of a port, empty where it has none.
pub fn port_name(port: &Value) -> &str {
    port["name"].as_str().unwrap_or_default()
}

/// The slices of a Service.
pub fn slices(objects: &dyn Objects, namespace: &str, name: &str) -> Vec<Value> {
    let all = objects.list(&GroupResource::new("discovery.k8s.io", "endpointslices"), Some(namespace));
    all.iter().filter(|slice| slice.label(SERVICE_NAME) == Some(name)).map(|slice| slice.value()).collect()
}

/// The ready endpoints of a slice under the port of that name.
pub fn ready(slice: &Value, name: &str) -> Vec<Endpoint> {
    let ports = slice["ports"].as_array().into_iter().flatten();
    let number = ports.filter(|own| port_name(own) == name).find_map(|own| number(&own["port"]));
    let Some(port) = number else { return Vec::new() };
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    endpoints
        .filter(|endpoint| endpoint["conditions"]["ready"] != false)
        .filter_map(|endpoint| endpoint["addresses"][0].as_str())
        .map(|host| Endpoint { host: host.to_owned(), port })
        .collect()
}

/// An external name is asked at the port that the caller has in mind; the Service need not list it.
fn external(
    service: &Value,
    name: &str,
    port: ServicePort<'_>,
    wanted: Option<&Value>,
) -> Result<Vec<Endpoint>, Unresolved> {
    let given = match port {
        ServicePort::Number(number) => Some(number),
        ServicePort::Named(text) => text.parse().ok(),
        ServicePort::First => None,
    };
    let listed = wanted.and_then(|port| number(&port["port"]));
    let port = given.or(listed).ok_or_else(|| no_port(name, port))?;
    let host = service["spec"]["externalName"].as_str().unwrap_or_default().to_owned();
    Ok(vec![Endpoint { host, port }])
}

fn number(port: &Value) -> Option<u16> {
    port.as_u64().and_then(|port| u16::try_from(port).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ports_are_found_by_number_and_name() {
        let service = json!({ "spec": { "ports": [{ "name": "a", "port": 80 }, { "name": "https", "port": 443 }] } });
        let found = |port| find_port(&service, port).map_or("", port_name).to_owned();
        assert_eq!(found(ServicePort::Number(443)), "https");
        assert_eq!(found(ServicePort::Named("https")), "https");
        assert_eq!(found(ServicePort::Named("443")), "https");
        assert_eq!((found(ServicePort::First), found(ServicePort::Named("b"))), ("a".to_owned(), String::new()));
    }

    #[test]
    fn each_slice_has_its_own_number_for_a_port() {
        let slice = json!({
            "ports": [{ "name": "metrics", "port": 1 }, { "name": "https", "port": 8443 }],
            "endpoints": [
                { "addresses": ["10.0.0.1"], "conditions": { "ready": true } },
                { "addresses": ["10.0.0.2"], "conditions": { "ready": false } },
                { "addresses": ["fd00::3"] },
            ],
        });
        let shown: Vec<String> = ready(&slice, "https").iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["10.0.0.1:8443", "[fd00::3]:8443"]);
        assert!(ready(&slice, "").is_empty());
    }
}
