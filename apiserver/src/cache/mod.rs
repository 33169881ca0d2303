//! # The watch cache
//!
//! A copy of the store that every read is served from and every watch is fed by. One task follows the store's single
//! stream of changes and applies it, in order, to one [`ResourceCache`] per stored resource:
//!
//! ```text
//!  store.watch("/registry/") ──▶ follow ──▶ ResourceCache "pods"         objects   by key, each once, encoded
//!                                       ├─▶ ResourceCache "deployments"  recent    ring of events, for watches that resume
//!                                       └─▶ …                            watchers  found by one look-up per event
//!                                            then: applied = revision    (readers and writers wait for it)
//! ```
//!
//! - [`Object`]: stored bytes and parsed metadata. [`event::CacheEvent`]: one change, encoded at most once for all watchers.
//! - [`resource::ResourceCache`]: objects, ring, watcher index of one resource.
//! - [`watch`]: one watcher's view: initial state or replay, then events through its selectors.
//!
//! `resourceVersion` semantics are Kubernetes' (`k8s.io/apiserver/pkg/storage/cacher/cacher.go`): unset waits for the
//! store's read index, `0` serves at once, anything else waits until the cache is as new.

pub mod event;
pub mod object;
pub mod resource;
pub mod selection;
pub mod watch;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use minik8s_api::kinds::{GroupResource, Kind, Kinds};
use minik8s_api::status::Status;
use minik8s_clock::Clock;
use minik8s_store::{Event, Revision, Store};
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

pub use object::Object;
pub use resource::ResourceCache;
pub use selection::Selection;

use crate::registry::keys;

/// The prefix of every key of an object.
pub const REGISTRY_PREFIX: &str = "/registry/";

/// How long a reader waits for the cache to reach a revision before it is told that the revision is too large
/// (`k8s.io/apiserver/pkg/storage/cacher/watch_cache.go` `blockTimeout`).
pub const BLOCK_TIMEOUT: Duration = Duration::from_secs(3);

/// Objects as admission, authorization and the allocators read them: the cache's present state.
pub trait Objects: Send + Sync {
    /// One object; `namespace` is empty for cluster-scoped resources.
    fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<Arc<Object>>;
    /// All objects of a resource, or those of one namespace, ordered by namespace and name.
    fn list(&self, resource: &GroupResource, namespace: Option<&str>) -> Vec<Arc<Object>>;
    /// A number that changes with every write to the resource: what was computed from its objects is stale when it moved.
    fn version(&self, resource: &GroupResource) -> u64;
}
