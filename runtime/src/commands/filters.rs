//! Tools that pass lines through: `cat`, `head`, `tail`, `wc`, `sort`, `uniq`, `cut`, `tr`, `tee`.

use super::{Options, complain_usage};
use crate::process::{Allocation, Input, Process, errno_text};
use std::collections::BTreeMap;
use std::io;

/// How much of an endless file without newlines `tail` really keeps while it counts what it would hold.
const KEPT_BYTES: usize = 1024 * 1024;

/// Opens the operands one after another (`-` and none are stdin), complaining about those that cannot be opened.
async fn open_all(process: &Process, operands: &[String]) -> (Vec<(String, Input)>, i32) {
    if operands.is_empty() {
        return (vec![("-".to_string(), process.stdin.clone())], 0);
    }
    let (mut inputs, mut code) = (Vec::new(), 0);
    for operand in operands {
        match if operand == "-" { Ok(process.stdin.clone()) } else { process.open_input(operand) } {
            Ok(input) => inputs.push((operand.clone(), input)),
            Err(error) => {
                let reason = errno_text(&error);
                let message = match process.world.profile.gnu {
                    true => format!("{operand}: {reason}"),
                    false => format!("can't open '{operand}': {reason}"),
                };
                process.complain(message).await;
                code = 1;
            }
        }
    }
    (inputs, code)
}

pub(super) async fn cat(mut process: Process) -> io::Result<i32> {
    let options = match Options::parse(process.arguments(), &["n", "u", "v", "e", "t", "A"], &[]) {
        Ok(options) => options,
        Err(message) => return complain_usage(&process, message).await,
    };
    let (inputs, code) = open_all(&process, &options.operands).await;
    let mut number = 0;
    for (_, input) in inputs {
        if options.has(&["n"]) {
            while let Some(line) = input.line().await? {
                number += 1;
                process.stdout.write(format!("{number:>6}\t")).await?;
                process.stdout.write(line).await?;
            }
            continue;
        }
        loop {
            let chunk = input.read().await?;
            if chunk.is_empty() {
                break;
            }
            process.stdout.write(chunk).await?;
            process.charge(1).await;
        }
    }
    Ok(code)
}

fn count_of(options: &Options, default: u64) -> Option<(bool, u64)> {
    let text = options.value(&["n", "c", "lines", "bytes"]).unwrap_or_default();
    match text {
        "" => Some((false, default)),
        text => {
            let number = text.trim_start_matches(['+', '-']);
            let scale = if number.ends_with(['k', 'K']) { 1024 } else { 1 };
            let number: u64 = number.trim_end_matches(['k', 'K']).parse().ok()?;
            Some((text.starts_with('+'), number * scale))
        }
    }
}

/// `-20` stands for `-n 20`.
fn old_style(arguments: &[String]) -> Vec<String> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let expand = |argument: &String| match argument.strip_prefix('-').filter(|number| is_number(number)) {
        Some(number) => vec!["-n".to_string(), number.to_string()],
        None => vec![argument.clone()],
    };
    arguments.iter().flat_map(expand).collect()
}

pub(super) async fn head(mut process: Process) -> io::Result<i32> {
    let options = match Options::parse(&old_style(process.arguments()), &["q", "v"], &["n", "c", "lines", "bytes"]) {
        Ok(options) => options,
        Err(message) => return complain_usage(&process, message).await,
    };
    let Some((_, count)) = count_of(&options, 10) else {
        return complain_usage(&process, "invalid number".to_string()).await;
    };
    let (inputs, code) = open_all(&process, &options.operands).await;
    let several = inputs.len() > 1;
    for (index, (name, input)) in inputs.into_iter().enumerate() {
        if several {
            let blank = if index == 0 { "" } else { "\n" };
            process.stdout.write(format!("{blank}==> {name} <==\n")).await?;
        }
        let mut left = count;
        while left > 0 {
            let piece = match options.has(&["c", "bytes"]) {
                true => input.read_exactly(usize::try_from(left.min(8192)).unwrap_or(8192)).await?,
                false => input.line().await?.unwrap_or_default(),
            };
            if piece.is_empty() {
                break;
            }
            left -= if options.has(&["c", "bytes"]) { piece.len() as u64 } else { 1 };
            process.stdout.write(piece).await?;
            process.charge(1).await;
        }
    }
    Ok(code)
}

