//! Bounds (`docs/bounds.md`): who goes beyond one is told so or cut off, and everybody else is served as before.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use minik8s_apiserver::server::Limits;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::connections::{Identity, Listening, get};
use crate::server::TestServer;

/// A little more than anything here takes.
const LONG: Duration = Duration::from_secs(300);

fn master(listening: &Listening) -> Option<Identity> {
    listening.client("admin", Some("system:masters"))
}

/// That the server serves others.
async fn serves(listening: &Listening) {
    assert_eq!(listening.http1(master(listening), get("/api/v1/namespaces")).await.status(), 200);
}

/// What the server says until it closes the connection, while time passes.
async fn until_closed(listening: &Listening, stream: &mut TlsStream<TcpStream>) -> String {
    let mut said = Vec::new();
    // TLS has a word for a clean end, which a client that is cut off does not hear.
    let _ = listening.server.in_time(stream.read_to_end(&mut said)).await;
    String::from_utf8_lossy(&said).into_owned()
}

async fn pass(server: &TestServer, time: Duration) {
    let clock = server.server.clock().clone();
    server.in_time(clock.sleep(time)).await;
}

/// How long, in virtual time, `happens` takes.
async fn timed(listening: &Listening, happens: impl Future<Output = String>) -> (u64, String) {
    let clock = listening.server.server.clock().clone();
    let began = clock.monotonic();
    let said = happens.await;
    ((clock.monotonic() - began).as_secs(), said)
}

#[tokio::test]
async fn who_does_not_set_up_tls_is_cut_off() {
    let listening = Listening::with_limits(Limits::default()).await;
    let mut silent = TcpStream::connect(listening.address).await.unwrap();
    serves(&listening).await;
    let mut said = Vec::new();
    let _ = listening.server.in_time(silent.read_to_end(&mut said)).await;
    assert!(said.is_empty());
    serves(&listening).await;
}

#[tokio::test]
async fn headers_that_never_end_are_cut_off() {
    let listening = Listening::with_limits(Limits::default()).await;
    for protocol in [&b"http/1.1"[..], b"h2"] {
        let mut slow = listening.connect(master(&listening), protocol).await;
        let beginning = if protocol == b"h2" { "PRI * HTTP/2.0\r\n" } else { "GET /api HTTP/1.1\r\nHost: x\r\nX-A: " };
        slow.write_all(beginning.as_bytes()).await.unwrap();
        serves(&listening).await;
        let (took, said) = timed(&listening, until_closed(&listening, &mut slow)).await;
        assert!(!said.contains("HTTP/1.1") && (30..=60).contains(&took), "after {took} s: {said:?}");
    }
    serves(&listening).await;
}

