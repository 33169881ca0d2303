//! What a request to the kubelet's API asks for, in the words of authorization: a subresource of the Node.
//!
//! (kubelet: `server/auth.go`; the finer subresources are KEP-2862.)

/// A question to an authorizer: may the caller do `verb` on `nodes/SUBRESOURCE`?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// `get`, `create`, `update`, `patch`, `delete`.
    pub verb: &'static str,
    /// `proxy`, `stats`, `metrics`, `log`, `pods`, `healthz`, `configz`, …
    pub subresource: &'static str,
}

/// The questions of which one must be answered with yes, the finest first.
pub fn questions(method: &str, path: &str) -> Vec<Question> {
    let verb = match method {
        "POST" => "create",
        "GET" | "HEAD" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        // An unknown method is not worth less than the most that can be asked.
        _ => "create",
    };
    let below = |root: &str| path == root || path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'));
    let subresources: &[&str] = if below("/stats") {
        &["stats"]
    } else if below("/metrics") {
        &["metrics"]
    } else if below("/logs") {
        &["log"]
    } else if below("/checkpoint") {
        &["checkpoint"]
    } else if below("/statusz") {
        &["statusz"]
    } else if below("/flagz") {
        &["configz"]
    } else if below("/pods") || below("/runningpods") || below("/allocatedPods") {
        &["pods", "proxy"]
    } else if below("/healthz") {
        &["healthz", "proxy"]
    } else if below("/configz") {
        &["configz", "proxy"]
    } else {
        &["proxy"]
    };
    subresources.iter().map(|subresource| Question { verb, subresource }).collect()
}

#[cfg(test)]
mod tests {
    use super::questions;

    #[test]
    fn paths_are_subresources_of_the_node() {
        for (method, path, expect) in [
            ("GET", "/stats/summary", "get stats"),
            ("GET", "/metrics/resource", "get metrics"),
            ("GET", "/metricsish", "get proxy"),
            ("GET", "/pods", "get pods, get proxy"),
            ("GET", "/healthz/ping", "get healthz, get proxy"),
            ("GET", "/containerLogs/ns/pod/c", "get proxy"),
            ("POST", "/exec/ns/pod/c", "create proxy"),
        ] {
            let asked: Vec<String> = questions(method, path)
                .iter()
                .map(|question| format!("{} {}", question.verb, question.subresource))
                .collect();
            assert_eq!(asked.join(", "), expect, "{method} {path}");
        }
    }
}
