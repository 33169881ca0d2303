//! Nodes, namespaces, configuration, events, rights, and the kinds that make up the API itself.
use serde_json::Value;

use super::cells::{NONE, Object, UNKNOWN, UNSET, age_of, int_or_text};
use crate::time;

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";

pub fn name_and_age(object: &Object<'_>) -> Vec<Value> {
    vec![object.name(), object.age()]
}

pub fn name_and_creation(object: &Object<'_>) -> Vec<Value> {
    vec![object.name(), object.text("/metadata/creationTimestamp").into()]
}

pub fn node(object: &Object<'_>) -> Vec<Value> {
    let mut status = vec![match object.condition("Ready") {
        None => "Unknown",
        Some(_) if object.is_true("Ready") => "Ready",
        Some(_) => "NotReady",
    }];
    if object.bool("/spec/unschedulable") {
        status.push("SchedulingDisabled");
    }
    let address = |kind: &str| -> Value {
        let found = object.list("/status/addresses").iter().find(|address| address["type"] == kind);
        found.and_then(|address| address["address"].as_str()).unwrap_or(NONE).into()
    };
    vec![
        object.name(),
        status.join(",").into(),
        node_roles(object).into(),
        object.age(),
        object.text("/status/nodeInfo/kubeletVersion").into(),
        address("InternalIP"),
        address("ExternalIP"),
        object.text_or("/status/nodeInfo/osImage", UNKNOWN),
        object.text_or("/status/nodeInfo/kernelVersion", UNKNOWN),
        object.text_or("/status/nodeInfo/containerRuntimeVersion", UNKNOWN),
    ]
}

