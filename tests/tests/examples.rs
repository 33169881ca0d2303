//! The examples are good: every manifest, every overlay and the chart decode without an unknown field and pass the validation
//! of their kind; and a cluster takes them all.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use minik8s_api::decode::{Expected, FieldValidation, Format, decode};
use minik8s_api::kinds::{Kinds, split_api_version};
use minik8s_api::strategy::{Context, strategy_for};
use minik8s_tests::{Cluster, tools};
use serde::Deserialize as _;
use serde_json::Value;

fn examples() -> PathBuf {
    tools::workspace().join("examples")
}

/// The manifests below `dir`, in order. Overlays and charts are no manifests until kubectl or helm has made some of them.
fn manifests(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("cannot list {}: {error}", dir.display()));
    for path in entries.map(|entry| entry.expect("an entry of a folder").path()) {
        if path.is_dir() && !path.ends_with("kustomize") && !path.ends_with("chart") {
            found.extend(manifests(&path));
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Everything that the API server would say against these documents, a line each.
fn objections(source: &str, text: &str) -> Vec<String> {
    let mut objections = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let object = Value::deserialize(document).unwrap_or_else(|error| panic!("{source}: no YAML: {error}"));
        if object.is_null() {
            continue;
        }
        let name = format!("{source}: {} {}", object["kind"], object["metadata"]["name"]);
        if let Err(why) = check(&object) {
            objections.extend(why.into_iter().map(|why| format!("{name}: {why}")));
        }
    }
    objections
}

fn check(object: &Value) -> Result<(), Vec<String>> {
    let word = |field: &str| object[field].as_str().unwrap_or_default();
    let (group, version) = split_api_version(word("apiVersion"));
    let kinds = Kinds::built_in();
    let kind =
        kinds.by_kind(group, version, word("kind")).ok_or_else(|| vec!["is of no kind that is served".to_owned()])?;
    let body = serde_json::to_vec(object).expect("a value is JSON");
    let decoded = decode(&body, Format::Json, &Expected::kind(kind), FieldValidation::Strict);
    let mut object = decoded.map_err(|status| vec![status.message])?.object;
    let strategy = strategy_for(kind);
    strategy.set_defaults(&mut object);
    object["metadata"]["uid"] = "00000000-0000-4000-8000-000000000001".into();
    if kind.namespaced && object["metadata"]["namespace"].is_null() {
        object["metadata"]["namespace"] = "default".into();
    }
    strategy.prepare_for_create(&Context::at("2026-01-01T00:00:00Z".parse().expect("a time")), &mut object);
    let errors = strategy.validate(&object);
    if errors.is_empty() { Ok(()) } else { Err(errors.iter().map(ToString::to_string).collect()) }
}

#[track_caller]
fn good(objections: Vec<String>) {
    assert!(objections.is_empty(), "\n{}", objections.join("\n"));
}

/// What a command prints.
fn made_by(program: &Path, arguments: &[&str], folder: &Path) -> String {
    let output = Command::new(program).args(arguments).arg(folder).output().expect("the program starts");
    assert!(output.status.success(), "{}: {}", folder.display(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("YAML is text")
}

#[test]
fn manifests_are_good() {
    let paths = manifests(&examples());
    assert!(paths.len() >= 15, "{paths:?}");
    let said = |path: &PathBuf| objections(&path.display().to_string(), &fs::read_to_string(path).expect("a file"));
    good(paths.iter().flat_map(said).collect());
}

#[test]
fn overlays_are_good() {
    let kubectl = tools::kubectl(tools::KUBECTL);
    for overlay in ["dev", "prod"] {
        let folder = examples().join("kustomize").join("overlays").join(overlay);
        let made = made_by(&kubectl, &["kustomize"], &folder);
        assert_eq!(made.matches("\nkind: ").count(), 4, "{made}");
        good(objections(overlay, &made));
    }
}

#[test]
fn the_chart_is_good() {
    let made = made_by(&tools::helm(), &["template", "demo"], &examples().join("chart"));
    assert_eq!(made.matches("\nkind: ").count(), 2, "{made}");
    good(objections("chart", &made));
}

#[test]
fn a_cluster_takes_them_all() {
    let cluster = Cluster::start(&["--nodes", "3"]);
    let folders =
        fs::read_dir(examples()).expect("the examples").map(|entry| entry.expect("an entry of a folder").path());
    for folder in folders.filter(|path| path.is_dir() && !path.ends_with("kustomize") && !path.ends_with("chart")) {
        cluster.kubectl(&format!("apply -f {}", folder.display())).ok();
    }
    for overlay in ["dev", "prod"] {
        let folder = examples().join("kustomize").join("overlays").join(overlay);
        cluster.kubectl(&format!("apply -k {}", folder.display())).ok();
    }
    cluster.helm(&format!("install demo {}", examples().join("chart").display())).ok();
    for deployment in ["web", "demo-web", "dev-web -n dev-web", "prod-web -n prod-web"] {
        cluster.kubectl(&format!("rollout status --timeout=60s deployment/{deployment}")).ok();
    }
    cluster.until_shows("logs app", "log level info, database at db.default.svc.cluster.local, on node-");
    let asks = "auth can-i create deployments -n dev --as system:serviceaccount:dev:build";
    assert_eq!(cluster.kubectl(asks).stdout, "no\n");
    assert_eq!(cluster.kubectl(&asks.replace("create deployments", "list pods")).ok(), "yes\n");
}
