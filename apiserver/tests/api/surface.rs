//! What is not an object: who gets in, discovery, health, documents, bodies of every form.

use serde_json::{Value, json};

use crate::server::{TestServer, config_map};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn nobody_gets_in_without_a_name() {
    let server = TestServer::start().await;
    for (method, path) in [
        ("GET", MAPS),
        ("POST", MAPS),
        ("GET", "/metrics"),
        ("DELETE", "/api/v1/nodes/n"),
        ("GET", "/extra"),
        ("GET", "/openapi/v2"),
    ] {
        assert_eq!(server.anonymous(method, path, &[], "{}").await.code, 403, "{method} {path}");
        let bad = server.anonymous(method, path, &[("authorization", "Bearer nonsense")], "{}").await;
        assert_eq!(bad.code, 401, "{method} {path}");
    }
    for path in ["/version", "/healthz", "/readyz?verbose", "/livez"] {
        assert_eq!(server.anonymous("GET", path, &[], "").await.code, 200, "{path}");
    }
    assert_eq!(server.get("/extra").await.bytes, "extra");
    assert_eq!(server.get("/nope").await.code, 404);
}

#[tokio::test]
async fn discovery_is_aggregated_for_those_who_ask() {
    let server = TestServer::start().await;
    let accept = [(
        "accept",
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json",
    )];
    let all = server.request("GET", "/apis", &accept, "").await;
    assert_eq!(all.headers["content-type"], "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    let etag = all.headers["etag"].to_str().expect("a tag").to_owned();
    assert_eq!(all.expect(200)["kind"], "APIGroupDiscoveryList");
    let headers = [accept[0], ("if-none-match", etag.as_str())];
    assert_eq!(server.request("GET", "/apis", &headers, "").await.code, 304);
    assert_eq!(server.get("/apis").await.expect(200)["kind"], "APIGroupList");
    assert_eq!(server.get("/api/v1").await.expect(200)["groupVersion"], "v1");
    assert_eq!(server.get("/apis/nope.io").await.bytes, "404 page not found\n");
}

#[tokio::test]
async fn health_and_components_say_ok() {
    let server = TestServer::start().await;
    assert_eq!(server.get("/readyz").await.bytes, "ok");
    let verbose = server.get("/readyz?verbose").await.json();
    assert!(
        verbose
            .as_str()
            .is_some_and(|text| text.starts_with("[+]ping ok\n") && text.ends_with("readyz check passed\n")),
        "{verbose}"
    );
    let statuses = server.get("/api/v1/componentstatuses").await.expect(200);
    assert_eq!(statuses["items"][0]["metadata"]["name"], "etcd-0");
    assert_eq!(statuses["items"][0]["conditions"], json!([{ "type": "Healthy", "status": "True", "message": "ok" }]));
    let metrics = server.get("/metrics").await.json();
    assert!(metrics.as_str().is_some_and(|text| {
        text.contains("apiserver_storage_objects{resource=\"clusterroles.rbac.authorization.k8s.io\"}")
    }));
}

#[tokio::test]
async fn bodies_come_in_every_form() {
    let server = TestServer::start().await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: y}\ndata: {a: '1'}\n";
    server.request("POST", MAPS, &[("content-type", "application/yaml")], yaml).await.expect(201);
    let protobuf = minik8s_api::protobuf::encode_object(&config_map("p")).expect("protobuf");
    let kind = [("content-type", "application/vnd.kubernetes.protobuf")];
    assert_eq!(server.request("POST", MAPS, &kind, protobuf).await.expect(201)["data"], json!({ "a": "1" }));
    let options = json!({ "kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0, "propagationPolicy": "Background" });
    let deleted = server
        .request("DELETE", &format!("{MAPS}/p"), &[("content-type", "application/json")], options.to_string())
        .await;
    deleted.expect(200);
    server.request("POST", MAPS, &[("content-type", "text/plain")], "x").await.expect(415);
    server.request("GET", MAPS, &[("accept", "text/html")], "").await.expect(406);
}

#[tokio::test]
async fn large_answers_are_compressed() {
    use std::io::Read;
    let server = TestServer::start().await;
    let mut large = config_map("large");
    large["data"]["x"] = Value::from("y".repeat(200_000));
    server.post(MAPS, &large).await.expect(201);
    let answer = server.request("GET", MAPS, &[("accept-encoding", "gzip")], "").await;
    assert_eq!(answer.headers["content-encoding"], "gzip");
    assert!(answer.bytes.len() < 10_000);
    let mut text = String::new();
    flate2::read::GzDecoder::new(&answer.bytes[..]).read_to_string(&mut text).expect("gzip");
    let list: Value = serde_json::from_str(&text).expect("JSON");
    assert!(list["items"].as_array().is_some_and(|items| items.iter().any(|item| item["metadata"]["name"] == "large")));
}

#[tokio::test]
async fn impossible_requests_are_refused_in_kubernetes_words() {
    let server = TestServer::start().await;
    let message = |code: u16, answer: crate::server::Answer| {
        assert_eq!(answer.code, code, "{answer:?}");
        answer.message()
    };
    let not_allowed = "the server does not allow this method on the requested resource";
    assert_eq!(message(405, server.post("/api/v1/pods", &json!({})).await), not_allowed);
    assert_eq!(message(405, server.delete("/api/v1/namespaces").await), not_allowed);
    assert_eq!(
        message(404, server.get("/api/v1/namespaces/default/nodes").await),
        "the server could not find the requested resource"
    );
    assert_eq!(
        message(404, server.get(&format!("{MAPS}/a/status")).await),
        "the server could not find the requested resource"
    );
    let no_node = server.get("/api/v1/namespaces/default/pods/nope/log").await;
    assert_eq!(message(404, no_node), "pods \"nope\" not found");
}

#[tokio::test]
async fn documents_describe_the_api() {
    let server = TestServer::start().await;
    let index = server.get("/openapi/v3").await.expect(200);
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().expect("a path").to_owned();
    let document = server.get(&url).await.expect(200);
    assert!(
        document["components"]["schemas"]["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["strategy"].is_object()
    );
    let only_protobuf = [("accept", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf")];
    assert_eq!(server.request("GET", "/openapi/v2", &only_protobuf, "").await.code, 200);
}
