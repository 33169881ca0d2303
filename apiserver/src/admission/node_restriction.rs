//! NodeRestriction: a kubelet writes its own node and the pods bound to it, and cannot make itself more attractive
//! (`plugin/pkg/admission/noderestriction/admission.go`).

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use minik8s_api::{kinds::GroupResource, status::Status};
use serde_json::Value;

use super::{Attributes, MIRROR_POD, Operation, Plugin, items};
use crate::{
    authz::node::{NODE_LEASES, References},
    cache::Objects,
};

/// Labels of Kubernetes' own namespaces that a kubelet may set on its node (`staging/src/k8s.io/kubelet/pkg/apis/well_known_labels.go`).
const KUBELET_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];
/// Label namespaces (and those below them) in which a kubelet may set what it likes.
const KUBELET_NAMESPACES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
/// The label namespace that only administrators write, so that pods can be kept off or on nodes for good.
const RESTRICTED_NAMESPACE: &str = "node-restriction.kubernetes.io";

/// See the module.
pub struct NodeRestriction {
    objects: Arc<dyn Objects>,
}

impl NodeRestriction {
    /// Pods and nodes are read from `objects`.
    pub fn new(objects: Arc<dyn Objects>) -> NodeRestriction {
        NodeRestriction { objects }
    }

    fn pod(&self, namespace: &str, name: &str) -> Result<Value, Status> {
        let pods = GroupResource::new("", "pods");
        self.objects.get(&pods, namespace, name).map(|pod| pod.value()).ok_or_else(|| Status::not_found(&pods, name))
    }

