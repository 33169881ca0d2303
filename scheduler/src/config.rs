//! `KubeSchedulerConfiguration` (`kubescheduler.config.k8s.io/v1`): the file that `--config` names.
//!
//! Read are the profiles with their plugins switched on and off and weighed, the arguments of NodeResourcesFit, how many
//! nodes are scored, and the pauses of pods that did not fit. What is not acted on is refused by name.
//! (Kubernetes: `pkg/scheduler/apis/config/v1`, `pkg/scheduler/framework/runtime/framework.go`, `expandMultiPointPlugins`.)

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::plugins::node_resources_fit::{self, ScoringStrategy};
use crate::plugins::{default_plugins, unsupported};
use crate::profile::{Point, Profile, Settings};
use crate::scheduler::SCHEDULER_NAME;

const API_VERSION: &str = "kubescheduler.config.k8s.io/v1";
/// The best score in the shape of RequestedToCapacityRatio; nodes are scored up to 100.
const MAX_SHAPE_SCORE: i64 = 10;
/// Kubernetes' plugins without which there is no scheduling; here they are no plugins.
const INHERENT: [(&str, &str); 2] = [("queueSort", "PrioritySort"), ("bind", "DefaultBinder")];
/// Kubernetes' plugins that are not here. They can be switched off, which they are.
const ABSENT: [&str; 5] =
    ["NodeVolumeLimits", "VolumeRestrictions", "VolumeZone", "DynamicResources", "NodeDeclaredFeatures"];

/// The file, as far as it is acted on.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SchedulerConfiguration {
    /// `kubescheduler.config.k8s.io/v1`.
    pub api_version: String,
    /// `KubeSchedulerConfiguration`.
    pub kind: String,
    /// How the API is reached.
    #[serde(default)]
    pub client_connection: ClientConnection,
    /// Of several schedulers, which one works. In the words of the file.
    #[serde(default)]
    pub leader_election: Option<Value>,
    /// How much is done at once; decides nothing, and is not needed here.
    #[serde(default, rename = "parallelism")]
    _parallelism: Option<u32>,
    #[serde(default)]
    percentage_of_nodes_to_score: Option<u32>,
    #[serde(default)]
    pod_initial_backoff_seconds: Option<u64>,
    #[serde(default)]
    pod_max_backoff_seconds: Option<u64>,
    #[serde(default)]
    profiles: Vec<FileProfile>,
}

