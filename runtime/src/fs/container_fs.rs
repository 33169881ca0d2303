//! Mounts, special files, the writable layer and the image, seen as one tree.

use super::device::Device;
use super::proc::{self, ProcNode};
use super::{Layer, LayerNode};
use crate::process::{Cgroup, MemoryMeter, ProcessTable};
use bytes::Bytes;
use minik8s_clock::Clock;
use minik8s_cri::{DirEntry, FileKind, Lookup, MemoryFs, Metadata, NodeFs, Resolved, normalize, parent, resolve};
use parking_lot::RwLock;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, OnceLock};

/// How much one container may write into its own layer, in real memory of the machine that simulates it.
pub const WRITABLE_LAYER_BYTES: u64 = 64 * 1024 * 1024;

/// What a runtime mounts into every container (`libcontainer/specconv/example.go`).
const SYSTEM_MOUNTS: &str = "\
proc /proc proc rw,nosuid,nodev,noexec,relatime 0 0
tmpfs /dev tmpfs rw,nosuid,size=65536k,mode=755 0 0
sysfs /sys sysfs ro,nosuid,nodev,noexec,relatime 0 0
cgroup /sys/fs/cgroup cgroup2 ro,nosuid,nodev,noexec,relatime,nsdelegate,memory_recursiveprot 0 0
";

/// A place in the node's file system, or an image, seen at a path of the container.
#[derive(Clone)]
pub struct Mount {
    /// Where the container sees it; normalized.
    pub container_path: String,
    /// Where it is on the node; empty for an image.
    pub host_path: String,
    /// The image, in place of a place on the node.
    pub image: Option<ImageTree>,
    /// Whether the container may not write to it.
    pub read_only: bool,
}

/// The files of an image, or those below one of its directories. They cannot be changed.
#[derive(Clone)]
pub struct ImageTree {
    /// The image's layers, from the top.
    layers: Vec<Arc<Layer>>,
    /// The directory; normalized.
    root: String,
}

impl ImageTree {
    /// What an image has at `root`; `None` if that is nothing. Layers are given from the top.
    pub fn new(layers: Vec<Arc<Layer>>, root: &str) -> Option<ImageTree> {
        let tree = ImageTree { layers, root: normalize(root) };
        (tree.root == "/" || tree.get("").is_some()).then_some(tree)
    }

    /// The path in the image; `rest` begins with a slash, or is empty for the tree itself.
    fn path(&self, rest: &str) -> String {
        normalize(&format!("{}{rest}", self.root))
    }

    fn get(&self, rest: &str) -> Option<&LayerNode> {
        let path = self.path(rest);
        self.layers.iter().find_map(|layer| layer.get(&path))
    }

    fn names(&self, rest: &str) -> BTreeMap<String, FileKind> {
        let path = self.path(rest);
        let layers = self.layers.iter().rev();
        layers
            .flat_map(|layer| {
                layer.names(&path).map(|(name, node)| (name.to_string(), kind_of(node))).collect::<Vec<_>>()
            })
            .collect()
    }
}

/// A kind of file system, as `statfs(2)` tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filesystem {
    /// The image and the writable layer.
    Overlay,
    /// In memory.
    Tmpfs,
    /// The node's disk.
    Ext4,
    /// `/proc`.
    Proc,
}

impl Filesystem {
    /// Its number (`linux/magic.h`).
    pub fn magic(self) -> u32 {
        match self {
            Filesystem::Overlay => 0x794c_7630,
            Filesystem::Tmpfs => 0x0102_1994,
            Filesystem::Ext4 => 0xef53,
            Filesystem::Proc => 0x9fa0,
        }
    }
}

/// The files of one container.
pub struct ContainerFs {
    clock: Clock,
    node: Arc<dyn NodeFs>,
    /// The deepest paths first, so that the first match is the innermost mount.
    mounts: Vec<Mount>,
    layers: Vec<Arc<Layer>>,
    upper: OnceLock<MemoryFs>,
    removed: RwLock<BTreeSet<String>>,
    read_only: bool,
    processes: ProcessTable,
    cgroup: Cgroup,
}

