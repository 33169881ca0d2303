//! Expressions that choose devices by what their drivers say of them: `device.attributes["gpu.example.com"].model == "A100"`.
//!
//! They are compiled when they are written, and what they may cost at worst is bounded: a scheduler asks them of each
//! device. `k8s.io/dynamic-resource-allocation/cel/compile.go`.
use std::sync::Arc;

use crate::custom::cel;
use crate::custom::cel::check::Ty;
use crate::custom::cel::cost::Shape;
use crate::custom::cel::library::QUANTITY;

/// Longest expression, in bytes (`CELSelectorExpressionMaxLength`).
pub const EXPRESSION_MAX_BYTES: usize = 10 * 1024;
/// What an expression may cost at worst (`CELSelectorExpressionMaxCost`).
const COST_MAX: u64 = 1_000_000;

const DOMAIN_MAX: u64 = 63;
const ID_MAX: u64 = 32;
const ATTRIBUTES_MAX: u64 = 32;
const VALUE_MAX: u64 = 64;

/// Why an expression is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is longer than [`EXPRESSION_MAX_BYTES`].
    TooLong,
    /// It may cost too much.
    TooComplex,
    /// It does not compile, or gives something else than yes or no: in cel-go's words.
    Invalid(String),
}

/// Compiles an expression; gives what it costs at worst.
pub fn compile(source: &str) -> Result<u64, Fault> {
    if source.len() > EXPRESSION_MAX_BYTES {
        return Err(Fault::TooLong);
    }
    let (found, cost) =
        cel::device_expression(source, "device", device_type(), device_shape()).map_err(Fault::Invalid)?;
    if !matches!(found, Ty::Bool | Ty::Dyn) {
        return Err(Fault::Invalid(format!("must evaluate to bool or the unknown type, not {}", found.name())));
    }
    if cost > COST_MAX { Err(Fault::TooComplex) } else { Ok(cost) }
}

fn device_type() -> Ty<'static> {
    let by_domain = |ty: Ty<'static>| Ty::Map(Box::new(Ty::Map(Box::new(ty))));
    let fields = [
        ("driver", Ty::String),
        ("allowMultipleAllocations", Ty::Bool),
        ("attributes", by_domain(Ty::Dyn)),
        ("capacity", by_domain(Ty::Named(QUANTITY))),
    ];
    Ty::Record("kubernetes.DRADevice", fields.map(|(name, ty)| (name.to_owned(), ty)).into_iter().collect::<Arc<[_]>>())
}

fn device_shape() -> Shape {
    let map = |key, value| Shape::Map { most: ATTRIBUTES_MAX, key: Arc::new(Shape::Text(key)), value: Arc::new(value) };
    let by_domain = |value| map(DOMAIN_MAX, map(ID_MAX, value));
    let fields = [
        ("driver", Shape::Text(DOMAIN_MAX)),
        ("allowMultipleAllocations", Shape::Scalar),
        ("attributes", by_domain(Shape::Any(VALUE_MAX))),
        ("capacity", by_domain(Shape::Opaque)),
    ];
    let fields = fields.into_iter().map(|(name, shape)| (name.to_owned(), shape)).collect();
    Shape::Record { most: u64::MAX, fields: Arc::new(fields) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_compiles() {
        for source in [
            "true",
            "device.driver == 'gpu.example.com'",
            "device.attributes['gpu.example.com'].model == 'A100'",
            "device.attributes['gpu.example.com'].shared",
            "device.capacity['gpu.example.com'].memory.isGreaterThan(quantity('1Gi'))",
            "device.capacity['gpu.example.com'].memory.compareTo(quantity('1Gi')) >= 0",
            "'a' in device.attributes['x.y'] && device.attributes['x.y'].a > 3",
            "has(device.attributes['x.y'].a)",
            "device.attributes['x.y'].version.isGreaterThan(semver('1.2.3'))",
            "cel.bind(d, device.attributes['x.y'], d.a && d.b)",
            "device.attributes.exists(domain, domain == 'x.y')",
            "!device.allowMultipleAllocations",
        ] {
            assert!(compile(source).is_ok(), "{source}: {:?}", compile(source));
        }
    }

    /// The numbers are those of `CompileCELExpression` of Kubernetes 1.37.
    #[test]
    fn what_it_costs() {
        for (source, cost) in [
            ("device.attributes['a.b'].x", 4),
            ("device.capacity['a.b'].x == quantity('1')", 6),
            ("has(device.attributes['a.b'].x)", 3),
            ("'a.b' in device.attributes", 3),
            ("cel.bind(a, device.attributes['a.b'], a.x && a.y)", 17),
            ("device.attributes.exists(k, k == 'a')", 195),
            ("device.attributes['a.b'].all(k, device.attributes['a.b'][k] == k)", 420),
            ("device.attributes['a.b'].s.matches('x*')", 11),
            ("{'a':1}.a == 1", 32),
            ("device.attributes['a.b'].x in ['a','b']", 16),
            ("device.attributes['a.b'].x + 1 == 2", 6),
            ("device.attributes['a.b'].x == device.attributes['a.b'].y", 15),
            ("device.attributes.map(k, device.attributes[k].map(j, j)).size() == 1", 14191),
            ("device.attributes.all(a, device.attributes.all(b, a == b))", 12483),
            ("device.attributes['a.b'].exists_one(k, k == 'x')", 133),
            ("device.attributes['a.b'].filter(k, k == 'x').size() > 0", 496),
            ("device.attributes['a.b'].?x.orValue(false)", 5),
            ("device.attributes['a.b'].x.lowerAscii() == 'x'", 12),
            ("device.driver.split('.').size() > 1", 17),
            ("device.driver.replace('a','b') == ''", 15),
            ("sets.contains([1],[1])", 22),
            ("url('http://x').getHost() == 'x'", 3),
        ] {
            assert_eq!(compile(source), Ok(cost), "{source}");
        }
        assert_eq!(compile("type(1) == int"), Err(Fault::TooComplex));
    }

    #[test]
    fn what_does_not() {
        let fault = |source: &str| match compile(source) {
            Err(Fault::Invalid(why)) => why,
            other => panic!("{source}: {other:?}"),
        };
        assert_eq!(fault("device.driver"), "must evaluate to bool or the unknown type, not string");
        assert!(fault("device.name == ''").contains("undefined field 'name'"));
        assert!(fault("nothing").contains("undeclared reference to 'nothing'"));
        assert!(fault("").starts_with("compilation failed: ERROR: <input>:1:1: Syntax error"));
        assert_eq!(compile(&" ".repeat(EXPRESSION_MAX_BYTES + 1)), Err(Fault::TooLong));
        let nested = "device.attributes.all(a, device.attributes.all(b, device.attributes.all(c, device.attributes.all(d, a + b == c + d))))";
        assert_eq!(compile(nested), Err(Fault::TooComplex));
    }
}
