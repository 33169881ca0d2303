//! A structural schema as the code below reads it: parsed once a version, then asked by every write.
//!
//! [`Schema::parse`] never fails: what is wrong with a schema is [`super::structural`]'s business, when the
//! CustomResourceDefinition is written. `apiextensions-apiserver/pkg/apiserver/schema/structural.go`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

use super::rules::Rule;
use crate::schema::ListType;

/// `type` of a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonType {
    /// `object`
    Object,
    /// `array`
    Array,
    /// `string`
    String,
    /// `integer`
    Integer,
    /// `number`
    Number,
    /// `boolean`
    Boolean,
}

impl JsonType {
    /// The type of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// `additionalProperties`.
#[derive(Debug)]
pub enum Additional {
    /// `true`: any value.
    Any,
    /// Values of a schema.
    Schema(Box<Schema>),
}

/// One node of a structural schema.
#[derive(Debug, Default)]
pub struct Schema {
    /// `type`.
    pub ty: Option<JsonType>,
    /// `nullable`.
    pub nullable: bool,
    /// `x-kubernetes-int-or-string`.
    pub int_or_string: bool,
    /// `x-kubernetes-preserve-unknown-fields`.
    pub preserve_unknown: bool,
    /// `x-kubernetes-embedded-resource`.
    pub embedded: bool,
    /// `properties`.
    pub properties: BTreeMap<String, Schema>,
    /// `additionalProperties`.
    pub additional: Option<Additional>,
    /// `items`.
    pub items: Option<Box<Schema>>,
    /// `x-kubernetes-list-type` and its keys; `None` where it is not said.
    pub list_type: Option<ListType>,
    /// `x-kubernetes-map-type: atomic`.
    pub atomic: bool,
    /// `default`.
    pub default: Option<Value>,
    /// What a value must be beyond its type.
    pub checks: Checks,
    /// `allOf`
    pub all_of: Vec<Schema>,
    /// `anyOf`
    pub any_of: Vec<Schema>,
    /// `oneOf`
    pub one_of: Vec<Schema>,
    /// `not`
    pub not: Option<Box<Schema>>,
    /// `x-kubernetes-validations`.
    pub rules: Vec<Rule>,
    /// Whether there are rules here or below.
    pub has_rules: bool,
    /// Whether there are defaults below.
    pub has_defaults: bool,
}

/// Value validations of JSON schema.
#[derive(Debug, Default)]
pub struct Checks {
    /// `format`, where it is one that is checked.
    pub format: Option<String>,
    /// `format` of a number, where it is one that is checked.
    pub number_format: Option<&'static str>,
    /// `enum`
    pub one_of: Option<Vec<Value>>,
    /// `pattern`, as written and compiled. A pattern that does not compile matches nothing.
    pub pattern: Option<(String, Option<Regex>)>,
    /// `maxLength`, in characters.
    pub max_length: Option<u64>,
    /// `minLength`, in characters.
    pub min_length: Option<u64>,
    /// `maximum`, and whether it is exclusive.
    pub maximum: Option<(f64, bool)>,
    /// `minimum`, and whether it is exclusive.
    pub minimum: Option<(f64, bool)>,
    /// `multipleOf`
    pub multiple_of: Option<f64>,
    /// `maxItems`
    pub max_items: Option<u64>,
    /// `minItems`
    pub min_items: Option<u64>,
    /// `uniqueItems`
    pub unique_items: bool,
    /// `maxProperties`
    pub max_properties: Option<u64>,
    /// `minProperties`
    pub min_properties: Option<u64>,
    /// `required`
    pub required: Vec<String>,
}

impl Schema {
    /// Reads a schema, rules compiled.
    pub fn parse(json: &Value) -> Schema {
        let mut schema = Schema::parse_without_rules(json);
        schema.compile_rules(json, true);
        schema
    }

