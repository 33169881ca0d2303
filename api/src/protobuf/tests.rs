//! Messages there and back, and damaged ones.

use serde_json::json;

use super::*;
use crate::decode::{self, Expected, FieldValidation, Format, MAX_DEPTH, normalize};
use crate::kinds::{GroupVersionKind, Kinds};
use crate::schema::{Scalar, Type};

/// SplitMix64: enough chance for a test, and the same each time.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// Any value of a type.
fn generate(ty: &Type, chance: &mut Chance, depth: usize) -> Value {
    let count = |chance: &mut Chance| if depth > 6 { 0 } else { chance.below(3) };
    match ty {
        Type::Struct(of) => {
            let mut object = serde_json::Map::new();
            for field in of.fields() {
                // apiVersion and kind of embedded objects do not travel; those of the object itself are added later.
                let odds = if depth > 6 { 0 } else { chance.below(4) };
                if odds == 0 || matches!(field.name.as_ref(), "apiVersion" | "kind") && is_type_meta(of) {
                    continue;
                }
                object.insert(field.name.to_string(), generate(&field.ty, chance, depth + 1));
            }
            Value::Object(object)
        }
        Type::List(list) => (0..count(chance)).map(|_| generate(&list.element, chance, depth + 1)).collect(),
        Type::Map(map) => {
            let entries = (0..count(chance)).map(|i| (format!("k{i}"), generate(&map.value, chance, depth + 1)));
            Value::Object(entries.collect())
        }
        Type::Either(either) => match chance.below(2) {
            0 => generate(&either.object, chance, depth + 1),
            _ => match generate(&either.other, chance, depth + 1) {
                // An empty list is not told from no list.
                Value::Array(list) if list.is_empty() => json!({}),
                other => other,
            },
        },
        Type::Scalar(scalar) => match scalar {
            Scalar::String => {
                json!(chance.pick(&["", "a", "nginx:1.27", "ümläut \u{1F680}", "x\n\"y\""]))
            }
            Scalar::Bool => json!(chance.below(2) == 1),
            Scalar::Int32 => json!(chance.pick(&[0, 1, -1, i32::MAX, i32::MIN])),
            Scalar::Int64 => json!(chance.pick(&[0, 1, -1, i64::MAX, i64::MIN])),
            Scalar::Double => json!(chance.pick(&[0.0, 1.5, -2.25e100])),
            Scalar::Bytes => json!(chance.pick(&["", "AA==", "aGVsbG8="])),
            Scalar::Quantity => json!(chance.pick(&["0", "500m", "1Gi", "-3", "1e3"])),
            Scalar::IntOrString => chance.pick(&[&json!(0), &json!(8080), &json!("http"), &json!("25%")]).clone(),
            Scalar::Time => {
                json!(chance.pick(&["2026-01-02T03:04:05Z", "1970-01-01T00:00:00Z", "1969-12-31T23:59:59Z"]))
            }
            Scalar::MicroTime => {
                json!(chance.pick(&["2026-01-02T03:04:05.000006Z", "1969-12-31T23:59:59.500000Z"]))
            }
            Scalar::Duration => json!(chance.pick(&["0s", "1h0m0s", "1.5s"])),
            Scalar::Any | Scalar::FieldsV1 => json!({"f:a": {}, "b": [1, null, "x"]}),
        },
    }
}

fn is_type_meta(of: &Struct) -> bool {
    of.field("apiVersion").is_some()
        && !of.wire().iter().any(
            |wire| matches!(wire.target, crate::schema::WireTarget::Field(i) if of.fields()[i].name == "apiVersion"),
        )
}

fn normal(ty: &Type, value: Value) -> Value {
    normalize(ty, value, FieldValidation::Strict).expect("generated values are of their type").object
}

/// Lists that are told from absent ones when they are empty: the messages of Kubernetes do not tell them apart.
fn without_told_lists(ty: &Type, value: Value) -> Value {
    match (ty, value) {
        (Type::Struct(of), Value::Object(members)) => {
            let kept = members.into_iter().filter_map(|(name, value)| {
                let Some(field) = of.field(&name) else { return Some((name, value)) };
                let told = field.pointer || field.name == "managedFields";
                let told = told && matches!(field.ty, Type::List(_)) && value == json!([]);
                (!told).then(|| (name, without_told_lists(&field.ty, value)))
            });
            Value::Object(kept.collect())
        }
        (Type::List(list), Value::Array(elements)) => {
            elements.into_iter().map(|element| without_told_lists(&list.element, element)).collect()
        }
        (Type::Map(map), Value::Object(entries)) => {
            let entries = entries.into_iter().map(|(key, value)| (key, without_told_lists(&map.value, value)));
            Value::Object(entries.collect())
        }
        (_, value) => value,
    }
}

#[test]
fn every_type_survives_the_way_there_and_back() {
    let mut chance = Chance(37);
    let mut names: Vec<_> = built_in().definitions().collect();
    names.sort_by_key(|of| of.name().to_owned());
    for of in names {
        // Messages that stand for a scalar have no JSON object of their own.
        if of.fields().is_empty() {
            continue;
        }
        let ty = Type::Struct(of.clone());
        for _ in 0..4 {
            let value = normal(&ty, generate(&ty, &mut chance, 0));
            let bytes = encode(of, &value).unwrap_or_else(|e| panic!("{of:?}: {e}: {value}"));
            assert_eq!(decode(of, &bytes).unwrap(), without_told_lists(&ty, value), "{of:?}");
        }
    }
}

