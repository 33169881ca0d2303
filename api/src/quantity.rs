//! [`Quantity`]: exact amounts with a suffix, `500m`, `1Gi`, `1e3` (apimachinery `pkg/api/resource`).
//!
//! Kubernetes keeps amounts to one billionth, rounds what is finer away from zero, and caps at 2⁶³-1. Billionths in an
//! `i128` hold all of that exactly, so there is no second representation for large numbers as there is in Go.
//!
//! A quantity remembers the family of its suffix and prints canonically within it: no fraction, the largest suffix that
//! needs none: `0.5` → `500m`, `1024Mi` → `1Gi`, `1000m` → `1`.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};
use std::str::FromStr;

use serde_json::Value;
use thiserror::Error;

/// Billionths in one.
const NANO: i128 = 1_000_000_000;
/// Kubernetes caps amounts here.
const MAX: i128 = i64::MAX as i128 * NANO;
/// Decimal digits kept of a fraction; one billionth of 2⁻⁶⁰ needs fewer, and what is finer rounds.
const FRACTION_DIGITS: usize = 18;
const FRACTION: i128 = 1_000_000_000_000_000_000;
/// Exponents beyond decide nothing more: the amount is capped, or rounds to one billionth.
const MAX_EXPONENT: i64 = 64;
/// Longer texts are refused; a quantity has at most a few dozen characters.
const MAX_LENGTH: usize = 512;

const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// Why a text is no quantity, in the words of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum QuantityError {
    /// Not of the form at all.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The number is none.
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    /// The suffix is not known.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// The family of a suffix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// `m`, none, `k`, `M`, …
    #[default]
    DecimalSi,
    /// `Ki`, `Mi`, …
    BinarySi,
    /// `e3`, `E6`, …
    DecimalExponent,
}

/// An exact amount. Two are equal when their amounts are, whatever their suffixes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

impl Quantity {
    /// Zero.
    pub const ZERO: Self = Self { nano: 0, format: Format::DecimalSi };

    /// A whole amount.
    pub const fn new(value: i64, format: Format) -> Self {
        Self { nano: value as i128 * NANO, format }
    }

    /// An amount in thousandths.
    pub const fn from_milli(value: i64, format: Format) -> Self {
        Self { nano: value as i128 * (NANO / 1000), format }
    }

    /// Reads what `FromStr` reads.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        parse(text)
    }

    /// Reads a JSON string or number.
    pub fn from_value(value: &Value) -> Result<Self, QuantityError> {
        match value {
            Value::String(text) => parse(text),
            Value::Number(number) => parse(&number.to_string()),
            _ => Err(QuantityError::Format),
        }
    }

    /// The whole amount, rounded up.
    pub fn value(&self) -> i64 {
        self.scaled(NANO)
    }

    /// The amount in thousandths, rounded up.
    pub fn milli_value(&self) -> i64 {
        self.scaled(NANO / 1000)
    }

    fn scaled(&self, unit: i128) -> i64 {
        let up = self.nano.div_euclid(unit) + i128::from(self.nano.rem_euclid(unit) != 0);
        up.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }

    /// The amount, as near as a float comes.
    pub fn as_f64(&self) -> f64 {
        self.nano as f64 / NANO as f64
    }

    /// The family of the suffix it prints with.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether it is zero.
    pub fn is_zero(&self) -> bool {
        self.nano == 0
    }

    /// -1, 0 or 1.
    pub fn signum(&self) -> i32 {
        self.nano.signum() as i32
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nano.cmp(&other.nano)
    }
}

impl Add for Quantity {
    type Output = Self;

    /// Zero takes the format of what is added to it, as in Go.
    fn add(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nano: self.nano.saturating_add(other.nano), format }
    }
}

impl Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl Neg for Quantity {
    type Output = Self;

    fn neg(self) -> Self {
        Self { nano: -self.nano, format: self.format }
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        parse(text)
    }
}

