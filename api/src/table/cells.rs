//! What printers share: an object that reads missing fields as zeros, and the sentences of cells.
use jiff::Timestamp;
use serde_json::Value;

use crate::time;

/// The cell of something that is not there.
pub const NONE: &str = "<none>";
/// The cell of something that was not chosen.
pub const UNSET: &str = "<unset>";
/// The cell of something that nobody has reported.
pub const UNKNOWN: &str = "<unknown>";

/// An object being printed, and the time at which ages are told.
pub struct Object<'a> {
    value: &'a Value,
    now: Timestamp,
}

impl<'a> Object<'a> {
    pub fn new(value: &'a Value, now: Timestamp) -> Object<'a> {
        Object { value, now }
    }

    pub fn value(&self) -> &'a Value {
        self.value
    }

    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// A field by JSON pointer; null where absent.
    pub fn at(&self, pointer: &str) -> &'a Value {
        self.value.pointer(pointer).unwrap_or(&Value::Null)
    }

    pub fn text(&self, pointer: &str) -> &'a str {
        self.at(pointer).as_str().unwrap_or("")
    }

    /// A text cell with a stand-in for nothing.
    pub fn text_or(&self, pointer: &str, otherwise: &str) -> Value {
        match self.text(pointer) {
            "" => otherwise.into(),
            text => text.into(),
        }
    }

    pub fn int(&self, pointer: &str) -> i64 {
        self.at(pointer).as_i64().unwrap_or(0)
    }

    pub fn bool(&self, pointer: &str) -> bool {
        self.at(pointer).as_bool().unwrap_or(false)
    }

    pub fn list(&self, pointer: &str) -> &'a [Value] {
        self.at(pointer).as_array().map_or(&[], Vec::as_slice)
    }

    /// Number of entries or elements.
    pub fn count(&self, pointer: &str) -> i64 {
        match self.at(pointer) {
            Value::Array(list) => list.len() as i64,
            Value::Object(map) => map.len() as i64,
            _ => 0,
        }
    }

    pub fn name(&self) -> Value {
        self.text("/metadata/name").into()
    }

    pub fn age(&self) -> Value {
        self.since("/metadata/creationTimestamp").into()
    }

    pub fn is_deleting(&self) -> bool {
        !self.at("/metadata/deletionTimestamp").is_null()
    }

    /// Time since the moment at a pointer, `<unknown>` without one.
    pub fn since(&self, pointer: &str) -> String {
        age_of(self.at(pointer), self.now)
    }

    /// The status (`True`…) of a condition, if there is one of that type.
    pub fn condition(&self, kind: &str) -> Option<&'a Value> {
        self.list("/status/conditions").iter().find(|condition| condition["type"] == kind)
    }

    pub fn is_true(&self, kind: &str) -> bool {
        self.condition(kind).is_some_and(|condition| condition["status"] == "True")
    }
}

/// Time since a moment, `<unknown>` where there is none.
pub fn age_of(moment: &Value, now: Timestamp) -> String {
    match moment.as_str().and_then(|text| time::parse(text).ok()) {
        Some(then) => time::age(then, now),
        None => UNKNOWN.to_owned(),
    }
}

/// `a=1,b=2`, or `<none>`: `labels.FormatLabels`.
pub fn labels(map: &Value) -> String {
    let pairs: Vec<String> = map
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")))
        .collect();
    or_none(pairs.join(","))
}

/// A LabelSelector as a sentence, or `<none>`: `metav1.FormatLabelSelector`.
pub fn selector(selector: &Value) -> String {
    or_none(crate::strategy::selector_text(selector))
}

pub fn or_none(text: String) -> String {
    if text.is_empty() { NONE.to_owned() } else { text }
}

/// Names and images of containers, each joined by commas.
pub fn containers(list: &Value) -> [Value; 2] {
    let joined = |name: &str| -> Value {
        let all: Vec<&str> = list.as_array().into_iter().flatten().map(|c| c[name].as_str().unwrap_or("")).collect();
        all.join(",").into()
    };
    [joined("name"), joined("image")]
}

/// The first few of a list, then how many more: `a,b,c + 2 more...`.
pub fn first_few(all: &[String], most: usize, separator: &str) -> String {
    let shown = all[..all.len().min(most)].join(separator);
    if all.len() > most { format!("{shown} + {} more...", all.len() - most) } else { shown }
}

/// A count or a share (`25%`) as text.
pub fn int_or_text(value: &Value, otherwise: &str) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => otherwise.to_owned(),
    }
}
