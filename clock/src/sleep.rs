//! The future that waits for a moment of a clock.

use crate::{clock::Shared, timers::TimerKey};
use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

/// Completes at its deadline. Made by [`Clock::sleep`](crate::Clock::sleep); takes no room in the
/// clock before it is polled or after it is dropped.
#[must_use = "a sleep does nothing unless awaited"]
pub struct Sleep {
    shared: Arc<Shared>,
    deadline: Duration,
    key: Option<TimerKey>,
}

/// A [`timeout`](crate::Clock::timeout) passed before the future was ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

impl Sleep {
    pub(crate) fn new(shared: Arc<Shared>, deadline: Duration) -> Self {
        Sleep { shared, deadline, key: None }
    }

    /// The moment, as [`Clock::monotonic`](crate::Clock::monotonic) counts, at which it completes.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let sleep = self.get_mut();
        sleep.shared.poll_timer(sleep.deadline, &mut sleep.key, context.waker())
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.shared.remove_timer(key);
        }
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("timed out")
    }
}

impl std::error::Error for Elapsed {}
