//! [`Field`]: a cursor over an object that knows its path, with which validation walks.
//!
//! A field that is absent reads as null: `spec.get("a").get("b").str()` is `""` when either is missing, as a Go zero
//! value would be. Errors name the place by themselves: `port.invalid("must be between 1 and 65535, inclusive")`.
use std::ops::Deref;

use serde_json::Value;

use crate::quantity::Quantity;
use crate::status::{FieldError, FieldPath};

/// What a validation function appends to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Errors(Vec<FieldError>);

/// How many errors are told of one object. Nobody reads as many, and some rules find one for each two elements of a list.
pub const MAX_ERRORS: usize = 10_000;

impl Errors {
    /// None yet.
    pub fn new() -> Errors {
        Errors::default()
    }

    /// Adds one, if it is not one too many.
    pub fn push(&mut self, error: FieldError) {
        if self.0.len() < MAX_ERRORS {
            self.0.push(error);
        }
    }
}

impl Deref for Errors {
    type Target = [FieldError];

    fn deref(&self) -> &[FieldError] {
        &self.0
    }
}

/// Takes no more than there is room for: the rest of the iterator is not asked.
impl Extend<FieldError> for Errors {
    fn extend<I: IntoIterator<Item = FieldError>>(&mut self, errors: I) {
        let room = MAX_ERRORS - self.0.len();
        self.0.extend(errors.into_iter().take(room));
    }
}

impl IntoIterator for Errors {
    type Item = FieldError;
    type IntoIter = std::vec::IntoIter<FieldError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl From<Errors> for Vec<FieldError> {
    fn from(errors: Errors) -> Self {
        errors.0
    }
}

static NULL: Value = Value::Null;

/// A value and where it stands in its object.
#[derive(Clone, Debug)]
pub struct Field<'a> {
    value: &'a Value,
    path: FieldPath,
}

impl<'a> Field<'a> {
    /// The whole object.
    pub fn root(value: &'a Value) -> Field<'a> {
        Field { value, path: FieldPath::root() }
    }

    /// `value` shown under the name `name`, which may hold dots.
    pub fn at(name: &'static str, value: &'a Value) -> Field<'a> {
        Field { value, path: FieldPath::new(name) }
    }

    /// `value` at a path.
    pub fn below(path: &FieldPath, value: &'a Value) -> Field<'a> {
        Field { value, path: path.clone() }
    }

    /// A member; null where absent.
    pub fn get(&self, name: &'static str) -> Field<'a> {
        Field { value: self.value.get(name).unwrap_or(&NULL), path: self.path.child(name) }
    }

    /// The member `name`, reported as `shown`: some messages of Kubernetes name a field otherwise than its JSON does.
    pub fn shown_as(&self, name: &'static str, shown: &'static str) -> Field<'a> {
        Field { value: self.value.get(name).unwrap_or(&NULL), path: self.path.child(shown) }
    }

    /// The member of a map (not a struct): its path is `[key]`.
    pub fn key(&self, key: &str) -> Field<'a> {
        Field { value: self.value.get(key).unwrap_or(&NULL), path: self.path.key(key.to_owned()) }
    }

