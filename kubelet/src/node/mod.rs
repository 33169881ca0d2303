//! The Node object: registered at start, its status kept true, its lease renewed.
//!
//! [`status`] computes what the Node says, purely; this module and [`lease`] send it.
//!
//! (kubelet: `kubelet_node_status.go`.)

mod lease;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams};
use minik8s_client::{EventType, is_already_exists};
use serde_json::json;

use crate::config::Capacity;
use crate::error::{Error, Result};
use crate::kubelet::Kubelet;
use crate::resources::{Amount, Amounts};
use crate::spec::PodExt as _;

/// How often the node's state is looked at (`nodeStatusUpdateFrequency`).
const CHECK_PERIOD: Duration = Duration::from_secs(10);
/// How often the status is sent although nothing changed (`nodeStatusReportFrequency`).
const REPORT_PERIOD: Duration = Duration::from_secs(300);
/// The pause after a failed registration; it doubles up to [`REGISTER_RETRY_MAX`].
const REGISTER_RETRY: Duration = Duration::from_millis(100);
/// The longest pause between attempts to register.
const REGISTER_RETRY_MAX: Duration = Duration::from_secs(7);
/// How soon the node looks first whether it was given a range for its pods; the pause doubles from look to look.
const POD_CIDR_POLL: Duration = Duration::from_millis(2);
/// The longest pause between two such looks.
const POD_CIDR_POLL_MAX: Duration = Duration::from_secs(1);

/// What pods may use, by resource.
///
/// # Errors
/// A capacity that is no quantity.
pub(crate) fn allocatable_amounts(capacity: &Capacity) -> Result<Amounts> {
    let pods = capacity.pods.to_string();
    let amounts = [
        ("cpu", &capacity.cpu),
        ("memory", &capacity.memory),
        ("ephemeral-storage", &capacity.ephemeral_storage),
        ("pods", &pods),
    ];
    let mut amounts: Amounts =
        amounts.into_iter().map(|(name, text)| Ok((name.to_owned(), Amount::parse(text)?))).collect::<Result<_>>()?;
    for (name, text) in &capacity.reserved {
        let reserved = Amount::parse(text)?;
        let Some(amount) = amounts.get_mut(name) else {
            return Err(Error::InvalidPod(format!("{name} cannot be reserved: the node has no such resource")));
        };
        *amount = amount.minus(reserved);
    }
    Ok(amounts)
}

impl Capacity {
    /// What of a reserved resource is left for pods, as quantities.
    fn allocatable(&self) -> Vec<(String, String)> {
        // The amounts were read when the kubelet was made.
        let amounts = allocatable_amounts(self).unwrap_or_default();
        let left = self.reserved.iter().filter_map(|(name, _)| {
            let amount = *amounts.get(name)?;
            let text = if name == "cpu" { format!("{}m", amount.millis()) } else { amount.units().to_string() };
            Some((name.clone(), text))
        });
        left.collect()
    }
}

