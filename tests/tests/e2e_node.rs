//! What a node does with its pods: if it dies, they come back elsewhere; while it lives, they can be resized.

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

/// One container that is told, and one that is restarted for more memory.
const RESIZED: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers:
  - name: told
    image: busybox
    command: [sh, -c, 'trap exit TERM; while true; do sleep 1; done']
    resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {cpu: 200m, memory: 128Mi}}
  - name: restarted
    image: busybox
    command: [sh, -c, 'trap exit TERM; while true; do sleep 1; done']
    resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {cpu: 200m, memory: 128Mi}}
    resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}]
";

#[test]
fn a_running_pod_is_resized() {
    let cluster = Cluster::start(&[]);
    cluster.apply(RESIZED);
    cluster.kubectl("wait --for=condition=Ready pod/web --timeout=60s").ok();
    let resize = |container: &str, lists: &str| {
        let patch = format!(r#"{{"spec":{{"containers":[{{"name":"{container}","resources":{lists}}}]}}}}"#);
        cluster.kubectl(&format!("patch pod web --subresource resize -p '{patch}'"))
    };
    let shows = |container: &str, limit: &str, memory: &str, restarts: &str| {
        let status = format!(".status.containerStatuses[?(@.name==\"{container}\")]");
        let path = |field: &str| format!("get pod web -o 'jsonpath={{{status}.{field}}}'");
        cluster.until_is(&path("resources.limits.cpu"), limit);
        cluster.until_is(&path("resources.limits.memory"), memory);
        cluster.until_is(&path("restartCount"), restarts);
    };
    let cgroup = |container: &str| {
        let read = "sh -c 'cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/memory.max'";
        cluster.kubectl(&format!("exec web -c {container} -- {read}")).ok()
    };
    resize("told", r#"{"limits":{"cpu":"400m","memory":"256Mi"}}"#).ok();
    shows("told", "400m", "256Mi", "0");
    assert_eq!(cgroup("told"), "40000 100000\n268435456\n");
    resize("restarted", r#"{"limits":{"cpu":"300m"}}"#).ok();
    shows("restarted", "300m", "128Mi", "0");
    resize("restarted", r#"{"limits":{"memory":"256Mi"}}"#).ok();
    shows("restarted", "300m", "256Mi", "1");
    assert_eq!(cgroup("restarted"), "30000 100000\n268435456\n");

    // More than the node has at all is refused; more than is free has to wait.
    let refused = resize("told", r#"{"requests":{"cpu":"64"},"limits":{"cpu":"64"}}"#).fails();
    assert!(refused.contains("node didn't have enough allocatable resources: cpu, requested: 64100"), "{refused}");
    let allocatable = cluster.kubectl("get node node-1 -o jsonpath={.status.allocatable.cpu}").ok();
    let all = allocatable.parse::<u32>().expect("whole processors") * 1000 - 100;
    resize("told", &format!(r#"{{"requests":{{"cpu":"{all}m"}},"limits":{{"cpu":"{all}m"}}}}"#)).ok();
    let pending = "get pod web -o 'jsonpath={.status.conditions[?(@.type==\"PodResizePending\")].reason}'";
    cluster.until_is(pending, "Deferred");
    cluster.until_shows("describe pod web", "Node didn't have enough resource: cpu, requested:");
    resize("told", r#"{"requests":{"cpu":"150m"},"limits":{"cpu":"500m"}}"#).ok();
    shows("told", "500m", "256Mi", "0");
    cluster.until_is(pending, "");
    cluster.until_shows("describe pod web", "ResizeCompleted");
    assert!(resize("told", r#"{"limits":{"cpu":"100m"}}"#).fails().contains("must be less than or equal to cpu limit"));
}
