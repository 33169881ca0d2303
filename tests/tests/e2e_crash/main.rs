//! `kill -9` of a cluster at a random moment of a write load, then `up`: every acknowledged write is there, revisions
//! went only forward, UIDs are the same, watches resume or say 410. Also with the disk full, with the end of the store's
//! file missing, and with a flipped byte.
//!
//! `MINIK8S_CRASH_CYCLES=1000 cargo test --test e2e_crash` does it for as long as a developer likes; without, a few times.
//! `store/tests/crash.rs` does the same to the store alone, and much faster. `docs/durability.md` says what is promised.

mod connection;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use connection::{Connection, Credentials};
use hyper::{Method, StatusCode};
use minik8s_clock::Random;
use minik8s_tests::Cluster;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

const CYCLES: u64 = 5;
const CYCLES_VARIABLE: &str = "MINIK8S_CRASH_CYCLES";
const WRITERS: usize = 4;
/// Each writer has so many ConfigMaps of its own, and changes one after another.
const NAMES: u64 = 6;
/// The cluster is killed after at most so many acknowledged writes.
const MAX_WRITES: u64 = 400;
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// What is known of a ConfigMap.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    value: String,
    uid: String,
    revision: u64,
}

impl Known {
    fn read(object: &Value) -> Self {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        Self {
            value: text("/data/value"),
            uid: text("/metadata/uid"),
            revision: text("/metadata/resourceVersion").parse().expect("a revision"),
        }
    }
}

/// Writes one ConfigMap after another and remembers every answer.
#[derive(Default)]
struct Writer {
    number: usize,
    writes: u64,
    known: BTreeMap<String, Known>,
    /// The write that has no answer: of which object, and to which value, if not its removal.
    on_its_way: Option<(String, Option<String>)>,
    /// Names and revisions of acknowledged writes since the last kill.
    acknowledged: Vec<(String, u64)>,
}

impl Writer {
    /// Does one write; says whether it was acknowledged, else with what it was refused.
    async fn write(writer: &Mutex<Self>, connection: &mut Connection) -> anyhow::Result<Result<(), Value>> {
        let (name, value, method) = writer.lock().unwrap().next();
        let path = if method == Method::POST { CONFIG_MAPS.to_owned() } else { format!("{CONFIG_MAPS}/{name}") };
        let body = value.as_ref().map(|value| match method {
            Method::PATCH => json!({"data": {"value": value}}),
            _ => json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"value": value}}),
        });
        let (status, answer) = connection.send(method, &path, body.as_ref()).await?;
        let mut writer = writer.lock().unwrap();
        if !status.is_success() {
            return Ok(Err(answer));
        }
        writer.on_its_way = None;
        if value.is_some() {
            let known = Known::read(&answer);
            writer.acknowledged.push((name.clone(), known.revision));
            writer.known.insert(name, known);
        } else {
            writer.known.remove(&name);
        }
        Ok(Ok(()))
    }

    fn next(&mut self) -> (String, Option<String>, Method) {
        self.writes += 1;
        let n = self.writes;
        let name = format!("writer-{}-{}", self.number, n % NAMES);
        let value = format!("{n} of writer {} {}", self.number, "x".repeat((n * 7919 % 4000) as usize));
        let (value, method) = match (self.known.contains_key(&name), n % 5) {
            (false, _) => (Some(value), Method::POST),
            (true, 0) => (None, Method::DELETE),
            (true, 1 | 2) => (Some(value), Method::PATCH),
            (true, _) => (Some(value), Method::PUT),
        };
        self.on_its_way = Some((name.clone(), value.clone()));
        (name, value, method)
    }

    /// Compares with what is there now, and goes on from it.
    fn check(&mut self, found: &BTreeMap<String, Known>) {
        let own = |(name, _): &(&String, &Known)| name.starts_with(&format!("writer-{}-", self.number));
        let found: BTreeMap<String, Known> =
            found.iter().filter(own).map(|(name, known)| (name.clone(), known.clone())).collect();
        if found != self.known {
            let (name, value) = self.on_its_way.take().unwrap_or_else(|| panic!("{found:?} is not {:?}", self.known));
            let mut expected = self.known.clone();
            let uid = expected.remove(&name).map(|known| known.uid);
            let mut others = found.clone();
            let changed = others.remove(&name);
            assert_eq!(others, expected, "acknowledged writes are not there");
            assert_eq!(changed.as_ref().map(|known| &known.value), value.as_ref(), "{name} is what nobody wrote");
            if let (Some(uid), Some(changed)) = (uid, changed) {
                assert_eq!(changed.uid, uid, "{name} has another UID");
            }
        }
        self.on_its_way = None;
        self.known = found;
    }
}

/// A cluster under load.
struct Load {
    cluster: Cluster,
    runtime: Runtime,
    random: Random,
    writers: Vec<Arc<Mutex<Writer>>>,
    /// The newest revision that anybody was told.
    revision: u64,
}

