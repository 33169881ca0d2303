//! Certificate signing requests, trust bundles, pod certificate requests.
//! (Kubernetes: `pkg/apis/certificates/validation`, `pkg/registry/certificates`.)
use std::collections::BTreeSet;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::built_in::Behavior;
use super::field::{Errors, Field};
use super::pod::volumes::required;
use super::{Context, Subresource, edit, names, pod};
use crate::certificate_request::{CertificateRequest, check_certificates};

const EXPIRATION_SECONDS_MIN: i64 = 600;
const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// `example.com/signer`: `ValidateSignerName` of `pkg/apis/core/validation/names.go`.
pub fn signer_name(signer: &Field<'_>, errors: &mut Errors) {
    if signer.is_empty() {
        errors.push(signer.required(""));
        return;
    }
    let Some((domain, path)) = signer.str().split_once('/').filter(|(_, path)| !path.contains('/')) else {
        errors.push(signer.invalid("must be a fully qualified domain and path of the form 'example.com/signer-name'"));
        return;
    };
    if domain.len() > names::DNS_SUBDOMAIN_MAX {
        errors.push(signer.too_long(names::DNS_SUBDOMAIN_MAX));
    }
    signer_labels(signer, domain, names::dns1123_label, errors);
    if !domain.contains('.') {
        errors.push(signer.invalid_as(domain, "should be a domain with at least two segments separated by dots"));
    }
    signer_labels(signer, path, names::dns1123_subdomain, errors);
}

/// The dotted parts of one side of a signer's name; the first bad one is reported.
fn signer_labels(signer: &Field<'_>, side: &str, check: fn(&str) -> Vec<String>, errors: &mut Errors) {
    for label in side.split('.') {
        let complaints = check(label);
        if !complaints.is_empty() {
            let details = complaints.into_iter().map(|why| format!("validating label {label:?}: {why}"));
            errors.extend(details.map(|detail| signer.invalid_as(side, detail)));
            return;
        }
    }
}

/// What approvers decide.
const DECISIONS: [&str; 2] = ["Approved", "Denied"];
/// Requests of the first version of the API, which had no signers.
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";

/// The conditions of one type.
fn instances<'a>(conditions: &Field<'a>, kind: &str) -> impl Iterator<Item = Field<'a>> {
    conditions.items().filter(move |condition| condition.get("type").str() == kind)
}

/// Makes the conditions of one type what they were, if there are as many as there were; otherwise validation refuses.
fn keep_instances(new: &mut Value, old: &Value, kind: &str) {
    let of_kind = |condition: &&Value| edit::text(condition, "type") == kind;
    let were: Vec<&Value> = old["status"]["conditions"].as_array().into_iter().flatten().filter(of_kind).collect();
    let mut are: Vec<&mut Value> = edit::each(edit::child(new, "status"), "conditions")
        .filter(|condition| edit::text(condition, "type") == kind)
        .collect();
    if are.len() == were.len() {
        for (is, was) in are.iter_mut().zip(were) {
            **is = was.clone();
        }
    }
}

/// Says when conditions were written, and since when they are as they are.
fn stamp_conditions(context: &Context<'_>, new: &mut Value, old: &Value) {
    let before: &[Value] = old["status"]["conditions"].as_array().map_or(&[], Vec::as_slice);
    for condition in edit::each(edit::child(new, "status"), "conditions") {
        let now = pod::seconds(context.now);
        edit::default(condition, "lastUpdateTime", now.clone());
        let same = |name: &str, other: &Value| edit::text(condition, name) == edit::text(other, name);
        let since = before.iter().find(|other| same("type", other) && same("status", other));
        let since = since.and_then(|other| other.get("lastTransitionTime")).filter(|since| !since.is_null());
        let since = since.cloned().unwrap_or_else(|| now.into());
        edit::default(condition, "lastTransitionTime", since);
    }
}