    fn check_pod(&self, write: &Attributes<'_>, node: &str) -> Result<(), Status> {
        let on_node = |pod: &Value| pod["spec"]["nodeName"] == node;
        match (write.subresource, write.operation) {
            ("", Operation::Create) => self.check_mirror_pod(write, node),
            ("", Operation::Delete) => match write.old_object {
                Some(pod) if on_node(pod) => Ok(()),
                _ => {
                    Err(write.forbidden(format!("node {node:?} can only delete pods with spec.nodeName set to itself")))
                }
            },
            ("", _) => Err(write.forbidden(format!(
                "unexpected operation {}, node {node:?} can only create and delete mirror pods",
                write.operation.as_str()
            ))),
            ("status", Operation::Update) => {
                let (Some(old), Some(new)) = (write.old_object, &write.object) else {
                    return Ok(());
                };
                if !on_node(old) {
                    return Err(write.forbidden(format!(
                        "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
                    )));
                }
                let labels = |pod: &Value| pod["metadata"]["labels"].as_object().cloned().unwrap_or_default();
                if labels(old) != labels(new) {
                    return Err(write.forbidden(format!("node {node:?} cannot update labels through pod status")));
                }
                Ok(())
            }
            ("eviction", Operation::Create) => {
                if on_node(&self.pod(write.namespace, write.name)?) {
                    Ok(())
                } else {
                    Err(write.forbidden(format!("node {node} can only evict pods with spec.nodeName set to itself")))
                }
            }
            ("status" | "eviction", operation) => {
                Err(write.forbidden(format!("unexpected operation {}", operation.as_str())))
            }
            (other, _) => Err(write
                .forbidden(format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"))),
        }
    }

    fn check_mirror_pod(&self, write: &Attributes<'_>, node: &str) -> Result<(), Status> {
        let Some(pod) = &write.object else {
            return Ok(());
        };
        if pod["metadata"]["annotations"].get(MIRROR_POD).is_none() {
            return Err(write.forbidden(format!(
                "pod does not have {MIRROR_POD:?} annotation, node {node:?} can only create mirror pods"
            )));
        }
        if pod["spec"]["nodeName"] != node {
            return Err(write.forbidden(format!("node {node:?} can only create pods with spec.nodeName set to itself")));
        }
        self.check_mirror_owner(write, node, pod)?;
        let references = References::of(pod);
        for (referred, what) in [
            (!references.service_account.is_empty(), "a service account"),
            (!references.secrets.is_empty(), "secrets"),
            (!references.config_maps.is_empty(), "configmaps"),
            (!references.claims.is_empty(), "a persistentvolumeclaim"),
            (items(&pod["spec"]["resourceClaims"]).next().is_some(), "a resourceclaim"),
        ] {
            if referred {
                return Err(write.forbidden(format!("node {node:?} can not create pods that reference {what}")));
            }
        }
        Ok(())
    }

    fn check_mirror_owner(&self, write: &Attributes<'_>, node: &str, pod: &Value) -> Result<(), Status> {
        let owners: Vec<&Value> = items(&pod["metadata"]["ownerReferences"]).collect();
        let refuse = |message: String| Err(write.forbidden(message));
        let owner = match owners[..] {
            [] => {
                return refuse(format!("node {node:?} can only create pods with an owner reference set to itself"));
            }
            [owner] => owner,
            _ => {
                return refuse(format!(
                    "node {node:?} can only create pods with a single owner reference set to itself"
                ));
            }
        };
        if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != node {
            return refuse(format!("node {node:?} can only create pods with an owner reference set to itself"));
        }
        if owner["controller"] != true {
            return refuse(format!(
                "node {node:?} can only create pods with a controller owner reference set to itself"
            ));
        }
        if owner["blockOwnerDeletion"] == true {
            return refuse(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
        }
        let nodes = GroupResource::new("", "nodes");
        let own = self.objects.get(&nodes, "", node).ok_or_else(|| Status::not_found(&nodes, node))?;
        let uid = owner["uid"].as_str().unwrap_or_default();
        if uid == own.uid() {
            Ok(())
        } else {
            refuse(format!("node {node:?} UID mismatch: expected {} got {uid}", own.uid()))
        }
    }

    /// A certificate is for a pod of the node, as whom that pod runs, from a signer that it names.
    fn check_certificate_request(&self, write: &Attributes<'_>, node: &str) -> Result<(), Status> {
        if write.operation != Operation::Create {
            return Err(write.forbidden(format!("unexpected operation {}", write.operation.as_str())));
        }
        if !write.subresource.is_empty() {
            return Err(write.forbidden(format!("unexpected subresource {}", write.subresource)));
        }
        let Some(request) = &write.object else {
            return Ok(());
        };
        let text = |field: &str| request["spec"][field].as_str().unwrap_or_default();
        if text("nodeName") != node {
            let name = text("nodeName");
            return Err(write.forbidden(format!(
                "PodCertificateRequest.Spec.NodeName={name:?}, which is not the requesting node {node:?}"
            )));
        }
        let pod = self.pod(write.namespace, text("podName"))?;
        let full = format!("{}/{}", write.namespace, text("podName"));
        if pod["spec"]["nodeName"] != node {
            return Err(write.forbidden(format!(
                "pod {full:?} is not running on node {node:?} named in the PodCertificateRequest"
            )));
        }
        if pod["metadata"]["annotations"].get(MIRROR_POD).is_some() {
            return Err(write.forbidden(format!("pod {full:?} is a mirror pod")));
        }
        let account = pod["spec"]["serviceAccountName"].as_str().unwrap_or_default();
        if text("serviceAccountName") != account {
            let asked = text("serviceAccountName");
            return Err(write.forbidden(format!(
                "PodCertificateRequest for pod {full:?} contains serviceAccountName ({asked:?}) that differs from running \
                 pod ({account:?})"
            )));
        }
        let uid = |resource: &str, namespace: &str, name: &str| {
            let found = self.objects.get(&GroupResource::new("", resource), namespace, name);
            found.map(|object| object.uid().to_owned()).unwrap_or_default()
        };
        for (what, asked, own) in [
            ("pod UID", text("podUID"), pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned()),
            ("node UID", text("nodeUID"), uid("nodes", "", node)),
            ("service account UID", text("serviceAccountUID"), uid("serviceaccounts", write.namespace, account)),
        ] {
            if asked != own {
                return Err(write.forbidden(format!(
                    "PodCertificateRequest for pod {full:?} names {what} {asked:?}, which differs from the running one ({own:?})"
                )));
            }
        }
        let mut sources = items(&pod["spec"]["volumes"]).flat_map(|volume| items(&volume["projected"]["sources"]));
        if sources.any(|source| source["podCertificate"]["signerName"] == text("signerName")) {
            return Ok(());
        }
        let signer = text("signerName");
        Err(write.forbidden(format!("no podCertificate volume of pod {full:?} names signer {signer:?}")))
    }

    fn check_token(&self, write: &Attributes<'_>, node: &str) -> Result<(), Status> {
        let Some(request) = &write.object else {
            return Ok(());
        };
        let bound = &request["spec"]["boundObjectRef"];
        let text = |field: &str| bound[field].as_str().unwrap_or_default();
        if text("apiVersion") != "v1" || text("kind") != "Pod" || text("name").is_empty() {
            return Err(write.forbidden("node requested token not bound to a pod"));
        }
        if text("uid").is_empty() {
            return Err(write.forbidden("node requested token with a pod binding without a uid"));
        }
        let pod = self.pod(write.namespace, text("name"))?;
        if pod["metadata"]["uid"] != text("uid") {
            let own = pod["metadata"]["uid"].as_str().unwrap_or_default();
            return Err(write.forbidden(format!("the UID in the bound object reference ({}) does not match the UID in record ({own}). The object might have been deleted and then recreated", text("uid"))));
        }
        if pod["spec"]["nodeName"] != node {
            return Err(write.forbidden("node requested token bound to a pod scheduled on a different node"));
        }
        let projected: BTreeSet<&str> = items(&pod["spec"]["volumes"])
            .flat_map(|volume| items(&volume["projected"]["sources"]))
            .filter_map(|source| source["serviceAccountToken"]["audience"].as_str())
            .collect();
        for audience in
            items(&request["spec"]["audiences"]).filter_map(Value::as_str).filter(|audience| !audience.is_empty())
        {
            if !projected.contains(audience) {
                return Err(write.forbidden(format!("audience {audience:?} not found in pod spec volume")));
            }
        }
        Ok(())
    }
}

fn check_node(write: &Attributes<'_>, node: &str) -> Result<(), Status> {
    let asked = if write.name.is_empty() { write.error_name() } else { write.name };
    if asked != node {
        return Err(write.forbidden(format!("node {node:?} is not allowed to modify node {asked:?}")));
    }
    let Some(new) = &write.object else {
        return Ok(());
    };
    let labels = |object: Option<&Value>| {
        object.and_then(|object| object["metadata"]["labels"].as_object()).cloned().unwrap_or_default()
    };
    let (now, before) = (labels(Some(new)), labels(write.old_object));
    let modified = now
        .keys()
        .chain(before.keys())
        .filter(|key| now.get(*key) != before.get(*key))
        .map(String::as_str)
        .collect::<BTreeSet<_>>();
    let listed = |keys: Vec<&str>| keys.join(", ");
    let Some(old) = write.old_object else {
        let forbidden: Vec<&str> = modified.into_iter().filter(|key| in_namespace(key, RESTRICTED_NAMESPACE)).collect();
        if !forbidden.is_empty() {
            return Err(write.forbidden(format!(
                "node {node:?} is not allowed to set the following labels: {}",
                listed(forbidden)
            )));
        }
        return Ok(());
    };
    let absent_is_empty = |value: &Value| {
        if value.is_null() { Value::Array(Vec::new()) } else { value.clone() }
    };
    if absent_is_empty(&old["metadata"]["ownerReferences"]) != absent_is_empty(&new["metadata"]["ownerReferences"]) {
        return Err(write.forbidden(format!("node {node:?} is not allowed to modify ownerReferences")));
    }
    if absent_is_empty(&old["spec"]["taints"]) != absent_is_empty(&new["spec"]["taints"]) {
        return Err(write.forbidden(format!("node {node:?} is not allowed to modify taints")));
    }
    let forbidden: Vec<&str> = modified.into_iter().filter(|key| !may_update_label(key)).collect();
    if !forbidden.is_empty() {
        return Err(write.forbidden(format!("node {node:?} is not allowed to modify labels: {}", listed(forbidden))));
    }
    Ok(())
}

fn in_namespace(key: &str, namespace: &str) -> bool {
    let own = key.split_once('/').map_or("", |(own, _)| own);
    own == namespace || own.strip_suffix(namespace).is_some_and(|rest| rest.ends_with('.'))
}

fn may_update_label(key: &str) -> bool {
    if in_namespace(key, RESTRICTED_NAMESPACE) {
        return false;
    }
    let reserved = in_namespace(key, "kubernetes.io") || in_namespace(key, "k8s.io");
    !reserved
        || KUBELET_LABELS.contains(&key)
        || KUBELET_NAMESPACES.iter().any(|namespace| in_namespace(key, namespace))
}

fn check_lease(write: &Attributes<'_>, node: &str) -> Result<(), Status> {
    if write.namespace != NODE_LEASES {
        return Err(write.forbidden(format!("can only access leases in the {NODE_LEASES:?} system namespace")));
    }
    check_own_name(write, node, "can only access node lease with the same name as the requesting node")
}

fn check_own_name(write: &Attributes<'_>, node: &str, message: &str) -> Result<(), Status> {
    if write.error_name() == node { Ok(()) } else { Err(write.forbidden(message)) }
}

/// A claim's status is the driver's to report, from the node; what it promises is not.
fn check_claim(write: &Attributes<'_>) -> Result<(), Status> {
    if write.subresource != "status" || write.operation != Operation::Update {
        return Err(write.forbidden(format!("unexpected operation {}", write.operation.as_str())));
    }
    let (Some(old), Some(new)) = (write.old_object, &write.object) else {
        return Ok(());
    };
    let rest = |claim: &Value| {
        let mut claim = claim.clone();
        if let Some(fields) = claim.as_object_mut() {
            fields.remove("status");
        }
        if let Some(metadata) = claim["metadata"].as_object_mut() {
            metadata.remove("managedFields");
        }
        claim
    };
    if rest(old) == rest(new) { Ok(()) } else { Err(write.forbidden("not allowed to update fields other than status")) }
}

#[async_trait]
impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn handles(&self, write: &Attributes<'_>) -> bool {
        write.operation != Operation::Connect && write.user.in_group(crate::identity::NODES)
    }

    async fn admit(&self, write: &mut Attributes<'_>) -> Result<(), Status> {
        let write = &*write;
        let Some(node) = write.user.node_name() else {
            return Err(write.forbidden(format!("could not determine node from user {:?}", write.user.name)));
        };
        match (write.group, write.resource) {
            ("", "pods") => self.check_pod(write, node),
            ("", "nodes") => check_node(write, node),
            ("", "persistentvolumeclaims") => check_claim(write),
            ("", "serviceaccounts") if write.subresource == "token" => self.check_token(write, node),
            ("certificates.k8s.io", "podcertificaterequests") => self.check_certificate_request(write, node),
            ("coordination.k8s.io", "leases") => check_lease(write, node),
            ("storage.k8s.io", "csinodes") => {
                check_own_name(write, node, "can only access CSINode with the same name as the requesting node")
            }
            ("resource.k8s.io", "resourceslices") => match write.object.as_ref().or(write.old_object) {
                Some(slice) if slice["spec"]["nodeName"] != node => {
                    Err(write.forbidden("can only create ResourceSlice with the same NodeName as the requesting node"))
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_a_kubelet_may_change() {
        for (key, expect) in [
            ("team", true),
            ("example.com/x", true),
            ("kubernetes.io/hostname", true),
            ("kubernetes.io/other", false),
            ("node-role.kubernetes.io/control-plane", false),
            ("node.kubernetes.io/anything", true),
            ("sub.kubelet.kubernetes.io/anything", true),
            ("node-restriction.kubernetes.io/x", false),
            ("a.node-restriction.kubernetes.io/x", false),
            ("notkubernetes.io/x", true),
        ] {
            assert_eq!(may_update_label(key), expect, "{key}");
        }
    }
}
