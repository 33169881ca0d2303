//! # The audit log
//!
//! Who did what, and how it was answered: for each request up to three events, as a line of JSON each.
//!
//! ```text
//!  authenticated ─▶ Policy: how much? ─▶ RequestReceived
//!                                            │ impersonation, authorization, admission, handlers: AuditContext::annotate, …
//!            a handler panicked: Panic  ◀────┤
//!    a watch, logs, exec: ResponseStarted ◀──┴─▶ ResponseComplete, when the last byte is sent
//!                                                     │
//!                                                     ▼ Log: standard output, or a file that is set aside when it has grown
//! ```
//! [`policy`] decides, [`log`] keeps, `event` is what is written. [`AuditContext`] goes along with a request, in its
//! [`crate::endpoints::respond::Reply`], its [`crate::registry::Context`] and its [`crate::admission::Attributes`]; without an
//! audit log, or where the policy says `None`, it holds nothing and costs nothing.
//!
//! Mirrors `k8s.io/apiserver/pkg/endpoints/filters/audit.go` and `pkg/audit/{context,request}.go`. Left out: the webhook
//! backend, the modes `batch` and `blocking-strict` (an event is written before its request goes on; one that cannot be
//! written is logged and counted), truncation of large events, and the text format `legacy`.

mod event;
pub mod log;
pub mod policy;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use jiff::Timestamp;
use minik8s_api::status::Status;
use minik8s_clock::{Clock, Random};
use parking_lot::Mutex;
use serde_json::Value;

use self::event::{Event, ObjectRef, ResponseStatus, User};
use self::log::{Log, LogOptions};
pub use self::policy::Policy;
use self::policy::{Decision, Level, Stage};
use crate::authz::{self, Verdict};
use crate::errors::Error;
use crate::identity::UserInfo;
use crate::impersonation::Impersonated;
use crate::query::Query;
use crate::request::RequestInfo;
use crate::serve::PeerAddress;

/// The header that names a request, in the request if its sender chose a name, and in every answer.
pub const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// As much of a user agent is recorded.
const MAX_USER_AGENT_BYTES: usize = 1024;
/// What a longer one ends with.
const TRUNCATED: &str = "...TRUNCATED";

/// What an audit log is made from.
#[derive(Debug, Clone)]
pub struct Options {
    /// What is recorded.
    pub policy: Policy,
    /// Where.
    pub log: LogOptions,
}

/// The audit log of a server.
pub struct Audit {
    policy: Policy,
    log: Log,
    clock: Clock,
    events: AtomicU64,
    errors: AtomicU64,
    levels: [AtomicU64; Level::ALL.len()],
}

impl Audit {
    /// Opens the log.
    pub fn open(options: Options, clock: Clock) -> Result<Arc<Audit>, Error> {
        let log = Log::open(options.log)?;
        Ok(Arc::new(Audit {
            policy: options.policy,
            log,
            clock,
            events: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            levels: Default::default(),
        }))
    }

