//! Log entries as bytes.

use crate::encoding::{DecodeError, Decoder, put_bytes, put_u64};
use bytes::Bytes;
use protobuf::ProtobufEnum;
use raft::eraftpb::{Entry, EntryType};

/// Index, term, type, context, data.
pub(super) fn encode(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::with_capacity(entry.data.len() + entry.context.len() + 32);
    put_u64(&mut out, entry.index);
    put_u64(&mut out, entry.term);
    out.push(entry.get_entry_type().value() as u8);
    put_bytes(&mut out, &entry.context);
    put_bytes(&mut out, &entry.data);
    out
}

/// The data shares the buffer of `input`.
pub(super) fn decode(input: Bytes) -> Result<Entry, DecodeError> {
    let mut input = Decoder::new(input);
    let mut entry = Entry { index: input.u64()?, term: input.u64()?, ..Entry::default() };
    let kind = input.u8()?;
    entry.set_entry_type(EntryType::from_i32(kind.into()).ok_or(DecodeError::Tag(kind))?);
    entry.context = input.bytes()?;
    entry.data = input.bytes()?;
    input.finish()?;
    Ok(entry)
}

/// What an entry takes in memory and, about, on disk.
pub(super) fn size(entry: &Entry) -> usize {
    const OVERHEAD_BYTES: usize = 160;
    entry.data.len() + entry.context.len() + OVERHEAD_BYTES
}
