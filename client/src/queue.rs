//! The work queue: keys to reconcile, each at most once in the queue and with at most one worker.
//!
//! A key added while a worker has it is handed out again when the worker is done, never at the same time.
//! Failed keys come back after an exponential pause of their own. (client-go: `util/workqueue`.)

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use minik8s_clock::Clock;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The pause before the first retry of a key; it doubles with each further one.
const RETRY_BASE: Duration = Duration::from_millis(5);
/// The longest pause between two attempts at one key.
const RETRY_MAX: Duration = Duration::from_secs(1000);

struct State<T> {
    ready: VecDeque<T>,
    dirty: HashSet<T>,
    processing: HashSet<T>,
    /// Keys that wait for their time, by time and then by order of arrival.
    waiting: BTreeMap<(Duration, u64), T>,
    due: HashMap<T, (Duration, u64)>,
    failures: HashMap<T, u32>,
    arrivals: u64,
    closed: bool,
}

/// A queue of keys. Clones are the same queue.
///
/// It is bounded by the number of different keys, which is the number of objects that the component's informers hold.
pub struct WorkQueue<T> {
    state: Arc<Mutex<State<T>>>,
    changed: Arc<Notify>,
    clock: Clock,
}

impl<T> Clone for WorkQueue<T> {
    fn clone(&self) -> Self {
        Self { state: self.state.clone(), changed: self.changed.clone(), clock: self.clock.clone() }
    }
}

impl<T: Clone + Eq + Hash> WorkQueue<T> {
    /// An empty queue.
    pub fn new(clock: Clock) -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            processing: HashSet::new(),
            waiting: BTreeMap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            arrivals: 0,
            closed: false,
        };
        Self { state: Arc::new(Mutex::new(state)), changed: Arc::new(Notify::new()), clock }
    }

    /// Asks for `key` to be reconciled soon.
    pub fn add(&self, key: T) {
        self.state.lock().add(key);
        self.changed.notify_one();
    }

    /// Asks for `key` to be reconciled after `delay`. Of several such wishes the earliest counts.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let at = self.clock.monotonic() + delay;
        let mut state = self.state.lock();
        match state.due.get(&key).copied() {
            Some(due) if due.0 <= at => return,
            Some(due) => {
                state.waiting.remove(&due);
            }
            None => {}
        }
        state.arrivals += 1;
        let due = (at, state.arrivals);
        state.due.insert(key.clone(), due);
        state.waiting.insert(due, key);
        drop(state);
        // Whoever sleeps until a later time must look again.
        self.changed.notify_one();
    }

    /// Asks for another attempt at `key` after the pause that its failures so far call for.
    pub fn add_rate_limited(&self, key: T) {
        let delay = {
            let mut state = self.state.lock();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            *failures += 1;
            RETRY_BASE.saturating_mul(1 << (*failures - 1).min(20)).min(RETRY_MAX)
        };
        self.add_after(key, delay);
    }

    /// Forgets the failures of `key`.
    pub fn forget(&self, key: &T) {
        self.state.lock().failures.remove(key);
    }

    /// How often `key` failed since it was last forgotten.
    pub fn retries(&self, key: &T) -> u32 {
        self.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// The next key, when there is one; `None` once the queue is shut down. Call [`WorkQueue::done`] afterwards.
    pub async fn get(&self) -> Option<T> {
        loop {
            let notified = self.changed.notified();
            let next = {
                let mut state = self.state.lock();
                if state.closed {
                    // Let the next worker see it too.
                    self.changed.notify_one();
                    return None;
                }
                state.wake(self.clock.monotonic());
                if let Some(key) = state.ready.pop_front() {
                    state.dirty.remove(&key);
                    state.processing.insert(key.clone());
                    let more = !state.ready.is_empty() || !state.waiting.is_empty();
                    drop(state);
                    if more {
                        self.changed.notify_one();
                    }
                    return Some(key);
                }
                state.waiting.first_key_value().map(|((at, _), _)| *at)
            };
            match next {
                Some(at) => {
                    tokio::select! {
                    biased;
                                           () = notified => {}
                                           () = self.clock.sleep_until(at) => {}
                                       }
                }
                None => notified.await,
            }
        }
    }

    /// Hands `key` back; if it was added meanwhile, it is ready again.
    pub fn done(&self, key: &T) {
        let mut state = self.state.lock();
        state.processing.remove(key);
        if state.dirty.contains(key) {
            state.ready.push_back(key.clone());
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Ends the queue: every `get` answers `None`.
    pub fn shut_down(&self) {
        self.state.lock().closed = true;
        self.changed.notify_one();
    }

    /// How many keys are ready.
    pub fn len(&self) -> usize {
        self.state.lock().ready.len()
    }

    /// Whether no key is ready.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: Clone + Eq + Hash> State<T> {
    fn add(&mut self, key: T) {
        if self.closed || !self.dirty.insert(key.clone()) {
            return;
        }
        if !self.processing.contains(&key) {
            self.ready.push_back(key);
        }
    }

    /// Moves the keys whose time has come to the ready ones.
    fn wake(&mut self, now: Duration) {
        while let Some(entry) = self.waiting.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let key = entry.remove();
            self.due.remove(&key);
            self.add(key);
        }
    }
}
