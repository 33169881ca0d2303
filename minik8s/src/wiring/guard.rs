//! Who may ask a component something on its own port: authentication and authorization as the API server says
//! (kubelet: `--authentication-token-webhook`, `--authorization-mode Webhook`; others: delegated authentication and
//! authorization).
//!
//! ```text
//!  client certificate of the CA ─► user ─┐
//!  bearer token ─► TokenReview ──► user ─┼─► SubjectAccessReview, one a question, until one is answered with yes
//!  nothing ─► anonymous, if allowed ─────┘
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::PostParams;
use minik8s_api::kinds::GroupResource;
use minik8s_api::status::Status;
use minik8s_apiserver::authn::{ClientCertificates, PeerCertificates};
use minik8s_apiserver::authz::{self, Attributes};
use minik8s_apiserver::identity::UserInfo;
use minik8s_client::Client;
use minik8s_clock::Clock;
use parking_lot::Mutex;
use rustls::server::danger::ClientCertVerifier;
use sha2::{Digest as _, Sha256};

use crate::pki;

/// How long a token is known to be good (`authentication.webhook.cacheTTL`).
const TOKEN_TTL: Duration = Duration::from_secs(120);
/// How long a yes holds (`authorization.webhook.cacheAuthorizedTTL`).
const YES_TTL: Duration = Duration::from_secs(300);
/// How long a no holds (`authorization.webhook.cacheUnauthorizedTTL`).
const NO_TTL: Duration = Duration::from_secs(30);
/// Answers that are remembered; the memory starts anew when it is full.
const MAX_REMEMBERED: usize = 4096;

/// What is asked of an authorizer about a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// May the user do `verb` on a subresource of this Node?
    Node {
        /// `get`, `create`, …
        verb: &'static str,
        /// `proxy`, `metrics`, …
        subresource: &'static str,
        /// The Node.
        name: String,
    },
    /// May the user do `verb` on this path?
    Path {
        /// The HTTP method in lower case.
        verb: String,
        /// The path.
        path: String,
    },
}

/// What a request asks for: one of the questions must be answered with yes; no question means that everybody may.
pub type Questions = Arc<dyn Fn(&http::request::Parts) -> Vec<Question> + Send + Sync>;

/// How requests are judged.
pub struct Rules {
    /// Whose client certificates are good (PEM); empty for nobody's.
    pub client_ca_pem: String,
    /// Whether requests without credentials are anonymous, rather than refused.
    pub anonymous: bool,
    /// Whether tokens are asked about.
    pub tokens: bool,
    /// Whether the API server is asked what users may; everything, otherwise.
    pub authorize: bool,
    /// Whether refusals are plain text, as a kubelet's are, rather than a `Status`.
    pub plain: bool,
    /// The questions about a request.
    pub questions: Questions,
}

/// Stands before a component's routes.
pub struct Guard {
    certificates: Option<ClientCertificates>,
    rules: Rules,
    client: Client,
    clock: Clock,
    tokens: Memory<[u8; 32], Option<UserInfo>>,
    verdicts: Memory<(String, Question), bool>,
}

impl Guard {
    /// A guard that asks through `client`.
    ///
    /// # Errors
    /// A client CA that cannot be used.
    pub fn new(rules: Rules, client: Client) -> Result<Arc<Self>> {
        let clock = client.clock().clone();
        let roots = pki::all_der(&rules.client_ca_pem)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certificates = match roots.is_empty() {
            true => None,
            false => Some(ClientCertificates::new(roots, provider, clock.clone()).map_err(|error| anyhow!("{error}"))?),
        };
        let (tokens, verdicts) = (Memory::default(), Memory::default());
        Ok(Arc::new(Self { certificates, rules, client, clock, tokens, verdicts }))
    }

    /// What the TLS settings take as the verifier of client certificates.
    pub fn handshake_verifier(&self) -> Option<Arc<dyn ClientCertVerifier>> {
        minik8s_apiserver::authn::x509::handshake_verifier(&self.certificates.iter().collect::<Vec<_>>())
    }

    /// The routes behind this guard.
    pub fn protect(self: &Arc<Self>, routes: Router) -> Router {
        routes.layer(from_fn_with_state(self.clone(), stand))
    }

    async fn judge(&self, request: &mut http::request::Parts) -> Result<(), Status> {
        let questions = (self.rules.questions)(request);
        if questions.is_empty() {
            return Ok(());
        }
        let user = self.authenticate(request).await?;
        if !self.rules.authorize {
            return Ok(());
        }
        for question in &questions {
            if self.allows(&user, question).await? {
                return Ok(());
            }
        }
        Err(forbidden(&user, &questions))
    }

