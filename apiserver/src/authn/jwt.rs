//! JSON Web Tokens, as far as Kubernetes makes them for ServiceAccounts: compact, signed, nothing encrypted.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

pub use super::keys::{PublicKey, SigningKey};

/// Why a key cannot be used, or a token is not good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes of a key.
    #[error("not a key that tokens can be signed or verified with: {0}")]
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

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
    /// What a reader must understand; this one understands nothing of the sort.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    crit: Vec<Value>,
}

/// A token with these claims, signed by `key`.
pub fn sign(key: &SigningKey, claims: &impl Serialize) -> Result<String, Error> {
    let part = |bytes: Vec<u8>| BASE64URL.encode(bytes);
    let header = Header { alg: key.public().algorithm().to_owned(), kid: key.id().to_owned(), crit: Vec::new() };
    let encode = |result: serde_json::Result<Vec<u8>>| result.map_err(|_| Error::Malformed);
    let signed =
        format!("{}.{}", part(encode(serde_json::to_vec(&header))?), part(encode(serde_json::to_vec(claims))?));
    let signature = key.signature(signed.as_bytes())?;
    Ok(format!("{signed}.{}", BASE64URL.encode(signature)))
}

/// The claims of a token that one of `keys` signed: the one that the token names, or any of its algorithm where it
/// names none.
pub fn verify<T: DeserializeOwned>(token: &str, keys: &[PublicKey]) -> Result<T, Error> {
    let (signed, signature) = token.rsplit_once('.').ok_or(Error::Malformed)?;
    let (header, claims) = signed.split_once('.').ok_or(Error::Malformed)?;
    let decode = |part: &str| BASE64URL.decode(part).map_err(|_| Error::Malformed);
    let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| Error::Malformed)?;
    if !header.crit.is_empty() {
        return Err(Error::Malformed);
    }
    let signature = decode(signature)?;
    let mut fitting =
        keys.iter().filter(|key| key.algorithm() == header.alg && (header.kid.is_empty() || header.kid == key.id()));
    if !fitting.any(|key| key.verify(signed.as_bytes(), &signature)) {
        return Err(Error::Signature);
    }
    serde_json::from_slice(&decode(claims)?).map_err(|_| Error::Malformed)
}

/// These keys as a JSON Web Key Set.
pub fn key_set(keys: &[PublicKey]) -> Value {
    json!({ "keys": keys.iter().map(PublicKey::to_jwk).collect::<Vec<_>>() })
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
        let token = sign(&key, &json!({ "iss": "me", "n": 1 })).expect("token");
        let keys = [key.public()];
        assert_eq!(verify(&token, &keys), Ok(json!({ "iss": "me", "n": 1 })));
        assert_eq!(unverified_issuer(&token).as_deref(), Some("me"));

        let parts: Vec<&str> = token.split('.').collect();
        let forged = BASE64URL.encode(r#"{"iss":"me","n":2}"#);
        let unsigned = BASE64URL.encode(r#"{"alg":"none"}"#);
        for (bad, expect) in [
            (format!("{}.{forged}.{}", parts[0], parts[2]), Error::Signature),
            (format!("{unsigned}.{}.", parts[1]), Error::Signature),
            (sign(&other, &json!({ "iss": "me" })).expect("token"), Error::Signature),
            (format!("{}.{}", parts[0], parts[1]), Error::Malformed),
            ("a.b.c".to_owned(), Error::Malformed),
            (String::new(), Error::Malformed),
        ] {
            assert_eq!(verify::<Value>(&bad, &keys), Err(expect), "{bad}");
        }
    }
}
