//! One refused field: where it is, what is wrong with it, and what stood there (apimachinery `pkg/util/validation/field`).

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

/// Where a value sits in an object: `spec.containers[0].resources.requests[memory]`.
///
/// A path is a chain of shared nodes, so taking a child costs one small allocation and no text is built until an error
/// needs it. The empty path ([`FieldPath::root`]) prints as Kubernetes' nil path does, `<nil>`.
#[derive(Clone, Debug, Default)]
pub struct FieldPath(Option<Arc<Node>>);

#[derive(Debug)]
struct Node {
    parent: Option<Arc<Node>>,
    segment: Segment,
}

#[derive(Debug)]
enum Segment {
    Name(Cow<'static, str>),
    Index(usize),
    Key(Cow<'static, str>),
}

impl FieldPath {
    /// The object itself.
    pub fn root() -> Self {
        Self(None)
    }

    /// A field of the object itself.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self::root().child(name)
    }

    /// A field of what this path points at.
    pub fn child(&self, name: impl Into<Cow<'static, str>>) -> Self {
        self.push(Segment::Name(name.into()))
    }

    /// An element of the list that this path points at.
    pub fn index(&self, index: usize) -> Self {
        self.push(Segment::Index(index))
    }

    /// An entry of the map that this path points at.
    pub fn key(&self, key: impl Into<Cow<'static, str>>) -> Self {
        self.push(Segment::Key(key.into()))
    }

    fn push(&self, segment: Segment) -> Self {
        Self(Some(Arc::new(Node { parent: self.0.clone(), segment })))
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(node) = &self.0 else {
            return f.write_str("<nil>");
        };
        let mut chain = Vec::new();
        let mut next = Some(node);
        while let Some(node) = next {
            chain.push(&node.segment);
            next = node.parent.as_ref();
        }
        for (depth, segment) in chain.iter().rev().enumerate() {
            match segment {
                Segment::Name(name) if depth == 0 => f.write_str(name)?,
                Segment::Name(name) => write!(f, ".{name}")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(key) => write!(f, "[{key}]")?,
            }
        }
        Ok(())
    }
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldErrorKind {
    /// Something it refers to is not there.
    NotFound,
    /// It must be given, and is not.
    Required,
    /// It must be unique, and is not.
    Duplicate,
    /// Its value is malformed or out of range.
    Invalid,
    /// Its value is not in the list of known ones.
    NotSupported,
    /// It may not be given here.
    Forbidden,
    /// Its text is too long.
    TooLong,
    /// It has too many elements.
    TooMany,
    /// Validation itself failed.
    Internal,
    /// Its value has the wrong JSON type (custom resources).
    TypeInvalid,
}

impl FieldErrorKind {
    /// The words at the start of the message.
    pub fn title(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }

    /// The `reason` of its [`super::StatusCause`].
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Internal => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }
}

/// One refused field. `Display` is the whole sentence, [`FieldError::body`] the part after the path.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// What is wrong.
    pub kind: FieldErrorKind,
    /// The path, as text.
    pub field: String,
    /// What stood there; `None` leaves it out of the message.
    pub bad_value: Option<Value>,
    /// The same as text, where its members have an order of their own.
    pub shown: Option<String>,
    /// More words, possibly none.
    pub detail: String,
}

impl FieldError {
    fn new(kind: FieldErrorKind, path: &FieldPath, bad_value: Option<Value>, detail: impl Into<String>) -> Self {
        Self { kind, field: path.to_string(), bad_value, shown: None, detail: detail.into() }
    }

    /// Something the field refers to is not there.
    pub fn not_found(path: &FieldPath, value: impl Into<Value>) -> Self {
        Self::new(FieldErrorKind::NotFound, path, Some(value.into()), "")
    }

