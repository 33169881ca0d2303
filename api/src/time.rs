//! Times and durations as the API writes them: RFC 3339 in UTC, Go's durations, and the ages that kubectl prints.

use std::borrow::Cow;

use jiff::{SignedDuration, Timestamp};
use thiserror::Error;

/// Why a text is no time, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("parsing time {} as \"{layout}\": cannot parse {} as \"2006\"", crate::status::go_quote(.text), crate::status::go_quote(.text))]
pub struct TimeError {
    text: String,
    layout: &'static str,
}

/// Why a text is no duration, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("time: invalid duration {}", crate::status::go_quote(.0))]
pub struct DurationError(String);

const RFC3339: &str = "2006-01-02T15:04:05Z07:00";
const RFC3339_MICRO: &str = "2006-01-02T15:04:05.000000Z07:00";

/// `metav1.Time`: whole seconds, `2026-01-02T03:04:05Z`.
pub fn format(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `metav1.MicroTime`: always six digits, `2026-01-02T03:04:05.000006Z`.
pub fn format_micro(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Reads an RFC 3339 time with any offset and fraction.
pub fn parse(text: &str) -> Result<Timestamp, TimeError> {
    parse_as(text, RFC3339)
}

fn parse_as(text: &str, layout: &'static str) -> Result<Timestamp, TimeError> {
    let error = || TimeError { text: text.to_owned(), layout };
    // jiff reads more than RFC 3339 (spaces, missing seconds, named zones), Go does not.
    let bytes = text.as_bytes();
    let shape = b"dddd-dd-ddTdd:dd:dd";
    let fits = bytes.len() > shape.len()
        && shape.iter().zip(bytes).all(|(want, got)| match want {
            b'd' => got.is_ascii_digit(),
            other => got == other,
        });
    if !fits {
        return Err(error());
    }
    let zone = bytes[shape.len()..].iter().position(|b| !(b.is_ascii_digit() || matches!(b, b'.' | b',')));
    let zone = zone.map(|at| &bytes[shape.len() + at..]).ok_or_else(error)?;
    let zoned = match zone {
        b"Z" => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => [h1, h2, m1, m2].iter().all(|b| b.is_ascii_digit()),
        _ => false,
    };
    if !zoned {
        return Err(error());
    }
    text.parse().map_err(|_| error())
}

/// A `metav1.Time` as Kubernetes writes it again: UTC, whole seconds (a fraction is cut off).
pub fn normalize(text: &str) -> Result<Cow<'_, str>, TimeError> {
    let time = parse_as(text, RFC3339)?;
    if text.len() == 20 && text.ends_with('Z') {
        return Ok(Cow::Borrowed(text));
    }
    Ok(Cow::Owned(format(time)))
}

/// A `metav1.MicroTime` as Kubernetes writes it again: UTC, six digits.
pub fn normalize_micro(text: &str) -> Result<Cow<'_, str>, TimeError> {
    let time = parse_as(text, RFC3339_MICRO)?;
    if text.len() == 27 && text.ends_with('Z') {
        return Ok(Cow::Borrowed(text));
    }
    Ok(Cow::Owned(format_micro(time)))
}

const SECOND: i64 = 1_000_000_000;

/// Reads a Go duration, `1h2m3.5s`.
pub fn parse_duration(text: &str) -> Result<SignedDuration, DurationError> {
    let nanos = read_duration(text).ok_or_else(|| DurationError(text.to_owned()))?;
    Ok(SignedDuration::from_nanos(nanos))
}

fn read_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let digits = |s: &str| s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len());
        let (whole, tail) = rest.split_at(digits(rest));
        let (fraction, tail) = match tail.strip_prefix('.') {
            Some(tail) => tail.split_at(digits(tail)),
            None => ("", tail),
        };
        if (whole.is_empty() && fraction.is_empty()) || whole.len() > 18 {
            return None;
        }
        let (unit, tail) = tail.split_at(tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len()));
        let nanos: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => SECOND.into(),
            "m" => i128::from(SECOND) * 60,
            "h" => i128::from(SECOND) * 3600,
            _ => return None,
        };
        total += whole.parse::<i128>().unwrap_or(0) * nanos;
        let fraction = &fraction[..fraction.len().min(18)];
        if let Ok(parts) = fraction.parse::<i128>() {
            total += parts * nanos / 10_i128.pow(fraction.len() as u32);
        }
        rest = tail;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// Writes a duration as Go does: `1h2m3.5s`, `100ms`, `0s`. Go's go up to 292 years, and so do these.
