//! Processor time of a container, computed when it is asked for.

use parking_lot::Mutex;
use std::time::Duration;

/// Sums up processor time from amounts and from rates, without ever waking up.
#[derive(Debug, Default)]
pub struct CpuMeter {
    inner: Mutex<Meter>,
}

#[derive(Debug, Default)]
struct Meter {
    used: Duration,
    millicores: u64,
    since: Duration,
}

impl Meter {
    fn settle(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.since);
        self.used += elapsed.mul_f64(self.millicores as f64 / 1000.0);
        self.since = now;
    }
}

impl CpuMeter {
    /// Adds an amount.
    pub fn charge(&self, time: Duration) {
        self.inner.lock().used += time;
    }

    /// From now on (a monotonic time) this many more thousandths of a processor are used.
    pub fn add_rate(&self, now: Duration, millicores: u64) {
        let mut meter = self.inner.lock();
        meter.settle(now);
        meter.millicores += millicores;
    }

    /// From now on nothing is used.
    pub fn stop(&self, now: Duration) {
        let mut meter = self.inner.lock();
        meter.settle(now);
        meter.millicores = 0;
    }

    /// What was used until now, and the thousandths of a processor in use.
    pub fn usage(&self, now: Duration) -> (Duration, u64) {
        let mut meter = self.inner.lock();
        meter.settle(now);
        (meter.used, meter.millicores)
    }
}