/// What stands behind a path without symbolic links.
enum Place<'a> {
    Mounted {
        path: String,
        mount: &'a Mount,
    },
    Device(Device),
    Proc,
    Upper(&'a MemoryFs),
    Layer(&'a LayerNode),
    /// A directory that only exists because something is mounted below it, or the root.
    Implied,
    Missing,
}

/// Has another container's files do what is asked of a path below `/proc/PID/root`.
macro_rules! elsewhere {
    ($files:ident, $path:ident, $do:ident $(, $argument:ident)*) => {
        if let Some((files, path)) = proc::root($files, $path) {
            return files.$do(path $(, $argument)*);
        }
    };
}

impl ContainerFs {
    /// The files of a container of an image; layers are given from the top.
    pub fn new(
        clock: Clock,
        node: Arc<dyn NodeFs>,
        layers: Vec<Arc<Layer>>,
        mut mounts: Vec<Mount>,
        read_only: bool,
        processes: ProcessTable,
        cgroup: Cgroup,
    ) -> ContainerFs {
        let (upper, removed) = (OnceLock::new(), RwLock::default());
        let mut fs =
            ContainerFs { clock, node, mounts: Vec::new(), layers, upper, removed, read_only, processes, cgroup };
        for mount in &mut mounts {
            mount.container_path = fs.mount_point(&normalize(&mount.container_path));
        }
        mounts.sort_by_key(|mount| std::cmp::Reverse(mount.container_path.len()));
        fs.mounts = mounts;
        fs
    }

    /// Where a mount really lands: the image's own links on the way to it are followed, as runc follows them within the
    /// root (`/var/run` is a link to `/run` in most images).
    fn mount_point(&self, path: &str) -> String {
        let mut at = String::new();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let next = format!("{at}/{name}");
            at = match self.resolve(&next, true) {
                Ok(Resolved { found: Lookup::Missing, .. }) | Err(_) => next,
                Ok(found) => found.path.trim_end_matches('/').to_owned(),
            };
        }
        if at.is_empty() { "/".to_owned() } else { at }
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) fn processes(&self) -> &ProcessTable {
        &self.processes
    }

    pub(super) fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    pub(super) fn memory(&self) -> &MemoryMeter {
        self.cgroup.memory()
    }

    /// `/proc/mounts`.
    pub(super) fn mount_table(&self) -> String {
        let mut root = format!("overlay / overlay {},relatime 0 0\n", if self.read_only { "ro" } else { "rw" });
        root.push_str(SYSTEM_MOUNTS);
        self.mounts.iter().rev().fold(root, |table, mount| {
            let access = if mount.read_only { "ro" } else { "rw" };
            let source = if mount.image.is_some() { "overlay" } else { &mount.host_path };
            format!("{table}{source} {} none {access},relatime 0 0\n", mount.container_path)
        })
    }

    /// Bytes in the writable layer.
    pub fn written_bytes(&self) -> u64 {
        self.upper.get().and_then(|upper| upper.usage().ok()).map_or(0, |(used, _)| used)
    }

    /// The device at a path, if it is one.
    pub fn device(&self, path: &str) -> Option<Device> {
        Device::at(&normalize(path))
    }

    fn upper(&self) -> &MemoryFs {
        self.upper.get_or_init(|| MemoryFs::new(self.clock.clone(), WRITABLE_LAYER_BYTES))
    }

    /// The innermost mount that a path is in, and the path below it.
    fn mounted<'a>(&self, path: &'a str) -> Option<(&Mount, &'a str)> {
        self.mounts.iter().find_map(|mount| {
            let rest = path.strip_prefix(&mount.container_path)?;
            (rest.is_empty() || rest.starts_with('/') || mount.container_path == "/").then_some((mount, rest))
        })
    }

    fn place(&self, path: &str) -> Place<'_> {
        match self.mounted(path) {
            Some((Mount { image: Some(image), .. }, rest)) => {
                return match image.get(rest) {
                    Some(node) => Place::Layer(node),
                    None if rest.is_empty() => Place::Implied,
                    None => Place::Missing,
                };
            }
            Some((mount, rest)) => return Place::Mounted { path: format!("{}{rest}", mount.host_path), mount },
            None => {}
        }
        if let Some(device) = Device::at(path) {
            return Place::Device(device);
        }
        if proc::lookup(self, path).is_some() {
            return Place::Proc;
        }
        if let Some(upper) = self.upper.get().filter(|upper| upper.symlink_metadata(path).is_ok() && path != "/") {
            return Place::Upper(upper);
        }
        let below = format!("{}/", path.trim_end_matches('/'));
        let node = self.layers.iter().find_map(|layer| layer.get(path)).filter(|_| !self.is_removed(path));
        match node {
            Some(node) => Place::Layer(node),
            None if path == "/" || self.mounts.iter().any(|mount| mount.container_path.starts_with(&below)) => {
                Place::Implied
            }
            None => Place::Missing,
        }
    }

    fn is_removed(&self, path: &str) -> bool {
        let removed = self.removed.read();
        let mut at = path;
        while !removed.is_empty() && at != "/" {
            if removed.contains(at) {
                return true;
            }
            at = parent(at);
        }
        false
    }

    fn lookup(&self, path: &str) -> io::Result<Lookup> {
        let of_metadata = |fs: &dyn NodeFs, path: &str, metadata: io::Result<Metadata>| match metadata {
            Ok(Metadata { kind: FileKind::Directory, .. }) => Ok(Lookup::Directory),
            Ok(Metadata { kind: FileKind::Symlink, .. }) => Ok(Lookup::Symlink(fs.read_link(path)?)),
            Ok(_) => Ok(Lookup::File),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Lookup::Missing),
            Err(error) => Err(error),
        };
        match self.place(path) {
            Place::Mounted { path: host, mount } => {
                // The mount itself is what its host path leads to, as the kernel resolves the source of a bind mount.
                let at_mount = host == mount.host_path;
                let metadata = if at_mount { self.node.metadata(&host) } else { self.node.symlink_metadata(&host) };
                of_metadata(&*self.node, &host, metadata)
            }
            Place::Device(_) => Ok(Lookup::File),
            Place::Proc => Ok(match proc::lookup(self, path) {
                Some(ProcNode::File) => Lookup::File,
                _ => Lookup::Directory,
            }),
            Place::Upper(upper) => of_metadata(upper, path, upper.symlink_metadata(path)),
            Place::Layer(LayerNode::Directory) | Place::Implied => Ok(Lookup::Directory),
            Place::Layer(LayerNode::Symlink(target)) => Ok(Lookup::Symlink(target.clone())),
            Place::Layer(LayerNode::File(..)) => Ok(Lookup::File),
            Place::Missing => Ok(Lookup::Missing),
        }
    }

    fn resolve(&self, path: &str, follow_last: bool) -> io::Result<Resolved> {
        resolve(path, follow_last, &|path| self.lookup(path))
    }

    fn existing(&self, path: &str, follow_last: bool) -> io::Result<Resolved> {
        let resolved = self.resolve(path, follow_last)?;
        match resolved.found {
            Lookup::Missing => Err(not_found(path)),
            _ => Ok(resolved),
        }
    }

    /// The path without symbolic links.
    pub fn canonical(&self, path: &str) -> io::Result<String> {
        if let Some((files, below)) = proc::root(self, path) {
            let root = path.strip_suffix(below).unwrap_or(path);
            return Ok(format!("{root}{}", files.canonical(below)?.trim_end_matches('/')));
        }
        Ok(self.existing(path, true)?.path)
    }

    /// The content of a file. A device has none: see [`ContainerFs::device`].
    pub fn read(&self, path: &str) -> io::Result<Bytes> {
        elsewhere!(self, path, read);
        let resolved = self.existing(path, true)?;
        if resolved.found == Lookup::Directory {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, format!("{path}: is a directory")));
        }
        match self.place(&resolved.path) {
            Place::Mounted { path, .. } => self.node.read(&path),
            Place::Proc => Ok(proc::read(self, &resolved.path).unwrap_or_default().into()),
            Place::Upper(upper) => upper.read(&resolved.path),
            Place::Layer(LayerNode::File(content, _)) => Ok(content.clone()),
            _ => Ok(Bytes::new()),
        }
    }

    /// Part of a file.
    pub fn read_at(&self, path: &str, offset: u64, length: usize) -> io::Result<Bytes> {
        elsewhere!(self, path, read_at, offset, length);
        let resolved = self.existing(path, true)?;
        if let Place::Mounted { path, .. } = self.place(&resolved.path) {
            return self.node.read_at(&path, offset, length);
        }
        let content = self.read(&resolved.path)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
        let end = start.saturating_add(length).min(content.len());
        Ok(content.slice(start..end))
    }

    /// What a path leads to.
    pub fn metadata(&self, path: &str) -> io::Result<Metadata> {
        elsewhere!(self, path, metadata);
        self.metadata_of(self.existing(path, true)?)
    }

    /// What a path itself is.
    pub fn symlink_metadata(&self, path: &str) -> io::Result<Metadata> {
        elsewhere!(self, path, symlink_metadata);
        self.metadata_of(self.existing(path, false)?)
    }

    fn metadata_of(&self, resolved: Resolved) -> io::Result<Metadata> {
        let (kind, mode) = match resolved.found {
            Lookup::Directory => (FileKind::Directory, 0o755),
            Lookup::Symlink(_) => (FileKind::Symlink, 0o777),
            _ => (FileKind::File, 0o644),
        };
        let made_up = |kind, len, mode| Metadata { kind, len, mode, modified: jiff::Timestamp::UNIX_EPOCH };
        match self.place(&resolved.path) {
            Place::Mounted { path, mount } if path == mount.host_path => self.node.metadata(&path),
            Place::Mounted { path, .. } => self.node.symlink_metadata(&path),
            Place::Upper(upper) => upper.symlink_metadata(&resolved.path),
            Place::Layer(LayerNode::File(content, mode)) => Ok(made_up(kind, content.len() as u64, *mode)),
            Place::Device(_) => Ok(made_up(kind, 0, 0o666)),
            _ if resolved.path == "/tmp" => Ok(made_up(kind, 0, 0o1777)),
            _ => Ok(made_up(kind, 0, mode)),
        }
    }

    /// The kind of file system that a path is in.
    pub fn filesystem(&self, path: &str) -> io::Result<Filesystem> {
        elsewhere!(self, path, filesystem);
        let resolved = self.existing(path, true)?;
        Ok(match self.place(&resolved.path) {
            Place::Mounted { path, .. } if self.node.is_tmpfs(&path) => Filesystem::Tmpfs,
            Place::Mounted { .. } => Filesystem::Ext4,
            Place::Device(_) => Filesystem::Tmpfs,
            Place::Proc if resolved.path.starts_with("/proc") => Filesystem::Proc,
            _ => Filesystem::Overlay,
        })
    }

    /// User and group number that own what a path leads to: always root, since owners are not simulated.
    pub fn owner(&self, path: &str) -> io::Result<(u32, u32)> {
        elsewhere!(self, path, owner);
        self.existing(path, true)?;
        Ok((0, 0))
    }

    /// Names in a directory, sorted.
    pub fn list(&self, path: &str) -> io::Result<Vec<DirEntry>> {
        elsewhere!(self, path, list);
        let Resolved { path, found } = self.existing(path, true)?;
        if found != Lookup::Directory {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{path}: not a directory")));
        }
        let mut names: BTreeMap<String, FileKind> = BTreeMap::new();
        if let Some((Mount { image: Some(image), .. }, rest)) = self.mounted(&path) {
            names = image.names(rest);
        } else if let Place::Mounted { path, .. } = self.place(&path) {
            names.extend(self.node.list(&path)?.into_iter().map(|entry| (entry.name, entry.kind)));
        } else {
            let below = |name: &str| format!("{}/{name}", path.trim_end_matches('/'));
            for layer in self.layers.iter().rev() {
                let kept = layer.names(&path).filter(|(name, _)| !self.is_removed(&below(name)));
                names.extend(kept.map(|(name, node)| (name.to_string(), kind_of(node))));
            }
            if let Some(upper) = self.upper.get()
                && let Ok(entries) = upper.list(&path)
            {
                names.extend(entries.into_iter().map(|entry| (entry.name, entry.kind)));
            }
            names.extend(Device::names(&path).map(|name| (name.to_string(), FileKind::File)));
            let made_up =
                if path == "/" { vec!["dev".into(), "proc".into(), "sys".into()] } else { proc::names(self, &path) };
            for name in made_up {
                let directory = self.lookup(&below(&name))? == Lookup::Directory;
                names.insert(name, if directory { FileKind::Directory } else { FileKind::File });
            }
        }
        self.add_mount_points(&path, &mut names)?;
        Ok(names.into_iter().map(|(name, kind)| DirEntry { name, kind }).collect())
    }

    fn add_mount_points(&self, directory: &str, names: &mut BTreeMap<String, FileKind>) -> io::Result<()> {
        let prefix = format!("{}/", directory.trim_end_matches('/'));
        for mount in &self.mounts {
            let Some(rest) = mount.container_path.strip_prefix(&prefix).filter(|rest| !rest.is_empty()) else {
                continue;
            };
            let name = rest.split('/').next().unwrap_or(rest);
            let directory = self.lookup(&format!("{prefix}{name}"))? == Lookup::Directory;
            names.insert(name.to_string(), if directory { FileKind::Directory } else { FileKind::File });
        }
        Ok(())
    }

    /// Makes a path of the image or of the writable layer writable: its directory exists in the writable layer.
    fn prepare(&self, path: &str) -> io::Result<&MemoryFs> {
        // No other mount comes here: what is mounted and no image is the node's.
        if self.read_only || self.mounted(path).is_some() {
            return Err(read_only(path));
        }
        let upper = self.upper();
        upper.create_dir_all(parent(path))?;
        Ok(upper)
    }

    /// Copies a file of the image into the writable layer, before it is changed.
    fn copy_up(&self, path: &str) -> io::Result<&MemoryFs> {
        let upper = self.prepare(path)?;
        if upper.symlink_metadata(path).is_err()
            && let Place::Layer(node) = self.place(path)
        {
            match node {
                LayerNode::File(content, mode) => {
                    upper.write(path, content)?;
                    upper.set_mode(path, *mode)?;
                }
                LayerNode::Directory => upper.create_dir_all(path)?,
                LayerNode::Symlink(target) => upper.symlink(target, path)?,
            }
        }
        Ok(upper)
    }

    /// Creates or replaces a file.
    pub fn write(&self, path: &str, data: &[u8]) -> io::Result<()> {
        elsewhere!(self, path, write, data);
        let resolved = self.resolve(path, true)?;
        if resolved.found == Lookup::Directory {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, format!("{path}: is a directory")));
        }
        match self.place(&resolved.path) {
            Place::Mounted { path, mount } => self.node.write(writable(&path, mount)?, data),
            Place::Device(Device::Full) => Err(io::ErrorKind::StorageFull.into()),
            Place::Device(_) => Ok(()),
            Place::Proc => Err(io::ErrorKind::PermissionDenied.into()),
            _ => self.prepare(&resolved.path)?.write(&resolved.path, data),
        }
    }

    /// Appends to a file, creating it where needed.
    pub fn append(&self, path: &str, data: &[u8]) -> io::Result<()> {
        elsewhere!(self, path, append, data);
        let resolved = self.resolve(path, true)?;
        match self.place(&resolved.path) {
            Place::Mounted { path, mount } => self.node.append(writable(&path, mount)?, data),
            Place::Layer(_) | Place::Upper(_) | Place::Missing => {
                self.copy_up(&resolved.path)?.append(&resolved.path, data)
            }
            _ => self.write(path, data),
        }
    }

    /// Creates a directory and what is missing above it.
    pub fn create_dir_all(&self, path: &str) -> io::Result<()> {
        elsewhere!(self, path, create_dir_all);
        let mut at = "/".to_string();
        for part in normalize(path).split('/').filter(|part| !part.is_empty()) {
            let resolved = self.resolve(&format!("{at}/{part}"), true)?;
            match resolved.found {
                Lookup::Directory => {}
                Lookup::Missing => match self.place(&resolved.path) {
                    Place::Mounted { path, mount } => self.node.create_dir_all(writable(&path, mount)?)?,
                    _ => self.prepare(&resolved.path)?.create_dir_all(&resolved.path)?,
                },
                _ => return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{path}: file exists"))),
            }
            at = resolved.path;
        }
        Ok(())
    }

    /// Removes a file or link; with `recursive` a directory and all below it too.
    pub fn remove(&self, path: &str, recursive: bool) -> io::Result<()> {
        elsewhere!(self, path, remove, recursive);
        let resolved = self.existing(path, false)?;
        if resolved.found == Lookup::Directory && !recursive {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, format!("{path}: is a directory")));
        }
        match self.place(&resolved.path) {
            Place::Mounted { path, mount } if path == mount.host_path => Err(io::ErrorKind::ResourceBusy.into()),
            Place::Mounted { path, mount } => self.node.remove_all(writable(&path, mount)?),
            Place::Device(_) | Place::Proc | Place::Implied => Err(io::ErrorKind::PermissionDenied.into()),
            _ => {
                self.prepare(&resolved.path)?.remove_all(&resolved.path)?;
                if self.layers.iter().any(|layer| layer.get(&resolved.path).is_some()) {
                    self.removed.write().insert(resolved.path);
                }
                Ok(())
            }
        }
    }

    /// Moves a file, link or directory.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        if self.leads_elsewhere(from, to) {
            self.copy(from, to)?;
            return self.remove(from, true);
        }
        let (source, target) = (self.existing(from, false)?, self.resolve(to, false)?);
        match (self.place(&source.path), self.place(&target.path)) {
            (Place::Mounted { path: from, mount }, Place::Mounted { path: to, mount: other })
                if mount.container_path == other.container_path =>
            {
                self.node.rename(writable(&from, mount)?, &to)
            }
            _ => {
                self.copy(&source.path, &target.path)?;
                self.remove(&source.path, true)
            }
        }
    }

    /// Copies a file, link or directory with all below it.
    pub fn copy(&self, from: &str, to: &str) -> io::Result<()> {
        if self.leads_elsewhere(from, to) {
            return self.copy_across(from, to);
        }
        let source = self.existing(from, false)?;
        match source.found {
            Lookup::Symlink(target) => self.symlink(&target, to),
            Lookup::Directory => {
                if normalize(to).starts_with(&format!("{}/", source.path)) {
                    return Err(io::ErrorKind::InvalidInput.into());
                }
                self.create_dir_all(to)?;
                for entry in self.list(&source.path)? {
                    self.copy(&format!("{}/{}", source.path, entry.name), &format!("{to}/{}", entry.name))?;
                }
                Ok(())
            }
            _ => {
                let mode = self.metadata(&source.path)?.mode;
                self.write(to, &self.read(&source.path)?)?;
                self.set_mode(to, mode)
            }
        }
    }

    /// Whether one of two paths is another container's.
    fn leads_elsewhere(&self, from: &str, to: &str) -> bool {
        proc::root(self, from).is_some() || proc::root(self, to).is_some()
    }

    fn copy_across(&self, from: &str, to: &str) -> io::Result<()> {
        let metadata = self.symlink_metadata(from)?;
        match metadata.kind {
            FileKind::Symlink => self.symlink(&self.read_link(from)?, to),
            FileKind::Directory => {
                // Read before anything is written: one may be within the other.
                let entries = self.list(from)?;
                self.create_dir_all(to)?;
                let copy = |name: String| self.copy_across(&format!("{from}/{name}"), &format!("{to}/{name}"));
                entries.into_iter().try_for_each(|entry| copy(entry.name))
            }
            FileKind::File => {
                self.write(to, &self.read(from)?)?;
                self.set_mode(to, metadata.mode)
            }
        }
    }

    /// Creates a symbolic link.
    pub fn symlink(&self, target: &str, link: &str) -> io::Result<()> {
        if let Some((files, link)) = proc::root(self, link) {
            return files.symlink(target, link);
        }
        let resolved = self.resolve(link, false)?;
        if resolved.found != Lookup::Missing {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{link}: file exists")));
        }
        match self.place(&resolved.path) {
            Place::Mounted { path, mount } => self.node.symlink(target, writable(&path, mount)?),
            _ => self.prepare(&resolved.path)?.symlink(target, &resolved.path),
        }
    }

    /// The text of a symbolic link.
    pub fn read_link(&self, path: &str) -> io::Result<String> {
        elsewhere!(self, path, read_link);
        match self.existing(path, false)?.found {
            Lookup::Symlink(target) => Ok(target),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{path}: not a symbolic link"))),
        }
    }

    /// Sets the permission bits.
    pub fn set_mode(&self, path: &str, mode: u32) -> io::Result<()> {
        elsewhere!(self, path, set_mode, mode);
        let resolved = self.existing(path, true)?;
        match self.place(&resolved.path) {
            Place::Mounted { path, mount } => self.node.set_mode(writable(&path, mount)?, mode),
            Place::Layer(_) | Place::Upper(_) => self.copy_up(&resolved.path)?.set_mode(&resolved.path, mode),
            _ => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }

    /// Sets when the content of a file or directory last changed.
    pub fn set_modified(&self, path: &str, modified: jiff::Timestamp) -> io::Result<()> {
        elsewhere!(self, path, set_modified, modified);
        let resolved = self.existing(path, true)?;
        match self.place(&resolved.path) {
            Place::Mounted { path, mount } => self.node.set_modified(writable(&path, mount)?, modified),
            Place::Layer(_) | Place::Upper(_) => self.copy_up(&resolved.path)?.set_modified(&resolved.path, modified),
            _ => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }

    /// Waits for a change of a file; `None` where it cannot change by itself.
    pub fn watch(&self, path: &str) -> Option<minik8s_cri::FileWatch> {
        elsewhere!(self, path, watch);
        let resolved = self.resolve(path, true).ok()?;
        match self.place(&resolved.path) {
            Place::Mounted { path, .. } => Some(self.node.watch(&path)),
            Place::Upper(_) | Place::Layer(_) | Place::Missing => Some(self.upper().watch(&resolved.path)),
            _ => None,
        }
    }
}

fn kind_of(node: &LayerNode) -> FileKind {
    match node {
        LayerNode::Directory => FileKind::Directory,
        LayerNode::File(..) => FileKind::File,
        LayerNode::Symlink(_) => FileKind::Symlink,
    }
}

fn writable<'a>(path: &'a str, mount: &Mount) -> io::Result<&'a str> {
    if mount.read_only { Err(read_only(path)) } else { Ok(path) }
}

fn read_only(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::ReadOnlyFilesystem, format!("{path}: read-only file system"))
}

fn not_found(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{path}: no such file or directory"))
}
