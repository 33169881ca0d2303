//! The wiring of a whole cluster in one process: which components there are, and how they reach each other. How each of
//! them is put together stands in [`crate::wiring`].
//!
//! ```text
//!   store ◄── API server ◄── listener (TLS)
//!                 ▲ service, each caller under its own identity
//!       ┌─────────┼──────────────┬────────────────┐
//!   scheduler  controllers    kubelet ─CRI─► runtime      × nodes
//!                                ▲
//!                                └── logs, exec, webhooks in pods: the API server connects through [`Nodes`]
//! ```

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use async_trait::async_trait;
use axum::body::Body;
use futures::FutureExt as _;
use k8s_openapi::api::core::v1::{Node, Service};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams};
use minik8s_apiserver::admission::a_kubelet_may_set;
use minik8s_apiserver::aggregator::FrontProxy;
use minik8s_apiserver::allocators::Ranges;
use minik8s_apiserver::authn::StaticTokens;
use minik8s_apiserver::endpoints::connect::NodeConnector;
use minik8s_apiserver::identity::UserInfo;
use minik8s_apiserver::outgoing::tls::Identity;
use minik8s_apiserver::server::{ApiServer, Limits};
use minik8s_apiserver::settings::Settings;
use minik8s_apiserver::tokens::DEFAULT_ISSUER;
use minik8s_client::{Client, InformerFactory, Lister, ObjectPool, is_not_found};
use minik8s_clock::{Clock, Random};
use minik8s_cri::{MemoryFs, NodeFs};
use minik8s_kubelet::{Capacity, KUBELET_PORT, Kubelet};
use minik8s_runtime::SimRuntime;
use minik8s_runtime::image::Profiles;
use minik8s_store::Store;
use minik8s_streaming::BoxedStream;
use parking_lot::Mutex;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use crate::cluster_info;
use crate::components::{Component, static_pods};
use crate::control::{self, ClusterStatus, NewNode, NodeStatus};
use crate::home::{CONTROLLERS, ClusterFile, DataDir, KUBELET, NodeFile, SCHEDULER};
use crate::logs::Logs;
use crate::network::NodeAddresses;
use crate::node::{self, KUBERNETES_VERSION};
use crate::pki::{self, Pki};
use crate::wiring::api_server::{self, Options, Surroundings};
use crate::wiring::clients;
use crate::wiring::kubelet_dialer::{self, KubeletDialer};
use crate::wiring::machine::{self, Assembled, Dns, Parts};

/// How long the nodes have to become ready.
const NODES_READY_IN: Duration = Duration::from_secs(60);
/// The controller that gives nodes the ranges of their pods.
const NODE_IPAM: &str = "node-ipam-controller";
/// How often to look whether they are.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// How long the parts have to end in good order.
const SHUT_DOWN_IN: Duration = Duration::from_secs(10);
/// How much the disk of a simulated node holds.
const DISK_BYTES: u64 = 256 << 20;

/// What a cluster is started with.
pub struct ClusterConfig {
    /// Name, port, nodes.
    pub file: ClusterFile,
    /// Where its data is; `None` keeps everything in memory.
    pub dir: Option<DataDir>,
    /// Whether clients outside of this process can reach it, on the port of `file`.
    pub listen: bool,
    /// Its certificates.
    pub pki: Pki,
    /// Its time.
    pub clock: Clock,
    /// Its randomness.
    pub random: Random,
    /// Its logs.
    pub logs: Logs,
    /// Cancelled when the cluster is told to stop.
    pub stop: CancellationToken,
}

/// A cluster that runs.
pub struct Cluster {
    pki: Pki,
    nodes: Arc<Nodes>,
    store: Arc<dyn Store>,
    api: Arc<ApiServer>,
    components: Vec<Arc<Component>>,
    running: CancellationToken,
    tasks: TaskTracker,
    clock: Clock,
}

