//! JSON Patch, RFC 6902: a list of operations, all of which succeed or none (apiserver `handlers/patch.go`, `jsonPatcher`).

use json_patch::jsonptr::Pointer;
use json_patch::{AddOperation, PatchErrorKind, PatchOperation};
use serde_json::Value;

use super::PatchError;
use crate::decode::MAX_DEPTH;

/// The most operations one patch may hold.
pub const MAX_OPERATIONS: usize = 10_000;
/// How many bytes of JSON the `copy` operations of one patch may add: without a bound, twenty of them make gigabytes.
pub const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;
/// How many values the operations of one patch may look at or shift: ten thousand moves of a large object, or insertions before a long
/// list, would hold a processor for minutes.
pub const MAX_TOUCHED_VALUES: usize = 50_000_000;

/// Applies a patch body to a document. On an error the document is left as it was.
///
/// # Errors
/// [`PatchError::BadRequest`] when the body is no list of operations, [`PatchError::TooLarge`] when it is too long a list,
/// [`PatchError::TestFailed`] when a `test` does not hold, [`PatchError::Unprocessable`] when an operation is wrong or fails.
pub fn apply(document: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let wrong = |kind: &str, of: &str| {
        Err(PatchError::BadRequest(format!("error decoding patch: json: cannot unmarshal {kind} into Go {of}")))
    };
    let operations = match patch {
        Value::Array(operations) => operations,
        Value::Null => return Ok(()),
        other => return wrong(super::go_kind(other), "value of type []handlers.jsonPatchOp"),
    };
    if operations.len() > MAX_OPERATIONS {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    for operation in operations {
        if !operation.is_object() && !operation.is_null() {
            return wrong(super::go_kind(operation), "value of type handlers.jsonPatchOp");
        }
        for name in ["op", "path", "from"] {
            if let Some(other) = operation.get(name).filter(|text| !text.is_string() && !text.is_null()) {
                return wrong(super::go_kind(other), &format!("struct field jsonPatchOp.{name} of type string"));
            }
        }
    }
    let mut patched = document.clone();
    let mut copied = 0;
    let mut left = MAX_TOUCHED_VALUES;
    for operation in operations {
        let mut operation = operation.clone();
        if let Some(fields) = operation.as_object_mut().filter(|fields| !fields.contains_key("value")) {
            fields.insert("value".to_owned(), Value::Null);
        }
        settle_indices(&mut operation, &patched);
        let operation: PatchOperation =
            serde_json::from_value(operation).map_err(|error| PatchError::Unprocessable(error.to_string()))?;
        let operation = or_add(operation, &patched);
        check_depth(&operation, &patched, &mut left)?;
        if left == 0 {
            return Err(PatchError::TooLarge(format!(
                "The operations in a JSON patch may touch {MAX_TOUCHED_VALUES} values altogether"
            )));
        }
        if let PatchOperation::Copy(copy) = &operation {
            copied += copy.from.resolve(&patched).map_or(0, |value| value.to_string().len());
            if copied > MAX_COPIED_BYTES {
                return Err(PatchError::Unprocessable(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit \
                     {MAX_COPIED_BYTES}"
                )));
            }
        }
        if tests_for_absence(&operation, &patched) {
            continue;
        }
        json_patch::patch(&mut patched, std::slice::from_ref(&operation)).map_err(|error| match error.kind {
            PatchErrorKind::TestFailed => PatchError::TestFailed(error.to_string()),
            _ => PatchError::Unprocessable(error.to_string()),
        })?;
    }
    *document = patched;
    Ok(())
}

/// Writes the indices of lists in an operation's paths as the RFC has them. The Go library reads them as numbers: `01` is 1, and
/// `-1` counts from the end.
fn settle_indices(operation: &mut Value, document: &Value) {
    let kind = operation["op"].as_str().unwrap_or_default().to_owned();
    if kind != "remove" && kind != "replace" && kind != "test" {
        settle(&mut operation["from"], document, false);
    }
    let adds = matches!(kind.as_str(), "add" | "copy" | "move");
    let takes_first = kind == "move" && operation["path"].as_str().is_some_and(|path| path.contains("/-"));
    let from = operation["from"].as_str().filter(|_| takes_first).map(Pointer::parse);
    let without = from.and_then(Result::ok).map(|from| {
        let mut document = document.clone();
        from.to_owned().delete(&mut document);
        document
    });
    settle(&mut operation["path"], without.as_ref().unwrap_or(document), adds);
}

