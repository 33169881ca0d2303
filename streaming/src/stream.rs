//! The byte stream that everything else is written against.

use tokio::io::{AsyncRead, AsyncWrite};

/// How many bytes one direction of a [`pair`] holds before its writer waits.
pub const PAIR_BUFFER_BYTES: usize = 64 * 1024;

/// A reliable, ordered stream of bytes in both directions, whatever carries it.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> ByteStream for T {}

/// A [`ByteStream`] whose carrier is nobody's business.
pub type BoxedStream = Box<dyn ByteStream>;

/// Two ends of an in-process stream: what is written to one is read from the other.
pub fn pair() -> (BoxedStream, BoxedStream) {
    let (near, far) = tokio::io::duplex(PAIR_BUFFER_BYTES);
    (Box::new(near), Box::new(far))
}
