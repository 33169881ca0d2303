//! A node's files in memory.

use super::resolve::not_found;
use super::tmpfs::TmpfsMounts;
use super::{
    DirEntry, FileKind, FileWatch, FileWatchers, Lookup, Metadata, NodeFs, Resolved, normalize, parent, resolve,
};
use bytes::Bytes;
use minik8s_clock::Clock;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::collections::btree_map::Range;
use std::io;
use std::ops::Bound;

/// What a name costs besides its content, so that many empty files are bounded too.
const NAME_COST_BYTES: u64 = 128;

/// A file system in memory, bounded; for simulated nodes, writable layers of containers, and tests.
///
/// All names stand in one ordered map by full path, so a directory's content is a range of it.
pub struct MemoryFs {
    clock: Clock,
    capacity: u64,
    tree: RwLock<Tree>,
    watchers: FileWatchers,
    tmpfs: TmpfsMounts,
}

#[derive(Default)]
struct Tree {
    nodes: BTreeMap<String, Node>,
    used: u64,
}

struct Node {
    content: Content,
    mode: u32,
    modified: jiff::Timestamp,
}

enum Content {
    File(Vec<u8>),
    Directory,
    Symlink(String),
}

impl MemoryFs {
    /// An empty file system that holds at most `capacity` bytes.
    pub fn new(clock: Clock, capacity: u64) -> MemoryFs {
        MemoryFs {
            clock,
            capacity,
            tree: RwLock::default(),
            watchers: FileWatchers::default(),
            tmpfs: TmpfsMounts::default(),
        }
    }

    fn node(&self, content: Content, mode: u32) -> Node {
        Node { content, mode, modified: self.clock.now() }
    }

    /// Puts content into a file, creating it where needed, by `change` of what it holds.
    fn put(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let mut tree = self.tree.write();
        let Resolved { path, found } = tree.resolve(path, true)?;
        let created = found == Lookup::Missing;
        match found {
            Lookup::Directory => {
                return Err(io::Error::new(io::ErrorKind::IsADirectory, format!("{path}: is a directory")));
            }
            Lookup::Missing => tree.insert(path.clone(), self.node(Content::File(Vec::new()), 0o644)),
            _ => {}
        }
        let (capacity, used) = (self.capacity, tree.used);
        let Some(node) = tree.nodes.get_mut(&path) else {
            return Err(not_found(&path));
        };
        let Content::File(data) = &mut node.content else {
            return Err(not_found(&path));
        };
        let before = data.len() as u64;
        change(data);
        let after = data.len() as u64;
        node.modified = self.clock.now();
        let now_used = used - before + after;
        if now_used > capacity && after > before {
            // What is over the bound is cut off, as a full disk cuts a write short.
            data.truncate(before as usize);
            tree.used = used;
            return Err(io::Error::new(io::ErrorKind::StorageFull, format!("{path}: no space left on device")));
        }
        tree.used = now_used;
        drop(tree);
        if created {
            self.watchers.name_changed(&path);
        } else {
            self.watchers.content_changed(&path);
        }
        Ok(())
    }
}

impl Node {
    fn kind(&self) -> FileKind {
        match self.content {
            Content::File(_) => FileKind::File,
            Content::Directory => FileKind::Directory,
            Content::Symlink(_) => FileKind::Symlink,
        }
    }

    fn metadata(&self) -> Metadata {
        Metadata { kind: self.kind(), len: self.len(), mode: self.mode, modified: self.modified }
    }

    fn len(&self) -> u64 {
        match &self.content {
            Content::File(data) => data.len() as u64,
            Content::Directory => 0,
            Content::Symlink(target) => target.len() as u64,
        }
    }
}

impl Tree {
    fn lookup(&self, path: &str) -> Lookup {
        match self.nodes.get(path).map(|node| &node.content) {
            None => Lookup::Missing,
            Some(Content::Directory) => Lookup::Directory,
            Some(Content::Symlink(target)) => Lookup::Symlink(target.clone()),
            Some(Content::File(_)) => Lookup::File,
        }
    }

    fn resolve(&self, path: &str, follow_last: bool) -> io::Result<Resolved> {
        resolve(path, follow_last, &|path| Ok(self.lookup(path)))
    }

    fn get(&self, path: &str, follow_last: bool) -> io::Result<(String, Option<&Node>)> {
        let resolved = self.resolve(path, follow_last)?;
        match self.nodes.get(&resolved.path) {
            Some(node) => Ok((resolved.path, Some(node))),
            None if resolved.path == "/" => Ok((resolved.path, None)),
            None => Err(not_found(path)),
        }
    }

    fn insert(&mut self, path: String, node: Node) {
        self.used += node.len() + path.len() as u64 + NAME_COST_BYTES;
        if let Some(previous) = self.nodes.insert(path.clone(), node) {
            self.used -= previous.len() + path.len() as u64 + NAME_COST_BYTES;
        }
    }