fn settle(path: &mut Value, document: &Value, adds: bool) {
    let Some(text) = path.as_str().filter(|text| text.starts_with('/')) else { return };
    let mut settled = String::with_capacity(text.len());
    let mut place = Some(document);
    let mut tokens = text[1..].split('/').peekable();
    while let Some(token) = tokens.next() {
        let list = place.and_then(Value::as_array);
        let index = list.zip(token.parse::<i64>().ok()).and_then(|(list, index)| {
            let length = list.len() + usize::from(adds && tokens.peek().is_none());
            if index < 0 {
                length.checked_sub(usize::try_from(index.unsigned_abs()).ok()?)
            } else {
                index.try_into().ok()
            }
        });
        let token = index.map_or_else(|| token.to_owned(), |index| index.to_string());
        let step = format!("/{token}");
        place = place.and_then(|place| Pointer::parse(&step).ok()?.resolve(place).ok());
        settled.push_str(&step);
    }
    *path = Value::String(settled);
}

/// Refuses what would nest values more deeply than objects may be: `copy` and `move` into itself could make a document that
/// overflows the stack. What the operation touches is taken from what is `left`.
fn check_depth(operation: &PatchOperation, document: &Value, left: &mut usize) -> Result<(), PatchError> {
    let (path, value) = match operation {
        PatchOperation::Add(add) => (&add.path, Some(&add.value)),
        PatchOperation::Replace(replace) => (&replace.path, Some(&replace.value)),
        PatchOperation::Copy(copy) => (&copy.path, copy.from.resolve(document).ok()),
        PatchOperation::Move(change) => {
            *left = left.saturating_sub(siblings(&change.from, document));
            (&change.path, change.from.resolve(document).ok())
        }
        PatchOperation::Remove(remove) => {
            *left = left.saturating_sub(siblings(&remove.path, document));
            return Ok(());
        }
        PatchOperation::Test(_) => return Ok(()),
    };
    *left = left.saturating_sub(siblings(path, document));
    let levels = MAX_DEPTH.checked_sub(path.count());
    if levels.is_some_and(|levels| value.is_none_or(|value| fits(value, levels, left))) {
        return Ok(());
    }
    Err(PatchError::Unprocessable(format!("the patched document is nested more than {MAX_DEPTH} deep")))
}

/// How many values a list shifts at most when one is put there or taken away.
fn siblings(path: &Pointer, document: &Value) -> usize {
    let parent = path.parent().and_then(|parent| parent.resolve(document).ok());
    parent.and_then(Value::as_array).map_or(0, Vec::len)
}

fn fits(value: &Value, levels: usize, left: &mut usize) -> bool {
    *left = left.saturating_sub(1);
    let mut below = |value: &Value| levels > 0 && fits(value, levels - 1, left);
    match value {
        Value::Array(items) => items.iter().all(&mut below),
        Value::Object(map) => map.values().all(&mut below),
        _ => true,
    }
}

/// `replace` of a field that an object does not have adds it: what the Go library does.
fn or_add(operation: PatchOperation, document: &Value) -> PatchOperation {
    let PatchOperation::Replace(replace) = operation else {
        return operation;
    };
    let parent = replace.path.parent().and_then(|parent| parent.resolve(document).ok());
    if parent.is_some_and(Value::is_object) && replace.path.resolve(document).is_err() {
        return PatchOperation::Add(AddOperation { path: replace.path, value: replace.value });
    }
    PatchOperation::Replace(replace)
}

