//! [`IntOrString`]: a number, or a string that is mostly a percentage or a port's name (apimachinery `pkg/util/intstr`).

use serde_json::Value;
use thiserror::Error;

/// A number or a string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IntOrString {
    /// As in `3`.
    Int(i32),
    /// As in `25%` or `http`.
    String(String),
}

/// Why a string is no percentage.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("invalid value for IntOrString: invalid type: string is not a percentage")]
pub struct NotAPercentage;

impl IntOrString {
    /// Reads a JSON number or string; `None` for anything else.
    pub fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Number(number) => Some(Self::Int(i32::try_from(number.as_i64()?).ok()?)),
            Value::String(text) => Some(Self::String(text.clone())),
            _ => None,
        }
    }

    /// The percentage of a string such as `25%`.
    pub fn percent(&self) -> Option<i32> {
        match self {
            Self::Int(_) => None,
            Self::String(text) => text.strip_suffix('%')?.parse().ok(),
        }
    }

    /// The number, or the percentage of `total`, rounded up or down (`GetScaledValueFromIntOrPercent`).
    pub fn scaled_value_from_percent(&self, total: i32, round_up: bool) -> Result<i32, NotAPercentage> {
        match self {
            Self::Int(value) => Ok(*value),
            Self::String(_) => {
                let scaled = i64::from(self.percent().ok_or(NotAPercentage)?) * i64::from(total);
                let rounded = scaled.div_euclid(100) + i64::from(round_up && scaled.rem_euclid(100) != 0);
                Ok(rounded.clamp(i32::MIN.into(), i32::MAX.into()) as i32)
            }
        }
    }
}

impl std::fmt::Display for IntOrString {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Int(value) => write!(f, "{value}"),
            Self::String(text) => f.write_str(text),
        }
    }
}

impl From<IntOrString> for Value {
    fn from(value: IntOrString) -> Self {
        match value {
            IntOrString::Int(value) => value.into(),
            IntOrString::String(text) => text.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn percentages_scale() {
        let quarter = IntOrString::from_value(&json!("25%")).unwrap();
        assert_eq!(quarter.scaled_value_from_percent(3, true), Ok(1));
        assert_eq!(quarter.scaled_value_from_percent(3, false), Ok(0));
        assert_eq!(quarter.scaled_value_from_percent(8, true), Ok(2));
        assert_eq!(IntOrString::Int(7).scaled_value_from_percent(3, true), Ok(7));
        assert_eq!(IntOrString::String("http".into()).scaled_value_from_percent(3, true), Err(NotAPercentage));
        assert_eq!(IntOrString::from_value(&json!(1.5)), None);
        assert_eq!(IntOrString::from_value(&json!(3_000_000_000_u64)), None);
    }
}
