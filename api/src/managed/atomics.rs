//! Where a value can only be replaced as a whole: what an apply configuration of a policy may not touch, because it would
//! take away what it does not say (`k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch/smd.go`).

use serde_json::Value;

use super::shape::{Place, Relation, Shape};

/// The paths of all atomic lists and objects in a value.
pub(super) fn find(place: Place<'_>, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    collect(place, value, String::new(), &mut found);
    found
}

fn collect(place: Place<'_>, value: &Value, path: String, found: &mut Vec<String>) {
    if let Place::Deduced = place {
        return;
    }
    let shape = place.shape(value);
    if matches!(shape, Shape::AtomicMap | Shape::List(_, Relation::Atomic)) {
        found.push(path.clone());
    }
    match (shape, value) {
        (Shape::Map | Shape::AtomicMap, Value::Object(fields)) => {
            for (name, inner) in fields {
                collect(place.child(name), inner, format!("{path}.{name}"), found);
            }
        }
        (Shape::List(item, _), Value::Array(items)) => {
            for (at, inner) in items.iter().enumerate() {
                collect(item, inner, format!("{path}[{at}]"), found);
            }
        }
        _ => {}
    }
}
