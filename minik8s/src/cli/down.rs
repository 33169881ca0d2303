//! `minik8s down`: stop a cluster and keep its state.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use minik8s_clock::Clock;

use crate::cli::Name;
use crate::control::ControlClient;
use crate::home::{DataDir, Home};

/// How long the process has to end in good order.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often to look whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The options of `down`.
#[derive(Args)]
pub struct Down {
    #[command(flatten)]
    name: Name,
}

impl Down {
    /// Runs the verb.
    pub fn run(self) -> Result<()> {
        let name = &self.name.name;
        let dir = Home::open()?.existing(name)?;
        if stop(&dir)? {
            println!("Stopped cluster {name:?}.");
        } else {
            println!("Cluster {name:?} is not running.");
        }
        Ok(())
    }
}

/// Stops the cluster in `dir`; says whether there was one running.
pub fn stop(dir: &DataDir) -> Result<bool> {
    if !dir.is_running() {
        return Ok(false);
    }
    let Some(file) = dir.read()? else {
        bail!("the cluster in {} is only just starting; try again in a moment", dir.path.display())
    };
    ControlClient::new(dir, &file)?
        .shut_down()
        .with_context(|| format!("cannot ask the cluster in {} to stop", dir.path.display()))?;
    let clock = Clock::real();
    while dir.is_running() {
        if clock.monotonic() > PATIENCE {
            bail!("the cluster's process did not end within {} s; see `minik8s logs`", PATIENCE.as_secs());
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(true)
}
