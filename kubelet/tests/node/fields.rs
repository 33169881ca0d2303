//! Fields of pods that reach beyond a container: classes, bundles, images as volumes and their like.

use std::time::Duration;

use crate::fakes::world::{POD, World, nginx};
use serde_json::{Value, json};

fn of_class(name: &str) -> Value {
    let mut pod = nginx();
    pod["spec"]["runtimeClassName"] = json!(name);
    pod
}

#[tokio::test]
async fn a_runtime_class_names_the_handler_of_the_sandbox() {
    let world = World::new(Vec::new());
    world.api.put("/apis/node.k8s.io/v1/runtimeclasses/plain", json!({"handler": "runc"}));
    world.api.put(POD, of_class("plain"));
    world.settle().await;
    assert_eq!(world.summary(), "Running running restarts=0");
    assert_eq!(world.runtime.runtime_handlers(), ["runc"]);
}

#[tokio::test]
async fn a_pod_waits_for_a_runtime_class_that_can_be_had() {
    let world = World::new(Vec::new());
    world.api.put(POD, of_class("vm"));
    world.settle().await;
    assert_eq!(world.summary(), "Pending waiting ContainerCreating restarts=0");
    world.api.put("/apis/node.k8s.io/v1/runtimeclasses/vm", json!({"handler": "kata"}));
    world.pass(Duration::from_secs(15)).await;
    assert_eq!(world.summary(), "Pending waiting ContainerCreating restarts=0");
    let failed = "Warning FailedCreatePodSandBox x1: Failed to create pod sandbox:";
    assert_eq!(
        world.api.event_messages("web"),
        [
            format!("{failed} runtimeclass.node.k8s.io \"vm\" not found"),
            format!("{failed} rpc error: code = Unknown desc = no runtime for \"kata\" is configured"),
        ]
    );
}
