//! Tools that look at files: `ls`, `stat`, `du`.

use super::{Options, complain_usage};
use crate::process::{Process, errno_text};
use minik8s_cri::{FileKind, Metadata};
use std::io;

/// `-rw-r--r--`.
pub(super) fn mode_text(metadata: &Metadata) -> String {
    let kind = match metadata.kind {
        FileKind::Directory => 'd',
        FileKind::Symlink => 'l',
        FileKind::File => '-',
    };
    let bit = |shift: u32, letter: char| if metadata.mode >> shift & 1 == 1 { letter } else { '-' };
    let mut text = kind.to_string();
    text.extend((0..9).rev().map(|shift| bit(shift, ['x', 'w', 'r'][shift as usize % 3])));
    if metadata.mode & 0o1000 != 0 {
        text.replace_range(9..10, "t");
    }
    text
}

fn not_there(process: &Process, path: &str, error: &io::Error) -> String {
    match process.world.profile.gnu {
        true => format!("cannot access '{path}': {}", errno_text(error)),
        false => format!("{path}: {}", errno_text(error)),
    }
}

/// One row of a listing.
struct Row {
    name: String,
    metadata: Metadata,
    link: Option<String>,
}

fn row(process: &Process, path: &str, name: &str) -> io::Result<Row> {
    let metadata = process.world.fs.symlink_metadata(path)?;
    let link = (metadata.kind == FileKind::Symlink).then(|| process.world.fs.read_link(path)).transpose()?;
    Ok(Row { name: name.to_string(), metadata, link })
}

pub(super) async fn ls(process: Process) -> io::Result<i32> {
    let flags = ["l", "a", "A", "1", "h", "d", "R", "t", "r", "S", "F", "n", "i", "s", "color"];
    let options = match Options::parse(process.arguments(), &flags, &[]) {
        Ok(options) => options,
        Err(message) => return complain_usage(&process, message).await,
    };
    let mut operands = options.operands.clone();
    if operands.is_empty() {
        operands.push(".".to_string());
    }
    let (mut files, mut directories, mut code) = (Vec::new(), Vec::new(), 0);
    for operand in operands {
        let path = process.path(&operand);
        match process.world.fs.metadata(&path).or_else(|_| process.world.fs.symlink_metadata(&path)) {
            Ok(found) if found.kind == FileKind::Directory && !options.has(&["d"]) => directories.push(operand),
            Ok(_) => files.push(row(&process, &path, &operand)?),
            Err(error) => {
                process.complain(not_there(&process, &operand, &error)).await;
                code = if process.world.profile.gnu { 2 } else { 1 };
            }
        }
    }
    print_rows(&process, &options, files).await?;
    let titled = directories.len() > 1 || options.has(&["R"]);
    let mut pending = directories;
    pending.reverse();
    let mut first = true;
    while let Some(directory) = pending.pop() {
        if titled {
            let blank = if first { "" } else { "\n" };
            process.stdout.write(format!("{blank}{directory}:\n")).await?;
        }
        first = false;
        let path = process.path(&directory);
        let mut rows = Vec::new();
        if options.has(&["a"]) {
            rows.push(row(&process, &path, ".")?);
            rows.push(row(&process, minik8s_cri::parent(&minik8s_cri::normalize(&path)), "..")?);
        }
        let mut below = Vec::new();
        for entry in process.world.fs.list(&path)? {
            if entry.name.starts_with('.') && !options.has(&["a", "A"]) {
                continue;
            }
            if entry.kind == FileKind::Directory && options.has(&["R"]) {
                below.push(format!("{}/{}", directory.trim_end_matches('/'), entry.name));
            }
            rows.push(row(&process, &format!("{path}/{}", entry.name), &entry.name)?);
        }
        print_rows(&process, &options, rows).await?;
        pending.extend(below.into_iter().rev());
    }
    Ok(code)
}

