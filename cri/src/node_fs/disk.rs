//! A node's files in a folder of the machine.

use super::resolve::not_found;
use super::tmpfs::TmpfsMounts;
use super::{DirEntry, FileKind, FileWatch, FileWatchers, Lookup, Metadata, NodeFs, Resolved, normalize, resolve};
use bytes::Bytes;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A folder that stands for a node's whole disk: `/var/log/x` is `<root>/var/log/x`. Symbolic links are followed by this
/// code and not by the operating system, so that none leads out of the folder.
pub struct DiskFs {
    root: PathBuf,
    watchers: FileWatchers,
    tmpfs: TmpfsMounts,
    /// How many bytes there are said to be.
    capacity: u64,
}

impl DiskFs {
    /// A file system in `root`, which is created where it is missing.
    pub fn new(root: impl Into<PathBuf>) -> io::Result<DiskFs> {
        let root = root.into();
        fs::create_dir_all(&root)?;
        Ok(DiskFs { root, watchers: FileWatchers::default(), tmpfs: TmpfsMounts::default(), capacity: u64::MAX })
    }

    /// The same, said to hold so many bytes. What the folder may really grow to is the host's business.
    pub fn with_capacity(mut self, bytes: u64) -> DiskFs {
        self.capacity = bytes;
        self
    }

    fn host_path(&self, path: &str) -> PathBuf {
        path.split('/').filter(|part| !part.is_empty()).fold(self.root.clone(), |at, part| at.join(part))
    }

    fn lookup(&self, path: &str) -> io::Result<Lookup> {
        let host_path = self.host_path(path);
        let metadata = match fs::symlink_metadata(&host_path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Lookup::Missing),
            Err(error) => return Err(error),
        };
        if metadata.is_symlink() {
            let target = fs::read_link(&host_path)?;
            return Ok(Lookup::Symlink(target.to_string_lossy().into_owned()));
        }
        Ok(if metadata.is_dir() { Lookup::Directory } else { Lookup::File })
    }

    fn resolve(&self, path: &str, follow_last: bool) -> io::Result<Resolved> {
        resolve(path, follow_last, &|path| self.lookup(path))
    }

    fn put(&self, path: &str, options: &OpenOptions, data: &[u8]) -> io::Result<()> {
        let Resolved { path, found } = self.resolve(path, true)?;
        options.open(self.host_path(&path))?.write_all(data)?;
        match found {
            Lookup::Missing => self.watchers.name_changed(&path),
            _ => self.watchers.content_changed(&path),
        }
        Ok(())
    }

    fn metadata_of(&self, path: &str, follow_last: bool) -> io::Result<Metadata> {
        let resolved = self.resolve(path, follow_last)?;
        let kind = match resolved.found {
            Lookup::Missing => return Err(not_found(path)),
            Lookup::Directory => FileKind::Directory,
            Lookup::Symlink(_) => FileKind::Symlink,
            Lookup::File => FileKind::File,
        };
        let metadata = fs::symlink_metadata(self.host_path(&resolved.path))?;
        let modified = jiff::Timestamp::try_from(metadata.modified()?).map_err(io::Error::other)?;
        let len = if kind == FileKind::Directory { 0 } else { metadata.len() };
        Ok(Metadata { kind, len, mode: mode_of(&metadata), modified })
    }
}

impl NodeFs for DiskFs {
    fn read(&self, path: &str) -> io::Result<Bytes> {
        let resolved = self.resolve(path, true)?;
        Ok(fs::read(self.host_path(&resolved.path))?.into())
    }

    fn read_at(&self, path: &str, offset: u64, length: usize) -> io::Result<Bytes> {
        let resolved = self.resolve(path, true)?;
        let mut file = fs::File::open(self.host_path(&resolved.path))?;
        file.seek(SeekFrom::Start(offset))?;
        let mut data = Vec::new();
        file.take(length as u64).read_to_end(&mut data)?;
        Ok(data.into())
    }

    fn write(&self, path: &str, data: &[u8]) -> io::Result<()> {
        self.put(path, OpenOptions::new().write(true).create(true).truncate(true), data)
    }

    fn append(&self, path: &str, data: &[u8]) -> io::Result<()> {
        self.put(path, OpenOptions::new().append(true).create(true), data)
    }

    fn metadata(&self, path: &str) -> io::Result<Metadata> {
        self.metadata_of(path, true)
    }

    fn symlink_metadata(&self, path: &str) -> io::Result<Metadata> {
        self.metadata_of(path, false)
    }

