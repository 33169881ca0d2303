//! Tables and bare metadata: the forms in which kubectl and garbage collectors ask for objects.
//!
//! `k8s.io/apiserver/pkg/endpoints/handlers/response.go`.

use jiff::Timestamp;
use minik8s_api::kinds::Kind;
use minik8s_api::status::Status;
use minik8s_api::table;
use serde_json::{Map, Value, json};

use crate::negotiate::MetaVersion;
use crate::query::Query;

/// What of the object a row carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// Its metadata.
    Metadata,
    /// All of it.
    Object,
}

impl IncludeObject {
    /// Reads `includeObject`.
    pub fn parse(query: &Query) -> Result<IncludeObject, Status> {
        match query.get("includeObject").unwrap_or_default() {
            "" | "Metadata" => Ok(IncludeObject::Metadata),
            "None" => Ok(IncludeObject::None),
            "Object" => Ok(IncludeObject::Object),
            other => Err(Status::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', 'Object', 'None', or empty"
            ))),
        }
    }
}

/// A Table of objects; `columns`: with its column definitions, which a watch sends only once.
pub fn of(
    kind: &Kind,
    metadata: Map<String, Value>,
    objects: &[Value],
    include: IncludeObject,
    columns: bool,
    (version, now): (MetaVersion, Timestamp),
) -> Value {
    let definitions = if columns { table::column_definitions(kind) } else { Value::Null };
    let cells = table::rows(kind, objects, now);
    let rows = objects.iter().zip(cells).map(|(object, cells)| {
        let mut row = row(object, cells, include, version);
        if let Some(conditions) = table::row_conditions(kind, object) {
            row["conditions"] = conditions;
        }
        row
    });
    with_rows(definitions, metadata, rows.collect(), version)
}

/// The Table of a Scale.
pub fn of_scale(
    scale: &Value,
    metadata: Map<String, Value>,
    include: IncludeObject,
    (version, now): (MetaVersion, Timestamp),
) -> Value {
    let row = row(scale, table::scale_row(scale, now), include, version);
    with_rows(table::scale_column_definitions(), metadata, vec![row], version)
}

fn row(object: &Value, cells: Vec<Value>, include: IncludeObject, version: MetaVersion) -> Value {
    let object = match include {
        IncludeObject::None => Value::Null,
        IncludeObject::Metadata => partial_metadata(object, version),
        IncludeObject::Object => object.clone(),
    };
    json!({ "cells": cells, "object": object })
}

fn with_rows(definitions: Value, metadata: Map<String, Value>, rows: Vec<Value>, version: MetaVersion) -> Value {
    json!({ "kind": "Table", "apiVersion": version.api_version(), "metadata": metadata, "columnDefinitions": definitions, "rows": rows })
}

/// An object without anything but its metadata.
pub fn partial_metadata(object: &Value, version: MetaVersion) -> Value {
    json!({ "kind": "PartialObjectMetadata", "apiVersion": version.api_version(), "metadata": object["metadata"] })
}
