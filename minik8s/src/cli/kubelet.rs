//! `minik8s kubelet`: a node in a process of its own, with the flags of the kubelet.
//!
//! The node is a simulated machine: its disk is a folder, its containers are simulated, and it ends with the process as a
//! machine ends that loses power. What differs from Kubernetes' kubelet: its API is closed by default as with a
//! configuration file there (no anonymous requests, authorization by the API server), and a loopback `--node-ip` is taken.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{ArgAction, Args};
use k8s_openapi::api::core::v1::Service;
use minik8s_client::InformerFactory;
use minik8s_clock::Clock;
use minik8s_cri::{DiskFs, NodeFs};
use minik8s_kubelet::{Capacity, KUBELET_PORT, ManifestFolder};
use minik8s_runtime::image::Profiles;

use crate::cli::flags::{self, ServingCertificate};
use crate::cli::kubelet_config::KubeletConfiguration;
use crate::cli::process::{self, Process};
use crate::node::{DEFAULT_CPU, DEFAULT_MEMORY, check_name, parse_taint};
use crate::pki::CertifiedKey;
use crate::wiring::access::ApiAccess;
use crate::wiring::guard::{Guard, Rules};
use crate::wiring::leadership::host_name;
use crate::wiring::machine::{self, Dns, Parts};
use crate::wiring::{kubelet_port, listener};

/// How long the kubelet has to end in good order.
const SHUT_DOWN_IN: Duration = Duration::from_secs(10);
/// How much the simulated machine's disk is said to hold: what its Node offers as ephemeral storage.
const DISK_BYTES: u64 = 100 << 30;
/// The runtime that comes with this program.
const SIMULATED: &str = "sim";

/// The flags of the kubelet.
#[derive(Args)]
pub struct Kubelet {
    /// The kubeconfig by which the API is reached, as system:node:NAME of the group system:nodes
    #[arg(long, value_name = "FILE")]
    kubeconfig: PathBuf,
    /// The node's name [default: the machine's]
    #[arg(long, value_name = "NAME")]
    hostname_override: Option<String>,
    /// The node's address [default: that of the default route]
    #[arg(long, value_name = "ADDRESS")]
    node_ip: Option<IpAddr>,
    /// Labels to register the Node with
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', value_parser = flags::pair)]
    node_labels: Vec<(String, String)>,
    /// Taints to register the Node with
    #[arg(long, value_name = "KEY=VALUE:EFFECT", value_delimiter = ',')]
    register_with_taints: Vec<String>,
    /// A KubeletConfiguration; flags go before it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The address to serve HTTPS on [default: 0.0.0.0]
    #[arg(long, value_name = "ADDRESS")]
    address: Option<IpAddr>,
    /// The port to serve HTTPS on [default: 10250]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    #[command(flatten)]
    certificate: ServingCertificate,
    #[command(flatten)]
    access: Access,
    /// The folder that is the simulated machine's disk
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet")]
    root_dir: PathBuf,
    /// A folder of manifests of static pods
    #[arg(long, value_name = "DIR")]
    pod_manifest_path: Option<PathBuf>,
    /// How the container runtime is reached: sim, for the one in this program [default: sim]
    #[arg(long, value_name = "ENDPOINT")]
    container_runtime_endpoint: Option<String>,
    /// How many pods may run [default: 110]
    #[arg(long, value_name = "N")]
    max_pods: Option<u32>,
    /// What the system keeps for itself: cpu=100m,memory=1Gi
    #[arg(long, value_name = "RESOURCE=QUANTITY", value_delimiter = ',', value_parser = flags::pair)]
    system_reserved: Vec<(String, String)>,
    /// What Kubernetes keeps for itself: cpu=100m,memory=1Gi
    #[arg(long, value_name = "RESOURCE=QUANTITY", value_delimiter = ',', value_parser = flags::pair)]
    kube_reserved: Vec<(String, String)>,
    /// The addresses of the cluster's DNS [default: 10.96.0.10]
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',')]
    cluster_dns: Vec<String>,
    /// The cluster's domain [default: cluster.local]
    #[arg(long, value_name = "DOMAIN")]
    cluster_domain: Option<String>,
    /// The range of the node's pods, where no controller gives one
    #[arg(long, value_name = "NETWORK")]
    pod_cidr: Option<String>,
    /// The CPU of the simulated machine
    #[arg(long, value_name = "QUANTITY", default_value = DEFAULT_CPU, help_heading = "Simulated machine")]
    cpu: String,
    /// The memory of the simulated machine
    #[arg(long, value_name = "QUANTITY", default_value = DEFAULT_MEMORY, help_heading = "Simulated machine")]
    memory: String,
}

