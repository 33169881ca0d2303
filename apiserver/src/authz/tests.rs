//! Who may do what, on a cluster with the default roles.

use serde_json::json;

use super::{Attributes, Authorizer, forbidden};
use crate::{
    admission::Operation,
    identity::{
        UserInfo,
        fixture::{World, write},
    },
};

/// `verb group/resource[/subresource] [namespace] [name]`, or `verb /path`; `-` for an empty part.
fn question<'a>(user: &'a UserInfo, text: &'a str) -> Attributes<'a> {
    let parts: Vec<&str> = text.split(' ').map(|part| if part == "-" { "" } else { part }).collect();
    if parts[1].starts_with("/") && parts.len() == 2 {
        return Attributes { is_resource: false, path: parts[1], ..Attributes::resource(user, parts[0], "", "") };
    }
    let (resource, selector) = parts[1].split_once('?').unwrap_or((parts[1], ""));
    let mut place = resource.splitn(3, '/');
    let (group, resource, subresource) =
        (place.next().unwrap_or_default(), place.next().unwrap_or_default(), place.next().unwrap_or_default());
    Attributes {
        namespace: parts.get(2).copied().unwrap_or_default(),
        name: parts.get(3).copied().unwrap_or_default(),
        subresource,
        field_selector: selector,
        ..Attributes::resource(user, parts[0], if group == "core" { "" } else { group }, resource)
    }
}

fn reader_world() -> World {
    let world = World::with_roles();
    world.put(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "namespace": "rec", "name": "reader" },
        "rules": [{ "apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"] }],
    }));
    world.put(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "namespace": "rec", "name": "reader" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader" },
        "subjects": [{ "kind": "User", "name": "dev-user" }, { "kind": "ServiceAccount", "name": "bot" }],
    }));
    world
}

#[tokio::test]
async fn nobody_gets_further_than_their_roles() {
    let world = reader_world();
    let (_, authorizer) = world.authorizers();
    let strangers = [
        UserInfo::anonymous(),
        UserInfo::new("stranger", [] as [&str; 0]),
        UserInfo::service_account("other", "bot"),
        UserInfo::new("reader", ["pods"]),
    ];
    for verb in [
        "get",
        "list",
        "watch",
        "create",
        "update",
        "patch",
        "delete",
        "deletecollection",
        "impersonate",
        "escalate",
        "bind",
    ] {
        for resource in [
            "core/pods",
            "core/secrets",
            "apps/deployments",
            "rbac.authorization.k8s.io/clusterroles",
            "core/nodes",
            "core/users",
            "core/serviceaccounts/token",
            "core/pods/exec",
        ] {
            for user in &strangers {
                let text = format!("{verb} {resource} rec x");
                assert!(!authorizer.authorize(&question(user, &text)).allowed(), "{} may {text}", user.name);
            }
            let master = UserInfo::new("root", ["system:masters"]);
            assert!(authorizer.authorize(&question(&master, &format!("{verb} {resource} rec x"))).allowed());
        }
    }
    for (user, path, expect) in [
        (UserInfo::anonymous(), "/version", true),
        (UserInfo::anonymous(), "/healthz", true),
        (UserInfo::anonymous(), "/metrics", false),
        (UserInfo::anonymous(), "/api", false),
        (UserInfo::new("dev", [] as [&str; 0]), "/api/v1", true),
        (UserInfo::new("dev", [] as [&str; 0]), "/openapi/v3", true),
        (UserInfo::new("dev", [] as [&str; 0]), "/metrics", false),
    ] {
        assert_eq!(
            authorizer.authorize(&question(&user, &format!("get {path}"))).allowed(),
            expect,
            "{} {path}",
            user.name
        );
    }
}

