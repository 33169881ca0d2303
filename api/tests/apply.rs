//! Owners of fields and server-side apply: the scenarios of `tests/apply/`, and laws that hold for generated objects.
//!
//! A scenario is a sequence of writes to one object. After each, `owners` lists who owns what (`NAME OPERATION[/SUBRESOURCE]
//! [VERSION] @STEP`, the step at which the entry last changed), `object` is the object without its owners; or `error` holds
//! the words of the refusal.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use minik8s_api::managed::{Apply, ApplyError, FieldManager, FieldSet, compare_values, fields_of, ignore_timestamps};
use minik8s_api::schema::{Conformance, Field, ListType, Scalar, Struct, Type, UnknownFields, built_in};
use minik8s_api::status::Status;
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    name: String,
    #[serde(rename = "type")]
    definition: String,
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    /// The manager of an update with the object `to`.
    update: Option<String>,
    to: Option<Value>,
    /// A merge patch of what the step before left, in place of `to`.
    with: Option<Value>,
    /// The manager of an apply of `config`.
    apply: Option<String>,
    config: Option<Value>,
    #[serde(default)]
    force: bool,
    #[serde(default)]
    subresource: String,
    owners: Option<BTreeMap<String, Value>>,
    object: Option<Value>,
    error: Option<String>,
    /// Paths of the conflicts, with their owners' words.
    causes: Option<BTreeMap<String, String>>,
}

fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn time_of(step: usize) -> Timestamp {
    start() + SignedDuration::from_secs(i64::try_from(step).unwrap())
}

fn owners(object: &Value) -> BTreeMap<String, Value> {
    let list = object.pointer("/metadata/managedFields").and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |entry: &Value, key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let describe = |entry: &Value| {
        let mut who = format!("{} {}", text(entry, "manager"), text(entry, "operation"));
        if !text(entry, "subresource").is_empty() {
            who += &format!("/{}", text(entry, "subresource"));
        }
        if !matches!(text(entry, "apiVersion").as_str(), "v1" | "apps/v1") {
            who += &format!(" {}", text(entry, "apiVersion"));
        }
        if let Ok(time) = text(entry, "time").parse::<Timestamp>() {
            who += &format!(" @{}", time.duration_since(start()).as_secs());
        }
        assert_eq!(entry.get("fieldsType"), Some(&json!("FieldsV1")));
        (who, entry.get("fieldsV1").cloned().unwrap_or_default())
    };
    list.iter().map(describe).collect()
}

fn without_owners(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        if metadata.is_empty() {
            object.as_object_mut().unwrap().remove("metadata");
        }
    }
    object
}

fn run(scenario: Scenario, ty: &Type) {
    let mut live: Option<Value> = None;
    for (i, step) in scenario.steps.into_iter().enumerate() {
        let at = format!("{}: step {}", scenario.name, i + 1);
        let resets: &[&[&str]] = if step.subresource == "status" { &[&["spec"]] } else { &[&["status"]] };
        let reset_fields = FieldSet::of_fields(resets);
        let fields = FieldManager {
            ty,
            api_version: &scenario.api_version,
            kind: &scenario.kind,
            subresource: &step.subresource,
            reset_fields: &reset_fields,
            versions: None,
        };
        let now = time_of(i + 1);
        let mut result = match (&step.update, &step.apply) {
            (Some(manager), None) => {
                let mut new = step.to.clone().unwrap_or_else(|| {
                    let mut new = live.clone().unwrap();
                    minik8s_api::patch::merge::apply(&mut new, step.with.as_ref().unwrap()).unwrap();
                    new
                });
                fields.update(live.as_ref(), &mut new, manager, now);
                Ok(new)
            }
            (None, Some(manager)) => {
                let patch = step.config.as_ref().unwrap();
                fields.apply(live.as_ref(), Apply { patch, manager, force: step.force, now })
            }
            _ => panic!("{at}: update or apply"),
        };
        if let (Ok(new), Some(live)) = (&mut result, &live) {
            ignore_timestamps(live, new);
        }
        match result {
            Ok(new) => {
                assert_eq!(step.error, None, "{at}: {new}");
                if let Some(expected) = step.owners {
                    assert_eq!(owners(&new), expected, "{at}");
                }
                if let Some(expected) = step.object {
                    assert_eq!(without_owners(&new), expected, "{at}");
                }
                live = Some(new);
            }
            Err(error) => {
                assert_eq!(Some(error.to_string()), step.error, "{at}");
                if let Some(causes) = step.causes {
                    assert_eq!(causes_of(error), causes, "{at}");
                }
            }
        }
    }
}

