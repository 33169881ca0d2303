//! Custom resources: kinds that come, change and go while the server runs.

use serde_json::{Value, json};
use tokio::task::yield_now;

use crate::server::TestServer;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const THINGS: &str = "/apis/example.com/v1/namespaces/default/things";

/// A definition of things with one property each test brings.
fn things(spec: Value) -> Value {
    let schema = json!({ "type": "object", "properties": { "spec": spec, "status": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } } });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": "things.example.com" },
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": { "plural": "things", "kind": "Thing", "shortNames": ["th"], "categories": ["all"] },
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": schema },
                "subresources": { "status": {}, "scale": { "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector" } },
                "selectableFields": [{ "jsonPath": ".spec.color" }],
            }],
        },
    })
}

fn spec() -> Value {
    json!({ "type": "object", "properties": {
        "color": { "type": "string", "default": "red", "description": "What it looks like." },
        "replicas": { "type": "integer" },
        "ports": { "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": { "type": "object", "required": ["name"], "properties": { "name": { "type": "string" }, "port": { "type": "integer" } } } },
    } })
}

fn thing(name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "example.com/v1", "kind": "Thing", "metadata": { "name": name }, "spec": spec })
}

async fn with_things(spec: Value) -> TestServer {
    let server = TestServer::start().await;
    server.post(DEFINITIONS, &things(spec)).await.expect(201);
    server
}

#[tokio::test]
async fn a_definition_is_served_at_once_everywhere() {
    let server = with_things(spec()).await;
    let list = server.get("/apis/example.com/v1").await.expect(200);
    assert_eq!(list["resources"][0]["name"], "things");
    assert_eq!(list["resources"][0]["shortNames"], json!(["th"]));
    assert_eq!(list["resources"][1]["name"], "things/status");
    assert_eq!(
        list["resources"][2],
        json!({
            "name": "things/scale", "singularName": "", "namespaced": true, "group": "autoscaling", "version": "v1", "kind": "Scale",
            "verbs": ["get", "patch", "update"],
        })
    );
    let index = server.get("/openapi/v3").await.expect(200);
    assert!(index["paths"]["apis/example.com/v1"]["serverRelativeURL"].is_string());
    let document = server.get("/openapi/v3/apis/example.com/v1").await.expect(200);
    let patch = &document["paths"]["/apis/example.com/v1/namespaces/{namespace}/things/{name}"]["patch"];
    let types: Vec<&String> = patch["requestBody"]["content"].as_object().expect("media types").keys().collect();
    assert_eq!(
        types,
        ["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"],
        "kubectl apply takes the best of them"
    );
    let schema = &document["components"]["schemas"]["com.example.v1.Thing"];
    assert_eq!(schema["properties"]["spec"]["properties"]["color"]["description"], "What it looks like.");
    assert_eq!(schema["x-kubernetes-group-version-kind"][0]["kind"], "Thing");
    let v2 = server.get("/openapi/v2").await.expect(200);
    assert!(v2["definitions"]["com.example.v1.ThingList"]["properties"]["items"].is_object());
    // A name that is taken is not given twice.
    let mut other = things(spec());
    other["metadata"]["name"] = json!("others.example.com");
    other["spec"]["names"]["plural"] = json!("others");
    server.post(DEFINITIONS, &other).await.expect(201);
    let other = server.get(&format!("{DEFINITIONS}/others.example.com")).await.expect(200);
    assert_eq!(other["status"]["conditions"][0]["reason"], "ListKindConflict");
    assert_eq!(other["status"]["conditions"][1]["message"], "not all names are accepted");
    server.get("/apis/example.com/v1/others").await.expect(404);
}