impl Cluster {
    /// Starts everything; `step` is told what is done. When it returns, the API answers and every node is ready.
    pub async fn start(config: ClusterConfig, step: &mut impl FnMut(&str)) -> Result<Self> {
        let ClusterConfig { file, dir, listen, mut pki, clock, random, logs, stop } = config;
        let (running, tasks) = (CancellationToken::new(), TaskTracker::new());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, file.port));
        let listener = match listen {
            true => Some(TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?),
            false => None,
        };

        let kept = dir.as_ref().filter(|_| !file.ephemeral).map(DataDir::store);
        let store = api_server::open_store(kept.as_deref(), &clock, &random).await?;
        step("store");

        let dialer = KubeletDialer::new(&kubelets(&pki), clock.clone())?;
        let nodes = Arc::new(Nodes::new(&file, dir, clock.clone(), random.clone(), stop, dialer));
        let manager = Manager { nodes: nodes.clone() };
        let scheduler = Component::new("kube-scheduler", logs.component("kube-scheduler"), running.clone(), {
            let manager = manager.clone();
            move |cancel| manager.clone().schedule(cancel)
        });
        let controllers =
            Component::new("kube-controller-manager", logs.component("kube-controller-manager"), running.clone(), {
                let (manager, keys) = (manager.clone(), controller_keys(&mut pki)?);
                let config = minik8s_controllers::Config {
                    root_ca_pem: pki.ca_pem.clone(),
                    disabled: file.disabled_controllers(),
                    ..Default::default()
                };
                move |cancel| manager.clone().control(config.clone(), keys.clone(), cancel)
            });
        // What is switched off is somebody else's to run.
        let own = [(SCHEDULER, &scheduler), (CONTROLLERS, &controllers)].into_iter();
        let own: Vec<&Arc<Component>> =
            own.filter(|(name, _)| !file.is_disabled(name)).map(|(_, component)| component).collect();

        let around = Surroundings {
            store: store.clone(),
            clock: clock.clone(),
            random: random.fork(),
            nodes: nodes.clone(),
            dialer: nodes.clone(),
            components: own.iter().map(|component| health(component)).collect(),
            metrics: nodes.metrics.registry().clone(),
            extra_routes: control::routes(nodes.clone()),
        };
        let api = api_server::start(options(&file, &pki)?, around, &running).await?;
        nodes.attach(&api, &store);
        if let Some(listener) = listener {
            api_server::listen(&api, listener, &pki.server, &running, &tasks)?;
        }
        step("API server");

        own.iter().for_each(|component| component.start());
        // The store and the API server are there as long as the cluster is; their pods only show them.
        let mut components = vec![attached("etcd", &logs, &running), attached("kube-apiserver", &logs, &running)];
        components.extend(own.into_iter().cloned());
        nodes.set_programs(&components);
        step(match (file.is_disabled(SCHEDULER), file.is_disabled(CONTROLLERS)) {
            (false, false) => "scheduler, controllers",
            (false, true) => "scheduler",
            (true, false) => "controllers",
            (true, true) => "neither scheduler nor controllers",
        });

        let cluster = Self { pki, nodes, store, api, components, running, tasks, clock };
        if listen {
            cluster.publish(file.server());
        }
        if let Err(error) = cluster.start_nodes(step).await {
            cluster.shut_down().await;
            return Err(error);
        }
        Ok(cluster)
    }

    /// Tells where the cluster is, while the rest of it starts.
    fn publish(&self, server: String) {
        let (client, ca) = (self.admin(), self.pki.ca_pem.clone());
        let running = self.running.clone();
        self.tasks.spawn(async move {
            let published = running.run_until_cancelled(cluster_info::publish(&client, &server, &ca)).await;
            if let Some(Err(error)) = published {
                tracing::warn!(error = minik8s_client::words(&error), "cannot publish cluster-info");
            }
        });
    }

    async fn start_nodes(&self, step: &mut impl FnMut(&str)) -> Result<()> {
        let names = self.nodes.start_all()?;
        let ready = async {
            while !self.nodes.are_up(&names) {
                self.clock.sleep(LOOK_EVERY).await;
            }
        };
        if self.clock.timeout(NODES_READY_IN, ready).await.is_err() {
            bail!("not every node came up within {} s", NODES_READY_IN.as_secs());
        }
        let how = if self.nodes.can_be_ready() { "ready" } else { "registered" };
        step(&match names.as_slice() {
            [] => "no nodes of its own".to_owned(),
            [one] => format!("{one} {how}"),
            several => format!("{} nodes {how}", several.len()),
        });
        Ok(())
    }

    /// A client for those who embed a cluster, with the administrator's identity.
    pub fn admin(&self) -> Client {
        self.nodes.client_as(UserInfo::new("kubernetes-admin", ["system:masters"]), "minik8s")
    }

    /// The nodes, to be stopped, started, added and deleted.
    pub fn nodes(&self) -> &Arc<Nodes> {
        &self.nodes
    }

    /// The cluster's time.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Where everything is kept.
    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The certificates.
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// Ends everything in good order: nodes, components, API server, store.
    pub async fn shut_down(&self) {
        let ended = async {
            self.nodes.power_off_all().await;
            for component in self.components.iter().rev() {
                component.stop().await;
            }
            self.running.cancel();
            self.tasks.close();
            self.tasks.wait().await;
            self.api.stopped().await;
        };
        if self.clock.timeout(SHUT_DOWN_IN, ended).await.is_err() {
            tracing::warn!("not everything ended within {} s", SHUT_DOWN_IN.as_secs());
        }
        // Last of all, so that what the others wrote on their way is in it.
        self.store.shutdown().await;
    }
}

