//! Signatures of other people's tokens: JSON Web Keys, and what they sign (RFC 7515, 7517, 7518).

use std::fmt;
use std::str::FromStr;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;

/// Keys of one issuer that are looked at.
const MAX_KEYS: usize = 256;

/// An algorithm of signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSA PKCS #1 with SHA-256.
    Rs256,
    /// With SHA-384.
    Rs384,
    /// With SHA-512.
    Rs512,
    /// P-256 with SHA-256.
    Es256,
    /// P-384 with SHA-384.
    Es384,
    /// RSA PSS with SHA-256.
    Ps256,
    /// With SHA-384.
    Ps384,
    /// With SHA-512.
    Ps512,
}

/// An algorithm that no token is verified by.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("oidc: unsupported signing alg: {0:?}")]
pub struct UnsupportedAlgorithm(String);

impl Algorithm {
    /// All of them. Of Kubernetes' own, ES512 is missing: the cryptography at hand has no P-521.
    pub const ALL: [Algorithm; 8] = [
        Algorithm::Rs256,
        Algorithm::Rs384,
        Algorithm::Rs512,
        Algorithm::Es256,
        Algorithm::Es384,
        Algorithm::Ps256,
        Algorithm::Ps384,
        Algorithm::Ps512,
    ];

    /// As tokens name it.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Rs256 => "RS256",
            Algorithm::Rs384 => "RS384",
            Algorithm::Rs512 => "RS512",
            Algorithm::Es256 => "ES256",
            Algorithm::Es384 => "ES384",
            Algorithm::Ps256 => "PS256",
            Algorithm::Ps384 => "PS384",
            Algorithm::Ps512 => "PS512",
        }
    }

    fn rsa(self) -> Option<&'static RsaParameters> {
        Some(match self {
            Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
            Algorithm::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
            Algorithm::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
            Algorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
            Algorithm::Ps384 => &RSA_PSS_2048_8192_SHA384,
            Algorithm::Ps512 => &RSA_PSS_2048_8192_SHA512,
            Algorithm::Es256 | Algorithm::Es384 => return None,
        })
    }
}

impl FromStr for Algorithm {
    type Err = UnsupportedAlgorithm;

    fn from_str(name: &str) -> Result<Algorithm, UnsupportedAlgorithm> {
        let found = Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name);
        found.ok_or_else(|| UnsupportedAlgorithm(name.to_owned()))
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A token in its three parts, not verified.
pub struct Token<'a> {
    /// What is signed.
    signed: &'a str,
    signature: Vec<u8>,
    /// The algorithm it names.
    pub algorithm: String,
    /// The key it names, if it does.
    pub key_id: String,
    /// The claims, to be believed after [`KeySet::verifies`].
    pub claims: serde_json::Map<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
    /// Extensions that must be understood; none is.
    #[serde(default)]
    crit: Vec<String>,
}

impl<'a> Token<'a> {
    /// Takes a token apart.
    pub fn parse(token: &'a str) -> Result<Token<'a>, String> {
        let malformed = || "oidc: malformed jwt".to_owned();
        let (signed, signature) = token.rsplit_once('.').ok_or_else(malformed)?;
        let (header, claims) = signed.split_once('.').ok_or_else(malformed)?;
        let decode = |part: &str| BASE64URL.decode(part).map_err(|error| format!("oidc: malformed jwt: {error}"));
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| malformed())?;
        if !header.crit.is_empty() {
            return Err(format!("oidc: malformed jwt: unsupported crit header {:?}", header.crit));
        }
        let claims = serde_json::from_slice(&decode(claims)?).map_err(|_| malformed())?;
        Ok(Token { signed, signature: decode(signature)?, algorithm: header.alg, key_id: header.kid, claims })
    }
}

/// The public keys of an issuer.
#[derive(Debug, Default)]
pub struct KeySet(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: String,
    /// The only algorithm it is for, if it says so.
    algorithm: Option<String>,
    material: Material,
}

#[derive(Debug)]
enum Material {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// An uncompressed point.
    P256(Vec<u8>),
    P384(Vec<u8>),
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Jwk {
    kty: String,
    kid: String,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    crv: String,
    n: String,
    e: String,
    x: String,
    y: String,
}

impl KeySet {
    /// Reads a JSON Web Key Set. Keys of kinds that are not known, or that are not for signatures, are passed over, as
    /// RFC 7517 (5) asks.
    pub fn parse(json: &[u8]) -> Result<KeySet, String> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Jwk>,
        }
        let set: Set = serde_json::from_slice(json).map_err(|error| format!("oidc: failed to decode keys: {error}"))?;
        Ok(KeySet(set.keys.into_iter().filter_map(Key::of).take(MAX_KEYS).collect()))
    }

    /// Whether one of the keys signed the token by `algorithm`; a token that names a key means that one.
    pub fn verifies(&self, token: &Token<'_>, algorithm: Algorithm) -> bool {
        let named = |key: &&Key| token.key_id.is_empty() || key.id == token.key_id;
        self.0.iter().filter(named).any(|key| key.verifies(token, algorithm))
    }
}

