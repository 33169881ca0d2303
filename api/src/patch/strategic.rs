//! Strategic merge patch: JSON merge patch that knows the type, so that lists merge by keys
//! (apimachinery `pkg/util/strategicpatch/patch.go`, `StrategicMergeMapPatch`).
//!
//! | in the patch | means |
//! |---|---|
//! | `"containers": [{"name": "c", "image": "x"}]` | merge into the element whose merge key is equal, or add it |
//! | `{"name": "c", "$patch": "delete"}` in such a list | delete the element |
//! | `{"$patch": "replace"}` in a list or map | take what the patch holds, and nothing else |
//! | `"$setElementOrder/containers": [{"name": "b"}, …]` | the order of the elements that the client knows of |
//! | `"$deleteFromPrimitiveList/finalizers": ["a"]` | delete these from a list of scalars |
//! | `"$retainKeys": ["rollingUpdate", "type"]` | of this map, keep only these fields |
//! | `null` | delete the field |

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::order::{Places, in_element_order, partition};
use super::{PatchError, go_value};
use crate::schema::{Field, Scalar, Struct, Type};

pub(super) const DIRECTIVE: &str = "$patch";
pub(super) const RETAIN_KEYS: &str = "$retainKeys";
pub(super) const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList";
pub(super) const SET_ELEMENT_ORDER: &str = "$setElementOrder";

/// Applies a patch body to an object of type `schema`.
///
/// # Errors
/// In the words of apimachinery. On an error the document is left half patched: it is to be thrown away.
pub fn apply(schema: &Arc<Struct>, document: &mut Value, patch: &Value) -> Result<(), PatchError> {
    if patch.is_null() {
        return Ok(());
    }
    let Value::Object(patch) = patch else {
        return Err(PatchError::BadRequest(format!(
            "json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            super::go_kind(patch)
        )));
    };
    if !document.is_object() {
        *document = Value::Object(Map::new());
    }
    match document {
        Value::Object(document) => merge_map(document, patch.clone(), Some(&Type::Struct(schema.clone()))),
        _ => Ok(()),
    }
}

/// Why a patched document cannot be read as its type, in the words of apimachinery's converter (`pkg/runtime/converter.go`): values that
/// need not be asked are left to whoever decodes the document.
pub fn conversion_error(schema: &Arc<Struct>, patched: &Value) -> Option<String> {
    unconvertible(&Type::Struct(schema.clone()), patched)
}

fn unconvertible(ty: &Type, value: &Value) -> Option<String> {
    let kind = match value {
        Value::Null => return None,
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    };
    let scalar = |name: &str| match (name, kind) {
        ("string", "int64" | "float64") | ("int32" | "int64", "float64") => {
            Some(format!("cannot convert {kind} to {name}"))
        }
        _ => Some(format!("unrecognized type: {name}")),
    };
    match (ty, value) {
        (Type::Struct(of), Value::Object(fields)) => {
            fields.iter().find_map(|(name, value)| unconvertible(&of.field(name)?.ty, value))
        }
        (Type::Struct(_), _) => Some(format!("cannot restore struct from: {kind}")),
        (Type::Map(of), Value::Object(values)) => values.values().find_map(|value| unconvertible(&of.value, value)),
        (Type::Map(_), _) => Some(format!("cannot restore map from {kind}")),
        (Type::List(of), Value::Array(items)) => items.iter().find_map(|item| unconvertible(&of.element, item)),
        (Type::List(_), _) => Some(format!("cannot restore slice from {kind}")),
        (Type::Scalar(Scalar::String), _) if kind != "string" => scalar("string"),
        (Type::Scalar(Scalar::Bool), _) if kind != "bool" => scalar("bool"),
        // A number that is whole is one, however it is written.
        (Type::Scalar(Scalar::Int32 | Scalar::Int64), Value::Number(number))
            if number.as_f64().is_some_and(|number| number.fract() == 0.0) =>
        {
            None
        }
        (Type::Scalar(Scalar::Int32), _) => scalar("int32"),
        (Type::Scalar(Scalar::Int64), _) => scalar("int64"),
        _ => None,
    }
}

/// The field of a struct, or the values of a map. Of what the schema does not know, nothing is said.
#[derive(Clone, Copy)]
pub(super) struct Place<'s> {
    pub(super) ty: Option<&'s Type>,
    pub(super) field: Option<&'s Field>,
}

