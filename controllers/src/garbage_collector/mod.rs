//! Objects go when all of their owners have gone; owners wait for their dependents or leave them behind, as whoever
//! deleted them asked.
//!
//! Watches the metadata of everything that can be deleted; deletes objects, takes owners off them, and owns the
//! finalizers `foregroundDeletion` and `orphan`.
//! (Kubernetes: `pkg/controller/garbagecollector/garbagecollector.go`.)
//!
//! ```text
//!   discovery ──► one metadata informer a resource ──► Graph (by UID) ──► queue of UIDs ──► sync
//!       ▲                      │ CRDs and APIServices change
//!       └──────────────────────┘
//! ```
//!
//! The [`graph`] says where to look and is believed when it says that an owner is there. That one is *not* there the API
//! itself must say ([`objects`]), and every deletion names the UID and the version that it was decided on.

mod graph;
mod objects;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, join_all, try_join_all};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use minik8s_client::{Client, Event, EventRecorder, EventType, Informer, ObjectMetadata, WorkQueue, run_controller};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::graph::{FOREGROUND, Graph, Node, ORPHAN, Uid, has_finalizer};
use self::objects::AbsentOwners;
use crate::discovery::{Resource, deletable};
use crate::manager::{Context, Controller};

const NAME: &str = "garbage-collector-controller";
const WORKERS: usize = 20;
/// How long the first lists may take. Later the collector starts without: what it has not seen it asks for.
const SYNC_TIMEOUT: Duration = Duration::from_secs(30);
/// Changes of what is served come in groups.
const REDISCOVERY_PAUSE: Duration = Duration::from_millis(100);
/// The pause after a discovery that failed.
const REDISCOVERY_RETRY: Duration = Duration::from_secs(5);
/// The resources whose changes change what is served.
const SERVED_BY: [&str; 2] = ["customresourcedefinitions.apiextensions.k8s.io", "apiservices.apiregistration.k8s.io"];

struct Monitor {
    informer: Informer<ObjectMetadata>,
    cancel: CancellationToken,
}

/// See the module.
#[derive(Clone)]
pub struct GarbageCollector {
    client: Client,
    recorder: EventRecorder,
    graph: Arc<Mutex<Graph>>,
    absent: Arc<AbsentOwners>,
    monitors: Arc<Mutex<BTreeMap<Resource, Monitor>>>,
    served: Arc<Notify>,
    queue: WorkQueue<Uid>,
}

/// What became of an owner.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is there.
    Solid,
    /// It is there, and the graph has not seen it.
    Unseen,
    /// It is not.
    Absent,
    /// It is there until its dependents have gone.
    Waiting,
    /// It cannot be: an object outside of namespaces has no owner within one.
    Impossible,
}

impl GarbageCollector {
    /// Its informers are its own, for they come and go with what is served.
    pub fn new(context: &Context) -> Self {
        Self {
            client: context.client.clone(),
            recorder: context.recorder(NAME),
            graph: Arc::default(),
            absent: Arc::default(),
            monitors: Arc::default(),
            served: Arc::default(),
            queue: WorkQueue::new(context.client.clock().clone()),
        }
    }

    fn look_at(&self, uids: Vec<Uid>) {
        uids.into_iter().for_each(|uid| self.queue.add(uid));
    }

    fn on_event(&self, resource: &Arc<Resource>, event: &Event<ObjectMetadata>) {
        let meta = &event.object().metadata;
        let Some(uid) = meta.uid.clone() else { return };
        let look = match event {
            Event::Added(_) | Event::Updated { .. } => {
                let node = Node::new(resource.clone(), meta);
                let (misplaced, look) = {
                    let mut graph = self.graph.lock();
                    (misplaced(&graph, &uid, &node), graph.put(uid.clone(), node.clone()))
                };
                misplaced.iter().for_each(|owner| self.report_namespace(&uid, &node, owner));
                look
            }
            Event::Deleted(_) => {
                self.absent.add(&uid, meta.namespace.as_deref().unwrap_or_default());
                self.graph.lock().remove(&uid)
            }
        };
        self.look_at(look);
        if SERVED_BY.contains(&resource.group_resource().as_str()) {
            self.served.notify_one();
        }
    }

