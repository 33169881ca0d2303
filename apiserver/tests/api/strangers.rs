//! Nobody gets in: bad credentials at every door, good ones at doors that are not theirs. All over the TLS listener, as
//! an attacker would come. Each table is checked against somebody for whom the same doors open: a row that fails for
//! another reason proves nothing.

#![allow(clippy::disallowed_methods, reason = "keys of tests may come from anywhere")]

use std::time::Duration;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use minik8s_apiserver::authn::jwt::{self, SigningKey};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};

use crate::connections::{Authority, Identity};
use crate::fortress::{Credential, Fortress, PORCH, PROXY, STATIC_TOKEN, account, doors, halls, pod};

const MASTERS: Option<&str> = Some("system:masters");
/// What a proxy says of the administrator.
const AS_ADMIN: [(&str, &str); 2] = [("x-remote-user", "kubernetes-admin"), ("x-remote-group", "system:masters")];

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

/// Certificates that nobody trusts, or not for this.
fn bad_certificates(fortress: &Fortress) -> Vec<(&'static str, Credential)> {
    let (authority, proxies) = (&fortress.listening.authority, &fortress.proxies);
    let (client, server) = (ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth);
    let own = KeyPair::generate().expect("a key");
    let mut own_params = CertificateParams::default();
    own_params.distinguished_name.push(DnType::CommonName, "kubernetes-admin");
    let self_signed = own_params.self_signed(&own).expect("a certificate").der().clone();
    let self_signed = (self_signed, PrivateKeyDer::try_from(own.serialize_der()).expect("a key"));
    let certificates = [
        ("another CA", Authority::new().issue("kubernetes-admin", MASTERS, client.clone())),
        ("a server's certificate", authority.issue("kubernetes-admin", MASTERS, server.clone())),
        ("signed by itself", self_signed),
        ("expired", dated(authority, 2024, 2026)),
        ("not yet valid", dated(authority, 2027, 2028)),
        ("a client by the proxies' CA", proxies.issue("kubernetes-admin", MASTERS, client.clone())),
        ("the proxy, for itself", proxies.issue(PROXY, MASTERS, client.clone())),
    ];
    let of_proxies = [
        ("a proxy by another CA", Authority::new().issue(PROXY, None, client.clone())),
        ("a proxy of another name", proxies.issue("other", None, client)),
        ("a proxy with a server's certificate", proxies.issue(PROXY, None, server)),
        ("an expired proxy", dated(proxies, 2024, 2026)),
    ];
    let plain = certificates.map(|(name, identity)| (name, Credential::certificate(identity)));
    let speaking = of_proxies.map(|(name, identity)| (name, Credential::certificate(identity).acting(&AS_ADMIN)));
    plain.into_iter().chain(speaking).collect()
}

/// Tokens of ServiceAccounts that may do everything, each of which has lost what it was good by.
async fn bad_account_tokens(fortress: &Fortress) -> Vec<(&'static str, String)> {
    let accounts = "/api/v1/namespaces/ns/serviceaccounts";
    let bound =
        |kind: &str, name: &str| json!({ "boundObjectRef": { "apiVersion": "v1", "kind": kind, "name": name } });
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
    let audience =
        fortress.token("ns", "expiring", json!({ "audiences": ["vault"], "expirationSeconds": 90000 })).await;
    let of_secret = fortress.token("ns", "expiring", bound("Secret", "short")).await;
    let of_node = fortress.token("ns", "expiring", bound("Node", "short")).await;
    let of_pod = fortress.token("ns", "of-n1", bound("Pod", "short")).await;
    let gone = fortress.token("ns", "gone", json!({})).await;
    let again = fortress.token("ns", "again", json!({})).await;
    let server = &fortress.listening.server;
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
    let claims: Value =
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(parts[1]).expect("base64")).expect("JSON");
    let cut = gone[..gone.len() - 4].to_owned();
    // The first one expires; those that live on were made for longer.
    server.pass(Duration::from_secs(1200));
    vec![
        ("an expired token", expiring),
        ("a token for somebody else", audience),
        ("a token of a deleted account", gone),
        ("a token of an account's earlier life", again),
        ("a token of a deleted secret", of_secret),
        ("a token of a deleted node", of_node),
        ("a token of a deleted pod", of_pod),
        ("a token without a signature", unsigned),
        ("a token by another key", signed(&new_key(), &claims)),
        ("a cut token", cut),
    ]
}