impl<'s> Place<'s> {
    pub(super) fn of(ty: Option<&'s Type>, key: &str) -> Place<'s> {
        match ty {
            Some(Type::Struct(s)) => {
                let field = s.field(key);
                Place { ty: field.map(|field| &field.ty), field }
            }
            Some(Type::Map(map)) => Place { ty: Some(&map.value), field: None },
            _ => Place { ty: None, field: None },
        }
    }

    /// The type of the items of the list that is here.
    pub(super) fn item(self) -> Option<&'s Type> {
        self.ty.and_then(Type::as_list).map(|list| &list.element)
    }

    pub(super) fn merges_lists(self) -> bool {
        self.field.is_some_and(|field| field.patch.merge)
    }

    pub(super) fn replaces_maps(self) -> bool {
        self.field.is_some_and(|field| field.patch.replace)
    }

    pub(super) fn retains_keys(self) -> bool {
        self.field.is_some_and(|field| field.patch.retain_keys)
    }

    pub(super) fn merge_key(self) -> Option<&'s str> {
        self.field.and_then(|field| field.merge_key.as_deref())
    }
}

fn merge_map(
    original: &mut Map<String, Value>,
    mut patch: Map<String, Value>,
    ty: Option<&Type>,
) -> Result<(), PatchError> {
    if let Some(directive) = patch.get(DIRECTIVE) {
        match directive.as_str() {
            Some("replace") => {
                patch.remove(DIRECTIVE);
                *original = patch;
            }
            Some("delete") => original.clear(),
            _ => return Err(unknown_directive(directive, &patch)),
        }
        return Ok(());
    }
    retain_keys(original, &mut patch)?;
    merge_ordered_lists(original, &mut patch, ty)?;
    for (key, value) in patch {
        let deletions = key.strip_prefix(DELETE_FROM_PRIMITIVE_LIST);
        if let Some(rest) = deletions {
            let key = rest
                .strip_prefix('/')
                .ok_or_else(|| PatchError::BadRequest("invalid patch format of primitive list".to_owned()))?;
            delete_from_list(original, key, &value)?;
            continue;
        }
        if value.is_null() {
            original.remove(&key);
            continue;
        }
        let place = Place::of(ty, &key);
        match (original.get_mut(&key), value) {
            (Some(Value::Object(original)), Value::Object(patch)) if !place.replaces_maps() => {
                merge_map(original, patch, place.ty)?;
            }
            (Some(Value::Array(original)), Value::Array(patch)) if place.merges_lists() => {
                *original = merge_list(std::mem::take(original), patch, place)?;
            }
            (Some(original @ Value::Object(_)), value @ Value::Object(_)) => *original = value,
            (_, value) => {
                original.extend(settled(value).map(|value| (key, value)));
            }
        }
    }
    Ok(())
}

/// Obeys `$retainKeys`: what is not named goes, and the patch may not name more.
fn retain_keys(original: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<(), PatchError> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let bad = || PatchError::BadRequest("invalid patch format of retainKeys".to_owned());
    let keys: BTreeSet<&str> = keys.as_array().ok_or_else(bad)?.iter().filter_map(Value::as_str).collect();
    let is_directive = |key: &str| key.starts_with(DELETE_FROM_PRIMITIVE_LIST) || key.starts_with(SET_ELEMENT_ORDER);
    if patch.iter().any(|(key, value)| !value.is_null() && !is_directive(key) && !keys.contains(key.as_str())) {
        return Err(bad());
    }
    original.retain(|key, _| keys.contains(key.as_str()));
    Ok(())
}

