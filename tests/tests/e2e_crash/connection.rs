//! One HTTPS connection to the API server, with the certificate that the kubeconfig gives its user: a plain client that
//! retries nothing, so that a test knows exactly what was answered.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Where the API server is, and who asks.
pub struct Credentials {
    address: String,
    tls: TlsConnector,
}

impl Credentials {
    /// Those of the only cluster in a kubeconfig.
    pub fn read(kubeconfig: &Path) -> Result<Self> {
        let config: Value = serde_yaml::from_str(&std::fs::read_to_string(kubeconfig)?)?;
        let text = |pointer: &str| {
            let value = config.pointer(pointer).and_then(Value::as_str);
            value.ok_or_else(|| anyhow!("the kubeconfig has no {pointer}"))
        };
        let pem = |pointer: &str| Ok::<_, anyhow::Error>(STANDARD.decode(text(pointer)?)?);
        let mut authorities = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem("/clusters/0/cluster/certificate-authority-data")?) {
            authorities.add(certificate?)?;
        }
        let chain =
            CertificateDer::pem_slice_iter(&pem("/users/0/user/client-certificate-data")?).collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(&pem("/users/0/user/client-key-data")?)?;
        let tls = ClientConfig::builder().with_root_certificates(authorities).with_client_auth_cert(chain, key)?;
        let address = text("/clusters/0/cluster/server")?.trim_start_matches("https://").to_owned();
        Ok(Self { address, tls: TlsConnector::from(Arc::new(tls)) })
    }

    /// Connects.
    pub async fn connect(&self) -> Result<Connection> {
        let stream = TcpStream::connect(&self.address).await?;
        let stream = self.tls.connect(ServerName::try_from("127.0.0.1")?, stream).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // How it ends is told by the requests on it.
        tokio::spawn(connection);
        Ok(Connection { sender })
    }
}

/// A connection.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    async fn request(&mut self, method: Method, path: &str, body: Option<&Value>) -> Result<Response<Incoming>> {
        let media_type = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "127.0.0.1")
            .header("content-type", media_type)
            .body(Full::from(body))?;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }

    /// Asks, and reads the whole answer.
    pub async fn send(&mut self, method: Method, path: &str, body: Option<&Value>) -> Result<(StatusCode, Value)> {
        let response = self.request(method, path, body).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, serde_json::from_slice(&body).with_context(|| String::from_utf8_lossy(&body).into_owned())?))
    }

    /// Asks for a watch.
    pub async fn watch(mut self, path: &str) -> Result<(StatusCode, Watch)> {
        let response = self.request(Method::GET, path, None).await?;
        Ok((response.status(), Watch { body: response.into_body(), read: Vec::new(), _connection: self }))
    }
}

/// The lines of a watch.
pub struct Watch {
    body: Incoming,
    read: Vec<u8>,
    _connection: Connection,
}

impl Watch {
    /// The next event; none where the watch ended.
    pub async fn next(&mut self) -> Result<Option<Value>> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            if let Ok(data) = frame?.into_data() {
                self.read.extend_from_slice(&data);
            }
        }
    }
}
