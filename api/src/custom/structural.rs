//! What is wrong with a CustomResourceDefinition's schema: it must be structural, so that pruning and defaulting can follow it.
//!
//! `apiextensions-apiserver/pkg/apiserver/schema/{convert,validation,complete}.go`, `defaulting/validation.go`. What a
//! schema says beside its structure is [`super::vocabulary`]'s business; both speak, as in Kubernetes.

use serde_json::Value;

use super::schema::Schema;
use super::{defaults, pattern, rules, validate, vocabulary};
use crate::status::{FieldError, FieldPath};
use crate::strategy::field::Errors;

/// Members of JSON schema that have no place in a structural schema, as errors name them.
const UNSUPPORTED: [(&str, &str); 7] = [
    ("id", "id"),
    ("$schema", "schema"),
    ("$ref", "$ref"),
    ("patternProperties", "patternProperties"),
    ("dependencies", "dependencies"),
    ("additionalItems", "additionalItems"),
    ("definitions", "definitions"),
];

/// What may not be said of a value's structure inside `allOf` and the like, and what it must be instead.
const STRUCTURE: [(&str, &str); 12] = [
    ("type", "empty"),
    ("additionalProperties", "undefined"),
    ("default", "undefined"),
    ("title", "empty"),
    ("description", "empty"),
    ("nullable", "false"),
    ("x-kubernetes-preserve-unknown-fields", "false"),
    ("x-kubernetes-embedded-resource", "false"),
    ("x-kubernetes-int-or-string", "false"),
    ("x-kubernetes-list-map-keys", "empty"),
    ("x-kubernetes-list-type", "undefined"),
    ("x-kubernetes-map-type", "undefined"),
];

/// Appends what is wrong with the schema of a version at `path`, whether new or `unchanged`.
pub fn validate(json: &Value, path: &FieldPath, has_status: bool, unchanged: bool, errors: &mut Errors) {
    let before = errors.len();
    if has_status {
        root_with_status(json, path, errors);
    }
    if json["nullable"] == true {
        errors.push(FieldError::forbidden(&path.child("nullable"), "nullable cannot be true at the root"));
    }
    let unsupported = unsupported(json);
    let mut sound = false;
    if unsupported.is_none() {
        let mut walk = Structure::default();
        walk.node(json, path, Level::Root);
        walk.completeness(json, json, path, path);
        // Kubernetes goes through maps in any order, and sorts what it found.
        let mut found: Vec<FieldError> = std::mem::take(&mut walk.errors).into();
        found.sort_by_cached_key(ToString::to_string);
        sound = found.is_empty();
        errors.extend(found);
        if sound {
            let defaults_before = errors.len();
            defaults_of(json, path, Inside::Root, errors);
            sound = errors.len() == defaults_before;
        }
    }
    vocabulary::validate(json, path, sound, unchanged, errors);
    if let Some(words) = unsupported.filter(|_| errors.len() == before) {
        errors.push(FieldError::invalid(path, "", words));
    }
}

/// With a status subresource, the schema of the status is what `properties` say of it: nothing at the root may say more.
fn root_with_status(json: &Value, path: &FieldPath, errors: &mut Errors) {
    const ALLOWED: [&str; 22] = [
        "description",
        "type",
        "format",
        "title",
        "maximum",
        "exclusiveMaximum",
        "minimum",
        "exclusiveMinimum",
        "maxLength",
        "minLength",
        "pattern",
        "maxItems",
        "minItems",
        "uniqueItems",
        "multipleOf",
        "required",
        "items",
        "properties",
        "externalDocs",
        "example",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-validations",
    ];
    if is_set(&json["type"]) && json["type"] != "object" {
        errors.push(FieldError::invalid(
            &path.child("type"),
            json["type"].clone(),
            "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled",
        ));
        return;
    }
    let others =
        json.as_object().into_iter().flatten().any(|(name, value)| is_said(value) && !ALLOWED.contains(&name.as_str()));
    if others {
        let names: Vec<String> = ALLOWED
            .iter()
            .map(|name| match name.strip_prefix("x-kubernetes-") {
                Some("validations") => "XValidations".to_owned(),
                Some(_) => "XPreserveUnknownFields".to_owned(),
                None => name[..1].to_uppercase() + &name[1..],
            })
            .collect();
        errors.push(FieldError::invalid(
            path,
            json.clone(),
            format!(
                "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
                names.join(" ")
            ),
        ));
    }
}

