//! Admission policies, as the documentation shows them.

use serde_json::{Value, json};

use crate::server::{TestServer, config_map};

const API: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// A policy for one resource; `more` is the rest of its spec.
fn policy(kind: &str, name: &str, group: &str, resource: &str, more: Value) -> Value {
    let rule = json!({ "apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": [resource] });
    let mut spec = json!({ "matchConstraints": { "resourceRules": [rule] } });
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{kind}AdmissionPolicy"), "metadata": { "name": name }, "spec": spec })
}

fn binding(kind: &str, name: &str, policy: &str, more: Value) -> Value {
    let mut spec = json!({ "policyName": policy });
    if kind == "Validating" {
        spec["validationActions"] = json!(["Deny"]);
    }
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{kind}AdmissionPolicyBinding"), "metadata": { "name": name }, "spec": spec })
}

async fn install(server: &TestServer, object: &Value) {
    let kind = object["kind"].as_str().expect("a kind").to_lowercase();
    let plural = kind.strip_suffix('y').map_or_else(|| format!("{kind}s"), |stem| format!("{stem}ies"));
    server.post(&format!("{API}/{plural}"), object).await.expect(201);
}

fn deployment(name: &str, replicas: i64) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name },
        "spec": {
            "replicas": replicas, "selector": { "matchLabels": { "app": name } },
            "template": { "metadata": { "labels": { "app": name } }, "spec": { "containers": [{ "name": "c", "image": "nginx" }] } },
        },
    })
}