/// Who may ask the kubelet something.
#[derive(Args)]
struct Access {
    /// Whose client certificates are good (PEM)
    #[arg(long, value_name = "FILE")]
    client_ca_file: Option<PathBuf>,
    /// Serve requests without credentials, as system:anonymous [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          action = ArgAction::Set)]
    anonymous_auth: Option<bool>,
    /// Ask the API server whose tokens are [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          action = ArgAction::Set)]
    authentication_token_webhook: Option<bool>,
    /// Webhook, to ask the API server what users may, or AlwaysAllow [default: Webhook]
    #[arg(long, value_name = "MODE", value_parser = ["Webhook", "AlwaysAllow"])]
    authorization_mode: Option<String>,
}

impl Access {
    fn rules(&self, file: &KubeletConfiguration, node: &str) -> Result<Rules> {
        let authentication = &file.authentication;
        let ca = self.client_ca_file.as_ref().or(authentication.x509.client_ca_file.as_ref());
        let mode = self.authorization_mode.clone().or_else(|| file.authorization.mode.clone());
        let authorize = match mode.as_deref().unwrap_or("Webhook") {
            "Webhook" => true,
            "AlwaysAllow" => false,
            other => bail!("authorization mode {other:?} is none of Webhook, AlwaysAllow"),
        };
        let webhook = self.authentication_token_webhook.or(authentication.webhook.enabled);
        Ok(Rules {
            client_ca_pem: flags::read_optional(ca)?.unwrap_or_default(),
            anonymous: self.anonymous_auth.or(authentication.anonymous.enabled).unwrap_or(false),
            tokens: webhook.unwrap_or(true),
            authorize,
            plain: true,
            questions: kubelet_port::node_questions(node),
        })
    }
}

impl Kubelet {
    /// Runs the node until it is told to end.
    pub fn run(self) -> Result<()> {
        process::run(|process| self.serve(process))
    }

    async fn serve(self, process: Process) -> Result<()> {
        let Process { clock, random, stop } = process;
        let file = self.config.as_deref().map(KubeletConfiguration::read).transpose()?.unwrap_or_default();
        self.check_runtime(&file)?;
        let name = self.hostname_override.as_ref().map_or_else(host_name, |name| name.trim().to_lowercase());
        check_name(&name)?;
        let address = match self.node_ip {
            Some(address) => address,
            None => flags::machine_address().context("the machine has no default route; say --node-ip")?,
        };
        let port = self.port.or(file.port).unwrap_or(KUBELET_PORT);
        let listen = self.address.or(file.address).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let listener = listener::bind(SocketAddr::from((listen, port))).await?;
        let certificate = self.certificate(&file, &name, address, &clock)?;
        let client = ApiAccess::read(&self.kubeconfig, &clock, &random).await?.client("kubelet")?;
        let guard = Guard::new(self.access.rules(&file, &name)?, client.clone())?;

        let informers = InformerFactory::new(client.clone(), stop.clone());
        let services = informers.informer::<Service>().lister();
        informers.start();
        let disk = DiskFs::new(&self.root_dir).map(|disk| disk.with_capacity(DISK_BYTES));
        let disk = disk.with_context(|| format!("cannot use {}: say --root-dir", self.root_dir.display()))?;
        let parts = Parts {
            name: name.clone(),
            clock: clock.clone(),
            random: random.clone(),
            client,
            services,
            disk: Arc::new(disk),
            profiles: Profiles::builtin(),
            host_programs: BTreeMap::new(),
            capacity: self.capacity(&file),
            boot_id: random.uuid(),
            labels: self.node_labels.iter().cloned().collect::<BTreeMap<_, _>>(),
            taints: self.taints(&file)?,
            address: address.to_string(),
            port,
            pod_cidr: self.pod_cidr.clone().or_else(|| file.pod_cidr.clone()),
            dns: self.dns(&file),
            static_pods: Vec::new(),
            manifests: self.manifests(&file)?,
        };
        let machine = machine::assemble(parts, &stop)?;
        kubelet_port::serve(&machine.kubelet, listener, &certificate, &guard, clock.clone(), stop.clone())?;
        tracing::info!(node = name, %listen, port, "starting to listen");
        machine.kubelet.clone().run(stop).await;
        // As a machine that loses power: containers do not outlive it.
        let _ = clock.timeout(SHUT_DOWN_IN, machine.runtime.power_off()).await;
        Ok(())
    }

