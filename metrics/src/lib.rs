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
mod registry;
mod text;

pub use histogram::{Counts, Histogram};
pub use registry::{Registry, Source};
pub use text::{Kind, Text};
