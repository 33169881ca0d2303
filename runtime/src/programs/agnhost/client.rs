//! HTTP as a client inside of a pod, with Go's words where it fails.

use super::{Call, go_format};
use crate::network::ResolveError;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION, USER_AGENT};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use minik8s_streaming::http_over;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How much of an answer is taken.
const BODY_LIMIT_BYTES: usize = 16 * 1024 * 1024;
/// How many redirects are followed (`http.Client`).
const REDIRECT_LIMIT: usize = 10;
/// How long a connection is waited for: Linux gives up a TCP handshake after about two minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(130);

/// An answer.
pub(super) struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

impl Answer {
    /// Its body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The address of `host:port`; the error is what Go says.
pub(super) async fn resolve(call: &Call, host: &str, port: &str) -> Result<SocketAddr, String> {
    let port: u16 = port.parse().map_err(|_| format!("lookup tcp/{port}: unknown port"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let ip = if host.is_empty() { IpAddr::from([127, 0, 0, 1]) } else { lookup(call, host).await? };
    Ok(SocketAddr::new(ip, port))
}

async fn lookup(call: &Call, host: &str) -> Result<IpAddr, String> {
    let network = &call.world.network;
    let server = network.dns_servers.first().map(|server| format!(" on {server}:53")).unwrap_or_default();
    let answer = network.resolve(host).await;
    let addresses = answer.map_err(|error| match error {
        ResolveError::NoSuchName => format!("lookup {host}{server}: no such host"),
        ResolveError::NoServer => format!("lookup {host}{server}: i/o timeout"),
    })?;
    addresses.first().copied().ok_or_else(|| format!("lookup {host}{server}: no such host"))
}

/// Gets a URL of scheme `http` within a time.
pub(super) async fn get(call: &Call, url: &str, timeout: Duration) -> Result<Answer, String> {
    request(call, Method::GET, url, Bytes::new(), timeout).await
}

async fn request(call: &Call, method: Method, url: &str, body: Bytes, timeout: Duration) -> Result<Answer, String> {
    let verb = if method == Method::GET { "Get" } else { "Post" };
    let mut at = url.to_string();
    let whole = async {
        for _ in 0..REDIRECT_LIMIT {
            let (answer, location) = once(call, &method, &at, body.clone()).await?;
            match location.filter(|_| answer.status.is_redirection() && method == Method::GET) {
                None => return Ok(answer),
                Some(to) if to.starts_with('/') => {
                    let authority = at.parse::<Uri>().ok().and_then(|uri| uri.authority().map(ToString::to_string));
                    at = format!("http://{}{to}", authority.unwrap_or_default());
                }
                Some(to) => at = to,
            }
        }
        Err(format!("stopped after {REDIRECT_LIMIT} redirects"))
    };
    match call.world.clock.timeout(timeout, whole).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(reason)) => Err(format!("{verb} {url:?}: {reason}")),
        Err(_) => {
            Err(format!("{verb} {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"))
        }
    }
}

async fn once(call: &Call, method: &Method, url: &str, body: Bytes) -> Result<(Answer, Option<String>), String> {
    let uri: Uri = url.parse().map_err(|_| format!("parse {url:?}: invalid URL"))?;
    if uri.scheme_str() != Some("http") {
        return Err(format!("unsupported protocol scheme {:?}", uri.scheme_str().unwrap_or_default()));
    }
    let port = uri.port_u16().unwrap_or(80).to_string();
    let address =
        resolve(call, uri.host().unwrap_or_default(), &port).await.map_err(|reason| format!("dial tcp: {reason}"))?;
    let stream = connect(call, address, CONNECT_TIMEOUT).await;
    let stream = stream.map_err(|error| go_format::dial_error("tcp", address, &error))?;
    let mut request = Request::builder().method(method).uri(&uri).header(USER_AGENT, "Go-http-client/1.1");
    if !body.is_empty() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
    let response = http_over(stream, request).await.map_err(|_| "EOF".to_string())?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, BODY_LIMIT_BYTES).collect().await.map_err(|_| "unexpected EOF".to_string())?;
    let location = head.headers.get(LOCATION).and_then(|location| location.to_str().ok()).map(str::to_string);
    Ok((Answer { status: head.status, body: body.to_bytes() }, location))
}

/// Opens a connection within a time.
pub(super) async fn connect(
    call: &Call,
    address: SocketAddr,
    timeout: Duration,
) -> io::Result<minik8s_streaming::BoxedStream> {
    let connecting = call.world.network.connect(address);
    call.world.clock.timeout(timeout, connecting).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

/// Sends a datagram and waits for the answer; the error is of kind `TimedOut` where none comes: a datagram that reaches nobody
/// is lost without a word.
pub(super) async fn exchange_udp(call: &Call, to: SocketAddr, datagram: Bytes, timeout: Duration) -> io::Result<Bytes> {
    let exchanging = async {
        let mut flow = match call.world.network.connect_udp(to).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Err(error),
            Err(_) => std::future::pending().await,
            Ok(flow) => flow,
        };
        flow.send(datagram)?;
        flow.receive().await.ok_or_else(|| io::ErrorKind::ConnectionRefused.into())
    };
    call.world.clock.timeout(timeout, exchanging).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}
