//! Bootstrap tokens go when their time is over.
//!
//! Watches the Secrets of the tokens; deletes them. A time that cannot be read is over.
//! (Kubernetes: `pkg/controller/bootstrap/tokencleaner.go`.)

use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Preconditions};
use minik8s_client::{Client, Event, Lister, WorkQueue, is_conflict, is_not_found};

use super::{NAMESPACE, bootstrap_secrets, is_in_place, lives_for};
use crate::manager::{Context, Reconciler};

/// See the module.
#[derive(Clone)]
pub struct TokenCleaner {
    client: Client,
    secrets: Lister<Secret>,
    queue: WorkQueue<String>,
}

impl TokenCleaner {
    /// Asks for its informers.
    pub fn new(context: &Context) -> Self {
        let secrets = context.informers.informer_with::<Secret>(bootstrap_secrets());
        let queue: WorkQueue<String> = WorkQueue::new(context.client.clock().clone());
        let add = queue.clone();
        secrets.on_event(move |event| {
            if !matches!(event, Event::Deleted(_)) && is_in_place(event.object()) {
                add.add(event.object().metadata.name.clone().unwrap_or_default());
            }
        });
        Self { client: context.client.clone(), secrets: secrets.lister(), queue }
    }
}

impl Reconciler for TokenCleaner {
    const NAME: &'static str = "token_cleaner";
    const WORKERS: usize = 1;

    fn queue(&self) -> &WorkQueue<String> {
        &self.queue
    }

    async fn sync(&self, name: String) -> Result<(), kube::Error> {
        let Some(secret) = self.secrets.get(NAMESPACE, &name) else { return Ok(()) };
        let Some(left) = lives_for(&secret, self.client.clock().now()) else { return Ok(()) };
        if !left.is_zero() {
            self.queue.add_after(name, left);
            return Ok(());
        }
        let preconditions = Preconditions { uid: secret.metadata.uid.clone(), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        tracing::info!(controller = Self::NAME, secret = name, "Deleting expired secret");
        match self.client.namespaced::<Secret>(NAMESPACE).delete(&name, &parameters).await {
            Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
            other => other.map(drop),
        }
    }
}
