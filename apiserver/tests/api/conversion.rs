//! Custom resources in versions that a webhook converts.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};

use crate::remote::{Asked, Loopback, Remote, json_answer, text_answer};
use crate::server::TestServer;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const DEFINITION: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.example.com";
const V1: &str = "/apis/example.com/v1/namespaces/default/things";
const V2: &str = "/apis/example.com/v2/namespaces/default/things";

/// Things of which version 1 says `color` and version 2 `colour`; version 1 is stored.
fn definition(client: Value) -> Value {
    let version = |name: &str, field: &str, storage: bool| {
        let spec = json!({ "type": "object", "properties": {
            field: { "type": "string" }, "replicas": { "type": "integer" }, "size": { "type": "integer", "default": 7 },
        } });
        json!({
            "name": name, "served": true, "storage": storage,
            "schema": { "openAPIV3Schema": { "type": "object", "properties": { "spec": spec } } },
            "selectableFields": [{ "jsonPath": format!(".spec.{field}") }],
            "subresources": { "scale": { "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas" } },
            "additionalPrinterColumns": [{ "name": "Shade", "type": "string", "jsonPath": format!(".spec.{field}") }],
        })
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "things.example.com" },
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": { "plural": "things", "kind": "Thing" },
            "versions": [version("v1", "color", true), version("v2", "colour", false)],
            "conversion": { "strategy": "Webhook", "webhook": { "clientConfig": client, "conversionReviewVersions": ["v1"] } },
        },
    })
}

fn thing(version: &str, name: &str, spec: Value) -> Value {
    json!({ "apiVersion": format!("example.com/{version}"), "kind": "Thing", "metadata": { "name": name }, "spec": spec })
}

/// Renames the field; `spoil` has the last word about each object.
fn convert(asked: &Asked, spoil: impl Fn(&mut Value)) -> Response<Full<Bytes>> {
    let review = asked.json();
    let request = &review["request"];
    let objects = request["objects"].as_array().expect("objects").iter().map(|object| {
        let mut object = object.clone();
        let (from, to) = match request["desiredAPIVersion"].as_str() {
            Some("example.com/v2") => ("color", "colour"),
            _ => ("colour", "color"),
        };
        if let Some(value) = object["spec"].as_object_mut().and_then(|spec| spec.remove(from)) {
            object["spec"][to] = value;
        }
        object["apiVersion"] = request["desiredAPIVersion"].clone();
        spoil(&mut object);
        object
    });
    json_answer(&json!({
        "kind": "ConversionReview", "apiVersion": review["apiVersion"],
        "response": { "uid": request["uid"], "result": { "status": "Success" }, "convertedObjects": objects.collect::<Vec<_>>() },
    }))
}

/// A server with the definition, and the webhook behind the Service `hook`.
async fn with_things(answer: impl Fn(&Asked) -> Response<Full<Bytes>> + Send + Sync + 'static) -> (TestServer, Remote) {
    let server = TestServer::with_dialer(Arc::new(Loopback)).await;
    let hook = Remote::start("hook.default.svc", None, answer).await;
    hook.service(&server, "hook").await;
    let service = json!({ "namespace": "default", "name": "hook", "path": "/convert" });
    let client = json!({ "service": service, "caBundle": hook.ca });
    server.post(DEFINITIONS, &definition(client)).await.expect(201);
    (server, hook)
}

