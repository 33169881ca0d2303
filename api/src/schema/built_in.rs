//! The types of the built-in kinds, read once from the tables in `api/data`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::{Either, Field, List, ListType, Map, PatchStrategy, Scalar, Struct, Type, Wire, WireTarget};

const PROTOBUF: &str = include_str!("../../data/protobuf.tsv");
const MERGE: &str = include_str!("../../data/merge.tsv");
const FACTS: &str = include_str!("../../data/schema-facts.tsv");

/// All built-in types.
pub struct BuiltIn {
    by_definition: BTreeMap<String, Arc<Struct>>,
}

impl BuiltIn {
    /// The type of an OpenAPI definition, as in `io.k8s.api.core.v1.Pod`.
    pub fn definition(&self, name: &str) -> Option<&Arc<Struct>> {
        self.by_definition.get(name)
    }

    /// The type of a protobuf message, as in `k8s.io.api.core.v1.Pod`.
    pub fn message(&self, name: &str) -> Option<&Arc<Struct>> {
        self.definition(&definition_of(name))
    }

    /// The type of a kind by its group and version, as in `("apps", "v1", "Deployment")`. Knows every object of the API,
    /// served or embedded: lists, `Scale`, `DeleteOptions`, `Status` among them.
    pub fn kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Struct>> {
        let meta = format!("io.k8s.apimachinery.pkg.apis.meta.{version}.{kind}");
        let own = match group {
            "apiextensions.k8s.io" => {
                format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.{version}.{kind}")
            }
            "apiregistration.k8s.io" => {
                format!("io.k8s.kube-aggregator.pkg.apis.apiregistration.{version}.{kind}")
            }
            _ => format!("io.k8s.api.{}.{version}.{kind}", package_of_group(group)),
        };
        // The options and Status are registered in every group (metav1.AddToGroupVersion).
        self.definition(&own).or_else(|| self.definition(&meta)).filter(|s| s.field("kind").is_some())
    }

    /// All definitions, in no order.
    pub fn definitions(&self) -> impl Iterator<Item = &Arc<Struct>> {
        self.by_definition.values()
    }
}

/// The folder of `k8s.io/api` that holds a group: the first label of its name.
fn package_of_group(group: &str) -> &str {
    match group {
        "" => "core",
        "flowcontrol.apiserver.k8s.io" => "flowcontrol",
        other => other.split('.').next().unwrap_or(other),
    }
}

/// The OpenAPI definition of a protobuf message.
pub fn definition_of(message: &str) -> String {
    let path = message.strip_prefix("k8s.io.").unwrap_or(message);
    format!("io.k8s.{}", path.replacen('_', "-", usize::from(is_staging(path, '_'))))
}

/// The protobuf message of an OpenAPI definition.
pub fn message_of(definition: &str) -> String {
    let path = definition.strip_prefix("io.k8s.").unwrap_or(definition);
    format!("k8s.io.{}", path.replacen('-', "_", usize::from(is_staging(path, '-'))))
}

/// The two repositories whose names hold a dash, which protobuf package names cannot.
fn is_staging(path: &str, dash: char) -> bool {
    ["apiextensions", "kube"].iter().any(|word| path.strip_prefix(word).is_some_and(|rest| rest.starts_with(dash)))
}

/// The built-in types.
pub fn built_in() -> &'static BuiltIn {
    static TYPES: OnceLock<BuiltIn> = OnceLock::new();
    TYPES.get_or_init(|| Tables::read().build())
}

struct Row {
    number: u32,
    ty: &'static str,
    label: &'static str,
    json: &'static str,
    pointer: bool,
    omit_empty: bool,
}

#[derive(Default)]
struct Merge {
    list_type: &'static str,
    list_map_keys: &'static str,
    patch_strategy: &'static str,
    merge_key: &'static str,
    map_type: &'static str,
}

