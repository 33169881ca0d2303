//! The kubelet itself: what its parts share, and the loops that run while the node is up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, NodeRuntimeHandler, ObjectReference, Pod};
use minik8s_client::{Event, EventRecorder, EventType, WorkQueue};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::allocation::Allocations;
use crate::backoff::BackOff;
use crate::config::KubeletConfig;
use crate::container_config::Dns;
use crate::downward::NodeView;
use crate::error::Result;
use crate::node::allocatable_amounts;
use crate::objects::ObjectCache;
use crate::resources::Amounts;
use crate::spec::PodExt as _;
use crate::sync::is_active;
use crate::worker::{Input, PodWorker};

/// How long a stopping kubelet waits for the syncs that run.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The agent of one node.
pub struct Kubelet {
    /// What it was told.
    pub(crate) config: KubeletConfig,
    /// Its events.
    pub(crate) recorder: EventRecorder,
    /// The pods to look at.
    pub(crate) queue: WorkQueue<String>,
    /// The pods it has to do with, by UID.
    pub(crate) workers: Mutex<BTreeMap<String, Arc<PodWorker>>>,
    /// Back-off of restarts.
    pub(crate) restarts: Mutex<BackOff>,
    /// Back-off of image pulls, and why each of them failed last.
    pub(crate) pulls: Mutex<(BackOff, BTreeMap<String, String>)>,
    /// The ConfigMaps and Secrets its pods name.
    pub(crate) objects: ObjectCache,
    /// Its Node, as it last was.
    pub(crate) node: Mutex<Arc<Node>>,
    /// The name and version of the runtime, once it said.
    pub(crate) runtime: Mutex<RuntimeIdentity>,
    /// Whether the runtime said that pods can have a network.
    pub(crate) has_network: AtomicBool,
    /// Wakes those who follow a log whenever the runtime says something.
    pub(crate) container_changes: Notify,
    /// What pods have of the node.
    pub(crate) allocations: Mutex<Allocations>,
    /// Whether all pods of the node are known.
    pub(crate) knows_pods: AtomicBool,
    /// What pods may use.
    pub(crate) allocatable: Amounts,
    /// Ends everything.
    pub(crate) cancel: CancellationToken,
}

/// Who the container runtime is.
#[derive(Clone, Debug, Default)]
pub(crate) struct RuntimeIdentity {
    /// `containerd`.
    pub name: String,
    /// `2.2.0`.
    pub version: String,
    /// What it makes sandboxes by, as it last said.
    pub handlers: Vec<NodeRuntimeHandler>,
}

impl RuntimeIdentity {
    /// Whether mounts in sandboxes of that handler can be read-only with all that is mounted below them.
    pub fn mounts_recursively_read_only(&self, handler: &str) -> bool {
        let found = self.handlers.iter().find(|known| known.name.as_deref().unwrap_or_default() == handler);
        let features = found.and_then(|handler| handler.features.as_ref());
        features.is_some_and(|features| features.recursive_read_only_mounts == Some(true))
    }
}

impl Kubelet {
    /// A kubelet that has not started yet. Call it within a tokio runtime.
    ///
    /// # Errors
    /// A capacity that is no quantity.
    pub fn new(config: KubeletConfig) -> Result<Arc<Self>> {
        let recorder = EventRecorder::new(config.client.clone(), "kubelet", Some(&config.node_name));
        let queue = WorkQueue::new(config.clock.clone());
        let cancel = CancellationToken::new();
        let enqueue = queue.clone();
        let changed = Arc::new(move |uid: &str| enqueue.add(uid.to_owned()));
        let objects = ObjectCache::new(config.client.clone(), &config.node_name, cancel.clone(), changed);
        Ok(Arc::new(Self {
            recorder,
            queue,
            workers: Mutex::default(),
            restarts: Mutex::default(),
            pulls: Mutex::default(),
            objects,
            node: Mutex::default(),
            runtime: Mutex::default(),
            has_network: AtomicBool::new(false),
            container_changes: Notify::new(),
            allocations: Mutex::new(Allocations::load(config.fs.as_ref())),
            knows_pods: AtomicBool::new(false),
            allocatable: allocatable_amounts(&config.capacity)?,
            cancel,
            config,
        }))
    }

