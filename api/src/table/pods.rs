//! Pods: the row that people read most.
use serde_json::Value;

use super::cells::{NONE, Object};
use crate::time;

/// What the containers tell about the pod, gathered in one pass over them.
struct Summary {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<jiff::Timestamp>,
}

/// `printPod`.
pub fn pod(pod: &Object<'_>) -> Vec<Value> {
    let summary = summarize(pod);
    let restarts = match summary.last_restart {
        Some(then) if summary.restarts != 0 => {
            format!("{} ({} ago)", summary.restarts, time::age(then, pod.now()))
        }
        _ => summary.restarts.to_string(),
    };
    let ip = match pod.text("/status/podIPs/0/ip") {
        "" => pod.text_or("/status/podIP", NONE),
        ip => ip.into(),
    };
    vec![
        pod.name(),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts.into(),
        pod.age(),
        ip,
        pod.text_or("/spec/nodeName", NONE),
        pod.text_or("/status/nominatedNodeName", NONE),
        readiness_gates(pod),
    ]
}

fn readiness_gates(pod: &Object<'_>) -> Value {
    let gates = pod.list("/spec/readinessGates");
    if gates.is_empty() {
        return NONE.into();
    }
    let open = gates.iter().filter(|gate| gate["conditionType"].as_str().is_some_and(|kind| pod.is_true(kind))).count();
    format!("{open}/{}", gates.len()).into()
}

fn summarize(pod: &Object<'_>) -> Summary {
    let sidecars: Vec<&str> = pod
        .list("/spec/initContainers")
        .iter()
        .filter(|container| container["restartPolicy"] == "Always")
        .filter_map(|container| container["name"].as_str())
        .collect();
    let phase = pod.text("/status/phase");
    let mut summary = Summary {
        reason: pod.text_or("/status/reason", phase).as_str().unwrap_or("").to_owned(),
        ready: 0,
        total: pod.list("/spec/containers").len() + sidecars.len(),
        restarts: 0,
        last_restart: None,
    };
    if pod.condition("PodScheduled").is_some_and(|condition| condition["reason"] == "SchedulingGated") {
        summary.reason = "SchedulingGated".to_owned();
    }
    let (initializing, sidecar_restarts, last_sidecar_restart) = init_containers(pod, &sidecars, &mut summary);
    if !initializing || pod.is_true("Initialized") {
        summary.restarts = sidecar_restarts;
        summary.last_restart = last_sidecar_restart;
        main_containers(pod, &mut summary);
    }
    if pod.is_deleting() {
        if pod.text("/status/reason") == "NodeLost" {
            summary.reason = "Unknown".to_owned();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            summary.reason = "Terminating".to_owned();
        }
    }
    summary
}

/// Finds the init container that the pod waits for. Gives back whether there is one, and the restarts of sidecars.
fn init_containers(pod: &Object<'_>, sidecars: &[&str], summary: &mut Summary) -> (bool, i64, Option<jiff::Timestamp>) {
    let (mut sidecar_restarts, mut last_sidecar_restart) = (0, None);
    for (index, status) in pod.list("/status/initContainerStatuses").iter().enumerate() {
        let restarts = status["restartCount"].as_i64().unwrap_or(0);
        summary.restarts += restarts;
        summary.last_restart = summary.last_restart.max(last_end(status));
        let sidecar = status["name"].as_str().is_some_and(|name| sidecars.contains(&name));
        if sidecar {
            sidecar_restarts += restarts;
            last_sidecar_restart = last_sidecar_restart.max(last_end(status));
        }
        let (ended, waiting) =
            (&status["state"]["terminated"], status["state"]["waiting"]["reason"].as_str().unwrap_or(""));
        if ended.is_object() && ended["exitCode"].as_i64().unwrap_or(0) == 0 {
            continue;
        }
        if sidecar && status["started"] == true {
            summary.ready += usize::from(status["ready"] == true);
            continue;
        }
        summary.reason = if ended.is_object() {
            format!("Init:{}", end_reason(ended))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{index}/{}", pod.list("/spec/initContainers").len())
        };
        return (true, sidecar_restarts, last_sidecar_restart);
    }
    (false, sidecar_restarts, last_sidecar_restart)
}

fn main_containers(pod: &Object<'_>, summary: &mut Summary) {
    let mut running = false;
    // The first container has the last word.
    for status in pod.list("/status/containerStatuses").iter().rev() {
        summary.restarts += status["restartCount"].as_i64().unwrap_or(0);
        summary.last_restart = summary.last_restart.max(last_end(status));
        let (ended, waiting) =
            (&status["state"]["terminated"], status["state"]["waiting"]["reason"].as_str().unwrap_or(""));
        if !waiting.is_empty() {
            summary.reason = waiting.to_owned();
        } else if ended.is_object() {
            summary.reason = end_reason(ended);
        } else if status["ready"] == true && status["state"]["running"].is_object() {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" && running {
        summary.reason = if pod.is_true("Ready") { "Running" } else { "NotReady" }.to_owned();
    }
}

fn end_reason(ended: &Value) -> String {
    match (ended["reason"].as_str().unwrap_or(""), ended["signal"].as_i64().unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", ended["exitCode"].as_i64().unwrap_or(0)),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn last_end(status: &Value) -> Option<jiff::Timestamp> {
    time::parse(status["lastState"]["terminated"]["finishedAt"].as_str()?).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(status: Value, spec: Value) -> String {
        let object = json!({"metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec, "status": status});
        let now = "2026-01-01T00:05:00Z".parse().unwrap();
        let cells = pod(&Object::new(&object, now));
        cells.iter().take(5).map(|cell| cell.as_str().unwrap_or("?")).collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn the_words_for_what_a_pod_does() {
        let two = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        let status = json!({"phase": "Running", "containerStatuses": [
            {"name": "a", "ready": true, "restartCount": 0, "state": {"running": {}}},
            {"name": "b", "ready": false, "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
             "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:04:55Z"}}}]});
        assert_eq!(row(status, two), "p | 1/2 | CrashLoopBackOff | 3 (5s ago) | 5m");
    }

    #[test]
    fn init_containers_are_counted_until_done() {
        let spec = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "j"}]});
        let waiting = json!({"phase": "Pending", "initContainerStatuses": [
            {"name": "i", "restartCount": 0, "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}},
            {"name": "j", "restartCount": 0, "state": {"waiting": {"reason": "PodInitializing"}}}]});
        assert_eq!(row(waiting, spec.clone()), "p | 0/1 | Init:1/2 | 0 | 5m");
        let failed = json!({"phase": "Pending", "initContainerStatuses": [
            {"name": "i", "restartCount": 1, "state": {"terminated": {"exitCode": 2, "reason": "Error"}}}]});
        assert_eq!(row(failed, spec), "p | 0/1 | Init:Error | 1 | 5m");
    }
}
