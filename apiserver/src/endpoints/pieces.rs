//! Large answers, written piece by piece as they are sent: no list stands in memory as a whole, and a client reads one piece while
//! the next is written.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::HttpBody;
use bytes::{BufMut, Bytes, BytesMut};
use flate2::write::GzEncoder;
use flate2::{Compression, Crc};
use hyper::body::{Frame, SizeHint};

use crate::cache::Object;
use crate::cache::object::View;

/// So much is written at a time; an object that is larger makes a larger piece.
pub const PIECE_BYTES: usize = 64 << 10;

/// How an answer is coded on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gzip {
    /// In gzip, but not compressed: between two processes of one machine bytes cost less than packing and unpacking them does.
    Framed,
    /// Level 1, as Kubernetes: the network inside a cluster is fast, processors are not idle.
    Compressed,
}

/// An answer that is not written yet.
pub struct Pieces {
    source: Box<dyn Iterator<Item = Bytes> + Send>,
    size: u64,
}

impl Pieces {
    /// Bytes that are there.
    pub fn whole(mut bytes: Bytes) -> Pieces {
        let size = bytes.len() as u64;
        let cut = move || (!bytes.is_empty()).then(|| bytes.split_to(bytes.len().min(PIECE_BYTES)));
        Pieces { source: Box::new(std::iter::from_fn(cut)), size }
    }

    /// The JSON of a list: `head` is an object without its items.
    pub fn list(head: &str, objects: Vec<Arc<Object>>, view: View) -> Pieces {
        const ITEMS: &[u8] = b",\"items\":[";
        const END: &[u8] = b"]}";
        let opening = &head.as_bytes()[..head.len() - 1];
        let commas = objects.len().saturating_sub(1);
        let items: usize = objects.iter().map(|object| object.len_as(view)).sum();
        let size = opening.len() + ITEMS.len() + commas + items + END.len();
        let mut piece = BytesMut::with_capacity(size.min(PIECE_BYTES * 5 / 4));
        piece.put_slice(opening);
        piece.put_slice(ITEMS);
        let mut objects = objects.into_iter().enumerate();
        let mut piece = Some(piece);
        let write = move || {
            let mut out = piece.take()?;
            while out.len() < PIECE_BYTES {
                let Some((index, object)) = objects.next() else {
                    out.put_slice(END);
                    return Some(out.freeze());
                };
                if index > 0 {
                    out.put_u8(b',');
                }
                object.write_as(view, &mut out);
            }
            piece = Some(BytesMut::with_capacity(PIECE_BYTES * 5 / 4));
            Some(out.freeze())
        };
        Pieces { source: Box::new(std::iter::from_fn(write)), size: size as u64 }
    }

    /// How many bytes it is.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// All of it.
    pub fn collect(self) -> Bytes {
        let mut whole = BytesMut::with_capacity(usize::try_from(self.size).unwrap_or_default());
        self.source.for_each(|piece| whole.extend_from_slice(&piece));
        whole.freeze()
    }

    /// As the body of an answer.
    pub fn into_body(self, gzip: Option<Gzip>) -> PiecesBody {
        let coding = match gzip {
            None => Coding::Identity,
            Some(Gzip::Framed) => Coding::Framed(Framing::default()),
            Some(Gzip::Compressed) => Coding::Compressed(Box::new(GzEncoder::new(Vec::new(), Compression::fast()))),
        };
        PiecesBody { source: self.source, coding, left: self.size }
    }
}

enum Coding {
    Identity,
    Framed(Framing),
    Compressed(Box<GzEncoder<Vec<u8>>>),
    Ended,
}

/// [`Pieces`] on their way.
pub struct PiecesBody {
    source: Box<dyn Iterator<Item = Bytes> + Send>,
    coding: Coding,
    /// Of what is not coded.
    left: u64,
}

