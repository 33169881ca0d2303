//! The cache of one stored resource: its objects, its recent events, its watchers.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use minik8s_api::kinds::Kind;
use minik8s_store::{KeyValue, Revision};
use parking_lot::RwLock;
use tokio::sync::mpsc;

use super::event::CacheEvent;
use super::{Object, Selection, object};
use crate::registry::keys;

/// Events kept whatever their age, so that a quiet resource's watches resume.
pub const RECENT_EVENTS_MIN: usize = 1_000;
/// Events kept at most.
pub const RECENT_EVENTS_MAX: usize = 50_000;
/// Events older than this go, beyond [`RECENT_EVENTS_MIN`]
/// (`k8s.io/apiserver/pkg/storage/cacher/watch_cache.go` `eventFreshDuration` is 75 s).
pub const RECENT_EVENTS_AGE: Duration = Duration::from_secs(300);
/// The newest events keep the forms they were sent in, for watchers that are a little behind. Older ones would take twice
/// the room of their objects for nobody.
pub const ENCODED_EVENTS: usize = 256;
/// Events a watcher may be behind before it is closed.
pub const WATCHER_EVENTS_MAX: usize = 4_096;

/// Objects by key.
pub type Objects = BTreeMap<Arc<str>, Arc<Object>>;

/// See the module.
pub struct ResourceCache {
    kind: Arc<Kind>,
    /// Other versions that objects may be stored in; only for kinds whose versions differ in more than their names.
    others: Vec<Arc<Kind>>,
    version: AtomicU64,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    objects: Objects,
    /// Objects by the value of the indexed field, for resources that have one.
    indexed: BTreeMap<Box<str>, Objects>,
    /// Ordered by revision. Holds every event after `resumable`.
    recent: VecDeque<Arc<CacheEvent>>,
    /// A watch can resume from here on.
    resumable: Revision,
    /// Everything up to here was in what was loaded.
    loaded: Revision,
    /// The resource is gone or has another cache: nobody may wait for events.
    closed: bool,
    /// The last change of this resource.
    changed: Revision,
    watchers: Watchers,
}

/// A consistent copy of some objects.
pub struct Snapshot {
    /// Objects, ordered by key.
    pub objects: Vec<Arc<Object>>,
    /// The last change of the resource: the copy is exact at every revision from here to what the cache has applied.
    pub changed: Revision,
}

/// What a new watcher starts with.
pub enum Start {
    /// These events, then the channel.
    Replay(Vec<Arc<CacheEvent>>, mpsc::Receiver<Arc<CacheEvent>>),
    /// The present state, then the channel.
    Initial(Snapshot, mpsc::Receiver<Arc<CacheEvent>>),
    /// The events after the asked revision are gone; they can be had from this one on.
    Expired(Revision),
}

impl ResourceCache {
    /// An empty cache of objects in the form of `kind`, or of one of `others`.
    pub fn new(kind: Arc<Kind>, others: Vec<Arc<Kind>>) -> ResourceCache {
        ResourceCache { kind, others, version: AtomicU64::new(0), state: RwLock::default() }
    }

    /// Reads a stored object, in the version that it is stored in.
    pub fn read(&self, kv: &KeyValue) -> Result<Object, String> {
        let row = self.others.iter().find(|row| object::is_stored_as(row, &kv.value)).unwrap_or(&self.kind);
        Object::from_stored(row, kv)
    }

    /// The storage kind.
    pub fn kind(&self) -> &Arc<Kind> {
        &self.kind
    }

    /// Changes with every write.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Replaces everything, after a gap in the store's events: watchers are closed, for they missed what was in the gap.
    pub fn reset(&self, objects: Vec<Arc<Object>>, revision: Revision) {
        let mut state = self.state.write();
        *state = State { resumable: revision, changed: revision, loaded: revision, ..State::default() };
        for object in objects {
            state.insert(object);
        }
        self.version.fetch_max(revision, Ordering::AcqRel);
    }

    /// Lets go of everything; watches end, and new ones end at once.
    pub fn close(&self) {
        let mut state = self.state.write();
        let revision = state.changed;
        *state = State { resumable: revision, changed: revision, loaded: revision, closed: true, ..State::default() };
    }

