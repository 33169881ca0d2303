//! `crd-conversion-webhook`: converts the example resource between its two versions, over HTTPS.

use super::flags::Flag;
use super::server::{self, Received, Reply};
use super::{Call, webhook};
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

const V1: &str = "stable.example.com/v1";
const V2: &str = "stable.example.com/v2";

pub(super) const FLAGS: &[Flag] = &[
    Flag::string(
        "tls-cert-file",
        "",
        "File containing the default x509 Certificate for HTTPS. (CA cert, if any, concatenated after server cert.",
    ),
    Flag::string("tls-private-key-file", "", "File containing the default x509 private key matching --tls-cert-file."),
    Flag::int("port", "443", "Secure port that the webhook listens on"),
];

/// How a review is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Yaml,
}

/// Serves conversions for ever.
pub(super) async fn run(call: Arc<Call>) -> i32 {
    let answering = call.clone();
    webhook::serve_tls(call, move |request: Received| {
        let call = answering.clone();
        async move {
            match request.path.as_str() {
                "/readyz" => server::ok("ok"),
                "/crdconvert" => {
                    let body = String::from_utf8_lossy(&request.body);
                    call.verbose(2, "framework.go:134", format!("handling request: {body}")).await;
                    match review(&request) {
                        Ok(reply) => reply,
                        Err(message) => {
                            call.klog('E', "framework.go:129", &message).await;
                            server::error(StatusCode::BAD_REQUEST, message)
                        }
                    }
                }
                _ => server::not_found(),
            }
        }
    })
    .await
}

fn review(request: &Received) -> Result<Reply, String> {
    let content_type = request.header(http::header::CONTENT_TYPE.as_str());
    let format = match content_type {
        "application/json" => Format::Json,
        "application/yaml" => Format::Yaml,
        other => return Err(format!("invalid Content-Type header `{other}`")),
    };
    let read: Result<Value, String> = match format {
        Format::Json => serde_json::from_slice(&request.body).map_err(|error| error.to_string()),
        Format::Yaml => serde_yaml::from_slice(&request.body).map_err(|error| error.to_string()),
    };
    let body = String::from_utf8_lossy(&request.body);
    let mut review = read.map_err(|error| format!("failed to deserialize body ({body}) with error {error}"))?;
    let (api_version, kind) = (&review["apiVersion"], &review["kind"]);
    let known = ["apiextensions.k8s.io/v1", "apiextensions.k8s.io/v1beta1"].iter().any(|known| api_version == known);
    if !known || kind != "ConversionReview" {
        return Err(format!("Unsupported group version kind: {api_version}, Kind={kind}"));
    }
    let asked = review["request"].take();
    let mut response = convert_all(&asked);
    response["uid"] = asked["uid"].clone();
    review["response"] = response;
    review["request"] = json!({ "uid": "", "desiredAPIVersion": "", "objects": null });
    let accept = request.header(http::header::ACCEPT.as_str());
    match accepted(accept).ok_or_else(|| format!("invalid accept header `{accept}`"))? {
        Format::Json => Ok(server::typed(StatusCode::OK, "application/json", review.to_string())),
        Format::Yaml => {
            let text = serde_yaml::to_string(&review).map_err(|error| error.to_string())?;
            Ok(server::typed(StatusCode::OK, "application/yaml", text))
        }
    }
}

/// The format that an `Accept` header asks for.
fn accepted(accept: &str) -> Option<Format> {
    let mut wanted = accept.split(',').filter_map(|clause| clause.split(';').next()).map(str::trim);
    wanted.find_map(|clause| match clause {
        "" | "*/*" | "application/*" | "application/json" => Some(Format::Json),
        "application/yaml" => Some(Format::Yaml),
        _ => None,
    })
}

fn convert_all(request: &Value) -> Value {
    let desired = request["desiredAPIVersion"].as_str().unwrap_or_default();
    let objects = request["objects"].as_array().map(Vec::as_slice).unwrap_or_default();
    let converted: Result<Vec<Value>, String> = objects.iter().map(|object| convert(object, desired)).collect();
    match converted {
        Ok(objects) => json!({ "convertedObjects": objects, "result": { "metadata": {}, "status": "Success" } }),
        Err(message) => {
            json!({ "convertedObjects": null, "result": { "metadata": {}, "status": "Failure", "message": message } })
        }
    }
}

/// The first version has a host and a port in one field, the second in two.
fn convert(object: &Value, desired: &str) -> Result<Value, String> {
    let from = object["apiVersion"].as_str().unwrap_or_default();
    if from == desired {
        return Err(format!("conversion from a version to itself should not call the webhook: {desired}"));
    }
    let mut object = object.as_object().cloned().ok_or("failed to unmarshall object")?;
    match (from, desired) {
        (V1, V2) => {
            if let Some(both) = object.remove("hostPort") {
                let text = both.as_str().unwrap_or_default();
                let parts: Vec<&str> = text.split(':').collect();
                let [host, port] = parts[..] else { return Err(format!("invalid hostPort value `{text}`")) };
                object.insert("host".to_string(), host.into());
                object.insert("port".to_string(), port.into());
            }
        }
        (V2, V1) => {
            let (host, port) = (object.remove("host"), object.remove("port"));
            if host.is_some() || port.is_some() {
                let text = |value: Option<Value>| match value {
                    Some(Value::String(text)) => text,
                    Some(other) => other.to_string(),
                    None => String::new(),
                };
                object.insert("hostPort".to_string(), format!("{}:{}", text(host), text(port)).into());
            }
        }
        (V1 | V2, other) | (other, _) => return Err(format!("unexpected conversion version {other:?}")),
    }
    object.insert("apiVersion".to_string(), desired.into());
    Ok(object.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_converted_there_and_back() {
        let one = json!({ "apiVersion": V1, "kind": "E", "hostPort": "h:80" });
        let two = json!({ "apiVersion": V2, "kind": "E", "host": "h", "port": "80" });
        assert_eq!(convert(&one, V2), Ok(two.clone()));
        assert_eq!(convert(&two, V1), Ok(one.clone()));
    }

    #[test]
    fn what_cannot_be_converted_fails_the_review() {
        let wrong = json!({ "apiVersion": V1, "hostPort": "h" });
        assert_eq!(convert(&wrong, V2), Err("invalid hostPort value `h`".to_string()));
        assert_eq!(convert(&wrong, "v3"), Err("unexpected conversion version \"v3\"".to_string()));
        let request = json!({ "desiredAPIVersion": V1, "objects": [wrong] });
        assert_eq!(
            convert_all(&request)["result"]["message"],
            json!("conversion from a version to itself should not call the webhook: stable.example.com/v1")
        );
    }
}
