//! `minik8s apiserver`: the API server in a process of its own, with the flags of kube-apiserver.
//!
//! What differs: the store is in `--data-dir` rather than behind `--etcd-servers`; a key for ServiceAccount tokens and a
//! serving certificate are made where none are given; without `--authorization-mode` it is Node and RBAC, where
//! kube-apiserver lets everybody do everything.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use minik8s_apiserver::admission::Selection;
use minik8s_apiserver::aggregator::FrontProxy;
use minik8s_apiserver::allocators::Ranges;
use minik8s_apiserver::authn::{RequestHeaders, StaticTokens};
use minik8s_apiserver::authz::Mode;
use minik8s_apiserver::outgoing::MachineNetwork;
use minik8s_apiserver::outgoing::tls::Identity;
use minik8s_apiserver::server::Limits;
use minik8s_apiserver::settings::{GroupVersion, Settings};
use tokio_util::task::TaskTracker;

use crate::cli::authentication::Authentication;
use crate::cli::flags::{self, ServingCertificate};
use crate::cli::process::{self, Process};
use crate::home::DataDir;
use crate::node;
use crate::pki::{self, CertifiedKey};
use crate::safeguards::Safeguards;
use crate::wiring::api_server::{self, Options, Surroundings};
use crate::wiring::kubelet_dialer::{self, KubeletDialer};
use crate::wiring::listener;

/// How long the parts have to end in good order.
const SHUT_DOWN_IN: Duration = Duration::from_secs(10);
/// How large and how small the network of Services may be, in bits of its prefix
/// (`pkg/controlplane/apiserver/options/validation.go`).
const SERVICE_PREFIX_BITS: std::ops::RangeInclusive<u8> = 12..=29;

/// The flags of the API server.
#[derive(Args)]
pub struct ApiServer {
    /// The port to serve HTTPS on
    #[arg(long, value_name = "PORT", default_value_t = 6443, value_parser = clap::value_parser!(u16).range(1..))]
    secure_port: u16,
    /// The address to serve on
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    bind_address: IpAddr,
    /// The address at which pods and nodes reach the server [default: --bind-address, else that of the default route]
    #[arg(long, value_name = "ADDRESS")]
    advertise_address: Option<IpAddr>,
    /// Where the server keeps its objects, and the keys and certificates that it makes
    #[arg(long, value_name = "DIR", required_unless_present = "ephemeral", conflicts_with = "ephemeral")]
    data_dir: Option<PathBuf>,
    /// Keep everything in memory
    #[arg(long)]
    ephemeral: bool,
    #[command(flatten)]
    certificate: ServingCertificate,
    #[command(flatten)]
    authentication: Authentication,
    #[command(flatten)]
    request_header: RequestHeader,
    #[command(flatten)]
    kubelets: Kubelets,
    /// Who is asked whether a request may be, in this order: Node, RBAC, AlwaysAllow, AlwaysDeny
    #[arg(long, value_name = "MODES", value_delimiter = ',', default_value = "Node,RBAC")]
    authorization_mode: Vec<String>,
    /// Admission plugins that run beside the default ones; all there are run by default
    #[arg(long, value_name = "PLUGINS", value_delimiter = ',')]
    enable_admission_plugins: Vec<String>,
    /// Admission plugins that do not run
    #[arg(long, value_name = "PLUGINS", value_delimiter = ',')]
    disable_admission_plugins: Vec<String>,
    /// The network of the cluster IPs of Services
    #[arg(long, value_name = "NETWORK", default_value = "10.96.0.0/16", value_parser = flags::network)]
    service_cluster_ip_range: (Ipv4Addr, u8),
    /// The ports of Services on nodes, both ends included
    #[arg(long, value_name = "FIRST-LAST", default_value = "30000-32767", value_parser = port_range)]
    service_node_port_range: (u16, u16),
    /// How many reads are handled at once
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = positive)]
    max_requests_inflight: usize,
    /// How many writes are handled at once
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = positive)]
    max_mutating_requests_inflight: usize,
    /// How long a request that ends by itself may take
    #[arg(long, value_name = "DURATION", default_value = "1m0s", value_parser = flags::duration)]
    request_timeout: Duration,
    /// Seconds after which a watch ends that names no time of its own; up to twice as many
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    min_request_timeout: u64,
    /// How long Events are kept
    #[arg(long, value_name = "DURATION", default_value = "1h0m0s", value_parser = flags::duration)]
    event_ttl: Duration,
    /// Groups and versions that are not served: batch/v1=false,…
    #[arg(long, value_name = "GROUP/VERSION=BOOL", value_delimiter = ',', value_parser = flags::pair)]
    runtime_config: Vec<(String, String)>,
    #[command(flatten)]
    safeguards: Safeguards,
    /// The store is the server's own: see --data-dir
    #[arg(long, hide = true)]
    etcd_servers: Option<String>,
}

