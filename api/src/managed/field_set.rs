//! Sets of fields, as `metadata.managedFields[].fieldsV1` holds them (structured-merge-diff `fieldpath`).
//!
//! ```text
//! {"f:spec": {"f:replicas": {},                                .spec.replicas
//!             "f:containers": {"k:{\"name\":\"c\"}": {         a list element, chosen by its keys
//!                                 ".": {},                     … which is itself a member: .spec.containers[name="c"]
//!                                 "f:image": {}}}},            .spec.containers[name="c"].image
//!  "f:metadata": {"f:finalizers": {"v:\"a/b\"": {}}}}          an element of a set, chosen by its value
//! ```
//! A field is a member or it is not; that a parent is a member says nothing about its children.

use std::cmp::Ordering;
use std::fmt;

use serde_json::{Map, Value};

use crate::decode::MAX_DEPTH;

/// One step from an object to what it holds, in its FieldsV1 form: `f:name`, `k:{"name":"c"}`, `v:"x"` or `i:0`, the JSON
/// in it compact and with sorted keys. Two elements are the same step exactly when their forms are equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathElement(Box<str>);

/// A path from the root of an object. Displays as `.spec.containers[name="c"].image`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Path(pub Vec<PathElement>);

/// A set of fields of an object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSet {
    /// Sorted by element. None is empty.
    nodes: Vec<Node>,
}

/// What a [`FieldSet`] says of one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) element: PathElement,
    /// Whether the field itself is in the set.
    pub(super) member: bool,
    /// Which of the fields below it are.
    pub(super) children: FieldSet,
}

/// Why a FieldsV1 value is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldSetError {
    /// Something in it is not an object.
    #[error("error decoding set: expected an object, got {0}")]
    NotAnObject(String),
    /// The JSON in a `k:` or `v:` element cannot be read.
    #[error("error decoding set: parsing key as JSON: {0}")]
    BadElement(String),
    /// It is nested too deeply.
    #[error("error decoding set: nested too deeply")]
    TooDeep,
}

impl PathElement {
    /// The step into a field of a struct or to a key of a map.
    pub fn field(name: &str) -> PathElement {
        PathElement(["f:", name].concat().into())
    }

    /// The step to the element of a keyed list (`listType: map`) whose keys have these values.
    pub fn keys(keys: &mut [(&str, &Value)]) -> PathElement {
        keys.sort_unstable_by_key(|(key, _)| *key);
        let mut form = String::with_capacity(32);
        form.push_str("k:{");
        for (i, (key, value)) in keys.iter().enumerate() {
            form.push_str(if i > 0 { "," } else { "" });
            push_string(&mut form, key);
            form.push(':');
            match value {
                Value::String(text) => push_string(&mut form, text),
                other => form.push_str(&other.to_string()),
            }
        }
        form.push('}');
        PathElement(form.into())
    }

    /// The step to the element of a list that is neither keyed nor a set.
    pub(super) fn index(index: usize) -> PathElement {
        PathElement(format!("i:{index}").into())
    }

    /// The step to an element of a set (`listType: set`).
    pub fn value(value: &Value) -> PathElement {
        PathElement(format!("v:{value}").into())
    }

    /// The FieldsV1 form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the field, where this is a step into one.
    pub fn field_name(&self) -> Option<&str> {
        self.0.strip_prefix("f:")
    }

    /// Reads the FieldsV1 form. `None` for kinds of elements that are not known: a newer version may know them.
    fn parse(text: &str) -> Result<Option<PathElement>, FieldSetError> {
        let json = |text: &str| {
            serde_json::from_str::<Value>(text).map_err(|error| FieldSetError::BadElement(error.to_string()))
        };
        Ok(match text.as_bytes() {
            [b'f', b':', ..] => Some(PathElement(text.into())),
            [b'k', b':', ..] => match json(&text[2..])? {
                Value::Object(keys) => {
                    let mut keys: Vec<_> = keys.iter().map(|(key, value)| (key.as_str(), value)).collect();
                    Some(PathElement::keys(&mut keys))
                }
                other => {
                    return Err(FieldSetError::BadElement(format!("expected an object, got {other}")));
                }
            },
            [b'v', b':', ..] => Some(PathElement::value(&json(&text[2..])?)),
            [b'i', b':', ..] => {
                let index: i64 = text[2..].parse().map_err(|_| FieldSetError::BadElement(text.to_owned()))?;
                Some(PathElement(format!("i:{index}").into()))
            }
            _ => None,
        })
    }
}

