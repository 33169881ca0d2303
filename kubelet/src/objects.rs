//! The ConfigMaps and Secrets that the pods of this node name, each watched on its own for as long as a pod names it.
//!
//! A node may read no others, so there is no list of all of them to watch. (kubelet:
//! `pkg/kubelet/util/manager/watch_based_manager.go`.)

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use minik8s_client::{Client, Informer, ListOptions, Watched};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::env::Objects;
use crate::spec::PodExt as _;

/// How long a sync waits for an object it has not seen yet.
const FIRST_READ_TIMEOUT: Duration = Duration::from_secs(10);

/// The names of the objects a pod refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// ConfigMaps.
    pub config_maps: BTreeSet<String>,
    /// Secrets.
    pub secrets: BTreeSet<String>,
}

/// What `pod` refers to, in its environment, its volumes and its pull secrets.
pub fn references(pod: &Pod) -> References {
    let mut found = References::default();
    for (_, container) in pod.all_containers() {
        for source in container.env_from.iter().flatten() {
            found.config_maps.extend(source.config_map_ref.iter().map(|reference| reference.name.clone()));
            found.secrets.extend(source.secret_ref.iter().map(|reference| reference.name.clone()));
        }
        for source in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
            found.config_maps.extend(source.config_map_key_ref.iter().map(|reference| reference.name.clone()));
            found.secrets.extend(source.secret_key_ref.iter().map(|reference| reference.name.clone()));
        }
    }
    for volume in pod.spec().volumes.iter().flatten() {
        found.config_maps.extend(volume.config_map.iter().map(|source| source.name.clone()));
        found.secrets.extend(volume.secret.iter().filter_map(|source| source.secret_name.clone()));
        let projected = volume.projected.iter().filter_map(|projected| projected.sources.as_ref()).flatten();
        for source in projected {
            found.config_maps.extend(source.config_map.iter().map(|source| source.name.clone()));
            found.secrets.extend(source.secret.iter().map(|source| source.name.clone()));
        }
    }
    found.secrets.extend(pod.spec().image_pull_secrets.iter().flatten().map(|reference| reference.name.clone()));
    found
}

/// One watched object and the pods that name it.
struct Watch<K> {
    informer: Informer<K>,
    pods: Arc<Mutex<BTreeSet<String>>>,
    cancel: CancellationToken,
}

type Watches<K> = Mutex<BTreeMap<(String, String), Watch<K>>>;
type Changed = Arc<dyn Fn(&str) + Send + Sync>;

/// The watched objects of one kubelet.
pub struct ObjectCache {
    client: Client,
    cancel: CancellationToken,
    changed: Changed,
    config_maps: Watches<ConfigMap>,
    secrets: Watches<Secret>,
}

impl ObjectCache {
    /// A cache whose watches end with `cancel`. `changed` is called with the UID of every pod that names a changed object.
    pub fn new(client: Client, cancel: CancellationToken, changed: Changed) -> Self {
        Self { client, cancel, changed, config_maps: Mutex::default(), secrets: Mutex::default() }
    }

    /// The objects `pod` names, watched from now on. Those that are not there are missing in the answer.
    pub async fn acquire(&self, pod: &Pod) -> Objects {
        let names = references(pod);
        let mut objects = Objects::default();
        for name in names.config_maps {
            let found = self.read(&self.config_maps, "configmaps", pod, &name).await;
            objects.config_maps.extend(found.map(|object| (name, object.as_ref().clone())));
        }
        for name in names.secrets {
            let found = self.read(&self.secrets, "secrets", pod, &name).await;
            objects.secrets.extend(found.map(|object| (name, object.as_ref().clone())));
        }
        objects
    }

    /// Ends the watches that only the pod with that UID needed.
    pub fn release(&self, uid: &str) {
        release(&self.config_maps, uid);
        release(&self.secrets, uid);
    }

    async fn read<K: Watched>(&self, watches: &Watches<K>, plural: &str, pod: &Pod, name: &str) -> Option<Arc<K>> {
        let informer = self.watch(watches, plural, pod, name);
        let synced = self.client.clock().timeout(FIRST_READ_TIMEOUT, informer.wait_synced()).await;
        if synced.is_err() {
            tracing::warn!(plural, namespace = pod.namespace(), name, "could not be read in time");
        }
        informer.lister().get(pod.namespace(), name)
    }

    fn watch<K: Watched>(&self, watches: &Watches<K>, plural: &str, pod: &Pod, name: &str) -> Informer<K> {
        let key = (pod.namespace().to_owned(), name.to_owned());
        let mut watches = watches.lock();
        let watch = watches.entry(key).or_insert_with(|| {
            let path = format!("/api/v1/namespaces/{}/{plural}", pod.namespace());
            let options =
                ListOptions { field_selector: Some(format!("metadata.name={name}")), ..ListOptions::default() };
            let informer = Informer::new(self.client.clone(), path, options);
            let pods: Arc<Mutex<BTreeSet<String>>> = Arc::default();
            let (interested, changed) = (pods.clone(), self.changed.clone());
            informer.on_event(move |_| {
                let interested = interested.lock().clone();
                interested.iter().for_each(|uid| changed(uid));
            });
            let cancel = self.cancel.child_token();
            informer.start(cancel.clone());
            Watch { informer, pods, cancel }
        });
        watch.pods.lock().insert(pod.uid().to_owned());
        watch.informer.clone()
    }
}

fn release<K>(watches: &Watches<K>, uid: &str) {
    watches.lock().retain(|_, watch| {
        let mut pods = watch.pods.lock();
        pods.remove(uid);
        if pods.is_empty() {
            watch.cancel.cancel();
        }
        !pods.is_empty()
    });
}
