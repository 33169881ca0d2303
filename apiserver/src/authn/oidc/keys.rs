//! The keys of an issuer: found by its discovery document, kept, and fetched anew for a token that they do not verify.
//!
//! Nothing is fetched before the first token, so that an issuer may run in the cluster itself. Whoever cannot be reached
//! is asked again at most every [`PAUSE`], whatever the number of tokens, and for [`TIMEOUT`] at most.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

use super::jws::{Algorithm, KeySet, Token};
use crate::outgoing::{Outgoing, fetch};

/// The shortest time between two questions to one issuer.
const PAUSE: Duration = Duration::from_secs(10);
/// How long one document may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a document may be.
const MAX_DOCUMENT_BYTES: usize = 1 << 20;
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// Where keys come from.
pub struct RemoteKeys {
    issuer: String,
    discovery_url: String,
    tls: TlsConnector,
    outgoing: Outgoing,
    keys: RwLock<Arc<KeySet>>,
    /// Held while the issuer is asked: the others wait for the answer.
    asking: Mutex<Asked>,
}

#[derive(Default)]
struct Asked {
    /// When the last question ended, by the monotonic clock.
    at: Option<Duration>,
    /// Where the keys are, once that is known.
    keys_url: Option<String>,
    /// What went wrong the last time.
    error: Option<String>,
}

#[derive(Deserialize)]
struct Discovery {
    #[serde(default)]
    issuer: String,
    #[serde(default)]
    jwks_uri: String,
}

impl RemoteKeys {
    /// The keys of `issuer`; an empty `discovery_url` is the usual place below it.
    pub fn new(issuer: &str, discovery_url: &str, tls: TlsConnector, outgoing: Outgoing) -> RemoteKeys {
        let discovery_url = match discovery_url {
            "" => format!("{}{WELL_KNOWN}", issuer.trim_end_matches('/')),
            elsewhere => elsewhere.to_owned(),
        };
        let (keys, asking) = (RwLock::default(), Mutex::default());
        RemoteKeys { issuer: issuer.to_owned(), discovery_url, tls, outgoing, keys, asking }
    }

    /// Whether the issuer signed the token.
    pub async fn verify(&self, token: &Token<'_>, algorithm: Algorithm) -> Result<(), String> {
        let known = Arc::clone(&self.keys.read());
        if known.verifies(token, algorithm) {
            return Ok(());
        }
        let mut asked = self.asking.lock().await;
        // Somebody may have asked meanwhile.
        let present = Arc::clone(&self.keys.read());
        if !Arc::ptr_eq(&known, &present) && present.verifies(token, algorithm) {
            return Ok(());
        }
        let now = || self.outgoing.clock().monotonic();
        if asked.at.is_none_or(|at| now() >= at + PAUSE) {
            match self.fetch(&mut asked.keys_url).await {
                Ok(keys) => {
                    *self.keys.write() = Arc::new(keys);
                    asked.error = None;
                }
                Err(error) => {
                    tracing::warn!(issuer = self.issuer, error, "oidc authenticator: cannot fetch keys");
                    asked.error = Some(error);
                }
            }
            // The pause begins when the answer is there, or was waited for in vain: whoever queued up gets the same.
            asked.at = Some(now());
        }
        if self.keys.read().verifies(token, algorithm) {
            return Ok(());
        }
        Err(asked.error.clone().unwrap_or_else(|| "failed to verify id token signature".to_owned()))
    }

    async fn fetch(&self, keys_url: &mut Option<String>) -> Result<KeySet, String> {
        let url = match keys_url {
            Some(url) => url,
            None => keys_url.insert(self.discover().await?),
        };
        KeySet::parse(&self.get(url).await?)
    }

    async fn get(&self, url: &str) -> Result<Bytes, String> {
        fetch::get(&self.outgoing, url, &self.tls, TIMEOUT, MAX_DOCUMENT_BYTES).await
    }

    async fn discover(&self) -> Result<String, String> {
        let document = self.get(&self.discovery_url).await?;
        let found: Discovery = serde_json::from_slice(&document)
            .map_err(|error| format!("oidc: failed to decode provider discovery object: {error}"))?;
        if found.issuer != self.issuer {
            return Err(format!(
                "oidc: issuer URL provided to client ({:?}) did not match the issuer URL returned by provider ({:?})",
                self.issuer, found.issuer
            ));
        }
        if !found.jwks_uri.starts_with("https://") {
            return Err(format!("oidc: jwks_uri {:?} is no https URL", found.jwks_uri));
        }
        Ok(found.jwks_uri)
    }
}
