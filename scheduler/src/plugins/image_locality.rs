//! A node that has the pod's images already is better, the more so the larger they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cache::Snapshot;
use crate::framework::{ClusterEvent, CycleState, MAX_NODE_SCORE, Plugin, PreScore, Score};
use crate::node_info::{NodeInfo, PodInfo};

/// The plugin's name.
pub const NAME: &str = "ImageLocality";

/// Images smaller than this in sum do not count.
const MIN_BYTES: i64 = 23 << 20;
/// More than this a container does not add.
const MAX_BYTES_A_CONTAINER: i64 = 1000 << 20;

/// See the module.
pub struct ImageLocality;

/// On how many nodes each of the pod's images is, and how many nodes there are.
struct Spread {
    nodes: BTreeMap<String, usize>,
    all: usize,
}

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        NAME
    }
    fn events(&self) -> &'static [ClusterEvent] {
        &[]
    }
    fn pre_score(&self) -> Option<&dyn PreScore> {
        Some(self)
    }
    fn score(&self) -> Option<&dyn Score> {
        Some(self)
    }
}

fn images(pod: &PodInfo) -> Vec<String> {
    let containers = pod.pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
    containers.filter_map(|container| container.image.as_deref()).map(normalized).collect()
}

/// With the tag that is meant where none is given.
fn normalized(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    if name.contains(':') || image.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}

/// The size of an image on a node; nodes list full names (`docker.io/library/nginx:1.27`), pods often short ones.
fn size_on(node: &NodeInfo, image: &str) -> i64 {
    let known = |name: &str| node.images.get(name).copied();
    known(image)
        .or_else(|| known(&format!("docker.io/{image}")))
        .or_else(|| known(&format!("docker.io/library/{image}")))
        .unwrap_or(0)
}

impl PreScore for ImageLocality {
    fn pre_score(&self, state: &mut CycleState, pod: &PodInfo, snapshot: &Snapshot, _: &[Arc<NodeInfo>]) {
        let mut nodes = BTreeMap::new();
        for image in images(pod) {
            let count = snapshot.nodes().filter(|node| size_on(node, &image) > 0).count();
            nodes.insert(image, count);
        }
        state.write(NAME, Spread { nodes, all: snapshot.nodes().len().max(1) });
    }
}

impl Score for ImageLocality {
    fn weight(&self) -> i64 {
        1
    }

    fn score(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let Some(spread) = state.read::<Spread>(NAME) else {
            return 0;
        };
        let images = images(pod);
        let max = MAX_BYTES_A_CONTAINER * images.len().max(1) as i64;
        // An image that few nodes have would draw all pods to them, so it counts by its spread.
        let bytes: i64 = images
            .iter()
            .map(|image| {
                let share = spread.nodes.get(image).copied().unwrap_or(0) as f64 / spread.all as f64;
                (size_on(node, image) as f64 * share) as i64
            })
            .sum();
        MAX_NODE_SCORE * (bytes.clamp(MIN_BYTES, max) - MIN_BYTES) / (max - MIN_BYTES)
    }
}
