//! `tar`: files into an archive and out of it, which is also what `kubectl cp` runs in a container.
//!
//! `kubectl cp` reads with `tar cf - PATH` and writes with `tar -xmf - -C DIRECTORY`, the archive on stdin. Nothing is held in
//! whole: [`archive`] reads member after member from a stream, [`create`] writes one after another. The words and exit codes
//! are GNU's in Debian's images and busybox's in others.
//!
//! Left out: appending to archives, sparse files, devices, owners (files have none here), a `-C` between operands (each
//! counts for all of them), compression other than gzip.

mod archive;
mod create;
mod extract;

use super::Options;
use crate::process::{Process, errno_text};
use minik8s_cri::FileKind;
use std::io;

/// Archives are a row of blocks of this size.
const BLOCK_BYTES: usize = 512;
/// How much is compressed, expanded or written at once.
const PIECE_BYTES: usize = 64 * 1024;

/// GNU's exit code for an option that it does not have (`EX_USAGE`).
const BAD_OPTION: i32 = 64;

/// Options that take no value, letters and words.
const FLAGS: [&str; 45] = [
    "c",
    "create",
    "x",
    "extract",
    "get",
    "t",
    "list",
    "v",
    "verbose",
    "z",
    "gzip",
    "gunzip",
    "ungzip",
    "m",
    "touch",
    "p",
    "same-permissions",
    "preserve-permissions",
    "no-same-permissions",
    "o",
    "same-owner",
    "no-same-owner",
    "h",
    "dereference",
    "O",
    "to-stdout",
    "k",
    "keep-old-files",
    "overwrite",
    "numeric-owner",
    "a",
    "auto-compress",
    "j",
    "bzip2",
    "J",
    "xz",
    "Z",
    "compress",
    "zstd",
    "r",
    "append",
    "u",
    "update",
    "sparse",
    "S",
];
/// Options that take a value.
const VALUES: [&str; 10] =
    ["f", "file", "C", "directory", "exclude", "strip-components", "H", "format", "warning", "b"];

/// What to do with an archive.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Create,
    Extract,
    List,
}

/// A command line of `tar`.
struct Request {
    mode: Mode,
    /// The file of the archive; `None` is stdin or stdout.
    file: Option<String>,
    gzip: bool,
    verbose: bool,
    /// Times of the archive are not taken over.
    touch: bool,
    /// All permission bits are taken over, not only those that a new file would have.
    same_permissions: bool,
    dereference: bool,
    to_stdout: bool,
    keep_old: bool,
    /// Where names count from; absolute.
    directory: String,
    exclude: Vec<String>,
    strip: usize,
    operands: Vec<String>,
}

/// Why `tar` ends before it is done.
enum Stop {
    /// At once.
    Fatal(String),
    /// After it has said this, as if all else were done.
    Failed(String),
    /// Because the command line makes no sense; with GNU's exit code for it.
    Usage(String, i32),
    /// Because of a program that GNU's `tar` runs: what that says, and its exit code.
    Child(String, i32),
    /// A stream of the process has failed.
    Stream(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Stream(error)
    }
}

/// What both directions share: who runs, and what has gone wrong so far.
struct Run {
    process: Process,
    request: Request,
    gnu: bool,
    failed: bool,
    /// What was last said to be removed from the beginning of names.
    removed: String,
}

impl Run {
    /// Complains about a member and goes on with the next, which busybox does not.
    async fn complain(&mut self, gnu: String, busybox: String) -> Result<(), Stop> {
        if !self.gnu {
            return Err(Stop::Fatal(busybox));
        }
        self.process.complain(gnu).await;
        self.failed = true;
        Ok(())
    }