#[tokio::test]
async fn answers_say_why() {
    let world = reader_world();
    let (rbac, authorizer) = world.authorizers();
    for (user, text, expect) in [
        (
            UserInfo::new("dev-user", [] as [&str; 0]),
            "list core/pods rec",
            r#"RBAC: allowed by RoleBinding "reader/rec" of Role "reader" to User "dev-user""#,
        ),
        (
            UserInfo::service_account("rec", "bot"),
            "get core/pods rec p",
            r#"RBAC: allowed by RoleBinding "reader/rec" of Role "reader" to ServiceAccount "bot/rec""#,
        ),
        (
            UserInfo::service_account("kube-system", "cronjob-controller"),
            "create batch/jobs rec",
            r#"RBAC: allowed by ClusterRoleBinding "system:controller:cronjob-controller" of ClusterRole "system:controller:cronjob-controller" to ServiceAccount "cronjob-controller/kube-system""#,
        ),
    ] {
        let verdict = authorizer.authorize(&question(&user, text));
        assert!(verdict.allowed() && verdict.reason == expect, "{text}: {verdict:?}");
    }
    let dev = UserInfo::new("dev-user", [] as [&str; 0]);
    for (text, expect) in [
        (
            "list core/secrets rec",
            r#"secrets is forbidden: User "dev-user" cannot list resource "secrets" in API group "" in the namespace "rec""#,
        ),
        (
            "create apps/deployments rec",
            r#"deployments.apps is forbidden: User "dev-user" cannot create resource "deployments" in API group "apps" in the namespace "rec""#,
        ),
        (
            "get core/pods/log rec p1",
            r#"pods "p1" is forbidden: User "dev-user" cannot get resource "pods/log" in API group "" in the namespace "rec""#,
        ),
        (
            "list core/nodes",
            r#"nodes is forbidden: User "dev-user" cannot list resource "nodes" in API group "" at the cluster scope"#,
        ),
        ("get /metrics", r#"forbidden: User "dev-user" cannot get path "/metrics""#),
    ] {
        let asked = question(&dev, text);
        let verdict = authorizer.authorize(&asked);
        assert!(!verdict.allowed());
        assert_eq!(forbidden(&asked, &verdict.reason).message, expect);
    }
    // A change of roles counts at once, and a binding to nothing says so.
    let roles = minik8s_api::kinds::GroupResource::new("rbac.authorization.k8s.io", "roles");
    world.delete(&roles, "rec", "reader");
    let verdict = rbac.authorize(&question(&dev, "list core/pods rec"));
    assert!(!verdict.allowed());
    assert_eq!(verdict.reason, r#"RBAC: role.rbac.authorization.k8s.io "reader" not found"#);
}

#[tokio::test]
async fn nodes_read_what_their_pods_refer_to() {
    let world = World::with_roles();
    let (_, authorizer) = world.authorizers();
    let pod = |name: &str, node: &str| {
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "namespace": "a", "name": name }, "spec": {
            "nodeName": node, "serviceAccountName": format!("sa-{name}"),
            "imagePullSecrets": [{ "name": format!("pull-{name}") }],
            "containers": [{ "name": "c", "env": [{ "name": "X", "valueFrom": { "secretKeyRef": { "name": format!("env-{name}"), "key": "k" } } }] }],
            "volumes": [
                { "name": "s", "secret": { "secretName": format!("secret-{name}") } },
                { "name": "p", "projected": { "sources": [{ "configMap": { "name": format!("config-{name}") } }] } },
                { "name": "v", "persistentVolumeClaim": { "claimName": format!("claim-{name}") } },
            ] } })
    };
    world.put(pod("one", "n1"));
    world.put(pod("two", "n2"));
    world.put(json!({ "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": "pv-one" }, "spec": { "claimRef": { "namespace": "a", "name": "claim-one" } } }));
    for (name, node) in [("mine", "n1"), ("theirs", "n2")] {
        world.put(json!({ "apiVersion": "certificates.k8s.io/v1", "kind": "PodCertificateRequest", "metadata": { "namespace": "a", "name": name }, "spec": { "nodeName": node } }));
    }
    let node = UserInfo::node("n1");
    for (text, expect) in [
        ("get core/secrets a secret-one", true),
        ("get core/secrets a env-one", true),
        ("get core/secrets a pull-one", true),
        ("watch core/secrets a secret-one", true),
        ("list core/secrets a -", false),
        ("list core/secrets - -", false),
        ("get core/secrets a secret-two", false),
        ("get core/secrets b secret-one", false),
        ("update core/secrets a secret-one", false),
        ("get core/configmaps a config-one", true),
        ("get core/configmaps a config-two", false),
        ("get core/persistentvolumeclaims a claim-one", true),
        ("get core/persistentvolumes - pv-one", true),
        ("get core/persistentvolumes - pv-two", false),
        ("create core/serviceaccounts/token a sa-one", true),
        ("create core/serviceaccounts/token a sa-two", false),
        ("get core/serviceaccounts a sa-one", true),
        ("get core/serviceaccounts a sa-two", false),
        ("get core/pods a one", true),
        ("get core/pods a two", false),
        ("list core/pods?spec.nodeName=n1", true),
        ("watch core/pods?spec.nodeName=n1", true),
        ("list core/pods?spec.nodeName=n2", false),
        ("list core/pods", false),
        ("update core/pods/status a one", true),
        ("create core/pods/exec a one", false),
        ("get certificates.k8s.io/podcertificaterequests a mine", true),
        ("get certificates.k8s.io/podcertificaterequests a theirs", false),
        ("create certificates.k8s.io/podcertificaterequests a", true),
        ("watch certificates.k8s.io/podcertificaterequests?spec.nodeName=n1", true),
        ("watch certificates.k8s.io/podcertificaterequests?spec.nodeName=n2", false),
        ("update certificates.k8s.io/podcertificaterequests/status a mine", false),
        ("get core/nodes - n1", true),
        ("get core/nodes - n2", false),
        ("patch core/nodes/status - n1", true),
        ("delete core/nodes - n1", false),
        ("update coordination.k8s.io/leases kube-node-lease n1", true),
        ("update coordination.k8s.io/leases kube-node-lease n2", false),
        ("update coordination.k8s.io/leases kube-system n1", false),
        ("create core/events a", true),
        ("list core/services -", true),
        ("create authentication.k8s.io/tokenreviews -", true),
        ("create core/pods/binding a one", false),
        ("list apps/deployments a", false),
    ] {
        assert_eq!(authorizer.authorize(&question(&node, text)).allowed(), expect, "{text}");
    }
    let impostor = UserInfo::new("system:node:n1", [] as [&str; 0]);
    assert!(!authorizer.authorize(&question(&impostor, "get core/secrets a secret-one")).allowed());
}