#[tokio::test]
async fn objects_are_written_and_read_in_every_version() {
    let (server, hook) = with_things(|asked| convert(asked, |_| {})).await;
    let created = server.post(V2, &thing("v2", "a", json!({ "colour": "red", "unknown": 1 }))).await.expect(201);
    assert_eq!(created["spec"], json!({ "colour": "red", "size": 7 }));
    let asked = hook.asked();
    assert_eq!((asked[0].method.as_str(), asked[0].path.as_str()), ("POST", "/convert?timeout=30s"));
    assert_eq!(asked[0].json()["request"]["desiredAPIVersion"], "example.com/v1");
    assert_eq!(asked[0].json()["request"]["objects"][0]["metadata"]["name"], "a");

    let before = hook.asked().len();
    let stored = server.get(&format!("{V1}/a")).await.expect(200);
    assert_eq!((&stored["spec"]["color"], hook.asked().len()), (&json!("red"), before), "as it is stored");
    let read = server.get(&format!("{V2}/a")).await.expect(200);
    assert_eq!((&read["apiVersion"], &read["spec"]["colour"]), (&json!("example.com/v2"), &json!("red")));
    assert_eq!(read["metadata"]["uid"], stored["metadata"]["uid"]);

    let patched = server.merge(&format!("{V2}/a"), &json!({ "spec": { "colour": "blue" } })).await.expect(200);
    assert_eq!((&patched["spec"]["colour"], &patched["metadata"]["generation"]), (&json!("blue"), &json!(2)));
    let mut replaced = server.get(&format!("{V2}/a")).await.expect(200);
    replaced["spec"]["colour"] = json!("green");
    server.put(&format!("{V2}/a"), &replaced).await.expect(200);
    assert_eq!(server.get(&format!("{V1}/a")).await.expect(200)["spec"]["color"], "green");
    // What changes nothing writes nothing.
    let same = server.merge(&format!("{V2}/a"), &json!({ "spec": { "colour": "green" } })).await.expect(200);
    assert_eq!(
        same["metadata"]["resourceVersion"],
        server.get(&format!("{V1}/a")).await.json()["metadata"]["resourceVersion"]
    );

    server.merge(&format!("{V2}/a/scale"), &json!({ "spec": { "replicas": 3 } })).await.expect(200);
    assert_eq!(server.get(&format!("{V2}/a/scale")).await.expect(200)["spec"]["replicas"], 3);
    assert_eq!(server.delete(&format!("{V2}/a")).await.expect(200)["status"], "Success");
    server.get(&format!("{V1}/a")).await.expect(404);
}

#[tokio::test]
async fn a_list_is_one_question_and_a_watch_converts() {
    let (server, hook) = with_things(|asked| convert(asked, |_| {})).await;
    for name in ["a", "b", "c"] {
        server.post(V1, &thing("v1", name, json!({ "color": name }))).await.expect(201);
    }
    let before = hook.asked().len();
    let list = server.get(V2).await.expect(200);
    let shades: Vec<&Value> =
        list["items"].as_array().expect("items").iter().map(|item| &item["spec"]["colour"]).collect();
    assert_eq!((shades == ["a", "b", "c"], &list["apiVersion"]), (true, &json!("example.com/v2")));
    let asked = hook.asked();
    assert_eq!(
        (asked.len() - before, asked[before].json()["request"]["objects"].as_array().map(Vec::len)),
        (1, Some(3))
    );
    let table =
        server.request("GET", V2, &[("accept", "application/json;as=Table;g=meta.k8s.io;v=v1")], "").await.expect(200);
    assert_eq!(table["rows"][1]["cells"], json!(["b", "b"]));

    let mut watch = server
        .watch(&format!(
            "{V2}?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
        ))
        .await;
    for name in ["a", "b", "c"] {
        let event = watch.next().await.expect("an event");
        assert_eq!((&event["type"], &event["object"]["spec"]["colour"]), (&json!("ADDED"), &json!(name)));
    }
    let mark = watch.next().await.expect("a bookmark");
    assert_eq!(mark["object"]["metadata"]["annotations"], json!({ "k8s.io/initial-events-end": "true" }));
    server.merge(&format!("{V1}/b"), &json!({ "spec": { "color": "x" } })).await.expect(200);
    let event = watch.next().await.expect("an event");
    assert_eq!((&event["type"], &event["object"]["spec"]["colour"]), (&json!("MODIFIED"), &json!("x")));
    assert_eq!(
        server.get(&format!("{V1}?fieldSelector=spec.color%3Dx")).await.expect(200)["items"][0]["metadata"]["name"],
        "b"
    );
}

