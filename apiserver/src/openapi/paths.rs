//! What can be asked of each kind: paths, methods, parameters, answers.
//!
//! `k8s.io/apiserver/pkg/endpoints/installer.go`, `pkg/endpoints/openapi/openapi.go` (names of operations),
//! `apiextensions-apiserver/pkg/controller/openapi/builder/builder.go` (custom resources).

use std::sync::Arc;

use minik8s_api::kinds::{Kind, Subresource};
use serde_json::{Map, Value, json};

use super::definitions::{Definitions, Dialect};
use crate::options::{CONNECT_OPTIONS, Parameter};
use crate::registry::returns_deleted;

/// One operation of a path.
struct Operation<'a> {
    method: &'static str,
    action: &'static str,
    kind: [&'a str; 3],
    id: String,
    description: String,
    parameters: Vec<Parameter>,
    body: Option<Value>,
    answer: Value,
    codes: &'static [Code],
    media: Media,
}

/// A status, and what it says.
type Code = (&'static str, &'static str);

const OK: Code = ("200", "OK");
const CREATED: Code = ("201", "Created");
const ACCEPTED: Code = ("202", "Accepted");

/// In what an operation answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Media {
    Object,
    /// Or as a stream of events.
    Watchable,
    /// The lines of a log.
    Text,
    /// Whatever the other end says.
    Any,
}

impl Media {
    fn types(self, custom: bool) -> &'static [&'static str] {
        match (self, custom) {
            (Media::Any, _) => &["*/*"],
            (_, true) => &["application/json", "application/yaml"],
            (Media::Object, false) => &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"],
            (Media::Watchable, false) => &[
                "application/json",
                "application/yaml",
                "application/vnd.kubernetes.protobuf",
                "application/json;stream=watch",
                "application/vnd.kubernetes.protobuf;stream=watch",
            ],
            (Media::Text, false) => {
                &["text/plain", "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"]
            }
        }
    }
}

/// Whether the answer is worth printing for people, on whatever answers with objects.
const PRETTY: Parameter = ("pretty", "string");
const LIST: &[Parameter] = &[
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    PRETTY,
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
const WRITE: &[Parameter] = &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), PRETTY];
const PATCH: &[Parameter] =
    &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("force", "boolean"), PRETTY];
const DELETE: &[Parameter] = &[
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean"),
    ("orphanDependents", "boolean"),
    PRETTY,
    ("propagationPolicy", "string"),
];

const LOG: &[Parameter] = &[
    ("container", "string"),
    ("follow", "boolean"),
    ("insecureSkipTLSVerifyBackend", "boolean"),
    ("limitBytes", "integer"),
    PRETTY,
    ("previous", "boolean"),
    ("sinceSeconds", "integer"),
    ("stream", "string"),
    ("tailLines", "integer"),
    ("timestamps", "boolean"),
];

/// The paths of some kinds.
pub fn of(rows: &[Arc<Kind>], definitions: &mut Definitions) -> Value {
    let mut paths = Paths { paths: Map::new(), dialect: definitions.dialect() };
    for kind in rows {
        let prefix = prefix(&kind.group, &kind.version);
        let (collection, watched) = match kind.namespaced {
            true => {
                let end = format!("namespaces/{{namespace}}/{}", kind.plural);
                (format!("{prefix}/{end}"), format!("{prefix}/watch/{end}"))
            }
            false => (format!("{prefix}/{}", kind.plural), format!("{prefix}/watch/{}", kind.plural)),
        };
        let own = Writer { kind };
        if kind.namespaced && kind.allows("list") {
            paths.add(format!("{prefix}/{}", kind.plural), vec![own.list(definitions, true)], kind);
        }
        paths.add(collection.clone(), own.collection(definitions), kind);
        paths.add(format!("{collection}/{{name}}"), own.object(definitions), kind);
        for part in &kind.subresources {
            let path = format!("{collection}/{{name}}/{}", part.name);
            if part.name == "proxy" {
                paths.add(format!("{path}/{{path}}"), own.part(definitions, part, "WithPath"), kind);
            }
            paths.add(path, own.part(definitions, part, ""), kind);
        }
        // The old way to watch; custom resources came after it.
        if kind.allows("watch") && !kind.custom {
            if kind.namespaced {
                paths.add(
                    format!("{prefix}/watch/{}", kind.plural),
                    vec![own.watch(definitions, "ListForAllNamespaces")],
                    kind,
                );
            }
            paths.add(watched.clone(), vec![own.watch(definitions, "List")], kind);
            paths.add(format!("{watched}/{{name}}"), vec![own.watch(definitions, "")], kind);
        }
    }
    let mut places: Vec<(&str, &str)> = rows.iter().map(|kind| (&*kind.group, &*kind.version)).collect();
    places.sort_unstable();
    places.dedup();
    // Custom resources are described kind by kind, and nobody describes what their groups have in common.
    for (group, version) in places {
        if rows.iter().any(|kind| !kind.custom && kind.group == group && kind.version == version) {
            let answer = definitions.meta("APIResourceList");
            let id = format!("get{}{}APIResources", capital(&group_id(group)), capital(version));
            let tag = format!("{}_{version}", group_id(group));
            paths.add_information(format!("{}/", prefix(group, version)), &tag, id, "get available resources", answer);
        }
    }
    Value::Object(paths.paths)
}

