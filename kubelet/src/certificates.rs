//! Certificates for projected volumes: asked for by a PodCertificateRequest each, waited for, and renewed when their signer
//! says.
//!
//! ```text
//!   nothing ──► pending ──► issued ──► pending (with the old one in use) ──► issued …
//!                  └──► refused, for good: its signer denied it or failed
//! ```
//! The requests of the node are watched by [`crate::objects`]. Keys of RSA and of P-521 are not made here.
//! (kubelet: `podcertificate/podcertificatemanager.go`.)

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{PodCertificateRequest, PodCertificateRequestSpec};
use k8s_openapi::api::core::v1::{Pod, PodCertificateProjection, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::PostParams;
use minik8s_client::{EventType, object_reference};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SignatureAlgorithm};

use crate::error::{Error, Result};
use crate::kubelet::Kubelet;
use crate::spec::PodExt as _;
use crate::volumes::trust_anchors;
use crate::words;

/// After this a request that is not there is taken for deleted (`assumeDeletedThreshold`).
const ASSUME_DELETED: Duration = Duration::from_secs(10 * 60);
/// Requests are spread over this (`jitterDuration`).
const JITTER: Duration = Duration::from_secs(5 * 60);
const NOT_ISSUED: &str = "credential bundle is not issued yet";

/// The volume of a projection, and its place among the volume's sources.
pub type Place = (String, usize);

/// A private key and the certificates for it, both as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The private key, in PKCS #8.
    pub key: String,
    /// Its certificate, and those of the authorities up to the root's.
    pub chain: String,
}

/// Without the key: what is debugged ends in logs.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("chain", &self.chain).finish_non_exhaustive()
    }
}

/// What has been issued.
#[derive(Clone, Debug)]
struct Issued {
    credentials: Credentials,
    renew: Timestamp,
}

/// What has been asked for.
#[derive(Clone)]
struct Pending {
    key: String,
    request: String,
    abandon: Timestamp,
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("request", &self.request).finish_non_exhaustive()
    }
}

/// How far one projection has come.
#[derive(Clone, Debug, Default)]
struct Record {
    issued: Option<Issued>,
    pending: Option<Pending>,
    /// What its signer said against it.
    refused: Option<String>,
}

/// The certificates of one pod.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    records: BTreeMap<Place, Record>,
}

/// Why a signer issued nothing.
struct Refusal {
    /// `Denied` or `Failed`.
    kind: String,
    message: String,
}

impl Certificates {
    /// When the next one has to be looked at.
    pub fn wake_at(&self) -> Option<Timestamp> {
        let wake = |record: &Record| match (&record.pending, &record.issued) {
            (Some(pending), _) => Some(pending.abandon),
            (None, Some(issued)) if record.refused.is_none() => Some(issued.renew),
            _ => None,
        };
        self.records.values().filter_map(wake).min()
    }
}

impl Record {
    /// Takes in what has become of the request.
    fn settle(&mut self, requests: &[Arc<PodCertificateRequest>], now: Timestamp, jitter: Duration) -> Option<Refusal> {
        let pending = self.pending.clone()?;
        let named = |request: &&Arc<PodCertificateRequest>| request.metadata.name.as_ref() == Some(&pending.request);
        let Some(request) = requests.iter().find(named) else {
            // The watch may lag behind what was created.
            self.pending = Some(pending).filter(|pending| pending.abandon > now);
            return None;
        };
        let status = request.status.as_ref()?;
        for condition in status.conditions.iter().flatten() {
            let (kind, reason, why) = (&condition.type_, words::quoted(&condition.reason), &condition.message);
            let why = words::quoted(why);
            let verb = match kind.as_str() {
                "Issued" => {
                    let chain = status.certificate_chain.as_deref().unwrap_or_default();
                    let credentials = Credentials { key: pending.key, chain: trust_anchors::normalized(chain) };
                    let renew = status.begin_refresh_at.as_ref().map_or(now, |time| time.0);
                    self.issued = Some(Issued { credentials, renew: later(renew, jitter) });
                    self.pending = None;
                    return None;
                }
                "Denied" => "was denied,",
                "Failed" => "failed,",
                _ => continue,
            };
            let ended = kind.to_lowercase();
            self.pending = None;
            self.refused =
                Some(format!("PodCertificateRequest was permanently {ended}: reason={reason} message={why}"));
            let namespace = request.metadata.namespace.as_deref().unwrap_or_default();
            let message =
                format!("PodCertificateRequest {namespace}/{} {verb} reason={reason}, message={why}", pending.request);
            return Some(Refusal { kind: kind.clone(), message });
        }
        None
    }

