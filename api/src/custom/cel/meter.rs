//! Loops that pay as they go: each turn of a comprehension spends what its body costs, so that evaluation ends when the
//! budget does. Only macros make comprehensions, in four shapes; the charge goes to what each evaluates a turn.
//!
//! And loops over maps that take the keys in order: the maps of the CEL crate are hashed, and would give them in another
//! order in every run.

use std::collections::BTreeMap;
use std::sync::Arc;

use cel::Value;
use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, operators};
use parking_lot::Mutex;

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

/// How much of a text a step of the budget pays for (`StringTraversalCostFactor` of cel-go, one in ten).
const BYTES_A_STEP: u64 = 10;
/// As much of a regular expression (`RegexStringLengthCostFactor`, one in four).
const PATTERN_BYTES_A_STEP: u64 = 4;

/// How an operand of a call is charged.
#[derive(Clone, Copy)]
enum Weight {
    /// Not by itself.
    Nothing,
    /// A number: itself.
    Number,
    /// A list: for each element. A text: for what it is long.
    Elements,
    /// A list: for each element, and those of the lists in it.
    Nested,
    /// A list: for each element compared with each other.
    Squared,
    /// Whatever it is: what it costs to ask an authorizer. Two questions fit into an expression.
    Question,
    /// All the text in it.
    Text,
    /// What `format` is called on: as `Elements`, and for the digits that it asks for.
    Template,
}

/// How operands of a call are charged that make work for each other, by their sizes.
#[derive(Clone, Copy)]
enum Together {
    /// For the shorter of two.
    Compared,
    /// A text and what is looked for in it.
    Part,
    /// A text and a regular expression.
    Pattern,
    /// Two lists, each element of one beside each of the other.
    Pairs,
    /// A text, what is replaced in it, and what stands there then.
    Replaced,
    /// A list and what stands between its elements then.
    Joined,
}

impl Together {
    fn operands(self) -> usize {
        if matches!(self, Together::Replaced) { 3 } else { 2 }
    }

    fn cost(self, [a, b, c]: [u64; 3]) -> u64 {
        match self {
            Together::Compared => a.min(b) / BYTES_A_STEP,
            Together::Part => (a / BYTES_A_STEP).saturating_mul(1 + b / BYTES_A_STEP),
            Together::Pattern => (1 + a / BYTES_A_STEP).saturating_mul(1 + b / PATTERN_BYTES_A_STEP),
            Together::Pairs => a.saturating_mul(b),
            Together::Replaced => {
                (a / BYTES_A_STEP).saturating_add((a / b.max(1) + 1).saturating_mul(c) / BYTES_A_STEP)
            }
            Together::Joined => a.saturating_mul(b) / BYTES_A_STEP,
        }
    }
}

/// How the operands of calls of some names are charged, the target first.
struct Row {
    names: &'static [&'static str],
    /// How many operands such a call has, where that matters.
    operands: Option<usize>,
    /// Of each operand.
    each: &'static [Weight],
    /// Of all from the operand of that number on.
    together: Option<(usize, Together)>,
}

