//! The clock itself: where time comes from, and the thread that fires real timers.

use crate::{
    Elapsed, Simulation, Sleep, Ticks,
    timers::{TimerKey, Timers},
};
use jiff::{SignedDuration, Timestamp};
use parking_lot::{Condvar, Mutex};
use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

/// The one source of time of a process. Clones share it.
#[derive(Clone)]
pub struct Clock {
    shared: Arc<Shared>,
}

/// Moves a [`Clock::paced`] clock: faster, slower, or ahead at once.
#[derive(Clone)]
pub struct Pace {
    shared: Arc<Shared>,
}

/// What the handles (clocks, sleeps, simulation) share. When the last of them goes, the driver
/// thread ends.
pub(crate) struct Shared {
    core: Arc<Core>,
}

struct Core {
    state: Mutex<State>,
    /// Signalled when the driver thread has to look again: an earlier deadline, another pace, the
    /// end.
    changed: Condvar,
}

struct State {
    timers: Timers,
    source: Source,
    ended: bool,
}

/// Where time comes from.
enum Source {
    Real(Timeline),
    Simulated { start: Timestamp, elapsed: Duration },
}

/// The clock's time as a function of the machine's: `reached` at `anchor`, and from there on
/// `speed` times as fast.
struct Timeline {
    started: Instant,
    anchor: Instant,
    reached: Duration,
    speed: f64,
}

// The only place that may read the machine's clocks.
#[allow(clippy::disallowed_methods)]
fn machine_instant() -> Instant {
    Instant::now()
}

#[allow(clippy::disallowed_methods)]
fn machine_timestamp() -> Timestamp {
    Timestamp::now()
}

impl Timeline {
    fn start() -> Self {
        let now = machine_instant();
        Timeline { started: now, anchor: now, reached: Duration::ZERO, speed: 1.0 }
    }

    fn monotonic(&self, instant: Instant) -> Duration {
        let passed = instant.saturating_duration_since(self.anchor);
        // Multiplying by 1.0 would lose nanoseconds after a few months.
        let passed = if self.speed == 1.0 { passed } else { passed.mul_f64(self.speed) };
        self.reached.saturating_add(passed)
    }

    /// The machine's wall clock, plus what this timeline has gained on (or lost to) the machine.
    fn wall(&self) -> Timestamp {
        let instant = machine_instant();
        let gained = signed(self.monotonic(instant)) - signed(instant.saturating_duration_since(self.started));
        machine_timestamp().checked_add(gained).unwrap_or(Timestamp::MAX)
    }

    fn re_anchor(&mut self) {
        let now = machine_instant();
        self.reached = self.monotonic(now);
        self.anchor = now;
    }

