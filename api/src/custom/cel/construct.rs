//! What the evaluator does not know is written in terms that it does, once an expression has been checked:
//! `Object.spec{replicas: 3}` is a map, and `authorizer.requestResource` a variable of that name.

use cel::common::ast::EntryExpr::{MapEntry, StructField};
use cel::common::ast::{
    CallExpr, Expr, IdedEntryExpr, IdedExpr, LiteralValue, MapEntryExpr, MapExpr, StructExpr, operators,
};

use super::values::unescaped;

/// The variable that `authorizer.requestResource` stands for.
pub const REQUEST_RESOURCE: &str = "authorizer.requestResource";

/// Rewrites a tree in place.
pub fn rewrite(expr: &mut IdedExpr) {
    if let Expr::Struct(of) = &mut expr.expr {
        expr.expr = Expr::Map(as_map(std::mem::take(of)));
    }
    if is_request_resource(&expr.expr) {
        expr.expr = Expr::Ident(REQUEST_RESOURCE.to_owned());
    }
    follow_optional(expr);
    match &mut expr.expr {
        Expr::Call(call) => call.target.as_deref_mut().into_iter().chain(&mut call.args).for_each(rewrite),
        Expr::Comprehension(c) => {
            let parts = [&mut c.iter_range, &mut c.accu_init, &mut c.loop_cond, &mut c.loop_step, &mut c.result];
            parts.into_iter().for_each(rewrite);
        }
        Expr::List(list) => list.elements.iter_mut().for_each(rewrite),
        Expr::Map(map) => {
            for entry in &mut map.entries {
                if let MapEntry(entry) = &mut entry.expr {
                    rewrite(&mut entry.key);
                    rewrite(&mut entry.value);
                }
            }
        }
        Expr::Select(select) => rewrite(&mut select.operand),
        Expr::Struct(_) | Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
    }
}

/// What is selected of something that may be missing may be missing itself: `a.?b.c` is `a.?b.?c`, `a.?b[0]` is `a.?b[?0]`.
fn follow_optional(expr: &mut IdedExpr) {
    if let Expr::Select(select) = &mut expr.expr
        && !select.test
        && is_optional_chain(&select.operand)
    {
        let (id, operand) = (select.operand.id, std::mem::take(&mut *select.operand));
        let name = LiteralValue::String(std::mem::take(&mut select.field).into());
        let args = vec![operand, IdedExpr { id, expr: Expr::Literal(name) }];
        expr.expr = Expr::Call(CallExpr { func_name: operators::OPT_SELECT.to_owned(), target: None, args });
    }
    if let Expr::Call(call) = &mut expr.expr
        && call.func_name == operators::INDEX
        && call.args.first().is_some_and(is_optional_chain)
    {
        call.func_name = operators::OPT_INDEX.to_owned();
    }
}

/// Whether this is `a.?b`, or something selected of that.
fn is_optional_chain(expr: &IdedExpr) -> bool {
    match &expr.expr {
        Expr::Call(call) => {
            let name = call.func_name.as_str();
            name == operators::OPT_SELECT
                || name == operators::OPT_INDEX
                || (name == operators::INDEX && call.args.first().is_some_and(is_optional_chain))
        }
        Expr::Select(select) => !select.test && is_optional_chain(&select.operand),
        _ => false,
    }
}

fn as_map(of: StructExpr) -> MapExpr {
    let entries = of.entries.into_iter().map(|IdedEntryExpr { id, expr }| {
        let expr = match expr {
            StructField(field) => {
                let name = LiteralValue::String(unescaped(&field.field).into());
                let key = IdedExpr { id, expr: Expr::Literal(name) };
                MapEntry(MapEntryExpr { key, value: field.value, optional: field.optional })
            }
            entry => entry,
        };
        IdedEntryExpr { id, expr }
    });
    MapExpr { entries: entries.collect() }
}

fn is_request_resource(expr: &Expr) -> bool {
    let Expr::Select(select) = expr else { return false };
    let on_authorizer = matches!(&select.operand.expr, Expr::Ident(name) if name == "authorizer");
    on_authorizer && select.field == "requestResource" && !select.test
}

/// Whether an expression asks a variable for a field: `claims.email`, `claims.?email`, `claims['email']`.
pub fn selects(expr: &IdedExpr, variable: &str, field: &str) -> bool {
    let is_variable = |operand: &IdedExpr| matches!(&operand.expr, Expr::Ident(name) if name == variable);
    let is_field =
        |name: &IdedExpr| matches!(&name.expr, Expr::Literal(LiteralValue::String(text)) if text.inner() == field);
    let inner = |expr: &IdedExpr| selects(expr, variable, field);
    match &expr.expr {
        Expr::Select(select) => (is_variable(&select.operand) && select.field == field) || inner(&select.operand),
        Expr::Call(call) => {
            let named = matches!(&call.args[..], [operand, name] if is_variable(operand) && is_field(name));
            named || call.target.as_deref().into_iter().chain(&call.args).any(inner)
        }
        Expr::Comprehension(c) => {
            [&c.iter_range, &c.accu_init, &c.loop_cond, &c.loop_step, &c.result].into_iter().any(&inner)
        }
        Expr::List(list) => list.elements.iter().any(inner),
        Expr::Map(map) => map.entries.iter().any(|entry| match &entry.expr {
            MapEntry(entry) => inner(&entry.key) || inner(&entry.value),
            StructField(field) => inner(&field.value),
        }),
        Expr::Struct(_) | Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => false,
    }
}
