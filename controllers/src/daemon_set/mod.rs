//! A DaemonSet has one pod on every node that it is for.
//!
//! Watches DaemonSets, Pods, Nodes and ControllerRevisions; owns its pods and revisions; writes all of the DaemonSet's
//! status. (Kubernetes: `pkg/controller/daemon/daemon_controller.go`.)
//!
//! Where pods should be says [`placement`]; that they get there is the scheduler's part: each pod asks for its node.

mod placement;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::PostParams;
use minik8s_api::template_hash::template_hash;
use minik8s_client::{Client, Event, EventType, Informer, Lister, WorkQueue, is_not_found, object_reference};
use parking_lot::Mutex;

use self::placement::{ByNode, Look, Plan, belongs, pod_for, target_node};
use crate::manager::{Context, Reconciler};
use crate::pod_control::{PodControl, is_namespace_terminating, slow_start};
use crate::pod_owners::{PodOwners, key_of, selector};
use crate::pods;
use crate::revisions::{HASH_LABEL, History, Present, Revisions, name, template_patch};

/// How many pods one look at a set creates or deletes at most.
const BURST_REPLICAS: usize = 250;
/// The pause before a pod that ended is replaced; it doubles with each further one on that node, and is forgotten
/// after twice the longest.
const ENDED_BACKOFF: Duration = Duration::from_secs(1);
const ENDED_BACKOFF_MAX: Duration = Duration::from_secs(15 * 60);

/// How long to wait before the next pod that ended is replaced, and since when.
#[derive(Clone, Copy)]
struct Pause {
    wait: Duration,
    since: Duration,
}

/// See the module.
#[derive(Clone)]
pub struct DaemonSetController {
    client: Client,
    control: PodControl,
    owners: Arc<PodOwners<DaemonSet>>,
    nodes: Lister<Node>,
    revisions: Revisions,
    /// Pauses by set and node.
    pauses: Arc<Mutex<BTreeMap<(String, String), Pause>>>,
    queue: WorkQueue<String>,
}

impl DaemonSetController {
    /// Asks for its informers.
    pub fn new(context: &Context) -> Self {
        let control = PodControl::new(context.client.clone(), context.recorder("daemonset-controller"));
        let queue: WorkQueue<String> = WorkQueue::new(context.client.clock().clone());
        let sets: Informer<DaemonSet> = context.informers.informer();
        let nodes: Informer<Node> = context.informers.informer();
        let owners = PodOwners::new(
            control.clone(),
            &sets,
            &context.informers.informer::<Pod>(),
            |set: &DaemonSet| selector(&set.spec.selector),
            None,
            queue.clone(),
        );
        let controller = Self {
            client: context.client.clone(),
            control,
            owners,
            nodes: nodes.lister(),
            revisions: Revisions::new(context),
            pauses: Arc::default(),
            queue,
        };
        let (add, lister) = (controller.queue.clone(), sets.lister());
        nodes.on_event(move |event| {
            // A heartbeat changes nothing for anybody.
            if let Event::Updated { old, new } = event
                && old.metadata.labels == new.metadata.labels
                && old.spec == new.spec
            {
                return;
            }
            lister.list().iter().for_each(|set| add.add(key_of(&set.metadata)));
        });
        let pauses = controller.pauses.clone();
        sets.on_event(move |event| {
            if let Event::Deleted(set) = event {
                let key = key_of(&set.metadata);
                pauses.lock().retain(|(own, _), _| *own != key);
            }
        });
        controller
    }

