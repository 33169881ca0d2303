//! Every node has a range of addresses for its pods: a /24 of 10.128.0.0/9.
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

use crate::manager::{Context, Reconciler};

/// The first address of the range of all pods.
const CLUSTER: u32 = u32::from_be_bytes([10, 128, 0, 0]);
/// How many nodes' ranges of 256 addresses there are in it.
const RANGES: u32 = 1 << (24 - 9);

/// See the module.
#[derive(Clone)]
pub struct NodeIpam {
    client: Client,
    recorder: EventRecorder,
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
            nodes: nodes.lister(),
            taken: Arc::default(),
            queue: WorkQueue::new(context.client.clock().clone()),
        };
        let on_node = controller.clone();
        nodes.on_event(move |event| {
            let node = event.object();
            let name = node.metadata.name.clone().unwrap_or_default();
            let range = node.spec.as_ref().and_then(|spec| spec.pod_cidr.as_deref()).and_then(number);
            match (event, range) {
                (Event::Deleted(_), _) => on_node.taken.lock().retain(|_, owner| *owner != name),
                (_, Some(range)) => drop(on_node.taken.lock().insert(range, name)),
                (_, None) => on_node.queue.add(name),
            }
        });
        controller
    }
}

/// The number of a range in the cluster's.
fn number(cidr: &str) -> Option<u32> {
    let address: Ipv4Addr = cidr.strip_suffix("/24")?.parse().ok()?;
    let offset = u32::from(address).checked_sub(CLUSTER)?;
    (offset % 256 == 0 && offset / 256 < RANGES).then_some(offset / 256)
}

fn range(number: u32) -> String {
    format!("{}/24", Ipv4Addr::from(CLUSTER + number * 256))
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
            let free = own.or_else(|| (0..RANGES).find(|range| !taken.contains_key(range)));
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
        let cidr = range(free);
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
        for at in [0, 1, 255, 256, RANGES - 1] {
            assert_eq!(number(&range(at)), Some(at));
        }
        assert_eq!(range(RANGES - 1), "10.255.255.0/24");
        assert_eq!(number("10.0.0.0/24"), None);
        assert_eq!(number("10.128.0.0/16"), None);
    }
}
