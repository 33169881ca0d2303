//! Where a shell's commands come from: `-c`, a file, standard input, a terminal.

use super::{End, Flow, NESTING_LIMIT, Outcome, Own, Running, Shell, syntax};
use crate::process::{NOT_FOUND, Process, Signal, errno_text};

/// What the command line asks for.
enum Source {
    Text(String),
    File(String),
    Stdin,
}

pub(super) async fn run(mut process: Process) -> End {
    let mut shell = Shell::new(&process);
    let source = match read_command_line(&mut shell, &process) {
        Ok(source) => source,
        Err(message) => {
            shell.complain(message).await;
            return End::Exit(2);
        }
    };
    shell.interactive |= matches!(source, Source::Stdin) && process.stdin.is_terminal();
    if shell.interactive {
        // A shell on a terminal outlives Ctrl-C and SIGTERM.
        process.signals.handle(Signal::Int);
        process.signals.handle(Signal::Term);
    }
    process.charge(1).await;
    let mut own = Own::new(process.signals, &process.world);
    let mut running = Running { shell: &mut shell, own: Some(&mut own) };
    let outcome = match source {
        Source::Text(text) => running.script(&text, true).await,
        Source::File(path) => match running.shell.world.read_text(&running.shell.path(&path)) {
            Ok(text) => running.script(&text, false).await,
            Err(error) => {
                let reason = errno_text(&error);
                running.shell.complain(format!("can't open '{path}': {reason}")).await;
                Ok(NOT_FOUND)
            }
        },
        Source::Stdin => running.lines().await,
    };
    running.end(outcome).await
}

fn read_command_line(shell: &mut Shell, process: &Process) -> Result<Source, String> {
    let mut words = process.arguments().iter();
    let (mut command, mut from_stdin) = (false, false);
    let mut operands = Vec::new();
    while let Some(word) = words.next() {
        let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty() && *letters != "-") else {
            if word != "--" && word != "-" {
                operands.push(word.clone());
            }
            operands.extend(words.by_ref().cloned());
            break;
        };
        if let Some(long) = letters.strip_prefix('-') {
            if !matches!(long, "login" | "norc" | "noprofile" | "posix") {
                return Err(format!("unrecognized option --{long}"));
            }
            continue;
        }
        for letter in letters.chars() {
            match letter {
                'c' => command = true,
                's' => from_stdin = true,
                'i' => shell.interactive = true,
                'l' => {}
                'e' => shell.options.exit_on_error = true,
                'u' => shell.options.unset_is_error = true,
                'x' => shell.options.trace = true,
                'o' => shell.options.pipe_fail |= words.next().is_some_and(|option| option == "pipefail"),
                other => return Err(format!("illegal option -{other}")),
            }
        }
    }
    let mut operands = operands.into_iter();
    let source = match (command, from_stdin) {
        (true, _) => {
            let text = operands.next().ok_or("-c requires an argument")?;
            if let Some(name) = operands.next() {
                shell.name = name;
            }
            Source::Text(text)
        }
        (false, true) => Source::Stdin,
        (false, false) => match operands.next() {
            Some(path) => {
                shell.name = path.clone();
                Source::File(path)
            }
            None => Source::Stdin,
        },
    };
    shell.positional = operands.collect();
    Ok(source)
}

