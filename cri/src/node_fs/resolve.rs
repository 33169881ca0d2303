//! Paths, and the symbolic links in them.

use std::io;

/// How many symbolic links one path may pass (`MAXSYMLINKS` of Linux).
const SYMLINK_LIMIT: usize = 40;

/// What stands at a path whose directory is free of symbolic links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// Nothing.
    Missing,
    /// A directory.
    Directory,
    /// A symbolic link with its text.
    Symlink(String),
    /// Anything else.
    File,
}

/// A path without symbolic links on the way, as [`resolve`] finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The path; its directory exists and is a directory, its last part may be missing.
    pub path: String,
    /// What stands there.
    pub found: Lookup,
}

/// An absolute path without `.`, `..`, empty parts and a slash at the end: `/a/./b/../c/` is `/a/c`. A relative path counts
/// from the root, and `..` never leads above it.
pub fn normalize(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The directory of a normalized path; `/` for the root.
pub fn parent(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) | None => "/",
        Some(at) => &path[..at],
    }
}

/// Follows the symbolic links of `path`, one part at a time, asking `lookup` what stands at each place. With `follow_last`
/// the last part is followed too. Links are read inside the same file system: an absolute one starts at its root.
pub fn resolve(path: &str, follow_last: bool, lookup: &dyn Fn(&str) -> io::Result<Lookup>) -> io::Result<Resolved> {
    let mut pending: Vec<String> = parts_reversed(path);
    let mut at = String::new();
    let mut links = 0;
    while let Some(part) = pending.pop() {
        if part == ".." {
            at.truncate(at.rfind('/').unwrap_or(0));
            continue;
        }
        let candidate = format!("{at}/{part}");
        match lookup(&candidate)? {
            Lookup::Symlink(target) if follow_last || !pending.is_empty() => {
                links += 1;
                if links > SYMLINK_LIMIT {
                    let message = format!("{path}: too many levels of symbolic links");
                    return Err(io::Error::other(message));
                }
                if target.starts_with('/') {
                    at.clear();
                }
                pending.extend(parts_reversed(&target));
            }
            Lookup::Directory => at = candidate,
            found if pending.is_empty() => {
                return Ok(Resolved { path: candidate, found });
            }
            Lookup::Missing => return Err(not_found(path)),
            _ => {
                return Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{path}: not a directory")));
            }
        }
    }
    if at.is_empty() {
        at.push('/');
    }
    Ok(Resolved { path: at, found: Lookup::Directory })
}

pub(super) fn not_found(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{path}: no such file or directory"))
}

fn parts_reversed(path: &str) -> Vec<String> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").rev().map(str::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(path: &str) -> io::Result<Lookup> {
        Ok(match path {
            "/etc" | "/data" | "/data/v1" => Lookup::Directory,
            "/etc/conf" => Lookup::Symlink("/data/..data".to_string()),
            "/data/..data" => Lookup::Symlink("v1".to_string()),
            "/data/v1/key" => Lookup::File,
            "/loop" => Lookup::Symlink("loop".to_string()),
            _ => Lookup::Missing,
        })
    }

    fn check(path: &str, follow_last: bool, expect: &str) {
        let outcome = match resolve(path, follow_last, &world) {
            Ok(resolved) => format!("{} {:?}", resolved.path, resolved.found),
            Err(error) => error.to_string(),
        };
        assert_eq!(outcome, expect, "{path}");
    }

    #[test]
    fn links_are_followed_inside_the_root() {
        check("/etc/conf/key", true, "/data/v1/key File");
        check("/etc/conf", true, "/data/v1 Directory");
        check("/etc/conf", false, "/etc/conf Symlink(\"/data/..data\")");
        check("/etc/../../../data/v1/new", true, "/data/v1/new Missing");
        check("/", true, "/ Directory");
        check("/missing/x", true, "/missing/x: no such file or directory");
        check("/data/v1/key/x", true, "/data/v1/key/x: not a directory");
        check("/loop", true, "/loop: too many levels of symbolic links");
    }

    #[test]
    fn paths_are_normalized() {
        assert_eq!(normalize("a//b/./c/../d/"), "/a/b/d");
        assert_eq!(normalize("/../.."), "/");
        assert_eq!((parent("/a/b"), parent("/a"), parent("/")), ("/a", "/", "/"));
    }
}
