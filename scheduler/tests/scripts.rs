//! Runs the golden scripts of `testscripts/`: nodes and pods in, placements and messages out.
//!
//! `UPDATE_GOLDENFILES=1 cargo test -p minik8s-scheduler` writes what comes out now; review the difference.

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use minik8s_clock::Random;
use minik8s_scheduler::attempts::NodeVerdict;
use minik8s_scheduler::cache::{Cache, Snapshot};
use minik8s_scheduler::node_info::PodInfo;
use minik8s_scheduler::plugins::default_plugins;
use minik8s_scheduler::schedule_one::Framework;
use serde_json::{Value, json};

struct World {
    cache: Cache,
    framework: Framework,
    random: Random,
    start: usize,
}

impl World {
    fn new() -> Self {
        Self {
            cache: Cache::default(),
            framework: Framework::new(Arc::new(default_plugins(None))),
            random: Random::seeded(1),
            start: 0,
        }
    }

    /// A pod from its name and `key=value` words; `spec=` takes any part of a spec as YAML.
    fn pod(&self, name: &str, words: &[(String, String)]) -> Result<PodInfo, Box<dyn Error>> {
        let mut requests = serde_json::Map::new();
        let mut labels = serde_json::Map::new();
        let mut spec = json!({});
        for (key, value) in words {
            match key.as_str() {
                "cpu" | "memory" => drop(requests.insert(key.clone(), value.clone().into())),
                "app" => drop(labels.insert(key.clone(), value.clone().into())),
                "priority" => spec["priority"] = value.parse::<i32>()?.into(),
                "spec" => merge(&mut spec, serde_yaml::from_str(value)?),
                other => return Err(format!("unknown word {other}").into()),
            }
        }
        let container = json!({"name": "c", "image": "nginx:1.27", "resources": {"requests": requests}});
        merge(&mut spec, json!({"containers": [container]}));
        let pod =
            json!({"metadata": {"namespace": "default", "name": name, "uid": name, "labels": labels}, "spec": spec});
        Ok(PodInfo::new(Arc::new(serde_json::from_value::<Pod>(pod)?)))
    }

    fn schedule(&mut self, pod: PodInfo, out: &mut String, verbose: bool) -> Result<(), Box<dyn Error>> {
        let mut snapshot = Snapshot::default();
        self.cache.update(&mut snapshot);
        let outcome = self.framework.schedule(&pod, &snapshot, self.start, &self.random);
        self.start = outcome.next_start;
        if verbose {
            for (node, verdict) in &outcome.verdicts {
                match verdict {
                    NodeVerdict::Refused(rejection) => writeln!(out, "  {node}: {}", rejection.reasons.join(", "))?,
                    NodeVerdict::Scored(scores) => {
                        let scores: Vec<String> =
                            scores.iter().map(|(plugin, score)| format!("{plugin}={score}")).collect();
                        writeln!(out, "  {node}: {}", scores.join(" "))?;
                    }
                }
            }
        }
        match outcome.result {
            Ok(node) => {
                writeln!(out, "{} -> {node}", pod.name())?;
                self.cache.assume(Arc::new(pod), &node);
            }
            Err(error) => {
                writeln!(out, "{}: {}", pod.name(), error.message)?;
                if let Some(nomination) = error.nomination {
                    let victims: Vec<_> = nomination.victims.iter().map(|victim| victim.name().to_owned()).collect();
                    writeln!(out, "  preempts {} on {}", victims.join(", "), nomination.node)?;
                }
            }
        }
        Ok(())
    }
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

impl goldenscript::Runner for World {
    type Command = goldenscript::Command;

    fn run(&mut self, command: &Self::Command, _: &goldenscript::Context) -> Result<String, Box<dyn Error>> {
        let mut out = String::new();
        let (mut names, mut words) = (Vec::new(), Vec::new());
        for argument in &command.args {
            match argument {
                goldenscript::Argument::Positional(name) => names.push(name.clone()),
                goldenscript::Argument::KeyValue(key, value) => words.push((key.clone(), value.clone())),
                other => return Err(format!("unknown argument {other:?}").into()),
            }
        }
        match command.name.as_str() {
            "node" => {
                for name in names {
                    let mut node = json!({
                        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
                        "spec": {},
                        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}},
                    });
                    for (key, value) in &words {
                        match key.as_str() {
                            "cpu" | "memory" | "pods" => node["status"]["allocatable"][key] = value.clone().into(),
                            "zone" => node["metadata"]["labels"]["topology.kubernetes.io/zone"] = value.clone().into(),
                            "node" => merge(&mut node, serde_yaml::from_str(value)?),
                            other => return Err(format!("unknown word {other}").into()),
                        }
                    }
                    self.cache.set_node(Arc::new(serde_json::from_value::<Node>(node)?));
                }
            }
            "pod" | "explain" => {
                for name in names {
                    let pod = self.pod(&name, &words)?;
                    self.schedule(pod, &mut out, command.name == "explain")?;
                }
            }
            "gone" => {
                for name in names {
                    if !self.cache.remove_pod(&name) {
                        return Err(format!("no pod {name}").into());
                    }
                }
            }
            other => return Err(format!("unknown command {other}").into()),
        }
        Ok(out)
    }
}

#[test]
fn scripts() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testscripts");
    let mut scripts: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.sort();
    assert!(!scripts.is_empty());
    for script in scripts {
        goldenscript::run(&mut World::new(), &script).unwrap_or_else(|error| panic!("{}: {error}", script.display()));
    }
}

#[test]
fn nodes_are_never_overcommitted_and_what_fits_is_placed() {
    for seed in 0..50 {
        let random = Random::seeded(seed);
        let mut world = World::new();
        let mut free = std::collections::BTreeMap::new();
        for n in 0..=random.below(6) {
            let (name, cpu) = (format!("n{n}"), 500 + random.below(4000) as i64);
            let node = json!({
                "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
                "status": {"allocatable": {"cpu": format!("{cpu}m"), "memory": "8Gi", "pods": "20"}},
            });
            world.cache.set_node(Arc::new(serde_json::from_value(node).unwrap()));
            free.insert(name, (cpu, 20));
        }
        for n in 0..60 {
            let cpu = random.below(900) as i64;
            let words = [("cpu".to_owned(), format!("{cpu}m"))];
            let pod = world.pod(&format!("p{n}"), &words).unwrap();
            let mut snapshot = Snapshot::default();
            world.cache.update(&mut snapshot);
            let fits = free.values().any(|(left, pods)| *left >= cpu && *pods > 0);
            match world.framework.schedule(&pod, &snapshot, 0, &random).result {
                Ok(node) => {
                    let (left, pods) = free.get_mut(&node).unwrap();
                    *left -= cpu;
                    *pods -= 1;
                    assert!(*left >= 0 && *pods >= 0, "seed {seed}: {node} is overcommitted");
                    world.cache.assume(Arc::new(pod), &node);
                }
                Err(error) => assert!(!fits, "seed {seed}: p{n} fits: {}", error.message),
            }
        }
    }
}
