//! What happens on a connection, so that one on which nothing happens is closed: a client that opens it and says nothing,
//! one that sends its headers a byte at a time, one that does not read its answer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use minik8s_clock::Clock;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::endpoints::held::Held;

/// How long a new connection may take to its first request (`ReadHeaderTimeout` of kube-apiserver's secure serving).
pub(super) const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(32);
/// How long a connection stays open between requests (`IdleTimeout`). The headers of the next request arrive within it.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// How long nothing may move on a connection while an answer that has an end is on its way. Answers without one, as
/// those of watches, may rest: `kubectl logs -f | less` is no attack.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(90);

/// The traffic of one connection.
pub(super) struct Traffic {
    clock: Clock,
    /// When bytes last went out, and when they last came in, in nanoseconds of the monotonic clock.
    written: AtomicU64,
    read: AtomicU64,
    requests: Mutex<Requests>,
}

struct Requests {
    any: bool,
    open: usize,
    /// Of the open ones, those whose answer is on its way and has an end.
    answering: usize,
    /// When the last one began, was answered or ended.
    changed: Duration,
}

impl Traffic {
    pub(super) fn new(clock: Clock) -> Arc<Self> {
        let requests = Requests { any: false, open: 0, answering: 0, changed: clock.monotonic() };
        Arc::new(Self { clock, written: AtomicU64::new(0), read: AtomicU64::new(0), requests: Mutex::new(requests) })
    }

    /// A request has come.
    pub(super) fn begin(self: &Arc<Self>) -> Open {
        let mut requests = self.requests.lock();
        (requests.any, requests.open, requests.changed) = (true, requests.open + 1, self.clock.monotonic());
        Open { traffic: Arc::clone(self), answering: false }
    }

    /// Completes when the client has had its time.
    pub(super) async fn silent(&self) {
        loop {
            let (since, patience) = self.state();
            let end = since + patience;
            if self.clock.monotonic() >= end {
                return;
            }
            self.clock.sleep_until(end).await;
        }
    }

    /// Since when nothing has happened that counts, and how long that may go on.
    fn state(&self) -> (Duration, Duration) {
        let at = |moment: &AtomicU64| Duration::from_nanos(moment.load(Ordering::Relaxed));
        let requests = self.requests.lock();
        let written = requests.changed.max(at(&self.written));
        // What comes in between requests does not count: it may be a header that never ends.
        match requests.open {
            0 if !requests.any => (requests.changed, FIRST_REQUEST_TIMEOUT),
            0 => (written, IDLE_TIMEOUT),
            open if open == requests.answering => (written.max(at(&self.read)), STALL_TIMEOUT),
            // Somebody works on an answer, or one has no known end.
            _ => (self.clock.monotonic(), STALL_TIMEOUT),
        }
    }

    fn moved(&self, moment: &AtomicU64) {
        let now = u64::try_from(self.clock.monotonic().as_nanos()).unwrap_or(u64::MAX);
        moment.store(now, Ordering::Relaxed);
    }
}

/// A request that has come and whose answer has not gone yet.
pub(super) struct Open {
    traffic: Arc<Traffic>,
    answering: bool,
}

impl Open {
    /// The answer's body, which counts as open until it is sent.
    pub(super) fn answer(mut self, body: Body) -> Body {
        if body.size_hint().upper().is_some() {
            self.answering = true;
            let mut requests = self.traffic.requests.lock();
            (requests.answering, requests.changed) = (requests.answering + 1, self.traffic.clock.monotonic());
        }
        Body::new(Held::new(body, self))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut requests = self.traffic.requests.lock();
        requests.open -= 1;
        requests.answering -= usize::from(self.answering);
        requests.changed = self.traffic.clock.monotonic();
    }
}

/// A stream whose bytes are noticed.
pub(super) struct Noticed<S> {
    stream: S,
    traffic: Arc<Traffic>,
}

impl<S> Noticed<S> {
    pub(super) fn new(stream: S, traffic: Arc<Traffic>) -> Self {
        Self { stream, traffic }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Noticed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if polled.is_ready() {
            self.traffic.moved(&self.traffic.read);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noticed<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        if polled.is_ready() {
            self.traffic.moved(&self.traffic.written);
        }
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        if polled.is_ready() {
            self.traffic.moved(&self.traffic.written);
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
