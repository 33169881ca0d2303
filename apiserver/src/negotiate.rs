//! In which form a client wants its answer, and in which it sent its body.
//!
//! `k8s.io/apiserver/pkg/endpoints/handlers/negotiation/negotiate.go`. An `Accept` header lists media types; of those with
//! the highest `q` the first that can be served wins (kubectl asks for a Table, then for plain JSON).
//!
//! Routes of built-in kinds look at the header before that, as go-restful does: none of the media types that the route
//! produces, written out or as `*/*`, is a 406 that names them ([`check_route`]).

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};
use minik8s_api::kinds::Kind;
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
            YAML => Some(Encoding::Yaml),
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
    /// `as=PartialObjectMetadata`.
    PartialMetadata,
    /// `as=PartialObjectMetadataList`.
    PartialMetadataList,
}

/// The version of `meta.k8s.io` in which Tables and bare metadata are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MetaVersion {
    /// `v1`.
    #[default]
    V1,
    /// `v1beta1`.
    V1Beta1,
}

impl MetaVersion {
    /// As objects spell it.
    pub fn api_version(self) -> &'static str {
        match self {
            MetaVersion::V1 => "meta.k8s.io/v1",
            MetaVersion::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Form {
    /// How it is written.
    pub encoding: Encoding,
    /// What is written.
    pub transform: Transform,
    /// The version of what it is transformed into.
    pub meta_version: MetaVersion,
}

impl Form {
    /// Refuses bare metadata of one object where there is a list, and the other way round
    /// (`k8s.io/apiserver/pkg/endpoints/handlers/response.go` `doTransformObject`).
    pub fn check_shape(self, kind: &Kind, list: bool) -> Result<(), Status> {
        self.check_shape_of(|| go_type(kind, list), list)
    }

    /// The same for a Scale.
    pub fn check_scale(self) -> Result<(), Status> {
        self.check_shape_of(|| "*autoscaling.Scale".to_owned(), false)
    }

    fn check_shape_of(self, go_type: impl Fn() -> String, list: bool) -> Result<(), Status> {
        let (asked, what) = match (self.transform, list) {
            (Transform::PartialMetadata, true) => ("PartialObjectMetadata", "a list"),
            (Transform::PartialMetadataList, false) => ("PartialObjectMetadataList", "not a list"),
            _ => return Ok(()),
        };
        Err(Status::not_acceptable_because(format!(
            "you requested {asked}, but the requested object is {what} ({})",
            go_type()
        )))
    }
}

/// The Go type that kube-apiserver holds an object, or a list of them, in.
fn go_type(kind: &Kind, list: bool) -> String {
    if kind.custom {
        return if list { "*unstructured.UnstructuredList" } else { "*unstructured.Unstructured" }.to_owned();
    }
    let package = match kind.group.split('.').next() {
        None | Some("" | "events") => "core",
        Some(package) => package,
    };
    format!("*{package}.{}", if list { &kind.list_kind } else { &kind.kind })
}

/// One element of an Accept header.
struct Clause<'a> {
    media_type: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

/// The elements of a header, those with the highest `q` first.
fn clauses(accept: &str) -> Vec<Clause<'_>> {
    let parsed = accept.split(',').map(|clause| {
        let mut parts = clause.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        let parameters = parts
            .filter_map(|part| part.split_once('='))
            .map(|(key, value)| (key.trim(), value.trim().trim_matches('"')));
        Clause { media_type, parameters: parameters.collect() }
    });
    let mut clauses: Vec<Clause<'_>> = parsed.collect();
    clauses.sort_by(|a, b| b.quality().total_cmp(&a.quality()));
    clauses
}

impl Clause<'_> {
    fn parameter(&self, name: &str) -> &str {
        self.parameters.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    }

    /// How much it is wanted, 1 where it does not say.
    fn quality(&self) -> f64 {
        self.parameters.iter().find(|(key, _)| *key == "q").and_then(|(_, value)| value.parse().ok()).unwrap_or(1.0)
    }

