//! Types of expressions, found before any object is: a field that no schema has, a name that nothing declares, a
//! comparison that can never be made. Errors read as cel-go writes them (`checker/errors.go`).

use std::collections::BTreeMap;
use std::sync::Arc;

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SelectExpr, SourceInfo, StructExpr, operators,
};
use cel::parser::ParseErrors;

use super::authorizer;
use super::library;
use super::values::escaped;
use crate::custom::pattern;
use crate::custom::schema::{Additional, JsonType, Schema};
use crate::schema::{Scalar, Type, UnknownFields};

/// The type of an expression, as far as a schema tells it.
#[derive(Clone, Debug)]
pub enum Ty<'a> {
    /// Anything.
    Dyn,
    /// What nothing decides: of what an empty list is one.
    Open,
    /// `null`
    Null,
    /// `bool`
    Bool,
    /// `int`
    Int,
    /// `uint`
    Uint,
    /// `double`
    Double,
    /// `string`
    String,
    /// `bytes`
    Bytes,
    /// A span of time.
    Duration,
    /// A moment.
    Timestamp,
    /// A type as a value.
    Type,
    /// A list of one type.
    List(Box<Ty<'a>>),
    /// A map from strings to one type.
    Map(Box<Ty<'a>>),
    /// What may be there.
    Optional(Box<Ty<'a>>),
    /// An object of a schema; with type and metadata of its own where the flag says so.
    Object(&'a Schema, bool),
    /// The metadata of an object.
    Metadata,
    /// A value of a type that decoding goes by.
    Typed(Type),
    /// A type of Kubernetes' own library.
    Named(&'static str),
    /// A part of a mutated object: `Object.spec`.
    Part(String),
    /// Fields that the caller names: a request, or the variables of a policy.
    Record(&'static str, Arc<[(String, Ty<'a>)]>),
}

impl<'a> Ty<'a> {
    /// Its name in errors.
    pub fn name(&self) -> String {
        match self {
            Self::Dyn | Self::Open => "dyn".to_owned(),
            Self::Null => "null".to_owned(),
            Self::Bool => "bool".to_owned(),
            Self::Int => "int".to_owned(),
            Self::Uint => "uint".to_owned(),
            Self::Double => "double".to_owned(),
            Self::String => "string".to_owned(),
            Self::Bytes => "bytes".to_owned(),
            Self::Duration => "duration".to_owned(),
            Self::Timestamp => "timestamp".to_owned(),
            Self::Type => "type".to_owned(),
            Self::List(element) => format!("list({})", element.name()),
            Self::Map(value) if value.is_open() => "map(dyn, dyn)".to_owned(),
            Self::Map(value) => format!("map(string, {})", value.name()),
            Self::Optional(value) => format!("optional_type({})", value.name()),
            Self::Object(..) => "object".to_owned(),
            Self::Metadata | Self::Typed(_) => "object".to_owned(),
            Self::Named(name) | Self::Record(name, _) => (*name).to_owned(),
            Self::Part(name) => name.clone(),
        }
    }

    /// Its name as a result: `null` is a value, `null_type` its type.
    pub fn result_name(&self) -> String {
        if matches!(self, Self::Null) { "null_type".to_owned() } else { self.name() }
    }

    /// `a bool`, as in "must evaluate to a bool".
    pub fn article(&self) -> String {
        format!("a {}", self.name())
    }

    fn is_dyn(&self) -> bool {
        matches!(self, Self::Dyn)
    }

    fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }

    /// Whether this type is `other`, and not only compatible with it: `dyn` is no `bool`.
    pub fn is<'b>(&self, other: &Ty<'b>) -> bool {
        match (self, other) {
            (Self::Dyn | Self::Open, Ty::Dyn | Ty::Open) => true,
            (Self::Dyn | Self::Open, _) | (_, Ty::Dyn | Ty::Open) => false,
            (Self::List(a), Ty::List(b)) | (Self::Map(a), Ty::Map(b)) | (Self::Optional(a), Ty::Optional(b)) => a.is(b),
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b) && a.accepts(b),
        }
    }

    /// Whether this type is `other` as far as both are decided.
    fn alike(&self, other: &Ty<'a>) -> bool {
        match (self, other) {
            (Self::Open, _) | (_, Self::Open) => true,
            (Self::List(a), Self::List(b)) | (Self::Map(a), Self::Map(b)) | (Self::Optional(a), Self::Optional(b)) => {
                a.alike(b)
            }
            (a, b) => a.is(b),
        }
    }

    /// The more general of two types that go together (cel-go `checker/types.go` `mostGeneral`).
    pub fn joined(self, other: Ty<'a>) -> Option<Ty<'a>> {
        match (self, other) {
            (Self::Open, ty) | (ty, Self::Open) => Some(ty),
            (Self::Dyn, _) | (_, Self::Dyn) => Some(Self::Dyn),
            (Self::List(a), Self::List(b)) => Some(Self::List(Box::new(a.joined(*b)?))),
            (Self::Map(a), Self::Map(b)) => Some(Self::Map(Box::new(a.joined(*b)?))),
            (Self::Optional(a), Self::Optional(b)) => Some(Self::Optional(Box::new(a.joined(*b)?))),
            (Self::Null, ty) | (ty, Self::Null) => ty.accepts(&Ty::Null).then_some(ty),
            (a, b) => a.accepts(&b).then_some(a),
        }
    }

    /// Whether a value of this type may be one of `other`.
    pub fn accepts<'b>(&self, other: &Ty<'b>) -> bool {
        match (self, other) {
            (Self::Dyn | Self::Open, _) | (_, Ty::Dyn | Ty::Open) => true,
            (Self::List(a), Ty::List(b)) | (Self::Map(a), Ty::Map(b)) | (Self::Optional(a), Ty::Optional(b)) => {
                a.accepts(b)
            }
            (Self::Object(a, _), Ty::Object(b, _)) => std::ptr::eq(*a, *b),
            (Self::Object(..), Ty::Map(_)) | (Self::Map(_), Ty::Object(..)) => true,
            // Of structs there is one each.
            (Self::Typed(Type::Struct(a)), Ty::Typed(Type::Struct(b))) => Arc::ptr_eq(a, b),
            (Self::Typed(_), Ty::Null | Ty::Map(_)) | (Self::Null | Self::Map(_), Ty::Typed(_)) => true,
            (Self::Named(a), Ty::Named(b)) | (Self::Record(a, _), Ty::Record(b, _)) => a == b,
            (Self::Part(a), Ty::Part(b)) => a == b,
            (Self::Record(..), Ty::Null) | (Self::Null, Ty::Record(..)) => true,
            // An object or an optional may be compared with null.
            (Self::Null, Ty::Object(..) | Ty::Optional(_) | Ty::Duration | Ty::Timestamp) => true,
            (Self::Object(..) | Self::Optional(_) | Self::Duration | Self::Timestamp, Ty::Null) => true,
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
        }
    }
}