impl Running<'_> {
    /// Runs a whole text.
    ///
    /// It may be one that runs itself, by `eval` or `.`.
    pub(super) async fn script(&mut self, text: &str, last: bool) -> Outcome {
        if self.shell.nesting >= NESTING_LIMIT {
            return self.raise(format!("maximum nesting level exceeded ({NESTING_LIMIT})")).await;
        }
        self.shell.nesting += 1;
        let outcome = self.commands(text, last).await;
        self.shell.nesting -= 1;
        outcome
    }

    async fn commands(&mut self, text: &str, last: bool) -> Outcome {
        let program = match syntax::parse(text, self.shell.bash) {
            Ok(program) => program,
            Err(error) => {
                self.shell.complain(error.to_string()).await;
                return Err(Flow::Exit(2));
            }
        };
        let mut status = 0;
        // A text that is one simple command is run in place of the shell, as all shells do: so that command is the one
        // that signals reach.
        let only = last && program.complete_commands.len() == 1;
        for list in &program.complete_commands {
            status = match (only, super::simple::sole_command(list)) {
                (true, Some(command)) => self.exec_command(command).await?,
                _ => self.list(list).await?,
            };
        }
        Ok(status)
    }

    /// Runs line by line, with prompts on a terminal.
    async fn lines(&mut self) -> Outcome {
        let mut text = String::new();
        loop {
            self.prompt(text.is_empty()).await;
            let stdin = self.shell.stdin();
            let line = loop {
                let interrupted = async {
                    match self.own.as_mut().and_then(|own| own.signals.as_mut()) {
                        Some(signals) => signals.next().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    line = stdin.line() => break line,
                    signal = interrupted => if signal == Signal::Int {
                        text.clear();
                        self.shell.status = Signal::Int.exit_code();
                        self.prompt(true).await;
                    },
                }
            };
            let Some(line) = line.unwrap_or_default() else {
                if !text.is_empty() {
                    self.shell.complain("syntax error: unexpected end of file").await;
                    return Ok(2);
                }
                return Ok(self.shell.status);
            };
            text += &String::from_utf8_lossy(&line);
            match syntax::parse(&text, self.shell.bash) {
                Err(error) if error.is_incomplete() => continue,
                Err(error) => {
                    self.shell.complain(error.to_string()).await;
                    self.shell.status = 2;
                    if !self.shell.interactive {
                        return Ok(2);
                    }
                }
                Ok(program) => {
                    for list in &program.complete_commands {
                        match self.list(list).await {
                            Err(Flow::Interrupt) if self.shell.interactive => {}
                            Err(flow @ (Flow::Exit(_) | Flow::Interrupt | Flow::Replace)) => return Err(flow),
                            _ => {}
                        }
                    }
                }
            }
            text.clear();
        }
    }

    async fn prompt(&mut self, fresh: bool) {
        if !self.shell.interactive {
            return;
        }
        let shell = &self.shell;
        let home = shell.get("HOME").unwrap_or_default();
        let directory = match shell.cwd.strip_prefix(home) {
            Some(rest) if !home.is_empty() && home != "/" && (rest.is_empty() || rest.starts_with('/')) => {
                format!("~{rest}")
            }
            _ => shell.cwd.clone(),
        };
        let root = shell.world.user.uid == 0;
        let mark = if root { '#' } else { '$' };
        let user = if shell.world.user.name.is_empty() { "I have no name!" } else { &shell.world.user.name };
        let text = match (fresh, shell.get("PS1")) {
            (false, _) => "> ".to_string(),
            (true, Some(prompt)) => prompt
                .replace("\\u", user)
                .replace("\\h", &shell.world.hostname)
                .replace("\\w", &directory)
                .replace("\\$", &mark.to_string()),
            (true, None) if shell.bash => format!("{user}@{}:{directory}{mark} ", shell.world.hostname),
            (true, None) if shell.world.profile.gnu => format!("{mark} "),
            (true, None) => format!("{directory} {mark} "),
        };
        // A terminal that is gone ends the shell with the next line it does not send.
        let _shown = self.shell.stderr().write(text).await;
    }

    /// What the outcome of the last list means for the process of the shell.
    pub(super) async fn end(&mut self, outcome: Outcome) -> End {
        let code = match outcome {
            Ok(code) | Err(Flow::Exit(code) | Flow::Return(code)) => code,
            Err(Flow::Break(_) | Flow::Continue(_)) => self.shell.status,
            Err(Flow::Interrupt) => Signal::Int.exit_code(),
            Err(Flow::Replace) => match self.own.as_mut().and_then(|own| own.replacement.take()) {
                Some((program, process)) => return End::Replace(program, process),
                None => self.shell.status,
            },
        };
        End::Exit(self.at_exit(code).await)
    }

    /// Runs the trap of EXIT; returns the exit code.
    pub(super) async fn at_exit(&mut self, code: i32) -> i32 {
        let Some(command) = self.shell.traps.remove("EXIT") else { return code };
        self.shell.status = code;
        match self.script(&command, false).await {
            Err(Flow::Exit(code)) => code,
            _ => code,
        }
    }
}
