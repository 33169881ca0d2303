//! Who moves simulated time.

use crate::clock::Shared;
use std::{sync::Arc, time::Duration};

/// Moves a clock made by [`Clock::simulated`](crate::Clock::simulated). Nothing else does.
#[derive(Clone)]
pub struct Simulation {
    shared: Arc<Shared>,
}

impl Simulation {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Simulation { shared }
    }

    /// Moves time ahead and wakes every sleep whose deadline is reached, in the order of deadlines.
    ///
    /// The woken tasks run afterwards and see the time at the end of the move; where each must see
    /// its own deadline, use [`Simulation::advance_to_next`] between turns of the runtime.
    pub fn advance(&self, duration: Duration) {
        let target = self.shared.monotonic().saturating_add(duration);
        while self.shared.step(target) {}
        self.shared.move_to(target);
    }

    /// Moves time to the next deadline and wakes all who wait for that moment. False, and no time
    /// passes, if nobody waits.
    pub fn advance_to_next(&self) -> bool {
        self.shared.step(Duration::MAX)
    }

    /// Moves time to the next deadline unless that lies after `limit` (as
    /// [`Clock::monotonic`](crate::Clock::monotonic) counts).
    pub fn advance_to_next_until(&self, limit: Duration) -> bool {
        self.shared.step(limit)
    }
}