#[test]
fn damaged_messages_are_refused_or_read_but_never_panic() {
    let mut chance = Chance(1);
    for kind in Kinds::built_in().iter() {
        let value = normal(&kind.ty(), generate(&kind.ty(), &mut chance, 0));
        let bytes = encode(&kind.schema, &value).unwrap();
        for _ in 0..30 {
            let mut damaged = bytes.clone();
            for _ in 0..=chance.below(4) {
                if let Some(at) = (!damaged.is_empty()).then(|| chance.below(damaged.len() as u64) as usize) {
                    match chance.below(3) {
                        0 => damaged.truncate(at),
                        1 => damaged[at] = chance.next() as u8,
                        _ => damaged.insert(at, chance.next() as u8),
                    }
                }
            }
            if let Ok(read) = decode(&kind.schema, &damaged) {
                normal(&kind.ty(), read);
            }
            let _ = Envelope::parse(&[MAGIC, damaged.as_slice()].concat());
        }
    }
}

#[test]
fn depth_is_bounded() {
    // JSONSchemaProps.not (field 27 or so) holds another one.
    let props =
        built_in().definition("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps").unwrap();
    let nested = |levels: usize| (0..levels).fold(json!({"type": "object"}), |inner, _| json!({"not": inner}));
    let shallow = encode(props, &nested(50)).unwrap();
    assert_eq!(decode(props, &shallow).unwrap(), nested(50));
    let mut bytes = Vec::new();
    let number = props
        .wire()
        .iter()
        .find(|w| matches!(w.target, crate::schema::WireTarget::Field(i) if props.fields()[i].name == "not"));
    for _ in 0..10_000 {
        let mut outer = Vec::new();
        wire::put_bytes(&mut outer, number.unwrap().number, &bytes);
        bytes = outer;
    }
    assert_eq!(decode(props, &bytes), Err(ProtobufError::Depth));
}

/// `kubectl create namespace demo`, as kubectl v1.37 sends it.
#[test]
fn a_namespace_as_kubectl_sends_it() {
    let mut body = MAGIC.to_vec();
    body.extend_from_slice(b"\x0a\x0f\x0a\x02v1\x12\x09Namespace");
    // ObjectMeta with the zeros that Go writes: name "demo", empty strings, generation 0, an empty Time.
    let meta = b"\x0a\x04demo\x12\x00\x1a\x00\x22\x00\x2a\x00\x32\x00\x38\x00\x42\x00";
    let mut raw = Vec::new();
    wire::put_bytes(&mut raw, 1, meta);
    wire::put_bytes(&mut raw, 2, b"");
    wire::put_bytes(&mut raw, 3, b"\x0a\x00");
    wire::put_bytes(&mut body, 2, &raw);
    body.extend_from_slice(b"\x1a\x00\x22\x00");

    let expected = Expected::built_in(GroupVersionKind::new("", "v1", "Namespace")).unwrap();
    let decoded = decode::decode(&body, Format::Protobuf, &expected, FieldValidation::Strict).unwrap();
    assert_eq!(
        decoded.object,
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo"}, "spec": {}, "status": {}})
    );
    assert_eq!(encode_object(&decoded.object).map(|bytes| decode_object(&bytes)), Ok(Ok(decoded.object)));

    let pod = Expected::built_in(GroupVersionKind::new("", "v1", "Pod")).unwrap();
    let refused = decode::decode(&body, Format::Protobuf, &pod, FieldValidation::Strict).unwrap_err();
    assert_eq!(
        refused.message,
        "Namespace in version \"v1\" cannot be handled as a Pod: converting (v1.Namespace) to (core.Pod): unknown conversion"
    );
    let refused = decode::decode(b"{}", Format::Protobuf, &pod, FieldValidation::Strict).unwrap_err();
    assert!(refused.message.contains("expected prefix [107 56 115 0]"), "{refused}");
}

#[test]
fn zeros_of_pointers_are_kept() {
    let expected = Expected::built_in(GroupVersionKind::new("apps", "v1", "Deployment")).unwrap();
    let value = normal(&Type::Struct(expected.schema.clone()), json!({"spec": {"replicas": 0, "minReadySeconds": 0}}));
    let decoded = super::decode(&expected.schema, &encode(&expected.schema, &value).unwrap()).unwrap();
    assert_eq!(decoded["spec"]["replicas"], 0);
    assert!(decoded["spec"].get("minReadySeconds").is_none());
}

#[test]
fn watch_events_are_framed() {
    let status = crate::status::Status::expired("too old resource version: 1 (2)").to_value();
    let object = encode_object(&status).unwrap();
    let frame = encode_watch_event("ERROR", &object);
    assert_eq!(u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize, frame.len() - 4);
    let event = built_in().definition("io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent").unwrap();
    assert_eq!(super::decode(event, &frame[4..]).unwrap(), json!({"type": "ERROR", "object": status}));
}

#[test]
fn lists_are_encoded_as_a_whole() {
    let pods = json!({
        "apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "7"},
        "items": [{"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "resources": {}}]}, "status": {}}],
    });
    assert_eq!(decode_object(&encode_object(&pods).unwrap()).unwrap(), pods);
    let none = encode_object(&json!({"apiVersion": "meta.k8s.io/v1", "kind": "Table"}));
    assert!(matches!(none, Err(ProtobufError::Kind { .. })));
}

#[test]
fn nesting_of_raw_json_counts() {
    let revision = built_in().kind("apps", "v1", "ControllerRevision").unwrap();
    let deep = |n: usize| {
        let mut raw = Vec::new();
        wire::put_bytes(&mut raw, 1, format!("{}{}", "[".repeat(n), "]".repeat(n)).as_bytes());
        let mut message = Vec::new();
        wire::put_bytes(&mut message, 2, &raw);
        super::decode(revision, &message)
    };
    assert!(deep(MAX_DEPTH - 10).is_ok());
    assert!(deep(MAX_DEPTH).is_err());
}
