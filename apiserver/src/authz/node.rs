//! The Node authorizer: what a kubelet may do is decided by the pods bound to its node.
//!
//! | a node may | if |
//! |---|---|
//! | get secrets, configmaps, persistentvolumeclaims, resourceclaims | a pod on it refers to them |
//! | get persistentvolumes | a claim of a pod on it is bound to them |
//! | get serviceaccounts, create serviceaccounts/token | a pod on it runs as the account |
//! | get podcertificaterequests; list and watch them with the field selector `spec.nodeName={itself}` | they are for a pod on it |
//! | get volumeattachments | they attach to it |
//! | get pods; list and watch them with the field selector `spec.nodeName={itself}` | they are bound to it |
//! | read and write its Node, Lease and CSINode | it is its own |
//! | read and write resourceslices; list, watch and delete them with the field selector `spec.nodeName={itself}` | they are of it |
//!
//! Everything else that nodes do (events, reviews, …) has static rules: those of the ClusterRole `system:node`, which hold
//! for nodes without a binding. What of an object a node may change is for the admission plugin NodeRestriction.
//!
//! Mirrors `plugin/pkg/auth/authorizer/node/node_authorizer.go`. Kubernetes keeps a graph of all pods; here the pods of the
//! one node are looked at when it asks, and what they refer to is remembered.

use std::{collections::BTreeMap, sync::Arc};

use minik8s_api::{kinds::GroupResource, selector::FieldSelector};
use parking_lot::Mutex;
use serde_json::Value;

use super::{Attributes, Authorizer, Rbac, UserRules, Verdict};
use crate::{
    cache::{Cache, Object, Objects, Selection},
    identity::UserInfo,
};

/// Pods whose references are remembered; the memory starts anew when it is full.
const MAX_REMEMBERED_PODS: usize = 50_000;
/// The namespace of the leases by which nodes say that they are alive.
pub const NODE_LEASES: &str = "kube-node-lease";
const NODE_ROLE: &str = "system:node";

/// Finds the pods bound to a node without looking at others.
pub trait PodsOnNode: Send + Sync {
    /// The pods whose `spec.nodeName` is `node`.
    fn pods_on(&self, node: &str) -> Vec<Arc<Object>>;
}

impl PodsOnNode for Cache {
    fn pods_on(&self, node: &str) -> Vec<Arc<Object>> {
        let kinds = self.kinds();
        let pods = kinds.by_resource("", "v1", "pods").and_then(|kind| self.resource(kind));
        let mut selection = Selection::everything("");
        selection.indexed = Some(node.to_owned());
        let mut found = pods.map(|pods| pods.candidates(&selection, None).objects).unwrap_or_default();
        found.retain(|pod| pod.indexed() == Some(node));
        found
    }
}

/// Allows nodes what they need for the pods they run.
pub struct NodeAuthorizer {
    objects: Arc<dyn Objects>,
    pods: Arc<dyn PodsOnNode>,
    rbac: Arc<Rbac>,
    /// By the pod's UID: its revision, and what it refers to.
    references: Mutex<BTreeMap<String, (u64, Arc<References>)>>,
}

/// Names of what a pod refers to, in its own namespace.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct References {
    /// Secrets: volumes, environment, image pulls.
    pub secrets: Vec<String>,
    /// ConfigMaps: volumes, environment.
    pub config_maps: Vec<String>,
    /// PersistentVolumeClaims, those of ephemeral volumes included.
    pub claims: Vec<String>,
    /// ResourceClaims, those made from templates included.
    pub resource_claims: Vec<String>,
    /// The account.
    pub service_account: String,
}

