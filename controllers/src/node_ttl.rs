//! Nodes are told for how long they may keep Secrets and ConfigMaps without asking again: the longer, the more nodes.
//!
//! Watches Nodes; writes the annotation `node.alpha.kubernetes.io/ttl`, in seconds.
//! (Kubernetes: `pkg/controller/ttl/ttl_controller.go`.)

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use minik8s_client::{Client, Event, Lister, WorkQueue, is_not_found};
use serde_json::json;

use crate::manager::{Context, Reconciler};

const ANNOTATION: &str = "node.alpha.kubernetes.io/ttl";

/// A size of cluster. Neighbours overlap, so that a node that comes and goes does not change all the others each time.
struct Size {
    min: usize,
    max: usize,
    seconds: u32,
}

const SIZES: [Size; 6] = [
    Size { min: 0, max: 100, seconds: 0 },
    Size { min: 90, max: 500, seconds: 15 },
    Size { min: 450, max: 1000, seconds: 30 },
    Size { min: 900, max: 2000, seconds: 60 },
    Size { min: 1800, max: 10_000, seconds: 300 },
    Size { min: 9000, max: usize::MAX, seconds: 600 },
];

/// See the module.
#[derive(Clone)]
pub struct NodeTtl {
    client: Client,
    nodes: Lister<Node>,
    /// Index into [`SIZES`].
    size: Arc<AtomicUsize>,
    queue: WorkQueue<String>,
}

impl NodeTtl {
    /// Asks for its informers.
    pub fn new(context: &Context) -> Self {
        let nodes = context.informers.informer::<Node>();
        let queue: WorkQueue<String> = WorkQueue::new(context.client.clock().clone());
        let size = Arc::new(AtomicUsize::new(0));
        let (add, lister, own) = (queue.clone(), nodes.lister(), size.clone());
        nodes.on_event(move |event| {
            let before = own.load(Ordering::Relaxed);
            let now = size_of(before, lister.len());
            own.store(now, Ordering::Relaxed);
            if now != before {
                for node in lister.list() {
                    add.add(node.metadata.name.clone().unwrap_or_default());
                }
            } else if !matches!(event, Event::Deleted(_)) {
                add.add(event.object().metadata.name.clone().unwrap_or_default());
            }
        });
        Self { client: context.client.clone(), nodes: nodes.lister(), size, queue }
    }
}

/// The size of a cluster of so many nodes that was of another size before.
fn size_of(mut size: usize, nodes: usize) -> usize {
    while nodes > SIZES[size].max {
        size += 1;
    }
    while nodes < SIZES[size].min {
        size -= 1;
    }
    size
}

impl Reconciler for NodeTtl {
    const NAME: &'static str = "ttlcontroller";
    const WORKERS: usize = 5;

    fn queue(&self) -> &WorkQueue<String> {
        &self.queue
    }

    async fn sync(&self, name: String) -> Result<(), kube::Error> {
        let Some(node) = self.nodes.get("", &name) else { return Ok(()) };
        let wanted = SIZES[self.size.load(Ordering::Relaxed)].seconds;
        let present = node.metadata.annotations.as_ref().and_then(|annotations| annotations.get(ANNOTATION));
        if present.is_some_and(|present| present.parse() == Ok(wanted)) {
            return Ok(());
        }
        let patch = json!({ "metadata": { "annotations": { ANNOTATION: wanted.to_string() } } });
        match self.client.all::<Node>().patch(&name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Err(error) if is_not_found(&error) => Ok(()),
            other => other.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_changes_with_some_slack() {
        for (before, nodes, expect) in
            [(0, 1, 0), (0, 100, 0), (0, 101, 1), (1, 95, 1), (1, 89, 0), (0, 5000, 4), (5, 0, 0)]
        {
            assert_eq!(size_of(before, nodes), expect, "{before} {nodes}");
        }
    }
}
