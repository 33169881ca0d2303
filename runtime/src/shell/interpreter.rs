//! Lists, pipelines and compound commands.

use super::depth::deep;
use super::{End, Flow, NESTING_LIMIT, Outcome, Own, Running, Shell};
use crate::commands::{Surroundings, evaluate_test};
use crate::pattern;
use crate::process::{self, CANNOT_FORK, Output, Process, Program, Signal};
use async_trait::async_trait;
use brush_parser::ast::{
    self, AndOr, AndOrList, CaseItemPostAction, Command, CompoundCommand, CompoundList, ExtendedTestExpr, Pipeline,
    SeparatorOperator, UnaryPredicate,
};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::sync::Arc;

/// A list that runs in the background, as a process of its own.
struct Background(Mutex<Option<(Shell, AndOrList)>>);

#[async_trait]
impl Program for Background {
    async fn run(&self, process: Process) -> i32 {
        let Some((mut shell, list)) = self.0.lock().take() else { return 0 };
        shell.pid = process.pid();
        let mut own = Own::new(process.signals, &process.world);
        let mut running = Running { shell: &mut shell, own: Some(&mut own) };
        let outcome = running.and_or(&list).await;
        let end = running.end(outcome).await;
        drop((shell, own));
        match end {
            End::Exit(code) => code,
            End::Replace(program, process) => program.run(process).await,
        }
    }
}