    fn list(&self, path: &str) -> io::Result<Vec<DirEntry>> {
        let resolved = self.resolve(path, true)?;
        let mut entries = Vec::new();
        for entry in fs::read_dir(self.host_path(&resolved.path))? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let kind = match (kind.is_symlink(), kind.is_dir()) {
                (true, _) => FileKind::Symlink,
                (_, true) => FileKind::Directory,
                _ => FileKind::File,
            };
            entries.push(DirEntry { name: entry.file_name().to_string_lossy().into_owned(), kind });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn create_dir_all(&self, path: &str) -> io::Result<()> {
        let mut at = String::new();
        for part in normalize(path).split('/').filter(|part| !part.is_empty()) {
            let Resolved { path, found } = self.resolve(&format!("{at}/{part}"), true)?;
            if found == Lookup::Missing {
                fs::create_dir(self.host_path(&path))?;
                self.watchers.name_changed(&path);
            } else if found != Lookup::Directory {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{path}: file exists")));
            }
            at = if path == "/" { String::new() } else { path };
        }
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
        let resolved = self.resolve(path, false)?.path;
        fs::remove_file(self.host_path(&resolved))?;
        self.watchers.name_changed(&resolved);
        Ok(())
    }

    fn remove_all(&self, path: &str) -> io::Result<()> {
        self.tmpfs.forget(path);
        let resolved = match self.resolve(path, false) {
            Ok(resolved) => resolved,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let host_path = self.host_path(&resolved.path);
        match resolved.found {
            Lookup::Missing => return Ok(()),
            Lookup::Directory => fs::remove_dir_all(host_path)?,
            _ => fs::remove_file(host_path)?,
        }
        self.watchers.name_changed(&resolved.path);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (source, target) = (self.resolve(from, false)?.path, self.resolve(to, false)?.path);
        fs::rename(self.host_path(&source), self.host_path(&target))?;
        self.watchers.name_changed(&source);
        self.watchers.name_changed(&target);
        Ok(())
    }

    fn symlink(&self, target: &str, link: &str) -> io::Result<()> {
        let resolved = self.resolve(link, false)?;
        if resolved.found != Lookup::Missing {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{link}: file exists")));
        }
        create_symlink(Path::new(target), &self.host_path(&resolved.path))?;
        self.watchers.name_changed(&resolved.path);
        Ok(())
    }

    fn read_link(&self, path: &str) -> io::Result<String> {
        match self.resolve(path, false)?.found {
            Lookup::Symlink(target) => Ok(target),
            Lookup::Missing => Err(not_found(path)),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{path}: not a symbolic link"))),
        }
    }

    fn set_mode(&self, path: &str, mode: u32) -> io::Result<()> {
        let resolved = self.resolve(path, true)?;
        set_host_mode(&self.host_path(&resolved.path), mode)
    }

    fn set_modified(&self, path: &str, modified: jiff::Timestamp) -> io::Result<()> {
        let host = self.host_path(&self.resolve(path, true)?.path);
        // Only Windows wants a file to be open for writing here, and a directory cannot be.
        fs::File::options().read(true).write(cfg!(windows)).open(host)?.set_modified(modified.into())
    }

    fn usage(&self) -> io::Result<(u64, u64)> {
        // What it holds is summed up.
        fn size(path: &Path) -> io::Result<u64> {
            let metadata = fs::symlink_metadata(path)?;
            if !metadata.is_dir() {
                return Ok(metadata.len());
            }
            fs::read_dir(path)?.try_fold(0, |sum, entry| Ok(sum + size(&entry?.path())?))
        }
        Ok((size(&self.root)?, self.capacity))
    }

    fn watch(&self, path: &str) -> FileWatch {
        let resolved = self.resolve(path, true).map(|resolved| resolved.path);
        self.watchers.watch(resolved.as_deref().unwrap_or(path))
    }
}

#[cfg(unix)]
fn mode_of(metadata: &fs::Metadata) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o7777
}

/// Other systems know only whether a file may be written.
#[cfg(not(unix))]
fn mode_of(metadata: &fs::Metadata) -> u32 {
    let mode = if metadata.is_dir() { 0o755 } else { 0o644 };
    if metadata.permissions().readonly() { mode & 0o555 } else { mode }
}

#[cfg(unix)]
fn set_host_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
}

#[cfg(not(unix))]
fn set_host_mode(path: &Path, mode: u32) -> io::Result<()> {
    let mut permissions = fs::metadata(path)?.permissions();
    permissions.set_readonly(mode & 0o200 == 0);
    fs::set_permissions(path, permissions)
}

#[cfg(unix)]
fn create_symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

/// Links need a privilege on Windows; a simulated node there keeps its files in memory.
#[cfg(not(unix))]
fn create_symlink(_target: &Path, link: &Path) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, format!("{}: no symbolic links on this system", link.display())))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn links_do_not_lead_out_of_the_folder() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let fs = DiskFs::new(folder.path()).expect("opened");
        fs.create_dir_all("/etc").expect("created");
        fs.symlink("/etc/passwd", "/link").expect("linked");
        assert_eq!(fs.read("/link").expect_err("not the host's file").kind(), io::ErrorKind::NotFound);
        fs.write("/link", b"ours").expect("written inside");
        assert_eq!(fs.read("/etc/passwd").expect("inside"), "ours");
        assert_eq!(fs.metadata("/link").expect("known").len, 4);
    }

    #[test]
    fn a_link_is_replaced_in_one_step() {
        // The kubelet's volumes are updated like this (pkg/volume/util/atomic_writer.go).
        let folder = tempfile::tempdir().expect("temporary folder");
        let fs = DiskFs::new(folder.path()).expect("opened");
        fs.create_dir_all("/v/..1").expect("created");
        fs.create_dir_all("/v/..2").expect("created");
        fs.symlink("..1", "/v/..data").expect("linked");
        fs.symlink("..2", "/v/..tmp").expect("linked");
        fs.rename("/v/..tmp", "/v/..data").expect("replaced");
        assert_eq!(fs.read_link("/v/..data").expect("a link"), "..2");
        fs.remove_all("/v").expect("removed");
        assert!(!fs.exists("/v"));
    }
}
