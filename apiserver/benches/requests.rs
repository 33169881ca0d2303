//! Requests at the service, as it stands behind TLS and HTTP: creates, gets, lists, a change with its watchers.
//!
//! `cargo bench -p minik8s-apiserver` compares with the run before. The store is in memory: what the disk takes is
//! measured by the store's own benches, what connections take by `minik8s bench`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use axum::body::Body;
use criterion::{Criterion, criterion_group, criterion_main};
use futures::future::join_all;
use http::header::CONTENT_TYPE;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use minik8s_apiserver::authn::StaticTokens;
use minik8s_apiserver::authn::jwt::SigningKey;
use minik8s_apiserver::endpoints::connect::NodeConnector;
use minik8s_apiserver::identity::UserInfo;
use minik8s_apiserver::outgoing::MachineNetwork;
use minik8s_apiserver::server::{ApiServer, Config, Limits};
use minik8s_clock::{Clock, Random};
use minik8s_store::MemoryStore;
use minik8s_streaming::BoxedStream;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

const PODS: &str = "/api/v1/namespaces/default/pods";
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const LISTED: usize = 5_000;
const WATCHERS: usize = 100;

struct NoNodes;

#[async_trait]
impl NodeConnector for NoNodes {
    async fn connect(&self, _: &str) -> io::Result<BoxedStream> {
        Err(io::ErrorKind::ConnectionRefused.into())
    }
}

async fn server() -> Arc<ApiServer> {
    let clock = Clock::real();
    let key = SigningKey::generate_pkcs8().expect("a key");
    let config = Config {
        store: MemoryStore::new(clock.clone()),
        clock,
        random: Random::seeded(1),
        service_account_key: SigningKey::from_pkcs8(&key).expect("the key"),
        client_ca: Vec::new(),
        client_ca_pem: String::new(),
        front_proxy: None,
        static_tokens: StaticTokens::default(),
        nodes: Arc::new(NoNodes),
        dialer: Arc::new(MachineNetwork),
        components: Vec::new(),
        ranges: Default::default(),
        advertise: "127.0.0.1:6443".parse().expect("an address"),
        limits: Limits::default(),
        audit: None,
        encryption: None,
        metrics: Default::default(),
        settings: Default::default(),
        extra_routes: axum::Router::new(),
    };
    ApiServer::new(config, CancellationToken::new()).await.expect("the server starts")
}

async fn send(server: &Arc<ApiServer>, method: &str, path: &str, media_type: &str, body: String) -> Response<Body> {
    let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, media_type);
    let mut request = request.body(Body::from(body)).expect("a request");
    request.extensions_mut().insert(UserInfo::new("bench", ["system:masters"]));
    let Ok(response) = server.service().oneshot(request).await;
    response
}

/// Sends a request and reads the answer, which must be a success.
async fn ask(server: &Arc<ApiServer>, method: &str, path: &str, body: &Value) {
    ask_in(server, method, path, "application/json", body).await;
}

/// The same with a body of another media type.
async fn ask_in(server: &Arc<ApiServer>, method: &str, path: &str, media_type: &str, body: &Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let response = send(server, method, path, media_type, body).await;
    let code = response.status();
    let answer = response.into_body().collect().await.expect("a body").to_bytes();
    assert!(code.is_success(), "{method} {path}: {code} {}", String::from_utf8_lossy(&answer));
}

fn pod(number: u64) -> Value {
    json!({
        "metadata": { "name": format!("p{number}"), "labels": { "app": "web" } },
        "spec": { "containers": [{
            "name": "web",
            "image": "nginx:1.27",
            "resources": { "requests": { "cpu": "100m", "memory": "64Mi" } },
            "ports": [{ "containerPort": 80 }],
        }] },
    })
}

fn config_map(number: u64) -> Value {
    json!({ "metadata": { "name": format!("c{number}") }, "data": { "text": "x".repeat(1024) } })
}

