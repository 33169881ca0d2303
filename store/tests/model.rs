//! Random commands against a naive model: every revision a whole map. Seeds are fixed, so that a
//! failure replays.

use bytes::Bytes;
use minik8s_clock::{Clock, Random};
use minik8s_store::*;
use std::{collections::BTreeMap, path::Path, sync::Arc};

/// What a store is: the map of each revision, and what changed.
struct Model {
    states: BTreeMap<Revision, BTreeMap<String, KeyValue>>,
    compacted: Revision,
}

impl Model {
    fn new() -> Model {
        Model { states: [(INITIAL_REVISION, BTreeMap::new())].into(), compacted: INITIAL_REVISION }
    }

    fn revision(&self) -> Revision {
        *self.states.last_key_value().unwrap().0
    }

    fn now(&self) -> &BTreeMap<String, KeyValue> {
        self.states.last_key_value().unwrap().1
    }

    fn commit(&mut self, txn: &Txn) -> TxnResponse {
        let holds = |condition: &Condition| match condition {
            Condition::Absent { key } => !self.now().contains_key(&**key),
            Condition::ModRevision { key, revision } => {
                self.now().get(&**key).is_some_and(|kv| kv.mod_revision == *revision)
            }
        };
        if !txn.conditions.iter().all(holds) {
            let current = txn.conditions.iter().map(|condition| self.now().get(&**condition.key()).cloned());
            return TxnResponse::Conflict { revision: self.revision(), current: current.collect() };
        }
        let previous = txn.operations.iter().map(|operation| self.now().get(operation.key()).cloned()).collect();
        let (mut next, revision) = (self.now().clone(), self.revision() + 1);
        for operation in &txn.operations {
            match operation {
                Operation::Put { key, value, lease } => {
                    let create_revision = next.get(&**key).map_or(revision, |kv| kv.create_revision);
                    let kv = KeyValue {
                        key: key.clone(),
                        value: value.clone(),
                        create_revision,
                        mod_revision: revision,
                        lease: *lease,
                    };
                    next.insert(key.to_string(), kv);
                }
                Operation::Delete { key } => drop(next.remove(&**key)),
            }
        }
        if next != *self.now() {
            self.states.insert(revision, next);
        }
        TxnResponse::Committed { revision: self.revision(), previous }
    }

    fn range(&self, range: &Range) -> Result<RangeResponse> {
        let revision = range.at.unwrap_or(self.revision());
        if revision < self.compacted {
            return Err(Error::Compacted { requested: revision, compacted: self.compacted });
        }
        let Some(state) = self.states.get(&revision) else {
            return Err(Error::FutureRevision { requested: revision, current: self.revision() });
        };
        let from = range.from.clone().unwrap_or_default();
        let all: Vec<KeyValue> =
            state.values().filter(|kv| kv.key.starts_with(&range.prefix) && *kv.key >= *from).cloned().collect();
        let limit = if range.limit == 0 { all.len() } else { range.limit.min(all.len()) };
        Ok(RangeResponse {
            key_values: all[..limit].to_vec(),
            revision,
            more: limit < all.len(),
            count: range.count.then_some(all.len() as u64),
        })
    }

    /// The changes after a revision, by key within each.
    fn events(&self, prefix: &str, after: Revision) -> Vec<Vec<(EventKind, KeyValue, Option<KeyValue>)>> {
        let mut batches = Vec::new();
        for revision in after + 1..=self.revision() {
            let (before, now) = (&self.states[&(revision - 1)], &self.states[&revision]);
            let mut batch = Vec::new();
            for kv in now.values().filter(|kv| kv.mod_revision == revision) {
                batch.push((EventKind::Put, kv.clone(), before.get(&*kv.key).cloned()));
            }
            for kv in before.values().filter(|kv| !now.contains_key(&*kv.key)) {
                let gone = KeyValue { value: Bytes::new(), mod_revision: revision, lease: None, ..kv.clone() };
                batch.push((EventKind::Delete, gone, Some(kv.clone())));
            }
            batch.retain(|(_, kv, _)| kv.key.starts_with(prefix));
            batch.sort_by(|(_, one, _), (_, other, _)| one.key.cmp(&other.key));
            if !batch.is_empty() {
                batches.push(batch);
            }
        }
        batches
    }
}

/// Makes commands over a few keys, so that they meet.
struct Commands(Random);

impl Commands {
    fn key(&self) -> Arc<str> {
        format!("/{}/{}", ["a", "b"][self.0.below(2) as usize], self.0.below(5)).into()
    }

