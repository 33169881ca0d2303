//! Watches: an answer that does not end, one JSON event a line (or one protobuf event a frame).
//!
//! `k8s.io/apiserver/pkg/endpoints/handlers/watch.go`; initial events and bookmarks as
//! `k8s.io/apiserver/pkg/storage/cacher/cache_watcher.go` sends them.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response};
use minik8s_api::kinds::convert;
use minik8s_api::schema::zero;
use minik8s_api::status::Status;
use minik8s_store::Revision;
use minik8s_streaming::messages::Framing;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::messages;
use super::resource::Request;
use super::table::{self, IncludeObject};
use crate::cache::event::{EventType, event_frame, event_line, metadata_line};
use crate::cache::watch::{CacheWatch, From, Item};
use crate::cache::{Object, Selection};
use crate::crd::conversion::by_webhook;
use crate::metrics::Watching;
use crate::negotiate::{Encoding, Form, Transform};
use crate::options::ListOptions;
use crate::places::Place;
use crate::registry::Target;
use crate::registry::read::Freshness;
use crate::server::ApiServer;

/// How often a watch that wants bookmarks gets one (`k8s.io/apiserver/pkg/storage/cacher/time_budget.go`).
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// Events gathered into one frame.
const MAX_FRAME_BYTES: usize = 64 * 1024;
/// Events that a webhook converts in one question.
const MAX_CONVERTED_EVENTS: usize = 500;

