//! What makes a run replayable: one clock, one random source and one name generator for every component, and a watched
//! value that wakes in order.
//!
//! Nothing else in minik8s asks the operating system what time it is or for a random number;
//! `clippy.toml` forbids the calls. A component is handed a [`Clock`] and a [`Random`] when it is
//! built, and that makes three things possible: a test in which an hour passes in a millisecond, a
//! cluster whose time runs sixty times faster, and a failing run that replays from its seed.
//!
//! ```text
//!   Clock::real()        Clock::paced()          Clock::simulated(start)
//!   driver thread        driver thread           no thread
//!        │                    │ ▲ Pace                │ ▲ Simulation
//!        │                    │ │ set_speed           │ │ advance
//!        ▼                    ▼ │ forward             ▼ │ advance_to_next
//!   ┌──────────────────────────────────────────────────────┐
//!   │ Timers: (deadline, sequence) → Waker, in that order  │◄── Sleep: registers when polled, removes itself when dropped
//!   └──────────────────────────────────────────────────────┘
//! ```
//!
//! Reading order: [`Clock`] (what everyone holds), `timers` (the ordered set of waiting wakers),
//! [`Sleep`] (the future), [`Simulation`] and [`Pace`] (who moves time), then [`Random`] and [`Watched`].
//!
//! # Virtual time
//!
//! [`Simulation::advance_to_next`] moves time to the next deadline. Called whenever a runtime has
//! nothing left to run, it makes a whole cluster run as fast as the processor allows and in the
//! same order every time:
//!
//! ```
//! # use minik8s_clock::Clock;
//! # use std::time::Duration;
//! let (clock, simulation) = Clock::simulated("2026-01-01T00:00:00Z".parse().unwrap());
//! let runtime = tokio::runtime::Builder::new_current_thread()
//!     .on_thread_park(move || { simulation.advance_to_next(); })
//!     .build()
//!     .unwrap();
//! runtime.block_on(clock.sleep(Duration::from_secs(3600)));
//! assert_eq!(clock.now().to_string(), "2026-01-01T01:00:00Z");
//! ```
//!
//! # Invariants
//! - [`Clock::monotonic`] never goes back. [`Clock::now`] may, when the machine's own clock is set
//!   back.
//! - Timers fire in the order of their deadlines; equal deadlines in the order in which they were
//!   first polled.
//! - A [`Sleep`] that is dropped leaves nothing behind.
//! - A seeded [`Random`] gives the same numbers on every machine.
//! - [`Watcher`]s are woken in the order in which they began to wait.
//!
//! # Left out, compared with Kubernetes
//! `k8s.io/utils/clock` has timers with channels; a loop around [`Clock::sleep`] does the same, and one around
//! [`Ticks::tick`] what a ticker does.

mod clock;
mod random;
mod simulation;
mod sleep;
mod ticks;
mod timers;
mod watched;

pub use clock::{Clock, Pace};
pub use random::{NAME_ALPHABET, Random};
pub use simulation::Simulation;
pub use sleep::{Elapsed, Sleep};
pub use ticks::Ticks;
pub use watched::{Ended, Watched, Watcher};
