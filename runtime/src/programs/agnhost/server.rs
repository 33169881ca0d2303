//! Servers inside of a pod: HTTP, HTTPS with the container's own certificate, UDP.

use super::Call;
use super::go_format;
use crate::network::{Connection, Listener, UdpFlow, UdpListener};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use http::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderValue, LOCATION};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::tz::TimeZone;
use minik8s_clock::{Clock, Watched, Watcher};
use minik8s_streaming::BoxedStream;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::TlsAcceptor;

/// How many connections a server serves at a time; further ones wait to be accepted.
const CONNECTION_LIMIT: usize = 256;
/// How much of a request's body is taken.
const BODY_LIMIT_BYTES: usize = 16 * 1024 * 1024;
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// An answer over HTTP.
pub(super) type Reply = Response<Full<Bytes>>;

/// A request that was read to its end.
pub(super) struct Received {
    pub method: Method,
    /// Without its query, and decoded.
    pub path: String,
    /// The query as it came.
    pub query: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Whom it comes from.
    pub peer: SocketAddr,
}

impl Received {
    /// The first value of a parameter in the query; empty without one.
    pub fn query(&self, name: &str) -> String {
        parameters(&self.query).into_iter().find(|(key, _)| key == name).map(|(_, value)| value).unwrap_or_default()
    }

    /// The first value of a parameter in the form that was sent, else in the query (`http.Request.FormValue`).
    pub fn form(&self, name: &str) -> String {
        let sent = self.header(CONTENT_TYPE.as_str()).starts_with("application/x-www-form-urlencoded");
        let body = if sent { String::from_utf8_lossy(&self.body).into_owned() } else { String::new() };
        let found = parameters(&body).into_iter().find(|(key, _)| key == name);
        found.map_or_else(|| self.query(name), |(_, value)| value)
    }

    /// The value of a header; empty without one.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// The parameters of a query or a form.
fn parameters(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (decode(key, true), decode(value, true)))
        .collect()
}

/// Replaces what is percent-encoded; in queries `+` stands for a space.
pub(super) fn decode(text: &str, query: bool) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        let hex = behind.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match (byte, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(value)) => {
                decoded.push(value);
                rest = &behind[2..];
            }
            (b'+', _) if query => decoded.push(b' '),
            (byte, _) => decoded.push(*byte),
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// An answer with a text.
pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    typed(status, "text/plain; charset=utf-8", body)
}

/// An answer with a text and status 200.
pub(super) fn ok(body: impl Into<Bytes>) -> Reply {
    text(StatusCode::OK, body)
}

/// An answer of some type.
pub(super) fn typed(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// An answer that says what went wrong (`http.Error`).
pub(super) fn error(status: StatusCode, message: impl std::fmt::Display) -> Reply {
    text(status, format!("{message}\n"))
}

/// The answer to a path that there is not.
pub(super) fn not_found() -> Reply {
    error(StatusCode::NOT_FOUND, "404 page not found")
}

/// Sends a client elsewhere (`http.Redirect`): what begins with no slash counts from the request's directory.
pub(super) fn redirect(request: &Received, location: &str, status: StatusCode) -> Reply {
    let relative = !location.contains("://") && !location.starts_with('/');
    let directory = &request.path[..=request.path.rfind('/').unwrap_or_default()];
    let target = if relative { format!("{directory}{location}") } else { location.to_string() };
    let Ok(value) = HeaderValue::from_str(&target) else {
        return error(StatusCode::BAD_REQUEST, format!("invalid location {target:?}"));
    };
    let reason = status.canonical_reason().unwrap_or_default();
    let body = format!("<a href=\"{target}\">{reason}</a>.\n\n");
    let mut reply = typed(status, "text/html; charset=utf-8", body);
    reply.headers_mut().insert(LOCATION, value);
    reply
}

/// Listens on a port; the error is what Go says.
pub(super) fn listen(call: &Call, port: u16) -> Result<Listener, String> {
    let listening = call.world.network.listen(port);
    listening.map_err(|error| format!("listen tcp :{port}: bind: {}", go_format::errno(&error)))
}

/// The certificate and key of a server, in files of its container (`tls.LoadX509KeyPair`).
pub(super) fn load_key_pair(call: &Call, certificate: &str, key: &str) -> Result<TlsAcceptor, String> {
    Ok(TlsAcceptor::from(Arc::new(key_pair(call, certificate, key)?)))
}

/// [`load_key_pair`], for a server that speaks HTTP/2.
pub(super) fn load_http2_key_pair(call: &Call, certificate: &str, key: &str) -> Result<TlsAcceptor, String> {
    let mut config = key_pair(call, certificate, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn key_pair(call: &Call, certificate: &str, key: &str) -> Result<ServerConfig, String> {
    let read =
        |path: &str| call.world.fs.read(&call.path(path)).map_err(|error| go_format::path_error("open", path, &error));
    let (certificate, key) = (read(certificate)?, read(key)?);
    let chain = CertificateDer::pem_slice_iter(&certificate).collect::<Result<Vec<_>, _>>();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    let chain = chain.ok_or("tls: failed to find any PEM data in certificate input")?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| "tls: failed to find any PEM data in key input")?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("tls: {error}"))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| format!("tls: {error}"))
}

/// An HTTP server: a listening socket and how it answers.
pub(super) struct Server<F> {
    listener: Listener,
    tls: Option<TlsAcceptor>,
    call: Arc<Call>,
    answer: Arc<F>,
}