#[tokio::test]
async fn a_connection_that_rests_is_closed() {
    let listening = Listening::with_limits(Limits::default()).await;
    let mut resting = listening.connect(master(&listening), b"http/1.1").await;
    resting.write_all(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let (took, said) = timed(&listening, until_closed(&listening, &mut resting)).await;
    assert!(said.starts_with("HTTP/1.1 200") && (60..=200).contains(&took), "after {took} s: {said:?}");
    serves(&listening).await;
}

#[tokio::test]
async fn a_watch_may_rest() {
    let listening = Listening::with_limits(Limits::default()).await;
    let mut watch = listening.connect(master(&listening), b"http/1.1").await;
    let request = b"GET /api/v1/namespaces?watch=1&timeoutSeconds=600 HTTP/1.1\r\nHost: x\r\n\r\n";
    watch.write_all(request).await.unwrap();
    let (took, said) = timed(&listening, until_closed(&listening, &mut watch)).await;
    assert!(said.contains("ADDED") && (600..=900).contains(&took), "after {took} s: {said:?}");
}

#[tokio::test]
async fn a_body_that_never_ends_times_out() {
    let listening = Listening::with_limits(Limits::default()).await;
    let mut slow = listening.connect(master(&listening), b"http/1.1").await;
    let head = "POST /api/v1/namespaces HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\
                Expect: 100-continue\r\n\r\n";
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    slow.read_exact(&mut go_on).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&go_on), "HTTP/1.1 100 Continue\r\n\r\n");
    slow.write_all(b"{\"kind\":").await.unwrap();
    serves(&listening).await;
    let (took, said) = timed(&listening, until_closed(&listening, &mut slow)).await;
    assert!(said.starts_with("HTTP/1.1 504") && (55..=200).contains(&took), "after {took} s: {said:?}");
    assert!(said.contains(r#""reason":"Timeout""#) && said.contains("allotted timeout"), "{said:?}");
    serves(&listening).await;
}

#[tokio::test]
async fn who_does_not_read_an_answer_is_cut_off() {
    /// So much that it does not fit into what lies between server and client.
    const MAPS: usize = 20;
    let listening = Listening::with_limits(Limits::default()).await;
    let text = "x".repeat(1_000_000);
    for number in 0..MAPS {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("m{number}")}, "data": {"a": text}});
        listening.server.post("/api/v1/namespaces/default/configmaps", &map).await.expect(201);
    }
    let mut slow = listening.connect(master(&listening), b"http/1.1").await;
    slow.write_all(b"GET /api/v1/configmaps HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut status = [0; 12];
    slow.read_exact(&mut status).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&status), "HTTP/1.1 200");
    pass(&listening.server, LONG).await;
    let rest = until_closed(&listening, &mut slow).await;
    assert!(rest.len() < MAPS * text.len(), "the whole answer came: {} bytes", rest.len());
    serves(&listening).await;
}

/// The first line of the answer to a request as it stands.
async fn answer_to(listening: &Listening, request: &str) -> String {
    let mut stream = listening.connect(master(listening), b"http/1.1").await;
    // The server answers before it has read everything, and may close while we still write.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") && stream.read_buf(&mut line).await.is_ok_and(|read| read > 0) {
        line.truncate(line.windows(2).position(|end| end == b"\r\n").map_or(line.len(), |at| at + 2));
    }
    String::from_utf8_lossy(&line).trim().to_owned()
}

#[tokio::test]
async fn headers_and_addresses_have_a_size() {
    let listening = Listening::with_limits(Limits::default()).await;
    let too_large = "HTTP/1.1 431 Request Header Fields Too Large";
    let request = |path: &str, headers: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    assert_eq!(answer_to(&listening, &request("/version", "X-A: 1\r\n")).await, "HTTP/1.1 200 OK");
    let long = format!("X-A: {}\r\n", "a".repeat(200 << 10));
    assert_eq!(answer_to(&listening, &request("/version", &long)).await, too_large);
    let many: String = (0..1_100).map(|number| format!("X-{number}: 1\r\n")).collect();
    assert_eq!(answer_to(&listening, &request("/version", &many)).await, too_large);
    let path = format!("/version?{}", "a".repeat(70 << 10));
    assert_eq!(answer_to(&listening, &request(&path, "")).await, "HTTP/1.1 414 URI Too Long");

    let stream = TokioIo::new(listening.connect(master(&listening), b"h2").await);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let mut asked = http::Request::get("https://x/version").body(Empty::<Bytes>::new()).unwrap();
    for number in 0..20 {
        let name = http::HeaderName::from_bytes(format!("x-{number}").as_bytes()).unwrap();
        asked.headers_mut().insert(name, "a".repeat(10 << 10).parse().unwrap());
    }
    assert_eq!(sender.send_request(asked).await.unwrap().status(), 431);
    serves(&listening).await;
}

