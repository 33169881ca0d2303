//! One priority level: its seats, its queues, and whose turn it is.
//!
//! Fair queuing for server requests, as `k8s.io/apiserver/pkg/util/flowcontrol/fairqueuing/queueset` has it. In a virtual
//! world every queue that has requests gets the same number of seats; `progress` is what such a queue has had by now, in
//! seat-seconds. Each queue remembers where in that measure its next request would start. Of the requests at the heads of
//! queues the one is taken that would be done first there. A request is taken to occupy its seats for
//! [`ESTIMATED_SECONDS`]; what it really took is settled when it is done.
//!
//! All is done under the level's lock, which is held for some hundred nanoseconds and never while anybody waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use minik8s_clock::Clock;
use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;

use super::Rejection;
use super::schema::{Counters, Schema};
use super::shares::{Limits, Queuing, Spec};

/// How long a request is taken to last while nobody knows (`estimatedServiceDuration`).
const ESTIMATED_SECONDS: f64 = 0.003;

/// The seats of all levels.
pub struct Pool {
    seats: usize,
    clock: Clock,
    levels: RwLock<Vec<Arc<Level>>>,
    /// Requests that wait, in whatever level.
    waiting: AtomicUsize,
    /// Held while a seat is borrowed, so that none is lent twice.
    lending: Mutex<()>,
}

impl Pool {
    /// So many seats.
    pub fn new(seats: usize, clock: Clock) -> Arc<Pool> {
        Arc::new(Pool {
            seats,
            clock,
            levels: RwLock::default(),
            waiting: AtomicUsize::new(0),
            lending: Mutex::new(()),
        })
    }

    /// All seats of the server.
    pub fn seats(&self) -> usize {
        self.seats
    }

    pub(super) fn set_levels(&self, levels: Vec<Arc<Level>>) {
        *self.levels.write() = levels;
        self.wake_others(None);
    }

    /// Whether a level may use so many seats that are another's: those that nobody uses, or keeps for himself.
    fn lends(&self, seats: usize) -> bool {
        let taken: usize = self.levels.read().iter().map(|level| level.taken()).sum();
        taken + seats <= self.seats
    }

    /// Seats are free: levels in which requests wait may borrow them.
    fn wake_others(&self, except: Option<&Level>) {
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return;
        }
        let levels = self.levels.read().clone();
        for level in levels.iter().filter(|level| except.is_none_or(|own| !std::ptr::eq(own, &***level))) {
            let mut state = level.state.lock();
            if state.waiting > 0 {
                state.advance(self.clock.monotonic());
                level.dispatch(&mut state);
            }
        }
    }
}

/// A priority level.
pub struct Level {
    name: String,
    pool: Arc<Pool>,
    clock: Clock,
    /// Occupied seats, and those that are the level's alone, for others to read without its lock.
    in_use: AtomicUsize,
    lower: AtomicUsize,
    nominal: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    exempt: bool,
    limits: Limits,
    queuing: Option<Queuing>,
    /// More than there should be, where the number was reduced: those at the end run dry.
    queues: Vec<Queue>,
    waiting: usize,
    waiting_seats: usize,
    executing: usize,
    seats: usize,
    /// Queues in which something waits or of which something is handled.
    busy: usize,
    /// What each busy queue has had, in seat-seconds.
    progress: f64,
    /// When that was.
    at: Duration,
    /// The queue that was served last.
    last: usize,
    /// Names what waits.
    next_ticket: u64,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    waiting_seats: usize,
    executing: usize,
    /// Where its next request starts, in seat-seconds.
    starts: f64,
}

struct Waiting {
    ticket: u64,
    seats: usize,
    /// The progress when it came.
    came: f64,
    turn: oneshot::Sender<()>,
    counters: Arc<Counters>,
}

/// What becomes of a request that asks for seats.
pub enum Admission {
    /// It has them.
    Now(Seat),
    /// It waits for them.
    Later(Place),
    /// It gets none.
    Never(Rejection),
}

/// Seats that a request occupies; dropping it gives them back.
pub struct Seat {
    level: Arc<Level>,
    queue: Option<usize>,
    seats: usize,
    since: Duration,
    counters: Arc<Counters>,
}

