//! The one pass: any serde source in, a value of the schema's shape out.
//!
//! [`Walk`] is a `DeserializeSeed`, so JSON text, YAML text and a `Value` take the same way. Faults go to [`Problems`]; a
//! path is put together while the recursion returns from a fault, so that a body without fault pays for no path.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::MAX_DEPTH;
use super::problems::{DUPLICATE, Problems, Segment};
use crate::quantity::{Quantity, QuantityError};
use crate::schema::{Conformance, Scalar, Struct, Type, UnknownFields, double, untyped, zero};
use crate::time;

pub(super) static ANY: Type = Type::Scalar(Scalar::Any);

/// How Go names the JSON type of a value.
pub(super) fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// What stands at one place of the source is to become a value of `ty`.
pub(super) struct Walk<'a> {
    ty: &'a Type,
    problems: &'a mut Problems,
    depth: usize,
    /// Inside a structural schema, whose types are validation's business.
    structural: bool,
}

impl<'a> Walk<'a> {
    /// The walk of a whole object.
    pub fn new(ty: &'a Type, problems: &'a mut Problems) -> Self {
        Self { ty, problems, depth: 0, structural: false }
    }

    /// The walk of a part that stands `depth` levels deep in its object.
    pub fn part(ty: &'a Type, problems: &'a mut Problems, depth: usize) -> Self {
        Self { ty, problems, depth, structural: false }
    }

    /// A value of a JSON type that `ty` does not take.
    fn wrong(self, found: &'static str, kept: Value) -> Value {
        if self.takes_anything() {
            return kept;
        }
        self.problems.type_mismatch(found, self.ty);
        Value::Null
    }

    /// Of a custom resource, only metadata must have its type by now.
    fn takes_anything(&self) -> bool {
        let typed = self.ty.as_struct().is_some_and(|of| of.conformance() == Conformance::Typed);
        self.structural && !typed
    }

    fn deeper<E: de::Error>(&mut self) -> Result<usize, E> {
        let depth = self.depth + 1;
        if depth > MAX_DEPTH { Err(self.problems.fatal("exceeded max depth")) } else { Ok(depth) }
    }

    fn number<E: de::Error>(self, number: Number) -> Result<Value, E> {
        let Type::Scalar(scalar) = self.ty else {
            let number = if self.structural { untyped(number) } else { number };
            return Ok(self.wrong("number", Value::Number(number)));
        };
        if self.structural {
            return Ok(Value::Number(untyped(number)));
        }
        let value = Value::Number(number);
        let in_range = match scalar {
            Scalar::Int32 | Scalar::IntOrString => value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            Scalar::Int64 => value.is_i64(),
            Scalar::Double => {
                return Ok(value.as_f64().and_then(double).map_or(value, Value::Number));
            }
            Scalar::Any | Scalar::FieldsV1 => true,
            Scalar::Quantity => return self.quantity(&value),
            Scalar::Time | Scalar::MicroTime | Scalar::Duration => return self.no_string("number"),
            Scalar::String | Scalar::Bool | Scalar::Bytes => return Ok(self.wrong("number", value)),
        };
        if in_range {
            return Ok(value);
        }
        if *scalar == Scalar::IntOrString {
            let text = format!("json: cannot unmarshal number {value} into Go value of type int32");
            return Err(self.problems.fatal(text));
        }
        self.problems.type_mismatch(format!("number {value}"), self.ty);
        Ok(Value::Null)
    }

    fn text<E: de::Error>(self, text: Cow<'_, str>) -> Result<Value, E> {
        let Type::Scalar(scalar) = self.ty else {
            return match (self.ty, self.structural) {
                (Type::Either(either), false) => Walk { ty: &either.other, ..self }.text(text),
                _ => Ok(self.wrong("string", Value::String(text.into_owned()))),
            };
        };
        if self.structural {
            return Ok(Value::String(text.into_owned()));
        }
        match scalar {
            Scalar::String | Scalar::IntOrString | Scalar::Any | Scalar::FieldsV1 => {
                Ok(Value::String(text.into_owned()))
            }
            Scalar::Quantity => match Quantity::parse(text.trim()) {
                Ok(quantity) => Ok(Value::String(quantity.to_string())),
                Err(error) => Err(self.problems.fatal(error)),
            },
            Scalar::Time => self.converted(time::normalize(&text)),
            Scalar::MicroTime => self.converted(time::normalize_micro(&text)),
            Scalar::Duration => self.converted(time::parse_duration(&text).map(time::format_duration)),
            Scalar::Bytes => {
                if let Err(error) = STANDARD.decode(text.as_bytes()) {
                    self.problems.bare_mismatch(base64_error(&error, &text));
                }
                Ok(Value::String(text.into_owned()))
            }
            Scalar::Bool | Scalar::Int32 | Scalar::Int64 | Scalar::Double => Ok(self.wrong("string", Value::Null)),
        }
    }

