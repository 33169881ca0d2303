//! From the bytes of a request to a value whose JSON types are those of its kind.
//!
//! ```text
//!  bytes ─ serde_json / serde_yaml ─► walk (one pass, led by the schema) ─► Value + warnings
//!  Value ────────────────────────────►   types checked, unknown and duplicate fields found, zeros as Go
//!  protobuf ─ see `protobuf` ───────────────────────────────────────────────► Value
//! ```
//!
//! kube-apiserver decodes into Go structs (sigs.k8s.io/json, apimachinery `runtime/serializer/json`). This module gives
//! the value that encoding such a struct again would give, and Go's sentence where it would fail. What goes wrong is
//! looked at only once it has: a body without fault is read in a single pass.

mod duplicates;
mod problems;
mod syntax;
mod walk;

use std::sync::Arc;

use serde::Deserialize;
use serde::de::{DeserializeSeed, IgnoredAny};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::kinds::{GroupVersionKind, Kind, Kinds, split_api_version};
use crate::protobuf;
use crate::schema::{self, Struct, Type};
use crate::status::{FieldError, FieldPath, Result, Status, go_quote};

use problems::Problems;
use walk::Walk;

pub use duplicates::duplicate_keys;
pub use syntax::syntax_error;

/// How deep objects and arrays may nest. Go allows 10,000; serde_json, which reads what is stored, allows 127, and a watch
/// event and a list stand around an object.
pub const MAX_DEPTH: usize = 120;

/// The most brackets that may be open at once in YAML (`go.yaml.in/yaml/v2` `max_flow_level`).
const MAX_FLOW_LEVEL: usize = 10_000;

/// What to do about fields that are unknown or given twice (`?fieldValidation=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Refuse the request.
    Strict,
    /// Take it, drop them, and warn.
    #[default]
    Warn,
    /// Take it and drop them.
    Ignore,
}

/// The form of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/json`
    Json,
    /// `application/yaml`
    Yaml,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
}

/// What a body should be.
#[derive(Clone, Debug)]
pub struct Expected {
    /// What `apiVersion` and `kind` say, or are taken to say where they are missing.
    pub gvk: GroupVersionKind,
    /// Its type.
    pub schema: Arc<Struct>,
    /// Whether a CustomResourceDefinition brought it.
    pub custom: bool,
}

impl Expected {
    /// An object of that kind.
    pub fn kind(kind: &Kind) -> Self {
        Self { gvk: kind.gvk(), schema: kind.schema.clone(), custom: kind.custom }
    }

    /// A body of a built-in type that need not be a resource: `autoscaling/v1, Scale`, `meta.k8s.io/v1, DeleteOptions`.
    pub fn built_in(gvk: GroupVersionKind) -> Option<Self> {
        let schema = schema::built_in().kind(&gvk.group, &gvk.version, &gvk.kind)?.clone();
        Some(Self { gvk, schema, custom: false })
    }

    /// `DeleteOptions`, `CreateOptions` and the like, which clients send in any group.
    pub fn options(kind: &str) -> Option<Self> {
        Self::built_in(GroupVersionKind::new("meta.k8s.io", "v1", kind))
    }

    /// Whether these are options of a request: their faults are told without saying what they should have been.
    fn is_options(&self) -> bool {
        self.gvk.group == "meta.k8s.io"
    }

    fn accepts(&self, actual: &GroupVersionKind) -> bool {
        let is_earlier =
            (self.gvk.kind == "Eviction") && *actual == GroupVersionKind::new("policy", "v1beta1", "Eviction");
        *actual == self.gvk || (self.is_options() && actual.kind == self.gvk.kind) || is_earlier
    }
}

/// A decoded object.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The object, with `apiVersion` and `kind`.
    pub object: Value,
    /// What to warn of, in the words of a `Warning` header: `unknown field "spec.replicaz"`.
    pub warnings: Vec<String>,
}

/// Why a value is not of its type, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Unknown or duplicate fields, under [`FieldValidation::Strict`].
    #[error("strict decoding error: {}", .0.join(", "))]
    Strict(Vec<String>),
    /// A wrong JSON type, or a text that its type cannot read.
    #[error("{0}")]
    Type(String),
}

