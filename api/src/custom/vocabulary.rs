//! What a definition's schema may say beside its structure: members, lists and maps, rules.
//!
//! `apiextensions-apiserver/pkg/apis/apiextensions/validation/validation.go`
//! `ValidateCustomResourceDefinitionOpenAPISchema`.

use serde_json::Value;

use super::cel::{self, sizes};
use super::rules::{self, Rule};
use super::schema::Schema;
use super::structural::is_set;
use crate::status::{FieldError, FieldPath};
use crate::strategy::field::Errors;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
const UNIQUE_ITEMS: &str = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
const EXCLUSIVE: &str = "additionalProperties and properties are mutual exclusive";
const KEYS_REQUIRED: &str =
    "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
/// What one rule may cost as often as its value may occur, and all rules of a schema together
/// (`StaticEstimatedCostLimit`, `StaticEstimatedCRDCostLimit`).
const RULE_COST_LIMIT: u64 = 10_000_000;
const SCHEMA_COST_LIMIT: u64 = 100_000_000;
/// How many rules are named as the dearest of a schema.
const DEAREST: usize = 4;
const CONTRIBUTED: &str = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
const NO_MAP: &str = "must be map if x-kubernetes-list-map-keys is non-empty";

/// Appends what is wrong with a schema; rules are compiled where its structure is `sound`. What single rules of an
/// `unchanged` schema cost has been accepted before.
pub fn validate(json: &Value, path: &FieldPath, sound: bool, unchanged: bool, errors: &mut Errors) {
    let place = Place { root: true, unchanged, occurrences: Some(1), ..Place::default() };
    let schema = sound.then(|| Schema::parse_without_rules(json));
    let mut found = node(json, path, &place, schema.as_ref());
    errors.extend(std::mem::take(&mut found.schema));
    errors.extend(std::mem::take(&mut found.rules));
    let total = found.costs.iter().fold(0, |total: u64, (_, cost)| total.saturating_add(*cost));
    if total > SCHEMA_COST_LIMIT {
        found.costs.retain(|(_, cost)| *cost >= SCHEMA_COST_LIMIT / 100);
        found.costs.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
        errors.extend(found.costs.iter().take(DEAREST).map(|(path, _)| FieldError::forbidden(path, CONTRIBUTED)));
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        errors.push(FieldError::forbidden(path, too_dear(what, total, SCHEMA_COST_LIMIT)));
    }
}

/// `getCostErrorMessage`
fn too_dear(what: &str, cost: u64, limit: u64) -> String {
    const ADVICE: &str = "try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared";
    #[expect(clippy::cast_precision_loss, reason = "a factor for people to read")]
    let factor = match cost as f64 / limit as f64 {
        factor if factor > 100.0 => "more than 100x".to_owned(),
        factor if factor < 1.5 => format!("{factor:.6}x"),
        factor => format!("{factor:.1}x"),
    };
    format!("{what} exceeds budget by factor of {factor} ({ADVICE})")
}

/// Shows a schema and all within it to somebody (`SchemaHas`).
pub fn each<'a>(json: &'a Value, see: &mut impl FnMut(&'a Value)) {
    if !json.is_object() {
        return;
    }
    see(json);
    let inner = |name: &str| -> Box<dyn Iterator<Item = &'a Value>> {
        match &json[name] {
            Value::Array(list) => Box::new(list.iter()),
            one => Box::new(std::iter::once(one)),
        }
    };
    for name in ["items", "allOf", "anyOf", "oneOf", "not", "additionalProperties"] {
        inner(name).for_each(|schema| each(schema, see));
    }
    json["properties"].as_object().into_iter().flatten().for_each(|(_, schema)| each(schema, see));
}

/// Errors of a schema and of all within it; those of rules come last.
#[derive(Default)]
struct Found {
    schema: Errors,
    rules: Errors,
    /// What each rule costs at worst.
    costs: Vec<(FieldPath, u64)>,
}

impl Found {
    fn add(&mut self, mut other: Found) {
        self.schema.extend(std::mem::take(&mut other.schema));
        self.rules.extend(std::mem::take(&mut other.rules));
        self.costs.append(&mut other.costs);
    }

