//! What an expression costs at worst, before any value is: from how large the values it names may be.
//!
//! cel-go `checker/cost.go`, `k8s.io/apiserver/pkg/cel/library/cost.go`. Where several overloads of a function fit what is
//! known of its arguments, the dearest counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, ListExpr, LiteralValue, operators};

/// What a step through a text costs for each of its characters: a tenth.
const TRAVERSAL_DIVISOR: u64 = 10;
/// What a character of a pattern costs for each step: a quarter.
const PATTERN_DIVISOR: u64 = 4;
const LIST_COST: u64 = 10;
const MAP_COST: u64 = 30;
const MESSAGE_COST: u64 = 40;
const AUTHORIZATION_COST: u64 = 350_000;
/// What a character costs that is held against a named format.
const FORMAT_PATTERN: u64 = 128 / PATTERN_DIVISOR;
/// Bytes of two addresses at their longest.
const ADDRESS_BYTES: u64 = 16;

/// How large the values of an expression may be, and what they are made of.
#[derive(Clone, Debug)]
pub enum Shape {
    /// A number, a time, yes or no.
    Scalar,
    /// The same where a schema says how large it is: most have no size at all.
    Sized(u64),
    /// A text of at most so many characters.
    Text(u64),
    /// A list of at most so many elements.
    List {
        /// How many.
        most: u64,
        /// What each is.
        element: Arc<Shape>,
    },
    /// A map of at most so many entries.
    Map {
        /// How many.
        most: u64,
        /// What each key is.
        key: Arc<Shape>,
        /// What each value is.
        value: Arc<Shape>,
    },
    /// Fields.
    Record {
        /// Its size at most.
        most: u64,
        /// By name.
        fields: Arc<BTreeMap<String, Shape>>,
    },
    /// A value of a library, which has no size.
    Opaque,
    /// Anything of at most this size.
    Any(u64),
}

impl Shape {
    const UNKNOWN: Shape = Shape::Any(u64::MAX);

    /// Its size at most.
    fn size(&self) -> u64 {
        match self {
            Shape::Scalar => 1,
            Shape::Sized(most) | Shape::Text(most) | Shape::Any(most) => *most,
            Shape::List { most, .. } | Shape::Map { most, .. } | Shape::Record { most, .. } => *most,
            Shape::Opaque => u64::MAX,
        }
    }

    fn may_be_text(&self) -> bool {
        matches!(self, Shape::Text(_) | Shape::Any(_))
    }

    fn may_be_list(&self) -> bool {
        matches!(self, Shape::List { .. } | Shape::Any(_))
    }

    /// What selects a field, or takes an entry by its key.
    fn member(&self, name: Option<&str>) -> Shape {
        match self {
            Shape::Map { value, .. } => (**value).clone(),
            Shape::List { element, .. } => (**element).clone(),
            Shape::Record { fields, .. } => name.and_then(|name| fields.get(name)).cloned().unwrap_or(Shape::UNKNOWN),
            _ => Shape::UNKNOWN,
        }
    }

    /// What is known of it once no place in a schema says how large it is.
    fn unplaced(self) -> Shape {
        match self {
            Shape::Sized(_) => Shape::Scalar,
            Shape::Text(_) => Shape::Text(u64::MAX),
            Shape::List { element, .. } => Shape::List { most: u64::MAX, element },
            Shape::Map { key, value, .. } => Shape::Map { most: u64::MAX, key, value },
            Shape::Record { fields, .. } => Shape::Record { most: u64::MAX, fields },
            Shape::Any(_) => Shape::UNKNOWN,
            other => other,
        }
    }

    fn is_scalar(&self) -> bool {
        matches!(self, Shape::Scalar | Shape::Sized(_))
    }

    /// What may be one or the other.
    fn or(self, other: Shape) -> Shape {
        match (self, other) {
            (Shape::Scalar, Shape::Scalar) => Shape::Scalar,
            (one, other) if one.is_scalar() && other.is_scalar() => Shape::Sized(one.size().max(other.size())),
            (Shape::Text(a), Shape::Text(b)) => Shape::Text(a.max(b)),
            (Shape::List { most, element }, Shape::List { most: other, element: another }) => {
                Shape::List { most: most.max(other), element: Arc::new((*element).clone().or((*another).clone())) }
            }
            (Shape::Opaque, Shape::Opaque) => Shape::Opaque,
            (one, other) => Shape::Any(one.size().max(other.size())),
        }
    }
}

