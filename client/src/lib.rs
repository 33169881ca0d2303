//! What every component works with: a client of the API, and the machinery that turns its watches into work.
//!
//! The scheduler, the controllers and the kubelets are ordinary clients of the API server. Whether the requests of a
//! [`Client`] travel over TLS or straight into the API server's tower service is decided where it is made; nothing
//! below knows.
//!
//! ```text
//!   list + watch ──► Informer ──► Lister (typed cache, indexes)
//!                       │ Event::{Added, Updated, Deleted}
//!                       ▼
//!                   WorkQueue ──► run_controller ──► sync(key) ──► Client (writes), EventRecorder (events)
//! ```
//!
//! Read in this order: [`client`], [`informer`] (one reflector a kind), [`pool`] (what informers share of what they hold),
//! [`factory`] (who shares them), [`queue`], [`controller`], [`events`], [`leader`], [`metrics`].
//!
//! # Invariants
//! - A handler never blocks and never calls the API: it puts a key into a queue.
//! - A `sync(key)` reads listers, never events, so that a lost or doubled event changes nothing.
//! - A lister is never ahead of what the API server acknowledged, and never goes backwards.
//! - All waiting is on the injected [`minik8s_clock::Clock`].
//!
//! # Left out, compared with client-go
//! - Resync periods: every consumer here is driven by changes and by its own timers.
//! - Paged initial lists: the first list is served from the API server's watch cache (`resourceVersion=0`), in one piece.
//! - Typed clientsets: [`kube::Api`] over `k8s_openapi` types is the typed client.

pub mod client;
pub mod controller;
pub mod events;
pub mod factory;
pub mod informer;
pub mod leader;
pub mod metrics;
pub mod pool;
pub mod queue;

pub use client::{Client, Error, Result, is_already_exists, is_conflict, is_not_found, words};
pub use controller::run_controller;
pub use events::{EventRecorder, EventType, object_reference};
pub use factory::InformerFactory;
pub use informer::{Event, Informer, ListOptions, Lister, ObjectMetadata, Watched};
pub use leader::{LeaderElector, LeaderTiming};
pub use metrics::Metrics;
pub use pool::ObjectPool;
pub use queue::WorkQueue;
