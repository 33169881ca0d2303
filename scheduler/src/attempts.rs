//! What was decided, and why: the last attempts with every node's verdict and scores, for those who ask later.

use std::collections::{BTreeMap, VecDeque};

use k8s_openapi::jiff::Timestamp;

use crate::framework::Rejection;

/// How many attempts are remembered.
pub const REMEMBERED: usize = 1000;

/// One attempt at one pod.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// When.
    pub at: Timestamp,
    /// The pod, as `namespace/name`.
    pub pod: String,
    /// The pod's UID.
    pub uid: String,
    /// The node that was chosen.
    pub chosen: Option<String>,
    /// What the pod's event says where none was.
    pub message: Option<String>,
    /// Each node's verdict.
    pub nodes: BTreeMap<String, NodeVerdict>,
}

/// What came out for one node.
#[derive(Clone, Debug)]
pub enum NodeVerdict {
    /// A filter refused it.
    Refused(Rejection),
    /// It would do: its weighted score by plugin.
    Scored(Vec<(&'static str, i64)>),
}

/// The ring of attempts, newest last.
#[derive(Default)]
pub struct Attempts {
    ring: VecDeque<Attempt>,
}

impl Attempts {
    /// Remembers an attempt.
    pub fn push(&mut self, attempt: Attempt) {
        if self.ring.len() == REMEMBERED {
            self.ring.pop_front();
        }
        self.ring.push_back(attempt);
    }

    /// The attempts at a pod (`namespace/name`), oldest first.
    pub fn of(&self, pod: &str) -> Vec<Attempt> {
        self.ring.iter().filter(|attempt| attempt.pod == pod).cloned().collect()
    }
}
