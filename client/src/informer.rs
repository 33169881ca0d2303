//! Informers: one list-and-watch of a kind, kept as a typed cache that many consumers read.
//!
//! A reflector task lists once, then watches from the list's resource version. When the watch breaks it is resumed from
//! the last version seen; when that version is gone (410) the reflector lists anew and the difference between the old
//! cache and the new list becomes events, so that consumers see a gapless story.
//! (client-go: `tools/cache/reflector.go`, `shared_informer.go`.)

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::RwLock;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use crate::client::{Client, Error, Result};

/// The first pause after a failed list or watch; it doubles up to [`RELIST_BACKOFF_MAX`].
const RELIST_BACKOFF: Duration = Duration::from_millis(50);
/// The longest pause between two attempts to list.
const RELIST_BACKOFF_MAX: Duration = Duration::from_secs(30);
/// How long one watch request may last; afterwards it is begun anew from where it stood.
const WATCH_TIMEOUT: Duration = Duration::from_secs(45 * 60);
/// The longest line of a watch that is accepted: an object of the largest size with some air around it.
const MAX_WATCH_LINE_BYTES: usize = 8 << 20;

/// What an informer can hold: anything that comes with Kubernetes' metadata.
pub trait Watched: DeserializeOwned + Clone + Send + Sync + 'static {
    /// The metadata of the object.
    fn object_meta(&self) -> &ObjectMeta;
}

impl<K> Watched for K
where
    K: k8s_openapi::Metadata<Ty = ObjectMeta> + DeserializeOwned + Clone + Send + Sync + 'static,
{
    fn object_meta(&self) -> &ObjectMeta {
        self.metadata()
    }
}

/// Any object of any kind, with its metadata only.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectMetadata {
    /// Group and version as asked for.
    pub api_version: String,
    /// The kind: `PartialObjectMetadata` in answers reduced to metadata.
    pub kind: String,
    /// The metadata.
    pub metadata: ObjectMeta,
}

impl Watched for ObjectMetadata {
    fn object_meta(&self) -> &ObjectMeta {
        &self.metadata
    }
}

/// What part of a collection an informer holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListOptions {
    /// A label selector, as in the query parameter.
    pub label_selector: Option<String>,
    /// A field selector, as in the query parameter.
    pub field_selector: Option<String>,
}

/// A change of an object in the cache. The cache has it already when a handler is called.
#[derive(Clone, Debug)]
pub enum Event<K> {
    /// The object is new to this cache.
    Added(Arc<K>),
    /// The object changed.
    Updated {
        /// As it was.
        old: Arc<K>,
        /// As it is.
        new: Arc<K>,
    },
    /// The object is gone; this is its last known form.
    Deleted(Arc<K>),
}

impl<K> Event<K> {
    /// The object as it is now, or was at last.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Event::Added(object) | Event::Deleted(object) | Event::Updated { new: object, .. } => object,
        }
    }
}

type Key = (String, String);
type IndexFn<K> = fn(&K) -> Vec<String>;
type Handler<K> = Box<dyn Fn(&Event<K>) + Send + Sync>;

struct Cache<K> {
    objects: BTreeMap<Key, Arc<K>>,
    indexers: BTreeMap<&'static str, IndexFn<K>>,
    indexes: BTreeMap<&'static str, BTreeMap<String, BTreeSet<Key>>>,
}

impl<K: Watched> Cache<K> {
    fn put(&mut self, key: Key, object: Arc<K>) -> Option<Arc<K>> {
        let old = self.objects.insert(key.clone(), object.clone());
        if let Some(old) = &old {
            self.unindex(&key, old);
        }
        for (name, index) in &self.indexers {
            let by_value = self.indexes.entry(name).or_default();
            for value in index(&object) {
                by_value.entry(value).or_default().insert(key.clone());
            }
        }
        old
    }

    fn remove(&mut self, key: &Key) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?;
        self.unindex(key, &old);
        Some(old)
    }

    fn unindex(&mut self, key: &Key, object: &K) {
        for (name, index) in &self.indexers {
            let by_value = self.indexes.entry(name).or_default();
            for value in index(object) {
                if let Some(keys) = by_value.get_mut(&value) {
                    keys.remove(key);
                    if keys.is_empty() {
                        by_value.remove(&value);
                    }
                }
            }
        }
    }
}

