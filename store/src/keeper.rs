//! The leader's housekeeping: leases that expire, history that grows too long or too old.
//!
//! Both are decided by the leader alone, by its own clock and bounds, and told to everybody as
//! ordinary commands: applying stays free of time. A member that becomes leader gives every lease
//! its whole time to live again, as etcd does.

use crate::{
    Error, LeaseId, Result, Revision,
    command::{Command, Outcome},
    replica::Replica,
};
use async_trait::async_trait;
use minik8s_clock::Clock;
use parking_lot::Mutex;
use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// How many changes are kept for watches and reads of the past.
pub const HISTORY_MAX_EVENTS: usize = 65_536;

/// How many bytes are kept only for those.
pub const HISTORY_MAX_BYTES: usize = 32 << 20;

/// How long they are kept: a day's work.
pub const HISTORY_MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// How finely ages are told apart, as a fraction of the longest.
const AGE_STEPS: u32 = 16;

/// When to try again what could not be proposed.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// How much history is kept. Whichever bound is reached first, compaction follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Changes.
    pub events: usize,
    /// Bytes that are kept only for those.
    pub bytes: usize,
    /// Time since they happened.
    pub age: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Retention { events: HISTORY_MAX_EVENTS, bytes: HISTORY_MAX_BYTES, age: HISTORY_MAX_AGE }
    }
}

/// Where commands go. Both engines are one.
#[async_trait]
pub(crate) trait Proposer: Send + Sync + 'static {
    async fn propose(&self, command: Command) -> Result<Outcome>;
    fn replica(&self) -> &Replica;
    fn leads(&self) -> bool;
}

/// The engine's handle on its housekeeper.
pub(crate) struct Keeper {
    signals: Arc<Signals>,
    retention: Retention,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Signals {
    wake: Notify,
    /// Leases granted since the task last looked; it empties this every time it wakes.
    granted: Mutex<Vec<LeaseId>>,
}

impl Keeper {
    pub(crate) fn new(retention: Retention) -> Keeper {
        Keeper { signals: Arc::default(), retention, stop: CancellationToken::new(), task: Mutex::new(None) }
    }

    /// Starts the task. It ends with the engine.
    pub(crate) fn start<P: Proposer>(&self, proposer: Weak<P>, clock: Clock) {
        let housekeeping = Housekeeping {
            proposer,
            clock,
            signals: self.signals.clone(),
            retention: self.retention,
            deadlines: BTreeSet::new(),
            marks: VecDeque::new(),
            led: false,
        };
        let task = self.stop.clone().run_until_cancelled_owned(housekeeping.run());
        *self.task.lock() = Some(tokio::spawn(async move {
            task.await;
        }));
    }

    /// Tells the task of what was applied.
    pub(crate) fn applied(&self, replica: &Replica, outcomes: &[Result<Outcome>]) {
        let mut wake = false;
        for outcome in outcomes {
            if let Ok(Outcome::Granted(lease)) = outcome {
                self.signals.granted.lock().push(*lease);
                wake = true;
            }
        }
        if wake || replica.exceeds(self.retention.events, self.retention.bytes) {
            self.wake();
        }
    }

    /// Makes the task look again: who leads has changed.
    pub(crate) fn wake(&self) {
        self.signals.wake.notify_one();
    }

    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        let task = self.task.lock().take();
        if let Some(task) = task {
            // It can only have been cancelled by the end of the runtime.
            let _ = task.await;
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The task.
struct Housekeeping<P> {
    proposer: Weak<P>,
    clock: Clock,
    signals: Arc<Signals>,
    retention: Retention,
    deadlines: BTreeSet<(Duration, LeaseId)>,
    /// Which revision was the newest one when, oldest first; at most [`AGE_STEPS`] and one.
    marks: VecDeque<(Duration, Revision)>,
    led: bool,
}

impl<P: Proposer> Housekeeping<P> {
    async fn run(mut self) {
        loop {
            let Some(proposer) = self.proposer.upgrade() else {
                return;
            };
            self.follow_leadership(&*proposer);
            let next = if self.led { self.keep(&*proposer).await } else { None };
            // The engine must be able to go while this task waits.
            drop(proposer);
            let woken = self.signals.wake.notified();
            match next {
                Some(deadline) => tokio::select! {
                    biased;
                    () = woken => {}
                    () = self.clock.sleep_until(deadline) => {}
                },
                None => woken.await,
            }
        }
    }

    fn follow_leadership(&mut self, proposer: &P) {
        let (now, leads) = (self.clock.monotonic(), proposer.leads());
        let granted = std::mem::take(&mut *self.signals.granted.lock());
        let replica = proposer.replica();
        if leads && !self.led {
            self.deadlines =
                replica.leases().into_iter().map(|(lease, ttl)| (now.saturating_add(ttl), lease)).collect();
            self.marks = [(now, replica.revision())].into();
        } else if leads {
            let deadline = |lease| Some((now.saturating_add(replica.lease_ttl(lease)?), lease));
            self.deadlines.extend(granted.into_iter().filter_map(deadline));
        } else {
            self.deadlines.clear();
            self.marks.clear();
        }
        self.led = leads;
    }

    /// Does what is due; says when the next thing will be.
    async fn keep(&mut self, proposer: &P) -> Option<Duration> {
        let expired = self.expire(proposer).await;
        let compacted = self.compact(proposer).await;
        match (expired, compacted) {
            (Ok(()), Ok(())) => {
                let next_mark = self.marks.back().map(|(at, _)| at.saturating_add(self.retention.age / AGE_STEPS));
                self.deadlines.first().map(|(deadline, _)| *deadline).into_iter().chain(next_mark).min()
            }
            // Nothing will be written here any more.
            (Err(Error::ReadOnly { .. } | Error::Closed), _) | (_, Err(Error::ReadOnly { .. } | Error::Closed)) => None,
            (Err(error), _) | (_, Err(error)) => {
                tracing::debug!(%error, "housekeeping of the store will be tried again");
                Some(self.clock.monotonic().saturating_add(RETRY_INTERVAL))
            }
        }
    }

    async fn expire(&mut self, proposer: &P) -> Result<()> {
        while let Some((deadline, lease)) = self.deadlines.first().copied() {
            if deadline > self.clock.monotonic() {
                break;
            }
            // It may have been revoked meanwhile.
            if proposer.replica().lease_ttl(lease).is_some() {
                match proposer.propose(Command::RevokeLease { lease }).await {
                    Ok(_) | Err(Error::LeaseNotFound(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            self.deadlines.remove(&(deadline, lease));
        }
        Ok(())
    }

    async fn compact(&mut self, proposer: &P) -> Result<()> {
        let (now, replica) = (self.clock.monotonic(), proposer.replica());
        let mut at = replica.excess(self.retention.events, self.retention.bytes);
        while let Some((marked, revision)) = self.marks.front().copied() {
            if marked.saturating_add(self.retention.age) > now {
                break;
            }
            at = at.max(Some(revision));
            self.marks.pop_front();
        }
        let step = self.retention.age / AGE_STEPS;
        if self.marks.back().is_none_or(|(marked, _)| marked.saturating_add(step) <= now) {
            self.marks.push_back((now, replica.revision()));
        }
        match at.filter(|at| *at > replica.compacted()) {
            Some(at) => proposer.propose(Command::Compact { at }).await.map(drop),
            None => Ok(()),
        }
    }
}
