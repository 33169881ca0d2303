//! One node's runtime.

use crate::container::Container;
use crate::events::Events;
use crate::image::{ImageStore, Profiles};
use crate::ipam::Ipam;
use crate::network::{Network, PodNetwork, UdpFlow};
use crate::process::Program;
use crate::programs::Programs;
use crate::sandbox::Sandbox;
use crate::streaming::Streams;
use crate::{Error, Result};
use minik8s_clock::{Clock, Random};
use minik8s_cri::{NodeFs, StreamConnector};
use minik8s_streaming::BoxedStream;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Weak};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What a [`SimRuntime`] is built from.
pub struct SimConfig {
    /// The node's name.
    pub node_name: String,
    /// The cluster's time.
    pub clock: Clock,
    /// Randomness: ids.
    pub random: Random,
    /// The node's files, which the kubelet uses too.
    pub fs: Arc<dyn NodeFs>,
    /// What images do; [`Profiles::builtin`] for those that come with the binary.
    pub profiles: Arc<Profiles>,
    /// Programs that are part of this process, by the name that a profile calls them by, such as
    /// `component:kube-scheduler`: so a static pod runs the real component, and its log is the pod's log.
    pub host_programs: BTreeMap<String, Arc<dyn Program>>,
    /// Who answers outside of a pod; [`crate::Unreachable`] for nobody.
    pub network: Arc<dyn Network>,
    /// Images that are on the node from the start.
    pub preloaded_images: Vec<String>,
}

/// One node's runtime: a CRI server whose containers are simulated. In an `Arc` it is handed to
/// `minik8s_cri::Client::in_process`, which serves both CRI services.
///
/// It outlives a kubelet: a kubelet that is started again finds its containers running. [`SimRuntime::power_off`] ends it.
pub struct SimRuntime {
    this: Weak<SimRuntime>,
    pub(crate) node_name: String,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
    pub(crate) fs: Arc<dyn NodeFs>,
    pub(crate) network: Arc<dyn Network>,
    /// The node's own network namespace.
    pub(crate) host_network: PodNetwork,
    pub(crate) programs: Arc<Programs>,
    pub(crate) images: ImageStore,
    pub(crate) ipam: Ipam,
    pub(crate) events: Events,
    pub(crate) streams: Streams,
    pub(crate) tasks: TaskTracker,
    pub(crate) powered_off: CancellationToken,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    sandboxes: BTreeMap<String, Arc<Sandbox>>,
    containers: BTreeMap<String, Arc<Container>>,
}

impl SimRuntime {
    /// A runtime without containers.
    pub fn new(config: SimConfig) -> Result<Arc<SimRuntime>> {
        let images = ImageStore::new(config.clock.clone(), config.profiles);
        for image in &config.preloaded_images {
            images.preload(image)?;
        }
        Ok(Arc::new_cyclic(|this| SimRuntime {
            this: this.clone(),
            host_network: PodNetwork::new(None, config.node_name.clone(), config.network.clone()),
            node_name: config.node_name,
            clock: config.clock,
            random: config.random,
            fs: config.fs,
            network: config.network,
            programs: Arc::new(Programs::new(config.host_programs)),
            images,
            ipam: Ipam::default(),
            events: Events::default(),
            streams: Streams::default(),
            tasks: TaskTracker::new(),
            powered_off: CancellationToken::new(),
            state: RwLock::default(),
        }))
    }

    /// This runtime, for tasks that outlive a call.
    pub(crate) fn shared(&self) -> Arc<SimRuntime> {
        self.this.upgrade().expect("a runtime is only ever made inside of an Arc")
    }

    /// How a kubelet in this process reaches the streams of exec and attach.
    pub fn stream_connector(self: &Arc<Self>) -> Arc<dyn StreamConnector> {
        crate::streaming::connector(self.clone())
    }

    /// Connects to a port of a pod on this node, by the pod's address, from the node itself: how a kubelet probes.
    pub fn dial(&self, pod_ip: IpAddr, port: u16) -> io::Result<BoxedStream> {
        self.dial_from(self.ipam.gateway(), pod_ip, port)
    }

    /// Connects to a port of a pod on this node, by the pod's address: what the network outside of the node delivers from
    /// another address.
    pub fn dial_from(&self, from: IpAddr, pod_ip: IpAddr, port: u16) -> io::Result<BoxedStream> {
        self.pod_at(pod_ip)?.network.accept(port, from)
    }

