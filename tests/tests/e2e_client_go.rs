//! client-go against a cluster: the tests of the Go module in `tests/go`.

use minik8s_tests::{Cluster, toolchains, tools};

#[test]
fn client_go_works() {
    let cluster = Cluster::start(&["--nodes", "3"]);
    let module = tools::workspace().join("tests").join("go");
    // Another cluster is another test, whatever Go remembers: -count=1.
    let module = module.to_str().expect("a path in UTF-8");
    toolchains::go(&cluster, &["-C", module, "test", "-count=1", "-timeout=10m", "./..."]).ok();
}
