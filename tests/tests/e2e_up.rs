//! Starting, stopping, resuming and removing clusters; what is refused, and that nothing is left half-started.

use std::fs;

use minik8s_tests::Cluster;

const AUTHORITY: &str =
    r#"config view --raw -o jsonpath='{.clusters[?(@.name=="minik8s")].cluster.certificate-authority-data}'"#;

#[test]
fn a_cluster_comes_up_goes_down_and_resumes_with_its_objects_and_authority() {
    let cluster = Cluster::prepare();
    let own = "apiVersion: v1\nkind: Config\nclusters:\n- name: other\n  cluster: {server: https://other}\n";
    fs::write(cluster.kubeconfig(), own).unwrap();
    let up = cluster.minik8s(&["up", "--port", "0", "--nodes", "3"]).ok();
    assert!(up.contains("Ready after") && up.contains("3 nodes ready"), "{up}");
    assert_eq!(cluster.kubectl("config current-context").ok().trim(), "minik8s");
    let nodes = cluster.kubectl("get nodes").table();
    assert_eq!(nodes[0], ["NAME", "STATUS", "ROLES", "AGE", "VERSION"]);
    assert_eq!(nodes.len(), 4, "{nodes:?}");
    assert!(nodes[1..].iter().all(|row| row[1] == "Ready"), "{nodes:?}");
    assert_eq!((nodes[1][0].as_str(), nodes[1][2].as_str()), ("node-1", "control-plane"));

    cluster.kubectl("create configmap kept --from-literal=a=1").ok();
    let authority = cluster.kubectl(AUTHORITY).ok();
    let uid = cluster.kubectl("get configmap kept -o jsonpath={.metadata.uid}").ok();

    cluster.minik8s(&["down"]).ok();
    let status = cluster.minik8s(&["status", "--output", "json"]).json();
    assert_eq!(status["state"], "Stopped");
    assert!(cluster.kubectl("get nodes").fails().contains("refused"));
    assert!(cluster.minik8s(&["down"]).ok().contains("not running"));

    cluster.minik8s(&["up"]).ok();
    assert_eq!(cluster.kubectl("get configmap kept -o jsonpath={.metadata.uid}").ok(), uid);
    assert_eq!(cluster.kubectl("get nodes").table().len(), 4);
    let again = cluster.kubectl(AUTHORITY).ok();
    assert_eq!(again, authority);
    let status = cluster.minik8s(&["status", "--output", "json"]).json();
    assert_eq!(status["state"], "Running");
    assert_eq!(status["nodes"].as_array().unwrap().len(), 3);
    assert!(cluster.minik8s(&["status"]).ok().contains("node-3"));

    cluster.minik8s(&["delete"]).ok();
    let left = fs::read_to_string(cluster.kubeconfig()).unwrap();
    assert!(left.contains("https://other") && !left.contains("minik8s"), "{left}");
    assert!(!cluster.home().join("minik8s").join("minik8s").exists());
    assert!(cluster.minik8s(&["status"]).fails().contains("no cluster named"));
}

#[test]
fn what_cannot_start_says_why_and_leaves_nothing() {
    let cluster = Cluster::prepare();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let error = cluster.minik8s(&["up", "--port", &port]).fails();
    assert!(error.starts_with("error: ") && error.contains(&format!("port {port} cannot be used")), "{error}");

    let foreign = cluster.file("foreign/photo.jpg", "not ours");
    let foreign = foreign.parent().unwrap().to_str().unwrap();
    let error = cluster.minik8s(&["up", "--port", "0", "--data-dir", foreign]).fails();
    assert!(error.contains("is not a data directory of minik8s"), "{error}");
    assert!(cluster.home().join("foreign/photo.jpg").exists());

    let file = cluster.file("file", "");
    let inside = file.join("data");
    let error = cluster.minik8s(&["up", "--port", "0", "--data-dir", inside.to_str().unwrap()]).fails();
    assert!(error.starts_with("error: "), "{error}");

    let config = cluster.file("broken-config", "- this\n- is a list\n");
    let error = cluster.minik8s(&["up", "--port", "0", "--kubeconfig", config.to_str().unwrap()]).fails();
    assert!(error.contains("is not a kubeconfig"), "{error}");

    let error = cluster.minik8s(&["up", "--name", "Not_A_Name"]).fails();
    assert!(error.contains("lower-case letters"), "{error}");
    assert!(cluster.minik8s(&["status"]).fails().contains("no cluster named"));
    let home = cluster.home().join("minik8s");
    assert!(!home.join("minik8s").exists(), "a failed start left its data directory");
}

