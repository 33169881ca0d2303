//! Keys that stand twice in a YAML mapping, which a reader of values does not see: the last one counts.
//!
//! (`go.yaml.in/yaml/v2` `decode.go`, `setMapIndex`, by `UnmarshalStrict`.)

use std::collections::BTreeSet;

use granit_parser::{Event, Parser, ScalarStyle};
use serde_yaml::Value;

use super::problems::MAX_FIELD_PROBLEMS;
use crate::status::go_quote;

/// A collection that is being read.
enum Open {
    Sequence,
    Mapping {
        seen: BTreeSet<String>,
        /// Whether a key comes next.
        key: bool,
    },
}

/// What a YAML text says twice, as `line 9: key "a" already set in map`. It is looked for in the first document, and up to the
/// first fault, which is for those who read the text.
pub fn duplicate_keys(yaml: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    for next in Parser::new_from_str(yaml) {
        let Ok((event, span)) = next else { break };
        let key = match open.last_mut() {
            Some(Open::Mapping { seen, key }) if event.is_node() => {
                *key = !*key;
                // It was a key, and now the value comes.
                (!*key).then_some(seen)
            }
            _ => None,
        };
        match event {
            Event::Scalar(text, style, ..) => {
                let Some(seen) = key else { continue };
                let shown = shown(&text, style);
                if seen.contains(&shown) && found.len() < MAX_FIELD_PROBLEMS {
                    found.push(format!("line {}: key {shown} already set in map", span.start.line()));
                }
                seen.insert(shown);
            }
            Event::SequenceStart(..) => open.push(Open::Sequence),
            Event::MappingStart(..) => open.push(Open::Mapping { seen: BTreeSet::new(), key: true }),
            Event::SequenceEnd | Event::MappingEnd => drop(open.pop()),
            Event::DocumentEnd => break,
            _ => {}
        }
    }
    found
}

/// A key as Go shows it (`%#v`): `1` and `"1"` are two.
fn shown(text: &str, style: ScalarStyle) -> String {
    // A word of more than five letters is neither a number nor `false`; most keys are one, and need no reading.
    let word = text.len() > 5 && text.starts_with(|first: char| first.is_ascii_alphabetic());
    if style != ScalarStyle::Plain || word {
        return go_quote(text);
    }
    match serde_yaml::from_str(text) {
        Ok(Value::Number(number)) => number.to_string(),
        Ok(Value::Bool(value)) => value.to_string(),
        Ok(Value::Null) => "<nil>".to_owned(),
        _ => go_quote(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_stand_twice_are_named_by_their_lines() {
        let yaml = "a: 1\nb: {c: 1, \"c\": 2,\n  d: [{x: 1}, {x: 1}]}\n# nothing\na:\n  - a: 1\n    a: 2\n1: x\n\"1\": x\n1: y\n";
        let expected = [
            "line 2: key \"c\" already set in map",
            "line 5: key \"a\" already set in map",
            "line 7: key \"a\" already set in map",
            "line 10: key 1 already set in map",
        ];
        assert_eq!(duplicate_keys(yaml), expected);
        assert_eq!(duplicate_keys("{\"a\":{\"b\":1},\"a\":2}"), ["line 1: key \"a\" already set in map"]);
        assert_eq!(duplicate_keys("a: &x {b: 1}\nc: *x\nd: *x\n---\na: 1\na: 2\n"), [""; 0], "the first document");
        assert_eq!(duplicate_keys("a: 1\na: [\n"), ["line 2: key \"a\" already set in map"], "up to the fault");
    }
}
