//! `minik8s up`: start or resume a cluster, in the background unless told otherwise.
//!
//! The background process is this same program, run with `--foreground --report json` and its standard output as a pipe:
//! each step comes as a line of JSON, then either `ready` or `error`. The parent prints them and goes.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use minik8s_apiserver::tokens::DEFAULT_ISSUER;
use minik8s_clock::{Clock, Random};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::cli::process::wait_for_the_end;
use crate::cli::{Name, controllers};
use crate::cluster::{Cluster, ClusterConfig};
use crate::home::{
    CONTROLLERS, ClusterFile, DataDir, Home, KUBELET, Lock, NodeFile, SCHEDULER, context_name, name_flag,
};
use crate::kubeconfig::{self, Entry};
use crate::logs::Logs;
use crate::node;
use crate::pki::Pki;
use crate::safeguards::Safeguards;

/// How glibc's allocator is set up in the cluster's process, unless the user did: few arenas, which requests and watches
/// share, grown by megabytes and given back. With its own choice it holds a third more memory after a load. Huge pages,
/// where the system gives them to who asks, cost 3 MiB and make a cluster at rest cost a third: it touches few pages then.
const GLIBC_MALLOC: [(&str, &str); 4] = [
    ("MALLOC_ARENA_MAX", "2"),
    ("MALLOC_TOP_PAD_", "4194304"),
    ("MALLOC_TRIM_THRESHOLD_", "16777216"),
    ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"),
];

/// The port of a real kube-apiserver; the next free one is taken where it is in use and none was asked for.
const DEFAULT_PORT: u16 = 6443;
/// How many ports after the default one are tried.
const PORTS_TRIED: u16 = 100;
/// More nodes than this are refused: a larger cluster wants a machine and settings of its own.
const MAX_NODES: u32 = 5000;
/// How many lines of the log are shown when the process dies before it can say why.
const LAST_WORDS_LINES: usize = 15;

/// The word of `--disable` for no component.
const NOTHING: &str = "none";

/// The options of `up`.
#[derive(Args)]
pub struct Up {
    #[command(flatten)]
    name: Name,
    /// How many nodes; 1 for a new cluster, and those that it had for a resumed one
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_NODES)))]
    nodes: Option<u32>,
    /// The port of the API server on 127.0.0.1 [default: 6443, or the next free one; 0: any]
    #[arg(long)]
    port: Option<u16>,
    /// Where the cluster keeps its data
    #[arg(long, value_name = "D")]
    data_dir: Option<PathBuf>,
    /// The kubeconfig to put the context into [default: $KUBECONFIG, else ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Keep nothing: all state is in memory and gone when the cluster stops. Without it, every write is on disk
    /// (fdatasync) before it is acknowledged
    #[arg(long)]
    ephemeral: bool,
    #[command(flatten)]
    safeguards: Safeguards,
    /// Leave components to others: scheduler, controllers, kubelet, controllers/NAME; none for no component. Remembered
    /// until it is said anew
    #[arg(long, value_name = "COMPONENTS", value_delimiter = ',', value_parser = parse_disabled)]
    disable: Option<Vec<String>>,
    /// Stay in the foreground; Ctrl-C stops the cluster
    #[arg(long)]
    foreground: bool,
    /// How the steps are reported
    #[arg(long, value_enum, default_value = "text", hide = true)]
    report: Report,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Report {
    Text,
    Json,
}

/// What the background process tells.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Message {
    Step { what: String, milliseconds: u64 },
    Ready,
    Error(String),
}

impl Report {
    fn send(self, message: &Message) {
        let mut out = std::io::stdout().lock();
        // Nobody may listen any more, which is not our concern.
        let _ = match (self, message) {
            (Report::Json, message) => match serde_json::to_string(message) {
                Ok(line) => writeln!(out, "{line}"),
                Err(error) => writeln!(out, "{{\"error\":\"{error}\"}}"),
            },
            (Report::Text, Message::Step { what, milliseconds }) => {
                writeln!(out, "  {what:<52} {milliseconds:>6} ms")
            }
            (Report::Text, _) => Ok(()),
        };
        let _ = out.flush();
    }
}

/// What is decided before anything starts.
struct Plan {
    home: Home,
    dir: DataDir,
    file: ClusterFile,
    fresh: bool,
    notes: Vec<String>,
}

