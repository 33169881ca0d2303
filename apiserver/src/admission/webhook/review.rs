//! What webhooks are asked, and how their answers are read (`k8s.io/apiserver/pkg/admission/plugin/webhook/request`,
//! `errors/statuserror.go`).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minik8s_api::kinds::Kinds;
use minik8s_api::status::{Status, StatusReason};
use serde_json::{Value, json};

use super::super::view::View;
use super::super::{Attributes, items};

const API_VERSION: &str = "admission.k8s.io/v1";

/// An `AdmissionReview` that asks.
pub(super) fn request(view: &View, write: &Attributes<'_>, kinds: &Kinds, uid: &str) -> Value {
    let mut request = view.request(write, kinds);
    request["uid"] = json!(uid);
    request["object"] = view.object.clone();
    request["oldObject"] = view.old_object.clone();
    json!({ "kind": "AdmissionReview", "apiVersion": API_VERSION, "request": request })
}

/// A webhook's answer.
#[derive(Debug, Default)]
pub(super) struct Response {
    pub allowed: bool,
    /// Operations of a JSON patch.
    pub patch: Option<Value>,
    pub warnings: Vec<String>,
    /// What the webhook wants to stand in the audit log.
    pub audit_annotations: Vec<(String, String)>,
    /// Why not.
    pub status: Value,
}

/// Reads an answer to the question of that UID (`VerifyAdmissionResponse`).
pub(super) fn read(review: &Value, uid: &str, mutating: bool) -> Result<Response, String> {
    let response = &review["response"];
    if !response.is_object() {
        return Err("webhook response was absent".to_owned());
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let answered = text(&response["uid"]);
    if answered != uid {
        return Err(format!("expected response.uid={uid:?}, got {answered:?}"));
    }
    let (version, kind) = (text(&review["apiVersion"]), text(&review["kind"]));
    if version != API_VERSION || kind != "AdmissionReview" {
        let got = format!("{version}, Kind={kind}");
        return Err(format!("expected webhook response of {API_VERSION}, Kind=AdmissionReview, got {got}"));
    }
    Ok(Response {
        allowed: response["allowed"] == true,
        patch: patch(response, mutating)?,
        warnings: items(&response["warnings"]).filter_map(Value::as_str).map(str::to_owned).collect(),
        audit_annotations: annotations(&response["auditAnnotations"]),
        status: response["status"].clone(),
    })
}

fn annotations(annotations: &Value) -> Vec<(String, String)> {
    let annotations = annotations.as_object().into_iter().flatten();
    annotations.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

fn patch(response: &Value, mutating: bool) -> Result<Option<Value>, String> {
    let patch = response["patch"].as_str().filter(|patch| !patch.is_empty());
    let patch_type = response.get("patchType").filter(|kind| !kind.is_null());
    if !mutating {
        return match (patch, patch_type) {
            (Some(_), _) => Err("validating webhook may not return response.patch".to_owned()),
            (_, Some(_)) => Err("validating webhook may not return response.patchType".to_owned()),
            _ => Ok(None),
        };
    }
    match (patch, patch_type) {
        (None, None) => Ok(None),
        (Some(_), None) => Err("webhook returned response.patch but not response.patchType".to_owned()),
        (None, Some(_)) => Err("webhook returned response.patchType but not response.patch".to_owned()),
        (Some(patch), Some(kind)) if kind == "JSONPatch" => {
            let bytes = STANDARD.decode(patch).map_err(|error| format!("response.patch is not base64: {error}"))?;
            let patch = serde_json::from_slice(&bytes).map_err(|error| format!("response.patch: {error}"))?;
            Ok(Some(patch))
        }
        (_, Some(kind)) => Err(format!("unsupported patch type {kind}")),
    }
}

/// A webhook's no, as the client gets it (`ToStatusErr`).
pub(super) fn refusal(webhook: &str, status: &Value) -> Status {
    let text = |field: &str| status[field].as_str().unwrap_or_default();
    let denied = format!("admission webhook {webhook:?} denied the request");
    let message = match (text("message"), text("reason")) {
        ("", "") => format!("{denied} without explanation"),
        ("", reason) => format!("{denied}: {reason}"),
        (message, _) => format!("{denied}: {message}"),
    };
    let code =
        status["code"].as_u64().and_then(|code| u16::try_from(code).ok()).filter(|code| (400..600).contains(code));
    let mut refusal = Status::bad_request(message);
    refusal.code = code.unwrap_or(400);
    refusal.reason = reason(text("reason"));
    for cause in items(&status["details"]["causes"]) {
        let text = |field: &str| cause[field].as_str().unwrap_or_default();
        refusal = refusal.with_cause(text("reason"), text("message"), text("field"));
    }
    refusal
}

/// The reason of that name; those that Kubernetes does not know are not passed on.
fn reason(name: &str) -> StatusReason {
    use StatusReason::*;
    const ALL: [StatusReason; 18] = [
        Unauthorized,
        Forbidden,
        NotFound,
        AlreadyExists,
        Conflict,
        Gone,
        Expired,
        Invalid,
        BadRequest,
        MethodNotAllowed,
        NotAcceptable,
        RequestEntityTooLarge,
        UnsupportedMediaType,
        TooManyRequests,
        InternalError,
        ServerTimeout,
        Timeout,
        ServiceUnavailable,
    ];
    ALL.into_iter().find(|reason| reason.as_str() == name).unwrap_or(Unknown)
}
