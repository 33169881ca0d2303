//! One HTTP/1.1 request over one stream.

use crate::{BoxedStream, Result};
use bytes::Bytes;
use http::header::{HOST, HeaderValue};
use http::uri::PathAndQuery;
use http::{Request, Response, Uri, Version};
use hyper::body::{Body, Incoming};
use hyper_util::rt::TokioIo;

/// Sends one request on a fresh stream and returns the answer; its body streams, and an upgrade may be taken from it with
/// `hyper::upgrade::on`. The connection lives until the body (or the upgraded stream) is dropped.
///
/// The address is reduced to path and query, and a `Host` is added where there is none.
pub async fn http_over<B>(stream: BoxedStream, mut request: Request<B>) -> Result<Response<Incoming>>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    if !request.headers().contains_key(HOST) {
        let host = request.uri().authority().map_or("localhost", |authority| authority.as_str());
        let host = HeaderValue::from_str(host).map_err(http::Error::from)?;
        request.headers_mut().insert(HOST, host);
    }
    *request.uri_mut() = Uri::from(path);
    *request.version_mut() = Version::HTTP_11;

    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // The connection task ends by itself: with the answer's body, the upgraded stream or the peer.
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "stream ended");
        }
    });
    Ok(sender.send_request(request).await?)
}