impl References {
    /// What a pod refers to (`pkg/api/v1/pod/util.go` `VisitPodSecretNames`, `VisitPodConfigmapNames`).
    pub fn of(pod: &Value) -> References {
        let mut found = References::default();
        let spec = &pod["spec"];
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        found.service_account = text(&spec["serviceAccountName"]).unwrap_or_default();
        found.secrets.extend(items(&spec["imagePullSecrets"]).filter_map(|secret| text(&secret["name"])));
        for container in
            ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|list| items(&spec[list]))
        {
            for source in items(&container["env"]).map(|variable| &variable["valueFrom"]) {
                found.secrets.extend(text(&source["secretKeyRef"]["name"]));
                found.config_maps.extend(text(&source["configMapKeyRef"]["name"]));
            }
            for source in items(&container["envFrom"]) {
                found.secrets.extend(text(&source["secretRef"]["name"]));
                found.config_maps.extend(text(&source["configMapRef"]["name"]));
            }
        }
        for volume in items(&spec["volumes"]) {
            found.add_volume(volume, pod["metadata"]["name"].as_str().unwrap_or_default());
        }
        found
            .resource_claims
            .extend(items(&spec["resourceClaims"]).filter_map(|claim| text(&claim["resourceClaimName"])));
        found.resource_claims.extend(
            items(&pod["status"]["resourceClaimStatuses"]).filter_map(|claim| text(&claim["resourceClaimName"])),
        );
        found
    }

    fn add_volume(&mut self, volume: &Value, pod: &str) {
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        self.config_maps.extend(text(&volume["configMap"]["name"]));
        for source in items(&volume["projected"]["sources"]) {
            self.secrets.extend(text(&source["secret"]["name"]));
            self.config_maps.extend(text(&source["configMap"]["name"]));
        }
        // Each kind of volume names its secret under one of these.
        for source in
            volume.as_object().into_iter().flat_map(|volume| volume.values()).filter(|source| source.is_object())
        {
            self.secrets.extend(text(&source["secretName"]));
            self.secrets.extend(text(&source["secretRef"]["name"]));
            self.secrets.extend(text(&source["nodePublishSecretRef"]["name"]));
        }
        self.claims.extend(text(&volume["persistentVolumeClaim"]["claimName"]));
        if volume["ephemeral"].is_object() {
            self.claims.push(format!("{pod}-{}", volume["name"].as_str().unwrap_or_default()));
        }
    }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

impl NodeAuthorizer {
    /// Looks at pods through `pods`, at the rest through `objects`; static rules come from `rbac`'s role `system:node`.
    pub fn new(objects: Arc<dyn Objects>, pods: Arc<dyn PodsOnNode>, rbac: Arc<Rbac>) -> NodeAuthorizer {
        NodeAuthorizer { objects, pods, rbac, references: Mutex::default() }
    }

    fn references(&self, pod: &Object) -> Arc<References> {
        if let Some((revision, references)) = self.references.lock().get(pod.uid())
            && *revision == pod.revision()
        {
            return Arc::clone(references);
        }
        let references = Arc::new(References::of(&pod.value()));
        let mut remembered = self.references.lock();
        if remembered.len() >= MAX_REMEMBERED_PODS {
            remembered.clear();
        }
        remembered.insert(pod.uid().to_owned(), (pod.revision(), Arc::clone(&references)));
        references
    }

    /// Whether a pod of the node in `namespace` passes a test of its references.
    fn any_pod(&self, node: &str, namespace: &str, test: impl Fn(&References) -> bool) -> bool {
        self.pods.pods_on(node).iter().any(|pod| pod.namespace() == namespace && test(&self.references(pod)))
    }

    fn is_related(&self, node: &str, attributes: &Attributes<'_>) -> bool {
        let Attributes { namespace, name, resource, .. } = *attributes;
        let named = |list: &[String]| list.iter().any(|own| own == name);
        match resource {
            "secrets" => {
                self.any_pod(node, namespace, |pod| named(&pod.secrets)) || self.secret_of_volume(node, namespace, name)
            }
            "configmaps" => self.any_pod(node, namespace, |pod| named(&pod.config_maps)),
            "persistentvolumeclaims" => self.any_pod(node, namespace, |pod| named(&pod.claims)),
            "resourceclaims" => self.any_pod(node, namespace, |pod| named(&pod.resource_claims)),
            "serviceaccounts" => self.any_pod(node, namespace, |pod| pod.service_account == name),
            "persistentvolumes" => self
                .volume_claim(name)
                .is_some_and(|(namespace, claim)| self.any_pod(node, &namespace, |pod| pod.claims.contains(&claim))),
            "volumeattachments" => {
                let attachment = self.objects.get(&GroupResource::new("storage.k8s.io", "volumeattachments"), "", name);
                attachment.is_some_and(|attachment| attachment.value()["spec"]["nodeName"] == node)
            }
            "podcertificaterequests" => self
                .objects
                .get(&GroupResource::new("certificates.k8s.io", "podcertificaterequests"), namespace, name)
                .is_some_and(|request| request.value()["spec"]["nodeName"] == node),
            "resourceslices" => self
                .objects
                .get(&GroupResource::new("resource.k8s.io", "resourceslices"), "", name)
                .is_some_and(|slice| slice.value()["spec"]["nodeName"] == node),
            "pods" => self
                .objects
                .get(&GroupResource::new("", "pods"), namespace, name)
                .is_some_and(|pod| pod.indexed() == Some(node)),
            _ => false,
        }
    }

