//! One node: a disk, a runtime, a kubelet.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;
use k8s_openapi::api::core::v1::{NodeAddress, Pod, Service, Taint};
use minik8s_client::{Client, Lister};
use minik8s_clock::{Clock, Random};
use minik8s_cri::NodeFs;
use minik8s_kubelet::{Capacity, InformerPodSource, Kubelet, KubeletConfig, Machine, ManifestFolder, PodNetwork};
use minik8s_runtime::image::Profiles;
use minik8s_runtime::process::Program;
use minik8s_runtime::{SimConfig, SimRuntime, Unreachable};
use minik8s_streaming::BoxedStream;
use tokio_util::sync::CancellationToken;

/// What a node is made of.
pub struct Parts {
    /// Its name.
    pub name: String,
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub random: Random,
    /// The API, as this node.
    pub client: Client,
    /// The Services, for the environment of containers.
    pub services: Lister<Service>,
    /// Its disk.
    pub disk: Arc<dyn NodeFs>,
    /// What images do.
    pub profiles: Arc<Profiles>,
    /// Programs of this process that containers may run.
    pub host_programs: BTreeMap<String, Arc<dyn Program>>,
    /// What it offers.
    pub capacity: Capacity,
    /// Changes with every start.
    pub boot_id: String,
    /// Labels beside the standard ones.
    pub labels: BTreeMap<String, String>,
    /// Taints it registers with.
    pub taints: Vec<Taint>,
    /// Its address in the network of the nodes.
    pub address: String,
    /// The port of its kubelet.
    pub port: u16,
    /// The range of its pods; `None` leaves it to a controller.
    pub pod_cidr: Option<String>,
    /// The cluster's DNS.
    pub dns: Dns,
    /// Pods that it runs without the API.
    pub static_pods: Vec<Pod>,
    /// Where manifests of more of them lie.
    pub manifests: Option<ManifestFolder>,
}

/// How containers resolve names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// The addresses of the servers.
    pub servers: Vec<String>,
    /// The cluster's domain.
    pub domain: String,
}

/// A node that is switched on: its kubelet still has to be run.
pub struct Assembled {
    /// The agent.
    pub kubelet: Arc<Kubelet>,
    /// The runtime.
    pub runtime: Arc<SimRuntime>,
}

/// Writes what a machine's disk holds from the start.
///
/// # Errors
/// The file system's.
pub fn install(disk: &dyn NodeFs, name: &str, address: &str) -> io::Result<()> {
    disk.create_dir_all("/etc")?;
    disk.write("/etc/hosts", format!("127.0.0.1\tlocalhost\n{address}\t{name}\n").as_bytes())?;
    disk.write("/etc/hostname", format!("{name}\n").as_bytes())?;
    disk.write("/etc/os-release", b"NAME=\"minik8s simulated node\"\nID=minik8s\n")
}

/// Puts a node together. Its watch of pods ends with `cancel`.
///
/// # Errors
/// A capacity that is no quantity, an image name that is none.
pub fn assemble(parts: Parts, cancel: &CancellationToken) -> Result<Assembled> {
    let images = parts.static_pods.iter().flat_map(|pod| pod.spec.iter().flat_map(|spec| &spec.containers));
    let runtime = SimRuntime::new(SimConfig {
        node_name: parts.name.clone(),
        clock: parts.clock.clone(),
        random: parts.random.fork(),
        fs: parts.disk.clone(),
        profiles: parts.profiles,
        host_programs: parts.host_programs,
        network: Arc::new(Unreachable),
        preloaded_images: images.filter_map(|container| container.image.clone()).collect(),
    })?;
    let address = |kind: &str, address: &str| NodeAddress { type_: kind.to_owned(), address: address.to_owned() };
    let kubelet = Kubelet::new(KubeletConfig {
        node_name: parts.name.clone(),
        clock: parts.clock,
        random: parts.random.fork(),
        pods: Arc::new(InformerPodSource::of_node(parts.client.clone(), &parts.name, cancel.clone())),
        client: parts.client,
        cri: minik8s_cri::Client::in_process(runtime.clone()),
        fs: parts.disk,
        streams: runtime.stream_connector(),
        network: Arc::new(NodeNetwork(runtime.clone())),
        services: parts.services,
        capacity: parts.capacity,
        machine: Machine {
            machine_id: parts.random.uuid().replace('-', ""),
            boot_id: parts.boot_id,
            ..Machine::default()
        },
        labels: parts.labels,
        taints: parts.taints,
        addresses: vec![address("InternalIP", &parts.address), address("Hostname", &parts.name)],
        port: parts.port,
        pod_cidr: parts.pod_cidr,
        cluster_dns: parts.dns.servers,
        cluster_domain: parts.dns.domain,
        static_pods: parts.static_pods,
        static_pod_path: parts.manifests,
    })?;
    Ok(Assembled { kubelet, runtime })
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
