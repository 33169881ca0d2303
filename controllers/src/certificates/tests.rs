//! The rules of signers, what a certificate says, how long it lives, and how long a request stays.

#![allow(clippy::disallowed_methods, reason = "keys of tests may come from anywhere")]

use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use minik8s_api::certificate_request::{CertificateRequest, Subject};
use minik8s_clock::Random;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, PublicKeyData};
use serde_json::json;
use x509_parser::pem::Pem;

use super::authority::{AuthorityError, CertificateAuthority};
use super::{cleaner, signer};

/// 2026-01-01.
const NOW: i64 = 1_767_225_600;
const HOUR: i64 = 60 * 60;
const DAY: i64 = 24 * HOUR;

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

/// An authority that is valid for some seconds from [`NOW`], and its certificate.
fn authority(seconds: i64, algorithm: &'static rcgen::SignatureAlgorithm) -> (CertificateAuthority, String) {
    let key = KeyPair::generate_for(algorithm).expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let at = |seconds| time::OffsetDateTime::from_unix_timestamp(NOW + seconds).expect("a time");
    (params.not_before, params.not_after) = (at(-DAY), at(seconds));
    let pem = params.self_signed(&key).expect("a certificate").pem();
    (CertificateAuthority::from_pem(&pem, &key.serialize_pem()).expect("an authority"), pem)
}

/// A request with names, of a subject that rcgen itself cannot write.
fn request() -> CertificateRequest {
    let params = CertificateParams::new(words(&["node-1", "10.0.0.1", "::1"])).expect("names");
    let pem = params.serialize_request(&KeyPair::generate().expect("a key")).expect("a request").pem().expect("PEM");
    let mut request = CertificateRequest::from_pem(pem.as_bytes()).expect("a request");
    request.subject = Subject {
        common_name: "system:node:node-1".to_owned(),
        organization: words(&["system:nodes", "dev"]),
        ..Subject::default()
    };
    request
}

fn validity(pem: &str) -> (i64, i64) {
    let block = Pem::iter_from_buffer(pem.as_bytes()).next().expect("a block").expect("PEM");
    let certificate = block.parse_x509().expect("a certificate");
    (certificate.validity().not_before.timestamp(), certificate.validity().not_after.timestamp())
}

#[test]
fn a_certificate_says_what_was_asked_and_is_signed() {
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let (authority, ca) = authority(3650 * DAY, algorithm);
        let (request, random) = (request(), Random::seeded(1));
        let usages = words(&["client auth", "digital signature", "decipher only"]);
        let pem = authority.sign(&request, &usages, None, NOW, &random).expect("a certificate");
        let block = Pem::iter_from_buffer(pem.as_bytes()).next().expect("a block").expect("PEM");
        let certificate = block.parse_x509().expect("a certificate");
        let ca = Pem::iter_from_buffer(ca.as_bytes()).next().expect("a block").expect("PEM");
        let ca = ca.parse_x509().expect("a certificate");
        certificate.verify_signature(Some(ca.public_key())).expect("signed by the authority");
        assert_eq!(certificate.issuer().as_raw(), ca.subject().as_raw());
        assert_eq!(certificate.public_key().raw, request.public_key);

        let subject = certificate.subject();
        let organizations: Vec<_> = subject.iter_organization().map(|o| o.as_str().expect("text")).collect();
        assert_eq!(organizations, ["dev", "system:nodes"], "a set in DER is in order");
        assert_eq!(
            subject.iter_common_name().map(|n| n.as_str().expect("text")).collect::<Vec<_>>(),
            ["system:node:node-1"]
        );
        let names = certificate.subject_alternative_name().expect("one extension").expect("names");
        assert_eq!(names.value.general_names.len(), 3);
        let key_usage = certificate.key_usage().expect("one extension").expect("usages").value;
        assert!(key_usage.digital_signature() && key_usage.decipher_only() && !key_usage.key_encipherment());
        let extended = certificate.extended_key_usage().expect("one extension").expect("usages").value;
        assert!(extended.client_auth && !extended.server_auth);
        assert!(!certificate.is_ca());
    }
}

