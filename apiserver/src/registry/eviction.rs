//! Eviction: a delete that asks the pod's disruption budgets first
//! (`pkg/registry/core/pod/storage/eviction.go`).

use std::sync::Arc;

use minik8s_api::kinds::GroupResource;
use minik8s_api::meta;
use minik8s_api::patch::unclassified;
use minik8s_api::selector::LabelSelector;
use minik8s_api::status::Status;
use serde_json::{Value, json};

use super::create::check_namespace;
use super::read::Freshness;
use super::{Context, Registry, Target};
use crate::cache::{Object, Objects};
use crate::options::{DeleteOptions, WriteOptions};

/// When a client should try an eviction again that a budget refused.
const RETRY_AFTER_SECONDS: u32 = 10;

/// A budget remembers at most so many pods whose eviction its controller has not seen yet.
const MAX_DISRUPTED_PODS: usize = 2_000;

impl Registry {
    /// Evicts a pod.
    pub async fn evict(
        &self,
        context: &Context,
        target: &Target,
        eviction: &Value,
        options: &WriteOptions,
    ) -> Result<Status, Status> {
        let name = meta::name(eviction);
        if name != target.name {
            return Err(Status::bad_request("name in URL does not match name in Eviction object"));
        }
        let mut eviction = eviction.clone();
        check_namespace(target, &mut eviction)?;
        let eviction = self.admit_subresource(context, target, eviction, options, |_| Ok(())).await?;
        let mut delete = DeleteOptions::from_value(&eviction["deleteOptions"])?;
        delete.dry_run |= options.dry_run;
        let pod = Target { subresource: String::new(), ..target.clone() };
        let object = self.get(&pod, Freshness::Latest).await?;
        if !can_ignore_budgets(&object) {
            self.take_from_budget(&pod, &object, delete.dry_run).await?;
        }
        // What was decided on is what is deleted.
        delete.uid.get_or_insert_with(|| object.uid().to_owned());
        if !delete.dry_run {
            self.mark_as_evicted(&pod, &mut delete).await?;
        }
        // Admission has seen the eviction, and is not asked about what follows from it.
        self.delete(&Context::internal(), &pod, &delete).await?;
        Ok(Status::success_with_code(201))
    }

    async fn take_from_budget(&self, pod: &Target, object: &Object, dry_run: bool) -> Result<(), Status> {
        let budgets = self.budgets_of(object);
        match budgets.as_slice() {
            [] => Ok(()),
            [budget] => {
                let unready_always = budget.value()["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow";
                if unready_always && !is_ready(&object.value()) {
                    return Ok(());
                }
                let target = self.target("policy", "v1", "poddisruptionbudgets", budget.namespace(), budget.name())?;
                let (name, now) = (pod.name.clone(), self.now());
                let mut change = |budget: &mut Value| take_one(budget, &name, &now);
                self.modify_stored(&target, dry_run, &mut change).await.map(drop)
            }
            _ => Err(Status {
                code: 500,
                ..unclassified(
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
                        .to_owned(),
                )
            }),
        }
    }

    /// Says in the pod's status why it goes, for those who tell disruptions from failures (`addConditionAndDeletePod`).
    async fn mark_as_evicted(&self, pod: &Target, delete: &mut DeleteOptions) -> Result<(), Status> {
        let now = self.now();
        let (uid, version) = (delete.uid.clone(), delete.resource_version.clone());
        let mut change = |object: &mut Value| {
            let preconditions =
                [("UID", &uid, meta::uid(object)), ("ResourceVersion", &version, meta::resource_version(object))];
            for (name, wanted, is) in preconditions {
                let Some(wanted) = wanted.as_deref().filter(|wanted| !wanted.is_empty() && *wanted != is) else {
                    continue;
                };
                let rest = if name == "UID" { "deleted and then recreated" } else { "modified" };
                let why = format!(
                    "the {name} in the precondition ({wanted}) does not match the {name} in record ({is}). The object might have been {rest}"
                );
                return Err(Status::conflict(&GroupResource::new("", "Pod"), &pod.name, &why));
            }
            set_disruption_target(object, &now);
            Ok(())
        };
        let revision = self.modify_stored(pod, false, &mut change).await?;
        if let (Some(version), Some(revision)) = (&mut delete.resource_version, revision) {
            *version = revision.to_string();
        }
        Ok(())
    }

    fn budgets_of(&self, pod: &Object) -> Vec<Arc<Object>> {
        let budgets = self.cache().list(&GroupResource::new("policy", "poddisruptionbudgets"), Some(pod.namespace()));
        let selects = |budget: &Arc<Object>| {
            let selector = LabelSelector::from_value(budget.value()["spec"].get("selector"));
            selector.is_ok_and(|selector| selector.matches(|key| pod.label(key)))
        };
        budgets.into_iter().filter(selects).collect()
    }
}

/// Pods that do not run any more, or never ran, disturb nobody (`canIgnorePDB`).
fn can_ignore_budgets(pod: &Object) -> bool {
    let value = pod.value();
    matches!(value["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Pending"))
        || pod.meta().deletion_timestamp.is_some()
}

fn set_disruption_target(pod: &mut Value, now: &str) {
    let target = json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
        "lastProbeTime": null,
        "lastTransitionTime": now,
    });
    if !pod["status"]["conditions"].is_array() {
        pod["status"]["conditions"] = json!([]);
    }
    let Some(conditions) = pod["status"]["conditions"].as_array_mut() else { return };
    match conditions.iter_mut().find(|condition| condition["type"] == target["type"]) {
        // Evicted once more: the moment is the first one's.
        Some(condition) if condition["status"] == target["status"] => {
            for field in ["reason", "message"] {
                condition[field] = target[field].clone();
            }
        }
        Some(condition) => *condition = target,
        None => conditions.push(target),
    }
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// Takes one disruption from a budget (`checkAndDecrement`).
fn take_one(budget: &mut Value, pod: &str, now: &str) -> Result<(), Status> {
    let name = meta::name(budget).to_owned();
    let number = |value: &Value| value.as_i64().unwrap_or(0);
    let refuse = |cause: String| {
        let message = "Cannot evict pod as it would violate the pod's disruption budget.";
        Status::too_many_requests(message, 0).with_cause("DisruptionBudget", cause, "")
    };
    let status = &budget["status"];
    if number(&status["observedGeneration"]) < number(&budget["metadata"]["generation"]) {
        let cause = format!("The disruption budget {name} is still being processed by the server.");
        return Err(refuse(cause).with_retry_after(RETRY_AFTER_SECONDS));
    }
    let allowed = number(&status["disruptionsAllowed"]);
    if allowed <= 0 {
        let (desired, healthy) = (number(&status["desiredHealthy"]), number(&status["currentHealthy"]));
        return Err(refuse(format!(
            "The disruption budget {name} needs {desired} healthy pods and has {healthy} currently"
        )));
    }
    if status["disruptedPods"].as_object().is_some_and(|pods| pods.len() > MAX_DISRUPTED_PODS) {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(Status::forbidden(&GroupResource::new("policy", "poddisruptionbudgets"), &name, why));
    }
    budget["status"]["disruptionsAllowed"] = json!(allowed - 1);
    if !budget["status"]["disruptedPods"].is_object() {
        budget["status"]["disruptedPods"] = json!({});
    }
    budget["status"]["disruptedPods"][pod] = Value::from(now);
    Ok(())
}
