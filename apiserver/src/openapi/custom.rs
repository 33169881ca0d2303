//! Custom resources in OpenAPI: the schema as its definition has it, with what every object has around it.
//!
//! `apiextensions-apiserver/pkg/controller/openapi/builder/builder.go`, `v2/conversion.go`.

use minik8s_api::kinds::Kind;
use serde_json::{Map, Value, json};

use super::definitions::Dialect;
use super::descriptions;

/// Whose words describe `apiVersion`, `kind` and `metadata`.
const ANY_OBJECT: &str = "io.k8s.api.core.v1.Pod";
const ANY_LIST: &str = "io.k8s.api.core.v1.PodList";

/// What version 2 has no words for.
const NOT_IN_V2: [&str; 6] = ["allOf", "anyOf", "oneOf", "not", "default", "x-kubernetes-validations"];

/// The definition of a kind's objects; `metadata` refers to ObjectMeta.
pub fn object(kind: &Kind, dialect: Dialect, metadata: Value) -> Value {
    let mut schema = match &kind.definition {
        Some(definition) => definition.published.clone(),
        None => json!({ "type": "object" }),
    };
    if dialect == Dialect::V2 {
        schema = reduced(schema);
    }
    if !schema.is_object() {
        schema = json!({ "type": "object" });
    }
    describe(&mut schema, ANY_OBJECT, metadata, dialect);
    schema["x-kubernetes-group-version-kind"] =
        json!([{ "group": kind.group, "kind": kind.kind, "version": kind.version }]);
    schema
}

/// The definition of its lists; `metadata` refers to ListMeta, `item` to the objects.
pub fn list(kind: &Kind, dialect: Dialect, metadata: Value, item: Value) -> Value {
    let name = &kind.list_kind;
    let description = format!("{} is a list of {}", name, kind.kind);
    let items = format!(
        "List of {}. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md",
        kind.plural
    );
    let mut schema = json!({
        "description": description,
        "type": "object",
        "required": ["items"],
        "properties": { "items": { "description": items, "type": "array", "items": item } },
        "x-kubernetes-group-version-kind": [{ "group": kind.group, "kind": name, "version": kind.version }],
    });
    describe(&mut schema, ANY_LIST, metadata, dialect);
    schema
}

/// Adds what every object has.
fn describe(schema: &mut Value, like: &str, metadata: Value, dialect: Dialect) {
    let words = |field: &str| descriptions::of_field(like, field).map(|text| json!(text));
    let text = |field: &str| {
        let mut property = json!({ "type": "string" });
        if let Some(words) = words(field) {
            property["description"] = words;
        }
        property
    };
    let (version, kind) = (text("apiVersion"), text("kind"));
    let mut metadata = if dialect == Dialect::V3 { json!({ "allOf": [metadata] }) } else { metadata };
    if let Some(words) = words("metadata") {
        metadata["description"] = words;
    }
    let properties = &mut schema["properties"];
    if !properties.is_object() {
        *properties = Value::Object(Map::new());
    }
    properties["apiVersion"] = version;
    properties["kind"] = kind;
    properties["metadata"] = metadata;
}

/// A schema in the words of version 2. Clients that validate by it must not refuse what the server takes.
fn reduced(schema: Value) -> Value {
    let Value::Object(mut schema) = schema else { return schema };
    for name in NOT_IN_V2 {
        schema.remove(name);
    }
    let nullable = schema.remove("nullable") == Some(Value::Bool(true));
    let open = schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    if nullable || open {
        for name in ["items", "properties", "additionalProperties", "required"] {
            schema.remove(name);
        }
    }
    if nullable {
        schema.remove("type");
    }
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for property in properties.values_mut() {
            *property = reduced(property.take());
        }
    }
    for name in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get_mut(name) {
            *inner = reduced(inner.take());
        }
    }
    Value::Object(schema)
}