#[test]
fn a_certificate_lives_as_long_as_asked_and_never_past_the_authority() {
    let (long, _) = authority(3650 * DAY, &rcgen::PKCS_ECDSA_P256_SHA256);
    let (short, _) = authority(2 * HOUR, &rcgen::PKCS_ECDSA_P256_SHA256);
    let (request, random) = (request(), Random::seeded(1));
    let usages = words(&["client auth"]);
    let lives = |authority: &CertificateAuthority, seconds| {
        let (from, to) = validity(&authority.sign(&request, &usages, seconds, NOW, &random).expect("a certificate"));
        assert_eq!(from, NOW - 300);
        to - NOW
    };
    assert_eq!(lives(&long, None), 365 * DAY - 300);
    assert_eq!(lives(&long, Some(i32::MAX)), 365 * DAY - 300);
    assert_eq!(lives(&long, Some(3600)), HOUR, "short lives are not cut");
    assert_eq!(lives(&long, Some(1)), 600);
    assert_eq!(lives(&short, None), 2 * HOUR);
    let late = short.sign(&request, &usages, None, NOW + 2 * HOUR, &random);
    assert_eq!(late.unwrap_err().to_string(), "the signer has expired: NotAfter=2026-01-01T02:00:00Z");
}

#[test]
fn operators_say_how_long_certificates_live_at_most() {
    let (authority, _) = authority(3650 * DAY, &rcgen::PKCS_ECDSA_P256_SHA256);
    let authority = authority.signing_for(Duration::from_secs(HOUR.unsigned_abs()));
    let (request, random) = (request(), Random::seeded(1));
    let lives = |seconds| {
        let signed = authority.sign(&request, &words(&["client auth"]), seconds, NOW, &random);
        validity(&signed.expect("a certificate")).1 - NOW
    };
    assert_eq!((lives(None), lives(Some(7200)), lives(Some(1800))), (HOUR, HOUR, 1800));
}

/// The key as `openssl ecparam -genkey` writes it: the inner part of PKCS#8, after the parameters of its curve.
#[test]
fn keys_of_openssl_are_read() {
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384] {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let inner = yasna::parse_der(&key.serialize_der(), |reader| {
            reader.read_sequence(|reader| {
                reader.next().read_i64()?;
                reader.next().read_der()?;
                let inner = reader.next().read_bytes();
                // What else there is, the public key among it, stands in the inner part too.
                while reader.read_optional(|reader| reader.read_der())?.is_some() {}
                inner
            })
        });
        let block = |label: &str, der: &[u8]| {
            format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64_STANDARD.encode(der))
        };
        let pem = block("EC PARAMETERS", &[6, 1, 0]) + &block("EC PRIVATE KEY", &inner.expect("PKCS#8"));
        let certificate = CertificateParams::default().self_signed(&key).expect("a certificate").pem();
        CertificateAuthority::from_pem(&certificate, &pem).expect("an authority");
    }
    let none = CertificateAuthority::from_pem(&authority(DAY, &rcgen::PKCS_ECDSA_P256_SHA256).1, "");
    assert_eq!(none.unwrap_err().to_string(), "the key of the authority cannot be used: no private key in PEM form");
}

#[test]
fn the_key_must_be_the_authoritys() {
    let own = rcgen::generate_simple_self_signed(words(&["ca"])).expect("a certificate");
    let other = KeyPair::generate().expect("a key");
    let refused = CertificateAuthority::from_pem(&own.cert.pem(), &other.serialize_pem());
    assert!(matches!(refused, Err(AuthorityError::Mismatch)));
    assert_ne!(own.signing_key.subject_public_key_info(), other.subject_public_key_info());
}

