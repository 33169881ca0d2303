//! How a type looks to the walkers: what is merged, by what, and what is one leaf (structured-merge-diff `schema`).

use std::borrow::Cow;
use std::sync::LazyLock;

use serde_json::Value;

use crate::schema::{self, ListType, Type, UnknownFields};

/// Where a walker stands: a type, and what the field that led here says of it.
#[derive(Clone, Copy)]
pub(super) enum Place<'s> {
    /// A value of a known type; whether the field makes it atomic or not, where it says so.
    Typed(&'s Type, Option<bool>),
    /// A value of which nothing is known: maps are merged, lists and scalars are leaves.
    Deduced,
}

/// What a value at a [`Place`] is.
#[derive(Clone, Copy)]
pub(super) enum Shape<'s> {
    /// A leaf.
    Scalar(Scalar),
    /// An object that is merged field by field.
    Map,
    /// An object that is one leaf.
    AtomicMap,
    /// A list of these items.
    List(Place<'s>, Relation<'s>),
}

/// How the items of a list are told apart.
#[derive(Clone, Copy)]
pub(super) enum Relation<'s> {
    /// Not at all: the list is one leaf.
    Atomic,
    /// By their values.
    Set,
    /// By the values of these fields.
    Keyed(&'s [Cow<'static, str>]),
}

/// What a scalar must be.
#[derive(Clone, Copy)]
pub(super) enum Scalar {
    Numeric,
    String,
    Boolean,
    Untyped,
}

impl Shape<'_> {
    /// Whether values of both shapes may be compared with each other.
    pub(super) fn is_same_kind(&self, other: &Shape<'_>) -> bool {
        matches!(
            (self, other),
            (Shape::Scalar(_), Shape::Scalar(_))
                | (Shape::Map, Shape::Map)
                | (Shape::AtomicMap, Shape::AtomicMap)
                | (Shape::List(..), Shape::List(..))
        )
    }
}

impl<'s> Place<'s> {
    /// The root of an object of this type.
    pub(super) fn root(ty: &'s Type) -> Place<'s> {
        Place::Typed(ty, None)
    }

    /// What the value is here. Only where nothing is known does it depend on the value.
    pub(super) fn shape(self, value: &Value) -> Shape<'s> {
        let Place::Typed(ty, atomic) = self else {
            return deduced(value);
        };
        match ty {
            Type::Struct(s) if atomic.unwrap_or(s.atomic()) => Shape::AtomicMap,
            Type::Map(_) if atomic == Some(true) => Shape::AtomicMap,
            Type::Struct(_) | Type::Map(_) => Shape::Map,
            Type::List(list) => {
                let relation = match &list.list_type {
                    ListType::Atomic => Relation::Atomic,
                    ListType::Set => Relation::Set,
                    ListType::Map(keys) => Relation::Keyed(keys),
                };
                Shape::List(Place::root(&list.element), relation)
            }
            Type::Scalar(schema::Scalar::Any) if atomic == Some(true) && (value.is_object() || value.is_null()) => {
                Shape::AtomicMap
            }
            Type::Scalar(schema::Scalar::Any | schema::Scalar::FieldsV1) | Type::Either(_) => deduced(value),
            Type::Scalar(scalar) => Shape::Scalar(match scalar {
                schema::Scalar::String | schema::Scalar::Bytes => Scalar::String,
                schema::Scalar::Bool => Scalar::Boolean,
                schema::Scalar::Int32 | schema::Scalar::Int64 | schema::Scalar::Double => Scalar::Numeric,
                _ => Scalar::Untyped,
            }),
        }
    }

    /// The place of a field or a key.
    pub(super) fn child(self, name: &str) -> Place<'s> {
        match self {
            Place::Typed(Type::Struct(s), _) => match s.field(name) {
                Some(field) => Place::Typed(&field.ty, field.atomicity()),
                None => Place::Deduced,
            },
            Place::Typed(Type::Map(map), _) => Place::root(&map.value),
            _ => Place::Deduced,
        }
    }

    /// Whether this is a struct that declares the field.
    pub(super) fn has_field(self, name: &str) -> bool {
        matches!(self, Place::Typed(Type::Struct(s), _) if s.field(name).is_some())
    }

    /// Whether an object here may have the field or key.
    pub(super) fn allows(self, name: &str) -> bool {
        match self {
            Place::Typed(Type::Struct(s), _) => s.unknown_fields() == UnknownFields::Keep || s.field(name).is_some(),
            _ => true,
        }
    }

    /// The schema's default for a field of the struct that is here. A field that Go always writes has its zero as the default: a
    /// container without a name has the name `""` until validation sees it.
    pub(super) fn field_default(self, name: &str) -> Option<&'s Value> {
        static EMPTY: Value = Value::String(String::new());
        static ZERO: LazyLock<Value> = LazyLock::new(|| Value::from(0));
        let Place::Typed(Type::Struct(s), _) = self else { return None };
        let field = s.field(name)?;
        let zero = match &field.ty {
            _ if field.pointer || field.omit_empty => None,
            Type::Scalar(schema::Scalar::String) => Some(&EMPTY),
            Type::Scalar(schema::Scalar::Int32 | schema::Scalar::Int64) => Some(&*ZERO),
            _ => None,
        };
        field.default.as_ref().or(zero)
    }
}

/// `null` counts as a map: it fits every type, and a map is what Kubernetes tries first.
fn deduced<'s>(value: &Value) -> Shape<'s> {
    match value {
        Value::Object(_) | Value::Null => Shape::Map,
        Value::Array(_) => Shape::List(Place::Deduced, Relation::Atomic),
        _ => Shape::Scalar(Scalar::Untyped),
    }
}
