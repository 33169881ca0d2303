//! What is sent: values as a schema wants them, and the ways to spoil them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use minik8s_clock::Random;
use serde_json::{Map, Value, json};

use super::requests::{chance, one_of};

/// Levels of a body that nobody needs.
const DEEP: usize = 10_000;
/// Bytes of a body that is too long.
const HUGE: usize = 3 * 1024 * 1024 + 1;
/// Elements of a list that nobody needs: what compares each with each takes a minute.
const LONG: usize = 20_000;
/// Levels to which optional fields are filled.
const LEVELS: usize = 7;
const WORDS: [&str; 10] =
    ["a", "b", "web", "default", "80", "100m", "1Gi", "true", "nginx:1.27", "2026-01-02T03:04:05Z"];

/// Objects by `apiVersion` and `kind`.
pub type Examples = BTreeMap<(String, String), Vec<Value>>;

/// The fixtures of all kinds: what is sent comes of them as often as of the schema, for few objects that are made up are valid.
pub fn examples() -> Examples {
    let mut examples = Examples::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../api/tests/kinds");
    let entries = std::fs::read_dir(folder).expect("the fixtures").map(|entry| entry.expect("an entry").path());
    let mut inputs: Vec<_> = entries.map(|path| path.join("input.yaml")).filter(|path| path.exists()).collect();
    inputs.sort();
    for path in inputs {
        let text = std::fs::read_to_string(path).expect("a fixture");
        let Ok(object) = serde_yaml::from_str::<Value>(&text) else { continue };
        let of = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
        examples.entry((of("apiVersion"), of("kind"))).or_default().push(object);
    }
    examples
}

/// The named schemas of one OpenAPI document.
pub struct Schemas {
    by_name: BTreeMap<String, Value>,
    examples: Arc<Examples>,
}

impl Schemas {
    pub fn of(document: &Value, examples: Arc<Examples>) -> Schemas {
        let schemas = document["components"]["schemas"].as_object();
        let by_name = schemas.into_iter().flatten().map(|(name, schema)| (name.clone(), schema.clone())).collect();
        Schemas { by_name, examples }
    }

    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        let of_all = schema["allOf"].get(0).unwrap_or(schema);
        match of_all["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()) {
            Some(name) => self.by_name.get(name).unwrap_or(of_all),
            None => of_all,
        }
    }

    /// A value as the schema wants it.
    fn value(&self, random: &Random, schema: &Value, level: usize) -> Value {
        let schema = self.resolve(schema);
        match schema["type"].as_str() {
            Some("object") => self.object(random, schema, level),
            Some("array") if level == 0 => json!([]),
            Some("array") => (0..random.below(3)).map(|_| self.value(random, &schema["items"], level - 1)).collect(),
            Some("integer") => json!(random.below(70_000)),
            Some("number") => json!(random.below(100) as f64 / 8.0),
            Some("boolean") => json!(chance(random, 50)),
            Some("string") => match schema["enum"].as_array().filter(|values| !values.is_empty()) {
                Some(values) => values[random.below(values.len() as u64) as usize].clone(),
                None => text(random, schema["format"].as_str()),
            },
            _ => json!(one_of(random, &WORDS)),
        }
    }

    fn object(&self, random: &Random, schema: &Value, level: usize) -> Value {
        let mut object = Map::new();
        let required = |name: &str| schema["required"].as_array().is_some_and(|names| names.iter().any(|n| n == name));
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            // What the server fills in itself is left out mostly; `apiVersion` and `kind` come by the kind's row.
            let percent =
                if matches!(name.as_str(), "status" | "managedFields" | "apiVersion" | "kind") { 5 } else { 30 };
            if required(name) || (level > 0 && chance(random, percent)) {
                object.insert(name.clone(), self.value(random, property, level.saturating_sub(1)));
            }
        }
        if level > 0 && !schema["additionalProperties"].is_null() {
            for _ in 0..random.below(3) {
                let value = self.value(random, &schema["additionalProperties"], level - 1);
                object.insert(one_of(random, &WORDS).to_owned(), value);
            }
        }
        Value::Object(object)
    }

    /// An object of the kind, mostly with this name.
    fn named(&self, random: &Random, schema: &Value, name: &str) -> Value {
        let kind = self.resolve(schema)["x-kubernetes-group-version-kind"].get(0).cloned().unwrap_or_default();
        let said = |field: &str| kind[field].as_str().unwrap_or_default();
        let api_version = if said("group").is_empty() {
            said("version").to_owned()
        } else {
            format!("{}/{}", said("group"), said("version"))
        };
        let examples = self.examples.get(&(api_version.clone(), said("kind").to_owned()));
        let mut value = match examples {
            Some(examples) if chance(random, 60) => examples[random.below(examples.len() as u64) as usize].clone(),
            _ => self.value(random, schema, LEVELS),
        };
        if let (Some(object), false) = (value.as_object_mut(), kind.is_null()) {
            object.insert("apiVersion".to_owned(), json!(api_version));
            object.insert("kind".to_owned(), kind["kind"].clone());
            match object.get_mut("metadata").and_then(Value::as_object_mut) {
                Some(metadata) if examples.is_some() => drop(metadata.insert("name".to_owned(), json!(name))),
                _ if chance(random, 90) => {
                    object.insert("metadata".to_owned(), json!({ "name": name, "labels": { "a": "b" } }));
                }
                _ => {}
            }
        }
        value
    }
}

