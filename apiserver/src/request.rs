//! What a request asks for, read off its method and URL alone: [`RequestInfo`].
//!
//! Authorization, admission, metrics and routing all work on this one reading, so that what was authorized is
//! what is served (`k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`).
//!
//! ```text
//! /api/{version}/{resource}                                  /apis/{group}/{version}/{resource}
//! /api/{version}/{resource}/{name}[/{subresource}[/{rest…}]]
//! /api/{version}/namespaces/{namespace}/{resource}[/{name}[/{subresource}[/{rest…}]]]
//! /api/{version}/watch/…   the deprecated prefix: verb watch     /api/{version}/proxy/…   verb proxy
//! ```

use http::Method;
use minik8s_api::strategy::names;

use crate::query::Query;

/// A request as Kubernetes' `RequestInfo` describes it. Empty strings stand for what the URL does not name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Whether the URL names a resource of an API group (else only `path` and `verb` mean anything).
    pub is_resource: bool,
    /// The URL's path, decoded.
    pub path: String,
    /// `get list watch create update patch delete deletecollection` (or `proxy`) for resources, the lower-case HTTP method otherwise.
    pub verb: String,
    /// `api` for the core group, `apis` for named groups.
    pub api_prefix: String,
    /// API group, empty for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Namespace. For the namespace object itself, its own name.
    pub namespace: String,
    /// Plural resource name.
    pub resource: String,
    /// Subresource (`status`, `log`, …).
    pub subresource: String,
    /// Object name; for list and watch the name a `metadata.name=` field selector asks for.
    pub name: String,
    /// What follows the subresource (the path behind a `proxy`), without a leading slash.
    pub rest: String,
}

impl RequestInfo {
    /// Reads a request's method, path and query.
    pub fn parse(method: &Method, path: &str, query: &Query) -> RequestInfo {
        // What is decoded is what is split: `x%2Flog` names the subresource of an object, for everyone who reads the path.
        let path = percent_decode(path);
        let mut parts: Vec<String> = path.trim_matches('/').split('/').map(str::to_owned).collect();
        let mut info = RequestInfo { path, verb: method.as_str().to_ascii_lowercase(), ..Default::default() };
        if parts.len() < 3 {
            return info;
        }
        match parts[0].as_str() {
            "api" => {
                info.api_prefix = parts.remove(0);
            }
            "apis" if parts.len() >= 4 => {
                info.api_prefix = parts.remove(0);
                info.group = parts.remove(0);
            }
            _ => return info,
        }
        info.version = parts.remove(0);
        info.is_resource = true;
        info.verb = match method.as_str() {
            "POST" => "create",
            "GET" | "HEAD" => "get",
            "PUT" => "update",
            "PATCH" => "patch",
            "DELETE" => "delete",
            _ => "",
        }
        .to_owned();
        // The deprecated /watch/ and /proxy/ prefixes name the verb in the path.
        let prefixed = matches!(parts[0].as_str(), "watch" | "proxy") && parts.len() > 1;
        if prefixed {
            info.verb = parts.remove(0);
        }
        info.take_resource(parts);
        info.refine_verb(query, prefixed);
        info
    }

    fn take_resource(&mut self, mut parts: Vec<String>) {
        if let ("namespaces", Some(namespace)) = (parts[0].as_str(), parts.get(1)) {
            self.namespace.clone_from(namespace);
            // A namespace's own subresources do not start a namespaced resource (namespaces/x/status).
            if parts.len() > 2 && !matches!(parts[2].as_str(), "status" | "finalize") {
                parts.drain(..2);
            }
        }
        let mut parts = parts.into_iter();
        self.resource = parts.next().unwrap_or_default();
        self.name = parts.next().unwrap_or_default();
        self.subresource = parts.next().unwrap_or_default();
        self.rest = parts.collect::<Vec<_>>().join("/");
    }

