//! Requests for other servers, passed on (`kube-aggregator/pkg/apiserver/handler_proxy.go`).

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::{ACCEPT, FORWARDED, HOST, HeaderName, HeaderValue};
use http::{Request as HttpRequest, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use minik8s_streaming::BoxedStream;
use minik8s_streaming::proxy::forward;

use super::Aggregator;
use super::front_proxy::{self, introduce};
use super::services::{ApiService, Remote};
use crate::endpoints::held::Held;
use crate::endpoints::resource::Request;
use crate::outgoing::{Endpoint, ServicePort, tls};
use crate::places::Place;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// An answer of another server, read to its end.
pub(super) struct Answer {
    pub code: u16,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

/// Passes a request on to the server that an APIService names; what cannot be passed on is answered as text, as
/// Kubernetes does. The connection has the place as long as it lasts.
pub async fn passed_on(
    aggregator: &Aggregator,
    service: &ApiService,
    place: Place,
    request: Request,
    body: Body,
) -> Response<Body> {
    let reply = request.reply.clone();
    let text = |code: StatusCode, words: &str| reply.text(code, format!("{words}\n"));
    let Some(remote) = service.remote.as_ref().filter(|_| service.available) else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "service unavailable");
    };
    if let Err(error) = &remote.tls {
        return text(StatusCode::INTERNAL_SERVER_ERROR, error);
    }
    let outgoing = &aggregator.outgoing;
    let endpoint = match outgoing.resolve(&remote.namespace, &remote.service, ServicePort::Number(remote.port)) {
        Ok(endpoint) => endpoint,
        Err(error) => {
            tracing::warn!(apiservice = service.name, %error, "a request could not be passed on");
            return text(StatusCode::SERVICE_UNAVAILABLE, "service unavailable");
        }
    };
    let unreachable =
        |error: String| text(StatusCode::SERVICE_UNAVAILABLE, &format!("error trying to reach service: {error}"));
    let stream = match aggregator.connect(remote, &endpoint).await {
        Ok(stream) => stream,
        Err(error) => return unreachable(error),
    };
    let sent = match outbound(request, &endpoint, body) {
        Ok(sent) => sent,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, &error),
    };
    match forward(sent, Box::new(Held::new(stream, place))).await {
        Ok(answer) => answer.map(Body::new),
        Err(error) => unreachable(error.to_string()),
    }
}

/// The request as the other server gets it.
fn outbound(request: Request, endpoint: &Endpoint, body: Body) -> Result<HttpRequest<Body>, String> {
    let Request { mut parts, user, info, .. } = request;
    // The path that was authorized, and no other that the other server could read in the one that was sent.
    let mut path = escaped(&info.path);
    if let Some(query) = parts.uri.query() {
        path = format!("{path}?{query}");
    }
    let asked = parts.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    let asked = parts.headers.get(HOST).cloned().or(asked);
    introduce(&mut parts.headers, &user);
    parts.headers.remove(FORWARDED);
    if let Some(asked) = asked {
        parts.headers.insert(FORWARDED_HOST, asked);
    }
    parts.headers.insert(FORWARDED_PROTO, HeaderValue::from_static("https"));
    if let Ok(uri) = HeaderValue::from_str(&path) {
        parts.headers.insert(FORWARDED_URI, uri);
    }
    parts.headers.insert(HOST, HeaderValue::from_str(&endpoint.to_string()).map_err(|error| error.to_string())?);
    parts.uri = path.parse::<Uri>().map_err(|error| error.to_string())?;
    Ok(HttpRequest::from_parts(parts, body))
}

/// A path as Go writes it into a URL.
fn escaped(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => escaped.push(char::from(byte)),
            b'-' | b'_' | b'.' | b'~' | b'$' | b'&' | b'+' | b',' | b'/' | b':' | b';' | b'=' | b'@' => {
                escaped.push(char::from(byte));
            }
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    escaped
}

impl Aggregator {
    /// TLS with an endpoint of another server.
    pub(super) async fn connect(&self, remote: &Remote, endpoint: &Endpoint) -> Result<BoxedStream, String> {
        let trusted = remote.tls.as_ref().map_err(Clone::clone)?;
        let connecting = async {
            let stream = self.outgoing.dial(endpoint).await?;
            tls::handshake(&trusted.connector, &trusted.name, stream).await
        };
        let connected = self.outgoing.clock().timeout(CONNECT_TIMEOUT, connecting).await;
        connected.unwrap_or_else(|_| Err(format!("dial tcp {endpoint}: i/o timeout")))
    }

    /// Asks an endpoint of another server on behalf of this one, and reads the answer up to `max_bytes`.
    pub(super) async fn ask(
        &self,
        remote: &Remote,
        endpoint: &Endpoint,
        path: &str,
        accept: &str,
        max_bytes: usize,
    ) -> Result<Answer, String> {
        let stream = self.connect(remote, endpoint).await?;
        let request = HttpRequest::get(path).header(HOST, endpoint.to_string()).header(ACCEPT, accept);
        let mut request = request.body(Body::empty()).map_err(|error| error.to_string())?;
        introduce(request.headers_mut(), &front_proxy::aggregator());
        let answer = forward(request, stream).await.map_err(|error| error.to_string())?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, max_bytes).collect().await.map_err(|error| error.to_string())?;
        Ok(Answer { code: parts.status.as_u16(), headers: parts.headers, body: body.to_bytes() })
    }
}
