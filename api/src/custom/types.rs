//! From a structural schema to the [`Type`] that decoding, patching and field ownership go by.

use std::sync::Arc;

use super::schema::{Additional, JsonType, Schema};
use crate::schema::{Conformance, Field, ListType, Scalar, Struct, Type, UnknownFields, built_in};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The type of a version's objects; `name` is their OpenAPI definition (`com.example.v1.Pg`).
pub fn object_type(name: &str, schema: &Schema) -> Arc<Struct> {
    structure(name.to_owned(), schema, true)
}

fn structure(name: String, schema: &Schema, resource: bool) -> Arc<Struct> {
    let keeps = schema.preserve_unknown || matches!(schema.additional, Some(Additional::Any));
    let mut fields: Vec<Field> = schema
        .properties
        .iter()
        .filter(|(name, _)| !(resource && matches!(name.as_str(), "metadata" | "apiVersion" | "kind")))
        .map(|(property, inner)| field(format!("{name}.{property}"), property, inner, &schema.checks.required))
        .collect();
    if resource {
        fields.push(Field::new("apiVersion", Type::Scalar(Scalar::String)));
        fields.push(Field::new("kind", Type::Scalar(Scalar::String)));
        if let Some(metadata) = built_in().definition(OBJECT_META) {
            fields.push(Field::new("metadata", Type::Struct(Arc::clone(metadata))));
        }
    }
    let unknown = if keeps { UnknownFields::Keep } else { UnknownFields::Drop };
    Struct::new(name, fields, unknown, Conformance::Structural, schema.atomic)
}

fn field(path: String, name: &str, schema: &Schema, required: &[String]) -> Field {
    let mut field = Field::new(name.to_owned(), of(path, schema));
    field.required = required.iter().any(|one| one == name);
    field.atomic = schema.atomic;
    field.default.clone_from(&schema.default);
    field
}

fn of(path: String, schema: &Schema) -> Type {
    if schema.int_or_string {
        return Type::Scalar(Scalar::IntOrString);
    }
    match schema.ty {
        Some(JsonType::Object) => object(path, schema),
        Some(JsonType::Array) => {
            let element = schema.items.as_ref().map_or(Type::Scalar(Scalar::Any), |items| of(path, items));
            Type::list(element, schema.list_type.clone().unwrap_or(ListType::Atomic))
        }
        Some(JsonType::String) => Type::Scalar(Scalar::String),
        Some(JsonType::Integer) => Type::Scalar(Scalar::Int64),
        Some(JsonType::Number) => Type::Scalar(Scalar::Double),
        Some(JsonType::Boolean) => Type::Scalar(Scalar::Bool),
        None => Type::Scalar(Scalar::Any),
    }
}

fn object(path: String, schema: &Schema) -> Type {
    if schema.embedded {
        return Type::Struct(structure(path, schema, true));
    }
    match &schema.additional {
        Some(Additional::Schema(values)) if schema.properties.is_empty() => Type::map(of(path, values)),
        Some(Additional::Any) if schema.properties.is_empty() => Type::map(Type::Scalar(Scalar::Any)),
        // What is not described is not looked into, so that owners of its parts are known by name alone.
        _ if schema.preserve_unknown && schema.properties.is_empty() => Type::map(Type::Scalar(Scalar::Any)),
        _ => Type::Struct(structure(path, schema, false)),
    }
}
