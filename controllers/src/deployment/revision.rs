//! Which ReplicaSet is the newest, which revision each one is, and what its name is made of.
//! (Kubernetes: `pkg/controller/deployment/sync.go` and `util/deployment_util.go`.)

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use minik8s_client::{EventType, is_already_exists};

use super::progress::set_condition;
use super::rolling::new_replicas;
use super::{DeploymentController, Result, Work};
use crate::owners::{controller_reference, controller_uid};
use crate::pod_control::{is_namespace_terminating, words};

/// The label that tells the pods of one template from those of another.
pub(super) const HASH_LABEL: &str = "pod-template-hash";
/// The revision of a ReplicaSet, and the newest one of a Deployment.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(super) const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub(super) const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of the Deployment that its ReplicaSets do not take over.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];
/// How long the list of earlier revisions of a ReplicaSet may get, in characters.
const MAX_HISTORY_CHARS: usize = 2000;

type Annotations = BTreeMap<String, String>;

fn revision(meta: &ObjectMeta) -> i64 {
    let text = meta.annotations.as_ref().and_then(|annotations| annotations.get(REVISION));
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The template without the hash that this controller put on it.
fn plain(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(labels) = template.metadata.as_mut().and_then(|meta| meta.labels.as_mut()) {
        labels.remove(HASH_LABEL);
    }
    template
}

fn has_template(set: &ReplicaSet, template: &PodTemplateSpec) -> bool {
    set.spec.template.as_ref().is_some_and(|own| plain(own) == plain(template))
}

/// Splits the sets into the one of the current template (the oldest, where there are several) and all others.
pub(super) fn split(work: &Work, sets: Vec<ReplicaSet>) -> (Option<ReplicaSet>, Vec<ReplicaSet>) {
    let template = work.spec().template;
    let mut sets = sets;
    sets.sort_by(|a, b| {
        let born = |set: &ReplicaSet| set.metadata.creation_timestamp.as_ref().map(|time| time.0);
        born(a).cmp(&born(b)).then_with(|| a.metadata.name.cmp(&b.metadata.name))
    });
    let at = sets.iter().position(|set| has_template(set, &template));
    let new = at.map(|at| sets.remove(at));
    (new, sets)
}

/// The value of [`HASH_LABEL`] for a template.
fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let template = serde_json::to_value(template).expect("a typed template has a JSON form");
    minik8s_api::template_hash::template_hash(&template, collisions)
}

/// Brings a ReplicaSet's annotations up to date; says whether anything changed.
fn annotate(work: &Work, set: &mut ReplicaSet, new_revision: i64, exists: bool) -> bool {
    let annotations = set.metadata.annotations.get_or_insert_default();
    let before = annotations.clone();
    for (key, value) in work.deployment.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    let old = annotations.get(REVISION).cloned();
    let old_number: i64 = old.as_ref().and_then(|text| text.parse().ok()).unwrap_or(0);
    if old_number < new_revision {
        annotations.insert(REVISION.to_owned(), new_revision.to_string());
        if let Some(old) = old {
            remember_revision(annotations, &old);
        }
    }
    if !exists {
        note_sizes(work, annotations);
    }
    *annotations != before
}

/// A ReplicaSet that becomes current again keeps a list of the revisions that it was.
fn remember_revision(annotations: &mut Annotations, old: &str) {
    let history = annotations.get(REVISION_HISTORY).cloned().unwrap_or_default();
    let mut all: Vec<&str> = history.split(',').filter(|text| !text.is_empty()).collect();
    all.push(old);
    while all.join(",").len() > MAX_HISTORY_CHARS {
        all.remove(0);
    }
    let joined = all.join(",");
    annotations.insert(REVISION_HISTORY.to_owned(), joined);
}

/// Notes the sizes that proportional scaling goes by; says whether anything changed.
pub(super) fn note_sizes(work: &Work, annotations: &mut Annotations) -> bool {
    let desired = work.replicas();
    let max = desired + super::rolling::max_surge(work);
    let notes = [(DESIRED_REPLICAS, desired), (MAX_REPLICAS, max)];
    let mut changed = false;
    for (key, value) in notes {
        changed |= annotations.insert(key.to_owned(), value.to_string()) != Some(value.to_string());
    }
    changed
}

impl DeploymentController {
    /// The ReplicaSet of the current template and all others. The first one is made where it is missing and
    /// `create` says so; revisions are brought up to date.
    pub(super) async fn sync_revision(
        &self,
        work: &mut Work,
        sets: Vec<ReplicaSet>,
        create: bool,
    ) -> Result<(Option<ReplicaSet>, Vec<ReplicaSet>)> {
        let (new, old) = split(work, sets);
        let newest_old = old.iter().map(|set| revision(&set.metadata)).max().unwrap_or(0);
        let new = match new {
            Some(set) => Some(self.keep_current(work, set, newest_old + 1).await?),
            None if create => Some(self.create_current(work, &old, newest_old + 1).await?),
            None => None,
        };
        Ok((new, old))
    }

    async fn keep_current(&self, work: &mut Work, mut set: ReplicaSet, number: i64) -> Result<ReplicaSet> {
        let changed = annotate(work, &mut set, number, true);
        let wait = work.spec().min_ready_seconds;
        let waits = set.spec.min_ready_seconds.unwrap_or(0) != wait.unwrap_or(0);
        if changed || waits {
            set.spec.min_ready_seconds = wait;
            let name = set.metadata.name.clone().unwrap_or_default();
            let api = self.client.namespaced::<ReplicaSet>(&work.namespace);
            set = api.replace(&name, &PostParams::default(), &set).await?;
        }
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let mut update = self.take_revision(work, revision(&set.metadata));
        if work.spec().progress_deadline_seconds.is_some_and(|deadline| deadline != i32::MAX)
            && !super::progress::has_condition(&work.deployment, "Progressing")
        {
            let message = format!("Found new replica set \"{name}\"");
            self.condition(work, "Progressing", "True", "FoundNewReplicaSet", &message);
            update = true;
        }
        if update {
            self.update_status(work).await?;
        }
        Ok(set)
    }

