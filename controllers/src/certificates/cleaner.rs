//! Certificate requests go some time after they are decided, or when nobody decides.
//!
//! Watches CertificateSigningRequests; deletes them.
//! (Kubernetes: `pkg/controller/certificates/cleaner/cleaner.go`, which looks once an hour.)

use std::time::Duration;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Preconditions};
use minik8s_api::certificate_request::not_after;
use minik8s_client::{Client, Lister, WorkQueue, is_conflict, is_not_found};

use super::{enqueue_requests, issued};
use crate::manager::{Context, Reconciler};

/// How long a request stays after it was approved and a certificate issued.
const ISSUED_SECONDS: i64 = 60 * 60;
/// How long it stays after it was denied, or failed.
const DENIED_SECONDS: i64 = 60 * 60;
/// How long it waits for a decision, and an approved one for its certificate.
const PENDING_SECONDS: i64 = 24 * 60 * 60;

/// See the module.
#[derive(Clone)]
pub struct CertificateCleaner {
    client: Client,
    requests: Lister<CertificateSigningRequest>,
    queue: WorkQueue<String>,
}

impl CertificateCleaner {
    /// Asks for its informers.
    pub fn new(context: &Context) -> Self {
        let requests = context.informers.informer::<CertificateSigningRequest>();
        let queue = WorkQueue::new(context.client.clock().clone());
        enqueue_requests(&requests, &queue);
        Self { client: context.client.clone(), requests: requests.lister(), queue }
    }
}

/// The moment from which a request is of no use, in seconds since 1970.
pub(super) fn goes_at(request: &CertificateSigningRequest) -> Option<i64> {
    let created = request.metadata.creation_timestamp.as_ref().map(|at| at.0.as_second());
    let conditions = request.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let certificate = issued(request);
    if conditions.is_empty() {
        return Some(created? + PENDING_SECONDS);
    }
    let deadlines = conditions.iter().flat_map(|condition| {
        let updated = condition.last_update_time.as_ref().map(|at| at.0.as_second());
        let after = |seconds: i64| updated.map(|at| at + seconds);
        match (condition.type_.as_str(), certificate) {
            ("Denied" | "Failed", _) => [after(DENIED_SECONDS), None],
            ("Approved", Some(certificate)) => [after(ISSUED_SECONDS), not_after(&certificate.0)],
            ("Approved", None) => [after(PENDING_SECONDS), None],
            _ => [None, None],
        }
    });
    deadlines.flatten().min()
}

/// How long until then; something is gone only once its time is over.
fn goes_in(request: &CertificateSigningRequest, now: Timestamp) -> Option<Duration> {
    let left = goes_at(request)? + 1 - now.as_second();
    Some(Duration::from_secs(u64::try_from(left).unwrap_or(0)))
}

impl Reconciler for CertificateCleaner {
    const NAME: &'static str = "csrcleaner";
    const WORKERS: usize = 1;

    fn queue(&self) -> &WorkQueue<String> {
        &self.queue
    }

    async fn sync(&self, name: String) -> Result<(), kube::Error> {
        let Some(request) = self.requests.get("", &name) else { return Ok(()) };
        let Some(wait) = goes_in(&request, self.client.clock().now()) else { return Ok(()) };
        if !wait.is_zero() {
            self.queue.add_after(name, wait);
            return Ok(());
        }
        let meta = &request.metadata;
        let preconditions = Preconditions { uid: meta.uid.clone(), resource_version: meta.resource_version.clone() };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        tracing::info!(controller = Self::NAME, csr = name, "cleaning CSR");
        match self.client.all::<CertificateSigningRequest>().delete(&name, &parameters).await {
            Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
            other => other.map(drop),
        }
    }
}
