//! Formats of names and values, each with Kubernetes' sentence for what breaks it.
//!
//! A format function returns all complaints, an empty list meaning valid, as
//! `staging/src/k8s.io/apimachinery/pkg/util/validation/validation.go` does.
use std::net::IpAddr;

/// Longest DNS label, in bytes.
pub const DNS_LABEL_MAX: usize = 63;
/// Longest DNS subdomain, in bytes.
pub const DNS_SUBDOMAIN_MAX: usize = 253;
/// Longest label value and name part of a label key, in bytes.
pub const LABEL_MAX: usize = 63;
/// Longest name of a port, in bytes.
pub const PORT_NAME_MAX: usize = 15;

const DNS_LABEL_FORMAT: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const DNS_SUBDOMAIN_FORMAT: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const QUALIFIED_NAME_FORMAT: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const QUALIFIED_NAME_RULE: &str =
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const QUALIFIED_NAME_EXAMPLES: [&str; 3] = ["MyName", "my.name", "123-abc"];

/// How the names of a kind must look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// A DNS subdomain: most kinds.
    Subdomain,
    /// A DNS label: namespaces and services.
    Label,
    /// Anything that can stand in a URL path: RBAC objects, signing requests.
    PathSegment,
    /// An IP address in canonical form: `IPAddress`.
    Ip,
}

impl NameRule {
    /// What is wrong with a name.
    pub fn check(self, name: &str) -> Vec<String> {
        match self {
            NameRule::Subdomain => dns1123_subdomain(name),
            NameRule::Label => dns1123_label(name),
            NameRule::PathSegment => path_segment(name),
            NameRule::Ip => canonical_ip(name),
        }
    }

    /// What is wrong with a `generateName`: a trailing dash is fine, since something follows it.
    pub fn check_prefix(self, prefix: &str) -> Vec<String> {
        match prefix.strip_suffix('-') {
            Some(rest) if !rest.is_empty() => {
                let mut masked = rest.to_owned();
                masked.pop();
                self.check(&format!("{masked}a"))
            }
            _ if self == NameRule::PathSegment => path_segment_characters(prefix),
            _ => self.check(prefix),
        }
    }
}

/// `must be no more than 63 characters`.
pub fn too_long(limit: usize) -> String {
    format!("must be no more than {limit} characters")
}

/// `must be no more than 63 bytes`: the words of the formats in `apimachinery/pkg/api/validate/content`.
fn too_many_bytes(limit: usize) -> String {
    format!("must be no more than {limit} bytes")
}

