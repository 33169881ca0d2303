//! What happens to containers, for kubelets that would rather be told than ask.

use crate::sim_runtime::SimRuntime;
use minik8s_cri::proto::{ContainerEventResponse, ContainerEventType};
use std::sync::Arc;
use tokio::sync::broadcast;

/// How many events wait for a kubelet that is behind; then its stream ends with an error, and it lists again.
const EVENT_QUEUE: usize = 256;

/// The stream of container events of one node.
pub(crate) struct Events {
    /// Shared, because a channel holds room for all that may wait from the start, and there are thousands of nodes.
    sender: broadcast::Sender<Arc<ContainerEventResponse>>,
}

impl Default for Events {
    fn default() -> Events {
        Events { sender: broadcast::channel(EVENT_QUEUE).0 }
    }
}

impl Events {
    /// Tells that something happened to a container or (`container_id` is then the sandbox's) to a sandbox.
    pub fn emit(&self, runtime: &SimRuntime, sandbox_id: &str, container_id: &str, kind: ContainerEventType) {
        // Statuses are put together only where somebody listens.
        if self.sender.receiver_count() == 0 {
            return;
        }
        let containers = runtime.containers_of(sandbox_id);
        let event = ContainerEventResponse {
            container_id: container_id.to_string(),
            container_event_type: kind as i32,
            created_at: runtime.now_nanos(),
            pod_sandbox_status: runtime.find_sandbox(sandbox_id).map(|sandbox| sandbox.status()),
            containers_statuses: containers.iter().map(|container| container.status()).collect(),
        };
        // The last listener may have gone in between.
        let _heard = self.sender.send(Arc::new(event));
    }

    /// Events from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<ContainerEventResponse>> {
        self.sender.subscribe()
    }
}
