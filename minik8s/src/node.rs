//! What a node of this cluster is made of: its name, its address, its capacity.

use std::net::Ipv4Addr;

use crate::home::NodeFile;

/// The version of Kubernetes that this program is.
pub const KUBERNETES_VERSION: &str = "v1.37.2";

/// The CPU of a node for which nothing else is said.
pub const DEFAULT_CPU: &str = "4";
/// The memory of a node for which nothing else is said.
pub const DEFAULT_MEMORY: &str = "8Gi";

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

/// The names and addresses under which clients may reach the API server.
pub fn server_names() -> Vec<String> {
    let service =
        ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    names.extend(service.map(str::to_owned));
    names.push(KUBERNETES_SERVICE.to_string());
    names.push(address(1).to_string());
    names
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
