//! Other servers behind APIServices.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http::header::{CONNECTION, UPGRADE};
use http_body_util::{Empty, Full};
use hyper_util::rt::TokioIo;
use minik8s_apiserver::aggregator::FrontProxy;
use minik8s_apiserver::identity::UserInfo;
use minik8s_apiserver::outgoing::tls::Identity;
use rcgen::ExtendedKeyUsagePurpose;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::connections::{Authority, Listening};
use crate::remote::{Asked, Loopback, Remote, json_answer, text_answer};
use crate::server::TestServer;

pub const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const WIDGETS: &str = "/apis/widgets.io/v1/namespaces/default/widgets";

/// A server that introduces itself to others, and the authority by which they know it.
async fn with_front_proxy() -> (TestServer, Authority) {
    let authority = Authority::new();
    let (certificate, key) = authority.issue("front-proxy-client", None, ExtendedKeyUsagePurpose::ClientAuth);
    let front_proxy = FrontProxy { ca_pem: "PEM".to_owned(), identity: Identity { chain: vec![certificate], key } };
    let server = TestServer::with(|config| {
        config.dialer = Arc::new(Loopback);
        config.client_ca = vec![authority.certificate.clone()];
        config.front_proxy = Some(front_proxy);
    })
    .await;
    (server, authority)
}

pub fn api_service(fields: Value) -> Value {
    let mut spec = json!({
        "group": "widgets.io", "version": "v1", "groupPriorityMinimum": 17_850, "versionPriority": 15,
        "service": { "namespace": "default", "name": "widgets" },
    });
    for (field, value) in fields.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    json!({ "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": { "name": "v1.widgets.io" }, "spec": spec })
}

/// The other server: widgets, described in plain discovery and in OpenAPI.
pub fn widgets(asked: &Asked) -> Response<Full<Bytes>> {
    let path = asked.path.split('?').next().unwrap_or_default();
    match path {
        "/apis/widgets.io/v1" => json_answer(&json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "widgets.io/v1",
            "resources": [{ "name": "widgets", "singularName": "widget", "namespaced": true, "kind": "Widget", "verbs": ["get", "list"] }],
        })),
        "/openapi/v3" => json_answer(
            &json!({ "paths": { "apis/widgets.io/v1": { "serverRelativeURL": "/openapi/v3/apis/widgets.io/v1?hash=1" } } }),
        ),
        "/openapi/v3/apis/widgets.io/v1" => json_answer(&json!({ "openapi": "3.0.0", "info": { "title": "Widgets" } })),
        "/openapi/v2" => json_answer(&json!({
            "paths": { "/apis/widgets.io/v1/": { "get": { "schema": { "$ref": "#/definitions/io.widgets.v1.Widget" } } } },
            "definitions": { "io.widgets.v1.Widget": { "type": "object" } },
        })),
        WIDGETS => json_answer(
            &json!({ "kind": "WidgetList", "apiVersion": "widgets.io/v1", "items": [], "body": String::from_utf8_lossy(&asked.body) }),
        ),
        _ => text_answer(404, "no such thing\n"),
    }
}

/// Waits until the condition `Available` has a reason, and tells its status and message.
pub async fn available(server: &TestServer, reason: &str) -> String {
    let mut watch = server.watch(&format!("{SERVICES}?watch=1&fieldSelector=metadata.name%3Dv1.widgets.io")).await;
    loop {
        let event = watch.next().await.expect("an event");
        let condition = &event["object"]["status"]["conditions"][0];
        if condition["reason"] == reason {
            let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
            return format!("{}: {}", text("status"), text("message"));
        }
    }
}