    /// Applies one change and tells the watchers that may want it. A watcher whose channel is full is closed.
    pub fn apply(&self, key: &Arc<str>, object: Option<Arc<Object>>, revision: Revision, at: Duration) {
        let mut state = self.state.write();
        if revision <= state.loaded || state.closed {
            return;
        }
        let previous = match &object {
            Some(object) => state.insert(Arc::clone(object)),
            None => state.remove(key),
        };
        state.changed = revision;
        if object.is_some() || previous.is_some() {
            let event = Arc::new(CacheEvent::new(revision, object, previous, at));
            state.watchers.send(&event);
            state.remember(event, at);
        }
        self.version.store(revision, Ordering::Release);
    }

    /// One object.
    pub fn get(&self, key: &str) -> Option<Arc<Object>> {
        self.state.read().objects.get(key).cloned()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.state.read().objects.len()
    }

    /// Whether there are no objects.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many watchers there are.
    pub fn watchers(&self) -> usize {
        self.state.read().watchers.by_id.len()
    }

    /// The objects a selection may mean, in key order, from `start` on. Callers still filter by the selection.
    pub fn candidates(&self, selection: &Selection, start: Option<&str>) -> Snapshot {
        let state = self.state.read();
        Snapshot { objects: state.candidates(&self.kind, selection, start), changed: state.changed }
    }

    /// Registers a watcher: from the present state, or from the events after a revision.
    pub fn watch(self: &Arc<Self>, selection: &Selection, after: Option<Revision>) -> (Start, Registration) {
        let mut state = self.state.write();
        let (sender, receiver) = mpsc::channel(WATCHER_EVENTS_MAX);
        let start = match after {
            Some(revision) if revision < state.resumable => Start::Expired(state.resumable),
            Some(revision) => {
                let from = state.recent.partition_point(|event| event.revision <= revision);
                Start::Replay(state.recent.range(from..).cloned().collect(), receiver)
            }
            None => {
                let objects = state.candidates(&self.kind, selection, None);
                Start::Initial(Snapshot { objects, changed: state.changed }, receiver)
            }
        };
        let id = match state.closed {
            true => 0,
            false => state.watchers.add(Scope::of(selection), sender),
        };
        (start, Registration { cache: Arc::clone(self), id })
    }
}

impl State {
    fn insert(&mut self, object: Arc<Object>) -> Option<Arc<Object>> {
        let previous = self.objects.insert(Arc::clone(object.key()), Arc::clone(&object));
        let (old, new) = (previous.as_ref().and_then(|object| object.indexed()), object.indexed());
        if old != new {
            self.unindex(object.key(), old);
        }
        if let Some(value) = new {
            self.indexed.entry(Box::from(value)).or_default().insert(Arc::clone(object.key()), object);
        }
        previous
    }

    fn remove(&mut self, key: &Arc<str>) -> Option<Arc<Object>> {
        let previous = self.objects.remove(key)?;
        self.unindex(key, previous.indexed());
        Some(previous)
    }

    fn unindex(&mut self, key: &Arc<str>, value: Option<&str>) {
        let Some(value) = value else { return };
        if let Some(objects) = self.indexed.get_mut(value) {
            objects.remove(key);
            if objects.is_empty() {
                self.indexed.remove(value);
            }
        }
    }

    fn remember(&mut self, event: Arc<CacheEvent>, now: Duration) {
        self.recent.push_back(event);
        if let Some(older) = self.recent.len().checked_sub(ENCODED_EVENTS + 1) {
            self.recent[older].forget_encoded();
        }
        while self.recent.len() > RECENT_EVENTS_MIN {
            let oldest = &self.recent[0];
            if self.recent.len() <= RECENT_EVENTS_MAX && now.saturating_sub(oldest.at) <= RECENT_EVENTS_AGE {
                break;
            }
            self.resumable = oldest.revision;
            self.recent.pop_front();
        }
    }

    fn candidates(&self, kind: &Kind, selection: &Selection, start: Option<&str>) -> Vec<Arc<Object>> {
        if let (Some(name), false) = (&selection.name, selection.namespace.is_empty() && kind.namespaced) {
            let key = keys::object(kind, &selection.namespace, name);
            let later = start.is_none_or(|start| key.as_str() >= start);
            return self.objects.get(key.as_str()).filter(|_| later).cloned().into_iter().collect();
        }
        let objects = match &selection.indexed {
            Some(value) => match self.indexed.get(value.as_str()) {
                Some(objects) => objects,
                // Objects without the field have the empty value, which is not indexed.
                None if !value.is_empty() => return Vec::new(),
                None => &self.objects,
            },
            None => &self.objects,
        };
        let prefix = keys::prefix(kind, &selection.namespace);
        let start = start.unwrap_or(&prefix);
        objects
            .range::<str, _>((Bound::Included(start), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix.as_str()))
            .map(|(_, object)| Arc::clone(object))
            .collect()
    }
}

