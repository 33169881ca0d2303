//! The wiring: everything that runs in one cluster, put together in one place.
//!
//! ```text
//!   store ◄── API server ◄── listener (TLS)
//!                 ▲ service, each caller under its own identity
//!       ┌─────────┼──────────────┬────────────────┐
//!   scheduler  controllers    kubelet ─CRI─► runtime      × nodes
//!                                ▲
//!                                └── logs, exec, webhooks in pods: the API server connects through [`Nodes`]
//! ```

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use async_trait::async_trait;
use axum::body::Body;
use futures::FutureExt as _;
use k8s_openapi::api::core::v1::{Node, NodeAddress, Service, Taint};
use kube::api::DeleteParams;
use minik8s_apiserver::aggregator::FrontProxy;
use minik8s_apiserver::authn::StaticTokens;
use minik8s_apiserver::authn::jwt::SigningKey;
use minik8s_apiserver::endpoints::connect::NodeConnector;
use minik8s_apiserver::identity::UserInfo;
use minik8s_apiserver::outgoing::tls::Identity;
use minik8s_apiserver::server::{ApiServer, Config, Limits};
use minik8s_client::{Client, InformerFactory, Lister, ObjectPool, is_not_found};
use minik8s_clock::{Clock, Random};
use minik8s_controllers::certificates::authority::CertificateAuthority;
use minik8s_controllers::{ControllerManager, Keys};
use minik8s_cri::{MemoryFs, NodeFs};
use minik8s_kubelet::{Capacity, InformerPodSource, Kubelet, KubeletConfig, Machine, PodNetwork};
use minik8s_runtime::image::Profiles;
use minik8s_runtime::{SimConfig, SimRuntime, Unreachable};
use minik8s_scheduler::Scheduler;
use minik8s_store::{MemoryStore, RaftOptions, RaftStore, Store};
use minik8s_streaming::BoxedStream;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use crate::components::{Component, static_pods};
use crate::control::{self, ClusterStatus, NewNode, NodeStatus};
use crate::home::{ClusterFile, DataDir, NodeFile};
use crate::logs::Logs;
use crate::network::NodeAddresses;
use crate::node::{self, KUBERNETES_VERSION};
use crate::pki::{self, Pki};

