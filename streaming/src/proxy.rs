//! A request passed on to the next hop, with its upgrade.

use crate::{BoxedStream, Result, http_over};
use bytes::Bytes;
use http::header::{CONNECTION, HeaderMap, HeaderName, UPGRADE};
use http::{Request, Response, StatusCode};
use hyper::body::{Body, Incoming};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

/// Headers that belong to one hop (RFC 9110, section 7.6.1), so a proxy does not pass them on. `Connection` and `Upgrade`
/// are kept where the hop asks for an upgrade.
const HOP_BY_HOP: [HeaderName; 4] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    http::header::TE,
    http::header::TRANSFER_ENCODING,
];

/// Sends `request` on `stream` and returns the answer for the client.
///
/// Where the upstream agrees to an upgrade (101), both directions are spliced in a task of their own once the client's
/// connection has switched too; each direction ends by itself. Otherwise the body streams through, as `logs -f` needs.
/// `k8s.io/apimachinery/pkg/util/proxy/upgradeaware.go`.
pub async fn forward<B>(mut request: Request<B>, stream: BoxedStream) -> Result<Response<Incoming>>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let upgrade = request.headers().contains_key(UPGRADE).then(|| hyper::upgrade::on(&mut request));
    strip_hop_by_hop(request.headers_mut(), upgrade.is_some());
    let mut response = http_over(stream, request).await?;
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if let (true, Some(client)) = (switched, upgrade) {
        let upstream = hyper::upgrade::on(&mut response);
        tokio::spawn(async move {
            match tokio::try_join!(client, upstream) {
                Ok((client, upstream)) => splice(TokioIo::new(client), TokioIo::new(upstream)).await,
                Err(error) => tracing::debug!(%error, "upgrade was not completed"),
            }
        });
    } else {
        strip_hop_by_hop(response.headers_mut(), false);
    }
    Ok(response)
}

/// Copies both directions until both have ended. They end apart: what the upstream still has to say (the exit of a command)
/// reaches a client whose own bytes nobody takes any more.
async fn splice<A, B>(client: A, upstream: B)
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_upstream, mut to_upstream) = tokio::io::split(upstream);
    let forth = async {
        let copied = tokio::io::copy(&mut from_client, &mut to_upstream).await;
        (copied, to_upstream.shutdown().await)
    };
    let back = async {
        let copied = tokio::io::copy(&mut from_upstream, &mut to_client).await;
        (copied, to_client.shutdown().await)
    };
    let ended = tokio::join!(forth, back);
    tracing::debug!(?ended, "upgraded stream ended");
}

fn strip_hop_by_hop(headers: &mut HeaderMap, keep_upgrade: bool) {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    if !keep_upgrade {
        headers.remove(CONNECTION);
        headers.remove(UPGRADE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, Empty, Full};
    use hyper::service::service_fn;
    use std::convert::Infallible;
    use tokio::io::AsyncReadExt;

    /// Serves one connection on the far end of a pair and returns the near end.
    fn serve<F, Fut, B>(answer: F) -> BoxedStream
    where
        F: Fn(Request<Incoming>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (near, far) = crate::pair();
        let answer = std::sync::Arc::new(answer);
        let service = service_fn(move |request| {
            let answer = answer.clone();
            async move { Ok::<_, Infallible>(answer(request).await) }
        });
        tokio::spawn(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), service).with_upgrades(),
        );
        near
    }

    /// An upstream that switches protocols and sends back every byte in upper case until end of file, then says so.
    async fn shout(mut request: Request<Incoming>) -> Response<Empty<Bytes>> {
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgraded.await.expect("the client switches"));
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).await.expect("read");
            heard.make_ascii_uppercase();
            stream.write_all(&heard).await.expect("write");
            stream.shutdown().await.expect("shutdown");
        });
        let response = Response::builder().status(101).header(UPGRADE, "shout").header(CONNECTION, "Upgrade");
        response.body(Empty::new()).expect("valid response")
    }

    #[tokio::test]
    async fn an_upgrade_is_spliced_and_half_closed() {
        let proxy = serve(|request| async move { forward(request, serve(shout)).await.expect("upstream answers") });
        let request = Request::get("/exec").header(UPGRADE, "shout").header(CONNECTION, "Upgrade");
        let mut response = http_over(proxy, request.body(Empty::<Bytes>::new()).expect("valid")).await.expect("answer");
        assert_eq!(response.status(), 101);
        let mut stream = TokioIo::new(hyper::upgrade::on(&mut response).await.expect("switched"));
        stream.write_all(b"hello").await.expect("write");
        stream.shutdown().await.expect("half close");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("read");
        assert_eq!(answer, "HELLO");
    }

    #[tokio::test]
    async fn a_plain_request_passes_with_body_and_status() {
        let proxy = serve(|request| async move {
            let upstream = serve(|request: Request<Incoming>| async move {
                let path = request.uri().path().to_string();
                let body = request.into_body().collect().await.expect("body").to_bytes();
                let text = format!("{path}: {}", String::from_utf8_lossy(&body));
                Response::builder().status(418).body(Full::new(Bytes::from(text))).expect("valid")
            });
            forward(request, upstream).await.expect("upstream answers")
        });
        let request = Request::post("http://node/stats?x=1").body(Full::new(Bytes::from("hi"))).expect("valid");
        let response = http_over(proxy, request).await.expect("answer");
        assert_eq!(response.status(), 418);
        let body = response.into_body().collect().await.expect("body").to_bytes();
        assert_eq!(body, "/stats: hi");
    }
}
