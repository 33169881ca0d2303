//! What a busy cluster does for weeks, in a row: lease renewals, and events that expire. Neither memory nor disk follow
//! the number of writes.
//!
//! `MINIK8S_SOAK=1 cargo test --release -p minik8s-store --test soak` does a million of each; without, a few thousand,
//! with bounds as much lower.

use bytes::Bytes;
use minik8s_clock::{Clock, Random};
use minik8s_store::*;
use std::{env, path::Path, sync::Arc};

const WRITERS: u64 = 64;
/// Leases of nodes and controllers, renewed over and over.
const LEASES: u64 = 100;
const LEASE_BYTES: usize = 400;
const EVENT_BYTES: usize = 900;
/// Events that are there at once; as many expire as are written.
const LIVE_EVENTS: u64 = 2_000;
/// The first half fills the bounds, what the second half adds is growth.
const TOLERANCE_PERCENT: u64 = 10;
/// What the short run may have on disk: its state is 2 MB, its log up to 2 MB more, and sled keeps room for several
/// rounds of both. What it writes in all is more than twice as much.
const SHORT_DISK_BYTES: u64 = 32 << 20;

/// How much is written, and with which bounds.
struct Size {
    writes: u64,
    options: RaftOptions,
    /// None where the disk is compared with what it was at the half.
    max_disk_bytes: Option<u64>,
}

impl Size {
    fn asked_for() -> Self {
        if env::var_os("MINIK8S_SOAK").is_some() {
            return Self { writes: 1_000_000, options: RaftOptions::default(), max_disk_bytes: None };
        }
        let retention = Retention { events: 1_000, bytes: 1 << 20, ..Retention::default() };
        let options = RaftOptions { retention, snapshot_log_bytes: 512 << 10, ..RaftOptions::default() };
        Self { writes: 20_000, options, max_disk_bytes: Some(SHORT_DISK_BYTES) }
    }
}

/// What a process takes.
#[derive(Clone, Copy, Debug)]
struct Usage {
    disk_bytes: u64,
    resident_bytes: Option<u64>,
}

fn usage(store: &RaftStore) -> Usage {
    Usage { disk_bytes: store.status().disk_bytes, resident_bytes: resident_bytes() }
}

/// How much memory this process has, where the operating system tells it simply.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

async fn open(dir: &Path, options: &RaftOptions) -> Arc<RaftStore> {
    RaftStore::open(dir, Clock::real(), Random::seeded(1), options.clone()).await.unwrap()
}

/// Does the writes from `begin` to `end`, many in flight: of each pair a renewal of a lease and an event in the place of
/// an old one.
async fn write(store: &Arc<RaftStore>, begin: u64, end: u64) {
    let (renewal, event) = (Bytes::from(vec![b'r'; LEASE_BYTES]), Bytes::from(vec![b'e'; EVENT_BYTES]));
    let writer = |first: u64| {
        let (store, renewal, event) = (store.clone(), renewal.clone(), event.clone());
        tokio::spawn(async move {
            for n in (begin + first..end).step_by(WRITERS as usize) {
                let lease = format!("/registry/coordination.k8s.io/leases/kube-node-lease/node-{}", n % LEASES);
                store.commit(Txn::put(lease, renewal.clone())).await.unwrap();
                let name = |n| format!("/registry/events.k8s.io/events/default/event-{n}");
                store.commit(Txn::put(name(n), event.clone())).await.unwrap();
                if let Some(expired) = n.checked_sub(LIVE_EVENTS) {
                    let delete = Operation::Delete { key: name(expired).into() };
                    store.commit(Txn { conditions: Vec::new(), operations: vec![delete] }).await.unwrap();
                }
            }
        })
    };
    for task in (0..WRITERS).map(writer).collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_memory_nor_disk_follow_the_number_of_writes() {
    let Size { writes, options, max_disk_bytes } = Size::asked_for();
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &options).await;
    write(&store, 0, writes / 2).await;
    let half = usage(&store);
    write(&store, writes / 2, writes).await;
    let whole = usage(&store);
    let status = store.status();
    println!("{writes} renewals and events: {half:?} at the half, {whole:?} at the end; {status:?}");

    assert_eq!(status.keys as u64, LEASES + LIVE_EVENTS);
    // Those on their way when compaction was proposed come on top.
    let slack = 2 * WRITERS as usize;
    assert!(status.history_events <= options.retention.events + slack, "{status:?}");
    assert!(status.history_bytes <= options.retention.bytes + slack * EVENT_BYTES, "{status:?}");
    let flat = |before: u64, after: u64| after * 100 <= before * (100 + TOLERANCE_PERCENT);
    let small = max_disk_bytes.map_or(flat(half.disk_bytes, whole.disk_bytes), |max| whole.disk_bytes <= max);
    assert!(small, "the disk went from {half:?} to {whole:?}");
    if let (Some(before), Some(after)) = (half.resident_bytes, whole.resident_bytes) {
        assert!(flat(before, after), "memory went from {half:?} to {whole:?}");
    }

    // And it is still all there.
    store.shutdown().await;
    drop(store);
    let store = open(dir.path(), &options).await;
    assert_eq!(store.status().keys as u64, LEASES + LIVE_EVENTS);
    store.compact(store.revision()).await.unwrap();
    assert!(store.status().history_events <= 1);
}
