//! The container a process runs in.

use super::{Cgroup, CpuMeter, MemoryMeter, Output, ProcessTable, Program};
use crate::fs::ContainerFs;
use crate::image::ImageProfile;
use crate::network::PodNetwork;
use crate::programs::Programs;
use minik8s_clock::{Clock, Random};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How many interpreters a script may name one after another.
const INTERPRETER_LIMIT: usize = 4;
/// The first bytes of every executable file that stands for a simulated program; its name follows.
pub(crate) const PROGRAM_MAGIC: &str = "\u{7f}ELF minik8s program ";
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Who the processes of a container run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User number.
    pub uid: i64,
    /// Group number.
    pub gid: i64,
    /// Further groups.
    pub groups: Vec<i64>,
    /// Name, as `/etc/passwd` of the image has it; empty where it has none.
    pub name: String,
}

/// All that the processes of one container share.
pub struct World {
    /// The cluster's time.
    pub clock: Clock,
    /// Randomness.
    pub random: Random,
    /// Its files.
    pub fs: Arc<ContainerFs>,
    /// What it may use.
    pub cgroup: Cgroup,
    /// Its memory.
    pub memory: MemoryMeter,
    /// Its processes.
    pub processes: ProcessTable,
    /// The network of its pod.
    pub network: Arc<PodNetwork>,
    /// Its host name.
    pub hostname: String,
    /// Who it runs as.
    pub user: User,
    /// Whether no program gives its processes more rights than they have (`no_new_privs`).
    pub no_new_privileges: bool,
    /// Whether it may change its network (`CAP_NET_ADMIN`).
    pub network_admin: bool,
    /// What its image does.
    pub profile: Arc<ImageProfile>,
    /// The version that the image's tag names.
    pub version: String,
    /// Whether a Job owns its pod, so that a program without any other purpose ends by itself.
    pub job: bool,
    /// Its standard output, for those who write to `/proc/1/fd/1`.
    pub stdout: Output,
    /// Programs by name.
    pub(crate) programs: Arc<Programs>,
    /// Processor time used.
    pub cpu: CpuMeter,
}

/// Why a command cannot be executed; the words are runc's (`libcontainer/standard_init_linux.go`, Go's `exec.LookPath`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    /// No directory of `$PATH` has it.
    #[error("exec: {0:?}: executable file not found in $PATH")]
    NotInPath(String),
    /// The path leads nowhere.
    #[error("exec: {0:?}: stat {0}: no such file or directory")]
    NotFound(String),
    /// It is a directory.
    #[error("exec: {0:?}: is a directory")]
    IsADirectory(String),
    /// It may not be executed.
    #[error("exec: {0:?}: permission denied")]
    PermissionDenied(String),
    /// It is neither a program nor a script.
    #[error("exec {0}: exec format error")]
    Format(String),
    /// There is no command at all.
    #[error("no command specified")]
    Empty,
}

impl World {
    /// Adds to the processor time used.
    pub fn charge(&self, time: Duration) {
        self.cpu.charge(time);
    }

    /// Where a command is found: as it is when it has a slash, else in the directories of `path`.
    pub fn locate(&self, command: &str, path: Option<&str>, cwd: &str) -> Result<String, ExecError> {
        if command.contains('/') {
            let full = if command.starts_with('/') { command.to_string() } else { format!("{cwd}/{command}") };
            return match self.fs.metadata(&full) {
                Err(_) => Err(ExecError::NotFound(command.to_string())),
                Ok(metadata) if metadata.kind == minik8s_cri::FileKind::Directory => {
                    Err(ExecError::IsADirectory(command.to_string()))
                }
                Ok(metadata) if metadata.mode & 0o111 == 0 => Err(ExecError::PermissionDenied(command.to_string())),
                Ok(_) => Ok(full),
            };
        }
        path.unwrap_or(DEFAULT_PATH)
            .split(':')
            .map(|directory| format!("{directory}/{command}"))
            .find(|candidate| {
                let file = self.fs.metadata(candidate);
                file.is_ok_and(|file| file.kind == minik8s_cri::FileKind::File && file.mode & 0o111 != 0)
            })
            .ok_or_else(|| ExecError::NotInPath(command.to_string()))
    }

    /// The program behind a command line, and the arguments it is really called with: a script is run by the interpreter
    /// that its first line names.
    pub fn load(
        &self,
        args: &[String],
        path: Option<&str>,
        cwd: &str,
    ) -> Result<(Arc<dyn Program>, Vec<String>), ExecError> {
        let mut args = args.to_vec();
        for _ in 0..INTERPRETER_LIMIT {
            let command = args.first().filter(|command| !command.is_empty()).ok_or(ExecError::Empty)?.clone();
            let located = match self.locate(&command, path, cwd) {
                Ok(located) => located,
                // Nobody knows what else is in an image that no profile describes: what its pod calls is taken to be there.
                Err(_) if self.profile.any_command => {
                    let program = self.programs.default_program(&self.profile);
                    return program.map(|program| (program, args)).ok_or(ExecError::NotInPath(command));
                }
                Err(error) => return Err(error),
            };
            let format_error = || ExecError::Format(command.clone());
            let head = self.fs.read_at(&located, 0, 256).map_err(|_| format_error())?;
            let head = String::from_utf8_lossy(&head);
            let first_line = head.lines().next().unwrap_or_default();
            if let Some(name) = first_line.strip_prefix(PROGRAM_MAGIC) {
                let program = self.programs.get(&self.profile, name.trim()).ok_or_else(format_error)?;
                return Ok((program, args));
            }
            let interpreter = first_line.strip_prefix("#!").ok_or_else(format_error)?;
            let (interpreter, argument) = match interpreter.trim().split_once(char::is_whitespace) {
                Some((interpreter, argument)) => (interpreter, Some(argument.trim().to_string())),
                None => (interpreter.trim(), None),
            };
            args[0] = located;
            let prefix = std::iter::once(interpreter.to_string()).chain(argument);
            args.splice(0..0, prefix.collect::<Vec<_>>());
        }
        Err(ExecError::Format(args.swap_remove(0)))
    }

    /// The content of a file as text, with what is no UTF-8 replaced.
    pub fn read_text(&self, path: &str) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&self.fs.read(path)?).into_owned())
    }
}