/// By name alone: of what type operands are is known when they are weighed.
const ROWS: &[Row] = {
    use self::Together::{Compared, Joined, Pairs, Part, Pattern, Replaced};
    use self::Weight::{Elements, Nested, Nothing, Number, Question, Squared, Template, Text};
    const fn each(names: &'static [&'static str], operands: Option<usize>, each: &'static [Weight]) -> Row {
        Row { names, operands, each, together: None }
    }
    const fn together(names: &'static [&'static str], operands: Option<usize>, from: usize, rule: Together) -> Row {
        let each = &[Nothing, Nothing, Nothing];
        Row { names, operands, each, together: Some((from, rule)) }
    }
    &[
        each(&["range"], Some(2), &[Nothing, Number]),
        each(&["slice", "sort", "reverse", "@sortByAssociatedKeys"], None, &[Elements]),
        each(&["sum", "min", "max", "isSorted", "indexOf", "lastIndexOf"], None, &[Elements]),
        each(&["lowerAscii", "upperAscii", "trim", "charAt", "substring", "split"], None, &[Elements]),
        each(&["string", "bytes", "int", "uint", "double", "timestamp", "duration"], Some(1), &[Elements]),
        each(&["url", "isURL", "ip", "isIP", "cidr", "isCIDR"], Some(1), &[Elements]),
        each(&["quantity", "isQuantity", "semver", "isSemver"], None, &[Elements]),
        each(&["encode", "decode", "escapeKey", "startsWith", "endsWith"], Some(2), &[Nothing, Elements]),
        each(&["flatten"], None, &[Nested]),
        each(&["distinct"], None, &[Squared]),
        each(&["check"], None, &[Question]),
        each(&[KEPT], None, &[Text]),
        each(&["format"], Some(2), &[Template, Text]),
        each(&[operators::ADD], Some(2), &[Elements, Elements]),
        each(&[operators::IN], Some(2), &[Nothing, Elements]),
        together(&["contains"], Some(2), 0, Part),
        together(&["contains", "equivalent", "intersects"], Some(3), 1, Pairs),
        together(&["matches", "find", "findAll"], None, 0, Pattern),
        together(&["replace"], None, 0, Replaced),
        together(&[operators::EQUALS, operators::NOT_EQUALS], Some(2), 0, Compared),
        together(&[operators::LESS, operators::LESS_EQUALS], Some(2), 0, Compared),
        together(&[operators::GREATER, operators::GREATER_EQUALS], Some(2), 0, Compared),
        each(&["join"], Some(1), &[Text]),
        Row { names: &["join"], operands: Some(2), each: &[Text, Nothing], together: Some((0, Joined)) },
    ]
};
/// The row of values that lists and maps keep. No CEL text can name it.
const KEPT: &str = "@kept";
/// Places of operands in what a charge is told by: row times this, and operand.
const OPERANDS: usize = 4;

/// What an evaluation has weighed of calls whose other operands are still to come, by call.
#[derive(Default)]
pub struct Scale(Mutex<BTreeMap<i64, Sizes>>);

#[derive(Default)]
struct Sizes {
    /// Which are known, by bit. A call whose operand failed leaves some behind, that the next turn of a loop weighs anew.
    known: u8,
    sizes: [u64; 3],
}

impl Scale {
    /// What working through an operand costs; nothing is counted beyond `most`.
    pub fn weigh(&self, value: &Value, place: i64, call: i64, most: u64) -> u64 {
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        let Some(row) = ROWS.get(place / OPERANDS) else { return 0 };
        let operand = place % OPERANDS;
        let own = row.each.get(operand).map_or(0, |weight| weight.cost(value, most));
        let Some((from, rule)) = row.together else { return own };
        let mut waiting = self.0.lock();
        let sizes = waiting.entry(call).or_default();
        if let Some(place) = operand.checked_sub(from).and_then(|place| sizes.sizes.get_mut(place)) {
            *place = size(value);
            sizes.known |= 1 << (operand - from);
        }
        if sizes.known.count_ones() as usize != rule.operands() {
            return own;
        }
        let together = rule.cost(sizes.sizes);
        waiting.remove(&call);
        own.saturating_add(together)
    }
}

impl Weight {
    fn cost(self, value: &Value, most: u64) -> u64 {
        let size = size(value);
        match self {
            Weight::Nothing => 0,
            Weight::Number => match value {
                Value::Int(number) => u64::try_from(*number).unwrap_or(0),
                _ => 0,
            },
            Weight::Elements => match value {
                Value::List(_) => size,
                _ => size / BYTES_A_STEP,
            },
            Weight::Nested => nested(value, most),
            Weight::Squared => size.saturating_mul(size).saturating_mul(2),
            Weight::Question => QUESTION_COST,
            Weight::Text => text(value, most.saturating_mul(BYTES_A_STEP)) / BYTES_A_STEP,
            Weight::Template => match value {
                Value::String(template) => size / BYTES_A_STEP + digits(template),
                _ => 0,
            },
        }
    }
}

