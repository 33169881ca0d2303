//! Who gets in, and who does not.

#![allow(clippy::disallowed_methods, reason = "keys of tests may come from anywhere")]

use std::{sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures::FutureExt;
use http::{HeaderValue, Request, header, request::Parts};
use minik8s_api::status::Status;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

use super::{
    Authenticator, BootstrapTokens, ClientCertificates, PeerCertificates, Proxies, RequestHeaders,
    ServiceAccountTokens, StaticTokens,
    jwt::{self, SigningKey},
    legacy_token,
};
use crate::{
    identity::{UserInfo, fixture::World},
    reviews::Reviews,
    tokens::{DEFAULT_ISSUER, Tokens},
};

const AUDIENCE: &str = DEFAULT_ISSUER;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Authority {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "ca");
        let certificate = params.self_signed(&key).expect("certificate").der().clone();
        Authority { issuer: Issuer::new(params, key), certificate }
    }

    /// A client certificate, valid in 2026. (`rcgen` writes one organization.)
    fn client(&self, name: &str, group: Option<&str>) -> PeerCertificates {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if !name.is_empty() {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = rcgen::date_time_ymd(2025, 12, 1);
        params.not_after = rcgen::date_time_ymd(2027, 1, 1);
        let certificate =
            params.signed_by(&KeyPair::generate().expect("key"), &self.issuer).expect("certificate").der().clone();
        PeerCertificates(Arc::new([certificate]))
    }
}

struct Gate {
    world: World,
    authority: Authority,
    /// Who signs the certificates of proxies.
    front: Authority,
    key: SigningKey,
    authenticator: Arc<Authenticator>,
    tokens: Tokens,
}

fn new_key() -> SigningKey {
    SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().expect("key")).expect("key")
}

impl Gate {
    fn new() -> Gate {
        let world = World::new();
        let (authority, front, key) = (Authority::new(), Authority::new(), new_key());
        let (objects, clock) = (world.objects(), world.clock.clone());
        let audiences = vec![AUDIENCE.to_owned()];
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let trusting = |authority: &Authority| {
            ClientCertificates::new([authority.certificate.clone()], provider.clone(), clock.clone()).expect("CA")
        };
        let headers = RequestHeaders {
            ca: vec![front.certificate.clone()],
            ca_pem: String::new(),
            allowed_names: vec!["front-proxy-client".to_owned()],
            username: vec!["X-Remote-User".to_owned()],
            uid: vec!["X-Remote-Uid".to_owned()],
            group: vec!["X-Remote-Group".to_owned()],
            extra_prefix: vec!["X-Remote-Extra-".to_owned()],
        };
        let authenticator = Authenticator {
            proxies: Some(Proxies::new(headers, trusting(&front))),
            certificates: Some(trusting(&authority)),
            static_tokens: StaticTokens::parse("sesame,ann,1,\"dev\"").expect("tokens"),
            service_accounts: ServiceAccountTokens::new(
                objects.clone(),
                clock.clone(),
                vec![key.public()],
                vec![DEFAULT_ISSUER.to_owned()],
                audiences.clone(),
                legacy_token::uses().0,
            ),
            bootstrap_tokens: Some(BootstrapTokens::new(objects.clone(), clock.clone())),
            issuers: Vec::new(),
            anonymous: None,
        };
        let (random, keys) = (world.random.clone(), vec![key.public()]);
        let tokens = Tokens::new(objects, clock, random, key.clone(), keys, DEFAULT_ISSUER, audiences);
        world.put(json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "namespace": "rec", "name": "default" } }));
        Gate { world, authority, front, key, authenticator: Arc::new(authenticator), tokens }
    }

    fn request_token(&self, account: &str, spec: Value) -> Result<Value, Status> {
        let mut request = json!({ "metadata": {}, "spec": spec });
        self.tokens.prepare("rec", account, &mut request)?;
        self.tokens.issue("rec", account, request, &Default::default())
    }

    fn token(&self, spec: Value) -> String {
        let request = self.request_token("default", spec).expect("token");
        request["status"]["token"].as_str().expect("token").to_owned()
    }

    fn bootstrap_secret(&self, id: &str, data: Value) {
        let data: serde_json::Map<String, Value> = data
            .as_object()
            .expect("data")
            .iter()
            .map(|(key, value)| (key.clone(), json!(BASE64_STANDARD.encode(value.as_str().expect("text")))))
            .collect();
        self.world.put(json!({
            "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
            "metadata": { "namespace": "kube-system", "name": format!("bootstrap-token-{id}") }, "data": data,
        }));
    }

    fn who(&self, mut parts: Parts) -> Result<UserInfo, u16> {
        // Nothing here waits for anybody.
        let found = self.authenticator.authenticate(&mut parts).now_or_never().expect("at once");
        let found = found.map_err(|status| status.code);
        assert!(parts.headers.get(header::AUTHORIZATION).is_none(), "the secret goes no further");
        found
    }

    fn bearer(&self, token: &str) -> Result<String, u16> {
        self.who(with_header(header::AUTHORIZATION, &format!("Bearer {token}"))).map(|user| user.name)
    }
}

