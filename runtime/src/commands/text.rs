//! Tools that print what they are told: `echo`, `printf`, `seq`, `expr` and their like.

use super::{Options, complain_usage};
use crate::process::Process;
use crate::shell::VARIABLE_LIMIT_BYTES;
use std::io;

pub(super) async fn yes_code(_process: Process) -> io::Result<i32> {
    Ok(0)
}

pub(super) async fn no(_process: Process) -> io::Result<i32> {
    Ok(1)
}

pub(super) async fn clear(process: Process) -> io::Result<i32> {
    process.stdout.write("\u{1b}[H\u{1b}[J").await?;
    Ok(0)
}

pub(super) async fn echo(process: Process) -> io::Result<i32> {
    let (mut newline, mut escapes) = (true, false);
    let mut words = process.arguments();
    while let Some((first, rest)) = words.split_first() {
        let letters = first.strip_prefix('-').unwrap_or_default();
        if letters.is_empty() || !letters.chars().all(|letter| "neE".contains(letter)) {
            break;
        }
        for letter in letters.chars() {
            match letter {
                'n' => newline = false,
                letter => escapes = letter == 'e',
            }
        }
        words = rest;
    }
    let mut text = words.join(" ");
    if escapes {
        let (unescaped, stop) = unescape(&text);
        text = unescaped;
        newline &= !stop;
    }
    if newline {
        text.push('\n');
    }
    process.stdout.write(text).await?;
    Ok(0)
}

/// Replaces escapes such as `\n` and `\033`; the second result says that `\c` ended the text.
fn unescape(text: &str) -> (String, bool) {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        if character != '\\' {
            out.push(character);
            continue;
        }
        match rest.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('a') => out.push('\u{7}'),
            Some('b') => out.push('\u{8}'),
            Some('e') => out.push('\u{1b}'),
            Some('f') => out.push('\u{c}'),
            Some('v') => out.push('\u{b}'),
            Some('\\') => out.push('\\'),
            Some('c') => return (out, true),
            Some('x') => out.push(digits(&mut rest, 16, 2)),
            Some('0') => out.push(digits(&mut rest, 8, 3)),
            Some(digit @ '1'..='7') => {
                let high = digit.to_digit(8).unwrap_or_default();
                let low = digits(&mut rest, 8, 2) as u32;
                let value = if low == 0 { high } else { high * if low < 8 { 8 } else { 64 } + low };
                out.push(char::from_u32(value).unwrap_or('\u{fffd}'));
            }
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    (out, false)
}

fn digits(rest: &mut std::iter::Peekable<std::str::Chars<'_>>, radix: u32, most: usize) -> char {
    let mut value = 0;
    for _ in 0..most {
        let Some(digit) = rest.peek().and_then(|digit| digit.to_digit(radix)) else { break };
        value = value * radix + digit;
        rest.next();
    }
    char::from_u32(value).unwrap_or('\u{fffd}')
}

/// Places behind the point that a conversion can ask for.
pub(super) const PLACES_MAX: usize = 1000;

pub(super) async fn printf(process: Process) -> io::Result<i32> {
    let Some((format, arguments)) = process.arguments().split_first() else {
        process.complain("usage: printf FORMAT [ARGUMENT]...").await;
        return Ok(1);
    };
    let mut arguments = arguments.iter();
    let mut out = String::new();
    let mut failed = None;
    loop {
        let before = arguments.len();
        let stop = format_once(format, &mut arguments, &mut out, &mut failed);
        if out.len() > VARIABLE_LIMIT_BYTES {
            process.complain("out of memory".to_string()).await;
            return Ok(1);
        }
        // The format is used again while it takes arguments and there are some left.
        if stop || arguments.len() == 0 || arguments.len() == before {
            break;
        }
    }
    process.stdout.write(out).await?;
    if let Some(bad) = failed {
        process.complain(format!("{bad}: invalid number")).await;
        return Ok(1);
    }
    Ok(0)
}