fn text(random: &Random, format: Option<&str>) -> Value {
    match format {
        Some("byte") => json!("YWJj"),
        Some("date-time") => json!(WORDS[9]),
        _ => json!(one_of(random, &WORDS)),
    }
}

/// A body for an operation whose body has this schema.
pub fn body(
    random: &Random,
    schemas: &Schemas,
    schema: &Value,
    name: &str,
    content_type: &str,
    spoiled: bool,
) -> Bytes {
    if spoiled && chance(random, 30) {
        return noise(random);
    }
    let mut value = schemas.named(random, schema, name);
    if spoiled {
        for _ in 0..=random.below(3) {
            spoil(random, &mut value);
        }
    }
    let patches = ["add", "replace", "remove", "test", "move", "copy"];
    let path = one_of(random, &["/metadata/labels/a", "/spec/replicas", "/", "", "/data/-", "/spec/containers/0"]);
    match content_type {
        "application/json-patch+json" => {
            let from = one_of(random, &["/metadata", "/spec", "/nothing"]);
            json!([{ "op": one_of(random, &patches), "path": path, "from": from, "value": value["spec"] }])
                .to_string()
                .into()
        }
        "application/vnd.kubernetes.protobuf" => match minik8s_api::protobuf::encode_object(&value) {
            Ok(encoded) if spoiled => cut(random, encoded),
            Ok(encoded) => encoded.into(),
            Err(_) => noise(random),
        },
        "application/yaml" => serde_yaml::to_string(&value).expect("YAML").into(),
        _ => value.to_string().into(),
    }
}

/// Puts what does not belong there somewhere in the value.
fn spoil(random: &Random, value: &mut Value) {
    if let Value::Array(items) = value
        && chance(random, 5)
    {
        return lengthen(random, items);
    }
    let inner: Vec<&mut Value> = match value {
        Value::Object(fields) => fields.iter_mut().map(|(_, inner)| inner).collect(),
        Value::Array(items) => items.iter_mut().collect(),
        _ => Vec::new(),
    };
    let count = inner.len() as u64;
    if count > 0 && chance(random, 80) {
        let chosen = inner.into_iter().nth(random.below(count) as usize).expect("one of them");
        return spoil(random, chosen);
    }
    *value = match random.below(12) {
        0 => Value::Null,
        1 => json!(-1),
        2 => json!(i64::MAX),
        3 => json!(1e300),
        4 => json!(u64::MAX),
        5 => json!(""),
        6 => json!("\u{0}\u{feff}\u{202e}💩"),
        7 => json!([[], {}, null]),
        8 => json!({ "": { "": null } }),
        9 => json!("x".repeat(70_000)),
        10 => json!({ "key": "a", "$patch": "delete", "$setElementOrder/a": 3, "$retainKeys": {} }),
        _ => json!(false),
    };
}

/// Repeats the first element, equal or numbered.
fn lengthen(random: &Random, items: &mut Vec<Value>) {
    let first = items.first().cloned().unwrap_or_else(|| json!({ "name": "a" }));
    let numbered = chance(random, 70);
    for number in 0..LONG {
        let mut next = first.clone();
        let strings: Vec<&mut Value> = match &mut next {
            Value::Object(fields) => fields.values_mut().filter(|value| value.is_string()).collect(),
            other => vec![other],
        };
        for text in strings.into_iter().filter(|_| numbered) {
            *text = json!(format!("{}{number}", text.as_str().unwrap_or_default()));
        }
        items.push(next);
    }
}

fn cut(random: &Random, mut bytes: Vec<u8>) -> Bytes {
    let at = random.below(bytes.len() as u64) as usize;
    if chance(random, 50) {
        bytes.truncate(at);
    } else {
        bytes[at] ^= 1 << random.below(8);
    }
    bytes.into()
}

/// A body that is no object at all.
pub fn noise(random: &Random) -> Bytes {
    match random.below(12) {
        0 => Bytes::new(),
        1 => "{".repeat(DEEP).into(),
        2 => format!("{}1{}", "[".repeat(DEEP), "]".repeat(DEEP)).into(),
        3 => format!("{}1{}", "{\"a\":".repeat(DEEP), "}".repeat(DEEP)).into(),
        // Too long is rare: it costs as much as a thousand others.
        4 if chance(random, 5) => format!("{{\"a\":\"{}\"}}", "x".repeat(HUGE)).into(),
        4 => "[{\"op\":\"add\",\"path\":\"/a\"}".into(),
        5 => b"{\"metadata\":{\"name\":\"\xff\xfe\"}}".as_slice().into(),
        6 => b"k8s\0\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01".as_slice().into(),
        7 => "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\nmetadata: *a\n".into(),
        8 => "{\"metadata\":{\"name\":\"a\",\"name\":\"b\"},\"kind\":1e400}".into(),
        9 => "\u{feff}null".into(),
        10 => "- a\n-b: {\n".into(),
        _ => {
            let mut bytes = vec![0; random.below(200) as usize];
            random.bytes(&mut bytes);
            bytes.into()
        }
    }
}