/// The type of what decoding takes for a value of `ty`. Quantities and what may be of several types are anything.
pub fn of_type(ty: &Type) -> Ty<'static> {
    match ty {
        Type::Struct(_) => Ty::Typed(ty.clone()),
        Type::List(list) => Ty::List(Box::new(of_type(&list.element))),
        Type::Map(map) => Ty::Map(Box::new(of_type(&map.value))),
        Type::Either(_) => Ty::Dyn,
        Type::Scalar(scalar) => match scalar {
            Scalar::String | Scalar::Duration => Ty::String,
            Scalar::Bool => Ty::Bool,
            Scalar::Int32 | Scalar::Int64 => Ty::Int,
            Scalar::Double => Ty::Double,
            Scalar::Bytes => Ty::Bytes,
            Scalar::Time | Scalar::MicroTime => Ty::Timestamp,
            Scalar::Quantity | Scalar::IntOrString | Scalar::Any | Scalar::FieldsV1 => Ty::Dyn,
        },
    }
}

/// The type of a schema's values (`k8s.io/apiserver/pkg/cel/common/schemas.go` `SchemaDeclType`).
pub fn of_schema(schema: &Schema, resource: bool) -> Ty<'_> {
    if schema.int_or_string {
        return Ty::Dyn;
    }
    match schema.ty {
        Some(JsonType::Object) => match &schema.additional {
            Some(Additional::Schema(values)) if schema.properties.is_empty() => {
                Ty::Map(Box::new(of_schema(values, false)))
            }
            Some(Additional::Any) if schema.properties.is_empty() => Ty::Map(Box::new(Ty::Dyn)),
            _ if schema.preserve_unknown && schema.properties.is_empty() && !resource && !schema.embedded => {
                Ty::Map(Box::new(Ty::Dyn))
            }
            _ => Ty::Object(schema, resource || schema.embedded),
        },
        Some(JsonType::Array) => {
            Ty::List(Box::new(schema.items.as_ref().map_or(Ty::Dyn, |items| of_schema(items, false))))
        }
        Some(JsonType::String) => match schema.checks.format.as_deref() {
            Some("date-time" | "datetime" | "date") => Ty::Timestamp,
            Some("duration") => Ty::Duration,
            Some("byte") => Ty::Bytes,
            _ => Ty::String,
        },
        Some(JsonType::Integer) => Ty::Int,
        Some(JsonType::Number) => Ty::Double,
        Some(JsonType::Boolean) => Ty::Bool,
        None => Ty::Dyn,
    }
}

