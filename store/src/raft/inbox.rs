//! What the Raft thread is asked to do, in bounded queues. While it waits for the disk proposals
//! gather here, and all that gathered goes to disk at once: that is the group commit. Where many
//! write it pays to let them gather a little, for a sync costs as much as some proposals do.

use crate::{Error, Result, Revision, command::Outcome};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use raft::eraftpb::Message;
use std::time::Duration;
use tokio::sync::oneshot;

/// A turn with so many proposals shows that many write at once; the next one lets as many gather,
const CROWD: usize = 3;

/// but no more than these,
const GATHER_LENGTH: usize = 64;

/// and for no longer than this.
const GATHER_TIME: Duration = Duration::from_millis(2);

/// A disk that is quick never makes a crowd wait. So one turn of so many waits to see whether there is one,
const PROBE_EVERY: u32 = 256;

/// for so long.
const PROBE_TIME: Duration = Duration::from_millis(1);

/// How many proposals may wait for the disk.
pub const PROPOSAL_QUEUE_LENGTH: usize = 4096;

/// How many bytes they may have.
pub const PROPOSAL_QUEUE_BYTES: usize = 64 << 20;

/// How many messages of other members may wait; more are dropped, which Raft forgives.
const MESSAGE_QUEUE_LENGTH: usize = 4096;

/// How many linearizable reads may wait for a round among the members.
const READ_QUEUE_LENGTH: usize = 65_536;

/// A command on its way into the log.
pub(super) struct Proposal {
    pub(super) command: Bytes,
    pub(super) reply: oneshot::Sender<Result<Outcome>>,
}

/// One who waits for the answer to [`Store::read_index`](crate::Store::read_index).
pub(super) type Reader = oneshot::Sender<Result<Revision>>;

/// All that came since the thread last looked.
#[derive(Default)]
pub(super) struct Work {
    pub(super) proposals: Vec<Proposal>,
    proposal_bytes: usize,
    pub(super) messages: Vec<Message>,
    pub(super) readers: Vec<Reader>,
    pub(super) ticks: u32,
    pub(super) stop: bool,
}

impl Work {
    fn is_empty(&self) -> bool {
        self.proposals.is_empty()
            && self.messages.is_empty()
            && self.readers.is_empty()
            && self.ticks == 0
            && !self.stop
    }

    /// Whether more proposals may gather before anything is done, up to a number. All else is urgent.
    fn may_grow(&self, crowd: usize) -> bool {
        self.proposals.len() < crowd
            && self.messages.is_empty()
            && self.readers.is_empty()
            && self.ticks == 0
            && !self.stop
    }
}

#[derive(Default)]
pub(super) struct Inbox {
    queue: Mutex<Queue>,
    arrived: Condvar,
}

#[derive(Default)]
struct Queue {
    work: Work,
    /// How many proposals the next turn lets gather; 0 for none.
    crowd: usize,
    /// Turns since one has let them gather.
    hasty: u32,
    /// Why nothing is taken any more.
    closed: Option<Error>,
}

impl Inbox {
    pub(super) fn propose(&self, proposal: Proposal) -> Result<()> {
        self.put(|work| {
            let bytes = work.proposal_bytes + proposal.command.len();
            if work.proposals.len() >= PROPOSAL_QUEUE_LENGTH || bytes > PROPOSAL_QUEUE_BYTES {
                return Err(Error::Overloaded);
            }
            work.proposal_bytes = bytes;
            work.proposals.push(proposal);
            Ok(())
        })
    }

    pub(super) fn read(&self, reader: Reader) -> Result<()> {
        self.put(|work| {
            if work.readers.len() >= READ_QUEUE_LENGTH {
                return Err(Error::Overloaded);
            }
            work.readers.push(reader);
            Ok(())
        })
    }

    pub(super) fn receive(&self, message: Message) -> Result<()> {
        self.put(|work| {
            if work.messages.len() >= MESSAGE_QUEUE_LENGTH {
                return Err(Error::Overloaded);
            }
            work.messages.push(message);
            Ok(())
        })
    }

    pub(super) fn tick(&self) -> Result<()> {
        self.put(|work| {
            work.ticks += 1;
            Ok(())
        })
    }

    /// The thread finishes what came before, and ends.
    pub(super) fn stop(&self) {
        // A closed inbox has no thread to stop.
        let _ = self.put(|work| {
            work.stop = true;
            Ok(())
        });
        self.queue.lock().closed.get_or_insert(Error::Closed);
    }