impl Up {
    /// Runs the verb.
    pub fn run(self) -> Result<()> {
        let clock = Clock::real();
        if self.foreground { self.serve(clock) } else { self.start(clock) }
    }

    fn plan(&self) -> Result<Plan> {
        let name = &self.name.name;
        let home = Home::open()?;
        let dir = home.data_dir(name, self.data_dir.as_deref())?;
        if dir.is_running() {
            bail!("cluster {name:?} is already running; `minik8s down{}` stops it", name_flag(name));
        }
        let known = dir.read()?;
        if let Some(known) = &known
            && known.name != *name
        {
            bail!("{} holds the cluster {:?}, not {name:?}", dir.path.display(), known.name);
        }
        let asked = self.kubeconfig.as_deref();
        let kubeconfig = match (&known, asked) {
            (Some(known), None) => known.kubeconfig.clone(),
            _ => kubeconfig::default_path(asked)?,
        };
        let port = choose_port(self.port, known.as_ref().map(|known| known.port))?;
        let fresh = known.is_none();
        let ephemeral = match &known {
            Some(known) if self.ephemeral && !known.ephemeral => {
                bail!("cluster {name:?} keeps its state; delete it first, or take another --name")
            }
            Some(known) => known.ephemeral,
            None => self.ephemeral,
        };
        let mut notes = Vec::new();
        let nodes = self.nodes(known.as_ref(), &mut notes);
        let mut file = ClusterFile::new(name, port, kubeconfig, ephemeral, nodes);
        file.safeguards = self.safeguards(known.as_ref())?;
        file.disabled = match (&self.disable, known) {
            (Some(asked), _) => disabled(asked)?,
            (None, Some(known)) => known.disabled,
            (None, None) => Vec::new(),
        };
        Ok(Plan { home, dir, file, fresh, notes })
    }

    /// Those that are asked for or known. What is wrong with their files is told before anything starts.
    fn safeguards(&self, known: Option<&ClusterFile>) -> Result<Safeguards> {
        let safeguards = self.safeguards.or(known.map(|known| &known.safeguards))?;
        safeguards.audit()?;
        safeguards.encryption()?;
        safeguards.authentication(&[DEFAULT_ISSUER])?;
        if safeguards.audits_to_stdout() && (!self.foreground || self.report == Report::Json) {
            bail!(
                "--audit-log-path - needs --foreground: a cluster in the background has no standard output; name a file"
            );
        }
        Ok(safeguards)
    }

    fn nodes(&self, known: Option<&ClusterFile>, notes: &mut Vec<String>) -> Vec<NodeFile> {
        let mut nodes = known.map(|known| known.nodes.clone()).unwrap_or_default();
        let wanted = self.nodes.unwrap_or(if known.is_some() { 0 } else { 1 }) as usize;
        if known.is_some() && wanted > 0 && wanted < nodes.len() {
            notes.push(format!(
                "the cluster has {} nodes and keeps them; `minik8s node delete` removes one",
                nodes.len()
            ));
        }
        while nodes.len() < wanted {
            nodes.push(node::next(&nodes));
        }
        nodes
    }

    /// Starts the background process and tells its story.
    fn start(&self, clock: Clock) -> Result<()> {
        let began = clock.monotonic();
        let plan = self.plan()?;
        kubeconfig::check(&plan.file.kubeconfig)?;
        let existed = plan.dir.path.exists();
        drop(plan.dir.lock()?);
        println!(
            "{} cluster {:?}, {}",
            if plan.fresh { "Starting" } else { "Resuming" },
            plan.file.name,
            match plan.file.nodes.len() {
                _ if plan.file.is_disabled(KUBELET) => "no nodes of its own".to_owned(),
                1 => "1 node".to_owned(),
                n => format!("{n} nodes"),
            }
        );
        for note in &plan.notes {
            println!("  note: {note}");
        }
        if let Err(error) = self.follow(&plan) {
            if plan.fresh && plan.dir.read().is_ok_and(|file| file.is_none()) {
                clean_up(&plan, existed);
            }
            return Err(error);
        }
        println!(
            "Ready after {} ms. kubectl's context is now {:?}{}.",
            (clock.monotonic() - began).as_millis(),
            context_name(&plan.file.name),
            match kubeconfig::default_path(None) {
                Ok(path) if path == plan.file.kubeconfig => String::new(),
                _ => format!(" in {}", plan.file.kubeconfig.display()),
            }
        );
        if plan.file.ephemeral {
            println!("Nothing is kept: all state is gone when the cluster stops.");
        }
        Ok(())
    }