/// The type of an expression, or cel-go's errors.
pub fn check<'a>(
    tree: &IdedExpr,
    source: &str,
    places: &SourceInfo,
    variables: &[(&'static str, Ty<'a>)],
) -> Result<Ty<'a>, String> {
    let scope = variables.iter().map(|(name, ty)| ((*name).to_owned(), ty.clone())).collect();
    let mut checker = Checker { source, places, scope, errors: Vec::new(), mixed: Vec::new(), formatted: 0 };
    let ty = checker.ty(tree);
    let mut errors = if checker.errors.is_empty() { checker.mixed } else { checker.errors };
    if errors.is_empty() {
        return Ok(ty);
    }
    errors.sort_by_key(|(place, _)| *place);
    let said: Vec<String> = errors.into_iter().map(|(_, words)| words).collect();
    Err(format!("compilation failed: {}", said.join("\n")))
}

/// cel-go's text for what the parser says.
pub fn syntax(source: &str, errors: &ParseErrors) -> String {
    let said: Vec<String> = errors
        .errors
        .iter()
        .map(|error| {
            let (line, column) = (usize::try_from(error.pos.0).unwrap_or(1), usize::try_from(error.pos.1).unwrap_or(1));
            // What a macro says of its arguments is no matter of syntax.
            const OF_MACROS: [&str; 3] = ["argument must be", "duplicate variable name", "sortBy can only"];
            let said = error.msg.trim_start_matches("Syntax error: ");
            let of_macro = OF_MACROS.iter().any(|start| said.starts_with(start));
            let words = if of_macro { said.to_owned() } else { format!("Syntax error: {said}") };
            located(source, line.max(1), column.max(1), &words)
        })
        .collect();
    format!("compilation failed: {}", said.join("\n"))
}

fn located(source: &str, line: usize, column: usize, message: &str) -> String {
    let text = source.lines().nth(line - 1).unwrap_or_default();
    format!("ERROR: <input>:{line}:{column}: {message}\n | {text}\n | {}^", ".".repeat(column - 1))
}

struct Checker<'s, 'a> {
    source: &'s str,
    places: &'s SourceInfo,
    scope: BTreeMap<String, Ty<'a>>,
    /// With the places they are at.
    errors: Vec<Placed>,
    /// Lists and maps of several types, which are said only where all else is right.
    mixed: Vec<Placed>,
    /// How many calls of `format` are around.
    formatted: usize,
}