    /// The form it asks for; `None` if there is no such.
    fn form(&self) -> Option<Form> {
        let encoding = Encoding::of(self.media_type)?;
        let transform = match self.parameter("as") {
            "" => return Some(Form { encoding, ..Form::default() }),
            "Table" => Transform::Table,
            "PartialObjectMetadata" => Transform::PartialMetadata,
            "PartialObjectMetadataList" => Transform::PartialMetadataList,
            _ => return None,
        };
        let meta_version = match (self.parameter("g"), self.parameter("v")) {
            ("meta.k8s.io", "v1") => MetaVersion::V1,
            ("meta.k8s.io", "v1beta1") => MetaVersion::V1Beta1,
            _ => return None,
        };
        Some(Form { encoding, transform, meta_version })
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

/// The encoding of an answer that has no other form than its own (a review, a token).
pub fn plain(headers: &HeaderMap) -> Result<Encoding, Status> {
    negotiate(headers, true, false).map(|form| form.encoding)
}

fn negotiate(headers: &HeaderMap, protobuf: bool, transforms: bool) -> Result<Form, Status> {
    let accept = joined(headers, ACCEPT);
    if accept.trim().is_empty() {
        return Ok(Form::default());
    }
    let mut servable = clauses(&accept).into_iter().filter_map(|clause| clause.form()).filter(|form| {
        let protobuf_serves = form.encoding != Encoding::Protobuf || (protobuf && form.transform != Transform::Table);
        protobuf_serves && (transforms || form.transform == Transform::None)
    });
    servable.next().ok_or_else(|| {
        let offered = [JSON, YAML, PROTOBUF];
        Status::not_acceptable(if protobuf { &offered } else { &offered[..2] })
    })
}

/// The encoding of an error: what the client accepts, or JSON.
pub fn of_status(headers: &HeaderMap, protobuf: bool) -> Encoding {
    negotiate(headers, protobuf, false).map(|form| form.encoding).unwrap_or_default()
}

/// Refuses a request whose client accepts nothing that the route produces, as go-restful's router does before a handler
/// is called (`go-restful/v3/jsr311.go` `detectRoute`). `watchable`: the route also answers watches.
pub fn check_route(headers: &HeaderMap, watchable: bool) -> Result<(), Status> {
    let accept = joined(headers, ACCEPT);
    let accepted =
        |clause: &str| matches!(clause.split(';').next().unwrap_or_default().trim(), "*/*" | JSON | YAML | PROTOBUF);
    if accept.trim().is_empty() || accept.split(',').any(accepted) {
        return Ok(());
    }
    let mut produced = vec![JSON.to_owned(), YAML.to_owned(), PROTOBUF.to_owned()];
    if watchable {
        produced.extend([format!("{JSON};stream=watch"), format!("{PROTOBUF};stream=watch")]);
    }
    let message = format!("406: Not Acceptable\n\nAvailable representations: {}", produced.join(", "));
    Err(Status { details: Some(Box::default()), ..Status::not_acceptable_because(message) })
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
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let content_type = if content_type.is_empty() { JSON } else { content_type };
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
        let table = Form { transform: Transform::Table, ..Form::default() };
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
        let encoding = |accept| form(accept).map(|form| form.encoding);
        assert_eq!(encoding("application/json;q=0.5,application/yaml"), Ok(Encoding::Yaml));
        assert_eq!(encoding("application/yaml;q=0.5,application/json"), Ok(Encoding::Json));
        let metadata = form("application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;v=v1beta1;g=meta.k8s.io");
        assert_eq!(metadata.map(|form| form.meta_version), Ok(MetaVersion::V1Beta1));
    }

    #[test]
    fn a_route_names_what_it_produces() {
        let check = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().expect("header"));
            check_route(&headers, false).map_err(|status| status.message)
        };
        assert_eq!(check("text/html, */*;q=0.1"), Ok(()));
        assert_eq!(check("application/json;as=Table"), Ok(()));
        let refused = "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf";
        assert_eq!(check("application/*"), Err(refused.to_owned()));
    }
}
