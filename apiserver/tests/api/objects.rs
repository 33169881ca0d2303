//! One object at a time: created, changed, deleted, and who is told what when two are at it.

use serde_json::{Value, json};

use crate::server::{TestServer, config_map};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn an_object_lives_and_dies() {
    let server = TestServer::start().await;
    let created = server.post(MAPS, &config_map("a")).await.expect(201);
    let (uid, first) = (created["metadata"]["uid"].clone(), created["metadata"]["resourceVersion"].clone());
    assert_eq!(server.get(&format!("{MAPS}/a")).await.expect(200), created);
    assert_eq!(server.post(MAPS, &config_map("a")).await.message(), "configmaps \"a\" already exists");

    let changed = server.merge(&format!("{MAPS}/a"), &json!({ "data": { "b": "2" } })).await.expect(200);
    assert_eq!(changed["data"], json!({ "a": "1", "b": "2" }));
    assert_eq!(changed["metadata"]["uid"], uid);
    assert_ne!(changed["metadata"]["resourceVersion"], first);
    let again = server.merge(&format!("{MAPS}/a"), &json!({ "data": { "b": "2" } })).await.expect(200);
    assert_eq!(again, changed, "a patch that changes nothing writes nothing");

    let gone = server.delete(&format!("{MAPS}/a")).await.expect(200);
    assert_eq!(
        gone,
        json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": { "name": "a", "kind": "configmaps", "uid": uid } })
    );
    server.get(&format!("{MAPS}/a")).await.expect(404);
    server.delete(&format!("{MAPS}/a")).await.expect(404);
}

#[tokio::test]
async fn writers_who_are_late_are_told() {
    let server = TestServer::start().await;
    let mut first = server.post(MAPS, &config_map("a")).await.expect(201);
    server.merge(&format!("{MAPS}/a"), &json!({ "data": { "b": "2" } })).await.expect(200);
    first["data"]["c"] = json!("3");
    let late = server.put(&format!("{MAPS}/a"), &first).await;
    assert_eq!((late.code, late.json()["reason"].clone()), (409, json!("Conflict")));

    let mut other = config_map("a");
    other["metadata"]["uid"] = json!("00000000-0000-0000-0000-000000000000");
    let mistaken = server.put(&format!("{MAPS}/a"), &other).await.message();
    assert!(
        mistaken.contains("Precondition failed: UID in precondition: 00000000-0000-0000-0000-000000000000"),
        "{mistaken}"
    );

    let options = json!({ "preconditions": { "resourceVersion": first["metadata"]["resourceVersion"] } });
    let refused = server
        .request("DELETE", &format!("{MAPS}/a"), &[("content-type", "application/json")], options.to_string())
        .await;
    assert_eq!(refused.code, 409);
}

#[tokio::test]
async fn writers_at_once_all_get_through() {
    const WRITERS: usize = 20;
    let server = TestServer::start().await;
    server.post(MAPS, &config_map("a")).await.expect(201);
    let path = format!("{MAPS}/a");
    let writes = (0..WRITERS).map(|writer| {
        let (server, path) = (&server, &path);
        async move { server.merge(path, &json!({ "data": { format!("w{writer}"): "x" } })).await.code }
    });
    assert_eq!(futures::future::join_all(writes).await, vec![200; WRITERS]);
    let data = server.get(&path).await.expect(200)["data"].as_object().map(serde_json::Map::len);
    assert_eq!(data, Some(WRITERS + 1));
}

#[tokio::test]
async fn dry_runs_leave_nothing() {
    let server = TestServer::start().await;
    let created = server.post(&format!("{MAPS}?dryRun=All"), &config_map("a")).await.expect(201);
    assert!(created["metadata"].get("resourceVersion").is_none());
    server.get(&format!("{MAPS}/a")).await.expect(404);
    server.post(MAPS, &config_map("a")).await.expect(201);
    server.merge(&format!("{MAPS}/a?dryRun=All"), &json!({ "data": null })).await.expect(200);
    server.delete(&format!("{MAPS}/a?dryRun=All")).await.expect(200);
    assert_eq!(server.get(&format!("{MAPS}/a")).await.expect(200)["data"], json!({ "a": "1" }));
}

