//! Every node has a range of addresses for its pods: unless operators say otherwise, a /24 of 10.128.0.0/9.
//!
//! Watches Nodes; writes `spec.podCIDR` and `spec.podCIDRs`.
//! (Kubernetes: `pkg/controller/nodeipam/ipam/range_allocator.go`.)

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use minik8s_client::{Client, Event, EventRecorder, EventType, Lister, WorkQueue, is_not_found, object_reference};
use parking_lot::Mutex;
use serde_json::json;

use crate::manager::{Context, NodeIpamConfig, Reconciler};

/// See the module.
#[derive(Clone)]
pub struct NodeIpam {
    client: Client,
    recorder: EventRecorder,
    ranges: NodeIpamConfig,
    nodes: Lister<Node>,
    /// Which node has which range. One worker writes it; the lister may be a moment behind.
    taken: Arc<Mutex<BTreeMap<u32, String>>>,
    queue: WorkQueue<String>,
}

impl NodeIpam {
    /// Asks for its informers.
    pub fn new(context: &Context) -> Self {
        let nodes = context.informers.informer::<Node>();
        let controller = Self {
            client: context.client.clone(),
            recorder: context.recorder("cidrAllocator"),
            ranges: context.config.node_ipam,
            nodes: nodes.lister(),
            taken: Arc::default(),
            queue: WorkQueue::new(context.client.clock().clone()),
        };
        let on_node = controller.clone();
        nodes.on_event(move |event| {
            let node = event.object();
            let name = node.metadata.name.clone().unwrap_or_default();
            let range = node.spec.as_ref().and_then(|spec| spec.pod_cidr.as_deref());
            let range = range.and_then(|range| on_node.ranges.number(range));
            match (event, range) {
                (Event::Deleted(_), _) => on_node.taken.lock().retain(|_, owner| *owner != name),
                (_, Some(range)) => drop(on_node.taken.lock().insert(range, name)),
                (_, None) => on_node.queue.add(name),
            }
        });
        controller
    }
}

impl NodeIpamConfig {
    /// How many nodes' ranges there are.
    fn count(&self) -> u32 {
        1u32.checked_shl(u32::from(self.node_bits.saturating_sub(self.cluster.1))).unwrap_or(u32::MAX)
    }

    /// How many addresses a node has; as a `u64`, because the whole of IPv4 has more than a `u32` holds.
    fn size(&self) -> u64 {
        1 << (32 - self.node_bits.min(32))
    }

    /// The number of a range in the cluster's.
    fn number(&self, cidr: &str) -> Option<u32> {
        let (address, bits) = cidr.split_once('/')?;
        let address: Ipv4Addr = address.parse().ok()?;
        let offset = u64::from(u32::from(address).checked_sub(u32::from(self.cluster.0))?);
        let number = u32::try_from(offset / self.size()).ok()?;
        let ours = bits.parse() == Ok(self.node_bits) && offset % self.size() == 0 && number < self.count();
        ours.then_some(number)
    }

    fn range(&self, number: u32) -> String {
        let first = u64::from(u32::from(self.cluster.0)) + u64::from(number) * self.size();
        format!("{}/{}", Ipv4Addr::from(u32::try_from(first).unwrap_or(u32::MAX)), self.node_bits)
    }
}

impl Reconciler for NodeIpam {
    const NAME: &'static str = "node-ipam";
    const WORKERS: usize = 1;

    fn queue(&self) -> &WorkQueue<String> {
        &self.queue
    }

    async fn sync(&self, name: String) -> Result<(), kube::Error> {
        let Some(node) = self.nodes.get("", &name) else {
            return Ok(());
        };
        if node.spec.as_ref().is_some_and(|spec| spec.pod_cidr.is_some()) {
            return Ok(());
        }
        let free = {
            let mut taken = self.taken.lock();
            let own = taken.iter().find(|(_, owner)| **owner == name).map(|(range, _)| *range);
            let free = own.or_else(|| (0..self.ranges.count()).find(|range| !taken.contains_key(range)));
            if let Some(free) = free {
                taken.insert(free, name.clone());
            }
            free
        };
        let Some(free) = free else {
            let message = format!("Node {name} status is now: CIDRNotAvailable");
            self.recorder.event(&object_reference(&*node), EventType::Normal, "CIDRNotAvailable", message);
            return Ok(());
        };
        let cidr = self.ranges.range(free);
        let patch = Patch::Strategic(json!({"spec": {"podCIDR": cidr, "podCIDRs": [cidr]}}));
        match self.client.all::<Node>().patch(&name, &PatchParams::default(), &patch).await {
            Err(error) if is_not_found(&error) => {
                self.taken.lock().remove(&free);
                Ok(())
            }
            other => other.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_have_numbers_and_back() {
        let ours = NodeIpamConfig::default();
        for at in [0, 1, 255, 256, ours.count() - 1] {
            assert_eq!(ours.number(&ours.range(at)), Some(at));
        }
        assert_eq!(ours.range(ours.count() - 1), "10.255.255.0/24");
        assert_eq!(ours.number("10.0.0.0/24"), None);
        assert_eq!(ours.number("10.128.0.0/16"), None);
        let small = NodeIpamConfig { cluster: (Ipv4Addr::new(192, 168, 0, 0), 24), node_bits: 26 };
        assert_eq!((small.count(), small.range(3)), (4, "192.168.0.192/26".to_owned()));
        assert_eq!(small.number("192.168.0.64/26"), Some(1));
        assert_eq!(small.number("192.168.1.0/26"), None);
    }
}
