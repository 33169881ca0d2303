//! Where a kubelet learns which pods are its own.
//!
//! A kubelet of its own process watches `spec.nodeName=NAME`. Thousands of kubelets in one process share a single
//! informer, and [`InformerPodSource`] hands each change to the one kubelet it concerns.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use minik8s_client::{Client, Event, Informer, ListOptions};
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

/// The index of pods by the node they are bound to.
const BY_NODE: &str = "spec.nodeName";

/// What is called for every change of a pod of one node. It only enqueues.
pub type PodHandler = Arc<dyn Fn(&Event<Pod>) + Send + Sync>;

/// The pods of nodes, as the API has them.
#[async_trait]
pub trait PodSource: Send + Sync + 'static {
    /// Calls `handler` for every pod bound to `node` now and for every change from now on (a pod may come twice).
    /// A node has one handler: a second one replaces the first.
    fn subscribe(&self, node: &str, handler: PodHandler);
    /// Ends the calls for `node`.
    fn unsubscribe(&self, node: &str);
    /// The pods bound to `node`.
    fn list(&self, node: &str) -> Vec<Arc<Pod>>;
    /// Waits until the source knows all pods there are.
    async fn wait_synced(&self);
}

/// Pods from an informer, which one kubelet or many share.
pub struct InformerPodSource {
    informer: Informer<Pod>,
    handlers: Arc<RwLock<BTreeMap<String, PodHandler>>>,
}

impl InformerPodSource {
    /// Serves kubelets from an informer over all pods. The caller starts the informer.
    pub fn shared(informer: Informer<Pod>) -> Self {
        let handlers: Arc<RwLock<BTreeMap<String, PodHandler>>> = Arc::default();
        informer.add_index(BY_NODE, |pod| node_name(pod).map(str::to_owned).into_iter().collect());
        let source = Self { informer, handlers: handlers.clone() };
        source.informer.on_event(move |event| {
            let Some(node) = node_name(event.object()) else {
                return;
            };
            let handler = handlers.read().get(node).cloned();
            if let Some(handler) = handler {
                handler(event);
            }
        });
        source
    }

    /// Watches the pods of one node only, until `cancel`.
    pub fn of_node(client: Client, node: &str, cancel: CancellationToken) -> Self {
        let selector = Some(format!("spec.nodeName={node}"));
        let options = ListOptions { field_selector: selector, ..ListOptions::default() };
        let informer = Informer::new(client, "/api/v1/pods", options);
        let source = Self::shared(informer.clone());
        informer.start(cancel);
        source
    }
}

fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

#[async_trait]
impl PodSource for InformerPodSource {
    fn subscribe(&self, node: &str, handler: PodHandler) {
        self.handlers.write().insert(node.to_owned(), handler.clone());
        for pod in self.list(node) {
            handler(&Event::Added(pod));
        }
    }

    fn unsubscribe(&self, node: &str) {
        self.handlers.write().remove(node);
    }

    fn list(&self, node: &str) -> Vec<Arc<Pod>> {
        self.informer.lister().by_index(BY_NODE, node)
    }

    async fn wait_synced(&self) {
        self.informer.wait_synced().await;
    }
}
