//! An answer that holds something until its end: what says that it is still open.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A body, or a stream after an upgrade, and what is dropped with it.
pub struct Held<T, U> {
    held: T,
    #[expect(dead_code, reason = "it is held for its end")]
    until: U,
}

impl<T, U> Held<T, U> {
    /// Holds `until` for as long as `held` lasts.
    pub fn new(held: T, until: U) -> Held<T, U> {
        Held { held, until }
    }
}

impl<U: Unpin> HttpBody for Held<Body, U> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.held).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.held.size_hint()
    }
}

impl<S: AsyncRead + Unpin, U: Unpin> AsyncRead for Held<S, U> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.held).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin, U: Unpin> AsyncWrite for Held<S, U> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.held).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.held).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.held).poll_shutdown(context)
    }
}
