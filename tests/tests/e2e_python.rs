//! The Python client against a cluster: the tests in `tests/python`.

use minik8s_tests::{Cluster, toolchains, tools};

#[test]
fn the_python_client_works() {
    let cluster = Cluster::start(&["--nodes", "3"]);
    let folder = tools::workspace().join("tests").join("python");
    // A cluster that has been stopped knows no events from before: watching from there is 410 (test_expired_watch).
    cluster.minik8s(&["down"]).ok();
    cluster.minik8s(&["up"]).ok();
    let script = folder.join("test_client.py");
    let script = script.to_str().expect("a path in UTF-8");
    toolchains::python(&cluster, &folder.join("requirements.txt"), &[script]).ok();
}