/// How the API is reached.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientConnection {
    /// The kubeconfig.
    #[serde(default)]
    pub kubeconfig: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileProfile {
    #[serde(default)]
    scheduler_name: Option<String>,
    #[serde(default)]
    plugins: BTreeMap<String, PluginSet>,
    #[serde(default)]
    plugin_config: Vec<PluginConfig>,
    #[serde(default)]
    percentage_of_nodes_to_score: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PluginSet {
    #[serde(default)]
    enabled: Vec<PluginName>,
    #[serde(default)]
    disabled: Vec<PluginName>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PluginName {
    name: String,
    #[serde(default)]
    weight: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PluginConfig {
    name: String,
    #[serde(default)]
    args: Value,
}

impl SchedulerConfiguration {
    /// Reads the file's content.
    ///
    /// # Errors
    /// What is no such configuration, and fields that are not acted on, named.
    pub fn read(value: Value) -> Result<Self, String> {
        let config: Self = serde_json::from_value(value).map_err(|error| error.to_string())?;
        if config.api_version != API_VERSION || config.kind != "KubeSchedulerConfiguration" {
            return Err(format!(
                "no kind {:?} in {:?}: a KubeSchedulerConfiguration of {API_VERSION} is wanted",
                config.kind, config.api_version
            ));
        }
        Ok(config)
    }

    /// What the scheduler is to be told.
    ///
    /// # Errors
    /// Unknown plugins, two profiles of one name, values out of range.
    pub fn settings(&self) -> Result<Settings, String> {
        let mut settings = Settings::default();
        let percent = |value: Option<u32>| match value {
            Some(value @ 0..=100) => Ok(value),
            None => Ok(0),
            Some(value) => Err(format!("percentageOfNodesToScore: Invalid value: {value}: not in valid range [0-100]")),
        };
        settings.percentage_of_nodes_to_score = percent(self.percentage_of_nodes_to_score)?;
        if let Some(seconds) = self.pod_initial_backoff_seconds {
            settings.backoff.0 = Duration::from_secs(seconds);
        }
        if let Some(seconds) = self.pod_max_backoff_seconds {
            settings.backoff.1 = Duration::from_secs(seconds);
        }
        if settings.backoff.0.is_zero() {
            return Err("podInitialBackoffSeconds: Invalid value: 0: must be greater than 0".to_owned());
        }
        if settings.backoff.1 < settings.backoff.0 {
            return Err("podMaxBackoffSeconds: must be greater than or equal to PodInitialBackoffSeconds".to_owned());
        }
        if self.profiles.is_empty() {
            return Ok(settings);
        }
        settings.profiles.clear();
        for (at, profile) in self.profiles.iter().enumerate() {
            let named = |error| format!("profiles[{at}].{error}");
            if profile.percentage_of_nodes_to_score.is_some() {
                return Err(named("percentageOfNodesToScore is not supported: set it for all profiles".to_owned()));
            }
            let read = profile.read(self.profiles.len()).map_err(named)?;
            if settings.profiles.iter().any(|known| known.scheduler_name == read.scheduler_name) {
                return Err(format!("profiles[{at}].schedulerName: Duplicate value: {:?}", read.scheduler_name));
            }
            settings.profiles.push(read);
        }
        Ok(settings)
    }
}

impl FileProfile {
    fn read(&self, profiles: usize) -> Result<Profile, String> {
        let scheduler_name = match self.scheduler_name.clone().filter(|name| !name.is_empty()) {
            Some(name) => name,
            None if profiles == 1 => SCHEDULER_NAME.to_owned(),
            None => return Err("schedulerName: Required value".to_owned()),
        };
        let mut profile = Profile { scheduler_name, ..Profile::default() };
        for name in self.plugins.keys() {
            let known = Point::ALL.iter().any(|(point, _)| point == name) || name == "multiPoint";
            if !known && !INHERENT.iter().any(|(point, _)| point == name) {
                return Err(format!("plugins.{name} is not supported"));
            }
        }
        self.check_inherent()?;
        let available: Vec<_> = default_plugins(None).into_iter().filter(|p| p.name() != unsupported::NAME).collect();
        let known: Vec<&'static str> = available.iter().map(|plugin| plugin.name()).collect();
        let none = PluginSet::default();
        let multi = self.plugins.get("multiPoint").unwrap_or(&none);
        let mut everywhere: BTreeSet<&'static str> = known.iter().copied().collect();
        apply(multi, "multiPoint", &known, &mut everywhere, &mut profile.weights)?;
        for (name, point) in Point::ALL {
            let mut here = everywhere.clone();
            if let Some(set) = self.plugins.get(name) {
                apply(set, name, &known, &mut here, &mut profile.weights)?;
                if let Some(wrong) = set
                    .enabled
                    .iter()
                    .find(|enabled| available.iter().any(|p| p.name() == enabled.name && !point.is_of(p.as_ref())))
                {
                    return Err(format!("plugins.{name}: plugin {:?} does not extend {name} plugin", wrong.name));
                }
            }
            for plugin in
                available.iter().filter(|plugin| point.is_of(plugin.as_ref()) && !here.contains(plugin.name()))
            {
                profile.off.entry(plugin.name()).or_default().insert(point);
            }
        }
        check_pairs(&available, &profile)?;
        for config in &self.plugin_config {
            profile.fit = match config.name.as_str() {
                node_resources_fit::NAME => fit(&config.args).map_err(|error| format!("pluginConfig: {error}"))?,
                other => return Err(format!("pluginConfig: arguments of plugin {other:?} are not supported")),
            };
        }
        Ok(profile)
    }

    /// What cannot be switched off, and what stands where something else cannot.
    fn check_inherent(&self) -> Result<(), String> {
        for (point, only) in INHERENT {
            let Some(set) = self.plugins.get(point) else { continue };
            if let Some(other) = set.enabled.iter().find(|plugin| plugin.name != only) {
                return Err(format!("plugins.{point}: {:?} is not supported: there is {only} only", other.name));
            }
            if !set.disabled.is_empty() && set.enabled.is_empty() {
                return Err(format!("plugins.{point}: {only} cannot be disabled"));
            }
        }
        Ok(())
    }
}

/// Switches plugins of one extension point off and on.
fn apply(
    set: &PluginSet,
    point: &str,
    known: &[&'static str],
    on: &mut BTreeSet<&'static str>,
    weights: &mut BTreeMap<&'static str, i64>,
) -> Result<(), String> {
    let inherent = |name: &str| INHERENT.iter().any(|(_, only)| *only == name);
    for plugin in &set.disabled {
        match plugin.name.as_str() {
            "*" => on.clear(),
            name if ABSENT.contains(&name) || inherent(name) && point != "multiPoint" => {}
            name if inherent(name) => return Err(format!("plugins.{point}: {name} cannot be disabled")),
            name => {
                let known = known.iter().find(|known| **known == name);
                on.remove(*known.ok_or_else(|| format!("plugins.{point}: {name:?} does not exist"))?);
            }
        }
    }
    for plugin in &set.enabled {
        let name = plugin.name.as_str();
        if inherent(name) {
            continue;
        }
        if ABSENT.contains(&name) {
            return Err(format!("plugins.{point}: plugin {name:?} is not part of minik8s"));
        }
        let known = known.iter().find(|known| **known == name);
        let known = known.ok_or_else(|| format!("plugins.{point}: {name:?} does not exist"))?;
        on.insert(known);
        if plugin.weight != 0 {
            weights.insert(known, plugin.weight);
        }
    }
    Ok(())
}

/// A filter needs what is prepared for it, and so does a score.
fn check_pairs(available: &[Box<dyn crate::framework::Plugin>], profile: &Profile) -> Result<(), String> {
    for plugin in available {
        let Some(off) = profile.off.get(plugin.name()) else { continue };
        for (first, then) in [(Point::PreFilter, Point::Filter), (Point::PreScore, Point::Score)] {
            if off.contains(&first) && then.is_of(plugin.as_ref()) && !off.contains(&then) {
                return Err(format!("plugins: {} at {then:?} needs itself at {first:?}", plugin.name()));
            }
        }
    }
    Ok(())
}

/// `NodeResourcesFitArgs`.
fn fit(args: &Value) -> Result<ScoringStrategy, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Args {
        #[serde(rename = "apiVersion")]
        _api_version: Option<String>,
        #[serde(rename = "kind")]
        _kind: Option<String>,
        scoring_strategy: Option<Strategy>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Strategy {
        r#type: Option<String>,
        resources: Option<Vec<Value>>,
        requested_to_capacity_ratio: Option<Ratio>,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Ratio {
        shape: Vec<Shape>,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Shape {
        utilization: i64,
        score: i64,
    }
    let args: Args = serde_json::from_value(args.clone()).map_err(|error| error.to_string())?;
    let Some(strategy) = args.scoring_strategy else { return Ok(ScoringStrategy::default()) };
    let default = [serde_json::json!({"name": "cpu", "weight": 1}), serde_json::json!({"name": "memory", "weight": 1})];
    if strategy.resources.is_some_and(|resources| resources != default) {
        return Err("scoringStrategy.resources other than cpu and memory of weight 1 are not supported".to_owned());
    }
    match strategy.r#type.as_deref().unwrap_or("LeastAllocated") {
        "LeastAllocated" => Ok(ScoringStrategy::LeastAllocated),
        "MostAllocated" => Ok(ScoringStrategy::MostAllocated),
        "RequestedToCapacityRatio" => {
            let shape = strategy.requested_to_capacity_ratio.map(|ratio| ratio.shape).unwrap_or_default();
            let rising = shape.windows(2).all(|pair| pair[0].utilization < pair[1].utilization);
            let valid =
                |point: &Shape| (0..=100).contains(&point.utilization) && (0..=MAX_SHAPE_SCORE).contains(&point.score);
            if shape.is_empty() || !rising || !shape.iter().all(valid) {
                return Err(
                    "requestedToCapacityRatio.shape: points of rising utilization (0-100) and a score (0-10) are wanted"
                        .to_owned(),
                );
            }
            let scale = crate::framework::MAX_NODE_SCORE / MAX_SHAPE_SCORE;
            Ok(ScoringStrategy::RequestedToCapacityRatio(
                shape.into_iter().map(|point| (point.utilization, point.score * scale)).collect(),
            ))
        }
        other => Err(format!("scoringStrategy.type: Unsupported value: {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn settings(more: Value) -> Result<Settings, String> {
        let mut file = json!({"apiVersion": API_VERSION, "kind": "KubeSchedulerConfiguration"});
        file.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        SchedulerConfiguration::read(file)?.settings()
    }

    #[test]
    fn profiles_switch_and_weigh_plugins() {
        let read = settings(json!({
            "podInitialBackoffSeconds": 2,
            "percentageOfNodesToScore": 50,
            "profiles": [
                {"schedulerName": "default-scheduler"},
                {
                    "schedulerName": "packer",
                    "plugins": {
                        "score": {"disabled": [{"name": "*"}], "enabled": [{"name": "NodeResourcesFit", "weight": 5}]},
                        "preScore": {"disabled": [{"name": "*"}]},
                        "multiPoint": {"disabled": [{"name": "ImageLocality"}, {"name": "VolumeZone"}]},
                    },
                    "pluginConfig": [{"name": "NodeResourcesFit", "args": {"scoringStrategy": {"type": "MostAllocated"}}}],
                },
            ],
        }))
        .unwrap();
        assert_eq!(read.profiles[0], Profile::default());
        let packer = &read.profiles[1];
        assert_eq!(packer.fit, ScoringStrategy::MostAllocated);
        let plugins = packer.plugins(None);
        let scores: Vec<_> = plugins.iter().filter_map(|p| Some((p.name(), p.score()?.weight()))).collect();
        assert_eq!(scores, [("NodeResourcesFit", 5)]);
        assert!(plugins.iter().any(|plugin| plugin.name() == "TaintToleration" && plugin.filter().is_some()));
        assert_eq!((read.percentage_of_nodes_to_score, read.backoff.0), (50, Duration::from_secs(2)));
    }

    #[test]
    fn what_is_not_acted_on_is_named() {
        for (file, words) in [
            (json!({"extenders": []}), "unknown field `extenders`"),
            (json!({"profiles": [{}, {}]}), "profiles[0].schedulerName: Required value"),
            (json!({"profiles": [{"schedulerName": "a"}, {"schedulerName": "a"}]}), "Duplicate value: \"a\""),
            (json!({"profiles": [{"plugins": {"permit": {}}}]}), "plugins.permit is not supported"),
            (json!({"profiles": [{"plugins": {"filter": {"enabled": [{"name": "Coscheduling"}]}}}]}), "does not exist"),
            (
                json!({"profiles": [{"plugins": {"filter": {"enabled": [{"name": "VolumeZone"}]}}}]}),
                "not part of minik8s",
            ),
            (
                json!({"profiles": [{"plugins": {"score": {"enabled": [{"name": "NodeName"}]}}}]}),
                "does not extend score",
            ),
            (json!({"profiles": [{"plugins": {"bind": {"disabled": [{"name": "*"}]}}}]}), "cannot be disabled"),
            (
                json!({"profiles": [{"plugins": {"preFilter": {"disabled": [{"name": "PodTopologySpread"}]}}}]}),
                "PodTopologySpread at Filter needs itself at PreFilter",
            ),
            (
                json!({"profiles": [{"pluginConfig": [{"name": "NodeAffinity"}]}]}),
                "arguments of plugin \"NodeAffinity\"",
            ),
            (json!({"percentageOfNodesToScore": 101}), "not in valid range [0-100]"),
        ] {
            let error = settings(file.clone()).expect_err(&file.to_string());
            assert!(error.contains(words), "{file}: {error}");
        }
    }
}