/// Merges the lists that come with a `$setElementOrder` list, and takes both out of the patch.
fn merge_ordered_lists(
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
    ty: Option<&Type>,
) -> Result<(), PatchError> {
    let directives: Vec<String> = patch.keys().filter(|key| key.starts_with(SET_ELEMENT_ORDER)).cloned().collect();
    for directive in directives {
        let bad = || PatchError::BadRequest("invalid patch format of setElementOrder list".to_owned());
        let key = directive[SET_ELEMENT_ORDER.len()..].strip_prefix('/').ok_or_else(bad)?;
        let order = list_of(patch.remove(&directive).unwrap_or_default())?;
        let live = original.get(key).cloned().map(list_of).transpose()?;
        let changes = patch.remove(key).map(list_of).transpose()?;
        let place = Place::of(ty, key);
        let merge_key = place.merge_key();
        check_order(changes.as_deref().unwrap_or_default(), &order, merge_key)?;
        let merged = match (live.clone(), changes) {
            (None, None) => continue,
            (Some(live), None) => live,
            (None, Some(changes)) => list_of(settled(Value::Array(changes)).unwrap_or_default())?,
            (Some(live), Some(changes)) if place.merges_lists() => merge_list(live, changes, place)?,
            (Some(_), Some(changes)) => changes,
        };
        element_kind(live.iter().flatten().chain(&merged))?;
        let (known, server_only) = partition(merged, &order, merge_key)?;
        let sorted = in_element_order(known, server_only, &order, &live.unwrap_or_default(), merge_key);
        original.insert(key.to_owned(), Value::Array(sorted));
    }
    Ok(())
}

fn list_of(value: Value) -> Result<Vec<Value>, PatchError> {
    match value {
        Value::Array(items) => Ok(items),
        other => Err(PatchError::Failed(format!("expected a []interface {{}}, but received a {}", go_type(&other)))),
    }
}

/// The items of the patch must stand in the order of the `$setElementOrder` list, and all be in it.
fn check_order(changes: &[Value], order: &[Value], merge_key: Option<&str>) -> Result<(), PatchError> {
    if changes.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut rest = order.iter();
    for item in changes.iter().filter(|item| item.get(DIRECTIVE).is_none()) {
        let wanted = identity(item, merge_key)?;
        let mut found = false;
        for candidate in rest.by_ref() {
            if identity(candidate, merge_key)? == wanted {
                found = true;
                break;
            }
        }
        if !found {
            return Err(PatchError::Failed(format!(
                "The order in patch list:\n{}\n doesn't match {SET_ELEMENT_ORDER} list:\n{}\n",
                go_value(&Value::from(changes.to_vec())),
                go_value(&Value::from(order.to_vec()))
            )));
        }
    }
    Ok(())
}

/// What tells an item from others: the value of its merge key, or itself where there is none.
pub(super) fn identity<'a>(item: &'a Value, merge_key: Option<&str>) -> Result<&'a Value, PatchError> {
    let Some(merge_key) = merge_key else {
        return Ok(item);
    };
    let Value::Object(map) = item else {
        return Err(PatchError::Failed(format!(
            "expected a map[string]interface {{}}, but received a {}",
            go_type(item)
        )));
    };
    map.get(merge_key).ok_or_else(|| {
        PatchError::Failed(format!("map: {} does not contain declared merge key: {merge_key}", go_value(item)))
    })
}

fn merge_list(original: Vec<Value>, patch: Vec<Value>, place: Place<'_>) -> Result<Vec<Value>, PatchError> {
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    if element_kind(original.iter().chain(&patch))? != "map[string]interface {}" {
        let order = patch.clone();
        let mut merged: Vec<Value> = Vec::with_capacity(original.len() + patch.len());
        let mut known = Places::of(&[], None);
        for item in original.iter().cloned().chain(patch) {
            if known.add(&item, merged.len()) {
                merged.push(item);
            }
        }
        let (known, server_only) = partition(merged, &order, None)?;
        return Ok(in_element_order(known, server_only, &order, &original, None));
    }
    let merge_key = place.merge_key().ok_or_else(|| {
        PatchError::Failed("cannot merge lists without merge key for type map[string]interface {}".to_owned())
    })?;
    let (mut original, patch) = obey_directives(original, patch, merge_key)?;
    let (order, before) = (patch.clone(), original.clone());
    let mut places = Places::of(&original, Some(merge_key));
    for item in patch {
        identity(&item, Some(merge_key))?;
        match (places.find(&item).and_then(|at| original.get_mut(at)), item) {
            (Some(Value::Object(existing)), Value::Object(item)) => merge_map(existing, item, place.item())?,
            (_, item) => {
                if let Some(item) = settled(item) {
                    places.add(&item, original.len());
                    original.push(item);
                }
            }
        }
    }
    let (known, server_only) = partition(original, &order, Some(merge_key))?;
    Ok(in_element_order(known, server_only, &order, &before, Some(merge_key)))
}