#[tokio::test]
async fn an_api_service_is_available_once_somebody_answers() {
    let (server, authority) = with_front_proxy().await;
    let remote = Remote::start("widgets.default.svc", Some(authority.certificate.clone()), widgets).await;
    server.post(SERVICES, &api_service(json!({ "caBundle": remote.ca }))).await.expect(201);
    assert_eq!(available(&server, "ServiceNotFound").await, r#"False: service/widgets in "default" is not present"#);
    let refused = server.get(WIDGETS).await;
    assert_eq!((refused.code, &refused.bytes[..]), (503, &b"service unavailable\n"[..]));
    assert_eq!(server.get("/apis/widgets.io/v1").await.code, 503);

    let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "widgets" }, "spec": { "ports": [{ "port": 80 }] } });
    server.post("/api/v1/namespaces/default/services", &service).await.expect(201);
    assert_eq!(
        available(&server, "ServicePortError").await,
        r#"False: service/widgets in "default" is not listening on port 443"#
    );
    let ports = json!({ "spec": { "ports": [{ "name": "https", "port": 443 }] } });
    server.merge("/api/v1/namespaces/default/services/widgets", &ports).await.expect(200);
    assert_eq!(
        available(&server, "EndpointsNotFound").await,
        r#"False: cannot find endpointslices for service/widgets in "default""#
    );
    remote.slice(&server, "widgets").await;
    assert_eq!(available(&server, "Passed").await, "True: all checks passed");
    server.get(WIDGETS).await.expect(200);

    let slice = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/widgets-1";
    server.merge(slice, &json!({ "endpoints": [] })).await.expect(200);
    let words = r#"False: endpointslices for service/widgets in "default" have no addresses with port name "https""#;
    assert_eq!(available(&server, "MissingEndpoints").await, words);
    assert_eq!(server.get(WIDGETS).await.code, 503);
    // Discovery goes on, from what was said last.
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let all = server.request("GET", "/apis", &[("accept", aggregated)], "").await.expect(200);
    let group = all["items"].as_array().expect("groups").iter().find(|group| group["metadata"]["name"] == "widgets.io");
    assert_eq!(group.expect("widgets")["versions"][0]["freshness"], "Stale");
    server.delete(&format!("{SERVICES}/v1.widgets.io")).await.expect(200);
    server.get("/apis/widgets.io").await.expect(404);
}

#[tokio::test]
async fn who_does_not_answer_well_is_told() {
    let (server, _authority) = with_front_proxy().await;
    let remote = Remote::start("widgets.default.svc", None, |_| text_answer(403, "no")).await;
    remote.service(&server, "widgets").await;
    server.post(SERVICES, &api_service(json!({ "insecureSkipTLSVerify": true }))).await.expect(201);
    let url = format!("https://10.128.0.7:{}/apis/widgets.io/v1", remote.port);
    let words = format!("False: failing or missing response from {url}: bad status from {url}: 403");
    assert_eq!(available(&server, "FailedDiscoveryCheck").await, words);
}

#[tokio::test]
async fn what_others_say_has_a_size() {
    let (server, _authority) = with_front_proxy().await;
    // More than is read of an answer that tells whether somebody is there.
    let remote = Remote::start("widgets.default.svc", None, |_| text_answer(200, &"x".repeat(5 << 20))).await;
    remote.service(&server, "widgets").await;
    server.post(SERVICES, &api_service(json!({ "insecureSkipTLSVerify": true }))).await.expect(201);
    let url = format!("https://10.128.0.7:{}/apis/widgets.io/v1", remote.port);
    let words = format!("False: failing or missing response from {url}: Get \"{url}\": length limit exceeded");
    assert_eq!(available(&server, "FailedDiscoveryCheck").await, words);
    server.get("/api/v1/namespaces").await.expect(200);
}

#[tokio::test]
async fn a_description_that_is_too_long_is_left_out() {
    let (server, _authority) = with_front_proxy().await;
    let remote = Remote::start("widgets.default.svc", None, |asked| match asked.path.as_str() {
        "/openapi/v2" => json_answer(&json!({ "definitions": { "io.widgets.v1.Widget": "x".repeat(17 << 20) } })),
        _ => widgets(asked),
    })
    .await;
    remote.service(&server, "widgets").await;
    server.post(SERVICES, &api_service(json!({ "caBundle": remote.ca }))).await.expect(201);
    available(&server, "Passed").await;
    while server.get("/openapi/v3").await.expect(200)["paths"]["apis/widgets.io/v1"].is_null() {
        tokio::task::yield_now().await;
    }
    let described = server.get("/openapi/v2").await.expect(200);
    assert!(described["definitions"]["io.widgets.v1.Widget"].is_null() && described["definitions"].is_object());
}