/// Appends a string as JSON. Most need no escape.
fn push_string(form: &mut String, text: &str) {
    if text.bytes().all(|b| b >= b' ' && b != b'"' && b != b'\\') {
        form.push('"');
        form.push_str(text);
        form.push('"');
    } else {
        form.push_str(&Value::from(text).to_string());
    }
}

impl fmt::Display for PathElement {
    /// As conflicts show it: `.name`, `[name="c"]`, `[="x"]`, `[0]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, rest) = self.0.split_at(2);
        match kind {
            "f:" => write!(f, ".{rest}"),
            "k:" => {
                let keys: Map<String, Value> = serde_json::from_str(rest).unwrap_or_default();
                let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
                write!(f, "[{}]", keys.join(","))
            }
            "v:" => write!(f, "[={rest}]"),
            _ => write!(f, "[{rest}]"),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|element| write!(f, "{element}"))
    }
}

impl FieldSet {
    /// The empty set.
    pub const fn new() -> FieldSet {
        FieldSet { nodes: Vec::new() }
    }

    /// The set of one field.
    pub fn of_path(path: &[PathElement]) -> FieldSet {
        let mut set = FieldSet::new();
        set.insert(path);
        set
    }

    /// The set of these paths of field names.
    pub fn of_fields(paths: &[&[&str]]) -> FieldSet {
        let mut set = FieldSet::new();
        for path in paths {
            set.insert(&path.iter().map(|name| PathElement::field(name)).collect::<Vec<_>>());
        }
        set
    }

    /// Reads a `fieldsV1` value.
    ///
    /// # Errors
    /// When it is no such value.
    pub fn from_value(fields: &Value) -> Result<FieldSet, FieldSetError> {
        FieldSet::read(fields, 0).map(|(_, set)| set)
    }

    /// The set at one node of a FieldsV1 value, and whether the node itself is a member.
    fn read(fields: &Value, depth: usize) -> Result<(bool, FieldSet), FieldSetError> {
        let map = fields.as_object().ok_or_else(|| FieldSetError::NotAnObject(fields.to_string()))?;
        if depth > MAX_DEPTH {
            return Err(FieldSetError::TooDeep);
        }
        let mut member = map.is_empty();
        let mut nodes = Vec::with_capacity(map.len());
        for (key, value) in map {
            if key == "." {
                member = true;
            } else if let Some(element) = PathElement::parse(key)? {
                let (member, children) = FieldSet::read(value, depth + 1)?;
                nodes.push(Node { element, member, children });
            }
        }
        Ok((member, FieldSet::from_unsorted(nodes)))
    }

    /// The `fieldsV1` value.
    pub fn to_value(&self) -> Value {
        Value::Object(self.nodes.iter().map(Node::to_entry).collect())
    }

