//! What is wrong with a CustomResourceDefinition's schema: it must be structural, so that pruning and defaulting can follow it.
//!
//! `apiextensions-apiserver/pkg/apis/apiextensions/validation/validation.go` `ValidateCustomResourceDefinitionOpenAPISchema`,
//! `pkg/apiserver/schema/validation.go` `ValidateStructural`.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::Value;

use super::rules::{self, Rule};
use super::schema::{JsonType, Schema};
use super::{defaults, validate};
use crate::status::{FieldError, FieldPath};

const UNIQUE_ITEMS: &str = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const EXCLUSIVE: &str = "additionalProperties and properties are mutual exclusive";
const KEYS_REQUIRED: &str =
    "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";

/// Members of JSON schema that Kubernetes has no use for.
const UNSUPPORTED: [&str; 7] =
    ["$ref", "$schema", "definitions", "dependencies", "id", "patternProperties", "additionalItems"];

/// What may not be said of a value's structure inside `allOf` and the like.
const STRUCTURE: [&str; 12] = [
    "type",
    "additionalProperties",
    "default",
    "title",
    "description",
    "nullable",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
    "x-kubernetes-validations",
];

/// Appends what is wrong with the schema of a version at `path`.
pub fn validate(json: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let mut walk = Walk { errors };
    walk.node(json, path, Place::Root);
    if walk.errors.is_empty() {
        walk.rules(json, &Schema::parse_without_rules(json), path, true);
    }
}

/// Where a schema stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Property,
    Item,
}

impl Place {
    fn words(self) -> &'static str {
        match self {
            Place::Root => "must not be empty at the root",
            Place::Property => "must not be empty for specified object fields",
            Place::Item => "must not be empty for specified array items",
        }
    }
}

struct Walk<'a> {
    errors: &'a mut Vec<FieldError>,
}

fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(object) => !object.is_empty(),
        _ => true,
    }
}