fn with_header(name: header::HeaderName, value: &str) -> Parts {
    Request::builder()
        .header(name, HeaderValue::from_str(value).expect("header"))
        .body(())
        .expect("request")
        .into_parts()
        .0
}

fn with_certificate(peer: PeerCertificates) -> Parts {
    Request::builder().extension(peer).body(()).expect("request").into_parts().0
}

#[tokio::test]
async fn certificates_speak_for_their_subject() {
    let gate = Gate::new();
    let user = gate.who(with_certificate(gate.authority.client("ann", Some("dev")))).expect("trusted");
    assert_eq!((user.name.as_str(), &user.groups[..]), ("ann", &["dev".to_owned(), "system:authenticated".into()][..]));
    assert!(user.extra["authentication.kubernetes.io/credential-id"][0].starts_with("X509SHA256="));

    assert_eq!(
        gate.who(with_certificate(Authority::new().client("ann", Some("system:masters")))),
        Err(401),
        "another CA"
    );
    assert_eq!(
        gate.who(with_certificate(PeerCertificates(Arc::new([gate.authority.certificate.clone()])))),
        Err(401),
        "the CA is no client"
    );
    assert_eq!(
        gate.who(with_certificate(PeerCertificates(Arc::new([vec![1, 2, 3].into()])))),
        Err(401),
        "no certificate at all"
    );
    let nameless = gate.authority.client("", Some("system:masters"));
    assert_eq!(gate.who(with_certificate(nameless)), Err(401), "it names nobody");

    let peer = gate.authority.client("bob", None);
    assert!(gate.who(with_certificate(peer.clone())).is_ok());
    gate.world.simulation.advance(Duration::from_secs(400 * 24 * 3600));
    assert_eq!(gate.who(with_certificate(peer)), Err(401), "expired, though it was good before");
}

#[tokio::test]
async fn a_proxy_says_who_asks_if_its_own_certificate_is_good() {
    let gate = Gate::new();
    let request = |peer: PeerCertificates| {
        let request = Request::builder().extension(peer).header("X-Remote-User", "ann").header("X-Remote-Uid", "7");
        let request = request.header("X-Remote-Group", "dev").header("X-Remote-Group", "ops");
        request.header("X-Remote-Extra-Acme.com%2Fteam", "blue").body(()).expect("request").into_parts().0
    };
    let user = gate.who(request(gate.front.client("front-proxy-client", None))).expect("believed");
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("ann", "7"));
    assert_eq!(user.groups, ["dev", "ops", "system:authenticated"]);
    assert_eq!(user.extra["acme.com/team"], ["blue"]);

    assert_eq!(gate.who(request(gate.front.client("another", None))), Err(401), "a name that is not allowed");
    let own = gate.who(request(gate.authority.client("bob", None))).expect("a client of its own");
    assert_eq!(own.name, "bob", "clients do not speak for others");
}