    /// Of the pods that ended, those that may be replaced now.
    fn replaceable(&self, key: &str, ended: Vec<Arc<Pod>>) -> Vec<Arc<Pod>> {
        let now = self.client.clock().monotonic();
        let mut pauses = self.pauses.lock();
        pauses.retain(|_, pause| now < pause.since + 2 * ENDED_BACKOFF_MAX);
        let mut replace = Vec::new();
        for pod in ended {
            let place = (key.to_owned(), target_node(&pod).unwrap_or_default());
            match pauses.get(&place).copied() {
                Some(pause) if now < pause.since + pause.wait => {
                    self.queue.add_after(key.to_owned(), pause.since + pause.wait - now);
                }
                known => {
                    let wait = known.map_or(ENDED_BACKOFF, |known| (known.wait * 2).min(ENDED_BACKOFF_MAX));
                    pauses.insert(place, Pause { wait, since: now });
                    replace.push(pod);
                }
            }
        }
        replace
    }

    fn tell_ended(&self, set: &DaemonSet, pod: &Pod) {
        let node = target_node(pod).unwrap_or_default();
        let what = key_of(&pod.metadata);
        let (kind, reason, message) = if pods::phase(pod) == "Failed" {
            let message = format!("Found failed daemon pod {what} on node {node}, will try to kill it");
            (EventType::Warning, "FailedDaemonPod", message)
        } else {
            let message = format!("Found succeeded daemon pod {what} on node {node}, will try to delete it");
            (EventType::Normal, "SucceededDaemonPod", message)
        };
        self.control.recorder().event(&object_reference(set), kind, reason, message);
    }

    async fn act(&self, key: &str, set: &DaemonSet, hash: &str, mut plan: Plan) -> Result<(), kube::Error> {
        plan.create.truncate(BURST_REPLICAS);
        let ended = self.replaceable(key, std::mem::take(&mut plan.ended));
        ended.iter().for_each(|pod| self.tell_ended(set, pod));
        plan.delete.extend(ended);
        plan.delete.truncate(BURST_REPLICAS);
        let Plan { create, delete, .. } = plan;
        if create.is_empty() && delete.is_empty() {
            return Ok(());
        }
        let expectations = self.owners.expectations();
        let uid = |pod: &Pod| pod.metadata.uid.clone().unwrap_or_default();
        expectations.expect(key, create.len(), delete.iter().map(|pod| uid(pod)));
        let (count, reference) = (create.len(), object_reference(set));
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let make = |node: String| {
            let (pod, reference) = (pod_for(set, &node, hash), &reference);
            async move { self.control.create(namespace, reference, &pod).await }
        };
        let (created, failure) = slow_start(create, make).await;
        for _ in created..count {
            expectations.creation_observed(key);
        }
        let deletions = delete.iter().map(|pod| async {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let deleted = self.control.delete(namespace, name, &reference).await;
            if deleted.is_err() {
                expectations.deletion_observed(key, &uid(pod));
            }
            deleted
        });
        join_all(deletions).await.into_iter().collect::<Result<(), _>>()?;
        failure.filter(|error| !is_namespace_terminating(error)).map_or(Ok(()), Err)
    }

    async fn write_status(&self, look: &Look<'_>, history: &History) -> Result<(), kube::Error> {
        let status = calculate_status(look, history.collisions);
        if look.set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let fresh = DaemonSet { status: Some(status), ..look.set.clone() };
        let namespace = look.set.metadata.namespace.as_deref().unwrap_or_default();
        let name = look.set.metadata.name.as_deref().unwrap_or_default();
        match self.client.namespaced::<DaemonSet>(namespace).replace_status(name, &PostParams::default(), &fresh).await
        {
            Err(error) if is_not_found(&error) => Ok(()),
            other => other.map(drop),
        }
    }

    async fn clean_up(&self, set: &DaemonSet, history: &History, pods: &[Arc<Pod>]) -> Result<(), kube::Error> {
        let hashes = pods.iter().filter_map(|pod| pod.metadata.labels.as_ref()?.get(HASH_LABEL));
        let hashes: BTreeSet<&String> = hashes.collect();
        let used = history.old.iter().filter(|revision| hashes.iter().any(|hash| hash_of(revision) == hash.as_str()));
        let used: BTreeSet<String> = used.map(|revision| name(revision).to_owned()).collect();
        self.revisions.truncate(&history.old, &used, set.spec.revision_history_limit).await
    }
}