#[tokio::test]
async fn nobody_grants_what_they_do_not_hold() {
    let world = reader_world();
    let chain = world.chain();
    world.put(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "rec" } }));
    let role = |name: &str, verbs: serde_json::Value| json!({ "kind": "Role", "metadata": { "namespace": "rec", "name": name }, "rules": [{ "apiGroups": [""], "resources": ["pods"], "verbs": verbs }] });
    let binding = |kind: &str, name: &str| json!({ "kind": "RoleBinding", "metadata": { "namespace": "rec", "name": "b" }, "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name } });
    let group = "rbac.authorization.k8s.io";
    let missing = |verbs: &str| {
        format!(
            "user \"dev-user\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[{verbs}]}}"
        )
    };
    let dev = UserInfo::new("dev-user", [] as [&str; 0]);
    for (resource, object, expect) in [
        ("roles", role("r", json!(["get"])), None),
        (
            "roles",
            role("r", json!(["get", "delete"])),
            Some(format!(r#"roles.{group} "r" is forbidden: {}"#, missing(r#""delete""#))),
        ),
        ("rolebindings", binding("Role", "reader"), None),
        ("rolebindings", binding("Role", "ghost"), Some(format!(r#"rolebindings.{group} "ghost" not found"#))),
    ] {
        let attributes = write(Operation::Create, (group, resource), &object, None, &dev);
        let refused = chain.validate(&attributes).await.err().map(|status| status.message);
        assert_eq!(refused, expect, "{object}");
    }
    let admin = binding("ClusterRole", "cluster-admin");
    let refused = chain
        .validate(&write(Operation::Create, (group, "rolebindings"), &admin, None, &dev))
        .await
        .expect_err("refused");
    assert!(refused.message.contains(r#"{NonResourceURLs:["*"], Verbs:["*"]}"#), "{}", refused.message);
    let master = UserInfo::new("root", ["system:masters"]);
    chain
        .validate(&write(Operation::Create, (group, "rolebindings"), &admin, None, &master))
        .await
        .expect("masters grant anything");

    // The labels of a role decide who gets its rules: changing them is granting.
    let (old, mut new) = (role("big", json!(["*"])), role("big", json!(["*"])));
    new["metadata"]["ownerReferences"] = json!([]);
    chain
        .validate(&write(Operation::Update, (group, "roles"), &new, Some(&old), &dev))
        .await
        .expect("the garbage collector's fields are free");
    new["metadata"]["labels"] = json!({ "rbac.authorization.k8s.io/aggregate-to-view": "true" });
    chain
        .validate(&write(Operation::Update, (group, "roles"), &new, Some(&old), &dev))
        .await
        .expect_err("labels are not");
}