    /// A name without what would lead out of the directory that it counts from; says so when something is removed.
    async fn safe_name<'n>(&mut self, name: &'n str) -> &'n str {
        let (prefix, rest) = name.split_at(unsafe_prefix(name));
        if !prefix.is_empty() && self.removed != prefix {
            let message = match self.gnu {
                true => format!("Removing leading `{prefix}' from member names"),
                false => format!("removing leading '{prefix}' from member names"),
            };
            self.process.complain(message).await;
            self.removed = prefix.to_string();
        }
        if rest.is_empty() { "./" } else { rest }
    }

    /// Whether `--exclude` is about a name: a pattern matches some components in a row.
    fn is_excluded(&self, name: &str) -> bool {
        let name = name.trim_end_matches('/');
        let starts = || std::iter::once(0).chain(name.match_indices('/').map(|(at, _)| at + 1));
        let ends = || name.match_indices('/').map(|(at, _)| at).chain([name.len()]);
        self.request.exclude.iter().any(|pattern| {
            starts().any(|start| ends().any(|end| start < end && crate::pattern::matches(pattern, &name[start..end])))
        })
    }

    /// A name as an absolute path.
    fn path(&self, name: &str) -> String {
        if name.starts_with('/') { name.to_string() } else { format!("{}/{name}", self.request.directory) }
    }
}

/// How much of a name is removed: all up to its last `..`, and slashes.
fn unsafe_prefix(name: &str) -> usize {
    let mut at = 0;
    let mut prefix = 0;
    for component in name.split_inclusive('/') {
        at += component.len();
        if component.trim_end_matches('/') == ".." {
            prefix = at;
        }
    }
    prefix + name[prefix..].len() - name[prefix..].trim_start_matches('/').len()
}

impl Request {
    /// Reads a command line; the error is what is wrong with it.
    fn parse(process: &Process) -> Result<Request, Stop> {
        let gnu = process.world.profile.gnu;
        let options = Options::parse(&dashed(process.arguments()), &FLAGS, &VALUES).map_err(|message| {
            let long = message.strip_prefix("unrecognized option: ").filter(|_| gnu);
            usage(&long.map(|name| format!("unrecognized option '--{name}'")).unwrap_or(message), BAD_OPTION, gnu)
        })?;
        let mode = mode(&options).map_err(|message| match gnu {
            true => usage(message, 2, gnu),
            false => Stop::Fatal("must specify one of -c, -x or -t".to_string()),
        })?;
        let file = options.value(&["f", "file"]).filter(|file| *file != "-").map(str::to_string);
        for (names, program) in [
            (["j", "bzip2"], "bzip2"),
            (["J", "xz"], "xz"),
            (["Z", "compress"], "compress"),
            (["zstd", "zstd"], "zstd"),
        ] {
            if options.has(&names) {
                return Err(match gnu {
                    true => Stop::Child(
                        format!(
                            "tar (child): {program}: Cannot exec: No such file or directory\n\
                             tar (child): Error is not recoverable: exiting now"
                        ),
                        2,
                    ),
                    false => Stop::Fatal(format!("can't execute '{program}': No such file or directory")),
                });
            }
        }
        let by_name = options.has(&["a", "auto-compress"])
            && file.as_deref().is_some_and(|file| file.ends_with(".gz") || file.ends_with(".tgz"));
        let strip = options.value(&["strip-components"]).unwrap_or("0");
        let strip = strip.parse().map_err(|_| usage(&format!("'{strip}': Invalid number of elements"), 2, gnu))?;
        let mut directory = process.cwd.clone();
        for change in options.all(&["C", "directory"]) {
            directory = if change.starts_with('/') { change.to_string() } else { format!("{directory}/{change}") };
            let reason = match process.world.fs.metadata(&directory) {
                Ok(found) if found.kind == FileKind::Directory => continue,
                Ok(_) => "Not a directory",
                Err(error) => errno_text(&error),
            };
            return Err(Stop::Fatal(match gnu {
                true => format!("{change}: Cannot open: {reason}"),
                false => format!("can't change directory to '{change}': {reason}"),
            }));
        }
        let asked = options.has(&["p", "same-permissions", "preserve-permissions"]);
        Ok(Request {
            mode,
            gzip: by_name || options.has(&["z", "gzip", "gunzip", "ungzip"]),
            verbose: options.has(&["v", "verbose"]),
            touch: options.has(&["m", "touch"]),
            same_permissions: asked || process.world.user.uid == 0 && !options.has(&["no-same-permissions"]),
            dereference: options.has(&["h", "dereference"]),
            to_stdout: options.has(&["O", "to-stdout"]),
            keep_old: options.has(&["k", "keep-old-files"]),
            directory,
            exclude: options.all(&["exclude"]).map(|pattern| pattern.trim_end_matches('/').to_string()).collect(),
            strip,
            operands: options.operands.clone(),
            file,
        })
    }
}

