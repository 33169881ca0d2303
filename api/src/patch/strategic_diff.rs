//! The strategic merge patch that turns one object into another, as kubectl and client-go compute it
//! (apimachinery `strategicpatch`, `CreateTwoWayMergePatch`).

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::PatchError;
use super::order::Places;
use super::strategic::{
    DELETE_FROM_PRIMITIVE_LIST, DIRECTIVE, Place, RETAIN_KEYS, SET_ELEMENT_ORDER, element_kind, identity,
};
use crate::schema::{Struct, Type};

/// The patch that yields `after` when applied to `before`, both objects of type `schema`.
///
/// # Errors
/// When a list that merges by a key has items without it, or items of several kinds.
pub fn diff(schema: &Arc<Struct>, before: &Value, after: &Value) -> Result<Value, PatchError> {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            diff_maps(before, after, Some(&Type::Struct(schema.clone())), false).map(Value::Object)
        }
        (_, after) => Ok(after.clone()),
    }
}

fn diff_maps(
    before: &Map<String, Value>,
    after: &Map<String, Value>,
    ty: Option<&Type>,
    retain_keys: bool,
) -> Result<Map<String, Value>, PatchError> {
    let mut patch = Map::new();
    for (key, new) in after {
        let Some(old) = before.get(key) else {
            patch.insert(key.clone(), new.clone());
            continue;
        };
        if old == new {
            continue;
        }
        let place = Place::of(ty, key);
        match (old, new) {
            (Value::Object(old), Value::Object(new)) if !place.replaces_maps() => {
                let below = diff_maps(old, new, place.ty, place.retains_keys())?;
                if !below.is_empty() {
                    patch.insert(key.clone(), Value::Object(below));
                }
            }
            (Value::Array(old), Value::Array(new)) if place.merges_lists() => {
                diff_lists(key, old, new, place, &mut patch)?
            }
            _ => {
                patch.insert(key.clone(), new.clone());
            }
        }
    }
    let gone: Vec<&String> = before.keys().filter(|key| !after.contains_key(*key)).collect();
    if retain_keys && !after.is_empty() && !(patch.is_empty() && gone.is_empty()) {
        let kept: Vec<&String> = after.iter().filter(|(_, value)| !value.is_null()).map(|(key, _)| key).collect();
        patch.insert(RETAIN_KEYS.to_owned(), json!(kept));
    }
    patch.extend(gone.into_iter().map(|key| (key.clone(), Value::Null)));
    Ok(patch)
}

/// Adds to `patch` what turns one list into the other: changed items, deletions, and the order.
fn diff_lists(
    key: &str,
    before: &[Value],
    after: &[Value],
    place: Place<'_>,
    patch: &mut Map<String, Value>,
) -> Result<(), PatchError> {
    let order_key = || format!("{SET_ELEMENT_ORDER}/{key}");
    if before.is_empty() {
        patch.insert(key.to_owned(), after.into());
        return Ok(());
    }
    if element_kind(before.iter().chain(after))? != "map[string]interface {}" {
        let only_in = |items: &[Value], others: &[Value]| -> Vec<Value> {
            let others = Places::of(others, None);
            items.iter().filter(|item| others.find(item).is_none()).cloned().collect()
        };
        let (added, deleted) = (only_in(after, before), only_in(before, after));
        if !added.is_empty() {
            patch.insert(key.to_owned(), added.into());
        }
        if !deleted.is_empty() {
            patch.insert(format!("{DELETE_FROM_PRIMITIVE_LIST}/{key}"), deleted.into());
        }
        patch.insert(order_key(), after.into());
        return Ok(());
    }
    let merge_key = place.merge_key();
    let name = merge_key.unwrap_or_default();
    let (places_before, places_after) = (Places::of(before, merge_key), Places::of(after, merge_key));
    let mut changes = Vec::new();
    let mut order = Vec::with_capacity(after.len());
    for item in after {
        let id = identity(item, merge_key)?;
        order.push(json!({name: id}));
        match places_before.find(item).map(|at| (&before[at], item)) {
            Some((Value::Object(old), Value::Object(new))) => {
                let mut below = diff_maps(old, new, place.item(), place.retains_keys())?;
                if !below.is_empty() {
                    below.insert(name.to_owned(), id.clone());
                    changes.push(Value::Object(below));
                }
            }
            _ => changes.push(item.clone()),
        }
    }
    for item in before {
        let id = identity(item, merge_key)?;
        if places_after.find(item).is_none() {
            changes.push(json!({name: id, DIRECTIVE: "delete"}));
        }
    }
    if !changes.is_empty() {
        patch.insert(key.to_owned(), changes.into());
    }
    patch.insert(order_key(), order.into());
    Ok(())
}
