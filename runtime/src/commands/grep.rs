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
    let (files, mut failed) = files(&process, &options).await?;
    let named = (files.len() > 1 || options.has(&["H", "r", "R"])) && !options.has(&["h"]);
    let mut found = false;
    for file in files {
        let input = match file.as_str() {
            "-" => process.stdin.clone(),
            path => match process.open_input(path) {
                Ok(input) => input,
                Err(error) => {
                    failed = true;
                    process.complain(format!("{path}: {}", errno_text(&error))).await;
                    continue;
                }
            },
        };
        let name = if named { format!("{file}:") } else { String::new() };
        let (mut number, mut count) = (0, 0);
        while let Some(line) = input.line().await? {
            number += 1;
            process.charge(1).await;
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches('\n');
            let hit = expressions.iter().any(|expression| expression.is_match(text)) != options.has(&["v"]);
            if !hit {
                continue;
            }
            (found, count) = (true, count + 1);
            if options.has(&["q"]) {
                return Ok(0);
            }
            if options.has(&["l"]) {
                process.stdout.line(&file).await?;
                break;
            }
            if options.has(&["c"]) {
                continue;
            }
            let number = if options.has(&["n"]) { format!("{number}:") } else { String::new() };
            if options.has(&["o"]) {
                for part in expressions.iter().flat_map(|expression| expression.find_iter(text)) {
                    process.stdout.line(format!("{name}{number}{}", part.as_str())).await?;
                }
            } else {
                process.stdout.line(format!("{name}{number}{text}")).await?;
            }
            if options.value(&["m"]).and_then(|most| most.parse().ok()) == Some(count) {
                break;
            }
        }
        if options.has(&["c"]) {
            process.stdout.line(format!("{name}{count}")).await?;
        }
    }
    Ok(if failed { 2 } else { i32::from(!found) })
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