    /// The field must be given; `detail` may be empty.
    pub fn required(path: &FieldPath, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Required, path, None, detail)
    }

    /// The value must be unique.
    pub fn duplicate(path: &FieldPath, value: impl Into<Value>) -> Self {
        Self::new(FieldErrorKind::Duplicate, path, Some(value.into()), "")
    }

    /// The value is malformed or out of range.
    pub fn invalid(path: &FieldPath, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Invalid, path, Some(value.into()), detail)
    }

    /// The same error, showing this JSON: a structure as Kubernetes has it inside, in its order.
    #[must_use]
    pub fn showing(mut self, text: String) -> Self {
        self.shown = Some(text);
        self
    }

    /// As [`FieldError::invalid`], with a value that is better not shown (Kubernetes' `OmitValueType`).
    pub fn invalid_omitted(path: &FieldPath, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Invalid, path, None, detail)
    }

    /// The value is none of `supported`, which are named in the order given (sort them where Kubernetes does).
    pub fn not_supported<S: AsRef<str>>(path: &FieldPath, value: impl Into<Value>, supported: &[S]) -> Self {
        let detail = if supported.is_empty() {
            String::new()
        } else {
            let quoted: Vec<_> = supported.iter().map(|s| go_quote(s.as_ref())).collect();
            format!("supported values: {}", quoted.join(", "))
        };
        Self::new(FieldErrorKind::NotSupported, path, Some(value.into()), detail)
    }

    /// The field may not be given here.
    pub fn forbidden(path: &FieldPath, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Forbidden, path, None, detail)
    }

    /// The text is longer than `max` bytes.
    pub fn too_long(path: &FieldPath, max: usize) -> Self {
        Self::new(FieldErrorKind::TooLong, path, None, format!("may not be more than {max} bytes"))
    }

    /// There are `actual` elements, and `max` allowed.
    pub fn too_many(path: &FieldPath, actual: usize, max: usize) -> Self {
        Self::new(FieldErrorKind::TooMany, path, Some(actual.into()), format!("must have at most {max} items"))
    }

    /// Validation itself failed.
    pub fn internal(path: &FieldPath, error: impl fmt::Display) -> Self {
        Self::new(FieldErrorKind::Internal, path, None, error.to_string())
    }

    /// The value has the wrong JSON type.
    pub fn type_invalid(path: &FieldPath, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::TypeInvalid, path, Some(value.into()), detail)
    }

    /// The message without the path: `Invalid value: 70000: must be between 1 and 65535, inclusive`.
    pub fn body(&self) -> String {
        let mut text = self.kind.title().to_owned();
        match &self.bad_value {
            _ if self.shown.is_some() => {
                text.push_str(": ");
                text.push_str(self.shown.as_deref().unwrap_or_default());
            }
            None => {}
            Some(Value::String(value)) => {
                text.push_str(": ");
                text.push_str(&go_quote(value));
            }
            Some(value) => {
                text.push_str(": ");
                text.push_str(&value.to_string());
            }
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }

    /// Joins messages as `ErrorList.ToAggregate` does: repeated ones once, several in brackets.
    pub fn aggregate(errors: &[FieldError]) -> String {
        let mut messages: Vec<String> = Vec::with_capacity(errors.len());
        for error in errors {
            let message = error.to_string();
            if !messages.contains(&message) {
                messages.push(message);
            }
        }
        match messages.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

/// Quotes text as Go's `%q` does.
pub fn go_quote(text: &str) -> String {
    use std::fmt::Write;
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                let _ = write!(quoted, "\\x{:02x}", c as u32);
            }
            // Go escapes what is not printable; control characters and non-ASCII spaces are what occurs in practice.
            c if c.is_control() || (c.is_whitespace() && c != ' ') || c == '\u{feff}' => {
                let _ = write!(quoted, "\\u{:04x}", c as u32);
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_print_as_kubernetes_prints_them() {
        let spec = FieldPath::new("spec");
        let requests = spec.child("containers").index(0).child("resources").child("requests");
        assert_eq!(requests.key("memory").to_string(), "spec.containers[0].resources.requests[memory]");
        assert_eq!(FieldPath::root().to_string(), "<nil>");
        assert_eq!(FieldPath::root().index(2).child("a").to_string(), "[2].a");
    }

    #[test]
    fn values_are_shown_as_go_shows_them() {
        let path = FieldPath::new("a");
        let cases = [
            (FieldError::invalid(&path, "x\"y\n", "no"), "a: Invalid value: \"x\\\"y\\n\": no"),
            (
                FieldError::invalid(&path, 70000, "must be between 1 and 65535, inclusive"),
                "a: Invalid value: 70000: must be between 1 and 65535, inclusive",
            ),
            (FieldError::invalid(&path, json!({"app": "x"}), "no"), "a: Invalid value: {\"app\":\"x\"}: no"),
            (FieldError::invalid(&path, Value::Null, "no"), "a: Invalid value: null: no"),
            (FieldError::invalid_omitted(&path, "at most five"), "a: Invalid value: at most five"),
            (FieldError::duplicate(&path, "c"), "a: Duplicate value: \"c\""),
            (FieldError::not_found(&path, "v"), "a: Not found: \"v\""),
            (FieldError::forbidden(&path, "may not"), "a: Forbidden: may not"),
            (FieldError::too_long(&path, 63), "a: Too long: may not be more than 63 bytes"),
            (FieldError::too_many(&path, 4, 3), "a: Too many: 4: must have at most 3 items"),
            (FieldError::required(&path, ""), "a: Required value"),
            (
                FieldError::not_supported(&path, json!(["Some"]), &["All"]),
                "a: Unsupported value: [\"Some\"]: supported values: \"All\"",
            ),
        ];
        for (error, expected) in cases {
            assert_eq!(error.to_string(), expected);
        }
    }
}
