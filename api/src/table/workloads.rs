//! Kinds that own pods, and what scales and protects them.
use serde_json::Value;

use super::cells::{NONE, Object, UNKNOWN, UNSET, containers, first_few, int_or_text, labels, selector};
use crate::time;

const METRICS_SHOWN: usize = 2;

pub fn pod_template(object: &Object<'_>) -> Vec<Value> {
    let [names, images] = containers(object.at("/template/spec/containers"));
    vec![object.name(), names, images, labels(object.at("/template/metadata/labels")).into()]
}

pub fn replica_set(object: &Object<'_>) -> Vec<Value> {
    let [names, images] = containers(object.at("/spec/template/spec/containers"));
    vec![
        object.name(),
        object.int("/spec/replicas").into(),
        object.int("/status/replicas").into(),
        object.int("/status/readyReplicas").into(),
        object.age(),
        names,
        images,
        selector(object.at("/spec/selector")).into(),
    ]
}

pub fn deployment(object: &Object<'_>) -> Vec<Value> {
    let [names, images] = containers(object.at("/spec/template/spec/containers"));
    vec![
        object.name(),
        format!("{}/{}", object.int("/status/readyReplicas"), object.int("/spec/replicas")).into(),
        object.int("/status/updatedReplicas").into(),
        object.int("/status/availableReplicas").into(),
        object.age(),
        names,
        images,
        selector(object.at("/spec/selector")).into(),
    ]
}

pub fn stateful_set(object: &Object<'_>) -> Vec<Value> {
    let [names, images] = containers(object.at("/spec/template/spec/containers"));
    vec![
        object.name(),
        format!("{}/{}", object.int("/status/readyReplicas"), object.int("/spec/replicas")).into(),
        object.age(),
        names,
        images,
    ]
}

pub fn daemon_set(object: &Object<'_>) -> Vec<Value> {
    let [names, images] = containers(object.at("/spec/template/spec/containers"));
    vec![
        object.name(),
        object.int("/status/desiredNumberScheduled").into(),
        object.int("/status/currentNumberScheduled").into(),
        object.int("/status/numberReady").into(),
        object.int("/status/updatedNumberScheduled").into(),
        object.int("/status/numberAvailable").into(),
        labels(object.at("/spec/template/spec/nodeSelector")).into(),
        object.age(),
        names,
        images,
        selector(object.at("/spec/selector")).into(),
    ]
}

pub fn controller_revision(object: &Object<'_>) -> Vec<Value> {
    let controller = object.list("/metadata/ownerReferences").iter().find(|owner| owner["controller"] == true);
    let controller = controller.map_or(NONE.to_owned(), |owner| {
        let (group, _) = crate::kinds::split_api_version(owner["apiVersion"].as_str().unwrap_or(""));
        let kind = owner["kind"].as_str().unwrap_or("").to_lowercase();
        let dot = if group.is_empty() { "" } else { "." };
        format!("{kind}{dot}{group}/{}", owner["name"].as_str().unwrap_or(""))
    });
    vec![object.name(), controller.into(), object.int("/revision").into(), object.age()]
}

pub fn job(object: &Object<'_>) -> Vec<Value> {
    let succeeded = object.int("/status/succeeded");
    let completions = match (object.at("/spec/completions").as_i64(), object.int("/spec/parallelism")) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallel) if parallel > 1 => format!("{succeeded}/1 of {parallel}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let moment = |pointer| time::parse(object.text(pointer)).ok();
    let duration = match (moment("/status/startTime"), moment("/status/completionTime")) {
        (None, _) => String::new(),
        (Some(start), end) => time::age(start, end.unwrap_or(object.now())),
    };
    let [names, images] = containers(object.at("/spec/template/spec/containers"));
    vec![
        object.name(),
        job_status(object).into(),
        completions.into(),
        duration.into(),
        object.age(),
        names,
        images,
        selector(object.at("/spec/selector")).into(),
    ]
}

