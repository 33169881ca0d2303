//! The applied side of an engine: the state, who reads it and who watches it. Engines differ in how
//! commands come to it.

use crate::{
    Error, KeyValue, LeaseId, Range, RangeResponse, Result, Revision, Snapshot, Watch,
    command::{Command, Outcome},
    state::{State, StateImage},
    watch::Hub,
};
use parking_lot::RwLock;
use std::{sync::Arc, time::Duration};

pub(crate) struct Replica {
    state: RwLock<State>,
    hub: Arc<Hub>,
}

/// The figures of a replica, for [`StoreStatus`](crate::StoreStatus).
pub(crate) struct Figures {
    pub(crate) revision: Revision,
    pub(crate) compacted: Revision,
    pub(crate) keys: usize,
    pub(crate) bytes: usize,
    pub(crate) history_events: usize,
    pub(crate) history_bytes: usize,
    pub(crate) leases: usize,
    pub(crate) watches: usize,
}

impl Replica {
    pub(crate) fn new(state: State) -> Replica {
        let hub = Hub::new(state.revision());
        Replica { state: RwLock::new(state), hub }
    }

    /// Applies commands in order and hands their changes to the watchers, before anybody can read
    /// them: who has seen a revision and asks a watch for its progress hears of no less. One caller
    /// at a time: the order of calls is the order of revisions.
    pub(crate) fn apply(&self, commands: impl IntoIterator<Item = Command>) -> Vec<Result<Outcome>> {
        let mut state = self.state.write();
        let apply = |command| {
            let applied = state.apply(command);
            if let Some(events) = &applied.events {
                self.hub.dispatch(events);
            }
            applied.outcome
        };
        commands.into_iter().map(apply).collect()
    }

    /// Replaces the state by a newer one that came as a snapshot. The watchers missed what lies
    /// between and have to list again.
    pub(crate) fn replace(&self, state: State) {
        let mut current = self.state.write();
        let (requested, compacted) = (current.revision(), state.revision());
        *current = state;
        self.hub.jump(compacted, &Error::Compacted { requested, compacted });
    }

    pub(crate) fn revision(&self) -> Revision {
        self.state.read().revision()
    }

    pub(crate) fn compacted(&self) -> Revision {
        self.state.read().compacted()
    }

    pub(crate) fn get(&self, key: &str) -> Option<KeyValue> {
        self.state.read().get(key)
    }

    pub(crate) fn range(&self, range: &Range) -> Result<RangeResponse> {
        self.state.read().range(range)
    }

    pub(crate) fn watch(&self, prefix: &str, after: Revision) -> Result<Watch> {
        let state = self.state.read();
        let backlog = state.changes(prefix, after)?;
        self.hub.watch(prefix, after.max(state.revision()), backlog)
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot::of(&self.state.read())
    }

    pub(crate) fn image(&self) -> Arc<StateImage> {
        Arc::new(self.state.read().image())
    }

    /// Whether more history is kept than the bounds allow.
    pub(crate) fn exceeds(&self, max_events: usize, max_bytes: usize) -> bool {
        self.state.read().history().exceeds(max_events, max_bytes)
    }

    /// Where to compact if so.
    pub(crate) fn excess(&self, max_events: usize, max_bytes: usize) -> Option<Revision> {
        self.state.read().history().excess(max_events, max_bytes)
    }

    pub(crate) fn leases(&self) -> Vec<(LeaseId, Duration)> {
        self.state.read().leases().iter().collect()
    }

    pub(crate) fn lease_ttl(&self, lease: LeaseId) -> Option<Duration> {
        self.state.read().leases().ttl(lease)
    }

    pub(crate) fn figures(&self) -> Figures {
        let state = self.state.read();
        Figures {
            revision: state.revision(),
            compacted: state.compacted(),
            keys: state.keys(),
            bytes: state.bytes(),
            history_events: state.history().events(),
            history_bytes: state.history().bytes(),
            leases: state.leases().len(),
            watches: self.hub.len(),
        }
    }

    pub(crate) fn close(&self) {
        self.hub.close(&Error::Closed);
    }
}