/// A place in a queue; dropping it leaves the queue.
pub struct Place {
    level: Arc<Level>,
    queue: usize,
    ticket: u64,
    seats: usize,
    since: Duration,
    turn: oneshot::Receiver<()>,
    counters: Arc<Counters>,
    /// It was settled what became of it.
    settled: bool,
}

impl State {
    /// Time has passed, with everything as it is.
    fn advance(&mut self, now: Duration) {
        if self.busy > 0 {
            let demand = (self.seats + self.waiting_seats).min(self.limits.nominal.max(self.seats));
            let rate = demand as f64 / self.busy as f64;
            self.progress += rate * now.saturating_sub(self.at).as_secs_f64();
        }
        self.at = now;
    }

    /// The queue of a flow: of its hand, the one with the least that waits.
    fn choose(&mut self, queuing: Queuing, flow: u64, ticket: u64) -> usize {
        let hand = deal(flow, queuing);
        // Begins at another card each time, so that equal queues are chosen in turn.
        let offset = ticket as usize % queuing.hand_size.min(queuing.queues);
        let size = queuing.hand_size.min(queuing.queues);
        let cards = (0..size).map(|at| hand[(at + offset) % size]);
        cards.min_by_key(|queue| self.queues[*queue].waiting_seats).unwrap_or(0)
    }

    /// A request comes into a queue, to wait or to be handled.
    fn enter(&mut self, at: usize) {
        let progress = self.progress;
        let queue = &mut self.queues[at];
        if queue.waiting.is_empty() && queue.executing == 0 {
            queue.starts = progress;
            self.busy += 1;
        }
    }

    /// A request left a queue.
    fn left(&mut self, at: usize) {
        let queue = &mut self.queues[at];
        if queue.waiting.is_empty() && queue.executing == 0 {
            self.busy -= 1;
        }
        queue.bound();
    }

    /// The queue whose first request would be done first.
    fn next(&self) -> Option<usize> {
        let count = self.queues.len();
        let turn = (1..=count).map(|step| (self.last + step) % count);
        let finish = |at: usize| {
            let queue = &self.queues[at];
            queue.waiting.front().map(|first| (at, queue.starts + first.seats as f64 * ESTIMATED_SECONDS))
        };
        turn.filter_map(finish).min_by(|a, b| a.1.total_cmp(&b.1)).map(|(at, _)| at)
    }
}

impl Queue {
    /// A queue that did not use what it might have had does not save it: nothing starts before it came.
    fn bound(&mut self) {
        if let Some(first) = self.waiting.front() {
            self.starts = self.starts.max(first.came);
        }
    }
}

/// The most cards of a hand that are looked at; the API allows no more queues to a flow than that, in any sensible use.
const MAX_HAND: usize = 64;

/// A flow's hand of queues: always the same ones, all different, and any of the possible hands as likely as another
/// (`k8s.io/apiserver/pkg/util/shufflesharding`).
pub(super) fn deal(flow: u64, queuing: Queuing) -> [usize; MAX_HAND] {
    let size = queuing.hand_size.min(queuing.queues).min(MAX_HAND);
    let (mut hand, mut entropy) = ([0; MAX_HAND], flow);
    for at in 0..size {
        let left = (queuing.queues - at) as u64;
        let mut card = (entropy % left) as usize;
        entropy /= left;
        // The cards that were dealt are not in the deck any more; they are kept in order.
        let mut place = 0;
        while place < at && hand[place] <= card {
            card += 1;
            place += 1;
        }
        hand.copy_within(place..at, place + 1);
        hand[place] = card;
    }
    hand
}

impl Level {
    pub(super) fn new(name: &str, pool: &Arc<Pool>, clock: Clock) -> Arc<Level> {
        let state = State { at: clock.monotonic(), ..State::default() };
        Arc::new(Level {
            name: name.to_owned(),
            pool: Arc::clone(pool),
            clock,
            in_use: AtomicUsize::new(0),
            lower: AtomicUsize::new(0),
            nominal: AtomicUsize::new(0),
            state: Mutex::new(state),
        })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The seats of its own.
    pub fn nominal(&self) -> usize {
        self.nominal.load(Ordering::Relaxed)
    }

    /// Its limits.
    pub fn limits(&self) -> Limits {
        self.state.lock().limits
    }

    /// Occupied seats, and requests that wait.
    pub fn load(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.seats, state.waiting)
    }

