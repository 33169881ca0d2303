//! Conversion by webhook: what is asked, and what of an answer is taken.
//!
//! `apiextensions-apiserver/pkg/apiserver/conversion/webhook_converter.go`. Asking is the API server's part.

use serde_json::{Map, Value, json};

use crate::kinds::split_api_version;
use crate::meta;
use crate::strategy::field::Errors;
use crate::strategy::field::Field;
use crate::strategy::{validate_annotations, validate_labels};

const GROUP: &str = "apiextensions.k8s.io";
const REVIEW: &str = "ConversionReview";

/// `spec.conversion.webhook` of a definition.
#[derive(Debug, Clone, PartialEq)]
pub struct WebhookConversion {
    /// Where the webhook is: `url` or `service`, and `caBundle`.
    pub client_config: Value,
    /// Versions of ConversionReview that it understands, the best first.
    pub review_versions: Vec<String>,
}

/// A question, and how its answer is known.
#[derive(Debug, Clone)]
pub struct Review {
    /// What is sent.
    pub body: Value,
    version: &'static str,
    uid: String,
}

impl WebhookConversion {
    /// Reads a definition's `spec.conversion`; `None` where versions differ by name only.
    pub fn parse(conversion: &Value) -> Option<WebhookConversion> {
        if conversion["strategy"] != "Webhook" {
            return None;
        }
        let webhook = &conversion["webhook"];
        let versions = webhook["conversionReviewVersions"].as_array().into_iter().flatten();
        Some(WebhookConversion {
            client_config: webhook["clientConfig"].clone(),
            review_versions: versions.filter_map(Value::as_str).map(str::to_owned).collect(),
        })
    }

    /// Asks for objects in `api_version`.
    pub fn review(&self, uid: &str, api_version: &str, objects: &[Value]) -> Result<Review, String> {
        let known =
            self.review_versions.iter().find_map(|version| ["v1", "v1beta1"].into_iter().find(|v| v == version));
        let version = known.ok_or("no supported conversion review versions")?;
        let body = json!({
            "kind": REVIEW,
            "apiVersion": format!("{GROUP}/{version}"),
            "request": { "uid": uid, "desiredAPIVersion": api_version, "objects": objects },
        });
        Ok(Review { body, version, uid: uid.to_owned() })
    }
}

impl Review {
    /// The objects of an answer, unchecked.
    pub fn read(&self, mut answer: Value) -> Result<Vec<Value>, String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        // Of v1beta1, Kubernetes verifies neither kind nor UID.
        let strict = self.version == "v1";
        let (api_version, kind) = (text(&answer["apiVersion"]), text(&answer["kind"]));
        if strict && (api_version != format!("{GROUP}/v1") || kind != REVIEW) {
            let expected = format!("{GROUP}/v1, Kind={REVIEW}");
            return Err(format!("expected webhook response of {expected}, got {api_version}, Kind={kind}"));
        }
        let response = answer["response"].take();
        if !response.is_object() {
            return Err("no response provided".to_owned());
        }
        let uid = text(&response["uid"]);
        if strict && uid != self.uid {
            return Err(format!("expected response.uid={:?}, got {uid:?}", self.uid));
        }
        let status = text(&response["result"]["status"]);
        if status != "Success" {
            return Err(match text(&response["result"]["message"]) {
                none if none.is_empty() => format!("response.result.status was '{status}', not 'Success'"),
                message => message,
            });
        }
        let mut response = response;
        match response["convertedObjects"].take() {
            Value::Array(objects) => Ok(objects),
            _ => Ok(Vec::new()),
        }
    }
}

/// A converted object: of the right version and kind, with the identity and metadata of the original, but for labels and
/// annotations, which a webhook may change. `index` is its place among several. The error begins with `returned`.
pub fn accept(original: &Value, converted: Value, api_version: &str, index: Option<usize>) -> Result<Value, String> {
    let at = match index {
        None => "returned invalid object at index 0".to_owned(),
        Some(index) => format!("returned invalid converted object at index {index}"),
    };
    let text = |object: &Value, field: &str| object[field].as_str().unwrap_or_default().to_owned();
    let received = text(&converted, "apiVersion");
    if split_api_version(&received) != split_api_version(api_version) {
        return Err(format!("{at}: invalid groupVersion (expected {api_version}, received {received})"));
    }
    let (expected, received) = (text(original, "kind"), text(&converted, "kind"));
    if expected != received {
        return Err(format!("{at}: invalid kind (expected {expected}, received {received})"));
    }
    let invalid = match index {
        None => "returned invalid object".to_owned(),
        Some(_) => at,
    };
    same_identity(original, &converted).map_err(|error| format!("{invalid}: {error}"))?;
    let invalid = match index {
        None => "returned invalid metadata".to_owned(),
        Some(index) => format!("returned invalid metadata in object at index {index}"),
    };
    restore_metadata(original, converted).map_err(|error| format!("{invalid}: {error}"))
}

fn same_identity(original: &Value, converted: &Value) -> Result<(), String> {
    let fields = [
        ("name", meta::name(original), meta::name(converted)),
        ("namespace", meta::namespace(original), meta::namespace(converted)),
        ("UID", meta::uid(original), meta::uid(converted)),
    ];
    for (what, expected, actual) in fields {
        if expected != actual {
            return Err(format!("must have the same {what}: {expected} != {actual}"));
        }
    }
    Ok(())
}

