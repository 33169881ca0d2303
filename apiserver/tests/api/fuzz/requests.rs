//! What is asked: operations of the served OpenAPI v3 documents, with values for their parameters.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use minik8s_clock::Random;
use serde_json::Value;

use super::bodies::{self, Schemas};
use crate::server::TestServer;

/// Names that some requests share, so that what one makes another finds.
pub const NAMES: [&str; 3] = ["a", "b", "default"];
/// Names that are none.
const BAD_NAMES: [&str; 9] = ["%00", "..", "%2e%2e", "%F0%9F%92%A9", "%ff%fe", "A_B", "-", "%20", "a%2fb"];
const BAD_VALUES: [&str; 12] = [
    "",
    "-1",
    "true",
    "null",
    "99999999999999999999",
    "%ff",
    "%00",
    "a=b,c!=",
    "x%20in%20(",
    "{}",
    "%F0%9F%92%A9",
    "1e9",
];
const ACCEPTS: [&str; 9] = [
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json;as=Table;g=meta.k8s.io;v=v1",
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
    "application/json;as=Nonsense;g=meta.k8s.io;v=v9",
    "text/html",
    "application/cbor",
    "*/*",
];
const CONTENT_TYPES: [&str; 9] = [
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/cbor",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/json-patch+json",
    "application/apply-patch+yaml",
    "text/plain; charset=\"",
];

/// One request.
pub struct Request {
    pub method: String,
    pub uri: String,
    headers: Vec<(&'static str, String)>,
    pub body: Bytes,
}

impl Request {
    pub fn headers(&self) -> Vec<(&str, &str)> {
        self.headers.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }

    /// Whether its answer ends only when the asker goes.
    pub fn is_stream(&self) -> bool {
        ["watch=true", "/watch/", "follow=true"].iter().any(|sign| self.uri.contains(sign))
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.body[..self.body.len().min(2000)];
        write!(f, "{} {}\n{:?}\n{}", self.method, self.uri, self.headers, String::from_utf8_lossy(shown))
    }
}

struct Operation {
    method: String,
    path: String,
    query: Vec<(String, Value)>,
    body: Option<Value>,
    schemas: Arc<Schemas>,
}

/// All operations that the server says it has.
pub struct Operations(Vec<Operation>);

pub fn one_of<'a, T: ?Sized>(random: &Random, of: &[&'a T]) -> &'a T {
    of[random.below(of.len() as u64) as usize]
}

pub fn chance(random: &Random, percent: u64) -> bool {
    random.below(100) < percent
}

impl Operations {
    pub async fn read(server: &TestServer) -> Operations {
        let index = server.get("/openapi/v3").await.expect(200);
        let examples = Arc::new(bodies::examples());
        let mut operations = Vec::new();
        for entry in index["paths"].as_object().expect("paths").values() {
            let url = entry["serverRelativeURL"].as_str().expect("an address");
            let document = server.get(url).await.expect(200);
            let schemas = Arc::new(Schemas::of(&document, Arc::clone(&examples)));
            for (path, item) in document["paths"].as_object().expect("paths") {
                operations.extend(of_path(path, item, &schemas));
            }
        }
        assert!(operations.len() > 500, "{} operations", operations.len());
        Operations(operations)
    }

    pub fn request(&self, random: &Random) -> Request {
        let drawn = || &self.0[random.below(self.0.len() as u64) as usize];
        // Creating is a tenth of the operations, and what the others are about.
        let operation =
            [drawn(), drawn(), drawn()].into_iter().find(|drawn| drawn.method == "post").unwrap_or_else(drawn);
        let spoiled = chance(random, 50);
        let name = one_of(random, &NAMES);
        let mut uri = path(random, &operation.path, name, spoiled);
        let query = query(random, operation, spoiled);
        if !query.is_empty() {
            uri = format!("{uri}?{query}");
        }
        let mut method = operation.method.to_uppercase();
        if spoiled && chance(random, 10) {
            method = one_of(random, &["GET", "PUT", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "BREW"])
                .to_owned();
        }
        let content_type = match method.as_str() {
            _ if spoiled && chance(random, 20) => one_of(random, &CONTENT_TYPES),
            "PATCH" => one_of(random, &CONTENT_TYPES[4..8]),
            _ => one_of(random, &CONTENT_TYPES[..2]),
        };
        let body = match &operation.body {
            // Deletion rarely comes with options.
            Some(_) if method == "DELETE" && chance(random, 70) => Bytes::new(),
            Some(schema) => bodies::body(random, &operation.schemas, schema, name, content_type, spoiled),
            None if spoiled && chance(random, 50) => bodies::noise(random),
            None => Bytes::new(),
        };
        let mut headers = vec![("content-type", content_type.to_owned())];
        if chance(random, 40) {
            headers.push(("accept", one_of(random, &ACCEPTS[..if spoiled { ACCEPTS.len() } else { 5 }]).to_owned()));
        }
        if spoiled && chance(random, 5) {
            headers.push(("impersonate-user", one_of(random, &BAD_VALUES[1..6]).to_owned()));
        }
        Request { method, uri, headers, body }
    }
}

