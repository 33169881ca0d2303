//! Acting as someone else: the `Impersonate-*` headers.
//!
//! | mode | whom it is for | who may |
//! |---|---|---|
//! | `associated-node` | a node, by an account whose token says that its pod runs there | `impersonate:associated-node` on `nodes` |
//! | `arbitrary-node` | a node | `impersonate:arbitrary-node` on `nodes` |
//! | `serviceaccount` | an account | `impersonate:serviceaccount` on `serviceaccounts` |
//! | `user-info` | anybody else, with groups, UID and extra values | `impersonate:user-info` on each of them |
//! | the old one | anybody | `impersonate` on each of them |
//!
//! All modes but the last also ask whether the caller may do what the request does as somebody else:
//! `impersonate-on:MODE:VERB` on its resource. The first mode that allows it counts; where none does, the first refusal is told.
//! Mirrors `k8s.io/apiserver/pkg/endpoints/filters/impersonation`.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, request::Parts};
use minik8s_api::status::Status;
use minik8s_api::strategy::names;

use crate::{
    authz::{Attributes, Authorizer, forbidden},
    identity::{
        ANONYMOUS, AUTHENTICATED, MASTERS, NODES, UNAUTHENTICATED, UserInfo, service_account_groups,
        split_service_account,
    },
    request::percent_decode,
};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA_PREFIX: &str = "impersonate-extra-";
const AUTHENTICATION_GROUP: &str = "authentication.k8s.io";
/// Where an account's token says on which node its pod runs.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// Whom a request acts as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Impersonated {
    /// The user.
    pub user: UserInfo,
    /// The verb that allowed it: `impersonate:user-info`; empty for the old one.
    pub constraint: &'static str,
}

/// Whom the request acts as: whom its headers name, if the user who asks may; `None` where they name nobody. The headers are
/// taken away.
pub fn impersonate(
    request: &mut Parts,
    asked: &Attributes<'_>,
    authorizer: &dyn Authorizer,
) -> Result<Option<Impersonated>, Status> {
    let Some(wanted) = Wanted::of(&request.headers)? else {
        return Ok(None);
    };
    let constraint = wanted.authorize(asked, authorizer)?;
    let taken: Vec<HeaderName> = request
        .headers
        .keys()
        .filter(|name| [USER, GROUP, UID].contains(&name.as_str()) || name.as_str().starts_with(EXTRA_PREFIX))
        .cloned()
        .collect();
    for name in taken {
        request.headers.remove(name);
    }
    Ok(Some(Impersonated { user: wanted.into_user(constraint), constraint }))
}

/// A way to be somebody else that is not the old one.
struct Mode {
    name: &'static str,
    verb: &'static str,
}

const ASSOCIATED_NODE: Mode = Mode { name: "associated-node", verb: "impersonate:associated-node" };
const ARBITRARY_NODE: Mode = Mode { name: "arbitrary-node", verb: "impersonate:arbitrary-node" };
const SERVICE_ACCOUNT: Mode = Mode { name: "serviceaccount", verb: "impersonate:serviceaccount" };
const USER_INFO: Mode = Mode { name: "user-info", verb: "impersonate:user-info" };

/// The node whose user this is, by its name alone.
fn node_of(user: &str) -> Option<&str> {
    let name = user.strip_prefix("system:node:")?;
    names::dns1123_subdomain(name).is_empty().then_some(name)
}

/// What the headers ask for.
struct Wanted {
    user: String,
    groups: Vec<String>,
    uid: String,
    extra: BTreeMap<String, Vec<String>>,
}

impl Wanted {
    fn of(headers: &HeaderMap) -> Result<Option<Wanted>, Status> {
        let text = |value: &http::HeaderValue| {
            value
                .to_str()
                .map(str::to_owned)
                .map_err(|_| Status::bad_request("impersonation headers must be printable ASCII"))
        };
        let all = |name: &str| headers.get_all(name).iter().map(text).collect::<Result<Vec<_>, _>>();
        let mut wanted = Wanted {
            user: all(USER)?.into_iter().next().unwrap_or_default(),
            groups: all(GROUP)?,
            uid: all(UID)?.into_iter().next().unwrap_or_default(),
            extra: BTreeMap::new(),
        };
        for name in headers.keys() {
            if let Some(key) = name.as_str().strip_prefix(EXTRA_PREFIX) {
                wanted.extra.entry(percent_decode(key)).or_default().extend(all(name.as_str())?);
            }
        }
        let nothing_else = wanted.groups.is_empty() && wanted.uid.is_empty() && wanted.extra.is_empty();
        match (wanted.user.is_empty(), nothing_else) {
            (true, true) => Ok(None),
            (true, false) => Err(Status::bad_request(
                "requested impersonation of groups, a UID or extra values without impersonating a user",
            )),
            (false, _) => Ok(Some(wanted)),
        }
    }

