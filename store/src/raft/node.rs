//! The Raft thread: proposals and messages in, disk, state machine and messages out.
//!
//! One turn handles all that came since the last one. The order within a turn is what Raft's safety
//! rests on, and is that of the Raft library's manual ("Processing the Ready state"):
//!
//! 1. send `messages()`: a leader's appends may travel while its own disk works;
//! 2. install a snapshot that came from the leader;
//! 3. apply what is committed and was on disk before;
//! 4. write new entries and the hard state, and sync;
//! 5. send `persisted_messages()`: votes and acknowledgements, which promise what is on disk;
//! 6. `advance`, which says what that made committed: with one member, what was just written; apply
//!    it, and answer.

use super::{
    directory::{Acknowledged, Directory},
    disk::{Changes, Failure},
    engine::{Position, Shared},
    inbox::{Proposal, Reader, Work},
    snapshots::SnapshotWriter,
    storage::LogStorage,
};
use crate::{
    Error, Result, Role,
    command::{Command, Outcome},
    replica::Replica,
    state::Loader,
};
use bytes::Bytes;
use protobuf::Message as _;
use raft::{
    RawNode, Ready, StateRole, Storage,
    eraftpb::{ConfChange, ConfChangeV2, Entry, EntryType, Message, MessageType, Snapshot},
};
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::oneshot;

/// After how many ticks a proposal that is not committed, or a read that is not confirmed, is given
/// up.
const PATIENCE_TICKS: u64 = 50;

/// Why the thread cannot go on.
#[derive(Debug)]
pub(super) struct Halt(pub(super) String);

impl From<Failure> for Halt {
    fn from(failure: Failure) -> Self {
        Halt(failure.0)
    }
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Halt(error.to_string())
    }
}

impl From<raft::Error> for Halt {
    fn from(error: raft::Error) -> Self {
        Halt(format!("the Raft log cannot go on: {error}"))
    }
}

/// One who waits for an own proposal to be applied.
struct Waiter {
    reply: oneshot::Sender<Result<Outcome>>,
    since: u64,
}

pub(super) struct Node {
    raw: RawNode<LogStorage>,
    replica: Arc<Replica>,
    shared: Arc<Shared>,
    directory: Directory,
    /// Tells own proposals from those of other members, and of this one before it was restarted.
    session: u64,
    proposed: u64,
    waiters: BTreeMap<u64, Waiter>,
    /// Reads that wait for the leader's word, by the context that names their round.
    rounds: BTreeMap<u64, (Vec<Reader>, u64)>,
    /// Reads whose index is known, but not applied yet.
    confirmed: Vec<(u64, Vec<Reader>)>,
    reads: u64,
    ticks: u64,
    snapshots: SnapshotWriter,
    /// Told once this member has applied what it knew to be committed when it was opened.
    ready: Option<oneshot::Sender<Result<()>>>,
    ready_at: u64,
}

impl Node {
    pub(super) fn new(
        raw: RawNode<LogStorage>,
        replica: Arc<Replica>,
        shared: Arc<Shared>,
        directory: Directory,
        snapshots: SnapshotWriter,
        session: u64,
        ready: oneshot::Sender<Result<()>>,
    ) -> Node {
        Node {
            raw,
            replica,
            shared,
            directory,
            session,
            proposed: 0,
            waiters: BTreeMap::new(),
            rounds: BTreeMap::new(),
            confirmed: Vec::new(),
            reads: 0,
            ticks: 0,
            snapshots,
            ready: Some(ready),
            ready_at: 0,
        }
    }

