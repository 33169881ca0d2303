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
//! [`service_account`], the one to know is [`replica_set`], the largest are [`deployment`] and [`job`], the one without
//! which nothing would ever go is [`garbage_collector`].
//!
//! What several have in common: [`pod_owners`] (whose a pod is), [`pod_control`] (making and removing pods), [`pods`] (what
//! is asked about them), [`owners`], [`expectations`], [`revisions`] (past templates), [`node_affinity`],
//! [`rolling_update`], [`discovery`].
//!
//! A controller's file reads top to bottom: what it watches, owns and writes; the struct; the constructor, which turns
//! events into keys; `sync`, which reads listers and makes one attempt; then pure functions.
//!
//! # Invariants
//! - `sync(key)` is idempotent: run twice, it changes nothing the second time.
//! - Every field of a status has one controller that writes it, named in that controller's doc.
//! - A controller may do what its ClusterRole `system:controller:…` allows and nothing else.
//! - A key of the cluster ([`Keys`]) reaches the controller that signs with it, and no other.
//! - Timers only where something waits: an idle cluster has idle controllers.
//!
//! # Left out, compared with kube-controller-manager
//! - Controllers: HorizontalPodAutoscaler, attach/detach, volume expansion, resource claims, load balancers,
//!   routes, storage version migration. Objects that only they would act on stay as they are.
//! - Type checking of policies: expressions are checked once for each generation of a policy, against the custom kinds
//!   that are known then; `namespaceObject` has no type.
//! - Periodic resyncs: informers and timers of what waits are enough, and an idle cluster costs nothing.
//! - Node lifecycle: zones and eviction rates; all pods of a dead node are evicted, unless no node is ready at all.
//! - Job: failures by index are counted from the pods that are there; a user who deletes them resets the count.
//!   `scheduling` (pod groups).
//! - PersistentVolumes: recycling, block volumes, data sources; a volume that waits for its first consumer is made when a
//!   scheduler names the node. Volumes of the built-in provisioner are directories that the runtime keeps.
//! - EndpointSlice: topology hints.

pub mod bootstrap_tokens;
pub mod certificates;
pub mod cluster_role_aggregation;
pub mod cron_job;
pub mod daemon_set;
pub mod deployment;
pub mod discovery;
pub mod disruption;
pub mod endpoint_slice_mirroring;
pub mod endpoint_slices;
pub mod endpoints;
pub mod ephemeral_volume;
pub mod expectations;
pub mod garbage_collector;
pub mod job;
pub mod legacy_token_cleaner;
pub mod manager;
pub mod namespace;
pub mod node_affinity;
pub mod node_ipam;
pub mod node_lifecycle;
pub mod node_ttl;
pub mod owners;
pub mod persistent_volume;
pub mod pod_control;
pub mod pod_gc;
pub mod pod_owners;
pub mod pods;
pub mod policy_status;
pub mod replica_set;
pub mod replication;
pub mod resource_quota;
pub mod revisions;
pub mod rolling_update;
pub mod root_ca_publisher;
pub mod service_account;
pub mod service_account_tokens;
pub mod service_cidrs;
pub mod stateful_set;
pub mod table;
pub mod taint_eviction;
pub mod ttl_after_finished;
pub mod volume_protection;

pub use manager::{Config, Context, Controller, ControllerManager, Keys, NodeIpamConfig, NodeLifecycleConfig};
