//! A namespace that is being deleted is emptied, and then let go.
//!
//! Watches Namespaces; deletes everything in them; owns the `Namespace…` conditions and the finalizer `kubernetes`.
//! (Kubernetes: `pkg/controller/namespace/deletion/namespaced_resources_deleter.go`.)

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use minik8s_client::{Client, Event, Lister, ObjectMetadata, WorkQueue, is_conflict, is_not_found};
use parking_lot::Mutex;
use serde::Deserialize;

use crate::discovery::{Resource, deletable};
use crate::manager::{Context, Reconciler};
use crate::pod_control::words;

/// The finalizer of `spec.finalizers` that this controller takes off.
const FINALIZER: &str = "kubernetes";
/// The first pause before looking again at content that takes its time to go; it doubles up to the last.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_DOUBLINGS: u32 = 6;

/// See the module.
#[derive(Clone)]
pub struct NamespaceController {
    client: Client,
    namespaces: Lister<Namespace>,
    /// How often each namespace was found to have content left.
    looks: Arc<Mutex<BTreeMap<String, u32>>>,
    queue: WorkQueue<String>,
}

/// What is left in a namespace.
#[derive(Default)]
struct Left {
    /// How many objects, by `deployments.apps`.
    resources: BTreeMap<String, usize>,
    /// How many objects wait for a finalizer, by its name.
    finalizers: BTreeMap<String, usize>,
    /// What could not be deleted, in words.
    failures: Vec<String>,
    /// Why discovery failed.
    discovery: Option<String>,
}

impl NamespaceController {
    /// Asks for its informers.
    pub fn new(context: &Context) -> Self {
        let namespaces = context.informers.informer::<Namespace>();
        let queue: WorkQueue<String> = WorkQueue::new(context.client.clock().clone());
        let add = queue.clone();
        namespaces.on_event(move |event| {
            let ends = event.object().metadata.deletion_timestamp.is_some();
            if ends && !matches!(event, Event::Deleted(_)) {
                add.add(event.object().metadata.name.clone().unwrap_or_default());
            }
        });
        Self { client: context.client.clone(), namespaces: namespaces.lister(), looks: Arc::default(), queue }
    }

    /// Deletes all there is; says what is left.
    async fn empty(&self, namespace: &str) -> Left {
        let mut left = Left::default();
        let resources = match deletable(self.client.kube()).await {
            // What is known goes meanwhile.
            Ok(found) => {
                let failing = found.stale.len();
                left.discovery =
                    found.failure().map(|why| format!("Discovery failed for some groups, {failing} failing: {why}"));
                found.resources
            }
            Err(error) => {
                left.discovery = Some(words(&error));
                return left;
            }
        };
        let (pods, others): (Vec<_>, Vec<_>) = resources
            .into_iter()
            .filter(|resource| resource.namespaced)
            .partition(|resource| resource.group_resource() == "pods");
        // Pods go first: what they use must not be taken from under them.
        for resource in pods.iter().chain(&others) {
            if resource.group_resource() != "pods" && left.resources.contains_key("pods") {
                continue;
            }
            if let Err(error) = self.empty_of(namespace, resource, &mut left).await {
                left.failures.push(format!("{}: {}", resource.group_resource(), words(&error)));
            }
        }
        left
    }

    async fn empty_of(&self, namespace: &str, resource: &Resource, left: &mut Left) -> Result<(), kube::Error> {
        if self.list(namespace, resource).await?.is_empty() {
            return Ok(());
        }
        if resource.deletes_collections {
            self.delete(&resource.path(Some(namespace))).await?;
        } else {
            for object in self.list(namespace, resource).await? {
                let name = object.metadata.name.unwrap_or_default();
                self.delete(&format!("{}/{name}", resource.path(Some(namespace)))).await?;
            }
        }
        let remaining = self.list(namespace, resource).await?;
        if !remaining.is_empty() {
            left.resources.insert(resource.group_resource(), remaining.len());
        }
        for finalizer in remaining.into_iter().flat_map(|object| object.metadata.finalizers.unwrap_or_default()) {
            *left.finalizers.entry(finalizer).or_default() += 1;
        }
        Ok(())
    }