/// Whether a member says something: it is there, and neither false nor empty.
pub(super) fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(object) => !object.is_empty(),
        _ => true,
    }
}

/// As [`is_set`], for members that are pointers in Kubernetes: an empty schema is one.
fn is_said(value: &Value) -> bool {
    value.is_object() || is_set(value)
}

fn members<'a>(json: &'a Value, name: &str) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
    json[name].as_object().into_iter().flatten()
}

/// The first member that no structural schema can have.
fn unsupported(json: &Value) -> Option<String> {
    if !json.is_object() {
        return None;
    }
    let own = UNSUPPORTED.iter().find(|(name, _)| match *name {
        "additionalItems" => json.get(*name).is_some_and(|value| !value.is_null()),
        _ => is_set(&json[*name]),
    });
    if let Some((_, shown)) = own {
        return Some(format!("OpenAPIV3Schema '{shown}' is not supported"));
    }
    let junctors = ["allOf", "anyOf", "oneOf"].into_iter().flat_map(|name| json[name].as_array().into_iter().flatten());
    let inside = [&json["not"]].into_iter().chain(junctors).find_map(unsupported);
    if inside.is_some() {
        return inside;
    }
    if json.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        return Some("internal error: 'x-kubernetes-preserve-unknown-fields' must be true or undefined".to_owned());
    }
    if json["items"].is_array() {
        return Some("OpenAPIV3Schema 'items' must be a schema, but is an array".to_owned());
    }
    let properties = members(json, "properties").map(|(_, schema)| schema);
    [&json["items"]].into_iter().chain(properties).chain([&json["additionalProperties"]]).find_map(unsupported)
}

/// Where a schema stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Field,
    Item,
}

impl Level {
    fn words(self) -> &'static str {
        match self {
            Level::Root => "must not be empty at the root",
            Level::Field => "must not be empty for specified object fields",
            Level::Item => "must not be empty for specified array items",
        }
    }
}

/// Whether a list of alternatives is the idiom by which integers and strings are told.
fn is_int_or_string(any_of: &Value) -> bool {
    *any_of == serde_json::json!([{ "type": "integer" }, { "type": "string" }])
}

#[derive(Default)]
struct Structure {
    errors: Errors,
}

impl Structure {
    fn required(&mut self, path: &FieldPath, words: &str) {
        self.errors.push(FieldError::required(path, words));
    }

    fn forbidden(&mut self, path: &FieldPath, words: impl Into<String>) {
        self.errors.push(FieldError::forbidden(path, words));
    }

    fn invalid(&mut self, path: &FieldPath, value: impl Into<Value>, words: impl Into<String>) {
        self.errors.push(FieldError::invalid(path, value, words));
    }