    /// Seats that are no other level's: occupied, or kept.
    fn taken(&self) -> usize {
        self.in_use.load(Ordering::Relaxed).max(self.lower.load(Ordering::Relaxed))
    }

    /// Takes on what its object says now. What waits goes on waiting; more seats are given out at once.
    pub(super) fn configure(self: &Arc<Self>, spec: &Spec, limits: Limits) {
        self.nominal.store(limits.nominal, Ordering::Relaxed);
        self.lower.store(limits.lower, Ordering::Relaxed);
        let mut state = self.state.lock();
        state.advance(self.clock.monotonic());
        (state.exempt, state.limits) = (spec.exempt, limits);
        state.queuing = spec
            .queuing
            .map(|queuing| Queuing { hand_size: queuing.hand_size.min(queuing.queues).min(MAX_HAND), ..queuing });
        let wanted = spec.queuing.map_or(0, |queuing| queuing.queues);
        while state.queues.len() < wanted {
            state.queues.push(Queue::default());
        }
        self.dispatch(&mut state);
    }

    /// Gives a request its seats, or a place to wait for them.
    pub(super) fn admit(self: &Arc<Self>, schema: &Schema, flow: u64, seats: usize) -> Admission {
        let counters = &schema.counters;
        let now = self.clock.monotonic();
        let mut state = self.state.lock();
        state.advance(now);
        if state.exempt {
            return Admission::Now(self.seat(&mut state, None, seats, now, counters));
        }
        let Some(queuing) = state.queuing else {
            if self.has_room(&state, seats) {
                return Admission::Now(self.seat(&mut state, None, seats, now, counters));
            }
            counters.reject(Rejection::ConcurrencyLimit);
            return Admission::Never(Rejection::ConcurrencyLimit);
        };
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        let queue = state.choose(queuing, flow, ticket);
        if state.waiting == 0 && self.has_room(&state, seats) {
            state.enter(queue);
            counters.waited.observe(0.0);
            return Admission::Now(self.seat(&mut state, Some(queue), seats, now, counters));
        }
        if state.queues[queue].waiting.len() >= queuing.queue_length {
            counters.reject(Rejection::QueueFull);
            return Admission::Never(Rejection::QueueFull);
        }
        state.enter(queue);
        let (sender, turn) = oneshot::channel();
        let waiting = Waiting { ticket, seats, came: state.progress, turn: sender, counters: Arc::clone(counters) };
        state.queues[queue].waiting.push_back(waiting);
        state.queues[queue].waiting_seats += seats;
        state.queues[queue].bound();
        state.waiting += 1;
        state.waiting_seats += seats;
        self.pool.waiting.fetch_add(1, Ordering::Relaxed);
        counters.waiting.fetch_add(1, Ordering::Relaxed);
        // What came before may be too wide for what is free, this one not.
        self.dispatch(&mut state);
        drop(state);
        let counters = Arc::clone(counters);
        Admission::Later(Place {
            level: Arc::clone(self),
            queue,
            ticket,
            seats,
            since: now,
            turn,
            counters,
            settled: false,
        })
    }

    /// Whether there are so many seats, of its own or of others.
    fn has_room(&self, state: &State, seats: usize) -> bool {
        let wanted = state.seats + seats;
        if state.exempt || wanted <= state.limits.nominal {
            return true;
        }
        // One that is wider than the level is handled alone, lest it never be.
        if state.executing == 0 && state.limits.nominal > 0 {
            return true;
        }
        if wanted > state.limits.upper {
            return false;
        }
        let _turn = self.pool.lending.lock();
        // Its own unused seats are counted as taken; using them borrows nothing.
        let own = self.taken().saturating_sub(state.seats);
        let lends = self.pool.lends(seats.saturating_sub(own));
        if lends {
            self.in_use.store(wanted, Ordering::Relaxed);
        }
        lends
    }

    /// Occupies seats.
    fn seat(
        self: &Arc<Self>,
        state: &mut State,
        queue: Option<usize>,
        seats: usize,
        now: Duration,
        counters: &Arc<Counters>,
    ) -> Seat {
        self.occupy(state, queue, seats, counters);
        Seat { level: Arc::clone(self), queue, seats, since: now, counters: Arc::clone(counters) }
    }

