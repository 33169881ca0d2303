//! Between the versions of one kind.
//!
//! Two kinds are served in a form that is not the stored one: `autoscaling/v1` HorizontalPodAutoscaler, whose stored form
//! is v2, and `events.k8s.io/v1` Event, stored as core/v1. All others are what they are (Kubernetes: `pkg/apis/*/*/conversion.go`).
//! Versions of a custom resource differ in their name, and in the defaults of what one of them does not know; where its
//! definition names a webhook, that one is asked instead, which is not done here (`custom::conversion`).

use serde_json::{Map, Value, json};

use super::Kind;
use crate::decode::{FieldValidation, normalize};
use crate::meta;

/// Turns an object of kind `from` into one of kind `to`, in place. Kinds that do not share their storage are left alone.
pub fn convert(from: &Kind, to: &Kind, object: &mut Value) {
    if from.storage != to.storage || (from.group == to.group && from.version == to.version) {
        return;
    }
    if let Some(definition) = &to.definition {
        object["apiVersion"] = to.api_version().into();
        // Defaults are those of the version that was written, as in Kubernetes.
        definition.prune(object);
        return;
    }
    match (from.kind.as_str(), from.version.as_str(), to.version.as_str()) {
        ("HorizontalPodAutoscaler", "v1", "v2") => autoscaler_to_v2(object),
        ("HorizontalPodAutoscaler", "v2", "v1") => autoscaler_to_v1(object),
        ("Event", ..) => rename_event_fields(object, to.group == "events.k8s.io"),
        _ => {}
    }
    // What one version writes as a zero, another leaves out.
    if let Ok(normal) = normalize(&to.ty(), object.clone(), FieldValidation::Ignore) {
        *object = normal.object;
    }
    object["apiVersion"] = to.api_version().into();
    object["kind"] = to.kind.as_str().into();
}

/// Field names of core/v1 and of events.k8s.io/v1; all others are the same.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn rename_event_fields(event: &mut Value, to_events_group: bool) {
    let Some(event) = event.as_object_mut() else {
        return;
    };
    for (core, events) in EVENT_FIELDS {
        let (old, new) = if to_events_group { (core, events) } else { (events, core) };
        rename(event, old, new);
    }
}

fn rename(object: &mut Map<String, Value>, old: &str, new: &str) {
    if let Some(value) = object.remove(old) {
        object.insert(new.to_owned(), value);
    }
}

/// What v2 has and v1 has not travels in annotations (`pkg/apis/autoscaling/annotations.go`).
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

fn autoscaler_to_v2(object: &mut Value) {
    let mut noted = |key: &str| -> Option<Value> {
        let value = serde_json::from_str(meta::annotation(object, key)?).ok();
        meta::remove_annotation(object, key);
        value
    };
    let (metrics, behavior) = (noted(METRICS), noted(BEHAVIOR));
    let (current, conditions) = (noted(CURRENT_METRICS), noted(CONDITIONS));

    let list = |value: Option<Value>, target: Target| -> Vec<Value> {
        let Some(Value::Array(metrics)) = value else {
            return Vec::new();
        };
        metrics.into_iter().map(|metric| metric_to_v2(metric, target)).collect()
    };
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        let mut all = Vec::new();
        if let Some(percent) = spec.remove("targetCPUUtilizationPercentage").filter(|p| !p.is_null()) {
            let target = json!({"type": "Utilization", "averageUtilization": percent});
            all.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
        }
        all.extend(list(metrics, Target::Wanted));
        insert_filled(spec, "metrics", all);
        if let Some(behavior) = behavior {
            spec.insert("behavior".to_owned(), renamed_keys(behavior, char::to_ascii_lowercase));
        }
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        let percent = status.remove("currentCPUUtilizationPercentage").filter(|p| !p.is_null());
        let mut all = list(current, Target::Current);
        if let (Some(percent), true) = (percent, all.is_empty()) {
            all.push(
                json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": percent}}}),
            );
        }
        insert_filled(status, "currentMetrics", all);
        if let Some(conditions) = conditions {
            status.insert("conditions".to_owned(), conditions);
        }
    }
}

