//! A node's life: registration, pods from start to end, volumes, claims, probes, logs.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::fakes::world::{POD, World, nginx, web};
use k8s_openapi::api::core::v1::Pod;
use minik8s_cri::NodeFs as _;
use serde_json::{Value, json};

const NODE: &str = "/api/v1/nodes/node-1";

#[tokio::test]
async fn a_node_registers_and_stays_alive() {
    let world = World::new(Vec::new());
    world.settle().await;
    let node = world.api.get(NODE).expect("the node registers without any time passing");
    let ready = node["status"]["conditions"].as_array().unwrap().last().unwrap();
    assert_eq!((ready["type"].as_str(), ready["status"].as_str()), (Some("Ready"), Some("True")));
    assert_eq!(ready["message"], "kubelet is posting ready status");
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/os"], "linux");
    assert_eq!(node["status"]["nodeInfo"]["containerRuntimeVersion"], "containerd://2.2.0");
    let renewed = |world: &World| {
        world
            .api
            .get("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node-1")
            .unwrap()["spec"]["renewTime"]
            .clone()
    };
    let first = renewed(&world);
    world.pass(Duration::from_secs(11)).await;
    assert_ne!(renewed(&world), first);
    assert_eq!(
        world.api.get(NODE).unwrap()["metadata"]["resourceVersion"],
        node["metadata"]["resourceVersion"],
        "an unchanged status is not sent"
    );
    let events = world.api.event_messages("node-1");
    let expected = [
        "Starting kubelet.",
        "Node node-1 status is now: NodeHasSufficientMemory",
        "Node node-1 status is now: NodeReady",
    ];
    for message in expected {
        let count = events.iter().filter(|event| event.contains("x1") && event.ends_with(message)).count();
        assert_eq!(count, 1, "{message} in {events:?}");
    }
}

#[tokio::test]
async fn a_pod_runs_crashes_backs_off_and_ends() {
    let world = World::new(Vec::new());
    world.api.put(POD, nginx());
    world.settle().await;
    assert_eq!(world.summary(), "Running running restarts=0");
    let pod = world.pod();
    assert_eq!(pod["status"]["podIP"], "10.128.0.2");
    assert_eq!(pod["status"]["hostIP"], "192.168.0.10");
    let container = &pod["status"]["containerStatuses"][0];
    assert!(container["containerID"].as_str().unwrap().starts_with("containerd://"));
    world.runtime.exit("c", 1);
    world.settle().await;
    assert_eq!(world.summary(), "Running running restarts=1");
    world.runtime.exit("c", 1);
    world.settle().await;
    assert_eq!(world.summary(), "Running waiting CrashLoopBackOff restarts=1");
    assert_eq!(
        world.pod()["status"]["containerStatuses"][0]["state"]["waiting"]["message"],
        "back-off 10s restarting failed container=c pod=web_default(uid-web)"
    );
    world.pass(Duration::from_secs(10)).await;
    assert_eq!(world.summary(), "Running running restarts=2");
    assert_eq!(world.runtime.containers().len(), 2, "one dead container is kept");
    assert_eq!(
        world.api.event_messages("web"),
        [
            "Normal Pulling x1: Pulling image \"nginx:1.27\"",
            "Normal Pulled x1: Successfully pulled image \"nginx:1.27\" in 0s (0s including waiting). Image size: 1234 bytes.",
            "Normal Created x3: Container created",
            "Normal Started x3: Container started",
            "Normal Pulled x2: Container image \"nginx:1.27\" already present on machine and can be accessed by the pod",
            "Warning BackOff x1: Back-off restarting failed container c in pod web_default(uid-web)",
        ]
    );
    let mut pod = world.pod();
    pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:10Z");
    pod["metadata"]["deletionGracePeriodSeconds"] = json!(30);
    world.api.put(POD, pod);
    world.settle().await;
    assert_eq!(world.api.get(POD), None, "the kubelet deletes the pod for good");
    assert!(world.runtime.containers().is_empty());
    assert_eq!(world.runtime.sandboxes(), 0);
    assert!(!world.fs.exists("/var/lib/kubelet/pods/uid-web"));
    let events = world.api.event_messages("web");
    assert!(events.contains(&"Normal Killing x1: Stopping container c".to_owned()), "{events:?}");
}