    /// Asks what is served and watches all of it.
    async fn rediscover(&self) -> Result<(), kube::Error> {
        let found = deletable(self.client.kube()).await?;
        let mut monitors = self.monitors.lock();
        // What a server that does not answer had is still there.
        let is_gone =
            |resource: &&Resource| !found.resources.contains(resource) && !found.stale.contains(&resource.api_version);
        let gone: Vec<Resource> = monitors.keys().filter(is_gone).cloned().collect();
        for resource in gone {
            if let Some(monitor) = monitors.remove(&resource) {
                monitor.cancel.cancel();
            }
            self.look_at(self.graph.lock().forget(&resource));
        }
        for resource in found.resources {
            if monitors.contains_key(&resource) {
                continue;
            }
            let informer = Informer::metadata(self.client.clone(), resource.path(None));
            let (collector, shared) = (self.clone(), Arc::new(resource.clone()));
            informer.on_event(move |event| collector.on_event(&shared, event));
            let cancel = CancellationToken::new();
            informer.start(cancel.clone());
            monitors.insert(resource, Monitor { informer, cancel });
        }
        Ok(())
    }

    async fn discover(&self) {
        let clock = self.client.clock();
        while let Err(error) = self.rediscover().await {
            tracing::warn!(controller = NAME, %error, "cannot discover what is served");
            clock.sleep(REDISCOVERY_RETRY).await;
        }
    }

    async fn follow_served(&self) {
        loop {
            self.served.notified().await;
            self.client.clock().sleep(REDISCOVERY_PAUSE).await;
            self.discover().await;
        }
    }

    fn stop_watching(&self) {
        for (_, monitor) in std::mem::take(&mut *self.monitors.lock()) {
            monitor.cancel.cancel();
        }
    }

    async fn first_lists(&self) {
        let informers: Vec<_> = self.monitors.lock().values().map(|monitor| monitor.informer.clone()).collect();
        let synced = join_all(informers.iter().map(Informer::wait_synced));
        if self.client.clock().timeout(SYNC_TIMEOUT, synced).await.is_err() {
            tracing::warn!(controller = NAME, "starting without all resources listed");
        }
    }

    /// One look at one object.
    async fn sync(&self, uid: Uid) -> Result<(), kube::Error> {
        let Some(node) = self.graph.lock().get(&uid).cloned() else {
            return Ok(());
        };
        if node.orphans_dependents {
            return self.orphan_dependents(&uid, &node).await;
        }
        if node.waits_for_dependents {
            return self.delete_dependents(&uid, &node).await;
        }
        if node.deleting || node.owners.is_empty() {
            return Ok(());
        }
        let Some(live) = self.live(&uid, &node).await? else {
            return Ok(());
        };
        let owners = live.owner_references.clone().unwrap_or_default();
        if live.deletion_timestamp.is_some() || owners.is_empty() {
            return Ok(());
        }
        let fates = try_join_all(owners.iter().map(|owner| self.fate(&node, owner))).await?;
        let any = |fate: Fate| fates.contains(&fate);
        if any(Fate::Impossible) {
            for (owner, _) in owners.iter().zip(&fates).filter(|(_, fate)| **fate == Fate::Impossible) {
                self.report_namespace(&uid, &node, owner);
            }
            return Ok(());
        }
        let stays = |fate: &Fate| matches!(fate, Fate::Solid | Fate::Unseen);
        let solid: Vec<&OwnerReference> =
            owners.iter().zip(&fates).filter(|(_, fate)| stays(fate)).map(|(owner, _)| owner).collect();
        if !solid.is_empty() {
            if solid.len() < owners.len() {
                self.write(&node, &live, json!({"ownerReferences": solid})).await?;
            }
            // The coming of an owner, and later its going, must not be missed: look until the graph has seen it.
            let unseen = "an owner has not been seen yet";
            return if any(Fate::Unseen) { Err(kube::Error::Service(unseen.into())) } else { Ok(()) };
        }
        if any(Fate::Waiting) && self.unblock_circle(&uid, &node, &live).await? {
            return Ok(());
        }
        let dependents = self.graph.lock().dependents(&uid);
        let policy = if any(Fate::Waiting) && !dependents.is_empty() || has_finalizer(&live, FOREGROUND) {
            "Foreground"
        } else if has_finalizer(&live, ORPHAN) {
            "Orphan"
        } else {
            "Background"
        };
        self.delete(&node, &live, policy).await
    }