impl Running<'_> {
    /// Runs a list; returns the status of the last command.
    pub(super) fn list<'a>(&'a mut self, list: &'a CompoundList) -> BoxFuture<'a, Outcome> {
        deep(async move {
            let mut status = 0;
            for ast::CompoundListItem(and_or, separator) in &list.0 {
                status = match separator {
                    SeparatorOperator::Async => self.background(and_or).await?,
                    SeparatorOperator::Sequence => self.and_or(and_or).await?,
                };
                self.shell.status = status;
                self.run_traps().await?;
            }
            Ok(status)
        })
    }

    /// Starts a list as a process, without waiting for it.
    async fn background(&mut self, list: &AndOrList) -> Outcome {
        let mut shell = self.shell.clone();
        shell.interactive = false;
        shell.traps.clear();
        shell.descriptors.insert(0, super::Descriptor::In(process::Input::empty()));
        let world = self.shell.world.clone();
        let Some(registration) = world.processes.register(self.shell.pid, list.to_string(), world.clock.now()) else {
            return self.raise(CANNOT_FORK.to_string()).await;
        };
        self.shell.last_background = Some(registration.pid());
        if self.shell.interactive {
            // The terminal may be gone; the job runs all the same.
            let _told = self.shell.stderr().line(format!("[1] {}", registration.pid())).await;
        }
        let spawn = shell.spawn(vec![self.shell.name.clone()]);
        let program = Arc::new(Background(Mutex::new(Some((shell, list.clone())))));
        tokio::spawn(async move { process::run_registered(&world, program, spawn, registration).await });
        Ok(0)
    }

    /// Runs the traps of signals that have come; Ctrl-C at a prompt leaves what runs.
    async fn run_traps(&mut self) -> Outcome {
        while let Some(signal) = self.own.as_mut().and_then(|own| own.pending()) {
            let command = self.shell.traps.get(signal.name()).cloned();
            match command {
                Some(command) => {
                    let status = self.shell.status;
                    self.script(&command, false).await?;
                    self.shell.status = status;
                }
                None if signal == Signal::Int && self.shell.interactive => return Err(Flow::Interrupt),
                None => {}
            }
        }
        Ok(self.shell.status)
    }

    pub(super) fn and_or<'a>(&'a mut self, list: &'a AndOrList) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            // All but the last pipeline decide about the next one, so that their failure is no error (`set -e`).
            let last = list.additional.len();
            let mut status = self.tested_pipeline(&list.first, last > 0).await?;
            for (index, next) in list.additional.iter().enumerate() {
                let (wanted, pipeline) = match next {
                    AndOr::And(pipeline) => (status == 0, pipeline),
                    AndOr::Or(pipeline) => (status != 0, pipeline),
                };
                if wanted {
                    status = self.tested_pipeline(pipeline, index + 1 < last).await?;
                }
            }
            Ok(status)
        })
    }

    async fn tested_pipeline(&mut self, pipeline: &Pipeline, tested: bool) -> Outcome {
        self.shell.tested += usize::from(tested || pipeline.bang);
        let outcome = self.pipeline(pipeline).await;
        self.shell.tested -= usize::from(tested || pipeline.bang);
        let status = outcome?;
        let status = if pipeline.bang { i32::from(status == 0) } else { status };
        self.shell.status = status;
        if status != 0 && self.shell.options.exit_on_error && self.shell.tested == 0 && !tested && !pipeline.bang {
            return Err(Flow::Exit(status));
        }
        Ok(status)
    }

    async fn pipeline(&mut self, pipeline: &Pipeline) -> Outcome {
        let started = self.shell.world.clock.monotonic();
        let outcome = match pipeline.seq.as_slice() {
            [command] => self.command(command).await,
            commands => self.pipe(commands).await,
        };
        if pipeline.timed.is_some() {
            let elapsed = self.shell.world.clock.monotonic().saturating_sub(started).as_secs_f64();
            let (minutes, seconds) = ((elapsed / 60.0) as u64, elapsed % 60.0);
            let _told = self
                .shell
                .stderr()
                .write(format!("real\t{minutes}m {seconds:.2}s\nuser\t0m 0.00s\nsys\t0m 0.00s\n"))
                .await;
        }
        outcome
    }

    /// Runs commands side by side, each in a subshell, the output of one the input of the next.
    async fn pipe(&mut self, commands: &[Command]) -> Outcome {
        let mut stages = Vec::new();
        let mut input = None;
        for (index, command) in commands.iter().enumerate() {
            let mut shell = self.shell.clone();
            shell.interactive = false;
            if let Some(input) = input.take() {
                shell.descriptors.insert(0, super::Descriptor::In(input));
            }
            if index + 1 < commands.len() {
                let (output, next) = Output::pipe();
                shell.descriptors.insert(1, super::Descriptor::Out(output));
                input = Some(next);
            }
            stages.push(async move {
                // The clone is dropped with this future, and its end of the pipe with it.
                let mut shell = shell;
                subshell(&mut shell, command).await
            });
        }
        let statuses = futures::future::join_all(stages).await;
        let failed = statuses.iter().rev().find(|status| **status != 0).copied();
        match self.shell.options.pipe_fail {
            true => Ok(failed.unwrap_or(0)),
            false => Ok(statuses.last().copied().unwrap_or(0)),
        }
    }

    /// Runs one command of any kind.
    pub(super) fn command<'a>(&'a mut self, command: &'a Command) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            self.shell.tick().await;
            match command {
                Command::Simple(simple) => self.simple(simple).await,
                Command::Compound(compound, redirects) => self.redirected(compound, redirects.as_ref()).await,
                Command::Function(function) => {
                    let name = function.fname.value.clone();
                    self.shell.functions.insert(name, Arc::new(function.body.clone()));
                    Ok(0)
                }
                Command::ExtendedTest(test, _) => match self.extended_test(&test.expr).await {
                    Ok(holds) => Ok(i32::from(!holds)),
                    Err(message) => {
                        self.shell.complain(message).await;
                        Ok(2)
                    }
                },
            }
        })
    }

    /// Runs a compound command with its redirections, which end with it.
    pub(super) async fn redirected(
        &mut self,
        compound: &CompoundCommand,
        redirects: Option<&ast::RedirectList>,
    ) -> Outcome {
        let Some(redirects) = redirects else { return self.compound(compound).await };
        let before = self.shell.descriptors.clone();
        let outcome = match self.redirect(redirects.0.iter()).await {
            Ok(()) => self.compound(compound).await,
            Err(message) => {
                self.shell.complain(message).await;
                Ok(1)
            }
        };
        self.shell.descriptors = before;
        outcome
    }

    fn compound<'a>(&'a mut self, compound: &'a CompoundCommand) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            match compound {
                CompoundCommand::BraceGroup(group) => self.list(&group.list).await,
                CompoundCommand::Subshell(inner) => {
                    let mut shell = self.shell.clone();
                    shell.interactive = false;
                    shell.nesting += 1;
                    if shell.nesting > NESTING_LIMIT {
                        self.shell.complain(format!("maximum nesting level exceeded ({NESTING_LIMIT})")).await;
                        return Ok(2);
                    }
                    Ok(list_in_subshell(&mut shell, &inner.list).await)
                }
                CompoundCommand::IfClause(clause) => self.if_clause(clause).await,
                CompoundCommand::WhileClause(clause) => self.while_clause(clause, true).await,
                CompoundCommand::UntilClause(clause) => self.while_clause(clause, false).await,
                CompoundCommand::ForClause(clause) => self.for_clause(clause).await,
                CompoundCommand::CaseClause(clause) => self.case_clause(clause).await,
                CompoundCommand::Arithmetic(arithmetic) => {
                    let value = self.arithmetic_or_complain(&arithmetic.expr.value).await?;
                    Ok(i32::from(value == 0))
                }
                CompoundCommand::ArithmeticForClause(clause) => self.arithmetic_for(clause).await,
                CompoundCommand::Coprocess(_) => {
                    self.shell.complain("coproc: not supported by the simulated shell").await;
                    Ok(2)
                }
            }
        })
    }

    /// Runs a list whose status decides something.
    async fn condition(&mut self, list: &CompoundList) -> Result<bool, Flow> {
        self.shell.tested += 1;
        let outcome = self.list(list).await;
        self.shell.tested -= 1;
        Ok(outcome? == 0)
    }

    async fn if_clause(&mut self, clause: &ast::IfClauseCommand) -> Outcome {
        if self.condition(&clause.condition).await? {
            return self.list(&clause.then).await;
        }
        for other in clause.elses.iter().flatten() {
            let wanted = match &other.condition {
                Some(condition) => self.condition(condition).await?,
                None => true,
            };
            if wanted {
                return self.list(&other.body).await;
            }
        }
        Ok(0)
    }

    async fn while_clause(&mut self, clause: &ast::WhileOrUntilClauseCommand, wanted: bool) -> Outcome {
        let ast::WhileOrUntilClauseCommand(condition, body, _) = clause;
        let mut status = 0;
        loop {
            let holds = match self.condition(condition).await {
                Ok(holds) => holds,
                Err(flow) => match leave_loop(flow)? {
                    true => return Ok(status),
                    false => continue,
                },
            };
            if holds != wanted {
                return Ok(status);
            }
            match self.list(&body.list).await {
                Ok(last) => status = last,
                Err(flow) => {
                    if leave_loop(flow)? {
                        return Ok(0);
                    }
                }
            }
            self.shell.tick().await;
        }
    }

    async fn for_clause(&mut self, clause: &ast::ForClauseCommand) -> Outcome {
        let values = match &clause.values {
            Some(words) => self.fields_or_complain(words.iter()).await?,
            None => self.shell.positional.clone(),
        };
        let mut status = 0;
        for value in values {
            if let Err(message) = self.shell.set(&clause.variable_name, value) {
                self.shell.complain(message).await;
                return Ok(2);
            }
            match self.list(&clause.body.list).await {
                Ok(last) => status = last,
                Err(flow) => {
                    if leave_loop(flow)? {
                        return Ok(0);
                    }
                }
            }
            self.shell.tick().await;
        }
        Ok(status)
    }

    async fn arithmetic_for(&mut self, clause: &ast::ArithmeticForClauseCommand) -> Outcome {
        if let Some(first) = &clause.initializer {
            self.arithmetic_or_complain(&first.value).await?;
        }
        let mut status = 0;
        loop {
            if let Some(condition) = &clause.condition
                && self.arithmetic_or_complain(&condition.value).await? == 0
            {
                return Ok(status);
            }
            match self.list(&clause.body.list).await {
                Ok(last) => status = last,
                Err(flow) => {
                    if leave_loop(flow)? {
                        return Ok(0);
                    }
                }
            }
            if let Some(step) = &clause.updater {
                self.arithmetic_or_complain(&step.value).await?;
            }
            self.shell.tick().await;
        }
    }

    async fn arithmetic_or_complain(&mut self, text: &str) -> Result<i64, Flow> {
        match self.arithmetic(text).await {
            Ok(value) => Ok(value),
            Err(message) => {
                self.shell.complain(message).await;
                Err(Flow::Exit(2))
            }
        }
    }

    async fn case_clause(&mut self, clause: &ast::CaseClauseCommand) -> Outcome {
        let value = match self.text(&clause.value.value).await {
            Ok(value) => value,
            Err(message) => return self.raise(message).await,
        };
        let mut status = 0;
        let mut fall_through = false;
        for item in &clause.cases {
            let mut chosen = fall_through;
            for wanted in &item.patterns {
                if chosen {
                    break;
                }
                match self.pattern(&wanted.value).await {
                    Ok(wanted) => chosen = pattern::matches(&wanted, &value),
                    Err(message) => return self.raise(message).await,
                }
            }
            if !chosen {
                continue;
            }
            if let Some(list) = &item.cmd {
                status = self.list(list).await?;
            }
            match item.post_action {
                CaseItemPostAction::ExitCase => return Ok(status),
                CaseItemPostAction::UnconditionallyExecuteNextCaseItem => fall_through = true,
                CaseItemPostAction::ContinueEvaluatingCases => fall_through = false,
            }
        }
        Ok(status)
    }

    /// `[[ … ]]`.
    fn extended_test<'a>(&'a mut self, test: &'a ExtendedTestExpr) -> BoxFuture<'a, Result<bool, String>> {
        Box::pin(async move {
            match test {
                ExtendedTestExpr::And(left, right) => {
                    Ok(self.extended_test(left).await? && self.extended_test(right).await?)
                }
                ExtendedTestExpr::Or(left, right) => {
                    Ok(self.extended_test(left).await? || self.extended_test(right).await?)
                }
                ExtendedTestExpr::Not(inner) => Ok(!self.extended_test(inner).await?),
                ExtendedTestExpr::Parenthesized(inner) => self.extended_test(inner).await,
                ExtendedTestExpr::UnaryTest(UnaryPredicate::ShellVariableIsSetAndAssigned, word) => {
                    let name = self.text(&word.value).await?;
                    Ok(self.shell.get(&name).is_some())
                }
                ExtendedTestExpr::UnaryTest(predicate, word) => {
                    let operand = self.text(&word.value).await?;
                    self.plain_test(&[&predicate.to_string(), &operand])
                }
                ExtendedTestExpr::BinaryTest(predicate, left, right) => self.binary_test(predicate, left, right).await,
            }
        })
    }

    async fn binary_test(
        &mut self,
        predicate: &ast::BinaryPredicate,
        left: &ast::Word,
        right: &ast::Word,
    ) -> Result<bool, String> {
        use ast::BinaryPredicate as Predicate;
        let subject = self.text(&left.value).await?;
        match predicate {
            Predicate::StringExactlyMatchesPattern | Predicate::StringExactlyMatchesString => {
                Ok(pattern::matches(&self.pattern(&right.value).await?, &subject))
            }
            Predicate::StringDoesNotExactlyMatchPattern | Predicate::StringDoesNotExactlyMatchString => {
                Ok(!pattern::matches(&self.pattern(&right.value).await?, &subject))
            }
            Predicate::StringContainsSubstring => Ok(subject.contains(&self.text(&right.value).await?)),
            Predicate::StringMatchesRegex => {
                let wanted = self.text(&right.value).await?;
                let expression = regex::Regex::new(&wanted).map_err(|_| format!("{wanted}: bad regular expression"))?;
                Ok(expression.is_match(&subject))
            }
            other => {
                let object = self.text(&right.value).await?;
                self.plain_test(&[&subject, &other.to_string(), &object])
            }
        }
    }

    fn plain_test(&self, words: &[&str]) -> Result<bool, String> {
        let shell = &self.shell;
        let terminals = [shell.stdin().is_terminal(), shell.stdout().is_terminal(), shell.stderr().is_terminal()];
        evaluate_test(&Surroundings { world: &shell.world, cwd: &shell.cwd, terminals }, words)
    }
}

