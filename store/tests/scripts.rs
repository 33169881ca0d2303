//! Golden scripts: what a store answers, command by command. `testscripts/mvcc` run on both
//! engines, with the same answers; `testscripts/recovery` break the directory of a [`RaftStore`]
//! between commands.
//!
//! `UPDATE_GOLDENFILES=1 cargo test -p minik8s-store` writes the answers anew; read the difference
//! before you commit it.

use bytes::Bytes;
use minik8s_clock::{Clock, Random, Simulation};
use minik8s_store::*;
use std::{
    collections::BTreeMap,
    error::Error as StdError,
    fmt::Write as _,
    fs,
    num::NonZeroU64,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

type Answer<T = String> = std::result::Result<T, Box<dyn StdError>>;

fn each_script(folder: &str, run: impl Fn(&Path)) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testscripts").join(folder);
    let mut scripts: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.sort();
    assert!(!scripts.is_empty());
    scripts.iter().for_each(|script| run(script));
}

#[test]
fn mvcc_in_memory() {
    each_script("mvcc", |script| goldenscript::run(&mut Runner::memory(), script).unwrap());
}

#[test]
fn mvcc_with_raft() {
    each_script("mvcc", |script| goldenscript::run(&mut Runner::raft(), script).unwrap());
}

#[test]
fn recovery() {
    each_script("recovery", |script| goldenscript::run(&mut Runner::raft(), script).unwrap());
}

/// The commands of the scripts. `#` comments in the scripts say what they show.
#[derive(goldenscript::Command)]
enum Command {
    Put {
        #[arg(key = "lease", optional)]
        lease: Option<NonZeroU64>,
        #[arg(key, many)]
        puts: Vec<(String, String)>,
    },
    /// Puts a value of so many bytes.
    Fill {
        key: String,
        bytes: usize,
    },
    Delete(Vec<String>),
    /// Conditions `absent KEY`, `at KEY=REVISION`; operations `put KEY=VALUE`, `delete KEY`.
    Txn(Vec<String>),
    Get(String),
    Range {
        #[arg(optional)]
        prefix: String,
        #[arg(key)]
        at: Option<Revision>,
        #[arg(key)]
        from: Option<String>,
        #[arg(key, optional)]
        limit: usize,
        #[arg(key, optional)]
        count: bool,
    },
    Watch {
        name: String,
        #[arg(optional)]
        prefix: String,
        #[arg(key)]
        after: Option<Revision>,
    },
    /// Shows everything that a watch holds, up to the progress that it is asked for.
    Drain(String),
    Unwatch(String),
    Compact(Revision),
    Grant(u64),
    Revoke(NonZeroU64),
    /// Lets seconds pass.
    Pass(u64),
    Status,
    ReadIndex,
    Open,
    Close,
    /// Goes on with the files as another process would find them if this one were killed now.
    Crash,
    /// Changes files of the closed store.
    Damage {
        what: String,
        #[arg(optional)]
        number: u64,
    },
    BreakDisk,
}

struct Runner {
    runtime: tokio::runtime::Runtime,
    clock: Clock,
    simulation: Simulation,
    folder: tempfile::TempDir,
    /// None while the store is closed, or could not be opened.
    store: Option<Arc<dyn Store>>,
    raft: Option<Arc<RaftStore>>,
    watches: BTreeMap<String, Watch>,
    crashes: u32,
}

impl Runner {
    fn new() -> Runner {
        let (clock, simulation) = Clock::simulated("2026-01-01T00:00:00Z".parse().unwrap());
        Runner {
            runtime: tokio::runtime::Builder::new_current_thread().build().unwrap(),
            clock,
            simulation,
            folder: tempfile::tempdir().unwrap(),
            store: None,
            raft: None,
            watches: BTreeMap::new(),
            crashes: 0,
        }
    }

    fn memory() -> Runner {
        let mut runner = Runner::new();
        let _entered = runner.runtime.enter();
        runner.store = Some(MemoryStore::new(runner.clock.clone()));
        drop(_entered);
        runner.runtime.block_on(tokio::task::yield_now());
        runner
    }

    fn raft() -> Runner {
        let mut runner = Runner::new();
        runner.open().unwrap();
        runner
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join(format!("store-{}", self.crashes))
    }

    fn open(&mut self) -> Answer<()> {
        let options = RaftOptions::default();
        let store =
            self.runtime.block_on(RaftStore::open(&self.dir(), self.clock.clone(), Random::seeded(1), options))?;
        self.runtime.block_on(tokio::task::yield_now());
        self.store = Some(store.clone());
        self.raft = Some(store);
        Ok(())
    }

    fn close(&mut self) {
        self.watches.clear();
        if let Some(store) = self.store.take() {
            self.runtime.block_on(store.shutdown());
        }
        self.raft = None;
    }

    /// What another process would find if this one were killed now: the files as they are, with
    /// nothing written any more.
    fn crash(&mut self) {
        let from = self.dir();
        self.crashes += 1;
        copy_folder(&from, &self.dir());
        self.watches.clear();
        self.store = None;
        self.raft = None;
    }

