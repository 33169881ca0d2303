//! A whole cluster in one thread and in virtual time: the same wiring as `minik8s up`, without disk, sockets and waiting.
//!
//! Time stands still while anything can be done, and jumps to the next timer when nothing can: five minutes of tolerating
//! a dead node take milliseconds. Time and random numbers come from the seed, tasks run in the order in which they are
//! woken, and nothing that is walked through is ordered by chance: the same seed takes the same course, to the byte, in
//! this process and in another. [`record`] gives a run's course, to be compared.
//!
//! ```
//! use k8s_openapi::api::core::v1::Node;
//!
//! minik8s::simulation::run(7, 3, |cluster| async move {
//!     let nodes = cluster.admin().all::<Node>().list(&Default::default()).await.unwrap();
//!     assert_eq!(nodes.items.len(), 3);
//! });
//! ```
//!
//! Outside of the seed's reach are only the signatures of ServiceAccount tokens, which the library makes with the
//! operating system's randomness: they are in requests and in the files of pods, and no object holds them.

mod course;

use std::path::PathBuf;
use std::sync::Arc;

use minik8s_clock::{Clock, Random};
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, ClusterConfig};
use crate::home::ClusterFile;
use crate::logs::Logs;
use crate::node;
use crate::pki::Pki;
use course::Recorder;

pub use course::{Change, Course};

/// When simulated clusters begin.
const START: &str = "2026-01-01T00:00:00Z";

/// Starts a cluster of `nodes` nodes, runs `test` on it, and ends it.
///
/// # Panics
/// Where the cluster does not start, or the test panics.
pub fn run<F, Fut>(seed: u64, nodes: usize, test: F)
where
    F: FnOnce(Arc<Cluster>) -> Fut,
    Fut: Future<Output = ()>,
{
    simulate(async |clock, logs| {
        let cluster = start(seed, nodes, clock, logs).await;
        test(cluster.clone()).await;
        cluster.shut_down().await;
    });
}

/// As [`run`], and gives all that happened, from the first change of the store to the last.
///
/// # Panics
/// As [`run`].
pub fn record<F, Fut>(seed: u64, nodes: usize, test: F) -> Course
where
    F: FnOnce(Arc<Cluster>) -> Fut,
    Fut: Future<Output = ()>,
{
    simulate(async |clock, logs| {
        let cluster = start(seed, nodes, clock, logs).await;
        let recorder = Recorder::start(cluster.store(), cluster.clock().clone());
        test(cluster.clone()).await;
        cluster.shut_down().await;
        recorder.finish().await
    })
}

/// Runs `scene` in virtual time.
fn simulate<T>(scene: impl AsyncFnOnce(Clock, Logs) -> T) -> T {
    let (clock, simulation) = Clock::simulated(START.parse().expect("a constant that is a time"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .on_thread_park(move || {
            simulation.advance_to_next();
        })
        .build()
        .expect("a runtime without drivers needs nothing of the system");
    let (logs, _guard) = Logs::of_thread(clock.clone());
    runtime.block_on(scene(clock, logs))
}

async fn start(seed: u64, nodes: usize, clock: Clock, logs: Logs) -> Arc<Cluster> {
    let random = Random::seeded(seed);
    let pki = Pki::in_memory(&node::server_names(), &clock, &random).expect("certificates need nothing of the system");
    let mut file = ClusterFile::new("simulated", 6443, PathBuf::new(), true, Vec::new());
    while file.nodes.len() < nodes {
        file.nodes.push(node::next(&file.nodes));
    }
    let config =
        ClusterConfig { file, dir: None, listen: false, pki, logs, clock, random, stop: CancellationToken::new() };
    Arc::new(Cluster::start(config, &mut |_| {}).await.expect("a simulated cluster starts"))
}
