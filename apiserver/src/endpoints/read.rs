//! Get and list.

use std::sync::Arc;

use axum::body::Body;
use http::{Response, StatusCode};
use minik8s_api::kinds::Kind;
use minik8s_api::status::Status;
use serde_json::{Map, Value, json};

use super::pieces::Pieces;
use super::resource::Request;
use super::table::{self, IncludeObject};
use crate::cache::object::View;
use crate::cache::{Object, Selection};
use crate::health::ComponentStatus;
use crate::negotiate::{self, Form, Transform};
use crate::options::{ListOptions, get_freshness};
use crate::registry::Target;
use crate::registry::read::Listing;
use crate::server::ApiServer;

/// One object.
pub async fn get(server: &ApiServer, request: &Request, target: &Target) -> Result<Response<Body>, Status> {
    let form = negotiate::answer(&request.parts.headers, !target.kind.custom)?;
    let object = server.registry().get(target, get_freshness(&request.query)?).await?;
    cached_object(server, request, target, &object, form, StatusCode::OK).await
}

/// Answers with a cached object; its bytes go out as they are wherever they can.
pub async fn cached_object(
    server: &ApiServer,
    request: &Request,
    target: &Target,
    object: &Arc<Object>,
    form: Form,
    code: StatusCode,
) -> Result<Response<Body>, Status> {
    if form == Form::default() && is_served_as_stored(target, object) {
        return Ok(request.reply.json(code, object.json()));
    }
    answer_value(server, request, target, server.registry().served(target, object).await?, form, code)
}

/// Whether an object's bytes are in the version that is asked for.
pub fn is_served_as_stored(target: &Target, object: &Object) -> bool {
    target.kind.group == object.kind().group && target.kind.version == object.kind().version
}

/// Answers with an object that is a value.
pub fn answer_value(
    server: &ApiServer,
    request: &Request,
    target: &Target,
    object: Value,
    form: Form,
    code: StatusCode,
) -> Result<Response<Body>, Status> {
    form.check_shape(&target.kind, false)?;
    let value = match form.transform {
        Transform::None => object,
        Transform::PartialMetadata | Transform::PartialMetadataList => {
            table::partial_metadata(&object, form.meta_version)
        }
        Transform::Table => {
            let include = IncludeObject::parse(&request.query)?;
            let metadata = table_metadata(&object);
            table::of(&target.kind, metadata, &[object], include, true, (form.meta_version, server.clock().now()))
        }
    };
    Ok(request.reply.value(code, form.encoding, &value))
}

/// A list.
pub async fn list(server: &ApiServer, request: &Request, target: &Target) -> Result<Response<Body>, Status> {
    let form = negotiate::answer(&request.parts.headers, !target.kind.custom)?;
    let options = ListOptions::parse(&request.query, false)?;
    let selection = Selection::parse(&target.kind, &target.namespace, &options.labels, &options.fields)?;
    form.check_shape(&target.kind, true)?;
    let listing = server.registry().list(&target.kind, &selection, &options.list_query()?).await?;
    let as_stored = listing.objects.iter().all(|object| is_served_as_stored(target, object));
    if form == Form::default() && target.kind.is_storage_version() && as_stored {
        return Ok(request.reply.json_pieces(StatusCode::OK, list_json(&target.kind, listing)));
    }
    if form == (Form { transform: Transform::PartialMetadataList, ..Form::default() })
        && target.kind.is_storage_version()
        && as_stored
    {
        return Ok(request.reply.json_pieces(StatusCode::OK, partial_list_json(listing)));
    }
    let values = server.registry().all_served(target, &listing.objects).await?;
    let metadata = list_metadata(&listing, target.kind.custom && form.transform == Transform::None);
    let value = match form.transform {
        Transform::Table => {
            let include = IncludeObject::parse(&request.query)?;
            table::of(&target.kind, metadata, &values, include, true, (form.meta_version, server.clock().now()))
        }
        Transform::PartialMetadata | Transform::PartialMetadataList => {
            let version = form.meta_version;
            let items: Vec<Value> = values.iter().map(|value| table::partial_metadata(value, version)).collect();
            let api_version = version.api_version();
            json!({ "kind": "PartialObjectMetadataList", "apiVersion": api_version, "metadata": metadata, "items": items })
        }
        Transform::None => list_value(&target.kind, metadata, values),
    };
    Ok(request.reply.value(StatusCode::OK, form.encoding, &value))
}