    fn occupy(&self, state: &mut State, queue: Option<usize>, seats: usize, counters: &Counters) {
        state.executing += 1;
        state.seats += seats;
        self.in_use.store(state.seats, Ordering::Relaxed);
        if let Some(queue) = queue.map(|at| &mut state.queues[at]) {
            queue.executing += 1;
            queue.starts += seats as f64 * ESTIMATED_SECONDS;
            queue.bound();
        }
        counters.dispatched.fetch_add(1, Ordering::Relaxed);
        counters.executing.fetch_add(1, Ordering::Relaxed);
        counters.seats.fetch_add(seats as i64, Ordering::Relaxed);
    }

    /// Calls as many of those that wait as there is room for.
    fn dispatch(&self, state: &mut State) {
        while state.waiting > 0 {
            let Some(at) = state.next() else { return };
            let seats = state.queues[at].waiting.front().map_or(0, |first| first.seats);
            if !self.has_room(state, seats) {
                return;
            }
            let Some(first) = state.queues[at].waiting.pop_front() else { return };
            self.forget(state, at, &first);
            self.occupy(state, Some(at), first.seats, &first.counters);
            state.last = at;
            // Who does not listen any more gives the seats back when he drops his place.
            let _ = first.turn.send(());
        }
    }

    /// A request waits no longer.
    fn forget(&self, state: &mut State, at: usize, waiting: &Waiting) {
        state.queues[at].waiting_seats -= waiting.seats;
        state.waiting -= 1;
        state.waiting_seats -= waiting.seats;
        self.pool.waiting.fetch_sub(1, Ordering::Relaxed);
        waiting.counters.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// A request is done.
    fn release(&self, queue: Option<usize>, seats: usize, since: Duration, counters: &Counters) {
        let now = self.clock.monotonic();
        let took = now.saturating_sub(since);
        {
            let mut state = self.state.lock();
            state.advance(now);
            state.executing -= 1;
            state.seats -= seats;
            self.in_use.store(state.seats, Ordering::Relaxed);
            if let Some(at) = queue {
                let queue = &mut state.queues[at];
                queue.executing -= 1;
                queue.starts -= seats as f64 * (ESTIMATED_SECONDS - took.as_secs_f64());
                state.left(at);
            }
            self.dispatch(&mut state);
        }
        counters.executing.fetch_sub(1, Ordering::Relaxed);
        counters.seats.fetch_sub(seats as i64, Ordering::Relaxed);
        counters.executed.observe_time(took);
        self.pool.wake_others(Some(self));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.level.release(self.queue, self.seats, self.since, &self.counters);
    }
}

impl Place {
    /// Waits for the turn.
    pub async fn turn(&mut self) {
        let _ = (&mut self.turn).await;
    }

    /// Whether the turn has come.
    pub fn is_called(&mut self) -> bool {
        self.turn.try_recv().is_ok()
    }

    /// The seats, if it was the place's turn. Otherwise it has waited too long.
    pub fn take(mut self) -> Option<Seat> {
        let seat = self.settle(Rejection::TimeOut);
        if seat.is_some() {
            self.counters.waited.observe_time(self.level.clock.monotonic().saturating_sub(self.since));
        }
        seat
    }

    /// Leaves the queue, or comes away with seats.
    fn settle(&mut self, rejection: Rejection) -> Option<Seat> {
        self.settled = true;
        let now = self.level.clock.monotonic();
        let mut state = self.level.state.lock();
        let waiting = &mut state.queues[self.queue].waiting;
        if let Some(place) = waiting.iter().position(|waiting| waiting.ticket == self.ticket) {
            let waiting = waiting.remove(place)?;
            state.advance(now);
            self.level.forget(&mut state, self.queue, &waiting);
            state.left(self.queue);
            // It may have been too wide for what is free, and in the way.
            self.level.dispatch(&mut state);
            drop(state);
            self.counters.reject(rejection);
            self.counters.waited_in_vain.observe_time(now.saturating_sub(self.since));
            return None;
        }
        drop(state);
        Some(Seat {
            level: Arc::clone(&self.level),
            queue: Some(self.queue),
            seats: self.seats,
            since: now,
            counters: Arc::clone(&self.counters),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.settled {
            // Its client has gone. Seats that it has got meanwhile are dropped, and so given back.
            drop(self.settle(Rejection::Cancelled));
        }
    }
}
