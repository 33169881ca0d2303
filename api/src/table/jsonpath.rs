//! The part of JSONPath that printer columns and scale subresources use: `.spec.a`, `..a`, `['a.b/c']`, `[0]`, `[*]`, `[1:3]`,
//! `[0,2]`, `[?(@.type=="Ready")]`. Mirrors what `k8s.io/client-go/util/jsonpath` accepts without braces.
use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::cells::age_of;
use crate::time;

/// Longest accepted path, in bytes.
const PATH_MAX_BYTES: usize = 4096;

/// Why a path does not parse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonPathError {
    /// It does not start with a dot.
    #[error("is not a simple json path starting with .")]
    Start,
    /// A bracket or a quote that is not closed.
    #[error("unterminated array")]
    Unterminated,
    /// Something in brackets that is none of the known forms.
    #[error("invalid array index {0}")]
    Index(String),
    /// Longer than is sensible.
    #[error("must be no more than {PATH_MAX_BYTES} characters")]
    TooLong,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Member(String),
    Index(i64),
    All,
    /// From the first number up to the second, every so many.
    Slice(Option<i64>, Option<i64>, i64),
    /// Several of these.
    Union(Vec<Step>),
    /// A member of that name, here and anywhere below.
    Anywhere(String),
    /// Elements whose member (a path of names) compares with a value so.
    Filter(Vec<String>, Comparison, Value),
}

/// How a member of an element compares with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    Unequal,
    Less,
    AtMost,
    Greater,
    AtLeast,
    /// It is there at all.
    Exists,
}

/// Signs of two characters before those of one that begin alike.
const COMPARISONS: [(&str, Comparison); 6] = [
    ("==", Comparison::Equal),
    ("!=", Comparison::Unequal),
    ("<=", Comparison::AtMost),
    (">=", Comparison::AtLeast),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

/// A parsed path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPath {
    steps: Vec<Step>,
}

impl JsonPath {
    /// Reads `.status.conditions[?(@.type=="Ready")].status`.
    pub fn parse(text: &str) -> Result<JsonPath, JsonPathError> {
        if text.len() > PATH_MAX_BYTES {
            return Err(JsonPathError::TooLong);
        }
        if !text.starts_with(['.', '[']) {
            return Err(JsonPathError::Start);
        }
        let mut steps = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if first == '[' {
                let end = closing_bracket(rest).ok_or(JsonPathError::Unterminated)?;
                steps.push(bracket(&rest[1..end])?);
                rest = &rest[end + 1..];
                continue;
            }
            let below = rest.starts_with("..");
            rest = rest.trim_start_matches('.');
            let (name, after) = member(rest);
            match name.as_str() {
                "" => {}
                _ if below => steps.push(Step::Anywhere(name)),
                "*" => steps.push(Step::All),
                _ => steps.push(Step::Member(name)),
            }
            rest = after;
        }
        Ok(JsonPath { steps })
    }

    /// All values that the path finds, in order; each once, so that no path finds more than there is (`[0,0][0,0]…`).
    pub fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![value];
        for step in &self.steps {
            let mut seen = BTreeSet::new();
            let below = found.into_iter().flat_map(|value| step.apply(value));
            found = below.filter(|value| seen.insert(std::ptr::from_ref(*value))).collect();
        }
        found
    }

    /// The cell of a printer column of type `kind` (`string integer number boolean date`): null where nothing is found
    /// or the value is of another type. Mirrors `cellForJSONValue`.
    pub fn cell(&self, object: &Value, kind: &str, now: Timestamp) -> Value {
        let found = self.find(object);
        let Some(first) = found.first() else {
            return Value::Null;
        };
        match kind {
            "integer" => first.as_i64().or(first.as_f64().map(|number| number as i64)).map_or(Value::Null, Value::from),
            "number" if first.is_number() => (*first).clone(),
            "boolean" if first.is_boolean() => (*first).clone(),
            "date" => match first.as_str() {
                None => Value::Null,
                Some(text) if !text.is_empty() && time::parse(text).is_err() => "<invalid>".into(),
                Some(_) => age_of(first, now).into(),
            },
            // Of several values the first is shown.
            "string" => match first {
                Value::String(text) => text.as_str().into(),
                Value::Null => Value::Null,
                other => other.to_string().into(),
            },
            _ => Value::Null,
        }
    }
}

