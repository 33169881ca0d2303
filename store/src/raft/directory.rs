//! The directory of a store: whose it is, in which format, and that only one process has it.
//!
//! ```text
//!   FORMAT         "minik8s store 1": written last when a store is made, so that an unfinished one is told from a damaged one
//!   LOCK           locked as long as a process has the store open
//!   ACKNOWLEDGED   the index up to which the log was on disk for certain when this was written; a log that ends before it lost something
//!   raft/          sled's files
//! ```

use crate::{Error, Result};
use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// The newest directory format that is understood.
const FORMAT: u32 = 1;

const FORMAT_FILE: &str = "FORMAT";
const FORMAT_WORDS: &str = "minik8s store";
const LOCK_FILE: &str = "LOCK";
const ACKNOWLEDGED_FILE: &str = "ACKNOWLEDGED";
const RAFT_FOLDER: &str = "raft";

/// A directory that this process alone has open.
pub(super) struct Directory {
    path: PathBuf,
    /// Whether a store was made here before.
    complete: bool,
    _lock: File,
}

fn failed(path: &Path) -> impl Fn(io::Error) -> Error + '_ {
    move |error| Error::Io { path: path.into(), reason: error.to_string() }
}

impl Directory {
    /// Takes a directory that holds a store, or may come to hold one: it is empty or does not
    /// exist.
    pub(super) fn open(path: &Path) -> Result<Directory> {
        let complete = read_format(path)?;
        if !complete && !is_vacant(path)? {
            return Err(Error::Foreign { path: path.into() });
        }
        fs::create_dir_all(path).map_err(failed(path))?;
        let lock_path = path.join(LOCK_FILE);
        let lock =
            File::options().create(true).truncate(false).write(true).open(&lock_path).map_err(failed(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Locked { path: path.into() }),
            Err(TryLockError::Error(error)) => return Err(failed(&lock_path)(error)),
        }
        // Another process may have finished it while this one waited for the lock.
        let complete = complete || read_format(path)?;
        let directory = Directory { path: path.into(), complete, _lock: lock };
        if !complete {
            directory.clear_unfinished()?;
        }
        Ok(directory)
    }

    pub(super) fn raft_folder(&self) -> PathBuf {
        self.path.join(RAFT_FOLDER)
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// The store in it has been made.
    pub(super) fn complete(&mut self) -> Result<()> {
        let folder = self.raft_folder();
        sync_folder(&folder).map_err(failed(&folder))?;
        self.replace(FORMAT_FILE, &format!("{FORMAT_WORDS} {FORMAT}\n"))?;
        self.complete = true;
        Ok(())
    }

    /// Notes that the log is on disk up to an index.
    pub(super) fn acknowledge(&self, index: u64) -> Result<()> {
        let line = index.to_string();
        self.replace(ACKNOWLEDGED_FILE, &format!("{line} {:08x}\n", crc32fast::hash(line.as_bytes())))
    }

    /// The index noted last; 0 if none was.
    pub(super) fn acknowledged(&self) -> Result<u64> {
        let path = self.path.join(ACKNOWLEDGED_FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => String::new(),
            Err(error) => return Err(failed(&path)(error)),
        };
        let noted = text.trim_end().split_once(' ').and_then(|(line, checksum)| {
            let intact = u32::from_str_radix(checksum, 16) == Ok(crc32fast::hash(line.as_bytes()));
            line.parse().ok().filter(|_| intact)
        });
        noted.ok_or_else(|| Error::Damaged {
            path: self.path.clone(),
            what: format!("the file {ACKNOWLEDGED_FILE} does not match its checksum"),
        })
    }

    /// Replaces a file so that after a crash it is the old or the new one.
    fn replace(&self, name: &str, contents: &str) -> Result<()> {
        let (path, new) = (self.path.join(name), self.path.join(format!("{name}.new")));
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(contents.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            sync_folder(&self.path)
        };
        write().map_err(failed(&path))
    }

    /// What a process left that died while it made a store.
    fn clear_unfinished(&self) -> Result<()> {
        let folder = self.raft_folder();
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&folder)(error)),
            _ => Ok(()),
        }
    }
}

/// Makes the entries of a folder durable, where the operating system has a call for it.
#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes the entries of a folder durable, where the operating system has a call for it.
#[cfg(not(unix))]
fn sync_folder(_path: &Path) -> io::Result<()> {
    Ok(())
}

/// Whether a directory says that it holds a store; an error if that is one of another format.
fn read_format(path: &Path) -> Result<bool> {
    let file = path.join(FORMAT_FILE);
    let text = match fs::read(&file) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(false);
        }
        Err(error) => return Err(failed(&file)(error)),
    };
    match text.trim_end().strip_prefix(FORMAT_WORDS).and_then(|rest| rest.trim_start().parse().ok()) {
        Some(FORMAT) => Ok(true),
        Some(found) => Err(Error::NewerFormat { path: path.into(), found, known: FORMAT }),
        None => Err(Error::Foreign { path: path.into() }),
    }
}

/// Whether a directory holds nothing, or only what an unfinished store leaves.
fn is_vacant(path: &Path) -> Result<bool> {
    const OWN: [&str; 3] = [LOCK_FILE, RAFT_FOLDER, "FORMAT.new"];
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(failed(path)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(failed(path))?.file_name());
    }
    // Only a lock makes a raft folder ours to clear.
    let locked = names.iter().any(|name| name == LOCK_FILE);
    Ok(names.is_empty() || locked && names.iter().all(|name| OWN.iter().any(|own| name == own)))
}
