//! Who may have devices that others use, and who may say who got which.
//!
//! Admin access is for namespaces that are labelled for it. The status of a claim is written by the scheduler (which
//! devices, for whom) and by drivers (how each is), and each needs a permission of its own beside the one to write the
//! status: on `resourceclaims/binding`, and on `resourceclaims/driver` by the driver's name.
//!
//! Kubernetes checks this in the strategies of the two resources (`pkg/registry/resource/utils.go`) and refuses with what
//! else is wrong; here it is a plugin that sees the valid object. An update and a patch are not told apart: whoever may
//! do one of them may do both.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use minik8s_api::kinds::{GroupKind, GroupResource};
use minik8s_api::status::{FieldError, FieldPath, Status};
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::authz::{self, Authorizer};
use crate::cache::Objects;

const GROUP: &str = "resource.k8s.io";
const CLAIMS: &str = "resourceclaims";
const TEMPLATES: &str = "resourceclaimtemplates";
const ADMIN_LABEL: &str = "resource.kubernetes.io/admin-access";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const VERBS: [&str; 2] = ["update", "patch"];

/// See the module.
pub struct DeviceClaims {
    objects: Arc<dyn Objects>,
    authorizer: Arc<dyn Authorizer>,
    namespaces: GroupResource,
}

fn items<'a>(of: &'a Value, pointer: &str) -> &'a [Value] {
    of.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

impl DeviceClaims {
    /// Namespaces are looked up in `objects`; `authorizer` (the whole union) says who may write what.
    pub fn new(objects: Arc<dyn Objects>, authorizer: Arc<dyn Authorizer>) -> DeviceClaims {
        DeviceClaims { objects, authorizer, namespaces: GroupResource::new("", "namespaces") }
    }

    /// Whether a namespace is not one for admin access.
    fn is_plain(&self, namespace: &str) -> bool {
        let found = self.objects.get(&self.namespaces, "", namespace);
        found.is_none_or(|namespace| namespace.label(ADMIN_LABEL) != Some("true"))
    }

    fn admin_access(&self, write: &Attributes<'_>, path: &FieldPath, errors: &mut Vec<FieldError>) {
        if self.is_plain(write.namespace) {
            let words =
                format!("admin access to devices requires the `{ADMIN_LABEL}: true` label on the containing namespace");
            errors.push(FieldError::forbidden(&path.child("adminAccess"), words));
        }
    }

    /// A new claim, or a template of claims.
    fn requests(&self, write: &Attributes<'_>, object: &Value, errors: &mut Vec<FieldError>) {
        let spec = if write.resource == TEMPLATES { "/spec/spec/devices/requests" } else { "/spec/devices/requests" };
        let asks = |request: &Value| request["exactly"]["adminAccess"] == true;
        if let Some(index) = items(object, spec).iter().position(asks) {
            // The path is that of a claim, also in a template.
            let requests = FieldPath::new("spec").child("devices").child("requests");
            self.admin_access(write, &requests.index(index), errors);
        }
    }

