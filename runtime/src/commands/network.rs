//! Tools that speak HTTP: `curl`, `wget`.

use super::tls::Trust;
use super::{Options, complain_usage};
use crate::network::ResolveError;
use crate::process::{Process, errno_text};
use bytes::Bytes;
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use minik8s_streaming::http_over;
use std::fmt::Write;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How long a name server is waited for (`resolv.conf(5)`: two attempts of five seconds).
pub(super) const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection is waited for where no option says it: a TCP handshake gives up after about two minutes.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(130);
/// How many redirects are followed.
const REDIRECT_LIMIT: usize = 20;
/// How much of an answer is taken.
const BODY_LIMIT_BYTES: usize = 16 * 1024 * 1024;

/// Why a request came to nothing.
pub(super) enum Failure {
    Resolve(String),
    Connect(SocketAddr, io::Error),
    TimedOut(Duration),
    Scheme(String),
    /// Why the server is not trusted, or does not speak TLS.
    Tls(String),
    Url,
    Protocol,
}

/// What to ask, and how patiently.
struct Ask {
    url: String,
    method: Method,
    headers: Vec<(String, String)>,
    body: Bytes,
    agent: &'static str,
    connect_timeout: Duration,
    timeout: Option<Duration>,
    redirects: bool,
    trust: Trust,
}

struct Answered {
    response: http::response::Parts,
    body: Bytes,
    url: Uri,
    address: SocketAddr,
}

fn absolute(url: &str) -> Result<Uri, Failure> {
    let url = if url.contains("://") { url.to_string() } else { format!("http://{url}") };
    let uri: Uri = url.parse().map_err(|_| Failure::Url)?;
    match (uri.scheme_str(), uri.host()) {
        (_, None | Some("")) => Err(Failure::Url),
        (Some("http" | "https"), _) => Ok(uri),
        (scheme, _) => Err(Failure::Scheme(scheme.unwrap_or_default().to_string())),
    }
}

/// The address of a host, within a time.
pub(super) async fn resolve(process: &Process, name: &str, timeout: Duration) -> Result<IpAddr, Failure> {
    let host = name.trim_start_matches('[').trim_end_matches(']');
    let network = &process.world.network;
    let answer =
        process.world.clock.timeout(timeout, network.resolve(host)).await.unwrap_or(Err(ResolveError::NoServer));
    let no_name = || Failure::Resolve(host.to_string());
    answer.map_err(|_| no_name())?.first().copied().ok_or_else(no_name)
}

async fn exchange(process: &Process, ask: &Ask, uri: &Uri) -> Result<Answered, Failure> {
    let host = uri.host().ok_or(Failure::Url)?;
    let ip = resolve(process, host, RESOLVE_TIMEOUT.min(ask.connect_timeout)).await?;
    let secure = uri.scheme_str() == Some("https");
    let address = SocketAddr::new(ip, uri.port_u16().unwrap_or(if secure { 443 } else { 80 }));
    let connecting = process.world.network.connect(address);
    let mut stream = match process.world.clock.timeout(ask.connect_timeout, connecting).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(Failure::Connect(address, error)),
        Err(_) => return Err(Failure::TimedOut(ask.connect_timeout)),
    };
    if secure {
        let shaking = ask.trust.connect(&process.world.clock, host, stream);
        stream = match process.world.clock.timeout(ask.connect_timeout, shaking).await {
            Ok(shaken) => shaken.map_err(Failure::Tls)?,
            Err(_) => return Err(Failure::TimedOut(ask.connect_timeout)),
        };
    }
    let mut request = Request::builder().method(&ask.method).uri(uri);
    let named = |name: &str| ask.headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
    for (name, value) in [("User-Agent", ask.agent), ("Accept", "*/*")] {
        if !named(name) {
            request = request.header(name, value);
        }
    }
    for (name, value) in &ask.headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(ask.body.clone())).map_err(|_| Failure::Url)?;
    let response: Response<_> = http_over(stream, request).await.map_err(|_| Failure::Protocol)?;
    let (response, body) = response.into_parts();
    let body = http_body_util::Limited::new(body, BODY_LIMIT_BYTES).collect().await.map_err(|_| Failure::Protocol)?;
    Ok(Answered { response, body: body.to_bytes(), url: uri.clone(), address })
}

