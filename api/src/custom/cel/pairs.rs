//! Loops with two variables: an index and its element, or a key and its value.
//!
//! The evaluator loops with one. Once an expression has been checked, a loop with two runs over pairs instead, in order;
//! one that makes a map gathers pairs, of which a map is made at the end. cel-go `ext/comprehensions.go`.

use std::sync::Arc;

use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, ListExpr, LiteralValue, MapExpr, operators};
use cel::objects::{Key, Map};
use cel::parser::{Macro, MacroExprHelper, ParseError};
use cel::{DeclarationError, Env, ExecutionError, Value};

use super::library::{failed, overload};
use super::meter::children_mut;

/// The function that puts an entry into a map. No CEL text can name it, nor those below.
pub const INSERT: &str = "@mapInsert";
/// The function that makes pairs of what a loop runs over.
pub const PAIRS: &str = "@pairs";
/// The function that makes a map of pairs, or of maps.
pub const GATHER: &str = "@gather";

const GATHERED: &str = "@result";

/// The macros, and how many arguments each takes besides a condition.
const MACROS: [(&str, usize); 10] = [
    ("all", 3),
    ("exists", 3),
    ("existsOne", 3),
    ("exists_one", 3),
    ("transformList", 3),
    ("transformList", 4),
    ("transformMap", 3),
    ("transformMap", 4),
    ("transformMapEntry", 3),
    ("transformMapEntry", 4),
];

/// Declares the macros.
pub fn add_to(env: &mut Env) -> Result<(), DeclarationError> {
    for (name, arguments) in MACROS {
        env.add_macro(Macro::receiver(name, arguments, move |helper, target, args| {
            expand(name, helper, target, args)
        }))?;
    }
    Ok(())
}

fn expand(
    name: &str,
    helper: &mut MacroExprHelper<'_>,
    target: &mut Option<IdedExpr>,
    args: &mut Vec<IdedExpr>,
) -> Result<Option<IdedExpr>, ParseError> {
    let mut variables = Vec::new();
    for argument in args.iter().take(2) {
        match &argument.expr {
            Expr::Ident(variable) => variables.push(variable.clone()),
            _ => return Err(helper.new_error(argument.id, "argument must be a simple name")),
        }
    }
    if variables[0] == variables[1] {
        return Err(helper.new_error(args[1].id, format!("duplicate variable name: {}", variables[0])));
    }
    let (Some(iter_range), Some(body)) = (target.take(), args.pop()) else { return Ok(None) };
    let condition = if args.len() == 3 { args.pop() } else { None };
    let gathered = |helper: &mut MacroExprHelper<'_>| helper.next_expr(Expr::Ident(GATHERED.to_owned()));
    let literal = |helper: &mut MacroExprHelper<'_>, value| helper.next_expr(Expr::Literal(value));
    let so_far = gathered(helper);
    let (accu_init, loop_cond, step) = match name {
        "all" => {
            let init = literal(helper, LiteralValue::Boolean(true.into()));
            let go_on = call(helper, operators::NOT_STRICTLY_FALSE, vec![so_far]);
            let so_far = gathered(helper);
            (init, go_on, call(helper, operators::LOGICAL_AND, vec![so_far, body]))
        }
        "exists" => {
            let init = literal(helper, LiteralValue::Boolean(false.into()));
            let not_yet = call(helper, operators::LOGICAL_NOT, vec![so_far]);
            let go_on = call(helper, operators::NOT_STRICTLY_FALSE, vec![not_yet]);
            let so_far = gathered(helper);
            (init, go_on, call(helper, operators::LOGICAL_OR, vec![so_far, body]))
        }
        "existsOne" | "exists_one" => {
            let (init, one) =
                (literal(helper, LiteralValue::Int(0.into())), literal(helper, LiteralValue::Int(1.into())));
            let more = call(helper, operators::ADD, vec![so_far, one]);
            let so_far = gathered(helper);
            let step = call(helper, operators::CONDITIONAL, vec![body, more, so_far]);
            (init, literal(helper, LiteralValue::Boolean(true.into())), step)
        }
        "transformList" => {
            let init = helper.next_expr(Expr::List(ListExpr::default()));
            let item = helper.next_expr(Expr::List(ListExpr::new(vec![body])));
            let step = call(helper, operators::ADD, vec![so_far, item]);
            (init, literal(helper, LiteralValue::Boolean(true.into())), step)
        }
        "transformMap" => {
            let init = helper.next_expr(Expr::Map(MapExpr::default()));
            let key = helper.next_expr(Expr::Ident(variables[0].clone()));
            let step = call(helper, INSERT, vec![so_far, key, body]);
            (init, literal(helper, LiteralValue::Boolean(true.into())), step)
        }
        _ => {
            let init = helper.next_expr(Expr::Map(MapExpr::default()));
            let step = call(helper, INSERT, vec![so_far, body]);
            (init, literal(helper, LiteralValue::Boolean(true.into())), step)
        }
    };
    let loop_step = match condition {
        Some(condition) => {
            let so_far = gathered(helper);
            call(helper, operators::CONDITIONAL, vec![condition, step, so_far])
        }
        None => step,
    };
    let mut result = gathered(helper);
    if matches!(name, "existsOne" | "exists_one") {
        let one = literal(helper, LiteralValue::Int(1.into()));
        result = call(helper, operators::EQUALS, vec![result, one]);
    }
    let second = variables.pop();
    Ok(Some(helper.next_expr(Expr::Comprehension(Box::new(ComprehensionExpr {
        iter_range,
        iter_var: variables.remove(0),
        iter_var2: second,
        accu_var: GATHERED.to_owned(),
        accu_init,
        loop_cond,
        loop_step,
        result,
    })))))
}

