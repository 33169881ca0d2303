//! Priority and fairness, as clients see it.

use std::sync::Arc;
use std::time::Duration;

use minik8s_apiserver::identity::UserInfo;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::server::{Answer, TestServer};

const API: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";

fn schema(name: &str, level: &str, user: &str) -> Value {
    json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": { "name": name },
        "spec": {
            "matchingPrecedence": 100, "priorityLevelConfiguration": { "name": level },
            "distinguisherMethod": { "type": "ByUser" },
            "rules": [{
                "subjects": [{ "kind": "User", "user": { "name": user } }],
                "nonResourceRules": [{ "verbs": ["*"], "nonResourceURLs": ["*"] }],
                "resourceRules": [{ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"] }],
            }],
        },
    })
}

fn level(name: &str, shares: u64, response: Value) -> Value {
    let limited = json!({ "nominalConcurrencyShares": shares, "borrowingLimitPercent": 0, "limitResponse": response });
    json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration",
        "metadata": { "name": name }, "spec": { "type": "Limited", "limited": limited },
    })
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers.get(name).map(|value| value.to_str().expect("text")).unwrap_or_default()
}

#[tokio::test]
async fn answers_tell_which_schema_and_level_they_went_by() {
    let server = TestServer::start().await;
    let uid = async |path: &str| {
        let object = server.get(&format!("{API}/{path}")).await.expect(200);
        object["metadata"]["uid"].as_str().expect("a UID").to_owned()
    };
    let (schema, level) =
        (uid("flowschemas/global-default").await, uid("prioritylevelconfigurations/global-default").await);
    let refused = server.as_user(UserInfo::new("dev", ["devs"]), "GET", "/api/v1/pods", &[], "").await;
    assert_eq!(refused.code, 403);
    assert_eq!(header(&refused, "x-kubernetes-pf-flowschema-uid"), schema);
    assert_eq!(header(&refused, "x-kubernetes-pf-prioritylevel-uid"), level);
    let exempt = server.get("/version").await;
    assert_eq!(header(&exempt, "x-kubernetes-pf-flowschema-uid"), uid("flowschemas/exempt").await);
    let logs = server.get("/api/v1/namespaces/default/pods/p/log").await;
    assert_eq!(header(&logs, "x-kubernetes-pf-flowschema-uid"), "", "what stays open is not steered");
    let unknown = server.anonymous("GET", "/version", &[("authorization", "Bearer x")], "").await;
    assert_eq!(header(&unknown, "x-kubernetes-pf-flowschema-uid"), "", "who is nobody gets no further");
}

#[tokio::test]
async fn a_full_level_answers_429() {
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let server = TestServer::with(|config| {
        let slow = move || {
            let gate = Arc::clone(&gate);
            async move {
                drop(gate.acquire().await);
                "done"
            }
        };
        config.extra_routes = axum::Router::new().route("/slow", axum::routing::get(slow));
    })
    .await;
    let rbac = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": "dev" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "dev" }] });
    server.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &rbac).await.expect(201);
    // 600 seats, of which a share of 1 in 246 makes three.
    server
        .post(&format!("{API}/prioritylevelconfigurations"), &level("few", 1, json!({ "type": "Reject" })))
        .await
        .expect(201);
    server.post(&format!("{API}/flowschemas"), &schema("dev", "few", "dev")).await.expect(201);
    let ask = || server.as_user(UserInfo::new("dev", ["devs"]), "GET", "/slow", &[], "");
    let (first, second, third) = (ask(), ask(), ask());
    let flood = async {
        tokio::task::yield_now().await;
        let full = ask().await;
        assert_eq!((full.code, header(&full, "retry-after")), (429, "1"));
        assert_eq!(full.bytes, "Too many requests, please try again later.\n");
        // Others are not concerned.
        server.get("/version").await.expect(200);
        // Somebody helps, at once.
        let queue = json!({ "type": "Queue", "queuing": { "queues": 1, "handSize": 1, "queueLengthLimit": 1 } });
        let queuing = json!({ "spec": { "limited": { "limitResponse": queue } } });
        server.merge(&format!("{API}/prioritylevelconfigurations/few"), &queuing).await.expect(200);
        let waits = ask();
        let more = async {
            tokio::task::yield_now().await;
            assert_eq!(ask().await.code, 429, "the queue is full");
            opened.add_permits(10);
        };
        let (waited, ()) = futures::join!(waits, more);
        waited.expect(200);
    };
    let (first, second, third, ()) = futures::join!(first, second, third, flood);
    for answer in [first, second, third] {
        answer.expect(200);
    }
}

