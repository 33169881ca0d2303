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
//! - `change`: resources that come and go with CustomResourceDefinitions.
//! - [`watch`]: one watcher's view: initial state or replay, then events through its selectors.
//!
//! `resourceVersion` semantics are Kubernetes' (`k8s.io/apiserver/pkg/storage/cacher/cacher.go`): unset waits for the
//! store's read index, `0` serves at once, anything else waits until the cache is as new.

mod change;
pub mod event;
pub mod object;
pub mod resource;
pub mod selection;
pub mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use minik8s_api::kinds::{GroupResource, Kind, Kinds};
use minik8s_api::status::Status;
use minik8s_clock::{Clock, Watched, Watcher};
use minik8s_store::{Event, EventKind, KeyValue, Range, Revision, Store, Watch, WatchMessage};
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use object::Object;
pub use resource::ResourceCache;
pub use selection::Selection;

use crate::errors::store_status;
use crate::registry::keys;

/// When to ask again for a revision that the cache has not reached (`k8s.io/apiserver/pkg/storage/cacher/watch_cache.go`
/// `resourceVersionTooHighRetrySeconds`).
const TOO_HIGH_RETRY_SECONDS: u32 = 1;

/// The prefix of every key of an object.
pub const REGISTRY_PREFIX: &str = "/registry/";

/// How long a reader waits for the cache to reach a revision before it is told that the revision is too large
/// (`k8s.io/apiserver/pkg/storage/cacher/watch_cache.go` `blockTimeout`).
pub const BLOCK_TIMEOUT: Duration = Duration::from_secs(3);

/// Changes applied before the task that applies them lets watchers run.
const CHANGES_PER_TURN: usize = 256;

/// Keys read at once when the cache fills.
const LOAD_PAGE: usize = 10_000;

/// How long the cache waits before it asks a failing store again.
const RELOAD_PAUSE: Duration = Duration::from_millis(200);

/// Objects as admission, authorization and the allocators read them: the cache's present state.
pub trait Objects: Send + Sync {
    /// One object; `namespace` is empty for cluster-scoped resources.
    fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<Arc<Object>>;
    /// All objects of a resource, or those of one namespace, ordered by namespace and name.
    fn list(&self, resource: &GroupResource, namespace: Option<&str>) -> Vec<Arc<Object>>;
    /// How many objects a resource has.
    fn len(&self, resource: &GroupResource) -> usize {
        self.list(resource, None).len()
    }
    /// A number that changes with every write to the resource: what was computed from its objects is stale when it moved.
    fn version(&self, resource: &GroupResource) -> u64;
    /// The kinds served now.
    fn kinds(&self) -> Arc<Kinds>;
}

/// The watch cache of all resources. See the module.
pub struct Cache {
    store: Arc<dyn Store>,
    clock: Clock,
    kinds: Watched<Arc<Kinds>>,
    resources: RwLock<BTreeMap<GroupResource, Arc<ResourceCache>>>,
    applied: Watched<Revision>,
    /// Held while changes are applied, and while resources come and go.
    applying: tokio::sync::Mutex<()>,
}

impl Cache {
    /// Fills the cache from the store and follows it until `shutdown`. The task is tracked by `tasks`.
    pub async fn start(
        store: Arc<dyn Store>,
        kinds: Arc<Kinds>,
        clock: Clock,
        tasks: &TaskTracker,
        shutdown: CancellationToken,
    ) -> Result<Arc<Cache>, String> {
        let mut resources = BTreeMap::new();
        for kind in kinds.iter().filter(|kind| kind.is_storage_version()) {
            let cache = Arc::new(ResourceCache::new(Arc::clone(kind), Vec::new()));
            resources.insert(kind.group_resource(), cache);
        }
        let cache = Arc::new(Cache {
            store,
            clock,
            kinds: Watched::new(kinds),
            resources: RwLock::new(resources),
            applied: Watched::new(0),
            applying: tokio::sync::Mutex::default(),
        });
        let watch = cache.load().await?;
        tasks.spawn(Arc::clone(&cache).follow(watch, shutdown));
        Ok(cache)
    }

    /// The kinds served now.
    pub fn kinds(&self) -> Arc<Kinds> {
        self.kinds.get()
    }

    /// Announces each new snapshot of kinds.
    pub fn kinds_changes(&self) -> Watcher<Arc<Kinds>> {
        self.kinds.watch()
    }

    /// The revision up to which every change of the store is in the cache.
    pub fn applied(&self) -> Revision {
        self.applied.get()
    }

    /// Announces each revision once it is applied.
    pub fn progress(&self) -> Watcher<Revision> {
        self.applied.watch()
    }

    /// The cache of the resource that a kind is stored as.
    pub fn resource(&self, kind: &Kind) -> Option<Arc<ResourceCache>> {
        self.resources.read().get(&keys::storage(kind)).cloned()
    }

    /// Each resource's cache.
    pub fn resources(&self) -> Vec<Arc<ResourceCache>> {
        self.resources.read().values().cloned().collect()
    }