fn validate_spec(spec: &Field<'_>, errors: &mut Errors) {
    let request = spec.get("request");
    let parsed = CertificateRequest::from_base64(request.str());
    if let Err(words) = parsed.and_then(|parsed| parsed.check_signature()) {
        errors.push(request.invalid(words));
    }
    let usages = spec.get("usages");
    if usages.is_empty() {
        errors.push(usages.required(""));
    }
    for usage in usages.items().filter(|usage| !USAGES.contains(&usage.str())) {
        errors.push(usage.not_supported(USAGES));
    }
    let mut seen = BTreeSet::new();
    for usage in usages.items() {
        if !seen.insert(usage.str()) {
            errors.push(usage.duplicate());
        }
    }
    let signer = spec.get("signerName");
    if signer.str() == LEGACY_SIGNER {
        errors.push(signer.invalid("the legacy signerName is not allowed via this API version"));
    } else {
        signer_name(&signer, errors);
    }
    let seconds = spec.get("expirationSeconds");
    if seconds.int().is_some_and(|number| number < EXPIRATION_SECONDS_MIN) {
        errors.push(seconds.invalid("may not specify a duration less than 600 seconds (10 minutes)"));
    }
}

/// What is wrong with conditions and was not already wrong with those `before`.
fn validate_conditions(conditions: &Field<'_>, before: &Field<'_>, errors: &mut Errors) {
    let types = |list: &Field<'_>| -> Vec<String> { list.items().map(|c| c.get("type").str().to_owned()).collect() };
    let old = types(before);
    let both_before = DECISIONS.iter().all(|kind| old.iter().any(|own| own == kind));
    let repeated_before = old.iter().collect::<BTreeSet<_>>().len() < old.len();
    let mut seen = BTreeSet::new();
    for condition in conditions.items() {
        let (kind, status) = (condition.get("type"), condition.get("status"));
        if kind.is_empty() && !old.iter().any(String::is_empty) {
            errors.push(kind.required(""));
        }
        let final_ = DECISIONS.contains(&kind.str()) || kind.str() == "Failed";
        status.one_of(if final_ { &["True"] } else { &["False", "True", "Unknown"] }, errors);
        let opposite = DECISIONS.iter().find(|other| DECISIONS.contains(&kind.str()) && **other != kind.str());
        if opposite.is_some_and(|other| seen.contains(other)) && !both_before {
            errors.push(kind.invalid("Approved and Denied conditions are mutually exclusive"));
        }
        if !seen.insert(kind.str()) && !repeated_before {
            errors.push(kind.duplicate());
        }
    }
}

fn check_issued(base64: &str) -> Result<(), String> {
    check_certificates(&BASE64_STANDARD.decode(base64).map_err(|error| error.to_string())?)
}

/// `certificates.k8s.io/v1` CertificateSigningRequest: the server writes down who asked.
pub struct CertificateSigningRequest;

impl Behavior for CertificateSigningRequest {
    fn prepare_for_create(&self, context: &Context<'_>, object: &mut Value) {
        let spec = edit::child(object, "spec");
        for name in ["username", "uid", "groups", "extra"] {
            edit::take(spec, name);
        }
        let Some(user) = &context.user else { return };
        edit::set(spec, "username", user.name);
        if !user.uid.is_empty() {
            edit::set(spec, "uid", user.uid);
        }
        if !user.groups.is_empty() {
            edit::set(spec, "groups", json!(user.groups));
        }
        for (key, values) in user.extra.iter() {
            edit::set(edit::child(spec, "extra"), key, json!(values));
        }
    }

    fn prepare_for_update(&self, context: &Context<'_>, subresource: Subresource, new: &mut Value, old: &Value) {
        // A request never changes; its approval and its certificate come through their own doors.
        edit::keep(new, old, "spec");
        match subresource {
            Subresource::Approval => {
                let asked = new["status"].get("conditions").cloned();
                edit::keep(new, old, "status");
                edit::replace(edit::child(new, "status"), "conditions", asked);
            }
            Subresource::Status => {
                for decision in DECISIONS {
                    keep_instances(new, old, decision);
                }
            }
            _ => {}
        }
        stamp_conditions(context, new, old);
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        validate_spec(&object.get("spec"), errors);
        validate_conditions(&object.get("status").get("conditions"), &Field::root(&Value::Null), errors);
    }

