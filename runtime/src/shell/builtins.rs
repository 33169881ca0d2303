//! Commands that the shell runs itself, because they change it.

use super::{Flow, Outcome, Running, Variable};
use crate::process::{self, Signal, errno_text};
use minik8s_cri::FileKind;

/// Tools that every shell has built in; they run without being looked up.
const APPLETS: [&str; 8] = ["[", "echo", "false", "kill", "printf", "pwd", "test", "true"];
/// Builtins whose assignments stay (POSIX shell, 2.14).
const SPECIAL: [&str; 14] = [
    ".", ":", "break", "continue", "eval", "exec", "exit", "export", "readonly", "return", "set", "shift", "trap",
    "unset",
];

pub(super) fn is_special(name: &str) -> bool {
    SPECIAL.contains(&name)
}

/// Whether a name can be a variable's.
fn is_name(text: &str) -> bool {
    let mut characters = text.chars();
    characters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && characters.all(|character| character.is_ascii_alphanumeric() || character == '_')
}

impl Running<'_> {
    /// Runs a builtin; `None` when the name is none.
    pub(super) async fn builtin(&mut self, name: &str, words: &[String]) -> Option<Outcome> {
        let arguments = &words[1..];
        let first = arguments.first().map(String::as_str);
        let number = first.and_then(|text| text.parse::<i32>().ok());
        if APPLETS.contains(&name) {
            let program = crate::programs::applet(name)?;
            let world = self.shell.world.clone();
            return Some(Ok(process::run_builtin(&world, program, self.shell.spawn(words.to_vec())).await));
        }
        Some(match name {
            ":" => Ok(0),
            "break" => Err(Flow::Break(number.unwrap_or(1).max(1) as usize)),
            "continue" => Err(Flow::Continue(number.unwrap_or(1).max(1) as usize)),
            "return" => Err(Flow::Return(number.unwrap_or(self.shell.status) & 0xff)),
            "exit" => Err(Flow::Exit(number.unwrap_or(self.shell.status) & 0xff)),
            "cd" => Ok(self.cd(first).await),
            "export" | "readonly" => Ok(self.export(name, arguments).await),
            "local" | "declare" | "typeset" => Ok(self.local(arguments).await),
            "unset" => Ok(self.unset(arguments).await),
            "set" => Ok(self.set_options(arguments).await),
            "shift" => Ok(self.shift(number.unwrap_or(1)).await),
            "read" => Ok(self.read(arguments).await),
            "eval" => Box::pin(self.script(&arguments.join(" "), false)).await,
            "." | "source" => self.source(first).await,
            "exec" => self.exec(arguments.to_vec()).await,
            "trap" => Ok(self.trap(arguments).await),
            "wait" => self.wait(arguments).await,
            "type" | "command" => return self.command_builtin(name, arguments).await,
            "umask" => Ok(0),
            "times" => self.print("0m0.000s 0m0.000s\n0m0.000s 0m0.000s\n").await,
            "jobs" | "fg" | "bg" | "alias" | "getopts" | "hash" => {
                self.shell.complain(format!("{name}: not supported by the simulated shell")).await;
                Ok(2)
            }
            _ => return None,
        })
    }

    async fn print(&mut self, text: &str) -> Outcome {
        match self.shell.stdout().write(text).await {
            Ok(()) => Ok(0),
            Err(_) => Ok(1),
        }
    }

    async fn cd(&mut self, to: Option<&str>) -> i32 {
        let home = self.shell.get("HOME").unwrap_or("/").to_string();
        let back = self.shell.get("OLDPWD").unwrap_or_default().to_string();
        let wanted = match to {
            None => home,
            Some("-") => back,
            Some(path) => path.to_string(),
        };
        let path = minik8s_cri::normalize(&self.shell.path(&wanted));
        let error = match self.shell.world.fs.metadata(&path) {
            Ok(found) if found.kind == FileKind::Directory => {
                let from = std::mem::replace(&mut self.shell.cwd, path.clone());
                for (name, value) in [("OLDPWD", from), ("PWD", path)] {
                    if let Err(message) = self.shell.set(name, value) {
                        self.shell.complain(format!("cd: {message}")).await;
                        return 2;
                    }
                }
                return 0;
            }
            Ok(_) => "Not a directory",
            Err(error) => errno_text(&error),
        };
        let message = match (self.shell.bash, self.shell.world.profile.gnu) {
            (true, _) => format!("line 1: cd: {wanted}: {error}"),
            (false, true) => format!("1: cd: can't cd to {wanted}"),
            (false, false) => format!("cd: can't cd to {wanted}: {error}"),
        };
        self.shell.complain(message).await;
        2
    }

    async fn export(&mut self, kind: &str, arguments: &[String]) -> i32 {
        let names: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
        if names.is_empty() {
            let listed: String = self
                .shell
                .variables
                .iter()
                .filter(|(_, variable)| if kind == "export" { variable.exported } else { variable.read_only })
                .map(|(name, variable)| format!("{kind} {name}='{}'\n", variable.value))
                .collect();
            return self.print(&listed).await.unwrap_or(1);
        }
        for argument in names {
            let (name, value) =
                argument.split_once('=').map_or((argument.as_str(), None), |(name, value)| (name, Some(value)));
            if !is_name(name) {
                self.shell.complain(format!("{kind}: {argument}: bad variable name")).await;
                return 1;
            }
            if let Some(value) = value
                && let Err(message) = self.shell.set(name, value.to_string())
            {
                self.shell.complain(message).await;
                return 2;
            }
            let variable = self.shell.variables.entry(name.to_string()).or_default();
            match kind {
                "export" => variable.exported = true,
                _ => variable.read_only = true,
            }
        }
        0
    }

    async fn local(&mut self, arguments: &[String]) -> i32 {
        for argument in arguments.iter().filter(|argument| !argument.starts_with('-')) {
            let (name, value) = argument.split_once('=').unwrap_or((argument, ""));
            if !is_name(name) {
                self.shell.complain(format!("local: {argument}: bad variable name")).await;
                return 1;
            }
            let before = self.shell.variables.get(name).cloned();
            if let Some(level) = self.shell.locals.last_mut() {
                level.push((name.to_string(), before));
            }
            let variable = Variable { value: value.to_string(), ..Variable::default() };
            self.shell.variables.insert(name.to_string(), variable);
        }
        0
    }

    async fn unset(&mut self, arguments: &[String]) -> i32 {
        let functions = arguments.first().is_some_and(|first| first == "-f");
        for name in arguments.iter().filter(|argument| !argument.starts_with('-')) {
            if functions {
                self.shell.functions.remove(name);
            } else if self.shell.variables.get(name).is_some_and(|variable| variable.read_only) {
                self.shell.complain(format!("unset: {name}: is read only")).await;
                return 2;
            } else {
                self.shell.variables.remove(name);
            }
        }
        0
    }

    async fn set_options(&mut self, arguments: &[String]) -> i32 {
        if arguments.is_empty() {
            let all = self.shell.variables.iter();
            let listed: String = all.map(|(name, variable)| format!("{name}='{}'\n", variable.value)).collect();
            return self.print(&listed).await.unwrap_or(1);
        }
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let on = word.starts_with('-');
            let letters = match word.strip_prefix(['-', '+']) {
                Some("-") => {
                    self.shell.positional = words.cloned().collect();
                    return 0;
                }
                Some(letters) if !letters.is_empty() => letters,
                _ => {
                    self.shell.positional = std::iter::once(word).chain(words).cloned().collect();
                    return 0;
                }
            };
            for letter in letters.chars() {
                let option = if letter == 'o' { words.next().map_or("", String::as_str) } else { "" };
                let options = &mut self.shell.options;
                match (letter, option) {
                    ('e', _) | ('o', "errexit") => options.exit_on_error = on,
                    ('u', _) | ('o', "nounset") => options.unset_is_error = on,
                    ('x', _) | ('o', "xtrace") => options.trace = on,
                    ('f', _) | ('o', "noglob") => options.no_glob = on,
                    ('o', "pipefail") => options.pipe_fail = on,
                    ('a' | 'm' | 'b' | 'h' | 'v' | 'C', _) => {}
                    _ => {
                        self.shell.complain(format!("set: illegal option {word} {option}")).await;
                        return 2;
                    }
                }
            }
        }
        0
    }

    async fn shift(&mut self, count: i32) -> i32 {
        match usize::try_from(count) {
            Ok(count) if count <= self.shell.positional.len() => {
                self.shell.positional.drain(..count);
                0
            }
            _ => {
                self.shell.complain("shift: can't shift that many").await;
                1
            }
        }
    }

    async fn read(&mut self, arguments: &[String]) -> i32 {
        let mut raw = false;
        let mut names = Vec::new();
        let mut limit = None;
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "-r" => raw = true,
                "-p" => {
                    let prompt = words.next().cloned().unwrap_or_default();
                    let _shown = self.shell.stderr().write(prompt).await;
                }
                "-t" => limit = words.next().and_then(|seconds| seconds.parse::<f64>().ok()),
                "-s" => {}
                option if option.starts_with('-') => {
                    self.shell.complain(format!("read: illegal option {option}")).await;
                    return 2;
                }
                name => names.push(name.to_string()),
            }
        }
        let stdin = self.shell.stdin();
        let line = match limit.and_then(|seconds| std::time::Duration::try_from_secs_f64(seconds).ok()) {
            Some(limit) => match self.shell.world.clock.timeout(limit, stdin.line()).await {
                Ok(line) => line,
                Err(_) => return 142,
            },
            None => stdin.line().await,
        };
        let Some(line) = line.unwrap_or_default() else {
            let empty = names.iter().try_for_each(|name| self.shell.set(name, String::new()));
            return self.read_into(empty).await.unwrap_or(1);
        };
        let complete = line.ends_with(b"\n");
        let mut text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_string();
        if !raw {
            text = text.replace('\\', "");
        }
        if names.is_empty() {
            names.push("REPLY".to_string());
        }
        let separators = self.shell.get("IFS").unwrap_or(" \t\n").to_string();
        let mut values = names.iter().zip(split_for_read(&text, names.len(), &separators));
        let set = values.try_for_each(|(name, value)| self.shell.set(name, value));
        self.read_into(set).await.unwrap_or(i32::from(!complete))
    }

    /// The status of a `read` into variables that cannot be set.
    async fn read_into(&mut self, set: Result<(), String>) -> Option<i32> {
        let message = set.err()?;
        self.shell.complain(format!("read: {message}")).await;
        Some(2)
    }

    async fn source(&mut self, path: Option<&str>) -> Outcome {
        let Some(path) = path else {
            self.shell.complain(".: filename argument required").await;
            return Ok(2);
        };
        match self.shell.world.read_text(&self.shell.path(path)) {
            Ok(text) => match Box::pin(self.script(&text, false)).await {
                Err(Flow::Return(status)) => Ok(status),
                outcome => outcome,
            },
            Err(error) => {
                self.shell.complain(format!(".: can't open '{path}': {}", errno_text(&error))).await;
                Err(Flow::Exit(2))
            }
        }
    }

    async fn trap(&mut self, arguments: &[String]) -> i32 {
        let Some((command, names)) = arguments.split_first() else {
            let listed: String =
                self.shell.traps.iter().map(|(name, command)| format!("trap -- '{command}' {name}\n")).collect();
            return self.print(&listed).await.unwrap_or(1);
        };
        let (command, names) = if names.is_empty() { ("-", arguments) } else { (command.as_str(), names) };
        for name in names {
            let signal = Signal::parse(name);
            let key = match (name.as_str(), signal) {
                ("EXIT" | "0", _) => "EXIT",
                ("ERR" | "DEBUG", _) => name,
                (_, Some(signal)) => signal.name(),
                _ => {
                    self.shell.complain(format!("trap: {name}: invalid signal specification")).await;
                    return 1;
                }
            };
            let signals = self.own.as_ref().and_then(|own| own.signals.as_ref());
            match command {
                "-" => {
                    self.shell.traps.remove(key);
                    signal.zip(signals).into_iter().for_each(|(signal, signals)| signals.reset(signal));
                }
                command => {
                    self.shell.traps.insert(key.to_string(), command.to_string());
                    signal.zip(signals).into_iter().for_each(|(signal, signals)| signals.handle(signal));
                }
            }
        }
        0
    }

    /// Waits for background processes; a trapped signal ends the wait.
    async fn wait(&mut self, arguments: &[String]) -> Outcome {
        let world = self.shell.world.clone();
        let pids: Vec<u32> = match arguments {
            [] => {
                let own = self.shell.pid;
                world
                    .processes
                    .list()
                    .iter()
                    .filter(|process| process.parent == own)
                    .map(|process| process.pid)
                    .collect()
            }
            some => some.iter().filter_map(|pid| pid.parse().ok()).collect(),
        };
        let mut status = 0;
        for pid in pids {
            let interrupted = async {
                match self.own.as_mut().and_then(|own| own.signals.as_mut()) {
                    Some(signals) => signals.next().await,
                    None => std::future::pending().await,
                }
            };
            let signal = tokio::select! {
                biased;
                ended = world.processes.ended(pid) => {
                    status = ended;
                    continue;
                }
                signal = interrupted => signal,
            };
            if let Some(command) = self.shell.traps.get(signal.name()).cloned() {
                Box::pin(self.script(&command, false)).await?;
            }
            return Ok(signal.exit_code());
        }
        Ok(status)
    }

    /// `type NAME` and `command [-v] NAME`.
    async fn command_builtin(&mut self, kind: &str, arguments: &[String]) -> Option<Outcome> {
        let (verbose, words) = match arguments.first().map(String::as_str) {
            Some("-v" | "-V") => (true, &arguments[1..]),
            _ => (kind == "type", arguments),
        };
        let name = words.first()?.clone();
        if !verbose {
            if let Some(outcome) = Box::pin(self.builtin(&name, words)).await {
                return Some(outcome);
            }
            return Some(self.program(words.to_vec()).await);
        }
        let path = self.shell.get("PATH");
        let located = self.shell.world.locate(&name, path, &self.shell.cwd);
        let found = match located {
            _ if self.shell.functions.contains_key(&name) => Some((name.clone(), "is a function")),
            _ if APPLETS.contains(&name.as_str()) || is_special(&name) => Some((name.clone(), "is a shell builtin")),
            _ if ["cd", "read", "local", "type", "command", "wait", "umask"].contains(&name.as_str()) => {
                Some((name.clone(), "is a shell builtin"))
            }
            Ok(path) => Some((path, "is")),
            Err(_) => None,
        };
        let text = match (kind, found) {
            ("type", Some((path, "is"))) => format!("{name} is {path}\n"),
            ("type", Some((_, what))) => format!("{name} {what}\n"),
            ("type", None) => {
                self.shell.complain(format!("type: {name}: not found")).await;
                return Some(Ok(127));
            }
            (_, Some((path, _))) => format!("{path}\n"),
            (_, None) => return Some(Ok(127)),
        };
        Some(self.print(&text).await)
    }
}

/// Splits a line for `read`: the last name gets what is left.
fn split_for_read(text: &str, names: usize, separators: &str) -> Vec<String> {
    let is_separator = |character: char| separators.contains(character);
    let is_blank = |character: char| is_separator(character) && character.is_whitespace();
    let mut values = Vec::new();
    let mut rest = text.trim_matches(is_blank);
    while values.len() + 1 < names {
        match rest.find(is_separator) {
            Some(at) => {
                values.push(rest[..at].to_string());
                let separator = rest[at..].chars().next().map_or(1, char::len_utf8);
                rest = rest[at + separator..].trim_start_matches(is_blank);
            }
            None => {
                values.push(std::mem::take(&mut rest).to_string());
            }
        }
    }
    values.push(rest.to_string());
    values
}
