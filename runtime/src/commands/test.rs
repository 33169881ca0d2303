//! `test`, `[`, and `[[` as busybox has it: a third name.

use crate::process::{Process, World};
use minik8s_cri::FileKind;
use std::io;

/// What an expression may ask about besides its words.
pub(crate) struct Surroundings<'a> {
    /// The container.
    pub world: &'a World,
    /// Where relative paths count from.
    pub cwd: &'a str,
    /// Whether stdin, stdout and stderr are terminals.
    pub terminals: [bool; 3],
}

impl Surroundings<'_> {
    fn path(&self, path: &str) -> String {
        if path.starts_with('/') { path.to_string() } else { format!("{}/{path}", self.cwd) }
    }
}

pub(super) async fn test(process: Process) -> io::Result<i32> {
    let mut words = process.arguments();
    let closing = match process.name() {
        "[" => Some("]"),
        "[[" => Some("]]"),
        _ => None,
    };
    if let Some(closing) = closing {
        match words.split_last() {
            Some((last, rest)) if last == closing => words = rest,
            _ => {
                process.complain(format!("missing {closing}")).await;
                return Ok(2);
            }
        }
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let terminals = [process.stdin.is_terminal(), process.stdout.is_terminal(), process.stderr.is_terminal()];
    match evaluate(&Surroundings { world: &process.world, cwd: &process.cwd, terminals }, &words) {
        Ok(holds) => Ok(i32::from(!holds)),
        Err(message) => {
            process.complain(message).await;
            Ok(2)
        }
    }
}

/// Evaluates an expression of `test`: by the number of words where POSIX says so, else by precedence.
pub(crate) fn evaluate(about: &Surroundings<'_>, words: &[&str]) -> Result<bool, String> {
    match words {
        [] => Ok(false),
        [word] => Ok(!word.is_empty()),
        ["!", rest @ ..] if rest.len() < 3 || !rest.contains(&"-o") && !rest.contains(&"-a") => {
            evaluate(about, rest).map(|holds| !holds)
        }
        [operator, operand] => unary(about, operator, operand),
        [left, operator, right] if is_binary(operator) => binary(about, left, operator, right),
        ["(", inner @ .., ")"] => evaluate(about, inner),
        _ => {
            for (connective, any) in [("-o", true), ("-a", false)] {
                if let Some(at) = words.iter().position(|word| *word == connective) {
                    let left = evaluate(about, &words[..at])?;
                    let right = evaluate(about, &words[at + 1..])?;
                    return Ok(if any { left || right } else { left && right });
                }
            }
            Err(format!("{}: unknown operand", words.get(1).copied().unwrap_or_default()))
        }
    }
}

fn is_binary(operator: &str) -> bool {
    let known = ["=", "==", "!=", "<", ">", "-eq", "-ne", "-lt", "-le", "-gt", "-ge", "-nt", "-ot", "-ef"];
    known.contains(&operator)
}

fn unary(about: &Surroundings<'_>, operator: &str, operand: &str) -> Result<bool, String> {
    let fs = &about.world.fs;
    let path = about.path(operand);
    let kind = fs.metadata(&path).map(|found| found.kind).ok();
    Ok(match operator {
        "-n" => !operand.is_empty(),
        "-z" => operand.is_empty(),
        "-e" => !operand.is_empty() && kind.is_some(),
        "-f" => kind == Some(FileKind::File) && fs.device(&path).is_none(),
        "-d" => kind == Some(FileKind::Directory),
        "-L" | "-h" => fs.symlink_metadata(&path).is_ok_and(|found| found.kind == FileKind::Symlink),
        "-s" => fs.metadata(&path).is_ok_and(|found| found.len > 0),
        "-r" | "-w" => kind.is_some(),
        "-x" => fs.metadata(&path).is_ok_and(|found| found.mode & 0o111 != 0),
        "-c" => fs.device(&path).is_some(),
        "-b" | "-p" | "-S" | "-u" | "-g" | "-k" => false,
        "-t" => operand.parse().ok().and_then(|fd: usize| about.terminals.get(fd).copied()).unwrap_or(false),
        _ => return Err(format!("{operator}: unknown operand")),
    })
}

fn binary(about: &Surroundings<'_>, left: &str, operator: &str, right: &str) -> Result<bool, String> {
    let number = |text: &str| text.trim().parse::<i64>().map_err(|_| format!("{text}: bad number"));
    let modified = |path: &str| about.world.fs.metadata(&about.path(path)).map(|found| found.modified).ok();
    Ok(match operator {
        "=" | "==" => left == right,
        "!=" => left != right,
        "<" => left < right,
        ">" => left > right,
        "-nt" => modified(left) > modified(right),
        "-ot" => modified(left) < modified(right),
        "-ef" => about.world.fs.canonical(&about.path(left)).ok() == about.world.fs.canonical(&about.path(right)).ok(),
        "-eq" => number(left)? == number(right)?,
        "-ne" => number(left)? != number(right)?,
        "-lt" => number(left)? < number(right)?,
        "-le" => number(left)? <= number(right)?,
        "-gt" => number(left)? > number(right)?,
        _ => number(left)? >= number(right)?,
    })
}