#[tokio::test]
async fn a_connection_carries_so_many_requests_at_once() {
    /// `MAX_STREAMS` of `serve.rs`.
    const STREAMS: usize = 1_000;
    let listening = Listening::with_limits(Limits::default()).await;
    let stream = TokioIo::new(listening.connect(master(&listening), b"h2").await);
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let watch = || {
        let mut sender = sender.clone();
        let asked = http::Request::get("https://x/api/v1/pods?watch=1").body(Empty::<Bytes>::new()).unwrap();
        tokio::spawn(async move { sender.send_request(asked).await.unwrap() })
    };
    let mut open = Vec::new();
    for asked in (0..STREAMS).map(|_| watch()).collect::<Vec<_>>() {
        open.push(asked.await.unwrap());
    }
    let waiting = watch();
    serves(&listening).await;
    assert!(!waiting.is_finished(), "one too many waits in the client");
    open.pop();
    assert_eq!(waiting.await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_token_has_a_size() {
    let server = TestServer::start().await;
    let long = format!("Bearer {}", "a".repeat(20 << 10));
    let refused = server.anonymous("GET", "/api/v1/pods", &[("authorization", &long)], "").await;
    assert_eq!(refused.code, 401);
}

#[tokio::test]
async fn who_asks_for_the_future_is_told_when_it_does_not_come() {
    let server = TestServer::start().await;
    let refused = server.in_time(server.get("/api/v1/pods?resourceVersion=1000000")).await;
    assert_eq!(refused.code, 504);
    assert!(refused.message().starts_with("Timeout: Too large resource version: 1000000, current: "), "{refused:?}");
}

#[tokio::test]
async fn a_connection_too_many_is_dropped() {
    let listening = Listening::with_limits(Limits { connections: 1, ..Limits::default() }).await;
    let first = listening.connect(master(&listening), b"http/1.1").await;
    assert!(listening.try_connect(master(&listening), b"http/1.1").await.is_err());
    drop(first);
    // The server hears of it a moment later.
    while listening.try_connect(master(&listening), b"http/1.1").await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_watch_too_many_is_told_to_come_back() {
    let server = TestServer::with(|config| config.limits.watches = 2).await;
    let mut watches =
        vec![server.watch("/api/v1/namespaces?watch=1").await, server.watch("/api/v1/pods?watch=1").await];
    let refused = server.get("/api/v1/pods?watch=1").await;
    assert_eq!((refused.code, refused.headers["retry-after"].to_str().unwrap()), (429, "1"));
    assert_eq!(refused.message(), "Too many requests, please try again later.");
    assert!(watches[0].brief().await.starts_with("ADDED"));
    watches.pop();
    let mut again = server.watch("/api/v1/namespaces?watch=1").await;
    assert!(again.brief().await.starts_with("ADDED"));
}

#[tokio::test]
async fn a_tunnel_too_many_is_told_to_come_back() {
    let listening = Listening::with_limits(Limits { tunnels: 1, ..Limits::default() }).await;
    listening.server.namespace("ns").await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "nginx"}]}});
    listening.server.post("/api/v1/namespaces/ns/pods", &pod).await.expect(201);
    let mut exec = get("/api/v1/namespaces/ns/pods/p/exec?command=sh&stdout=true");
    exec.headers_mut().insert(UPGRADE, "shout".parse().unwrap());
    exec.headers_mut().insert(CONNECTION, "Upgrade".parse().unwrap());
    let mut switched = listening.http1(master(&listening), exec).await;
    assert_eq!(switched.status(), 101);
    let mut stream = TokioIo::new(hyper::upgrade::on(&mut switched).await.unwrap());

    let log = "/api/v1/namespaces/ns/pods/p/log";
    let refused = listening.server.get(log).await;
    assert_eq!((refused.code, refused.headers["retry-after"].to_str().unwrap()), (429, "1"));
    serves(&listening).await;
    stream.write_all(b"hello").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "HELLO", "the one that is there goes on");
    drop((stream, switched));
    // The server hears of it a moment later.
    let mut answer = listening.server.get(log).await;
    while answer.code == 429 {
        tokio::task::yield_now().await;
        answer = listening.server.get(log).await;
    }
    assert_eq!(answer.code, 200);
}
