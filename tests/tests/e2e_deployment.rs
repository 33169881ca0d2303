//! The chapter's Deployment and its "full operational exercise", typed as the chapter types it.

use minik8s_tests::Cluster;
use minik8s_tests::tools;

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  labels:
    app: web
spec:
  replicas: 3
  selector:
    matchLabels:
      app: web
  strategy:
    type: RollingUpdate
    rollingUpdate:
      maxSurge: 1
      maxUnavailable: 0
  template:
    metadata:
      labels:
        app: web
    spec:
      containers:
      - name: web
        image: nginx:1.27
        ports:
        - containerPort: 80
        resources:
          requests:
            cpu: 100m
            memory: 128Mi
          limits:
            cpu: 200m
            memory: 256Mi
";

fn rolls_out_and_back(cluster: &Cluster) {
    assert_eq!(cluster.apply(DEPLOYMENT), "deployment.apps/web created\n");
    assert_eq!(cluster.apply(DEPLOYMENT), "deployment.apps/web unchanged\n");
    let status = cluster.kubectl("rollout status deployment/web --timeout=60s").ok();
    assert!(status.ends_with("deployment \"web\" successfully rolled out\n"), "{status}");
    let pods = cluster.kubectl("get pods -l app=web").table();
    assert_eq!(pods[0], ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]);
    assert_eq!(pods.len(), 4);
    assert!(pods[1..].iter().all(|row| row[1] == "1/1" && row[2] == "Running" && row[3] == "0"), "{pods:?}");
    let wide = cluster.kubectl("get pods -o wide").table();
    let mut homes: Vec<_> = wide[1..].iter().map(|row| row[6].clone()).collect();
    homes.sort();
    homes.dedup();
    assert_eq!(homes.len(), 3, "the pods are spread: {wide:?}");

    let changed = DEPLOYMENT.replace("replicas: 3", "replicas: 5");
    let path = cluster.file("changed.yaml", &changed);
    let diff = cluster.kubectl(&format!("diff -f {}", path.display()));
    assert_eq!(diff.code, 1, "{diff}");
    assert!(diff.stdout.contains("-  replicas: 3") && diff.stdout.contains("+  replicas: 5"), "{diff}");

    cluster.kubectl("set image deployment/web web=nginx:1.28").ok();
    cluster.kubectl("rollout status deployment/web --timeout=60s").ok();
    assert_eq!(cluster.kubectl("get rs -l app=web").table().len(), 3, "two ReplicaSets and the header");
    let history = cluster.kubectl("rollout history deployment/web").ok();
    assert!(history.contains("1         <none>") && history.contains("2         <none>"), "{history}");

    cluster.kubectl("rollout undo deployment/web").ok();
    cluster.kubectl("rollout status deployment/web --timeout=60s").ok();
    cluster.until_is("get deploy web -o jsonpath={.spec.template.spec.containers[0].image}", "nginx:1.27");
    cluster.kubectl("rollout undo deployment/web --to-revision=2").ok();
    cluster.kubectl("rollout status deployment/web --timeout=60s").ok();
    cluster.until_is("get deploy web -o jsonpath={.spec.template.spec.containers[0].image}", "nginx:1.28");

    cluster.kubectl("scale deployment/web --replicas=5").ok();
    cluster.until_is("get deploy web -o jsonpath={.status.availableReplicas}", "5");
    cluster.kubectl("rollout restart deployment/web").ok();
    cluster.kubectl("rollout status deployment/web --timeout=60s").ok();
    cluster.kubectl("rollout pause deployment/web").ok();
    cluster.kubectl("set image deployment/web web=nginx:1.29").ok();
    assert!(cluster.kubectl("get deploy web -o jsonpath={.spec.paused}").ok() == "true");
    cluster.kubectl("rollout resume deployment/web").ok();
    cluster.kubectl("rollout status deployment/web --timeout=60s").ok();

    let pod = cluster.kubectl("get pods -l app=web -o name").ok().lines().next().unwrap().to_owned();
    cluster.kubectl(&format!("delete {pod} --wait=false")).ok();
    cluster.until("a deleted pod is replaced", || {
        let output = cluster.kubectl("get pods -l app=web -o name");
        let names = output.stdout.clone();
        if !names.contains(&pod) && names.lines().count() == 5 { Ok(()) } else { Err(output.to_string()) }
    });
    cluster.kubectl("delete deployment web").ok();
    cluster.until_is("get pods,rs -l app=web -o name", "");
}

#[test]
fn a_deployment_rolls_out_and_back() {
    rolls_out_and_back(&Cluster::start(&["--nodes", "3"]));
}

#[test]
fn a_deployment_rolls_out_and_back_with_an_old_kubectl() {
    let mut cluster = Cluster::start(&["--nodes", "3"]);
    cluster.use_kubectl(tools::OLD_KUBECTL);
    rolls_out_and_back(&cluster);
}

#[test]
fn the_full_operational_exercise() {
    let cluster = Cluster::start(&["--nodes", "3"]);
    // 1. Deploy, 2. expose.
    assert_eq!(
        cluster.kubectl("create deployment web --image=nginx:1.27 --replicas=3").ok(),
        "deployment.apps/web created\n"
    );
    assert_eq!(cluster.kubectl("expose deployment web --port=80").ok(), "service/web exposed\n");
    cluster.kubectl("rollout status deployment/web --timeout=60s").ok();
    cluster.until("the Service has three endpoints", || {
        let output = cluster.kubectl("get endpoints web -o jsonpath={.subsets[0].addresses[*].ip}");
        if output.stdout.split_whitespace().count() == 3 { Ok(()) } else { Err(output.to_string()) }
    });
    // 4. An invalid image, 5. the rollout stalls.
    cluster.kubectl("set image deployment/web nginx=nginx:nonexistent").ok();
    let stalled = cluster.kubectl("rollout status deployment/web --timeout=5s");
    assert_eq!(stalled.code, 1, "{stalled}");
    assert!(stalled.stderr.contains("timed out waiting for the condition"), "{stalled}");
    // 6. Debug.
    let pods = cluster.until_shows("get pods", "ImagePullBackOff");
    assert_eq!(pods.matches("Running").count(), 3, "the old pods go on: {pods}");
    let failing = pods.lines().find(|line| line.contains("ImagePull")).unwrap().split_whitespace().next().unwrap();
    let described = cluster.until_shows(&format!("describe pod {failing}"), "Back-off pulling image");
    assert!(described.contains("Failed to pull image \"nginx:nonexistent\""), "{described}");
    assert!(described.contains("Error: ErrImagePull"), "{described}");
    let events = cluster.kubectl("get events --sort-by=.lastTimestamp").ok();
    assert!(events.contains("Failed") && events.contains("ScalingReplicaSet"), "{events}");
    // 7. Rollback, 8. recovery.
    assert_eq!(cluster.kubectl("rollout undo deployment/web").ok(), "deployment.apps/web rolled back\n");
    let status = cluster.kubectl("rollout status deployment/web --timeout=60s").ok();
    assert!(status.contains("successfully rolled out"), "{status}");
}
