//! Asks a webhook, as a `clientConfig` describes it: HTTPS to a URL, or to a ready endpoint of a Service
//! (`k8s.io/apiserver/pkg/util/webhook/client.go`).

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use minik8s_clock::Clock;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio_rustls::TlsConnector;

use super::fetch::{self, Url};
use super::tls::{self, Trust};
use super::{Outgoing, Place};

/// How much of an error's body is told.
const MAX_TOLD_CHARACTERS: usize = 2048;

/// A webhook's address, and how it is known.
pub struct WebhookClient {
    place: Place,
    /// As its certificate must name it.
    server_name: ServerName<'static>,
    /// `Host` of requests.
    authority: String,
    path: String,
    tls: TlsConnector,
}

/// The bounds of one question.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// How long all of it may take.
    pub timeout: Duration,
    /// How long the answer may be.
    pub answer_bytes: usize,
}

impl WebhookClient {
    /// A client as `clientConfig` describes it.
    pub fn new(config: &Value, clock: &Clock) -> Result<WebhookClient, String> {
        let (place, host, authority, path) = match config["url"].as_str() {
            Some(url) => {
                let url = Url::of(url).map_err(|error| format!("invalid webhook URL {url:?}: {error}"))?;
                // The query is the timeout's.
                let path = url.path.split('?').next().unwrap_or_default().to_owned();
                (Place::Host(url.endpoint.clone()), url.endpoint.host, url.authority, path)
            }
            None => {
                let service = &config["service"];
                let text = |field: &str| service[field].as_str().unwrap_or_default().to_owned();
                let (namespace, name) = (text("namespace"), text("name"));
                let port = service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(443);
                let host = format!("{name}.{namespace}.svc");
                let path = format!("/{}", text("path").trim_start_matches('/'));
                (Place::Service { namespace, name, port }, host.clone(), format!("{host}:{port}"), path)
            }
        };
        let server_name = ServerName::try_from(host).map_err(|error| error.to_string())?;
        let tls = tls::connector(Trust::of_bundle(config["caBundle"].as_str()), None, clock)?;
        Ok(WebhookClient { place, server_name, authority, path, tls })
    }

    /// Posts a JSON document and reads the JSON answer. Errors read as Go's HTTP client says them.
    pub async fn post(&self, outgoing: &Outgoing, body: &Value, bounds: Bounds) -> Result<Value, String> {
        let path = format!("{}?timeout={}s", self.path, bounds.timeout.as_secs());
        let failed = |error: String| format!("Post \"https://{}{path}\": {error}", self.authority);
        let exchange = outgoing.clock().timeout(bounds.timeout, self.exchange(outgoing, &path, body, bounds));
        let (code, bytes) = match exchange.await {
            Err(_) => return Err(failed("context deadline exceeded".to_owned())),
            Ok(Err(error)) => return Err(failed(error)),
            Ok(Ok(answer)) => answer,
        };
        if !(200..300).contains(&code) {
            return Err(refused(code, &bytes));
        }
        serde_json::from_slice(&bytes).map_err(|error| format!("couldn't get version/kind; json parse error: {error}"))
    }

    async fn exchange(
        &self,
        outgoing: &Outgoing,
        path: &str,
        body: &Value,
        bounds: Bounds,
    ) -> Result<(u16, Bytes), String> {
        let stream = outgoing.dial(&outgoing.locate(&self.place).map_err(|error| error.to_string())?).await?;
        let request = Request::post(path)
            .header("host", &self.authority)
            .header("content-type", "application/json")
            .header("accept", "application/json, */*")
            .header("user-agent", "kube-apiserver-admission")
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|error| error.to_string())?;
        fetch::exchange(stream, &self.tls, &self.server_name, request, bounds.answer_bytes).await
    }
}

/// client-go's words for an answer that is an error (`apimachinery/pkg/api/errors` `NewGenericServerResponse`); a `Status`
/// has its own.
fn refused(code: u16, body: &[u8]) -> String {
    let status = serde_json::from_slice::<Value>(body).ok().filter(|body| body["kind"] == "Status");
    if let Some(message) = status.as_ref().and_then(|status| status["message"].as_str()) {
        return message.chars().take(MAX_TOLD_CHARACTERS).collect();
    }
    let told: String = String::from_utf8_lossy(body).trim().chars().take(MAX_TOLD_CHARACTERS).collect();
    match code {
        401 => "the server has asked for the client to provide credentials".to_owned(),
        403 => format!("forbidden: {told}"),
        404 => "the server could not find the requested resource".to_owned(),
        405 => "the server does not allow this method on the requested resource".to_owned(),
        429 => "the server has received too many requests and has asked us to try again later".to_owned(),
        503 => "the server is currently unable to handle the request".to_owned(),
        500.. => format!(
            "an error on the server ({:?}) has prevented the request from succeeding",
            if told.is_empty() { "unknown" } else { &told }
        ),
        _ => "the server rejected our request for an unknown reason".to_owned(),
    }
}
