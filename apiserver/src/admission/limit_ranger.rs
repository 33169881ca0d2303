//! LimitRanger: the namespace's defaults for containers, and its bounds on containers, pods and claims
//! (`plugin/pkg/admission/limitranger/admission.go`).

use std::sync::Arc;

use async_trait::async_trait;
use minik8s_api::{kinds::GroupResource, quantity::Quantity, status::Status};
use serde_json::{Value, json};

use super::{
    Attributes, Operation, Plugin, items, items_mut,
    pod_resources::{Resources, pod_total, quantities},
};
use crate::cache::Objects;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";
/// Quantities up to this have their thousandths compared (`resource.MaxMilliValue`).
const MAX_MILLI_VALUE: i64 = i64::MAX / 1000;

/// See the module.
pub struct LimitRanger {
    objects: Arc<dyn Objects>,
    ranges: GroupResource,
}

impl LimitRanger {
    /// LimitRanges are read from `objects`.
    pub fn new(objects: Arc<dyn Objects>) -> LimitRanger {
        LimitRanger { objects, ranges: GroupResource::new("", "limitranges") }
    }

    fn limits(&self, namespace: &str) -> Vec<Vec<Value>> {
        let ranges = self.objects.list(&self.ranges, Some(namespace));
        ranges.iter().map(|range| items(&range.parsed()["spec"]["limits"]).cloned().collect()).collect()
    }
}

