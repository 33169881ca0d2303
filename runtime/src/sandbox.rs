//! Pod sandboxes: an address, a set of ports, a name.

use crate::fs::{Layer, LayerNode};
use crate::network::PodNetwork;
use crate::process::ProcessTable;
use crate::sim_runtime::SimRuntime;
use crate::{Error, Result};
use jiff::Timestamp;
use minik8s_cri::proto::{
    LinuxPodSandboxStatus, Namespace, NamespaceMode, NamespaceOption, PodSandbox, PodSandboxConfig, PodSandboxMetadata,
    PodSandboxNetworkStatus, PodSandboxState, PodSandboxStatus,
};
use parking_lot::Mutex;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

/// Parameters of the kernel that a sandbox has of its own, where its pod does not set them.
const SYSCTLS: [(&str, &str); 8] = [
    ("kernel.msgmax", "8192"),
    ("kernel.shm_rmid_forced", "0"),
    ("net.ipv4.conf.all.route_localnet", "0"),
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv4.ip_local_port_range", "32768\t60999"),
    ("net.ipv4.ip_unprivileged_port_start", "0"),
    ("net.ipv4.ping_group_range", "0\t2147483647"),
    ("net.ipv4.tcp_syncookies", "1"),
];

/// One sandbox.
pub(crate) struct Sandbox {
    pub id: String,
    pub config: PodSandboxConfig,
    pub runtime_handler: String,
    pub created_at: i64,
    pub network: Arc<PodNetwork>,
    pub hostname: String,
    /// `/etc/hostname`, `/etc/hosts`, `/etc/resolv.conf` and `/proc/sys`, for all its containers.
    pub files: Arc<Layer>,
    started: Timestamp,
    /// Made when a container is to be in it.
    processes: OnceLock<ProcessTable>,
    state: Mutex<State>,
}

struct State {
    ready: bool,
    /// The address to give back; taken when the sandbox stops.
    leased: Option<IpAddr>,
}

impl Sandbox {
    /// Sets up a sandbox: gives it an address, unless it is on the node's network.
    pub fn run(runtime: &SimRuntime, config: PodSandboxConfig, runtime_handler: String) -> Result<Sandbox> {
        if config.metadata.is_none() {
            return Err(Error::InvalidRequest("sandbox config must include metadata".to_string()));
        }
        let id = runtime.new_id();
        let host_network = namespaces(&config).network == NamespaceMode::Node as i32;
        let leased = match host_network {
            true => None,
            false => {
                let failed = |reason: &str| Error::Network { sandbox: id.clone(), reason: reason.to_string() };
                Some(runtime.ipam.allocate().map_err(failed)?)
            }
        };
        let hostname = match (config.hostname.as_str(), host_network) {
            ("", true) => runtime.node_name.clone(),
            ("", false) => id[..12].to_string(),
            (hostname, _) => hostname.to_string(),
        };
        let mut network = PodNetwork::new(leased, hostname.clone(), runtime.network.clone());
        if host_network {
            network = network.shared_with(&runtime.host_network);
        }
        let port = |mapping: &minik8s_cri::proto::PortMapping| u16::try_from(mapping.container_port).ok();
        network.declared_ports = config.port_mappings.iter().filter_map(port).collect();
        if let Some(dns) = &config.dns_config {
            network.dns_servers = dns.servers.clone();
            network.dns_searches = dns.searches.clone();
            let ndots = dns.options.iter().find_map(|option| option.strip_prefix("ndots:")?.parse().ok());
            network.dns_ndots = ndots.unwrap_or(1);
        }
        let files = Arc::new(network_files(&config, &hostname, leased));
        Ok(Sandbox {
            id,
            runtime_handler,
            created_at: runtime.now_nanos(),
            network: Arc::new(network),
            hostname,
            files,
            started: runtime.clock.now(),
            processes: OnceLock::new(),
            state: Mutex::new(State { ready: true, leased }),
            config,
        })
    }

    /// The PID namespace of the containers that share one.
    pub fn processes(&self) -> &ProcessTable {
        self.processes.get_or_init(|| ProcessTable::of_pod(self.started))
    }

    /// Makes it not ready; returns the address to give back, the first time.
    pub fn stop(&self) -> Option<IpAddr> {
        let mut state = self.state.lock();
        state.ready = false;
        state.leased.take()
    }

    pub fn is_ready(&self) -> bool {
        self.state.lock().ready
    }

    pub fn metadata(&self) -> PodSandboxMetadata {
        self.config.metadata.clone().unwrap_or_default()
    }

    /// The name that no two sandboxes share.
    pub fn name(&self) -> String {
        let PodSandboxMetadata { name, uid, namespace, attempt } = self.metadata();
        format!("{name}_{namespace}_{uid}_{attempt}")
    }

    pub fn cri_state(&self) -> i32 {
        match self.is_ready() {
            true => PodSandboxState::SandboxReady as i32,
            false => PodSandboxState::SandboxNotready as i32,
        }
    }

    pub fn to_cri(&self) -> PodSandbox {
        PodSandbox {
            id: self.id.clone(),
            metadata: self.config.metadata.clone(),
            state: self.cri_state(),
            created_at: self.created_at,
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            runtime_handler: self.runtime_handler.clone(),
        }
    }

    pub fn status(&self) -> PodSandboxStatus {
        // A stopped sandbox has no address any more.
        let ip = self.network.ip.filter(|_| self.is_ready()).map(|ip| ip.to_string()).unwrap_or_default();
        let options = Some(namespaces(&self.config));
        PodSandboxStatus {
            id: self.id.clone(),
            metadata: self.config.metadata.clone(),
            state: self.cri_state(),
            created_at: self.created_at,
            network: Some(PodSandboxNetworkStatus { ip, additional_ips: Vec::new() }),
            linux: Some(LinuxPodSandboxStatus { namespaces: Some(Namespace { options }) }),
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            runtime_handler: self.runtime_handler.clone(),
        }
    }
}

fn namespaces(config: &PodSandboxConfig) -> NamespaceOption {
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    security.and_then(|security| security.namespace_options.clone()).unwrap_or_default()
}

fn network_files(config: &PodSandboxConfig, hostname: &str, ip: Option<IpAddr>) -> Layer {
    let text = |text: String| LayerNode::File(text.into(), 0o644);
    let mut layer = Layer::default();
    layer.add("/etc/hostname", text(format!("{hostname}\n")));
    let own = ip.map(|ip| format!("{ip}\t{hostname}\n")).unwrap_or_default();
    layer.add("/etc/hosts", text(format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{own}")));
    if let Some(dns) = &config.dns_config {
        let mut resolv = String::new();
        if !dns.searches.is_empty() {
            resolv += &format!("search {}\n", dns.searches.join(" "));
        }
        dns.servers.iter().for_each(|server| resolv += &format!("nameserver {server}\n"));
        if !dns.options.is_empty() {
            resolv += &format!("options {}\n", dns.options.join(" "));
        }
        layer.add("/etc/resolv.conf", text(resolv));
    }
    let asked =
        config.linux.iter().flat_map(|linux| &linux.sysctls).map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in SYSCTLS.into_iter().chain(asked) {
        layer.add(&format!("/proc/sys/{}", name.replace('.', "/")), text(format!("{value}\n")));
    }
    layer
}