#[tokio::test]
async fn custom_resources_are_written_as_any_kind() {
    let server = with_things(spec()).await;
    let made = server.post(THINGS, &thing("a", json!({ "ports": [{ "name": "x", "port": 1 }] }))).await.expect(201);
    assert_eq!((&made["spec"]["color"], &made["metadata"]["generation"]), (&json!("red"), &json!(1)));
    let path = format!("{THINGS}/a");
    let changed = server.merge(&path, &json!({ "spec": { "replicas": 2 } })).await.expect(200);
    assert_eq!(changed["metadata"]["generation"], 2);
    let labelled = server.merge(&path, &json!({ "metadata": { "labels": { "l": "1" } } })).await.expect(200);
    assert_eq!(labelled["metadata"]["generation"], 2);
    let reported = json!({ "status": { "replicas": 2, "selector": "l=1" }, "metadata": { "labels": { "l": "2" } } });
    let status = server.merge(&format!("{path}/status"), &reported).await.expect(200);
    assert_eq!((&status["status"]["replicas"], &status["metadata"]["labels"]["l"]), (&json!(2), &json!("1")));
    let scale = server.get(&format!("{path}/scale")).await.expect(200);
    assert_eq!(
        (&scale["spec"]["replicas"], &scale["status"]),
        (&json!(2), &json!({ "replicas": 2, "selector": "l=1" }))
    );
    server.merge(&format!("{path}/scale"), &json!({ "spec": { "replicas": 5 } })).await.expect(200);
    assert_eq!(server.get(&path).await.expect(200)["spec"]["replicas"], 5);
    let negative = server.merge(&path, &json!({ "spec": { "replicas": -1 } })).await;
    assert_eq!(
        negative.message(),
        "Thing.example.com \"a\" is invalid: .spec.replicas: Invalid value: -1: should be a non-negative integer"
    );

    let no_version = server.put(&path, &thing("a", json!({}))).await;
    assert!(no_version.message().contains("must be specified for an update"), "{}", no_version.message());
    let wrong = server
        .post(THINGS, &json!({ "apiVersion": "example.com/v2", "kind": "Thing", "metadata": { "name": "b" } }))
        .await;
    assert_eq!(
        wrong.message(),
        "the API version in the data (example.com/v2) does not match the expected API version (example.com/v1)"
    );
    let protobuf =
        server.request("POST", THINGS, &[("content-type", "application/vnd.kubernetes.protobuf")], "k8s\0").await;
    assert_eq!(protobuf.code, 415);
    let no_metadata =
        server.post(THINGS, &json!({ "apiVersion": "example.com/v1", "kind": "Thing", "metadata": [] })).await;
    assert_eq!(no_metadata.code, 400);

    server.post(THINGS, &thing("blue", json!({ "color": "blue" }))).await.expect(201);
    let blue = server.get(&format!("{THINGS}?fieldSelector=spec.color%3Dblue")).await.expect(200);
    assert_eq!((blue["kind"].as_str(), blue["items"].as_array().map(Vec::len)), (Some("ThingList"), Some(1)));
    assert_eq!(blue["items"][0]["kind"], "Thing");
    let unknown = server.get(&format!("{THINGS}?fieldSelector=spec.size%3D1")).await;
    assert_eq!(unknown.message(), "field label not supported: spec.size");
    let table = server
        .request("GET", THINGS, &[("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")], "")
        .await
        .expect(200);
    assert_eq!(table["columnDefinitions"][1]["name"], "Age");
    assert_eq!(table["rows"][0]["cells"], json!(["a", "0s"]));
}

