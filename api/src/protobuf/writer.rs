//! From values to messages.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::ProtobufError;
use super::wire::{put_bytes, put_double, put_int};
use crate::schema::{Field, Scalar, Struct, Type, WireTarget};
use crate::time;

pub(super) fn message(of: &Struct, value: &Value) -> Result<Vec<u8>, ProtobufError> {
    let object = value.as_object().ok_or_else(|| ProtobufError::Value(of.go_name()))?;
    let mut out = Vec::new();
    fields(of, object, &mut out)?;
    Ok(out)
}

fn fields(of: &Struct, object: &Map<String, Value>, out: &mut Vec<u8>) -> Result<(), ProtobufError> {
    for wire in of.wire() {
        match &wire.target {
            WireTarget::Inline(inner) => {
                let mut embedded = Vec::new();
                fields(inner, object, &mut embedded)?;
                put_bytes(out, wire.number, &embedded);
            }
            WireTarget::Field(index) => {
                let field = &of.fields()[*index];
                if let Some(value) = object.get(field.name.as_ref()).filter(|value| !value.is_null()) {
                    put_field(field, wire.number, value, out)?;
                }
            }
        }
    }
    Ok(())
}

fn put_field(field: &Field, number: u32, value: &Value, out: &mut Vec<u8>) -> Result<(), ProtobufError> {
    match (&field.ty, value) {
        (Type::List(list), Value::Array(array)) if !list.wrapped => {
            for element in array {
                put_value(field, &list.element, number, element, out)?;
            }
        }
        (Type::Map(map), Value::Object(object)) => {
            for (key, value) in object {
                let mut entry = Vec::new();
                put_bytes(&mut entry, 1, key.as_bytes());
                if !value.is_null() {
                    put_value(field, &map.value, 2, value, &mut entry)?;
                }
                put_bytes(out, number, &entry);
            }
        }
        (ty, value) => put_value(field, ty, number, value, out)?,
    }
    Ok(())
}

fn put_value(field: &Field, ty: &Type, number: u32, value: &Value, out: &mut Vec<u8>) -> Result<(), ProtobufError> {
    let wrong = || ProtobufError::Value(field.name.to_string());
    match (ty, value) {
        (Type::Struct(of), value) => put_bytes(out, number, &message(of, value)?),
        // A list of strings in a message of its own (`ExtraValue`).
        (Type::List(_), Value::Array(array)) => {
            let mut items = Vec::new();
            for item in array {
                put_bytes(&mut items, 1, item.as_str().ok_or_else(wrong)?.as_bytes());
            }
            put_bytes(out, number, &items);
        }
        (Type::Either(either), value) => {
            let other_number = 3 - either.object_number;
            let mut inner = Vec::new();
            match (value, &either.other) {
                (Value::Object(_), _) => {
                    // `JSONSchemaPropsOrBool.allows` is true beside a schema.
                    if matches!(either.other, Type::Scalar(Scalar::Bool)) {
                        put_int(&mut inner, other_number, 1);
                    }
                    put_value(field, &either.object, either.object_number, value, &mut inner)?;
                }
                (Value::Array(array), Type::List(list)) => {
                    for element in array {
                        put_value(field, &list.element, other_number, element, &mut inner)?;
                    }
                }
                (value, other) => put_value(field, other, other_number, value, &mut inner)?,
            }
            put_bytes(out, number, &inner);
        }
        (Type::Scalar(scalar), value) => put_scalar(*scalar, number, value, out).ok_or_else(wrong)?,
        _ => return Err(wrong()),
    }
    Ok(())
}

fn put_scalar(scalar: Scalar, number: u32, value: &Value, out: &mut Vec<u8>) -> Option<()> {
    let mut inner = Vec::new();
    match scalar {
        Scalar::String => put_bytes(out, number, value.as_str()?.as_bytes()),
        Scalar::Bool => put_int(out, number, value.as_bool()?.into()),
        Scalar::Int32 | Scalar::Int64 => put_int(out, number, value.as_i64()?),
        Scalar::Double => put_double(out, number, value.as_f64()?),
        Scalar::Bytes => put_bytes(out, number, &STANDARD.decode(value.as_str()?).ok()?),
        Scalar::Quantity => {
            put_bytes(&mut inner, 1, value.as_str()?.as_bytes());
            put_bytes(out, number, &inner);
        }
        Scalar::IntOrString => {
            match value {
                Value::String(text) => {
                    put_int(&mut inner, 1, 1);
                    put_int(&mut inner, 2, 0);
                    put_bytes(&mut inner, 3, text.as_bytes());
                }
                number => {
                    put_int(&mut inner, 1, 0);
                    put_int(&mut inner, 2, number.as_i64()?);
                    put_bytes(&mut inner, 3, b"");
                }
            }
            put_bytes(out, number, &inner);
        }
        Scalar::Time | Scalar::MicroTime => {
            if let Value::String(text) = value {
                let time = time::parse(text).ok()?;
                put_int(&mut inner, 1, time.as_second());
                put_int(&mut inner, 2, time.subsec_nanosecond().into());
            }
            put_bytes(out, number, &inner);
        }
        Scalar::Duration => {
            let duration = time::parse_duration(value.as_str()?).ok()?;
            put_int(&mut inner, 1, i64::try_from(duration.as_nanos()).ok()?);
            put_bytes(out, number, &inner);
        }
        Scalar::Any | Scalar::FieldsV1 => {
            put_bytes(&mut inner, 1, value.to_string().as_bytes());
            put_bytes(out, number, &inner);
        }
    }
    Some(())
}
