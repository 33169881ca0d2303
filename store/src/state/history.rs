//! The changes that are kept for watches and reads of the past.

use crate::{Event, Revision};
use std::{collections::VecDeque, sync::Arc};

/// What an event takes in memory besides its keys and values: two `KeyValue`s and the entries that
/// hold them.
const EVENT_OVERHEAD_BYTES: usize = 256;

/// How much of a bound is left after a compaction that was forced by it, as a fraction of eight:
/// compacting a little more than needed makes compactions rare.
const REMAINING_EIGHTHS: usize = 7;

/// Batches of changes, one a revision, in order.
#[derive(Default)]
pub(crate) struct History {
    batches: VecDeque<Arc<[Event]>>,
    events: usize,
    bytes: usize,
}

/// The bytes that are kept only because of an event: what it replaced. The new value is the key's
/// own.
fn cost(events: &[Event]) -> usize {
    let replaced = |event: &Event| event.prev.as_ref().map_or(0, |prev| prev.value.len());
    events.iter().map(|event| replaced(event) + EVENT_OVERHEAD_BYTES).sum()
}

impl History {
    pub(crate) fn push(&mut self, events: Arc<[Event]>) {
        self.events += events.len();
        self.bytes += cost(&events);
        self.batches.push_back(events);
    }

    /// Takes out the oldest batch if its revision is not after `revision`.
    pub(crate) fn pop_until(&mut self, revision: Revision) -> Option<Arc<[Event]>> {
        self.batches.front().filter(|events| events[0].revision() <= revision)?;
        let events = self.batches.pop_front()?;
        self.events -= events.len();
        self.bytes -= cost(&events);
        Some(events)
    }

    pub(crate) fn after(&self, revision: Revision) -> impl Iterator<Item = &Arc<[Event]>> {
        let start = self.batches.partition_point(|events| events[0].revision() <= revision);
        self.batches.range(start..)
    }

    pub(crate) fn events(&self) -> usize {
        self.events
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn exceeds(&self, max_events: usize, max_bytes: usize) -> bool {
        self.events > max_events || self.bytes > max_bytes
    }

    /// Where to compact when a bound is exceeded. Walks over what has to go.
    pub(crate) fn excess(&self, max_events: usize, max_bytes: usize) -> Option<Revision> {
        if !self.exceeds(max_events, max_bytes) {
            return None;
        }
        let (target_events, target_bytes) = (max_events / 8 * REMAINING_EIGHTHS, max_bytes / 8 * REMAINING_EIGHTHS);
        let (mut events, mut bytes, mut at) = (self.events, self.bytes, None);
        for batch in &self.batches {
            if events <= target_events && bytes <= target_bytes {
                break;
            }
            events -= batch.len();
            bytes -= cost(batch);
            at = Some(batch[0].revision());
        }
        at
    }
}
