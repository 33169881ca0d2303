//! From a CustomResourceDefinition to the rows by which its kind is served.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::conversion::WebhookConversion;
use super::schema::Schema;
use super::{defaults, types};
use crate::kinds::{Column, GroupVersionKind, Kind, Storage, Subresource};
use crate::selector::LabelSelector;
use crate::table::JsonPath;

/// Verbs of a custom resource, in the order in which Kubernetes' discovery has them.
const VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
/// Those left while its definition is being deleted.
const TERMINATING_VERBS: [&str; 7] = ["delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const PART_VERBS: [&str; 3] = ["get", "patch", "update"];

/// What a CustomResourceDefinition says of the objects of one version: their strategy, and more than a row can hold.
#[derive(Debug)]
pub struct CustomResource {
    /// Its schema, parsed.
    pub schema: Schema,
    /// Its schema as written, for OpenAPI.
    pub published: Value,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Whether it has a status subresource.
    pub has_status: bool,
    /// Its scale subresource.
    pub scale: Option<ScaleOfCustom>,
    /// Label and place of each selectable field.
    pub selectable: Vec<(String, Place)>,
    /// The webhook by which versions convert; without one they differ by name only. Shared by the versions.
    pub conversion: Option<Arc<WebhookConversion>>,
    /// What every answer about a deprecated version warns of.
    pub deprecation: Option<String>,
    /// The definition is being deleted: nothing new may come.
    pub terminating: bool,
}

impl CustomResource {
    /// Removes what this version does not know from an object that came from another one.
    pub fn prune(&self, object: &mut Value) {
        let Some(whole) = object.as_object_mut() else { return };
        let keeps = |name: &str| matches!(name, "apiVersion" | "kind" | "metadata");
        whole.retain(|name, _| keeps(name) || self.schema.preserve_unknown || self.schema.member(name).is_some());
        for (name, value) in whole.iter_mut().filter(|(name, _)| !keeps(name)) {
            if let Some(inner) = self.schema.member(name) {
                *value = defaults::pruned(inner, value);
            }
        }
    }
}

/// A simple path (`.spec.replicas`): names, one below the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(Vec<String>);

impl Place {
    /// Reads `.spec.replicas`.
    pub fn parse(path: &str) -> Place {
        Place(path.split('.').filter(|name| !name.is_empty()).map(str::to_owned).collect())
    }

    /// The fields that lead there.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// The value there.
    pub fn get<'a>(&self, object: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(object, |value, name| value.get(name))
    }

    /// Puts a value there, with the objects around it.
    pub fn set(&self, object: &mut Value, value: Value) {
        let Some((last, parents)) = self.0.split_last() else { return };
        let mut place = object;
        for name in parents {
            if !place.is_object() {
                *place = Value::Object(Map::new());
            }
            place = &mut place[name];
        }
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        place[last] = value;
    }
}

/// `subresources.scale`.
#[derive(Clone, Debug)]
pub struct ScaleOfCustom {
    /// `specReplicasPath`, parsed and as written.
    pub spec_replicas: Place,
    /// As written.
    pub spec_name: String,
    /// `statusReplicasPath`, parsed and as written.
    pub status_replicas: Place,
    /// As written.
    pub status_name: String,
    /// `labelSelectorPath`.
    pub selector: Option<Place>,
}

impl ScaleOfCustom {
    fn parse(scale: &Value) -> Option<ScaleOfCustom> {
        let (spec, status) = (scale["specReplicasPath"].as_str()?, scale["statusReplicasPath"].as_str()?);
        Some(ScaleOfCustom {
            spec_replicas: Place::parse(spec),
            spec_name: spec.to_owned(),
            status_replicas: Place::parse(status),
            status_name: status.to_owned(),
            selector: scale["labelSelectorPath"].as_str().filter(|path| !path.is_empty()).map(Place::parse),
        })
    }

    /// The `autoscaling/v1` Scale of an object (`scaleFromCustomResource`).
    pub fn scale(&self, object: &Value) -> Value {
        let count = |place: &Place| place.get(object).and_then(Value::as_i64).unwrap_or(0);
        let names = ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"];
        let metadata: Map<String, Value> = names
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), object["metadata"].get(name)?.clone())))
            .collect();
        let mut spec = Map::new();
        if count(&self.spec_replicas) != 0 {
            spec.insert("replicas".to_owned(), count(&self.spec_replicas).into());
        }
        let mut status = json!({ "replicas": count(&self.status_replicas) });
        let selector = self.selector.as_ref().and_then(|place| place.get(object)).and_then(Value::as_str);
        if let Some(text) = selector.filter(|text| LabelSelector::parse(text).is_ok() && !text.is_empty()) {
            status["selector"] = text.into();
        }
        json!({ "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status })
    }
}

/// The rows of a CustomResourceDefinition.
#[derive(Debug)]
pub struct Rows {
    /// One for each served version.
    pub served: Vec<Arc<Kind>>,
    /// The version that objects are stored in, served or not.
    pub storage: Arc<Kind>,
    /// All other versions, served or not: objects may be stored in one of them from earlier on.
    pub others: Vec<Arc<Kind>>,
}

/// Reads the rows of a CustomResourceDefinition, by the names that were accepted. `None` where it has no storage version or
/// no accepted names: one that was never valid.
pub fn rows(definition: &Value) -> Option<Rows> {
    let spec = &definition["spec"];
    let versions = spec["versions"].as_array()?;
    let storage_version = versions.iter().find(|version| version["storage"] == true)?["name"].as_str()?;
    let conversion = WebhookConversion::parse(&spec["conversion"]).map(Arc::new);
    let reader = Reader { definition, names: &definition["status"]["acceptedNames"], storage_version, conversion };
    if reader.text("plural").is_empty() || reader.text("kind").is_empty() {
        return None;
    }
    let (mut served, mut storage, mut others) = (Vec::new(), None, Vec::new());
    for version in versions {
        let kind = Arc::new(reader.kind(version));
        if version["storage"] == true {
            storage = Some(Arc::clone(&kind));
        } else {
            others.push(Arc::clone(&kind));
        }
        if version["served"] == true {
            served.push(kind);
        }
    }
    Some(Rows { served, storage: storage?, others })
}

