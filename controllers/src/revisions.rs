//! The past templates of an object, kept as ControllerRevisions, so that it can be rolled back.
//! (Kubernetes: `pkg/controller/history/controller_history.go`.)

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use minik8s_client::{Client, Lister, Watched, is_already_exists, is_not_found};
use serde_json::{Value, json};

use crate::manager::Context;
use crate::owners::{adopt_patch, controller_reference, controller_uid};

/// The label that tells the pods of one revision from those of another.
pub const HASH_LABEL: &str = "controller-revision-hash";
/// The index of revisions by the UID of their controller.
const BY_CONTROLLER: &str = "revisions/controller";

/// The present form of an object, as a revision is to keep it.
pub struct Present<'a> {
    /// The labels of the revision.
    pub labels: &'a BTreeMap<String, String>,
    /// The patch that brings this form back.
    pub data: Value,
    /// The hash in the revision's name, given how often one was taken already.
    pub hash: &'a (dyn Fn(Option<i32>) -> String + Send + Sync),
}

/// What a revision keeps: the patch that brings the template back.
pub fn template_patch(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).unwrap_or_default();
    template["$patch"] = "replace".into();
    json!({"spec": {"template": template}})
}

/// The revisions of the objects of one controller.
#[derive(Clone)]
pub struct Revisions {
    client: Client,
    lister: Lister<ControllerRevision>,
}

/// The revisions of one object.
pub struct History {
    /// That of the object as it is.
    pub current: Arc<ControllerRevision>,
    /// All others, the oldest first.
    pub old: Vec<Arc<ControllerRevision>>,
    /// How often a new revision's name was taken.
    pub collisions: Option<i32>,
}

/// The name of a revision.
pub fn name(revision: &ControllerRevision) -> &str {
    revision.metadata.name.as_deref().unwrap_or_default()
}

impl Revisions {
    /// Asks for its informer.
    pub fn new(context: &Context) -> Self {
        let informer = context.informers.informer::<ControllerRevision>();
        informer.add_index(BY_CONTROLLER, |revision| {
            controller_uid(&revision.metadata).map(str::to_owned).into_iter().collect()
        });
        Self { client: context.client.clone(), lister: informer.lister() }
    }

    /// The revisions of `owner`; makes one for its present form where there is none.
    pub async fn history<K>(
        &self,
        owner: &K,
        present: Present<'_>,
        collisions: Option<i32>,
    ) -> Result<History, kube::Error>
    where
        K: Watched + k8s_openapi::Resource<Scope = NamespaceResourceScope>,
    {
        let meta = owner.object_meta();
        let mut all = self.lister.by_index(BY_CONTROLLER, meta.uid.as_deref().unwrap_or_default());
        all.sort_by_key(|revision| (revision.revision, revision.metadata.name.clone()));
        let newest = all.last().and_then(|revision| revision.revision).unwrap_or(0);
        if let Some(at) = all.iter().rposition(|revision| revision.data.0 == present.data) {
            let mut current = all.remove(at);
            if current.revision != Some(newest) {
                // What was rolled back to is the newest again.
                current = Arc::new(self.renumber(&current, newest + 1).await?);
            }
            return Ok(History { current, old: all, collisions });
        }
        let (current, collisions) = self.create(owner, &present, newest + 1, collisions).await?;
        Ok(History { current: Arc::new(current), old: all, collisions })
    }

    async fn renumber(&self, revision: &ControllerRevision, number: i64) -> Result<ControllerRevision, kube::Error> {
        let api = self.client.namespaced(revision.metadata.namespace.as_deref().unwrap_or_default());
        let fresh = ControllerRevision { revision: Some(number), ..revision.clone() };
        api.replace(name(revision), &PostParams::default(), &fresh).await
    }

    async fn create<K>(
        &self,
        owner: &K,
        present: &Present<'_>,
        number: i64,
        mut collisions: Option<i32>,
    ) -> Result<(ControllerRevision, Option<i32>), kube::Error>
    where
        K: Watched + k8s_openapi::Resource<Scope = NamespaceResourceScope>,
    {
        let meta = owner.object_meta();
        let reference = controller_reference(owner);
        let data = &present.data;
        let api = self.client.namespaced::<ControllerRevision>(meta.namespace.as_deref().unwrap_or_default());
        loop {
            let hash = (present.hash)(collisions);
            let mut labels = present.labels.clone();
            labels.insert(HASH_LABEL.to_owned(), hash.clone());
            let wanted = ControllerRevision {
                metadata: ObjectMeta {
                    name: Some(format!("{}-{hash}", reference.name)),
                    labels: Some(labels),
                    annotations: meta.annotations.clone(),
                    owner_references: Some(vec![reference.clone()]),
                    ..ObjectMeta::default()
                },
                data: RawExtension(data.clone()),
                revision: Some(number),
            };
            match api.create(&PostParams::default(), &wanted).await {
                Ok(created) => return Ok((created, collisions)),
                Err(error) if is_already_exists(&error) => {}
                Err(error) => return Err(error),
            }
            let there = api.get(name(&wanted)).await?;
            match controller_uid(&there.metadata) {
                // The lister is behind.
                Some(uid) if uid == reference.uid && there.data.0 == *data => return Ok((there, collisions)),
                None if there.data.0 == *data => {
                    let uid = there.metadata.uid.as_deref().unwrap_or_default();
                    let patch = Patch::Strategic(adopt_patch(&reference, uid));
                    let adopted = api.patch(name(&there), &PatchParams::default(), &patch).await?;
                    return Ok((adopted, collisions));
                }
                _ => collisions = Some(collisions.unwrap_or(0) + 1),
            }
        }
    }

    /// Deletes the oldest of `old` that are more than `limit` and not in use.
    pub async fn truncate(
        &self,
        old: &[Arc<ControllerRevision>],
        in_use: &BTreeSet<String>,
        limit: Option<i32>,
    ) -> Result<(), kube::Error> {
        let limit = usize::try_from(limit.unwrap_or(10)).unwrap_or(0);
        let unused: Vec<_> = old.iter().filter(|revision| !in_use.contains(name(revision))).collect();
        for revision in unused.iter().take(unused.len().saturating_sub(limit)) {
            let namespace = revision.metadata.namespace.as_deref().unwrap_or_default();
            let api = self.client.namespaced::<ControllerRevision>(namespace);
            match api.delete(name(revision), &DeleteParams::default()).await {
                Err(error) if !is_not_found(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}
