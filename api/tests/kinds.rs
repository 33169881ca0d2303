//! How kinds behave: what the server makes of an object, what it refuses, what it prints of it.
//!
//! `kinds/<case>/` holds `input.yaml` (an object as a client writes it) and what is expected of it: `defaulted.yaml`
//! (after defaults and preparation), `errors.txt`, `warnings.txt`, `row.txt`. With `old.yaml` the input is an update of
//! it; its subresource is named in the case (`pod_update.status`). Expected files that are missing mean: nothing to
//! say. `UPDATE_EXPECTED=1 cargo test -p minik8s-api --test kinds` rewrites them; read the difference.
//! `kinds/recorded.jsonl` holds answers of a real kube-apiserver 1.37.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use minik8s_api::decode::{Expected, FieldValidation, Format, decode};
use minik8s_api::kinds::{Kind, Kinds, split_api_version};
use minik8s_api::status::Status;
use minik8s_api::strategy::{Context, Subresource, strategy_for};
use minik8s_api::table;
use serde_json::{Value, json};

/// When objects were created, and when they are printed.
const CREATED: &str = "2026-01-01T00:00:00Z";
const NOW: &str = "2026-01-01T02:00:00Z";
const UID: &str = "00000000-0000-4000-8000-000000000001";

fn now() -> Timestamp {
    NOW.parse().expect("a timestamp")
}

fn kind_of(object: &Value) -> Arc<Kind> {
    let text = |name: &str| object[name].as_str().expect("an object says what it is");
    let (group, version) = split_api_version(text("apiVersion"));
    Kinds::built_in().by_kind(group, version, text("kind")).expect("a built-in kind").clone()
}

fn decoded(body: &[u8], format: Format, kind: &Kind) -> Value {
    let decoded = decode(body, format, &Expected::kind(kind), FieldValidation::Strict);
    decoded.unwrap_or_else(|status| panic!("{}: {status}", kind.kind)).object
}

fn stamp(object: &mut Value, namespace: &str) {
    object["metadata"]["uid"] = json!(UID);
    object["metadata"]["creationTimestamp"] = json!(CREATED);
    if !namespace.is_empty() {
        object["metadata"]["namespace"] = json!(namespace);
    }
}

/// An object as the registry has it after defaults and preparation.
fn created(kind: &Kind, mut object: Value, namespace: &str) -> Value {
    let strategy = strategy_for(kind);
    strategy.set_defaults(&mut object);
    stamp(&mut object, namespace);
    strategy.prepare_for_create(&Context::at(now()), &mut object);
    object
}

/// An update that changes nothing is accepted and changes nothing, generation included.
fn same_again(kind: &Kind, object: &Value) {
    let strategy = strategy_for(kind);
    let mut again = object.clone();
    strategy.set_defaults(&mut again);
    strategy.prepare_for_update(&Context::at(now()), Subresource::Main, &mut again, object);
    assert_eq!(again, *object, "{}", kind.kind);
    assert_eq!(strategy.validate_update(Subresource::Main, &again, object), [], "{}", kind.kind);
}

struct Case {
    folder: PathBuf,
}

impl Case {
    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.folder.join(name)).ok()
    }

    fn object(&self, name: &str) -> Option<(Arc<Kind>, Value)> {
        let text = self.read(name)?;
        let plain: Value = serde_yaml::from_str(&text).expect("fixtures are YAML");
        let kind = kind_of(&plain);
        Some((kind.clone(), decoded(text.as_bytes(), Format::Yaml, &kind)))
    }

    fn expect(&self, name: &str, actual: &str) {
        let path = self.folder.join(name);
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            match actual {
                "" => drop(fs::remove_file(&path)),
                _ => fs::write(&path, actual).expect("fixtures can be written"),
            }
        }
        let expected = self.read(name).unwrap_or_default();
        assert_eq!(actual, expected, "{}", path.display());
    }

    fn run(&self) {
        let (kind, input) = self.object("input.yaml").expect("a case has an input");
        let strategy = strategy_for(&kind);
        let namespace = if kind.namespaced { "default" } else { "" };
        let (object, errors, warnings) = match self.object("old.yaml") {
            None => {
                let object = created(&kind, input, namespace);
                let errors = strategy.validate(&object);
                let warnings = strategy.warnings(&object, None);
                (object, errors, warnings)
            }
            Some((_, old)) => {
                let mut before = created(&kind, old.clone(), namespace);
                // Decoding adds an empty status; a fixture that has one says what was observed.
                if self.read("old.yaml").is_some_and(|text| text.contains("\nstatus:")) {
                    before["status"] = old["status"].clone();
                }
                let mut object = input;
                strategy.set_defaults(&mut object);
                stamp(&mut object, namespace);
                let door = self.folder.extension().and_then(|name| name.to_str()).unwrap_or("");
                let door = Subresource::from_path(door).expect("a case names a subresource");
                strategy.prepare_for_update(&Context::at(now()), door, &mut object, &before);
                let errors = strategy.validate_update(door, &object, &before);
                let warnings = strategy.warnings(&object, Some(&before));
                (object, errors, warnings)
            }
        };
        let lines = |list: Vec<String>| list.into_iter().map(|line| line + "\n").collect::<String>();
        self.expect("errors.txt", &lines(errors.iter().map(ToString::to_string).collect()));
        self.expect("warnings.txt", &lines(warnings));
        if errors.is_empty() {
            self.expect("defaulted.yaml", &serde_yaml::to_string(&object).expect("objects are YAML"));
            same_again(&kind, &object);
            let row = table::rows(&kind, [&object], now()).remove(0);
            assert_eq!(row.len(), kind.columns.len(), "{}", self.folder.display());
            let cell = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let named =
                kind.columns.iter().zip(&row).map(|(column, value)| format!("{}: {}", column.name, cell(value)));
            self.expect("row.txt", &lines(named.collect()));
        }
    }
}

