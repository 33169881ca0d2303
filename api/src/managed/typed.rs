//! Walks over values by their types: which elements a list has, what set of fields a value is, whether it fits its type
//! (structured-merge-diff `typed`).

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use super::field_set::{FieldSet, Node, PathElement};
use super::shape::{Place, Relation, Scalar, Shape};

/// Why a value does not fit its type: what is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TypeErrors(Vec<(String, String)>);

impl TypeErrors {
    fn one(message: impl Into<String>) -> TypeErrors {
        TypeErrors(vec![(String::new(), message.into())])
    }

    /// The same errors, seen from one step further up.
    pub(super) fn below(mut self, element: &dyn fmt::Display) -> TypeErrors {
        for (path, _) in &mut self.0 {
            path.insert_str(0, &element.to_string());
        }
        self
    }

    fn into_result(self) -> Result<(), TypeErrors> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for TypeErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let write = |f: &mut fmt::Formatter<'_>, (path, message): &(String, String)| {
            if path.is_empty() { f.write_str(message) } else { write!(f, "{path}: {message}") }
        };
        match self.0.as_slice() {
            [error] => write(f, error),
            errors => {
                f.write_str("errors:")?;
                errors.iter().try_for_each(|error| {
                    f.write_str("\n  ")?;
                    write(f, error)
                })
            }
        }
    }
}

impl std::error::Error for TypeErrors {}

/// The items of a list; none, where the value is no list.
pub(super) fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The path elements of the items of a list that is a set or keyed, in order. `Err` names the first item that has none.
pub(super) fn elements(
    item: Place<'_>,
    relation: Relation<'_>,
    items: &[Value],
) -> Result<Vec<PathElement>, TypeErrors> {
    let element =
        |(i, value)| element(item, relation, value).map_err(|error| TypeErrors::one(format!("element {i}: {error}")));
    items.iter().enumerate().map(element).collect()
}

fn element(item: Place<'_>, relation: Relation<'_>, value: &Value) -> Result<PathElement, String> {
    let Relation::Keyed(keys) = relation else {
        return match value {
            Value::Object(_) => Err("associative list without keys has an element that's a map type".to_owned()),
            Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
            Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
            _ => Ok(PathElement::value(value)),
        };
    };
    let map = match value {
        Value::Object(map) => map,
        Value::Null => {
            return Err("associative list with keys may not have a null element".to_owned());
        }
        _ => return Err("associative list with keys may not have non-map elements".to_owned()),
    };
    let mut fields = Vec::with_capacity(keys.len());
    for key in keys {
        let key = key.as_ref();
        // A key that is absent is a difference of its own.
        if let Some(value) = map.get(key).or_else(|| item.field_default(key)) {
            fields.push((key, value));
        }
    }
    if fields.is_empty() && !keys.is_empty() {
        let keys: Vec<String> = keys.iter().map(|key| format!("{key:?}")).collect();
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
            keys.join(" ")
        ));
    }
    Ok(PathElement::keys(&mut fields))
}

/// The set of the fields that a value holds: what an applier of this value owns (`TypedValue.ToFieldSet`). Structs and lists
/// themselves are not in it, only what they hold; keys of maps and elements of lists are.
///
/// # Errors
/// When the elements of a list cannot be told apart.
pub(super) fn field_set(place: Place<'_>, value: &Value) -> Result<FieldSet, TypeErrors> {
    extract(place, value).map(|(_, children)| children)
}

/// Whether the value is a leaf, else what it holds.
fn extract(place: Place<'_>, value: &Value) -> Result<(bool, FieldSet), TypeErrors> {
    let mut nodes = Vec::new();
    match (place.shape(value), value) {
        (Shape::Scalar(_) | Shape::AtomicMap | Shape::List(_, Relation::Atomic), _) => {
            return Ok((true, FieldSet::new()));
        }
        (Shape::Map, Value::Object(map)) => {
            for (key, value) in map {
                let field = place.child(key);
                let element = PathElement::field(key);
                let (leaf, children) = extract(field, value).map_err(|errors| errors.below(&element))?;
                let empty = value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
                nodes.push(Node { element, member: leaf || empty || !place.has_field(key), children });
            }
        }
        (Shape::List(item, relation), Value::Array(items)) => {
            for (element, value) in elements(item, relation, items)?.into_iter().zip(items) {
                let (_, children) = extract(item, value).map_err(|errors| errors.below(&element))?;
                nodes.push(Node { element, member: true, children });
            }
        }
        (Shape::Map | Shape::List(..), _) => {}
    }
    Ok((false, FieldSet::from_unsorted(nodes)))
}

/// Checks that a value fits its type: no unknown fields, the right kinds, list elements that can be told apart and stand once
/// (`TypedValue.Validate`).
///
/// # Errors
/// All that is wrong, in structured-merge-diff's words.
pub(super) fn validate(place: Place<'_>, value: &Value) -> Result<(), TypeErrors> {
    let mut errors = TypeErrors::default();
    match (place.shape(value), value) {
        (_, Value::Null) => {}
        (Shape::Scalar(scalar), _) => return validate_scalar(scalar, value),
        (Shape::Map | Shape::AtomicMap, Value::Object(map)) => {
            for (key, value) in map {
                let result = if place.allows(key) {
                    validate(place.child(key), value)
                } else {
                    Err(TypeErrors::one("field not declared in schema"))
                };
                if let Err(more) = result {
                    errors.0.extend(more.below(&PathElement::field(key)).0);
                }
            }
        }
        (Shape::List(item, relation), Value::Array(items)) => {
            return validate_list(item, relation, items);
        }
        (Shape::Map | Shape::AtomicMap, _) => {
            return Err(TypeErrors::one(format!("expected map, got {}", shown(value))));
        }
        (Shape::List(..), _) => {
            return Err(TypeErrors::one(format!("expected list, got {}", shown(value))));
        }
    }
    errors.into_result()
}

fn validate_list(item: Place<'_>, relation: Relation<'_>, items: &[Value]) -> Result<(), TypeErrors> {
    let mut errors = TypeErrors::default();
    let elements = match relation {
        Relation::Atomic => (0..items.len()).map(PathElement::index).collect(),
        _ => elements(item, relation, items)?,
    };
    let mut seen = BTreeSet::new();
    for (element, value) in elements.iter().zip(items) {
        if !seen.insert(element) {
            errors.0.push((String::new(), format!("duplicate entries for key {element}")));
        }
        if let Err(more) = validate(item, value) {
            errors.0.extend(more.below(element).0);
        }
    }
    errors.into_result()
}

fn validate_scalar(scalar: Scalar, value: &Value) -> Result<(), TypeErrors> {
    let message = match scalar {
        // The odd words are Go's way to print its wrapper of the value.
        Scalar::String if !value.is_string() => {
            format!("expected string, got &value.valueUnstructured{{Value:{value}}}")
        }
        Scalar::Numeric if !value.is_number() => {
            format!("expected numeric (int or float), got {}", go_type(value))
        }
        Scalar::Boolean if !value.is_boolean() => format!("expected boolean, got {}", shown(value)),
        Scalar::Untyped if value.is_object() || value.is_array() => {
            format!("expected any scalar, got {}", shown(value))
        }
        _ => return Ok(()),
    };
    Err(TypeErrors::one(message))
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

/// As Go prints the wrapper of a value with `%v`.
fn shown(value: &Value) -> String {
    format!("&{{{}}}", crate::patch::go_value(value))
}
