//! Custom resources in OpenAPI: the schema as its definition has it, with what every object has around it.
//!
//! `apiextensions-apiserver/pkg/controller/openapi/builder/builder.go`, `v2/conversion.go`.

use minik8s_api::kinds::Kind;
use serde_json::{Map, Value, json};

use super::definitions::Dialect;
use super::descriptions;

/// What the objects of a kind can be selected by.
fn add_selectable_fields(schema: &mut Value, kind: &Kind) {
    let fields = kind.definition.iter().flat_map(|definition| &definition.selectable);
    let fields: Vec<Value> = fields.map(|(label, _)| json!({ "fieldPath": label })).collect();
    if !fields.is_empty() {
        schema["x-kubernetes-selectable-fields"] = Value::Array(fields);
    }
}

/// Whose words describe `apiVersion`, `kind` and `metadata`.
const ANY_OBJECT: &str = "io.k8s.api.core.v1.Pod";

/// What version 2 has no words for.
const NOT_IN_V2: [&str; 5] = ["allOf", "anyOf", "oneOf", "not", "default"];
const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
const EMBEDDED: &str = "x-kubernetes-embedded-resource";

/// The definition of a kind's objects; `metadata` refers to ObjectMeta.
pub fn object(kind: &Kind, dialect: Dialect, metadata: Value) -> Value {
    let published =
        kind.definition.as_ref().map(|definition| &definition.published).filter(|schema| schema.is_object());
    let mut schema = match published {
        // By version 2 kubectl would refuse all fields but those that are named, the metadata included.
        Some(schema) if dialect == Dialect::V2 && is_set(schema, PRESERVE) => json!({ "type": "object" }),
        Some(schema) => {
            let mut schema = schema.clone();
            if dialect == Dialect::V2 {
                reduce(&mut schema);
            }
            embed(&mut schema, &metadata, dialect);
            describe(&mut schema, false, metadata, dialect);
            schema
        }
        None => json!({ "type": "object" }),
    };
    schema["x-kubernetes-group-version-kind"] =
        json!([{ "group": kind.group, "kind": kind.kind, "version": kind.version }]);
    add_selectable_fields(&mut schema, kind);
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
    describe(&mut schema, true, metadata, dialect);
    add_selectable_fields(&mut schema, kind);
    schema
}

/// Adds what every object has, or every list.
fn describe(schema: &mut Value, of_list: bool, metadata: Value, dialect: Dialect) {
    let words = |field: &str| descriptions::of_field(ANY_OBJECT, field).map(|text| json!(text));
    let text = |field: &str| {
        let mut property = json!({ "type": "string" });
        if let Some(words) = words(field) {
            property["description"] = words;
        }
        property
    };
    let (version, kind) = (text("apiVersion"), text("kind"));
    let mut metadata = if dialect == Dialect::V3 { json!({ "allOf": [metadata] }) } else { metadata };
    if let Some(words) = words("metadata").filter(|_| !of_list) {
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
fn reduce(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    for name in NOT_IN_V2 {
        fields.remove(name);
    }
    let nullable = fields.remove("nullable") == Some(Value::Bool(true));
    let open = fields.get(PRESERVE) == Some(&Value::Bool(true));
    // kubectl refuses unknown fields wherever some are known, and null wherever there is a type.
    if nullable || open {
        fields.remove("items");
        fields.remove("properties");
    }
    let of_type = |fields: &Map<String, Value>, wanted: &str| fields.get("type").is_some_and(|found| found == wanted);
    if nullable || (of_type(fields, "array") && !fields.contains_key("items")) || (open && of_type(fields, "object")) {
        fields.remove("type");
    }
    // What may be null cannot be asked for where null has no words.
    let optional: Vec<String> = match fields.get("properties") {
        Some(Value::Object(properties)) => {
            properties.iter().filter(|(_, field)| is_set(field, "nullable")).map(|(name, _)| name.clone()).collect()
        }
        _ => Vec::new(),
    };
    if fields.get("additionalProperties").is_some_and(|values| is_set(values, "nullable")) {
        fields.remove("required");
    }
    if let Some(Value::Array(required)) = fields.get_mut("required") {
        required.retain(|name| !optional.iter().any(|field| name == field));
        if required.is_empty() {
            fields.remove("required");
        }
    }
    each_child(fields, &mut reduce);
}

/// Adds to embedded objects what every object has.
fn embed(schema: &mut Value, metadata: &Value, dialect: Dialect) {
    let Value::Object(fields) = schema else { return };
    each_child(fields, &mut |child| embed(child, metadata, dialect));
    if !is_set(schema, EMBEDDED) || (dialect == Dialect::V2 && is_set(schema, PRESERVE)) {
        return;
    }
    describe(schema, false, metadata.clone(), dialect);
    let required = &mut schema["required"];
    if !required.is_array() {
        *required = json!([]);
    }
    let Value::Array(required) = required else { return };
    for field in ["kind", "apiVersion"] {
        if !required.iter().any(|name| name == field) {
            required.push(json!(field));
        }
    }
}

/// The schemas right below a schema.
fn each_child(schema: &mut Map<String, Value>, visit: &mut dyn FnMut(&mut Value)) {
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.values_mut().for_each(&mut *visit);
    }
    for name in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get_mut(name) {
            visit(inner);
        }
    }
}

fn is_set(schema: &Value, flag: &str) -> bool {
    schema.get(flag) == Some(&Value::Bool(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reduced(mut schema: Value) -> Value {
        reduce(&mut schema);
        schema
    }

    #[test]
    fn version_2_leaves_out_what_kubectl_would_refuse() {
        let open =
            json!({ "type": "object", PRESERVE: true, "properties": { "a": { "type": "string" } }, "required": ["a"] });
        assert_eq!(reduced(open), json!({ PRESERVE: true, "required": ["a"] }));
        let nullable = json!({
            "type": "object",
            "required": ["a", "b"],
            "properties": {
                "a": { "type": "string", "nullable": true, "default": "x" },
                "b": { "type": "array", "items": { "type": "string" }, PRESERVE: true },
            },
        });
        let expected =
            json!({ "type": "object", "required": ["b"], "properties": { "a": {}, "b": { PRESERVE: true } } });
        assert_eq!(reduced(nullable), expected);
    }

    #[test]
    fn embedded_objects_have_what_every_object_has() {
        let metadata = json!({ "$ref": "#/definitions/meta" });
        let schema = || json!({ "properties": { "t": { "type": "object", EMBEDDED: true, "required": ["spec"] } } });
        let mut embedded = schema();
        embed(&mut embedded, &metadata, Dialect::V2);
        let template = &embedded["properties"]["t"];
        assert_eq!(template["required"], json!(["spec", "kind", "apiVersion"]));
        assert_eq!(template["properties"]["kind"]["type"], "string");
        assert_eq!(template["properties"]["metadata"]["$ref"], "#/definitions/meta");

        let mut open = schema();
        open["properties"]["t"][PRESERVE] = json!(true);
        let before = open.clone();
        embed(&mut open, &metadata, Dialect::V2);
        assert_eq!(open, before, "kubectl would refuse its other fields");
    }
}
