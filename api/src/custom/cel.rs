//! The Common Expression Language, as `x-kubernetes-validations` uses it: compiled once, evaluated under a budget.
//!
//! ```text
//!  text ─ parse ─► tree ─ check ─► type, or what cel-go would say is wrong        (when the definition is written)
//!                    └── meter ──► tree whose loops pay as they go
//!  value ─ values ─► CEL value ───────┴─► result, error, or "cost limit exceeded" (when an object is written)
//! ```
//!
//! The `cel` crate parses and evaluates; it checks no types and bounds no cost, which [`check`] and [`meter`] add. The
//! functions that Kubernetes has beyond CEL's own stand in [`library`].
//! `k8s.io/apiserver/pkg/cel`, `apiextensions-apiserver/pkg/apiserver/schema/cel`.

pub mod authorizer;
pub mod check;
pub mod construct;
pub mod cost;
mod depth;
pub mod library;
mod meter;
mod named_formats;
mod pairs;
pub mod semver;
pub mod sizes;
pub mod values;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

pub use cel::Value;
use cel::common::ast::{ComprehensionExpr, Expr as Node, IdedExpr, ListExpr, LiteralValue, SourceInfo};
use cel::parser::{Expression, Macro};
use cel::{Context, Env, ExecutionError};

use self::check::Ty;
use self::cost::Shape;

/// What one expression may cost (`RuntimeCELCostBudget` per call).
pub const EXPRESSION_BUDGET: u64 = 1_000_000;

/// Longest expression, in bytes.
const MAX_SOURCE_BYTES: usize = 64 * 1024;

/// The brackets that the parser reads within each other: more than [`depth::DEPTH_LIMIT`] leaves.
const PARSER_DEPTH: u16 = 256;

/// A variable of an expression.
pub type Variable<'a> = (&'static str, Ty<'a>);

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(base()));

/// What expressions over devices know beyond that: `cel.bind`.
static DEVICE_ENV: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = base();
    env.add_macro(bind()).expect("CEL has no macro of this name");
    Arc::new(env)
});

/// What all expressions know (`k8s.io/apiserver/pkg/cel/environment/base.go`).
fn base() -> Env {
    let mut env = Env::stdlib();
    cel::extensions::strings(&mut env).expect("CEL's own libraries do not collide");
    cel::extensions::lists(&mut env).expect("CEL's own libraries do not collide");
    pairs::add_to(&mut env).expect("CEL has no macros of these names with as many arguments");
    library::add_to(&mut env).expect("Kubernetes' functions do not collide with CEL's");
    env
}

/// `cel.bind(name, value, result)`: a loop without turns, whose gathered value has a name
/// (cel-go `ext/bindings.go`).
fn bind() -> Macro {
    Macro::receiver("bind", 3, |helper, target, args| {
        let on_cel = matches!(target.as_ref().map(|target| &target.expr), Some(Node::Ident(name)) if name == "cel");
        let Some(Node::Ident(name)) = args.first().map(|name| name.expr.clone()).filter(|_| on_cel) else {
            return Ok(None);
        };
        let (Some(result), Some(value)) = (args.pop(), args.pop()) else { return Ok(None) };
        let nothing = helper.next_expr(Node::List(ListExpr::default()));
        let never = helper.next_expr(Node::Literal(LiteralValue::Boolean(false.into())));
        let itself = helper.next_expr(Node::Ident(name.clone()));
        Ok(Some(helper.next_expr(Node::Comprehension(Box::new(ComprehensionExpr {
            iter_range: nothing,
            iter_var: "#unused".to_owned(),
            iter_var2: None,
            accu_var: name,
            accu_init: value,
            loop_cond: never,
            loop_step: itself,
            result,
        })))))
    })
}

/// Parses an expression and goes on with its tree, for both of which there is room on the stack. The errors are cel-go's
/// text.
fn with_tree<T>(
    env: &Arc<Env>,
    source: &str,
    go_on: impl FnOnce(IdedExpr, &SourceInfo) -> Result<T, String>,
) -> Result<T, String> {
    if source.len() > MAX_SOURCE_BYTES {
        return Err(format!("ERROR: <input>:1:1: expression exceeds {MAX_SOURCE_BYTES} bytes"));
    }
    let levels = depth::of(source);
    if levels > depth::DEPTH_LIMIT {
        let words = format!("ERROR: <input>:-1:0: expression recursion limit exceeded: {}", depth::DEPTH_LIMIT);
        return Err(format!("compilation failed: {words}"));
    }
    depth::with_room(levels, || {
        let parser = env.parser().enable_optional_syntax(true).enable_ident_escape_syntax(true);
        let parser = parser.max_recursion_depth(PARSER_DEPTH);
        let parsed = parser.parse_with_source_info(source);
        let (tree, places) = parsed.map_err(|errors| check::syntax(source, &errors))?;
        go_on(tree, &places)
    })
}

/// The type of an expression over one variable, and what it costs at worst. The error is cel-go's text.
pub fn device_expression(
    source: &str,
    variable: &'static str,
    ty: Ty<'static>,
    shape: Shape,
) -> Result<(Ty<'static>, u64), String> {
    with_tree(&DEVICE_ENV, source, |tree, places| {
        let found = check::check(&tree, source, places, &[(variable, ty)])?;
        Ok((found, cost::estimate(&tree, vec![(variable.to_owned(), shape)])))
    })
}

