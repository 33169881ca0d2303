//! A seed decides everything: two runs of it are the same to the byte, in one process and in two.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Node, Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use minik8s::cluster::Cluster;
use minik8s::simulation::{self, Course};
use serde_json::{Value, json};

/// How many seeds are tried.
const SEEDS: u64 = 20;
/// Nodes of each cluster.
const NODES: usize = 3;
/// Where everything happens.
const NAMESPACE: &str = "busy";
/// How long (virtually) to wait for anything.
const PATIENCE: Duration = Duration::from_secs(600);
/// Set for the other process: the folder for its courses.
const COURSES_TO: &str = "MINIK8S_TEST_COURSES_TO";

fn typed<T: serde::de::DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).unwrap()
}

/// Creates objects in the namespace.
macro_rules! create {
    ($cluster:expr, $($kind:ty: $object:expr),+ $(,)?) => {$(
        let api = $cluster.admin().namespaced::<$kind>(NAMESPACE);
        api.create(&PostParams::default(), &typed::<$kind>($object)).await.unwrap();
    )+};
}

/// A template of pods: what runs, and how briefly a dead node is tolerated.
fn template(app: &str, image: &str, command: &[&str], restart: &str) -> Value {
    let dead = |what: &str| json!({"key": format!("node.kubernetes.io/{what}"), "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5});
    json!({
        "metadata": {"labels": {"app": app}},
        "spec": {
            "restartPolicy": restart,
            "terminationGracePeriodSeconds": 2,
            "tolerations": [dead("not-ready"), dead("unreachable")],
            "containers": [{"name": "main", "image": image, "command": command}],
        },
    })
}

fn server(app: &str) -> Value {
    template(app, "nginx:1.27", &[], "Always")
}

/// A set of pods of any kind, with what its kind adds.
fn set(app: &str, more: Value) -> Value {
    let mut spec = json!({"selector": {"matchLabels": {"app": app}}, "template": server(app)});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"metadata": {"name": app}, "spec": spec})
}

fn job(name: &str, script: &str, more: Value) -> Value {
    let mut spec = json!({"template": template(name, "busybox:1.36", &["sh", "-c", script], "Never")});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"metadata": {"name": name}, "spec": spec})
}

fn pod(name: &str, image: &str, command: &[&str]) -> Value {
    let mut pod = template(name, image, command, "Always");
    pod["metadata"]["name"] = name.into();
    pod
}

/// Waits, in virtual time, until `holds`.
async fn until(cluster: &Cluster, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = cluster.clock().monotonic() + PATIENCE;
    while !holds().await {
        assert!(cluster.clock().monotonic() < deadline, "{what} did not come true");
        cluster.clock().sleep(Duration::from_secs(1)).await;
    }
}

async fn available(cluster: &Cluster, name: &str) -> bool {
    let deployment = cluster.admin().namespaced::<Deployment>(NAMESPACE).get(name).await.unwrap();
    let (spec, status) = (deployment.spec, deployment.status.unwrap_or_default());
    status.observed_generation == deployment.metadata.generation
        && status.updated_replicas == spec.replicas
        && status.available_replicas == spec.replicas
        && status.replicas == spec.replicas
}

