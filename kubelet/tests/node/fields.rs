//! Fields of pods that reach beyond a container: classes, bundles, images as volumes and their like.

use std::time::Duration;

use crate::fakes::world::{POD, World, nginx, web};
use minik8s_cri::NodeFs as _;
use minik8s_cri::proto::NamespaceMode;
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

/// The content of a file of a container, by mount path and name.
fn read(world: &World, mount: &str, file: &str) -> Option<String> {
    let config = world.runtime.config("c");
    let mount = config.mounts.iter().find(|found| found.container_path == mount).unwrap();
    let data = world.fs.read(&format!("{}/{file}", mount.host_path)).ok()?;
    Some(String::from_utf8(data.to_vec()).unwrap())
}

#[tokio::test]
async fn trust_bundles_appear_and_follow_their_objects() {
    const BUNDLE: &str = "/apis/certificates.k8s.io/v1/clustertrustbundles/s:one";
    let pem = |data: &str| format!("-----BEGIN CERTIFICATE-----\n{data}\n-----END CERTIFICATE-----\n");
    let bundle = |data: &str| json!({"spec": {"signerName": "s", "trustBundle": pem(data)}});
    let by_signer = json!({"path": "signer.pem", "signerName": "s", "labelSelector": {}});
    let by_name = json!({"path": "name.pem", "name": "s:one"});
    let sources = json!([{"clusterTrustBundle": by_signer}, {"clusterTrustBundle": by_name}]);
    let mounts = json!([{"name": "v", "mountPath": "/v"}]);
    let world = World::new(Vec::new());
    world.api.put(
        POD,
        web(json!({
            "containers": [{"name": "c", "image": "nginx:1.27", "volumeMounts": mounts}],
            "volumes": [{"name": "v", "projected": {"sources": sources}}],
        })),
    );
    world.settle().await;
    assert_eq!(world.summary(), "Pending waiting ContainerCreating restarts=0");
    let missing = "[combination of signerName and labelSelector matched zero ClusterTrustBundles, \
                   while getting ClusterTrustBundle: clustertrustbundle.certificates.k8s.io \"s:one\" not found]";
    let failed = format!("Warning FailedMount x1: MountVolume.SetUp failed for volume \"v\" : {missing}");
    assert_eq!(world.api.event_messages("web"), [failed]);
    world.api.put(BUNDLE, bundle("AAAA"));
    world.settle().await;
    assert_eq!(world.summary(), "Running running restarts=0");
    assert_eq!(read(&world, "/v", "name.pem"), Some(pem("AAAA")));
    world.api.put(BUNDLE, bundle("BBBB"));
    world.settle().await;
    assert_eq!(read(&world, "/v", "signer.pem"), Some(pem("BBBB")));
}

fn with_sysctl(name: &str, value: &str) -> Value {
    let mut pod = nginx();
    pod["spec"]["securityContext"] = json!({"sysctls": [{"name": name, "value": value}]});
    pod
}

#[tokio::test]
async fn safe_sysctls_are_the_sandboxs() {
    let world = World::new(Vec::new());
    world.api.put(POD, with_sysctl("kernel/shm_rmid_forced", "1"));
    world.settle().await;
    assert_eq!(world.summary(), "Running running restarts=0");
    let sysctls = world.runtime.sandbox_configs().pop().and_then(|config| config.linux).unwrap().sysctls;
    assert_eq!(sysctls.into_iter().collect::<Vec<_>>(), [("kernel.shm_rmid_forced".to_owned(), "1".to_owned())]);
}

#[tokio::test]
async fn unsafe_sysctls_fail_the_pod() {
    let world = World::new(Vec::new());
    world.api.put(POD, with_sysctl("kernel.msgmax", "10000000000"));
    world.settle().await;
    let status = &world.pod()["status"];
    assert_eq!((status["phase"].as_str(), status["reason"].as_str()), (Some("Failed"), Some("SysctlForbidden")));
    assert_eq!(status["message"], "Pod was rejected: forbidden sysctl: \"kernel.msgmax\" not allowlisted");
    let events = world.api.event_messages("web");
    assert_eq!(events, ["Warning SysctlForbidden x1: forbidden sysctl: \"kernel.msgmax\" not allowlisted"]);
}