/// `{"op": "test", "path": "/a/b", "value": null}` holds where `/a` has no `b`: what the Go library does, and users rely on.
fn tests_for_absence(operation: &PatchOperation, document: &Value) -> bool {
    let PatchOperation::Test(test) = operation else {
        return false;
    };
    let parent = test.path.parent().and_then(|parent| parent.resolve(document).ok());
    test.value.is_null() && parent.is_some_and(Value::is_object) && test.path.resolve(document).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(before: Value, patch: Value, after: Result<Value, &str>) {
        let mut document = before.clone();
        match (apply(&mut document, &patch), after) {
            (Ok(()), Ok(after)) => assert_eq!(document, after),
            (Err(error), Err(expect)) => {
                assert_eq!(error.to_string(), expect);
                assert_eq!(document, before, "a patch that fails changes nothing");
            }
            (got, expect) => panic!("got {got:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn operations() {
        let before = json!({"a": {"b": [1, 2]}, "c/d": "x", "e": null});
        check(before.clone(), json!([]), Ok(before.clone()));
        check(
            before.clone(),
            json!([
                {"op": "test", "path": "/c~1d", "value": "x"},
                {"op": "add", "path": "/a/b/-", "value": 3},
                {"op": "add", "path": "/a/b/0", "value": 0},
                {"op": "replace", "path": "/c~1d", "value": "y"},
                {"op": "copy", "from": "/a/b", "path": "/f"},
                {"op": "move", "from": "/a", "path": "/g"},
                {"op": "remove", "path": "/e"},
                {"op": "replace", "path": "/e", "value": 1},
                {"op": "remove", "path": "/e"},
                {"op": "add", "path": "/e"},
                {"op": "remove", "path": "/e"},
                {"op": "test", "path": "/h", "value": null},
            ]),
            Ok(json!({"g": {"b": [0, 1, 2, 3]}, "f": [0, 1, 2, 3], "c/d": "y"})),
        );
    }

    #[test]
    fn indices_are_read_as_go_reads_numbers() {
        let list = json!({"a": [1, 2, {"b": 3}]});
        for (patch, after) in [
            (json!({"op": "add", "path": "/a/-1", "value": 4}), json!([1, 2, {"b": 3}, 4])),
            (json!({"op": "add", "path": "/a/-4", "value": 4}), json!([4, 1, 2, {"b": 3}])),
            (json!({"op": "remove", "path": "/a/-3"}), json!([2, {"b": 3}])),
            (json!({"op": "remove", "path": "/a/+1"}), json!([1, {"b": 3}])),
            (json!({"op": "replace", "path": "/a/-1/b", "value": 5}), json!([1, 2, {"b": 5}])),
            (json!({"op": "replace", "path": "/a/01", "value": 5}), json!([1, 5, {"b": 3}])),
            (json!({"op": "move", "from": "/a/-3", "path": "/a/-1"}), json!([2, {"b": 3}, 1])),
        ] {
            check(list.clone(), json!([patch]), Ok(json!({ "a": after })));
        }
        let mut document = list.clone();
        for path in ["/a/-4", "/a/-", "/a/3", "/a/1x"] {
            let refused = apply(&mut document, &json!([{"op": "remove", "path": path}]));
            assert!(matches!(refused, Err(PatchError::Unprocessable(_))), "{path}: {refused:?}");
        }
    }

    #[test]
    fn all_or_nothing() {
        let before = json!({"a": 1});
        for last in [
            json!({"op": "test", "path": "/a", "value": 1}),
            json!({"op": "replace", "path": "/nope/x", "value": 1}),
            Value::Null,
            json!({"op": "remove", "path": "/nope"}),
            json!({"op": "add", "path": "/b/c", "value": 1}),
            json!({"op": "frobnicate", "path": "/a"}),
            json!({"op": "test", "path": "/x/y", "value": null}),
        ] {
            let mut document = before.clone();
            let patch = json!([{"op": "replace", "path": "/a", "value": 2}, last]);
            let refused = apply(&mut document, &patch).expect_err("a refusal");
            let tested = last == json!({"op": "test", "path": "/a", "value": 1});
            match refused {
                PatchError::TestFailed(_) if tested => {}
                PatchError::Unprocessable(_) if !tested => {}
                other => panic!("{last}: {other:?}"),
            }
            assert_eq!(document, before);
        }
    }

    #[test]
    fn bounds_and_bad_bodies() {
        let unmarshal = "error decoding patch: json: cannot unmarshal";
        for (patch, of) in [
            (json!({}), "object into Go value of type []handlers.jsonPatchOp"),
            (json!([1]), "number into Go value of type handlers.jsonPatchOp"),
            (json!([{"op": 1}]), "number into Go struct field jsonPatchOp.op of type string"),
        ] {
            check(json!({}), patch, Err(&format!("{unmarshal} {of}")));
        }
        check(json!({"a": 1}), Value::Null, Ok(json!({"a": 1})));
        let many = vec![json!({"op": "add", "path": "/a", "value": 1}); MAX_OPERATIONS + 1];
        check(json!({}), many.into(), Err("The allowed maximum operations in a JSON patch is 10000, got 10001"));
        let deepening: Vec<Value> =
            (0..12).map(|i| json!({"op": "copy", "from": "", "path": "/a".repeat(1 << i)})).collect();
        assert!(matches!(
            apply(&mut json!({}), &deepening.into()),
            Err(PatchError::Unprocessable(message)) if message == format!("the patched document is nested more than {MAX_DEPTH} deep")
        ));
        let doubling: Vec<Value> =
            (0..40).map(|i| json!({"op": "copy", "from": "", "path": format!("/{i}")})).collect();
        assert!(matches!(
            apply(&mut json!({"a": "x".repeat(100)}), &doubling.into()),
            Err(PatchError::Unprocessable(message)) if message.starts_with("Unable to complete the copy")
        ));
    }

    #[test]
    fn what_operations_touch_is_bounded() {
        let long = json!({"a": vec![0; 20_000], "b": {}});
        let there_and_back =
            [json!({"op": "move", "from": "/a", "path": "/b/a"}), json!({"op": "move", "from": "/b/a", "path": "/a"})];
        for operations in [there_and_back.to_vec(), vec![json!({"op": "add", "path": "/a/0", "value": 1})]] {
            let patch = operations.into_iter().cycle().take(MAX_OPERATIONS).collect();
            let message = "The operations in a JSON patch may touch 50000000 values altogether";
            check(long.clone(), patch, Err(message));
        }
    }
}