#[tokio::test]
async fn objects_are_selected_by_fields_of_the_version_asked_for() {
    let (server, _hook) = with_things(|asked| convert(asked, |_| {})).await;
    for (name, color) in [("a", "red"), ("b", "blue"), ("c", "red"), ("d", "red")] {
        server.post(V1, &thing("v1", name, json!({ "color": color }))).await.expect(201);
    }
    let names = |list: &Value| -> String {
        let items = list["items"].as_array().expect("items");
        items.iter().filter_map(|item| item["metadata"]["name"].as_str()).collect()
    };
    for (path, field, expected) in [(V1, "color", "acd"), (V2, "colour", "acd")] {
        let list = server.get(&format!("{path}?fieldSelector=spec.{field}%3Dred")).await.expect(200);
        assert_eq!(names(&list), expected);
        let others = server.get(&format!("{path}?fieldSelector=spec.{field}!%3Dred")).await.expect(200);
        assert_eq!(names(&others), "b");
    }
    server.get(&format!("{V2}?fieldSelector=spec.color%3Dred")).await.expect(400);
    let chunk = server.get(&format!("{V2}?fieldSelector=spec.colour%3Dred&limit=2")).await.expect(200);
    let next = chunk["metadata"]["continue"].as_str().expect("more");
    let rest = server.get(&format!("{V2}?fieldSelector=spec.colour%3Dred&limit=2&continue={next}")).await.expect(200);
    assert_eq!((names(&chunk).as_str(), names(&rest).as_str()), ("ac", "d"));

    let mut watch = server.watch(&format!("{V2}?watch=1&fieldSelector=spec.colour%3Dblue")).await;
    assert_eq!(watch.brief().await, "ADDED b");
    for (name, color) in [("a", "blue"), ("a", "blue "), ("c", "green"), ("b", "red"), ("c", "blue")] {
        server.merge(&format!("{V1}/{name}"), &json!({ "spec": { "color": color } })).await.expect(200);
    }
    server.merge(&format!("{V2}/c"), &json!({ "metadata": { "labels": { "x": "y" } } })).await.expect(200);
    server.delete(&format!("{V1}/c")).await.expect(200);
    for expected in ["ADDED a", "DELETED a", "DELETED b", "ADDED c", "MODIFIED c", "DELETED c"] {
        assert_eq!(watch.brief().await, expected);
    }

    let deleted = server.delete(&format!("{V2}?fieldSelector=spec.colour%3Dred")).await.expect(200);
    assert_eq!(names(&deleted), "bd");
    assert_eq!(names(&server.get(V1).await.expect(200)), "a");
}

#[tokio::test]
async fn owners_of_fields_are_told_in_their_own_versions() {
    let (server, _hook) = with_things(|asked| convert(asked, |_| {})).await;
    let apply = async |path: &str, manager: &str, object: Value| {
        let path = format!("{path}/a?fieldManager={manager}");
        server.request("PATCH", &path, &[("content-type", "application/apply-patch+yaml")], object.to_string()).await
    };
    apply(V1, "one", thing("v1", "a", json!({ "color": "red" }))).await.expect(201);
    apply(V2, "two", thing("v2", "a", json!({ "replicas": 1 }))).await.expect(200);
    let conflict = apply(V2, "two", thing("v2", "a", json!({ "colour": "blue" }))).await;
    assert_eq!(conflict.message(), "Apply failed with 1 conflict: conflict with \"one\": .spec.color");
    conflict.expect(409);
    // An ordinary write in the other version takes the field from its owner.
    server.merge(&format!("{V2}/a?fieldManager=three"), &json!({ "spec": { "colour": "blue" } })).await.expect(200);
    let owners = server.get(&format!("{V1}/a")).await.expect(200)["metadata"]["managedFields"].clone();
    let managers: Vec<(&str, &str)> = owners
        .as_array()
        .expect("owners")
        .iter()
        .map(|owner| (owner["manager"].as_str().expect("a name"), owner["apiVersion"].as_str().expect("a version")))
        .collect();
    assert_eq!(managers, [("two", "example.com/v2"), ("three", "example.com/v2")]);
}

