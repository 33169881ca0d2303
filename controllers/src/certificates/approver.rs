//! Approves the client certificates that kubelets ask for, where authorization says that they may be approved unseen.
//!
//! Watches CertificateSigningRequests; asks SubjectAccessReviews for `selfnodeclient` (a node renews its own) and
//! `nodeclient` (somebody asks for a node); writes the condition `Approved`.
//! (Kubernetes: `pkg/controller/certificates/approver/sarapprove.go`.)

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use kube::api::PostParams;
use minik8s_api::certificate_request::CertificateRequest;
use minik8s_client::{Client, Lister, WorkQueue, is_conflict, is_not_found};

use super::{KUBELET_CLIENT_SIGNER, check_kubelet_client, enqueue_requests, has, issued, listed, parse};
use crate::manager::{Context, Reconciler};

/// After how long a request is asked about again that its author may not have approved.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// A kind of request that may be approved unseen.
struct Recognizer {
    recognizes: fn(&CertificateSigningRequest, &CertificateRequest) -> bool,
    /// The subresource on which its author needs the verb `create`.
    subresource: &'static str,
    message: &'static str,
}

const RECOGNIZERS: [Recognizer; 2] = [
    Recognizer {
        recognizes: is_self_node_client,
        subresource: "selfnodeclient",
        message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
    },
    Recognizer {
        recognizes: is_node_client,
        subresource: "nodeclient",
        message: "Auto approving kubelet client certificate after SubjectAccessReview.",
    },
];

/// See the module.
#[derive(Clone)]
pub struct CertificateApprover {
    client: Client,
    requests: Lister<CertificateSigningRequest>,
    queue: WorkQueue<String>,
}

impl CertificateApprover {
    /// Asks for its informers.
    pub fn new(context: &Context) -> Self {
        let requests = context.informers.informer::<CertificateSigningRequest>();
        let queue = WorkQueue::new(context.client.clock().clone());
        enqueue_requests(&requests, &queue);
        Self { client: context.client.clone(), requests: requests.lister(), queue }
    }

    async fn may(&self, request: &CertificateSigningRequest, subresource: &str) -> Result<bool, kube::Error> {
        let spec = &request.spec;
        let extra = spec.extra.iter().flatten().map(|(key, values)| (key.clone(), values.clone()));
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: spec.username.clone(),
                uid: spec.uid.clone(),
                groups: spec.groups.clone(),
                extra: Some(extra.collect::<BTreeMap<_, _>>()),
                resource_attributes: Some(ResourceAttributes {
                    group: Some("certificates.k8s.io".to_owned()),
                    resource: Some("certificatesigningrequests".to_owned()),
                    verb: Some("create".to_owned()),
                    subresource: Some(subresource.to_owned()),
                    version: Some("*".to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let answer = self.client.all::<SubjectAccessReview>().create(&PostParams::default(), &review).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    async fn approve(&self, request: &CertificateSigningRequest, message: &str) -> Result<(), kube::Error> {
        let name = request.metadata.name.as_deref().unwrap_or_default();
        let mut approved = request.clone();
        approved.status.get_or_insert_default().conditions.get_or_insert_default().push(
            CertificateSigningRequestCondition {
                type_: "Approved".to_owned(),
                status: "True".to_owned(),
                reason: Some("AutoApproved".to_owned()),
                message: Some(message.to_owned()),
                ..CertificateSigningRequestCondition::default()
            },
        );
        let api = self.client.all::<CertificateSigningRequest>();
        match api.replace_subresource("approval", name, &PostParams::default(), &approved).await {
            // Somebody else decided, or took it away; the watch tells.
            Err(error) if is_conflict(&error) || is_not_found(&error) => Ok(()),
            other => other.map(drop),
        }
    }
}

fn is_node_client(request: &CertificateSigningRequest, parsed: &CertificateRequest) -> bool {
    request.spec.signer_name == KUBELET_CLIENT_SIGNER
        && check_kubelet_client(parsed, request.spec.usages.as_deref().unwrap_or_default()).is_ok()
}

fn is_self_node_client(request: &CertificateSigningRequest, parsed: &CertificateRequest) -> bool {
    request.spec.username.as_deref() == Some(&parsed.subject.common_name) && is_node_client(request, parsed)
}

impl Reconciler for CertificateApprover {
    const NAME: &'static str = "certificate-approver";
    const WORKERS: usize = 1;

    fn queue(&self) -> &WorkQueue<String> {
        &self.queue
    }

    async fn sync(&self, name: String) -> Result<(), kube::Error> {
        let Some(request) = self.requests.get("", &name) else { return Ok(()) };
        if issued(&request).is_some() || has(&request, "Approved") || has(&request, "Denied") {
            return Ok(());
        }
        let parsed = match parse(&request) {
            Ok(parsed) => parsed,
            Err(words) => {
                tracing::warn!(controller = Self::NAME, "{words}");
                return Ok(());
            }
        };
        let mut tried = Vec::new();
        for recognizer in RECOGNIZERS.iter().filter(|known| (known.recognizes)(&request, &parsed)) {
            tried.push(recognizer.subresource);
            if self.may(&request, recognizer.subresource).await? {
                return self.approve(&request, recognizer.message).await;
            }
        }
        if !tried.is_empty() {
            let tried = listed(&tried);
            tracing::debug!("recognized csr {name:?} as {tried} but subject access review was not approved");
            // A role may come that approves it.
            self.queue.add_after(name, ASK_AGAIN);
        }
        Ok(())
    }
}
