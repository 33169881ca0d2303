//! Files that change all at once.
//!
//! The files lie in a folder of their own with a new name for each update; `..data` is a symbolic link to it that is
//! replaced by a rename, and the names users see are links through `..data`. A reader sees the old files or the new ones.
//! (`pkg/volume/util/atomic_writer.go`.)

use std::collections::BTreeSet;
use std::io;

use minik8s_cri::NodeFs;

use super::payload::Files;

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// Makes `files` the content of the folder `path`.
///
/// # Errors
/// The file system's.
pub fn write(fs: &dyn NodeFs, path: &str, files: &Files) -> io::Result<()> {
    fs.create_dir_all(path)?;
    let old = fs.read_link(&format!("{path}/{DATA}")).ok();
    let version = old.as_deref().and_then(|name| name.strip_prefix("..v")?.parse::<u64>().ok()).map_or(0, |v| v + 1);
    let folder = format!("..v{version}");
    // A kubelet that died halfway may have left one of that name.
    fs.remove_all(&format!("{path}/{folder}"))?;
    fs.create_dir_all(&format!("{path}/{folder}"))?;
    for (name, file) in files {
        let target = format!("{path}/{folder}/{name}");
        if let Some((parent, _)) = target.rsplit_once('/') {
            fs.create_dir_all(parent)?;
        }
        fs.write(&target, &file.data)?;
        fs.set_mode(&target, file.mode)?;
    }
    let new_data = format!("{path}/{NEW_DATA}");
    fs.remove_all(&new_data)?;
    fs.symlink(&folder, &new_data)?;
    fs.rename(&new_data, &format!("{path}/{DATA}"))?;
    link_names(fs, path, files)?;
    if let Some(old) = old.filter(|old| *old != folder) {
        fs.remove_all(&format!("{path}/{old}"))?;
    }
    Ok(())
}

/// Makes a link for every first path component, and removes those of files that are gone.
fn link_names(fs: &dyn NodeFs, path: &str, files: &Files) -> io::Result<()> {
    let names: BTreeSet<&str> = files.keys().filter_map(|name| name.split('/').next()).collect();
    for entry in fs.list(path)? {
        if !entry.name.starts_with("..") && !names.contains(entry.name.as_str()) {
            fs.remove_all(&format!("{path}/{}", entry.name))?;
        }
    }
    for name in names {
        let link = format!("{path}/{name}");
        if fs.symlink_metadata(&link).is_err() {
            fs.symlink(&format!("{DATA}/{name}"), &link)?;
        }
    }
    Ok(())
}
