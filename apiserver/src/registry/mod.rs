//! # The registry
//!
//! One pipeline writes every kind. What differs between kinds is data (their row in `minik8s_api::kinds`), their
//! `Strategy`, and for very few a [`hooks::Hook`] or a subresource of their own.
//!
//! ```text
//!            decode ─▶ defaults ─▶ admission (mutating) ─▶ prepare ─▶ validate ─▶ admission (validating)
//!  create      │                                                                      │
//!  update      ├─ current object ── new object from it                                ▼
//!  patch       │        ▲                                              Txn { if unchanged, put }
//!  delete      │        └───────────── on conflict, again ◀──────────────────────────┤
//!              ▼                                                                      ▼
//!          managedFields, UID, timestamps are settled before the proposal     wait until the cache has it
//! ```
//!
//! Reading order: [`keys`], [`context`] (who writes, and how), [`create`], [`update`] (which patches use), [`patch`],
//! [`delete`], [`read`], then the subresources: [`scale`], [`binding`], [`eviction`].
//!
//! The shapes are those of `k8s.io/apiserver/pkg/registry/generic/registry/store.go`.

pub mod binding;
pub mod commit;
pub mod context;
pub mod continuation;
pub mod create;
pub mod delete;
pub mod eviction;
pub mod hooks;
pub mod keys;
mod owner_references;
pub mod ownership;
pub mod patch;
pub mod read;
pub mod scale;
pub mod target;
pub mod update;
mod versions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use minik8s_api::kinds::{GroupResource, GroupVersionResource, Kind, Kinds};
use minik8s_api::status::Status;
use minik8s_clock::{Clock, Random};
use minik8s_store::Store;
use parking_lot::RwLock;
use serde_json::Value;

use crate::admission::Chain;
use crate::authz::{self, Attributes, Authorizer};
use crate::cache::{Cache, Object};
use crate::crd::Converter;
use crate::metrics::StoreTimes;

pub use commit::Leases;
pub use context::{Context, Warnings};
pub use delete::returns_deleted;
pub use target::Target;

/// Reads and writes objects of every kind. Shared by the HTTP endpoints and by the server's own writers
/// (bootstrap, allocators, admission): these write through it too, with an internal [`Context`].
pub struct Registry {
    store: Arc<dyn Store>,
    cache: Arc<Cache>,
    clock: Clock,
    random: Random,
    leases: Leases,
    store_times: StoreTimes,
    converter: Arc<Converter>,
    chain: RwLock<Arc<Chain>>,
    authorizer: RwLock<Option<Arc<dyn Authorizer>>>,
    hooks: RwLock<BTreeMap<GroupResource, Arc<dyn hooks::Hook>>>,
    event_ttl: RwLock<Duration>,
}

/// How long an Event lives unless operators say otherwise (`kube-apiserver --event-ttl`).
const EVENT_TTL: Duration = Duration::from_secs(3600);

impl Registry {
    /// A registry without admission and hooks; [`Registry::set_chain`] and [`Registry::set_hook`] complete it, because
    /// both read and write through it.
    pub fn new(
        store: Arc<dyn Store>,
        cache: Arc<Cache>,
        converter: Arc<Converter>,
        clock: Clock,
        random: Random,
    ) -> Arc<Registry> {
        Arc::new(Registry {
            leases: Leases::new(clock.clone()),
            store_times: StoreTimes::default(),
            store,
            cache,
            clock,
            random,
            converter,
            chain: RwLock::new(Arc::new(Chain::of(Vec::new()))),
            authorizer: RwLock::default(),
            hooks: RwLock::default(),
            event_ttl: RwLock::new(EVENT_TTL),
        })
    }

    /// Puts the admission chain in place, and who decides whether an update may create.
    pub fn set_chain(&self, chain: Arc<Chain>, authorizer: Arc<dyn Authorizer>) {
        *self.chain.write() = chain;
        *self.authorizer.write() = Some(authorizer);
    }

    /// Whether the caller may create what an update or a patch found absent
    /// (`k8s.io/apiserver/pkg/endpoints/handlers/create.go` `withAuthorization`).
    pub(crate) fn authorize_create(&self, context: &Context, target: &Target) -> Result<(), Status> {
        if context.internal {
            return Ok(());
        }
        let kind = &target.kind;
        let asked = Attributes {
            version: &kind.version,
            namespace: &target.namespace,
            name: &target.name,
            subresource: &target.subresource,
            ..Attributes::resource(&context.user, "create", &kind.group, &kind.plural)
        };
        let authorizer = self.authorizer.read().clone();
        let authorizer = authorizer.ok_or_else(|| Status::internal_error("nobody decides who may create"))?;
        let verdict = authorizer.authorize(&asked);
        if verdict.allowed() { Ok(()) } else { Err(authz::forbidden(&asked, &verdict.reason)) }
    }

    /// Sets how long an Event lives from now on.
    pub fn set_event_ttl(&self, ttl: Duration) {
        *self.event_ttl.write() = ttl;
    }

    /// Puts a resource's hook in place.
    pub fn set_hook(&self, resource: GroupResource, hook: Arc<dyn hooks::Hook>) {
        self.hooks.write().insert(resource, hook);
    }

    /// The kinds served now.
    pub fn kinds(&self) -> Arc<Kinds> {
        self.cache.kinds()
    }

    /// The watch cache.
    pub fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// The clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The random source.
    pub fn random(&self) -> &Random {
        &self.random
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// How long the store takes.
    pub fn store_times(&self) -> &StoreTimes {
        &self.store_times
    }

    /// Takes objects from one version to another.
    pub fn converter(&self) -> &Arc<Converter> {
        &self.converter
    }

    pub(crate) fn chain(&self) -> Arc<Chain> {
        Arc::clone(&self.chain.read())
    }

    pub(crate) fn hook(&self, resource: &GroupResource) -> Option<Arc<dyn hooks::Hook>> {
        self.hooks.read().get(resource).cloned()
    }

    /// The row of a served resource, or Kubernetes' 404 for a resource that does not exist.
    pub fn kind(&self, resource: &GroupVersionResource) -> Result<Arc<Kind>, Status> {
        let kinds = self.kinds();
        kinds
            .by_resource(&resource.group, &resource.version, &resource.resource)
            .cloned()
            .ok_or_else(Status::unknown_resource)
    }
}

/// What a write did, and the object after it.
#[derive(Debug, Clone)]
pub struct Written {
    /// The object as it stands now, in the requested version, resourceVersion included (absent in a dry-run create).
    pub object: Value,
    /// The cached object, when the write was committed and the requested version is the stored one: served without encoding again.
    pub stored: Option<Arc<Object>>,
    /// Whether the object was created (201) rather than changed (200).
    pub created: bool,
}
