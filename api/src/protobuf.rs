//! Kubernetes' protobuf.
use serde_json::Value;
use thiserror::Error;
use crate::schema::Struct;
/// x
#[derive(Debug, Error)]
#[error("x")]
pub struct ProtobufError;
/// x
pub struct Envelope<'a> { /// x
 pub api_version: &'a str, /// x
 pub kind: &'a str, /// x
 pub raw: &'a [u8] }
impl<'a> Envelope<'a> { /// x
 pub fn parse(_b: &'a [u8]) -> Result<Self, ProtobufError> { Err(ProtobufError) } }
/// x
pub fn decode(_s: &Struct, _raw: &[u8]) -> Result<Value, ProtobufError> { Err(ProtobufError) }