#[tokio::test]
async fn a_validating_policy_refuses_in_kubernetes_words() {
    let server = TestServer::start().await;
    let rules = json!({ "validations": [{ "expression": "object.spec.replicas <= 5" }] });
    install(&server, &policy("Validating", "demo-policy.example.com", "apps", "deployments", rules)).await;
    server.post(DEPLOYMENTS, &deployment("unbound", 7)).await.expect(201);
    let bound = binding("Validating", "demo-binding-test.example.com", "demo-policy.example.com", json!({}));
    install(&server, &bound).await;
    let refused = server.post(DEPLOYMENTS, &deployment("nginx", 7)).await;
    assert_eq!(
        refused.message(),
        "deployments.apps \"nginx\" is forbidden: ValidatingAdmissionPolicy 'demo-policy.example.com' with binding \
         'demo-binding-test.example.com' denied request: failed expression: object.spec.replicas <= 5"
    );
    assert_eq!(refused.expect(422)["reason"], "Invalid");
    server.post(DEPLOYMENTS, &deployment("nginx", 5)).await.expect(201);
    // Scaling is a write of its own.
    let scale = json!({ "spec": { "replicas": 9 } });
    server.merge(&format!("{DEPLOYMENTS}/nginx/scale"), &scale).await.expect(200);
    let rule = json!({ "apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["deployments/scale"] });
    let scales = json!({
        "matchConstraints": { "resourceRules": [rule] },
        "validations": [{ "expression": "object.kind == 'Scale' && object.spec.replicas <= 5", "reason": "Forbidden" }],
    });
    install(&server, &policy("Validating", "scales", "", "", scales)).await;
    install(&server, &binding("Validating", "scales", "scales", json!({}))).await;
    server.merge(&format!("{DEPLOYMENTS}/nginx/scale"), &json!({ "spec": { "replicas": 8 } })).await.expect(403);
    server.merge(&format!("{DEPLOYMENTS}/nginx/scale"), &json!({ "spec": { "replicas": 4 } })).await.expect(200);
}

#[tokio::test]
async fn params_variables_messages_and_the_authorizer() {
    let server = TestServer::start().await;
    let rules = json!({
        "paramKind": { "apiVersion": "v1", "kind": "ConfigMap" },
        "matchConditions": [{ "name": "not-params", "expression": "!('limit' in object.data)" }],
        "variables": [
            { "name": "size", "expression": "size(object.data)" },
            { "name": "limit", "expression": "int(params.data.limit)" },
        ],
        "validations": [
            { "expression": "variables.size <= variables.limit", "messageExpression": "string(variables.size) + ' entries in ' + namespaceObject.metadata.name + ', at most ' + string(variables.limit)" },
            { "expression": "authorizer.group('').resource('secrets').namespace(request.namespace).check('create').allowed()", "message": "only for those who may create secrets" },
        ],
    });
    install(&server, &policy("Validating", "sized", "", "configmaps", rules)).await;
    let by_name =
        json!({ "paramRef": { "name": "limits", "namespace": "default", "parameterNotFoundAction": "Deny" } });
    install(&server, &binding("Validating", "sized", "sized", by_name)).await;
    let refused = server.post(MAPS, &config_map("m")).await;
    assert!(
        refused.message().ends_with(
            "'sized' with binding 'sized' denied request: failed to configure binding: no params found for policy binding with \
             `Deny` parameterNotFoundAction"
        ),
        "{}",
        refused.message()
    );
    // The params cannot be written while the binding denies for want of them.
    let bindings = format!("{API}/validatingadmissionpolicybindings/sized");
    let allow = json!({ "spec": { "paramRef": { "parameterNotFoundAction": "Allow" } } });
    server.merge(&bindings, &allow).await.expect(200);
    let mut limits = config_map("limits");
    limits["data"] = json!({ "limit": "1" });
    server.post(MAPS, &limits).await.expect(201);
    server.post(MAPS, &config_map("m")).await.expect(201);
    let mut large = config_map("large");
    large["data"]["b"] = json!("2");
    let refused = server.post(MAPS, &large).await;
    assert!(refused.message().ends_with("denied request: 2 entries in default, at most 1"), "{}", refused.message());

    // A user who may write config maps but no secrets.
    let role = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": "maps" },
        "rules": [{ "apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"] }] });
    server.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", &role).await.expect(201);
    let bound = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": "maps" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "maps" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ada" }] });
    server.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &bound).await.expect(201);
    let as_ada = [("content-type", "application/json"), ("impersonate-user", "ada")];
    let refused = server.request("POST", MAPS, &as_ada, config_map("n").to_string()).await;
    assert!(refused.message().ends_with("only for those who may create secrets"), "{}", refused.message());

    // A variable that fails is told by name; the failure policy decides.
    let unlimited = json!({ "data": { "limit": null, "bound": "1" } });
    server.merge(&format!("{MAPS}/limits"), &unlimited).await.expect(200);
    let warn = json!({ "spec": { "validationActions": ["Warn", "Audit"] } });
    server.merge(&bindings, &warn).await.expect(200);
    let written = server.post(MAPS, &config_map("warned")).await;
    let warning = written.headers["warning"].to_str().expect("text").to_owned();
    assert!(
        warning.contains("Validation failed for ValidatingAdmissionPolicy 'sized' with binding 'sized'"),
        "{warning}"
    );
    written.expect(201);
    server.merge(&bindings, &json!({ "spec": { "validationActions": ["Deny"] } })).await.expect(200);
    let refused = server.post(MAPS, &config_map("o")).await;
    let words = "expression 'variables.size <= variables.limit' resulted in error: composited variable \"limit\" fails to evaluate: no such key: limit";
    assert!(refused.message().ends_with(words), "{}", refused.message());
    let ignore = json!({ "spec": { "failurePolicy": "Ignore" } });
    server.merge(&format!("{API}/validatingadmissionpolicies/sized"), &ignore).await.expect(200);
    server.post(MAPS, &config_map("o")).await.expect(201);
}

#[tokio::test]
async fn expressions_that_cannot_be_are_refused_when_they_are_written() {
    let server = TestServer::start().await;
    let rules = json!({
        "variables": [{ "name": "1x", "expression": "1" }],
        "validations": [{ "expression": "object.spec.replicas <= params.max" }, { "expression": "'text'" }],
    });
    let bad = policy("Validating", "bad", "apps", "deployments", rules);
    let refused = server.post(&format!("{API}/validatingadmissionpolicies"), &bad).await;
    for words in [
        "spec.validations[0].expression: Invalid value: \"object.spec.replicas <= params.max\": compilation failed: ERROR: <input>:1:25: undeclared reference to 'params'",
        "spec.validations[1].expression: Invalid value: \"'text'\": must evaluate to bool but got string",
        "spec.variables[0].name: Invalid value: \"1x\": name is not a valid CEL identifier",
    ] {
        assert!(refused.message().contains(words), "{}", refused.message());
    }
    refused.expect(422);
    let rules = json!({ "reinvocationPolicy": "Never", "mutations": [
        { "patchType": "JSONPatch", "jsonPatch": { "expression": "Object{}" } },
        { "patchType": "ApplyConfiguration", "jsonPatch": { "expression": "[]" } },
    ] });
    let bad = policy("Mutating", "bad", "apps", "deployments", rules);
    let refused = server.post(&format!("{API}/mutatingadmissionpolicies"), &bad).await;
    for words in
        ["must evaluate to list(JSONPatch) but got Object", "spec.mutations[1].applyConfiguration: Required value"]
    {
        assert!(refused.message().contains(words), "{}", refused.message());
    }
}