/// Obeys the items that carry `$patch`, and returns the rest of the patch with what is left to merge it into.
fn obey_directives(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    merge_key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut plain = Vec::with_capacity(patch.len());
    let mut deleted = Places::of(&[], Some(merge_key));
    let mut replace = false;
    for item in patch {
        let Some(directive) = item.get(DIRECTIVE) else {
            plain.push(item);
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                identity(&item, Some(merge_key))?;
                deleted.add(&item, 0);
            }
            Some("replace") => replace = true,
            Some("merge") => {
                return Err(PatchError::Failed("merging lists cannot yet be specified in the patch".to_owned()));
            }
            _ => {
                return Err(unknown_directive(directive, item.as_object().unwrap_or(&Map::new())));
            }
        }
    }
    original.retain(|candidate| deleted.find(candidate).is_none());
    Ok(if replace { (plain, Vec::new()) } else { (original, plain) })
}

fn delete_from_list(original: &mut Map<String, Value>, key: &str, deletions: &Value) -> Result<(), PatchError> {
    let deletions = list_of(deletions.clone())?;
    if let Some(Value::Array(items)) = original.get_mut(key) {
        let deletions = Places::of(&deletions, None);
        items.retain(|item| deletions.find(item).is_none());
    }
    Ok(())
}

/// What a part of a patch becomes where there is nothing to merge it into: without nulls and directives. `None` when it only
/// asks for a deletion.
fn settled(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) => {
            if map.get(DIRECTIVE).and_then(Value::as_str) == Some("delete") {
                return None;
            }
            let keep = |(key, value): (String, Value)| {
                let directive = key == DIRECTIVE
                    || key == RETAIN_KEYS
                    || key.starts_with(SET_ELEMENT_ORDER)
                    || key.starts_with(DELETE_FROM_PRIMITIVE_LIST);
                if directive || value.is_null() { None } else { settled(value).map(|value| (key, value)) }
            };
            Some(Value::Object(map.into_iter().filter_map(keep).collect()))
        }
        Value::Array(items) => {
            let only_a_directive =
                |item: &Value| item.get(DIRECTIVE).is_some() && item.as_object().is_some_and(|map| map.len() == 1);
            Some(items.into_iter().filter(|item| !only_a_directive(item)).filter_map(settled).collect())
        }
        other => Some(other),
    }
}

fn unknown_directive(directive: &Value, patch: &Map<String, Value>) -> PatchError {
    let patch = go_value(&Value::Object(patch.clone()));
    PatchError::Failed(format!("unknown patch type: {} in map: {patch}", go_value(directive)))
}

/// The Go type that all items share.
pub(super) fn element_kind<'a>(mut items: impl Iterator<Item = &'a Value>) -> Result<&'static str, PatchError> {
    let Some(first) = items.next() else {
        return Ok("<nil>");
    };
    let kind = go_type(first);
    if first.is_array() {
        return Err(PatchError::Unprocessable("lists of lists are not supported".to_owned()));
    }
    match items.map(go_type).find(|other| *other != kind) {
        None => Ok(kind),
        Some(other) => Err(PatchError::Failed(format!("list element types are not identical: {kind}, {other}"))),
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::built_in;

    #[test]
    fn what_cannot_be_converted_is_told_in_the_converters_words() {
        let deployment = built_in().kind("apps", "v1", "Deployment").expect("a kind");
        for (patched, words) in [
            (json!({ "spec": { "replicas": "x" } }), Some("unrecognized type: int32")),
            (json!({ "spec": { "replicas": 1.5 } }), Some("cannot convert float64 to int32")),
            (json!({ "spec": { "replicas": 3.0 } }), None),
            (json!({ "spec": { "paused": "true" } }), Some("unrecognized type: bool")),
            (json!({ "spec": "x" }), Some("cannot restore struct from: string")),
            (json!({ "metadata": { "labels": { "a": 1 } } }), Some("cannot convert int64 to string")),
            (json!({ "metadata": { "labels": [] } }), Some("cannot restore map from slice")),
            (
                json!({ "spec": { "template": { "spec": { "containers": {} } } } }),
                Some("cannot restore slice from map"),
            ),
            (json!({ "spec": { "strategy": { "rollingUpdate": { "maxSurge": 1, "maxUnavailable": "1%" } } } }), None),
            (json!({ "spec": { "replicas": null }, "other": 1 }), None),
        ] {
            assert_eq!(conversion_error(deployment, &patched).as_deref(), words, "{patched}");
        }
    }
}