/// Authenticating proxies in front of the server.
#[derive(Args)]
struct RequestHeader {
    /// Who signs the client certificates of proxies that name the user in headers (PEM)
    #[arg(long, value_name = "FILE")]
    requestheader_client_ca_file: Option<PathBuf>,
    /// The common names that such a certificate may have; any, where none is given
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    requestheader_allowed_names: Vec<String>,
    /// Headers with the user's name
    #[arg(long, value_name = "HEADERS", value_delimiter = ',', default_value = "x-remote-user")]
    requestheader_username_headers: Vec<String>,
    /// Headers with the user's UID
    #[arg(long, value_name = "HEADERS", value_delimiter = ',')]
    requestheader_uid_headers: Vec<String>,
    /// Headers with the user's groups
    #[arg(long, value_name = "HEADERS", value_delimiter = ',', default_value = "x-remote-group")]
    requestheader_group_headers: Vec<String>,
    /// Prefixes of headers with what else is known of the user
    #[arg(long, value_name = "PREFIXES", value_delimiter = ',', default_value = "x-remote-extra-")]
    requestheader_extra_headers_prefix: Vec<String>,
    /// The server's own certificate (PEM) as such a proxy, for the servers behind APIServices
    #[arg(long, value_name = "FILE", requires_all = ["proxy_client_key_file", "requestheader_client_ca_file"])]
    proxy_client_cert_file: Option<PathBuf>,
    /// The private key (PEM) of --proxy-client-cert-file
    #[arg(long, value_name = "FILE", requires = "proxy_client_cert_file")]
    proxy_client_key_file: Option<PathBuf>,
}

/// The way to kubelets.
#[derive(Args)]
struct Kubelets {
    /// Who signs the kubelets' serving certificates (PEM); they are not verified without it
    #[arg(long, value_name = "FILE")]
    kubelet_certificate_authority: Option<PathBuf>,
    /// The server's certificate (PEM) as a client of kubelets
    #[arg(long, value_name = "FILE", requires = "kubelet_client_key")]
    kubelet_client_certificate: Option<PathBuf>,
    /// The private key (PEM) of --kubelet-client-certificate
    #[arg(long, value_name = "FILE", requires = "kubelet_client_certificate")]
    kubelet_client_key: Option<PathBuf>,
    /// Which of a Node's addresses is taken: the first of these that it has
    #[arg(long, value_name = "TYPES", value_delimiter = ',', default_values_t = kubelet_dialer::ADDRESS_TYPES.map(str::to_owned))]
    kubelet_preferred_address_types: Vec<String>,
}

impl ApiServer {
    /// Runs the server until it is told to end.
    pub fn run(self) -> Result<()> {
        if self.etcd_servers.is_some() {
            bail!("--etcd-servers is not supported: the server keeps its objects itself, in --data-dir");
        }
        process::run(|process| self.serve(process))
    }

    async fn serve(self, process: Process) -> Result<()> {
        let Process { clock, random, stop } = process;
        let dir = self.data_dir.clone().map(|path| DataDir { path });
        let _lock = dir.as_ref().map(DataDir::lock).transpose()?;
        let advertise = self.advertise()?;
        let pki = dir.as_ref().map(DataDir::pki);
        if let Some(pki) = &pki {
            std::fs::create_dir_all(pki).with_context(|| format!("cannot create {}", pki.display()))?;
        }
        let names = self.server_names(advertise.ip());
        let certificate = self.certificate.load(pki.as_deref(), "apiserver", &names, &clock)?;
        let options = self.options(advertise, pki.as_deref())?;
        let dialer = Arc::new(KubeletDialer::new(&self.kubelets.options()?, clock.clone())?);
        let listener = listener::bind(SocketAddr::from((self.bind_address, self.secure_port))).await?;

        let store = api_server::open_store(dir.as_ref().map(DataDir::store).as_deref(), &clock, &random).await?;
        let around = Surroundings {
            store: store.clone(),
            clock: clock.clone(),
            random,
            nodes: dialer.clone(),
            dialer: Arc::new(MachineNetwork),
            metrics: Default::default(),
            components: Vec::new(),
            extra_routes: axum::Router::new(),
        };
        let (running, tasks) = (stop.child_token(), TaskTracker::new());
        let api = api_server::start(options, around, &running).await?;
        dialer.attach(&api);
        api_server::listen(&api, listener, &certificate, &running, &tasks)?;
        tracing::info!(address = %self.bind_address, port = self.secure_port, "serving securely");

        stop.cancelled().await;
        tasks.close();
        let ended = async {
            tasks.wait().await;
            api.stopped().await;
        };
        if clock.timeout(SHUT_DOWN_IN, ended).await.is_err() {
            tracing::warn!("not everything ended within {} s", SHUT_DOWN_IN.as_secs());
        }
        store.shutdown().await;
        Ok(())
    }