/// The tables, keyed by definition.
struct Tables {
    messages: Vec<(&'static str, Vec<Row>)>,
    merge: BTreeMap<(&'static str, &'static str), Merge>,
    required: BTreeMap<(&'static str, &'static str), bool>,
}

fn columns<const N: usize>(table: &'static str) -> impl Iterator<Item = [&'static str; N]> {
    table.lines().skip(1).map(|line| {
        let mut cells = [""; N];
        let mut parts = line.split('\t');
        for cell in &mut cells {
            *cell = parts.next().unwrap_or_else(|| panic!("a row of a data table is short: {line}"));
        }
        cells
    })
}

impl Tables {
    fn read() -> Self {
        let mut messages: Vec<(&'static str, Vec<Row>)> = Vec::new();
        for [message, number, _, ty, label, json, pointer, omit_empty] in columns::<8>(PROTOBUF) {
            if is_preview(message) {
                continue;
            }
            if messages.last().is_none_or(|(last, _)| *last != message) {
                messages.push((message, Vec::new()));
            }
            let number = number.parse().unwrap_or_else(|_| panic!("field number of {message}: {number}"));
            let row = Row { number, ty, label, json, pointer: pointer == "yes", omit_empty: omit_empty == "yes" };
            if let Some((_, rows)) = messages.last_mut() {
                rows.push(row);
            }
        }
        let dash = |cell| if cell == "-" { "" } else { cell };
        let merge = columns::<7>(MERGE)
            .map(|[definition, property, list_type, keys, strategy, key, map_type]| {
                let merge = Merge {
                    list_type: dash(list_type),
                    list_map_keys: dash(keys),
                    patch_strategy: dash(strategy),
                    merge_key: dash(key),
                    map_type: dash(map_type),
                };
                ((definition, property), merge)
            })
            .collect();
        let required = columns::<3>(FACTS)
            .map(|[definition, property, required]| ((definition, property), required == "yes"))
            .collect();
        Self { messages, merge, required }
    }

    /// The table has a row for each field, so that a message without any is only referred to.
    fn messages_without_fields(&self) -> impl Iterator<Item = &'static str> {
        let known: BTreeSet<&str> = self.messages.iter().map(|(message, _)| *message).collect();
        let referred = self.messages.iter().flat_map(|(_, rows)| rows).map(|row| row.ty);
        referred.filter(move |ty| ty.starts_with("k8s.io.") && !is_preview(ty) && !known.contains(ty))
    }