    /// How many events were written (`apiserver_audit_event_total`).
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// How many could not be (`apiserver_audit_error_total`).
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// How many requests were recorded how much (`apiserver_audit_level_total`).
    pub fn levels(&self) -> impl Iterator<Item = (Level, u64)> {
        Level::ALL.into_iter().zip(self.levels.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    /// What goes along with a request that comes now.
    pub fn begin(self: &Arc<Audit>, id: &HeaderValue, info: &RequestInfo) -> AuditContext {
        AuditContext(Some(Arc::new(Entry {
            audit: Arc::clone(self),
            id: id.clone(),
            received: self.clock.now(),
            is_resource: info.is_resource,
            long_running: is_long_running(info),
            state: Mutex::default(),
            completion: Mutex::default(),
        })))
    }
}

/// The name of a request: the one that its sender chose, or a new one.
pub fn id(headers: &HeaderMap, random: &Random) -> HeaderValue {
    let chosen = headers.get(AUDIT_ID).filter(|chosen| !chosen.is_empty());
    chosen.cloned().unwrap_or_else(|| HeaderValue::from_str(&random.uuid()).expect("a UUID is a header's value"))
}

/// Requests whose answer may take as long as the client wants (`genericfilters.BasicLongRunningRequestCheck`).
pub fn is_long_running(info: &RequestInfo) -> bool {
    info.is_resource
        && (matches!(info.verb.as_str(), "watch" | "proxy")
            || crate::endpoints::connect::CONNECTIONS.contains(&info.subresource.as_str()))
}

/// What a request leaves in the audit log. Clones share it; the default one records nothing.
#[derive(Clone, Default)]
pub struct AuditContext(Option<Arc<Entry>>);

struct Entry {
    audit: Arc<Audit>,
    id: HeaderValue,
    received: Timestamp,
    is_resource: bool,
    long_running: bool,
    state: Mutex<State>,
    completion: Mutex<Weak<Completion>>,
}

#[derive(Default)]
struct State {
    decision: Decision,
    event: Event,
    /// The answer of a request that may take long has begun.
    started: bool,
    /// No event has told yet how the request ended.
    open: bool,
}

impl fmt::Debug for AuditContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AuditContext").field(&self.level()).finish()
    }
}

impl AuditContext {
    /// How much of the request is recorded.
    pub fn level(&self) -> Level {
        self.0.as_ref().map_or(Level::None, |entry| entry.state.lock().decision.level)
    }

    /// Which credentials a request carries, as the event of a refused one tells (`getAuthMethods`). Asked before they are
    /// taken away; `None` where nothing is recorded.
    pub fn attempted(&self, parts: &Parts) -> Option<String> {
        self.0.as_ref()?;
        let mut methods = Vec::new();
        let authorization = parts.headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let scheme = authorization.and_then(|value| value.trim().split_once(' ')).map(|(scheme, _)| scheme);
        methods.extend(scheme.filter(|scheme| scheme.eq_ignore_ascii_case("basic")).map(|_| "basic"));
        methods.extend(scheme.filter(|scheme| scheme.eq_ignore_ascii_case("bearer")).map(|_| "bearer"));
        methods.extend(parts.extensions.get::<crate::authn::PeerCertificates>().map(|_| "x509"));
        Some(match methods.as_slice() {
            [] => "Authentication failed, no credentials provided".to_owned(),
            methods => format!("Authentication failed, attempted: {}", methods.join(", ")),
        })
    }

    /// The request is there, and `user` sends it (`None`: nobody knows who, and it is refused).
    pub fn received(&self, parts: &Parts, info: &RequestInfo, query: &Query, user: Option<&UserInfo>) {
        let Some(entry) = &self.0 else { return };
        let nobody = UserInfo::default();
        let attributes = authz::Attributes::of_request(user.unwrap_or(&nobody), info, query);
        let decision = entry.audit.policy.decide(user, &attributes);
        entry.audit.levels[decision.level as usize].fetch_add(1, Ordering::Relaxed);
        let mut state = entry.state.lock();
        state.decision = decision;
        if decision.level == Level::None {
            return;
        }
        state.event = Event {
            audit_id: String::from_utf8_lossy(entry.id.as_bytes()).into_owned(),
            request_uri: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
            verb: info.verb.clone(),
            user: user.map(User::from).unwrap_or_default(),
            source_ips: source_ips(parts),
            user_agent: user_agent(&parts.headers),
            object_ref: info.is_resource.then(|| ObjectRef {
                resource: info.resource.clone(),
                namespace: info.namespace.clone(),
                name: info.name.clone(),
                api_group: info.group.clone(),
                api_version: info.version.clone(),
                subresource: info.subresource.clone(),
                ..ObjectRef::default()
            }),
            received: entry.received,
            ..Event::default()
        };
        if user.is_some() {
            state.open = true;
            entry.write(&state, Stage::RequestReceived, entry.received);
        }
    }