#[tokio::test]
async fn mutating_policies_merge_and_patch() {
    let server = TestServer::start().await;
    let merge = "Object{metadata: Object.metadata{labels: {'by': 'policy'}}, spec: Object.spec{template: Object.spec.template{spec: \
                 Object.spec.template.spec{initContainers: [Object.spec.template.spec.initContainers{name: 'proxy', image: 'mesh', restartPolicy: 'Always'}]}}}}";
    let operations = "has(object.metadata.annotations) ? [] : [JSONPatch{op: 'add', path: '/metadata/annotations', value: \
                      {'example.com/labels': string(size(object.metadata.labels))}}]";
    let rules = json!({
        "reinvocationPolicy": "IfNeeded",
        "matchConditions": [{ "name": "once", "expression": "!has(object.spec.template.spec.initContainers)" }],
        "mutations": [
            { "patchType": "ApplyConfiguration", "applyConfiguration": { "expression": merge } },
            { "patchType": "JSONPatch", "jsonPatch": { "expression": operations } },
        ],
    });
    install(&server, &policy("Mutating", "sidecar", "apps", "deployments", rules)).await;
    install(&server, &binding("Mutating", "sidecar", "sidecar", json!({}))).await;
    let created = server.post(DEPLOYMENTS, &deployment("web", 1)).await.expect(201);
    assert_eq!(created["metadata"]["labels"], json!({ "by": "policy" }));
    assert_eq!(created["metadata"]["annotations"], json!({ "example.com/labels": "1" }));
    let pod = &created["spec"]["template"]["spec"];
    assert_eq!((&pod["containers"][0]["name"], &pod["initContainers"][0]["name"]), (&json!("c"), &json!("proxy")));
    assert_eq!(pod["initContainers"][0]["terminationMessagePath"], "/dev/termination-log", "defaults are set after");

    let atomic = json!({ "reinvocationPolicy": "Never", "mutations": [{ "patchType": "ApplyConfiguration", "applyConfiguration": {
        "expression": "Object{spec: Object.spec{selector: Object.spec.selector{matchLabels: {'a': 'b'}}}}" } }] });
    install(&server, &policy("Mutating", "atomic", "apps", "deployments", atomic)).await;
    install(&server, &binding("Mutating", "atomic", "atomic", json!({}))).await;
    let refused = server.post(DEPLOYMENTS, &deployment("api", 1)).await;
    assert_eq!(
        refused.message(),
        "policy 'atomic' with binding 'atomic' denied request: error applying patch: invalid ApplyConfiguration: may not mutate \
         atomic arrays, maps or structs: .spec.selector"
    );
    assert_eq!(refused.expect(403)["reason"], "Invalid");

    let unknown = json!({ "reinvocationPolicy": "Never", "mutations": [{ "patchType": "ApplyConfiguration", "applyConfiguration": {
        "expression": "Object{foo: 'x'}" } }] });
    install(&server, &policy("Mutating", "unknown", "", "configmaps", unknown)).await;
    install(&server, &binding("Mutating", "unknown", "unknown", json!({}))).await;
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" } });
    let refused = server.post("/api/v1/namespaces/default/configmaps", &map).await;
    assert_eq!(
        refused.message(),
        "policy 'unknown' with binding 'unknown' denied request: error applying patch: failed to convert patch object to typed \
         object: .foo: field not declared in schema"
    );
}
