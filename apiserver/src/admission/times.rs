//! How long admission takes (`k8s.io/apiserver/pkg/admission/metrics/metrics.go`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use minik8s_metrics::{Histogram, Kind, Text};
use parking_lot::RwLock;

use super::Operation;

/// Upper bounds for plugins, and for webhooks, in seconds.
const PLUGIN_SECONDS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
const WEBHOOK_SECONDS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];

const OPERATIONS: [Operation; 4] = [Operation::Create, Operation::Update, Operation::Delete, Operation::Connect];

/// Which of the two passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Objects are changed.
    Admit,
    /// Objects are refused.
    Validate,
}

impl Step {
    const ALL: [Step; 2] = [Step::Admit, Step::Validate];

    fn as_str(self) -> &'static str {
        match self {
            Step::Admit => "admit",
            Step::Validate => "validate",
        }
    }
}

/// Histograms by operation, step, and whether the write was refused.
struct Grid(Vec<Histogram>);

impl Grid {
    fn new() -> Grid {
        Grid((0..OPERATIONS.len() * Step::ALL.len() * 2).map(|_| Histogram::new(PLUGIN_SECONDS)).collect())
    }

    fn observe(&self, operation: Operation, step: Step, rejected: bool, took: Duration) {
        let at = (operation as usize * Step::ALL.len() + step as usize) * 2 + usize::from(rejected);
        self.0[at].observe_time(took);
    }

    fn write(&self, text: &mut Text, name: &'static str, help: &'static str, plugin: Option<&str>) {
        for (at, histogram) in self.0.iter().enumerate() {
            let counts = histogram.counts();
            if counts.count == 0 {
                continue;
            }
            let (operation, step) = (OPERATIONS[at / 4], Step::ALL[at / 2 % 2]);
            let rejected = if at % 2 == 1 { "true" } else { "false" };
            let labels = [("operation", operation.as_str()), ("rejected", rejected), ("type", step.as_str())];
            let labels: Vec<(&str, &str)> = plugin.map(|name| ("name", name)).into_iter().chain(labels).collect();
            text.family(name, Kind::Histogram, help).histogram(&labels, &counts);
        }
    }
}

/// What is counted of a chain.
pub struct Times {
    plugins: Vec<(&'static str, Grid)>,
    steps: Grid,
    webhooks: Arc<WebhookTimes>,
}

/// A call of a webhook: its name, the operation, `admit` or `validating`, whether it refused.
type Call = (String, &'static str, &'static str, bool);

/// What is counted of webhooks.
#[derive(Default)]
pub(super) struct WebhookTimes {
    called: RwLock<BTreeMap<Call, Histogram>>,
    /// By name, and `admit` or `validating`: those that failed and were passed over.
    passed_over: RwLock<BTreeMap<(String, &'static str), AtomicU64>>,
}

impl WebhookTimes {
    /// A webhook was called. `kind`: `admit`, or `validating`, as Kubernetes names them here.
    pub(super) fn called(&self, name: &str, operation: Operation, kind: &'static str, rejected: bool, took: Duration) {
        let key = (name.to_owned(), operation.as_str(), kind, rejected);
        if let Some(histogram) = self.called.read().get(&key) {
            return histogram.observe_time(took);
        }
        self.called.write().entry(key).or_insert_with(|| Histogram::new(WEBHOOK_SECONDS)).observe_time(took);
    }

    pub(super) fn pass_over(&self, name: &str, kind: &'static str) {
        let mut passed_over = self.passed_over.write();
        passed_over.entry((name.to_owned(), kind)).or_default().fetch_add(1, Ordering::Relaxed);
    }
}

impl Times {
    /// Of plugins with these names.
    pub(super) fn new(names: impl Iterator<Item = &'static str>, webhooks: Arc<WebhookTimes>) -> Times {
        Times { plugins: names.map(|name| (name, Grid::new())).collect(), steps: Grid::new(), webhooks }
    }

    /// Of other plugins; nothing is counted yet.
    pub(super) fn only(&self, names: impl Iterator<Item = &'static str>) -> Times {
        Times::new(names, Arc::clone(&self.webhooks))
    }

    pub(super) fn plugin(&self, at: usize, operation: Operation, step: Step, rejected: bool, took: Duration) {
        self.plugins[at].1.observe(operation, step, rejected, took);
    }

    pub(super) fn step(&self, operation: Operation, step: Step, rejected: bool, took: Duration) {
        self.steps.observe(operation, step, rejected, took);
    }

    /// Writes all of it.
    pub fn write(&self, text: &mut Text) {
        let name = "apiserver_admission_controller_admission_duration_seconds";
        for (plugin, grid) in &self.plugins {
            grid.write(text, name, "How long admission plugins took.", Some(plugin));
        }
        let name = "apiserver_admission_step_admission_duration_seconds";
        self.steps.write(text, name, "How long all plugins took.", None);
        for ((webhook, operation, kind, rejected), histogram) in self.webhooks.called.read().iter() {
            let rejected = if *rejected { "true" } else { "false" };
            let labels =
                [("name", webhook.as_str()), ("operation", *operation), ("rejected", rejected), ("type", *kind)];
            let counts = histogram.counts();
            let name = "apiserver_admission_webhook_admission_duration_seconds";
            text.family(name, Kind::Histogram, "How long webhooks took.").histogram(&labels, &counts);
            text.family("apiserver_admission_webhook_request_total", Kind::Counter, "Calls of webhooks.")
                .sample(&labels, counts.count);
        }
        for ((webhook, kind), count) in self.webhooks.passed_over.read().iter() {
            let name = "apiserver_admission_webhook_fail_open_count";
            text.family(name, Kind::Counter, "Webhooks that failed and were passed over.")
                .sample(&[("name", webhook), ("type", kind)], count.load(Ordering::Relaxed));
        }
    }
}