/// Whether this loop is left (`true`) or goes on; a loop further out is meant otherwise.
fn leave_loop(flow: Flow) -> Result<bool, Flow> {
    match flow {
        Flow::Break(0 | 1) => Ok(true),
        Flow::Continue(0 | 1) => Ok(false),
        Flow::Break(levels) => Err(Flow::Break(levels - 1)),
        Flow::Continue(levels) => Err(Flow::Continue(levels - 1)),
        other => Err(other),
    }
}

/// What a subshell ends with.
fn subshell_status(outcome: Outcome) -> i32 {
    match outcome {
        Ok(status) | Err(Flow::Exit(status) | Flow::Return(status)) => status,
        Err(Flow::Interrupt) => Signal::Int.exit_code(),
        Err(Flow::Break(_) | Flow::Continue(_) | Flow::Replace) => 0,
    }
}

/// Runs a command in a subshell that is its own.
async fn subshell(shell: &mut Shell, command: &Command) -> i32 {
    let exits = shell.traps.clone();
    shell.traps.clear();
    let mut running = Running { shell, own: None };
    let status = subshell_status(running.command(command).await);
    let status = running.at_exit(status).await;
    shell.traps = exits;
    status
}

/// Runs a list in a subshell.
pub(super) async fn list_in_subshell(shell: &mut Shell, list: &CompoundList) -> i32 {
    shell.traps.clear();
    let mut running = Running { shell, own: None };
    let status = subshell_status(running.list(list).await);
    running.at_exit(status).await
}
