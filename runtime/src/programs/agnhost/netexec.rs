//! `netexec`: a server with many answers, over HTTP or HTTPS and over UDP.

use super::flags::Flag;
use super::server::{self, Received, Reply, Server};
use super::{Call, client, go_format};
use crate::process::{self, Capture, Input, Output, Signal};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use minik8s_clock::Watched;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long `/dial` waits for an answer.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// How often `/dial` may be told to dial.
const DIAL_LIMIT: i64 = 10_000;
/// Where `/upload` puts files.
const UPLOADS: &str = "/uploads";
const SHELL: &str = "/bin/sh";

pub(super) const FLAGS: &[Flag] = &[
    Flag::int("http-port", "8080", "HTTP Listen Port"),
    Flag::string(
        "tls-cert-file",
        "",
        "File containing an x509 certificate for HTTPS. (CA cert, if any, concatenated after server cert)",
    ),
    Flag::string("tls-private-key-file", "", "File containing an x509 private key matching --tls-cert-file"),
    Flag::int("udp-port", "8081", "UDP Listen Port"),
    Flag::int("sctp-port", "-1", "SCTP Listen Port"),
    Flag::string(
        "http-override",
        "",
        "Override the HTTP handler to always respond as if it were a GET with this path & params",
    ),
    Flag::string("udp-listen-addresses", "", "A comma separated list of ip addresses the udp servers listen from"),
    Flag::int("delay-shutdown", "0", "Number of seconds to delay shutdown when receiving SIGTERM."),
];

/// How the server was asked to end.
#[derive(Debug, Clone, Copy)]
struct Shutdown {
    code: i32,
    /// How long requests under way may take; zero ends at once.
    timeout: Duration,
}

struct NetExec {
    call: Arc<Call>,
    http_port: u16,
    /// Whether the UDP server runs.
    ready: AtomicBool,
    shutdown: Watched<Option<Shutdown>>,
}

/// Serves until SIGTERM, or until a request ends it.
pub(super) async fn run(call: Arc<Call>) -> i32 {
    let flags = &call.flags;
    if flags.number("sctp-port") != -1 {
        return call.unsupported("--sctp-port: SCTP").await;
    }
    let addresses = flags.text("udp-listen-addresses").split(',').filter(|address| !address.is_empty());
    if let Some(wrong) = addresses.into_iter().find(|address| address.parse::<IpAddr>().is_err()) {
        return call.fatal(format!("parseAddress: invalid address {wrong}")).await;
    }
    let Some(http_port) = flags.port("http-port") else {
        return call.fatal(format!("listen tcp: address {}: invalid port", flags.text("http-port"))).await;
    };
    let ready = AtomicBool::new(false);
    let state = Arc::new(NetExec { call: call.clone(), http_port, ready, shutdown: Watched::new(None) });
    let receiver = match flags.number("udp-port") {
        -1 => None,
        port => match u16::try_from(port).map_err(|_| "invalid port".to_string()) {
            Ok(port) => match server::listen_udp(&call, port) {
                Ok(receiver) => {
                    call.log(format!("Started UDP server on port  {port}")).await;
                    state.ready.store(true, Ordering::Relaxed);
                    Some(receiver)
                }
                Err(error) => return failed_udp(&call, port.into(), &error).await,
            },
            Err(error) => return failed_udp(&call, port, &error).await,
        },
    };
    let datagrams = async {
        let Some(receiver) = receiver else { return std::future::pending().await };
        let answering = state.clone();
        server::serve_udp(receiver, move |datagram, peer| {
            let state = answering.clone();
            async move { state.answer_datagram(&datagram, peer).await }
        })
        .await
    };
    tokio::select! {
        biased;
        () = terminated(&call) => 0,
        code = serve_http(state.clone()) => code,
        () = datagrams => 0,
    }
}

async fn failed_udp(call: &Call, port: i64, error: &str) -> i32 {
    let detail = format!("failed to create listener for UDP address :{port}");
    call.fatal(format!("Error occurred: {detail}:{error}")).await
}

async fn terminated(call: &Call) {
    call.signalled().await;
    if let Ok(seconds @ 1..) = u64::try_from(call.flags.number("delay-shutdown")) {
        call.log(format!("Sleeping {seconds} seconds before terminating...")).await;
        call.world.clock.sleep(Duration::from_secs(seconds)).await;
    }
}