    /// Namespace and name of the claim a volume is bound to.
    fn volume_claim(&self, volume: &str) -> Option<(String, String)> {
        let volume = self.objects.get(&GroupResource::new("", "persistentvolumes"), "", volume)?.value();
        let claim = &volume["spec"]["claimRef"];
        Some((claim["namespace"].as_str()?.to_owned(), claim["name"].as_str()?.to_owned()))
    }

    /// Whether a volume that a pod of the node uses is mounted with this secret.
    fn secret_of_volume(&self, node: &str, namespace: &str, name: &str) -> bool {
        let claims = GroupResource::new("", "persistentvolumeclaims");
        let volumes = GroupResource::new("", "persistentvolumes");
        self.pods.pods_on(node).iter().any(|pod| {
            self.references(pod).claims.iter().any(|claim| {
                let Some(claim) = self.objects.get(&claims, pod.namespace(), claim) else {
                    return false;
                };
                let claim = claim.value();
                let Some(volume) =
                    claim["spec"]["volumeName"].as_str().and_then(|volume| self.objects.get(&volumes, "", volume))
                else {
                    return false;
                };
                let volume = volume.value();
                let sources = volume["spec"].as_object().into_iter().flat_map(|spec| spec.values());
                sources
                    .flat_map(|source| {
                        ["secretRef", "nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef"]
                            .map(|field| &source[field])
                    })
                    .any(|secret| {
                        secret["name"] == name && secret["namespace"].as_str().unwrap_or(pod.namespace()) == namespace
                    })
            })
        })
    }

    fn read(&self, node: &str, attributes: &Attributes<'_>, verbs: &[&str]) -> Verdict {
        if !verbs.contains(&attributes.verb) {
            return Verdict::no_opinion(if verbs.len() == 1 {
                "can only get individual resources of this type"
            } else {
                "can only read resources of this type"
            });
        }
        if !attributes.subresource.is_empty() {
            return Verdict::no_opinion("cannot read subresource");
        }
        self.related(node, attributes)
    }

    fn related(&self, node: &str, attributes: &Attributes<'_>) -> Verdict {
        if !attributes.name.is_empty() && self.is_related(node, attributes) {
            return Verdict::allow("");
        }
        Verdict::no_opinion(format!("no relationship found between node '{node}' and this object"))
    }

    fn service_account(&self, node: &str, attributes: &Attributes<'_>) -> Verdict {
        if attributes.verb == "get" && attributes.subresource.is_empty() {
            return self.related(node, attributes);
        }
        let token = attributes.verb == "create" && attributes.subresource == "token";
        if !token || attributes.namespace.is_empty() || attributes.name.is_empty() {
            return Verdict::no_opinion("can only create tokens for individual service accounts");
        }
        self.related(node, attributes)
    }

    fn certificate_request(&self, node: &str, attributes: &Attributes<'_>) -> Verdict {
        match (attributes.subresource, attributes.verb) {
            // NodeRestriction sees to it that these are for pods on the node.
            ("", "create") => Verdict::allow(""),
            ("", "get") => self.related(node, attributes),
            ("", "list" | "watch") if selects_node(node, attributes) => Verdict::allow(""),
            ("", "list" | "watch") => {
                Verdict::no_opinion("can only list/watch podcertificaterequests with nodeName field selector")
            }
            ("", verb) => Verdict::no_opinion(format!("nodes may not {verb} podcertificaterequests")),
            _ => Verdict::no_opinion("nodes may not access the status subresource of PodCertificateRequests"),
        }
    }

    fn resource_slice(&self, node: &str, attributes: &Attributes<'_>) -> Verdict {
        match (attributes.subresource, attributes.verb) {
            // NodeRestriction sees to it that it is of the node.
            ("", "create") => Verdict::allow(""),
            ("", "get" | "update" | "patch" | "delete") => self.related(node, attributes),
            ("", "list" | "watch" | "deletecollection") if selects_node(node, attributes) => Verdict::allow(""),
            ("", "list" | "watch" | "deletecollection") => {
                Verdict::no_opinion("can only list/watch/deletecollection resourceslices with nodeName field selector")
            }
            ("", _) => Verdict::no_opinion(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, \
                 deletecollection",
            ),
            _ => Verdict::no_opinion("cannot authorize ResourceSlice subresources"),
        }
    }

