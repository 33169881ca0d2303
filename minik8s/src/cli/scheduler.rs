//! `minik8s scheduler`: the scheduler in a process of its own, with the flags of kube-scheduler.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use minik8s_client::LeaderTiming;
use minik8s_scheduler::{SchedulerConfiguration, Settings};
use serde::Deserialize;
use serde_json::Value;

use crate::cli::flags::{self, LeaderElection, SecureServing};
use crate::cli::process::{self, Process};
use crate::wiring::access::ApiAccess;
use crate::wiring::leadership::{Election, host_name};
use crate::wiring::{clients, leadership, listener, secure_port};

const COMPONENT: &str = "kube-scheduler";

/// The flags of the scheduler.
#[derive(Args)]
pub struct Scheduler {
    /// The kubeconfig by which the API is reached [default: that of --config]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// A KubeSchedulerConfiguration: profiles, plugins, leader election
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The port to serve /healthz and /metrics on; 0 for none
    #[arg(long, value_name = "PORT", default_value_t = 10259)]
    secure_port: u16,
    #[command(flatten)]
    serving: SecureServing,
    #[command(flatten)]
    election: LeaderElection,
}

/// What of a configuration concerns the process.
#[derive(Default)]
struct File {
    settings: Settings,
    kubeconfig: Option<PathBuf>,
    /// Whether the file speaks of an election, and which.
    election: Option<Option<Election>>,
}

impl Scheduler {
    /// Runs the scheduler until it is told to end.
    pub fn run(self) -> Result<()> {
        process::run(|process| self.schedule(process))
    }

    async fn schedule(self, process: Process) -> Result<()> {
        let Process { clock, random, stop } = process;
        let file = self.file()?;
        let kubeconfig = self.kubeconfig.clone().or(file.kubeconfig);
        let kubeconfig = kubeconfig.ok_or_else(|| anyhow!("--kubeconfig is wanted: where the API is"))?;
        let by_default = file.election.is_none();
        let election = self.election.election(COMPONENT, file.election.flatten(), by_default)?;
        let client = ApiAccess::read(&kubeconfig, &clock, &random).await?.client(COMPONENT)?;
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
        let (working, settings) = (client.clone(), file.settings);
        leadership::lead(client, election, stop, |cancel| async move {
            leading.store(true, Ordering::Relaxed);
            clients::schedule(working, &settings, cancel).await;
            leading.store(false, Ordering::Relaxed);
        })
        .await
    }

    fn file(&self) -> Result<File> {
        let Some(path) = &self.config else { return Ok(File::default()) };
        let value: Value = serde_yaml::from_str(&flags::read(path)?)
            .with_context(|| format!("{} cannot be understood", path.display()))?;
        let wrong = |error: String| anyhow!("{}: {error}", path.display());
        let config = SchedulerConfiguration::read(value).map_err(wrong)?;
        let election = config
            .leader_election
            .clone()
            .map(|value| election_of(value).with_context(|| format!("{}: leaderElection", path.display())));
        Ok(File {
            settings: config.settings().map_err(wrong)?,
            kubeconfig: Some(config.client_connection.kubeconfig).filter(|path| !path.is_empty()).map(PathBuf::from),
            election: election.transpose()?,
        })
    }
}

/// `LeaderElectionConfiguration` (`k8s.io/component-base/config/v1alpha1`).
fn election_of(value: Value) -> Result<Option<Election>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Configuration {
        leader_elect: Option<bool>,
        lease_duration: Option<String>,
        renew_deadline: Option<String>,
        retry_period: Option<String>,
        resource_lock: Option<String>,
        resource_name: Option<String>,
        resource_namespace: Option<String>,
    }
    let config: Configuration = serde_json::from_value(value)?;
    if let Some(lock) = config.resource_lock.filter(|lock| lock != "leases") {
        anyhow::bail!("resourceLock {lock:?} is not supported: leases is the only one");
    }
    let default = LeaderTiming::default();
    let duration = |text: Option<String>, default: Duration| text.map_or(Ok(default), |text| flags::duration(&text));
    let timing = LeaderTiming {
        lease: duration(config.lease_duration, default.lease)?,
        renew_deadline: duration(config.renew_deadline, default.renew_deadline)?,
        retry_period: duration(config.retry_period, default.retry_period)?,
    };
    Ok(config.leader_elect.unwrap_or(true).then(|| Election {
        namespace: config.resource_namespace.unwrap_or_else(|| "kube-system".to_owned()),
        name: config.resource_name.unwrap_or_else(|| COMPONENT.to_owned()),
        timing,
    }))
}