fn format_once<'a>(
    format: &str,
    arguments: &mut impl Iterator<Item = &'a String>,
    out: &mut String,
    failed: &mut Option<String>,
) -> bool {
    let (format, stop) = unescape(format);
    let mut rest = format.chars().peekable();
    while let Some(character) = rest.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        let mut spec = String::new();
        while let Some(part) = rest.next_if(|part| "-+ #0123456789.*".contains(*part)) {
            match part {
                '*' => spec += arguments.next().map_or("0", String::as_str),
                part => spec.push(part),
            }
        }
        let Some(conversion) = rest.next() else { break };
        if conversion == '%' {
            out.push('%');
            continue;
        }
        let argument = arguments.next().map_or("", String::as_str);
        let text = match conversion {
            's' => limit(argument, &spec),
            'b' => unescape(argument).0,
            'c' => argument.chars().take(1).collect(),
            'f' => {
                let places = spec.split_once('.').and_then(|(_, places)| places.parse().ok()).unwrap_or(6);
                format!("{:.*}", PLACES_MAX.min(places), argument.parse::<f64>().unwrap_or_default())
            }
            _ => {
                let number = integer(argument).unwrap_or_else(|| {
                    *failed = Some(argument.to_string());
                    0
                });
                match conversion {
                    'x' => format!("{number:x}"),
                    'X' => format!("{number:X}"),
                    'o' => format!("{number:o}"),
                    _ if spec.starts_with('+') && number >= 0 => format!("+{number}"),
                    _ => number.to_string(),
                }
            }
        };
        pad(out, &text, &spec, conversion);
        if out.len() > VARIABLE_LIMIT_BYTES {
            return true;
        }
    }
    stop
}

fn limit(text: &str, spec: &str) -> String {
    match spec.split_once('.').and_then(|(_, most)| most.parse().ok()) {
        Some(most) => text.chars().take(most).collect(),
        None => text.to_string(),
    }
}

fn integer(text: &str) -> Option<i64> {
    if let Some(quoted) = text.strip_prefix(['\'', '"']) {
        return quoted.chars().next().map(|character| i64::from(u32::from(character)));
    }
    match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok(),
        None if text.is_empty() => Some(0),
        None => text.parse().ok(),
    }
}

fn pad(out: &mut String, text: &str, spec: &str, conversion: char) {
    let width = spec.split('.').next().unwrap_or_default();
    let zero = width.trim_start_matches(['-', '+', ' ', '#']).starts_with('0') && !"sbc".contains(conversion);
    let columns: usize = width.trim_start_matches(['-', '+', ' ', '#']).parse().unwrap_or(0);
    // One more than may be written is enough to be refused.
    let missing = columns.saturating_sub(text.chars().count()).min(VARIABLE_LIMIT_BYTES + 1);
    if width.contains('-') {
        out.push_str(text);
        out.extend(std::iter::repeat_n(' ', missing));
    } else if zero {
        let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
        out.push_str(sign);
        out.extend(std::iter::repeat_n('0', missing));
        out.push_str(digits);
    } else {
        out.extend(std::iter::repeat_n(' ', missing));
        out.push_str(text);
    }
}

pub(super) async fn seq(mut process: Process) -> io::Result<i32> {
    let mut numbers: Vec<String> = process.arguments().to_vec();
    let mut separator = "\n".to_string();
    if numbers.first().is_some_and(|first| first.starts_with("-s")) {
        let attached = numbers.remove(0)[2..].to_string();
        separator = match attached.is_empty() && !numbers.is_empty() {
            true => numbers.remove(0),
            false => attached,
        };
    }
    let parsed: Option<Vec<i64>> = numbers.iter().map(|number| number.parse().ok()).collect();
    let (first, step, last) = match parsed.as_deref() {
        Some([last]) => (1, 1, *last),
        Some([first, last]) => (*first, 1, *last),
        Some([first, step, last]) if *step != 0 => (*first, *step, *last),
        _ => return complain_usage(&process, "usage: seq [-s SEP] [FIRST [INC]] LAST".to_string()).await,
    };
    let mut at = first;
    while (step > 0 && at <= last) || (step < 0 && at >= last) {
        let text = if at == first { at.to_string() } else { format!("{separator}{at}") };
        process.stdout.write(text).await?;
        process.charge(1).await;
        match at.checked_add(step) {
            Some(next) => at = next,
            None => break,
        }
    }
    process.stdout.write("\n").await?;
    Ok(0)
}

pub(super) async fn yes(mut process: Process) -> io::Result<i32> {
    let line = match process.arguments() {
        [] => "y\n".to_string(),
        words => format!("{}\n", words.join(" ")),
    };
    loop {
        process.stdout.write(&line).await?;
        process.charge(1).await;
    }
}

