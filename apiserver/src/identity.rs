//! Who sends a request: [`UserInfo`], and the names Kubernetes reserves for its own users and groups.

#[cfg(test)]
pub(crate) mod fixture;

use std::collections::BTreeMap;

use minik8s_api::strategy::names;
use serde_json::{Value, json};

/// The user of a request that carries no credentials.
pub const ANONYMOUS: &str = "system:anonymous";
/// The group of every request without credentials.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The group of every request with good credentials.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group that may do anything, whatever the roles say.
pub const MASTERS: &str = "system:masters";
/// The group of kubelets.
pub const NODES: &str = "system:nodes";
/// The API server's own identity, for what it does by itself.
pub const API_SERVER: &str = "system:apiserver";

const NODE_PREFIX: &str = "system:node:";
const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";
const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";

/// A user as Kubernetes knows one: a name, groups, and what the authenticator adds. There are no user objects.
///
/// Put into the extensions of a request, it is the identity of an in-process caller ([`crate::authn::Authenticator`]).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// The unique user name.
    pub name: String,
    /// An identifier that survives a change of name; empty for most users.
    pub uid: String,
    /// Groups, in the order in which the authenticator named them.
    pub groups: Vec<String>,
    /// Further attributes (`authentication.kubernetes.io/pod-name`, …).
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// An authenticated user: `system:authenticated` is added to `groups`.
    pub fn new<G: Into<String>>(name: impl Into<String>, groups: impl IntoIterator<Item = G>) -> UserInfo {
        let groups = groups.into_iter().map(Into::into).collect();
        UserInfo { name: name.into(), groups, ..UserInfo::default() }.authenticated()
    }

    /// Who sends a request without credentials.
    pub fn anonymous() -> UserInfo {
        UserInfo { name: ANONYMOUS.to_owned(), groups: vec![UNAUTHENTICATED.to_owned()], ..UserInfo::default() }
    }

    /// The API server itself (in `system:masters`, as the loopback client of kube-apiserver is).
    pub fn api_server() -> UserInfo {
        UserInfo::new(API_SERVER, [MASTERS])
    }

    /// The kubelet of a node.
    pub fn node(node: &str) -> UserInfo {
        UserInfo::new(format!("{NODE_PREFIX}{node}"), [NODES])
    }

    /// A ServiceAccount, without a token that would bind it to a pod.
    pub fn service_account(namespace: &str, name: &str) -> UserInfo {
        UserInfo::new(service_account_name(namespace, name), service_account_groups(namespace))
    }

    /// Adds `system:authenticated`, once (`k8s.io/apiserver/pkg/authentication/group/authenticated_group_adder.go`).
    pub fn authenticated(mut self) -> UserInfo {
        let is_anonymous = self.name == ANONYMOUS || self.in_group(UNAUTHENTICATED);
        if !self.in_group(AUTHENTICATED) && !is_anonymous {
            self.groups.push(AUTHENTICATED.to_owned());
        }
        self
    }

    /// Whether the user is in a group.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }

    /// The node whose kubelet this is: a name that starts with `system:node:` in the group `system:nodes`
    /// (`pkg/auth/nodeidentifier/default.go`).
    pub fn node_name(&self) -> Option<&str> {
        if self.in_group(NODES) { self.name.strip_prefix(NODE_PREFIX).filter(|node| !node.is_empty()) } else { None }
    }

    /// Namespace and name, if this is a ServiceAccount.
    pub fn as_service_account(&self) -> Option<(&str, &str)> {
        split_service_account(&self.name)
    }

    /// The form that reviews and admission webhooks show (`authentication.k8s.io/v1` UserInfo).
    pub fn to_value(&self) -> Value {
        let mut value = json!({ "username": self.name });
        if !self.uid.is_empty() {
            value["uid"] = json!(self.uid);
        }
        if !self.groups.is_empty() {
            value["groups"] = json!(self.groups);
        }
        if !self.extra.is_empty() {
            value["extra"] = json!(self.extra);
        }
        value
    }
}

/// `system:serviceaccount:{namespace}:{name}`.
pub fn service_account_name(namespace: &str, name: &str) -> String {
    format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}")
}

/// The groups of every ServiceAccount of a namespace.
pub fn service_account_groups(namespace: &str) -> [String; 2] {
    [SERVICE_ACCOUNTS.to_owned(), format!("{SERVICE_ACCOUNTS}:{namespace}")]
}

/// Namespace and name of a ServiceAccount's user name.
pub fn split_service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(SERVICE_ACCOUNT_PREFIX)?.split_once(':')?;
    // What could be the name of no account is a user like any other.
    let is_valid = names::dns1123_label(namespace).is_empty() && names::dns1123_subdomain(name).is_empty();
    is_valid.then_some((namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_needs_both_the_name_and_the_group() {
        assert_eq!(UserInfo::node("n1").node_name(), Some("n1"));
        assert_eq!(UserInfo::new("system:node:n1", ["others"]).node_name(), None);
        assert_eq!(UserInfo::new("n1", [NODES]).node_name(), None);
        assert_eq!(UserInfo::new("system:node:", [NODES]).node_name(), None);
    }

    #[test]
    fn service_account_names_split_where_they_are_whole() {
        for (user, expect) in [
            ("system:serviceaccount:a:b", Some(("a", "b"))),
            ("system:serviceaccount:a:b:c", None),
            ("system:serviceaccount::b", None),
            ("system:serviceaccount:a", None),
            ("a:b", None),
        ] {
            assert_eq!(split_service_account(user), expect, "{user}");
        }
    }

    #[test]
    fn anonymous_is_never_authenticated() {
        assert_eq!(UserInfo::anonymous().authenticated().groups, [UNAUTHENTICATED]);
        assert_eq!(UserInfo::new("a", ["g"]).authenticated().groups, ["g", AUTHENTICATED]);
    }
}