/// `must be between 1 and 65535, inclusive`.
pub fn out_of_range(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

fn mismatch(rule: &str, format: &str, examples: &[&str]) -> String {
    let mut text = String::from(rule);
    text.push_str(" (");
    for (index, example) in examples.iter().enumerate() {
        text.push_str(if index == 0 { "e.g. " } else { " or " });
        text.push('\'');
        text.push_str(example);
        text.push_str("', ");
    }
    text.push_str("regex used for validation is '");
    text.push_str(format);
    text.push_str("')");
    text
}

fn lower_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn matches_label(value: &str) -> bool {
    let bytes = value.as_bytes();
    let ends = bytes.first().zip(bytes.last());
    ends.is_some_and(|(&first, &last)| lower_alphanumeric(first) && lower_alphanumeric(last))
        && bytes.iter().all(|&byte| lower_alphanumeric(byte) || byte == b'-')
}

fn matches_subdomain(value: &str) -> bool {
    value.split('.').all(matches_label)
}

fn matches_qualified_part(value: &str) -> bool {
    let bytes = value.as_bytes();
    let ends = bytes.first().zip(bytes.last());
    ends.is_some_and(|(first, last)| first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// A lowercase DNS label (RFC 1123).
pub fn dns1123_label(value: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if value.len() > DNS_LABEL_MAX {
        complaints.push(too_long(DNS_LABEL_MAX));
    }
    if !matches_label(value) {
        complaints.push(if matches_subdomain(value) {
            "must not contain dots".to_owned()
        } else {
            mismatch(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
                DNS_LABEL_FORMAT,
                &["my-name", "123-abc"],
            )
        });
    }
    complaints
}

/// A lowercase DNS subdomain whose parts may hold and begin with underscores, as the search paths of a resolver may.
pub fn dns1123_subdomain_with_underscore(value: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if value.len() > DNS_SUBDOMAIN_MAX {
        complaints.push(too_long(DNS_SUBDOMAIN_MAX));
    }
    let part = |text: &str| matches_label(&text.strip_prefix('_').unwrap_or(text).replace('_', "-"));
    if !value.split('.').all(part) {
        complaints.push(mismatch(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character",
            "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*",
            &["example.com"],
        ));
    }
    complaints
}

/// A lowercase DNS subdomain (RFC 1123).
pub fn dns1123_subdomain(value: &str) -> Vec<String> {
    subdomain_problems(value, too_long)
}

/// `k8s-long-name`: a DNS subdomain, in the words of declarative formats.
pub fn long_name(value: &str) -> Vec<String> {
    subdomain_problems(value, too_many_bytes)
}

/// `k8s-long-name-caseless`: the same with large letters.
pub fn long_name_caseless(value: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if value.len() > DNS_SUBDOMAIN_MAX {
        complaints.push(too_many_bytes(DNS_SUBDOMAIN_MAX));
    }
    if !matches_subdomain(&value.to_ascii_lowercase()) {
        complaints.push(mismatch(
            "an RFC 1123 subdomain must consist of alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
            DNS_SUBDOMAIN_FORMAT,
            &["Example.com"],
        ));
    }
    complaints
}

/// `k8s-short-name`: a DNS label, in the words of declarative formats.
pub fn short_name(value: &str) -> Vec<String> {
    let characters = too_long(DNS_LABEL_MAX);
    let bytes = |text: String| if text == characters { too_many_bytes(DNS_LABEL_MAX) } else { text };
    dns1123_label(value).into_iter().map(bytes).collect()
}

/// The reason of a condition.
pub fn condition_reason(value: &str) -> Vec<String> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_,:".contains(&byte);
    let starts = value.starts_with(|c: char| c.is_ascii_alphabetic());
    if starts && value.bytes().all(inner) && !value.ends_with([',', ':']) {
        return Vec::new();
    }
    vec![mismatch(
        "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'",
        "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?",
        &["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"],
    )]
}

/// What C calls an identifier: the name of an attribute of a device.
pub fn c_identifier(value: &str) -> Vec<String> {
    let starts = value.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if starts && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Vec::new();
    }
    vec![mismatch(
        "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_'",
        "[A-Za-z_][A-Za-z0-9_]*",
        &["my_name", "MY_NAME", "MyName"],
    )]
}

fn subdomain_problems(value: &str, too_long: fn(usize) -> String) -> Vec<String> {
    let mut complaints = Vec::new();
    if value.len() > DNS_SUBDOMAIN_MAX {
        complaints.push(too_long(DNS_SUBDOMAIN_MAX));
    }
    if !matches_subdomain(value) {
        complaints.push(mismatch(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
            DNS_SUBDOMAIN_FORMAT,
            &["example.com"],
        ));
    }
    complaints
}

/// A DNS subdomain whose first label is `*`.
pub fn wildcard_dns1123_subdomain(value: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if value.len() > DNS_SUBDOMAIN_MAX {
        complaints.push(too_long(DNS_SUBDOMAIN_MAX));
    }
    if !value.strip_prefix("*.").is_some_and(matches_subdomain) {
        complaints.push(mismatch(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            &format!(r"\*\.{DNS_SUBDOMAIN_FORMAT}"),
            &["*.example.com"],
        ));
    }
    complaints
}

/// A DNS label that starts with a letter (RFC 1035).
pub fn dns1035_label(value: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if value.len() > DNS_LABEL_MAX {
        complaints.push(too_long(DNS_LABEL_MAX));
    }
    if !matches_label(value) || !value.starts_with(|c: char| c.is_ascii_lowercase()) {
        complaints.push(mismatch(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    complaints
}

fn path_segment_characters(value: &str) -> Vec<String> {
    ["/", "%"].iter().filter(|c| value.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

/// What can stand between two slashes of a URL path.
pub fn path_segment(value: &str) -> Vec<String> {
    match value {
        "." | ".." => vec![format!("may not be '{value}'")],
        _ => path_segment_characters(value),
    }
}

/// A label or annotation key, a resource name, a finalizer: `name` or `example.com/name`.
pub fn qualified_name(value: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let parts: Vec<&str> = value.split('/').collect();
    let name = match parts[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                complaints.push("prefix part must be non-empty".to_owned());
            } else {
                let problems = subdomain_problems(prefix, too_many_bytes);
                complaints.extend(problems.into_iter().map(|text| format!("prefix part {text}")));
            }
            name
        }
        _ => {
            let text = mismatch(QUALIFIED_NAME_RULE, QUALIFIED_NAME_FORMAT, &QUALIFIED_NAME_EXAMPLES);
            complaints.push(format!(
                "a valid label key {text} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            ));
            return complaints;
        }
    };
    if name.is_empty() {
        complaints.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_MAX {
        complaints.push(format!("name part {}", too_many_bytes(LABEL_MAX)));
    }
    if !matches_qualified_part(name) {
        let text = mismatch(QUALIFIED_NAME_RULE, QUALIFIED_NAME_FORMAT, &QUALIFIED_NAME_EXAMPLES);
        complaints.push(format!("name part {text}"));
    }
    complaints
}

/// The value of a label: empty, or as the name part of a key.
pub fn label_value(value: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if value.len() > LABEL_MAX {
        complaints.push(too_many_bytes(LABEL_MAX));
    }
    if !value.is_empty() && !matches_qualified_part(value) {
        complaints.push(mismatch(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    complaints
}

/// The name of an environment variable: printable ASCII without `=`.
pub fn env_var_name(value: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if value.is_empty() {
        complaints.push("environment variable name must be non-empty".to_owned());
    }
    if !value.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=') {
        complaints.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        );
    }
    complaints
}

/// A key of a ConfigMap or Secret: it becomes a file name.
pub fn config_map_key(value: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if value.len() > DNS_SUBDOMAIN_MAX {
        complaints.push(too_long(DNS_SUBDOMAIN_MAX));
    }
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')) {
        complaints.push(mismatch(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match value {
        "." | ".." => complaints.push(format!("must not be '{value}'")),
        _ if value.starts_with("..") => complaints.push("must not start with '..'".to_owned()),
        _ => {}
    }
    complaints
}

/// The name of a port, an IANA service name.
pub fn port_name(value: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut complain = |text: &str| complaints.push(text.to_owned());
    if value.len() > PORT_NAME_MAX {
        complain(&too_long(PORT_NAME_MAX));
    }
    if value.is_empty() || !value.bytes().all(|byte| lower_alphanumeric(byte) || byte == b'-') {
        complain("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
    }
    if !value.bytes().any(|byte| byte.is_ascii_lowercase()) {
        complain("must contain at least one letter (a-z)");
    }
    if value.contains("--") {
        complain("must not contain consecutive hyphens");
    }
    if value.starts_with('-') || value.ends_with('-') {
        complain("must not begin or end with a hyphen");
    }
    complaints
}

/// A TCP or UDP port number.
pub fn port_number(value: i64) -> Vec<String> {
    if (1..=65535).contains(&value) { Vec::new() } else { vec![out_of_range(1, 65535)] }
}

/// A user or group id.
pub fn id_number(value: i64) -> Vec<String> {
    if (0..=i64::from(i32::MAX)).contains(&value) { Vec::new() } else { vec![out_of_range(0, i64::from(i32::MAX))] }
}

/// A percentage: digits and `%`.
pub fn percent(value: &str) -> Vec<String> {
    if percent_value(value).is_some() {
        return Vec::new();
    }
    let rule = "a valid percent string must be a numeric string followed by an ending '%'";
    vec![mismatch(rule, "[0-9]+%", &["1%", "93%"])]
}

/// The number before the `%`.
pub fn percent_value(value: &str) -> Option<i64> {
    let digits = value.strip_suffix('%')?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// The name of an HTTP header.
pub fn http_header_name(value: &str) -> Vec<String> {
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Vec::new();
    }
    let rule = "a valid HTTP header must consist of alphanumeric characters or '-'";
    vec![mismatch(rule, "[-A-Za-z0-9]+", &["X-Header-Name"])]
}

/// An IP address of either family.
pub fn ip(value: &str) -> Vec<String> {
    match value.parse::<IpAddr>() {
        Ok(_) => Vec::new(),
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
    }
}

/// An IP address written as it prints.
pub fn canonical_ip(value: &str) -> Vec<String> {
    match value.parse::<IpAddr>() {
        Err(_) => ip(value),
        Ok(parsed) if parsed.to_string() != value => {
            vec![format!("must be in canonical form ({:?})", parsed.to_string())]
        }
        Ok(_) => Vec::new(),
    }
}

/// An address block of either family.
pub fn cidr(value: &str) -> Vec<String> {
    match parse_cidr(value) {
        Some(_) => Vec::new(),
        None => vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()],
    }
}

/// Address and prefix length of an address block.
pub fn parse_cidr(value: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = value.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let length: u8 = if length.bytes().all(|byte| byte.is_ascii_digit()) {
        length.parse().ok()?
    } else {
        return None;
    };
    (length <= longest).then_some((address, length))
}

/// `example.com/path`: the form of controller names and domain-scoped identifiers.
pub fn domain_prefixed_path(value: &str) -> Vec<String> {
    let Some((domain, path)) = value.split_once('/').filter(|(domain, path)| !domain.is_empty() && !path.is_empty())
    else {
        return vec![r#"must be a domain-prefixed path (such as "acme.io/foo")"#.to_owned()];
    };
    let mut complaints = dns1123_subdomain(domain);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte);
    if !path.bytes().all(allowed) {
        complaints.push(mismatch("Invalid path", r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+", &[]));
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_fine() {
        for name in ["a", "a-b", "0", "web-7d4f.example.com"] {
            assert_eq!(dns1123_subdomain(name), Vec::<String>::new(), "{name}");
        }
        for key in ["app", "app.kubernetes.io/name", "A_b.c-9"] {
            assert_eq!(qualified_name(key), Vec::<String>::new(), "{key}");
        }
        for address in ["10.0.0.0/8", "2001:db8::/64"] {
            assert_eq!(cidr(address), Vec::<String>::new(), "{address}");
        }
    }

    #[test]
    fn names_that_are_not() {
        for name in ["", "-a", "a-", "A", "a..b", "a_b"] {
            assert_eq!(dns1123_subdomain(name).len(), 1, "{name}");
        }
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
        assert_eq!(qualified_name("a/b/c").len(), 1);
        assert_eq!(qualified_name("/b"), ["prefix part must be non-empty"]);
        assert_eq!(
            port_name("UPPER-"),
            [
                "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
                "must contain at least one letter (a-z)",
                "must not begin or end with a hyphen",
            ]
        );
        assert_eq!(cidr("10.0.0.0/33").len(), 1);
        assert_eq!(ip("10.0.0.300").len(), 1);
    }

    #[test]
    fn a_generated_name_may_end_in_a_dash_before_its_suffix() {
        assert!(NameRule::Subdomain.check_prefix("web-").is_empty());
        assert!(!NameRule::Subdomain.check_prefix("Web-").is_empty());
        assert!(!NameRule::Subdomain.check("web-").is_empty());
    }
}