/// How long the nodes have to become ready.
const NODES_READY_IN: Duration = Duration::from_secs(60);
/// How often to look whether they are.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// How long the parts have to end in good order.
const SHUT_DOWN_IN: Duration = Duration::from_secs(10);
/// How much the disk of a simulated node holds.
const DISK_BYTES: u64 = 256 << 20;
/// The address of the cluster's DNS.
const CLUSTER_DNS: &str = "10.96.0.10";

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

        let store = open_store(&file, dir.as_ref(), &clock, &random).await?;
        step("store");

        let nodes = Arc::new(Nodes::new(&file, dir, clock.clone(), random.clone(), stop));
        let manager = Manager { nodes: nodes.clone() };
        let scheduler = Component::new("kube-scheduler", logs.component("kube-scheduler"), running.clone(), {
            let manager = manager.clone();
            move |cancel| manager.clone().schedule(cancel)
        });
        let controllers =
            Component::new("kube-controller-manager", logs.component("kube-controller-manager"), running.clone(), {
                let (manager, ca, keys) = (manager.clone(), pki.ca_pem.clone(), controller_keys(&mut pki)?);
                move |cancel| manager.clone().control(ca.clone(), keys.clone(), cancel)
            });

        let api =
            api_server(&file, &pki, &clock, &random, &nodes, &store, [&scheduler, &controllers], &running).await?;
        nodes.attach(&api, &store);
        if let Some(listener) = listener {
            serve(&api, listener, &pki, &running, &tasks)?;
        }
        step("API server");

        scheduler.start();
        controllers.start();
        // The store and the API server are there as long as the cluster is; their pods only show them.
        let etcd = attached("etcd", &logs, &running);
        let apiserver = attached("kube-apiserver", &logs, &running);
        let components = vec![etcd, apiserver, controllers, scheduler];
        nodes.set_programs(&components);
        step("scheduler, controllers");

        let cluster = Self { pki, nodes, store, api, components, running, tasks, clock };
        if let Err(error) = cluster.start_nodes(step).await {
            cluster.shut_down().await;
            return Err(error);
        }
        Ok(cluster)
    }

    async fn start_nodes(&self, step: &mut impl FnMut(&str)) -> Result<()> {
        let names = self.nodes.start_all()?;
        let ready = async {
            while !self.nodes.are_ready(&names) {
                self.clock.sleep(LOOK_EVERY).await;
            }
        };
        if self.clock.timeout(NODES_READY_IN, ready).await.is_err() {
            bail!("not every node became ready within {} s", NODES_READY_IN.as_secs());
        }
        step(&match names.as_slice() {
            [one] => format!("{one} ready"),
            several => format!("{} nodes ready", several.len()),
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
fn controller_keys(pki: &mut Pki) -> Result<Keys> {
    let authority = pki.ca_key_pem.take().map(|key| CertificateAuthority::from_pem(&pki.ca_pem, &key)).transpose()?;
    let key = service_account_key(pki)?;
    let sign = move |claims: &serde_json::Value| key.sign(claims).map_err(|error| error.to_string());
    Ok(Keys { authority: authority.map(Arc::new), tokens: Some(Arc::new(sign)) })
}

fn service_account_key(pki: &Pki) -> Result<SigningKey> {
    let key = pki::private_key(&pki.service_account_key_pem)?;
    SigningKey::from_pkcs8(key.secret_der())
        .map_err(|error| anyhow!("the key that signs ServiceAccount tokens is damaged: {error}"))
}

/// Lets clients outside of this process in.
fn serve(
    api: &Arc<ApiServer>,
    listener: TcpListener,
    pki: &Pki,
    running: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<()> {
    let certificates = api.authenticator().certificates.as_ref();
    let verifier = certificates.ok_or_else(|| anyhow!("the API server has no client CA"))?.handshake_verifier();
    let tls = Arc::new(pki.server_config(verifier)?);
    let (serving, ended) = (api.clone(), running.clone());
    tasks.spawn(async move {
        if let Err(error) = serving.serve(listener, tls, ended).await {
            tracing::error!(%error, "the API server's listener failed");
        }
    });
    Ok(())
}

async fn open_store(
    file: &ClusterFile,
    dir: Option<&DataDir>,
    clock: &Clock,
    random: &Random,
) -> Result<Arc<dyn Store>> {
    let Some(dir) = dir.filter(|_| !file.ephemeral) else { return Ok(MemoryStore::new(clock.clone())) };
    let path = dir.store();
    let store = RaftStore::open(&path, clock.clone(), random.fork(), RaftOptions::default()).await;
    Ok(store.with_context(|| format!("cannot open the store in {}", path.display()))?)
}

#[allow(clippy::too_many_arguments, reason = "it is called once, from the wiring above")]
async fn api_server(
    file: &ClusterFile,
    pki: &Pki,
    clock: &Clock,
    random: &Random,
    nodes: &Arc<Nodes>,
    store: &Arc<dyn Store>,
    [scheduler, controllers]: [&Arc<Component>; 2],
    running: &CancellationToken,
) -> Result<Arc<ApiServer>> {
    let health = |name: &str, component: &Arc<Component>| {
        let component = component.clone();
        minik8s_apiserver::health::Component {
            name: name.to_owned(),
            check: Arc::new(move || std::future::ready(component.health()).boxed()),
        }
    };
    let config = Config {
        store: store.clone(),
        clock: clock.clone(),
        random: random.fork(),
        service_account_key: service_account_key(pki)?,
        client_ca: vec![pki.ca_der()?],
        client_ca_pem: pki.ca_pem.clone(),
        front_proxy: pki.front_proxy.as_ref().map(front_proxy).transpose()?,
        static_tokens: StaticTokens::default(),
        authentication: Default::default(),
        nodes: nodes.clone(),
        dialer: nodes.clone(),
        components: vec![health("scheduler", scheduler), health("controller-manager", controllers)],
        ranges: Default::default(),
        advertise: SocketAddr::from((node::address(1), file.port)),
        limits: Limits::default(),
        audit: file.safeguards.audit()?,
        encryption: file.safeguards.encryption()?,
        metrics: nodes.metrics.registry().clone(),
        extra_routes: control::routes(nodes.clone()),
    };
    Ok(ApiServer::new(config, running.child_token()).await?)
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
        let informers = InformerFactory::new(client, cancel.clone());
        Scheduler::new(&informers).run(cancel).await;
    }

    async fn control(self, root_ca_pem: String, keys: Keys, cancel: CancellationToken) {
        const AGENT: &str = "kube-controller-manager";
        let client = self.nodes.client_as(UserInfo::new("system:kube-controller-manager", NO_GROUPS), AGENT);
        let informers = InformerFactory::new(client, cancel.clone());
        let client_for = |name: &str| self.nodes.client_as(UserInfo::service_account("kube-system", name), AGENT);
        let config = minik8s_controllers::Config { root_ca_pem, ..Default::default() };
        ControllerManager::new(informers, client_for, config, &keys).run(cancel).await;
    }
}

const NO_GROUPS: [&str; 0] = [];

/// The nodes of a cluster: machines that can be added, switched off and on, and removed; and the API server's way to
/// their kubelets.
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
    programs: OnceLock<HashMap<String, Arc<dyn minik8s_runtime::process::Program>>>,
    profiles: Arc<Profiles>,
    machines: Mutex<HashMap<String, Hardware>>,
    metrics: minik8s_client::Metrics,
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
    fn new(file: &ClusterFile, dir: Option<DataDir>, clock: Clock, random: Random, stop: CancellationToken) -> Self {
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
    }

    fn set_programs(&self, components: &[Arc<Component>]) {
        let names = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
        let programs = names.iter().zip(components);
        let programs = programs.map(|(name, component)| (format!("component:{name}"), component.program()));
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
        let nodes = self.file.lock().nodes.clone();
        let on: Vec<NodeFile> = nodes.into_iter().filter(|node| !node.stopped).collect();
        for node in &on {
            self.power_on(node)?;
        }
        Ok(on.into_iter().map(|node| node.name).collect())
    }

    fn power_on(self: &Arc<Self>, node: &NodeFile) -> Result<()> {
        let attached = self.attached();
        let disk = {
            let mut machines = self.machines.lock();
            let new = || Hardware { disk: Arc::new(MemoryFs::new(self.clock.clone(), DISK_BYTES)), power: None };
            machines.entry(node.name.clone()).or_insert_with(new).disk.clone()
        };
        let control_plane = if node.control_plane { static_pods(self.file.lock().port)? } else { Vec::new() };
        let images = control_plane.iter().flat_map(|pod| pod.spec.iter().flat_map(|spec| &spec.containers));
        let runtime = SimRuntime::new(SimConfig {
            node_name: node.name.clone(),
            clock: self.clock.clone(),
            random: self.random.fork(),
            fs: disk.clone(),
            profiles: self.profiles.clone(),
            host_programs: if node.control_plane {
                self.programs.get().cloned().unwrap_or_default()
            } else {
                HashMap::new()
            },
            network: Arc::new(Unreachable),
            preloaded_images: images.filter_map(|container| container.image.clone()).collect(),
        })?;
        let cancel = self.stop.child_token();
        let boot_id = self.random.uuid();
        let client = self.client_as(UserInfo::node(&node.name), "kubelet");
        let kubelet = Kubelet::new(KubeletConfig {
            node_name: node.name.clone(),
            clock: self.clock.clone(),
            random: self.random.fork(),
            pods: Arc::new(InformerPodSource::of_node(client.clone(), &node.name, cancel.clone())),
            client,
            cri: minik8s_cri::Client::in_process(runtime.clone()),
            fs: disk,
            streams: runtime.stream_connector(),
            network: Arc::new(NodeNetwork(runtime.clone())),
            services: attached.services.clone(),
            capacity: Capacity { cpu: node.cpu.clone(), memory: node.memory.clone(), ..Capacity::default() },
            machine: Machine {
                machine_id: self.random.uuid().replace('-', ""),
                boot_id: boot_id.clone(),
                ..Machine::default()
            },
            labels: node.labels.clone(),
            taints: node.taints.iter().map(|text| parse_taint(text)).collect::<Result<_>>()?,
            roles: if node.control_plane { vec!["control-plane".to_owned()] } else { Vec::new() },
            addresses: vec![
                NodeAddress { type_: "InternalIP".to_owned(), address: node::address(node.number).to_string() },
                NodeAddress { type_: "Hostname".to_owned(), address: node.name.clone() },
            ],
            pod_cidr: None,
            cluster_dns: vec![CLUSTER_DNS.to_owned()],
            cluster_domain: "cluster.local".to_owned(),
            static_pods: control_plane,
            static_pod_path: None,
        })?;
        tokio::spawn(kubelet.clone().run(cancel.clone()));
        if let Some(machine) = self.machines.lock().get_mut(&node.name) {
            machine.power = Some(Power { kubelet, runtime, cancel, boot_id });
        }
        Ok(())
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

    fn are_ready(&self, names: &[String]) -> bool {
        let nodes = &self.attached().nodes;
        names.iter().all(|name| {
            let node = nodes.get("", name);
            node.is_some_and(|node| {
                ready_status(&node) == Some("True") && boot_id(&node) == self.boot_id(name).as_deref()
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
        let nodes = self.file.lock().nodes.clone();
        let nodes = nodes.into_iter().map(|node| NodeStatus {
            condition: match attached.nodes.get("", &node.name).as_deref().and_then(ready_status) {
                Some("True") => "Ready",
                Some("False") => "NotReady",
                _ => "Unknown",
            }
            .to_owned(),
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
            nodes: nodes.collect(),
        }
    }

    /// Tells the cluster to stop.
    pub fn stop_cluster(&self) {
        self.stop.cancel();
    }

    /// Adds a node and switches it on.
    pub async fn add(self: &Arc<Self>, new: NewNode) -> Result<String> {
        for taint in &new.taints {
            parse_taint(taint)?;
        }
        let node = {
            let mut file = self.file.lock();
            let mut node = node::next(&file.nodes);
            if let Some(name) = new.name {
                check_node_name(&name)?;
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

fn ready_status(node: &Node) -> Option<&str> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == "Ready").map(|condition| condition.status.as_str())
}

fn boot_id(node: &Node) -> Option<&str> {
    Some(node.status.as_ref()?.node_info.as_ref()?.boot_id.as_str())
}

fn check_node_name(name: &str) -> Result<()> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if name.is_empty()
        || name.len() > 253
        || !name.chars().all(inner)
        || !name.starts_with(ends)
        || !name.ends_with(ends)
    {
        bail!("a node's name has lower-case letters, digits, '-' and '.', and begins and ends with a letter or digit");
    }
    Ok(())
}

/// `key=value:Effect` or `key:Effect`, as `kubectl taint` takes it.
fn parse_taint(text: &str) -> Result<Taint> {
    let wrong = || anyhow!("{text:?} is no taint: write KEY=VALUE:EFFECT or KEY:EFFECT");
    let (what, effect) = text.rsplit_once(':').ok_or_else(wrong)?;
    if !matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
        bail!("{text:?} is no taint: the effect is NoSchedule, PreferNoSchedule or NoExecute");
    }
    let (key, value) = what.split_once('=').map_or((what, None), |(key, value)| (key, Some(value)));
    if key.is_empty() {
        return Err(wrong());
    }
    Ok(Taint { key: key.to_owned(), value: value.map(str::to_owned), effect: effect.to_owned(), time_added: None })
}

#[async_trait]
impl NodeConnector for Nodes {
    async fn connect(&self, node: &str) -> io::Result<BoxedStream> {
        let kubelet = {
            let machines = self.machines.lock();
            machines.get(node).and_then(|machine| machine.power.as_ref()).map(|power| power.kubelet.clone())
        };
        kubelet.ok_or(io::ErrorKind::HostUnreachable)?.connect()
    }
}

/// A kubelet reaches the pods of its own node.
struct NodeNetwork(Arc<SimRuntime>);

#[async_trait]
impl PodNetwork for NodeNetwork {
    async fn dial(&self, address: &str, port: u16) -> io::Result<BoxedStream> {
        let address = address.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
        self.0.dial(address, port)
    }
}
