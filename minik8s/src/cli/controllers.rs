//! `minik8s controllers`: the controllers in a process of their own, with the flags of kube-controller-manager.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use clap::{ArgAction, Args};
use minik8s_client::Client;
use minik8s_controllers::certificates::authority::SIGNING_DURATION;
use minik8s_controllers::{Config, Keys, NodeIpamConfig, NodeLifecycleConfig, table};

use crate::cli::flags::{self, LeaderElection, SecureServing};
use crate::cli::process::{self, Process};
use crate::wiring::access::ApiAccess;
use crate::wiring::leadership::host_name;
use crate::wiring::{clients, leadership, listener, secure_port};

const COMPONENT: &str = "kube-controller-manager";
const NODE_IPAM: &str = "node-ipam-controller";
const BOOTSTRAP_SIGNER: &str = "bootstrap-signer-controller";
const TOKEN_CLEANER: &str = "token-cleaner-controller";

/// What `*` does not stand for (`KCMDisabledByDefault`); kubeadm names these two.
const DISABLED_BY_DEFAULT: [&str; 2] = [BOOTSTRAP_SIGNER, TOKEN_CLEANER];

/// The controllers of kube-controller-manager that this program does not have
/// (`cmd/kube-controller-manager/names/controller_names.go`); those it has are in the table.
const ABSENT: [&str; 12] = [
    "cloud-node-lifecycle-controller",
    "device-taint-eviction-controller",
    "horizontal-pod-autoscaler-controller",
    "kube-apiserver-serving-clustertrustbundle-publisher-controller",
    "node-route-controller",
    "persistentvolume-attach-detach-controller",
    "persistentvolume-expander-controller",
    "resourceclaim-controller",
    "selinux-warning-controller",
    "service-lb-controller",
    "storage-version-migrator-controller",
    "storageversion-garbage-collector-controller",
];

/// The older names that `--controllers` takes too (`cmd/kube-controller-manager/names`, `KCMControllerAliases`).
const ALIASES: [(&str, &str); 33] = [
    ("bootstrapsigner", BOOTSTRAP_SIGNER),
    ("clusterrole-aggregation", "clusterrole-aggregation-controller"),
    ("cronjob", "cronjob-controller"),
    ("csrapproving", "certificatesigningrequest-approving-controller"),
    ("csrcleaner", "certificatesigningrequest-cleaner-controller"),
    ("csrsigning", "certificatesigningrequest-signing-controller"),
    ("daemonset", "daemonset-controller"),
    ("deployment", "deployment-controller"),
    ("disruption", "disruption-controller"),
    ("endpoint", "endpoints-controller"),
    ("endpointslice", "endpointslice-controller"),
    ("endpointslicemirroring", "endpointslice-mirroring-controller"),
    ("garbagecollector", "garbage-collector-controller"),
    ("job", "job-controller"),
    ("legacy-service-account-token-cleaner", "legacy-serviceaccount-token-cleaner-controller"),
    ("namespace", "namespace-controller"),
    ("nodeipam", "node-ipam-controller"),
    ("nodelifecycle", "node-lifecycle-controller"),
    ("persistentvolume-binder", "persistentvolume-binder-controller"),
    ("podgc", "pod-garbage-collector-controller"),
    ("pv-protection", "persistentvolume-protection-controller"),
    ("pvc-protection", "persistentvolumeclaim-protection-controller"),
    ("replicaset", "replicaset-controller"),
    ("replicationcontroller", "replicationcontroller-controller"),
    ("resourcequota", "resourcequota-controller"),
    ("root-ca-cert-publisher", "root-ca-certificate-publisher-controller"),
    ("serviceaccount", "serviceaccount-controller"),
    ("serviceaccount-token", "serviceaccount-token-controller"),
    ("statefulset", "statefulset-controller"),
    ("tokencleaner", TOKEN_CLEANER),
    ("ttl", "ttl-controller"),
    ("ttl-after-finished", "ttl-after-finished-controller"),
    ("horizontalpodautoscaling", "horizontal-pod-autoscaler-controller"),
];