#[tokio::test]
async fn what_is_missing_is_named_and_waited_for() {
    let world = World::new(Vec::new());
    let env = json!([{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "x", "key": "k"}}}, {"name": "B", "value": "<$(A)>"}]);
    world.api.put(POD, web(json!({"containers": [{"name": "c", "image": "nginx:1.27", "env": env}]})));
    world.settle().await;
    assert_eq!(world.summary(), "Pending waiting CreateContainerConfigError restarts=0");
    let message = |world: &World| world.pod()["status"]["containerStatuses"][0]["state"]["waiting"]["message"].clone();
    assert_eq!(message(&world), "configmap \"x\" not found");
    world.api.put("/api/v1/namespaces/default/configmaps/x", json!({"data": {"other": "v"}}));
    world.settle().await;
    assert_eq!(message(&world), "couldn't find key k in ConfigMap default/x");
    world.api.put("/api/v1/namespaces/default/configmaps/x", json!({"data": {"k": "v"}}));
    world.settle().await;
    assert_eq!(world.summary(), "Running running restarts=0", "a watched object that changes brings the pod back");
    let config = world.runtime.config("c");
    let value = |name: &str| config.envs.iter().find(|env| env.key == name).map(|env| env.value.to_vec());
    assert_eq!(value("B"), Some(b"<v>".to_vec()));
}

#[tokio::test]
async fn an_image_that_does_not_exist_is_backed_off() {
    let world = World::new(Vec::new());
    world.api.put(POD, web(json!({"containers": [{"name": "c", "image": "nginx:nonexistent"}]})));
    world.settle().await;
    assert_eq!(world.summary(), "Pending waiting ErrImagePull restarts=0");
    world.pass(Duration::from_secs(2)).await;
    assert_eq!(world.summary(), "Pending waiting ImagePullBackOff restarts=0");
    assert_eq!(
        world.pod()["status"]["containerStatuses"][0]["state"]["waiting"]["message"],
        "Back-off pulling image \"nginx:nonexistent\": ErrImagePull: rpc error: code = NotFound desc = failed to pull and unpack image \"docker.io/library/nginx:nonexistent\""
    );
    world.pass(Duration::from_secs(20)).await;
    let events = world.api.event_messages("web");
    assert!(events.contains(&"Normal Pulling x2: Pulling image \"nginx:nonexistent\"".to_owned()), "{events:?}");
    assert!(events.contains(&"Warning Failed x2: Error: ErrImagePull".to_owned()), "{events:?}");
    assert_eq!(
        world.get("/containerLogs/default/web/c").await,
        (400, "container \"c\" in pod \"web\" is waiting to start: trying and failing to pull image".to_owned())
    );
}