#[tokio::test]
async fn an_applied_list_has_one_owner_an_element() {
    let server = with_things(spec()).await;
    let apply = async |manager: &str, port: Value| {
        let path = format!("{THINGS}/a?fieldManager={manager}");
        let body = thing("a", json!({ "ports": [port] })).to_string();
        server.request("PATCH", &path, &[("content-type", "application/apply-patch+yaml")], body).await
    };
    apply("one", json!({ "name": "x", "port": 1 })).await.expect(201);
    let both = apply("two", json!({ "name": "y", "port": 2 })).await.expect(200);
    assert_eq!(both["spec"]["ports"], json!([{ "name": "x", "port": 1 }, { "name": "y", "port": 2 }]));
    let conflict = apply("two", json!({ "name": "x", "port": 3 })).await;
    assert_eq!(conflict.code, 409);
    assert!(conflict.message().contains(r#".spec.ports[name="x"].port"#), "{}", conflict.message());
}

#[tokio::test]
async fn rules_see_what_was() {
    let rules = json!([
        { "rule": "self.n >= oldSelf.n", "message": "n only grows", "fieldPath": ".n" },
        { "rule": "!has(self.list) || self.list.all(x, x.startsWith('a'))", "messageExpression": "size(self.list) > 1 ? 'every one starts with a' : 'it starts with a'", "reason": "FieldValueForbidden" },
        { "rule": "oldSelf.hasValue() || self.n < 100", "optionalOldSelf": true, "message": "starts small" },
    ]);
    let spec = json!({ "type": "object", "x-kubernetes-validations": rules, "properties": {
        "color": { "type": "string" }, "replicas": { "type": "integer" }, "n": { "type": "integer", "default": 0 }, "list": { "type": "array", "maxItems": 9, "items": { "type": "string", "maxLength": 9 } },
    } });
    let server = with_things(spec).await;
    let large = server.post(THINGS, &thing("a", json!({ "n": 100 }))).await;
    assert_eq!(large.message(), "Thing.example.com \"a\" is invalid: spec: Invalid value: starts small");
    server.post(THINGS, &thing("a", json!({ "n": 5 }))).await.expect(201);
    let path = format!("{THINGS}/a");
    let less = server.merge(&path, &json!({ "spec": { "n": 4 } })).await;
    assert_eq!(less.message(), "Thing.example.com \"a\" is invalid: spec.n: Invalid value: n only grows");
    let odd = server.merge(&path, &json!({ "spec": { "list": ["ab", "b"] } })).await;
    assert_eq!(odd.message(), "Thing.example.com \"a\" is invalid: spec: Forbidden: every one starts with a");
    server.merge(&path, &json!({ "spec": { "n": 200, "list": ["ab"] } })).await.expect(200);
}

#[tokio::test]
async fn a_rule_that_does_not_compile_is_refused() {
    let server = TestServer::start().await;
    let spec = json!({ "type": "object", "x-kubernetes-validations": [{ "rule": "self.nope" }], "properties": { "color": { "type": "string" }, "replicas": { "type": "integer" } } });
    let refused = server.post(DEFINITIONS, &things(spec)).await;
    assert_eq!(refused.code, 422);
    let expected = "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule: Invalid value: {\"Rule\":\"self.nope\",\"Message\":\"\",\"MessageExpression\":\"\",\"Reason\":null,\"FieldPath\":\"\",\"OptionalOldSelf\":null}: compilation failed: ERROR: <input>:1:5: undefined field 'nope'";
    assert!(refused.message().contains(expected), "{}", refused.message());
}

#[tokio::test]
async fn watches_see_a_kind_come_and_go() {
    let server = with_things(spec()).await;
    let mut watch = server.watch(&format!("{THINGS}?watch=1")).await;
    server.post(THINGS, &thing("a", json!({}))).await.expect(201);
    assert_eq!(watch.brief().await, "ADDED a");
    // A changed definition is another kind to those who watch: they start over.
    server
        .merge(
            &format!("{DEFINITIONS}/things.example.com"),
            &json!({ "spec": { "names": { "categories": ["some"] } } }),
        )
        .await
        .expect(200);
    assert!(watch.next().await.is_none());
    assert_eq!(server.get("/apis/example.com/v1").await.expect(200)["resources"][0]["categories"], json!(["some"]));

    let mut watch = server.watch(&format!("{THINGS}?watch=1")).await;
    assert_eq!(watch.brief().await, "ADDED a");
    server.delete(&format!("{DEFINITIONS}/things.example.com")).await.expect(200);
    server
        .in_time(async {
            while server.get(&format!("{DEFINITIONS}/things.example.com")).await.code != 404 {
                yield_now().await
            }
        })
        .await;
    server.get(&format!("{THINGS}/a")).await.expect(404);
    server.get("/apis/example.com/v1").await.expect(404);
    // It comes back empty.
    server.post(DEFINITIONS, &things(spec())).await.expect(201);
    assert_eq!(server.get(THINGS).await.expect(200)["items"], json!([]));
}

#[tokio::test]
async fn a_definition_waits_for_its_objects() {
    let server = with_things(spec()).await;
    let mut held = thing("held", json!({}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    server.post(THINGS, &held).await.expect(201);
    server.post(THINGS, &thing("free", json!({}))).await.expect(201);
    let mut watch = server.watch(&format!("{THINGS}?watch=1")).await;
    assert_eq!([watch.brief().await, watch.brief().await], ["ADDED free", "ADDED held"]);
    let path = format!("{DEFINITIONS}/things.example.com");
    server.delete(&path).await.expect(200);
    let in_progress = async || {
        let definition = server.get(&path).await.expect(200);
        definition["status"]["conditions"][2]["reason"] == "InstanceDeletionInProgress"
    };
    server
        .in_time(async {
            while !in_progress().await {
                yield_now().await
            }
        })
        .await;
    let refused = server.post(THINGS, &thing("new", json!({}))).await;
    assert_eq!(
        (refused.code, refused.message()),
        (
            403,
            "things.example.com \"new\" is forbidden: create not allowed while custom resource definition is terminating"
                .to_owned()
        )
    );
    server.merge(&format!("{THINGS}/held"), &json!({ "metadata": { "finalizers": null } })).await.expect(200);
    server
        .in_time(async {
            while server.get(&path).await.code != 404 {
                yield_now().await
            }
        })
        .await;
    // Who watched was told of each object before the watch ended.
    let mut told = Vec::new();
    while let Some(event) = watch.next().await {
        told.push(format!(
            "{} {}",
            event["type"].as_str().unwrap(),
            event["object"]["metadata"]["name"].as_str().unwrap()
        ));
    }
    assert_eq!(
        told.iter().filter(|told| told.starts_with("DELETED")).collect::<Vec<_>>(),
        ["DELETED free", "DELETED held"]
    );
}

#[tokio::test]
async fn an_object_says_what_it_is_and_numbers_are_written_as_go_writes_them() {
    let free = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    let server =
        with_things(json!({ "type": "object", "properties": { "free": free, "color": { "type": "string" } } })).await;
    let nameless = json!({ "kind": "Thing", "metadata": { "name": "a" } });
    let refused = server.post(THINGS, &nameless).await;
    let words = "the API version in the data () does not match the expected API version (example.com/v1)";
    assert_eq!((refused.code, refused.message().as_str()), (400, words));
    let kindless = json!({ "apiVersion": "example.com/v1", "metadata": { "name": "a" } });
    let refused = server.post(THINGS, &kindless).await;
    assert!(refused.message().contains("Object 'Kind' is missing in '{"), "{}", refused.message());
    let body = r#"{"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a"},
        "status": {}, "spec": {"free": {"a": 1.0, "b": 1e3, "c": -0.0, "d": 1.5, "e": 9223372036854775807, "f": 1e19}}}"#;
    let created = server.request("POST", THINGS, &[("content-type", "application/json")], body).await.expect(201);
    let expected = r#"{"a":1,"b":1000,"c":0,"d":1.5,"e":9223372036854775807,"f":10000000000000000000}"#;
    assert_eq!(created["spec"]["free"].to_string(), expected);
}

#[tokio::test]
async fn definitions_outlive_the_server() {
    let server = with_things(spec()).await;
    server.post(THINGS, &thing("a", json!({}))).await.expect(201);
    let again = server.restarted().await;
    assert_eq!(again.get(&format!("{THINGS}/a")).await.expect(200)["spec"]["color"], "red");
}

#[tokio::test]
async fn versions_share_their_objects() {
    let server = TestServer::start().await;
    let mut definition = things(spec());
    let mut second = definition["spec"]["versions"][0].clone();
    second["name"] = json!("v2");
    second["storage"] = json!(false);
    second["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["size"] =
        json!({ "type": "integer", "default": 7 });
    definition["spec"]["versions"].as_array_mut().expect("versions").push(second);
    server.post(DEFINITIONS, &definition).await.expect(201);
    server.post(THINGS, &thing("a", json!({}))).await.expect(201);
    let newer = server.get("/apis/example.com/v2/namespaces/default/things/a").await.expect(200);
    // Defaults are those of the version that was written.
    assert_eq!((&newer["apiVersion"], &newer["spec"]["size"]), (&json!("example.com/v2"), &Value::Null));
    assert_eq!(server.get("/apis/example.com").await.expect(200)["preferredVersion"]["version"], "v2");
    // Another version becomes the stored one.
    let patch = json!([
        { "op": "replace", "path": "/spec/versions/0/storage", "value": false },
        { "op": "replace", "path": "/spec/versions/1/storage", "value": true },
    ]);
    let path = format!("{DEFINITIONS}/things.example.com");
    let patched = server
        .request("PATCH", &path, &[("content-type", "application/json-patch+json")], patch.to_string())
        .await
        .expect(200);
    assert_eq!(patched["status"]["storedVersions"], json!(["v1", "v2"]));
    let older = server.get(&format!("{THINGS}/a")).await.expect(200);
    assert_eq!((&older["apiVersion"], older["spec"].get("size")), (&json!("example.com/v1"), None));
}
