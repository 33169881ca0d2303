//! The cache of one stored resource: its objects, its recent events, its watchers.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use minik8s_api::kinds::Kind;
use minik8s_store::Revision;
use parking_lot::RwLock;
use tokio::sync::mpsc;

use super::event::CacheEvent;
use super::{Object, Selection};
use crate::registry::keys;

/// Events kept whatever their age, so that a quiet resource's watches resume.
pub const RECENT_EVENTS_MIN: usize = 1_000;
/// Events kept at most.
pub const RECENT_EVENTS_MAX: usize = 50_000;
/// Events older than this go, beyond [`RECENT_EVENTS_MIN`]
/// (`k8s.io/apiserver/pkg/storage/cacher/watch_cache.go` `eventFreshDuration` is 75 s).
pub const RECENT_EVENTS_AGE: Duration = Duration::from_secs(300);
/// Events a watcher may be behind before it is closed.
pub const WATCHER_EVENTS_MAX: usize = 4_096;

/// Objects by key.
pub type Objects = BTreeMap<Arc<str>, Arc<Object>>;

/// See the module.
pub struct ResourceCache {
    kind: Arc<Kind>,
    version: AtomicU64,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    objects: Objects,
    /// Objects by the value of the indexed field, for resources that have one.
    indexed: HashMap<Box<str>, Objects>,
    /// Ordered by revision. Holds every event after `resumable`.
    recent: VecDeque<Arc<CacheEvent>>,
    /// A watch can resume from here on.
    resumable: Revision,
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
    /// An empty cache that is complete as of `revision`.
    pub fn new(kind: Arc<Kind>, objects: Vec<Arc<Object>>, revision: Revision) -> ResourceCache {
        let cache = ResourceCache { kind, version: AtomicU64::new(revision), state: RwLock::default() };
        cache.reset(objects, revision);
        cache
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
        *state = State { resumable: revision, changed: revision, ..State::default() };
        for object in objects {
            state.insert(object);
        }
        self.version.fetch_max(revision, Ordering::AcqRel);
    }

    /// Applies one change and tells the watchers that may want it. A watcher whose channel is full is closed.
    pub fn apply(&self, key: &Arc<str>, object: Option<Arc<Object>>, revision: Revision, at: Duration) {
        let mut state = self.state.write();
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
        let id = state.watchers.add(Scope::of(selection), sender);
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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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

#[derive(Default)]
struct Watchers {
    next_id: u64,
    by_id: HashMap<u64, Scope>,
    by_scope: HashMap<Scope, Vec<(u64, mpsc::Sender<Arc<CacheEvent>>)>>,
}

impl Watchers {
    fn add(&mut self, scope: Scope, sender: mpsc::Sender<Arc<CacheEvent>>) -> u64 {
        self.next_id += 1;
        self.by_id.insert(self.next_id, scope.clone());
        self.by_scope.entry(scope).or_default().push((self.next_id, sender));
        self.next_id
    }

    fn remove(&mut self, id: u64) {
        let Some(scope) = self.by_id.remove(&id) else { return };
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
