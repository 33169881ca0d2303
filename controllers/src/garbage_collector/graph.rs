//! Who owns whom, by UID. Pure: events in, the UIDs that somebody should look at out.
//! (Kubernetes: `pkg/controller/garbagecollector/graph.go` and `graph_builder.go`.)

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::discovery::Resource;

/// The finalizer of an object that goes after its dependents.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an object that leaves its dependents behind.
pub(super) const ORPHAN: &str = "orphan";

/// The UID of an object.
pub(super) type Uid = String;

/// An object, as much of it as matters here.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) resource: Arc<Resource>,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) owners: Vec<OwnerReference>,
    /// It was told to go.
    pub(super) deleting: bool,
    /// It was told to go, after its dependents.
    pub(super) waits_for_dependents: bool,
    /// It was told to go, and to leave its dependents behind.
    pub(super) orphans_dependents: bool,
}

impl Node {
    pub(super) fn new(resource: Arc<Resource>, meta: &ObjectMeta) -> Self {
        let deleting = meta.deletion_timestamp.is_some();
        Self {
            resource,
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            deleting,
            waits_for_dependents: deleting && has_finalizer(meta, FOREGROUND),
            orphans_dependents: deleting && has_finalizer(meta, ORPHAN),
        }
    }

    /// The path of the object.
    pub(super) fn path(&self) -> String {
        let namespace = Some(self.namespace.as_str()).filter(|namespace| !namespace.is_empty());
        format!("{}/{}", self.resource.path(namespace), self.name)
    }

    /// Whether the object is the one that `owner` names, seen from an object of `namespace`.
    pub(super) fn is(&self, owner: &OwnerReference, namespace: &str) -> bool {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        self.resource.group() == group
            && self.resource.kind == owner.kind
            && self.name == owner.name
            && (self.namespace.is_empty() || self.namespace == namespace)
    }

    /// Whether the object keeps the owner with this UID from going before it.
    fn blocks(&self, owner: &str) -> bool {
        let mut owners = self.owners.iter();
        owners.any(|own| own.uid == owner && own.block_owner_deletion == Some(true))
    }
}

/// Whether an object has this finalizer.
pub(super) fn has_finalizer(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.finalizers.iter().flatten().any(|own| own == finalizer)
}

/// All objects that were seen, and whose dependents they are.
#[derive(Default)]
pub(super) struct Graph {
    nodes: BTreeMap<Uid, Node>,
    /// Dependents by the UID of their owner, whether or not the owner was seen.
    dependents: BTreeMap<Uid, BTreeSet<Uid>>,
}

