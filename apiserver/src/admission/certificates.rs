//! Who may approve and sign certificates, and one certificate that nobody gets (`plugin/pkg/admission/certificates`).

use std::sync::Arc;

use async_trait::async_trait;
use minik8s_api::{
    certificate_request::CertificateRequest,
    kinds::GroupKind,
    status::{FieldError, FieldPath, Status},
};
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::{
    authz::{self, Authorizer},
    identity::MASTERS,
};

const GROUP: &str = "certificates.k8s.io";
const REQUESTS: &str = "certificatesigningrequests";
const POD_REQUESTS: &str = "podcertificaterequests";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

fn signer(request: &Value) -> &str {
    request["spec"]["signerName"].as_str().unwrap_or_default()
}

/// Whether the user has `verb` on the signer, by name or for its whole domain (`pkg/certauthorization`).
fn may_use(authorizer: &dyn Authorizer, write: &Attributes<'_>, verb: &str, signer: &str) -> bool {
    let domain = format!("{}/*", signer.split('/').next().unwrap_or_default());
    [signer, &domain].into_iter().any(|name| {
        let question = authz::Attributes { name, ..authz::Attributes::resource(write.user, verb, GROUP, "signers") };
        authorizer.authorize(&question).allowed()
    })
}

/// CertificateApproval: approving needs the verb `approve` on the signer.
pub struct CertificateApproval {
    authorizer: Arc<dyn Authorizer>,
}

impl CertificateApproval {
    /// `authorizer` decides who approves.
    pub fn new(authorizer: Arc<dyn Authorizer>) -> CertificateApproval {
        CertificateApproval { authorizer }
    }
}

#[async_trait]
impl Plugin for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn handles(&self, write: &Attributes<'_>) -> bool {
        write.operation == Operation::Update && write.is_sub(GROUP, REQUESTS, "approval")
    }

    async fn validate(&self, write: &Attributes<'_>) -> Result<(), Status> {
        let Some(old) = write.old_object else {
            return Ok(());
        };
        let signer = signer(old);
        if may_use(&*self.authorizer, write, "approve", signer) {
            return Ok(());
        }
        Err(write.forbidden(format!("user not permitted to approve requests with signerName {signer:?}")))
    }
}

/// CertificateSigning: writing the certificate needs the verb `sign` on the signer.
pub struct CertificateSigning {
    authorizer: Arc<dyn Authorizer>,
}

impl CertificateSigning {
    /// `authorizer` decides who signs.
    pub fn new(authorizer: Arc<dyn Authorizer>) -> CertificateSigning {
        CertificateSigning { authorizer }
    }
}

#[async_trait]
impl Plugin for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn handles(&self, write: &Attributes<'_>) -> bool {
        let signs = [REQUESTS, POD_REQUESTS].iter().any(|resource| write.is_sub(GROUP, resource, "status"));
        write.operation == Operation::Update && signs
    }

    async fn validate(&self, write: &Attributes<'_>) -> Result<(), Status> {
        let (Some(new), Some(old)) = (&write.object, write.old_object) else {
            return Ok(());
        };
        // Kubernetes asks this of pods' requests when it validates them.
        let of_pod = write.resource == POD_REQUESTS;
        let unchanged = match of_pod {
            true => new["status"] == old["status"],
            false => ["certificate", "conditions"].iter().all(|field| new["status"][*field] == old["status"][*field]),
        };
        if unchanged || may_use(&*self.authorizer, write, "sign", signer(old)) {
            return Ok(());
        }
        if of_pod {
            let words = format!("User {:?} is not permitted to \"sign\" for signer {:?}", write.user.name, signer(old));
            let error = FieldError::forbidden(&FieldPath::new("spec").child("signerName"), words);
            return Err(Status::invalid(&GroupKind::new(GROUP, "PodCertificateRequest"), write.name, vec![error]));
        }
        Err(write.forbidden(format!("user not permitted to sign requests with signerName {:?}", signer(old))))
    }
}

/// ClusterTrustBundleAttest: who says what a signer's certificates are needs the verb `attest` on the signer.
pub struct ClusterTrustBundleAttest {
    authorizer: Arc<dyn Authorizer>,
}

impl ClusterTrustBundleAttest {
    /// `authorizer` decides who attests.
    pub fn new(authorizer: Arc<dyn Authorizer>) -> ClusterTrustBundleAttest {
        ClusterTrustBundleAttest { authorizer }
    }
}

#[async_trait]
impl Plugin for ClusterTrustBundleAttest {
    fn name(&self) -> &'static str {
        "ClusterTrustBundleAttest"
    }

    fn handles(&self, write: &Attributes<'_>) -> bool {
        matches!(write.operation, Operation::Create | Operation::Update) && write.is(GROUP, "clustertrustbundles")
    }

    async fn validate(&self, write: &Attributes<'_>) -> Result<(), Status> {
        let Some(bundle) = &write.object else {
            return Ok(());
        };
        // Of an update that the garbage collector or a migration makes, nothing is attested.
        let same = write.old_object.is_some_and(|old| old["spec"] == bundle["spec"]);
        let signer = signer(bundle);
        if signer.is_empty() || same || may_use(&*self.authorizer, write, "attest", signer) {
            return Ok(());
        }
        Err(write.forbidden(format!("user not permitted to attest for signerName {signer:?}")))
    }
}

/// CertificateSubjectRestriction: no client certificate makes anyone a master.
pub struct CertificateSubjectRestriction;

#[async_trait]
impl Plugin for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn handles(&self, write: &Attributes<'_>) -> bool {
        write.operation == Operation::Create && write.is(GROUP, REQUESTS)
    }

    async fn validate(&self, write: &Attributes<'_>) -> Result<(), Status> {
        let Some(request) = &write.object else {
            return Ok(());
        };
        if signer(request) != CLIENT_SIGNER {
            return Ok(());
        }
        let parsed = CertificateRequest::from_base64(request["spec"]["request"].as_str().unwrap_or_default())
            .map_err(|error| write.forbidden(format!("failed to parse CSR: {error}")))?;
        if parsed.subject.organization.iter().any(|group| group == MASTERS) {
            return Err(write.forbidden(format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed")));
        }
        Ok(())
    }
}