    fn store(&self) -> Answer<&Arc<dyn Store>> {
        Ok(self.store.as_ref().ok_or("the store is closed")?)
    }

    fn hide_paths(&self, text: &str) -> String {
        text.replace(&self.dir().display().to_string(), "DIR")
    }

    /// The values of the closed store's snapshot, for damage. Sled lets go of its lock a moment after it is
    /// closed.
    fn sled(&self) -> Answer<sled::Db> {
        let path = self.dir().join("raft");
        let opened = (0..100_000).find_map(|_| sled::open(&path).ok());
        Ok(opened.ok_or("sled does not open")?)
    }

    /// Changes what is written in the newest segment of the closed store's log.
    fn change_log(&self, change: impl FnOnce(&mut Vec<u8>)) -> Answer<()> {
        let files = fs::read_dir(self.dir().join("log"))?.map(|entry| Ok(entry?.path())).collect::<Answer<Vec<_>>>()?;
        let segments = files.into_iter().filter(|path| !path.to_string_lossy().contains("spare-"));
        let newest = segments.max().ok_or("there is no log")?;
        let mut bytes = fs::read(&newest)?;
        // Without the room for more.
        bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
        change(&mut bytes);
        fs::write(&newest, bytes)?;
        Ok(())
    }

    fn txn(&self, arguments: &[String]) -> Answer {
        let mut txn = Txn::default();
        for argument in arguments {
            let (word, rest) = argument.split_once(' ').ok_or("a word and a key")?;
            let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
            let key: Arc<str> = key.into();
            match word {
                "absent" => txn.conditions.push(Condition::Absent { key }),
                "at" => txn.conditions.push(Condition::ModRevision { key, revision: value.parse()? }),
                "put" => txn.operations.push(Operation::Put { key, value: value.to_owned().into(), lease: None }),
                "delete" => txn.operations.push(Operation::Delete { key }),
                other => return Err(format!("unknown operation {other}").into()),
            }
        }
        self.commit(txn)
    }

    fn commit(&self, txn: Txn) -> Answer {
        let response = self.runtime.block_on(self.store()?.commit(txn))?;
        let (mut out, list) = match response {
            TxnResponse::Committed { revision, previous } => (format!("committed @{revision}\n"), previous),
            TxnResponse::Conflict { revision, current } => (format!("conflict @{revision}\n"), current),
        };
        for before in list.into_iter().flatten() {
            writeln!(out, "  {}", show(&before))?;
        }
        Ok(out)
    }

    fn range(&self, range: Range) -> Answer {
        let response = self.runtime.block_on(self.store()?.range(range))?;
        let mut out = format!("@{}", response.revision);
        if response.more {
            out += " and more";
        }
        if let Some(count) = response.count {
            write!(out, ", {count} in all")?;
        }
        for key_value in response.key_values {
            write!(out, "\n  {}", show(&key_value))?;
        }
        Ok(out)
    }

    fn drain(&mut self, name: &str) -> Answer {
        let watch = self.watches.get_mut(name).ok_or("no such watch")?;
        watch.progress_requester().request();
        let mut out = String::new();
        loop {
            match self.runtime.block_on(watch.recv()) {
                Ok(WatchMessage::Events(events)) => {
                    for event in &*events {
                        let before = event.prev.as_ref().map_or("nothing".into(), show);
                        writeln!(out, "{:?} {}, was {before}", event.kind, show(&event.kv))?;
                    }
                    writeln!(out, "--")?;
                }
                Ok(WatchMessage::Progress(revision)) => {
                    writeln!(out, "progress @{revision}")?;
                    return Ok(out);
                }
                Err(error) => {
                    writeln!(out, "Error: {error}")?;
                    return Ok(out);
                }
            }
        }
    }

    /// Moves time and lets the housekeeping work.
    fn pass(&mut self, seconds: u64) -> Answer {
        let store = self.store()?.clone();
        // The housekeeper has to know of leases before time passes.
        self.runtime.block_on(tokio::task::yield_now());
        self.simulation.advance(Duration::from_secs(seconds));
        self.runtime.block_on(async {
            // One turn for the housekeeper to wake, others for what it proposes to come back from
            // the Raft thread.
            while {
                let before = store.status();
                tokio::task::yield_now().await;
                store.read_index().await?;
                store.compact(store.compacted()).await?;
                tokio::task::yield_now().await;
                (before.revision, before.leases, before.compacted)
                    != (store.revision(), store.status().leases, store.compacted())
            } {}
            Ok::<_, Error>(())
        })?;
        Ok(String::new())
    }

    fn status(&self) -> Answer {
        let status = self.store()?.status();
        Ok(format!(
            "revision {}, compacted {}, {} keys of {} bytes, {} events of history, {} leases, {} watches{}",
            status.revision,
            status.compacted,
            status.keys,
            status.bytes,
            status.history_events,
            status.leases,
            status.watches,
            status.read_only.map_or(String::new(), |reason| format!("\nread-only: {}", self.hide_paths(&reason))),
        ))
    }

