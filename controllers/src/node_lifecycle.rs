//! Finds out which nodes are dead, says so, and taints them.
//!
//! Watches Nodes, their Leases and Pods; owns the taints `node.kubernetes.io/*` that follow conditions, the conditions of
//! nodes that no longer speak for themselves, and the `Ready` condition of their pods.
//! (Kubernetes: `pkg/controller/nodelifecycle/node_lifecycle_controller.go`.)
//!
//! A node speaks by renewing its Lease and by its status. What counts is when this process saw a change, by its own
//! clock: the times in the objects come from other clocks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, ObjectReference, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use minik8s_client::{Client, EventRecorder, EventType, Informer, Lister, WorkQueue, is_not_found, object_reference};
use parking_lot::Mutex;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::manager::{Context, Controller, NodeLifecycleConfig};
use crate::pods;

const LEASES: &str = "kube-node-lease";
const BY_NODE: &str = "nodelifecycle/node";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// The taint that a condition brings when it is true.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

/// When a node was last heard of.
struct Heard {
    lease: Option<MicroTime>,
    status: Option<Timestamp>,
    at: Duration,
    /// The `Ready` condition at the last look.
    ready: String,
}

/// See the module.
#[derive(Clone)]
pub struct NodeLifecycle {
    client: Client,
    recorder: EventRecorder,
    config: NodeLifecycleConfig,
    nodes: Lister<Node>,
    leases: Lister<Lease>,
    pods: Lister<Pod>,
    heard: Arc<Mutex<BTreeMap<String, Heard>>>,
    queue: WorkQueue<String>,
}

fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

fn ready(node: &Node) -> &str {
    condition(node, "Ready").map_or("Unknown", |condition| condition.status.as_str())
}

impl NodeLifecycle {
    /// Asks for its informers.
    pub fn new(context: &Context) -> Self {
        let nodes: Informer<Node> = context.informers.informer();
        let leases: Informer<Lease> = context.informers.informer();
        let pods: Informer<Pod> = context.informers.informer();
        pods.add_index(BY_NODE, |pod| pod.spec.iter().filter_map(|spec| spec.node_name.clone()).collect());
        let controller = Self {
            recorder: context.recorder("node-controller"),
            config: context.config.node_lifecycle.clone(),
            nodes: nodes.lister(),
            leases: leases.lister(),
            pods: pods.lister(),
            heard: Arc::default(),
            queue: WorkQueue::new(context.client.clock().clone()),
            client: context.client.clone(),
        };
        let queue = controller.queue.clone();
        nodes.on_event(move |event| queue.add(event.object().metadata.name.clone().unwrap_or_default()));
        controller
    }

    /// What follows from a node's own words: its taints, at once.
    async fn sync(&self, name: String) -> Result<(), kube::Error> {
        let Some(node) = self.nodes.get("", &name) else {
            if self.heard.lock().remove(&name).is_some() {
                let reference = ObjectReference {
                    kind: Some("Node".to_owned()),
                    name: Some(name.clone()),
                    uid: Some(name.clone()),
                    ..ObjectReference::default()
                };
                let message = format!("Node {name} event: Removing Node {name} from Controller");
                self.recorder.event(&reference, EventType::Normal, "RemovingNode", message);
            }
            return Ok(());
        };
        self.listen(&node);
        self.taint(&node).await
    }

    /// Notes signs of life; says how long the node has been silent.
    fn listen(&self, node: &Node) -> Duration {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let now = self.client.clock().monotonic();
        let lease = self.leases.get(LEASES, name).and_then(|lease| lease.spec.as_ref()?.renew_time.clone());
        let status = condition(node, "Ready").and_then(|condition| condition.last_heartbeat_time.as_ref());
        let status = status.map(|time| time.0);
        let mut heard = self.heard.lock();
        if !heard.contains_key(name) {
            let message = format!("Node {name} event: Registered Node {name} in Controller");
            self.recorder.event(&node_reference(node), EventType::Normal, "RegisteredNode", message);
        }
        let known = heard.entry(name.to_owned()).or_insert_with(|| Heard {
            lease: lease.clone(),
            status,
            at: now,
            ready: ready(node).to_owned(),
        });
        // A status that this controller wrote is no sign of life.
        let spoke = known.lease != lease || known.status != status && ready(node) != "Unknown";
        if spoke {
            known.at = now;
        }
        known.lease = lease;
        known.status = status;
        now - known.at
    }

