//! What a node of this cluster is made of: its name, its address, its capacity.

use std::net::Ipv4Addr;

use anyhow::{Result, anyhow, bail};
use k8s_openapi::api::core::v1::Taint;

use crate::home::NodeFile;

/// The version of Kubernetes that this program is.
pub const KUBERNETES_VERSION: &str = "v1.37.2";

/// The CPU of a node for which nothing else is said.
pub const DEFAULT_CPU: &str = "4";
/// The memory of a node for which nothing else is said.
pub const DEFAULT_MEMORY: &str = "8Gi";

/// The address of the cluster's DNS.
pub const CLUSTER_DNS: &str = "10.96.0.10";
/// The cluster's domain.
pub const CLUSTER_DOMAIN: &str = "cluster.local";

/// The network of the nodes, 172.18.0.0/16; its first address is the gateway's.
const NODE_NETWORK: u32 = u32::from_be_bytes([172, 18, 0, 0]);
/// The address of the `kubernetes` Service, first of 10.96.0.0/16.
const KUBERNETES_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

/// The node that follows those there are. The first one runs the control plane.
pub fn next(nodes: &[NodeFile]) -> NodeFile {
    let number = nodes.iter().map(|node| node.number).max().unwrap_or(0) + 1;
    NodeFile {
        name: format!("node-{number}"),
        number,
        control_plane: number == 1,
        cpu: DEFAULT_CPU.to_owned(),
        memory: DEFAULT_MEMORY.to_owned(),
        labels: Default::default(),
        taints: Vec::new(),
        stopped: false,
    }
}

/// The address of the node with this number, in the simulated network of the nodes.
pub fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(NODE_NETWORK + 1 + number)
}

/// The names under which clients reach an API server on this machine and, as the Service `kubernetes`, from pods.
pub fn service_names() -> Vec<String> {
    let service =
        ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    names.extend(service.map(str::to_owned));
    names
}

/// The names and addresses under which clients may reach the API server of a cluster in one process.
pub fn server_names() -> Vec<String> {
    let mut names = service_names();
    names.push(KUBERNETES_SERVICE.to_string());
    names.push(address(1).to_string());
    names
}

/// Checks that a node can have this name.
///
/// # Errors
/// It is no DNS subdomain.
pub fn check_name(name: &str) -> Result<()> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if name.is_empty()
        || name.len() > 253
        || !name.chars().all(inner)
        || !name.starts_with(ends)
        || !name.ends_with(ends)
    {
        bail!("a node's name has lower-case letters, digits, '-' and '.', and begins and ends with a letter or digit");
    }
    Ok(())
}

/// `key=value:Effect` or `key:Effect`, as `kubectl taint` takes it.
///
/// # Errors
/// What is no taint.
pub fn parse_taint(text: &str) -> Result<Taint> {
    let wrong = || anyhow!("{text:?} is no taint: write KEY=VALUE:EFFECT or KEY:EFFECT");
    let (what, effect) = text.rsplit_once(':').ok_or_else(wrong)?;
    if !matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
        bail!("{text:?} is no taint: the effect is NoSchedule, PreferNoSchedule or NoExecute");
    }
    let (key, value) = what.split_once('=').map_or((what, None), |(key, value)| (key, Some(value)));
    if key.is_empty() {
        return Err(wrong());
    }
    Ok(Taint { key: key.to_owned(), value: value.map(str::to_owned), effect: effect.to_owned(), time_added: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_not_given_twice_after_a_node_in_the_middle_is_gone() {
        let mut nodes: Vec<NodeFile> = Vec::new();
        for _ in 0..3 {
            nodes.push(next(&nodes));
        }
        nodes.remove(1);
        assert_eq!(next(&nodes).name, "node-4");
        assert_eq!(address(4).to_string(), "172.18.0.5");
        assert_eq!(address(300).to_string(), "172.18.1.45");
    }
}
