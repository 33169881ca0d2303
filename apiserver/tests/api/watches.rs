//! Watches: where they start, what they show, how they end.

use minik8s_api::protobuf;
use serde_json::json;

use crate::server::{TestServer, config_map};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn a_watch_shows_what_is_there_and_what_happens() {
    let server = TestServer::start().await;
    server.post(MAPS, &config_map("a")).await.expect(201);
    let mut watch = server.watch(&format!("{MAPS}?watch=1")).await;
    assert_eq!(watch.brief().await, "ADDED a");
    server.post(MAPS, &config_map("b")).await.expect(201);
    server.merge(&format!("{MAPS}/a"), &json!({ "data": null })).await.expect(200);
    let before = server.get(&format!("{MAPS}/b")).await.expect(200);
    server.delete(&format!("{MAPS}/b")).await.expect(200);
    assert_eq!(watch.brief().await, "ADDED b");
    assert_eq!(watch.brief().await, "MODIFIED a");
    let gone = watch.next().await.expect("an event");
    assert_eq!((&gone["type"], &gone["object"]["data"]), (&json!("DELETED"), &before["data"]));
    assert_ne!(gone["object"]["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn a_watch_resumes_after_a_revision() {
    let server = TestServer::start().await;
    let a = server.post(MAPS, &config_map("a")).await.expect(201);
    server.post(MAPS, &config_map("b")).await.expect(201);
    server.delete(&format!("{MAPS}/a")).await.expect(200);
    let revision = a["metadata"]["resourceVersion"].as_str().expect("a revision");
    let mut watch = server.watch(&format!("{MAPS}?watch=1&resourceVersion={revision}")).await;
    assert_eq!([watch.brief().await, watch.brief().await], ["ADDED b", "DELETED a"]);
    let restarted = server.restarted().await;
    let mut expired = restarted.watch(&format!("{MAPS}?watch=1&resourceVersion=1")).await;
    let event = expired.next().await.expect("an event");
    assert_eq!(
        (&event["type"], &event["object"]["code"], &event["object"]["reason"]),
        (&json!("ERROR"), &json!(410), &json!("Expired"))
    );
    assert!(expired.next().await.is_none());
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let server = TestServer::start().await;
    server.post(MAPS, &config_map("a")).await.expect(201);
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = server.watch(&format!("{MAPS}?{query}")).await;
    assert_eq!(watch.brief().await, "ADDED a");
    let bookmark = watch.next().await.expect("a bookmark");
    assert_eq!((&bookmark["type"], &bookmark["object"]["kind"]), (&json!("BOOKMARK"), &json!("ConfigMap")));
    assert_eq!(bookmark["object"]["metadata"]["annotations"], json!({ "k8s.io/initial-events-end": "true" }));
    server.post(MAPS, &config_map("b")).await.expect(201);
    assert_eq!(watch.brief().await, "ADDED b");
    let refused = server.get(&format!("{MAPS}?watch=1&sendInitialEvents=true")).await;
    assert_eq!(refused.code, 422);
}

#[tokio::test]
async fn objects_come_into_a_selection_and_leave_it() {
    let server = TestServer::start().await;
    server.post(MAPS, &config_map("a")).await.expect(201);
    let mut watch = server.watch(&format!("{MAPS}?watch=1&labelSelector=tier%3Dweb")).await;
    let mut one = server.watch(&format!("{MAPS}?watch=1&fieldSelector=metadata.name%3Da")).await;
    server.merge(&format!("{MAPS}/a"), &json!({ "metadata": { "labels": { "tier": "web" } } })).await.expect(200);
    server.post(MAPS, &config_map("b")).await.expect(201);
    server.merge(&format!("{MAPS}/a"), &json!({ "metadata": { "labels": { "tier": "db" } } })).await.expect(200);
    assert_eq!(watch.brief().await, "ADDED a");
    let left = watch.next().await.expect("an event");
    assert_eq!((&left["type"], &left["object"]["metadata"]["labels"]["tier"]), (&json!("DELETED"), &json!("web")));
    assert_eq!([one.brief().await, one.brief().await, one.brief().await], ["ADDED a", "MODIFIED a", "MODIFIED a"]);
}

#[tokio::test]
async fn a_kubelet_sees_the_pods_of_its_node() {
    let server = TestServer::start().await;
    server.namespace("ns").await;
    let mut watch = server.watch("/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dn1").await;
    for name in ["p", "q"] {
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name }, "spec": { "containers": [{ "name": "c", "image": "nginx" }] } });
        server.post("/api/v1/namespaces/ns/pods", &pod).await.expect(201);
    }
    for (name, node) in [("q", "n2"), ("p", "n1")] {
        let binding = json!({ "apiVersion": "v1", "kind": "Binding", "metadata": { "name": name }, "target": { "kind": "Node", "name": node } });
        server.post(&format!("/api/v1/namespaces/ns/pods/{name}/binding"), &binding).await.expect(201);
    }
    server.delete("/api/v1/namespaces/ns/pods/p?gracePeriodSeconds=0").await.expect(200);
    assert_eq!(watch.brief().await, "ADDED p");
    // How a pod ends is stored before it goes.
    for expected in ["MODIFIED", "DELETED"] {
        let event = watch.next().await.expect("an event");
        assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!(expected), &json!("p")));
        assert_eq!(event["object"]["metadata"]["deletionGracePeriodSeconds"], 0);
    }
}

#[tokio::test]
async fn a_watch_ends_in_its_time() {
    let server = TestServer::start().await;
    let mut watch = server.watch(&format!("{MAPS}?watch=1&timeoutSeconds=1&allowWatchBookmarks=true")).await;
    let bookmark = server.in_time(watch.next()).await.expect("the end of the initial events");
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let bookmark = server.in_time(watch.next()).await.expect("a last bookmark");
    assert_eq!((&bookmark["type"], bookmark["object"]["metadata"].get("annotations")), (&json!("BOOKMARK"), None));
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn watches_come_as_tables_and_protobuf() {
    let server = TestServer::start().await;
    server.post(MAPS, &config_map("a")).await.expect(201);
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let answer = server.in_time(server.request("GET", &format!("{MAPS}?watch=1&timeoutSeconds=1"), &table, "")).await;
    let event: serde_json::Value = serde_json::from_slice(&answer.bytes).expect("one event");
    assert_eq!((&event["object"]["kind"], &event["object"]["rows"][0]["cells"][0]), (&json!("Table"), &json!("a")));
    let accept = [("accept", "application/vnd.kubernetes.protobuf")];
    let answer = server.in_time(server.request("GET", &format!("{MAPS}?watch=1&timeoutSeconds=1"), &accept, "")).await;
    let object = server.get(&format!("{MAPS}/a")).await.expect(200);
    let expect = protobuf::encode_watch_event("ADDED", &protobuf::encode_object(&object).expect("an object"));
    assert_eq!(answer.bytes, expect);
}

#[tokio::test]
async fn old_paths_watch_too() {
    let server = TestServer::start().await;
    server.post(MAPS, &config_map("a")).await.expect(201);
    let mut watch = server.watch("/api/v1/watch/namespaces/default/configmaps").await;
    assert_eq!(watch.brief().await, "ADDED a");
}