impl Load {
    fn start(cluster: Cluster, seed: u64) -> Self {
        let writer = |number| Arc::new(Mutex::new(Writer { number, ..Writer::default() }));
        Self {
            cluster,
            runtime: Runtime::new().expect("a runtime"),
            random: Random::seeded(seed),
            writers: (0..WRITERS).map(writer).collect(),
            revision: 0,
        }
    }

    fn connect(&self) -> Connection {
        let credentials = Credentials::read(self.cluster.kubeconfig()).expect("a kubeconfig");
        self.runtime.block_on(credentials.connect()).expect("a connection")
    }

    /// Writes until a random number of writes is acknowledged, and kills the cluster then, with others on their way.
    fn write_and_kill(&self) {
        let limit = 1 + self.random.below(MAX_WRITES);
        let (count, reached) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
        let mut tasks = Vec::new();
        for writer in &self.writers {
            writer.lock().unwrap().acknowledged.clear();
            let (writer, count, reached) = (writer.clone(), count.clone(), reached.clone());
            let mut connection = self.connect();
            tasks.push(self.runtime.spawn(async move {
                while let Ok(outcome) = Writer::write(&writer, &mut connection).await {
                    outcome.unwrap_or_else(|refusal| panic!("{refusal}"));
                    if count.fetch_add(1, Ordering::Relaxed) + 1 == limit {
                        reached.notify_one();
                    }
                }
            }));
        }
        self.runtime.block_on(reached.notified());
        self.kill();
        for task in tasks {
            self.runtime.block_on(task).expect("a writer ends when the connection does");
        }
    }

    fn kill(&self) {
        let status = self.cluster.minik8s(&["status", "--output", "json"]).json();
        let pid = status["pid"].as_u64().expect("a process").to_string();
        let mut kill = Command::new(if cfg!(windows) { "taskkill" } else { "kill" });
        kill.args(if cfg!(windows) { ["/F", "/PID"].as_slice() } else { ["-9"].as_slice() }).arg(pid);
        assert!(kill.output().expect("kill runs").status.success());
        self.cluster.until("the cluster is gone", || {
            let status = self.cluster.minik8s(&["status", "--output", "json"]);
            if status.stdout.contains("\"Stopped\"") { Ok(()) } else { Err(status.to_string()) }
        });
    }

    fn store(&self) -> PathBuf {
        let status = self.cluster.minik8s(&["status", "--output", "json"]).json();
        Path::new(status["dataDir"].as_str().expect("a data directory")).join("store")
    }

    /// What must hold when the cluster is up again.
    fn check(&mut self) {
        let mut connection = self.connect();
        let list = self.runtime.block_on(connection.send(Method::GET, CONFIG_MAPS, None)).expect("a list").1;
        let items = list["items"].as_array().expect("items").iter();
        let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let found: BTreeMap<_, _> = items.map(|object| (name(object), Known::read(object))).collect();
        let mut acknowledged = BTreeSet::new();
        for writer in &self.writers {
            let mut writer = writer.lock().unwrap();
            writer.check(&found);
            acknowledged.extend(writer.acknowledged.drain(..).map(|(name, revision)| (revision, name)));
        }
        let newest = acknowledged.last().map_or(0, |(revision, _)| *revision).max(self.revision);
        let marker = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "marker-"}});
        let (status, marker) =
            self.runtime.block_on(connection.send(Method::POST, CONFIG_MAPS, Some(&marker))).expect("an answer");
        assert_eq!(status, StatusCode::CREATED, "{marker}");
        self.revision = Known::read(&marker).revision;
        assert!(self.revision > newest, "revision {} came after {newest}", self.revision);
        if let Some((from, _)) = acknowledged.iter().nth(acknowledged.len() / 3).cloned() {
            acknowledged.retain(|(revision, _)| *revision > from);
            self.runtime.block_on(check_watch(connection, from, self.revision, acknowledged)).expect("a watch");
        }
    }
}

/// A watch from a revision of the killed process tells all that was acknowledged since, or says 410.
async fn check_watch(
    connection: Connection,
    from: u64,
    to: u64,
    mut expected: BTreeSet<(u64, String)>,
) -> anyhow::Result<()> {
    let (status, mut watch) = connection.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={from}")).await?;
    if status == StatusCode::GONE {
        return Ok(());
    }
    let mut last = from;
    while last < to {
        let event = watch.next().await?.expect("the watch goes on");
        if event["type"] == "ERROR" {
            assert_eq!(event["object"]["code"], 410, "{event}");
            return Ok(());
        }
        let revision = Known::read(&event["object"]).revision;
        assert!(revision > last, "{revision} after {last}");
        last = revision;
        expected.remove(&(revision, event["object"]["metadata"]["name"].as_str().unwrap_or_default().to_owned()));
    }
    assert!(expected.is_empty(), "the watch did not tell {expected:?}");
    Ok(())
}

