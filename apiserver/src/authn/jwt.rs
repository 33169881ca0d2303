//! JSON Web Tokens, as far as Kubernetes makes them: compact, signed with ES256 (P-256), nothing encrypted.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL};
use ring::{
    digest,
    rand::SystemRandom,
    signature::{self, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// The signature algorithm of every token.
pub const ALGORITHM: &str = "ES256";

/// `SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING …` up to the point: all public keys of this kind start so (RFC 5480).
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Why a key cannot be used, or a token is not good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes of a key.
    #[error("not a PKCS#8 document with a P-256 private key: {0}")]
    Key(String),
    /// The system's random source.
    #[error("no random numbers for a signature")]
    Random,
    /// Three dots, base64, JSON.
    #[error("not a signed token")]
    Malformed,
    /// The signature is not by this key.
    #[error("invalid signature")]
    Signature,
}

/// A private key that signs tokens, and its public half that verifies them.
#[derive(Clone)]
pub struct SigningKey {
    pair: Arc<EcdsaKeyPair>,
    id: Arc<str>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
}

impl SigningKey {
    /// A new private key as a PKCS#8 document (DER), to be kept secret and passed to [`SigningKey::from_pkcs8`].
    #[allow(clippy::disallowed_methods, reason = "ring takes no other source; no object holds the key")]
    pub fn generate_pkcs8() -> Result<Vec<u8>, Error> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| Error::Random)?;
        Ok(document.as_ref().to_vec())
    }

    /// Reads a PKCS#8 document (DER).
    #[allow(clippy::disallowed_methods, reason = "ring takes no other source; the blinding shows nowhere")]
    pub fn from_pkcs8(der: &[u8]) -> Result<SigningKey, Error> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &SystemRandom::new())
            .map_err(|error| Error::Key(error.to_string()))?;
        let spki = [&SPKI_PREFIX[..], pair.public_key().as_ref()].concat();
        let id = BASE64URL.encode(digest::digest(&digest::SHA256, &spki));
        Ok(SigningKey { pair: Arc::new(pair), id: id.into() })
    }

    /// The key's name in tokens and in the key set: a hash of the public key.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A signed token with these claims.
    #[allow(clippy::disallowed_methods, reason = "ring takes no other source; no object holds the signature")]
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, Error> {
        let part = |bytes: Vec<u8>| BASE64URL.encode(bytes);
        let header = Header { alg: ALGORITHM.to_owned(), kid: self.id.to_string() };
        let encode = |result: serde_json::Result<Vec<u8>>| result.map_err(|_| Error::Malformed);
        let signed =
            format!("{}.{}", part(encode(serde_json::to_vec(&header))?), part(encode(serde_json::to_vec(claims))?));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).map_err(|_| Error::Random)?;
        Ok(format!("{signed}.{}", BASE64URL.encode(signature.as_ref())))
    }

    /// The claims of a token that this key signed.
    pub fn verify<T: DeserializeOwned>(&self, token: &str) -> Result<T, Error> {
        let (signed, signature) = token.rsplit_once('.').ok_or(Error::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Error::Malformed)?;
        let decode = |part: &str| BASE64URL.decode(part).map_err(|_| Error::Malformed);
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| Error::Malformed)?;
        if header.alg != ALGORITHM || (!header.kid.is_empty() && header.kid != *self.id) {
            return Err(Error::Signature);
        }
        signature::UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key().as_ref())
            .verify(signed.as_bytes(), &decode(signature)?)
            .map_err(|_| Error::Signature)?;
        serde_json::from_slice(&decode(claims)?).map_err(|_| Error::Malformed)
    }

    /// The public key as a JSON Web Key Set.
    pub fn key_set(&self) -> Value {
        // An uncompressed point: one byte of form, then the coordinates.
        let point = &self.pair.public_key().as_ref()[1..];
        let (x, y) = point.split_at(point.len() / 2);
        json!({ "keys": [{
            "use": "sig", "kty": "EC", "kid": *self.id, "crv": "P-256", "alg": ALGORITHM,
            "x": BASE64URL.encode(x), "y": BASE64URL.encode(y),
        }] })
    }
}

/// The claim `iss` of a token whose signature nobody has looked at.
pub fn unverified_issuer(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Issued {
        iss: String,
    }
    let mut parts = token.split('.');
    let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return None;
    };
    serde_json::from_slice::<Issued>(&BASE64URL.decode(claims).ok()?).ok().map(|issued| issued.iss)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_key_signed_is_good() {
        let key = SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().expect("key")).expect("key");
        let other = SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().expect("key")).expect("key");
        let token = key.sign(&json!({ "iss": "me", "n": 1 })).expect("token");
        assert_eq!(key.verify(&token), Ok(json!({ "iss": "me", "n": 1 })));
        assert_eq!(unverified_issuer(&token).as_deref(), Some("me"));

        let parts: Vec<&str> = token.split('.').collect();
        let forged = BASE64URL.encode(r#"{"iss":"me","n":2}"#);
        let unsigned = BASE64URL.encode(r#"{"alg":"none"}"#);
        for (bad, expect) in [
            (format!("{}.{forged}.{}", parts[0], parts[2]), Error::Signature),
            (format!("{unsigned}.{}.", parts[1]), Error::Signature),
            (other.sign(&json!({ "iss": "me" })).expect("token"), Error::Signature),
            (format!("{}.{}", parts[0], parts[1]), Error::Malformed),
            ("a.b.c".to_owned(), Error::Malformed),
            (String::new(), Error::Malformed),
        ] {
            assert_eq!(key.verify::<Value>(&bad), Err(expect), "{bad}");
        }
    }

    #[test]
    fn the_key_set_holds_the_public_key_only() {
        let key = SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().expect("key")).expect("key");
        let set = key.key_set();
        assert_eq!(set["keys"][0]["kid"], key.id());
        assert_eq!(set["keys"][0]["x"].as_str().map(str::len), Some(43));
        assert!(set["keys"][0].get("d").is_none());
    }
}