struct Shared<K> {
    client: Client,
    path: String,
    metadata_only: bool,
    options: ListOptions,
    cache: RwLock<Cache<K>>,
    handlers: RwLock<Vec<Handler<K>>>,
    synced: minik8s_clock::Watched<bool>,
    started: AtomicBool,
}

/// A shared, self-refreshing cache of the objects of one kind. Clones are the same informer.
pub struct Informer<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<K: Watched> Informer<K> {
    /// An informer on the collection at `path` (`/api/v1/pods`), not started yet.
    pub fn new(client: Client, path: impl Into<String>, options: ListOptions) -> Self {
        Self::build(client, path.into(), options, false)
    }

    fn build(client: Client, path: String, options: ListOptions, metadata_only: bool) -> Self {
        let cache = Cache { objects: BTreeMap::new(), indexers: BTreeMap::new(), indexes: BTreeMap::new() };
        let shared = Shared {
            client,
            path,
            metadata_only,
            options,
            cache: RwLock::new(cache),
            handlers: RwLock::new(Vec::new()),
            synced: minik8s_clock::Watched::new(false),
            started: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Adds an index: `value_of` names the values under which an object is found by [`Lister::by_index`].
    /// Adding it twice is harmless, as long as it is the same index.
    pub fn add_index(&self, name: &'static str, value_of: IndexFn<K>) {
        let mut cache = self.shared.cache.write();
        if cache.indexers.insert(name, value_of).is_none() {
            let mut by_value: BTreeMap<String, BTreeSet<Key>> = BTreeMap::new();
            for (key, object) in &cache.objects {
                for value in value_of(object) {
                    by_value.entry(value).or_default().insert(key.clone());
                }
            }
            cache.indexes.insert(name, by_value);
        }
    }

    /// Calls `handler` for every change, in order, and at once for every object that is here already.
    /// A handler only enqueues: it runs on the reflector's task.
    pub fn on_event(&self, handler: impl Fn(&Event<K>) + Send + Sync + 'static) {
        let mut handlers = self.shared.handlers.write();
        let present: Vec<_> = self.shared.cache.read().objects.values().cloned().collect();
        for object in present {
            handler(&Event::Added(object));
        }
        handlers.push(Box::new(handler));
    }

    /// The reading side.
    pub fn lister(&self) -> Lister<K> {
        Lister { shared: self.shared.clone() }
    }

    /// Whether the first list has been taken in.
    pub fn has_synced(&self) -> bool {
        self.shared.synced.get()
    }

    /// Waits until the first list has been taken in.
    pub async fn wait_synced(&self) {
        // What is watched lives in `self`, so waiting cannot fail.
        let _ = self.shared.synced.watch().wait_for(|done| *done).await;
    }

    /// Starts the reflector, once; a second call does nothing.
    pub fn start(&self, cancel: CancellationToken) {
        if !self.shared.started.swap(true, Ordering::SeqCst) {
            let informer = self.clone();
            tokio::spawn(async move {
                tokio::select! {
                    biased;
                    () = cancel.cancelled() => {}
                    () = informer.reflect() => {}
                }
            });
        }
    }

    async fn reflect(&self) {
        let clock = self.shared.client.clock().clone();
        let mut pause = RELIST_BACKOFF;
        loop {
            match self.list().await {
                Ok(mut version) => {
                    pause = RELIST_BACKOFF;
                    loop {
                        match self.watch(&mut version).await {
                            Ok(()) => {}
                            Err(Error::Expired(why)) => {
                                tracing::debug!(path = self.shared.path, why, "watch expired, listing again");
                                break;
                            }
                            Err(error) => {
                                tracing::debug!(path = self.shared.path, %error, "watch broke, resuming");
                                clock.sleep(self.shared.client.random().jitter(RELIST_BACKOFF, 1.0)).await;
                            }
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(path = self.shared.path, %error, "cannot list");
                    clock.sleep(self.shared.client.random().jitter(pause, 0.5)).await;
                    pause = (pause * 2).min(RELIST_BACKOFF_MAX);
                }
            }
        }
    }

    fn query(&self, extra: &str) -> String {
        let mut query = format!("{}?{extra}", self.shared.path);
        let options = &self.shared.options;
        for (name, value) in [("labelSelector", &options.label_selector), ("fieldSelector", &options.field_selector)] {
            if let Some(value) = value {
                query.push_str(&format!("&{name}={}", percent_encode(value)));
            }
        }
        query
    }

    async fn request(&self, uri: String, list: bool) -> Result<http::Response<kube::client::Body>> {
        let accept = match (self.shared.metadata_only, list) {
            (false, _) => "application/json",
            (true, true) => "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            (true, false) => "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
        };
        let request = http::Request::get(uri)
            .header(http::header::ACCEPT, accept)
            .body(kube::client::Body::empty())
            .map_err(|error| Error::Retry(format!("cannot build the request: {error}")))?;
        let response = self.shared.client.kube().send(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let code = response.status().as_u16();
        let body = response.into_body().collect_bytes().await?;
        let message = match serde_json::from_slice::<kube::core::Status>(&body) {
            Ok(status) => status.message,
            Err(_) => String::from_utf8_lossy(&body).into_owned(),
        };
        Err(if code == 410 { Error::Expired(message) } else { Error::Retry(format!("{code}: {message}")) })
    }

    async fn list(&self) -> Result<String> {
        #[derive(Deserialize)]
        struct List<'a> {
            metadata: ListMeta,
            /// Go writes an empty list of metadata as `null`.
            #[serde(borrow)]
            items: Option<Vec<&'a RawValue>>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct ListMeta {
            resource_version: String,
        }
        let body = self.request(self.query("resourceVersion=0"), true).await?.into_body().collect_bytes().await?;
        let list: List<'_> = serde_json::from_slice(&body).map_err(|source| self.decode_error(source))?;
        let items = list.items.iter().flatten().filter_map(|item| self.decode_or_warn(item.get())).collect();
        self.replace(items);
        self.shared.synced.set(true);
        Ok(list.metadata.resource_version)
    }

    fn decode(&self, json: &str) -> Result<Arc<K>> {
        self.shared.client.objects().decode(json).map_err(|source| self.decode_error(source))
    }

    /// An object that is not of its type is passed over: all others are still followed.
    fn decode_or_warn(&self, json: &str) -> Option<Arc<K>> {
        self.decode(json).inspect_err(|error| tracing::warn!(path = self.shared.path, %error, "passed over")).ok()
    }

    fn decode_error(&self, source: serde_json::Error) -> Error {
        Error::Decode { what: self.shared.path.clone(), source }
    }

    /// Takes in a whole list; what is not in it has gone while nobody looked.
    fn replace(&self, items: Vec<Arc<K>>) {
        let fresh: BTreeMap<Key, Arc<K>> =
            items.into_iter().map(|object| (key_of(object.object_meta()), object)).collect();
        let gone: Vec<Key> = {
            let cache = self.shared.cache.read();
            cache.objects.keys().filter(|key| !fresh.contains_key(*key)).cloned().collect()
        };
        for key in gone {
            self.delete(&key, None);
        }
        for (key, object) in fresh {
            self.put(key, object);
        }
    }

    fn put(&self, key: Key, new: Arc<K>) {
        let old = self.shared.cache.write().put(key, new.clone());
        match old {
            // A list taken after a broken watch holds mostly what is known already.
            Some(old) if old.object_meta().resource_version == new.object_meta().resource_version => {}
            Some(old) if old.object_meta().uid != new.object_meta().uid => {
                self.notify(&Event::Deleted(old));
                self.notify(&Event::Added(new));
            }
            Some(old) => self.notify(&Event::Updated { old, new }),
            None => self.notify(&Event::Added(new)),
        }
    }

    fn delete(&self, key: &Key, last: Option<Arc<K>>) {
        let known = self.shared.cache.write().remove(key);
        if let Some(known) = known {
            self.notify(&Event::Deleted(last.unwrap_or(known)));
        }
    }

    fn notify(&self, event: &Event<K>) {
        for handler in self.shared.handlers.read().iter() {
            handler(event);
        }
    }

    /// Follows the collection from `version` until the server ends the watch; keeps `version` at the last one seen.
    async fn watch(&self, version: &mut String) -> Result<()> {
        let seconds = self.shared.client.random().jitter(WATCH_TIMEOUT, 0.3).as_secs();
        // Without bookmarks: a hundred watches would wake for them every minute. Where nothing changed, the version is
        // still good when the watch is begun anew; where others' objects did, a list of what is selected costs less.
        let query = format!("watch=true&resourceVersion={version}&timeoutSeconds={seconds}");
        let mut frames = self.request(self.query(&query), false).await?.into_body().into_data_stream();
        let mut pending: Vec<u8> = Vec::new();
        while let Some(frame) = frames.next().await {
            let frame = frame?;
            let mut rest = &frame[..];
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let (line, tail) = (&rest[..end], &rest[end + 1..]);
                if pending.is_empty() {
                    self.take_line(line, version)?;
                } else {
                    pending.extend_from_slice(line);
                    let whole = std::mem::take(&mut pending);
                    self.take_line(&whole, version)?;
                }
                rest = tail;
            }
            pending.extend_from_slice(rest);
            if pending.len() > MAX_WATCH_LINE_BYTES {
                return Err(Error::Retry(format!("a watch event of {} is too long", self.shared.path)));
            }
        }
        Ok(())
    }

    fn take_line(&self, line: &[u8], version: &mut String) -> Result<()> {
        #[derive(Deserialize)]
        struct Line<'a> {
            r#type: &'a str,
            #[serde(borrow)]
            object: &'a RawValue,
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let (event_type, raw) = match split_line(line) {
            Some(parts) => parts,
            None => {
                let line: Line<'_> = serde_json::from_slice(line).map_err(|source| self.decode_error(source))?;
                (line.r#type, line.object.get())
            }
        };
        match event_type {
            "ADDED" | "MODIFIED" | "DELETED" => {
                let Some(object) = self.decode_or_warn(raw) else {
                    // The next watch goes on behind it; asking for it again would end the same way for ever.
                    let passed: ObjectMetadata =
                        serde_json::from_str(raw).map_err(|source| self.decode_error(source))?;
                    if let Some(seen) = passed.metadata.resource_version {
                        *version = seen;
                    }
                    return Ok(());
                };
                let meta = object.object_meta();
                if let Some(seen) = &meta.resource_version {
                    version.clone_from(seen);
                }
                let key = key_of(meta);
                match event_type {
                    "DELETED" => self.delete(&key, Some(object)),
                    _ => self.put(key, object),
                }
            }
            "BOOKMARK" => {
                let mark: ObjectMetadata = serde_json::from_str(raw).map_err(|source| self.decode_error(source))?;
                if let Some(seen) = mark.metadata.resource_version {
                    *version = seen;
                }
            }
            "ERROR" => {
                let status: kube::core::Status =
                    serde_json::from_str(raw).map_err(|source| self.decode_error(source))?;
                return Err(match status.code {
                    410 => Error::Expired(status.message),
                    _ => Error::Retry(status.message),
                });
            }
            other => return Err(Error::Retry(format!("unknown watch event {other:?}"))),
        }
        Ok(())
    }
}

impl Informer<ObjectMetadata> {
    /// An informer that holds the metadata only of a collection, whatever its kind.
    pub fn metadata(client: Client, path: impl Into<String>) -> Self {
        Self::build(client, path.into(), ListOptions::default(), true)
    }
}

/// The reading side of an [`Informer`]: what the API held a moment ago, in the order of namespace and name.
pub struct Lister<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for Lister<K> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<K> Lister<K> {
    /// One object; `namespace` is empty for cluster-scoped kinds.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.shared.cache.read().objects.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// All objects.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.shared.cache.read().objects.values().cloned().collect()
    }

    /// The objects of one namespace.
    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let from = (namespace.to_owned(), String::new());
        let cache = self.shared.cache.read();
        cache
            .objects
            .range(from..)
            .take_while(|((ns, _), _)| ns == namespace)
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// The objects that the index `name` files under `value`.
    pub fn by_index(&self, name: &str, value: &str) -> Vec<Arc<K>> {
        let cache = self.shared.cache.read();
        let Some(keys) = cache.indexes.get(name).and_then(|by_value| by_value.get(value)) else {
            return Vec::new();
        };
        keys.iter().filter_map(|key| cache.objects.get(key).cloned()).collect()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.shared.cache.read().objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Type and object of an event written as servers write them, found without reading the object, which is done once
/// anyway; none if it may be written otherwise.
fn split_line(line: &[u8]) -> Option<(&str, &str)> {
    let line = std::str::from_utf8(line).ok()?;
    let (event_type, object) = line.strip_prefix("{\"type\":\"")?.split_once("\",\"object\":")?;
    let plain = event_type.bytes().all(|byte| byte.is_ascii_uppercase());
    object.strip_suffix('}').filter(|_| plain).map(|object| (event_type, object))
}

fn key_of(meta: &ObjectMeta) -> Key {
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

/// Escapes a query value: everything but RFC 3986's unreserved characters.
fn percent_encode(value: &str) -> String {
    value.bytes().fold(String::with_capacity(value.len()), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
        out
    })
}