#[tokio::test]
async fn finalizers_hold_an_object() {
    let server = TestServer::start().await;
    let mut held = config_map("a");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    server.post(MAPS, &held).await.expect(201);
    let marked = server.delete(&format!("{MAPS}/a")).await.expect(200);
    assert!(marked["metadata"]["deletionTimestamp"].is_string(), "{marked:#}");
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
    assert_eq!(
        server.delete(&format!("{MAPS}/a")).await.expect(200)["metadata"]["resourceVersion"],
        marked["metadata"]["resourceVersion"]
    );
    server.merge(&format!("{MAPS}/a"), &json!({ "metadata": { "finalizers": null } })).await.expect(200);
    server.get(&format!("{MAPS}/a")).await.expect(404);
}

#[tokio::test]
async fn propagation_is_left_to_the_garbage_collector_as_finalizers() {
    let server = TestServer::start().await;
    for (policy, finalizer) in [("Orphan", "orphan"), ("Foreground", "foregroundDeletion")] {
        server.post(MAPS, &config_map("a")).await.expect(201);
        let marked = server.delete(&format!("{MAPS}/a?propagationPolicy={policy}")).await.expect(200);
        assert_eq!(marked["metadata"]["finalizers"], json!([finalizer]));
        server.merge(&format!("{MAPS}/a"), &json!({ "metadata": { "finalizers": null } })).await.expect(200);
    }
    server.post(MAPS, &config_map("a")).await.expect(201);
    server.delete(&format!("{MAPS}/a?propagationPolicy=Background")).await.expect(200);
    server.get(&format!("{MAPS}/a")).await.expect(404);
}

fn pod(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name }, "spec": { "containers": [{ "name": "c", "image": "nginx" }] } })
}

#[tokio::test]
async fn a_pod_on_a_node_ends_gracefully() {
    let server = TestServer::start().await;
    server.namespace("ns").await;
    let pods = "/api/v1/namespaces/ns/pods";
    server.post(pods, &pod("waiting")).await.expect(201);
    server.delete(&format!("{pods}/waiting")).await.expect(200);
    server.get(&format!("{pods}/waiting")).await.expect(404);

    server.post(pods, &pod("p")).await.expect(201);
    let binding = json!({ "apiVersion": "v1", "kind": "Binding", "metadata": { "name": "p" }, "target": { "kind": "Node", "name": "n1" } });
    let bound = server.post(&format!("{pods}/p/binding"), &binding).await.expect(201);
    assert_eq!(
        bound,
        json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 })
    );
    let twice = server.post(&format!("{pods}/p/binding"), &binding).await.message();
    assert_eq!(twice, "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n1\"");
    let live = server.get(&format!("{pods}/p")).await.expect(200);
    assert_eq!(live["spec"]["nodeName"], "n1");
    assert_eq!(live["status"]["conditions"][0]["type"], "PodScheduled");

    let ending = server.delete(&format!("{pods}/p")).await.expect(200);
    assert_eq!(ending["metadata"]["deletionGracePeriodSeconds"], 30);
    let longer = server.delete(&format!("{pods}/p?gracePeriodSeconds=60")).await.expect(200);
    assert_eq!(longer["metadata"]["deletionGracePeriodSeconds"], 30);
    let shorter = server.delete(&format!("{pods}/p?gracePeriodSeconds=1")).await.expect(200);
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 1);
    server.delete(&format!("{pods}/p?gracePeriodSeconds=0")).await.expect(200);
    server.get(&format!("{pods}/p")).await.expect(404);
}

#[tokio::test]
async fn a_namespace_goes_when_it_is_finalized() {
    let server = TestServer::start().await;
    server.namespace("ns").await;
    let marked = server.delete("/api/v1/namespaces/ns").await.expect(200);
    assert_eq!(marked["status"]["phase"], "Terminating");
    let mut finalized = marked.clone();
    finalized["spec"]["finalizers"] = json!([]);
    server.put("/api/v1/namespaces/ns/finalize", &finalized).await.expect(200);
    server.get("/api/v1/namespaces/ns").await.expect(404);
}