/// Decodes a body. The answer to a fault is the `Status` that kube-apiserver would give.
pub fn decode(body: &[u8], format: Format, expected: &Expected, validation: FieldValidation) -> Result<Decoded> {
    let mut problems = Problems::default();
    let ty = Type::Struct(expected.schema.clone());
    let value = match format {
        Format::Json => read_json(body, &ty, &mut problems),
        Format::Yaml => read_yaml(body, &ty, &mut problems),
        Format::Protobuf => return decode_protobuf(body, expected),
    };
    let twice = match format {
        Format::Yaml if value.is_ok() && validation != FieldValidation::Ignore => yaml_duplicates(body),
        _ => Vec::new(),
    };
    let finished = value.and_then(|value| finish(value, problems, twice, validation));
    // What the object says it is counts before any fault of its content.
    match finished {
        Ok(mut decoded) => {
            // In Go, null leaves a struct as it is: empty.
            if decoded.object.is_null() {
                decoded.object = Value::Object(Map::new());
            }
            let said = |field| decoded.object.get(field).and_then(Value::as_str).unwrap_or_default();
            let said = TypeMeta { api_version: said("apiVersion").to_owned(), kind: said("kind").to_owned() };
            if expected.custom {
                check_custom(&said, body, &decoded.object, expected)?;
            } else {
                check_type_meta(&said.with_defaults(&expected.gvk), expected)?;
            }
            set_type_meta(&mut decoded.object, expected);
            Ok(decoded)
        }
        Err(fault) => {
            let said = find_type_meta(body, format).map_err(|fault| unrecognized(body, expected, &fault))?;
            let actual = said.with_defaults(&expected.gvk);
            check_type_meta(&actual, expected)?;
            Err(cannot_be_handled(&actual, expected, &fault))
        }
    }
}

/// Brings a value into the form in which [`decode`] gives it: after a patch, which may have broken its types.
pub fn normalize(ty: &Type, value: Value, validation: FieldValidation) -> std::result::Result<Decoded, DecodeError> {
    let mut problems = Problems::default();
    let value = Walk::new(ty, &mut problems).deserialize(value);
    let value = value.map_err(|error| problems.fault(|| error.to_string()));
    value.and_then(|value| finish(value, problems, Vec::new(), validation))
}

/// What a YAML body says twice, as [`duplicate_keys`] has it.
pub fn yaml_duplicates(body: &[u8]) -> Vec<String> {
    // JSON is read by far quicker, and is what most clients send as YAML.
    if body.starts_with(b"{") && serde_json::from_slice::<IgnoredAny>(body).is_ok() && duplicate_fields(body).is_empty()
    {
        return Vec::new();
    }
    std::str::from_utf8(body).map(duplicate_keys).unwrap_or_default()
}

/// Those lines as one error.
pub fn yaml_errors(lines: &[String]) -> String {
    format!("yaml: unmarshal errors:\n  {}", lines.join("\n  "))
}

/// What a JSON text says twice, as `duplicate field "data.a"`.
pub fn duplicate_fields(json: &[u8]) -> Vec<String> {
    let mut problems = Problems::default();
    problems.without_schema = true;
    // What is wrong besides is for those who read it.
    let _ = Walk::new(&walk::ANY, &mut problems).deserialize(&mut serde_json::Deserializer::from_slice(json));
    problems.into_field_problems()
}

/// Whether an object that says it is of this version and kind can be one of `kind`.
pub fn check_kind(api_version: &str, kind: &str, expected: &Kind) -> Result<()> {
    let said = TypeMeta { api_version: api_version.to_owned(), kind: kind.to_owned() };
    let expected = Expected::kind(expected);
    check_type_meta(&said.with_defaults(&expected.gvk), &expected)
}

/// Reads raw JSON that stands `depth` levels deep in an object that came in another form.
pub(crate) fn raw_json(json: &[u8], depth: usize) -> std::result::Result<Value, DecodeError> {
    let mut problems = Problems::default();
    let mut source = serde_json::Deserializer::from_slice(json);
    let read = Walk::part(&walk::ANY, &mut problems, depth).deserialize(&mut source);
    let read = read.and_then(|value| source.end().map(|()| value));
    read.map_err(|error| problems.fault(|| syntax_error(json).unwrap_or_else(|| error.to_string())))
}

