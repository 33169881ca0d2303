//! What a StatefulSet does next: one step at a time and in order, or all that it can at once. Pure.
//! (Kubernetes: `pkg/controller/statefulset/stateful_set_control.go`.)

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use super::identity::ordinal;
use crate::pods;
use crate::revisions::HASH_LABEL;
use crate::rolling_update::fence;

/// One thing to do.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Make the pod of this ordinal.
    Create(i32),
    /// Delete a pod.
    Delete(Arc<Pod>),
}

/// A set, its pods, and the revisions that it is between.
pub(super) struct Look<'a> {
    pub(super) set: &'a StatefulSet,
    /// The pods of the ordinals that there should be.
    pub(super) replicas: BTreeMap<i32, Arc<Pod>>,
    /// The pods of other ordinals, the highest first.
    pub(super) condemned: Vec<Arc<Pod>>,
    /// The name of the revision that pods come from.
    pub(super) current: &'a str,
    /// The name of the revision that pods go to.
    pub(super) update: &'a str,
    pub(super) now: Timestamp,
}

fn revision(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get(HASH_LABEL).map(String::as_str)
}

fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

fn is_running_and_ready(pod: &Pod) -> bool {
    pods::phase(pod) == "Running" && pods::is_ready(pod)
}

fn is_healthy(pod: &Pod) -> bool {
    is_running_and_ready(pod) && !is_terminating(pod)
}

impl<'a> Look<'a> {
    pub(super) fn new(
        set: &'a StatefulSet,
        pods: &[Arc<Pod>],
        (current, update): (&'a str, &'a str),
        now: Timestamp,
    ) -> Self {
        let mut look = Self { set, replicas: BTreeMap::new(), condemned: Vec::new(), current, update, now };
        let mut beyond = BTreeMap::new();
        for pod in pods {
            match ordinal(set, pod) {
                Some(ordinal) if look.ordinals().contains(&ordinal) => drop(look.replicas.insert(ordinal, pod.clone())),
                Some(ordinal) => drop(beyond.insert(ordinal, pod.clone())),
                None => {}
            }
        }
        look.condemned = beyond.into_values().rev().collect();
        look
    }

