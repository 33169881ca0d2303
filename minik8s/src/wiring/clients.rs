//! The components that are clients of the API: the scheduler and the controllers.

use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use minik8s_apiserver::authn::jwt::{self, SigningKey};
use minik8s_client::{Client, InformerFactory};
use minik8s_controllers::certificates::authority::CertificateAuthority;
use minik8s_controllers::service_account_tokens::SignToken;
use minik8s_controllers::{ControllerManager, Keys};
use minik8s_scheduler::Scheduler;
use tokio_util::sync::CancellationToken;

use crate::pki;

/// Schedules until `cancel`.
pub async fn schedule(client: Client, settings: &minik8s_scheduler::Settings, cancel: CancellationToken) {
    let informers = InformerFactory::new(client, cancel.clone());
    Scheduler::new(&informers, settings).run(cancel).await;
}

/// Runs the controllers until `cancel`. `client` watches; `client_for` makes the client under which a controller writes,
/// by the name of its ServiceAccount; `keys` go to the controllers that sign with them.
pub async fn control(
    client: Client,
    client_for: impl Fn(&str) -> Client,
    config: minik8s_controllers::Config,
    keys: &Keys,
    cancel: CancellationToken,
) {
    let informers = InformerFactory::new(client, cancel.clone());
    ControllerManager::new(informers, client_for, config, keys).run(cancel).await;
}

/// The authority that signs certificates.
///
/// # Errors
/// A certificate or key (PEM) that cannot be used, or that do not belong together.
pub fn authority(certificate_pem: &str, key_pem: &str) -> Result<CertificateAuthority> {
    CertificateAuthority::from_pem(certificate_pem, key_pem).context("the authority that signs certificates")
}

/// Signs the tokens that Secrets hold, with this private key (PEM).
///
/// # Errors
/// A key that cannot be used.
pub fn token_signer(key_pem: &str) -> Result<SignToken> {
    let key = SigningKey::from_der(&pki::private_key(key_pem)?)
        .map_err(|error| anyhow!("the key that signs ServiceAccount tokens cannot be used: {error}"))?;
    Ok(Arc::new(move |claims| jwt::sign(&key, claims).map_err(|error| error.to_string())))
}