    async fn list(&self, namespace: &str, resource: &Resource) -> Result<Vec<ObjectMetadata>, kube::Error> {
        #[derive(Deserialize)]
        struct List {
            /// Go writes an empty list of metadata as `null`.
            items: Option<Vec<ObjectMetadata>>,
        }
        let request = http::Request::get(resource.path(Some(namespace)))
            .header("accept", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1")
            .body(Vec::new())
            .map_err(kube::Error::HttpError)?;
        Ok(self.client.kube().request::<List>(request).await?.items.unwrap_or_default())
    }

    async fn delete(&self, path: &str) -> Result<(), kube::Error> {
        let options = br#"{"propagationPolicy":"Background"}"#.to_vec();
        let request = http::Request::delete(path)
            .header("content-type", "application/json")
            .body(options)
            .map_err(kube::Error::HttpError)?;
        match self.client.kube().request::<serde_json::Value>(request).await {
            Err(error) if is_not_found(&error) => Ok(()),
            other => other.map(drop),
        }
    }

    async fn finalize(&self, namespace: &Namespace) -> Result<(), kube::Error> {
        let mut fresh = namespace.clone();
        if let Some(finalizers) = fresh.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        }
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        let body = serde_json::to_vec(&fresh).map_err(kube::Error::SerdeError)?;
        let request = http::Request::put(format!("/api/v1/namespaces/{name}/finalize"))
            .header("content-type", "application/json")
            .body(body)
            .map_err(kube::Error::HttpError)?;
        match self.client.kube().request::<serde_json::Value>(request).await {
            Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
            other => other.map(drop),
        }
    }

    async fn tell(&self, namespace: &Namespace, left: &Left) -> Result<(), kube::Error> {
        let old = namespace.status.clone().unwrap_or_default().conditions.unwrap_or_default();
        let new = conditions(&old, left, self.client.clock().now());
        if new == old {
            return Ok(());
        }
        let mut fresh = namespace.clone();
        fresh.status.get_or_insert_default().conditions = Some(new);
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        match self.client.all::<Namespace>().replace_status(name, &PostParams::default(), &fresh).await {
            Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
            other => other.map(drop),
        }
    }
}

impl Reconciler for NamespaceController {
    const NAME: &'static str = "namespace";
    const WORKERS: usize = 10;

    fn queue(&self) -> &WorkQueue<String> {
        &self.queue
    }

    async fn sync(&self, name: String) -> Result<(), kube::Error> {
        let Some(namespace) = self.namespaces.get("", &name) else {
            self.looks.lock().remove(&name);
            return Ok(());
        };
        let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_deref()).unwrap_or_default();
        if namespace.metadata.deletion_timestamp.is_none() || !finalizers.iter().any(|own| own == FINALIZER) {
            return Ok(());
        }
        let left = self.empty(&name).await;
        if left.resources.is_empty() && left.failures.is_empty() && left.discovery.is_none() {
            tracing::info!(namespace = name, "namespace is empty");
            self.looks.lock().remove(&name);
            return self.finalize(&namespace).await;
        }
        self.tell(&namespace, &left).await?;
        let look = {
            let mut looks = self.looks.lock();
            let look = looks.entry(name.clone()).or_insert(0);
            *look += 1;
            *look
        };
        self.queue.add_after(name, PAUSE * 2u32.pow((look - 1).min(PAUSE_DOUBLINGS)));
        Ok(())
    }
}

/// The conditions that tell what is left, with the time of what has not changed kept.
fn conditions(old: &[NamespaceCondition], left: &Left, now: Timestamp) -> Vec<NamespaceCondition> {
    let count = |counts: &BTreeMap<String, usize>, of: &str| {
        let all: Vec<String> =
            counts.iter().map(|(name, count)| format!("{name} {of} {count} resource instances")).collect();
        all.join(", ")
    };
    let resources = count(&left.resources, "has");
    let finalizers = count(&left.finalizers, "in");
    let failures = left.failures.join(", ");
    let discovery = left.discovery.clone().unwrap_or_default();
    let rows: [(&str, bool, &str, String, &str, &str); 5] = [
        (
            "NamespaceDeletionDiscoveryFailure",
            left.discovery.is_some(),
            "DiscoveryFailed",
            discovery,
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            "GroupVersionParsingFailed",
            String::new(),
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        (
            "NamespaceDeletionContentFailure",
            !left.failures.is_empty(),
            "ContentDeletionFailed",
            format!("Failed to delete all resource types, {} remaining: {failures}", left.failures.len()),
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        (
            "NamespaceContentRemaining",
            !left.resources.is_empty(),
            "SomeResourcesRemain",
            format!("Some resources are remaining: {resources}"),
            "ContentRemoved",
            "All content successfully removed",
        ),
        (
            "NamespaceFinalizersRemaining",
            !left.finalizers.is_empty(),
            "SomeFinalizersRemain",
            format!("Some content in the namespace has finalizers remaining: {finalizers}"),
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
        ),
    ];
    let fresh = rows.into_iter().map(|(kind, bad, bad_reason, bad_message, good_reason, good_message)| {
        let status = if bad { "True" } else { "False" };
        let known = old.iter().find(|condition| condition.type_ == kind);
        let since = known.filter(|known| known.status == status);
        NamespaceCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(if bad { bad_reason } else { good_reason }.to_owned()),
            message: Some(if bad { bad_message } else { good_message.to_owned() }),
            last_transition_time: since.and_then(|known| known.last_transition_time.clone()).or(Some(Time(now))),
        }
    });
    fresh.collect()
}
