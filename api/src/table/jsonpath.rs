//! The part of JSONPath that printer columns and scale subresources use: `.spec.a`, `['a.b/c']`, `[0]`, `[*]`,
//! `[?(@.type=="Ready")]`. Mirrors what `k8s.io/client-go/util/jsonpath` accepts without braces.
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
    /// Elements whose member (a path of names) equals a value.
    Filter(Vec<String>, Value),
}

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
            rest = rest.strip_prefix('.').unwrap_or(rest);
            let (name, after) = member(rest);
            match name.as_str() {
                "" => {}
                "*" => steps.push(Step::All),
                _ => steps.push(Step::Member(name)),
            }
            rest = after;
        }
        Ok(JsonPath { steps })
    }

    /// All values that the path finds, in order.
    pub fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        self.steps
            .iter()
            .fold(vec![value], |found, step| found.into_iter().flat_map(|value| step.apply(value)).collect())
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
        let (path, wanted) = filter.split_once("==").ok_or_else(invalid)?;
        let path = path.trim().strip_prefix("@.").ok_or_else(invalid)?;
        let wanted = wanted.trim();
        let wanted = match unquote(wanted) {
            Some(text) => Value::from(text),
            None => serde_json::from_str(wanted).map_err(|_| invalid())?,
        };
        return Ok(Step::Filter(path.split('.').map(str::to_owned).collect(), wanted));
    }
    inner.parse().map(Step::Index).map_err(|_| invalid())
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
            (Step::Filter(path, wanted), Value::Array(list)) => list
                .iter()
                .filter(|item| path.iter().try_fold(*item, |value, name| value.get(name)) == Some(wanted))
                .collect(),
            _ => Vec::new(),
        }
    }
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
    }

    #[test]
    fn paths_that_do_not_parse() {
        assert_eq!(JsonPath::parse("spec"), Err(JsonPathError::Start));
        assert_eq!(JsonPath::parse(".a[0"), Err(JsonPathError::Unterminated));
        assert_eq!(JsonPath::parse(".a[x]"), Err(JsonPathError::Index("x".to_owned())));
    }
}
