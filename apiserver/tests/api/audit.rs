//! The audit log: what is recorded of requests, and in which shape.

use std::path::PathBuf;

use minik8s_apiserver::audit::log::LogOptions;
use minik8s_apiserver::audit::{Options, Policy};
use minik8s_apiserver::identity::UserInfo;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::server::{TestServer, config_map};
use crate::webhooks::{Webhook, configuration};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A server with an audit log, and the log.
struct Audited {
    server: TestServer,
    path: PathBuf,
    seen: usize,
    _folder: TempDir,
}

impl Audited {
    async fn start(rules: &str) -> Audited {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.log");
        let policy = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{rules}");
        let policy = Policy::from_yaml(&policy).expect("a policy");
        let log = LogOptions { path: path.clone(), ..LogOptions::default() };
        let server = TestServer::with(|config| config.audit = Some(Options { policy, log })).await;
        Audited { server, path, seen: 0, _folder: folder }
    }

    /// The events since the last call.
    fn events(&mut self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.path).expect("the log");
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
        let new = lines[self.seen..].to_vec();
        self.seen = lines.len();
        new
    }

    /// The one event of that stage since the last call.
    fn event(&mut self, stage: &str) -> Value {
        let mut events = self.events();
        events.retain(|event| event["stage"] == stage);
        assert_eq!(events.len(), 1, "{events:#?}");
        events.remove(0)
    }
}

fn stages(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["stage"].as_str()).collect()
}

#[tokio::test]
async fn an_event_is_what_kubernetes_writes() {
    let log = Audited::start("rules: [{level: RequestResponse}]").await;
    let headers =
        [("content-type", "application/json"), ("user-agent", "kubectl/v1.37"), ("x-forwarded-for", "10.1.2.3")];
    let user = UserInfo::new("dev", ["system:masters"]);
    let answer = log
        .server
        .as_user(user, "POST", &format!("{MAPS}?fieldManager=me"), &headers, &config_map("a").to_string())
        .await;
    assert_eq!(answer.code, 201);
    let id = answer.headers["audit-id"].to_str().expect("an ID").to_owned();
    let text = std::fs::read_to_string(&log.path).expect("the log");
    let lines: Vec<&str> = text.lines().collect();
    let [received, complete] = lines[..] else { panic!("two events: {text}") };
    let head = format!(
        r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"RequestResponse","auditID":"{id}","stage":"RequestReceived","requestURI":"{MAPS}?fieldManager=me","verb":"create","user":{{"username":"dev","groups":["system:masters","system:authenticated"]}},"sourceIPs":["10.1.2.3"],"userAgent":"kubectl/v1.37","objectRef":{{"resource":"configmaps","namespace":"default","apiVersion":"v1"}},"requestReceivedTimestamp":"2026-01-02T03:04:05.000000Z","stageTimestamp":"2026-01-02T03:04:05.000000Z"}}"#
    );
    assert_eq!(received, head);
    let complete: Value = serde_json::from_str(complete).expect("an event");
    assert_eq!(complete["auditID"], id);
    assert_eq!(complete["responseStatus"], json!({ "metadata": {}, "code": 201 }));
    assert_eq!(complete["objectRef"]["name"], "a");
    assert_eq!(complete["requestObject"]["data"], json!({ "a": "1" }));
    assert_eq!(complete["requestObject"]["metadata"].get("uid"), None);
    assert_eq!(complete["responseObject"], answer.json());
    assert_eq!(complete["responseObject"]["metadata"]["managedFields"][0]["manager"], "me");
    let annotations = json!({ "authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": "" });
    assert_eq!(complete["annotations"], annotations);
}