impl<F, Fut> Server<F>
where
    F: Fn(Received) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Reply> + Send + 'static,
{
    /// A server on a socket.
    pub fn new(call: Arc<Call>, listener: Listener, answer: F) -> Server<F> {
        Server { listener, tls: None, call, answer: Arc::new(answer) }
    }

    /// The same server over TLS.
    pub fn with_tls(self, tls: Option<TlsAcceptor>) -> Server<F> {
        Server { tls, ..self }
    }

    /// Serves for ever.
    pub async fn run(self) -> i32 {
        self.run_until(std::future::pending()).await;
        0
    }

    /// Serves until it is stopped, and then lets the requests under way come to their end.
    pub async fn run_until(self, stopped: impl Future<Output = ()>) {
        let Server { mut listener, tls, call, answer } = self;
        let stopping = Watched::new(false);
        let mut connections: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
        tokio::pin!(stopped);
        loop {
            let room = connections.len() < CONNECTION_LIMIT;
            tokio::select! {
                biased;
                () = &mut stopped => break,
                accepted = listener.accept(), if room => {
                    let serving = connection(call.clone(), tls.clone(), accepted, answer.clone(), stopping.watch());
                    connections.push(Box::pin(serving));
                }
                Some(()) = connections.next() => {}
            }
        }
        drop(listener);
        stopping.set(true);
        while connections.next().await.is_some() {}
    }
}

async fn connection<F, Fut>(
    call: Arc<Call>,
    tls: Option<TlsAcceptor>,
    accepted: Connection,
    answer: Arc<F>,
    stopping: Watcher<bool>,
) where
    F: Fn(Received) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Reply> + Send + 'static,
{
    let Connection { stream, peer } = accepted;
    let stream: BoxedStream = match tls {
        None => stream,
        Some(tls) => match call.world.clock.timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => Box::new(stream),
            Ok(Err(error)) => return call.log(format!("http: TLS handshake error from {peer}: {error}")).await,
            Err(_) => return call.log(format!("http: TLS handshake error from {peer}: i/o timeout")).await,
        },
    };
    serve_stream(call.world.clock.clone(), stream, peer, answer, stopping).await;
}

async fn serve_stream<F, Fut>(
    clock: Clock,
    stream: BoxedStream,
    peer: SocketAddr,
    answer: Arc<F>,
    mut stopping: Watcher<bool>,
) where
    F: Fn(Received) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Reply> + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let (answer, clock) = (answer.clone(), clock.clone());
        async move {
            let mut reply = match received(request, peer).await {
                Ok(request) => answer(request).await,
                Err(reply) => reply,
            };
            // The cluster's time, not that of the machine, which hyper would write.
            let date = clock.now().to_zoned(TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
            reply.headers_mut().extend(HeaderValue::from_str(&date).ok().map(|date| (DATE, date)));
            Ok::<_, Infallible>(reply)
        }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    let serving = server.auto_date_header(false).serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let served = tokio::select! {
        biased;
        served = serving.as_mut() => served,
        _ = stopping.wait_for(|stopping| *stopping) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    tracing::trace!(?served, "simulated connection ended");
}

async fn received(request: Request<Incoming>, peer: SocketAddr) -> Result<Received, Reply> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, BODY_LIMIT_BYTES).collect().await;
    let body = body.map_err(|_| error(StatusCode::PAYLOAD_TOO_LARGE, "http: request body too large"))?;
    Ok(Received {
        method: head.method,
        path: decode(head.uri.path(), false),
        query: head.uri.query().unwrap_or_default().to_string(),
        headers: head.headers,
        body: body.to_bytes(),
        peer,
    })
}

/// Listens for datagrams on a port; the error is what Go says.
pub(super) fn listen_udp(call: &Call, port: u16) -> Result<UdpListener, String> {
    let listening = call.world.network.listen_udp(port);
    listening.map_err(|error| format!("listen udp :{port}: bind: {}", go_format::errno(&error)))
}

/// Answers datagrams for ever; those without an answer are passed over.
pub(super) async fn serve_udp<F, Fut>(mut listener: UdpListener, answer: F)
where
    F: Fn(Bytes, SocketAddr) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Option<Bytes>> + Send + 'static,
{
    let answer = Arc::new(answer);
    let mut flows: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
    loop {
        let room = flows.len() < CONNECTION_LIMIT;
        tokio::select! {
            biased;
            (flow, peer) = listener.accept(), if room => flows.push(Box::pin(answer_flow(flow, peer, answer.clone()))),
            Some(()) = flows.next() => {}
        }
    }
}

async fn answer_flow<F, Fut>(mut flow: UdpFlow, peer: SocketAddr, answer: Arc<F>)
where
    F: Fn(Bytes, SocketAddr) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Option<Bytes>> + Send + 'static,
{
    while let Some(datagram) = flow.receive().await {
        let Some(reply) = answer(datagram, peer).await else { continue };
        if flow.send(reply).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        let read = parameters("msg=a%20b+c&code=&x%3D=%zz&&flag");
        let expected = [("msg", "a b c"), ("code", ""), ("x=", "%zz"), ("flag", "")];
        assert_eq!(read, expected.map(|(key, value)| (key.to_string(), value.to_string())));
        assert_eq!(decode("/a+b%2Fc", false), "/a+b/c");
    }
}