/// What is served of a group besides its versions, as `apis/apps`; of all groups, `apis`; of the versions of the first, `api`.
pub fn information(place: &str, definitions: &mut Definitions) -> Value {
    let mut paths = Paths { paths: Map::new(), dialect: definitions.dialect() };
    paths.add_place(place, definitions);
    Value::Object(paths.paths)
}

/// The same of all of `places`, beside the paths of their kinds.
pub fn add_information(paths: &mut Value, places: &[String], definitions: &mut Definitions) {
    let mut more = Paths { paths: Map::new(), dialect: definitions.dialect() };
    places.iter().for_each(|place| more.add_place(place, definitions));
    if let Some(paths) = paths.as_object_mut() {
        paths.extend(more.paths);
    }
}

fn prefix(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

/// Paths that are being written.
struct Paths {
    paths: Map<String, Value>,
    dialect: Dialect,
}

impl Paths {
    /// What all operations of a path have in common is said once.
    fn add(&mut self, path: String, operations: Vec<Operation<'_>>, kind: &Kind) {
        let Some(first) = operations.first() else { return };
        let everywhere = |wanted: &Parameter| operations.iter().all(|one| one.parameters.contains(wanted));
        let shared: Vec<Parameter> = first.parameters.iter().filter(|one| everywhere(one)).copied().collect();
        let in_path = ["name", "namespace", "path"].into_iter().filter(|name| path.contains(&format!("{{{name}}}")));
        let mut parameters: Vec<Value> = in_path.map(|name| parameter(self.dialect, name, "string", "path")).collect();
        parameters.extend(shared.iter().map(|(name, ty)| parameter(self.dialect, name, ty, "query")));
        parameters.sort_by(|one, other| one["name"].as_str().cmp(&other["name"].as_str()));
        let mut item = Map::new();
        for mut operation in operations {
            operation.parameters.retain(|one| !shared.contains(one));
            item.insert(operation.method.to_owned(), operation.write(self.dialect, kind));
        }
        if !parameters.is_empty() {
            item.insert("parameters".to_owned(), Value::Array(parameters));
        }
        self.paths.insert(path, Value::Object(item));
    }

    fn add_place(&mut self, place: &str, definitions: &mut Definitions) {
        let group = place.strip_prefix("apis/").unwrap_or_default();
        let (tag, id, says, answer) = match place {
            "api" => ("core".to_owned(), "getCoreAPIVersions".to_owned(), "get available API versions", "APIVersions"),
            "apis" => ("apis".to_owned(), "getAPIVersions".to_owned(), "get available API versions", "APIGroupList"),
            _ => {
                let id = group_id(group);
                (id.clone(), format!("get{}APIGroup", capital(&id)), "get information of a group", "APIGroup")
            }
        };
        let answer = definitions.meta(answer);
        self.add_information(format!("/{place}/"), &tag, id, says, answer);
    }

    fn add_information(&mut self, path: String, tag: &str, id: String, says: &str, answer: Value) {
        let types = Media::Object.types(false);
        let mut operation = json!({
            "tags": [tag],
            "description": says,
            "operationId": id,
            "responses": { "200": response(self.dialect, "OK", &answer, types), "401": { "description": "Unauthorized" } },
        });
        if self.dialect == Dialect::V2 {
            operation["consumes"] = json!(types);
            operation["produces"] = json!(types);
            operation["schemes"] = json!(["https"]);
        }
        self.paths.insert(path, json!({ "get": operation }));
    }
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

fn response(dialect: Dialect, says: &str, answer: &Value, types: &[&str]) -> Value {
    match dialect {
        Dialect::V2 => json!({ "description": says, "schema": answer }),
        Dialect::V3 => json!({ "description": says, "content": content(answer, types) }),
    }
}

fn content(schema: &Value, types: &[&str]) -> Map<String, Value> {
    types.iter().map(|ty| ((*ty).to_owned(), json!({ "schema": schema }))).collect()
}

/// The media types of patches; the last one is not for custom resources.
const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
    "application/strategic-merge-patch+json",
];

impl Operation<'_> {
    fn write(self, dialect: Dialect, kind: &Kind) -> Value {
        let [group, version, name] = self.kind;
        let answers = self.media.types(kind.custom);
        // By these kubectl decides how it patches: custom resources know no strategic merge.
        let bodies: &[&str] = match self.action {
            "patch" if kind.custom => &PATCHES[..3],
            "patch" => &PATCHES,
            _ if kind.custom => Media::Object.types(true),
            _ => &["*/*"],
        };
        let responses =
            self.codes.iter().map(|(code, says)| ((*code).to_owned(), response(dialect, says, &self.answer, answers)));
        let mut responses: Map<String, Value> = responses.collect();
        responses.insert("401".to_owned(), json!({ "description": "Unauthorized" }));
        let mut operation = json!({
            "tags": [format!("{}_{}", group_id(&kind.group), kind.version)],
            "description": self.description,
            "operationId": self.id,
            "responses": responses,
            "x-kubernetes-action": self.action,
            "x-kubernetes-group-version-kind": { "group": group, "kind": name, "version": version },
        });
        let mut parameters: Vec<Value> =
            self.parameters.iter().map(|(name, ty)| parameter(dialect, name, ty, "query")).collect();
        let required = self.method != "delete";
        match (dialect, self.body) {
            (Dialect::V2, body) => {
                operation["consumes"] = json!(bodies);
                operation["produces"] = json!(answers);
                operation["schemes"] = json!(["https"]);
                if let Some(body) = body {
                    let mut parameter = json!({ "name": "body", "in": "body", "schema": body });
                    if required {
                        parameter["required"] = json!(true);
                    }
                    parameters.insert(0, parameter);
                }
            }
            (Dialect::V3, Some(body)) => {
                let mut request = json!({ "content": content(&body, bodies) });
                if required {
                    request["required"] = json!(true);
                }
                operation["requestBody"] = request;
            }
            (Dialect::V3, None) => {}
        }
        if !parameters.is_empty() {
            operation["parameters"] = Value::Array(parameters);
        }
        operation
    }
}

