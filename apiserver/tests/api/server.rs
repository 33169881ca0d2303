//! A server for a test, and a client that speaks to its service.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use minik8s_apiserver::authn::StaticTokens;
use minik8s_apiserver::authn::jwt::SigningKey;
use minik8s_apiserver::endpoints::connect::NodeConnector;
use minik8s_apiserver::identity::UserInfo;
use minik8s_apiserver::outgoing::{MachineNetwork, ServiceDialer};
use minik8s_apiserver::server::{ApiServer, Config, Limits};
use minik8s_clock::{Clock, Random, Simulation};
use minik8s_store::{MemoryStore, Store};
use minik8s_streaming::BoxedStream;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// Nodes, of which only `n1` answers: it says what it was asked, and turns an upgraded stream to upper case.
struct Nodes;

#[async_trait]
impl NodeConnector for Nodes {
    async fn connect(&self, node: &str) -> io::Result<BoxedStream> {
        if node != "n1" {
            let refused = format!("dial tcp {node}:10250: connect: connection refused");
            return Err(io::Error::new(io::ErrorKind::ConnectionRefused, refused));
        }
        let (near, far) = minik8s_streaming::pair();
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), service_fn(kubelet));
        tokio::spawn(connection.with_upgrades());
        Ok(near)
    }
}

async fn kubelet(mut request: Request<Incoming>) -> Result<http::Response<Full<Bytes>>, Infallible> {
    let asked = request.uri().to_string();
    if request.headers().contains_key(UPGRADE) {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgrade.await.expect("the client switches"));
            let mut word = [0; 5];
            stream.read_exact(&mut word).await.expect("five bytes");
            word.make_ascii_uppercase();
            stream.write_all(&word).await.expect("an open stream");
            stream.shutdown().await.expect("an open stream");
        });
        let switching = http::Response::builder().status(101).header(UPGRADE, "shout").header(CONNECTION, "Upgrade");
        return Ok(switching.body(Full::default()).expect("a response"));
    }
    let code = if asked.contains("previous=true") { 400 } else { 200 };
    let text =
        if code == 400 { "previous terminated container \"c\" in pod \"p\" not found".to_owned() } else { asked };
    Ok(http::Response::builder().status(code).body(Full::from(text)).expect("a response"))
}

/// A server with its bootstrap objects.
pub struct TestServer {
    pub server: Arc<ApiServer>,
    pub store: Arc<MemoryStore>,
    simulation: Simulation,
    user: UserInfo,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

impl Answer {
    /// The body as JSON; text that is none becomes a string.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes)
            .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&self.bytes).into_owned()))
    }

    /// The body of an answer that must have this code.
    pub fn expect(self, code: u16) -> Value {
        let json = self.json();
        assert_eq!(self.code, code, "{json:#}");
        json
    }

    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }
}

impl TestServer {
    pub async fn start() -> TestServer {
        let (clock, simulation) = Clock::simulated("2026-01-02T03:04:05Z".parse().expect("a time"));
        let store = MemoryStore::new(clock.clone());
        TestServer::on(store, clock, simulation, |_| {}).await
    }

    /// A server that is configured otherwise.
    pub async fn with(change: impl FnOnce(&mut Config)) -> TestServer {
        let (clock, simulation) = Clock::simulated("2026-01-02T03:04:05Z".parse().expect("a time"));
        TestServer::on(MemoryStore::new(clock.clone()), clock, simulation, change).await
    }

    /// A server with a way into the pod network.
    pub async fn with_dialer(dialer: Arc<dyn ServiceDialer>) -> TestServer {
        TestServer::with(|config| config.dialer = dialer).await
    }

    /// Another server on the same store, as after a restart.
    pub async fn restarted(&self) -> TestServer {
        self.restarted_with(|_| {}).await
    }

    /// The same, configured otherwise.
    pub async fn restarted_with(&self, change: impl FnOnce(&mut Config)) -> TestServer {
        TestServer::on(self.store.clone(), self.server.clock().clone(), self.simulation.clone(), change).await
    }

    async fn on(
        store: Arc<MemoryStore>,
        clock: Clock,
        simulation: Simulation,
        change: impl FnOnce(&mut Config),
    ) -> TestServer {
        let config = TestServer::config(store.clone(), clock, change);
        let server = ApiServer::new(config, CancellationToken::new()).await.expect("the server starts");
        TestServer { server, store, simulation, user: UserInfo::new("admin", ["system:masters"]) }
    }

