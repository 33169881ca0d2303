//! Pods that get other resources while they run.

use std::time::Duration;

use crate::fakes::world::{POD, World, web};
use serde_json::{Value, json};

const OTHER: &str = "/api/v1/namespaces/default/pods/other";

/// Requests and limits.
fn resources(request: (&str, &str), limit: (&str, &str)) -> Value {
    let list = |(cpu, memory): (&str, &str)| json!({"cpu": cpu, "memory": memory});
    json!({"requests": list(request), "limits": list(limit)})
}

fn pod(resources: &Value) -> Value {
    web(json!({"containers": [{"name": "c", "image": "nginx:1.27", "resources": resources}]}))
}

/// A user writes other resources through `pods/resize`.
fn resize(world: &World, path: &str, resources: &Value) {
    let mut pod = world.api.get(path).unwrap();
    pod["spec"]["containers"][0]["resources"] = resources.clone();
    pod["metadata"]["generation"] = json!(pod["metadata"]["generation"].as_i64().unwrap() + 1);
    world.api.put(path, pod);
}

fn container(world: &World, path: &str) -> Value {
    world.api.get(path).unwrap()["status"]["containerStatuses"][0].clone()
}

fn condition(world: &World, path: &str, type_: &str) -> Option<Value> {
    let conditions = world.api.get(path).unwrap()["status"]["conditions"].as_array().unwrap().clone();
    conditions.into_iter().find(|condition| condition["type"] == type_)
}

fn said(world: &World, reason: &str) -> Vec<String> {
    let events = world.api.event_messages("web").into_iter().chain(world.api.event_messages("other"));
    events.filter(|event| event.split(' ').nth(1) == Some(reason)).collect()
}

#[tokio::test]
async fn a_running_container_gets_other_resources_and_runs_on() {
    let world = World::new(Vec::new());
    let before = resources(("100m", "64Mi"), ("200m", "128Mi"));
    world.api.put(POD, pod(&before));
    world.settle().await;
    let status = container(&world, POD);
    assert_eq!((&status["resources"], &status["allocatedResources"]), (&before, &before["requests"]));
    // What is read back from the weight of a pod's cgroup.
    assert_eq!(world.pod()["status"]["resources"], resources(("79m", "64Mi"), ("200m", "128Mi")));
    assert_eq!(world.pod()["status"]["allocatedResources"], before["requests"]);
    assert!(world.runtime.take_updates().is_empty());

    let after = resources(("150m", "64Mi"), ("400m", "256Mi"));
    resize(&world, POD, &after);
    world.settle().await;
    assert_eq!(
        world.runtime.take_updates(),
        [
            "pod: shares=102 quota=20000 memory=268435456",
            "c: shares=102 quota=20000 memory=268435456",
            "pod: shares=102 quota=40000 memory=268435456",
            "pod: shares=153 quota=40000 memory=268435456",
            "c: shares=153 quota=40000 memory=268435456",
        ]
    );
    let status = container(&world, POD);
    assert_eq!((&status["resources"], &status["allocatedResources"]), (&after, &after["requests"]));
    assert_eq!(world.summary(), "Running running restarts=0");
    assert_eq!(world.pod()["status"]["observedGeneration"], 2);
    assert_eq!(condition(&world, POD, "PodResizeInProgress"), None);
    let summary = r#"{"containers":[{"name":"c","resources":{"limits":{"cpu":"400m","memory":"256Mi"},"requests":{"cpu":"150m","memory":"64Mi"}}}],"generation":2}"#;
    assert_eq!(said(&world, "ResizeStarted"), [format!("Normal ResizeStarted x1: Pod resize started: {summary}")]);
    assert_eq!(
        said(&world, "ResizeCompleted"),
        [format!("Normal ResizeCompleted x1: Pod resize completed: {summary}")]
    );

    // The same amounts in other words are nothing to do.
    resize(&world, POD, &resources(("0.15", "64Mi"), ("400m", "262144Ki")));
    world.settle().await;
    assert!(world.runtime.take_updates().is_empty());
    assert_eq!(said(&world, "ResizeStarted").len(), 1);
}

