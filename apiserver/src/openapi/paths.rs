//! What can be asked of each kind: paths, methods, parameters, answers.

use std::sync::Arc;

use minik8s_api::kinds::{Kind, Subresource};
use serde_json::{Map, Value, json};

use super::definitions::{Definitions, Dialect};

/// One operation of a path.
struct Operation<'a> {
    method: &'static str,
    action: &'static str,
    kind: [&'a str; 3],
    id: String,
    parameters: &'static [(&'static str, &'static str)],
    body: Option<Value>,
    answer: Value,
    code: &'static str,
}

const LIST: &[(&str, &str)] = &[
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
const WRITE: &[(&str, &str)] = &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
const PATCH: &[(&str, &str)] =
    &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("force", "boolean")];
const DELETE: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];

/// The paths of some kinds.
pub fn of(rows: &[Arc<Kind>], definitions: &mut Definitions) -> Value {
    let mut paths = Map::new();
    for kind in rows {
        let prefix = if kind.group.is_empty() {
            format!("/api/{}", kind.version)
        } else {
            format!("/apis/{}/{}", kind.group, kind.version)
        };
        let collection = match kind.namespaced {
            true => format!("{prefix}/namespaces/{{namespace}}/{}", kind.plural),
            false => format!("{prefix}/{}", kind.plural),
        };
        let own = Writer { kind };
        if kind.namespaced && kind.allows("list") {
            let everywhere = own.list(definitions, "ForAllNamespaces");
            add_to(&mut paths, format!("{prefix}/{}", kind.plural), vec![everywhere], definitions, kind);
        }
        let in_collection = own.collection(definitions);
        add_to(&mut paths, collection.clone(), in_collection, definitions, kind);
        let of_object = own.object(definitions);
        add_to(&mut paths, format!("{collection}/{{name}}"), of_object, definitions, kind);
        for part in &kind.subresources {
            let of_part = own.part(definitions, part);
            add_to(&mut paths, format!("{collection}/{{name}}/{}", part.name), of_part, definitions, kind);
        }
    }
    Value::Object(paths)
}

fn add_to(
    paths: &mut Map<String, Value>,
    path: String,
    operations: Vec<Operation<'_>>,
    definitions: &Definitions,
    kind: &Kind,
) {
    if operations.is_empty() {
        return;
    }
    let mut item = Map::new();
    for operation in operations {
        item.insert(operation.method.to_owned(), operation.write(definitions.dialect(), kind));
    }
    let in_path = ["namespace", "name"].into_iter().filter(|name| path.contains(&format!("{{{name}}}")));
    let mut parameters: Vec<Value> =
        in_path.map(|name| parameter(definitions.dialect(), name, "string", "path")).collect();
    parameters.push(parameter(definitions.dialect(), "pretty", "string", "query"));
    item.insert("parameters".to_owned(), Value::Array(parameters));
    paths.insert(path, Value::Object(item));
}

fn parameter(dialect: Dialect, name: &str, ty: &str, place: &str) -> Value {
    let mut parameter = json!({ "name": name, "in": place });
    if place == "path" {
        parameter["required"] = json!(true);
    }
    match dialect {
        Dialect::V2 => {
            parameter["type"] = json!(ty);
            parameter["uniqueItems"] = json!(true);
        }
        Dialect::V3 => parameter["schema"] = json!({ "type": ty, "uniqueItems": true }),
    }
    parameter
}

/// The media types of patches; the last one is not for custom resources.
const PATCHES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

impl Operation<'_> {
    fn write(self, dialect: Dialect, kind: &Kind) -> Value {
        let [group, version, name] = self.kind;
        let mut parameters: Vec<Value> =
            self.parameters.iter().map(|(name, ty)| parameter(dialect, name, ty, "query")).collect();
        let mut operation = json!({
            "operationId": self.id,
            "tags": [tag(kind)],
            "x-kubernetes-action": self.action,
            "x-kubernetes-group-version-kind": { "group": group, "kind": name, "version": version },
        });
        let response = match dialect {
            Dialect::V2 => json!({ "description": "OK", "schema": self.answer }),
            Dialect::V3 => {
                json!({ "description": "OK", "content": { "application/json": { "schema": self.answer } } })
            }
        };
        operation["responses"] = json!({ self.code: response, "401": { "description": "Unauthorized" } });
        if let Some(body) = self.body {
            match dialect {
                Dialect::V2 => parameters
                    .push(json!({ "name": "body", "in": "body", "required": self.method != "delete", "schema": body })),
                Dialect::V3 => {
                    // By these kubectl decides how it patches: custom resources know no strategic merge.
                    let types: &[&str] = match self.action {
                        "patch" if kind.custom => &PATCHES[..3],
                        "patch" => &PATCHES,
                        _ => &["*/*"],
                    };
                    let content: Map<String, Value> =
                        types.iter().map(|ty| ((*ty).to_owned(), json!({ "schema": body }))).collect();
                    operation["requestBody"] = json!({ "content": content });
                }
            }
        }
        if !parameters.is_empty() {
            operation["parameters"] = Value::Array(parameters);
        }
        operation
    }
}

