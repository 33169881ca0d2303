//! What a simulated program is given, and how it is run.
//!
//! A program is an async function from a [`Process`] to an exit code. It has what a process on Linux has: arguments,
//! environment, three streams, a file system ([`crate::fs::ContainerFs`]), signals, memory that is counted, a network. It
//! waits on the cluster's clock only, so a container that does nothing costs a parked task and no timer.

mod cgroup;
mod cpu;
mod files;
mod memory;
mod signal;
mod stdio;
mod table;
pub mod terminal;
mod world;

pub use cgroup::Cgroup;
pub use cpu::CpuMeter;
pub(crate) use files::{open_input, open_output};
pub use memory::{Allocation, MemoryMeter};
pub use signal::Signal;
pub(crate) use stdio::Channel;
pub use stdio::{CAPTURE_LIMIT_BYTES, Capture, Input, Output, PIPE_BYTES, Sink};
pub use table::{ProcessInfo, ProcessTable, Registration, Signals};
pub(crate) use world::PROGRAM_MAGIC;
pub use world::{ExecError, User, World};

use async_trait::async_trait;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// The exit code of a program that could be found but not run.
pub const CANNOT_EXECUTE: i32 = 126;
/// The exit code of a program that could not be found.
pub const NOT_FOUND: i32 = 127;
/// What one command of a simulated program costs in processor time. It is charged in slices of [`CHARGE_SLICE`], so that a
/// loop that never sleeps takes simulated time, and cannot starve the machine that simulates it.
const COMMAND_COST: Duration = Duration::from_micros(100);
/// How much processor time is collected before it is slept off.
const CHARGE_SLICE: Duration = Duration::from_millis(10);
/// The memory of a process that holds nothing of its own.
const PROCESS_MEMORY_BYTES: u64 = 256 * 1024;

/// A simulated program.
#[async_trait]
pub trait Program: Send + Sync + 'static {
    /// Runs until it ends by itself; returns the exit code. The future is dropped when the process is killed.
    async fn run(&self, process: Process) -> i32;
}

/// A process as its program sees it.
pub struct Process {
    /// The arguments; the first is the name the program was called by.
    pub args: Vec<String>,
    /// The environment.
    pub env: BTreeMap<String, String>,
    /// The working directory.
    pub cwd: String,
    /// Standard input.
    pub stdin: Input,
    /// Standard output.
    pub stdout: Output,
    /// Standard error.
    pub stderr: Output,
    /// Signals sent to it, and its number.
    pub signals: Signals,
    /// The container it runs in.
    pub world: Arc<World>,
    charge: Charge,
}

/// Processor time used and not yet slept off.
#[derive(Debug, Default, Clone)]
pub(crate) struct Charge(Duration);

impl Charge {
    /// Adds the cost of some commands, and sleeps it off when it is worth it.
    pub async fn add(&mut self, world: &World, commands: u32) {
        self.0 += COMMAND_COST * commands;
        if self.0 >= CHARGE_SLICE {
            let debt = std::mem::take(&mut self.0);
            world.charge(debt);
            world.clock.sleep(debt).await;
        }
    }
}

/// What a process is started with; the container adds the rest.
#[derive(Clone)]
pub struct Spawn {
    /// The arguments; the first names the program.
    pub args: Vec<String>,
    /// The environment.
    pub env: BTreeMap<String, String>,
    /// The working directory.
    pub cwd: String,
    /// Standard input.
    pub stdin: Input,
    /// Standard output.
    pub stdout: Output,
    /// Standard error.
    pub stderr: Output,
    /// The number of the process that starts it; 0 from outside.
    pub parent: u32,
}

impl Process {
    /// Another program in place of the one that had these signals: what `exec` does.
    pub(crate) fn replace(world: Arc<World>, signals: Signals, spawn: Spawn) -> Process {
        let Spawn { args, env, cwd, stdin, stdout, stderr, parent: _ } = spawn;
        Process { args, env, cwd, stdin, stdout, stderr, signals, world, charge: Charge::default() }
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.signals.pid()
    }

    /// The arguments behind the program's name.
    pub fn arguments(&self) -> &[String] {
        self.args.get(1..).unwrap_or_default()
    }