#[tokio::test]
async fn volumes_appear_and_follow_their_objects() {
    let world = World::new(Vec::new());
    let token = json!({"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}});
    let name = json!({"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}});
    let volumes =
        json!([{"name": "v", "configMap": {"name": "x"}}, {"name": "p", "projected": {"sources": [token, name]}}]);
    let mounts = json!([{"name": "v", "mountPath": "/v"}, {"name": "p", "mountPath": "/p", "readOnly": true}]);
    let container = json!({"name": "c", "image": "nginx:1.27", "volumeMounts": mounts});
    world.api.put(POD, web(json!({"containers": [container], "volumes": volumes})));
    world.settle().await;
    assert_eq!(world.summary(), "Pending waiting ContainerCreating restarts=0");
    let events = world.api.event_messages("web");
    assert_eq!(
        events,
        ["Warning FailedMount x1: MountVolume.SetUp failed for volume \"v\" : configmap \"x\" not found"]
    );
    world.api.put("/api/v1/namespaces/default/configmaps/x", json!({"data": {"a": "1"}}));
    world.settle().await;
    assert_eq!(world.summary(), "Running running restarts=0");
    let read = |path: &str| {
        let config = world.runtime.config("c");
        let (mount, file) = path[1..].split_once('/').unwrap();
        let mount = config.mounts.iter().find(|found| found.container_path == format!("/{mount}")).unwrap();
        world.fs.read(&format!("{}/{file}", mount.host_path)).map(|data| data.to_vec()).ok()
    };
    assert_eq!(read("/v/a"), Some(b"1".to_vec()));
    assert_eq!(read("/p/token"), Some(b"t0ken".to_vec()));
    assert_eq!(read("/p/name"), Some(b"web".to_vec()));
    world.api.put("/api/v1/namespaces/default/configmaps/x", json!({"data": {"a": "2", "b": "3"}}));
    world.settle().await;
    assert_eq!((read("/v/a"), read("/v/b")), (Some(b"2".to_vec()), Some(b"3".to_vec())));
}

#[tokio::test]
async fn a_new_kubelet_adopts_what_runs_and_ends_what_is_gone() {
    let mut world = World::new(Vec::new());
    world.api.put(POD, nginx());
    world
        .api
        .put("/api/v1/namespaces/default/pods/old", web(json!({"containers": [{"name": "o", "image": "nginx:1.27"}]})));
    world.settle().await;
    assert_eq!(world.runtime.containers().len(), 2);
    world.cancel.cancel();
    world.settle().await;
    world.api.remove("/api/v1/namespaces/default/pods/old");
    world.restart_kubelet().await;
    assert_eq!(world.runtime.containers(), ["c/0 CONTAINER_RUNNING"]);
    assert_eq!(world.summary(), "Running running restarts=0");
}

#[tokio::test]
async fn a_static_pod_runs_without_an_api_and_is_mirrored_when_there_is_one() {
    let manifest: Pod = serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "kube-system"},
        "spec": {"hostNetwork": true, "containers": [{"name": "c", "image": "registry.k8s.io/pause:3.10"}]},
    }))
    .unwrap();
    let world = World::new(vec![manifest]);
    world.api.set_down(true);
    world.settle().await;
    assert_eq!(world.runtime.containers(), ["c/0 CONTAINER_RUNNING"]);
    world.api.set_down(false);
    world.pass(Duration::from_secs(30)).await;
    let mirror = world.api.get("/api/v1/namespaces/kube-system/pods/web-node-1").expect("the mirror");
    assert_eq!(mirror["status"]["phase"], "Running");
    assert_eq!(mirror["status"]["podIP"], "192.168.0.10");
    assert_eq!(mirror["metadata"]["ownerReferences"][0]["kind"], "Node");
    let annotations = &mirror["metadata"]["annotations"];
    assert_eq!(annotations["kubernetes.io/config.mirror"], annotations["kubernetes.io/config.hash"]);
    world.api.remove("/api/v1/namespaces/kube-system/pods/web-node-1");
    world.pass(Duration::from_secs(1)).await;
    assert!(world.api.get("/api/v1/namespaces/kube-system/pods/web-node-1").is_some(), "the mirror comes back");
    assert_eq!(world.runtime.containers(), ["c/0 CONTAINER_RUNNING"]);
}

#[tokio::test]
async fn logs_are_cut_followed_and_kept() {
    let world = World::new(Vec::new());
    world.api.put(POD, nginx());
    world.settle().await;
    world.runtime.log("c", "one");
    world.pass(Duration::from_secs(60)).await;
    world.runtime.log("c", "two");
    world.runtime.log("c", "three");
    let get = async |query: &str| world.get(&format!("/containerLogs/default/web/c?{query}")).await.1;
    assert_eq!(get("").await, "one\ntwo\nthree\n");
    assert_eq!(get("tailLines=2").await, "two\nthree\n");
    assert_eq!(get("tailLines=0").await, "");
    assert_eq!(get("sinceSeconds=30").await, "two\nthree\n");
    assert_eq!(get("limitBytes=5").await, "one\nt");
    assert_eq!(get("tailLines=1&timestamps=true").await, "2026-01-01T00:01:00Z three\n");
    assert_eq!(get("previous=true").await, "previous terminated container \"c\" in pod \"web\" not found");
    assert_eq!(world.get("/containerLogs/default/web/x").await.0, 404);
    let follower = async { get("follow=true&tailLines=1").await };
    let writer = async {
        world.settle().await;
        world.runtime.log("c", "four");
        world.settle().await;
        world.runtime.exit("c", 0);
    };
    assert_eq!(futures::join!(follower, writer).0, "three\nfour\n");
    world.settle().await;
    assert_eq!(get("previous=true&tailLines=1").await, "four\n");
}