async fn serve_http(state: Arc<NetExec>) -> i32 {
    let call = state.call.clone();
    let (certificate, key) = (call.flags.text("tls-cert-file"), call.flags.text("tls-private-key-file"));
    let tls = match certificate.is_empty() {
        true => None,
        false => match server::load_key_pair(&call, certificate, key) {
            Ok(tls) => Some(tls),
            Err(error) => return call.fatal(error).await,
        },
    };
    call.log(format!("Started HTTP server on port {}", state.http_port)).await;
    let listener = match server::listen(&call, state.http_port) {
        Ok(listener) => listener,
        Err(error) => return call.fatal(error).await,
    };
    let answering = state.clone();
    let server = Server::new(call.clone(), listener, move |request| {
        let state = answering.clone();
        async move { state.answer_overridden(request).await }
    });
    let requested = async {
        let mut watcher = state.shutdown.watch();
        match watcher.wait_for(Option::is_some).await {
            Ok(Some(shutdown)) => shutdown,
            // The sender lives as long as this server.
            _ => std::future::pending().await,
        }
    };
    let (sender, asked) = tokio::sync::oneshot::channel::<()>();
    let served = server.with_tls(tls).run_until(async { asked.await.unwrap_or_default() });
    let ended = async {
        let shutdown = requested.await;
        // The server may have ended by itself.
        let _stopping = sender.send(());
        call.world.clock.sleep(shutdown.timeout).await;
        shutdown.code
    };
    tokio::pin!(ended);
    tokio::select! {
        biased;
        code = &mut ended => code,
        () = served => match state.shutdown.get() {
            Some(Shutdown { code, .. }) => {
                call.log("Graceful shutdown completed with: <nil>").await;
                code
            }
            None => 0,
        },
    }
}

