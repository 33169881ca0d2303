//! The type system of API objects: what fields there are, of what type, and how lists and maps merge.
//!
//! ```text
//!   data/protobuf.tsv ┐
//!   data/merge.tsv    ├─► built_in() ─► Type ─► Struct ─► Field ─► Type …       (this module; built once)
//!   data/schema-facts ┘                  ▲
//!   a CRD's openAPIV3Schema ─────────────┘  Struct::new, at run time
//! ```
//!
//! One [`Type`] drives everything that depends on shape: decoding JSON and YAML (`decode`), Kubernetes' protobuf
//! (`protobuf`), strategic merge patch (`patch`), field ownership and server-side apply (`managed`), and OpenAPI. A `Type`
//! is a value, cheap to clone, and knows nothing of tables, so that a custom resource's types are ordinary ones.
//!
//! Go facts that a [`Field`] records, because they decide what JSON Kubernetes writes: a field that is a `pointer` tells
//! "absent" from "zero"; `omit_empty` leaves a zero out. A struct that is no pointer is always written (`resources: {}`),
//! and a list, map or pointer without `omit_empty` is written as `null` when it is not set (`rules: null`).

mod built_in;

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, OnceLock};

use serde_json::{Number, Value};

pub use built_in::{BuiltIn, built_in, definition_of, message_of};

/// The type of a value.
#[derive(Clone, Debug)]
pub enum Type {
    /// An object with known fields.
    Struct(Arc<Struct>),
    /// An array.
    List(Arc<List>),
    /// An object whose keys are data.
    Map(Arc<Map>),
    /// A single value, or one that is opaque to the schema.
    Scalar(Scalar),
    /// A value that is either an object of one type or something of another (`JSONSchemaPropsOrBool`); opaque to merging.
    Either(Arc<Either>),
}

impl Type {
    /// The struct, if this is one.
    pub fn as_struct(&self) -> Option<&Arc<Struct>> {
        if let Self::Struct(s) = self { Some(s) } else { None }
    }

    /// The list, if this is one.
    pub fn as_list(&self) -> Option<&List> {
        if let Self::List(l) = self { Some(l) } else { None }
    }

    /// The map, if this is one.
    pub fn as_map(&self) -> Option<&Map> {
        if let Self::Map(m) = self { Some(m) } else { None }
    }

    /// A list of `element` with the given merge behaviour.
    pub fn list(element: Type, list_type: ListType) -> Self {
        Self::List(Arc::new(List { element, list_type, wrapped: false }))
    }

    /// A granular map of `value`.
    pub fn map(value: Type) -> Self {
        Self::Map(Arc::new(Map { value, wrapped: false }))
    }

    /// How Go prints the type in a decoding error: `int32`, `[]v1.Container`, `map[string]string`.
    pub fn go_name(&self) -> String {
        match self {
            Self::Struct(s) => s.go_name(),
            Self::List(list) => format!("[]{}", list.element.go_name()),
            Self::Map(map) if matches!(map.value, Self::Scalar(Scalar::Quantity)) => "v1.ResourceList".to_owned(),
            Self::Map(map) => format!("map[string]{}", map.value.go_name()),
            Self::Scalar(scalar) => scalar.go_name().to_owned(),
            Self::Either(either) => either.go_name.to_owned(),
        }
    }
}

/// A value without inner structure that the schema knows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scalar {
    /// A JSON string.
    String,
    /// A JSON boolean.
    Bool,
    /// A JSON number without fraction, 32 bits with sign.
    Int32,
    /// A JSON number without fraction, 64 bits with sign.
    Int64,
    /// Any JSON number.
    Double,
    /// Bytes, base64 in JSON.
    Bytes,
    /// `resource.Quantity`: a string, a number on input too.
    Quantity,
    /// `intstr.IntOrString`: a 32-bit number or a string.
    IntOrString,
    /// `metav1.Time`: RFC 3339 in whole seconds, `null` for zero.
    Time,
    /// `metav1.MicroTime`: RFC 3339 with six digits of a second, `null` for zero.
    MicroTime,
    /// `metav1.Duration`: `1h2m3s`.
    Duration,
    /// Any JSON (`runtime.RawExtension`, apiextensions' `JSON`): carried as it is.
    Any,
    /// `metav1.FieldsV1`: a JSON object that the schema does not look into.
    FieldsV1,
}

