//! Encryption at rest: what the store holds, and what is read through it.

use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minik8s_apiserver::encryption::Configuration;
use minik8s_apiserver::server::ApiServer;
use minik8s_clock::{Clock, Random};
use minik8s_store::{RaftOptions, RaftStore, Store};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::server::{TestServer, config_map};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const KEY: &str = "/registry/core/secrets/default/s";
const PASSWORD: &str = "correct-horse-battery-staple";

/// A provider with one key, made of a byte.
fn provider(algorithm: &str, name: &str, byte: u8) -> Value {
    json!({ algorithm: { "keys": [{ "name": name, "secret": STANDARD.encode([byte; 32]) }] } })
}

fn configuration(providers: Value) -> Configuration {
    let file = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration",
        "resources": [{ "resources": ["secrets"], "providers": providers }],
    });
    Configuration::from_yaml(&file.to_string()).expect("a configuration")
}

fn secret() -> Value {
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s" }, "stringData": { "password": PASSWORD } })
}

/// What the store itself holds.
async fn stored(server: &TestServer, key: &str) -> Vec<u8> {
    server.store.get(key).await.expect("the store reads").expect("the key").value.to_vec()
}

fn begins(stored: &[u8], prefix: &str) -> bool {
    stored.starts_with(prefix.as_bytes())
}

#[tokio::test]
async fn secrets_are_encrypted_and_read_as_they_are() {
    for algorithm in ["aesgcm", "aescbc", "secretbox"] {
        let encryption = configuration(json!([provider(algorithm, "one", 1), { "identity": {} }]));
        let server = TestServer::with(|config| config.encryption = Some(encryption)).await;
        let mut watch = server.watch(&format!("{SECRETS}?watch=true")).await;
        server.post(SECRETS, &secret()).await.expect(201);
        assert!(begins(&stored(&server, KEY).await, &format!("k8s:enc:{algorithm}:v1:one:")));
        let data = json!({ "password": STANDARD.encode(PASSWORD) });
        let read = server.get(&format!("{SECRETS}/s")).await.expect(200);
        assert_eq!(read["data"], data);
        assert_eq!(server.get(SECRETS).await.expect(200)["items"][0]["data"], data);
        assert_eq!(watch.next().await.expect("an event")["object"]["data"], data);
        // As it was.
        server.merge(&format!("{SECRETS}/s"), &json!({ "data": { "password": null } })).await.expect(200);
        let version = read["metadata"]["resourceVersion"].as_str().expect("a version");
        let path = format!("{SECRETS}?resourceVersion={version}&resourceVersionMatch=Exact&limit=1");
        assert_eq!(server.get(&path).await.expect(200)["items"][0]["data"], data);
        server.delete(&format!("{SECRETS}/s")).await.expect(200);
        server.post("/api/v1/namespaces/default/configmaps", &config_map("m")).await.expect(201);
        assert!(begins(&stored(&server, "/registry/core/configmaps/default/m").await, "{\"kind\":\"ConfigMap\""));
    }
}

