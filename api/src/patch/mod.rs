//! Patches: what `PATCH` does to an object before it is decoded again, defaulted and validated.
//!
//! ```text
//!  application/json-patch+json            json       a list of operations; all succeed or none
//!  application/merge-patch+json           merge      replace and delete; lists are replaced whole
//!  application/strategic-merge-patch+json strategic  as merge, but lists merge by the keys that the kind's type names
//!  application/apply-patch+yaml           ../managed server-side apply
//! ```
//! Each of the three takes the document as it is and the parsed body, and changes the document in place. Mirrors apiserver
//! `pkg/endpoints/handlers/patch.go` and apimachinery `pkg/util/strategicpatch`; errors carry their words.
//!
//! # Left out, compared with Kubernetes
//! Negative list indices in JSON patches, an extension of the Go library.

pub mod json;
pub mod merge;
mod order;
pub mod strategic;
mod strategic_diff;

pub use strategic_diff::diff as strategic_diff;

use serde_json::Value;

use crate::status::{Status, StatusReason};

/// Why a patch was not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The body is no patch of its type: 400 BadRequest.
    #[error("{0}")]
    BadRequest(String),
    /// The patch does not fit the object: 422, for which the API server shows its generic words, not these.
    #[error("{0}")]
    Unprocessable(String),
    /// A `test` of a JSON patch does not hold: 422 as well.
    #[error("{0}")]
    TestFailed(String),
    /// The patch is too large: 413 RequestEntityTooLarge.
    #[error("{0}")]
    TooLarge(String),
    /// The patch cannot be merged.
    #[error("{0}")]
    Failed(String),
}

impl From<PatchError> for Status {
    fn from(error: PatchError) -> Status {
        match error {
            PatchError::BadRequest(message) => Status::bad_request(message),
            PatchError::Unprocessable(_) | PatchError::TestFailed(_) => Status::unprocessable(),
            PatchError::TooLarge(message) => Status {
                code: 413,
                reason: StatusReason::RequestEntityTooLarge,
                message,
                success: false,
                details: None,
            },
            PatchError::Failed(message) => unclassified(message),
        }
    }
}

/// An error for which Kubernetes has no reason, in its words, which kubectl prints as they are. The code is 500 there; as it is about what
/// the client sent, it is 400 here.
pub fn unclassified(message: String) -> Status {
    Status { code: 400, reason: StatusReason::Unknown, message, success: false, details: None }
}

/// As Go prints a JSON value with `%v`: `map[a:1 b:[x y]]`.
pub fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_value).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let entries: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{}", go_value(value))).collect();
            format!("map[{}]", entries.join(" "))
        }
        other => other.to_string(),
    }
}

/// What Go's JSON decoder calls a value of this kind.
fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
