//! Changes of size: of one ReplicaSet, of all of them in proportion, and of those that only history keeps.
//! (Kubernetes: `pkg/controller/deployment/sync.go`.)

use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::api::{DeleteParams, PostParams, Preconditions};
use minik8s_client::{EventType, is_not_found};

use super::revision::{DESIRED_REPLICAS, MAX_REPLICAS, note_sizes};
use super::rolling::max_surge;
use super::{DeploymentController, Result, Work, available, total, wanted};

fn note(set: &ReplicaSet, key: &str) -> Option<i32> {
    set.metadata.annotations.as_ref()?.get(key)?.parse().ok()
}

impl DeploymentController {
    /// Gives a ReplicaSet this size and notes the sizes that it was scaled for; says whether the size changed.
    pub(super) async fn resize(&self, work: &Work, set: &mut ReplicaSet, size: i32) -> Result<bool> {
        let before = wanted(set);
        let mut fresh = set.clone();
        let noted = note_sizes(work, fresh.metadata.annotations.get_or_insert_default());
        if before == size && !noted {
            return Ok(false);
        }
        fresh.spec.replicas = Some(size);
        let name = set.metadata.name.clone().unwrap_or_default();
        let api = self.client.namespaced::<ReplicaSet>(&work.namespace);
        *set = api.replace(&name, &PostParams::default(), &fresh).await?;
        if before == size {
            return Ok(false);
        }
        let direction = if before < size { "up" } else { "down" };
        tracing::info!(deployment = work.key(), replica_set = name, from = before, to = size, "scaled {direction}");
        let message = format!("Scaled {direction} replica set {name} from {before} to {size}");
        self.recorder.event(&work.reference, EventType::Normal, "ScalingReplicaSet", message);
        Ok(true)
    }

    /// Whether somebody changed the Deployment's size, which goes before its template.
    pub(super) fn is_scaling_event(&self, work: &Work, sets: &[ReplicaSet]) -> bool {
        let active = sets.iter().filter(|set| wanted(set) > 0);
        active.into_iter().any(|set| note(set, DESIRED_REPLICAS).is_some_and(|desired| desired != work.replicas()))
    }

    /// A paused or resized Deployment: sizes change, templates do not.
    pub(super) async fn sync_scale(&self, work: &mut Work, sets: Vec<ReplicaSet>) -> Result<()> {
        let (mut new, mut old) = self.sync_revision(work, sets, false).await?;
        self.scale(work, &mut new, &mut old).await?;
        if work.paused() {
            self.clean_up(work, &old).await?;
        }
        self.sync_status(work, new.as_ref(), &old).await
    }

    async fn scale(&self, work: &Work, new: &mut Option<ReplicaSet>, old: &mut [ReplicaSet]) -> Result<()> {
        let active = old.iter().chain(new.as_ref()).filter(|set| wanted(set) > 0).count();
        // One active set, or none but the latest: it takes the whole size.
        if active <= 1 {
            let only = match old.iter_mut().find(|set| wanted(set) > 0) {
                Some(set) => Some(set),
                None => new.as_mut(),
            };
            if let Some(set) = only {
                self.resize(work, set, work.replicas()).await?;
            }
            return Ok(());
        }
        // The new set has all that is wanted: whatever the old ones have is left over.
        if let Some(set) = new.as_ref().filter(|set| is_saturated(work, set)) {
            let name = set.metadata.name.clone();
            for set in old.iter_mut().filter(|set| set.metadata.name != name && wanted(set) > 0) {
                self.resize(work, set, 0).await?;
            }
            return Ok(());
        }
        if super::is_recreate(&work.deployment) {
            return Ok(());
        }
        let mut all: Vec<&mut ReplicaSet> = old.iter_mut().chain(new.as_mut()).filter(|set| wanted(set) > 0).collect();
        let sizes = {
            let views: Vec<&ReplicaSet> = all.iter().map(|set| &**set).collect();
            proportional(work, &views)
        };
        for (set, size) in all.iter_mut().zip(sizes) {
            self.resize(work, set, size).await?;
        }
        Ok(())
    }

