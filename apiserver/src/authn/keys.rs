//! Keys of ServiceAccount tokens: ECDSA over P-256 and P-384, and RSA, as `openssl` and kubeadm make them.
//!
//! A private key is a [`SigningKey`]; what is known of a key that only verifies is a [`PublicKey`]. Its name in tokens
//! (`kid`) is a hash of the public key, so that the two halves need not be told which belong together
//! (`pkg/serviceaccount/jwt.go`, `keyIDFromPublicKey`).

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL};
use ring::{
    digest,
    rand::SystemRandom,
    rsa,
    signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair, VerificationAlgorithm},
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer, pem::PemObject, pem::SectionKind};
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate};

use super::jwt::Error;

/// `1.2.840.113549.1.1.1` rsaEncryption, with its NULL parameter (RFC 8017).
const RSA: &[u8] = &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
/// `SEQUENCE { id-ecPublicKey, prime256v1 }` (RFC 5480).
const P256: &[u8] = &[
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03,
    0x01, 0x07,
];
/// `SEQUENCE { id-ecPublicKey, secp384r1 }` (RFC 5480).
const P384: &[u8] =
    &[0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];

/// A signature algorithm of tokens.
struct Algorithm {
    /// Its name in tokens.
    name: &'static str,
    /// Its `AlgorithmIdentifier`, by which its keys are known.
    identifier: &'static [u8],
    /// The curve's name in key sets; empty for RSA.
    curve: &'static str,
    verification: &'static dyn VerificationAlgorithm,
    signing: Option<&'static EcdsaSigningAlgorithm>,
}

static ALGORITHMS: [Algorithm; 3] = [
    Algorithm {
        name: "ES256",
        identifier: P256,
        curve: "P-256",
        verification: &signature::ECDSA_P256_SHA256_FIXED,
        signing: Some(&signature::ECDSA_P256_SHA256_FIXED_SIGNING),
    },
    Algorithm {
        name: "ES384",
        identifier: P384,
        curve: "P-384",
        verification: &signature::ECDSA_P384_SHA384_FIXED,
        signing: Some(&signature::ECDSA_P384_SHA384_FIXED_SIGNING),
    },
    Algorithm {
        name: "RS256",
        identifier: RSA,
        curve: "",
        verification: &signature::RSA_PKCS1_2048_8192_SHA256,
        signing: None,
    },
];

/// A key that verifies tokens.
#[derive(Clone)]
pub struct PublicKey {
    algorithm: &'static Algorithm,
    /// The content of the bit string: a point of the curve, or an `RSAPublicKey`.
    bytes: Arc<[u8]>,
    id: Arc<str>,
}

impl PublicKey {
    /// Reads a `SubjectPublicKeyInfo` (DER).
    pub fn from_spki(der: &[u8]) -> Result<PublicKey, Error> {
        let (_, parsed) = SubjectPublicKeyInfo::from_der(der).map_err(|error| Error::Key(error.to_string()))?;
        let bytes: &[u8] = &parsed.subject_public_key.data;
        // DER has one encoding for each value: the algorithm is the one with which the key encodes to the same bytes.
        let algorithm = ALGORITHMS.iter().find(|algorithm| spki(algorithm, bytes) == der);
        let algorithm = algorithm.ok_or_else(|| Error::Key("neither RSA nor ECDSA over P-256 or P-384".to_owned()))?;
        Ok(PublicKey::new(algorithm, bytes))
    }

    fn new(algorithm: &'static Algorithm, bytes: &[u8]) -> PublicKey {
        let id = BASE64URL.encode(digest::digest(&digest::SHA256, &spki(algorithm, bytes)));
        PublicKey { algorithm, bytes: bytes.into(), id: id.into() }
    }

