//! Nobody gets further than he may: who has a role, may act as somebody, or is a node, gets no more by it. Over the TLS
//! listener, as an attacker would come. Who has no role at all is in [`crate::strangers`].

use http::StatusCode;
use serde_json::{Value, json};

use crate::fortress::{Credential, Fortress, config_map};

fn role(kind: &str, name: &str, resource: &str) -> Value {
    json!({
        "kind": kind, "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": { "name": name },
        "rules": [{ "apiGroups": [""], "resources": [resource], "verbs": ["get"] }],
    })
}

fn binding(kind: &str, name: &str, of: &str) -> Value {
    let of_kind = if of.starts_with("role:") { "Role" } else { "ClusterRole" };
    json!({
        "kind": kind, "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": of_kind, "name": of.trim_start_matches("role:") },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "deputy" }],
    })
}

/// Somebody who may write roles and bindings, but holds little, does not get more by it.
#[tokio::test]
async fn nobody_gives_what_he_does_not_hold() {
    let fortress = Fortress::build().await;
    let deputy = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "deputy" });
    let rules = json!([
        { "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings", "clusterroles", "clusterrolebindings"], "verbs": ["get", "create", "update", "patch", "delete"] },
        { "apiGroups": [""], "resources": ["pods"], "verbs": ["get"] },
    ]);
    fortress.grant("", "deputy", rules, deputy).await;
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/ns/roles";
    fortress.put(roles, &role("Role", "secretive", "secrets")).await;
    fortress.put(roles, &role("Role", "modest", "pods")).await;
    let deputy = fortress.user("deputy", None);
    let more = json!({ "rules": [{ "apiGroups": [""], "resources": ["secrets"], "verbs": ["get"] }] });
    let aggregate = json!({ "kind": "ClusterRole", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": { "name": "all" }, "aggregationRule": { "clusterRoleSelectors": [{}] } });
    for (door, words) in [
        (("POST", roles, role("Role", "a", "secrets")), "is attempting to grant RBAC permissions not currently held"),
        (
            ("PUT", "/apis/rbac.authorization.k8s.io/v1/namespaces/ns/roles/modest", role("Role", "modest", "secrets")),
            "not currently held",
        ),
        (
            ("PATCH", "/apis/rbac.authorization.k8s.io/v1/namespaces/ns/roles/modest", more.clone()),
            "not currently held",
        ),
        (
            ("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", role("ClusterRole", "a", "secrets")),
            "not currently held",
        ),
        (
            (
                "PATCH",
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/view",
                json!({ "rules": [{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }] }),
            ),
            "not currently held",
        ),
        (
            ("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", aggregate),
            "must have cluster-admin privileges to use the aggregationRule",
        ),
        (
            (
                "POST",
                "/apis/rbac.authorization.k8s.io/v1/namespaces/ns/rolebindings",
                binding("RoleBinding", "a", "role:secretive"),
            ),
            "not currently held",
        ),
        (
            (
                "POST",
                "/apis/rbac.authorization.k8s.io/v1/namespaces/ns/rolebindings",
                binding("RoleBinding", "b", "admin"),
            ),
            "not currently held",
        ),
        (
            (
                "POST",
                "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
                binding("ClusterRoleBinding", "c", "cluster-admin"),
            ),
            "not currently held",
        ),
        (
            (
                "PUT",
                "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/cluster-admin",
                binding("ClusterRoleBinding", "cluster-admin", "cluster-admin"),
            ),
            "not currently held",
        ),
    ] {
        let (code, message) = fortress.knock(&deputy, &door).await;
        assert!(code == 403 && message.contains(words), "{} {}: {code} {message}", door.0, door.1);
    }
    // What he holds he may give.
    let given = fortress.knock(&deputy, &("POST", roles, role("Role", "own", "pods"))).await;
    assert_eq!(given.0, 201, "{}", given.1);
    let bound = binding("RoleBinding", "own", "role:own");
    let bound = fortress
        .knock(&deputy, &("POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/ns/rolebindings", bound))
        .await;
    assert_eq!(bound.0, 201, "{}", bound.1);

    // The verbs `escalate` and `bind` allow it, each its own and in its own namespace.
    for (name, resource, verb) in [("climber", "roles", "escalate"), ("binder", "roles", "bind")] {
        let subject = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name });
        let rules = json!([
            { "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"], "verbs": ["create"] },
            { "apiGroups": ["rbac.authorization.k8s.io"], "resources": [resource], "verbs": [verb] },
        ]);
        fortress.grant("ns", name, rules, subject).await;
    }
    let (climber, binder) = (fortress.user("climber", None), fortress.user("binder", None));
    let create = ("POST", roles, role("Role", "climbed", "secrets"));
    let bind = (
        "POST",
        "/apis/rbac.authorization.k8s.io/v1/namespaces/ns/rolebindings",
        binding("RoleBinding", "bound", "role:secretive"),
    );
    assert_eq!(fortress.knock(&binder, &create).await.0, 403);
    assert_eq!(fortress.knock(&climber, &bind).await.0, 403);
    assert_eq!(fortress.knock(&climber, &create).await.0, 201);
    assert_eq!(fortress.knock(&binder, &bind).await.0, 201);
    let elsewhere =
        ("POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/other/roles", role("Role", "climbed", "secrets"));
    assert_eq!(fortress.knock(&climber, &elsewhere).await.0, 403);
}

