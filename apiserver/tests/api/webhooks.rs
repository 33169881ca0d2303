//! Admission webhooks: a server on the loopback interface is asked, as a cluster's own would be.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use minik8s_apiserver::outgoing::ServiceDialer;
use minik8s_streaming::BoxedStream;
use parking_lot::Mutex;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::server::{TestServer, config_map};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

type Answer = dyn Fn(&Value) -> Value + Send + Sync;

/// A webhook server, and what it was asked.
pub struct Webhook {
    port: u16,
    ca: String,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Webhook {
    /// Answers with what `answer` makes of a request; its UID is added. `Null` is no answer, ever.
    pub async fn start(answer: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Webhook {
        let names = vec!["127.0.0.1".to_owned(), "hook.default.svc".to_owned()];
        let own = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)
            .expect("the key fits");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (asked, answer): (Arc<Mutex<Vec<Value>>>, Arc<Answer>) = (Arc::default(), Arc::new(answer));
        tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(tls)), Arc::clone(&asked), answer));
        Webhook { port, ca: STANDARD.encode(own.cert.pem()), asked }
    }

    pub fn url(&self) -> Value {
        json!({ "url": format!("https://127.0.0.1:{}/admit", self.port), "caBundle": self.ca })
    }

    /// What it was asked so far.
    pub fn requests(&self) -> Vec<Value> {
        self.asked.lock().clone()
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, asked: Arc<Mutex<Vec<Value>>>, answer: Arc<Answer>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (asked, answer) = (Arc::clone(&asked), Arc::clone(&answer));
        let Ok(stream) = tls.accept(stream).await else { continue };
        let service = service_fn(move |request: Request<Incoming>| {
            let (asked, answer) = (Arc::clone(&asked), Arc::clone(&answer));
            async move {
                let bytes = request.into_body().collect().await.expect("a body").to_bytes();
                let review: Value = serde_json::from_slice(&bytes).expect("a review");
                asked.lock().push(review["request"].clone());
                let mut response = answer(&review["request"]);
                if response.is_null() {
                    std::future::pending::<()>().await;
                }
                if response.get("uid").is_none() {
                    response["uid"] = review["request"]["uid"].clone();
                }
                let review =
                    json!({ "kind": "AdmissionReview", "apiVersion": review["apiVersion"], "response": response });
                Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from(review.to_string()))))
            }
        });
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

/// A configuration with one webhook for config maps; `more` overrides its fields.
pub fn configuration(kind: &str, name: &str, client: Value, more: Value) -> Value {
    let mut webhook = json!({
        "name": format!("{name}.example.com"),
        "clientConfig": client,
        "rules": [{ "operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"] }],
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        webhook[field] = value.clone();
    }
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{kind}WebhookConfiguration"),
        "metadata": { "name": name }, "webhooks": [webhook],
    })
}

async fn install(server: &TestServer, configuration: &Value) {
    let plural = configuration["kind"].as_str().expect("a kind").to_lowercase();
    server.post(&format!("/apis/admissionregistration.k8s.io/v1/{plural}s"), configuration).await.expect(201);
}

