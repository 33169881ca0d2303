//! Certificate signing requests, trust bundles, pod certificate requests.
//! Of `pkg/apis/certificates/validation` the rules on names, usages and durations; the PEM content is the signers' business.
use serde_json::{Value, json};

use super::built_in::Behavior;
use super::field::{Errors, Field};
use super::pod::volumes::required;
use super::{Context, Subresource, edit, names, pod};

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

/// `example.com/signer`.
fn signer_name(signer: &Field<'_>, errors: &mut Errors) {
    if signer.is_empty() {
        errors.push(signer.required(""));
        return;
    }
    match signer.str().split_once('/') {
        Some((domain, path)) if domain.contains('.') && !path.is_empty() && !path.contains('/') => {
            signer.check(names::dns1123_subdomain(domain), errors);
            for part in path.split('.') {
                signer.check(names::dns1123_subdomain(part), errors);
            }
        }
        _ => errors
            .push(signer.invalid("must be a fully qualified domain and path of the form 'example.com/signer-name'")),
    }
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
        let decided = |condition: &Value| matches!(edit::text(condition, "type"), "Approved" | "Denied");
        match subresource {
            Subresource::Approval => {
                let asked = new["status"].get("conditions").cloned();
                edit::keep(new, old, "status");
                edit::replace(edit::child(new, "status"), "conditions", asked);
            }
            Subresource::Status => {
                let kept: Vec<Value> = old["status"]["conditions"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter(|c| decided(c))
                    .cloned()
                    .collect();
                let mut conditions: Vec<Value> = new["status"]["conditions"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter(|c| !decided(c))
                    .cloned()
                    .collect();
                conditions.splice(0..0, kept);
                if !conditions.is_empty() {
                    edit::set(edit::child(new, "status"), "conditions", conditions);
                }
            }
            _ => {}
        }
        for condition in edit::each(edit::child(new, "status"), "conditions") {
            for name in ["lastUpdateTime", "lastTransitionTime"] {
                edit::default(condition, name, pod::seconds(context.now));
            }
        }
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let spec = object.get("spec");
        if spec.get("request").is_empty() {
            errors.push(spec.get("request").required("PEM block type must be CERTIFICATE REQUEST"));
        }
        let usages = spec.get("usages");
        if usages.is_empty() {
            errors.push(usages.required("usages: usages are required"));
        }
        for usage in usages.items().filter(|usage| !USAGES.contains(&usage.str())) {
            errors.push(usage.not_supported(USAGES));
        }
        signer_name(&spec.get("signerName"), errors);
        let seconds = spec.get("expirationSeconds");
        if seconds.int().is_some_and(|number| number < EXPIRATION_SECONDS_MIN) {
            errors.push(seconds.invalid("may not specify a duration less than 600 seconds (10 minutes)"));
        }
    }

    fn validate_update(&self, _: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        let (conditions, before) = (new.get("status").get("conditions"), old.get("status").get("conditions"));
        let has = |list: &Field<'_>, kind: &str| list.items().any(|condition| condition.get("type").str() == kind);
        for kind in ["Approved", "Denied", "Failed"] {
            if has(&before, kind) && !has(&conditions, kind) {
                errors.push(conditions.forbidden(format!("updates may not remove a condition of type {kind:?}")));
            }
        }
        if has(&conditions, "Approved") && has(&conditions, "Denied") {
            errors.push(conditions.invalid("Approved and Denied conditions are mutually exclusive"));
        }
        for condition in conditions.items() {
            if condition.get("type").is_empty() {
                errors.push(condition.get("type").required(""));
            }
            condition.get("status").one_of(&["False", "True", "Unknown"], errors);
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
