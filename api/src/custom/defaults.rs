//! Defaults of a structural schema, and nulls that mean nothing.
//!
//! `apiextensions-apiserver/pkg/apiserver/schema/defaulting/{algorithm,prunenulls}.go`.

use serde_json::Value;

use super::schema::{Additional, Schema};

/// Fills what is absent and has a default, then drops nulls of fields that are not nullable.
pub fn set(schema: &Schema, value: &mut Value) {
    fill(schema, value);
    drop_nulls(schema, value);
}

/// Fills what is absent, or null without being nullable, and has a default. Children of a default get theirs too.
pub fn fill(schema: &Schema, value: &mut Value) {
    if !schema.has_defaults {
        return;
    }
    match value {
        Value::Object(object) => {
            for (name, property) in &schema.properties {
                let Some(default) = &property.default else { continue };
                if object.get(name).is_none_or(|value| value.is_null() && !property.nullable) {
                    object.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in object.iter_mut() {
                if let Some(inner) = schema.member(name) {
                    fill_null(inner, value);
                    fill(inner, value);
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = &schema.items else { return };
            for value in list {
                fill_null(items, value);
                fill(items, value);
            }
        }
        _ => {}
    }
}

fn fill_null(schema: &Schema, value: &mut Value) {
    if let (true, false, Some(default)) = (value.is_null(), schema.nullable, &schema.default) {
        *value = default.clone();
    }
}

fn drop_nulls(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|name, value| {
                !value.is_null() || schema.member(name).is_none_or(|inner| inner.nullable || inner.default.is_some())
            });
            for (name, value) in object.iter_mut() {
                if let Some(inner) = schema.member(name) {
                    drop_nulls(inner, value);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                list.iter_mut().for_each(|value| drop_nulls(items, value));
            }
        }
        _ => {}
    }
}

/// Removes what a schema does not know from a value that no client sent: a default.
pub fn pruned(schema: &Schema, value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            let keeps = schema.preserve_unknown || matches!(schema.additional, Some(Additional::Any));
            let kept = object.iter().filter_map(|(name, value)| match schema.member(name) {
                Some(inner) => Some((name.clone(), pruned(inner, value))),
                None if keeps || (schema.embedded && matches!(name.as_str(), "apiVersion" | "kind" | "metadata")) => {
                    Some((name.clone(), value.clone()))
                }
                None => None,
            });
            Value::Object(kept.collect())
        }
        Value::Array(list) => match &schema.items {
            Some(items) => list.iter().map(|value| pruned(items, value)).collect(),
            None => value.clone(),
        },
        other => other.clone(),
    }
}
