//! One question over a connection of its own: HTTP/1.1 over TLS. Everything of it (name, dial, TLS, answer) ends with
//! the caller's timeout.

use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use http::{Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use minik8s_streaming::BoxedStream;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::tls;
use super::{Endpoint, Outgoing};

const HTTPS_PORT: u16 = 443;
/// How much of a refusal is told.
const MAX_TOLD_BYTES: usize = 256;

/// Where an `https` URL leads.
#[derive(Debug, Clone)]
pub struct Url {
    /// Host, without brackets, and port.
    pub endpoint: Endpoint,
    /// `Host` of requests.
    pub authority: String,
    /// Path, and query if there is one.
    pub path: String,
}

impl Url {
    /// Reads a URL, whose scheme is taken to be `https`.
    pub fn of(url: &str) -> Result<Url, String> {
        let uri: Uri = url.parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
        let host = uri.host().ok_or("no host")?.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Url {
            endpoint: Endpoint { host, port: uri.port_u16().unwrap_or(HTTPS_PORT) },
            authority: uri.authority().map(ToString::to_string).unwrap_or_default(),
            path: uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        })
    }

    /// The name that its server's certificate must have.
    pub fn server_name(&self) -> Result<ServerName<'static>, String> {
        ServerName::try_from(self.endpoint.host.clone()).map_err(|error| error.to_string())
    }
}

/// Sends a request over a stream that is connected; answers the code and at most `answer_bytes` of body.
pub async fn exchange(
    stream: BoxedStream,
    connector: &TlsConnector,
    name: &ServerName<'static>,
    request: Request<Full<Bytes>>,
    answer_bytes: usize,
) -> Result<(u16, Bytes), String> {
    let stream = tls::handshake(connector, name, stream).await?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    let asked = Box::pin(async move {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let code = response.status().as_u16();
        let body = Limited::new(response.into_body(), answer_bytes).collect().await;
        Ok((code, body.map_err(|error| error.to_string())?.to_bytes()))
    });
    // The connection has no task of its own: it lives as long as the question.
    match select(asked, Box::pin(connection)).await {
        Either::Left((answer, _)) => answer,
        Either::Right((_, asked)) => asked.await,
    }
}

/// Reads a JSON document. Errors read as Go's HTTP client says them.
pub async fn get(
    outgoing: &Outgoing,
    url: &str,
    connector: &TlsConnector,
    timeout: Duration,
    answer_bytes: usize,
) -> Result<Bytes, String> {
    let failed = |error: String| format!("Get {url:?}: {error}");
    let place = Url::of(url).map_err(|error| format!("invalid URL {url:?}: {error}"))?;
    let request = Request::get(&place.path)
        .header("host", &place.authority)
        .header("accept", "application/json")
        .header("user-agent", "kube-apiserver")
        .body(Full::default())
        .map_err(|error| error.to_string())?;
    let name = place.server_name()?;
    let asked =
        async { exchange(outgoing.dial(&place.endpoint).await?, connector, &name, request, answer_bytes).await };
    match outgoing.clock().timeout(timeout, asked).await {
        Err(_) => Err(failed("context deadline exceeded".to_owned())),
        Ok(Err(error)) => Err(failed(error)),
        Ok(Ok((200, bytes))) => Ok(bytes),
        Ok(Ok((code, bytes))) => {
            let told = &bytes[..bytes.len().min(MAX_TOLD_BYTES)];
            Err(failed(format!("unexpected status {code}: {}", String::from_utf8_lossy(told))))
        }
    }
}
