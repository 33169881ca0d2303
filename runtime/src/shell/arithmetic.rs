//! `$(( … ))`: 64-bit integers, with assignment.

use super::{Running, Shell, depth};
use brush_parser::ast::{ArithmeticExpr, ArithmeticTarget, BinaryOperator, UnaryAssignmentOperator, UnaryOperator};
use futures::future::{BoxFuture, FutureExt};

const DIVISION_BY_ZERO: &str = "divide by zero";

impl Running<'_> {
    /// Evaluates an expression after its own expansions.
    pub(super) fn arithmetic<'a>(&'a mut self, text: &'a str) -> BoxFuture<'a, Result<i64, String>> {
        async move {
            let text = if text.contains(['$', '`']) { self.here_text(text).await? } else { text.to_string() };
            if text.trim().is_empty() {
                return Ok(0);
            }
            // Any sign may be an operator, with the rest inside of it.
            let value = depth::parsing(text.len(), || match brush_parser::arithmetic::parse(text.trim()) {
                Ok(expression) => self.shell.evaluate(&expression),
                Err(_) => Err("arithmetic syntax error".to_string()),
            });
            value.unwrap_or_else(|| Err("arithmetic expression too long".to_string()))
        }
        .boxed()
    }
}

impl Shell {
    fn number(&self, name: &str) -> Result<i64, String> {
        let text = self.get(name).unwrap_or_default().trim();
        if text.is_empty() {
            return Ok(0);
        }
        let parsed = match text.strip_prefix("0x") {
            Some(hex) => i64::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        };
        parsed.ok_or_else(|| "arithmetic syntax error".to_string())
    }

    fn target<'a>(&self, target: &'a ArithmeticTarget) -> Result<&'a str, String> {
        match target {
            ArithmeticTarget::Variable(name) => Ok(name),
            ArithmeticTarget::ArrayElement(..) => Err("arrays are not supported by the simulated shell".to_string()),
        }
    }

    fn assign(&mut self, name: &str, value: i64) -> Result<i64, String> {
        self.set(name, value.to_string()).map(|()| value)
    }

    fn evaluate(&mut self, expression: &ArithmeticExpr) -> Result<i64, String> {
        match expression {
            ArithmeticExpr::Literal(value) => Ok(*value),
            ArithmeticExpr::Reference(target) => self.number(self.target(target)?),
            ArithmeticExpr::UnaryOp(operator, operand) => {
                let value = self.evaluate(operand)?;
                Ok(match operator {
                    UnaryOperator::UnaryPlus => value,
                    UnaryOperator::UnaryMinus => value.wrapping_neg(),
                    UnaryOperator::BitwiseNot => !value,
                    UnaryOperator::LogicalNot => i64::from(value == 0),
                })
            }
            ArithmeticExpr::BinaryOp(BinaryOperator::LogicalAnd, left, right) => {
                Ok(i64::from(self.evaluate(left)? != 0 && self.evaluate(right)? != 0))
            }
            ArithmeticExpr::BinaryOp(BinaryOperator::LogicalOr, left, right) => {
                Ok(i64::from(self.evaluate(left)? != 0 || self.evaluate(right)? != 0))
            }
            ArithmeticExpr::BinaryOp(operator, left, right) => {
                let (left, right) = (self.evaluate(left)?, self.evaluate(right)?);
                apply(operator, left, right)
            }
            ArithmeticExpr::Conditional(condition, yes, no) => match self.evaluate(condition)? {
                0 => self.evaluate(no),
                _ => self.evaluate(yes),
            },
            ArithmeticExpr::Assignment(target, value) => {
                let value = self.evaluate(value)?;
                let name = self.target(target)?.to_string();
                self.assign(&name, value)
            }
            ArithmeticExpr::BinaryAssignment(operator, target, value) => {
                let value = self.evaluate(value)?;
                let name = self.target(target)?.to_string();
                let value = apply(operator, self.number(&name)?, value)?;
                self.assign(&name, value)
            }
            ArithmeticExpr::UnaryAssignment(operator, target) => {
                let name = self.target(target)?.to_string();
                let before = self.number(&name)?;
                let (after, result) = match operator {
                    UnaryAssignmentOperator::PrefixIncrement => (before.wrapping_add(1), before.wrapping_add(1)),
                    UnaryAssignmentOperator::PrefixDecrement => (before.wrapping_sub(1), before.wrapping_sub(1)),
                    UnaryAssignmentOperator::PostfixIncrement => (before.wrapping_add(1), before),
                    UnaryAssignmentOperator::PostfixDecrement => (before.wrapping_sub(1), before),
                };
                self.assign(&name, after)?;
                Ok(result)
            }
        }
    }
}

fn apply(operator: &BinaryOperator, left: i64, right: i64) -> Result<i64, String> {
    Ok(match operator {
        BinaryOperator::Power => {
            left.wrapping_pow(u32::try_from(right).map_err(|_| "exponent less than 0".to_string())?)
        }
        BinaryOperator::Multiply => left.wrapping_mul(right),
        BinaryOperator::Divide | BinaryOperator::Modulo if right == 0 => return Err(DIVISION_BY_ZERO.to_string()),
        BinaryOperator::Divide => left.wrapping_div(right),
        BinaryOperator::Modulo => left.wrapping_rem(right),
        BinaryOperator::Comma => right,
        BinaryOperator::Add => left.wrapping_add(right),
        BinaryOperator::Subtract => left.wrapping_sub(right),
        BinaryOperator::ShiftLeft => left.wrapping_shl(right as u32),
        BinaryOperator::ShiftRight => left.wrapping_shr(right as u32),
        BinaryOperator::LessThan => i64::from(left < right),
        BinaryOperator::LessThanOrEqualTo => i64::from(left <= right),
        BinaryOperator::GreaterThan => i64::from(left > right),
        BinaryOperator::GreaterThanOrEqualTo => i64::from(left >= right),
        BinaryOperator::Equals => i64::from(left == right),
        BinaryOperator::NotEquals => i64::from(left != right),
        BinaryOperator::BitwiseAnd => left & right,
        BinaryOperator::BitwiseXor => left ^ right,
        BinaryOperator::BitwiseOr => left | right,
        BinaryOperator::LogicalAnd => i64::from(left != 0 && right != 0),
        BinaryOperator::LogicalOr => i64::from(left != 0 || right != 0),
    })
}
