//! The words of an awk program.

use super::Fault;

/// What a program has words for, but functions.
const KEYWORDS: [&str; 18] = [
    "BEGIN", "END", "function", "func", "if", "else", "while", "for", "do", "break", "continue", "next", "exit",
    "return", "delete", "in", "print", "printf",
];
/// The functions that awk has.
const BUILTINS: [&str; 22] = [
    "length", "substr", "index", "split", "sub", "gsub", "match", "sprintf", "tolower", "toupper", "int", "sqrt",
    "exp", "log", "sin", "cos", "atan2", "rand", "srand", "fflush", "system", "getline",
];
/// Signs, the longer ones first.
const SIGNS: [&str; 35] = [
    "&&", "||", "++", "--", "+=", "-=", "*=", "/=", "%=", "^=", "==", "<=", ">=", "!=", "!~", ">>", "{", "}", "(", ")",
    "[", "]", ";", ",", "+", "-", "*", "/", "%", "^", "!", "<", ">", "|", "?",
];
/// The rest of them.
const MORE_SIGNS: [&str; 4] = [":", "~", "$", "="];

/// A word of a program.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Number(f64),
    Text(String),
    Regex(String),
    /// A variable.
    Name(String),
    /// A name with a bracket right behind it: a function of the program.
    Call(String),
    Keyword(&'static str),
    Builtin(&'static str),
    Sign(&'static str),
    Newline,
    End,
}

impl Token {
    /// Whether a `/` behind it divides; elsewhere it begins a regular expression.
    fn is_operand(&self) -> bool {
        match self {
            Token::Number(_) | Token::Text(_) | Token::Regex(_) | Token::Name(_) | Token::Builtin(_) => true,
            Token::Sign(sign) => [")", "]", "$", "++", "--"].contains(sign),
            _ => false,
        }
    }
}

/// A character that stands behind a backslash in a text; `None` is one that has no meaning there.
fn escape(character: char) -> Option<char> {
    Some(match character {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'v' => '\u{b}',
        '"' | '\\' | '/' => character,
        _ => return None,
    })
}

/// Replaces the escapes of a text that stands outside of the program, as `-v` has them.
pub(super) fn unescape(text: &str) -> String {
    let mut rest = text.chars().peekable();
    let mut out = String::new();
    while let Some(character) = rest.next() {
        if character == '\\' { unescape_one(&mut rest, &mut out) } else { out.push(character) }
    }
    out
}

/// Reads what stands behind a backslash.
fn unescape_one(rest: &mut std::iter::Peekable<std::str::Chars<'_>>, out: &mut String) {
    let Some(character) = rest.next() else { return out.push('\\') };
    if let Some(mut value) = character.to_digit(8) {
        for _ in 0..2 {
            let Some(digit) = rest.peek().and_then(|digit| digit.to_digit(8)) else { break };
            value = value * 8 + digit;
            rest.next();
        }
        return out.push(char::from_u32(value).unwrap_or('\u{fffd}'));
    }
    match escape(character) {
        Some(meant) => out.push(meant),
        None => out.extend(['\\', character]),
    }
}

/// Splits a program into words, each with its line. The last is [`Token::End`].
pub(super) fn tokens(program: &str) -> Result<Vec<(Token, usize)>, Fault> {
    let mut found: Vec<(Token, usize)> = Vec::new();
    let (mut rest, mut line) = (program, 1);
    while let Some(first) = rest.chars().next() {
        if let Some(behind) = rest.strip_prefix("\\\n").or_else(|| rest.strip_prefix("\\\r\n")) {
            (rest, line) = (behind, line + 1);
            continue;
        }
        if first == '#' {
            rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
            continue;
        }
        if first != '\n' && first.is_whitespace() {
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let divides = found.last().is_some_and(|(token, _)| token.is_operand());
        let (token, behind) = match first {
            '\n' => (Token::Newline, &rest[1..]),
            '"' => text(&rest[1..], line)?,
            '/' if !divides => regex(&rest[1..], line)?,
            '0'..='9' | '.' => number(rest).ok_or_else(|| Fault::unexpected(line))?,
            letter if letter.is_ascii_alphabetic() || letter == '_' => word(rest),
            _ => {
                let sign = SIGNS.iter().chain(&MORE_SIGNS).find(|sign| rest.starts_with(**sign));
                let sign = sign.ok_or_else(|| Fault::unexpected(line))?;
                (Token::Sign(sign), &rest[sign.len()..])
            }
        };
        found.push((token, line));
        line += rest[..rest.len() - behind.len()].matches('\n').count();
        rest = behind;
    }
    found.push((Token::End, line));
    Ok(found)
}

fn word(rest: &str) -> (Token, &str) {
    let end = rest.find(|character: char| !character.is_ascii_alphanumeric() && character != '_').unwrap_or(rest.len());
    let (name, behind) = rest.split_at(end);
    let known = |words: &[&'static str]| words.iter().find(|known| **known == name).copied();
    let token = match (known(&KEYWORDS), known(&BUILTINS)) {
        (Some(keyword), _) => Token::Keyword(keyword),
        (_, Some(builtin)) => Token::Builtin(builtin),
        _ if behind.starts_with('(') => Token::Call(name.to_string()),
        _ => Token::Name(name.to_string()),
    };
    (token, behind)
}

fn number(rest: &str) -> Option<(Token, &str)> {
    let (value, length) = super::value::leading_number(rest)?;
    Some((Token::Number(value), &rest[length..]))
}

fn text(rest: &str, line: usize) -> Result<(Token, &str), Fault> {
    let mut out = String::new();
    let mut characters = rest.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                let left: usize = characters.map(char::len_utf8).sum();
                return Ok((Token::Text(out), &rest[rest.len() - left..]));
            }
            '\\' if characters.next_if_eq(&'\n').is_some() => {}
            '\\' => unescape_one(&mut characters, &mut out),
            '\n' => break,
            other => out.push(other),
        }
    }
    Err(Fault::new(line, "Unexpected end of string"))
}

fn regex(rest: &str, line: usize) -> Result<(Token, &str), Fault> {
    let (mut escaped, mut out) = (false, String::new());
    for (at, character) in rest.char_indices() {
        match character {
            '\n' => break,
            '/' if escaped => {
                out.pop();
                out.push('/');
            }
            '/' => return Ok((Token::Regex(out), &rest[at + 1..])),
            other => out.push(other),
        }
        escaped = character == '\\' && !escaped;
    }
    Err(Fault::new(line, "Unexpected end of string"))
}
