//! The chain as a whole, on a small cluster: what it adds, what it refuses, in Kubernetes' words.

use serde_json::{Value, json};

use super::{Attributes, Chain, Operation};
use crate::{
    cache::Objects,
    identity::{
        UserInfo,
        fixture::{World, write},
    },
};

fn world() -> World {
    let world = World::with_roles();
    world.put(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "rec" } }));
    world.put(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "gone", "deletionTimestamp": "2026-01-01T00:00:00Z" } }));
    world.put(
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "namespace": "rec", "name": "default" } }),
    );
    world
}

fn pod(spec: Value) -> Value {
    let mut spec = spec;
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{ "name": "c", "image": "nginx:1.27", "resources": {} }]);
    }
    json!({ "kind": "Pod", "apiVersion": "v1", "metadata": { "namespace": "rec", "name": "p" }, "spec": spec })
}

/// Runs both stages; the object as it would be stored, or the refusal.
async fn run(chain: &Chain, mut attributes: Attributes<'_>) -> Result<Value, String> {
    chain.admit(&mut attributes).await.map_err(|status| status.message)?;
    chain.validate(&attributes).await.map_err(|status| status.message)?;
    Ok(attributes.object.unwrap_or_default())
}

async fn create(world: &World, resource: (&str, &str), object: &Value) -> Result<Value, String> {
    let user = UserInfo::new("dev", [] as [&str; 0]);
    run(&world.chain(), write(Operation::Create, resource, object, None, &user)).await
}

