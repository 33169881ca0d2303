//! What is done with an object on its way through the API server, one step at a time.
//!
//! `cargo bench -p minik8s-api` compares with the run before.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use jiff::Timestamp;
use minik8s_api::decode::{Expected, FieldValidation, Format, decode};
use minik8s_api::kinds::GroupVersionKind;
use minik8s_api::managed::{fields_of, managed_fields_for_update};
use minik8s_api::patch::strategic;
use minik8s_api::quantity::Quantity;
use minik8s_api::schema::Type;
use serde_json::{Value, json};

fn pod() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "web", "namespace": "default", "labels": { "app": "web", "tier": "front" } },
        "spec": {
            "restartPolicy": "Always",
            "containers": [{
                "name": "web",
                "image": "nginx:1.27",
                "ports": [{ "name": "http", "containerPort": 80, "protocol": "TCP" }],
                "env": [{ "name": "A", "value": "1" }, { "name": "B", "value": "2" }],
                "resources": { "requests": { "cpu": "100m", "memory": "64Mi" }, "limits": { "memory": "128Mi" } },
                "readinessProbe": { "httpGet": { "path": "/", "port": "http" }, "periodSeconds": 5 },
                "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
            }],
            "volumes": [{ "name": "data", "emptyDir": {} }],
        },
    })
}

fn objects(criterion: &mut Criterion) {
    let kind = GroupVersionKind { group: String::new(), version: "v1".to_owned(), kind: "Pod".to_owned() };
    let expected = Expected::built_in(kind).expect("pods are built in");
    let ty = Type::Struct(expected.schema.clone());
    let (object, now) = (pod(), Timestamp::UNIX_EPOCH);
    let json_body = serde_json::to_vec(&object).expect("JSON");
    let yaml_body = serde_yaml::to_string(&object).expect("YAML");

    criterion.bench_function("decode a pod from JSON", |bench| {
        bench.iter(|| decode(black_box(&json_body), Format::Json, &expected, FieldValidation::Strict));
    });
    criterion.bench_function("decode a pod from YAML", |bench| {
        bench.iter(|| decode(black_box(yaml_body.as_bytes()), Format::Yaml, &expected, FieldValidation::Strict));
    });
    criterion.bench_function("encode a pod as JSON", |bench| bench.iter(|| serde_json::to_vec(black_box(&object))));
    criterion.bench_function("the fields of a pod", |bench| bench.iter(|| fields_of(&ty, black_box(&object))));
    criterion.bench_function("managedFields of a created pod", |bench| {
        bench.iter_batched_ref(
            pod,
            |new| managed_fields_for_update(&ty, "v1", None, new, "bench", now),
            criterion::BatchSize::SmallInput,
        );
    });
    let mut live = pod();
    managed_fields_for_update(&ty, "v1", None, &mut live, "bench", now);
    criterion.bench_function("managedFields of a pod with another image", |bench| {
        bench.iter_batched_ref(
            || {
                let mut new = live.clone();
                new["spec"]["containers"][0]["image"] = "nginx:1.28".into();
                new
            },
            |new| managed_fields_for_update(&ty, "v1", Some(&live), new, "bench", now),
            criterion::BatchSize::SmallInput,
        );
    });
    let patch = json!({ "spec": { "containers": [{ "name": "web", "image": "nginx:1.28" }] } });
    criterion.bench_function("strategic merge patch of an image", |bench| {
        bench.iter_batched_ref(
            pod,
            |live| strategic::apply(&expected.schema, live, black_box(&patch)),
            criterion::BatchSize::SmallInput,
        );
    });
    criterion.bench_function("parse a quantity", |bench| bench.iter(|| Quantity::parse(black_box("1536Mi"))));
}

criterion_group!(benches, objects);
criterion_main!(benches);