/// What a tree costs at worst, over some variables.
pub fn estimate(tree: &IdedExpr, variables: Vec<(String, Shape)>) -> u64 {
    Estimator { scope: variables.into_iter().collect(), root: None }.node(tree).0
}

/// What the tree of a rule costs at worst, over a value of a schema as it is and as it was.
pub fn estimate_rule(tree: &IdedExpr, root: &Shape) -> u64 {
    let scope = ["self", "oldSelf"].into_iter().map(|name| (name.to_owned(), root.clone())).collect();
    Estimator { scope, root: Some(root.clone()) }.node(tree).0
}

struct Estimator {
    scope: BTreeMap<String, Shape>,
    /// Of rules. apiextensions looks for the size of a value by the way to it, the first step of which it takes for
    /// `self`; what is found in a value without such a way, like the result of a function, so counts as the root.
    root: Option<Shape>,
}

fn traversal(size: u64) -> u64 {
    size.div_ceil(TRAVERSAL_DIVISOR)
}

impl Estimator {
    fn node(&mut self, expr: &IdedExpr) -> (u64, Shape) {
        match &expr.expr {
            Expr::Literal(literal) => (0, of_literal(literal)),
            Expr::Ident(name) => (1, self.scope.get(name).or(self.root.as_ref()).cloned().unwrap_or(Shape::UNKNOWN)),
            Expr::Select(select) => {
                let (cost, operand) = self.node(&select.operand);
                if select.test {
                    return (cost, Shape::Scalar);
                }
                let through = u64::from(matches!(operand, Shape::Map { .. } | Shape::Record { .. }));
                let found = match &self.root {
                    Some(root) if !has_way(&select.operand) => root.clone(),
                    _ => operand.member(Some(&select.field)),
                };
                (cost.saturating_add(through), found)
            }
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::List(list) => self.list(list),
            Expr::Map(map) => {
                let (mut cost, mut keys, mut values) = (MAP_COST, None, None);
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        let ((a, key), (b, value)) = (self.node(&entry.key), self.node(&entry.value));
                        cost = cost.saturating_add(a).saturating_add(b);
                        keys = Some(either(keys, key));
                        values = Some(either(values, value));
                    }
                }
                let most = map.entries.len() as u64;
                let (key, value) = (keys.unwrap_or(Shape::Any(0)), values.unwrap_or(Shape::Any(0)));
                (cost, Shape::Map { most, key: Arc::new(key), value: Arc::new(value) })
            }
            Expr::Struct(of) => {
                let mut cost = MESSAGE_COST;
                for entry in &of.entries {
                    if let EntryExpr::StructField(field) = &entry.expr {
                        cost = cost.saturating_add(self.node(&field.value).0);
                    }
                }
                (cost, Shape::UNKNOWN)
            }
            Expr::Unspecified => (0, Shape::UNKNOWN),
        }
    }

    fn list(&mut self, list: &ListExpr) -> (u64, Shape) {
        let (mut cost, mut elements) = (LIST_COST, None);
        for element in &list.elements {
            let (own, shape) = self.node(element);
            cost = cost.saturating_add(own);
            elements = Some(either(elements, shape));
        }
        let element = Arc::new(elements.unwrap_or(Shape::Any(0)));
        (cost, Shape::List { most: list.elements.len() as u64, element })
    }

    /// A loop, or the name that `cel.bind` gives a value.
    fn comprehension(&mut self, of: &ComprehensionExpr) -> (u64, Shape) {
        let (range_cost, range) = self.node(&of.iter_range);
        let (init_cost, init) = self.node(&of.accu_init);
        let before = self.scope.clone();
        let gathers = matches!(init, Shape::List { .. } | Shape::Map { .. });
        self.scope.insert(of.accu_var.clone(), init.clone());
        let is_bind = matches!(&of.iter_range.expr, Expr::List(list) if list.elements.is_empty())
            && matches!(&of.loop_cond.expr, Expr::Literal(LiteralValue::Boolean(known)) if !known.inner());
        let mut cost = range_cost.saturating_add(init_cost);
        let mut step = Shape::UNKNOWN;
        if !is_bind {
            let (first, second) = match &range {
                Shape::Map { key, value, .. } => ((**key).clone(), (**value).clone()),
                other => (other.member(None), other.member(None)),
            };
            let first =
                if of.iter_var2.is_some() && !matches!(range, Shape::Map { .. }) { Shape::Scalar } else { first };
            let (first, second) = match &self.root {
                Some(root) if !has_way(&of.iter_range) => (root.clone(), root.clone()),
                _ => (first, second),
            };
            self.scope.insert(of.iter_var.clone(), first);
            if let Some(name) = &of.iter_var2 {
                self.scope.insert(name.clone(), second);
            }
            let condition_cost = self.node(&of.loop_cond).0;
            let (step_cost, gathered) = self.node(&of.loop_step);
            step = gathered;
            cost = cost.saturating_add(range.size().saturating_mul(condition_cost.saturating_add(step_cost)));
        }
        let (result_cost, result) = self.node(&of.result);
        self.scope = before;
        let shape = match (is_bind, gathers, step) {
            (true, ..) => result,
            (false, true, Shape::List { element, .. }) => Shape::List { most: range.size(), element },
            (false, true, _) => Shape::Any(range.size()),
            (false, false, _) => init,
        };
        (cost.saturating_add(result_cost), shape)
    }

    fn call(&mut self, call: &CallExpr) -> (u64, Shape) {
        let name = call.func_name.as_str();
        // `quantity`, `cel.…`: what looks like a target may be the first part of a function's name.
        let target = call.target.as_deref().filter(|target| !self.is_namespace(target));
        let (target_cost, target) = match target {
            Some(target) => {
                let (cost, shape) = self.node(target);
                (cost, Some(shape))
            }
            None => (0, None),
        };
        let (costs, shapes): (Vec<u64>, Vec<Shape>) = call.args.iter().map(|argument| self.node(argument)).unzip();
        let sum = costs.iter().fold(target_cost, |sum, cost| sum.saturating_add(*cost));
        match (name, costs.as_slice(), shapes.as_slice()) {
            (operators::CONDITIONAL, [condition, a, b], [_, one, other]) => {
                (condition.saturating_add(*a.max(b)), one.clone().or(other.clone()))
            }
            (operators::LOGICAL_AND | operators::LOGICAL_OR, ..) => (sum, Shape::Scalar),
            ("dyn", _, [of]) => (sum.saturating_add(1), of.clone()),
            (operators::INDEX, _, [container, _]) => {
                let found = match (&self.root, container.member(None)) {
                    (Some(root), Shape::Any(_)) if !has_way(&call.args[0]) => root.clone(),
                    (_, found) => found,
                };
                (sum.saturating_add(1), found)
            }
            // What may be there is nothing that a schema tells the size of.
            (operators::OPT_SELECT, _, [of, _]) => {
                let name = match &call.args[1].expr {
                    Expr::Literal(LiteralValue::String(name)) => Some(name.inner()),
                    _ => None,
                };
                (sum.saturating_add(1), of.member(name).unplaced())
            }
            (operators::OPT_INDEX, _, [of, _]) => (sum.saturating_add(1), of.member(None).unplaced()),
            ("value" | "orValue" | "or", ..) if target.is_some() => {
                (sum.saturating_add(1), target.map_or(Shape::UNKNOWN, Shape::unplaced))
            }
            _ => {
                let (own, shape) = function(name, target.as_ref(), &shapes, &call.args);
                (sum.saturating_add(own), shape)
            }
        }
    }

    fn is_namespace(&self, target: &IdedExpr) -> bool {
        matches!(&target.expr, Expr::Ident(name) if !self.scope.contains_key(name))
    }
}

