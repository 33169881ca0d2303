//! `grep`.

use super::{Options, complain_usage};
use crate::process::{Process, errno_text};
use minik8s_cri::FileKind;
use regex::{Regex, RegexBuilder};
use std::io;

/// A basic regular expression (POSIX) as an extended one: the special meaning of `+?|(){}` is behind a backslash there.
pub(super) fn extended(basic: &str) -> String {
    let mut out = String::with_capacity(basic.len());
    let mut characters = basic.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some(special @ ('+' | '?' | '|' | '(' | ')' | '{' | '}')) => out.push(special),
                Some(other) => out.extend(['\\', other]),
                None => out.push_str("\\\\"),
            },
            special @ ('+' | '?' | '|' | '(' | ')' | '{' | '}') => out.extend(['\\', special]),
            other => out.push(other),
        }
    }
    out
}

fn compile(options: &Options, pattern: &str) -> Result<Regex, regex::Error> {
    let mut text = match (options.has(&["F"]), options.has(&["E", "P"])) {
        (true, _) => regex::escape(pattern),
        (_, true) => pattern.to_string(),
        _ => extended(pattern),
    };
    if options.has(&["w"]) {
        text = format!(r"\b(?:{text})\b");
    }
    if options.has(&["x"]) {
        text = format!("^(?:{text})$");
    }
    RegexBuilder::new(&text).case_insensitive(options.has(&["i"])).build()
}

pub(super) async fn grep(mut process: Process) -> io::Result<i32> {
    let flags =
        ["E", "F", "P", "i", "v", "c", "n", "q", "o", "l", "r", "R", "s", "h", "H", "w", "x", "color", "line-buffered"];
    let mut options = match Options::parse(process.arguments(), &flags, &["e", "A", "B", "C", "m"]) {
        Ok(options) => options,
        Err(message) => return complain_usage(&process, message).await,
    };
    let mut patterns: Vec<String> = options.all(&["e"]).map(str::to_string).collect();
    if patterns.is_empty() {
        if options.operands.is_empty() {
            return complain_usage(&process, "usage: grep [-EFivcnqolrhw] PATTERN [FILE]...".to_string()).await;
        }
        patterns.push(options.operands.remove(0));
    }
    let compiled: Result<Vec<Regex>, _> =
        patterns.iter().flat_map(|pattern| pattern.split('\n')).map(|pattern| compile(&options, pattern)).collect();
    let expressions = match compiled {
        Ok(expressions) => expressions,
        Err(_) => {
            process.complain(format!("bad regex '{}'", patterns.join("\n"))).await;
            return Ok(2);
        }
    };
    let (files, failed) = files(&process, &options).await?;
    let named = (files.len() > 1 || options.has(&["H", "r", "R"])) && !options.has(&["h"]);
    let mut search = Search { options, expressions, found: false, failed };
    for file in files {
        search.file(&mut process, &file, named).await?;
        if search.found && search.options.has(&["q"]) {
            return Ok(0);
        }
    }
    Ok(if search.failed { 2 } else { i32::from(!search.found) })
}

/// What is searched for, and what came of it.
struct Search {
    options: Options,
    expressions: Vec<Regex>,
    found: bool,
    failed: bool,
}

impl Search {
    async fn file(&mut self, process: &mut Process, file: &str, named: bool) -> io::Result<()> {
        let opened = if file == "-" { Ok(process.stdin.clone()) } else { process.open_input(file) };
        let input = match opened {
            Ok(input) => input,
            Err(error) => {
                self.failed = true;
                process.complain(format!("{file}: {}", errno_text(&error))).await;
                return Ok(());
            }
        };
        let name = if named { format!("{file}:") } else { String::new() };
        let most: Option<u64> = self.options.value(&["m"]).and_then(|most| most.parse().ok());
        let (mut number, mut count) = (0, 0);
        while let Some(line) = input.line().await? {
            number += 1;
            process.charge(1).await;
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches('\n');
            let hit = self.expressions.iter().any(|expression| expression.is_match(text));
            if hit == self.options.has(&["v"]) {
                continue;
            }
            (self.found, count) = (true, count + 1);
            if self.options.has(&["q"]) {
                return Ok(());
            }
            if self.options.has(&["l"]) {
                return process.stdout.line(file).await;
            }
            if !self.options.has(&["c"]) {
                let number = if self.options.has(&["n"]) { format!("{number}:") } else { String::new() };
                self.print(process, &format!("{name}{number}"), text).await?;
            }
            if most == Some(count) {
                break;
            }
        }
        match self.options.has(&["c"]) {
            true => process.stdout.line(format!("{name}{count}")).await,
            false => Ok(()),
        }
    }

    async fn print(&self, process: &Process, prefix: &str, text: &str) -> io::Result<()> {
        if !self.options.has(&["o"]) {
            return process.stdout.line(format!("{prefix}{text}")).await;
        }
        for part in self.expressions.iter().flat_map(|expression| expression.find_iter(text)) {
            process.stdout.line(format!("{prefix}{}", part.as_str())).await?;
        }
        Ok(())
    }
}

/// The files to search; with `-r` all below the directories given.
async fn files(process: &Process, options: &Options) -> io::Result<(Vec<String>, bool)> {
    let recursive = options.has(&["r", "R"]);
    if options.operands.is_empty() {
        return Ok((vec![if recursive { "." } else { "-" }.to_string()], false));
    }
    let (mut files, mut failed) = (Vec::new(), false);
    let mut pending: Vec<String> = options.operands.iter().rev().cloned().collect();
    while let Some(file) = pending.pop() {
        let kind = process.world.fs.metadata(&process.path(&file)).map(|found| found.kind);
        match kind {
            Ok(FileKind::Directory) if recursive => {
                let entries = process.world.fs.list(&process.path(&file))?;
                pending.extend(entries.iter().rev().map(|entry| format!("{file}/{}", entry.name)));
            }
            Ok(FileKind::Directory) => {
                failed = true;
                process.complain(format!("{file}: Is a directory")).await;
            }
            _ => files.push(file),
        }
    }
    Ok((files, failed))
}
