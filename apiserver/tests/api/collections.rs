//! Lists: whole, in chunks, of the past, and deleted at once.

use serde_json::{Value, json};

use crate::server::{TestServer, config_map};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().into_iter().flatten().filter_map(|item| item["metadata"]["name"].as_str()).collect()
}

async fn with_maps(count: usize) -> TestServer {
    let server = TestServer::start().await;
    for index in 0..count {
        server.post(MAPS, &config_map(&format!("m{index}"))).await.expect(201);
    }
    server
}

#[tokio::test]
async fn chunks_show_one_state_whatever_happens_meanwhile() {
    let server = with_maps(5).await;
    let first = server.get(&format!("{MAPS}?limit=2")).await.expect(200);
    assert_eq!((names(&first), first["metadata"]["remainingItemCount"].as_u64()), (vec!["m0", "m1"], Some(3)));
    server.delete(&format!("{MAPS}/m3")).await.expect(200);
    server.post(MAPS, &config_map("m9")).await.expect(201);
    let token = first["metadata"]["continue"].as_str().expect("a token");
    let second = server.get(&format!("{MAPS}?limit=2&continue={token}")).await.expect(200);
    assert_eq!(names(&second), ["m2", "m3"]);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let token = second["metadata"]["continue"].as_str().expect("a token");
    let third = server.get(&format!("{MAPS}?limit=2&continue={token}")).await.expect(200);
    assert_eq!(names(&third), ["m4"]);
    assert!(third["metadata"].get("continue").is_none());
}

#[tokio::test]
async fn a_list_shows_the_revision_that_is_asked_for() {
    let server = with_maps(2).await;
    let before = server.get(MAPS).await.expect(200);
    let revision = before["metadata"]["resourceVersion"].as_str().expect("a revision").to_owned();
    server.delete(&format!("{MAPS}/m0")).await.expect(200);
    let exact = server.get(&format!("{MAPS}?resourceVersion={revision}&resourceVersionMatch=Exact")).await.expect(200);
    assert_eq!(
        (names(&exact), exact["metadata"]["resourceVersion"].as_str()),
        (vec!["m0", "m1"], Some(revision.as_str()))
    );
    let newer =
        server.get(&format!("{MAPS}?resourceVersion={revision}&resourceVersionMatch=NotOlderThan")).await.expect(200);
    assert_eq!(names(&newer), ["m1"]);
    assert_eq!(names(&server.get(&format!("{MAPS}?resourceVersion=0&limit=1")).await.expect(200)), ["m1"]);
    let forbidden = server.get(&format!("{MAPS}?resourceVersionMatch=Exact")).await;
    assert_eq!(forbidden.code, 422);
}

#[tokio::test]
async fn selectors_choose() {
    let server = with_maps(3).await;
    server.merge(&format!("{MAPS}/m1"), &json!({ "metadata": { "labels": { "tier": "web" } } })).await.expect(200);
    assert_eq!(names(&server.get(&format!("{MAPS}?labelSelector=tier%3Dweb")).await.expect(200)), ["m1"]);
    assert_eq!(names(&server.get(&format!("{MAPS}?labelSelector=!tier")).await.expect(200)), ["m0", "m2"]);
    assert_eq!(names(&server.get("/api/v1/configmaps?fieldSelector=metadata.name%3Dm2").await.expect(200)), ["m2"]);
    let chunk = server.get(&format!("{MAPS}?labelSelector=!tier&limit=1")).await.expect(200);
    assert!(chunk["metadata"]["continue"].is_string() && chunk["metadata"].get("remainingItemCount").is_none());
}

#[tokio::test]
async fn pods_are_found_by_their_node() {
    let server = TestServer::start().await;
    server.namespace("ns").await;
    for (name, node) in [("a", "n1"), ("b", "n2"), ("c", "n1")] {
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name }, "spec": { "nodeName": node, "containers": [{ "name": "c", "image": "nginx" }] } });
        server.post("/api/v1/namespaces/ns/pods", &pod).await.expect(201);
    }
    assert_eq!(names(&server.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1").await.expect(200)), ["a", "c"]);
    assert_eq!(names(&server.get("/api/v1/pods?fieldSelector=spec.nodeName!%3Dn1").await.expect(200)), ["b"]);
    assert_eq!(
        names(&server.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1,status.phase%3DRunning").await.expect(200)),
        [""; 0]
    );
    assert_eq!(names(&server.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dnone").await.expect(200)), [""; 0]);
}

#[tokio::test]
async fn a_collection_is_deleted() {
    let server = with_maps(3).await;
    server.merge(&format!("{MAPS}/m1"), &json!({ "metadata": { "labels": { "keep": "no" } } })).await.expect(200);
    let deleted = server.delete(&format!("{MAPS}?labelSelector=keep")).await.expect(200);
    assert_eq!((deleted["kind"].as_str(), names(&deleted)), (Some("ConfigMapList"), vec!["m1"]));
    server.delete(MAPS).await.expect(200);
    assert_eq!(names(&server.get(MAPS).await.expect(200)), [""; 0]);
}

#[tokio::test]
async fn lists_come_as_tables_metadata_and_yaml() {
    let server = with_maps(2).await;
    let accept = |value: &'static str| [("accept", value)];
    let table = server
        .request("GET", MAPS, &accept("application/json;as=Table;v=v1;g=meta.k8s.io,application/json"), "")
        .await
        .expect(200);
    assert_eq!((&table["kind"], &table["rows"][0]["cells"][0]), (&json!("Table"), &json!("m0")));
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let bare = server
        .request("GET", MAPS, &accept("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"), "")
        .await
        .expect(200);
    assert!(bare["kind"] == "PartialObjectMetadataList" && bare["items"][0].get("data").is_none());
    let yaml = server.request("GET", MAPS, &accept("application/yaml"), "").await;
    let parsed: Value = serde_yaml::from_slice(&yaml.bytes).expect("YAML");
    assert_eq!(names(&parsed), ["m0", "m1"]);
    let protobuf = server.request("GET", MAPS, &accept("application/vnd.kubernetes.protobuf"), "").await;
    let parsed = minik8s_api::protobuf::decode_object(&protobuf.bytes).expect("protobuf");
    assert_eq!(names(&parsed), ["m0", "m1"]);
}

#[tokio::test]
async fn events_are_selected_by_the_labels_of_their_group() {
    let server = TestServer::start().await;
    let event = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": { "name": "e" }, "reportingComponent": "kubelet", "reason": "Started",
        "involvedObject": { "kind": "Pod", "name": "web", "namespace": "default" },
    });
    server.post("/api/v1/namespaces/default/events", &event).await.expect(201);
    const CORE: &str = "/api/v1/events";
    const GROUP: &str = "/apis/events.k8s.io/v1/events";
    for (path, field, known) in [
        (CORE, "involvedObject.kind%3DPod", true),
        (CORE, "regarding.kind%3DPod", false),
        (GROUP, "regarding.kind%3DPod", true),
        (GROUP, "reportingController%3Dkubelet,reason%3DStarted", true),
        (GROUP, "involvedObject.kind%3DPod", false),
        (GROUP, "reportingComponent%3Dkubelet", false),
    ] {
        let answer = server.get(&format!("{path}?fieldSelector={field}")).await;
        match known {
            true => assert_eq!(answer.expect(200)["items"].as_array().map(Vec::len), Some(1), "{path} {field}"),
            false => {
                let label = field.split('%').next().expect("a label");
                assert_eq!(answer.message(), format!("field label not supported: {label}"));
            }
        }
    }
}
