//! What all controllers share: the informers, the way to a client of one's own, the start.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use futures::future::{BoxFuture, join_all};
use minik8s_client::{Client, EventRecorder, InformerFactory, WorkQueue, run_controller};
use minik8s_metrics::Registry;
use tokio_util::sync::CancellationToken;

use crate::certificates::authority::CertificateAuthority;
use crate::service_account_tokens::SignToken;
use crate::table::{CONTROLLERS, KEY_HOLDERS};

/// What operators may set.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Names of controllers ([`crate::table`]) that are not run.
    pub disabled: Vec<String>,
    /// The certificate authority (PEM) that pods are given to trust the API server.
    pub root_ca_pem: String,
    /// When a silent node counts as dead.
    pub node_lifecycle: NodeLifecycleConfig,
    /// From where nodes get their pods' addresses.
    pub node_ipam: NodeIpamConfig,
    /// How many keys a controller works on at once, by its name in [`crate::table`], where that is not its own choice
    /// (`--concurrent-…-syncs`).
    pub workers: BTreeMap<String, usize>,
}

/// From where nodes get the ranges of their pods' addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeIpamConfig {
    /// The network of all pods and the bits of its prefix (`--cluster-cidr`).
    pub cluster: (Ipv4Addr, u8),
    /// The bits of the prefix of a node's range (`--node-cidr-mask-size`).
    pub node_bits: u8,
}

impl Default for NodeIpamConfig {
    fn default() -> Self {
        Self { cluster: (Ipv4Addr::new(10, 128, 0, 0), 9), node_bits: 24 }
    }
}

/// The keys of a cluster. They go to the controllers that work with them ([`KEY_HOLDERS`]) and to no other; a controller
/// whose key is not here is not run.
#[derive(Clone, Default)]
pub struct Keys {
    /// Signs certificates.
    pub authority: Option<Arc<CertificateAuthority>>,
    /// Signs the tokens of ServiceAccounts.
    pub tokens: Option<SignToken>,
}

/// When a silent node counts as dead. The defaults are Kubernetes'.
#[derive(Clone, Debug)]
pub struct NodeLifecycleConfig {
    /// How often nodes are looked at.
    pub monitor_period: std::time::Duration,
    /// How long a node may be silent.
    pub grace_period: std::time::Duration,
}

impl Default for NodeLifecycleConfig {
    fn default() -> Self {
        Self { monitor_period: std::time::Duration::from_secs(5), grace_period: std::time::Duration::from_secs(40) }
    }
}

/// What a controller is built from.
#[derive(Clone)]
pub struct Context {
    /// A client under the controller's own identity.
    pub client: Client,
    /// The informers that all controllers share.
    pub informers: InformerFactory,
    /// What operators set.
    pub config: Arc<Config>,
}

impl Context {
    /// A recorder of events that come from `component`, under the controller's own identity.
    pub fn recorder(&self, component: &str) -> EventRecorder {
        EventRecorder::new(self.client.clone(), component, None)
    }
}

/// A controller that has asked for its informers and is ready to run.
pub trait Controller: Send {
    /// Works until `cancel`. The informers have synced.
    fn run(self: Box<Self>, cancel: CancellationToken) -> BoxFuture<'static, ()>;

    /// Works until `cancel` on so many keys at once. A controller without a queue of keys works as it always does.
    fn run_with(self: Box<Self>, workers: usize, cancel: CancellationToken) -> BoxFuture<'static, ()> {
        let _ = workers;
        self.run(cancel)
    }

    /// Adds what is counted of its queue.
    fn register(&self, registry: &Registry) {
        let _ = registry;
    }
}

/// The usual controller: events become keys, `sync` takes one key at a time. Clones are the same controller.
pub trait Reconciler: Clone + Send + Sync + 'static {
    /// Its name in the log.
    const NAME: &'static str;
    /// How many keys it works on at once.
    const WORKERS: usize;

    /// Where its keys come from.
    fn queue(&self) -> &WorkQueue<String>;

    /// One attempt to bring what `key` names to where it should be.
    fn sync(&self, key: String) -> impl Future<Output = Result<(), kube::Error>> + Send;
}

impl<R: Reconciler> Controller for R {
    fn run(self: Box<Self>, cancel: CancellationToken) -> BoxFuture<'static, ()> {
        self.run_with(R::WORKERS, cancel)
    }

    fn run_with(self: Box<Self>, workers: usize, cancel: CancellationToken) -> BoxFuture<'static, ()> {
        let queue = self.queue().clone();
        Box::pin(run_controller(R::NAME, queue, workers, cancel, move |key| {
            let controller = R::clone(&self);
            async move { controller.sync(key).await }
        }))
    }

    fn register(&self, registry: &Registry) {
        self.queue().register(R::NAME, registry);
    }
}

/// All controllers of a cluster.
pub struct ControllerManager {
    informers: InformerFactory,
    controllers: Vec<(&'static str, Box<dyn Controller>)>,
    config: Arc<Config>,
}

impl ControllerManager {
    /// Builds the controllers. `client_for` makes a client for the ServiceAccount of that name in `kube-system`, as
    /// kube-controller-manager does with `--use-service-account-credentials`.
    pub fn new(informers: InformerFactory, client_for: impl Fn(&str) -> Client, config: Config, keys: &Keys) -> Self {
        let config = Arc::new(config);
        let enabled = |name: &str| !config.disabled.iter().any(|disabled| disabled == name);
        let context = |service_account: Option<&str>| Context {
            client: service_account.map_or_else(|| informers.client().clone(), &client_for),
            informers: informers.clone(),
            config: config.clone(),
        };
        let plain = CONTROLLERS.iter().filter(|row| enabled(row.name));
        let plain = plain.map(|row| (row.name, (row.build)(&context(Some(row.service_account)))));
        let holders = KEY_HOLDERS.iter().filter(|row| enabled(row.name));
        let holders = holders.filter_map(|row| {
            let built = (row.build)(&context(row.service_account), keys);
            if built.is_none() {
                tracing::warn!(controller = row.name, "skipping controller: it has no key to work with");
            }
            Some((row.name, built?))
        });
        let controllers: Vec<_> = plain.chain(holders).collect();
        for (_, controller) in &controllers {
            controller.register(informers.client().metrics().registry());
        }
        Self { informers, controllers, config }
    }

    /// Runs them all until `cancel`.
    pub async fn run(self, cancel: CancellationToken) {
        self.informers.start();
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            () = self.informers.wait_synced() => {}
        }
        let running = self.controllers.into_iter().map(|(name, controller)| {
            tracing::info!(controller = name, "starting controller");
            tokio::spawn(match self.config.workers.get(name) {
                Some(workers) => controller.run_with(*workers, cancel.clone()),
                None => controller.run(cancel.clone()),
            })
        });
        for ended in join_all(running.collect::<Vec<_>>()).await {
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }
}
