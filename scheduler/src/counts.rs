//! What is counted of scheduling (`pkg/scheduler/metrics/metrics.go`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use minik8s_metrics::{Histogram, Kind, Text};

/// Upper bounds of the times of attempts, in seconds.
const SECONDS: &[f64] =
    &[0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384];
/// Upper bounds of the times until pods are bound, in seconds.
const SLI_SECONDS: &[f64] =
    &[0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68];
const VICTIMS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The pod is bound.
    Scheduled,
    /// No node would do.
    Unschedulable,
    /// The API refused.
    Error,
}

impl Outcome {
    const ALL: [Outcome; 3] = [Outcome::Scheduled, Outcome::Unschedulable, Outcome::Error];

    fn as_str(self) -> &'static str {
        match self {
            Outcome::Scheduled => "scheduled",
            Outcome::Unschedulable => "unschedulable",
            Outcome::Error => "error",
        }
    }
}

/// Counters of a scheduler.
pub struct Counts {
    /// By profile.
    attempts: BTreeMap<String, [Histogram; Outcome::ALL.len()]>,
    /// Choosing a node, without binding.
    pub algorithm: Histogram,
    /// From a pod's coming to its binding.
    pub waited: Histogram,
    preemptions: AtomicU64,
    victims: Histogram,
}

impl Counts {
    /// Counters of a scheduler with these profiles.
    pub fn new<'a>(profiles: impl IntoIterator<Item = &'a str>) -> Counts {
        let none = || Outcome::ALL.map(|_| Histogram::new(SECONDS));
        Counts {
            attempts: profiles.into_iter().map(|profile| (profile.to_owned(), none())).collect(),
            algorithm: Histogram::new(SECONDS),
            waited: Histogram::new(SLI_SECONDS),
            preemptions: AtomicU64::new(0),
            victims: Histogram::new(VICTIMS),
        }
    }

    /// An attempt of a profile has ended.
    pub fn attempted(&self, profile: &str, outcome: Outcome, took: Duration) {
        if let Some(attempts) = self.attempts.get(profile) {
            attempts[outcome as usize].observe_time(took);
        }
    }

    /// Pods are evicted for another.
    pub fn preempting(&self, victims: usize) {
        self.preemptions.fetch_add(1, Ordering::Relaxed);
        self.victims.observe(victims as f64);
    }

    /// Writes all of it, with the pods that wait and the size of the cache.
    pub fn write(&self, pending: &[(&str, usize)], sizes: &[(&str, usize)], text: &mut Text) {
        let attempts = self.attempts.iter().flat_map(|(profile, outcomes)| {
            Outcome::ALL.iter().zip(outcomes).map(move |(outcome, times)| (profile, outcome, times))
        });
        for (profile, outcome, times) in attempts {
            let (labels, counts) = ([("profile", profile.as_str()), ("result", outcome.as_str())], times.counts());
            text.family("scheduler_schedule_attempts_total", Kind::Counter, "Attempts at pods.")
                .sample(&labels, counts.count);
            if counts.count > 0 {
                let name = "scheduler_scheduling_attempt_duration_seconds";
                text.family(name, Kind::Histogram, "How long attempts took, binding included.")
                    .histogram(&labels, &counts);
            }
        }
        let name = "scheduler_scheduling_algorithm_duration_seconds";
        text.family(name, Kind::Histogram, "How long choosing a node took.").histogram(&[], &self.algorithm.counts());
        let name = "scheduler_pod_scheduling_sli_duration_seconds";
        text.family(name, Kind::Histogram, "How long pods waited until they were bound.")
            .histogram(&[], &self.waited.counts());
        text.family("scheduler_preemption_attempts_total", Kind::Counter, "Attempts to make room.")
            .sample(&[], self.preemptions.load(Ordering::Relaxed));
        text.family("scheduler_preemption_victims", Kind::Histogram, "Pods that were evicted at once.")
            .histogram(&[], &self.victims.counts());
        for (queue, count) in pending {
            text.family("scheduler_pending_pods", Kind::Gauge, "Pods that wait.").sample(&[("queue", queue)], count);
        }
        for (kind, size) in sizes {
            text.family("scheduler_cache_size", Kind::Gauge, "What the cache holds.").sample(&[("type", kind)], size);
        }
    }
}