    /// The thread.
    pub(super) fn run(mut self) {
        let ended = self.begin().and_then(|()| self.turns());
        let reason = match ended {
            Ok(()) => Error::Closed,
            Err(Halt(reason)) => {
                tracing::error!(reason, "the store is read-only from now on");
                Error::ReadOnly { reason }
            }
        };
        if reason == Error::Closed {
            if let Err(Failure(error)) = self.raw.store().disk().finish() {
                tracing::warn!(error, "the log could not be given its length");
            }
            if let Err(error) = self.directory.acknowledge(self.acknowledged(self.raw.store().applied())) {
                tracing::warn!(%error, "the last index could not be noted");
            }
        }
        let mut position = self.shared.position.lock();
        if !position.sole {
            (position.role, position.leader) = (Role::Follower, None);
        }
        drop(position);
        let left = self.shared.inbox.close(reason.clone());
        for reply in left.proposals.into_iter().map(|proposal| proposal.reply) {
            // Whoever waited may have gone; so with all replies below.
            let _ = reply.send(Err(reason.clone()));
        }
        for waiter in self.waiters.into_values() {
            let _ =
                waiter.reply.send(Err(if reason == Error::Closed { Error::OutcomeUnknown } else { reason.clone() }));
        }
        let rounds = self.rounds.into_values().map(|(readers, _)| readers);
        for reader in rounds.chain(self.confirmed.into_iter().map(|(_, readers)| readers)).flatten().chain(left.readers)
        {
            let _ = reader.send(Err(reason.clone()));
        }
        if let Some(ready) = self.ready {
            let _ = ready.send(Err(reason));
        }
        self.shared.keeper.wake();
    }

    /// A sole member elects itself at once. It is ready when it has applied the whole log, which
    /// its election commits; a member among others is ready at once, and catches up while it
    /// serves.
    fn begin(&mut self) -> std::result::Result<(), Halt> {
        if !self.is_sole_voter() {
            return self.settle();
        }
        // What is known to be committed comes first: among it may be changes of the configuration.
        self.ready_at = u64::MAX;
        self.settle()?;
        self.raw.campaign()?;
        self.ready_at = self.raw.raft.raft_log.last_index();
        self.settle()
    }

    fn turns(&mut self) -> std::result::Result<(), Halt> {
        loop {
            let work = self.shared.inbox.take(self.snapshots.is_idle());
            let stop = work.stop;
            self.take_in(work);
            self.settle()?;
            self.snapshots.step(&mut self.raw, &self.replica, &mut self.directory)?;
            if stop {
                return Ok(());
            }
        }
    }

    fn is_sole_voter(&self) -> bool {
        let conf_state = self.raw.store().conf_state();
        conf_state.voters == [self.raw.raft.id] && conf_state.voters_outgoing.is_empty()
    }

    fn take_in(&mut self, work: Work) {
        for _ in 0..work.ticks {
            self.ticks += 1;
            self.raw.tick();
        }
        for message in work.messages {
            let (from, kind) = (message.from, message.get_msg_type());
            if let Err(error) = self.raw.step(message) {
                tracing::debug!(from, ?kind, %error, "a message of another member was not taken");
            }
        }
        if work.ticks > 0 {
            self.lose_patience();
        }
        self.propose(work.proposals);
        self.read(work.readers);
    }

    /// All proposals of a turn go into the log in one step.
    fn propose(&mut self, proposals: Vec<Proposal>) {
        if proposals.is_empty() {
            return;
        }
        let mut message = Message { from: self.raw.raft.id, ..Message::default() };
        message.set_msg_type(MessageType::MsgPropose);
        let mut replies = Vec::with_capacity(proposals.len());
        for Proposal { command, reply } in proposals {
            self.proposed += 1;
            let context = [self.session.to_le_bytes(), self.proposed.to_le_bytes()].concat().into();
            message.mut_entries().push(Entry { data: command, context, ..Entry::default() });
            replies.push((self.proposed, reply));
        }
        match self.raw.raft.step(message) {
            Ok(()) => {
                let since = self.ticks;
                self.waiters.extend(replies.into_iter().map(|(number, reply)| (number, Waiter { reply, since })));
            }
            Err(error) => {
                tracing::debug!(%error, "proposals were dropped");
                let leads = self.raw.raft.state == StateRole::Leader;
                let reason = if leads { Error::Overloaded } else { Error::NoLeader };
                for (_, reply) in replies {
                    let _ = reply.send(Err(reason.clone()));
                }
            }
        }
    }