#[tokio::test]
async fn an_eviction_asks_the_budget() {
    let server = TestServer::start().await;
    server.namespace("ns").await;
    let mut running = pod("p");
    running["metadata"]["labels"] = json!({ "app": "x" });
    running["spec"]["nodeName"] = json!("n1");
    server.post("/api/v1/namespaces/ns/pods", &running).await.expect(201);
    server.merge("/api/v1/namespaces/ns/pods/p/status", &json!({ "status": { "phase": "Running" } })).await.expect(200);
    let budgets = "/apis/policy/v1/namespaces/ns/poddisruptionbudgets";
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": { "name": "b" },
        "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "x" } } },
    });
    server.post(budgets, &budget).await.expect(201);
    let status = |allowed: i64| json!({ "status": { "observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1 } });
    server.merge(&format!("{budgets}/b/status"), &status(0)).await.expect(200);

    let eviction = json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": "p" } });
    let refused = server.post("/api/v1/namespaces/ns/pods/p/eviction", &eviction).await;
    assert_eq!(
        (refused.code, refused.message().as_str()),
        (429, "Cannot evict pod as it would violate the pod's disruption budget.")
    );
    assert_eq!(
        refused.json()["details"]["causes"][0]["message"],
        "The disruption budget b needs 1 healthy pods and has 1 currently"
    );
    server.merge(&format!("{budgets}/b/status"), &status(1)).await.expect(200);
    server.post("/api/v1/namespaces/ns/pods/p/eviction", &eviction).await.expect(201);
    let after = server.get(&format!("{budgets}/b")).await.expect(200);
    assert_eq!(after["status"]["disruptionsAllowed"], 0);
    let going = server.get("/api/v1/namespaces/ns/pods/p").await.expect(200);
    let why = going["status"]["conditions"].as_array().and_then(|all| all.last()).expect("a condition");
    assert_eq!((&why["type"], &why["reason"]), (&json!("DisruptionTarget"), &json!("EvictionByEvictionAPI")));
    assert!(going["metadata"]["deletionTimestamp"].is_string(), "{going}");
    assert!(after["status"]["disruptedPods"]["p"].is_string());
    assert!(server.get("/api/v1/namespaces/ns/pods/p").await.expect(200)["metadata"]["deletionTimestamp"].is_string());
}

#[tokio::test]
async fn both_event_groups_show_the_same_events() {
    let server = TestServer::start().await;
    let event = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": { "name": "e" }, "type": "Normal", "reason": "Started", "message": "hello",
        "involvedObject": { "kind": "Pod", "namespace": "default", "name": "p" }, "source": { "component": "kubelet" },
    });
    server.post("/api/v1/namespaces/default/events", &event).await.expect(201);
    let other = server.get("/apis/events.k8s.io/v1/namespaces/default/events/e").await.expect(200);
    assert_eq!(
        (&other["apiVersion"], &other["note"], &other["regarding"]["name"]),
        (&json!("events.k8s.io/v1"), &json!("hello"), &json!("p"))
    );
    let selected =
        server.get("/api/v1/events?fieldSelector=involvedObject.name%3Dp,reason!%3DKilling").await.expect(200);
    assert_eq!(selected["items"].as_array().map(Vec::len), Some(1));
    use minik8s_store::Store;
    assert_eq!(server.store.status().leases, 1, "events live by a lease");
}

#[tokio::test]
async fn an_applier_owns_what_it_says_and_no_zeros_beside() {
    let server = TestServer::start().await;
    let path = "/apis/apps/v1/namespaces/default/deployments/d";
    let apply = async |manager: &str, body: Value| {
        let kind = [("content-type", "application/apply-patch+yaml")];
        let path = format!("{path}?fieldManager={manager}");
        server.request("PATCH", &path, &kind, body.to_string()).await
    };
    let deployment = |replicas: u32| {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "d" },
            "spec": {
                "replicas": replicas, "selector": { "matchLabels": { "app": "x" } },
                "template": {
                    "metadata": { "labels": { "app": "x" } },
                    "spec": { "containers": [{ "name": "c", "image": "nginx" }] },
                },
            },
        })
    };
    let first = apply("one", deployment(2)).await.expect(201);
    let again = apply("one", deployment(2)).await.expect(200);
    assert_eq!(again["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let note = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": "d", "annotations": { "example.com/note": "hello" } },
    });
    let noted = apply("two", note).await.expect(200);
    assert_eq!(noted["spec"], first["spec"]);
    let entries = noted["metadata"]["managedFields"].as_array().expect("entries");
    let two = entries.iter().find(|entry| entry["manager"] == "two").expect("an entry");
    let owned = json!({ "f:metadata": { "f:annotations": { "f:example.com/note": {} } } });
    assert_eq!(two["fieldsV1"], owned);

    let conflict = apply("two", deployment(3)).await;
    assert_eq!(conflict.code, 409);
    assert_eq!(conflict.message(), "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas");
    let strange = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "d" } });
    assert_eq!(apply("one", strange).await.code, 400);
}

