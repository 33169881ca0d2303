//! The extension points: what a plugin may do, and when. (Kubernetes: `staging/…/kube-scheduler/framework/interface.go`.)

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::cache::Snapshot;
use crate::node_info::{NodeInfo, PodInfo};

/// The best score of a node by one plugin; the worst is 0.
pub const MAX_NODE_SCORE: i64 = 100;

/// Why a node, or every node, is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The reasons, as users read them.
    pub reasons: Vec<String>,
    /// Whether evicting other pods from the node cannot help.
    pub unresolvable: bool,
    /// The plugin that refused.
    pub plugin: &'static str,
}

/// `Ok` where a plugin has no objection.
pub type Verdict = Result<(), Rejection>;

impl Rejection {
    /// A refusal that evicting other pods might lift.
    pub fn unschedulable(plugin: &'static str, reason: impl Into<String>) -> Self {
        Self { reasons: vec![reason.into()], unresolvable: false, plugin }
    }

    /// A refusal that lies in the node itself.
    pub fn unresolvable(plugin: &'static str, reason: impl Into<String>) -> Self {
        Self { reasons: vec![reason.into()], unresolvable: true, plugin }
    }
}

/// What plugins keep between the extension points of one cycle, by plugin name.
#[derive(Clone, Default)]
pub struct CycleState {
    values: BTreeMap<&'static str, Arc<dyn Any + Send + Sync>>,
}

impl CycleState {
    /// Keeps a value.
    pub fn write<T: Send + Sync + 'static>(&mut self, key: &'static str, value: T) {
        self.values.insert(key, Arc::new(value));
    }

    /// A value kept before under the same key.
    pub fn read<T: Send + Sync + 'static>(&self, key: &'static str) -> Option<&T> {
        self.values.get(key).and_then(|value| value.downcast_ref())
    }
}

/// A change in the cluster that may make room for a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClusterEvent {
    /// A node came.
    NodeAdded,
    /// A node may allocate something else.
    NodeAllocatable,
    /// A node's labels changed.
    NodeLabels,
    /// A node's taints, or whether it may be scheduled on, changed.
    NodeTaints,
    /// A pod was bound somewhere.
    PodBound,
    /// The labels of a bound pod changed.
    PodLabels,
    /// A bound pod is gone, or has ended.
    PodGone,
    /// A bound pod requests less than it did.
    PodShrunk,
    /// A claim came, changed or was bound.
    ClaimChanged,
}

/// A plugin has a name, and knows which changes may lift its refusals.
pub trait Plugin: Send + Sync {
    /// Its name, as in Kubernetes.
    fn name(&self) -> &'static str;

    /// The changes after which a pod that it refused is worth another attempt.
    fn events(&self) -> &'static [ClusterEvent];

    /// The plugin as what it implements.
    fn pre_enqueue(&self) -> Option<&dyn PreEnqueue> {
        None
    }
    /// The plugin as what it implements.
    fn pre_filter(&self) -> Option<&dyn PreFilter> {
        None
    }
    /// The plugin as what it implements.
    fn filter(&self) -> Option<&dyn Filter> {
        None
    }
    /// The plugin as what it implements.
    fn post_filter(&self) -> Option<&dyn PostFilter> {
        None
    }
    /// The plugin as what it implements.
    fn pre_score(&self) -> Option<&dyn PreScore> {
        None
    }
    /// The plugin as what it implements.
    fn score(&self) -> Option<&dyn Score> {
        None
    }
}

/// Before a pod may enter the queue.
pub trait PreEnqueue: Send + Sync {
    /// Whether the pod may be tried at all.
    fn pre_enqueue(&self, pod: &PodInfo) -> Verdict;
}

/// Once a cycle, before the nodes are looked at.
pub trait PreFilter: Send + Sync {
    /// Prepares what the filter needs. May narrow the nodes down, or refuse them all.
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<Option<BTreeSet<String>>, Rejection>;

    /// Takes the effect of a pod that would leave the node out of what was prepared (preemption tries this).
    fn remove_pod(&self, _state: &mut CycleState, _pod: &PodInfo, _victim: &PodInfo, _node: &NodeInfo) {}
}

/// May the pod run there?
pub trait Filter: Send + Sync {
    /// The verdict on one node.
    fn filter(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Verdict;
}

/// Whether the pod would fit on a node from which these pods are gone.
pub type Fits<'a> = &'a dyn Fn(&CycleState, &NodeInfo, &[Arc<PodInfo>]) -> bool;

/// What is to be done when no node fits.
pub trait PostFilter: Send + Sync {
    /// Finds a node on which evicting `victims` makes room; or says, in words, why there is none.
    fn post_filter(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        refused: &[(String, Rejection)],
        fits: Fits<'_>,
    ) -> Result<Nomination, String>;
}

/// A node that will do once these pods are gone.
#[derive(Clone)]
pub struct Nomination {
    /// The node.
    pub node: String,
    /// The pods that must go.
    pub victims: Vec<Arc<PodInfo>>,
}

/// Once a cycle, before the nodes that fit are compared.
pub trait PreScore: Send + Sync {
    /// Prepares what the score needs.
    fn pre_score(&self, state: &mut CycleState, pod: &PodInfo, snapshot: &Snapshot, nodes: &[Arc<NodeInfo>]);
}

/// How well does the node suit?
pub trait Score: Send + Sync {
    /// How much the score counts.
    fn weight(&self) -> i64;

    /// The score of one node; in any range where [`Score::normalize`] brings it to 0 to [`MAX_NODE_SCORE`].
    fn score(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64;

    /// Brings the scores of all nodes to 0 to [`MAX_NODE_SCORE`].
    fn normalize(&self, _state: &CycleState, _nodes: &[Arc<NodeInfo>], _scores: &mut [i64]) {}
}

/// Scales scores so that the largest becomes [`MAX_NODE_SCORE`]; with `reverse`, the largest becomes the worst.
pub fn default_normalize(scores: &mut [i64], reverse: bool) {
    let max = scores.iter().copied().max().unwrap_or(0);
    if max == 0 {
        if reverse {
            scores.fill(MAX_NODE_SCORE);
        }
        return;
    }
    for score in scores {
        *score = MAX_NODE_SCORE * *score / max;
        if reverse {
            *score = MAX_NODE_SCORE - *score;
        }
    }
}
