//! Making and removing the pods of an owner, with the events that tell of it.
//! (Kubernetes: `pkg/controller/controller_utils.go`, `RealPodControl`.)

use futures::future::join_all;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use minik8s_client::{Client, EventRecorder, EventType, is_not_found};

use crate::owners::{adopt_patch, release_patch};

/// The longest prefix of a generated name, so that the suffix still fits.
const MAX_NAME_PREFIX: usize = 253 - 5;

/// Writes pods for one controller.
#[derive(Clone)]
pub struct PodControl {
    client: Client,
    recorder: EventRecorder,
}

impl PodControl {
    /// Writes with `client` and tells through `recorder`.
    pub fn new(client: Client, recorder: EventRecorder) -> Self {
        Self { client, recorder }
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The recorder.
    pub fn recorder(&self) -> &EventRecorder {
        &self.recorder
    }

    /// Creates `pod`, an object of `owner`.
    pub async fn create(&self, namespace: &str, owner: &ObjectReference, pod: &Pod) -> Result<Pod, kube::Error> {
        match self.client.namespaced::<Pod>(namespace).create(&PostParams::default(), pod).await {
            Ok(pod) => {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                self.recorder.event(owner, EventType::Normal, "SuccessfulCreate", format!("Created pod: {name}"));
                Ok(pod)
            }
            Err(error) => {
                // A namespace that ends takes no pods, and needs no event about it.
                if !is_namespace_terminating(&error) {
                    let message = format!("Error creating: {}", words(&error));
                    self.recorder.event(owner, EventType::Warning, "FailedCreate", message);
                }
                Err(error)
            }
        }
    }

    /// Deletes a pod of `owner`. That it is gone already is as good.
    pub async fn delete(&self, namespace: &str, name: &str, owner: &ObjectReference) -> Result<(), kube::Error> {
        match self.client.namespaced::<Pod>(namespace).delete(name, &DeleteParams::default()).await {
            Ok(_) => {
                self.recorder.event(owner, EventType::Normal, "SuccessfulDelete", format!("Deleted pod: {name}"));
                Ok(())
            }
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => {
                let message = format!("Error deleting: {}", words(&error));
                self.recorder.event(owner, EventType::Warning, "FailedDelete", message);
                Err(error)
            }
        }
    }

    /// Makes `owner` the controller of a pod that has none, and gives the pod the finalizer of such pods.
    pub async fn adopt(&self, pod: &Pod, owner: &OwnerReference, finalizer: Option<&str>) -> Result<(), kube::Error> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let mut patch = adopt_patch(owner, uid);
        if let Some(finalizer) = finalizer {
            patch["metadata"]["finalizers"] = serde_json::json!([finalizer]);
        }
        self.patch(pod, patch).await
    }

    /// Takes a finalizer off a pod.
    pub async fn remove_finalizer(&self, pod: &Pod, finalizer: &str) -> Result<(), kube::Error> {
        let patch = serde_json::json!({"metadata": {
            "uid": pod.metadata.uid,
            "$deleteFromPrimitiveList/finalizers": [finalizer],
        }});
        match self.patch(pod, patch).await {
            Err(error) if is_not_found(&error) => Ok(()),
            other => other,
        }
    }

    /// Takes `owner` off a pod that its selector no longer finds.
    pub async fn release(&self, pod: &Pod, owner: &OwnerReference) -> Result<(), kube::Error> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        match self.patch(pod, release_patch(&owner.uid, uid)).await {
            Err(error) if is_not_found(&error) => Ok(()),
            other => other,
        }
    }

    async fn patch(&self, pod: &Pod, patch: serde_json::Value) -> Result<(), kube::Error> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let api = self.client.namespaced::<Pod>(namespace);
        api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
    }
}

/// Creations go out in batches that double from this, so that a quota stops one pod and not five hundred.
const SLOW_START_INITIAL: usize = 1;

/// Runs `create` for each item, in batches that grow as long as all goes well. Answers how many were created, and what
/// went wrong. (`slowStartBatch`.)
pub async fn slow_start<T, F, Fut>(items: Vec<T>, create: F) -> (usize, Option<kube::Error>)
where
    F: Fn(T) -> Fut,
    Fut: Future<Output = Result<Pod, kube::Error>>,
{
    let (mut items, mut batch, mut created) = (items.into_iter(), SLOW_START_INITIAL, 0);
    let mut failure = None;
    while failure.is_none() && items.len() > 0 {
        let batch_now: Vec<Fut> = items.by_ref().take(batch).map(&create).collect();
        for result in join_all(batch_now).await {
            match result {
                Ok(_) => created += 1,
                Err(error) => failure = Some(error),
            }
        }
        batch *= 2;
    }
    (created, failure)
}

/// A pod made after `template` for `owner`, its name left to the API server.
pub fn pod_from_template(template: &PodTemplateSpec, owner: &OwnerReference) -> Pod {
    let from = template.metadata.clone().unwrap_or_default();
    let prefix: String = owner.name.chars().take(MAX_NAME_PREFIX).collect();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{prefix}-")),
            labels: from.labels,
            annotations: from.annotations,
            finalizers: from.finalizers,
            owner_references: Some(vec![owner.clone()]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// The API server's own words, without this client's.
pub fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Whether the namespace of the object is being deleted.
pub fn is_namespace_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else {
        return false;
    };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}
