//! From a directory to a running thread.

use super::{
    directory::{Acknowledged, Directory},
    disk::{self, Changes, Disk, Failure, SnapshotMeta},
    engine::{Position, RaftStore, Shared},
    inbox::Inbox,
    node::Node,
    snapshots::{SnapshotWriter, write_chunks},
    storage::LogStorage,
    transport::{NoPeers, Transport},
};
use crate::{Error, Result, Retention, Role, Snapshot, keeper::Keeper, replica::Replica, state::State};
use bytes::Bytes;
use minik8s_clock::{Clock, Random};
use parking_lot::Mutex;
use raft::{
    Config, RawNode,
    eraftpb::{ConfState, HardState},
};
use std::{
    path::Path,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a tick of the Raft library is. A store with one member has none.
pub const TICK: Duration = Duration::from_millis(100);

/// A follower that hears nothing for so many ticks (up to twice as many, at random) asks to be
/// elected.
const ELECTION_TICKS: usize = 10;

/// A leader is heard at least every so many ticks.
const HEARTBEAT_TICKS: usize = 2;

/// How many bytes of entries go into one message.
const MAX_MESSAGE_BYTES: u64 = 1 << 20;

/// How many bytes of entries are applied at once.
const MAX_APPLY_BYTES: u64 = 16 << 20;

/// How many messages may be on their way to a member unanswered.
const MAX_INFLIGHT_MESSAGES: usize = 256;

/// How many bytes of entries may wait to be committed.
const MAX_UNCOMMITTED_BYTES: u64 = 128 << 20;

/// Where a restored store begins its log: a snapshot at index 0 would be none to the Raft library.
const RESTORED_INDEX: u64 = 1;
const RESTORED_TERM: u64 = 1;

/// The log is left alone until it has this many bytes.
pub const SNAPSHOT_LOG_BYTES: usize = 16 << 20;

/// Who a member is and whom it works with.
#[derive(Clone)]
pub struct RaftOptions {
    /// The number of this member, from 1.
    pub member: u64,
    /// The members with whom a new store begins. One that exists knows its own.
    pub voters: Vec<u64>,
    /// How to reach them.
    pub transport: Arc<dyn Transport>,
    /// How much history is kept.
    pub retention: Retention,
    /// How many bytes the log has at least before a snapshot takes its place.
    pub snapshot_log_bytes: usize,
}

impl Default for RaftOptions {
    /// One member.
    fn default() -> Self {
        RaftOptions {
            member: 1,
            voters: vec![1],
            transport: Arc::new(NoPeers),
            retention: Retention::default(),
            snapshot_log_bytes: SNAPSHOT_LOG_BYTES,
        }
    }
}

impl RaftOptions {
    fn check(&self) -> Result<()> {
        match self.member {
            0 => Err(Error::Invalid("members are numbered from 1".into())),
            member if !self.voters.contains(&member) => {
                Err(Error::Invalid(format!("member {member} is not among the voters {:?}", self.voters)))
            }
            _ => Ok(()),
        }
    }
}

type Ready = oneshot::Receiver<Result<()>>;

/// What the thread hands out when it has recovered the state.
struct Recovered {
    replica: Arc<Replica>,
    disk: Weak<Disk>,
    alone: bool,
    ready: Ready,
}

/// Starts the thread, which opens the directory. The store is to be used when `Ready` says so.
pub(super) async fn open(
    dir: &Path,
    clock: &Clock,
    random: &Random,
    options: RaftOptions,
) -> Result<(Ready, RaftStore)> {
    options.check()?;
    let shared = Arc::new(Shared {
        member: options.member,
        inbox: Inbox::default(),
        keeper: Keeper::new(options.retention),
        transport: options.transport.clone(),
        position: Mutex::new(Position { role: Role::Follower, leader: None, term: 0, applied: 0, sole: false }),
    });
    let mut session = [0; 8];
    random.bytes(&mut session);
    let (sender, receiver) = oneshot::channel();
    let work = {
        let (dir, shared, guarded) = (dir.to_path_buf(), shared.clone(), shared.clone());
        move || match prepare(&dir, &options, shared, u64::from_le_bytes(session)) {
            Ok((node, recovered)) => {
                // Who opened it may have gone meanwhile.
                if sender.send(Ok(recovered)).is_ok() {
                    let _guard = CloseOnPanic(guarded);
                    node.run();
                }
            }
            Err(error) => drop(sender.send(Err(error))),
        }
    };
    #[allow(clippy::disallowed_methods, reason = "the disk blocks; simulations use MemoryStore")]
    let thread = std::thread::Builder::new().name(format!("store-{}", shared.member)).spawn(work);
    let thread = thread.map_err(|error| Error::Io { path: dir.into(), reason: error.to_string() })?;
    let panicked = |_| Error::Damaged { path: dir.into(), what: "the log contradicts itself".into() };
    let recovered = receiver.await.map_err(panicked)??;
    let ticking = (!recovered.alone).then(|| start_ticking(shared.clone(), clock.clone()));
    let store = RaftStore {
        shared,
        replica: recovered.replica,
        disk: recovered.disk,
        thread: Mutex::new(Some(thread)),
        ticking,
    };
    Ok((recovered.ready, store))
}

/// A broken invariant ends the thread; those who ask it for something must hear of that.
struct CloseOnPanic(Arc<Shared>);

impl Drop for CloseOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Dropping what is left tells those who wait.
            let reason = "the Raft thread panicked; its last words are on standard error".into();
            drop(self.0.inbox.close(Error::ReadOnly { reason }));
        }
    }
}

