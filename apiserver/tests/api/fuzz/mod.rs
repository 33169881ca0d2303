//! Requests that nobody would send, by the thousands: half of them as the served OpenAPI says, half spoiled.
//!
//! No answer is a 5xx that is the server's own fault, nothing panics, nothing hangs. `MINIK8S_FUZZ_REQUESTS=100000` asks for more of
//! them, `MINIK8S_FUZZ_SEED` for others; the same seed sends the same requests.

mod bodies;
mod requests;

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt;
use minik8s_clock::Random;
use serde_json::{Value, json};

use crate::server::TestServer;
use requests::{Operations, Request};

/// In CI.
const REQUESTS: u64 = 3_000;
/// Of the server's clock. No request takes as long, watches end before.
const HANGS: Duration = Duration::from_secs(3600);
/// What is read of an answer that need not end.
const FRAMES: usize = 3;

fn asked_for(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |value| value.parse().expect("a number"))
}

#[tokio::test]
async fn whatever_is_asked_is_answered() {
    let seed = asked_for("MINIK8S_FUZZ_SEED", 1);
    let requests = asked_for("MINIK8S_FUZZ_REQUESTS", REQUESTS);
    let server = TestServer::start().await;
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default" } });
    server.post("/api/v1/namespaces/default/serviceaccounts", &account).await.expect(201);
    let operations = Operations::read(&server).await;
    let random = Random::seeded(seed);

    let mut codes = [0u64; 6];
    for number in 0..requests {
        let request = operations.request(&random);
        let (code, body) = answer(&server, number, &request).await;
        assert!(code < 500 || is_others_fault(&body), "request {number} of seed {seed}: {code} {body}\n{request}");
        codes[usize::from(code / 100)] += 1;
    }
    println!("{requests} requests of seed {seed}, answers by the first digit of their code: {codes:?}");
    assert!(codes[2] > requests / 6, "too few get further than the front door: {codes:?}");
    assert_eq!(server.get("/readyz").await.bytes, "ok");
    server.get("/api/v1/namespaces").await.expect(200);
}

/// Code and text of the answer, of which only the beginning is read where it is a stream.
async fn answer(server: &TestServer, number: u64, request: &Request) -> (u16, String) {
    let headers = request.headers();
    let sent = server.send_as_admin(&request.method, &request.uri, &headers, request.body.clone());
    let Some(response) = server.within(HANGS, sent).await else { panic!("request {number} hangs: {request}") };
    let code = response.status().as_u16();
    if request.is_stream() && code < 500 {
        return (code, String::new());
    }
    let Some(body) = server.within(HANGS, read(response)).await else { panic!("request {number} hangs: {request}") };
    (code, String::from_utf8_lossy(&body).into_owned())
}

async fn read(mut response: Response<axum::body::Body>) -> Bytes {
    let mut whole = Vec::new();
    let mut frames = 0;
    while let Some(frame) = response.body_mut().frame().await {
        if let Ok(data) = frame.expect("a frame").into_data()
            && frames < FRAMES
        {
            whole.extend_from_slice(&data);
            frames += 1;
        }
    }
    whole.into()
}

/// Whether the answer says that somebody whom a request named (a webhook, an API server behind this one, a node) did not answer, or
/// that the asker wants a future revision: a gateway's words, and right.
fn is_others_fault(body: &str) -> bool {
    // A Status in YAML or protobuf, or another server's own words, are searched as a whole.
    let status = serde_json::from_str::<Value>(body).unwrap_or_default();
    let message = status["message"].as_str().unwrap_or(body);
    [
        "service unavailable",
        "Too large resource version",
        "no endpoints available",
        "failed calling webhook",
        "error trying to reach service",
        "dial tcp",
        "the server is currently unable",
    ]
    .iter()
    .any(|said| message.contains(said))
}
