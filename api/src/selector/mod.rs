//! Selectors: which objects a list, a watch, a Service or a ReplicaSet means.
//!
//! ```text
//!   "app in (web,api),!canary"      {matchLabels, matchExpressions}      "spec.nodeName=n1,status.phase!=Failed"
//!            │ LabelSelector::parse          │ LabelSelector::from_value            │ FieldSelector::parse
//!            ▼                               ▼                                      ▼
//!        LabelSelector: Requirements, all of which must hold                  FieldSelector: Terms, likewise
//! ```
//!
//! Reading order: `label` (requirements and matching), `parse` (the string grammar), `field`. What a label's key and value may
//! be is said in `strategy::names`. Mirrors apimachinery's `pkg/labels`, `pkg/fields` and `metav1.LabelSelectorAsSelector`; errors
//! carry its words, because kubectl prints them.

mod field;
mod label;
mod parse;

pub use field::{FieldSelector, Term};
pub use label::{LabelSelector, Operator, Requirement};

/// Why a selector was refused, in apimachinery's words. The API server answers it with 400 BadRequest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// The string does not follow the grammar of label selectors.
    #[error("{0}")]
    Syntax(String),
    /// A key, an operator or a value that no selector may have.
    #[error("{0}")]
    Invalid(String),
    /// A field selector that cannot be understood, or whose value is escaped wrongly.
    #[error("{0}")]
    Field(String),
}