fn with_image_volume(reference: &str, policy: &str) -> Value {
    let mounts = json!([{"name": "v", "mountPath": "/v", "subPath": "etc"}]);
    let image = json!({"reference": reference, "pullPolicy": policy});
    web(json!({
        "containers": [{"name": "c", "image": "nginx:1.27", "volumeMounts": mounts}],
        "volumes": [{"name": "v", "image": image}],
    }))
}

#[tokio::test]
async fn an_image_is_a_volume() {
    let world = World::new(Vec::new());
    world.api.put(POD, with_image_volume("kitten:1", "Always"));
    world.settle().await;
    assert_eq!(world.summary(), "Running running restarts=0");
    let mounts = world.runtime.config("c").mounts;
    let mount = mounts.into_iter().find(|mount| mount.container_path == "/v").unwrap();
    assert_eq!((mount.host_path.as_str(), mount.image_sub_path.as_str(), mount.readonly), ("", "etc", true));
    let image = mount.image.unwrap();
    assert_eq!((image.image.as_str(), image.user_specified_image.as_str()), ("sha256:kitten:1", "kitten:1"));
    let events = world.api.event_messages("web");
    assert_eq!(events[0], "Normal Pulling x1: Pulling image \"kitten:1\"");
}

#[tokio::test]
async fn a_container_waits_for_the_images_of_its_volumes() {
    let world = World::new(Vec::new());
    world.api.put(POD, with_image_volume("kitten:nonexistent", "IfNotPresent"));
    world.settle().await;
    assert_eq!(world.summary(), "Pending waiting ErrImagePull restarts=0");
    world.pass(Duration::from_secs(2)).await;
    assert_eq!(world.summary(), "Pending waiting ImagePullBackOff restarts=0");
    let events = world.api.event_messages("web");
    assert!(events.contains(&"Warning Failed x1: Error: ErrImagePull".to_owned()), "{events:?}");
    assert!(
        events.contains(&"Normal BackOff x1: Back-off pulling image \"kitten:nonexistent\"".to_owned()),
        "{events:?}"
    );
}

