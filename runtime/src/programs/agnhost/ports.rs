//! Servers of single ports: `porter`, `port-forward-tester`, `tcp-reset`.

use super::Call;
use super::flags::Flag;
use super::server::{self, Received, Server};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::StatusCode;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How long `port-forward-tester` leaves a connection open after its last word, so that nothing of it is lost to a reset.
const RESET_AVOIDANCE: Duration = Duration::from_millis(500);
/// How much `port-forward-tester` sends in one piece.
const CHUNK_LIMIT_BYTES: usize = 1024 * 1024;

pub(super) const PORTER_FLAGS: &[Flag] = &[Flag::bool(
    "json-response",
    "false",
    "Responds to requests with a json response that includes the default value with the http.Request Method",
)];
pub(super) const TCP_RESET_FLAGS: &[Flag] = &[Flag::int("port", "8080", "Port number.")];

/// What a variable of the environment asks `porter` to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Tls,
    Udp,
    Sctp,
}

/// `SERVE_PORT_80` and its like: the protocol and the port.
fn served(variable: &str) -> Option<(Protocol, &str)> {
    let prefixes = [
        ("SERVE_PORT_", Protocol::Tcp),
        ("SERVE_TCP_PORT_", Protocol::Tcp),
        ("SERVE_UDP_PORT_", Protocol::Udp),
        ("SERVE_TLS_PORT_", Protocol::Tls),
        ("SERVE_SCTP_PORT_", Protocol::Sctp),
    ];
    prefixes.into_iter().find_map(|(prefix, protocol)| Some((protocol, variable.strip_prefix(prefix)?)))
}

/// Answers on each port that the environment names with the value of its variable.
pub(super) async fn porter(call: Arc<Call>) -> i32 {
    let mut serving: Vec<BoxFuture<'static, ()>> = Vec::new();
    for (variable, value) in call.env.clone() {
        match served(&variable) {
            Some((Protocol::Sctp, _)) => return call.unsupported(format!("{variable}: SCTP")).await,
            Some((Protocol::Udp, port)) => {
                serving.push(Box::pin(serve_datagrams(call.clone(), port.to_string(), value)))
            }
            Some((protocol, port)) => {
                let tls = protocol == Protocol::Tls;
                serving.push(Box::pin(serve_requests(call.clone(), port.to_string(), value, tls)));
            }
            None => {}
        }
    }
    futures::future::join_all(serving).await;
    // With every port lost it still waits.
    std::future::pending().await
}

async fn serve_requests(call: Arc<Call>, port: String, value: String, over_tls: bool) {
    let file = |variable: &str, default: &str| {
        call.env.get(variable).filter(|path| !path.is_empty()).cloned().unwrap_or_else(|| default.to_string())
    };
    let (certificate, key) = (file("CERT_FILE", "localhost.crt"), file("KEY_FILE", "localhost.key"));
    let tls = if over_tls { server::load_key_pair(&call, &certificate, &key).map(Some) } else { Ok(None) };
    let number = port.parse().map_err(|_| format!("listen tcp: lookup tcp/{port}: unknown port"));
    let listening = tls.and_then(|tls| Ok((tls, server::listen(&call, number?)?)));
    let (tls, listener) = match listening {
        Ok(ready) => ready,
        Err(error) if over_tls => {
            let files = format!("certFile={certificate:?}, keyFile={key:?}");
            return call.log(format!("tls server on port {port:?} with {files} failed: {error}")).await;
        }
        Err(error) => return call.log(format!("server on port {port:?} failed: {error}")).await,
    };
    let as_json = call.flags.is("json-response");
    let server = Server::new(call, listener, move |request: Received| {
        let reply = match as_json {
            true => {
                let body = json!({ "Method": request.method.as_str(), "Body": value }).to_string();
                server::typed(StatusCode::OK, "application/json", body)
            }
            false => server::ok(value.clone()),
        };
        async move { reply }
    });
    server.with_tls(tls).run().await;
}

async fn serve_datagrams(call: Arc<Call>, port: String, value: String) {
    let number = port.parse().map_err(|_| format!("lookup udp/{port}: unknown port"));
    match number.and_then(|number| server::listen_udp(&call, number)) {
        Ok(listener) => {
            call.log(format!("Started UDP server on port {port}")).await;
            let value = Bytes::from(value);
            server::serve_udp(listener, move |_, _| {
                let answer = value.clone();
                async move { Some(answer) }
            })
            .await;
        }
        Err(error) => call.log(format!("UDP: failed to listen on port {port}: {error}")).await,
    }
}

