//! A process that writes is killed (`kill -9`) at a random moment, again and again: what it was told to be written is
//! there, and nothing else.
//!
//! `MINIK8S_CRASH_CYCLES=1000 cargo test -p minik8s-store --test crash` kills it a thousand times; without, a few. The
//! test binary starts itself as the victim. `docs/durability.md` says what is promised; `tests/tests/e2e_crash.rs` does
//! the same to a whole cluster.

use bytes::Bytes;
use minik8s_clock::{Clock, Random};
use minik8s_store::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

const CYCLES: u64 = 6;
const CYCLES_VARIABLE: &str = "MINIK8S_CRASH_CYCLES";
/// Where the victim writes, and what each of its writers has done before.
const DIR_VARIABLE: &str = "MINIK8S_CRASH_DIR";
const DONE_VARIABLE: &str = "MINIK8S_CRASH_DONE";

const WRITERS: u64 = 8;
/// Each writer has so many keys of its own, and changes one after another.
const KEYS: u64 = 10;
/// A victim is killed after at most so many acknowledged writes.
const MAX_WRITES: u64 = 600;
/// The state is about 350 KiB; snapshots are due all the time.
const LOG_BYTES: usize = 256 << 10;
const VALUE_BYTES: u64 = 9_000;

fn options() -> RaftOptions {
    let retention = Retention { events: 2_000, ..Retention::default() };
    RaftOptions { snapshot_log_bytes: LOG_BYTES, retention, ..RaftOptions::default() }
}

async fn open(dir: &Path) -> Result<Arc<RaftStore>> {
    RaftStore::open(dir, Clock::real(), Random::seeded(1), options()).await
}

/// What a writer's n-th write does: to which key, and the new value, if it is not its removal.
fn write(writer: u64, n: u64) -> (String, Option<Bytes>) {
    let key = format!("/registry/core/configmaps/writer-{writer}/{}", n % KEYS);
    let filler = "x".repeat((n * 7919 % VALUE_BYTES) as usize);
    // No two removals of a key follow each other, so that each write makes an event.
    let removal = n > KEYS && n % 7 == 6;
    (key, (!removal).then(|| format!("{n} {filler}").into()))
}

/// What is there when a writer's first `done` writes were done.
fn contents(writer: u64, done: u64) -> BTreeMap<String, Bytes> {
    let mut contents = BTreeMap::new();
    for n in 1.max((done + 1).saturating_sub(KEYS))..=done {
        let (key, value) = write(writer, n);
        contents.extend(value.map(|value| (key, value)));
    }
    contents
}

/// A write that the victim reported.
struct Acknowledged {
    writer: u64,
    n: u64,
    revision: Revision,
}

impl Acknowledged {
    fn parse(line: &str) -> Option<Self> {
        let mut numbers = line.strip_prefix("acknowledged ")?.split(' ').map(|number| number.parse().ok());
        Some(Self { writer: numbers.next()??, n: numbers.next()??, revision: numbers.next()?? })
    }
}

