//! How this server introduces itself to others, and tells them on whose behalf it asks
//! (`k8s.io/client-go/transport/round_trippers.go` `SetAuthProxyHeaders`).

use http::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::identity::{MASTERS, UserInfo};
use crate::outgoing::tls::Identity;

/// Who the front proxy's certificate must be.
pub const NAME: &str = "front-proxy-client";

const USER: &str = "x-remote-user";
const UID: &str = "x-remote-uid";
const GROUP: &str = "x-remote-group";
const EXTRA_PREFIX: &str = "x-remote-extra-";

/// The front proxy's authority and certificate.
#[derive(Clone)]
pub struct FrontProxy {
    /// The authority that others trust, PEM.
    pub ca_pem: String,
    /// The client certificate for [`NAME`], by that authority.
    pub identity: Identity,
}

/// Whose requests the server's own are: those for discovery and availability.
pub fn aggregator() -> UserInfo {
    UserInfo { name: "system:kube-aggregator".to_owned(), groups: vec![MASTERS.to_owned()], ..UserInfo::default() }
}

/// What `kube-system/extension-apiserver-authentication` says of the headers.
pub fn published(front_proxy: &FrontProxy) -> Vec<(&'static str, String)> {
    let list = |name: &str| json!([name]).to_string();
    vec![
        ("requestheader-client-ca-file", front_proxy.ca_pem.clone()),
        ("requestheader-allowed-names", list(NAME)),
        ("requestheader-username-headers", list("X-Remote-User")),
        ("requestheader-uid-headers", list("X-Remote-Uid")),
        ("requestheader-group-headers", list("X-Remote-Group")),
        ("requestheader-extra-headers-prefix", list("X-Remote-Extra-")),
    ]
}

/// Replaces whatever a client says of itself by what this server knows of it.
pub fn introduce(headers: &mut HeaderMap, user: &UserInfo) {
    let ours = |name: &HeaderName| {
        let name = name.as_str();
        [USER, UID, GROUP].contains(&name)
            || name.starts_with(EXTRA_PREFIX)
            || name.starts_with("impersonate-")
            || name == "authorization"
    };
    let sent: Vec<HeaderName> = headers.keys().filter(|name| ours(name)).cloned().collect();
    for name in sent {
        headers.remove(name);
    }
    let mut add = |name: &str, value: &str| {
        // A name that no header can carry is left out, and so not granted anything.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    };
    add(USER, &user.name);
    if !user.uid.is_empty() {
        add(UID, &user.uid);
    }
    for group in &user.groups {
        add(GROUP, group);
    }
    for (key, values) in &user.extra {
        for value in values {
            add(&format!("{EXTRA_PREFIX}{}", escaped(key)), value);
        }
    }
}

/// A key as part of a header's name: what may not stand there as `%41` (`headerKeyEscape`).
fn escaped(key: &str) -> String {
    key.bytes()
        .map(|byte| match byte {
            b'!' | b'#' | b'$' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~' => {
                char::from(byte).to_string()
            }
            byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

/// The config map's data.
pub fn config(client_ca: &str, front_proxy: Option<&FrontProxy>) -> Value {
    let mut data = json!({});
    if !client_ca.is_empty() {
        data["client-ca-file"] = json!(client_ca);
    }
    for (key, value) in front_proxy.map(published).unwrap_or_default() {
        data[key] = json!(value);
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_cannot_say_who_it_is() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-remote-user", "root"),
            ("x-remote-extra-scopes", "all"),
            ("authorization", "Bearer x"),
            ("impersonate-user", "root"),
            ("accept", "application/json"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let mut user = UserInfo::new("jane", ["devs"]);
        user.extra.insert("example.com/team".to_owned(), vec!["a".to_owned(), "b".to_owned()]);
        introduce(&mut headers, &user);
        let mut shown: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().expect("text"))).collect();
        shown.sort();
        let expect = [
            "accept: application/json",
            "x-remote-extra-example.com%2fteam: a",
            "x-remote-extra-example.com%2fteam: b",
            "x-remote-group: devs",
            "x-remote-group: system:authenticated",
            "x-remote-user: jane",
        ];
        assert_eq!(shown, expect);
    }
}
