//! Where a connection goes: pure functions from a pod and a query to a path of the kubelet's API.

use minik8s_api::kinds::{GroupKind, GroupResource};
use minik8s_api::meta;
use minik8s_api::status::{FieldError, FieldPath, Status};
use serde_json::Value;

use crate::cache::Objects;
use crate::outgoing::{Endpoint, ServicePort, Unresolved};
use crate::query::Query;
use crate::registry::Target;
use crate::request::RequestInfo;
use crate::server::ApiServer;

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// The kubelet of a node.
    Kubelet(String),
    /// Whoever listens there.
    Endpoint(Scheme, Endpoint),
}

/// How a pod or a Service is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// In plain text.
    Http,
    /// Over TLS, whoever answers.
    Https,
}

/// Who answers, and what it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// Who answers.
    pub peer: Peer,
    /// The path and query it sees.
    pub path_and_query: String,
}

/// Query parameters of the kubelet's API, encoded.
#[derive(Default)]
struct Parameters(String);

impl Parameters {
    fn add(&mut self, key: &str, value: &str) {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(&encode(key));
        self.0.push('=');
        self.0.push_str(&encode(value));
    }
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

/// A pod's logs; `None` while it has no node.
pub fn log(pod: &Value, query: &Query) -> Result<Option<Location>, Status> {
    log_options(pod, query)?;
    let container = container(pod, query)?;
    let Some(node) = node(pod) else {
        return Ok(None);
    };
    let mut parameters = Parameters::default();
    for flag in ["follow", "previous", "timestamps"] {
        if query.flag(flag) {
            parameters.add(flag, "true");
        }
    }
    for name in ["sinceSeconds", "sinceTime", "tailLines", "limitBytes", "stream"] {
        if let Some(value) = query.get(name).filter(|value| !value.is_empty()) {
            parameters.add(name, value);
        }
    }
    let path = format!("/containerLogs/{}/{}/{container}{}", meta::namespace(pod), meta::name(pod), parameters.0);
    Ok(Some(Location { peer: Peer::Kubelet(node), path_and_query: path }))
}

/// `pkg/apis/core/validation/validation.go` `ValidatePodLogOptions`.
fn log_options(pod: &Value, query: &Query) -> Result<(), Status> {
    let mut errors = Vec::new();
    let mut at_least = |name: &'static str, least: i64, words: &str| {
        if let Some(text) = query.get(name).filter(|text| !text.is_empty()) {
            match text.parse::<i64>() {
                Ok(number) if number >= least => {}
                Ok(number) => errors.push(FieldError::invalid(&FieldPath::new(name), number, words)),
                Err(_) => errors.push(FieldError::invalid(&FieldPath::new(name), text, "must be an integer")),
            }
        }
    };
    at_least("tailLines", 0, "must be greater than or equal to 0");
    at_least("limitBytes", 1, "must be greater than 0");
    at_least("sinceSeconds", 1, "must be greater than 0");
    if query.get("sinceSeconds").is_some() && query.get("sinceTime").is_some() {
        errors.push(FieldError::forbidden(
            &FieldPath::root(),
            "at most one of `sinceTime` or `sinceSeconds` may be specified",
        ));
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Status::invalid(&GroupKind::new("", "PodLogOptions"), meta::name(pod), errors))
    }
}

/// Exec and attach.
pub fn stream(pod: &Value, query: &Query, verb: &str, with_command: bool) -> Result<Location, Status> {
    let container = container(pod, query)?;
    let node = node(pod).ok_or_else(|| no_host(pod))?;
    if with_command && query.get("command").is_none() {
        return Err(Status::bad_request("you must specify at least 1 command"));
    }
    let mut parameters = Parameters::default();
    for (name, kubelet) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if query.flag(name) {
            parameters.add(kubelet, "1");
        }
    }
    for word in query.all("command").filter(|_| with_command) {
        parameters.add("command", word);
    }
    let path = format!("/{verb}/{}/{}/{container}{}", meta::namespace(pod), meta::name(pod), parameters.0);
    Ok(Location { peer: Peer::Kubelet(node), path_and_query: path })
}

/// Port-forward.
pub fn port_forward(pod: &Value, query: &Query) -> Result<Location, Status> {
    let node = node(pod).ok_or_else(|| no_host(pod))?;
    let mut parameters = Parameters::default();
    for port in query.all("ports") {
        parameters.add("port", port);
    }
    let path = format!("/portForward/{}/{}{}", meta::namespace(pod), meta::name(pod), parameters.0);
    Ok(Location { peer: Peer::Kubelet(node), path_and_query: path })
}

fn node(pod: &Value) -> Option<String> {
    pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()).map(str::to_owned)
}

fn no_host(pod: &Value) -> Status {
    Status::bad_request(format!("pod {} does not have a host assigned", meta::name(pod)))
}

fn names(pod: &Value, list: &str) -> Vec<String> {
    let containers = pod["spec"][list].as_array();
    containers.into_iter().flatten().filter_map(|container| container["name"].as_str()).map(str::to_owned).collect()
}

/// The container that is meant: the only one, or the one that is named.
fn container(pod: &Value, query: &Query) -> Result<String, Status> {
    let (containers, init) = (names(pod, "containers"), names(pod, "initContainers"));
    match query.get("container").filter(|name| !name.is_empty()) {
        Some(name) => {
            let known = containers.iter().chain(&init).chain(&names(pod, "ephemeralContainers")).any(|own| own == name);
            if known {
                return Ok(name.to_owned());
            }
            Err(Status::bad_request(format!("container {name} is not valid for pod {}", meta::name(pod))))
        }
        None => match containers.as_slice() {
            [only] => Ok(only.clone()),
            several => {
                let mut message = format!("a container name must be specified for pod {}", meta::name(pod));
                if !several.is_empty() {
                    message.push_str(&format!(", choose one of: [{}]", several.join(" ")));
                }
                if !init.is_empty() {
                    message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
                }
                Err(Status::bad_request(message))
            }
        },
    }
}

