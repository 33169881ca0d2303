//! Running a further command in a container.

use crate::container::Container;
use crate::process::{self, Input, Output, Program, Registration, Spawn};
use crate::sim_runtime::SimRuntime;
use crate::{Error, Result};
use std::sync::Arc;

/// A command that can be executed, with its place in the process table.
pub(crate) struct Executed {
    container: Arc<Container>,
    program: Arc<dyn Program>,
    spawn: Spawn,
    registration: Registration,
}

/// Finds a command in a running container. It runs when [`Executed::run`] is awaited.
pub(crate) fn execute(
    runtime: &SimRuntime,
    container: &Arc<Container>,
    command: &[String],
    tty: bool,
) -> Result<Executed> {
    if !container.is_running() {
        let state = minik8s_cri::proto::ContainerState::try_from(container.status().state);
        let state = state.map(|state| state.as_str_name()).unwrap_or_default();
        return Err(Error::WrongState(format!("container is in {state} state")));
    }
    let mut env = container.environment();
    if tty {
        env.insert("TERM".to_string(), "xterm".to_string());
    }
    let cwd = container.working_directory();
    let world = &container.world;
    let failed = |reason: String| Error::Exec { id: runtime.new_id(), reason };
    let loaded = world.load(command, env.get("PATH").map(String::as_str), &cwd);
    let (program, args) = loaded.map_err(|error| failed(error.to_string()))?;
    let registered = world.processes.register(0, args.join(" "), world.clock.now());
    let registration = registered.ok_or_else(|| failed("fork/exec: resource temporarily unavailable".to_string()))?;
    let (stdin, stdout, stderr) = (Input::empty(), Output::null(), Output::null());
    let spawn = Spawn { args, env, cwd, stdin, stdout, stderr, parent: 0 };
    Ok(Executed { container: container.clone(), program, spawn, registration })
}

impl Executed {
    /// The number of the process.
    pub fn pid(&self) -> u32 {
        self.registration.pid()
    }

    /// Runs to the end; returns the exit code. The process is killed with its container, and when this is dropped.
    pub async fn run(mut self, stdin: Input, stdout: Output, stderr: Output) -> i32 {
        (self.spawn.stdin, self.spawn.stdout, self.spawn.stderr) = (stdin, stdout, stderr);
        process::run_registered(&self.container.world, self.program, self.spawn, self.registration).await & 0xff
    }
}