    fn converted<T: Into<String>, X: fmt::Display, E: de::Error>(self, result: Result<T, X>) -> Result<Value, E> {
        match result {
            Ok(text) => Ok(Value::String(text.into())),
            Err(error) => Err(self.problems.fatal(error)),
        }
    }

    fn quantity<E: de::Error>(self, value: &Value) -> Result<Value, E> {
        self.converted(Quantity::from_value(value).map(|quantity| quantity.to_string()))
    }

    /// A value of a type whose Go form reads a JSON string first.
    fn no_string<E: de::Error>(self, found: &str) -> Result<Value, E> {
        Err(self.problems.fatal(format!("json: cannot unmarshal {found} into Go value of type string")))
    }

    /// An object, array or boolean where a scalar is expected.
    fn no_scalar<E: de::Error>(self, scalar: Scalar, found: &'static str) -> Result<Option<Value>, E> {
        if self.structural {
            return Ok(None);
        }
        match scalar {
            Scalar::Quantity => Err(self.problems.fatal(QuantityError::Format)),
            Scalar::Time | Scalar::MicroTime | Scalar::Duration => self.no_string(found).map(Some),
            Scalar::IntOrString => {
                let text = format!("json: cannot unmarshal {found} into Go value of type int32");
                Err(self.problems.fatal(text))
            }
            _ => {
                self.problems.type_mismatch(found, self.ty);
                Ok(Some(Value::Null))
            }
        }
    }
}