/// A list of a kind. Items of built-in kinds carry no kind of their own, as in Kubernetes.
pub fn list_value(kind: &Kind, metadata: Map<String, Value>, mut items: Vec<Value>) -> Value {
    if !kind.custom {
        for item in items.iter_mut().filter_map(Value::as_object_mut) {
            item.remove("kind");
            item.remove("apiVersion");
        }
    }
    json!({ "kind": kind.list_kind, "apiVersion": kind.api_version(), "metadata": metadata, "items": items })
}

/// The metadata of a list of which `shows_empty` says whether it shows that no chunk follows.
pub(super) fn list_metadata(listing: &Listing, shows_empty: bool) -> Map<String, Value> {
    let mut metadata = Map::new();
    metadata.insert("resourceVersion".into(), Value::from(listing.revision.to_string()));
    // Lists of objects that have no Go type show the field when it is empty too.
    if let Some(next) = listing.next.as_deref().or(shows_empty.then_some("")) {
        metadata.insert("continue".into(), Value::from(next));
    }
    if let Some(remaining) = listing.remaining {
        metadata.insert("remainingItemCount".into(), Value::from(remaining));
    }
    metadata
}

/// A list in the storage version: stored bytes, one after the other.
fn list_json(kind: &Kind, listing: Listing) -> Pieces {
    let metadata = list_metadata(&listing, kind.custom);
    let head = json!({ "kind": kind.list_kind, "apiVersion": kind.api_version(), "metadata": metadata });
    let view = if kind.custom { View::Whole } else { View::Item };
    Pieces::list(&head.to_string(), listing.objects, view)
}

/// A list of metadata in the storage version.
fn partial_list_json(listing: Listing) -> Pieces {
    let metadata = list_metadata(&listing, false);
    let head = json!({ "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata });
    Pieces::list(&head.to_string(), listing.objects, View::PartialMetadata)
}

/// An object's Scale.
pub async fn scale(server: &ApiServer, request: &Request, target: &Target) -> Result<Response<Body>, Status> {
    let form = negotiate::answer(&request.parts.headers, true)?;
    let scale = server.registry().get_scale(target, get_freshness(&request.query)?).await?;
    answer_scale(server, request, scale, form)
}

/// Answers with a Scale.
pub fn answer_scale(server: &ApiServer, request: &Request, scale: Value, form: Form) -> Result<Response<Body>, Status> {
    form.check_scale()?;
    let value = match form.transform {
        Transform::None => scale,
        Transform::PartialMetadata | Transform::PartialMetadataList => {
            table::partial_metadata(&scale, form.meta_version)
        }
        Transform::Table => {
            let include = IncludeObject::parse(&request.query)?;
            table::of_scale(&scale, table_metadata(&scale), include, (form.meta_version, server.clock().now()))
        }
    };
    Ok(request.reply.value(StatusCode::OK, form.encoding, &value))
}

/// What the Table of one object says of the whole: the object's revision.
fn table_metadata(object: &Value) -> Map<String, Value> {
    let revision = object["metadata"].get("resourceVersion").cloned().unwrap_or(json!(""));
    Map::from_iter([("resourceVersion".to_owned(), revision)])
}

/// The health of the control plane's parts, as objects that are never stored.
pub async fn component_statuses(
    server: &ApiServer,
    request: &Request,
    target: &Target,
) -> Result<Response<Body>, Status> {
    let form = negotiate::answer(&request.parts.headers, true)?;
    let components = server.health().components().await;
    if request.info.verb == "get" {
        let component =
            components.iter().find(|component| component.name == target.name).ok_or_else(|| target.not_found())?;
        return answer_value(server, request, target, component.to_value(), form, StatusCode::OK);
    }
    let values: Vec<Value> = components.iter().map(ComponentStatus::to_value).collect();
    let value = match form.transform {
        Transform::Table => {
            let include = IncludeObject::parse(&request.query)?;
            table::of(&target.kind, Map::new(), &values, include, true, (form.meta_version, server.clock().now()))
        }
        _ => list_value(&target.kind, Map::new(), values),
    };
    Ok(request.reply.value(StatusCode::OK, form.encoding, &value))
}
