//! One pod against one snapshot: the scheduling cycle, without any I/O. (Kubernetes: `pkg/scheduler/schedule_one.go`.)

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use minik8s_clock::Random;

use crate::attempts::NodeVerdict;
use crate::cache::Snapshot;
use crate::framework::{CycleState, Nomination, Plugin, Rejection};
use crate::node_info::{NodeInfo, PodInfo};

/// Clusters smaller than this are searched whole.
const MIN_FEASIBLE_NODES: usize = 100;
/// Never fewer than this share of the nodes is searched, in percent.
const MIN_FEASIBLE_PERCENT: usize = 5;

/// What came out of a cycle.
pub struct Outcome {
    /// The node, or why there is none.
    pub result: Result<String, FitError>,
    /// Each node's verdict.
    pub verdicts: BTreeMap<String, NodeVerdict>,
    /// Where the next search begins, so that all nodes of a large cluster get their turn.
    pub next_start: usize,
}

/// No node fits.
pub struct FitError {
    /// What users read.
    pub message: String,
    /// The plugins that refused.
    pub plugins: BTreeSet<&'static str>,
    /// A node that will do once some pods are evicted.
    pub nomination: Option<Nomination>,
}

/// The profile: the plugins in their order.
pub struct Framework {
    plugins: Arc<Vec<Box<dyn Plugin>>>,
    /// How many of the nodes are enough, in percent; 0 where the size of the cluster says so.
    percent: usize,
}

impl Framework {
    /// A framework of these plugins.
    pub fn new(plugins: Arc<Vec<Box<dyn Plugin>>>) -> Self {
        Self { plugins, percent: 0 }
    }

    /// The same, content with so many percent of the nodes; 0 lets it choose.
    pub fn scoring(mut self, percent: u32) -> Self {
        self.percent = percent as usize;
        self
    }

    /// Finds the node for `pod`.
    pub fn schedule(&self, pod: &PodInfo, snapshot: &Snapshot, start: usize, random: &Random) -> Outcome {
        let all = snapshot.nodes().len();
        let mut outcome = Outcome { result: Ok(String::new()), verdicts: BTreeMap::new(), next_start: start };
        if all == 0 {
            outcome.result = Err(FitError {
                message: "no nodes available to schedule pods".to_owned(),
                plugins: BTreeSet::from([crate::plugins::node_name::NAME]),
                nomination: None,
            });
            return outcome;
        }
        let mut state = CycleState::default();
        let allowed = match self.pre_filter(&mut state, pod, snapshot) {
            Ok(allowed) => allowed,
            Err(rejection) => {
                outcome.result = Err(refused_everywhere(rejection, all));
                return outcome;
            }
        };
        let (fit, refused) = self.filter(&state, pod, snapshot, allowed.as_ref(), &mut outcome);
        if fit.is_empty() {
            outcome.result = Err(self.post_filter(&state, pod, snapshot, &refused, all));
            return outcome;
        }
        let totals = self.score(&mut state, pod, snapshot, &fit, &mut outcome);
        let best = totals.iter().copied().max().unwrap_or(0);
        let ties: Vec<usize> = (0..fit.len()).filter(|at| totals[*at] == best).collect();
        let chosen = ties[random.below(ties.len() as u64) as usize];
        outcome.result = Ok(fit[chosen].name().to_owned());
        outcome
    }

    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<Option<BTreeSet<String>>, Rejection> {
        let mut allowed: Option<BTreeSet<String>> = None;
        for plugin in self.plugins.iter().filter_map(|plugin| plugin.pre_filter()) {
            if let Some(names) = plugin.pre_filter(state, pod, snapshot)? {
                allowed = Some(match allowed {
                    Some(before) => before.intersection(&names).cloned().collect(),
                    None => names,
                });
            }
        }
        Ok(allowed)
    }

    #[allow(clippy::type_complexity, reason = "two lists, named where they are used")]
    fn filter(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        allowed: Option<&BTreeSet<String>>,
        outcome: &mut Outcome,
    ) -> (Vec<Arc<NodeInfo>>, Vec<(String, Rejection)>) {
        let nodes: Vec<&Arc<NodeInfo>> = snapshot.nodes().collect();
        let enough = feasible_nodes_to_find(nodes.len(), self.percent);
        let (mut fit, mut refused) = (Vec::new(), Vec::new());
        for step in 0..nodes.len() {
            let at = (outcome.next_start + step) % nodes.len();
            let node = nodes[at];
            let verdict = match allowed {
                Some(names) if !names.contains(node.name()) => Err(Rejection::unresolvable(
                    crate::plugins::node_affinity::NAME,
                    "node(s) didn't satisfy plugin(s) [NodeAffinity]",
                )),
                _ => self.filter_one(state, pod, node),
            };
            match verdict {
                Ok(()) => fit.push(node.clone()),
                Err(rejection) => {
                    outcome.verdicts.insert(node.name().to_owned(), NodeVerdict::Refused(rejection.clone()));
                    refused.push((node.name().to_owned(), rejection));
                }
            }
            if fit.len() == enough {
                outcome.next_start = (at + 1) % nodes.len();
                break;
            }
        }
        (fit, refused)
    }

