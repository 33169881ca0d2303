//! Container logs: which container's, which lines, and what comes after them.
//!
//! (kubelet: `kubelet_pods.go`, `validateContainerLogStatus`; `kuberuntime/logs/logs.go`.)

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};
use minik8s_cri::NodeFs;
use tokio::sync::mpsc;

use super::{Answer, ContainerPath, Parameters, Refusal, Server};
use crate::kubelet::Kubelet;
use crate::log_rotation::set_aside;
use crate::spec::PodExt as _;

/// How much of a log is read at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// How many chunks wait for a slow reader.
const CHUNKS_IN_FLIGHT: usize = 4;

/// What of a log is wanted.
#[derive(Clone, Debug, Default, PartialEq)]
struct LogOptions {
    follow: bool,
    previous: bool,
    timestamps: bool,
    tail: Option<u64>,
    since: Option<Timestamp>,
    limit_bytes: Option<u64>,
    stream: Option<&'static str>,
}

impl LogOptions {
    fn parse(parameters: &[(String, String)], now: Timestamp) -> Result<Self, Refusal> {
        let mut options = Self::default();
        let invalid = |name: &str, value: &str| {
            Refusal(StatusCode::BAD_REQUEST, format!("invalid value {value:?} of query parameter {name}"))
        };
        for (name, value) in parameters {
            let number = || value.parse::<u64>().map_err(|_| invalid(name, value));
            let truth = || match value.as_str() {
                "true" | "1" => Ok(true),
                "false" | "0" | "" => Ok(false),
                _ => Err(invalid(name, value)),
            };
            match name.as_str() {
                "follow" => options.follow = truth()?,
                "previous" => options.previous = truth()?,
                "timestamps" => options.timestamps = truth()?,
                "tailLines" | "tail" => options.tail = Some(number()?),
                "limitBytes" => options.limit_bytes = Some(number()?),
                "sinceSeconds" => {
                    let seconds = i64::try_from(number()?).map_err(|_| invalid(name, value))?;
                    options.since = now.checked_sub(SignedDuration::from_secs(seconds)).ok();
                }
                "sinceTime" => options.since = Some(value.parse().map_err(|_| invalid(name, value))?),
                "stream" => {
                    options.stream = match value.as_str() {
                        "Stdout" => Some("stdout"),
                        "Stderr" => Some("stderr"),
                        "All" | "" => None,
                        _ => return Err(invalid(name, value)),
                    }
                }
                _ => {}
            }
        }
        Ok(options)
    }
}

/// `GET /containerLogs/{namespace}/{pod}/{container}`.
pub(super) async fn container_logs(
    State(kubelet): Server,
    Path((namespace, name, container)): ContainerPath,
    Query(parameters): Parameters,
) -> Answer {
    let options = LogOptions::parse(&parameters, kubelet.config.clock.now())?;
    let worker = kubelet.worker_of(&namespace, &name)?;
    let pod = worker.input().pod;
    if pod.container(&container).is_none() {
        let message = format!("container \"{container}\" not found in pod \"{name}_{namespace}\"");
        return Err(Refusal(StatusCode::NOT_FOUND, message));
    }
    let status = kubelet.current_status(&worker).await;
    let id = container_to_read(&status, &name, &container, options.previous)
        .map_err(|message| Refusal(StatusCode::BAD_REQUEST, message))?;
    let found = kubelet.config.cri.container_status(&id).await;
    let path = found.map_err(|error| Refusal(StatusCode::BAD_REQUEST, error.to_string()))?.log_path;
    let (sender, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
    let reader = LogReader::new(kubelet, path, id, options);
    tokio::spawn(reader.run(sender));
    Ok(streamed(receiver))
}

fn streamed(receiver: mpsc::Receiver<Bytes>) -> Response {
    let chunks = futures::stream::unfold(receiver, |mut receiver| async {
        let chunk = receiver.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), receiver))
    });
    ([(header::CONTENT_TYPE, "text/plain")], Body::from_stream(chunks)).into_response()
}

/// The runtime's name of the container whose log is meant.
fn container_to_read(status: &PodStatus, pod: &str, container: &str, previous: bool) -> Result<String, String> {
    let all = status.container_statuses.iter().chain(&status.init_container_statuses);
    let mut all = all.chain(&status.ephemeral_container_statuses).flatten();
    let about = format!("container \"{container}\" in pod \"{pod}\"");
    let status: &ContainerStatus =
        all.find(|status| status.name == container).ok_or_else(|| format!("{about} is not available"))?;
    let without_scheme = |id: &String| id.split_once("://").map(|(_, id)| id.to_owned());
    let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let last_id = last.and_then(|ended| ended.container_id.as_ref()).and_then(without_scheme);
    if previous {
        return last_id.ok_or_else(|| format!("previous terminated {about} not found"));
    }
    let state = status.state.clone().unwrap_or_default();
    if state.running.is_some() {
        return status
            .container_id
            .as_ref()
            .and_then(without_scheme)
            .ok_or_else(|| format!("{about} is not available"));
    }
    if let Some(ended) = state.terminated {
        let id = ended.container_id.as_ref().and_then(without_scheme).or(last_id);
        return id.ok_or_else(|| format!("{about} is terminated"));
    }
    if last.is_some() {
        return last_id.ok_or_else(|| format!("{about} is terminated"));
    }
    let reason = state.waiting.and_then(|waiting| waiting.reason).unwrap_or_default();
    Err(match reason.as_str() {
        "ErrImagePull" => format!("{about} is waiting to start: image can't be pulled"),
        "ImagePullBackOff" => {
            format!("{about} is waiting to start: trying and failing to pull image")
        }
        "" => format!("{about} is waiting to start - no logs yet"),
        reason => format!("{about} is waiting to start: {reason}"),
    })
}

