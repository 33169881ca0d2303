//! Loops that pay as they go: each turn of a comprehension spends what its body costs, so that evaluation ends when the
//! budget does. Only macros make comprehensions, in four shapes; the charge goes to what each evaluates a turn.
//!
//! And loops over maps that take the keys in order: the maps of the CEL crate are hashed, and would give them in another
//! order in every run.

use std::sync::Arc;

use cel::Value;
use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, operators};

/// The function that spends. No CEL text can name it.
pub const SPEND: &str = "@spend";

/// The function that spends what working through a value costs, and gives the value. No CEL text can name it.
pub const WEIGH: &str = "@weigh";

/// The function that puts what a loop walks through in order. No CEL text can name it.
pub const IN_ORDER: &str = "@in_order";

/// What a loop over `range` takes in turn: the keys of a map, sorted; anything else as it is.
pub fn in_order(range: Value) -> Value {
    let Value::Map(map) = range else { return range };
    let mut keys: Vec<_> = map.map.keys().collect();
    keys.sort();
    Value::List(Arc::new(keys.into_iter().map(Value::from).collect()))
}

/// How large an expression is.
pub fn nodes(expr: &IdedExpr) -> u64 {
    1 + children(expr).into_iter().map(nodes).sum::<u64>()
}

/// The expressions directly below one.
pub fn children(expr: &IdedExpr) -> Vec<&IdedExpr> {
    use cel::common::ast::EntryExpr::{MapEntry, StructField};
    match &expr.expr {
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Expr::Comprehension(c) => vec![&c.iter_range, &c.accu_init, &c.loop_cond, &c.loop_step, &c.result],
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => map
            .entries
            .iter()
            .flat_map(|entry| match &entry.expr {
                MapEntry(entry) => vec![&entry.key, &entry.value],
                StructField(field) => vec![&field.value],
            })
            .collect(),
        Expr::Select(select) => vec![&select.operand],
        Expr::Struct(of) => of
            .entries
            .iter()
            .flat_map(|entry| match &entry.expr {
                MapEntry(entry) => vec![&entry.key, &entry.value],
                StructField(field) => vec![&field.value],
            })
            .collect(),
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Vec::new(),
    }
}

/// As [`children`], to change them.
pub fn children_mut(expr: &mut IdedExpr) -> Vec<&mut IdedExpr> {
    use cel::common::ast::EntryExpr::{MapEntry, StructField};
    match &mut expr.expr {
        Expr::Call(call) => call.target.as_deref_mut().into_iter().chain(&mut call.args).collect(),
        Expr::Comprehension(c) => {
            vec![&mut c.iter_range, &mut c.accu_init, &mut c.loop_cond, &mut c.loop_step, &mut c.result]
        }
        Expr::List(list) => list.elements.iter_mut().collect(),
        Expr::Map(map) => map
            .entries
            .iter_mut()
            .flat_map(|entry| match &mut entry.expr {
                MapEntry(entry) => vec![&mut entry.key, &mut entry.value],
                StructField(field) => vec![&mut field.value],
            })
            .collect(),
        Expr::Select(select) => vec![&mut select.operand],
        Expr::Struct(of) => of
            .entries
            .iter_mut()
            .flat_map(|entry| match &mut entry.expr {
                MapEntry(entry) => vec![&mut entry.key, &mut entry.value],
                StructField(field) => vec![&mut field.value],
            })
            .collect(),
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Vec::new(),
    }
}

/// What asking an authorizer costs (`k8s.io/apiserver/pkg/cel/library/cost.go`).
const QUESTION_COST: u64 = 350_000;

/// How what a function works through is charged.
#[derive(Clone, Copy)]
enum Weight {
    /// A number: itself.
    Number,
    /// A list: for each element.
    Elements,
    /// A list: for each element, and those of the lists in it.
    Nested,
    /// A list: for each element compared with each other.
    Squared,
    /// Whatever it is: what it costs to ask an authorizer. Two questions fit into an expression.
    Question,
}

