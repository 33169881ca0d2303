//! `webhook`: an admission webhook that denies, allows and changes what tests send it, over HTTPS.

use super::Call;
use super::flags::Flag;
use super::server::{self, Received, Reply, Server};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;

const DELAY: Duration = Duration::from_secs(5);
/// The label and the key in `data` by which tests ask for something.
const MARK: &str = "webhook-e2e-test";

const FIRST_LABEL: &str = r#"[{"op": "add", "path": "/metadata/labels", "value": {"added-label": "yes"}}]"#;
const ANOTHER_LABEL: &str = r#"[{"op": "add", "path": "/metadata/labels/added-label", "value": "yes"}]"#;
const CHANGED_LABEL: &str = r#"[{"op": "replace", "path": "/metadata/labels/added-label", "value": "yes"}]"#;
const STAGE_1: &str = r#"[{"op": "add", "path": "/data/mutation-stage-1", "value": "yes"}]"#;
const STAGE_2: &str = r#"[{"op": "add", "path": "/data/mutation-stage-2", "value": "yes"}]"#;
const INIT_CONTAINER: &str = r#"[{"op": "add", "path": "/spec/initContainers", "value": [{"image": "webhook-added-image", "name": "webhook-added-init-container", "resources": {}}]}]"#;

pub(super) const FLAGS: &[Flag] = &[
    Flag::string(
        "tls-cert-file",
        "",
        "File containing the default x509 Certificate for HTTPS. (CA cert, if any, concatenated after server cert).",
    ),
    Flag::string("tls-private-key-file", "", "File containing the default x509 private key matching --tls-cert-file."),
    Flag::int("port", "443", "Secure port that the webhook listens on"),
    Flag::string("sidecar-image", "", "Image to be used as the injected sidecar"),
];

/// Serves reviews for ever.
pub(super) async fn run(call: Arc<Call>) -> i32 {
    let answering = call.clone();
    serve_tls(call, move |request: Received| {
        let call = answering.clone();
        async move {
            match request.path.as_str() {
                "/readyz" => server::ok("ok"),
                path => match judge(path) {
                    Some(judge) => review(&call, &request, judge).await,
                    None => server::not_found(),
                },
            }
        }
    })
    .await
}

/// Serves HTTPS with the certificate, key and port that flags name, for ever.
pub(super) async fn serve_tls<F, Fut>(call: Arc<Call>, answer: F) -> i32
where
    F: Fn(Received) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Reply> + Send + 'static,
{
    let flags = &call.flags;
    let tls = match server::load_key_pair(&call, flags.text("tls-cert-file"), flags.text("tls-private-key-file")) {
        Ok(tls) => tls,
        Err(error) => {
            call.klog('F', "config.go:35", error).await;
            return 255;
        }
    };
    let listening = flags.port("port").ok_or_else(|| "listen tcp: invalid port".to_string());
    match listening.and_then(|port| server::listen(&call, port)) {
        Ok(listener) => Server::new(call.clone(), listener, answer).with_tls(Some(tls)).run().await,
        Err(error) => {
            let _told = call.stderr.line(format!("panic: {error}")).await;
            2
        }
    }
}

/// What a review asks about.
struct Asked<'a> {
    request: &'a Value,
    /// What `--sidecar-image` names.
    sidecar_image: &'a str,
}

