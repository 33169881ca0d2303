//! The API server: its store, its keys, its listener.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use axum::Router;
use minik8s_apiserver::aggregator::FrontProxy;
use minik8s_apiserver::allocators::Ranges;
use minik8s_apiserver::authn::StaticTokens;
use minik8s_apiserver::authn::jwt::SigningKey;
use minik8s_apiserver::endpoints::connect::NodeConnector;
use minik8s_apiserver::health::Component;
use minik8s_apiserver::outgoing::ServiceDialer;
use minik8s_apiserver::server::{ApiServer, Config, Limits};
use minik8s_apiserver::settings::Settings;
use minik8s_apiserver::{audit, encryption};
use minik8s_clock::{Clock, Random};
use minik8s_store::{MemoryStore, RaftOptions, RaftStore, Store};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::pki::{self, CertifiedKey};

/// What an operator decides.
pub struct Options {
    /// The private key (PEM) that signs ServiceAccount tokens.
    pub service_account_key_pem: String,
    /// Whose client certificates are good (PEM, one or more); empty for nobody's.
    pub client_ca_pem: String,
    /// Tokens of a file.
    pub static_tokens: StaticTokens,
    /// From where Services get addresses and ports.
    pub ranges: Ranges,
    /// Where pods and nodes reach the server.
    pub advertise: SocketAddr,
    /// How many requests are handled at once.
    pub limits: Limits,
    /// The rest.
    pub settings: Settings,
    /// The server as a client of those behind APIServices.
    pub front_proxy: Option<FrontProxy>,
    /// What is recorded of requests.
    pub audit: Option<audit::Options>,
    /// How resources are encrypted at rest.
    pub encryption: Option<encryption::Configuration>,
}

/// What the server works with.
pub struct Surroundings {
    /// Where objects are kept.
    pub store: Arc<dyn Store>,
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub random: Random,
    /// The way to kubelets.
    pub nodes: Arc<dyn NodeConnector>,
    /// The way to Services, webhooks and other servers.
    pub dialer: Arc<dyn ServiceDialer>,
    /// What other components of the process count.
    pub metrics: minik8s_metrics::Registry,
    /// Components whose health is shown.
    pub components: Vec<Component>,
    /// Paths beside the API's.
    pub extra_routes: Router,
}

/// Opens the store in a folder, or one in memory.
///
/// # Errors
/// The folder cannot be read or written, or is damaged.
pub async fn open_store(dir: Option<&Path>, clock: &Clock, random: &Random) -> Result<Arc<dyn Store>> {
    let Some(path) = dir else { return Ok(MemoryStore::new(clock.clone())) };
    let store = RaftStore::open(path, clock.clone(), random.fork(), RaftOptions::default()).await;
    Ok(store.with_context(|| format!("cannot open the store in {}", path.display()))?)
}

/// Builds the server, which is ready when it is returned, and ends with `running`.
///
/// # Errors
/// A key or certificate that cannot be used, a store that cannot be read.
pub async fn start(options: Options, around: Surroundings, running: &CancellationToken) -> Result<Arc<ApiServer>> {
    let key = pki::private_key(&options.service_account_key_pem)?;
    let config = Config {
        store: around.store,
        clock: around.clock,
        random: around.random,
        service_account_key: SigningKey::from_der(&key)
            .map_err(|error| anyhow!("the key that signs ServiceAccount tokens cannot be used: {error}"))?,
        client_ca: pki::all_der(&options.client_ca_pem)?,
        client_ca_pem: options.client_ca_pem,
        static_tokens: options.static_tokens,
        nodes: around.nodes,
        dialer: around.dialer,
        components: around.components,
        ranges: options.ranges,
        advertise: options.advertise,
        limits: options.limits,
        settings: options.settings,
        front_proxy: options.front_proxy,
        audit: options.audit,
        encryption: options.encryption,
        metrics: around.metrics,
        extra_routes: around.extra_routes,
    };
    Ok(ApiServer::new(config, running.child_token()).await?)
}

/// Lets clients outside of this process in, until `running` ends.
///
/// # Errors
/// A certificate that cannot be used.
pub fn listen(
    api: &Arc<ApiServer>,
    listener: TcpListener,
    certificate: &CertifiedKey,
    running: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<()> {
    let tls = api.tls(pki::all_der(&certificate.cert_pem)?, pki::private_key(&certificate.key_pem)?)?;
    let (serving, ended) = (api.clone(), running.clone());
    tasks.spawn(async move {
        if let Err(error) = serving.serve(listener, tls, ended).await {
            tracing::error!(%error, "the API server's listener failed");
        }
    });
    Ok(())
}
