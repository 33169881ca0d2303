//! The failure patterns of the chapter: what `get pods`, `describe` and the events say of each.

use minik8s_tests::Cluster;

fn pod(name: &str, container: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  containers:\n  - name: c\n{container}\n---\n"
    )
}

#[test]
fn each_failure_says_what_the_chapter_says() {
    let cluster = Cluster::start(&["--nodes", "3"]);
    let manifests = [
        pod("pending", "    image: nginx:1.27\n    resources: {requests: {cpu: '64'}}"),
        pod("pull", "    image: nginx:nonexistent"),
        pod("crash", "    image: busybox\n    command: [sh, -c, 'echo it is broken; exit 3']"),
        pod(
            "hog",
            "    image: polinux/stress\n    command: [stress]\n    args: [--vm, '1', --vm-bytes, 250M, --vm-hang, '1']\n    resources: {limits: {memory: 100Mi}}",
        ),
        pod("config", "    image: nginx:1.27\n    envFrom: [{configMapRef: {name: missing}}]"),
        pod("secret", "    image: nginx:1.27\n    env: [{name: P, valueFrom: {secretKeyRef: {name: nope, key: p}}}]"),
    ];
    cluster.apply(&manifests.concat());

    cluster.until_shows("get pod pending", "Pending");
    let described = cluster.until_shows("describe pod pending", "FailedScheduling");
    assert!(described.contains("0/3 nodes are available: 3 Insufficient cpu."), "{described}");

    cluster.until_shows("get pod pull", "ImagePullBackOff");
    let described = cluster.until_shows("describe pod pull", "Back-off pulling image \"nginx:nonexistent\"");
    assert!(described.contains("not found"), "{described}");

    cluster.until_shows("get pod crash", "CrashLoopBackOff");
    cluster.until_shows("describe pod crash", "Back-off restarting failed container c in pod crash_default");
    assert_eq!(cluster.kubectl("logs crash --previous").ok(), "it is broken\n");
    cluster.until_is("get pod crash -o jsonpath={.status.containerStatuses[0].lastState.terminated.exitCode}", "3");

    cluster.until_is("get pod hog -o jsonpath={.status.containerStatuses[0].lastState.terminated.reason}", "OOMKilled");
    cluster.until_is("get pod hog -o jsonpath={.status.containerStatuses[0].lastState.terminated.exitCode}", "137");

    cluster.until_shows("get pod config", "CreateContainerConfigError");
    cluster.until_shows("describe pod config", "Error: configmap \"missing\" not found");
    cluster.until_shows("get pod secret", "CreateContainerConfigError");
    cluster.until_shows("describe pod secret", "Error: secret \"nope\" not found");

    // Each is mended as the chapter mends it.
    cluster.kubectl("create configmap missing --from-literal=A=1").ok();
    cluster.kubectl("create secret generic nope --from-literal=p=q").ok();
    cluster.kubectl("wait --for=condition=Ready pod/config pod/secret --timeout=60s").ok();
    cluster.kubectl("set image pod/pull c=nginx:1.27").ok();
    cluster.until_shows("get pod pull", "Running");
    cluster.minik8s(&["node", "add", "--cpu", "128"]).ok();
    cluster.until_shows("get pod pending", "Running");
}