/// Line, column and words of an error.
type Placed = ((usize, usize), String);

impl<'a> Checker<'_, 'a> {
    fn error(&mut self, id: u64, message: &str) -> Ty<'a> {
        let placed = self.placed(id, message);
        self.errors.push(placed);
        Ty::Dyn
    }

    fn placed(&self, id: u64, message: &str) -> Placed {
        let offset = self.places.offset_for(id).map_or(0, |(start, _)| start as usize).min(self.source.len());
        let before = &self.source.as_bytes()[..offset];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        let column = 1 + before.iter().rev().take_while(|byte| **byte != b'\n').count();
        ((line, column), located(self.source, line, column, message))
    }

    fn ty(&mut self, expr: &IdedExpr) -> Ty<'a> {
        match self.found(expr) {
            Ty::Open => Ty::Dyn,
            ty => ty,
        }
    }

    fn found(&mut self, expr: &IdedExpr) -> Ty<'a> {
        match &expr.expr {
            Expr::Literal(literal) => match literal {
                LiteralValue::Boolean(_) => Ty::Bool,
                LiteralValue::Bytes(_) => Ty::Bytes,
                LiteralValue::Double(_) => Ty::Double,
                LiteralValue::Int(_) => Ty::Int,
                LiteralValue::Null => Ty::Null,
                LiteralValue::String(_) => Ty::String,
                LiteralValue::UInt(_) => Ty::Uint,
            },
            Expr::Ident(name) => self.ident(expr.id, name),
            Expr::Select(select) => self.select(expr.id, select),
            Expr::Call(call) => self.call(expr.id, call),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::List(list) => {
                let mut elements = Vec::new();
                for (index, element) in list.elements.iter().enumerate() {
                    let optional = list.optional_indices.contains(&index);
                    elements.push((element.id, there(self.ty(element), optional)));
                }
                Ty::List(Box::new(self.alike(elements)))
            }
            Expr::Map(map) => {
                let (mut keys, mut values) = (Vec::new(), Vec::new());
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        keys.push((entry.key.id, self.ty(&entry.key)));
                        values.push((entry.value.id, there(self.ty(&entry.value), entry.optional)));
                    }
                }
                let named = keys.iter().all(|(_, key)| key.accepts(&Ty::String));
                self.alike(keys);
                let values = self.alike(values);
                // Objects have strings for keys; a map with others can only be written in an expression.
                if named { Ty::Map(Box::new(values)) } else { Ty::Dyn }
            }
            Expr::Struct(of) => self.construct(expr.id, of),
            Expr::Unspecified => Ty::Dyn,
        }
    }

    /// The one type that all parts of a list or a map must have (cel-go `cel/validator.go`); those that are formatted
    /// need not.
    fn alike(&mut self, parts: Vec<(u64, Ty<'a>)>) -> Ty<'a> {
        let mut all = parts.into_iter();
        let Some((_, mut joined)) = all.next() else { return Ty::Open };
        for (id, ty) in all {
            match joined.clone().joined(ty.clone()) {
                Some(both) if joined.alike(&ty) => joined = both,
                _ => {
                    if self.formatted == 0 {
                        let words = format!("expected type '{}' but found '{}'", joined.name(), ty.name());
                        let placed = self.placed(id, &words);
                        self.mixed.push(placed);
                    }
                    return Ty::Dyn;
                }
            }
        }
        joined
    }

    /// `Object.spec{…}`, `JSONPatch{…}`: where the root of the name is declared, as in mutations. The schema of the object
    /// decides about an object's fields when the mutation is made; those of a patch are known.
    fn construct(&mut self, id: u64, of: &StructExpr) -> Ty<'a> {
        let root = of.type_name.split('.').next().unwrap_or_default();
        let declared = match self.scope.get(root) {
            Some(constructed @ Ty::Named(name)) if library::CONSTRUCTED.contains(name) => Some(constructed.clone()),
            _ => None,
        };
        for entry in &of.entries {
            let EntryExpr::StructField(field) = &entry.expr else { continue };
            let given = there(self.ty(&field.value), field.optional);
            if declared.is_some() && of.type_name == "JSONPatch" {
                self.patch_field(entry.id, &field.field, &given);
            }
        }
        match declared {
            Some(root) if of.type_name == root.name() => root,
            Some(_) => Ty::Part(of.type_name.clone()),
            None => self.error(id, &format!("undeclared reference to '{}' (in container '')", of.type_name)),
        }
    }

    /// A field of an operation of a JSON patch; its value may be anything.
    fn patch_field(&mut self, id: u64, name: &str, given: &Ty<'a>) {
        let wanted = match name {
            "op" | "path" | "from" => Ty::String,
            "value" => Ty::Dyn,
            _ => Ty::Named(""),
        };
        if !given.accepts(&wanted) || (wanted.name().is_empty() && given.is_dyn()) {
            let (wanted, given) = (wanted.name(), given.name());
            self.error(id, &format!("expected type of field '{name}' is '{wanted}' but provided type is '{given}'"));
        }
    }

    fn ident(&mut self, id: u64, name: &str) -> Ty<'a> {
        const TYPES: [&str; 12] = [
            "bool",
            "bytes",
            "double",
            "duration",
            "dyn",
            "int",
            "list",
            "map",
            "null_type",
            "string",
            "timestamp",
            "uint",
        ];
        match self.scope.get(name) {
            Some(ty) => ty.clone(),
            None if TYPES.contains(&name) => Ty::Type,
            None => self.error(id, &format!("undeclared reference to '{name}' (in container '')")),
        }
    }

    fn select(&mut self, id: u64, select: &SelectExpr) -> Ty<'a> {
        let operand = self.ty(&select.operand);
        let found = self.field(id, &operand, &select.field);
        if select.test { Ty::Bool } else { found }
    }

    fn field(&mut self, id: u64, operand: &Ty<'a>, name: &str) -> Ty<'a> {
        match operand {
            Ty::Dyn => Ty::Dyn,
            Ty::Map(value) => (**value).clone(),
            Ty::Optional(inner) => {
                let found = self.field(id, inner, name);
                if matches!(found, Ty::Optional(_)) { found } else { Ty::Optional(Box::new(found)) }
            }
            Ty::Metadata if matches!(name, "name" | "generateName") => Ty::String,
            Ty::Record(_, fields) => match fields.iter().find(|(field, _)| field == name) {
                Some((_, ty)) => ty.clone(),
                None => self.error(id, &format!("undefined field '{name}'")),
            },
            Ty::Named(authorizer::AUTHORIZER) if name == "requestResource" => Ty::Named(authorizer::RESOURCE_CHECK),
            Ty::Object(schema, resource) => match (resource, name) {
                (true, "apiVersion" | "kind") => Ty::String,
                (true, "metadata") => Ty::Metadata,
                _ => {
                    let known =
                        schema.properties.iter().find(|(property, _)| escaped(property).as_deref() == Some(name));
                    match known {
                        Some((_, property)) => of_schema(property, false),
                        None => self.error(id, &format!("undefined field '{name}'")),
                    }
                }
            },
            Ty::Typed(Type::Struct(of)) => {
                let known = of.fields().iter().find(|field| escaped(&field.name).as_deref() == Some(name));
                match known {
                    Some(field) => of_type(&field.ty),
                    None if of.unknown_fields() == UnknownFields::Keep => Ty::Dyn,
                    None => self.error(id, &format!("undefined field '{name}'")),
                }
            }
            Ty::Metadata => self.error(id, &format!("undefined field '{name}'")),
            other => {
                let message = format!("type '{}' does not support field selection", other.name());
                self.error(id, &message)
            }
        }
    }

    fn call(&mut self, id: u64, call: &CallExpr) -> Ty<'a> {
        let formats = usize::from(call.func_name == "format");
        self.formatted += formats;
        let result = self.called(id, call);
        self.formatted -= formats;
        result
    }

    fn called(&mut self, id: u64, call: &CallExpr) -> Ty<'a> {
        // `optional.of(x)`, `sets.contains(a, b)`: the target is no value but a name of functions.
        if let Some(Expr::Ident(namespace)) = call.target.as_deref().map(|target| &target.expr)
            && !self.scope.contains_key(namespace)
        {
            let arguments: Vec<Ty<'a>> = call.args.iter().map(|argument| self.ty(argument)).collect();
            let name = format!("{namespace}.{}", call.func_name);
            // Only mutations know of patches.
            let known = name != "jsonpatch.escapeKey" || self.scope.contains_key("JSONPatch");
            return match library::returns(&name, None, &arguments).filter(|_| known) {
                Some(ty) => ty,
                None if known && library::is_known(&name) => self.no_overload(id, &name, None, &arguments),
                None => self.no_namespace(id, call, &arguments),
            };
        }
        let target = call.target.as_deref().map(|target| self.ty(target));
        let arguments: Vec<Ty<'a>> = call.args.iter().map(|argument| self.ty(argument)).collect();
        if matches!(call.func_name.as_str(), operators::LOGICAL_AND | operators::LOGICAL_OR) {
            return self.both_bools(call, &arguments);
        }
        self.literal(call);
        if let Some(result) = operator(&call.func_name, &arguments) {
            return match result {
                Ok(Some(ty)) => ty,
                Ok(None) if call.func_name == operators::OPT_SELECT => self.optional_field(id, call, &arguments[0]),
                _ => self.no_overload(id, &call.func_name, None, &arguments),
            };
        }
        match library::returns(&call.func_name, target.as_ref(), &arguments) {
            Some(ty) => ty,
            None if library::is_known(&call.func_name) => {
                self.no_overload(id, &call.func_name, target.as_ref(), &arguments)
            }
            None => self.error(id, &format!("undeclared reference to '{}' (in container '')", call.func_name)),
        }
    }

    /// `regex.replace(…)`: what no functions go by is taken for a value.
    fn no_namespace(&mut self, id: u64, call: &CallExpr, arguments: &[Ty<'a>]) -> Ty<'a> {
        if let Some(target) = call.target.as_deref() {
            self.ty(target);
        }
        if library::is_known(&call.func_name) {
            return self.no_overload(id, &call.func_name, Some(&Ty::Named("!error!")), arguments);
        }
        self.error(id, &format!("undeclared reference to '{}' (in container '')", call.func_name))
    }

    fn both_bools(&mut self, call: &CallExpr, arguments: &[Ty<'a>]) -> Ty<'a> {
        for (argument, ty) in call.args.iter().zip(arguments) {
            if !ty.accepts(&Ty::Bool) {
                self.error(argument.id, &format!("expected type 'bool' but found '{}'", ty.name()));
            }
        }
        Ty::Bool
    }

    /// A pattern, span or moment that stands there as a text can be read now (cel-go `cel/validator.go`).
    fn literal(&mut self, call: &CallExpr) {
        let (Some(last), name) = (call.args.last(), call.func_name.as_str()) else { return };
        let Expr::Literal(LiteralValue::String(text)) = &last.expr else { return };
        let text = text.inner();
        let reads = match (name, call.target.is_some()) {
            ("matches", _) => pattern::compile(text).is_ok(),
            ("duration", false) => crate::time::parse_duration(text).is_ok(),
            ("timestamp", false) => text.parse::<jiff::Timestamp>().is_ok(),
            _ => true,
        };
        if !reads {
            self.error(last.id, &format!("invalid {name} argument"));
        }
    }

    fn optional_field(&mut self, id: u64, call: &CallExpr, operand: &Ty<'a>) -> Ty<'a> {
        let Some(Expr::Literal(LiteralValue::String(name))) = call.args.get(1).map(|argument| &argument.expr) else {
            return Ty::Dyn;
        };
        let found = self.field(id, operand, name.inner());
        if matches!(found, Ty::Optional(_)) { found } else { Ty::Optional(Box::new(found)) }
    }

    fn no_overload(&mut self, id: u64, name: &str, target: Option<&Ty<'a>>, arguments: &[Ty<'a>]) -> Ty<'a> {
        let list: Vec<String> = arguments.iter().map(Ty::name).collect();
        let receiver = target.map(|target| format!("{}.", target.name())).unwrap_or_default();
        self.error(id, &format!("found no matching overload for '{name}' applied to '{receiver}({})'", list.join(", ")))
    }

    fn comprehension(&mut self, of: &ComprehensionExpr) -> Ty<'a> {
        let range = self.ty(&of.iter_range);
        let (first, second) = match range {
            Ty::List(element) if of.iter_var2.is_some() => (Ty::Int, *element),
            Ty::List(element) => (*element, Ty::Dyn),
            Ty::Map(value) => (Ty::String, *value),
            Ty::Dyn => (Ty::Dyn, Ty::Dyn),
            other => {
                let message = format!(
                    "expression of type '{}' cannot be range of a comprehension (must be list, map, or dynamic)",
                    other.name()
                );
                (self.error(of.iter_range.id, &message), Ty::Dyn)
            }
        };
        let accumulated = self.ty(&of.accu_init);
        let before = self.scope.clone();
        self.scope.insert(of.iter_var.clone(), first);
        if let Some(name) = &of.iter_var2 {
            self.scope.insert(name.clone(), second);
        }
        self.scope.insert(of.accu_var.clone(), accumulated.clone());
        self.ty(&of.loop_cond);
        let step = self.ty(&of.loop_step);
        // What a list or a map gathers is known only after the first turn.
        let gathers = matches!(&accumulated, Ty::List(inner) | Ty::Map(inner) if inner.is_open());
        self.scope.insert(of.accu_var.clone(), if gathers { step } else { accumulated });
        let result = self.ty(&of.result);
        self.scope = before;
        result
    }
}

/// The type of a part that may be left out.
fn there(ty: Ty<'_>, optional: bool) -> Ty<'_> {
    match ty {
        Ty::Optional(inner) if optional => *inner,
        ty => ty,
    }
}

/// The type of an operator's result: `None` for what is no operator, an error where it takes no such operands, no type
/// where the caller finds it.
#[allow(clippy::type_complexity)] // an operator or not, applicable or not, known or not
fn operator<'a>(name: &str, of: &[Ty<'a>]) -> Option<Result<Option<Ty<'a>>, ()>> {
    let ok = |ty: Ty<'a>| Some(Ok(Some(ty)));
    let wrong = Some(Err(()));
    let bools = || of.iter().all(|ty| ty.accepts(&Ty::Bool));
    Some(match (name, of) {
        (
            operators::LOGICAL_AND | operators::LOGICAL_OR | operators::LOGICAL_NOT | operators::NOT_STRICTLY_FALSE,
            _,
        ) => {
            return if bools() { ok(Ty::Bool) } else { wrong };
        }
        (operators::EQUALS | operators::NOT_EQUALS, [a, b]) => return if a.accepts(b) { ok(Ty::Bool) } else { wrong },
        (operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS, [a, b]) => {
            return if comparable(a, b) { ok(Ty::Bool) } else { wrong };
        }
        (operators::CONDITIONAL, [condition, a, b]) => {
            let joined = a.clone().joined(b.clone()).filter(|_| condition.accepts(&Ty::Bool));
            return joined.map_or(wrong, ok);
        }
        (operators::IN, [item, container]) => return if contains(container, item) { ok(Ty::Bool) } else { wrong },
        (operators::INDEX, [container, key]) => return Some(index(container, key).map(Some).ok_or(())),
        (operators::OPT_INDEX, [container, key]) => {
            // What may be there of what may be there is wrapped once.
            let container = match container {
                Ty::Optional(inner) if inner.is_dyn() => return ok(Ty::Optional(Box::new(Ty::Open))),
                Ty::Optional(inner) => inner,
                container => container,
            };
            return Some(index(container, key).map(|ty| Some(Ty::Optional(Box::new(ty)))).ok_or(()));
        }
        (operators::OPT_SELECT, _) => return Some(Ok(None)),
        (operators::NEGATE, [ty]) => match ty {
            Ty::Int | Ty::Double | Ty::Duration | Ty::Dyn => Ok(Some(ty.clone())),
            _ => Err(()),
        },
        (
            operators::ADD | operators::SUBSTRACT | operators::MULTIPLY | operators::DIVIDE | operators::MODULO,
            [a, b],
        ) => arithmetic(name, a, b).map(Some).ok_or(()),
        _ => return None,
    })
}