    fn build(self) -> BuiltIn {
        let mut by_definition = BTreeMap::new();
        for (message, _) in &self.messages {
            let definition = definition_of(message);
            let atomic = self.merge.get(&(definition.as_str(), "(itself)")).is_some_and(|m| m.map_type == "atomic");
            by_definition.insert(definition.clone(), Struct::declare(definition, atomic));
        }
        for message in self.messages_without_fields() {
            by_definition.entry(definition_of(message)).or_insert_with(|| {
                let empty = Struct::declare(definition_of(message), false);
                empty.fill(Vec::new(), Vec::new());
                empty
            });
        }
        let builder = Builder { tables: &self, types: &by_definition };
        let rows: BTreeMap<&str, &[Row]> = self.messages.iter().map(|(m, rows)| (*m, rows.as_slice())).collect();
        for (message, _) in &self.messages {
            let mut fields = Vec::new();
            builder.flatten(message, message, &rows, &mut fields);
            if has_type_meta(message) {
                for name in ["apiVersion", "kind"] {
                    let mut field = Field::new(name, Type::Scalar(Scalar::String));
                    field.pointer = false;
                    fields.push(field);
                }
            }
            fields.sort_by(|a, b| a.name.cmp(&b.name));
            let wire = builder.wire(rows[message], &fields);
            by_definition[&definition_of(message)].fill(fields, wire);
        }
        BuiltIn { by_definition }
    }
}

/// Lists of which Kubernetes tells whether they are empty or not there at all, when it fills in defaults or validates. Where an
/// empty one is let pass, the strategy takes it out: nothing is told apart in what is stored.
const TOLD_WHEN_EMPTY: [(&str, &str); 3] = [
    ("io.k8s.api.autoscaling.v2.HPAScalingRules", "policies"),
    ("io.k8s.api.resource.v1.ResourceSliceSpec", "devices"),
    ("io.k8s.api.resource.v1.ResourceSliceSpec", "sharedCounters"),
];

/// Preview versions are not served, and their messages refer to some that the table lacks.
fn is_preview(message: &str) -> bool {
    message.rsplit('.').nth(1).is_some_and(|version| version.contains("alpha") || version.contains("beta"))
}

/// Whether a message is an object with `apiVersion` and `kind`, which protobuf carries outside of it. The table does not
/// say; what has metadata has them, but for templates, and options and a few discovery types have them without metadata.
fn has_type_meta(message: &str) -> bool {
    let name = message.rsplit('.').next().unwrap_or(message);
    let path = message.strip_prefix("k8s.io.").unwrap_or(message);
    if let Some(meta) = path.strip_prefix("apimachinery.pkg.apis.meta.v1.") {
        return meta.ends_with("Options")
            || [
                "APIGroup",
                "APIGroupList",
                "APIResourceList",
                "APIVersions",
                "List",
                "PartialObjectMetadata",
                "PartialObjectMetadataList",
                "Status",
            ]
            .contains(&meta);
    }
    if path.starts_with("apimachinery.") {
        return false;
    }
    if path.starts_with("api.core.") && name.ends_with("Options") {
        return !matches!(name, "SELinuxOptions" | "WindowsSecurityContextOptions");
    }
    if matches!(name, "AdmissionReview" | "ConversionReview") {
        return true;
    }
    let template = name.ends_with("TemplateSpec") || name == "PersistentVolumeClaimTemplate";
    let object = message_has_metadata(message);
    object && !template
}

fn message_has_metadata(message: &str) -> bool {
    static WITH: OnceLock<BTreeSet<&'static str>> = OnceLock::new();
    let with =
        WITH.get_or_init(|| columns::<8>(PROTOBUF).filter(|row| row[5] == "metadata").map(|row| row[0]).collect());
    with.contains(message)
}

struct Builder<'a> {
    tables: &'a Tables,
    types: &'a BTreeMap<String, Arc<Struct>>,
}