#[tokio::test]
async fn a_new_key_takes_over_as_objects_are_written() {
    let path = format!("{SECRETS}/s");
    let plain = TestServer::start().await;
    plain.post(SECRETS, &secret()).await.expect(201);
    assert!(begins(&stored(&plain, KEY).await, "{"));
    let old = configuration(json!([provider("aescbc", "old", 1), { "identity": {} }]));
    let old = plain.restarted_with(|config| config.encryption = Some(old)).await;
    let object = old.get(&path).await.expect(200);
    // A write that changes nothing else.
    let rewritten = old.put(&path, &object).await.expect(200);
    assert_ne!(rewritten["metadata"]["resourceVersion"], object["metadata"]["resourceVersion"]);
    assert!(begins(&stored(&old, KEY).await, "k8s:enc:aescbc:v1:old:"));
    let again = old.put(&path, &rewritten).await.expect(200);
    assert_eq!(again["metadata"]["resourceVersion"], rewritten["metadata"]["resourceVersion"], "it is fresh now");

    let both = configuration(json!([provider("aesgcm", "new", 2), provider("aescbc", "old", 1)]));
    let both = plain.restarted_with(|config| config.encryption = Some(both)).await;
    assert_eq!(both.get(&path).await.expect(200)["data"], object["data"]);
    both.merge(&format!("{path}?dryRun=All"), &json!({})).await.expect(200);
    assert!(begins(&stored(&both, KEY).await, "k8s:enc:aescbc:v1:old:"), "a dry run writes nothing");
    both.merge(&path, &json!({})).await.expect(200);
    assert!(begins(&stored(&both, KEY).await, "k8s:enc:aesgcm:v1:new:"));

    // Back to plain objects.
    let back = configuration(json!([{ "identity": {} }, provider("aesgcm", "new", 2)]));
    let back = plain.restarted_with(|config| config.encryption = Some(back)).await;
    back.merge(&path, &json!({})).await.expect(200);
    assert!(begins(&stored(&back, KEY).await, "{"));
    assert_eq!(plain.restarted().await.get(&path).await.expect(200)["data"], object["data"]);
}

#[tokio::test]
async fn what_no_key_reads_is_refused_by_name() {
    let first = configuration(json!([provider("aesgcm", "one", 1)]));
    let server = TestServer::with(|config| config.encryption = Some(first)).await;
    server.post(SECRETS, &secret()).await.expect(201);
    for (encryption, expect) in [
        (None, "identity transformer tried to read encrypted data"),
        (Some(json!([{ "identity": {} }])), "no matching prefix found"),
        (Some(json!([provider("aesgcm", "two", 1)])), "no matching key was found for the provided AES transformer"),
        (Some(json!([provider("aesgcm", "one", 2)])), "cipher: message authentication failed"),
    ] {
        let clock = server.server.clock().clone();
        let config = TestServer::config(server.store.clone(), clock, |config| {
            config.encryption = encryption.map(configuration);
        });
        let error = ApiServer::new(config, CancellationToken::new()).await.err().expect("it does not start");
        let error = error.to_string();
        assert!(error.contains(&format!("unable to transform key {KEY:?}: {expect}")), "{error}");
    }
}

/// Whether some file below a folder holds a text.
fn holds(folder: &Path, text: &[u8]) -> bool {
    std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).any(|path| {
        if path.is_dir() {
            return holds(&path, text);
        }
        std::fs::read(&path).expect("a file").windows(text.len()).any(|bytes| bytes == text)
    })
}

/// Writes a Secret through a server on disk, and looks for it in the files.
async fn found_on_disk(encryption: Option<Configuration>) -> (bool, bool) {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = Clock::real();
    let path = folder.path().join("store");
    let store = RaftStore::open(&path, clock.clone(), Random::from_os(), RaftOptions::default()).await;
    let store: Arc<dyn Store> = store.expect("the store opens");
    let shutdown = CancellationToken::new();
    let config = TestServer::config(store.clone(), clock.clone(), |config| config.encryption = encryption);
    let server = ApiServer::new(config, shutdown.clone()).await.expect("the server starts");
    let request = http::Request::post(SECRETS).header("content-type", "application/json");
    let mut request = request.body(axum::body::Body::from(secret().to_string())).expect("a request");
    request.extensions_mut().insert(minik8s_apiserver::identity::UserInfo::api_server());
    let answer = tower::ServiceExt::oneshot(server.service(), request).await.expect("an answer");
    assert_eq!(answer.status(), 201);
    shutdown.cancel();
    server.stopped().await;
    store.shutdown().await;
    (holds(&path, PASSWORD.as_bytes()), holds(&path, STANDARD.encode(PASSWORD).as_bytes()))
}

#[tokio::test]
async fn nothing_of_a_secret_is_on_disk() {
    let encryption = configuration(json!([provider("secretbox", "one", 1)]));
    assert_eq!(found_on_disk(Some(encryption)).await, (false, false));
    // Where it can be found if it is there at all.
    assert_eq!(found_on_disk(None).await, (false, true));
}