const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// A watch over a WebSocket: an event is a message.
const MESSAGES: messages::Form = messages::Form { protocols: &[("", Framing::Text)], by_line: true, greets: false };

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
    form.check_shape(&target.kind, false)?;
    let place = server.places().watch()?;
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
            Body::from_stream(stream::unfold(Frames::new(watch, encoder, place, &options), |mut frames| async move {
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
    if form.encoding == Encoding::Protobuf {
        return Ok(response);
    }
    messages::instead_of_body(&request.parts, MESSAGES, response)
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
    watching: Watching,
    _place: Place,
    bookmarks: bool,
    /// The end of the initial events is to be marked.
    mark_initial: bool,
    next_bookmark: Duration,
    deadline: Duration,
    /// Goes off at the first of the two. It and the next one are waited for all the time, not anew for each event.
    alarm: BoxFuture<'static, ()>,
    shutdown: BoxFuture<'static, ()>,
    ended: bool,
}

impl Frames {
    fn new(watch: CacheWatch, encoder: Encoder, place: Place, options: &ListOptions) -> Frames {
        let server = &encoder.server;
        let now = server.clock().monotonic();
        let least = server.settings().min_request_timeout;
        let timeout = options.timeout.unwrap_or_else(|| least + least.mul_f64(server.registry().random().next_f64()));
        let mut frames = Frames {
            watching: server.metrics().watching(&encoder.target.kind),
            _place: place,
            bookmarks: options.bookmarks,
            mark_initial: options.bookmarks && options.send_initial_events == Some(true),
            next_bookmark: now + server.registry().random().jitter(BOOKMARK_INTERVAL, 0.25),
            deadline: now + timeout,
            alarm: Box::pin(std::future::pending()),
            shutdown: Box::pin(server.shutdown_token().clone().cancelled_owned()),
            ended: false,
            watch,
            encoder,
        };
        frames.set_alarm();
        frames
    }

    fn set_alarm(&mut self) {
        let clock = self.encoder.server.clock().clone();
        let at = if self.bookmarks { self.next_bookmark.min(self.deadline) } else { self.deadline };
        self.alarm = Box::pin(async move { clock.sleep_until(at).await });
    }

    /// The next frame; `None` ends the watch.
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        loop {
            tokio::select! {
                biased;
                item = self.watch.next() => {
                    let frame = self.frame(item?).await;
                    if !frame.is_empty() {
                        return Some(frame);
                    }
                }
                () = &mut self.alarm => {
                    self.ended = self.encoder.server.clock().monotonic() >= self.deadline;
                    let bookmark = self.bookmark_now().await;
                    self.set_alarm();
                    match bookmark {
                        Some(frame) => return Some(frame),
                        None if self.ended => return None,
                        None => {}
                    }
                }
                () = &mut self.shutdown => return None,
            }
        }
    }

    /// An item, and those that wait behind it, up to a frame's size.
    async fn frame(&mut self, first: Item) -> Bytes {
        if self.encoder.asks_webhook() || self.selects_served() {
            return self.converted(first).await;
        }
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

    /// Whether it depends on fields of the version asked for which events are sent.
    fn selects_served(&self) -> bool {
        !self.watch.selection().served_fields.is_everything()
    }

    /// The states of an object, after and before, that decide what an item says: usually the one that it shows.
    fn states(&self, item: &Item) -> [Option<Arc<Object>>; 2] {
        match item {
            Item::Initial(object) => [Some(Arc::clone(object)), None],
            Item::Synced(_) => [None, None],
            Item::Event(event_type, event) => {
                let leaves = *event_type == EventType::Deleted;
                let may_leave = *event_type == EventType::Modified && self.selects_served();
                [
                    (!leaves).then(|| Arc::clone(event.shown(*event_type))),
                    (leaves || may_leave).then(|| Arc::clone(event.shown(EventType::Deleted))),
                ]
            }
        }
    }

    /// The same where objects have to be converted first, all by one question. If that fails, the watch says so and ends.
    async fn converted(&mut self, first: Item) -> Bytes {
        let mut items = vec![first];
        while items.len() < MAX_CONVERTED_EVENTS {
            let Some(item) = self.watch.try_next() else { break };
            items.push(item);
        }
        let states: Vec<Arc<Object>> = items.iter().flat_map(|item| self.states(item)).flatten().collect();
        let served = self.encoder.server.registry().all_served(&self.encoder.target, &states).await;
        let mut values = match served {
            Ok(values) => values.into_iter(),
            Err(status) => {
                self.ended = true;
                return encode(self.encoder.form.encoding, "ERROR", &status.to_value());
            }
        };
        let mut frame = BytesMut::new();
        for item in items {
            if let Item::Synced(_) = item {
                frame.extend_from_slice(&self.line(item));
                continue;
            }
            let [now, before] = self.states(&item).map(|state| {
                let (state, value) = (state?, values.next()?);
                let meant = self.watch.selection().matches_served(&self.encoder.target.kind, &value);
                meant.then_some((state.revision(), value))
            });
            let event_type = match (&item, &now, &before) {
                (_, None, None) => continue,
                (_, None, Some(_)) => EventType::Deleted,
                (Item::Event(EventType::Modified, _), Some(_), None) if self.selects_served() => EventType::Added,
                (Item::Event(event_type, _), Some(_), _) => *event_type,
                (_, Some(_), _) => EventType::Added,
            };
            let Some((revision, value)) = now.or(before) else { continue };
            self.watching.sent(1);
            frame.extend_from_slice(&self.encoder.encode_value(event_type.as_str(), revision, value));
        }
        frame.freeze()
    }

    fn line(&mut self, item: Item) -> Bytes {
        if !matches!(item, Item::Synced(_)) {
            self.watching.sent(1);
        }
        match item {
            Item::Initial(object) => self.encoder.initial(&object),
            Item::Synced(revision) if self.mark_initial => self.encoder.bookmark(revision, true),
            Item::Synced(_) => Bytes::new(),
            Item::Event(event_type, event) if self.encoder.is_plain() => match self.encoder.form.encoding {
                Encoding::Protobuf => event.frame(event_type),
                _ => event.line(event_type),
            },
            Item::Event(event_type, event) if self.encoder.is_metadata() => event.metadata_line(event_type),
            Item::Event(event_type, event) => self.encoder.encode(event_type.as_str(), event.shown(event_type)),
        }
    }

    /// A bookmark: everything up to what the cache had applied has been sent.
    async fn bookmark_now(&mut self) -> Option<Bytes> {
        if !self.bookmarks {
            return None;
        }
        let server = &self.encoder.server;
        self.next_bookmark = server.clock().monotonic() + BOOKMARK_INTERVAL;
        // Read before the channel is looked at: what is applied up to here is in the channel by now.
        let applied = server.registry().cache().applied();
        let mut frame = BytesMut::new();
        while let Some(item) = self.watch.try_next() {
            let more = self.frame(item).await;
            frame.extend_from_slice(&more);
        }
        if !self.ended || !self.encoder.asks_webhook() {
            frame.extend_from_slice(&self.encoder.bookmark(applied, false));
        }
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
        self.form.transform == Transform::None && self.target.kind.is_storage_version() && !self.asks_webhook()
    }

    /// Whether objects have to be converted by a webhook, or may have to: those stored in an earlier version.
    fn asks_webhook(&self) -> bool {
        by_webhook(&self.target.kind).is_some()
    }

    /// Whether events go out as JSON of the metadata alone, as it is stored.
    fn is_metadata(&self) -> bool {
        let metadata = self.form == Form { transform: Transform::PartialMetadata, ..Form::default() };
        metadata && self.target.kind.is_storage_version()
    }

    fn initial(&mut self, object: &Arc<Object>) -> Bytes {
        let added = EventType::Added.as_str();
        match self.form.encoding {
            Encoding::Json if self.is_plain() => event_line(added, object),
            _ if self.is_metadata() => metadata_line(added, object),
            _ => self.encode(added, object),
        }
    }

    fn encode(&mut self, event_type: &str, object: &Object) -> Bytes {
        let mut value = object.value();
        convert(object.kind(), &self.target.kind, &mut value);
        self.encode_value(event_type, object.revision(), value)
    }

    /// An event of an object that is in the version asked for.
    fn encode_value(&mut self, event_type: &str, revision: Revision, value: Value) -> Bytes {
        let shown = match self.form.transform {
            Transform::None => value,
            Transform::PartialMetadata | Transform::PartialMetadataList => {
                table::partial_metadata(&value, self.form.meta_version)
            }
            Transform::Table => {
                let revision = Value::from(revision.to_string());
                let metadata = Map::from_iter([("resourceVersion".to_owned(), revision)]);
                let columns = !std::mem::replace(&mut self.columns_sent, true);
                let form = (self.form.meta_version, self.server.clock().now());
                table::of(&self.target.kind, metadata, &[value], self.include, columns, form)
            }
        };
        encode(self.form.encoding, event_type, &shown)
    }

    /// Each watch gets one a minute, which says the same of every kind but for the revision.
    fn bookmark(&mut self, revision: Revision, initial_events_end: bool) -> Bytes {
        static WRITTEN: LazyLock<Mutex<BTreeMap<String, Arc<str>>>> = LazyLock::new(Mutex::default);
        const REVISION: &str = "@revision";
        let plain = self.form.encoding == Encoding::Json && matches!(self.form.transform, Transform::None);
        if !plain || initial_events_end || self.target.kind.custom {
            return self.write_bookmark(&revision.to_string(), initial_events_end);
        }
        let kind = format!("{} {}", self.target.kind.api_version(), self.target.kind.kind);
        let known = WRITTEN.lock().get(&kind).cloned();
        let line = known.unwrap_or_else(|| {
            let line: Arc<str> = String::from_utf8_lossy(&self.write_bookmark(REVISION, false)).into();
            WRITTEN.lock().insert(kind, line.clone());
            line
        });
        Bytes::from(line.replacen(REVISION, &revision.to_string(), 1))
    }

    fn write_bookmark(&mut self, revision: &str, initial_events_end: bool) -> Bytes {
        let kind = &self.target.kind;
        // An object of the kind that says nothing, as Go writes it.
        let mut object = if kind.custom { json!({}) } else { zero(&kind.ty()) };
        object["kind"] = kind.kind.as_str().into();
        object["apiVersion"] = kind.api_version().into();
        object["metadata"] = json!({ "resourceVersion": revision });
        if initial_events_end {
            object["metadata"]["annotations"] = json!({ INITIAL_EVENTS_END: "true" });
        }
        let version = self.form.meta_version;
        let object = match self.form.transform {
            Transform::None => object,
            Transform::PartialMetadata | Transform::PartialMetadataList => table::partial_metadata(&object, version),
            Transform::Table => {
                let metadata = Map::from_iter([("resourceVersion".to_owned(), revision.into())]);
                let columns = !std::mem::replace(&mut self.columns_sent, true);
                table::of(kind, metadata, &[object], self.include, columns, (version, self.server.clock().now()))
            }
        };
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
