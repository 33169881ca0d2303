//! `awk`: the language of POSIX without what runs other programs or opens files (`getline`, `system`, redirections).
//!
//! A program is split into words ([`lexer`]), read ([`parser`]) and run ([`interpreter`]) over records ([`records`]).

mod lexer;
mod parser;
mod value;
mod records;
mod interpreter;

use super::complain_usage;
use crate::process::{Process, errno_text};
use interpreter::{Interpreter, Stop};
use std::io;

/// Bytes of one text, a record among them.
const VALUE_LIMIT_BYTES: usize = 1 << 20;

/// What is wrong with a program, and in which line.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{line}: {message}")]
struct Fault {
    line: usize,
    message: String,
}

impl Fault {
    fn new(line: usize, message: impl Into<String>) -> Fault {
        Fault { line, message: message.into() }
    }

    fn unexpected(line: usize) -> Fault {
        Fault::new(line, "Unexpected token")
    }
}

/// The command line.
#[derive(Default)]
struct Invocation {
    separator: Option<String>,
    assignments: Vec<String>,
    files: Vec<String>,
    operands: Vec<String>,
}

impl Invocation {
    /// Options end where the first operand is: what looks like one behind the program is for the program.
    fn read(arguments: &[String]) -> Result<Invocation, String> {
        let mut found = Invocation::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut letters = argument.strip_prefix('-').unwrap_or_default().chars();
            match letters.next() {
                Some('-') if argument == "--" => break,
                Some(letter @ ('F' | 'v' | 'f')) => {
                    let attached = letters.as_str().to_string();
                    let value = if attached.is_empty() { arguments.next().cloned() } else { Some(attached) };
                    let value = value.ok_or_else(|| format!("option requires an argument -- '{letter}'"))?;
                    match letter {
                        'F' => found.separator = Some(value),
                        'v' => found.assignments.push(value),
                        _ => found.files.push(value),
                    }
                }
                Some(letter) => return Err(format!("invalid option -- '{letter}'")),
                None => {
                    found.operands.push(argument.clone());
                    break;
                }
            }
        }
        found.operands.extend(arguments.cloned());
        Ok(found)
    }
}

/// `name=value`, if it is that.
fn assignment(text: &str) -> Option<(&str, String)> {
    let (name, value) = text.split_once('=')?;
    let letter = |character: char| character.is_ascii_alphabetic() || character == '_';
    let named = name.starts_with(letter) && name.chars().all(|other| letter(other) || other.is_ascii_digit());
    named.then(|| (name, lexer::unescape(value)))
}

pub(super) async fn awk(process: Process) -> io::Result<i32> {
    let mut invocation = match Invocation::read(process.arguments()) {
        Ok(invocation) => invocation,
        Err(message) => return complain_usage(&process, message).await,
    };
    let mut source = "cmd. line".to_string();
    let mut text = String::new();
    for file in &invocation.files {
        match process.open_input(file) {
            Ok(input) => text += &(String::from_utf8_lossy(&input.rest().await?) + "\n"),
            Err(error) => {
                process.complain(format!("can't open '{file}': {}", errno_text(&error))).await;
                return Ok(1);
            }
        }
        source.clone_from(file);
    }
    if invocation.files.is_empty() {
        if invocation.operands.is_empty() {
            return complain_usage(&process, "usage: awk [-F SEP] [-v VAR=VAL] PROGRAM|-f FILE [FILE]...".to_string())
                .await;
        }
        text = invocation.operands.remove(0);
    }
    let program = match parser::parse(&text) {
        Ok(program) => program,
        Err(fault) => {
            process.complain(format!("{source}:{fault}")).await;
            return Ok(1);
        }
    };
    let mut interpreter = Interpreter::new(process, program, invocation.operands);
    if let Some(separator) = &invocation.separator {
        // `-Ft` is a tab, as POSIX has it.
        let separator = if separator == "t" { "\t".to_string() } else { lexer::unescape(separator) };
        interpreter.preset("FS", separator);
    }
    for given in &invocation.assignments {
        match assignment(given) {
            Some((name, value)) => interpreter.preset(name, value),
            None => return complain_usage(&interpreter.process, format!("{given}: not an assignment")).await,
        }
    }
    match interpreter.run().await {
        Ok(code) => Ok(code),
        Err(Stop::Output(error)) => Err(error),
        Err(Stop::Fault(message)) => {
            let fault = Fault::new(interpreter.line(), message);
            interpreter.process.complain(format!("{source}:{fault}")).await;
            Ok(1)
        }
        Err(Stop::Unreadable(message)) => {
            interpreter.process.complain(message).await;
            Ok(1)
        }
        Err(Stop::Next | Stop::Exit) => Ok(0),
    }
}