    /// The request's credentials were refused.
    pub fn unauthenticated(&self, attempted: Option<String>, code: u16) {
        let Some(entry) = self.recording() else { return };
        let mut state = entry.state.lock();
        let message = attempted.unwrap_or_default();
        state.event.response_status = Some(ResponseStatus { message, code, ..ResponseStatus::default() });
        entry.write(&state, Stage::ResponseStarted, entry.audit.clock.now());
        // That is its one event.
        state.decision.level = Level::None;
    }

    /// The request is made in another's name.
    pub fn impersonated(&self, other: &Impersonated) {
        if let Some(entry) = self.recording() {
            let event = &mut entry.state.lock().event;
            event.impersonated = Some((&other.user).into());
            event.impersonation_constraint = other.constraint;
        }
    }

    /// The authorizer has decided.
    pub fn authorized(&self, verdict: &Verdict) {
        if self.0.is_some() {
            let decision = if verdict.allowed() { "allow" } else { "forbid" };
            self.annotate("authorization.k8s.io/decision", decision);
            self.annotate("authorization.k8s.io/reason", verdict.reason.as_ref());
        }
    }

    /// Adds an annotation; the first of a key stays, as in Kubernetes.
    pub fn annotate(&self, key: impl Into<String>, value: impl Into<String>) {
        self.annotate_at(Level::Metadata, key, value);
    }

    /// Adds an annotation to events of at least a level.
    pub fn annotate_at(&self, level: Level, key: impl Into<String>, value: impl Into<String>) {
        if let Some(entry) = self.recording() {
            let mut state = entry.state.lock();
            if state.decision.level >= level {
                state.event.annotations.entry(key.into()).or_insert_with(|| value.into());
            }
        }
    }

    /// The decoded object of the request.
    pub fn request_object(&self, object: &Value) {
        let Some(entry) = self.recording() else { return };
        let mut state = entry.state.lock();
        if let (Some(object_ref), Some(metadata)) = (&mut state.event.object_ref, object["metadata"].as_object()) {
            event::complete(object_ref, metadata);
        }
        if state.decision.level >= Level::Request && entry.is_resource {
            state.event.request_object = if state.decision.omit_managed_fields {
                let mut object = object.clone();
                event::without_managed_fields(&mut object);
                event::raw(&object)
            } else {
                event::raw(object)
            };
        }
    }

    /// The patch that the request carries.
    pub fn request_patch(&self, patch: &Value) {
        let Some(entry) = self.recording() else { return };
        let mut state = entry.state.lock();
        if state.decision.level >= Level::Request {
            state.event.request_object = event::raw(patch);
        }
    }

    /// Whether [`AuditContext::response_object`] is wanted.
    pub fn wants_response(&self) -> bool {
        self.0.as_ref().is_some_and(|entry| entry.is_resource && self.level() >= Level::RequestResponse)
    }

    /// The object of the answer, as JSON.
    pub fn response_object(&self, bytes: &[u8]) {
        if !self.wants_response() {
            return;
        }
        let Some(entry) = &self.0 else { return };
        let mut state = entry.state.lock();
        state.event.response_object = if state.decision.omit_managed_fields {
            let object = serde_json::from_slice::<Value>(bytes).ok();
            object.and_then(|mut object| {
                event::without_managed_fields(&mut object);
                event::raw(&object)
            })
        } else {
            event::raw_bytes(bytes)
        };
    }

    /// The answer is a Status.
    pub fn response_status(&self, status: &Status) {
        if let Some(entry) = self.recording() {
            entry.state.lock().event.response_status = Some(status.into());
        }
    }

    /// A handler panicked.
    pub fn panicked(&self, panic: &str) {
        let Some(entry) = self.recording() else { return };
        let mut state = entry.state.lock();
        let message = format!("APIServer panic'd: {panic}");
        state.event.response_status = Some((&Status { message, ..Status::internal_error("") }).into());
        entry.write(&state, Stage::Panic, entry.audit.clock.now());
        state.open = false;
        state.decision.level = Level::None;
    }

