//! The kubelet's HTTP API: logs, exec, attach, port-forward, stats. The API server is its only client.
//!
//! Nobody is authenticated here: the only way in is [`Kubelet::connect`], which the API server's `NodeConnector` holds
//! (it has authorized `pods/log`, `pods/exec`, `nodes/proxy` by then). Who listens on a socket puts authentication in
//! front of [`Kubelet::serve`], and asks [`questions`] about each request.
//!
//! (kubelet: `server/server.go`.)

mod access;
mod logs;
mod stats;

pub use access::{Question, questions};

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use futures::FutureExt as _;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use k8s_openapi::api::core::v1::Pod;
use minik8s_cri::proto;
use minik8s_streaming::{BoxedStream, pair, proxy};
use serde_json::json;

use crate::kubelet::Kubelet;
use crate::observe::observe;
use crate::runtime::{RuntimePod, RuntimeState};
use crate::spec::PodExt as _;
use crate::worker::PodWorker;

/// A refusal: its status and its words.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], self.1).into_response()
    }
}

type Answer = Result<Response, Refusal>;
type Parameters = Query<Vec<(String, String)>>;
type Server = State<Arc<Kubelet>>;

fn internal(error: impl std::fmt::Display) -> Refusal {
    Refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

impl Kubelet {
    /// The kubelet's HTTP API.
    pub fn http(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/healthz", get(|| async { "ok" }))
            .route("/healthz/ping", get(|| async { "ok" }))
            .route("/healthz/syncloop", get(|| async { "ok" }))
            .route("/pods", get(pods))
            .route("/runningpods/", get(pods))
            .route("/containerLogs/{namespace}/{pod}/{container}", get(logs::container_logs))
            .route("/exec/{namespace}/{pod}/{container}", any(exec))
            .route("/exec/{namespace}/{pod}/{uid}/{container}", any(exec_with_uid))
            .route("/attach/{namespace}/{pod}/{container}", any(attach))
            .route("/attach/{namespace}/{pod}/{uid}/{container}", any(attach_with_uid))
            .route("/portForward/{namespace}/{pod}", any(port_forward))
            .route("/portForward/{namespace}/{pod}/{uid}", any(port_forward_with_uid))
            .route("/run/{namespace}/{pod}/{container}", post(run))
            .route("/stats/summary", get(stats::summary))
            .route("/metrics", get(stats::metrics))
            .route("/metrics/resource", get(stats::resource_metrics))
            .with_state(self.clone())
    }

    /// Serves the HTTP API on one connection until it ends.
    pub async fn serve(self: Arc<Self>, stream: BoxedStream) {
        let cancel = self.cancel.clone();
        let service = TowerToHyperService::new(self.http());
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
        let ended = tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            ended = connection => ended,
        };
        if let Err(error) = ended {
            tracing::debug!(node = self.config.node_name, %error, "connection to the kubelet ended");
        }
    }

    /// A connection to the HTTP API within this process. A stopped kubelet answers to nobody.
    ///
    /// # Errors
    /// The kubelet has stopped.
    pub fn connect(self: &Arc<Self>) -> std::io::Result<BoxedStream> {
        if self.cancel.is_cancelled() {
            return Err(std::io::ErrorKind::ConnectionRefused.into());
        }
        let (near, far) = pair();
        tokio::spawn(self.clone().serve(far).boxed());
        Ok(near)
    }

    fn worker_of(&self, namespace: &str, name: &str) -> Result<Arc<PodWorker>, Refusal> {
        self.pod_named(namespace, name)
            .ok_or_else(|| Refusal(StatusCode::NOT_FOUND, format!("pod \"{name}_{namespace}\" does not exist")))
    }

    /// What the runtime has of the pod of that name.
    async fn runtime_of(&self, namespace: &str, name: &str) -> Result<(Arc<PodWorker>, RuntimePod), Refusal> {
        let worker = self.worker_of(namespace, name)?;
        let runtime = observe(&self.config.cri, self.config.fs.as_ref(), &worker.uid).await.map_err(internal)?;
        Ok((worker, runtime))
    }

    /// The id of a running container.
    async fn running_container(&self, namespace: &str, pod: &str, container: &str) -> Result<String, Refusal> {
        let (_, runtime) = self.runtime_of(namespace, pod).await?;
        match runtime.latest(container) {
            Some(found) if found.state == RuntimeState::Running => Ok(found.id.clone()),
            _ => Err(Refusal(StatusCode::NOT_FOUND, format!("container not found (\"{container}\")"))),
        }
    }

    /// Passes a streaming request on to where the runtime serves it.
    async fn forward(&self, url: String, mut request: Request) -> Answer {
        let url: Uri = url.parse().map_err(|error| internal(format!("the runtime's URL {url:?}: {error}")))?;
        let stream = self.config.streams.connect(&url).await.map_err(internal)?;
        *request.uri_mut() = url;
        request.headers_mut().remove(header::HOST);
        let response = proxy::forward(request, stream).await.map_err(internal)?;
        Ok(response.map(Body::new))
    }
}

async fn pods(State(kubelet): Server) -> Response {
    let pods: Vec<Pod> = kubelet.pods().iter().map(|pod| pod.as_ref().clone()).collect();
    axum::Json(json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods})).into_response()
}

