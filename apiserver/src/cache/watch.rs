//! One watcher's view of a resource: where it starts, and the events its selection lets through.

use std::collections::VecDeque;
use std::sync::Arc;

use minik8s_store::Revision;
use tokio::sync::mpsc;

use super::event::{CacheEvent, EventType};
use super::resource::{Registration, ResourceCache, Start};
use super::{Object, Selection};

/// Where a watch starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The present state as ADDED events, then changes.
    Now,
    /// Changes after a revision.
    After(Revision),
}

/// What a watch yields.
#[derive(Debug, Clone)]
pub enum Item {
    /// An object of the initial state.
    Initial(Arc<Object>),
    /// The initial state is complete as of this revision.
    Synced(Revision),
    /// A change.
    Event(EventType, Arc<CacheEvent>),
}

/// A watch of one resource. Ends (`None`) when it does not keep up or the cache starts over: the client lists again.
pub struct CacheWatch {
    selection: Selection,
    pending: VecDeque<Item>,
    receiver: mpsc::Receiver<Arc<CacheEvent>>,
    /// Events up to here are part of what was already told.
    after: Revision,
    _registration: Registration,
}

/// The events after the asked revision are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expired {
    /// The revision asked for.
    pub asked: Revision,
    /// The oldest revision to resume from.
    pub oldest: Revision,
}

impl CacheWatch {
    /// Starts a watch. `applied` is what the cache has applied: the revision of the initial state.
    pub fn start(
        cache: &Arc<ResourceCache>,
        selection: Selection,
        from: From,
        applied: Revision,
    ) -> Result<CacheWatch, Expired> {
        let after = match from {
            From::Now => None,
            From::After(revision) => Some(revision),
        };
        let (start, registration) = cache.watch(&selection, after);
        let (pending, receiver, after) = match start {
            Start::Expired(oldest) => {
                return Err(Expired { asked: after.unwrap_or_default(), oldest });
            }
            Start::Replay(events, receiver) => {
                let pending = events.into_iter().filter_map(|event| {
                    event.seen_through(&selection).map(|event_type| Item::Event(event_type, event))
                });
                (pending.collect(), receiver, after.unwrap_or_default())
            }
            Start::Initial(snapshot, receiver) => {
                let revision = applied.max(snapshot.changed);
                let matching = snapshot.objects.into_iter().filter(|object| selection.matches(object));
                let mut pending: VecDeque<Item> = matching.map(Item::Initial).collect();
                pending.push_back(Item::Synced(revision));
                (pending, receiver, snapshot.changed)
            }
        };
        Ok(CacheWatch { selection, pending, receiver, after, _registration: registration })
    }

    /// What is watched.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// The next item. Cancel-safe.
    pub async fn next(&mut self) -> Option<Item> {
        loop {
            if let Some(item) = self.pending.pop_front() {
                return Some(item);
            }
            let event = self.receiver.recv().await?;
            self.pending.extend(self.view(event));
        }
    }

    /// The next item, if there is one without waiting.
    pub fn try_next(&mut self) -> Option<Item> {
        loop {
            if let Some(item) = self.pending.pop_front() {
                return Some(item);
            }
            let event = self.receiver.try_recv().ok()?;
            self.pending.extend(self.view(event));
        }
    }

    fn view(&self, event: Arc<CacheEvent>) -> Option<Item> {
        if event.revision <= self.after {
            return None;
        }
        event.seen_through(&self.selection).map(|event_type| Item::Event(event_type, event))
    }
}
