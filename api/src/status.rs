//! Errors as Kubernetes words them: [`Status`] and, for refused fields, [`FieldError`].
//!
//! kubectl prints `Status.message` as it stands, and client libraries branch on `reason` and `code`, so each constructor
//! mirrors one of apimachinery's `pkg/api/errors` down to the sentence. Fields that validation refuses are collected as
//! [`FieldError`]s (apimachinery `pkg/util/validation/field`) and become one `Status` through [`Status::invalid`].

mod field;

pub use field::{FieldError, FieldErrorKind, FieldPath, go_quote};

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::kinds::{GroupKind, GroupResource};

/// Why a request failed, in the words that clients branch on (`metav1.StatusReason`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each is Kubernetes' own name of itself
pub enum StatusReason {
    Unknown,
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
    /// A word that Kubernetes does not know, as webhooks may say one.
    Other(Box<str>),
}

impl StatusReason {
    /// The reason of that word.
    pub fn named(word: &str) -> StatusReason {
        use StatusReason::*;
        const KNOWN: [StatusReason; 19] = [
            Unknown,
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
        KNOWN.into_iter().find(|known| known.as_str() == word).unwrap_or_else(|| Other(word.into()))
    }

    /// The word on the wire; empty for [`StatusReason::Unknown`].
    pub fn as_str(&self) -> &str {
        match self {
            Self::Unknown => "",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::AlreadyExists => "AlreadyExists",
            Self::Conflict => "Conflict",
            Self::Gone => "Gone",
            Self::Expired => "Expired",
            Self::Invalid => "Invalid",
            Self::BadRequest => "BadRequest",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::NotAcceptable => "NotAcceptable",
            Self::RequestEntityTooLarge => "RequestEntityTooLarge",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::TooManyRequests => "TooManyRequests",
            Self::InternalError => "InternalError",
            Self::ServerTimeout => "ServerTimeout",
            Self::Timeout => "Timeout",
            Self::ServiceUnavailable => "ServiceUnavailable",
            Self::Other(word) => word,
        }
    }
}

/// One cause of a refusal (`metav1.StatusCause`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusCause {
    /// A machine-readable word, such as `FieldValueInvalid`.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub reason: String,
    /// What is wrong, for people.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub message: String,
    /// The field concerned, as in `spec.containers[0].image`.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub field: String,
}

/// What the status is about (`metav1.StatusDetails`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusDetails {
    /// Name of the object.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub name: String,
    /// API group; empty for core.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub group: String,
    /// The resource (`pods`), or for [`StatusReason::Invalid`] the kind (`Pod`).
    #[serde(skip_serializing_if = "str::is_empty")]
    pub kind: String,
    /// UID of the object.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub uid: String,
    /// The single causes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<StatusCause>,
    /// After how many seconds the client may try again; 0 for "not said".
    #[serde(rename = "retryAfterSeconds", skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

fn is_zero(seconds: &u32) -> bool {
    *seconds == 0
}

/// The answer to a request that returns no object: `metav1.Status`. It is the error type of the API's write path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// HTTP status code; 0 leaves it out (some successes do).
    pub code: u16,
    /// Whether this reports success.
    pub success: bool,
    /// The word for machines.
    pub reason: StatusReason,
    /// The sentence for people.
    pub message: String,
    /// What it is about. `Some` of an empty value is written as `{}`, which Kubernetes does for some answers.
    pub details: Option<Box<StatusDetails>>,
}

/// Results of the API's write path.
pub type Result<T, E = Status> = std::result::Result<T, E>;

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("kind", "Status")?;
        map.serialize_entry("apiVersion", "v1")?;
        map.serialize_entry("metadata", &Value::Object(Default::default()))?;
        map.serialize_entry("status", if self.success { "Success" } else { "Failure" })?;
        if !self.message.is_empty() {
            map.serialize_entry("message", &self.message)?;
        }
        if self.reason != StatusReason::Unknown {
            map.serialize_entry("reason", self.reason.as_str())?;
        }
        if let Some(details) = &self.details {
            map.serialize_entry("details", details)?;
        }
        if self.code != 0 {
            map.serialize_entry("code", &self.code)?;
        }
        map.end()
    }
}

