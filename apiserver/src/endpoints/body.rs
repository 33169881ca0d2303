//! Request bodies: bounded, and decoded by their media type.

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use minik8s_api::decode::{Expected, FieldValidation, Format, decode, duplicate_fields, yaml_duplicates, yaml_to_json};
use minik8s_api::kinds::{GroupVersionKind, Kind};
use minik8s_api::status::Status;
use minik8s_api::strategy::strategy_for;
use serde_json::{Map, Value};

use crate::negotiate::{self, Encoding};
use crate::registry::Context;
use crate::registry::patch::{Patch, PatchType};

/// The largest body (`k8s.io/apiserver/pkg/server/config.go` `MaxRequestBodyBytes`).
pub const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;

/// Reads a whole body, up to [`MAX_BODY_BYTES`].
pub async fn read(body: Body) -> Result<Bytes, Status> {
    match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => Err(Status::too_large(MAX_BODY_BYTES)),
        Err(error) => Err(Status::bad_request(format!("the request body could not be read: {error}"))),
    }
}

/// Decodes an object of a kind, and sets its defaults. Unknown fields are refused or warned of, as `validation` says.
pub fn object(
    context: &Context,
    kind: &Kind,
    headers: &HeaderMap,
    bytes: &[u8],
    validation: FieldValidation,
) -> Result<Value, Status> {
    let mut object = decoded(context, &Expected::kind(kind), headers, bytes, validation)?;
    strategy_for(kind).set_defaults(&mut object);
    context.audit.request_object(&object);
    Ok(object)
}

/// Decodes a body whose kind is that of a subresource.
pub fn object_of(
    context: &Context,
    gvk: GroupVersionKind,
    headers: &HeaderMap,
    bytes: &[u8],
    validation: FieldValidation,
) -> Result<Value, Status> {
    let expected = Expected::built_in(gvk).ok_or_else(Status::unknown_resource)?;
    let object = decoded(context, &expected, headers, bytes, validation)?;
    context.audit.request_object(&object);
    Ok(object)
}

/// Decodes options that a client sent as a body, in whatever group it thinks them.
pub fn options(context: &Context, kind: &str, headers: &HeaderMap, bytes: &[u8]) -> Result<Value, Status> {
    let expected = Expected::options(kind).ok_or_else(Status::unknown_resource)?;
    let options = decoded(context, &expected, headers, bytes, FieldValidation::Ignore)?;
    context.audit.request_object(&options);
    Ok(options)
}

fn decoded(
    context: &Context,
    expected: &Expected,
    headers: &HeaderMap,
    bytes: &[u8],
    validation: FieldValidation,
) -> Result<Value, Status> {
    let format = match negotiate::body_encoding(headers, !expected.custom)? {
        Encoding::Json => Format::Json,
        Encoding::Yaml => Format::Yaml,
        Encoding::Protobuf => Format::Protobuf,
    };
    let decoded = decode(bytes, format, expected, validation)?;
    for warning in decoded.warnings {
        context.warnings.add(warning);
    }
    Ok(decoded.object)
}

/// Reads a patch. Custom resources know no strategic merge.
pub fn patch(kind: &Kind, headers: &HeaderMap, bytes: &[u8]) -> Result<Patch, Status> {
    let patch_type = patch_type(kind, headers)?;
    if patch_type == PatchType::Apply {
        let body = applied(bytes).map_err(|why| Status::bad_request(format!("error decoding patch: {why}")))?;
        return Ok(Patch { patch_type, body, duplicates: yaml_duplicates(bytes) });
    }
    let body = serde_json::from_slice(bytes).map_err(|_| Status::bad_request("invalid JSON patch"))?;
    let duplicates = if patch_type == PatchType::Json { Vec::new() } else { duplicate_fields(bytes) };
    Ok(Patch { patch_type, body, duplicates })
}

/// Reads an apply configuration; an empty one is an object without fields (`sigs.k8s.io/yaml` `Unmarshal`).
fn applied(bytes: &[u8]) -> Result<Value, String> {
    let value = yaml_to_json(bytes).map_err(|why| format!("error converting YAML to JSON: {why}"))?;
    let of = match value {
        Value::Object(_) => return Ok(value),
        Value::Null => return Ok(Value::Object(Map::new())),
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
    };
    let why = format!("json: cannot unmarshal {of} into Go value of type map[string]interface {{}}");
    Err(format!("error unmarshaling JSON: while decoding JSON: {why}"))
}

/// The type of a patch, by its media type.
pub fn patch_type(kind: &Kind, headers: &HeaderMap) -> Result<PatchType, Status> {
    const JSON: &str = "application/json-patch+json";
    const MERGE: &str = "application/merge-patch+json";
    const STRATEGIC: &str = "application/strategic-merge-patch+json";
    const APPLY: &str = "application/apply-patch+yaml";
    match negotiate::body_media_type(headers).as_str() {
        JSON => Ok(PatchType::Json),
        MERGE => Ok(PatchType::Merge),
        STRATEGIC if !kind.custom => Ok(PatchType::Strategic),
        APPLY => Ok(PatchType::Apply),
        _ if kind.custom => Err(Status::unsupported_media_type(&[JSON, MERGE, APPLY])),
        // go-restful's words: the route takes none of it.
        _ => Err(Status::unsupported_by_route()),
    }
}
