//! Static pods: pods a node runs on its own, from manifests, whether the API is there or not. In the API each has a
//! mirror, which shows it and takes its status but does not steer it.
//!
//! (kubelet: `config/file.go`, `config/common.go`; `pod/mirror_client.go`; `types/pod_update.go`.)

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, PodStatus, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, PostParams, Preconditions};
use minik8s_client::{Event, is_already_exists, is_not_found};
use minik8s_cri::FileKind;

use crate::config::ManifestFolder;
use crate::error::Result;
use crate::kubelet::Kubelet;
use crate::spec::PodExt as _;
use crate::worker::{Input, SyncState};

/// Annotation: where a pod comes from.
pub const SOURCE_ANNOTATION: &str = "kubernetes.io/config.source";
/// Annotation: a hash of the manifest; on a mirror it is the mirrored hash.
pub const HASH_ANNOTATION: &str = "kubernetes.io/config.hash";
/// Annotation: when the manifest was first seen.
pub const SEEN_ANNOTATION: &str = "kubernetes.io/config.seen";
/// Annotation that makes a pod a mirror; its value is the hash of what it mirrors.
pub const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// The source of pods that are not static.
pub const API_SOURCE: &str = "api";
/// The source of pods from manifests.
const FILE_SOURCE: &str = "file";

/// Whether a pod of the API only mirrors a static one.
pub fn is_mirror(pod: &Pod) -> bool {
    pod.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(MIRROR_ANNOTATION))
}

/// Makes a static pod of this node from a manifest.
pub fn from_manifest(mut pod: Pod, node_name: &str, now: jiff::Timestamp) -> Pod {
    let manifest = serde_json::to_vec(&pod).unwrap_or_default();
    let hash = hash(node_name, &manifest);
    let metadata = &mut pod.metadata;
    let name = metadata.name.clone().unwrap_or_default();
    metadata.name = Some(format!("{name}-{}", node_name.to_lowercase()));
    metadata.namespace.get_or_insert_with(|| "default".to_owned());
    metadata.uid.get_or_insert_with(|| hash.clone());
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(SOURCE_ANNOTATION.to_owned(), FILE_SOURCE.to_owned());
    annotations.insert(SEEN_ANNOTATION.to_owned(), now.to_string());
    annotations.insert(HASH_ANNOTATION.to_owned(), hash);
    let spec = pod.spec.get_or_insert_default();
    spec.node_name = Some(node_name.to_owned());
    spec.restart_policy.get_or_insert_with(|| "Always".to_owned());
    spec.termination_grace_period_seconds.get_or_insert(30);
    spec.dns_policy.get_or_insert_with(|| "ClusterFirst".to_owned());
    spec.enable_service_links.get_or_insert(true);
    // Nothing evicts what the node itself wants to run.
    let tolerations = spec.tolerations.get_or_insert_default();
    if tolerations.iter().all(|t| t.operator.as_deref() != Some("Exists") || t.key.is_some()) {
        let effect = Some("NoExecute".to_owned());
        tolerations.push(Toleration { operator: Some("Exists".to_owned()), effect, ..Toleration::default() });
    }
    pod
}

/// 32 hexadecimal digits that stay the same for the same manifest on the same node.
fn hash(node_name: &str, manifest: &[u8]) -> String {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let bytes = node_name.bytes().chain([0]).chain(manifest.iter().copied());
    let hash = bytes.fold(OFFSET, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME));
    format!("{hash:032x}")
}

/// How often the folder of manifests is looked at (`fileCheckFrequency`, where Kubernetes is told of changes besides).
const FILE_CHECK: std::time::Duration = std::time::Duration::from_secs(1);

/// The pods of a folder, and what in it is none. A folder that is not there has no pods; one that cannot be read says
/// nothing about them.
fn read_manifests(folder: &ManifestFolder) -> std::io::Result<(Vec<Pod>, BTreeSet<String>)> {
    let (mut pods, mut problems) = (Vec::new(), BTreeSet::new());
    let entries = match folder.fs.list(&folder.path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            problems.insert(error.to_string());
            Vec::new()
        }
        listed => listed?,
    };
    for entry in entries.into_iter().filter(|entry| !entry.name.starts_with('.') && entry.kind != FileKind::Directory) {
        let file = format!("{}/{}", folder.path.trim_end_matches('/'), entry.name);
        let read = folder.fs.read(&file).map_err(|error| error.to_string());
        match read.and_then(|data| serde_yaml::from_slice::<Pod>(&data).map_err(|error| error.to_string())) {
            Ok(pod) => pods.push(pod),
            Err(error) => drop(problems.insert(format!("{}: {error}", entry.name))),
        }
    }
    Ok((pods, problems))
}

