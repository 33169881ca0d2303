//! The streaming server: where the addresses of exec, attach and port forward are answered.
//!
//! Nothing listens. A connector makes a pair of in-process streams and serves HTTP on the far end, so that a thousand nodes
//! need no port; each address holds a token that works once.

use crate::container::Container;
use crate::log::LogStream;
use crate::process::{Channel, Input, Output, Signal, terminal};
use crate::service::{Executed, execute};
use crate::sim_runtime::SimRuntime;
use crate::{Error, Result};
use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{Either, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use minik8s_cri::StreamConnector;
use minik8s_cri::proto::{AttachRequest, ExecRequest};
use minik8s_streaming::BoxedStream;
use minik8s_streaming::remotecommand::{self, ExitStatus, Session};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// How many requests wait to be picked up (`maxInFlight` of `k8s.io/kubelet/pkg/cri/streaming/request_cache.go`).
const PENDING_LIMIT: usize = 1000;
/// How long a request waits to be picked up (`cacheTTL`).
const PENDING_LIFETIME: Duration = Duration::from_secs(60);
const TOKEN_LENGTH: usize = 12;

type Body = Either<Empty<Bytes>, Full<Bytes>>;

/// A request that CRI has accepted and nobody has connected to yet.
pub(crate) enum Pending {
    Exec(ExecRequest),
    Attach(AttachRequest),
    PortForward,
}

impl Pending {
    fn verb(&self) -> &'static str {
        match self {
            Pending::Exec(_) => "exec",
            Pending::Attach(_) => "attach",
            Pending::PortForward => "portforward",
        }
    }
}

/// Requests by token.
#[derive(Default)]
pub(crate) struct Streams {
    pending: Mutex<BTreeMap<String, (Duration, Pending)>>,
}

impl Streams {
    /// Keeps a request; returns its address.
    pub fn register(&self, runtime: &SimRuntime, request: Pending) -> Result<String> {
        let now = runtime.clock.monotonic();
        let mut pending = self.pending.lock();
        pending.retain(|_, (expires, _)| *expires > now);
        if pending.len() >= PENDING_LIMIT {
            return Err(Error::WrongState("maximum number of in-flight requests exceeded".to_string()));
        }
        let token = runtime.random.suffix(TOKEN_LENGTH);
        let url = format!("http://{}/{}/{token}", runtime.node_name, request.verb());
        pending.insert(token, (now + PENDING_LIFETIME, request));
        Ok(url)
    }

    /// The request of a path, once.
    fn take(&self, now: Duration, path: &str) -> Option<Pending> {
        let (verb, token) = path.strip_prefix('/')?.split_once('/')?;
        let (expires, request) = self.pending.lock().remove(token)?;
        (expires > now && request.verb() == verb).then_some(request)
    }
}

/// Connects to a runtime of the same process.
pub(crate) fn connector(runtime: Arc<SimRuntime>) -> Arc<dyn StreamConnector> {
    Arc::new(InProcess(runtime))
}

struct InProcess(Arc<SimRuntime>);