pub(super) async fn tail(mut process: Process) -> io::Result<i32> {
    let values = ["n", "c", "s", "lines", "bytes"];
    let options = match Options::parse(&old_style(process.arguments()), &["f", "F", "q", "v", "follow"], &values) {
        Ok(options) => options,
        Err(message) => return complain_usage(&process, message).await,
    };
    let Some((from_start, count)) = count_of(&options, 10) else {
        return complain_usage(&process, "invalid number".to_string()).await;
    };
    let bytes = options.has(&["c", "bytes"]);
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let (inputs, mut code) = open_all(&process, &options.operands).await;
    for (_, input) in &inputs {
        if bytes && from_start {
            pass_on(&mut process, input, count.saturating_sub(1)).await?;
            continue;
        }
        let content = whole(&mut process, input).await?;
        let start = if bytes { content.len().saturating_sub(count) } else { tail_start(&content, from_start, count) };
        process.stdout.write(&content[start..]).await?;
    }
    if options.has(&["f", "F", "follow"]) {
        code = follow(&mut process, &options.operands).await?;
    }
    Ok(code)
}

/// All of an input. One that never ends is held in memory, as `tail /dev/zero` does, until the container has none left.
async fn whole(process: &mut Process, input: &Input) -> io::Result<Vec<u8>> {
    let mut held: Allocation = process.world.memory.allocate(0);
    let mut content = Vec::new();
    loop {
        let chunk = input.read().await?;
        if chunk.is_empty() {
            return Ok(content);
        }
        held.resize(held.bytes() + chunk.len() as u64);
        content.extend_from_slice(&chunk);
        if content.len() > KEPT_BYTES && !content.contains(&b'\n') {
            // Counted as held, but not really kept: a simulated container must not take the machine's memory. What such a
            // program gets hold of it gets quickly, so the count runs ahead.
            let ahead = content.len() as u64 * 64;
            content.clear();
            held.resize(held.bytes() + ahead);
            process.charge(1).await;
        }
    }
}

/// All of an input but its first bytes, as it comes, however long that is: `kubectl cp --retries` asks for an archive so.
async fn pass_on(process: &mut Process, input: &Input, mut skip: usize) -> io::Result<()> {
    loop {
        let chunk = input.read().await?;
        if chunk.is_empty() {
            return Ok(());
        }
        let skipped = skip.min(chunk.len());
        skip -= skipped;
        process.stdout.write(&chunk[skipped..]).await?;
        process.charge(1).await;
    }
}

/// Where the last lines of a text begin, or those from a line on.
fn tail_start(content: &[u8], from_start: bool, count: usize) -> usize {
    let ends = |(at, byte): (usize, &u8)| (*byte == b'\n').then_some(at + 1);
    if from_start {
        let skip = count.saturating_sub(1);
        return match skip {
            0 => 0,
            skip => content.iter().enumerate().filter_map(ends).nth(skip - 1).unwrap_or(content.len()),
        };
    }
    let body = content.strip_suffix(b"\n").unwrap_or(content);
    let breaks: Vec<usize> = body.iter().enumerate().filter_map(ends).collect();
    match count {
        0 => content.len(),
        count => breaks.len().checked_sub(count).map_or(0, |at| breaks[at]),
    }
}

/// Prints what is appended to the files; never ends by itself.
async fn follow(process: &mut Process, operands: &[String]) -> io::Result<i32> {
    let files: Vec<String> = operands.iter().filter(|operand| *operand != "-").map(|file| process.path(file)).collect();
    let mut followed = Vec::new();
    for path in files {
        if let Some(watch) = process.world.fs.watch(&path) {
            let length = process.world.fs.metadata(&path).map_or(0, |file| file.len);
            followed.push((path, length, watch));
        }
    }
    loop {
        if followed.is_empty() {
            // `tail -f /dev/null`: the way to keep a container alive.
            std::future::pending::<()>().await;
        }
        let changes = followed.iter_mut().map(|(_, _, watch)| Box::pin(watch.changed()));
        let ((), index, _) = futures::future::select_all(changes).await;
        let (path, offset, _) = &mut followed[index];
        let length = process.world.fs.metadata(path).map_or(0, |file| file.len);
        if length < *offset {
            *offset = 0;
        }
        let added = process.world.fs.read_at(path, *offset, usize::MAX).unwrap_or_default();
        *offset += added.len() as u64;
        process.stdout.write(added).await?;
        process.charge(1).await;
    }
}