#[test]
fn a_name_runs_once_and_two_names_run_side_by_side() {
    let cluster = Cluster::start(&[]);
    let error = cluster.minik8s(&["up"]).fails();
    assert!(error.contains("already running"), "{error}");
    cluster.minik8s(&["up", "--name", "second", "--port", "0", "--ephemeral"]).ok();
    assert_eq!(cluster.kubectl("config current-context").ok().trim(), "minik8s-second");
    cluster.kubectl("create configmap only-here").ok();
    cluster.kubectl("--context minik8s get configmap only-here").fails();
    cluster.minik8s(&["down", "--name", "second"]).ok();
    cluster.until("an ephemeral cluster leaves nothing", || {
        let status = cluster.minik8s(&["status", "--name", "second"]);
        if status.code == 1 { Ok(()) } else { Err(status.to_string()) }
    });
    let config = fs::read_to_string(cluster.kubeconfig()).unwrap();
    assert!(!config.contains("minik8s-second"), "{config}");
    cluster.kubectl("--context minik8s get nodes").ok();
}

#[test]
fn a_damaged_store_is_refused_by_name() {
    let cluster = Cluster::start(&[]);
    cluster.kubectl("create configmap kept").ok();
    cluster.minik8s(&["down"]).ok();
    let store = cluster.home().join("minik8s/minik8s/store");
    let healthy: Vec<_> = walk(&store).into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect();
    for file in ["raft/db", "log/00000000000000000001"] {
        let found = healthy.iter().find(|(_, path)| path.ends_with(file));
        let (mut bytes, damaged) = found.unwrap_or_else(|| panic!("{file} is missing")).clone();
        for at in (0..bytes.len()).step_by(7) {
            bytes[at] ^= 0x55;
        }
        fs::write(&damaged, &bytes).unwrap();
        let error = cluster.minik8s(&["up"]).fails();
        assert!(error.contains("cannot open the store in"), "{error}");
        assert!(cluster.minik8s(&["status", "--output", "json"]).json()["state"] == "Stopped");
        // A copy is put back whole: sled has cut off what it could not read.
        walk(&store).iter().for_each(|path| fs::remove_file(path).unwrap());
        healthy.iter().for_each(|(bytes, path)| fs::write(path, bytes).unwrap());
    }
    cluster.minik8s(&["up"]).ok();
    cluster.kubectl("get configmap kept").ok();
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(walk(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

#[test]
fn other_verbs_of_the_command_line() {
    let cluster = Cluster::start(&["--nodes", "2"]);
    assert!(cluster.minik8s(&["version"]).ok().contains("Kubernetes v1.37"));
    assert_eq!(cluster.minik8s(&["version", "--output", "json"]).json()["kubernetes"], "v1.37.2");
    let standalone = cluster.minik8s(&["kubeconfig"]).ok();
    let path = cluster.file("standalone", &standalone);
    cluster.kubectl(&format!("--kubeconfig {} get nodes", path.display())).ok();
    assert!(cluster.minik8s(&["logs", "--tail", "3"]).ok().lines().count() <= 3);

    let added = cluster.minik8s(&["node", "add", "big", "--cpu", "16", "--memory", "64Gi", "--label", "disk=ssd"]).ok();
    assert!(added.contains("node/big added"));
    cluster.until_is("get node big -o jsonpath={.status.capacity.cpu}/{.metadata.labels.disk}", "16/ssd");
    cluster.kubectl("wait --for=condition=Ready node/big --timeout=30s").ok();
    assert!(cluster.minik8s(&["node", "add", "big"]).fails().contains("exists already"));
    assert!(cluster.minik8s(&["node", "stop", "nope"]).fails().contains("no node named"));
    cluster.minik8s(&["node", "stop", "big"]).ok();
    assert!(cluster.minik8s(&["node", "stop", "big"]).fails().contains("stopped already"));
    cluster.minik8s(&["node", "start", "big"]).ok();
    cluster.kubectl("wait --for=condition=Ready node/big --timeout=30s").ok();
    cluster.minik8s(&["node", "delete", "big"]).ok();
    cluster.until_is("get nodes -o name", "node/node-1\nnode/node-2");
    assert!(cluster.minik8s(&["node", "delete", "node-1"]).fails().contains("control plane"));
}