fn job_status(object: &Object<'_>) -> &'static str {
    match () {
        () if object.is_true("Complete") => "Complete",
        () if object.is_true("Failed") => "Failed",
        () if object.is_deleting() => "Terminating",
        () if object.is_true("Suspended") => "Suspended",
        () if object.is_true("FailureTarget") => "FailureTarget",
        () if object.is_true("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

pub fn cron_job(object: &Object<'_>) -> Vec<Value> {
    let last = match object.text("/status/lastScheduleTime") {
        "" => NONE.to_owned(),
        _ => object.since("/status/lastScheduleTime"),
    };
    let suspend = match object.at("/spec/suspend").as_bool() {
        Some(true) => "True",
        Some(false) => "False",
        None => UNSET,
    };
    let [names, images] = containers(object.at("/spec/jobTemplate/spec/template/spec/containers"));
    vec![
        object.name(),
        object.text("/spec/schedule").into(),
        object.text_or("/spec/timeZone", NONE),
        suspend.into(),
        object.count("/status/active").into(),
        last.into(),
        object.age(),
        names,
        images,
        selector(object.at("/spec/jobTemplate/spec/selector")).into(),
    ]
}

pub fn disruption_budget(object: &Object<'_>) -> Vec<Value> {
    vec![
        object.name(),
        int_or_text(object.at("/spec/minAvailable"), "N/A").into(),
        int_or_text(object.at("/spec/maxUnavailable"), "N/A").into(),
        object.int("/status/disruptionsAllowed").into(),
        object.age(),
    ]
}

pub fn autoscaler(object: &Object<'_>) -> Vec<Value> {
    let reference =
        format!("{}/{}", object.text("/spec/scaleTargetRef/kind"), object.text("/spec/scaleTargetRef/name"));
    vec![
        object.name(),
        reference.into(),
        targets(object).into(),
        int_or_text(object.at("/spec/minReplicas"), UNSET).into(),
        object.int("/spec/maxReplicas").into(),
        object.int("/status/currentReplicas").into(),
        object.age(),
    ]
}

/// `cpu: 12%/80%, memory: 100Mi/200Mi`, of either version.
fn targets(object: &Object<'_>) -> String {
    let v1 = object.at("/spec/targetCPUUtilizationPercentage").as_i64();
    if let Some(target) = v1 {
        let current = object.at("/status/currentCPUUtilizationPercentage").as_i64();
        let current = current.map_or(UNKNOWN.to_owned(), |share| format!("{share}%"));
        return format!("cpu: {current}/{target}%");
    }
    let metrics = object.list("/spec/metrics");
    if metrics.is_empty() {
        return NONE.to_owned();
    }
    let all: Vec<String> = metrics
        .iter()
        .enumerate()
        .map(|(index, metric)| target(metric, object.at(&format!("/status/currentMetrics/{index}"))))
        .collect();
    first_few(&all, METRICS_SHOWN, ", ")
}

fn target(metric: &Value, status: &Value) -> String {
    let kind = match metric["type"].as_str().unwrap_or("") {
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "Pods" => "pods",
        "Object" => "object",
        "External" => "external",
        _ => return "<unknown type>".to_owned(),
    };
    let (source, current) = (&metric[kind], &status[kind]["current"]);
    let amount = |of: &Value, name: &str| of[name].as_str().unwrap_or(UNKNOWN).to_owned();
    let name = source["name"].as_str().unwrap_or("");
    let wanted = &source["target"];
    let resource = matches!(kind, "resource" | "containerResource");
    if wanted["averageValue"].is_string() {
        let pair = format!("{}/{}", amount(current, "averageValue"), amount(wanted, "averageValue"));
        return match kind {
            _ if resource => format!("{name}: {pair}"),
            "pods" => pair,
            _ => format!("{pair} (avg)"),
        };
    }
    if resource {
        let share = |of: &Value, otherwise: &str| {
            of["averageUtilization"].as_i64().map_or(otherwise.to_owned(), |share| format!("{share}%"))
        };
        return format!("{name}: {}/{}", share(current, UNKNOWN), share(wanted, "<auto>"));
    }
    format!("{}/{}", amount(current, "value"), amount(wanted, "value"))
}