    /// All keys of a PEM text: public keys, certificates, and the public halves of private keys, as
    /// `--service-account-key-file` takes them.
    pub fn from_pem(text: &str) -> Result<Vec<PublicKey>, Error> {
        let mut keys = Vec::new();
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
            let (kind, der) = section.map_err(|error| Error::Key(format!("PEM: {error}")))?;
            keys.push(match kind {
                SectionKind::PublicKey => PublicKey::from_spki(&SubjectPublicKeyInfoDer::from(der))?,
                SectionKind::Certificate => {
                    let certificate = CertificateDer::from(der);
                    let (_, parsed) =
                        X509Certificate::from_der(&certificate).map_err(|error| Error::Key(error.to_string()))?;
                    PublicKey::from_spki(parsed.tbs_certificate.subject_pki.raw)?
                }
                SectionKind::PrivateKey => SigningKey::from_der(&PrivateKeyDer::Pkcs8(der.into()))?.public(),
                SectionKind::RsaPrivateKey => SigningKey::from_der(&PrivateKeyDer::Pkcs1(der.into()))?.public(),
                SectionKind::EcPrivateKey => SigningKey::from_der(&PrivateKeyDer::Sec1(der.into()))?.public(),
                _ => continue,
            });
        }
        if keys.is_empty() { Err(Error::Key("no key in PEM form".to_owned())) } else { Ok(keys) }
    }

    /// The key's name in tokens and in key sets.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The name of its algorithm in tokens: `ES256`, `ES384`, `RS256`.
    pub fn algorithm(&self) -> &'static str {
        self.algorithm.name
    }

    /// Whether the signature of `signed` is by this key.
    pub fn verify(&self, signed: &[u8], signature: &[u8]) -> bool {
        signature::UnparsedPublicKey::new(self.algorithm.verification, &self.bytes).verify(signed, signature).is_ok()
    }

    /// The key as a JSON Web Key.
    pub fn to_jwk(&self) -> Value {
        let mut jwk = json!({ "use": "sig", "kid": *self.id, "alg": self.algorithm.name });
        if self.algorithm.curve.is_empty() {
            let (modulus, exponent) = self.rsa_numbers().unwrap_or_default();
            jwk["kty"] = json!("RSA");
            jwk["n"] = json!(BASE64URL.encode(modulus));
            jwk["e"] = json!(BASE64URL.encode(exponent));
        } else {
            // An uncompressed point: one byte of form, then the coordinates.
            let point = self.bytes.get(1..).unwrap_or_default();
            let (x, y) = point.split_at(point.len() / 2);
            jwk["kty"] = json!("EC");
            jwk["crv"] = json!(self.algorithm.curve);
            jwk["x"] = json!(BASE64URL.encode(x));
            jwk["y"] = json!(BASE64URL.encode(y));
        }
        jwk
    }

    /// Modulus and exponent of an RSA key, big-endian and without leading zeros.
    fn rsa_numbers(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let sequence = x509_parser::der_parser::parse_der(&self.bytes).ok()?.1;
        let numbers = sequence.as_sequence().ok()?;
        let number = |at: usize| {
            let bytes = numbers.get(at)?.as_slice().ok()?;
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            Some(bytes[zeros..].to_vec())
        };
        Some((number(0)?, number(1)?))
    }
}

#[derive(Clone)]
enum Pair {
    Ecdsa(Arc<EcdsaKeyPair>),
    Rsa(Arc<rsa::KeyPair>),
}

/// A private key that signs tokens, and its public half that verifies them.
#[derive(Clone)]
pub struct SigningKey {
    pair: Pair,
    public: PublicKey,
}

impl SigningKey {
    /// A new private key as a PKCS#8 document (DER), to be kept secret and passed to [`SigningKey::from_pkcs8`].
    #[allow(clippy::disallowed_methods, reason = "ring takes no other source; no object holds the key")]
    pub fn generate_pkcs8() -> Result<Vec<u8>, Error> {
        let algorithm = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).map_err(|_| Error::Random)?;
        Ok(document.as_ref().to_vec())
    }

    /// Reads a PKCS#8 document (DER).
    #[allow(clippy::disallowed_methods, reason = "ring takes no other source; the blinding shows nowhere")]
    pub fn from_pkcs8(der: &[u8]) -> Result<SigningKey, Error> {
        let random = SystemRandom::new();
        for algorithm in &ALGORITHMS {
            let Some(signing) = algorithm.signing else { continue };
            if let Ok(pair) = EcdsaKeyPair::from_pkcs8(signing, der, &random) {
                let public = PublicKey::new(algorithm, pair.public_key().as_ref());
                return Ok(SigningKey { pair: Pair::Ecdsa(Arc::new(pair)), public });
            }
        }
        Ok(Self::rsa(rsa::KeyPair::from_pkcs8(der).map_err(|error| Error::Key(error.to_string()))?))
    }

    /// Reads a private key in any form that PEM files have: PKCS#8, PKCS#1 (RSA), SEC 1 (EC).
    pub fn from_der(der: &PrivateKeyDer<'_>) -> Result<SigningKey, Error> {
        match der {
            PrivateKeyDer::Pkcs8(der) => Self::from_pkcs8(der.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(der) => {
                let pair = rsa::KeyPair::from_der(der.secret_pkcs1_der());
                Ok(Self::rsa(pair.map_err(|error| Error::Key(error.to_string()))?))
            }
            PrivateKeyDer::Sec1(der) => {
                // The same key in the envelope that says which curve it is of.
                let wrapped = |identifier| {
                    let key = tagged(0x04, &[der.secret_sec1_der()]);
                    Self::from_pkcs8(&tagged(0x30, &[&[0x02, 0x01, 0x00], identifier, &key]))
                };
                wrapped(P256).or_else(|_| wrapped(P384))
            }
            _ => Err(Error::Key("a form of private key that is not known".to_owned())),
        }
    }

    fn rsa(pair: rsa::KeyPair) -> SigningKey {
        let algorithm = &ALGORITHMS[ALGORITHMS.len() - 1];
        let public = PublicKey::new(algorithm, pair.public_key().as_ref());
        SigningKey { pair: Pair::Rsa(Arc::new(pair)), public }
    }

    /// The half that everybody may know.
    pub fn public(&self) -> PublicKey {
        self.public.clone()
    }

    /// The key's name in tokens and in the key set: a hash of the public key.
    pub fn id(&self) -> &str {
        self.public.id()
    }

    /// Signs these bytes.
    #[allow(clippy::disallowed_methods, reason = "ring takes no other source; no object holds the signature")]
    pub fn signature(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Ecdsa(pair) => {
                pair.sign(&random, message).map(|signature| signature.as_ref().to_vec()).map_err(|_| Error::Random)
            }
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&signature::RSA_PKCS1_SHA256, &random, message, &mut signature).map_err(|_| Error::Random)?;
                Ok(signature)
            }
        }
    }
}