    fn pod(&self, node: &str, attributes: &Attributes<'_>) -> Verdict {
        match (attributes.subresource, attributes.verb) {
            ("", "get") => self.read(node, attributes, &["get"]),
            ("", "list" | "watch") if selects_node(node, attributes) => Verdict::allow(""),
            ("", "list" | "watch") if !attributes.name.is_empty() => self.related(node, attributes),
            ("", "list" | "watch") => Verdict::no_opinion("can only list/watch pods with spec.nodeName field selector"),
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Verdict::allow(""),
            _ => Verdict::no_opinion(""),
        }
    }
}

/// Whether only objects of the node are asked for.
fn selects_node(node: &str, attributes: &Attributes<'_>) -> bool {
    FieldSelector::parse(attributes.field_selector)
        .is_ok_and(|selector| selector.exact_match("spec.nodeName") == Some(node))
}

fn own_node(node: &str, attributes: &Attributes<'_>) -> Verdict {
    match (attributes.subresource, attributes.verb) {
        // NodeRestriction sees to it that these are about the node itself.
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Verdict::allow(""),
        ("", "get" | "list" | "watch") if attributes.name == node => Verdict::allow(""),
        ("", "get" | "list" | "watch") if attributes.name.is_empty() => {
            Verdict::no_opinion(format!("node '{node}' cannot read all nodes, only its own Node object"))
        }
        ("", "get" | "list" | "watch") => {
            Verdict::no_opinion(format!("node '{node}' cannot read '{}', only its own Node object", attributes.name))
        }
        _ => Verdict::no_opinion(""),
    }
}

fn own_lease(node: &str, attributes: &Attributes<'_>) -> Verdict {
    if !matches!(attributes.verb, "get" | "create" | "update" | "patch" | "delete") {
        return Verdict::no_opinion("can only get, create, update, patch, or delete a node lease");
    }
    if attributes.namespace != NODE_LEASES {
        return Verdict::no_opinion(format!("can only access leases in the {NODE_LEASES:?} system namespace"));
    }
    if attributes.verb != "create" && attributes.name != node {
        return Verdict::no_opinion("can only access node lease with the same name as the requesting node");
    }
    Verdict::allow("")
}

fn own_csi_node(node: &str, attributes: &Attributes<'_>) -> Verdict {
    if !matches!(attributes.verb, "get" | "create" | "update" | "patch" | "delete") {
        return Verdict::no_opinion("can only get, create, update, patch, or delete a CSINode");
    }
    if !attributes.subresource.is_empty() {
        return Verdict::no_opinion("cannot authorize CSINode subresources");
    }
    if attributes.verb != "create" && attributes.name != node {
        return Verdict::no_opinion("can only access CSINode with the same name as the requesting node");
    }
    Verdict::allow("")
}

impl Authorizer for NodeAuthorizer {
    fn authorize(&self, attributes: &Attributes<'_>) -> Verdict {
        let Some(node) = attributes.user.node_name() else {
            return Verdict::no_opinion("");
        };
        if attributes.is_resource {
            match (attributes.group, attributes.resource) {
                ("", "secrets" | "configmaps") => {
                    return self.read(node, attributes, &["get", "list", "watch"]);
                }
                ("", "persistentvolumeclaims") if attributes.subresource == "status" => {
                    let update = matches!(attributes.verb, "update" | "patch");
                    return if update {
                        self.related(node, attributes)
                    } else {
                        Verdict::no_opinion("can only update status of this type")
                    };
                }
                ("", "persistentvolumeclaims" | "persistentvolumes")
                | ("storage.k8s.io", "volumeattachments")
                | ("resource.k8s.io", "resourceclaims") => {
                    return self.read(node, attributes, &["get"]);
                }
                ("", "serviceaccounts") => return self.service_account(node, attributes),
                ("certificates.k8s.io", "podcertificaterequests") => return self.certificate_request(node, attributes),
                ("", "nodes") => return own_node(node, attributes),
                ("", "pods") => return self.pod(node, attributes),
                ("resource.k8s.io", "resourceslices") => return self.resource_slice(node, attributes),
                ("coordination.k8s.io", "leases") => return own_lease(node, attributes),
                ("storage.k8s.io", "csinodes") => return own_csi_node(node, attributes),
                _ => {}
            }
        }
        let allowed = self.rbac.cluster_role(NODE_ROLE).iter().any(|rule| rule.allows(attributes));
        if allowed { Verdict::allow("") } else { Verdict::no_opinion("") }
    }

    fn rules_for(&self, user: &UserInfo, _: &str) -> UserRules {
        let Some(_) = user.node_name() else {
            return UserRules::default();
        };
        UserRules {
            incomplete: true,
            errors: vec!["node authorizer does not support user rule resolution".to_owned()],
            ..UserRules::default()
        }
    }
}
