//! Whether a value is what its schema says, in the words of go-openapi and of Kubernetes around it.
//!
//! `kube-openapi/pkg/validation/validate`, `apiextensions-apiserver/pkg/apiserver/validation/validation.go`. On an update
//! what has not changed is not refused again (`ratcheting.go`): a stricter schema must not lock existing objects.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Number, Value};

use super::formats;
use super::schema::{Additional, Checks, JsonType, Schema};
use crate::schema::ListType;
use crate::status::{FieldError, FieldErrorKind, FieldPath};
use crate::strategy::field::{Errors, Field};
use crate::strategy::{NameRule, generate_name, names, validate_object_meta};

/// What is wrong with a value beyond rules; `old` is what stood there before an update.
pub fn validate(schema: &Schema, value: &Value, old: Option<&Value>) -> Errors {
    let mut errors = Errors::new();
    Walk { errors: &mut errors }.node(schema, value, old, "");
    errors
}

/// Whether rules can be asked: not of objects whose shape is wrong (`hasBlockingErr`).
pub fn blocks_rules(errors: &[FieldError]) -> bool {
    use FieldErrorKind::{NotSupported, Required, TooLong, TooMany, TypeInvalid};
    errors.iter().any(|error| matches!(error.kind, NotSupported | Required | TooLong | TooMany | TypeInvalid))
}

/// Go's name of a JSON value's type, as schemas name types.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn at(path: &str) -> FieldPath {
    if path.is_empty() { FieldPath::root() } else { FieldPath::new(path.to_owned()) }
}

fn member(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn shown(number: f64) -> Value {
    crate::schema::double(number).map_or(Value::Null, Value::Number)
}

struct Walk<'a> {
    errors: &'a mut Errors,
}

