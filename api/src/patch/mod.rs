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

pub mod json;
pub mod merge;

use serde_json::Value;

/// Why a patch was not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The body is no patch of its type: 400 BadRequest.
    #[error("{0}")]
    BadRequest(String),
    /// The patch does not fit the object: 422, for which the API server shows its generic words, not these.
    #[error("{0}")]
    Unprocessable(String),
    /// The patch is too large: 413 RequestEntityTooLarge.
    #[error("{0}")]
    TooLarge(String),
    /// The patch cannot be merged; Kubernetes answers 500 with these words.
    #[error("{0}")]
    Failed(String),
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