async fn node_is_ready(cluster: &Cluster, name: &str) -> bool {
    let node = cluster.admin().all::<Node>().get(name).await.unwrap();
    let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The reasons of the events so far.
async fn reasons(cluster: &Cluster) -> Vec<String> {
    let events = cluster.admin().namespaced::<Event>(NAMESPACE).list(&ListParams::default()).await.unwrap();
    events.items.into_iter().filter_map(|event| event.reason).collect()
}

async fn populate(cluster: &Cluster) {
    let namespace = typed::<Namespace>(json!({"metadata": {"name": NAMESPACE}}));
    cluster.admin().all::<Namespace>().create(&PostParams::default(), &namespace).await.unwrap();
    until(cluster, "a ServiceAccount", async || {
        let accounts = cluster.admin().namespaced::<k8s_openapi::api::core::v1::ServiceAccount>(NAMESPACE);
        accounts.get("default").await.is_ok()
    })
    .await;
    let labels = json!({"a": "1", "b": "2", "c": "3"});
    create!(cluster,
        ConfigMap: json!({"metadata": {"name": "settings", "labels": labels, "annotations": labels}, "data": labels}),
        Service: json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}),
        Service: json!({"metadata": {"name": "db"}, "spec": {"clusterIP": "None", "selector": {"app": "db"}, "ports": [{"port": 80}]}}),
        PodDisruptionBudget: json!({"metadata": {"name": "web"}, "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}}}),
        Deployment: set("web", json!({"replicas": 5})),
        Deployment: set("side", json!({"replicas": 2, "strategy": {"type": "Recreate"}})),
        DaemonSet: set("agent", json!({})),
        StatefulSet: set("db", json!({"replicas": 2, "serviceName": "db"})),
        Job: job("sums", "sleep 1; echo done", json!({"completions": 4, "parallelism": 2})),
        Job: job("fails", "exit 1", json!({"backoffLimit": 1})),
        CronJob: json!({"metadata": {"name": "often"}, "spec": {
            "schedule": "* * * * *", "jobTemplate": {"spec": job("often", "exit 0", json!({}))["spec"]}}}),
        Pod: pod("no-image", "nginx:nonexistent", &[]),
        Pod: pod("crashes", "busybox:1.36", &["sh", "-c", "exit 3"]),
    );
}

/// What happens to every cluster: growth, a roll-out, failures, the loss and the return of a node, the end of it all.
async fn busy(cluster: Arc<Cluster>) {
    populate(&cluster).await;
    until(&cluster, "the first roll-out", async || available(&cluster, "web").await).await;
    for reason in ["BackOff", "Failed", "BackoffLimitExceeded"] {
        until(&cluster, reason, async || reasons(&cluster).await.iter().any(|told| told == reason)).await;
    }

    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "nginx:1.28"}]}}}});
    for name in ["web", "side"] {
        let api = cluster.admin().namespaced::<Deployment>(NAMESPACE);
        api.patch(name, &PatchParams::default(), &Patch::Strategic(&image)).await.unwrap();
    }
    until(&cluster, "the second roll-out", async || available(&cluster, "web").await).await;

    cluster.nodes().stop("node-2").await.unwrap();
    until(&cluster, "the loss of a node", async || !node_is_ready(&cluster, "node-2").await).await;
    until(&cluster, "pods elsewhere", async || available(&cluster, "web").await).await;
    cluster.nodes().start("node-2").await.unwrap();
    until(&cluster, "the return of a node", async || node_is_ready(&cluster, "node-2").await).await;

    let namespaces = cluster.admin().all::<Namespace>();
    namespaces.delete(NAMESPACE, &DeleteParams::default()).await.unwrap();
    until(&cluster, "the end of the namespace", async || namespaces.get(NAMESPACE).await.is_err()).await;
}

fn course(seed: u64) -> Course {
    simulation::record(seed, NODES, busy)
}

fn file_of(folder: &Path, seed: u64) -> std::path::PathBuf {
    folder.join(format!("{seed}.json"))
}

#[track_caller]
fn assert_same(seed: u64, one: &Course, other: &Course) {
    if let Some(difference) = one.first_difference(other) {
        panic!("seed {seed} does not decide everything: {difference}");
    }
}

#[test]
fn the_same_seed_takes_the_same_course() {
    let one = course(1);
    assert!(one.changes.len() > 1000, "{} changes prove little", one.changes.len());
    assert_same(1, &one, &course(1));
    let two = course(2);
    assert!(one.first_difference(&two).is_some(), "the seed decides nothing");
}

/// The test is both processes: the second one finds in its environment where its courses go.
#[test]
fn another_process_takes_the_same_course() {
    if let Some(folder) = std::env::var_os(COURSES_TO) {
        // Backwards, so that what a run leaves behind in a process would show, too.
        for seed in (0..SEEDS).rev() {
            fs::write(file_of(Path::new(&folder), seed), serde_json::to_vec(&course(seed)).unwrap()).unwrap();
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut other = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "another_process_takes_the_same_course"])
        .env(COURSES_TO, folder.path())
        .spawn()
        .unwrap();
    let courses: Vec<Course> = (0..SEEDS).map(course).collect();
    assert!(other.wait().unwrap().success(), "the other process failed");
    for (seed, course) in (0..).zip(&courses) {
        let theirs = serde_json::from_slice(&fs::read(file_of(folder.path(), seed)).unwrap()).unwrap();
        assert_same(seed, course, &theirs);
    }
    for (seed, pair) in courses.windows(2).enumerate() {
        assert!(pair[0].first_difference(&pair[1]).is_some(), "seeds {seed} and {} are the same", seed + 1);
    }
}