/// The keys that controllers sign with; the authority's is taken out of `pki`, for nobody else signs with it.
fn controller_keys(pki: &mut Pki) -> Result<minik8s_controllers::Keys> {
    let authority = pki.ca_key_pem.take().map(|key| clients::authority(&pki.ca_pem, &key)).transpose()?;
    let tokens = Some(clients::token_signer(&pki.service_account_key_pem)?);
    Ok(minik8s_controllers::Keys { authority: authority.map(Arc::new), tokens })
}

/// What an API server is told in a cluster in one process.
fn options(file: &ClusterFile, pki: &Pki) -> Result<Options> {
    Ok(Options {
        service_account_key_pem: pki.service_account_key_pem.clone(),
        client_ca_pem: pki.ca_pem.clone(),
        static_tokens: StaticTokens::default(),
        ranges: Ranges::default(),
        advertise: SocketAddr::from((node::address(1), file.port)),
        limits: Limits::default(),
        settings: Settings {
            authentication: file.safeguards.authentication(&[DEFAULT_ISSUER])?,
            bootstrap_tokens: true,
            ..Settings::default()
        },
        front_proxy: pki.front_proxy.as_ref().map(front_proxy).transpose()?,
        audit: file.safeguards.audit()?,
        encryption: file.safeguards.encryption()?,
    })
}

/// How kubelets are reached that are not of this process. They show what they like, as those do that signed their
/// certificate themselves; this server shows a certificate of the cluster's authority.
fn kubelets(pki: &Pki) -> kubelet_dialer::Options {
    kubelet_dialer::Options {
        ca_pem: None,
        client: pki.kubelet_client.clone(),
        address_types: ["InternalIP", "ExternalIP", "Hostname"].map(str::to_owned).into(),
    }
}

fn health(component: &Arc<Component>) -> minik8s_apiserver::health::Component {
    let name = component.name().trim_start_matches("kube-").to_owned();
    let component = component.clone();
    let check = move || std::future::ready(component.health()).boxed();
    minik8s_apiserver::health::Component { name, check: Arc::new(check) }
}

fn front_proxy(proxy: &pki::FrontProxy) -> Result<FrontProxy> {
    let chain = vec![pki::der(&proxy.client.cert_pem)?];
    let identity = Identity { chain, key: pki::private_key(&proxy.client.key_pem)? };
    Ok(FrontProxy { ca_pem: proxy.ca_pem.clone(), identity })
}

/// A component that was running before its pod and goes on after it.
fn attached(name: &'static str, logs: &Logs, running: &CancellationToken) -> Arc<Component> {
    let component = Component::new(name, logs.component(name), running.clone(), |cancel| async move {
        cancel.cancelled().await;
    });
    component.start();
    component
}

/// Starts the components that are clients of the API, as often as they are asked for.
#[derive(Clone)]
struct Manager {
    nodes: Arc<Nodes>,
}

impl Manager {
    async fn schedule(self, cancel: CancellationToken) {
        let client = self.nodes.client_as(UserInfo::new("system:kube-scheduler", NO_GROUPS), "kube-scheduler");
        clients::schedule(client, &minik8s_scheduler::Settings::default(), cancel).await;
    }

