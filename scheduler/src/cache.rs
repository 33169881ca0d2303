//! The scheduler's picture of the cluster: nodes, the pods on them, and the pods that are assumed to be there because
//! their binding is on its way. (Kubernetes: `pkg/scheduler/backend/cache/cache.go`.)

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};

use crate::node_info::{NodeInfo, PodInfo};

/// What a cycle reads. Nodes are in the order of their names.
#[derive(Clone, Default)]
pub struct Snapshot {
    nodes: BTreeMap<String, Arc<NodeInfo>>,
    generation: u64,
    /// Labels of the namespaces, for terms that select by them.
    pub namespaces: Arc<BTreeMap<String, crate::node_info::Labels>>,
}

impl Snapshot {
    /// All nodes.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &Arc<NodeInfo>> {
        self.nodes.values()
    }

    /// One node.
    pub fn node(&self, name: &str) -> Option<&Arc<NodeInfo>> {
        self.nodes.get(name)
    }

    /// A snapshot of these nodes.
    pub fn of(nodes: impl IntoIterator<Item = NodeInfo>) -> Self {
        let nodes = nodes.into_iter().map(|node| (node.name().to_owned(), Arc::new(node))).collect();
        Self { nodes, ..Self::default() }
    }
}

struct Placed {
    node: String,
    /// Whether the API has not confirmed it yet.
    assumed: bool,
}

/// Nodes and pods as of now. Written by the event handlers and by the scheduling loop, under one lock.
#[derive(Default)]
pub struct Cache {
    nodes: BTreeMap<String, NodeInfo>,
    pods: BTreeMap<String, Placed>,
    /// Nodes that are gone since the last snapshot.
    removed: Vec<String>,
    /// Pods on nodes that are not here (yet): their node's name by uid is in `pods`, they themselves here.
    homeless: BTreeMap<String, Vec<Arc<PodInfo>>>,
    generation: u64,
}

impl Cache {
    /// How many nodes and pods it holds, and how many of these are only assumed to be where they are.
    pub fn sizes(&self) -> [(&'static str, usize); 3] {
        let assumed = self.pods.values().filter(|placed| placed.assumed).count();
        [("assumed_pods", assumed), ("nodes", self.nodes.len()), ("pods", self.pods.len())]
    }

    fn next_generation(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }

    /// Takes in a node, new or changed.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let generation = self.next_generation();
        let waiting = self.homeless.remove(&name).unwrap_or_default();
        let info = self.nodes.entry(name).and_modify(|info| info.set_node(node.clone()));
        let info = info.or_insert_with(|| NodeInfo::new(node));
        for pod in waiting {
            info.add_pod(pod);
        }
        info.generation = generation;
    }

    /// Forgets a node. Its pods are remembered: their deletion is still to come.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(info) = self.nodes.remove(name) {
            self.next_generation();
            self.removed.push(name.to_owned());
            if !info.pods.is_empty() {
                self.homeless.insert(name.to_owned(), info.pods);
            }
        }
    }

    /// Counts a pod in on the node that was chosen for it, before the API knows.
    pub fn assume(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.place(pod, node, true);
    }

    /// Takes an assumption back.
    pub fn forget(&mut self, uid: &str) {
        if self.pods.get(uid).is_some_and(|placed| placed.assumed) {
            self.remove_pod(uid);
        }
    }

    /// Takes in a bound pod, new, changed, or assumed so far.
    pub fn set_pod(&mut self, pod: &Arc<Pod>) {
        let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) else {
            return;
        };
        self.place(Arc::new(PodInfo::new(pod.clone())), &node, false);
    }

    fn place(&mut self, pod: Arc<PodInfo>, node: &str, assumed: bool) {
        let uid = pod.uid().to_owned();
        self.remove_pod(&uid);
        let generation = self.next_generation();
        match self.nodes.get_mut(node) {
            Some(info) => {
                info.add_pod(pod);
                info.generation = generation;
            }
            None => self.homeless.entry(node.to_owned()).or_default().push(pod),
        }
        self.pods.insert(uid, Placed { node: node.to_owned(), assumed });
    }

    /// Forgets a pod; says whether it was known.
    pub fn remove_pod(&mut self, uid: &str) -> bool {
        let Some(placed) = self.pods.remove(uid) else {
            return false;
        };
        let generation = self.next_generation();
        if let Some(info) = self.nodes.get_mut(&placed.node) {
            info.remove_pod(uid);
            info.generation = generation;
        } else if let Some(pods) = self.homeless.get_mut(&placed.node) {
            pods.retain(|pod| pod.uid() != uid);
            if pods.is_empty() {
                self.homeless.remove(&placed.node);
            }
        }
        true
    }

    /// Whether the pod is on a node, or assumed to be.
    pub fn has_pod(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// Brings `snapshot` up to date; costs what has changed.
    pub fn update(&mut self, snapshot: &mut Snapshot) {
        if snapshot.generation == self.generation {
            return;
        }
        for name in self.removed.drain(..) {
            snapshot.nodes.remove(&name);
        }
        for (name, info) in &self.nodes {
            if info.generation > snapshot.generation {
                snapshot.nodes.insert(name.clone(), Arc::new(info.clone()));
            }
        }
        snapshot.generation = self.generation;
    }
}