impl Scalar {
    fn go_name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Bool => "bool",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Double => "float64",
            Self::Bytes => "[]uint8",
            Self::Quantity => "resource.Quantity",
            Self::IntOrString => "intstr.IntOrString",
            Self::Time => "v1.Time",
            Self::MicroTime => "v1.MicroTime",
            Self::Duration => "v1.Duration",
            Self::Any => "runtime.RawExtension",
            Self::FieldsV1 => "v1.FieldsV1",
        }
    }

    /// Whether Go holds it in a struct with a JSON form of its own, which `omitempty` never leaves out.
    pub(crate) fn is_go_struct(self) -> bool {
        matches!(
            self,
            Self::Quantity
                | Self::IntOrString
                | Self::Time
                | Self::MicroTime
                | Self::Duration
                | Self::Any
                | Self::FieldsV1
        )
    }

    /// What Go writes for its zero value.
    pub fn zero(self) -> Value {
        match self {
            Self::String => Value::String(String::new()),
            Self::Bool => Value::Bool(false),
            Self::Int32 | Self::Int64 | Self::IntOrString | Self::Double => Value::from(0),
            Self::Quantity => Value::String("0".to_owned()),
            Self::Duration => Value::String("0s".to_owned()),
            Self::Bytes | Self::Time | Self::MicroTime | Self::Any | Self::FieldsV1 => Value::Null,
        }
    }
}

/// An array type.
#[derive(Debug)]
pub struct List {
    /// The type of the elements.
    pub element: Type,
    /// How two such lists merge in server-side apply.
    pub list_type: ListType,
    /// On the protobuf wire the list is a message with one repeated field `items` (`ExtraValue`, `Verbs`).
    pub(crate) wrapped: bool,
}

/// `x-kubernetes-list-type`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListType {
    /// Replaced as a whole. Also what a list without the marker is.
    Atomic,
    /// Unordered unique scalars.
    Set,
    /// Objects told apart by these fields.
    Map(Vec<Cow<'static, str>>),
}

/// An object whose keys are data.
#[derive(Debug)]
pub struct Map {
    /// The type of the values.
    pub value: Type,
    /// Each value is on the protobuf wire a message with one repeated field `items`.
    pub(crate) wrapped: bool,
}

/// See [`Type::Either`].
#[derive(Debug)]
pub struct Either {
    /// Taken where the JSON is an object.
    pub object: Type,
    /// Taken elsewhere: a boolean, or a list.
    pub other: Type,
    /// The struct's name in Go.
    pub(crate) go_name: &'static str,
    /// The protobuf field of the object; the other one is field 1 or 2 too.
    pub(crate) object_number: u32,
}

/// What happens to fields that a struct does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownFields {
    /// Dropped, or reported where the client asks for it.
    Drop,
    /// Kept (`x-kubernetes-preserve-unknown-fields`).
    Keep,
}

/// Whose rules of reading and writing a struct follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conformance {
    /// Go's typed structs: types are checked while decoding, zeros written or left out as Go does.
    Typed,
    /// A custom resource's structural schema: unknown fields are pruned; types are validation's business; nothing is added.
    Structural,
}

/// An object type with known fields.
pub struct Struct {
    name: Cow<'static, str>,
    atomic: bool,
    unknown: UnknownFields,
    conformance: Conformance,
    // Filled after creation because types may be recursive (JSONSchemaProps).
    body: OnceLock<Body>,
}

#[derive(Debug, Default)]
struct Body {
    /// Sorted by name.
    fields: Vec<Field>,
    /// Indices of the fields that are written although they are not set, with what is written.
    always: Vec<usize>,
    /// The protobuf view, sorted by number.
    wire: Vec<Wire>,
}

/// One field of the protobuf message.
#[derive(Debug)]
pub(crate) struct Wire {
    pub number: u32,
    pub target: WireTarget,
}

