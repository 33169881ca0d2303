//! The objects that the pods of this node name: ConfigMaps and Secrets, each watched on its own for as long as a pod names it.
//!
//! A node may read no others, so there is no list of all of them to watch. ClusterTrustBundles are for everyone, and
//! PodCertificateRequests for their node: each kind has one watch, for as long as a pod needs it. (kubelet: `pkg/kubelet/util/manager/watch_based_manager.go`,
//! `clustertrustbundle/clustertrustbundle_manager.go`.)

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::certificates::v1::{ClusterTrustBundle, PodCertificateRequest};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use minik8s_client::{Client, Informer, ListOptions, Watched};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::env::Objects;
use crate::spec::PodExt as _;

/// How long a sync waits for an object it has not seen yet.
const FIRST_READ_TIMEOUT: Duration = Duration::from_secs(10);
const CERTIFICATE_REQUESTS: &str = "/apis/certificates.k8s.io/v1/podcertificaterequests";
const TRUST_BUNDLES: &str = "/apis/certificates.k8s.io/v1/clustertrustbundles";

/// The names of the objects a pod refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// ConfigMaps.
    pub config_maps: BTreeSet<String>,
    /// Secrets.
    pub secrets: BTreeSet<String>,
    /// Whether it selects ClusterTrustBundles.
    pub trust_bundles: bool,
    /// Whether it wants certificates of its own.
    pub certificates: bool,
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
            found.trust_bundles |= source.cluster_trust_bundle.is_some();
            found.certificates |= source.pod_certificate.is_some();
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

/// Namespace and name.
type Key = (String, String);
type Watches<K> = Mutex<BTreeMap<Key, Watch<K>>>;
type Changed = Arc<dyn Fn(&str) + Send + Sync>;

/// The watched objects of one kubelet.
pub struct ObjectCache {
    client: Client,
    node_name: String,
    cancel: CancellationToken,
    changed: Changed,
    config_maps: Watches<ConfigMap>,
    secrets: Watches<Secret>,
    /// The one watch of all of them, under the empty name.
    trust_bundles: Watches<ClusterTrustBundle>,
    /// The one watch of those of this node, under the empty name.
    certificate_requests: Watches<PodCertificateRequest>,
}

impl ObjectCache {
    /// A cache whose watches end with `cancel`. `changed` is called with the UID of every pod that names a changed object.
    pub fn new(client: Client, node_name: &str, cancel: CancellationToken, changed: Changed) -> Self {
        Self {
            client,
            node_name: node_name.to_owned(),
            cancel,
            changed,
            config_maps: Mutex::default(),
            secrets: Mutex::default(),
            trust_bundles: Mutex::default(),
            certificate_requests: Mutex::default(),
        }
    }

    /// The objects `pod` names, watched from now on. Those that are not there are missing in the answer.
    pub async fn acquire(&self, pod: &Pod) -> Objects {
        let names = references(pod);
        let mut objects = Objects::default();
        for name in names.config_maps {
            let informer = self.named(&self.config_maps, "configmaps", pod, &name).await;
            let found = informer.lister().get(pod.namespace(), &name);
            objects.config_maps.extend(found.map(|object| (name, object.as_ref().clone())));
        }
        for name in names.secrets {
            let informer = self.named(&self.secrets, "secrets", pod, &name).await;
            let found = informer.lister().get(pod.namespace(), &name);
            objects.secrets.extend(found.map(|object| (name, object.as_ref().clone())));
        }
        if names.trust_bundles {
            let path = TRUST_BUNDLES.to_owned();
            let informer = self.watch(&self.trust_bundles, Key::default(), path, ListOptions::default(), pod).await;
            objects.trust_bundles = informer.has_synced().then(|| informer.lister().list());
        }
        if names.certificates {
            let (key, path) = (Key::default(), CERTIFICATE_REQUESTS.to_owned());
            let selector = Some(format!("spec.nodeName={}", self.node_name));
            let options = ListOptions { field_selector: selector, ..ListOptions::default() };
            let informer = self.watch(&self.certificate_requests, key, path, options, pod).await;
            objects.certificate_requests =
                informer.has_synced().then(|| informer.lister().list_namespace(pod.namespace()));
        }
        objects
    }

    /// Ends the watches that only the pod with that UID needed.
    pub fn release(&self, uid: &str) {
        release(&self.config_maps, uid);
        release(&self.secrets, uid);
        release(&self.trust_bundles, uid);
        release(&self.certificate_requests, uid);
    }

    /// The watch of the object of that name in the pod's namespace.
    async fn named<K: Watched>(&self, watches: &Watches<K>, plural: &str, pod: &Pod, name: &str) -> Informer<K> {
        let key = (pod.namespace().to_owned(), name.to_owned());
        let path = format!("/api/v1/namespaces/{}/{plural}", pod.namespace());
        let options = ListOptions { field_selector: Some(format!("metadata.name={name}")), ..ListOptions::default() };
        self.watch(watches, key, path, options, pod).await
    }

    /// A watch that `pod` needs, begun if nobody did, and its first list waited for.
    async fn watch<K: Watched>(
        &self,
        watches: &Watches<K>,
        key: Key,
        path: String,
        options: ListOptions,
        pod: &Pod,
    ) -> Informer<K> {
        let informer = {
            let mut watches = watches.lock();
            let watch = watches.entry(key.clone()).or_insert_with(|| self.begin(path.clone(), options));
            watch.pods.lock().insert(pod.uid().to_owned());
            watch.informer.clone()
        };
        let synced = self.client.clock().timeout(FIRST_READ_TIMEOUT, informer.wait_synced()).await;
        if synced.is_err() {
            tracing::warn!(path, name = key.1, "could not be read in time");
        }
        informer
    }

    fn begin<K: Watched>(&self, path: String, options: ListOptions) -> Watch<K> {
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