/// Go counts the bytes that it read before the bad one.
fn base64_error(error: &base64::DecodeError, text: &str) -> String {
    let at = match error {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => *at,
        base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => text.len() / 4 * 4,
    };
    format!("illegal base64 data at input byte {at}")
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.problems.count::<D::Error>()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        match self.ty {
            Type::Scalar(Scalar::Bool | Scalar::Any | Scalar::FieldsV1) => Ok(Value::Bool(value)),
            Type::Either(either) if !self.structural => Walk { ty: &either.other, ..self }.visit_bool(value),
            Type::Scalar(scalar) => Ok(self.no_scalar(*scalar, "bool")?.unwrap_or(Value::Bool(value))),
            _ => Ok(self.wrong("bool", Value::Bool(value))),
        }
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        self.number(value.into())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        self.number(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        match Number::from_f64(value) {
            Some(number) => self.number(number),
            None => Err(self.problems.fatal("json: unsupported value: NaN or infinity")),
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        self.text(Cow::Borrowed(text))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Value, E> {
        self.text(Cow::Owned(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, access: A) -> Result<Value, A::Error> {
        let depth = self.deeper()?;
        let element = match self.ty {
            Type::List(list) => &list.element,
            Type::Either(either) if !self.structural => {
                return Walk { ty: &either.other, ..self }.visit_seq(access);
            }
            Type::Scalar(Scalar::Any | Scalar::FieldsV1) => &ANY,
            _ if self.takes_anything() => &ANY,
            Type::Scalar(scalar) => {
                drain_seq(access)?;
                return Ok(self.no_scalar(*scalar, "array")?.unwrap_or_default());
            }
            _ => {
                drain_seq(access)?;
                return Ok(self.wrong("array", Value::Null));
            }
        };
        self.array(element, access, depth)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, access: A) -> Result<Value, A::Error> {
        let depth = self.deeper()?;
        match self.ty {
            Type::Struct(of) => self.object(of, access, depth),
            Type::Map(map) => self.map(&map.value, true, access, depth),
            Type::Either(either) => Walk { ty: &either.object, ..self }.visit_map(access),
            Type::Scalar(Scalar::Any | Scalar::FieldsV1) => {
                let report = self.problems.without_schema;
                self.map(&ANY, report, access, depth)
            }
            _ if self.structural => self.map(&ANY, false, access, depth),
            Type::Scalar(scalar) => {
                drain_map(access)?;
                Ok(self.no_scalar(*scalar, "object")?.unwrap_or_default())
            }
            Type::List(_) => {
                drain_map(access)?;
                Ok(self.wrong("object", Value::Null))
            }
        }
    }
}

fn drain_seq<'de, A: SeqAccess<'de>>(mut access: A) -> Result<(), A::Error> {
    while access.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}

fn drain_map<'de, A: MapAccess<'de>>(mut access: A) -> Result<(), A::Error> {
    while access.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
    Ok(())
}

impl Walk<'_> {
    fn array<'de, A: SeqAccess<'de>>(self, element: &Type, mut access: A, depth: usize) -> Result<Value, A::Error> {
        // A size hint comes from the client in some formats.
        const MAX_RESERVED: usize = 1024;
        let mut array = Vec::with_capacity(access.size_hint().unwrap_or_default().min(MAX_RESERVED));
        loop {
            let mark = self.problems.mark();
            let walk = Walk { ty: element, problems: &mut *self.problems, depth, structural: self.structural };
            let Some(value) = access.next_element_seed(walk)? else {
                return Ok(Value::Array(array));
            };
            self.problems.place(mark, || Segment::Index(array.len()), None);
            array.push(self.not_null(value, element));
        }
    }

    /// Where Go has no "absent", `null` is the zero value.
    fn not_null(&self, value: Value, ty: &Type) -> Value {
        if value.is_null() && !self.structural { zero(ty) } else { value }
    }

    fn map<'de, A: MapAccess<'de>>(
        self,
        value_type: &Type,
        report_duplicates: bool,
        mut access: A,
        depth: usize,
    ) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(Name::Unknown(key)) = access.next_key_seed(Key(None))? {
            let mark = self.problems.mark();
            let walk = Walk { ty: value_type, problems: &mut *self.problems, depth, structural: self.structural };
            let value = access.next_value_seed(walk)?;
            self.problems.place(mark, || Segment::Name(key.clone().into()), None);
            let value = self.not_null(value, value_type);
            if report_duplicates && object.contains_key(&key) {
                self.problems.field_problem(DUPLICATE, key.clone());
            }
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }

    fn object<'de, A: MapAccess<'de>>(self, of: &Struct, mut access: A, depth: usize) -> Result<Value, A::Error> {
        let structural = of.conformance() == Conformance::Structural;
        let fields = of.fields();
        let mut object = Map::new();
        let mut seen = Seen::default();
        while let Some(name) = access.next_key_seed(Key(Some(of)))? {
            let index = match name {
                Name::Known(index) => index,
                Name::Unknown(name) if of.unknown_fields() == UnknownFields::Keep => {
                    let walk = Walk { ty: &ANY, problems: &mut *self.problems, depth, structural };
                    object.insert(name, access.next_value_seed(walk)?);
                    continue;
                }
                Name::Unknown(name) => {
                    access.next_value::<IgnoredAny>()?;
                    self.problems.field_problem("unknown field", name);
                    continue;
                }
            };
            let field = &fields[index];
            let mark = self.problems.mark();
            let walk = Walk { ty: &field.ty, problems: &mut *self.problems, depth, structural };
            let value = access.next_value_seed(walk)?;
            self.problems.place(mark, || Segment::Name(field.name.clone()), Some((of, field)));
            if seen.insert(index) {
                self.problems.field_problem(DUPLICATE, field.name.clone());
                object.remove(field.name.as_ref());
            }
            if structural || field.is_written(&value) || forgets_owners(&field.name, &value, depth) {
                object.insert(field.name.to_string(), value);
            }
        }
        of.write_unset(&mut object);
        Ok(Value::Object(object))
    }
}

/// Whether this is an object's own `managedFields: []`: it is not stored, but who writes it wants all owners forgotten.
fn forgets_owners(name: &str, value: &Value, depth: usize) -> bool {
    const IN_METADATA: usize = 2;
    depth == IN_METADATA && name == "managedFields" && value.is_array()
}

/// The fields of an object that the source has given, by index.
#[derive(Default)]
struct Seen {
    first: u128,
    rest: Vec<usize>,
}

impl Seen {
    /// Whether it was there before.
    fn insert(&mut self, index: usize) -> bool {
        if index < 128 {
            let bit = 1 << index;
            let before = self.first & bit != 0;
            self.first |= bit;
            return before;
        }
        let before = self.rest.contains(&index);
        if !before {
            self.rest.push(index);
        }
        before
    }
}

/// A key of an object.
enum Name {
    /// Index into [`Struct::fields`].
    Known(usize),
    Unknown(String),
}

/// Reads a key, without allocating where a struct knows it. YAML has keys that are no strings; they become strings, as
/// sigs.k8s.io/yaml makes them.
struct Key<'a>(Option<&'a Struct>);

impl Key<'_> {
    fn name(&self, text: Cow<'_, str>) -> Name {
        match self.0.and_then(|of| of.field_index(&text)) {
            Some(index) => Name::Known(index),
            None => Name::Unknown(text.into_owned()),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Name;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Name, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = Name;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, text: &str) -> Result<Name, E> {
        Ok(self.name(Cow::Borrowed(text)))
    }

    fn visit_string<E>(self, text: String) -> Result<Name, E> {
        Ok(self.name(Cow::Owned(text)))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Name, E> {
        Ok(self.name(Cow::Owned(value.to_string())))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Name, E> {
        Ok(self.name(Cow::Owned(value.to_string())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Name, E> {
        Ok(self.name(Cow::Owned(value.to_string())))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Name, E> {
        Ok(self.name(Cow::Owned(value.to_string())))
    }
}