    async fn authenticate(&self, request: &mut http::request::Parts) -> Result<UserInfo, Status> {
        let unauthorized = || Status::unauthorized("Unauthorized");
        let mut bad = false;
        if let (Some(certificates), Some(peer)) = (&self.certificates, request.extensions.get::<PeerCertificates>()) {
            match certificates.authenticate(peer) {
                Ok(Some(user)) => return Ok(user.authenticated()),
                Ok(None) => {}
                Err(_) => bad = true,
            }
        }
        let bearer = request.headers.remove(AUTHORIZATION);
        let token = bearer.as_ref().and_then(|value| value.to_str().ok()).and_then(|value| {
            let (scheme, token) = value.trim().split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
        });
        if let Some(token) = token.filter(|token| self.rules.tokens && !token.is_empty()) {
            return self.review(&token).await?.ok_or_else(unauthorized);
        }
        match self.rules.anonymous && !bad && bearer.is_none() {
            true => Ok(UserInfo::anonymous()),
            false => Err(unauthorized()),
        }
    }

    async fn review(&self, token: &str) -> Result<Option<UserInfo>, Status> {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let now = self.clock.monotonic();
        if let Some(known) = self.tokens.get(&digest, now) {
            return Ok(known);
        }
        let spec = TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let answer = self.client.all::<TokenReview>().create(&PostParams::default(), &review).await;
        let status = answer.map_err(|error| unreachable_api(&error))?.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true)).map(|user| UserInfo {
            name: user.username.unwrap_or_default(),
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        });
        self.tokens.put(digest, user.clone(), now + TOKEN_TTL);
        Ok(user)
    }

    async fn allows(&self, user: &UserInfo, question: &Question) -> Result<bool, Status> {
        let now = self.clock.monotonic();
        let key = (user.to_value().to_string(), question.clone());
        if let Some(known) = self.verdicts.get(&key, now) {
            return Ok(known);
        }
        let mut spec = SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            uid: Some(user.uid.clone()).filter(|uid| !uid.is_empty()),
            groups: Some(user.groups.clone()),
            extra: Some(user.extra.clone()).filter(|extra: &BTreeMap<_, _>| !extra.is_empty()),
            ..SubjectAccessReviewSpec::default()
        };
        match question {
            Question::Node { verb, subresource, name } => {
                spec.resource_attributes = Some(ResourceAttributes {
                    verb: Some((*verb).to_owned()),
                    version: Some("v1".to_owned()),
                    resource: Some("nodes".to_owned()),
                    subresource: Some((*subresource).to_owned()),
                    name: Some(name.clone()),
                    ..ResourceAttributes::default()
                });
            }
            Question::Path { verb, path } => {
                spec.non_resource_attributes =
                    Some(NonResourceAttributes { verb: Some(verb.clone()), path: Some(path.clone()) });
            }
        }
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let answer = self.client.all::<SubjectAccessReview>().create(&PostParams::default(), &review).await;
        let allowed = answer.map_err(|error| unreachable_api(&error))?.status.is_some_and(|status| status.allowed);
        self.verdicts.put(key, allowed, now + if allowed { YES_TTL } else { NO_TTL });
        Ok(allowed)
    }
}

async fn stand(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    match guard.judge(&mut parts).await {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(status) => {
            let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            match guard.rules.plain {
                true => (code, [(CONTENT_TYPE, "text/plain; charset=utf-8")], status.message).into_response(),
                false => (code, Json(status.to_value())).into_response(),
            }
        }
    }
}

/// The refusal of a request none of whose questions was answered with yes, in the words of Kubernetes' components.
fn forbidden(user: &UserInfo, questions: &[Question]) -> Status {
    let subresources = questions.iter().filter_map(|question| match question {
        Question::Node { subresource, .. } => Some(*subresource),
        Question::Path { .. } => None,
    });
    let subresources: Vec<&str> = subresources.collect();
    match questions {
        [Question::Path { verb, path }, ..] => {
            let asked = Attributes { is_resource: false, path, ..Attributes::resource(user, verb, "", "") };
            authz::forbidden(&asked, "")
        }
        [Question::Node { verb, .. }, ..] => {
            let (name, list) = (&user.name, subresources.join(" "));
            let message = format!("Forbidden (user={name}, verb={verb}, resource=nodes, subresource(s)=[{list}])");
            Status { message, ..Status::forbidden(&GroupResource::new("", "nodes"), "", "") }
        }
        [] => Status::unauthorized("Unauthorized"),
    }
}

fn unreachable_api(error: &kube::Error) -> Status {
    tracing::warn!(%error, "the API server could not be asked about a request");
    Status::internal_error("the API server could not be asked about this request")
}

/// Answers that hold for a while.
struct Memory<K, V>(Mutex<BTreeMap<K, (V, Duration)>>);

impl<K, V> Default for Memory<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord, V: Clone> Memory<K, V> {
    fn get(&self, key: &K, now: Duration) -> Option<V> {
        self.0.lock().get(key).filter(|(_, until)| now < *until).map(|(value, _)| value.clone())
    }

    fn put(&self, key: K, value: V, until: Duration) {
        let mut known = self.0.lock();
        if known.len() >= MAX_REMEMBERED {
            known.clear();
        }
        known.insert(key, (value, until));
    }
}