impl Walk<'_> {
    /// `Invalid value: <value>: <path> in body <words>`.
    fn invalid(&mut self, path: &str, value: impl Into<Value>, words: impl std::fmt::Display) {
        self.errors.push(FieldError::invalid(&at(path), value, format!("{path} in body {words}")));
    }

    fn node(&mut self, schema: &Schema, value: &Value, old: Option<&Value>, path: &str) {
        if old == Some(value) {
            return;
        }
        if value.is_null() && schema.nullable {
            return;
        }
        self.ty(schema, value, path);
        self.junctors(schema, value, path);
        let checks = &schema.checks;
        match value {
            Value::String(text) => self.string(checks, text, path),
            Value::Number(number) => self.number(schema, number, path),
            Value::Array(list) => self.array(schema, list, old, path),
            _ => {}
        }
        if let Some(allowed) = &checks.one_of
            && !allowed.contains(value)
        {
            let names: Vec<String> =
                allowed.iter().map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned)).collect();
            self.errors.push(FieldError::not_supported(&at(path), value.clone(), &names));
        }
        if let Value::Object(object) = value {
            self.object(schema, object, old, path);
        }
    }

    fn ty(&mut self, schema: &Schema, value: &Value, path: &str) {
        let found = type_of(value);
        let (wanted, fits) = match schema.ty {
            _ if schema.int_or_string => ("integer,string", matches!(found, "integer" | "string")),
            None => return,
            Some(JsonType::Number) => ("number", matches!(found, "number" | "integer")),
            Some(JsonType::Integer) => ("integer", found == "integer" || is_whole(value)),
            Some(ty) => (ty.name(), found == ty.name()),
        };
        if fits {
            return;
        }
        // A number that does not fit is told by the formats of both.
        let format = schema.checks.number_format.filter(|_| value.is_number());
        let (wanted, found) = format.map_or((wanted, found), |format| (format, "float64"));
        let words = format!("{path} in body must be of type {wanted}: {found:?}");
        self.errors.push(FieldError::type_invalid(&at(path), found, words));
    }

    fn string(&mut self, checks: &Checks, text: &str, path: &str) {
        if let Some(format) = checks.format.as_deref().filter(|format| !formats::holds(format, text)) {
            let words = format!("{path} in body must be of type {format}: {}", crate::status::go_quote(text));
            self.errors.push(FieldError::type_invalid(&at(path), text, words));
        }
        let length = text.chars().count() as u64;
        if let Some(most) = checks.max_length.filter(|most| length > *most) {
            self.errors.push(FieldError::too_long(&at(path), usize::try_from(most).unwrap_or(usize::MAX)));
        } else if let Some(least) = checks.min_length.filter(|least| length < *least) {
            self.invalid(path, text, format_args!("should be at least {least} chars long"));
        } else if let Some((pattern, _)) =
            checks.pattern.as_ref().filter(|(_, regex)| !regex.as_ref().is_some_and(|regex| regex.is_match(text)))
        {
            self.invalid(path, text, format_args!("should match '{pattern}'"));
        }
    }

    fn number(&mut self, schema: &Schema, number: &Number, path: &str) {
        let (checks, Some(float)) = (&schema.checks, number.as_f64()) else { return };
        let whole = if float.fract() == 0.0 && float.abs() < 9e18 {
            number.as_i64().or(Some(float as i64))
        } else {
            number.as_i64()
        };
        let (ty, fits) = match (schema.ty, checks.number_format) {
            (Some(JsonType::Integer), Some("int32")) => {
                ("integer", whole.is_some_and(|whole| i32::try_from(whole).is_ok()))
            }
            (Some(JsonType::Integer), _) => ("integer", whole.is_some()),
            (Some(JsonType::Number), Some("float")) => ("number", (float as f32).is_finite()),
            _ => ("number", true),
        };
        if !fits {
            let format = checks.number_format.map(|format| format!("with format {format}"));
            let format = format.as_deref().unwrap_or("(default format)");
            let words = format!("Checked value must be of type {ty} {format} in {path}");
            self.errors.push(FieldError::invalid(&FieldPath::root(), "", words));
        }
        if let Some(step) = checks.multiple_of.filter(|step| !is_multiple(float, *step)) {
            self.invalid(path, Value::Number(number.clone()), format_args!("should be a multiple of {}", shown(step)));
        }
        if let Some((bound, exclusive)) =
            checks.maximum.filter(|(bound, exclusive)| float > *bound || (*exclusive && float == *bound))
        {
            let words = if exclusive { "less than" } else { "less than or equal to" };
            self.invalid(path, Value::Number(number.clone()), format_args!("should be {words} {}", shown(bound)));
        }
        if let Some((bound, exclusive)) =
            checks.minimum.filter(|(bound, exclusive)| float < *bound || (*exclusive && float == *bound))
        {
            let words = if exclusive { "greater than" } else { "greater than or equal to" };
            self.invalid(path, Value::Number(number.clone()), format_args!("should be {words} {}", shown(bound)));
        }
    }

    fn array(&mut self, schema: &Schema, list: &[Value], old: Option<&Value>, path: &str) {
        if let Some(items) = &schema.items {
            let earlier = Earlier::of(schema, old);
            for (index, item) in list.iter().enumerate() {
                let before = earlier.of_item(item);
                self.node(items, item, before, &format!("{path}[{index}]"));
            }
        }
        let checks = &schema.checks;
        let length = list.len() as u64;
        if let Some(least) = checks.min_items.filter(|least| length < *least) {
            self.invalid(path, length, format_args!("should have at least {least} items"));
        }
        if let Some(most) = checks.max_items.filter(|most| length > *most) {
            self.errors.push(FieldError::too_many(&at(path), list.len(), usize::try_from(most).unwrap_or(usize::MAX)));
        }
        if checks.unique_items && has_duplicates(list) {
            self.invalid(path, "", "shouldn't contain duplicates");
        }
    }

    fn object(&mut self, schema: &Schema, object: &serde_json::Map<String, Value>, old: Option<&Value>, path: &str) {
        let checks = &schema.checks;
        let count = object.len() as u64;
        if let Some(least) = checks.min_properties.filter(|least| count < *least) {
            return self.invalid(path, count, format_args!("should have at least {least} properties"));
        }
        if let Some(most) = checks.max_properties.filter(|most| count > *most) {
            return self.errors.push(FieldError::too_many(
                &at(path),
                object.len(),
                usize::try_from(most).unwrap_or(usize::MAX),
            ));
        }
        for (name, value) in object {
            let before = old.and_then(|old| old.get(name));
            if let Some(inner) = schema.properties.get(name) {
                self.node(inner, value, before, &member(path, name));
            } else if let Some(values) = schema.values() {
                self.node(values, value, before, &format!("{path}.{name}"));
            }
        }
        for name in checks.required.iter().filter(|name| !object.contains_key(*name)) {
            self.errors.push(FieldError::required(&at(&member(path, name)), ""));
        }
    }

    fn junctors(&mut self, schema: &Schema, value: &Value, path: &str) {
        let failures = |schemas: &[Schema]| -> Vec<Errors> {
            schemas
                .iter()
                .map(|schema| {
                    let mut errors = Errors::new();
                    Walk { errors: &mut errors }.node(schema, value, None, path);
                    errors
                })
                .collect()
        };
        let fewest = |failed: Vec<Errors>| failed.into_iter().min_by_key(|errors| errors.len()).unwrap_or_default();
        // These are said of no field: go-openapi's error carries none.
        let mut said =
            |words: String| self.errors.push(FieldError::invalid(&FieldPath::root(), "", format!("{path:?} {words}")));
        let any = failures(&schema.any_of);
        let one = failures(&schema.one_of);
        let all = failures(&schema.all_of);
        let mut more = Vec::new();
        if !any.is_empty() && any.iter().all(|errors| !errors.is_empty()) {
            said("must validate at least one schema (anyOf)".to_owned());
            more.extend(fewest(any));
        }
        let valid = one.iter().filter(|errors| errors.is_empty()).count();
        if !one.is_empty() && valid != 1 {
            let found =
                if valid == 0 { "Found none valid".to_owned() } else { format!("Found {valid} valid alternatives") };
            said(format!("must validate one and only one schema (oneOf). {found}"));
            if valid == 0 {
                more.extend(fewest(one));
            }
        }
        let (count, valid) = (all.len(), all.iter().filter(|errors| errors.is_empty()).count());
        more.extend(all.into_iter().flatten());
        if valid != count {
            let none = if valid == 0 { ". None validated" } else { "" };
            let words = format!("{path:?} must validate all the schemas (allOf){none}");
            more.push(FieldError::invalid(&FieldPath::root(), "", words));
        }
        if let Some(not) = &schema.not
            && failures(std::slice::from_ref(not)).iter().all(|errors| errors.is_empty())
        {
            said("must not validate the schema (not)".to_owned());
        }
        self.errors.extend(more);
    }
}