#[test]
fn logs_and_exec_reach_into_containers() {
    let cluster = Cluster::start(&[]);
    cluster.apply(&pod("talker", "    image: busybox\n    command: [sh, -c, 'i=0; while [ $i -lt 5 ]; do echo line $i; i=$((i+1)); done; sleep 3600']\n    env: [{name: GREETING, value: hello}]"));
    cluster.kubectl("wait --for=condition=Ready pod/talker --timeout=60s").ok();
    cluster.until_is("logs talker --tail=2", "line 3\nline 4");
    let follow = cluster.kubectl_background("followed", "logs -f talker");
    cluster.until("a followed log shows", || {
        let printed = follow.printed();
        if printed.contains("line 4") { Ok(()) } else { Err(printed) }
    });
    assert_eq!(cluster.kubectl("exec talker -- echo hi there").ok(), "hi there\n");
    assert_eq!(cluster.kubectl("exec talker -- sh -c 'echo $GREETING | tr a-z A-Z; hostname'").ok(), "HELLO\ntalker\n");
    let namespace = "exec talker -- cat /var/run/secrets/kubernetes.io/serviceaccount/namespace";
    assert_eq!(cluster.kubectl(namespace).ok(), "default");
    let failed = cluster.kubectl("exec talker -- sh -c 'exit 7'");
    assert_eq!(failed.code, 7, "{failed}");
    assert!(cluster.kubectl("exec talker -- nonsense").fails().contains("executable file not found in $PATH"));
    let echoed = cluster.kubectl_input("exec -i talker -- cat", "from standard input\n").ok();
    assert_eq!(echoed, "from standard input\n");
    assert!(cluster.kubectl("logs talker -c nope").fails().contains("container nope is not valid for pod talker"));
    assert!(cluster.kubectl("logs -n kube-system kube-scheduler-node-1 --tail=5").ok().contains("] "));
    let system = cluster.kubectl("get pods -n kube-system").ok();
    for component in ["etcd-node-1", "kube-apiserver-node-1", "kube-controller-manager-node-1", "kube-scheduler-node-1"]
    {
        assert!(system.lines().any(|line| line.starts_with(component) && line.contains("Running")), "{system}");
    }
}

/// Files go into a container and out of it, with the tar of busybox and with that of GNU; byte by byte the same.
#[test]
fn files_are_copied_into_containers_and_out_of_them() {
    let cluster = Cluster::start(&[]);
    let files = cluster.home().join("files");
    let read = |path: &str| std::fs::read(cluster.home().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    std::fs::create_dir_all(files.join("below/empty")).expect("directories");
    let binary: Vec<u8> = (0..300_000_u32).flat_map(|number| (number / 7).to_le_bytes()).collect();
    std::fs::write(files.join("binary"), &binary).expect("a file");
    // Without a newline anywhere, and with a name that a header has no room for.
    let zeros = vec![0; 2_000_000];
    let long = format!("below/{}", "n".repeat(150));
    std::fs::write(files.join(&long), &zeros).expect("a file");
    for image in ["busybox", "nginx"] {
        cluster.apply(&pod(image, &format!("    image: {image}\n    command: [sleep, '3600']")));
        cluster.kubectl(&format!("wait --for=condition=Ready pod/{image} --timeout=60s")).ok();
        let copy = |options: &str| {
            let line = options.replace("POD", image).replace("HOME", &cluster.home().to_string_lossy());
            cluster.kubectl(&format!("cp {line}"))
        };
        copy("HOME/files/binary POD:/tmp").ok();
        copy("POD:/tmp/binary HOME/binary").ok();
        assert!(read("binary") == binary, "{image}: the file comes back as it went");
        copy("HOME/files POD:/srv-of-its-own").ok();
        copy("POD:/srv-of-its-own HOME/back").ok();
        copy("--retries=3 POD:/srv-of-its-own HOME/again").ok();
        for back in ["back", "again"] {
            assert!(read(&format!("{back}/binary")) == binary, "{image}: {back}");
            assert!(read(&format!("{back}/{long}")) == zeros, "{image}: {back}");
            assert!(cluster.home().join(back).join("below/empty").is_dir(), "{image}: {back}");
            std::fs::remove_dir_all(cluster.home().join(back)).expect("what was copied");
        }
        let refused = copy("HOME/files/binary POD:/nowhere/binary").fails();
        assert!(refused.contains("/nowhere") && refused.contains("No such file or directory"), "{refused}");
    }
    std::fs::write(files.join("large"), vec![0; 70_000_000]).expect("a file");
    let refused = cluster.kubectl(&format!("cp {} busybox:/tmp/large", files.join("large").display())).fails();
    assert!(refused.contains("No space left on device"), "{refused}");
}
