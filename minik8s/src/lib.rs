//! The binary's inside: the command line, and the wiring of a cluster.
//!
//! ```text
//!   main ──► cli (one verb a file) ──► cluster: store, API server, scheduler, controllers, nodes
//!                │                        │
//!                ├── bench                │     measures a cluster from outside
//!   home, kubeconfig, pki, logs           ├── wiring       how each component is put together, here and in a process alone
//!                                         ├── components   the control plane as programs of static pods
//!                                         ├── control      what `minik8s node`, `status`, `down` ask of it
//!                                         ├── network      where the API server's connections lead
//!                                         └── simulation   the same cluster in one thread and in virtual time
//! ```
//!
//! Read in this order: [`cli`], [`home`] (what is on disk), [`pki`], [`kubeconfig`], then [`cluster`], which reads like the
//! picture of the architecture, [`wiring`], [`safeguards`], [`node`], [`components`], [`control`], [`cluster_info`] (what
//! anybody may know), [`network`], [`logs`], and [`simulation`].
//!
//! # Invariants
//! - All parts of a cluster meet in [`cluster`]; each part is put together in [`wiring`], by the same code whether it shares
//!   the process with the others or not; nothing else in the workspace knows more than its neighbours.
//! - A failed `up` leaves nothing behind: no process, no data directory that was not there, no context.
//! - A caller in this process has an identity of its own; none of the components is `system:masters`.
//!
//! # Left out, compared with kubeadm and kind
//! - Several control planes, an external etcd, joining machines: one process is one cluster.
//! - Certificates of the components that share a process with the API server: they need none. `minik8s kubeconfig --user`
//!   signs those of components that run on their own.

pub mod bench;
pub mod cli;
pub mod cluster;
pub mod cluster_info;
pub mod components;
pub mod control;
pub mod home;
pub mod kubeconfig;
pub mod logs;
pub mod network;
pub mod node;
pub mod pki;
pub mod safeguards;
pub mod simulation;
pub mod wiring;