async fn ask(process: &Process, ask: &Ask) -> Result<Answered, Failure> {
    let mut uri = absolute(&ask.url)?;
    let whole = async {
        for _ in 0..=REDIRECT_LIMIT {
            let answered = exchange(process, ask, &uri).await?;
            let location = answered.response.headers.get(http::header::LOCATION).and_then(|to| to.to_str().ok());
            match location.filter(|_| ask.redirects && answered.response.status.is_redirection()) {
                None => return Ok(answered),
                Some(to) if to.starts_with('/') => {
                    let authority = uri.authority().map(|authority| authority.to_string()).unwrap_or_default();
                    uri = absolute(&format!("{}://{authority}{to}", uri.scheme_str().unwrap_or("http")))?;
                }
                Some(to) => uri = absolute(to)?,
            }
        }
        Err(Failure::Protocol)
    };
    match ask.timeout {
        Some(limit) => process.world.clock.timeout(limit, whole).await.unwrap_or(Err(Failure::TimedOut(limit))),
        None => whole.await,
    }
}

/// The time of an option, in seconds.
pub(super) fn seconds(text: Option<&str>) -> Option<Duration> {
    text.and_then(|text| text.parse().ok()).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}

const CURL_FLAGS: [&str; 29] = [
    "s",
    "S",
    "silent",
    "show-error",
    "v",
    "verbose",
    "i",
    "include",
    "I",
    "head",
    "L",
    "location",
    "f",
    "fail",
    "k",
    "insecure",
    "G",
    "compressed",
    "4",
    "6",
    "http1.1",
    "no-progress-meter",
    "progress-bar",
    "fail-with-body",
    "g",
    "globoff",
    "q",
    "disable",
    "http1.0",
];
const CURL_VALUES: [&str; 23] = [
    "o",
    "output",
    "w",
    "write-out",
    "H",
    "header",
    "X",
    "request",
    "d",
    "data",
    "data-raw",
    "m",
    "max-time",
    "connect-timeout",
    "A",
    "user-agent",
    "u",
    "user",
    "retry",
    "retry-delay",
    "data-binary",
    "cacert",
    "interface",
];

pub(super) async fn curl(process: Process) -> io::Result<i32> {
    let options = match Options::parse(process.arguments(), &CURL_FLAGS, &CURL_VALUES) {
        Ok(options) => options,
        Err(message) => {
            process.stderr.line(format!("curl: option {message}: is unknown")).await?;
            return Ok(2);
        }
    };
    if options.operands.is_empty() {
        process.stderr.line("curl: (2) no URL specified").await?;
        return Ok(2);
    }
    let mut code = 0;
    for url in &options.operands {
        code = curl_one(&process, &options, url).await?;
    }
    Ok(code)
}

fn curl_ask(options: &Options, url: &str, trust: Trust) -> Ask {
    let data: Vec<&str> = options.all(&["d", "data", "data-raw", "data-binary"]).collect();
    let mut headers: Vec<(String, String)> = options
        .all(&["H", "header"])
        .filter_map(|header| header.split_once(':'))
        .map(|(name, value)| (name.to_string(), value.trim().to_string()))
        .collect();
    if let Some(agent) = options.value(&["A", "user-agent"]) {
        headers.push(("User-Agent".to_string(), agent.to_string()));
    }
    if !data.is_empty() && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
        headers.push(("Content-Type".to_string(), "application/x-www-form-urlencoded".to_string()));
    }
    let default = match (options.has(&["I", "head"]), data.is_empty()) {
        (true, _) => Method::HEAD,
        (false, true) => Method::GET,
        (false, false) => Method::POST,
    };
    let method = options.value(&["X", "request"]).and_then(|method| method.parse().ok()).unwrap_or(default);
    Ask {
        url: url.to_string(),
        method,
        headers,
        body: data.join("&").into(),
        agent: "curl/8.14.1",
        connect_timeout: seconds(options.value(&["connect-timeout"])).unwrap_or(CONNECT_TIMEOUT),
        timeout: seconds(options.value(&["m", "max-time"])),
        redirects: options.has(&["L", "location"]),
        trust,
    }
}

