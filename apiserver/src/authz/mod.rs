//! May this user do this? One question ([`Attributes`]), one answer ([`Decision`]), from a row of [`Authorizer`]s.
//!
//! ```text
//!  Attributes ─► Masters ─► Node ─► RBAC ─► nobody said yes: 403
//!                  │Allow     │Allow   │Allow
//! ```
//! The first that allows (or denies) decides; `NoOpinion` asks the next, and when none is left the answer is no.
//! `rbac` keeps a compiled snapshot of roles and bindings, rebuilt when one of them changes; `node` lets a kubelet read
//! only what its pods refer to; `escalation` keeps users from granting what they do not hold.

pub mod escalation;
pub mod node;
pub mod rbac;
pub mod rules;
#[cfg(test)]
mod tests;

pub use node::{NodeAuthorizer, PodsOnNode};
pub use rbac::Rbac;

use std::{borrow::Cow, sync::Arc};

use minik8s_api::{kinds::GroupResource, status::Status};

use crate::{
    identity::{MASTERS, UserInfo},
    query::Query,
    request::RequestInfo,
};

/// What a user asks to do.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    /// Who asks.
    pub user: &'a UserInfo,
    /// `get`, `list`, `create`, …; the lower-case HTTP method for paths.
    pub verb: &'a str,
    /// Empty for cluster-scoped resources and for all namespaces.
    pub namespace: &'a str,
    /// Empty for core.
    pub group: &'a str,
    /// API version.
    pub version: &'a str,
    /// Plural name.
    pub resource: &'a str,
    /// Empty for the resource itself.
    pub subresource: &'a str,
    /// Empty where no single object is meant.
    pub name: &'a str,
    /// Whether a resource is meant, rather than `path`.
    pub is_resource: bool,
    /// URL path.
    pub path: &'a str,
    /// The raw field selector of a list, watch or deletecollection.
    pub field_selector: &'a str,
}

impl<'a> Attributes<'a> {
    /// The question that a request poses.
    pub fn of_request(user: &'a UserInfo, info: &'a RequestInfo, query: &'a Query) -> Attributes<'a> {
        let collection = matches!(info.verb.as_str(), "list" | "watch" | "deletecollection");
        Attributes {
            user,
            verb: &info.verb,
            namespace: &info.namespace,
            group: &info.group,
            version: &info.version,
            resource: &info.resource,
            subresource: &info.subresource,
            name: &info.name,
            is_resource: info.is_resource,
            path: &info.path,
            field_selector: if collection { query.get("fieldSelector").unwrap_or_default() } else { "" },
        }
    }

    /// A question about a resource; set the fields that matter beyond these with struct update syntax.
    pub fn resource(user: &'a UserInfo, verb: &'a str, group: &'a str, resource: &'a str) -> Attributes<'a> {
        Attributes {
            user,
            verb,
            group,
            resource,
            namespace: "",
            version: "*",
            subresource: "",
            name: "",
            is_resource: true,
            path: "",
            field_selector: "",
        }
    }

    /// Whether the verb cannot change anything.
    pub fn is_read_only(&self) -> bool {
        matches!(self.verb, "get" | "list" | "watch")
    }
}

/// The answer of one authorizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Yes; nobody else is asked.
    Allow,
    /// No; nobody else is asked.
    Deny,
    /// Someone else may say yes.
    NoOpinion,
}

/// A decision and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The decision.
    pub decision: Decision,
    /// Why, in Kubernetes' words; often empty for `NoOpinion`.
    pub reason: Cow<'static, str>,
}

impl Verdict {
    /// Allowed, because of `reason`.
    pub fn allow(reason: impl Into<Cow<'static, str>>) -> Verdict {
        Verdict { decision: Decision::Allow, reason: reason.into() }
    }

    /// No opinion, because of `reason`.
    pub fn no_opinion(reason: impl Into<Cow<'static, str>>) -> Verdict {
        Verdict { decision: Decision::NoOpinion, reason: reason.into() }
    }

    /// Whether the decision is `Allow`.
    pub fn allowed(&self) -> bool {
        self.decision == Decision::Allow
    }
}

