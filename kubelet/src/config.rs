//! What a kubelet is told when it is made: who it is, what it works with, what its machine has.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{NodeAddress, Pod, Service, Taint};
use minik8s_client::{Client, Lister};
use minik8s_clock::{Clock, Random};
use minik8s_cri::{NodeFs, StreamConnector};

use crate::network::PodNetwork;
use crate::source::PodSource;

/// The port on which a kubelet's HTTPS API listens unless it is told another.
pub const KUBELET_PORT: u16 = 10250;
/// The version of Kubernetes whose behaviour this kubelet has, as nodes report it.
pub const KUBELET_VERSION: &str = "v1.37.2";

/// What the machine offers, as Kubernetes quantities.
#[derive(Clone, Debug)]
pub struct Capacity {
    /// CPUs, `4` or `3500m`.
    pub cpu: String,
    /// Memory, `8Gi`.
    pub memory: String,
    /// Disk for images, logs, writable layers and emptyDir volumes, `100Gi`.
    pub ephemeral_storage: String,
    /// How many pods may run.
    pub pods: u32,
    /// What of it pods may not have, by resource: for the system and for Kubernetes itself (`--system-reserved`,
    /// `--kube-reserved`).
    pub reserved: Vec<(String, String)>,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            cpu: "4".into(),
            memory: "8Gi".into(),
            ephemeral_storage: "100Gi".into(),
            pods: 110,
            reserved: Vec::new(),
        }
    }
}

/// What `kubectl get node -o yaml` shows under `status.nodeInfo`, beside what the runtime says of itself.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The operating system in `GOOS` words: `linux`.
    pub operating_system: String,
    /// The processor architecture in `GOARCH` words: `amd64`.
    pub architecture: String,
    /// The name of the distribution.
    pub os_image: String,
    /// The version of the kernel.
    pub kernel_version: String,
    /// The machine's stable identifier.
    pub machine_id: String,
    /// Changes with every boot; empty lets the kubelet draw one.
    pub boot_id: String,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            operating_system: "linux".into(),
            architecture: "amd64".into(),
            os_image: "minik8s simulated node".into(),
            kernel_version: "6.12.0-minik8s".into(),
            machine_id: String::new(),
            boot_id: String::new(),
        }
    }
}

/// A folder of manifests.
#[derive(Clone)]
pub struct ManifestFolder {
    /// The file system it is in, which need not be that of the node's containers.
    pub fs: Arc<dyn NodeFs>,
    /// Its path there.
    pub path: String,
}

/// Everything a kubelet needs from outside.
#[derive(Clone)]
pub struct KubeletConfig {
    /// The node's name; the client speaks as `system:node:NAME` of group `system:nodes`.
    pub node_name: String,
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub random: Random,
    /// The API.
    pub client: Client,
    /// The container runtime.
    pub cri: minik8s_cri::Client,
    /// The node's files, shared with the runtime.
    pub fs: Arc<dyn NodeFs>,
    /// How the runtime's streaming URLs (exec, attach, port-forward) are reached.
    pub streams: Arc<dyn StreamConnector>,
    /// How pods are reached, for probes and hooks.
    pub network: Arc<dyn PodNetwork>,
    /// The pods of the node, as the API has them.
    pub pods: Arc<dyn PodSource>,
    /// The Services of the cluster, for the environment of containers.
    pub services: Lister<Service>,
    /// What the machine offers.
    pub capacity: Capacity,
    /// What the machine is.
    pub machine: Machine,
    /// Labels the node registers with, beside those the kubelet adds itself (host name, system, architecture).
    pub labels: BTreeMap<String, String>,
    /// Taints the node registers with.
    pub taints: Vec<Taint>,
    /// The node's addresses; the first `InternalIP` is the host IP of its pods.
    pub addresses: Vec<NodeAddress>,
    /// The port that the Node names as the kubelet's own; the API server reaches it there, or through a `NodeConnector`.
    pub port: u16,
    /// The range pods get their addresses from. `None` waits for a controller to write it into the Node.
    pub pod_cidr: Option<String>,
    /// The addresses of the cluster's DNS servers.
    pub cluster_dns: Vec<String>,
    /// The DNS domain of the cluster.
    pub cluster_domain: String,
    /// Static pods given as objects.
    pub static_pods: Vec<Pod>,
    /// A folder in which manifests of static pods lie. Manifests may come, change and go while the kubelet runs.
    pub static_pod_path: Option<ManifestFolder>,
}
