//! Another server for a test: HTTPS on the loopback interface, as a pod or a program on the machine would be.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use minik8s_apiserver::outgoing::ServiceDialer;
use minik8s_streaming::BoxedStream;
use parking_lot::Mutex;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::server::TestServer;

/// The address of the pod that every remote server is; [`Loopback`] knows no other.
pub const POD: &str = "10.128.0.7";

/// Every pod is on the loopback interface.
pub struct Loopback;

#[async_trait]
impl ServiceDialer for Loopback {
    async fn dial(&self, host: &str, port: u16) -> io::Result<BoxedStream> {
        assert!([POD, "127.0.0.1", "localhost"].contains(&host), "{host}");
        Ok(Box::new(TcpStream::connect(("127.0.0.1", port)).await?))
    }
}

/// What a remote server was asked.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Whether the client showed a certificate by the authority that the server trusts.
    pub known: bool,
}

impl Asked {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    pub fn header(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect()
    }
}

type Answer = dyn Fn(&Asked) -> Response<Full<Bytes>> + Send + Sync;

/// A remote server, and what it was asked.
pub struct Remote {
    pub port: u16,
    /// The bundle that trusts it.
    pub ca: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

pub fn json_answer(value: &Value) -> Response<Full<Bytes>> {
    let response = Response::builder().header("content-type", "application/json");
    response.body(Full::from(value.to_string())).expect("a response")
}

pub fn text_answer(code: u16, text: &str) -> Response<Full<Bytes>> {
    Response::builder().status(code).body(Full::from(text.to_owned())).expect("a response")
}

impl Remote {
    /// A server that is `name`, and knows clients by the certificates of `clients`.
    pub async fn start(
        name: &str,
        clients: Option<CertificateDer<'static>>,
        answer: impl Fn(&Asked) -> Response<Full<Bytes>> + Send + Sync + 'static,
    ) -> Remote {
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned(), name.to_owned()];
        let own = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let mut roots = RootCertStore::empty();
                roots.add(ca).expect("a root");
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.allow_unauthenticated().build().expect("a verifier"))
            }
        };
        let tls = builder.with_single_cert(vec![own.cert.der().clone()], key).expect("the key fits");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (asked, answer): (Arc<Mutex<Vec<Asked>>>, Arc<Answer>) = (Arc::default(), Arc::new(answer));
        tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(tls)), Arc::clone(&asked), answer));
        Remote { port, ca: STANDARD.encode(own.cert.pem()), asked }
    }

    /// What it was asked so far, but for what the server asks by itself.
    pub fn asked(&self) -> Vec<Asked> {
        let asked = self.asked.lock().clone();
        asked.into_iter().filter(|asked| asked.header("x-remote-user") != ["system:kube-aggregator"]).collect()
    }

    /// A Service of that name in the namespace `default`, with this server behind it.
    pub async fn service(&self, server: &TestServer, name: &str) {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
            "spec": { "ports": [{ "name": "https", "port": 443, "targetPort": "tls" }] },
        });
        server.post("/api/v1/namespaces/default/services", &service).await.expect(201);
        self.slice(server, name).await;
    }

    /// The endpoints of that Service.
    pub async fn slice(&self, server: &TestServer, name: &str) {
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": { "name": format!("{name}-1"), "labels": { "kubernetes.io/service-name": name } },
            "endpoints": [
                { "addresses": ["10.128.0.8"], "conditions": { "ready": false } },
                { "addresses": [POD], "conditions": { "ready": true } },
            ],
            "ports": [{ "name": "metrics", "port": 1 }, { "name": "https", "port": self.port }],
        });
        server.post("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", &slice).await.expect(201);
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, asked: Arc<Mutex<Vec<Asked>>>, answer: Arc<Answer>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (asked, answer, tls) = (Arc::clone(&asked), Arc::clone(&answer), tls.clone());
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let known = stream.get_ref().1.peer_certificates().is_some();
            let service = service_fn(move |request: Request<Incoming>| {
                let (asked, answer) = (Arc::clone(&asked), Arc::clone(&answer));
                async move { Ok::<_, Infallible>(respond(request, known, &asked, &*answer).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            drop(connection.with_upgrades().await);
        });
    }
}

async fn respond(
    mut request: Request<Incoming>,
    known: bool,
    asked: &Mutex<Vec<Asked>>,
    answer: &Answer,
) -> Response<Full<Bytes>> {
    let upgrade = request.headers().contains_key(UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let (method, path) = (parts.method.to_string(), parts.uri.to_string());
    let one = Asked { method, path, headers: parts.headers, body, known };
    asked.lock().push(one.clone());
    let Some(upgrade) = upgrade else { return answer(&one) };
    tokio::spawn(async move {
        let mut stream = TokioIo::new(upgrade.await.expect("the client switches"));
        let mut word = [0; 5];
        stream.read_exact(&mut word).await.expect("five bytes");
        word.make_ascii_uppercase();
        stream.write_all(&word).await.expect("an open stream");
        stream.shutdown().await.expect("an open stream");
    });
    let switching = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).header(UPGRADE, "shout");
    switching.header(CONNECTION, "Upgrade").body(Full::default()).expect("a response")
}
