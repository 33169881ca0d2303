//! What a pod requests must be free on the node; of several nodes, which one is the fullest or the emptiest counts.

use crate::framework::{ClusterEvent, CycleState, Filter, MAX_NODE_SCORE, Plugin, Rejection, Score, Verdict};
use crate::node_info::{NodeInfo, PodInfo};

/// The plugin's name.
pub const NAME: &str = "NodeResourcesFit";

/// How nodes that fit are compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ScoringStrategy {
    /// The emptiest is best: pods are spread.
    #[default]
    LeastAllocated,
    /// The fullest is best: pods are packed.
    MostAllocated,
    /// A score by utilization, in percent: points between which a line is drawn.
    RequestedToCapacityRatio(Vec<(i64, i64)>),
}

/// See the module.
#[derive(Default)]
pub struct NodeResourcesFit {
    /// How nodes that fit are compared.
    pub strategy: ScoringStrategy,
}

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        NAME
    }
    fn events(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::NodeAdded, ClusterEvent::NodeAllocatable, ClusterEvent::PodGone, ClusterEvent::PodShrunk]
    }
    fn filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }
    fn score(&self) -> Option<&dyn Score> {
        Some(self)
    }
}

impl Filter for NodeResourcesFit {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Verdict {
        let (wanted, used, all) = (&pod.requests, &node.requested, &node.allocatable);
        let mut reasons = Vec::new();
        // More than the node has at all is not mended by evicting others.
        let mut unresolvable = false;
        if node.pods.len() as i64 + 1 > all.pods {
            reasons.push("Too many pods".to_owned());
        }
        let mut check = |name: &str, wanted: i64, used: i64, all: i64| {
            if wanted > 0 && wanted > all.saturating_sub(used) {
                reasons.push(format!("Insufficient {name}"));
                unresolvable |= wanted > all;
            }
        };
        check("cpu", wanted.milli_cpu, used.milli_cpu, all.milli_cpu);
        check("memory", wanted.memory, used.memory, all.memory);
        check("ephemeral-storage", wanted.ephemeral_storage, used.ephemeral_storage, all.ephemeral_storage);
        for (name, amount) in &wanted.scalar {
            let of = |amounts: &std::collections::BTreeMap<String, i64>| amounts.get(name).copied().unwrap_or(0);
            check(name, *amount, of(&used.scalar), of(&all.scalar));
        }
        if reasons.is_empty() { Ok(()) } else { Err(Rejection { reasons, unresolvable, plugin: NAME }) }
    }
}

impl Score for NodeResourcesFit {
    fn weight(&self) -> i64 {
        1
    }

    fn score(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let pairs = [
            (node.non_zero.milli_cpu + pod.non_zero.milli_cpu, node.allocatable.milli_cpu),
            (node.non_zero.memory + pod.non_zero.memory, node.allocatable.memory),
        ];
        let scores = pairs.into_iter().filter(|(_, all)| *all > 0).map(|(used, all)| self.strategy.score(used, all));
        let (count, sum) = scores.fold((0, 0), |(count, sum), score| (count + 1, sum + score));
        if count == 0 { 0 } else { sum / count }
    }
}

impl ScoringStrategy {
    fn score(&self, used: i64, all: i64) -> i64 {
        match self {
            ScoringStrategy::LeastAllocated if used > all => 0,
            ScoringStrategy::LeastAllocated => (all - used) * MAX_NODE_SCORE / all,
            ScoringStrategy::MostAllocated => used.min(all) * MAX_NODE_SCORE / all,
            ScoringStrategy::RequestedToCapacityRatio(points) => interpolate(points, used.min(all) * 100 / all),
        }
    }
}

fn interpolate(points: &[(i64, i64)], at: i64) -> i64 {
    let Some((first, last)) = points.first().zip(points.last()) else {
        return 0;
    };
    if at <= first.0 {
        return first.1;
    }
    for pair in points.windows(2) {
        let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
        if at <= x1 && x1 > x0 {
            return y0 + (y1 - y0) * (at - x0) / (x1 - x0);
        }
    }
    last.1
}
