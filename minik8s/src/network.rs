//! Where an address leads, seen from the API server: to a pod, to a node, to the API server itself, or out of the simulation.
//!
//! ```text
//!  in a node's pod range ──► that node's runtime         a node's own address ──► what listens on the node's network
//!  the control plane's address and port ──► the listener  anything else ──► a TCP connection of this machine
//! ```
//! So a webhook runs in a simulated pod, or as a program on the machine, behind a Service without a selector whose
//! endpoints are written by hand, or behind an external name.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use async_trait::async_trait;
use minik8s_apiserver::outgoing::{MachineNetwork, ServiceDialer};
use minik8s_streaming::BoxedStream;

use crate::cluster::Nodes;

/// A node as far as addresses go.
#[derive(Debug, Clone)]
pub(crate) struct NodeAddresses {
    /// Its name.
    pub name: String,
    /// Its own address.
    pub own: Ipv4Addr,
    /// The addresses of its pods, such as `10.128.3.0/24`, once it has them.
    pub pods: Option<String>,
    /// Whether the API server listens there.
    pub control_plane: bool,
}

/// Where an address leads.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Route {
    /// The API server's listener.
    Api,
    /// A pod on the node of that name.
    Pod(String),
    /// The node of that name.
    Node(String),
    /// Out of the simulation.
    Outside,
}

fn route(nodes: &[NodeAddresses], api_port: u16, address: IpAddr, port: u16) -> Route {
    let IpAddr::V4(address) = address else { return Route::Outside };
    for node in nodes {
        if node.own == address {
            return if node.control_plane && port == api_port { Route::Api } else { Route::Node(node.name.clone()) };
        }
        if node.pods.as_deref().is_some_and(|range| contains(range, address)) {
            return Route::Pod(node.name.clone());
        }
    }
    Route::Outside
}

fn contains(range: &str, address: Ipv4Addr) -> bool {
    let read = || -> Option<(u32, u32)> {
        let (network, bits) = range.split_once('/')?;
        let bits: u32 = bits.parse().ok().filter(|bits| *bits <= 32)?;
        Some((network.parse::<Ipv4Addr>().ok()?.into(), u32::MAX.checked_shl(32 - bits).unwrap_or(0)))
    };
    read().is_some_and(|(network, mask)| u32::from(address) & mask == network & mask)
}

#[async_trait]
impl ServiceDialer for Nodes {
    async fn dial(&self, host: &str, port: u16) -> io::Result<BoxedStream> {
        let Ok(address) = host.parse() else { return MachineNetwork.dial(host, port).await };
        let off = io::ErrorKind::HostUnreachable;
        match route(&self.addresses(), self.api_port(), address, port) {
            Route::Api => MachineNetwork.dial(&Ipv4Addr::LOCALHOST.to_string(), port).await,
            Route::Node(name) => self.runtime(&name).ok_or(off)?.dial_host(port),
            Route::Pod(name) => self.runtime(&name).ok_or(off)?.dial(address, port),
            Route::Outside => MachineNetwork.dial(host, port).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lead_to_who_has_them() {
        let node = |name: &str, own: [u8; 4], pods: Option<&str>, control_plane| NodeAddresses {
            name: name.to_owned(),
            own: own.into(),
            pods: pods.map(str::to_owned),
            control_plane,
        };
        let nodes = [
            node("node-1", [172, 18, 0, 2], Some("10.128.0.0/24"), true),
            node("node-2", [172, 18, 0, 3], Some("10.128.1.0/24"), false),
            node("node-3", [172, 18, 0, 4], None, false),
        ];
        let to = |address: &str, port| route(&nodes, 6443, address.parse().expect("an address"), port);
        assert_eq!(to("10.128.1.7", 443), Route::Pod("node-2".to_owned()));
        assert_eq!(to("172.18.0.2", 6443), Route::Api);
        assert_eq!(to("172.18.0.2", 10250), Route::Node("node-1".to_owned()));
        assert_eq!(to("172.18.0.3", 6443), Route::Node("node-2".to_owned()));
        for outside in ["10.128.2.7", "192.168.1.5", "127.0.0.1", "::1"] {
            assert_eq!(to(outside, 443), Route::Outside, "{outside}");
        }
    }
}
