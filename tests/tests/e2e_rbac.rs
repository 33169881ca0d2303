//! The chapter's section on RBAC and resources: who may do what, and how much a namespace may hold.

use minik8s_tests::Cluster;
use minik8s_tests::tools::workspace;

/// Role, binding, limits and quota as the chapter has them.
fn team(cluster: &Cluster) {
    for name in ["00-namespace", "rbac", "limits", "quota"] {
        let path = workspace().join(format!("examples/team/{name}.yaml"));
        cluster.kubectl(&format!("apply -f {}", path.display())).ok();
    }
}

#[test]
fn roles_grant_what_they_list_and_no_more() {
    let cluster = Cluster::start(&[]);
    team(&cluster);
    let can = |what: &str| cluster.kubectl(&format!("auth can-i {what}"));

    let refused = can("create deployments --namespace dev --as dev-user");
    assert_eq!((refused.code, refused.stdout.as_str()), (1, "no\n"));
    assert_eq!(can("list pods -n dev --as dev-user --as-group dev-team").ok(), "yes\n");
    assert_eq!(can("get pods --subresource=log -n dev --as dev-user --as-group dev-team").ok(), "yes\n");
    for what in ["delete pods -n dev", "list pods -n default", "list secrets -n dev"] {
        assert_eq!(can(&format!("{what} --as dev-user --as-group dev-team")).stdout, "no\n", "{what}");
    }
    assert_eq!(can("watch pods -n dev --as system:serviceaccount:dev:build").ok(), "yes\n");
    let list = can("--list -n dev --as dev-user --as-group dev-team").ok();
    assert!(
        list.lines().any(|line| line.split_whitespace().eq(["pods", "[]", "[]", "[get", "list", "watch]"])),
        "{list}"
    );

    let bindings = cluster.kubectl("get rolebindings -n dev").table();
    assert_eq!(bindings[0], ["NAME", "ROLE", "AGE"]);
    assert_eq!(bindings[1][..2], ["dev-pod-reader", "Role/pod-reader"]);

    let forbidden = cluster.kubectl("get secrets -n dev --as dev-user").fails();
    assert_eq!(
        forbidden.trim(),
        "Error from server (Forbidden): secrets is forbidden: User \"dev-user\" cannot list resource \"secrets\" in API group \"\" in the namespace \"dev\""
    );
    let escalation = "create role wide -n dev --verb=* --resource=* --as dev-user --as-group dev-team";
    assert!(cluster.kubectl(escalation).fails().contains("cannot create resource \"roles\""));
}

#[test]
fn a_namespace_holds_as_much_as_its_quota() {
    let cluster = Cluster::start(&[]);
    team(&cluster);

    // Who asks for nothing gets the defaults, and more than the most is refused.
    cluster.kubectl("run small --image=nginx:1.27 -n dev").ok();
    let resources = "get pod small -n dev -o jsonpath={.spec.containers[0].resources}";
    assert_eq!(
        cluster.kubectl(resources).ok(),
        r#"{"limits":{"cpu":"200m","memory":"256Mi"},"requests":{"cpu":"100m","memory":"128Mi"}}"#
    );
    let big = r#"{"spec":{"containers":[{"name":"big","image":"nginx:1.27","resources":{"limits":{"cpu":"3","memory":"1Gi"}}}]}}"#;
    let refused = cluster.kubectl(&format!("run big -n dev --image=nginx:1.27 --overrides='{big}'")).fails();
    assert!(refused.contains("maximum cpu usage per Container is 2, but limit is 3"), "{refused}");

    cluster.until_is("get quota dev-quota -n dev -o 'jsonpath={.status.used.requests\\.memory}'", "128Mi");
    let described = cluster.kubectl("describe resourcequota dev-quota -n dev").ok();
    let row = |words: [&str; 3]| described.lines().any(|line| line.split_whitespace().eq(words));
    assert!(row(["Resource", "Used", "Hard"]) && row(["requests.memory", "128Mi", "20Gi"]), "{described}");
    assert!(row(["pods", "1", "50"]), "{described}");

    // The chapter's exercise: 1Gi for a namespace, three pods of 512Mi.
    cluster.kubectl("create namespace small").ok();
    cluster.kubectl("create quota memory -n small --hard=requests.memory=1Gi").ok();
    cluster.apply(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: small}\nspec:\n  replicas: 3\n  selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    spec:\n      containers:\n      - {name: web, image: 'nginx:1.27', resources: {requests: {memory: 512Mi}}}\n",
    );
    cluster.until_is("get deployment web -n small -o jsonpath={.status.readyReplicas}", "2");
    let events = cluster.until_shows("describe rs -n small", "exceeded quota: memory");
    let words = "is forbidden: exceeded quota: memory, requested: requests.memory=512Mi, used: requests.memory=1Gi, limited: requests.memory=1Gi";
    assert!(events.contains(words), "{events}");
    assert!(events.contains("FailedCreate"), "{events}");
    let condition =
        "get deployment web -n small -o 'jsonpath={.status.conditions[?(@.type==\"ReplicaFailure\")].reason}'";
    cluster.until_is(condition, "FailedCreate");

    // A pod that says nothing of what is limited is told so.
    let refused = cluster.kubectl("run bare -n small --image=nginx:1.27").fails();
    assert!(refused.contains("failed quota: memory: must specify requests.memory for: bare"), "{refused}");
    // Room that is made is taken.
    cluster.kubectl("patch quota memory -n small -p '{\"spec\":{\"hard\":{\"requests.memory\":\"2Gi\"}}}'").ok();
    cluster.until_is("get deployment web -n small -o jsonpath={.status.readyReplicas}", "3");
}
