//! From a request to the handler of its verb: which kind, which subresource, may it be asked that.

use axum::body::Body;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use minik8s_api::kinds::Kind;
use minik8s_api::status::Status;
use std::sync::Arc;

use super::respond::Reply;
use super::{connect, read, watch, write};
use crate::identity::UserInfo;
use crate::negotiate;
use crate::options::ListOptions;
use crate::query::Query;
use crate::registry::{Context, Target};
use crate::request::RequestInfo;
use crate::reviews::Reviews;
use crate::server::ApiServer;

/// An authorized request about a resource.
pub struct Request {
    /// Its reading.
    pub info: RequestInfo,
    /// Its query.
    pub query: Query,
    /// Method, headers, extensions.
    pub parts: Parts,
    /// Who asks.
    pub user: UserInfo,
    /// What the answer depends on besides its content.
    pub reply: Reply,
}

impl Request {
    /// The registry's view of the caller.
    pub fn context(&self) -> Context {
        let agent =
            self.parts.headers.get(http::header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        Context {
            warnings: self.reply.warnings.clone(),
            audit: self.reply.audit.clone(),
            ..Context::new(self.user.clone(), agent)
        }
    }
}

/// Serves a request about a resource.
pub async fn serve(server: &Arc<ApiServer>, request: Request, body: Body) -> Result<Response<Body>, Status> {
    let info = &request.info;
    let kinds = server.kinds();
    if !kinds.has_version(&info.group, &info.version) {
        return Ok(request.reply.text(StatusCode::NOT_FOUND, "404 page not found\n"));
    }
    let kind = kinds.by_resource(&info.group, &info.version, &info.resource).cloned();
    // A group of definitions is nobody's route: what no definition serves is not found by the router.
    let custom = kinds.of_version(&info.group, &info.version).all(|kind| kind.custom);
    let scope = kind.as_ref().map_or_else(|| Err(Status::unknown_resource()), |kind| check_scope(kind, info));
    if custom && scope.is_err() {
        return Ok(request.reply.text(StatusCode::NOT_FOUND, "404 page not found\n"));
    }
    scope?;
    if request.parts.method == Method::HEAD {
        return Err(Status::method_not_allowed());
    }
    let kind = kind.ok_or_else(Status::unknown_resource)?;
    if let Some(sentence) = kind.deprecation() {
        request.reply.warnings.add(sentence);
    }
    let mut target = Target::new(Arc::clone(&kind), &info.namespace, &info.name);
    if !kind.custom && !connect::CONNECTIONS.contains(&info.subresource.as_str()) {
        let watchable = matches!(info.verb.as_str(), "list" | "watch");
        negotiate::check_route(&request.parts.headers, watchable)?;
    }
    target.subresource.clone_from(&info.subresource);

    if info.subresource.is_empty() {
        let needs_name = matches!(info.verb.as_str(), "update" | "patch");
        let refuses_name = info.verb == "create";
        // Admission says why nothing is created any more while a definition goes.
        let ends = kind.definition.as_ref().is_some_and(|definition| definition.terminating);
        let allowed = kind.allows(&info.verb) || (ends && info.verb == "create");
        if !allowed || (info.name.is_empty() && needs_name) || (!info.name.is_empty() && refuses_name) {
            return Err(refused(&kind, info));
        }
        if Reviews::serves(&kind.group, &kind.plural) {
            return write::review(server, &request, &target, body).await;
        }
        if kind.group.is_empty() && kind.plural == "componentstatuses" {
            return read::component_statuses(server, &request, &target).await;
        }
        if kind.group.is_empty() && kind.plural == "bindings" {
            return write::bind(server, &request, &target, body).await;
        }
        return whole(server, request, target, body).await;
    }
    let subresource = kind.subresource(&info.subresource).ok_or_else(|| match kind.custom {
        true => target.not_found(),
        false => Status::unknown_resource(),
    })?;
    if !subresource.verbs.contains(&info.verb) {
        return Err(refused(&kind, info));
    }
    if connect::CONNECTIONS.contains(&info.subresource.as_str()) {
        return connect::serve(server, request, target, body).await;
    }
    part(server, request, target, body).await
}

/// A verb that a resource does not have: custom resources have no routes that could say it.
fn refused(kind: &Kind, info: &RequestInfo) -> Status {
    match kind.custom {
        true => Status::method_not_supported(&kind.group_resource(), &info.verb),
        false => Status::method_not_allowed(),
    }
}

/// A request for whole objects.
async fn whole(
    server: &Arc<ApiServer>,
    request: Request,
    target: Target,
    body: Body,
) -> Result<Response<Body>, Status> {
    match request.info.verb.as_str() {
        "get" => read::get(server, &request, &target).await,
        "list" => read::list(server, &request, &target).await,
        "watch" => {
            let form = negotiate::answer(&request.parts.headers, !target.kind.custom)?;
            let mut options = ListOptions::parse(&request.query, true)?;
            options.pin_name(&target.name);
            watch::serve(server, &request, &target, options, form).await
        }
        "create" => write::create(server, &request, &target, body).await,
        "update" => write::update(server, &request, &target, body).await,
        "patch" => write::patch(server, &request, &target, body).await,
        "delete" => write::delete(server, &request, &target, body).await,
        "deletecollection" => write::delete_collection(server, &request, &target, body).await,
        _ => Err(Status::method_not_allowed()),
    }
}

/// A request for a part of an object.
async fn part(server: &Arc<ApiServer>, request: Request, target: Target, body: Body) -> Result<Response<Body>, Status> {
    match (request.info.verb.as_str(), target.subresource.as_str()) {
        ("get", "scale") => read::scale(server, &request, &target).await,
        ("update" | "patch", "scale") => write::scale(server, &request, &target, body).await,
        ("get", _) => read::get(server, &request, &target).await,
        ("update", _) => write::update(server, &request, &target, body).await,
        ("patch", _) => write::patch(server, &request, &target, body).await,
        ("create", "binding") => write::bind(server, &request, &target, body).await,
        ("create", "eviction") => write::evict(server, &request, &target, body).await,
        ("create", "token") => write::token(server, &request, &target, body).await,
        _ => Err(Status::method_not_allowed()),
    }
}

/// A cluster-scoped kind is not found in a namespace; a namespaced one is only read across all of them.
fn check_scope(kind: &Kind, info: &RequestInfo) -> Result<(), Status> {
    // `pods//p` names no pod, and nothing of one; a path that begins with two slashes is none of the API's.
    if (info.name.is_empty() && !info.subresource.is_empty()) || info.path.starts_with("//") {
        return Err(Status::unknown_resource());
    }
    let in_namespace = !info.namespace.is_empty() && info.resource != "namespaces";
    if in_namespace && !kind.namespaced {
        return Err(Status::unknown_resource());
    }
    if kind.namespaced && !in_namespace && !matches!(info.verb.as_str(), "list" | "watch") {
        return Err(if info.name.is_empty() || info.verb == "deletecollection" {
            Status::method_not_allowed()
        } else {
            Status::unknown_resource()
        });
    }
    Ok(())
}
