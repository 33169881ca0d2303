//! How many 1 KiB puts a second a store commits, at several numbers of writers in flight.
//!
//! `cargo run --release -p minik8s-store --example load [DIRECTORY] [SECONDS]`

use anyhow::Result;
use bytes::Bytes;
use minik8s_clock::{Clock, Random};
use minik8s_store::{MemoryStore, RaftOptions, RaftStore, Store, Txn};
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

const IN_FLIGHT: [u64; 5] = [1, 8, 32, 64, 256];
const VALUE_BYTES: usize = 1024;
/// Each writer updates keys of its own, so that the state stays small and the log is trimmed.
const KEYS_PER_WRITER: u64 = 100;

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().map_or_else(|| std::env::temp_dir().join("minik8s-store-load"), PathBuf::from);
    let seconds = Duration::from_secs_f64(arguments.next().as_deref().unwrap_or("3").parse()?);
    let clock = Clock::real();

    println!("{:<10} {:>9} {:>12} {:>8} {:>10}", "engine", "in flight", "committed/s", "ratio", "mean wait");
    measure("memory", MemoryStore::new(clock.clone()), &clock, seconds).await?;
    let open = || RaftStore::open(&dir, clock.clone(), Random::from_os(), RaftOptions::default());
    let store = open().await?;
    measure("raft", store.clone(), &clock, seconds).await?;
    println!("{:#?}", store.status());
    store.shutdown().await;
    drop(store);
    let started = clock.monotonic();
    let store = open().await?;
    println!("opened again in {:?} with {} keys", clock.monotonic() - started, store.status().keys);
    store.shutdown().await;
    Ok(())
}

/// Prints a line for each number of writers; the ratio is to a single writer.
async fn measure(engine: &str, store: Arc<dyn Store>, clock: &Clock, duration: Duration) -> Result<()> {
    let value = Bytes::from(vec![7; VALUE_BYTES]);
    let mut alone = None;
    for writers in IN_FLIGHT {
        let committed = Arc::new(AtomicU64::new(0));
        let started = clock.monotonic();
        let deadline = started + duration;
        let tasks: Vec<_> = (0..writers)
            .map(|writer| {
                let (store, clock, value, committed) = (store.clone(), clock.clone(), value.clone(), committed.clone());
                tokio::spawn(async move {
                    for n in 0.. {
                        if clock.monotonic() >= deadline {
                            break;
                        }
                        let key = format!("/registry/core/configmaps/w{writer}/c{}", n % KEYS_PER_WRITER);
                        store.commit(Txn::put(key, value.clone())).await?;
                        committed.fetch_add(1, Ordering::Relaxed);
                        // The memory engine never waits by itself.
                        tokio::task::consume_budget().await;
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        for task in tasks {
            task.await??;
        }
        let count = committed.load(Ordering::Relaxed);
        let elapsed = clock.monotonic() - started;
        let rate = count as f64 / elapsed.as_secs_f64();
        let ratio = rate / *alone.get_or_insert(rate);
        let wait = elapsed.mul_f64(writers as f64 / count as f64);
        println!("{engine:<10} {writers:>9} {rate:>12.0} {ratio:>8.1} {wait:>10.1?}");
    }
    Ok(())
}