impl Key {
    fn of(jwk: Jwk) -> Option<Key> {
        if jwk.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let bytes = |text: &str| BASE64URL.decode(text.trim_end_matches('=')).ok().filter(|bytes| !bytes.is_empty());
        let point = |length: usize| {
            let (x, y) = (bytes(&jwk.x)?, bytes(&jwk.y)?);
            (x.len() == length && y.len() == length).then(|| [&[4][..], &x, &y].concat())
        };
        let material = match (jwk.kty.as_str(), jwk.crv.as_str()) {
            ("RSA", _) => {
                let strip = |bytes: Vec<u8>| bytes.into_iter().skip_while(|byte| *byte == 0).collect();
                Material::Rsa { modulus: strip(bytes(&jwk.n)?), exponent: strip(bytes(&jwk.e)?) }
            }
            ("EC", "P-256") => Material::P256(point(32)?),
            ("EC", "P-384") => Material::P384(point(48)?),
            _ => return None,
        };
        Some(Key { id: jwk.kid, algorithm: jwk.alg.filter(|alg| !alg.is_empty()), material })
    }

    fn verifies(&self, token: &Token<'_>, algorithm: Algorithm) -> bool {
        if self.algorithm.as_deref().is_some_and(|own| own != algorithm.name()) {
            return false;
        }
        let (signed, signature) = (token.signed.as_bytes(), &token.signature);
        match (&self.material, algorithm) {
            (Material::Rsa { modulus, exponent }, _) => algorithm.rsa().is_some_and(|parameters| {
                let key = RsaPublicKeyComponents { n: modulus, e: exponent };
                key.verify(parameters, signed, signature).is_ok()
            }),
            (Material::P256(point), Algorithm::Es256) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed, signature).is_ok()
            }
            (Material::P384(point), Algorithm::Es384) => {
                UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).verify(signed, signature).is_ok()
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::authn::jwt::{self, SigningKey};