    /// The verb that allows it; empty for the old one.
    fn authorize(&self, asked: &Attributes<'_>, authorizer: &dyn Authorizer) -> Result<&'static str, Status> {
        let mut first = None;
        for mode in self.modes(asked.user) {
            match self.authorize_constrained(&mode, asked, authorizer) {
                Ok(()) => return Ok(mode.verb),
                Err(refused) => drop(first.get_or_insert(refused)),
            }
        }
        self.authorize_parts("impersonate", asked.user, authorizer).map_err(|refused| first.unwrap_or(refused))?;
        Ok("")
    }

    /// The modes that are for the one who is wanted.
    fn modes(&self, caller: &UserInfo) -> Vec<Mode> {
        let only_name = self.groups.is_empty() && self.uid.is_empty() && self.extra.is_empty();
        let is_account = split_service_account(&self.user).is_some();
        let Some(node) = node_of(&self.user) else {
            return match is_account {
                true if only_name => vec![SERVICE_ACCOUNT],
                true => Vec::new(),
                false => vec![USER_INFO],
            };
        };
        let own = caller.extra.get(NODE_NAME).is_some_and(|own| own.len() == 1 && own[0] == node);
        let runs_there = own && split_service_account(&caller.name).is_some();
        match (only_name, runs_there) {
            (false, _) => Vec::new(),
            (true, true) => vec![ASSOCIATED_NODE, ARBITRARY_NODE],
            (true, false) => vec![ARBITRARY_NODE],
        }
    }

    fn authorize_constrained(
        &self,
        mode: &Mode,
        asked: &Attributes<'_>,
        authorizer: &dyn Authorizer,
    ) -> Result<(), Status> {
        let verb = format!("impersonate-on:{}:{}", mode.name, asked.verb);
        ask(authorizer, Attributes { verb: &verb, ..*asked })?;
        self.authorize_parts(mode.verb, asked.user, authorizer)
    }

    /// Whether the caller may take on each thing that is wanted.
    fn authorize_parts(&self, verb: &str, caller: &UserInfo, authorizer: &dyn Authorizer) -> Result<(), Status> {
        let constrained = verb != "impersonate";
        let own = if constrained { AUTHENTICATION_GROUP } else { "" };
        let on = |group, resource| Attributes { version: "v1", ..Attributes::resource(caller, verb, group, resource) };
        let refuse = |question: Attributes<'_>, why: &str| Err(forbidden(&question, why));
        let node = node_of(&self.user).filter(|_| constrained);
        match (node, split_service_account(&self.user)) {
            // Which node it is was compared already.
            (Some(_), _) if verb == ASSOCIATED_NODE.verb => {
                ask(authorizer, Attributes { name: "*", ..on(own, "nodes") })
            }
            (Some(name), _) => ask(authorizer, Attributes { name, ..on(own, "nodes") }),
            (None, Some((namespace, name))) => {
                ask(authorizer, Attributes { namespace, name, ..on(own, "serviceaccounts") })
            }
            (None, None) => ask(authorizer, Attributes { name: &self.user, ..on(own, "users") }),
        }?;
        if !self.uid.is_empty() {
            ask(authorizer, Attributes { name: &self.uid, ..on(AUTHENTICATION_GROUP, "uids") })?;
        }
        if constrained && self.groups.iter().any(String::is_empty) {
            return refuse(on(own, "groups"), "impersonating the empty string group is not allowed");
        }
        if constrained && self.groups.iter().any(|group| group == MASTERS) {
            let question = Attributes { name: MASTERS, ..on(own, "groups") };
            return refuse(question, "impersonating the system:masters group is not allowed");
        }
        for name in &self.groups {
            ask(authorizer, Attributes { name, ..on(own, "groups") })?;
        }
        if constrained && let Some(why) = self.wrong_extra() {
            return refuse(on(AUTHENTICATION_GROUP, "userextras"), &why);
        }
        for (key, values) in &self.extra {
            for name in values {
                ask(authorizer, Attributes { name, subresource: key, ..on(AUTHENTICATION_GROUP, "userextras") })?;
            }
        }
        Ok(())
    }

    fn wrong_extra(&self) -> Option<String> {
        self.extra.iter().find_map(|(key, values)| {
            let wrong = names::domain_prefixed_path(key);
            let what = if key.is_empty() {
                "the empty string key in extra is not allowed".to_owned()
            } else if let Some(why) = wrong.first() {
                format!("an invalid key in extra is not allowed: extra.key: Invalid value: {key:?}: {why}")
            } else if *key != key.to_lowercase() {
                format!("a non-lowercase key in extra is not allowed: {key:?}")
            } else if values.is_empty() {
                "empty values in extra is not allowed".to_owned()
            } else if values.iter().any(String::is_empty) {
                "the empty string value in extra is not allowed".to_owned()
            } else {
                return None;
            };
            Some(format!("impersonating {what}"))
        })
    }

    fn into_user(self, constraint: &str) -> UserInfo {
        let mut groups = self.groups;
        if groups.is_empty() {
            if let Some((namespace, _)) = split_service_account(&self.user) {
                groups.extend(service_account_groups(namespace));
            } else if !constraint.is_empty() && node_of(&self.user).is_some() {
                groups.push(NODES.to_owned());
            }
        }
        // Whoever is impersonated is in one of these two groups, and only a named one can be the second.
        let has = |group: &str| groups.iter().any(|own| own == group);
        let last = if self.user == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
        if !has(last) && !has(UNAUTHENTICATED) {
            groups.push(last.to_owned());
        }
        UserInfo { name: self.user, uid: self.uid, groups, extra: self.extra }
    }
}

fn ask(authorizer: &dyn Authorizer, question: Attributes<'_>) -> Result<(), Status> {
    let verdict = authorizer.authorize(&question);
    if verdict.allowed() { Ok(()) } else { Err(forbidden(&question, &verdict.reason)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::Verdict;

    /// Allows what its list names, as `resource/name`.
    struct Only(&'static [&'static str]);

    impl Authorizer for Only {
        fn authorize(&self, attributes: &Attributes<'_>) -> Verdict {
            if attributes.verb != "impersonate" {
                return Verdict::no_opinion("");
            }
            let asked = format!("{}/{}", attributes.resource, attributes.name);
            if self.0.contains(&asked.as_str()) { Verdict::allow("") } else { Verdict::no_opinion("") }
        }
    }

    fn request(headers: &[(&'static str, &'static str)]) -> Parts {
        let mut parts = http::Request::new(()).into_parts().0;
        for (name, value) in headers {
            parts.headers.append(*name, http::HeaderValue::from_static(value));
        }
        parts
    }

    #[test]
    fn headers_become_the_user_and_go_away() {
        let allowed = Only(&[
            "users/dev",
            "groups/a",
            "groups/b",
            "uids/7",
            "userextras/blue",
            "serviceaccounts/sa",
            "users/system:anonymous",
        ]);
        for (headers, name, groups) in [
            (&[][..], "me", &["system:authenticated"][..]),
            (&[("Impersonate-User", "dev")], "dev", &["system:authenticated"]),
            (
                &[("Impersonate-User", "dev"), ("Impersonate-Group", "a"), ("Impersonate-Group", "b")],
                "dev",
                &["a", "b", "system:authenticated"],
            ),
            (
                &[
                    ("Impersonate-User", "dev"),
                    ("Impersonate-Uid", "7"),
                    ("Impersonate-Extra-Favourite%2Fcolour", "blue"),
                ],
                "dev",
                &["system:authenticated"],
            ),
            (
                &[("Impersonate-User", "system:serviceaccount:ns:sa")],
                "system:serviceaccount:ns:sa",
                &["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"],
            ),
            (&[("Impersonate-User", "system:anonymous")], "system:anonymous", &["system:unauthenticated"]),
        ] {
            let mut parts = request(headers);
            let me = UserInfo::new("me", [] as [&str; 0]);
            let asked = Attributes::resource(&me, "list", "", "pods");
            let acts = impersonate(&mut parts, &asked, &allowed).expect("allowed");
            let user = acts.map_or(me, |acts| acts.user);
            assert_eq!(
                (user.name.as_str(), user.groups),
                (name, groups.iter().map(|group| (*group).to_owned()).collect::<Vec<_>>())
            );
            assert!(parts.headers.is_empty(), "{headers:?}");
        }
    }

    #[test]
    fn what_may_not_be_taken_on_is_named() {
        let on = r#"pods is forbidden: User "me" cannot impersonate-on:user-info:list resource "pods" in API group "" at the cluster scope"#;
        for (headers, message) in [
            (&[("Impersonate-User", "bob")][..], on),
            (&[("Impersonate-User", "dev"), ("Impersonate-Group", "system:masters")], on),
            (
                &[("Impersonate-User", "system:serviceaccount:ns:other")],
                r#"pods is forbidden: User "me" cannot impersonate-on:serviceaccount:list resource "pods" in API group "" at the cluster scope"#,
            ),
            (
                &[("Impersonate-User", "system:serviceaccount:ns:other"), ("Impersonate-Group", "g")],
                r#"serviceaccounts "other" is forbidden: User "me" cannot impersonate resource "serviceaccounts" in API group "" in the namespace "ns""#,
            ),
            (
                &[("Impersonate-Group", "g")],
                "requested impersonation of groups, a UID or extra values without impersonating a user",
            ),
        ] {
            let me = UserInfo::new("me", [] as [&str; 0]);
            let asked = Attributes::resource(&me, "list", "", "pods");
            let refused = impersonate(&mut request(headers), &asked, &Only(&["users/dev"])).expect_err("refused");
            assert_eq!(refused.message, message);
        }
    }

    /// Allows what its list names, as `verb resource/name`.
    struct Verbs(&'static [&'static str]);

    impl Authorizer for Verbs {
        fn authorize(&self, attributes: &Attributes<'_>) -> Verdict {
            let asked = format!("{} {}/{}", attributes.verb, attributes.resource, attributes.name);
            if self.0.contains(&asked.as_str()) { Verdict::allow("") } else { Verdict::no_opinion("") }
        }
    }

    #[test]
    fn constrained_modes_ask_for_what_is_done_too() {
        let account = UserInfo {
            extra: [(NODE_NAME.to_owned(), vec!["n1".to_owned()])].into(),
            ..UserInfo::new("system:serviceaccount:ns:agent", [] as [&str; 0])
        };
        for (allowed, header, constraint, groups) in [
            (
                &["impersonate-on:user-info:list pods/", "impersonate:user-info users/bob"][..],
                "bob",
                Some("impersonate:user-info"),
                &["system:authenticated"][..],
            ),
            (&["impersonate:user-info users/bob"], "bob", None, &[]),
            (
                &["impersonate-on:associated-node:list pods/", "impersonate:associated-node nodes/*"],
                "system:node:n1",
                Some("impersonate:associated-node"),
                &["system:nodes", "system:authenticated"],
            ),
            (
                &["impersonate-on:associated-node:list pods/", "impersonate:associated-node nodes/*"],
                "system:node:n2",
                None,
                &[],
            ),
            (
                &["impersonate-on:serviceaccount:list pods/", "impersonate:serviceaccount serviceaccounts/a"],
                "system:serviceaccount:ns:a",
                Some("impersonate:serviceaccount"),
                &["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"],
            ),
        ] {
            let asked = Attributes::resource(&account, "list", "", "pods");
            let mut parts = request(&[("Impersonate-User", header)]);
            let acts = impersonate(&mut parts, &asked, &Verbs(allowed)).ok().flatten();
            let seen = acts.map(|acts| (acts.constraint, acts.user.groups));
            let expected = constraint
                .map(|constraint| (constraint, groups.iter().map(|group| (*group).to_owned()).collect::<Vec<_>>()));
            assert_eq!(seen, expected, "{header}");
        }
    }
}
