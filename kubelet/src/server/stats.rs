//! What containers use, for `kubectl top`, autoscalers and dashboards.
//!
//! (kubelet: `server/stats/summary.go`; `metrics/collectors/resource_metrics.go`.)

use std::collections::BTreeMap;
use std::fmt::Write as _;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use minik8s_cri::proto;
use serde_json::{Value, json};

use super::{Answer, Server, internal};
use crate::kubelet::Kubelet;
use crate::runtime::{POD_NAME_LABEL, POD_NAMESPACE_LABEL, POD_UID_LABEL};

/// What one container uses.
struct Usage {
    namespace: String,
    pod: String,
    uid: String,
    container: String,
    at: Timestamp,
    cpu_core_nanoseconds: u64,
    cpu_nanocores: u64,
    memory_working_set: u64,
    memory_usage: u64,
    memory_rss: u64,
}

impl Kubelet {
    async fn usage(&self) -> minik8s_cri::Result<Vec<Usage>> {
        let stats = self.config.cri.list_container_stats(None).await?;
        let mut usage: Vec<Usage> = stats.into_iter().filter_map(|stats| self.usage_of(stats)).collect();
        usage.sort_by(|a, b| (&a.namespace, &a.pod, &a.container).cmp(&(&b.namespace, &b.pod, &b.container)));
        Ok(usage)
    }

    fn usage_of(&self, stats: proto::ContainerStats) -> Option<Usage> {
        let attributes = stats.attributes?;
        let label = |name: &str| attributes.labels.get(name).cloned().unwrap_or_default();
        let value = |value: Option<proto::UInt64Value>| value.map_or(0, |value| value.value);
        let cpu = stats.cpu.unwrap_or_default();
        let memory = stats.memory.unwrap_or_default();
        let at = Timestamp::from_nanosecond(i128::from(cpu.timestamp)).ok().filter(|_| cpu.timestamp > 0);
        Some(Usage {
            namespace: label(POD_NAMESPACE_LABEL),
            pod: label(POD_NAME_LABEL),
            uid: label(POD_UID_LABEL),
            container: attributes.metadata.as_ref()?.name.clone(),
            at: at.unwrap_or_else(|| self.config.clock.now()),
            cpu_core_nanoseconds: value(cpu.usage_core_nano_seconds),
            cpu_nanocores: value(cpu.usage_nano_cores),
            memory_working_set: value(memory.working_set_bytes),
            memory_usage: value(memory.usage_bytes),
            memory_rss: value(memory.rss_bytes),
        })
    }
}

fn figures<'a>(usage: impl Iterator<Item = &'a Usage> + Clone, at: Timestamp) -> (Value, Value) {
    let sum = |field: fn(&Usage) -> u64| usage.clone().map(field).sum::<u64>();
    let cpu = json!({
        "time": at,
        "usageNanoCores": sum(|usage| usage.cpu_nanocores),
        "usageCoreNanoSeconds": sum(|usage| usage.cpu_core_nanoseconds),
    });
    let memory = json!({
        "time": at,
        "usageBytes": sum(|usage| usage.memory_usage),
        "workingSetBytes": sum(|usage| usage.memory_working_set),
        "rssBytes": sum(|usage| usage.memory_rss),
    });
    (cpu, memory)
}

/// `GET /stats/summary`.
pub(super) async fn summary(State(kubelet): Server) -> Answer {
    let usage = kubelet.usage().await.map_err(internal)?;
    let now = kubelet.config.clock.now();
    let mut pods: BTreeMap<&str, Vec<&Usage>> = BTreeMap::new();
    for container in &usage {
        pods.entry(&container.uid).or_default().push(container);
    }
    let pods: Vec<Value> = pods.values().map(|containers| pod_summary(containers, now)).collect();
    let (cpu, memory) = figures(usage.iter(), now);
    let (used, capacity) = kubelet.config.fs.usage().map_err(internal)?;
    let fs = json!({
        "time": now, "usedBytes": used, "capacityBytes": capacity, "availableBytes": capacity.saturating_sub(used),
    });
    let node = json!({"nodeName": kubelet.config.node_name, "cpu": cpu, "memory": memory, "fs": fs});
    Ok(axum::Json(json!({"node": node, "pods": pods})).into_response())
}

