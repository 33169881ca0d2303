//! Servers of HTTP/2 without TLS or with it: `grpc-health-checking`, `h2c-server`.

use super::Call;
use super::flags::Flag;
use super::server::{self, Received};
use super::{go_format, servers};
use bytes::{Buf, Bytes};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use minik8s_streaming::BoxedStream;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

/// How many connections a server serves at a time; further ones wait to be accepted.
const CONNECTION_LIMIT: usize = 256;
/// How much of a request's body is taken.
const BODY_LIMIT_BYTES: usize = 64 * 1024;
/// How many requests a connection carries at a time.
const STREAM_LIMIT: u32 = 100;

pub(super) const H2C_FLAGS: &[Flag] = &[Flag::int("port", "80", "Port number.")];
pub(super) const GRPC_FLAGS: &[Flag] = &[
    Flag::int("port", "5000", "Port number."),
    Flag::int("http-port", "8080", "Port number for the /make-serving and /make-not-serving."),
    Flag::int(
        "delay-unhealthy-sec",
        "-1",
        "Number of seconds to delay before start reporting NOT_SERVING, negative value indicates never.",
    ),
    Flag::string("service", "", "Service name to register the health check for."),
    Flag::string(
        "tls-cert-file",
        "",
        "File containing an x509 certificate for gRPC TLS. (CA cert, if any, concatenated after server cert).",
    ),
    Flag::string("tls-private-key-file", "", "File containing an x509 private key matching --tls-cert-file."),
];

type Body = BoxBody<Bytes, Infallible>;

/// Runs the requests of one connection within that connection: what ends it ends them.
#[derive(Clone)]
struct Streams(mpsc::UnboundedSender<BoxFuture<'static, ()>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        // The receiver lives as long as the connection; STREAM_LIMIT bounds how many there are.
        let _running = self.0.send(Box::pin(stream));
    }
}

async fn serve_stream<F, Fut>(stream: BoxedStream, answer: Arc<F>)
where
    F: Fn(Request<Incoming>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Response<Body>> + Send + 'static,
{
    let (sender, mut spawned) = mpsc::unbounded_channel();
    let service = service_fn(move |request| {
        let answer = answer.clone();
        async move { Ok::<_, Infallible>(answer(request).await) }
    });
    let mut server = hyper::server::conn::http2::Builder::new(Streams(sender));
    let serving = server.max_concurrent_streams(STREAM_LIMIT).serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let mut running: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(stream) = spawned.recv() => running.push(stream),
            Some(()) = running.next() => {}
            served = &mut serving => {
                tracing::trace!(?served, "simulated connection ended");
                return;
            }
        }
    }
}