    /// What a server for a test is built from.
    pub fn config(store: Arc<dyn Store>, clock: Clock, change: impl FnOnce(&mut Config)) -> Config {
        let random = Random::seeded(7);
        let key = SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().expect("a key")).expect("the key");
        let mut config = Config {
            store,
            clock,
            random,
            service_account_key: key,
            client_ca: Vec::new(),
            client_ca_pem: String::new(),
            front_proxy: None,
            static_tokens: StaticTokens::default(),
            nodes: Arc::new(Nodes),
            dialer: Arc::new(MachineNetwork),
            components: Vec::new(),
            ranges: Default::default(),
            advertise: "127.0.0.1:6443".parse().expect("an address"),
            limits: Limits::default(),
            audit: None,
            encryption: None,
            metrics: Default::default(),
            settings: Default::default(),
            extra_routes: axum::Router::new().route("/extra", axum::routing::get(|| async { "extra" })),
        };
        change(&mut config);
        config
    }

    /// Sends a request as it stands, as the cluster's administrator unless `user` says otherwise.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
        user: Option<UserInfo>,
    ) -> http::Response<Body> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::from(body.into())).expect("a request");
        if let Some(user) = user {
            request.extensions_mut().insert(user);
        }
        match self.server.service().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    /// Lets time pass.
    pub fn pass(&self, duration: std::time::Duration) {
        self.simulation.advance(duration);
    }

    /// Lets time pass, whenever nothing else is left to do, until something has happened.
    pub async fn in_time<T>(&self, happens: impl Future<Output = T>) -> T {
        let mut happens = std::pin::pin!(happens);
        loop {
            tokio::select! {
                biased;
                outcome = &mut happens => return outcome,
                () = tokio::task::yield_now() => drop(self.simulation.advance_to_next()),
            }
        }
    }

    /// The same, but for no longer than `limit` of the server's time, which passes slowly: who only takes many steps is not late.
    pub async fn within<T>(&self, limit: Duration, happens: impl Future<Output = T>) -> Option<T> {
        const STEPS: u32 = 64;
        let too_late = self.server.clock().sleep(limit);
        let (mut happens, mut too_late) = (std::pin::pin!(happens), std::pin::pin!(too_late));
        let mut step = 0u32;
        loop {
            tokio::select! {
                biased;
                outcome = &mut happens => return Some(outcome),
                () = &mut too_late => return None,
                () = tokio::task::yield_now() => step += 1,
            }
            if step.is_multiple_of(STEPS) {
                self.simulation.advance_to_next();
            }
        }
    }

    async fn answer(&self, response: http::Response<Body>) -> Answer {
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        Answer { code: parts.status.as_u16(), headers: parts.headers, bytes }
    }

    /// Sends a request as it stands, as the cluster's administrator.
    pub async fn send_as_admin(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> http::Response<Body> {
        self.send(method, path, headers, body, Some(self.user.clone())).await
    }

    pub async fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let response = self.send(method, path, headers, body, Some(self.user.clone())).await;
        self.answer(response).await
    }

    pub async fn anonymous(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let response = self.send(method, path, headers, body, None).await;
        self.answer(response).await
    }

    /// Somebody else than the administrator.
    pub async fn as_user(
        &self,
        user: UserInfo,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let response = self.send(method, path, headers, body.to_owned(), Some(user)).await;
        self.answer(response).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], "").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.request("POST", path, &[("content-type", "application/json")], body.to_string()).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.request("PUT", path, &[("content-type", "application/json")], body.to_string()).await
    }

    pub async fn merge(&self, path: &str, body: &Value) -> Answer {
        self.request("PATCH", path, &[("content-type", "application/merge-patch+json")], body.to_string()).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.request("DELETE", path, &[], "").await
    }

    /// Opens a watch; its events are read one by one.
    pub async fn watch(&self, path: &str) -> WatchStream {
        let response = self.send("GET", path, &[], "", Some(self.user.clone())).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        WatchStream { body: response.into_body(), buffered: String::new() }
    }

    /// A namespace with a default service account, so that pods are admitted.
    pub async fn namespace(&self, name: &str) {
        self.post(
            "/api/v1/namespaces",
            &json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }),
        )
        .await
        .expect(201);
        let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default" } });
        self.post(&format!("/api/v1/namespaces/{name}/serviceaccounts"), &account).await.expect(201);
    }
}

/// Events of a watch.
pub struct WatchStream {
    body: Body,
    buffered: String,
}

impl WatchStream {
    /// The next event; `None` at the end.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((line, rest)) = self.buffered.split_once('\n') {
                let event = serde_json::from_str(line).expect("an event a line");
                self.buffered = rest.to_owned();
                return Some(event);
            }
            let frame = self.body.frame().await?.expect("a frame");
            let data = frame.into_data().expect("data");
            self.buffered.push_str(std::str::from_utf8(&data).expect("text"));
        }
    }

    /// Type and name of the next event.
    pub async fn brief(&mut self) -> String {
        let event = self.next().await.expect("an event");
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        format!("{} {name}", event["type"].as_str().unwrap_or_default())
    }
}

pub fn config_map(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { "a": "1" } })
}
