//! Recorded answers of kube-apiserver 1.37.2, replayed. What needs controllers or nodes is left to the
//! end-to-end tests; everything else must be equal.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value, json};

use crate::server::TestServer;

/// Steps whose answers need more than an API server, and why.
const ELSEWHERE: &[(&str, &str)] = &[
    ("strategic merges by name", DEPLOYMENT),
    ("strategic delete directive", DEPLOYMENT),
    ("merge patch null", DEPLOYMENT),
    ("apply force", DEPLOYMENT),
    ("scale get", DEPLOYMENT),
    ("quota status", "the ResourceQuota controller writes the status"),
];
const DEPLOYMENT: &str = "the Deployment controller writes the status";

/// What differs from run to run is named instead.
fn normalized(value: &Value, key: &str) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(name, _)| {
                *name != "managedFields" && !(*name == "description" && fields.contains_key("priority"))
            });
            Value::Object(kept.map(|(name, value)| (name.clone(), normalized(value, name))).collect::<Map<_, _>>())
        }
        Value::Array(items) => {
            Value::Array(items.iter().map(|item| normalized(item, if key == "cells" { "" } else { key })).collect())
        }
        Value::String(text) => Value::String(normalized_text(text, key)),
        other => other.clone(),
    }
}

fn normalized_text(text: &str, key: &str) -> String {
    if key == "resourceVersion" && text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        return "<rv>".to_owned();
    }
    if matches!(key, "clusterIP" | "clusterIPs") && text != "None" {
        return "<ip>".to_owned();
    }
    if matches!(key, "token" | "continue") && !text.is_empty() {
        return format!("<{key}>");
    }
    static PATTERNS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        let patterns = [
            (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<uid>"),
            (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "<time>"),
            (r"kube-api-access-[a-z0-9]{5}", "kube-api-access-<hash>"),
            (r"^g-[a-z0-9]{5}$", "g-<hash>"),
            (r"too old resource version: 1 \(\d+\)", "too old resource version: 1 (<rv>)"),
            (r"current: \d+", "current: <rv>"),
        ];
        patterns.map(|(pattern, name)| (Regex::new(pattern).expect("a pattern"), name)).into()
    });
    let mut text = text.to_owned();
    for (pattern, name) in PATTERNS.iter() {
        text = pattern.replace_all(&text, *name).into_owned();
    }
    let age = text.strip_suffix(['s', 'm', 'h']).is_some_and(|number| number.parse::<u32>().is_ok());
    if key.is_empty() && age { "<age>".to_owned() } else { text }
}

#[tokio::test]
async fn answers_equal_the_references() {
    let server = TestServer::start().await;
    let mut different = Vec::new();
    for line in include_str!("data/answers.jsonl").lines() {
        let recorded: Value = serde_json::from_str(line).expect("a record");
        let step = recorded["step"].as_str().unwrap_or_default();
        let same = replay(&server, step, &recorded).await;
        let elsewhere = ELSEWHERE.iter().any(|(name, _)| *name == step);
        match same {
            Err(why) if !elsewhere => different.push(format!("{step}: {why}")),
            Ok(()) if elsewhere => different.push(format!("{step} is equal now: strike it from the list")),
            _ => {}
        }
        // What controllers put into every namespace.
        if step == "namespace create" {
            let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default" } });
            server.post("/api/v1/namespaces/rec/serviceaccounts", &account).await.expect(201);
            let root_ca =
                json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "kube-root-ca.crt" } });
            server.post("/api/v1/namespaces/rec/configmaps", &root_ca).await.expect(201);
        }
    }
    assert!(different.is_empty(), "{} differ:\n{}", different.len(), different.join("\n"));
}

async fn replay(server: &TestServer, step: &str, recorded: &Value) -> Result<(), String> {
    let big = |bytes: usize| {
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "big" }, "data": { "x": "y".repeat(bytes) } }).to_string()
    };
    let body = match (step, &recorded["body"]) {
        ("too large", _) => big(3_200_000),
        ("configmap over 1 MiB", _) => big(1_100_000),
        (_, Value::Null) => String::new(),
        (_, Value::String(text)) => text.clone(),
        (_, body) => body.to_string(),
    };
    let mut headers = vec![("Accept", "application/json"), ("User-Agent", "Python-urllib/3.11")];
    for (name, value) in recorded["headers"].as_object().into_iter().flatten() {
        headers.retain(|(own, _)| !own.eq_ignore_ascii_case(name));
        headers.push((name, value.as_str().unwrap_or_default()));
    }
    let anonymous = headers.iter().any(|(name, _)| *name == "anonymous" || *name == "Authorization");
    headers.retain(|(name, _)| *name != "anonymous");
    let (method, path) = (recorded["method"].as_str().unwrap_or("GET"), recorded["path"].as_str().unwrap_or("/"));
    let answer = if anonymous {
        server.anonymous(method, path, &headers, body).await
    } else {
        server.request(method, path, &headers, body).await
    };
    let (want, got) = (normalized(&recorded["answer"], ""), normalized(&answer.json(), ""));
    let warned = answer.headers.contains_key("warning");
    if u64::from(answer.code) != recorded["status"] {
        return Err(format!("{} instead of {}: {got}", answer.code, recorded["status"]));
    }
    if matches!(step, "version" | "bad token") || (want == got && warned == recorded.get("warning").is_some()) {
        return Ok(());
    }
    Err(format!("\n  want {want}\n  got  {got}\n  warned {:?}", answer.headers.get("warning")))
}
