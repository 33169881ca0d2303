//! What one version of an object changes of another (structured-merge-diff `typed/compare.go`).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::field_set::{FieldSet, Node, PathElement};
use super::shape::{Place, Relation, Shape};
use super::typed::{TypeErrors, elements, items};

/// The fields in which two values differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Fields that the new value adds or gives another value.
    pub changed: FieldSet,
    /// Fields that the new value lacks.
    pub removed: FieldSet,
}

impl Comparison {
    /// Whether the values are the same.
    pub fn is_same(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }

    /// The same, without these fields and what is below them.
    pub(super) fn exclude(mut self, fields: &FieldSet) -> Comparison {
        self.changed.subtract_recursively(fields);
        self.removed.subtract_recursively(fields);
        self
    }
}

/// Compares two values of one type.
///
/// # Errors
/// When the elements of a list cannot be told apart.
pub(super) fn compare(place: Place<'_>, old: &Value, new: &Value) -> Result<Comparison, TypeErrors> {
    let mut differences = Differences::default();
    differences.walk(place, Some(old), Some(new))?;
    Ok(differences.below)
}

/// What is different at one place: the place itself, and what is below it.
#[derive(Default)]
struct Differences {
    changed: bool,
    removed: bool,
    below: Comparison,
}

/// The nodes of a level, as they are found.
#[derive(Default)]
struct Level {
    changed: Vec<Node>,
    removed: Vec<Node>,
}

impl Level {
    fn push(&mut self, element: PathElement, found: Differences) {
        let Differences { changed, removed, below } = found;
        if removed || !below.removed.is_empty() {
            self.removed.push(Node { element: element.clone(), member: removed, children: below.removed });
        }
        if changed || !below.changed.is_empty() {
            self.changed.push(Node { element, member: changed, children: below.changed });
        }
    }

    fn finish(self, into: &mut Comparison) {
        let unite = |set: &mut FieldSet, nodes: Vec<Node>| {
            let nodes = FieldSet::from_unsorted(nodes);
            *set = if set.is_empty() { nodes } else { set.union(&nodes) };
        };
        unite(&mut into.changed, self.changed);
        unite(&mut into.removed, self.removed);
    }
}

impl Differences {
    fn walk(&mut self, place: Place<'_>, old: Option<&Value>, new: Option<&Value>) -> Result<(), TypeErrors> {
        if old.is_some() && old == new {
            return Ok(());
        }
        let shapes = (old.map(|old| place.shape(old)), new.map(|new| place.shape(new)));
        let leaf = match shapes {
            // Where the type is deduced, the two may be of different kinds: one goes, the other comes.
            (Some(one), Some(other)) if !one.is_same_kind(&other) => {
                let gone = self.visit(place, &one, old, new)?;
                self.visit(place, &other, old, new)? || gone
            }
            (one, other) => match other.or(one) {
                Some(shape) => self.visit(place, &shape, old, new)?,
                None => return Ok(()),
            },
        };
        if !leaf {
            self.changed |= old.is_none();
            self.removed |= new.is_none();
        }
        Ok(())
    }

    /// Whether the place is a leaf of this shape; if not, what is below it has been compared.
    fn visit(
        &mut self,
        place: Place<'_>,
        shape: &Shape<'_>,
        old: Option<&Value>,
        new: Option<&Value>,
    ) -> Result<bool, TypeErrors> {
        match *shape {
            Shape::Map => {
                let (ours, theirs) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
                if ours.is_some_and(|map| !map.is_empty()) || theirs.is_some_and(|map| !map.is_empty()) {
                    self.maps(place, ours, theirs)?;
                    return Ok(false);
                }
            }
            Shape::List(item, relation @ (Relation::Set | Relation::Keyed(_)))
                if !items(old).is_empty() || !items(new).is_empty() =>
            {
                self.lists(item, relation, old, new)?;
                return Ok(false);
            }
            _ => {}
        }
        self.removed |= new.is_none();
        self.changed |= new.is_some() && old != new;
        Ok(true)
    }

    fn maps(
        &mut self,
        place: Place<'_>,
        old: Option<&Map<String, Value>>,
        new: Option<&Map<String, Value>>,
    ) -> Result<(), TypeErrors> {
        let mut level = Level::default();
        for (key, old, new) in zip(old, new) {
            if old == new {
                continue;
            }
            let mut found = Differences::default();
            let element = PathElement::field(key);
            found.walk(place.child(key), old, new).map_err(|errors| errors.below(&element))?;
            level.push(element, found);
        }
        level.finish(&mut self.below);
        Ok(())
    }

    fn lists(
        &mut self,
        item: Place<'_>,
        relation: Relation<'_>,
        old: Option<&Value>,
        new: Option<&Value>,
    ) -> Result<(), TypeErrors> {
        let (ours, theirs) = (items(old), items(new));
        let (our_elements, their_elements) = (elements(item, relation, ours)?, elements(item, relation, theirs)?);
        // What stands at each element, before and after: usually one value or none.
        let mut places: BTreeMap<PathElement, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
        for (element, value) in our_elements.into_iter().zip(ours) {
            places.entry(element).or_default().0.push(value);
        }
        for (element, value) in their_elements.into_iter().zip(theirs) {
            places.entry(element).or_default().1.push(value);
        }
        let mut level = Level::default();
        for (element, (before, after)) in places {
            let mut found = Differences::default();
            let mut walk = |old, new| found.walk(item, old, new).map_err(|errors| errors.below(&element));
            match (before.as_slice(), after.as_slice()) {
                (before @ [_, _, ..], after @ [_, _, ..]) => found.changed = before != after,
                ([_, _, ..], rest) => {
                    walk(None, rest.first().copied())?;
                    found.removed = true;
                }
                (rest, [_, _, ..]) => {
                    walk(rest.first().copied(), None)?;
                    found.changed = true;
                }
                (before, after) => walk(before.first().copied(), after.first().copied())?,
            }
            level.push(element, found);
        }
        level.finish(&mut self.below);
        Ok(())
    }
}

/// The keys of two maps in order, each with its values.
pub(super) fn zip<'a>(
    old: Option<&'a Map<String, Value>>,
    new: Option<&'a Map<String, Value>>,
) -> impl Iterator<Item = (&'a str, Option<&'a Value>, Option<&'a Value>)> {
    let mut ours = old.into_iter().flatten().peekable();
    let mut theirs = new.into_iter().flatten().peekable();
    std::iter::from_fn(move || {
        let order = match (ours.peek(), theirs.peek()) {
            (None, None) => return None,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let old = if order.is_le() { ours.next() } else { None };
        let new = if order.is_ge() { theirs.next() } else { None };
        let (key, _) = old.or(new)?;
        Some((key.as_str(), old.map(|(_, value)| value), new.map(|(_, value)| value)))
    })
}