impl Graph {
    pub(super) fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// The dependents of an object that were seen.
    pub(super) fn dependents(&self, uid: &str) -> Vec<(Uid, Node)> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| Some((uid.clone(), self.nodes.get(uid)?.clone()))).collect()
    }

    /// The dependents that keep an object from going before them.
    pub(super) fn blocking(&self, uid: &str) -> Vec<(Uid, Node)> {
        let mut dependents = self.dependents(uid);
        dependents.retain(|(_, node)| node.blocks(uid));
        dependents
    }

    /// Takes in an object that came or changed; answers what is to be looked at.
    pub(super) fn put(&mut self, uid: Uid, node: Node) -> Vec<Uid> {
        let mut look = BTreeSet::new();
        let old = self.nodes.remove(&uid);
        for owner in old.iter().flat_map(|old| &old.owners) {
            let kept = node.owners.iter().find(|own| own.uid == owner.uid);
            if kept.is_none() {
                self.unlink(&owner.uid, &uid);
            }
            // An owner that waits for this object waits no longer.
            if kept.and_then(|own| own.block_owner_deletion) != owner.block_owner_deletion && self.waits(&owner.uid) {
                look.insert(owner.uid.clone());
            }
        }
        for owner in &node.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
            // An owner that was not seen, or is not what the reference says, must be asked for.
            let known = self.nodes.get(&owner.uid);
            let solid = known.is_some_and(|known| known.is(owner, &node.namespace) && !known.waits_for_dependents);
            let changed = old.as_ref().is_none_or(|old| old.owners != node.owners);
            if !solid && changed {
                look.insert(uid.clone());
            }
        }
        let began = |flag: fn(&Node) -> bool| flag(&node) && !old.as_ref().is_some_and(flag);
        if began(|node| node.orphans_dependents) {
            look.insert(uid.clone());
        }
        if began(|node| node.waits_for_dependents) {
            look.insert(uid.clone());
            look.extend(self.dependents.get(&uid).into_iter().flatten().cloned());
        }
        self.nodes.insert(uid, node);
        look.into_iter().collect()
    }

    /// Takes out an object that is gone; answers what is to be looked at.
    pub(super) fn remove(&mut self, uid: &str) -> Vec<Uid> {
        let Some(node) = self.nodes.remove(uid) else {
            return Vec::new();
        };
        let mut look: BTreeSet<Uid> = self.dependents.get(uid).cloned().unwrap_or_default();
        for owner in &node.owners {
            self.unlink(&owner.uid, uid);
            if self.waits(&owner.uid) {
                look.insert(owner.uid.clone());
            }
        }
        look.into_iter().collect()
    }

    /// Takes out all objects of a resource that is served no longer; answers what is to be looked at.
    pub(super) fn forget(&mut self, resource: &Resource) -> Vec<Uid> {
        let gone = self.nodes.iter().filter(|(_, node)| *node.resource == *resource);
        let gone: Vec<Uid> = gone.map(|(uid, _)| uid.clone()).collect();
        gone.iter().flat_map(|uid| self.remove(uid)).collect()
    }

    fn waits(&self, uid: &str) -> bool {
        self.nodes.get(uid).is_some_and(|node| node.waits_for_dependents)
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resource(kind: &str) -> Arc<Resource> {
        Arc::new(Resource {
            api_version: "v1".to_owned(),
            plural: format!("{}s", kind.to_lowercase()),
            kind: kind.to_owned(),
            namespaced: true,
            deletes_collections: true,
        })
    }

    fn node(kind: &str, name: &str, owners: &[&str], more: serde_json::Value) -> Node {
        let owners: Vec<_> = owners
            .iter()
            .map(|owner| json!({"apiVersion": "v1", "kind": "Owner", "name": owner, "uid": owner, "blockOwnerDeletion": true}))
            .collect();
        let mut meta = json!({"name": name, "namespace": "default", "ownerReferences": owners});
        meta.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Node::new(resource(kind), &serde_json::from_value(meta).unwrap())
    }

    #[test]
    fn a_dependent_is_looked_at_when_its_owner_is_unknown_and_when_it_goes() {
        let mut graph = Graph::default();
        assert_eq!(graph.put("early".into(), node("Pod", "early", &["o"], json!({}))), ["early"]);
        assert!(graph.put("o".into(), node("Owner", "o", &[], json!({}))).is_empty());
        assert!(graph.put("late".into(), node("Pod", "late", &["o"], json!({}))).is_empty());
        assert!(graph.put("late".into(), node("Pod", "late", &["o"], json!({"labels": {"a": "b"}}))).is_empty());
        assert_eq!(graph.remove("o"), ["early", "late"]);
    }

    #[test]
    fn an_owner_that_goes_last_is_looked_at_as_its_dependents_go() {
        let mut graph = Graph::default();
        graph.put("o".into(), node("Owner", "o", &[], json!({})));
        graph.put("a".into(), node("Pod", "a", &["o"], json!({})));
        let ends = json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [FOREGROUND]});
        assert_eq!(graph.put("o".into(), node("Owner", "o", &[], ends)), ["a", "o"]);
        assert_eq!(graph.blocking("o").len(), 1);
        assert_eq!(graph.remove("a"), ["o"]);
        assert!(graph.blocking("o").is_empty());
    }

    #[test]
    fn an_owner_of_another_namespace_is_no_owner() {
        let mut graph = Graph::default();
        graph.put("o".into(), node("Owner", "o", &[], json!({"namespace": "elsewhere"})));
        assert_eq!(graph.put("a".into(), node("Pod", "a", &["o"], json!({}))), ["a"]);
    }
}
