//! `sed`: `s`, `d`, `p`, `q`, `a`, `i` and `c`, with addresses.

use super::grep::extended;
use super::{Options, complain_usage};
use crate::process::{Process, errno_text};
use regex::{Regex, RegexBuilder};
use std::io;

enum Address {
    Line(usize),
    Last,
    Matches(Regex),
}

enum Action {
    Substitute { expression: Regex, replacement: String, global: bool, print: bool, which: usize },
    Delete,
    Print,
    Quit,
    Append(String),
    Insert(String),
    Change(String),
}

struct Command {
    from: Option<Address>,
    to: Option<Address>,
    negated: bool,
    action: Action,
    /// Whether the range from `from` to `to` is open.
    inside: bool,
}

struct Parser<'a> {
    rest: &'a str,
    basic: bool,
}

impl Parser<'_> {
    fn regex(&self, text: &str, insensitive: bool) -> Result<Regex, String> {
        let text = if self.basic { extended(text) } else { text.to_string() };
        RegexBuilder::new(&text).case_insensitive(insensitive).build().map_err(|_| format!("bad regex '{text}'"))
    }

    fn skip(&mut self, of: &[char]) {
        self.rest = self.rest.trim_start_matches(of);
    }

    fn next(&mut self) -> Option<char> {
        let character = self.rest.chars().next()?;
        self.rest = &self.rest[character.len_utf8()..];
        Some(character)
    }

    /// Text up to a delimiter that no backslash stands before.
    fn until(&mut self, delimiter: char) -> Result<String, String> {
        let mut out = String::new();
        while let Some(character) = self.next() {
            match character {
                '\\' => match self.next() {
                    Some(escaped) if escaped == delimiter => out.push(delimiter),
                    Some('n') => out.push_str("\\n"),
                    Some(escaped) => out.extend(['\\', escaped]),
                    None => break,
                },
                character if character == delimiter => return Ok(out),
                character => out.push(character),
            }
        }
        Err("unterminated expression".to_string())
    }

    fn address(&mut self) -> Result<Option<Address>, String> {
        if let Some(rest) = self.rest.strip_prefix('$') {
            self.rest = rest;
            return Ok(Some(Address::Last));
        }
        if let Some(rest) = self.rest.strip_prefix('/') {
            self.rest = rest;
            let text = self.until('/')?;
            return Ok(Some(Address::Matches(self.regex(&text, false)?)));
        }
        let end = self.rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(self.rest.len());
        let number = self.rest[..end].parse().ok();
        self.rest = &self.rest[end..];
        Ok(number.map(Address::Line))
    }

    fn command(&mut self) -> Result<Command, String> {
        let from = self.address()?;
        let to = match self.rest.strip_prefix(',') {
            Some(rest) => {
                self.rest = rest;
                self.address()?
            }
            None => None,
        };
        self.skip(&[' ']);
        let negated = self.rest.starts_with('!');
        self.skip(&['!', ' ']);
        let action = match self.next() {
            Some('s') => self.substitute()?,
            Some('d') => Action::Delete,
            Some('p') => Action::Print,
            Some('q') => Action::Quit,
            Some('a') => Action::Append(self.text()),
            Some('i') => Action::Insert(self.text()),
            Some('c') => Action::Change(self.text()),
            Some(other) => return Err(format!("unsupported command {other}")),
            None => return Err("missing command".to_string()),
        };
        Ok(Command { from, to, negated, action, inside: false })
    }

    fn text(&mut self) -> String {
        let line = self.rest.split('\n').next().unwrap_or_default();
        self.rest = &self.rest[line.len()..];
        let text = line.trim_start_matches([' ', '\\']);
        text.to_string()
    }

    fn substitute(&mut self) -> Result<Action, String> {
        let delimiter = self.next().ok_or("unterminated `s' command")?;
        let pattern = self.until(delimiter)?;
        let replacement = self.until(delimiter)?;
        let (mut global, mut print, mut insensitive, mut which) = (false, false, false, 1);
        while let Some(flag) = self.rest.chars().next().filter(|flag| !";}\n ".contains(*flag)) {
            match flag {
                'g' => global = true,
                'p' => print = true,
                'i' | 'I' => insensitive = true,
                digit if digit.is_ascii_digit() => which = digit.to_digit(10).unwrap_or(1).max(1) as usize,
                other => return Err(format!("unknown option to s command: {other}")),
            }
            self.next();
        }
        Ok(Action::Substitute { expression: self.regex(&pattern, insensitive)?, replacement, global, print, which })
    }
}

fn parse(script: &str, basic: bool) -> Result<Vec<Command>, String> {
    let mut parser = Parser { rest: script, basic };
    let mut commands = Vec::new();
    loop {
        parser.skip(&[' ', ';', '\n', '\t']);
        if parser.rest.is_empty() {
            return Ok(commands);
        }
        commands.push(parser.command()?);
    }
}

