//! One attempt of a probe.

use std::io;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Empty, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::{Container, GRPCAction, HTTPGetAction, Probe};
use minik8s_cri::Code;
use minik8s_streaming::tls::connect_to_any;
use minik8s_streaming::{BoxedStream, http_over};

use crate::config::KubeletConfig;
use crate::hooks::{host_of, port_number};

/// How much of an answer is looked at (`maxRespBodyLength`).
const BODY_MAX_BYTES: usize = 10 << 10;
/// How much of a command's output is looked at.
const OUTPUT_MAX_BYTES: usize = 10 << 10;

/// What is probed.
pub(super) struct Target {
    /// The container, in the runtime's words.
    pub id: String,
    /// The container, in the spec's words.
    pub container: Container,
    /// The pod's address.
    pub pod_ip: String,
}

/// What came of it.
pub(super) enum Outcome {
    /// It works.
    Success,
    /// It does not; what it said.
    Failure(String),
    /// It could not be found out.
    Error(String),
}

pub(super) async fn attempt(config: &KubeletConfig, probe: &Probe, target: &Target, timeout: Duration) -> Outcome {
    if let Some(exec) = &probe.exec {
        return exec_probe(config, exec.command.clone().unwrap_or_default(), target, timeout).await;
    }
    if let Some(action) = &probe.http_get {
        let request = http_get(config, &target.container, action, &target.pod_ip);
        return match config.clock.timeout(timeout, request).await {
            Ok(Ok(())) => Outcome::Success,
            Ok(Err(error)) => Outcome::Failure(error),
            Err(_) => Outcome::Failure(format!(
                "Get \"{}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
                url(&target.container, action, &target.pod_ip).unwrap_or_default()
            )),
        };
    }
    if let Some(action) = &probe.tcp_socket {
        let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(&target.pod_ip);
        let port = match port_number(&target.container, &action.port) {
            Ok(port) => port,
            Err(error) => return Outcome::Error(error),
        };
        return match config.clock.timeout(timeout, dial(config, host, port)).await {
            Ok(Ok(_)) => Outcome::Success,
            Ok(Err(error)) => Outcome::Failure(error),
            Err(_) => Outcome::Failure(format!("dial tcp {}: i/o timeout", join(host, port))),
        };
    }
    if let Some(action) = &probe.grpc {
        return grpc_probe(config, action, &target.pod_ip, timeout).await;
    }
    Outcome::Error("missing probe handler".to_owned())
}

async fn exec_probe(config: &KubeletConfig, command: Vec<String>, target: &Target, timeout: Duration) -> Outcome {
    let words = command.join(" ");
    let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
    let timed_out = || {
        Outcome::Failure(format!("command timed out: \"{words}\" timed out after {}", crate::words::duration(timeout)))
    };
    let run = config.cri.exec_sync(&target.id, command, seconds);
    match config.clock.timeout(timeout, run).await {
        Err(_) => timed_out(),
        Ok(Ok(done)) if done.exit_code == 0 => Outcome::Success,
        Ok(Ok(done)) => {
            let mut output = done.stdout;
            output.extend_from_slice(&done.stderr);
            output.truncate(OUTPUT_MAX_BYTES);
            Outcome::Failure(String::from_utf8_lossy(&output).into_owned())
        }
        Ok(Err(minik8s_cri::Error::Rpc { code: Code::DeadlineExceeded, .. })) => timed_out(),
        Ok(Err(error)) => Outcome::Error(error.to_string()),
    }
}

fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

async fn dial(config: &KubeletConfig, host: &str, port: u16) -> Result<BoxedStream, String> {
    let words = |error: io::Error| match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => error.to_string(),
    };
    let connected = config.network.dial(host, port).await;
    connected.map_err(|error| format!("dial tcp {}: {}", join(host, port), words(error)))
}

fn url(container: &Container, action: &HTTPGetAction, pod_ip: &str) -> Result<String, String> {
    let scheme = action.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
    let port = port_number(container, &action.port)?;
    let path = action.path.as_deref().unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    Ok(format!("{scheme}://{}{slash}{path}", join(host_of(action, pod_ip), port)))
}