    /// Takes nothing any more; gives out what is left.
    pub(super) fn close(&self, reason: Error) -> Work {
        let mut queue = self.queue.lock();
        queue.closed = Some(reason);
        std::mem::take(&mut queue.work)
    }

    /// Why nothing is taken any more.
    pub(super) fn closed(&self) -> Option<Error> {
        self.queue.lock().closed.clone()
    }

    /// All that came; with `wait`, at least something.
    pub(super) fn take(&self, wait: bool) -> Work {
        let mut queue = self.queue.lock();
        while wait && queue.work.is_empty() {
            self.arrived.wait(&mut queue);
        }
        queue.hasty += 1;
        let mut time = GATHER_TIME;
        if queue.hasty >= PROBE_EVERY && queue.crowd == 0 {
            (queue.crowd, time) = (GATHER_LENGTH, PROBE_TIME);
        }
        if wait && queue.crowd > 0 {
            queue.hasty = 0;
            // Who waits for a disk waits in real time, whatever the clock.
            self.arrived.wait_while_for(&mut queue, |queue| queue.work.may_grow(queue.crowd), time);
        }
        let proposals = queue.work.proposals.len();
        queue.crowd = if proposals < CROWD { 0 } else { proposals.min(GATHER_LENGTH) };
        std::mem::take(&mut queue.work)
    }

    fn put(&self, put: impl FnOnce(&mut Work) -> Result<()>) -> Result<()> {
        let mut queue = self.queue.lock();
        if let Some(reason) = &queue.closed {
            return Err(reason.clone());
        }
        let was_empty = queue.work.is_empty();
        put(&mut queue.work)?;
        if was_empty || !queue.work.may_grow(queue.crowd) {
            self.arrived.notify_one();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposal(bytes: usize) -> Proposal {
        Proposal { command: vec![0; bytes].into(), reply: oneshot::channel().0 }
    }

    #[test]
    fn proposals_are_bounded_by_number_and_by_size() {
        let inbox = Inbox::default();
        for _ in 0..PROPOSAL_QUEUE_LENGTH {
            assert_eq!(inbox.propose(proposal(1)), Ok(()));
        }
        assert_eq!(inbox.propose(proposal(1)), Err(Error::Overloaded));
        assert_eq!(inbox.take(true).proposals.len(), PROPOSAL_QUEUE_LENGTH);

        assert_eq!(inbox.propose(proposal(PROPOSAL_QUEUE_BYTES - 1)), Ok(()));
        assert_eq!(inbox.propose(proposal(2)), Err(Error::Overloaded));
        assert_eq!(inbox.propose(proposal(1)), Ok(()));
    }

    #[test]
    fn proposals_of_a_crowd_gather_and_nothing_else_waits() {
        let inbox = Inbox::default();
        let crowd = |count: usize| (0..count).for_each(|_| assert_eq!(inbox.propose(proposal(1)), Ok(())));
        crowd(CROWD);
        assert_eq!(inbox.take(true).proposals.len(), CROWD, "nothing was known of a crowd");

        // As many as came before are taken at once; of fewer, nobody waits for ever.
        crowd(CROWD);
        assert_eq!(inbox.take(true).proposals.len(), CROWD);
        crowd(1);
        assert_eq!(inbox.take(true).proposals.len(), 1);

        crowd(CROWD);
        inbox.take(true);
        crowd(1);
        assert_eq!(inbox.read(oneshot::channel().0), Ok(()));
        let work = inbox.take(true);
        assert_eq!((work.proposals.len(), work.readers.len()), (1, 1));
    }

    #[test]
    fn messages_and_readers_are_bounded_and_apart() {
        let inbox = Inbox::default();
        for _ in 0..MESSAGE_QUEUE_LENGTH {
            assert_eq!(inbox.receive(Message::default()), Ok(()));
        }
        assert_eq!(inbox.receive(Message::default()), Err(Error::Overloaded));
        for _ in 0..READ_QUEUE_LENGTH {
            assert_eq!(inbox.read(oneshot::channel().0), Ok(()));
        }
        assert_eq!(inbox.read(oneshot::channel().0), Err(Error::Overloaded));
        assert_eq!(inbox.propose(proposal(1)), Ok(()), "writes have a queue of their own");
    }

    #[test]
    fn what_came_before_the_end_is_still_taken() {
        let inbox = Inbox::default();
        assert_eq!(inbox.propose(proposal(1)), Ok(()));
        inbox.stop();
        assert_eq!(inbox.propose(proposal(1)), Err(Error::Closed));
        let work = inbox.take(true);
        assert!(work.stop && work.proposals.len() == 1);
        assert_eq!(inbox.closed(), Some(Error::Closed));
    }
}