impl From<Quantity> for Value {
    fn from(quantity: Quantity) -> Self {
        Value::String(quantity.to_string())
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nano == 0 {
            return f.write_str("0");
        }
        // Below 1024, and where a fraction would be lost, the binary family prints as the decimal one does.
        let whole = self.nano % NANO == 0;
        let small = self.nano.abs() < 1024 * NANO;
        if self.format == Format::BinarySi && whole && !small {
            let mut value = self.nano / NANO;
            let mut power = 0;
            while value % 1024 == 0 && power + 1 < BINARY.len() {
                value /= 1024;
                power += 1;
            }
            return write!(f, "{value}{}", BINARY[power]);
        }
        let mut value = self.nano;
        let mut exponent = -9;
        while value % 1000 == 0 && exponent < 18 {
            value /= 1000;
            exponent += 3;
        }
        match (self.format, exponent) {
            (Format::DecimalExponent, 0) => write!(f, "{value}"),
            (Format::DecimalExponent, exponent) => write!(f, "{value}e{exponent}"),
            _ => write!(f, "{value}{}", DECIMAL[((exponent + 9) / 3) as usize].0),
        }
    }
}

/// A number's scale: ten or two to a power.
enum Scale {
    Ten(i64),
    Two(u32),
}

fn parse(text: &str) -> Result<Quantity, QuantityError> {
    if text == "0" {
        return Ok(Quantity::ZERO);
    }
    if text.is_empty() || text.len() > MAX_LENGTH {
        return Err(QuantityError::Format);
    }
    let (negative, rest) = match text.as_bytes()[0] {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let whole_end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (whole, rest) = rest.split_at(whole_end);
    let (fraction, suffix) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())),
        None => ("", rest),
    };
    if !suffix_is_well_formed(suffix) {
        return Err(QuantityError::Format);
    }
    if whole.is_empty() && fraction.is_empty() {
        return Err(QuantityError::Numeric);
    }
    let (scale, mut format) = read_suffix(suffix).ok_or(QuantityError::Suffix)?;
    let nano = amount(whole, fraction, scale);
    if format == Format::BinarySi && nano > 0 && nano < NANO {
        format = Format::DecimalSi;
    }
    Ok(Quantity { nano: if negative { -nano } else { nano }, format })
}