/// Whether a number written with a fraction is an integer, as far as JavaScript could tell.
fn is_whole(value: &Value) -> bool {
    const MOST: f64 = 9_007_199_254_740_991.0;
    value.as_f64().is_some_and(|number| number.fract() == 0.0 && number.abs() <= MOST)
}

fn is_multiple(number: f64, step: f64) -> bool {
    step == 0.0 || (number / step).fract() == 0.0
}

fn has_duplicates(list: &[Value]) -> bool {
    let mut seen = BTreeSet::new();
    !list.iter().all(|item| seen.insert(item.to_string()))
}

/// The elements of an old list by their keys; none of lists without keys.
pub struct Earlier<'a> {
    keys: &'a [Cow<'static, str>],
    elements: BTreeMap<Vec<String>, &'a Value>,
}

impl<'a> Earlier<'a> {
    /// Those of `old`, the value at `schema` before.
    pub fn of(schema: &'a Schema, old: Option<&'a Value>) -> Earlier<'a> {
        let (Some(ListType::Map(keys)), Some(Value::Array(list))) = (&schema.list_type, old) else {
            return Earlier { keys: &[], elements: BTreeMap::new() };
        };
        // Of two with the same keys the first counts.
        let elements = list.iter().rev().map(|element| (identity(keys, element), element)).collect();
        Earlier { keys, elements }
    }

    /// The element that `item` continues.
    pub fn of_item(&self, item: &Value) -> Option<&'a Value> {
        if self.elements.is_empty() {
            return None;
        }
        self.elements.get(&identity(self.keys, item)).copied()
    }
}

fn identity(keys: &[Cow<'static, str>], element: &Value) -> Vec<String> {
    keys.iter().map(|key| element.get(key.as_ref()).map(Value::to_string).unwrap_or_default()).collect()
}

/// Duplicates in lists that are sets or maps. `apiextensions-apiserver/pkg/apiserver/schema/listtype/validation.go`.
pub fn list_types(schema: &Schema, value: &Value, path: &FieldPath, errors: &mut Errors) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                if let Some(inner) = schema.properties.get(name) {
                    list_types(inner, value, &path.child(name.clone()), errors);
                } else if let Some(Additional::Schema(values)) = &schema.additional {
                    list_types(values, value, &path.key(name.clone()), errors);
                }
            }
        }
        Value::Array(list) => {
            duplicates(schema, list, path, errors);
            if let Some(items) = &schema.items {
                for (index, item) in list.iter().enumerate() {
                    list_types(items, item, &path.index(index), errors);
                }
            }
        }
        _ => {}
    }
}

