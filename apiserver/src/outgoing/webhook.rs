//! Calls a webhook: HTTPS to a URL, or to a ready endpoint of a Service (`k8s.io/apiserver/pkg/util/webhook/client.go`).

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::future::{Either, select};
use http::{Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use minik8s_api::kinds::GroupResource;
use minik8s_clock::Clock;
use minik8s_streaming::BoxedStream;
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::cache::Objects;
use crate::endpoints::connect::ServiceDialer;

/// How much of an answer is read.
const MAX_ANSWER_BYTES: usize = 3 * 1024 * 1024;

/// How much of an error's body is told.
const MAX_TOLD_CHARACTERS: usize = 2048;

/// What the client goes by.
pub(super) struct Network {
    pub objects: Arc<dyn Objects>,
    /// The way to Services; without it, there is none.
    pub dialer: Option<Arc<dyn ServiceDialer>>,
    pub clock: Clock,
}

/// Where a webhook is.
#[derive(Debug)]
enum Place {
    /// Host and port on the server's own network.
    Host(String, u16),
    /// Namespace, name and port of a Service.
    Service(String, String, u16),
}

/// A webhook's address, and how it is known.
pub(super) struct WebhookClient {
    place: Place,
    /// As its certificate must name it.
    server_name: ServerName<'static>,
    /// `Host` of requests.
    authority: String,
    path: String,
    tls: TlsConnector,
}

impl WebhookClient {
    /// A client as `clientConfig` describes it.
    pub(super) fn new(config: &Value, clock: &Clock) -> Result<WebhookClient, String> {
        let (place, host, authority, path) = match config["url"].as_str() {
            Some(url) => {
                let uri: Uri = url.parse().map_err(|error| format!("invalid webhook URL {url:?}: {error}"))?;
                let host = uri.host().ok_or_else(|| format!("invalid webhook URL {url:?}: no host"))?;
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                let port = uri.port_u16().unwrap_or(443);
                let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
                (Place::Host(host.clone(), port), host, authority, uri.path().to_owned())
            }
            None => {
                let service = &config["service"];
                let text = |field: &str| service[field].as_str().unwrap_or_default();
                let port = service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(443);
                let host = format!("{}.{}.svc", text("name"), text("namespace"));
                let path = format!("/{}", text("path").trim_start_matches('/'));
                let place = Place::Service(text("namespace").to_owned(), text("name").to_owned(), port);
                (place, host.clone(), format!("{host}:{port}"), path)
            }
        };
        let server_name = ServerName::try_from(host).map_err(|error| error.to_string())?;
        let tls = TlsConnector::from(Arc::new(tls(config["caBundle"].as_str(), clock)?));
        Ok(WebhookClient { place, server_name, authority, path, tls })
    }

    /// Posts a JSON document and reads the JSON answer, within a time. Errors read as Go's HTTP client says them.
    pub(super) async fn post(&self, network: &Network, body: &Value, timeout: Duration) -> Result<Value, String> {
        let path = format!("{}?timeout={}s", self.path, timeout.as_secs());
        let failed = |error: String| format!("Post \"https://{}{path}\": {error}", self.authority);
        let exchange = network.clock.timeout(timeout, self.exchange(network, &path, body));
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

    async fn exchange(&self, network: &Network, path: &str, body: &Value) -> Result<(u16, Bytes), String> {
        let stream = self.connect(network).await?;
        let stream = self.tls.connect(self.server_name.clone(), stream).await;
        let stream = stream.map_err(|error| tls_words(&error, &self.server_name))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
        let request = Request::post(path)
            .header("host", &self.authority)
            .header("content-type", "application/json")
            .header("accept", "application/json, */*")
            .header("user-agent", "kube-apiserver-admission")
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|error| error.to_string())?;
        let asked = Box::pin(async move {
            let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
            let code = response.status().as_u16();
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
            Ok((code, body.map_err(|error| error.to_string())?.to_bytes()))
        });
        // The connection has no task of its own: it lives as long as the question.
        match select(asked, Box::pin(connection)).await {
            Either::Left((answer, _)) => answer,
            Either::Right((_, asked)) => asked.await,
        }
    }

    async fn connect(&self, network: &Network) -> Result<BoxedStream, String> {
        match &self.place {
            Place::Host(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await;
                Ok(Box::new(stream.map_err(|error| dial_words(host, *port, &error))?))
            }
            Place::Service(namespace, name, port) => {
                let (address, port) = endpoint(&*network.objects, namespace, name, *port)?;
                let none = || format!("dial tcp {address}:{port}: connect: no route to host");
                let dialer = network.dialer.as_ref().ok_or_else(none)?;
                dialer.dial(&address, port).await.map_err(|error| dial_words(&address, port, &error))
            }
        }
    }
}

/// Address and port of a ready endpoint of a Service's port.
fn endpoint(objects: &dyn Objects, namespace: &str, name: &str, port: u16) -> Result<(String, u16), String> {
    let service = objects.get(&GroupResource::new("", "services"), namespace, name);
    let service = service.ok_or_else(|| format!("service {name:?} not found"))?.value();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let ports = list(&service["spec"]["ports"]);
    let wanted = ports.iter().find(|own| own["port"].as_u64() == Some(port.into()));
    let wanted = wanted.ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let slices = GroupResource::new("discovery.k8s.io", "endpointslices");
    for slice in objects.list(&slices, Some(namespace)) {
        if slice.label("kubernetes.io/service-name") != Some(name) {
            continue;
        }
        let slice = slice.value();
        let number = list(&slice["ports"]).iter().find(|own| text(&own["name"]) == text(&wanted["name"])).cloned();
        let ready = list(&slice["endpoints"]).into_iter().find(|endpoint| endpoint["conditions"]["ready"] != false);
        let number = number.and_then(|own| own["port"].as_u64()).and_then(|number| u16::try_from(number).ok());
        if let (Some(endpoint), Some(number)) = (ready, number)
            && let Some(address) = endpoint["addresses"][0].as_str()
        {
            return Ok((address.to_owned(), number));
        }
    }
    Err(format!("no endpoints available for service {name:?}"))
}

/// Trusts a bundle, or what the world trusts.
fn tls(bundle: Option<&str>, clock: &Clock) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match bundle.filter(|bundle| !bundle.is_empty()) {
        Some(bundle) => {
            let pem = STANDARD.decode(bundle).map_err(|error| format!("caBundle: {error}"))?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|error| format!("caBundle: {error}"))?;
                roots.add(certificate).map_err(|error| format!("caBundle: {error}"))?;
            }
        }
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
    let verifier = verifier.map_err(|_| "unable to load root certificates: unable to parse bytes as PEM block")?;
    let builder = ClientConfig::builder_with_details(provider, Arc::new(ClockTime(clock.clone())))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(builder.with_webpki_verifier(verifier).with_no_client_auth())
}