/// What a rule over a value costs at worst; nothing where it is none.
pub fn rule_cost(source: &str, root: &Shape) -> u64 {
    with_tree(&ENV, source, |tree, _| Ok(cost::estimate_rule(&tree, root))).unwrap_or(0)
}

/// A compiled expression.
#[derive(Debug)]
pub struct Expr {
    tree: Expression,
    /// How deep its source is.
    levels: usize,
    cost: u64,
    /// Whether it asks for the object as it was.
    pub uses_old_self: bool,
}

/// Why an evaluation has no result.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// It cost more than it may.
    Cost,
    /// What CEL says.
    Error(String),
    /// No overload takes what it was given.
    Overload(String),
}

impl Expr {
    /// Compiles an expression over some variables that must be of a type. The error is cel-go's text.
    pub fn compile(source: &str, variables: &[Variable<'_>], wanted: &Ty<'_>) -> Result<Expr, String> {
        let (expr, found) = Expr::typed(source, variables)?;
        if !found.is(wanted) {
            return Err(format!("must evaluate to {}", wanted.article()));
        }
        Ok(expr)
    }

    /// Compiles an expression of any type, and says which. The error is cel-go's text.
    pub fn typed<'a>(source: &str, variables: &[Variable<'a>]) -> Result<(Expr, Ty<'a>), String> {
        with_tree(&ENV, source, |mut tree, places| {
            let found = check::check(&tree, source, places, variables)?;
            let uses_old_self = tree.references().has_variable("oldSelf");
            construct::rewrite(&mut tree);
            pairs::rewrite(&mut tree);
            meter::meter(&mut tree);
            let (cost, levels) = (meter::nodes(&tree), depth::of(source));
            Ok((Expr { tree, levels, cost, uses_old_self }, found))
        })
    }

    /// Whether it asks a variable for a field, in any of CEL's ways.
    pub fn selects(&self, variable: &str, field: &str) -> bool {
        depth::with_room(self.levels, || construct::selects(&self.tree, variable, field))
    }

    /// Evaluates it, taking what it costs from `budget`.
    pub fn evaluate(&self, variables: &[(&'static str, Value)], budget: &mut u64) -> Result<Value, Failure> {
        let allowed = EXPRESSION_BUDGET.min(*budget);
        let spent = Arc::new(AtomicU64::new(self.cost));
        let mut context = Context::with_env(Arc::clone(&ENV));
        for (name, value) in variables {
            context.add_variable_from_value(*name, value.clone());
        }
        let counter = Arc::clone(&spent);
        let charge = move |cost: i64| -> Result<bool, ExecutionError> {
            let total = counter.fetch_add(cost.unsigned_abs(), Ordering::Relaxed).saturating_add(cost.unsigned_abs());
            if total > allowed { Err(ExecutionError::function_error(meter::SPEND, "cost")) } else { Ok(true) }
        };
        context.add_function(meter::SPEND, charge).map_err(|error| Failure::Error(error.to_string()))?;
        let counter = Arc::clone(&spent);
        let scale = meter::Scale::default();
        let weigh = move |value: Value, place: i64, call: i64| -> Result<Value, ExecutionError> {
            let cost = scale.weigh(&value, place, call, allowed);
            let total = counter.fetch_add(cost, Ordering::Relaxed).saturating_add(cost);
            if total > allowed { Err(ExecutionError::function_error(meter::WEIGH, "cost")) } else { Ok(value) }
        };
        let declared = context.add_function(meter::WEIGH, weigh);
        let declared = declared.and_then(|()| context.add_function(meter::IN_ORDER, meter::in_order));
        let declared = declared.and_then(|()| context.add_function(pairs::PAIRS, pairs::pairs));
        let declared = declared.and_then(|()| context.add_function(pairs::GATHER, pairs::gather));
        declared.map_err(|error| Failure::Error(error.to_string()))?;
        let result = depth::with_room(self.levels, || Value::resolve(&self.tree, &context));
        let total = spent.load(Ordering::Relaxed);
        *budget = budget.saturating_sub(total);
        if total > allowed {
            return Err(Failure::Cost);
        }
        result.map_err(failure)
    }
}

/// CEL's words where the crate has its own.
fn failure(error: ExecutionError) -> Failure {
    match error {
        ExecutionError::NoSuchKey(name) => Failure::Error(format!("no such key: {name}")),
        ExecutionError::DivisionByZero(_) => Failure::Error("division by zero".to_owned()),
        ExecutionError::RemainderByZero(_) => Failure::Error("modulus by zero".to_owned()),
        ExecutionError::Overflow(..) => Failure::Error("integer overflow".to_owned()),
        ExecutionError::IndexOutOfBounds(Value::Int(index)) => Failure::Error(format!("index out of bounds: {index}")),
        ExecutionError::FunctionError { message, .. } => Failure::Error(message),
        ExecutionError::NoSuchOverload(_)
        | ExecutionError::UnexpectedType { .. }
        | ExecutionError::ValuesNotComparable(..)
        | ExecutionError::UnsupportedBinaryOperator(..)
        | ExecutionError::UnsupportedTargetType { .. } => Failure::Overload("no such overload".to_owned()),
        other => Failure::Error(other.to_string()),
    }
}

#[cfg(test)]
mod tests;