fn comparable(a: &Ty<'_>, b: &Ty<'_>) -> bool {
    let number = |ty: &Ty<'_>| matches!(ty, Ty::Int | Ty::Uint | Ty::Double);
    let ordered = |ty: &Ty<'_>| {
        number(ty) || matches!(ty, Ty::Dyn | Ty::Bool | Ty::String | Ty::Bytes | Ty::Duration | Ty::Timestamp)
    };
    ordered(a) && ordered(b) && (a.accepts(b) || (number(a) && number(b)))
}

fn contains(container: &Ty<'_>, item: &Ty<'_>) -> bool {
    match container {
        Ty::Dyn => true,
        Ty::List(element) => element.accepts(item),
        Ty::Map(_) => item.accepts(&Ty::String),
        _ => false,
    }
}

fn index<'a>(container: &Ty<'a>, key: &Ty<'a>) -> Option<Ty<'a>> {
    match container {
        Ty::Dyn => Some(Ty::Dyn),
        Ty::List(element) if key.accepts(&Ty::Int) => Some((**element).clone()),
        Ty::Map(value) if key.accepts(&Ty::String) => Some((**value).clone()),
        // What is found in something that may be anything is decided by what it is used for.
        Ty::Optional(inner) if inner.is_dyn() => Some(Ty::Optional(Box::new(Ty::Open))),
        Ty::Optional(inner) => index(inner, key).map(|ty| Ty::Optional(Box::new(ty))),
        _ => None,
    }
}