    fn start(&self) -> i32 {
        self.set.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0)
    }

    /// The ordinals that there should be.
    pub(super) fn ordinals(&self) -> std::ops::Range<i32> {
        self.start()..self.start() + self.set.spec.replicas.unwrap_or(1)
    }

    fn is_on_delete(&self) -> bool {
        let strategy = self.set.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
        strategy == Some("OnDelete")
    }

    /// The lowest ordinal that is updated.
    fn partition(&self) -> i32 {
        let rolling = self.set.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        self.start() + rolling.and_then(|rolling| rolling.partition).unwrap_or(0)
    }

    fn max_unavailable(&self) -> i32 {
        let rolling = self.set.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let most = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        fence(most, self.set.spec.replicas.unwrap_or(1), false).max(1)
    }

    pub(super) fn min_ready(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.set.spec.min_ready_seconds.unwrap_or(0)).unwrap_or(0))
    }

    fn is_available(&self, pod: &Pod) -> bool {
        is_running_and_ready(pod) && pods::is_available(pod, self.min_ready(), self.now)
    }

    /// The revision after which the pod of an ordinal is to be made.
    pub(super) fn revision_for(&self, ordinal: i32) -> &'a str {
        if !self.is_on_delete() && ordinal < self.partition() { self.current } else { self.update }
    }

    /// What to do now.
    pub(super) fn steps(&self) -> Vec<Step> {
        let ordered = self.set.spec.pod_management_policy.as_deref() != Some("Parallel");
        let mut steps = Vec::new();
        for ordinal in self.ordinals() {
            let Some(pod) = self.replicas.get(&ordinal) else {
                steps.push(Step::Create(ordinal));
                if ordered {
                    return steps;
                }
                continue;
            };
            let ended = matches!(pods::phase(pod), "Succeeded" | "Failed");
            if ended {
                if !is_terminating(pod) {
                    steps.push(Step::Delete(pod.clone()));
                }
                return steps;
            }
            if ordered && (is_terminating(pod) || !self.is_available(pod)) {
                return steps;
            }
        }
        let unhealthy = self.replicas.values().chain(self.condemned.iter().rev()).find(|pod| !is_healthy(pod));
        for pod in &self.condemned {
            if is_terminating(pod) {
                if ordered {
                    return steps;
                }
                continue;
            }
            // The one that holds everything up may go.
            let first = unhealthy.is_some_and(|unhealthy| unhealthy.metadata.uid == pod.metadata.uid);
            if ordered && !self.is_available(pod) && !first {
                return steps;
            }
            steps.push(Step::Delete(pod.clone()));
            if ordered {
                return steps;
            }
        }
        if !self.is_on_delete() {
            steps.extend(self.updates().into_iter().map(Step::Delete));
        }
        steps
    }

    /// The pods that make way for the new revision now: from the highest ordinal down, waiting for each to be back.
    fn updates(&self) -> Vec<Arc<Pod>> {
        let mut delete = Vec::new();
        let most = self.max_unavailable();
        let mut unavailable =
            self.ordinals().filter(|ordinal| !self.replicas.get(ordinal).is_some_and(|pod| is_healthy(pod))).count()
                as i32;
        for ordinal in self.ordinals().filter(|ordinal| *ordinal >= self.partition()).rev() {
            let Some(pod) = self.replicas.get(&ordinal) else {
                if most == 1 {
                    return delete;
                }
                continue;
            };
            let healthy = is_healthy(pod);
            if revision(pod) != Some(self.update) && !is_terminating(pod) {
                if most > 1 && healthy && unavailable >= most {
                    return delete;
                }
                delete.push(pod.clone());
                unavailable += i32::from(healthy);
                if most == 1 {
                    return delete;
                }
            } else if !healthy && most == 1 {
                return delete;
            }
        }
        delete
    }

    /// The status of the set.
    pub(super) fn status(&self, collisions: Option<i32>) -> StatefulSetStatus {
        let all = || self.replicas.values().chain(&self.condemned);
        let count = |test: &dyn Fn(&Pod) -> bool| all().filter(|pod| test(pod)).count() as i32;
        let positive = |count: i32| Some(count).filter(|count| *count > 0);
        let of = |wanted: &str| count(&|pod| !is_terminating(pod) && revision(pod) == Some(wanted));
        let (replicas, ready, updated) = (count(&|_| true), count(&is_running_and_ready), of(self.update));
        let done = !self.is_on_delete() && updated == replicas && ready == replicas;
        let current = if done { self.update } else { self.current };
        StatefulSetStatus {
            replicas,
            ready_replicas: positive(ready),
            available_replicas: Some(count(&|pod| self.is_available(pod))),
            current_replicas: positive(of(current)),
            updated_replicas: positive(updated),
            current_revision: Some(current.to_owned()),
            update_revision: Some(self.update.to_owned()),
            collision_count: Some(collisions.unwrap_or(0)),
            observed_generation: self.set.metadata.generation,
            conditions: self.set.status.as_ref().and_then(|status| status.conditions.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn set(more: Value) -> StatefulSet {
        let mut spec = json!({"replicas": 3, "selector": {}, "template": {}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(json!({"metadata": {"name": "db"}, "spec": spec})).unwrap()
    }

    /// Pods by ordinal: revision, and whether they are ready.
    fn pods(all: &[(i32, &str, bool)]) -> Vec<Arc<Pod>> {
        let pod = |(ordinal, revision, ready): &(i32, &str, bool)| {
            let ready = if *ready { "True" } else { "False" };
            let pod = json!({
                "metadata": {"name": format!("db-{ordinal}"), "uid": ordinal.to_string(), "labels": {HASH_LABEL: revision}},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
            Arc::new(serde_json::from_value(pod).unwrap())
        };
        all.iter().map(pod).collect()
    }

    #[track_caller]
    fn check(spec: Value, all: &[(i32, &str, bool)], expected: &[&str]) {
        let set = set(spec);
        let look = Look::new(&set, &pods(all), ("old", "new"), Timestamp::UNIX_EPOCH);
        let show = |step: Step| match step {
            Step::Create(ordinal) => format!("create {ordinal} {}", look.revision_for(ordinal)),
            Step::Delete(pod) => format!("delete {}", pod.metadata.name.as_deref().unwrap()),
        };
        let steps: Vec<String> = look.steps().into_iter().map(show).collect();
        assert_eq!(steps, expected);
    }

    #[test]
    fn pods_come_in_order_each_when_the_one_before_serves() {
        check(json!({}), &[], &["create 0 new"]);
        check(json!({}), &[(0, "new", false)], &[]);
        check(json!({}), &[(0, "new", true)], &["create 1 new"]);
        let parallel = json!({"podManagementPolicy": "Parallel"});
        check(parallel, &[(0, "new", false)], &["create 1 new", "create 2 new"]);
        check(json!({"ordinals": {"start": 5}}), &[], &["create 5 new"]);
    }

    #[test]
    fn pods_go_from_the_highest_down() {
        let all = [(0, "new", true), (1, "new", true), (2, "new", true), (3, "new", true), (4, "new", true)];
        check(json!({}), &all, &["delete db-4"]);
        check(json!({"podManagementPolicy": "Parallel"}), &all, &["delete db-4", "delete db-3"]);
    }

    #[test]
    fn an_update_goes_down_to_the_partition() {
        let old = [(0, "old", true), (1, "old", true), (2, "old", true)];
        check(json!({}), &old, &["delete db-2"]);
        check(json!({}), &[(0, "old", true), (1, "old", true), (2, "new", true)], &["delete db-1"]);
        let partition = json!({"updateStrategy": {"rollingUpdate": {"partition": 2}}});
        check(partition.clone(), &[(0, "old", true), (1, "old", true), (2, "new", true)], &[]);
        check(partition, &[], &["create 0 old"]);
        check(json!({"updateStrategy": {"type": "OnDelete"}}), &old, &[]);
        let two = json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": 2}}});
        check(two, &old, &["delete db-2", "delete db-1"]);
    }

    #[test]
    fn the_status_moves_on_when_all_are_new_and_serve() {
        let set = set(json!({}));
        let status =
            |all: &[(i32, &str, bool)]| Look::new(&set, &pods(all), ("old", "new"), Timestamp::UNIX_EPOCH).status(None);
        let half = status(&[(0, "old", true), (1, "old", true), (2, "new", true)]);
        assert_eq!(
            (half.current_revision.as_deref(), half.current_replicas, half.updated_replicas),
            (Some("old"), Some(2), Some(1))
        );
        let done = status(&[(0, "new", true), (1, "new", true), (2, "new", true)]);
        assert_eq!((done.current_revision.as_deref(), done.current_replicas), (Some("new"), Some(3)));
    }
}
