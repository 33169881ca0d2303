//! Counts by size, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How many observations were at most so large, for each of some bounds, and their sum.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One for each bound, and one for what is beyond. Each observation counts once.
    buckets: Box<[AtomicU64]>,
    /// In millionths.
    sum: AtomicU64,
}

/// What a histogram holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Counts {
    /// Bounds, and how many observations are not larger.
    pub buckets: Vec<(f64, u64)>,
    /// All observations.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
}

impl Histogram {
    /// An empty one; the bounds grow.
    pub fn new(bounds: &'static [f64]) -> Histogram {
        Histogram { bounds, buckets: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(), sum: AtomicU64::new(0) }
    }

    /// Counts a time, in seconds.
    pub fn observe_time(&self, time: Duration) {
        self.observe(time.as_secs_f64());
    }

    /// Counts a value that is not negative.
    pub fn observe(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add((value * 1e6) as u64, Ordering::Relaxed);
    }

    /// What it holds now.
    pub fn counts(&self) -> Counts {
        let mut count = 0;
        let mut buckets = Vec::with_capacity(self.bounds.len());
        for (at, bucket) in self.buckets.iter().enumerate() {
            count += bucket.load(Ordering::Relaxed);
            if let Some(bound) = self.bounds.get(at) {
                buckets.push((*bound, count));
            }
        }
        Counts { buckets, count, sum: self.sum.load(Ordering::Relaxed) as f64 / 1e6 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_is_in_every_bucket_that_holds_it() {
        let histogram = Histogram::new(&[0.0, 1.0, 2.5]);
        for value in [0.0, 0.5, 1.0, 2.0, 9.0] {
            histogram.observe(value);
        }
        let counts = histogram.counts();
        assert_eq!(counts.buckets, [(0.0, 1), (1.0, 3), (2.5, 4)]);
        assert_eq!((counts.count, counts.sum), (5, 12.5));
    }
}
