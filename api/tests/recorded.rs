//! Answers of a kube-apiserver 1.37, recorded: what it wrote is in the form that decoding gives, and what it refused to
//! decode is refused here in the same words.

use minik8s_api::decode::{Expected, FieldValidation, Format, decode};
use minik8s_api::kinds::GroupVersionKind;
use minik8s_api::protobuf;
use serde_json::Value;

struct Recorded {
    step: String,
    expected: Expected,
    row: Value,
}

fn recorded() -> Vec<Recorded> {
    let rows = include_str!("recorded/decode.jsonl").lines().map(|line| {
        let row: Value = serde_json::from_str(line).expect("a row is JSON");
        let text = |name: &str| row[name].as_str().expect("a row names its kind").to_owned();
        let gvk = GroupVersionKind::new(text("group"), text("version"), text("kind"));
        let expected = Expected::built_in(gvk).expect("a built-in kind");
        Recorded { step: text("step"), expected, row }
    });
    rows.collect()
}

#[test]
fn what_kubernetes_wrote_is_a_normal_form() {
    let mut seen = 0;
    for Recorded { step, expected, row } in recorded() {
        let Some(answer) = row.get("answer") else {
            continue;
        };
        let body = answer.to_string();
        let decoded = decode(body.as_bytes(), Format::Json, &expected, FieldValidation::Strict);
        let decoded = decoded.unwrap_or_else(|status| panic!("{step}: {status}"));
        assert_eq!(decoded.object, *answer, "{step}");

        let bytes = protobuf::encode(&expected.schema, answer).expect("decoded values have a message");
        let mut back = protobuf::decode(&expected.schema, &bytes).expect("own messages can be read");
        // apiVersion and kind, of embedded claims too, do not travel in messages.
        for field in ["apiVersion", "kind"] {
            back[field] = answer[field].clone();
        }
        if answer["kind"] != "StatefulSet" {
            assert_eq!(back, *answer, "{step}, through protobuf");
        }
        seen += 1;
    }
    assert!(seen > 20, "the recording holds objects, {seen} seen");
}

#[test]
fn what_kubernetes_refused_is_refused_in_its_words() {
    let mut seen = 0;
    for Recorded { step, expected, row } in recorded() {
        let Some(refused) = row.get("refused") else {
            continue;
        };
        let body = row["body"].as_str().expect("a body");
        let validation = if row["strict"] == true { FieldValidation::Strict } else { FieldValidation::Warn };
        let status = decode(body.as_bytes(), Format::Json, &expected, validation).expect_err(&step);
        assert_eq!((status.code, Value::from(status.message)), (400, refused.clone()), "{step}");
        seen += 1;
    }
    assert!(seen >= 6, "the recording holds refusals, {seen} seen");
}