impl Builder<'_> {
    /// The JSON fields of a message, those of embedded messages among them: OpenAPI has them as properties of the owner.
    fn flatten(&self, owner: &str, message: &str, rows: &BTreeMap<&str, &[Row]>, into: &mut Vec<Field>) {
        for row in rows.get(message).copied().unwrap_or_default() {
            match row.json {
                "(inline)" => self.flatten(owner, row.ty, rows, into),
                "-" | "?" | "(form of its own)" => {}
                // Behind an alpha feature gate, and off as there: JobSchedulingConfiguration.
                _ if is_preview(row.ty) => {}
                _ => into.push(self.field(owner, row)),
            }
        }
    }

    fn field(&self, owner: &str, row: &Row) -> Field {
        let definition = definition_of(owner);
        let none = Merge::default();
        let merge = self.tables.merge.get(&(definition.as_str(), row.json)).unwrap_or(&none);
        let ty = self.type_of(row, merge);
        let strategies: Vec<&str> = merge.patch_strategy.split(',').collect();
        Field {
            name: Cow::Borrowed(row.json),
            ty: ty.clone(),
            pointer: row.pointer || TOLD_WHEN_EMPTY.contains(&(definition.as_str(), row.json)),
            omit_empty: row.omit_empty,
            required: self.tables.required.get(&(definition.as_str(), row.json)).copied().unwrap_or(false),
            // JSON of no known type is one leaf in Kubernetes' own kinds.
            atomic: merge.map_type == "atomic" || matches!(ty, Type::Scalar(Scalar::Any)),
            granular: merge.map_type == "granular",
            patch: PatchStrategy {
                merge: strategies.contains(&"merge"),
                replace: strategies.contains(&"replace"),
                retain_keys: strategies.contains(&"retainKeys"),
            },
            merge_key: (!merge.merge_key.is_empty()).then_some(Cow::Borrowed(merge.merge_key)),
            default: schema_default(&definition, row.json),
        }
    }

    fn type_of(&self, row: &Row, merge: &Merge) -> Type {
        if let Some(value) = row.ty.strip_prefix("map<string,").and_then(|t| t.strip_suffix('>')) {
            let value = value.trim_start_matches('.');
            let (value, wrapped) = match string_list(value) {
                true => (Type::list(Type::Scalar(Scalar::String), ListType::Atomic), true),
                false => (self.named(value), false),
            };
            return Type::Map(Arc::new(Map { value, wrapped }));
        }
        if string_list(row.ty) {
            let element = Type::Scalar(Scalar::String);
            return Type::List(Arc::new(List { element, list_type: ListType::Atomic, wrapped: true }));
        }
        let element = self.named(row.ty);
        if row.label != "repeated" {
            return element;
        }
        let list_type = match merge.list_type {
            "map" => ListType::Map(merge.list_map_keys.split(',').map(Cow::Borrowed).collect()),
            "set" => ListType::Set,
            _ => ListType::Atomic,
        };
        Type::list(element, list_type)
    }

    fn named(&self, name: &str) -> Type {
        let scalar = match name {
            "string" => Scalar::String,
            "bool" => Scalar::Bool,
            "int32" => Scalar::Int32,
            "int64" => Scalar::Int64,
            "double" => Scalar::Double,
            "bytes" => Scalar::Bytes,
            "k8s.io.apimachinery.pkg.api.resource.Quantity" => Scalar::Quantity,
            "k8s.io.apimachinery.pkg.util.intstr.IntOrString" => Scalar::IntOrString,
            "k8s.io.apimachinery.pkg.apis.meta.v1.Time" => Scalar::Time,
            "k8s.io.apimachinery.pkg.apis.meta.v1.MicroTime" => Scalar::MicroTime,
            "k8s.io.apimachinery.pkg.apis.meta.v1.Duration" => Scalar::Duration,
            "k8s.io.apimachinery.pkg.apis.meta.v1.FieldsV1" => Scalar::FieldsV1,
            "k8s.io.apimachinery.pkg.runtime.RawExtension"
            | "k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1.JSON" => Scalar::Any,
            message => return self.message(message),
        };
        Type::Scalar(scalar)
    }

    fn message(&self, message: &str) -> Type {
        let find = |name: &str| {
            let found = self.types.get(&definition_of(name));
            Type::Struct(found.unwrap_or_else(|| panic!("protobuf.tsv lacks the message {name}")).clone())
        };
        let props = "k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
        let string = Type::Scalar(Scalar::String);
        let (other, go_name, object_number) = match message.strip_prefix(props) {
            Some("OrArray") => (Type::list(find(props), ListType::Atomic), "v1.JSONSchemaPropsOrArray", 1),
            Some("OrBool") => (Type::Scalar(Scalar::Bool), "v1.JSONSchemaPropsOrBool", 2),
            Some("OrStringArray") => (Type::list(string, ListType::Atomic), "v1.JSONSchemaPropsOrStringArray", 1),
            _ => return find(message),
        };
        Type::Either(Arc::new(Either { object: find(props), other, go_name, object_number }))
    }

    fn wire(&self, rows: &[Row], fields: &[Field]) -> Vec<Wire> {
        let mut wire: Vec<Wire> = rows
            .iter()
            .filter_map(|row| {
                let target = match row.json {
                    "(inline)" => WireTarget::Inline(self.types[&definition_of(row.ty)].clone()),
                    json => WireTarget::Field(fields.iter().position(|f| f.name == json)?),
                };
                Some(Wire { number: row.number, target })
            })
            .collect();
        wire.sort_by_key(|w| w.number);
        wire
    }
}

/// Messages that are a list of strings in JSON.
fn string_list(message: &str) -> bool {
    matches!(message.rsplit('.').next(), Some("ExtraValue" | "Verbs" | "AttestationValue"))
}

/// Defaults that the published schema itself carries, which merging needs where they are list-map keys.
fn schema_default(definition: &str, property: &str) -> Option<Value> {
    match (definition, property) {
        ("io.k8s.api.core.v1.ContainerPort" | "io.k8s.api.core.v1.ServicePort", "protocol") => Some(Value::from("TCP")),
        _ => None,
    }
}
