//! Field selectors: `spec.nodeName=n1,status.phase!=Failed` (apimachinery `pkg/fields/selector.go`).

use std::fmt;

use super::SelectorError;

/// One condition on one field.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Term {
    /// The field's path, e.g. `metadata.name`.
    pub field: String,
    /// What the field is compared with, unescaped.
    pub value: String,
    /// Whether the field must equal the value, or must not.
    pub equal: bool,
}

/// Terms that must all hold. No term at all selects everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

impl FieldSelector {
    /// Selects every object.
    pub fn everything() -> FieldSelector {
        FieldSelector::default()
    }

    /// Selects the objects whose field has this value.
    pub fn equal(field: &str, value: &str) -> FieldSelector {
        FieldSelector { terms: vec![Term { field: field.to_owned(), value: value.to_owned(), equal: true }] }
    }

    /// The string form that `--field-selector` and `fieldSelector=` use; `\`, `,` and `=` in values are escaped with `\`.
    ///
    /// # Errors
    /// In the words of apimachinery `fields.ParseSelector`.
    pub fn parse(selector: &str) -> Result<FieldSelector, SelectorError> {
        let mut parts = split_terms(selector);
        parts.sort_unstable();
        let mut terms = Vec::new();
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            let (field, value, equal) = split_term(part).ok_or_else(|| {
                SelectorError::Field(format!("invalid selector: '{selector}'; can't understand '{part}'"))
            })?;
            terms.push(Term { field: field.to_owned(), value: unescape(value)?, equal });
        }
        Ok(FieldSelector { terms })
    }

    /// The same conditions on fields of other names.
    pub fn renamed(&self, name: impl Fn(&str) -> String) -> FieldSelector {
        let renamed = self.terms.iter().map(|term| Term { field: name(&term.field), ..term.clone() });
        FieldSelector { terms: renamed.collect() }
    }

    /// The conditions on fields that `first` names, and the others.
    pub fn split(self, first: impl Fn(&str) -> bool) -> (FieldSelector, FieldSelector) {
        let (first, others) = self.terms.into_iter().partition(|term| first(&term.field));
        (FieldSelector { terms: first }, FieldSelector { terms: others })
    }

    /// The conditions, in the order of their string form.
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// Whether the selector selects everything.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value that `field` must have, where the selector names one (`RequiresExactMatch`): the way to an index.
    pub fn exact_match(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|term| term.equal && term.field == field).map(|term| term.value.as_str())
    }

    /// The first field that `supported` does not know.
    pub fn unsupported(&self, supported: impl Fn(&str) -> bool) -> Option<&str> {
        self.terms.iter().map(|term| term.field.as_str()).find(|field| !supported(field))
    }

    /// Whether fields, given by a look-up, are selected. A field that is absent has the value `""`.
    pub fn matches<'a>(&self, field: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.terms.iter().all(|term| (field(&term.field).unwrap_or_default() == term.value) == term.equal)
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, term) in self.terms.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{}{}", term.field, if term.equal { "=" } else { "!=" })?;
            for c in term.value.chars() {
                if matches!(c, '\\' | ',' | '=') {
                    f.write_str("\\")?;
                }
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

/// Splits at commas that no `\` escapes.
fn split_terms(selector: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, c) in selector.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&selector[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    terms.push(&selector[start..]);
    terms
}

fn split_term(term: &str) -> Option<(&str, &str, bool)> {
    let at = term.char_indices().find(|(i, c)| *c == '=' || term[*i..].starts_with("!="))?.0;
    let (field, rest) = term.split_at(at);
    match rest.strip_prefix("!=") {
        Some(value) => Some((field, value, false)),
        None => Some((field, rest.strip_prefix("==").or_else(|| rest.strip_prefix('='))?, true)),
    }
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let invalid =
        |sequence: &str| SelectorError::Field(format!("invalid field selector: invalid escape sequence: {sequence}"));
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => plain.push(escaped),
                Some(other) => return Err(invalid(&format!("\\{other}"))),
                None => return Err(invalid("\\")),
            },
            // Go prints the rune as a number.
            ',' | '=' => {
                return Err(SelectorError::Field(format!(
                    "invalid field selector: unescaped character in value: {}",
                    u32::from(c)
                )));
            }
            _ => plain.push(c),
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(selector: &str, expect: &str) {
        let got = FieldSelector::parse(selector).map_or_else(|e| format!("error: {e}"), |s| s.to_string());
        assert_eq!(got, expect, "{selector}");
    }

    #[test]
    fn parsing() {
        check("", "");
        check("spec.nodeName==n1,metadata.name!=a", "metadata.name!=a,spec.nodeName=n1");
        check("a=", "a=");
        check(r"a=b\,c\=d\\", r"a=b\,c\=d\\");
        check("a", "error: invalid selector: 'a'; can't understand 'a'");
        check(r"a=\x", r"error: invalid field selector: invalid escape sequence: \x");
        check("a=b=c", "error: invalid field selector: unescaped character in value: 61");
    }

    #[test]
    fn matching() {
        let selector = FieldSelector::parse("spec.nodeName=n1,status.phase!=Failed").unwrap();
        let pod = |node, phase| {
            move |field: &str| {
                if field == "spec.nodeName" { node } else { phase }
            }
        };
        assert!(selector.matches(pod(Some("n1"), Some("Running"))));
        assert!(selector.matches(pod(Some("n1"), None)));
        assert!(!selector.matches(pod(Some("n1"), Some("Failed"))));
        assert!(!selector.matches(pod(None, None)));
        assert_eq!(selector.exact_match("spec.nodeName"), Some("n1"));
        assert_eq!(selector.exact_match("status.phase"), None);
        assert_eq!(selector.unsupported(|f| f.starts_with("spec")), Some("status.phase"));
    }
}