fn hash_of(revision: &k8s_openapi::api::apps::v1::ControllerRevision) -> &str {
    let labels = revision.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(HASH_LABEL)).map(String::as_str).unwrap_or_default()
}

/// The status of a set with these pods.
fn calculate_status(look: &Look<'_>, collisions: Option<i32>) -> DaemonSetStatus {
    let mut status = DaemonSetStatus {
        observed_generation: look.set.metadata.generation,
        collision_count: collisions,
        conditions: look.set.status.as_ref().and_then(|status| status.conditions.clone()),
        ..DaemonSetStatus::default()
    };
    let (mut available, mut updated) = (0, 0);
    for node in look.nodes {
        let here = look.pods.get(node.metadata.name.as_deref().unwrap_or_default());
        // The one that has been there longest speaks for the node.
        let pod =
            here.and_then(|here| here.iter().min_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|t| t.0)));
        if !belongs(look.set, node).0 {
            status.number_misscheduled += i32::from(pod.is_some());
            continue;
        }
        status.desired_number_scheduled += 1;
        let Some(pod) = pod else { continue };
        status.current_number_scheduled += 1;
        if pods::is_ready(pod) {
            status.number_ready += 1;
            available += i32::from(pods::is_available(pod, look.min_ready(), look.now));
        }
        let hash = pod.metadata.labels.as_ref().and_then(|labels| labels.get(HASH_LABEL));
        updated += i32::from(hash.map(String::as_str) == Some(look.hash));
    }
    let positive = |count: i32| Some(count).filter(|count| *count > 0);
    status.number_available = positive(available);
    status.number_unavailable = positive(status.desired_number_scheduled - available);
    status.updated_number_scheduled = positive(updated);
    status
}

impl Reconciler for DaemonSetController {
    const NAME: &'static str = "daemonset-controller";
    const WORKERS: usize = 2;

    fn queue(&self) -> &WorkQueue<String> {
        &self.queue
    }

    async fn sync(&self, key: String) -> Result<(), kube::Error> {
        let Some(set) = self.owners.get(&key) else { return Ok(()) };
        if selector(&set.spec.selector).is_everything() {
            let message = "This daemon set is selecting all pods. A non-empty selector is required.";
            self.control.recorder().event(&object_reference(&*set), EventType::Warning, "SelectingAll", message);
            return Ok(());
        }
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let seen = self.owners.expectations().satisfied(&key);
        let collisions = set.status.as_ref().and_then(|status| status.collision_count);
        let template = &set.spec.template;
        let labels: BTreeMap<String, String> =
            template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
        let plain = serde_json::to_value(template).map_err(kube::Error::SerdeError)?;
        let present = Present {
            labels: &labels,
            data: template_patch(template),
            hash: &|collisions| template_hash(&plain, collisions),
        };
        let history = self.revisions.history(&*set, present, collisions).await?;
        let all = self.owners.claim(&set, |_| true).await?;
        let mut by_node = ByNode::new();
        for pod in &all {
            by_node.entry(target_node(pod).unwrap_or_default()).or_default().push(pod.clone());
        }
        let hash = hash_of(&history.current).to_owned();
        let look =
            Look { set: &set, nodes: &self.nodes.list(), pods: &by_node, hash: &hash, now: self.client.clock().now() };
        let mut acted = Ok(());
        if seen {
            acted = self.act(&key, &set, &hash, look.manage()).await;
            if acted.is_ok() && self.owners.expectations().satisfied(&key) {
                acted = self.act(&key, &set, &hash, look.roll()).await;
            }
            self.clean_up(&set, &history, &all).await?;
        }
        self.write_status(&look, &history).await?;
        let waits = all.iter().filter_map(|pod| pods::available_in(pod, look.min_ready(), look.now));
        if let Some(wait) = waits.filter(|wait| !wait.is_zero()).min() {
            self.queue.add_after(key, wait);
        }
        acted
    }
}