fn patch(operations: Value) -> Value {
    json!({ "allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(operations.to_string()) })
}

#[tokio::test]
async fn a_validating_webhook_is_asked_and_refuses() {
    let server = TestServer::start().await;
    let hook = Webhook::start(|request| match request["name"].as_str() {
        Some("bad") => {
            json!({ "allowed": false, "status": { "message": "not this one", "code": 403, "reason": "Forbidden" } })
        }
        Some("mute") => json!({ "allowed": false }),
        _ => json!({ "allowed": true, "warnings": ["think twice"] }),
    })
    .await;
    install(&server, &configuration("Validating", "check", hook.url(), json!({}))).await;

    let created = server.post(MAPS, &config_map("good")).await;
    assert_eq!(created.headers["warning"], "299 - \"think twice\"");
    created.expect(201);
    let request = &hook.requests()[0];
    assert_eq!(request["operation"], "CREATE");
    assert_eq!(request["kind"], json!({ "group": "", "version": "v1", "kind": "ConfigMap" }));
    assert_eq!(request["resource"], json!({ "group": "", "version": "v1", "resource": "configmaps" }));
    assert_eq!((&request["name"], &request["namespace"]), (&json!("good"), &json!("default")));
    assert_eq!(request["userInfo"]["username"], "admin");
    assert_eq!((&request["object"]["data"]["a"], &request["oldObject"]), (&json!("1"), &Value::Null));
    assert_eq!((&request["dryRun"], &request["options"]["kind"]), (&json!(false), &json!("CreateOptions")));

    let refused = server.post(MAPS, &config_map("bad")).await;
    assert_eq!(refused.message(), r#"admission webhook "check.example.com" denied the request: not this one"#);
    assert_eq!(refused.expect(403)["reason"], "Forbidden");
    let refused = server.post(MAPS, &config_map("mute")).await;
    assert_eq!(refused.message(), r#"admission webhook "check.example.com" denied the request without explanation"#);
    refused.expect(400);

    server.merge(&format!("{MAPS}/good"), &json!({ "data": { "a": "2" } })).await.expect(200);
    let update = hook.requests().pop().expect("asked");
    assert_eq!((&update["operation"], &update["oldObject"]["data"]["a"]), (&json!("UPDATE"), &json!("1")));
    server.delete(&format!("{MAPS}/good")).await.expect(200);
    assert_eq!(hook.requests().len(), 4, "not asked about deletes");
}

#[tokio::test]
async fn a_mutating_webhook_changes_objects_and_is_asked_again_if_needed() {
    let server = TestServer::start().await;
    let labels = |label: &'static str| {
        move |request: &Value| match request["object"]["metadata"]["labels"].is_object() {
            false => patch(json!([{ "op": "add", "path": "/metadata/labels", "value": { label: "yes" } }])),
            true => patch(json!([{ "op": "add", "path": format!("/metadata/labels/{label}"), "value": "yes" }])),
        }
    };
    let (first, second) = (Webhook::start(labels("first")).await, Webhook::start(labels("second")).await);
    let needed = json!({ "reinvocationPolicy": "IfNeeded" });
    install(&server, &configuration("Mutating", "a", first.url(), needed)).await;
    install(&server, &configuration("Mutating", "b", second.url(), json!({}))).await;
    let created = server.post(MAPS, &config_map("m")).await.expect(201);
    assert_eq!(created["metadata"]["labels"], json!({ "first": "yes", "second": "yes" }));
    // The first is asked again because the second changed what it had seen.
    assert_eq!((first.requests().len(), second.requests().len()), (2, 1));
    assert_eq!(first.requests()[1]["object"]["metadata"]["labels"]["second"], "yes");

    // A patch that breaks the object's type is the webhook's fault, whatever its failure policy.
    let broken = Webhook::start(|_| patch(json!([{ "op": "replace", "path": "/data", "value": 7 }]))).await;
    let ignored = json!({ "failurePolicy": "Ignore" });
    install(&server, &configuration("Mutating", "c", broken.url(), ignored)).await;
    let refused = server.post(MAPS, &config_map("n")).await;
    assert!(refused.message().contains("json: cannot unmarshal number"), "{}", refused.message());
    refused.expect(500);
}

#[tokio::test]
async fn webhooks_are_asked_by_rules_selectors_and_conditions() {
    let server = TestServer::start().await;
    let hook = Webhook::start(|_| json!({ "allowed": false, "status": { "message": "no" } })).await;
    let narrow = json!({
        "namespaceSelector": { "matchLabels": { "watched": "yes" } },
        "objectSelector": { "matchExpressions": [{ "key": "skip", "operator": "DoesNotExist" }] },
        "matchConditions": [{ "name": "not-free", "expression": "!object.metadata.name.startsWith('free-') && request.userInfo.username == 'admin'" }],
    });
    install(&server, &configuration("Validating", "check", hook.url(), narrow)).await;
    server.post(MAPS, &config_map("m")).await.expect(201);
    let mut namespace =
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "w", "labels": { "watched": "yes" } } });
    server.post("/api/v1/namespaces", &namespace).await.expect(201);
    let maps = "/api/v1/namespaces/w/configmaps";
    let mut skipped = config_map("m");
    skipped["metadata"]["labels"] = json!({ "skip": "" });
    server.post(maps, &skipped).await.expect(201);
    server.post(maps, &config_map("free-1")).await.expect(201);
    assert_eq!(hook.requests(), Vec::<Value>::new());
    server.post(maps, &config_map("n")).await.expect(400);

    // Another version of the same objects is matched as the rule names it.
    let v1 = json!({ "rules": [{ "operations": ["*"], "apiGroups": ["autoscaling"], "apiVersions": ["v1"], "resources": ["*"] }] });
    install(&server, &configuration("Validating", "scaler", hook.url(), v1)).await;
    let scaler = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": { "name": "h" },
        "spec": { "maxReplicas": 3, "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "d" } },
    });
    let path = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    server.post(path, &scaler).await.expect(400);
    let asked = hook.requests().pop().expect("asked");
    assert_eq!((&asked["resource"]["version"], &asked["requestResource"]["version"]), (&json!("v1"), &json!("v2")));
    assert_eq!(asked["object"]["apiVersion"], "autoscaling/v1");

    // Nobody is asked about configurations, so that a bad one can be taken back.
    let all =
        json!({ "rules": [{ "operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"] }] });
    install(&server, &configuration("Validating", "all", hook.url(), all)).await;
    server.post(MAPS, &config_map("x")).await.expect(400);
    namespace["metadata"]["name"] = json!("v");
    server.post("/api/v1/namespaces", &namespace).await.expect(400);
    server.delete("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/all").await.expect(200);
    server.post("/api/v1/namespaces", &namespace).await.expect(201);
}

