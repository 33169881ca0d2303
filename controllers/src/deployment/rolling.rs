//! The rolling update: up with the new, down with the old, never more than `maxSurge` above the wanted size and never
//! fewer than `maxUnavailable` below it available. (Kubernetes: `pkg/controller/deployment/rolling.go`.)

use k8s_openapi::api::apps::v1::ReplicaSet;

use super::{DeploymentController, Result, Work, available, total, wanted};
use crate::rolling_update::fence;

/// `maxSurge` and `maxUnavailable` in pods. Both cannot be nothing, or nothing would ever move.
fn fences(work: &Work) -> (i32, i32) {
    let spec = work.spec();
    let Some(rolling) = spec.strategy.and_then(|strategy| strategy.rolling_update) else {
        return (0, 0);
    };
    let surge = fence(rolling.max_surge.as_ref(), work.replicas(), true);
    let unavailable = fence(rolling.max_unavailable.as_ref(), work.replicas(), false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// How many pods there may be above the wanted size.
pub(super) fn max_surge(work: &Work) -> i32 {
    if super::is_recreate(&work.deployment) { 0 } else { fences(work).0 }
}

/// How many pods of the wanted size may be missing.
pub(super) fn max_unavailable(work: &Work) -> i32 {
    if super::is_recreate(&work.deployment) || work.replicas() == 0 {
        return 0;
    }
    fences(work).1.min(work.replicas())
}

/// The size that the current ReplicaSet may have, given the others.
pub(super) fn new_replicas(work: &Work, old: &[ReplicaSet], new: &ReplicaSet) -> i32 {
    if super::is_recreate(&work.deployment) {
        return work.replicas();
    }
    let now = total(old, wanted) + wanted(new);
    let most = work.replicas() + max_surge(work);
    if now >= most {
        return wanted(new);
    }
    wanted(new) + (most - now).min(work.replicas() - wanted(new))
}

impl DeploymentController {
    pub(super) async fn rollout_rolling(&self, work: &mut Work, sets: Vec<ReplicaSet>) -> Result<()> {
        let (new, mut old) = self.sync_revision(work, sets, true).await?;
        let Some(mut new) = new else { return Ok(()) };
        let grown = self.grow(work, &mut new, &old).await?;
        if !grown && !self.shrink(work, &mut old, &new).await? && super::progress::is_complete(work) {
            self.clean_up(work, &old).await?;
        }
        self.sync_rollout_status(work, Some(&new), &old).await
    }

    async fn grow(&self, work: &Work, new: &mut ReplicaSet, old: &[ReplicaSet]) -> Result<bool> {
        let size = if wanted(new) > work.replicas() { work.replicas() } else { new_replicas(work, old, new) };
        self.resize(work, new, size).await
    }

    /// Takes away from the old ones what the new one makes up for, and first of all what never became available.
    async fn shrink(&self, work: &Work, old: &mut [ReplicaSet], new: &ReplicaSet) -> Result<bool> {
        let old_pods = total(old, wanted);
        if old_pods == 0 {
            return Ok(false);
        }
        let least = work.replicas() - max_unavailable(work);
        let new_unavailable = wanted(new) - available(new);
        let room = old_pods + wanted(new) - least - new_unavailable;
        if room <= 0 {
            return Ok(false);
        }
        old.sort_by_key(|set| set.metadata.creation_timestamp.as_ref().map(|time| time.0));
        let cleaned = self.remove_unhealthy(work, old, room).await?;
        let scaled = self.remove_available(work, old, new, least).await?;
        Ok(cleaned + scaled > 0)
    }

    async fn remove_unhealthy(&self, work: &Work, old: &mut [ReplicaSet], room: i32) -> Result<i32> {
        let mut removed = 0;
        for set in old.iter_mut() {
            if removed >= room {
                break;
            }
            let unhealthy = wanted(set) - available(set);
            if wanted(set) == 0 || unhealthy <= 0 {
                continue;
            }
            let count = unhealthy.min(room - removed);
            let size = wanted(set) - count;
            self.resize(work, set, size).await?;
            removed += count;
        }
        Ok(removed)
    }

    async fn remove_available(&self, work: &Work, old: &mut [ReplicaSet], new: &ReplicaSet, least: i32) -> Result<i32> {
        let spare = total(old, available) + available(new) - least;
        let mut removed = 0;
        for set in old.iter_mut() {
            if removed >= spare {
                break;
            }
            if wanted(set) == 0 {
                continue;
            }
            let count = wanted(set).min(spare - removed);
            let size = wanted(set) - count;
            self.resize(work, set, size).await?;
            removed += count;
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deployment::tests::{set, work};

    #[test]
    fn percentages_round_so_that_a_rollout_is_careful_and_moves() {
        let rolling = |surge: &str, unavailable: &str, replicas: i32| {
            let work = work(replicas, surge, unavailable);
            (max_surge(&work), max_unavailable(&work))
        };
        assert_eq!(rolling("\"25%\"", "\"25%\"", 3), (1, 0));
        assert_eq!(rolling("\"25%\"", "\"25%\"", 10), (3, 2));
        assert_eq!(rolling("0", "\"10%\"", 3), (0, 1));
        assert_eq!(rolling("1", "5", 3), (1, 3));
    }

    #[test]
    fn the_new_set_grows_within_the_surge() {
        let work = work(3, "1", "0");
        assert_eq!(new_replicas(&work, &[set("old", 3)], &set("new", 0)), 1);
        assert_eq!(new_replicas(&work, &[set("old", 3)], &set("new", 1)), 1);
        assert_eq!(new_replicas(&work, &[set("old", 2)], &set("new", 1)), 2);
        assert_eq!(new_replicas(&work, &[], &set("new", 0)), 3);
    }
}
