//! Where records come from, and how they fall into fields.

use super::VALUE_LIMIT_BYTES;
use super::value::Value;
use crate::process::Input;
use regex::Regex;
use std::io;

/// A file that is read record by record.
pub(super) struct Records {
    input: Input,
    /// What was read and is in no record yet.
    buffer: Vec<u8>,
    ended: bool,
}

impl Records {
    pub fn new(input: Input) -> Records {
        Records { input, buffer: Vec::new(), ended: false }
    }

    /// The next record; `separator` is the byte behind each, or `None` for empty lines. `None` at the end.
    pub async fn next(&mut self, separator: Option<u8>) -> io::Result<Option<String>> {
        if separator == Some(b'\n') && self.buffer.is_empty() {
            let line = self.input.line().await?;
            return Ok(line.map(|line| text(line.strip_suffix(b"\n").unwrap_or(&line))));
        }
        loop {
            if separator.is_none() {
                let blank = self.buffer.iter().take_while(|byte| **byte == b'\n').count();
                self.buffer.drain(..blank);
            }
            let found = match separator {
                Some(separator) => self.buffer.iter().position(|byte| *byte == separator).map(|at| (at, 1)),
                None => self.buffer.windows(2).position(|pair| pair == b"\n\n").map(|at| (at, 2)),
            };
            let full = (self.buffer.len() >= VALUE_LIMIT_BYTES).then_some((VALUE_LIMIT_BYTES, 0));
            if let Some((at, behind)) = found.or(full) {
                let record = text(&self.buffer[..at]);
                self.buffer.drain(..at + behind);
                return Ok(Some(record));
            }
            if self.ended {
                let rest = std::mem::take(&mut self.buffer);
                let rest = rest.strip_suffix(b"\n").unwrap_or(&rest);
                return Ok(Some(text(rest)).filter(|rest| !rest.is_empty()));
            }
            let more = self.input.read().await?;
            self.ended = more.is_empty();
            self.buffer.extend(more);
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What stands between fields.
pub(super) enum Separator {
    /// Blanks and new lines, any number of them.
    Blanks,
    /// Nothing: each character is a field.
    Nothing,
    Text(String),
    Pattern(Regex),
}

impl Separator {
    /// The fields of a text.
    pub fn split(&self, text: &str) -> Vec<Value> {
        if text.is_empty() {
            return Vec::new();
        }
        let field = |part: &str| Value::Input(part.into());
        match self {
            Separator::Blanks => text.split([' ', '\t', '\n']).filter(|part| !part.is_empty()).map(field).collect(),
            Separator::Nothing => text.chars().map(|character| field(character.encode_utf8(&mut [0; 4]))).collect(),
            Separator::Text(separator) => text.split(separator.as_str()).map(field).collect(),
            Separator::Pattern(pattern) => pattern.split(text).map(field).collect(),
        }
    }
}

/// An extended regular expression of awk in the words of `regex`: brackets have no brackets in them, a brace that counts
/// nothing is a character, and a point is any character.
pub(super) fn translate(pattern: &str) -> String {
    let mut out = "(?s)".to_string();
    let mut rest = pattern.char_indices().peekable();
    while let Some((at, character)) = rest.next() {
        match character {
            '\\' => match rest.next() {
                Some((_, escaped)) if escaped.is_ascii_alphanumeric() && !"nrtfvabBwWsS".contains(escaped) => {
                    out.push(escaped);
                }
                Some((_, escaped @ ('<' | '>' | '"'))) => out.push(escaped),
                Some((_, escaped)) => out.extend(['\\', escaped]),
                None => out.push_str("\\\\"),
            },
            '{' => {
                let count = pattern[at + 1..].split('}').next().unwrap_or_default();
                let counts = pattern[at..].contains('}')
                    && count.starts_with(|digit: char| digit.is_ascii_digit())
                    && count.chars().all(|digit| digit.is_ascii_digit() || digit == ',')
                    && at > 0;
                out.push_str(if counts { "{" } else { "\\{" });
            }
            '}' => {
                let open = out.rfind('{').is_some_and(|open| {
                    !out[..open].ends_with('\\')
                        && out[open + 1..].chars().all(|digit| digit.is_ascii_digit() || digit == ',')
                });
                out.push_str(if open { "}" } else { "\\}" });
            }
            '[' => {
                out.push('[');
                if let Some((_, not)) = rest.next_if(|(_, not)| *not == '^') {
                    out.push(not);
                }
                if rest.next_if(|(_, close)| *close == ']').is_some() {
                    out.push_str("\\]");
                }
                while let Some((at, inner)) = rest.next() {
                    match inner {
                        ']' => {
                            out.push(']');
                            break;
                        }
                        '[' if pattern[at..].starts_with("[:") && pattern[at..].contains(":]") => {
                            let class = &pattern[at..at + pattern[at..].find(":]").unwrap_or(0) + 2];
                            out.push_str(class);
                            for _ in 1..class.chars().count() {
                                rest.next();
                            }
                        }
                        '[' | '&' | '~' => out.extend(['\\', inner]),
                        '\\' => {
                            let escaped = rest.next().map_or('\\', |(_, escaped)| escaped);
                            match escaped {
                                'n' | 't' | 'r' | 'f' | 'v' | 'a' => out.extend(['\\', escaped]),
                                escaped if escaped.is_ascii_punctuation() => out.extend(['\\', escaped]),
                                escaped => out.push(escaped),
                            }
                        }
                        other => out.push(other),
                    }
                }
            }
            other => out.push(other),
        }
    }
    out
}