#[test]
fn every_case() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kinds");
    let mut folders: Vec<PathBuf> = fs::read_dir(root)
        .expect("there are cases")
        .map(|entry| entry.expect("a folder can be read").path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    assert!(!folders.is_empty());
    for folder in folders {
        Case { folder }.run();
    }
}

/// What admission and the allocators add, which strategies know nothing of.
fn without_admission(kind: &str, answer: &mut Value) {
    match kind {
        "Pod" => {
            let spec = &mut answer["spec"];
            for name in ["tolerations", "priority", "preemptionPolicy", "serviceAccount", "serviceAccountName"] {
                spec.as_object_mut().expect("a spec").remove(name);
            }
            let injected = |value: &Value| value["name"] == "kube-api-access-<hash>";
            if let Some(volumes) = spec["volumes"].as_array_mut() {
                volumes.retain(|volume| !injected(volume));
            }
            for container in spec["containers"].as_array_mut().into_iter().flatten() {
                if let Some(mounts) = container["volumeMounts"].as_array_mut() {
                    mounts.retain(|mount| !injected(mount));
                }
                drop_if_empty(container, "volumeMounts");
            }
            drop_if_empty(spec, "volumes");
        }
        "Service" => {
            for name in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                answer["spec"].as_object_mut().expect("a spec").remove(name);
            }
        }
        "PersistentVolumeClaim" => {
            answer["metadata"].as_object_mut().expect("metadata").remove("finalizers");
        }
        _ => {}
    }
}

fn drop_if_empty(object: &mut Value, name: &str) {
    if object[name].as_array().is_none_or(Vec::is_empty) {
        object.as_object_mut().expect("an object").remove(name);
    }
}

#[test]
fn kubernetes_answers() {
    let mut seen = 0;
    for line in include_str!("kinds/recorded.jsonl").lines() {
        let row: Value = serde_json::from_str(line).expect("a row is JSON");
        let text = |name: &str| row[name].as_str().expect("a row says what it is");
        let step = text("step");
        let kinds = Kinds::built_in();
        let kind = kinds.by_kind(text("group"), text("version"), text("kind")).expect("a built-in kind");
        let body = decoded(row["body"].to_string().as_bytes(), Format::Json, kind);
        let mut object = created(kind, body, text("namespace"));
        let errors = strategy_for(kind).validate(&object);
        let mut answer = row["answer"].clone();
        if row["status"] == 201 {
            assert_eq!(errors, [], "{step}");
            for name in ["uid", "creationTimestamp"] {
                object["metadata"][name] = answer["metadata"][name].clone();
            }
            answer["metadata"].as_object_mut().expect("metadata").remove("resourceVersion");
            without_admission(&kind.kind, &mut answer);
            without_admission(&kind.kind, &mut object);
            assert_eq!(object, answer, "{step}");
        } else if step != "service ip outside" {
            let name = object["metadata"]["name"].as_str().unwrap_or("");
            let status = Status::invalid(&kind.group_kind(), name, errors);
            assert_eq!(status.to_value(), answer, "{step}");
        }
        seen += 1;
    }
    assert!(seen > 30, "only {seen} answers were recorded");
}