impl Kubelet {
    /// The reference by which events name the node: its UID is its name, as the kubelet has it from its first moment.
    pub(crate) fn node_reference(&self) -> ObjectReference {
        ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(self.config.node_name.clone()),
            uid: Some(self.config.node_name.clone()),
            ..ObjectReference::default()
        }
    }

    pub(crate) fn node_event(&self, kind: EventType, reason: &str, message: impl Into<String>) {
        self.event(&self.node_reference(), kind, reason, message);
    }

    /// Asks the runtime who it is, and tells it the node's pod range if that is known.
    pub(crate) async fn prepare_runtime(&self) {
        match self.config.cri.version().await {
            Ok(version) => {
                let mut runtime = self.runtime.lock();
                (runtime.name, runtime.version) = (version.runtime_name, version.runtime_version);
            }
            Err(error) => {
                tracing::warn!(node = self.config.node_name, %error, "the runtime does not answer")
            }
        }
        if let Some(cidr) = &self.config.pod_cidr
            && let Err(error) = self.config.cri.update_pod_cidr(cidr).await
        {
            tracing::warn!(node = self.config.node_name, %error, "the runtime did not take the pod range");
        }
    }

    /// Registers the node and keeps its status true until the kubelet stops.
    pub(crate) async fn keep_node(self: Arc<Self>) {
        let clock = self.config.clock.clone();
        let mut pause = REGISTER_RETRY;
        let told = loop {
            match self.register().await {
                Ok(told) => break told,
                Err(error) => tracing::warn!(node = self.config.node_name, %error, "cannot register, retrying"),
            }
            clock.sleep(self.config.random.jitter(pause, 0.5)).await;
            pause = (pause * 2).min(REGISTER_RETRY_MAX);
        };
        // Static pods can have their mirrors now.
        self.look_at_pods(|worker| worker.input().pod.is_static());
        let mut reported = clock.monotonic();
        let mut poll = POD_CIDR_POLL;
        // Whether the runtime was told: that the Node has a range does not mean that this kubelet has acted on it.
        let mut waits_for_range = self.config.pod_cidr.is_none() && !told;
        let mut ticks = clock.ticks(CHECK_PERIOD);
        loop {
            if waits_for_range {
                clock.sleep(poll).await;
                poll = (poll * 2).min(POD_CIDR_POLL_MAX);
                waits_for_range = !self.take_pod_cidr().await;
            } else {
                ticks.tick().await;
            }
            let now = clock.monotonic();
            // The tick that is the nearest to it.
            let due = now - reported + CHECK_PERIOD / 2 >= REPORT_PERIOD;
            match self.update_node_status(due).await {
                Ok(true) => reported = now,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(node = self.config.node_name, %error, "cannot update the node's status")
                }
            }
        }
    }

    /// Creates the Node, or takes over the one of that name. Whether the runtime was told the node's pod range.
    async fn register(&self) -> Result<bool> {
        let status = self.node_status(&NodeStatus::default()).await;
        let spec = NodeSpec {
            pod_cidr: self.config.pod_cidr.clone(),
            pod_cidrs: self.config.pod_cidr.clone().map(|cidr| vec![cidr]),
            taints: (!self.config.taints.is_empty()).then(|| self.config.taints.clone()),
            ..NodeSpec::default()
        };
        let metadata = ObjectMeta {
            name: Some(self.config.node_name.clone()),
            labels: Some(self.node_labels()),
            annotations: Some(BTreeMap::from([(
                "volumes.kubernetes.io/controller-managed-attach-detach".to_owned(),
                "true".to_owned(),
            )])),
            ..ObjectMeta::default()
        };
        let node = Node { metadata, spec: Some(spec), status: Some(status.clone()) };
        let api = self.config.client.all::<Node>();
        let registered = match api.create(&PostParams::default(), &node).await {
            Ok(mut created) => {
                self.report_transitions(&NodeStatus::default(), &status);
                // The server may have left out the status of a create; it is sent below in any case.
                created.status.get_or_insert(status);
                created
            }
            Err(error) if is_already_exists(&error) => {
                let labels = Patch::Strategic(json!({"metadata": {"labels": self.node_labels()}}));
                api.patch(&self.config.node_name, &PatchParams::default(), &labels).await?
            }
            Err(error) => return Err(error.into()),
        };
        // A node that was here before has its range: its pods need not wait for a look at the Node.
        let told = self.hand_over_pod_cidr(&registered).await?;
        self.keep(registered);
        self.update_node_status(true).await?;
        Ok(told)
    }

    /// The Node as the API has it now. Who wrote which of its fields is no matter of the kubelet's.
    fn keep(&self, mut node: Node) {
        node.metadata.managed_fields = None;
        *self.node.lock() = Arc::new(node);
    }

    /// The labels every node has, and those it was told.
    fn node_labels(&self) -> BTreeMap<String, String> {
        let machine = &self.config.machine;
        let mut labels = BTreeMap::from([
            ("kubernetes.io/hostname".to_owned(), self.config.node_name.clone()),
            ("kubernetes.io/os".to_owned(), machine.operating_system.clone()),
            ("kubernetes.io/arch".to_owned(), machine.architecture.clone()),
            ("beta.kubernetes.io/os".to_owned(), machine.operating_system.clone()),
            ("beta.kubernetes.io/arch".to_owned(), machine.architecture.clone()),
        ]);
        labels.extend(self.config.labels.clone());
        labels
    }

    /// Sends the status if it changed (heartbeats aside) or if `due`. Whether it was sent.
    async fn update_node_status(&self, due: bool) -> Result<bool> {
        let nothing = NodeStatus::default();
        let node = self.node.lock().clone();
        let old = node.status.as_ref().unwrap_or(&nothing);
        let new = self.node_status(old).await;
        if !due && !status::differs(old, &new) {
            return Ok(false);
        }
        self.report_transitions(old, &new);
        let patch = json!({"status": status::owned(&new)});
        let api = self.config.client.all::<Node>();
        let patched =
            api.patch_status(&self.config.node_name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
        self.keep(patched);
        Ok(true)
    }

    fn report_transitions(&self, old: &NodeStatus, new: &NodeStatus) {
        for reason in status::transitions(old, new) {
            let message = format!("Node {} status is now: {reason}", self.config.node_name);
            self.node_event(EventType::Normal, reason, message);
        }
    }

    async fn node_status(&self, old: &NodeStatus) -> NodeStatus {
        let problems = match self.config.cri.status().await {
            Ok(answer) => {
                self.runtime.lock().handlers = status::runtime_handlers(&answer.runtime_handlers);
                status::runtime_problems(&answer.status.unwrap_or_default())
            }
            Err(error) => vec![format!("container runtime is down: {error}")],
        };
        let mut images = self.config.cri.list_images().await.unwrap_or_default();
        images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
        let runtime = self.runtime.lock().clone();
        status::status(&status::View {
            config: &self.config,
            runtime: format!("{}://{}", runtime.name, runtime.version),
            handlers: runtime.handlers,
            problems: &problems,
            images: &images,
            old,
            now: self.config.clock.now(),
        })
    }

    /// Tells the runtime the pod range of the node, if it has one, and lets the pods that waited for it go on.
    async fn hand_over_pod_cidr(&self, node: &Node) -> Result<bool> {
        let Some(cidr) = node.spec_pod_cidr() else {
            return Ok(false);
        };
        self.config.cri.update_pod_cidr(&cidr).await?;
        self.look_at_pods(|worker| worker.waits_for_network.load(Ordering::Acquire));
        Ok(true)
    }

    /// What keeps pods from having a network, if the runtime says so. Once it had one, sandboxes themselves tell.
    pub(crate) async fn network_problem(&self) -> Option<String> {
        if self.has_network.load(Ordering::Acquire) {
            return None;
        }
        let problem = match self.config.cri.status().await {
            Ok(answer) => status::network_problem(&answer.status.unwrap_or_default()),
            Err(error) => Some(format!("container runtime is down: {error}")),
        };
        self.has_network.store(problem.is_none(), Ordering::Release);
        problem
    }

    /// Looks whether a controller has given the node its pod range, and passes it on.
    async fn take_pod_cidr(&self) -> bool {
        let taken = async {
            let name = &self.config.node_name;
            let node = self.config.client.all::<Node>().get(name).await?;
            let taken = self.hand_over_pod_cidr(&node).await?;
            self.keep(node);
            Ok::<_, Error>(taken)
        };
        taken.await.unwrap_or_else(|error| {
            tracing::debug!(node = self.config.node_name, %error, "no pod range yet");
            false
        })
    }
}

/// A Node's pod range.
trait NodeExt {
    fn spec_pod_cidr(&self) -> Option<String>;
}

impl NodeExt for Node {
    fn spec_pod_cidr(&self) -> Option<String> {
        self.spec.as_ref()?.pod_cidr.clone().filter(|cidr| !cidr.is_empty())
    }
}
