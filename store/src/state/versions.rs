//! The versions of one key.

use crate::{KeyValue, LeaseId, Revision};
use bytes::Bytes;
use std::sync::Arc;

/// What a key was from `mod_revision` on. Without a value it did not exist.
#[derive(Clone)]
pub(crate) struct Version {
    pub(crate) value: Option<Bytes>,
    pub(crate) create_revision: Revision,
    pub(crate) mod_revision: Revision,
    pub(crate) lease: Option<LeaseId>,
}

impl Version {
    pub(crate) fn lives(&self) -> bool {
        self.value.is_some()
    }

    pub(crate) fn key_value(&self, key: &Arc<str>) -> Option<KeyValue> {
        self.value.as_ref().map(|value| KeyValue {
            key: key.clone(),
            value: value.clone(),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            lease: self.lease,
        })
    }
}

/// All versions of a key that can be read. Most keys have one, which takes no allocation.
#[derive(Clone)]
pub(crate) struct Versions {
    pub(crate) newest: Version,
    /// Oldest first.
    older: Vec<Version>,
}

impl Versions {
    pub(crate) fn new(newest: Version) -> Self {
        Versions { newest, older: Vec::new() }
    }

    pub(crate) fn push(&mut self, version: Version) {
        self.older.push(std::mem::replace(&mut self.newest, version));
    }

    /// What the key was at a revision; none if it has no version that old.
    pub(crate) fn at(&self, revision: Revision) -> Option<&Version> {
        if self.newest.mod_revision <= revision {
            return Some(&self.newest);
        }
        let newer = self.older.partition_point(|version| version.mod_revision <= revision);
        newer.checked_sub(1).map(|index| &self.older[index])
    }

    /// Drops versions that ended before `revision`, and a tombstone that nothing precedes. False if
    /// nothing is left.
    pub(crate) fn forget_before(&mut self, revision: Revision) -> bool {
        let mut ended = self.older.partition_point(|version| version.mod_revision < revision);
        if self.older.get(ended).is_some_and(|version| version.mod_revision == revision && !version.lives()) {
            ended += 1;
        }
        if ended > 0 {
            self.older.drain(..ended);
            if self.older.is_empty() {
                self.older = Vec::new();
            } else if self.older.capacity() > 4 * self.older.len() {
                self.older.shrink_to_fit();
            }
        }
        !self.older.is_empty() || self.newest.lives() || self.newest.mod_revision > revision
    }

    pub(crate) fn len(&self) -> usize {
        self.older.len() + 1
    }

    /// Oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Version> {
        self.older.iter().chain([&self.newest])
    }
}