fn new_key() -> SigningKey {
    SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().expect("a key")).expect("the key")
}

fn signed(key: &SigningKey, claims: &Value) -> String {
    jwt::sign(key, claims).expect("a token")
}

/// Tokens that Secrets hold, or do not hold any more.
async fn bad_tokens_of_secrets(fortress: &Fortress) -> Vec<(&'static str, String)> {
    let server = &fortress.listening.server;
    let secrets = "/api/v1/namespaces/ns/secrets";
    let robot = fortress.put("/api/v1/namespaces/ns/serviceaccounts", &account("robot")).await;
    let subject = json!({ "kind": "ServiceAccount", "namespace": "ns", "name": "robot" });
    let all = json!([{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }, { "nonResourceURLs": ["*"], "verbs": ["*"] }]);
    fortress.grant("", "robot", all, subject).await;
    let token = |key: &SigningKey, secret: &str| {
        let claims = json!({
            "iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:ns:robot",
            "kubernetes.io/serviceaccount/namespace": "ns", "kubernetes.io/serviceaccount/secret.name": secret,
            "kubernetes.io/serviceaccount/service-account.name": "robot",
            "kubernetes.io/serviceaccount/service-account.uid": robot["metadata"]["uid"],
        });
        signed(key, &claims)
    };
    let mut held = Vec::new();
    for name in ["deleted", "changed", "marked", "good"] {
        // Signatures differ each time: the secret holds this one.
        held.push(token(&fortress.key, name));
        let secret = json!({
            "kind": "Secret", "apiVersion": "v1", "type": "kubernetes.io/service-account-token",
            "metadata": { "name": name, "annotations": { "kubernetes.io/service-account.name": "robot" } },
            "stringData": { "token": held.last() },
        });
        fortress.put(secrets, &secret).await;
    }
    // So made, and held, such a token is good.
    let [deleted, changed, marked, good]: [String; 4] = held.try_into().expect("four tokens");
    fortress.opens(&Credential::token(&good), &doors()[0]).await;
    server.delete(&format!("{secrets}/deleted")).await.expect(200);
    server.merge(&format!("{secrets}/changed"), &json!({ "stringData": { "token": "else" } })).await.expect(200);
    let mark = json!({ "metadata": { "labels": { "kubernetes.io/legacy-token-invalid-since": "2026-01-01" } } });
    server.merge(&format!("{secrets}/marked"), &mark).await.expect(200);
    vec![
        ("a token whose secret is gone", deleted),
        ("a token that its secret no longer holds", changed),
        ("a token that was marked invalid", marked),
        ("a token like the one that a secret holds", token(&fortress.key, "good")),
        ("a token that no secret ever held", token(&fortress.key, "never")),
        ("a secret's token by another key", token(&new_key(), "good")),
    ]
}

/// Tokens for nodes that join.
async fn bad_bootstrap_tokens(fortress: &Fortress) -> Vec<(&'static str, String)> {
    let subject = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:bootstrappers" });
    let all = json!([{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }, { "nonResourceURLs": ["*"], "verbs": ["*"] }]);
    fortress.grant("", "bootstrappers", all, subject).await;
    for (id, more) in [
        ("aaaaaa", json!({ "usage-bootstrap-authentication": "true" })),
        ("bbbbbb", json!({ "usage-bootstrap-signing": "true" })),
        ("cccccc", json!({ "usage-bootstrap-authentication": "true", "expiration": "2026-01-01T00:00:00Z" })),
        ("dddddd", json!({ "usage-bootstrap-authentication": "true", "auth-extra-groups": "system:masters" })),
    ] {
        let mut data = json!({ "token-id": id, "token-secret": "0123456789abcdef" });
        for (key, value) in more.as_object().into_iter().flatten() {
            data[key] = value.clone();
        }
        let secret = json!({
            "kind": "Secret", "apiVersion": "v1", "type": "bootstrap.kubernetes.io/token",
            "metadata": { "name": format!("bootstrap-token-{id}") }, "stringData": data,
        });
        fortress.put("/api/v1/namespaces/kube-system/secrets", &secret).await;
    }
    fortress.opens(&Credential::token("aaaaaa.0123456789abcdef"), &doors()[0]).await;
    [
        ("a bootstrap token that nobody made", "eeeeee.0123456789abcdef"),
        ("a bootstrap token with another secret", "aaaaaa.0123456789abcdee"),
        ("a bootstrap token for signing only", "bbbbbb.0123456789abcdef"),
        ("an expired bootstrap token", "cccccc.0123456789abcdef"),
        ("a bootstrap token for a group that is none of its", "dddddd.0123456789abcdef"),
    ]
    .map(|(name, token)| (name, token.to_owned()))
    .into()
}

