//! Sends pod statuses: as a strategic merge patch that names what changed, so that what others own stays.
//!
//! (kubelet: `status_manager.go`, `syncPod`; `pkg/util/pod/pod.go`, `PatchPodStatus`.)

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Patch, PatchParams};
use minik8s_client::is_not_found;
use serde_json::{Map, Value, json};

use crate::error::Result;
use crate::kubelet::Kubelet;
use crate::resize::{IN_PROGRESS, PENDING};
use crate::spec::PodExt as _;
use crate::status::OWNED_CONDITIONS;

/// The conditions of a resize.
const RESIZE: [&str; 2] = [PENDING, IN_PROGRESS];

/// The patch that turns `old` into `new`; none if nothing changed.
pub fn status_patch(uid: &str, old: &PodStatus, new: &PodStatus) -> Option<Value> {
    let (old, new) = (fields(old), fields(new));
    let mut changes = Map::new();
    for (name, value) in &new {
        if old.get(name) == Some(value) {
            continue;
        }
        let before = old.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let value = match name.as_str() {
            "conditions" => changed_conditions(before, value),
            // Merged by address: what is not named as deleted would stay.
            "podIPs" | "hostIPs" => replaced_addresses(before, value),
            // Merged by name, at every depth.
            "resources" | "allocatedResources" => Some(with_nulls(old.get(name), value)),
            _ => Some(value.clone()),
        };
        if let Some(value) = value {
            changes.insert(name.clone(), value);
        }
    }
    for name in ["reason", "message", "allocatedResources"] {
        if old.contains_key(name) && !new.contains_key(name) {
            changes.insert(name.to_owned(), Value::Null);
        }
    }
    (!changes.is_empty()).then(|| json!({"metadata": {"uid": uid}, "status": changes}))
}

fn fields(status: &PodStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

fn changed_conditions(old: &[Value], new: &Value) -> Option<Value> {
    let new = new.as_array()?;
    let has = |type_: &Value| new.iter().any(|condition| condition["type"] == *type_);
    let mine = new.iter().filter(|c| c["type"].as_str().is_some_and(|type_| OWNED_CONDITIONS.contains(&type_)));
    let mut changed = Vec::new();
    for condition in mine.filter(|condition| !old.contains(condition)) {
        let mut condition = condition.clone();
        let before = old.iter().find(|before| before["type"] == condition["type"]);
        for name in ["reason", "message"] {
            if before.is_some_and(|before| before.get(name).is_some()) && condition.get(name).is_none() {
                condition[name] = Value::Null;
            }
        }
        changed.push(condition);
    }
    // Those of a resize go when it is over; all others are always there.
    let is_gone = |before: &Value| RESIZE.iter().any(|type_| before["type"] == *type_) && !has(&before["type"]);
    let gone = old.iter().filter(|before| is_gone(before));
    changed.extend(gone.map(|before| json!({"$patch": "delete", "type": before["type"]})));
    (!changed.is_empty()).then_some(Value::Array(changed))
}

/// A new object, with a null for what the old one had besides.
fn with_nulls(old: Option<&Value>, new: &Value) -> Value {
    let (Some(old), Some(fields)) = (old.and_then(Value::as_object), new.as_object()) else { return new.clone() };
    let gone = old.keys().filter(|name| !fields.contains_key(*name)).map(|name| (name.clone(), Value::Null));
    let kept = fields.iter().map(|(name, value)| (name.clone(), with_nulls(old.get(name), value)));
    Value::Object(kept.chain(gone).collect())
}

fn replaced_addresses(old: &[Value], new: &Value) -> Option<Value> {
    let mut list = new.as_array()?.clone();
    let gone = old.iter().filter(|before| !list.contains(before));
    let gone: Vec<Value> = gone.map(|before| json!({"$patch": "delete", "ip": before["ip"]})).collect();
    list.extend(gone);
    Some(Value::Array(list))
}

impl Kubelet {
    /// Patches the status of a pod. A pod that is gone needs none.
    pub(crate) async fn patch_status(&self, pod: &Pod, patch: &Value) -> Result<()> {
        let api = self.config.client.namespaced::<Pod>(pod.namespace());
        match api.patch_status(pod.name(), &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(_) => Ok(()),
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(value: Value) -> PodStatus {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_is_over_is_taken_away() {
        let old = status(json!({
            "resources": {"requests": {"cpu": "79m"}, "limits": {"memory": "1Gi"}},
            "allocatedResources": {"cpu": "100m"},
            "conditions": [{"type": "PodResizeInProgress", "status": "True"}, {"type": "Ready", "status": "True"}],
        }));
        let new = status(json!({
            "resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "1Gi"}},
            "conditions": [{"type": "Ready", "status": "True"}],
        }));
        assert_eq!(
            status_patch("u", &old, &new).unwrap(),
            json!({"metadata": {"uid": "u"}, "status": {
                "resources": {"requests": {"cpu": null, "memory": "1Gi"}, "limits": {"memory": "1Gi"}},
                "allocatedResources": null,
                "conditions": [{"$patch": "delete", "type": "PodResizeInProgress"}],
            }})
        );
    }

    #[test]
    fn only_what_changed_is_sent() {
        let old = status(json!({
            "phase": "Pending", "reason": "X", "podIPs": [{"ip": "10.0.0.1"}],
            "conditions": [
                {"type": "Ready", "status": "False", "reason": "ContainersNotReady"},
                {"type": "Mine", "status": "True"},
            ],
        }));
        let new = status(json!({
            "phase": "Running", "podIPs": [{"ip": "10.0.0.2"}],
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "Mine", "status": "True"}],
        }));
        assert_eq!(
            status_patch("u", &old, &new).unwrap(),
            json!({"metadata": {"uid": "u"}, "status": {
                "phase": "Running",
                "reason": null,
                "podIPs": [{"ip": "10.0.0.2"}, {"$patch": "delete", "ip": "10.0.0.1"}],
                "conditions": [{"type": "Ready", "status": "True", "reason": null}],
            }})
        );
        assert_eq!(status_patch("u", &new, &new), None);
    }
}
