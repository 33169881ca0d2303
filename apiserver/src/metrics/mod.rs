//! What `/metrics` says, in Prometheus' text format, under Kubernetes' names.

pub mod histogram;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use minik8s_api::kinds::Kind;
use parking_lot::Mutex;

use crate::cache::Cache;
use crate::endpoints::connect::CONNECTIONS;
use crate::request::RequestInfo;

/// Upper bounds of the request duration's buckets, in seconds.
const BUCKETS: [f64; 12] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// Counters and gauges of one server. Labels come from the kinds that are served, so their number is bounded.
#[derive(Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<RequestLabels, Durations>>,
    codes: Mutex<BTreeMap<(RequestLabels, u16), u64>>,
    watching: Mutex<BTreeMap<[String; 3], Arc<AtomicI64>>>,
    in_flight: [AtomicI64; 2],
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct RequestLabels {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
}

#[derive(Default)]
struct Durations {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum: f64,
}

/// A request on its way; dropping it says it is done.
pub struct InFlight<'a>(&'a AtomicI64);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A watch that is open; dropping it says it is closed.
pub struct Watching(Arc<AtomicI64>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl RequestLabels {
    fn of(info: &RequestInfo, served: bool) -> RequestLabels {
        let verb = match info.verb.as_str() {
            "get" => "GET",
            "list" => "LIST",
            "watch" => "WATCH",
            "create" | "post" => "POST",
            "update" | "put" => "PUT",
            "patch" => "PATCH",
            "delete" => "DELETE",
            "deletecollection" => "DELETECOLLECTION",
            _ => "other",
        };
        let scope = match (info.is_resource, info.name.is_empty(), info.namespace.is_empty()) {
            (false, ..) => "",
            (true, false, _) => "resource",
            (true, true, false) => "namespace",
            (true, true, true) => "cluster",
        };
        // Names that nothing is served under come from anybody, without end.
        let text = |text: &str| {
            if served { text.to_owned() } else { String::new() }
        };
        RequestLabels {
            verb,
            group: text(&info.group),
            version: text(&info.version),
            resource: text(&info.resource),
            subresource: text(&info.subresource),
            scope,
        }
    }

    fn write(&self, out: &mut String) {
        let RequestLabels { verb, group, version, resource, subresource, scope } = self;
        let _ = write!(
            out,
            "group={group:?},resource={resource:?},scope={scope:?},subresource={subresource:?},verb={verb:?},version={version:?}"
        );
    }
}

impl Metrics {
    /// Counts a request that is done. `served`: its resource exists.
    pub fn observe(&self, info: &RequestInfo, served: bool, code: u16, took: Duration) {
        let labels = RequestLabels::of(info, served);
        *self.codes.lock().entry((labels.clone(), code)).or_default() += 1;
        if info.verb == "watch" || CONNECTIONS.contains(&info.subresource.as_str()) {
            return;
        }
        let seconds = took.as_secs_f64();
        let mut requests = self.requests.lock();
        let durations = requests.entry(labels).or_default();
        durations.count += 1;
        durations.sum += seconds;
        for (bucket, bound) in durations.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(seconds <= bound);
        }
    }

    /// A request begins.
    pub fn in_flight(&self, read_only: bool) -> InFlight<'_> {
        let gauge = &self.in_flight[usize::from(read_only)];
        gauge.fetch_add(1, Ordering::Relaxed);
        InFlight(gauge)
    }

    /// A watch of a kind begins.
    pub fn watching(&self, kind: &Kind) -> Watching {
        let labels = [kind.group.clone(), kind.version.clone(), kind.kind.clone()];
        let gauge = Arc::clone(self.watching.lock().entry(labels).or_default());
        gauge.fetch_add(1, Ordering::Relaxed);
        Watching(gauge)
    }

    /// Everything as text.
    pub fn render(&self, cache: &Cache) -> String {
        let mut out = String::with_capacity(64 * 1024);
        self.render_requests(&mut out);
        head(&mut out, "apiserver_current_inflight_requests", "gauge", "Requests that are being handled, by kind.");
        for (kind, gauge) in ["mutating", "readOnly"].iter().zip(&self.in_flight) {
            let _ = writeln!(
                out,
                "apiserver_current_inflight_requests{{request_kind={kind:?}}} {}",
                gauge.load(Ordering::Relaxed)
            );
        }
        head(&mut out, "apiserver_registered_watchers", "gauge", "Watches that are open, by kind.");
        for ([group, version, kind], gauge) in self.watching.lock().iter() {
            let value = gauge.load(Ordering::Relaxed);
            let _ = writeln!(
                out,
                "apiserver_registered_watchers{{group={group:?},kind={kind:?},version={version:?}}} {value}"
            );
        }
        head(&mut out, "apiserver_storage_objects", "gauge", "Stored objects, by resource.");
        let mut counts: Vec<(String, usize)> =
            cache.resources().iter().map(|cache| (cache.kind().group_resource().to_string(), cache.len())).collect();
        counts.sort();
        for (resource, count) in counts {
            let _ = writeln!(out, "apiserver_storage_objects{{resource={resource:?}}} {count}");
        }
        head(
            &mut out,
            "apiserver_watch_cache_resource_version",
            "gauge",
            "The revision up to which the watch cache is complete.",
        );
        let _ = writeln!(out, "apiserver_watch_cache_resource_version {}", cache.applied());
        out
    }

    fn render_requests(&self, out: &mut String) {
        head(out, "apiserver_request_total", "counter", "Requests, by what they asked and how they were answered.");
        for ((labels, code), count) in self.codes.lock().iter() {
            let _ = write!(out, "apiserver_request_total{{code=\"{code}\",");
            labels.write(out);
            let _ = writeln!(out, "}} {count}");
        }
        let name = "apiserver_request_duration_seconds";
        head(out, name, "histogram", "How long requests took, those that stay open aside.");
        for (labels, durations) in self.requests.lock().iter() {
            let mut text = String::new();
            labels.write(&mut text);
            for (bucket, bound) in durations.buckets.iter().zip(BUCKETS) {
                let _ = writeln!(out, "{name}_bucket{{{text},le=\"{bound}\"}} {bucket}");
            }
            let _ = writeln!(out, "{name}_bucket{{{text},le=\"+Inf\"}} {}", durations.count);
            let _ = writeln!(out, "{name}_sum{{{text}}} {}", durations.sum);
            let _ = writeln!(out, "{name}_count{{{text}}} {}", durations.count);
        }
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}