fn node_roles(object: &Object<'_>) -> String {
    let labels = object.at("/metadata/labels").as_object().into_iter().flatten();
    let mut roles: Vec<&str> = labels
        .filter_map(|(key, value)| match key.strip_prefix(ROLE_PREFIX) {
            Some(role) => Some(role),
            None if key == ROLE_LABEL => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() { NONE.to_owned() } else { roles.join(",") }
}

pub fn namespace(object: &Object<'_>) -> Vec<Value> {
    vec![object.name(), object.text("/status/phase").into(), object.age()]
}

pub fn component_status(object: &Object<'_>) -> Vec<Value> {
    let health = object.list("/conditions").iter().find(|condition| condition["type"] == "Healthy");
    let text = |name: &str| health.and_then(|condition| condition[name].as_str()).unwrap_or("");
    let status = match text("status") {
        "True" => "Healthy",
        "False" => "Unhealthy",
        _ => "Unknown",
    };
    vec![object.name(), status.into(), text("message").into(), text("error").into()]
}

pub fn config_map(object: &Object<'_>) -> Vec<Value> {
    vec![object.name(), (object.count("/data") + object.count("/binaryData")).into(), object.age()]
}

pub fn secret(object: &Object<'_>) -> Vec<Value> {
    vec![object.name(), object.text("/type").into(), object.count("/data").into(), object.age()]
}

/// Events of either group: `events.k8s.io` calls the same things by other names.
pub fn event(object: &Object<'_>) -> Vec<Value> {
    let either = |core: &str, events: &str| match object.text(core) {
        "" => object.text(events).to_owned(),
        text => text.to_owned(),
    };
    let moment = |core: &str, events: &str| match object.text(core) {
        "" => object.text(events).to_owned(),
        text => text.to_owned(),
    };
    let now = object.now();
    let age = |moment: &str| age_of(&moment.into(), now);
    let mut first = moment("/firstTimestamp", "/deprecatedFirstTimestamp");
    if first.is_empty() {
        first = object.text("/eventTime").to_owned();
    }
    let mut last = moment("/lastTimestamp", "/deprecatedLastTimestamp");
    if last.is_empty() {
        last.clone_from(&first);
    }
    let mut count = object.int("/count").max(object.int("/deprecatedCount")).max(1);
    if object.at("/series").is_object() {
        last = object.text("/series/lastObservedTime").to_owned();
        count = object.int("/series/count");
    }
    let kind = either("/involvedObject/kind", "/regarding/kind").to_lowercase();
    let target = match either("/involvedObject/name", "/regarding/name").as_str() {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    vec![
        age(&last).into(),
        object.text("/type").into(),
        object.text("/reason").into(),
        target.into(),
        either("/involvedObject/fieldPath", "/regarding/fieldPath").into(),
        event_source(object).into(),
        either("/message", "/note").trim().into(),
        age(&first).into(),
        count.into(),
        object.name(),
    ]
}

fn event_source(object: &Object<'_>) -> String {
    let first_of =
        |pointers: [&str; 3]| pointers.into_iter().map(|pointer| object.text(pointer)).find(|text| !text.is_empty());
    let component = first_of(["/source/component", "/deprecatedSource/component", "/reportingComponent"])
        .unwrap_or(object.text("/reportingController"));
    match first_of(["/source/host", "/deprecatedSource/host", "/reportingInstance"]) {
        Some(instance) => format!("{component}, {instance}"),
        None => component.to_owned(),
    }
}

pub fn resource_quota(object: &Object<'_>) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (name, hard) in object.at("/status/hard").as_object().into_iter().flatten() {
        let used = object.at("/status/used")[name].as_str().unwrap_or("0");
        let text = format!("{name}: {used}/{}", hard.as_str().unwrap_or("0"));
        if name.starts_with("limits") { limits.push(text) } else { requests.push(text) }
    }
    vec![object.name(), requests.join(", ").into(), limits.join(", ").into(), object.age()]
}

pub fn role_binding(object: &Object<'_>) -> Vec<Value> {
    let subjects = |kind: &str| -> Value {
        let names: Vec<String> = object
            .list("/subjects")
            .iter()
            .filter(|subject| subject["kind"] == kind)
            .map(|subject| {
                let name = subject["name"].as_str().unwrap_or("");
                match kind {
                    "ServiceAccount" => {
                        format!("{}/{name}", subject["namespace"].as_str().unwrap_or(""))
                    }
                    _ => name.to_owned(),
                }
            })
            .collect();
        names.join(", ").into()
    };
    let role = format!("{}/{}", object.text("/roleRef/kind"), object.text("/roleRef/name"));
    vec![object.name(), role.into(), object.age(), subjects("User"), subjects("Group"), subjects("ServiceAccount")]
}

pub fn signing_request(object: &Object<'_>) -> Vec<Value> {
    let has = |kind: &str| object.condition(kind).is_some();
    let mut state = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    }
    .to_owned();
    if has("Failed") {
        state.push_str(",Failed");
    }
    if !object.text("/status/certificate").is_empty() {
        state.push_str(",Issued");
    }
    let duration = object.at("/spec/expirationSeconds").as_i64().map_or(NONE.to_owned(), time::human_duration);
    vec![
        object.name(),
        object.age(),
        object.text_or("/spec/signerName", NONE),
        object.text("/spec/username").into(),
        duration.into(),
        state.into(),
    ]
}

pub fn trust_bundle(object: &Object<'_>) -> Vec<Value> {
    vec![object.name(), object.text_or("/spec/signerName", NONE)]
}

pub fn pod_certificate_request(object: &Object<'_>) -> Vec<Value> {
    let state = ["Issued", "Denied", "Failed"].into_iter().find(|kind| object.is_true(kind)).unwrap_or("Pending");
    let annotations = object.at("/spec/unverifiedUserAnnotations");
    vec![
        object.name(),
        object.text("/spec/podName").into(),
        object.text("/spec/serviceAccountName").into(),
        object.text("/spec/nodeName").into(),
        object.text("/spec/signerName").into(),
        state.into(),
        super::cells::labels(annotations).into(),
    ]
}

pub fn webhook_configuration(object: &Object<'_>) -> Vec<Value> {
    vec![object.name(), object.count("/webhooks").into(), object.age()]
}

pub fn admission_policy(object: &Object<'_>) -> Vec<Value> {
    let kind = match object.at("/spec/paramKind") {
        Value::Object(_) => {
            format!("{}/{}", object.text("/spec/paramKind/apiVersion"), object.text("/spec/paramKind/kind"))
        }
        _ => UNSET.to_owned(),
    };
    let parts = object.count("/spec/validations") + object.count("/spec/mutations");
    vec![object.name(), parts.into(), kind.into(), object.age()]
}

pub fn admission_policy_binding(object: &Object<'_>) -> Vec<Value> {
    let reference = match (object.at("/spec/paramRef").is_object(), object.text("/spec/paramRef/name")) {
        (false, _) => UNSET.to_owned(),
        (true, "") => "*".to_owned(),
        (true, name) => match object.text("/spec/paramRef/namespace") {
            "" => name.to_owned(),
            namespace => format!("{namespace}/{name}"),
        },
    };
    vec![object.name(), object.text("/spec/policyName").into(), reference.into(), object.age()]
}

pub fn custom_resource_definition(object: &Object<'_>) -> Vec<Value> {
    let served: Vec<&str> = object
        .list("/spec/versions")
        .iter()
        .filter(|version| version["served"] == true)
        .filter_map(|version| version["name"].as_str())
        .collect();
    let short: Vec<&str> = object.list("/spec/names/shortNames").iter().filter_map(Value::as_str).collect();
    vec![
        object.name(),
        object.text("/spec/scope").into(),
        served.join(",").into(),
        object.text("/metadata/creationTimestamp").into(),
        object.text("/spec/group").into(),
        object.text("/spec/names/kind").into(),
        short.join(",").into(),
        object.is_true("Established").into(),
    ]
}

pub fn api_service(object: &Object<'_>) -> Vec<Value> {
    let service = match object.at("/spec/service") {
        Value::Object(_) => format!("{}/{}", object.text("/spec/service/namespace"), object.text("/spec/service/name")),
        _ => "Local".to_owned(),
    };
    let available = match object.condition("Available") {
        None => "Unknown".to_owned(),
        Some(_) if object.is_true("Available") => "True".to_owned(),
        Some(condition) => format!(
            "{} ({})",
            condition["status"].as_str().unwrap_or("Unknown"),
            condition["reason"].as_str().unwrap_or("")
        ),
    };
    vec![object.name(), service.into(), available.into(), object.age()]
}

pub fn priority_class(object: &Object<'_>) -> Vec<Value> {
    vec![
        object.name(),
        object.int("/value").into(),
        object.bool("/globalDefault").into(),
        object.age(),
        object.text("/preemptionPolicy").into(),
    ]
}

pub fn runtime_class(object: &Object<'_>) -> Vec<Value> {
    vec![object.name(), object.text("/handler").into(), object.age()]
}

pub fn lease(object: &Object<'_>) -> Vec<Value> {
    vec![object.name(), object.text("/spec/holderIdentity").into(), object.age()]
}

pub fn flow_schema(object: &Object<'_>) -> Vec<Value> {
    let missing = object.condition("Dangling").and_then(|condition| condition["status"].as_str()).unwrap_or("?");
    vec![
        object.name(),
        object.text_or("/spec/priorityLevelConfiguration/name", NONE),
        object.int("/spec/matchingPrecedence").into(),
        object.text_or("/spec/distinguisherMethod/type", NONE),
        object.age(),
        missing.into(),
    ]
}

pub fn priority_level(object: &Object<'_>) -> Vec<Value> {
    let place = if object.text("/spec/type") == "Exempt" { "exempt" } else { "limited" };
    let queuing = |name: &str| int_or_text(object.at(&format!("/spec/limited/limitResponse/queuing/{name}")), NONE);
    vec![
        object.name(),
        object.text("/spec/type").into(),
        int_or_text(object.at(&format!("/spec/{place}/nominalConcurrencyShares")), NONE).into(),
        queuing("queues").into(),
        queuing("handSize").into(),
        queuing("queueLengthLimit").into(),
        object.age(),
    ]
}

pub fn storage_version_migration(object: &Object<'_>) -> Vec<Value> {
    let (group, resource) = (object.text("/spec/resource/group"), object.text("/spec/resource/resource"));
    let resource = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
    let status = ["Succeeded", "Failed", "Running"].into_iter().find(|kind| object.is_true(kind)).unwrap_or("");
    vec![object.name(), resource.into(), status.into()]
}
