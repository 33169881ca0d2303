//! Connections: TLS with client certificates, both versions of HTTP, and streams that pass through to a kubelet.

#![allow(clippy::disallowed_methods, reason = "keys of tests may come from anywhere")]

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use minik8s_apiserver::server::Limits;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::server::TestServer;

/// A CA and the key it signs with.
pub struct Authority {
    pub issuer: Issuer<'static, KeyPair>,
    pub certificate: CertificateDer<'static>,
}

pub type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);

impl Authority {
    pub fn new() -> Authority {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate").der().clone();
        Authority { issuer: Issuer::new(params, key), certificate }
    }

    pub fn issue(&self, common_name: &str, organization: Option<&str>, purpose: ExtendedKeyUsagePurpose) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, common_name);
        if let Some(organization) = organization {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        params.extended_key_usages = vec![purpose];
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate").der().clone();
        (certificate, PrivateKeyDer::try_from(key.serialize_der()).expect("a key"))
    }
}

/// A server that listens.
pub struct Listening {
    pub authority: Authority,
    pub server: TestServer,
    pub address: std::net::SocketAddr,
    shutdown: CancellationToken,
    serving: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Listening {
    async fn start() -> Listening {
        Listening::with_limits(Limits::default()).await
    }

    pub async fn with_limits(limits: Limits) -> Listening {
        let authority = Authority::new();
        let server = {
            let ca = authority.certificate.clone();
            TestServer::with(|config| (config.client_ca, config.limits) = (vec![ca], limits)).await
        };
        Listening::by(authority, server).await
    }

    /// A server that knows clients by the certificates of an authority, and shows one of it itself.
    pub async fn by(authority: Authority, server: TestServer) -> Listening {
        let (certificate, key) = authority.issue("server", None, ExtendedKeyUsagePurpose::ServerAuth);
        let tls = server.server.tls(vec![certificate], key).expect("a TLS configuration");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (address, shutdown) = (listener.local_addr().expect("an address"), CancellationToken::new());
        let (own, until) = (Arc::clone(&server.server), shutdown.clone());
        let serving = tokio::spawn(async move { own.serve(listener, tls, until).await });
        Listening { authority, server, address, shutdown, serving }
    }

    pub async fn connect(&self, identity: Option<Identity>, protocol: &[u8]) -> TlsStream<TcpStream> {
        self.try_connect(identity, protocol).await.expect("TLS")
    }

    pub async fn try_connect(
        &self,
        identity: Option<Identity>,
        protocol: &[u8],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.certificate.clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
        let builder = builder.with_root_certificates(roots);
        let mut config = match identity {
            Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).expect("an identity"),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    pub fn client(&self, user: &str, group: Option<&str>) -> Option<Identity> {
        Some(self.authority.issue(user, group, ExtendedKeyUsagePurpose::ClientAuth))
    }

    pub async fn http1(&self, identity: Option<Identity>, request: Request<Empty<Bytes>>) -> Response<Incoming> {
        let stream = TokioIo::new(self.connect(identity, b"http/1.1").await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.expect("HTTP");
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await.expect("an answer")
    }
}

pub fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(path).header("host", "localhost").body(Empty::new()).expect("a request")
}

async fn json_of(response: Response<Incoming>) -> Value {
    serde_json::from_slice(&response.into_body().collect().await.expect("a body").to_bytes()).expect("JSON")
}

#[tokio::test]
async fn a_certificate_says_who_asks() {
    let listening = Listening::start().await;
    let master = listening.client("kubernetes-admin", Some("system:masters"));
    assert_eq!(listening.http1(master, get("/api/v1/nodes")).await.status(), 200);
    let somebody = listening.client("jane", None);
    let refused = json_of(listening.http1(somebody, get("/api/v1/nodes")).await).await;
    assert_eq!(
        refused["message"],
        "nodes is forbidden: User \"jane\" cannot list resource \"nodes\" in API group \"\" at the cluster scope"
    );
    let anonymous = json_of(listening.http1(None, get("/api/v1/nodes")).await).await;
    assert!(anonymous["message"].as_str().is_some_and(|text| text.contains("User \"system:anonymous\"")));
}

#[tokio::test]
async fn http_2_carries_watches_and_the_server_takes_leave() {
    let listening = Listening::start().await;
    let stream = TokioIo::new(listening.connect(listening.client("admin", Some("system:masters")), b"h2").await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    let watch =
        Request::get("https://localhost/api/v1/namespaces?watch=1").body(Empty::<Bytes>::new()).expect("a request");
    let mut watch = sender.send_request(watch).await.expect("an answer").into_body();
    let first = watch.frame().await.expect("a frame").expect("a frame").into_data().expect("data");
    assert!(first.starts_with(br#"{"type":"ADDED","object":{"kind":"Namespace""#));
    listening.shutdown.cancel();
    listening.server.server.shutdown_token().cancel();
    listening.serving.await.expect("a task").expect("a clean end");
}

#[tokio::test]
async fn streams_pass_through_to_the_kubelet() {
    let listening = Listening::start().await;
    let server = &listening.server;
    server.namespace("ns").await;
    for (name, node) in [("p", "n1"), ("q", "n2")] {
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name }, "spec": { "nodeName": node, "containers": [{ "name": "c", "image": "nginx" }] } });
        server.post("/api/v1/namespaces/ns/pods", &pod).await.expect(201);
    }
    let pods = "/api/v1/namespaces/ns/pods";
    assert_eq!(server.get(&format!("{pods}/p/log?tailLines=1")).await.bytes, "/containerLogs/ns/p/c?tailLines=1");
    let refused = server.get(&format!("{pods}/p/log?previous=true")).await;
    assert_eq!(
        (refused.code, refused.message().as_str()),
        (400, "previous terminated container \"c\" in pod \"p\" not found")
    );
    let dead = server.get(&format!("{pods}/q/log")).await;
    assert!(dead.code == 500 && dead.message().contains("connect: connection refused"), "{dead:?}");

    let exec = Request::get(format!("{pods}/p/exec?command=sh&stdout=true"))
        .header("host", "localhost")
        .header(UPGRADE, "shout")
        .header(CONNECTION, "Upgrade")
        .body(Empty::new())
        .expect("a request");
    let master = listening.client("admin", Some("system:masters"));
    let mut switched = listening.http1(master, exec).await;
    assert_eq!(switched.status(), 101);
    let mut stream = TokioIo::new(hyper::upgrade::on(&mut switched).await.expect("switched"));
    stream.write_all(b"hello").await.expect("an open stream");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert_eq!(answer, "HELLO");
}

/// Clients such as Python's send the whole body before they listen, and go on with the same connection.
#[tokio::test]
async fn an_answer_that_needs_no_body_comes_after_it_on_a_connection_that_stays() {
    let listening = Listening::start().await;
    let master = listening.client("kubernetes-admin", Some("system:masters"));
    let mut stream = listening.connect(master, b"http/1.1").await;
    let body = vec![b'x'; 5 << 20];
    for path in ["/nothing", "/api/v1/namespaces?dryRun=nonsense", "/nothing"] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.expect("a connection that is open");
        stream.write_all(&body).await.expect("a server that reads it all");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\n") && !answer.ends_with(b"}") {
            assert_ne!(stream.read_buf(&mut answer).await.expect("an answer"), 0, "{path}: the connection is closed");
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
        assert!(!answer.contains("connection: close"), "{answer}");
    }
}