impl Kubelet {
    /// Takes in the static pods that were given as objects.
    pub(crate) fn add_static_pods(&self) {
        let now = self.config.clock.now();
        for pod in self.config.static_pods.clone() {
            self.set_pod(Arc::new(from_manifest(pod, &self.config.node_name, now)));
        }
    }

    /// Follows the folder of manifests, if there is one: a new file is a new pod, one that is gone ends its pod, one
    /// that has changed does both.
    pub(crate) async fn watch_manifests(self: Arc<Self>) {
        let Some(folder) = self.config.static_pod_path.clone() else { return };
        let mut running: BTreeMap<String, Arc<Pod>> = BTreeMap::new();
        let mut complained = BTreeSet::new();
        loop {
            let now = self.config.clock.now();
            let (manifests, problems) = match read_manifests(&folder) {
                Ok(read) => read,
                Err(error) => {
                    tracing::error!(folder = folder.path, %error, "cannot read the manifests");
                    self.config.clock.sleep(FILE_CHECK).await;
                    continue;
                }
            };
            for problem in &problems {
                if !complained.contains(problem) {
                    tracing::error!(folder = folder.path, problem, "cannot read a manifest");
                }
            }
            complained = problems;
            let found = manifests.into_iter().map(|pod| {
                let pod = from_manifest(pod, &self.config.node_name, now);
                (pod.uid().to_owned(), Arc::new(pod))
            });
            let found: BTreeMap<_, _> = found.collect();
            running.retain(|uid, pod| {
                let stays = found.contains_key(uid);
                if let Some(worker) = (!stays).then(|| self.worker(uid)).flatten() {
                    worker.update(Input { pod: pod.clone(), gone: true });
                    self.queue.add(uid.clone());
                }
                stays
            });
            for (uid, pod) in found {
                // What had the name before ends first.
                if !running.contains_key(&uid) && self.pod_named(pod.namespace(), pod.name()).is_none() {
                    self.set_pod(pod.clone());
                    running.insert(uid, pod);
                }
            }
            self.config.clock.sleep(FILE_CHECK).await;
        }
    }

    /// A mirror that changes or goes makes its static pod look again.
    pub(crate) fn on_mirror(&self, event: &Event<Pod>) {
        let mirror = event.object();
        match self.pod_named(mirror.namespace(), mirror.name()).filter(|worker| worker.input().pod.is_static()) {
            Some(worker) => match event {
                Event::Updated { old, new }
                    if old.spec == new.spec
                        && old.metadata.uid == new.metadata.uid
                        && old.metadata.deletion_timestamp == new.metadata.deletion_timestamp => {}
                _ => self.queue.add(worker.uid.clone()),
            },
            // The mirror of a pod that this node no longer runs.
            None if !matches!(event, Event::Deleted(_)) => {
                let (client, mirror) = (self.config.client.clone(), mirror.clone());
                tokio::spawn(async move {
                    if let Err(error) = delete(&client, &mirror).await {
                        tracing::debug!(%error, "could not delete a mirror without a pod");
                    }
                });
            }
            None => {}
        }
    }

    /// Sees to it that a static pod has its mirror. That the API is away is no reason not to run the pod.
    pub(crate) async fn keep_mirror(&self, pod: &Arc<Pod>) {
        if pod.is_static()
            && let Err(error) = self.create_mirror(pod).await
        {
            tracing::debug!(pod = pod.full_format(), %error, "no mirror yet");
        }
    }