/// How many elements or bytes a value has.
fn size(value: &Value) -> u64 {
    (match value {
        Value::List(list) => list.len(),
        Value::Map(map) => map.map.len(),
        Value::String(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        _ => 0,
    }) as u64
}

fn nested(value: &Value, most: u64) -> u64 {
    let Value::List(list) = value else { return 0 };
    list.iter().fold(
        list.len() as u64,
        |sum, item| {
            if sum > most { sum } else { sum.saturating_add(nested(item, most - sum)) }
        },
    )
}

/// How many bytes of text a value holds, at whatever depth.
fn text(value: &Value, most: u64) -> u64 {
    let below = |values: &mut dyn Iterator<Item = &Value>| {
        values.fold(0u64, |sum, item| if sum > most { sum } else { sum.saturating_add(1 + text(item, most - sum)) })
    };
    match value {
        Value::List(list) => below(&mut list.iter()),
        Value::Map(map) => below(&mut map.map.values()),
        other => size(other),
    }
}

/// The digits that a template asks for (`%.3f`).
fn digits(template: &str) -> u64 {
    let numbers = template.split("%.").skip(1).map(|rest| {
        let end = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse().unwrap_or(if end == 0 { 0 } else { u64::MAX })
    });
    numbers.fold(0, u64::saturating_add)
}

/// Charges for what a call works through.
fn weigh(id: u64, call: &mut CallExpr) {
    // A loop gathers what it finds this way; its turns are charged.
    if call.func_name == operators::ADD && call.args.iter().any(|arg| matches!(arg.expr, Expr::List(_))) {
        return;
    }
    let operands = call.args.len() + usize::from(call.target.is_some());
    let fits = |row: &Row| {
        row.names.contains(&call.func_name.as_str()) && row.operands.is_none_or(|wanted| wanted == operands)
    };
    let Some((number, row)) = ROWS.iter().enumerate().find(|(_, row)| fits(row)) else { return };
    let compares = matches!(row.together, Some((_, Together::Compared)));
    // A literal is short, and so is what is compared with it.
    if compares && call.args.iter().any(|arg| matches!(arg.expr, Expr::Literal(_))) {
        return;
    }
    let charged = |operand: usize| {
        let counts = row.together.is_some_and(|(from, rule)| (from..from + rule.operands()).contains(&operand));
        counts || row.each.get(operand).is_some_and(|weight| !matches!(weight, Weight::Nothing))
    };
    let values = call.target.as_deref_mut().into_iter().chain(&mut call.args);
    for (operand, value) in values.enumerate().filter(|(operand, _)| charged(*operand)) {
        charge(value, number * OPERANDS + operand, id);
    }
}

/// Puts charges and order into every comprehension.
pub fn meter(expr: &mut IdedExpr) {
    use cel::common::ast::EntryExpr::{MapEntry, StructField};
    match &mut expr.expr {
        Expr::Call(call) => {
            call.target.as_deref_mut().into_iter().chain(&mut call.args).for_each(meter);
            weigh(expr.id, call);
        }
        Expr::Comprehension(c) => {
            let cost = nodes(&c.loop_step);
            for part in [&mut c.iter_range, &mut c.accu_init, &mut c.loop_step, &mut c.result] {
                meter(part);
            }
            charge_step(&mut c.loop_step, cost);
            put_in_order(&mut c.iter_range);
        }
        Expr::List(list) => {
            for element in &mut list.elements {
                meter(element);
                charge_kept(element);
            }
        }
        Expr::Map(map) => {
            for entry in &mut map.entries {
                if let MapEntry(entry) = &mut entry.expr {
                    meter(&mut entry.key);
                    meter(&mut entry.value);
                    charge_kept(&mut entry.value);
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

/// Charges for the text of a value that a list or a map keeps a copy of.
fn charge_kept(value: &mut IdedExpr) {
    if matches!(value.expr, Expr::Literal(_) | Expr::List(_) | Expr::Map(_)) {
        return;
    }
    let row = ROWS.iter().position(|row| row.names == [KEPT]).unwrap_or_default();
    charge(value, row * OPERANDS, value.id);
}

/// Has an operand weighed before it is used.
fn charge(value: &mut IdedExpr, place: usize, call: u64) {
    let id = value.id;
    let int = |number: u64| {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        IdedExpr { id, expr: Expr::Literal(LiteralValue::Int(number.into())) }
    };
    let args = vec![std::mem::take(value), int(place as u64), int(call)];
    *value = IdedExpr { id, expr: Expr::Call(CallExpr { func_name: WEIGH.to_owned(), target: None, args }) };
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