fn duplicates(schema: &Schema, list: &[Value], path: &FieldPath, errors: &mut Errors) {
    let identity = |item: &Value| -> Option<Value> {
        match &schema.list_type {
            Some(ListType::Set) => Some(item.clone()),
            Some(ListType::Map(keys)) => {
                let found = keys.iter().filter_map(|key| Some((key.to_string(), item.get(key.as_ref())?.clone())));
                Some(Value::Object(found.collect()))
            }
            _ => None,
        }
    };
    if let Some(ListType::Map(_)) = &schema.list_type
        && let Some((index, item)) = list.iter().enumerate().find(|(_, item)| !item.is_object() && !item.is_null())
    {
        const WORDS: &str = "must be an object for an array of list-type map";
        return errors.push(FieldError::invalid(&path.index(index), item.clone(), WORDS));
    }
    // Each value is told once, where it stands the second time.
    let mut seen = BTreeMap::new();
    for (index, item) in list.iter().enumerate() {
        let Some(identity) = identity(item) else { return };
        let times = seen.entry(identity.to_string()).or_insert(0_usize);
        *times += 1;
        if *times == 2 {
            errors.push(FieldError::duplicate(&path.index(index), identity));
        }
    }
}

/// Embedded objects say what they are. `apiextensions-apiserver/pkg/apiserver/schema/objectmeta/validation.go`.
pub fn embedded(schema: &Schema, value: &Value, path: &FieldPath, errors: &mut Errors) {
    match value {
        Value::Object(object) => {
            if schema.embedded {
                embedded_object(&Field::below(path, value), errors);
            }
            for (name, value) in object {
                if let Some(inner) = schema.properties.get(name) {
                    embedded(inner, value, &path.child(name.clone()), errors);
                } else if let Some(Additional::Schema(values)) = &schema.additional {
                    embedded(values, value, &path.key(name.clone()), errors);
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = &schema.items else { return };
            for (index, item) in list.iter().enumerate() {
                embedded(items, item, &path.index(index), errors);
            }
        }
        _ => {}
    }
}

fn embedded_object(object: &Field<'_>, errors: &mut Errors) {
    let (version, kind) = (object.get("apiVersion"), object.get("kind"));
    for field in [&version, &kind] {
        match field.value() {
            Value::Null => errors.push(field.required("")),
            Value::String(text) if text.is_empty() => errors.push(field.invalid("must not be empty")),
            Value::String(_) => {}
            _ => errors.push(field.invalid("must be a string")),
        }
    }
    if version.str().matches('/').count() > 1 {
        errors.push(version.invalid(format!("unexpected GroupVersion string: {}", version.str())));
    }
    let faults = names::dns1035_label(&kind.str().to_lowercase());
    if !kind.str().is_empty() && !faults.is_empty() {
        let words = format!("may have mixed case, but should otherwise match: {}", faults.join(","));
        errors.push(kind.invalid(words));
    }
    let metadata = object.get("metadata");
    if !metadata.is_set() {
        return;
    }
    let namespaced = !metadata.get("namespace").is_empty();
    let mut found = Errors::new();
    generate_name(&metadata, NameRule::PathSegment, &mut found);
    validate_object_meta(&metadata, namespaced, NameRule::PathSegment, &mut found);
    // A name is not asked for.
    let no_name = metadata.get("name").is_empty();
    let name = metadata.get("name").path();
    errors.extend(found.into_iter().filter(|error| !(no_name && error.field == name)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(schema: Value, value: Value, expected: &[&str]) {
        let schema = Schema::parse(&json!({ "type": "object", "properties": { "a": schema } }));
        let value = json!({ "a": value });
        let mut errors = validate(&schema, &value, None);
        list_types(&schema, &value, &FieldPath::root(), &mut errors);
        embedded(&schema, &value, &FieldPath::root(), &mut errors);
        let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(said, expected);
    }

    #[test]
    fn types_and_bounds() {
        check(
            json!({ "type": "integer" }),
            json!("x"),
            &[r#"a: Invalid value: "string": a in body must be of type integer: "string""#],
        );
        check(
            json!({ "type": "integer" }),
            json!(1.5),
            &[
                r#"a: Invalid value: "number": a in body must be of type integer: "number""#,
                r#"<nil>: Invalid value: "": Checked value must be of type integer (default format) in a"#,
            ],
        );
        check(json!({ "type": "integer" }), json!(2.0), &[]);
        check(
            json!({ "type": "integer", "format": "int32" }),
            json!(2_147_483_648_u64),
            &[r#"<nil>: Invalid value: "": Checked value must be of type integer with format int32 in a"#],
        );
        check(
            json!({ "type": "string" }),
            json!(null),
            &[r#"a: Invalid value: "null": a in body must be of type string: "null""#],
        );
        check(json!({ "type": "string", "nullable": true }), json!(null), &[]);
        check(json!({ "x-kubernetes-int-or-string": true }), json!("5%"), &[]);
        check(
            json!({ "type": "integer", "minimum": 10 }),
            json!(9),
            &["a: Invalid value: 9: a in body should be greater than or equal to 10"],
        );
        check(
            json!({ "type": "number", "maximum": 1.5, "exclusiveMaximum": true, "multipleOf": 0.5 }),
            json!(1.75),
            &[
                "a: Invalid value: 1.75: a in body should be a multiple of 0.5",
                "a: Invalid value: 1.75: a in body should be less than 1.5",
            ],
        );
    }

    #[test]
    fn texts() {
        check(
            json!({ "type": "string", "maxLength": 2 }),
            json!("äöü"),
            &["a: Too long: may not be more than 2 bytes"],
        );
        check(json!({ "type": "string", "maxLength": 3 }), json!("äöü"), &[]);
        check(
            json!({ "type": "string", "minLength": 2 }),
            json!("x"),
            &[r#"a: Invalid value: "x": a in body should be at least 2 chars long"#],
        );
        check(
            json!({ "type": "string", "pattern": "^[a-z]+$" }),
            json!("X"),
            &[r#"a: Invalid value: "X": a in body should match '^[a-z]+$'"#],
        );
        check(
            json!({ "type": "string", "enum": ["a", "b"] }),
            json!("c"),
            &[r#"a: Unsupported value: "c": supported values: "a", "b""#],
        );
        check(
            json!({ "type": "string", "format": "date-time" }),
            json!("soon"),
            &[r#"a: Invalid value: "soon": a in body must be of type date-time: "soon""#],
        );
        check(json!({ "type": "string", "format": "unheard-of" }), json!("x"), &[]);
    }

    #[test]
    fn lists_and_objects() {
        let items = json!({ "type": "array", "minItems": 1, "maxItems": 2, "items": { "type": "string" } });
        check(items.clone(), json!([]), &["a: Invalid value: 0: a in body should have at least 1 items"]);
        check(items.clone(), json!(["x", "y", "z"]), &["a: Too many: 3: must have at most 2 items"]);
        check(
            items,
            json!([1]),
            &[r#"a[0]: Invalid value: "integer": a[0] in body must be of type string: "integer""#],
        );
        check(
            json!({ "type": "array", "x-kubernetes-list-type": "set", "items": { "type": "string" } }),
            json!(["x", "y", "x"]),
            &[r#"a[2]: Duplicate value: "x""#],
        );
        check(
            json!({ "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
                "items": { "type": "object", "properties": { "n": { "type": "integer" } } } }),
            json!([{ "n": 1 }, { "n": 1 }]),
            &[r#"a[1]: Duplicate value: {"n":1}"#],
        );
        check(
            json!({ "type": "object", "required": ["x"], "additionalProperties": { "type": "integer" } }),
            json!({ "k": "v" }),
            &[r#"a.k: Invalid value: "string": a.k in body must be of type integer: "string""#, "a.x: Required value"],
        );
        check(
            json!({ "type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true }),
            json!({ "kind": "Pod" }),
            &["a.apiVersion: Required value"],
        );
    }

    #[test]
    fn junctors() {
        let either = json!([{ "minimum": 10 }, { "multipleOf": 2 }]);
        check(
            json!({ "type": "integer", "oneOf": either }),
            json!(12),
            &[
                r#"<nil>: Invalid value: "": "a" must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
            ],
        );
        check(
            json!({ "type": "integer", "anyOf": either }),
            json!(3),
            &[
                r#"<nil>: Invalid value: "": "a" must validate at least one schema (anyOf)"#,
                "a: Invalid value: 3: a in body should be greater than or equal to 10",
            ],
        );
        check(
            json!({ "type": "integer", "not": { "minimum": 10 } }),
            json!(10),
            &[r#"<nil>: Invalid value: "": "a" must not validate the schema (not)"#],
        );
        check(
            json!({ "type": "integer", "allOf": [{ "minimum": 10 }] }),
            json!(1),
            &[
                "a: Invalid value: 1: a in body should be greater than or equal to 10",
                r#"<nil>: Invalid value: "": "a" must validate all the schemas (allOf). None validated"#,
            ],
        );
    }

    #[test]
    fn what_has_not_changed_is_not_refused_again() {
        let schema = Schema::parse(
            &json!({ "type": "object", "properties": { "a": { "type": "integer", "maximum": 1 }, "b": { "type": "integer" } } }),
        );
        let (old, new) = (json!({ "a": 5, "b": 1 }), json!({ "a": 5, "b": 2 }));
        assert!(validate(&schema, &new, Some(&old)).is_empty());
        assert_eq!(validate(&schema, &json!({ "a": 6 }), Some(&old)).len(), 1);
    }
}
