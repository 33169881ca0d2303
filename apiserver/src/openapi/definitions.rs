//! Types as JSON schemas, in the two dialects of OpenAPI.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use minik8s_api::kinds::{Kind, Kinds};
use minik8s_api::schema::{Field, ListType, Scalar, Struct, Type, built_in};
use serde_json::{Map, Value, json};

use super::{custom, descriptions};

/// Version 2 and 3 differ in where definitions stand and in what may stand beside a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `#/definitions/…`.
    V2,
    /// `#/components/schemas/…`.
    V3,
}

/// The definitions a document refers to, collected while it is written.
pub struct Definitions {
    dialect: Dialect,
    structs: BTreeMap<String, Arc<Struct>>,
    scalars: BTreeMap<&'static str, Scalar>,
    /// Those of custom resources, whole.
    custom: BTreeMap<String, Value>,
}

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
const DURATION: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Duration";
const RAW_EXTENSION: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";
const FIELDS_V1: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1";

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// Bodies that are not a kind of their own row.
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

impl Definitions {
    /// No definitions yet.
    pub fn new(dialect: Dialect) -> Definitions {
        Definitions { dialect, structs: BTreeMap::new(), scalars: BTreeMap::new(), custom: BTreeMap::new() }
    }

    /// The dialect.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Refers to a kind's objects.
    pub fn object(&mut self, kind: &Kind) -> Value {
        if !kind.custom {
            return self.structure(&kind.schema);
        }
        if !self.custom.contains_key(kind.schema.name()) {
            let metadata = self.named(OBJECT_META);
            self.custom.insert(kind.schema.name().to_owned(), custom::object(kind, self.dialect, metadata));
        }
        self.reference(kind.schema.name())
    }

    /// Refers to a list of a kind's objects.
    pub fn list(&mut self, kind: &Kind) -> Value {
        let name = format!("{}List", kind.schema.name());
        if kind.custom {
            let (metadata, item) = (self.named(LIST_META), self.object(kind));
            self.custom.entry(name.clone()).or_insert_with(|| custom::list(kind, self.dialect, metadata, item));
            return self.reference(&name);
        }
        match built_in().definition(&name) {
            Some(list) => self.structure(list),
            None => self.object(kind),
        }
    }

    /// Refers to a type of a group, version and kind, if there is one.
    pub fn kind(&mut self, group: &str, version: &str, kind: &str) -> Option<Value> {
        built_in().kind(group, version, kind).map(|found| self.structure(found))
    }

    /// Refers to `Status`.
    pub fn status(&mut self) -> Value {
        self.named(STATUS)
    }

    /// Refers to a type of all groups, such as `APIResourceList`.
    pub fn meta(&mut self, name: &str) -> Value {
        self.named(&format!("{META}{name}"))
    }

    /// Refers to `DeleteOptions`.
    pub fn delete_options(&mut self) -> Value {
        self.named(DELETE_OPTIONS)
    }

    /// Refers to a patch, which may be anything.
    pub fn patch(&mut self) -> Value {
        self.scalars.insert(PATCH, Scalar::Any);
        self.reference(PATCH)
    }

    fn named(&mut self, name: &str) -> Value {
        match built_in().definition(name) {
            Some(found) => self.structure(found),
            None => json!({ "type": "object" }),
        }
    }

    fn structure(&mut self, of: &Arc<Struct>) -> Value {
        self.structs.entry(of.name().to_owned()).or_insert_with(|| Arc::clone(of));
        self.reference(of.name())
    }

    fn reference(&self, name: &str) -> Value {
        let root = if self.dialect == Dialect::V2 { "#/definitions/" } else { "#/components/schemas/" };
        json!({ "$ref": format!("{root}{name}") })
    }

    fn scalar(&mut self, scalar: Scalar) -> Value {
        let name = match scalar {
            Scalar::String => return json!({ "type": "string" }),
            Scalar::Bool => return json!({ "type": "boolean" }),
            Scalar::Int32 => return json!({ "type": "integer", "format": "int32" }),
            Scalar::Int64 => return json!({ "type": "integer", "format": "int64" }),
            Scalar::Double => return json!({ "type": "number", "format": "double" }),
            Scalar::Bytes => return json!({ "type": "string", "format": "byte" }),
            Scalar::Quantity => QUANTITY,
            Scalar::IntOrString => INT_OR_STRING,
            Scalar::Time => TIME,
            Scalar::MicroTime => MICRO_TIME,
            Scalar::Duration => DURATION,
            Scalar::Any => RAW_EXTENSION,
            Scalar::FieldsV1 => FIELDS_V1,
        };
        self.scalars.insert(name, scalar);
        self.reference(name)
    }