/// Files of the container's log.
fn log_files(world: &World) -> Vec<String> {
    let folder = "/var/log/pods/default_web_uid-web/c";
    world.fs.list(folder).unwrap().into_iter().map(|entry| entry.name).collect()
}

#[tokio::test]
async fn a_large_log_is_set_aside_and_followed_to_its_end() {
    /// Of a line: a little more than ten of them make a log too large.
    const LONG: usize = 1 << 20;
    let world = World::new(Vec::new());
    world.api.put(POD, nginx());
    world.settle().await;
    let get = async |query: &str| world.get(&format!("/containerLogs/default/web/c?{query}")).await.1;
    let follower = async { get("follow=true").await };
    let writer = async {
        world.settle().await;
        for round in 0..7 {
            (0..11).for_each(|_| world.runtime.log("c", &"x".repeat(LONG)));
            world.runtime.log("c", &format!("round {round}"));
            world.pass(Duration::from_secs(11)).await;
            assert_eq!(get("").await, "", "the file is a new one");
        }
        let files = log_files(&world);
        assert_eq!((files.len(), files[0].as_str()), (5, "0.log"), "{files:?}");
        world.runtime.log("c", "the end");
        assert_eq!(get("").await, "the end\n");
        world.settle().await;
        world.runtime.exit("c", 0);
    };
    let followed = futures::join!(follower, writer).0;
    let lines: Vec<&str> = followed.lines().filter(|line| line.len() < LONG).collect();
    assert_eq!(lines[0], "round 0");
    assert_eq!(lines[lines.len() - 2..], ["round 6", "the end"]);
    assert_eq!(followed.lines().count(), 7 * 12 + 1, "not a line is missing");
}

const CLAIM: &str = "/api/v1/namespaces/default/persistentvolumeclaims/data";
const VOLUME: &str = "/api/v1/persistentvolumes/pv-1";

fn claiming(read_only: bool) -> Value {
    let claim = json!({"claimName": "data", "readOnly": read_only});
    let mounts = json!([{"name": "v", "mountPath": "/data"}]);
    web(json!({
        "containers": [{"name": "c", "image": "nginx:1.27", "volumeMounts": mounts}],
        "volumes": [{"name": "v", "persistentVolumeClaim": claim}],
        "terminationGracePeriodSeconds": 1,
    }))
}

fn volume(source: &str, value: Value) -> Value {
    json!({"spec": {source: value, "claimRef": {"namespace": "default", "name": "data", "uid": "uid-data"}}})
}

#[tokio::test]
async fn a_claimed_folder_outlives_its_pods() {
    let world = World::new(Vec::new());
    world.api.put(POD, claiming(false));
    world.settle().await;
    assert_eq!(world.summary(), "Pending waiting ContainerCreating restarts=0");
    world.api.put(CLAIM, json!({"spec": {"volumeName": "pv-1"}, "status": {"phase": "Pending"}}));
    world.pass(Duration::from_secs(1)).await;
    let why = "Unable to attach or mount volumes: unmounted volumes=[v], unattached volumes=[], \
               failed to process volumes=[v]: error processing PVC default/data: PVC is not bound";
    let events = world.api.event_messages("web");
    assert!(events.iter().any(|event| event.ends_with(why)), "{events:?}");
    let folder = json!({"path": "/srv/pv-1", "type": "DirectoryOrCreate"});
    world.api.put(VOLUME, volume("hostPath", folder));
    world.api.put(CLAIM, json!({"spec": {"volumeName": "pv-1"}, "status": {"phase": "Bound"}}));
    world.pass(Duration::from_secs(3)).await;
    assert_eq!(world.summary(), "Running running restarts=0");
    let mounted = |world: &World| {
        let mut mounts = world.runtime.config("c").mounts.into_iter();
        let mount = mounts.find(|mount| mount.container_path == "/data").unwrap();
        (mount.host_path, mount.readonly)
    };
    assert_eq!(mounted(&world), ("/srv/pv-1".to_owned(), false));
    world.fs.write("/srv/pv-1/file", b"kept").unwrap();

    world.api.remove(POD);
    world.pass(Duration::from_secs(3)).await;
    let mut again = claiming(true);
    again["metadata"]["uid"] = json!("uid-again");
    world.api.put(POD, again);
    world.settle().await;
    assert_eq!(mounted(&world), ("/srv/pv-1".to_owned(), true));
    assert_eq!(&*world.fs.read("/srv/pv-1/file").unwrap(), b"kept");
}