pub(super) async fn wc(process: Process) -> io::Result<i32> {
    let options = match Options::parse(process.arguments(), &["l", "w", "c", "m"], &[]) {
        Ok(options) => options,
        Err(message) => return complain_usage(&process, message).await,
    };
    let (inputs, code) = open_all(&process, &options.operands).await;
    let mut rows = Vec::new();
    for (name, input) in inputs {
        let content = input.rest().await?;
        let text = String::from_utf8_lossy(&content);
        let lines = content.iter().filter(|byte| **byte == b'\n').count();
        rows.push(([lines, text.split_whitespace().count(), content.len()], name));
    }
    if rows.len() > 1 {
        let total = rows.iter().fold([0; 3], |sum, (row, _)| [sum[0] + row[0], sum[1] + row[1], sum[2] + row[2]]);
        rows.push((total, "total".to_string()));
    }
    let all = !options.has(&["l", "w", "c", "m"]);
    let shown = [all || options.has(&["l"]), all || options.has(&["w"]), all || options.has(&["c", "m"])];
    for (row, name) in rows {
        let numbers: Vec<String> =
            row.iter().zip(shown).filter(|(_, shown)| *shown).map(|(number, _)| number.to_string()).collect();
        let numbers = match numbers.as_slice() {
            [one] => one.clone(),
            several => several.iter().map(|number| format!("{number:>9}")).collect::<Vec<_>>().join(" "),
        };
        let name = if name == "-" { String::new() } else { format!(" {name}") };
        process.stdout.line(format!("{numbers}{name}")).await?;
    }
    Ok(code)
}

async fn lines_of(process: &Process, operands: &[String]) -> io::Result<(Vec<String>, i32)> {
    let (inputs, code) = open_all(process, operands).await;
    let mut lines = Vec::new();
    for (_, input) in inputs {
        let content = input.rest().await?;
        lines.extend(String::from_utf8_lossy(&content).lines().map(str::to_string));
    }
    Ok((lines, code))
}

pub(super) async fn sort(process: Process) -> io::Result<i32> {
    let options = match Options::parse(process.arguments(), &["n", "r", "u", "f", "h", "V", "b"], &["k", "t"]) {
        Ok(options) => options,
        Err(message) => return complain_usage(&process, message).await,
    };
    let (mut lines, code) = lines_of(&process, &options.operands).await?;
    let key = options.value(&["k"]).and_then(|key| key.split([',', 'n', 'r']).next()?.parse::<usize>().ok());
    let numeric = options.has(&["n", "h"]) || options.value(&["k"]).is_some_and(|key| key.ends_with('n'));
    let field = |line: &str| -> String {
        match (key, options.value(&["t"])) {
            (None, _) => line.to_string(),
            (Some(key), Some(separator)) => {
                line.split(separator).skip(key.max(1) - 1).collect::<Vec<_>>().join(separator)
            }
            (Some(key), None) => line.split_whitespace().skip(key.max(1) - 1).collect::<Vec<_>>().join(" "),
        }
    };
    let number = |text: &str| {
        let end = text.trim_start().find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-'));
        let text = text.trim_start();
        text[..end.unwrap_or(text.len())].parse::<f64>().unwrap_or(0.0)
    };
    lines.sort_by(|a, b| {
        let (x, y) = (field(a), field(b));
        let order = match (numeric, options.has(&["f"])) {
            (true, _) => number(&x).total_cmp(&number(&y)),
            (false, true) => x.to_lowercase().cmp(&y.to_lowercase()),
            (false, false) => x.cmp(&y),
        };
        order.then_with(|| a.cmp(b))
    });
    if options.has(&["r"]) {
        lines.reverse();
    }
    if options.has(&["u"]) {
        lines.dedup_by_key(|line| field(line));
    }
    print_lines(&process, &lines).await?;
    Ok(code)
}

async fn print_lines(process: &Process, lines: &[String]) -> io::Result<()> {
    let text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
    process.stdout.write(text).await
}

pub(super) async fn uniq(process: Process) -> io::Result<i32> {
    let options = match Options::parse(process.arguments(), &["c", "d", "u", "i"], &[]) {
        Ok(options) => options,
        Err(message) => return complain_usage(&process, message).await,
    };
    let (lines, code) = lines_of(&process, &options.operands[..options.operands.len().min(1)]).await?;
    let mut groups: Vec<(usize, String)> = Vec::new();
    for line in lines {
        match groups.last_mut().filter(|(_, last)| *last == line) {
            Some((count, _)) => *count += 1,
            None => groups.push((1, line)),
        }
    }
    for (count, line) in groups {
        if (options.has(&["d"]) && count == 1) || (options.has(&["u"]) && count > 1) {
            continue;
        }
        let prefix = if options.has(&["c"]) { format!("{count:>7} ") } else { String::new() };
        process.stdout.line(format!("{prefix}{line}")).await?;
    }
    Ok(code)
}

/// `1,3-5,7-` as ranges.
fn ranges(text: &str) -> Option<Vec<(usize, usize)>> {
    let range = |part: &str| match part.split_once('-') {
        None => part.parse().ok().map(|at| (at, at)),
        Some((from, to)) => {
            let from = if from.is_empty() { Some(1) } else { from.parse().ok() };
            let to = if to.is_empty() { Some(usize::MAX) } else { to.parse().ok() };
            from.zip(to)
        }
    };
    text.split(',').map(range).collect()
}