    fn remove(&mut self, path: &str) -> Option<Node> {
        let node = self.nodes.remove(path)?;
        self.used -= node.len() + path.len() as u64 + NAME_COST_BYTES;
        Some(node)
    }

    /// Everything below a directory, itself not among it.
    fn below(&self, path: &str) -> Range<'_, String, Node> {
        // '0' follows '/' in the order of bytes.
        let path = path.trim_end_matches('/');
        self.nodes.range::<String, _>((Bound::Excluded(format!("{path}/")), Bound::Excluded(format!("{path}0"))))
    }

    fn remove_below(&mut self, path: &str) {
        let below: Vec<String> = self.below(path).map(|(path, _)| path.clone()).collect();
        for path in below {
            self.remove(&path);
        }
    }
}

impl NodeFs for MemoryFs {
    fn read(&self, path: &str) -> io::Result<Bytes> {
        self.read_at(path, 0, usize::MAX)
    }

    fn read_at(&self, path: &str, offset: u64, length: usize) -> io::Result<Bytes> {
        let tree = self.tree.read();
        match tree.get(path, true)? {
            (_, Some(Node { content: Content::File(data), .. })) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(data.len());
                let end = start.saturating_add(length).min(data.len());
                Ok(Bytes::copy_from_slice(&data[start..end]))
            }
            _ => Err(io::Error::new(io::ErrorKind::IsADirectory, format!("{path}: is a directory"))),
        }
    }

    fn write(&self, path: &str, data: &[u8]) -> io::Result<()> {
        self.put(path, |content| {
            content.clear();
            content.extend_from_slice(data);
        })
    }

    fn append(&self, path: &str, data: &[u8]) -> io::Result<()> {
        self.put(path, |content| content.extend_from_slice(data))
    }

    fn metadata(&self, path: &str) -> io::Result<Metadata> {
        let tree = self.tree.read();
        Ok(tree.get(path, true)?.1.map_or_else(root_metadata, Node::metadata))
    }

    fn symlink_metadata(&self, path: &str) -> io::Result<Metadata> {
        let tree = self.tree.read();
        Ok(tree.get(path, false)?.1.map_or_else(root_metadata, Node::metadata))
    }

    fn list(&self, path: &str) -> io::Result<Vec<DirEntry>> {
        let tree = self.tree.read();
        let (resolved, node) = tree.get(path, true)?;
        if node.is_some_and(|node| node.kind() != FileKind::Directory) {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{path}: not a directory")));
        }
        let mut entries: Vec<DirEntry> = tree
            .below(&resolved)
            .filter(|(path, _)| parent(path) == resolved)
            .map(|(path, node)| DirEntry {
                name: path[path.rfind('/').map_or(0, |at| at + 1)..].to_string(),
                kind: node.kind(),
            })
            .collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn create_dir_all(&self, path: &str) -> io::Result<()> {
        let mut created = Vec::new();
        {
            let mut tree = self.tree.write();
            let mut at = String::new();
            for part in normalize(path).split('/').filter(|part| !part.is_empty()) {
                let Resolved { path, found } = tree.resolve(&format!("{at}/{part}"), true)?;
                match found {
                    Lookup::Directory => {}
                    Lookup::Missing if tree.used + NAME_COST_BYTES > self.capacity => {
                        return Err(io::Error::new(
                            io::ErrorKind::StorageFull,
                            format!("{path}: no space left on device"),
                        ));
                    }
                    Lookup::Missing => {
                        tree.insert(path.clone(), self.node(Content::Directory, 0o755));
                        created.push(path.clone());
                    }
                    _ => {
                        return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{path}: file exists")));
                    }
                }
                at = if path == "/" { String::new() } else { path };
            }
        }
        created.iter().for_each(|path| self.watchers.name_changed(path));
        Ok(())
    }

    fn create_tmpfs(&self, path: &str) -> io::Result<()> {
        self.create_dir_all(path)?;
        self.tmpfs.add(path);
        Ok(())
    }

    fn is_tmpfs(&self, path: &str) -> bool {
        self.tmpfs.contains(path)
    }

    fn remove_file(&self, path: &str) -> io::Result<()> {
        let resolved = {
            let mut tree = self.tree.write();
            let resolved = tree.resolve(path, false)?;
            match resolved.found {
                Lookup::Missing => return Err(not_found(path)),
                Lookup::Directory => {
                    return Err(io::Error::new(io::ErrorKind::IsADirectory, format!("{path}: is a directory")));
                }
                _ => drop(tree.remove(&resolved.path)),
            }
            resolved.path
        };
        self.watchers.name_changed(&resolved);
        Ok(())
    }

    fn remove_all(&self, path: &str) -> io::Result<()> {
        self.tmpfs.forget(path);
        let resolved = {
            let mut tree = self.tree.write();
            let resolved = match tree.resolve(path, false) {
                Ok(resolved) => resolved.path,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            };
            tree.remove(&resolved);
            tree.remove_below(&resolved);
            resolved
        };
        self.watchers.name_changed(&resolved);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (source, target) = {
            let mut tree = self.tree.write();
            let source = tree.resolve(from, false)?;
            let target = tree.resolve(to, false)?;
            if source.found == Lookup::Missing {
                return Err(not_found(from));
            }
            if source.path == target.path {
                return Ok(());
            }
            if target.path.starts_with(&format!("{}/", source.path)) {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{to}: inside of {from}")));
            }
            if target.found == Lookup::Directory && tree.below(&target.path).next().is_some() {
                return Err(io::Error::new(io::ErrorKind::DirectoryNotEmpty, format!("{to}: directory not empty")));
            }
            let below: Vec<String> = tree.below(&source.path).map(|(path, _)| path.clone()).collect();
            for path in std::iter::once(source.path.clone()).chain(below) {
                if let Some(node) = tree.remove(&path) {
                    tree.insert(format!("{}{}", target.path, &path[source.path.len()..]), node);
                }
            }
            (source.path, target.path)
        };
        self.watchers.name_changed(&source);
        self.watchers.name_changed(&target);
        Ok(())
    }

    fn symlink(&self, target: &str, link: &str) -> io::Result<()> {
        let resolved = {
            let mut tree = self.tree.write();
            let resolved = tree.resolve(link, false)?;
            if resolved.found != Lookup::Missing {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{link}: file exists")));
            }
            if tree.used + NAME_COST_BYTES > self.capacity {
                return Err(io::Error::new(io::ErrorKind::StorageFull, format!("{link}: no space left on device")));
            }
            tree.insert(resolved.path.clone(), self.node(Content::Symlink(target.to_string()), 0o777));
            resolved.path
        };
        self.watchers.name_changed(&resolved);
        Ok(())
    }

    fn read_link(&self, path: &str) -> io::Result<String> {
        match self.tree.read().resolve(path, false)?.found {
            Lookup::Symlink(target) => Ok(target),
            Lookup::Missing => Err(not_found(path)),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{path}: not a symbolic link"))),
        }
    }

    fn set_mode(&self, path: &str, mode: u32) -> io::Result<()> {
        let mut tree = self.tree.write();
        let resolved = tree.resolve(path, true)?.path;
        match tree.nodes.get_mut(&resolved) {
            Some(node) => node.mode = mode & 0o7777,
            None => return Err(not_found(path)),
        }
        Ok(())
    }

    fn set_modified(&self, path: &str, modified: jiff::Timestamp) -> io::Result<()> {
        let mut tree = self.tree.write();
        let resolved = tree.resolve(path, true)?.path;
        let node = tree.nodes.get_mut(&resolved).ok_or_else(|| not_found(path))?;
        node.modified = modified;
        Ok(())
    }

    fn usage(&self) -> io::Result<(u64, u64)> {
        Ok((self.tree.read().used, self.capacity))
    }

    fn watch(&self, path: &str) -> FileWatch {
        // Watches go by the real path, so that a log is found through the links under /var/log/containers.
        let resolved = self.tree.read().resolve(path, true).map(|resolved| resolved.path);
        self.watchers.watch(resolved.as_deref().unwrap_or(path))
    }
}