/// Whether a value stands in a variable, or somewhere below one.
fn has_way(expr: &IdedExpr) -> bool {
    match &expr.expr {
        Expr::Ident(name) => !name.starts_with('@'),
        Expr::Select(_) => true,
        Expr::Call(call) => call.func_name == operators::INDEX,
        _ => false,
    }
}

fn of_literal(literal: &LiteralValue) -> Shape {
    match literal {
        LiteralValue::String(text) => Shape::Text(text.inner().chars().count() as u64),
        LiteralValue::Bytes(bytes) => Shape::Text(bytes.inner().len() as u64),
        _ => Shape::Scalar,
    }
}

fn either(known: Option<Shape>, other: Shape) -> Shape {
    match known {
        None => other,
        Some(known) => known.or(other),
    }
}

/// What a call costs beside its arguments, and what it gives.
fn function(name: &str, target: Option<&Shape>, of: &[Shape], args: &[IdedExpr]) -> (u64, Shape) {
    let size = |shape: Option<&Shape>| shape.map_or(u64::MAX, Shape::size);
    let first = of.first();
    let on = size(target);
    let matching =
        |text: u64, pattern: u64| traversal(text.saturating_add(1)).saturating_mul(pattern.div_ceil(PATTERN_DIVISOR));
    match (name, target, of) {
        (operators::EQUALS | operators::NOT_EQUALS, _, [a, b]) => {
            let both_opaque = matches!((a, b), (Shape::Opaque, Shape::Opaque));
            let cost = if both_opaque && name == operators::EQUALS { 1 } else { traversal(a.size().min(b.size())) };
            (cost, Shape::Scalar)
        }
        (operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS, _, [a, b]) => {
            let texts = a.may_be_text() && b.may_be_text();
            (if texts { traversal(a.size().min(b.size())).max(1) } else { 1 }, Shape::Scalar)
        }
        (operators::ADD, _, [a, b]) => {
            let together = a.size().saturating_add(b.size());
            match (a, b) {
                (Shape::List { element, .. }, Shape::List { element: other, .. }) => {
                    (1, Shape::List { most: together, element: Arc::new((**element).clone().or((**other).clone())) })
                }
                (Shape::Text(_), Shape::Text(_)) => (traversal(together), Shape::Text(together)),
                (a, b) if a.may_be_text() && b.may_be_text() => (traversal(together).max(1), Shape::Any(together)),
                (a, b) if a.is_scalar() || b.is_scalar() => (1, Shape::Scalar),
                _ => (1, Shape::Any(together)),
            }
        }
        (operators::IN, _, [_, container]) => {
            (if container.may_be_list() { container.size() } else { 1 }, Shape::Scalar)
        }
        ("startsWith" | "endsWith", ..) => (traversal(size(first)), Shape::Scalar),
        // Of `sets`: each element of one list is looked for in the other.
        ("contains" | "intersects", None, [a, b]) => {
            (a.size().saturating_mul(b.size()).saturating_add(1), Shape::Scalar)
        }
        ("equivalent", None, [a, b]) => {
            (a.size().saturating_mul(b.size()).saturating_mul(2).saturating_add(1), Shape::Scalar)
        }
        ("contains", Some(_), [part]) => (traversal(on).saturating_mul(traversal(part.size())), Shape::Scalar),
        ("matches", Some(_), [pattern]) => (matching(on, pattern.size()), Shape::Scalar),
        ("matches", None, [text, pattern]) => (matching(text.size(), pattern.size()), Shape::Scalar),
        ("find", Some(_), [pattern, ..]) => (matching(on, pattern.size()), Shape::Text(on)),
        ("findAll", Some(_), [pattern, ..]) => {
            (matching(on, pattern.size()), Shape::List { most: on, element: Arc::new(Shape::Text(on)) })
        }
        ("check", ..) => (AUTHORIZATION_COST, Shape::Opaque),
        ("isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" | "includes", Some(of_what), _) => {
            let cost = match of_what {
                Shape::List { most, element } if element.may_be_text() => {
                    most.saturating_mul(traversal(element.size()).saturating_add(1))
                }
                Shape::List { most, .. } => *most,
                _ if name == "includes" => on,
                _ => traversal(on),
            };
            let result = match (name, of_what) {
                ("sum" | "max" | "min", Shape::List { element, .. }) => (**element).clone(),
                _ => Shape::Scalar,
            };
            (cost, result)
        }
        ("slice", Some(list), [_, _]) => {
            let (from, to) = (number(args.first()).unwrap_or(0), number(args.get(1)).unwrap_or(on));
            made(list, 1.0, to.saturating_sub(from))
        }
        ("reverse", Some(list), []) => made(list, 1.0, on),
        ("flatten", Some(list), []) => made(list, 1.0, on),
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        ("flatten", Some(list), [_]) => made(list, number(args.first()).unwrap_or(u64::MAX) as f64, on),
        ("distinct", Some(list), []) => made(list, 2.0, on.saturating_mul(on)),
        ("sort" | "@sortByAssociatedKeys", Some(list), _) => {
            let keys = first.unwrap_or(list);
            let by_text = matches!(keys, Shape::List { element, .. } if element.may_be_text());
            made(list, if by_text { 2.1 } else { 2.0 }, keys.size().saturating_mul(keys.size()))
        }
        ("range", None, [_]) => {
            let list = Shape::List { most: u64::MAX, element: Arc::new(Shape::Scalar) };
            made(&list, 1.0, number(args.first()).unwrap_or(u64::MAX))
        }
        ("first" | "last", Some(list), []) => (1, list.member(None).unplaced()),
        ("validate", Some(_), [text]) => (traversal(text.size()).saturating_mul(FORMAT_PATTERN), Shape::UNKNOWN),
        ("lowerAscii" | "upperAscii" | "substring" | "trim" | "charAt", Some(_), _) => (traversal(on), Shape::Text(on)),
        ("replace", Some(_), [part, by, ..]) => {
            let least = match args.first().map(|argument| &argument.expr) {
                Some(Expr::Literal(_)) => part.size(),
                _ => 0,
            };
            let result = match least {
                0 => on.saturating_add(1).saturating_mul(by.size()).saturating_add(on),
                least if by.size() <= least => on,
                least => on.div_ceil(least).saturating_mul(by.size()),
            };
            (traversal(on.saturating_mul(2)), Shape::Text(result))
        }
        ("split", Some(_), _) => {
            (traversal(on.saturating_mul(2)), Shape::List { most: on, element: Arc::new(Shape::Text(on)) })
        }
        ("join", Some(list), _) => {
            let parts = on.saturating_mul(list.member(None).size());
            let between = first.map_or(0, |separator| separator.size().saturating_mul(on.saturating_sub(1)));
            let all = parts.saturating_add(between);
            (traversal(all), Shape::Text(all))
        }
        ("format", Some(_), _) => (traversal(on), Shape::UNKNOWN),
        (
            "url"
            | "jsonpatch.escapeKey"
            | "cidr"
            | "isIP"
            | "isCIDR"
            | "ip"
            | "quantity"
            | "isQuantity"
            | "semver"
            | "isSemver",
            None,
            [text, ..],
        ) => {
            let result = match name {
                "isIP" | "isCIDR" | "isQuantity" | "isSemver" => Shape::Scalar,
                "jsonpatch.escapeKey" => Shape::Text(text.size()),
                _ => Shape::Opaque,
            };
            (traversal(text.size()), result)
        }
        ("containsIP" | "containsCIDR", Some(_), [other]) => {
            let whole = if name == "containsCIDR" { traversal(ADDRESS_BYTES).saturating_add(1) } else { 0 };
            let read = if other.may_be_text() { traversal(other.size()) } else { 0 };
            (traversal(2 * ADDRESS_BYTES).saturating_add(whole).saturating_add(read), Shape::Scalar)
        }
        ("string", None, [Shape::Any(most)]) => (1, Shape::Any(*most)),
        ("string", None, [_]) => (1, Shape::UNKNOWN),
        ("add" | "sub" | "ip" | "masked", Some(_), _) => (1, Shape::Opaque),
        _ if RESULTS_WITHOUT_SIZE.contains(&name) => (1, Shape::UNKNOWN),
        _ => (1, Shape::Scalar),
    }
}