#[tokio::test]
async fn the_claim_of_an_ephemeral_volume_is_the_pods_own() {
    const MADE: &str = "/api/v1/namespaces/default/persistentvolumeclaims/web-v";
    let world = World::new(Vec::new());
    let mut volume = volume("hostPath", json!({"path": "/srv/pv-1", "type": "DirectoryOrCreate"}));
    volume["spec"]["claimRef"] = json!({"namespace": "default", "name": "web-v", "uid": "uid-web-v"});
    world.api.put(VOLUME, volume);
    let mut pod = claiming(false);
    pod["spec"]["volumes"] = json!([{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]);
    world.api.put(POD, pod);
    world.settle().await;
    let claim = |owners: Value| {
        let metadata = json!({"ownerReferences": owners});
        json!({"metadata": metadata, "spec": {"volumeName": "pv-1"}, "status": {"phase": "Bound"}})
    };
    world.api.put(MADE, claim(json!([])));
    world.pass(Duration::from_secs(3)).await;
    assert_eq!(world.summary(), "Pending waiting ContainerCreating restarts=0");
    let events = world.api.event_messages("web");
    for why in [
        "error processing PVC default/web-v: failed to fetch PVC from API server: /api/v1/namespaces/default/persistentvolumeclaims/web-v not found",
        "PVC default/web-v was not created for pod default/web (pod is not owner)",
    ] {
        assert!(events.iter().any(|event| event.ends_with(why)), "{why} in {events:?}");
    }
    let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "uid-web", "controller": true});
    world.api.put(MADE, claim(json!([owner])));
    world.pass(Duration::from_secs(3)).await;
    assert_eq!(world.summary(), "Running running restarts=0");
}

#[tokio::test]
async fn a_claim_to_what_is_not_supported_says_so() {
    let world = World::new(Vec::new());
    world.api.put(VOLUME, volume("nfs", json!({"server": "s", "path": "/"})));
    world.api.put(CLAIM, json!({"spec": {"volumeName": "pv-1"}, "status": {"phase": "Bound"}}));
    world.api.put(POD, claiming(false));
    world.settle().await;
    assert_eq!(world.summary(), "Pending waiting ContainerCreating restarts=0");
    let events = world.api.event_messages("web");
    let why = "error processing PVC default/data: this kubelet does not support spec.nfs of PV pv-1";
    assert!(events.iter().any(|event| event.ends_with(why)), "{events:?}");
}

#[tokio::test]
async fn pods_come_back_after_each_reboot_of_the_node() {
    let mut world = World::new(Vec::new());
    world.api.put(POD, nginx());
    world.settle().await;
    assert_eq!(world.summary(), "Running running restarts=0");
    for restarts in 1..=2 {
        world.reboot().await;
        assert_eq!(world.summary(), format!("Running running restarts={restarts}"));
        let last = &world.pod()["status"]["containerStatuses"][0]["lastState"]["terminated"];
        assert_eq!(last["reason"], "ContainerStatusUnknown");
    }
    let changed = "Normal SandboxChanged x1: Pod sandbox changed, it will be killed and re-created.";
    let events = world.api.event_messages("web");
    assert!(events.contains(&changed.to_owned()), "{events:?}");
}

#[tokio::test]
async fn pods_wait_for_the_network_of_their_node() {
    let world = World::new(Vec::new());
    world.runtime.set_network(false);
    world.api.put(POD, nginx());
    world.settle().await;
    assert_eq!((world.runtime.sandboxes(), world.api.event_messages("web").len()), (0, 0));
    world.pass(Duration::from_secs(1)).await;
    let events = world.api.event_messages("web");
    assert!(events[0].starts_with("Warning NetworkNotReady x1: network is not ready: "), "{events:?}");
    world.runtime.set_network(true);
    world.pass(Duration::from_secs(1)).await;
    assert_eq!(world.summary(), "Running running restarts=0");
}