#[tokio::test]
async fn who_scales_owns_the_replicas() {
    const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/default/deployments/web";
    let server = TestServer::start().await;
    let template = json!({ "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [{ "name": "c", "image": "nginx" }] } });
    let spec = json!({ "replicas": 2, "selector": { "matchLabels": { "a": "b" } }, "template": template });
    let deployment =
        json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" }, "spec": spec });
    server.post("/apis/apps/v1/namespaces/default/deployments", &deployment).await.expect(201);
    let scale = |replicas: u32| json!({ "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": { "name": "web" }, "spec": { "replicas": replicas } });
    let owner = async || {
        let object = server.get(DEPLOYMENT).await.expect(200);
        let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        let owns = |entry: &&Value| entry.pointer("/fieldsV1/f:spec/f:replicas").is_some();
        let entry = entries.iter().find(owns).cloned().unwrap_or_default();
        let part = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        (part("manager"), part("operation"), part("subresource"), part("apiVersion"))
    };
    let owned = |manager: &str, operation: &str| {
        (manager.to_owned(), operation.to_owned(), "scale".to_owned(), "apps/v1".to_owned())
    };
    server.put(&format!("{DEPLOYMENT}/scale?fieldManager=hpa"), &scale(5)).await.expect(200);
    assert_eq!(owner().await, owned("hpa", "Update"));

    let headers = [("content-type", "application/apply-patch+yaml")];
    let apply = async |query: &str, scale: Value| {
        let path = format!("{DEPLOYMENT}/scale?fieldManager=me{query}");
        server.request("PATCH", &path, &headers, scale.to_string()).await
    };
    assert_eq!(
        apply("", scale(4)).await.message(),
        "Apply failed with 1 conflict: conflict with \"hpa\" with subresource \"scale\" using autoscaling/v1: .spec.replicas"
    );
    assert_eq!(apply("&force=true", scale(4)).await.expect(200)["spec"]["replicas"], 4);
    assert_eq!(owner().await, owned("me", "Apply"));
    assert_eq!(apply("", deployment).await.message(), "invalid object type: apps/v1, Kind=Deployment");

    let nothing = json!([{ "op": "replace", "path": "", "value": null }]).to_string();
    let patched = [("content-type", "application/json-patch+json")];
    server.request("PATCH", &format!("{DEPLOYMENT}/scale"), &patched, nothing).await.expect(422);

    let mut elsewhere = scale(3);
    elsewhere["metadata"]["namespace"] = json!("other");
    let refused = server.put(&format!("{DEPLOYMENT}/scale"), &elsewhere).await;
    assert_eq!(
        refused.message(),
        "the namespace of the provided object does not match the namespace sent on the request"
    );
}

#[tokio::test]
async fn an_event_is_selected_by_whoever_reported_it() {
    let server = TestServer::start().await;
    server.namespace("ns").await;
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": { "name": "e" }, "type": "Normal", "reason": "Test",
        "action": "Do", "reportingController": "test-controller", "reportingInstance": "test-node",
        "eventTime": "2026-01-01T00:00:00.000000Z", "regarding": { "namespace": "ns" },
    });
    server.post("/apis/events.k8s.io/v1/namespaces/ns/events", &event).await.expect(201);
    for (selector, found) in
        [("source=test-controller", 1), ("source=other", 0), ("reportingComponent=test-controller", 1)]
    {
        let list = server.get(&format!("/api/v1/namespaces/ns/events?fieldSelector={selector}")).await.expect(200);
        assert_eq!(list["items"].as_array().map(Vec::len), Some(found), "{selector}");
    }
}