    fn follow(&self, plan: &Plan) -> Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(plan.dir.log())
            .with_context(|| format!("cannot write {}", plan.dir.log().display()))?;
        let mut command = Command::new(std::env::current_exe().context("cannot find this program's file")?);
        command.args(["up", "--foreground", "--report", "json", "--name", &plan.file.name]);
        command.args(["--port", &plan.file.port.to_string()]).arg("--data-dir").arg(&plan.dir.path);
        command.arg("--kubeconfig").arg(&plan.file.kubeconfig);
        command.args(["--nodes", &plan.file.nodes.len().max(1).to_string()]);
        if plan.file.ephemeral {
            command.arg("--ephemeral");
        }
        for (flag, path) in plan.file.safeguards.arguments() {
            command.arg(flag).arg(path);
        }
        let disabled = if plan.file.disabled.is_empty() { NOTHING.to_owned() } else { plan.file.disabled.join(",") };
        command.args(["--disable", &disabled]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        command.envs(GLIBC_MALLOC.iter().filter(|(name, _)| std::env::var_os(name).is_none()).copied());
        // Ctrl-C at this terminal is not meant for the cluster.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        #[cfg(windows)]
        std::os::windows::process::CommandExt::creation_flags(&mut command, 0x0000_0208); // detached, own group
        let mut child = command.spawn().context("cannot start the cluster's process")?;
        let lines = child.stdout.take().map(BufReader::new).ok_or_else(|| anyhow!("no pipe to the process"))?;
        for line in lines.lines() {
            let line = line.context("cannot read from the cluster's process")?;
            let message = serde_json::from_str(&line);
            match message.with_context(|| format!("the cluster's process said {line:?}"))? {
                step @ Message::Step { .. } => Report::Text.send(&step),
                Message::Ready => return Ok(()),
                Message::Error(why) => {
                    let _ = child.wait();
                    bail!("{why}");
                }
            }
        }
        let status = child.wait().context("cannot wait for the cluster's process")?;
        bail!("the cluster's process ended early ({status}); its last words:\n{}", last_words(&plan.dir.log()))
    }

    /// Runs the cluster in this process until it is told to stop.
    fn serve(&self, clock: Clock) -> Result<()> {
        let result = self.serve_reporting(clock);
        if let (Err(error), Report::Json) = (&result, self.report) {
            self.report.send(&Message::Error(format!("{error:#}")));
        }
        result
    }

    fn serve_reporting(&self, clock: Clock) -> Result<()> {
        let plan = self.plan()?;
        kubeconfig::check(&plan.file.kubeconfig)?;
        let existed = plan.dir.path.exists();
        let lock = plan.dir.lock()?;
        // First of all, so that a start that is killed half-way leaves a cluster that can be resumed or deleted.
        plan.dir.write(&plan.file)?;
        plan.home.remember(&plan.file.name, &plan.dir)?;
        let served = self.serve_locked(&plan, clock);
        if plan.fresh && served.as_ref().is_err_and(|failure| !failure.started) {
            clean_up(&plan, existed);
        }
        let stopped_ephemeral = plan.file.ephemeral && served.is_ok();
        let removed = if stopped_ephemeral { self.forget_ephemeral(&plan, lock) } else { Ok(()) };
        served.map_err(|failure| failure.error).and(removed)
    }

    fn forget_ephemeral(&self, plan: &Plan, lock: Lock) -> Result<()> {
        kubeconfig::remove(&plan.file.kubeconfig, &plan.file.context())?;
        drop(lock);
        plan.dir.remove()?;
        plan.home.forget(&plan.file.name)
    }

