//! How long the store takes, under the names that Kubernetes has for etcd.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use minik8s_metrics::{Histogram, Kind, Text};
use minik8s_store::{Condition, Operation, Txn};
use parking_lot::RwLock;

use crate::registry::keys;

/// Upper bounds, in seconds.
const SECONDS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];

/// Times of transactions, by what they do and to which resource.
#[derive(Default)]
pub struct StoreTimes(RwLock<BTreeMap<Labels, Arc<Times>>>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Labels {
    operation: &'static str,
    group: String,
    resource: String,
}

struct Times {
    seconds: Histogram,
    errors: AtomicU64,
}

/// A transaction that is about to be proposed.
pub struct Timed(Arc<Times>);

impl StoreTimes {
    /// What a transaction is.
    pub fn begin(&self, txn: &Txn) -> Timed {
        let operation = match (txn.operations.first(), txn.conditions.first()) {
            (Some(Operation::Delete { .. }), _) => "delete",
            (_, Some(Condition::Absent { .. })) => "create",
            _ => "update",
        };
        let key = txn.operations.first().map(Operation::key).unwrap_or_default();
        let (group, resource) =
            keys::resource_of(key).map(|resource| (resource.group, resource.resource)).unwrap_or_default();
        let labels = Labels { operation, group, resource };
        if let Some(times) = self.0.read().get(&labels) {
            return Timed(Arc::clone(times));
        }
        let new = || Arc::new(Times { seconds: Histogram::new(SECONDS), errors: AtomicU64::new(0) });
        Timed(Arc::clone(self.0.write().entry(labels).or_insert_with(new)))
    }

    /// Writes all of it.
    pub fn write(&self, text: &mut Text) {
        for (labels, times) in self.0.read().iter() {
            let Labels { operation, group, resource } = labels;
            let kind = if group.is_empty() { resource.clone() } else { format!("{resource}.{group}") };
            let labels =
                [("group", group.as_str()), ("operation", *operation), ("resource", resource), ("type", &kind)];
            let counts = times.seconds.counts();
            text.family("etcd_request_duration_seconds", Kind::Histogram, "How long the store took.")
                .histogram(&labels, &counts);
            text.family("etcd_requests_total", Kind::Counter, "What the store was asked.")
                .sample(&labels, counts.count);
            text.family("etcd_request_errors_total", Kind::Counter, "What the store refused.")
                .sample(&labels, times.errors.load(Ordering::Relaxed));
        }
    }
}

impl Timed {
    /// It has taken so long. `failed`: the store answered with an error; a conflict is none.
    pub fn end(&self, took: Duration, failed: bool) {
        self.0.seconds.observe_time(took);
        self.0.errors.fetch_add(u64::from(failed), Ordering::Relaxed);
    }
}
