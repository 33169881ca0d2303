//! What happens in the runtime brings pods back into the queue: container events where the runtime sends them, and a
//! comparison of lists now and then, for what an event stream may have lost.
//!
//! (kubelet: `pleg/evented.go`, `pleg/generic.go`: the pod lifecycle event generator.)

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use minik8s_cri::{Code, Error as CriError, proto};

use crate::kubelet::Kubelet;
use crate::runtime::POD_UID_LABEL;

/// How often lists are compared while events flow.
const RELIST_WITH_EVENTS: Duration = Duration::from_secs(300);
/// How often lists are compared where the runtime sends no events.
const RELIST_WITHOUT_EVENTS: Duration = Duration::from_secs(1);
/// The pause before a broken stream is opened again.
const RECONNECT: Duration = Duration::from_secs(1);

/// What is compared: the states of a pod's sandboxes and containers, by their ids.
type Fingerprint = BTreeMap<String, i32>;

impl Kubelet {
    /// Follows the runtime until the kubelet stops.
    pub(crate) async fn watch_runtime(self: Arc<Self>) {
        let mut seen = BTreeMap::new();
        loop {
            let pause = match self.config.cri.container_events().await {
                Ok(mut events) => {
                    self.relist(&mut seen).await;
                    self.follow_events(&mut events, &mut seen).await;
                    RECONNECT
                }
                Err(CriError::Rpc { code: Code::Unimplemented, .. }) => {
                    self.relist(&mut seen).await;
                    RELIST_WITHOUT_EVENTS
                }
                Err(error) => {
                    tracing::debug!(node = self.config.node_name, %error, "no container events");
                    RECONNECT
                }
            };
            self.config.clock.sleep(pause).await;
        }
    }

    async fn follow_events(
        &self,
        events: &mut tonic::Streaming<proto::ContainerEventResponse>,
        seen: &mut BTreeMap<String, Fingerprint>,
    ) {
        loop {
            tokio::select! {
                biased;
                event = events.message() => match event {
                    Ok(Some(event)) => self.on_container_event(event),
                    Ok(None) => return,
                    Err(error) => {
                        tracing::debug!(node = self.config.node_name, %error, "container events broke off");
                        return;
                    }
                },
                () = self.config.clock.sleep(RELIST_WITH_EVENTS) => self.relist(seen).await,
            }
        }
    }

    fn on_container_event(&self, event: proto::ContainerEventResponse) {
        self.container_changes.notify_waiters();
        let sandbox = event.pod_sandbox_status.and_then(|status| status.metadata);
        if let Some(uid) = sandbox.map(|metadata| metadata.uid)
            && self.worker(&uid).is_some()
        {
            self.queue.add(uid);
        }
    }

    /// Asks for a sync of every pod of which the runtime shows another picture than last time.
    async fn relist(&self, seen: &mut BTreeMap<String, Fingerprint>) {
        let now = match self.fingerprints().await {
            Ok(now) => now,
            Err(error) => {
                tracing::warn!(node = self.config.node_name, %error, "could not list what runs");
                return;
            }
        };
        let changed = now.keys().chain(seen.keys()).filter(|uid| now.get(*uid) != seen.get(*uid));
        for uid in changed {
            if self.worker(uid).is_some() {
                self.queue.add(uid.clone());
            }
        }
        *seen = now;
        self.container_changes.notify_waiters();
    }

    async fn fingerprints(&self) -> minik8s_cri::Result<BTreeMap<String, Fingerprint>> {
        let mut pods: BTreeMap<String, Fingerprint> = BTreeMap::new();
        for sandbox in self.config.cri.list_pod_sandbox(None).await? {
            if let Some(metadata) = sandbox.metadata {
                pods.entry(metadata.uid).or_default().insert(sandbox.id, sandbox.state);
            }
        }
        for container in self.config.cri.list_containers(None).await? {
            if let Some(uid) = container.labels.get(POD_UID_LABEL) {
                pods.entry(uid.clone()).or_default().insert(container.id, container.state);
            }
        }
        Ok(pods)
    }
}