fn arithmetic<'a>(name: &str, a: &Ty<'a>, b: &Ty<'a>) -> Option<Ty<'a>> {
    Some(match (name, a, b) {
        (_, Ty::Dyn, other) | (_, other, Ty::Dyn) => other.clone(),
        (_, Ty::Int, Ty::Int) => Ty::Int,
        (_, Ty::Uint, Ty::Uint) => Ty::Uint,
        (operators::MODULO, ..) => return None,
        (_, Ty::Double, Ty::Double) => Ty::Double,
        (operators::ADD, Ty::String, Ty::String) => Ty::String,
        (operators::ADD, Ty::Bytes, Ty::Bytes) => Ty::Bytes,
        (operators::ADD, Ty::List(_), Ty::List(_)) => return a.clone().joined(b.clone()),
        (operators::ADD | operators::SUBSTRACT, Ty::Duration, Ty::Duration) => Ty::Duration,
        (operators::ADD, Ty::Timestamp, Ty::Duration) | (operators::ADD, Ty::Duration, Ty::Timestamp) => Ty::Timestamp,
        (operators::SUBSTRACT, Ty::Timestamp, Ty::Timestamp) => Ty::Duration,
        (operators::SUBSTRACT, Ty::Timestamp, Ty::Duration) => Ty::Timestamp,
        _ => return None,
    })
}