    /// When the machine will have reached a moment of this timeline; none if it is too far away to
    /// express.
    fn instant_of(&self, monotonic: Duration) -> Option<Instant> {
        let ahead = monotonic.saturating_sub(self.reached);
        let ahead = if self.speed == 1.0 {
            ahead
        } else {
            Duration::try_from_secs_f64(ahead.as_secs_f64() / self.speed).ok()?
        };
        self.anchor.checked_add(ahead)
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

impl State {
    fn monotonic(&self) -> Duration {
        match &self.source {
            Source::Real(timeline) => timeline.monotonic(machine_instant()),
            Source::Simulated { elapsed, .. } => *elapsed,
        }
    }
}

impl Clock {
    /// The machine's clock. One thread sleeps until the next deadline; without timers it sleeps for
    /// good.
    pub fn real() -> Clock {
        Clock::new(Source::Real(Timeline::start()))
    }

    /// A clock that starts as the machine's and can be sped up or moved ahead.
    pub fn paced() -> (Clock, Pace) {
        let clock = Clock::real();
        let pace = Pace { shared: clock.shared.clone() };
        (clock, pace)
    }

    /// A clock that stands still until the [`Simulation`] moves it.
    pub fn simulated(start: Timestamp) -> (Clock, Simulation) {
        let clock = Clock::new(Source::Simulated { start, elapsed: Duration::ZERO });
        let simulation = Simulation::new(clock.shared.clone());
        (clock, simulation)
    }

    #[allow(clippy::disallowed_methods, reason = "real timers need a thread; simulated ones have none")]
    fn new(source: Source) -> Clock {
        let real = matches!(source, Source::Real(_));
        let core = Arc::new(Core {
            state: Mutex::new(State { timers: Timers::default(), source, ended: false }),
            changed: Condvar::new(),
        });
        if real {
            let driven = core.clone();
            std::thread::Builder::new()
                .name("clock".into())
                .spawn(move || driven.drive())
                .expect("the operating system gives a thread for timers");
        }
        Clock { shared: Arc::new(Shared { core }) }
    }

    /// The wall clock: for timestamps that people and other programs read, never for measuring.
    pub fn now(&self) -> Timestamp {
        match &self.shared.core.state.lock().source {
            Source::Real(timeline) => timeline.wall(),
            Source::Simulated { start, elapsed } => start.checked_add(signed(*elapsed)).unwrap_or(Timestamp::MAX),
        }
    }

    /// Time since this clock was made: for measuring, deadlines and back-off. It never goes back.
    pub fn monotonic(&self) -> Duration {
        self.shared.monotonic()
    }

    /// Completes when `duration` has passed from now.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        self.sleep_until(self.monotonic().saturating_add(duration))
    }

    /// Completes when [`Clock::monotonic`] reaches `monotonic`.
    pub fn sleep_until(&self, monotonic: Duration) -> Sleep {
        Sleep::new(self.shared.clone(), monotonic)
    }

    /// Moments a period apart, counted from now. A millisecond is the shortest period.
    pub fn ticks(&self, period: Duration) -> Ticks {
        Ticks::new(self.clone(), period)
    }

    /// The answer of `future`, or [`Elapsed`] when it takes longer than `duration`. A ready future
    /// wins over an elapsed time.
    pub async fn timeout<F: Future>(&self, duration: Duration, future: F) -> Result<F::Output, Elapsed> {
        let mut sleep = self.sleep(duration);
        let mut future = pin!(future);
        poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => Pin::new(&mut sleep).poll(context).map(|()| Err(Elapsed)),
        })
        .await
    }

    /// How many sleeps wait at this moment (a metric; tests use it to see that nothing is left
    /// behind).
    pub fn pending(&self) -> usize {
        self.shared.core.state.lock().timers.len()
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

impl Pace {
    /// From now on the clock runs `factor` times as fast as the machine's.
    ///
    /// # Panics
    /// When `factor` is not a positive, finite number: a clock that stands still would never fire a
    /// timer.
    pub fn set_speed(&self, factor: f64) {
        assert!(factor.is_finite() && factor > 0.0, "a clock's speed is a positive number, not {factor}");
        self.change(|timeline| timeline.speed = factor);
    }

    /// Moves the clock ahead at once; every deadline that is passed fires.
    pub fn forward(&self, duration: Duration) {
        self.change(|timeline| timeline.reached = timeline.reached.saturating_add(duration));
    }

    fn change(&self, change: impl FnOnce(&mut Timeline)) {
        let mut state = self.shared.core.state.lock();
        let Source::Real(timeline) = &mut state.source else { unreachable!("only paced clocks hand out a Pace") };
        timeline.re_anchor();
        change(timeline);
        self.shared.core.changed.notify_one();
    }
}

impl Shared {
    pub(crate) fn monotonic(&self) -> Duration {
        self.core.state.lock().monotonic()
    }

    /// Registers a sleep or renews its waker; ready when the deadline has been reached.
    pub(crate) fn poll_timer(&self, deadline: Duration, key: &mut Option<TimerKey>, waker: &Waker) -> Poll<()> {
        // Declared before the guard, so dropped after it.
        let _replaced;
        let mut state = self.core.state.lock();
        if state.monotonic() >= deadline {
            _replaced = key.take().and_then(|key| state.timers.remove(key));
            return Poll::Ready(());
        }
        _replaced = key.and_then(|key| state.timers.update(key, waker));
        if _replaced.is_none() {
            let (registered, first) = state.timers.insert(deadline, waker.clone());
            *key = Some(registered);
            if first {
                self.core.changed.notify_one();
            }
        }
        Poll::Pending
    }

    pub(crate) fn remove_timer(&self, key: TimerKey) {
        let removed = self.core.state.lock().timers.remove(key);
        drop(removed);
    }

    /// Moves simulated time to the next deadline that is not after `limit`, and wakes who waits for
    /// it.
    pub(crate) fn step(&self, limit: Duration) -> bool {
        let due = {
            let mut state = self.core.state.lock();
            let Some(deadline) = state.timers.next_deadline().filter(|deadline| *deadline <= limit) else {
                return false;
            };
            let now = state.move_to(deadline);
            std::iter::from_fn(|| state.timers.pop_due(now)).collect::<Vec<_>>()
        };
        due.into_iter().for_each(Waker::wake);
        true
    }

    pub(crate) fn move_to(&self, monotonic: Duration) {
        self.core.state.lock().move_to(monotonic);
    }
}

impl State {
    fn move_to(&mut self, monotonic: Duration) -> Duration {
        let Source::Simulated { elapsed, .. } = &mut self.source else {
            unreachable!("only simulated clocks are moved by hand")
        };
        *elapsed = (*elapsed).max(monotonic);
        *elapsed
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.core.state.lock().ended = true;
        self.core.changed.notify_one();
    }
}

impl Core {
    /// The driver thread of a real clock: wakes who is due, then sleeps until the next deadline.
    fn drive(&self) {
        let mut due = Vec::new();
        let mut state = self.state.lock();
        while !state.ended {
            let now = state.monotonic();
            due.extend(std::iter::from_fn(|| state.timers.pop_due(now)));
            if !due.is_empty() {
                // Wakers run code of others: never under the lock.
                parking_lot::MutexGuard::unlocked(&mut state, || due.drain(..).for_each(Waker::wake));
                continue;
            }
            let next = match &state.source {
                Source::Real(timeline) => {
                    state.timers.next_deadline().and_then(|deadline| timeline.instant_of(deadline))
                }
                Source::Simulated { .. } => unreachable!("a simulated clock has no driver"),
            };
            match next {
                Some(instant) => drop(self.changed.wait_until(&mut state, instant)),
                None => self.changed.wait(&mut state),
            }
        }
    }
}
