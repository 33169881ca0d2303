//! Writes: decode, ask the registry, answer.

use axum::body::Body;
use http::{Response, StatusCode};
use minik8s_api::kinds::GroupVersionKind;
use minik8s_api::status::Status;
use serde_json::Value;

use super::body;
use super::read::{answer_scale, answer_value, cached_object, list_metadata, list_value};
use super::resource::Request;
use crate::cache::Selection;
use crate::negotiate::{self, Form};
use crate::options::{DeleteOptions, ListOptions, Write, WriteOptions};
use crate::registry::patch::PatchType;
use crate::registry::{Target, Written};
use crate::server::ApiServer;
use crate::tokens::Tokens;

async fn written(
    server: &ApiServer,
    request: &Request,
    target: &Target,
    written: Written,
    form: Form,
) -> Result<Response<Body>, Status> {
    let code = if written.created { StatusCode::CREATED } else { StatusCode::OK };
    match &written.stored {
        Some(object) => cached_object(server, request, target, object, form, code).await,
        None => answer_value(server, request, target, written.object, form, code),
    }
}

/// POST to a collection.
pub async fn create(
    server: &ApiServer,
    request: &Request,
    target: &Target,
    body: Body,
) -> Result<Response<Body>, Status> {
    let headers = &request.parts.headers;
    let form = negotiate::answer(headers, !target.kind.custom)?;
    let options = WriteOptions::parse(&request.query, Write::Create)?;
    negotiate::body_encoding(headers, !target.kind.custom)?;
    let bytes = body::read(body).await?;
    let context = request.context();
    let object = body::object(&context, &target.kind, headers, &bytes, options.field_validation)?;
    let done = server.registry().create(&context, target, object, &options).await?;
    written(server, request, target, done, form).await
}

/// PUT to an object, or to a part of it that has its kind.
pub async fn update(
    server: &ApiServer,
    request: &Request,
    target: &Target,
    body: Body,
) -> Result<Response<Body>, Status> {
    let headers = &request.parts.headers;
    let form = negotiate::answer(headers, !target.kind.custom)?;
    let options = WriteOptions::parse(&request.query, Write::Update)?;
    negotiate::body_encoding(headers, !target.kind.custom)?;
    let bytes = body::read(body).await?;
    let context = request.context();
    let object = body::object(&context, &target.kind, headers, &bytes, options.field_validation)?;
    let done = server.registry().update(&context, target, object, &options).await?;
    written(server, request, target, done, form).await
}

/// PATCH.
pub async fn patch(
    server: &ApiServer,
    request: &Request,
    target: &Target,
    body: Body,
) -> Result<Response<Body>, Status> {
    let headers = &request.parts.headers;
    let form = negotiate::answer(headers, !target.kind.custom)?;
    let patch_type = body::patch_type(&target.kind, headers)?;
    let write = if patch_type == PatchType::Apply { Write::Apply } else { Write::Patch };
    let options = WriteOptions::parse(&request.query, write)?;
    let bytes = body::read(body).await?;
    let patch = body::patch(&target.kind, headers, &bytes)?;
    request.reply.audit.request_patch(&patch.body);
    let done = server.registry().patch(&request.context(), target, &patch, &options).await?;
    written(server, request, target, done, form).await
}

/// PUT and PATCH of a Scale.
pub async fn scale(
    server: &ApiServer,
    request: &Request,
    target: &Target,
    body: Body,
) -> Result<Response<Body>, Status> {
    let headers = &request.parts.headers;
    let form = negotiate::answer(headers, true)?;
    let (registry, context) = (server.registry(), request.context());
    let scale = if request.info.verb == "patch" {
        let write =
            if body::patch_type(&target.kind, headers)? == PatchType::Apply { Write::Apply } else { Write::Patch };
        let options = WriteOptions::parse(&request.query, write)?;
        let patch = body::patch(&target.kind, headers, &body::read(body).await?)?;
        context.audit.request_patch(&patch.body);
        registry.patch_scale(&context, target, &patch, &options).await?
    } else {
        let options = WriteOptions::parse(&request.query, Write::Update)?;
        let bytes = body::read(body).await?;
        let scale = body::object_of(&context, subresource_kind(target)?, headers, &bytes, options.field_validation)?;
        registry.update_scale(&context, target, scale, &options).await?
    };
    answer_scale(server, request, scale, form)
}

fn subresource_kind(target: &Target) -> Result<GroupVersionKind, Status> {
    target.kind.subresource(&target.subresource).map(|part| part.kind.clone()).ok_or_else(Status::unknown_resource)
}

/// The options of a delete: the body's, or the query's.
async fn delete_options(request: &Request, body: Body) -> Result<DeleteOptions, Status> {
    let bytes = body::read(body).await?;
    if bytes.is_empty() {
        return DeleteOptions::from_query(&request.query);
    }
    DeleteOptions::from_value(&body::options(&request.context(), "DeleteOptions", &request.parts.headers, &bytes)?)
}

