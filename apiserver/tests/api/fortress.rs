//! A server with a wall around it: what [`crate::nobody`] knocks at. It has every way in that a server can have: clients'
//! certificates, a proxy in front, tokens of every kind, another server behind it, webhooks, kubelets.

#![allow(clippy::disallowed_methods, reason = "keys of tests may come from anywhere")]

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use minik8s_apiserver::aggregator::FrontProxy;
use minik8s_apiserver::authn::jwt::SigningKey;
use minik8s_apiserver::authn::{RequestHeaders, StaticTokens};
use minik8s_apiserver::identity::UserInfo;
use minik8s_apiserver::outgoing::tls;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};
use serde_json::{Value, json};

use crate::aggregation::{SERVICES, api_service, available, widgets};
use crate::connections::{Authority, Identity, Listening};
use crate::remote::{Loopback, Remote};
use crate::server::TestServer;
use crate::webhooks::{Webhook, configuration};

/// Method, path, body.
pub type Door = (&'static str, &'static str, Value);

/// A token of the token file.
pub const STATIC_TOKEN: &str = "open-sesame";
/// The common name of the proxy that is believed.
pub const PROXY: &str = "proxy";

/// What somebody shows.
#[derive(Default)]
pub struct Credential {
    certificate: Option<Identity>,
    headers: Vec<(&'static str, String)>,
}

impl Credential {
    pub fn certificate(identity: Identity) -> Credential {
        Credential { certificate: Some(identity), headers: Vec::new() }
    }

    pub fn token(token: &str) -> Credential {
        Credential::header("authorization", format!("Bearer {token}"))
    }

    pub fn header(name: &'static str, value: String) -> Credential {
        Credential { certificate: None, headers: vec![(name, value)] }
    }

