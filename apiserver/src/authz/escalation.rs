//! Nobody grants what they do not hold: the check of roles and bindings before they are written.
//!
//! A role may contain what its author holds, a binding may refer to a role whose rules its author holds. `system:masters`
//! and who has the verbs `escalate` (roles) or `bind` (bindings) may do more.
//!
//! Kubernetes checks this in the storage of the four resources (`pkg/registry/rbac/*/policybased/storage.go`); here it is
//! the last plugin of the validating chain, which sees the same object.

use std::sync::Arc;

use async_trait::async_trait;
use minik8s_api::status::Status;
use serde::Deserialize;
use serde_json::Value;

use super::{
    Attributes, Authorizer, Rbac,
    rbac::{GROUP, RoleRef},
    rules::{PolicyRule, describe, quoted_list, uncovered},
};
use crate::{admission, identity::MASTERS};

/// The check, as a plugin of the admission chain.
pub struct Escalation {
    rbac: Arc<Rbac>,
    authorizer: Arc<dyn Authorizer>,
}

impl Escalation {
    /// `rbac` says what users hold, `authorizer` (the whole union) who may `escalate` and `bind`.
    pub fn new(rbac: Arc<Rbac>, authorizer: Arc<dyn Authorizer>) -> Escalation {
        Escalation { rbac, authorizer }
    }

    fn may(&self, write: &admission::Attributes<'_>, verb: &str, resource: &str, namespace: &str, name: &str) -> bool {
        let question = Attributes { namespace, name, ..Attributes::resource(write.user, verb, GROUP, resource) };
        self.authorizer.authorize(&question).allowed()
    }

    /// What the user would give away without holding it, in Kubernetes' words.
    fn confirm_held(&self, write: &admission::Attributes<'_>, rules: &[PolicyRule]) -> Result<(), String> {
        let held = self.rbac.rules_for(write.user, write.namespace);
        let missing = uncovered(held.rules.iter().map(AsRef::as_ref), rules);
        if missing.is_empty() {
            return Ok(());
        }
        let mut message = format!(
            "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
            write.user.name,
            quoted_list(&write.user.groups),
            describe(&missing).join("\n")
        );
        if !held.errors.is_empty() {
            // Here the resource is meant, where a reason of the authorizer means the kind.
            let errors = held.errors.iter().map(|error| {
                let error = error.replacen("clusterrole.", "clusterroles.", 1);
                if error.starts_with("role.") { error.replacen("role.", "roles.", 1) } else { error }
            });
            message += &format!("; resolution errors: [{}]", errors.collect::<Vec<_>>().join(", "));
        }
        Err(message)
    }

    fn check_role(&self, write: &admission::Attributes<'_>, object: &Value) -> Result<(), Status> {
        // The name in the URL: a role that is posted has none yet.
        let name = if write.operation == admission::Operation::Create { "" } else { write.name };
        if self.may(write, "escalate", write.resource, write.namespace, name) {
            return Ok(());
        }
        let rules: Vec<PolicyRule> =
            object.get("rules").map(|rules| Vec::deserialize(rules).unwrap_or_default()).unwrap_or_default();
        self.confirm_held(write, &rules).map_err(|message| write.forbidden(message))?;
        // An aggregated role gathers whatever others put under its labels.
        if object.get("aggregationRule").is_some_and(|rule| !rule.is_null()) {
            self.confirm_held(write, &PolicyRule::full_authority())
                .map_err(|_| write.forbidden("must have cluster-admin privileges to use the aggregationRule"))?;
        }
        Ok(())
    }

    fn check_binding(&self, write: &admission::Attributes<'_>, object: &Value) -> Result<(), Status> {
        let reference = object
            .get("roleRef")
            .map(|reference| RoleRef::deserialize(reference).unwrap_or_default())
            .unwrap_or_default();
        let resource = if reference.kind == "ClusterRole" { "clusterroles" } else { "roles" };
        // Asked for the binding's namespace, also for ClusterRoles, so that binding them can be delegated by namespace.
        if self.may(write, "bind", resource, write.namespace, &reference.name) {
            return Ok(());
        }
        // Kubernetes says this of the binding's resource.
        let missing = |_| Status::not_found(&write.group_resource(), &reference.name);
        let rules = self.rbac.rules_of(&reference, write.namespace).map_err(missing)?;
        self.confirm_held(write, &rules).map_err(|message| write.forbidden(message))
    }
}

/// Whether no more changed than what the garbage collector writes. Labels count: they decide what is aggregated.
fn only_ownership_changed(old: &Value, new: &Value) -> bool {
    let rest = |object: &Value| {
        let mut object = object.clone();
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            for field in ["finalizers", "ownerReferences", "managedFields", "resourceVersion", "generation"] {
                metadata.remove(field);
            }
        }
        object
    };
    rest(old) == rest(new)
}

#[async_trait]
impl admission::Plugin for Escalation {
    fn name(&self) -> &'static str {
        "RBACEscalation"
    }

    fn handles(&self, write: &admission::Attributes<'_>) -> bool {
        write.group == GROUP && write.object.is_some() && write.subresource.is_empty()
    }

    async fn validate(&self, write: &admission::Attributes<'_>) -> Result<(), Status> {
        let Some(object) = &write.object else {
            return Ok(());
        };
        if write.user.in_group(MASTERS) || write.old_object.is_some_and(|old| only_ownership_changed(old, object)) {
            return Ok(());
        }
        match write.resource {
            "roles" | "clusterroles" => self.check_role(write, object),
            "rolebindings" | "clusterrolebindings" => self.check_binding(write, object),
            _ => Ok(()),
        }
    }
}