/// DELETE of one object.
pub async fn delete(
    server: &ApiServer,
    request: &Request,
    target: &Target,
    body: Body,
) -> Result<Response<Body>, Status> {
    let form = negotiate::answer(&request.parts.headers, !target.kind.custom)?;
    let options = delete_options(request, body).await?;
    let deleted = server.registry().delete(&request.context(), target, &options).await?;
    if deleted.answer_object {
        return answer_value(server, request, target, deleted.object, form, StatusCode::OK);
    }
    let uid = deleted.object["metadata"]["uid"].as_str().unwrap_or_default();
    Ok(request.reply.status(&Status::success(&target.resource(), &target.name, uid)))
}

/// DELETE of a collection.
pub async fn delete_collection(
    server: &ApiServer,
    request: &Request,
    target: &Target,
    body: Body,
) -> Result<Response<Body>, Status> {
    let encoding = negotiate::plain(&request.parts.headers)?;
    let list = ListOptions::parse(&request.query, false)?;
    let options = delete_options(request, body).await?;
    let selection = Selection::parse(&target.kind, &target.namespace, &list.labels, &list.fields)?;
    let (context, query, registry) = (request.context(), list.list_query()?, server.registry());
    let deleted = registry.delete_collection(&context, target, &selection, &query, &options).await?;
    let (listing, deleted) = deleted;
    let list = list_value(&target.kind, list_metadata(&listing, target.kind.custom), deleted);
    Ok(request.reply.value(StatusCode::OK, encoding, &list))
}

/// POST of a review: answered, never stored.
pub async fn review(
    server: &ApiServer,
    request: &Request,
    target: &Target,
    body: Body,
) -> Result<Response<Body>, Status> {
    let headers = &request.parts.headers;
    let encoding = negotiate::plain(headers)?;
    let options = WriteOptions::parse(&request.query, Write::Create)?;
    let bytes = body::read(body).await?;
    let review = body::object(&request.context(), &target.kind, headers, &bytes, options.field_validation)?;
    let answer = server.reviews().create(&target.kind.plural, &target.namespace, review, &request.user).await?;
    Ok(request.reply.value(StatusCode::CREATED, encoding, &answer))
}

/// POST of a Binding, to a pod or to the namespace's bindings.
pub async fn bind(
    server: &ApiServer,
    request: &Request,
    target: &Target,
    body: Body,
) -> Result<Response<Body>, Status> {
    let options = WriteOptions::parse(&request.query, Write::Create)?;
    let (headers, context) = (&request.parts.headers, request.context());
    let bytes = body::read(body).await?;
    let kind = GroupVersionKind::new("", "v1", "Binding");
    let binding = body::object_of(&context, kind, headers, &bytes, options.field_validation)?;
    let name = if target.name.is_empty() { minik8s_api::meta::name(&binding) } else { &target.name };
    let pod = server.registry().target("", "v1", "pods", &target.namespace, name)?.subresource("binding");
    let status = server.registry().bind(&context, &pod, &binding, &options).await?;
    Ok(request.reply.status(&status))
}

/// POST of an Eviction.
pub async fn evict(
    server: &ApiServer,
    request: &Request,
    target: &Target,
    body: Body,
) -> Result<Response<Body>, Status> {
    let (headers, context) = (&request.parts.headers, request.context());
    negotiate::plain(headers)?;
    let options = WriteOptions::parse(&request.query, Write::Create)?;
    let bytes = body::read(body).await?;
    let eviction = body::object_of(&context, subresource_kind(target)?, headers, &bytes, options.field_validation)?;
    let status = server.registry().evict(&context, target, &eviction, &options).await?;
    Ok(request.reply.status(&status))
}

/// POST of a TokenRequest to a service account.
pub async fn token(
    server: &ApiServer,
    request: &Request,
    target: &Target,
    body: Body,
) -> Result<Response<Body>, Status> {
    let headers = &request.parts.headers;
    let encoding = negotiate::plain(headers)?;
    let options = WriteOptions::parse(&request.query, Write::Create)?;
    let (bytes, context) = (body::read(body).await?, request.context());
    let wanted = body::object_of(&context, subresource_kind(target)?, headers, &bytes, options.field_validation)?;
    let (tokens, (namespace, name)) = (server.tokens(), (&*target.namespace, &*target.name));
    let mut wanted = wanted;
    Tokens::set_defaults(&mut wanted);
    let prepare = |wanted: &mut Value| tokens.prepare(namespace, name, wanted);
    let wanted = server.registry().admit_subresource(&context, target, wanted, &options, prepare).await?;
    let answer = tokens.issue(namespace, name, wanted, &context.audit)?;
    Ok(request.reply.value(StatusCode::CREATED, encoding, &answer))
}
