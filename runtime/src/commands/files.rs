//! Tools that change files: `mkdir`, `rm`, `cp`, `mv`, `ln`, `touch`, `chmod` and their like.

use super::{Options, complain_usage};
use crate::process::{Process, errno_text};
use minik8s_cri::FileKind;
use std::io;

/// Applies `change` to each operand; complains in the tool's words where it fails.
async fn each(
    process: &Process,
    operands: &[String],
    words: impl Fn(&str, &str) -> String,
    change: impl Fn(&str) -> io::Result<()>,
) -> io::Result<i32> {
    let mut code = 0;
    for operand in operands {
        if let Err(error) = change(&process.path(operand)) {
            process.complain(words(operand, errno_text(&error))).await;
            code = 1;
        }
    }
    Ok(code)
}

pub(super) async fn mkdir(process: Process) -> io::Result<i32> {
    let options = match Options::parse(process.arguments(), &["p", "v"], &["m"]) {
        Ok(options) => options,
        Err(message) => return complain_usage(&process, message).await,
    };
    let fs = process.world.fs.clone();
    let words = |path: &str, reason: &str| match process.world.profile.gnu {
        true => format!("cannot create directory '{path}': {reason}"),
        false => format!("can't create directory '{path}': {reason}"),
    };
    each(&process, &options.operands, words, |path| {
        if !options.has(&["p"]) {
            if fs.symlink_metadata(path).is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            fs.metadata(minik8s_cri::parent(&minik8s_cri::normalize(path)))?;
        }
        fs.create_dir_all(path)
    })
    .await
}

pub(super) async fn rmdir(process: Process) -> io::Result<i32> {
    let fs = process.world.fs.clone();
    let words = |path: &str, reason: &str| format!("'{path}': {reason}");
    each(&process, process.arguments(), words, |path| match fs.list(path)?.is_empty() {
        true => fs.remove(path, true),
        false => Err(io::ErrorKind::DirectoryNotEmpty.into()),
    })
    .await
}

pub(super) async fn rm(process: Process) -> io::Result<i32> {
    let options = match Options::parse(process.arguments(), &["r", "R", "f", "i", "v"], &[]) {
        Ok(options) => options,
        Err(message) => return complain_usage(&process, message).await,
    };
    let fs = process.world.fs.clone();
    let words = |path: &str, reason: &str| match process.world.profile.gnu {
        true => format!("cannot remove '{path}': {reason}"),
        false => format!("can't remove '{path}': {reason}"),
    };
    let recursive = options.has(&["r", "R"]);
    each(&process, &options.operands, words, |path| match fs.remove(path, recursive) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && options.has(&["f"]) => Ok(()),
        result => result,
    })
    .await
}

pub(super) async fn touch(process: Process) -> io::Result<i32> {
    let options = match Options::parse(process.arguments(), &["c", "a", "m"], &["d", "t", "r"]) {
        Ok(options) => options,
        Err(message) => return complain_usage(&process, message).await,
    };
    let fs = process.world.fs.clone();
    let words = |path: &str, reason: &str| match process.world.profile.gnu {
        true => format!("cannot touch '{path}': {reason}"),
        false => format!("{path}: {reason}"),
    };
    each(&process, &options.operands, words, |path| match fs.metadata(path) {
        Ok(found) if found.kind == FileKind::Directory => Ok(()),
        Err(_) if options.has(&["c"]) => Ok(()),
        // Appending nothing creates the file, or sets its time.
        _ => fs.append(path, b""),
    })
    .await
}

/// Where a source goes: into a directory under its own name, else to the very path.
fn target(process: &Process, source: &str, to: &str) -> String {
    let to = process.path(to);
    match process.world.fs.metadata(&to) {
        Ok(found) if found.kind == FileKind::Directory => {
            let name = source.trim_end_matches('/').rsplit('/').next().unwrap_or(source);
            format!("{to}/{name}")
        }
        _ => to,
    }
}

async fn transfer(
    process: &Process,
    operands: &[String],
    verb: &str,
    change: impl Fn(&str, &str) -> io::Result<()>,
) -> io::Result<i32> {
    let Some((to, sources)) = operands.split_last().filter(|(_, sources)| !sources.is_empty()) else {
        return complain_usage(process, "missing file operand".to_string()).await;
    };
    let mut code = 0;
    for source in sources {
        if let Err(error) = change(&process.path(source), &target(process, source, to)) {
            let reason = errno_text(&error);
            process.complain(format!("can't {verb} '{source}': {reason}")).await;
            code = 1;
        }
    }
    Ok(code)
}

pub(super) async fn cp(process: Process) -> io::Result<i32> {
    let options = match Options::parse(process.arguments(), &["r", "R", "a", "f", "p", "v", "L", "n", "u"], &[]) {
        Ok(options) => options,
        Err(message) => return complain_usage(&process, message).await,
    };
    let fs = process.world.fs.clone();
    let recursive = options.has(&["r", "R", "a"]);
    transfer(&process, &options.operands, "stat", |from, to| {
        // Without -a what a link leads to is copied.
        let from = if options.has(&["a"]) { from.to_string() } else { fs.canonical(from)? };
        match fs.metadata(&from)?.kind {
            FileKind::Directory if !recursive => Err(io::ErrorKind::IsADirectory.into()),
            _ => fs.copy(&from, to),
        }
    })
    .await
}

