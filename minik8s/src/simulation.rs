//! A whole cluster in one thread and in virtual time: the same wiring as `minik8s up`, without disk, sockets and waiting.
//!
//! Time stands still while anything can be done, and jumps to the next timer when nothing can: five minutes of tolerating
//! a dead node take milliseconds. Time and random numbers come from the seed; the order in which tasks of one moment run
//! does not everywhere yet, so two runs of a seed are alike and not always the same.
//!
//! ```
//! use k8s_openapi::api::core::v1::Node;
//!
//! minik8s::simulation::run(7, 3, |cluster| async move {
//!     let nodes = cluster.admin().all::<Node>().list(&Default::default()).await.unwrap();
//!     assert_eq!(nodes.items.len(), 3);
//! });
//! ```

use std::path::PathBuf;
use std::sync::Arc;

use minik8s_clock::{Clock, Random};
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, ClusterConfig};
use crate::home::ClusterFile;
use crate::logs::Logs;
use crate::node;
use crate::pki::Pki;

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
    let (clock, simulation) = Clock::simulated(START.parse().expect("a constant that is a time"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .on_thread_park(move || {
            simulation.advance_to_next();
        })
        .build()
        .expect("a runtime without drivers needs nothing of the system");
    runtime.block_on(async {
        let cluster = Arc::new(start(seed, nodes, clock).await.expect("a simulated cluster starts"));
        test(cluster.clone()).await;
        cluster.shut_down().await;
    });
}

async fn start(seed: u64, nodes: usize, clock: Clock) -> anyhow::Result<Cluster> {
    let random = Random::seeded(seed);
    let pki = Pki::in_memory(&node::server_names(), &clock, &random)?;
    let mut file = ClusterFile::new("simulated", 6443, PathBuf::new(), true, Vec::new());
    while file.nodes.len() < nodes {
        file.nodes.push(node::next(&file.nodes));
    }
    let config = ClusterConfig {
        file,
        dir: None,
        listen: false,
        pki,
        logs: Logs::install(None, clock.clone()),
        clock,
        random,
        stop: CancellationToken::new(),
    };
    Cluster::start(config, &mut |_| {}).await
}