    fn serve_locked(&self, plan: &Plan, clock: Clock) -> Result<(), Failure> {
        let report = self.report;
        let log = plan.dir.log();
        let logs = Logs::install((report == Report::Json).then_some(log.as_path()), clock.clone());
        let random = Random::from_os();
        let names = node::server_names();
        let pki = Pki::open(&plan.dir.pki(), &names, &clock, &random).map_err(Failure::early)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .thread_name("minik8s")
            .build()
            .map_err(|error| Failure::early(error.into()))?;
        let stop = CancellationToken::new();
        let steps = clock.clone();
        let mut last = steps.monotonic();
        let mut step = move |what: &str| {
            let now = steps.monotonic();
            let milliseconds = u64::try_from((now - last).as_millis()).unwrap_or(u64::MAX);
            last = now;
            report.send(&Message::Step { what: what.to_owned(), milliseconds });
        };
        step("certificates");
        let config = ClusterConfig {
            file: plan.file.clone(),
            dir: Some(plan.dir.clone()),
            listen: true,
            pki,
            clock,
            random,
            logs,
            stop: stop.clone(),
        };
        let outcome = runtime.block_on(async {
            let cluster = Cluster::start(config, &mut step).await.map_err(Failure::early)?;
            let entry = Entry { name: &plan.file.context(), server: &plan.file.server(), pki: cluster.pki() };
            if let Err(error) = kubeconfig::merge(&plan.file.kubeconfig, &entry) {
                cluster.shut_down().await;
                return Err(Failure::early(error));
            }
            report.send(&Message::Ready);
            if report == Report::Text {
                println!("Ready: {} (Ctrl-C stops it)", plan.file.server());
            }
            wait_for_the_end(&stop).await;
            cluster.shut_down().await;
            Ok(())
        });
        // What still runs are tasks that wait for nothing that will come.
        runtime.shutdown_timeout(Duration::from_secs(1));
        outcome
    }
}

/// An error, and whether the cluster had come up by then.
struct Failure {
    error: anyhow::Error,
    started: bool,
}

impl Failure {
    fn early(error: anyhow::Error) -> Self {
        Self { error, started: false }
    }
}

/// A first start that failed leaves nothing behind.
fn clean_up(plan: &Plan, existed: bool) {
    let _ = plan.dir.remove();
    if !existed {
        let _ = fs::remove_dir(&plan.dir.path);
    }
    let _ = plan.home.forget(&plan.file.name);
}

/// One word of `--disable`.
fn parse_disabled(word: &str) -> Result<String> {
    match word.split_once('/') {
        Some((CONTROLLERS, name)) => Ok(format!("{CONTROLLERS}/{}", controllers::known(name)?)),
        None if [SCHEDULER, CONTROLLERS, KUBELET, NOTHING].contains(&word) => Ok(word.to_owned()),
        _ => bail!("{word:?} is none of {SCHEDULER}, {CONTROLLERS}, {KUBELET}, {CONTROLLERS}/NAME, {NOTHING}"),
    }
}

/// What the words of `--disable` leave to others.
fn disabled(words: &[String]) -> Result<Vec<String>> {
    if words.iter().any(|word| word == NOTHING) {
        if words.len() > 1 {
            bail!("--disable {NOTHING} stands alone");
        }
        return Ok(Vec::new());
    }
    let mut disabled = words.to_vec();
    disabled.sort();
    disabled.dedup();
    Ok(disabled)
}

/// The port to serve on. Checked here so that a taken one is told before anything starts.
fn choose_port(asked: Option<u16>, known: Option<u16>) -> Result<u16> {
    let free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    match (asked, known) {
        (Some(0), _) => Ok(free(0).context("no free port")?.local_addr()?.port()),
        (Some(port), _) => match free(port) {
            Ok(_) => Ok(port),
            Err(error) => bail!("port {port} cannot be used: {error}; choose another with --port"),
        },
        (None, Some(port)) => match free(port) {
            Ok(_) => Ok(port),
            Err(error) => {
                bail!("port {port}, on which the cluster was, cannot be used: {error}; choose another with --port")
            }
        },
        (None, None) => {
            let mut ports = DEFAULT_PORT..DEFAULT_PORT + PORTS_TRIED;
            ports.find(|port| free(*port).is_ok()).ok_or_else(|| {
                anyhow!(
                    "no free port from {DEFAULT_PORT} to {}; choose one with --port",
                    DEFAULT_PORT + PORTS_TRIED - 1
                )
            })
        }
    }
}

fn last_words(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_WORDS_LINES)..].join("\n")
}