/// A `SubjectPublicKeyInfo`; its bit string has no unused bits.
fn spki(algorithm: &Algorithm, bytes: &[u8]) -> Vec<u8> {
    tagged(0x30, &[algorithm.identifier, &tagged(0x03, &[&[0], bytes])])
}

/// A DER value of these parts.
fn tagged(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut out = vec![tag];
    match u8::try_from(content.len()) {
        Ok(short @ 0..=0x7f) => out.push(short),
        _ => {
            let length: Vec<u8> = content.len().to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
            out.push(0x80 | u8::try_from(length.len()).unwrap_or(u8::MAX));
            out.extend(length);
        }
    }
    out.extend(content);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::jwt::{sign, verify};

    const RSA_PKCS1: &str = include_str!("../../tests/data/service-account/rsa-pkcs1.key");
    const RSA_PUBLIC: &str = include_str!("../../tests/data/service-account/rsa.pub");
    const EC_SEC1: &str = include_str!("../../tests/data/service-account/p384-sec1.key");
    const EC_PUBLIC: &str = include_str!("../../tests/data/service-account/p384.pub");

    #[test]
    fn keys_of_openssl_sign_and_their_public_halves_verify() {
        for (private, public, algorithm) in [(RSA_PKCS1, RSA_PUBLIC, "RS256"), (EC_SEC1, EC_PUBLIC, "ES384")] {
            let private = PrivateKeyDer::from_pem_slice(private.as_bytes()).expect("a private key");
            let key = SigningKey::from_der(&private).expect("a signing key");
            let keys = PublicKey::from_pem(public).expect("a public key");
            assert_eq!((keys.len(), keys[0].algorithm()), (1, algorithm));
            assert_eq!(keys[0].id(), key.id(), "both halves have one name");
            let token = sign(&key, &json!({ "n": 1 })).expect("a token");
            assert_eq!(verify::<Value>(&token, &keys), Ok(json!({ "n": 1 })));
            let other = SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().expect("key")).expect("key");
            assert_eq!(verify::<Value>(&token, &[other.public()]), Err(Error::Signature));
        }
    }

    #[test]
    fn the_name_of_a_key_is_the_hash_that_kubernetes_takes() {
        // `openssl pkey -pubin -outform DER | sha256sum`, in base64url.
        let name = |text: &str| {
            let der = SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes()).expect("a public key");
            BASE64URL.encode(digest::digest(&digest::SHA256, &der))
        };
        for text in [RSA_PUBLIC, EC_PUBLIC] {
            assert_eq!(PublicKey::from_pem(text).expect("a key")[0].id(), name(text));
        }
    }

    #[test]
    fn key_sets_hold_public_numbers_only() {
        let rsa = PublicKey::from_pem(RSA_PUBLIC).expect("a key")[0].to_jwk();
        assert_eq!((rsa["kty"].as_str(), rsa["e"].as_str()), (Some("RSA"), Some("AQAB")));
        assert_eq!(rsa["n"].as_str().map(str::len), Some(342), "2048 bits");
        let ec = PublicKey::from_pem(EC_PUBLIC).expect("a key")[0].to_jwk();
        assert_eq!((ec["crv"].as_str(), ec["x"].as_str().map(str::len)), (Some("P-384"), Some(64)));
        assert!(ec.get("d").is_none() && rsa.get("d").is_none());
    }
}