/// `com.example.v1.Pg`: the group's labels from the top down.
pub fn openapi_name(group: &str, version: &str, kind: &str) -> String {
    let mut labels: Vec<&str> = group.split('.').rev().collect();
    labels.extend([version, kind]);
    labels.join(".")
}

struct Reader<'a> {
    definition: &'a Value,
    names: &'a Value,
    storage_version: &'a str,
    conversion: Option<Arc<WebhookConversion>>,
}

impl Reader<'_> {
    fn text(&self, name: &str) -> &str {
        self.names[name].as_str().unwrap_or_default()
    }

    fn list(&self, name: &str) -> Vec<String> {
        self.names[name].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    fn terminating(&self) -> bool {
        let conditions = self.definition["status"]["conditions"].as_array();
        conditions
            .into_iter()
            .flatten()
            .any(|condition| condition["type"] == "Terminating" && condition["status"] == "True")
    }

    fn kind(&self, version: &Value) -> Kind {
        let spec = &self.definition["spec"];
        let owned = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (group, name) = (owned(&spec["group"]), owned(&version["name"]));
        let kind = self.text("kind").to_owned();
        let resource = self.resource(version);
        let verbs: &[&str] = if resource.terminating { &TERMINATING_VERBS } else { &VERBS };
        Kind {
            schema: types::object_type(&openapi_name(&group, &name, &kind), &resource.schema),
            columns: columns(version),
            plural: self.text("plural").to_owned(),
            singular: self.text("singular").to_owned(),
            list_kind: self.text("listKind").to_owned(),
            namespaced: resource.namespaced,
            short_names: self.list("shortNames"),
            categories: self.list("categories"),
            verbs: owned_list(verbs),
            subresources: subresources(&resource, &group, &name, &kind),
            storage: Storage {
                kind: GroupVersionKind::new(&*group, self.storage_version, &*kind),
                plural: self.text("plural").to_owned(),
            },
            custom: true,
            definition: Some(Arc::new(resource)),
            group,
            version: name,
            kind,
        }
    }

    fn resource(&self, version: &Value) -> CustomResource {
        let spec = &self.definition["spec"];
        let published = version["schema"]["openAPIV3Schema"].clone();
        let selectable = version["selectableFields"].as_array().into_iter().flatten();
        CustomResource {
            schema: Schema::parse(&published),
            published,
            namespaced: spec["scope"] == "Namespaced",
            has_status: version["subresources"].get("status").is_some_and(|status| !status.is_null()),
            scale: version["subresources"].get("scale").and_then(ScaleOfCustom::parse),
            selectable: selectable
                .filter_map(|field| field["jsonPath"].as_str())
                .map(|path| (path.trim_start_matches('.').to_owned(), Place::parse(path)))
                .collect(),
            conversion: self.conversion.clone(),
            deprecation: (version["deprecated"] == true).then(|| match version["deprecationWarning"].as_str() {
                Some(words) => words.to_owned(),
                None => {
                    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                    format!("{}/{} {} is deprecated", text(&spec["group"]), text(&version["name"]), self.text("kind"))
                }
            }),
            terminating: self.terminating(),
        }
    }
}

fn owned_list(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn subresources(resource: &CustomResource, group: &str, version: &str, kind: &str) -> Vec<Subresource> {
    let mut parts = Vec::new();
    if resource.has_status {
        parts.push(Subresource {
            name: "status".to_owned(),
            kind: GroupVersionKind::new(group, version, kind),
            verbs: owned_list(&PART_VERBS),
        });
    }
    if resource.scale.is_some() {
        parts.push(Subresource {
            name: "scale".to_owned(),
            kind: GroupVersionKind::new("autoscaling", "v1", "Scale"),
            verbs: owned_list(&PART_VERBS),
        });
    }
    parts
}

/// The name, then what the definition wants shown, or else the age
/// (`apiextensions-apiserver/pkg/registry/customresource/tableconvertor`).
fn columns(version: &Value) -> Vec<Column> {
    let name = Column {
        name: "Name".to_owned(),
        ty: "string".to_owned(),
        format: "name".to_owned(),
        priority: 0,
        description: String::new(),
        json_path: None,
    };
    let own: Vec<Column> =
        version["additionalPrinterColumns"].as_array().into_iter().flatten().filter_map(column).collect();
    let age = own.is_empty().then(|| Column {
        name: "Age".to_owned(),
        ty: "date".to_owned(),
        json_path: Some(".metadata.creationTimestamp".to_owned()),
        format: String::new(),
        priority: 0,
        description: String::new(),
    });
    std::iter::once(name).chain(own).chain(age).collect()
}

fn column(column: &Value) -> Option<Column> {
    let text = |name: &str| column[name].as_str().unwrap_or_default().to_owned();
    JsonPath::parse(column["jsonPath"].as_str()?).ok()?;
    Some(Column {
        name: text("name"),
        ty: text("type"),
        format: text("format"),
        priority: column["priority"].as_u64().and_then(|priority| u32::try_from(priority).ok()).unwrap_or(0),
        description: match text("description") {
            none if none.is_empty() => {
                format!("Custom resource definition column (in JSONPath format): {}", text("jsonPath"))
            }
            description => description,
        },
        json_path: Some(text("jsonPath")),
    })
}