#[tokio::test]
async fn a_request_keeps_the_name_that_its_sender_chose() {
    let mut log = Audited::start("rules: [{level: Metadata}]").await;
    let answer = log.server.request("GET", MAPS, &[("audit-id", "chosen")], "").await;
    assert_eq!(answer.headers["audit-id"], "chosen");
    let events = log.events();
    assert_eq!(stages(&events), ["RequestReceived", "ResponseComplete"]);
    assert_eq!(events[1]["auditID"], "chosen");
    assert!(events[1].get("responseObject").is_none() && events[1].get("requestObject").is_none());
    let plain = TestServer::start().await.get("/version").await;
    assert_eq!(plain.headers["audit-id"].len(), 36, "every answer has one, recorded or not");
}

#[tokio::test]
async fn levels_decide_how_much_is_recorded() {
    let rules = "omitStages: [RequestReceived]\nomitManagedFields: true\nrules:\n\
                 - {level: None, nonResourceURLs: ['/*']}\n\
                 - {level: Request, verbs: [patch, delete]}\n\
                 - {level: RequestResponse, verbs: [get, list, update]}\n\
                 - {level: Metadata, verbs: [create]}\n";
    let mut log = Audited::start(rules).await;
    let object = log.server.post(MAPS, &config_map("a")).await.expect(201);
    let created = log.event("ResponseComplete");
    assert_eq!((&created["objectRef"]["name"], created.get("requestObject")), (&json!("a"), None));
    let path = format!("{MAPS}/a");

    log.server.merge(&path, &json!({ "data": { "b": "2" } })).await.expect(200);
    let patched = log.event("ResponseComplete");
    assert_eq!(patched["requestObject"], json!({ "data": { "b": "2" } }));
    assert!(patched.get("responseObject").is_none());

    log.server.put(&path, &object).await.expect(409);
    let conflict = log.event("ResponseComplete");
    assert_eq!(conflict["responseStatus"]["reason"], "Conflict");
    assert_eq!(conflict["responseStatus"]["status"], "Failure");
    assert_eq!(conflict["responseStatus"]["code"], 409);
    assert_eq!(conflict["responseObject"]["kind"], "Status");
    assert_eq!(conflict["requestObject"]["metadata"].get("managedFields"), None);
    assert_eq!(conflict["objectRef"]["resourceVersion"], object["metadata"]["resourceVersion"]);
    assert_eq!(conflict["objectRef"]["uid"], object["metadata"]["uid"]);

    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    for accept in ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf", table] {
        log.server.request("GET", &path, &[("accept", accept)], "").await;
        let read = log.event("ResponseComplete");
        let kind = if accept == table { "Table" } else { "ConfigMap" };
        assert_eq!(read["responseObject"]["kind"], kind, "{accept}");
        assert!(!read.to_string().contains("managedFields"), "{accept}");
    }
    log.server.get(MAPS).await.expect(200);
    assert_eq!(log.event("ResponseComplete")["responseObject"]["items"][0]["data"]["b"], "2");
    log.server.delete(&path).await.expect(200);
    assert!(log.event("ResponseComplete").get("requestObject").is_none(), "no options were sent");
    log.server.get("/version").await.expect(200);
    assert!(log.events().is_empty());
}