    fn advertise(&self) -> Result<SocketAddr> {
        let address = match self.advertise_address {
            Some(address) => address,
            None if self.bind_address.is_unspecified() => {
                flags::machine_address().context("the machine has no default route; say --advertise-address")?
            }
            None => self.bind_address,
        };
        Ok(SocketAddr::from((address, self.secure_port)))
    }

    /// The names and addresses in a certificate that the server makes for itself.
    fn server_names(&self, advertise: IpAddr) -> Vec<String> {
        let mut names = node::service_names();
        names.push(Ipv4Addr::from(u32::from(self.service_cluster_ip_range.0) + 1).to_string());
        for own in [advertise.to_string(), self.bind_address.to_string()] {
            if own != "0.0.0.0" && own != "::" && !names.contains(&own) {
                names.push(own);
            }
        }
        names
    }

    fn options(&self, advertise: SocketAddr, pki: Option<&std::path::Path>) -> Result<Options> {
        let authentication = &self.authentication;
        let made = pki.map(|pki| pki.join("sa.key"));
        let service_account_key_pem = match &authentication.service_account_signing_key_file {
            Some(file) => flags::read(file)?,
            None => pki::service_account_key(made.as_deref())?,
        };
        let static_tokens = match flags::read_optional(authentication.token_auth_file.as_ref())? {
            Some(text) => StaticTokens::parse(&text)?,
            None => StaticTokens::default(),
        };
        let service_network = self.service_cluster_ip_range;
        if !SERVICE_PREFIX_BITS.contains(&service_network.1) {
            let (least, most) = SERVICE_PREFIX_BITS.into_inner();
            bail!("--service-cluster-ip-range: a prefix of {least} to {most} bits is wanted");
        }
        Ok(Options {
            service_account_key_pem,
            client_ca_pem: flags::read_optional(authentication.client_ca_file.as_ref())?.unwrap_or_default(),
            static_tokens,
            ranges: Ranges { service_network, node_ports: self.service_node_port_range },
            advertise,
            limits: Limits {
                reads: self.max_requests_inflight,
                writes: self.max_mutating_requests_inflight,
                ..Limits::default()
            },
            settings: self.settings()?,
            front_proxy: self.request_header.front_proxy()?,
            audit: self.safeguards.audit()?,
            encryption: self.safeguards.encryption()?,
        })
    }

    fn settings(&self) -> Result<Settings> {
        let authentication = &self.authentication;
        let words = |words: String| anyhow!(words);
        let modes = self.authorization_mode.iter().map(|name| Mode::parse(name).map_err(words));
        let admission = Selection::new(&self.enable_admission_plugins, &self.disable_admission_plugins);
        Ok(Settings {
            authentication: authentication.configuration(&self.safeguards)?,
            bootstrap_tokens: authentication.enable_bootstrap_token_auth,
            request_headers: self.request_header.read()?,
            issuers: authentication.service_account_issuer.clone(),
            audiences: authentication.api_audiences.clone(),
            public_keys: authentication.public_keys()?,
            authorization: modes.collect::<Result<_>>()?,
            admission: admission.map_err(words)?,
            request_timeout: self.request_timeout,
            min_request_timeout: Duration::from_secs(self.min_request_timeout),
            event_ttl: self.event_ttl,
            unserved: unserved(&self.runtime_config)?,
        })
    }
}

