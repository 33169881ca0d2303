//! Kubernetes' protobuf: `application/vnd.kubernetes.protobuf`.
//!
//! ```text
//!   "k8s\0"  Unknown { 1: TypeMeta { 1: apiVersion, 2: kind }, 2: raw, 3: contentEncoding, 4: contentType }
//!                                                              └── the object's message, without apiVersion and kind
//!   a watch: [length, 4 bytes, big endian] WatchEvent { 1: type, 2: RawExtension { 1: "k8s\0" Unknown } } …
//! ```
//!
//! Field numbers are data (`schema`), so that there is no generated code: [`decode`] gives the value that the same object in
//! JSON would give, [`encode`] the message of such a value. Go writes zeros of fields that are no pointers; they count
//! as not set. Time, Quantity, IntOrString and their like are messages here and scalars in JSON.

mod reader;
mod wire;
mod writer;

use serde_json::Value;
use thiserror::Error;

use crate::kinds::split_api_version;
use crate::schema::{Struct, built_in};

use wire::{Payload, Reader};

/// The first bytes of every object.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// Why bytes are no object of a type, or a value has no message.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProtobufError {
    /// The first bytes are not [`MAGIC`].
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Prefix,
    /// A length points behind the end.
    #[error("unexpected EOF")]
    Truncated,
    /// A varint has more than ten bytes.
    #[error("proto: integer overflow")]
    Overflow,
    /// A wire type that proto3 does not have.
    #[error("proto: illegal wireType {0}")]
    WireType(u8),
    /// A field number of zero or out of range.
    #[error("proto: illegal tag {0}")]
    Tag(u64),
    /// A field comes in the wire type of another.
    #[error("proto: wrong wireType for field {field} of {message}")]
    WrongType {
        /// The message.
        message: String,
        /// The field.
        field: String,
    },
    /// A string is not UTF-8.
    #[error("proto: invalid UTF-8 in field {0}")]
    Utf8(String),
    /// Messages nest too deep.
    #[error("exceeded max depth")]
    Depth,
    /// A scalar cannot be read.
    #[error("{0}")]
    Scalar(String),
    /// The object is encoded in a way that is not supported (`contentEncoding`).
    #[error("the content encoding {0} is not supported")]
    Encoding(String),
    /// There is no message for the kind.
    #[error(
        "object {kind} of {api_version} does not implement the protobuf marshalling interface and cannot be encoded to a protobuf message"
    )]
    Kind {
        /// As in `apps/v1`.
        api_version: String,
        /// As in `Deployment`.
        kind: String,
    },
    /// A value is not of its field's type.
    #[error("field {0} does not hold a value of its type")]
    Value(String),
}

/// An object's wrapping: what it is, and its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// As in `apps/v1`.
    pub api_version: &'a str,
    /// As in `Deployment`.
    pub kind: &'a str,
    /// The message.
    pub raw: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Reads what stands around the object.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ProtobufError> {
        let unknown = bytes.strip_prefix(MAGIC).ok_or(ProtobufError::Prefix)?;
        let mut envelope = Self { api_version: "", kind: "", raw: &[] };
        let mut reader = Reader::new(unknown);
        while let Some((number, payload)) = reader.next()? {
            match (number, payload) {
                (1, Payload::Bytes(type_meta)) => {
                    let mut reader = Reader::new(type_meta);
                    while let Some(field) = reader.next()? {
                        match field {
                            (1, Payload::Bytes(text)) => envelope.api_version = utf8(text, "apiVersion")?,
                            (2, Payload::Bytes(text)) => envelope.kind = utf8(text, "kind")?,
                            _ => {}
                        }
                    }
                }
                (2, Payload::Bytes(raw)) => envelope.raw = raw,
                (3, Payload::Bytes(encoding)) if !encoding.is_empty() => {
                    return Err(ProtobufError::Encoding(String::from_utf8_lossy(encoding).into_owned()));
                }
                _ => {}
            }
        }
        Ok(envelope)
    }

    /// Writes the object with what stands around it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut type_meta = Vec::new();
        wire::put_bytes(&mut type_meta, 1, self.api_version.as_bytes());
        wire::put_bytes(&mut type_meta, 2, self.kind.as_bytes());
        let mut bytes = MAGIC.to_vec();
        wire::put_bytes(&mut bytes, 1, &type_meta);
        wire::put_bytes(&mut bytes, 2, self.raw);
        // Go writes the two empty strings, too.
        wire::put_bytes(&mut bytes, 3, b"");
        wire::put_bytes(&mut bytes, 4, b"");
        bytes
    }
}

fn utf8<'a>(bytes: &'a [u8], field: &str) -> Result<&'a str, ProtobufError> {
    std::str::from_utf8(bytes).map_err(|_| ProtobufError::Utf8(field.to_owned()))
}

/// Reads a message of that type: the value that the object's JSON would give.
pub fn decode(of: &Struct, message: &[u8]) -> Result<Value, ProtobufError> {
    reader::message(of, message, 0)
}

/// Reads an object with its envelope, of whatever built-in type it says it is.
pub fn decode_object(bytes: &[u8]) -> Result<Value, ProtobufError> {
    reader::object(bytes, 0)
}

/// Writes the message of a value of that type, without an envelope.
pub fn encode(of: &Struct, value: &Value) -> Result<Vec<u8>, ProtobufError> {
    writer::message(of, value)
}

/// Writes an object, a list or a `Status` with its envelope; its type is the one that `apiVersion` and `kind` say.
pub fn encode_object(object: &Value) -> Result<Vec<u8>, ProtobufError> {
    let said = |field| object.get(field).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (said("apiVersion"), said("kind"));
    let raw = encode(type_of(api_version, kind)?, object)?;
    Ok(Envelope { api_version, kind, raw: &raw }.to_bytes())
}

/// Writes one event of a watch, with the length that precedes it. `object` is what [`encode_object`] gave.
pub fn encode_watch_event(event_type: &str, object: &[u8]) -> Vec<u8> {
    let mut raw_extension = Vec::with_capacity(object.len() + 8);
    wire::put_bytes(&mut raw_extension, 1, object);
    let mut event = vec![0; 4];
    wire::put_bytes(&mut event, 1, event_type.as_bytes());
    wire::put_bytes(&mut event, 2, &raw_extension);
    let length = u32::try_from(event.len() - 4).expect("an object is far smaller than 4 GiB");
    event[..4].copy_from_slice(&length.to_be_bytes());
    event
}

fn type_of(api_version: &str, kind: &str) -> Result<&'static Struct, ProtobufError> {
    let (group, version) = split_api_version(api_version);
    let found = built_in().kind(group, version, kind);
    found
        .map(|of| &**of)
        .ok_or_else(|| ProtobufError::Kind { api_version: api_version.to_owned(), kind: kind.to_owned() })
}

#[cfg(test)]
mod tests;