#[tokio::test]
async fn a_policy_restarts_the_container() {
    let world = World::new(Vec::new());
    let mut web = pod(&resources(("100m", "64Mi"), ("200m", "128Mi")));
    web["spec"]["containers"][0]["resizePolicy"] =
        json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
    web["spec"]["restartPolicy"] = json!("OnFailure");
    world.api.put(POD, web);
    // What may end is watched for a moment before it is told to run.
    world.pass(Duration::from_millis(50)).await;
    for (memory, restarts) in [("256Mi", 1), ("128Mi", 2)] {
        let after = resources(("100m", "64Mi"), ("200m", memory));
        resize(&world, POD, &after);
        world.settle().await;
        assert_eq!(world.summary(), format!("Running running restarts={restarts}"), "no back-off: it did not fail");
        assert_eq!(container(&world, POD)["resources"], after);
        let updates = world.runtime.take_updates();
        assert!(updates.iter().all(|update| update.starts_with("pod: ")), "{updates:?}");
    }
    assert_eq!(said(&world, "Killing"), ["Normal Killing x2: Container c resize requires restart"]);
    assert_eq!(said(&world, "ResizeCompleted").len(), 2);
    resize(&world, POD, &resources(("100m", "64Mi"), ("300m", "128Mi")));
    world.settle().await;
    assert_eq!(world.summary(), "Running running restarts=2", "processors are not what the policy is about");
}

#[tokio::test]
async fn what_the_node_has_no_room_for_waits_for_it() {
    let world = World::new(Vec::new());
    let small = resources(("1", "1Gi"), ("1", "1Gi"));
    world.api.put(POD, pod(&small));
    world.api.put(OTHER, pod(&resources(("2", "1Gi"), ("2", "1Gi"))));
    world.settle().await;
    let large = resources(("3", "1Gi"), ("3", "1Gi"));
    resize(&world, POD, &large);
    world.settle().await;
    let why = "Node didn't have enough resource: cpu, requested: 3000, used: 2000, capacity: 4000";
    let pending = condition(&world, POD, "PodResizePending").expect("a condition");
    assert_eq!(
        (&pending["status"], &pending["reason"], &pending["message"], &pending["observedGeneration"]),
        (&json!("True"), &json!("Deferred"), &json!(why), &json!(2))
    );
    let status = container(&world, POD);
    assert_eq!((&status["resources"], &status["allocatedResources"]), (&small, &small["requests"]));
    let deferred = said(&world, "ResizeDeferred");
    assert!(
        deferred[0].starts_with("Warning ResizeDeferred x1: Pod resize OutOfcpu: {\"containers\":"),
        "{deferred:?}"
    );
    assert!(deferred[0].ends_with(&format!(",\"generation\":2,\"error\":\"{why}\"}}")), "{deferred:?}");
    // Others are admitted by what is allocated, not by what is wished.
    let third = "/api/v1/namespaces/default/pods/third";
    world.api.put(third, pod(&resources(("1", "1Gi"), ("1", "1Gi"))));
    world.settle().await;
    assert_eq!(world.api.get(third).unwrap()["status"]["phase"], "Running");
    // Another shrinks, and still there is too little room; a third goes, and there is enough.
    resize(&world, OTHER, &resources(("500m", "1Gi"), ("500m", "1Gi")));
    world.settle().await;
    assert_eq!(container(&world, OTHER)["resources"]["requests"]["cpu"], "500m");
    assert!(condition(&world, POD, "PodResizePending").is_some());
    world.api.remove(third);
    world.settle().await;
    assert_eq!(condition(&world, POD, "PodResizePending"), None);
    assert_eq!(container(&world, POD)["resources"], large);
    assert_eq!(said(&world, "ResizeDeferred").len(), 1, "once a wish");
}

#[tokio::test]
async fn a_wish_that_is_taken_back_is_forgotten() {
    let world = World::new(Vec::new());
    let small = resources(("1", "1Gi"), ("1", "1Gi"));
    world.api.put(POD, pod(&small));
    world.settle().await;
    resize(&world, POD, &resources(("5", "1Gi"), ("5", "1Gi")));
    world.settle().await;
    assert!(condition(&world, POD, "PodResizePending").is_some());
    resize(&world, POD, &small);
    world.settle().await;
    assert_eq!(condition(&world, POD, "PodResizePending"), None);
    assert!(world.runtime.take_updates().is_empty());
    assert!(said(&world, "ResizeCompleted").is_empty());
}