impl Walk<'_> {
    fn required(&mut self, path: &FieldPath, words: &str) {
        self.errors.push(FieldError::required(path, words));
    }

    fn forbidden(&mut self, path: &FieldPath, words: impl Into<String>) {
        self.errors.push(FieldError::forbidden(path, words));
    }

    fn invalid(&mut self, path: &FieldPath, value: &Value, words: impl Into<String>) {
        self.errors.push(FieldError::invalid(path, value.clone(), words));
    }

    fn node(&mut self, json: &Value, path: &FieldPath, place: Place) {
        self.members(json, path);
        self.ty(json, path, place);
        self.lists_and_maps(json, path);
        if json["x-kubernetes-embedded-resource"] == true {
            self.embedded(json, path);
        }
        if place == Place::Root || json["x-kubernetes-embedded-resource"] == true {
            self.metadata(json, path);
        }
        for (name, property) in json["properties"].as_object().into_iter().flatten() {
            self.node(property, &path.child("properties").key(name.clone()), Place::Property);
        }
        if json["additionalProperties"].is_object() {
            self.node(&json["additionalProperties"], &path.child("additionalProperties"), Place::Property);
        }
        if json["items"].is_object() {
            self.node(&json["items"], &path.child("items"), Place::Item);
        }
        self.nested(json, json, path);
        self.default(json, path, place);
    }

    /// Members that JSON schema has and a structural schema may not have.
    fn members(&mut self, json: &Value, path: &FieldPath) {
        for name in UNSUPPORTED.into_iter().filter(|name| is_set(&json[*name])) {
            self.forbidden(&path.child(name), format!("{name} is not supported"));
        }
        if json["uniqueItems"] == true {
            self.forbidden(&path.child("uniqueItems"), UNIQUE_ITEMS);
        }
        if json.get("additionalProperties").is_some_and(|value| *value == Value::Bool(false)) {
            self.forbidden(&path.child("additionalProperties"), "additionalProperties cannot be set to false");
        } else if is_set(&json["additionalProperties"]) && is_set(&json["properties"]) {
            self.forbidden(&path.child("additionalProperties"), EXCLUSIVE);
        }
        if json["items"].is_array() {
            self.forbidden(&path.child("items"), "items must be a schema object and not an array");
        }
        self.pattern(json, path);
        if json["x-kubernetes-preserve-unknown-fields"] == false
            && json.get("x-kubernetes-preserve-unknown-fields").is_some()
        {
            self.invalid(
                &path.child("x-kubernetes-preserve-unknown-fields"),
                &Value::Bool(false),
                "must be true or undefined",
            );
        }
    }

    fn pattern(&mut self, json: &Value, path: &FieldPath) {
        if let Some(pattern) = json["pattern"].as_str()
            && let Err(error) = Regex::new(pattern)
        {
            let words = format!(
                "must be a valid regular expression, but isn't: {}",
                error.to_string().lines().last().unwrap_or_default()
            );
            self.invalid(&path.child("pattern"), &json["pattern"], words);
        }
    }

    fn ty(&mut self, json: &Value, path: &FieldPath, place: Place) {
        let ty = json["type"].as_str().unwrap_or_default();
        let int_or_string = json["x-kubernetes-int-or-string"] == true;
        let at = path.child("type");
        match (ty, place) {
            ("", Place::Property | Place::Item)
                if int_or_string || json["x-kubernetes-preserve-unknown-fields"] == true => {}
            ("", place) => self.required(&at, place.words()),
            (_, Place::Root) if ty != "object" => self.invalid(&at, &json["type"], "must be object at the root"),
            _ if JsonType::parse(ty).is_none() => self.errors.push(FieldError::not_supported(&at, ty, &TYPES)),
            _ => {}
        }
        if int_or_string && !ty.is_empty() {
            self.invalid(&at, &json["type"], "must be empty if x-kubernetes-int-or-string is true");
        }
        if ty == "array" && !is_set(&json["items"]) && !json["items"].is_object() {
            self.required(&path.child("items"), "must be specified");
        }
        if json["x-kubernetes-embedded-resource"] == true && ty != "object" {
            self.invalid(&at, &Value::from(ty), "must be object if x-kubernetes-embedded-resource is true");
        }
        if json["nullable"] == true && place == Place::Root {
            self.forbidden(&path.child("nullable"), "nullable cannot be true at the root");
        }
    }

    fn lists_and_maps(&mut self, json: &Value, path: &FieldPath) {
        let (list, map) = (json["x-kubernetes-list-type"].as_str(), json["x-kubernetes-map-type"].as_str());
        let (list_at, keys_at) = (path.child("x-kubernetes-list-type"), path.child("x-kubernetes-list-map-keys"));
        if let Some(list) = list {
            if json["type"] != "array" {
                self.invalid(
                    &path.child("type"),
                    &json["type"],
                    format!("must be array if x-kubernetes-list-type is {list:?}").replace('"', ""),
                );
            }
            if !["atomic", "set", "map"].contains(&list) {
                self.errors.push(FieldError::not_supported(&list_at, list, &["atomic", "map", "set"]));
            }
        }
        let keys: Vec<&str> =
            json["x-kubernetes-list-map-keys"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        match (list, keys.is_empty()) {
            (Some("map"), true) => self.required(&keys_at, "must not be empty if x-kubernetes-list-type is map"),
            (Some("map"), false) => self.list_map_keys(json, &keys, path),
            (Some(other), false) => {
                self.invalid(&list_at, &Value::from(other), "must be map if x-kubernetes-list-map-keys is non-empty")
            }
            (None, false) => self.required(&list_at, "must be map if x-kubernetes-list-map-keys is non-empty"),
            _ => {}
        }
        if let Some(map) = map {
            if !["atomic", "granular"].contains(&map) {
                self.errors.push(FieldError::not_supported(
                    &path.child("x-kubernetes-map-type"),
                    map,
                    &["atomic", "granular"],
                ));
            }
            if json["type"] != "object" {
                self.invalid(
                    &path.child("type"),
                    &json["type"],
                    "must be object if x-kubernetes-map-type is specified",
                );
            }
        }
    }

    fn list_map_keys(&mut self, json: &Value, keys: &[&str], path: &FieldPath) {
        let (items, at) = (&json["items"], path.child("items"));
        if items["type"] != "object" {
            self.invalid(
                &at.child("type"),
                &items["type"],
                "must be object if parent array's x-kubernetes-list-type is map",
            );
        }
        let mut seen = BTreeSet::new();
        for (index, key) in keys.iter().enumerate() {
            let property = &items["properties"][*key];
            let property_at = at.child("properties").key((*key).to_owned());
            if !seen.insert(key) {
                self.errors.push(FieldError::duplicate(&path.child("x-kubernetes-list-map-keys").index(index), *key));
            }
            if property.is_null() {
                self.invalid(
                    &path.child("x-kubernetes-list-map-keys"),
                    &json["x-kubernetes-list-map-keys"],
                    "entries must all be names of item properties",
                );
                continue;
            }
            if matches!(property["type"].as_str(), Some("array" | "object")) {
                self.invalid(
                    &property_at.child("type"),
                    &property["type"],
                    "must be a scalar type if parent array's x-kubernetes-list-type is map",
                );
            }
            let required = items["required"].as_array().is_some_and(|names| names.iter().any(|name| name == key));
            if !required && property.get("default").is_none_or(Value::is_null) {
                self.required(&property_at.child("default"), KEYS_REQUIRED);
            }
        }
    }

    fn embedded(&mut self, json: &Value, path: &FieldPath) {
        if json["x-kubernetes-preserve-unknown-fields"] != true && !is_set(&json["properties"]) {
            self.required(
                &path.child("properties"),
                "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
            );
        }
    }

    /// A schema may restrict names; all else of metadata is Kubernetes' own.
    fn metadata(&mut self, json: &Value, path: &FieldPath) {
        let metadata = &json["properties"]["metadata"];
        let at = path.child("properties").key("metadata");
        if metadata.is_null() {
            return;
        }
        if metadata["type"] != "object" {
            self.invalid(&at.child("type"), &metadata["type"], "must be object");
        }
        let others = metadata["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .any(|(name, _)| name != "name" && name != "generateName");
        if others || is_set(&metadata["additionalProperties"]) || is_set(&metadata["required"]) {
            self.forbidden(
                &at,
                "must not specify anything other than name and generateName, but metadata is implicitly specified",
            );
        }
    }

    /// Schemas in `allOf` and the like only check values whose structure stands outside.
    fn nested(&mut self, structure: &Value, json: &Value, path: &FieldPath) {
        for junctor in ["allOf", "anyOf", "oneOf"] {
            for (index, schema) in json[junctor].as_array().into_iter().flatten().enumerate() {
                self.nested_schema(structure, schema, &path.child(junctor).index(index));
            }
        }
        if json["not"].is_object() {
            self.nested_schema(structure, &json["not"], &path.child("not"));
        }
    }

    fn nested_schema(&mut self, structure: &Value, json: &Value, path: &FieldPath) {
        for name in STRUCTURE.into_iter().filter(|name| is_set(&json[*name])) {
            // The one idiom in which types may be repeated.
            if name == "type" && structure["x-kubernetes-int-or-string"] == true {
                continue;
            }
            self.forbidden(&path.child(name), "must be empty to be structural");
        }
        self.pattern(json, path);
        for (name, property) in json["properties"].as_object().into_iter().flatten() {
            let at = path.child("properties").key(name.clone());
            let outside = structure["properties"]
                .get(name)
                .or_else(|| structure.get("additionalProperties").filter(|value| value.is_object()));
            match outside {
                Some(outside) => self.nested_schema(outside, property, &at),
                None => self.required(
                    &FieldPath::new(outside_of(path)).child("properties").key(name.clone()),
                    &format!("because it is defined in {at}"),
                ),
            }
        }
        if json["items"].is_object() {
            self.nested_schema(&structure["items"], &json["items"], &path.child("items"));
        }
        self.nested(structure, json, path);
    }

    /// A default must itself be what its schema says.
    fn default(&mut self, json: &Value, path: &FieldPath, place: Place) {
        let Some(default) = json.get("default").filter(|default| !default.is_null()) else { return };
        let at = path.child("default");
        if place == Place::Root {
            return self.forbidden(&at, "must not be set at the root");
        }
        let schema = Schema::parse_without_rules(json);
        if defaults::pruned(&schema, default) != *default {
            self.invalid(&at, default, "must not have unknown fields");
        }
        let mut filled = default.clone();
        defaults::set(&schema, &mut filled);
        for error in validate::validate(&schema, &filled, None) {
            let field = if error.field == "<nil>" { at.to_string() } else { format!("{at}.{}", error.field) };
            self.errors.push(FieldError { field, ..error });
        }
    }

    /// Rules compile against the types around them.
    fn rules(&mut self, json: &Value, schema: &Schema, path: &FieldPath, root: bool) {
        let at = path.child("x-kubernetes-validations");
        for (index, rule) in json["x-kubernetes-validations"].as_array().into_iter().flatten().enumerate() {
            self.rule(rule, schema, &at.index(index), root);
        }
        for (name, property) in json["properties"].as_object().into_iter().flatten() {
            if let Some(inner) = schema.properties.get(name) {
                self.rules(property, inner, &path.child("properties").key(name.clone()), false);
            }
        }
        if let Some(super::schema::Additional::Schema(inner)) = &schema.additional {
            self.rules(&json["additionalProperties"], inner, &path.child("additionalProperties"), false);
        }
        if let Some(items) = &schema.items {
            self.rules(&json["items"], items, &path.child("items"), false);
        }
    }

    fn rule(&mut self, rule: &Value, schema: &Schema, path: &FieldPath, root: bool) {
        let text = |name: &str| rule[name].as_str().unwrap_or_default();
        if text("rule").trim().is_empty() {
            return self.required(&path.child("rule"), "rule is not specified");
        }
        let compiled = Rule::new(rule, schema, root);
        if let Some(fault) = compiled.fault() {
            let words =
                if fault.starts_with("must evaluate") { format!("cel expression {fault}") } else { fault.to_owned() };
            self.invalid(&path.child("rule"), rule, words);
        }
        if let Some(fault) = compiled.message_fault() {
            self.invalid(&path.child("messageExpression"), rule, format!("messageExpression {fault}"));
        }
        if rule["optionalOldSelf"] == true && !compiled.is_transition() && compiled.fault().is_none() {
            self.invalid(
                &path.child("optionalOldSelf"),
                &Value::Bool(true),
                "may not be set if oldSelf is not used in rule",
            );
        }
        if rule["message"].is_string() && text("message").trim().is_empty() && !text("message").is_empty() {
            self.invalid(&path.child("message"), &rule["message"], "message must be non-empty if specified");
        } else if text("message").contains('\n') {
            self.invalid(&path.child("message"), &rule["message"], "message must not contain line breaks");
        } else if text("rule").contains('\n') && text("message").is_empty() {
            self.required(&path.child("message"), "message must be specified if rule contains line breaks");
        }
        if !text("fieldPath").is_empty()
            && let Err(words) = rules::check_field_path(text("fieldPath"), schema)
        {
            self.invalid(&path.child("fieldPath"), &rule["fieldPath"], words);
        }
        let reasons = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
        if !text("reason").is_empty() && !reasons.contains(&text("reason")) {
            self.errors.push(FieldError::not_supported(&path.child("reason"), text("reason"), &reasons));
        }
    }
}

/// The path of the schema around one in `allOf` and the like.
fn outside_of(path: &FieldPath) -> String {
    let text = path.to_string();
    let cut = [".allOf[", ".anyOf[", ".oneOf[", ".not"].iter().filter_map(|junctor| text.find(junctor)).min();
    text[..cut.unwrap_or(text.len())].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(property: Value, expected: &[&str]) {
        let schema = json!({ "type": "object", "properties": { "a": property } });
        let mut errors = Vec::new();
        validate(&schema, &FieldPath::new("schema"), &mut errors);
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
            &[
                "schema.properties[a].properties[x]: Required value: because it is defined in schema.properties[a].oneOf[0].properties[x]",
            ],
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
        let rule = |text: &str| json!({ "type": "object", "properties": { "n": { "type": "integer" } }, "x-kubernetes-validations": [{ "rule": text }] });
        check(rule("self.n > 1"), &[]);
        check(
            rule("self.m > 1"),
            &[&format!(
                "schema.properties[a].x-kubernetes-validations[0].rule: Invalid value: {}: compilation failed: ERROR: <input>:1:5: undefined field 'm'\n | self.m > 1\n | ....^",
                json!({ "rule": "self.m > 1" })
            )],
        );
        check(
            rule("self.n"),
            &[&format!(
                "schema.properties[a].x-kubernetes-validations[0].rule: Invalid value: {}: cel expression must evaluate to a bool",
                json!({ "rule": "self.n" })
            )],
        );
        check(
            rule("self.n == 'x'"),
            &[&format!(
                "schema.properties[a].x-kubernetes-validations[0].rule: Invalid value: {}: compilation failed: ERROR: <input>:1:8: found no matching overload for '_==_' applied to '(int, string)'\n | self.n == 'x'\n | .......^",
                json!({ "rule": "self.n == 'x'" })
            )],
        );
    }
}