fn root_metadata() -> Metadata {
    Metadata { kind: FileKind::Directory, len: 0, mode: 0o755, modified: jiff::Timestamp::UNIX_EPOCH }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fs(capacity: u64) -> MemoryFs {
        let (clock, _) = Clock::simulated(jiff::Timestamp::UNIX_EPOCH);
        MemoryFs::new(clock, capacity)
    }

    #[test]
    fn a_full_file_system_refuses_and_keeps_what_it_has() {
        let fs = fs(1000);
        fs.write("/log", b"one").expect("fits");
        let error = fs.append("/log", &[0; 1000]).expect_err("does not fit");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs.read("/log").expect("still there"), "one");
        fs.remove_file("/log").expect("removed");
        assert_eq!(fs.usage().expect("known").0, 0);
    }

    #[tokio::test]
    async fn a_watch_sees_appends_through_links_and_new_names_in_a_directory() {
        let fs = fs(10_000);
        fs.create_dir_all("/var/log/pods").expect("created");
        fs.symlink("/var/log/pods/0.log", "/var/log/link").expect("linked");
        let mut directory = fs.watch("/var/log/pods");
        fs.append("/var/log/link", b"a\n").expect("created through the link");
        directory.changed().await;
        let mut file = fs.watch("/var/log/link");
        fs.append("/var/log/pods/0.log", b"b\n").expect("appended");
        file.changed().await;
        assert_eq!(fs.read("/var/log/link").expect("readable"), "a\nb\n");
    }
}