/// A name up to the next dot or bracket; a backslash takes the next character as it is (`.metadata.labels.a\.b`).
fn member(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => name.extend(characters.next().map(|(_, escaped)| escaped)),
            '.' | '[' => return (name, &text[at..]),
            _ => name.push(character),
        }
    }
    (name, "")
}

/// Where the bracket that opens `text` closes, quotes respected.
fn closing_bracket(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, character) in text.char_indices().skip(1) {
        match (quote, character) {
            (None, '\'' | '"') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            (None, ']') => return Some(at),
            _ => {}
        }
    }
    None
}

fn bracket(inner: &str) -> Result<Step, JsonPathError> {
    let invalid = || JsonPathError::Index(inner.to_owned());
    if inner == "*" {
        return Ok(Step::All);
    }
    if let Some(name) = unquote(inner) {
        return Ok(Step::Member(name.to_owned()));
    }
    if let Some(filter) = inner.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        return filtered(filter).ok_or_else(invalid);
    }
    if inner.contains(',') {
        return inner.split(',').map(|one| bracket(one.trim())).collect::<Result<_, _>>().map(Step::Union);
    }
    if inner.contains(':') {
        let bounds: Vec<Option<i64>> = inner
            .split(':')
            .map(|bound| match bound.trim() {
                "" => Ok(None),
                bound => bound.parse().map(Some).map_err(|_| invalid()),
            })
            .collect::<Result<_, _>>()?;
        return match bounds[..] {
            [from, to] => Ok(Step::Slice(from, to, 1)),
            [from, to, step] if step != Some(0) => Ok(Step::Slice(from, to, step.unwrap_or(1))),
            _ => Err(invalid()),
        };
    }
    inner.parse().map(Step::Index).map_err(|_| invalid())
}

/// `@.type=="Ready"`, `@.ready`.
fn filtered(filter: &str) -> Option<Step> {
    let path = |text: &str| -> Option<Vec<String>> {
        Some(text.trim().strip_prefix("@.")?.split('.').map(str::to_owned).collect())
    };
    for (sign, comparison) in COMPARISONS {
        if let Some((left, right)) = filter.split_once(sign) {
            let right = right.trim();
            let wanted = match unquote(right) {
                Some(text) => Value::from(text),
                None => serde_json::from_str(right).ok()?,
            };
            return Some(Step::Filter(path(left)?, comparison, wanted));
        }
    }
    Some(Step::Filter(path(filter)?, Comparison::Exists, Value::Null))
}

impl Comparison {
    fn holds(self, found: &Value, wanted: &Value) -> bool {
        let order = match (found, wanted) {
            (Value::String(a), Value::String(b)) => a.partial_cmp(b),
            (a, b) => a.as_f64().zip(b.as_f64()).and_then(|(a, b)| a.partial_cmp(&b)),
        };
        match self {
            Self::Equal => found == wanted || order.is_some_and(|order| order.is_eq()),
            Self::Unequal => found != wanted && order.is_none_or(|order| order.is_ne()),
            Self::Less => order.is_some_and(|order| order.is_lt()),
            Self::AtMost => order.is_some_and(|order| order.is_le()),
            Self::Greater => order.is_some_and(|order| order.is_gt()),
            Self::AtLeast => order.is_some_and(|order| order.is_ge()),
            Self::Exists => true,
        }
    }
}

fn unquote(text: &str) -> Option<&str> {
    ['\'', '"'].into_iter().find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
}

impl Step {
    fn apply<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match (self, value) {
            (Step::Member(name), _) => value.get(name).into_iter().collect(),
            (Step::Index(index), Value::Array(list)) => {
                let at = if *index < 0 { *index + list.len() as i64 } else { *index };
                usize::try_from(at).ok().and_then(|at| list.get(at)).into_iter().collect()
            }
            (Step::All, Value::Array(list)) => list.iter().collect(),
            (Step::All, Value::Object(map)) => map.values().collect(),
            (Step::Slice(from, to, step), Value::Array(list)) => slice(list, *from, *to, *step),
            (Step::Union(steps), _) => steps.iter().flat_map(|step| step.apply(value)).collect(),
            (Step::Anywhere(name), _) => {
                let mut found = Vec::new();
                anywhere(name, value, &mut found);
                found
            }
            (Step::Filter(path, comparison, wanted), Value::Array(list)) => list
                .iter()
                .filter(|item| {
                    let found = path.iter().try_fold(*item, |value, name| value.get(name));
                    found.is_some_and(|found| comparison.holds(found, wanted))
                })
                .collect(),
            _ => Vec::new(),
        }
    }
}