    fn ty(&mut self, ty: &Type) -> Value {
        match ty {
            Type::Struct(of) => self.structure(of),
            Type::List(list) => json!({ "type": "array", "items": self.ty(&list.element) }),
            Type::Map(map) => json!({ "type": "object", "additionalProperties": self.ty(&map.value) }),
            Type::Scalar(scalar) => self.scalar(*scalar),
            // Either an object of a type or something else; OpenAPI leaves such types open, as Kubernetes does.
            Type::Either(_) => json!({}),
        }
    }

    /// Adds properties to a schema; beside a reference, version 3 wants them around it.
    fn beside(&self, schema: Value, more: Map<String, Value>) -> Value {
        if more.is_empty() {
            return schema;
        }
        let mut around = if schema.get("$ref").is_some() && self.dialect == Dialect::V3 {
            json!({ "allOf": [schema] })
        } else {
            schema
        };
        if let Some(fields) = around.as_object_mut() {
            fields.extend(more);
        }
        around
    }

    fn field(&mut self, owner: &str, field: &Field) -> Value {
        let mut schema = self.ty(&field.ty);
        if let Some(values) = enums().get(&(owner, &*field.name)) {
            let of = if matches!(field.ty, Type::List(_)) { &mut schema["items"] } else { &mut schema };
            of["enum"] = json!(values);
        }
        let mut more = Map::new();
        if let Some(text) = descriptions::of_field(owner, &field.name) {
            more.insert("description".into(), json!(text));
        }
        if self.dialect == Dialect::V3
            && let Some(default) = default(field)
        {
            more.insert("default".into(), default);
        }
        if let Type::List(list) = &field.ty
            // Of a list of objects nobody applies anything.
            && !(field.name == "items" && owner.ends_with("List"))
        {
            let (list_type, keys) = match &list.list_type {
                ListType::Atomic => ("atomic", None),
                ListType::Set => ("set", None),
                ListType::Map(keys) => ("map", Some(keys)),
            };
            more.insert("x-kubernetes-list-type".into(), json!(list_type));
            if let Some(keys) = keys {
                more.insert("x-kubernetes-list-map-keys".into(), json!(keys));
            }
        } else if field.granular {
            more.insert("x-kubernetes-map-type".into(), json!("granular"));
        } else if field.atomic && !matches!(field.ty, Type::Scalar(Scalar::Any)) {
            more.insert("x-kubernetes-map-type".into(), json!("atomic"));
        }
        if let Some(key) = &field.merge_key {
            more.insert("x-kubernetes-patch-merge-key".into(), json!(key));
        }
        let strategies =
            [(field.patch.merge, "merge"), (field.patch.replace, "replace"), (field.patch.retain_keys, "retainKeys")];
        let strategy: Vec<&str> = strategies.iter().filter(|(is, _)| *is).map(|(_, name)| *name).collect();
        if !strategy.is_empty() {
            more.insert("x-kubernetes-patch-strategy".into(), json!(strategy.join(",")));
        }
        self.beside(schema, more)
    }

    fn definition(&mut self, of: &Struct, kinds: &Kinds) -> Value {
        let mut properties = Map::new();
        let mut required = Vec::new();
        for field in of.fields() {
            properties.insert(field.name.to_string(), self.field(of.name(), field));
            if field.required {
                required.push(json!(field.name));
            }
        }
        let mut definition = json!({ "type": "object" });
        if let Some(text) = descriptions::of_type(of.name()) {
            definition["description"] = json!(text);
        }
        if !properties.is_empty() {
            definition["properties"] = Value::Object(properties);
        }
        if !required.is_empty() {
            definition["required"] = Value::Array(required);
        }
        if of.atomic() {
            definition["x-kubernetes-map-type"] = json!("atomic");
        }
        let known = group_version_kinds(of, kinds);
        if !known.is_empty() {
            definition["x-kubernetes-group-version-kind"] = Value::Array(known);
        }
        definition
    }

