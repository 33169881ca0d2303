//! The processes of a container, and its PID namespace, which it may share with others.

use super::Signal;
use crate::fs::ContainerFs;
use jiff::Timestamp;
use minik8s_clock::{Watched, Watcher};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use tokio::sync::{Notify, mpsc};

/// How many signals wait for a process that handles them; more of them are merged away, as the kernel does.
const PENDING_SIGNALS: usize = 8;
/// How many processes a container may have (`podPidsLimit` of the kubelet, which has no limit by default; we need one).
pub const PROCESS_LIMIT: usize = 1024;

/// How many exit codes are remembered for `wait`.
const REMEMBERED_EXITS: usize = 256;

/// Who runs `/pause`.
const NOBODY_KNOWN: &str = "65535";
/// What the number of a namespace's first process is.
const INIT: u32 = 1;

/// Who runs in a container, and whom it sees. Clones share the table.
#[derive(Clone, Default)]
pub struct ProcessTable {
    inner: Arc<Mutex<Table>>,
    changed: Arc<Notify>,
    member: Arc<Member>,
}

/// A container in its PID namespace.
#[derive(Default)]
struct Member {
    /// The number of the process it was started with; 0 before.
    first: AtomicU32,
    /// Whose processes these are: the name of its user and its files.
    about: OnceLock<(String, Weak<ContainerFs>)>,
}

#[derive(Default)]
struct Table {
    last_pid: u32,
    /// Exit codes of processes that `wait` may ask for, the oldest first.
    ended: VecDeque<(u32, i32)>,
    processes: BTreeMap<u32, Entry>,
}

struct Entry {
    member: Arc<Member>,
    parent: u32,
    command: String,
    started: Timestamp,
    handled: BTreeSet<Signal>,
    pending: mpsc::Sender<Signal>,
    killed: Watched<Option<Signal>>,
}

/// One row of `ps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Its number.
    pub pid: u32,
    /// The number of the process that started it; 0 for the first and for those that an exec brought in.
    pub parent: u32,
    /// Its command line.
    pub command: String,
    /// When it started.
    pub started: Timestamp,
    /// The name or number of who runs it.
    pub user: String,
}

/// The place of a running process in the table; leaves it when dropped.
pub struct Registration {
    table: ProcessTable,
    pid: u32,
    pending: mpsc::Receiver<Signal>,
    killed: Watcher<Option<Signal>>,
}

impl ProcessTable {
    /// The namespace that the containers of a pod share, in which its sandbox's `/pause` is the first process.
    pub fn of_pod(started: Timestamp) -> ProcessTable {
        let table = ProcessTable::default();
        // Nobody waits for it and no signal reaches it: it is there as long as the table.
        table.enter(&mut table.inner.lock(), 0, "/pause".to_string(), started);
        table
    }

    /// For another container in the same namespace.
    pub fn beside(&self) -> ProcessTable {
        let ProcessTable { inner, changed, member: _ } = self.clone();
        ProcessTable { inner, changed, member: Arc::default() }
    }

    /// Says whose processes these are, to the others in the namespace.
    pub fn belongs_to(&self, user: String, files: &Arc<ContainerFs>) {
        // Once for each container, when it is made.
        let _first = self.member.about.set((user, Arc::downgrade(files)));
    }

    /// The number of the process that the container was started with; 0 before.
    pub fn first(&self) -> u32 {
        self.member.first.load(Ordering::Relaxed)
    }

    /// The files that a process sees (`/proc/PID/root`).
    pub fn root(&self, pid: u32) -> Option<Arc<ContainerFs>> {
        self.inner.lock().processes.get(&pid)?.member.about.get()?.1.upgrade()
    }

    /// Enters a process; `None` when there are too many.
    pub fn register(&self, parent: u32, command: String, started: Timestamp) -> Option<Registration> {
        let mut table = self.inner.lock();
        let own = table.processes.values().filter(|entry| self.is_own(entry)).count();
        (own < PROCESS_LIMIT).then(|| self.enter(&mut table, parent, command, started))
    }

    fn is_own(&self, entry: &Entry) -> bool {
        Arc::ptr_eq(&entry.member, &self.member)
    }

    /// Enters what a shell has built in, of which each shell runs one at a time; they do not count.
    pub fn register_builtin(&self, parent: u32, command: String, started: Timestamp) -> Registration {
        self.enter(&mut self.inner.lock(), parent, command, started)
    }

    fn enter(&self, table: &mut Table, parent: u32, command: String, started: Timestamp) -> Registration {
        let (pending, pending_receiver) = mpsc::channel(PENDING_SIGNALS);
        let killed = Watched::new(None);
        let killed_receiver = killed.watch();
        table.last_pid += 1;
        let pid = table.last_pid;
        // The first process enters before any that an exec brings in.
        let _later = self.member.first.compare_exchange(0, pid, Ordering::Relaxed, Ordering::Relaxed);
        let (member, handled) = (self.member.clone(), BTreeSet::new());
        table.processes.insert(pid, Entry { member, parent, command, started, handled, pending, killed });
        Registration { table: self.clone(), pid, pending: pending_receiver, killed: killed_receiver }
    }