/// What working through a value costs; nothing is counted beyond `most`.
pub fn weight(value: &Value, kind: i64, most: u64) -> u64 {
    if kind == Weight::Question as i64 {
        return QUESTION_COST;
    }
    let Value::List(list) = value else {
        return match value {
            Value::Int(number) if kind == Weight::Number as i64 => u64::try_from(*number).unwrap_or(0),
            _ => 0,
        };
    };
    let own = list.len() as u64;
    match kind {
        kind if kind == Weight::Squared as i64 => own.saturating_mul(own).saturating_mul(2),
        kind if kind == Weight::Nested as i64 => list
            .iter()
            .fold(own, |sum, item| if sum > most { sum } else { sum.saturating_add(weight(item, kind, most - sum)) }),
        _ => own,
    }
}

/// Charges for what a function over lists works through.
fn weigh(call: &mut CallExpr) {
    let (weight, value) = match (call.func_name.as_str(), call.target.as_deref_mut(), call.args.first_mut()) {
        ("range", Some(_), Some(number)) => (Weight::Number, number),
        ("slice" | "sort" | "reverse" | "@sortByAssociatedKeys", Some(list), _) => (Weight::Elements, list),
        ("flatten", Some(list), _) => (Weight::Nested, list),
        ("distinct", Some(list), _) => (Weight::Squared, list),
        ("check", Some(question), _) => (Weight::Question, question),
        _ => return,
    };
    let id = value.id;
    let kind = IdedExpr { id, expr: Expr::Literal(LiteralValue::Int((weight as i64).into())) };
    let args = vec![std::mem::take(value), kind];
    *value = IdedExpr { id, expr: Expr::Call(CallExpr { func_name: WEIGH.to_owned(), target: None, args }) };
}

/// Puts charges and order into every comprehension.
pub fn meter(expr: &mut IdedExpr) {
    use cel::common::ast::EntryExpr::{MapEntry, StructField};
    match &mut expr.expr {
        Expr::Call(call) => {
            call.target.as_deref_mut().into_iter().chain(&mut call.args).for_each(meter);
            weigh(call);
        }
        Expr::Comprehension(c) => {
            let cost = nodes(&c.loop_step);
            for part in [&mut c.iter_range, &mut c.accu_init, &mut c.loop_step, &mut c.result] {
                meter(part);
            }
            charge_step(&mut c.loop_step, cost);
            put_in_order(&mut c.iter_range);
        }
        Expr::List(list) => list.elements.iter_mut().for_each(meter),
        Expr::Map(map) => {
            for entry in &mut map.entries {
                if let MapEntry(entry) = &mut entry.expr {
                    meter(&mut entry.key);
                    meter(&mut entry.value);
                }
            }
        }
        Expr::Select(select) => meter(&mut select.operand),
        Expr::Struct(of) => {
            for entry in &mut of.entries {
                if let StructField(field) = &mut entry.expr {
                    meter(&mut field.value);
                }
            }
        }
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
    }
}

fn put_in_order(range: &mut IdedExpr) {
    let id = range.id;
    let args = vec![std::mem::take(range)];
    *range = IdedExpr { id, expr: Expr::Call(CallExpr { func_name: IN_ORDER.to_owned(), target: None, args }) };
}

/// `@result && p`, `@result || p`: in `p`. `p ? … : @result`: in `p`. `@result + [e]`: in `e`.
fn charge_step(step: &mut IdedExpr, cost: u64) {
    let Expr::Call(call) = &mut step.expr else { return };
    let place = match (call.func_name.as_str(), call.args.as_mut_slice()) {
        (operators::LOGICAL_AND | operators::LOGICAL_OR, [_, predicate]) => predicate,
        (operators::CONDITIONAL, [condition, ..]) => condition,
        (operators::ADD, [_, IdedExpr { expr: Expr::List(list), .. }]) => match list.elements.first_mut() {
            Some(element) => element,
            None => return,
        },
        _ => return,
    };
    let id = place.id;
    let node = |expr: Expr| IdedExpr { id, expr };
    let price = node(Expr::Literal(LiteralValue::Int(i64::try_from(cost).unwrap_or(i64::MAX).into())));
    let spend = node(Expr::Call(CallExpr { func_name: SPEND.to_owned(), target: None, args: vec![price] }));
    let otherwise = node(Expr::Literal(LiteralValue::Boolean(false.into())));
    let inner = std::mem::take(place);
    *place = node(Expr::Call(CallExpr {
        func_name: operators::CONDITIONAL.to_owned(),
        target: None,
        args: vec![spend, inner, otherwise],
    }));
}