#[tokio::test]
async fn tokens_in_secrets_are_good_while_the_secret_holds_them() {
    let gate = Gate::new();
    let token = |uid: &str| {
        let claims = json!({
            "iss": "kubernetes/serviceaccount",
            "sub": "system:serviceaccount:rec:default",
            "kubernetes.io/serviceaccount/namespace": "rec",
            "kubernetes.io/serviceaccount/secret.name": "legacy",
            "kubernetes.io/serviceaccount/service-account.name": "default",
            "kubernetes.io/serviceaccount/service-account.uid": uid,
        });
        jwt::sign(&gate.key, &claims).expect("token")
    };
    let hold = |token: &str| {
        gate.world.put(json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
            "metadata": { "namespace": "rec", "name": "legacy" }, "data": { "token": BASE64_STANDARD.encode(token) },
        }));
    };
    let good = token("uid-of-default");
    assert_eq!(gate.bearer(&good), Err(401), "nothing holds it");
    hold(&good);
    assert_eq!(gate.bearer(&good).as_deref(), Ok("system:serviceaccount:rec:default"));
    let stale = token("uid-of-an-earlier-one");
    assert_eq!(gate.bearer(&stale), Err(401), "another than the Secret holds");
    hold(&stale);
    assert_eq!(gate.bearer(&stale), Err(401), "the account is another by now");
}

#[tokio::test]
async fn tokens_speak_for_their_account_while_it_lives() {
    let gate = Gate::new();
    let account = "system:serviceaccount:rec:default";
    let token = gate.token(json!({}));
    let user = gate.who(with_header(header::AUTHORIZATION, &format!("Bearer {token}"))).expect("good");
    assert_eq!(user.name, account);
    assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:rec", "system:authenticated"]);
    assert_eq!(user.uid, "uid-of-default");

    let websocket = format!(
        "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.{}",
        base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(&token)
    );
    let mut upgrade = with_header(header::SEC_WEBSOCKET_PROTOCOL, &websocket);
    assert_eq!(gate.who(upgrade.clone()).map(|user| user.name).as_deref(), Ok("system:anonymous"), "no WebSocket");
    upgrade.headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    assert_eq!(gate.who(upgrade.clone()).map(|user| user.name).as_deref(), Ok(account));
    for (protocols, words) in [
        (websocket.trim_start_matches("v5.channel.k8s.io, ").to_owned(), "nothing to answer with"),
        (format!("{websocket}, base64url.bearer.authorization.k8s.io.YQ"), "two tokens"),
        ("v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.%".to_owned(), "no base64"),
    ] {
        let mut upgrade = upgrade.clone();
        let protocols = HeaderValue::from_str(&protocols).expect("a header");
        upgrade.headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocols);
        assert_eq!(gate.who(upgrade).map(|user| user.name), Err(401), "{words}");
    }
    let spaced = with_header(header::AUTHORIZATION, &format!("Bearer  {token}"));
    assert_eq!(gate.who(spaced).map(|user| user.name).as_deref(), Ok("system:anonymous"), "two spaces");

    let other_key = jwt::sign(&new_key(), &json!({ "iss": DEFAULT_ISSUER })).expect("token");
    let foreign = jwt::sign(&gate.key, &json!({ "iss": "https://elsewhere" })).expect("token");
    let cut = &token[..token.len() - 2];
    for (bad, why) in [
        (other_key.as_str(), "another key"),
        (&foreign, "another issuer"),
        (cut, "a cut signature"),
        ("x.y.z", "nonsense"),
        ("sesam", "almost"),
    ] {
        assert_eq!(gate.bearer(bad), Err(401), "{why}");
    }
    assert_eq!(gate.bearer(&gate.token(json!({ "audiences": ["vault"] }))), Err(401), "made for someone else");
    assert_eq!(gate.bearer(&"x".repeat(100_000)), Err(401), "too long");
    assert_eq!(gate.bearer("sesame").as_deref(), Ok("ann"));

    let short = gate.token(json!({ "expirationSeconds": 600 }));
    gate.world.simulation.advance(Duration::from_secs(661));
    assert_eq!(gate.bearer(&short), Err(401), "expired");
    assert_eq!(gate.bearer(&token).as_deref(), Ok(account));
    gate.world.put(json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "namespace": "rec", "name": "default", "uid": "another" } }));
    assert_eq!(gate.bearer(&token), Err(401), "the account was made anew");
}