    /// [`SimRuntime::dial_from`], for datagrams.
    pub fn dial_udp_from(&self, from: IpAddr, pod_ip: IpAddr, port: u16) -> io::Result<UdpFlow> {
        self.pod_at(pod_ip)?.network.accept_udp(port, from)
    }

    fn pod_at(&self, ip: IpAddr) -> io::Result<Arc<Sandbox>> {
        let at = |sandbox: &Arc<Sandbox>| sandbox.network.ip == Some(ip) && sandbox.is_ready();
        Ok(self.sandboxes().into_iter().find(at).ok_or(io::ErrorKind::HostUnreachable)?)
    }

    /// Connects to a port of the node itself, where pods on the node's network listen.
    pub fn dial_host(&self, port: u16) -> io::Result<BoxedStream> {
        self.host_network.accept(port, Ipv4Addr::LOCALHOST.into())
    }

    /// Ends everything at once, as a power cut does: processes are gone without a word, and calls fail from now on.
    pub async fn power_off(&self) {
        self.powered_off.cancel();
        for container in self.containers() {
            container.kill();
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Fails once the node is switched off.
    pub(crate) fn check_power(&self) -> Result<()> {
        match self.powered_off.is_cancelled() {
            true => Err(Error::Stopped(self.node_name.clone())),
            false => Ok(()),
        }
    }

    /// A fresh id: 64 hexadecimal digits, as containerd's are.
    pub(crate) fn new_id(&self) -> String {
        let mut bytes = [0; 32];
        self.random.bytes(&mut bytes);
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(crate) fn now_nanos(&self) -> i64 {
        nanos(self.clock.now())
    }

    pub(crate) fn sandboxes(&self) -> Vec<Arc<Sandbox>> {
        self.state.read().sandboxes.values().cloned().collect()
    }

    pub(crate) fn containers(&self) -> Vec<Arc<Container>> {
        self.state.read().containers.values().cloned().collect()
    }

    /// The containers of a sandbox, the oldest first.
    pub(crate) fn containers_of(&self, sandbox_id: &str) -> Vec<Arc<Container>> {
        let state = self.state.read();
        let mut ours: Vec<_> =
            state.containers.values().filter(|container| container.sandbox_id == sandbox_id).cloned().collect();
        ours.sort_by_key(|container| container.created_at);
        ours
    }

    pub(crate) fn find_sandbox(&self, id: &str) -> Option<Arc<Sandbox>> {
        self.state.read().sandboxes.get(id).cloned()
    }

    /// A sandbox that must exist.
    pub(crate) fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>> {
        self.find_sandbox(id).ok_or_else(|| Error::NotFound { kind: "sandbox", id: id.to_string() })
    }

    pub(crate) fn find_container(&self, id: &str) -> Option<Arc<Container>> {
        self.state.read().containers.get(id).cloned()
    }

    /// A container that must exist.
    pub(crate) fn container(&self, id: &str) -> Result<Arc<Container>> {
        self.find_container(id).ok_or_else(|| Error::NotFound { kind: "container", id: id.to_string() })
    }

    /// Enters a sandbox under its name, which no other may have.
    pub(crate) fn add_sandbox(&self, sandbox: Arc<Sandbox>) -> Result<()> {
        let mut state = self.state.write();
        let same = |other: &&Arc<Sandbox>| other.config.metadata == sandbox.config.metadata;
        if let Some(other) = state.sandboxes.values().find(same) {
            return Err(Error::NameReserved { kind: "sandbox", name: sandbox.name(), id: other.id.clone() });
        }
        state.sandboxes.insert(sandbox.id.clone(), sandbox);
        Ok(())
    }

    /// Enters a container under its name, which no other of the sandbox may have.
    pub(crate) fn add_container(&self, container: Arc<Container>) -> Result<()> {
        let mut state = self.state.write();
        let same = |other: &&Arc<Container>| {
            other.sandbox_id == container.sandbox_id && other.config.metadata == container.config.metadata
        };
        if let Some(other) = state.containers.values().find(same) {
            let name = format!("{}_{}", container.metadata().name, container.metadata().attempt);
            return Err(Error::NameReserved { kind: "container", name, id: other.id.clone() });
        }
        state.containers.insert(container.id.clone(), container);
        Ok(())
    }

    pub(crate) fn forget_sandbox(&self, id: &str) {
        self.state.write().sandboxes.remove(id);
    }

    pub(crate) fn forget_container(&self, id: &str) {
        self.state.write().containers.remove(id);
    }
}

/// Nanoseconds since 1970, as CRI has all times.
pub(crate) fn nanos(time: jiff::Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX)
}