async fn dangling(server: &TestServer, name: &str) -> Value {
    let object = server.get(&format!("{API}/flowschemas/{name}")).await.expect(200);
    object["status"]["conditions"][0].clone()
}

#[tokio::test]
async fn a_schema_says_whether_its_level_exists() {
    let server = TestServer::start().await;
    let found = dangling(&server, "exempt").await;
    assert_eq!(
        found,
        json!({
            "type": "Dangling", "status": "False", "lastTransitionTime": "2026-01-02T03:04:05Z", "reason": "Found",
            "message": "This FlowSchema references the PriorityLevelConfiguration object named \"exempt\" and it exists",
        })
    );
    server.post(&format!("{API}/flowschemas"), &schema("mine", "later", "dev")).await.expect(201);
    let until = async |status: &str| {
        let changed = async {
            loop {
                let condition = dangling(&server, "mine").await;
                if condition["status"] == status {
                    return condition;
                }
                tokio::task::yield_now().await;
            }
        };
        changed.await
    };
    let missing = until("True").await;
    assert_eq!(missing["reason"], "NotFound");
    let words =
        "This FlowSchema references the PriorityLevelConfiguration object named \"later\" but there is no such object";
    assert_eq!(missing["message"], words);
    server
        .post(&format!("{API}/prioritylevelconfigurations"), &level("later", 1, json!({ "type": "Reject" })))
        .await
        .expect(201);
    until("False").await;
    let object = server.get(&format!("{API}/flowschemas/mine")).await.expect(200);
    let managers = object["metadata"]["managedFields"].as_array().expect("managers");
    let ours = managers.iter().find(|entry| entry["subresource"] == "status").expect("the status has a manager");
    assert_eq!(
        (&ours["manager"], &ours["operation"]),
        (&json!("api-priority-and-fairness-config-consumer-v1"), &json!("Apply"))
    );
}

#[tokio::test]
async fn what_must_be_there_comes_back() {
    let server = TestServer::start().await;
    let (schemas, levels) = (format!("{API}/flowschemas"), format!("{API}/prioritylevelconfigurations"));
    server.delete(&format!("{schemas}/catch-all")).await.expect(200);
    server.delete(&format!("{levels}/workload-low")).await.expect(200);
    // The mandatory ones count while they are away.
    server
        .as_user(UserInfo { name: "nobody".to_owned(), ..UserInfo::default() }, "GET", "/version", &[], "")
        .await
        .expect(403);
    let precedence = json!({ "spec": { "matchingPrecedence": 42 } });
    server.merge(&format!("{schemas}/service-accounts"), &precedence).await.expect(200);
    let own = json!({ "metadata": { "annotations": { "apf.kubernetes.io/autoupdate-spec": "false" } }, "spec": { "matchingPrecedence": 43 } });
    server.merge(&format!("{schemas}/global-default"), &own).await.expect(200);
    server.in_time(server.server.clock().sleep(Duration::from_secs(61))).await;
    let settled = async {
        while server.get(&format!("{schemas}/service-accounts")).await.expect(200)["spec"]["matchingPrecedence"] != 9000
        {
            tokio::task::yield_now().await;
        }
    };
    settled.await;
    server.get(&format!("{schemas}/catch-all")).await.expect(200);
    server.get(&format!("{levels}/workload-low")).await.expect(200);
    let kept = server.get(&format!("{schemas}/global-default")).await.expect(200);
    assert_eq!(kept["spec"]["matchingPrecedence"], 43, "who says so keeps his own");
}
