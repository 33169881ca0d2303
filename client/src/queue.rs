//! The work queue: keys to reconcile, each at most once in the queue and with at most one worker.
//!
//! A key added while a worker has it is handed out again when the worker is done, never at the same time.
//! Failed keys come back after an exponential pause of their own. (client-go: `util/workqueue`.)

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use minik8s_clock::Clock;
use minik8s_metrics::{Histogram, Kind, Registry, Text};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The pause before the first retry of a key; it doubles with each further one.
const RETRY_BASE: Duration = Duration::from_millis(5);
/// Upper bounds of times, in seconds (`k8s.io/component-base/metrics/prometheus/workqueue`).
const SECONDS: &[f64] = &[1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0];
/// The longest pause between two attempts at one key.
const RETRY_MAX: Duration = Duration::from_secs(1000);

struct State<T> {
    ready: VecDeque<T>,
    dirty: BTreeSet<T>,
    /// And since when.
    processing: BTreeMap<T, Duration>,
    /// Keys that wait for their time, by time and then by order of arrival.
    waiting: BTreeMap<(Duration, u64), T>,
    due: BTreeMap<T, (Duration, u64)>,
    failures: BTreeMap<T, u32>,
    arrivals: u64,
    closed: bool,
    counts: Counts<T>,
}

/// What is counted of a queue.
struct Counts<T> {
    adds: u64,
    retries: u64,
    /// When keys that nobody has yet were added.
    added: BTreeMap<T, Duration>,
    waited: Histogram,
    worked: Histogram,
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

impl<T: Clone + Ord> WorkQueue<T> {
    /// An empty queue.
    pub fn new(clock: Clock) -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: BTreeSet::new(),
            processing: BTreeMap::new(),
            waiting: BTreeMap::new(),
            due: BTreeMap::new(),
            failures: BTreeMap::new(),
            arrivals: 0,
            closed: false,
            counts: Counts {
                adds: 0,
                retries: 0,
                added: BTreeMap::new(),
                waited: Histogram::new(SECONDS),
                worked: Histogram::new(SECONDS),
            },
        };
        Self { state: Arc::new(Mutex::new(state)), changed: Arc::new(Notify::new()), clock }
    }

    /// Asks for `key` to be reconciled soon.
    pub fn add(&self, key: T) {
        let now = self.clock.monotonic();
        self.state.lock().add(key, now);
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
            state.counts.retries += 1;
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
                let now = self.clock.monotonic();
                state.wake(now);
                if let Some(key) = state.ready.pop_front() {
                    state.dirty.remove(&key);
                    if let Some(added) = state.counts.added.remove(&key) {
                        state.counts.waited.observe_time(now.saturating_sub(added));
                    }
                    state.processing.insert(key.clone(), now);
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
        if let Some(began) = state.processing.remove(key) {
            let took = self.clock.monotonic().saturating_sub(began);
            state.counts.worked.observe_time(took);
        }
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

    /// Adds what is counted of the queue to a registry, under a name.
    pub fn register(&self, name: &'static str, registry: &Registry)
    where
        T: Send + 'static,
    {
        let (state, clock) = (Arc::downgrade(&self.state), self.clock.clone());
        registry.set(format!("workqueue/{name}"), move |text| {
            if let Some(state) = state.upgrade() {
                state.lock().write(name, clock.monotonic(), text);
            }
        });
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

impl<T: Clone + Ord> State<T> {
    fn add(&mut self, key: T, now: Duration) {
        if self.closed || !self.dirty.insert(key.clone()) {
            return;
        }
        self.counts.adds += 1;
        self.counts.added.insert(key.clone(), now);
        if !self.processing.contains_key(&key) {
            self.ready.push_back(key);
        }
    }

    fn write(&self, name: &str, now: Duration, text: &mut Text) {
        let label = [("name", name)];
        text.family("workqueue_adds_total", Kind::Counter, "Keys that were added.").sample(&label, self.counts.adds);
        text.family("workqueue_retries_total", Kind::Counter, "Keys that failed.").sample(&label, self.counts.retries);
        text.family("workqueue_depth", Kind::Gauge, "Keys that are ready.").sample(&label, self.ready.len());
        let name = "workqueue_queue_duration_seconds";
        text.family(name, Kind::Histogram, "How long keys waited.").histogram(&label, &self.counts.waited.counts());
        let name = "workqueue_work_duration_seconds";
        text.family(name, Kind::Histogram, "How long keys took.").histogram(&label, &self.counts.worked.counts());
        let running = || self.processing.values().map(|since| now.saturating_sub(*since).as_secs_f64());
        let name = "workqueue_unfinished_work_seconds";
        text.family(name, Kind::Gauge, "How long the keys that are worked on have taken, together.")
            .sample(&label, running().sum::<f64>().abs());
        let name = "workqueue_longest_running_processor_seconds";
        text.family(name, Kind::Gauge, "The longest of these.").sample(&label, running().fold(0.0, f64::max));
    }

    /// Moves the keys whose time has come to the ready ones.
    fn wake(&mut self, now: Duration) {
        while let Some(entry) = self.waiting.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let key = entry.remove();
            self.due.remove(&key);
            self.add(key, now);
        }
    }
}
