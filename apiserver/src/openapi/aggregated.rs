//! What another server adds to the document of version 2
//! (`kube-aggregator/pkg/controllers/openapi/aggregator`, `kube-openapi/pkg/aggregator`).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

const DEFINITIONS: &str = "#/definitions/";

/// Adds the paths below `root` that another server describes, and the definitions that these refer to. A definition that
/// is called like one of the document's and says something else gets another name.
pub(super) fn merge(document: &mut Value, other: &Value, root: &str) {
    let (Some(paths), Some(definitions)) = (other["paths"].as_object(), other["definitions"].as_object()) else {
        return;
    };
    let below = |path: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let mut added: Map<String, Value> =
        paths.iter().filter(|(path, _)| below(path)).map(|(path, value)| (path.clone(), value.clone())).collect();
    let mut needed = BTreeMap::new();
    let mut found: Vec<String> = Vec::new();
    added.values().for_each(|value| references(value, &mut found));
    while let Some(name) = found.pop() {
        if let (false, Some(definition)) = (needed.contains_key(&name), definitions.get(&name)) {
            references(definition, &mut found);
            needed.insert(name, definition.clone());
        }
    }
    let own = &document["definitions"];
    let renamed: BTreeMap<String, String> = needed
        .iter()
        .filter(|(name, definition)| own.get(name.as_str()).is_some_and(|own| own != *definition))
        .map(|(name, _)| (name.clone(), free_name(own, &needed, name)))
        .collect();
    added.values_mut().for_each(|value| rename(value, &renamed));
    for (name, mut definition) in needed {
        rename(&mut definition, &renamed);
        let name = renamed.get(&name).cloned().unwrap_or(name);
        document["definitions"][name] = definition;
    }
    for (path, value) in added {
        document["paths"][path] = value;
    }
}

fn free_name(own: &Value, needed: &BTreeMap<String, Value>, name: &str) -> String {
    let mut number = 2;
    loop {
        let candidate = format!("{name}_v{number}");
        if own.get(&candidate).is_none() && !needed.contains_key(&candidate) {
            return candidate;
        }
        number += 1;
    }
}

/// The definitions that a value refers to.
fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                match value.as_str().and_then(|text| text.strip_prefix(DEFINITIONS)) {
                    Some(name) if field == "$ref" => found.push(name.to_owned()),
                    _ => references(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

fn rename(value: &mut Value, renamed: &BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                let name = value.as_str().and_then(|text| text.strip_prefix(DEFINITIONS));
                match name.and_then(|name| renamed.get(name)) {
                    Some(name) if field == "$ref" => *value = format!("{DEFINITIONS}{name}").into(),
                    _ => rename(value, renamed),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, renamed)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn definitions_that_differ_get_other_names() {
        let reference = |name: &str| json!({ "$ref": format!("{DEFINITIONS}{name}") });
        let mut document = json!({
            "paths": { "/api/v1/": {} },
            "definitions": { "Meta": { "type": "object" }, "Time": { "type": "string" } },
        });
        let other = json!({
            "paths": {
                "/apis/a.io/v1/things": { "get": { "schema": reference("Thing") } },
                "/apis/a.io/v10/things": {},
                "/version": {},
            },
            "definitions": {
                "Thing": { "properties": { "m": reference("Meta"), "t": reference("Time") } },
                "Meta": { "type": "object", "description": "other" },
                "Time": { "type": "string" },
                "Unused": {},
            },
        });
        merge(&mut document, &other, "/apis/a.io/v1");
        let expect = json!({
            "paths": { "/api/v1/": {}, "/apis/a.io/v1/things": { "get": { "schema": reference("Thing") } } },
            "definitions": {
                "Meta": { "type": "object" },
                "Meta_v2": { "type": "object", "description": "other" },
                "Time": { "type": "string" },
                "Thing": { "properties": { "m": reference("Meta_v2"), "t": reference("Time") } },
            },
        });
        assert_eq!(document, expect);
    }
}
