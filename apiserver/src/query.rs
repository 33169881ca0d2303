//! Query parameters, decoded once per request.

use crate::request::percent_decode;

/// Decoded `key=value` pairs in the order of the URL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes a raw query string (without the question mark).
    pub fn parse(raw: &str) -> Query {
        let decode = |text: &str| percent_decode(&text.replace('+', " "));
        Query(
            raw.split('&')
                .filter(|pair| !pair.is_empty())
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(key), decode(value))
                })
                .collect(),
        )
    }

    /// The first value of a parameter.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Every value of a parameter, in order.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// A boolean parameter, as Kubernetes converts it: present means true unless it is empty-valued `false` or `0`
    /// (`k8s.io/apimachinery/pkg/runtime/converter.go` `Convert_Slice_string_To_bool`).
    pub fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| !matches!(value.to_ascii_lowercase().as_str(), "false" | "0"))
    }

    /// The pairs in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded_and_flags_read_as_kubernetes_reads_them() {
        let query = Query::parse("watch&labelSelector=a%3D%3Db&x=1+2&dryRun=All&dryRun=None&off=False");
        assert_eq!(query.get("labelSelector"), Some("a==b"));
        assert_eq!(query.get("x"), Some("1 2"));
        assert_eq!(query.all("dryRun").collect::<Vec<_>>(), ["All", "None"]);
        assert!(query.flag("watch") && !query.flag("off") && !query.flag("absent"));
    }
}