    async fn taint(&self, node: &Node) -> Result<(), kube::Error> {
        // Where no node is ready, it is rather this process that sees nothing: evicting everything would be worst.
        let evict = self.nodes.list().iter().any(|node| ready(node) == "True");
        let now = self.client.clock().now();
        let old = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
        let new = taints(node, &old, evict, now);
        if new == old {
            return Ok(());
        }
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let patch = json!({
            "metadata": {"resourceVersion": node.metadata.resource_version},
            "spec": {"taints": if new.is_empty() { None } else { Some(new) }},
        });
        match self.client.all::<Node>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(error) if is_not_found(&error) => Ok(()),
            other => other.map(drop),
        }
    }

    /// The periodic look at everyone, for silence brings no event.
    async fn monitor(&self) {
        let mut ticks = self.client.clock().ticks(self.config.monitor_period);
        loop {
            ticks.tick().await;
            for node in self.nodes.list() {
                if let Err(error) = self.look_at(&node).await {
                    tracing::warn!(node = node.metadata.name, %error, "cannot update node");
                }
            }
        }
    }

    async fn look_at(&self, node: &Node) -> Result<(), kube::Error> {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let silent = self.listen(node);
        let mut is = ready(node).to_owned();
        if silent > self.config.grace_period && is != "Unknown" {
            self.declare_unknown(node).await?;
            is = "Unknown".to_owned();
        }
        let was = {
            let mut heard = self.heard.lock();
            let Some(heard) = heard.get_mut(name) else {
                return Ok(());
            };
            std::mem::replace(&mut heard.ready, is.clone())
        };
        if was == "True" && is != "True" {
            let message = format!("Node {name} status is now: NodeNotReady");
            tracing::warn!(node = name, ready = is, "node is not ready");
            self.recorder.event(&node_reference(node), EventType::Normal, "NodeNotReady", message);
            self.mark_pods(name).await?;
        }
        Ok(())
    }

    async fn declare_unknown(&self, node: &Node) -> Result<(), kube::Error> {
        let now = Time(self.client.clock().now());
        let kinds = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
        let conditions: Vec<_> = kinds
            .into_iter()
            .map(|kind| {
                let known = condition(node, kind);
                let (reason, message) = match known {
                    Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
                    None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
                };
                json!({
                    "type": kind,
                    "status": "Unknown",
                    "reason": reason,
                    "message": message,
                    "lastHeartbeatTime": known.and_then(|known| known.last_heartbeat_time.clone()),
                    "lastTransitionTime": now,
                })
            })
            .collect();
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let patch = Patch::Strategic(json!({"status": {"conditions": conditions}}));
        self.client.all::<Node>().patch_status(name, &PatchParams::default(), &patch).await.map(drop)
    }

    /// The pods of a node that is not ready serve nobody.
    async fn mark_pods(&self, node: &str) -> Result<(), kube::Error> {
        for pod in self.pods.by_index(BY_NODE, node) {
            if !pods::is_ready(&pod) {
                continue;
            }
            let patch = Patch::Strategic(json!({
                "metadata": {"uid": pod.metadata.uid},
                "status": {"conditions": [{
                    "type": "Ready",
                    "status": "False",
                    "lastTransitionTime": Time(self.client.clock().now()),
                }]},
            }));
            let api = self.client.namespaced::<Pod>(pod.metadata.namespace.as_deref().unwrap_or_default());
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            match api.patch_status(name, &PatchParams::default(), &patch).await {
                Err(error) if !is_not_found(&error) => return Err(error),
                _ => {}
            }
            self.recorder.event(&object_reference(&*pod), EventType::Warning, "NodeNotReady", "Node is not ready");
        }
        Ok(())
    }
}

/// Events name nodes by their name in place of the UID, as the kubelet's do, so that `describe` finds both.
fn node_reference(node: &Node) -> ObjectReference {
    ObjectReference { uid: node.metadata.name.clone(), api_version: None, ..object_reference(node) }
}

/// The taints that a node should have: those of others as they are, ours as its conditions say.
fn taints(node: &Node, old: &[Taint], evict: bool, now: Timestamp) -> Vec<Taint> {
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    let silent = match ready(node) {
        "True" => None,
        "False" => Some(NOT_READY),
        _ => Some(UNREACHABLE),
    };
    if let Some(key) = silent {
        wanted.push((key, "NoSchedule"));
        if evict || old.iter().any(|taint| taint.key == key && taint.effect == "NoExecute") {
            wanted.push((key, "NoExecute"));
        }
    }
    for (kind, key) in PRESSURES {
        if condition(node, kind).is_some_and(|condition| condition.status == "True") {
            wanted.push((key, "NoSchedule"));
        }
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let ours = |taint: &Taint| {
        let key = taint.key.as_str();
        [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&key) || PRESSURES.iter().any(|(_, own)| *own == key)
    };
    let mut new: Vec<Taint> = old
        .iter()
        .filter(|taint| !ours(taint) || wanted.contains(&(taint.key.as_str(), taint.effect.as_str())))
        .cloned()
        .collect();
    for (key, effect) in wanted {
        if !new.iter().any(|taint| taint.key == key && taint.effect == effect) {
            new.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                time_added: Some(Time(now)),
                value: None,
            });
        }
    }
    new
}

impl Controller for NodeLifecycle {
    fn run(self: Box<Self>, cancel: CancellationToken) -> BoxFuture<'static, ()> {
        let (queue, syncing) = (self.queue.clone(), self.clone());
        let sync = move |key| {
            let controller = syncing.clone();
            async move { controller.sync(key).await }
        };
        Box::pin(async move {
            let stop = cancel.clone();
            tokio::join!(minik8s_client::run_controller("node-lifecycle", queue, 1, cancel, sync), async {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    () = self.monitor() => {}
                }
            });
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(json: serde_json::Value) -> Node {
        serde_json::from_value(json).unwrap()
    }

    fn show(taints: &[Taint]) -> Vec<String> {
        taints.iter().map(|taint| format!("{}:{}", taint.key, taint.effect)).collect()
    }

    #[test]
    fn taints_follow_conditions_and_leave_others_alone() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let own: Vec<Taint> = serde_json::from_str(r#"[{"key":"dedicated","effect":"NoSchedule"}]"#).unwrap();
        let dead = node(
            json!({"spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}),
        );
        let tainted = taints(&dead, &own, true, now);
        assert_eq!(
            show(&tainted),
            [
                "dedicated:NoSchedule",
                "node.kubernetes.io/unreachable:NoSchedule",
                "node.kubernetes.io/unreachable:NoExecute",
                "node.kubernetes.io/unschedulable:NoSchedule",
            ]
        );
        assert_eq!(taints(&dead, &tainted, true, now), tainted, "nothing changes the second time");
        assert_eq!(show(&taints(&dead, &[], false, now)).len(), 2, "nothing is evicted when nobody is ready");
        let alive = node(json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}));
        assert_eq!(show(&taints(&alive, &tainted, true, now)), ["dedicated:NoSchedule"]);
    }
}
