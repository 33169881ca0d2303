//! Conflicts: fields that an applier wants to change and others own, and how Kubernetes words them
//! (apimachinery `util/managedfields/internal/conflict.go`).

use std::fmt;

use super::entries::{Manager, Operation};
use super::field_set::{FieldSet, Path};
use crate::status::{Status, StatusCause};

/// The fields of one apply that others own, with their owners. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflicts(pub(super) Vec<(Manager, Path)>);

impl Conflicts {
    /// Each field with its owner.
    pub fn iter(&self) -> impl Iterator<Item = &(Manager, Path)> {
        self.0.iter()
    }

    /// Without the conflicts over these fields. `None` when there is no other.
    pub(super) fn without(self, fields: &FieldSet) -> Option<Conflicts> {
        let left: Vec<_> = self.0.into_iter().filter(|(_, path)| !fields.contains(&path.0)).collect();
        (!left.is_empty()).then_some(Conflicts(left))
    }

    /// The 409 that the API server answers.
    pub fn to_status(&self) -> Status {
        let cause = |(manager, path): &(Manager, Path)| StatusCause {
            reason: "FieldManagerConflict".to_owned(),
            message: format!("conflict with {}", Shown(manager)),
            field: path.to_string(),
        };
        Status::apply_conflict(self.0.iter().map(cause).collect(), self.to_string())
    }
}

impl fmt::Display for Conflicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [(manager, path)] = self.0.as_slice() {
            return write!(f, "Apply failed with 1 conflict: conflict with {}: {path}", Shown(manager));
        }
        write!(f, "Apply failed with {} conflicts: ", self.0.len())?;
        let mut owner = None;
        for (i, (manager, path)) in self.0.iter().enumerate() {
            let newline = if i > 0 { "\n" } else { "" };
            if owner != Some(manager) {
                write!(f, "{newline}conflicts with {}:", Shown(manager))?;
                owner = Some(manager);
            }
            write!(f, "\n- {path}")?;
        }
        Ok(())
    }
}

/// A manager as conflicts name it.
struct Shown<'a>(&'a Manager);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Manager { name, operation, api_version, subresource } = self.0;
        write!(f, "{name:?}")?;
        if !subresource.is_empty() {
            write!(f, " with subresource {subresource:?}")?;
        }
        match operation {
            Operation::Update => write!(f, " using {api_version}"),
            Operation::Apply => Ok(()),
        }
    }
}
