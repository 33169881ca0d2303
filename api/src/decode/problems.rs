//! What is wrong with an object, collected while it is read, and worded as Go words it.

use std::borrow::Cow;
use std::fmt;

use serde::de;

use super::DecodeError;
use crate::schema::{Field, Struct, Type};
use crate::status;

/// sigs.k8s.io/json reports at most so many unknown and duplicate fields.
pub(super) const MAX_FIELD_PROBLEMS: usize = 100;

/// What is said of a field that stands twice.
pub(super) const DUPLICATE: &str = "duplicate field";

/// So many values an object may have. A body in JSON meets the API server's bound of 3 MiB before; in YAML, aliases make
/// much of little.
const MAX_VALUES: usize = 2_000_000;

/// What was found wrong.
#[derive(Default)]
pub(super) struct Problems {
    fields: Vec<FieldProblem>,
    mismatch: Option<Mismatch>,
    fatal: Option<String>,
    values: usize,
    /// Whether a map is read without a schema, whose duplicate keys count at any depth.
    pub without_schema: bool,
}

/// An unknown or duplicate field; segments from the innermost outwards.
struct FieldProblem {
    what: &'static str,
    path: Vec<Segment>,
}

pub(super) enum Segment {
    Name(Cow<'static, str>),
    Index(usize),
}

/// Go goes on after a wrong JSON type and reports the first.
struct Mismatch {
    value: Cow<'static, str>,
    go_type: String,
    go_struct: Option<String>,
    /// From the innermost outwards. Go leaves indices and keys out here.
    path: Vec<String>,
    /// A fault that Go reports as it is (base64).
    bare: Option<String>,
}

impl Problems {
    /// The fault that made the source fail: our own where there is one.
    pub fn fault(&mut self, other: impl FnOnce() -> String) -> DecodeError {
        DecodeError::Type(self.fatal.take().unwrap_or_else(other))
    }

    /// The first wrong JSON type, as Go's `UnmarshalTypeError` words it.
    pub fn mismatch(&self) -> Option<String> {
        let mismatch = self.mismatch.as_ref()?;
        if let Some(bare) = &mismatch.bare {
            return Some(bare.clone());
        }
        let Mismatch { value, go_type, go_struct, path, .. } = mismatch;
        Some(match go_struct {
            None => format!("json: cannot unmarshal {value} into Go value of type {go_type}"),
            Some(go_struct) => {
                let path: Vec<&str> = path.iter().rev().map(String::as_str).collect();
                format!(
                    "json: cannot unmarshal {value} into Go struct field {go_struct}.{} of type {go_type}",
                    path.join(".")
                )
            }
        })
    }

    /// Unknown and duplicate fields, each as `unknown field "spec.containers[0].nope"`.
    pub fn into_field_problems(self) -> Vec<String> {
        let path = |segments: Vec<Segment>| {
            let mut path = String::new();
            for segment in segments.into_iter().rev() {
                match segment {
                    Segment::Index(index) => path.push_str(&format!("[{index}]")),
                    Segment::Name(name) => {
                        if !path.is_empty() {
                            path.push('.');
                        }
                        path.push_str(&name);
                    }
                }
            }
            path
        };
        self.fields.into_iter().map(|p| format!("{} {}", p.what, status::go_quote(&path(p.path)))).collect()
    }

    pub fn field_problem(&mut self, what: &'static str, name: impl Into<Cow<'static, str>>) {
        if self.fields.len() < MAX_FIELD_PROBLEMS {
            self.fields.push(FieldProblem { what, path: vec![Segment::Name(name.into())] });
        }
    }

    pub fn forget_duplicates(&mut self) {
        self.fields.retain(|problem| problem.what != DUPLICATE);
    }

    pub fn type_mismatch(&mut self, value: impl Into<Cow<'static, str>>, ty: &Type) {
        self.mismatch.get_or_insert_with(|| Mismatch {
            value: value.into(),
            go_type: ty.go_name(),
            go_struct: None,
            path: Vec::new(),
            bare: None,
        });
    }

    pub fn bare_mismatch(&mut self, text: String) {
        self.mismatch.get_or_insert_with(|| Mismatch {
            value: Cow::Borrowed(""),
            go_type: String::new(),
            go_struct: None,
            path: Vec::new(),
            bare: Some(text),
        });
    }

    pub fn fatal<E: de::Error>(&mut self, text: impl fmt::Display) -> E {
        let text = text.to_string();
        let error = E::custom(&text);
        self.fatal.get_or_insert(text);
        error
    }

    /// Counts a value.
    pub fn count<E: de::Error>(&mut self) -> Result<(), E> {
        self.values += 1;
        if self.values <= MAX_VALUES {
            return Ok(());
        }
        Err(self.fatal(format_args!("the object has more than {MAX_VALUES} values")))
    }

    /// What has been found so far, to tell what a child adds.
    pub fn mark(&self) -> (usize, bool) {
        (self.fields.len(), self.mismatch.is_some())
    }

    /// Puts what a child added under `segment`, and under the struct it is a field of.
    pub fn place(&mut self, mark: (usize, bool), segment: impl Fn() -> Segment, field_of: Option<(&Struct, &Field)>) {
        for problem in &mut self.fields[mark.0..] {
            problem.path.push(segment());
        }
        if let (false, Some(mismatch), Some((of, field))) = (mark.1, &mut self.mismatch, field_of) {
            mismatch.path.push(field.name.to_string());
            mismatch.go_struct.get_or_insert_with(|| of.short_name().to_owned());
        }
    }
}
