//! The binary form of commands and snapshots: variable-length integers and length-prefixed bytes.
//!
//! Small, versioned by whoever uses it (the first byte of a command, the header of a snapshot), and
//! strict: what is left over or missing is an error. Decoding shares the input's buffer; it
//! allocates nothing that the input's length does not bound.

use crate::LeaseId;
use bytes::{Buf, Bytes};
use std::{num::NonZeroU64, sync::Arc};

/// Bytes that are not what an encoder wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("it ends too early")]
    TooShort,
    #[error("{0} bytes are left over")]
    LeftOver(usize),
    #[error("a number is out of range")]
    Number,
    #[error("a key is not UTF-8")]
    Utf8,
    #[error("version {0} is unknown")]
    Version(u8),
    #[error("tag {0} is unknown")]
    Tag(u8),
}

pub(crate) fn put_u64(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(crate) fn put_lease(out: &mut Vec<u8>, lease: Option<LeaseId>) {
    put_u64(out, lease.map_or(0, |lease| lease.0.get()));
}

/// Reads what the `put_` functions wrote, in the same order.
pub(crate) struct Decoder {
    input: Bytes,
}

impl Decoder {
    pub(crate) fn new(input: Bytes) -> Self {
        Decoder { input }
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.input.try_get_u8().map_err(|_| DecodeError::TooShort)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(DecodeError::Number);
            }
            n |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(n);
            }
        }
        Err(DecodeError::Number)
    }

    pub(crate) fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        let length = self.u64()?;
        self.take(length)
    }

    fn take(&mut self, length: u64) -> Result<Bytes, DecodeError> {
        let length = usize::try_from(length).map_err(|_| DecodeError::Number)?;
        if length > self.input.len() {
            return Err(DecodeError::TooShort);
        }
        Ok(self.input.split_to(length))
    }

    /// Nothing for 0, else as many bytes as the number less one.
    pub(crate) fn optional_bytes(&mut self) -> Result<Option<Bytes>, DecodeError> {
        let Some(length) = self.u64()?.checked_sub(1) else {
            return Ok(None);
        };
        self.take(length).map(Some)
    }

    pub(crate) fn key(&mut self) -> Result<Arc<str>, DecodeError> {
        let bytes = self.bytes()?;
        std::str::from_utf8(&bytes).map(Arc::from).map_err(|_| DecodeError::Utf8)
    }

    pub(crate) fn lease(&mut self) -> Result<Option<LeaseId>, DecodeError> {
        Ok(NonZeroU64::new(self.u64()?).map(LeaseId))
    }

    /// What was not read.
    pub(crate) fn rest(self) -> Bytes {
        self.input
    }

    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        match self.input.len() {
            0 => Ok(()),
            left => Err(DecodeError::LeftOver(left)),
        }
    }
}
