//! Values of awk: numbers, texts, and what may be either.

use super::VALUE_LIMIT_BYTES;
use crate::commands::text::PLACES_MAX;
use std::cmp::Ordering;
use std::sync::Arc;

/// A value.
#[derive(Debug, Clone, Default)]
pub(super) enum Value {
    /// What was never assigned: both 0 and the empty text.
    #[default]
    Unset,
    Number(f64),
    Text(Arc<str>),
    /// A text from outside, which counts as a number if it looks like one.
    Input(Arc<str>),
}

impl From<f64> for Value {
    fn from(number: f64) -> Value {
        Value::Number(number)
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Value {
        Value::Number(f64::from(u8::from(truth)))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text.into())
    }
}

impl Value {
    /// As a number: what the text begins with.
    pub fn number(&self) -> f64 {
        match self {
            Value::Unset => 0.0,
            Value::Number(number) => *number,
            Value::Text(text) | Value::Input(text) => {
                leading_number(text.trim_start()).map_or(0.0, |(number, _)| number)
            }
        }
    }

    /// As a text; `format` is how a number that is not whole is written (`CONVFMT`).
    pub fn text(&self, format: &str) -> Arc<str> {
        match self {
            Value::Unset => "".into(),
            Value::Text(text) | Value::Input(text) => text.clone(),
            Value::Number(number) if number.fract() == 0.0 && number.abs() < 1e16 => {
                format!("{:.0}", number + 0.0).into()
            }
            Value::Number(number) => {
                sprintf(format, &[Value::Number(*number)], "%.6g").unwrap_or_else(|_| number.to_string()).into()
            }
        }
    }

    /// As a condition.
    pub fn truth(&self) -> bool {
        match (self, self.as_number()) {
            (Value::Text(text), _) => !text.is_empty(),
            (_, Some(number)) => number != 0.0,
            (Value::Input(text), None) => !text.is_empty(),
            _ => false,
        }
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        match self {
            Value::Text(text) | Value::Input(text) => text.len(),
            _ => 0,
        }
    }

    /// The number that it is in a comparison, if it is one.
    fn as_number(&self) -> Option<f64> {
        match self {
            Value::Unset => Some(0.0),
            Value::Number(number) => Some(*number),
            Value::Text(_) => None,
            Value::Input(text) => {
                let text = text.trim();
                leading_number(text).filter(|(_, length)| *length == text.len()).map(|(number, _)| number)
            }
        }
    }

    /// Compares numbers as numbers, and all else as texts. What is no number at all comes after nothing and before nothing.
    pub fn compare(&self, other: &Value, format: &str) -> Option<Ordering> {
        match (self.as_number(), other.as_number()) {
            (Some(left), Some(right)) => left.partial_cmp(&right),
            _ => Some(self.text(format).cmp(&other.text(format))),
        }
    }
}

/// The decimal number that a text begins with, and its length.
pub(super) fn leading_number(text: &str) -> Option<(f64, usize)> {
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let sign = usize::from(matches!(bytes.first(), Some(b'+' | b'-')));
    let whole = digits(sign);
    let mut end = sign + whole;
    let mut places = 0;
    if bytes.get(end) == Some(&b'.') {
        places = digits(end + 1);
        end += 1 + places;
    }
    if whole + places == 0 {
        return None;
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let signed = end + 1 + usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = bytes.get(signed..).map_or(0, |_| digits(signed));
        if exponent > 0 {
            end = signed + exponent;
        }
    }
    Some((text[..end].parse().ok()?, end))
}

/// Writes values in a format; `convert` is `CONVFMT`.
pub(super) fn sprintf(format: &str, values: &[Value], convert: &str) -> Result<String, &'static str> {
    let mut values = values.iter();
    let mut out = String::new();
    let mut rest = format.chars().peekable();
    while let Some(character) = rest.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        let mut spec = String::new();
        while let Some(part) = rest.next_if(|part| "-+ #0123456789.*hlLqjzt".contains(*part)) {
            match part {
                '*' => spec += &format!("{}", values.next().map_or(0, |width| width.number() as i64)),
                letter if letter.is_ascii_alphabetic() => {}
                part => spec.push(part),
            }
        }
        match rest.next() {
            Some('%') => out.push('%'),
            Some(conversion) => {
                let value = values.next().cloned().unwrap_or_default();
                let (flags, width, places) = read(&spec);
                if out.len().saturating_add(width) > VALUE_LIMIT_BYTES {
                    return Err("out of memory");
                }
                let text = convert_one(conversion, &value, places, &flags, convert)?;
                pad(
                    &mut out,
                    &text,
                    &flags,
                    width,
                    "sc".contains(conversion) || places.is_some() && "di".contains(conversion),
                );
            }
            None => out.push('%'),
        }
        if out.len() > VALUE_LIMIT_BYTES {
            return Err("out of memory");
        }
    }
    Ok(out)
}

