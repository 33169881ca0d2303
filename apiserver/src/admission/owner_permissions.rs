//! OwnerReferencesPermissionEnforcement: who sets an object's owners must be able to delete the object, for that is what an owner's
//! end does; and who keeps an owner from going first must be able to set its finalizers (`plugin/pkg/admission/gc`).
//!
//! Off unless it is asked for, as in kube-apiserver.

use std::sync::Arc;

use async_trait::async_trait;
use minik8s_api::kinds::Kind;
use minik8s_api::status::Status;
use serde_json::Value;

use super::{Attributes, Operation, Plugin, items};
use crate::authz::{self, Authorizer};
use crate::cache::Objects;

/// See the module.
pub struct OwnerPermissions {
    objects: Arc<dyn Objects>,
    authorizer: Arc<dyn Authorizer>,
}

impl OwnerPermissions {
    /// Kubernetes' name of the plugin.
    pub const NAME: &str = "OwnerReferencesPermissionEnforcement";

    /// Kinds of owners are those of `objects`.
    pub fn new(objects: Arc<dyn Objects>, authorizer: Arc<dyn Authorizer>) -> OwnerPermissions {
        OwnerPermissions { objects, authorizer }
    }

    /// Why the user may not, if so.
    fn refusal(&self, question: &authz::Attributes<'_>) -> Option<String> {
        let verdict = self.authorizer.authorize(question);
        (!verdict.allowed()).then(|| format!("{}, <nil>", verdict.reason))
    }

    fn may_block(&self, write: &Attributes<'_>, owner: &Value) -> Result<(), Status> {
        let text = |field: &str| owner[field].as_str().unwrap_or_default();
        let (version, name) = (text("apiVersion"), text("kind"));
        let (group, served) = version.split_once('/').unwrap_or(("", version));
        let kinds = self.objects.kinds();
        let Some(kind) = kinds.by_kind(group, served, name) else {
            return Err(write.forbidden(format!(
                "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {version} Kind \
                 {name}: no matches for kind {name:?} in version {version:?}"
            )));
        };
        match self.refusal(&finalizers(write, kind, text("name"))) {
            None => Ok(()),
            Some(why) => Err(write.forbidden(format!(
                "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: {why}"
            ))),
        }
    }
}

/// May the user set finalizers of an owner? One in a namespace is in that of what it owns.
fn finalizers<'a>(write: &'a Attributes<'_>, kind: &'a Kind, name: &'a str) -> authz::Attributes<'a> {
    authz::Attributes {
        subresource: "finalizers",
        namespace: if kind.namespaced { write.namespace } else { "" },
        version: &kind.version,
        name,
        ..authz::Attributes::resource(write.user, "update", &kind.group, &kind.plural)
    }
}

/// The owners of `new` that block their own deletion and did not before.
fn newly_blocking<'v>(new: &'v Value, old: Option<&Value>) -> Vec<&'v Value> {
    let blocked_before = |uid: &Value| {
        let before = old.into_iter().flat_map(|old| items(&old["metadata"]["ownerReferences"]));
        before.filter(|owner| owner["uid"] == *uid).any(|owner| owner["blockOwnerDeletion"] == true)
    };
    let blocking = items(&new["metadata"]["ownerReferences"]).filter(|owner| owner["blockOwnerDeletion"] == true);
    blocking.filter(|owner| !blocked_before(&owner["uid"])).collect()
}

#[async_trait]
impl Plugin for OwnerPermissions {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn handles(&self, write: &Attributes<'_>) -> bool {
        matches!(write.operation, Operation::Create | Operation::Update) && !write.is_sub("", "pods", "status")
    }

    async fn validate(&self, write: &Attributes<'_>) -> Result<(), Status> {
        let Some(new) = &write.object else { return Ok(()) };
        let owners = |object: &Value| items(&object["metadata"]["ownerReferences"]).cloned().collect::<Vec<_>>();
        if owners(new) == write.old_object.map(owners).unwrap_or_default() {
            return Ok(());
        }
        // Who makes an object could have left it alone.
        if write.operation != Operation::Create {
            let delete = authz::Attributes {
                namespace: write.namespace,
                version: write.version,
                subresource: write.subresource,
                name: write.name,
                ..authz::Attributes::resource(write.user, "delete", write.group, write.resource)
            };
            if let Some(why) = self.refusal(&delete) {
                let words = format!("cannot set an ownerRef on a resource you can't delete: {why}");
                return Err(write.forbidden(words));
            }
        }
        let blocking = newly_blocking(new, write.old_object);
        let anything = authz::Attributes {
            subresource: "finalizers",
            name: "*",
            ..authz::Attributes::resource(write.user, "update", "*", "*")
        };
        if blocking.is_empty() || self.refusal(&anything).is_none() {
            return Ok(());
        }
        blocking.into_iter().try_for_each(|owner| self.may_block(write, owner))
    }
}
