//! The control plane's components as programs in containers.
//!
//! Each component runs in this process; its static pod in `kube-system` is the window onto it. The container of the pod
//! prints the component's real log and lives as long as the component does: `kubectl logs`, `kubectl get pods` and the
//! kubelet's restarts show what is real. A component that is told to stop through its container stops; when the kubelet
//! starts the container again, the component starts again.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt as _;
use k8s_openapi::api::core::v1::Pod;
use minik8s_clock::Watched;
use minik8s_runtime::process::{Process, Program, Signal};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::logs::ComponentLog;

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;
type Start = Box<dyn Fn(CancellationToken) -> Running + Send + Sync>;

/// The exit code of a component that ended without being told to.
const EXIT_UNASKED: i32 = 1;

/// One component: how to run it, whether it runs, what it has said.
pub struct Component {
    name: &'static str,
    log: Arc<ComponentLog>,
    start: Start,
    state: Mutex<Option<CancellationToken>>,
    running: Watched<bool>,
    /// Ends with the cluster.
    cluster: CancellationToken,
}

impl Component {
    /// A component that `start` runs until the token it is given is cancelled.
    pub fn new<F>(
        name: &'static str,
        log: Arc<ComponentLog>,
        cluster: CancellationToken,
        start: impl Fn(CancellationToken) -> F + Send + Sync + 'static,
    ) -> Arc<Self>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let start: Start = Box::new(move |cancel| start(cancel).boxed());
        let running = Watched::new(false);
        Arc::new(Self { name, log, start, state: Mutex::new(None), running, cluster })
    }

    /// Starts the component; does nothing where it runs.
    pub fn start(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if state.is_some() || self.cluster.is_cancelled() {
            return;
        }
        let cancel = self.cluster.child_token();
        *state = Some(cancel.clone());
        self.running.set(true);
        let component = self.clone();
        let running = (self.start)(cancel);
        tokio::spawn(async move {
            if std::panic::AssertUnwindSafe(running).catch_unwind().await.is_err() {
                tracing::error!(component = component.name, "component panicked");
            }
            *component.state.lock() = None;
            component.running.set(false);
        });
    }

    /// Stops the component and waits until it has.
    pub async fn stop(&self) {
        if let Some(cancel) = self.state.lock().as_ref() {
            cancel.cancel();
        }
        self.ended().await;
    }

    /// Waits until the component does not run.
    pub async fn ended(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.running.watch().wait_for(|running| !running).await;
    }

    /// Its name, which is Kubernetes' own.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// How the component is, in the words of `kubectl get componentstatuses`.
    pub fn health(&self) -> Result<(), String> {
        if self.running.get() { Ok(()) } else { Err(format!("{} is not running", self.name)) }
    }

    /// The component as the program of its container.
    pub fn program(self: &Arc<Self>) -> Arc<dyn Program> {
        Arc::new(ComponentProgram(self.clone()))
    }
}

struct ComponentProgram(Arc<Component>);

#[async_trait]
impl Program for ComponentProgram {
    async fn run(&self, mut process: Process) -> i32 {
        let component = &self.0;
        component.start();
        process.signals.handle(Signal::Term);
        let mut next = 0;
        loop {
            tokio::select! {
                biased;
                (text, end) = component.log.read_from(next) => {
                    next = end;
                    if process.stderr.write(&text).await.is_err() {
                        return EXIT_UNASKED;
                    }
                }
                signal = process.signals.next() => if signal == Signal::Term {
                    component.stop().await;
                    return 0;
                },
                () = component.ended() => return EXIT_UNASKED,
            }
        }
    }
}

/// The manifests of the control plane, as kubeadm lays them into `/etc/kubernetes/manifests`.
const MANIFESTS: [&str; 4] = [
    include_str!("../manifests/etcd.yaml"),
    include_str!("../manifests/kube-apiserver.yaml"),
    include_str!("../manifests/kube-controller-manager.yaml"),
    include_str!("../manifests/kube-scheduler.yaml"),
];

/// The static pods of those components of the control plane that `runs` says yes to, in a cluster whose API server
/// listens on `port`.
pub fn static_pods(port: u16, runs: impl Fn(&str) -> bool) -> anyhow::Result<Vec<Pod>> {
    let read = |text: &&str| Ok(serde_yaml::from_str::<Pod>(&text.replace("$(PORT)", &port.to_string()))?);
    let mut pods = MANIFESTS.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?;
    pods.retain(|pod| pod.metadata.name.as_deref().is_some_and(&runs));
    Ok(pods)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_manifests_are_pods() {
        let pods = super::static_pods(6443, |_| true).unwrap();
        let names: Vec<_> = pods.iter().map(|pod| pod.metadata.name.clone().unwrap()).collect();
        assert_eq!(names, ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]);
        let command = pods[1].spec.as_ref().unwrap().containers[0].command.clone().unwrap();
        assert!(command.contains(&"--secure-port=6443".to_owned()), "{command:?}");
    }
}
