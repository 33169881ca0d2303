//! Places of requests that stay open for as long as their client wants: so many and no more. One that finds no place is
//! told to come back (429); those that have one do not notice.

use std::sync::Arc;

use minik8s_api::status::Status;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Watches at once. 5000 kubelets, each with some watches and one for each ConfigMap and Secret it mounts, fit.
pub const MAX_WATCHES: usize = 100_000;
/// Logs, execs, attaches, port-forwards, proxied requests and those for other API servers at once.
pub const MAX_TUNNELS: usize = 4_096;

/// Connections at once; one more is dropped as soon as it is accepted.
pub const MAX_CONNECTIONS: usize = 16_384;

/// When a client should come back that found no place.
const RETRY_AFTER_SECONDS: u32 = 1;

/// How much a server has at once. Requests that are handled, the sum of reads and writes, share seats by priority level;
/// those that stay open (watches, logs, streams) do not count among them.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Reads (`--max-requests-inflight`).
    pub reads: usize,
    /// Writes (`--max-mutating-requests-inflight`).
    pub writes: usize,
    /// Watches.
    pub watches: usize,
    /// Logs, execs, attaches, port-forwards and proxied requests.
    pub tunnels: usize,
    /// Connections from the network.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { reads: 400, writes: 200, watches: MAX_WATCHES, tunnels: MAX_TUNNELS, connections: MAX_CONNECTIONS }
    }
}

/// The places of a server.
#[derive(Debug)]
pub struct Places {
    watches: Arc<Semaphore>,
    tunnels: Arc<Semaphore>,
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub struct Place(#[expect(dead_code, reason = "it is held for its end")] OwnedSemaphorePermit);

impl Places {
    /// As many as a server may have.
    pub fn new(limits: &Limits) -> Places {
        let places = |count| Arc::new(Semaphore::new(count));
        Places { watches: places(limits.watches), tunnels: places(limits.tunnels) }
    }

    /// A place for a watch.
    ///
    /// # Errors
    /// 429 when all are taken.
    pub fn watch(&self) -> Result<Place, Status> {
        take(&self.watches)
    }

    /// A place for a connection that passes through to a node or a pod.
    ///
    /// # Errors
    /// 429 when all are taken.
    pub fn tunnel(&self) -> Result<Place, Status> {
        take(&self.tunnels)
    }
}

fn take(places: &Arc<Semaphore>) -> Result<Place, Status> {
    let full = |_| Status::too_many_requests("Too many requests, please try again later.", RETRY_AFTER_SECONDS);
    Arc::clone(places).try_acquire_owned().map(Place).map_err(full)
}
