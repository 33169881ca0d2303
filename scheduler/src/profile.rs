//! Profiles: which plugins decide about the pods that ask for a scheduler by name.
//!
//! A profile holds the plugins of [`crate::plugins`] in their order. Where a configuration switches one off at an
//! extension point, or weighs its score otherwise, it is wrapped ([`Restricted`]); the framework sees a plugin that
//! implements less.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use minik8s_client::Lister;

use crate::framework::{ClusterEvent, CycleState, Filter, Plugin, PostFilter, PreEnqueue, PreFilter, PreScore, Score};
use crate::node_info::{NodeInfo, PodInfo};
use crate::plugins::default_plugins;
use crate::plugins::node_resources_fit::{self, NodeResourcesFit, ScoringStrategy};
use crate::queue;
use crate::scheduler::SCHEDULER_NAME;

/// An extension point at which plugins can be switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// [`PreEnqueue`].
    PreEnqueue,
    /// [`PreFilter`].
    PreFilter,
    /// [`Filter`].
    Filter,
    /// [`PostFilter`].
    PostFilter,
    /// [`PreScore`].
    PreScore,
    /// [`Score`].
    Score,
}

impl Point {
    /// All of them, by their names in configurations.
    pub const ALL: [(&'static str, Point); 6] = [
        ("preEnqueue", Point::PreEnqueue),
        ("preFilter", Point::PreFilter),
        ("filter", Point::Filter),
        ("postFilter", Point::PostFilter),
        ("preScore", Point::PreScore),
        ("score", Point::Score),
    ];

    /// Whether a plugin has something to do there.
    pub fn is_of(self, plugin: &dyn Plugin) -> bool {
        match self {
            Point::PreEnqueue => plugin.pre_enqueue().is_some(),
            Point::PreFilter => plugin.pre_filter().is_some(),
            Point::Filter => plugin.filter().is_some(),
            Point::PostFilter => plugin.post_filter().is_some(),
            Point::PreScore => plugin.pre_score().is_some(),
            Point::Score => plugin.score().is_some(),
        }
    }
}

/// One profile.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// The name by which pods ask for it, and under which it speaks in events.
    pub scheduler_name: String,
    /// Where plugins are switched off, by plugin.
    pub off: BTreeMap<&'static str, BTreeSet<Point>>,
    /// How much scores count, where that is not the plugin's own choice.
    pub weights: BTreeMap<&'static str, i64>,
    /// How NodeResourcesFit compares nodes.
    pub fit: ScoringStrategy,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            scheduler_name: SCHEDULER_NAME.to_owned(),
            off: BTreeMap::new(),
            weights: BTreeMap::new(),
            fit: ScoringStrategy::default(),
        }
    }
}

impl Profile {
    /// Its plugins, in order.
    pub fn plugins(&self, claims: Option<Lister<PersistentVolumeClaim>>) -> Vec<Box<dyn Plugin>> {
        let plugins = default_plugins(claims).into_iter().map(|plugin| match plugin.name() {
            node_resources_fit::NAME => Box::new(NodeResourcesFit { strategy: self.fit.clone() }),
            _ => plugin,
        });
        let restricted = plugins.map(|plugin| {
            let off = self.off.get(plugin.name()).cloned().unwrap_or_default();
            let weight = self.weights.get(plugin.name()).copied();
            if off.is_empty() && weight.is_none() {
                return plugin;
            }
            Box::new(Restricted { plugin, off, weight })
        });
        restricted.collect()
    }
}

/// What a scheduler is told when it is made.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// At least one, with a name each.
    pub profiles: Vec<Profile>,
    /// How many of the nodes are looked at before the best is chosen, in percent; 0 lets the scheduler choose by the
    /// cluster's size.
    pub percentage_of_nodes_to_score: u32,
    /// The first and the longest pause of a pod that did not fit.
    pub backoff: (Duration, Duration),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            profiles: vec![Profile::default()],
            percentage_of_nodes_to_score: 0,
            backoff: (queue::INITIAL_BACKOFF, queue::MAX_BACKOFF),
        }
    }
}

/// A plugin that is switched off at some extension points, or whose score counts otherwise.
struct Restricted {
    plugin: Box<dyn Plugin>,
    off: BTreeSet<Point>,
    weight: Option<i64>,
}

impl Restricted {
    fn on<T>(&self, point: Point, part: Option<T>) -> Option<T> {
        part.filter(|_| !self.off.contains(&point))
    }
}

impl Plugin for Restricted {
    fn name(&self) -> &'static str {
        self.plugin.name()
    }
    fn events(&self) -> &'static [ClusterEvent] {
        self.plugin.events()
    }
    fn pre_enqueue(&self) -> Option<&dyn PreEnqueue> {
        self.on(Point::PreEnqueue, self.plugin.pre_enqueue())
    }
    fn pre_filter(&self) -> Option<&dyn PreFilter> {
        self.on(Point::PreFilter, self.plugin.pre_filter())
    }
    fn filter(&self) -> Option<&dyn Filter> {
        self.on(Point::Filter, self.plugin.filter())
    }
    fn post_filter(&self) -> Option<&dyn PostFilter> {
        self.on(Point::PostFilter, self.plugin.post_filter())
    }
    fn pre_score(&self) -> Option<&dyn PreScore> {
        self.on(Point::PreScore, self.plugin.pre_score())
    }
    fn score(&self) -> Option<&dyn Score> {
        self.on(Point::Score, self.plugin.score()).map(|_| self as &dyn Score)
    }
}

impl Score for Restricted {
    fn weight(&self) -> i64 {
        self.weight.or_else(|| Some(self.plugin.score()?.weight())).unwrap_or(0)
    }

    fn score(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        self.plugin.score().map_or(0, |score| score.score(state, pod, node))
    }

    fn normalize(&self, state: &CycleState, nodes: &[std::sync::Arc<NodeInfo>], scores: &mut [i64]) {
        if let Some(score) = self.plugin.score() {
            score.normalize(state, nodes, scores);
        }
    }
}
