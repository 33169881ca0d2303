//! How large the values of a schema may be, as far as it says so or a request can hold them.
//!
//! `k8s.io/apiserver/pkg/cel/common/schemas.go`, `limits.go`.

use std::sync::Arc;

use super::cost::Shape;
use super::values::escaped;
use crate::custom::schema::{JsonType, Schema};

/// Bytes of the largest request.
const MAX_REQUEST_BYTES: u64 = 3 * 1024 * 1024;
/// Bytes of the quotes around a text, or of the braces around anything else.
const AROUND: u64 = 2;
const MIN_BOOL_BYTES: u64 = 4;
const MIN_NUMBER_BYTES: u64 = 1;
const MIN_DURATION_BYTES: u64 = 3;
const MAX_DURATION_BYTES: u64 = 32;
const DATE_BYTES: u64 = 12;
const MIN_TIME_BYTES: u64 = 21;
const MAX_TIME_BYTES: u64 = 32;
/// Bytes of a member of a map besides its value: quotes, colon, comma and a short name.
const MEMBER_BYTES: u64 = 6;
/// The same for a field, whose name is counted apart.
const FIELD_BYTES: u64 = 4;
/// Bytes of a character at most.
const CHARACTER_BYTES: u64 = 4;

/// How often at most a value of a schema may stand in a request.
pub fn cardinality(schema: &Schema) -> u64 {
    let least = sized(schema, false).map_or(0, |(_, least)| least);
    MAX_REQUEST_BYTES / (least + 1)
}

/// What a rule of a schema may find in a value; `root` for an object with type and metadata of its own.
pub fn shape(schema: &Schema, root: bool) -> Shape {
    sized(schema, root).map_or(Shape::Sized(0), |(shape, _)| shape)
}

/// A shape, and how many bytes its values take at least; `None` for what rules see nothing of.
fn sized(schema: &Schema, root: bool) -> Option<(Shape, u64)> {
    let checks = &schema.checks;
    let anything = MAX_REQUEST_BYTES - AROUND;
    let said = checks.max_length.map(|most| most.saturating_mul(CHARACTER_BYTES));
    if schema.int_or_string {
        return Some((Shape::Any(said.unwrap_or(anything)), MIN_NUMBER_BYTES));
    }
    Some(match schema.ty? {
        JsonType::Array => {
            let items = schema.items.as_deref()?;
            let (element, least) = sized(items, items.embedded)?;
            let most = checks.max_items.unwrap_or(anything / (least + 1));
            (Shape::List { most, element: Arc::new(element) }, AROUND)
        }
        JsonType::Object => match schema.values() {
            Some(values) => {
                let (value, least) = sized(values, values.embedded)?;
                let most = checks.max_properties.unwrap_or(anything / (least + MEMBER_BYTES));
                (Shape::Map { most, key: Arc::new(Shape::Text(0)), value: Arc::new(value) }, AROUND)
            }
            None => record(schema, root || schema.embedded),
        },
        JsonType::String => match checks.format.as_deref() {
            Some("byte") => (Shape::Text(checks.max_length.unwrap_or(anything)), AROUND),
            Some("duration") => (Shape::Sized(MAX_DURATION_BYTES), MIN_DURATION_BYTES),
            Some("date") => (Shape::Sized(DATE_BYTES), DATE_BYTES),
            Some("date-time") => (Shape::Sized(MAX_TIME_BYTES), MIN_TIME_BYTES),
            _ => {
                let longest = checks.one_of.as_ref().map(|values| {
                    values.iter().filter_map(|value| value.as_str()).map(|text| text.len() as u64).max().unwrap_or(0)
                });
                (Shape::Text(said.or(longest).unwrap_or(anything)), AROUND)
            }
        },
        JsonType::Boolean => (Shape::Sized(0), MIN_BOOL_BYTES),
        JsonType::Integer | JsonType::Number => (Shape::Sized(0), MIN_NUMBER_BYTES),
    })
}

fn record(schema: &Schema, root: bool) -> (Shape, u64) {
    let mut least = AROUND;
    let mut fields = std::collections::BTreeMap::new();
    for (name, property) in &schema.properties {
        let Some((shape, bytes)) = sized(property, property.embedded) else { continue };
        if schema.checks.required.contains(name) && property.default.is_none() {
            least += name.len() as u64 + bytes + FIELD_BYTES;
        }
        fields.extend(escaped(name).map(|name| (name, shape)));
    }
    if root {
        let text = || Shape::Text(MAX_REQUEST_BYTES - AROUND);
        let names = ["name", "generateName"].into_iter().map(|name| (name.to_owned(), text())).collect();
        fields.extend(["apiVersion", "kind"].into_iter().map(|name| (name.to_owned(), text())));
        fields.insert("metadata".to_owned(), Shape::Record { most: 0, fields: Arc::new(names) });
    }
    (Shape::Record { most: 0, fields: Arc::new(fields) }, least)
}
