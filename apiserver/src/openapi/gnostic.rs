//! OpenAPI version 2 in protobuf, for clients that take nothing else: client-go's `OpenAPISchema()`, and with it whoever
//! extracts an applied configuration of an untyped object.
//!
//! The messages are those of gnostic's `openapiv2/OpenAPIv2.proto`; the tables below hold the fields that the documents
//! of Kubernetes use. A member of a JSON object that begins with `x-` goes among the vendor extensions, as YAML, of which
//! JSON is a part.

use serde_json::{Map, Value};

/// The fields of a message that a JSON object becomes.
struct Message {
    fields: &'static [(&'static str, u32, Form)],
    /// The number of the field of `x-` members.
    extensions: u32,
}

/// How a member of a JSON object is written.
enum Form {
    /// A string.
    Text,
    /// Strings, one by one; a string alone counts as one.
    Texts,
    /// True or false.
    Flag,
    /// A whole number.
    Integer,
    /// Any JSON.
    Any,
    /// Strings in a message of their own: `TypeItem`.
    Words,
    /// A message.
    Object(&'static Message),
    /// Messages, one by one.
    Objects(&'static Message),
    /// A message in the only field, with this number, of a message: `ItemsItem`, or one choice of a `oneof`.
    Within(u32, &'static Message),
    /// A message whose repeated field with this number holds a name and a message each.
    Named(u32, &'static Message),
    /// The same, each message being one choice, with this number, of a `oneof`: `Responses`.
    NamedWithin(u32, u32, &'static Message),
    /// A repeated choice between parameters.
    Parameters,
}

static DOCUMENT: Message = Message {
    fields: &[
        ("swagger", 1, Form::Text),
        ("info", 2, Form::Object(&INFO)),
        ("paths", 8, Form::Named(2, &PATH_ITEM)),
        ("definitions", 9, Form::Named(1, &SCHEMA)),
    ],
    extensions: 16,
};

static INFO: Message = Message {
    fields: &[("title", 1, Form::Text), ("version", 2, Form::Text), ("description", 3, Form::Text)],
    extensions: 7,
};

static PATH_ITEM: Message = Message {
    fields: &[
        ("get", 2, Form::Object(&OPERATION)),
        ("put", 3, Form::Object(&OPERATION)),
        ("post", 4, Form::Object(&OPERATION)),
        ("delete", 5, Form::Object(&OPERATION)),
        ("options", 6, Form::Object(&OPERATION)),
        ("head", 7, Form::Object(&OPERATION)),
        ("patch", 8, Form::Object(&OPERATION)),
        ("parameters", 9, Form::Parameters),
    ],
    extensions: 10,
};

static OPERATION: Message = Message {
    fields: &[
        ("tags", 1, Form::Texts),
        ("summary", 2, Form::Text),
        ("description", 3, Form::Text),
        ("operationId", 5, Form::Text),
        ("produces", 6, Form::Texts),
        ("consumes", 7, Form::Texts),
        ("parameters", 8, Form::Parameters),
        ("responses", 9, Form::NamedWithin(1, 1, &RESPONSE)),
        ("schemes", 10, Form::Texts),
        ("deprecated", 11, Form::Flag),
    ],
    extensions: 13,
};

static RESPONSE: Message =
    Message { fields: &[("description", 1, Form::Text), ("schema", 2, Form::Within(1, &SCHEMA))], extensions: 5 };

static BODY_PARAMETER: Message = Message {
    fields: &[
        ("description", 1, Form::Text),
        ("name", 2, Form::Text),
        ("in", 3, Form::Text),
        ("required", 4, Form::Flag),
        ("schema", 5, Form::Object(&SCHEMA)),
    ],
    extensions: 6,
};

static QUERY_PARAMETER: Message = Message {
    fields: &[
        ("required", 1, Form::Flag),
        ("in", 2, Form::Text),
        ("description", 3, Form::Text),
        ("name", 4, Form::Text),
        ("type", 6, Form::Text),
        ("format", 7, Form::Text),
        ("uniqueItems", 20, Form::Flag),
    ],
    extensions: 23,
};

static PATH_PARAMETER: Message = Message {
    fields: &[
        ("required", 1, Form::Flag),
        ("in", 2, Form::Text),
        ("description", 3, Form::Text),
        ("name", 4, Form::Text),
        ("type", 5, Form::Text),
        ("format", 6, Form::Text),
        ("uniqueItems", 19, Form::Flag),
    ],
    extensions: 22,
};

static SCHEMA: Message = Message {
    fields: &[
        ("$ref", 1, Form::Text),
        ("format", 2, Form::Text),
        ("title", 3, Form::Text),
        ("description", 4, Form::Text),
        ("default", 5, Form::Any),
        ("maxLength", 11, Form::Integer),
        ("minLength", 12, Form::Integer),
        ("pattern", 13, Form::Text),
        ("maxItems", 14, Form::Integer),
        ("minItems", 15, Form::Integer),
        ("uniqueItems", 16, Form::Flag),
        ("maxProperties", 17, Form::Integer),
        ("minProperties", 18, Form::Integer),
        ("required", 19, Form::Texts),
        ("additionalProperties", 21, Form::Within(1, &SCHEMA)),
        ("type", 22, Form::Words),
        ("items", 23, Form::Within(1, &SCHEMA)),
        ("allOf", 24, Form::Objects(&SCHEMA)),
        ("properties", 25, Form::Named(1, &SCHEMA)),
        ("readOnly", 27, Form::Flag),
    ],
    extensions: 31,
};

/// The wire types of protobuf that are needed here.
const VARINT: u32 = 0;
const LENGTH_DELIMITED: u32 = 2;
/// The fields of `Any`, of the messages `Named…`, and of `ParametersItem` → `Parameter` → `NonBodyParameter`.
const ANY_YAML: u32 = 2;
const NAME: u32 = 1;
const VALUE: u32 = 2;
const PARAMETER: u32 = 1;
const BODY: u32 = 1;
const NON_BODY: u32 = 2;
const QUERY: u32 = 3;
const PATH: u32 = 4;

/// A document of OpenAPI version 2 as gnostic's `Document`.
pub fn encode(document: &Value) -> Vec<u8> {
    object(document, &DOCUMENT)
}

fn object(value: &Value, message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    let Some(members) = value.as_object() else { return out };
    for (name, number, form) in message.fields {
        if let Some(value) = members.get(*name) {
            member(&mut out, *number, form, value);
        }
    }
    for (name, value) in members.iter().filter(|(name, _)| name.starts_with("x-")) {
        bytes(&mut out, message.extensions, &named(name, &any(value)));
    }
    out
}

fn member(out: &mut Vec<u8>, number: u32, form: &Form, value: &Value) {
    match form {
        Form::Text => bytes(out, number, value.as_str().unwrap_or_default().as_bytes()),
        Form::Texts => texts(out, number, value),
        Form::Flag => unsigned(out, number, u64::from(value.as_bool().unwrap_or_default())),
        // Two's complement, as protobuf writes an int64.
        Form::Integer => unsigned(out, number, value.as_i64().unwrap_or_default().cast_unsigned()),
        Form::Any => bytes(out, number, &any(value)),
        Form::Words => {
            let mut words = Vec::new();
            texts(&mut words, 1, value);
            bytes(out, number, &words);
        }
        Form::Object(message) => bytes(out, number, &object(value, message)),
        Form::Objects(message) => {
            for item in value.as_array().into_iter().flatten() {
                bytes(out, number, &object(item, message));
            }
        }
        // `additionalProperties: true` is the other choice.
        Form::Within(_, _) if value.is_boolean() => {
            let mut choice = Vec::new();
            unsigned(&mut choice, 2, u64::from(value == &Value::Bool(true)));
            bytes(out, number, &choice);
        }
        Form::Within(inner, message) => bytes(out, number, &wrapped(*inner, &object(value, message))),
        Form::Named(inner, message) => names(out, number, *inner, value, |item| object(item, message)),
        Form::NamedWithin(inner, choice, message) => {
            names(out, number, *inner, value, |item| wrapped(*choice, &object(item, message)));
        }
        Form::Parameters => {
            for item in value.as_array().into_iter().flatten() {
                bytes(out, number, &wrapped(PARAMETER, &parameter(item)));
            }
        }
    }
}

fn parameter(value: &Value) -> Vec<u8> {
    match value["in"].as_str() {
        Some("body") => wrapped(BODY, &object(value, &BODY_PARAMETER)),
        Some("path") => wrapped(NON_BODY, &wrapped(PATH, &object(value, &PATH_PARAMETER))),
        _ => wrapped(NON_BODY, &wrapped(QUERY, &object(value, &QUERY_PARAMETER))),
    }
}

fn names(out: &mut Vec<u8>, number: u32, inner: u32, value: &Value, write: impl Fn(&Value) -> Vec<u8>) {
    let mut all = Vec::new();
    for (name, item) in value.as_object().into_iter().flat_map(Map::iter) {
        bytes(&mut all, inner, &named(name, &write(item)));
    }
    bytes(out, number, &all);
}

fn texts(out: &mut Vec<u8>, number: u32, value: &Value) {
    let items = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    for text in items.iter().filter_map(Value::as_str) {
        bytes(out, number, text.as_bytes());
    }
}

fn any(value: &Value) -> Vec<u8> {
    // gnostic ends YAML in a line end, and readers may want one.
    wrapped(ANY_YAML, format!("{value}\n").as_bytes())
}

fn named(name: &str, value: &[u8]) -> Vec<u8> {
    let mut out = wrapped(NAME, name.as_bytes());
    bytes(&mut out, VALUE, value);
    out
}

fn wrapped(number: u32, inner: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(inner.len() + 6);
    bytes(&mut out, number, inner);
    out
}

fn bytes(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    varint(out, u64::from(number << 3 | LENGTH_DELIMITED));
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn unsigned(out: &mut Vec<u8>, number: u32, value: u64) {
    varint(out, u64::from(number << 3 | VARINT));
    varint(out, value);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_is_written_field_by_field() {
        let schema =
            json!({"type": "object", "$ref": "#/d", "minLength": 300, "x-k": ["a"], "items": {"type": "string"}});
        let expected = [
            b"\x0a\x03#/d".as_slice(),
            b"\x60\xac\x02",
            b"\xb2\x01\x08\x0a\x06object",
            b"\xba\x01\x0d\x0a\x0b\xb2\x01\x08\x0a\x06string",
            b"\xfa\x01\x0f\x0a\x03x-k\x12\x08\x12\x06[\"a\"]\n",
        ];
        assert_eq!(object(&schema, &SCHEMA), expected.concat());
    }

    #[test]
    fn the_whole_document_keeps_every_path() {
        let document =
            json!({"swagger": "2.0", "paths": {"/version/": {"get": {"operationId": "v", "responses": {}}}}});
        let encoded = encode(&document);
        assert!(encoded.starts_with(b"\x0a\x032.0"));
        let path = b"/version/";
        assert!(encoded.windows(path.len()).any(|window| window == path));
    }
}