/// The flags, the width and the precision of a conversion.
fn read(spec: &str) -> (String, usize, Option<usize>) {
    let width = spec.trim_start_matches(['-', '+', ' ', '#', '0']);
    let flags = spec[..spec.len() - width.len()].to_string();
    let (width, places) = width.split_once('.').map_or((width, None), |(width, places)| (width, Some(places)));
    let number = |digits: &str| match digits.is_empty() {
        true => 0,
        false => digits.parse().unwrap_or(usize::MAX),
    };
    let places = places.filter(|places| !places.starts_with('-')).map(number);
    (flags, number(width), places)
}

fn convert_one(
    conversion: char,
    value: &Value,
    places: Option<usize>,
    flags: &str,
    convert: &str,
) -> Result<String, &'static str> {
    let number = value.number();
    let precision = places.unwrap_or(6).min(PLACES_MAX);
    let text = match conversion {
        's' => return Ok(value.text(convert).chars().take(places.unwrap_or(usize::MAX)).collect()),
        'c' => {
            return Ok(match (value, value.as_number()) {
                (Value::Number(_) | Value::Input(_), Some(code)) => {
                    char::from_u32(code as u32).unwrap_or('\u{fffd}').to_string()
                }
                _ => value.text(convert).chars().take(1).collect(),
            });
        }
        'd' | 'i' if number.is_finite() => whole(&format!("{:.0}", number.trunc()), places),
        'd' | 'i' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G' if !number.is_finite() => format!("{number}").to_lowercase(),
        'u' => whole(&(number as i64 as u64).to_string(), places),
        'o' => whole(&format!("{:o}", number as i64), places),
        'x' => whole(&format!("{:x}", number as i64), places),
        'X' => whole(&format!("{:X}", number as i64), places),
        'f' | 'F' => format!("{number:.precision$}"),
        'e' | 'E' => exponential(number, precision, conversion),
        'g' | 'G' => general(number, precision.max(1), conversion, flags.contains('#')),
        _ => return Err("Invalid format specifier"),
    };
    Ok(match text.starts_with('-') || "uoxX".contains(conversion) {
        false if flags.contains('+') => format!("+{text}"),
        false if flags.contains(' ') => format!(" {text}"),
        _ => text,
    })
}

/// A whole number with at least so many digits.
fn whole(number: &str, places: Option<usize>) -> String {
    let number = if number == "-0" { "0" } else { number };
    let (sign, digits) = number.strip_prefix('-').map_or(("", number), |digits| ("-", digits));
    let least = places.unwrap_or(0).min(PLACES_MAX);
    format!("{sign}{digits:0>least$}")
}

/// `1.5e+03`.
fn exponential(number: f64, precision: usize, letter: char) -> String {
    let text = format!("{number:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if exponent < 0 { '-' } else { '+' };
    let letter = if letter.is_ascii_uppercase() { 'E' } else { 'e' };
    format!("{mantissa}{letter}{sign}{:02}", exponent.abs())
}

/// The shorter one of `%e` and `%f`, with so many digits.
fn general(number: f64, digits: usize, letter: char, keep_zeros: bool) -> String {
    let scientific = exponential(number, digits - 1, letter);
    let exponent = scientific.rsplit(['e', 'E']).next().and_then(|exponent| exponent.parse::<i64>().ok()).unwrap_or(0);
    let trim = |text: &str| match text.contains('.') && !keep_zeros {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text.to_string(),
    };
    if exponent < -4 || exponent >= digits as i64 {
        let at = scientific.find(['e', 'E']).unwrap_or(scientific.len());
        return trim(&scientific[..at]) + &scientific[at..];
    }
    let places = (digits as i64 - 1 - exponent).max(0) as usize;
    trim(&format!("{number:.places$}"))
}

fn pad(out: &mut String, text: &str, flags: &str, width: usize, blank: bool) {
    let missing = width.saturating_sub(text.chars().count());
    if flags.contains('-') {
        out.push_str(text);
        out.extend(std::iter::repeat_n(' ', missing));
    } else if flags.contains('0') && !blank {
        let (sign, digits) = text.split_at(usize::from(text.starts_with(['-', '+', ' '])));
        out.push_str(sign);
        out.extend(std::iter::repeat_n('0', missing));
        out.push_str(digits);
    } else {
        out.extend(std::iter::repeat_n(' ', missing));
        out.push_str(text);
    }
}
