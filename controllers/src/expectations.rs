//! What a controller has done and not seen yet. Its informer is a moment behind: until the pods that it created are
//! there, a second look would create them again. (Kubernetes: `pkg/controller/controller_utils.go`, `UIDTrackingControllerExpectations`.)

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use minik8s_clock::Clock;
use parking_lot::Mutex;

/// An expectation that is not met within this time is given up: an event was lost, and the listers are right.
const TIMEOUT: Duration = Duration::from_secs(300);

struct Expected {
    creations: i64,
    deletions: BTreeSet<String>,
    since: Duration,
}

/// Expectations by the key of the object that owns the pods.
pub struct Expectations {
    by_key: Mutex<BTreeMap<String, Expected>>,
    clock: Clock,
}

impl Expectations {
    /// None.
    pub fn new(clock: Clock) -> Self {
        Self { by_key: Mutex::default(), clock }
    }

    /// Expects that many new pods.
    pub fn expect_creations(&self, key: &str, count: usize) {
        self.expect(key, count, []);
    }

    /// Expects these pods (UIDs) to go.
    pub fn expect_deletions(&self, key: &str, uids: impl IntoIterator<Item = String>) {
        self.expect(key, 0, uids);
    }

    /// Expects that many new pods, and these (UIDs) to go. What was expected before is forgotten.
    pub fn expect(&self, key: &str, creations: usize, deletions: impl IntoIterator<Item = String>) {
        let expected = Expected {
            creations: creations as i64,
            deletions: deletions.into_iter().collect(),
            since: self.clock.monotonic(),
        };
        self.by_key.lock().insert(key.to_owned(), expected);
    }

    /// A pod was seen to come; or its creation failed, and it never will.
    pub fn creation_observed(&self, key: &str) {
        if let Some(expected) = self.by_key.lock().get_mut(key) {
            expected.creations -= 1;
        }
    }

    /// A pod was seen to go, or to be on its way.
    pub fn deletion_observed(&self, key: &str, uid: &str) {
        if let Some(expected) = self.by_key.lock().get_mut(key) {
            expected.deletions.remove(uid);
        }
    }

    /// Whether all that was done has been seen.
    pub fn satisfied(&self, key: &str) -> bool {
        self.by_key.lock().get(key).is_none_or(|expected| {
            expected.creations <= 0 && expected.deletions.is_empty()
                || self.clock.monotonic() - expected.since > TIMEOUT
        })
    }

    /// Forgets the key.
    pub fn forget(&self, key: &str) {
        self.by_key.lock().remove(key);
    }
}