pub(super) async fn cut(process: Process) -> io::Result<i32> {
    let options = match Options::parse(process.arguments(), &["s", "n"], &["d", "f", "c", "b", "output-delimiter"]) {
        Ok(options) => options,
        Err(message) => return complain_usage(&process, message).await,
    };
    let Some(ranges) = options.value(&["f", "c", "b"]).and_then(ranges) else {
        return complain_usage(&process, "you must specify a list of bytes, characters, or fields".to_string()).await;
    };
    let wanted = |at: usize| ranges.iter().any(|(from, to)| (*from..=*to).contains(&at));
    let delimiter = options.value(&["d"]).unwrap_or("\t");
    let joiner = options.value(&["output-delimiter"]).unwrap_or(delimiter);
    let (lines, code) = lines_of(&process, &options.operands).await?;
    let mut kept = Vec::new();
    for line in lines {
        if !options.has(&["f"]) {
            kept.push(line.chars().enumerate().filter(|(at, _)| wanted(at + 1)).map(|(_, c)| c).collect());
        } else if line.contains(delimiter) {
            let fields = line.split(delimiter).enumerate().filter(|(at, _)| wanted(at + 1));
            kept.push(fields.map(|(_, field)| field).collect::<Vec<_>>().join(joiner));
        } else if !options.has(&["s"]) {
            kept.push(line);
        }
    }
    print_lines(&process, &kept).await?;
    Ok(code)
}

/// The characters of a set such as `a-z`, `[:upper:]` or `\n`.
fn set(text: &str) -> Vec<char> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some((class, after)) = rest.strip_prefix("[:").and_then(|inner| inner.split_once(":]")) {
            out.extend((0u8..128).map(char::from).filter(|c| crate::pattern::in_class(class, *c)));
            rest = after;
            continue;
        }
        let (character, used) = match (first, rest[first.len_utf8()..].chars().next()) {
            ('\\', Some('n')) => ('\n', 2),
            ('\\', Some('t')) => ('\t', 2),
            ('\\', Some('r')) => ('\r', 2),
            ('\\', Some('0')) => ('\0', 2),
            ('\\', Some(other)) => (other, 1 + other.len_utf8()),
            _ => (first, first.len_utf8()),
        };
        rest = &rest[used..];
        let mut after = rest.chars();
        match (after.next(), after.next()) {
            (Some('-'), Some(last)) if last >= character => {
                out.extend(character..=last);
                rest = after.as_str();
            }
            _ => out.push(character),
        }
    }
    out
}

pub(super) async fn tr(process: Process) -> io::Result<i32> {
    let options = match Options::parse(process.arguments(), &["d", "s", "c", "C"], &[]) {
        Ok(options) if !options.operands.is_empty() => options,
        Ok(_) => return complain_usage(&process, "missing operand".to_string()).await,
        Err(message) => return complain_usage(&process, message).await,
    };
    let from = set(&options.operands[0]);
    let to = options.operands.get(1).map(|text| set(text)).unwrap_or_default();
    let complement = options.has(&["c", "C"]);
    let matches = |character: char| from.contains(&character) != complement;
    let map: BTreeMap<char, char> =
        from.iter().enumerate().filter_map(|(at, c)| Some((*c, *to.get(at).or(to.last())?))).collect();
    let content = process.stdin.rest().await?;
    let mut out = String::new();
    let mut last = None;
    for character in String::from_utf8_lossy(&content).chars() {
        if options.has(&["d"]) && matches(character) {
            continue;
        }
        let replaced = match complement {
            true if matches(character) && !options.has(&["d"]) => to.last().copied().unwrap_or(character),
            true => character,
            false => map.get(&character).copied().unwrap_or(character),
        };
        let squeezable = if to.is_empty() { matches(character) } else { to.contains(&replaced) };
        if options.has(&["s"]) && squeezable && last == Some(replaced) {
            continue;
        }
        out.push(replaced);
        last = Some(replaced);
    }
    process.stdout.write(out).await?;
    Ok(0)
}

pub(super) async fn tee(mut process: Process) -> io::Result<i32> {
    let options = match Options::parse(process.arguments(), &["a", "i"], &[]) {
        Ok(options) => options,
        Err(message) => return complain_usage(&process, message).await,
    };
    let mut outputs = vec![process.stdout.clone()];
    let mut code = 0;
    for path in &options.operands {
        match process.open_output(path, options.has(&["a"])) {
            Ok(output) => outputs.push(output),
            Err(error) => {
                process.complain(format!("{path}: {}", errno_text(&error))).await;
                code = 1;
            }
        }
    }
    loop {
        let chunk = process.stdin.read().await?;
        if chunk.is_empty() {
            return Ok(code);
        }
        for output in &outputs {
            output.write(&chunk).await?;
        }
        process.charge(1).await;
    }
}