fn causes_of(error: ApplyError) -> BTreeMap<String, String> {
    let status = Status::from(error);
    assert_eq!(status.code, 409);
    let causes = status.details.map(|details| details.causes).unwrap_or_default();
    causes
        .into_iter()
        .map(|cause| {
            assert_eq!(cause.reason, "FieldManagerConflict");
            (cause.field, cause.message)
        })
        .collect()
}

#[test]
fn scenarios() {
    let scenarios: Vec<Scenario> = serde_yaml::from_str(include_str!("apply/owners.yaml")).unwrap();
    for scenario in scenarios {
        let ty = Type::Struct(built_in().definition(&scenario.definition).unwrap().clone());
        run(scenario, &ty);
    }
}

/// A custom resource's type: a keyed list, a set, an atomic map, and one field of which nothing is known.
fn widget() -> Type {
    let structure = |name: &'static str, fields: Vec<Field>| {
        Type::Struct(Struct::new(name, fields, UnknownFields::Drop, Conformance::Structural, false))
    };
    let string = || Type::Scalar(Scalar::String);
    let part = structure("part", vec![Field::new("id", string()), Field::new("size", Type::Scalar(Scalar::Int64))]);
    let spec = structure(
        "spec",
        vec![
            Field::new("parts", Type::list(part, ListType::Map(vec!["id".into()]))),
            Field::new("tags", Type::list(string(), ListType::Set)),
            Field { atomic: true, ..Field::new("whole", Type::map(string())) },
            Field::new("free", Type::Scalar(Scalar::Any)),
            Field::new("always", string()),
        ],
    );
    let metadata =
        Type::Struct(built_in().definition("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").unwrap().clone());
    structure(
        "Widget",
        vec![
            Field::new("apiVersion", string()),
            Field::new("kind", string()),
            Field::new("metadata", metadata),
            Field::new("spec", spec),
        ],
    )
}

#[test]
fn scenarios_of_custom_resources() {
    let scenarios: Vec<Scenario> = serde_yaml::from_str(include_str!("apply/custom.yaml")).unwrap();
    for scenario in scenarios {
        run(scenario, &widget());
    }
}

#[test]
fn more_than_ten_updaters_become_ancient_changes() {
    let ty = Type::Struct(built_in().definition("io.k8s.api.core.v1.ConfigMap").unwrap().clone());
    let none = FieldSet::new();
    let fields = FieldManager {
        ty: &ty,
        api_version: "v1",
        kind: "ConfigMap",
        subresource: "",
        reset_fields: &none,
        versions: None,
    };
    let mut live = json!({"metadata": {"name": "x"}, "data": {"k0": ""}});
    fields.update(None, &mut live, "m0", time_of(0));
    for i in 1..12 {
        let mut new = live.clone();
        new["data"][format!("k{i}")] = json!("");
        fields.update(Some(&live), &mut new, &format!("m{i}"), time_of(i));
        live = new;
    }
    let owners = owners(&live);
    assert_eq!(owners.len(), 10);
    assert_eq!(
        owners.get("ancient-changes Update @2"),
        Some(&json!({"f:data": {".": {}, "f:k0": {}, "f:k1": {}, "f:k2": {}}}))
    );
    assert!(owners.contains_key("m3 Update @3") && owners.contains_key("m11 Update @11"));
}