/// The one mode that is given; the error is GNU's.
fn mode(options: &Options) -> Result<Mode, &'static str> {
    let modes = [
        (Mode::Create, options.has(&["c", "create"])),
        (Mode::Extract, options.has(&["x", "extract", "get"])),
        (Mode::List, options.has(&["t", "list"])),
    ];
    let mut given = modes.into_iter().filter(|(_, given)| *given).map(|(mode, _)| mode);
    match (given.next(), given.next()) {
        (Some(mode), None) => Ok(mode),
        (None, _) => Err("You must specify one of the '-Acdtrux', '--delete' or '--test-label' options"),
        _ => Err("You may not specify more than one '-Acdtrux', '--delete' or  '--test-label' option"),
    }
}

/// What is said about a command line that makes no sense.
fn usage(message: &str, code: i32, gnu: bool) -> Stop {
    let hint = if gnu { "\nTry 'tar --help' or 'tar --usage' for more information." } else { "" };
    Stop::Usage(format!("{message}{hint}"), code)
}

/// A command line whose first word is letters without a dash, in today's style: the values follow in the letters' order.
fn dashed(arguments: &[String]) -> Vec<String> {
    let Some((letters, rest)) = arguments.split_first().filter(|(first, _)| !first.starts_with('-')) else {
        return arguments.to_vec();
    };
    let mut rest = rest.iter();
    let mut dashed = Vec::new();
    for letter in letters.chars() {
        dashed.push(format!("-{letter}"));
        if VALUES.contains(&letter.to_string().as_str()) {
            dashed.extend(rest.next().cloned());
        }
    }
    dashed.extend(rest.cloned());
    dashed
}

pub(super) async fn tar(process: Process) -> io::Result<i32> {
    let gnu = process.world.profile.gnu;
    // Scripts ask which of the two this is.
    if let [argument] = process.arguments()
        && argument == "--version"
    {
        process.stdout.line(if gnu { "tar (GNU tar) 1.35" } else { "tar (busybox) 1.37.0" }).await?;
        return Ok(0);
    }
    let (stderr, name) = (process.stderr.clone(), process.name().to_string());
    let (result, failed) = match Request::parse(&process) {
        Err(stop) => (Err(stop), false),
        Ok(request) => {
            let mut run = Run { process, request, gnu, failed: false, removed: String::new() };
            let result = match run.request.mode {
                Mode::Create => create::create(&mut run).await,
                Mode::Extract | Mode::List => extract::extract(&mut run).await,
            };
            (result, run.failed)
        }
    };
    let (not_recoverable, previous) = match gnu {
        true => ("Error is not recoverable: exiting now", "Exiting with failure status due to previous errors"),
        false => ("", "error exit delayed from previous errors"),
    };
    let mut code = if gnu { 2 } else { 1 };
    let (raw, words) = match result {
        Ok(()) if !failed => return Ok(0),
        Ok(()) => (None, vec![previous.to_string()]),
        Err(Stop::Stream(error)) => return Err(error),
        Err(Stop::Fatal(message)) => (None, vec![message, not_recoverable.to_string()]),
        Err(Stop::Failed(message)) => (None, vec![message, if gnu { previous } else { "" }.to_string()]),
        Err(Stop::Child(said, status)) => {
            (Some(said), vec![format!("Child returned status {status}"), not_recoverable.to_string()])
        }
        Err(Stop::Usage(message, status)) => {
            code = if gnu { status } else { code };
            (None, vec![message])
        }
    };
    let words = words.into_iter().filter(|line| !line.is_empty()).map(|line| format!("{name}: {line}"));
    for line in raw.into_iter().chain(words) {
        // As with `Process::complain`: nobody may be there to be told.
        let _told = stderr.line(line).await;
    }
    Ok(code)
}

/// The archive itself cannot be opened.
fn cannot_open(run: &Run, file: &str, error: &io::Error) -> Stop {
    Stop::Fatal(match run.gnu {
        true => format!("{file}: Cannot open: {}", errno_text(error)),
        false => format!("can't open '{file}': {}", errno_text(error)),
    })
}