    fn invalid(&mut self, path: &FieldPath, value: impl Into<Value>, words: impl Into<String>) {
        self.schema.push(FieldError::invalid(path, value, words));
    }

    fn required(&mut self, path: &FieldPath, words: &str) {
        self.schema.push(FieldError::required(path, words));
    }

    fn forbidden(&mut self, path: &FieldPath, words: impl Into<String>) {
        self.schema.push(FieldError::forbidden(path, words));
    }

    /// A member that must have one text, and has another or none.
    fn must(&mut self, path: &FieldPath, found: &Value, words: &str) {
        match found.as_str().unwrap_or_default() {
            "" => self.required(path, words),
            text => self.invalid(path, text, words),
        }
    }
}

/// Where a schema stands.
#[derive(Clone, Default)]
struct Place {
    root: bool,
    /// Inside what Kubernetes itself says of every object.
    in_metadata: bool,
    /// Why there may be no default.
    no_default: Option<String>,
    /// The outermost schema around whose values cannot be followed from one version of an object to the next.
    uncorrelated: Option<FieldPath>,
    /// How often at most its values occur in an object, as far as the schemas around say so.
    occurrences: Option<u64>,
    /// The schema is what it was.
    unchanged: bool,
}

impl Place {
    /// The place of a schema right inside one.
    fn inner(&self, json: &Value) -> Place {
        let times = match json["type"].as_str() {
            Some("object") if !json["additionalProperties"].is_null() => json["maxProperties"].as_u64(),
            Some("array") => json["maxItems"].as_u64(),
            _ => Some(1),
        };
        let occurrences = self.occurrences.zip(times).map(|(around, times)| around.saturating_mul(times));
        Place { root: false, occurrences, ..self.clone() }
    }

    fn without_past(mut self, path: &FieldPath) -> Place {
        self.uncorrelated.get_or_insert_with(|| path.clone());
        self
    }
}

/// A schema at `path`, and, where rules are compiled, the same parsed.
fn node(json: &Value, path: &FieldPath, place: &Place, schema: Option<&Schema>) -> Found {
    let mut found = Found::default();
    if !json.is_object() {
        return found;
    }
    members(json, path, place, &mut found);
    children(json, path, place, schema, &mut found);
    if json.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        found.invalid(&path.child("x-kubernetes-preserve-unknown-fields"), false, "must be true or undefined");
    }
    kind_of_map(json, path, &mut found);
    kind_of_list(json, path, &mut found);
    list_map(json, path, &mut found);
    items_of_list(json, path, &mut found);
    let listed = json["x-kubernetes-validations"].as_array().map(Vec::as_slice).unwrap_or_default();
    let at = path.child("x-kubernetes-validations");
    for (index, rule) in listed.iter().enumerate() {
        words_of_rule(rule, json, &at.index(index), &mut found);
    }
    if let (true, false, Some(schema)) = (found.schema.is_empty(), listed.is_empty(), schema) {
        if schema.ty.is_none() && !schema.int_or_string {
            const WORDS: &str = "internal error: failed to construct type information for x-kubernetes-validations rules: unable to convert structural schema to CEL declarations";
            found.rules.push(FieldError::internal(&at, WORDS));
            return found;
        }
        let shape = sizes::shape(schema, place.root);
        for (index, rule) in listed.iter().enumerate() {
            let at = at.index(index);
            let compiled = Rule::new(rule, schema, place.root);
            let times = place.occurrences.unwrap_or_else(|| sizes::cardinality(schema));
            let cost = |name: &str| cel::rule_cost(rule[name].as_str().unwrap_or_default().trim(), &shape);
            if compiled.fault().is_none() {
                let what = "estimated rule cost";
                spend(&at.child("rule"), what, cost("rule").saturating_mul(times), place, &mut found);
            }
            compile(rule, &compiled, &at, place, &mut found.rules);
            if is_set(&rule["messageExpression"]) && compiled.message_fault().is_none() {
                let what = "estimated messageExpression cost";
                spend(&at.child("messageExpression"), what, cost("messageExpression"), place, &mut found);
            }
        }
    }
    found
}