#[tokio::test]
async fn who_asked_is_recorded_even_if_he_may_not() {
    let mut log = Audited::start("rules: [{level: Metadata, omitStages: [RequestReceived]}]").await;
    let dev = UserInfo::new("dev", ["devs"]);
    log.server.as_user(dev.clone(), "GET", MAPS, &[], "").await.expect(403);
    let refused = log.event("ResponseComplete");
    assert_eq!(refused["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(refused["responseStatus"]["code"], 403);

    let acting = [("impersonate-user", "other")];
    log.server.request("GET", MAPS, &acting, "").await.expect(403);
    let impersonated = log.event("ResponseComplete");
    assert_eq!(impersonated["user"]["username"], "admin");
    assert_eq!(impersonated["impersonatedUser"], json!({ "username": "other", "groups": ["system:authenticated"] }));

    log.server.anonymous("GET", MAPS, &[("authorization", "Bearer nonsense")], "").await.expect(401);
    let events = log.events();
    assert_eq!(stages(&events), ["ResponseStarted"]);
    assert_eq!(events[0]["user"], json!({}));
    let status = json!({ "metadata": {}, "message": "Authentication failed, attempted: bearer", "code": 401 });
    assert_eq!(events[0]["responseStatus"], status);

    let rbac = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": "devs" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "devs" }] });
    log.server.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &rbac).await.expect(201);
    log.events();
    log.server.as_user(dev, "GET", "/apis/rbac.authorization.k8s.io/v1/roles", &[], "").await.expect(403);
    log.events();
    // The role "view" gathers its rules by a controller, which is not here; discovery is granted to all.
    log.server.as_user(UserInfo::new("dev", ["devs"]), "GET", "/api", &[], "").await.expect(200);
    assert_eq!(
        log.event("ResponseComplete")["annotations"]["authorization.k8s.io/reason"],
        "RBAC: allowed by ClusterRoleBinding \"system:discovery\" of ClusterRole \"system:discovery\" to Group \"system:authenticated\""
    );
}

#[tokio::test]
async fn an_answer_that_takes_long_has_a_beginning_and_an_end() {
    let mut log = Audited::start("rules: [{level: RequestResponse}]").await;
    let mut watch = log.server.watch(&format!("{MAPS}?watch=true")).await;
    assert_eq!(stages(&log.events()), ["RequestReceived", "ResponseStarted"]);
    log.server.post(MAPS, &config_map("a")).await.expect(201);
    log.events();
    assert_eq!(watch.brief().await, "ADDED a");
    assert!(log.events().is_empty());
    drop(watch);
    let complete = log.event("ResponseComplete");
    assert_eq!((&complete["verb"], &complete["responseStatus"]["code"]), (&json!("watch"), &json!(200)));
    assert!(complete.get("responseObject").is_none());
}

#[tokio::test]
async fn a_panic_is_recorded() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.log");
    let policy = Policy::from_yaml("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]");
    let log = LogOptions { path: path.clone(), ..LogOptions::default() };
    let server = TestServer::with(|config| {
        config.audit = Some(Options { policy: policy.expect("a policy"), log });
        async fn fail() -> &'static str {
            panic!("it broke")
        }
        config.extra_routes = axum::Router::new().route("/fail", axum::routing::get(fail));
    })
    .await;
    server.get("/fail").await.expect(500);
    let text = std::fs::read_to_string(&path).expect("the log");
    let last: Value = serde_json::from_str(text.lines().last().expect("a line")).expect("an event");
    assert_eq!(last["stage"], "Panic");
    assert_eq!(last["responseStatus"]["message"], "APIServer panic'd: it broke");
    assert_eq!(last["responseStatus"]["code"], 500);
    assert_eq!(text.lines().count(), 2);
}

#[tokio::test]
async fn admission_says_what_it_did() {
    let mut log = Audited::start("rules: [{level: Request, omitStages: [RequestReceived]}]").await;
    let server = &log.server;
    let levels =
        json!({ "pod-security.kubernetes.io/audit": "restricted", "pod-security.kubernetes.io/enforce": "baseline" });
    server.namespace("ns").await;
    server.merge("/api/v1/namespaces/ns", &json!({ "metadata": { "labels": levels } })).await.expect(200);
    log.events();
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" }, "spec": { "containers": [{ "name": "c", "image": "nginx" }] } });
    log.server.post("/api/v1/namespaces/ns/pods", &pod).await.expect(201);
    let annotations = log.event("ResponseComplete")["annotations"].clone();
    assert_eq!(annotations["pod-security.kubernetes.io/enforce-policy"], "baseline:latest");
    let violations = annotations["pod-security.kubernetes.io/audit-violations"].as_str().unwrap_or_default();
    assert!(
        violations.starts_with("would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false"),
        "{violations}"
    );
    let token = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {} });
    log.server.post("/api/v1/namespaces/ns/serviceaccounts/default/token", &token).await.expect(201);
    let issued =
        log.event("ResponseComplete")["annotations"]["authentication.kubernetes.io/issued-credential-id"].clone();
    assert!(issued.as_str().is_some_and(|issued| issued.starts_with("JTI=")), "{issued}");
}