/// Elements from a number up to another one, every so many; numbers below 0 count from the end.
fn slice(list: &[Value], from: Option<i64>, to: Option<i64>, step: i64) -> Vec<&Value> {
    let length = i64::try_from(list.len()).unwrap_or(i64::MAX);
    let place = |at: i64| (if at < 0 { at.saturating_add(length) } else { at }).clamp(0, length);
    let (from, to) = (place(from.unwrap_or(0)), to.map_or(length, place));
    let (Ok(from), Ok(to), Ok(step)) = (usize::try_from(from), usize::try_from(to), usize::try_from(step)) else {
        return Vec::new();
    };
    list.get(from..to).into_iter().flatten().step_by(step.max(1)).collect()
}

fn anywhere<'a>(name: &str, value: &'a Value, found: &mut Vec<&'a Value>) {
    let below: Vec<&Value> = match value {
        Value::Object(map) => {
            found.extend(map.get(name));
            map.values().collect()
        }
        Value::Array(list) => list.iter().collect(),
        _ => return,
    };
    below.into_iter().for_each(|value| anywhere(name, value, found));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cell(path: &str, kind: &str) -> Value {
        let object = json!({
            "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"a.b/c": "x"}},
            "spec": {"n": 3, "f": 1.5, "list": ["p", "q"]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Odd", "status": "False"}]},
        });
        JsonPath::parse(path).unwrap().cell(&object, kind, "2026-01-01T00:02:00Z".parse().unwrap())
    }

    #[test]
    fn no_path_finds_more_than_there_is() {
        let path = |step: &str| JsonPath::parse(&step.repeat(200)).expect("a path");
        let deep = (0..60).fold(json!({}), |inner, _| json!({ "x": inner }));
        assert_eq!(path("..x").find(&deep), Vec::<&Value>::new());
        let list = (0..200).fold(json!("end"), |inner, _| json!([inner]));
        assert_eq!(path("[0,0]").find(&list), [&json!("end")]);
    }

    #[test]
    fn cells_of_every_type() {
        assert_eq!(cell(".spec.n", "integer"), json!(3));
        assert_eq!(cell(".spec.f", "number"), json!(1.5));
        assert_eq!(cell(".spec.n", "string"), json!("3"));
        assert_eq!(cell(".spec.list[*]", "string"), json!("p"));
        assert_eq!(cell(".spec.list[0]", "date"), json!("<invalid>"));
        assert_eq!(cell(".spec.list[-1]", "string"), json!("q"));
        assert_eq!(cell(".metadata.creationTimestamp", "date"), json!("2m"));
        assert_eq!(cell(".metadata.labels['a.b/c']", "string"), json!("x"));
        assert_eq!(cell(r".metadata.labels.a\.b/c", "string"), json!("x"));
        assert_eq!(cell(".status.conditions[?(@.type==\"Ready\")].status", "string"), json!("True"));
        assert_eq!(cell(".spec.absent", "string"), Value::Null);
        assert_eq!(cell(".spec.list[-1:]", "string"), json!("q"));
        assert_eq!(cell(".spec.list[0:1]", "string"), json!("p"));
        assert_eq!(cell(".spec.list[5:]", "string"), Value::Null);
        assert_eq!(cell(".spec.list[1,0]", "string"), json!("q"));
        assert_eq!(cell("..n", "integer"), json!(3));
        assert_eq!(cell(".status.conditions[?(@.type!=\"Ready\")].type", "string"), json!("Odd"));
        assert_eq!(cell(".status.conditions[?(@.status)].type", "string"), json!("Ready"));
    }

    #[test]
    fn paths_that_do_not_parse() {
        assert_eq!(JsonPath::parse("spec"), Err(JsonPathError::Start));
        assert_eq!(JsonPath::parse(".a[0"), Err(JsonPathError::Unterminated));
        assert_eq!(JsonPath::parse(".a[x]"), Err(JsonPathError::Index("x".to_owned())));
    }
}