/// A number that stands there.
fn number(argument: Option<&IdedExpr>) -> Option<u64> {
    match &argument?.expr {
        Expr::Literal(LiteralValue::Int(number)) => u64::try_from(*number.inner()).ok(),
        _ => None,
    }
}

/// A call that makes a list of at most so many elements of another (cel-go `estimateListCall`).
#[expect(clippy::cast_precision_loss, clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "an estimate")]
fn made(list: &Shape, factor: f64, most: u64) -> (u64, Shape) {
    let cost = ((most as f64 * factor).ceil() as u64).saturating_add(1 + LIST_COST);
    (cost, Shape::List { most, element: Arc::new(list.member(None)) })
}

/// Functions whose results may be of any size; those of all others that are not named above are numbers, or yes or no.
const RESULTS_WITHOUT_SIZE: [&str; 18] = [
    "type",
    "bytes",
    "value",
    "orValue",
    "or",
    "optional.of",
    "of",
    "ofNonZeroValue",
    "none",
    "reason",
    "error",
    "quote",
    "getScheme",
    "getHost",
    "getHostname",
    "getPort",
    "getEscapedPath",
    "getQuery",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(source: &str) -> u64 {
        let list = Shape::List { most: 10, element: Arc::new(Shape::Text(20)) };
        let variables = vec![("list".to_owned(), list), ("text".to_owned(), Shape::Text(100))];
        let estimated = |tree, _: &_| Ok(estimate(&tree, variables));
        crate::custom::cel::with_tree(&crate::custom::cel::DEVICE_ENV, source, estimated).expect("it parses")
    }

    #[test]
    fn costs_are_those_of_cel_go() {
        // An identifier, and a tenth of the shorter text.
        assert_eq!(cost("text == 'abcdefghijkl'"), 1 + 2);
        assert_eq!(cost("true"), 0);
        // Ten turns, each with two operators and a name for the condition, and a name, a name and a comparison for the step.
        assert_eq!(cost("list.exists(x, x == 'a')"), 1 + 10 * (3 + 1 + 1 + 1) + 1);
        assert_eq!(cost("cel.bind(x, text, x == x)"), 10 + 1 + 1 + 1 + 10);
    }
}
