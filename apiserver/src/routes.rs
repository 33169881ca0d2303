//! Paths that are not resources: discovery, OpenAPI, health, metrics, keys, and what the binary adds.

use std::sync::Arc;

use axum::body::Body;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderValue, Response, StatusCode};
use minik8s_api::status::Status;
use minik8s_metrics::Text;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::aggregator::{self, front_proxy, services};
use crate::discovery;
use crate::documents::Document;
use crate::endpoints::resource::Request;
use crate::health::Probe;
use crate::metrics;
use crate::negotiate::{self, Encoding};
use crate::server::ApiServer;
use crate::version;

/// Serves a path.
pub async fn serve(server: &Arc<ApiServer>, request: Request, body: Body) -> Result<Response<Body>, Status> {
    let path = request.info.path.clone();
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    let method = request.parts.method.as_str();
    let read = method == "GET" || (method == "HEAD" && !matches!(first, "api" | "version"));
    if !read
        && matches!(first, "" | "api" | "apis" | "version" | "openapi" | "metrics" | "healthz" | "livez" | "readyz")
    {
        return Err(Status::method_not_allowed());
    }
    match first {
        "" => Ok(request.reply.json(StatusCode::OK, json!({ "paths": paths(server) }).to_string().into())),
        "api" | "apis" => Ok(discover(server, &request, &path)),
        "version" => Ok(request.reply.json(StatusCode::OK, version::info().to_string().into())),
        "healthz" => Ok(probe(server, &request, Probe::Healthz, &path)),
        "livez" => Ok(probe(server, &request, Probe::Livez, &path)),
        "readyz" => Ok(probe(server, &request, Probe::Readyz, &path)),
        "metrics" => match path.trim_end_matches('/') {
            "/metrics" => Ok(exposition(&request, metrics::render(server))),
            "/metrics/slis" => {
                let mut text = Text::default();
                server.health().write(&mut text);
                Ok(exposition(&request, text.finish()))
            }
            _ => Ok(request.reply.text(StatusCode::NOT_FOUND, "404 page not found\n")),
        },
        "openapi" => match path.as_str() {
            "/openapi/v2" if wants_gnostic(&request) => {
                let found = server.openapi().v2_protobuf(&server.surface(), server.aggregator().documents());
                Ok(found.map_or_else(
                    || request.reply.text(StatusCode::NOT_FOUND, "404 page not found\n"),
                    |found| document(&request, GNOSTIC_V2, &found),
                ))
            }
            "/openapi/v2" => openapi(&request, server.openapi().v2(&server.surface(), server.aggregator().documents())),
            "/openapi/v3" => {
                openapi(&request, server.openapi().index(&server.surface(), server.aggregator().documents()))
            }
            _ => match path.strip_prefix("/openapi/v3/") {
                Some(place) => match server.aggregator().other(place) {
                    Some(other) => {
                        let request = Request { user: front_proxy::aggregator(), ..request };
                        let place = server.places().tunnel()?;
                        Ok(aggregator::passed_on(server.aggregator(), &other, place, request, body).await)
                    }
                    None => openapi(&request, server.openapi().v3(&server.kinds(), place)),
                },
                None => extra(server, request, body).await,
            },
        },
        _ => match path.as_str() {
            "/openid/v1/jwks" => Ok(published(&request, "application/jwk-set+json", &server.tokens().key_set())),
            "/.well-known/openid-configuration" => {
                let configuration = server.tokens().openid_configuration(&server.address().to_string());
                Ok(published(&request, negotiate::JSON, &configuration))
            }
            _ => extra(server, request, body).await,
        },
    }
}