/// What becomes of a request: the `response` of a review, without its `uid`. `None` where the real one fails on a wrong use.
type Judge = fn(&Asked<'_>) -> Option<Value>;

/// Who judges at a path.
fn judge(path: &str) -> Option<Judge> {
    Some(match path {
        "/always-allow-delay-5s" => always_allow,
        "/always-deny" => always_deny,
        "/add-label" => add_label,
        "/pods" => pods,
        "/pods/attach" => attached_pods,
        "/mutating-pods" => mutating_pods,
        "/mutating-pods-sidecar" => mutating_pods_sidecar,
        "/configmaps" => config_maps,
        "/mutating-configmaps" => mutating_config_maps,
        "/custom-resource" => custom_resource,
        "/mutating-custom-resource" => mutating_custom_resource,
        "/crd" => custom_resource_definitions,
        _ => return None,
    })
}

async fn review(call: &Call, request: &Received, judge: Judge) -> Reply {
    let content_type = request.header(http::header::CONTENT_TYPE.as_str());
    if content_type != "application/json" {
        call.klog('E', "main.go:122", format!("contentType={content_type}, expect application/json")).await;
        return server::ok("");
    }
    call.verbose(2, "main.go:126", format!("handling request: {}", String::from_utf8_lossy(&request.body))).await;
    let refused = |message: String| async move {
        call.klog('E', "main.go:132", &message).await;
        server::error(StatusCode::BAD_REQUEST, message)
    };
    let mut review: Value = match serde_json::from_slice(&request.body) {
        Ok(review) => review,
        Err(error) => return refused(format!("Request could not be decoded: {error}")).await,
    };
    let (api_version, kind) = (text(&review["apiVersion"]).to_string(), text(&review["kind"]).to_string());
    if !matches!(api_version.as_str(), "admission.k8s.io/v1" | "admission.k8s.io/v1beta1") || kind != "AdmissionReview"
    {
        return refused(format!("Unsupported group version kind: {api_version}, Kind={kind}")).await;
    }
    let asked = review["request"].take();
    if !asked.is_object() {
        return refused("Request could not be decoded: no request".to_string()).await;
    }
    if request.path == "/always-allow-delay-5s" {
        call.world.clock.sleep(DELAY).await;
    }
    if request.path == "/pods" && text(&asked["object"]["metadata"]["labels"][MARK]) == "wait-forever" {
        return std::future::pending().await;
    }
    let sidecar_image = call.flags.text("sidecar-image");
    let Some(mut response) = judge(&Asked { request: &asked, sidecar_image }) else {
        call.klog('E', "main.go:160", format!("unexpected resource {}", asked["resource"])).await;
        return server::error(StatusCode::INTERNAL_SERVER_ERROR, "unexpected resource");
    };
    response["uid"] = asked["uid"].clone();
    let answer = json!({ "kind": kind, "apiVersion": api_version, "response": response });
    call.verbose(2, "main.go:174", format!("sending response: {answer}")).await;
    server::typed(StatusCode::OK, "application/json", answer.to_string())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn allowed() -> Value {
    json!({ "allowed": true })
}

fn denied(message: &str) -> Value {
    json!({ "allowed": false, "status": { "metadata": {}, "message": message } })
}

fn denied_for(reason: &str) -> Value {
    json!({ "allowed": false, "status": { "metadata": {}, "reason": reason } })
}

fn patched(patch: &str) -> Value {
    json!({ "allowed": true, "patch": STANDARD.encode(patch), "patchType": "JSONPatch" })
}

impl Asked<'_> {
    /// The object; the old one where it is deleted.
    fn object(&self) -> &Value {
        match self.operation() {
            "DELETE" => &self.request["oldObject"],
            _ => &self.request["object"],
        }
    }

    fn operation(&self) -> &str {
        text(&self.request["operation"])
    }

    fn is_about(&self, group: &str, version: &str, resource: &str) -> bool {
        let asked = &self.request["resource"];
        [(&asked["group"], group), (&asked["version"], version), (&asked["resource"], resource)]
            .into_iter()
            .all(|(asked, wanted)| text(asked) == wanted)
    }
}

fn always_allow(_asked: &Asked<'_>) -> Option<Value> {
    Some(json!({ "allowed": true, "status": { "metadata": {}, "message": "this webhook allows all requests" } }))
}

fn always_deny(_asked: &Asked<'_>) -> Option<Value> {
    Some(denied("this webhook denies all requests"))
}

fn add_label(asked: &Asked<'_>) -> Option<Value> {
    let none = Map::new();
    let labels = asked.request["object"]["metadata"]["labels"].as_object().unwrap_or(&none);
    Some(match labels.get("added-label") {
        _ if labels.is_empty() => patched(FIRST_LABEL),
        None => patched(ANOTHER_LABEL),
        Some(value) if text(value) != "yes" => patched(CHANGED_LABEL),
        Some(_) => allowed(),
    })
}

fn pods(asked: &Asked<'_>) -> Option<Value> {
    if !asked.is_about("", "v1", "pods") {
        return Some(denied("expect resource to be { v1 pods}"));
    }
    let pod = &asked.request["object"];
    let mut messages = Vec::new();
    if text(&pod["metadata"]["labels"][MARK]) == "webhook-disallow" {
        messages.push("the pod contains unwanted label;");
    }
    let containers = pod["spec"]["containers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let unwanted = containers.iter().filter(|container| text(&container["name"]).contains("webhook-disallow"));
    messages.extend(unwanted.map(|_| "the pod contains unwanted container name;"));
    Some(if messages.is_empty() { allowed() } else { denied(&messages.join(" ")) })
}

fn attached_pods(asked: &Asked<'_>) -> Option<Value> {
    if text(&asked.request["name"]) != "to-be-attached-pod" {
        return Some(allowed());
    }
    if !asked.is_about("", "v1", "pods") {
        return Some(denied("expect resource to be { v1 pods}"));
    }
    let subresource = text(&asked.request["subResource"]);
    if subresource != "attach" {
        return Some(denied(&format!("expect subresource to be attach, got {subresource}")));
    }
    let options = &asked.request["object"];
    let unwanted = options["stdin"].as_bool() == Some(true) && text(&options["container"]) == "container1";
    Some(if unwanted { denied("attaching to pod 'to-be-attached-pod' is not allowed") } else { allowed() })
}

fn has_container(containers: &Value, name: &str) -> bool {
    containers.as_array().is_some_and(|containers| containers.iter().any(|container| text(&container["name"]) == name))
}

fn mutating_pods(asked: &Asked<'_>) -> Option<Value> {
    let pod = &asked.request["object"];
    let has = has_container(&pod["spec"]["initContainers"], "webhook-added-init-container");
    let wanted = text(&pod["metadata"]["name"]) == "webhook-to-be-mutated" && !has;
    asked.is_about("", "v1", "pods").then(|| if wanted { patched(INIT_CONTAINER) } else { allowed() })
}

fn mutating_pods_sidecar(asked: &Asked<'_>) -> Option<Value> {
    let image = asked.sidecar_image;
    if image.is_empty() {
        let message = "No image specified by the sidecar-image parameter";
        let status = json!({ "metadata": {}, "status": "Failure", "message": message, "code": 500 });
        return Some(json!({ "allowed": false, "status": status }));
    }
    let has = has_container(&asked.request["object"]["spec"]["containers"], "webhook-added-sidecar");
    let sidecar = json!({ "image": image, "name": "webhook-added-sidecar", "resources": {} });
    let patch = json!([{ "op": "add", "path": "/spec/containers/-", "value": sidecar }]).to_string();
    asked.is_about("", "v1", "pods").then(|| if has { allowed() } else { patched(&patch) })
}

/// What `data` of an object says: it may not be created or changed, or not be deleted.
fn judge_data(asked: &Asked<'_>, unwanted: &str, kept: &str) -> Value {
    match (text(&asked.object()["data"][MARK]), asked.operation()) {
        ("webhook-disallow", "CREATE" | "UPDATE") => denied_for(unwanted),
        ("webhook-nondeletable", "DELETE") => denied_for(kept),
        _ => allowed(),
    }
}

/// Changes `data` step by step: each step follows from the one before it.
fn mutate_data(asked: &Asked<'_>) -> Value {
    let data = &asked.request["object"]["data"];
    match (text(&data["mutation-start"]), text(&data["mutation-stage-1"])) {
        (_, "yes") => patched(STAGE_2),
        ("yes", _) => patched(STAGE_1),
        _ => allowed(),
    }
}

fn config_maps(asked: &Asked<'_>) -> Option<Value> {
    let judged = judge_data(
        asked,
        "the configmap contains unwanted key and value",
        "the configmap cannot be deleted because it contains unwanted key and value",
    );
    asked.is_about("", "v1", "configmaps").then_some(judged)
}

fn mutating_config_maps(asked: &Asked<'_>) -> Option<Value> {
    asked.is_about("", "v1", "configmaps").then(|| mutate_data(asked))
}

fn custom_resource(asked: &Asked<'_>) -> Option<Value> {
    Some(judge_data(
        asked,
        "the custom resource contains unwanted data",
        "the custom resource cannot be deleted because it contains unwanted key and value",
    ))
}

fn mutating_custom_resource(asked: &Asked<'_>) -> Option<Value> {
    Some(mutate_data(asked))
}

fn custom_resource_definitions(asked: &Asked<'_>) -> Option<Value> {
    let (group, resource) = ("apiextensions.k8s.io", "customresourcedefinitions");
    if !["v1", "v1beta1"].iter().any(|version| asked.is_about(group, version, resource)) {
        let expected = ["v1beta1", "v1"].map(|version| format!("{{{group} {version} {resource}}}"));
        let [v1beta1, v1] = expected;
        let got = &asked.request["resource"];
        let got = format!("{{{} {} {}}}", text(&got["group"]), text(&got["version"]), text(&got["resource"]));
        return Some(denied(&format!("expect resource to be one of [{v1beta1}, {v1}] but got {got}")));
    }
    let unwanted = text(&asked.request["object"]["metadata"]["labels"][MARK]) == "webhook-disallow";
    Some(if unwanted { denied("the crd contains unwanted label") } else { allowed() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, request: Value, expected: Value) {
        let response = judge(path).expect("a path")(&Asked { request: &request, sidecar_image: "" });
        assert_eq!(response, Some(expected), "{path}");
    }

    fn pod_review(object: Value) -> Value {
        json!({ "operation": "CREATE", "resource": { "group": "", "version": "v1", "resource": "pods" }, "object": object })
    }

    #[test]
    fn pods_are_denied_by_label_and_by_name() {
        let pod = json!({ "metadata": { "labels": { "webhook-e2e-test": "webhook-disallow" } },
                          "spec": { "containers": [{ "name": "webhook-disallow-1" }] } });
        let message = "the pod contains unwanted label; the pod contains unwanted container name;";
        check("/pods", pod_review(pod), denied(message));
        check("/pods", pod_review(json!({ "metadata": {} })), allowed());
        check("/always-deny", json!({}), denied("this webhook denies all requests"));
    }

    #[test]
    fn objects_are_changed_step_by_step() {
        let review = |data: Value| {
            let resource = json!({ "group": "", "version": "v1", "resource": "configmaps" });
            json!({ "operation": "CREATE", "resource": resource, "object": { "data": data } })
        };
        check("/mutating-configmaps", review(json!({ "mutation-start": "yes" })), patched(STAGE_1));
        let second = json!({ "mutation-start": "yes", "mutation-stage-1": "yes" });
        check("/mutating-configmaps", review(second), patched(STAGE_2));
        check("/mutating-custom-resource", review(json!({})), allowed());
        check("/add-label", json!({ "object": { "metadata": { "labels": { "a": "b" } } } }), patched(ANOTHER_LABEL));
        check("/add-label", json!({ "object": { "metadata": {} } }), patched(FIRST_LABEL));
    }

    #[test]
    fn data_is_denied_by_operation() {
        let resource = json!({ "group": "", "version": "v1", "resource": "configmaps" });
        let old = json!({ "data": { "webhook-e2e-test": "webhook-nondeletable" } });
        let kept = "the configmap cannot be deleted because it contains unwanted key and value";
        let deleted = json!({ "operation": "DELETE", "resource": resource, "oldObject": old, "object": null });
        check("/configmaps", deleted, denied_for(kept));
        let updated = json!({ "operation": "UPDATE", "resource": resource, "object": old });
        check("/configmaps", updated, allowed());
    }
}
