//! The file system of a node, which kubelet and runtime share.
//!
//! CRI names host paths: the kubelet fills `/var/lib/kubelet/pods/<uid>/volumes/…` and the runtime mounts it; the runtime
//! writes `/var/log/pods/…/0.log` and the kubelet reads it. A simulated node keeps all of that in memory ([`MemoryFs`]),
//! another in a folder ([`DiskFs`]).

mod disk;
mod memory;
mod resolve;
mod tmpfs;
mod watch;

pub use disk::DiskFs;
pub use memory::MemoryFs;
pub use resolve::{Lookup, Resolved, normalize, parent, resolve};
pub use watch::{FileWatch, FileWatchers};

use bytes::Bytes;
use std::io;

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
}

/// What is known about a file without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// What it is.
    pub kind: FileKind,
    /// Length in bytes; 0 for directories.
    pub len: u64,
    /// Permission bits, such as `0o644`.
    pub mode: u32,
    /// When the content last changed.
    pub modified: jiff::Timestamp,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The name, without the directory.
    pub name: String,
    /// What it is; a symbolic link is not followed.
    pub kind: FileKind,
}

/// A node's files, by absolute slash-separated paths, on every operating system alike.
///
/// Calls do not wait for anything but the disk, so they are not async. Symbolic links are followed, inside the file system
/// only, except where a method says otherwise. Errors have the kinds of `std::io` and name the path.
pub trait NodeFs: Send + Sync + 'static {
    /// The whole content of a file.
    fn read(&self, path: &str) -> io::Result<Bytes>;
    /// Up to `length` bytes from `offset`; fewer at the end of the file, none behind it.
    fn read_at(&self, path: &str, offset: u64, length: usize) -> io::Result<Bytes>;
    /// Creates a file or replaces its content. The directory must exist.
    fn write(&self, path: &str, data: &[u8]) -> io::Result<()>;
    /// Appends to a file, creating it where needed. The directory must exist.
    fn append(&self, path: &str, data: &[u8]) -> io::Result<()>;
    /// What `path` leads to.
    fn metadata(&self, path: &str) -> io::Result<Metadata>;
    /// What `path` itself is: a symbolic link is not followed.
    fn symlink_metadata(&self, path: &str) -> io::Result<Metadata>;
    /// Names in a directory, sorted.
    fn list(&self, path: &str) -> io::Result<Vec<DirEntry>>;
    /// Creates a directory and what is missing above it. An existing one is no error.
    fn create_dir_all(&self, path: &str) -> io::Result<()>;
    /// Mounts a `tmpfs`: [`NodeFs::create_dir_all`] of a directory whose files are said to be in memory, until it is removed.
    fn create_tmpfs(&self, path: &str) -> io::Result<()>;
    /// Whether a path is in such a directory.
    fn is_tmpfs(&self, path: &str) -> bool;
    /// Removes a file or a symbolic link.
    fn remove_file(&self, path: &str) -> io::Result<()>;
    /// Removes whatever is there, with all below it. A missing path is no error.
    fn remove_all(&self, path: &str) -> io::Result<()>;
    /// Moves a file, link or directory, replacing a file or link at the new path, in one step.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Creates a symbolic link at `link` with the text `target`.
    fn symlink(&self, target: &str, link: &str) -> io::Result<()>;
    /// The text of a symbolic link.
    fn read_link(&self, path: &str) -> io::Result<String>;
    /// Sets the permission bits.
    fn set_mode(&self, path: &str, mode: u32) -> io::Result<()>;
    /// Sets when the content last changed.
    fn set_modified(&self, path: &str, modified: jiff::Timestamp) -> io::Result<()>;
    /// Bytes in use and bytes there are.
    fn usage(&self) -> io::Result<(u64, u64)>;
    /// Wakes when this file, or a name in this directory, is changed *through this file system*: written, appended to,
    /// created, renamed or removed. The path need not exist yet. Changes made before the call do not count.
    fn watch(&self, path: &str) -> FileWatch;

    /// Whether `path` leads to something.
    fn exists(&self, path: &str) -> bool {
        self.metadata(path).is_ok()
    }
}