/// Credentials that were good once, or never.
async fn bad_credentials(fortress: &Fortress) -> Vec<(&'static str, Credential)> {
    let mut tokens = bad_account_tokens(fortress).await;
    tokens.extend(bad_tokens_of_secrets(fortress).await);
    tokens.extend(bad_bootstrap_tokens(fortress).await);
    let elsewhere =
        json!({ "iss": "https://elsewhere", "sub": "kubernetes-admin", "aud": "k8s", "exp": 4_000_000_000_u64 });
    tokens.push(("a token of an issuer that nobody trusts", signed(&new_key(), &elsewhere)));
    tokens.push(("no token at all", "sesame".to_owned()));
    tokens.push(("the beginning of a static token", STATIC_TOKEN[..STATIC_TOKEN.len() - 1].to_owned()));
    tokens.push(("a static token and more", format!("{STATIC_TOKEN}1")));
    let mut all = bad_certificates(fortress);
    all.extend(tokens.into_iter().map(|(name, token)| (name, Credential::token(&token))));
    let protocol = |token: &str| {
        let token = BASE64_URL_SAFE_NO_PAD.encode(token);
        format!("base64url.bearer.authorization.k8s.io.{token}, v5.channel.k8s.io")
    };
    let protocol = Credential::header("sec-websocket-protocol", protocol("sesame"));
    all.push(("a WebSocket's token", protocol.acting(&[("connection", "upgrade"), ("upgrade", "websocket")])));
    all
}

#[tokio::test]
async fn bad_credentials_open_no_door() {
    let fortress = Fortress::build().await;
    let credentials = bad_credentials(&fortress).await;
    let reached = fortress.reached();
    let mut everything = doors();
    everything.extend(halls());
    everything.extend(PORCH.map(|path| ("GET", path, Value::Null)));
    for (name, credential) in credentials {
        for door in &everything {
            let (code, message) = fortress.knock(&credential, door).await;
            let message = if door.0 == "HEAD" { "Unauthorized" } else { message.as_str() };
            assert_eq!((code, message), (401, "Unauthorized"), "{name}: {} {}", door.0, door.1);
        }
        // Whoever could act as the administrator with it, or speak for him, would be in.
        let acting =
            credential.acting(&[("impersonate-user", "kubernetes-admin"), ("impersonate-group", "system:masters")]);
        assert_eq!(fortress.knock(&acting, &doors()[0]).await.0, 401, "{name}");
    }
    assert_eq!(fortress.reached(), reached, "neither the server behind nor the webhook heard of it");
    for door in everything {
        fortress.opens(&fortress.admin(), &door).await;
    }
}