#[tokio::test]
async fn what_a_webhook_gets_wrong_is_told() {
    let answers = |name: &str, asked: &Asked| match name {
        "broken" => text_answer(500, "out of order"),
        "no" => {
            let uid = &asked.json()["request"]["uid"];
            let result = json!({ "status": "Failure", "message": "not this one" });
            json_answer(&json!({
                "kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1", "response": { "uid": uid, "result": result },
            }))
        }
        "renamed" => convert(asked, |object| object["metadata"]["name"] = json!("other")),
        "relabelled" => convert(asked, |object| object["metadata"]["labels"] = json!({ "a b": "c" })),
        _ => convert(asked, |_| {}),
    };
    let (server, _hook) = with_things(move |asked| {
        let name = asked.json()["request"]["objects"][0]["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        answers(&name, asked)
    })
    .await;
    let prefix = "conversion webhook for example.com/v1, Kind=Thing ";
    for (name, words) in [
        ("broken", "failed: an error on the server (\"out of order\") has prevented the request from succeeding"),
        ("no", "failed: not this one"),
        ("renamed", "returned invalid object: must have the same name: renamed != other"),
        (
            "relabelled",
            "returned invalid metadata: metadata.labels: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
        ),
    ] {
        server.post(V1, &thing("v1", name, json!({}))).await.expect(201);
        let refused = server.get(&format!("{V2}/{name}")).await;
        assert_eq!(refused.message(), format!("{prefix}{words}"));
        let status = refused.expect(500);
        assert_eq!((status.get("reason"), &status["status"]), (None, &json!("Failure")));
    }
    let mut watch = server.watch(&format!("{V2}?watch=1&fieldSelector=metadata.name%3Dno")).await;
    let event = watch.next().await.expect("an event");
    assert_eq!(
        (&event["type"], &event["object"]["message"]),
        (&json!("ERROR"), &json!(format!("{prefix}failed: not this one")))
    );
    assert!(watch.next().await.is_none());

    // Nobody behind the Service, and nobody of that name.
    server.delete("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/hook-1").await.expect(200);
    let url = "https://hook.default.svc:443/convert?timeout=30s";
    let refused = server.get(&format!("{V2}/no")).await;
    assert_eq!(
        refused.message(),
        format!("{prefix}failed: Post \"{url}\": no endpoints available for service \"hook\"")
    );
    server.delete("/api/v1/namespaces/default/services/hook").await.expect(200);
    let refused = server.get(&format!("{V2}/no")).await;
    assert_eq!(refused.message(), format!("{prefix}failed: Post \"{url}\": service \"hook\" not found"));
    // Whoever deletes a definition needs no webhook.
    server.delete(DEFINITION).await.expect(200);
    server.get(V1).await.expect(404);
}

#[tokio::test]
async fn an_object_stays_in_its_version_until_it_is_written() {
    let (server, hook) = with_things(|asked| convert(asked, |_| {})).await;
    server.post(V1, &thing("v1", "a", json!({ "color": "red" }))).await.expect(201);
    let patch = json!([
        { "op": "replace", "path": "/spec/versions/0/storage", "value": false },
        { "op": "replace", "path": "/spec/versions/1/storage", "value": true },
    ]);
    let json_patch = [("content-type", "application/json-patch+json")];
    server.request("PATCH", DEFINITION, &json_patch, patch.to_string()).await.expect(200);
    let before = hook.asked().len();
    assert_eq!(server.get(&format!("{V2}/a")).await.expect(200)["spec"]["colour"], "red");
    assert_eq!(server.get(V2).await.expect(200)["items"][0]["spec"]["colour"], "red");
    assert_eq!(hook.asked().len(), before + 2);
    server.merge(&format!("{V2}/a"), &json!({ "spec": { "size": 8 } })).await.expect(200);
    let before = hook.asked().len();
    assert_eq!(server.get(&format!("{V2}/a")).await.expect(200)["spec"]["colour"], "red");
    assert_eq!(hook.asked().len(), before, "it is stored so now");
    assert_eq!(server.get(&format!("{V1}/a")).await.expect(200)["spec"]["color"], "red");
}

#[tokio::test]
async fn a_webhook_is_described_in_full() {
    let server = TestServer::start().await;
    let check = async |conversion: Value, expect: &str| {
        let mut object = definition(json!({}));
        object["spec"]["conversion"] = conversion;
        let refused = server.post(DEFINITIONS, &object).await;
        let message = refused.message();
        refused.expect(422);
        assert_eq!(message.split_once("is invalid: ").map(|(_, words)| words), Some(expect));
    };
    let at = "spec.conversion.webhookClientConfig";
    let webhook = |client: Value| json!({ "strategy": "Webhook", "webhook": { "clientConfig": client, "conversionReviewVersions": ["v1"] } });
    check(webhook(json!({})), &format!("{at}: Required value: exactly one of url or service is required")).await;
    let words = format!(
        "{at}.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]"
    );
    check(webhook(json!({ "url": "http://example.com/" })), &words).await;
    let words = format!("{at}.service.path: Invalid value: \"convert\": must start with a '/'");
    check(webhook(json!({ "service": { "namespace": "a", "name": "b", "path": "convert" } })), &words).await;
    let good = json!({ "url": "https://example.com/" });
    let words =
        "spec.conversion.conversionReviewVersions: Invalid value: [\"v3\"]: must include at least one of v1, v1beta1";
    check(
        json!({ "strategy": "Webhook", "webhook": { "clientConfig": good, "conversionReviewVersions": ["v3"] } }),
        words,
    )
    .await;
    let words = "[spec.conversion.webhookClientConfig: Forbidden: should not be set when strategy is not set to Webhook, spec.conversion.conversionReviewVersions: Forbidden: should not be set when strategy is not set to Webhook]";
    check(
        json!({ "strategy": "None", "webhook": { "clientConfig": good, "conversionReviewVersions": ["v1"] } }),
        words,
    )
    .await;
}
