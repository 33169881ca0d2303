//! Who is it? [`Authenticator::authenticate`] turns what a request carries into a [`UserInfo`].
//!
//! ```text
//!  in-process extension ─► proxy's headers ─► client certificate
//!    ─► bearer token (static, ServiceAccount, bootstrap, OpenID Connect) ─► anonymous
//! ```
//! The first credential that is good decides. Bad credentials are never anonymous: they get 401. The identity of an
//! in-process caller is a [`UserInfo`] in the request's extensions, where nothing that comes from a connection can put one.
//!
//! Mirrors `pkg/kubeapiserver/authenticator/config.go` and `k8s.io/apiserver/pkg/authentication/request`.

mod bootstrap_token;
pub mod configuration;
pub mod jwt;
mod keys;
pub mod legacy_token;
pub mod oidc;
mod request_header;
pub mod service_account;
mod static_token;
#[cfg(test)]
mod tests;
pub mod x509;

pub use bootstrap_token::BootstrapTokens;
pub use request_header::{Proxies, RequestHeaders};
pub use service_account::ServiceAccountTokens;
pub use static_token::{BadTokenFile, StaticTokens};
pub use x509::{ClientCertificates, PeerCertificates};

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, header};
use minik8s_api::status::Status;
use rustls::server::danger::ClientCertVerifier;

use self::configuration::Anonymous;
use self::oidc::OidcAuthenticator;
use crate::identity::UserInfo;

/// A token longer than this is no token (ServiceAccount tokens have about 1 KiB).
const MAX_TOKEN_BYTES: usize = 16 << 10;
/// Browsers cannot set `Authorization` on a WebSocket; the token comes as one of the protocols offered.
const WEBSOCKET_TOKEN_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// What a credential turned out to be: nothing this authenticator knows (`Ok(None)`), good, or bad for a reason that is
/// logged and never sent.
pub type Outcome<T> = Result<Option<T>, String>;

/// A user a token speaks for, and the audiences it was made for (none: any).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenUser {
    /// Who.
    pub user: UserInfo,
    /// For whom the token was made, of those asked for.
    pub audiences: Vec<String>,
}

/// Decides who sends a request.
pub struct Authenticator {
    /// Proxies that say in headers who asks; without any, such headers mean nothing.
    pub proxies: Option<Proxies>,
    /// The cluster's client CA; without one, no client certificate is good.
    pub certificates: Option<ClientCertificates>,
    /// Tokens of a file.
    pub static_tokens: StaticTokens,
    /// Tokens this server signed.
    pub service_accounts: ServiceAccountTokens,
    /// Tokens kept as secrets, for nodes that join.
    pub bootstrap_tokens: BootstrapTokens,
    /// Tokens that others signed.
    pub issuers: Vec<OidcAuthenticator>,
    /// Who may come without credentials; without a word on it, all may.
    pub anonymous: Option<Anonymous>,
}

impl Authenticator {
    /// Reads the credentials of a request and takes them away, so that nothing behind it sees a secret.
    pub async fn authenticate(&self, request: &mut http::request::Parts) -> Result<UserInfo, Status> {
        if let Some(user) = request.extensions.get::<UserInfo>() {
            return Ok(user.clone());
        }
        let mut bad = None;
        if let Some(proxies) = &self.proxies {
            let peer = request.extensions.get::<PeerCertificates>().cloned();
            match proxies.authenticate(peer.as_ref(), &mut request.headers) {
                Ok(Some(user)) => return Ok(user.authenticated()),
                Ok(None) => {}
                Err(reason) => bad = Some(reason),
            }
        }
        if let (Some(certificates), Some(peer)) = (&self.certificates, request.extensions.get::<PeerCertificates>()) {
            match certificates.authenticate(peer) {
                Ok(Some(user)) => return Ok(user.authenticated()),
                Ok(None) => {}
                Err(reason) => bad = Some(reason),
            }
        }
        if let Some(token) = bearer_token(&mut request.headers) {
            match self.authenticate_token(&token, self.service_accounts.audiences()).await {
                Ok(Some(found)) => return Ok(found.user),
                Ok(None) => bad = Some("invalid bearer token".to_owned()),
                Err(reason) => bad = Some(reason),
            }
        }
        match bad {
            None if self.may_be_anonymous(request.uri.path()) => Ok(UserInfo::anonymous()),
            None => Err(Status::unauthorized("Unauthorized")),
            Some(reason) => {
                tracing::debug!(reason, "unable to authenticate the request");
                Err(Status::unauthorized("Unauthorized"))
            }
        }
    }