fn pod_summary(containers: &[&Usage], now: Timestamp) -> Value {
    let (cpu, memory) = figures(containers.iter().copied(), now);
    let each = containers.iter().map(|container| {
        let (cpu, memory) = figures(std::iter::once(*container), container.at);
        json!({"name": container.container, "cpu": cpu, "memory": memory})
    });
    let first = containers.first();
    json!({
        "podRef": {
            "name": first.map(|usage| &usage.pod),
            "namespace": first.map(|usage| &usage.namespace),
            "uid": first.map(|usage| &usage.uid),
        },
        "cpu": cpu,
        "memory": memory,
        "containers": each.collect::<Vec<_>>(),
    })
}

fn text(body: String) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], body).into_response()
}

fn family(body: &mut String, name: &str, type_: &str, help: &str) {
    // Writing into a String cannot fail.
    let _ = writeln!(body, "# HELP {name} [STABLE] {help}\n# TYPE {name} {type_}");
}

/// `GET /metrics/resource`, which metrics-server reads.
pub(super) async fn resource_metrics(State(kubelet): Server) -> Answer {
    let usage = kubelet.usage().await.map_err(internal)?;
    let mut body = String::new();
    let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
    let labels = |usage: &Usage| {
        format!("container=\"{}\",namespace=\"{}\",pod=\"{}\"", usage.container, usage.namespace, usage.pod)
    };
    let name = "container_cpu_usage_seconds_total";
    family(&mut body, name, "counter", "Cumulative cpu time consumed by the container in core-seconds");
    for one in &usage {
        let (value, at) = (seconds(one.cpu_core_nanoseconds), one.at.as_millisecond());
        let _ = writeln!(body, "{name}{{{}}} {value} {at}", labels(one));
    }
    let name = "container_memory_working_set_bytes";
    family(&mut body, name, "gauge", "Current working set of the container in bytes");
    for one in &usage {
        let (value, at) = (one.memory_working_set, one.at.as_millisecond());
        let _ = writeln!(body, "{name}{{{}}} {value} {at}", labels(one));
    }
    let name = "node_cpu_usage_seconds_total";
    family(&mut body, name, "counter", "Cumulative cpu time consumed by the node in core-seconds");
    let total: u64 = usage.iter().map(|usage| usage.cpu_core_nanoseconds).sum();
    let now = kubelet.config.clock.now().as_millisecond();
    let _ = writeln!(body, "{name} {} {now}", seconds(total));
    let name = "node_memory_working_set_bytes";
    family(&mut body, name, "gauge", "Current working set of the node in bytes");
    let total: u64 = usage.iter().map(|usage| usage.memory_working_set).sum();
    let _ = writeln!(body, "{name} {total} {now}");
    Ok(text(body))
}

/// `GET /metrics`: what the kubelet itself is busy with.
pub(super) async fn metrics(State(kubelet): Server) -> Answer {
    let mut body = String::new();
    let pods = kubelet.pods();
    family(&mut body, "kubelet_desired_pods", "gauge", "The number of pods the kubelet is being instructed to run");
    let _ = writeln!(body, "kubelet_desired_pods {}", pods.len());
    let containers = kubelet.config.cri.list_containers(None).await.map_err(internal)?;
    let running = proto::ContainerState::ContainerRunning as i32;
    let count = containers.iter().filter(|container| container.state == running).count();
    family(&mut body, "kubelet_running_containers", "gauge", "Number of containers currently running");
    let _ = writeln!(body, "kubelet_running_containers{{container_state=\"running\"}} {count}");
    family(&mut body, "kubelet_working_pod_queue", "gauge", "Number of pods that wait for a sync");
    let _ = writeln!(body, "kubelet_working_pod_queue {}", kubelet.queue.len());
    Ok(text(body))
}
