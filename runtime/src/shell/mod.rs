//! The shell of simulated containers: `sh`, `ash`, `bash`.
//!
//! The grammar is brush-parser's; what the words mean is here. A shell is one async task: pipelines and subshells are futures
//! inside it over clones of its state, commands are processes of the container's process table, `&` is a process of its own.
//!
//! ```text
//!  run ──► script (-c, file, stdin, terminal) ──► interpreter (lists, pipelines, if, for, while, case, functions)
//!                                                      │
//!                                    simple (assignments, redirections, builtins, programs)
//!                                                      │
//!                                    expand ─► parameter, arithmetic   words to fields
//! ```
//!
//! Left out: aliases, arrays, coprocesses, process substitution, job control (`fg`, `bg`), history. A script that uses them
//! is told so.

mod arithmetic;
mod builtins;
pub(crate) mod depth;
mod expand;
mod interpreter;
mod parameter;
mod redirect;
mod script;
mod simple;
mod syntax;

use crate::process::{Allocation, Charge, Input, Output, Process, Program, Signal, Signals, Spawn, World};
use brush_parser::{ParserOptions, ast};
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How deep functions, subshells and substitutions may stand inside of each other.
const NESTING_LIMIT: usize = 40;
/// How long a variable may be; more is more memory than a simulated shell may take from the machine.
pub(crate) const VARIABLE_LIMIT_BYTES: usize = 16 * 1024 * 1024;

/// Why a list is left before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// Out of so many loops.
    Break(usize),
    /// To the next round of the loop so many levels up.
    Continue(usize),
    /// Out of a function or sourced script.
    Return(i32),
    /// Out of the shell.
    Exit(i32),
    /// To the prompt: Ctrl-C.
    Interrupt,
    /// Out of the shell, which [`Own::replacement`] takes the place of.
    Replace,
}

/// An exit status, or why the list is left.
type Outcome = Result<i32, Flow>;

/// A variable.
#[derive(Debug, Clone, Default)]
struct Variable {
    value: String,
    exported: bool,
    read_only: bool,
}

/// Options of `set`.
#[derive(Debug, Clone, Copy, Default)]
struct SetOptions {
    exit_on_error: bool,
    unset_is_error: bool,
    trace: bool,
    pipe_fail: bool,
    no_glob: bool,
}

/// An open file descriptor.
#[derive(Clone)]
enum Descriptor {
    In(Input),
    Out(Output),
}

/// The state of a shell; a clone is a subshell.
#[derive(Clone)]
struct Shell {
    world: Arc<World>,
    pid: u32,
    /// `$0`.
    name: String,
    cwd: String,
    descriptors: BTreeMap<i32, Descriptor>,
    variables: BTreeMap<String, Variable>,
    positional: Vec<String>,
    functions: BTreeMap<String, Arc<ast::FunctionBody>>,
    /// Commands by signal name; `EXIT` among them.
    traps: BTreeMap<String, String>,
    options: SetOptions,
    /// `$?`.
    status: i32,
    /// The status of the last command substitution of the command that is being expanded.
    substituted: Option<i32>,
    last_background: Option<u32>,
    interactive: bool,
    bash: bool,
    nesting: usize,
    /// Above 0 where a failing command decides something and so does not end the shell (`set -e`).
    tested: usize,
    /// Names that `local` hides, by function level, with what they were.
    locals: Vec<Vec<(String, Option<Variable>)>>,
    charge: Charge,
}

/// What belongs to the process of a shell and not to its subshells.
struct Own {
    /// Signals, until `exec` passes them on.
    signals: Option<Signals>,
    /// Memory of variables.
    memory: Allocation,
    /// What `exec` runs. The shell unwinds first, so that a server whose image starts it by a script costs no more than one
    /// that is started at once.
    replacement: Option<(Arc<dyn Program>, Process)>,
}

impl Own {
    fn new(signals: Signals, world: &World) -> Own {
        Own { signals: Some(signals), memory: world.memory.allocate(0), replacement: None }
    }
}

/// How a shell ends.
enum End {
    /// With an exit code.
    Exit(i32),
    /// In another program.
    Replace(Arc<dyn Program>, Process),
}

