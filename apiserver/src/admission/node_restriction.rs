//! NodeRestriction: a kubelet writes its own node and the pods bound to it, and cannot make itself more attractive
//! (`plugin/pkg/admission/noderestriction/admission.go`).

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use minik8s_api::{certificate_request::CertificateRequest, kinds::GroupResource, status::Status};
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
/// The signers of what makes a kubelet a node.
const NODE_SIGNERS: [&str; 2] = ["kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"];
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
                for (field, words) in [
                    ("resourceClaimStatuses", "resource claim statues"),
                    ("extendedResourceClaimStatus", "extended resource claim status"),
                    ("nodeAllocatableResourceClaimStatuses", "node allocatable resource claim statuses"),
                ] {
                    if old["status"][field] != new["status"][field] {
                        return Err(write.forbidden(format!("node {node:?} cannot update {words}")));
                    }
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
        match referred(pod) {
            Some(what) => Err(write.forbidden(format!("node {node:?} can not create pods that reference {what}"))),
            None => Ok(()),
        }
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

/// What of the API a pod refers to, if anything (`pkg/api/pod/util.go` `HasAPIObjectReference`).
fn referred(pod: &Value) -> Option<&'static str> {
    let references = References::of(pod);
    let of_volumes = || {
        items(&pod["spec"]["volumes"]).find_map(|volume| {
            let is = |source: &str| !volume[source].is_null();
            let projected = || {
                let sources = [
                    ("configMap", "configmaps (via projected volumes)"),
                    ("secret", "secrets (via projected volumes)"),
                    ("serviceAccountToken", "serviceaccounts (via projected volumes)"),
                    ("clusterTrustBundle", "clustertrustbundles"),
                    ("podCertificate", "podcertificates"),
                ];
                items(&volume["projected"]["sources"]).find_map(|source| {
                    sources.iter().find(|(name, _)| !source[*name].is_null()).map(|(_, words)| *words)
                })
            };
            let volumes = [
                ("csi", "csidrivers (via CSI volumes)"),
                ("glusterfs", "endpoints (via glusterFS volumes)"),
                ("persistentVolumeClaim", "persistentvolumeclaims"),
                ("ephemeral", "persistentvolumeclaims (via ephemeral volumes)"),
                ("azureFile", "secrets (via azureFile volumes)"),
            ];
            volumes.iter().find(|(source, _)| is(source)).map(|(_, words)| *words).or_else(projected)
        })
    };
    let known = [
        (!references.service_account.is_empty(), "serviceaccounts"),
        (!references.secrets.is_empty(), "secrets"),
        (!references.config_maps.is_empty(), "configmaps"),
        (items(&pod["spec"]["resourceClaims"]).next().is_some(), "resourceclaims"),
    ];
    known.into_iter().find(|(refers, _)| *refers).map(|(_, what)| what).or_else(of_volumes)
}

/// A kubelet asks for certificates of its own node only.
fn check_signing_request(write: &Attributes<'_>, node: &str) -> Result<(), Status> {
    let Some(request) = write.object.as_ref().filter(|_| write.operation == Operation::Create) else { return Ok(()) };
    let signer = request["spec"]["signerName"].as_str().unwrap_or_default();
    if !NODE_SIGNERS.contains(&signer) {
        return Ok(());
    }
    let parsed = CertificateRequest::from_base64(request["spec"]["request"].as_str().unwrap_or_default())
        .map_err(|error| write.forbidden(format!("unable to parse csr: {error}")))?;
    let own = format!("system:node:{node}");
    if parsed.subject.common_name == own {
        return Ok(());
    }
    Err(write.forbidden(format!("can only create a node CSR with CN={own}")))
}

