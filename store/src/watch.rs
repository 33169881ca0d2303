//! Watches: ordered changes under a prefix, found by one look-up per change.

use crate::{Error, KeyValue, Result, Revision};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::{
    Notify,
    mpsc::{self, error::TryRecvError},
};

/// How many batches a watcher may fall behind before it is closed.
pub const WATCH_CAPACITY: usize = 8192;

/// Whether a key got a value or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It got a value, its first or another one.
    Put,
    /// It went.
    Delete,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The key as it is now; after a deletion with an empty value, and the revision of the deletion
    /// as `mod_revision`.
    pub kv: KeyValue,
    /// The key as it was before, if it existed.
    pub prev: Option<KeyValue>,
}

impl Event {
    /// When it happened.
    pub fn revision(&self) -> Revision {
        self.kv.mod_revision
    }
}

/// What a watch yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchMessage {
    /// The changes of one revision under the watched prefix. Never empty.
    Events(Arc<[Event]>),
    /// The answer to [`ProgressRequester::request`]: every change up to and including this revision
    /// has been yielded.
    Progress(Revision),
}

/// Reads a value that is kept in another form; `None` where it is kept as it is.
pub type Translate = Arc<dyn Fn(&KeyValue) -> Result<Option<KeyValue>> + Send + Sync>;

/// The receiving end of a watch. Dropping it ends the watch.
pub struct Watch {
    prefix: Arc<str>,
    /// What had happened already when the watch began.
    backlog: VecDeque<Arc<[Event]>>,
    receiver: mpsc::Receiver<Arc<[Event]>>,
    shared: Arc<Watcher>,
    hub: Weak<Hub>,
    id: u64,
    translate: Option<Translate>,
}

/// Asks a watch how far it is; see [`Watch::progress_requester`].
#[derive(Clone)]
pub struct ProgressRequester {
    watcher: Arc<Watcher>,
}

/// What both ends of a watch share.
struct Watcher {
    progress_requested: Notify,
    /// Everything up to here has been put into the channel. Written by the hub only.
    dispatched: Arc<AtomicU64>,
    /// Why the channel was closed.
    closed: Mutex<Option<Error>>,
}

impl Watch {
    /// The next changes, or the answer to a progress request. An error ends the watch:
    /// [`Error::WatchLagged`], [`Error::Compacted`] (the store jumped ahead by a snapshot) or
    /// [`Error::Closed`]. Safe to cancel.
    pub async fn recv(&mut self) -> Result<WatchMessage> {
        if let Some(events) = self.backlog.pop_front() {
            return self.events(events);
        }
        tokio::select! {
            biased;
            received = self.receiver.recv() => match received {
                Some(events) => self.events(events),
                None => Err(self.close_reason()),
            },
            () = self.shared.progress_requested.notified() => {
                // Read before the channel is looked at: what is dispatched up to here is in the
                // channel by now.
                let dispatched = self.shared.dispatched.load(Ordering::Acquire);
                match self.receiver.try_recv() {
                    Err(TryRecvError::Empty) => Ok(WatchMessage::Progress(dispatched)),
                    Err(TryRecvError::Disconnected) => Err(self.close_reason()),
                    Ok(events) => {
                        self.shared.progress_requested.notify_one();
                        self.events(events)
                    }
                }
            }
        }
    }

    /// The same watch, whose values are read by `translate`. An error of it ends the watch.
    pub fn translated(mut self, translate: Translate) -> Watch {
        self.translate = Some(translate);
        self
    }

    fn events(&self, events: Arc<[Event]>) -> Result<WatchMessage> {
        let Some(translate) = &self.translate else {
            return Ok(WatchMessage::Events(events));
        };
        let translated = events.iter().map(|event| {
            let prev = match &event.prev {
                Some(prev) => Some(translate(prev)?.unwrap_or_else(|| prev.clone())),
                None => None,
            };
            let kv = translate(&event.kv)?.unwrap_or_else(|| event.kv.clone());
            Ok(Event { kind: event.kind, kv, prev })
        });
        Ok(WatchMessage::Events(translated.collect::<Result<_>>()?))
    }

    /// A handle with which others ask this watch for a [`WatchMessage::Progress`]. A cache of one
    /// prefix needs it: the store's revision moves on with the changes of other prefixes, which
    /// this watch does not see.
    pub fn progress_requester(&self) -> ProgressRequester {
        ProgressRequester { watcher: self.shared.clone() }
    }

    /// The watched prefix.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    fn close_reason(&self) -> Error {
        self.shared.closed.lock().clone().unwrap_or(Error::Closed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(hub) = self.hub.upgrade() {
            hub.remove(self.prefix.as_bytes(), self.id);
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("prefix", &self.prefix).field("id", &self.id).finish_non_exhaustive()
    }
}

impl ProgressRequester {
    /// The watch will yield a [`WatchMessage::Progress`] once it has yielded everything dispatched
    /// until now. Requests that come before it does are answered together.
    pub fn request(&self) {
        self.watcher.progress_requested.notify_one();
    }
}

/// The sending ends of all watches of a store.
pub(crate) struct Hub {
    index: Mutex<Index>,
    dispatched: Arc<AtomicU64>,
}

/// Watchers by prefix. The watchers of a key are those of its prefixes, of which only the lengths
/// in use need to be tried.
#[derive(Default)]
struct Index {
    by_prefix: BTreeMap<Box<[u8]>, BTreeMap<u64, Sender>>,
    /// How many prefixes have each length.
    lengths: BTreeMap<usize, usize>,
    watchers: usize,
    next_id: u64,
    closed: bool,
}

struct Sender {
    channel: mpsc::Sender<Arc<[Event]>>,
    /// The watch has been given everything up to here as its backlog.
    after: Revision,
    shared: Arc<Watcher>,
}

impl Hub {
    pub(crate) fn new(revision: Revision) -> Arc<Hub> {
        Arc::new(Hub { index: Mutex::default(), dispatched: Arc::new(AtomicU64::new(revision)) })
    }

