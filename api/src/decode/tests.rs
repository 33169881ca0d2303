//! What decoding accepts, refuses and makes of it.

use serde_json::json;

use super::*;

fn expected(group: &str, version: &str, kind: &str) -> Expected {
    Expected::built_in(GroupVersionKind::new(group, version, kind)).expect("a built-in kind")
}

fn pod() -> Expected {
    expected("", "v1", "Pod")
}

fn deployment() -> Expected {
    expected("apps", "v1", "Deployment")
}

fn decode_json(expected: &Expected, body: Value) -> Result<Decoded> {
    decode(body.to_string().as_bytes(), Format::Json, expected, FieldValidation::Warn)
}

fn fault(expected: &Expected, body: &str) -> String {
    decode(body.as_bytes(), Format::Json, expected, FieldValidation::Strict).unwrap_err().message
}

#[test]
fn objects_come_out_as_go_would_write_them() {
    let body = json!({
        "metadata": {"name": "p", "creationTimestamp": null, "labels": {}, "annotations": {"a": null}},
        "spec": {
            "restartPolicy": "", "hostNetwork": false, "nodeSelector": null, "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "c", "env": [{"name": "A"}], "ports": [],
                "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}},
                "livenessProbe": {"httpGet": {"path": "/"}, "initialDelaySeconds": 0},
                "securityContext": {"privileged": false},
            }],
            "volumes": [{"name": "v", "emptyDir": {}}],
        },
    });
    let decoded = decode_json(&pod(), body).unwrap();
    assert_eq!(decoded.warnings, Vec::<String>::new());
    assert_eq!(
        decoded.object,
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "annotations": {"a": ""}},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "c", "env": [{"name": "A"}],
                    "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}},
                    "livenessProbe": {"httpGet": {"path": "/", "port": 0}},
                    "securityContext": {"privileged": false},
                }],
                "volumes": [{"name": "v", "emptyDir": {}}],
            },
            "status": {},
        })
    );
}

#[test]
fn lists_without_omitempty_are_null_when_empty() {
    let role = expected("rbac.authorization.k8s.io", "v1", "ClusterRole");
    let decoded = decode_json(&role, json!({"metadata": {"name": "r"}, "rules": []})).unwrap();
    assert_eq!(decoded.object["rules"], Value::Null);
    assert!(decoded.object.as_object().unwrap().contains_key("rules"));
}