#[derive(Debug)]
pub(crate) enum WireTarget {
    /// Index into [`Struct::fields`].
    Field(usize),
    /// A message whose fields stand in the same JSON object.
    Inline(Arc<Struct>),
}

/// A field of a [`Struct`].
#[derive(Clone, Debug)]
pub struct Field {
    /// The JSON name.
    pub name: Cow<'static, str>,
    /// The type of the value.
    pub ty: Type,
    /// Whether Go holds a pointer, which tells "absent" from "zero", or a list of which Kubernetes tells the same.
    pub pointer: bool,
    /// Whether Go leaves an empty value out.
    pub omit_empty: bool,
    /// Whether OpenAPI calls it required.
    pub required: bool,
    /// Whether a struct or map here is replaced as a whole by server-side apply (`x-kubernetes-map-type: atomic`).
    pub atomic: bool,
    /// Whether a struct here is merged field by field although its type is replaced as a whole elsewhere.
    pub granular: bool,
    /// How strategic merge patch treats it.
    pub patch: PatchStrategy,
    /// The field that tells the elements of a list apart in strategic merge patch.
    pub merge_key: Option<Cow<'static, str>>,
    /// The default that the schema itself carries (list-map keys such as a port's `protocol`, and CRD defaults).
    pub default: Option<Value>,
}

/// `x-kubernetes-patch-strategy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    /// A list is merged, by its merge key or as a set of scalars, instead of being replaced.
    pub merge: bool,
    /// A map is replaced instead of being merged.
    pub replace: bool,
    /// Only the fields named in `$retainKeys` survive.
    pub retain_keys: bool,
}

impl Field {
    /// Whether what is here is replaced as a whole by server-side apply, where the field itself says so.
    pub fn atomicity(&self) -> Option<bool> {
        if self.granular { Some(false) } else { self.atomic.then_some(true) }
    }

    /// A field as a structural schema has it: optional, nothing written when absent.
    pub fn new(name: impl Into<Cow<'static, str>>, ty: Type) -> Self {
        Self {
            name: name.into(),
            ty,
            pointer: true,
            omit_empty: true,
            required: false,
            atomic: false,
            granular: false,
            patch: PatchStrategy::default(),
            merge_key: None,
            default: None,
        }
    }

    /// What is written when the field is not set; `None` where it is left out.
    pub(crate) fn unset(&self) -> Option<Value> {
        if self.omits_zero() {
            return None;
        }
        match (&self.ty, self.pointer) {
            (_, true) => (!self.omit_empty).then_some(Value::Null),
            (Type::Struct(s), false) => Some(s.zero()),
            (Type::Scalar(scalar), false) if scalar.is_go_struct() => Some(scalar.zero()),
            (ty, false) => (!self.omit_empty).then(|| zero(ty)),
        }
    }

    /// Whether Go writes the field when it holds `value`. What is written where it is not set is [`Field::unset`]'s business.
    pub(crate) fn is_written(&self, value: &Value) -> bool {
        match (value, &self.ty) {
            (Value::Null, _) => false,
            _ if self.pointer => true,
            (Value::Array(array), Type::List(_)) => !array.is_empty(),
            (Value::Object(object), Type::Map(_)) => !object.is_empty(),
            (_, Type::Scalar(scalar)) if scalar.is_go_struct() => true,
            (Value::String(text), _) => !(text.is_empty() && self.omit_empty),
            (Value::Bool(value), _) => *value || !self.omit_empty,
            (Value::Number(number), _) => !(self.omit_empty && number.as_f64() == Some(0.0)),
            (Value::Array(_) | Value::Object(_), _) => true,
        }
    }

    /// `omitzero`, which of all fields of the API only `metadata.creationTimestamp` carries (apimachinery's `ObjectMeta`).
    fn omits_zero(&self) -> bool {
        self.name == "creationTimestamp" && self.omit_empty && matches!(self.ty, Type::Scalar(Scalar::Time))
    }
}

/// A double as Go writes it: without a fraction where there is none. `None` for what JSON has no number for.
pub(crate) fn double(value: f64) -> Option<Number> {
    /// Below, every whole double is an exact integer.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() < EXACT { Some((value as i64).into()) } else { Number::from_f64(value) }
}