#[tokio::test]
async fn policies_say_what_they_would_have_refused() {
    const API: &str = "/apis/admissionregistration.k8s.io/v1";
    let mut log = Audited::start("rules: [{level: Metadata, omitStages: [RequestReceived]}]").await;
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": { "name": "few" },
        "spec": {
            "matchConstraints": { "resourceRules": [{ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"] }] },
            "validations": [{ "expression": "true" }, { "expression": "!has(object.data)", "message": "no data" }],
            "auditAnnotations": [
                { "key": "name", "valueExpression": "'it is ' + object.metadata.name" },
                { "key": "nothing", "valueExpression": "null" },
            ],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": { "name": "bound" },
        "spec": { "policyName": "few", "validationActions": ["Audit", "Warn"] },
    });
    log.server.post(&format!("{API}/validatingadmissionpolicies"), &policy).await.expect(201);
    log.server.post(&format!("{API}/validatingadmissionpolicybindings"), &binding).await.expect(201);
    log.events();
    log.server.post(MAPS, &config_map("a")).await.expect(201);
    let annotations = log.event("ResponseComplete")["annotations"].clone();
    assert_eq!(annotations["few/name"], "it is a");
    assert_eq!(annotations.get("few/nothing"), None);
    assert_eq!(
        annotations["validation.policy.admission.k8s.io/validation_failure"],
        r#"[{"message":"no data","policy":"few","binding":"bound","expressionIndex":1,"validationActions":["Audit","Warn"]}]"#
    );
}

#[tokio::test]
async fn webhooks_say_what_they_changed() {
    let mut log = Audited::start("rules: [{level: Request, omitStages: [RequestReceived]}]").await;
    let hook = Webhook::start(|_| {
        use base64::Engine;
        let patch = r#"[{"op":"add","path":"/data/b","value":"2"}]"#;
        let patch = base64::engine::general_purpose::STANDARD.encode(patch);
        json!({ "allowed": true, "patchType": "JSONPatch", "patch": patch, "auditAnnotations": { "why": "it was asked" } })
    })
    .await;
    let mut mutating = configuration("Mutating", "m", hook.url(), json!({}));
    mutating["webhooks"][0]["name"] = json!("add.example.com");
    log.server.post("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations", &mutating).await.expect(201);
    // Nobody listens there, which does not matter.
    let nowhere = json!({ "url": "https://127.0.0.1:1/" });
    let mut open = configuration("Validating", "v", nowhere, json!({ "failurePolicy": "Ignore" }));
    open["webhooks"][0]["name"] = json!("check.example.com");
    log.server.post("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", &open).await.expect(201);
    log.events();
    log.server.post(MAPS, &config_map("a")).await.expect(201);
    let annotations = log.event("ResponseComplete")["annotations"].clone();
    assert_eq!(
        annotations["mutation.webhook.admission.k8s.io/round_0_index_0"],
        r#"{"configuration":"m","webhook":"add.example.com","mutated":true}"#
    );
    assert_eq!(
        annotations["patch.webhook.admission.k8s.io/round_0_index_0"],
        r#"{"configuration":"m","webhook":"add.example.com","patch":[{"op":"add","path":"/data/b","value":"2"}],"patchType":"JSONPatch"}"#
    );
    assert_eq!(annotations["add.example.com/why"], "it was asked");
    assert_eq!(annotations["failed-open.validating.webhook.admission.k8s.io/round_0_index_0"], "check.example.com");
}

#[tokio::test]
async fn a_user_agent_is_recorded_to_a_length() {
    let mut log = Audited::start("omitStages: [RequestReceived]\nrules: [{level: Metadata}]").await;
    let long = "a".repeat(2000);
    log.server.request("GET", MAPS, &[("user-agent", &long)], "").await.expect(200);
    assert_eq!(log.event("ResponseComplete")["userAgent"], format!("{}...TRUNCATED", &long[..1024]));
}