    /// The Deployment's own revision is that of its current ReplicaSet.
    fn take_revision(&self, work: &mut Work, number: i64) -> bool {
        let annotations = work.deployment.metadata.annotations.get_or_insert_default();
        annotations.insert(REVISION.to_owned(), number.to_string()) != Some(number.to_string())
    }

    async fn create_current(&self, work: &mut Work, old: &[ReplicaSet], number: i64) -> Result<ReplicaSet> {
        let spec = work.spec();
        let collisions = work.deployment.status.as_ref().and_then(|status| status.collision_count);
        let hash = template_hash(&spec.template, collisions);
        let name = format!("{}-{hash}", work.name);
        let mut template = spec.template.clone();
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.insert(HASH_LABEL.to_owned(), hash.clone());
        let labels = labels.clone();
        let mut selector = spec.selector.clone();
        selector.match_labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash);
        let mut set = ReplicaSet {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(work.namespace.clone()),
                labels: Some(labels),
                owner_references: Some(vec![controller_reference(&work.deployment)]),
                ..ObjectMeta::default()
            },
            spec: ReplicaSetSpec {
                replicas: Some(0),
                min_ready_seconds: spec.min_ready_seconds,
                selector,
                template: Some(template),
            },
            status: None,
        };
        let replicas = new_replicas(work, old, &set);
        set.spec.replicas = Some(replicas);
        annotate(work, &mut set, number, false);
        let api = self.client.namespaced::<ReplicaSet>(&work.namespace);
        match api.create(&PostParams::default(), &set).await {
            Ok(created) => {
                if replicas > 0 {
                    let message = format!("Scaled up replica set {name} from 0 to {replicas}");
                    self.recorder.event(&work.reference, EventType::Normal, "ScalingReplicaSet", message);
                }
                tracing::info!(deployment = work.key(), replica_set = name, replicas, "created replica set");
                self.take_revision(work, number);
                self.condition_unless_unlimited(
                    work,
                    "NewReplicaSetCreated",
                    &format!("Created new replica set \"{name}\""),
                );
                self.update_status(work).await?;
                Ok(created)
            }
            Err(error) if is_already_exists(&error) => self.take_or_rehash(work, &name, error).await,
            Err(error) if is_namespace_terminating(&error) => Err(error),
            Err(error) => {
                let message = format!("Failed to create new replica set \"{name}\": {}", words(&error));
                self.recorder.event(&work.reference, EventType::Warning, "ReplicaSetCreateError", message.clone());
                if work.spec().progress_deadline_seconds.is_some_and(|deadline| deadline != i32::MAX) {
                    self.condition(work, "Progressing", "False", "ReplicaSetCreateError", &message);
                    self.update_status(work).await?;
                }
                Err(error)
            }
        }
    }

    /// The name is taken: by this Deployment's own set that the lister does not have yet, or by another whose template
    /// has the same hash. In the second case the next attempt salts the hash.
    async fn take_or_rehash(&self, work: &mut Work, name: &str, error: kube::Error) -> Result<ReplicaSet> {
        let there = self.client.namespaced::<ReplicaSet>(&work.namespace).get(name).await?;
        let ours = controller_uid(&there.metadata) == work.deployment.metadata.uid.as_deref();
        if ours && has_template(&there, &work.spec().template) {
            return Ok(there);
        }
        let status = work.deployment.status.get_or_insert_default();
        status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        tracing::warn!(deployment = work.key(), replica_set = name, "the hash of the template collides");
        self.update_status(work).await?;
        Err(error)
    }

    fn condition_unless_unlimited(&self, work: &mut Work, reason: &str, message: &str) {
        if work.spec().progress_deadline_seconds.is_some_and(|deadline| deadline != i32::MAX) {
            self.condition(work, "Progressing", "True", reason, message);
        }
    }

    /// Sets a condition on the Deployment at hand, to be written with its status.
    pub(super) fn condition(&self, work: &mut Work, kind: &str, status: &str, reason: &str, message: &str) {
        let now = self.client.clock().now();
        let conditions = work.deployment.status.get_or_insert_default().conditions.get_or_insert_default();
        set_condition(conditions, kind, status, reason, message, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_kubernetes() {
        let template: PodTemplateSpec = serde_json::from_value(serde_json::json!({
            "metadata": {"labels": {"app": "x"}},
            "spec": {
                "containers": [{
                    "name": "c", "image": "nginx:1.27", "resources": {}, "imagePullPolicy": "IfNotPresent",
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                }],
                "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
                "securityContext": {}, "schedulerName": "default-scheduler",
            },
        }))
        .unwrap();
        assert_eq!(template_hash(&template, None), "5b8b574799");
        assert_ne!(template_hash(&template, Some(0)), "5b8b574799");
    }

    #[test]
    fn a_revision_history_forgets_its_oldest_entries() {
        let mut annotations = Annotations::new();
        for number in 0..1000 {
            remember_revision(&mut annotations, &number.to_string());
        }
        let history = &annotations[REVISION_HISTORY];
        assert!(history.len() <= MAX_HISTORY_CHARS && history.ends_with(",998,999"), "{history}");
    }
}
