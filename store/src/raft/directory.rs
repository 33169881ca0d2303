//! The directory of a store: whose it is, in which format, and that only one process has it.
//!
//! ```text
//!   FORMAT         "minik8s store 2": written last when a store is made, so that an unfinished one is told from a damaged one
//!   LOCK           locked as long as a process has the store open
//!   ACKNOWLEDGED   up to which index writes were answered, and up to which byte of the log that was; a log that ends
//!                  before it, or is not whole before it, lost something
//!   log/           the Raft log, in segments
//!   raft/          sled's files, with the snapshots
//! ```
//!
//! A flipped bit at the end of a log looks like the torn end that a crash leaves. What is to be told from a crash is
//! therefore noted elsewhere, after the log is on disk and before anybody is answered. The note itself is not synced,
//! which costs a system call and no wait: after a kill it is exact, and after a power cut it is true, though perhaps some
//! seconds old.

use super::log::{Extent, sync_folder};
use crate::{Error, Result};
use std::{
    fs::{self, File, TryLockError},
    io::{self, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

/// The directory format that is understood.
const FORMAT: u32 = 2;

const FORMAT_FILE: &str = "FORMAT";
const FORMAT_WORDS: &str = "minik8s store";
const LOCK_FILE: &str = "LOCK";
const ACKNOWLEDGED_FILE: &str = "ACKNOWLEDGED";
const RAFT_FOLDER: &str = "raft";
const LOG_FOLDER: &str = "log";

/// Notes are written in turn into two places of the file, so that a power cut can tear only one of them.
const NOTES: u64 = 2;
/// `{index:020} {segment:020} {end:020} {crc32 of that:08x}` and a line's end.
const NOTE_BYTES: usize = 72;

/// What was promised to somebody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Acknowledged {
    /// The newest entry of the log that was answered.
    pub(super) index: u64,
    /// How far the log was on disk.
    pub(super) extent: Extent,
}

/// A directory that this process alone has open.
pub(super) struct Directory {
    path: PathBuf,
    /// The file for notes; none before the store in it has been made.
    notes: Option<Notes>,
    _lock: File,
}

/// The file that says what was acknowledged, open.
struct Notes {
    file: File,
    /// How many were written, which says where the next one goes.
    written: u64,
    newest: Acknowledged,
}

impl Notes {
    fn put(&mut self, noted: Acknowledged) -> io::Result<()> {
        self.newest.index = self.newest.index.max(noted.index);
        self.newest.extent = self.newest.extent.max(noted.extent);
        self.file.seek(SeekFrom::Start(self.written % NOTES * NOTE_BYTES as u64))?;
        self.written += 1;
        self.file.write_all(note(self.newest).as_bytes())
    }
}

fn note(Acknowledged { index, extent: Extent { segment, end } }: Acknowledged) -> String {
    let numbers = format!("{index:020} {segment:020} {end:020}");
    format!("{numbers} {:08x}\n", crc32fast::hash(numbers.as_bytes()))
}

/// The newest intact note of a file; none if there is no intact one.
fn newest_note(text: &str) -> Option<Acknowledged> {
    let intact = |line: &str| {
        let (numbers, checksum) = line.rsplit_once(' ')?;
        if u32::from_str_radix(checksum, 16) != Ok(crc32fast::hash(numbers.as_bytes())) {
            return None;
        }
        let mut numbers = numbers.split(' ').map(str::parse);
        let mut number = || numbers.next()?.ok();
        Some(Acknowledged { index: number()?, extent: Extent { segment: number()?, end: number()? } })
    };
    text.lines().filter_map(intact).max_by_key(|noted| (noted.index, noted.extent))
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
        let mut directory = Directory { path: path.into(), notes: None, _lock: lock };
        if complete {
            directory.open_notes()?;
        } else {
            directory.clear_unfinished()?;
        }
        Ok(directory)
    }

    pub(super) fn raft_folder(&self) -> PathBuf {
        self.path.join(RAFT_FOLDER)
    }

    pub(super) fn log_folder(&self) -> PathBuf {
        self.path.join(LOG_FOLDER)
    }

    pub(super) fn is_complete(&self) -> bool {
        self.notes.is_some()
    }

    /// The store in it has been made.
    pub(super) fn complete(&mut self) -> Result<()> {
        for folder in [self.raft_folder(), self.log_folder()] {
            sync_folder(&folder).map_err(failed(&folder))?;
        }
        self.replace(FORMAT_FILE, &format!("{FORMAT_WORDS} {FORMAT}\n"))?;
        self.open_notes()
    }

    /// Notes what may now be acknowledged, as it is on disk. Whether the note gets there is left to the operating system.
    pub(super) fn note(&mut self, noted: Acknowledged) -> Result<()> {
        let path = self.path.join(ACKNOWLEDGED_FILE);
        self.notes.as_mut().map_or(Ok(()), |notes| notes.put(noted)).map_err(failed(&path))
    }

    /// Notes it so that the note is on disk itself.
    pub(super) fn acknowledge(&mut self, noted: Acknowledged) -> Result<()> {
        self.note(noted)?;
        let path = self.path.join(ACKNOWLEDGED_FILE);
        self.notes.as_ref().map_or(Ok(()), |notes| notes.file.sync_data()).map_err(failed(&path))
    }

    /// What was noted last; nothing if nothing was.
    pub(super) fn acknowledged(&self) -> Acknowledged {
        self.notes.as_ref().map_or_else(Acknowledged::default, |notes| notes.newest)
    }

    /// Reads what was noted. The file is made with its full length and synced, for a power cut may leave the end of a
    /// file that grew as zeros.
    fn open_notes(&mut self) -> Result<()> {
        let path = self.path.join(ACKNOWLEDGED_FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(&path)(error)),
        };
        let newest = match &bytes {
            Some(bytes) => newest_note(&String::from_utf8_lossy(bytes)).ok_or_else(|| Error::Damaged {
                path: self.path.clone(),
                what: format!("the file {ACKNOWLEDGED_FILE} does not match its checksum"),
            })?,
            None => Acknowledged::default(),
        };
        if bytes.is_none_or(|bytes| bytes.len() as u64 != NOTES * NOTE_BYTES as u64) {
            self.replace(ACKNOWLEDGED_FILE, &note(newest).repeat(NOTES as usize))?;
        }
        let file = File::options().write(true).open(&path).map_err(failed(&path))?;
        self.notes = Some(Notes { file, written: 0, newest });
        Ok(())
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
        for folder in [self.raft_folder(), self.log_folder()] {
            match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&folder)(error)),
                _ => {}
            }
        }
        Ok(())
    }
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
        Some(found) if found < FORMAT => Err(Error::OlderFormat { path: path.into(), found, known: FORMAT }),
        Some(found) => Err(Error::NewerFormat { path: path.into(), found, known: FORMAT }),
        None => Err(Error::Foreign { path: path.into() }),
    }
}

/// Whether a directory holds nothing, or only what an unfinished store leaves.
fn is_vacant(path: &Path) -> Result<bool> {
    const OWN: [&str; 4] = [LOCK_FILE, RAFT_FOLDER, LOG_FOLDER, "FORMAT.new"];
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