/// Decides, or has no opinion. Answers come from memory, so there is nothing to wait for.
pub trait Authorizer: Send + Sync {
    /// Decides on one question.
    fn authorize(&self, attributes: &Attributes<'_>) -> Verdict;

    /// What a user may do in a namespace at all, as far as it can be listed (SelfSubjectRulesReview).
    fn rules_for(&self, user: &UserInfo, namespace: &str) -> UserRules {
        let _ = (user, namespace);
        UserRules::default()
    }
}

/// The rules that apply to a user.
#[derive(Debug, Clone, Default)]
pub struct UserRules {
    /// Rules as roles spell them.
    pub rules: Vec<Arc<rules::PolicyRule>>,
    /// Whether more may be allowed than can be listed.
    pub incomplete: bool,
    /// Why, or which roles were not found.
    pub errors: Vec<String>,
}

/// Asks each in order; the first opinion counts (`k8s.io/apiserver/pkg/authorization/union`).
pub struct Union(Vec<(&'static str, Arc<dyn Authorizer>)>);

impl Union {
    /// Authorizers in the order in which they are asked, by the names that reasons begin with.
    pub fn new(authorizers: Vec<(&'static str, Arc<dyn Authorizer>)>) -> Union {
        Union(authorizers)
    }
}

impl Authorizer for Union {
    fn authorize(&self, attributes: &Attributes<'_>) -> Verdict {
        let mut reasons = Vec::new();
        for (name, authorizer) in &self.0 {
            let verdict = authorizer.authorize(attributes);
            if verdict.decision != Decision::NoOpinion {
                return verdict;
            }
            if !verdict.reason.is_empty() {
                reasons.push(format!("{name}: {}", verdict.reason));
            }
        }
        Verdict::no_opinion(reasons.join("\n"))
    }

    fn rules_for(&self, user: &UserInfo, namespace: &str) -> UserRules {
        let mut all = UserRules::default();
        for (_, authorizer) in &self.0 {
            let own = authorizer.rules_for(user, namespace);
            all.rules.extend(own.rules);
            all.incomplete |= own.incomplete;
            all.errors.extend(own.errors);
        }
        all
    }
}

/// `system:masters` may do anything, so that broken roles can always be mended.
pub struct Masters;

impl Masters {
    /// Its name among the authorizers.
    pub const NAME: &str = "kubernetes.io/system-privileged-group";
}

impl Authorizer for Masters {
    fn authorize(&self, attributes: &Attributes<'_>) -> Verdict {
        if attributes.user.in_group(MASTERS) { Verdict::allow("") } else { Verdict::no_opinion("") }
    }
}

/// Everybody may do everything (`--authorization-mode AlwaysAllow`).
pub struct AlwaysAllow;

impl Authorizer for AlwaysAllow {
    fn authorize(&self, _: &Attributes<'_>) -> Verdict {
        Verdict::allow("")
    }
}

/// Nobody may do anything that another authorizer does not allow (`--authorization-mode AlwaysDeny`).
pub struct AlwaysDeny;

impl Authorizer for AlwaysDeny {
    fn authorize(&self, _: &Attributes<'_>) -> Verdict {
        Verdict::no_opinion("Everything is forbidden.")
    }
}

/// An authorizer by its name in `--authorization-mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// [`NodeAuthorizer`].
    Node,
    /// [`Rbac`].
    Rbac,
    /// [`AlwaysAllow`].
    AlwaysAllow,
    /// [`AlwaysDeny`].
    AlwaysDeny,
}

impl Mode {
    /// The authorizer of that name.
    ///
    /// # Errors
    /// Kubernetes' authorizers that are not here, and what is none.
    pub fn parse(name: &str) -> Result<Mode, String> {
        match name {
            "Node" => Ok(Mode::Node),
            "RBAC" => Ok(Mode::Rbac),
            "AlwaysAllow" => Ok(Mode::AlwaysAllow),
            "AlwaysDeny" => Ok(Mode::AlwaysDeny),
            "ABAC" | "Webhook" => Err(format!(
                "authorization-mode {name:?} is not part of minik8s; choose from Node, RBAC, AlwaysAllow, AlwaysDeny"
            )),
            _ => Err(format!("authorization-mode {name:?} is not a valid mode")),
        }
    }
}

/// The 403 of a question that was not allowed (`k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/errors.go`).
pub fn forbidden(attributes: &Attributes<'_>, reason: &str) -> Status {
    let mut message = escape(&describe(attributes));
    if !reason.is_empty() {
        message = format!("{message}: {reason}");
    }
    Status::forbidden(&GroupResource::new(attributes.group, attributes.resource), attributes.name, message)
}

fn describe(attributes: &Attributes<'_>) -> String {
    let Attributes { verb, namespace, group, resource, subresource, .. } = attributes;
    let user = &attributes.user.name;
    if !attributes.is_resource {
        return format!("User {user:?} cannot {verb} path {:?}", attributes.path);
    }
    let resource = if subresource.is_empty() { (*resource).to_owned() } else { format!("{resource}/{subresource}") };
    let scope = if namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {namespace:?}")
    };
    format!("User {user:?} cannot {verb} resource {resource:?} in API group {group:?} {scope}")
}

/// Names come from the request; the message may end up in a browser.
fn escape(message: &str) -> String {
    message.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
