//! Where events go: standard output, or a file that is set aside when it has grown.
//!
//! ```text
//!  audit.log  ── larger than maxsize ──► audit-2026-01-02T03-04-05.678.log   the newest maxbackup of them, none older than maxage
//! ```
//! Names and limits are those of the log rotation that kube-apiserver uses (`gopkg.in/natefinch/lumberjack.v2`). An event
//! is written before its request goes on, in one write, so that a killed server leaves no half of one behind another's.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use crate::errors::Error;

/// The path that means standard output.
const STDOUT: &str = "-";
/// The size of a file where none is said, as kube-apiserver has it, in megabytes.
const DEFAULT_MAX_SIZE: u64 = 100;
const MEGABYTE: u64 = 1024 * 1024;
/// When a file was set aside, in its name.
const STAMP: &str = "%Y-%m-%dT%H-%M-%S.%3f";

/// Where events go, and what is kept of them.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// The file, or `-` for standard output (`--audit-log-path`).
    pub path: PathBuf,
    /// Megabytes from which on a file is set aside; 0 for 100 (`--audit-log-maxsize`).
    pub max_size: u64,
    /// How many files that were set aside are kept; 0 for all (`--audit-log-maxbackup`).
    pub max_backups: usize,
    /// For how many days they are kept; 0 for ever (`--audit-log-maxage`).
    pub max_age: u32,
}

/// The log, open.
pub(super) struct Log {
    options: LogOptions,
    output: Mutex<Output>,
}

enum Output {
    Stdout,
    File { file: File, size: u64 },
}

impl Log {
    /// Opens the file, or creates it and the folder it is in.
    pub(super) fn open(options: LogOptions) -> Result<Log, Error> {
        let cannot = |error: io::Error| Error::Config(format!("audit log {}: {error}", options.path.display()));
        let output = if options.path == Path::new(STDOUT) {
            Output::Stdout
        } else {
            if let Some(folder) = options.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
                fs::create_dir_all(folder).map_err(cannot)?;
            }
            open(&options.path).map_err(cannot)?
        };
        Ok(Log { options, output: Mutex::new(output) })
    }

    /// Appends a line.
    pub(super) fn write(&self, line: &[u8], now: Timestamp) -> io::Result<()> {
        let mut output = self.output.lock();
        if let Output::File { size, .. } = &*output
            && *size > 0
            && size + line.len() as u64 > self.max_bytes()
        {
            self.rotate(&mut output, now)?;
        }
        match &mut *output {
            Output::Stdout => io::stdout().lock().write_all(line),
            Output::File { file, size } => {
                file.write_all(line)?;
                *size += line.len() as u64;
                Ok(())
            }
        }
    }

    fn max_bytes(&self) -> u64 {
        match self.options.max_size {
            0 => DEFAULT_MAX_SIZE * MEGABYTE,
            megabytes => megabytes.saturating_mul(MEGABYTE),
        }
    }

    fn rotate(&self, output: &mut Output, now: Timestamp) -> io::Result<()> {
        let path = &self.options.path;
        let (stem, extension) = parts(path);
        let aside = path.with_file_name(format!("{stem}-{}{extension}", now.strftime(STAMP)));
        if aside.exists() {
            // Two within a millisecond: this one grows a little longer, so that the other stays.
            return Ok(());
        }
        fs::rename(path, aside)?;
        *output = open(path)?;
        self.forget_old(now)
    }

    /// Removes the files that are too many or too old.
    fn forget_old(&self, now: Timestamp) -> io::Result<()> {
        let LogOptions { path, max_backups, max_age, .. } = &self.options;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let (stem, extension) = parts(path);
        let mut aside = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let stamp = name.to_str().and_then(|name| name.strip_prefix(&format!("{stem}-"))?.strip_suffix(&extension));
            if let Some(at) = stamp.and_then(set_aside_at) {
                aside.push((at, entry.path()));
            }
        }
        aside.sort_by(|a, b| b.cmp(a));
        let age = SignedDuration::from_hours(24 * i64::from(*max_age));
        for (rank, (at, path)) in aside.into_iter().enumerate() {
            let too_many = *max_backups > 0 && rank >= *max_backups;
            let too_old = *max_age > 0 && now.duration_since(at) > age;
            if too_many || too_old {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<Output> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    // What is in it is nobody else's business.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    let size = file.metadata()?.len();
    Ok(Output::File { file, size })
}

/// A file's name up to its extension, and the extension with its dot.
fn parts(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
    let extension = text(path.extension()).map(|extension| format!(".{extension}"));
    (text(path.file_stem()).unwrap_or_default(), extension.unwrap_or_default())
}

/// When a file was set aside, by its name.
fn set_aside_at(stamp: &str) -> Option<Timestamp> {
    let at = DateTime::strptime("%Y-%m-%dT%H-%M-%S%.f", stamp).ok()?;
    Some(at.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_has_grown_is_set_aside_and_old_ones_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("logs").join("audit.log");
        let options = LogOptions { path: path.clone(), max_size: 1, max_backups: 2, max_age: 3 };
        let log = Log::open(options.clone()).expect("the log opens");
        let line = [b'x'; 700 * 1024];
        let day = |day: i8| jiff::civil::date(2026, 1, day).at(3, 4, 5, 678_000_000).in_tz("UTC").expect("a time");
        let names = || {
            let entries = fs::read_dir(path.parent().expect("a folder")).expect("the folder");
            let mut names: Vec<String> =
                entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names.join(" ")
        };
        for (at, expect) in [
            (1, "audit.log"),
            (2, "audit-2026-01-02T03-04-05.678.log audit.log"),
            (3, "audit-2026-01-02T03-04-05.678.log audit-2026-01-03T03-04-05.678.log audit.log"),
            (4, "audit-2026-01-03T03-04-05.678.log audit-2026-01-04T03-04-05.678.log audit.log"),
            (9, "audit-2026-01-09T03-04-05.678.log audit.log"),
        ] {
            log.write(&line, day(at).timestamp()).expect("written");
            assert_eq!(names(), expect);
        }
        // Another server goes on where this one has stopped.
        let log = Log::open(options).expect("the log opens again");
        log.write(&line, day(10).timestamp()).expect("written");
        assert_eq!(names(), "audit-2026-01-09T03-04-05.678.log audit-2026-01-10T03-04-05.678.log audit.log");
    }

    #[test]
    fn a_log_that_cannot_be_opened_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let options = LogOptions { path: folder.path().to_owned(), ..LogOptions::default() };
        let error = Log::open(options).err().expect("a folder is no file").to_string();
        assert!(error.starts_with("configuration: audit log "), "{error}");
    }
}
