//! Requests: how many, how they were answered, how long they took; what stays open.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use minik8s_api::kinds::Kind as ObjectKind;
use minik8s_metrics::{Histogram, Kind, Text};
use parking_lot::{Mutex, RwLock};

use crate::audit::is_long_running;
use crate::endpoints::connect::CONNECTIONS;
use crate::request::RequestInfo;

/// Upper bounds of the request duration's buckets, in seconds.
const SECONDS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];
/// Upper bounds of the answer size's buckets, in bytes.
const BYTES: &[f64] = &[1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
const COMPONENT: (&str, &str) = ("component", "apiserver");

/// What is counted of requests. Labels come from the kinds that are served, so their number is bounded.
#[derive(Default)]
pub struct Metrics {
    /// By a hash of the labels, so that a request looks up without making them.
    requests: RwLock<BTreeMap<u64, Arc<Requests>>>,
    watching: Mutex<BTreeMap<[String; 4], Arc<Watches>>>,
    in_flight: [AtomicI64; 2],
}

/// Requests that ask for the same.
struct Requests {
    labels: Labels,
    long_running: AtomicI64,
    /// Those that do not stay open.
    seconds: Histogram,
    bytes: Histogram,
    codes: RwLock<Vec<(u16, AtomicU64)>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Labels {
    verb: &'static str,
    dry_run: &'static str,
    scope: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
}

/// The same, borrowed.
#[derive(Hash)]
struct Asked<'a> {
    verb: &'static str,
    dry_run: &'static str,
    scope: &'static str,
    group: &'a str,
    version: &'a str,
    resource: &'a str,
    subresource: &'a str,
}

/// How a request was answered.
#[derive(Debug, Clone, Copy)]
pub struct Answered {
    /// Its resource exists.
    pub served: bool,
    /// The HTTP code.
    pub code: u16,
    /// How long it took.
    pub took: Duration,
    /// How large the answer is, if that is known.
    pub bytes: Option<u64>,
    /// `dryRun=All`
    pub dry_run: bool,
    /// A patch that is applied.
    pub apply: bool,
}

/// A request on its way; dropping it says it is done.
pub struct InFlight<'a>(&'a AtomicI64);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request whose answer stays open; dropping it says it is closed.
pub struct LongRunning(Arc<Requests>);

impl fmt::Debug for LongRunning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LongRunning").field(&self.0.labels).finish()
    }
}