/// A number of an object that has no Go type: a whole one is written without a fraction, in as many digits as tell it from
/// others.
pub(crate) fn untyped(number: Number) -> Number {
    let whole = number.as_f64().filter(|value| number.is_f64() && value.fract() == 0.0);
    let Some(text) = whole.map(|value| value.to_string()) else { return number };
    let signed = text.parse::<i64>().ok().map(Number::from);
    signed.or_else(|| text.parse::<u64>().ok().map(Number::from)).unwrap_or(number)
}

/// What Go writes for the zero value of `ty`.
pub fn zero(ty: &Type) -> Value {
    match ty {
        Type::Struct(s) => s.zero(),
        Type::List(_) | Type::Map(_) | Type::Either(_) => Value::Null,
        Type::Scalar(scalar) => scalar.zero(),
    }
}

impl Struct {
    /// A struct built at run time. `name` is for messages; fields may come in any order.
    pub fn new(
        name: impl Into<Cow<'static, str>>,
        fields: Vec<Field>,
        unknown: UnknownFields,
        conformance: Conformance,
        atomic: bool,
    ) -> Arc<Self> {
        let this = Arc::new(Self { name: name.into(), atomic, unknown, conformance, body: OnceLock::new() });
        this.fill(fields, Vec::new());
        this
    }

    /// A typed struct whose fields follow by [`Struct::fill`].
    fn declare(name: impl Into<Cow<'static, str>>, atomic: bool) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            atomic,
            unknown: UnknownFields::Drop,
            conformance: Conformance::Typed,
            body: OnceLock::new(),
        })
    }

    fn fill(&self, mut fields: Vec<Field>, wire: Vec<Wire>) {
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        let always = match self.conformance {
            Conformance::Typed => (0..fields.len()).filter(|i| fields[*i].is_always_written()).collect(),
            Conformance::Structural => Vec::new(),
        };
        let filled = self.body.set(Body { fields, always, wire });
        assert!(filled.is_ok(), "the fields of {} are set once", self.name);
    }

    fn body(&self) -> &Body {
        self.body.get().expect("a struct is filled before it is handed out")
    }

    /// The OpenAPI definition's name, as in `io.k8s.api.core.v1.Pod`; for custom types a name for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The last part of the name: `Pod`.
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }

    /// How Go prints the type: `v1.Pod`.
    pub fn go_name(&self) -> String {
        let mut parts = self.name.rsplit('.');
        match (parts.next(), parts.next()) {
            (Some(name), Some(package)) => format!("{package}.{name}"),
            _ => self.name.to_string(),
        }
    }

    /// Whether server-side apply replaces it as a whole wherever it is used.
    pub fn atomic(&self) -> bool {
        self.atomic
    }

    /// What happens to fields that are not known.
    pub fn unknown_fields(&self) -> UnknownFields {
        self.unknown
    }

    /// Whose rules it follows.
    pub fn conformance(&self) -> Conformance {
        self.conformance
    }

    /// The fields, sorted by name. Fields of embedded structs stand among them, as in JSON.
    pub fn fields(&self) -> &[Field] {
        &self.body().fields
    }

    /// The field of that JSON name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.field_index(name).map(|i| &self.fields()[i])
    }

    pub(crate) fn field_index(&self, name: &str) -> Option<usize> {
        self.body().fields.binary_search_by(|field| field.name.as_ref().cmp(name)).ok()
    }

    pub(crate) fn wire(&self) -> &[Wire] {
        &self.body().wire
    }

    /// What Go writes for the zero value.
    pub fn zero(&self) -> Value {
        let mut object = serde_json::Map::new();
        self.write_unset(&mut object);
        Value::Object(object)
    }

    /// Adds what Go writes of the fields that `object` does not have.
    pub(crate) fn write_unset(&self, object: &mut serde_json::Map<String, Value>) {
        let body = self.body();
        for index in &body.always {
            let field = &body.fields[*index];
            if !object.contains_key(field.name.as_ref())
                && let Some(value) = field.unset()
            {
                object.insert(field.name.to_string(), value);
            }
        }
    }
}

