//! The kubelet: the agent of one node, which runs the pods that are bound to it.
//!
//! It is an ordinary client of the API and an ordinary client of a container runtime, and joins the two: it makes what
//! the API wants true in the runtime, and writes what the runtime does into the API. A pod goes through it like this:
//!
//! ```text
//!   API ──► PodSource ──► PodWorker (by UID) ──► WorkQueue ──► sync(uid)
//!   manifests ──► static pods ──┘                   ▲            │ volumes, observe, plan, act
//!                                                   │            ▼
//!                     runtime ── container events ──┘      CRI: sandbox, images, containers
//!                     probes ── verdicts ───────────┘            │
//!                     ConfigMaps, Secrets ── changes ┘           ▼
//!                                                          status ──► API (patch), events
//! ```
//!
//! # Reading order
//! 1. [`config`] and [`kubelet`]: what a kubelet is given, its loops.
//! 2. [`source`], `worker`, `sync`: from a pod in the API to one attempt at it.
//! 3. [`runtime`], [`plan`], [`status`], [`backoff`]: the pure middle. What the runtime has, what to do, what to say.
//! 4. `observe`, `start`, `terminate`, `images`, `container_config`, `env`, `env_file`, `downward`,
//!    `resources`, `runtime_class`, `volumes`, `objects`, `tokens`, `certificates`: the hands.
//! 5. `probe`, `hooks`: what containers are asked. `pleg`: what the runtime says by itself.
//!    `log_rotation`: what containers say too much.
//! 6. [`allocation`], `resize`, [`resizing`], `actuate`: what pods have of the node, and how that changes while they run.
//! 7. `node`: the Node and its lease. `static_pods`: pods without an API. `admission`, `sysctl`, `unsupported`: refusals.
//! 8. [`server`]: logs, exec, attach, port-forward, stats.
//!
//! # Invariants
//! - Syncs of one pod never overlap; the work queue sees to that. Every sync decides from what the runtime says at that
//!   moment, never from what an earlier sync did. So a new kubelet adopts what an old one left running.
//! - [`plan::plan`] and [`status::status`] are pure: no clock, no runtime, no API.
//! - An idle pod costs a record: no task, no timer, no request. Only probes, back-offs and tokens wake a pod by time.
//! - A pod leaves the API only after all its processes have ended, and all its files are gone.
//! - Static pods run whether the API is there or not.
//! - A Pod field that is not acted on is refused by name (`unsupported`), never ignored.
//!
//! # Left out, compared with Kubernetes
//! Eviction under pressure, image garbage collection, compressed logs, device plugins, dynamic resources,
//! volumes other than those in `volumes`, unsafe sysctls, user namespaces, rules that restart all containers, RSA keys for
//! pod certificates, checkpointing, cgroups of pods and of QoS classes (what is said of a pod as a whole is what its cgroup
//! would say), `memory.high` and its like, preemption of other pods for a critical one. TLS and the authentication of the
//! HTTP API are of those who listen: [`server::questions`] says what they have to ask.

mod actuate;
mod admission;
pub mod allocation;
pub mod backoff;
mod certificates;
pub mod config;
mod container_config;
mod downward;
mod env;
mod env_file;
pub mod error;
mod hooks;
mod image_name;
mod images;
pub mod kubelet;
mod log_rotation;
pub mod network;
mod node;
mod objects;
mod observe;
pub mod plan;
mod pleg;
mod probe;
mod resize;
pub mod resizing;
mod resources;
pub mod runtime;
mod runtime_class;
pub mod server;
pub mod source;
pub mod spec;
mod start;
mod static_pods;
pub mod status;
mod status_patch;
mod sync;
mod sysctl;
mod terminate;
mod tokens;
mod unsupported;
mod volumes;
pub mod words;
mod worker;

pub use config::{Capacity, KUBELET_PORT, KUBELET_VERSION, KubeletConfig, Machine, ManifestFolder};
pub use error::{Error, Result};
pub use kubelet::Kubelet;
pub use network::PodNetwork;
pub use source::{InformerPodSource, PodHandler, PodSource};
