//! Requests for certificates of pods go a quarter of an hour after they were made, whatever became of them.
//!
//! Watches PodCertificateRequests; deletes them.
//! (Kubernetes: `pkg/controller/certificates/cleaner/pcrcleaner.go`, which looks every five minutes.)

use std::time::Duration;

use k8s_openapi::api::certificates::v1::PodCertificateRequest;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Preconditions};
use minik8s_client::{Client, Event, Lister, WorkQueue, is_conflict, is_not_found};

use crate::manager::{Context, Reconciler};
use crate::pod_owners::key_of;

/// How long a request stays: its kubelet has seen long ago what became of it.
const KEPT_SECONDS: i64 = 15 * 60;

/// See the module.
#[derive(Clone)]
pub struct PodCertificateCleaner {
    client: Client,
    requests: Lister<PodCertificateRequest>,
    queue: WorkQueue<String>,
}

impl PodCertificateCleaner {
    /// Asks for its informers.
    pub fn new(context: &Context) -> Self {
        let requests = context.informers.informer::<PodCertificateRequest>();
        let queue: WorkQueue<String> = WorkQueue::new(context.client.clock().clone());
        let add = queue.clone();
        requests.on_event(move |event| {
            if let Event::Added(request) = event {
                add.add(key_of(&request.metadata));
            }
        });
        Self { client: context.client.clone(), requests: requests.lister(), queue }
    }
}

/// How long until the request goes.
fn goes_in(meta: &ObjectMeta, now: Timestamp) -> Duration {
    let created = meta.creation_timestamp.as_ref().map_or(now, |at| at.0).as_second();
    Duration::from_secs(u64::try_from(created + KEPT_SECONDS - now.as_second()).unwrap_or(0))
}

impl Reconciler for PodCertificateCleaner {
    const NAME: &'static str = "podcertificaterequestcleaner";
    const WORKERS: usize = 1;

    fn queue(&self) -> &WorkQueue<String> {
        &self.queue
    }

    async fn sync(&self, key: String) -> Result<(), kube::Error> {
        let (namespace, name) = key.split_once('/').unwrap_or_default();
        let Some(request) = self.requests.get(namespace, name) else { return Ok(()) };
        let wait = goes_in(&request.metadata, self.client.clock().now());
        if !wait.is_zero() {
            self.queue.add_after(key, wait);
            return Ok(());
        }
        let preconditions = Preconditions { uid: request.metadata.uid.clone(), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match self.client.namespaced::<PodCertificateRequest>(namespace).delete(name, &parameters).await {
            Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
            other => other.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_stays_for_a_quarter_of_an_hour() {
        let check = |now: &str, seconds: u64| {
            let meta = serde_json::from_value(json!({"creationTimestamp": "2026-01-01T00:00:00Z"})).unwrap();
            assert_eq!(goes_in(&meta, now.parse().unwrap()), Duration::from_secs(seconds));
        };
        check("2026-01-01T00:00:00Z", 900);
        check("2026-01-01T00:14:59Z", 1);
        check("2026-01-01T00:15:00Z", 0);
        check("2026-01-02T00:00:00Z", 0);
    }
}