    /// Reads a schema; its rules stay uncompiled, for those who only ask for types.
    pub fn parse_without_rules(json: &Value) -> Schema {
        let flag = |name: &str| json[name] == true;
        let mut schema = Schema {
            ty: json["type"].as_str().and_then(JsonType::parse),
            nullable: flag("nullable"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            properties: children(&json["properties"]),
            additional: additional(&json["additionalProperties"]),
            items: json["items"].is_object().then(|| Box::new(Schema::parse_without_rules(&json["items"]))),
            list_type: list_type(json),
            atomic: json["x-kubernetes-map-type"] == "atomic",
            default: json.get("default").filter(|value| !value.is_null()).cloned(),
            checks: Checks::parse(json),
            all_of: list(&json["allOf"]),
            any_of: list(&json["anyOf"]),
            one_of: list(&json["oneOf"]),
            not: json["not"].is_object().then(|| Box::new(Schema::parse_without_rules(&json["not"]))),
            ..Schema::default()
        };
        let has_defaults = schema.inner().any(|inner| inner.default.is_some() || inner.has_defaults);
        schema.has_defaults = has_defaults;
        schema
    }

    /// The schemas of properties, values and items.
    pub fn inner(&self) -> impl Iterator<Item = &Schema> {
        let additional = match &self.additional {
            Some(Additional::Schema(schema)) => Some(&**schema),
            _ => None,
        };
        self.properties.values().chain(additional).chain(self.items.as_deref())
    }

    /// The schema of the values of a map.
    pub fn values(&self) -> Option<&Schema> {
        match &self.additional {
            Some(Additional::Schema(schema)) => Some(schema),
            _ => None,
        }
    }

    /// The schema of a member.
    pub fn member(&self, name: &str) -> Option<&Schema> {
        self.properties.get(name).or(match &self.additional {
            Some(Additional::Schema(schema)) => Some(schema),
            _ => None,
        })
    }

    /// Compiles the rules of this node and of all below.
    fn compile_rules(&mut self, json: &Value, root: bool) {
        for (name, property) in &mut self.properties {
            property.compile_rules(&json["properties"][name], false);
        }
        if let Some(Additional::Schema(schema)) = &mut self.additional {
            schema.compile_rules(&json["additionalProperties"], false);
        }
        if let Some(items) = &mut self.items {
            items.compile_rules(&json["items"], false);
        }
        self.rules = json["x-kubernetes-validations"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|rule| Rule::new(rule, self, root))
            .collect();
        let below = self.inner().any(|inner| inner.has_rules);
        self.has_rules = below || !self.rules.is_empty();
    }
}

impl Checks {
    fn parse(json: &Value) -> Checks {
        let count = |name: &str| json[name].as_u64();
        let bound = |name: &str, exclusive: &str| json[name].as_f64().map(|bound| (bound, json[exclusive] == true));
        Checks {
            format: json["format"]
                .as_str()
                .filter(|format| super::formats::is_of_type(format, "string"))
                .map(str::to_owned),
            number_format: ["int32", "int64", "float", "double"].into_iter().find(|format| json["format"] == *format),
            one_of: json["enum"].as_array().filter(|values| !values.is_empty()).cloned(),
            pattern: json["pattern"]
                .as_str()
                .filter(|p| !p.is_empty())
                .map(|pattern| (pattern.to_owned(), super::pattern::compile(pattern).ok())),
            max_length: count("maxLength"),
            min_length: count("minLength"),
            maximum: bound("maximum", "exclusiveMaximum"),
            minimum: bound("minimum", "exclusiveMinimum"),
            multiple_of: json["multipleOf"].as_f64(),
            max_items: count("maxItems"),
            min_items: count("minItems"),
            unique_items: json["uniqueItems"] == true,
            max_properties: count("maxProperties"),
            min_properties: count("minProperties"),
            required: texts(&json["required"]),
        }
    }
}

fn children(json: &Value) -> BTreeMap<String, Schema> {
    json.as_object()
        .into_iter()
        .flatten()
        .map(|(name, schema)| (name.clone(), Schema::parse_without_rules(schema)))
        .collect()
}

fn list(json: &Value) -> Vec<Schema> {
    json.as_array().into_iter().flatten().map(Schema::parse_without_rules).collect()
}

fn texts(json: &Value) -> Vec<String> {
    json.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn additional(json: &Value) -> Option<Additional> {
    match json {
        Value::Bool(true) => Some(Additional::Any),
        Value::Object(_) => Some(Additional::Schema(Box::new(Schema::parse_without_rules(json)))),
        _ => None,
    }
}

fn list_type(json: &Value) -> Option<ListType> {
    Some(match json["x-kubernetes-list-type"].as_str()? {
        "set" => ListType::Set,
        "map" => ListType::Map(texts(&json["x-kubernetes-list-map-keys"]).into_iter().map(Cow::Owned).collect()),
        _ => ListType::Atomic,
    })
}