async fn print_rows(process: &Process, options: &Options, mut rows: Vec<Row>) -> io::Result<()> {
    if options.has(&["t"]) {
        rows.sort_by(|a, b| b.metadata.modified.cmp(&a.metadata.modified).then(a.name.cmp(&b.name)));
    }
    if options.has(&["S"]) {
        rows.sort_by(|a, b| b.metadata.len.cmp(&a.metadata.len).then(a.name.cmp(&b.name)));
    }
    if options.has(&["r"]) {
        rows.reverse();
    }
    let width = rows.iter().map(|row| row.metadata.len.to_string().len()).max().unwrap_or(0).max(5);
    let user = &process.world.user;
    let owner = if user.uid == 0 || user.name.is_empty() { "root" } else { &user.name };
    if options.has(&["l", "n"]) && rows.len() != 1 {
        process
            .stdout
            .line(format!("total {}", rows.iter().map(|row| row.metadata.len.div_ceil(4096) * 4).sum::<u64>()))
            .await?;
    }
    // On a terminal names stand in one line, as far as it is wide; we know no width, so a few are put into one.
    if process.stdout.is_terminal() && !options.has(&["l", "n", "1"]) {
        if rows.is_empty() {
            return Ok(());
        }
        return process.stdout.line(rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>().join("  ")).await;
    }
    for row in rows {
        let mark = if options.has(&["F"]) && row.metadata.kind == FileKind::Directory { "/" } else { "" };
        if !options.has(&["l", "n"]) {
            process.stdout.line(format!("{}{mark}", row.name)).await?;
            continue;
        }
        let size = if options.has(&["h"]) { human(row.metadata.len) } else { row.metadata.len.to_string() };
        let time = row.metadata.modified.to_zoned(jiff::tz::TimeZone::UTC).strftime("%b %e %H:%M").to_string();
        let links = if row.metadata.kind == FileKind::Directory { 2 } else { 1 };
        let target = row.link.map(|link| format!(" -> {link}")).unwrap_or_default();
        let mode = mode_text(&row.metadata);
        let line = format!("{mode}    {links} {owner:<8} {owner:<8} {size:>width$} {time} {}{mark}{target}", row.name);
        process.stdout.line(line).await?;
    }
    Ok(())
}

/// `1.5K`, `20.0M`.
pub(super) fn human(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["", "K", "M", "G"] {
        if value < 1024.0 {
            return if unit.is_empty() { bytes.to_string() } else { format!("{value:.1}{unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1}T")
}

pub(super) async fn stat(process: Process) -> io::Result<i32> {
    let options = match Options::parse(process.arguments(), &["L"], &["c"]) {
        Ok(options) => options,
        Err(message) => return complain_usage(&process, message).await,
    };
    let mut code = 0;
    for operand in &options.operands {
        let found = match process.world.fs.symlink_metadata(&process.path(operand)) {
            Ok(found) => found,
            Err(error) => {
                process.complain(format!("can't stat '{operand}': {}", errno_text(&error))).await;
                code = 1;
                continue;
            }
        };
        let kind = match found.kind {
            FileKind::Directory => "directory",
            FileKind::Symlink => "symbolic link",
            FileKind::File => "regular file",
        };
        let (octal, text) = (format!("{:o}", found.mode), mode_text(&found));
        let (uid, gid) = process.world.fs.owner(&process.path(operand)).unwrap_or_default();
        let line = match options.value(&["c"]) {
            Some(format) => format
                .replace("%s", &found.len.to_string())
                .replace("%a", &octal)
                .replace("%A", &text)
                .replace("%F", kind)
                .replace("%n", operand)
                .replace("%u", &uid.to_string())
                .replace("%g", &gid.to_string())
                .replace("%Y", &found.modified.as_second().to_string()),
            None => format!(
                "  File: {operand}\n  Size: {}\t{kind}\nAccess: (0{octal}/{text})\nModify: {}",
                found.len,
                found.modified.to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S.%9f %z")
            ),
        };
        process.stdout.line(line).await?;
    }
    Ok(code)
}

pub(super) async fn du(process: Process) -> io::Result<i32> {
    let options = match Options::parse(process.arguments(), &["s", "h", "k", "m", "a", "c"], &["d"]) {
        Ok(options) => options,
        Err(message) => return complain_usage(&process, message).await,
    };
    let mut operands = options.operands.clone();
    if operands.is_empty() {
        operands.push(".".to_string());
    }
    for operand in operands {
        let mut rows = Vec::new();
        if let Err(error) = sum(&process, &process.path(&operand), &operand, &mut rows) {
            process.complain(format!("{operand}: {}", errno_text(&error))).await;
            return Ok(1);
        }
        if options.has(&["s"]) {
            rows.drain(..rows.len().saturating_sub(1));
        }
        for (bytes, name) in rows {
            let size = if options.has(&["h"]) { human(bytes) } else { bytes.div_ceil(1024).to_string() };
            process.stdout.line(format!("{size}\t{name}")).await?;
        }
    }
    Ok(0)
}

/// Adds up a tree; every directory gets a row behind those below it.
fn sum(process: &Process, path: &str, name: &str, rows: &mut Vec<(u64, String)>) -> io::Result<u64> {
    let found = process.world.fs.symlink_metadata(path)?;
    if found.kind != FileKind::Directory {
        return Ok(found.len);
    }
    let mut total = 4096;
    for entry in process.world.fs.list(path)? {
        total += sum(process, &format!("{path}/{}", entry.name), &format!("{name}/{}", entry.name), rows)?;
    }
    rows.push((total, name.to_string()));
    Ok(total)
}