/// Members hear of time through ticks; a sole member needs none, and sleeps when there is nothing
/// to do.
fn start_ticking(shared: Arc<Shared>, clock: Clock) -> DropGuard {
    let stop = CancellationToken::new();
    let ticking = async move {
        loop {
            clock.sleep(TICK).await;
            if shared.inbox.tick().is_err() {
                return;
            }
        }
    };
    tokio::spawn(stop.clone().run_until_cancelled_owned(ticking));
    stop.drop_guard()
}

fn prepare(dir: &Path, options: &RaftOptions, shared: Arc<Shared>, session: u64) -> Result<(Node, Recovered)> {
    let mut directory = Directory::open(dir)?;
    let (disk, recovered) = if directory.is_complete() {
        Disk::open(&directory)?
    } else {
        let mut start = beginning(options);
        let disk = make(&mut directory, &mut start, std::iter::empty())?;
        let hard_state = hard_state_of(&start);
        (disk, disk::Recovered { hard_state, snapshot: start, state: State::default(), entries: Vec::new() })
    };
    let disk = Arc::new(disk);
    let owner = recovered.snapshot.member;
    if owner != options.member {
        let what = format!("{} is the store of member {owner}, not of member {}", dir.display(), options.member);
        return Err(Error::Invalid(what));
    }
    let applied = recovered.snapshot.index;
    let alone = recovered.snapshot.conf_state.voters == [options.member];
    let weak = Arc::downgrade(&disk);
    let (storage, replica) = LogStorage::new(disk, recovered);
    let raw = RawNode::new(&config(options.member, applied), storage, &logger(options.member))
        .map_err(|error| Error::Damaged { path: dir.into(), what: error.to_string() })?;
    let (sender, ready) = oneshot::channel();
    let node = Node::new(
        raw,
        replica.clone(),
        shared,
        directory,
        SnapshotWriter::new(options.snapshot_log_bytes),
        session,
        sender,
    );
    Ok((node, Recovered { replica, disk: weak, alone, ready }))
}

pub(super) fn restore(dir: &Path, snapshot: &Snapshot, options: &RaftOptions) -> Result<()> {
    options.check()?;
    let mut directory = Directory::open(dir)?;
    if directory.is_complete() {
        return Err(Error::Invalid(format!("{} holds a store already", dir.display())));
    }
    let mut start = SnapshotMeta { index: RESTORED_INDEX, term: RESTORED_TERM, ..beginning(options) };
    make(&mut directory, &mut start, snapshot.chunks()).map(drop)
}

/// The snapshot before the first entry, which is empty but for the members.
fn beginning(options: &RaftOptions) -> SnapshotMeta {
    let conf_state = ConfState { voters: options.voters.clone(), ..ConfState::default() };
    SnapshotMeta { member: options.member, conf_state, ..SnapshotMeta::default() }
}

/// Where the log of a new store stands.
fn hard_state_of(start: &SnapshotMeta) -> HardState {
    HardState { term: start.term, commit: start.index, ..HardState::default() }
}

/// Writes a new store that begins with a snapshot.
fn make(directory: &mut Directory, start: &mut SnapshotMeta, chunks: impl Iterator<Item = Bytes>) -> Result<Disk> {
    let folder = directory.raft_folder();
    let disk = Disk::create(directory)?;
    let write = |start: &mut SnapshotMeta| -> std::result::Result<(), Failure> {
        write_chunks(&disk, chunks, start)?;
        let mut changes = Changes::default();
        changes.put_meta(start);
        changes.put_hard_state(&hard_state_of(start));
        disk.write(changes, true)
    };
    write(start).map_err(|Failure(reason)| Error::Io { path: folder.clone(), reason })?;
    directory.complete()?;
    directory.acknowledge(Acknowledged { index: start.index, extent: disk.whole() })?;
    Ok(disk)
}

fn config(member: u64, applied: u64) -> Config {
    Config {
        id: member,
        applied,
        election_tick: ELECTION_TICKS,
        heartbeat_tick: HEARTBEAT_TICKS,
        max_size_per_msg: MAX_MESSAGE_BYTES,
        max_inflight_msgs: MAX_INFLIGHT_MESSAGES,
        max_uncommitted_size: MAX_UNCOMMITTED_BYTES,
        max_committed_size_per_ready: MAX_APPLY_BYTES,
        // A member that was cut off must not unseat a working leader when it comes back.
        pre_vote: true,
        check_quorum: true,
        ..Config::default()
    }
}

/// The Raft library logs through slog; what it says goes where everything else goes.
fn logger(member: u64) -> slog::Logger {
    struct ToTracing;

    impl slog::Drain for ToTracing {
        type Ok = ();
        type Err = slog::Never;

        fn log(&self, record: &slog::Record<'_>, _values: &slog::OwnedKVList) -> std::result::Result<(), slog::Never> {
            if record.level().is_at_least(slog::Level::Warning) {
                tracing::warn!(target: "raft", "{}", record.msg());
            } else {
                tracing::trace!(target: "raft", "{}", record.msg());
            }
            Ok(())
        }
    }

    slog::Logger::root(ToTracing, slog::o!("member" => member))
}