#[tokio::test]
async fn bound_tokens_die_with_their_pod() {
    let gate = Gate::new();
    let pods = minik8s_api::kinds::GroupResource::new("", "pods");
    gate.world.put(json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1" } }));
    gate.world.put(json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "namespace": "rec", "name": "p" }, "spec": { "serviceAccountName": "default", "nodeName": "n1" } }));
    let bound = |uid: &str| json!({ "expirationSeconds": 3607, "boundObjectRef": { "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid } });
    let token = gate.token(bound("uid-of-p"));
    let user = gate.who(with_header(header::AUTHORIZATION, &format!("Bearer {token}"))).expect("good");
    assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["p"]);
    assert_eq!(user.extra["authentication.kubernetes.io/node-uid"], ["uid-of-n1"]);
    // Clients that read their file once go on after the hour.
    gate.world.simulation.advance(Duration::from_secs(3700));
    assert!(gate.bearer(&token).is_ok());
    gate.world.delete(&pods, "rec", "p");
    assert_eq!(gate.bearer(&token), Err(401));

    for (spec, code, message) in [
        (bound("uid-of-p"), 404, r#"pods "p" not found"#),
        (
            json!({ "boundObjectRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "d" } }),
            400,
            "cannot bind token to object of type apps/v1, Kind=Deployment",
        ),
        (
            json!({ "expirationSeconds": 1 }),
            422,
            r#"TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes"#,
        ),
        (
            json!({ "expirationSeconds": 1i64 << 33 }),
            422,
            r#"TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: 8589934592: may not specify a duration larger than 2^32 seconds"#,
        ),
    ] {
        let refused = gate.request_token("default", spec).expect_err("refused");
        assert_eq!((refused.code, refused.message.as_str()), (code, message));
    }
    assert_eq!(
        gate.request_token("ghost", json!({})).expect_err("no account").message,
        r#"serviceaccounts "ghost" not found"#
    );
}

#[tokio::test]
async fn bootstrap_tokens_are_secrets_with_a_use() {
    let gate = Gate::new();
    let data = |changes: &[(&str, &str)]| {
        let mut data = json!({ "token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true", "auth-extra-groups": "system:bootstrappers:w" });
        for (key, value) in changes {
            data[*key] = json!(value);
        }
        data
    };
    gate.bootstrap_secret("abcdef", data(&[]));
    let user = gate.who(with_header(header::AUTHORIZATION, "bearer abcdef.0123456789abcdef")).expect("good");
    assert_eq!(
        (user.name.as_str(), &user.groups[..2]),
        ("system:bootstrap:abcdef", &["system:bootstrappers".to_owned(), "system:bootstrappers:w".to_owned()][..])
    );
    for (changes, token, why) in [
        (&[][..], "abcdef.0123456789abcdee", "another secret"),
        (&[], "abcdeg.0123456789abcdef", "no such token"),
        (&[("usage-bootstrap-authentication", "false")], "abcdef.0123456789abcdef", "not for this"),
        (&[("expiration", "2025-01-01T00:00:00Z")], "abcdef.0123456789abcdef", "expired"),
        (&[("auth-extra-groups", "system:masters")], "abcdef.0123456789abcdef", "a group it may not have"),
    ] {
        gate.bootstrap_secret("abcdef", data(changes));
        assert_eq!(gate.bearer(token), Err(401), "{why}");
    }
}

#[tokio::test]
async fn no_credentials_are_anonymous_and_nothing_on_the_wire_is_internal() {
    let gate = Gate::new();
    assert_eq!(gate.who(Request::new(()).into_parts().0), Ok(UserInfo::anonymous()));
    let basic = gate.who(with_header(header::AUTHORIZATION, "Basic YTpi"));
    assert_eq!(basic, Ok(UserInfo::anonymous()), "a scheme nobody knows is no credential");
    let inside = Request::builder().extension(UserInfo::api_server()).body(()).expect("request").into_parts().0;
    assert_eq!(gate.who(inside), Ok(UserInfo::api_server()));
}

#[tokio::test]
async fn reviews_answer_as_recorded() {
    let gate = Gate::new();
    let (_, authorizer) = gate.world.authorizers();
    let reviews = Reviews::new(Arc::clone(&gate.authenticator), authorizer, gate.world.clock.clone());
    let dev = UserInfo::new("dev-user", [] as [&str; 0]);
    let ask = |resource: &str, body: Value, user: &UserInfo| {
        let answer = reviews.create(resource, "rec", body, user).now_or_never().expect("at once");
        answer.map_err(|status| status.message)
    };

    let me = ask("selfsubjectreviews", json!({ "kind": "SelfSubjectReview" }), &dev).expect("answer");
    assert_eq!(me["status"], json!({ "userInfo": { "username": "dev-user", "groups": ["system:authenticated"] } }));
    assert_eq!(me["metadata"]["creationTimestamp"], "2026-01-01T00:00:00Z");

    let may = json!({ "spec": { "resourceAttributes": { "namespace": "rec", "verb": "delete", "resource": "pods" } } });
    let no = ask("selfsubjectaccessreviews", may.clone(), &dev).expect("answer");
    assert_eq!((&no["status"], &no["metadata"], &no["spec"]), (&json!({ "allowed": false }), &json!({}), &may["spec"]));
    let mut other = may.clone();
    other["spec"]["groups"] = json!(["system:masters"]);
    assert_eq!(ask("subjectaccessreviews", other, &dev).expect("answer")["status"]["allowed"], true);
    assert_eq!(
        ask("subjectaccessreviews", may.clone(), &dev).expect_err("nobody"),
        r#".authorization.k8s.io "" is invalid: spec.user: Invalid value: "": at least one of user or group must be specified"#
    );
    assert_eq!(
        ask("selfsubjectaccessreviews", json!({ "spec": {} }), &dev).expect_err("nothing"),
        r#".authorization.k8s.io "" is invalid: spec: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified"#
    );
    assert_eq!(
        reviews.create("localsubjectaccessreviews", "b", may, &dev).await.expect_err("elsewhere").message,
        r#".authorization.k8s.io "" is invalid: [spec.user: Invalid value: "": at least one of user or group must be specified, spec.resourceAttributes.namespace: Invalid value: "rec": must match metadata.namespace]"#
    );

    let token = gate.token(json!({ "audiences": ["vault"] }));
    let whose =
        ask("tokenreviews", json!({ "spec": { "token": token, "audiences": ["vault", "x"] } }), &dev).expect("answer");
    assert_eq!((&whose["status"]["authenticated"], &whose["status"]["audiences"]), (&json!(true), &json!(["vault"])));
    let nobody = ask("tokenreviews", json!({ "spec": { "token": token } }), &dev).expect("answer");
    assert!(nobody["status"].get("authenticated").is_none() && nobody["status"]["user"] == json!({}));
    assert_eq!(
        ask("tokenreviews", json!({ "spec": {} }), &dev).expect_err("no token"),
        "token is required for TokenReview in authentication"
    );
    assert_eq!(
        ask("selfsubjectrulesreviews", json!({ "spec": {} }), &dev).expect_err("no namespace"),
        "no namespace on request"
    );
}

#[tokio::test]
async fn rules_are_listed_as_recorded() {
    let gate = Gate { world: World::with_roles(), ..Gate::new() };
    gate.world.put(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "namespace": "rec", "name": "reader" },
        "rules": [{ "apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"] }],
    }));
    gate.world.put(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "namespace": "rec", "name": "reader" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader" }, "subjects": [{ "kind": "User", "name": "dev-user" }],
    }));
    let (_, authorizer) = gate.world.authorizers();
    let reviews = Reviews::new(Arc::clone(&gate.authenticator), authorizer, gate.world.clock.clone());
    let dev = UserInfo::new("dev-user", [] as [&str; 0]);
    let answer = reviews
        .create("selfsubjectrulesreviews", "", json!({ "spec": { "namespace": "rec" } }), &dev)
        .await
        .expect("answer");
    assert_eq!(
        answer["status"],
        json!({
            "resourceRules": [
                { "verbs": ["create"], "apiGroups": ["authorization.k8s.io"], "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"] },
                { "verbs": ["create"], "apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"] },
                { "verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"] },
            ],
            "nonResourceRules": [
                { "verbs": ["get"], "nonResourceURLs": ["/healthz", "/livez", "/readyz", "/version", "/version/"] },
                { "verbs": ["get"], "nonResourceURLs": ["/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version", "/version/"] },
            ],
            "incomplete": false,
        })
    );
}