#[test]
fn signers_have_rules() {
    let node = |change: fn(&mut CertificateRequest)| {
        let mut request = request();
        request.subject.organization = words(&["system:nodes"]);
        change(&mut request);
        request
    };
    let (client, serving) = (
        words(&["client auth", "digital signature", "key encipherment"]),
        words(&["server auth", "digital signature"]),
    );
    let nameless = |request: &mut CertificateRequest| {
        request.dns_names.clear();
        request.ip_addresses.clear();
    };
    let any: fn(&mut CertificateRequest) = |_| {};
    const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
    const KUBELET: &str = "kubernetes.io/kube-apiserver-client-kubelet";
    const SERVING: &str = "kubernetes.io/kubelet-serving";
    for (signer, request, usages, expect) in [
        (CLIENT, node(any), &client, ""),
        (CLIENT, node(any), &serving, "invalid usage for client certificate: server auth"),
        (
            CLIENT,
            node(any),
            &words(&["digital signature"]),
            "missing required usage for client certificate: client auth",
        ),
        (KUBELET, node(nameless), &client, ""),
        (KUBELET, node(nameless), &words(&["client auth", "digital signature"]), ""),
        (KUBELET, node(nameless), &serving, "usages did not match [client auth digital signature key encipherment]"),
        (KUBELET, node(any), &client, "DNS subjectAltNames are not allowed"),
        (KUBELET, node(|r| r.dns_names.clear()), &client, "IP subjectAltNames are not allowed"),
        (
            KUBELET,
            node(|r| r.subject.organization.push("dev".to_owned())),
            &client,
            "subject organization is not system:nodes",
        ),
        (SERVING, node(any), &serving, ""),
        (SERVING, node(nameless), &serving, "DNS or IP subjectAltName is required"),
        (SERVING, node(any), &client, "usages did not match [digital signature key encipherment server auth]"),
        (
            SERVING,
            node(|r| r.subject.common_name = "node-1".to_owned()),
            &serving,
            "subject common name does not begin with system:node:",
        ),
        ("kubernetes.io/legacy-unknown", node(any), &words(&["any"]), ""),
    ] {
        let checked = signer::check(signer, &request, usages).expect("one of Kubernetes' signers");
        assert_eq!(checked.err().unwrap_or_default(), expect, "{signer} {usages:?}");
    }
    assert!(signer::check("example.com/own", &request(), &client).is_none());
}

#[test]
fn a_request_goes_some_time_after_its_decision() {
    let at = |kind: &str, certificate: &str| -> CertificateSigningRequest {
        let mut value = json!({
            "metadata": { "creationTimestamp": "2026-01-01T00:00:00Z" },
            "spec": { "request": "", "signerName": "a.b/c" },
            "status": { "conditions": [] },
        });
        if !kind.is_empty() {
            value["status"]["conditions"] =
                json!([{ "type": kind, "status": "True", "lastUpdateTime": "2026-01-01T01:00:00Z" }]);
        }
        if !certificate.is_empty() {
            use base64::Engine as _;
            value["status"]["certificate"] = json!(base64::prelude::BASE64_STANDARD.encode(certificate));
        }
        serde_json::from_value(value).expect("a request")
    };
    let (authority, _) = authority(DAY, &rcgen::PKCS_ECDSA_P256_SHA256);
    let random = Random::seeded(1);
    let short = authority.sign(&request(), &words(&["client auth"]), Some(4200), NOW, &random).expect("a certificate");
    for (request, expect) in [
        (at("", ""), DAY),
        (at("Denied", ""), 2 * HOUR),
        (at("Failed", ""), 2 * HOUR),
        (at("Approved", ""), HOUR + DAY),
        (at("Approved", "not a certificate"), 2 * HOUR),
        (at("Approved", &short), 4200),
    ] {
        assert_eq!(cleaner::goes_at(&request), Some(NOW + expect), "{request:?}");
    }
}
