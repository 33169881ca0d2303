//! From messages to values.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use super::wire::{Payload, Reader};
use super::{Envelope, MAGIC, ProtobufError, type_of, utf8};
use crate::decode::{MAX_DEPTH, raw_json};
use crate::quantity::Quantity;
use crate::schema::{Field, Scalar, Struct, Type, WireTarget, double, zero};
use crate::time;

/// An object with its envelope.
pub(super) fn object(bytes: &[u8], depth: usize) -> Result<Value, ProtobufError> {
    let envelope = Envelope::parse(bytes)?;
    let mut value = message(type_of(envelope.api_version, envelope.kind)?, envelope.raw, depth)?;
    value["apiVersion"] = envelope.api_version.into();
    value["kind"] = envelope.kind.into();
    Ok(value)
}

pub(super) fn message(of: &Struct, bytes: &[u8], depth: usize) -> Result<Value, ProtobufError> {
    if depth >= MAX_DEPTH {
        return Err(ProtobufError::Depth);
    }
    let mut fields = Map::new();
    read_fields(of, bytes, &mut fields, depth)?;
    fields.retain(|name, value| of.field(name).is_some_and(|field| field.is_written(value)));
    of.write_unset(&mut fields);
    Ok(Value::Object(fields))
}

/// Reads the fields of a message, and of those embedded in it, into one JSON object.
fn read_fields(of: &Struct, bytes: &[u8], into: &mut Map<String, Value>, depth: usize) -> Result<(), ProtobufError> {
    if depth >= MAX_DEPTH {
        return Err(ProtobufError::Depth);
    }
    let mut reader = Reader::new(bytes);
    while let Some((number, payload)) = reader.next()? {
        // Numbers that the table does not know come from newer clients; Go skips them, too.
        let Ok(at) = of.wire().binary_search_by_key(&number, |wire| wire.number) else {
            continue;
        };
        match &of.wire()[at].target {
            WireTarget::Inline(inner) => match payload {
                Payload::Bytes(bytes) => read_fields(inner, bytes, into, depth + 1)?,
                _ => return Err(wrong_type(of, &inner.go_name())),
            },
            WireTarget::Field(index) => read_field(of, &of.fields()[*index], payload, into, depth)?,
        }
    }
    Ok(())
}

fn wrong_type(of: &Struct, field: &str) -> ProtobufError {
    ProtobufError::WrongType { message: of.short_name().to_owned(), field: field.to_owned() }
}

fn read_field(
    of: &Struct,
    field: &Field,
    payload: Payload<'_>,
    into: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), ProtobufError> {
    let bytes = || match payload {
        Payload::Bytes(bytes) => Ok(bytes),
        _ => Err(wrong_type(of, &field.name)),
    };
    match &field.ty {
        Type::List(list) if !list.wrapped => {
            let slot = into.entry(field.name.as_ref()).or_insert_with(|| Value::Array(Vec::new()));
            let Value::Array(array) = slot else {
                return Err(wrong_type(of, &field.name));
            };
            match (&list.element, payload) {
                (Type::Scalar(Scalar::Bool | Scalar::Int32 | Scalar::Int64), Payload::Bytes(packed)) => {
                    let mut packed = Reader::new(packed);
                    while !packed.is_empty() {
                        array.push(value(of, field, &list.element, Payload::Varint(packed.varint()?), depth)?);
                    }
                }
                (element, payload) => array.push(value(of, field, element, payload, depth + 1)?),
            }
        }
        Type::Map(map) => {
            let mut entry = (String::new(), zero(&map.value));
            let mut reader = Reader::new(bytes()?);
            while let Some((number, payload)) = reader.next()? {
                match (number, payload) {
                    (1, Payload::Bytes(key)) => entry.0 = utf8(key, &field.name)?.to_owned(),
                    (2, Payload::Bytes(items)) if map.wrapped => entry.1 = string_list(items, &field.name)?,
                    (2, payload) => entry.1 = value(of, field, &map.value, payload, depth + 1)?,
                    _ => {}
                }
            }
            let slot = into.entry(field.name.as_ref()).or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(object) = slot else {
                return Err(wrong_type(of, &field.name));
            };
            object.insert(entry.0, entry.1);
        }
        ty => {
            let value = value(of, field, ty, payload, depth)?;
            into.insert(field.name.to_string(), value);
        }
    }
    Ok(())
}

/// The message of a list of strings (`ExtraValue`, `Verbs`).
fn string_list(bytes: &[u8], field: &str) -> Result<Value, ProtobufError> {
    let mut items = Vec::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, payload)) = reader.next()? {
        if let (1, Payload::Bytes(item)) = (number, payload) {
            items.push(Value::from(utf8(item, field)?));
        }
    }
    Ok(Value::Array(items))
}