    /// Registers the node and runs its pods until `cancel`. What runs in containers goes on running; another kubelet of
    /// the same node adopts it. A kubelet runs once.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) {
        let guard = cancel.clone();
        let stop = self.cancel.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            guard.cancelled().await;
            stop.cancel();
        });
        self.node_event(EventType::Normal, "Starting", "Starting kubelet.");
        self.prepare_runtime().await;
        tasks.spawn(self.clone().until_cancelled(Self::keep_node));
        tasks.spawn(self.clone().until_cancelled(Self::keep_lease));
        tasks.spawn(self.clone().until_cancelled(Self::watch_runtime));
        tasks.spawn(self.clone().until_cancelled(Self::rotate_logs));
        tasks.spawn(self.clone().until_cancelled(Self::watch_pods));
        tasks.spawn(self.clone().until_cancelled(Self::watch_manifests));
        self.work().await;
        self.config.pods.unsubscribe(&self.config.node_name);
        self.stop_probes();
        while tasks.join_next().await.is_some() {}
    }

    async fn until_cancelled<F, Fut>(self: Arc<Self>, task: F)
    where
        F: FnOnce(Arc<Self>) -> Fut,
        Fut: Future<Output = ()>,
    {
        let cancel = self.cancel.clone();
        tokio::select! {
            biased;
            () = cancel.cancelled() => {}
            () = task(self) => {}
        }
    }

    /// Hands each pod of the queue to a task of its own.
    async fn work(self: &Arc<Self>) {
        let mut syncs = JoinSet::new();
        loop {
            let uid = tokio::select! {
                biased;
                () = self.cancel.cancelled() => break,
                uid = self.queue.get() => uid,
                Some(result) = syncs.join_next(), if !syncs.is_empty() => {
                    propagate_panic(result);
                    continue;
                }
            };
            let Some(uid) = uid else { break };
            let kubelet = self.clone();
            syncs.spawn(async move {
                let cancel = kubelet.cancel.clone();
                tokio::select! {
                    biased;
                    () = cancel.cancelled() => {}
                    () = kubelet.sync(&uid) => {}
                }
                kubelet.queue.done(&uid);
            });
        }
        self.queue.shut_down();
        let drain = async { while syncs.join_next().await.is_some() {} };
        if self.config.clock.timeout(STOP_TIMEOUT, drain).await.is_err() {
            tracing::warn!(node = self.config.node_name, "some pods were still being synced when the kubelet stopped");
        }
    }

    /// Follows the pods of this node: those of the API, and the static ones.
    async fn watch_pods(self: Arc<Self>) {
        self.add_static_pods();
        let kubelet = Arc::downgrade(&self);
        self.config.pods.subscribe(
            &self.config.node_name,
            Arc::new(move |event| {
                if let Some(kubelet) = kubelet.upgrade() {
                    kubelet.on_pod(event);
                }
            }),
        );
        self.config.pods.wait_synced().await;
        self.allocations.lock().retain(|uid| self.worker(uid).is_some());
        self.knows_pods.store(true, Ordering::Release);
        self.retry_resizes();
        self.remove_orphans().await;
        std::future::pending::<()>().await;
    }

    fn on_pod(&self, event: &Event<Pod>) {
        let pod = event.object();
        if crate::static_pods::is_mirror(pod) {
            return self.on_mirror(event);
        }
        let uid = pod.uid().to_owned();
        match event {
            Event::Deleted(_) => {
                if let Some(worker) = self.worker(&uid) {
                    worker.update(Input { pod: pod.clone(), gone: true });
                    self.queue.add(uid);
                }
            }
            Event::Updated { old, new } if !concerns_kubelet(old, new) => {
                if let Some(worker) = self.worker(&uid) {
                    worker.update(Input { pod: new.clone(), gone: false });
                }
                if is_active(old) && !is_active(new) {
                    self.wake_waiting();
                }
            }
            Event::Added(_) | Event::Updated { .. } => self.set_pod(pod.clone()),
        }
    }

    /// Takes in a pod, new or changed, and asks for a sync.
    pub(crate) fn set_pod(&self, pod: Arc<Pod>) {
        let uid = pod.uid().to_owned();
        let now = self.config.clock.now();
        let worker = {
            let mut workers = self.workers.lock();
            workers.entry(uid.clone()).or_insert_with(|| Arc::new(PodWorker::new(pod.clone(), now))).clone()
        };
        worker.update(Input { pod, gone: false });
        self.queue.add(uid);
    }

    pub(crate) fn worker(&self, uid: &str) -> Option<Arc<PodWorker>> {
        self.workers.lock().get(uid).cloned()
    }

    /// All pods this node has to do with.
    pub(crate) fn pods(&self) -> Vec<Arc<Pod>> {
        self.workers.lock().values().map(|worker| worker.input().pod).collect()
    }

    /// Asks for a sync of those pods that something changed for.
    pub(crate) fn look_at_pods(&self, concerned: impl Fn(&PodWorker) -> bool) {
        let workers = self.workers.lock();
        let concerned = workers.iter().filter(|(_, worker)| concerned(worker));
        concerned.for_each(|(uid, _)| self.queue.add(uid.clone()));
    }

    /// The pod of that name, the youngest if there are several.
    pub(crate) fn pod_named(&self, namespace: &str, name: &str) -> Option<Arc<PodWorker>> {
        let workers = self.workers.lock();
        let named = workers.values().filter(|worker| {
            let pod = worker.input().pod;
            pod.namespace() == namespace && pod.name() == name
        });
        named.max_by_key(|worker| worker.input().pod.metadata.creation_timestamp.clone()).cloned()
    }

    pub(crate) fn event(&self, object: &ObjectReference, kind: EventType, reason: &str, message: impl Into<String>) {
        self.recorder.event(object, kind, reason, message);
    }

    /// How containers resolve names.
    pub(crate) fn dns(&self) -> Dns {
        Dns { servers: self.config.cluster_dns.clone(), domain: self.config.cluster_domain.clone() }
    }

    /// The node's own addresses, the primary one first.
    pub(crate) fn host_ips(&self) -> Vec<String> {
        let addresses = self.config.addresses.iter().filter(|address| address.type_ == "InternalIP");
        addresses.map(|address| address.address.clone()).collect()
    }

    /// What a pod may learn about its node.
    pub(crate) fn node_view(&self, pod_ips: Vec<String>) -> NodeView {
        NodeView {
            name: self.config.node_name.clone(),
            host_ips: self.host_ips(),
            pod_ips,
            allocatable: self.allocatable.clone(),
        }
    }

    fn stop_probes(&self) {
        for worker in self.workers.lock().values() {
            worker.probes.lock().stop();
        }
    }
}

/// Whether a change of a pod is more than what this kubelet wrote into its status itself.
fn concerns_kubelet(old: &Pod, new: &Pod) -> bool {
    let (before, after) = (&old.metadata, &new.metadata);
    before.generation != after.generation
        || before.deletion_timestamp != after.deletion_timestamp
        || before.deletion_grace_period_seconds != after.deletion_grace_period_seconds
        || before.labels != after.labels
        || before.annotations != after.annotations
        || (after.generation.is_none() && old.spec != new.spec)
        || new.spec().readiness_gates.as_ref().is_some_and(|gates| !gates.is_empty())
}

/// A panic is a broken invariant: the kubelet must not go on with a pod less in silence.
fn propagate_panic(result: std::result::Result<(), tokio::task::JoinError>) {
    if let Err(error) = result
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}
