//! Watches: an answer that does not end, one JSON event a line (or one protobuf event a frame).
//!
//! `k8s.io/apiserver/pkg/endpoints/handlers/watch.go`; initial events and bookmarks as
//! `k8s.io/apiserver/pkg/storage/cacher/cache_watcher.go` sends them.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response};
use minik8s_api::status::Status;
use minik8s_store::Revision;
use serde_json::{Map, Value, json};

use super::resource::Request;
use super::table::{self, IncludeObject};
use crate::cache::event::{EventType, event_frame, event_line};
use crate::cache::watch::{CacheWatch, From, Item};
use crate::cache::{Object, Selection};
use crate::metrics::Watching;
use crate::negotiate::{Encoding, Form, Transform};
use crate::options::ListOptions;
use crate::registry::Target;
use crate::registry::read::Freshness;
use crate::server::ApiServer;

/// How often a watch that wants bookmarks gets one (`k8s.io/apiserver/pkg/storage/cacher/time_budget.go`).
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// Events gathered into one frame.
const MAX_FRAME_BYTES: usize = 64 * 1024;

const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// Serves a watch.
pub async fn serve(
    server: &Arc<ApiServer>,
    request: &Request,
    target: &Target,
    options: ListOptions,
    form: Form,
) -> Result<Response<Body>, Status> {
    if form.encoding == Encoding::Yaml {
        return Err(Status::not_acceptable(&[
            "application/json;stream=watch",
            "application/vnd.kubernetes.protobuf;stream=watch",
        ]));
    }
    let selection = Selection::parse(&target.kind, &target.namespace, &options.labels, &options.fields)?;
    let cache = server.registry().cache().resource(&target.kind).ok_or_else(Status::unknown_resource)?;
    let from = start(server, &options).await?;
    let encoder = Encoder {
        server: Arc::clone(server),
        target: target.clone(),
        form,
        include: IncludeObject::parse(&request.query)?,
        columns_sent: false,
    };
    let applied = server.registry().cache().applied();
    let frames = match CacheWatch::start(&cache, selection, from, applied) {
        Ok(watch) => {
            Body::from_stream(stream::unfold(Frames::new(watch, encoder, &options), |mut frames| async move {
                let frame = frames.next().await?;
                Some((Ok::<_, std::convert::Infallible>(frame), frames))
            }))
        }
        // As Kubernetes: the watch begins, and says in its first event that it cannot go on.
        Err(expired) => {
            let status = Status::expired(format!("too old resource version: {} ({})", expired.asked, expired.oldest));
            Body::from(encode(form.encoding, "ERROR", &status.to_value()))
        }
    };
    let mut response = Response::new(frames);
    let media_type = match form.encoding {
        Encoding::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        _ => "application/json",
    };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

/// Where a watch starts, once the cache is as fresh as it must be.
async fn start(server: &ApiServer, options: &ListOptions) -> Result<From, Status> {
    let revision = options.revision()?;
    let registry = server.registry();
    let fresh = |revision: Option<Revision>| match revision {
        None => Freshness::Latest,
        Some(0) => Freshness::Any,
        Some(revision) => Freshness::NotOlderThan(revision),
    };
    match (options.send_initial_events, revision) {
        (Some(true), revision) => {
            registry.wait(fresh(revision)).await?;
            Ok(From::Now)
        }
        (_, Some(revision)) if revision > 0 => Ok(From::After(revision)),
        (Some(false), revision) => {
            registry.wait(fresh(revision)).await?;
            Ok(From::After(registry.cache().applied()))
        }
        (None, revision) => {
            registry.wait(fresh(revision)).await?;
            Ok(From::Now)
        }
    }
}

/// The frames of one watch.
struct Frames {
    watch: CacheWatch,
    encoder: Encoder,
    _watching: Watching,
    bookmarks: bool,
    /// The end of the initial events is to be marked.
    mark_initial: bool,
    next_bookmark: Duration,
    deadline: Duration,
    ended: bool,
}

impl Frames {
    fn new(watch: CacheWatch, encoder: Encoder, options: &ListOptions) -> Frames {
        let server = &encoder.server;
        let now = server.clock().monotonic();
        let least = server.settings().min_request_timeout;
        let timeout = options.timeout.unwrap_or_else(|| least + least.mul_f64(server.registry().random().next_f64()));
        Frames {
            _watching: server.metrics().watching(&encoder.target.kind),
            bookmarks: options.bookmarks,
            mark_initial: options.bookmarks && options.send_initial_events == Some(true),
            next_bookmark: now + server.registry().random().jitter(BOOKMARK_INTERVAL, 0.25),
            deadline: now + timeout,
            ended: false,
            watch,
            encoder,
        }
    }

    /// The next frame; `None` ends the watch.
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        loop {
            let (clock, shutdown) = (self.encoder.server.clock().clone(), self.encoder.server.shutdown_token().clone());
            let wake = if self.bookmarks { self.next_bookmark.min(self.deadline) } else { self.deadline };
            tokio::select! {
                biased;
                item = self.watch.next() => {
                    let frame = self.frame(item?);
                    if !frame.is_empty() {
                        return Some(frame);
                    }
                }
                () = clock.sleep_until(wake) => {
                    self.ended = clock.monotonic() >= self.deadline;
                    match self.bookmark_now() {
                        Some(frame) => return Some(frame),
                        None if self.ended => return None,
                        None => {}
                    }
                }
                () = shutdown.cancelled() => return None,
            }
        }
    }

    /// An item, and those that wait behind it, up to a frame's size.
    fn frame(&mut self, first: Item) -> Bytes {
        let first = self.line(first);
        let Some(second) = self.watch.try_next() else {
            return first;
        };
        let mut frame = BytesMut::from(&first[..]);
        let mut next = Some(second);
        while let Some(item) = next {
            frame.extend_from_slice(&self.line(item));
            next = if frame.len() < MAX_FRAME_BYTES { self.watch.try_next() } else { None };
        }
        frame.freeze()
    }

    fn line(&mut self, item: Item) -> Bytes {
        match item {
            Item::Initial(object) => self.encoder.initial(&object),
            Item::Synced(revision) if self.mark_initial => self.encoder.bookmark(revision, true),
            Item::Synced(_) => Bytes::new(),
            Item::Event(event_type, event) if self.encoder.is_plain() => match self.encoder.form.encoding {
                Encoding::Protobuf => event.frame(event_type),
                _ => event.line(event_type),
            },
            Item::Event(event_type, event) => self.encoder.encode(event_type.as_str(), event.shown(event_type)),
        }
    }

    /// A bookmark: everything up to what the cache had applied has been sent.
    fn bookmark_now(&mut self) -> Option<Bytes> {
        if !self.bookmarks {
            return None;
        }
        let server = &self.encoder.server;
        self.next_bookmark = server.clock().monotonic() + BOOKMARK_INTERVAL;
        // Read before the channel is looked at: what is applied up to here is in the channel by now.
        let applied = server.registry().cache().applied();
        let mut frame = BytesMut::new();
        while let Some(item) = self.watch.try_next() {
            frame.extend_from_slice(&self.line(item));
        }
        frame.extend_from_slice(&self.encoder.bookmark(applied, false));
        Some(frame.freeze())
    }
}