    fn value(&self) -> Bytes {
        let length = [0, 1, 10, 300, 9000][self.0.below(5) as usize];
        vec![b'a' + self.0.below(26) as u8; length].into()
    }

    fn txn(&self, model: &Model) -> Txn {
        let mut txn = Txn::default();
        for _ in 0..self.0.below(3) {
            let key = self.key();
            let current = model.now().get(&*key).map_or(7, |kv| kv.mod_revision);
            txn.conditions.push(match self.0.below(6) {
                0 => Condition::Absent { key },
                1 => Condition::ModRevision { key, revision: current + 1 },
                _ => Condition::ModRevision { key, revision: current },
            });
        }
        for _ in 0..self.0.below(4) {
            let key = self.key();
            if txn.operations.iter().all(|operation| operation.key() != &*key) {
                txn.operations.push(match self.0.below(3) {
                    0 => Operation::Delete { key },
                    _ => Operation::Put { key, value: self.value(), lease: None },
                });
            }
        }
        txn
    }

    fn range(&self, model: &Model) -> Range {
        let past = model.revision() + 2 - self.0.below(model.revision().min(20) + 2);
        Range {
            prefix: ["", "/", "/a/", "/b/3"][self.0.below(4) as usize].into(),
            from: (self.0.below(3) == 0).then(|| self.key().to_string()),
            at: (self.0.below(2) == 0).then_some(past),
            limit: self.0.below(4) as usize,
            count: self.0.below(2) == 0,
        }
    }
}

/// Everything the watch holds.
async fn drain(watch: &mut Watch) -> Vec<Vec<(EventKind, KeyValue, Option<KeyValue>)>> {
    watch.progress_requester().request();
    let mut batches = Vec::new();
    while let WatchMessage::Events(events) = watch.recv().await.unwrap() {
        let mut batch: Vec<_> = events.iter().map(|event| (event.kind, event.kv.clone(), event.prev.clone())).collect();
        batch.sort_by(|(_, one, _), (_, other, _)| one.key.cmp(&other.key));
        batches.push(batch);
    }
    batches
}

async fn check_everything(store: &dyn Store, model: &Model) {
    assert_eq!((store.revision(), store.compacted()), (model.revision(), model.compacted));
    for at in model.compacted..=model.revision() {
        let range = Range::prefix("").at(at);
        assert_eq!(store.range(range.clone()).await, model.range(&range), "at {at}");
    }
    let mut watch = store.watch("/a/", model.compacted).unwrap();
    assert_eq!(drain(&mut watch).await, model.events("/a/", model.compacted));
    let (keys, bytes) =
        model.now().values().fold((0, 0), |(keys, bytes), kv| (keys + 1, bytes + kv.key.len() + kv.value.len()));
    let status = store.status();
    assert_eq!((status.keys, status.bytes), (keys, bytes));
}

