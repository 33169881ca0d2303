//! helm and kustomize against a cluster: the life of a release, hooks, waiting, overlays.

use std::fs;

use minik8s_tests::{Cluster, tools};
use serde_json::Value;

/// Hooks of a chart: a Job before the first install that must succeed, a ConfigMap after each upgrade, and a test.
const HOOKS: &str = r#"
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ .Release.Name }}-prepare
  annotations:
    helm.sh/hook: pre-install
    helm.sh/hook-delete-policy: before-hook-creation
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers:
      - {name: main, image: "busybox:1.36", command: [sh, -c, "echo prepared; exit {{ .Values.prepareExitCode | default 0 }}"]}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}-upgraded
  annotations: {helm.sh/hook: post-upgrade}
data:
  revision: {{ .Release.Revision | quote }}
"#;
/// A test of a release that needs no network: `helm create` makes one that does.
const TEST: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: {{ .Release.Name }}-test
  annotations: {helm.sh/hook: test}
spec:
  restartPolicy: Never
  containers:
  - {name: main, image: "busybox:1.36", command: [sh, -c, "echo tested"]}
"#;

/// A cluster with the chart that `helm create` makes, and hooks in it.
fn with_chart() -> Cluster {
    let cluster = Cluster::start(&["--nodes", "2"]);
    assert!(cluster.helm("create site").ok().contains("Creating site"));
    cluster.file("site/templates/hooks.yaml", HOOKS);
    cluster.file("site/templates/tests/test-connection.yaml", TEST);
    cluster
}

/// The rows of a helm command's JSON.
fn rows(cluster: &Cluster, line: &str) -> Vec<Value> {
    let answer = cluster.helm(&format!("{line} --output json")).json();
    answer.as_array().unwrap_or_else(|| panic!("{line}: {answer}")).clone()
}

#[test]
fn a_release_is_installed_upgraded_rolled_back_and_removed() {
    let cluster = with_chart();
    let installed = cluster.helm("install web site --wait --timeout 60s --set replicaCount=2").ok();
    assert!(installed.contains("STATUS: deployed") && installed.contains("REVISION: 1"), "{installed}");
    // --wait has waited.
    cluster.until_is("get deployment web-site -o jsonpath={.status.readyReplicas}", "2");
    assert_eq!(cluster.kubectl("logs job/web-prepare").ok(), "prepared\n", "the hook ran before");
    let [release] = &rows(&cluster, "list")[..] else { panic!("one release") };
    assert_eq!(
        (&release["name"], &release["status"], &release["chart"]),
        (&"web".into(), &"deployed".into(), &"site-0.1.0".into())
    );
    let secret = cluster.kubectl("get secret sh.helm.release.v1.web.v1 -o json").json();
    assert_eq!(secret["type"], "helm.sh/release.v1");
    assert_eq!(secret["metadata"]["labels"]["owner"], "helm");
    assert!(cluster.helm("install web site").fails().contains("cannot reuse a name that is still in use"));
    let tested = cluster.helm("test web --timeout 60s --logs").ok();
    assert!(tested.contains("Phase:          Succeeded") && tested.contains("tested"), "{tested}");

    cluster.helm("upgrade web site --wait --timeout 60s --set replicaCount=3 --set image.tag=1.27").ok();
    let image = "get deployment web-site -o jsonpath='{.spec.replicas} {.spec.template.spec.containers[0].image}'";
    assert_eq!(cluster.kubectl(image).ok(), "3 nginx:1.27");
    assert_eq!(cluster.kubectl("get configmap web-upgraded -o jsonpath={.data.revision}").ok(), "2");
    assert_eq!(cluster.helm("get values web --output json").json()["replicaCount"], 3);
    assert!(cluster.helm("get manifest web").ok().contains("image: \"nginx:1.27\""));

    cluster.helm("rollback web 1 --wait --timeout 60s").ok();
    cluster.until_is("get deployment web-site -o jsonpath={.status.replicas}", "2");
    let history = rows(&cluster, "history web");
    let statuses: Vec<_> = history.iter().map(|row| (row["revision"].as_i64(), row["status"].as_str())).collect();
    assert_eq!(statuses, [(Some(1), Some("superseded")), (Some(2), Some("superseded")), (Some(3), Some("deployed"))]);
    assert_eq!(history[2]["description"], "Rollback to 1");

    let removed = cluster.helm("uninstall web --wait --timeout 60s").ok();
    assert!(removed.contains("release \"web\" uninstalled"), "{removed}");
    cluster.until_is("get deployments,services,secrets -l app.kubernetes.io/instance=web -o name", "");
    assert!(rows(&cluster, "list").is_empty());
    assert!(cluster.helm("status web").fails().contains("release: not found"));
}

