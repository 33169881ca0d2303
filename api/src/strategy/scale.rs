//! The scale subresource: one shape, `autoscaling/v1` Scale, over kinds that keep replicas in their own places.
use serde_json::{Map, Value, json};

use super::edit;
use super::field::{Errors, Field};
use crate::selector::LabelSelector;
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
        let Some((parents, last)) = self.spec_replicas.rsplit_once('/') else {
            return;
        };
        let parent = parents.split('/').skip(1).fold(object, edit::child);
        edit::set(parent, last, replicas);
    }
}

/// A selector as clients send it in `labelSelector`, empty where nothing is chosen. ReplicationControllers and Services
/// have plain maps, custom resources strings, all others LabelSelectors.
pub(crate) fn selector_text(selector: &Value) -> String {
    match selector {
        Value::String(text) => text.clone(),
        Value::Object(map) if map.contains_key("matchLabels") || map.contains_key("matchExpressions") => {
            LabelSelector::from_value(Some(selector))
                .map_or_else(|_| "<error>".to_owned(), |selector| selector.to_string())
        }
        Value::Object(map) => {
            LabelSelector::from_set(map.iter().map(|(key, value)| (key.as_str(), value.as_str().unwrap_or(""))))
                .to_string()
        }
        _ => String::new(),
    }
}

pub(super) fn validate(scale: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    Field::root(scale).get("spec").get("replicas").non_negative(&mut errors);
    errors.into()
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