#[test]
fn wrong_types_are_worded_as_go_words_them() {
    for (body, expected) in [
        (
            r#"{"spec": {"replicas": "three"}}"#,
            r#"Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"#,
        ),
        (
            r#"{"spec": {"replicas": 1.5}}"#,
            r#"Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32"#,
        ),
        (
            r#"{"spec": {"replicas": 3000000000}}"#,
            r#"Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32"#,
        ),
        (
            r#"{"spec": {"template": {"spec": {"containers": [{"env": [{"name": "A", "value": 5}]}]}}}}"#,
            r#"Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal number into Go struct field EnvVar.spec.template.spec.containers.env.value of type string"#,
        ),
        (
            r#"{"spec": {"template": {"spec": {"containers": {"name": "c"}}}}}"#,
            r#"Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container"#,
        ),
        (
            r#"{"metadata": {"labels": {"a": true}}}"#,
            r#"Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels of type string"#,
        ),
        (
            r#"{"spec": {"strategy": {"rollingUpdate": {"maxSurge": true}}}}"#,
            r#"Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal bool into Go value of type int32"#,
        ),
        (
            r#"{"metadata": {"creationTimestamp": "now"}}"#,
            r#"Deployment in version "v1" cannot be handled as a Deployment: parsing time "now" as "2006-01-02T15:04:05Z07:00": cannot parse "now" as "2006""#,
        ),
    ] {
        assert_eq!(fault(&deployment(), body), expected);
    }
    assert_eq!(
        fault(&expected("", "v1", "Secret"), r#"{"data": {"a": "***"}}"#),
        r#"Secret in version "v1" cannot be handled as a Secret: illegal base64 data at input byte 0"#
    );
}

#[test]
fn null_is_an_object_of_which_nothing_is_said() {
    for (body, format) in [("null", Format::Json), ("", Format::Yaml), ("~", Format::Yaml)] {
        let decoded = decode(body.as_bytes(), format, &pod(), FieldValidation::Strict).expect("a pod");
        assert_eq!(decoded.object, json!({ "apiVersion": "v1", "kind": "Pod" }), "{body:?}");
    }
}

#[test]
fn bodies_that_are_something_else_are_told_what_they_are() {
    let pod_body = r#"{"apiVersion": "v1", "kind": "Pod", "spec": {"containers": 3}}"#;
    assert_eq!(
        fault(&deployment(), pod_body),
        r#"Pod in version "v1" cannot be handled as a Deployment: converting (v1.Pod) to (apps.Deployment): unknown conversion"#
    );
    assert_eq!(
        fault(&deployment(), r#"{"apiVersion": "apps/v2", "kind": "Deployment"}"#),
        r#"Deployment in version "v2" cannot be handled as a Deployment: no kind "Deployment" is registered for version "apps/v2" in scheme "pkg/runtime/scheme.go:111""#
    );
    assert_eq!(
        fault(
            &expected("autoscaling", "v2", "HorizontalPodAutoscaler"),
            r#"{"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler"}"#
        ),
        "the API version in the data (autoscaling/v1) does not match the expected API version (autoscaling/v2)"
    );
    assert_eq!(
        fault(&pod(), r#"{"apiVersion": "v1", "#),
        r#"the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: unexpected end of JSON input ({"apiVersion": "v1", )"#
    );
    assert_eq!(
        fault(&pod(), "[]"),
        r#"the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value of type struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" } (5b5d)"#
    );
    assert_eq!(
        fault(&pod(), ""),
        "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)"
    );
    assert!(Expected::options("DeleteOptions").is_some_and(|options| {
        decode(
            br#"{"apiVersion": "apps/v1", "kind": "DeleteOptions"}"#,
            Format::Json,
            &options,
            FieldValidation::Strict,
        )
        .is_ok()
    }));
}

#[test]
fn unknown_and_duplicate_fields_are_found_where_they_are() {
    let body = br#"{"kind": "Pod", "spec": {"containers": [{"name": "a"}, {"name": "c", "imagge": "x", "name": "d"}], "Volumes": []}, "metadata": {"labels": {"a": "1", "a": "2"}}}"#;
    let found = [
        "unknown field \"spec.containers[1].imagge\"",
        "duplicate field \"spec.containers[1].name\"",
        "unknown field \"spec.Volumes\"",
        "duplicate field \"metadata.labels.a\"",
    ];
    let decoded = decode(body, Format::Json, &pod(), FieldValidation::Warn).unwrap();
    assert_eq!(decoded.warnings, found);
    assert_eq!(decoded.object["spec"]["containers"][1]["name"], "d");
    assert_eq!(decoded.object["metadata"]["labels"]["a"], "2");
    let ignored = decode(body, Format::Json, &pod(), FieldValidation::Ignore).unwrap();
    assert_eq!((ignored.warnings.len(), ignored.object), (0, decoded.object));
    assert_eq!(
        decode(body, Format::Json, &pod(), FieldValidation::Strict).unwrap_err().message,
        format!("Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: {}", found.join(", "))
    );
}

#[test]
fn duplicates_are_found_without_a_schema() {
    let json = br#"{"data":{"a":"b","a":[{"c":1,"c":2}]},"data":{"b":"c"}}"#;
    let expected = ["duplicate field \"data.a[0].c\"", "duplicate field \"data.a\"", "duplicate field \"data\""];
    assert_eq!(duplicate_fields(json), expected);
    let lines = ["line 1: key \"a\" already set in map", "line 1: key \"c\" already set in map"];
    assert_eq!(yaml_duplicates(json)[..2], lines);
    assert_eq!(yaml_duplicates(br#"{"data":{"a":"b"}}"#), [""; 0]);
}

#[test]
fn yaml_is_read_too() {
    let body = b"kind: Pod\nmetadata: {name: p, labels: {1: one}}\nspec:\n  containers:\n  - &c {name: c, image: nginx}\n  - <<: {}\n    name: d\n";
    let decoded = decode(body, Format::Yaml, &pod(), FieldValidation::Warn).unwrap();
    assert_eq!(decoded.object["metadata"]["labels"]["1"], "one");
    assert_eq!(decoded.object["spec"]["containers"][0]["image"], "nginx");
    let fault = decode(b"a: [", Format::Yaml, &pod(), FieldValidation::Warn).unwrap_err();
    assert!(fault.message.starts_with("the object provided is unrecognized (must be of type Pod): yaml: "), "{fault}");
}

#[test]
fn depth_is_bounded_in_every_form() {
    let deep = |n: usize| format!(r#"{{"data": {}1{}}}"#, "[".repeat(n), "]".repeat(n));
    let revision = expected("apps", "v1", "ControllerRevision");
    assert!(decode(deep(MAX_DEPTH - 1).as_bytes(), Format::Json, &revision, FieldValidation::Warn).is_ok());
    for depth in [MAX_DEPTH, 200, 9_000, 100_000] {
        for format in [Format::Json, Format::Yaml] {
            let refused = decode(deep(depth).as_bytes(), format, &revision, FieldValidation::Warn);
            assert_eq!(refused.unwrap_err().code, 400, "{depth} {format:?}");
        }
    }
}

#[test]
fn brackets_of_yaml_are_bounded() {
    let config_map = expected("", "v1", "ConfigMap");
    for open in ["[", "{\"a\":", "x: {"] {
        let body = open.repeat(300_000);
        let refused = decode(body.as_bytes(), Format::Yaml, &config_map, FieldValidation::Warn).unwrap_err();
        assert!(refused.message.contains("yaml: exceeded max depth of 10000"), "{}", refused.message);
    }
    let closed = format!("data: {{a: '{}'}}", "[]{}".repeat(100_000));
    assert!(decode(closed.as_bytes(), Format::Yaml, &config_map, FieldValidation::Warn).is_ok());
}

#[test]
fn custom_types_prune_and_leave_types_alone() {
    use crate::schema::{Conformance, Field, Scalar, UnknownFields};
    let spec = Struct::new(
        "spec",
        vec![
            Field::new("replicas", Type::Scalar(Scalar::Int32)),
            Field::new("tags", Type::map(Type::Scalar(Scalar::String))),
        ],
        UnknownFields::Drop,
        Conformance::Structural,
        false,
    );
    let meta = crate::schema::built_in().definition("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").unwrap().clone();
    let root = Struct::new(
        "Pg",
        vec![
            Field::new("apiVersion", Type::Scalar(Scalar::String)),
            Field::new("kind", Type::Scalar(Scalar::String)),
            Field::new("metadata", Type::Struct(meta)),
            Field::new("spec", Type::Struct(spec)),
        ],
        UnknownFields::Drop,
        Conformance::Structural,
        false,
    );
    let custom = Expected { gvk: GroupVersionKind::new("example.com", "v1", "Pg"), schema: root, custom: true };
    let body = json!({"apiVersion": "example.com/v1", "kind": "Pg", "metadata": {"name": "db"}, "spec": {"replicas": "x", "tags": {"a": null}, "what": 1}});
    let decoded = decode_json(&custom, body).unwrap();
    assert_eq!(decoded.warnings, ["unknown field \"spec.what\""]);
    assert_eq!(decoded.object["spec"], json!({"replicas": "x", "tags": {"a": null}}));
}

#[test]
fn normalizing_what_was_decoded_changes_nothing() {
    let body = json!({"metadata": {"name": "d"}, "spec": {"replicas": 2, "template": {"spec": {"containers": [{"name": "c"}]}}}});
    let decoded = decode_json(&deployment(), body).unwrap();
    let again = normalize(&Type::Struct(deployment().schema), decoded.object.clone(), FieldValidation::Strict).unwrap();
    assert_eq!(again.object, decoded.object);
    let broken = json!({"spec": {"replicas": []}});
    assert_eq!(
        normalize(&Type::Struct(deployment().schema), broken, FieldValidation::Strict).unwrap_err().to_string(),
        "json: cannot unmarshal array into Go struct field DeploymentSpec.spec.replicas of type int32"
    );
}

#[test]
fn aliases_make_no_more_than_the_bound() {
    // Each line holds ten of the line before.
    let mut bomb = "kind: ControllerRevision\ndata:\n  a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..8 {
        let before = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("  a{level}: &a{level} [{before}]\n"));
    }
    let revision = expected("apps", "v1", "ControllerRevision");
    let refused = decode(bomb.as_bytes(), Format::Yaml, &revision, FieldValidation::Ignore);
    assert_eq!(refused.unwrap_err().code, 400);
}
