//! `format.dns1123Label().validate(text)`: the formats of names and texts that rules may ask about.
//!
//! `k8s.io/apiserver/pkg/cel/library/format.go`.

use crate::custom::formats;
use crate::strategy::names;

/// What is wrong with a text.
type Check = fn(&str) -> Vec<String>;

/// A format.
#[derive(Clone, Copy)]
pub struct Format {
    /// Its name.
    pub name: &'static str,
    /// What is wrong with a text.
    pub check: Check,
}

/// All of them.
pub const FORMATS: [Format; 13] = [
    Format { name: "dns1123Label", check: names::dns1123_label },
    Format { name: "dns1123Subdomain", check: names::dns1123_subdomain },
    Format { name: "dns1035Label", check: names::dns1035_label },
    Format { name: "qualifiedName", check: names::qualified_name },
    Format { name: "dns1123LabelPrefix", check: |text| names::dns1123_label(&as_prefix(text)) },
    Format { name: "dns1123SubdomainPrefix", check: |text| names::dns1123_subdomain(&as_prefix(text)) },
    Format { name: "dns1035LabelPrefix", check: |text| names::dns1035_label(&as_prefix(text)) },
    Format { name: "labelValue", check: names::label_value },
    Format {
        name: "uri",
        check: |text| match text {
            "" => vec![r#"parse "": empty url"#.to_owned()],
            text if formats::is_uri(text) => Vec::new(),
            text => vec![format!("parse {text:?}: invalid URI for request")],
        },
    },
    Format { name: "uuid", check: |text| held("uuid", text, "does not match the UUID format") },
    Format { name: "byte", check: |text| held("byte", text, "invalid base64") },
    Format { name: "date", check: |text| held("date", text, "invalid date") },
    Format { name: "datetime", check: |text| held("datetime", text, "invalid datetime") },
];

/// The format of a name.
pub fn named(name: &str) -> Option<Format> {
    FORMATS.into_iter().find(|format| format.name == name)
}

fn held(format: &str, text: &str, words: &str) -> Vec<String> {
    if formats::holds(format, text) { Vec::new() } else { vec![words.to_owned()] }
}

/// A text to which more will be added: a dash may stand at its end (`maskTrailingDash`).
fn as_prefix(text: &str) -> String {
    match text.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => {
            let mut name = rest.to_owned();
            name.pop();
            name.push('a');
            name
        }
        _ => text.to_owned(),
    }
}