/// Certificates are good or expired by the cluster's clock.
struct ClockTime(Clock);

impl fmt::Debug for ClockTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClockTime")
    }
}

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

fn dial_words(host: &str, port: u16, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("dial tcp {host}:{port}: connect: connection refused"),
        _ => format!("dial tcp {host}:{port}: {error}"),
    }
}

/// Go's words for a certificate that is not trusted.
fn tls_words(error: &io::Error, name: &ServerName<'_>) -> String {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(cause)) = cause else { return error.to_string() };
    let words = match cause {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "certificate signed by unknown authority".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "certificate has expired or is not yet valid".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("certificate is not valid for any names, but wanted to match {}", name.to_str())
        }
        other => other.to_string(),
    };
    format!("tls: failed to verify certificate: x509: {words}")
}

/// client-go's words for an answer that is an error (`apimachinery/pkg/api/errors` `NewGenericServerResponse`).
fn refused(code: u16, body: &[u8]) -> String {
    let told: String = String::from_utf8_lossy(body).trim().chars().take(MAX_TOLD_CHARACTERS).collect();
    match code {
        401 => "the server has asked for the client to provide credentials".to_owned(),
        403 => format!("forbidden: {told}"),
        404 => "the server could not find the requested resource".to_owned(),
        405 => "the server does not allow this method on the requested resource".to_owned(),
        503 => "the server is currently unable to handle the request".to_owned(),
        500.. => format!(
            "an error on the server ({:?}) has prevented the request from succeeding",
            if told.is_empty() { "unknown" } else { &told }
        ),
        _ => "the server rejected our request for an unknown reason".to_owned(),
    }
}