pub fn format_duration(duration: SignedDuration) -> String {
    let nanos = duration.as_nanos().clamp(i64::MIN.into(), i64::MAX.into()) as i64;
    if nanos == 0 {
        return "0s".to_owned();
    }
    let sign = if nanos < 0 { "-" } else { "" };
    let rest = nanos.unsigned_abs();
    let decimal = |value: u64, unit: u64| {
        let (whole, part) = (value / unit, value % unit);
        if part == 0 {
            return whole.to_string();
        }
        let width = unit.ilog10() as usize;
        format!("{whole}.{part:0width$}").trim_end_matches('0').to_owned()
    };
    let second = SECOND as u64;
    if rest < 1_000 {
        return format!("{sign}{rest}ns");
    }
    if rest < 1_000_000 {
        return format!("{sign}{}µs", decimal(rest, 1_000));
    }
    if rest < second {
        return format!("{sign}{}ms", decimal(rest, 1_000_000));
    }
    let (hours, minutes) = (rest / (3600 * second), rest / (60 * second) % 60);
    let seconds = decimal(rest % (60 * second), second);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, _) => format!("{sign}{minutes}m{seconds}s"),
        _ => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}

/// The age as kubectl prints it, `5m`, `3h10m`, `12d` (apimachinery `pkg/util/duration`, `HumanDuration`). `seconds` may be
/// negative where clocks differ.
pub fn human_duration(seconds: i64) -> String {
    let two = |big: i64, big_unit: char, small: i64, small_unit: char| match small {
        0 => format!("{big}{big_unit}"),
        _ => format!("{big}{big_unit}{small}{small_unit}"),
    };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, 'm', seconds % 60, 's'),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, 'h', minutes % 60, 'm'),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 24 * 8 => two(days, 'd', hours % 24, 'h'),
        _ if days < 365 * 2 => format!("{days}d"),
        _ if days < 365 * 8 => two(days / 365, 'y', days % 365, 'd'),
        _ => format!("{}y", days / 365),
    }
}

/// The age with one unit only (`ShortHumanDuration`), as in a Table's cells of some kinds.
pub fn short_human_duration(seconds: i64) -> String {
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        86_400..31_536_000 => format!("{}d", seconds / 86_400),
        _ => format!("{}y", seconds / 31_536_000),
    }
}

/// [`human_duration`] from `since` until `now`.
pub fn age(since: Timestamp, now: Timestamp) -> String {
    human_duration(now.as_second() - since.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_normalized() {
        for (input, expected) in [
            ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
            ("2026-01-02T03:04:05.987Z", "2026-01-02T03:04:05Z"),
            ("2026-01-02T03:04:05+02:00", "2026-01-02T01:04:05Z"),
        ] {
            assert_eq!(normalize(input).unwrap(), expected);
        }
        assert_eq!(normalize_micro("2026-01-02T03:04:05.5Z").unwrap(), "2026-01-02T03:04:05.500000Z");
        assert_eq!(normalize_micro("2026-01-02T03:04:05Z").unwrap(), "2026-01-02T03:04:05.000000Z");
    }

    #[test]
    fn what_is_no_rfc_3339_is_refused() {
        for input in [
            "",
            "yesterday",
            "2026-01-02",
            "2026-01-02 03:04:05Z",
            "2026-13-02T03:04:05Z",
            "2026-01-02T03:04:05",
            "2026-01-02T03:04Z",
            "2026-01-02T03:04:05Z[Europe/Berlin]",
            "2026-01-02T03:04:05+0200",
        ] {
            assert!(normalize(input).is_err(), "{input}");
        }
        assert_eq!(
            normalize("x").unwrap_err().to_string(),
            "parsing time \"x\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"x\" as \"2006\""
        );
    }

    #[test]
    fn durations_read_and_print_as_in_go() {
        for (text, canonical) in [
            ("0", "0s"),
            ("1h", "1h0m0s"),
            ("90s", "1m30s"),
            ("1.5s", "1.5s"),
            ("100ms", "100ms"),
            ("1h2m3.5s", "1h2m3.5s"),
            ("-3us", "-3µs"),
            ("12ns", "12ns"),
            (".5m", "30s"),
        ] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), canonical, "{text}");
        }
        for text in ["", "5", "h", "1x", "1h-2m", "--1s", "99999999999999999999s", "9999999999h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ages_print_as_kubectl_prints_them() {
        for (seconds, expected) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (3 * 3600 - 1, "179m"),
            (3 * 3600, "3h"),
            (7 * 3600 + 600, "7h10m"),
            (8 * 3600, "8h"),
            (48 * 3600, "2d"),
            (50 * 3600, "2d2h"),
            (8 * 86400, "8d"),
            (729 * 86400, "729d"),
            (730 * 86400, "2y"),
            (740 * 86400, "2y10d"),
            (3000 * 86400, "8y"),
        ] {
            assert_eq!(human_duration(seconds), expected);
        }
        assert_eq!(short_human_duration(3599), "59m");
    }
}
