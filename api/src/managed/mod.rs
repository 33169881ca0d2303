//! placeholder
mod field_set;
pub use field_set::{FieldSet, FieldSetError, Path, PathElement};