    fn check_runtime(&self, file: &KubeletConfiguration) -> Result<()> {
        let endpoint = self.container_runtime_endpoint.as_ref().or(file.container_runtime_endpoint.as_ref());
        match endpoint.map(String::as_str) {
            None | Some(SIMULATED) => Ok(()),
            Some(socket) => bail!(
                "--container-runtime-endpoint {socket}: runtimes behind a socket are not supported yet; {SIMULATED:?} is the \
                 one in this program"
            ),
        }
    }

    fn certificate(
        &self,
        file: &KubeletConfiguration,
        name: &str,
        address: IpAddr,
        clock: &Clock,
    ) -> Result<CertifiedKey> {
        let mut flags = self.certificate.clone();
        if flags.tls_cert_file.is_none() {
            flags.tls_cert_file = file.tls_cert_file.clone();
            flags.tls_private_key_file = file.tls_private_key_file.clone();
        }
        if flags.tls_cert_file.is_some() != flags.tls_private_key_file.is_some() {
            bail!("tlsCertFile and tlsPrivateKeyFile belong together");
        }
        let pki = self.root_dir.join("pki");
        flags.load(Some(&pki), "kubelet", &[name.to_owned(), address.to_string()], clock)
    }

    fn capacity(&self, file: &KubeletConfiguration) -> Capacity {
        let default = Capacity::default();
        let reserved = |flags: &[(String, String)], file: &BTreeMap<String, String>| -> Vec<(String, String)> {
            if flags.is_empty() { file.clone().into_iter().collect() } else { flags.to_vec() }
        };
        let system = reserved(&self.system_reserved, &file.system_reserved);
        Capacity {
            cpu: self.cpu.clone(),
            memory: self.memory.clone(),
            pods: self.max_pods.or(file.max_pods).unwrap_or(default.pods),
            reserved: system.into_iter().chain(reserved(&self.kube_reserved, &file.kube_reserved)).collect(),
            ..default
        }
    }

    fn taints(&self, file: &KubeletConfiguration) -> Result<Vec<k8s_openapi::api::core::v1::Taint>> {
        if self.register_with_taints.is_empty() {
            return Ok(file.register_with_taints.clone());
        }
        self.register_with_taints.iter().map(|text| parse_taint(text)).collect()
    }

    fn dns(&self, file: &KubeletConfiguration) -> Dns {
        let servers = if self.cluster_dns.is_empty() { &file.cluster_dns } else { &self.cluster_dns };
        let domain = self.cluster_domain.clone().or_else(|| file.cluster_domain.clone());
        Dns {
            servers: if servers.is_empty() { vec![crate::node::CLUSTER_DNS.to_owned()] } else { servers.clone() },
            domain: domain.unwrap_or_else(|| crate::node::CLUSTER_DOMAIN.to_owned()),
        }
    }

    fn manifests(&self, file: &KubeletConfiguration) -> Result<Option<ManifestFolder>> {
        let Some(folder) = self.pod_manifest_path.as_ref().or(file.static_pod_path.as_ref()) else { return Ok(None) };
        let fs = DiskFs::new(folder).with_context(|| format!("cannot read {}", folder.display()))?;
        Ok(Some(ManifestFolder { fs: Arc::new(fs) as Arc<dyn NodeFs>, path: "/".to_owned() }))
    }
}