/// The flags of the controllers.
#[derive(Args)]
pub struct Controllers {
    /// The kubeconfig by which the API is reached
    #[arg(long, value_name = "FILE")]
    kubeconfig: PathBuf,
    /// Which controllers run: * for all, NAME for one, -NAME for all but one
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "*", allow_hyphen_values = true)]
    controllers: Vec<String>,
    /// The port to serve /healthz and /metrics on; 0 for none
    #[arg(long, value_name = "PORT", default_value_t = 10257)]
    secure_port: u16,
    #[command(flatten)]
    serving: SecureServing,
    #[command(flatten)]
    election: LeaderElection,
    /// Act under a ServiceAccount of its own in each controller, rather than under the kubeconfig's user in all
    #[arg(long, value_name = "BOOL", default_value_t = false, action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    use_service_account_credentials: bool,
    #[command(flatten)]
    nodes: Nodes,
    /// The certificate authority (PEM) that pods are given to trust the API server; it is not published without it
    #[arg(long, value_name = "FILE")]
    root_ca_file: Option<PathBuf>,
    #[command(flatten)]
    concurrency: Concurrency,
    #[command(flatten)]
    signing: Signing,
}

/// The keys of the cluster, for the controllers that sign with them.
#[derive(Args)]
struct Signing {
    /// The certificate authority (PEM) that issues certificates for CertificateSigningRequests; none are signed without it
    #[arg(long, value_name = "FILE", requires = "cluster_signing_key_file")]
    cluster_signing_cert_file: Option<PathBuf>,
    /// The private key (PEM) of --cluster-signing-cert-file
    #[arg(long, value_name = "FILE", requires = "cluster_signing_cert_file")]
    cluster_signing_key_file: Option<PathBuf>,
    /// The longest life of such a certificate, and that of one that does not ask [default: 8760h0m0s]
    #[arg(long, value_name = "DURATION", value_parser = flags::duration)]
    cluster_signing_duration: Option<Duration>,
    /// The private key (PEM) that signs the ServiceAccount tokens of Secrets; Secrets get none without it
    #[arg(long, value_name = "FILE")]
    service_account_private_key_file: Option<PathBuf>,
}

impl Signing {
    fn keys(&self) -> Result<Keys> {
        let authority = match (&self.cluster_signing_cert_file, &self.cluster_signing_key_file) {
            (Some(cert), Some(key)) => Some(clients::authority(&flags::read(cert)?, &flags::read(key)?)?),
            _ => None,
        };
        let longest = self.cluster_signing_duration.unwrap_or(SIGNING_DURATION);
        let tokens = flags::read_optional(self.service_account_private_key_file.as_ref())?;
        Ok(Keys {
            authority: authority.map(|authority| Arc::new(authority.signing_for(longest))),
            tokens: tokens.map(|key| clients::token_signer(&key)).transpose()?,
        })
    }
}

/// What concerns nodes.
#[derive(Args)]
struct Nodes {
    /// Give each node a range of addresses for its pods
    #[arg(long, value_name = "BOOL", default_value_t = false, action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    allocate_node_cidrs: bool,
    /// The network of all pods; wanted by --allocate-node-cidrs
    #[arg(long, value_name = "NETWORK", value_parser = flags::network)]
    cluster_cidr: Option<(Ipv4Addr, u8)>,
    /// The bits of the prefix of a node's range
    #[arg(long, value_name = "BITS", default_value_t = 24, value_parser = clap::value_parser!(u8).range(1..=30))]
    node_cidr_mask_size: u8,
    /// How long a node may be silent before it counts as dead [default: 40s]
    #[arg(long, value_name = "DURATION", value_parser = flags::duration)]
    node_monitor_grace_period: Option<Duration>,
    /// How often nodes are looked at [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = flags::duration)]
    node_monitor_period: Option<Duration>,
}