impl NetExec {
    async fn answer_overridden(&self, request: Received) -> Reply {
        let path = self.call.flags.text("http-override");
        if path.is_empty() {
            return self.answer(request).await;
        }
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let request = Received {
            method: Method::GET,
            path: server::decode(path, false),
            query: query.to_string(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            peer: request.peer,
        };
        self.answer(request).await
    }

    async fn answer(&self, request: Received) -> Reply {
        let call = &self.call;
        match request.path.as_str() {
            "/clientip" => {
                call.log("GET /clientip").await;
                server::ok(request.peer.to_string())
            }
            "/serverport" => {
                call.log("GET /serverport").await;
                server::ok(self.http_port.to_string())
            }
            "/header" => self.header(&request).await,
            "/dial" => self.dial(&request).await,
            "/echo" => self.echo(&request).await,
            "/exit" => self.exit(&request).await,
            "/healthz" => {
                call.log("GET /healthz").await;
                server::text(self.readiness(), "")
            }
            "/readyz" => self.readyz().await,
            path @ ("/hostname" | "/hostName") => {
                call.log(format!("GET {path}")).await;
                server::ok(call.world.hostname.clone())
            }
            "/envvar" => self.envvar(&request).await,
            "/redirect" => self.redirect(&request).await,
            "/shell" => self.shell(&request).await,
            "/shutdown" => {
                call.log("GET /shutdown").await;
                self.end_at_once(0).await
            }
            "/upload" => self.upload(&request).await,
            _ => {
                call.log("GET /").await;
                server::ok(format!("NOW: {}", go_format::time(call.world.clock.now())))
            }
        }
    }

    fn readiness(&self) -> StatusCode {
        match self.ready.load(Ordering::Relaxed) {
            true => StatusCode::OK,
            false => StatusCode::PRECONDITION_FAILED,
        }
    }

    async fn readyz(&self) -> Reply {
        self.call.log("GET /readyz").await;
        match (self.call.signal.get(), self.readiness()) {
            (Some(Signal::Term), _) => server::text(StatusCode::SERVICE_UNAVAILABLE, "shutting down"),
            (_, StatusCode::OK) => server::ok("ok"),
            (_, status) => server::text(status, ""),
        }
    }

    async fn header(&self, request: &Received) -> Reply {
        let key = request.form("key");
        if !key.is_empty() {
            self.call.log(format!("GET /header?key={key}")).await;
            return server::ok(request.header(&key).to_string());
        }
        self.call.log("GET /header").await;
        let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in request.headers.iter().filter(|(name, _)| *name != http::header::HOST) {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            headers.entry(canonical(name.as_str())).or_default().push(value);
        }
        server::ok(json!(headers).to_string())
    }

    async fn echo(&self, request: &Received) -> Reply {
        let (message, code) = (request.form("msg"), request.form("code"));
        self.call.log(format!("GET /echo?msg={message}&code={code}")).await;
        match status(&code, StatusCode::OK) {
            Some(status) => server::text(status, message),
            None => server::ok(format!("argument 'code' must be an integer or empty, got {code:?}\n")),
        }
    }

    async fn redirect(&self, request: &Received) -> Reply {
        let (location, code) = (request.form("location"), request.form("code"));
        self.call.log(format!("{} /redirect?msg={location}&code={code}", request.method)).await;
        match status(&code, StatusCode::FOUND) {
            Some(status) => server::redirect(request, &location, status),
            None => server::ok(format!("argument 'code' must be an integer or empty, got {code:?}\n")),
        }
    }

    async fn envvar(&self, request: &Received) -> Reply {
        let name = request.form("var");
        if name.is_empty() {
            return server::error(StatusCode::BAD_REQUEST, "'var' query parameter is required");
        }
        self.call.log(format!("GET /envvar?var={name}")).await;
        match self.call.env.get(&name) {
            Some(value) => server::ok(value.clone()),
            None => server::error(StatusCode::INTERNAL_SERVER_ERROR, format!("env var {name:?} is not set")),
        }
    }

    async fn exit(&self, request: &Received) -> Reply {
        let (wait, timeout, code) = (request.form("wait"), request.form("timeout"), request.form("code"));
        self.call.log(format!("GET /exit?code={code}&timeout={timeout}&wait={wait}")).await;
        let length = |text: &str| if text.is_empty() { Some(Duration::ZERO) } else { go_format::parse_duration(text) };
        let Some(allowed) = length(&timeout) else {
            let wrong = format!("argument 'timeout' must be a valid golang duration or empty, got {timeout:?}\n");
            return server::ok(wrong);
        };
        let Some(pause) = length(&wait) else {
            return server::ok(format!("argument 'wait' must be a valid golang duration or empty, got {wait:?}\n"));
        };
        let Some(code) = (if code.is_empty() { Some(0) } else { code.parse::<i32>().ok() }) else {
            return server::ok(format!("argument 'code' must be an integer [0-127] or empty, got {code:?}\n"));
        };
        let (waits, allows) = (go_format::duration(pause), go_format::duration(allowed));
        let begin = format!("Will begin shutdown in {waits}, allowing {allows} for connections to close");
        self.call.log(format!("{begin}, then will exit with {code}")).await;
        self.call.world.clock.sleep(pause).await;
        if allowed.is_zero() {
            return self.end_at_once(code).await;
        }
        self.shutdown.set(Some(Shutdown { code, timeout: allowed }));
        server::ok("")
    }

    /// Ends the program before it has answered.
    async fn end_at_once(&self, code: i32) -> Reply {
        self.shutdown.set(Some(Shutdown { code, timeout: Duration::ZERO }));
        std::future::pending().await
    }

    async fn dial(&self, request: &Received) -> Reply {
        let [host, port, wanted, protocol, tries] =
            ["host", "port", "request", "protocol", "tries"].map(|name| request.query(name));
        let asked = format!("host={host}&protocol={protocol}&port={port}&request={wanted}&tries={tries}");
        self.call.log(format!("GET /dial?{asked}")).await;
        let refused = |message: String| server::error(StatusCode::BAD_REQUEST, message);
        let parsed = if tries.is_empty() { Ok(1) } else { tries.parse::<i64>() };
        let tries = match parsed {
            Ok(tries) if tries <= DIAL_LIMIT => tries,
            Ok(_) => return refused(format!("tries parameter is invalid. more than {DIAL_LIMIT}")),
            Err(_) => {
                return refused(format!("tries parameter is invalid. strconv.Atoi: parsing {tries:?}: invalid syntax"));
            }
        };
        if wanted.is_empty() {
            return refused("request parameter not specified. <nil>".to_string());
        }
        let udp = match protocol.to_lowercase().as_str() {
            "" | "http" => false,
            "udp" => true,
            "sctp" => return refused("unsupported protocol. sctp is not simulated".to_string()),
            _ => return refused(format!("unsupported protocol. {protocol}")),
        };
        let address = match client::resolve(&self.call, &host, &port).await {
            Ok(address) => address,
            Err(error) => return refused(format!("host and/or port param are invalid. {error}")),
        };
        let (mut responses, mut errors, mut last) = (Vec::new(), Vec::new(), String::new());
        for _ in 0..tries {
            let answer =
                if udp { self.dial_udp(&wanted, address).await } else { self.dial_http(&wanted, address).await };
            last = answer.clone().unwrap_or_default();
            match answer {
                Ok(response) => responses.push(response),
                Err(error) => errors.push(error),
            }
        }
        let mut output = BTreeMap::new();
        if !last.is_empty() {
            output.insert("responses", responses);
        }
        if !errors.is_empty() {
            output.insert("errors", errors);
        }
        server::ok(json!(output).to_string())
    }

    async fn dial_http(&self, request: &str, address: SocketAddr) -> Result<String, String> {
        let url = format!("http://{address}/{request}");
        client::get(&self.call, &url, DIAL_TIMEOUT).await.map(|answer| answer.text())
    }

    async fn dial_udp(&self, request: &str, address: SocketAddr) -> Result<String, String> {
        let datagram = Bytes::copy_from_slice(request.as_bytes());
        let answer = client::exchange_udp(&self.call, address, datagram, Some(DIAL_TIMEOUT)).await;
        let answer = answer.map_err(|error| {
            let reason = match error.kind() {
                std::io::ErrorKind::TimedOut => "i/o timeout".to_string(),
                _ => format!("read: {}", go_format::errno(&error)),
            };
            format!("reading from udp connection failed. err:'read udp {address}: {reason}'")
        })?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    async fn shell(&self, request: &Received) -> Reply {
        let mut command = request.form("shellCommand");
        if command.is_empty() {
            command = request.form("cmd");
        }
        self.call.log(format!("GET /shell?cmd={command}")).await;
        let (said, code) = self.shell_output(&command).await;
        let mut output = BTreeMap::new();
        if !said.is_empty() {
            output.insert("output", said);
        }
        match code {
            Ok(0) => {}
            Ok(code) => drop(output.insert("error", format!("exit status {code}"))),
            Err(error) => drop(output.insert("error", error)),
        }
        self.call.log(format!("Output: {output:?}")).await;
        server::ok(json!(output).to_string())
    }

    async fn shell_output(&self, command: &str) -> (String, Result<i32, String>) {
        let world = &self.call.world;
        let args = [SHELL, "-c", command].map(str::to_string);
        let path = self.call.env.get("PATH").map(String::as_str);
        let (program, args) = match world.load(&args, path, &self.call.cwd) {
            Ok(loaded) => loaded,
            Err(_) => return (String::new(), Err(format!("fork/exec {SHELL}: no such file or directory"))),
        };
        let capture = Capture::default();
        let output = Output::new(capture.clone());
        let spawn = self.call.child(args, Input::empty(), output.clone(), output);
        let code = process::run(world, program, spawn).await;
        (String::from_utf8_lossy(&capture.take()).into_owned(), Ok(code))
    }

    async fn upload(&self, request: &Received) -> Reply {
        self.call.log("GET /upload").await;
        let failed = |message: &str| server::ok(json!({ "error": message }).to_string());
        let Some(content) = multipart_file(request, "file") else {
            self.call.log("Unable to upload file: http: no such file").await;
            return failed("Unable to upload file.");
        };
        let fs = &self.call.world.fs;
        let path = format!("{UPLOADS}/upload{}", self.call.world.random.below(u64::from(u32::MAX)));
        if fs.metadata(UPLOADS).is_err() {
            self.call.log(format!("Unable to open file for write: open {path}: no such file or directory")).await;
            return failed("Unable to open file for write");
        }
        if let Err(error) = fs.write(&path, &content) {
            self.call.log(format!("Unable to write file: {}", go_format::errno(&error))).await;
            return failed("Unable to write file.");
        }
        if let Err(error) = fs.set_mode(&path, 0o700) {
            self.call.log(format!("Unable to chmod file: {}", go_format::errno(&error))).await;
            return failed("Unable to chmod file.");
        }
        self.call.log(format!("Wrote upload to {path}")).await;
        server::text(StatusCode::CREATED, json!({ "output": path }).to_string())
    }

    async fn answer_datagram(&self, datagram: &[u8], peer: SocketAddr) -> Option<Bytes> {
        let call = &self.call;
        let raw = String::from_utf8_lossy(datagram).trim().to_string();
        let lower = raw.to_lowercase();
        let port = call.flags.text("udp-port");
        let answer = match lower.split_once(' ').unwrap_or((&lower, "")) {
            ("", _) => return None,
            ("hostname", "") => {
                call.log("Sending udp hostName response").await;
                call.world.hostname.clone()
            }
            ("envvar", name) if !name.is_empty() => {
                // A name keeps its case.
                let name = raw[raw.len() - name.len()..].trim();
                call.log(format!("Sending UDP envvar response for {name}")).await;
                call.env.get(name).cloned().unwrap_or_default()
            }
            ("echo", message) if lower.contains(' ') => {
                call.log(format!("Echoing {message} to UDP client {peer}")).await;
                message.to_string()
            }
            ("clientip", "") => {
                call.log(format!("Sending clientip back to UDP client {peer}")).await;
                peer.to_string()
            }
            ("serverport", "") => {
                call.log(format!("Sending server port to UDP client {port}")).await;
                port.to_string()
            }
            _ => {
                call.log(format!("Unknown UDP command received from {peer}: {lower}")).await;
                return None;
            }
        };
        Some(answer.into())
    }
}

/// The status that a parameter names, or the usual one; `None` for what is none.
fn status(code: &str, usual: StatusCode) -> Option<StatusCode> {
    if code.is_empty() {
        return Some(usual);
    }
    StatusCode::from_u16(code.parse().ok()?).ok()
}

/// A header's name as Go's `net/http` keeps it: `X-Forwarded-For`.
fn canonical(name: &str) -> String {
    let part = |part: &str| {
        let mut letters = part.chars();
        letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
    };
    name.split('-').map(part).collect::<Vec<_>>().join("-")
}

/// The content of a file in a form of type `multipart/form-data` (RFC 7578).
fn multipart_file(request: &Received, name: &str) -> Option<Bytes> {
    let content_type = request.header(http::header::CONTENT_TYPE.as_str());
    let boundary = content_type.strip_prefix("multipart/form-data")?.split("boundary=").nth(1)?;
    let boundary = boundary.split(';').next()?.trim().trim_matches('"');
    let delimiter = format!("--{boundary}");
    let mut at = find(&request.body, delimiter.as_bytes(), 0)? + delimiter.len();
    loop {
        let head = at + 2;
        let head_end = find(&request.body, b"\r\n\r\n", head)?;
        let end = find(&request.body, format!("\r\n{delimiter}").as_bytes(), head_end)?;
        let headers = String::from_utf8_lossy(&request.body[head..head_end]);
        if headers.contains(&format!("name=\"{name}\"")) && headers.contains("filename=") {
            return Some(request.body.slice(head_end + 4..end));
        }
        at = end + 2 + delimiter.len();
    }
}

fn find(text: &[u8], wanted: &[u8], from: usize) -> Option<usize> {
    text.get(from..)?.windows(wanted.len()).position(|window| window == wanted).map(|at| at + from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_in_a_form() {
        let body = "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x\r\nContent-Disposition: form-data; \
                    name=\"file\"; filename=\"f\"\r\n\r\nhello\r\n--x--\r\n";
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONTENT_TYPE, "multipart/form-data; boundary=x".parse().expect("a header"));
        let request = Received {
            method: Method::POST,
            path: "/upload".to_string(),
            query: String::new(),
            headers,
            body: body.into(),
            peer: SocketAddr::from(([127, 0, 0, 1], 1)),
        };
        assert_eq!(multipart_file(&request, "file"), Some(Bytes::from("hello")));
        assert_eq!(multipart_file(&request, "b"), None);
    }

    #[test]
    fn header_names_are_canonical() {
        assert_eq!(canonical("x-forwarded-for"), "X-Forwarded-For");
    }
}