fn restore_metadata(original: &Value, mut converted: Value) -> Result<Value, String> {
    let answered = match converted.get_mut("metadata").map(Value::take) {
        None => return Err("missing metadata in converted object".to_owned()),
        Some(Value::Object(answered)) => answered,
        Some(other) => return Err(format!("invalid metadata of type {} in converted object", go_type(&other))),
    };
    let mut metadata = original["metadata"].as_object().cloned().unwrap_or_default();
    for field in ["labels", "annotations"] {
        match answered.get(field) {
            None | Some(Value::Null) => drop(metadata.remove(field)),
            Some(Value::Object(texts)) => {
                check_texts(field, metadata.get(field).and_then(Value::as_object), texts)?;
                metadata.insert(field.to_owned(), Value::Object(texts.clone()));
            }
            Some(other) => {
                return Err(format!("invalid metadata.{field} of type {} in converted object", go_type(other)));
            }
        }
    }
    converted["metadata"] = Value::Object(metadata);
    Ok(converted)
}

fn check_texts(field: &str, before: Option<&Map<String, Value>>, after: &Map<String, Value>) -> Result<(), String> {
    if let Some((key, value)) = after.iter().find(|(_, value)| !value.is_string()) {
        return Err(format!("metadata.{field}[{key}] must be a string, but is {} in converted object", go_type(value)));
    }
    if before == Some(after) {
        return Ok(());
    }
    let (value, mut errors) = (Value::Object(after.clone()), Errors::new());
    match field {
        "labels" => validate_labels(&Field::at("metadata.labels", &value), &mut errors),
        _ => validate_annotations(&Field::at("metadata.annotation", &value), &mut errors),
    }
    let told: Vec<String> = errors.into_iter().map(|error| error.to_string()).collect();
    match told.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        several => Err(format!("[{}]", several.join(", "))),
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(version: &str, metadata: Value) -> Value {
        json!({ "apiVersion": format!("example.com/{version}"), "kind": "Pg", "metadata": metadata, "spec": { "a": 1 } })
    }

    fn check(converted: Value, expect: &str) {
        let metadata = json!({ "name": "x", "namespace": "ns", "uid": "1", "labels": { "a": "b" }, "generation": 3 });
        let accepted = accept(&object("v1", metadata), converted, "example.com/v2", None);
        let shown = match accepted {
            Ok(object) => object["metadata"].to_string(),
            Err(error) => error,
        };
        assert_eq!(shown, expect);
    }

    #[test]
    fn an_answer_keeps_the_identity_of_its_object() {
        let same = json!({ "name": "x", "namespace": "ns", "uid": "1" });
        let with = |field: &str, value: Value| {
            let mut metadata = same.clone();
            metadata[field] = value;
            object("v2", metadata)
        };
        check(object("v2", same.clone()), r#"{"generation":3,"name":"x","namespace":"ns","uid":"1"}"#);
        check(
            with("labels", json!({ "c": "d" })),
            r#"{"generation":3,"labels":{"c":"d"},"name":"x","namespace":"ns","uid":"1"}"#,
        );
        check(with("generation", json!(7)), r#"{"generation":3,"name":"x","namespace":"ns","uid":"1"}"#);
        check(with("name", json!("y")), "returned invalid object: must have the same name: x != y");
        check(with("uid", json!("2")), "returned invalid object: must have the same UID: 1 != 2");
        check(
            object("v3", same.clone()),
            "returned invalid object at index 0: invalid groupVersion (expected example.com/v2, received example.com/v3)",
        );
        check(
            with("labels", json!({ "a": 1 })),
            "returned invalid metadata: metadata.labels[a] must be a string, but is int64 in converted object",
        );
        let mut other = object("v2", same);
        other["kind"] = json!("Other");
        check(other, "returned invalid object at index 0: invalid kind (expected Pg, received Other)");
    }

    #[test]
    fn an_answer_is_known_by_its_uid() {
        let conversion =
            WebhookConversion { client_config: json!({}), review_versions: vec!["v2".to_owned(), "v1".to_owned()] };
        let review = conversion.review("u", "example.com/v2", &[]).expect("v1");
        let answer = |response: Value| {
            let answer =
                json!({ "kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1", "response": response });
            review.read(answer).map(|objects| objects.len())
        };
        assert_eq!(answer(json!({ "uid": "u", "result": { "status": "Success" }, "convertedObjects": [1, 2] })), Ok(2));
        assert_eq!(answer(json!({ "uid": "w" })), Err(r#"expected response.uid="u", got "w""#.to_owned()));
        let failed = json!({ "uid": "u", "result": { "status": "Failure", "message": "no" } });
        assert_eq!(answer(failed), Err("no".to_owned()));
        let failed = json!({ "uid": "u", "result": {} });
        assert_eq!(answer(failed), Err("response.result.status was '', not 'Success'".to_owned()));
        assert_eq!(answer(Value::Null), Err("no response provided".to_owned()));
        let other = review.read(json!({ "kind": "Status", "apiVersion": "v1" }));
        let words = "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got v1, Kind=Status";
        assert_eq!(other, Err(words.to_owned()));
    }
}
