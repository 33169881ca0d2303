//! Lifecycle hooks: a command in the container, an HTTP request to it, or a pause.
//!
//! (kubelet: `lifecycle/handlers.go`.)

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::kubelet::Kubelet;
use crate::probe::http_get;

/// How long an HTTP hook may take.
const HTTP_TIMEOUT: Duration = Duration::from_secs(30);

/// A hook and what it is run in.
#[derive(Clone, Copy)]
pub(crate) struct Hook<'a> {
    pub handler: &'a LifecycleHandler,
    pub container: &'a Container,
    pub id: &'a str,
    pub pod_ip: Option<&'a str>,
}

impl Kubelet {
    /// Runs a hook to its end.
    pub(crate) async fn run_hook(&self, hook: Hook<'_>) -> Result<(), String> {
        if let Some(exec) = &hook.handler.exec {
            let command = exec.command.clone().unwrap_or_default();
            let words = command.join(" ");
            return match self.config.cri.exec_sync(hook.id, command, 0).await {
                Ok(done) if done.exit_code == 0 => Ok(()),
                Ok(done) => Err(format!(
                    "command '{words}' exited with {}: {}",
                    done.exit_code,
                    String::from_utf8_lossy(&done.stderr).trim_end()
                )),
                Err(error) => Err(error.to_string()),
            };
        }
        if let Some(action) = &hook.handler.http_get {
            let request = http_get(&self.config, hook.container, action, hook.pod_ip.unwrap_or_default());
            return match self.config.clock.timeout(HTTP_TIMEOUT, request).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(error),
                Err(_) => Err("context deadline exceeded".to_owned()),
            };
        }
        if let Some(sleep) = &hook.handler.sleep {
            self.config.clock.sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
            return Ok(());
        }
        // `tcpSocket` is kept for the sake of old objects, and does nothing but fail.
        Err("invalid handler: the hook names no action".to_owned())
    }
}

/// The number behind a port that may be given by name.
pub(crate) fn port_number(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name));
            match named {
                Some(port) => port.container_port,
                None => name.parse().map_err(|_| format!("couldn't find port: {name:?} in {:?}", container.name))?,
            }
        }
    };
    u16::try_from(number).ok().filter(|port| *port > 0).ok_or_else(|| format!("invalid port number: {number}"))
}

/// The host an HTTP action is sent to: its own, or the pod.
pub(crate) fn host_of<'a>(action: &'a HTTPGetAction, pod_ip: &'a str) -> &'a str {
    action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(pod_ip)
}
