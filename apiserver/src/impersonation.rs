//! Acting as someone else: the `Impersonate-*` headers.
//!
//! Each thing taken on (user, every group, UID, every extra value) is a resource on which the caller needs the verb
//! `impersonate`. Mirrors `k8s.io/apiserver/pkg/endpoints/filters/impersonation`.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, request::Parts};
use minik8s_api::status::Status;

use crate::{
    authz::{Attributes, Authorizer, forbidden},
    identity::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, UserInfo, service_account_groups, split_service_account},
    request::percent_decode,
};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA_PREFIX: &str = "impersonate-extra-";
const AUTHENTICATION_GROUP: &str = "authentication.k8s.io";

/// Whom the request acts as: whom its headers name, if `user` may; `None` where they name nobody. The headers are taken
/// away.
pub fn impersonate(
    request: &mut Parts,
    user: &UserInfo,
    authorizer: &dyn Authorizer,
) -> Result<Option<UserInfo>, Status> {
    let Some(wanted) = Wanted::of(&request.headers)? else {
        return Ok(None);
    };
    wanted.authorize(user, authorizer)?;
    let taken: Vec<HeaderName> = request
        .headers
        .keys()
        .filter(|name| [USER, GROUP, UID].contains(&name.as_str()) || name.as_str().starts_with(EXTRA_PREFIX))
        .cloned()
        .collect();
    for name in taken {
        request.headers.remove(name);
    }
    Ok(Some(wanted.into_user()))
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
                wanted.extra.entry(percent_decode(key).to_lowercase()).or_default().extend(all(name.as_str())?);
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

    fn authorize(&self, user: &UserInfo, authorizer: &dyn Authorizer) -> Result<(), Status> {
        let ask = |question: Attributes<'_>| {
            let verdict = authorizer.authorize(&question);
            if verdict.allowed() { Ok(()) } else { Err(forbidden(&question, &verdict.reason)) }
        };
        let on = |group, resource| Attributes::resource(user, "impersonate", group, resource);
        match split_service_account(&self.user) {
            Some((namespace, name)) => ask(Attributes { namespace, name, ..on("", "serviceaccounts") })?,
            None => ask(Attributes { name: &self.user, ..on("", "users") })?,
        }
        for name in &self.groups {
            ask(Attributes { name, ..on("", "groups") })?;
        }
        for (key, values) in &self.extra {
            for name in values {
                ask(Attributes { name, subresource: key, version: "v1", ..on(AUTHENTICATION_GROUP, "userextras") })?;
            }
        }
        if !self.uid.is_empty() {
            ask(Attributes { name: &self.uid, version: "v1", ..on(AUTHENTICATION_GROUP, "uids") })?;
        }
        Ok(())
    }

    fn into_user(self) -> UserInfo {
        let mut groups = self.groups;
        if groups.is_empty()
            && let Some((namespace, _)) = split_service_account(&self.user)
        {
            groups.extend(service_account_groups(namespace));
        }
        // Whoever is impersonated is in one of these two groups, and only a named one can be the second.
        let named = groups.iter().any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED);
        if !named {
            groups.push(if self.user == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED }.to_owned());
        }
        UserInfo { name: self.user, uid: self.uid, groups, extra: self.extra }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::Verdict;

    /// Allows what its list names, as `resource/name`.
    struct Only(&'static [&'static str]);

    impl Authorizer for Only {
        fn authorize(&self, attributes: &Attributes<'_>) -> Verdict {
            assert_eq!(attributes.verb, "impersonate");
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
            let user = impersonate(&mut parts, &me, &allowed).expect("allowed").unwrap_or(me);
            assert_eq!(
                (user.name.as_str(), user.groups),
                (name, groups.iter().map(|group| (*group).to_owned()).collect::<Vec<_>>())
            );
            assert!(parts.headers.is_empty(), "{headers:?}");
        }
    }

    #[test]
    fn what_may_not_be_taken_on_is_named() {
        for (headers, message) in [
            (
                &[("Impersonate-User", "bob")][..],
                r#"users "bob" is forbidden: User "me" cannot impersonate resource "users" in API group "" at the cluster scope"#,
            ),
            (
                &[("Impersonate-User", "dev"), ("Impersonate-Group", "system:masters")],
                r#"groups "system:masters" is forbidden: User "me" cannot impersonate resource "groups" in API group "" at the cluster scope"#,
            ),
            (
                &[("Impersonate-User", "dev"), ("Impersonate-Extra-scopes", "all")],
                r#"userextras.authentication.k8s.io "all" is forbidden: User "me" cannot impersonate resource "userextras/scopes" in API group "authentication.k8s.io" at the cluster scope"#,
            ),
            (
                &[("Impersonate-Group", "g")],
                "requested impersonation of groups, a UID or extra values without impersonating a user",
            ),
        ] {
            let refused =
                impersonate(&mut request(headers), &UserInfo::new("me", [] as [&str; 0]), &Only(&["users/dev"]))
                    .expect_err("refused");
            assert_eq!(refused.message, message);
        }
    }
}