/// Where a watcher is found: an event looks up each of its values once, however many watchers there are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    /// Every event.
    All,
    /// Events of one namespace.
    Namespace(Box<str>),
    /// Events of one object; the namespace is empty when it is cluster-scoped or unknown.
    Name(Box<str>, Box<str>),
    /// Events of objects with this value in the indexed field.
    Indexed(Box<str>),
}

impl Scope {
    fn of(selection: &Selection) -> Scope {
        match (&selection.indexed, &selection.name) {
            (Some(value), _) if !value.is_empty() => Scope::Indexed(Box::from(value.as_str())),
            (_, Some(name)) => Scope::Name(Box::from(selection.namespace.as_str()), Box::from(name.as_str())),
            _ if !selection.namespace.is_empty() => Scope::Namespace(Box::from(selection.namespace.as_str())),
            _ => Scope::All,
        }
    }
}

type EventSender = mpsc::Sender<Arc<CacheEvent>>;

#[derive(Default)]
struct Watchers {
    next_id: u64,
    by_id: BTreeMap<u64, Scope>,
    by_scope: BTreeMap<Scope, Vec<(u64, EventSender)>>,
}

impl Watchers {
    fn add(&mut self, scope: Scope, sender: EventSender) -> u64 {
        self.next_id += 1;
        self.by_id.insert(self.next_id, scope.clone());
        self.by_scope.entry(scope).or_default().push((self.next_id, sender));
        self.next_id
    }

    fn remove(&mut self, id: u64) {
        let Some(scope) = self.by_id.remove(&id) else {
            return;
        };
        if let Some(watchers) = self.by_scope.get_mut(&scope) {
            watchers.retain(|(other, _)| *other != id);
            if watchers.is_empty() {
                self.by_scope.remove(&scope);
            }
        }
    }

    fn send(&mut self, event: &Arc<CacheEvent>) {
        if self.by_id.is_empty() {
            return;
        }
        let some = event.object.as_ref().or(event.previous.as_ref()).expect("a change has a state before or after");
        let (namespace, name) = (some.namespace(), some.name());
        let mut closed = Vec::new();
        let mut tell = |scope: Scope| {
            for (id, sender) in self.by_scope.get(&scope).into_iter().flatten() {
                if sender.try_send(Arc::clone(event)).is_err() {
                    closed.push(*id);
                }
            }
        };
        tell(Scope::All);
        tell(Scope::Name(Box::from(namespace), Box::from(name)));
        if !namespace.is_empty() {
            tell(Scope::Namespace(Box::from(namespace)));
            tell(Scope::Name(Box::from(""), Box::from(name)));
        }
        let after = event.object.as_ref().and_then(|object| object.indexed());
        let before = event.previous.as_ref().and_then(|object| object.indexed());
        for value in [after, before.filter(|before| Some(*before) != after)].into_iter().flatten() {
            tell(Scope::Indexed(Box::from(value)));
        }
        for id in closed {
            self.remove(id);
        }
    }
}

/// A watcher's place in the index; dropping it gives it up.
pub struct Registration {
    cache: Arc<ResourceCache>,
    id: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.cache.state.write().watchers.remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::event::EventType;
    use crate::cache::object::{View, encode};
    use crate::cache::watch::{CacheWatch, From, Item};
    use minik8s_api::kinds::Kinds;
    use serde_json::json;

    fn pods() -> Arc<ResourceCache> {
        let kinds = Kinds::built_in();
        let kind = kinds.by_resource("", "v1", "pods").expect("pods");
        let cache = ResourceCache::new(Arc::clone(kind), Vec::new());
        cache.reset(Vec::new(), 1);
        Arc::new(cache)
    }

    fn pod(cache: &ResourceCache, name: &str, node: &str, revision: Revision) -> Arc<Object> {
        let value = json!({ "metadata": { "name": name, "namespace": "ns" }, "spec": { "nodeName": node } });
        let kv = KeyValue {
            key: keys::object(cache.kind(), "ns", name).into(),
            value: encode(cache.kind(), &value),
            create_revision: revision,
            mod_revision: revision,
            lease: None,
        };
        Arc::new(Object::from_stored(cache.kind(), &kv).expect("a pod"))
    }

