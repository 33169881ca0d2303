//! A pod that fits nowhere may take the place of pods of lower priority.
//!
//! Left out: PodDisruptionBudgets are not asked yet when victims are chosen.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::cache::Snapshot;
use crate::framework::{ClusterEvent, CycleState, Fits, Nomination, Plugin, PostFilter, Rejection};
use crate::node_info::{NodeInfo, PodInfo};
use crate::schedule_one::unavailable;

/// The plugin's name.
pub const NAME: &str = "DefaultPreemption";

/// See the module.
pub struct DefaultPreemption;

impl Plugin for DefaultPreemption {
    fn name(&self) -> &'static str {
        NAME
    }
    fn events(&self) -> &'static [ClusterEvent] {
        &[]
    }
    fn post_filter(&self) -> Option<&dyn PostFilter> {
        Some(self)
    }
}

impl PostFilter for DefaultPreemption {
    fn post_filter(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        refused: &[(String, Rejection)],
        fits: Fits<'_>,
    ) -> Result<Nomination, String> {
        const PREFIX: &str = "preemption:";
        if pod.pod.spec.as_ref().and_then(|spec| spec.preemption_policy.as_deref()) == Some("Never") {
            return Err(format!("{PREFIX} not eligible due to preemptionPolicy=Never."));
        }
        let mut candidates = Vec::new();
        let mut reasons = Vec::new();
        for (name, rejection) in refused {
            let Some(node) = snapshot.node(name) else {
                continue;
            };
            if rejection.unresolvable {
                reasons.push("Preemption is not helpful for scheduling");
            } else {
                match victims(state, pod, node, fits) {
                    Ok(victims) => candidates.push(Nomination { node: name.clone(), victims }),
                    Err(reason) => reasons.push(reason),
                }
            }
        }
        // The least harm: the highest victim lowest, then the lowest sum, then the fewest.
        let harm = |candidate: &Nomination| {
            let highest = candidate.victims.iter().map(|victim| victim.priority()).max();
            let sum: i64 = candidate.victims.iter().map(|victim| i64::from(victim.priority())).sum();
            (highest, sum, candidate.victims.len(), candidate.node.clone())
        };
        match candidates.into_iter().min_by_key(harm) {
            Some(best) => Ok(best),
            None => {
                let words = unavailable(snapshot.nodes().len(), reasons.into_iter());
                Err(format!("{PREFIX} {words}"))
            }
        }
    }
}

/// The fewest pods that must leave the node for `pod` to fit.
fn victims(
    state: &CycleState,
    pod: &PodInfo,
    node: &Arc<NodeInfo>,
    fits: Fits<'_>,
) -> Result<Vec<Arc<PodInfo>>, &'static str> {
    let mut lower: Vec<_> = node.pods.iter().filter(|other| other.priority() < pod.priority()).cloned().collect();
    if lower.is_empty() {
        return Err("No preemption victims found for incoming pod");
    }
    let without = |gone: &[Arc<PodInfo>]| {
        let mut node = NodeInfo::clone(node);
        for victim in gone {
            node.remove_pod(victim.uid());
        }
        fits(state, &node, gone)
    };
    if !without(&lower) {
        return Err("No preemption victims found for incoming pod");
    }
    // The most important ones, and of those the oldest, are spared first.
    lower.sort_by_key(|victim| {
        let started = victim.pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
        (Reverse(victim.priority()), started)
    });
    let mut gone = lower.clone();
    for victim in lower {
        let fewer: Vec<_> = gone.iter().filter(|other| other.uid() != victim.uid()).cloned().collect();
        if without(&fewer) {
            gone = fewer;
        }
    }
    Ok(gone)
}
