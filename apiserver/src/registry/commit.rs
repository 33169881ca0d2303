//! The last step of every write: the transaction, and the wait until the cache has it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use minik8s_api::kinds::Kind;
use minik8s_api::status::Status;
use minik8s_clock::Clock;
use minik8s_store::{KeyValue, LeaseId, Revision, Store, Txn, TxnResponse};
use serde_json::Value;
use tokio::sync::Mutex;

use super::{Registry, Target, keys};
use crate::cache::Object;
use crate::errors::store_status;

/// Objects written within this time share a lease, so that leases are few
/// (`k8s.io/apiserver/pkg/storage/etcd3/lease_manager.go`).
const LEASE_REUSE: Duration = Duration::from_secs(60);

/// The outcome of one transaction.
pub(crate) enum Outcome {
    /// It was committed; the cache holds it.
    Committed(Revision),
    /// The object was not as expected; what it is now.
    Conflict(Option<KeyValue>),
}

/// Leases for kinds whose objects expire, one for all writes of a minute.
pub struct Leases {
    clock: Clock,
    current: Mutex<BTreeMap<Duration, (LeaseId, Duration)>>,
}

impl Leases {
    pub(crate) fn new(clock: Clock) -> Leases {
        Leases { clock, current: Mutex::default() }
    }

    async fn lease(&self, store: &Arc<dyn Store>, ttl: Duration) -> Result<LeaseId, Status> {
        let now = self.clock.monotonic();
        let mut current = self.current.lock().await;
        if let Some((lease, granted)) = current.get(&ttl)
            && now.saturating_sub(*granted) < LEASE_REUSE
        {
            return Ok(*lease);
        }
        // Long enough that the last object written under it still lives its full time.
        let lease = store.grant_lease(ttl + LEASE_REUSE).await.map_err(store_status)?;
        current.insert(ttl, (lease, now));
        Ok(lease)
    }
}

impl Registry {
    /// The time after which objects of a kind are deleted by themselves.
    fn time_to_live(&self, kind: &Kind) -> Option<Duration> {
        let storage = keys::storage(kind);
        (storage.group.is_empty() && storage.resource == "events").then(|| *self.event_ttl.read())
    }

    /// Commits and waits until the cache has applied it, so that the writer reads its own write.
    pub(crate) async fn commit(&self, txn: Txn) -> Result<Outcome, Status> {
        let (timed, began) = (self.store_times.begin(&txn), self.clock.monotonic());
        let committed = self.store.commit(txn).await;
        timed.end(self.clock.monotonic().saturating_sub(began), committed.is_err());
        match committed.map_err(store_status)? {
            TxnResponse::Committed { revision, .. } => {
                self.cache.wait_applied(revision).await?;
                Ok(Outcome::Committed(revision))
            }
            TxnResponse::Conflict { current, .. } => Ok(Outcome::Conflict(current.into_iter().next().flatten())),
        }
    }

    /// Puts an object that must be absent (`expected` is `None`) or unchanged since a revision.
    pub(crate) async fn put(
        &self,
        target: &Target,
        expected: Option<Revision>,
        value: Bytes,
    ) -> Result<Outcome, Status> {
        let key = target.key();
        let mut txn = match expected {
            None => Txn::create(key, value),
            Some(revision) => Txn::update(key, revision, value),
        };
        if let Some(ttl) = self.time_to_live(&target.kind) {
            txn = txn.with_lease(self.leases.lease(&self.store, ttl).await?);
        }
        self.commit(txn).await
    }

    /// Whether an object would be kept in another form if it were written again, as it is.
    pub(crate) async fn is_stale(&self, target: &Target) -> Result<bool, Status> {
        self.store.is_stale(&target.key()).await.map_err(store_status)
    }

    /// The object as the store has it after a conflict.
    pub(crate) fn after_conflict(&self, target: &Target, kv: Option<KeyValue>) -> Result<Option<Arc<Object>>, Status> {
        let cache = self.cache.resource(&target.kind).ok_or_else(Status::unknown_resource)?;
        kv.map(|kv| cache.read(&kv).map(Arc::new).map_err(Status::internal_error)).transpose()
    }

    /// The row of the version that a target's kind is stored in.
    pub(crate) fn storage_kind(&self, target: &Target) -> Result<Arc<Kind>, Status> {
        if target.kind.is_storage_version() {
            return Ok(Arc::clone(&target.kind));
        }
        let cache = self.cache.resource(&target.kind).ok_or_else(Status::unknown_resource)?;
        Ok(Arc::clone(cache.kind()))
    }

    /// The row in whose version a write is prepared and validated: the stored one's, or of a custom resource that which
    /// was asked for.
    pub(crate) fn acting_kind(&self, target: &Target) -> Result<Arc<Kind>, Status> {
        if target.kind.custom { Ok(Arc::clone(&target.kind)) } else { self.storage_kind(target) }
    }

    /// The object as the cache has it, which may be a moment behind.
    pub(crate) fn cached(&self, target: &Target) -> Result<Option<Arc<Object>>, Status> {
        let cache = self.cache.resource(&target.kind).ok_or_else(Status::unknown_resource)?;
        Ok(cache.get(&target.key()))
    }

    /// An object in the served version of a target.
    pub(crate) async fn served(&self, target: &Target, object: &Object) -> Result<Value, Status> {
        self.converter.one(object.kind(), &target.kind, object.value()).await
    }

    /// Objects in the served version of a target, in their order.
    pub(crate) async fn all_served(&self, target: &Target, objects: &[Arc<Object>]) -> Result<Vec<Value>, Status> {
        let objects = objects.iter().map(|object| (Arc::clone(object.kind()), object.value()));
        self.converter.all(objects.collect(), &target.kind).await
    }

    /// The present time as metadata spells it.
    pub(crate) fn now(&self) -> String {
        minik8s_api::time::format(self.clock.now())
    }
}