pub(super) async fn basename(process: Process) -> io::Result<i32> {
    let options = match Options::parse(process.arguments(), &["a"], &["s"]) {
        Ok(options) if !options.operands.is_empty() => options,
        Ok(_) => return complain_usage(&process, "missing operand".to_string()).await,
        Err(message) => return complain_usage(&process, message).await,
    };
    let path = options.operands[0].trim_end_matches('/');
    let name = path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("/");
    let suffix = options.value(&["s"]).or(options.operands.get(1).map(String::as_str)).unwrap_or_default();
    let bare = name.strip_suffix(suffix).filter(|bare| !bare.is_empty()).unwrap_or(name);
    process.stdout.line(bare).await?;
    Ok(0)
}

pub(super) async fn dirname(process: Process) -> io::Result<i32> {
    let Some(path) = process.arguments().first() else {
        return complain_usage(&process, "missing operand".to_string()).await;
    };
    let directory = match path.trim_end_matches('/').rsplit_once('/') {
        Some(("", _)) => "/",
        Some((directory, _)) => directory,
        None => ".",
    };
    process.stdout.line(directory).await?;
    Ok(0)
}

/// Integer arithmetic, comparison and `:` matching, from the left without precedence but of `*` over `+` over `<` over `&`.
pub(super) async fn expr(process: Process) -> io::Result<i32> {
    let mut words = process.arguments().iter().map(String::as_str).peekable();
    match or_expression(&mut words).filter(|_| words.peek().is_none()) {
        Some(value) => {
            process.stdout.line(&value).await?;
            Ok(i32::from(value.is_empty() || value == "0"))
        }
        None => {
            process.complain("syntax error").await;
            Ok(2)
        }
    }
}

type Words<'a, I> = std::iter::Peekable<I>;

fn or_expression<'a, I: Iterator<Item = &'a str>>(words: &mut Words<'a, I>) -> Option<String> {
    let mut left = comparison(words)?;
    while let Some(operator) = words.next_if(|word| matches!(*word, "|" | "&")) {
        let right = comparison(words)?;
        let truth = |value: &str| !value.is_empty() && value != "0";
        left = match (operator, truth(&left), truth(&right)) {
            ("|", true, _) | ("&", true, true) => left,
            ("|", false, _) => right,
            _ => "0".to_string(),
        };
    }
    Some(left)
}

fn comparison<'a, I: Iterator<Item = &'a str>>(words: &mut Words<'a, I>) -> Option<String> {
    let mut left = sum(words)?;
    while let Some(operator) = words.next_if(|word| matches!(*word, "=" | "==" | "!=" | "<" | "<=" | ">" | ">=")) {
        let right = sum(words)?;
        let order = match (left.parse::<i64>(), right.parse::<i64>()) {
            (Ok(left), Ok(right)) => left.cmp(&right),
            _ => left.cmp(&right),
        };
        let holds = match operator {
            "=" | "==" => order.is_eq(),
            "!=" => order.is_ne(),
            "<" => order.is_lt(),
            "<=" => order.is_le(),
            ">" => order.is_gt(),
            _ => order.is_ge(),
        };
        left = i32::from(holds).to_string();
    }
    Some(left)
}

fn sum<'a, I: Iterator<Item = &'a str>>(words: &mut Words<'a, I>) -> Option<String> {
    let mut left = product(words)?;
    while let Some(operator) = words.next_if(|word| matches!(*word, "+" | "-")) {
        let (a, b): (i64, i64) = (left.parse().ok()?, product(words)?.parse().ok()?);
        left = if operator == "+" { a.checked_add(b)? } else { a.checked_sub(b)? }.to_string();
    }
    Some(left)
}

fn product<'a, I: Iterator<Item = &'a str>>(words: &mut Words<'a, I>) -> Option<String> {
    let mut left = operand(words)?;
    while let Some(operator) = words.next_if(|word| matches!(*word, "*" | "/" | "%")) {
        let (a, b): (i64, i64) = (left.parse().ok()?, operand(words)?.parse().ok()?);
        left = match operator {
            "*" => a.checked_mul(b)?,
            "/" => a.checked_div(b)?,
            _ => a.checked_rem(b)?,
        }
        .to_string();
    }
    Some(left)
}

fn operand<'a, I: Iterator<Item = &'a str>>(words: &mut Words<'a, I>) -> Option<String> {
    let word = words.next()?;
    if word == "(" {
        let value = or_expression(words)?;
        return words.next_if_eq(&")").map(|_| value);
    }
    if word == "length" {
        return Some(words.next()?.chars().count().to_string());
    }
    Some(word.to_string())
}
