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
    /// Nothing where they are not believed.
    pub bootstrap_tokens: Option<BootstrapTokens>,
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
        let token = bearer_token(&mut request.headers).unwrap_or_else(|reason| {
            bad = Some(reason);
            None
        });
        if let Some(token) = token {
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
        // Tokens that name no audience are for this server, and so are those of other issuers, whatever they name.
        let own = self.service_accounts.audiences();
        let own: Vec<String> = audiences.iter().filter(|audience| own.contains(audience)).cloned().collect();
        let for_this_server = |user: UserInfo| TokenUser { user: user.authenticated(), audiences: own.clone() };
        if let Some(user) = self.static_tokens.authenticate(token).filter(|_| !own.is_empty()) {
            return Ok(Some(for_this_server(user)));
        }
        if let Some(found) = self.service_accounts.authenticate(token, audiences)? {
            return Ok(Some(TokenUser { user: found.user.authenticated(), audiences: found.audiences }));
        }
        if own.is_empty() {
            return Ok(None);
        }
        if let Some(tokens) = &self.bootstrap_tokens
            && let Some(user) = tokens.authenticate(token)?
        {
            return Ok(Some(for_this_server(user)));
        }
        let Some(issuer) = self.issuers.iter().find(|issuer| issuer.issued(token)) else { return Ok(None) };
        Ok(Some(for_this_server(issuer.authenticate(token).await?)))
    }

    fn may_be_anonymous(&self, path: &str) -> bool {
        self.anonymous.as_ref().is_none_or(|anonymous| {
            let conditions = &anonymous.conditions;
            anonymous.enabled && (conditions.is_empty() || conditions.iter().any(|condition| condition.path == path))
        })
    }
}

/// The bearer token of a request, from `Authorization` or a WebSocket's protocols, and the headers without it.
fn bearer_token(headers: &mut HeaderMap) -> Outcome<String> {
    if let Some(value) = headers.remove(header::AUTHORIZATION) {
        let value = String::from_utf8_lossy(value.as_bytes());
        let Some((scheme, token)) = value.trim().split_once(' ') else { return Ok(None) };
        // What begins with more space is ignored, and what follows the token.
        let token = token.split(' ').next().unwrap_or_default();
        return Ok((scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned()));
    }
    let is_web_socket =
        headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    if !is_web_socket {
        return Ok(None);
    }
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).into_iter().filter_map(|value| value.to_str().ok());
    let offered: Vec<String> =
        offered.flat_map(|value| value.split(',')).map(|protocol| protocol.trim().to_owned()).collect();
    let (tokens, others): (Vec<&str>, Vec<&str>) =
        offered.iter().map(String::as_str).partition(|protocol| protocol.starts_with(WEBSOCKET_TOKEN_PREFIX));
    let token = match tokens[..] {
        [] => return Ok(None),
        [token] => &token[WEBSOCKET_TOKEN_PREFIX.len()..],
        _ => return Err("several tokens among the protocols".to_owned()),
    };
    let token = BASE64_URL_SAFE_NO_PAD.decode(token).map_err(|_| "a token that is not in base64".to_owned())?;
    let token = String::from_utf8(token).map_err(|_| "a token that is no text".to_owned())?;
    if token.is_empty() {
        return Ok(None);
    }
    // One protocol has to be left, to be answered with.
    let rest = Some(others.join(", ")).filter(|_| !others.is_empty());
    let rest = rest.and_then(|rest| HeaderValue::from_str(&rest).ok());
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, rest.ok_or("no protocol but the token")?);
    Ok(Some(token))
}
