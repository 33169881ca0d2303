//! The private fields of Go's `resource.Quantity`, which are part of the hash (apimachinery `pkg/api/resource` `ParseQuantity`).

use std::fmt;

/// A quantity as Go holds it after reading a canonical text.
pub(super) struct GoQuantity<'a> {
    amount: Amount,
    /// The text, which Go keeps only where it is sure that the text is canonical.
    text: &'a str,
    format: &'static str,
}

enum Amount {
    /// `int64Amount`: `value` · 10^`scale`.
    Small { value: i64, scale: i32 },
    /// `inf.Dec`: an integer of any size, of billionths.
    Large { billionths: i128 },
}

/// What a suffix multiplies with.
enum Unit {
    Binary { power_of_two: u32 },
    Decimal { power_of_ten: i32 },
}

/// Digits that `int64Amount` holds for sure.
const DECIMAL_DIGITS: i32 = 18;
const BINARY_DIGITS: i32 = 15;
/// The exponent of the smallest unit, a billionth.
const NANO: i32 = -9;

impl<'a> GoQuantity<'a> {
    /// Reads a canonical quantity: a whole number without leading zeros, and a suffix.
    pub(super) fn read(text: &'a str) -> Self {
        if text == "0" {
            return Self { amount: Amount::Small { value: 0, scale: 0 }, text, format: "DecimalSI" };
        }
        let unsigned = text.trim_start_matches('-');
        let digits = &unsigned[..unsigned.find(|c: char| !c.is_ascii_digit()).unwrap_or(unsigned.len())];
        let (unit, format) = unit(&unsigned[digits.len()..]);
        let length = digits.len() as i32;
        let (room, factor, scale) = match unit {
            // Three digits for each ten powers of two.
            Unit::Binary { power_of_two } => {
                (BINARY_DIGITS - length - power_of_two as i32 * 3 / 10 - 1, 1 << power_of_two, 0)
            }
            Unit::Decimal { power_of_ten } => (DECIMAL_DIGITS - length, 1, power_of_ten),
        };
        let number: i128 = digits.parse().expect("a canonical quantity is below 2⁶³ in billionths");
        let signed = if text.starts_with('-') { -number } else { number };
        if room < 0 {
            let billionths = signed * factor * 10_i128.pow((scale - NANO) as u32);
            return Self { amount: Amount::Large { billionths }, text: "", format };
        }
        let canonical = match unit {
            Unit::Binary { .. } => number % 8 != 0,
            Unit::Decimal { .. } => !digits.ends_with("000"),
        };
        let value = (signed * factor) as i64;
        Self { amount: Amount::Small { value, scale }, text: if canonical { text } else { "" }, format }
    }
}

/// The unit of a canonical suffix, and the format that it stands for.
fn unit(suffix: &str) -> (Unit, &'static str) {
    let decimal = |power_of_ten| (Unit::Decimal { power_of_ten }, "DecimalSI");
    let binary = |power_of_two| (Unit::Binary { power_of_two }, "BinarySI");
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        exponent => {
            let power_of_ten = exponent[1..].parse().expect("what is left is an exponent, `e3`");
            (Unit::Decimal { power_of_ten }, "DecimalExponent")
        }
    }
}

/// As go-spew prints it.
impl fmt::Display for GoQuantity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, scale) = match self.amount {
            Amount::Small { value, scale } => (value, scale),
            Amount::Large { .. } => (0, 0),
        };
        write!(f, "{{i:(resource.int64Amount){{value:(int64){value} scale:(resource.Scale){scale}}} ")?;
        f.write_str("d:(resource.infDecAmount){Dec:(*inf.Dec)")?;
        match self.amount {
            Amount::Small { .. } => f.write_str("<nil>")?,
            Amount::Large { billionths } => {
                let negative = billionths < 0;
                let size = billionths.unsigned_abs();
                write!(f, "{{unscaled:(big.Int){{neg:(bool){negative} abs:(big.nat)[{}", size as u64)?;
                if size >> 64 != 0 {
                    write!(f, " {}", size >> 64)?;
                }
                write!(f, "]}} scale:(inf.Scale){}}}", -NANO)?;
            }
        }
        write!(f, "}} s:(string){} Format:(resource.Format){}}}", self.text, self.format)
    }
}