    /// The object as the API has it now, where it still is the one that the graph knows.
    async fn live(&self, uid: &str, node: &Node) -> Result<Option<ObjectMeta>, kube::Error> {
        let found = objects::get(self.client.kube(), &node.path()).await?;
        Ok(found.map(|object| object.metadata).filter(|meta| meta.uid.as_deref() == Some(uid)))
    }

    async fn fate(&self, node: &Node, owner: &OwnerReference) -> Result<Fate, kube::Error> {
        let known = self.graph.lock().get(&owner.uid).filter(|known| known.is(owner, &node.namespace)).cloned();
        if let Some(known) = known {
            return Ok(if known.waits_for_dependents { Fate::Waiting } else { Fate::Solid });
        }
        let resource = self.resource_of(owner)?;
        if resource.namespaced && node.namespace.is_empty() {
            return Ok(Fate::Impossible);
        }
        let namespace = if resource.namespaced { node.namespace.as_str() } else { "" };
        if self.absent.has(&owner.uid, namespace) {
            return Ok(Fate::Absent);
        }
        let path = format!("{}/{}", resource.path(Some(namespace)), owner.name);
        let found = objects::get(self.client.kube(), &path).await?;
        if found.is_some_and(|found| found.metadata.uid.as_deref() == Some(owner.uid.as_str())) {
            return Ok(Fate::Unseen);
        }
        self.absent.add(&owner.uid, namespace);
        Ok(Fate::Absent)
    }

    /// The resource of an owner's kind. One that is not known may be served soon: the object is looked at again.
    fn resource_of(&self, owner: &OwnerReference) -> Result<Resource, kube::Error> {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let monitors = self.monitors.lock();
        let found = monitors.keys().find(|resource| resource.group() == group && resource.kind == owner.kind);
        found.cloned().ok_or_else(|| {
            let message = format!("no matches for kind \"{}\" in version \"{}\"", owner.kind, owner.api_version);
            kube::Error::Service(message.into())
        })
    }

    /// Owners that wait for one another would wait for ever: an object in such a circle no longer holds its owners up.
    async fn unblock_circle(&self, uid: &str, node: &Node, live: &ObjectMeta) -> Result<bool, kube::Error> {
        let circle = self.graph.lock().dependents(uid).iter().any(|(_, dependent)| dependent.waits_for_dependents);
        let owners = live.owner_references.clone().unwrap_or_default();
        if !circle || owners.iter().all(|owner| owner.block_owner_deletion != Some(true)) {
            return Ok(false);
        }
        let owners: Vec<OwnerReference> =
            owners.into_iter().map(|owner| OwnerReference { block_owner_deletion: Some(false), ..owner }).collect();
        // Its references change by this, so it is looked at again, and deleted then.
        self.write(node, live, json!({"ownerReferences": owners})).await?;
        Ok(true)
    }

    async fn delete_dependents(&self, uid: &str, node: &Node) -> Result<(), kube::Error> {
        let blocking = self.graph.lock().blocking(uid);
        if blocking.is_empty() {
            return self.remove_finalizer(uid, node, FOREGROUND).await;
        }
        self.look_at(blocking.into_iter().filter(|(_, node)| !node.deleting).map(|(uid, _)| uid).collect());
        Ok(())
    }

