//! `mounttest`: writes files, and says what is to be said of a mount: its type, owners, modes, contents.

use super::flags::Flag;
use super::{Call, go_format};
use crate::fs::Filesystem;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// What it writes into new files.
const NEW_CONTENT: &str = "mount-tester new file\n";
/// How often a file is read in the loop.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

pub(super) const FLAGS: &[Flag] = &[
    Flag::string("fs_type", "", "Path to print the fs type for"),
    Flag::string("file_mode", "", "Path to print the mode bits of"),
    Flag::string("file_perm", "", "Path to print the perms of"),
    Flag::string("file_owner", "", "Path to print the owning UID and GID of"),
    Flag::string("new_file_0644", "", "Path to write to and read from with perm 0644"),
    Flag::string("new_file_0666", "", "Path to write to and read from with perm 0666"),
    Flag::string("new_file_0660", "", "Path to write to and read from with perm 0660"),
    Flag::string("new_file_0777", "", "Path to write to and read from with perm 0777"),
    Flag::string("file_content", "", "Path to read the file content from"),
    Flag::string("file_content_in_loop", "", "Path to read the file content in loop from"),
    Flag::int("retry_time", "180", "Retry time during the loop"),
    Flag::bool(
        "break_on_expected_content",
        "true",
        "Break out of loop on expected content, (use with --file_content_in_loop flag only)",
    ),
];

/// Does what its flags ask for, in a fixed order; fails when any of it failed.
pub(super) async fn run(call: Arc<Call>) -> i32 {
    let mut failed = false;
    if let Some(path) = path_of(&call, "fs_type") {
        failed |= !say(&call, filesystem(&call, path)).await;
    }
    for (flag, mode) in
        [("new_file_0644", 0o644), ("new_file_0666", 0o666), ("new_file_0660", 0o660), ("new_file_0777", 0o777)]
    {
        if let Some(path) = path_of(&call, flag) {
            failed |= match write_new(&call, path, mode) {
                Ok(()) => !say(&call, content(&call, path)).await,
                Err(error) => {
                    let error = go_format::path_error("open", path, &error);
                    !say(&call, Err(format!("error writing new file {path:?}: {error}"))).await
                }
            };
        }
    }
    if let Some(path) = path_of(&call, "file_mode") {
        let mode =
            metadata(&call, path).map(|found| format!("mode of file {path:?}: {}", go_format::file_mode(&found)));
        failed |= !say(&call, mode).await;
    }
    if let Some(path) = path_of(&call, "file_perm") {
        let permissions = metadata(&call, path)
            .map(|found| format!("perms of file {path:?}: {}", go_format::file_permissions(&found)));
        failed |= !say(&call, permissions).await;
    }
    if let Some(path) = path_of(&call, "file_owner") {
        failed |= !say(&call, owner(&call, path)).await;
    }
    if let Some(path) = path_of(&call, "file_content") {
        failed |= !say(&call, content(&call, path)).await;
    }
    if let Some(path) = path_of(&call, "file_content_in_loop") {
        failed |= !content_in_loop(&call, path).await;
    }
    i32::from(failed)
}

fn path_of<'a>(call: &'a Call, flag: &str) -> Option<&'a str> {
    Some(call.flags.text(flag)).filter(|path| !path.is_empty())
}

/// Prints what came of a question; whether it was answered.
async fn say(call: &Call, answer: Result<String, String>) -> bool {
    let answered = answer.is_ok();
    let (Ok(text) | Err(text)) = answer;
    call.say(text).await;
    answered
}

fn filesystem(call: &Call, path: &str) -> Result<String, String> {
    let found = call.world.fs.filesystem(&call.path(path));
    let found = found.map_err(|error| format!("error from statfs({path:?}): {}", go_format::errno(&error)))?;
    let name = match found {
        Filesystem::Tmpfs => "tmpfs".to_string(),
        other => other.magic().to_string(),
    };
    Ok(format!("mount type of {path:?}: {name}"))
}

fn metadata(call: &Call, path: &str) -> Result<minik8s_cri::Metadata, String> {
    call.world.fs.metadata(&call.path(path)).map_err(|error| {
        let error = go_format::path_error("stat", path, &error);
        format!("error from Stat({path:?}): {error}")
    })
}

fn owner(call: &Call, path: &str) -> Result<String, String> {
    let (uid, gid) = call
        .world
        .fs
        .owner(&call.path(path))
        .map_err(|error| format!("error from stat({path:?}): {}", go_format::errno(&error)))?;
    Ok(format!("owner UID of {path:?}: {uid}\nowner GID of {path:?}: {gid}"))
}

fn content(call: &Call, path: &str) -> Result<String, String> {
    match call.world.read_text(&call.path(path)) {
        Ok(text) => Ok(format!("content of file {path:?}: {text}")),
        Err(error) => {
            let error = go_format::path_error("open", path, &error);
            Err(format!("error reading file content for {path:?}: {error}"))
        }
    }
}

/// A file that exists keeps its mode, as with `open(2)`.
fn write_new(call: &Call, path: &str, mode: u32) -> io::Result<()> {
    let (fs, path) = (&call.world.fs, call.path(path));
    let new = fs.metadata(&path).is_err();
    fs.write(&path, NEW_CONTENT.as_bytes())?;
    if new { fs.set_mode(&path, mode) } else { Ok(()) }
}

/// Prints a file again and again; whether it could be read the last time.
async fn content_in_loop(call: &Call, path: &str) -> bool {
    let retry_time = Duration::from_secs(u64::try_from(call.flags.number("retry_time")).unwrap_or_default());
    let until_expected = call.flags.is("break_on_expected_content");
    let clock = &call.world.clock;
    let started = clock.monotonic();
    let mut read = true;
    while clock.monotonic().saturating_sub(started) < retry_time {
        let text = call.world.read_text(&call.path(path));
        read = text.is_ok();
        match text {
            Ok(text) => {
                call.say(format!("content of file {path:?}: {text}")).await;
                if until_expected && text == NEW_CONTENT {
                    break;
                }
                if until_expected {
                    call.say(format!("Unexpected content. Expected: {NEW_CONTENT}. Retrying")).await;
                }
            }
            Err(error) => {
                let error = go_format::path_error("open", path, &error);
                call.say(format!("Error reading file {path}: {error}, retrying")).await;
            }
        }
        clock.sleep(RETRY_INTERVAL).await;
    }
    read
}