    fn wants_request(&self, now: Timestamp) -> bool {
        self.refused.is_none() && self.pending.is_none() && self.issued.as_ref().is_none_or(|i| i.renew <= now)
    }

    fn credentials(&self) -> Result<Credentials, String> {
        match (&self.refused, &self.issued) {
            (Some(refused), _) => Err(refused.clone()),
            (None, Some(issued)) => Ok(issued.credentials.clone()),
            (None, None) => Err(NOT_ISSUED.to_owned()),
        }
    }
}

impl Kubelet {
    /// The certificates that the volumes of `pod` want, or why they are not there. Those that are missing or old are asked
    /// for; `requests` are those of the node, if they could be read.
    pub(crate) async fn pod_certificates(
        &self,
        pod: &Pod,
        certificates: &mut Certificates,
        requests: Option<&[Arc<PodCertificateRequest>]>,
    ) -> BTreeMap<Place, Result<Credentials, String>> {
        let mut found = BTreeMap::new();
        for (place, source) in wanted(pod) {
            let Some(requests) = requests else {
                found.insert(place, Err(NOT_ISSUED.to_owned()));
                continue;
            };
            let now = self.config.clock.now();
            let jitter = || Duration::from_millis(self.config.random.below(JITTER.as_secs() * 1000));
            let record = certificates.records.entry(place.clone()).or_default();
            if let Some(refusal) = record.settle(requests, now, jitter()) {
                self.event(&object_reference(pod), EventType::Warning, &refusal.kind, refusal.message);
            }
            if record.wants_request(now) {
                match self.request_certificate(pod, source).await {
                    Ok((key, request)) => {
                        let abandon = later(now, ASSUME_DELETED + jitter());
                        record.pending = Some(Pending { key, request, abandon });
                    }
                    Err(error) if record.issued.is_none() => {
                        let why = format!("{NOT_ISSUED}: while creating initial PodCertificateRequest: {error}");
                        found.insert(place, Err(why));
                        continue;
                    }
                    Err(error) => {
                        tracing::warn!(pod = pod.full_format(), %error, "could not ask for a new certificate");
                        record.issued.iter_mut().for_each(|issued| issued.renew = later(now, jitter()));
                    }
                }
            }
            found.insert(place, record.credentials());
        }
        found
    }

    /// Makes a key and asks for a certificate; the key, and the name of the request.
    async fn request_certificate(&self, pod: &Pod, source: &PodCertificateProjection) -> Result<(String, String)> {
        let client = &self.config.client;
        let account = pod.spec().service_account_name.clone().unwrap_or_default();
        let service_account = client.namespaced::<ServiceAccount>(pod.namespace()).get(&account).await?;
        let node = self.node.lock().clone();
        let (key, proof) = key_and_proof(&source.key_type)?;
        let uid = |meta: ObjectMeta| meta.uid.unwrap_or_default();
        let spec = PodCertificateRequestSpec {
            signer_name: source.signer_name.clone(),
            pod_name: pod.name().to_owned(),
            pod_uid: pod.uid().to_owned(),
            service_account_name: account,
            service_account_uid: uid(service_account.metadata),
            node_name: self.config.node_name.clone(),
            node_uid: node.metadata.uid.clone().unwrap_or_default(),
            max_expiration_seconds: source.max_expiration_seconds,
            stub_pkc_s10_request: ByteString(proof),
            unverified_user_annotations: source.user_annotations.clone(),
        };
        let owner = OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: pod.name().to_owned(),
            uid: pod.uid().to_owned(),
            ..OwnerReference::default()
        };
        let metadata = ObjectMeta {
            namespace: Some(pod.namespace().to_owned()),
            generate_name: Some("req-".to_owned()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        };
        let request = PodCertificateRequest { metadata, spec, status: None };
        let api = client.namespaced::<PodCertificateRequest>(pod.namespace());
        let made = api.create(&PostParams::default(), &request).await?;
        Ok((key, made.metadata.name.unwrap_or_default()))
    }
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| at.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
}

