//! Expressions, what they give, and what is said of those that give nothing.

use cel::Value;
use serde_json::{Value as Json, json};

use super::check::{Ty, of_schema};
use super::{EXPRESSION_BUDGET, Expr, Failure, values};
use crate::custom::Schema;

fn schema() -> Schema {
    Schema::parse(&json!({ "type": "object", "properties": {
        "n": { "type": "integer" },
        "name": { "type": "string" },
        "list": { "type": "array", "items": { "type": "integer" } },
        "labels": { "type": "object", "additionalProperties": { "type": "string" } },
        "either": { "x-kubernetes-int-or-string": true },
        "at": { "type": "string", "format": "date-time" },
        "for": { "type": "string", "format": "duration" },
        "a-b": { "type": "boolean" },
    } }))
}

fn object() -> Json {
    json!({
        "metadata": { "name": "me", "labels": { "hidden": "x" } },
        "n": 3, "name": "abc", "list": [3, 1, 2], "labels": { "k": "v" }, "either": "5%",
        "at": "2026-01-02T03:04:05Z", "for": "90s", "a-b": true,
    })
}

fn run(source: &str) -> Result<Result<Value, Failure>, String> {
    let schema = schema();
    let rule = Expr::compile(source, &[("self", of_schema(&schema, true))], &Ty::Bool)?;
    let mut budget = EXPRESSION_BUDGET;
    Ok(rule.evaluate(&[("self", values::value(&schema, &object(), true))], &mut budget))
}

#[test]
fn rules_that_hold() {
    for source in [
        "self.n == 3 && self.n + 1 > 3",
        "self.metadata.name == 'me'",
        "has(self.labels) && self.labels['k'] == 'v' && 'k' in self.labels",
        "self.list.all(x, x > 0) && self.list.exists(x, x == 2) && self.list.exists_one(x, x == 1)",
        "self.list.filter(x, x > 1).map(x, x * 2) == [6, 4]",
        "!self.list.isSorted() && self.list.sum() == 6 && self.list.min() == 1 && self.list.max() == 3",
        "self.list.indexOf(2) == 2 && self.list.lastIndexOf(7) == -1",
        "type(self.either) == string && self.either.matches('^[0-9]+%$')",
        "self.at < timestamp('2027-01-01T00:00:00Z') && self.at.getFullYear() == 2026",
        "self.__for__ == duration('1m30s')",
        "self.a__dash__b",
        "self.name.size() == 3 && self.name.upperAscii() == 'ABC' && self.name.replace('a', 'x') == 'xbc'",
        "'a1b22'.find('[0-9]+') == '1' && 'a1b22'.findAll('[0-9]+') == ['1', '22']",
        "'%s-%d'.format([self.name, self.n]) == 'abc-3'",
        "isURL('https://u@h.io:81/p?q') && url('https://u@h.io:81/p?q').getHostname() == 'h.io'",
        "url('https://h.io:81/p').getPort() == '81' && url('https://h.io/p').getEscapedPath() == '/p'",
        "isIP('::1') && ip('10.1.2.3').family() == 4 && ip('127.0.0.1').isLoopback()",
        "cidr('10.0.0.0/8').containsIP('10.1.2.3') && !cidr('10.0.0.0/8').containsCIDR('0.0.0.0/0')",
        "cidr('10.1.2.3/8').masked().prefixLength() == 8",
        "quantity('1Gi').isGreaterThan(quantity('900Mi')) && quantity('1').add(2).asInteger() == 3",
        "!isQuantity('x') && quantity('100m').compareTo(quantity('0.1')) == 0",
        "sets.contains(self.list, [1, 2]) && sets.intersects([1], self.list) && !sets.equivalent([1], self.list)",
        "self.?labels.orValue({}).size() == 1 && !self.?name.hasValue() || true",
        "self.?labels[?'k'].orValue('none') == 'v' && self.?labels[?'x'].orValue('none') == 'none'",
        "self.?labels['k'].orValue('none') == 'v' && self.?labels[?'k'].value() == 'v'",
        "self.?list[?0].orValue(0) == 3 && self.?list[?9].optMap(x, x + 1).orValue(7) == 7",
        "self.n > 2 ? true : false",
        "self.list.all(i, v, v > i - 1) && self.list.exists(i, v, i == 1 && v == 1) && self.list.existsOne(i, v, v == 2)",
        "self.labels.all(k, v, k == 'k' && v == 'v') && self.labels.exists_one(k, v, true)",
        "self.list.transformList(i, v, i * v) == [0, 1, 4] && self.list.transformList(i, v, i > 0, v) == [1, 2]",
        "self.labels.transformMap(k, v, v + k) == {'k': 'vk'} && self.labels.transformMap(k, v, false, v) == {}",
        "self.list.transformMap(i, v, v * 2)[1] == 2 && self.labels.transformMapEntry(k, v, {v: k}) == {'v': 'k'}",
        "self.list.all(i, v, self.list.all(j, w, i == j ? v == w : v != w))",
        "self.list.transformList(v, i, [1].map(v, v)[0] + i) == [4, 2, 3]",
        "{'b': 1, 'a': 2, 'c': 3}.transformList(k, v, k) == ['a', 'b', 'c']",
        "self.list.sort() == [1, 2, 3] && self.list.sortBy(x, -x) == [3, 2, 1] && self.list.reverse() == [2, 1, 3]",
        "[1, 1, 2].distinct() == [1, 2] && [[1], [2]].flatten() == [1, 2] && self.list.slice(0, 1) == [3]",
        "lists.range(3) == [0, 1, 2] && self.list.first().value() == 3 && ![1].slice(0, 0).last().hasValue()",
        "format.dns1123Label().validate('a_').hasValue() && !format.named('uuid').value().validate('x').orValue([]).all(x, false)",
        "!format.named('nope').hasValue() && format.uri().validate('a').orValue([]).size() == 1",
        "url('https://h/p?d=e&d=f%20g').getQuery() == {'d': ['e', 'f g']} && url('/p').getQuery().size() == 0",
        "[duration('1s'), duration('2s')].sum() == duration('3s') && string(ip('::1')) == '::1' && sign(quantity('-1')) == -1",
        "string(cidr('10.0.0.0/8')) == '10.0.0.0/8' && '%s %d'.format(['a', 1]) == 'a 1'",
        "{'d': 4, 'b': 2, 'a': 1, 'e': 5, 'c': 3}.map(k, k) == ['a', 'b', 'c', 'd', 'e']",
        "{3: 'c', 1: 'a', 2: 'b', 4: 'd'}.filter(k, k > 1) == [2, 3, 4] && self.labels.all(k, k == 'k')",
    ] {
        assert_eq!(run(source), Ok(Ok(Value::Bool(true))), "{source}");
    }
}

