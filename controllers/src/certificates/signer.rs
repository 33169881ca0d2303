//! Signs approved certificate requests that name one of Kubernetes' own signers.
//!
//! Watches CertificateSigningRequests; writes `status.certificate`, or the condition `Failed` where a request breaks the
//! rules of its signer. (Kubernetes: `pkg/controller/certificates/signer/signer.go`.)

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use kube::api::PostParams;
use minik8s_api::certificate_request::CertificateRequest;
use minik8s_client::{Client, Lister, WorkQueue, is_conflict, is_not_found};

use super::authority::CertificateAuthority;
use super::{
    CLIENT_SIGNER, KUBELET_CLIENT_SIGNER, KUBELET_SERVING_SIGNER, LEGACY_SIGNER, check_client_usages,
    check_kubelet_client, check_kubelet_serving, enqueue_requests, has, issued, parse,
};
use crate::manager::{Context, Reconciler};

/// After how long a certificate is tried again that the authority did not sign: it may have been renewed.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Clone)]
pub struct CertificateSigner {
    client: Client,
    authority: Arc<CertificateAuthority>,
    requests: Lister<CertificateSigningRequest>,
    queue: WorkQueue<String>,
}

impl CertificateSigner {
    /// Asks for its informers.
    pub fn new(context: &Context, authority: Arc<CertificateAuthority>) -> Self {
        let requests = context.informers.informer::<CertificateSigningRequest>();
        let queue = WorkQueue::new(context.client.clock().clone());
        enqueue_requests(&requests, &queue);
        Self { client: context.client.clone(), authority, requests: requests.lister(), queue }
    }

    async fn write(&self, request: &CertificateSigningRequest) -> Result<(), kube::Error> {
        let name = request.metadata.name.as_deref().unwrap_or_default();
        let api = self.client.all::<CertificateSigningRequest>();
        match api.replace_status(name, &PostParams::default(), request).await {
            Err(error) if is_conflict(&error) || is_not_found(&error) => Ok(()),
            other => other.map(drop),
        }
    }
}

/// The rules of a signer; `None` for one that is not ours.
pub(super) fn check(signer: &str, request: &CertificateRequest, usages: &[String]) -> Option<Result<(), String>> {
    Some(match signer {
        CLIENT_SIGNER => check_client_usages(usages),
        KUBELET_CLIENT_SIGNER => check_kubelet_client(request, usages),
        KUBELET_SERVING_SIGNER => check_kubelet_serving(request, usages),
        LEGACY_SIGNER => Ok(()),
        _ => return None,
    })
}

fn failure(message: String) -> CertificateSigningRequestCondition {
    CertificateSigningRequestCondition {
        type_: "Failed".to_owned(),
        status: "True".to_owned(),
        reason: Some("SignerValidationFailure".to_owned()),
        message: Some(message),
        ..CertificateSigningRequestCondition::default()
    }
}

impl Reconciler for CertificateSigner {
    const NAME: &'static str = "certificate-signer";
    const WORKERS: usize = 1;

    fn queue(&self) -> &WorkQueue<String> {
        &self.queue
    }

    async fn sync(&self, name: String) -> Result<(), kube::Error> {
        let Some(request) = self.requests.get("", &name) else { return Ok(()) };
        let approved = has(&request, "Approved") && !has(&request, "Denied");
        if !approved || has(&request, "Failed") || issued(&request).is_some() {
            return Ok(());
        }
        let parsed = match parse(&request) {
            Ok(parsed) => parsed,
            Err(words) => {
                tracing::warn!(controller = Self::NAME, "{words}");
                return Ok(());
            }
        };
        let usages = request.spec.usages.as_deref().unwrap_or_default();
        let Some(checked) = check(&request.spec.signer_name, &parsed, usages) else { return Ok(()) };
        let mut answered = CertificateSigningRequest::clone(&request);
        let status = answered.status.get_or_insert_default();
        match checked {
            Err(message) => status.conditions.get_or_insert_default().push(failure(message)),
            Ok(()) => {
                let now = self.client.clock().now().as_second();
                match self.authority.sign(&parsed, usages, request.spec.expiration_seconds, now, self.client.random()) {
                    Ok(pem) => status.certificate = Some(ByteString(pem.into_bytes())),
                    Err(error) => {
                        tracing::warn!(controller = Self::NAME, csr = name, %error, "error auto signing csr");
                        self.queue.add_after(name, TRY_AGAIN);
                        return Ok(());
                    }
                }
            }
        }
        self.write(&answered).await
    }
}
