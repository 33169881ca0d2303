//! How a component in a process of its own reaches the API: by a kubeconfig, and under the ServiceAccounts of its
//! controllers by tokens that it asks for.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use http::header::{AUTHORIZATION, HeaderValue};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::client::Body;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use minik8s_client::{Client, Metrics, is_already_exists, is_not_found};
use minik8s_clock::{Clock, Random};
use tokio::sync::Mutex;

use crate::node::KUBERNETES_VERSION;

/// How long the tokens of controllers are asked to live.
const TOKEN_SECONDS: i64 = 3600;
/// A token is replaced when it has less than this share of its life left.
const RENEW_AT: f64 = 0.2;
/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// The way to an API server.
#[derive(Clone)]
pub struct ApiAccess {
    config: kube::Config,
    clock: Clock,
    random: Random,
    /// What the process's clients, and the components that have them, count.
    metrics: Metrics,
}

impl ApiAccess {
    /// The current context of a kubeconfig.
    ///
    /// # Errors
    /// The file cannot be read, or does not lead to an API server.
    pub async fn read(kubeconfig: &Path, clock: &Clock, random: &Random) -> Result<Self> {
        let shown = kubeconfig.display();
        let file = Kubeconfig::read_from(kubeconfig).with_context(|| format!("cannot read the kubeconfig {shown}"))?;
        let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        let mut config = config.with_context(|| format!("the kubeconfig {shown} does not lead to an API server"))?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        // Components have retries of their own, by the one clock.
        config.default_retry = false;
        let metrics = Metrics::new(Default::default());
        Ok(Self { config, clock: clock.clone(), random: random.clone(), metrics })
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// A client with the identity of the kubeconfig.
    ///
    /// # Errors
    /// A certificate or key that cannot be used.
    pub fn client(&self, agent: &str) -> Result<Client> {
        let transport = kube::Client::try_from(self.config.clone()).context("the kubeconfig cannot be used")?;
        Ok(self.over(transport, agent, "", None))
    }

    /// The controllers' own identities, each under its ServiceAccount in `kube-system` (`--use-service-account-credentials`).
    /// `client` asks for the tokens.
    ///
    /// # Errors
    /// A certificate authority that cannot be used.
    pub fn service_accounts(&self, client: &Client, agent: &str) -> Result<ServiceAccounts> {
        let mut config = self.config.clone();
        config.auth_info = AuthInfo::default();
        let transport = kube::Client::try_from(config).context("the kubeconfig cannot be used")?;
        Ok(ServiceAccounts { access: self.clone(), transport, client: client.clone(), agent: agent.to_owned() })
    }

    fn over(&self, transport: kube::Client, agent: &str, user: &str, token: Option<Arc<Token>>) -> Client {
        let service = tower::service_fn(move |mut request: http::Request<Body>| {
            let (transport, token) = (transport.clone(), token.clone());
            async move {
                if let Some(token) = token {
                    request.headers_mut().insert(AUTHORIZATION, token.header().await?);
                }
                transport.send(request).await
            }
        });
        let agent = format!("{agent}/{KUBERNETES_VERSION} (minik8s){user}");
        let host = self.config.cluster_url.authority().map(ToString::to_string).unwrap_or_default();
        let service = self.metrics.count(service, &host, self.clock.clone());
        Client::over(service, &agent, self.clock.clone(), self.random.fork()).measured(self.metrics.clone())
    }
}

/// Clients under the ServiceAccounts of `kube-system`.
pub struct ServiceAccounts {
    access: ApiAccess,
    /// Without an identity of its own.
    transport: kube::Client,
    client: Client,
    agent: String,
}

impl ServiceAccounts {
    /// A client under one of them. It asks for a token when it is first used.
    pub fn client(&self, name: &str) -> Client {
        let token = Token { client: self.client.clone(), account: name.to_owned(), current: Mutex::default() };
        // As kube-controller-manager's: up to the first slash it is the manager of fields.
        let user = format!("/system:serviceaccount:{NAMESPACE}:{name}");
        self.access.over(self.transport.clone(), &self.agent, &user, Some(Arc::new(token)))
    }
}

/// The namespace of the controllers' ServiceAccounts.
const NAMESPACE: &str = "kube-system";

/// The token of one ServiceAccount, renewed before it expires.
struct Token {
    client: Client,
    account: String,
    current: Mutex<Option<Current>>,
}

struct Current {
    header: HeaderValue,
    /// By the clock's own count.
    renew_at: Duration,
}

impl Token {
    async fn header(&self) -> Result<HeaderValue, kube::Error> {
        let mut current = self.current.lock().await;
        let now = self.client.clock().monotonic();
        match current.as_ref() {
            Some(current) if now < current.renew_at => Ok(current.header.clone()),
            _ => {
                let fresh = self.request(now).await?;
                let header = fresh.header.clone();
                *current = Some(fresh);
                Ok(header)
            }
        }
    }

    async fn request(&self, now: Duration) -> Result<Current, kube::Error> {
        let wanted = TokenRequest {
            spec: Some(TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..TokenRequestSpec::default() }),
            ..TokenRequest::default()
        };
        let accounts = self.client.namespaced::<ServiceAccount>(NAMESPACE);
        let parameters = PostParams::default();
        let ask = || accounts.create_subresource("token", &self.account, &parameters, &wanted);
        let answer: Result<TokenRequest, _> = ask().await;
        let answer = match answer {
            Err(error) if is_not_found(&error) => {
                let metadata = ObjectMeta { name: Some(self.account.clone()), ..ObjectMeta::default() };
                let account = ServiceAccount { metadata, ..ServiceAccount::default() };
                match accounts.create(&parameters, &account).await {
                    Err(error) if !is_already_exists(&error) => return Err(error),
                    _ => ask().await?,
                }
            }
            answer => answer?,
        };
        let status = answer.status.unwrap_or_default();
        let mut header = HeaderValue::from_str(&format!("Bearer {}", status.token.unwrap_or_default()))
            .map_err(|error| kube::Error::Service(Box::new(error)))?;
        header.set_sensitive(true);
        let left = status.expiration_timestamp.map(|at| at.0.duration_since(self.client.clock().now()));
        let left = left.and_then(|left| Duration::try_from(left).ok()).unwrap_or_default();
        Ok(Current { header, renew_at: now + left.mul_f64(1.0 - RENEW_AT) })
    }
}
