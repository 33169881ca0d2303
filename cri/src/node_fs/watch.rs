//! Waking those who wait for a file to change.

use super::{normalize, parent};
use minik8s_clock::{Watched, Watcher};
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// Above this many watched paths, those that nobody watches any more are dropped before another is added.
const SWEEP_ABOVE: usize = 256;

/// Waits for changes of one path.
#[derive(Debug, Clone)]
pub struct FileWatch {
    changes: Watcher<u64>,
}

impl FileWatch {
    /// Completes when the path has changed since the watch began or since the last call; several changes count as one.
    /// Never completes once the file system is gone.
    pub async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Who watches what: the part of a [`super::NodeFs`] that [`super::NodeFs::watch`] needs.
#[derive(Debug, Default)]
pub struct FileWatchers {
    paths: Mutex<BTreeMap<String, Watched<u64>>>,
}

impl FileWatchers {
    /// Begins to watch a path.
    pub fn watch(&self, path: &str) -> FileWatch {
        let mut paths = self.paths.lock();
        if paths.len() > SWEEP_ABOVE {
            paths.retain(|_, sender| sender.watchers() > 0);
        }
        let sender = paths.entry(normalize(path)).or_insert_with(|| Watched::new(0));
        FileWatch { changes: sender.watch() }
    }

    /// Tells that a path's content has changed.
    pub fn content_changed(&self, path: &str) {
        let mut paths = self.paths.lock();
        let Some(sender) = paths.get(path) else {
            return;
        };
        if sender.watchers() == 0 {
            paths.remove(path);
        } else {
            sender.modify(|count| *count += 1);
        }
    }

    /// Tells that a name has come or gone, to those who watch it and to those who watch its directory.
    pub fn name_changed(&self, path: &str) {
        self.content_changed(path);
        self.content_changed(parent(path));
    }
}
