//! What can go wrong, by meaning.

use crate::{LeaseId, Revision};
use std::path::PathBuf;

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The revision asked for has been forgotten: list again, and watch from there.
    #[error("revision {requested} has been compacted, the oldest one left is {compacted}")]
    Compacted {
        /// What was asked for.
        requested: Revision,
        /// The oldest revision that can be read, and watched from.
        compacted: Revision,
    },
    /// The revision asked for has not happened yet.
    #[error("revision {requested} is in the future, the store is at {current}")]
    FutureRevision {
        /// What was asked for.
        requested: Revision,
        /// Where the store is.
        current: Revision,
    },
    /// Too many writes wait for the disk. Nothing was written; try again in a moment.
    #[error("too many writes are waiting for the disk, try again")]
    Overloaded,
    /// A transaction is larger than the store takes. Nothing was written.
    #[error("the transaction has {bytes} bytes, at most {limit} are taken")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The largest size that is taken.
        limit: usize,
    },
    /// A request that makes no sense, whatever the state of the store.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// The lease does not exist, or has expired.
    #[error("lease {0} not found")]
    LeaseNotFound(LeaseId),
    /// The store cannot write any more, but goes on serving reads. Writes that were on their way
    /// when it happened may or may not be there after a restart.
    #[error("the store is read-only: {reason}")]
    ReadOnly {
        /// What happened, and where.
        reason: String,
    },
    /// No member leads at the moment; nothing was written.
    #[error("the store has no leader at the moment")]
    NoLeader,
    /// The leader changed, or did not answer in time, while the write was on its way: it may or may
    /// not have been committed.
    #[error("the leader changed or did not answer in time, the outcome of the write is unknown")]
    OutcomeUnknown,
    /// A value is kept in a form that cannot be read.
    #[error("unable to transform key {key:?}: {why}")]
    Unreadable {
        /// Its key.
        key: String,
        /// Why it cannot.
        why: String,
    },
    /// The watcher did not keep up with the changes and was closed: list again.
    #[error("the watcher fell more than {capacity} batches behind and was closed")]
    WatchLagged {
        /// How many batches it may fall behind.
        capacity: usize,
    },
    /// The store has been shut down.
    #[error("the store is shut down")]
    Closed,
    /// What is on disk is not what was written there. Nothing was changed.
    #[error("the store in {} is damaged: {what}", path.display())]
    Damaged {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong, and where.
        what: String,
    },
    /// The directory holds something that is not a store. Nothing was changed.
    #[error("{} is not empty and not a minik8s store; choose another directory", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// The directory was written in a format that this program does not know.
    #[error("the store in {} has format {found}, this program knows only up to {known}; use a newer minik8s", path.display())]
    NewerFormat {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that is understood.
        known: u32,
    },
    /// The directory was written in a format that this program does not read any more. Nothing was changed.
    #[error("the store in {} has format {found}, this program knows only {known}; use the minik8s that wrote it", path.display())]
    OlderFormat {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The format that is understood.
        known: u32,
    },
    /// Another process has the directory open.
    #[error("the store in {} is in use by another process", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("{}: {reason}", path.display())]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// The operating system's words.
        reason: String,
    },
}

/// The result of everything here.
pub type Result<T> = std::result::Result<T, Error>;