/// A document by which others verify this server's tokens; it changes so seldom that they may keep it.
fn published(request: &Request, media_type: &'static str, document: &serde_json::Value) -> Response<Body> {
    let mut response = request.reply.json(StatusCode::OK, document.to_string().into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}

/// What the binary serves beside the API, or 404.
async fn extra(server: &ApiServer, request: Request, body: Body) -> Result<Response<Body>, Status> {
    let reply = request.reply.clone();
    let fallback = move || {
        let reply = reply.clone();
        async move { reply.text(StatusCode::NOT_FOUND, "404 page not found\n") }
    };
    let routes = server.extra_routes().fallback(fallback);
    match routes.oneshot(http::Request::from_parts(request.parts, body)).await {
        Ok(response) => Ok(response),
        Err(never) => match never {},
    }
}

fn paths(server: &ApiServer) -> Vec<String> {
    let mut paths = vec!["/api".to_owned(), "/apis".to_owned()];
    for group in services::groups(&server.kinds(), &server.aggregator().services()) {
        let prefix = if group.name.is_empty() { "/api".to_owned() } else { format!("/apis/{}", group.name) };
        if !group.name.is_empty() {
            paths.push(prefix.clone());
        }
        paths.extend(group.versions.iter().map(|version| format!("{prefix}/{}", version.name)));
    }
    let own = [
        "/.well-known/openid-configuration",
        "/healthz",
        "/livez",
        "/metrics",
        "/metrics/slis",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ];
    paths.extend(own.map(str::to_owned));
    paths.extend(server.health().paths());
    paths.sort();
    paths
}

fn discover(server: &ApiServer, request: &Request, path: &str) -> Response<Body> {
    let (surface, address) = (server.surface(), server.address().to_string());
    let headers = &request.parts.headers;
    let root = matches!(path.trim_end_matches('/'), "/api" | "/apis");
    let aggregated = if root {
        negotiate::accepted_as(headers, discovery::GROUP, discovery::LIST, &discovery::VERSIONS)
    } else {
        None
    };
    let others = server.aggregator().documents();
    let Some(found) = server.discovery().document(&surface, others, path, aggregated, &address) else {
        return request.reply.text(StatusCode::NOT_FOUND, "404 page not found\n");
    };
    match aggregated {
        None => match negotiate::plain(headers) {
            Err(status) => request.reply.status(&status),
            Ok(Encoding::Json) => request.reply.json(StatusCode::OK, found.bytes),
            Ok(encoding) => {
                let value: Value = serde_json::from_slice(&found.bytes).unwrap_or_default();
                request.reply.value(StatusCode::OK, encoding, &value)
            }
        },
        Some(version) => {
            let media_type = format!("application/json;g={};v={version};as={}", discovery::GROUP, discovery::LIST);
            document(request, &media_type, &found)
        }
    }
}

/// A document with an entity tag.
fn document(request: &Request, media_type: &str, document: &Document) -> Response<Body> {
    let known = request.parts.headers.get(IF_NONE_MATCH).is_some_and(|tag| tag.as_bytes() == document.etag.as_bytes());
    let mut response = if known {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        request.reply.json(StatusCode::OK, document.bytes.clone())
    };
    let headers = response.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(&document.etag) {
        headers.insert(ETAG, etag);
    }
    if let (false, Ok(media_type)) = (known, HeaderValue::from_str(media_type)) {
        headers.insert(CONTENT_TYPE, media_type);
    }
    response
}

/// OpenAPI version 2 in protobuf, as it is answered, and as clients ask for it.
const GNOSTIC_V2: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const GNOSTIC_V2_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// Whether the first thing that the client accepts is protobuf. (Kubernetes: `kube-openapi/pkg/handler/handler.go`.)
fn wants_gnostic(request: &Request) -> bool {
    let accept = request.parts.headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    let first = accept.and_then(|accept| accept.split([',', ';']).next()).unwrap_or_default().trim();
    first == GNOSTIC_V2 || first == GNOSTIC_V2_ASKED
}

/// Otherwise OpenAPI documents are served as JSON; a client that takes only the protobuf form of version 3 is told so.
fn openapi(request: &Request, found: Option<Document>) -> Result<Response<Body>, Status> {
    let accept = request.parts.headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let json = |clause: &str| {
        matches!(clause.split(';').next().unwrap_or_default().trim(), negotiate::JSON | "*/*" | "application/*")
    };
    if !accept.is_empty() && !accept.split(',').any(json) {
        return Err(Status::not_acceptable(&[negotiate::JSON]));
    }
    Ok(match found {
        Some(found) => document(request, negotiate::JSON, &found),
        None => request.reply.text(StatusCode::NOT_FOUND, "404 page not found\n"),
    })
}

fn probe(server: &ApiServer, request: &Request, probe: Probe, path: &str) -> Response<Body> {
    let name = path
        .trim_start_matches('/')
        .split_once('/')
        .map(|(_, name)| name.trim_matches('/'))
        .filter(|name| !name.is_empty());
    let answer = server.health().probe(probe, name, &request.query);
    request.reply.text(StatusCode::from_u16(answer.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), answer.text)
}

/// Metrics, as Prometheus reads them.
fn exposition(request: &Request, text: String) -> Response<Body> {
    let mut response = request.reply.text(StatusCode::OK, text);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    response
}