#[tokio::test]
async fn refusals_name_their_reason() {
    let world = World::new(Vec::new());
    let volumes = json!([{"name": "v", "nfs": {"server": "s", "path": "/"}}]);
    world.api.put(POD, web(json!({"containers": [{"name": "c", "image": "nginx:1.27"}], "volumes": volumes})));
    world.settle().await;
    assert_eq!(world.summary(), "Pending waiting UnsupportedField restarts=0");
    let events = world.api.event_messages("web");
    assert_eq!(events, ["Warning UnsupportedField x1: this kubelet does not support spec.volumes{v}.nfs"]);
    let resources = json!({"requests": {"cpu": "8"}});
    let big = web(json!({"containers": [{"name": "c", "image": "nginx:1.27", "resources": resources}]}));
    world.api.put("/api/v1/namespaces/default/pods/big", big);
    world.settle().await;
    let status = &world.api.get("/api/v1/namespaces/default/pods/big").unwrap()["status"];
    assert_eq!((status["phase"].as_str(), status["reason"].as_str()), (Some("Failed"), Some("OutOfcpu")));
    assert_eq!(
        status["message"],
        "Pod was rejected: Node didn't have enough resource: cpu, requested: 8000, used: 0, capacity: 4000"
    );
}

#[tokio::test]
async fn a_host_port_is_given_once() {
    let world = World::new(Vec::new());
    let on = |protocol: &str| {
        let port = json!({"containerPort": 53, "hostPort": 53, "protocol": protocol});
        web(json!({"containers": [{"name": "c", "image": "nginx:1.27", "ports": [port]}]}))
    };
    let phase_of = |name: &str| {
        let status = &world.api.get(&format!("/api/v1/namespaces/default/pods/{name}")).unwrap()["status"];
        format!("{} {}", status["phase"].as_str().unwrap(), status["message"].as_str().unwrap_or_default())
    };
    for (name, protocol) in [("first", "TCP"), ("second", "UDP"), ("third", "TCP")] {
        world.api.put(&format!("/api/v1/namespaces/default/pods/{name}"), on(protocol));
        world.settle().await;
    }
    assert_eq!((phase_of("first"), phase_of("second")), ("Running ".to_owned(), "Running ".to_owned()));
    let why = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
    assert_eq!(phase_of("third"), format!("Failed Pod was rejected: {why}"));
}

#[tokio::test]
async fn probes_decide_over_traffic_and_life() {
    let world = World::new(Vec::new());
    let probe = json!({"tcpSocket": {"port": 80}, "periodSeconds": 1, "failureThreshold": 2});
    let container = json!({"name": "c", "image": "nginx:1.27", "readinessProbe": probe, "livenessProbe": probe});
    world.network.listens.store(true, Ordering::SeqCst);
    world.api.put(POD, web(json!({"containers": [container], "terminationGracePeriodSeconds": 1})));
    let ready = |world: &World| world.pod()["status"]["containerStatuses"][0]["ready"].clone();
    world.settle().await;
    assert_eq!(ready(&world), true);
    world.network.listens.store(false, Ordering::SeqCst);
    world.pass(Duration::from_millis(1_500)).await;
    assert_eq!(world.summary(), "Running running restarts=0", "one failure is none");
    world.pass(Duration::from_secs(1)).await;
    assert_eq!(world.summary(), "Running running restarts=1");
    assert_eq!(ready(&world), false);
    world.network.listens.store(true, Ordering::SeqCst);
    world.pass(Duration::from_secs(2)).await;
    assert_eq!(ready(&world), true);
    let events = world.api.event_messages("web");
    // Two before the end of the first container, one at the start of the second.
    let failed = "Warning Unhealthy x3: Liveness probe failed: dial tcp 10.128.0.2:80: connect: connection refused";
    assert!(events.contains(&failed.to_owned()), "{events:?}");
    let killed = "Normal Killing x1: Container c failed liveness probe, will be restarted";
    assert!(events.contains(&killed.to_owned()), "{events:?}");
}