/// The certificates that the volumes of `pod` want.
fn wanted(pod: &Pod) -> impl Iterator<Item = (Place, &PodCertificateProjection)> {
    pod.spec().volumes.iter().flatten().flat_map(|volume| {
        let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()).enumerate();
        sources.filter_map(|(index, source)| Some(((volume.name.clone(), index), source.pod_certificate.as_ref()?)))
    })
}

/// A new private key as PEM, and an empty PKCS #10 request that it signed. The signature holds randomness of its own, so a
/// key that is drawn from the seed of a simulation would not make the request the same in every run.
fn key_and_proof(key_type: &str) -> Result<(String, Vec<u8>)> {
    let algorithm: &'static SignatureAlgorithm = match key_type {
        "ECDSAP256" => &rcgen::PKCS_ECDSA_P256_SHA256,
        "ECDSAP384" => &rcgen::PKCS_ECDSA_P384_SHA384,
        "ED25519" => &rcgen::PKCS_ED25519,
        other => {
            return Err(Error::InvalidPod(format!("while generating keypair: this kubelet makes no {other} keys")));
        }
    };
    let failed = |error: rcgen::Error| Error::InvalidPod(format!("while generating keypair: {error}"));
    let key = KeyPair::generate_for(algorithm).map_err(failed)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let proof = params.serialize_request(&key).map_err(failed)?;
    Ok((key.serialize_pem(), proof.der().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn request(status: Value) -> Vec<Arc<PodCertificateRequest>> {
        let spec = json!({
            "signerName": "s/s", "podName": "p", "podUID": "u", "serviceAccountName": "a", "serviceAccountUID": "u",
            "nodeName": "n", "nodeUID": "u", "stubPKCS10Request": "",
        });
        let metadata = json!({"name": "req-1", "namespace": "ns"});
        vec![Arc::new(serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap())]
    }

    fn pending() -> Record {
        let pending = Pending { key: "K".to_owned(), request: "req-1".to_owned(), abandon: at(600) };
        Record { pending: Some(pending), ..Record::default() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_request_that_is_gone_is_made_again() {
        let mut record = pending();
        record.settle(&[], at(599), Duration::ZERO);
        assert!(!record.wants_request(at(599)));
        record.settle(&[], at(600), Duration::ZERO);
        assert!(record.wants_request(at(600)));
    }

    #[test]
    fn what_was_issued_is_renewed_when_its_signer_says() {
        let mut record = pending();
        let issued = json!({"type": "Issued", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "1970-01-01T00:00:00Z"});
        let chain = "a comment\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----";
        let status =
            json!({"conditions": [issued], "certificateChain": chain, "beginRefreshAt": "1970-01-01T00:10:00Z"});
        assert!(record.settle(&request(status), at(0), Duration::from_secs(5)).is_none());
        let credentials = record.credentials().unwrap();
        assert_eq!(credentials.key, "K");
        assert_eq!(credentials.chain, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        assert_eq!((record.wants_request(at(604)), record.wants_request(at(605))), (false, true));
    }

    #[test]
    fn a_refusal_is_for_good() {
        let mut record = pending();
        let denied = json!({"type": "Denied", "status": "True", "reason": "No", "message": "why", "lastTransitionTime": "1970-01-01T00:00:00Z"});
        let refusal = record.settle(&request(json!({"conditions": [denied]})), at(0), Duration::ZERO).unwrap();
        assert_eq!(refusal.message, "PodCertificateRequest ns/req-1 was denied, reason=\"No\", message=\"why\"");
        assert!(!record.wants_request(at(10_000)));
        let why = "PodCertificateRequest was permanently denied: reason=\"No\" message=\"why\"";
        assert_eq!(record.credentials().unwrap_err(), why);
    }

    #[test]
    fn keys_sign_requests_that_say_nothing() {
        for key_type in ["ECDSAP256", "ECDSAP384", "ED25519"] {
            let (key, proof) = key_and_proof(key_type).unwrap();
            assert!(key.starts_with("-----BEGIN PRIVATE KEY-----"));
            assert!(!proof.is_empty());
        }
        let refused = key_and_proof("RSA4096").unwrap_err().to_string();
        assert_eq!(refused, "while generating keypair: this kubelet makes no RSA4096 keys");
    }
}
