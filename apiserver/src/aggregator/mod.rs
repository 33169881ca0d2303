//! # API aggregation
//!
//! An APIService says who serves a group and version: this server, or another one behind a Service.
//!
//! ```text
//!  /apis/{group}/{version}/…  ── [`services`]: whose? ──┬─ this server's: endpoints, registry
//!                                                       └─ another's ──► [`proxy`]  the caller's name in headers, TLS with the
//!                                                                                   front proxy's certificate
//!  APIServices ─► [`availability`]  Service there? endpoints? does it answer? ─► condition Available ─► 503 while it is not
//!              ─► [`remote`]        its discovery and OpenAPI documents, fetched every minute ─► merged into this server's
//!  kinds ───────► [`registration`]  an APIService for each group and version of this server
//! ```
//!
//! Reading order: [`services`], [`front_proxy`], [`proxy`], [`availability`], [`remote`], [`registration`].
//!
//! ## Invariants
//! - Who calls is told to another server only over a connection that shows the front proxy's certificate, and what a
//!   client sends in those headers is taken out first.
//! - A request is passed on only after this server's own authorizer has said yes.
//! - A server that does not answer delays nobody's discovery: documents are merged from what was fetched last.
//!
//! ## Left out, compared with Kubernetes
//! - Requests that come from another front proxy (`--requestheader-client-ca-file` is published, not accepted).
//! - Connections to other servers are not kept, and speak HTTP/1.1.
//! - Metrics of availability.
//!
//! (Kubernetes: `kube-aggregator/pkg`.)

mod availability;
pub mod front_proxy;
mod proxy;
mod registration;
mod remote;
pub mod services;

use std::sync::Arc;
use std::time::Duration;

use minik8s_api::kinds::GroupResource;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::outgoing::Outgoing;
use crate::registry::Registry;

pub use front_proxy::FrontProxy;
pub use proxy::passed_on;
pub use remote::{Documents, Fetched};
pub use services::{ApiService, Services};

/// The group of APIServices, which no APIService stands for.
pub const GROUP: &str = "apiregistration.k8s.io";

/// Knows who serves what, and keeps the objects that say so.
pub struct Aggregator {
    registry: Arc<Registry>,
    outgoing: Outgoing,
    front_proxy: Option<FrontProxy>,
    resource: GroupResource,
    /// Read from the objects of this version.
    services: Mutex<(u64, Arc<Services>)>,
    documents: Documents,
}

impl Aggregator {
    /// An aggregator that has not looked at anything yet. Without a front proxy's certificate others are asked without one.
    pub fn new(registry: Arc<Registry>, outgoing: Outgoing, front_proxy: Option<FrontProxy>) -> Arc<Aggregator> {
        Arc::new(Aggregator {
            registry,
            outgoing,
            front_proxy,
            resource: GroupResource::new(GROUP, "apiservices"),
            services: Mutex::default(),
            documents: Documents::default(),
        })
    }

    /// Registers this server's own groups, and looks after the availability and documents of others until `shutdown`.
    pub fn start(self: &Arc<Self>, tasks: &TaskTracker, shutdown: &CancellationToken) {
        tasks.spawn(registration::run(Arc::clone(self), shutdown.clone()));
        tasks.spawn(availability::run(Arc::clone(self), shutdown.clone()));
    }

    /// The APIServices as they are now.
    pub fn services(&self) -> Arc<Services> {
        let objects = self.outgoing.objects();
        let version = objects.version(&self.resource);
        let mut services = self.services.lock();
        if services.0 != version || version == 0 {
            let identity = self.front_proxy.as_ref().map(|proxy| &proxy.identity);
            let read = objects.list(&self.resource, None);
            let read = read.iter().map(|object| ApiService::read(&object.value(), identity, self.outgoing.clock()));
            *services = (version, Arc::new(Services::new(read.collect())));
        }
        Arc::clone(&services.1)
    }

    /// The other server that serves a path, if one does.
    pub fn other(&self, path: &str) -> Option<Arc<ApiService>> {
        let (group, version) = services::group_version(path)?;
        let service = Arc::clone(self.services().of(group, version)?);
        service.remote.is_some().then_some(service)
    }

    /// What other servers say of themselves.
    pub fn documents(&self) -> &Documents {
        &self.documents
    }

    /// Waits until something that `seen` stands for has changed, or a time has passed.
    async fn wait(&self, seen: &(dyn Fn() -> bool + Send + Sync), at_most: Option<Duration>) {
        let cache = self.registry.cache();
        let (mut applied, mut kinds) = (cache.progress(), cache.kinds_changes());
        let changed = async {
            while seen() {
                tokio::select! {
                    biased;
                    outcome = applied.changed() => if outcome.is_err() { std::future::pending::<()>().await },
                    outcome = kinds.changed() => if outcome.is_err() { std::future::pending::<()>().await },
                }
            }
        };
        match at_most {
            Some(at_most) => drop(self.outgoing.clock().timeout(at_most, changed).await),
            None => changed.await,
        }
    }
}
