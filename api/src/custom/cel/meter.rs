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

/// Puts charges and order into every comprehension.
pub fn meter(expr: &mut IdedExpr) {
    use cel::common::ast::EntryExpr::{MapEntry, StructField};
    match &mut expr.expr {
        Expr::Call(call) => call.target.as_deref_mut().into_iter().chain(&mut call.args).for_each(meter),
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