#[tokio::test]
async fn a_pod_gets_certificates_and_new_ones_in_time() {
    const REQUESTS: &str = "/apis/certificates.k8s.io/v1/namespaces/default/podcertificaterequests/";
    let source = json!({
        "signerName": "example.com/spiffe", "keyType": "ECDSAP256", "credentialBundlePath": "bundle.pem",
        "keyPath": "key.pem", "userAnnotations": {"a": "b"},
    });
    let mounts = json!([{"name": "v", "mountPath": "/v"}]);
    let world = World::new(Vec::new());
    world.api.put("/api/v1/namespaces/default/serviceaccounts/default", json!({}));
    world.api.put(
        POD,
        web(json!({
            "containers": [{"name": "c", "image": "nginx:1.27", "volumeMounts": mounts}],
            "serviceAccountName": "default",
            "volumes": [{"name": "v", "projected": {"sources": [{"podCertificate": source}]}}],
        })),
    );
    world.settle().await;
    assert_eq!(world.summary(), "Pending waiting ContainerCreating restarts=0");
    let events = world.api.event_messages("web");
    let failed = "MountVolume.SetUp failed for volume \"v\" : credential bundle is not issued yet";
    assert!(events.iter().any(|event| event.ends_with(failed)), "{events:?}");
    let issue = |path: &str, chain: &str, refresh: &str| {
        let mut request = world.api.get(path).unwrap();
        let condition = json!({
            "type": "Issued", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        request["status"] = json!({
            "conditions": [condition], "beginRefreshAt": refresh,
            "certificateChain": format!("-----BEGIN CERTIFICATE-----\n{chain}\n-----END CERTIFICATE-----\n"),
        });
        world.api.put(path, request);
    };
    let requests = world.api.paths(REQUESTS);
    assert_eq!(requests.len(), 1);
    let spec = &world.api.get(&requests[0]).unwrap()["spec"];
    assert_eq!((&spec["podUID"], &spec["serviceAccountUID"]), (&json!("uid-web"), &json!("uid-default")));
    assert_eq!((&spec["nodeName"], &spec["nodeUID"]), (&json!("node-1"), &json!("uid-node-1")));
    assert_eq!(spec["unverifiedUserAnnotations"], json!({"a": "b"}));
    issue(&requests[0], "AAAA", "2026-01-01T01:00:00Z");
    world.settle().await;
    assert_eq!(world.summary(), "Running running restarts=0");
    let (key, bundle) = (read(&world, "/v", "key.pem").unwrap(), read(&world, "/v", "bundle.pem").unwrap());
    assert!(bundle.starts_with(&key) && bundle.contains("AAAA"), "{bundle}");
    world.pass(Duration::from_secs(59 * 60)).await;
    assert_eq!(world.api.paths(REQUESTS).len(), 1);
    world.pass(Duration::from_secs(7 * 60)).await;
    let requests = world.api.paths(REQUESTS);
    assert_eq!(requests.len(), 2);
    assert_eq!(read(&world, "/v", "bundle.pem"), Some(bundle), "the old one serves while the new one is made");
    issue(&requests[1], "BBBB", "2026-01-01T02:00:00Z");
    world.settle().await;
    assert!(read(&world, "/v", "bundle.pem").unwrap().contains("BBBB"));
}

#[tokio::test]
async fn read_only_goes_all_the_way_down_if_the_runtime_can() {
    let world = World::new(Vec::new());
    world.settle().await;
    let mount = json!([{"name": "v", "mountPath": "/v", "readOnly": true, "recursiveReadOnly": "IfPossible"}]);
    let mut pod = web(json!({
        "containers": [{"name": "c", "image": "nginx:1.27", "volumeMounts": mount}],
        "volumes": [{"name": "v", "emptyDir": {}}],
    }));
    world.api.put(POD, pod.clone());
    world.settle().await;
    let mounted = world.runtime.config("c").mounts.into_iter().find(|mount| mount.container_path == "/v").unwrap();
    assert!(mounted.readonly && mounted.recursive_read_only);
    assert_eq!(world.pod()["status"]["containerStatuses"][0]["volumeMounts"][0]["recursiveReadOnly"], "Enabled");
    // The handler of this class cannot.
    world.api.put("/apis/node.k8s.io/v1/runtimeclasses/plain", json!({"handler": "runc"}));
    pod["spec"]["runtimeClassName"] = json!("plain");
    pod["spec"]["containers"][0]["name"] = json!("d");
    pod["spec"]["containers"][0]["volumeMounts"][0]["recursiveReadOnly"] = json!("Enabled");
    world.api.put("/api/v1/namespaces/default/pods/plain", pod);
    world.settle().await;
    let plain = world.api.get("/api/v1/namespaces/default/pods/plain").unwrap();
    let waiting = &plain["status"]["containerStatuses"][0]["state"]["waiting"];
    let why = "failed to resolve recursive read-only mode: volume \"v\" requested recursive read-only mode, \
               but it is not supported by the runtime";
    assert_eq!((&waiting["reason"], &waiting["message"]), (&json!("CreateContainerConfigError"), &json!(why)));
}

#[tokio::test]
async fn variables_come_from_a_file_that_an_init_container_wrote() {
    const VOLUME: &str = "/var/lib/kubelet/pods/uid-web/volumes/kubernetes.io~empty-dir/v";
    let variable = |name: &str, optional: bool| {
        let reference = json!({"volumeName": "v", "path": "a/env", "key": name, "optional": optional});
        json!({"name": name, "valueFrom": {"fileKeyRef": reference}})
    };
    let world = World::new(Vec::new());
    let env = json!([variable("ONE", false), variable("TWO", true)]);
    world.api.put(
        POD,
        web(json!({
            "initContainers": [{"name": "i", "image": "busybox:1"}],
            "containers": [{"name": "c", "image": "nginx:1.27", "env": env}],
            "volumes": [{"name": "v", "emptyDir": {}}],
        })),
    );
    world.settle().await;
    world.fs.symlink("/etc", &format!("{VOLUME}/a")).unwrap();
    world.fs.create_dir_all("/etc").unwrap();
    world.fs.write("/etc/env", b"ONE='secret'\n").unwrap();
    world.runtime.exit("i", 0);
    world.settle().await;
    assert_eq!(world.summary(), "Pending waiting CreateContainerConfigError restarts=0");
    world.fs.remove_file(&format!("{VOLUME}/a")).unwrap();
    world.fs.create_dir_all(&format!("{VOLUME}/a")).unwrap();
    world.fs.write(&format!("{VOLUME}/a/env"), "# too long\n".repeat(8 << 10).as_bytes()).unwrap();
    world.pass(Duration::from_secs(20)).await;
    let waiting = &world.pod()["status"]["containerStatuses"][0]["state"]["waiting"];
    assert_eq!(waiting["message"], "couldn't parse env file");
    world.fs.write(&format!("{VOLUME}/a/env"), b"ONE='1'\n").unwrap();
    world.pass(Duration::from_secs(20)).await;
    assert_eq!(world.summary(), "Running running restarts=0");
    let env = world.runtime.config("c").envs;
    let value = |name: &str| env.iter().find(|pair| pair.key == name).map(|pair| pair.value.clone());
    assert_eq!((value("ONE"), value("TWO")), (Some(b"1".to_vec()), None));
}

#[tokio::test]
async fn a_hook_that_dials_a_port_only_fails() {
    let world = World::new(Vec::new());
    let mut pod = nginx();
    pod["spec"]["containers"][0]["lifecycle"] = json!({"postStart": {"tcpSocket": {"port": 80}}});
    world.api.put(POD, pod);
    world.settle().await;
    let events = world.api.event_messages("web");
    assert!(events.iter().any(|event| event.starts_with("Warning FailedPostStartHook")), "{events:?}");
}

#[tokio::test]
async fn an_ephemeral_container_sees_the_processes_of_its_target() {
    let world = World::new(Vec::new());
    world.api.put(POD, nginx());
    world.settle().await;
    let mut pod = world.pod();
    pod["metadata"]["generation"] = json!(2);
    let debugger =
        |name: &str, target: &str| json!({"name": name, "image": "nginx:1.27", "targetContainerName": target});
    pod["spec"]["ephemeralContainers"] =
        json!([debugger("sees", "c"), debugger("alone", ""), debugger("lost", "later")]);
    world.api.put(POD, pod);
    world.settle().await;
    let pid = |name: &str| {
        let security = world.runtime.config(name).linux.and_then(|linux| linux.security_context);
        let options = security.and_then(|security| security.namespace_options).unwrap();
        (NamespaceMode::try_from(options.pid).unwrap(), options.target_id)
    };
    let id = world.pod()["status"]["containerStatuses"][0]["containerID"].as_str().unwrap().to_owned();
    assert_eq!(pid("sees"), (NamespaceMode::Target, id.replace("containerd://", "")));
    assert_eq!(pid("alone"), (NamespaceMode::Container, String::new()));
    let events = world.api.event_messages("web");
    let why = "Error: unable to find target container later";
    assert!(events.iter().any(|event| event.ends_with(why)), "{events:?}");
}
