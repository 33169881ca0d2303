//! What awk has built in.

use super::{Cell, Interpreter, Outcome, Slot, sized, special};
use crate::commands::awk::VALUE_LIMIT_BYTES;
use crate::commands::awk::parser::{Expression, Place, Target};
use crate::commands::awk::records::Separator;
use crate::commands::awk::value::Value;

impl Interpreter {
    pub(super) async fn builtin(&mut self, name: &str, arguments: &[Expression]) -> Outcome<Value> {
        match (name, arguments) {
            ("length", [Expression::Read(Target::Variable(place))]) => {
                if let Cell::Array(array) = self.cell(*place) {
                    return Ok(Value::Number(array.lock().len() as f64));
                }
            }
            ("length", []) => {
                let record = self.field(0)?;
                return Ok(Value::Number(self.text(&record).chars().count() as f64));
            }
            ("split", [text, Expression::Read(Target::Variable(place)), separator @ ..]) => {
                return self.split(text, *place, separator.first()).await;
            }
            ("sub" | "gsub", [pattern, replacement, target @ ..]) => {
                let record = Expression::Read(Target::Field(Box::new(Expression::Number(0.0))));
                let target = target.first().unwrap_or(&record);
                return self.substitute(name == "gsub", pattern, replacement, target).await;
            }
            ("match", [text, pattern]) => {
                let text = self.evaluate(text).await?;
                let (text, pattern) = (self.text(&text), self.pattern(pattern).await?);
                let found = pattern.find(&text);
                let start = found.map_or(0, |found| text[..found.start()].chars().count() + 1) as f64;
                let length = found.map_or(-1.0, |found| found.as_str().chars().count() as f64);
                self.globals[special("RSTART")] = Cell::Value(Value::Number(start));
                self.globals[special("RLENGTH")] = Cell::Value(Value::Number(length));
                return Ok(Value::Number(start));
            }
            ("sprintf", arguments) => return sized(self.format(arguments).await?),
            _ => {}
        }
        let values = self.all(arguments).await?;
        let first = values.first().cloned().unwrap_or_default();
        let number = first.number();
        let text = |at: usize| self.text(values.get(at).unwrap_or(&Value::Unset));
        Ok(match name {
            "length" => Value::Number(text(0).chars().count() as f64),
            "substr" => {
                let most = values.get(2).map_or(f64::INFINITY, Value::number);
                substring(&text(0), values[1].number(), most).into()
            }
            "index" => {
                let (text, wanted) = (text(0), text(1));
                Value::Number(text.find(&*wanted).map_or(0, |at| text[..at].chars().count() + 1) as f64)
            }
            "tolower" => sized(text(0).to_lowercase())?,
            "toupper" => sized(text(0).to_uppercase())?,
            "int" => Value::Number(number.trunc()),
            "sqrt" => Value::Number(number.sqrt()),
            "exp" => Value::Number(number.exp()),
            "log" => Value::Number(number.ln()),
            "sin" => Value::Number(number.sin()),
            "cos" => Value::Number(number.cos()),
            "atan2" => Value::Number(number.atan2(values[1].number())),
            "rand" => {
                // Knuth's MMIX; the same numbers in every run, until `srand` says otherwise.
                self.random =
                    self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                Value::Number((self.random >> 11) as f64 / (1_u64 << 53) as f64)
            }
            "srand" => {
                let now = self.process.world.clock.now().as_second() as f64;
                let seed = if values.is_empty() { now } else { number };
                self.random = seed as i64 as u64;
                Value::Number(std::mem::replace(&mut self.seed, seed))
            }
            "fflush" => Value::Number(0.0),
            _ => return Err("Unexpected token".into()),
        })
    }

    async fn split(&mut self, text: &Expression, place: Place, separator: Option<&Expression>) -> Outcome<Value> {
        let text = self.evaluate(text).await?;
        let text = self.text(&text);
        let separator = match separator {
            Some(Expression::Regex(pattern)) => Separator::Pattern(self.compile(pattern)?),
            Some(separator) => {
                let separator = self.evaluate(separator).await?;
                self.separator(&self.text(&separator), false)?
            }
            None => self.separator(&self.setting("FS"), false)?,
        };
        let array = self.array(place)?;
        let gone = std::mem::take(&mut *array.lock());
        self.forget(gone.into_iter());
        let parts = separator.split(&text);
        let count = parts.len();
        for (at, part) in parts.into_iter().enumerate() {
            self.write(&Slot::Element(array.clone(), (at + 1).to_string()), part)?;
        }
        Ok(Value::Number(count as f64))
    }

    async fn substitute(
        &mut self,
        all: bool,
        pattern: &Expression,
        replacement: &Expression,
        target: &Expression,
    ) -> Outcome<Value> {
        let pattern = self.pattern(pattern).await?;
        let replacement = self.evaluate(replacement).await?;
        let replacement = self.text(&replacement);
        let Expression::Read(target) = target else { return Err("Unexpected token".into()) };
        let slot = self.slot(target).await?;
        let old = self.read(&slot)?;
        let text = self.text(&old);
        let (mut out, mut end, mut count) = (String::new(), 0, 0);
        for found in pattern.find_iter(&text).take(if all { usize::MAX } else { 1 }) {
            out += &text[end..found.start()];
            replace(&mut out, &replacement, found.as_str());
            (end, count) = (found.end(), count + 1);
            if out.len() > VALUE_LIMIT_BYTES {
                return Err("out of memory".into());
            }
        }
        if count > 0 {
            self.write(&slot, sized(out + &text[end..])?)?;
        }
        Ok(Value::Number(f64::from(count)))
    }
}

/// Writes what stands in place of a match: `&` is the match, `\&` a `&`.
fn replace(out: &mut String, replacement: &str, found: &str) {
    let mut rest = replacement.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '&' => out.push_str(found),
            '\\' => match rest.next_if(|escaped| "&\\".contains(*escaped)) {
                Some(escaped) => out.push(escaped),
                None => out.push('\\'),
            },
            other => out.push(other),
        }
    }
}

fn substring(text: &str, from: f64, most: f64) -> String {
    let from = from.round_ties_even();
    let until = from + most.round_ties_even();
    let within = |at: usize| at as f64 >= from && (at as f64) < until;
    text.chars().enumerate().filter(|(at, _)| within(at + 1)).map(|(_, character)| character).collect()
}
