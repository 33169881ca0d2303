//! `x-kubernetes-validations`: rules in CEL that a value, and a change of a value, must satisfy.
//!
//! `apiextensions-apiserver/pkg/apiserver/schema/cel/validation.go`.

use serde_json::Value;

use super::cel::check::{self, Ty};
use super::cel::{Expr, Failure, values};
use super::schema::{Additional, JsonType, Schema};
use super::validate::Earlier;
use crate::status::{FieldError, FieldPath};
use crate::strategy::field::Errors;

/// What all rules of one object may cost together (`RuntimeCELCostBudget`).
const BUDGET: u64 = 10_000_000;

/// Longest text of a `messageExpression`, in bytes (`maxMessageExpressionLength`).
const MAX_MESSAGE_BYTES: usize = 5 * 1024;

/// `reason` of a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reason {
    /// `FieldValueInvalid`
    #[default]
    Invalid,
    /// `FieldValueForbidden`
    Forbidden,
    /// `FieldValueRequired`
    Required,
    /// `FieldValueDuplicate`
    Duplicate,
}

/// One rule. What does not compile is refused when the definition is written; should it ever be stored, it says so of
/// every object.
#[derive(Debug)]
pub struct Rule {
    source: String,
    message: String,
    reason: Reason,
    /// Names below the value, from `fieldPath`.
    field: Vec<Step>,
    optional_old_self: bool,
    program: Result<Expr, String>,
    message_expression: Option<Result<Expr, String>>,
}

/// A step of `fieldPath`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    Key(String),
}

impl Rule {
    /// Compiles a rule of a node.
    pub fn new(rule: &Value, schema: &Schema, root: bool) -> Rule {
        let text = |name: &str| rule[name].as_str().unwrap_or_default().trim().to_owned();
        let optional_old_self = rule["optionalOldSelf"] == true;
        let own = check::of_schema(schema, root);
        let old = if optional_old_self { Ty::Optional(Box::new(own.clone())) } else { own.clone() };
        let variables = [("self", own), ("oldSelf", old)];
        let expression = rule["messageExpression"].as_str().filter(|text| !text.is_empty());
        Rule {
            source: text("rule"),
            message: text("message"),
            reason: match rule["reason"].as_str() {
                Some("FieldValueForbidden") => Reason::Forbidden,
                Some("FieldValueRequired") => Reason::Required,
                Some("FieldValueDuplicate") => Reason::Duplicate,
                _ => Reason::Invalid,
            },
            field: field_path(&text("fieldPath")).unwrap_or_default(),
            optional_old_self,
            program: Expr::compile(&text("rule"), &variables, &Ty::Bool),
            message_expression: expression.map(|source| Expr::compile(source.trim(), &variables, &Ty::String)),
        }
    }

    /// Why the rule does not compile.
    pub fn fault(&self) -> Option<&str> {
        self.program.as_ref().err().map(String::as_str)
    }

    /// Why its `messageExpression` does not compile.
    pub fn message_fault(&self) -> Option<&str> {
        self.message_expression.as_ref()?.as_ref().err().map(String::as_str)
    }

    /// Whether it compares with what was.
    pub fn is_transition(&self) -> bool {
        self.program.as_ref().is_ok_and(|program| program.uses_old_self)
    }

    /// The rule as errors name it.
    fn name(&self) -> &str {
        if self.message.is_empty() { &self.source } else { &self.message }
    }

    fn default_message(&self) -> String {
        if self.message.is_empty() { format!("failed rule: {}", self.source) } else { self.message.clone() }
    }
}

/// Reads `.spec.a['b.c']`; `None` if it is none.
fn field_path(text: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("['") {
            let (name, after) = after.split_once("']")?;
            steps.push(Step::Key(name.to_owned()));
            rest = after;
            continue;
        }
        let after = rest.strip_prefix('.')?;
        let end = after.find(['.', '[']).unwrap_or(after.len());
        if end == 0 {
            return None;
        }
        steps.push(Step::Field(after[..end].to_owned()));
        rest = &after[end..];
    }
    Some(steps)
}