    async fn orphan_dependents(&self, uid: &str, node: &Node) -> Result<(), kube::Error> {
        let dependents = self.graph.lock().dependents(uid);
        try_join_all(dependents.iter().map(|(dependent_uid, dependent)| async move {
            let Some(live) = self.live(dependent_uid, dependent).await? else {
                return Ok(());
            };
            let mut owners = live.owner_references.clone().unwrap_or_default();
            let before = owners.len();
            owners.retain(|owner| owner.uid != uid);
            if owners.len() == before {
                return Ok(());
            }
            self.write(dependent, &live, json!({"ownerReferences": owners})).await
        }))
        .await?;
        self.remove_finalizer(uid, node, ORPHAN).await
    }

    async fn remove_finalizer(&self, uid: &str, node: &Node, finalizer: &str) -> Result<(), kube::Error> {
        let Some(live) = self.live(uid, node).await? else {
            return Ok(());
        };
        let mut finalizers = live.finalizers.clone().unwrap_or_default();
        if !finalizers.iter().any(|own| own == finalizer) {
            return Ok(());
        }
        finalizers.retain(|own| own != finalizer);
        self.write(node, &live, json!({"finalizers": finalizers})).await
    }

    /// Writes metadata, given that nobody else has written since `live` was read.
    async fn write(&self, node: &Node, live: &ObjectMeta, mut metadata: serde_json::Value) -> Result<(), kube::Error> {
        metadata["uid"] = json!(live.uid);
        metadata["resourceVersion"] = json!(live.resource_version);
        objects::patch(self.client.kube(), &node.path(), &json!({"metadata": metadata})).await
    }

    async fn delete(&self, node: &Node, live: &ObjectMeta, policy: &str) -> Result<(), kube::Error> {
        tracing::info!(controller = NAME, object = node.path(), policy, "deleting object without owners");
        let options = json!({
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "propagationPolicy": policy,
            "preconditions": {"uid": live.uid, "resourceVersion": live.resource_version},
        });
        objects::delete(self.client.kube(), &node.path(), &options).await
    }

    fn report_namespace(&self, uid: &str, node: &Node, owner: &OwnerReference) {
        let about = ObjectReference {
            api_version: Some(node.resource.api_version.clone()),
            kind: Some(node.resource.kind.clone()),
            namespace: Some(node.namespace.clone()).filter(|namespace| !namespace.is_empty()),
            name: Some(node.name.clone()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        let named = format!(
            "[{}/{}, namespace: {}, name: {}, uid: {}]",
            owner.api_version, owner.kind, node.namespace, owner.name, owner.uid
        );
        let message = format!("ownerRef {named} does not exist in namespace {:?}", node.namespace);
        self.recorder.event(&about, EventType::Warning, "OwnerRefInvalidNamespace", message);
    }
}

/// The owners of `node` that were seen to live in another namespace, where the node's references are new.
fn misplaced(graph: &Graph, uid: &str, node: &Node) -> Vec<OwnerReference> {
    if graph.get(uid).is_some_and(|old| old.owners == node.owners) {
        return Vec::new();
    }
    let elsewhere = |owner: &&OwnerReference| {
        graph.get(&owner.uid).is_some_and(|known| !known.namespace.is_empty() && known.namespace != node.namespace)
    };
    node.owners.iter().filter(elsewhere).cloned().collect()
}

impl Controller for GarbageCollector {
    fn run(self: Box<Self>, cancel: CancellationToken) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let collector = *self;
            let prepare = async {
                collector.discover().await;
                collector.first_lists().await;
            };
            tokio::select! {
                biased;
                () = cancel.cancelled() => return collector.stop_watching(),
                () = prepare => {}
            }
            let syncing = collector.clone();
            let sync = move |uid: Uid| {
                let collector = syncing.clone();
                async move { collector.sync(uid).await }
            };
            tokio::select! {
                biased;
                () = run_controller(NAME, collector.queue.clone(), WORKERS, cancel, sync) => {}
                () = collector.follow_served() => {}
            }
            collector.stop_watching();
        })
    }
}
