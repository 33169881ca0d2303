//! Tokens of other issuers: a server on the loopback interface hands its keys out, as an identity provider would.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use minik8s_apiserver::authn::configuration::AuthenticationConfiguration;
use minik8s_apiserver::authn::jwt::{self, SigningKey};
use parking_lot::Mutex;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::server::TestServer;

/// 2026-01-02T03:04:05Z, when tests begin.
const NOW: i64 = 1_767_323_045;
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

/// What an issuer shows: its documents by path, and what it was asked for.
#[derive(Default)]
struct Shown {
    keys: Value,
    /// What the discovery document calls itself, if that is not its address.
    alias: Option<String>,
    /// No answer, ever.
    silent: bool,
    asked: Vec<String>,
}

struct Issuer {
    url: String,
    ca: String,
    shown: Arc<Mutex<Shown>>,
}

fn new_key() -> SigningKey {
    SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().expect("a key")).expect("the key")
}

impl Issuer {
    async fn start(key: &SigningKey) -> Issuer {
        let own = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
        let tls_key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], tls_key)
            .expect("the key fits");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("https://{}", listener.local_addr().expect("an address"));
        let shown = Arc::new(Mutex::new(Shown { keys: jwt::key_set(&[key.public()]), ..Shown::default() }));
        tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(tls)), url.clone(), Arc::clone(&shown)));
        Issuer { url, ca: own.cert.pem(), shown }
    }

    /// A configuration that trusts it; `rest` is more of it in YAML.
    fn configuration(&self, rest: &str) -> AuthenticationConfiguration {
        let ca: String = self.ca.lines().map(|line| format!("      {line}\n")).collect();
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- issuer:\n    url: {}\n    \
             audiences: [k8s]\n    certificateAuthority: |\n{ca}\n{rest}",
            self.url
        );
        AuthenticationConfiguration::parse(&text, &[]).expect("a good configuration")
    }

    async fn trusted(&self, rest: &str) -> TestServer {
        let configuration = self.configuration(rest);
        TestServer::with(|config| config.settings.authentication = configuration).await
    }

    fn asked(&self) -> usize {
        self.shown.lock().asked.len()
    }

    /// A token of this issuer, with some claims changed.
    fn token(&self, key: &SigningKey, changes: Value) -> String {
        let mut claims = json!({ "iss": self.url, "aud": "k8s", "exp": NOW + 3600, "sub": "ann", "roles": ["dev"] });
        for (name, value) in changes.as_object().expect("claims") {
            claims[name] = value.clone();
        }
        jwt::sign(key, &claims).expect("a token")
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, url: String, shown: Arc<Mutex<Shown>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let Ok(stream) = tls.accept(stream).await else { continue };
        let (url, shown) = (url.clone(), Arc::clone(&shown));
        let service = service_fn(move |request: Request<Incoming>| {
            let (url, shown) = (url.clone(), Arc::clone(&shown));
            async move {
                let path = request.uri().path().to_owned();
                let (silent, answer) = {
                    let mut shown = shown.lock();
                    shown.asked.push(path.clone());
                    let answer = match path.as_str() {
                        "/keys" => shown.keys.clone(),
                        _ => {
                            json!({ "issuer": shown.alias.as_ref().unwrap_or(&url), "jwks_uri": format!("{url}/keys") })
                        }
                    };
                    (shown.silent, answer)
                };
                if silent {
                    std::future::pending::<()>().await;
                }
                Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from(answer.to_string()))))
            }
        });
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

const MAPPED: &str =
    "  claimMappings:\n    username: {claim: sub, prefix: 'oidc:'}\n    groups: {claim: roles, prefix: 'oidc:'}\n";

/// Who the server takes the bearer of a token for; an error is the code of the refusal.
async fn who(server: &TestServer, token: &str) -> Result<Value, u16> {
    let review = json!({ "kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1" }).to_string();
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let answer = server.anonymous("POST", REVIEWS, &headers, review).await;
    if answer.code == 201 { Ok(answer.json()["status"]["userInfo"].clone()) } else { Err(answer.code) }
}