impl Status {
    fn failure(code: u16, reason: StatusReason, message: impl Into<String>) -> Self {
        Self { code, success: false, reason, message: message.into(), details: None }
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let details = self.details.get_or_insert_default();
        details.group = group.to_owned();
        details.kind = kind.to_owned();
        details.name = name.to_owned();
        self
    }

    /// Adds a cause.
    pub fn with_cause(mut self, reason: &str, message: impl Into<String>, field: &str) -> Self {
        self.details.get_or_insert_default().causes.push(StatusCause {
            reason: reason.to_owned(),
            message: message.into(),
            field: field.to_owned(),
        });
        self
    }

    /// Tells the client when to try again (also the `Retry-After` header of the answer).
    pub fn with_retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    /// The seconds of [`Status::with_retry_after`], if any.
    pub fn retry_after(&self) -> Option<u32> {
        self.details.as_ref().map(|d| d.retry_after_seconds).filter(|s| *s > 0)
    }

    /// The status as a JSON object.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).expect("a Status has only string keys")
    }

    /// The status as JSON bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a Status has only string keys")
    }

    /// Success without an object, as a delete answers (`registry/rest`'s delete handler). It carries no code.
    pub fn success(resource: &GroupResource, name: &str, uid: &str) -> Self {
        let mut status =
            Self { code: 0, success: true, reason: StatusReason::Unknown, message: String::new(), details: None }
                .about(&resource.group, &resource.resource, name);
        status.details.get_or_insert_default().uid = uid.to_owned();
        status
    }

    /// Success with only a code, as `Binding` and `Eviction` answer (201).
    pub fn success_with_code(code: u16) -> Self {
        Self { code, success: true, reason: StatusReason::Unknown, message: String::new(), details: None }
    }

    /// 404: no object of that name.
    pub fn not_found(resource: &GroupResource, name: &str) -> Self {
        Self::failure(404, StatusReason::NotFound, format!("{resource} {} not found", go_quote(name))).about(
            &resource.group,
            &resource.resource,
            name,
        )
    }

    /// 404: the path names no resource that is served.
    pub fn unknown_resource() -> Self {
        let mut status = Self::failure(404, StatusReason::NotFound, "the server could not find the requested resource");
        status.details = Some(Box::default());
        status
    }

    /// 409: an object of that name is there already.
    pub fn already_exists(resource: &GroupResource, name: &str) -> Self {
        Self::failure(409, StatusReason::AlreadyExists, format!("{resource} {} already exists", go_quote(name))).about(
            &resource.group,
            &resource.resource,
            name,
        )
    }

    /// 409: every name tried for `generateName` was taken.
    pub fn generate_name_conflict(resource: &GroupResource, name: &str, retry_after: u32) -> Self {
        let message = format!(
            "{resource} {} already exists, the server was not able to generate a unique name for the object",
            go_quote(name)
        );
        Self::failure(409, StatusReason::AlreadyExists, message)
            .about(&resource.group, &resource.resource, name)
            .with_retry_after(retry_after)
    }

    /// 409: the write was made against a state that has passed. `why` is the sentence after the colon.
    pub fn conflict(resource: &GroupResource, name: &str, why: impl std::fmt::Display) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} {}: {why}", go_quote(name));
        Self::failure(409, StatusReason::Conflict, message).about(&resource.group, &resource.resource, name)
    }

    /// 409 of an update whose `resourceVersion` is not the current one (`registry/generic`'s `OptimisticLockErrorMsg`).
    pub fn modified(resource: &GroupResource, name: &str) -> Self {
        Self::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 409 of a server-side apply: each cause names a manager and a field.
    pub fn apply_conflict(causes: Vec<StatusCause>, message: impl Into<String>) -> Self {
        let mut status = Self::failure(409, StatusReason::Conflict, message);
        status.details.get_or_insert_default().causes = causes;
        status
    }

    /// 422: the object is understood, and refused for these fields.
    pub fn invalid(kind: &GroupKind, name: &str, errors: Vec<FieldError>) -> Self {
        let mut message = format!("{kind} {} is invalid", go_quote(name));
        if !errors.is_empty() {
            message.push_str(": ");
            message.push_str(&FieldError::aggregate(&errors));
        }
        let mut status = Self::failure(422, StatusReason::Invalid, message).about(&kind.group, &kind.kind, name);
        status.details.get_or_insert_default().causes = errors
            .into_iter()
            .map(|e| StatusCause { reason: e.kind.reason().to_owned(), message: e.body(), field: e.field })
            .collect();
        status
    }

    /// 422 of query parameters that fail validation, as `CreateOptions.meta.k8s.io "" is invalid`.
    pub fn invalid_options(options_kind: &str, errors: Vec<FieldError>) -> Self {
        Self::invalid(&GroupKind::new("meta.k8s.io", options_kind), "", errors)
    }

    /// 422 of a JSON patch that does not apply (`NewGenericServerResponse` of 422).
    pub fn unprocessable() -> Self {
        let mut status =
            Self::failure(422, StatusReason::Invalid, "the server rejected our request due to an error in our request");
        status.details = Some(Box::default());
        status
    }

    /// 400: the request cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::failure(400, StatusReason::BadRequest, message)
    }

    /// 401: the credentials are not known.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::failure(401, StatusReason::Unauthorized, message)
    }

    /// 403: authorization or admission says no. Empty parts are left out of the sentence as `NewForbidden` does.
    pub fn forbidden(resource: &GroupResource, name: &str, why: impl std::fmt::Display) -> Self {
        let message = if resource.resource.is_empty() {
            format!("forbidden: {why}")
        } else if name.is_empty() {
            format!("{resource} is forbidden: {why}")
        } else {
            format!("{resource} {} is forbidden: {why}", go_quote(name))
        };
        Self::failure(403, StatusReason::Forbidden, message).about(&resource.group, &resource.resource, name)
    }

    /// 405: this path does not take that method.
    pub fn method_not_allowed() -> Self {
        let mut status = Self::failure(
            405,
            StatusReason::MethodNotAllowed,
            "the server does not allow this method on the requested resource",
        );
        status.details = Some(Box::default());
        status
    }

    /// 405: the resource does not support `action` (`create`, `list`, …).
    pub fn method_not_supported(resource: &GroupResource, action: &str) -> Self {
        let message = format!("{action} is not supported on resources of kind {}", go_quote(&resource.to_string()));
        Self::failure(405, StatusReason::MethodNotAllowed, message).about(&resource.group, &resource.resource, "")
    }

    /// 406: no answer can be given in a media type that the client accepts.
    pub fn not_acceptable(offered: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", offered.join(", "));
        Self::failure(406, StatusReason::NotAcceptable, message)
    }

    /// 406, in the given words.
    pub fn not_acceptable_because(message: impl Into<String>) -> Self {
        Self::failure(406, StatusReason::NotAcceptable, message)
    }

    /// 413: the body is larger than `limit` bytes.
    pub fn too_large(limit: usize) -> Self {
        Self::failure(413, StatusReason::RequestEntityTooLarge, format!("Request entity too large: limit is {limit}"))
    }

    /// 415: the body is in a media type that this request does not take.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::failure(415, StatusReason::UnsupportedMediaType, message)
    }

    /// 415: no route takes a body of this media type, as go-restful says it.
    pub fn unsupported_by_route() -> Self {
        let status = Self::failure(415, StatusReason::UnsupportedMediaType, "415: Unsupported Media Type");
        Self { details: Some(Box::default()), ..status }
    }

    /// 410 without more: what was there has gone.
    pub fn gone(message: impl Into<String>) -> Self {
        Self::failure(410, StatusReason::Gone, message)
    }

    /// 410 `Expired`: the history asked for is compacted; clients list again.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::failure(410, StatusReason::Expired, message)
    }

    /// 429: too much at once, or a disruption that a budget does not allow now.
    pub fn too_many_requests(message: impl Into<String>, retry_after: u32) -> Self {
        let mut status = Self::failure(429, StatusReason::TooManyRequests, message);
        status.details = Some(Box::default());
        if retry_after == 0 { status } else { status.with_retry_after(retry_after) }
    }

    /// 500: something is broken on this side.
    pub fn internal_error(error: impl std::fmt::Display) -> Self {
        let text = error.to_string();
        Self::failure(500, StatusReason::InternalError, format!("Internal error occurred: {text}"))
            .with_cause("", text, "")
    }

    /// 500 `ServerTimeout`: the operation could not be completed now; trying again is right.
    pub fn server_timeout(resource: &GroupResource, operation: &str, retry_after: u32) -> Self {
        let message = format!(
            "The {operation} operation against {resource} could not be completed at this time, please try again."
        );
        Self::failure(500, StatusReason::ServerTimeout, message)
            .about(&resource.group, &resource.resource, operation)
            .with_retry_after(retry_after)
    }

    /// 503: not able to serve at all at the moment.
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::failure(503, StatusReason::ServiceUnavailable, message)
    }

    /// 504: the request ran out of time.
    pub fn timeout(message: impl std::fmt::Display, retry_after: u32) -> Self {
        let mut status = Self::failure(504, StatusReason::Timeout, format!("Timeout: {message}"));
        status.details = Some(Box::default());
        if retry_after == 0 { status } else { status.with_retry_after(retry_after) }
    }

    /// 504 of a read at a revision that the store has not reached (`storage.NewTooLargeResourceVersionError`).
    pub fn too_large_resource_version(asked: u64, current: u64) -> Self {
        Self::timeout(format_args!("Too large resource version: {asked}, current: {current}"), 0).with_cause(
            "ResourceVersionTooLarge",
            "Too large resource version",
            "",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: Status, expected: &str) {
        assert_eq!(String::from_utf8(status.to_bytes()).unwrap(), expected);
    }

    #[test]
    fn statuses_are_worded_as_kubernetes_words_them() {
        let deployments = GroupResource::new("apps", "deployments");
        check(
            Status::not_found(&deployments, "nope"),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"deployments.apps \"nope\" not found","reason":"NotFound","details":{"name":"nope","group":"apps","kind":"deployments"},"code":404}"#,
        );
        check(
            Status::modified(&deployments, "d"),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Operation cannot be fulfilled on deployments.apps \"d\": the object has been modified; please apply your changes to the latest version and try again","reason":"Conflict","details":{"name":"d","group":"apps","kind":"deployments"},"code":409}"#,
        );
        check(
            Status::unknown_resource(),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"the server could not find the requested resource","reason":"NotFound","details":{},"code":404}"#,
        );
        check(
            Status::forbidden(&GroupResource::new("", ""), "", "User \"dev-user\" cannot get path \"/metrics\""),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"forbidden: User \"dev-user\" cannot get path \"/metrics\"","reason":"Forbidden","details":{},"code":403}"#,
        );
        check(
            Status::success(&GroupResource::new("", "configmaps"), "ap", "u"),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","details":{"name":"ap","kind":"configmaps","uid":"u"}}"#,
        );
        check(
            Status::too_large_resource_version(999999999, 7),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Timeout: Too large resource version: 999999999, current: 7","reason":"Timeout","details":{"causes":[{"reason":"ResourceVersionTooLarge","message":"Too large resource version"}]},"code":504}"#,
        );
    }

    #[test]
    fn invalid_lists_causes_and_joins_messages() {
        let path = FieldPath::new("spec").child("ports");
        let errors = vec![
            FieldError::required(&path.index(0).child("name"), ""),
            FieldError::required(&path.index(1).child("name"), ""),
            FieldError::required(&path.index(1).child("name"), ""),
        ];
        let status = Status::invalid(&GroupKind::new("", "Service"), "s", errors);
        assert_eq!(
            status.message,
            "Service \"s\" is invalid: [spec.ports[0].name: Required value, spec.ports[1].name: Required value]"
        );
        assert_eq!(status.details.unwrap().causes.len(), 3);
    }

    #[test]
    fn invalid_of_one_field_has_no_brackets() {
        let errors = vec![FieldError::not_supported(
            &FieldPath::new("fieldValidation"),
            "Loose",
            &["", "Ignore", "Strict", "Warn"],
        )];
        let status = Status::invalid_options("CreateOptions", errors);
        assert_eq!(
            status.message,
            "CreateOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \"Loose\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\""
        );
    }
}
