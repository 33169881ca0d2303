//! The scale subresource: one shape, `autoscaling/v1` Scale, over kinds that keep replicas in their own places.
use serde_json::{Map, Value, json};

use super::edit;
use super::field::{Errors, Field};
use crate::status::FieldError;

/// JSON pointers to what a Scale shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    /// Desired replicas.
    pub spec_replicas: &'static str,
    /// Observed replicas.
    pub status_replicas: &'static str,
    /// The selector of the pods: a LabelSelector, a plain map, or a selector string.
    pub selector: &'static str,
}

impl ScalePaths {
    /// The places of the workload kinds.
    pub const WORKLOAD: ScalePaths =
        ScalePaths { spec_replicas: "/spec/replicas", status_replicas: "/status/replicas", selector: "/spec/selector" };

    pub(super) fn scale(&self, object: &Value) -> Value {
        let count = |pointer| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
        let mut metadata = Map::new();
        for name in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
            if let Some(value) = object["metadata"].get(name) {
                metadata.insert(name.to_owned(), value.clone());
            }
        }
        let mut spec = Map::new();
        if count(self.spec_replicas) != 0 {
            spec.insert("replicas".to_owned(), count(self.spec_replicas).into());
        }
        let mut status = json!({"replicas": count(self.status_replicas)});
        let selector = object.pointer(self.selector).map(selector_text).unwrap_or_default();
        if !selector.is_empty() {
            edit::set(&mut status, "selector", selector);
        }
        json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
    }

    pub(super) fn set_replicas(&self, object: &mut Value, replicas: i64) {
        let Some((parents, last)) = self.spec_replicas.rsplit_once('/') else { return };
        let parent = parents.split('/').skip(1).fold(object, edit::child);
        edit::set(parent, last, replicas);
    }
}

/// A selector as clients send it in `labelSelector`: `metav1.FormatLabelSelector` without its `<none>`.
pub(crate) fn selector_text(selector: &Value) -> String {
    let plain = |map: &Map<String, Value>| -> Vec<String> {
        map.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or(""))).collect()
    };
    let map = match selector {
        Value::String(text) => return text.clone(),
        Value::Object(map) => map,
        _ => return String::new(),
    };
    if map.get("matchLabels").is_none_or(|value| !value.is_object()) && !map.contains_key("matchExpressions") {
        return plain(map).join(",");
    }
    let mut terms: Vec<(String, String)> = Vec::new();
    if let Some(Value::Object(labels)) = map.get("matchLabels") {
        terms.extend(labels.iter().map(|(key, value)| (key.clone(), format!("{key}={}", value.as_str().unwrap_or("")))));
    }
    for expression in map.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
        let key = edit::text(expression, "key");
        let mut values: Vec<&str> =
            expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let term = match edit::text(expression, "operator") {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        };
        terms.push((key.to_owned(), term));
    }
    terms.sort_by(|a, b| a.0.cmp(&b.0));
    terms.into_iter().map(|(_, term)| term).collect::<Vec<_>>().join(",")
}

pub(super) fn validate(scale: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    Field::root(scale).get("spec").get("replicas").non_negative(&mut errors);
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_read_as_clients_write_them() {
        assert_eq!(selector_text(&json!({"b": "2", "a": "1"})), "a=1,b=2");
        let selector = json!({"matchLabels": {"z": "1"}, "matchExpressions": [
            {"key": "a", "operator": "In", "values": ["y", "x"]}, {"key": "q", "operator": "DoesNotExist"}]});
        assert_eq!(selector_text(&selector), "a in (x,y),!q,z=1");
    }
}
