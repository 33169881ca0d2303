//! What users say about failures and successes: `podFailurePolicy`, `successPolicy`. Pure.
//! (Kubernetes: `pkg/controller/job/pod_failure_policy.go`, `success_policy.go`.)

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::{JobSpec, PodFailurePolicyRule};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::indexes;
use crate::pods;

/// What a pod's failure means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It counts towards the limits.
    Counts,
    /// It does not count.
    Ignored,
    /// The pod's index has failed.
    FailsIndex,
    /// The Job has failed, for this reason in words.
    FailsJob(String),
}

/// What the failure of `pod` means: what the first rule that matches says.
pub(super) fn judge(spec: &JobSpec, pod: &Pod) -> Failure {
    let rules = spec.pod_failure_policy.iter().flat_map(|policy| &policy.rules);
    for (at, rule) in rules.enumerate() {
        let Some(what) = matches(rule, pod) else { continue };
        return match rule.action.as_str() {
            "FailJob" => Failure::FailsJob(format!("{what} matching FailJob rule at index {at}")),
            "Ignore" => Failure::Ignored,
            "FailIndex" if spec.backoff_limit_per_index.is_some() => Failure::FailsIndex,
            _ => Failure::Counts,
        };
    }
    Failure::Counts
}

/// What of the pod a rule matches, in words.
fn matches(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    if let Some(codes) = &rule.on_exit_codes {
        let status = pod.status.as_ref()?;
        let statuses = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        let ended = |container: &ContainerStatus| Some(container.state.as_ref()?.terminated.as_ref()?.exit_code);
        for container in statuses {
            let Some(code) = ended(container).filter(|code| *code != 0) else { continue };
            if codes.container_name.as_ref().is_some_and(|wanted| *wanted != container.name) {
                continue;
            }
            if codes.values.contains(&code) == (codes.operator == "In") {
                let container = &container.name;
                return Some(format!("Container {container} for pod {namespace}/{name} failed with exit code {code}"));
            }
        }
        return None;
    }
    let patterns = rule.on_pod_conditions.iter().flatten();
    let found = patterns.filter_map(|pattern| {
        let wanted = pattern.status.as_deref().unwrap_or("True");
        pods::condition(pod, &pattern.type_).filter(|condition| condition.status == wanted)
    });
    let condition = found.into_iter().next()?;
    Some(format!("Pod {namespace}/{name} has condition {}", condition.type_))
}

/// The place of the first success rule that these completed indexes meet.
pub(super) fn success_rule(spec: &JobSpec, completed: &BTreeSet<u32>) -> Option<usize> {
    let completions = spec.completions.and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
    let rules = &spec.success_policy.as_ref()?.rules;
    rules.iter().position(|rule| {
        let wanted = rule.succeeded_indexes.as_ref().map(|text| indexes::parse(text, completions));
        let met = match &wanted {
            Some(wanted) => wanted.intersection(completed).count(),
            None => completed.len(),
        };
        let needed = match (rule.succeeded_count, &wanted) {
            (Some(count), _) => usize::try_from(count).unwrap_or(0),
            (None, Some(wanted)) => wanted.len(),
            (None, None) => return false,
        };
        met >= needed
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(json: serde_json::Value) -> JobSpec {
        let mut value = json!({"template": {"spec": {"containers": []}}});
        value.as_object_mut().unwrap().extend(json.as_object().unwrap().clone());
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_first_rule_that_matches_a_failure_decides() {
        let spec = spec(json!({"podFailurePolicy": {"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
            {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [42]}},
        ]}}));
        let pod = |status: serde_json::Value| -> Pod {
            serde_json::from_value(json!({"metadata": {"namespace": "ns", "name": "p"}, "status": status})).unwrap()
        };
        let ended = |code: i32| json!({"containerStatuses": [{"name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": code}}}]});
        assert_eq!(
            judge(&spec, &pod(ended(42))),
            Failure::FailsJob(
                "Container main for pod ns/p failed with exit code 42 matching FailJob rule at index 1".to_owned()
            )
        );
        assert_eq!(judge(&spec, &pod(ended(1))), Failure::Counts);
        let disrupted = json!({"conditions": [{"type": "DisruptionTarget", "status": "True"}]});
        assert_eq!(judge(&spec, &pod(disrupted)), Failure::Ignored);
    }

    #[test]
    fn success_rules_ask_for_indexes_or_for_a_number() {
        let spec = spec(json!({"completions": 5, "successPolicy": {"rules": [
            {"succeededIndexes": "0,2-4", "succeededCount": 2}, {"succeededCount": 4}]}}));
        assert_eq!(success_rule(&spec, &BTreeSet::from([0, 1])), None);
        assert_eq!(success_rule(&spec, &BTreeSet::from([0, 3])), Some(0));
    }
}