    /// The name it was called by, without directory.
    pub fn name(&self) -> &str {
        self.args.first().map_or("", |name| name.rsplit('/').next().unwrap_or(name))
    }

    /// A path as the process means it: relative ones count from the working directory.
    pub fn path(&self, path: &str) -> String {
        match path.starts_with('/') {
            true => path.to_string(),
            false => format!("{}/{path}", self.cwd),
        }
    }

    /// Writes `name: message` to standard error.
    pub async fn complain(&self, message: impl std::fmt::Display) {
        // With its standard error gone, a process has nobody to complain to.
        let _told = self.stderr.line(format!("{}: {message}", self.name())).await;
    }

    /// Charges the time that `commands` small steps take. Call it wherever a program could loop without waiting.
    pub async fn charge(&mut self, commands: u32) {
        self.charge.add(&self.world, commands).await;
    }

    /// What a child with the same environment, directory and streams is started with.
    pub fn child(&self, args: Vec<String>) -> Spawn {
        Spawn {
            args,
            env: self.env.clone(),
            cwd: self.cwd.clone(),
            stdin: self.stdin.clone(),
            stdout: self.stdout.clone(),
            stderr: self.stderr.clone(),
            parent: self.pid(),
        }
    }
}

/// What who cannot start a process says.
pub const CANNOT_FORK: &str = "can't fork: Resource temporarily unavailable";

/// Runs a program as a new process to its end, or to its killing. With too many processes in the container it fails as
/// `fork` does.
pub async fn run(world: &Arc<World>, program: Arc<dyn Program>, spawn: Spawn) -> i32 {
    match world.processes.register(spawn.parent, spawn.args.join(" "), world.clock.now()) {
        Some(registration) => run_registered(world, program, spawn, registration).await,
        None => {
            // The exit code says it where the words cannot.
            let _told = spawn.stderr.line(CANNOT_FORK).await;
            2
        }
    }
}

/// [`run`], for what a shell has built in: in Linux that is no process of its own, so it runs where there is no room for one.
pub async fn run_builtin(world: &Arc<World>, program: Arc<dyn Program>, spawn: Spawn) -> i32 {
    let registration = world.processes.register_builtin(spawn.parent, spawn.args.join(" "), world.clock.now());
    run_registered(world, program, spawn, registration).await
}

/// [`run`], for a process that has its number already.
pub async fn run_registered(
    world: &Arc<World>,
    program: Arc<dyn Program>,
    spawn: Spawn,
    registration: Registration,
) -> i32 {
    let (signals, mut killed) = registration.split();
    let _held = world.memory.allocate(PROCESS_MEMORY_BYTES);
    let process = Process::replace(world.clone(), signals, spawn);
    let pid = process.pid();
    let code = tokio::select! {
        biased;
        signal = killed.wait() => signal.exit_code(),
        code = program.run(process) => code,
    };
    world.processes.record_exit(pid, code);
    code
}

/// The words for an error of the file system, as libc has them.
pub fn errno_text(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "No such file or directory",
        io::ErrorKind::PermissionDenied => "Permission denied",
        io::ErrorKind::AlreadyExists => "File exists",
        io::ErrorKind::NotADirectory => "Not a directory",
        io::ErrorKind::IsADirectory => "Is a directory",
        io::ErrorKind::ResourceBusy => "Device or resource busy",
        io::ErrorKind::DirectoryNotEmpty => "Directory not empty",
        io::ErrorKind::ReadOnlyFilesystem => "Read-only file system",
        io::ErrorKind::StorageFull => "No space left on device",
        io::ErrorKind::BrokenPipe => "Broken pipe",
        io::ErrorKind::InvalidInput => "Invalid argument",
        io::ErrorKind::CrossesDevices => "Invalid cross-device link",
        io::ErrorKind::ConnectionRefused => "Connection refused",
        io::ErrorKind::HostUnreachable => "No route to host",
        io::ErrorKind::NetworkUnreachable => "Network is unreachable",
        io::ErrorKind::TimedOut => "Connection timed out",
        io::ErrorKind::AddrInUse => "Address already in use",
        _ => "Input/output error",
    }
}
