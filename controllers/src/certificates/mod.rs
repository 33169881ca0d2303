//! CertificateSigningRequests: who approves by itself, who signs, who tidies up.
//!
//! ```text
//!   request ──► approver (kubelets' own, by SubjectAccessReview) ──► Approved ──► signer ──► status.certificate
//!                  or somebody with kubectl certificate approve                     │ Failed: the signer's rules
//!                                                                                   ▼
//!                                                                     cleaner: hours later it is gone
//! ```
//!
//! Requests for certificates of pods are signed by others; [`pod_cleaner`] takes them away.
//!
//! [`authority`] holds the only copy of the CA's key outside of the API server's own start; only [`signer`] has it.
//! (Kubernetes: `pkg/controller/certificates`.)

pub mod approver;
pub mod authority;
pub mod cleaner;
pub mod pod_cleaner;
pub mod signer;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use minik8s_api::certificate_request::CertificateRequest;
use minik8s_client::{Event, Informer, WorkQueue};

/// Client certificates for the API server.
pub const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
/// Client certificates of kubelets.
pub const KUBELET_CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Serving certificates of kubelets.
pub const KUBELET_SERVING_SIGNER: &str = "kubernetes.io/kubelet-serving";
/// Requests that were made when there were no signers' names.
pub const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";

const NODE_GROUP: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";

/// Every change of a request asks for it to be looked at.
fn enqueue_requests(requests: &Informer<CertificateSigningRequest>, queue: &WorkQueue<String>) {
    let add = queue.clone();
    requests.on_event(move |event| {
        if !matches!(event, Event::Deleted(_)) {
            add.add(event.object().metadata.name.clone().unwrap_or_default());
        }
    });
}

/// Whether a condition of this type is there and true.
fn has(request: &CertificateSigningRequest, kind: &str) -> bool {
    let conditions = request.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == kind && condition.status == "True")
}

/// The certificate that was issued, if one was.
fn issued(request: &CertificateSigningRequest) -> Option<&ByteString> {
    request.status.as_ref()?.certificate.as_ref().filter(|certificate| !certificate.0.is_empty())
}

/// Reads the request itself; the error names it.
fn parse(request: &CertificateSigningRequest) -> Result<CertificateRequest, String> {
    let name = request.metadata.name.as_deref().unwrap_or_default();
    CertificateRequest::from_pem(&request.spec.request.0)
        .map_err(|error| format!("unable to parse csr {name:?}: {error}"))
}

/// `[client auth digital signature]`, as Go prints a sorted list.
fn listed(words: &[&str]) -> String {
    format!("[{}]", words.join(" "))
}

/// Whether `usages` are `required`, `key encipherment` or not: keys that are not RSA cannot encipher.
fn usages_match(usages: &[String], required: [&str; 3]) -> Result<(), String> {
    let mut own: Vec<&str> = usages.iter().map(String::as_str).filter(|usage| *usage != "key encipherment").collect();
    own.sort_unstable();
    own.dedup();
    let wanted: Vec<&str> = required.into_iter().filter(|usage| *usage != "key encipherment").collect();
    if own == wanted { Ok(()) } else { Err(format!("usages did not match {}", listed(&required))) }
}

/// What a kubelet's client certificate must be (`ValidateKubeletClientCSR`).
fn check_kubelet_client(request: &CertificateRequest, usages: &[String]) -> Result<(), String> {
    check_node_group(request)?;
    let refused = [
        (request.dns_names.is_empty(), "DNS subjectAltNames are not allowed"),
        (request.email_addresses.is_empty(), "Email subjectAltNames are not allowed"),
        (request.ip_addresses.is_empty(), "IP subjectAltNames are not allowed"),
        (request.uris.is_empty(), "URI subjectAltNames are not allowed"),
    ];
    if let Some((_, words)) = refused.into_iter().find(|(none, _)| !none) {
        return Err(words.to_owned());
    }
    check_node_name(request)?;
    usages_match(usages, ["client auth", "digital signature", "key encipherment"])
}

/// What a kubelet's serving certificate must be (`ValidateKubeletServingCSR`).
fn check_kubelet_serving(request: &CertificateRequest, usages: &[String]) -> Result<(), String> {
    check_node_group(request)?;
    if request.dns_names.is_empty() && request.ip_addresses.is_empty() {
        return Err("DNS or IP subjectAltName is required".to_owned());
    }
    if !request.email_addresses.is_empty() {
        return Err("Email subjectAltNames are not allowed".to_owned());
    }
    if !request.uris.is_empty() {
        return Err("URI subjectAltNames are not allowed".to_owned());
    }
    usages_match(usages, ["digital signature", "key encipherment", "server auth"])?;
    check_node_name(request)
}

fn check_node_group(request: &CertificateRequest) -> Result<(), String> {
    let ours = request.subject.organization == [NODE_GROUP];
    if ours { Ok(()) } else { Err("subject organization is not system:nodes".to_owned()) }
}

fn check_node_name(request: &CertificateRequest) -> Result<(), String> {
    let ours = request.subject.common_name.starts_with(NODE_PREFIX);
    if ours { Ok(()) } else { Err("subject common name does not begin with system:node:".to_owned()) }
}

/// What a client certificate for the API server may be used for (`validAPIServerClientUsages`).
fn check_client_usages(usages: &[String]) -> Result<(), String> {
    const CLIENT_AUTH: &str = "client auth";
    let allowed = [CLIENT_AUTH, "digital signature", "key encipherment"];
    if let Some(other) = usages.iter().find(|usage| !allowed.contains(&usage.as_str())) {
        return Err(format!("invalid usage for client certificate: {other}"));
    }
    if usages.iter().any(|usage| usage == CLIENT_AUTH) {
        Ok(())
    } else {
        Err(format!("missing required usage for client certificate: {CLIENT_AUTH}"))
    }
}

#[cfg(test)]
mod tests;