    #[test]
    fn only_what_a_key_of_the_set_signed_is_good() {
        let key = SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().expect("key")).expect("key");
        let other = SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().expect("key")).expect("key");
        let set = KeySet::parse(jwt::key_set(&[key.public()]).to_string().as_bytes()).expect("keys");
        let text = jwt::sign(&key, &json!({ "iss": "me" })).expect("token");
        let token = Token::parse(&text).expect("token");
        assert_eq!((token.algorithm.as_str(), &token.claims["iss"]), ("ES256", &json!("me")));
        assert!(set.verifies(&token, Algorithm::Es256));
        assert!(!set.verifies(&token, Algorithm::Rs256), "a key is for its own kind of signature");
        let text = jwt::sign(&other, &json!({ "iss": "me" })).expect("token");
        assert!(!set.verifies(&Token::parse(&text).expect("token"), Algorithm::Es256));
        let odd =
            json!({ "keys": [{ "kty": "oct", "k": "x" }, { "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA" }] });
        assert!(KeySet::parse(odd.to_string().as_bytes()).expect("keys").0.is_empty());
        assert!(KeySet::parse(b"[]").is_err());
    }

    /// Made with openssl.
    #[test]
    fn signatures_of_every_kind_are_verified() {
        let keys = json!({ "keys": [
            { "kty": "RSA", "kid": "rsa", "use": "sig", "e": "AQAB", "n": "zsy9-PPBVegCOAuiVI5_q8oftHbzybfuz-Vhf2zyiBoFXQXIUikgchKGb1syxhGlILDQpw-Vfek6rXEtMijYif4Ns3PkMe3fbMXmBd0xvyCWeDht-yV98RiPuMGW3K1ZrYKhz66LG35bL506xVZBL8Le42FOf8IaHQCLA-taEc1FqamzABV23YIxUidLiC10hqbeW4TjHjO-8bLT_BXGSLQoD6Q9IEl4dwAG1TNIT1aODPEUQR3mHlOFwXbAm1Pxp7huyg3wWK9lzbAwSgCpWQUsXbI8AypP9aoMIydlRzbSJUIhXk13GnDiFgw7rbj-NW3WOPCpVi4dOf2F5al0Mw" },
            { "kty": "EC", "crv": "P-384", "x": "lb_beQADUdV5NI9fKG-tJVQ1H_h8d2kHnIJRm9eFHeJOWFF22oXz3fPYWi5CBNuR", "y": "wtNd68zRXgQr5pICbC56nutC3gc2bXtIcU6Huw087lDy4Wn4_JbKdlKgM7DPn3Eh" },
        ] });
        let set = KeySet::parse(keys.to_string().as_bytes()).expect("keys");
        for (algorithm, text) in [
            (
                Algorithm::Rs256,
                "eyJhbGciOiAiUlMyNTYiLCAia2lkIjogInJzYSJ9.eyJpc3MiOiJtZSJ9.LF5oQ0FgJkZtDPyi4UrHBh4beQintkzr_cyQRbC1ZZUymkwq_ekp8BrqN5cLo72WuTTHhrLzcMfSTa9MnALC00U610l7rRxfMgQy5wBzYxQCkRlgUEvyN_tJF13QZWkz674rydu8oGNNjCcOswZqyawNOxvM9UEmQxf3KfbgMDA9MyQc-ESEVAzr01uGgZ-8XpxKO1zYiIzrkpRVam11QXiz0ZvEmaIgpOUzDMfQH1YM2zKeM7i231T9eSljbN_W-0Vltn3xu4REpyO8MX_cWjKSMb26nX2Xac5sCL8R08EE6aWnqqfAfCWyVbRyLx3SZ75tQMYGIpa3f1D8zsbz-g",
            ),
            (
                Algorithm::Rs512,
                "eyJhbGciOiAiUlM1MTIiLCAia2lkIjogInJzYSJ9.eyJpc3MiOiJtZSJ9.CRP8Dx0Ft9ce7nVSkxZNAd5adtld2Z8tQWv8gbNr7lNAHZrl6Rq-oSIRL-U6VdBVW5nmQnpcWOB-0jSbpcvU1shbaBIa93Sb-U5FxTk4UtrY3JWCvQlCuRuCFSmks9sabjnJetIMlox-MWCQqAltjLMjFin6jk_BCulezztWSKeJ33vumIJgZRzXKRnrTKASRh-uArEbTnRzUFxxb1hSzHOTcyKNPywZo4arDD3C2aijMQ_MhC-ndQrmxQMDLFTpCG4_C7V9FWcrxCPIToED4DibZBsf7UZcmjWKRCjprZKktUyWF8cG7VVDXWiUen88P67-t3oI3roIwZeFXA7bcg",
            ),
            (
                Algorithm::Ps384,
                "eyJhbGciOiAiUFMzODQiLCAia2lkIjogInJzYSJ9.eyJpc3MiOiJtZSJ9.tnKu2SBPBD3OnuLyeuenQSUW2sXCwSq2WlnVVx9e5YRU23MEvqhOCb7k0jiycbVia4cI0a76kajH-3TT0PwO_ntQt0_07MnGvAKiVJ3EKzaRJS8O3SiS-B9oGRJS3jiX4GE_sL7Hv7pQnQj9thIiRuSbif_VsYAhHV6v4Of3YEJaB2IpFrpSmMqn2uydj0FYuUF2-buWTHrni5GsKuhXO9wJmGSrBfmWoUbClcnr3buvUL0kXfGqjgClQmp_hWRWr1wyTuXFaap4n3pIdXMghuQtOuNU9ZZVIPK68dOdKViTYjcgeXQX9XHCSLSEl8IiY_RowL2gwQvIDDgofL8AnQ",
            ),
            (
                Algorithm::Es384,
                "eyJhbGciOiJFUzM4NCJ9.eyJpc3MiOiJtZSJ9.yxoERAJtQT4PhMl37VrwxPH-KDtHYKwB6iTvg8G44q6GEHdOYS7NXsWMM3ctdAH730aeHZvGQCSds0XYMBjtQLEN9MgMf926nKs5RuCmOEPpNZvL_1NDhr3FTzGGRxLG",
            ),
        ] {
            assert!(set.verifies(&Token::parse(text).expect("a token"), algorithm), "{algorithm}");
            let payload = text.split('.').nth(1).expect("three parts");
            let forged = text.replace(payload, &BASE64URL.encode(r#"{"iss":"you"}"#));
            assert!(!set.verifies(&Token::parse(&forged).expect("a token"), algorithm), "{algorithm}");
        }
    }

    #[test]
    fn algorithms_have_names() {
        for algorithm in Algorithm::ALL {
            assert_eq!(algorithm.name().parse(), Ok(algorithm));
        }
        for name in ["none", "HS256", "ES512", ""] {
            assert!(name.parse::<Algorithm>().is_err(), "{name}");
        }
    }
}
