//! What the evaluator does not know is written in terms that it does, once an expression has been checked:
//! `Object.spec{replicas: 3}` is a map, and `authorizer.requestResource` a variable of that name.

use cel::common::ast::EntryExpr::{MapEntry, StructField};
use cel::common::ast::{Expr, IdedEntryExpr, IdedExpr, LiteralValue, MapEntryExpr, MapExpr, StructExpr};

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