    fn status(&self, write: &Attributes<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        const RESULTS: &str = "/status/allocation/devices/results";
        let granted = |claim: &Value| items(claim, RESULTS).iter().position(|result| result["adminAccess"] == true);
        let allocation = FieldPath::new("status").child("allocation");
        if let (Some(index), None) = (granted(new), granted(old)) {
            let results = allocation.child("devices").child("results");
            self.admin_access(write, &results.index(index), errors);
        }
        let (status, before) = (&new["status"], &old["status"]);
        if ["allocation", "reservedFor"].iter().any(|name| status.get(name) != before.get(name))
            && let Err(why) = self.may(write, "binding", "", &VERBS, "")
        {
            let words = "changing status.allocation or status.reservedFor requires resource=\"resourceclaims/binding\", \
                         verb=\"update\" permission";
            errors.push(FieldError::forbidden(&allocation, format!("{words}: {why}")));
        }
        if status.get("allocation").is_none() {
            return;
        }
        let here = associated(write, status);
        let scopes: &[&str] = if here { &["associated-node", "arbitrary-node"] } else { &["arbitrary-node"] };
        let verbs: Vec<String> =
            scopes.iter().flat_map(|scope| VERBS.iter().map(move |verb| format!("{scope}:{verb}"))).collect();
        let verbs: Vec<&str> = verbs.iter().map(String::as_str).collect();
        for driver in changed_drivers(status, before) {
            if let Err(why) = self.may(write, "driver", write.namespace, &verbs, driver) {
                let asked: Vec<String> = scopes.iter().map(|scope| format!("{scope}:update")).collect();
                let words = format!(
                    "changing status.devices requires resource=\"resourceclaims/driver\", verb=\"[{}]\" permission: {why}",
                    asked.join(" ")
                );
                errors.push(FieldError::forbidden(&FieldPath::new("status").child("devices"), words));
            }
        }
    }

    /// Whether the user has one of the verbs on a part of claims; the words of a 403 otherwise.
    fn may(
        &self,
        write: &Attributes<'_>,
        part: &str,
        namespace: &str,
        verbs: &[&str],
        name: &str,
    ) -> Result<(), String> {
        let mut refusal = String::new();
        for verb in verbs {
            let question = authz::Attributes {
                subresource: part,
                namespace,
                name,
                ..authz::Attributes::resource(write.user, verb, GROUP, CLAIMS)
            };
            let verdict = self.authorizer.authorize(&question);
            if verdict.allowed() {
                return Ok(());
            }
            if refusal.is_empty() {
                refusal = authz::forbidden(&question, &verdict.reason).message;
            }
        }
        Err(refusal)
    }
}

/// Whether the user is a ServiceAccount whose pod runs on the node that the claim was allocated for.
fn associated(write: &Attributes<'_>, status: &Value) -> bool {
    let terms = items(status, "/allocation/nodeSelector/nodeSelectorTerms");
    let [term] = terms else { return false };
    let ([], [field]) = (items(term, "/matchExpressions"), items(term, "/matchFields")) else { return false };
    let on_name = field["key"] == "metadata.name" && field["operator"] == "In";
    let nodes = write.user.extra.get(NODE_NAME).map_or(&[][..], Vec::as_slice);
    let ([node], [own]) = (items(field, "/values"), nodes) else { return false };
    on_name && write.user.as_service_account().is_some() && !own.is_empty() && node == own.as_str()
}

/// The drivers of whose devices something else is said than before.
fn changed_drivers<'a>(status: &'a Value, before: &'a Value) -> BTreeSet<&'a str> {
    let (new, old) = (items(status, "/devices"), items(before, "/devices"));
    let only_in = |list: &'a [Value], other: &'a [Value]| list.iter().filter(move |device| !other.contains(device));
    only_in(new, old).chain(only_in(old, new)).filter_map(|device| device["driver"].as_str()).collect()
}

#[async_trait]
impl Plugin for DeviceClaims {
    fn name(&self) -> &'static str {
        "DeviceClaims"
    }

    fn handles(&self, write: &Attributes<'_>) -> bool {
        match write.operation {
            Operation::Create => write.is(GROUP, CLAIMS) || write.is(GROUP, TEMPLATES),
            Operation::Update => write.is_sub(GROUP, CLAIMS, "status"),
            Operation::Delete | Operation::Connect => false,
        }
    }

    async fn validate(&self, write: &Attributes<'_>) -> Result<(), Status> {
        let Some(object) = &write.object else { return Ok(()) };
        let mut errors = Vec::new();
        match write.old_object {
            Some(old) => self.status(write, object, old, &mut errors),
            None => self.requests(write, object, &mut errors),
        }
        if errors.is_empty() {
            return Ok(());
        }
        Err(Status::invalid(&GroupKind::new(GROUP, write.kind), write.error_name(), errors))
    }
}
