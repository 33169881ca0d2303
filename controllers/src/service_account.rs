//! Every namespace has a ServiceAccount named `default`.
//!
//! Watches Namespaces and ServiceAccounts; writes ServiceAccounts.
//! (Kubernetes: `pkg/controller/serviceaccount/serviceaccounts_controller.go`.)

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use minik8s_client::{Client, Event, Lister, WorkQueue, is_already_exists, is_not_found};

use crate::manager::{Context, Reconciler};
use crate::pod_control::is_namespace_terminating;

/// The account that pods use when they name none.
const DEFAULT: &str = "default";
/// See the module.
#[derive(Clone)]
pub struct ServiceAccountController {
    client: Client,
    namespaces: Lister<Namespace>,
    accounts: Lister<ServiceAccount>,
    queue: WorkQueue<String>,
}

impl ServiceAccountController {
    /// Asks for its informers.
    pub fn new(context: &Context) -> Self {
        let namespaces = context.informers.informer::<Namespace>();
        let accounts = context.informers.informer::<ServiceAccount>();
        let queue = WorkQueue::new(context.client.clock().clone());
        let add = queue.clone();
        namespaces.on_event(move |event| {
            if !matches!(event, Event::Deleted(_)) {
                add.add(event.object().metadata.name.clone().unwrap_or_default());
            }
        });
        let add = queue.clone();
        accounts.on_event(move |event| {
            if let Event::Deleted(account) = event
                && account.metadata.name.as_deref() == Some(DEFAULT)
            {
                add.add(account.metadata.namespace.clone().unwrap_or_default());
            }
        });
        Self { client: context.client.clone(), namespaces: namespaces.lister(), accounts: accounts.lister(), queue }
    }
}

impl Reconciler for ServiceAccountController {
    const NAME: &'static str = "serviceaccount";
    const WORKERS: usize = 1;

    fn queue(&self) -> &WorkQueue<String> {
        &self.queue
    }

    async fn sync(&self, namespace: String) -> Result<(), kube::Error> {
        let Some(found) = self.namespaces.get("", &namespace) else {
            return Ok(());
        };
        let ends = found.metadata.deletion_timestamp.is_some();
        if ends || self.accounts.get(&namespace, DEFAULT).is_some() {
            return Ok(());
        }
        let metadata = ObjectMeta { name: Some(DEFAULT.to_owned()), ..ObjectMeta::default() };
        let account = ServiceAccount { metadata, ..ServiceAccount::default() };
        match self.client.namespaced::<ServiceAccount>(&namespace).create(&PostParams::default(), &account).await {
            Err(error) if is_already_exists(&error) || is_not_found(&error) || is_namespace_terminating(&error) => {
                Ok(())
            }
            other => other.map(drop),
        }
    }
}
