//! Pod workers: one for each pod (by UID) that this node has to do with, from its binding until nothing of it is left.
//!
//! A worker is a record, not a task: what arrives from the API is put into its [`Input`], its UID goes into the work
//! queue, and a task exists only while a sync runs. The queue hands out a UID to one task at a time, so syncs of a pod
//! never overlap. (kubelet: `pod_workers.go`.)

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::certificates::Certificates;
use crate::probe::Probes;
use crate::spec::PodExt as _;
use crate::status::{Forced, StartFailure};
use crate::tokens::Tokens;
use crate::volumes::Mounted;
use crate::volumes::claim::Claims;

/// What is known about a pod from outside.
#[derive(Clone, Debug)]
pub struct Input {
    /// The pod as it was last seen.
    pub pod: Arc<Pod>,
    /// Whether it is no longer in the API (or its manifest is gone).
    pub gone: bool,
}

impl Input {
    /// Whether the pod has to end.
    pub fn is_ending(&self) -> bool {
        self.gone || self.pod.metadata.deletion_timestamp.is_some()
    }

    /// How many seconds its containers have to end.
    pub fn grace_period_seconds(&self) -> i64 {
        /// What the API server defaults `terminationGracePeriodSeconds` to.
        const DEFAULT: i64 = 30;
        let metadata = &self.pod.metadata;
        let deletion = metadata.deletion_timestamp.as_ref().and(metadata.deletion_grace_period_seconds);
        // Even a forced deletion lets the process see the signal.
        deletion.or(self.pod.spec().termination_grace_period_seconds).unwrap_or(DEFAULT).max(1)
    }
}

/// What a sync remembers for the next one.
#[derive(Debug)]
pub struct SyncState {
    /// When this kubelet first saw the pod.
    pub start_time: Timestamp,
    /// Whether the pod may run here.
    pub admitted: bool,
    /// A verdict on the whole pod.
    pub forced: Option<Forced>,
    /// The status the API has, as far as this kubelet knows.
    pub status: Option<PodStatus>,
    /// Why containers could not be started.
    pub failures: BTreeMap<String, StartFailure>,
    /// Until when containers wait for a restart that was reported.
    pub reported_waits: BTreeMap<String, Timestamp>,
    /// Containers (by id) that were stopped to be started with other resources.
    pub resized: BTreeSet<String>,
    /// Whether the runtime refused a resize in this sync.
    pub resize_failed: bool,
    /// The pod's volumes on the node.
    pub mounted: Mounted,
    /// How often setting up the volumes failed in a row.
    pub mount_failures: u32,
    /// What its claims lead to.
    pub claims: Claims,
    /// The tokens in its volumes.
    pub tokens: Tokens,
    /// The certificates in its volumes.
    pub certificates: Certificates,
    /// Whether everything of the pod has ended and will not come back.
    pub terminated: bool,
    /// What of it is not supported and has been reported.
    pub reported_unsupported: bool,
}

/// One pod on this node.
pub struct PodWorker {
    /// The pod's UID.
    pub uid: String,
    /// What is known from outside.
    input: Mutex<Input>,
    /// Wakes a termination when its grace period may have changed.
    pub changed: Notify,
    /// Interrupts a sync that runs the pod, once it has to end.
    pub ending: CancellationToken,
    /// What syncs remember.
    pub state: tokio::sync::Mutex<SyncState>,
    /// Its probes and their results.
    pub probes: Mutex<Probes>,
    /// Whether the last sync found the node without a network.
    pub waits_for_network: AtomicBool,
    /// Whether it was decided if the pod may run here.
    pub decided: AtomicBool,
}

impl PodWorker {
    /// A worker for a pod that was just seen.
    pub fn new(pod: Arc<Pod>, now: Timestamp) -> Self {
        let state = SyncState {
            start_time: now,
            admitted: false,
            forced: None,
            status: None,
            failures: BTreeMap::new(),
            reported_waits: BTreeMap::new(),
            resized: BTreeSet::new(),
            resize_failed: false,
            mounted: Mounted::default(),
            mount_failures: 0,
            claims: Claims::default(),
            tokens: Tokens::default(),
            certificates: Certificates::default(),
            terminated: false,
            reported_unsupported: false,
        };
        let worker = Self {
            uid: pod.uid().to_owned(),
            input: Mutex::new(Input { pod: pod.clone(), gone: false }),
            changed: Notify::new(),
            ending: CancellationToken::new(),
            state: tokio::sync::Mutex::new(state),
            probes: Mutex::new(Probes::default()),
            waits_for_network: AtomicBool::new(false),
            decided: AtomicBool::new(false),
        };
        worker.update(Input { pod, gone: false });
        worker
    }

    /// Takes in what came from outside. What has begun to end does not come back.
    pub fn update(&self, input: Input) {
        if input.is_ending() {
            self.ending.cancel();
        }
        *self.input.lock() = input;
        self.changed.notify_waiters();
    }

    /// What is known from outside.
    pub fn input(&self) -> Input {
        self.input.lock().clone()
    }
}