fn of_path(path: &str, item: &Value, schemas: &Arc<Schemas>) -> Vec<Operation> {
    let parameters = |of: &Value| of["parameters"].as_array().cloned().unwrap_or_default();
    let shared = parameters(item);
    let mut operations = Vec::new();
    for (method, operation) in item.as_object().expect("an item").iter().filter(|(key, _)| *key != "parameters") {
        let own = parameters(operation);
        let query: BTreeMap<String, Value> = shared
            .iter()
            .chain(&own)
            .filter(|parameter| parameter["in"] == "query")
            .map(|parameter| (parameter["name"].as_str().expect("a name").to_owned(), parameter["schema"].clone()))
            .collect();
        let content = operation["requestBody"]["content"].as_object();
        operations.push(Operation {
            method: method.clone(),
            path: path.to_owned(),
            query: query.into_iter().collect(),
            body: content.and_then(|content| content.values().next()).map(|body| body["schema"].clone()),
            schemas: Arc::clone(schemas),
        });
    }
    operations
}

/// The path with a name for each of its parts in braces.
fn path(random: &Random, template: &str, name: &str, spoiled: bool) -> String {
    let mut path = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (parameter, after) = after.split_once('}').expect("a closing brace");
        path.push_str(before);
        let part = match parameter {
            _ if spoiled && chance(random, 10) => one_of(random, &BAD_NAMES).to_owned(),
            _ if spoiled && chance(random, 2) => "n".repeat(3000),
            "namespace" => one_of(random, &["default", "default", "default", "kube-system", "nowhere"]).to_owned(),
            _ => name.to_owned(),
        };
        path.push_str(&part);
        rest = after;
    }
    path.push_str(rest);
    if spoiled && chance(random, 3) {
        path.push_str(one_of(random, &["/", "//", "/status", "/nothing", "/%00"]));
    }
    path
}

fn query(random: &Random, operation: &Operation, spoiled: bool) -> String {
    let mut pairs = Vec::new();
    for (name, schema) in &operation.query {
        // What is refused unless others come with it, or where it fits the body.
        let demanding = ["resourceVersion", "resourceVersionMatch", "sendInitialEvents", "continue", "force"];
        if !chance(random, if demanding.contains(&name.as_str()) && !spoiled { 2 } else { 15 }) {
            continue;
        }
        let value = match schema["type"].as_str() {
            _ if spoiled && chance(random, 50) => one_of(random, &BAD_VALUES).to_owned(),
            // A watch whose answer has to be read to its end is a test of patience.
            Some("boolean") if name == "watch" => "false".to_owned(),
            Some("boolean") => one_of(random, &["true", "false"]).to_owned(),
            Some("integer") => random.below(20).to_string(),
            _ => plausible(random, name),
        };
        pairs.push(format!("{name}={value}"));
    }
    if spoiled && chance(random, 10) {
        pairs.push(format!(
            "{}={}",
            one_of(random, &["watch", "limit", "nothing", "%ff"]),
            one_of(random, &BAD_VALUES)
        ));
    }
    pairs.join("&")
}

fn plausible(random: &Random, name: &str) -> String {
    let values: &[&str] = match name {
        "dryRun" => &["All"],
        "fieldValidation" => &["Ignore", "Warn", "Strict"],
        "propagationPolicy" => &["Orphan", "Background", "Foreground"],
        "resourceVersionMatch" => &["Exact", "NotOlderThan"],
        "resourceVersion" => &["0", "1", "5", "99999"],
        "fieldSelector" => &["metadata.name=a", "metadata.namespace!=default"],
        "labelSelector" => &["a=b", "a", "!a", "a%20in%20(b,c)"],
        "fieldManager" => &["fuzz", "kubectl"],
        "continue" => &["", "abc"],
        _ => &["a", "b"],
    };
    one_of(random, values).to_owned()
}