/// What an update would create needs the right to create, and so does a connection into a pod, whatever its method.
#[tokio::test]
async fn nobody_creates_by_another_verb() {
    let fortress = Fortress::build().await;
    let subject = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "editor" });
    let verbs = ["get", "update", "patch", "deletecollection"];
    let rules = json!([
        { "apiGroups": ["", "coordination.k8s.io"], "resources": ["configmaps", "leases", "pods/exec", "pods/attach", "pods/portforward"], "verbs": verbs },
        { "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["one"], "verbs": verbs },
    ]);
    fortress.grant("ns", "editor", rules, subject).await;
    let editor = fortress.user("editor", None);
    let lease = json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": "new" } });
    let applied = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "new" } });
    let configmap = "/api/v1/namespaces/ns/configmaps/new?fieldManager=m";
    for (door, words) in [
        (("PUT", "/apis/coordination.k8s.io/v1/namespaces/ns/leases/new", lease), "cannot create resource \"leases\""),
        (("APPLY", configmap, applied), "cannot create resource \"configmaps\""),
        (("GET", "/api/v1/namespaces/ns/pods/p/exec?command=id", Value::Null), "pods \"p\" is forbidden"),
        (("GET", "/api/v1/namespaces/ns/pods/p/attach", Value::Null), "pods \"p\" is forbidden"),
        (("GET", "/api/v1/namespaces/ns/pods/p/portforward?ports=80", Value::Null), "pods \"p\" is forbidden"),
        (
            ("DELETE", "/api/v1/namespaces/ns/secrets?fieldSelector=metadata.name%3Done", Value::Null),
            "cannot deletecollection resource \"secrets\"",
        ),
    ] {
        let (code, message) = fortress.knock(&editor, &door).await;
        assert!(code == 403 && message.contains(words), "{} {}: {code} {message}", door.0, door.1);
    }
}