/// A Deployment as its owner has it in a file.
fn deployment(number: u64) -> Value {
    let container = |name: &str, port: u32| {
        json!({
            "name": name,
            "image": "nginx:1.27",
            "ports": [{ "name": name, "containerPort": port }],
            "env": [{ "name": "A", "value": "1" }, { "name": "B", "value": "2" }],
            "resources": { "requests": { "cpu": "100m", "memory": "64Mi" }, "limits": { "memory": "128Mi" } },
            "readinessProbe": { "httpGet": { "path": "/", "port": port } },
            "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
        })
    };
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": "d", "labels": { "number": number.to_string() } },
        "spec": {
            "replicas": 3,
            "selector": { "matchLabels": { "app": "d" } },
            "template": {
                "metadata": { "labels": { "app": "d" } },
                "spec": {
                    "containers": [container("web", 80), container("side", 81)],
                    "volumes": [{ "name": "data", "emptyDir": {} }],
                },
            },
        },
    })
}

async fn create(server: &Arc<ApiServer>, path: &str, number: &AtomicU64, object: fn(u64) -> Value) {
    ask(server, "POST", path, &object(number.fetch_add(1, Ordering::Relaxed))).await;
}

async fn next_events(watchers: &mut [Body]) {
    join_all(watchers.iter_mut().map(|watcher| watcher.frame())).await;
}

fn requests(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let server = runtime.block_on(server());
    let account = json!({ "metadata": { "name": "default" } });
    runtime.block_on(ask(&server, "POST", "/api/v1/namespaces/default/serviceaccounts", &account));
    let number = AtomicU64::new(0);

    criterion.bench_function("create a pod", |bench| {
        bench.iter(|| runtime.block_on(create(&server, PODS, &number, pod)));
    });
    criterion.bench_function("create a ConfigMap of 1 KiB", |bench| {
        bench.iter(|| runtime.block_on(create(&server, CONFIG_MAPS, &number, config_map)));
    });
    // The same change by its owner: apply should cost no more than a fifth above a merge patch.
    let changes = AtomicU64::new(0);
    for (how, query, media_type) in [
        ("apply", "?fieldManager=bench&force=true", "application/apply-patch+yaml"),
        ("a merge patch", "?fieldManager=bench", "application/merge-patch+json"),
    ] {
        let path = format!("{DEPLOYMENTS}/d{query}");
        criterion.bench_function(&format!("change a Deployment by {how}"), |bench| {
            bench.iter(|| {
                let changed = deployment(changes.fetch_add(1, Ordering::Relaxed));
                runtime.block_on(ask_in(&server, "PATCH", &path, media_type, &changed));
            });
        });
    }
    criterion.bench_function("get a pod", |bench| {
        bench.iter(|| runtime.block_on(ask(&server, "GET", &format!("{PODS}/p0"), &Value::Null)));
    });
    runtime.block_on(async {
        while number.load(Ordering::Relaxed) < 2 * LISTED as u64 {
            create(&server, PODS, &number, pod).await;
        }
    });
    criterion.bench_function("list 5,000 pods", |bench| {
        let path = format!("{PODS}?limit={LISTED}");
        bench.iter(|| runtime.block_on(ask(&server, "GET", &path, &Value::Null)));
    });
    criterion.bench_function("change a ConfigMap with 100 watchers", |bench| {
        let watched = format!("{CONFIG_MAPS}/c-watched");
        let object = json!({ "metadata": { "name": "c-watched" }, "data": {} });
        runtime.block_on(ask(&server, "POST", CONFIG_MAPS, &object));
        let watch = format!("{CONFIG_MAPS}?watch=true&fieldSelector=metadata.name%3Dc-watched");
        let mut watchers = runtime.block_on(async {
            let watches = join_all((0..WATCHERS).map(|_| send(&server, "GET", &watch, "application/json", String::new()))).await;
            watches
                .into_iter()
                .map(|response| {
                    assert_eq!(response.status(), StatusCode::OK);
                    response.into_body()
                })
                .collect::<Vec<Body>>()
        });
        runtime.block_on(next_events(&mut watchers));
        bench.iter(|| {
            let change = json!({ "metadata": { "name": "c-watched" }, "data": { "n": number.fetch_add(1, Ordering::Relaxed).to_string() } });
            runtime.block_on(async {
                ask(&server, "PUT", &watched, &change).await;
                next_events(&mut watchers).await;
            });
        });
    });
}

criterion_group!(benches, requests);
criterion_main!(benches);
