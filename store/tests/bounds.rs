//! What happens at the edges: full queues, slow watchers, long histories, growing logs, wrong
//! directories.

use bytes::Bytes;
use minik8s_clock::{Clock, Random};
use minik8s_store::*;
use std::{fs, path::Path, sync::Arc, time::Duration};

fn clock() -> Clock {
    Clock::simulated("2026-01-01T00:00:00Z".parse().unwrap()).0
}

async fn open_with(dir: &Path, options: RaftOptions) -> Result<Arc<RaftStore>> {
    RaftStore::open(dir, clock(), Random::seeded(1), options).await
}

async fn open(dir: &Path) -> Result<Arc<RaftStore>> {
    open_with(dir, RaftOptions::default()).await
}

/// Puts from many tasks at once; returns when all are acknowledged.
async fn put_concurrently(store: &Arc<RaftStore>, writers: u64, puts: u64, bytes: usize) {
    let value = Bytes::from(vec![b'x'; bytes]);
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let (store, value) = (store.clone(), value.clone());
            tokio::spawn(async move {
                for n in 0..puts {
                    store.commit(Txn::put(format!("/{writer}/{}", n % 5), value.clone())).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_watcher_that_does_not_keep_up_is_closed_and_others_are_not() {
    let store = MemoryStore::new(clock());
    let mut slow = store.watch("/", INITIAL_REVISION).unwrap();
    let mut elsewhere = store.watch("/other", INITIAL_REVISION).unwrap();
    for _ in 0..=WATCH_CAPACITY {
        store.commit(Txn::put("/a", Bytes::new())).await.unwrap();
    }
    for n in 0..WATCH_CAPACITY as u64 {
        let WatchMessage::Events(events) = slow.recv().await.unwrap() else { panic!() };
        assert_eq!(events[0].revision(), INITIAL_REVISION + 1 + n);
    }
    assert_eq!(slow.recv().await, Err(Error::WatchLagged { capacity: WATCH_CAPACITY }));
    assert_eq!(store.status().watches, 1);
    elsewhere.progress_requester().request();
    assert_eq!(elsewhere.recv().await, Ok(WatchMessage::Progress(store.revision())));
}

#[tokio::test]
async fn a_transaction_has_a_size() {
    let store = MemoryStore::new(clock());
    let fits = Bytes::from(vec![b'x'; MAX_TXN_BYTES - 2]);
    let bytes = MAX_TXN_BYTES + 1;
    let refused = store.commit(Txn::put("/a", Bytes::from(vec![b'x'; bytes - 2]))).await;
    assert_eq!(refused, Err(Error::TooLarge { bytes, limit: MAX_TXN_BYTES }));
    store.commit(Txn::put("/a", fits)).await.unwrap();
}

#[tokio::test]
async fn a_watch_ends_with_its_store() {
    let store = MemoryStore::new(clock());
    let mut watch = store.watch("", INITIAL_REVISION).unwrap();
    store.commit(Txn::put("/a", Bytes::new())).await.unwrap();
    store.shutdown().await;
    assert!(matches!(watch.recv().await, Ok(WatchMessage::Events(_))));
    assert_eq!(watch.recv().await, Err(Error::Closed));
    assert_eq!(store.watch("", 2).unwrap_err(), Error::Closed);
    assert_eq!(store.commit(Txn::put("/a", Bytes::new())).await, Err(Error::Closed));
    assert!(store.get("/a").await.unwrap().is_some());
}

#[tokio::test]
async fn history_is_compacted_when_it_grows_too_long_or_too_large() {
    let retention = Retention { events: 100, bytes: 100_000, age: Duration::MAX };
    let store = MemoryStore::with_retention(clock(), retention);
    for (bytes, limit) in [(1, 100), (10_000, 10)] {
        for _ in 0..1000 {
            store.commit(Txn::put("/a", vec![0; bytes].into())).await.unwrap();
            // The housekeeper's turn.
            tokio::task::yield_now().await;
        }
        let status = store.status();
        assert!(status.history_events <= limit && status.history_events > limit / 2, "{status:?}");
        assert!(status.history_bytes <= retention.bytes, "{status:?}");
    }
}

#[tokio::test]
async fn many_writers_share_their_syncs_and_all_survive() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await.unwrap();
    put_concurrently(&store, 64, 20, 1000).await;
    assert_eq!(store.revision(), INITIAL_REVISION + 64 * 20);
    drop(store);
    let store = open(folder.path()).await.unwrap();
    assert_eq!(store.revision(), INITIAL_REVISION + 64 * 20);
    assert_eq!(store.status().keys, 64 * 5);
}

#[tokio::test]
async fn the_disk_does_not_grow_with_the_number_of_writes() {
    let folder = tempfile::tempdir().unwrap();
    let retention = Retention { events: 100, ..Retention::default() };
    let options = RaftOptions { snapshot_log_bytes: 256 << 10, retention, ..RaftOptions::default() };
    let store = open_with(folder.path(), options).await.unwrap();
    put_concurrently(&store, 32, 60, 1000).await;
    let early = store.status().disk_bytes;
    put_concurrently(&store, 32, 240, 1000).await;
    let late = store.status().disk_bytes;
    assert!(late < 2 * early.max(8 << 20), "{early} bytes became {late}");
    let blobs = fs::read_dir(folder.path().join("raft/blobs")).unwrap().count();
    assert_eq!(blobs, 0, "a page was so large that sled put it into a file that nobody syncs");
}

#[tokio::test]
async fn a_directory_has_one_owner() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("deep/in/the/woods");
    let store = open(&dir).await.unwrap();
    assert_eq!(open(&dir).await.err(), Some(Error::Locked { path: dir.clone() }));
    store.shutdown().await;
    let again = open(&dir).await.unwrap();
    drop(again);
    let other = RaftOptions { member: 2, voters: vec![2], ..RaftOptions::default() };
    assert!(matches!(open_with(&dir, other).await, Err(Error::Invalid(_))));
}

#[tokio::test]
async fn a_directory_of_somebody_else_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let foreign = folder.path().join("foreign");
    fs::create_dir_all(foreign.join("raft")).unwrap();
    fs::write(foreign.join("raft/thesis.txt"), "…").unwrap();
    assert_eq!(open(&foreign).await.err(), Some(Error::Foreign { path: foreign.clone() }));
    assert_eq!(fs::read_to_string(foreign.join("raft/thesis.txt")).unwrap(), "…");
    assert_eq!(fs::read_dir(&foreign).unwrap().count(), 1);
    // A file where the directory should be.
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(open(&file).await, Err(Error::Io { .. })));
    assert!(matches!(open(&file.join("below")).await, Err(Error::Io { .. })));
}

