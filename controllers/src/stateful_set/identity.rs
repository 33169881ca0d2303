//! Who the pods of a StatefulSet are: their names, host names and volume claims. Pure.
//! (Kubernetes: `pkg/controller/statefulset/stateful_set_utils.go`.)

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::owners::controller_reference;
use crate::pod_control::pod_from_template;
use crate::revisions::HASH_LABEL;

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The name of the pod of an ordinal.
pub(super) fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", set.metadata.name.as_deref().unwrap_or_default())
}

/// The ordinal of a pod, where its name has one.
pub(super) fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let name = pod.metadata.name.as_deref()?;
    let number = name.strip_prefix(set.metadata.name.as_deref()?)?.strip_prefix('-')?;
    number.parse().ok().filter(|ordinal: &i32| *ordinal >= 0 && ordinal.to_string() == number)
}

/// The pod of an ordinal, made after the template of a revision.
pub(super) fn pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let mut pod = pod_from_template(template, &controller_reference(set));
    let name = pod_name(set, ordinal);
    pod.metadata.generate_name = None;
    pod.metadata.name = Some(name.clone());
    pod.metadata.labels.get_or_insert_default().extend([
        (HASH_LABEL.to_owned(), revision.to_owned()),
        (POD_NAME.to_owned(), name.clone()),
        (POD_INDEX.to_owned(), ordinal.to_string()),
    ]);
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    spec.subdomain = set.spec.service_name.clone();
    let claims = claims(set, ordinal);
    let volumes = spec.volumes.get_or_insert_default();
    volumes.retain(|volume| !claims.iter().any(|(template, _)| *template == volume.name));
    volumes.extend(claims.into_iter().map(|(name, claim)| Volume {
        name,
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim.metadata.name.unwrap_or_default(),
            read_only: None,
        }),
        ..Volume::default()
    }));
    if volumes.is_empty() {
        spec.volumes = None;
    }
    pod
}

/// The claims of an ordinal, each with the name of the volume that it is for.
pub(super) fn claims(set: &StatefulSet, ordinal: i32) -> Vec<(String, PersistentVolumeClaim)> {
    let templates = set.spec.volume_claim_templates.iter().flatten();
    let claim = |template: &PersistentVolumeClaim| {
        let volume = template.metadata.name.clone().unwrap_or_default();
        let mut labels = template.metadata.labels.clone().unwrap_or_default();
        labels.extend(set.spec.selector.match_labels.clone().unwrap_or_default());
        let metadata = ObjectMeta {
            name: Some(format!("{volume}-{}", pod_name(set, ordinal))),
            namespace: set.metadata.namespace.clone(),
            labels: Some(labels).filter(|labels| !labels.is_empty()),
            annotations: template.metadata.annotations.clone(),
            ..ObjectMeta::default()
        };
        (volume, PersistentVolumeClaim { metadata, spec: template.spec.clone(), status: None })
    };
    templates.map(claim).collect()
}

/// The owners that a claim should have, by what the set says about claims of pods and of sets that are gone; `None`
/// where they are right already.
pub(super) fn claim_owners(
    set: &StatefulSet,
    pod: &Pod,
    condemned: bool,
    claim: &PersistentVolumeClaim,
) -> Option<Vec<OwnerReference>> {
    let policy = set.spec.persistent_volume_claim_retention_policy.clone().unwrap_or_default();
    let with_set = policy.when_deleted.as_deref() == Some("Delete");
    let with_pod = policy.when_scaled.as_deref() == Some("Delete") && condemned;
    let old = claim.metadata.owner_references.clone().unwrap_or_default();
    let of_set = controller_reference(set);
    let of_pod = OwnerReference { controller: None, block_owner_deletion: None, ..controller_reference(pod) };
    let mut new: Vec<OwnerReference> =
        old.iter().filter(|owner| owner.uid != of_set.uid && owner.uid != of_pod.uid).cloned().collect();
    if with_pod {
        new.push(of_pod);
    } else if with_set {
        new.push(of_set);
    }
    (new != old).then_some(new)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set() -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": {"name": "db", "namespace": "ns", "uid": "s"},
            "spec": {"serviceName": "db", "selector": {"matchLabels": {"app": "db"}}, "template": {},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}],
                "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Delete"}}}))
        .unwrap()
    }

    #[test]
    fn a_pod_keeps_its_name_and_its_claims() {
        let template = serde_json::from_value(json!({"spec": {"containers": []}})).unwrap();
        let made = pod(&set(), &template, "db-5d", 3);
        assert_eq!(ordinal(&set(), &made), Some(3));
        assert_eq!(made.metadata.labels.unwrap()[HASH_LABEL], "db-5d");
        let spec = made.spec.unwrap();
        assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("db-3"), Some("db")));
        let claim = spec.volumes.unwrap().remove(0).persistent_volume_claim.unwrap();
        assert_eq!(claim.claim_name, "data-db-3");
        assert_eq!(claims(&set(), 3)[0].1.metadata.labels.as_ref().unwrap()["app"], "db");
    }

    #[test]
    fn the_claims_of_condemned_pods_go_with_them_where_the_set_says_so() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "db-1", "uid": "p"}})).unwrap();
        let claim = PersistentVolumeClaim::default();
        assert_eq!(claim_owners(&set(), &pod, false, &claim), None);
        assert_eq!(claim_owners(&set(), &pod, true, &claim).unwrap()[0].uid, "p");
    }
}