/// What is good of its kind, but has no role that opens a door.
async fn without_roles(fortress: &Fortress) -> Vec<(&'static str, Credential)> {
    let everything = json!([{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }]);
    let subject = json!({ "kind": "ServiceAccount", "namespace": "other", "name": "default" });
    fortress.grant("other", "lord", everything.clone(), subject).await;
    let namesake = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann" });
    fortress.grant("other", "ann", everything, namesake).await;
    let other = Credential::token(&fortress.token("other", "default", json!({})).await);
    vec![
        ("a stranger", fortress.user("bob", Some("dev"))),
        ("a group's name as a user's", fortress.user("system:masters", None)),
        ("a user of another namespace's role", fortress.user("ann", None)),
        ("an account of another namespace", other),
        ("a node's name without its group", fortress.user("system:node:n1", None)),
        ("a node's group without a name", fortress.user("n1", Some("system:nodes"))),
        ("a client with a proxy's headers", fortress.user("bob", None).acting(&AS_ADMIN)),
        ("a client with a proxy's name", fortress.user(PROXY, None).acting(&AS_ADMIN)),
        ("a stranger behind the proxy", fortress.proxy(&[("x-remote-user", "bob"), ("x-remote-group", "dev")])),
        ("a group's name behind the proxy", fortress.proxy(&[("x-remote-user", "system:masters")])),
    ]
}

fn nobodies() -> Vec<(&'static str, Credential)> {
    let basic = format!("Basic {}", BASE64_STANDARD.encode("admin:admin"));
    vec![
        ("nobody", Credential::default()),
        ("a password", Credential::header("authorization", basic)),
        ("a proxy's headers", Credential::default().acting(&AS_ADMIN)),
    ]
}

#[tokio::test]
async fn those_who_are_known_get_no_further_than_their_roles() {
    let fortress = Fortress::build().await;
    let known = without_roles(&fortress).await;
    let reached = fortress.reached();
    let refused = async |name: &str, credential: &Credential, door: &_| {
        let (code, message) = fortress.knock(credential, door).await;
        assert_eq!(code, 403, "{name}: {} {}: {message}", door.0, door.1);
        assert!(door.0 == "HEAD" || message.contains("forbidden"), "{name}: {message}");
    };
    for (name, credential) in nobodies() {
        for door in doors().iter().chain(&halls()) {
            refused(name, &credential, door).await;
        }
        for path in PORCH {
            fortress.opens(&credential, &("GET", path, Value::Null)).await;
        }
    }
    for (name, credential) in known {
        for door in doors() {
            refused(name, &credential, &door).await;
        }
    }
    assert_eq!(fortress.reached(), reached, "neither the server behind nor the webhook heard of it");
    let bob = fortress.user("bob", Some("dev"));
    for door in halls() {
        fortress.opens(&bob, &door).await;
    }
}

/// The same doors open for everybody who may: what is refused above is refused for who asks.
#[tokio::test]
async fn doors_open_for_those_who_may() {
    for name in ["a certificate", "the proxy", "a static token"] {
        let fortress = Fortress::build().await;
        let credential = match name {
            "a certificate" => fortress.admin(),
            "the proxy" => fortress.proxy(&AS_ADMIN),
            _ => Credential::token(STATIC_TOKEN),
        };
        let reached = fortress.reached();
        for door in doors() {
            fortress.opens(&credential, &door).await;
        }
        assert!(fortress.reached() > reached, "{name}: the server behind and the webhook are asked");
    }
}

/// Paths that look like what everybody may read, or unlike what nobody may, are what they are.
#[tokio::test]
async fn odd_paths_lead_nowhere() {
    let fortress = Fortress::build().await;
    let nobody = Credential::default();
    for path in [
        "/healthz/../api/v1/secrets",
        "/version/../metrics",
        "/healthz%2f..%2fmetrics",
        "/readyz/%2e%2e/metrics",
        "//api/v1/secrets",
        "/api//v1/secrets",
        "/api/v1/./secrets",
        "/api/v1/secrets/",
        "/API/v1/secrets",
        "/%61pi/v1/secrets",
        "/api/v1/namespaces/ns/secrets%2Fof-n1",
        "/api/v1/proxy/nodes/n1/metrics",
        "/metrics/",
        "/metrics;/healthz",
        "/extra/",
        "/apis/widgets.io/v1/namespaces/default/../../../../../healthz",
        "/openapi/v3/../../metrics",
    ] {
        let (code, message) = fortress.knock(&nobody, &("GET", path, Value::Null)).await;
        assert_eq!(code, 403, "{path}: {message}");
    }
}