/// `twice` is what YAML says of its own.
fn finish(
    value: Value,
    problems: Problems,
    twice: Vec<String>,
    validation: FieldValidation,
) -> std::result::Result<Decoded, DecodeError> {
    if let Some(mismatch) = problems.mismatch() {
        return Err(DecodeError::Type(mismatch));
    }
    let found = problems.into_field_problems();
    match validation {
        FieldValidation::Strict if !found.is_empty() || !twice.is_empty() => {
            let twice = (!twice.is_empty()).then(|| yaml_errors(&twice));
            Err(DecodeError::Strict(twice.into_iter().chain(found).collect()))
        }
        FieldValidation::Strict | FieldValidation::Ignore => Ok(Decoded { object: value, warnings: Vec::new() }),
        FieldValidation::Warn => Ok(Decoded { object: value, warnings: twice.into_iter().chain(found).collect() }),
    }
}

fn read_json(body: &[u8], ty: &Type, problems: &mut Problems) -> std::result::Result<Value, DecodeError> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = Walk::new(ty, problems).deserialize(&mut json);
    let read = read.and_then(|value| json.end().map(|()| value));
    read.map_err(|error| problems.fault(|| syntax_error(body).unwrap_or_else(|| error.to_string())))
}

fn read_yaml(body: &[u8], ty: &Type, problems: &mut Problems) -> std::result::Result<Value, DecodeError> {
    check_flow_level(body).map_err(DecodeError::Type)?;
    let read = Walk::new(ty, problems).deserialize(first_document(body));
    // Go has made JSON of it by then, in which nothing stands twice.
    problems.forget_duplicates();
    read.map_err(|error| problems.fault(|| yaml_error(&error)))
}

/// The scanner looks at every open bracket for each token: it would take an hour for as many as fit into a body. A bracket in a text
/// counts too, if it is never closed.
fn check_flow_level(body: &[u8]) -> std::result::Result<(), String> {
    let mut level = 0usize;
    for byte in body {
        match byte {
            b'[' | b'{' => level += 1,
            b']' | b'}' => level = level.saturating_sub(1),
            _ => continue,
        }
        if level > MAX_FLOW_LEVEL {
            return Err(format!("yaml: exceeded max depth of {MAX_FLOW_LEVEL}"));
        }
    }
    Ok(())
}

/// What Kubernetes reads of a body of several documents.
fn first_document(body: &[u8]) -> serde_yaml::Deserializer<'_> {
    let mut documents = serde_yaml::Deserializer::from_slice(body);
    documents.next().unwrap_or_else(|| serde_yaml::Deserializer::from_slice(body))
}

/// Reads the first YAML document of a body as JSON; the error is in the words of Go's YAML library.
pub fn yaml_to_json(body: &[u8]) -> std::result::Result<Value, String> {
    // Appliers send JSON as YAML, which it is: it is read several times faster as JSON.
    if body.starts_with(b"{")
        && let Ok(value) = serde_json::from_slice(body)
    {
        return Ok(value);
    }
    check_flow_level(body)?;
    Value::deserialize(first_document(body)).map_err(|error| yaml_error(&error))
}

/// `yaml: line 1: did not find expected node content`. The library counts the lines of its scanner from one, those of its
/// parser from zero, and leaves the first out (`go.yaml.in/yaml/v2` `parser.fail`).
fn yaml_error(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    let problem = text.split(" at line ").next().unwrap_or(&text);
    let line = error.location().map_or(0, |location| location.line() - 1);
    let by_parser = problem.starts_with("did not find expected");
    match line {
        0 => format!("yaml: {problem}"),
        line => format!("yaml: line {}: {problem}", if by_parser { line } else { line + 1 }),
    }
}

