//! The controllers: each brings one part of the cluster to where its objects say it should be.
//!
//! ```text
//!              informers (shared, one identity)
//!        ┌──────────────┬───────────────┬───────────────┐
//!    Deployment ──►  ReplicaSet ──►   Pod          Node lifecycle   …      table.rs: one row each
//!        │ event → key    │ event → key                  │
//!        ▼                ▼                              ▼
//!     WorkQueue        WorkQueue                      WorkQueue
//!        ▼                ▼                              ▼
//!     sync(key)        sync(key)                      sync(key)      each writes under its own identity
//! ```
//!
//! Read in this order: [`manager`] (what all share), [`table`] (which there are), then any controller; a good first one is
//! [`service_account`], the one to know is [`replica_set`], the largest [`deployment`].
//!
//! A controller's file reads top to bottom: what it watches, owns and writes; the struct; the constructor, which turns
//! events into keys; `sync`, which reads listers and makes one attempt; then pure functions.
//!
//! # Invariants
//! - `sync(key)` is idempotent: run twice, it changes nothing the second time.
//! - Every field of a status has one controller that writes it, named in that controller's doc.
//! - A controller may do what its ClusterRole `system:controller:…` allows and nothing else.
//! - Timers only where something waits: an idle cluster has idle controllers.
//!
//! # Left out, compared with kube-controller-manager
//! `docs/ARCHITECTURE.md` lists the controllers that are not here; objects that only they would act on stay as they are.

pub mod cluster_role_aggregation;
pub mod cron_job;
pub mod daemon_set;
pub mod deployment;
pub mod discovery;
pub mod disruption;
pub mod endpoint_slices;
pub mod endpoints;
pub mod expectations;
pub mod garbage_collector;
pub mod job;
pub mod manager;
pub mod namespace;
pub mod node_affinity;
pub mod node_ipam;
pub mod node_lifecycle;
pub mod owners;
pub mod persistent_volume;
pub mod pod_control;
pub mod pod_gc;
pub mod pod_owners;
pub mod pods;
pub mod replica_set;
pub mod replication;
pub mod resource_quota;
pub mod revisions;
pub mod rolling_update;
pub mod root_ca_publisher;
pub mod service_account;
pub mod stateful_set;
pub mod table;
pub mod taint_eviction;
pub mod ttl_after_finished;
pub mod volume_protection;

pub use manager::{Config, Context, Controller, ControllerManager};
