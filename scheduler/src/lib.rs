//! The scheduler: which node runs a pod.
//!
//! Older texts call its two halves *predicates* (may this pod run there at all?) and *priorities* (where is it best?).
//! Kubernetes calls them [`framework::Filter`] and [`framework::Score`] today, and so does this crate.
//!
//! ```text
//!  watch pods, nodes ──► Cache (nodes, what runs on them, what is assumed to)
//!         │                  │ snapshot: only what changed is taken over
//!         ▼                  ▼
//!  SchedulingQueue ──pop──► scheduling cycle: PreFilter → Filter each node → Score the fit ones → assume
//!    active / backoff /          │ nobody fits: PostFilter (preemption), FailedScheduling, back into the queue
//!    unschedulable / gated       ▼
//!                           binding cycle (its own task): POST pods/NAME/binding, Scheduled
//! ```
//!
//! Read in this order: [`framework`] (the extension points), [`plugins`] (one a file, one row each), [`node_info`]
//! and [`cache`], [`queue`], [`schedule_one`] (one pod against one snapshot: pure), [`scheduler`] (events in, bindings
//! out), [`profile`] and [`config`] (what operators choose), [`attempts`] (what was decided and why, for those who ask later).
//!
//! # Invariants
//! - A pod that is bound, or assumed to be, is in the cache; requests on a node never exceed what it allocates.
//! - A scheduling cycle reads one snapshot and nothing else; it does no I/O.
//! - Ties are broken by the injected random source, so that a seed replays.
//! - A pod is in at most one of the queue's rooms, or in a cycle.
//!
//! # Left out, compared with kube-scheduler
//! - Plugins for volumes and for dynamic resources (`VolumeBinding`, `DynamicResources`, …): a pod with an unbound claim
//!   stays Pending with an event that names it.
//! - Extenders, Permit waiting and nominated pods of gangs.

pub mod attempts;
pub mod cache;
pub mod config;
pub mod counts;
pub mod framework;
pub mod node_info;
pub mod plugins;
pub mod profile;
pub mod queue;
pub mod resource;
pub mod schedule_one;
pub mod scheduler;

pub use config::SchedulerConfiguration;
pub use profile::{Profile, Settings};
pub use scheduler::Scheduler;