/// Each thing that is taken on needs its own permission.
#[tokio::test]
async fn nobody_acts_as_whom_he_may_not() {
    let fortress = Fortress::build().await;
    let actor = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "actor" });
    let rules = json!([
        { "apiGroups": [""], "resources": ["users"], "verbs": ["impersonate"], "resourceNames": ["dev"] },
        { "apiGroups": [""], "resources": ["groups"], "verbs": ["impersonate"], "resourceNames": ["devs"] },
    ]);
    fortress.grant("", "actor", rules, actor).await;
    let actor = fortress.user("actor", None);
    let door = ("GET", "/api/v1/namespaces/ns/secrets/of-n1", Value::Null);
    let (user, group, uid) = ("impersonate-user", "impersonate-group", "impersonate-uid");
    // What is told is the refusal of the first way to be somebody else, which is not the one that he has a part of.
    let other = r#"cannot impersonate-on:user-info:get resource "secrets""#;
    for (headers, words) in [
        (vec![(user, "kubernetes-admin")], other),
        (vec![(user, "dev"), (group, "system:masters")], other),
        (vec![(user, "dev"), (group, "devs"), (group, "system:masters")], other),
        (vec![(user, "dev"), (uid, "1")], other),
        (vec![(user, "dev"), ("impersonate-extra-scopes", "all")], other),
        (
            vec![(user, "system:serviceaccount:ns:default")],
            r#"cannot impersonate-on:serviceaccount:get resource "secrets""#,
        ),
        (vec![(user, "system:node:n1"), (group, "system:nodes")], r#"cannot impersonate resource "users""#),
    ] {
        let (code, message) = fortress.knock(&actor.acting(&headers), &door).await;
        assert!(code == 403 && message.contains(words), "{headers:?}: {code} {message}");
    }
    let (code, _) = fortress.knock(&actor.acting(&[(group, "system:masters")]), &door).await;
    assert_eq!(code, 400, "a group without a user");
    let nobody = Credential::default().acting(&[(user, "kubernetes-admin"), (group, "system:masters")]);
    assert_eq!(fortress.knock(&nobody, &door).await.0, 403);
    // Whom he may act as has no rights of his.
    let (code, message) = fortress.knock(&actor.acting(&[(user, "dev"), (group, "devs")]), &door).await;
    assert!(code == 403 && message.contains(r#"User "dev" cannot get resource "secrets""#), "{code} {message}");
}

/// A kubelet reads and writes what belongs to its own node.
#[tokio::test]
async fn a_node_keeps_to_itself() {
    let fortress = Fortress::build().await;
    let (mine, other) =
        (fortress.user("system:node:n1", Some("system:nodes")), fortress.user("system:node:n2", Some("system:nodes")));
    let status = json!({ "status": { "phase": "Running" } });
    let uid =
        fortress.listening.server.get("/api/v1/namespaces/ns/pods/on-n2").await.expect(200)["metadata"]["uid"].clone();
    let bound = json!({ "apiVersion": "v1", "kind": "Pod", "name": "on-n2", "uid": uid });
    let token = json!({ "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": { "boundObjectRef": bound } });
    let eviction = json!({ "kind": "Eviction", "apiVersion": "policy/v1", "metadata": { "name": "on-n2" } });
    let not_mirror = json!({ "kind": "Pod", "apiVersion": "v1", "metadata": { "name": "x" }, "spec": { "nodeName": "n1", "containers": [{ "name": "c", "image": "i" }] } });
    let label = json!({ "metadata": { "labels": { "node-restriction.kubernetes.io/zone": "safe" } } });
    for door in [
        ("GET", "/api/v1/namespaces/ns/pods/on-n2", Value::Null),
        ("GET", "/api/v1/namespaces/ns/secrets/of-n2", Value::Null),
        ("GET", "/api/v1/namespaces/ns/configmaps/of-n2", Value::Null),
        ("GET", "/api/v1/nodes/n2", Value::Null),
        ("PATCH", "/api/v1/namespaces/ns/pods/on-n2/status", status),
        ("POST", "/api/v1/namespaces/ns/serviceaccounts/of-n2/token", token),
        ("PATCH", "/api/v1/nodes/n2/status", json!({ "status": { "phase": "x" } })),
        ("PATCH", "/api/v1/nodes/n2", json!({ "metadata": { "labels": { "a": "b" } } })),
        ("GET", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n2", Value::Null),
        (
            "PATCH",
            "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n2",
            json!({ "spec": { "holderIdentity": "n1" } }),
        ),
        ("POST", "/api/v1/namespaces/ns/pods/on-n2/eviction", eviction),
    ] {
        let (code, message) = fortress.knock(&mine, &door).await;
        assert_eq!(code, 403, "{} {}: {message}", door.0, door.1);
        // For the other one it is its own.
        let (code, message) = fortress.knock(&other, &door).await;
        assert!((200..300).contains(&code), "{} {}: {code} {message}", door.0, door.1);
    }
    for door in [
        ("GET", "/api/v1/namespaces/ns/secrets", Value::Null),
        ("GET", "/api/v1/secrets", Value::Null),
        ("GET", "/api/v1/pods", Value::Null),
        ("GET", "/api/v1/pods?fieldSelector=spec.nodeName=n2", Value::Null),
        ("WATCH", "/api/v1/pods?watch=1&fieldSelector=spec.nodeName=n2", Value::Null),
        ("GET", "/api/v1/nodes", Value::Null),
        ("POST", "/api/v1/namespaces/ns/pods", not_mirror),
        ("POST", "/api/v1/namespaces/ns/configmaps", config_map("x")),
        ("PATCH", "/api/v1/nodes/n1", label),
        (
            "PATCH",
            "/api/v1/nodes/n1",
            json!({ "spec": { "taints": [] }, "metadata": { "ownerReferences": [{ "apiVersion": "v1", "kind": "Node", "name": "n2", "uid": "x" }] } }),
        ),
        ("DELETE", "/api/v1/nodes/n1", Value::Null),
        ("DELETE", "/api/v1/nodes/n2", Value::Null),
        ("DELETE", "/api/v1/namespaces/ns/pods/on-n2", Value::Null),
        ("DELETE", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n2", Value::Null),
        ("POST", "/api/v1/namespaces/ns/pods/on-n1/exec?command=sh&stdout=true", Value::Null),
    ] {
        let (code, message) = fortress.knock(&mine, &door).await;
        assert!(code == 403, "{} {}: {code} {message}", door.0, door.1);
    }
    // A pod of its own, but a token that is bound to none.
    let free = json!({ "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {} });
    let (code, message) =
        fortress.knock(&mine, &("POST", "/api/v1/namespaces/ns/serviceaccounts/of-n1/token", free)).await;
    assert_eq!(code, StatusCode::FORBIDDEN, "{message}");
}