#[test]
fn a_killed_cluster_resumes_with_all_it_acknowledged() {
    let cycles = std::env::var(CYCLES_VARIABLE).map_or(CYCLES, |cycles| cycles.parse().expect("a number of cycles"));
    let mut load = Load::start(Cluster::start(&[]), 1);
    for _ in 0..cycles {
        load.write_and_kill();
        load.cluster.minik8s(&["up"]).ok();
        load.check();
    }
    println!("{cycles} cycles, revision {}", load.revision);
}

#[test]
fn damage_after_a_kill_is_named_and_refused() {
    let mut load = Load::start(Cluster::start(&[]), 2);
    load.write_and_kill();
    let (store, backup) = (load.store(), load.cluster.home().join("backup"));
    copy_folder(&store, &backup);
    let segments = fs::read_dir(store.join("log")).unwrap().map(|entry| entry.unwrap().path());
    let log = segments.filter(|path| !path.to_string_lossy().contains("spare-")).max();
    let log = log.expect("the newest segment of the log");
    let written = fs::read(&log).unwrap();

    let value = load.writers.iter().find_map(|writer| {
        let writer = writer.lock().unwrap();
        writer.known.values().max_by_key(|known| known.revision).map(|known| known.value.clone())
    });
    let value = value.expect("something was written");
    let text = &value.as_bytes()[..value.len().min(100)];
    let mut flipped = written.clone();
    let at = flipped.windows(text.len()).position(|window| window == text).expect("the value is in the file");
    flipped[at] ^= 1;
    fs::write(&log, flipped).unwrap();
    for _ in 0..2 {
        let error = load.cluster.minik8s(&["up"]).fails();
        assert!(error.contains("is damaged") && error.contains(store.to_str().unwrap()), "{error}");
    }

    // The end of the file is missing: whole, or refused. What was acknowledged cannot be whole without it.
    let end = written.iter().rposition(|byte| *byte != 0).unwrap();
    for cut in [1, 40, 3000] {
        replace_folder(&backup, &store);
        fs::write(&log, &written[..end - cut]).unwrap();
        let up = load.cluster.minik8s(&["up"]);
        if up.code == 0 {
            return load.check();
        }
        let error = up.fails();
        assert!(error.contains("is damaged") && error.contains(store.to_str().unwrap()), "{error}");
    }
    replace_folder(&backup, &store);
    load.cluster.minik8s(&["up"]).ok();
    load.check();
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_stops_writes_and_loses_none() {
    let mut load = Load::start(Cluster::prepare(), 3);
    let disk = load.cluster.home().join("disk");
    fs::create_dir(&disk).unwrap();
    let mount = ["-t", "tmpfs", "-o", "size=40m", "tmpfs", disk.to_str().unwrap()];
    if load.cluster.run("mount", &mount).code != 0 {
        return println!("skipped: only root can mount the small disk that this fills");
    }
    let _mounted = Mounted(disk.clone());
    let data = disk.join("data");
    load.cluster.minik8s(&["up", "--port", "0", "--data-dir", data.to_str().unwrap()]).ok();
    let ballast = disk.join("ballast");
    // As much as there is room for; what cannot be written any more is what is meant.
    let mut file = fs::File::create(&ballast).unwrap();
    let _ = std::io::copy(&mut std::io::repeat(1), &mut file);
    let mut connection = load.connect();
    let writer = load.writers[0].clone();
    let refusal = loop {
        match load.runtime.block_on(Writer::write(&writer, &mut connection)).expect("an answer") {
            Ok(()) => {}
            Err(refusal) => break refusal,
        }
    };
    assert!(refusal["message"].as_str().is_some_and(|text| text.contains("read-only")), "{refusal}");
    let (status, _) = load.runtime.block_on(connection.send(Method::GET, CONFIG_MAPS, None)).expect("an answer");
    assert_eq!(status, StatusCode::OK, "reads go on");
    drop(file);
    fs::remove_file(&ballast).unwrap();
    load.cluster.minik8s(&["down"]).ok();
    load.cluster.minik8s(&["up"]).ok();
    load.check();
    load.cluster.minik8s(&["delete"]).ok();
}

/// A mounted disk. Its last user may still be closing its files when the mount ends, as processes that end do: the kernel
/// takes the disk away after them.
#[cfg(target_os = "linux")]
struct Mounted(PathBuf);

#[cfg(target_os = "linux")]
impl Drop for Mounted {
    fn drop(&mut self) {
        let ended = Command::new("umount").arg("--lazy").arg(&self.0).status();
        if !ended.is_ok_and(|status| status.success()) {
            eprintln!("{} is still mounted", self.0.display());
        }
    }
}

fn replace_folder(from: &Path, to: &Path) {
    fs::remove_dir_all(to).unwrap();
    copy_folder(from, to);
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