fn decode_protobuf(body: &[u8], expected: &Expected) -> Result<Decoded> {
    if expected.custom {
        return Err(Status::unsupported_media_type(&["application/json", "application/yaml"]));
    }
    let envelope = protobuf::Envelope::parse(body).map_err(|e| unrecognized(body, expected, &e.to_string()))?;
    let said = TypeMeta { api_version: envelope.api_version.to_owned(), kind: envelope.kind.to_owned() };
    let actual = said.with_defaults(&expected.gvk);
    check_type_meta(&actual, expected)?;
    let object = protobuf::decode(&expected.schema, envelope.raw);
    let mut object = object.map_err(|e| cannot_be_handled(&actual, expected, &DecodeError::Type(e.to_string())))?;
    set_type_meta(&mut object, expected);
    Ok(Decoded { object, warnings: Vec::new() })
}

fn set_type_meta(object: &mut Value, expected: &Expected) {
    if let Some(object) = object.as_object_mut() {
        object.insert("apiVersion".to_owned(), expected.gvk.api_version().into());
        object.insert("kind".to_owned(), expected.gvk.kind.as_str().into());
    }
}

/// `apiVersion` and `kind`, either of which may be missing.
struct TypeMeta {
    api_version: String,
    kind: String,
}

impl TypeMeta {
    /// Fills in what is missing (`gvkWithDefaults` of apimachinery's JSON serializer).
    fn with_defaults(self, default: &GroupVersionKind) -> GroupVersionKind {
        let (group, version) = split_api_version(&self.api_version);
        let kind = if self.kind.is_empty() { default.kind.as_str() } else { &self.kind };
        match (group, version) {
            ("", "") => GroupVersionKind::new(&*default.group, &*default.version, kind),
            (group, "") if group == default.group => GroupVersionKind::new(group, &*default.version, kind),
            (group, version) => GroupVersionKind::new(group, version, kind),
        }
    }
}

fn no_struct(name: &str) -> String {
    format!(
        "couldn't get version/kind; json parse error: json: cannot unmarshal {name} into Go value of type struct {{ \
         APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}"
    )
}

/// `FindKind` of apimachinery's `SimpleMetaFactory`, which reads the whole body for two fields, and so is the first to fail.
fn find_type_meta(body: &[u8], format: Format) -> std::result::Result<TypeMeta, String> {
    #[derive(Deserialize)]
    struct Fields {
        #[serde(rename = "apiVersion", default)]
        api_version: Value,
        #[serde(default)]
        kind: Value,
    }
    let fields = match format {
        Format::Yaml => match yaml_to_json(body)? {
            Value::Object(mut fields) => {
                let mut take = |name: &str| fields.remove(name).unwrap_or_default();
                Fields { api_version: take("apiVersion"), kind: take("kind") }
            }
            Value::Null => Fields { api_version: Value::Null, kind: Value::Null },
            other => return Err(no_struct(walk::json_type(&other))),
        },
        _ => {
            let failed = |fault: String| format!("couldn't get version/kind; json parse error: {fault}");
            if let Some(fault) = syntax_error(body) {
                return Err(failed(fault));
            }
            if let Some(name) = not_an_object(body) {
                return Err(no_struct(name));
            }
            serde_json::from_slice::<Fields>(body).map_err(|e| failed(e.to_string()))?
        }
    };
    let text = |value: Value, name: &str| match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text),
        other => Err(format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go struct field .{name} of type string",
            walk::json_type(&other)
        )),
    };
    Ok(TypeMeta { api_version: text(fields.api_version, "apiVersion")?, kind: text(fields.kind, "kind")? })
}

fn not_an_object(body: &[u8]) -> Option<&'static str> {
    match body.iter().find(|b| !b.is_ascii_whitespace())? {
        b'[' => Some("array"),
        b'"' => Some("string"),
        b't' | b'f' => Some("bool"),
        b'-' | b'0'..=b'9' => Some("number"),
        _ => None,
    }
}

