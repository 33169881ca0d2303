//! CRI servers: simulated containers.
//!
//! [`SimRuntime`] answers every call a kubelet makes as containerd would, but a container is a few kilobytes: a simulated
//! program (an async function on the cluster's clock) in a virtual file system, with a real log, real exit codes, real
//! signals and counted memory. It needs no privilege, runs on every operating system, and an idle container has no timer.
//!
//! ```text
//!  minik8s_cri::Client ──► service/   the CRI calls
//!                             │
//!                          SimRuntime ── sandbox (address, ports) ── container (state machine, log, exit)
//!                             │                                          │ runs
//!                 image/ ◄────┘                                       process/  what a program is given
//!        names, profiles, store                                          │
//!                                       programs/  servers as data ◄─────┼─────► shell/ + commands/
//!                                                                     fs/  image layers, writable layer, volumes
//! ```
//!
//! Reading order: [`SimRuntime`] and [`SimConfig`], `container` (one container from create to exit), [`process`] (what a
//! [`process::Program`] sees), [`fs`], [`image`] (profiles are data, in `profiles/*.yaml`), [`programs`], [`shell`] and
//! [`commands`], `streaming` (exec, attach).
//!
//! A new image is a row in `profiles/`. A new command is a function in `commands/` and a row in its table.
//!
//! # Invariants
//! - A container is `Created`, `Running`, `Exited`, in this order, and each change is an event in the same order.
//! - All waiting is on the injected clock; a container that does nothing is one parked task.
//! - When a container's first process ends, no other process of it lives on.
//! - What a program is, is decided by the file at its path: containers without a shell have none.
//! - A loop that never waits is charged processor time, so it cannot starve the process it is simulated in.
//!
//! # Left out, compared with a real runtime
//! File ownership and permissions (everything runs as if it were root, except that `id` tells who it is); cgroup throttling;
//! user namespaces, devices, seccomp, AppArmor and SELinux (accepted, without effect); checkpoints; SPDY, so port forwarding;
//! SCTP; machine code: what is not simulated says so.

pub mod commands;
mod container;
mod error;
mod events;
pub mod fs;
pub mod image;
mod ipam;
mod log;
mod network;
mod pattern;
pub mod process;
pub mod programs;
mod sandbox;
mod service;
pub mod shell;
mod sim_runtime;
mod stats;
mod streaming;

pub use error::{Error, Result};
pub use network::{
    Connection, LISTEN_BACKLOG, Listener, Network, PodNetwork, Record, RecordData, RecordType, ResolveError,
    UDP_DATAGRAM_BYTES, UDP_QUEUE_DATAGRAMS, UdpFlow, UdpListener, Unreachable,
};
pub use sim_runtime::{SimConfig, SimRuntime};
