//! Every namespace has a ConfigMap `kube-root-ca.crt`, by which its pods trust the API server.
//!
//! Watches Namespaces and ConfigMaps; writes those ConfigMaps.
//! (Kubernetes: `pkg/controller/certificates/rootcacertpublisher/publisher.go`.)

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use minik8s_client::{Client, Event, ListOptions, Lister, WorkQueue, is_already_exists, is_conflict, is_not_found};

use crate::manager::{Config, Context, Reconciler};
use crate::pod_control::is_namespace_terminating;

/// The ConfigMap's name.
const NAME: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
const DESCRIBED: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
                         endpoints such as the internal service IP or kubernetes.default.svc. No other usage is \
                         guaranteed across distributions of Kubernetes clusters.";

/// See the module.
#[derive(Clone)]
pub struct RootCaPublisher {
    client: Client,
    config: Arc<Config>,
    namespaces: Lister<Namespace>,
    published: Lister<ConfigMap>,
    queue: WorkQueue<String>,
}

impl RootCaPublisher {
    /// Asks for its informers.
    pub fn new(context: &Context) -> Self {
        let namespaces = context.informers.informer::<Namespace>();
        let only_ours = ListOptions { field_selector: Some(format!("metadata.name={NAME}")), ..ListOptions::default() };
        let published = context.informers.informer_with::<ConfigMap>(only_ours);
        let queue = WorkQueue::new(context.client.clock().clone());
        let add = queue.clone();
        namespaces.on_event(move |event| {
            if !matches!(event, Event::Deleted(_)) {
                add.add(event.object().metadata.name.clone().unwrap_or_default());
            }
        });
        let add = queue.clone();
        published.on_event(move |event| {
            if !matches!(event, Event::Added(_)) {
                add.add(event.object().metadata.namespace.clone().unwrap_or_default());
            }
        });
        Self {
            client: context.client.clone(),
            config: context.config.clone(),
            namespaces: namespaces.lister(),
            published: published.lister(),
            queue,
        }
    }

    fn wanted(&self) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(NAME.to_owned()),
                annotations: Some(BTreeMap::from([(DESCRIPTION.to_owned(), DESCRIBED.to_owned())])),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([("ca.crt".to_owned(), self.config.root_ca_pem.clone())])),
            ..ConfigMap::default()
        }
    }
}

impl Reconciler for RootCaPublisher {
    const NAME: &'static str = "root-ca-cert-publisher";
    const WORKERS: usize = 1;

    fn queue(&self) -> &WorkQueue<String> {
        &self.queue
    }

    async fn sync(&self, namespace: String) -> Result<(), kube::Error> {
        let active = self.namespaces.get("", &namespace).filter(|ns| ns.metadata.deletion_timestamp.is_none());
        if active.is_none() {
            return Ok(());
        }
        let api = self.client.namespaced::<ConfigMap>(&namespace);
        let wanted = self.wanted();
        let written = match self.published.get(&namespace, NAME) {
            None => api.create(&PostParams::default(), &wanted).await,
            Some(there) if there.data == wanted.data => return Ok(()),
            Some(there) => {
                let fresh = ConfigMap { data: wanted.data, ..ConfigMap::clone(&there) };
                api.replace(NAME, &PostParams::default(), &fresh).await
            }
        };
        match written {
            Ok(_) => Ok(()),
            Err(error) if is_already_exists(&error) || is_not_found(&error) || is_namespace_terminating(&error) => {
                Ok(())
            }
            // The watch brings the form that won.
            Err(error) if is_conflict(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
