//! ServiceAccount tokens for projected volumes: requested, kept, renewed before they end.
//!
//! (kubelet: `pkg/kubelet/token/token_manager.go`.)

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use kube::api::PostParams;
use minik8s_client::Client;

use crate::spec::PodExt as _;

/// No token is kept longer than this, however long it is valid.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);
/// How long a token is valid unless the volume says otherwise.
const DEFAULT_EXPIRATION_SECONDS: i64 = 3600;
/// After a failure a valid token is kept, and asked for again after this.
const RETRY: Duration = Duration::from_secs(10);

/// The token of one projected volume.
#[derive(Clone, Debug)]
struct Token {
    token: String,
    expires: Timestamp,
    renew: Timestamp,
}

/// The tokens of one pod, by volume and path.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    tokens: BTreeMap<(String, String), Token>,
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| at.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
}

impl Tokens {
    /// The tokens that the volumes of `pod` want, fresh ones where they are missing or old.
    pub async fn current(&mut self, client: &Client, pod: &Pod) -> BTreeMap<(String, String), Result<String, String>> {
        let mut current = BTreeMap::new();
        for (key, source) in wanted(pod) {
            let token = self.token(client, pod, &source, key.clone()).await;
            current.insert(key, token);
        }
        current
    }

    /// When the next token has to be renewed.
    pub fn renew_at(&self) -> Option<Timestamp> {
        self.tokens.values().map(|token| token.renew).min()
    }

    async fn token(
        &mut self,
        client: &Client,
        pod: &Pod,
        source: &ServiceAccountTokenProjection,
        key: (String, String),
    ) -> Result<String, String> {
        let now = client.clock().now();
        if let Some(token) = self.tokens.get(&key).filter(|token| token.renew > now) {
            return Ok(token.token.clone());
        }
        match request(client, pod, source).await {
            Ok((token, expires)) => {
                let validity = Duration::try_from(expires.duration_since(now)).unwrap_or_default();
                let renew = later(now, validity.mul_f64(0.8).min(MAX_AGE)).max(later(now, RETRY));
                self.tokens.insert(key, Token { token: token.clone(), expires, renew });
                Ok(token)
            }
            Err(error) => match self.tokens.get_mut(&key).filter(|token| token.expires > now) {
                Some(token) => {
                    tracing::warn!(pod = pod.full_format(), %error, "could not renew a token, keeping the old one");
                    token.renew = later(now, RETRY);
                    Ok(token.token.clone())
                }
                None => Err(error.to_string()),
            },
        }
    }
}

/// The tokens that the volumes of `pod` want, by volume and path.
fn wanted(pod: &Pod) -> Vec<((String, String), ServiceAccountTokenProjection)> {
    let mut wanted = Vec::new();
    for volume in pod.spec().volumes.iter().flatten() {
        let projected = volume.projected.as_ref();
        for source in projected.and_then(|projected| projected.sources.as_ref()).into_iter().flatten() {
            let token = source.service_account_token.iter();
            wanted.extend(token.map(|token| ((volume.name.clone(), token.path.clone()), token.clone())));
        }
    }
    wanted
}

async fn request(
    client: &Client,
    pod: &Pod,
    source: &ServiceAccountTokenProjection,
) -> Result<(String, Timestamp), kube::Error> {
    let account = pod.spec().service_account_name.as_deref().filter(|name| !name.is_empty()).unwrap_or("default");
    let bound = BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(pod.name().to_owned()),
        uid: Some(pod.uid().to_owned()),
    };
    let spec = TokenRequestSpec {
        audiences: Some(source.audience.iter().filter(|audience| !audience.is_empty()).cloned().collect()),
        expiration_seconds: Some(source.expiration_seconds.unwrap_or(DEFAULT_EXPIRATION_SECONDS)),
        bound_object_ref: Some(bound),
        ..TokenRequestSpec::default()
    };
    let body = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    let api = client.namespaced::<ServiceAccount>(pod.namespace());
    let answer = api.create_token_request(account, &PostParams::default(), &body).await?;
    let status = answer.status.unwrap_or_default();
    let expires = status.expiration_timestamp.map_or_else(|| later(client.clock().now(), RETRY), |time| time.0);
    Ok((status.token.unwrap_or_default(), expires))
}