/// `[eEinumkKMGTP]*[-+]?[0-9]*`
fn suffix_is_well_formed(suffix: &str) -> bool {
    let rest = suffix.trim_start_matches(|c: char| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    rest.bytes().all(|b| b.is_ascii_digit())
}

fn read_suffix(suffix: &str) -> Option<(Scale, Format)> {
    if let Some((_, exponent)) = DECIMAL.iter().find(|(s, _)| *s == suffix) {
        return Some((Scale::Ten(i64::from(*exponent)), Format::DecimalSi));
    }
    if let Some(power) = BINARY.iter().position(|s| *s == suffix) {
        return Some((Scale::Two(power as u32 * 10), Format::BinarySi));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?.parse::<i64>().ok()?;
    Some((
        Scale::Ten(exponent.clamp(-MAX_EXPONENT - MAX_LENGTH as i64, MAX_EXPONENT + MAX_LENGTH as i64)),
        Format::DecimalExponent,
    ))
}

/// The amount in billionths: exact, rounded up where finer, capped.
fn amount(whole: &str, fraction: &str, scale: Scale) -> i128 {
    let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|b| b - b'0').collect();
    let (ten, two) = match scale {
        Scale::Ten(ten) => (ten, 0),
        Scale::Two(two) => (0, two),
    };
    let point = whole.len() as i64 + ten;
    let digit = |at: i64| usize::try_from(at).ok().and_then(|at| digits.get(at)).copied().unwrap_or(0);
    let mut integer: i128 = 0;
    for at in 0..point.max(0) {
        integer = integer * 10 + i128::from(digit(at));
        if integer > i128::from(i64::MAX) {
            return MAX;
        }
    }
    let mut parts: i128 = 0;
    for at in point..point + FRACTION_DIGITS as i64 {
        parts = parts * 10 + i128::from(digit(at));
    }
    let rest = (point + FRACTION_DIGITS as i64).clamp(0, digits.len() as i64) as usize;
    let finer = digits[rest..].iter().any(|d| *d != 0);

    // integer < 2^63, parts < 10^18 < 2^60 and 2^two <= 2^60, so neither product leaves an i128.
    let parts = parts << two;
    let integer = (integer << two) + parts / FRACTION;
    if integer > i128::from(i64::MAX) {
        return MAX;
    }
    let below = parts % FRACTION;
    let unit = FRACTION / NANO;
    let round_up = below % unit != 0 || finer;
    (integer * NANO + below / unit + i128::from(round_up)).min(MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        Quantity::parse(text).map_or_else(|e| e.to_string(), |q| q.to_string())
    }

    #[test]
    fn canonical_forms() {
        for (input, expected) in [
            ("0", "0"),
            ("0Gi", "0"),
            ("-0", "0"),
            ("1", "1"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("5.", "5"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1024Mi", "1Gi"),
            ("1Gi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("1000Ki", "1000Ki"),
            ("1024", "1024"),
            ("100Mi", "100Mi"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("12e6", "12e6"),
            ("1e-3", "1e-3"),
            ("1E", "1E"),
            ("1n", "1n"),
            ("0.1n", "1n"),
            ("-0.1n", "-1n"),
            ("1.0000000001", "1000000001n"),
            ("129e6", "129e6"),
            ("123456789M", "123456789M"),
            ("+3", "3"),
            ("-1", "-1"),
            ("9223372036854775807", "9223372036854775807"),
            ("9223372036854775808", "9223372036854775807"),
            ("100E", "9223372036854775807"),
            ("1e100", "9223372036854775807"),
            ("1e-100", "1e-9"),
            ("0.1Ki", "102400m"),
            ("100000000000000000000000n", "100T"),
        ] {
            assert_eq!(canonical(input), expected, "{input}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused_in_kubernetes_words() {
        for input in ["", "2 cores", "1gi", "1Gi ", "1.2.3", "x", "1_0", "١"] {
            assert_eq!(canonical(input), QuantityError::Format.to_string(), "{input}");
        }
        for input in ["1kk", "1ki", "1mm", "1i", "1Ei3"] {
            assert_eq!(canonical(input), QuantityError::Suffix.to_string(), "{input}");
        }
        for input in [".", "-", "Gi", "-."] {
            assert_eq!(canonical(input), QuantityError::Numeric.to_string(), "{input}");
        }
    }

    #[test]
    fn values_round_up() {
        assert_eq!(Quantity::parse("1m").unwrap().value(), 1);
        assert_eq!(Quantity::parse("1500m").unwrap().value(), 2);
        assert_eq!(Quantity::parse("-1500m").unwrap().value(), -1);
        assert_eq!(Quantity::parse("1u").unwrap().milli_value(), 1);
        assert_eq!(Quantity::parse("2").unwrap().milli_value(), 2000);
        assert_eq!(Quantity::parse("8Ei").unwrap().milli_value(), i64::MAX);
    }

    #[test]
    fn arithmetic_keeps_the_first_format() {
        let gi: Quantity = "1Gi".parse().unwrap();
        let m: Quantity = "1M".parse().unwrap();
        assert_eq!((gi + gi).to_string(), "2Gi");
        assert_eq!((Quantity::ZERO + gi).to_string(), "1Gi");
        assert_eq!((gi - gi).to_string(), "0");
        assert!(gi > m);
        assert_eq!(Quantity::parse("1000m").unwrap(), Quantity::parse("1").unwrap());
        assert_eq!([gi, gi].into_iter().sum::<Quantity>().to_string(), "2Gi");
    }

    #[test]
    fn printing_and_parsing_again_changes_nothing() {
        for mantissa in [1_i64, 7, 999, 1000, 1023, 1024, 1_048_576, 123_456_789] {
            for suffix in ["n", "u", "m", "", "k", "M", "G", "Ki", "Mi", "Gi", "e3", "e-6"] {
                let once = canonical(&format!("{mantissa}{suffix}"));
                assert_eq!(canonical(&once), once, "{mantissa}{suffix}");
            }
        }
    }
}