/// The name of a group in names of operations: `core`, `apps`, `rbacAuthorization`, `widgetsExampleCom`.
fn group_id(group: &str) -> String {
    if group.is_empty() {
        return "core".to_owned();
    }
    let group = group.strip_suffix(".k8s.io").unwrap_or(group);
    let mut words = group.split(|c: char| !c.is_ascii_alphanumeric());
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| name + &capital(word))
}

/// Writes the operations of one kind.
struct Writer<'a> {
    kind: &'a Kind,
}

impl<'a> Writer<'a> {
    /// `readAppsV1NamespacedDeployment`, with what the verb says between the version and the name.
    fn id(&self, verb: &str, before: &str, after: &str) -> String {
        let kind = self.kind;
        let (group, version) = (capital(&group_id(&kind.group)), capital(&kind.version));
        format!("{verb}{group}{version}{before}{}{after}", kind.kind)
    }

    fn scope(&self) -> &'static str {
        if self.kind.namespaced { "Namespaced" } else { "" }
    }

    fn operation(&self, method: &'static str, action: &'static str, id: String, answer: Value) -> Operation<'a> {
        let kind = self.kind;
        let codes: &[Code] = match method {
            "post" => &[OK, CREATED, ACCEPTED],
            "patch" if kind.custom => &[OK],
            "put" | "patch" => &[OK, CREATED],
            "delete" => &[OK, ACCEPTED],
            _ => &[OK],
        };
        Operation {
            method,
            action,
            kind: [&kind.group, &kind.version, &kind.kind],
            id,
            description: String::new(),
            parameters: vec![PRETTY],
            body: None,
            answer,
            codes,
            media: Media::Object,
        }
    }

    /// Of one object; of custom resources a get may say how new it has to be.
    fn get(&self, id: String, answer: Value, description: String) -> Operation<'a> {
        let mut get = Operation { description, ..self.operation("get", "get", id, answer) };
        if self.kind.custom {
            get.parameters.push(("resourceVersion", "string"));
        }
        get
    }

    fn list(&self, definitions: &mut Definitions, everywhere: bool) -> Operation<'a> {
        let id = match everywhere {
            true => self.id("list", "", "ForAllNamespaces"),
            false => self.id("list", self.scope(), ""),
        };
        let verbs = if self.kind.allows("watch") && !self.kind.custom { "list or watch" } else { "list" };
        Operation {
            parameters: LIST.to_vec(),
            description: format!("{verbs} objects of kind {}", self.kind.kind),
            media: if self.kind.allows("watch") { Media::Watchable } else { Media::Object },
            ..self.operation("get", "list", id, definitions.list(self.kind))
        }
    }

    fn watch(&self, definitions: &mut Definitions, of: &str) -> Operation<'a> {
        let kind = &self.kind.kind;
        let scope = if of == "ListForAllNamespaces" { "" } else { self.scope() };
        let (action, description) = match of {
            "" => ("watch", format!("watch changes to an object of kind {kind}")),
            _ => ("watchlist", format!("watch individual changes to a list of {kind}")),
        };
        let answer = definitions.meta("WatchEvent");
        Operation {
            parameters: LIST.to_vec(),
            description,
            media: Media::Watchable,
            ..self.operation("get", action, self.id("watch", scope, of), answer)
        }
    }

    fn collection(&self, definitions: &mut Definitions) -> Vec<Operation<'a>> {
        let kind = self.kind;
        let mut operations = Vec::new();
        if kind.allows("list") {
            operations.push(self.list(definitions, false));
        }
        if kind.allows("create") {
            let object = definitions.object(kind);
            let post = self.operation("post", "post", self.id("create", self.scope(), ""), object.clone());
            let description = format!("create a {}", kind.kind);
            operations.push(Operation { description, parameters: WRITE.to_vec(), body: Some(object), ..post });
        }
        if kind.allows("deletecollection") {
            let id = self.id("delete", &format!("Collection{}", self.scope()), "");
            let delete = self.operation("delete", "deletecollection", id, definitions.status());
            let mut parameters = LIST.to_vec();
            if !kind.custom {
                parameters.retain(|(name, _)| !["allowWatchBookmarks", "watch"].contains(name));
                parameters.extend(DELETE.iter().filter(|one| **one != PRETTY));
                parameters.sort_unstable();
            }
            operations.push(Operation {
                parameters,
                description: format!("delete collection of {}", kind.kind),
                body: (!kind.custom).then(|| definitions.delete_options()),
                codes: &[OK],
                ..delete
            });
        }
        operations
    }

    fn object(&self, definitions: &mut Definitions) -> Vec<Operation<'a>> {
        let kind = self.kind;
        let object = definitions.object(kind);
        let specified = |what: &str| format!("{what} the specified {}", kind.kind);
        let mut operations = Vec::new();
        if kind.allows("get") {
            operations.push(self.get(self.id("read", self.scope(), ""), object.clone(), specified("read")));
        }
        if kind.allows("update") {
            let put = self.operation("put", "put", self.id("replace", self.scope(), ""), object.clone());
            operations.push(Operation {
                parameters: WRITE.to_vec(),
                description: specified("replace"),
                body: Some(object.clone()),
                ..put
            });
        }
        if kind.allows("patch") {
            let patch = self.operation("patch", "patch", self.id("patch", self.scope(), ""), object.clone());
            operations.push(Operation {
                parameters: PATCH.to_vec(),
                description: specified("partially update"),
                body: Some(definitions.patch()),
                ..patch
            });
        }
        if kind.allows("delete") {
            let answer = if returns_deleted(kind) { object } else { definitions.status() };
            let delete = self.operation("delete", "delete", self.id("delete", self.scope(), ""), answer);
            operations.push(Operation {
                parameters: DELETE.to_vec(),
                description: format!("delete a {}", kind.kind),
                body: Some(definitions.delete_options()),
                ..delete
            });
        }
        operations
    }

    fn part(&self, definitions: &mut Definitions, part: &'a Subresource, suffix: &str) -> Vec<Operation<'a>> {
        let gvk = &part.kind;
        if let Some((_, parameters)) = CONNECT_OPTIONS.iter().find(|(options, _)| *options == gvk.kind) {
            return self.connections(part, parameters, suffix);
        }
        let body = if *gvk == self.kind.gvk() {
            Some(definitions.object(self.kind))
        } else {
            definitions.kind(&gvk.group, &gvk.version, &gvk.kind)
        };
        let text = part.name == "log";
        let answer = body.clone().filter(|_| !text).unwrap_or_else(|| json!({ "type": "string" }));
        let kind: [&str; 3] = match self.kind.custom {
            true => [&self.kind.group, &self.kind.version, &self.kind.kind],
            false => [&gvk.group, &gvk.version, &gvk.kind],
        };
        let (scope, name) = (self.scope(), capital(&part.name));
        let specified = |what: &str| format!("{what} {} of the specified {}", part.name, self.kind.kind);
        let mut operations = Vec::new();
        for verb in &part.verbs {
            let operation = match verb.as_str() {
                "get" => {
                    let mut get = self.get(self.id("read", scope, &name), answer.clone(), specified("read"));
                    if text {
                        (get.media, get.parameters) = (Media::Text, LOG.to_vec());
                    }
                    get
                }
                "create" => Operation {
                    parameters: WRITE.to_vec(),
                    description: format!("create {} of a {}", part.name, self.kind.kind),
                    body: body.clone(),
                    ..self.operation("post", "post", self.id("create", scope, &name), answer.clone())
                },
                "update" => Operation {
                    parameters: WRITE.to_vec(),
                    description: specified("replace"),
                    body: body.clone(),
                    ..self.operation("put", "put", self.id("replace", scope, &name), answer.clone())
                },
                "patch" => Operation {
                    parameters: PATCH.to_vec(),
                    description: specified("partially update"),
                    body: Some(definitions.patch()),
                    ..self.operation("patch", "patch", self.id("patch", scope, &name), answer.clone())
                },
                _ => continue,
            };
            operations.push(Operation { kind, ..operation });
        }
        operations
    }

    /// What is passed on as it comes. A proxy takes every method.
    fn connections(&self, part: &'a Subresource, parameters: &[Parameter], suffix: &str) -> Vec<Operation<'a>> {
        let methods: &[&str] = match part.name.as_str() {
            "proxy" => &["get", "put", "post", "delete", "options", "head", "patch"],
            _ => &["get", "post"],
        };
        let gvk = &part.kind;
        let connection = |method: &'static str| {
            let before = format!("{}{}", capital(method), self.scope());
            let id = self.id("connect", &before, &format!("{}{suffix}", capital(&part.name)));
            Operation {
                method,
                kind: [&gvk.group, &gvk.version, &gvk.kind],
                description: format!(
                    "connect {} requests to {} of {}",
                    method.to_uppercase(),
                    part.name,
                    self.kind.kind
                ),
                parameters: parameters.to_vec(),
                codes: &[OK],
                media: Media::Any,
                ..self.operation(method, "connect", id, json!({ "type": "string" }))
            }
        };
        methods.iter().map(|method| connection(method)).collect()
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