    fn put(cache: &ResourceCache, name: &str, node: &str, revision: Revision, at: Duration) {
        let object = pod(cache, name, node, revision);
        let key = Arc::clone(object.key());
        cache.apply(&key, Some(object), revision, at);
    }

    fn on_node(cache: &ResourceCache, node: &str) -> Selection {
        Selection::parse(cache.kind(), "", "", &format!("spec.nodeName={node}")).expect("a selection")
    }

    #[test]
    fn objects_are_stored_bytes_with_the_revision_spliced_in() {
        let object = pod(&pods(), "p", "n1", 7);
        let expect = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"7","name":"p","namespace":"ns"},"spec":{"nodeName":"n1"}}"#;
        assert_eq!(object.json(), expect);
        let mut item = bytes::BytesMut::new();
        object.write_as(View::Item, &mut item);
        for view in [View::Whole, View::Item, View::PartialMetadata] {
            let mut out = bytes::BytesMut::new();
            object.write_as(view, &mut out);
            assert_eq!(out.len(), object.len_as(view), "{view:?} has another length than an answer would say");
        }
        assert_eq!(item, expect.replacen(r#""kind":"Pod","apiVersion":"v1","#, "", 1));
        assert_eq!((object.indexed(), object.value()["metadata"]["resourceVersion"].as_str()), (Some("n1"), Some("7")));
    }

    #[test]
    fn an_index_follows_its_objects() {
        let cache = pods();
        let names = |node: &str| -> Vec<String> {
            let found = cache.candidates(&on_node(&cache, node), None).objects;
            found.iter().map(|object| object.name().to_owned()).collect()
        };
        put(&cache, "a", "", 2, Duration::ZERO);
        put(&cache, "b", "n1", 3, Duration::ZERO);
        assert_eq!(names("n1"), ["b"]);
        put(&cache, "a", "n1", 4, Duration::ZERO);
        put(&cache, "b", "n2", 5, Duration::ZERO);
        assert_eq!((names("n1"), names("n2")), (vec!["a".to_owned()], vec!["b".to_owned()]));
        let key = keys::object(cache.kind(), "ns", "a").into();
        cache.apply(&key, None, 6, Duration::ZERO);
        assert!(names("n1").is_empty());
    }

    #[test]
    fn an_event_reaches_the_watchers_of_its_node_and_no_other() {
        let cache = pods();
        let watch = |node: &str| CacheWatch::start(&cache, on_node(&cache, node), From::After(1), 1).expect("a watch");
        let mut watches = [watch("n1"), watch("n2"), watch("n3")];
        put(&cache, "p", "n1", 2, Duration::ZERO);
        put(&cache, "p", "n2", 3, Duration::ZERO);
        let mut seen = |index: usize| match watches[index].try_next() {
            Some(Item::Event(event_type, event)) => Some((event_type, event.shown(event_type).revision())),
            _ => None,
        };
        assert_eq!([seen(0), seen(0), seen(0)], [Some((EventType::Added, 2)), Some((EventType::Deleted, 3)), None]);
        assert_eq!([seen(1), seen(1)], [Some((EventType::Added, 3)), None]);
        assert_eq!(seen(2), None);
    }

    #[test]
    fn old_events_go_and_watches_that_need_them_are_told() {
        let cache = pods();
        let last = RECENT_EVENTS_MIN as Revision + 10;
        for revision in 2..=last {
            put(&cache, "p", "n1", revision, Duration::ZERO);
        }
        let resume = |revision| CacheWatch::start(&cache, Selection::everything(""), From::After(revision), last);
        assert!(resume(2).is_ok(), "nothing is old yet");
        put(&cache, "p", "n1", last + 1, RECENT_EVENTS_AGE + Duration::from_secs(1));
        let expired = resume(2).err().expect("gone");
        assert_eq!(expired.oldest, last + 1 - RECENT_EVENTS_MIN as Revision);
        assert!(resume(expired.oldest).is_ok());
    }

    #[tokio::test]
    async fn a_watcher_that_does_not_keep_up_is_closed() {
        let cache = pods();
        let mut watch = CacheWatch::start(&cache, Selection::everything(""), From::After(1), 1).expect("a watch");
        for event in 0..=WATCHER_EVENTS_MAX as Revision {
            put(&cache, "p", "n1", event + 2, Duration::ZERO);
        }
        assert_eq!(cache.watchers(), 0);
        let mut told = 0;
        while watch.next().await.is_some() {
            told += 1;
        }
        assert_eq!(told, WATCHER_EVENTS_MAX);
        drop(watch);
    }
}