#[async_trait]
impl StreamConnector for InProcess {
    async fn connect(&self, _url: &Uri) -> io::Result<BoxedStream> {
        let runtime = self.0.clone();
        if runtime.check_power().is_err() {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (near, far) = minik8s_streaming::pair();
        let off = runtime.powered_off.clone();
        let tasks = runtime.tasks.clone();
        let service = service_fn(move |request| {
            let answer = answer(runtime.clone(), request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), service);
        tasks.spawn(async move {
            tokio::select! {
                biased;
                () = off.cancelled() => {}
                served = connection.with_upgrades() => tracing::debug!(?served, "stream served"),
            }
        });
        Ok(near)
    }
}

fn refuse(status: StatusCode, message: String) -> Response<Body> {
    let mut response = Response::new(Either::Right(Full::from(message)));
    *response.status_mut() = status;
    response
}

async fn answer(runtime: Arc<SimRuntime>, mut request: Request<Incoming>) -> Response<Body> {
    let now = runtime.clock.monotonic();
    let Some(pending) = runtime.streams.take(now, request.uri().path()) else {
        return refuse(StatusCode::NOT_FOUND, "the address was used before, or has expired".to_string());
    };
    let (container_id, streams) = match &pending {
        Pending::Exec(exec) => {
            let ExecRequest { stdin, stdout, stderr, tty, .. } = *exec;
            (&exec.container_id, remotecommand::Streams { stdin, stdout, stderr, tty })
        }
        Pending::Attach(attach) => {
            let AttachRequest { stdin, stdout, stderr, tty, .. } = *attach;
            (&attach.container_id, remotecommand::Streams { stdin, stdout, stderr, tty })
        }
        Pending::PortForward => {
            let message = "port forwarding needs SPDY/3.1, which this runtime does not serve".to_string();
            return refuse(StatusCode::NOT_IMPLEMENTED, message);
        }
    };
    let container = match runtime.container(container_id) {
        Ok(container) => container,
        Err(error) => return refuse(StatusCode::NOT_FOUND, error.to_string()),
    };
    let (response, upgrade) = match remotecommand::accept(&mut request, streams) {
        Ok(accepted) => accepted,
        Err(error) => return refuse(error.status(), error.to_string()),
    };
    runtime.clone().tasks.spawn(async move {
        match upgrade.open().await {
            Ok(session) => tokio::select! {
                biased;
                () = runtime.powered_off.cancelled() => {}
                () = serve(&runtime, &container, pending, session) => {}
            },
            Err(error) => tracing::debug!(%error, "upgrade was not completed"),
        }
    });
    response.map(Either::Left)
}

async fn serve(runtime: &SimRuntime, container: &Arc<Container>, pending: Pending, session: Session) {
    match pending {
        Pending::Exec(request) => exec(runtime, container, request, session).await,
        Pending::Attach(_) => attach(runtime, container, session).await,
        Pending::PortForward => {}
    }
}

async fn exec(runtime: &SimRuntime, container: &Arc<Container>, request: ExecRequest, mut session: Session) {
    let executed = match execute(runtime, container, &request.cmd, request.tty) {
        Ok(executed) => executed,
        Err(error) => {
            let message = format!("error executing command in container: {error}");
            return session.finish(ExitStatus::Failed(message)).await;
        }
    };
    let stdin = session.stdin.take();
    let output = |channel: Option<remotecommand::ChannelWriter>| match channel {
        Some(channel) => Output::new(Channel(channel)),
        None => Output::null(),
    };
    let (stdout, stderr) = (output(session.stdout.take()), output(session.stderr.take()));
    let run = if request.tty {
        run_on_terminal(container, executed, stdin, stdout)
    } else {
        let stdin = stdin.map_or_else(Input::empty, Input::stream);
        Box::pin(executed.run(stdin, stdout, stderr))
    };
    let code = tokio::select! {
        biased;
        code = run => code,
        // Without a client nobody waits for the command; dropping it kills it.
        () = session.closed() => return,
    };
    let status = match code {
        0 => ExitStatus::Success,
        code => ExitStatus::Code {
            code,
            message: format!("error executing command [{}], exit code {code}", request.cmd.join(" ")),
        },
    };
    session.finish(status).await;
}

fn run_on_terminal(
    container: &Arc<Container>,
    executed: Executed,
    keys: Option<tokio::io::DuplexStream>,
    screen: Output,
) -> futures::future::BoxFuture<'static, i32> {
    let (pid, processes) = (executed.pid(), container.world.processes.clone());
    let signal = move |signal: Signal| {
        if processes.signal_descendants(pid, signal) == 0 {
            processes.signal(pid, signal);
        }
    };
    let (stdin, screen) = match keys {
        Some(keys) => terminal::open(keys, screen, signal),
        None => terminal::open(tokio::io::empty(), screen, signal),
    };
    Box::pin(executed.run(stdin, screen.clone(), screen))
}

/// Joins a client to the container's own streams, until the container ends or the client goes.
async fn attach(runtime: &SimRuntime, container: &Arc<Container>, mut session: Session) {
    for (stream, channel) in [(LogStream::Stdout, session.stdout.take()), (LogStream::Stderr, session.stderr.take())] {
        if let Some(channel) = channel
            && !container.log.attach(stream, channel)
        {
            let message = "too many clients are attached to the container".to_string();
            return session.finish(ExitStatus::Failed(message)).await;
        }
    }
    // A task of its own, so that it can give the container's stdin back when the client is gone.
    runtime.tasks.spawn(pump_stdin(container.clone(), session.stdin.take()));
    tokio::select! {
        biased;
        () = container.wait() => {}
        () = session.closed() => return,
    }
    session.finish(ExitStatus::Success).await;
}

/// Copies what the client types to the container; the container's stdin goes back when the client is gone.
async fn pump_stdin(container: Arc<Container>, from: Option<tokio::io::DuplexStream>) {
    let Some(mut from) = from else { return };
    let Some(mut to) = container.take_stdin().await else { return };
    if let Err(error) = tokio::io::copy(&mut from, &mut to).await {
        tracing::debug!(%error, "attached stdin ended");
    }
    if container.config.stdin_once {
        // A process that has closed its end needs no end of file.
        let _closed = to.shutdown().await;
    } else {
        container.return_stdin(to).await;
    }
}