    fn read(&mut self, readers: Vec<Reader>) {
        if !readers.is_empty() {
            self.reads += 1;
            self.rounds.insert(self.reads, (readers, self.ticks));
            self.raw.read_index(self.reads.to_le_bytes().to_vec());
        }
    }

    fn lose_patience(&mut self) {
        let Some(limit) = self.ticks.checked_sub(PATIENCE_TICKS) else {
            return;
        };
        for (_, waiter) in self.waiters.extract_if(.., |_, waiter| waiter.since < limit) {
            let _ = waiter.reply.send(Err(Error::OutcomeUnknown));
        }
        for (_, (readers, _)) in self.rounds.extract_if(.., |_, (_, since)| *since < limit) {
            for reader in readers {
                let _ = reader.send(Err(Error::NoLeader));
            }
        }
    }

    /// Handles what the Raft library has for us until it has no more.
    fn settle(&mut self) -> std::result::Result<(), Halt> {
        while self.raw.has_ready() {
            let ready = self.raw.ready();
            self.handle(ready)?;
        }
        if self.ready.is_some() && self.raw.store().applied() >= self.ready_at {
            let _ = self.ready.take().expect("it is there").send(Ok(()));
        }
        self.publish();
        Ok(())
    }

    fn handle(&mut self, mut ready: Ready) -> std::result::Result<(), Halt> {
        self.send(ready.take_messages());
        if let Some(soft_state) = ready.ss() {
            tracing::debug!(leader = soft_state.leader_id, role = ?soft_state.raft_state, "leadership changed");
            self.leadership_changed();
        }
        if !ready.snapshot().is_empty() {
            self.install(&ready.snapshot().clone(), ready.hs())?;
        }
        self.confirm(ready.take_read_states());
        self.apply(ready.take_committed_entries())?;

        let mut changes = Changes::default();
        let entries = ready.take_entries();
        self.raw.mut_store().append(&mut changes, entries, ready.hs());
        if !changes.is_empty() {
            self.raw.store().disk().write(changes, ready.must_sync())?;
        }
        if !ready.persisted_messages().is_empty() {
            // What is promised to other members is as good as acknowledged.
            self.directory.note(self.acknowledged(0))?;
        }
        self.send(ready.take_persisted_messages());

        let mut light = self.raw.advance(ready);
        if let Some(commit) = light.commit_index() {
            self.raw.mut_store().set_commit(commit);
        }
        self.send(light.take_messages());
        self.apply(light.take_committed_entries())?;
        self.raw.advance_apply();
        Ok(())
    }

    fn send(&self, messages: Vec<Message>) {
        for message in messages {
            match message.write_to_bytes() {
                Ok(bytes) => self.shared.transport.send(message.to, bytes.into()),
                Err(error) => tracing::warn!(to = message.to, %error, "a message does not encode"),
            }
        }
    }

    /// Who waits does not know whether the old leader's last entries survive.
    fn leadership_changed(&mut self) {
        for (_, waiter) in std::mem::take(&mut self.waiters) {
            let _ = waiter.reply.send(Err(Error::OutcomeUnknown));
        }
    }

    fn apply(&mut self, entries: Vec<Entry>) -> std::result::Result<(), Halt> {
        let Some(last) = entries.last().map(|entry| entry.index) else {
            return Ok(());
        };
        let mut commands = Vec::with_capacity(entries.len());
        let mut waiters = Vec::with_capacity(entries.len());
        for entry in entries {
            match entry.get_entry_type() {
                // A new leader's first entry is empty.
                EntryType::EntryNormal if entry.data.is_empty() => {}
                EntryType::EntryNormal => {
                    let undecodable = |error| Halt(format!("log entry {} does not decode: {error}", entry.index));
                    commands.push(Command::decode(entry.data.clone()).map_err(undecodable)?);
                    waiters.push(self.waiter(&entry.context));
                }
                EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => self.change_configuration(&entry)?,
            }
        }
        // Before anybody hears of it, so that no answered write can be missing and not be missed.
        self.directory.note(self.acknowledged(last))?;
        let outcomes = self.replica.apply(commands);
        self.raw.mut_store().set_applied(last);
        self.shared.keeper.applied(&self.replica, &outcomes);
        for (waiter, outcome) in waiters.into_iter().zip(outcomes) {
            if let Some(waiter) = waiter {
                let _ = waiter.reply.send(outcome);
            }
        }
        self.answer_readers();
        Ok(())
    }