    /// Sends a signal; false when there is no such process.
    ///
    /// A process that handles the signal receives it. One that does not is ended, except the first of the namespace, which
    /// the kernel shields from everything but SIGKILL: so `sleep` as a container's command ignores SIGTERM.
    pub fn signal(&self, pid: u32, signal: Signal) -> bool {
        let table = self.inner.lock();
        let Some(entry) = table.processes.get(&pid) else { return false };
        if signal != Signal::Kill && entry.handled.contains(&signal) {
            if let Err(error) = entry.pending.try_send(signal) {
                tracing::debug!(pid, %signal, %error, "signal merged with those that wait");
            }
        } else if signal == Signal::Kill || (pid != INIT && !signal.ignored_by_default()) {
            entry.killed.set(Some(signal));
        }
        true
    }

    /// Kills all processes of the container. With the first of a namespace go all others in it, as the kernel has it.
    pub fn kill_all(&self) {
        let all = self.first() == INIT;
        for entry in self.inner.lock().processes.values().filter(|entry| all || self.is_own(entry)) {
            entry.killed.set(Some(Signal::Kill));
        }
    }

    /// Sends a signal to the descendants of a process, not to itself: what a terminal does on Ctrl-C to the foreground.
    pub fn signal_descendants(&self, ancestor: u32, signal: Signal) -> usize {
        let processes = self.list();
        let mut family = BTreeSet::from([ancestor]);
        // Children have higher numbers than their parents, so that one pass in order finds all.
        for process in &processes {
            if family.contains(&process.parent) {
                family.insert(process.pid);
            }
        }
        family.remove(&ancestor);
        family.iter().filter(|pid| self.signal(**pid, signal)).count()
    }

    /// All processes that the container sees, by number.
    pub fn list(&self) -> Vec<ProcessInfo> {
        let table = self.inner.lock();
        let info = |(pid, entry): (&u32, &Entry)| ProcessInfo {
            pid: *pid,
            parent: entry.parent,
            command: entry.command.clone(),
            started: entry.started,
            user: entry.member.about.get().map_or_else(|| NOBODY_KNOWN.to_string(), |(user, _)| user.clone()),
        };
        table.processes.iter().map(info).collect()
    }

    /// The numbers of the container's own processes.
    pub fn own(&self) -> Vec<u32> {
        let table = self.inner.lock();
        table.processes.iter().filter(|(_, entry)| self.is_own(entry)).map(|(pid, _)| *pid).collect()
    }

    /// Whether a process exists.
    pub fn contains(&self, pid: u32) -> bool {
        self.inner.lock().processes.contains_key(&pid)
    }

    /// Remembers how a process ended.
    pub(super) fn record_exit(&self, pid: u32, code: i32) {
        let mut table = self.inner.lock();
        table.processes.remove(&pid);
        if table.ended.len() >= REMEMBERED_EXITS {
            table.ended.pop_front();
        }
        table.ended.push_back((pid, code));
        drop(table);
        self.changed.notify_waiters();
    }

    /// Waits for a process to end; returns its exit code, 127 for one that never was.
    pub async fn ended(&self, pid: u32) -> i32 {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Before looking, so that an end in between is not missed.
            changed.as_mut().enable();
            {
                let table = self.inner.lock();
                if let Some((_, code)) = table.ended.iter().rev().find(|(ended, _)| *ended == pid) {
                    return *code;
                }
                if !table.processes.contains_key(&pid) {
                    return super::NOT_FOUND;
                }
            }
            changed.await;
        }
    }

    fn set_handled(&self, pid: u32, signal: Signal, handled: bool) {
        if let Some(entry) = self.inner.lock().processes.get_mut(&pid) {
            match handled {
                true => entry.handled.insert(signal),
                false => entry.handled.remove(&signal),
            };
        }
    }

    fn set_command(&self, pid: u32, command: String) {
        if let Some(entry) = self.inner.lock().processes.get_mut(&pid) {
            entry.command = command;
        }
    }
}

impl Registration {
    /// The number of the process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Splits off what the process itself receives.
    pub(super) fn split(self) -> (Signals, Killed) {
        let Registration { table, pid, pending, killed } = self;
        (Signals { table, pid, pending }, Killed { killed })
    }
}

/// What ends a process from outside.
pub(super) struct Killed {
    killed: Watcher<Option<Signal>>,
}

impl Killed {
    /// Completes with the signal that ends the process.
    pub async fn wait(&mut self) -> Signal {
        loop {
            if let Some(signal) = self.killed.get() {
                return signal;
            }
            if self.killed.changed().await.is_err() {
                // The entry is gone: the process has ended by itself.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// The signals of one process, and its place in the table.
pub struct Signals {
    table: ProcessTable,
    pid: u32,
    pending: mpsc::Receiver<Signal>,
}

impl Signals {
    /// The number of the process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// From now on the signal is received instead of ending the process.
    pub fn handle(&self, signal: Signal) {
        self.table.set_handled(self.pid, signal, true);
    }

    /// From now on the signal does what it does by default.
    pub fn reset(&self, signal: Signal) {
        self.table.set_handled(self.pid, signal, false);
    }

    /// The process runs another command from now on (`exec`).
    pub fn rename(&self, command: String) {
        self.table.set_command(self.pid, command);
    }

    /// The next signal among those handled.
    pub async fn next(&mut self) -> Signal {
        match self.pending.recv().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }

    /// A signal that has come already.
    pub fn try_next(&mut self) -> Option<Signal> {
        self.pending.try_recv().ok()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.table.inner.lock().processes.remove(&self.pid);
    }
}
