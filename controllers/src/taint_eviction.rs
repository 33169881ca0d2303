//! Pods leave nodes whose `NoExecute` taints they do not tolerate: at once, or when their toleration runs out.
//!
//! Watches Nodes and Pods; deletes Pods and marks them as disrupted.
//! (Kubernetes: `pkg/controller/tainteviction/taint_eviction.go`.)

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use minik8s_client::{
    Client, Event, EventRecorder, EventType, Lister, WorkQueue, is_conflict, is_not_found, object_reference,
};
use parking_lot::Mutex;
use serde_json::json;

use crate::manager::{Context, Reconciler};

const BY_NODE: &str = "tainteviction/node";

/// See the module.
#[derive(Clone)]
pub struct TaintEviction {
    client: Client,
    recorder: EventRecorder,
    nodes: Lister<Node>,
    pods: Lister<Pod>,
    /// The pods that are waiting for their toleration to run out.
    waiting: Arc<Mutex<BTreeSet<String>>>,
    queue: WorkQueue<String>,
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

fn key_of(pod: &Pod) -> String {
    let meta = &pod.metadata;
    format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

fn executing(node: &Node) -> Vec<Taint> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.effect == "NoExecute").cloned().collect()
}

impl TaintEviction {
    /// Asks for its informers.
    pub fn new(context: &Context) -> Self {
        let nodes = context.informers.informer::<Node>();
        let pods = context.informers.informer::<Pod>();
        pods.add_index(BY_NODE, |pod| node_of(pod).map(str::to_owned).into_iter().collect());
        let controller = Self {
            recorder: context.recorder("taint-eviction-controller"),
            nodes: nodes.lister(),
            pods: pods.lister(),
            waiting: Arc::default(),
            queue: WorkQueue::new(context.client.clock().clone()),
            client: context.client.clone(),
        };
        let on_node = controller.clone();
        nodes.on_event(move |event| {
            let changed = match event {
                Event::Added(node) => !executing(node).is_empty(),
                Event::Updated { old, new } => executing(old) != executing(new),
                Event::Deleted(_) => false,
            };
            if changed {
                let name = event.object().metadata.name.as_deref().unwrap_or_default();
                on_node.pods.by_index(BY_NODE, name).iter().for_each(|pod| on_node.queue.add(key_of(pod)));
            }
        });
        let on_pod = controller.clone();
        pods.on_event(move |event| {
            let pod = event.object();
            let bound = match event {
                Event::Added(_) => node_of(pod).is_some(),
                Event::Updated { old, new } => {
                    let tolerations = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.tolerations.clone());
                    node_of(new).is_some() && (node_of(old) != node_of(new) || tolerations(old) != tolerations(new))
                }
                Event::Deleted(_) => {
                    on_pod.waiting.lock().remove(&key_of(pod));
                    false
                }
            };
            // Most nodes have no such taints, and then there is nothing to look at.
            let tainted = || {
                let node = node_of(pod).and_then(|name| on_pod.nodes.get("", name));
                node.is_some_and(|node| !executing(&node).is_empty())
            };
            if bound && tainted() {
                on_pod.queue.add(key_of(pod));
            }
        });
        controller
    }

    async fn evict(&self, pod: &Pod) -> Result<(), kube::Error> {
        let (namespace, name) = (pod.metadata.namespace.as_deref(), pod.metadata.name.as_deref().unwrap_or_default());
        let namespace = namespace.unwrap_or_default();
        let message = format!("Marking for deletion Pod {namespace}/{name}");
        self.recorder.event(&object_reference(pod), EventType::Normal, "TaintManagerEviction", message);
        tracing::info!(pod = key_of(pod), "evicting pod from tainted node");
        let api = self.client.namespaced::<Pod>(namespace);
        let patch = Patch::Strategic(json!({
            "metadata": {"uid": pod.metadata.uid},
            "status": {"conditions": [{
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "DeletionByTaintManager",
                "message": "Taint manager: deleting due to NoExecute taint",
                "lastTransitionTime": Time(self.client.clock().now()),
            }]},
        }));
        match api.patch_status(name, &PatchParams::default(), &patch).await {
            Err(error) if is_not_found(&error) || is_conflict(&error) => return Ok(()),
            other => other.map(drop)?,
        }
        let preconditions = Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None });
        match api.delete(name, &DeleteParams { preconditions, ..DeleteParams::default() }).await {
            Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
            other => other.map(drop),
        }
    }

    fn cancel(&self, pod: &Pod) {
        if self.waiting.lock().remove(&key_of(pod)) {
            let message = format!("Cancelling deletion of Pod {}", key_of(pod));
            self.recorder.event(&object_reference(pod), EventType::Normal, "TaintManagerEviction", message);
        }
    }
}