#[tokio::test]
async fn requests_are_passed_on_in_the_name_of_who_asks() {
    let (server, authority) = with_front_proxy().await;
    let remote = Remote::start("widgets.default.svc", Some(authority.certificate.clone()), widgets).await;
    remote.service(&server, "widgets").await;
    server.post(SERVICES, &api_service(json!({ "caBundle": remote.ca }))).await.expect(201);
    available(&server, "Passed").await;

    let mut jane = UserInfo::new("jane", ["system:masters"]);
    jane.uid = "7".to_owned();
    jane.extra.insert("example.com/team".to_owned(), vec!["a".to_owned()]);
    let headers = [("x-remote-user", "root"), ("x-remote-group", "all"), ("content-type", "application/json")];
    let answer = server.send("POST", &format!("{WIDGETS}?dryRun=All"), &headers, "{}", Some(jane)).await;
    assert_eq!(answer.status(), 200);
    let asked = remote.asked().pop().expect("asked");
    assert_eq!((asked.method.as_str(), asked.path.as_str()), ("POST", format!("{WIDGETS}?dryRun=All").as_str()));
    assert!(asked.known, "the front proxy's certificate");
    assert_eq!(asked.header("x-remote-user"), ["jane"]);
    assert_eq!(asked.header("x-remote-uid"), ["7"]);
    assert_eq!(asked.header("x-remote-group"), ["system:masters", "system:authenticated"]);
    assert_eq!(asked.header("x-remote-extra-example.com%2fteam"), ["a"]);
    assert_eq!(asked.header("host"), [format!("10.128.0.7:{}", remote.port)]);
    assert_eq!((asked.header("content-type"), &asked.body[..]), (vec!["application/json"], &b"{}"[..]));
    // The other server's refusals are its own; who may not ask does not reach it.
    let refused = server.get(&format!("{WIDGETS}/none")).await;
    assert_eq!((refused.code, &refused.bytes[..]), (404, &b"no such thing\n"[..]));
    let before = remote.asked().len();
    assert_eq!(server.anonymous("GET", WIDGETS, &[], "").await.code, 403);
    assert_eq!(remote.asked().len(), before);

    // A server that is not who it should be is told nothing.
    let other = Remote::start("else.default.svc", None, widgets).await;
    server.merge(&format!("{SERVICES}/v1.widgets.io"), &json!({ "spec": { "caBundle": other.ca } })).await.expect(200);
    let refused = server.get(WIDGETS).await;
    let words = "error trying to reach service: tls: failed to verify certificate: x509: certificate signed by unknown authority\n";
    assert_eq!((refused.code, String::from_utf8_lossy(&refused.bytes).as_ref()), (503, words));
}

