//! Patches: the fixtures of `tests/patch/`, and laws that hold for generated objects.

use std::sync::Arc;

use minik8s_api::patch::{json, merge, strategic, strategic_diff};
use minik8s_api::schema::{Struct, built_in};
use minik8s_api::status::Status;
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
struct Case {
    name: String,
    #[serde(rename = "type")]
    definition: String,
    before: Value,
    patch: Value,
    after: Option<Value>,
    error: Option<String>,
}

fn definition(name: &str) -> Arc<Struct> {
    built_in().definition(name).unwrap_or_else(|| panic!("{name} is defined")).clone()
}

#[test]
fn strategic_fixtures() {
    let cases: Vec<Case> = serde_yaml::from_str(include_str!("patch/strategic.yaml")).unwrap();
    for case in cases {
        let mut document = case.before.clone();
        let result = strategic::apply(&definition(&case.definition), &mut document, &case.patch);
        match (result, case.after, case.error) {
            (Ok(()), Some(after), None) => assert_eq!(document, after, "{}", case.name),
            (Err(error), None, Some(expected)) => {
                assert_eq!(error.to_string(), expected, "{}", case.name)
            }
            (result, ..) => panic!("{}: {result:?}, {document}", case.name),
        }
    }
}

#[test]
fn a_failed_json_patch_is_answered_as_kubernetes_does() {
    let mut document = json!({"spec": {"replicas": 1}});
    for patch in [
        json!([{"op": "test", "path": "/spec/replicas", "value": 99}]),
        json!([{"op": "replace", "path": "/spec/nope/x", "value": 1}]),
    ] {
        let status = Status::from(json::apply(&mut document, &patch).unwrap_err()).to_value();
        assert_eq!(
            status,
            json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Invalid",
                "message": "the server rejected our request due to an error in our request", "details": {}, "code": 422,
            })
        );
    }
}

/// A small generator of its own: the same seed makes the same objects.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % n as u64).unwrap()
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    fn any(&mut self, depth: usize) -> Value {
        match self.below(if depth == 0 { 3 } else { 5 }) {
            0 => json!(self.below(3)),
            1 => json!(self.pick(&["x", "y", ""])),
            2 => json!(self.below(2) == 0),
            3 => (0..self.below(3)).map(|_| self.any(depth - 1)).collect(),
            _ => {
                let keys = self.below(4);
                Value::Object(
                    (0..keys).map(|_| (self.pick(&["a", "b", "c", "d"]).to_owned(), self.any(depth - 1))).collect(),
                )
            }
        }
    }

    fn keyed(&mut self, keys: &[&str], mut rest: impl FnMut(&mut Seeded, &mut Map<String, Value>)) -> Value {
        let mut left: Vec<&str> = keys.to_vec();
        let count = self.below(keys.len() + 1);
        (0..count)
            .map(|_| {
                let name = left.remove(self.below(left.len()));
                let mut item = Map::from_iter([("name".to_owned(), json!(name))]);
                rest(self, &mut item);
                Value::Object(item)
            })
            .collect()
    }

    fn pod_spec(&mut self) -> Value {
        let containers = self.keyed(&["a", "b", "c", "d"], |seeded, container| {
            if seeded.below(2) == 0 {
                container.insert("image".to_owned(), json!(seeded.pick(&["x", "y"])));
            }
            if seeded.below(2) == 0 {
                let env = seeded.keyed(&["E", "F", "G"], |seeded, env| {
                    env.insert("value".to_owned(), json!(seeded.pick(&["1", "2"])));
                });
                container.insert("env".to_owned(), env);
            }
            if seeded.below(3) == 0 {
                container.insert("command".to_owned(), json!([seeded.pick(&["p", "q"])]));
            }
        });
        let volumes = self.keyed(&["v", "w"], |seeded, volume| {
            let source = seeded.pick(&["emptyDir", "hostPath"]);
            volume.insert(source.to_owned(), json!({}));
        });
        let mut spec = Map::from_iter([("containers".to_owned(), containers), ("volumes".to_owned(), volumes)]);
        if self.below(2) == 0 {
            spec.insert("nodeSelector".to_owned(), json!({(self.pick(&["k", "l"])): self.pick(&["1", "2"])}));
        }
        if self.below(2) == 0 {
            spec.insert("hostname".to_owned(), json!(self.pick(&["h", "i"])));
        }
        Value::Object(spec)
    }
}

#[test]
fn a_merge_patch_computed_from_two_documents_makes_one_the_other() {
    let mut seeded = Seeded(1);
    for _ in 0..2_000 {
        let (before, after) = (json!({"r": seeded.any(4)}), json!({"r": seeded.any(4)}));
        let mut document = before.clone();
        merge::apply(&mut document, &merge::diff(&before, &after)).unwrap();
        assert_eq!(document, after, "{before}");
    }
}

#[test]
fn a_strategic_patch_computed_from_two_objects_makes_one_the_other() {
    let ty = definition("io.k8s.api.core.v1.PodSpec");
    let mut seeded = Seeded(2);
    for _ in 0..2_000 {
        let (before, after) = (seeded.pod_spec(), seeded.pod_spec());
        let patch = strategic_diff(&ty, &before, &after).unwrap();
        let mut document = before.clone();
        strategic::apply(&ty, &mut document, &patch).unwrap();
        assert_eq!(without_empty_lists(document), without_empty_lists(after), "{before} + {patch}");
    }
}

/// A list whose last item is deleted stays as an empty list, which Kubernetes does not write.
fn without_empty_lists(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(_, value)| value.as_array().is_none_or(|items| !items.is_empty()));
            Value::Object(kept.map(|(key, value)| (key, without_empty_lists(value))).collect())
        }
        Value::Array(items) => items.into_iter().map(without_empty_lists).collect(),
        other => other,
    }
}

#[test]
fn a_json_patch_changes_all_or_nothing() {
    let mut seeded = Seeded(3);
    for _ in 0..1_000 {
        let before = json!({"a": seeded.any(3), "b": seeded.any(3)});
        let operations: Vec<Value> = (0..4)
            .map(|_| {
                let op = seeded.pick(&["add", "remove", "replace", "test", "move", "copy"]);
                let path = seeded.pick(&["/a", "/b/a", "/a/0", "/b/-", "/c", "/a/b/c", ""]);
                json!({"op": op, "path": path, "from": seeded.pick(&["/a", "/b"]), "value": seeded.any(1)})
            })
            .collect();
        let mut document = before.clone();
        if json::apply(&mut document, &operations.clone().into()).is_err() {
            assert_eq!(document, before);
        } else {
            let mut one_by_one = before.clone();
            for operation in operations {
                json::apply(&mut one_by_one, &json!([operation])).unwrap();
            }
            assert_eq!(document, one_by_one);
        }
    }
}