    /// The set of these nodes; nodes that stand twice are united.
    pub(super) fn from_unsorted(mut nodes: Vec<Node>) -> FieldSet {
        nodes.retain(|node| !node.is_empty());
        if !nodes.is_sorted_by(|a, b| a.element < b.element) {
            nodes.sort_by(|a, b| a.element.cmp(&b.element));
            nodes.dedup_by(|later, earlier| {
                let same = later.element == earlier.element;
                if same {
                    earlier.member |= later.member;
                    earlier.children = earlier.children.union(&later.children);
                }
                same
            });
        }
        FieldSet { nodes }
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub(super) fn node(&self, element: &PathElement) -> Option<&Node> {
        let found = self.nodes.binary_search_by(|node| node.element.cmp(element)).ok()?;
        Some(&self.nodes[found])
    }

    /// Adds the field at `path`; its parents are not added. The empty path, the whole object, is never a member.
    pub fn insert(&mut self, path: &[PathElement]) {
        let Some((element, rest)) = path.split_first() else {
            return;
        };
        let at = match self.nodes.binary_search_by(|node| node.element.cmp(element)) {
            Ok(at) => at,
            Err(at) => {
                self.nodes.insert(at, Node { element: element.clone(), member: false, children: FieldSet::new() });
                at
            }
        };
        if rest.is_empty() {
            self.nodes[at].member = true;
        } else {
            self.nodes[at].children.insert(rest);
        }
    }

    /// Whether the field at `path` is a member.
    pub fn contains(&self, path: &[PathElement]) -> bool {
        match path {
            [] => false,
            [element] => self.node(element).is_some_and(|node| node.member),
            [element, rest @ ..] => self.node(element).is_some_and(|node| node.children.contains(rest)),
        }
    }

    /// The fields that are in either set.
    #[must_use]
    pub fn union(&self, other: &FieldSet) -> FieldSet {
        if other.is_empty() {
            return self.clone();
        }
        self.zip(other, |ours, theirs| match (ours, theirs) {
            (Some(ours), Some(theirs)) => Some(Node {
                element: ours.element.clone(),
                member: ours.member || theirs.member,
                children: ours.children.union(&theirs.children),
            }),
            (one, other) => one.or(other).cloned(),
        })
    }

    /// The fields that are in both sets.
    #[must_use]
    pub fn intersection(&self, other: &FieldSet) -> FieldSet {
        self.zip(other, |ours, theirs| {
            let (ours, theirs) = (ours?, theirs?);
            Some(Node {
                element: ours.element.clone(),
                member: ours.member && theirs.member,
                children: ours.children.intersection(&theirs.children),
            })
        })
    }

    /// The fields that are in this set only. Children of a field that is in `other` stay.
    #[must_use]
    pub fn difference(&self, other: &FieldSet) -> FieldSet {
        let mut left = self.clone();
        left.subtract(other);
        left
    }

    /// The fields that are neither in `other` nor below a field that is.
    #[must_use]
    pub fn recursive_difference(&self, other: &FieldSet) -> FieldSet {
        let mut left = self.clone();
        left.subtract_recursively(other);
        left
    }

    /// Takes out the fields of `other`, and leaves what is below them.
    pub(super) fn subtract(&mut self, other: &FieldSet) {
        self.retain(other, &|node, theirs| {
            node.member &= !theirs.member;
            node.children.subtract(&theirs.children);
        });
    }

    /// Takes out the fields of `other` and what is below them.
    pub(super) fn subtract_recursively(&mut self, other: &FieldSet) {
        self.retain(other, &|node, theirs| {
            if theirs.member {
                (node.member, node.children) = (false, FieldSet::new());
            } else {
                node.children.subtract_recursively(&theirs.children);
            }
        });
    }

    /// Changes the nodes that both sets have, and keeps those that are not empty then.
    fn retain(&mut self, other: &FieldSet, change: &dyn Fn(&mut Node, &Node)) {
        if other.is_empty() {
            return;
        }
        self.nodes.retain_mut(|node| {
            let Some(theirs) = other.node(&node.element) else {
                return true;
            };
            change(node, theirs);
            !node.is_empty()
        });
    }

    /// Whether every field of this set is in `other`.
    pub fn is_subset(&self, other: &FieldSet) -> bool {
        self.nodes.iter().all(|node| {
            other
                .node(&node.element)
                .is_some_and(|theirs| (theirs.member || !node.member) && node.children.is_subset(&theirs.children))
        })
    }

    /// Whether a FieldsV1 value in canonical form shares a field with this set; the value is not parsed.
    pub(super) fn overlaps(&self, fields: &Value) -> bool {
        let Some(map) = fields.as_object() else {
            return false;
        };
        self.nodes.iter().any(|node| {
            map.get(node.element.as_str()).is_some_and(|below| {
                let member = below.as_object().is_some_and(|map| map.is_empty() || map.contains_key("."));
                (node.member && member) || node.children.overlaps(below)
            })
        })
    }

    /// The paths of all members: those of a level first, then those below them.
    pub fn paths(&self) -> Vec<Path> {
        let mut paths = Vec::new();
        self.collect_paths(&mut Path::default(), &mut paths);
        paths
    }

    fn collect_paths(&self, prefix: &mut Path, paths: &mut Vec<Path>) {
        for node in self.nodes.iter().filter(|node| node.member) {
            let mut path = prefix.clone();
            path.0.push(node.element.clone());
            paths.push(path);
        }
        for node in &self.nodes {
            prefix.0.push(node.element.clone());
            node.children.collect_paths(prefix, paths);
            prefix.0.pop();
        }
    }

    /// Walks both sets in order and keeps what `merge` makes of each pair of nodes.
    fn zip<F>(&self, other: &FieldSet, merge: F) -> FieldSet
    where
        F: Fn(Option<&Node>, Option<&Node>) -> Option<Node>,
    {
        let (mut ours, mut theirs) = (self.nodes.iter().peekable(), other.nodes.iter().peekable());
        let mut nodes = Vec::with_capacity(self.nodes.len());
        loop {
            let order = match (ours.peek(), theirs.peek()) {
                (None, None) => return FieldSet { nodes },
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) => a.element.cmp(&b.element),
            };
            let merged = match order {
                Ordering::Less => merge(ours.next(), None),
                Ordering::Greater => merge(None, theirs.next()),
                Ordering::Equal => merge(ours.next(), theirs.next()),
            };
            nodes.extend(merged.filter(|node| !node.is_empty()));
        }
    }
}