    /// Opens a watch that begins with a backlog and goes on with what is dispatched after the
    /// revision `after`.
    ///
    /// The caller holds a lock of the state meanwhile, so that nothing falls between the two.
    pub(crate) fn watch(
        self: &Arc<Self>,
        prefix: &str,
        after: Revision,
        backlog: VecDeque<Arc<[Event]>>,
    ) -> Result<Watch> {
        let (channel, receiver) = mpsc::channel(WATCH_CAPACITY);
        let shared = Arc::new(Watcher {
            progress_requested: Notify::new(),
            dispatched: self.dispatched.clone(),
            closed: Mutex::new(None),
        });
        let mut index = self.index.lock();
        if index.closed {
            return Err(Error::Closed);
        }
        let id = index.insert(prefix, Sender { channel, after, shared: shared.clone() });
        Ok(Watch { prefix: prefix.into(), backlog, receiver, shared, hub: Arc::downgrade(self), id, translate: None })
    }

    /// Hands the changes of one revision to all who watch one of their keys.
    pub(crate) fn dispatch(&self, events: &Arc<[Event]>) {
        let mut index = self.index.lock();
        let revision = events.first().map_or(0, Event::revision);
        if let [event] = &events[..] {
            index.send_single(event, events);
        } else {
            index.send_several(events);
        }
        self.dispatched.fetch_max(revision, Ordering::Release);
    }

    /// Closes all watches, and for good if the store itself ends.
    pub(crate) fn close(&self, reason: &Error) {
        let mut index = self.index.lock();
        index.closed |= *reason == Error::Closed;
        for sender in index.by_prefix.values().flat_map(BTreeMap::values) {
            *sender.shared.closed.lock() = Some(reason.clone());
        }
        index.by_prefix.clear();
        index.lengths.clear();
        index.watchers = 0;
    }

    /// The state was replaced by a newer one, not led there change by change.
    pub(crate) fn jump(&self, revision: Revision, reason: &Error) {
        self.close(reason);
        self.dispatched.fetch_max(revision, Ordering::Release);
    }

    pub(crate) fn len(&self) -> usize {
        self.index.lock().watchers
    }

    fn remove(&self, prefix: &[u8], id: u64) {
        self.index.lock().remove(prefix, id);
    }
}

impl Index {
    fn insert(&mut self, prefix: &str, sender: Sender) -> u64 {
        self.next_id += 1;
        let watchers = self.by_prefix.entry(prefix.as_bytes().into()).or_default();
        if watchers.is_empty() {
            *self.lengths.entry(prefix.len()).or_default() += 1;
        }
        watchers.insert(self.next_id, sender);
        self.watchers += 1;
        self.next_id
    }

    fn remove(&mut self, prefix: &[u8], id: u64) {
        let Some(watchers) = self.by_prefix.get_mut(prefix) else {
            return;
        };
        if watchers.remove(&id).is_none() {
            return;
        }
        self.watchers -= 1;
        if !watchers.is_empty() {
            return;
        }
        self.by_prefix.remove(prefix);
        if let Some(count) = self.lengths.get_mut(&prefix.len()) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&prefix.len());
            }
        }
    }

    /// The prefixes of a key that somebody watches.
    fn watched_prefixes<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.lengths.range(..=key.len()).map(|(length, _)| &key.as_bytes()[..*length])
    }

    /// The usual case: one change, whose batch all its watchers share.
    fn send_single(&mut self, event: &Event, events: &Arc<[Event]>) {
        let mut overflown = Vec::new();
        for prefix in self.watched_prefixes(&event.kv.key) {
            for (id, sender) in self.by_prefix.get(prefix).into_iter().flatten() {
                if !sender.send(events.clone()) {
                    overflown.push((prefix.to_vec(), *id));
                }
            }
        }
        overflown.into_iter().for_each(|(prefix, id)| self.remove(&prefix, id));
    }

    /// Several changes at one revision: each watched prefix gets those that are its own, in one
    /// batch.
    fn send_several(&mut self, events: &Arc<[Event]>) {
        let mut by_prefix: BTreeMap<&[u8], Vec<&Event>> = BTreeMap::new();
        for event in &**events {
            for prefix in self.watched_prefixes(&event.kv.key) {
                by_prefix.entry(prefix).or_default().push(event);
            }
        }
        let mut overflown = Vec::new();
        for (prefix, own) in by_prefix {
            let Some(watchers) = self.by_prefix.get(prefix) else {
                continue;
            };
            let batch = if own.len() == events.len() { events.clone() } else { own.into_iter().cloned().collect() };
            for (id, sender) in watchers {
                if !sender.send(batch.clone()) {
                    overflown.push((prefix.to_vec(), *id));
                }
            }
        }
        overflown.into_iter().for_each(|(prefix, id)| self.remove(&prefix, id));
    }
}

impl Sender {
    /// False when the watch is over: it lags too far behind, or nobody listens any more.
    fn send(&self, events: Arc<[Event]>) -> bool {
        if events.first().is_none_or(|event| event.revision() <= self.after) {
            return true;
        }
        let sent = self.channel.try_send(events);
        if let Err(mpsc::error::TrySendError::Full(_)) = &sent {
            *self.shared.closed.lock() = Some(Error::WatchLagged { capacity: WATCH_CAPACITY });
        }
        sent.is_ok()
    }
}
