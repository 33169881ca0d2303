//! Container logs that grew large are set aside, so that a talkative container does not fill the node's disk.
//!
//! `kubectl logs` shows the file that is written to; a follower reads the one set aside to its end first
//! (`pkg/kubelet/logs/container_log_manager.go`; its files are compressed, these are not).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use minik8s_cri::{NodeFs, parent, proto};

use crate::container_config::POD_LOGS;
use crate::kubelet::Kubelet;

/// A log larger than this is set aside (`containerLogMaxSize`).
pub(crate) const LOG_MAX_BYTES: u64 = 10 << 20;
/// Files of a container's log, with the one that is written to (`containerLogMaxFiles`).
pub(crate) const LOG_MAX_FILES: usize = 5;
/// How often logs are looked at (`containerLogMonitorInterval`).
const LOOK_PERIOD: Duration = Duration::from_secs(10);

/// The files that were set aside of a log, oldest first.
pub(crate) fn set_aside(fs: &dyn NodeFs, log: &str) -> Vec<String> {
    let (folder, name) = (parent(log), log.rsplit('/').next().unwrap_or_default());
    // A log whose folder is gone has nothing set aside.
    let entries = fs.list(folder).unwrap_or_default().into_iter();
    let of_this = |other: &str| other.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
    let mut files: Vec<_> =
        entries.filter(|entry| of_this(&entry.name)).map(|entry| format!("{folder}/{}", entry.name)).collect();
    files.sort();
    files
}

/// Removes a log and all that was set aside of it.
pub(crate) fn remove(fs: &dyn NodeFs, log: &str) -> io::Result<()> {
    for file in set_aside(fs, log) {
        fs.remove_all(&file)?;
    }
    fs.remove_all(log)
}

/// Whether any log that is written to is too large. Most often none is, and the runtime need not be asked whose it is.
fn has_large_log(fs: &dyn NodeFs) -> bool {
    let below = |folder: &str| -> Vec<String> {
        let entries = fs.list(folder).unwrap_or_default().into_iter();
        entries.map(|entry| format!("{folder}/{}", entry.name)).collect()
    };
    let containers = below(POD_LOGS).into_iter().flat_map(|pod| below(&pod));
    let mut logs = containers.flat_map(|container| below(&container)).filter(|log| log.ends_with(".log"));
    logs.any(|log| fs.metadata(&log).is_ok_and(|metadata| metadata.len > LOG_MAX_BYTES))
}

impl Kubelet {
    /// Looks at the logs of running containers from time to time.
    pub(crate) async fn rotate_logs(self: Arc<Self>) {
        let mut ticks = self.config.clock.ticks(LOOK_PERIOD);
        loop {
            ticks.tick().await;
            if !has_large_log(self.config.fs.as_ref()) {
                continue;
            }
            let running = proto::ContainerStateValue { state: proto::ContainerState::ContainerRunning as i32 };
            let filter = proto::ContainerFilter { state: Some(running), ..Default::default() };
            let containers = match self.config.cri.list_containers(Some(filter)).await {
                Ok(containers) => containers,
                Err(error) => {
                    tracing::debug!(%error, "the containers whose logs may be too large are not known");
                    continue;
                }
            };
            for container in containers {
                if let Err(error) = self.rotate_log(&container.id).await {
                    tracing::warn!(container = container.id, error, "a log could not be set aside");
                }
            }
        }
    }

    async fn rotate_log(&self, container: &str) -> Result<(), String> {
        let fs = self.config.fs.as_ref();
        let log = self.config.cri.container_status(container).await.map_err(|error| error.to_string())?.log_path;
        if fs.metadata(&log).map_or(0, |metadata| metadata.len) <= LOG_MAX_BYTES {
            return Ok(());
        }
        let in_words = |error: io::Error| error.to_string();
        let older = set_aside(fs, &log);
        // Beside the one written to and the one that is set aside now.
        for file in older.iter().take(older.len().saturating_sub(LOG_MAX_FILES - 2)) {
            fs.remove_file(file).map_err(in_words)?;
        }
        let aside = format!("{log}.{}", self.config.clock.now().strftime("%Y%m%d-%H%M%S"));
        fs.rename(&log, &aside).map_err(in_words)?;
        if let Err(error) = self.config.cri.reopen_container_log(container).await {
            // Who writes goes on as before.
            fs.rename(&aside, &log).map_err(in_words)?;
            return Err(error.to_string());
        }
        Ok(())
    }
}