fn call(helper: &mut MacroExprHelper<'_>, name: &str, args: Vec<IdedExpr>) -> IdedExpr {
    helper.next_expr(Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args }))
}

/// Writes all loops with two variables as loops over pairs.
pub fn rewrite(expr: &mut IdedExpr) {
    rewrite_numbered(expr, &mut 0);
}

fn rewrite_numbered(expr: &mut IdedExpr, number: &mut u64) {
    children_mut(expr).into_iter().for_each(|child| rewrite_numbered(child, number));
    let Expr::Comprehension(of) = &mut expr.expr else { return };
    let Some(second) = of.iter_var2.take() else { return };
    *number += 1;
    let pair = format!("@pair{number}");
    let first = std::mem::replace(&mut of.iter_var, pair.clone());
    wrap(&mut of.iter_range, PAIRS);
    if matches!(of.accu_init.expr, Expr::Map(_)) {
        of.accu_init.expr = Expr::List(ListExpr::default());
        append(&mut of.loop_step);
        wrap(&mut of.result, GATHER);
    }
    for part in [&mut of.loop_cond, &mut of.loop_step] {
        substitute(part, &[(&first, 0), (&second, 1)], &pair);
    }
}

/// Puts an expression into a call.
fn wrap(expr: &mut IdedExpr, function: &str) {
    let id = expr.id;
    let args = vec![std::mem::take(expr)];
    *expr = IdedExpr { id, expr: Expr::Call(CallExpr { func_name: function.to_owned(), target: None, args }) };
}

/// `@mapInsert(@result, k, v)` as `@result + [[k, v]]`; `@mapInsert(@result, m)` as `@result + [m]`.
fn append(step: &mut IdedExpr) {
    let id = step.id;
    let Expr::Call(call) = &mut step.expr else { return };
    if call.func_name == operators::CONDITIONAL {
        return append(&mut call.args[1]);
    }
    let list = |elements| IdedExpr { id, expr: Expr::List(ListExpr::new(elements)) };
    let mut parts = call.args.split_off(1);
    let item = if parts.len() == 1 { parts.remove(0) } else { list(parts) };
    call.args.push(list(vec![item]));
    operators::ADD.clone_into(&mut call.func_name);
}

/// Puts a part of a pair in the place of each name.
fn substitute(expr: &mut IdedExpr, names: &[(&String, i64)], pair: &str) {
    let id = expr.id;
    match &mut expr.expr {
        Expr::Ident(name) => {
            let Some((_, part)) = names.iter().find(|(known, _)| *known == name) else { return };
            let node = |expr| IdedExpr { id, expr };
            let args = vec![node(Expr::Ident(pair.to_owned())), node(Expr::Literal(LiteralValue::Int((*part).into())))];
            expr.expr = Expr::Call(CallExpr { func_name: operators::INDEX.to_owned(), target: None, args });
        }
        Expr::Comprehension(of) => {
            substitute(&mut of.iter_range, names, pair);
            substitute(&mut of.accu_init, names, pair);
            let without = |hidden: &[&String]| -> Vec<(&String, i64)> {
                names.iter().filter(|(name, _)| !hidden.contains(name)).copied().collect()
            };
            let inner = without(&[&of.iter_var, &of.accu_var]);
            substitute(&mut of.loop_cond, &inner, pair);
            substitute(&mut of.loop_step, &inner, pair);
            substitute(&mut of.result, &without(&[&of.accu_var]), pair);
        }
        _ => children_mut(expr).into_iter().for_each(|child| substitute(child, names, pair)),
    }
}

/// The pairs of a list or a map; those of a map by its keys in order.
pub fn pairs(range: Value) -> Result<Value, ExecutionError> {
    let pair = |first: Value, second: &Value| Value::List(Arc::new(vec![first, second.clone()]));
    let pairs = match &range {
        Value::List(list) => (0..).zip(list.iter()).map(|(index, item)| pair(Value::Int(index), item)).collect(),
        Value::Map(map) => {
            let mut entries: Vec<_> = map.map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            entries.into_iter().map(|(key, value)| pair(Value::from(key), value)).collect()
        }
        _ => return Err(overload()),
    };
    Ok(Value::List(Arc::new(pairs)))
}

/// The map of what a loop gathered.
pub fn gather(gathered: Value) -> Result<Value, ExecutionError> {
    let Value::List(list) = &gathered else { return Err(overload()) };
    let mut map = Map { map: Arc::default() };
    let entries = Arc::make_mut(&mut map.map);
    let mut insert = |key: Key, value: &Value| match entries.insert(key.clone(), value.clone()) {
        Some(_) => Err(failed(format!("insert failed: key {key} already exists"))),
        None => Ok(()),
    };
    for item in list.iter() {
        match item {
            Value::List(pair) => insert(key(&pair[0])?, &pair[1])?,
            Value::Map(map) => map.map.iter().try_for_each(|(key, value)| insert(key.clone(), value))?,
            _ => return Err(overload()),
        }
    }
    Ok(Value::Map(map))
}

fn key(value: &Value) -> Result<Key, ExecutionError> {
    match value {
        Value::String(text) => Ok(Key::String(Arc::clone(text))),
        Value::Int(number) => Ok(Key::Int(*number)),
        Value::UInt(number) => Ok(Key::Uint(*number)),
        Value::Bool(value) => Ok(Key::Bool(*value)),
        _ => Err(overload()),
    }
}
