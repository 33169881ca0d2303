//! An API server for one kubelet: objects by path, patches that merge, watches from a version on.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use minik8s_clock::Watched;
use parking_lot::Mutex;
use serde_json::{Value, json};

type Body = UnsyncBoxBody<Bytes, Infallible>;

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    /// Collection, and the event as a line of a watch. The index is the version.
    events: Vec<(String, Value)>,
    /// Whether requests are answered at all.
    down: bool,
}

/// The API.
#[derive(Clone)]
pub struct FakeApi {
    state: Arc<Mutex<State>>,
    version: Arc<Watched<usize>>,
}

impl FakeApi {
    pub fn new() -> Self {
        Self { state: Arc::default(), version: Arc::new(Watched::new(0)) }
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        self.state.lock().objects.get(path).cloned()
    }

    pub fn set_down(&self, down: bool) {
        self.state.lock().down = down;
    }

    /// Stores an object as if a user had, with what the server adds.
    pub fn put(&self, path: &str, mut object: Value) {
        let (collection, name) = path.rsplit_once('/').unwrap();
        let mut state = self.state.lock();
        let is_new = !state.objects.contains_key(path);
        object["metadata"]["name"] = json!(name);
        if let Some(namespace) = collection.split("/namespaces/").nth(1) {
            object["metadata"]["namespace"] = json!(namespace.split('/').next());
        }
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{name}"));
        }
        self.record(&mut state, path, if is_new { "ADDED" } else { "MODIFIED" }, object);
    }

    pub fn remove(&self, path: &str) {
        let mut state = self.state.lock();
        if let Some(object) = state.objects.remove(path) {
            self.record(&mut state, path, "DELETED", object);
        }
    }

    /// The paths of the objects of one collection, the oldest first.
    pub fn paths(&self, collection: &str) -> Vec<String> {
        let state = self.state.lock();
        let mut found: Vec<_> = state.objects.iter().filter(|(path, _)| path.starts_with(collection)).collect();
        found.sort_by_key(|(_, object)| object["metadata"]["born"].as_u64());
        found.into_iter().map(|(path, _)| path.clone()).collect()
    }

    /// The messages of all events about the object of that name, with their counts.
    pub fn event_messages(&self, name: &str) -> Vec<String> {
        let state = self.state.lock();
        let events = state.objects.iter().filter(|(path, _)| path.contains("/events/"));
        let mut events: Vec<&Value> =
            events.map(|(_, event)| event).filter(|event| event["involvedObject"]["name"] == name).collect();
        let version = |event: &Value| event["metadata"]["born"].as_u64();
        events.sort_by_key(|event| version(event));
        let line = |event: &&Value| {
            let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            format!("{} {} x{}: {}", text("type"), text("reason"), event["count"], text("message"))
        };
        events.iter().map(line).collect()
    }

    fn record(&self, state: &mut State, path: &str, type_: &str, mut object: Value) {
        let version = state.events.len() + 1;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        if object["metadata"]["born"].is_null() {
            object["metadata"]["born"] = json!(version);
        }
        let collection = path.rsplit_once('/').unwrap().0.to_owned();
        if type_ != "DELETED" {
            state.objects.insert(path.to_owned(), object.clone());
        }
        state.events.push((collection, json!({"type": type_, "object": object})));
        self.version.set(version);
    }

    async fn answer(self, request: Request<kube::client::Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await.unwrap();
        let path = parts.uri.path().to_owned();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        if self.state.lock().down {
            return status(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", "down");
        }
        let value = || serde_json::from_slice::<Value>(&body).unwrap();
        match parts.method {
            Method::GET if query.contains("watch=") => self.watch(&path, &query),
            Method::GET => self.read(&path, &query),
            Method::POST if path.ends_with("/token") => {
                let expires = "2026-01-01T01:00:00Z";
                created(
                    &json!({"metadata": {}, "spec": {"audiences": []}, "status": {"token": "t0ken", "expirationTimestamp": expires}}),
                )
            }
            Method::POST => {
                let object = value();
                let name = match object["metadata"]["name"].as_str() {
                    Some(name) => name.to_owned(),
                    None => {
                        format!("{}{}", object["metadata"]["generateName"].as_str().unwrap(), self.version.get() + 1)
                    }
                };
                let path = format!("{path}/{name}");
                let path = self.event_path(&path, &object);
                if self.get(&path).is_some() {
                    let message = format!("{name:?} already exists");
                    return status(StatusCode::CONFLICT, "AlreadyExists", &message);
                }
                self.put(&path, object);
                created(&self.get(&path).unwrap())
            }
            Method::PUT => {
                self.put(&path, value());
                ok(&self.get(&path).unwrap())
            }
            Method::PATCH => {
                let path = &self.event_path(path.trim_end_matches("/status"), &value());
                let Some(mut object) = self.get(path) else {
                    return not_found(path);
                };
                merge(&mut object, value());
                self.put(path, object);
                ok(&self.get(path).unwrap())
            }
            Method::DELETE => match self.get(&path) {
                Some(object) => {
                    self.remove(&path);
                    ok(&object)
                }
                None => not_found(&path),
            },
            _ => status(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "no"),
        }
    }

    /// A recorder names events by the time, and in virtual time many happen at one moment: here their message tells
    /// them apart.
    fn event_path(&self, path: &str, event: &Value) -> String {
        if !path.contains("/events/") {
            return path.to_owned();
        }
        format!("{path}~{}", event["message"].as_str().unwrap_or_default())
    }

    fn read(&self, path: &str, query: &str) -> Response<Body> {
        if let Some(object) = self.get(path) {
            return ok(&object);
        }
        if !query.contains("resourceVersion=") {
            return not_found(path);
        }
        let state = self.state.lock();
        let items: Vec<&Value> = state
            .objects
            .iter()
            .filter(|(key, _)| in_collection(key.rsplit_once('/').unwrap().0, path))
            .map(|(_, o)| o)
            .collect();
        ok(&json!({"metadata": {"resourceVersion": state.events.len().to_string()}, "items": items}))
    }

    fn watch(&self, path: &str, query: &str) -> Response<Body> {
        let from = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion=")).unwrap();
        let start = (self.clone(), path.to_owned(), from.parse::<usize>().unwrap(), self.version.watch());
        let lines = stream::unfold(start, |(api, path, mut at, mut version)| async move {
            loop {
                let next = api.state.lock().events.get(at).cloned();
                let Some((collection, event)) = next else {
                    version.wait_for(|version| *version > at).await.ok()?;
                    continue;
                };
                at += 1;
                if in_collection(&collection, &path) {
                    let line = Frame::data(Bytes::from(format!("{event}\n")));
                    return Some((Ok::<_, Infallible>(line), (api, path, at, version)));
                }
            }
        });
        Response::new(StreamBody::new(lines).boxed_unsync())
    }
}