impl Address {
    fn is_at(&self, line: &str, number: usize, last: bool) -> bool {
        match self {
            Address::Line(wanted) => *wanted == number,
            Address::Last => last,
            Address::Matches(expression) => expression.is_match(line),
        }
    }
}

impl Command {
    fn applies(&mut self, line: &str, number: usize, last: bool) -> bool {
        let selected = match (&self.from, &self.to) {
            (None, _) => true,
            (Some(from), None) => from.is_at(line, number, last),
            (Some(from), Some(to)) => {
                if self.inside {
                    self.inside = !to.is_at(line, number, last);
                    true
                } else {
                    let starts = from.is_at(line, number, last);
                    self.inside = starts && !matches!(to, Address::Line(end) if *end <= number);
                    starts
                }
            }
        };
        selected != self.negated
    }
}

/// The replacement of a match: `&` is the match, `\1` a group, `\n` a new line.
fn expand(replacement: &str, captures: &regex::Captures<'_>) -> String {
    let mut out = String::new();
    let mut characters = replacement.chars();
    while let Some(character) = characters.next() {
        match character {
            '&' => out.push_str(&captures[0]),
            '\\' => match characters.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some(digit) if digit.is_ascii_digit() => {
                    let group = digit.to_digit(10).unwrap_or_default() as usize;
                    out.push_str(captures.get(group).map_or("", |found| found.as_str()));
                }
                Some(other) => out.push(other),
                None => {}
            },
            other => out.push(other),
        }
    }
    out
}

fn substitute(line: &str, expression: &Regex, replacement: &str, global: bool, which: usize) -> Option<String> {
    let mut out = String::new();
    let (mut end, mut changed) = (0, false);
    for (index, captures) in expression.captures_iter(line).enumerate() {
        let Some(found) = captures.get(0) else { continue };
        if index + 1 < which || (index + 1 > which && !global) {
            continue;
        }
        out.push_str(&line[end..found.start()]);
        out.push_str(&expand(replacement, &captures));
        end = found.end();
        changed = true;
    }
    changed.then(|| out + &line[end..])
}

/// Runs the commands over the lines.
fn edit(commands: &mut [Command], content: &str, quiet: bool) -> String {
    let lines: Vec<&str> = content.lines().collect();
    let mut out = String::new();
    'lines: for (index, line) in lines.iter().enumerate() {
        let (number, last) = (index + 1, index + 1 == lines.len());
        let mut line = line.to_string();
        let mut behind = String::new();
        let mut quit = false;
        for command in commands.iter_mut() {
            if !command.applies(&line, number, last) {
                continue;
            }
            match &command.action {
                Action::Delete => continue 'lines,
                Action::Print => out += &format!("{line}\n"),
                Action::Quit => quit = true,
                Action::Append(text) => behind += &format!("{text}\n"),
                Action::Insert(text) => out += &format!("{text}\n"),
                Action::Change(text) => {
                    out += &format!("{text}\n");
                    continue 'lines;
                }
                Action::Substitute { expression, replacement, global, print, which } => {
                    if let Some(changed) = substitute(&line, expression, replacement, *global, *which) {
                        line = changed;
                        if *print {
                            out += &format!("{line}\n");
                        }
                    }
                }
            }
        }
        if !quiet {
            out += &format!("{line}\n");
        }
        out += &behind;
        if quit {
            break;
        }
    }
    out
}

pub(super) async fn sed(process: Process) -> io::Result<i32> {
    let mut options = match Options::parse(process.arguments(), &["n", "E", "r", "i", "s", "u"], &["e"]) {
        Ok(options) => options,
        Err(message) => return complain_usage(&process, message).await,
    };
    let mut scripts: Vec<String> = options.all(&["e"]).map(str::to_string).collect();
    if scripts.is_empty() {
        if options.operands.is_empty() {
            return complain_usage(&process, "no script given".to_string()).await;
        }
        scripts.push(options.operands.remove(0));
    }
    let mut commands = match parse(&scripts.join("\n"), !options.has(&["E", "r"])) {
        Ok(commands) => commands,
        Err(message) => return complain_usage(&process, message).await,
    };
    let quiet = options.has(&["n"]);
    if options.operands.is_empty() {
        let content = process.stdin.rest().await?;
        process.stdout.write(edit(&mut commands, &String::from_utf8_lossy(&content), quiet)).await?;
        return Ok(0);
    }
    let mut code = 0;
    for operand in &options.operands {
        let path = process.path(operand);
        match process.world.read_text(&path) {
            Ok(content) if options.has(&["i"]) => {
                if let Err(error) = process.world.fs.write(&path, edit(&mut commands, &content, quiet).as_bytes()) {
                    process.complain(format!("can't create '{operand}': {}", errno_text(&error))).await;
                    code = 4;
                }
            }
            Ok(content) => process.stdout.write(edit(&mut commands, &content, quiet)).await?,
            Err(error) => {
                process.complain(format!("{operand}: {}", errno_text(&error))).await;
                code = 1;
            }
        }
    }
    Ok(code)
}
