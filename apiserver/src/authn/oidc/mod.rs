//! OpenID Connect: tokens that somebody else issues (`k8s.io/apiserver/plugin/pkg/authenticator/token/oidc`).
//!
//! ```text
//!  token ─ iss is ours? ─► algorithm, signature (keys) ─► aud, exp, nbf ─► claims ─ mappings ─► user ─ rules ─► in
//! ```
//! [`jws`] verifies signatures, [`keys`] fetches what they are verified with, [`claims`] makes a user.
//!
//! # Left out, compared with Kubernetes
//! - Distributed claims (`_claim_names`): a groups claim must stand in the token itself.
//! - ES512; redirects of the issuer; egress selectors.

pub mod claims;
pub mod jws;
mod keys;

use serde_json::{Map, Value};

use self::claims::Mapper;
use self::jws::{Algorithm, Token};
use self::keys::RemoteKeys;
use super::configuration::JwtAuthenticator;
use super::jwt::unverified_issuer;
use crate::identity::UserInfo;
use crate::outgoing::Outgoing;
use crate::outgoing::tls::{self, Trust};

/// A token may come from a clock that is ahead by this much.
const NOT_BEFORE_LEEWAY_SECONDS: f64 = 300.0;

/// One issuer whose tokens are good.
pub struct OidcAuthenticator {
    issuer: String,
    audiences: Vec<String>,
    algorithms: Vec<Algorithm>,
    keys: RemoteKeys,
    mapper: Mapper,
    outgoing: Outgoing,
}

impl OidcAuthenticator {
    /// An issuer of a checked configuration.
    pub fn new(configuration: &JwtAuthenticator, outgoing: &Outgoing) -> Result<OidcAuthenticator, String> {
        let issuer = &configuration.issuer;
        let trust = match issuer.certificate_authority.as_str() {
            "" => Trust::World,
            pem => Trust::Pem(pem),
        };
        let tls = tls::connector(trust, None, outgoing.clock())?;
        let algorithms = match configuration.signing_algorithms.as_slice() {
            [] => Algorithm::ALL.to_vec(),
            some => some.to_vec(),
        };
        Ok(OidcAuthenticator {
            issuer: issuer.url.clone(),
            audiences: issuer.audiences.clone(),
            algorithms,
            keys: RemoteKeys::new(&issuer.url, &issuer.discovery_url, tls, outgoing.clone()),
            mapper: Mapper::new(configuration)?,
            outgoing: outgoing.clone(),
        })
    }

    /// Whether a token says that it is of this issuer.
    pub fn issued(&self, token: &str) -> bool {
        unverified_issuer(token).is_some_and(|issuer| issuer == self.issuer)
    }

    /// Who a token of this issuer speaks for.
    pub async fn authenticate(&self, token: &str) -> Result<UserInfo, String> {
        let verified = |words: String| format!("oidc: verify token: {words}");
        let token = Token::parse(token).map_err(verified)?;
        let algorithm = self.algorithms.iter().find(|algorithm| algorithm.name() == token.algorithm);
        let algorithm = *algorithm.ok_or_else(|| {
            let wanted: Vec<&str> = self.algorithms.iter().map(|algorithm| algorithm.name()).collect();
            let got = &token.algorithm;
            verified(format!("oidc: id token signed with unsupported algorithm, expected {wanted:?} got {got:?}"))
        })?;
        self.check_claims(&token.claims).map_err(verified)?;
        self.keys.verify(&token, algorithm).await.map_err(verified)?;
        self.mapper.user(&token.claims)
    }

    fn check_claims(&self, claims: &Map<String, Value>) -> Result<(), String> {
        let audiences: Vec<&str> = match claims.get("aud") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        if !audiences.iter().any(|audience| self.audiences.iter().any(|own| own == audience)) {
            return Err(format!("oidc: expected audience in {:?} got {audiences:?}", self.audiences));
        }
        let now = self.outgoing.clock().now().as_second() as f64;
        let moment = |claim: &str| claims.get(claim).and_then(Value::as_f64);
        match moment("exp") {
            Some(expiry) if now < expiry => {}
            Some(expiry) => return Err(format!("oidc: token is expired (Token Expiry: {expiry})")),
            None => return Err("oidc: token has no expiry".to_owned()),
        }
        if moment("nbf").is_some_and(|from| now + NOT_BEFORE_LEEWAY_SECONDS < from) {
            return Err("oidc: current time before the nbf (not before) time".to_owned());
        }
        Ok(())
    }
}
