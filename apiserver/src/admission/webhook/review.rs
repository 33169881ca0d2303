//! What webhooks are asked, and how their answers are read (`k8s.io/apiserver/pkg/admission/plugin/webhook/request`,
//! `errors/statuserror.go`).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minik8s_api::kinds::Kinds;
use minik8s_api::status::{Status, StatusDetails, StatusReason};
use serde::Deserialize;
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
    check_types(response)?;
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

/// Whether what is there is what an `AdmissionResponse` holds.
fn check_types(response: &Value) -> Result<(), String> {
    let texts = |value: &Value| value.as_array().is_some_and(|list| list.iter().all(Value::is_string));
    let named_texts = |value: &Value| value.as_object().is_some_and(|map| map.values().all(Value::is_string));
    for (field, fits, wanted) in [
        ("allowed", Value::is_boolean as fn(&Value) -> bool, "bool"),
        ("uid", Value::is_string, "string"),
        ("patch", Value::is_string, "[]uint8"),
        ("patchType", Value::is_string, "string"),
        ("status", Value::is_object, "v1.Status"),
    ] {
        if response.get(field).is_some_and(|value| !value.is_null() && !fits(value)) {
            return Err(mistyped(field, &response[field], wanted));
        }
    }
    let (warnings, annotations) = (&response["warnings"], &response["auditAnnotations"]);
    if !warnings.is_null() && !texts(warnings) {
        return Err(mistyped("warnings", warnings, "[]string"));
    }
    if !annotations.is_null() && !named_texts(annotations) {
        return Err(mistyped("auditAnnotations", annotations, "map[string]string"));
    }
    Ok(())
}

fn mistyped(field: &str, value: &Value, wanted: &str) -> String {
    let is = match value {
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        _ => "object",
    };
    format!("json: cannot unmarshal {is} into Go struct field AdmissionResponse.response.{field} of type {wanted}")
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
    let code = status["code"].as_u64().and_then(|code| u16::try_from(code).ok());
    let mut refusal = Status::bad_request(message);
    // No HTTP answer has a code beyond 999.
    refusal.code = code.unwrap_or_default().clamp(400, 999);
    refusal.reason = StatusReason::named(text("reason"));
    refusal.details = StatusDetails::deserialize(&status["details"]).ok().map(Box::new);
    refusal
}