/// A shell with what belongs to its process.
struct Running<'a> {
    shell: &'a mut Shell,
    own: Option<&'a mut Own>,
}

/// Runs a shell as a program.
pub(crate) fn run(process: Process) -> BoxFuture<'static, i32> {
    Box::pin(async move {
        // Boxed, so that nothing of the shell is left while what replaces it runs.
        match Box::pin(script::run(process)).await {
            End::Exit(code) => code,
            End::Replace(program, process) => program.run(process).await,
        }
    })
}

impl Shell {
    /// A shell with the streams and the environment of a process.
    fn new(process: &Process) -> Shell {
        let descriptors = BTreeMap::from([
            (0, Descriptor::In(process.stdin.clone())),
            (1, Descriptor::Out(process.stdout.clone())),
            (2, Descriptor::Out(process.stderr.clone())),
        ]);
        let exported = |(name, value): (&String, &String)| {
            (name.clone(), Variable { value: value.clone(), exported: true, read_only: false })
        };
        Shell {
            world: process.world.clone(),
            pid: process.pid(),
            name: process.args.first().cloned().unwrap_or_default(),
            cwd: minik8s_cri::normalize(&process.cwd),
            descriptors,
            variables: process.env.iter().map(exported).collect(),
            positional: Vec::new(),
            functions: BTreeMap::new(),
            traps: BTreeMap::new(),
            options: SetOptions::default(),
            status: 0,
            substituted: None,
            last_background: None,
            interactive: false,
            bash: process.name() == "bash",
            nesting: 0,
            tested: 0,
            locals: Vec::new(),
            charge: Charge::default(),
        }
    }

    fn stdin(&self) -> Input {
        match self.descriptors.get(&0) {
            Some(Descriptor::In(input)) => input.clone(),
            _ => Input::empty(),
        }
    }

    fn output(&self, descriptor: i32) -> Output {
        match self.descriptors.get(&descriptor) {
            Some(Descriptor::Out(output)) => output.clone(),
            _ => Output::null(),
        }
    }

    fn stdout(&self) -> Output {
        self.output(1)
    }

    fn stderr(&self) -> Output {
        self.output(2)
    }

    /// Says what is wrong, with the shell's name in front.
    async fn complain(&self, message: impl std::fmt::Display) {
        // With its standard error gone, a shell has nobody to complain to.
        let _told = self.stderr().line(format!("{}: {message}", self.name)).await;
    }

    fn path(&self, path: &str) -> String {
        if path.starts_with('/') { path.to_string() } else { format!("{}/{path}", self.cwd.trim_end_matches('/')) }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(|variable| variable.value.as_str())
    }

    /// Sets a variable, or says why it cannot be.
    fn set(&mut self, name: &str, value: String) -> Result<(), String> {
        let variable = self.variables.entry(name.to_string()).or_default();
        if variable.read_only {
            return Err(format!("{name}: is read only"));
        }
        if value.len() > VARIABLE_LIMIT_BYTES {
            // It is lost, and whoever has a limit is killed for it.
            let _gone = self.world.memory.allocate(self.world.memory.limit().unwrap_or(0));
            return Err("out of memory".to_string());
        }
        variable.value = value;
        Ok(())
    }

    /// What commands find in their environment.
    fn environment(&self) -> BTreeMap<String, String> {
        let exported = self.variables.iter().filter(|(_, variable)| variable.exported);
        exported.map(|(name, variable)| (name.clone(), variable.value.clone())).collect()
    }

    /// What a command is started with.
    fn spawn(&self, args: Vec<String>) -> Spawn {
        Spawn {
            args,
            env: self.environment(),
            cwd: self.cwd.clone(),
            stdin: self.stdin(),
            stdout: self.stdout(),
            stderr: self.stderr(),
            parent: self.pid,
        }
    }

    /// Takes simulated time for one step.
    async fn tick(&mut self) {
        let world = self.world.clone();
        self.charge.add(&world, 1).await;
    }
}

impl Own {
    /// The signals that have come, as names of traps.
    fn pending(&mut self) -> Option<Signal> {
        self.signals.as_mut()?.try_next()
    }
}

fn parser_options(bash: bool) -> ParserOptions {
    ParserOptions { enable_extended_globbing: bash, sh_mode: !bash, ..ParserOptions::default() }
}
