//! Who may have a policy read parameters: whoever may read them himself, for what the policy says of them he learns
//! (`pkg/registry/admissionregistration/{validating,mutating}admissionpolicy*/authz.go`).
//!
//! Kubernetes asks this when it validates the four kinds; here it is a plugin of the validating chain, which sees the same
//! object.

use std::sync::Arc;

use async_trait::async_trait;
use minik8s_api::kinds::{GroupKind, GroupResource, split_api_version};
use minik8s_api::status::{FieldError, FieldPath, Status};
use serde_json::Value;

use super::super::{Attributes, Operation, Plugin};
use crate::authz::{self, Authorizer};
use crate::cache::Objects;
use crate::identity::{MASTERS, UserInfo};

const GROUP: &str = "admissionregistration.k8s.io";

/// See the module.
pub struct ParamPermissions {
    objects: Arc<dyn Objects>,
    authorizer: Arc<dyn Authorizer>,
}

/// What a `paramKind` names, with `*` for what is not known.
struct Wanted {
    group: String,
    version: String,
    resource: String,
    is_known: bool,
}

impl ParamPermissions {
    /// Policies and kinds are read from `objects`.
    pub fn new(objects: Arc<dyn Objects>, authorizer: Arc<dyn Authorizer>) -> ParamPermissions {
        ParamPermissions { objects, authorizer }
    }

    fn wanted(&self, kind: &Value) -> Wanted {
        let text = |field: &str| kind[field].as_str().unwrap_or_default();
        let (group, version) = split_api_version(text("apiVersion"));
        let row = self.objects.kinds().by_kind(group, version, text("kind")).map(|row| row.plural.clone());
        Wanted {
            group: group.to_owned(),
            version: version.to_owned(),
            is_known: row.is_some(),
            resource: row.unwrap_or_else(|| "*".to_owned()),
        }
    }

    fn may_read(&self, user: &UserInfo, verb: &str, wanted: &Wanted, namespace: &str, name: &str) -> bool {
        let question = authz::Attributes {
            namespace,
            name,
            version: &wanted.version,
            ..authz::Attributes::resource(user, verb, &wanted.group, &wanted.resource)
        };
        self.authorizer.authorize(&question).allowed()
    }

    /// The refusal of a policy for its `paramKind`.
    fn policy(&self, user: &UserInfo, kind: &Value) -> Option<String> {
        if self.may_read(user, "get", &self.wanted(kind), "*", "*") {
            return None;
        }
        let text = |field: &str| kind[field].as_str().unwrap_or_default();
        Some(format!(
            "user {} must have \"get\" permission on all objects of the referenced paramKind (kind={}, apiVersion={})",
            shown(user),
            text("kind"),
            text("apiVersion")
        ))
    }

    /// The refusal of a binding for its `paramRef`.
    fn binding(&self, write: &Attributes<'_>, spec: &Value) -> Option<String> {
        let (user, reference) = (write.user, &spec["paramRef"]);
        let text = |value: &'_ Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
        let (name, namespace, policy_name) =
            (text(reference, "name"), text(reference, "namespace"), text(spec, "policyName"));
        let policies = write.resource.replace("policybindings", "policies");
        let policy = self.objects.get(&GroupResource::new(GROUP, policies.as_str()), "", &policy_name);
        let kind = policy.as_ref().map(|policy| policy.parsed()["spec"]["paramKind"].clone()).unwrap_or_default();
        let anything = || Wanted { group: "*".into(), version: "*".into(), resource: "*".into(), is_known: true };
        let wanted = if kind.is_object() { self.wanted(&kind) } else { anything() };
        let verb = if name.is_empty() { "list" } else { "get" };
        if self.may_read(user, verb, &wanted, &namespace, &name) {
            return None;
        }
        let user = shown(user);
        let lacks = format!("user {user} does not have \"{verb}\" permission");
        let everywhere = "for all groups, versions and resources";
        Some(match (policy.is_some(), wanted.is_known) {
            (false, _) => format!(
                "unable to get policy {policy_name} to determine minimum required permissions and {lacks} {everywhere}"
            ),
            (true, false) => format!(
                "unable to resolve paramKind &ParamKind{{APIVersion:{},Kind:{},}} to determine minimum required permissions \
                 and {lacks} {everywhere}",
                text(&kind, "apiVersion"),
                text(&kind, "kind")
            ),
            (true, true) => format!("{lacks} on the object referenced by paramRef"),
        })
    }
}

/// A user as Go prints one.
fn shown(user: &UserInfo) -> String {
    let extra = user.extra.iter().map(|(key, values)| format!("{key}:[{}]", values.join(" ")));
    let extra: Vec<String> = extra.collect();
    format!("&{{{} {} [{}] map[{}]}}", user.name, user.uid, user.groups.join(" "), extra.join(" "))
}

#[async_trait]
impl Plugin for ParamPermissions {
    fn name(&self) -> &'static str {
        "AdmissionPolicyParams"
    }

    fn handles(&self, write: &Attributes<'_>) -> bool {
        let writes = matches!(write.operation, Operation::Create | Operation::Update);
        let policies = ["admissionpolicies", "admissionpolicybindings"];
        writes
            && write.group == GROUP
            && write.subresource.is_empty()
            && policies.iter().any(|ending| write.resource.ends_with(ending))
    }

    async fn validate(&self, write: &Attributes<'_>) -> Result<(), Status> {
        let Some(object) = write.object.as_ref().filter(|_| !write.user.in_group(MASTERS)) else { return Ok(()) };
        let is_binding = write.resource.ends_with("bindings");
        let field = if is_binding { "paramRef" } else { "paramKind" };
        let asks = |object: &Value| {
            let policy = if is_binding { object["spec"]["policyName"].clone() } else { Value::Null };
            (object["spec"][field].clone(), policy)
        };
        if !object["spec"][field].is_object() || write.old_object.is_some_and(|old| asks(old) == asks(object)) {
            return Ok(());
        }
        let refusal = match is_binding {
            true => self.binding(write, &object["spec"]),
            false => self.policy(write.user, &object["spec"][field]),
        };
        let Some(words) = refusal else { return Ok(()) };
        let error = FieldError::forbidden(&FieldPath::new("spec").child(field), words);
        Err(Status::invalid(&GroupKind::new(GROUP, write.kind), write.error_name(), vec![error]))
    }
}