fn autoscaler_to_v1(object: &mut Value) {
    let mut notes: Vec<(&str, Value)> = Vec::new();
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        let (cpu, others): (Vec<_>, Vec<_>) = take_list(spec, "metrics").into_iter().partition(is_cpu_utilization);
        if let Some(cpu) = cpu.first() {
            let percent = cpu["resource"]["target"]["averageUtilization"].clone();
            spec.insert("targetCPUUtilizationPercentage".to_owned(), percent);
        }
        if !others.is_empty() {
            notes.push((METRICS, others.into_iter().map(|metric| metric_to_v1(metric, Target::Wanted)).collect()));
        }
        if let Some(behavior) = spec.remove("behavior").filter(|b| !b.is_null()) {
            notes.push((BEHAVIOR, renamed_keys(behavior, char::to_ascii_uppercase)));
        }
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        let current = take_list(status, "currentMetrics");
        let cpu = current.iter().find(|metric| metric["resource"]["name"] == "cpu");
        if let Some(percent) =
            cpu.map(|cpu| cpu["resource"]["current"]["averageUtilization"].clone()).filter(|p| !p.is_null())
        {
            status.insert("currentCPUUtilizationPercentage".to_owned(), percent);
        }
        if !current.is_empty() {
            notes.push((
                CURRENT_METRICS,
                current.into_iter().map(|metric| metric_to_v1(metric, Target::Current)).collect(),
            ));
        }
        let conditions = take_list(status, "conditions");
        if !conditions.is_empty() {
            notes.push((CONDITIONS, Value::Array(conditions)));
        }
    }
    for (key, value) in notes {
        meta::set_annotation(object, key, &value.to_string());
    }
}

fn is_cpu_utilization(metric: &Value) -> bool {
    let resource = &metric["resource"];
    metric["type"] == "Resource" && resource["name"] == "cpu" && resource["target"]["averageUtilization"].is_number()
}

fn take_list(object: &mut Map<String, Value>, field: &str) -> Vec<Value> {
    match object.remove(field) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

fn insert_filled(object: &mut Map<String, Value>, field: &str, list: Vec<Value>) {
    if !list.is_empty() {
        object.insert(field.to_owned(), Value::Array(list));
    }
}

/// The annotation of the behavior holds Go's internal struct, whose fields begin with a capital.
fn renamed_keys(value: Value, first: fn(&char) -> char) -> Value {
    match value {
        Value::Object(object) => Value::Object(
            object
                .into_iter()
                .map(|(key, value)| {
                    let mut letters = key.chars();
                    let key = letters.next().map(|c| first(&c)).into_iter().chain(letters).collect();
                    (key, renamed_keys(value, first))
                })
                .collect(),
        ),
        Value::Array(list) => list.into_iter().map(|value| renamed_keys(value, first)).collect(),
        scalar => scalar,
    }
}

/// Whether a metric says what is wanted (`spec.metrics`) or what is (`status.currentMetrics`).
#[derive(Clone, Copy)]
enum Target {
    Wanted,
    Current,
}

impl Target {
    /// v2's name of the struct with the amounts, which is v1's prefix of their names.
    fn name(self) -> &'static str {
        match self {
            Self::Wanted => "target",
            Self::Current => "current",
        }
    }
}

/// The sources of a metric and, of each, v1's name of the metric's selector.
const SOURCES: [(&str, &str); 5] = [
    ("object", "selector"),
    ("pods", "selector"),
    ("resource", ""),
    ("containerResource", ""),
    ("external", "metricSelector"),
];

fn metric_to_v2(mut metric: Value, target: Target) -> Value {
    let prefix = target.name();
    for (source, selector) in SOURCES {
        let Some(old) = metric.get_mut(source).and_then(Value::as_object_mut) else {
            continue;
        };
        // v1's `target` of an object metric is the object; out of the way before it comes to mean the amounts.
        rename(old, "target", "describedObject");
        let mut amounts = Map::new();
        let mut amount = |old: &mut Map<String, Value>, name: String, new: &str| {
            if let Some(value) = old.remove(&name).filter(|v| !v.is_null()) {
                amounts.insert(new.to_owned(), value);
            }
        };
        amount(old, format!("{prefix}Value"), "value");
        amount(old, format!("{prefix}AverageValue"), "averageValue");
        amount(old, "averageValue".to_owned(), "averageValue");
        amount(old, format!("{prefix}AverageUtilization"), "averageUtilization");
        if matches!(target, Target::Wanted) {
            let kinds = [("averageUtilization", "Utilization"), ("averageValue", "AverageValue"), ("value", "Value")];
            if let Some((_, kind)) = kinds.iter().find(|(name, _)| amounts.contains_key(*name)) {
                amounts.insert("type".to_owned(), (*kind).into());
            }
        }
        if let Some(name) = old.remove("metricName") {
            let mut identifier = Map::from_iter([("name".to_owned(), name)]);
            if let Some(selector) = old.remove(selector) {
                identifier.insert("selector".to_owned(), selector);
            }
            old.insert("metric".to_owned(), Value::Object(identifier));
        }
        old.insert(prefix.to_owned(), Value::Object(amounts));
    }
    metric
}

