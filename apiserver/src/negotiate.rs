//! In which form a client wants its answer, and in which it sent its body.
//!
//! `k8s.io/apiserver/pkg/endpoints/handlers/negotiation/negotiate.go`. An `Accept` header lists media types; the first
//! that can be served wins (kubectl asks for a Table, then for plain JSON).

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};
use minik8s_api::status::Status;

/// JSON.
pub const JSON: &str = "application/json";
/// YAML.
pub const YAML: &str = "application/yaml";
/// Kubernetes' protobuf.
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// How bytes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// JSON.
    #[default]
    Json,
    /// YAML.
    Yaml,
    /// Kubernetes' protobuf.
    Protobuf,
}

impl Encoding {
    /// The media type of an answer.
    pub fn media_type(self) -> &'static str {
        match self {
            Encoding::Json => JSON,
            Encoding::Yaml => YAML,
            Encoding::Protobuf => PROTOBUF,
        }
    }

    fn of(media_type: &str) -> Option<Encoding> {
        match media_type {
            JSON | "*/*" | "application/*" => Some(Encoding::Json),
            YAML | "application/x-yaml" | "text/yaml" => Some(Encoding::Yaml),
            PROTOBUF => Some(Encoding::Protobuf),
            _ => None,
        }
    }
}

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transform {
    /// The objects themselves.
    #[default]
    None,
    /// `as=Table`.
    Table,
    /// `as=PartialObjectMetadata` and its list.
    PartialMetadata,
}

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Form {
    /// How it is written.
    pub encoding: Encoding,
    /// What is written.
    pub transform: Transform,
}

/// One element of an Accept header.
struct Clause<'a> {
    media_type: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

fn clauses(accept: &str) -> impl Iterator<Item = Clause<'_>> {
    accept.split(',').map(|clause| {
        let mut parts = clause.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        let parameters = parts
            .filter_map(|part| part.split_once('='))
            .map(|(key, value)| (key.trim(), value.trim().trim_matches('"')));
        Clause { media_type, parameters: parameters.collect() }
    })
}

impl Clause<'_> {
    fn parameter(&self, name: &str) -> &str {
        self.parameters.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    }

    /// The transformation it asks for; `None` if there is no such.
    fn transform(&self) -> Option<Transform> {
        let transform = match self.parameter("as") {
            "" => return Some(Transform::None),
            "Table" => Transform::Table,
            "PartialObjectMetadata" | "PartialObjectMetadataList" => Transform::PartialMetadata,
            _ => return None,
        };
        let known = matches!(self.parameter("v"), "v1" | "v1beta1") && self.parameter("g") == "meta.k8s.io";
        known.then_some(transform)
    }
}

/// The text of a header that may stand several times.
fn joined(headers: &HeaderMap, name: http::HeaderName) -> String {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(",")
}

/// The form of the answer to a request about objects. `protobuf`: whether this kind can be written so.
pub fn answer(headers: &HeaderMap, protobuf: bool) -> Result<Form, Status> {
    negotiate(headers, protobuf, true)
}

/// The encoding of an answer that has no other form than its own (a Scale, a review).
pub fn plain(headers: &HeaderMap) -> Result<Encoding, Status> {
    negotiate(headers, true, false).map(|form| form.encoding)
}

fn negotiate(headers: &HeaderMap, protobuf: bool, transforms: bool) -> Result<Form, Status> {
    let accept = joined(headers, ACCEPT);
    if accept.trim().is_empty() {
        return Ok(Form::default());
    }
    let forms = clauses(&accept).filter_map(|clause| {
        let encoding = Encoding::of(clause.media_type)?;
        Some(Form { encoding, transform: clause.transform()? })
    });
    let mut servable = forms.filter(|form| match form.transform {
        Transform::None => form.encoding != Encoding::Protobuf || protobuf,
        _ => form.encoding != Encoding::Protobuf && transforms,
    });
    servable.next().ok_or_else(|| {
        let offered = [JSON, YAML, PROTOBUF];
        Status::not_acceptable(if protobuf { &offered } else { &offered[..2] })
    })
}

/// Whether the client accepts a media type with a parameter (`as=APIGroupDiscoveryList`), and which version of it, for
/// documents that have forms of their own. The order of the header decides.
pub fn accepted_as(headers: &HeaderMap, group: &str, kind: &str, versions: &[&'static str]) -> Option<&'static str> {
    let accept = joined(headers, ACCEPT);
    for clause in clauses(&accept) {
        if !matches!(clause.media_type, JSON | "*/*" | "application/*") {
            continue;
        }
        if clause.parameter("as").is_empty() {
            return None;
        }
        let version = versions.iter().find(|version| **version == clause.parameter("v"));
        if let (Some(version), true) = (version, clause.parameter("g") == group && clause.parameter("as") == kind) {
            return Some(version);
        }
    }
    None
}

/// The media type of the body, JSON if it is not given, or what the body is not: one of `accepted`.
pub fn body_media_type(headers: &HeaderMap) -> String {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or(JSON);
    content_type.split(';').next().unwrap_or(JSON).trim().to_ascii_lowercase()
}

/// The encoding of a body that is an object.
pub fn body_encoding(headers: &HeaderMap, protobuf: bool) -> Result<Encoding, Status> {
    let media_type = body_media_type(headers);
    match Encoding::of(&media_type) {
        Some(Encoding::Protobuf) if !protobuf => Err(unsupported_body(false)),
        Some(encoding) if !media_type.contains('*') => Ok(encoding),
        _ => Err(unsupported_body(protobuf)),
    }
}

fn unsupported_body(protobuf: bool) -> Status {
    let accepted = [JSON, YAML, PROTOBUF];
    Status::unsupported_media_type(if protobuf { &accepted } else { &accepted[..2] })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(accept: &str) -> Result<Form, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().expect("header"));
        answer(&headers, true).map_err(|status| status.code)
    }

    #[test]
    fn the_first_form_that_can_be_served_wins() {
        let table = Form { encoding: Encoding::Json, transform: Transform::Table };
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(form(kubectl), Ok(table));
        assert_eq!(
            form("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io, application/json"),
            Ok(Form::default())
        );
        assert_eq!(form("application/json;as=Nope;v=v1;g=meta.k8s.io"), Err(406));
        assert_eq!(form("text/html, */*;q=0.8"), Ok(Form::default()));
        assert_eq!(
            form("application/vnd.kubernetes.protobuf,application/json").map(|form| form.encoding),
            Ok(Encoding::Protobuf)
        );
        assert_eq!(form("text/plain"), Err(406));
    }
}
