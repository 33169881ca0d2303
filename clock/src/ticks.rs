//! Moments a period apart.

use crate::Clock;
use std::time::Duration;

/// A period of none would leave nobody else any time.
const SHORTEST: Duration = Duration::from_millis(1);

/// Moments a period apart, the first a period after it was made by [`Clock::ticks`].
///
/// Work that is done again and again and sleeps in between drifts by the time that it takes, and apart from all other
/// such work. A process whose periodic work keeps step wakes seldom, and finds what it needs still in the caches.
#[derive(Clone, Debug)]
pub struct Ticks {
    clock: Clock,
    period: Duration,
    next: Duration,
}

impl Ticks {
    pub(crate) fn new(clock: Clock, period: Duration) -> Ticks {
        let period = period.max(SHORTEST);
        let next = clock.monotonic().saturating_add(period);
        Ticks { clock, period, next }
    }

    /// Completes at the next moment. Those that passed since the last call are not made up for. Safe to cancel.
    pub async fn tick(&mut self) {
        let now = self.clock.monotonic();
        if let Some(late) = now.checked_sub(self.next) {
            let missed = late.as_nanos() / self.period.as_nanos();
            let periods = u32::try_from(missed + 1).unwrap_or(u32::MAX);
            self.next = self.next.saturating_add(self.period.saturating_mul(periods));
        }
        self.clock.sleep_until(self.next).await;
    }
}