    /// `validateStructuralInvariants`
    fn node(&mut self, json: &Value, path: &FieldPath, level: Level) {
        let ty = json["type"].as_str().unwrap_or_default();
        let flag = |name: &str| json[name] == true;
        let (embedded, preserves) =
            (flag("x-kubernetes-embedded-resource"), flag("x-kubernetes-preserve-unknown-fields"));
        if json["items"].is_object() {
            self.node(&json["items"], &path.child("items"), Level::Item);
        } else if ty == "array" {
            self.required(&path.child("items"), "must be specified");
        }
        for (name, property) in members(json, "properties") {
            self.node(property, &path.child("properties").key(name.clone()), Level::Field);
        }
        let additional = &json["additionalProperties"];
        let additional_at = path.child("additionalProperties");
        if !additional.is_null() {
            if level == Level::Root {
                self.forbidden(&additional_at, "must not be used at the root");
            }
            if additional.is_object() {
                self.node(additional, &additional_at, Level::Field);
            }
            if embedded {
                self.forbidden(&additional_at, "must not be used if x-kubernetes-embedded-resource is set");
            }
        }
        if flag("x-kubernetes-int-or-string") {
            for name in ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"] {
                if flag(name) {
                    self.invalid(&path.child(name), true, "must be false if x-kubernetes-int-or-string is true");
                }
            }
        }
        self.checks(json, path, is_int_or_string(&json["anyOf"]), is_int_or_string(&json["allOf"][0]["anyOf"]));
        self.ty(json, path, level);
        self.resource(json, path, level);
        if embedded && !preserves && !is_set(&json["properties"]) {
            self.required(
                &path.child("properties"),
                "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
            );
        }
    }

    fn ty(&mut self, json: &Value, path: &FieldPath, level: Level) {
        let (ty, at) = (json["type"].as_str().unwrap_or_default(), path.child("type"));
        let free = json["x-kubernetes-int-or-string"] == true || json["x-kubernetes-preserve-unknown-fields"] == true;
        if json["x-kubernetes-embedded-resource"] == true && ty != "object" {
            let words = "must be object if x-kubernetes-embedded-resource is true";
            match ty {
                "" => self.required(&at, words),
                ty => self.invalid(&at, ty, words),
            }
        } else if ty.is_empty() && !free {
            self.required(&at, level.words());
        }
        if level == Level::Root && !ty.is_empty() && ty != "object" {
            self.invalid(&at, ty, "must be object at the root");
        }
    }

    /// What every object has is not for schemas to say anew; names they may restrict.
    fn resource(&mut self, json: &Value, path: &FieldPath, level: Level) {
        let properties = &json["properties"];
        let of_resource = level == Level::Root || json["x-kubernetes-embedded-resource"] == true;
        let ty = |json: &Value| json["type"].as_str().unwrap_or_default().to_owned();
        for name in ["kind", "apiVersion"] {
            if of_resource && properties[name].is_object() && properties[name]["type"] != "string" {
                let at = path.child("properties").key(name).child("type");
                self.invalid(&at, ty(&properties[name]), "must be string");
            }
        }
        let (metadata, at) = (&properties["metadata"], path.child("properties").key("metadata"));
        if metadata.is_null() {
            return;
        }
        if of_resource && metadata["type"] != "object" {
            self.invalid(&at.child("type"), ty(metadata), "must be object");
        }
        let is_name = |name: &str| name == "name" || name == "generateName";
        let says_more = metadata.as_object().into_iter().flatten().any(|(name, value)| match name.as_str() {
            "type" | "default" => false,
            "properties" => value.as_object().into_iter().flatten().any(|(name, _)| !is_name(name)),
            _ => is_said(value),
        });
        if level == Level::Root && says_more {
            self.forbidden(
                &at,
                "must not specify anything other than name and generateName, but metadata is implicitly specified",
            );
        }
    }

    /// `validateValueValidation`: `skip_any` and `skip_all` for the idioms of [`is_int_or_string`].
    fn checks(&mut self, json: &Value, path: &FieldPath, skip_any: bool, skip_all: bool) {
        for junctor in ["anyOf", "allOf", "oneOf"] {
            if junctor == "anyOf" && skip_any {
                continue;
            }
            for (index, schema) in json[junctor].as_array().into_iter().flatten().enumerate() {
                let skip = junctor == "allOf" && skip_all && index == 0;
                self.nested(schema, &path.child(junctor).index(index), skip);
            }
        }
        self.nested(&json["not"], &path.child("not"), false);
        if let Some(text) = json["pattern"].as_str()
            && let Err(words) = pattern::compile(text)
        {
            self.invalid(
                &path.child("pattern"),
                text,
                format!("must be a valid regular expression, but isn't: {words}"),
            );
        }
    }

    /// Schemas in `allOf` and the like only check values whose structure stands outside.
    fn nested(&mut self, json: &Value, path: &FieldPath, skip_any: bool) {
        if !json.is_object() {
            return;
        }
        self.checks(json, path, skip_any, false);
        self.nested(&json["items"], &path.child("items"), false);
        for (name, property) in members(json, "properties") {
            self.nested(property, &path.child("properties").key(name.clone()), false);
        }
        for (name, instead) in STRUCTURE {
            let value = &json[name];
            let is_there = match instead {
                "undefined" => !value.is_null() && *value != Value::Bool(false),
                _ => is_set(value),
            };
            if is_there {
                self.forbidden(&path.child(name), format!("must be {instead} to be structural"));
            }
        }
        if is_set(&json["x-kubernetes-validations"]) {
            self.forbidden(&path.child("x-kubernetes-validations"), "must be empty to be structural");
        }
        if json["properties"].get("metadata").is_some() {
            self.forbidden(&path.child("properties").key("metadata"), "must not be specified in a nested context");
        }
    }

    /// Whatever is checked must have a structure.
    fn completeness(&mut self, json: &Value, structure: &Value, at: &FieldPath, path: &FieldPath) {
        self.complete(&json["not"], structure, at, &path.child("not"));
        for junctor in ["allOf", "anyOf", "oneOf"] {
            for (index, schema) in json[junctor].as_array().into_iter().flatten().enumerate() {
                self.complete(schema, structure, at, &path.child(junctor).index(index));
            }
        }
    }

    fn complete(&mut self, json: &Value, structure: &Value, at: &FieldPath, path: &FieldPath) {
        if !json.is_object() {
            return;
        }
        if !structure.is_object() {
            return self.required(at, &format!("because it is defined in {path}"));
        }
        self.completeness(json, structure, at, path);
        self.complete(&json["items"], &structure["items"], &at.child("items"), &path.child("items"));
        for (name, property) in members(json, "properties") {
            let key = |path: &FieldPath| path.child("properties").key(name.clone());
            self.complete(property, &structure["properties"][name], &key(at), &key(path));
        }
    }
}

