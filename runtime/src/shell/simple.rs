//! Simple commands: assignments, redirections, and then a function, a builtin or a program.

use super::{Flow, NESTING_LIMIT, Outcome, Running, Variable, builtins};
use crate::process::{self, CANNOT_EXECUTE, CANNOT_FORK, ExecError, NOT_FOUND, Process, Signal};
use brush_parser::ast::{
    AndOrList, Assignment, AssignmentName, AssignmentValue, Command, CommandPrefixOrSuffixItem, CompoundList,
    CompoundListItem, IoRedirect, Pipeline, SeparatorOperator, SimpleCommand, Word,
};

/// The one simple command that a list consists of, if it does.
pub(super) fn sole_command(list: &CompoundList) -> Option<&SimpleCommand> {
    let [CompoundListItem(AndOrList { first, additional }, SeparatorOperator::Sequence)] = list.0.as_slice() else {
        return None;
    };
    match first {
        Pipeline { timed: None, bang: false, seq } if additional.is_empty() => match seq.as_slice() {
            [Command::Simple(command)] => Some(command),
            _ => None,
        },
        _ => None,
    }
}

/// The parts of a simple command.
#[derive(Default)]
struct Parts<'a> {
    assignments: Vec<&'a Assignment>,
    words: Vec<&'a Word>,
    redirects: Vec<&'a IoRedirect>,
}

impl<'a> Parts<'a> {
    fn of(command: &'a SimpleCommand) -> Result<Parts<'a>, String> {
        let mut parts = Parts::default();
        let prefix = command.prefix.iter().flat_map(|prefix| &prefix.0).map(|item| (item, true));
        let suffix = command.suffix.iter().flat_map(|suffix| &suffix.0).map(|item| (item, false));
        let mut name = command.word_or_name.as_ref();
        for (item, before) in prefix.chain(suffix) {
            if !before {
                parts.words.extend(name.take());
            }
            match item {
                CommandPrefixOrSuffixItem::IoRedirect(redirect) => parts.redirects.push(redirect),
                CommandPrefixOrSuffixItem::Word(word) => parts.words.push(word),
                CommandPrefixOrSuffixItem::AssignmentWord(assignment, _) if before => {
                    parts.assignments.push(assignment)
                }
                CommandPrefixOrSuffixItem::AssignmentWord(_, word) => parts.words.push(word),
                CommandPrefixOrSuffixItem::ProcessSubstitution(..) => {
                    return Err("process substitution is not supported by the simulated shell".to_string());
                }
            }
        }
        parts.words.extend(name);
        Ok(parts)
    }
}

impl Running<'_> {
    /// Runs a simple command.
    pub(super) async fn simple(&mut self, command: &SimpleCommand) -> Outcome {
        self.simple_or_exec(command, false).await
    }

    /// Runs a simple command in place of the shell, if it is a program.
    pub(super) async fn exec_command(&mut self, command: &SimpleCommand) -> Outcome {
        let in_place = self.shell.traps.is_empty() && !self.shell.interactive;
        let status = self.simple_or_exec(command, in_place).await?;
        self.shell.status = status;
        Ok(status)
    }

    async fn simple_or_exec(&mut self, command: &SimpleCommand, in_place: bool) -> Outcome {
        let parts = match Parts::of(command) {
            Ok(parts) => parts,
            Err(message) => return self.raise(message).await,
        };
        self.shell.substituted = None;
        let words = self.fields_or_complain(parts.words.iter().copied()).await?;
        let before = self.shell.descriptors.clone();
        if let Err(message) = self.redirect(parts.redirects.iter().copied()).await {
            self.shell.descriptors = before.clone();
            self.shell.complain(message).await;
            return Ok(1);
        }
        if self.shell.options.trace && !words.is_empty() {
            // A trace that nobody reads changes nothing.
            let _shown = self.shell.stderr().line(format!("+ {}", words.join(" "))).await;
        }
        let Some(name) = words.first().cloned() else {
            // Without a command, the last substitution decides about the status.
            let assigned = self.assign_all(&parts.assignments, false).await;
            self.shell.descriptors = before;
            return assigned.map(|_| self.shell.substituted.unwrap_or(0));
        };
        // `exec` without a command keeps its redirections.
        if name == "exec" && words.len() == 1 {
            return Ok(0);
        }
        let hidden = self.assign_all(&parts.assignments, true).await?;
        let outcome = self.dispatch(&name, words, in_place).await;
        if !builtins::is_special(&name) {
            for (name, variable) in hidden.into_iter().rev() {
                match variable {
                    Some(variable) => drop(self.shell.variables.insert(name, variable)),
                    None => drop(self.shell.variables.remove(&name)),
                }
            }
        }
        self.shell.descriptors = before;
        outcome
    }

    /// Makes assignments, exported for a command; returns what the variables were.
    async fn assign_all(
        &mut self,
        assignments: &[&Assignment],
        for_command: bool,
    ) -> Result<Vec<(String, Option<Variable>)>, Flow> {
        let mut hidden = Vec::new();
        for assignment in assignments {
            let (AssignmentName::VariableName(name), AssignmentValue::Scalar(word)) =
                (&assignment.name, &assignment.value)
            else {
                self.shell.complain("arrays are not supported by the simulated shell").await;
                return Err(Flow::Exit(2));
            };
            let value = match self.text(&word.value).await {
                Ok(value) => value,
                Err(message) => return Err(self.raise(message).await.err().unwrap_or(Flow::Exit(2))),
            };
            hidden.push((name.clone(), self.shell.variables.get(name).cloned()));
            let start = if assignment.append { self.shell.get(name).unwrap_or_default() } else { "" };
            if let Err(message) = self.shell.set(name, format!("{start}{value}")) {
                self.shell.complain(message).await;
                return Err(Flow::Exit(2));
            }
            if for_command && let Some(variable) = self.shell.variables.get_mut(name) {
                variable.exported = true;
            }
        }
        self.account_memory();
        Ok(hidden)
    }