/// Go's words for a handshake that failed.
fn tls_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::InvalidData => "http: server gave HTTP response to HTTPS client".to_owned(),
        io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        _ => error.to_string(),
    }
}

/// Sends an HTTP GET; any status from 200 to 399 is a success.
pub(crate) async fn http_get(
    config: &KubeletConfig,
    container: &Container,
    action: &HTTPGetAction,
    pod_ip: &str,
) -> Result<(), String> {
    let url = url(container, action, pod_ip)?;
    let port = port_number(container, &action.port)?;
    let failed = |why: String| format!("Get {}: {why}", crate::words::quoted(&url));
    let mut request = http::Request::get(&url)
        .header(http::header::USER_AGENT, "kube-probe/1.37")
        .header(http::header::ACCEPT, "*/*")
        .header(http::header::CONNECTION, "close");
    for header in action.http_headers.iter().flatten() {
        request = request.header(&header.name, &header.value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| failed(error.to_string()))?;
    let host = host_of(action, pod_ip);
    let mut stream = dial(config, host, port).await.map_err(failed)?;
    if url.starts_with("https:") {
        // Nobody vouches for the certificates of pods.
        stream = connect_to_any(stream, host).await.map_err(|error| failed(tls_words(&error)))?;
    }
    let response = http_over(stream, request).await.map_err(|error| failed(error.to_string()))?;
    let status = response.status();
    // The body is read so that the server sees a client that listens; what it says does not matter.
    let _ = Limited::new(response.into_body(), BODY_MAX_BYTES).collect().await;
    if (200..400).contains(&status.as_u16()) {
        Ok(())
    } else {
        Err(format!("HTTP probe failed with statuscode: {}", status.as_u16()))
    }
}

/// Asks `grpc.health.v1.Health/Check`, which takes one string and answers one number.
async fn grpc_probe(config: &KubeletConfig, action: &GRPCAction, host: &str, timeout: Duration) -> Outcome {
    let Ok(port) = u16::try_from(action.port) else {
        return Outcome::Error(format!("invalid port number: {}", action.port));
    };
    let address = join(host, port);
    let check = async {
        let stream = dial(config, host, port).await?;
        health_check(stream, &address, action.service.as_deref().unwrap_or_default()).await
    };
    let failed = |why: &str| {
        let within = crate::words::duration(timeout);
        Outcome::Failure(format!("timeout: failed to connect service \"{address}\" within {within}: {why}"))
    };
    match config.clock.timeout(timeout, check).await {
        Err(_) => failed("context deadline exceeded"),
        Ok(Err(error)) => failed(&error),
        Ok(Ok(1)) => Outcome::Success,
        Ok(Ok(status)) => {
            let word = match status {
                2 => "NOT_SERVING",
                3 => "SERVICE_UNKNOWN",
                _ => "UNKNOWN",
            };
            Outcome::Failure(format!("service unhealthy (responded with \"{word}\")"))
        }
    }
}

async fn health_check(stream: BoxedStream, address: &str, service: &str) -> Result<u8, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(|error| text(&error))?;
    let driver = tokio::spawn(connection);
    let mut message = BytesMut::new();
    if !service.is_empty() {
        let length = u8::try_from(service.len()).map_err(|_| "the service's name is too long".to_owned())?;
        message.put_slice(&[0x0a, length]);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(&message);
    let request = http::Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header(http::header::CONTENT_TYPE, "application/grpc")
        .header(http::header::TE, "trailers")
        .body(Full::new(frame.freeze()))
        .map_err(|error| text(&error))?;
    let response = sender.send_request(request).await.map_err(|error| text(&error))?;
    let body = Limited::new(response.into_body(), BODY_MAX_BYTES).collect().await;
    driver.abort();
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    // One frame of five header bytes, then field 1 as a varint; a status of 0 is left out.
    match body.get(5..) {
        Some([0x08, status, ..]) => Ok(*status),
        Some(_) => Ok(0),
        None => Err("the server sent no answer".to_owned()),
    }
}