    async fn control(
        self,
        config: minik8s_controllers::Config,
        keys: minik8s_controllers::Keys,
        cancel: CancellationToken,
    ) {
        const AGENT: &str = "kube-controller-manager";
        let client = self.nodes.client_as(UserInfo::new("system:kube-controller-manager", NO_GROUPS), AGENT);
        let client_for = |name: &str| self.nodes.client_as(UserInfo::service_account("kube-system", name), AGENT);
        clients::control(client, client_for, config, &keys, cancel).await;
    }
}

const NO_GROUPS: [&str; 0] = [];

/// The nodes of a cluster: machines that can be added, switched off and on, and removed; and the API server's way to
/// their kubelets, and to those of others that joined.
pub struct Nodes {
    clock: Clock,
    random: Random,
    dir: Option<DataDir>,
    file: Mutex<ClusterFile>,
    stop: CancellationToken,
    started: Duration,
    api: OnceLock<Attached>,
    /// What the informers of all components hold.
    objects: ObjectPool,
    programs: OnceLock<BTreeMap<String, Arc<dyn minik8s_runtime::process::Program>>>,
    profiles: Arc<Profiles>,
    machines: Mutex<BTreeMap<String, Hardware>>,
    metrics: minik8s_client::Metrics,
    dialer: KubeletDialer,
}

/// What is there once the API server is.
struct Attached {
    api: Arc<ApiServer>,
    store: Arc<dyn Store>,
    /// Services, which every kubelet puts into the environment of its containers; watched once for all.
    services: Lister<Service>,
    nodes: Lister<Node>,
}

/// A node's hardware: its disk stays when it is switched off.
struct Hardware {
    disk: Arc<dyn NodeFs>,
    power: Option<Power>,
}

/// What runs while a node is switched on.
#[derive(Clone)]
struct Power {
    kubelet: Arc<Kubelet>,
    runtime: Arc<SimRuntime>,
    cancel: CancellationToken,
    /// Changes every time the node is switched on: a status that does not tell it is of an earlier life.
    boot_id: String,
}

impl Nodes {
    fn new(
        file: &ClusterFile,
        dir: Option<DataDir>,
        clock: Clock,
        random: Random,
        stop: CancellationToken,
        dialer: KubeletDialer,
    ) -> Self {
        Self {
            started: clock.monotonic(),
            clock,
            random,
            dir,
            file: Mutex::new(file.clone()),
            stop,
            api: OnceLock::new(),
            objects: ObjectPool::default(),
            programs: OnceLock::new(),
            profiles: Profiles::builtin(),
            machines: Mutex::default(),
            metrics: minik8s_client::Metrics::new(Default::default()),
            dialer,
        }
    }

    fn attach(&self, api: &Arc<ApiServer>, store: &Arc<dyn Store>) {
        let client = self.client_over(api, UserInfo::new("system:kube-controller-manager", NO_GROUPS), "minik8s");
        let informers = InformerFactory::new(client, self.stop.clone());
        let (services, nodes) = (informers.informer::<Service>(), informers.informer::<Node>());
        informers.start();
        let attached =
            Attached { api: api.clone(), store: store.clone(), services: services.lister(), nodes: nodes.lister() };
        assert!(self.api.set(attached).is_ok(), "a cluster has one API server");
        self.dialer.attach(api);
    }

    fn set_programs(&self, components: &[Arc<Component>]) {
        let programs = components.iter();
        let programs = programs.map(|component| (format!("component:{}", component.name()), component.program()));
        assert!(self.programs.set(programs.collect()).is_ok(), "a cluster has one control plane");
    }

    fn attached(&self) -> &Attached {
        self.api.get().expect("nodes are started after the API server")
    }

    fn client_as(&self, user: UserInfo, agent: &str) -> Client {
        self.client_over(&self.attached().api, user, agent)
    }