impl RequestHeader {
    fn read(&self) -> Result<Option<RequestHeaders>> {
        let Some(ca_pem) = flags::read_optional(self.requestheader_client_ca_file.as_ref())? else {
            return Ok(None);
        };
        Ok(Some(RequestHeaders {
            ca: pki::all_der(&ca_pem).context("--requestheader-client-ca-file")?,
            ca_pem,
            allowed_names: self.requestheader_allowed_names.clone(),
            username: self.requestheader_username_headers.clone(),
            uid: self.requestheader_uid_headers.clone(),
            group: self.requestheader_group_headers.clone(),
            extra_prefix: self.requestheader_extra_headers_prefix.clone(),
        }))
    }

    fn front_proxy(&self) -> Result<Option<FrontProxy>> {
        let files = (&self.proxy_client_cert_file, &self.proxy_client_key_file, &self.requestheader_client_ca_file);
        let (Some(cert), Some(key), Some(ca)) = files else { return Ok(None) };
        let identity = Identity {
            chain: pki::all_der(&flags::read(cert)?).context("--proxy-client-cert-file")?,
            key: pki::private_key(&flags::read(key)?).context("--proxy-client-key-file")?,
        };
        Ok(Some(FrontProxy { ca_pem: flags::read(ca)?, identity }))
    }
}

impl Kubelets {
    fn options(&self) -> Result<kubelet_dialer::Options> {
        let client = match (&self.kubelet_client_certificate, &self.kubelet_client_key) {
            (Some(cert), Some(key)) => Some(CertifiedKey { cert_pem: flags::read(cert)?, key_pem: flags::read(key)? }),
            _ => None,
        };
        let known = kubelet_dialer::ADDRESS_TYPES;
        if let Some(wrong) = self.kubelet_preferred_address_types.iter().find(|kind| !known.contains(&kind.as_str())) {
            bail!("--kubelet-preferred-address-types: {wrong:?} is none of {}", known.join(", "));
        }
        Ok(kubelet_dialer::Options {
            ca_pem: flags::read_optional(self.kubelet_certificate_authority.as_ref())?,
            client,
            address_types: self.kubelet_preferred_address_types.clone(),
        })
    }
}

/// The groups and versions that `--runtime-config` switches off. Alpha and beta versions are not served, so that they
/// cannot be switched on, and switching them off changes nothing.
fn unserved(config: &[(String, String)]) -> Result<Vec<GroupVersion>> {
    let mut unserved = Vec::new();
    for (name, value) in config {
        let on = match value.as_str() {
            "true" | "" => true,
            "false" => false,
            other => bail!("--runtime-config: {name}={other}: true or false is wanted"),
        };
        let (group, version) = name.split_once('/').unwrap_or(("", name));
        let unstable = version.contains("alpha") || version.contains("beta") || ["alpha", "beta"].contains(&version);
        match (group, on) {
            (_, true) if unstable => bail!("--runtime-config: {name}: alpha and beta versions are not part of minik8s"),
            (_, false) if unstable => {}
            ("api", true) => {}
            ("api", false) => bail!("--runtime-config: {name}=false: name the groups and versions, as batch/v1=false"),
            (_, true) => {}
            (group, false) => unserved.push((group.to_owned(), version.to_owned())),
        }
    }
    Ok(unserved)
}

/// `30000-32767`.
fn port_range(text: &str) -> Result<(u16, u16)> {
    let parse = || {
        let (first, last) = text.split_once('-')?;
        let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
        (first > 0 && first <= last).then_some((first, last))
    };
    parse().with_context(|| format!("{text:?} is no range of ports: write 30000-32767"))
}

fn positive(text: &str) -> Result<usize> {
    let number: usize = text.parse()?;
    if number == 0 {
        bail!("a number greater than 0 is wanted");
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtime_config_names_what_is_not_served() {
        let read = |text: &[(&str, &str)]| {
            unserved(&text.iter().map(|(name, on)| ((*name).to_owned(), (*on).to_owned())).collect::<Vec<_>>())
        };
        assert_eq!(
            read(&[("batch/v1", "false"), ("api/beta", "false"), ("apps/v1", "true")]).unwrap(),
            [("batch".to_owned(), "v1".to_owned())]
        );
        assert!(read(&[("resource.k8s.io/v1beta1", "true")]).is_err());
        assert!(read(&[("api/all", "false")]).is_err());
        assert!(read(&[("batch/v1", "perhaps")]).is_err());
    }

    #[test]
    fn ports_are_a_range() {
        assert_eq!(port_range("30000-32767").unwrap(), (30000, 32767));
        for wrong in ["30000", "2-1", "0-1", "a-b"] {
            assert!(port_range(wrong).is_err(), "{wrong}");
        }
    }
}