    async fn create_mirror(&self, pod: &Arc<Pod>) -> Result<Option<Pod>> {
        let api = self.config.client.namespaced::<Pod>(pod.namespace());
        let hash = annotation(pod, HASH_ANNOTATION).unwrap_or_default();
        // Looked up among the pods that are watched: a node may not ask for a pod that has nothing to do with it, and one
        // that is not there has to do with nobody.
        let watched = self.config.pods.list(&self.config.node_name);
        let found = watched
            .into_iter()
            .find(|other| is_mirror(other) && other.namespace() == pod.namespace() && other.name() == pod.name());
        if let Some(found) = found {
            let is_current = annotation(&found, MIRROR_ANNOTATION) == Some(hash);
            if is_current && found.metadata.deletion_timestamp.is_none() {
                return Ok(Some(Pod::clone(&found)));
            }
            delete(&self.config.client, &found).await?;
        }
        let known = self.node.lock().metadata.uid.clone();
        let owner = match known {
            Some(uid) => uid,
            None => {
                let node = self.config.client.all::<Node>().get(&self.config.node_name).await?;
                node.metadata.uid.unwrap_or_default()
            }
        };
        let mut mirror = Pod { status: None, ..pod.as_ref().clone() };
        mirror.metadata.uid = None;
        let annotations: &mut BTreeMap<_, _> = mirror.metadata.annotations.get_or_insert_default();
        annotations.insert(MIRROR_ANNOTATION.to_owned(), hash.to_owned());
        mirror.metadata.owner_references = Some(vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: self.config.node_name.clone(),
            uid: owner,
            controller: Some(true),
            ..OwnerReference::default()
        }]);
        match api.create(&PostParams::default(), &mirror).await {
            Ok(created) => Ok(Some(created)),
            Err(error) if is_already_exists(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the status of a static pod into its mirror. Where there is no API there is nobody to tell, and the status
    /// is written when there is.
    pub(crate) async fn send_mirror_status(&self, pod: &Arc<Pod>, new: PodStatus, state: &mut SyncState) -> Result<()> {
        let mirror = match self.create_mirror(pod).await {
            Ok(Some(mirror)) => mirror,
            Ok(None) => return Ok(()),
            Err(error) => {
                tracing::debug!(pod = pod.full_format(), %error, "the status of a static pod has to wait");
                state.status = Some(new);
                self.queue.add_after(pod.uid().to_owned(), MIRROR_RETRY);
                return Ok(());
            }
        };
        let old = mirror.status.clone().unwrap_or_default();
        let uid = mirror.metadata.uid.clone().unwrap_or_default();
        let mut own = new.clone();
        own.observed_generation = mirror.metadata.generation;
        for condition in own.conditions.iter_mut().flatten() {
            condition.observed_generation = mirror.metadata.generation;
        }
        state.status = Some(new);
        if let Some(patch) = crate::status_patch::status_patch(&uid, &old, &own)
            && let Err(error) = self.patch_status(pod, &patch).await
        {
            tracing::debug!(pod = pod.full_format(), %error, "the status of a static pod has to wait");
            self.queue.add_after(pod.uid().to_owned(), MIRROR_RETRY);
        }
        Ok(())
    }

    /// Deletes the mirror of a static pod that has ended.
    pub(crate) async fn delete_mirror(&self, pod: &Pod) {
        let api = self.config.client.namespaced::<Pod>(pod.namespace());
        let deleted = async {
            match api.get_opt(pod.name()).await? {
                Some(mirror) if is_mirror(&mirror) => delete(&self.config.client, &mirror).await,
                _ => Ok(()),
            }
        };
        if let Err(error) = deleted.await {
            tracing::debug!(pod = pod.full_format(), %error, "could not delete a mirror");
        }
    }
}

/// How soon a status that could not be written into a mirror is tried again.
const MIRROR_RETRY: std::time::Duration = std::time::Duration::from_secs(2);

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

async fn delete(client: &minik8s_client::Client, mirror: &Pod) -> Result<()> {
    let preconditions = Some(Preconditions { uid: mirror.metadata.uid.clone(), resource_version: None });
    let params = DeleteParams { grace_period_seconds: Some(0), preconditions, ..DeleteParams::default() };
    match client.namespaced::<Pod>(mirror.namespace()).delete(mirror.name(), &params).await {
        Err(error) if !is_not_found(&error) => Err(error.into()),
        _ => Ok(()),
    }
}