#[tokio::test]
async fn a_plain_pod_becomes_what_kubernetes_makes_of_it() {
    let stored = create(&world(), ("", "pods"), &pod(json!({}))).await.expect("admitted");
    let spec = &stored["spec"];
    let volume = spec["volumes"][0]["name"].as_str().expect("volume");
    assert!(volume.starts_with("kube-api-access-") && volume.len() == "kube-api-access-".len() + 5, "{volume}");
    assert_eq!(
        spec["volumes"],
        json!([{ "name": volume, "projected": { "sources": [
            { "serviceAccountToken": { "expirationSeconds": 3607, "path": "token" } },
            { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
            { "downwardAPI": { "items": [{ "path": "namespace", "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" } }] } },
        ], "defaultMode": 420 } }])
    );
    assert_eq!(
        spec["containers"][0]["volumeMounts"],
        json!([{ "name": volume, "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount" }])
    );
    assert_eq!((&spec["serviceAccountName"], &spec["serviceAccount"]), (&json!("default"), &json!("default")));
    assert_eq!((&spec["priority"], &spec["preemptionPolicy"]), (&json!(0), &json!("PreemptLowerPriority")));
    let toleration =
        |key: &str| json!({ "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 });
    assert_eq!(
        spec["tolerations"],
        json!([toleration("node.kubernetes.io/not-ready"), toleration("node.kubernetes.io/unreachable")])
    );
    assert!(
        spec.get("initContainers").is_none()
            && spec.get("imagePullSecrets").is_none()
            && spec.get("overhead").is_none(),
        "{spec}"
    );

    let quiet =
        create(&world(), ("", "pods"), &pod(json!({ "automountServiceAccountToken": false }))).await.expect("admitted");
    assert!(quiet["spec"].get("volumes").is_none());
}

#[tokio::test]
async fn refusals_have_kubernetes_words() {
    let world = world();
    let mut late = json!({ "kind": "ConfigMap", "metadata": { "namespace": "gone", "name": "late" } });
    for (resource, object, expect) in [
        (
            ("", "configmaps"),
            late.clone(),
            r#"configmaps "late" is forbidden: unable to create new content in namespace gone because it is being terminated"#,
        ),
        (
            ("", "pods"),
            pod(json!({ "serviceAccountName": "ghost" })),
            r#"pods "p" is forbidden: error looking up service account rec/ghost: serviceaccount "ghost" not found"#,
        ),
        (
            ("", "pods"),
            pod(json!({ "priorityClassName": "ghost" })),
            r#"pods "p" is forbidden: no PriorityClass with name ghost was found"#,
        ),
        (
            ("", "pods"),
            pod(json!({ "runtimeClassName": "ghost" })),
            r#"pods "p" is forbidden: pod rejected: RuntimeClass "ghost" not found"#,
        ),
        (
            ("", "pods"),
            pod(json!({ "priority": 7 })),
            r#"pods "p" is forbidden: the integer value of priority (7) must not be provided in pod spec; priority admission controller computed 0 from the given PriorityClass name"#,
        ),
    ] {
        assert_eq!(create(&world, resource, &object).await.expect_err("refused"), expect);
    }
    late["metadata"]["namespace"] = json!("nowhere");
    assert_eq!(
        create(&world, ("", "configmaps"), &late).await.expect_err("refused"),
        r#"namespaces "nowhere" not found"#
    );

    let user = UserInfo::new("dev", [] as [&str; 0]);
    for (name, refused) in [("default", true), ("kube-system", true), ("kube-public", true), ("rec", false)] {
        let namespace = json!({ "kind": "Namespace", "metadata": { "name": name } });
        let answer =
            run(&world.chain(), write(Operation::Delete, ("", "namespaces"), &namespace, Some(&namespace), &user))
                .await;
        assert_eq!(
            answer.err(),
            refused.then(|| format!("namespaces {name:?} is forbidden: this namespace may not be deleted"))
        );
    }
}

#[tokio::test]
async fn classes_give_what_they_promise() {
    let world = world();
    world.put(json!({ "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": { "name": "high" }, "value": 1000, "preemptionPolicy": "Never" }));
    world.put(json!({ "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": { "name": "usual" }, "value": 5, "globalDefault": true }));
    world.put(json!({ "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": { "name": "vm" }, "handler": "vm", "overhead": { "podFixed": { "cpu": "250m" } }, "scheduling": { "nodeSelector": { "vm": "yes" } } }));
    world.put(json!({ "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": { "name": "fast", "annotations": { "storageclass.kubernetes.io/is-default-class": "true" } }, "provisioner": "x" }));
    let stored = create(&world, ("", "pods"), &pod(json!({ "priorityClassName": "high", "runtimeClassName": "vm" })))
        .await
        .expect("admitted");
    assert_eq!((&stored["spec"]["priority"], &stored["spec"]["preemptionPolicy"]), (&json!(1000), &json!("Never")));
    assert_eq!(
        (&stored["spec"]["overhead"], &stored["spec"]["nodeSelector"]),
        (&json!({ "cpu": "250m" }), &json!({ "vm": "yes" }))
    );
    let own = |class: &str, cpu: &str| pod(json!({ "runtimeClassName": class, "overhead": { "cpu": cpu } }));
    create(&world, ("", "pods"), &own("vm", "0.25")).await.expect("the same amount");
    world.put(json!({ "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": { "name": "light" }, "handler": "runc" }));
    for (class, why) in [
        ("vm", "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"),
        ("light", "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"),
    ] {
        let refused = create(&world, ("", "pods"), &own(class, "1")).await.expect_err("refused");
        assert_eq!(refused, format!("pods \"p\" is forbidden: {why}"));
    }
    let stored = create(&world, ("", "pods"), &pod(json!({}))).await.expect("admitted");
    assert_eq!((&stored["spec"]["priority"], &stored["spec"]["priorityClassName"]), (&json!(5), &json!("usual")));

    let claim = json!({ "kind": "PersistentVolumeClaim", "metadata": { "namespace": "rec", "name": "c" }, "spec": { "resources": { "requests": { "storage": "1Gi" } } } });
    let stored = create(&world, ("", "persistentvolumeclaims"), &claim).await.expect("admitted");
    assert_eq!(
        (&stored["spec"]["storageClassName"], &stored["metadata"]["finalizers"]),
        (&json!("fast"), &json!(["kubernetes.io/pvc-protection"]))
    );

    let node =
        create(&world, ("", "nodes"), &json!({ "kind": "Node", "metadata": { "name": "n" } })).await.expect("admitted");
    assert_eq!(node["spec"]["taints"], json!([{ "key": "node.kubernetes.io/not-ready", "effect": "NoSchedule" }]));

    let second = json!({ "kind": "PriorityClass", "metadata": { "name": "other" }, "value": 1, "globalDefault": true });
    let refused = create(&world, ("scheduling.k8s.io", "priorityclasses"), &second).await.expect_err("refused");
    assert!(
        refused.ends_with("PriorityClass usual is already marked as default. Only one default can exist"),
        "{refused}"
    );
}

#[tokio::test]
async fn quotas_are_charged_and_hold() {
    let world = world();
    world.put(json!({ "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "namespace": "rec", "name": "q" }, "spec": { "hard": { "pods": "2", "requests.memory": "1Gi" } } }));
    assert_eq!(
        create(&world, ("", "pods"), &pod(json!({}))).await.expect_err("silent"),
        r#"pods "p" is forbidden: failed quota: q: must specify requests.memory for: c"#
    );
    let asking = |memory: &str| {
        pod(json!({ "containers": [{ "name": "c", "resources": { "requests": { "memory": memory } } }] }))
    };
    assert_eq!(
        create(&world, ("", "pods"), &asking("2Gi")).await.expect_err("too much"),
        r#"pods "p" is forbidden: exceeded quota: q, requested: requests.memory=2Gi, used: requests.memory=0, limited: requests.memory=1Gi"#
    );
    create(&world, ("", "pods"), &asking("512Mi")).await.expect("first");
    create(&world, ("", "pods"), &asking("256Mi")).await.expect("second");
    let quota =
        world.get(&minik8s_api::kinds::GroupResource::new("", "resourcequotas"), "rec", "q").expect("quota").value();
    assert_eq!(
        quota["status"],
        json!({ "hard": { "pods": "2", "requests.memory": "1Gi" }, "used": { "pods": "2", "requests.memory": "768Mi" } })
    );
    assert_eq!(
        create(&world, ("", "pods"), &asking("1Mi")).await.expect_err("one too many"),
        r#"pods "p" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2"#
    );
    create(
        &world,
        ("", "configmaps"),
        &json!({ "kind": "ConfigMap", "metadata": { "namespace": "rec", "name": "c" } }),
    )
    .await
    .expect("not counted");
}

#[tokio::test]
async fn quotas_hold_against_a_crowd() {
    let world = world();
    world.put(json!({ "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "namespace": "rec", "name": "q" }, "spec": { "hard": { "count/configmaps": "5" } } }));
    let (chain, user) = (world.chain(), UserInfo::new("dev", [] as [&str; 0]));
    let map = json!({ "kind": "ConfigMap", "metadata": { "namespace": "rec", "name": "c" } });
    let answers = futures::future::join_all(
        (0..20).map(|_| run(&chain, write(Operation::Create, ("", "configmaps"), &map, None, &user))),
    )
    .await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 5);
}

#[tokio::test]
async fn pod_security_refuses_and_warns() {
    let world = world();
    let labelled = |level: &str| json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "rec", "labels": { "pod-security.kubernetes.io/enforce": level } } });
    let user = UserInfo::new("dev", [] as [&str; 0]);
    for name in ["d-1", "d-2"] {
        let mut running = pod(json!({}));
        running["metadata"]["name"] = json!(name);
        world.put(running);
    }
    let (old, new) = (labelled("privileged"), labelled("restricted"));
    let change = write(Operation::Update, ("", "namespaces"), &new, Some(&old), &user);
    world.chain().validate(&change).await.expect("allowed");
    assert_eq!(
        change.take_warnings(),
        [
            r#"existing pods in namespace "rec" violate the new PodSecurity enforce level "restricted:latest""#,
            "d-1 (and 1 other pod): allowPrivilegeEscalation != false, unrestricted capabilities, runAsNonRoot != true, seccompProfile",
        ]
    );
    world.put(new);
    let refused = create(&world, ("", "pods"), &pod(json!({}))).await.expect_err("refused");
    assert!(refused.starts_with(r#"pods "p" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container "c" must set"#), "{refused}");
    let nonsense = labelled("strict");
    let refused = world
        .chain()
        .validate(&write(Operation::Update, ("", "namespaces"), &nonsense, Some(&old), &user))
        .await
        .expect_err("refused");
    assert!(refused.message.contains("must be one of privileged, baseline, restricted"), "{}", refused.message);
}

#[tokio::test]
async fn kubelets_write_only_their_own() {
    let world = world();
    let node = UserInfo::node("n1");
    let pod_on = |name: &str| json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "namespace": "rec", "name": "p" }, "spec": { "nodeName": name } });
    let labelled =
        |key: &str| json!({ "kind": "Node", "metadata": { "name": "n1", "labels": { key: "x" } }, "spec": {} });
    let plain = json!({ "kind": "Node", "metadata": { "name": "n1" }, "spec": {} });
    let other = json!({ "kind": "Node", "metadata": { "name": "n2" }, "spec": {} });
    let tainted = json!({ "kind": "Node", "metadata": { "name": "n1" }, "spec": { "taints": [{ "key": "a" }] } });
    let chain = world.chain();
    for (operation, resource, object, old, expect) in [
        (Operation::Create, "nodes", &plain, None, None),
        (
            Operation::Create,
            "nodes",
            &other,
            None,
            Some(r#"nodes "n2" is forbidden: node "n1" is not allowed to modify node "n2""#),
        ),
        (
            Operation::Create,
            "nodes",
            &labelled("node-restriction.kubernetes.io/a"),
            None,
            Some(
                r#"nodes "n1" is forbidden: node "n1" is not allowed to set the following labels: node-restriction.kubernetes.io/a"#,
            ),
        ),
        (Operation::Update, "nodes", &labelled("team"), Some(&plain), None),
        (
            Operation::Update,
            "nodes",
            &labelled("node-role.kubernetes.io/x"),
            Some(&plain),
            Some(r#"nodes "n1" is forbidden: is not allowed to modify labels: node-role.kubernetes.io/x"#),
        ),
        (
            Operation::Update,
            "nodes",
            &tainted,
            Some(&plain),
            Some(r#"nodes "n1" is forbidden: node "n1" is not allowed to modify taints"#),
        ),
        (Operation::Delete, "pods", &pod_on("n1"), Some(&pod_on("n1")), None),
        (
            Operation::Delete,
            "pods",
            &pod_on("n2"),
            Some(&pod_on("n2")),
            Some(r#"pods "p" is forbidden: node "n1" can only delete pods with spec.nodeName set to itself"#),
        ),
    ] {
        assert_eq!(run(&chain, write(operation, ("", resource), object, old, &node)).await.err().as_deref(), expect);
    }
    let mine = pod_on("n1");
    let refused = run(&chain, write(Operation::Create, ("", "pods"), &mine, None, &node)).await.expect_err("no mirror");
    assert!(
        refused.ends_with(
            r#"pod does not have "kubernetes.io/config.mirror" annotation, node "n1" can only create mirror pods"#
        ),
        "{refused}"
    );
}

#[tokio::test]
async fn nodes_ask_for_certificates_of_their_own_pods() {
    let world = world();
    let account = |name: &str, uid: &str| json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "namespace": "rec", "name": name, "uid": uid } });
    world.put(account("bot", "u-bot"));
    world.put(json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1", "uid": "u-n1" } }));
    let source = json!({ "podCertificate": { "signerName": "example.com/s", "keyType": "ED25519" } });
    let mut running = pod(
        json!({ "nodeName": "n1", "serviceAccountName": "bot", "volumes": [{ "name": "v", "projected": { "sources": [source] } }] }),
    );
    running["metadata"]["uid"] = json!("u-p");
    world.put(running);
    let right = json!({
        "podName": "p", "podUID": "u-p", "nodeName": "n1", "nodeUID": "u-n1", "serviceAccountName": "bot",
        "serviceAccountUID": "u-bot", "signerName": "example.com/s",
    });
    let node = UserInfo::node("n1");
    for (field, value, why) in [
        ("podName", "p", ""),
        ("nodeName", "n2", r#"PodCertificateRequest.Spec.NodeName="n2", which is not the requesting node "n1""#),
        (
            "serviceAccountName",
            "default",
            r#"PodCertificateRequest for pod "rec/p" contains serviceAccountName ("default") that differs from running pod ("bot")"#,
        ),
        (
            "podUID",
            "u-q",
            r#"PodCertificateRequest for pod "rec/p" names pod UID "u-q", which differs from the running one ("u-p")"#,
        ),
        ("signerName", "other.com/s", r#"no podCertificate volume of pod "rec/p" names signer "other.com/s""#),
    ] {
        let mut spec = right.clone();
        spec[field] = json!(value);
        let request = json!({ "apiVersion": "certificates.k8s.io/v1", "kind": "PodCertificateRequest", "metadata": { "namespace": "rec", "name": "r" }, "spec": spec });
        let asked = write(Operation::Create, ("certificates.k8s.io", "podcertificaterequests"), &request, None, &node);
        let refused = run(&world.chain(), asked).await.err();
        let expect = format!(r#"podcertificaterequests.certificates.k8s.io "r" is forbidden: {why}"#);
        assert_eq!(refused, Some(expect).filter(|_| !why.is_empty()));
    }
}

#[tokio::test]
async fn a_pod_is_resized_to_what_its_node_can_give() {
    let world = world();
    let node = |name: &str, os: &str, features: Value| {
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "labels": { "kubernetes.io/os": os } },
            "status": { "allocatable": { "cpu": "4", "memory": "8Gi" }, "declaredFeatures": features },
        })
    };
    world.put(node("n1", "linux", json!(["InPlacePodVerticalScalingInitContainers"])));
    world.put(node("old", "linux", json!([])));
    world.put(node("win", "windows", json!([])));
    let user = UserInfo::new("dev", [] as [&str; 0]);
    let resized = |node: &str, generation: i64, cpu: &str, memory: &str, init: &str| {
        let container =
            |cpu: &str| json!({ "name": "c", "resources": { "requests": { "cpu": cpu, "memory": memory } } });
        let mut pod =
            pod(json!({ "nodeName": node, "containers": [container(cpu)], "initContainers": [container(init)] }));
        pod["metadata"]["generation"] = json!(generation);
        pod
    };
    let more = "node didn't have enough allocatable resources:";
    for (node, generation, cpu, memory, init, refusal) in [
        ("n1", 2, "4", "8Gi", "1", None),
        ("n1", 2, "4001m", "8Gi", "1", Some(format!("{more} cpu, requested: 4001, allocatable: 4000"))),
        (
            "n1",
            2,
            "5",
            "9Gi",
            "1",
            Some(format!(
                "{more} cpu, requested: 5000, allocatable: 4000; memory, requested: 9663676416, allocatable: 8589934592"
            )),
        ),
        ("n1", 1, "5", "9Gi", "1", None),
        ("", 2, "5", "9Gi", "1", None),
        ("ghost", 2, "1", "1Gi", "1", Some(r#"node "ghost" not found"#.to_owned())),
        (
            "win",
            2,
            "1",
            "1Gi",
            "1",
            Some(r#"pod resize is only supported on linux nodes, node "win" is "windows""#.to_owned()),
        ),
        ("n1", 2, "1", "1Gi", "2", None),
        (
            "old",
            2,
            "1",
            "1Gi",
            "2",
            Some(
                r#"pod update requires features InPlacePodVerticalScalingInitContainers which are not available on node "old""#
                    .to_owned(),
            ),
        ),
    ] {
        let (old, new) = (resized(node, 1, "100m", memory, "1"), resized(node, generation, cpu, memory, init));
        let write = write(Operation::Update, ("", "pods"), &new, Some(&old), &user);
        let answer = run(&world.chain(), Attributes { subresource: "resize", ..write }).await;
        assert_eq!(answer.err(), refusal.map(|why| format!("pods \"p\" is forbidden: {why}")));
    }
}

#[tokio::test]
async fn a_pod_that_is_resized_counts_for_what_it_has_if_that_is_more() {
    let world = world();
    world.put(json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "namespace": "rec", "name": "q" },
        "spec": { "hard": { "requests.cpu": "1" } },
        "status": { "hard": { "requests.cpu": "1" }, "used": { "requests.cpu": "900m" } },
    }));
    let user = UserInfo::new("dev", [] as [&str; 0]);
    let resized = |cpu: &str| {
        let mut pod = pod(json!({ "containers": [{ "name": "c", "resources": { "requests": { "cpu": cpu } } }] }));
        pod["status"] = json!({ "phase": "Running", "containerStatuses": [
            { "name": "c", "allocatedResources": { "cpu": "500m" }, "resources": { "requests": { "cpu": "900m" } } },
        ] });
        pod
    };
    for (cpu, refusal) in [
        ("900m", None),
        ("1", None),
        (
            "1100m",
            Some("exceeded quota: q, requested: requests.cpu=200m, used: requests.cpu=900m, limited: requests.cpu=1"),
        ),
    ] {
        let (old, new) = (resized("500m"), resized(cpu));
        let write = write(Operation::Update, ("", "pods"), &new, Some(&old), &user);
        let answer = run(&world.chain(), Attributes { subresource: "resize", dry_run: true, ..write }).await;
        assert_eq!(answer.err(), refusal.map(|why| format!("pods \"p\" is forbidden: {why}")));
    }
}
