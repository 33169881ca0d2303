//! Removes pods that nobody else will: those of nodes that are gone, those that were told to end before they had a node,
//! and ended ones when there are very many.
//!
//! Watches Pods and Nodes; deletes Pods and marks them as disrupted.
//! (Kubernetes: `pkg/controller/podgc/gc_controller.go`.)

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use minik8s_client::{Client, Event, Lister, WorkQueue, is_conflict, is_not_found};
use serde_json::json;

use crate::manager::{Context, Reconciler};
use crate::pods;

/// How many pods that have ended may lie about.
const TERMINATED_THRESHOLD: usize = 12_500;
/// A node that is gone may come back within this time.
const QUARANTINE: Duration = Duration::from_secs(40);
/// There is one thing to do: look at all.
const LOOK: &str = "pods";
/// The index of pods by node.
const BY_NODE: &str = "podgc/node";

/// See the module.
#[derive(Clone)]
pub struct PodGarbageCollector {
    client: Client,
    pods: Lister<Pod>,
    nodes: Lister<Node>,
    queue: WorkQueue<String>,
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

impl PodGarbageCollector {
    /// Asks for its informers.
    pub fn new(context: &Context) -> Self {
        let pods = context.informers.informer::<Pod>();
        let nodes = context.informers.informer::<Node>();
        pods.add_index(BY_NODE, |pod| node_of(pod).map(str::to_owned).into_iter().collect());
        let queue: WorkQueue<String> = WorkQueue::new(context.client.clock().clone());
        let controller = Self { client: context.client.clone(), pods: pods.lister(), nodes: nodes.lister(), queue };
        let add = controller.queue.clone();
        nodes.on_event(move |event| {
            if matches!(event, Event::Deleted(_)) {
                add.add_after(LOOK.to_owned(), QUARANTINE);
            }
        });
        let on_pod = controller.clone();
        pods.on_event(move |event| {
            let (Event::Added(pod) | Event::Updated { new: pod, .. }) = event else {
                return;
            };
            if pod.metadata.deletion_timestamp.is_some() && node_of(pod).is_none() {
                on_pod.queue.add(LOOK.to_owned());
                return;
            }
            let stranded = node_of(pod).is_some_and(|node| on_pod.nodes.get("", node).is_none());
            let ended = matches!(pods::phase(pod), "Succeeded" | "Failed");
            if stranded || ended && on_pod.pods.len() > TERMINATED_THRESHOLD {
                on_pod.queue.add_after(LOOK.to_owned(), QUARANTINE);
            }
        });
        controller
    }

    /// Deletes without grace; with words, marks the pod first as one that did not end by itself.
    async fn remove(&self, pod: &Pod, why: Option<&str>) -> Result<(), kube::Error> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let api = self.client.namespaced::<Pod>(namespace);
        if let Some(why) = why {
            let mut status = json!({"conditions": [{
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "DeletionByPodGC",
                "message": why,
                "lastTransitionTime": Time(self.client.clock().now()),
            }]});
            if !matches!(pods::phase(pod), "Succeeded" | "Failed") {
                status["phase"] = "Failed".into();
            }
            let patch = Patch::Strategic(json!({"metadata": {"uid": pod.metadata.uid}, "status": status}));
            match api.patch_status(name, &PatchParams::default(), &patch).await {
                Err(error) if is_not_found(&error) || is_conflict(&error) => return Ok(()),
                other => other.map(drop)?,
            }
        }
        let preconditions = Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None });
        let parameters = DeleteParams { grace_period_seconds: Some(0), preconditions, ..DeleteParams::default() };
        tracing::info!(pod = format!("{namespace}/{name}"), why, "collecting pod");
        match api.delete(name, &parameters).await {
            Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Whether the API has no such node either.
    async fn is_gone(&self, node: &str) -> Result<bool, kube::Error> {
        if self.nodes.get("", node).is_some() {
            return Ok(false);
        }
        Ok(self.client.all::<Node>().get_opt(node).await?.is_none())
    }
}

impl Reconciler for PodGarbageCollector {
    const NAME: &'static str = "podgc";
    const WORKERS: usize = 1;

    fn queue(&self) -> &WorkQueue<String> {
        &self.queue
    }

    async fn sync(&self, _: String) -> Result<(), kube::Error> {
        let all = self.pods.list();
        let homes: BTreeSet<&str> = all.iter().filter_map(|pod| node_of(pod)).collect();
        for node in homes.into_iter().filter(|node| self.nodes.get("", node).is_none()) {
            if self.is_gone(node).await? {
                for pod in self.pods.by_index(BY_NODE, node) {
                    self.remove(&pod, Some("PodGC: node no longer exists")).await?;
                }
            }
        }
        for pod in all.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some() && node_of(pod).is_none()) {
            self.remove(pod, None).await?;
        }
        let mut ended: Vec<_> = all.iter().filter(|pod| matches!(pods::phase(pod), "Succeeded" | "Failed")).collect();
        if ended.len() > TERMINATED_THRESHOLD {
            ended.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
            let surplus = ended.len() - TERMINATED_THRESHOLD;
            for pod in ended.into_iter().take(surplus) {
                self.remove(pod, None).await?;
            }
        }
        Ok(())
    }
}