#[tokio::test]
async fn a_new_kubelet_knows_what_is_allocated() {
    let mut world = World::new(Vec::new());
    let small = resources(("1", "1Gi"), ("1", "1Gi"));
    world.api.put(POD, pod(&small));
    world.api.put(OTHER, pod(&resources(("2", "1Gi"), ("2", "1Gi"))));
    world.settle().await;
    resize(&world, POD, &resources(("3", "1Gi"), ("3", "1Gi")));
    world.settle().await;
    let pending = condition(&world, POD, "PodResizePending").expect("a condition");
    world.restart_kubelet().await;
    assert_eq!(condition(&world, POD, "PodResizePending"), Some(pending));
    assert_eq!(container(&world, POD)["allocatedResources"], small["requests"]);
    assert!(world.runtime.take_updates().is_empty(), "what was not allocated is not actuated");
    // The node starts anew: a pod that is still to be admitted keeps its room.
    world.reboot().await;
    assert!(condition(&world, POD, "PodResizePending").is_some());
    assert_eq!(container(&world, POD)["allocatedResources"], small["requests"]);
    // A wish that came while nobody listened.
    world.cancel.cancel();
    world.settle().await;
    let modest = resources(("1500m", "1Gi"), ("1500m", "1Gi"));
    resize(&world, POD, &modest);
    world.restart_kubelet().await;
    assert_eq!(container(&world, POD)["resources"], modest);
    assert_eq!(world.summary(), "Running running restarts=1");
    assert_eq!(condition(&world, POD, "PodResizePending"), None);
}

#[tokio::test]
async fn a_runtime_that_refuses_is_asked_again() {
    let world = World::new(Vec::new());
    let before = resources(("100m", "64Mi"), ("200m", "128Mi"));
    world.api.put(POD, pod(&before));
    world.settle().await;
    world.runtime.set_update_failure(Some("no cgroup"));
    let after = resources(("150m", "64Mi"), ("200m", "128Mi"));
    resize(&world, POD, &after);
    world.settle().await;
    let condition_now = |world: &World| condition(world, POD, "PodResizeInProgress");
    let failed = condition_now(&world).expect("a condition");
    let words = "rpc error: code = Unknown desc = no cgroup";
    assert_eq!((&failed["reason"], &failed["message"]), (&json!("Error"), &json!(words)));
    let status = container(&world, POD);
    assert_eq!((&status["resources"], &status["allocatedResources"]), (&before, &after["requests"]));
    world.pass(Duration::from_secs(20)).await;
    assert_eq!(said(&world, "ResizeError").len(), 1, "the same words again are no news");
    world.runtime.set_update_failure(None);
    world.pass(Duration::from_secs(20)).await;
    assert_eq!(condition_now(&world), None);
    assert_eq!(container(&world, POD)["resources"], after);
    assert_eq!(said(&world, "ResizeCompleted").len(), 1);
}

#[tokio::test]
async fn memory_in_use_is_not_taken_away() {
    let world = World::new(Vec::new());
    world.api.put(POD, pod(&resources(("100m", "64Mi"), ("200m", "128Mi"))));
    world.settle().await;
    world.runtime.set_memory_usage(100 << 20);
    resize(&world, POD, &resources(("100m", "64Mi"), ("200m", "96Mi")));
    world.settle().await;
    let failed = condition(&world, POD, "PodResizeInProgress").expect("a condition");
    assert_eq!(
        failed["message"],
        "cannot decrease memory limits: [attempting to set pod memory limit (100663296) below current usage (104857600), attempting to set container \"c\" memory limit (100663296) below current usage (104857600)]"
    );
    assert!(world.runtime.take_updates().is_empty());
    world.runtime.set_memory_usage(10 << 20);
    world.pass(Duration::from_secs(20)).await;
    assert_eq!(container(&world, POD)["resources"]["limits"]["memory"], "96Mi");
    assert_eq!(world.summary(), "Running running restarts=0");
}

#[tokio::test]
async fn a_pod_as_a_whole_is_resized() {
    let world = World::new(Vec::new());
    let mut web = pod(&json!({}));
    web["spec"]["resources"] = resources(("1", "64Mi"), ("1", "128Mi"));
    world.api.put(POD, web);
    world.settle().await;
    assert_eq!(world.pod()["status"]["resources"], resources(("1", "64Mi"), ("1", "128Mi")));
    let limits = world.runtime.config("c").linux.unwrap().resources.unwrap();
    assert_eq!(
        (limits.cpu_quota, limits.memory_limit_in_bytes),
        (100_000, 128 << 20),
        "its limits are its containers'"
    );
    let mut web = world.pod();
    web["spec"]["resources"] = resources(("2", "64Mi"), ("2", "256Mi"));
    web["metadata"]["generation"] = json!(2);
    world.api.put(POD, web);
    world.settle().await;
    let updates = world.runtime.take_updates();
    // A container without a request of its own gets the least weight now, as in Kubernetes (its issue 135260).
    assert_eq!(updates.last().unwrap(), "c: shares=2 quota=200000 memory=268435456", "{updates:?}");
    assert_eq!(world.pod()["status"]["resources"], resources(("2", "64Mi"), ("2", "256Mi")));
    assert_eq!(condition(&world, POD, "PodResizeInProgress"), None);
    assert_eq!(said(&world, "ResizeCompleted").len(), 1);
}
