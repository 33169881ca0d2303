//! Subresources that are connections: logs, exec, attach and port-forward go to the kubelet of the pod's node; proxies go
//! to a kubelet, a pod or a service. The server passes bytes on and looks at none of them.
//!
//! `pkg/registry/core/pod/strategy.go` (`LogLocation`, `streamLocation`), `pkg/registry/core/pod/rest/subresources.go`,
//! `k8s.io/apimachinery/pkg/util/proxy/upgradeaware.go`.

mod location;

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use http::header::{CONNECTION, UPGRADE};
use http::{Response, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use minik8s_api::status::Status;
use minik8s_streaming::BoxedStream;
use minik8s_streaming::messages::Framing;
use minik8s_streaming::proxy::forward;
use rustls::pki_types::ServerName;

use self::location::{Location, Peer, Scheme};
use super::held::Held;
use super::messages;
use super::resource::Request;
use crate::outgoing::Endpoint;
use crate::outgoing::tls::{self, Trust};
use crate::places::Place;
use crate::registry::Target;
use crate::registry::read::Freshness;
use crate::server::ApiServer;

/// Reaches the HTTP API of a node's kubelet: a byte stream on which HTTP/1.1 is spoken.
#[async_trait]
pub trait NodeConnector: Send + Sync {
    /// Opens a stream to the kubelet of a node.
    async fn connect(&self, node: &str) -> io::Result<BoxedStream>;
}

/// Subresources that are a connection to a node rather than a part of an object.
pub const CONNECTIONS: [&str; 5] = ["attach", "exec", "log", "portforward", "proxy"];

/// How much of a kubelet's error is passed on (`k8s.io/apiserver/pkg/registry/generic/rest/response_checker.go`).
const MAX_ERROR_BYTES: usize = 50_000;

/// A log over a WebSocket, as it comes.
const LOG_MESSAGES: messages::Form = messages::Form {
    protocols: &[("", Framing::Binary), ("binary.k8s.io", Framing::Binary), ("base64.binary.k8s.io", Framing::Base64)],
    by_line: false,
    greets: true,
};

/// Serves a connection.
pub async fn serve(
    server: &Arc<ApiServer>,
    request: Request,
    target: Target,
    body: Body,
) -> Result<Response<Body>, Status> {
    let place = server.places().tunnel()?;
    let (registry, query) = (server.registry(), &request.query);
    // A log is read, not connected to.
    if target.subresource != "log" {
        registry.admit_connect(&request.context(), &target, query, &request.info.rest).await?;
    }
    if matches!(target.subresource.as_str(), "exec" | "attach" | "portforward") {
        server.authorize_verb(&request, "create")?;
    }
    let location = if target.subresource == "proxy" {
        // The names of a proxy carry scheme and port: they are resolved by a rule of their own.
        location::proxy(server, &target, &request.info, request.parts.uri.query().unwrap_or_default())?
    } else {
        let pod = registry.get(&target, Freshness::Any).await?.value();
        match target.subresource.as_str() {
            "log" => match location::log(&pod, query)? {
                Some(location) => location,
                // A pod without a node has not said anything yet.
                None => return Ok(request.reply.text(StatusCode::OK, "")),
            },
            "exec" => location::stream(&pod, query, "exec", true)?,
            "attach" => location::stream(&pod, query, "attach", false)?,
            "portforward" => location::port_forward(&pod, query)?,
            _ => return Err(Status::unknown_resource()),
        }
    };
    pass_on(server, request, &target, location, place, body).await
}

async fn pass_on(
    server: &ApiServer,
    request: Request,
    target: &Target,
    location: Location,
    place: Place,
    body: Body,
) -> Result<Response<Body>, Status> {
    let uri: Uri =
        location.path_and_query.parse().map_err(|error| Status::bad_request(format!("invalid path: {error}")))?;
    let stream = match &location.peer {
        Peer::Kubelet(node) => server.nodes().connect(node).await.map_err(|error| {
            if target.subresource == "proxy" {
                return unreachable_service(&error.to_string());
            }
            let url = format!("https://{node}:10250{}", location.path_and_query);
            Status::internal_error(format!("error dialing backend: Get {url:?}: {error}"))
        }),
        Peer::Endpoint(scheme, endpoint) => {
            reach(server, *scheme, endpoint).await.map_err(|error| unreachable_service(&error))
        }
    }?;
    let Request { mut parts, reply, .. } = request;
    parts.uri = uri;
    let is_log = target.subresource == "log";
    let asked = is_log.then(|| parts.clone());
    if is_log {
        // The kubelet answers with a body in any case.
        for name in [CONNECTION, UPGRADE] {
            parts.headers.remove(name);
        }
    }
    let sent = http::Request::from_parts(parts, body);
    let answer = forward(sent, reply.hold(Box::new(Held::new(stream, place))))
        .await
        .map_err(|error| Status::internal_error(format!("error dialing backend: {error}")))?;
    if is_log && !answer.status().is_success() {
        return Err(kubelet_error(target, answer).await);
    }
    let mut answer = answer.map(Body::new);
    for warning in reply.warnings.take() {
        if let Ok(value) = super::respond::warning_header(&warning).parse() {
            answer.headers_mut().append(http::header::WARNING, value);
        }
    }
    match asked {
        Some(parts) => messages::instead_of_body(&parts, LOG_MESSAGES, answer),
        None => Ok(answer),
    }
}

/// Whoever answers for a pod or a Service is taken, as by Kubernetes' proxy.
async fn reach(server: &ApiServer, scheme: Scheme, endpoint: &Endpoint) -> Result<BoxedStream, String> {
    let outgoing = server.outgoing();
    let stream = outgoing.dial(endpoint).await?;
    if scheme == Scheme::Http {
        return Ok(stream);
    }
    let connector = tls::connector(Trust::Anybody, None, outgoing.clock())?;
    let name = ServerName::try_from(endpoint.host.clone()).map_err(|error| error.to_string())?;
    tls::handshake(&connector, &name, stream).await
}

fn unreachable_service(why: &str) -> Status {
    Status::service_unavailable(format!("error trying to reach service: {why}"))
}

/// A kubelet's refusal as a Status (`GenericHttpResponseChecker`).
async fn kubelet_error(target: &Target, answer: Response<hyper::body::Incoming>) -> Status {
    let code = answer.status();
    let text = match Limited::new(answer.into_body(), MAX_ERROR_BYTES).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).trim_end().to_owned(),
        Err(error) => error.to_string(),
    };
    match code {
        StatusCode::INTERNAL_SERVER_ERROR => Status::internal_error(text),
        StatusCode::BAD_REQUEST => Status::bad_request(text),
        StatusCode::NOT_FOUND => {
            let mut status = Status::not_found(&target.resource(), &target.name);
            status.message = format!("the server could not find the requested resource ({text})");
            status
        }
        code => Status { code: code.as_u16(), ..Status::internal_error(text) },
    }
}