    /// All definitions that are referred to, and those that these refer to.
    pub fn finish(mut self, kinds: &Kinds) -> Value {
        let mut done: Map<String, Value> = Map::new();
        loop {
            let open: Vec<Arc<Struct>> = self
                .structs
                .iter()
                .filter(|(name, _)| !done.contains_key(*name))
                .map(|(_, of)| Arc::clone(of))
                .collect();
            if open.is_empty() {
                break;
            }
            for of in open {
                let definition = self.definition(&of, kinds);
                done.insert(of.name().to_owned(), definition);
            }
        }
        for (name, scalar) in &self.scalars {
            let mut definition = scalar_definition(*scalar, self.dialect);
            if let Some(text) = descriptions::of_type(name) {
                definition["description"] = json!(text);
            }
            done.insert((*name).to_owned(), definition);
        }
        done.extend(self.custom);
        Value::Object(done)
    }
}

/// The values that a field or the elements of a list may have, where Kubernetes' types name them all.
fn enums() -> &'static BTreeMap<(&'static str, &'static str), Vec<&'static str>> {
    static ENUMS: LazyLock<BTreeMap<(&str, &str), Vec<&str>>> = LazyLock::new(|| {
        let row = |line: &'static str| {
            let mut cells = line.split('\t');
            Some(((cells.next()?, cells.next()?), cells.next()?.split(',').collect()))
        };
        include_str!("enums.tsv").lines().skip(1).filter_map(row).collect()
    });
    &ENUMS
}

/// What Go has in a field of which nothing is said. Version 2 has no word for it.
fn default(field: &Field) -> Option<Value> {
    if field.default.is_some() || field.pointer {
        return field.default.clone();
    }
    match &field.ty {
        Type::Struct(_) => Some(json!({})),
        Type::Scalar(_) if field.omit_empty => None,
        Type::Scalar(Scalar::String) => Some(json!("")),
        Type::Scalar(Scalar::Bool) => Some(json!(false)),
        Type::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::Double) => Some(json!(0)),
        _ => None,
    }
}

fn scalar_definition(scalar: Scalar, dialect: Dialect) -> Value {
    match (scalar, dialect) {
        (Scalar::Quantity, Dialect::V3) => {
            json!({ "oneOf": [{ "type": "string" }, { "type": "number" }] })
        }
        (Scalar::IntOrString, Dialect::V3) => {
            json!({ "format": "int-or-string", "oneOf": [{ "type": "integer" }, { "type": "string" }] })
        }
        (Scalar::IntOrString, Dialect::V2) => {
            json!({ "type": "string", "format": "int-or-string" })
        }
        (Scalar::Time | Scalar::MicroTime, _) => json!({ "type": "string", "format": "date-time" }),
        (Scalar::Any | Scalar::FieldsV1, _) => json!({ "type": "object" }),
        _ => json!({ "type": "string" }),
    }
}

/// The kinds whose objects have this type.
fn group_version_kinds(of: &Struct, kinds: &Kinds) -> Vec<Value> {
    if of.field("kind").is_none() || of.field("apiVersion").is_none() {
        return Vec::new();
    }
    let value = |group: &str, version: &str, kind: &str| json!({ "group": group, "kind": kind, "version": version });
    let mut known = Vec::new();
    for kind in kinds.iter() {
        if kind.schema.name() == of.name() {
            known.push(value(&kind.group, &kind.version, &kind.kind));
        } else if of.name().strip_suffix("List") == Some(kind.schema.name()) {
            known.push(value(&kind.group, &kind.version, &kind.list_kind));
        }
        for part in &kind.subresources {
            let own = built_in().kind(&part.kind.group, &part.kind.version, &part.kind.kind);
            if own.is_some_and(|own| own.name() == of.name()) && part.kind.kind != kind.kind {
                known.push(value(&part.kind.group, &part.kind.version, &part.kind.kind));
            }
        }
    }
    // Options and Status belong to every group.
    if known.is_empty() && of.name().contains(".apimachinery.") && of.short_name() != "OwnerReference" {
        known.push(value("", "v1", of.short_name()));
    }
    known.sort_by_key(Value::to_string);
    known.dedup();
    known
}
