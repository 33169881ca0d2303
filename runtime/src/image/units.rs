//! Sizes and durations as profiles write them.

use serde::{Deserialize, Deserializer, de::Error};
use std::time::Duration;

fn split(text: &str) -> Option<(f64, &str)> {
    let at = text.find(|character: char| character.is_ascii_alphabetic()).unwrap_or(text.len());
    Some((text[..at].parse().ok()?, &text[at..]))
}

/// `250M`, `64Mi`, `1024`: bytes.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let factor: u64 = match unit {
        "" | "B" => 1,
        "k" | "K" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return None,
    };
    Some((number * factor as f64) as u64)
}

/// `300ms`, `2s`, `5m`, `1h`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok()
}

/// `100m`, `1.5`: thousandths of a processor.
pub fn parse_millicores(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    match unit {
        "m" => Some(number as u64),
        "" => Some((number * 1000.0) as u64),
        _ => None,
    }
}

pub(super) fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_bytes(&text).ok_or_else(|| D::Error::custom(format!("{text:?} is no size (such as 64Mi)")))
}

pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).ok_or_else(|| D::Error::custom(format!("{text:?} is no duration (such as 300ms)")))
}

pub(super) fn optional_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

pub(super) fn millicores<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_millicores(&text)
        .ok_or_else(|| D::Error::custom(format!("{text:?} is no amount of processor (such as 100m)")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_those_of_kubernetes() {
        assert_eq!(parse_bytes("64Mi"), Some(64 << 20));
        assert_eq!(parse_bytes("72.9M"), Some(72_900_000));
        assert_eq!(parse_bytes("much"), None);
        assert_eq!(parse_duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(parse_millicores("0.25"), Some(250));
    }
}
