//! A component as a process: its log on standard error, its runtime, its end by a signal.

use std::time::Duration;

use anyhow::Result;
use minik8s_clock::{Clock, Random};
use tokio_util::sync::CancellationToken;

use crate::logs::Logs;

/// What a component is run with.
#[derive(Clone)]
pub struct Process {
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub random: Random,
    /// Cancelled when the process is to end.
    pub stop: CancellationToken,
}

/// Runs `component` until it ends, or a signal ends it.
///
/// # Errors
/// Why it could not start, or had to end.
pub fn run<F, Fut>(component: F) -> Result<()>
where
    F: FnOnce(Process) -> Fut,
    Fut: Future<Output = Result<()>>,
{
    let process = Process { clock: Clock::real(), random: Random::from_os(), stop: CancellationToken::new() };
    Logs::install(None, process.clock.clone());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("minik8s").build()?;
    let outcome = runtime.block_on(async {
        let stop = process.stop.clone();
        tokio::spawn(async move {
            wait_for_the_end(&stop).await;
            stop.cancel();
        });
        component(process).await
    });
    // What still runs are tasks that wait for nothing that will come.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// Waits for a signal that ends a process, or for `stop`.
pub async fn wait_for_the_end(stop: &CancellationToken) {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let (terminate, hang_up) = (signal(SignalKind::terminate()), signal(SignalKind::hangup()));
        if let (Ok(mut terminate), Ok(_hang_up)) = (terminate, hang_up) {
            // A closed terminal (hangup) does not end the cluster; that its handler exists is enough.
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