fn check_node(write: &Attributes<'_>, node: &str) -> Result<(), Status> {
    let generates = write.object.as_ref().is_some_and(|node| !node["metadata"]["generateName"].is_null());
    let asked = if write.name.is_empty() { write.error_name() } else { write.name };
    // A name that is made up is not the node's own.
    if asked != node || (generates && write.operation == Operation::Create) {
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
    let forbidden: Vec<&str> = modified.into_iter().filter(|key| !a_kubelet_may_set(key)).collect();
    let Some(old) = write.old_object else {
        if new["spec"]["configSource"].is_object() {
            return Err(
                write.forbidden(format!("node {node:?} is not allowed to create pods with a non-nil configSource"))
            );
        }
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
    if new["spec"]["configSource"].is_object() && new["spec"]["configSource"] != old["spec"]["configSource"] {
        let words = "is not allowed to update configSource to a new non-nil configSource";
        return Err(write.forbidden(format!("node {node:?} {words}")));
    }
    if absent_is_empty(&old["spec"]["taints"]) != absent_is_empty(&new["spec"]["taints"]) {
        return Err(write.forbidden(format!("node {node:?} is not allowed to modify taints")));
    }
    if absent_is_empty(&old["metadata"]["ownerReferences"]) != absent_is_empty(&new["metadata"]["ownerReferences"]) {
        return Err(write.forbidden(format!("node {node:?} is not allowed to modify ownerReferences")));
    }
    if !forbidden.is_empty() {
        return Err(write.forbidden(format!("is not allowed to modify labels: {}", listed(forbidden))));
    }
    Ok(())
}

fn in_namespace(key: &str, namespace: &str) -> bool {
    let own = key.split_once('/').map_or("", |(own, _)| own);
    own == namespace || own.strip_suffix(namespace).is_some_and(|rest| rest.ends_with('.'))
}

/// Whether a node may set or change this label on itself.
pub fn a_kubelet_may_set(key: &str) -> bool {
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
    let generates = write.object.as_ref().is_some_and(|object| !object["metadata"]["generateName"].is_null());
    let is_own = write.error_name() == node && !(generates && write.operation == Operation::Create);
    if is_own { Ok(()) } else { Err(write.forbidden(message)) }
}

/// How large a claim's volume is, and what its driver says of it, is the node's to report; nothing else of it is.
fn check_claim(write: &Attributes<'_>, node: &str) -> Result<(), Status> {
    if write.subresource != "status" {
        return Err(write.forbidden("may only update PVC status"));
    }
    if write.operation != Operation::Update {
        return Err(write.forbidden(format!("unexpected operation {}", write.operation.as_str())));
    }
    let (Some(old), Some(new)) = (write.old_object, &write.object) else {
        return Ok(());
    };
    let rest = |claim: &Value| {
        let mut claim = claim.clone();
        for (part, fields) in [
            ("status", &["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"][..]),
            ("metadata", &["managedFields", "resourceVersion"]),
        ] {
            if let Some(part) = claim.get_mut(part).and_then(Value::as_object_mut) {
                fields.iter().for_each(|field| drop(part.remove(*field)));
            }
        }
        claim
    };
    if rest(old) == rest(new) {
        return Ok(());
    }
    let words = "is not allowed to update fields other than status.quantity and status.conditions";
    Err(write.forbidden(format!("node {node:?} {words}")))
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
            ("", "persistentvolumeclaims") => check_claim(write, node),
            ("", "serviceaccounts") if write.subresource == "token" => self.check_token(write, node),
            ("certificates.k8s.io", "certificatesigningrequests") => check_signing_request(write, node),
            ("certificates.k8s.io", "podcertificaterequests") => self.check_certificate_request(write, node),
            ("coordination.k8s.io", "leases") => check_lease(write, node),
            ("storage.k8s.io", "csinodes") => {
                check_own_name(write, node, "can only access CSINode with the same name as the requesting node")
            }
            ("resource.k8s.io", "resourceslices") => {
                let (slice, verb) = match write.operation {
                    Operation::Create => (write.object.as_ref(), "create"),
                    Operation::Delete => (write.old_object, "delete"),
                    // Those of other nodes are not allowed to it in the first place.
                    _ => return Ok(()),
                };
                if slice.is_none_or(|slice| slice["spec"]["nodeName"] == node) {
                    return Ok(());
                }
                let words = "ResourceSlice with the same NodeName as the requesting node";
                Err(write.forbidden(format!("can only {verb} {words}")))
            }
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
            assert_eq!(a_kubelet_may_set(key), expect, "{key}");
        }
    }
}
