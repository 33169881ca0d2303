//! Which directories of a node are file systems in memory of their own.

use super::{normalize, parent};
use parking_lot::RwLock;
use std::collections::BTreeSet;

/// Where a `tmpfs` is mounted. What the files cost is counted with the rest.
#[derive(Debug, Default)]
pub(super) struct TmpfsMounts(RwLock<BTreeSet<String>>);

impl TmpfsMounts {
    /// Enters a mount point.
    pub fn add(&self, path: &str) {
        self.0.write().insert(normalize(path));
    }

    /// Whether a path is a mount point or below one.
    pub fn contains(&self, path: &str) -> bool {
        let mounts = self.0.read();
        let path = normalize(path);
        let mut at = path.as_str();
        while at != "/" {
            if mounts.contains(at) {
                return true;
            }
            at = parent(at);
        }
        false
    }

    /// Forgets a mount point and all below it: they were removed.
    pub fn forget(&self, path: &str) {
        let path = normalize(path);
        let below = format!("{path}/");
        self.0.write().retain(|mount| *mount != path && !mount.starts_with(&below));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_a_mount_is_in_it_until_it_is_removed() {
        let mounts = TmpfsMounts::default();
        mounts.add("/pods/a/volumes/x");
        assert!(mounts.contains("/pods/a/volumes/x") && mounts.contains("/pods/a/volumes/x/f"));
        assert!(!mounts.contains("/pods/a/volumes") && !mounts.contains("/pods/a/volumes/xy"));
        mounts.forget("/pods/a");
        assert!(!mounts.contains("/pods/a/volumes/x"));
    }
}
