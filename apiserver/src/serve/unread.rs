//! What a handler leaves unread of a request's body.
//!
//! Over HTTP/1.1 the answer to such a request ends the connection, and a client that still sends sees a reset instead of the
//! answer: a 404, a 415, a 422 of the query. So the rest is read and dropped first, within bounds (as Go's server does
//! with `maxPostHandlerReadBytes`).

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::EXPECT;
use http::{Request, Version};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use minik8s_clock::Clock;
use tokio::sync::oneshot;

/// How much is read and dropped: who sends a few times what is taken sees the 413. After more the connection ends.
const UNREAD_BYTES: usize = 16 << 20;
/// How long that may take.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(5);

/// The rest of a body, once its handler has dropped it.
pub(super) struct Unread(oneshot::Receiver<Incoming>);

/// Lends a request's body to a handler.
pub(super) fn lend(request: Request<Incoming>) -> (Request<Body>, Option<Unread>) {
    // HTTP/2 has a frame for it, and who waits to be told to send has sent nothing.
    if request.version() >= Version::HTTP_2 || request.headers().contains_key(EXPECT) || request.body().is_end_stream()
    {
        return (request.map(Body::new), None);
    }
    let (back, rest) = oneshot::channel();
    let lent = |body| Body::new(Lent { body: Some(body), back: Some(back) });
    (request.map(lent), Some(Unread(rest)))
}

impl Unread {
    /// Reads what the handler has left, if it is done with the body.
    pub(super) async fn drain(mut self, clock: &Clock) {
        let Ok(mut body) = self.0.try_recv() else { return };
        let drained = async {
            let mut left = UNREAD_BYTES;
            while let Some(Ok(frame)) = body.frame().await {
                let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { break };
                left = rest;
            }
        };
        // One that is late gets its answer now, and then the end of the connection.
        clock.timeout(UNREAD_TIMEOUT, drained).await.ok();
    }
}

struct Lent {
    body: Option<Incoming>,
    back: Option<oneshot::Sender<Incoming>>,
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(body), Some(back)) = (self.body.take(), self.back.take())
            && !body.is_end_stream()
        {
            // Nobody waits for it if the connection is gone.
            back.send(body).ok();
        }
    }
}
