//! What `/metrics` says of the API server: requests, watches, stored objects, and what its parts count themselves
//! (priority and fairness, audit, admission), under Kubernetes' names.
//!
//! [`requests`] and [`storage`] count, [`process`] asks the operating system; [`render`] puts all together, with what other
//! components of the process add (`k8s.io/apiserver/pkg/endpoints/metrics/metrics.go`, `pkg/storage/etcd3/metrics`).

mod flow;
mod process;
pub mod requests;
pub mod storage;

use minik8s_metrics::{Kind, Text};

pub use requests::{InFlight, LongRunning, Metrics, Watching};
pub use storage::StoreTimes;

use crate::audit::Audit;
use crate::cache::Cache;
use crate::server::ApiServer;
use crate::version;

/// Everything as text.
pub fn render(server: &ApiServer) -> String {
    let mut text = Text::default();
    server.metrics().write(&mut text);
    server.registry().store_times().write(&mut text);
    server.registry().chain().times().write(&mut text);
    flow::write(server.flow_control(), &mut text);
    if let Some(audit) = server.audit() {
        write_audit(audit, &mut text);
    }
    write_objects(server.registry().cache(), &mut text);
    let bytes = server.registry().store().status().disk_bytes;
    text.family("apiserver_storage_size_bytes", Kind::Gauge, "What the store occupies on disk.")
        .sample(&[("storage_cluster_id", "etcd-0")], bytes);
    write_build(&mut text);
    process::write(&mut text);
    server.other_metrics().write(&mut text);
    text.finish()
}

fn write_objects(cache: &Cache, text: &mut Text) {
    let mut resources = cache.resources();
    resources.sort_by_key(|cache| cache.kind().group_resource().to_string());
    let mut objects = text.family("apiserver_resource_objects", Kind::Gauge, "Stored objects.");
    for cache in &resources {
        let kind = cache.kind();
        objects.sample(&[("group", &kind.group), ("resource", &kind.plural)], cache.len());
    }
    let mut objects = text.family("apiserver_storage_objects", Kind::Gauge, "Stored objects, under the older name.");
    for cache in &resources {
        objects.sample(&[("resource", &cache.kind().group_resource().to_string())], cache.len());
    }
    let name = "apiserver_watch_cache_resource_version";
    let mut versions = text.family(name, Kind::Gauge, "The revision up to which the watch cache is complete.");
    for cached in &resources {
        let kind = cached.kind();
        versions.sample(&[("group", &kind.group), ("resource", &kind.plural)], cache.applied());
    }
}

fn write_audit(audit: &Audit, text: &mut Text) {
    text.family("apiserver_audit_event_total", Kind::Counter, "Audit events that were made.")
        .sample(&[], audit.events() + audit.errors());
    text.family("apiserver_audit_error_total", Kind::Counter, "Audit events that could not be written.")
        .sample(&[("plugin", "log")], audit.errors());
    let mut levels = text.family("apiserver_audit_level_total", Kind::Counter, "Requests by how much was recorded.");
    for (level, count) in audit.levels() {
        levels.sample(&[("level", level.as_str())], count);
    }
}

fn write_build(text: &mut Text) {
    let info = version::info();
    let value = |field: &str| info[field].as_str().unwrap_or_default().to_owned();
    let fields = [
        ("build_date", value("buildDate")),
        ("compiler", value("compiler")),
        ("git_commit", value("gitCommit")),
        ("git_tree_state", value("gitTreeState")),
        ("git_version", value("gitVersion")),
        ("go_version", value("goVersion")),
        ("major", value("major")),
        ("minor", value("minor")),
        ("platform", value("platform")),
    ];
    let labels: Vec<(&str, &str)> = fields.iter().map(|(label, value)| (*label, value.as_str())).collect();
    text.family("kubernetes_build_info", Kind::Gauge, "Which Kubernetes this is.").sample(&labels, 1);
}
