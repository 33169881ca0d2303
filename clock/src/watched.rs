//! A value that tasks wait to see change, and that wakes them in the order in which they came.
//!
//! `tokio::sync::watch` does the same and wakes its receivers in an order that it draws from a random generator of its
//! own, which no seed reaches: the one thing in it that a replayed run cannot have.

use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    fmt, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

/// The writing side: holds the value, and ends the watch of all [`Watcher`]s when it is dropped.
pub struct Watched<T> {
    shared: Arc<Mutex<State<T>>>,
}

/// The reading side. What it has seen already does not wake it.
pub struct Watcher<T> {
    shared: Arc<Mutex<State<T>>>,
    seen: u64,
}

/// The [`Watched`] value is gone: it will not change any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended;

struct State<T> {
    value: T,
    /// Counts the changes.
    version: u64,
    ended: bool,
    watchers: usize,
    /// Who waits, by the order of coming. Each belongs to one live [`Changed`], which bounds their number.
    waiting: BTreeMap<u64, Waker>,
    next_ticket: u64,
}

impl<T: Clone> Watched<T> {
    /// A value that nobody watches yet.
    pub fn new(value: T) -> Watched<T> {
        let waiting = BTreeMap::new();
        let state = State { value, version: 0, ended: false, watchers: 0, waiting, next_ticket: 0 };
        Watched { shared: Arc::new(Mutex::new(state)) }
    }

    /// The value now.
    pub fn get(&self) -> T {
        self.shared.lock().value.clone()
    }

    /// Another value. All who wait are woken, also when it equals the one before.
    pub fn set(&self, value: T) {
        self.modify(|held| *held = value);
    }

    /// Changes the value in place and wakes all who wait.
    pub fn modify(&self, change: impl FnOnce(&mut T)) {
        let woken = {
            let mut state = self.shared.lock();
            change(&mut state.value);
            state.version += 1;
            mem::take(&mut state.waiting)
        };
        // Wakers run code of others: never under the lock.
        woken.into_values().for_each(Waker::wake);
    }

    /// A watcher that has seen the value as it is now.
    pub fn watch(&self) -> Watcher<T> {
        let mut state = self.shared.lock();
        state.watchers += 1;
        Watcher { shared: self.shared.clone(), seen: state.version }
    }

    /// How many [`Watcher`]s there are.
    pub fn watchers(&self) -> usize {
        self.shared.lock().watchers
    }
}

impl<T> Drop for Watched<T> {
    fn drop(&mut self) {
        let woken = {
            let mut state = self.shared.lock();
            state.ended = true;
            mem::take(&mut state.waiting)
        };
        woken.into_values().for_each(Waker::wake);
    }
}

impl<T: Clone> Watcher<T> {
    /// The value now, which counts as seen.
    pub fn get(&mut self) -> T {
        let state = self.shared.lock();
        self.seen = state.version;
        state.value.clone()
    }

    /// Completes when the value has changed since it was last seen. Safe to cancel.
    ///
    /// # Errors
    /// When the value is gone and has not changed before.
    pub async fn changed(&mut self) -> Result<(), Ended> {
        Changed { watcher: self, ticket: None }.await
    }

    /// The first value, beginning with that of now, for which `holds`. Safe to cancel.
    ///
    /// # Errors
    /// When the value is gone and `holds` not.
    pub async fn wait_for(&mut self, mut holds: impl FnMut(&T) -> bool) -> Result<T, Ended> {
        loop {
            let value = self.get();
            if holds(&value) {
                return Ok(value);
            }
            self.changed().await?;
        }
    }
}

impl<T> Clone for Watcher<T> {
    fn clone(&self) -> Self {
        self.shared.lock().watchers += 1;
        Watcher { shared: self.shared.clone(), seen: self.seen }
    }
}

impl<T> Drop for Watcher<T> {
    fn drop(&mut self) {
        self.shared.lock().watchers -= 1;
    }
}

/// Waits for the next change.
struct Changed<'a, T> {
    watcher: &'a mut Watcher<T>,
    ticket: Option<u64>,
}

impl<T> Future for Changed<'_, T> {
    type Output = Result<(), Ended>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let changed = self.get_mut();
        // Declared before the guard, so dropped after it: the last waker of a task drops the task and what it holds.
        let _replaced;
        let mut state = changed.watcher.shared.lock();
        if state.version != changed.watcher.seen {
            changed.watcher.seen = state.version;
            _replaced = changed.ticket.take().and_then(|ticket| state.waiting.remove(&ticket));
            return Poll::Ready(Ok(()));
        }
        if state.ended {
            return Poll::Ready(Err(Ended));
        }
        let ticket = *changed.ticket.get_or_insert_with(|| {
            state.next_ticket += 1;
            state.next_ticket
        });
        _replaced = state.waiting.insert(ticket, context.waker().clone());
        Poll::Pending
    }
}

impl<T> Drop for Changed<'_, T> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let removed = self.watcher.shared.lock().waiting.remove(&ticket);
            drop(removed);
        }
    }
}

impl<T: Clone + fmt::Debug> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watched").field(&self.get()).finish()
    }
}

impl<T: Clone + fmt::Debug> fmt::Debug for Watcher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.shared.lock().value.clone();
        f.debug_tuple("Watcher").field(&value).finish()
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what was watched is gone")
    }
}

impl std::error::Error for Ended {}