/// How much is done at once.
#[derive(Args)]
struct Concurrency {
    /// How many CronJobs at once
    #[arg(long, value_name = "N", value_parser = workers)]
    concurrent_cron_job_syncs: Option<usize>,
    /// How many DaemonSets at once
    #[arg(long, value_name = "N", value_parser = workers)]
    concurrent_daemonset_syncs: Option<usize>,
    /// How many Deployments at once
    #[arg(long, value_name = "N", value_parser = workers)]
    concurrent_deployment_syncs: Option<usize>,
    /// How many PodDisruptionBudgets at once
    #[arg(long, value_name = "N", value_parser = workers)]
    concurrent_disruption_syncs: Option<usize>,
    /// How many Services at once, for Endpoints
    #[arg(long, value_name = "N", value_parser = workers)]
    concurrent_endpoint_syncs: Option<usize>,
    /// How many Services at once, for EndpointSlices
    #[arg(long, value_name = "N", value_parser = workers)]
    concurrent_service_endpoint_syncs: Option<usize>,
    /// How many Jobs at once
    #[arg(long, value_name = "N", value_parser = workers)]
    concurrent_job_syncs: Option<usize>,
    /// How many Namespaces at once
    #[arg(long, value_name = "N", value_parser = workers)]
    concurrent_namespace_syncs: Option<usize>,
    /// How many ReplicaSets at once
    #[arg(long, value_name = "N", value_parser = workers)]
    concurrent_replicaset_syncs: Option<usize>,
    /// How many ReplicationControllers at once
    #[arg(long, value_name = "N", value_parser = workers)]
    concurrent_rc_syncs: Option<usize>,
    /// How many ResourceQuotas at once
    #[arg(long, value_name = "N", value_parser = workers)]
    concurrent_resource_quota_syncs: Option<usize>,
    /// How many Secrets and ServiceAccounts at once, for the tokens of Secrets
    #[arg(long, value_name = "N", value_parser = workers)]
    concurrent_serviceaccount_token_syncs: Option<usize>,
    /// How many StatefulSets at once
    #[arg(long, value_name = "N", value_parser = workers)]
    concurrent_statefulset_syncs: Option<usize>,
    /// How many finished Jobs at once
    #[arg(long, value_name = "N", value_parser = workers)]
    concurrent_ttl_after_finished_syncs: Option<usize>,
}

impl Concurrency {
    fn by_controller(&self) -> BTreeMap<String, usize> {
        let all = [
            ("cronjob-controller", self.concurrent_cron_job_syncs),
            ("daemonset-controller", self.concurrent_daemonset_syncs),
            ("deployment-controller", self.concurrent_deployment_syncs),
            ("disruption-controller", self.concurrent_disruption_syncs),
            ("endpoints-controller", self.concurrent_endpoint_syncs),
            ("endpointslice-controller", self.concurrent_service_endpoint_syncs),
            ("job-controller", self.concurrent_job_syncs),
            ("namespace-controller", self.concurrent_namespace_syncs),
            ("replicaset-controller", self.concurrent_replicaset_syncs),
            ("replicationcontroller-controller", self.concurrent_rc_syncs),
            ("resourcequota-controller", self.concurrent_resource_quota_syncs),
            ("serviceaccount-token-controller", self.concurrent_serviceaccount_token_syncs),
            ("statefulset-controller", self.concurrent_statefulset_syncs),
            ("ttl-after-finished-controller", self.concurrent_ttl_after_finished_syncs),
        ];
        all.into_iter().filter_map(|(name, workers)| Some((name.to_owned(), workers?))).collect()
    }
}

fn workers(text: &str) -> Result<usize> {
    match text.parse() {
        Ok(0) | Err(_) => bail!("a number greater than 0 is wanted"),
        Ok(number) => Ok(number),
    }
}

impl Controllers {
    /// Runs the controllers until they are told to end.
    pub fn run(self) -> Result<()> {
        process::run(|process| self.control(process))
    }

    async fn control(self, process: Process) -> Result<()> {
        let Process { clock, random, stop } = process;
        let (config, keys) = (self.config()?, self.signing.keys()?);
        let election = self.election.election(COMPONENT, None, true)?;
        let access = ApiAccess::read(&self.kubeconfig, &clock, &random).await?;
        let client = access.client(COMPONENT)?;
        let leading = Arc::new(AtomicBool::new(election.is_none()));
        if self.secure_port != 0 {
            let listener = listener::bind(SocketAddr::from((self.serving.bind_address, self.secure_port))).await?;
            let names = ["localhost".to_owned(), "127.0.0.1".to_owned(), host_name()];
            let certificate = self.serving.certificate.load(None, COMPONENT, &names, &clock)?;
            let ca = flags::read_optional(self.serving.client_ca_file.as_ref())?.unwrap_or_default();
            let (component, leading, started) = (COMPONENT, leading.clone(), clock.now().as_second());
            let metrics = client.metrics().registry().clone();
            let shown = secure_port::Shown { component, leading, started, metrics };
            secure_port::serve(shown, listener, &certificate, ca, client.clone(), stop.clone())?;
        }
        let accounts = match self.use_service_account_credentials {
            true => Some(access.service_accounts(&client, COMPONENT)?),
            false => None,
        };
        let watching = client.clone();
        leadership::lead(client, election, stop, |cancel| async move {
            leading.store(true, Ordering::Relaxed);
            let client_for = |account: &str| -> Client {
                accounts.as_ref().map_or_else(|| watching.clone(), |accounts| accounts.client(account))
            };
            clients::control(watching.clone(), client_for, config, &keys, cancel).await;
            leading.store(false, Ordering::Relaxed);
        })
        .await
    }