    /// Waits until a revision is applied; a revision the store is far from is refused as too large.
    pub async fn wait_applied(&self, revision: Revision) -> Result<(), Status> {
        let mut applied = self.applied.watch();
        match self.clock.timeout(BLOCK_TIMEOUT, applied.wait_for(|applied| *applied >= revision)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Status::service_unavailable("the server is shutting down")),
            Err(_) => {
                Err(Status::too_large_resource_version(revision, self.applied())
                    .with_retry_after(TOO_HIGH_RETRY_SECONDS))
            }
        }
    }

    /// Waits until the cache holds every write that was acknowledged before the call, anywhere.
    pub async fn wait_latest(&self) -> Result<Revision, Status> {
        let revision = self.store.read_index().await.map_err(store_status)?;
        self.wait_applied(revision).await?;
        Ok(revision)
    }

    /// Reads the whole store at one revision and starts a watch right after it.
    async fn load(&self) -> Result<Watch, String> {
        let _turn = self.applying.lock().await;
        let (mut from, mut at, mut pages) = (None::<String>, None, BTreeMap::<GroupResource, Vec<Arc<Object>>>::new());
        let revision = loop {
            let mut range = Range::prefix(REGISTRY_PREFIX).limit(LOAD_PAGE);
            range.from = from.take();
            range.at = at;
            let page = self.store.range(range).await.map_err(|error| error.to_string())?;
            for kv in &page.key_values {
                if let Some((resource, object)) = self.read(kv)? {
                    pages.entry(resource).or_default().push(Arc::new(object));
                }
            }
            match page.key_values.last() {
                // The next key after this one in byte order.
                Some(last) if page.more => (from, at) = (Some(format!("{}\0", last.key)), Some(page.revision)),
                _ => break page.revision,
            }
        };
        let watch = self.store.watch("", revision).map_err(|error| error.to_string())?;
        for (resource, cache) in self.resources.read().iter() {
            cache.reset(pages.remove(resource).unwrap_or_default(), revision);
        }
        self.applied.set(revision);
        Ok(watch)
    }

    /// What a stored key holds. Keys of resources that this server does not serve are left alone, aloud.
    fn read(&self, kv: &KeyValue) -> Result<Option<(GroupResource, Object)>, String> {
        let Some(cache) = self.cache_of(&kv.key) else {
            return Ok(None);
        };
        let object = cache.read(kv)?;
        Ok(Some((cache.kind().group_resource(), object)))
    }

    fn cache_of(&self, key: &str) -> Option<Arc<ResourceCache>> {
        let cache = keys::resource_of(key).and_then(|resource| self.resources.read().get(&resource).cloned());
        if cache.is_none() {
            tracing::warn!(key, "the store holds an object of a resource that is not served");
        }
        cache
    }

    async fn follow(self: Arc<Self>, mut watch: Watch, shutdown: CancellationToken) {
        let (mut turn, mut next) = (0, None);
        loop {
            let message = match next.take() {
                Some(message) => message,
                None => tokio::select! {
                    biased;
                    message = watch.recv() => message,
                    () = shutdown.cancelled() => return,
                },
            };
            match message {
                Ok(WatchMessage::Events(events)) => {
                    let turn_of_resources = self.applying.lock().await;
                    let applied = self.apply(&events);
                    turn += events.len();
                    next = watch.recv().now_or_never();
                    // Many writes come at once. All who wait for one of them are woken by the last.
                    if turn < CHANGES_PER_TURN && matches!(next, Some(Ok(WatchMessage::Events(_)))) {
                        continue;
                    }
                    if let Some(revision) = applied {
                        self.applied.set(revision);
                    }
                    drop(turn_of_resources);
                    if turn >= CHANGES_PER_TURN {
                        tokio::task::yield_now().await;
                    }
                    turn = 0;
                }
                Ok(WatchMessage::Progress(_)) => {}
                Err(minik8s_store::Error::Closed) => return,
                Err(error) => {
                    tracing::warn!(%error, "the watch cache lost the store's events and starts over");
                    let Some(again) = self.reload(&shutdown).await else {
                        return;
                    };
                    watch = again;
                }
            }
        }
    }

    async fn reload(&self, shutdown: &CancellationToken) -> Option<Watch> {
        loop {
            match self.load().await {
                Ok(watch) => return Some(watch),
                Err(error) => tracing::error!(error, "the watch cache cannot be filled"),
            }
            tokio::select! {
                biased;
                () = self.clock.sleep(RELOAD_PAUSE) => {}
                () = shutdown.cancelled() => return None,
            }
        }
    }

    /// Applies the changes of one revision, which is to be announced then.
    fn apply(&self, events: &[Event]) -> Option<Revision> {
        let at = self.clock.monotonic();
        for event in events.iter().filter(|event| event.kv.key.starts_with(REGISTRY_PREFIX)) {
            let Some(cache) = self.cache_of(&event.kv.key) else {
                continue;
            };
            let object = match event.kind {
                EventKind::Delete => None,
                // The pipeline wrote these bytes; if it wrote nonsense, no watcher may build on what follows.
                EventKind::Put => match cache.read(&event.kv) {
                    Ok(object) => Some(Arc::new(object)),
                    Err(error) => {
                        tracing::error!(error, "an object in the store cannot be read and is left out");
                        None
                    }
                },
            };
            cache.apply(&event.kv.key, object, event.revision(), at);
        }
        events.first().map(Event::revision)
    }
}

impl Objects for Cache {
    fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let cache = self.resources.read().get(resource).cloned()?;
        let key = keys::object(cache.kind(), namespace, name);
        cache.get(&key)
    }

    fn list(&self, resource: &GroupResource, namespace: Option<&str>) -> Vec<Arc<Object>> {
        let Some(cache) = self.resources.read().get(resource).cloned() else {
            return Vec::new();
        };
        cache.candidates(&Selection::everything(namespace.unwrap_or_default()), None).objects
    }

    fn len(&self, resource: &GroupResource) -> usize {
        self.resources.read().get(resource).map_or(0, |cache| cache.len())
    }

    fn version(&self, resource: &GroupResource) -> u64 {
        self.resources.read().get(resource).map_or(0, |cache| cache.version())
    }

    fn kinds(&self) -> Arc<Kinds> {
        Cache::kinds(self)
    }
}
