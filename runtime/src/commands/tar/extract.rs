//! Files out of an archive, or a list of them: `tar x` and `tar t`.

use super::archive::{Archive, Member};
use super::{Mode, Run, Stop};
use crate::process::errno_text;
use minik8s_cri::{FileKind, Metadata};
use std::io;
use tar::EntryType;

/// What a new file may not have of its permissions, unless all are asked for.
const UMASK: u32 = 0o022;

pub(super) async fn extract(run: &mut Run) -> Result<(), Stop> {
    let file = run.request.file.clone();
    let input = match &file {
        None => run.process.stdin.clone(),
        Some(file) => run.process.open_input(file).map_err(|error| super::cannot_open(run, file, &error))?,
    };
    let mut archive = Archive::open(input, run.request.gzip, file.is_some(), run.gnu).await?;
    let wanted: Vec<String> = run.request.operands.iter().map(|name| name.trim_end_matches('/').to_string()).collect();
    let mut seen = vec![false; wanted.len()];
    while let Some(member) = archive.next(&mut run.process).await? {
        if run.is_excluded(&member.name) || !is_wanted(&member.name, &wanted, &mut seen) {
            continue;
        }
        if run.request.mode == Mode::List {
            let row = if run.request.verbose { long_row(&member, run.gnu) } else { shown(&member) };
            run.process.stdout.line(row).await?;
            continue;
        }
        let Some(stripped) = without_components(&member.name, run.request.strip) else { continue };
        let name = run.safe_name(stripped).await.to_string();
        if run.request.verbose {
            let told = if run.request.to_stdout { &run.process.stderr } else { &run.process.stdout };
            told.line(if run.request.strip > 0 { stripped } else { &member.name }).await?;
        }
        take_out(run, &mut archive, &member, &name).await?;
    }
    for (name, _) in wanted.iter().zip(seen).filter(|(_, seen)| !seen) {
        run.complain(format!("{name}: Not found in archive"), format!("{name}: not found in archive")).await?;
    }
    Ok(())
}

/// Whether a member is asked for: by its name, or that of a directory it is in.
fn is_wanted(name: &str, wanted: &[String], seen: &mut [bool]) -> bool {
    let mut found = wanted.is_empty();
    for (wanted, seen) in wanted.iter().zip(seen) {
        if name.strip_prefix(wanted.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
            *seen = true;
            found = true;
        }
    }
    found
}

/// A name without its first components; `None` where nothing is left.
fn without_components(name: &str, count: usize) -> Option<&str> {
    let mut rest = name;
    for _ in 0..count {
        rest = rest.trim_start_matches('/').split_once('/')?.1.trim_start_matches('/');
    }
    Some(rest).filter(|rest| !rest.is_empty())
}

/// A name as lists show it.
fn shown(member: &Member) -> String {
    let slash = if member.kind.is_dir() && !member.name.ends_with('/') { "/" } else { "" };
    format!("{}{slash}", member.name)
}

/// `-rw-r--r-- root/root         5 2026-01-01 00:00 name`, and busybox with seconds.
fn long_row(member: &Member, gnu: bool) -> String {
    let kind = match member.kind {
        EntryType::Directory => FileKind::Directory,
        EntryType::Symlink => FileKind::Symlink,
        _ => FileKind::File,
    };
    let modified = jiff::Timestamp::from_second(member.modified).unwrap_or_default();
    let mode = super::super::listing::mode_text(&Metadata { kind, len: member.size, mode: member.mode, modified });
    let mode = if member.kind.is_hard_link() { mode.replacen('-', "h", 1) } else { mode };
    let time = modified.strftime(if gnu { "%Y-%m-%d %H:%M" } else { "%Y-%m-%d %H:%M:%S" });
    let width = if gnu { 18_usize.saturating_sub(member.owner.len()) } else { 9 };
    let link = match member.kind {
        EntryType::Symlink => format!(" -> {}", member.target),
        EntryType::Link if gnu => format!(" link to {}", member.target),
        EntryType::Link => format!(" -> {}", member.target),
        _ => String::new(),
    };
    format!("{mode} {} {:>width$} {time} {}{link}", member.owner, member.size, shown(member))
}