/// The process that is killed. Does nothing when no other test here has started it.
#[tokio::test]
async fn victim() {
    let (Some(dir), Ok(done)) = (env::var_os(DIR_VARIABLE), env::var(DONE_VARIABLE)) else { return };
    let store = open(Path::new(&dir)).await.unwrap();
    let writers = done.split(',').zip(0..).map(|(done, writer)| {
        let (store, done) = (store.clone(), done.parse::<u64>().unwrap());
        tokio::spawn(async move {
            for n in done + 1.. {
                let (key, value) = write(writer, n);
                let txn = match value {
                    Some(value) => Txn::put(key, value),
                    None => Txn { conditions: Vec::new(), operations: vec![Operation::Delete { key: key.into() }] },
                };
                match store.commit(txn).await {
                    Ok(TxnResponse::Committed { revision, .. }) => println!("acknowledged {writer} {n} {revision}"),
                    Ok(conflict) => panic!("{conflict:?}"),
                    Err(error) => return println!("stopped {error}"),
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

/// The store, and what is known about it.
struct Crash {
    dir: tempfile::TempDir,
    random: Random,
    done: Vec<u64>,
    revision: Revision,
}

impl Crash {
    fn new(seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir, random: Random::seeded(seed), done: vec![0; WRITERS as usize], revision: INITIAL_REVISION }
    }

    fn start(&self, dir: &Path) -> Child {
        let done: Vec<String> = self.done.iter().map(u64::to_string).collect();
        let mut victim = Command::new(env::current_exe().unwrap());
        victim.args(["victim", "--exact", "--nocapture"]).stdin(Stdio::null()).stdout(Stdio::piped());
        victim.env(DIR_VARIABLE, dir).env(DONE_VARIABLE, done.join(","));
        victim.spawn().unwrap()
    }

    /// Lets a victim write, kills it after some writes, and says what it reported.
    fn kill_one(&mut self) -> Vec<Acknowledged> {
        let mut victim = self.start(self.dir.path());
        let limit = self.random.below(MAX_WRITES) as usize;
        let mut acknowledged = Vec::new();
        let mut killed = false;
        for line in BufReader::new(victim.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            assert!(!line.starts_with("stopped"), "{line}");
            acknowledged.extend(Acknowledged::parse(&line));
            if !killed && acknowledged.len() >= limit {
                // What it reported until it was gone is still in the pipe.
                victim.kill().unwrap();
                killed = true;
            }
        }
        victim.wait().unwrap();
        for Acknowledged { writer, n, revision } in &acknowledged {
            assert!(*revision > self.revision, "revision {revision} was there before");
            let done = &mut self.done[*writer as usize];
            assert_eq!(*n, *done + 1);
            *done = *n;
        }
        acknowledged
    }

    /// Every writer's keys are as its acknowledged writes left them, or one write further: the one that was on its way.
    async fn check_contents(&self, store: &RaftStore) -> Vec<u64> {
        let mut found = BTreeMap::new();
        for kv in store.range(Range::prefix("")).await.unwrap().key_values {
            assert!(kv.mod_revision <= store.revision());
            found.insert(kv.key.to_string(), kv.value);
        }
        let mut done = Vec::new();
        let mut expected = 0;
        for (writer, acknowledged) in (0..).zip(self.done.iter().copied()) {
            let matches = |done: &u64| {
                let contents = contents(writer, *done);
                let own = found.range(format!("/registry/core/configmaps/writer-{writer}/")..);
                own.take_while(|(key, _)| key.contains(&format!("/writer-{writer}/"))).eq(contents.iter())
            };
            let state = [acknowledged, acknowledged + 1].into_iter().find(matches);
            let state = state.unwrap_or_else(|| panic!("writer {writer} is not where write {acknowledged} left it"));
            expected += contents(writer, state).len();
            done.push(state);
        }
        assert_eq!(found.len(), expected, "there are keys that nobody wrote");
        done
    }

    /// A watch from a revision of the killed process tells every acknowledged write since, once and in order, or says
    /// that it cannot.
    async fn check_watch(&self, store: &RaftStore, acknowledged: &[Acknowledged]) {
        let Some(from) = acknowledged.get(acknowledged.len() / 3).map(|write| write.revision) else { return };
        let mut watch = match store.watch("", from) {
            Ok(watch) => watch,
            Err(Error::Compacted { compacted, .. }) => return assert!(compacted > from),
            Err(error) => panic!("{error}"),
        };
        watch.progress_requester().request();
        let mut last = from;
        let mut told = BTreeSet::new();
        while let WatchMessage::Events(events) = watch.recv().await.unwrap() {
            for event in events.iter() {
                assert!(event.revision() > last, "{} after {last}", event.revision());
                last = event.revision();
                told.insert((last, event.kv.key.to_string()));
            }
        }
        assert_eq!(last, store.revision());
        for Acknowledged { writer, n, revision } in acknowledged.iter().filter(|write| write.revision > from) {
            assert!(told.contains(&(*revision, write(*writer, *n).0)), "revision {revision} was not told");
        }
    }

    async fn check(&mut self, acknowledged: &[Acknowledged]) {
        let store = open(self.dir.path()).await.unwrap();
        let newest = acknowledged.iter().map(|write| write.revision).max().unwrap_or_default();
        assert!(store.revision() >= newest.max(self.revision), "the store went back to {}", store.revision());
        self.done = self.check_contents(&store).await;
        self.check_watch(&store, acknowledged).await;
        self.revision = store.revision();
        // What is noted at a proper end must not always hide what a kill leaves.
        if self.random.below(2) == 0 {
            store.shutdown().await;
        }
    }

    /// Breaks copies of what the kill left: each is refused, or as whole as the original. Answers how many were refused.
    async fn check_damaged_copies(&self, copies: u64) -> u64 {
        let mut refused = 0;
        for copy in 0..copies {
            let dir = self.dir.path().with_extension("damaged");
            copy_folder(self.dir.path(), &dir);
            let segments = fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap().path());
            let log = segments.filter(|path| !path.to_string_lossy().contains("spare-")).max().unwrap();
            let path = if copy % 2 == 0 { log } else { dir.join("raft/db") };
            let mut bytes = fs::read(&path).unwrap();
            let written = bytes.iter().rposition(|byte| *byte != 0).unwrap();
            let place = self.random.below(written as u64) as usize;
            match copy % 3 {
                0 => bytes.truncate(written.saturating_sub(self.random.below(2_000) as usize)),
                _ => bytes[place] ^= 1 << self.random.below(8),
            }
            fs::write(&path, bytes).unwrap();
            match open(&dir).await {
                Ok(store) => drop(self.check_contents(&store).await),
                Err(Error::Damaged { path, .. } | Error::Io { path, .. }) => {
                    assert!(path.starts_with(&dir));
                    refused += 1;
                }
                Err(error) => panic!("{error}"),
            }
            fs::remove_dir_all(&dir).unwrap();
        }
        refused
    }
}

fn cycles() -> u64 {
    env::var(CYCLES_VARIABLE).map_or(CYCLES, |cycles| cycles.parse().expect("a number of cycles"))
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let mut crash = Crash::new(1);
    for _ in 0..cycles() {
        let acknowledged = crash.kill_one();
        crash.check(&acknowledged).await;
    }
    let written: u64 = crash.done.iter().sum();
    println!("{} cycles, {written} writes, revision {}", cycles(), crash.revision);
}

#[tokio::test]
async fn what_a_kill_left_is_whole_or_refused_when_it_is_damaged() {
    let mut crash = Crash::new(2);
    let mut refused = 0;
    for _ in 0..cycles().div_ceil(3) {
        let acknowledged = crash.kill_one();
        refused += crash.check_damaged_copies(9).await;
        crash.check(&acknowledged).await;
    }
    assert!(refused > 0, "no damage was noticed");
}

/// A file system of 12 MiB, where this user may mount one.
#[cfg(target_os = "linux")]
struct SmallDisk(tempfile::TempDir);

#[cfg(target_os = "linux")]
impl SmallDisk {
    fn mount() -> Option<Self> {
        let disk = Self(tempfile::tempdir().unwrap());
        disk.run("mount", &["-t", "tmpfs", "-o", "size=12m", "tmpfs"]).then_some(disk)
    }

    fn run(&self, program: &str, arguments: &[&str]) -> bool {
        let status = Command::new(program).args(arguments).arg(self.0.path()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    }
}

#[cfg(target_os = "linux")]
impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.run("umount", &[]);
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_stops_writes_and_loses_none() {
    let Some(disk) = SmallDisk::mount() else {
        return println!("skipped: only root can mount the small disk that this fills");
    };
    let mut crash = Crash::new(3);
    let dir = disk.0.path().join("store");
    let ballast = disk.0.path().join("ballast");
    fs::write(&ballast, vec![1; 9 << 20]).unwrap();
    let mut victim = crash.start(&dir);
    let mut stopped = 0;
    for line in BufReader::new(victim.stdout.take().unwrap()).lines().map(|line| line.unwrap()) {
        if let Some(Acknowledged { writer, n, .. }) = Acknowledged::parse(&line) {
            crash.done[writer as usize] = n;
        } else if let Some(reason) = line.strip_prefix("stopped ") {
            assert!(reason.contains("read-only") && reason.contains("No space left"), "{reason}");
            stopped += 1;
        }
    }
    victim.wait().unwrap();
    assert_eq!(stopped, WRITERS);
    assert!(crash.done.iter().all(|done| *done > 0));
    fs::remove_file(&ballast).unwrap();
    let store = open(&dir).await.unwrap();
    let done = crash.check_contents(&store).await;
    assert!(done >= crash.done);
    store.commit(Txn::put("/after", Bytes::new())).await.unwrap();
    store.shutdown().await;
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let copy = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &copy);
        } else {
            fs::copy(&path, &copy).unwrap();
        }
    }
}
