//! Nobody gets in: bad credentials at every door, good ones at doors that are not theirs. All over the TLS listener, as
//! an attacker would come. Each table is checked against the administrator, for whom the same doors open: a row that
//! fails for another reason proves nothing.

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};

use crate::connections::{Authority, Identity, Listening};

/// Method, path, body.
type Door = (&'static str, &'static str, Value);

/// What somebody shows.
#[derive(Default)]
struct Credential {
    certificate: Option<Identity>,
    headers: Vec<(&'static str, String)>,
}

impl Credential {
    fn certificate(identity: Identity) -> Credential {
        Credential { certificate: Some(identity), headers: Vec::new() }
    }

    fn token(token: &str) -> Credential {
        Credential { certificate: None, headers: vec![("authorization", format!("Bearer {token}"))] }
    }

    /// The same, acting as somebody else.
    fn acting(&self, headers: &[(&'static str, &str)]) -> Credential {
        let mut acting = self.clone();
        acting.headers.extend(headers.iter().map(|(name, value)| (*name, (*value).to_owned())));
        acting
    }
}

impl Clone for Credential {
    fn clone(&self) -> Credential {
        let certificate = self.certificate.as_ref().map(|(chain, key)| (chain.clone(), key.clone_key()));
        Credential { certificate, headers: self.headers.clone() }
    }
}

/// A server that listens, with a namespace `ns` that holds one of each thing, and `other`.
struct Fortress(Listening);

impl Fortress {
    async fn build() -> Fortress {
        let fortress = Fortress(Listening::start().await);
        let server = &fortress.0.server;
        for namespace in ["ns", "other"] {
            server.namespace(namespace).await;
        }
        for node in ["n1", "n2"] {
            fortress.put("/api/v1/nodes", &json!({ "kind": "Node", "apiVersion": "v1", "metadata": { "name": node } })).await;
            let lease = json!({ "kind": "Lease", "apiVersion": "coordination.k8s.io/v1", "metadata": { "name": node }, "spec": {} });
            fortress.put("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", &lease).await;
            for kind in ["Secret", "ConfigMap"] {
                let object = json!({ "kind": kind, "apiVersion": "v1", "metadata": { "name": format!("of-{node}") } });
                fortress.put(&format!("/api/v1/namespaces/ns/{}s", kind.to_lowercase()), &object).await;
            }
            fortress.put("/api/v1/namespaces/ns/serviceaccounts", &account(&format!("of-{node}"))).await;
            fortress.put("/api/v1/namespaces/ns/pods", &pod(&format!("on-{node}"), node)).await;
        }
        fortress
    }

    /// Creates an object, as the administrator.
    async fn put(&self, collection: &str, object: &Value) -> Value {
        self.0.server.post(collection, object).await.expect(201)
    }

    /// Creates a role and binds it; `scope` is a namespace, or empty for the whole cluster.
    async fn grant(&self, scope: &str, name: &str, rules: Value, subject: Value) {
        let (prefix, kind) = if scope.is_empty() { ("", "Cluster") } else { (scope, "") };
        let place = if prefix.is_empty() { String::new() } else { format!("namespaces/{prefix}/") };
        let base = format!("/apis/rbac.authorization.k8s.io/v1/{place}{}", kind.to_lowercase());
        let version = "rbac.authorization.k8s.io/v1";
        let role = json!({ "kind": format!("{kind}Role"), "apiVersion": version, "metadata": { "name": name }, "rules": rules });
        self.put(&format!("{base}roles"), &role).await;
        let reference = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": format!("{kind}Role"), "name": name });
        let binding = json!({ "kind": format!("{kind}RoleBinding"), "apiVersion": version, "metadata": { "name": name }, "roleRef": reference, "subjects": [subject] });
        self.put(&format!("{base}rolebindings"), &binding).await;
    }

    async fn token(&self, namespace: &str, account: &str, spec: Value) -> String {
        let request = json!({ "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": spec });
        let answer = self.put(&format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"), &request).await;
        answer["status"]["token"].as_str().expect("a token").to_owned()
    }

    async fn knock(&self, who: &Credential, (method, path, body): &Door) -> (u16, String) {
        let mut request = Request::builder().method(if *method == "WATCH" { "GET" } else { method }).uri(*path);
        request = request.header("host", "localhost");
        for (name, value) in &who.headers {
            request = request.header(*name, value);
        }
        let kind = match *method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request = request.header("content-type", kind).body(Full::new(body)).expect("a request");
        let identity = who.certificate.as_ref().map(|(chain, key)| (chain.clone(), key.clone_key()));
        let stream = TokioIo::new(self.0.connect(identity, b"http/1.1").await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.expect("HTTP");
        tokio::spawn(connection);
        let answer = sender.send_request(request).await.expect("an answer");
        let status = answer.status();
        if status.is_success() {
            // A watch has no end.
            return (status.as_u16(), String::new());
        }
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        let status_object: Value = serde_json::from_slice(&body).unwrap_or_default();
        let message = status_object["message"].as_str().map(str::to_owned);
        (status.as_u16(), message.unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned()))
    }

    fn user(&self, name: &str, group: Option<&str>) -> Credential {
        Credential::certificate(self.0.client(name, group).expect("a certificate"))
    }

    fn admin(&self) -> Credential {
        self.user("kubernetes-admin", Some("system:masters"))
    }

    /// That the door is there: the administrator gets further than authorization.
    async fn opens(&self, door: &Door) {
        let (code, message) = self.knock(&self.admin(), door).await;
        assert!(!matches!(code, 401 | 403 | 404), "{} {}: {code} {message}", door.0, door.1);
    }
}

fn account(name: &str) -> Value {
    json!({ "kind": "ServiceAccount", "apiVersion": "v1", "metadata": { "name": name } })
}

fn pod(name: &str, node: &str) -> Value {
    json!({
        "kind": "Pod", "apiVersion": "v1", "metadata": { "name": name },
        "spec": {
            "nodeName": node, "serviceAccountName": format!("of-{node}"),
            "containers": [{ "name": "c", "image": "nginx", "envFrom": [
                { "secretRef": { "name": format!("of-{node}") } }, { "configMapRef": { "name": format!("of-{node}") } },
            ] }],
        },
    })
}

fn config_map(name: &str) -> Value {
    json!({ "kind": "ConfigMap", "apiVersion": "v1", "metadata": { "name": name, "namespace": "ns" } })
}

/// One door for every verb, and the doors that are none of a resource. The last ones take something away.
fn doors() -> Vec<Door> {
    let token = json!({ "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {} });
    let review = json!({ "kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "spec": { "user": "x", "nonResourceAttributes": { "path": "/", "verb": "get" } } });
    let binding = json!({ "kind": "Binding", "apiVersion": "v1", "metadata": { "name": "on-n1" }, "target": { "kind": "Node", "name": "n1" } });
    let eviction = json!({ "kind": "Eviction", "apiVersion": "policy/v1", "metadata": { "name": "on-n1" } });
    vec![
        ("GET", "/api/v1/namespaces/ns/configmaps/of-n1", Value::Null),
        ("GET", "/api/v1/namespaces/ns/secrets/of-n1", Value::Null),
        ("GET", "/api/v1/secrets", Value::Null),
        ("WATCH", "/api/v1/namespaces/ns/secrets?watch=1", Value::Null),
        ("POST", "/api/v1/namespaces/ns/configmaps", json!({ "kind": "ConfigMap", "apiVersion": "v1", "metadata": { "generateName": "x-" } })),
        ("PUT", "/api/v1/namespaces/ns/configmaps/of-n1", config_map("of-n1")),
        ("PATCH", "/api/v1/namespaces/ns/configmaps/of-n1", json!({ "data": { "a": "b" } })),
        ("PATCH", "/api/v1/namespaces/ns/pods/on-n1/status", json!({ "status": { "message": "x" } })),
        ("GET", "/api/v1/namespaces/ns/pods/on-n1/log", Value::Null),
        ("POST", "/api/v1/namespaces/ns/serviceaccounts/default/token", token),
        ("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review),
        ("GET", "/metrics", Value::Null),
        ("GET", "/extra", Value::Null),
        ("POST", "/api/v1/namespaces/ns/pods/on-n1/binding", binding),
        ("POST", "/api/v1/namespaces/ns/pods/on-n1/eviction", eviction),
        ("DELETE", "/api/v1/namespaces/ns/configmaps/of-n1", Value::Null),
        ("DELETE", "/api/v1/namespaces/ns/secrets", Value::Null),
    ]
}

/// A certificate with a validity of its own, in years.
fn dated(authority: &Authority, from: i32, to: i32) -> Identity {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "kubernetes-admin");
    params.distinguished_name.push(DnType::OrganizationName, "system:masters");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    (params.not_before, params.not_after) = (rcgen::date_time_ymd(from, 1, 1), rcgen::date_time_ymd(to, 1, 1));
    let certificate = params.signed_by(&key, &authority.issuer).expect("a certificate").der().clone();
    (certificate, PrivateKeyDer::try_from(key.serialize_der()).expect("a key"))
}

/// Credentials that were good once, or never.
async fn bad_credentials(fortress: &Fortress) -> Vec<(&'static str, Credential)> {
    const MASTERS: Option<&str> = Some("system:masters");
    let authority = &fortress.0.authority;
    let stranger = Authority::new();
    let own = KeyPair::generate().expect("a key");
    let mut own_params = CertificateParams::default();
    own_params.distinguished_name.push(DnType::CommonName, "kubernetes-admin");
    let self_signed = own_params.self_signed(&own).expect("a certificate").der().clone();
    let self_signed = (self_signed, PrivateKeyDer::try_from(own.serialize_der()).expect("a key"));
    let mut all = vec![
        ("another CA", stranger.issue("kubernetes-admin", MASTERS, ExtendedKeyUsagePurpose::ClientAuth)),
        ("a server's certificate", authority.issue("kubernetes-admin", MASTERS, ExtendedKeyUsagePurpose::ServerAuth)),
        ("signed by itself", self_signed),
        ("expired", dated(authority, 2024, 2026)),
        ("not yet valid", dated(authority, 2027, 2028)),
    ]
    .into_iter()
    .map(|(name, identity)| (name, Credential::certificate(identity)))
    .collect::<Vec<_>>();

    for (name, token) in bad_tokens(fortress).await {
        all.push((name, Credential::token(&token)));
    }
    all
}

async fn bad_tokens(fortress: &Fortress) -> Vec<(&'static str, String)> {
    let accounts = "/api/v1/namespaces/ns/serviceaccounts";
    let bound = |kind: &str, name: &str| json!({ "boundObjectRef": { "apiVersion": "v1", "kind": kind, "name": name } });
    for name in ["gone", "again", "expiring"] {
        fortress.put(accounts, &account(name)).await;
        let binding = json!({ "kind": "ServiceAccount", "namespace": "ns", "name": name });
        let all = json!([{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }, { "nonResourceURLs": ["*"], "verbs": ["*"] }]);
        fortress.grant("", name, all, binding).await;
    }
    fortress.put("/api/v1/namespaces/ns/pods", &pod("short", "n1")).await;
    let secret = json!({ "kind": "Secret", "apiVersion": "v1", "metadata": { "name": "short" } });
    fortress.put("/api/v1/namespaces/ns/secrets", &secret).await;
    let node = json!({ "kind": "Node", "apiVersion": "v1", "metadata": { "name": "short" } });
    fortress.put("/api/v1/nodes", &node).await;

    let expiring = fortress.token("ns", "expiring", json!({ "expirationSeconds": 600 })).await;
    let audience = fortress.token("ns", "expiring", json!({ "audiences": ["vault"], "expirationSeconds": 90000 })).await;
    let of_secret = fortress.token("ns", "expiring", bound("Secret", "short")).await;
    let of_node = fortress.token("ns", "expiring", bound("Node", "short")).await;
    let of_pod = fortress.token("ns", "of-n1", bound("Pod", "short")).await;
    let gone = fortress.token("ns", "gone", json!({})).await;
    let again = fortress.token("ns", "again", json!({})).await;
    let server = &fortress.0.server;
    for path in ["serviceaccounts/gone", "serviceaccounts/again", "secrets/short"] {
        server.delete(&format!("/api/v1/namespaces/ns/{path}")).await.expect(200);
    }
    let now = json!({ "kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0 });
    let json = [("content-type", "application/json")];
    server.request("DELETE", "/api/v1/namespaces/ns/pods/short", &json, now.to_string()).await.expect(200);
    server.delete("/api/v1/nodes/short").await.expect(200);
    fortress.put(accounts, &account("again")).await;
    let parts: Vec<&str> = audience.split('.').collect();
    let forged = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    let unsigned = format!("{forged}.{}.", parts[1]);
    let cut = gone[..gone.len() - 4].to_owned();
    // The first one expires; those that live on were made for longer.
    server.pass(std::time::Duration::from_secs(1200));
    vec![
        ("an expired token", expiring),
        ("a token for somebody else", audience),
        ("a token of a deleted account", gone),
        ("a token of an account's earlier life", again),
        ("a token of a deleted secret", of_secret),
        ("a token of a deleted node", of_node),
        ("a token of a deleted pod", of_pod),
        ("a token without a signature", unsigned),
        ("a cut token", cut),
        ("no token at all", "sesame".to_owned()),
        ("a bootstrap token that nobody made", "abcdef.0123456789abcdef".to_owned()),
    ]
}

#[tokio::test]
async fn bad_credentials_open_no_door() {
    let fortress = Fortress::build().await;
    for (name, credential) in bad_credentials(&fortress).await {
        for door in doors() {
            let (code, message) = fortress.knock(&credential, &door).await;
            assert_eq!((code, message.as_str()), (401, "Unauthorized"), "{name}: {} {}", door.0, door.1);
        }
        // Whoever could act as the administrator with it would be in.
        let acting = credential.acting(&[("impersonate-user", "kubernetes-admin"), ("impersonate-group", "system:masters")]);
        assert_eq!(fortress.knock(&acting, &doors()[0]).await.0, 401, "{name}");
    }
    for door in doors() {
        fortress.opens(&door).await;
    }
}

#[tokio::test]
async fn those_who_are_known_get_no_further_than_their_roles() {
    let fortress = Fortress::build().await;
    let everything = json!([{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }]);
    let subject = json!({ "kind": "ServiceAccount", "namespace": "other", "name": "default" });
    fortress.grant("other", "lord", everything.clone(), subject).await;
    let namesake = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann" });
    fortress.grant("other", "ann", everything, namesake).await;
    let other = Credential::token(&fortress.token("other", "default", json!({})).await);
    let basic = format!("Basic {}", BASE64_STANDARD.encode("admin:admin"));
    for (name, credential) in [
        ("nobody", Credential::default()),
        ("a password", Credential { certificate: None, headers: vec![("authorization", basic)] }),
        ("a stranger", fortress.user("bob", Some("dev"))),
        ("a group's name as a user's", fortress.user("system:masters", None)),
        ("a user of another namespace's role", fortress.user("ann", None)),
        ("an account of another namespace", other),
        ("a node's name without its group", fortress.user("system:node:n1", None)),
        ("a node's group without a name", fortress.user("n1", Some("system:nodes"))),
        ("a front proxy's headers", Credential::default().acting(&[("x-remote-user", "admin"), ("x-remote-group", "system:masters")])),
    ] {
        for door in doors() {
            let (code, message) = fortress.knock(&credential, &door).await;
            assert_eq!(code, 403, "{name}: {} {}: {message}", door.0, door.1);
            assert!(message.contains("forbidden"), "{name}: {message}");
        }
    }
    for door in doors() {
        fortress.opens(&door).await;
    }
}

fn role(kind: &str, name: &str, resource: &str) -> Value {
    json!({
        "kind": kind, "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": { "name": name },
        "rules": [{ "apiGroups": [""], "resources": [resource], "verbs": ["get"] }],
    })
}

fn binding(kind: &str, name: &str, of: &str) -> Value {
    let of_kind = if of.starts_with("role:") { "Role" } else { "ClusterRole" };
    json!({
        "kind": kind, "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": of_kind, "name": of.trim_start_matches("role:") },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "deputy" }],
    })
}

/// Somebody who may write roles and bindings, but holds little, does not get more by it.
#[tokio::test]
async fn nobody_gives_what_he_does_not_hold() {
    let fortress = Fortress::build().await;
    let deputy = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "deputy" });
    let rules = json!([
        { "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings", "clusterroles", "clusterrolebindings"], "verbs": ["get", "create", "update", "patch", "delete"] },
        { "apiGroups": [""], "resources": ["pods"], "verbs": ["get"] },
    ]);
    fortress.grant("", "deputy", rules, deputy).await;
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/ns/roles";
    fortress.put(roles, &role("Role", "secretive", "secrets")).await;
    fortress.put(roles, &role("Role", "modest", "pods")).await;
    let deputy = fortress.user("deputy", None);
    let more = json!({ "rules": [{ "apiGroups": [""], "resources": ["secrets"], "verbs": ["get"] }] });
    let aggregate = json!({ "kind": "ClusterRole", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": { "name": "all" }, "aggregationRule": { "clusterRoleSelectors": [{}] } });
    for (door, words) in [
        (("POST", roles, role("Role", "a", "secrets")), "is attempting to grant RBAC permissions not currently held"),
        (("PUT", "/apis/rbac.authorization.k8s.io/v1/namespaces/ns/roles/modest", role("Role", "modest", "secrets")), "not currently held"),
        (("PATCH", "/apis/rbac.authorization.k8s.io/v1/namespaces/ns/roles/modest", more.clone()), "not currently held"),
        (("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", role("ClusterRole", "a", "secrets")), "not currently held"),
        (("PATCH", "/apis/rbac.authorization.k8s.io/v1/clusterroles/view", json!({ "rules": [{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }] })), "not currently held"),
        (("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", aggregate), "must have cluster-admin privileges to use an aggregationRule"),
        (("POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/ns/rolebindings", binding("RoleBinding", "a", "role:secretive")), "not currently held"),
        (("POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/ns/rolebindings", binding("RoleBinding", "b", "admin")), "not currently held"),
        (("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding("ClusterRoleBinding", "c", "cluster-admin")), "not currently held"),
        (("PUT", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/cluster-admin", binding("ClusterRoleBinding", "cluster-admin", "cluster-admin")), "not currently held"),
    ] {
        let (code, message) = fortress.knock(&deputy, &door).await;
        assert!(code == 403 && message.contains(words), "{} {}: {code} {message}", door.0, door.1);
    }
    // What he holds he may give.
    let given = fortress.knock(&deputy, &("POST", roles, role("Role", "own", "pods"))).await;
    assert_eq!(given.0, 201, "{}", given.1);
    let bound = binding("RoleBinding", "own", "role:own");
    let bound = fortress.knock(&deputy, &("POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/ns/rolebindings", bound)).await;
    assert_eq!(bound.0, 201, "{}", bound.1);

    // The verbs `escalate` and `bind` allow it, each its own and in its own namespace.
    for (name, resource, verb) in [("climber", "roles", "escalate"), ("binder", "roles", "bind")] {
        let subject = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name });
        let rules = json!([
            { "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"], "verbs": ["create"] },
            { "apiGroups": ["rbac.authorization.k8s.io"], "resources": [resource], "verbs": [verb] },
        ]);
        fortress.grant("ns", name, rules, subject).await;
    }
    let (climber, binder) = (fortress.user("climber", None), fortress.user("binder", None));
    let create = ("POST", roles, role("Role", "climbed", "secrets"));
    let bind = ("POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/ns/rolebindings", binding("RoleBinding", "bound", "role:secretive"));
    assert_eq!(fortress.knock(&binder, &create).await.0, 403);
    assert_eq!(fortress.knock(&climber, &bind).await.0, 403);
    assert_eq!(fortress.knock(&climber, &create).await.0, 201);
    assert_eq!(fortress.knock(&binder, &bind).await.0, 201);
    let elsewhere = ("POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/other/roles", role("Role", "climbed", "secrets"));
    assert_eq!(fortress.knock(&climber, &elsewhere).await.0, 403);
}

/// Each thing that is taken on needs its own permission.
#[tokio::test]
async fn nobody_acts_as_whom_he_may_not() {
    let fortress = Fortress::build().await;
    let actor = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "actor" });
    let rules = json!([
        { "apiGroups": [""], "resources": ["users"], "verbs": ["impersonate"], "resourceNames": ["dev"] },
        { "apiGroups": [""], "resources": ["groups"], "verbs": ["impersonate"], "resourceNames": ["devs"] },
    ]);
    fortress.grant("", "actor", rules, actor).await;
    let actor = fortress.user("actor", None);
    let door = ("GET", "/api/v1/namespaces/ns/secrets/of-n1", Value::Null);
    let (user, group, uid) = ("impersonate-user", "impersonate-group", "impersonate-uid");
    for (headers, words) in [
        (vec![(user, "kubernetes-admin")], r#"cannot impersonate resource "users""#),
        (vec![(user, "dev"), (group, "system:masters")], r#"cannot impersonate resource "groups""#),
        (vec![(user, "dev"), (group, "devs"), (group, "system:masters")], r#"cannot impersonate resource "groups""#),
        (vec![(user, "dev"), (uid, "1")], r#"cannot impersonate resource "uids""#),
        (vec![(user, "dev"), ("impersonate-extra-scopes", "all")], r#"cannot impersonate resource "userextras/scopes""#),
        (vec![(user, "system:serviceaccount:ns:default")], r#"cannot impersonate resource "serviceaccounts""#),
        (vec![(user, "system:node:n1"), (group, "system:nodes")], r#"cannot impersonate resource "users""#),
    ] {
        let (code, message) = fortress.knock(&actor.acting(&headers), &door).await;
        assert!(code == 403 && message.contains(words), "{headers:?}: {code} {message}");
    }
    let (code, _) = fortress.knock(&actor.acting(&[(group, "system:masters")]), &door).await;
    assert_eq!(code, 400, "a group without a user");
    let nobody = Credential::default().acting(&[(user, "kubernetes-admin"), (group, "system:masters")]);
    assert_eq!(fortress.knock(&nobody, &door).await.0, 403);
    // Whom he may act as has no rights of his.
    let (code, message) = fortress.knock(&actor.acting(&[(user, "dev"), (group, "devs")]), &door).await;
    assert!(code == 403 && message.contains(r#"User "dev" cannot get resource "secrets""#), "{code} {message}");
}

/// A kubelet reads and writes what belongs to its own node.
#[tokio::test]
async fn a_node_keeps_to_itself() {
    let fortress = Fortress::build().await;
    let (mine, other) = (fortress.user("system:node:n1", Some("system:nodes")), fortress.user("system:node:n2", Some("system:nodes")));
    let status = json!({ "status": { "phase": "Running" } });
    let token = json!({ "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": { "boundObjectRef": { "apiVersion": "v1", "kind": "Pod", "name": "on-n2" } } });
    let eviction = json!({ "kind": "Eviction", "apiVersion": "policy/v1", "metadata": { "name": "on-n2" } });
    let not_mirror = json!({ "kind": "Pod", "apiVersion": "v1", "metadata": { "name": "x" }, "spec": { "nodeName": "n1", "containers": [{ "name": "c", "image": "i" }] } });
    let label = json!({ "metadata": { "labels": { "node-restriction.kubernetes.io/zone": "safe" } } });
    for door in [
        ("GET", "/api/v1/namespaces/ns/pods/on-n2", Value::Null),
        ("GET", "/api/v1/namespaces/ns/secrets/of-n2", Value::Null),
        ("GET", "/api/v1/namespaces/ns/configmaps/of-n2", Value::Null),
        ("GET", "/api/v1/nodes/n2", Value::Null),
        ("PATCH", "/api/v1/namespaces/ns/pods/on-n2/status", status),
        ("POST", "/api/v1/namespaces/ns/serviceaccounts/of-n2/token", token),
        ("PATCH", "/api/v1/nodes/n2/status", json!({ "status": { "phase": "x" } })),
        ("PATCH", "/api/v1/nodes/n2", json!({ "metadata": { "labels": { "a": "b" } } })),
        ("GET", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n2", Value::Null),
        ("PATCH", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n2", json!({ "spec": { "holderIdentity": "n1" } })),
        ("POST", "/api/v1/namespaces/ns/pods/on-n2/eviction", eviction),
    ] {
        let (code, message) = fortress.knock(&mine, &door).await;
        assert_eq!(code, 403, "{} {}: {message}", door.0, door.1);
        // For the other one it is its own.
        let (code, message) = fortress.knock(&other, &door).await;
        assert!((200..300).contains(&code), "{} {}: {code} {message}", door.0, door.1);
    }
    for door in [
        ("GET", "/api/v1/namespaces/ns/secrets", Value::Null),
        ("GET", "/api/v1/secrets", Value::Null),
        ("GET", "/api/v1/pods", Value::Null),
        ("GET", "/api/v1/pods?fieldSelector=spec.nodeName=n2", Value::Null),
        ("WATCH", "/api/v1/pods?watch=1&fieldSelector=spec.nodeName=n2", Value::Null),
        ("GET", "/api/v1/nodes", Value::Null),
        ("POST", "/api/v1/namespaces/ns/pods", not_mirror),
        ("POST", "/api/v1/namespaces/ns/configmaps", config_map("x")),
        ("PATCH", "/api/v1/nodes/n1", label),
        ("PATCH", "/api/v1/nodes/n1", json!({ "spec": { "taints": [] }, "metadata": { "ownerReferences": [{ "apiVersion": "v1", "kind": "Node", "name": "n2", "uid": "x" }] } })),
        ("DELETE", "/api/v1/nodes/n1", Value::Null),
        ("DELETE", "/api/v1/nodes/n2", Value::Null),
        ("DELETE", "/api/v1/namespaces/ns/pods/on-n2", Value::Null),
        ("DELETE", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n2", Value::Null),
        ("POST", "/api/v1/namespaces/ns/pods/on-n1/exec?command=sh&stdout=true", Value::Null),
    ] {
        let (code, message) = fortress.knock(&mine, &door).await;
        assert!(code == 403, "{} {}: {code} {message}", door.0, door.1);
    }
    // A pod of its own, but a token that is bound to none.
    let free = json!({ "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {} });
    let (code, message) = fortress.knock(&mine, &("POST", "/api/v1/namespaces/ns/serviceaccounts/of-n1/token", free)).await;
    assert_eq!(code, StatusCode::FORBIDDEN, "{message}");
}