/// One line of a CRI log: `<RFC 3339 time> <stream> <P|F> <text>`.
struct Line<'a> {
    time: &'a str,
    stream: &'a str,
    partial: bool,
    text: &'a [u8],
}

impl<'a> Line<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?;
        let stream = std::str::from_utf8(parts.next()?).ok()?;
        let partial = parts.next()?.starts_with(b"P");
        Some(Self { time, stream, partial, text: parts.next().unwrap_or_default() })
    }
}

/// Reads one log from where its options say, to its end or, following, to the end of its container.
struct LogReader {
    kubelet: Arc<Kubelet>,
    path: String,
    id: String,
    options: LogOptions,
    /// Bytes of the file that were read.
    offset: u64,
    /// What had been set aside last when the file was opened.
    aside: Option<String>,
    /// What was read of a line that is not complete yet.
    rest: Vec<u8>,
    /// Bytes that may still be sent.
    left: Option<u64>,
}

impl LogReader {
    fn new(kubelet: Arc<Kubelet>, path: String, id: String, options: LogOptions) -> Self {
        let fs = kubelet.config.fs.as_ref();
        let offset = options.tail.map_or(0, |lines| tail_offset(fs, &path, lines));
        let left = options.limit_bytes;
        let aside = set_aside(fs, &path).pop();
        Self { kubelet, path, id, options, offset, aside, rest: Vec::new(), left }
    }

    async fn run(mut self, sender: mpsc::Sender<Bytes>) {
        loop {
            // Both are armed before reading, so that nothing written meanwhile is missed.
            let mut written = self.kubelet.config.fs.watch(&self.path);
            let kubelet = self.kubelet.clone();
            let changed = kubelet.container_changes.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let running = self.options.follow && self.is_running().await;
            if !self.send_new(&sender).await || !running {
                return;
            }
            tokio::select! {
                biased;
                () = self.kubelet.cancel.cancelled() => return,
                () = sender.closed() => return,
                () = written.changed() => {}
                () = changed => {}
            }
        }
    }

    async fn is_running(&self) -> bool {
        let status = self.kubelet.config.cri.container_status(&self.id).await;
        let ended = minik8s_cri::proto::ContainerState::ContainerExited as i32;
        status.is_ok_and(|status| status.state != ended)
    }

    /// Sends what is new in the file. False if the reader wants no more.
    async fn send_new(&mut self, sender: &mpsc::Sender<Bytes>) -> bool {
        loop {
            let fs = self.kubelet.config.fs.as_ref();
            // The file that we are in may have been set aside meanwhile; then it is the first after the last one we knew.
            let aside = set_aside(fs, &self.path).into_iter().find(|file| Some(file) > self.aside.as_ref());
            let data = fs.read_at(aside.as_ref().unwrap_or(&self.path), self.offset, CHUNK_BYTES).unwrap_or_default();
            if data.is_empty() {
                if aside.is_none() {
                    return true;
                }
                (self.aside, self.offset) = (aside, 0);
                continue;
            }
            self.offset += data.len() as u64;
            let output = self.render(&data);
            if !output.is_empty() && sender.send(output).await.is_err() {
                return false;
            }
            if self.left == Some(0) {
                return false;
            }
        }
    }

    fn render(&mut self, data: &[u8]) -> Bytes {
        self.rest.extend_from_slice(data);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
            return Bytes::new();
        };
        let rest = self.rest.split_off(end + 1);
        let complete = std::mem::replace(&mut self.rest, rest);
        let mut output = Vec::with_capacity(complete.len());
        for line in complete[..end].split(|byte| *byte == b'\n') {
            self.render_line(line, &mut output);
        }
        if let Some(left) = &mut self.left {
            output.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= output.len() as u64;
        }
        output.into()
    }

    fn render_line(&self, line: &[u8], output: &mut Vec<u8>) {
        let Some(line) = Line::parse(line) else {
            return;
        };
        if self.options.stream.is_some_and(|stream| stream != line.stream) {
            return;
        }
        if let Some(since) = self.options.since
            && line.time.parse::<Timestamp>().is_ok_and(|time| time < since)
        {
            return;
        }
        if self.options.timestamps {
            output.extend_from_slice(line.time.as_bytes());
            output.push(b' ');
        }
        output.extend_from_slice(line.text);
        if !line.partial {
            output.push(b'\n');
        }
    }
}

/// Where the last `lines` lines of a file begin.
fn tail_offset(fs: &dyn NodeFs, path: &str, lines: u64) -> u64 {
    let length = fs.metadata(path).map_or(0, |metadata| metadata.len);
    if lines == 0 {
        return length;
    }
    let (mut end, mut seen) = (length, 0);
    while end > 0 {
        let start = end.saturating_sub(CHUNK_BYTES as u64);
        let Ok(data) = fs.read_at(path, start, usize::try_from(end - start).unwrap_or(CHUNK_BYTES)) else {
            return 0;
        };
        for (index, byte) in data.iter().enumerate().rev() {
            let position = start + index as u64;
            // The newline at the very end closes the last line, it does not begin another.
            if *byte == b'\n' && position + 1 < length {
                seen += 1;
                if seen == lines {
                    return position + 1;
                }
            }
        }
        end = start;
    }
    0
}