/// Serves HTTP/2 on a port for ever; the error is what Go says.
async fn serve<F, Fut>(call: &Call, port: Option<u16>, tls: Option<TlsAcceptor>, answer: F) -> Result<(), String>
where
    F: Fn(Request<Incoming>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Response<Body>> + Send + 'static,
{
    let mut listener = server::listen(call, port.ok_or("listen tcp: invalid port")?)?;
    let answer = Arc::new(answer);
    let mut connections: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
    loop {
        let room = connections.len() < CONNECTION_LIMIT;
        tokio::select! {
            biased;
            accepted = listener.accept(), if room => {
                let (tls, answer) = (tls.clone(), answer.clone());
                connections.push(Box::pin(async move {
                    let stream: BoxedStream = match tls {
                        None => accepted.stream,
                        Some(tls) => match tls.accept(accepted.stream).await {
                            Ok(stream) => Box::new(stream),
                            Err(error) => return tracing::trace!(%error, "no TLS"),
                        },
                    };
                    serve_stream(stream, answer).await;
                }));
            }
            Some(()) = connections.next() => {}
        }
    }
}

/// Answers everything with `ok`.
pub(super) async fn h2c_server(call: Arc<Call>) -> i32 {
    call.log(format!("Serving h2c on port {}.", call.flags.text("port"))).await;
    let served = serve(&call, call.flags.port("port"), None, |_| async {
        let mut response = Response::new(Full::new(Bytes::from("ok")).boxed());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        response
    });
    match served.await {
        Ok(()) => 0,
        Err(error) => call.fatal(format!("Error from net.Listen(): {error}")).await,
    }
}

/// What `/make-serving` and `/make-not-serving` have set.
const FORCED_NOTHING: u8 = 0;
const FORCED_HEALTHY: u8 = 1;
const FORCED_UNHEALTHY: u8 = 2;

struct Health {
    call: Arc<Call>,
    started: Duration,
    forced: AtomicU8,
}

/// `grpc.status` codes.
const GRPC_OK: u8 = 0;
const GRPC_NOT_FOUND: u8 = 5;
const GRPC_UNIMPLEMENTED: u8 = 12;
/// `grpc.health.v1.HealthCheckResponse.ServingStatus`.
const SERVING: u8 = 1;
const NOT_SERVING: u8 = 2;

/// Tells over gRPC that it is healthy, for as long as it is told to.
pub(super) async fn grpc_health_checking(call: Arc<Call>) -> i32 {
    let (certificate, key) = (call.flags.text("tls-cert-file"), call.flags.text("tls-private-key-file"));
    if certificate.is_empty() != key.is_empty() {
        return call.fatal("Both --tls-cert-file and --tls-private-key-file must be set").await;
    }
    let tls = match certificate.is_empty() {
        true => None,
        false => match server::load_http2_key_pair(&call, certificate, key) {
            Ok(tls) => Some(tls),
            Err(error) => return call.fatal(format!("Failed to generate credentials {error}")).await,
        },
    };
    let started = call.world.clock.monotonic();
    let health = Arc::new(Health { call: call.clone(), started, forced: AtomicU8::new(FORCED_NOTHING) });
    let (http_port, port) = (call.flags.text("http-port"), call.flags.text("port"));
    call.log(format!("Http server starting to listen on :{http_port}")).await;
    call.log(format!("gRPC server starting to listen on :{port}")).await;
    let forcing = health.clone();
    let switches = servers::serve_port(call.clone(), call.flags.port("http-port"), move |request: Received| {
        let health = forcing.clone();
        async move { health.switch(&request).await }
    });
    let checks = serve(&call, call.flags.port("port"), tls, move |request| {
        let health = health.clone();
        async move { health.answer(request).await }
    });
    tokio::select! {
        biased;
        code = switches => code,
        checked = checks => match checked {
            Ok(()) => 0,
            Err(error) => call.fatal(format!("Error while starting the listening service {error}")).await,
        },
    }
}

impl Health {
    fn age(&self) -> Duration {
        self.call.world.clock.monotonic().saturating_sub(self.started)
    }

    async fn switch(&self, request: &Received) -> server::Reply {
        let (forced, said) = match request.path.as_str() {
            "/make-serving" => (FORCED_HEALTHY, "Mark as healthy"),
            "/make-not-serving" => (FORCED_UNHEALTHY, "Mark as unhealthy"),
            _ => return server::not_found(),
        };
        self.call.log(said).await;
        self.forced.store(forced, Ordering::Relaxed);
        server::ok(go_format::duration(self.age()))
    }

    fn status(&self) -> u8 {
        let delay = u64::try_from(self.call.flags.number("delay-unhealthy-sec")).ok().map(Duration::from_secs);
        let late = delay.is_some_and(|delay| self.age() >= delay);
        if self.forced.load(Ordering::Relaxed) == FORCED_UNHEALTHY || late { NOT_SERVING } else { SERVING }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        if request.uri().path() != "/grpc.health.v1.Health/Check" {
            return grpc(None, GRPC_UNIMPLEMENTED, "unimplemented");
        }
        self.call.log("Serving the Check request for health check").await;
        let body = Limited::new(request.into_body(), BODY_LIMIT_BYTES).collect().await;
        let asked = body.ok().and_then(|body| service_of(body.to_bytes()));
        if asked.as_deref() != Some(self.call.flags.text("service")) {
            return grpc(None, GRPC_NOT_FOUND, "unknown service");
        }
        grpc(Some(self.status()), GRPC_OK, "")
    }
}

/// The service that a `HealthCheckRequest` names, in its frame: one text, as field 1.
fn service_of(mut frame: Bytes) -> Option<String> {
    if frame.len() < 5 || frame.get_u8() != 0 {
        return None;
    }
    let length = usize::try_from(frame.get_u32()).ok()?;
    let message = frame.get(..length)?;
    match message {
        [] => Some(String::new()),
        // A name of more than 127 bytes has its length in two bytes.
        [0x0a, low @ 0x80..=0xff, high @ 0..=0x7f, name @ ..] => {
            let length = usize::from(*low & 0x7f) | usize::from(*high) << 7;
            String::from_utf8(name.get(..length)?.to_vec()).ok()
        }
        [0x0a, length, name @ ..] => String::from_utf8(name.get(..usize::from(*length))?.to_vec()).ok(),
        _ => None,
    }
}

/// An answer over gRPC: a `HealthCheckResponse` in its frame, and the status behind it.
fn grpc(serving: Option<u8>, status: u8, message: &'static str) -> Response<Body> {
    let frame = serving.map_or(Vec::new(), |serving| vec![0, 0, 0, 0, 2, 0x08, serving]);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(u16::from(status)));
    trailers.insert("grpc-message", HeaderValue::from_static(message));
    let body = Full::new(Bytes::from(frame)).with_trailers(std::future::ready(Some(Ok(trailers)))).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_service_is_read() {
        assert_eq!(service_of(Bytes::from_static(&[0, 0, 0, 0, 0])), Some(String::new()));
        assert_eq!(service_of(Bytes::from_static(b"\0\0\0\0\x05\x0a\x03web")), Some("web".to_string()));
        let long = "x".repeat(200);
        let frame = [&[0, 0, 0, 0, 203, 0x0a, 0xc8, 0x01][..], long.as_bytes()].concat();
        assert_eq!(service_of(frame.into()), Some(long));
        assert_eq!(service_of(Bytes::from_static(b"\0\0\0\0\x05\x0a\x09web")), None);
    }

    /// A client and a server, over one stream.
    #[tokio::test]
    async fn a_check_is_answered_with_trailers() {
        let (near, far) = minik8s_streaming::pair();
        let answer = Arc::new(|_| async { grpc(Some(SERVING), GRPC_OK, "") });
        let asking = async {
            let executor = hyper_util::rt::TokioExecutor::new();
            let (mut client, connection) =
                hyper::client::conn::http2::handshake(executor, TokioIo::new(near)).await.expect("a connection");
            let request = Request::post("http://pod/grpc.health.v1.Health/Check").body(Full::new(Bytes::new()));
            let asked = async {
                let response = client.send_request(request.expect("a request")).await.expect("an answer");
                response.into_body().collect().await.expect("a body")
            };
            tokio::select! {
                biased;
                body = asked => body,
                ended = connection => panic!("{ended:?}"),
            }
        };
        let body = tokio::select! {
                biased;
            body = asking => body,
            () = serve_stream(far, answer) => panic!("no answer"),
        };
        assert_eq!(body.trailers().and_then(|trailers| trailers.get("grpc-status")), Some(&HeaderValue::from(0u16)));
        assert_eq!(body.to_bytes(), Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1]));
    }
}
