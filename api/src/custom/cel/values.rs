//! JSON as CEL sees it, led by the schema. `k8s.io/apiserver/pkg/cel/common/values.go`.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cel::Value;
use cel::objects::{Key, Map, OptionalValue};
use serde_json::Value as Json;

use crate::custom::schema::{JsonType, Schema};

/// Words that CEL keeps for itself; a field of that name is read as `__name__`.
const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// How a field's name is written in an expression (`k8s.io/apiserver/pkg/cel/escaping.go`); `None` if it cannot be.
pub fn escaped(name: &str) -> Option<String> {
    if RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let first = name.chars().next()?;
    if !(first.is_ascii_alphabetic() || matches!(first, '_' | '.' | '-' | '/')) {
        return None;
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("__") {
            out.push_str("__underscores__");
            rest = after;
            continue;
        }
        match c {
            '.' => out.push_str("__dot__"),
            '-' => out.push_str("__dash__"),
            '/' => out.push_str("__slash__"),
            c if c.is_ascii_alphanumeric() || c == '_' => out.push(c),
            _ => return None,
        }
        rest = &rest[c.len_utf8()..];
    }
    Some(out)
}

/// A field's name, from how an expression writes it.
pub fn unescaped(name: &str) -> String {
    let inner = name.strip_prefix("__").and_then(|name| name.strip_suffix("__"));
    if let Some(word) = inner.filter(|word| RESERVED.contains(word)) {
        return word.to_owned();
    }
    const ESCAPES: [(&str, &str); 4] =
        [("__underscores__", "__"), ("__dot__", "."), ("__dash__", "-"), ("__slash__", "/")];
    let (mut out, mut rest) = (String::with_capacity(name.len()), name);
    while let Some(c) = rest.chars().next() {
        let (text, length) = match ESCAPES.iter().find(|(escape, _)| rest.starts_with(escape)) {
            Some((escape, text)) => ((*text).to_owned(), escape.len()),
            None => (c.to_string(), c.len_utf8()),
        };
        out.push_str(&text);
        rest = &rest[length..];
    }
    out
}

/// A value of an expression as JSON; `None` for what JSON has no form of.
pub fn to_json(value: &Value) -> Option<Json> {
    Some(match value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::from(*value),
        Value::Int(value) => Json::from(*value),
        Value::UInt(value) => Json::from(*value),
        Value::Float(value) => Json::from(*value),
        Value::String(text) => Json::from(text.as_str()),
        Value::Bytes(bytes) => Json::from(STANDARD.encode(bytes.as_slice())),
        Value::List(list) => Json::Array(list.iter().map(to_json).collect::<Option<_>>()?),
        Value::Map(map) => {
            let field = |(key, value): (&Key, &Value)| match key {
                Key::String(name) => Some((name.as_str().to_owned(), to_json(value)?)),
                _ => None,
            };
            Json::Object(map.map.iter().map(field).collect::<Option<_>>()?)
        }
        Value::Timestamp(time) => Json::from(time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)),
        _ => return None,
    })
}

/// A value of a schema. `resource`: an object with type and metadata of its own, of which rules see little.
pub fn value(schema: &Schema, json: &Json, resource: bool) -> Value {
    match (json, schema.ty) {
        (Json::Object(object), _) => {
            let resource = resource || schema.embedded;
            let fields = object.iter().filter(|(_, value)| !value.is_null()).filter_map(|(name, inner)| {
                if resource && matches!(name.as_str(), "apiVersion" | "kind") {
                    return Some((name.clone(), plain(inner)));
                }
                if resource && name == "metadata" {
                    return Some((name.clone(), metadata(inner)));
                }
                match schema.properties.get(name) {
                    Some(property) => Some((escaped(name)?, value(property, inner, false))),
                    None => Some((
                        name.clone(),
                        schema.member(name).map_or_else(|| plain(inner), |schema| value(schema, inner, false)),
                    )),
                }
            });
            map(fields.collect())
        }
        (Json::Array(list), _) => {
            let item =
                |item: &Json| schema.items.as_ref().map_or_else(|| plain(item), |items| value(items, item, false));
            Value::List(Arc::new(list.iter().map(item).collect()))
        }
        (Json::Number(number), Some(JsonType::Number)) => Value::Float(number.as_f64().unwrap_or_default()),
        (Json::String(text), Some(JsonType::String)) => formatted(schema.checks.format.as_deref(), text),
        _ => plain(json),
    }
}

/// Of metadata, rules see only the names.
fn metadata(json: &Json) -> Value {
    let names = ["name", "generateName"].into_iter();
    map(names.filter_map(|name| Some((name.to_owned(), plain(json.get(name)?)))).collect())
}

/// A map of fields.
#[expect(clippy::disallowed_types, reason = "CEL's maps are hashed; loops walk through them in order (`meter`)")]
pub fn map(fields: Vec<(String, Value)>) -> Value {
    let map: std::collections::HashMap<Key, Value> =
        fields.into_iter().map(|(name, value)| (Key::String(Arc::new(name)), value)).collect();
    Value::Map(Map { map: Arc::new(map) })
}

/// A text whose format is a type of CEL.
fn formatted(format: Option<&str>, text: &str) -> Value {
    let string = || Value::String(Arc::new(text.to_owned()));
    match format {
        Some("date-time" | "datetime") => {
            chrono::DateTime::parse_from_rfc3339(text).map_or_else(|_| string(), Value::Timestamp)
        }
        Some("date") => chrono::DateTime::parse_from_rfc3339(&format!("{text}T00:00:00Z"))
            .map_or_else(|_| string(), Value::Timestamp),
        Some("duration") => match crate::time::parse_duration(text) {
            Ok(duration) => i64::try_from(duration.as_nanos())
                .map_or_else(|_| string(), |nanos| Value::Duration(chrono::Duration::nanoseconds(nanos))),
            Err(_) => string(),
        },
        Some("byte") => STANDARD.decode(text).map_or_else(|_| string(), |bytes| Value::Bytes(Arc::new(bytes))),
        _ => string(),
    }
}

/// What may be there.
pub fn optional(value: Option<Value>) -> Value {
    Value::Opaque(Arc::new(value.map_or_else(OptionalValue::none, OptionalValue::of)))
}

/// A value that no schema describes.
pub fn plain(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => {
            number.as_i64().map_or_else(|| Value::Float(number.as_f64().unwrap_or_default()), Value::Int)
        }
        Json::String(text) => Value::String(Arc::new(text.clone())),
        Json::Array(list) => Value::List(Arc::new(list.iter().map(plain).collect())),
        Json::Object(object) => map(object.iter().map(|(name, value)| (name.clone(), plain(value))).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::{escaped, unescaped};

    #[test]
    fn names_are_escaped_as_kubernetes_escapes_them() {
        for (name, expected) in [
            ("namespace", Some("__namespace__")),
            ("a.b-c/d", Some("a__dot__b__dash__c__slash__d")),
            ("x__y", Some("x__underscores__y")),
            ("plain_name", Some("plain_name")),
            ("1st", None),
            ("ü", None),
        ] {
            assert_eq!(escaped(name).as_deref(), expected, "{name}");
            assert!(expected.is_none_or(|escaped| unescaped(escaped) == name), "{name}");
        }
    }
}
