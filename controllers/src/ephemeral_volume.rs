//! Claims for generic ephemeral volumes: a pod whose volume brings a template of a claim gets that claim, as its owner.
//!
//! Watches Pods and PersistentVolumeClaims; writes PersistentVolumeClaims and events. The garbage collector takes the claims
//! away with their pods. (Kubernetes: `pkg/controller/volume/ephemeral/controller.go`,
//! `component-helpers/storage/ephemeral`.)

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimTemplate, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use minik8s_client::{Client, Event, EventRecorder, EventType, Lister, WorkQueue, object_reference, words};

use crate::manager::{Context, Reconciler};
use crate::owners::{controller_reference, controller_uid};
use crate::pod_owners::key_of;

/// The index of pods by the claims that are made for them.
const BY_CLAIM: &str = "ephemeral-volume/claim";

/// The templates of a pod's ephemeral volumes: the volume, the claim that it becomes, and what that claim asks for.
fn templates(pod: &Pod) -> impl Iterator<Item = (&str, String, &PersistentVolumeClaimTemplate)> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(move |volume| {
        let template = volume.ephemeral.as_ref()?.volume_claim_template.as_ref()?;
        Some((volume.name.as_str(), format!("{name}-{}", volume.name), template))
    })
}

/// The claim that a template becomes.
fn claim_of(pod: &Pod, name: &str, template: &PersistentVolumeClaimTemplate) -> PersistentVolumeClaim {
    let given = template.metadata.clone().unwrap_or_default();
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: pod.metadata.namespace.clone(),
            owner_references: Some(vec![controller_reference(pod)]),
            annotations: given.annotations,
            labels: given.labels,
            ..ObjectMeta::default()
        },
        spec: Some(template.spec.clone()),
        status: None,
    }
}

/// Makes the claims of ephemeral volumes.
#[derive(Clone)]
pub struct EphemeralVolumeController {
    client: Client,
    pods: Lister<Pod>,
    claims: Lister<PersistentVolumeClaim>,
    recorder: EventRecorder,
    queue: WorkQueue<String>,
}

impl EphemeralVolumeController {
    /// Asks for its informers.
    pub fn new(context: &Context) -> Self {
        let pods = context.informers.informer::<Pod>();
        let claims = context.informers.informer::<PersistentVolumeClaim>();
        pods.add_index(BY_CLAIM, |pod| {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            templates(pod).map(|(_, claim, _)| format!("{namespace}/{claim}")).collect()
        });
        let queue: WorkQueue<String> = WorkQueue::new(context.client.clock().clone());
        let add = queue.clone();
        pods.on_event(move |event| {
            if let Event::Added(pod) = event
                && templates(pod).next().is_some()
            {
                add.add(key_of(&pod.metadata));
            }
        });
        let (add, pods) = (queue.clone(), pods.lister());
        let of_claim = pods.clone();
        claims.on_event(move |event| {
            if let Event::Deleted(claim) = event {
                let concerned = of_claim.by_index(BY_CLAIM, &key_of(&claim.metadata));
                concerned.iter().for_each(|pod| add.add(key_of(&pod.metadata)));
            }
        });
        let recorder = context.recorder("ephemeral_volume");
        Self { client: context.client.clone(), pods, claims: claims.lister(), recorder, queue }
    }

    async fn make(&self, pod: &Pod, name: &str, template: &PersistentVolumeClaimTemplate) -> Result<(), Failure> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        if let Some(claim) = self.claims.get(namespace, name) {
            if controller_uid(&claim.metadata) == pod.metadata.uid.as_deref() {
                return Ok(());
            }
            let pod = key_of(&pod.metadata);
            return Err(Failure::Foreign(format!(
                "PVC {namespace}/{name} was not created for pod {pod} (pod is not owner)"
            )));
        }
        let claim = claim_of(pod, name, template);
        let api = self.client.namespaced::<PersistentVolumeClaim>(namespace);
        api.create(&PostParams::default(), &claim).await.map_err(Failure::Refused)?;
        Ok(())
    }
}

/// Why a claim was not made.
enum Failure {
    /// There is one of that name, and it is not the pod's.
    Foreign(String),
    /// The API refused it.
    Refused(kube::Error),
}

impl Reconciler for EphemeralVolumeController {
    const NAME: &'static str = "ephemeral-volume-controller";
    /// `--concurrent-ephemeralvolume-syncs`.
    const WORKERS: usize = 5;

    fn queue(&self) -> &WorkQueue<String> {
        &self.queue
    }

    async fn sync(&self, key: String) -> Result<(), kube::Error> {
        let (namespace, name) = key.split_once('/').unwrap_or_default();
        let Some(pod) = self.pods.get(namespace, name) else { return Ok(()) };
        if pod.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        for (volume, claim, template) in templates(&pod) {
            let Err(failure) = self.make(&pod, &claim, template).await else { continue };
            let why = match &failure {
                Failure::Foreign(why) => why.clone(),
                Failure::Refused(error) => format!("create PVC {claim}: {}", words(error)),
            };
            let message = format!("ephemeral volume {volume}: {why}");
            self.recorder.event(&object_reference(pod.as_ref()), EventType::Warning, "FailedBinding", message);
            return match failure {
                Failure::Refused(error) => Err(error),
                // Its deletion asks for another look.
                Failure::Foreign(_) => Ok(()),
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_template_becomes_a_claim_that_the_pod_owns() {
        let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
        let template = json!({"metadata": {"labels": {"type": "scratch"}}, "spec": spec});
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"namespace": "ns", "name": "p", "uid": "u"},
            "spec": {"containers": [], "volumes": [
                {"name": "tmp", "ephemeral": {"volumeClaimTemplate": template}}, {"name": "other", "emptyDir": {}},
            ]},
        }))
        .unwrap();
        let claims: Vec<_> =
            templates(&pod).map(|(volume, name, template)| (volume, claim_of(&pod, &name, template))).collect();
        assert_eq!(claims.len(), 1);
        let (volume, claim) = &claims[0];
        assert_eq!(*volume, "tmp");
        let owner = json!({
            "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true, "blockOwnerDeletion": true,
        });
        let metadata =
            json!({"name": "p-tmp", "namespace": "ns", "labels": {"type": "scratch"}, "ownerReferences": [owner]});
        assert_eq!(
            serde_json::to_value(claim).unwrap(),
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec})
        );
    }
}