/// `core_v1`, `apps_v1`.
fn tag(kind: &Kind) -> String {
    let group = if kind.group.is_empty() { "core" } else { kind.group.split('.').next().unwrap_or_default() };
    format!("{group}_{}", kind.version)
}

/// Writes the operations of one kind.
struct Writer<'a> {
    kind: &'a Kind,
}

impl<'a> Writer<'a> {
    /// `readAppsV1NamespacedDeploymentScale`.
    fn id(&self, verb: &str, part: &str) -> String {
        let kind = self.kind;
        let group = if kind.group.is_empty() { "core" } else { kind.group.split('.').next().unwrap_or_default() };
        let scope = if kind.namespaced { "Namespaced" } else { "" };
        format!("{verb}{}{}{scope}{}{}", capital(group), capital(&kind.version), kind.kind, capital(part))
    }

    fn operation(&self, method: &'static str, action: &'static str, id: String, answer: Value) -> Operation<'a> {
        let kind = self.kind;
        Operation {
            method,
            action,
            kind: [&kind.group, &kind.version, &kind.kind],
            id,
            parameters: &[],
            body: None,
            answer,
            code: if method == "post" { "201" } else { "200" },
        }
    }

    fn list(&self, definitions: &mut Definitions, suffix: &str) -> Operation<'a> {
        let id = match suffix {
            "" => self.id("list", ""),
            suffix => format!("{}{suffix}", self.id("list", "").replacen("Namespaced", "", 1)),
        };
        Operation { parameters: LIST, ..self.operation("get", "list", id, definitions.list(self.kind)) }
    }

    fn collection(&self, definitions: &mut Definitions) -> Vec<Operation<'a>> {
        let mut operations = Vec::new();
        if self.kind.allows("list") {
            operations.push(self.list(definitions, ""));
        }
        if self.kind.allows("create") {
            let object = definitions.object(self.kind);
            let post = self.operation("post", "post", self.id("create", ""), object.clone());
            operations.push(Operation { parameters: WRITE, body: Some(object), ..post });
        }
        if self.kind.allows("deletecollection") {
            let delete =
                self.operation("delete", "deletecollection", self.id("deleteCollection", ""), definitions.status());
            operations.push(Operation { parameters: LIST, body: Some(definitions.delete_options()), ..delete });
        }
        operations
    }

    fn object(&self, definitions: &mut Definitions) -> Vec<Operation<'a>> {
        let object = definitions.object(self.kind);
        let mut operations = Vec::new();
        if self.kind.allows("get") {
            operations.push(self.operation("get", "get", self.id("read", ""), object.clone()));
        }
        if self.kind.allows("update") {
            let put = self.operation("put", "put", self.id("replace", ""), object.clone());
            operations.push(Operation { parameters: WRITE, body: Some(object.clone()), ..put });
        }
        if self.kind.allows("patch") {
            let patch = self.operation("patch", "patch", self.id("patch", ""), object);
            operations.push(Operation { parameters: PATCH, body: Some(definitions.patch()), ..patch });
        }
        if self.kind.allows("delete") {
            let delete = self.operation("delete", "delete", self.id("delete", ""), definitions.status());
            operations.push(Operation { parameters: DELETE, body: Some(definitions.delete_options()), ..delete });
        }
        operations
    }

    fn part(&self, definitions: &mut Definitions, part: &'a Subresource) -> Vec<Operation<'a>> {
        let gvk = &part.kind;
        // Options of connections are query parameters, not bodies.
        let body = if gvk.kind.ends_with("Options") {
            None
        } else if *gvk == self.kind.gvk() {
            Some(definitions.object(self.kind))
        } else {
            definitions.kind(&gvk.group, &gvk.version, &gvk.kind)
        };
        let answer = body.clone().unwrap_or_else(|| json!({ "type": "string" }));
        let kind = [gvk.group.as_str(), gvk.version.as_str(), gvk.kind.as_str()];
        let mut operations = Vec::new();
        for verb in &part.verbs {
            let connect = body.is_none();
            let (method, action, name) = match verb.as_str() {
                "get" => ("get", "get", if connect { "connectGet" } else { "read" }),
                "create" => ("post", "post", if connect { "connectPost" } else { "create" }),
                "update" => ("put", "put", if connect { "connectPut" } else { "replace" }),
                "patch" => ("patch", "patch", if connect { "connectPatch" } else { "patch" }),
                "delete" => ("delete", "delete", if connect { "connectDelete" } else { "delete" }),
                _ => continue,
            };
            let mut operation =
                Operation { kind, ..self.operation(method, action, self.id(name, &part.name), answer.clone()) };
            if connect {
                operation.action = "connect";
            } else if method == "patch" {
                operation.parameters = PATCH;
                operation.body = Some(definitions.patch());
            } else if method != "get" {
                operation.parameters = WRITE;
                operation.body.clone_from(&body);
            }
            operations.push(operation);
        }
        operations
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
