//! Custom resources: kinds that a CustomResourceDefinition brings at run time.
//!
//! ```text
//!  CustomResourceDefinition ── structural ──► errors, when it is written
//!        │ definition                              (paths and words as Kubernetes)
//!        ▼
//!  rows of `kinds` ── types ──► schema::Type       decoding, patching, owning fields, as of any kind
//!        │
//!        └─ CustomResource: a Strategy             defaults → validate → rules (cel)
//! ```
//!
//! From there on a custom resource takes the path of every other kind. Reading order: [`schema`] (a parsed structural
//! schema), [`definition`] (rows), [`types`], [`defaults`], [`validate`] with [`formats`]
//! and [`pattern`], [`rules`] over [`cel`],
//! [`strategy`], [`conversion`], then [`structural`] and
//! [`vocabulary`], which refuse definitions.
//!
//! # Invariants
//! - A schema is parsed and its rules are compiled once, when its definition is established, not for every object.
//! - Evaluating a rule ends: loops pay from a budget ([`cel::EXPRESSION_BUDGET`] each, ten times that an object).
//! - An unchanged value is not refused on update, however strict its schema has become.
//!
//! # Left out, compared with Kubernetes
//! - Rules' costs are not estimated when a definition is written; they are counted when an object is.
//! - Of CEL's libraries: `semver`, `format.named`, the authorizer, `lists` beyond Kubernetes' own, two-variable loops.
//! - Rules in `allOf`, `anyOf`, `oneOf` and `not` are refused.

pub mod cel;
pub mod conversion;
pub mod defaults;
pub mod definition;
pub mod formats;
pub mod pattern;
pub mod rules;
pub mod schema;
mod strategy;
pub mod structural;
pub mod types;
pub mod validate;
pub mod vocabulary;

pub use definition::{CustomResource, Rows, openapi_name, rows};
pub use schema::Schema;