/// A single value.
fn value(of: &Struct, field: &Field, ty: &Type, payload: Payload<'_>, depth: usize) -> Result<Value, ProtobufError> {
    match (ty, payload) {
        (Type::Struct(inner), Payload::Bytes(bytes)) => message(inner, bytes, depth + 1),
        (Type::List(_), Payload::Bytes(bytes)) => string_list(bytes, &field.name),
        (Type::Either(either), Payload::Bytes(bytes)) => {
            let mut found = zero(&either.other);
            let mut reader = Reader::new(bytes);
            while let Some((number, payload)) = reader.next()? {
                if number == either.object_number {
                    return value(of, field, &either.object, payload, depth);
                }
                match &either.other {
                    Type::List(list) => {
                        let element = value(of, field, &list.element, payload, depth + 1)?;
                        match &mut found {
                            Value::Array(array) => array.push(element),
                            other => *other = Value::Array(vec![element]),
                        }
                    }
                    other => found = value(of, field, other, payload, depth)?,
                }
            }
            Ok(found)
        }
        (Type::Scalar(scalar), payload) => read_scalar(of, field, *scalar, payload, depth),
        _ => Err(wrong_type(of, &field.name)),
    }
}

fn read_scalar(
    of: &Struct,
    field: &Field,
    scalar: Scalar,
    payload: Payload<'_>,
    depth: usize,
) -> Result<Value, ProtobufError> {
    Ok(match (scalar, payload) {
        (Scalar::String, Payload::Bytes(bytes)) => Value::from(utf8(bytes, &field.name)?),
        (Scalar::Bytes, Payload::Bytes(bytes)) => Value::from(STANDARD.encode(bytes)),
        (Scalar::Bool, Payload::Varint(value)) => Value::Bool(value != 0),
        // A negative int32 is ten bytes long on the wire; what is longer than 32 bits is cut, as in Go.
        (Scalar::Int32, Payload::Varint(value)) => Value::from(value as i32),
        (Scalar::Int64, Payload::Varint(value)) => Value::from(value as i64),
        (Scalar::Double, Payload::Fixed64(bits)) => {
            let number = double(f64::from_bits(bits));
            let not_json = || ProtobufError::Scalar("json: unsupported value: NaN or infinity".to_owned());
            Value::Number(number.ok_or_else(not_json)?)
        }
        (Scalar::Quantity, Payload::Bytes(bytes)) => quantity(bytes, field)?,
        (Scalar::IntOrString, Payload::Bytes(bytes)) => int_or_string(bytes, field)?,
        (Scalar::Time | Scalar::MicroTime, Payload::Bytes(bytes)) => timestamp(bytes, scalar, field)?,
        (Scalar::Duration, Payload::Bytes(bytes)) => {
            let nanos = first_varint(bytes)?.unwrap_or_default() as i64;
            Value::from(time::format_duration(SignedDuration::from_nanos(nanos)))
        }
        (Scalar::Any | Scalar::FieldsV1, Payload::Bytes(bytes)) => raw(bytes, depth)?,
        _ => return Err(wrong_type(of, &field.name)),
    })
}

fn quantity(bytes: &[u8], field: &Field) -> Result<Value, ProtobufError> {
    let mut quantity = Quantity::ZERO;
    let mut reader = Reader::new(bytes);
    while let Some((number, payload)) = reader.next()? {
        if let (1, Payload::Bytes(text)) = (number, payload)
            && !text.is_empty()
        {
            quantity = Quantity::parse(utf8(text, &field.name)?).map_err(|e| ProtobufError::Scalar(e.to_string()))?;
        }
    }
    Ok(quantity.into())
}

/// `IntOrString { 1: type (0 int, 1 string), 2: intVal, 3: strVal }`
fn int_or_string(bytes: &[u8], field: &Field) -> Result<Value, ProtobufError> {
    let (mut is_string, mut int, mut text) = (false, 0, "");
    let mut reader = Reader::new(bytes);
    while let Some((number, payload)) = reader.next()? {
        match (number, payload) {
            (1, Payload::Varint(kind)) => is_string = kind == 1,
            (2, Payload::Varint(value)) => int = value as i32,
            (3, Payload::Bytes(bytes)) => text = utf8(bytes, &field.name)?,
            _ => {}
        }
    }
    Ok(if is_string { Value::from(text) } else { Value::from(int) })
}

/// `Time { 1: seconds, 2: nanos }`; the zero time is an empty message.
fn timestamp(bytes: &[u8], scalar: Scalar, field: &Field) -> Result<Value, ProtobufError> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader::new(bytes);
    while let Some((number, payload)) = reader.next()? {
        match (number, payload) {
            (1, Payload::Varint(value)) => seconds = value as i64,
            (2, Payload::Varint(value)) => nanos = value as i32,
            _ => {}
        }
    }
    let time = Timestamp::new(seconds, nanos).map_err(|e| ProtobufError::Scalar(format!("{}: {e}", field.name)))?;
    Ok(Value::from(if scalar == Scalar::Time { time::format(time) } else { time::format_micro(time) }))
}

fn first_varint(bytes: &[u8]) -> Result<Option<u64>, ProtobufError> {
    let mut reader = Reader::new(bytes);
    while let Some((number, payload)) = reader.next()? {
        if let (1, Payload::Varint(value)) = (number, payload) {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// Raw JSON, or in a `List` an object with its envelope.
fn raw(bytes: &[u8], depth: usize) -> Result<Value, ProtobufError> {
    let mut content: &[u8] = &[];
    let mut reader = Reader::new(bytes);
    while let Some((number, payload)) = reader.next()? {
        if let (1, Payload::Bytes(bytes)) = (number, payload) {
            content = bytes;
        }
    }
    match content {
        [] => Ok(Value::Null),
        content if content.starts_with(MAGIC) => object(content, depth + 1),
        content => raw_json(content, depth + 1).map_err(|e| ProtobufError::Scalar(e.to_string())),
    }
}