#[tokio::test]
async fn a_store_that_was_never_finished_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).await.unwrap());
    fs::remove_file(folder.path().join("FORMAT")).unwrap();
    fs::remove_file(folder.path().join("ACKNOWLEDGED")).unwrap();
    let store = open(folder.path()).await.unwrap();
    assert_eq!(store.revision(), INITIAL_REVISION);
}

#[tokio::test]
async fn a_snapshot_file_is_whole_or_refused() {
    let store = MemoryStore::new(clock());
    for n in 0..100 {
        store.commit(Txn::put(format!("/{n}"), vec![n; 200].into())).await.unwrap();
    }
    let mut file = Vec::new();
    store.snapshot().await.unwrap().write_to(&mut file).unwrap();
    let path = Path::new("backup");
    assert_eq!(Snapshot::read_from(&file[..], path).unwrap().revision(), store.revision());
    for length in (0..file.len()).step_by(97) {
        assert!(matches!(Snapshot::read_from(&file[..length], path), Err(Error::Damaged { .. })));
    }
    for place in (0..file.len()).step_by(89) {
        let mut flipped = file.clone();
        flipped[place] ^= 4;
        let read = Snapshot::read_from(&flipped[..], path);
        assert!(matches!(read, Err(Error::Damaged { .. } | Error::NewerFormat { .. })), "at {place}");
    }
}