/// The field below a schema that a path names (`ValidFieldPath`); what is wrong with the path otherwise. Only paths of
/// rules may name members as `['a.b']`.
pub fn valid_path<'a>(text: &str, schema: &'a Schema, by_key: bool) -> Result<(Vec<String>, &'a Schema), String> {
    const END: &str = "unexpected end of JSON path";
    let unknown = || "does not refer to a valid field".to_owned();
    let (mut names, mut place, mut rest) = (Vec::new(), schema, text);
    while !rest.is_empty() {
        let name = if let Some(after) = rest.strip_prefix('[') {
            if !by_key {
                return Err("array notation is not allowed".to_owned());
            }
            let quoted = after.strip_prefix('\'').and_then(|after| after.split_once('\''));
            let Some((name, after)) = quoted else {
                let end = after.find(['.', '[', ']']).unwrap_or(after.len());
                return Err(if after.is_empty() {
                    END.to_owned()
                } else {
                    format!("expected single quoted string but got {}", &after[..end.max(1)])
                });
            };
            rest = after.strip_prefix(']').ok_or_else(|| match after.chars().next() {
                None => END.to_owned(),
                Some(next) => format!("expected ] but got {next}"),
            })?;
            name
        } else if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[', ']']).unwrap_or(after.len());
            if after.is_empty() {
                return Err(END.to_owned());
            }
            // A delimiter in the place of a name is taken for one.
            let end = end.max(1);
            rest = &after[end..];
            &after[..end]
        } else {
            let end = rest.find(['.', '[', ']']).unwrap_or(rest.len()).max(1);
            return Err(format!("expected [ or . but got: {}", &rest[..end]));
        };
        place = match place.values() {
            Some(values) if place.properties.is_empty() => values,
            _ => place.properties.get(name).ok_or_else(unknown)?,
        };
        names.push(name.to_owned());
    }
    Ok((names, place))
}

/// Asks all rules of a schema about an object, and about its change. What has not changed is not refused again.
pub fn evaluate(schema: &Schema, value: &Value, old: Option<&Value>, errors: &mut Errors) {
    let about = if old.is_some() { About::Changed } else { About::All };
    Walk { budget: BUDGET, stopped: false, about, errors }.node(schema, value, old, &FieldPath::root(), true);
}

/// What [`evaluate`] lets pass because it was there before: its author is warned.
pub fn tolerated(schema: &Schema, value: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let mut walk = Walk { budget: BUDGET, stopped: false, about: About::Unchanged, errors: &mut errors };
    walk.node(schema, value, Some(old), &FieldPath::root(), true);
    errors
}

/// As [`evaluate`], of a value at a path: all its rules are asked, whether or not it has changed.
pub fn evaluate_at(
    schema: &Schema,
    value: &Value,
    old: Option<&Value>,
    path: &FieldPath,
    resource: bool,
    errors: &mut Errors,
) {
    Walk { budget: BUDGET, stopped: false, about: About::All, errors }.node(schema, value, old, path, resource);
}

struct Walk<'a> {
    budget: u64,
    /// The budget is spent, or an expression went beyond its own: nothing is asked any more.
    stopped: bool,
    about: About,
    errors: &'a mut Errors,
}

/// Of which values of an object rules are asked.
#[derive(Clone, Copy, PartialEq)]
enum About {
    All,
    /// Those that an update changes, and those that transition rules speak of.
    Changed,
    /// The others.
    Unchanged,
}