    /// Counts what variables hold as memory of the process.
    fn account_memory(&mut self) {
        if let Some(own) = self.own.as_mut() {
            let bytes: usize = self.shell.variables.values().map(|variable| variable.value.len()).sum();
            own.memory.resize(bytes as u64);
        }
    }

    async fn dispatch(&mut self, name: &str, words: Vec<String>, in_place: bool) -> Outcome {
        if let Some(body) = self.shell.functions.get(name).cloned() {
            return self.call(&body, words).await;
        }
        if let Some(outcome) = self.builtin(name, &words).await {
            return outcome;
        }
        if in_place { self.exec(words).await } else { self.program(words).await }
    }

    /// Calls a function.
    async fn call(&mut self, body: &brush_parser::ast::FunctionBody, words: Vec<String>) -> Outcome {
        if self.shell.nesting >= NESTING_LIMIT {
            self.shell
                .complain(format!("{}: maximum function nesting level exceeded ({NESTING_LIMIT})", words[0]))
                .await;
            return Err(Flow::Exit(2));
        }
        let arguments = words.into_iter().skip(1).collect();
        let positional = std::mem::replace(&mut self.shell.positional, arguments);
        self.shell.nesting += 1;
        self.shell.locals.push(Vec::new());
        let outcome = Box::pin(self.redirected(&body.0, body.1.as_ref())).await;
        for (name, variable) in self.shell.locals.pop().unwrap_or_default().into_iter().rev() {
            match variable {
                Some(variable) => drop(self.shell.variables.insert(name, variable)),
                None => drop(self.shell.variables.remove(&name)),
            }
        }
        self.shell.nesting -= 1;
        self.shell.positional = positional;
        match outcome {
            Err(Flow::Return(status)) => Ok(status),
            outcome => outcome,
        }
    }

    /// Says why a command cannot be executed; returns the exit code for it.
    async fn cannot_execute(&self, command: &str, error: &ExecError) -> i32 {
        let shell = &self.shell;
        let (words, code) = match error {
            ExecError::NotInPath(_) if shell.bash => ("command not found", NOT_FOUND),
            ExecError::NotInPath(_) => ("not found", NOT_FOUND),
            ExecError::NotFound(_) | ExecError::Empty if shell.bash => ("No such file or directory", NOT_FOUND),
            ExecError::NotFound(_) | ExecError::Empty => ("not found", NOT_FOUND),
            ExecError::IsADirectory(_) if shell.bash => ("Is a directory", CANNOT_EXECUTE),
            ExecError::IsADirectory(_) | ExecError::PermissionDenied(_) => ("Permission denied", CANNOT_EXECUTE),
            ExecError::Format(_) => ("Exec format error", CANNOT_EXECUTE),
        };
        let place = match (shell.bash, shell.world.profile.gnu) {
            (true, _) => "line 1: ",
            (false, true) => "1: ",
            (false, false) => "",
        };
        shell.complain(format!("{place}{command}: {words}")).await;
        code
    }

    /// Runs a program as a child.
    pub(super) async fn program(&mut self, words: Vec<String>) -> Outcome {
        let world = self.shell.world.clone();
        let path = self.shell.get("PATH").map(str::to_string);
        match world.load(&words, path.as_deref(), &self.shell.cwd) {
            Ok((program, args)) => {
                let spawn = self.shell.spawn(args);
                let registered = world.processes.register(spawn.parent, spawn.args.join(" "), world.clock.now());
                let Some(registration) = registered else { return self.raise(CANNOT_FORK.to_string()).await };
                let status = process::run_registered(&world, program, spawn, registration).await;
                match status == Signal::Int.exit_code() && self.shell.interactive {
                    true => Err(Flow::Interrupt),
                    false => Ok(status),
                }
            }
            Err(error) => Ok(self.cannot_execute(&words[0], &error).await),
        }
    }

    /// Runs a program in place of the shell.
    pub(super) async fn exec(&mut self, words: Vec<String>) -> Outcome {
        let world = self.shell.world.clone();
        let path = self.shell.get("PATH").map(str::to_string);
        let (program, args) = match world.load(&words, path.as_deref(), &self.shell.cwd) {
            Ok(loaded) => loaded,
            Err(error) => return Err(Flow::Exit(self.cannot_execute(&words[0], &error).await)),
        };
        let Some((own, signals)) = self.own.as_mut().and_then(|own| own.signals.take().map(|signals| (own, signals)))
        else {
            // A subshell has no process of its own to give up.
            return Err(Flow::Exit(process::run(&world, program, self.shell.spawn(args)).await));
        };
        Signal::all().for_each(|signal| signals.reset(signal));
        signals.rename(args.join(" "));
        self.shell.traps.clear();
        own.replacement = Some((program, Process::replace(world, signals, self.shell.spawn(args))));
        Err(Flow::Replace)
    }
}
