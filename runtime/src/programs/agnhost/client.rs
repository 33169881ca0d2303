//! HTTP as a client inside of a pod, with Go's words where it fails.

use super::{Call, go_format};
use crate::network::{ResolveError, UdpFlow};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION, USER_AGENT};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use minik8s_streaming::http_over;
use rustls::pki_types::ServerName;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio_rustls::TlsConnector;

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

/// `host:port` in its parts; the port as text, since it may be no number (`net.SplitHostPort`).
pub(super) fn split_host_port(text: &str) -> Result<(&str, &str), String> {
    let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("address {text}: missing port in address"))?;
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(host) => Ok((host, port)),
        None if host.contains(':') => Err(format!("address {text}: too many colons in address")),
        None => Ok((host, port)),
    }
}

/// `host:port`, with IPv6 addresses in brackets (`net.JoinHostPort`).
pub(super) fn join_host_port(host: &str, port: &str) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// What to ask of a server.
pub(super) struct Ask<'a> {
    pub method: Method,
    /// With scheme, `http` or `https`.
    pub url: &'a str,
    /// JSON to send.
    pub body: Bytes,
    /// How long it may take in all.
    pub timeout: Duration,
    /// Whom to trust; `https` needs it.
    pub tls: Option<&'a TlsConnector>,
    /// The token to show.
    pub bearer: Option<&'a str>,
}

/// Gets a URL of scheme `http` within a time.
pub(super) async fn get(call: &Call, url: &str, timeout: Duration) -> Result<Answer, String> {
    ask(call, Ask { method: Method::GET, url, body: Bytes::new(), timeout, tls: None, bearer: None }).await
}

/// Sends JSON to a URL of scheme `http` within a time.
pub(super) async fn post_json(call: &Call, url: &str, body: Bytes, timeout: Duration) -> Result<Answer, String> {
    ask(call, Ask { method: Method::POST, url, body, timeout, tls: None, bearer: None }).await
}

/// Asks, and follows redirects.
pub(super) async fn ask(call: &Call, ask: Ask<'_>) -> Result<Answer, String> {
    let (url, verb) = (ask.url, if ask.method == Method::GET { "Get" } else { "Post" });
    let mut at = url.to_string();
    let whole = async {
        for _ in 0..REDIRECT_LIMIT {
            let (answer, location) = once(call, &ask, &at).await?;
            match location.filter(|_| answer.status.is_redirection() && ask.method == Method::GET) {
                None => return Ok(answer),
                Some(to) if to.starts_with('/') => {
                    let origin = at.find("://").map_or(0, |scheme| scheme + 3);
                    let end = at[origin..].find('/').map_or(at.len(), |path| origin + path);
                    at = format!("{}{to}", &at[..end]);
                }
                Some(to) => at = to,
            }
        }
        Err(format!("stopped after {REDIRECT_LIMIT} redirects"))
    };
    match call.world.clock.timeout(ask.timeout, whole).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(reason)) => Err(format!("{verb} {url:?}: {reason}")),
        Err(_) => {
            let reason = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
            Err(format!("{verb} {url:?}: {reason}"))
        }
    }
}

async fn once(call: &Call, ask: &Ask<'_>, url: &str) -> Result<(Answer, Option<String>), String> {
    let uri: Uri = url.parse().map_err(|_| format!("parse {url:?}: invalid URL"))?;
    let (usual_port, tls) = match (uri.scheme_str(), ask.tls) {
        (Some("http"), _) => (80, None),
        (Some("https"), Some(tls)) => (443, Some(tls)),
        (scheme, _) => return Err(format!("unsupported protocol scheme {:?}", scheme.unwrap_or_default())),
    };
    let host = uri.host().unwrap_or_default();
    let port = uri.port_u16().unwrap_or(usual_port).to_string();
    let address = resolve(call, host, &port).await.map_err(|reason| format!("dial tcp: {reason}"))?;
    let stream = connect(call, address, CONNECT_TIMEOUT).await;
    let mut stream = stream.map_err(|error| go_format::dial_error("tcp", address, &error))?;
    if let Some(tls) = tls {
        let name = host.trim_start_matches('[').trim_end_matches(']').to_string();
        let name = ServerName::try_from(name).map_err(|error| format!("tls: {error}"))?;
        stream = Box::new(tls.connect(name, stream).await.map_err(|error| format!("tls: {error}"))?);
    }
    let mut request = Request::builder().method(&ask.method).uri(&uri).header(USER_AGENT, "Go-http-client/1.1");
    if !ask.body.is_empty() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    if let Some(token) = ask.bearer {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Full::new(ask.body.clone())).map_err(|error| error.to_string())?;
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

/// Sends a datagram and waits for the answer. Without a time it waits for ever; with one, an error of kind `TimedOut` says that
/// none came: a datagram that reaches nobody is lost without a word.
pub(super) async fn exchange_udp(
    call: &Call,
    to: SocketAddr,
    datagram: Bytes,
    timeout: Option<Duration>,
) -> io::Result<Bytes> {
    let exchanging = async {
        let mut flow = match call.world.network.connect_udp(to).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Err(error),
            Err(_) => UdpFlow::lost(),
            Ok(flow) => flow,
        };
        flow.send(datagram)?;
        flow.receive().await.ok_or_else(|| io::ErrorKind::ConnectionRefused.into())
    };
    match timeout {
        Some(timeout) => {
            let answer = call.world.clock.timeout(timeout, exchanging).await;
            answer.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
        }
        None => exchanging.await,
    }
}