impl Walk<'_> {
    fn node(&mut self, schema: &Schema, value: &Value, old: Option<&Value>, path: &FieldPath, root: bool) {
        if !schema.has_rules || self.stopped || value.is_null() {
            return;
        }
        if !schema.rules.is_empty() {
            self.rules(schema, value, old, path, root);
        }
        match value {
            Value::Object(object) => {
                for (name, value) in object {
                    let before = old.and_then(|old| old.get(name)).filter(|old| !old.is_null());
                    if let Some(inner) = schema.properties.get(name) {
                        self.node(inner, value, before, &path.child(name.clone()), false);
                    } else if let Some(Additional::Schema(values)) = &schema.additional {
                        self.node(values, value, before, &path.key(name.clone()), false);
                    }
                }
            }
            Value::Array(list) => {
                let Some(items) = &schema.items else { return };
                let earlier = Earlier::of(schema, old);
                for (index, item) in list.iter().enumerate() {
                    self.node(items, item, earlier.of_item(item), &path.index(index), false);
                }
            }
            _ => {}
        }
    }

    fn rules(&mut self, schema: &Schema, value: &Value, old: Option<&Value>, path: &FieldPath, root: bool) {
        let own = values::value(schema, value, root);
        let before = old.map(|old| values::value(schema, old, root));
        for rule in &schema.rules {
            // Transition rules ask about changes only, unless they say that they take an absent past too.
            if rule.is_transition() && before.is_none() && !rule.optional_old_self {
                continue;
            }
            let about = if !rule.is_transition() && old == Some(value) { About::Unchanged } else { About::Changed };
            if self.about != About::All && self.about != about {
                continue;
            }
            let past = match (&before, rule.optional_old_self) {
                (Some(before), false) => before.clone(),
                (before, true) => values::optional(before.clone()),
                (None, false) => ::cel::Value::Null,
            };
            let variables = [("self", own.clone()), ("oldSelf", past)];
            self.rule(rule, (schema.ty, value), &variables, path);
            if self.stopped {
                return;
            }
        }
    }

    fn rule(
        &mut self,
        rule: &Rule,
        (ty, value): (Option<JsonType>, &Value),
        variables: &[(&'static str, ::cel::Value)],
        path: &FieldPath,
    ) {
        let shown = (!value.is_object() && !value.is_array()).then(|| value.clone());
        // What is not the value's fault shows its type.
        let invalid = |detail: String| FieldError::invalid(path, ty.map_or("", JsonType::name), detail);
        let program = match &rule.program {
            Ok(program) => program,
            Err(fault) => return self.errors.push(invalid(format!("rule compile error: {fault}"))),
        };
        match program.evaluate(variables, &mut self.budget) {
            Ok(::cel::Value::Bool(true)) => {}
            Ok(_) => {
                let message = self.message(rule, variables);
                self.refuse(rule, shown.clone(), message, path);
            }
            Err(Failure::Overload(words)) => self.errors.push(invalid(format!(
                "'{words}': call arguments did not match a supported operator, function or macro signature for rule: {}",
                rule.name()
            ))),
            Err(Failure::Cost) => {
                self.stopped = true;
                self.errors.push(invalid(format!(
                    "'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: {}",
                    rule.name()
                )));
            }
            Err(Failure::Error(words)) => self.errors.push(invalid(format!("{words} evaluating rule: {}", rule.name()))),
        }
        if self.budget == 0 && !self.stopped {
            self.stopped = true;
            self.errors.push(invalid(
                "validation failed due to running out of cost budget, no further validation rules will be run"
                    .to_owned(),
            ));
        }
    }

    /// What `messageExpression` makes, if it makes a sensible line; else the message, else the rule.
    fn message(&mut self, rule: &Rule, variables: &[(&'static str, ::cel::Value)]) -> String {
        let Some(Ok(expression)) = &rule.message_expression else { return rule.default_message() };
        match expression.evaluate(variables, &mut self.budget) {
            Ok(::cel::Value::String(text)) => {
                let text = text.trim();
                let sensible = !text.is_empty() && text.len() <= MAX_MESSAGE_BYTES && !text.contains('\n');
                if sensible { text.to_owned() } else { rule.default_message() }
            }
            _ => rule.default_message(),
        }
    }

    fn refuse(&mut self, rule: &Rule, shown: Option<Value>, message: String, path: &FieldPath) {
        let path = rule.field.iter().fold(path.clone(), |path, step| match step {
            Step::Field(name) => path.child(name.clone()),
            Step::Key(name) => path.key(name.clone()),
        });
        self.errors.push(match (rule.reason, shown) {
            (Reason::Forbidden, _) => FieldError::forbidden(&path, message),
            (Reason::Required, _) => FieldError::required(&path, message),
            (Reason::Duplicate, shown) => FieldError { bad_value: shown, ..FieldError::duplicate(&path, Value::Null) },
            (Reason::Invalid, Some(value)) => FieldError::invalid(&path, value, message),
            (Reason::Invalid, None) => FieldError::invalid_omitted(&path, message),
        });
    }
}