#[tokio::test]
async fn what_fails_is_told_or_passed_over() {
    let server = TestServer::start().await;
    let hook = Webhook::start(|request| match request["name"].as_str() {
        Some("slow") => Value::Null,
        _ => json!({ "allowed": true, "uid": "another" }),
    })
    .await;
    let mut check = configuration("Validating", "check", hook.url(), json!({ "timeoutSeconds": 2 }));
    install(&server, &check).await;
    let prefix = r#"Internal error occurred: failed calling webhook "check.example.com": "#;
    let refused = server.post(MAPS, &config_map("m")).await;
    let uid = hook.requests()[0]["uid"].clone();
    let words = format!("{prefix}received invalid webhook response: expected response.uid={uid}, got \"another\"");
    assert_eq!(refused.message(), words);
    refused.expect(500);

    let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/check";
    let set =
        async |check: &Value| drop(server.merge(path, &json!({ "webhooks": check["webhooks"] })).await.expect(200));
    let url = format!("https://127.0.0.1:{}/admit", hook.port);
    let slow = config_map("slow");
    let waiting = server.post(MAPS, &slow);
    let mut waiting = std::pin::pin!(waiting);
    // Time passes only once the webhook has been asked.
    loop {
        tokio::select! {
            biased;
            answer = &mut waiting => panic!("{answer:?}"),
            () = tokio::task::yield_now() => {}
        }
        if hook.requests().len() == 2 {
            break;
        }
    }
    let refused = server.in_time(waiting).await;
    let words = format!("{prefix}failed to call webhook: Post \"{url}?timeout=2s\": context deadline exceeded");
    assert_eq!(refused.message(), words);

    let other = Webhook::start(|_| json!({ "allowed": true })).await;
    check["webhooks"][0]["clientConfig"]["caBundle"] = json!(other.ca);
    set(&check).await;
    let refused = server.post(MAPS, &config_map("m")).await;
    let untrusted = "tls: failed to verify certificate: x509: certificate signed by unknown authority";
    assert!(refused.message().ends_with(untrusted), "{}", refused.message());
    check["webhooks"][0]["failurePolicy"] = json!("Ignore");
    set(&check).await;
    server.post(MAPS, &config_map("m")).await.expect(201);

    check["webhooks"][0]["matchConditions"] = json!([{ "name": "wrong", "expression": "object.data.b == '1'" }]);
    check["webhooks"][0]["failurePolicy"] = json!("Fail");
    set(&check).await;
    let refused = server.post(MAPS, &config_map("o")).await;
    assert_eq!(
        refused.message(),
        "configmaps \"o\" is forbidden: expression 'object.data.b == '1'' resulted in error: no such key: b"
    );
    check["webhooks"][0]["matchConditions"][0]["expression"] = json!("object.data.");
    let refused = server.merge(path, &json!({ "webhooks": check["webhooks"] })).await;
    assert!(
        refused.message().contains("webhooks[0].matchConditions[0].expression: Invalid value"),
        "{}",
        refused.message()
    );
    refused.expect(422);
}

