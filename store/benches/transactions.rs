//! Transactions: in memory, and with a log that is on disk before they are answered.
//!
//! `cargo bench -p minik8s-store` compares with the run before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use minik8s_clock::{Clock, Random};
use minik8s_store::{MemoryStore, RaftOptions, RaftStore, Range, Store, Txn};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const VALUE_BYTES: usize = 1024;
const LISTED: usize = 5_000;

/// Puts `count` values at once, under keys that repeat after a while, so that the state stays as large as it is.
async fn put(store: &Arc<dyn Store>, number: &AtomicU64, count: u64) {
    const KEYS: u64 = 10_000;
    let mut writers = JoinSet::new();
    for _ in 0..count {
        let key = format!("/registry/configmaps/default/c{}", number.fetch_add(1, Ordering::Relaxed) % KEYS);
        let store = store.clone();
        writers.spawn(async move { store.commit(Txn::put(key, Bytes::from(vec![b'x'; VALUE_BYTES]))).await });
    }
    while let Some(written) = writers.join_next().await {
        written.expect("a writer").expect("a write");
    }
}

fn transactions(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    // The stores' own tasks are spawned in it.
    let _entered = runtime.enter();
    let dir = tempfile::tempdir().expect("a folder");
    let durable = RaftStore::open(dir.path(), Clock::real(), Random::seeded(1), RaftOptions::default());
    let durable: Arc<dyn Store> = runtime.block_on(durable).expect("a store");
    let memory: Arc<dyn Store> = MemoryStore::new(Clock::real());
    let number = AtomicU64::new(0);

    let mut group = criterion.benchmark_group("put 1 KiB");
    for (name, store) in [("in memory", &memory), ("on disk", &durable)] {
        for count in [1, 64] {
            group.throughput(Throughput::Elements(count));
            group.bench_function(BenchmarkId::new(name, count), |bench| {
                bench.iter(|| runtime.block_on(put(store, &number, count)));
            });
        }
    }
    group.finish();

    runtime.block_on(put(&memory, &number, LISTED as u64 * 2));
    criterion.bench_function("range over 5,000 keys", |bench| {
        let range = Range::prefix("/registry/configmaps/").limit(LISTED);
        bench.iter(|| runtime.block_on(memory.range(range.clone())).expect("a range"));
    });
    criterion.bench_function("get one key", |bench| {
        bench.iter(|| runtime.block_on(memory.get("/registry/configmaps/default/c1")).expect("a read"));
    });
    runtime.block_on(durable.shutdown());
}

criterion_group!(benches, transactions);
criterion_main!(benches);