    fn damage(&self, what: &str, number: u64) -> Answer {
        match what {
            "remove-file" => drop(fs::remove_dir_all(self.dir().join("raft"))),
            "remove-log" => drop(fs::remove_dir_all(self.dir().join("log"))),
            "format" => fs::write(self.dir().join("FORMAT"), format!("minik8s store {number}\n"))?,
            "foreign-format" => fs::write(self.dir().join("FORMAT"), "ext4\n")?,
            "acknowledged" => fs::write(self.dir().join("ACKNOWLEDGED"), "12 00000000\n")?,
            "acknowledged-up-to" => {
                let numbers = format!("{number:020} {0:020} {0:020}", 0);
                let note = format!("{numbers} {:08x}\n", crc32fast::hash(numbers.as_bytes()));
                fs::write(self.dir().join("ACKNOWLEDGED"), note)?
            }
            "cut-log" => self.change_log(|log| log.truncate(log.len() - number as usize))?,
            "flip-log" => self.change_log(|log| *log.iter_mut().nth_back(number as usize).unwrap() ^= 1)?,
            "tear-log" => self.change_log(|log| log.extend(vec![1; number as usize]))?,
            "room-in-log" => self.change_log(|log| log.extend(vec![0; number as usize]))?,
            "flip-snapshot-record" => flip(&self.sled()?, b"m")?,
            other => return Err(format!("unknown damage {other}").into()),
        }
        Ok(String::new())
    }
}

fn flip(db: &sled::Db, key: &[u8]) -> Answer<()> {
    let mut value = db.get(key)?.ok_or("there is no such value")?.to_vec();
    *value.last_mut().ok_or("it is empty")? ^= 1;
    db.insert(key, value)?;
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let mut paths: Vec<_> = fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()).collect();
    // What was acknowledged comes before the log by name too: a note may be older than the log, never newer.
    paths.sort();
    for path in paths {
        let copy = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &copy);
        } else {
            fs::copy(&path, &copy).unwrap();
        }
    }
}

fn show(kv: &KeyValue) -> String {
    let value = String::from_utf8_lossy(&kv.value);
    let value = if value.len() > 40 { format!("({} bytes)", value.len()) } else { value.into_owned() };
    let lease = kv.lease.map_or(String::new(), |lease| format!(" lease {lease}"));
    format!("{}={value} @{}..{}{lease}", kv.key, kv.create_revision, kv.mod_revision)
}

impl goldenscript::Runner for Runner {
    type Command = Command;

    fn run(&mut self, command: &Command, _context: &goldenscript::Context) -> Answer {
        self.execute(command).map_err(|error| self.hide_paths(&error.to_string()).into())
    }
}

impl Runner {
    fn execute(&mut self, command: &Command) -> Answer {
        match command {
            Command::Put { lease, puts } => {
                let put = |(key, value): &(String, String)| Operation::Put {
                    key: key.as_str().into(),
                    value: value.clone().into(),
                    lease: lease.map(LeaseId),
                };
                return self.commit(Txn { operations: puts.iter().map(put).collect(), ..Txn::default() });
            }
            Command::Fill { key, bytes } => {
                return self.commit(Txn::put(key.as_str(), Bytes::from(vec![b'x'; *bytes])));
            }
            Command::Delete(keys) => {
                let operations = keys.iter().map(|key| Operation::Delete { key: key.as_str().into() }).collect();
                return self.commit(Txn { operations, ..Txn::default() });
            }
            Command::Txn(arguments) => return self.txn(arguments),
            Command::Get(key) => {
                let found = self.runtime.block_on(self.store()?.get(key))?;
                return Ok(found.as_ref().map_or("nothing".into(), show));
            }
            Command::Range { prefix, at, from, limit, count } => {
                let (prefix, from) = (prefix.clone(), from.clone());
                return self.range(Range { prefix, from, at: *at, limit: *limit, count: *count });
            }
            Command::Watch { name, prefix, after } => {
                let store = self.store()?;
                let watch = store.watch(prefix, after.unwrap_or(store.revision()))?;
                self.watches.insert(name.clone(), watch);
            }
            Command::Drain(name) => return self.drain(name),
            Command::Unwatch(name) => drop(self.watches.remove(name).ok_or("no such watch")?),
            Command::Compact(at) => self.runtime.block_on(self.store()?.compact(*at))?,
            Command::Grant(seconds) => {
                let ttl = Duration::from_secs(*seconds);
                return Ok(format!("lease {}", self.runtime.block_on(self.store()?.grant_lease(ttl))?));
            }
            Command::Revoke(lease) => self.runtime.block_on(self.store()?.revoke_lease(LeaseId(*lease)))?,
            Command::Pass(seconds) => return self.pass(*seconds),
            Command::Status => return self.status(),
            Command::ReadIndex => {
                return Ok(format!("@{}", self.runtime.block_on(self.store()?.read_index())?));
            }
            Command::Open => self.open()?,
            Command::Close => self.close(),
            Command::Crash => self.crash(),
            Command::Damage { what, number } => return self.damage(what, *number),
            Command::BreakDisk => {
                self.raft.as_ref().ok_or("no disk")?.break_disk("No space left on device (os error 28)");
            }
        }
        Ok(String::new())
    }
}