    fn validate_update(&self, subresource: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        // The spec is the old one's, which was valid.
        let (conditions, before) = (new.get("status").get("conditions"), old.get("status").get("conditions"));
        validate_conditions(&conditions, &before, errors);
        let (certificate, issued) = (new.get("status").get("certificate"), old.get("status").get("certificate"));
        let changed = certificate.str() != issued.str();
        if changed
            && !certificate.is_empty()
            && let Err(words) = check_issued(certificate.str())
            && (issued.is_empty() || check_issued(issued.str()).is_ok())
        {
            errors.push(certificate.invalid_as("<certificate data>", words));
        }
        let count = |list: &Field<'_>, kind: &str| instances(list, kind).count();
        for kind in DECISIONS.into_iter().chain(["Failed"]) {
            if count(&conditions, kind) < count(&before, kind) {
                errors.push(conditions.forbidden(format!("updates may not remove a condition of type {kind:?}")));
            }
        }
        for kind in DECISIONS.into_iter().filter(|_| subresource != Subresource::Approval) {
            if count(&conditions, kind) > count(&before, kind) {
                errors.push(conditions.forbidden(format!("updates may not add a condition of type {kind:?}")));
            }
        }
        if changed && subresource != Subresource::Status {
            errors.push(certificate.forbidden("updates may not set certificate content"));
        } else if changed && !issued.is_empty() {
            errors.push(certificate.forbidden("updates may not modify existing certificate content"));
        }
    }

    fn selectable(&self) -> &'static [(&'static str, &'static str)] {
        &[("spec.signerName", "/spec/signerName")]
    }
}

/// `certificates.k8s.io/v1` ClusterTrustBundle.
pub struct ClusterTrustBundle;

impl Behavior for ClusterTrustBundle {
    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let (signer, name) = (object.get("spec").get("signerName"), object.get("metadata").get("name"));
        if signer.is_empty() {
            if name.str().contains(':') {
                errors.push(name.invalid("ClusterTrustBundle without signer name must not have \":\" in its name"));
            }
        } else {
            signer_name(&signer, errors);
            let prefix = format!("{}:", signer.str().replace('/', ":"));
            if !name.str().starts_with(&prefix) {
                errors.push(name.invalid(format!(
                    "ClusterTrustBundle for signerName {} must be named with prefix {prefix}",
                    signer.str()
                )));
            }
        }
        required(&object.get("spec"), &["trustBundle"], errors);
    }

    fn validate_update(&self, _: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        self.validate(new, errors);
        new.get("spec").get("signerName").immutable(&old.get("spec").get("signerName"), errors);
    }

    fn selectable(&self) -> &'static [(&'static str, &'static str)] {
        &[("spec.signerName", "/spec/signerName")]
    }
}

/// `certificates.k8s.io/v1` PodCertificateRequest.
pub struct PodCertificateRequest;

impl Behavior for PodCertificateRequest {
    fn set_defaults(&self, object: &mut Value) {
        edit::default(edit::child(object, "spec"), "maxExpirationSeconds", 86400);
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let spec = object.get("spec");
        signer_name(&spec.get("signerName"), errors);
        required(
            &spec,
            &["podName", "podUID", "serviceAccountName", "serviceAccountUID", "nodeName", "nodeUID"],
            errors,
        );
    }

    fn validate_update(&self, subresource: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        if subresource != Subresource::Status {
            new.get("spec").immutable(&old.get("spec"), errors);
        }
    }

    fn selectable(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("spec.signerName", "/spec/signerName"),
            ("spec.podName", "/spec/podName"),
            ("spec.nodeName", "/spec/nodeName"),
        ]
    }
}