/// Fills in what a range gives to containers that do not say, and notes it in an annotation.
fn set_defaults(pod: &mut Value, limits: &[Value]) {
    let (mut requests, mut defaults) = (Resources::new(), Resources::new());
    for limit in limits.iter().filter(|limit| limit["type"] == "Container") {
        requests.extend(quantities(&limit["defaultRequest"]));
        defaults.extend(quantities(&limit["default"]));
    }
    let mut notes = Vec::new();
    for (list, called) in [("containers", "container"), ("initContainers", "init container")] {
        let Some(containers) = pod["spec"].get_mut(list) else {
            continue;
        };
        for container in items_mut(containers) {
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            for (field, word, values) in [("requests", "request", &requests), ("limits", "limit", &defaults)] {
                let set = fill(container, field, values);
                if !set.is_empty() {
                    notes.push(format!("{} {word} for {called} {name}", set.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty() {
        pod["metadata"]["annotations"][ANNOTATION] = json!(format!("LimitRanger plugin set: {}", notes.join("; ")));
    }
}

fn fill<'v>(container: &mut Value, field: &str, values: &'v Resources) -> Vec<&'v str> {
    let missing: Vec<_> =
        values.iter().filter(|(name, _)| container["resources"][field].get(name.as_str()).is_none()).collect();
    for (name, quantity) in &missing {
        container["resources"][field][name.as_str()] = json!(quantity.to_string());
    }
    if missing.is_empty() && container["resources"][field].is_null() {
        container["resources"].as_object_mut().map(|resources| resources.remove(field));
    }
    missing.into_iter().map(|(name, _)| name.as_str()).collect()
}

/// What of one thing (a container, a pod) breaks a limit.
fn violations(limit: &Value, requests: &Resources, limits: &Resources) -> Vec<String> {
    let kind = limit["type"].as_str().unwrap_or_default();
    let mut found = Vec::new();
    for (name, bound) in quantities(&limit["min"]) {
        match (requests.get(&name), limits.get(&name)) {
            (None, _) => found.push(format!("minimum {name} usage per {kind} is {bound}.  No request is specified")),
            (Some(request), _) if *request < bound => {
                found.push(format!("minimum {name} usage per {kind} is {bound}, but request is {request}"))
            }
            (_, Some(limit)) if *limit < bound => {
                found.push(format!("minimum {name} usage per {kind} is {bound}, but limit is {limit}"))
            }
            _ => {}
        }
    }
    for (name, bound) in quantities(&limit["max"]) {
        match (requests.get(&name), limits.get(&name)) {
            (_, None) => found.push(format!("maximum {name} usage per {kind} is {bound}.  No limit is specified")),
            (_, Some(limit)) if *limit > bound => {
                found.push(format!("maximum {name} usage per {kind} is {bound}, but limit is {limit}"))
            }
            (Some(request), _) if *request > bound => {
                found.push(format!("maximum {name} usage per {kind} is {bound}, but request is {request}"))
            }
            _ => {}
        }
    }
    for (name, bound) in quantities(&limit["maxLimitRequestRatio"]) {
        found.extend(ratio_violation(&name, kind, &bound, requests.get(&name), limits.get(&name)));
    }
    found
}

fn ratio_violation(
    name: &str,
    kind: &str,
    bound: &Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let rule = format!("{name} max limit to request ratio per {kind} is {bound}");
    let Some(request) = request.filter(|request| !request.is_zero()) else {
        return Some(format!("{rule}, but no request is specified or request is 0"));
    };
    let Some(limit) = limit.filter(|limit| !limit.is_zero()) else {
        return Some(format!("{rule}, but no limit is specified or limit is 0"));
    };
    let small = [request, limit, bound].iter().all(|quantity| quantity.value() < MAX_MILLI_VALUE);
    let ratio = if small {
        limit.milli_value() as f64 / request.milli_value() as f64
    } else {
        limit.value() as f64 / request.value() as f64
    };
    (ratio > bound.as_f64()).then(|| format!("{rule}, but provided ratio is {ratio:.6}"))
}

fn pod_violations(pod: &Value, limits: &[Value]) -> Vec<String> {
    let mut found = Vec::new();
    for limit in limits {
        match limit["type"].as_str() {
            Some("Container") => {
                for container in ["containers", "initContainers"].into_iter().flat_map(|list| items(&pod["spec"][list]))
                {
                    let resources = &container["resources"];
                    found.extend(violations(
                        limit,
                        &quantities(&resources["requests"]),
                        &quantities(&resources["limits"]),
                    ));
                }
            }
            Some("Pod") => {
                found.extend(violations(limit, &pod_total(pod, "requests", false), &pod_total(pod, "limits", false)))
            }
            _ => {}
        }
    }
    found
}

/// A claim has requests only.
fn claim_violations(claim: &Value, limits: &[Value]) -> Vec<String> {
    let requests = quantities(&claim["spec"]["resources"]["requests"]);
    let kind = "PersistentVolumeClaim";
    let mut found = Vec::new();
    for limit in limits.iter().filter(|limit| limit["type"] == kind) {
        for (field, word) in [("min", "minimum"), ("max", "maximum")] {
            for (name, bound) in quantities(&limit[field]) {
                match requests.get(&name) {
                    None => found.push(format!("{word} {name} usage per {kind} is {bound}.  No request is specified")),
                    Some(request) if (field == "min" && *request < bound) || (field == "max" && *request > bound) => {
                        found.push(format!("{word} {name} usage per {kind} is {bound}, but request is {request}"));
                    }
                    _ => {}
                }
            }
        }
    }
    found
}

#[async_trait]
impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn handles(&self, write: &Attributes<'_>) -> bool {
        // What a range is about cannot change otherwise once a pod is there.
        match write.operation {
            Operation::Create => write.is("", "pods") || write.is("", "persistentvolumeclaims"),
            Operation::Update => write.is_sub("", "pods", "resize") || write.is("", "persistentvolumeclaims"),
            _ => false,
        }
    }

    async fn admit(&self, write: &mut Attributes<'_>) -> Result<(), Status> {
        let pod = write.resource == "pods" && write.operation == Operation::Create;
        let Some(object) = write.object.as_mut().filter(|_| pod) else {
            return Ok(());
        };
        for limits in self.limits(write.namespace) {
            set_defaults(object, &limits);
        }
        Ok(())
    }

    async fn validate(&self, write: &Attributes<'_>) -> Result<(), Status> {
        let Some(object) = &write.object else {
            return Ok(());
        };
        if write.old_object.is_some_and(|old| old["metadata"].get("deletionTimestamp").is_some()) {
            return Ok(());
        }
        for limits in self.limits(write.namespace) {
            let found = if write.resource == "pods" {
                pod_violations(object, &limits)
            } else {
                claim_violations(object, &limits)
            };
            match &found[..] {
                [] => {}
                [one] => return Err(write.forbidden(one.clone())),
                _ => return Err(write.forbidden(format!("[{}]", found.join(", ")))),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range() -> Vec<Value> {
        vec![
            json!({ "type": "Container", "default": { "cpu": "200m" }, "defaultRequest": { "cpu": "100m" }, "max": { "cpu": "2" }, "min": { "cpu": "10m" } }),
        ]
    }

    #[test]
    fn defaults_fill_what_is_not_said_and_are_noted() {
        let mut pod = json!({ "metadata": {}, "spec": { "containers": [{ "name": "c", "resources": {} }, { "name": "d", "resources": { "limits": { "cpu": "1" } } }] } });
        set_defaults(&mut pod, &range());
        assert_eq!(
            pod["spec"]["containers"][0]["resources"],
            json!({ "limits": { "cpu": "200m" }, "requests": { "cpu": "100m" } })
        );
        assert_eq!(
            pod["spec"]["containers"][1]["resources"],
            json!({ "limits": { "cpu": "1" }, "requests": { "cpu": "100m" } })
        );
        assert_eq!(
            pod["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu request for container c; cpu limit for container c; cpu request for container d"
        );
        assert!(pod["spec"].get("initContainers").is_none());
    }

    #[test]
    fn bounds_are_named_in_kubernetes_words() {
        for (resources, expect) in [
            (
                json!({ "limits": { "cpu": "3" }, "requests": { "cpu": "1" } }),
                vec!["maximum cpu usage per Container is 2, but limit is 3"],
            ),
            (
                json!({ "limits": { "cpu": "1" }, "requests": { "cpu": "1m" } }),
                vec!["minimum cpu usage per Container is 10m, but request is 1m"],
            ),
            (
                json!({ "requests": { "cpu": "1" } }),
                vec!["maximum cpu usage per Container is 2.  No limit is specified"],
            ),
            (json!({ "limits": { "cpu": "1" }, "requests": { "cpu": "1" } }), vec![]),
        ] {
            let pod = json!({ "spec": { "containers": [{ "name": "c", "resources": resources }] } });
            assert_eq!(pod_violations(&pod, &range()), expect);
        }
        let ratio = vec![json!({ "type": "Pod", "maxLimitRequestRatio": { "memory": "2" } })];
        let pod = json!({ "spec": { "containers": [{ "resources": { "limits": { "memory": "3Gi" }, "requests": { "memory": "1Gi" } } }] } });
        assert_eq!(
            pod_violations(&pod, &ratio),
            ["memory max limit to request ratio per Pod is 2, but provided ratio is 3.000000"]
        );
    }
}