#[test]
fn rules_that_fail_while_they_are_asked() {
    for (source, expected) in [
        ("self.labels['x'] == 'v'", "no such key: x"),
        ("self.n / (self.n - 3) == 1", "division by zero"),
        ("self.list[9] == 1", "index out of bounds: 9"),
        ("sign(quantity('x')) == 1", "quantities must match the regular expression"),
    ] {
        let Ok(Err(Failure::Error(words))) = run(source) else { panic!("{source}: {:?}", run(source)) };
        assert!(words.contains(expected), "{source}: {words}");
    }
    assert!(matches!(run("self.either + 1 > 2"), Ok(Err(Failure::Overload(_)))), "{:?}", run("self.either + 1 > 2"));
}

#[test]
fn rules_that_do_not_compile() {
    for (source, expected) in [
        ("self.nope == 1", "<input>:1:5: undefined field 'nope'"),
        ("self.metadata.labels.size() == 0", "<input>:1:14: undefined field 'labels'"),
        ("other.n == 1", "<input>:1:1: undeclared reference to 'other' (in container '')"),
        ("self.n.frob()", "undeclared reference to 'frob' (in container '')"),
        ("self.n == 'x'", "<input>:1:8: found no matching overload for '_==_' applied to '(int, string)'"),
        ("self.name > 1", "found no matching overload for '_>_' applied to '(string, int)'"),
        ("self.n.startsWith('a')", "found no matching overload for 'startsWith' applied to 'int.(string)'"),
        ("self.n.all(x, x)", "expression of type 'int' cannot be range of a comprehension"),
        ("'abc'.reverse() == 'cba'", "found no matching overload for 'reverse' applied to 'string.()'"),
        ("quantity('1').sign() == 1", "found no matching overload for 'sign' applied to 'kubernetes.Quantity.()'"),
        ("string(quantity('1')) == '1'", "found no matching overload for 'string' applied to '(kubernetes.Quantity)'"),
        ("[quantity('1')].sum() == quantity('1')", "'sum' applied to 'list(kubernetes.Quantity).()'"),
        ("[1, 'a'].size() == 2", "<input>:1:5: expected type 'int' but found 'string'"),
        ("nope.of(self.n) == 1", "<input>:1:1: undeclared reference to 'nope' (in container '')"),
        ("self.list.all(i, i, true)", "<input>:1:18: duplicate variable name: i"),
        ("sets.contains(1, 2)", "found no matching overload for 'sets.contains' applied to '(int, int)'"),
        ("self.list.all(i, 'v', true)", "argument must be a simple name"),
        ("jsonpatch.escapeKey('a') == 'a'", "undeclared reference to 'jsonpatch' (in container '')"),
        ("self.n.x", "type 'int' does not support field selection"),
        ("self.list.map(x, x)", "must evaluate to a bool"),
        ("self.n ==", "Syntax error"),
    ] {
        let fault = run(source).expect_err(source);
        assert!(fault.contains(expected), "{source}: {fault}");
    }
}

#[test]
fn loops_end_with_the_budget() {
    let schema = schema();
    let variables = [("self", of_schema(&schema, false))];
    let numbers: Vec<i64> = (0..2_000).collect();
    let value = values::value(&schema, &json!({ "list": numbers }), false);
    for source in [
        "self.list.all(a, self.list.all(b, a + b >= 0))",
        "self.list.map(a, self.list.map(b, b)).size() > 0",
        "self.list.exists(a, self.list.filter(b, b == a).size() == 7)",
        "self.list.all(i, v, self.list.all(j, w, i + j >= 0))",
        "self.list.map(a, self.list).flatten().size() > 0",
        "self.list.distinct().size() > 0",
        "lists.range(1000000).size() > 0",
    ] {
        let rule = Expr::compile(source, &variables, &Ty::Bool).expect(source);
        let mut budget = EXPRESSION_BUDGET;
        assert_eq!(rule.evaluate(&[("self", value.clone())], &mut budget), Err(Failure::Cost), "{source}");
        assert_eq!(budget, 0);
    }
    let rule = Expr::compile("self.list.all(a, a >= 0)", &variables, &Ty::Bool).expect("a rule");
    let mut budget = EXPRESSION_BUDGET;
    assert_eq!(rule.evaluate(&[("self", value)], &mut budget), Ok(Value::Bool(true)));
    assert!(budget > EXPRESSION_BUDGET / 2 && budget < EXPRESSION_BUDGET);
}