#[tokio::test]
async fn a_token_of_a_trusted_issuer_names_its_user() {
    let key = new_key();
    let issuer = Issuer::start(&key).await;
    let server = issuer.trusted(MAPPED).await;
    assert_eq!(issuer.asked(), 0, "nothing is fetched before it is needed");
    let user = who(&server, &issuer.token(&key, json!({}))).await.expect("good");
    assert_eq!(user, json!({ "username": "oidc:ann", "groups": ["oidc:dev", "system:authenticated"] }));
    assert_eq!(issuer.shown.lock().asked, ["/.well-known/openid-configuration", "/keys"]);
    let several = json!({ "aud": ["other", "k8s"], "roles": "ops" });
    let user = who(&server, &issuer.token(&key, several)).await.expect("good");
    assert_eq!(user["groups"][0], "oidc:ops");
    assert_eq!(issuer.asked(), 2, "keys are kept");

    let token = issuer.token(&key, json!({}));
    let review = json!({ "kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "spec": { "token": token } });
    let reviewed = server.post("/apis/authentication.k8s.io/v1/tokenreviews", &review).await.expect(201);
    assert_eq!(reviewed["status"]["user"]["username"], "oidc:ann");
    let mut elsewhere = review.clone();
    elsewhere["spec"]["audiences"] = json!(["vault"]);
    let reviewed = server.post("/apis/authentication.k8s.io/v1/tokenreviews", &elsewhere).await.expect(201);
    assert!(reviewed["status"].get("authenticated").is_none(), "{reviewed}");
}

#[tokio::test]
async fn other_tokens_are_refused() {
    let (key, stranger) = (new_key(), new_key());
    let issuer = Issuer::start(&key).await;
    let server = issuer.trusted(MAPPED).await;
    let none = base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, r#"{"alg":"none"}"#);
    let good = issuer.token(&key, json!({}));
    let unsigned = format!("{none}.{}.", good.split('.').nth(1).expect("three parts"));
    for (name, token) in [
        ("another issuer", issuer.token(&key, json!({ "iss": "https://elsewhere" }))),
        ("another key", issuer.token(&stranger, json!({}))),
        ("another audience", issuer.token(&key, json!({ "aud": "other" }))),
        ("no audience", issuer.token(&key, json!({ "aud": null }))),
        ("expired", issuer.token(&key, json!({ "exp": NOW - 1 }))),
        ("without an end", issuer.token(&key, json!({ "exp": null }))),
        ("not yet", issuer.token(&key, json!({ "nbf": NOW + 900 }))),
        ("nobody", issuer.token(&key, json!({ "sub": "" , "roles": 1 }))),
        ("no signature", unsigned),
    ] {
        assert_eq!(who(&server, &token).await, Err(401), "{name}");
    }
    assert!(who(&server, &good).await.is_ok());

    let mut rsa = issuer.configuration(MAPPED);
    rsa.jwt[0].signing_algorithms = vec!["RS256".parse().expect("an algorithm")];
    let server = TestServer::with(|config| config.settings.authentication = rsa).await;
    assert_eq!(who(&server, &good).await, Err(401), "an algorithm that is not taken");
}

#[tokio::test]
async fn keys_are_fetched_anew_but_not_for_every_token() {
    let (key, next) = (new_key(), new_key());
    let issuer = Issuer::start(&key).await;
    let server = issuer.trusted(MAPPED).await;
    assert!(who(&server, &issuer.token(&key, json!({}))).await.is_ok());
    issuer.shown.lock().keys = jwt::key_set(&[next.public()]);
    let turned = issuer.token(&next, json!({}));
    for _ in 0..5 {
        assert_eq!(who(&server, &turned).await, Err(401), "asked a moment ago");
    }
    assert_eq!(issuer.asked(), 2);
    server.pass(Duration::from_secs(11));
    assert!(who(&server, &turned).await.is_ok());
    assert_eq!(who(&server, &issuer.token(&key, json!({}))).await, Err(401), "the old key is gone");
}

#[tokio::test]
async fn an_issuer_that_does_not_answer_stops_nobody() {
    let key = new_key();
    let issuer = Issuer::start(&key).await;
    let server = issuer.trusted(MAPPED).await;
    issuer.shown.lock().silent = true;
    let token = issuer.token(&key, json!({}));
    let asking = who(&server, &token);
    let mut asking = std::pin::pin!(asking);
    // Time passes only once the issuer has been asked.
    while issuer.asked() == 0 {
        tokio::select! {
            biased;
            answer = &mut asking => panic!("{answer:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!(server.in_time(asking).await, Err(401));
    // Others are not kept waiting, and come in by other means.
    assert_eq!(who(&server, &token).await, Err(401));
    server.get("/api/v1/namespaces").await.expect(200);

    issuer.shown.lock().silent = false;
    issuer.shown.lock().alias = Some("https://somebody.else".to_owned());
    server.pass(Duration::from_secs(11));
    assert_eq!(who(&server, &token).await, Err(401), "it is not whom it says it is");
    issuer.shown.lock().alias = None;
    server.pass(Duration::from_secs(11));
    assert!(who(&server, &token).await.is_ok());

    let mut untrusted = issuer.configuration(MAPPED);
    untrusted.jwt[0].issuer.certificate_authority = Issuer::start(&key).await.ca;
    let server = TestServer::with(|config| config.settings.authentication = untrusted).await;
    assert_eq!(who(&server, &token).await, Err(401), "a certificate of somebody else");
}

#[tokio::test]
async fn an_issuers_document_has_a_size() {
    const MAX_DOCUMENT_BYTES: usize = 1 << 20;
    let key = new_key();
    let issuer = Issuer::start(&key).await;
    let server = issuer.trusted(MAPPED).await;
    let padded = |bytes: usize| {
        let mut keys = jwt::key_set(&[key.public()]);
        keys["padding"] = json!("");
        keys["padding"] = json!("x".repeat(bytes - keys.to_string().len()));
        keys
    };
    let token = issuer.token(&key, json!({}));
    issuer.shown.lock().keys = padded(MAX_DOCUMENT_BYTES + 1);
    assert_eq!(who(&server, &token).await, Err(401));
    issuer.shown.lock().keys = padded(MAX_DOCUMENT_BYTES);
    server.pass(Duration::from_secs(11));
    assert!(who(&server, &token).await.is_ok());
}

#[tokio::test]
async fn rules_and_anonymity_are_configured() {
    let key = new_key();
    let issuer = Issuer::start(&key).await;
    let rest = "  claimMappings:\n    username: {expression: 'claims.sub'}\n    extra: [{key: example.com/tenant, valueExpression: claims.tenant}]\n  \
                userValidationRules:\n  - {expression: \"!user.username.startsWith('system:')\", message: reserved}\n\
                anonymous:\n  enabled: true\n  conditions:\n  - path: /livez\n";
    let server = issuer.trusted(rest).await;
    let user = who(&server, &issuer.token(&key, json!({ "tenant": "blue" }))).await.expect("good");
    assert_eq!(user["extra"], json!({ "example.com/tenant": ["blue"] }));
    assert_eq!(who(&server, &issuer.token(&key, json!({ "sub": "system:admin", "tenant": "x" }))).await, Err(401));
    assert_eq!(who(&server, &issuer.token(&key, json!({}))).await, Err(401), "a claim that is not there");
    server.anonymous("GET", "/livez", &[], "").await.expect(200);
    server.anonymous("GET", "/version", &[], "").await.expect(401);
}

#[tokio::test]
async fn this_server_is_an_issuer_too() {
    let server = TestServer::start().await;
    let document = server.get("/.well-known/openid-configuration").await;
    assert_eq!(document.headers["content-type"], "application/json");
    let found = document.expect(200);
    assert_eq!(found["issuer"], "https://kubernetes.default.svc.cluster.local");
    assert_eq!(found["jwks_uri"], "https://127.0.0.1:6443/openid/v1/jwks");
    let keys = server.get("/openid/v1/jwks").await;
    assert_eq!(keys.headers["content-type"], "application/jwk-set+json");
    assert_eq!(keys.headers["cache-control"], "public, max-age=3600");
    assert_eq!(keys.expect(200)["keys"][0]["alg"], "ES256");
    server.anonymous("GET", "/openid/v1/jwks", &[], "").await.expect(403);
    let account = minik8s_apiserver::identity::UserInfo::service_account("default", "x");
    let allowed = server.send("GET", "/openid/v1/jwks", &[], "", Some(account)).await;
    assert_eq!(allowed.status(), 200, "system:service-account-issuer-discovery");
}