/// Writes events in the form the client asked for.
struct Encoder {
    server: Arc<ApiServer>,
    target: Target,
    form: Form,
    include: IncludeObject,
    columns_sent: bool,
}

impl Encoder {
    /// Whether events go out as every other watcher gets them.
    fn is_plain(&self) -> bool {
        self.form.transform == Transform::None && self.target.kind.is_storage_version()
    }

    fn initial(&mut self, object: &Arc<Object>) -> Bytes {
        let json = self.form.encoding == Encoding::Json;
        if json && self.is_plain() {
            event_line(EventType::Added.as_str(), object)
        } else {
            self.encode("ADDED", object)
        }
    }

    fn encode(&mut self, event_type: &str, object: &Object) -> Bytes {
        let value = self.server.registry().served(&self.target, object);
        let shown = match self.form.transform {
            Transform::None => value,
            Transform::PartialMetadata => table::partial_metadata(&value),
            Transform::Table => {
                let revision = Value::from(object.revision().to_string());
                let metadata = Map::from_iter([("resourceVersion".to_owned(), revision)]);
                let columns = !std::mem::replace(&mut self.columns_sent, true);
                table::of(&self.target.kind, metadata, &[value], self.include, columns, self.server.clock().now())
            }
        };
        encode(self.form.encoding, event_type, &shown)
    }

    fn bookmark(&self, revision: Revision, initial_events_end: bool) -> Bytes {
        let (kind, api_version) = match self.form.transform {
            Transform::None => (self.target.kind.kind.clone(), self.target.kind.api_version()),
            Transform::PartialMetadata => ("PartialObjectMetadata".to_owned(), "meta.k8s.io/v1".to_owned()),
            Transform::Table => ("Table".to_owned(), "meta.k8s.io/v1".to_owned()),
        };
        let mut object =
            json!({ "kind": kind, "apiVersion": api_version, "metadata": { "resourceVersion": revision.to_string() } });
        if initial_events_end {
            object["metadata"]["annotations"] = json!({ INITIAL_EVENTS_END: "true" });
        }
        if self.form.transform == Transform::Table {
            object["columnDefinitions"] = Value::Null;
            object["rows"] = json!([]);
        }
        encode(self.form.encoding, "BOOKMARK", &object)
    }
}

fn encode(encoding: Encoding, event_type: &str, object: &Value) -> Bytes {
    if encoding == Encoding::Protobuf {
        return event_frame(event_type, object);
    }
    let mut out = json!({ "type": event_type, "object": object }).to_string();
    out.push('\n');
    Bytes::from(out)
}
