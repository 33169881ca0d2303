//! Small servers: `serve-hostname`, `test-webserver`, `liveness`, `fake-gitserver`.

use super::flags::Flag;
use super::server::{self, Received, Reply, Server};
use super::{Call, go_format};
use crate::network::Listener;
use http::header::{CONNECTION, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use minik8s_cri::{FileKind, normalize};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// How long `liveness` is alive.
const ALIVE: Duration = Duration::from_secs(10);
/// How long `serve-hostname` still serves after SIGTERM, so that load balancers hear of its end first.
const AWAIT_DELETION: Duration = Duration::from_secs(60);

pub(super) const SERVE_HOSTNAME_FLAGS: &[Flag] = &[
    Flag::bool("tcp", "false", "Serve raw over TCP."),
    Flag::bool("udp", "false", "Serve raw over UDP."),
    Flag::bool("http", "true", "Serve HTTP."),
    Flag::bool("close", "false", "Close connection per each HTTP request."),
    Flag::int("port", "9376", "Port number."),
];
pub(super) const TEST_WEBSERVER_FLAGS: &[Flag] = &[Flag::int("port", "80", "Port number.")];

/// Answers with the host's name, over HTTP, or raw over TCP and UDP.
pub(super) async fn serve_hostname(call: Arc<Call>) -> i32 {
    let (tcp, udp, http) = (call.flags.is("tcp"), call.flags.is("udp"), call.flags.is("http"));
    if http && (tcp || udp) {
        return call.fatal("Can't server TCP/UDP mode and HTTP mode at the same time").await;
    }
    let Some(port) = call.flags.port("port") else {
        return call.fatal(format!("listen tcp: address {}: invalid port", call.flags.text("port"))).await;
    };
    let listening = match tcp || http {
        true => server::listen(&call, port).map(Some),
        false => Ok(None),
    };
    let receiving = match udp {
        true => server::listen_udp(&call, port).map(Some),
        false => Ok(None),
    };
    let (listener, receiver) = match (listening, receiving) {
        (Ok(listener), Ok(receiver)) => (listener, receiver),
        (Err(error), _) => return call.fatal(format!("Error from net.Listen(): {error}")).await,
        (_, Err(error)) => return call.fatal(format!("Error from ListenUDP(): {error}")).await,
    };
    call.log(format!("Serving on port {port}.")).await;
    let streams = async {
        match listener {
            Some(listener) if http => serve_hostname_http(&call, listener).await,
            Some(listener) => serve_hostname_tcp(&call, listener).await,
            None => std::future::pending().await,
        }
    };
    let datagrams = async {
        let Some(receiver) = receiver else { return std::future::pending().await };
        let answering = call.clone();
        server::serve_udp(receiver, move |_, peer| {
            let call = answering.clone();
            async move {
                call.log(format!("UDP request from {peer}")).await;
                Some(call.world.hostname.clone().into())
            }
        })
        .await
    };
    let stopped = async {
        call.signalled().await;
        call.log("Shutting down after receiving signal: terminated.").await;
        call.log("Awaiting pod deletion.").await;
        call.world.clock.sleep(AWAIT_DELETION).await;
    };
    tokio::select! {
        biased;
        () = stopped => {}
        () = streams => {}
        () = datagrams => {}
    }
    0
}

async fn serve_hostname_http(call: &Arc<Call>, listener: Listener) {
    let answering = call.clone();
    let close = call.flags.is("close");
    let server = Server::new(call.clone(), listener, move |request: Received| {
        let call = answering.clone();
        async move {
            call.log(format!("HTTP request from {}", request.peer)).await;
            let mut reply = server::ok(call.world.hostname.clone());
            if close {
                reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            reply
        }
    });
    server.run().await;
}

async fn serve_hostname_tcp(call: &Call, mut listener: Listener) {
    loop {
        let mut connection = listener.accept().await;
        call.log(format!("TCP request from {}", connection.peer)).await;
        let written = connection.stream.write_all(call.world.hostname.as_bytes()).await;
        tracing::trace!(?written, "host name told");
    }
}

/// Serves all files of the container.
pub(super) async fn test_webserver(call: Arc<Call>) -> i32 {
    const HEADERS: [(&str, &str); 5] = [
        ("cache-control", "private"),
        ("access-control-allow-origin", "*"),
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-methods", "GET, POST, OPTIONS"),
        (
            "access-control-allow-headers",
            "DNT,X-Mx-ReqToken,Keep-Alive,User-Agent,X-Requested-With,Cache-Control,Content-Type",
        ),
    ];
    let answering = call.clone();
    serve_port(call.clone(), call.flags.port("port"), move |request: Received| {
        let call = answering.clone();
        async move {
            let mut reply = file(&call, &request);
            for (name, value) in HEADERS {
                reply.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            reply
        }
    })
    .await
}

/// A file, or a directory's index or list (`http.FileServer`).
fn file(call: &Call, request: &Received) -> Reply {
    let fs = &call.world.fs;
    let mut path = normalize(&request.path);
    let Ok(mut found) = fs.metadata(&path) else { return server::not_found() };
    if request.method != Method::GET && request.method != Method::HEAD {
        return server::error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    }
    if found.kind == FileKind::Directory {
        if !request.path.ends_with('/') {
            let name = path.rsplit('/').next().unwrap_or_default();
            return server::redirect(request, &format!("{name}/"), StatusCode::MOVED_PERMANENTLY);
        }
        let index = format!("{}/index.html", path.trim_end_matches('/'));
        match fs.metadata(&index) {
            Ok(index_found) => (path, found) = (index, index_found),
            Err(_) => return directory(call, &path),
        }
    }
    match fs.read(&path) {
        Ok(content) if found.kind == FileKind::File => server::typed(StatusCode::OK, content_type(&path), content),
        _ => server::error(StatusCode::INTERNAL_SERVER_ERROR, "500 Internal Server Error"),
    }
}

fn directory(call: &Call, path: &str) -> Reply {
    let Ok(entries) = call.world.fs.list(path) else {
        return server::error(StatusCode::INTERNAL_SERVER_ERROR, "Error reading directory");
    };
    let row = |entry: &minik8s_cri::DirEntry| {
        let slash = if entry.kind == FileKind::Directory { "/" } else { "" };
        format!("<a href=\"{0}{slash}\">{0}{slash}</a>\n", entry.name)
    };
    let rows: String = entries.iter().map(row).collect();
    let head = "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n";
    server::typed(StatusCode::OK, "text/html; charset=utf-8", format!("{head}<pre>\n{rows}</pre>\n"))
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('/').next().unwrap_or_default().rsplit_once('.').map(|(_, extension)| extension) {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("json") => "application/json",
        Some("xml") => "text/xml; charset=utf-8",
        _ => "text/plain; charset=utf-8",
    }
}

/// Is healthy for a while after its start.
pub(super) async fn liveness(call: Arc<Call>) -> i32 {
    let started = call.world.clock.monotonic();
    let answering = call.clone();
    serve_port(call, Some(8080), move |request: Received| {
        let age = answering.world.clock.monotonic().saturating_sub(started);
        let reply = match request.path.as_str() {
            "/started" => server::ok(go_format::duration(age)),
            "/healthz" if age > ALIVE => {
                server::text(StatusCode::INTERNAL_SERVER_ERROR, format!("error: {}", age.as_secs_f64()))
            }
            "/healthz" => server::ok("ok"),
            "/redirect" => {
                let location = server::decode(&request.query("loc"), true);
                server::redirect(&request, &location, StatusCode::FOUND)
            }
            _ => server::not_found(),
        };
        async move { reply }
    })
    .await
}

/// Answers everything with one sentence.
pub(super) async fn fake_gitserver(call: Arc<Call>) -> i32 {
    serve_port(call, Some(8000), |_| async { server::ok("I am a fake git server") }).await
}

/// Serves HTTP on a port for ever; a port that cannot be listened on ends the program.
pub(super) async fn serve_port<F, Fut>(call: Arc<Call>, port: Option<u16>, answer: F) -> i32
where
    F: Fn(Received) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Reply> + Send + 'static,
{
    let listening = port.ok_or_else(|| "listen tcp: invalid port".to_string());
    match listening.and_then(|port| server::listen(&call, port)) {
        Ok(listener) => Server::new(call, listener, answer).run().await,
        Err(error) => call.fatal(error).await,
    }
}
