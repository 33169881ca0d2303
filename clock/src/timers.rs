//! The ordered set of wakers that wait for a moment.

use std::{collections::BTreeMap, task::Waker, time::Duration};

/// Where a timer stands in the queue: its deadline, then the order of registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TimerKey {
    pub(crate) deadline: Duration,
    sequence: u64,
}

/// Waiting wakers by deadline. Each belongs to one live [`Sleep`](crate::Sleep), which bounds their
/// number.
#[derive(Default)]
pub(crate) struct Timers {
    waiting: BTreeMap<TimerKey, Waker>,
    next_sequence: u64,
}

impl Timers {
    /// Registers a waker; says also whether it is now the first to fire.
    pub(crate) fn insert(&mut self, deadline: Duration, waker: Waker) -> (TimerKey, bool) {
        let key = TimerKey { deadline, sequence: self.next_sequence };
        self.next_sequence += 1;
        self.waiting.insert(key, waker);
        (key, self.waiting.first_key_value().is_some_and(|(first, _)| *first == key))
    }

    /// Replaces the waker of a registered timer and gives back the old one; none when it has fired
    /// already.
    ///
    /// The last waker of a task drops the task, which may hold other sleeps of this clock: the
    /// caller drops what it gets back only after it has let go of the lock.
    pub(crate) fn update(&mut self, key: TimerKey, waker: &Waker) -> Option<Waker> {
        self.waiting.get_mut(&key).map(|registered| std::mem::replace(registered, waker.clone()))
    }

    /// Takes a timer out; the waker is to be dropped as that of [`Timers::update`].
    pub(crate) fn remove(&mut self, key: TimerKey) -> Option<Waker> {
        self.waiting.remove(&key)
    }

    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.waiting.first_key_value().map(|(key, _)| key.deadline)
    }

    /// Takes the first timer out if its deadline has been reached.
    pub(crate) fn pop_due(&mut self, now: Duration) -> Option<Waker> {
        let first = self.waiting.first_entry()?;
        (first.key().deadline <= now).then(|| first.remove())
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }
}