impl Reconciler for TaintEviction {
    const NAME: &'static str = "taint-eviction";
    const WORKERS: usize = 4;

    fn queue(&self) -> &WorkQueue<String> {
        &self.queue
    }

    async fn sync(&self, key: String) -> Result<(), kube::Error> {
        let (namespace, name) = key.split_once('/').unwrap_or_default();
        let Some(pod) = self.pods.get(namespace, name) else {
            return Ok(());
        };
        let node = node_of(&pod).and_then(|node| self.nodes.get("", node));
        let taints = node.map(|node| executing(&node)).unwrap_or_default();
        if pod.metadata.deletion_timestamp.is_some() {
            self.waiting.lock().remove(&key);
            return Ok(());
        }
        let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
        match leave_in(&taints, tolerations, self.client.clock().now()) {
            None => self.cancel(&pod),
            Some(wait) if wait.is_zero() => {
                self.waiting.lock().remove(&key);
                self.evict(&pod).await?;
            }
            Some(wait) => {
                self.waiting.lock().insert(key.clone());
                self.queue.add_after(key, wait);
            }
        }
        Ok(())
    }
}

/// Whether a toleration is one for this taint.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let is = |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|w| w.is_empty() || w == value);
    is(&toleration.effect, &taint.effect)
        && is(&toleration.key, &taint.key)
        && (toleration.operator.as_deref() == Some("Exists")
            || toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default())
}

/// After which time a pod with these tolerations must leave; `None` for never.
fn leave_in(taints: &[Taint], tolerations: &[Toleration], now: Timestamp) -> Option<Duration> {
    let mut soonest: Option<Duration> = None;
    for taint in taints {
        let used: Vec<&Toleration> = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).collect();
        if used.is_empty() {
            return Some(Duration::ZERO);
        }
        let Some(seconds) = used.iter().filter_map(|toleration| toleration.toleration_seconds).min() else {
            continue;
        };
        let allowed = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let since = taint.time_added.as_ref().map_or(now, |time| time.0);
        let been = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        let left = allowed.saturating_sub(been);
        soonest = Some(soonest.map_or(left, |soonest| soonest.min(left)));
    }
    soonest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_toleration_decides_and_counts_from_the_taint() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let taint: Taint = serde_json::from_str(
            r#"{"key":"node.kubernetes.io/unreachable","effect":"NoExecute","timeAdded":"2026-01-01T00:00:00Z"}"#,
        )
        .unwrap();
        let toleration = |json: &str| -> Vec<Toleration> { serde_json::from_str(json).unwrap() };
        assert_eq!(leave_in(std::slice::from_ref(&taint), &[], now), Some(Duration::ZERO));
        assert_eq!(leave_in(std::slice::from_ref(&taint), &toleration(r#"[{"operator":"Exists"}]"#), now), None);
        let limited = r#"[{"key":"node.kubernetes.io/unreachable","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}]"#;
        assert_eq!(leave_in(&[taint], &toleration(limited), now), Some(Duration::from_secs(240)));
        assert_eq!(leave_in(&[], &[], now), None);
    }
}