    /// A value shown as the entry `key` of this map.
    pub fn key_as(&self, key: &str, value: &'a Value) -> Field<'a> {
        Field { value, path: self.path.key(key.to_owned()) }
    }

    /// The same place, looking at another value.
    pub fn with<'b>(&self, value: &'b Value) -> Field<'b> {
        Field { value, path: self.path.clone() }
    }

    /// The elements of a list; none where absent.
    pub fn items(&self) -> impl Iterator<Item = Field<'a>> + use<'a> {
        let path = self.path.clone();
        let list: &'a [Value] = self.value.as_array().map_or(&[], Vec::as_slice);
        list.iter().enumerate().map(move |(index, value)| Field { value, path: path.index(index) })
    }

    /// The entries of a map in key order, each with the path `[key]`.
    pub fn entries(&self) -> impl Iterator<Item = (&'a str, Field<'a>)> + use<'a> {
        let path = self.path.clone();
        self.value
            .as_object()
            .into_iter()
            .flatten()
            .map(move |(key, value)| (key.as_str(), Field { value, path: path.key(key.clone()) }))
    }

    /// An element of a list by its place, or, as some messages of Kubernetes name it, of what is none.
    pub fn element(&self, index: usize) -> Field<'a> {
        Field { value: self.value.get(index).unwrap_or(&NULL), path: self.path.index(index) }
    }

    /// The value itself.
    pub fn value(&self) -> &'a Value {
        self.value
    }

    /// The path, as `spec.containers[0].name`.
    pub fn path(&self) -> String {
        self.path.to_string()
    }

    /// Whether the field was given.
    pub fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    /// The field if it was given.
    pub fn set(&self) -> Option<Field<'a>> {
        self.is_set().then(|| self.clone())
    }

    /// The string, `""` where absent.
    pub fn str(&self) -> &'a str {
        self.value.as_str().unwrap_or("")
    }

    /// The integer, if there is one.
    pub fn int(&self) -> Option<i64> {
        self.value.as_i64()
    }

    /// The boolean, false where absent.
    pub fn bool(&self) -> bool {
        self.value.as_bool().unwrap_or(false)
    }

    /// Number of elements or entries.
    pub fn len(&self) -> usize {
        match self.value {
            Value::Array(list) => list.len(),
            Value::Object(map) => map.len(),
            Value::String(text) => text.len(),
            _ => 0,
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The quantity, if there is one.
    pub fn quantity(&self) -> Option<Quantity> {
        Quantity::from_value(self.value).ok()
    }

    /// `Required value: detail`.
    pub fn required(&self, detail: impl Into<String>) -> FieldError {
        FieldError::required(&self.path, detail)
    }

    /// `Invalid value: <this value>: detail`; an absent value shows as `""`, the zero of the strings it is mostly said of.
    pub fn invalid(&self, detail: impl Into<String>) -> FieldError {
        let shown = if self.value.is_null() { Value::String(String::new()) } else { self.value.clone() };
        FieldError::invalid(&self.path, shown, detail)
    }

    /// `Invalid value: <shown>: detail`.
    pub fn invalid_as(&self, shown: impl Into<Value>, detail: impl Into<String>) -> FieldError {
        FieldError::invalid(&self.path, shown, detail)
    }

    /// `Invalid value: detail`, without the value.
    pub fn invalid_omitted(&self, detail: impl Into<String>) -> FieldError {
        FieldError::invalid_omitted(&self.path, detail)
    }

    /// This structure as Kubernetes has it inside: the members in this order under these names, each with what stands
    /// for it where it is absent.
    pub fn internal(&self, members: &[(&str, &str, Value)]) -> String {
        let shown = members.iter().map(|(name, member, zero)| {
            let value = self.value.get(*member).unwrap_or(zero);
            format!("{}:{value}", Value::from(*name))
        });
        format!("{{{}}}", shown.collect::<Vec<_>>().join(","))
    }

    /// `Forbidden: detail`.
    pub fn forbidden(&self, detail: impl Into<String>) -> FieldError {
        FieldError::forbidden(&self.path, detail)
    }

    /// `Duplicate value: <this value>`.
    pub fn duplicate(&self) -> FieldError {
        FieldError::duplicate(&self.path, self.value.clone())
    }

    /// `Duplicate value: <shown>`.
    pub fn duplicate_as(&self, shown: impl Into<Value>) -> FieldError {
        FieldError::duplicate(&self.path, shown)
    }

    /// `Not found: <this value>`.
    pub fn not_found(&self) -> FieldError {
        FieldError::not_found(&self.path, self.value.clone())
    }

    /// `Not found: <shown>`.
    pub fn not_found_as(&self, shown: impl Into<Value>) -> FieldError {
        FieldError::not_found(&self.path, shown)
    }

    /// `Too long: may not be more than <limit> bytes`.
    pub fn too_long(&self, limit: usize) -> FieldError {
        FieldError::too_long(&self.path, limit)
    }

    /// `Too many: <actual>: must have at most <limit> items`.
    pub fn too_many(&self, limit: usize) -> FieldError {
        FieldError::too_many(&self.path, self.len(), limit)
    }

    /// `Unsupported value: …: supported values: …`.
    pub fn not_supported(&self, supported: &[&str]) -> FieldError {
        let shown = if self.value.is_null() { Value::String(String::new()) } else { self.value.clone() };
        FieldError::not_supported(&self.path, shown, supported)
    }

    /// `Unsupported value: <shown>: supported values: …`.
    pub fn not_supported_as(&self, shown: impl Into<Value>, supported: &[&str]) -> FieldError {
        FieldError::not_supported(&self.path, shown, supported)
    }

    /// One `Invalid value` for each complaint of a format function.
    pub fn check(&self, complaints: Vec<String>, errors: &mut Errors) {
        errors.extend(complaints.into_iter().map(|complaint| self.invalid(complaint)));
    }

    /// `Required value` if empty, `Unsupported value` if not one of `supported`.
    pub fn one_of(&self, supported: &[&str], errors: &mut Errors) {
        if self.str().is_empty() {
            errors.push(self.required(""));
        } else if !supported.contains(&self.str()) {
            errors.push(self.not_supported(supported));
        }
    }

    /// `must be greater than or equal to 0`, where given.
    pub fn non_negative(&self, errors: &mut Errors) {
        if self.int().is_some_and(|number| number < 0) {
            errors.push(self.invalid("must be greater than or equal to 0"));
        }
    }

    /// `must be greater than 0`, where given.
    pub fn positive(&self, errors: &mut Errors) {
        if self.int().is_some_and(|number| number <= 0) {
            errors.push(self.invalid("must be greater than 0"));
        }
    }

    /// `field is immutable` unless equal to the old value. `apimachinery/pkg/api/validation.ValidateImmutableField`.
    pub fn immutable(&self, old: &Field<'_>, errors: &mut Errors) {
        if self.value != old.value {
            errors.push(self.invalid_as(self.value.clone(), "field is immutable"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_beyond_the_bound_are_not_looked_for() {
        let value = Value::Null;
        let mut errors = Errors::new();
        errors.extend((0..).map(|_| Field::root(&value).required("")));
        errors.push(Field::root(&value).required(""));
        assert_eq!(errors.len(), MAX_ERRORS);
    }
}