/// Whether the object is what the request is about; apiserver's `endpoints/handlers/create.go`.
fn check_type_meta(actual: &GroupVersionKind, expected: &Expected) -> Result<()> {
    if expected.accepts(actual) {
        return Ok(());
    }
    if expected.custom {
        return Err(not_that_resource(actual, expected, ""));
    }
    // Versions of Scale that are served no more, but known.
    let is_earlier_scale = actual.kind == "Scale"
        && matches!(actual.api_version().as_str(), "apps/v1beta1" | "apps/v1beta2" | "extensions/v1beta1");
    if is_earlier_scale && expected.gvk.kind == "Scale" {
        return Err(another_version(actual, expected));
    }
    if expected.is_options() || schema::built_in().kind(&actual.group, &actual.version, &actual.kind).is_none() {
        let fault = format!(
            "no kind {} is registered for version {} in scheme \"pkg/runtime/scheme.go:111\"",
            go_quote(&actual.kind),
            go_quote(&actual.api_version())
        );
        return Err(cannot_be_handled(actual, expected, &DecodeError::Type(fault)));
    }
    let kinds = Kinds::built_in();
    let storage = |gvk: &GroupVersionKind| kinds.get(gvk).map(|kind| kind.storage.clone());
    let expected_storage = storage(&expected.gvk);
    if expected_storage.is_some() && storage(actual) == expected_storage {
        return Err(another_version(actual, expected));
    }
    let fault = format!(
        "converting ({}.{}) to ({}.{}): unknown conversion",
        actual.version,
        actual.kind,
        internal_package(&expected.gvk),
        expected.gvk.kind
    );
    Err(cannot_be_handled(actual, expected, &DecodeError::Type(fault)))
}

fn another_version(actual: &GroupVersionKind, expected: &Expected) -> Status {
    Status::bad_request(format!(
        "the API version in the data ({}) does not match the expected API version ({})",
        actual.api_version(),
        expected.gvk.api_version()
    ))
}

/// An object of no Go type says itself what it is: nothing stands in for its version and kind.
fn check_custom(said: &TypeMeta, body: &[u8], object: &Value, expected: &Expected) -> Result<()> {
    if said.kind.is_empty() {
        let shown =
            if body.starts_with(b"{") { String::from_utf8_lossy(body).into_owned() } else { object.to_string() };
        return Err(unrecognized(body, expected, &format!("Object 'Kind' is missing in '{shown}'")));
    }
    let (group, version) = split_api_version(&said.api_version);
    let actual = GroupVersionKind::new(group, version, &*said.kind);
    if expected.accepts(&actual) {
        return Ok(());
    }
    Err(not_that_resource(&actual, expected, crate::meta::name(object)))
}

/// A custom resource is an object of no Go type: only its version and kind can be wrong.
fn not_that_resource(actual: &GroupVersionKind, expected: &Expected, name: &str) -> Status {
    if actual.api_version() != expected.gvk.api_version() {
        return another_version(actual, expected);
    }
    let wanted = format!("must be {}", expected.gvk.kind);
    let error = FieldError::invalid(&FieldPath::new("kind"), actual.kind.as_str(), wanted);
    Status::invalid(&actual.group_kind(), name, vec![error])
}

/// The Go package of a kind's internal version: the first label of its group.
fn internal_package(gvk: &GroupVersionKind) -> &str {
    match gvk.group.as_str() {
        "" | "events.k8s.io" => "core",
        group => group.split('.').next().unwrap_or(group),
    }
}

fn cannot_be_handled(actual: &GroupVersionKind, expected: &Expected, fault: &DecodeError) -> Status {
    if expected.is_options() {
        return Status::bad_request(fault.to_string());
    }
    Status::bad_request(format!(
        "{} in version {} cannot be handled as a {}: {fault}",
        actual.kind,
        go_quote(&actual.version),
        expected.gvk.kind
    ))
}

/// The answer to a body that does not even say what it is (`transformDecodeError` of apiserver's handlers).
fn unrecognized(body: &[u8], expected: &Expected, fault: &str) -> Status {
    if expected.is_options() {
        return Status::bad_request(fault);
    }
    const SHOWN: usize = 30;
    let shown = &body[..body.len().min(SHOWN)];
    let more = if body.len() > SHOWN { " ..." } else { "" };
    let summary = match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(shown)),
        Some(_) => format!("{}{more}", shown.iter().map(|b| format!("{b:02x}")).collect::<String>()),
    };
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): {fault} ({summary})",
        expected.gvk.kind
    ))
}

#[cfg(test)]
mod tests;
