//! The downward API: what a pod may learn about itself, as variables and as files.
//!
//! (kubelet: `pkg/fieldpath/fieldpath.go`, `pkg/api/v1/resource/helpers.go`.)

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

use crate::error::{Error, Result};
use crate::resources::{self, Amount};
use crate::spec::PodExt as _;
use crate::words;

/// What of the node a pod may learn, and what stands in for limits it does not set.
#[derive(Clone, Debug, Default)]
pub struct NodeView {
    /// The node's name.
    pub name: String,
    /// The node's addresses, the primary one first.
    pub host_ips: Vec<String>,
    /// The pod's addresses, the primary one first.
    pub pod_ips: Vec<String>,
    /// What pods may use of the node: the limit of a container that sets none.
    pub allocatable: resources::Amounts,
}

/// The value of a `fieldRef`.
///
/// # Errors
/// A path that is not one of the downward API's.
pub fn field(pod: &Pod, path: &str, node: &NodeView) -> Result<String> {
    let meta = &pod.metadata;
    if let Some(key) = subscript(path, "metadata.labels") {
        return Ok(meta.labels.as_ref().and_then(|labels| labels.get(key)).cloned().unwrap_or_default());
    }
    if let Some(key) = subscript(path, "metadata.annotations") {
        return Ok(meta.annotations.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    let lines = |map: &Option<std::collections::BTreeMap<String, String>>| {
        map.iter()
            .flatten()
            .map(|(key, value)| format!("{key}={}", words::quoted(value)))
            .collect::<Vec<_>>()
            .join("\n")
    };
    Ok(match path {
        "metadata.name" => pod.name().to_owned(),
        "metadata.namespace" => pod.namespace().to_owned(),
        "metadata.uid" => pod.uid().to_owned(),
        "metadata.labels" => lines(&meta.labels),
        "metadata.annotations" => lines(&meta.annotations),
        "spec.nodeName" => node.name.clone(),
        "spec.serviceAccountName" => pod.spec().service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => node.host_ips.first().cloned().unwrap_or_default(),
        "status.hostIPs" => node.host_ips.join(","),
        "status.podIP" => node.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => node.pod_ips.join(","),
        _ => return Err(Error::InvalidPod(format!("unsupported fieldPath: {path}"))),
    })
}

fn subscript<'a>(path: &'a str, name: &str) -> Option<&'a str> {
    path.strip_prefix(name)?.strip_prefix("['")?.strip_suffix("']")
}

/// The value of a `resourceFieldRef`, rounded up to its divisor. `container` is the one that asks, unless it names another.
///
/// # Errors
/// A container or a resource that is not there.
pub fn resource(
    pod: &Pod,
    container: Option<&Container>,
    selector: &ResourceFieldSelector,
    node: &NodeView,
) -> Result<String> {
    let named = selector.container_name.as_deref().filter(|name| !name.is_empty());
    let found = named.and_then(|name| pod.container(name)).map(|(_, container)| container);
    let container = match (named, &found) {
        (Some(name), None) => return Err(Error::InvalidPod(format!("container {name} not found"))),
        (_, Some(found)) => found,
        (None, None) => container
            .ok_or_else(|| Error::InvalidPod("resourceFieldRef of a volume needs a containerName".to_owned()))?,
    };
    let unsupported = || Error::InvalidPod(format!("unsupported container resource : {}", selector.resource));
    let (list, name) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    let requirements = container.resources.as_ref();
    let limit = resources::amount_of(requirements.and_then(|r| r.limits.as_ref()), name)?;
    let amount = match list {
        "limits" => limit.or_else(|| node.allocatable.get(name).copied()).unwrap_or_default(),
        "requests" => {
            resources::amount_of(requirements.and_then(|r| r.requests.as_ref()), name)?.or(limit).unwrap_or_default()
        }
        _ => return Err(unsupported()),
    };
    let divisor = match selector.divisor.as_ref().map(|q| q.0.as_str()) {
        None | Some("0" | "") => Amount::from_units(1),
        Some(text) => Amount::parse(text)?,
    };
    Ok(amount.divided_up(divisor).to_string())
}
