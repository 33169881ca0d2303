//! How Go prints what stands in Kubernetes' messages: durations, quoted strings, lists.

use std::time::Duration;

/// A duration as Go's `Duration.String`: `10s`, `1m20s`, `313ms`, `1.594s`.
pub fn duration(value: Duration) -> String {
    let nanos = value.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    for (unit, size) in [("ns", 1u128), ("µs", 1_000), ("ms", 1_000_000)] {
        if nanos < size * 1_000 {
            return format!("{}{unit}", decimal(nanos, size));
        }
    }
    let (minutes, rest) = (nanos / 60_000_000_000, nanos % 60_000_000_000);
    let seconds = decimal(rest, 1_000_000_000);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// `value / unit` with as many decimals as it takes.
fn decimal(value: u128, unit: u128) -> String {
    let (whole, mut rest) = (value / unit, value % unit);
    let mut text = whole.to_string();
    if rest > 0 {
        text.push('.');
        let mut digit = unit / 10;
        while rest > 0 {
            text.push(char::from(b'0' + u8::try_from(rest / digit).unwrap_or(0)));
            rest %= digit;
            digit /= 10;
        }
    }
    text
}

/// A duration cut to whole milliseconds, as the kubelet prints pull times.
pub fn milliseconds(value: Duration) -> String {
    duration(Duration::from_millis(u64::try_from(value.as_millis()).unwrap_or(u64::MAX)))
}

/// A string as Go's `%q`.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A list as Go's `%s` of a slice: `[a b]`.
pub fn list<S: AsRef<str>>(items: &[S]) -> String {
    let items: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    format!("[{}]", items.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_go() {
        let check = |millis: u64, expect: &str| assert_eq!(duration(Duration::from_millis(millis)), expect);
        check(0, "0s");
        check(313, "313ms");
        check(1_594, "1.594s");
        check(10_000, "10s");
        check(80_000, "1m20s");
        check(300_000, "5m0s");
        check(3_661_500, "1h1m1.5s");
        assert_eq!(duration(Duration::from_micros(1_500)), "1.5ms");
    }

    #[test]
    fn strings_read_as_in_go() {
        assert_eq!(quoted("a \"b\"\n"), r#""a \"b\"\n""#);
        assert_eq!(list(&["a", "b"]), "[a b]");
    }
}