impl Field {
    fn is_always_written(&self) -> bool {
        // As `unset`, without building the value: inner structs may not be filled yet.
        !self.omits_zero()
            && (!self.omit_empty
                || (!self.pointer
                    && match &self.ty {
                        Type::Struct(_) => true,
                        Type::Scalar(scalar) => scalar.is_go_struct(),
                        _ => false,
                    }))
    }
}

impl fmt::Debug for Struct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the fields: types may be recursive.
        write!(f, "Struct({})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn definition(name: &str) -> Arc<Struct> {
        built_in().definition(name).unwrap_or_else(|| panic!("{name} is in the tables")).clone()
    }

    #[test]
    fn zero_is_what_go_writes() {
        assert_eq!(definition("io.k8s.api.core.v1.Container").zero(), json!({"name": "", "resources": {}}));
        assert_eq!(
            definition("io.k8s.api.core.v1.Service").zero(),
            json!({"metadata": {}, "spec": {}, "status": {"loadBalancer": {}}})
        );
        assert_eq!(
            definition("io.k8s.api.apps.v1.Deployment").zero(),
            json!({
                "metadata": {}, "status": {},
                "spec": {"selector": null, "strategy": {}, "template": {"metadata": {}, "spec": {"containers": null}}},
            })
        );
    }

    #[test]
    fn embedded_structs_are_flattened() {
        let volume = definition("io.k8s.api.core.v1.Volume");
        assert!(volume.field("emptyDir").is_some() && volume.field("name").is_some());
        assert!(volume.field("volumeSource").is_none());
        let probe = definition("io.k8s.api.core.v1.Probe");
        assert!(probe.field("httpGet").is_some());
    }

    #[test]
    fn lists_know_how_they_merge() {
        let spec = definition("io.k8s.api.core.v1.PodSpec");
        let containers = spec.field("containers").unwrap();
        assert_eq!(containers.ty.as_list().unwrap().list_type, ListType::Map(vec!["name".into()]));
        assert!(containers.patch.merge && containers.required);
        assert_eq!(containers.merge_key.as_deref(), Some("name"));
        let volumes = spec.field("volumes").unwrap();
        assert!(volumes.patch.merge && volumes.patch.retain_keys);
        assert!(spec.field("nodeSelector").unwrap().atomic);
        let port = definition("io.k8s.api.core.v1.ContainerPort");
        assert_eq!(port.field("protocol").unwrap().default, Some(json!("TCP")));
        let strategy = definition("io.k8s.api.apps.v1.DeploymentSpec");
        assert!(strategy.field("strategy").unwrap().patch.retain_keys);
    }

    #[test]
    fn only_objects_have_a_type_of_their_own() {
        for (name, expected) in [
            ("io.k8s.api.core.v1.Pod", true),
            ("io.k8s.api.core.v1.PodList", true),
            ("io.k8s.api.core.v1.PodTemplateSpec", false),
            ("io.k8s.api.core.v1.PersistentVolumeClaim", true),
            ("io.k8s.api.core.v1.ResourceClaim", false),
            ("io.k8s.api.policy.v1.Eviction", true),
            ("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions", true),
            ("io.k8s.apimachinery.pkg.apis.meta.v1.Status", true),
            ("io.k8s.api.core.v1.SELinuxOptions", false),
        ] {
            let definition = definition(name);
            // A kind of their own or one that refers to something: both are called `kind`, only the first comes with a default wire number of none.
            assert_eq!(
                definition.field("apiVersion").is_some() && definition.field("kind").is_some(),
                expected,
                "{name}"
            );
        }
    }

    #[test]
    fn names_map_both_ways() {
        for (message, definition) in [
            ("k8s.io.api.core.v1.Pod", "io.k8s.api.core.v1.Pod"),
            (
                "k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1.JSON",
                "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON",
            ),
            (
                "k8s.io.kube_aggregator.pkg.apis.apiregistration.v1.APIService",
                "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIService",
            ),
        ] {
            assert_eq!(definition_of(message), definition);
            assert_eq!(message_of(definition), message);
        }
    }
}