/// Notes what an expression costs at worst, and whether that is too much.
fn spend(at: &FieldPath, what: &str, cost: u64, place: &Place, found: &mut Found) {
    if cost > RULE_COST_LIMIT && !place.unchanged {
        found.rules.push(FieldError::forbidden(at, too_dear(what, cost, RULE_COST_LIMIT)));
    }
    found.costs.push((at.clone(), cost));
}

/// Members that JSON schema has and Kubernetes has not.
fn members(json: &Value, path: &FieldPath, place: &Place, found: &mut Found) {
    let ty = json["type"].as_str().unwrap_or_default();
    if !ty.is_empty() && !TYPES.contains(&ty) {
        found.schema.push(FieldError::not_supported(&path.child("type"), ty, &TYPES));
    }
    let is_there = |name: &str| json.get(name).is_some_and(|value| !value.is_null());
    if let (true, Some(reason)) = (is_there("default"), &place.no_default) {
        found.forbidden(&path.child("default"), format!("must not be set {reason}"));
    }
    for name in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        let by_presence = matches!(name, "additionalItems" | "dependencies" | "$ref");
        if if by_presence { is_there(name) } else { is_set(&json[name]) } {
            found.forbidden(&path.child(name), format!("{name} is not supported"));
        }
    }
    if ty == "null" {
        found.forbidden(&path.child("type"), "type cannot be set to null, use nullable as an alternative");
    }
    if json["items"].is_array() && is_set(&json["items"]) {
        found.forbidden(&path.child("items"), "items must be a schema object and not an array");
    }
    if place.in_metadata && json["x-kubernetes-embedded-resource"] == true {
        found.forbidden(&path.child("x-kubernetes-embedded-resource"), "must not be used inside of resource meta");
    }
    if json["uniqueItems"] == true {
        found.forbidden(&path.child("uniqueItems"), UNIQUE_ITEMS);
    }
}

fn children(json: &Value, path: &FieldPath, place: &Place, schema: Option<&Schema>, found: &mut Found) {
    let additional = &json["additionalProperties"];
    if !additional.is_null() {
        let at = path.child("additionalProperties");
        if is_set(&json["properties"]) && *additional != Value::Bool(true) {
            found.forbidden(&at, EXCLUSIVE);
        }
        let mut inner = place.inner(json);
        if place.in_metadata {
            inner.no_default = Some("inside additionalProperties applying to object metadata".to_owned());
        }
        found.add(node(additional, &at, &inner, schema.and_then(|schema| schema.values())));
    }
    for (name, property) in json["properties"].as_object().into_iter().flatten() {
        let mut inner = place.inner(json);
        if json["x-kubernetes-map-type"] == "atomic" {
            inner = inner.without_past(path);
        }
        let of_resource = place.root || json["x-kubernetes-embedded-resource"] == true;
        if of_resource && matches!(name.as_str(), "metadata" | "kind" | "apiVersion") {
            inner.in_metadata = true;
            if place.root {
                inner.no_default = Some(format!("in top-level {name}"));
            }
        }
        let schema = schema.and_then(|schema| schema.properties.get(name));
        found.add(node(property, &path.child("properties").key(name.clone()), &inner, schema));
    }
    found.add(node(&json["not"], &path.child("not"), &place.inner(json), None));
    for junctor in ["allOf", "oneOf", "anyOf"] {
        for (index, schema) in json[junctor].as_array().into_iter().flatten().enumerate() {
            found.add(node(schema, &path.child(junctor).index(index), &place.inner(json), None));
        }
    }
    for (name, schema) in json["definitions"].as_object().into_iter().flatten() {
        found.add(node(schema, &path.child("definitions").key(name.clone()), &place.inner(json), None));
    }
    let mut inner = place.inner(json);
    if json["x-kubernetes-list-type"] != "map" {
        inner = inner.without_past(path);
    }
    let at = path.child("items");
    found.add(node(&json["items"], &at, &inner, schema.and_then(|schema| schema.items.as_deref())));
    for (index, schema) in json["items"].as_array().into_iter().flatten().enumerate() {
        found.add(node(schema, &at.index(index), &inner, None));
    }
}