    fn filter_one(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        self.plugins.iter().filter_map(|plugin| plugin.filter()).try_for_each(|plugin| plugin.filter(state, pod, node))
    }

    fn post_filter(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        refused: &[(String, Rejection)],
        all: usize,
    ) -> FitError {
        let plugins = refused.iter().map(|(_, rejection)| rejection.plugin).collect();
        let reasons = refused.iter().flat_map(|(_, rejection)| rejection.reasons.iter().map(String::as_str));
        let mut message = unavailable(all, reasons);
        let fits = |state: &CycleState, node: &NodeInfo, gone: &[Arc<PodInfo>]| {
            let mut state = state.clone();
            for victim in gone {
                for plugin in self.plugins.iter().filter_map(|plugin| plugin.pre_filter()) {
                    plugin.remove_pod(&mut state, pod, victim, node);
                }
            }
            self.filter_one(&state, pod, node).is_ok()
        };
        let mut words = Vec::new();
        for plugin in self.plugins.iter().filter_map(|plugin| plugin.post_filter()) {
            match plugin.post_filter(state, pod, snapshot, refused, &fits) {
                Ok(nomination) => {
                    return FitError { message, plugins, nomination: Some(nomination) };
                }
                Err(why) => words.push(why),
            }
        }
        if !words.is_empty() {
            message = format!("{message} {}", words.join(", "));
        }
        FitError { message, plugins, nomination: None }
    }

    fn score(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        fit: &[Arc<NodeInfo>],
        outcome: &mut Outcome,
    ) -> Vec<i64> {
        let mut totals = vec![0; fit.len()];
        let mut parts: Vec<Vec<(&'static str, i64)>> = vec![Vec::new(); fit.len()];
        if fit.len() > 1 {
            for plugin in self.plugins.iter().filter_map(|plugin| plugin.pre_score()) {
                plugin.pre_score(state, pod, snapshot, fit);
            }
            for plugin in self.plugins.iter() {
                let Some(score) = plugin.score() else {
                    continue;
                };
                let mut scores: Vec<i64> = fit.iter().map(|node| score.score(state, pod, node)).collect();
                score.normalize(state, fit, &mut scores);
                for (at, points) in scores.into_iter().enumerate() {
                    let weighted = points * score.weight();
                    totals[at] += weighted;
                    parts[at].push((plugin.name(), weighted));
                }
            }
        }
        for (node, scored) in fit.iter().zip(parts) {
            outcome.verdicts.insert(node.name().to_owned(), NodeVerdict::Scored(scored));
        }
        totals
    }
}

/// How many nodes that fit are enough to choose from.
fn feasible_nodes_to_find(all: usize, percent: usize) -> usize {
    if all < MIN_FEASIBLE_NODES {
        return all.max(1);
    }
    let percent = match percent {
        0 => 50usize.saturating_sub(all / 125).max(MIN_FEASIBLE_PERCENT),
        chosen => chosen,
    };
    (all * percent / 100).max(MIN_FEASIBLE_NODES)
}

fn refused_everywhere(rejection: Rejection, all: usize) -> FitError {
    // The last words are those of Kubernetes' plugin for dynamic resources, which finds no state of its own then.
    let message = format!("0/{all} nodes are available: {}. not found", rejection.reasons.join(", "));
    FitError { message, plugins: BTreeSet::from([rejection.plugin]), nomination: None }
}

/// `0/3 nodes are available: 1 Too many pods, 2 Insufficient cpu.`
pub fn unavailable<'a>(all: usize, reasons: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in reasons {
        *counts.entry(reason).or_default() += 1;
    }
    let mut lines: Vec<String> = counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    lines.sort();
    if lines.is_empty() {
        return format!("0/{all} nodes are available.");
    }
    format!("0/{all} nodes are available: {}.", lines.join(", "))
}