impl Node {
    fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    fn to_entry(&self) -> (String, Value) {
        let mut below: Map<String, Value> = self.children.nodes.iter().map(Node::to_entry).collect();
        if self.member && !below.is_empty() {
            below.insert(".".to_owned(), Value::Object(Map::new()));
        }
        (self.element.as_str().to_owned(), Value::Object(below))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(value: Value) -> FieldSet {
        FieldSet::from_value(&value).unwrap()
    }

    #[test]
    fn reads_and_writes_the_canonical_form() {
        let canonical = json!({"f:spec": {"f:containers": {"k:{\"a\":1,\"name\":\"c\"}": {".": {}, "f:image": {}}}, "f:replicas": {}},
            "f:set": {"v:\"x\"": {}, "v:1": {}}});
        assert_eq!(set(canonical.clone()).to_value(), canonical);
        let loose = json!({"f:spec": {"f:containers": {"k:{\"name\": \"c\", \"a\":1}": {".": {}, "f:image": {".": {}}}}, "f:replicas": {}},
            "f:set": {"v: \"x\"": {}, "v:1": {}}, "x:future": {}, ".": {}});
        assert_eq!(set(loose).to_value(), canonical);
        assert!(FieldSet::from_value(&json!({"f:a": 1})).is_err());
        assert!(FieldSet::from_value(&json!({"k:{": {}})).is_err());
    }

    #[test]
    fn paths_display_as_conflicts_show_them() {
        let set = set(
            json!({"f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}}}, "f:z": {}},
            "f:finalizers": {"v:\"x\"": {}}}),
        );
        let paths: Vec<String> = set.paths().iter().map(Path::to_string).collect();
        assert_eq!(
            paths,
            [
                ".finalizers[=\"x\"]",
                ".spec.z",
                ".spec.ports[port=80,protocol=\"TCP\"]",
                ".spec.ports[port=80,protocol=\"TCP\"].name",
            ]
        );
    }

    #[test]
    fn algebra() {
        let a = set(json!({"f:x": {".": {}, "f:y": {}}, "f:z": {}}));
        let b = set(json!({"f:x": {}, "f:w": {}}));
        assert_eq!(a.union(&b).to_value(), json!({"f:w": {}, "f:x": {".": {}, "f:y": {}}, "f:z": {}}));
        assert_eq!(a.intersection(&b).to_value(), json!({"f:x": {}}));
        assert_eq!(a.difference(&b).to_value(), json!({"f:x": {"f:y": {}}, "f:z": {}}));
        assert_eq!(a.recursive_difference(&b).to_value(), json!({"f:z": {}}));
        assert!(a.intersection(&b).is_subset(&a) && !a.is_subset(&b));
        assert!(a.overlaps(&b.to_value()) && !a.difference(&b).overlaps(&b.to_value()));
        assert_eq!(FieldSet::of_fields(&[&["x", "y"], &["x"], &["z"]]), a);
    }
}
