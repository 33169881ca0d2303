//! The chapter's "if a node dies": its pods come back elsewhere.

use minik8s_tests::Cluster;

/// The pods tolerate a dead node for two seconds in place of the five minutes that admission gives them; that these are
/// five minutes is seen in virtual time (`minik8s/tests/simulated.rs`).
const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 6
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      tolerations:
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 2}
      containers:
      - {name: web, image: 'nginx:1.27'}
";

#[test]
fn the_pods_of_a_dead_node_come_back_elsewhere() {
    let cluster = Cluster::start(&["--nodes", "3"]);
    cluster.apply(DEPLOYMENT);
    cluster.kubectl("rollout status deployment/web --timeout=60s").ok();
    let pods = cluster.kubectl("get pods -o wide").ok();
    assert!(pods.contains("node-2"), "the pods are spread: {pods}");

    cluster.minik8s(&["node", "stop", "node-2"]).ok();
    let logs = cluster.kubectl("get pods -o jsonpath='{.items[?(@.spec.nodeName==\"node-2\")].metadata.name}'").ok();
    let lost = logs.split_whitespace().next().unwrap().to_owned();
    assert!(cluster.kubectl(&format!("logs {lost}")).code != 0, "nobody answers for a dead node");

    // Forty seconds of silence make a node NotReady.
    cluster.until_shows("get node node-2", "NotReady");
    let described = cluster.kubectl("describe node node-2").ok();
    assert!(described.contains("Kubelet stopped posting node status."), "{described}");
    assert!(described.contains("node.kubernetes.io/unreachable:NoExecute"), "{described}");
    let elsewhere = "get pods -l app=web --field-selector spec.nodeName!=node-2,status.phase=Running -o name";
    cluster.until("six pods run elsewhere", || {
        let output = cluster.kubectl(elsewhere);
        if output.stdout.lines().count() == 6 { Ok(()) } else { Err(output.to_string()) }
    });
    cluster.until_shows("get pods -o wide", "Terminating");

    // The machine comes back, and what was given up ends.
    cluster.minik8s(&["node", "start", "node-2"]).ok();
    cluster.kubectl("wait --for=condition=Ready node/node-2 --timeout=30s").ok();
    cluster.until("six pods are left", || {
        let output = cluster.kubectl("get pods -l app=web -o name");
        if output.stdout.lines().count() == 6 { Ok(()) } else { Err(output.to_string()) }
    });
}