    fn refine_verb(&mut self, query: &Query, prefixed: bool) {
        if self.name.is_empty() && self.verb == "get" {
            self.verb = if query.flag("watch") { "watch" } else { "list" }.to_owned();
        }
        if self.name.is_empty() && self.verb == "delete" {
            self.verb = "deletecollection".to_owned();
        }
        // A rule for one name does not let a collection be deleted, whatever is selected of it; nor does it count for the
        // deprecated prefix.
        let lists = matches!(self.verb.as_str(), "list" | "watch") && self.name.is_empty() && !prefixed;
        let limit = query.get("limit").is_none_or(|limit| limit.is_empty() || limit.parse::<i64>().is_ok());
        if lists && limit {
            let named = query.get("fieldSelector").and_then(name_in_field_selector);
            self.name = named.filter(|name| names::path_segment(name).is_empty()).unwrap_or_default();
        }
    }

    /// `group/version` as objects spell it (`v1`, `apps/v1`).
    pub fn group_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Whether the verb cannot change anything.
    pub fn is_read_only(&self) -> bool {
        matches!(self.verb.as_str(), "get" | "list" | "watch" | "head")
    }
}

/// The name a field selector pins, if it contains `metadata.name=…`.
fn name_in_field_selector(selector: &str) -> Option<String> {
    selector.split(',').find_map(|term| {
        let (field, value) = term.split_once('=')?;
        (field == "metadata.name").then(|| value.trim_start_matches('=').to_owned()).filter(|value| !value.is_empty())
    })
}

/// Decodes `%41`; a stray percent sign stays as it is.
pub(crate) fn percent_decode(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%').then(|| bytes.get(at + 1..at + 3)).flatten();
        match hex.and_then(|hex| std::str::from_utf8(hex).ok()).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, url: &str, expect: &str) {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let info = RequestInfo::parse(&method.parse().expect("method"), path, &Query::parse(query));
        let seen = format!(
            "{} {}|{}|{}|{}|{}|{}|{}",
            info.verb,
            info.is_resource,
            info.group,
            info.version,
            info.namespace,
            info.resource,
            info.subresource,
            info.name
        );
        assert_eq!(seen, expect, "{method} {url}");
    }

    #[test]
    fn urls_read_as_kubernetes_reads_them() {
        check("GET", "/api/v1/namespaces", "list true||v1||namespaces||");
        check("GET", "/api/v1/namespaces/other", "get true||v1|other|namespaces||other");
        check("GET", "/api/v1/namespaces/other/pods", "list true||v1|other|pods||");
        check("GET", "/api/v1/namespaces/other/pods/foo", "get true||v1|other|pods||foo");
        check("HEAD", "/api/v1/namespaces/other/pods/foo", "get true||v1|other|pods||foo");
        check("GET", "/api/v1/pods?watch=true", "watch true||v1||pods||");
        check("GET", "/api/v1/pods?watch=false", "list true||v1||pods||");
        check("GET", "/api/v1/watch/namespaces/other/pods", "watch true||v1|other|pods||");
        check("GET", "/api/v1/nodes?fieldSelector=metadata.name%3Dn1&watch=1", "watch true||v1||nodes||n1");
        check("PUT", "/api/v1/namespaces/x/finalize", "update true||v1|x|namespaces|finalize|x");
        check("GET", "/api/v1/namespaces/x/status", "get true||v1|x|namespaces|status|x");
        check("DELETE", "/apis/apps/v1/namespaces/x/deployments", "deletecollection true|apps|v1|x|deployments||");
        check("POST", "/apis/apps/v1/namespaces/x/deployments", "create true|apps|v1|x|deployments||");
        check("GET", "/apis/apps/v1/namespaces/x/deployments/d/scale", "get true|apps|v1|x|deployments|scale|d");
        check("GET", "/api/v1/namespaces/x/pods/p%2Flog", "get true||v1|x|pods|log|p");
        check("GET", "/apis/g/v1/namespaces/x/foos/..%2F..%2Fother", "get true|g|v1|x|foos|..|..");
        check("GET", "/api/v1/namespaces//pods", "list true||v1||pods||");
        check("GET", "/api/v1/watch/pods?fieldSelector=metadata.name%3Da", "watch true||v1||pods||");
        check("GET", "/api/v1/pods?fieldSelector=metadata.name%3Da%2Fb", "list true||v1||pods||");
        check("GET", "/apis/apps/v1", "get false||||||");
        check("GET", "/version", "get false||||||");
        check("GET", "/apis", "get false||||||");
    }
}
