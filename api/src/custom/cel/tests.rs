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

/// Of everything that stands within itself, as deep as may be, and one level more.
#[test]
fn deep_rules_have_room_and_deeper_ones_are_refused() {
    let nested = |start: &str, middle: &str, end: &str, times: usize| {
        format!("{}{middle}{}", start.repeat(times), end.repeat(times))
    };
    for (of, levels) in [
        (&(|n| format!("1{} == {}", " + 1".repeat(n), n + 1)) as &dyn Fn(usize) -> String, 249),
        (&|n| format!("true{}", " == true".repeat(n)), 250),
        (&|n| format!("true{}", " && true".repeat(n * 100)), 250),
        (&|n| nested("(", "true", ")", n), 250),
        (&|n| nested("false ? false : ", "true", "", n), 250),
        (&|n| nested("!(", "true", ")", n) + " || true", 125),
        (&|n| format!("'a'{} == 'a'", ".trim()".repeat(n)), 124),
        (&|n| nested("[", "1", "]", n) + ".size() == 1", 247),
        (&|n| nested("{'a': ", "1", "}", n) + ".size() == 1", 247),
        (&|n| nested("type(", "1", ")", n) + " == type", 249),
        (&|n| nested("[1].all(x, ", "true", ")", n), 83),
        (&|n| nested("[1].all(i, x, ", "true", ")", n), 83),
        (&|n| nested("[1].exists_one(x, ", "true", ")", n), 83),
        (&|n| nested("[1].filter(x, ", "true", ").size() == 1", n), 40),
        (&|n| nested("[1].map(x, ", "1", ")", n) + " != []", 82),
        (&|n| nested("[1].transformList(i, x, ", "1", ")", n) + " != []", 82),
        (&|n| nested("optional.of(", "1", ")", n) + ".hasValue()", 123),
        (&|n| nested("optional.of(1).or(", "optional.of(1)", ")", n) + ".hasValue()", 60),
        (&|n| nested("cel.bind(x, 1, ", "x", ")", n) + " == 1", 60),
    ] {
        let source = of(levels);
        match run(&source) {
            Ok(Ok(result)) => assert_eq!(result, Value::Bool(true), "{source}"),
            // What costs too much when it is as deep is followed as far.
            Ok(Err(failure)) => assert_eq!(failure, Failure::Cost, "{source}"),
            Err(error) => assert!(!error.contains("recursion limit"), "{source}: {error}"),
        }
        if !source.contains("&&") {
            let refused = run(&of(levels + 200)).expect_err(&source);
            assert_eq!(refused, "compilation failed: ERROR: <input>:-1:0: expression recursion limit exceeded: 250");
        }
    }
}

/// What looks like a literal to a careless eye, and is none to the parser.
#[test]
fn nothing_hides_depth_from_the_bound() {
    let sums = "1".to_owned() + &" + 1".repeat(15_000);
    let members = "1".to_owned() + &".a".repeat(15_000);
    for start in ["'\n", r"'\q' '", "''' x ' ", "rb' ' + ", "x.`a//b` + ", r#"""""" "#, r"r'\' + "] {
        for deep in [&sums, &members] {
            let refused = run(&format!("{start}{deep}'")).expect_err(start);
            assert!(refused.contains("recursion limit exceeded"), "{start}: {refused}");
        }
    }
}

#[test]
fn work_on_long_values_is_paid_for() {
    let schema = Schema::parse(&json!({ "type": "object", "properties": {
        "text": { "type": "string" }, "list": { "type": "array", "items": { "type": "string" } },
    } }));
    let long = "a".repeat(400_000);
    let list: Vec<String> = (0..20_000).map(|number| number.to_string()).collect();
    let value = values::value(&schema, &json!({ "text": long, "list": list }), false);
    let run = |source: &str| {
        let rule = Expr::compile(source, &[("self", of_schema(&schema, true))], &Ty::Bool).expect(source);
        rule.evaluate(&[("self", value.clone())], &mut EXPRESSION_BUDGET.clone())
    };
    for source in [
        "self.text.replace('a', self.text) != ''",
        "[0, 1].all(i, self.text.replace('a', i == 0 ? [''][5] : self.text) != '' || true)",
        "self.list.map(x, self.text).join('') != ''",
        "self.list.join(self.text) != ''",
        "'%s'.format([self.list.map(x, self.text)]) != ''",
        "'%.2000000000f'.format([1.0]) != ''",
        "self.list.all(x, self.text.lowerAscii() != '')",
        "self.list.all(x, self.text + self.text != '')",
        "self.list.all(x, self.text == self.text)",
        "self.list.all(x, x in self.list)",
        "self.list.all(x, self.list.indexOf(x) >= 0)",
        "sets.contains(self.list, self.list)",
        "self.list.all(x, !self.text.contains('b'))",
        "self.text.matches(self.text)",
        "self.list.all(x, self.text.split('').size() > 0)",
    ] {
        assert_eq!(run(source), Err(Failure::Cost), "{source}");
    }
    for source in [
        "self.text + self.text != 'a' && self.text.lowerAscii() == self.text",
        "self.text.replace('ab', 'c') == self.text && !self.text.contains('bbbb')",
        "self.list.join(',').size() > 20000 && '17' in self.list && sets.contains(self.list, ['1', '2'])",
        "self.list.all(x, x.matches('^[0-9]+$') && x.size() < 6)",
        "self.list.all(x, x.startsWith('0') || x != '0') && self.list.map(x, x + '!').size() == 20000",
    ] {
        assert_eq!(run(source), Ok(Value::Bool(true)), "{source}");
    }
}