/// What a default stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    /// The object itself: a default of it is the whole object.
    Root,
    Object,
    /// The metadata of an object: Kubernetes itself says what may be there.
    Metadata,
}

/// `ValidateDefaults`: a default must itself be what its schema says.
fn defaults_of(json: &Value, path: &FieldPath, inside: Inside, errors: &mut Errors) {
    let embedded = json["x-kubernetes-embedded-resource"] == true || inside == Inside::Root;
    if let Some(default) = json.get("default").filter(|default| !default.is_null()) {
        default_of(json, default, embedded, path, inside, errors);
    }
    let inside = if embedded { Inside::Object } else { inside };
    if json["items"].is_object() {
        defaults_of(&json["items"], &path.child("items"), inside, errors);
    }
    for (name, property) in members(json, "properties") {
        let of_resource = embedded && matches!(name.as_str(), "metadata" | "apiVersion" | "kind");
        let inside = if of_resource { Inside::Metadata } else { inside };
        defaults_of(property, &path.child("properties").key(name.clone()), inside, errors);
    }
}

fn default_of(json: &Value, default: &Value, embedded: bool, path: &FieldPath, inside: Inside, errors: &mut Errors) {
    let at = path.child("default");
    let mut schema = Schema::parse(json);
    schema.embedded = embedded;
    if inside != Inside::Metadata {
        if defaults::pruned(&schema, default) != *default {
            errors.push(FieldError::invalid(&at, default.clone(), "must not have unknown fields"));
        }
        let before = errors.len();
        validate::embedded(&schema, default, &at, errors);
        if errors.len() > before {
            return;
        }
    }
    let found = validate::validate(&schema, default, None);
    if !found.is_empty() {
        errors.extend(found.into_iter().map(|error| {
            let field = match error.field.as_str() {
                "<nil>" => at.to_string(),
                name => format!("{at}.{}", name.trim_start_matches('.')),
            };
            FieldError { field, ..error }
        }));
        return;
    }
    let before = errors.len();
    rules::evaluate_at(&schema, default, Some(default), &at, embedded, errors);
    if errors.len() == before {
        // Rules about a past that need not be there.
        rules::evaluate_at(&schema, default, None, &at, embedded, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(property: Value, expected: &[&str]) {
        let schema = json!({ "type": "object", "properties": { "a": property } });
        let mut errors = Errors::new();
        validate(&schema, &FieldPath::new("schema"), false, false, &mut errors);
        let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(said, expected);
    }

    #[test]
    fn schemas_are_structural() {
        check(json!({ "type": "string" }), &[]);
        check(json!({}), &["schema.properties[a].type: Required value: must not be empty for specified object fields"]);
        check(json!({ "type": "array" }), &["schema.properties[a].items: Required value: must be specified"]);
        check(json!({ "x-kubernetes-preserve-unknown-fields": true }), &[]);
        check(
            json!({ "x-kubernetes-int-or-string": true, "anyOf": [{ "type": "integer" }, { "type": "string" }] }),
            &[],
        );
        check(
            json!({ "type": "object", "anyOf": [{ "type": "object" }] }),
            &["schema.properties[a].anyOf[0].type: Forbidden: must be empty to be structural"],
        );
        check(
            json!({ "type": "object", "oneOf": [{ "properties": { "x": { "minimum": 1 } } }] }),
            // Kubernetes asks for the structure only of what is checked at the root.
            &[],
        );
        check(
            json!({ "type": "object", "properties": { "b": { "type": "string" } }, "additionalProperties": { "type": "string" } }),
            &[
                "schema.properties[a].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
            ],
        );
        check(
            json!({ "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": { "type": "object", "properties": { "k": { "type": "string" } } } }),
            &[
                "schema.properties[a].items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            ],
        );
        check(
            json!({ "type": "integer", "default": "x" }),
            &[r#"schema.properties[a].default: Invalid value: "string":  in body must be of type integer: "string""#],
        );
    }

    #[test]
    fn rules_compile_against_types() {
        let shown = |rule: &str| {
            format!(
                r#"{{"Rule":"{}","Message":"","MessageExpression":"","Reason":null,"FieldPath":"","OptionalOldSelf":null}}"#,
                rule.replace('>', "\\u003e")
            )
        };
        let rule = |text: &str| json!({ "type": "object", "properties": { "n": { "type": "integer" } }, "x-kubernetes-validations": [{ "rule": text }] });
        check(rule("self.n > 1"), &[]);
        check(
            rule("self.m > 1"),
            &[&format!(
                "schema.properties[a].x-kubernetes-validations[0].rule: Invalid value: {}: compilation failed: ERROR: <input>:1:5: undefined field 'm'\n | self.m > 1\n | ....^",
                shown("self.m > 1")
            )],
        );
        check(
            rule("self.n"),
            &[&format!(
                "schema.properties[a].x-kubernetes-validations[0].rule: Invalid value: {}: cel expression must evaluate to a bool",
                shown("self.n")
            )],
        );
        check(
            rule("self.n == 'x'"),
            &[&format!(
                "schema.properties[a].x-kubernetes-validations[0].rule: Invalid value: {}: compilation failed: ERROR: <input>:1:8: found no matching overload for '_==_' applied to '(int, string)'\n | self.n == 'x'\n | .......^",
                shown("self.n == 'x'")
            )],
        );
    }

    #[test]
    fn rules_must_not_cost_too_much() {
        const ADVICE: &str = "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)";
        let rule = |text: &str| json!([{ "rule": text }]);
        let dear = format!(
            "schema.properties[a].x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x {ADVICE}"
        );
        let all = |items: Value, text: &str| json!({ "type": "array", "items": items, "x-kubernetes-validations": rule(text) });
        check(
            all(json!({ "type": "string" }), "self.all(x, self.all(y, x == y))"),
            &[
                &dear,
                "schema.properties[a].x-kubernetes-validations[0].rule: Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema",
                &format!(
                    "schema: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget by factor of more than 100x {ADVICE}"
                ),
            ],
        );
        // Bounds make the same rule cheap.
        let mut bounded = all(json!({ "type": "string", "maxLength": 10 }), "self.all(x, self.all(y, x == y))");
        bounded["maxItems"] = 10.into();
        check(bounded, &[]);
        // A rule counts as often as its value may occur.
        let item = json!({ "type": "string", "x-kubernetes-validations": rule("self.matches('^a+$')") });
        let lists = |most: u64| json!({ "type": "array", "maxItems": most, "items": item });
        check(lists(10), &[]);
        check(
            lists(40),
            &[&format!(
                "schema.properties[a].items.x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds budget by factor of 1.258296x {ADVICE}"
            )],
        );
        // What is found in the result of a function has no size of its own.
        let numbers = json!({ "type": "object", "properties": { "n": { "type": "integer" } } });
        let mut filtered = all(numbers, "self.filter(x, x.n > 1).all(y, y.n < 3)");
        filtered["maxItems"] = 5.into();
        check(filtered, &[]);
    }
}