/// Serves one connection as the environment says: expects some bytes, and sends some.
pub(super) async fn port_forward_tester(call: Arc<Call>) -> i32 {
    let port = call.env.get("BIND_PORT").map_or("", String::as_str);
    let Ok(number) = port.parse() else {
        call.say(format!("Error resolving: lookup tcp/{port}: unknown port")).await;
        return 1;
    };
    let mut listener = match server::listen(&call, number) {
        Ok(listener) => listener,
        Err(error) => {
            call.say(format!("Error listening: {error}")).await;
            return 1;
        }
    };
    let mut stream = listener.accept().await.stream;
    call.say("Accepted client connection").await;
    let expected = call.env.get("EXPECTED_CLIENT_DATA").map_or("", String::as_str);
    if !expected.is_empty() {
        let mut received = vec![0; expected.len()];
        if let Err(error) = stream.read_exact(&mut received).await {
            let length = expected.len();
            call.say(format!("Expected to read {length} bytes from client, but got fewer instead. err={error}")).await;
            return 2;
        }
        let received = String::from_utf8_lossy(&received);
        if received != expected {
            call.say(format!("Expect to read {expected:?}, but got {received:?}. err=<nil>")).await;
            return 3;
        }
        call.say("Received expected client data").await;
    }
    let mut numbers = [0; 3];
    for (name, number) in ["CHUNKS", "CHUNK_SIZE", "CHUNK_INTERVAL"].into_iter().zip(&mut numbers) {
        let text = call.env.get(name).map_or("", String::as_str);
        match text.parse::<usize>() {
            Ok(value) => *number = value,
            Err(_) => {
                let reason = format!("strconv.Atoi: parsing {text:?}: invalid syntax");
                call.say(format!("Error parsing {name} {text:?}: {reason}")).await;
                return 1;
            }
        }
    }
    let [chunks, size, interval] = numbers;
    if size > CHUNK_LIMIT_BYTES {
        return call.unsupported(format!("CHUNK_SIZE: more than {CHUNK_LIMIT_BYTES} bytes")).await;
    }
    let chunk = vec![b'x'; size];
    for sent in 1..=chunks {
        if let Err(error) = stream.write_all(&chunk).await {
            call.say(format!("Expected to write {size} bytes from client, but wrote fewer instead. err={error}")).await;
            return 4;
        }
        if sent < chunks {
            call.world.clock.sleep(Duration::from_millis(interval as u64)).await;
        }
    }
    call.say("Shutting down connection").await;
    let shut = stream.shutdown().await;
    tracing::trace!(?shut, "simulated connection half closed");
    call.world.clock.sleep(RESET_AVOIDANCE).await;
    call.say("Done").await;
    0
}

/// Closes every connection after its first byte. A stream that is dropped with bytes unread is what a reset is here.
pub(super) async fn tcp_reset(call: Arc<Call>) -> i32 {
    let port = call.flags.port("port").ok_or_else(|| "listen tcp: invalid port".to_string());
    let (port, mut listener) = match port.and_then(|port| Ok((port, server::listen(&call, port)?))) {
        Ok(ready) => ready,
        Err(error) => return call.fatal(format!("Error from net.Listen(): {error}")).await,
    };
    call.log(format!("Serving on port {port}.")).await;
    let serving = async {
        loop {
            let mut connection = listener.accept().await;
            let read = connection.stream.read(&mut [0; 1]).await;
            tracing::trace!(?read, "simulated connection reset");
            call.log(format!("TCP request from {}", connection.peer)).await;
        }
    };
    tokio::select! {
        biased;
        _ = call.signalled() => {}
        () = serving => {}
    }
    call.log("Shutting down after receiving signal: terminated.").await;
    call.log("Awaiting pod deletion.").await;
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_name_protocols_and_ports() {
        assert_eq!(served("SERVE_PORT_80"), Some((Protocol::Tcp, "80")));
        assert_eq!(served("SERVE_TLS_PORT_443"), Some((Protocol::Tls, "443")));
        assert_eq!(served("SERVE_SCTP_PORT_9"), Some((Protocol::Sctp, "9")));
        assert_eq!(served("PATH"), None);
    }
}