#[test]
fn a_failing_release_says_so_and_is_taken_back() {
    let cluster = with_chart();
    let error = cluster.helm("install bad site --set prepareExitCode=3 --timeout 60s").fails();
    assert!(error.contains("pre-install") && error.contains("bad-prepare"), "{error}");
    let [release] = &rows(&cluster, "list --failed")[..] else { panic!("one release") };
    assert_eq!(release["status"], "failed");
    assert!(cluster.kubectl("get deployment bad-site").fails().contains("NotFound"), "what comes after is not made");
    cluster.helm("uninstall bad").ok();

    cluster.helm("upgrade --install web site --namespace site --create-namespace --wait --timeout 60s").ok();
    let error = cluster
        .helm("upgrade web site --namespace site --wait --timeout 2s --rollback-on-failure --set image.tag=nonexistent")
        .fails();
    assert!(error.contains("web"), "{error}");
    let image = "get deployment web-site -n site -o jsonpath={.spec.template.spec.containers[0].image}";
    assert_eq!(cluster.kubectl(image).ok(), "nginx:1.16.0", "the release before is back");
    let invalid = cluster.helm("upgrade web site --namespace site --set service.port=70000").fails();
    assert!(invalid.contains("must be between 1 and 65535, inclusive"), "{invalid}");
    let rendered = cluster.helm("template web site --namespace site").ok();
    let answer = cluster.kubectl_input("apply --namespace site --dry-run=server -f -", &rendered).ok();
    assert!(answer.contains("deployment.apps/web-site") && answer.contains("server dry run"), "{answer}");
    cluster.helm("uninstall web --namespace site --wait --timeout 60s").ok();
}

#[test]
fn the_example_chart_and_the_overlays_of_the_example_roll_out() {
    let cluster = Cluster::start(&["--nodes", "3"]);
    let examples = tools::workspace().join("examples");
    cluster.helm(&format!("install demo {} --wait --timeout 60s", examples.join("chart").display())).ok();
    cluster.until_is("get deployment demo-web -o jsonpath={.status.readyReplicas}", "3");
    for overlay in ["dev", "prod"] {
        let folder = examples.join("kustomize").join("overlays").join(overlay);
        let folder = folder.display();
        let built = cluster.kubectl(&format!("kustomize {folder}")).ok();
        assert!(built.contains(&format!("name: {overlay}-web")), "{built}");
        cluster.kubectl(&format!("apply -k {folder}")).ok();
        cluster.kubectl(&format!("rollout status deployment/{overlay}-web -n {overlay}-web --timeout=60s")).ok();
        let same = cluster.kubectl(&format!("diff -k {folder}"));
        assert_eq!((same.code, same.stdout.as_str()), (0, ""), "what is applied does not differ: {same}");
        let again = cluster.kubectl(&format!("apply -k {folder}")).ok();
        assert!(again.lines().all(|line| line.ends_with(" unchanged")), "{again}");
        cluster.kubectl(&format!("delete -k {folder} --timeout=60s")).ok();
    }
    let kustomization =
        fs::read_to_string(examples.join("kustomize/overlays/dev/kustomization.yaml")).expect("an overlay");
    assert!(kustomization.contains("namespace.yaml"), "the overlay brings its namespace: {kustomization}");
}