impl Drop for LongRunning {
    fn drop(&mut self) {
        self.0.long_running.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Watches {
    open: AtomicI64,
    events: AtomicU64,
}

/// A watch that is open; dropping it says it is closed.
pub struct Watching(Arc<Watches>);

impl Watching {
    /// So many events were sent.
    pub fn sent(&self, events: usize) {
        self.0.events.fetch_add(events as u64, Ordering::Relaxed);
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<'a> Asked<'a> {
    fn of(info: &'a RequestInfo, served: bool, dry_run: bool, apply: bool) -> Asked<'a> {
        let verb = match info.verb.as_str() {
            _ if info.is_resource && CONNECTIONS.contains(&info.subresource.as_str()) => "CONNECT",
            "get" => "GET",
            "list" => "LIST",
            "watch" => "WATCH",
            "create" | "post" => "POST",
            "update" | "put" => "PUT",
            "patch" if apply => "APPLY",
            "patch" => "PATCH",
            "delete" => "DELETE",
            "deletecollection" => "DELETECOLLECTION",
            "head" => "HEAD",
            _ => "OTHER",
        };
        let named = !info.name.is_empty() || info.verb == "create";
        let scope = match (info.is_resource, named, info.namespace.is_empty()) {
            (false, ..) => "",
            (true, true, _) => "resource",
            (true, false, false) => "namespace",
            (true, false, true) => "cluster",
        };
        // Names that nothing is served under come from anybody, without end.
        let text = |text: &'a str| if served { text } else { "" };
        Asked {
            verb,
            dry_run: if dry_run { "All" } else { "" },
            scope,
            group: text(&info.group),
            version: text(&info.version),
            resource: text(&info.resource),
            subresource: text(&info.subresource),
        }
    }

    fn is(&self, labels: &Labels) -> bool {
        self.verb == labels.verb
            && self.dry_run == labels.dry_run
            && self.scope == labels.scope
            && self.resource == labels.resource
            && self.subresource == labels.subresource
            && self.version == labels.version
            && self.group == labels.group
    }

    fn labels(&self) -> Labels {
        Labels {
            verb: self.verb,
            dry_run: self.dry_run,
            scope: self.scope,
            group: self.group.to_owned(),
            version: self.version.to_owned(),
            resource: self.resource.to_owned(),
            subresource: self.subresource.to_owned(),
        }
    }
}

impl Labels {
    fn pairs(&self) -> Vec<(&str, &str)> {
        let Labels { verb, dry_run, scope, group, version, resource, subresource } = self;
        vec![
            COMPONENT,
            ("dry_run", dry_run),
            ("group", group),
            ("resource", resource),
            ("scope", scope),
            ("subresource", subresource),
            ("verb", verb),
            ("version", version),
        ]
    }
}

impl Metrics {
    /// Counts a request that is answered.
    pub fn observe(&self, info: &RequestInfo, answered: Answered) {
        let Answered { served, code, took, bytes, dry_run, apply } = answered;
        let requests = self.requests(&Asked::of(info, served, dry_run, apply));
        requests.count(code);
        if is_long_running(info) {
            return;
        }
        requests.seconds.observe_time(took);
        if let Some(bytes) = bytes {
            requests.bytes.observe(bytes as f64);
        }
    }

    fn requests(&self, asked: &Asked<'_>) -> Arc<Requests> {
        let mut hasher = DefaultHasher::new();
        asked.hash(&mut hasher);
        let mut place = hasher.finish();
        {
            let known = self.requests.read();
            while let Some(requests) = known.get(&place) {
                if asked.is(&requests.labels) {
                    return Arc::clone(requests);
                }
                place = place.wrapping_add(1);
            }
        }
        let mut known = self.requests.write();
        while let Some(requests) = known.get(&place) {
            if asked.is(&requests.labels) {
                return Arc::clone(requests);
            }
            place = place.wrapping_add(1);
        }
        let requests = Arc::new(Requests {
            labels: asked.labels(),
            long_running: AtomicI64::new(0),
            seconds: Histogram::new(SECONDS),
            bytes: Histogram::new(BYTES),
            codes: RwLock::default(),
        });
        known.insert(place, Arc::clone(&requests));
        requests
    }

    /// A request begins.
    pub fn in_flight(&self, read_only: bool) -> InFlight<'_> {
        let gauge = &self.in_flight[usize::from(read_only)];
        gauge.fetch_add(1, Ordering::Relaxed);
        InFlight(gauge)
    }

    /// A request whose answer stays open begins.
    pub fn long_running(&self, info: &RequestInfo, served: bool) -> LongRunning {
        let requests = self.requests(&Asked::of(info, served, false, false));
        requests.long_running.fetch_add(1, Ordering::Relaxed);
        LongRunning(requests)
    }

    /// A watch of a kind begins.
    pub fn watching(&self, kind: &ObjectKind) -> Watching {
        let labels = [&kind.group, &kind.version, &kind.plural, &kind.kind].map(String::clone);
        let watches = Arc::clone(self.watching.lock().entry(labels).or_default());
        watches.open.fetch_add(1, Ordering::Relaxed);
        Watching(watches)
    }

    /// Writes all of it.
    pub fn write(&self, text: &mut Text) {
        let mut requests: Vec<Arc<Requests>> = self.requests.read().values().cloned().collect();
        requests.sort_by(|a, b| a.labels.pairs().cmp(&b.labels.pairs()));
        for requests in &requests {
            requests.write(text);
        }
        let name = "apiserver_current_inflight_requests";
        let mut gauges = text.family(name, Kind::Gauge, "Requests that are being handled, by kind.");
        for (kind, gauge) in ["mutating", "readOnly"].iter().zip(&self.in_flight) {
            gauges.sample(&[("request_kind", kind)], gauge.load(Ordering::Relaxed));
        }
        let mut watching: Vec<([String; 4], Arc<Watches>)> =
            self.watching.lock().iter().map(|(labels, watches)| (labels.clone(), Arc::clone(watches))).collect();
        watching.sort_by(|a, b| a.0.cmp(&b.0));
        for ([group, version, resource, kind], watches) in &watching {
            text.family("apiserver_registered_watchers", Kind::Gauge, "Watches that are open.").sample(
                &[("group", group), ("kind", kind), ("version", version)],
                watches.open.load(Ordering::Relaxed),
            );
            text.family("apiserver_watch_events_total", Kind::Counter, "Events that watches were sent.").sample(
                &[("group", group), ("resource", resource), ("version", version)],
                watches.events.load(Ordering::Relaxed),
            );
        }
    }
}

impl Requests {
    fn count(&self, code: u16) {
        if let Some((_, count)) = self.codes.read().iter().find(|(known, _)| *known == code) {
            count.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut codes = self.codes.write();
        match codes.iter().find(|(known, _)| *known == code) {
            Some((_, count)) => {
                count.fetch_add(1, Ordering::Relaxed);
            }
            None => codes.push((code, AtomicU64::new(1))),
        }
    }

    fn write(&self, text: &mut Text) {
        let labels = self.labels.pairs();
        let mut total =
            text.family("apiserver_request_total", Kind::Counter, "Requests, by what they ask and the answer.");
        let mut codes: Vec<(u16, u64)> =
            self.codes.read().iter().map(|(code, count)| (*code, count.load(Ordering::Relaxed))).collect();
        codes.sort_unstable();
        for (code, count) in codes {
            let code = code.to_string();
            let with_code: Vec<(&str, &str)> = std::iter::once(("code", code.as_str())).chain(labels.clone()).collect();
            total.sample(&with_code, count);
        }
        let counts = self.seconds.counts();
        if counts.count > 0 {
            let name = "apiserver_request_duration_seconds";
            text.family(name, Kind::Histogram, "How long requests took, those that stay open aside.")
                .histogram(&labels, &counts);
            let name = "apiserver_request_sli_duration_seconds";
            text.family(name, Kind::Histogram, "The same; nothing here waits for others that could be taken off.")
                .histogram(&labels, &counts);
        }
        let bytes = self.bytes.counts();
        if bytes.count > 0 {
            let labels: Vec<(&str, &str)> = labels.iter().filter(|(label, _)| *label != "dry_run").copied().collect();
            text.family("apiserver_response_sizes", Kind::Histogram, "How large answers are, in bytes.")
                .histogram(&labels, &bytes);
        }
        let open = self.long_running.load(Ordering::Relaxed);
        if open != 0 || matches!(self.labels.verb, "WATCH" | "CONNECT") {
            let labels: Vec<(&str, &str)> = labels.iter().filter(|(label, _)| *label != "dry_run").copied().collect();
            text.family("apiserver_longrunning_requests", Kind::Gauge, "Requests whose answers are open.")
                .sample(&labels, open);
        }
    }
}
