//! What a few kinds do around the store's write, beyond their strategy: allocate, and give back.
//!
//! Services hold cluster IPs and node ports from before they are stored until after they are gone
//! (`pkg/registry/core/service/storage/storage.go` `beginCreate`, `beginUpdate`, `afterDelete`).

use async_trait::async_trait;
use futures::future::BoxFuture;
use minik8s_api::status::Status;
use serde_json::Value;

/// Called once with whether the write was committed: keeps or releases what `begin_*` reserved.
pub type Finish = Box<dyn FnOnce(bool) -> BoxFuture<'static, ()> + Send>;

/// A [`Finish`] that has nothing to do.
pub fn nothing_to_finish() -> Finish {
    Box::new(|_| Box::pin(async {}))
}

/// Reserves for an object before it is written and releases after it is gone. Called after mutating admission and
/// defaulting, with name, namespace and UID set, before `prepare` and validation. With `dry_run` nothing may be reserved
/// for longer than the call.
#[async_trait]
pub trait Hook: Send + Sync {
    /// Before a create.
    async fn begin_create(&self, object: &mut Value, dry_run: bool) -> Result<Finish, Status>;
    /// Before an update; runs again, after its finish, if the update is retried.
    async fn begin_update(&self, new: &mut Value, old: &Value, dry_run: bool) -> Result<Finish, Status>;
    /// After the object was removed from the store (never in a dry run).
    async fn after_delete(&self, object: &Value);
}