fn kind_of_map(json: &Value, path: &FieldPath, found: &mut Found) {
    let Some(kind) = json["x-kubernetes-map-type"].as_str() else { return };
    if json["type"] != "object" {
        found.must(&path.child("type"), &json["type"], "must be object if x-kubernetes-map-type is specified");
    }
    if !["atomic", "granular"].contains(&kind) {
        let at = path.child("x-kubernetes-map-type");
        found.schema.push(FieldError::not_supported(&at, kind, &["atomic", "granular"]));
    }
}

fn kind_of_list(json: &Value, path: &FieldPath, found: &mut Found) {
    const ATOMIC: &str = "must be atomic as item of a list with x-kubernetes-list-type=set";
    let Some(kind) = json["x-kubernetes-list-type"].as_str() else { return };
    let items = &json["items"];
    if json["type"] != "array" {
        found.must(&path.child("type"), &json["type"], "must be array if x-kubernetes-list-type is specified");
    } else if kind == "set" && items.is_object() {
        let list = &items["x-kubernetes-list-type"];
        let at = path.child("items");
        match items["type"].as_str() {
            Some("array") if !list.is_null() && list != "atomic" => {
                found.invalid(&at.child("x-kubernetes-list-type"), list.clone(), ATOMIC);
            }
            Some("object") if items["x-kubernetes-map-type"] != "atomic" => {
                found.invalid(&at.child("x-kubernetes-map-type"), list.clone(), ATOMIC);
            }
            _ => {}
        }
    }
    if !["atomic", "set", "map"].contains(&kind) {
        let at = path.child("x-kubernetes-list-type");
        found.schema.push(FieldError::not_supported(&at, kind, &["atomic", "set", "map"]));
    }
}