pub(super) async fn mv(process: Process) -> io::Result<i32> {
    let options = match Options::parse(process.arguments(), &["f", "i", "n", "v"], &[]) {
        Ok(options) => options,
        Err(message) => return complain_usage(&process, message).await,
    };
    let fs = process.world.fs.clone();
    transfer(&process, &options.operands, "rename", |from, to| fs.rename(from, to)).await
}

pub(super) async fn ln(process: Process) -> io::Result<i32> {
    let options = match Options::parse(process.arguments(), &["s", "f", "n", "v"], &[]) {
        Ok(options) => options,
        Err(message) => return complain_usage(&process, message).await,
    };
    let fs = process.world.fs.clone();
    let [source, link] = options.operands.as_slice() else {
        return complain_usage(&process, "expected a target and a link name".to_string()).await;
    };
    let at = if options.has(&["n"]) { process.path(link) } else { target(&process, source, link) };
    if options.has(&["f"])
        && let Err(error) = fs.remove(&at, false)
        && error.kind() != io::ErrorKind::NotFound
    {
        process.complain(format!("{link}: {}", errno_text(&error))).await;
        return Ok(1);
    }
    // A hard link is a second name; here it is a copy, which differs only once one of the two is changed.
    let linked = if options.has(&["s"]) { fs.symlink(source, &at) } else { fs.copy(&process.path(source), &at) };
    if let Err(error) = linked {
        process.complain(format!("{link}: {}", errno_text(&error))).await;
        return Ok(1);
    }
    Ok(0)
}

pub(super) async fn readlink(process: Process) -> io::Result<i32> {
    let options = match Options::parse(process.arguments(), &["f", "e", "n"], &[]) {
        Ok(options) => options,
        Err(message) => return complain_usage(&process, message).await,
    };
    for operand in &options.operands {
        let path = process.path(operand);
        let target = match options.has(&["f", "e"]) {
            true => process.world.fs.canonical(&path),
            false => process.world.fs.read_link(&path),
        };
        match target {
            Ok(target) => process.stdout.line(target).await?,
            Err(_) => return Ok(1),
        }
    }
    Ok(0)
}

pub(super) async fn chmod(process: Process) -> io::Result<i32> {
    let options = match Options::parse(process.arguments(), &["R", "v", "f"], &[]) {
        Ok(options) => options,
        // A mode such as -x looks like options.
        Err(_) => Options::operands(process.arguments().iter()),
    };
    let Some((mode, paths)) = options.operands.split_first() else {
        return complain_usage(&process, "missing operand".to_string()).await;
    };
    let fs = process.world.fs.clone();
    let words = |path: &str, reason: &str| format!("{path}: {reason}");
    each(&process, paths, words, |path| {
        let before = fs.metadata(path)?.mode;
        let mode = apply_mode(mode, before).ok_or(io::ErrorKind::InvalidInput)?;
        fs.set_mode(path, mode)
    })
    .await
}

/// `755`, `+x`, `u+rw,go-w`, `a=r`.
fn apply_mode(text: &str, before: u32) -> Option<u32> {
    if let Ok(octal) = u32::from_str_radix(text, 8) {
        return Some(octal);
    }
    text.split(',').try_fold(before, |mode, clause| {
        let at = clause.find(['+', '-', '='])?;
        let who = match &clause[..at] {
            "" | "a" => 0o777,
            letters => letters.chars().try_fold(0, |mask, letter| match letter {
                'u' => Some(mask | 0o700),
                'g' => Some(mask | 0o070),
                'o' => Some(mask | 0o007),
                'a' => Some(0o777),
                _ => None,
            })?,
        };
        let what = clause[at + 1..].chars().try_fold(0, |mask, letter| match letter {
            'r' => Some(mask | 0o444),
            'w' => Some(mask | 0o222),
            'x' | 'X' => Some(mask | 0o111),
            _ => None,
        })?;
        Some(match &clause[at..=at] {
            "+" => mode | (who & what),
            "-" => mode & !(who & what),
            _ => (mode & !who) | (who & what),
        })
    })
}

pub(super) async fn chown(process: Process) -> io::Result<i32> {
    let options = match Options::parse(process.arguments(), &["R", "h", "v", "f"], &[]) {
        Ok(options) if options.operands.len() > 1 => options,
        Ok(_) => return complain_usage(&process, "missing operand".to_string()).await,
        Err(message) => return complain_usage(&process, message).await,
    };
    let fs = process.world.fs.clone();
    let words = |path: &str, reason: &str| format!("{path}: {reason}");
    // Files have no owner here; that they exist is all that is checked.
    each(&process, &options.operands[1..], words, |path| fs.metadata(path).map(drop)).await
}
