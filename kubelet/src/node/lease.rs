//! The node's lease: a small object renewed often, by which others see that the kubelet is alive.
//!
//! (kubelet: `component-helpers/apimachinery/lease/controller.go`; the lease lasts 40 s and is renewed every 10 s.)

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::PostParams;
use minik8s_client::{is_conflict, is_not_found};

use crate::error::Result;
use crate::kubelet::Kubelet;

/// Where the leases of nodes are.
const NAMESPACE: &str = "kube-node-lease";
/// How long a lease lasts.
const DURATION_SECONDS: i32 = 40;
/// How often it is renewed.
const RENEW_PERIOD: Duration = Duration::from_secs(10);
/// The first pause after a failed renewal; it doubles up to [`RENEW_PERIOD`].
const RETRY: Duration = Duration::from_millis(200);

impl Kubelet {
    /// Renews the node's lease until the kubelet stops.
    pub(crate) async fn keep_lease(self: Arc<Self>) {
        let mut lease = None;
        let mut retry = RETRY;
        // In step with the other work of this process, that of other nodes in it too: thousands spread by when they start.
        let mut ticks = self.config.clock.ticks(RENEW_PERIOD);
        loop {
            match self.renew_lease(lease.take()).await {
                Ok(renewed) => {
                    lease = Some(renewed);
                    retry = RETRY;
                    ticks.tick().await;
                }
                Err(error) => {
                    tracing::debug!(node = self.config.node_name, %error, "cannot renew the lease");
                    retry = (retry * 2).min(RENEW_PERIOD);
                    self.config.clock.sleep(retry).await;
                }
            }
        }
    }

    async fn renew_lease(&self, known: Option<Lease>) -> Result<Lease> {
        let api = self.config.client.namespaced::<Lease>(NAMESPACE);
        let name = &self.config.node_name;
        let known = match known {
            Some(lease) => Some(lease),
            None => api.get_opt(name).await?,
        };
        let Some(mut lease) = known else {
            return Ok(api.create(&PostParams::default(), &self.new_lease()).await?);
        };
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(name.clone());
        spec.lease_duration_seconds = Some(DURATION_SECONDS);
        spec.renew_time = Some(MicroTime(self.config.clock.now()));
        lease.metadata.managed_fields = None;
        match api.replace(name, &PostParams::default(), &lease).await {
            // Somebody else wrote, or removed it: the next attempt reads it anew.
            Err(error) if is_conflict(&error) || is_not_found(&error) => Err(error.into()),
            other => Ok(other?),
        }
    }

    fn new_lease(&self) -> Lease {
        let name = self.config.node_name.clone();
        let owner = self.node.lock().metadata.uid.clone().map(|uid| OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: name.clone(),
            uid,
            ..OwnerReference::default()
        });
        let metadata = ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(NAMESPACE.to_owned()),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        };
        let spec = LeaseSpec {
            holder_identity: Some(name),
            lease_duration_seconds: Some(DURATION_SECONDS),
            renew_time: Some(MicroTime(self.config.clock.now())),
            ..LeaseSpec::default()
        };
        Lease { metadata, spec: Some(spec) }
    }
}