fn is_set(parameters: &[(String, String)], names: [&str; 2]) -> bool {
    parameters.iter().any(|(name, value)| names.contains(&name.as_str()) && (value == "1" || value == "true"))
}

type ContainerPath = Path<(String, String, String)>;
type ContainerUidPath = Path<(String, String, String, String)>;

async fn exec(
    server: Server,
    Path((namespace, pod, container)): ContainerPath,
    query: Parameters,
    request: Request,
) -> Answer {
    exec_in(server.0, &namespace, &pod, &container, query.0, request).await
}

async fn exec_with_uid(
    server: Server,
    Path((namespace, pod, _, container)): ContainerUidPath,
    query: Parameters,
    request: Request,
) -> Answer {
    exec_in(server.0, &namespace, &pod, &container, query.0, request).await
}

async fn exec_in(
    kubelet: Arc<Kubelet>,
    namespace: &str,
    pod: &str,
    container: &str,
    parameters: Vec<(String, String)>,
    request: Request,
) -> Answer {
    let tty = is_set(&parameters, ["tty", "tty"]);
    let exec = proto::ExecRequest {
        container_id: kubelet.running_container(namespace, pod, container).await?,
        stdin: is_set(&parameters, ["input", "stdin"]),
        stdout: is_set(&parameters, ["output", "stdout"]),
        // A terminal has one output.
        stderr: !tty && is_set(&parameters, ["error", "stderr"]),
        tty,
        cmd: parameters.into_iter().filter(|(name, _)| name == "command").map(|(_, value)| value).collect(),
    };
    let url = kubelet.config.cri.exec(exec).await.map_err(internal)?;
    kubelet.forward(url, request).await
}

async fn attach(
    server: Server,
    Path((namespace, pod, container)): ContainerPath,
    query: Parameters,
    request: Request,
) -> Answer {
    attach_to(server.0, &namespace, &pod, &container, &query.0, request).await
}

async fn attach_with_uid(
    server: Server,
    Path((namespace, pod, _, container)): ContainerUidPath,
    query: Parameters,
    request: Request,
) -> Answer {
    attach_to(server.0, &namespace, &pod, &container, &query.0, request).await
}

async fn attach_to(
    kubelet: Arc<Kubelet>,
    namespace: &str,
    pod: &str,
    container: &str,
    parameters: &[(String, String)],
    request: Request,
) -> Answer {
    let container_id = kubelet.running_container(namespace, pod, container).await?;
    let worker = kubelet.worker_of(namespace, pod)?;
    // Whether there is a terminal was decided when the container was made.
    let spec = worker.input().pod.container(container);
    let tty = spec.is_some_and(|(_, container)| container.tty == Some(true));
    let attach = proto::AttachRequest {
        container_id,
        stdin: is_set(parameters, ["input", "stdin"]),
        stdout: is_set(parameters, ["output", "stdout"]),
        stderr: !tty && is_set(parameters, ["error", "stderr"]),
        tty,
    };
    let url = kubelet.config.cri.attach(attach).await.map_err(internal)?;
    kubelet.forward(url, request).await
}

async fn port_forward(
    server: Server,
    Path((namespace, pod)): Path<(String, String)>,
    query: Parameters,
    request: Request,
) -> Answer {
    port_forward_to(server.0, &namespace, &pod, &query.0, request).await
}

async fn port_forward_with_uid(
    server: Server,
    Path((namespace, pod, _)): ContainerPath,
    query: Parameters,
    request: Request,
) -> Answer {
    port_forward_to(server.0, &namespace, &pod, &query.0, request).await
}

async fn port_forward_to(
    kubelet: Arc<Kubelet>,
    namespace: &str,
    pod: &str,
    parameters: &[(String, String)],
    request: Request,
) -> Answer {
    let (_, runtime) = kubelet.runtime_of(namespace, pod).await?;
    let sandbox = runtime.sandbox().filter(|sandbox| sandbox.ready);
    let Some(sandbox) = sandbox else {
        let message = format!("not able to forward port: pod {pod}_{namespace} is not running");
        return Err(Refusal(StatusCode::BAD_REQUEST, message));
    };
    let ports = parameters.iter().filter(|(name, _)| name == "port" || name == "ports");
    let port = ports.flat_map(|(_, value)| value.split(',')).filter_map(|port| port.parse().ok()).collect();
    let request_to_runtime = proto::PortForwardRequest { pod_sandbox_id: sandbox.id.clone(), port };
    let url = kubelet.config.cri.port_forward(request_to_runtime).await.map_err(internal)?;
    kubelet.forward(url, request).await
}

/// Runs a command and answers with its output, without streaming.
async fn run(State(kubelet): Server, Path((namespace, pod, container)): ContainerPath, query: Parameters) -> Answer {
    let command: String =
        query.0.into_iter().filter(|(name, _)| name == "cmd").map(|(_, value)| value).collect::<Vec<_>>().join(" ");
    let command: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
    let id = kubelet.running_container(&namespace, &pod, &container).await?;
    let done = kubelet.config.cri.exec_sync(&id, command.clone(), 0).await.map_err(internal)?;
    let mut output = done.stdout;
    output.extend_from_slice(&done.stderr);
    if done.exit_code != 0 {
        let words = format!(
            "command '{}' exited with {}: {}",
            command.join(" "),
            done.exit_code,
            String::from_utf8_lossy(&output)
        );
        return Err(internal(words));
    }
    Ok(output.into_response())
}
