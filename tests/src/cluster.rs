//! One cluster for one test, in a temporary home on a free port.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use minik8s_clock::Clock;
use tempfile::TempDir;

use crate::output::Output;
use crate::tools;

/// How long something may take to come true. Long, because a busy machine is no failure.
const DEADLINE: Duration = Duration::from_secs(60);
/// How often to look.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A running cluster and the clients of it.
pub struct Cluster {
    home: TempDir,
    kubectl: PathBuf,
    kubeconfig: PathBuf,
}

impl Cluster {
    /// Starts a cluster with these options of `minik8s up`.
    #[track_caller]
    pub fn start(options: &[&str]) -> Self {
        let cluster = Self::prepare();
        cluster.minik8s(&["up", "--port", "0"].iter().chain(options).copied().collect::<Vec<_>>()).ok();
        cluster
    }

    /// A home in which nothing runs yet.
    pub fn prepare() -> Self {
        let home = tempfile::tempdir().expect("a temporary folder");
        let kubeconfig = home.path().join("kubeconfig");
        Self { home, kubectl: tools::kubectl(tools::KUBECTL), kubeconfig }
    }

    /// The same cluster seen through a kubectl of another minor version.
    pub fn use_kubectl(&mut self, minor: &str) {
        self.kubectl = tools::kubectl(minor);
    }

    /// The temporary home.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The kubeconfig of the cluster.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Writes a file into the home and answers its path.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.home.path().join(name);
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).expect("a folder in the home");
        }
        std::fs::write(&path, text).expect("a file in the home");
        path
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.home.path());
        command.env("HOME", self.home.path()).env("KUBECONFIG", &self.kubeconfig);
        command.env("MINIK8S_HOME", self.home.path().join("minik8s"));
        command
    }

    /// Runs `minik8s`.
    pub fn minik8s(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(tools::minik8s());
        command.args(arguments);
        run(command, format!("minik8s {}", arguments.join(" ")), None)
    }

    /// Runs kubectl with the words of `line`, split as a shell splits them.
    pub fn kubectl(&self, line: &str) -> Output {
        self.kubectl_with_input(line, None)
    }

    /// Runs kubectl with this text as standard input (`apply -f -`).
    pub fn kubectl_input(&self, line: &str, input: &str) -> Output {
        self.kubectl_with_input(line, Some(input))
    }

    fn kubectl_with_input(&self, line: &str, input: Option<&str>) -> Output {
        let mut command = self.command(&self.kubectl);
        command.args(words(line));
        run(command, format!("kubectl {line}"), input)
    }

    /// Runs helm.
    pub fn helm(&self, line: &str) -> Output {
        let mut command = self.command(&tools::helm());
        command.args(words(line));
        run(command, format!("helm {line}"), None)
    }

    /// Runs any other program with the cluster's environment.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = self.command(Path::new(program));
        command.args(arguments);
        run(command, format!("{program} {}", arguments.join(" ")), None)
    }

    /// Starts a kubectl that goes on (`get -w`, `logs -f`), its output into the file `name` of the home.
    pub fn kubectl_background(&self, name: &str, line: &str) -> Background {
        let path = self.home.path().join(name);
        let file = std::fs::File::create(&path).expect("a file in the home");
        let mut command = self.command(&self.kubectl);
        command.args(words(line)).stdin(Stdio::null()).stdout(file).stderr(Stdio::null());
        Background { child: command.spawn().expect("kubectl starts"), path }
    }

    /// Applies a manifest.
    #[track_caller]
    pub fn apply(&self, manifest: &str) -> String {
        self.kubectl_input("apply -f -", manifest).ok()
    }

    /// Asks until `check` answers something, and answers that; fails the test when the deadline passes, with what
    /// `check` said last.
    #[track_caller]
    pub fn until<T>(&self, what: &str, mut check: impl FnMut() -> Result<T, String>) -> T {
        let clock = Clock::real();
        loop {
            match check() {
                Ok(found) => return found,
                Err(why) if clock.monotonic() > DEADLINE => {
                    let log = self.minik8s(&["logs", "--tail", "60"]);
                    panic!("{what}: not within {} s: {why}{log}", DEADLINE.as_secs());
                }
                Err(_) => thread::sleep(LOOK_EVERY),
            }
        }
    }

    /// Asks kubectl until its output has `text` in it; answers the output.
    #[track_caller]
    pub fn until_shows(&self, line: &str, text: &str) -> String {
        self.until(&format!("`kubectl {line}` shows {text:?}"), || {
            let output = self.kubectl(line);
            if output.stdout.contains(text) { Ok(output.stdout) } else { Err(output.to_string()) }
        })
    }

    /// Asks kubectl until its output is `text`, white space at the ends aside.
    #[track_caller]
    pub fn until_is(&self, line: &str, text: &str) {
        self.until(&format!("`kubectl {line}` is {text:?}"), || {
            let output = self.kubectl(line);
            if output.stdout.trim() == text { Ok(()) } else { Err(output.to_string()) }
        });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.minik8s(&["logs", "--tail", "100"]);
            eprintln!("--- the cluster's log ---{log}");
        }
        self.minik8s(&["delete"]);
    }
}

/// A client that goes on in the background, ended with this value.
pub struct Background {
    child: Child,
    path: PathBuf,
}

impl Background {
    /// What it has printed so far.
    pub fn printed(&self) -> String {
        std::fs::read_to_string(&self.path).unwrap_or_default()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn words(line: &str) -> Vec<String> {
    shell_words::split(line).unwrap_or_else(|error| panic!("{line:?} is no command line: {error}"))
}

fn run(mut command: Command, shown: String, input: Option<&str>) -> Output {
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
    if let (Some(mut pipe), Some(input)) = (child.stdin.take(), input) {
        // A program that ends without reading all its input says why on its own.
        let _ = pipe.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().unwrap_or_else(|error| panic!("{shown}: {error}"));
    Output {
        command: shown,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        code: output.status.code().unwrap_or(-1),
    }
}