    /// A client in this process. The identity goes along as an extension of the request, which no network path can set.
    fn client_over(&self, api: &Arc<ApiServer>, user: UserInfo, agent: &str) -> Client {
        let (service, user) = (api.service(), user.authenticated());
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(user.clone());
            let mut service = service.clone();
            async move { service.call(request).await.map_err(|never: Infallible| match never {}) }
        });
        let agent = format!("{agent}/{KUBERNETES_VERSION} (minik8s)");
        let service = self.metrics.count(service, "kubernetes.default.svc", self.clock.clone());
        let client = Client::over(service, &agent, self.clock.clone(), self.random.fork());
        client.sharing(self.objects.clone()).measured(self.metrics.clone())
    }

    /// Switches every node on that is not stopped; answers their names.
    fn start_all(self: &Arc<Self>) -> Result<Vec<String>> {
        let file = self.file.lock().clone();
        let ours = file.nodes.iter().filter(|node| !node.stopped && !file.is_disabled(KUBELET));
        let on: Vec<NodeFile> = ours.cloned().collect();
        for node in &on {
            self.power_on(node)?;
        }
        Ok(on.into_iter().map(|node| node.name).collect())
    }

    fn power_on(self: &Arc<Self>, node: &NodeFile) -> Result<()> {
        let attached = self.attached();
        let disk = {
            let mut machines = self.machines.lock();
            match machines.entry(node.name.clone()) {
                Entry::Occupied(machine) => machine.get().disk.clone(),
                Entry::Vacant(place) => {
                    let disk = Arc::new(MemoryFs::new(self.clock.clone(), DISK_BYTES));
                    machine::install(disk.as_ref(), &node.name, &node::address(node.number).to_string())?;
                    place.insert(Hardware { disk, power: None }).disk.clone()
                }
            }
        };
        let programs = self.programs.get().filter(|_| node.control_plane).cloned().unwrap_or_default();
        let static_pods = match node.control_plane {
            true => static_pods(self.file.lock().port, |name| programs.contains_key(&format!("component:{name}")))?,
            false => Vec::new(),
        };
        let cancel = self.stop.child_token();
        let boot_id = self.random.uuid();
        let parts = Parts {
            name: node.name.clone(),
            clock: self.clock.clone(),
            random: self.random.fork(),
            client: self.client_as(UserInfo::node(&node.name), "kubelet"),
            services: attached.services.clone(),
            disk,
            profiles: self.profiles.clone(),
            host_programs: programs,
            capacity: Capacity { cpu: node.cpu.clone(), memory: node.memory.clone(), ..Capacity::default() },
            boot_id: boot_id.clone(),
            labels: node.labels.clone().into_iter().filter(|(label, _)| a_kubelet_may_set(label)).collect(),
            taints: node.taints.iter().map(|text| node::parse_taint(text)).collect::<Result<_>>()?,
            address: node::address(node.number).to_string(),
            port: KUBELET_PORT,
            pod_cidr: None,
            dns: Dns { servers: vec![node::CLUSTER_DNS.to_owned()], domain: node::CLUSTER_DOMAIN.to_owned() },
            static_pods,
            manifests: None,
        };
        let Assembled { kubelet, runtime } = machine::assemble(parts, &cancel)?;
        tokio::spawn(kubelet.clone().run(cancel.clone()));
        tokio::spawn(cancel.clone().run_until_cancelled_owned(self.clone().label(node.name.clone(), granted(node))));
        if let Some(machine) = self.machines.lock().get_mut(&node.name) {
            machine.power = Some(Power { kubelet, runtime, cancel, boot_id });
        }
        Ok(())
    }

    /// Gives a node, once it is there, the labels that it may not give itself.
    async fn label(self: Arc<Self>, name: String, labels: BTreeMap<String, String>) {
        if labels.is_empty() {
            return;
        }
        let admin = self.client_as(UserInfo::new("kubernetes-admin", ["system:masters"]), "minik8s");
        let patch = Patch::Merge(json!({ "metadata": { "labels": labels } }));
        while let Err(error) = admin.all::<Node>().patch(&name, &PatchParams::default(), &patch).await {
            if !is_not_found(&error) {
                tracing::warn!(node = name, error = minik8s_client::words(&error), "cannot label the node, retrying");
            }
            self.clock.sleep(LOOK_EVERY).await;
        }
    }

    /// Cuts a node's power; says whether it was on.
    async fn power_off(&self, name: &str) -> bool {
        let power = self.machines.lock().get_mut(name).and_then(|machine| machine.power.take());
        let Some(power) = power else { return false };
        power.cancel.cancel();
        power.runtime.power_off().await;
        true
    }

    async fn power_off_all(&self) {
        let names: Vec<String> = self.machines.lock().keys().cloned().collect();
        for name in names {
            self.power_off(&name).await;
        }
    }

    /// Whether nodes become ready without somebody else: a node needs a range for its pods, which a controller gives it.
    fn can_be_ready(&self) -> bool {
        let file = self.file.lock();
        !file.is_disabled(CONTROLLERS) && !file.disabled_controllers().iter().any(|name| name == NODE_IPAM)
    }

    /// Whether all these nodes are as far as they can come.
    fn are_up(&self, names: &[String]) -> bool {
        let (nodes, ready) = (&self.attached().nodes, self.can_be_ready());
        let file = self.file.lock();
        let labels = |name: &str| file.nodes.iter().find(|node| node.name == name).map(granted).unwrap_or_default();
        names.iter().all(|name| {
            let node = nodes.get("", name);
            node.is_some_and(|node| {
                (!ready || ready_status(&node) == Some("True"))
                    && boot_id(&node) == self.boot_id(name).as_deref()
                    && labels(name).iter().all(|(label, value)| node.labels().get(label) == Some(value))
            })
        })
    }

    fn is_on(&self, name: &str) -> bool {
        self.boot_id(name).is_some()
    }

    fn boot_id(&self, name: &str) -> Option<String> {
        Some(self.machines.lock().get(name)?.power.as_ref()?.boot_id.clone())
    }

    /// Which addresses the nodes have; none before there is an API server to say so.
    pub(crate) fn addresses(&self) -> Vec<NodeAddresses> {
        let nodes = self.file.lock().nodes.clone();
        let known = self.api.get().map(|attached| &attached.nodes);
        let addresses = nodes.into_iter().map(|node| NodeAddresses {
            own: node::address(node.number),
            pods: known.and_then(|known| known.get("", &node.name)?.spec.as_ref()?.pod_cidr.clone()),
            control_plane: node.control_plane,
            name: node.name,
        });
        addresses.collect()
    }

    /// The port of the API server's listener.
    pub(crate) fn api_port(&self) -> u16 {
        self.file.lock().port
    }

    /// The runtime of a node that is switched on.
    pub(crate) fn runtime(&self, name: &str) -> Option<Arc<SimRuntime>> {
        Some(self.machines.lock().get(name)?.power.as_ref()?.runtime.clone())
    }

    /// What runs.
    pub async fn status(&self) -> ClusterStatus {
        let attached = self.attached();
        let file = self.file.lock().clone();
        let known: Vec<String> = file.nodes.iter().map(|node| node.name.clone()).collect();
        let guests = attached.nodes.list().into_iter().filter_map(|node| {
            let name = node.metadata.name.clone().filter(|name| !known.contains(name))?;
            let condition = condition_of(Some(&node));
            Some(NodeStatus { name, address: address_of(&node), state: "External".to_owned(), condition })
        });
        let guests: Vec<NodeStatus> = guests.collect();
        let nodes = file.nodes.iter().filter(|_| !file.is_disabled(KUBELET)).cloned().map(|node| NodeStatus {
            condition: condition_of(attached.nodes.get("", &node.name).as_deref()),
            address: node::address(node.number).to_string(),
            state: if self.is_on(&node.name) { "Running" } else { "Stopped" }.to_owned(),
            name: node.name,
        });
        ClusterStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kubernetes_version: KUBERNETES_VERSION.to_owned(),
            pid: std::process::id(),
            uptime_seconds: (self.clock.monotonic() - self.started).as_secs(),
            revision: attached.store.revision(),
            nodes: nodes.chain(guests).collect(),
            disabled: file.disabled,
        }
    }

    /// Tells the cluster to stop.
    pub fn stop_cluster(&self) {
        self.stop.cancel();
    }

    /// Adds a node and switches it on.
    pub async fn add(self: &Arc<Self>, new: NewNode) -> Result<String> {
        self.check_enabled()?;
        for taint in &new.taints {
            node::parse_taint(taint)?;
        }
        let node = {
            let mut file = self.file.lock();
            let mut node = node::next(&file.nodes);
            if let Some(name) = new.name {
                node::check_name(&name)?;
                node.name = name;
            }
            if file.nodes.iter().any(|known| known.name == node.name) {
                bail!("node {:?} exists already", node.name);
            }
            node.control_plane = false;
            node.cpu = new.cpu.unwrap_or(node.cpu);
            node.memory = new.memory.unwrap_or(node.memory);
            node.labels = new.labels;
            node.taints = new.taints;
            for quantity in [&node.cpu, &node.memory] {
                minik8s_api::quantity::Quantity::parse(quantity)
                    .map_err(|error| anyhow!("{quantity:?} is no quantity: {error}"))?;
            }
            file.nodes.push(node.clone());
            node
        };
        self.power_on(&node)?;
        self.save()?;
        Ok(node.name)
    }

    /// Switches a node off, as a machine that loses power.
    pub async fn stop(&self, name: &str) -> Result<()> {
        self.mark(name, true)?;
        if !self.power_off(name).await {
            bail!("node {name:?} is stopped already");
        }
        Ok(())
    }

    /// Switches a stopped node on again.
    pub async fn start(self: &Arc<Self>, name: &str) -> Result<()> {
        self.check_enabled()?;
        if self.is_on(name) {
            bail!("node {name:?} is running already");
        }
        let node = self.mark(name, false)?;
        self.power_on(&node)
    }

    /// Switches a node off and takes it out of the cluster.
    pub async fn delete(&self, name: &str) -> Result<()> {
        {
            let mut file = self.file.lock();
            let Some(at) = file.nodes.iter().position(|node| node.name == name) else {
                bail!("no node named {name:?}");
            };
            if file.nodes[at].control_plane {
                bail!("node {name:?} runs the control plane and cannot be deleted");
            }
            file.nodes.remove(at);
        }
        self.power_off(name).await;
        self.machines.lock().remove(name);
        self.save()?;
        // Only an administrator gets here; the node controller's account is the one that may delete nodes.
        let client = self.client_as(UserInfo::service_account("kube-system", "node-controller"), "minik8s");
        match client.all::<Node>().delete(name, &DeleteParams::default()).await {
            Err(error) if !is_not_found(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn check_enabled(&self) -> Result<()> {
        if self.file.lock().is_disabled(KUBELET) {
            bail!("this cluster runs no kubelets of its own (--disable {KUBELET}); `minik8s kubelet` runs one");
        }
        Ok(())
    }

    fn mark(&self, name: &str, stopped: bool) -> Result<NodeFile> {
        let node = {
            let mut file = self.file.lock();
            let node = file.nodes.iter_mut().find(|node| node.name == name);
            let node = node.ok_or_else(|| anyhow!("no node named {name:?}"))?;
            node.stopped = stopped;
            node.clone()
        };
        self.save()?;
        Ok(node)
    }

    fn save(&self) -> Result<()> {
        self.dir.as_ref().map_or(Ok(()), |dir| dir.write(&self.file.lock()))
    }
}

/// The labels of a node that its kubelet may not set: its role, and what else is Kubernetes' own.
fn granted(node: &NodeFile) -> BTreeMap<String, String> {
    let role = node.control_plane.then(|| ("node-role.kubernetes.io/control-plane".to_owned(), String::new()));
    let told = node.labels.iter().filter(|(label, _)| !a_kubelet_may_set(label));
    role.into_iter().chain(told.map(|(label, value)| (label.clone(), value.clone()))).collect()
}

fn ready_status(node: &Node) -> Option<&str> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == "Ready").map(|condition| condition.status.as_str())
}

/// `Ready`, `NotReady` or `Unknown`.
fn condition_of(node: Option<&Node>) -> String {
    match node.and_then(ready_status) {
        Some("True") => "Ready",
        Some("False") => "NotReady",
        _ => "Unknown",
    }
    .to_owned()
}

fn address_of(node: &Node) -> String {
    let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let mut internal = addresses.filter(|address| address.type_ == "InternalIP");
    internal.next().map(|address| address.address.clone()).unwrap_or_default()
}

fn boot_id(node: &Node) -> Option<&str> {
    Some(node.status.as_ref()?.node_info.as_ref()?.boot_id.as_str())
}

#[async_trait]
impl NodeConnector for Nodes {
    async fn connect(&self, node: &str) -> io::Result<BoxedStream> {
        let ours = self.machines.lock().get(node).map(|machine| machine.power.clone());
        match ours {
            Some(Some(power)) => power.kubelet.connect(),
            Some(None) => Err(io::ErrorKind::HostUnreachable.into()),
            None => self.dialer.connect(node).await,
        }
    }
}