struct Seeded(u64);

impl Seeded {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn widget(&mut self) -> Value {
        // Nothing is empty: empty structs are leaves and empty lists nobody's, to which the laws do not apply.
        let mut spec = Map::from_iter([("always".to_owned(), json!("here"))]);
        for (key, chance) in [("parts", 3), ("tags", 2), ("whole", 2), ("free", 2)] {
            if self.below(chance) == 0 {
                continue;
            }
            let value = match key {
                "parts" => {
                    let ids = ["a", "b", "c"].into_iter().filter(|_| self.below(2) == 0).collect::<Vec<_>>();
                    ids.into_iter()
                        .map(|id| {
                            if self.below(2) == 0 {
                                json!({"id": id})
                            } else {
                                json!({"id": id, "size": self.below(3)})
                            }
                        })
                        .collect()
                }
                "tags" => ["s", "t", "u"].into_iter().filter(|_| self.below(2) == 0).map(Value::from).collect(),
                "whole" => json!({"k": self.below(3).to_string()}),
                _ => json!({"n": {"m": self.below(3)}, "l": [self.below(2)]}),
            };
            let value: Value = value;
            if value.as_array().is_none_or(|items| !items.is_empty()) {
                spec.insert(key.to_owned(), value);
            }
        }
        json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": spec})
    }
}

#[test]
fn laws_of_sets_and_comparisons() {
    let ty = widget();
    let mut seeded = Seeded(7);
    for _ in 0..2_000 {
        let (old, new) = (seeded.widget(), seeded.widget());
        let (ours, theirs) = (fields_of(&ty, &old).unwrap(), fields_of(&ty, &new).unwrap());
        let changes = compare_values(&ty, &old, &new).unwrap();
        let back = compare_values(&ty, &new, &old).unwrap();
        assert!(changes.changed.intersection(&changes.removed).is_empty(), "{old} {new}");
        assert!(changes.removed.is_subset(&back.changed), "what goes one way comes the other: {old} {new}");
        assert!(theirs.difference(&ours).is_subset(&changes.changed), "a new leaf is a change: {old} {new}");
        assert!(ours.difference(&theirs).is_subset(&changes.removed.union(&changes.changed)), "{old} {new}");
        assert!(compare_values(&ty, &old, &old).unwrap().is_same());
        assert_eq!(FieldSet::from_value(&ours.to_value()).unwrap(), ours);
        assert_eq!(ours.union(&theirs).difference(&theirs), ours.difference(&theirs));
        assert!(ours.intersection(&theirs).is_subset(&ours));
    }
}

#[test]
fn applying_gives_what_is_applied_and_applying_nothing_takes_it_back() {
    let ty = widget();
    let none = FieldSet::new();
    let fields = FieldManager {
        ty: &ty,
        api_version: "example.com/v1",
        kind: "Widget",
        subresource: "",
        reset_fields: &none,
        versions: None,
    };
    let apply = |live: Option<&Value>, patch: &Value, step| {
        fields.apply(live, Apply { patch, manager: "me", force: false, now: time_of(step) }).unwrap()
    };
    let mut seeded = Seeded(8);
    for _ in 0..500 {
        let (first, second) = (seeded.widget(), seeded.widget());
        let one = apply(None, &first, 1);
        let two = apply(Some(&one), &second, 2);
        let mut direct = apply(None, &second, 2);
        assert_eq!(fields_of(&ty, &without_owners(&two)).unwrap(), fields_of(&ty, &without_owners(&direct)).unwrap());
        assert_eq!(owners(&two).into_values().collect::<Vec<_>>(), owners(&direct).into_values().collect::<Vec<_>>());
        direct["metadata"]["managedFields"] = two["metadata"]["managedFields"].clone();
        let again = apply(Some(&two), &second, 3);
        assert_eq!(again, two, "applying the same again changes nothing");
    }
}