/// One random command to both; the store may be exchanged by `restart` between commands.
async fn step(store: &Arc<dyn Store>, model: &mut Model, commands: &Commands, watch: &mut (Watch, Revision)) {
    match commands.0.below(20) {
        0 => {
            let at = model.compacted + commands.0.below(model.revision() - model.compacted + 1);
            store.compact(at).await.unwrap();
            model.compacted = at;
        }
        1..6 => {
            let range = commands.range(model);
            assert_eq!(store.range(range.clone()).await, model.range(&range), "{range:?}");
        }
        6 => {
            assert_eq!(drain(&mut watch.0).await, model.events(watch.0.prefix(), watch.1));
            watch.1 = model.revision();
        }
        7 => {
            let after = model.compacted + commands.0.below(model.revision() - model.compacted + 1);
            *watch = (store.watch(["", "/b/"][commands.0.below(2) as usize], after).unwrap(), after);
        }
        _ => {
            let txn = commands.txn(model);
            let expected = model.commit(&txn);
            assert_eq!(store.commit(txn).await.unwrap(), expected);
            assert_eq!(store.read_index().await.unwrap(), model.revision());
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

fn clock() -> Clock {
    Clock::simulated("2026-01-01T00:00:00Z".parse().unwrap()).0
}

#[test]
fn memory_is_the_model() {
    for seed in 0..20 {
        runtime().block_on(async {
            let (commands, mut model) = (Commands(Random::seeded(seed)), Model::new());
            let mut store: Arc<dyn Store> = MemoryStore::new(clock());
            let mut watch = (store.watch("", INITIAL_REVISION).unwrap(), INITIAL_REVISION);
            for _ in 0..300 {
                step(&store, &mut model, &commands, &mut watch).await;
                // A snapshot, through its file form, is the same store.
                if commands.0.below(100) == 0 {
                    let mut file = Vec::new();
                    store.snapshot().await.unwrap().write_to(&mut file).unwrap();
                    let snapshot = Snapshot::read_from(&file[..], Path::new("file")).unwrap();
                    store = MemoryStore::restore(&snapshot, clock());
                    watch = (store.watch("", model.revision()).unwrap(), model.revision());
                }
            }
            check_everything(&*store, &model).await;
        });
    }
}

async fn open(dir: &Path) -> Result<Arc<dyn Store>> {
    // A log that is replaced by a snapshot every few commands.
    let options = RaftOptions { snapshot_log_bytes: 20_000, ..RaftOptions::default() };
    Ok(RaftStore::open(dir, clock(), Random::seeded(1), options).await?)
}

#[test]
fn raft_is_the_model_through_crashes() {
    for seed in 0..4 {
        runtime().block_on(async {
            let (commands, mut model) = (Commands(Random::seeded(seed)), Model::new());
            let folder = tempfile::tempdir().unwrap();
            let mut dir = folder.path().join("0");
            let mut store = open(&dir).await.unwrap();
            let mut watch = (store.watch("", INITIAL_REVISION).unwrap(), INITIAL_REVISION);
            for turn in 1..400 {
                step(&store, &mut model, &commands, &mut watch).await;
                if commands.0.below(30) > 0 {
                    continue;
                }
                if commands.0.below(2) == 0 {
                    store.shutdown().await;
                    assert_eq!(store.commit(Txn::put("/late", Bytes::new())).await, Err(Error::Closed));
                    drop(store);
                } else {
                    // As after kill -9: the files as they are now, whatever the thread is doing to
                    // them.
                    let crashed = folder.path().join(turn.to_string());
                    copy_folder(&dir, &crashed);
                    dir = crashed;
                    drop(store);
                }
                store = open(&dir).await.unwrap();
                check_everything(&*store, &model).await;
                watch = (store.watch("", model.revision()).unwrap(), model.revision());
            }
            check_everything(&*store, &model).await;
            // And restored into another directory.
            let restored = folder.path().join("restored");
            RaftStore::restore(&restored, &store.snapshot().await.unwrap(), &RaftOptions::default()).unwrap();
            check_everything(&*open(&restored).await.unwrap(), &model).await;
        });
    }
}

/// Bytes of the closed store are flipped, or its end is missing: it is refused, or whole.
#[test]
fn damaged_files_are_refused_or_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (original, damaged) = (folder.path().join("original"), folder.path().join("damaged"));
    runtime().block_on(async {
        let (commands, mut model) = (Commands(Random::seeded(1)), Model::new());
        let store = open(&original).await.unwrap();
        let mut watch = (store.watch("", INITIAL_REVISION).unwrap(), INITIAL_REVISION);
        for _ in 0..200 {
            step(&store, &mut model, &commands, &mut watch).await;
        }
        store.shutdown().await;
        drop((store, watch));
        let random = Random::seeded(2);
        let mut refused = 0;
        for round in 0..60 {
            let _ = std::fs::remove_dir_all(&damaged);
            copy_folder(&original, &damaged);
            let file = damaged.join(if round % 2 == 0 { "log/00000000000000000001" } else { "raft/db" });
            let mut bytes = std::fs::read(&file).unwrap();
            let written = bytes.iter().rposition(|byte| *byte != 0).unwrap();
            let place = random.below(written as u64) as usize;
            if round % 4 < 2 {
                bytes.truncate(place);
            } else {
                bytes[place] ^= 1 << random.below(8);
            }
            std::fs::write(&file, bytes).unwrap();
            match open(&damaged).await {
                Ok(store) => check_everything(&*store, &model).await,
                Err(Error::Damaged { .. } | Error::Io { .. }) => refused += 1,
                Err(other) => panic!("round {round}: {other}"),
            }
        }
        assert!(refused > 10, "only {refused} of 60 were noticed");
    });
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    let mut paths: Vec<_> = std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()).collect();
    // What was acknowledged comes before the log by name too: a note may be older than the log, never newer.
    paths.sort();
    for path in paths {
        let copy = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &copy);
        } else {
            std::fs::copy(&path, &copy).unwrap();
        }
    }
}