/// The proxy of a node, a pod or a service.
pub fn proxy(server: &ApiServer, target: &Target, info: &RequestInfo, query: &str) -> Result<Location, Status> {
    let mut path_and_query = format!("/{}", info.rest.split('/').map(encode).collect::<Vec<_>>().join("/"));
    if !query.is_empty() {
        path_and_query = format!("{path_and_query}?{query}");
    }
    let peer = match target.kind.plural.as_str() {
        "nodes" => node_peer(server, &target.name)?,
        "pods" => pod_peer(server, target)?,
        _ => service_peer(server, target)?,
    };
    Ok(Location { peer, path_and_query })
}

/// `[scheme:]name[:port]` (`apimachinery/pkg/util/net` `SplitSchemeNamePort`).
fn split_name(name: &str) -> Result<(Scheme, &str, Option<&str>), Status> {
    let invalid = || Status::bad_request(format!("invalid service request {name:?}"));
    let (scheme, name, port) = match name.split(':').collect::<Vec<_>>().as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme, name, port] => (*scheme, *name, *port),
        _ => return Err(invalid()),
    };
    let scheme = match scheme {
        "" | "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return Err(invalid()),
    };
    Ok((scheme, name, Some(port).filter(|port| !port.is_empty())))
}

fn node_peer(server: &ApiServer, name: &str) -> Result<Peer, Status> {
    let (_, name, _) = split_name(name)?;
    let nodes = GroupResource::new("", "nodes");
    server.registry().cache().get(&nodes, "", name).ok_or_else(|| Status::not_found(&nodes, name))?;
    Ok(Peer::Kubelet(name.to_owned()))
}

fn pod_peer(server: &ApiServer, target: &Target) -> Result<Peer, Status> {
    let (scheme, name, port) = split_name(&target.name)?;
    let pods = GroupResource::new("", "pods");
    let pod = server
        .registry()
        .cache()
        .get(&pods, &target.namespace, name)
        .ok_or_else(|| Status::not_found(&pods, name))?
        .value();
    let address = pod["status"]["podIP"].as_str().filter(|address| !address.is_empty());
    let host = address.ok_or_else(|| Status::bad_request("address not allowed"))?.to_owned();
    let first = pod["spec"]["containers"]
        .as_array()
        .into_iter()
        .flatten()
        .find_map(|container| container["ports"][0]["containerPort"].as_u64());
    let port = match port {
        Some(port) => port.parse().map_err(|_| Status::bad_request(format!("invalid port {port:?}")))?,
        None => first.and_then(|port| u16::try_from(port).ok()).unwrap_or(80),
    };
    Ok(Peer::Endpoint(scheme, Endpoint { host, port }))
}

/// A ready endpoint of a service (`pkg/registry/core/service/storage/storage.go` `ResourceLocation`).
fn service_peer(server: &ApiServer, target: &Target) -> Result<Peer, Status> {
    let (scheme, name, port) = split_name(&target.name)?;
    let port = port.map_or(ServicePort::First, ServicePort::Named);
    let endpoint = server.outgoing().resolve(&target.namespace, name, port).map_err(|error| match error {
        Unresolved::NotFound(name) => Status::not_found(&GroupResource::new("", "services"), &name),
        Unresolved::NoEndpoints(_) => {
            Status::service_unavailable(format!("no endpoints available for service {:?}", target.name))
        }
        error => Status::service_unavailable(error.to_string()),
    })?;
    Ok(Peer::Endpoint(scheme, endpoint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(containers: &[&str]) -> Value {
        let containers: Vec<Value> = containers.iter().map(|name| json!({ "name": name })).collect();
        json!({ "metadata": { "name": "p", "namespace": "ns" }, "spec": { "nodeName": "n1", "containers": containers } })
    }

    #[test]
    fn logs_and_streams_go_to_the_kubelets_paths() {
        let query = Query::parse("follow=true&tailLines=5&container=b");
        let log = log(&pod(&["a", "b"]), &query).expect("valid").expect("has a node");
        assert_eq!(log.path_and_query, "/containerLogs/ns/p/b?follow=true&tailLines=5");
        let query = Query::parse("command=sh&command=-c&command=echo+hi%26&stdin=true&tty=true&stdout=true");
        let exec = stream(&pod(&["a"]), &query, "exec", true).expect("valid");
        assert_eq!(
            exec.path_and_query,
            "/exec/ns/p/a?input=1&output=1&tty=1&command=sh&command=-c&command=echo%20hi%26"
        );
        assert_eq!(exec.peer, Peer::Kubelet("n1".into()));
    }

    #[test]
    fn the_container_must_be_clear() {
        let words = |query: &str, pod: &Value| container(pod, &Query::parse(query)).expect_err("refused").message;
        assert_eq!(words("", &pod(&["a", "b"])), "a container name must be specified for pod p, choose one of: [a b]");
        assert_eq!(words("container=c", &pod(&["a"])), "container c is not valid for pod p");
        let refused = log(&pod(&["a"]), &Query::parse("tailLines=-1")).expect_err("refused");
        assert_eq!(
            refused.message,
            "PodLogOptions \"p\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0"
        );
    }
}
