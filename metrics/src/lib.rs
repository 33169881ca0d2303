//! # Metrics
//!
//! What components tell of themselves: counts and times, in Prometheus' text format, under Kubernetes' names.
//!
//! ```text
//!  a component ── counts in atomics ──► a Source in a Registry ──► Text ──► GET /metrics
//! ```
//! Reading order: [`Histogram`], [`Text`], [`Registry`].
//!
//! A [`Registry`] is handed to all components of a process, so that one endpoint tells of them all, as each of Kubernetes'
//! processes does of its own parts.
//!
//! # Invariants
//! - Counting takes no lock; a family stands once in a text, whoever writes to it.
//!
//! # Left out, compared with Kubernetes
//! - Stability levels and deprecations of metrics, exemplars, native histograms, OpenMetrics.

mod histogram;
mod text;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

pub use histogram::{Counts, Histogram};
pub use text::{Kind, Text};

/// Writes what it knows.
pub type Source = Arc<dyn Fn(&mut Text) + Send + Sync>;

/// Who has something to tell, by name. Clones are the same registry.
#[derive(Clone, Default)]
pub struct Registry(Arc<Mutex<BTreeMap<String, Source>>>);

impl Registry {
    /// Adds a source, in place of an earlier one of that name: a component that was started again begins anew.
    pub fn set(&self, name: impl Into<String>, source: impl Fn(&mut Text) + Send + Sync + 'static) {
        self.0.lock().insert(name.into(), Arc::new(source));
    }

    /// Lets all sources write.
    pub fn write(&self, text: &mut Text) {
        let sources: Vec<Source> = self.0.lock().values().cloned().collect();
        for source in sources {
            source(text);
        }
    }
}