    /// Removes what `revisionHistoryLimit` no longer keeps.
    pub(super) async fn clean_up(&self, work: &Work, old: &[ReplicaSet]) -> Result<()> {
        let Some(limit) = work.spec().revision_history_limit.filter(|limit| *limit != i32::MAX) else {
            return Ok(());
        };
        let mut idle: Vec<&ReplicaSet> = old
            .iter()
            .filter(|set| {
                let replicas = set.status.as_ref().map_or(0, |status| status.replicas);
                wanted(set) == 0 && replicas == 0 && set.metadata.deletion_timestamp.is_none()
            })
            .filter(|set| {
                let seen = set.status.as_ref().and_then(|status| status.observed_generation).unwrap_or(0);
                set.metadata.generation.unwrap_or(0) <= seen
            })
            .collect();
        let surplus = idle.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        idle.sort_by_key(|set| {
            let revision = note(set, super::revision::REVISION).unwrap_or(0);
            (revision, set.metadata.creation_timestamp.as_ref().map(|time| time.0))
        });
        let api = self.client.namespaced::<ReplicaSet>(&work.namespace);
        for set in idle.into_iter().take(surplus) {
            let precondition = Preconditions { uid: set.metadata.uid.clone(), resource_version: None };
            let parameters = DeleteParams { preconditions: Some(precondition), ..DeleteParams::default() };
            match api.delete(set.metadata.name.as_deref().unwrap_or_default(), &parameters).await {
                Err(error) if !is_not_found(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether the set has the whole size and all of it available.
fn is_saturated(work: &Work, set: &ReplicaSet) -> bool {
    let size = work.replicas();
    wanted(set) == size && note(set, DESIRED_REPLICAS) == Some(size) && available(set) == size
}

/// The sizes of several active sets when the whole changes: each one's share of the change is its share of the pods,
/// the largest first, what rounding leaves over goes to the first.
fn proportional(work: &Work, sets: &[&ReplicaSet]) -> Vec<i32> {
    let all: i32 = sets.iter().map(|set| wanted(set)).sum();
    let most = if work.replicas() > 0 { work.replicas() + max_surge(work) } else { 0 };
    let change = most - all;
    let mut order: Vec<usize> = (0..sets.len()).collect();
    let born = |set: &ReplicaSet| set.metadata.creation_timestamp.as_ref().map(|time| time.0);
    order.sort_by(|a, b| {
        let by_age = born(sets[*a]).cmp(&born(sets[*b]));
        // Growing favours the newer of two equals, shrinking the older.
        wanted(sets[*b]).cmp(&wanted(sets[*a])).then(if change > 0 { by_age.reverse() } else { by_age })
    });
    let mut sizes: Vec<i32> = sets.iter().map(|set| wanted(set)).collect();
    let mut added = 0;
    for at in &order {
        if change == 0 {
            break;
        }
        let share = share(work, sets[*at], most, change - added);
        sizes[*at] = (sizes[*at] + share).max(0);
        added += share;
    }
    if let Some(first) = order.first() {
        sizes[*first] = (sizes[*first] + change - added).max(0);
    }
    sizes
}

fn share(work: &Work, set: &ReplicaSet, most: i32, left: i32) -> i32 {
    if wanted(set) == 0 || left == 0 {
        return 0;
    }
    let fraction = match note(set, MAX_REPLICAS) {
        _ if work.replicas() == 0 => -wanted(set),
        Some(max) if max > 0 => {
            let size = f64::from(wanted(set)) * f64::from(most) / f64::from(max);
            size.round() as i32 - wanted(set)
        }
        // A set that nobody scaled before has no note: its share is what it has.
        _ => 0,
    };
    if left > 0 { fraction.min(left) } else { fraction.max(left) }
}

/// All pods that all sets want.
pub(super) fn all_wanted(new: Option<&ReplicaSet>, old: &[ReplicaSet]) -> i32 {
    total(old, wanted) + new.map_or(0, wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deployment::tests::{set, work};

    fn noted(name: &str, size: i32, max: i32) -> ReplicaSet {
        let mut set = set(name, size);
        set.metadata.annotations.get_or_insert_default().insert(MAX_REPLICAS.to_owned(), max.to_string());
        set
    }

    #[test]
    fn a_change_of_size_in_the_middle_of_a_rollout_keeps_the_proportions() {
        let (old, new) = (noted("old", 8, 13), noted("new", 5, 13));
        let sizes = proportional(&work(20, "3", "2"), &[&old, &new]);
        assert_eq!(sizes.iter().sum::<i32>(), 23);
        assert_eq!(sizes, [14, 9]);
        let sizes = proportional(&work(5, "3", "2"), &[&old, &new]);
        assert_eq!(sizes.iter().sum::<i32>(), 8);
        let sizes = proportional(&work(0, "3", "2"), &[&old, &new]);
        assert_eq!(sizes, [0, 0]);
    }
}