    fn config(&self) -> Result<Config> {
        let mut disabled = disabled(&self.controllers)?;
        let node_ipam = match (self.nodes.allocate_node_cidrs, self.nodes.cluster_cidr) {
            (true, None) => bail!("--allocate-node-cidrs wants --cluster-cidr"),
            (true, Some(cluster)) if self.nodes.node_cidr_mask_size < cluster.1 => {
                bail!("--node-cidr-mask-size must not be less than the prefix of --cluster-cidr")
            }
            (true, Some(cluster)) => NodeIpamConfig { cluster, node_bits: self.nodes.node_cidr_mask_size },
            (false, _) => {
                disabled.push(NODE_IPAM.to_owned());
                NodeIpamConfig::default()
            }
        };
        let root_ca_pem = flags::read_optional(self.root_ca_file.as_ref())?;
        if root_ca_pem.is_none() {
            disabled.push("root-ca-certificate-publisher-controller".to_owned());
        }
        let patience = NodeLifecycleConfig::default();
        Ok(Config {
            disabled,
            root_ca_pem: root_ca_pem.unwrap_or_default(),
            node_lifecycle: NodeLifecycleConfig {
                monitor_period: self.nodes.node_monitor_period.unwrap_or(patience.monitor_period),
                grace_period: self.nodes.node_monitor_grace_period.unwrap_or(patience.grace_period),
            },
            node_ipam,
            workers: self.concurrency.by_controller(),
        })
    }
}

/// The controller of that name, which may be an older one.
///
/// # Errors
/// No controller, or one of Kubernetes' that is not here.
pub fn known(name: &str) -> Result<&'static str> {
    let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| name);
    table::names().find(|known| *known == name).ok_or_else(|| match ABSENT.contains(&name) {
        true => anyhow!("{name:?} is a controller of Kubernetes that is not part of minik8s"),
        false => anyhow!("{name:?} is not in the list of known controllers"),
    })
}

/// The controllers that `--controllers` leaves out: as in Kubernetes, `*` stands for all but a few, and the
/// most specific word counts.
fn disabled(wanted: &[String]) -> Result<Vec<String>> {
    let mut named = BTreeMap::new();
    let mut all = false;
    for word in wanted {
        match word.strip_prefix('-') {
            _ if word == "*" => all = true,
            // What is not here is off already.
            Some(name) if ABSENT.contains(&name) => {}
            Some(name) => drop(named.insert(known(name)?, false)),
            None => drop(named.insert(known(word)?, true)),
        }
    }
    let by_default = |name: &str| all && !DISABLED_BY_DEFAULT.contains(&name);
    let off = table::names().filter(|name| !named.get(name).copied().unwrap_or_else(|| by_default(name)));
    Ok(off.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn off(words: &[&str]) -> Result<Vec<String>> {
        disabled(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn words_choose_controllers() {
        assert_eq!(off(&["*"]).unwrap(), DISABLED_BY_DEFAULT);
        let most = ["*", "bootstrapsigner", "tokencleaner", "-job", "-horizontal-pod-autoscaler-controller"];
        assert_eq!(off(&most).unwrap(), ["job-controller"]);
        let only = off(&["deployment", "replicaset-controller"]).unwrap();
        assert_eq!(only.len(), table::names().count() - 2);
        assert!(!only.iter().any(|name| name == "deployment-controller"));
    }

    #[test]
    fn unknown_names_are_told_from_absent_ones() {
        let error = |word: &str| off(&[word]).unwrap_err().to_string();
        assert_eq!(error("nonsense"), "\"nonsense\" is not in the list of known controllers");
        assert!(error("node-route-controller").contains("not part of minik8s"));
        for (_, name) in ALIASES {
            assert!(ABSENT.contains(&name) || table::names().any(|known| known == name), "{name}");
        }
        for name in ABSENT {
            assert!(!table::names().any(|known| known == name), "{name} is here by now: take it out of the list");
        }
    }
}