    /// The same, acting as somebody else.
    pub fn acting(&self, headers: &[(&'static str, &str)]) -> Credential {
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
pub struct Fortress {
    pub listening: Listening,
    /// Signs the certificates of proxies.
    pub proxies: Authority,
    /// Signs the server's tokens.
    pub key: SigningKey,
    /// The server behind it.
    behind: Remote,
    /// Asked about every config map.
    hook: Webhook,
}

impl Fortress {
    pub async fn build() -> Fortress {
        let (authority, proxies) = (Authority::new(), Authority::new());
        let key = SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().expect("a key")).expect("the key");
        let (certificate, private) = proxies.issue("front-proxy-client", None, ExtendedKeyUsagePurpose::ClientAuth);
        let identity = tls::Identity { chain: vec![certificate], key: private };
        let server = TestServer::with(|config| {
            config.client_ca = vec![authority.certificate.clone()];
            config.service_account_key = key.clone();
            config.static_tokens =
                StaticTokens::default().with(STATIC_TOKEN, UserInfo::new("porter", ["system:masters"]));
            config.dialer = Arc::new(Loopback);
            config.front_proxy = Some(FrontProxy { ca_pem: "PEM".to_owned(), identity });
            config.settings.bootstrap_tokens = true;
            config.settings.request_headers = Some(RequestHeaders {
                ca: vec![proxies.certificate.clone()],
                ca_pem: "PEM".to_owned(),
                allowed_names: vec![PROXY.to_owned()],
                username: vec!["x-remote-user".to_owned()],
                uid: vec!["x-remote-uid".to_owned()],
                group: vec!["x-remote-group".to_owned()],
                extra_prefix: vec!["x-remote-extra-".to_owned()],
            });
        })
        .await;
        let behind = Remote::start("widgets.default.svc", Some(proxies.certificate.clone()), widgets).await;
        let hook = Webhook::start(|_| json!({ "allowed": true })).await;
        let fortress = Fortress { listening: Listening::by(authority, server).await, proxies, key, behind, hook };
        fortress.furnish().await;
        fortress
    }

    async fn furnish(&self) {
        let server = &self.listening.server;
        for namespace in ["ns", "other"] {
            server.namespace(namespace).await;
        }
        for node in ["n1", "n2"] {
            self.put("/api/v1/nodes", &json!({ "kind": "Node", "apiVersion": "v1", "metadata": { "name": node } }))
                .await;
            let lease = json!({ "kind": "Lease", "apiVersion": "coordination.k8s.io/v1", "metadata": { "name": node }, "spec": {} });
            self.put("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", &lease).await;
            for kind in ["Secret", "ConfigMap"] {
                let object = json!({ "kind": kind, "apiVersion": "v1", "metadata": { "name": format!("of-{node}") } });
                self.put(&format!("/api/v1/namespaces/ns/{}s", kind.to_lowercase()), &object).await;
            }
            self.put("/api/v1/namespaces/ns/serviceaccounts", &account(&format!("of-{node}"))).await;
            self.put("/api/v1/namespaces/ns/pods", &pod(&format!("on-{node}"), node)).await;
        }
        let status = json!({ "status": { "podIP": crate::remote::POD, "podIPs": [{ "ip": crate::remote::POD }] } });
        server.merge("/api/v1/namespaces/ns/pods/on-n1/status", &status).await.expect(200);
        self.put("/apis/apps/v1/namespaces/ns/deployments", &deployment()).await;
        self.put("/apis/certificates.k8s.io/v1/certificatesigningrequests", &certificate_request()).await;
        self.put("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &things()).await;
        while server.get("/apis/example.com/v1/namespaces/ns/things").await.code != 200 {
            tokio::task::yield_now().await;
        }
        self.behind.service(server, "widgets").await;
        self.put(SERVICES, &api_service(json!({ "caBundle": self.behind.ca }))).await;
        available(server, "Passed").await;
        let hook = configuration("Validating", "hook", self.hook.url(), json!({}));
        self.put("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", &hook).await;
    }

    /// How often others were asked because somebody asked this server: the server behind it, and the webhook.
    pub fn reached(&self) -> usize {
        self.behind.asked().len() + self.hook.requests().len()
    }

    /// Creates an object, as the administrator.
    pub async fn put(&self, collection: &str, object: &Value) -> Value {
        self.listening.server.post(collection, object).await.expect(201)
    }

    /// Creates a role and binds it; `scope` is a namespace, or empty for the whole cluster.
    pub async fn grant(&self, scope: &str, name: &str, rules: Value, subject: Value) {
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

    pub async fn token(&self, namespace: &str, account: &str, spec: Value) -> String {
        let request = json!({ "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": spec });
        let answer =
            self.put(&format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"), &request).await;
        answer["status"]["token"].as_str().expect("a token").to_owned()
    }

    /// Code and message of the answer.
    pub async fn knock(&self, who: &Credential, (method, path, body): &Door) -> (u16, String) {
        let verb = match *method {
            "WATCH" => "GET",
            "APPLY" => "PATCH",
            method => method,
        };
        let mut request = Request::builder().method(verb).uri(*path);
        request = request.header("host", "localhost");
        for (name, value) in &who.headers {
            request = request.header(*name, value);
        }
        let kind = match *method {
            "PATCH" => "application/merge-patch+json",
            "APPLY" => "application/apply-patch+yaml",
            _ => "application/json",
        };
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request = request.header("content-type", kind).body(Full::new(body)).expect("a request");
        let identity = who.certificate.as_ref().map(|(chain, key)| (chain.clone(), key.clone_key()));
        let stream = TokioIo::new(self.listening.connect(identity, b"http/1.1").await);
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

    pub fn user(&self, name: &str, group: Option<&str>) -> Credential {
        Credential::certificate(self.listening.client(name, group).expect("a certificate"))
    }

    pub fn admin(&self) -> Credential {
        self.user("kubernetes-admin", Some("system:masters"))
    }

    /// The proxy, speaking for whom these headers name.
    pub fn proxy(&self, headers: &[(&'static str, &str)]) -> Credential {
        let identity = self.proxies.issue(PROXY, None, ExtendedKeyUsagePurpose::ClientAuth);
        Credential::certificate(identity).acting(headers)
    }

    /// That the door is there: who may do everything gets further than authorization.
    pub async fn opens(&self, who: &Credential, door: &Door) {
        let (code, message) = self.knock(who, door).await;
        assert!(!matches!(code, 401 | 403 | 404), "{} {}: {code} {message}", door.0, door.1);
    }
}

pub fn account(name: &str) -> Value {
    json!({ "kind": "ServiceAccount", "apiVersion": "v1", "metadata": { "name": name } })
}

pub fn pod(name: &str, node: &str) -> Value {
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

pub fn config_map(name: &str) -> Value {
    json!({ "kind": "ConfigMap", "apiVersion": "v1", "metadata": { "name": name, "namespace": "ns" } })
}

fn deployment() -> Value {
    json!({
        "kind": "Deployment", "apiVersion": "apps/v1", "metadata": { "name": "web" },
        "spec": {
            "selector": { "matchLabels": { "a": "b" } },
            "template": { "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [{ "name": "c", "image": "nginx" }] } },
        },
    })
}

fn certificate_request() -> Value {
    use base64::Engine as _;
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "ann");
    let request = params.serialize_request(&key).expect("a request").pem().expect("PEM");
    json!({
        "kind": "CertificateSigningRequest", "apiVersion": "certificates.k8s.io/v1", "metadata": { "name": "ann" },
        "spec": {
            "request": base64::prelude::BASE64_STANDARD.encode(request),
            "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"],
        },
    })
}

fn things() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": { "name": "things.example.com" },
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": { "plural": "things", "kind": "Thing" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": { "type": "object" } } }],
        },
    })
}

fn review(group: &str, kind: &str, spec: Value) -> Value {
    json!({ "kind": kind, "apiVersion": format!("{group}.k8s.io/v1"), "spec": spec })
}

/// One door for every verb and for every way through the server. The last ones take something away.
pub fn doors() -> Vec<Door> {
    let mut doors = doors_of_objects();
    doors.extend(doors_to_elsewhere());
    doors.extend(doors_that_take_away());
    doors
}

fn doors_of_objects() -> Vec<Door> {
    const AUTHENTICATION: &str = "authentication";
    const AUTHORIZATION: &str = "authorization";
    let asked = json!({ "user": "x", "nonResourceAttributes": { "path": "/", "verb": "get" } });
    let asked_in =
        json!({ "user": "x", "resourceAttributes": { "namespace": "ns", "verb": "get", "resource": "pods" } });
    let approved = json!({ "status": { "conditions": [{ "type": "Approved", "status": "True", "reason": "x" }] } });
    vec![
        ("GET", "/api/v1/namespaces/ns/configmaps/of-n1", Value::Null),
        ("HEAD", "/api/v1/namespaces/ns/configmaps/of-n1", Value::Null),
        ("GET", "/api/v1/namespaces/ns/secrets/of-n1", Value::Null),
        ("GET", "/api/v1/secrets", Value::Null),
        ("WATCH", "/api/v1/namespaces/ns/secrets?watch=1", Value::Null),
        ("WATCH", "/api/v1/watch/namespaces/ns/secrets", Value::Null),
        ("GET", "/apis/example.com/v1/namespaces/ns/things", Value::Null),
        (
            "POST",
            "/api/v1/namespaces/ns/configmaps",
            json!({ "kind": "ConfigMap", "apiVersion": "v1", "metadata": { "generateName": "x-" } }),
        ),
        ("POST", "/api/v1/namespaces/ns/configmaps?dryRun=All", config_map("dry")),
        ("PUT", "/api/v1/namespaces/ns/configmaps/of-n1", config_map("of-n1")),
        ("PATCH", "/api/v1/namespaces/ns/configmaps/of-n1", json!({ "data": { "a": "b" } })),
        ("PATCH", "/api/v1/namespaces/ns/pods/on-n1/status", json!({ "status": { "message": "x" } })),
        ("PATCH", "/api/v1/namespaces/ns/pods/on-n1/ephemeralcontainers", json!({})),
        ("PATCH", "/api/v1/namespaces/ns/pods/on-n1/resize", json!({})),
        ("GET", "/apis/apps/v1/namespaces/ns/deployments/web/scale", Value::Null),
        ("PATCH", "/apis/apps/v1/namespaces/ns/deployments/web/scale", json!({ "spec": { "replicas": 9 } })),
        (
            "POST",
            "/api/v1/namespaces/ns/serviceaccounts/default/token",
            review(AUTHENTICATION, "TokenRequest", json!({})),
        ),
        (
            "POST",
            "/apis/certificates.k8s.io/v1/certificatesigningrequests",
            json!({ "kind": "CertificateSigningRequest", "apiVersion": "certificates.k8s.io/v1", "metadata": { "name": "x" }, "spec": {} }),
        ),
        ("PATCH", "/apis/certificates.k8s.io/v1/certificatesigningrequests/ann/approval", approved),
        (
            "PATCH",
            "/apis/certificates.k8s.io/v1/certificatesigningrequests/ann/status",
            json!({ "metadata": { "labels": { "a": "b" } } }),
        ),
        (
            "POST",
            "/apis/authentication.k8s.io/v1/tokenreviews",
            review(AUTHENTICATION, "TokenReview", json!({ "token": STATIC_TOKEN })),
        ),
        (
            "POST",
            "/apis/authorization.k8s.io/v1/subjectaccessreviews",
            review(AUTHORIZATION, "SubjectAccessReview", asked),
        ),
        (
            "POST",
            "/apis/authorization.k8s.io/v1/namespaces/ns/localsubjectaccessreviews",
            review(AUTHORIZATION, "LocalSubjectAccessReview", asked_in),
        ),
    ]
}

/// Through the server to kubelets, pods, Services and the server behind it, and what is no resource.
fn doors_to_elsewhere() -> Vec<Door> {
    vec![
        ("GET", "/api/v1/namespaces/ns/pods/on-n1/log", Value::Null),
        ("POST", "/api/v1/namespaces/ns/pods/on-n1/exec?command=sh&stdout=true", Value::Null),
        ("GET", "/api/v1/namespaces/ns/pods/on-n1/exec?command=sh&stdout=true", Value::Null),
        ("POST", "/api/v1/namespaces/ns/pods/on-n1/attach?stdout=true", Value::Null),
        ("POST", "/api/v1/namespaces/ns/pods/on-n1/portforward", Value::Null),
        ("GET", "/api/v1/namespaces/default/services/https:widgets:https/proxy/apis/widgets.io/v1", Value::Null),
        ("GET", "/api/v1/nodes/n1/proxy/metrics", Value::Null),
        ("GET", "/apis/widgets.io/v1/namespaces/default/widgets", Value::Null),
        ("POST", "/apis/widgets.io/v1/namespaces/default/widgets", json!({})),
        ("GET", "/metrics", Value::Null),
        ("GET", "/metrics/slis", Value::Null),
        ("GET", "/extra", Value::Null),
    ]
}

fn doors_that_take_away() -> Vec<Door> {
    let binding = json!({ "kind": "Binding", "apiVersion": "v1", "metadata": { "name": "on-n1" }, "target": { "kind": "Node", "name": "n1" } });
    let eviction = json!({ "kind": "Eviction", "apiVersion": "policy/v1", "metadata": { "name": "on-n1" } });
    vec![
        ("POST", "/api/v1/namespaces/ns/pods/on-n1/binding", binding),
        ("POST", "/api/v1/namespaces/ns/pods/on-n1/eviction", eviction),
        ("DELETE", "/api/v1/namespaces/ns/configmaps/of-n1", Value::Null),
        ("DELETE", "/api/v1/namespaces/ns/secrets", Value::Null),
    ]
}

/// What everybody gets to see who says a good name.
pub fn halls() -> Vec<Door> {
    let asked = json!({ "nonResourceAttributes": { "path": "/", "verb": "get" } });
    vec![
        ("GET", "/api", Value::Null),
        ("GET", "/api/v1", Value::Null),
        ("GET", "/apis", Value::Null),
        ("GET", "/apis/widgets.io/v1", Value::Null),
        ("GET", "/openapi/v2", Value::Null),
        ("GET", "/openapi/v3", Value::Null),
        ("GET", "/openapi/v3/apis/widgets.io/v1", Value::Null),
        (
            "POST",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            review("authorization", "SelfSubjectAccessReview", asked),
        ),
        (
            "POST",
            "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
            review("authorization", "SelfSubjectRulesReview", json!({ "namespace": "ns" })),
        ),
        (
            "POST",
            "/apis/authentication.k8s.io/v1/selfsubjectreviews",
            review("authentication", "SelfSubjectReview", json!({})),
        ),
    ]
}

/// What anybody gets to see, unless he says a bad name.
pub const PORCH: [&str; 6] = ["/version", "/version/", "/healthz", "/livez", "/readyz", "/readyz?verbose"];