    /// What a TLS configuration takes as its verifier of client certificates; nothing where no certificate is good.
    pub fn handshake_verifier(&self) -> Option<Arc<dyn ClientCertVerifier>> {
        let proxies = self.proxies.as_ref().map(Proxies::certificates);
        let judges: Vec<&ClientCertificates> = self.certificates.iter().chain(proxies).collect();
        x509::handshake_verifier(&judges)
    }

    /// Who a bearer token speaks for, if it is good for one of `audiences`.
    pub async fn authenticate_token(&self, token: &str, audiences: &[String]) -> Outcome<TokenUser> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err("the token is too long".to_owned());
        }
        let any_audience = |user: UserInfo| TokenUser { user: user.authenticated(), audiences: audiences.to_vec() };
        if let Some(user) = self.static_tokens.authenticate(token) {
            return Ok(Some(any_audience(user)));
        }
        if let Some(found) = self.service_accounts.authenticate(token, audiences)? {
            return Ok(Some(TokenUser { user: found.user.authenticated(), audiences: found.audiences }));
        }
        if let Some(user) = self.bootstrap_tokens.authenticate(token)? {
            return Ok(Some(any_audience(user)));
        }
        self.authenticate_issued(token, audiences).await
    }

    /// A token of another issuer says who somebody is to this server, whatever audiences it names itself.
    async fn authenticate_issued(&self, token: &str, audiences: &[String]) -> Outcome<TokenUser> {
        let own = audiences.iter().filter(|audience| self.service_accounts.audiences().contains(audience));
        let audiences: Vec<String> = own.cloned().collect();
        let issuer = self.issuers.iter().find(|issuer| issuer.issued(token)).filter(|_| !audiences.is_empty());
        let Some(issuer) = issuer else { return Ok(None) };
        let user = issuer.authenticate(token).await?;
        Ok(Some(TokenUser { user: user.authenticated(), audiences }))
    }

    fn may_be_anonymous(&self, path: &str) -> bool {
        self.anonymous.as_ref().is_none_or(|anonymous| {
            let conditions = &anonymous.conditions;
            anonymous.enabled && (conditions.is_empty() || conditions.iter().any(|condition| condition.path == path))
        })
    }
}

/// The bearer token of a request, from `Authorization` or a WebSocket's protocols, and the header without it.
fn bearer_token(headers: &mut HeaderMap) -> Option<String> {
    if let Some(value) = headers.remove(header::AUTHORIZATION) {
        let (scheme, token) = value.to_str().ok()?.trim().split_once(' ')?;
        let token = token.trim_start_matches(' ').split(' ').next().unwrap_or_default();
        return (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned());
    }
    let offered = headers.get(header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?.to_owned();
    let (tokens, others): (Vec<&str>, Vec<&str>) =
        offered.split(',').map(str::trim).partition(|protocol| protocol.starts_with(WEBSOCKET_TOKEN_PREFIX));
    let [token] = tokens[..] else { return None };
    let token = BASE64_URL_SAFE_NO_PAD.decode(&token[WEBSOCKET_TOKEN_PREFIX.len()..]).ok()?;
    match HeaderValue::from_str(&others.join(", ")) {
        Ok(rest) if !others.is_empty() => headers.insert(header::SEC_WEBSOCKET_PROTOCOL, rest),
        _ => headers.remove(header::SEC_WEBSOCKET_PROTOCOL),
    };
    String::from_utf8(token).ok()
}
