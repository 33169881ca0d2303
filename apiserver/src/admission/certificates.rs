//! Who may approve and sign certificates, and one certificate that nobody gets (`plugin/pkg/admission/certificates`).

use std::sync::Arc;

use async_trait::async_trait;
use minik8s_api::{certificate_request::CertificateRequest, status::Status};
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::{
    authz::{self, Authorizer},
    identity::MASTERS,
};

const GROUP: &str = "certificates.k8s.io";
const REQUESTS: &str = "certificatesigningrequests";
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
        write.operation == Operation::Update && write.is_sub(GROUP, REQUESTS, "status")
    }

    async fn validate(&self, write: &Attributes<'_>) -> Result<(), Status> {
        let (Some(new), Some(old)) = (&write.object, write.old_object) else {
            return Ok(());
        };
        let unchanged = new["status"]["certificate"] == old["status"]["certificate"]
            && new["status"]["conditions"] == old["status"]["conditions"];
        if unchanged || may_use(&*self.authorizer, write, "sign", signer(old)) {
            return Ok(());
        }
        Err(write.forbidden(format!("user not permitted to sign requests with signerName {:?}", signer(old))))
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