#[tokio::test]
async fn an_answer_has_a_size() {
    let server = TestServer::start().await;
    let hook = Webhook::start(|request| {
        let bytes = if request["name"] == "long" { 3 << 20 } else { 2 << 20 };
        json!({ "allowed": true, "warnings": ["w".repeat(bytes)] })
    })
    .await;
    install(&server, &configuration("Validating", "check", hook.url(), json!({}))).await;
    let refused = server.post(MAPS, &config_map("long")).await;
    let post = format!("Post \"https://127.0.0.1:{}/admit?timeout=10s\"", hook.port);
    let words =
        format!("failed calling webhook \"check.example.com\": failed to call webhook: {post}: length limit exceeded");
    assert_eq!((refused.code, refused.message()), (500, format!("Internal error occurred: {words}")));
    server.post(MAPS, &config_map("short")).await.expect(201);
}

/// Every address of the pod network is the loopback interface.
struct Loopback;

#[async_trait]
impl ServiceDialer for Loopback {
    async fn dial(&self, address: &str, port: u16) -> io::Result<BoxedStream> {
        assert_eq!(address, "10.128.0.7");
        Ok(Box::new(TcpStream::connect(("127.0.0.1", port)).await?))
    }
}

#[tokio::test]
async fn a_service_of_the_cluster_is_a_webhook() {
    let server = TestServer::with_dialer(Arc::new(Loopback)).await;
    let hook = Webhook::start(|_| json!({ "allowed": false, "status": { "message": "from a pod" } })).await;
    let client =
        json!({ "service": { "namespace": "default", "name": "hook", "path": "/admit" }, "caBundle": hook.ca });
    install(&server, &configuration("Validating", "check", client, json!({}))).await;
    let refused = server.post(MAPS, &config_map("m")).await;
    let url = "https://hook.default.svc:443/admit?timeout=10s";
    let words = format!(
        "Internal error occurred: failed calling webhook \"check.example.com\": failed to call webhook: Post \"{url}\": service \"hook\" not found"
    );
    assert_eq!(refused.message(), words);

    let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "hook" }, "spec": { "ports": [{ "port": 443 }] } });
    server.post("/api/v1/namespaces/default/services", &service).await.expect(201);
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": "hook-1", "labels": { "kubernetes.io/service-name": "hook" } },
        "endpoints": [{ "addresses": ["10.128.0.7"], "conditions": { "ready": true } }],
        "ports": [{ "name": "", "port": hook.port }],
    });
    server.post("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", &slice).await.expect(201);
    let refused = server.post(MAPS, &config_map("m")).await;
    assert_eq!(refused.message(), r#"admission webhook "check.example.com" denied the request: from a pod"#);
}
