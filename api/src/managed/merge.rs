//! Merges what an applier says into what there is, and takes fields out of a value (structured-merge-diff `typed/merge.go`
//! and `typed/remove.go`).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::compare::zip;
use super::field_set::{FieldSet, PathElement};
use super::shape::{Place, Relation, Shape};
use super::typed::{TypeErrors, elements, items};

/// The value that holds what either side holds; where both hold a leaf, the applied one.
///
/// # Errors
/// When the elements of a list cannot be told apart, or stand twice in what is applied.
pub(super) fn merge(place: Place<'_>, live: &Value, applied: &Value) -> Result<Value, TypeErrors> {
    Ok(merge_at(place, Some(live), Some(applied))?.unwrap_or(Value::Null))
}

fn merge_at(place: Place<'_>, live: Option<&Value>, applied: Option<&Value>) -> Result<Option<Value>, TypeErrors> {
    let leaf = || Ok(applied.or(live).cloned());
    let Some(decides) = applied.or(live) else {
        return Ok(None);
    };
    match place.shape(decides) {
        Shape::Map => {
            let (ours, theirs) = (live.and_then(Value::as_object), applied.and_then(Value::as_object));
            if ours.is_none_or(Map::is_empty) && theirs.is_none_or(Map::is_empty) {
                return leaf();
            }
            let mut merged = Map::new();
            for (key, live, applied) in zip(ours, theirs) {
                let value = merge_at(place.child(key), live, applied)
                    .map_err(|errors| errors.below(&PathElement::field(key)))?;
                merged.extend(value.map(|value| (key.to_owned(), value)));
            }
            Ok((!merged.is_empty()).then_some(Value::Object(merged)))
        }
        Shape::List(item, relation @ (Relation::Set | Relation::Keyed(_))) => {
            let (ours, theirs) = (items(live), items(applied));
            if ours.is_empty() && theirs.is_empty() {
                return leaf();
            }
            let merged = merge_lists(item, relation, ours, theirs)?;
            Ok((!merged.is_empty()).then_some(Value::Array(merged)))
        }
        _ => leaf(),
    }
}

/// Applied items keep their order; live-only items keep theirs, and stay before the applied item that they stood before.
fn merge_lists(
    item: Place<'_>,
    relation: Relation<'_>,
    live: &[Value],
    applied: &[Value],
) -> Result<Vec<Value>, TypeErrors> {
    let ours = elements(item, relation, live)?;
    let theirs = elements(item, relation, applied)?;
    let mut places: BTreeMap<&PathElement, Vec<usize>> = BTreeMap::new();
    for (at, element) in ours.iter().enumerate() {
        places.entry(element).or_default().push(at);
    }
    let in_theirs: BTreeSet<&PathElement> = theirs.iter().collect();
    let merge_item = |element: &PathElement, at: usize| {
        // An item that stands twice in the live list is replaced, not merged with.
        let live = match places.get(element).map(Vec::as_slice) {
            Some([one]) => Some(&live[*one]),
            _ => None,
        };
        merge_at(item, live, Some(&applied[at])).map_err(|errors| errors.below(element))
    };
    let mut merged = Vec::with_capacity(live.len().max(applied.len()));
    let mut shared = theirs.iter().filter(|element| places.contains_key(element));
    let mut next_shared = shared.next();
    let mut done: BTreeSet<&PathElement> = BTreeSet::new();
    let (mut l, mut a) = (0, 0);
    while l < ours.len() || a < theirs.len() {
        if let (Some(our), Some(their)) = (ours.get(l), theirs.get(a)) {
            if our == their {
                done.insert(our);
                merged.extend(merge_item(our, a)?);
                (l, a) = (l + 1, a + 1);
                next_shared = shared.next();
                continue;
            }
            if in_theirs.contains(our) && next_shared.is_some_and(|next| next != our) {
                // Applied too, but at a later place.
                l += 1;
                continue;
            }
        }
        if let Some(our) = ours.get(l) {
            if !in_theirs.contains(our) {
                merged.push(live[l].clone());
                l += 1;
                continue;
            }
            if done.contains(our) {
                l += 1;
            }
        }
        if let Some(their) = theirs.get(a) {
            done.insert(their);
            merged.extend(merge_item(their, a)?);
            a += 1;
            if next_shared == Some(their) {
                next_shared = shared.next();
            }
        }
    }
    Ok(merged)
}

/// What becomes of an object or list that [`remove`] takes the last of its contents from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Emptied {
    /// It goes too.
    Gone,
    /// It stays as `null`: for the question which fields are left, it is one of them.
    Null,
}

/// The value without these fields (`TypedValue.RemoveItems`). `None` when nothing is left of it.
///
/// # Errors
/// When the elements of a list cannot be told apart.
pub(super) fn remove(
    place: Place<'_>,
    value: &Value,
    fields: &FieldSet,
    emptied: Emptied,
) -> Result<Option<Value>, TypeErrors> {
    match (place.shape(value), value) {
        (Shape::Map, Value::Object(map)) => {
            let mut left = Map::new();
            for (key, value) in map {
                let element = PathElement::field(key);
                let kept = remove_one(place.child(key), value, fields, &element, emptied)?;
                left.extend(kept.map(|kept| (key.clone(), kept)));
            }
            Ok((!left.is_empty()).then_some(Value::Object(left)))
        }
        (Shape::List(item, relation @ (Relation::Set | Relation::Keyed(_))), Value::Array(items)) => {
            let mut left = Vec::with_capacity(items.len());
            for (element, value) in elements(item, relation, items)?.iter().zip(items) {
                // An element without its keys is none.
                left.extend(remove_one(item, value, fields, element, emptied)?.filter(|kept| !kept.is_null()));
            }
            Ok((!left.is_empty()).then_some(Value::Array(left)))
        }
        (Shape::Scalar(_), _) => Ok(Some(value.clone())),
        // Nothing below a leaf can be named, so if something is, the leaf goes whole.
        _ => Ok(None),
    }
}

fn remove_one(
    place: Place<'_>,
    value: &Value,
    fields: &FieldSet,
    element: &PathElement,
    emptied: Emptied,
) -> Result<Option<Value>, TypeErrors> {
    let node = match fields.node(element) {
        None => return Ok(Some(value.clone())),
        Some(node) if node.member => return Ok(None),
        Some(node) => node,
    };
    let left = remove(place, value, &node.children, emptied).map_err(|errors| errors.below(element))?;
    Ok(left.or_else(|| (emptied == Emptied::Null).then_some(Value::Null)))
}