fn keys(json: &Value) -> Vec<&str> {
    json["x-kubernetes-list-map-keys"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn list_map(json: &Value, path: &FieldPath, found: &mut Found) {
    let (kind, keys) = (json["x-kubernetes-list-type"].as_str(), keys(json));
    let (kind_at, keys_at) = (path.child("x-kubernetes-list-type"), path.child("x-kubernetes-list-map-keys"));
    if kind != Some("map") {
        match kind {
            _ if keys.is_empty() => {}
            None => found.required(&kind_at, NO_MAP),
            Some(kind) => found.invalid(&kind_at, kind, NO_MAP),
        }
        return;
    }
    if keys.is_empty() {
        found.required(&keys_at, "must not be empty if x-kubernetes-list-type is map");
    }
    let (items, at) = (&json["items"], path.child("items"));
    match items {
        Value::Null => return found.required(&at, "must have a schema if x-kubernetes-list-type is map"),
        Value::Object(_) => {}
        other => {
            return found.invalid(
                &at,
                other.clone(),
                "must only have a single schema if x-kubernetes-list-type is map",
            );
        }
    }
    if items["type"] != "object" {
        let ty = items["type"].as_str().unwrap_or_default();
        let words = "must be object if parent array's x-kubernetes-list-type is map";
        return found.invalid(&at.child("type"), ty, words);
    }
    for (index, key) in keys.iter().enumerate() {
        let property = &items["properties"][*key];
        if property.is_null() {
            found.invalid(
                &keys_at,
                json["x-kubernetes-list-map-keys"].clone(),
                "entries must all be names of item properties",
            );
        } else if matches!(property["type"].as_str(), Some("array" | "object")) {
            // Kubernetes shows the type of the items here.
            found.invalid(
                &at.child("properties").key((*key).to_owned()).child("type"),
                "object",
                "must be a scalar type if parent array's x-kubernetes-list-type is map",
            );
        }
        if keys[..index].contains(key) {
            found.invalid(&keys_at, json["x-kubernetes-list-map-keys"].clone(), "must not contain duplicate entries");
        }
    }
}

/// What lists by keys or values demand of their items (`validateMapListKeysMapSet`).
fn items_of_list(json: &Value, path: &FieldPath, found: &mut Found) {
    let (items, at) = (&json["items"], path.child("items"));
    let Some(kind @ ("set" | "map")) = json["x-kubernetes-list-type"].as_str() else { return };
    if !items.is_object() {
        return;
    }
    if items["nullable"] == true {
        let words = format!("cannot be nullable when x-kubernetes-list-type is {kind}");
        found.forbidden(&at.child("nullable"), words);
    }
    if kind == "set" {
        return;
    }
    for key in keys(json) {
        let property = &items["properties"][key];
        let property_at = at.child("properties").key(key.to_owned());
        if property.is_null() {
            continue;
        }
        let required = items["required"].as_array().is_some_and(|names| names.iter().any(|name| name == key));
        if !required && property.get("default").is_none_or(Value::is_null) {
            found.required(&property_at.child("default"), KEYS_REQUIRED);
        }
        if property["nullable"] == true {
            found.forbidden(
                &property_at.child("nullable"),
                "this property is in x-kubernetes-list-map-keys, so it cannot be nullable",
            );
        }
    }
}

fn words_of_rule(rule: &Value, json: &Value, path: &FieldPath, found: &mut Found) {
    let text = |name: &str| rule[name].as_str().unwrap_or_default();
    let broken = |text: &str| text.contains(['\n', '\r']);
    let (source, message) = (text("rule").trim(), text("message").trim());
    if source.is_empty() {
        found.required(&path.child("rule"), "rule is not specified");
    } else if !text("message").is_empty() && message.is_empty() {
        found.invalid(&path.child("message"), text("message"), "must be non-empty if specified");
    } else if broken(message) {
        found.invalid(&path.child("message"), text("message"), "must not contain line breaks");
    } else if broken(source) && message.is_empty() {
        found.required(&path.child("message"), "message must be specified if rule contains line breaks");
    }
    if !text("messageExpression").is_empty() && text("messageExpression").trim().is_empty() {
        found.required(&path.child("messageExpression"), "messageExpression must be non-empty if specified");
    }
    if let Some(reason) = rule["reason"].as_str()
        && !REASONS.contains(&reason)
    {
        found.schema.push(FieldError::not_supported(&path.child("reason"), reason, &REASONS));
    }
    let (field, at) = (text("fieldPath"), path.child("fieldPath"));
    if field.is_empty() {
        return;
    }
    if field.trim().is_empty() {
        found.invalid(&at, field, "must be non-empty if specified");
    }
    if broken(field) {
        found.invalid(&at, field, "must not contain line breaks");
    }
    if rules::valid_path(field, &Schema::parse_without_rules(json), true).is_err() {
        found.invalid(&at, field, "must be a valid path");
    }
}

/// A rule compiles against the types around it.
fn compile(rule: &Value, compiled: &Rule, path: &FieldPath, place: &Place, errors: &mut Errors) {
    let whole = |at: &str, words: String| {
        FieldError::invalid(&path.child(at.to_owned()), rule.clone(), words).showing(shown(rule))
    };
    if let Some(fault) = compiled.fault() {
        let words =
            if fault.starts_with("must evaluate") { format!("cel expression {fault}") } else { fault.to_owned() };
        errors.push(whole("rule", words));
    }
    if let Some(fault) = compiled.message_fault() {
        let words = match fault.strip_prefix("compilation failed") {
            Some(rest) => format!("messageExpression compilation failed{rest}"),
            None => format!("messageExpression {fault}"),
        };
        errors.push(whole("messageExpression", words));
    }
    let optional = rule["optionalOldSelf"].as_bool();
    match (&place.uncorrelated, optional) {
        (Some(around), _) if compiled.is_transition() => {
            let words = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {around}");
            errors.push(FieldError::invalid(&path.child("rule"), rule["rule"].clone(), words));
        }
        (_, Some(said)) if !compiled.is_transition() => {
            let words = "may not be set if oldSelf is not used in rule";
            errors.push(FieldError::invalid(&path.child("optionalOldSelf"), said, words));
        }
        _ => {}
    }
}

/// A rule as Kubernetes has it inside.
fn shown(rule: &Value) -> String {
    let text = |name: &str| Value::from(rule[name].as_str().unwrap_or_default());
    let whole = format!(
        r#"{{"Rule":{},"Message":{},"MessageExpression":{},"Reason":{},"FieldPath":{},"OptionalOldSelf":{}}}"#,
        text("rule"),
        text("message"),
        text("messageExpression"),
        rule["reason"],
        text("fieldPath"),
        rule["optionalOldSelf"],
    );
    // As Go writes JSON.
    whole.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e")
}
