//! JSON Merge Patch, RFC 7396: what the patch holds replaces, `null` deletes, lists are replaced whole.

use serde_json::{Map, Value};

use super::PatchError;

/// Applies a patch body to a document.
///
/// # Errors
/// [`PatchError::BadRequest`] when the body is not an object.
pub fn apply(document: &mut Value, patch: &Value) -> Result<(), PatchError> {
    if patch.is_null() {
        return Err(PatchError::BadRequest("Invalid JSON Patch".to_owned()));
    }
    if !patch.is_object() {
        return Err(PatchError::BadRequest(format!(
            "error decoding patch: json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            super::go_kind(patch)
        )));
    }
    merge(document, patch);
    Ok(())
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else {
        return;
    };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.as_str()).or_insert(Value::Null), value);
        }
    }
}

/// The smallest merge patch that turns `before` into `after` (evanphx `CreateMergePatch`).
pub fn diff(before: &Value, after: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        return after.clone();
    };
    let mut patch = Map::new();
    for (key, value) in new {
        match old.get(key) {
            Some(same) if same == value => {}
            Some(other @ Value::Object(_)) if value.is_object() => {
                patch.insert(key.clone(), diff(other, value));
            }
            _ => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    Value::Object(patch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The examples of RFC 7396, appendix A, that are patches of an object.
    #[test]
    fn the_examples_of_the_rfc() {
        for (before, patch, after) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut document = before.clone();
            apply(&mut document, &patch).unwrap();
            assert_eq!(document, after, "{before} + {patch}");
        }
        for patch in [json!([]), json!("x"), Value::Null] {
            assert!(matches!(apply(&mut json!({}), &patch), Err(PatchError::BadRequest(_))));
        }
    }
}
