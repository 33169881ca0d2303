//! Of several replicas of a component one works, the others wait.

use anyhow::{Result, bail};
use minik8s_client::leader::Outcome;
use minik8s_client::{Client, LeaderElector, LeaderTiming};
use tokio_util::sync::CancellationToken;

/// How a component stands for election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Election {
    /// The namespace of the Lease.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// How patient candidates and leaders are.
    pub timing: LeaderTiming,
}

/// Runs `work` once this replica leads; at once where there is no election. `on_lead` is told when it begins.
///
/// # Errors
/// The leadership was lost: the process has to end, so that nothing of it works on.
pub async fn lead<F, Fut>(client: Client, election: Option<Election>, cancel: CancellationToken, work: F) -> Result<()>
where
    F: FnOnce(CancellationToken) -> Fut,
    Fut: Future<Output = ()>,
{
    let Some(Election { namespace, name, timing }) = election else {
        work(cancel).await;
        return Ok(());
    };
    let host = host_name();
    let identity = format!("{host}_{}", client.random().uuid());
    let elector = LeaderElector::new(client, &namespace, &name, &identity).with_timing(timing);
    match elector.run(cancel, work).await {
        Outcome::Lost => bail!("leaderelection lost"),
        Outcome::Cancelled | Outcome::Done => Ok(()),
    }
}

/// The machine's name, as leases and nodes have it.
pub fn host_name() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let asked = || {
        let output = std::process::Command::new("hostname").output().ok()?;
        String::from_utf8(output.stdout).ok()
    };
    let name = kernel.or_else(asked).unwrap_or_default().trim().to_lowercase();
    if name.is_empty() { "localhost".to_owned() } else { name }
}