fn metric_to_v1(mut metric: Value, target: Target) -> Value {
    let prefix = target.name();
    for (source, selector) in SOURCES {
        let Some(old) = metric.get_mut(source).and_then(Value::as_object_mut) else {
            continue;
        };
        let amounts = match old.remove(prefix) {
            Some(Value::Object(amounts)) => amounts,
            _ => Map::new(),
        };
        rename(old, "describedObject", "target");
        for (name, value) in amounts {
            let name = match name.as_str() {
                "value" => format!("{prefix}Value"),
                "averageValue" if source == "object" => name,
                "averageValue" => format!("{prefix}AverageValue"),
                "averageUtilization" => format!("{prefix}AverageUtilization"),
                _ => continue,
            };
            old.insert(name, value);
        }
        if let Some(Value::Object(mut identifier)) = old.remove("metric") {
            if let Some(name) = identifier.remove("name") {
                old.insert("metricName".to_owned(), name);
            }
            if let Some(value) = identifier.remove("selector") {
                old.insert(selector.to_owned(), value);
            }
        }
    }
    metric
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Kinds;

    fn check(kind: (&str, &str, &str), other: (&str, &str, &str), object: Value, expected: Value) {
        let kinds = Kinds::built_in();
        let (from, to) =
            (kinds.by_kind(kind.0, kind.1, kind.2).unwrap(), kinds.by_kind(other.0, other.1, other.2).unwrap());
        let normal = |kind: &Kind, value| normalize(&kind.ty(), value, FieldValidation::Strict).unwrap().object;
        let mut converted = object.clone();
        convert(from, to, &mut converted);
        assert_eq!(converted, normal(to, expected));
        convert(to, from, &mut converted);
        assert_eq!(converted, normal(from, object), "and back");
    }

    #[test]
    fn autoscalers_convert_both_ways() {
        let v1 = ("autoscaling", "v1", "HorizontalPodAutoscaler");
        let v2 = ("autoscaling", "v2", "HorizontalPodAutoscaler");
        check(
            v1,
            v2,
            json!({
                "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
                "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "maxReplicas": 3, "targetCPUUtilizationPercentage": 70},
            }),
            json!({
                "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
                "spec": {
                    "scaleTargetRef": {"kind": "Deployment", "name": "d"}, "maxReplicas": 3,
                    "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}],
                },
            }),
        );
        check(
            v2,
            v1,
            json!({
                "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
                "spec": {
                    "scaleTargetRef": {"kind": "Deployment", "name": "d"}, "maxReplicas": 3,
                    "metrics": [
                        {"type": "Object", "object": {
                            "describedObject": {"kind": "Ingress", "name": "i"}, "metric": {"name": "rps"},
                            "target": {"type": "Value", "value": "10"},
                        }},
                        {"type": "External", "external": {
                            "metric": {"name": "queue", "selector": {"matchLabels": {"q": "a"}}},
                            "target": {"type": "AverageValue", "averageValue": "30"},
                        }},
                    ],
                    "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}},
                },
            }),
            json!({
                "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
                "metadata": {"name": "h", "annotations": {
                    METRICS: r#"[{"object":{"metricName":"rps","target":{"kind":"Ingress","name":"i"},"targetValue":"10"},"type":"Object"},{"external":{"metricName":"queue","metricSelector":{"matchLabels":{"q":"a"}},"targetAverageValue":"30"},"type":"External"}]"#,
                    BEHAVIOR: r#"{"ScaleDown":{"StabilizationWindowSeconds":60}}"#,
                }},
                "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "maxReplicas": 3},
            }),
        );
    }

    #[test]
    fn events_convert_both_ways() {
        check(
            ("", "v1", "Event"),
            ("events.k8s.io", "v1", "Event"),
            json!({
                "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p"},
                "message": "Started container c", "reason": "Started", "type": "Normal", "count": 2,
                "source": {"component": "kubelet"}, "firstTimestamp": "2026-01-02T03:04:05Z",
            }),
            json!({
                "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"}, "regarding": {"kind": "Pod", "name": "p"},
                "note": "Started container c", "reason": "Started", "type": "Normal", "deprecatedCount": 2,
                "deprecatedSource": {"component": "kubelet"}, "deprecatedFirstTimestamp": "2026-01-02T03:04:05Z",
            }),
        );
    }
}