/// Whether a collection (`/api/v1/namespaces/default/pods`) is the one asked for, or part of it (`/api/v1/pods`).
fn in_collection(collection: &str, asked: &str) -> bool {
    let across = || {
        let (root, plural) = asked.rsplit_once('/').unwrap();
        collection.starts_with(&format!("{root}/namespaces/")) && collection.ends_with(&format!("/{plural}"))
    };
    collection == asked || across()
}

/// A strategic merge, as far as statuses need it: maps by key, lists of conditions by type, other lists as a whole.
fn merge(target: &mut Value, patch: Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    target.remove(&key);
                } else if key == "conditions" {
                    let list = target.entry(key).or_insert_with(|| json!([]));
                    merge_conditions(list, value);
                } else {
                    merge(target.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (target, Value::Array(list)) => {
            *target = list.into_iter().filter(|item| item.get("$patch").is_none()).collect();
        }
        (target, patch) => *target = patch,
    }
}

fn merge_conditions(list: &mut Value, patch: Value) {
    let Value::Array(patch) = patch else { return };
    let list = list.as_array_mut().unwrap();
    for condition in patch {
        if condition["$patch"] == "delete" {
            list.retain(|old| old["type"] != condition["type"]);
            continue;
        }
        match list.iter_mut().find(|old| old["type"] == condition["type"]) {
            Some(old) => merge(old, condition),
            None => list.push(condition),
        }
    }
}

fn json_body(value: &Value) -> Body {
    Full::new(Bytes::from(value.to_string())).boxed_unsync()
}

fn ok(value: &Value) -> Response<Body> {
    Response::new(json_body(value))
}

fn created(value: &Value) -> Response<Body> {
    Response::builder().status(StatusCode::CREATED).body(json_body(value)).unwrap()
}

fn status(code: StatusCode, reason: &str, message: &str) -> Response<Body> {
    let value = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code.as_u16(),
    });
    Response::builder().status(code).body(json_body(&value)).unwrap()
}

fn not_found(path: &str) -> Response<Body> {
    status(StatusCode::NOT_FOUND, "NotFound", &format!("{path} not found"))
}

impl tower::Service<Request<kube::client::Body>> for FakeApi {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<kube::client::Body>) -> Self::Future {
        let api = self.clone();
        Box::pin(async move { Ok(api.answer(request).await) })
    }
}