impl PiecesBody {
    fn next(&mut self) -> Option<Bytes> {
        loop {
            let piece = match &mut self.coding {
                Coding::Framed(framing) if !framing.ready.is_empty() => return framing.ready.pop_front(),
                Coding::Ended => return None,
                _ => self.source.next(),
            };
            self.left = self.left.saturating_sub(piece.as_ref().map_or(0, |piece| piece.len() as u64));
            match (piece, std::mem::replace(&mut self.coding, Coding::Ended)) {
                (piece, Coding::Identity) => {
                    self.coding = Coding::Identity;
                    return piece;
                }
                (Some(piece), Coding::Framed(mut framing)) => {
                    framing.frame(piece);
                    self.coding = Coding::Framed(framing);
                }
                (None, Coding::Framed(framing)) => return Some(framing.end()),
                (Some(piece), Coding::Compressed(mut encoder)) => {
                    encoder.write_all(&piece).expect("writing into memory");
                    let packed = std::mem::take(encoder.get_mut());
                    self.coding = Coding::Compressed(encoder);
                    if !packed.is_empty() {
                        return Some(packed.into());
                    }
                }
                (None, Coding::Compressed(encoder)) => {
                    return Some(encoder.finish().expect("writing into memory").into());
                }
                (_, Coding::Ended) => return None,
            }
        }
    }
}

impl HttpBody for PiecesBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.next().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        matches!((&self.coding, self.left), (Coding::Ended, _) | (Coding::Identity, 0))
    }

    /// Exact where nothing is coded; else it has an end nevertheless.
    fn size_hint(&self) -> SizeHint {
        if matches!(self.coding, Coding::Identity) {
            return SizeHint::with_exact(self.left);
        }
        let mut hint = SizeHint::new();
        // Level 1 writes a byte in nine bits at the worst; blocks have a few bytes before them.
        hint.set_upper(self.left + self.left / 7 + 1_000);
        hint
    }
}

/// A gzip member (RFC 1952) of stored blocks (RFC 1951, 3.2.4).
#[derive(Default)]
struct Framing {
    checksum: Crc,
    ready: VecDeque<Bytes>,
}

impl Framing {
    /// Deflate, no flags, no time, no system.
    const MAGIC: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

    fn frame(&mut self, mut piece: Bytes) {
        let mut opening = BytesMut::with_capacity(16);
        if self.checksum.amount() == 0 {
            opening.put_slice(Self::MAGIC);
        }
        self.checksum.update(&piece);
        while !piece.is_empty() {
            let block = piece.split_to(piece.len().min(usize::from(u16::MAX)));
            put_block(&mut opening, false, block.len() as u16);
            self.ready.extend([opening.split().freeze(), block]);
        }
    }

    fn end(self) -> Bytes {
        let mut end = BytesMut::with_capacity(16);
        put_block(&mut end, true, 0);
        end.put_u32_le(self.checksum.sum());
        end.put_u32_le(self.checksum.amount());
        end.freeze()
    }
}

fn put_block(out: &mut BytesMut, is_last: bool, length: u16) {
    out.put_u8(u8::from(is_last));
    out.put_u16_le(length);
    out.put_u16_le(!length);
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn sent(bytes: &Bytes, gzip: Option<Gzip>) -> Vec<u8> {
        let mut body = Pieces::whole(bytes.clone()).into_body(gzip);
        let upper = body.size_hint().upper().expect("an end");
        let mut sent = Vec::new();
        while let Some(piece) = body.next() {
            sent.extend_from_slice(&piece);
        }
        assert!(body.is_end_stream() && sent.len() as u64 <= upper);
        sent
    }

    #[test]
    fn what_is_sent_is_what_was_there() {
        let numbers = |count: u32| Bytes::from((0..count).flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
        for bytes in [Bytes::from_static(b"{}"), numbers(20_000), numbers(100_000)] {
            assert_eq!(sent(&bytes, None), bytes);
            for gzip in [Gzip::Framed, Gzip::Compressed] {
                let packed = sent(&bytes, Some(gzip));
                let mut unpacked = Vec::new();
                flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).expect("gzip");
                assert!(unpacked == bytes, "{gzip:?} of {} bytes", bytes.len());
            }
        }
    }
}