    /// The answer is there. What is given back is to be held until the end of one that may take long; after an upgrade that
    /// is for who passes the connection on.
    pub fn answered(&self, code: StatusCode) -> Option<Arc<Completion>> {
        let entry = self.recording()?;
        let mut state = entry.state.lock();
        state.event.response_status.get_or_insert_default().code = code.as_u16();
        let now = entry.audit.clock.now();
        state.open = false;
        if !entry.long_running {
            entry.write(&state, Stage::ResponseComplete, now);
            return None;
        }
        entry.write(&state, Stage::ResponseStarted, now);
        state.started = true;
        drop(state);
        self.completion()
    }

    /// What, once dropped everywhere, completes the answer.
    pub fn completion(&self) -> Option<Arc<Completion>> {
        let entry = self.0.as_ref()?;
        let mut known = entry.completion.lock();
        Some(known.upgrade().unwrap_or_else(|| {
            let completion = Arc::new(Completion(Arc::clone(entry)));
            *known = Arc::downgrade(&completion);
            completion
        }))
    }

    /// The entry, if the request is recorded.
    fn recording(&self) -> Option<&Arc<Entry>> {
        self.0.as_ref().filter(|_| self.level() > Level::None)
    }
}

impl Entry {
    fn write(&self, state: &State, stage: Stage, at: Timestamp) {
        if state.decision.omit_stages.contains(stage) {
            return;
        }
        let line = state.event.line(state.decision.level, stage, at);
        match self.audit.log.write(&line, at) {
            Ok(()) => self.audit.events.fetch_add(1, Ordering::Relaxed),
            Err(error) => {
                tracing::error!(%error, audit_id = state.event.audit_id, "an audit event cannot be written");
                self.audit.errors.fetch_add(1, Ordering::Relaxed)
            }
        };
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // The client has gone before its answer was there.
        let mut state = std::mem::take(self.state.get_mut());
        if state.open {
            let status = state.event.response_status.get_or_insert_default();
            (status.status, status.code) = ("Success", 200);
            status.message = "Connection closed early".to_owned();
            self.write(&state, Stage::ResponseComplete, self.audit.clock.now());
        }
    }
}

/// The end of an answer that may take long.
pub struct Completion(Arc<Entry>);

impl Drop for Completion {
    fn drop(&mut self) {
        let state = self.0.state.lock();
        // One that was dropped before the answer began was of a connection that failed.
        if state.started {
            self.0.write(&state, Stage::ResponseComplete, self.0.audit.clock.now());
        }
    }
}

/// Where a request comes from: what proxies say, then the connection (`k8s.io/apimachinery/pkg/util/net` `SourceIPs`).
/// A client in this process comes from nowhere.
fn source_ips(parts: &Parts) -> Vec<String> {
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let valid = |text: &str| text.trim().parse::<std::net::IpAddr>().ok().map(|ip| ip.to_string());
    let mut found: Vec<String> = header("x-forwarded-for").split(',').filter_map(valid).collect();
    if let Some(real) = valid(header("x-real-ip"))
        && !found.contains(&real)
    {
        found.push(real);
    }
    let peer = parts.extensions.get::<PeerAddress>().map(|peer| peer.0.ip().to_canonical().to_string());
    if let Some(peer) = peer
        && found.last() != Some(&peer)
    {
        found.push(peer);
    }
    found
}

fn user_agent(headers: &HeaderMap) -> String {
    let agent = headers.get(http::header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    if agent.len() > MAX_USER_AGENT_BYTES {
        format!("{}{TRUNCATED}", &agent[..agent.floor_char_boundary(MAX_USER_AGENT_BYTES)])
    } else {
        agent.to_owned()
    }
}