async fn curl_one(process: &Process, options: &Options, url: &str) -> io::Result<i32> {
    let trust = match (options.has(&["k", "insecure"]), options.value(&["cacert"])) {
        (true, _) => Trust::anyone(),
        (false, None) => Trust::nobody(),
        (false, Some(path)) => match process.world.fs.read(&process.path(path)) {
            Ok(roots) => Trust::roots(&roots),
            Err(_) => {
                process.stderr.line(format!("curl: (77) error setting certificate file: {path}")).await?;
                return Ok(77);
            }
        },
    };
    let started = process.world.clock.monotonic();
    let result = ask(process, &curl_ask(options, url, trust)).await;
    let elapsed = process.world.clock.monotonic().saturating_sub(started);
    let silent = options.has(&["s", "silent"]) && !options.has(&["S", "show-error"]);
    let answered = match result {
        Ok(answered) => answered,
        Err(failure) => {
            let (code, words) = curl_words(&failure, elapsed.as_millis());
            if let Some(format) = options.value(&["w", "write-out"]) {
                process.stdout.write(write_out(format, None, elapsed)).await?;
            }
            if !silent {
                process.stderr.line(format!("curl: ({code}) {words}")).await?;
            }
            return Ok(code);
        }
    };
    let status = answered.response.status;
    if options.has(&["v", "verbose"]) {
        let (host, path) = (answered.url.host().unwrap_or_default(), answered.url.path());
        let address = answered.address;
        process.stderr.write(format!("*   Trying {address}...\n* Connected to {host} ({}) port {}\n> GET {path} HTTP/1.1\n> Host: {host}\n> \n", address.ip(), address.port())).await?;
        process
            .stderr
            .write(head(&answered).lines().fold(String::new(), |text, line| text + "< " + line + "\n"))
            .await?;
    }
    if options.has(&["f", "fail", "fail-with-body"]) && status.as_u16() >= 400 {
        if !silent {
            process.stderr.line(format!("curl: (22) The requested URL returned error: {}", status.as_u16())).await?;
        }
        return Ok(22);
    }
    let mut text = Vec::new();
    if options.has(&["i", "include", "I", "head"]) {
        text.extend_from_slice(head(&answered).as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(&answered.body);
    match options.value(&["o", "output"]) {
        Some(path) => match process.open_output(path, false) {
            Ok(output) => output.write(text).await?,
            Err(_) => {
                process
                    .stderr
                    .line(format!("curl: (23) Failure writing output to destination, passed {} returned 0", text.len()))
                    .await?;
                return Ok(23);
            }
        },
        None => process.stdout.write(text).await?,
    }
    if let Some(format) = options.value(&["w", "write-out"]) {
        process.stdout.write(write_out(format, Some(&answered), elapsed)).await?;
    }
    Ok(0)
}

fn head(answered: &Answered) -> String {
    let status = answered.response.status;
    let mut text = format!("HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason().unwrap_or_default());
    for (name, value) in &answered.response.headers {
        // Writing to a string cannot fail.
        let _written = write!(text, "{name}: {}\r\n", String::from_utf8_lossy(value.as_bytes()));
    }
    text
}

fn write_out(format: &str, answered: Option<&Answered>, elapsed: Duration) -> String {
    let status = answered.map_or("000".to_string(), |answered| answered.response.status.as_u16().to_string());
    let size = answered.map_or(0, |answered| answered.body.len()).to_string();
    format
        .replace("%{http_code}", &status)
        .replace("%{response_code}", &status)
        .replace("%{size_download}", &size)
        .replace("%{time_total}", &format!("{:.6}", elapsed.as_secs_f64()))
        .replace("\\n", "\n")
        .replace("\\t", "\t")
}

/// Exit codes and words of `curl(1)`.
fn curl_words(failure: &Failure, elapsed: u128) -> (i32, String) {
    match failure {
        Failure::Scheme(scheme) => (1, format!("Protocol \"{scheme}\" is not simulated")),
        Failure::Tls(reason) => (60, format!("SSL certificate problem: {reason}")),
        Failure::Url => (3, "URL rejected: Malformed input to a URL function".to_string()),
        Failure::Resolve(name) => (6, format!("Could not resolve host: {name}")),
        Failure::Connect(address, _) => {
            let (ip, port) = (address.ip(), address.port());
            (7, format!("Failed to connect to {ip} port {port} after {elapsed} ms: Could not connect to server"))
        }
        Failure::TimedOut(limit) => (28, format!("Connection timed out after {} milliseconds", limit.as_millis())),
        Failure::Protocol => (52, "Empty reply from server".to_string()),
    }
}

pub(super) async fn wget(process: Process) -> io::Result<i32> {
    let flags = ["q", "c", "S", "spider", "no-check-certificate", "quiet"];
    let values = ["O", "T", "timeout", "header", "post-data", "U", "P", "o", "Y", "t", "tries"];
    let options = match Options::parse(process.arguments(), &flags, &values) {
        Ok(options) => options,
        Err(message) => return complain_usage(&process, message).await,
    };
    let Some(url) = options.operands.first() else {
        return complain_usage(&process, "missing URL".to_string()).await;
    };
    let header =
        |header: &str| header.split_once(':').map(|(name, value)| (name.to_string(), value.trim().to_string()));
    let request = Ask {
        url: url.clone(),
        method: if options.value(&["post-data"]).is_some() { Method::POST } else { Method::GET },
        headers: options.all(&["header"]).filter_map(header).collect(),
        body: Bytes::copy_from_slice(options.value(&["post-data"]).unwrap_or_default().as_bytes()),
        agent: "Wget",
        connect_timeout: seconds(options.value(&["T", "timeout"])).unwrap_or(CONNECT_TIMEOUT),
        timeout: None,
        redirects: true,
        // busybox checks no certificates.
        trust: Trust::anyone(),
    };
    let quiet = options.has(&["q", "quiet"]);
    let answered = match ask(&process, &request).await {
        Ok(answered) => answered,
        Err(failure) => {
            process.complain(wget_words(&failure)).await;
            return Ok(1);
        }
    };
    let status = answered.response.status;
    if !quiet {
        let host = answered.url.authority().map(|authority| authority.to_string()).unwrap_or_default();
        process.stderr.line(format!("Connecting to {host} ({})", answered.address)).await?;
    }
    if !status.is_success() {
        let reason = status.canonical_reason().unwrap_or_default();
        process.complain(format!("server returned error: HTTP/1.1 {} {reason}", status.as_u16())).await;
        return Ok(1);
    }
    if options.has(&["spider"]) {
        return Ok(0);
    }
    let name = match answered.url.path().rsplit('/').next() {
        Some("") | None => "index.html",
        Some(name) => name,
    };
    match options.value(&["O"]).unwrap_or(name) {
        "-" => process.stdout.write(&answered.body).await?,
        path => {
            let written = match process.open_output(path, false) {
                Ok(output) => output.write(&answered.body).await,
                Err(error) => Err(error),
            };
            if let Err(error) = written {
                process.complain(format!("can't open '{path}': {}", errno_text(&error))).await;
                return Ok(1);
            }
            if !quiet {
                process.stderr.line(format!("saving to '{path}'\n'{path}' saved")).await?;
            }
        }
    }
    Ok(0)
}

/// The words of busybox's `wget`.
fn wget_words(failure: &Failure) -> String {
    match failure {
        Failure::Scheme(scheme) => format!("{scheme}: not simulated"),
        Failure::Tls(reason) => format!("TLS error from peer: {reason}"),
        Failure::Url => "bad address ''".to_string(),
        Failure::Resolve(name) => format!("bad address '{name}'"),
        Failure::Connect(address, error) => {
            let reason =
                if error.kind() == io::ErrorKind::HostUnreachable { "Host is unreachable" } else { errno_text(error) };
            format!("can't connect to remote host ({}): {reason}", address.ip())
        }
        Failure::TimedOut(_) => "download timed out".to_string(),
        Failure::Protocol => "error getting response".to_string(),
    }
}