/// Extracts one member under a name that counts from the directory.
async fn take_out(run: &mut Run, archive: &mut Archive, member: &Member, name: &str) -> Result<(), Stop> {
    if run.request.to_stdout {
        loop {
            let piece = archive.content().await?;
            if piece.is_empty() {
                return Ok(());
            }
            run.process.stdout.write(piece).await?;
            run.process.charge(1).await;
        }
    }
    let name = name.trim_end_matches('/');
    let path = run.path(name);
    let fs = run.process.world.fs.clone();
    if member.kind.is_dir() {
        if let Err(error) = fs.create_dir_all(&path) {
            let reason = errno_text(&error);
            return run
                .complain(format!("{name}: Cannot mkdir: {reason}"), format!("can't make dir {name}: {reason}"))
                .await;
        }
        return finish(run, member, &path, name).await;
    }
    let upper = minik8s_cri::normalize(&path);
    if let Err(error) = fs.create_dir_all(minik8s_cri::parent(&upper)) {
        return cannot_open(run, name, &error).await;
    }
    if let Err(error) = make_room(run, &path) {
        let reason = errno_text(&error);
        let gnu = match member.kind {
            EntryType::Symlink => format!("{name}: Cannot create symlink to '{}': File exists", member.target),
            EntryType::Link => format!("{name}: Cannot hard link to '{}': File exists", member.target),
            _ => format!("{name}: Cannot open: File exists"),
        };
        return run.complain(gnu, format!("can't remove old file {name}: {reason}")).await;
    }
    match member.kind {
        EntryType::Symlink | EntryType::Link => link(run, member, &path, name).await,
        EntryType::Char | EntryType::Block | EntryType::Fifo => {
            run.complain(
                format!("{name}: Cannot mknod: Operation not permitted"),
                format!("can't create node {name}: Operation not permitted"),
            )
            .await
        }
        _ => {
            if let Err(error) = fs.write(&path, b"") {
                return cannot_open(run, name, &error).await;
            }
            loop {
                let piece = archive.content().await?;
                if piece.is_empty() {
                    return finish(run, member, &path, name).await;
                }
                if let Err(error) = fs.append(&path, &piece) {
                    let reason = errno_text(&error);
                    return run
                        .complain(format!("{name}: Cannot write: {reason}"), format!("write error: {reason}"))
                        .await;
                }
                run.process.charge(1).await;
            }
        }
    }
}

/// Removes what stands where a member goes, so that a link there is replaced and not followed. Directories stay.
fn make_room(run: &Run, path: &str) -> io::Result<()> {
    let fs = &run.process.world.fs;
    match fs.symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(_) if run.request.keep_old => Err(io::ErrorKind::AlreadyExists.into()),
        Ok(found) if found.kind == FileKind::Directory => Err(io::ErrorKind::IsADirectory.into()),
        Ok(_) => fs.remove(path, false),
    }
}

/// Makes a symbolic link, or another name for a file that was extracted before: here that is a copy.
async fn link(run: &mut Run, member: &Member, path: &str, name: &str) -> Result<(), Stop> {
    let fs = run.process.world.fs.clone();
    let target = &member.target;
    let (made, gnu, busybox) = if member.kind.is_symlink() {
        (fs.symlink(target, path), "create symlink", "symlink")
    } else {
        let stripped = without_components(target, run.request.strip).unwrap_or_default();
        let source = &stripped[super::unsafe_prefix(stripped)..];
        (fs.copy(&run.path(source), path), "hard link", "hardlink")
    };
    match made {
        Ok(()) => Ok(()),
        Err(error) => {
            let reason = errno_text(&error);
            run.complain(
                format!("{name}: Cannot {gnu} to '{target}': {reason}"),
                format!("can't create {busybox} '{name}' to '{target}': {reason}"),
            )
            .await
        }
    }
}

async fn cannot_open(run: &mut Run, name: &str, error: &io::Error) -> Result<(), Stop> {
    let reason = errno_text(error);
    run.complain(format!("{name}: Cannot open: {reason}"), format!("can't open '{name}': {reason}")).await
}

/// Gives a file or directory its permissions and its time. Those of what is mounted or made up cannot be changed.
async fn finish(run: &mut Run, member: &Member, path: &str, name: &str) -> Result<(), Stop> {
    let fs = run.process.world.fs.clone();
    let mode = if run.request.same_permissions { member.mode & 0o7777 } else { member.mode & 0o777 & !UMASK };
    let mut done = fs.set_mode(path, mode);
    if !run.request.touch {
        let modified = jiff::Timestamp::from_second(member.modified).unwrap_or_default();
        done = done.and_then(|()| fs.set_modified(path, modified));
    }
    match done {
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
            let reason = errno_text(&error);
            run.complain(
                format!("{name}: Cannot change mode to {}: {reason}", permissions_text(mode)),
                format!("can't set permissions of '{name}': {reason}"),
            )
            .await
        }
        _ => Ok(()),
    }
}

/// `rwxr-xr-x`.
fn permissions_text(mode: u32) -> String {
    let metadata = Metadata { kind: FileKind::File, len: 0, mode, modified: jiff::Timestamp::UNIX_EPOCH };
    super::super::listing::mode_text(&metadata).split_off(1)
}
