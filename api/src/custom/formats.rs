//! The formats that are checked; others are documentation.
//!
//! `apiextensions-apiserver/pkg/apiserver/validation/formats.go`, whose checks are those of go-openapi's strfmt.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use regex::Regex;

use crate::strategy::names;

/// A format's name without dashes, which do not count in go-openapi.
fn plain(format: &str) -> String {
    format.replace('-', "")
}

/// Whether a format means anything for values of a type; with `""` for a type that is not said.
pub fn is_of_type(format: &str, ty: &str) -> bool {
    const OTHERS: [&str; 12] = [
        "uri",
        "email",
        "ipv4",
        "ipv6",
        "cidr",
        "byte",
        "password",
        "date",
        "datetime",
        "duration",
        "k8sshortname",
        "k8slongname",
    ];
    match ty {
        "" | "string" => {
            let format = plain(format);
            PATTERNS.iter().any(|(name, _)| *name == format) || OTHERS.contains(&format.as_str())
        }
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    }
}

/// Each is compiled when it is first needed: some are large.
static PATTERNS: [(&str, LazyLock<Regex>); 14] = [
    ("bsonobjectid", LazyLock::new(|| go("^[0-9a-fA-F]{24}$"))),
    (
        "hostname",
        LazyLock::new(|| {
            go(
                r"^([a-zA-Z0-9\p{S}\p{L}]((-?[a-zA-Z0-9\p{S}\p{L}]{0,62})?)|([a-zA-Z0-9\p{S}\p{L}](([a-zA-Z0-9-\p{S}\p{L}]{0,61}[a-zA-Z0-9\p{S}\p{L}])?)(\.)){1,}([a-zA-Z\p{L}]){2,63})$",
            )
        }),
    ),
    (
        "mac",
        LazyLock::new(|| {
            go(r"^([0-9A-Fa-f]{2}[:-]){5}([0-9A-Fa-f]{2}[:-]?){1,3}$|^([0-9A-Fa-f]{4}\.){2,3}[0-9A-Fa-f]{4}$")
        }),
    ),
    ("uuid", LazyLock::new(|| uuid("[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$"))),
    ("uuid3", LazyLock::new(|| uuid("3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$"))),
    ("uuid4", LazyLock::new(|| uuid("4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$"))),
    ("uuid5", LazyLock::new(|| uuid("5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$"))),
    ("isbn", LazyLock::new(|| go(r"^(?:[0-9][- ]?){9}[0-9Xx]$|^(?:[0-9][- ]?){13}$"))),
    ("isbn10", LazyLock::new(|| go(r"^(?:[0-9][- ]?){9}[0-9Xx]$"))),
    ("isbn13", LazyLock::new(|| go(r"^(?:[0-9][- ]?){13}$"))),
    (
        "creditcard",
        LazyLock::new(|| {
            go(
                r"^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9]{2})[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35\d{3})\d{11})$",
            )
        }),
    ),
    ("ssn", LazyLock::new(|| go(r"^\d{3}[- ]?\d{2}[- ]?\d{4}$"))),
    ("hexcolor", LazyLock::new(|| go("^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$"))),
    (
        "rgbcolor",
        LazyLock::new(|| {
            go(
                r"^rgb\(\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*,\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*,\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*\)$",
            )
        }),
    ),
];

fn go(pattern: &str) -> Regex {
    super::pattern::compile(pattern).expect("a pattern of this table compiles")
}

fn uuid(rest: &str) -> Regex {
    go(&format!("(?i)^[0-9a-f]{{8}}-?[0-9a-f]{{4}}-?{rest}"))
}

/// Whether a text has a format. Unknown formats hold of everything.
pub fn holds(format: &str, text: &str) -> bool {
    let format = plain(format);
    if let Some((_, pattern)) = PATTERNS.iter().find(|(name, _)| *name == format) {
        let digits = || text.chars().filter(char::is_ascii_digit).collect::<String>();
        return if format == "creditcard" { pattern.is_match(&digits()) } else { pattern.is_match(text) };
    }
    match format.as_str() {
        "uri" => is_uri(text),
        "email" => is_email(text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => is_cidr(text),
        "byte" => !text.is_empty() && STANDARD.decode(text).is_ok(),
        "date" => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
        "datetime" => text.contains(['T', 't']) && text.parse::<jiff::Timestamp>().is_ok(),
        "duration" => is_duration(text),
        "k8sshortname" => names::dns1123_label(text).is_empty(),
        "k8slongname" => names::dns1123_subdomain(text).is_empty(),
        _ => true,
    }
}

/// `mail.ParseAddress`: an address, or a name and an address in angles.
fn is_email(text: &str) -> bool {
    let text = match text.trim().strip_suffix('>') {
        Some(named) => named.rsplit_once('<').map_or("", |(_, address)| address),
        None => text.trim(),
    };
    text.split_once('@').is_some_and(|(user, host)| {
        !user.is_empty() && !host.is_empty() && !host.contains('@') && !text.contains(char::is_whitespace)
    })
}

/// `url.ParseRequestURI`: an absolute URI, or an absolute path.
pub fn is_uri(text: &str) -> bool {
    if text.is_empty() || text.contains(|c: char| c.is_control() || c == ' ') {
        return false;
    }
    if text.starts_with('/') {
        return true;
    }
    text.split_once(':').is_some_and(|(scheme, rest)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
            && !rest.is_empty()
            && rest.matches('[').count() == rest.matches(']').count()
    })
}

/// An address and the length of its prefix.
pub fn is_cidr(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, length)| {
        let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
        let most = match (address.parse::<Ipv4Addr>(), address.parse::<Ipv6Addr>()) {
            (Ok(_), _) => 32,
            (_, Ok(_)) => 128,
            _ => return false,
        };
        digits && length.parse::<u8>().is_ok_and(|length| length <= most)
    })
}

/// Go's durations, and strfmt's longer units (`3 days`).
fn is_duration(text: &str) -> bool {
    static LONG: LazyLock<Regex> = LazyLock::new(|| {
        go(
            r"^(\d+\s*(ns|nano|nanosecond|nanoseconds|us|µs|micro|microsecond|microseconds|ms|milli|millisecond|milliseconds|s|sec|secs|second|seconds|m|min|mins|minute|minutes|h|hr|hrs|hour|hours|d|day|days|w|wk|wks|week|weeks)\s*)+$",
        )
    });
    crate::time::parse_duration(text).is_ok() || LONG.is_match(text)
}