    fn acknowledged(&self, index: u64) -> Acknowledged {
        Acknowledged { index, extent: self.raw.store().disk().whole() }
    }

    fn waiter(&mut self, context: &[u8]) -> Option<Waiter> {
        let (session, number) = context.split_first_chunk::<8>()?;
        if u64::from_le_bytes(*session) != self.session {
            return None;
        }
        self.waiters.remove(&u64::from_le_bytes(number.try_into().ok()?))
    }

    fn change_configuration(&mut self, entry: &Entry) -> std::result::Result<(), Halt> {
        let damaged = |error| Halt(format!("log entry {} does not decode: {error}", entry.index));
        let conf_state = if entry.get_entry_type() == EntryType::EntryConfChange {
            let change = ConfChange::parse_from_bytes(&entry.data).map_err(damaged)?;
            self.raw.apply_conf_change(&change)?
        } else {
            let change = ConfChangeV2::parse_from_bytes(&entry.data).map_err(damaged)?;
            self.raw.apply_conf_change(&change)?
        };
        self.raw.mut_store().set_conf_state(conf_state);
        Ok(())
    }

    /// The leader's state takes the place of ours, which is too old for the log to catch up.
    fn install(
        &mut self,
        snapshot: &Snapshot,
        hard_state: Option<&raft::eraftpb::HardState>,
    ) -> std::result::Result<(), Halt> {
        let mut loader = Loader::new();
        let loaded = loader.push(&snapshot.data).and_then(|()| loader.finish());
        let state = loaded.map_err(|error| Halt(format!("the leader's snapshot does not load: {error}")))?;
        let meta = self.snapshots.write_received(self.raw.store(), snapshot, hard_state)?;
        self.raw.mut_store().install(meta, state);
        self.answer_readers();
        Ok(())
    }

    fn confirm(&mut self, states: Vec<raft::ReadState>) {
        for state in states {
            let Ok(round) = <[u8; 8]>::try_from(&state.request_ctx[..]) else {
                continue;
            };
            if let Some((readers, _)) = self.rounds.remove(&u64::from_le_bytes(round)) {
                self.confirmed.push((state.index, readers));
            }
        }
        self.answer_readers();
    }

    fn answer_readers(&mut self) {
        let applied = self.raw.store().applied();
        for (_, readers) in self.confirmed.extract_if(.., |(index, _)| *index <= applied) {
            let revision = self.replica.revision();
            for reader in readers {
                let _ = reader.send(Ok(revision));
            }
        }
    }

    /// Tells the other threads where we are.
    fn publish(&mut self) {
        let raft = &self.raw.raft;
        let role = match raft.state {
            StateRole::Leader => Role::Leader,
            StateRole::Follower => Role::Follower,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
        };
        let position = Position {
            role,
            leader: (raft.leader_id != raft::INVALID_ID).then_some(raft.leader_id),
            term: raft.term,
            applied: self.raw.store().applied(),
            sole: role == Role::Leader && self.is_sole_voter() && self.ready.is_none(),
        };
        let before = std::mem::replace(&mut *self.shared.position.lock(), position);
        if before.role != role {
            self.shared.keeper.wake();
        }
    }
}

/// Reads a message of another member.
pub(super) fn decode_message(bytes: &Bytes) -> Result<Message> {
    Message::parse_from_bytes(bytes).map_err(|error| Error::Invalid(format!("not a Raft message: {error}")))
}

/// The term of an index that is in the log.
pub(super) fn term_of(storage: &LogStorage, index: u64) -> std::result::Result<u64, Halt> {
    Ok(storage.term(index)?)
}
