//! Leases and the keys that live by them. When one expires is not decided here: that takes a clock.

use super::lease_id;
use crate::LeaseId;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

#[derive(Default)]
pub(crate) struct Leases {
    live: BTreeMap<LeaseId, Lease>,
    granted: u64,
}

struct Lease {
    ttl: Duration,
    keys: BTreeSet<Arc<str>>,
}

impl Leases {
    pub(crate) fn grant(&mut self, ttl: Duration) -> LeaseId {
        self.granted += 1;
        let id = lease_id(self.granted);
        self.live.insert(id, Lease { ttl, keys: BTreeSet::new() });
        id
    }

    pub(crate) fn contains(&self, id: LeaseId) -> bool {
        self.live.contains_key(&id)
    }

    pub(crate) fn ttl(&self, id: LeaseId) -> Option<Duration> {
        self.live.get(&id).map(|lease| lease.ttl)
    }

    pub(crate) fn len(&self) -> usize {
        self.live.len()
    }

    pub(crate) fn granted(&self) -> u64 {
        self.granted
    }

    /// All leases with their time to live, by id.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (LeaseId, Duration)> {
        self.live.iter().map(|(id, lease)| (*id, lease.ttl))
    }

    /// Ends a lease; its keys are the caller's to delete.
    pub(super) fn remove(&mut self, id: LeaseId) -> Option<BTreeSet<Arc<str>>> {
        self.live.remove(&id).map(|lease| lease.keys)
    }

    pub(super) fn move_key(&mut self, key: &Arc<str>, from: Option<LeaseId>, to: Option<LeaseId>) {
        if from == to {
            return;
        }
        if let Some(lease) = from.and_then(|id| self.live.get_mut(&id)) {
            lease.keys.remove(key);
        }
        if let Some(lease) = to.and_then(|id| self.live.get_mut(&id)) {
            lease.keys.insert(key.clone());
        }
    }

    /// Takes over what a snapshot holds; false if an id was never granted.
    pub(super) fn restore(&mut self, granted: u64, live: impl IntoIterator<Item = (LeaseId, Duration)>) -> bool {
        self.granted = granted;
        self.live = live.into_iter().map(|(id, ttl)| (id, Lease { ttl, keys: BTreeSet::new() })).collect();
        self.live.last_key_value().is_none_or(|(id, _)| id.0.get() <= granted)
    }
}