#[tokio::test]
async fn what_others_serve_is_discovered_and_described() {
    let (server, _authority) = with_front_proxy().await;
    let remote = Remote::start("widgets.default.svc", None, widgets).await;
    remote.service(&server, "widgets").await;
    server.post(SERVICES, &api_service(json!({ "caBundle": remote.ca }))).await.expect(201);
    available(&server, "Passed").await;
    // Documents follow the condition.
    let aggregated = [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")];
    let group = loop {
        let all = server.request("GET", "/apis", &aggregated, "").await.expect(200);
        let names: Vec<&Value> =
            all["items"].as_array().expect("groups").iter().map(|group| &group["metadata"]["name"]).collect();
        assert_eq!(names[..3], ["apiregistration.k8s.io", "widgets.io", "apps"]);
        let group = all["items"][1].clone();
        if group["versions"][0]["freshness"] == "Current" {
            break group;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(
        group["versions"][0]["resources"][0]["responseKind"],
        json!({ "group": "widgets.io", "version": "v1", "kind": "Widget" })
    );
    let plain = server.get("/apis").await.expect(200);
    assert_eq!(plain["groups"][1]["name"], "widgets.io");
    assert_eq!(server.get("/apis/widgets.io").await.expect(200)["preferredVersion"]["groupVersion"], "widgets.io/v1");
    assert_eq!(server.get("/apis/widgets.io/v1").await.expect(200)["resources"][0]["name"], "widgets");
    let index = server.get("/openapi/v3").await.expect(200);
    assert_eq!(index["paths"]["apis/widgets.io/v1"]["serverRelativeURL"], "/openapi/v3/apis/widgets.io/v1?hash=1");
    assert_eq!(server.get("/openapi/v3/apis/widgets.io/v1?hash=1").await.expect(200)["info"]["title"], "Widgets");
    let everything = server.get("/openapi/v2").await.expect(200);
    assert!(everything["definitions"]["io.widgets.v1.Widget"].is_object());
    assert!(everything["paths"]["/apis/widgets.io/v1/"].is_object());
    let root = server.get("/").await.expect(200);
    assert!(root["paths"].as_array().expect("paths").contains(&json!("/apis/widgets.io/v1")));
}

#[tokio::test]
async fn upgrades_are_passed_on() {
    let (server, authority) = with_front_proxy().await;
    let remote = Remote::start("widgets.default.svc", None, widgets).await;
    remote.service(&server, "widgets").await;
    server.post(SERVICES, &api_service(json!({ "caBundle": remote.ca }))).await.expect(201);
    available(&server, "Passed").await;
    let listening = Listening::by(authority, server).await;
    let request = http::Request::get(format!("{WIDGETS}/a/console"))
        .header("host", "localhost")
        .header(UPGRADE, "shout")
        .header(CONNECTION, "Upgrade")
        .body(Empty::<Bytes>::new())
        .expect("a request");
    let admin = listening.client("admin", Some("system:masters"));
    let mut switched = listening.http1(admin, request).await;
    assert_eq!(switched.status(), 101);
    let mut stream = TokioIo::new(hyper::upgrade::on(&mut switched).await.expect("switched"));
    stream.write_all(b"hello").await.expect("an open stream");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert_eq!(answer, "HELLO");
    assert_eq!(remote.asked().pop().expect("asked").header("x-remote-user"), ["admin"]);
}

#[tokio::test]
async fn this_servers_own_groups_are_registered() {
    let (server, _authority) = with_front_proxy().await;
    let config =
        server.get("/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication").await.expect(200);
    assert_eq!(config["data"]["requestheader-allowed-names"], r#"["front-proxy-client"]"#);
    assert_eq!(config["data"]["requestheader-client-ca-file"], "PEM");
    let until = async |name: &str, good: &dyn Fn(&Value) -> bool| loop {
        let found = server.get(&format!("{SERVICES}/{name}")).await;
        if good(&found.json()) {
            return found.json();
        }
        tokio::task::yield_now().await;
    };
    let local = |object: &Value| object["status"]["conditions"][0]["reason"] == "Local";
    let apps = until("v1.apps", &local).await;
    assert_eq!(apps["metadata"]["labels"], json!({ "kube-aggregator.kubernetes.io/automanaged": "onstart" }));
    assert_eq!(
        apps["spec"],
        json!({ "group": "apps", "version": "v1", "groupPriorityMinimum": 17_800, "versionPriority": 15 })
    );
    assert_eq!(apps["status"]["conditions"][0]["message"], "Local APIServices are always available");
    until("v1.", &local).await;
    assert_eq!(server.get(&format!("{SERVICES}/v1.apiregistration.k8s.io")).await.code, 404);

    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": { "name": "things.example.com" },
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": { "plural": "things", "kind": "Thing" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": { "type": "object" } } }],
        },
    });
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    server.post(definitions, &definition).await.expect(201);
    let things = until("v1.example.com", &local).await;
    assert_eq!(things["metadata"]["labels"], json!({ "kube-aggregator.kubernetes.io/automanaged": "true" }));
    assert_eq!(
        (&things["spec"]["groupPriorityMinimum"], &things["spec"]["versionPriority"]),
        (&json!(1000), &json!(100))
    );
    // What the server keeps comes back, and is as the server wants it.
    server.merge(&format!("{SERVICES}/v1.example.com"), &json!({ "spec": { "versionPriority": 7 } })).await.expect(200);
    until("v1.example.com", &|object| object["spec"]["versionPriority"] == 100).await;
    server.delete(&format!("{SERVICES}/v1.example.com")).await.expect(200);
    until("v1.example.com", &local).await;
    server.delete(&format!("{definitions}/things.example.com")).await.expect(200);
    until("v1.example.com", &|object| object["reason"] == "NotFound").await;
}
